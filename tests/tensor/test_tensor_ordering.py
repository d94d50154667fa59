"""Sorting, running sums and products, and what goes with them: all back ends against NumPy,
gradients against finite differences."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from backend_checks import BACKENDS, agrees, on_all
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_checks import check

import tinygraph
import tinygraph.tensor as T
from tinygraph.graph import apply
from tinygraph.ops.cumulative import Cumulate, LinearRecurrence
from tinygraph.ops.ordering import Argsort, Searchsorted
from tinygraph.tensor import extra_ops

DTYPES = ("float64", "float32", "int64", "int8", "uint8", "bool")

# --- against NumPy -----------------------------------------------------------------------------


def numpy_argsort(x, axis):
    return np.argsort(x, axis=axis, kind="stable")


def _like_sums(f: Any) -> Any:
    """NumPy's function with int64 for every integer, as sums have it here."""
    return lambda x, axis: f(x, axis, None if x.dtype.kind == "f" else np.int64)


FUNCTIONS = {"sort": np.sort, "argsort": numpy_argsort, "cumsum": _like_sums(np.cumsum),
             "cumprod": _like_sums(np.cumprod)}


@functools.cache
def compiled(name: str, dtype: str, rank: int, axis: int | None, backend: str) -> Any:
    x = T.TensorType(dtype, (False,) * rank)("x")
    return tinygraph.function([x], getattr(x, name)(axis=axis), backend=backend)


