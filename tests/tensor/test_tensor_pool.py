"""Pooling, and neighbourhoods as rows, against plain NumPy, on every back end."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygraph
import tinygraph.tensor as T
from tinygraph.errors import ShapeError
from tinygraph.gradient_check import verify_grad
from tinygraph.graph import toposort
from tinygraph.ops.windows import Unwindows
from tinygraph.tensor.nnet.neighbours import images2neibs, neibs2images
from tinygraph.tensor.signal.downsample import max_pool_2d, max_pool_2d_same_size
from tinygraph.tensor.signal.pool import pool_2d, pool_3d

BACKENDS = ["numpy", "loops", "llvm"]
ON_ALL = pytest.mark.parametrize("backend", BACKENDS)


def pool_reference(x, ws, stride, pad, ignore, mode):
    """Pooling, one window at a time."""
    rank = len(ws)
    sizes = x.shape[-rank:]
    counts = []
    for n, w, s, p in zip(sizes, ws, stride, pad, strict=True):
        if ignore:
            counts.append((n + 2 * p - w) // s + 1)
        else:
            counts.append((n - 1) // s + 1 if s >= w else max(0, (n - 1 - w + s) // s) + 1)
    out = np.zeros((*x.shape[:-rank], *counts))
    for at in itertools.product(*map(range, counts)):
        part, wide = [], 1
        for i, n, w, s, p in zip(at, sizes, ws, stride, pad, strict=True):
            part.append(slice(max(i * s - p, 0), min(i * s - p + w, n)))
            wide *= min(i * s + w, n + 2 * p) - i * s
        seen = x[(..., *part)]
        seen = seen.reshape(*x.shape[:-rank], int(np.prod(seen.shape[-rank:])))
        total = seen.sum(-1)
        out[(..., *at)] = {"max": lambda s=seen: s.max(-1), "sum": lambda t=total: t,
                           "average_inc_pad": lambda t=total, n=wide: t / n,
                           "average_exc_pad": lambda s=seen: s.mean(-1)}[mode]()
    return out


@st.composite
def poolings(draw):
    rank = draw(st.sampled_from([2, 2, 3]))
    ws = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    stride = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    ignore = draw(st.booleans())
    pad = tuple(draw(st.integers(0, w - 1)) if ignore else 0 for w in ws)
    lead = tuple(draw(st.integers(0, 2)) for _ in range(draw(st.integers(0, 5 - rank))))
    shape = (*lead, *(w + draw(st.integers(0, 4)) for w in ws))
    mode = draw(st.sampled_from(["max", "sum", "average_inc_pad", "average_exc_pad"]))
    return shape, ws, stride, pad, ignore, mode


@settings(max_examples=25, deadline=None)
@given(case=poolings(), backend=st.sampled_from(["llvm", "llvm", "loops", "numpy"]))
def test_pooling(case, backend):
    shape, ws, stride, pad, ignore, mode = case
    x = T.TensorType("float64", (False,) * len(shape))("x")
    pool = pool_2d if len(ws) == 2 else pool_3d
    out = pool(x, ws=ws, stride=stride, pad=pad, ignore_border=ignore, mode=mode)
    f = tinygraph.function([x], [out, tinygraph.grad((out ** 2).sum(), x)], backend=backend)
    a = np.random.default_rng(3).normal(size=shape)
    got, slope = f(a)
    want = pool_reference(a, ws, stride, pad, ignore, mode)
    np.testing.assert_allclose(got, want, atol=1e-12)
    if a.size:
        direction, step = np.random.default_rng(4).normal(size=shape), 1e-6
        sides = [(pool_reference(a + e * direction, ws, stride, pad, ignore, mode) ** 2).sum()
                 for e in (step, -step)]
        numeric = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose((slope * direction).sum(), numeric, rtol=1e-4, atol=1e-4)


@ON_ALL
def test_tied_maxima_all_get_the_gradient(backend):
    """As in Theano 1.0.5."""
    x = T.dmatrix("x")
    g = tinygraph.grad(pool_2d(x, (2, 2), ignore_border=True).sum(), x)
    a = np.array([[1.0, 1, 0, 2], [1, 0, 2, 2]])
    expected = np.array([[1.0, 1, 0, 1], [1, 0, 1, 1]])
    np.testing.assert_array_equal(tinygraph.function([x], g, backend=backend)(a), expected)


def test_max_pooling_can_be_differentiated_twice(rng):
    def slope(x):
        return T.grad((pool_2d(x, (2, 3), stride=(1, 2), ignore_border=True) ** 3).sum(), x)

    verify_grad(slope, [rng.normal(size=(2, 6, 7))])


def test_one_compile_pools_all_sizes(rng):
    x = T.tensor4("x")
    for ignore in (True, False):
        f = tinygraph.function([x], pool_2d(x, (3, 2), ignore, (2, 2)))
        for shape in ((2, 3, 9, 9), (1, 2, 3, 2), (0, 1, 6, 5), (4, 1, 30, 31)):
            a = rng.normal(size=shape).astype("float32")
            want = pool_reference(a, (3, 2), (2, 2), (0, 0), ignore, "max")
            np.testing.assert_allclose(f(a), want)
        assert f.compiles == 1


def test_integers_are_pooled(rng):
    x = T.imatrix("x")
    a = rng.integers(-9, 9, (5, 6)).astype("int32")
    f = tinygraph.function([x], [pool_2d(x, 2, False), pool_2d(x, 2, True, pad=1),
                                 pool_2d(x, 2, True, mode="sum")])
    got = f(a)
    assert [g.dtype.name for g in got] == ["int32"] * 3
    np.testing.assert_array_equal(got[0], pool_reference(a, (2, 2), (2, 2), (0, 0), False, "max"))
    np.testing.assert_array_equal(got[1], pool_reference(a, (2, 2), (2, 2), (1, 1), True, "max"))
    np.testing.assert_array_equal(got[2], pool_reference(a, (2, 2), (2, 2), (0, 0), True, "sum"))


def test_older_names(rng):
    a = rng.normal(size=(2, 7, 7))
    x = T.dtensor3("x")
    f = tinygraph.function([x], [
        pool_2d(x, ds=(3, 3), st=(2, 2), padding=(1, 1), ignore_border=True),
        pool_2d(x, ws=(3, 3), stride=(2, 2), pad=(1, 1), ignore_border=True),
        max_pool_2d(x, (2, 2), True), T.signal.pool.pool_2d(x, 2, True)])
    one, two, three, four = f(a)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(three, four)


@pytest.mark.parametrize("arguments, error, words", [
    (dict(ws=(2, 2), mode="mean"), ValueError, "mode is 'mean'"), (dict(), ValueError, "missing"),
    (dict(ws=(2, 2, 2)), ValueError, "2 integers"), (dict(ws=0), ValueError, "at least 1"),
    (dict(ws=2, pad=1), ValueError, "needs ignore_border=True"),
    (dict(ws=2, pad=2, ignore_border=True), ValueError, "less than ws"),
    (dict(ws=2, ds=2), ValueError, "two names"), (dict(ws=2, stride=2, st=2), ValueError, "names"),
])
def test_wrong_poolings(arguments, error, words):
    with pytest.raises(error, match=words):
        pool_2d(T.tensor4("x"), **arguments)


def test_pooling_wrong_ranks_and_sizes():
    with pytest.raises(TypeError, match="last 2 axes"):
        pool_2d(T.vector("v"), 2)
    x = T.matrix("x")
    f = tinygraph.function([x], pool_2d(x, 3, True))
    with pytest.raises(ShapeError, match="takes 3 elements, but there are 2"):
        f(np.zeros((2, 5), "float32"))


def test_same_size(rng):
    a = rng.normal(size=(2, 5, 6))
    x = T.dtensor3("x")
    got = tinygraph.function([x], max_pool_2d_same_size(x, (2, 3)))(a)
    want = np.zeros_like(a)
    for n, i, j in itertools.product(range(2), range(2), range(2)):
        part = (n, slice(2 * i, 2 * i + 2), slice(3 * j, 3 * j + 3))
        want[part] = np.where(a[part] == a[part].max(), a[part], 0)
    np.testing.assert_array_equal(got, want)


def test_neighbourhoods(rng):
    a = rng.normal(size=(2, 3, 4, 6))
    x = T.dtensor4("x")
    want = a.reshape(2, 3, 2, 2, 2, 3).transpose(0, 1, 2, 4, 3, 5).reshape(-1, 6)
    rows = images2neibs(x, (2, 3))
    f = tinygraph.function([x], [rows, neibs2images(rows, (2, 3), x.shape),
                                 images2neibs(x, (2, 2), (1, 2), "ignore_borders")])
    got = f(a)
    np.testing.assert_array_equal(got[0], want)
    np.testing.assert_array_equal(got[1], a)
    np.testing.assert_array_equal(got[2][1], a[0, 0, :2, 2:4].ravel())
    assert got[2].shape == (2 * 3 * 3 * 3, 4)
    with pytest.raises(ShapeError, match="axis 2 of x"):
        f(a[:, :, :3])
    with pytest.raises(ValueError, match="mode is 'wrapped'"):
        images2neibs(x, (2, 3), mode="wrapped")


def test_wrapped_neighbourhoods(rng):
    a = rng.normal(size=(1, 2, 4, 5))
    x = T.dtensor4("x")
    got = tinygraph.function([x], images2neibs(x, (3, 3), (1, 1), "wrap_centered"))(a)
    assert got.shape == (1 * 2 * 4 * 5, 9)
    np.testing.assert_array_equal(got[0], a[0, 0][[-1, 0, 1]][:, [-1, 0, 1]].ravel())
    with pytest.raises(ValueError, match="odd sizes"):
        images2neibs(x, (2, 3), mode="wrap_centered")


def test_windows_that_leave_gaps(rng):
    """The gradient of what no window sees is zero."""
    x = T.dmatrix("x")
    g = tinygraph.grad(pool_2d(x, 1, True, 3, mode="sum").sum(), x)
    assert any(isinstance(n.op, Unwindows) for n in toposort([g]))
    want = np.zeros((5, 7))
    want[::3, ::3] = 1
    for backend in BACKENDS:
        np.testing.assert_array_equal(
            tinygraph.function([x], g, backend=backend)(np.ones((5, 7))), want)
