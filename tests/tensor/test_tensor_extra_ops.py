"""Counts, diagonals, flat and multiple indices, choices, covariance: all back ends against NumPy,
gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from backend_checks import BACKENDS, agrees, on_all
from tensor_checks import value

import tinygraph
import tinygraph.tensor as T
from tinygraph.tensor import extra_ops


def test_bincount(rng):
    x = rng.integers(0, 6, 20).astype("int32")
    w = rng.normal(size=20).astype("float32")
    agrees(T.bincount, np.bincount(x), x)
    agrees(lambda x: T.bincount(x, minlength=9, assert_nonneg=True), np.bincount(x, minlength=9), x)
    agrees(T.bincount, np.bincount(x, w).astype("float32"), x, w)
    for empty in (np.zeros(0, "int64"), np.zeros(0, "uint8")):
        agrees(T.bincount, np.zeros(0, "int64"), empty)
        agrees(lambda x: T.bincount(x, minlength=2), np.zeros(2, "int64"), empty)
    tinygraph.verify_grad(lambda w: T.bincount(x, w) ** 2, [w.astype("float64")])


def test_bincount_of_other_sizes():
    x = T.lvector("x")
    for backend in BACKENDS:
        f = tinygraph.function([x], T.bincount(x), backend=backend)
        for array in ([0, 0, 3], [1, 1, 1], [7, 0, 2]):
            np.testing.assert_array_equal(f(array), np.bincount(array))
        with pytest.raises(IndexError, match="-2 in what bincount counts .x .* less than 4"):
            f([3, -2, 1])


def test_mistakes_of_bincount():
    with pytest.raises(TypeError, match="integers, not x"):
        T.bincount(T.vector("x"))
    with pytest.raises(TypeError, match="a vector, not x"):
        T.bincount(T.imatrix("x"))
    with pytest.raises(TypeError, match="weights must be a vector"):
        T.bincount(T.ivector("x"), T.matrix("w"))


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (0, 3), (3, 3, 3)])
def test_fill_diagonal(shape, rng):
    x = rng.normal(size=shape)
    expected = x.copy()
    if x.size:
        np.fill_diagonal(expected[:min(shape)] if len(shape) == 2 else expected, 7.0)
    agrees(lambda x: T.fill_diagonal(x, 7), expected, x)
    v = T.scalar("v", dtype="float64")
    found = tinygraph.function([v], T.fill_diagonal(x, v))(7.0)
    np.testing.assert_array_equal(found, expected)
    if x.size:
        tinygraph.verify_grad(lambda x, v: T.fill_diagonal(x, v), [x, np.array(2.0)])


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2)])
@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 3, 9])
def test_fill_diagonal_offset(shape, offset, rng):
    x = rng.normal(size=shape)
    rows, columns = np.indices(shape)
    expected = np.where(rows + offset == columns, 7.0, x)
    agrees(lambda x: T.fill_diagonal_offset(x, 7.0, offset), expected, x)
    agrees(lambda x, k: extra_ops.fill_diagonal_offset(x, 7.0, k), expected, x, offset)


def test_mistakes_of_diagonals():
    m = T.fmatrix("m")
    with pytest.raises(TypeError, match="two axes or more, not v"):
        T.fill_diagonal(T.vector("v"), 1)
    for array, number in ((m, T.dscalar("x")), (m, T.fvector("x")), (T.imatrix("m"), 2.5),
                          (m, np.array(2.0))):
        with pytest.raises(TypeError, match="a scalar that fits into m"):
            T.fill_diagonal(array, number)
    assert T.fill_diagonal(m, T.bscalar()).dtype == "float32"
    with pytest.raises(TypeError, match="a matrix and a scalar offset"):
        T.fill_diagonal_offset(m, 1, T.ivector("k"))
    with pytest.raises(ValueError, match="axis 1 of x"):
        value(lambda x: T.fill_diagonal(x, 1), np.zeros((2, 3, 2)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(7,), (2, 3), (4, 1, 5)])
def test_flat_and_multiple_indices(shape, order, rng):
    flat = rng.integers(0, np.prod(shape), (2, 6)).astype("int32")
    expected = np.unravel_index(flat, shape, order)
    found = on_all(lambda i: T.unravel_index(i, shape, order), flat)
    np.testing.assert_array_equal(found, expected)
    lengths = T.lvector("lengths")
    i = T.imatrix("i")
    found = tinygraph.function([i, lengths], list(
        T.unravel_index(i, lengths, order, ndim=len(shape))))(flat, shape)
    np.testing.assert_array_equal(found, expected)
    agrees(lambda *index: T.ravel_multi_index(index, shape, order=order), flat.astype("int64"),
           *expected)
    outside = [rng.integers(-9, 10, 8) for _ in shape]
    for mode in ("wrap", "clip", ("wrap", "clip", "wrap")[:len(shape)]):
        agrees(lambda *index, mode=mode: T.ravel_multi_index(index, shape, mode, order),
               np.ravel_multi_index(outside, shape, mode, order), *outside)


def test_indices_out_of_range():
    i = T.ivector("i")
    for backend in BACKENDS:
        f = tinygraph.function([i], list(T.unravel_index(i, (2, 3))), backend=backend)
        g = tinygraph.function([i], T.ravel_multi_index((i, i), (2, 3)), backend=backend)
        for bad in (6, -1):
            with pytest.raises(IndexError, match=f"{bad} in an index of unravel_index .i"):
                f([0, bad])
            with pytest.raises(IndexError, match=f"{bad} in index . of ravel_multi_index .i"):
                g([0, bad])
    with pytest.raises(ValueError, match="order is 'A'"):
        T.unravel_index(i, (2, 3), order="A")
    with pytest.raises(ValueError, match="pass ndim="):
        T.unravel_index(i, T.lvector("shape"))
    with pytest.raises(ValueError, match="1 indices and 2 modes for 2 axes"):
        T.ravel_multi_index((i,), (2, 3))
    with pytest.raises(ValueError, match="mode is 'none'"):
        T.ravel_multi_index((i, i), (2, 3), mode="none")


def test_choose(rng):
    a, m = rng.integers(0, 3, (4, 5)), rng.normal(size=(3, 4, 5))
    agrees(T.choose, np.choose(a, m), a, m)
    row = rng.normal(size=5)
    agrees(lambda a, m, r: a.choose([m[0], r, 2.0]), np.choose(a, [m[0], row, 2.0]), a, m, row)
    agrees(lambda a, r: T.choose(a[0], T.stack([r, r * 2, r * 3])),
           np.choose(a[0], [row, row * 2, row * 3]), a, row)
    agrees(lambda a, r: T.choose(a, T.stack([r, r * 2, r * 3])),
           np.choose(a, [row, row * 2, row * 3]), a, row)
    agrees(lambda a, m: T.choose(a[0, 0], m), m[a[0, 0]], a, m)
    wide = rng.integers(-7, 8, (4, 5))
    for mode in ("wrap", "clip"):
        agrees(lambda a, m, mode=mode: T.choose(a, m, mode=mode), np.choose(wide, m, mode=mode),
               wide, m)
    tinygraph.verify_grad(lambda m: T.choose(a, m) ** 2, [m])


def test_mistakes_of_choose():
    a, m = T.ivector("a"), T.dmatrix("m")
    for backend in BACKENDS:
        f = tinygraph.function([a, m], T.choose(a, m), backend=backend)
        for bad in (2, -1):
            with pytest.raises(IndexError, match=f"{bad} in the index of choose .a"):
                f([0, bad, 1], np.zeros((2, 3)))
    with pytest.raises(ValueError, match="mode is 'none'"):
        T.choose(a, m, mode="none")
    with pytest.raises(TypeError, match="must be of integers, not x"):
        T.choose(T.vector("x"), m)
    with pytest.raises(TypeError, match="out must be None"):
        T.choose(a, m, out=m)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 8])
def test_bartlett(n):
    with tinygraph.config.change(floatX="float64"):
        agrees(lambda m: T.bartlett(m), np.bartlett(n), n)


@pytest.mark.parametrize("options", [
    {}, {"rowvar": False}, {"bias": True}, {"ddof": 0}, {"fweights": [1, 2, 3, 1]},
    {"aweights": [0.5, 1, 2, 1]}, {"fweights": [1, 2, 3, 1], "aweights": [0.5, 1, 2, 1]},
    {"aweights": [0.5, 1, 2, 1], "ddof": 0}], ids=str)
def test_cov(options, rng):
    x = rng.normal(size=(4, 4))
    known = {k: np.array(v) if isinstance(v, list) else v for k, v in options.items()}
    agrees(lambda x: T.cov(x, **known), np.cov(x, **known), x)
    agrees(lambda x, y: T.cov(x, y, **known), np.cov(x, x[::-1] + 1, **known), x, x[::-1] + 1)
    tinygraph.verify_grad(lambda x: T.cov(x, **known), [x])


def test_cov_of_a_vector(rng):
    x = rng.normal(size=6)
    agrees(T.cov, np.cov(x).reshape(1, 1), x)
    agrees(lambda x: T.cov(x, x ** 2), np.cov(x, x ** 2), x)
    with pytest.raises(TypeError, match="a vector or a matrix, not t"):
        T.cov(T.tensor3("t"))


def test_the_module_that_programs_import():
    assert T.extra_ops is extra_ops
    assert all(callable(getattr(extra_ops, name)) for name in extra_ops.__all__)
    x = T.vector("x")
    assert T.extra_ops.repeat(x, 2, 0).ndim == 1
    assert T.extra_ops.to_one_hot(T.ivector(), 3).ndim == 2
    assert T.extra_ops.cumsum(T.matrix()).ndim == 1