@st.composite
def arrays(draw):
    """An array with many equal elements, some of them nan, both zeros among them."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 6), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.startswith(("int", "uint")):
        return rng.integers(0 if dtype == "uint8" else -3, 4, shape).astype(dtype)
    return rng.choice([np.nan, -np.inf, -2, -0.5, -0.0, 0.0, 1.5, np.inf], shape).astype(dtype)


@settings(max_examples=80, deadline=None)
@given(x=arrays(), name=st.sampled_from(sorted(FUNCTIONS)), data=st.data())
def test_as_numpy_has_it(x, name, data):
    axis = data.draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    with np.errstate(all="ignore"):
        expected = FUNCTIONS[name](x, axis)
    for backend in BACKENDS:
        found = compiled(name, x.dtype.name, x.ndim, axis, backend)(x)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 9, 1000, 10_000])
def test_sizes_of_a_sort(n, rng):
    for x in (rng.normal(size=n), rng.integers(0, 9, n).astype("float64"),
              np.arange(n, dtype="float64"), -np.arange(n, dtype="float64")):
        f = compiled("argsort", "float64", 1, -1, "llvm")
        np.testing.assert_array_equal(f(x), np.argsort(x, kind="stable"))
        if n < 100:
            g = compiled("argsort", "float64", 1, -1, "loops")
            np.testing.assert_array_equal(g(x), np.argsort(x, kind="stable"))


def test_a_long_running_sum(rng):
    x = rng.normal(size=10_000)
    np.testing.assert_array_equal(compiled("cumsum", "float64", 1, 0, "llvm")(x), x.cumsum())
    y = rng.normal(size=(100, 100))
    for axis in (0, 1):
        np.testing.assert_array_equal(compiled("cumsum", "float64", 2, axis, "llvm")(y),
                                      y.cumsum(axis))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_denormals_are_told_apart(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([3 * tiny, 0.0, -tiny, tiny, -0.0, -2 * tiny], dtype)
    agrees(T.argsort, [5, 2, 1, 4, 3, 0], x)


def test_views_are_sorted_without_a_copy_of_them(rng):
    x = rng.normal(size=(4, 6))
    agrees(lambda x: T.argsort(x[::-1, ::2].T), np.argsort(x[::-1, ::2].T), x)
    agrees(lambda x: T.argsort(T.alloc(2.0, 3, 2)), np.tile([0, 1], (3, 1)), x)
    agrees(lambda x: T.sort(T.arange(x.shape[0])[::-1]), np.arange(4), x)


def test_threads_share_the_rows(rng):
    x, v = T.dtensor3("x"), T.dvector("v")
    f, oracle = (tinygraph.function([x, v], [x.argsort(), x.argsort(axis=0), v.searchsorted(x)],
                                    backend=backend) for backend in ("llvm", "numpy"))
    assert f.source("loops").count("# parallel") >= 3
    sorted_ = np.sort(rng.normal(size=50))
    for shape in [(0, 2, 3), (1, 40, 200), (7, 3, 1000), (300, 5, 11), (5, 0, 2), (20_000, 1, 1)]:
        given = rng.integers(-3, 4, shape) / 2.0
        expected = oracle(given, sorted_)
        for threads in (1, 2, 5):
            with tinygraph.config.change(threads=threads):
                for a, b in zip(f(given, sorted_), expected, strict=True):
                    np.testing.assert_array_equal(a, b)


def test_arguments_of_sort(rng):
    x = rng.normal(size=(3, 4))
    agrees(lambda x: T.sort(x, T.constant(0), kind="mergesort"), np.sort(x, 0), x)
    m = T.matrix("m")
    with pytest.raises(IndexError, match="axis 2 of m"):
        m.sort(axis=2)
    with pytest.raises(ValueError, match="fields"):
        m.sort(order="name")
    with pytest.raises(ValueError, match="kind is 'bogo'"):
        m.argsort(kind="bogo")
    with pytest.raises(IndexError, match="0 axes"):
        T.sort(T.scalar("s"))
    with pytest.raises(TypeError, match="constant integer"):
        m.sort(axis=T.iscalar("k"))
    with pytest.raises(TypeError, match="no axis"):
        apply(Argsort(), T.scalar("s"))


def test_argsort_has_a_zero_gradient(rng):
    x = rng.normal(size=4)
    check(lambda x: T.grad((x.argsort() * x).sum(), x), np.argsort(x).astype("float64"), x)


# --- the largest ---------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("kth", [1, 3, -1, -3])
def test_topk(kth, axis, rng):
    x = rng.integers(0, 5, (5, 4)).astype("float64")
    x[2, 1] = np.nan
    flat, k = (x.ravel(), 0) if axis is None else (x, axis)
    # Of equal elements the first is to come first: the largest are sought backwards.
    n = flat.shape[k]
    order = np.argsort(np.flip(flat, k) if kth > 0 else flat, axis=k, kind="stable")
    order = np.flip(n - 1 - order, k) if kth > 0 else order
    index = np.take(order, range(abs(kth)), k)
    values = np.take_along_axis(flat, index, k)

    def f(x):
        return [T.topk(x, kth, axis), T.argtopk(x, kth, axis), *T.topk_and_argtopk(x, kth, axis)]

    for found, expected in zip(on_all(f, x), [values, index] * 2, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_topk_of_a_number_that_the_call_gives(rng):
    x, k = T.dvector("x"), T.iscalar("k")
    a = rng.normal(size=7)
    for backend in BACKENDS:
        f = tinygraph.function([x, k], [T.topk(x, k), T.argtopk(x, k)], backend=backend)
        for kth in (1, 4, 7, -1, -7):
            order = np.argsort(-a)[:kth] if kth > 0 else np.argsort(a)[:-kth]
            values, index = f(a, kth)
            np.testing.assert_array_equal(index, order)
            np.testing.assert_array_equal(values, a[order])
        with pytest.raises(IndexError, match="the order of x.* size is 7"):
            f(a, 8)


def test_arguments_of_topk():
    x = T.vector("x")
    assert T.argtopk(x, 2, idx_dtype="int32").dtype == "int32"
    assert [v.dtype for v in T.topk_and_argtopk(x, 2, sorted=False)] == [x.dtype, "int64"]
    with pytest.raises(ValueError, match="kth is 0"):
        T.topk(x, 0)


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("name", ["sort", "cumsum", "cumprod", "topk"])
def test_gradients(name, axis, rng):
    x = rng.permutation(24).reshape(4, 3, 2) / 7 - 1.3
    f = {"sort": lambda x: T.sort(x, axis), "cumsum": lambda x: T.cumsum(x, axis),
         "cumprod": lambda x: T.cumprod(x, axis), "topk": lambda x: T.topk(x, 2, axis)}[name]
    tinygraph.verify_grad(f, [x])
    tinygraph.verify_grad(lambda x: T.grad((f(x) ** 3).sum(), x), [x], abs_tol=1e-3, rel_tol=1e-5)
    on_all(lambda x: T.grad((f(x) ** 3).sum(), x), x)


@pytest.mark.parametrize("row", [[2.0, 3, 4], [2, 0, 4], [0, 3, 0], [0, 0, 0], [5], []])
def test_cumprod_has_an_exact_gradient_where_elements_are_zero(row):
    x = np.array(row, "float64")
    weights = np.arange(1.0, 1 + len(row))
    expected = [sum(weights[i] * np.prod(np.delete(x[:i + 1], k)) for i in range(k, len(row)))
                for k in range(len(row))]

    def f(x):
        return (T.cumprod(x, 0) * T.arange(1, x.shape[0] + 1)).sum()

    agrees(lambda x: T.grad(f(x), x), np.array(expected, "float64"), x)
    if row:
        tinygraph.verify_grad(lambda x: T.grad(f(x), x), [np.array([*row, 0.0])])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_linear_recurrence(axis, reverse, rng):
    a, b = rng.normal(size=(2, 4, 3))

    def f(a, b):
        return apply(LinearRecurrence(axis, reverse), a, b)[0]

    expected, h = np.zeros_like(b), 0.0
    rows = range(b.shape[axis])
    for t in reversed(rows) if reverse else rows:
        place = (slice(None),) * axis + (t,)
        h = expected[place] = a[place] * h + b[place]
    agrees(f, expected, a, b)
    for n in (0, 1):
        empty = np.ones((n, n))
        agrees(f, empty, empty, empty)
    tinygraph.verify_grad(f, [a, b])
    tinygraph.verify_grad(lambda a, b: T.grad((f(a, b) ** 2).sum(), a), [a, b], rel_tol=1e-4)


def test_the_linear_recurrence_takes_floats_of_one_shape():
    x = T.dvector("x")
    with pytest.raises(TypeError, match="floats of one dtype"):
        apply(LinearRecurrence(0), x, T.fvector("y"))
    with pytest.raises(ValueError, match="one shape"):
        apply(LinearRecurrence(0), x, T.dmatrix("y"))
    y = T.dvector("y")
    f = tinygraph.function([x, y], apply(LinearRecurrence(0), x, y)[0])
    with pytest.raises(ValueError, match="axis 0 of x"):
        f([1, 2], [1, 2, 3])


# --- in loops ------------------------------------------------------------------------------------


def test_inside_a_scan(rng):
    x = rng.normal(size=(5, 4, 3))

    def step(row, h):
        h = T.sort(row + h, axis=0)[::-1] + T.cumsum(row, axis=1)
        return h, T.argsort(h, axis=-1), T.cumprod(row, axis=0), T.topk(h, 2, axis=0)

    def f(x):
        return tinygraph.scan(step, x, [T.zeros_like(x[0]), None, None, None])[0]

    h = np.zeros((4, 3))
    rows = []
    for row in x:
        h = np.sort(row + h, 0)[::-1] + np.cumsum(row, 1)
        rows.append((h, np.argsort(h), np.cumprod(row, 0), np.sort(h, 0)[::-1][:2]))
    for found, expected in zip(on_all(f, x), zip(*rows, strict=True), strict=True):
        np.testing.assert_allclose(found, np.array(expected), rtol=1e-12)

    def cost(x):
        hs, _, products, tops = f(x)
        return (hs ** 2).sum() + products.sum() + tops.sum()

    tinygraph.verify_grad(cost, [x], rel_tol=1e-4)
    on_all(lambda x: T.grad(cost(x), x), x)


def test_a_bad_index_in_a_scan_over_a_batch(rng):
    """Rows of a batch may run on several threads, which cannot leave a program: a scan whose step
    looks something up runs on one."""
    table, ids, h0, w = T.dmatrix("table"), T.lvector("ids"), T.dmatrix("h0"), T.dmatrix("w")
    hs, _ = tinygraph.scan(lambda i, h: T.tanh(T.dot(h, w) + T.sort(table[i])), ids, h0)
    given = [rng.integers(0, 5, 6), rng.normal(size=(40, 8)), rng.normal(size=(5, 8)),
             rng.normal(size=(8, 8))]
    f, oracle = (tinygraph.function([ids, h0, table, w], hs, backend=backend)
                 for backend in ("llvm", "numpy"))
    np.testing.assert_allclose(f(*given), oracle(*given), rtol=1e-10)
    with pytest.raises(IndexError, match="index 7 in ids"):
        f(given[0] * 0 + 7, *given[1:])


@pytest.mark.parametrize("hidden", [5, 40])
def test_sums_along_the_units_leave_the_batch_to_threads(hidden, rng):
    """Ordered neurons (Shen et al. 2019, arXiv:1810.09536) have such a step."""
    x, h0, w = T.dtensor3("x"), T.dmatrix("h0"), T.TensorType("float64", (False,) * 2)("w")

    def step(row, h):
        gate = T.cumsum(T.nnet.softmax(T.dot(h, w) + row), axis=1)
        return gate * h + (1 - gate) * T.tanh(row) * T.cumprod(gate + 0.5, axis=-1)

    hs, _ = tinygraph.scan(step, x, h0)
    outputs = [hs, *T.grad((hs[-1] ** 2).sum(), [x, w])]
    given = [rng.normal(size=(4, 37, hidden)), rng.normal(size=(37, hidden)),
             rng.normal(size=(hidden, hidden)) / hidden]
    oracle = tinygraph.function([x, h0, w], outputs, backend="numpy")(*given)
    f = tinygraph.function([x, h0, w], outputs)
    for threads in (1, 2):
        with tinygraph.config.change(threads=threads):
            for a, b in zip(f(*given), oracle, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert "# parallel" in f.source("loops").split("# scan")[0]


def test_a_jacobian(rng):
    x = rng.normal(size=5)
    order = np.argsort(x)
    agrees(lambda x: tinygraph.jacobian(T.sort(x), x), np.eye(5)[order], x)
    agrees(lambda x: tinygraph.jacobian(T.cumsum(x), x), np.tri(5), x)
    x[1] = 0
    expected = [[np.prod(np.delete(x[:i + 1], k)) if k <= i else 0 for k in range(5)]
                for i in range(5)]
    agrees(lambda x: tinygraph.jacobian(T.cumprod(x), x), expected, x)
    place = np.argsort(np.argsort(x))
    agrees(lambda x: tinygraph.hessian((T.sort(x) * T.arange(5)).sum() ** 2, x),
           2.0 * np.outer(place, place), x)


def test_a_kept_function(tmp_path, rng):
    x = rng.normal(size=(4, 3))
    with tinygraph.config.change(cache="on", cache_dir=str(tmp_path)):
        for _ in range(2):
            m = T.dmatrix("m")
            f = tinygraph.function([m], [m.sort(axis=0), m.argsort(), m.cumsum(), m.cumprod(1)])
            f(x)
        assert f.report().cached
        for a, b in zip(f(x), [np.sort(x, 0), x.argsort(), x.cumsum(), x.cumprod(1)], strict=True):
            np.testing.assert_allclose(a, b)


@pytest.mark.parametrize("op, count", [(Argsort(), 1), (Cumulate("prod", 1, True), 1),
                                       (LinearRecurrence(0), 2)], ids=str)
def test_one_more_axis(op, count, rng):
    x = rng.normal(size=(3, 4, 5))
    expected = [np.stack([op.numpy(None, *([row] * count))[0] for row in x])]

    def f(x):
        return op.batch([x] * count, [True] * count, x.type.dims[0])

    np.testing.assert_allclose(on_all(f, x), expected, rtol=1e-12)


def test_one_more_axis_of_what_is_looked_up(rng):
    x, v = np.sort(rng.normal(size=4)), rng.normal(size=(3, 5))

    def f(x, v):
        return Searchsorted("left").batch([x, v], [False, True], v.type.dims[0])

    np.testing.assert_array_equal(on_all(f, x, v), [np.searchsorted(x, v)])
    assert Searchsorted("left").batch([T.matrix(), T.vector()], [True, False], None) is None


@pytest.mark.counts
def test_one_loop_and_no_more():
    x, m = T.dvector("x"), T.dmatrix("m")
    for out in (x.cumsum(), x.cumprod(), T.cumsum(m, 0), T.cumsum(m, 1)):
        f = tinygraph.function([x, m], out, on_unused_input="ignore")
        assert f.report().outside.nests == 1
    gradient = tinygraph.function([x], T.grad((T.cumsum(x) * T.arange(x.shape[0])).sum(), x))
    assert gradient.report().outside.nests == 2  # the range as floats, and their sums


# --- a sorted vector -----------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int32", "uint8", "bool"])
def test_searchsorted(dtype, side, rng):
    for n in (0, 1, 2, 7, 64):
        x = np.sort(rng.integers(0, 2 if dtype == "bool" else 9, n)).astype(dtype)
        v = rng.integers(0, 10, (3, 5)).astype(dtype)
        agrees(lambda x, v: T.searchsorted(x, v, side), np.searchsorted(x, v, side), x, v)


def test_searchsorted_in_other_ways(rng):
    x = np.array([-np.inf, 1, 1, 2, np.inf, np.nan])
    v = np.array([np.nan, np.inf, 1, 0, -np.inf])
    for side in ("left", "right"):
        agrees(lambda x, v, side=side: x.searchsorted(v, side), np.searchsorted(x, v, side), x, v)
    agrees(lambda x: T.searchsorted(x, 1.5), np.int64(3), x)
    y = rng.normal(size=9)
    order = np.argsort(y)
    agrees(lambda y, s: extra_ops.searchsorted(y, [0, 1], sorter=s),
           np.searchsorted(y, [0, 1], sorter=order), y, order)
    i = np.array([1, 3])
    agrees(lambda i: T.searchsorted(i, np.array([0.5, 2.5, 3])), [0, 1, 1], i)
    check(lambda x: T.grad((x.searchsorted(x) * x).sum(), x), np.searchsorted(y[order], y[order])
          .astype("float64"), y[order])
    with pytest.raises(ValueError, match="side is 'middle'"):
        T.searchsorted(T.vector(), 1, "middle")
    with pytest.raises(TypeError, match="a vector, not into m"):
        T.searchsorted(T.matrix("m"), 1)
