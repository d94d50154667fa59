"""Running sums, sorts, counts and rows added up by index: rows run side by side in kernels, long
rows in parts, and what comes out does not hang on how many threads there are."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad
from tinygraph.graph import apply
from tinygraph.ops.cumulative import Cumulate, LinearRecurrence

RNG = np.random.default_rng(5)
DTYPES = ("float32", "float64", "int8", "int32", "int64", "bool")
SHAPES = ((0, 3), (3, 0), (1, 1), (1, 7), (300, 1), (300, 5), (3, 256), (2, 257), (2, 1000))
# A loop in what is left to one thread.
ONE_THREAD = re.compile(r"threadIdx\.x == 0\) \{\n(?:(?!^ *\}$).*\n)*? *(?:for|while) \(.*", re.M)


@pytest.fixture(autouse=True)
def no_cache() -> Any:
    with tinygraph.config.change(cache="off"):
        yield


def data(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers with many equal ones among them, and floats that have a nan and both zeros."""
    a = RNG.integers(-4, 5, shape)
    if dtype.startswith("float"):
        a = np.where(a == 4, np.nan, a * np.where(RNG.random(shape) < 0.5, 1.0, -1.0))
    return a.astype(dtype)


def matrix(dtype: str) -> Any:
    return T.TensorType(dtype, (False, False))("x")


def compare(inputs: list[Any], outputs: list[Any], *calls: list[np.ndarray], rtol: float = 0
            ) -> Any:
    """The same numbers as the interpreter's; gives the function."""
    f, oracle = (function(inputs, outputs, backend=backend, on_unused_input="ignore")
                 for backend in ("shim", "numpy"))
    for given in calls:
        for got, want in zip(f(*given), oracle(*given), strict=True):
            size = np.abs(want).max(initial=0) if rtol else 0
            np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * size)
    return f


@pytest.mark.parametrize("dtype", DTYPES)
def test_sorts(dtype: str) -> None:
    x = matrix(dtype)
    outputs = [T.argsort(x, axis=k) for k in (0, 1)] + [T.argsort(x[::-1, ::-1].T)]
    f = compare([x], outputs, *([data(shape, dtype)] for shape in SHAPES))
    assert not ONE_THREAD.search(f.source("cuda"))


@pytest.mark.parametrize("rows", [1, 40])
def test_long_rows_are_sorted_by_all_blocks(rows: int) -> None:
    x = T.fmatrix("x")
    a = RNG.integers(0, 1000, (rows, 20_000 // rows)).astype("float32")
    f = compare([x], [T.argsort(x)], [a])
    assert "tg_grid(sync)" in f.source("cuda")


def test_a_row_of_known_length_is_sorted_in_as_many_passes_as_it_takes() -> None:
    for n, passes in ((1, 0), (2, 1), (8, 3), (9, 4)):
        x = T.fmatrix("x")
        f = function([x], T.argsort(x.reshape((3, n))), backend="shim")
        assert f"doubling in range({passes})" in f.source("loops")
        a = data((3, n), "float32")
        np.testing.assert_array_equal(f(a), np.argsort(a, kind="stable"))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_running_sums(dtype: str) -> None:
    x = matrix(dtype)
    outputs = [apply(Cumulate("sum", axis, back), x)[0] for axis in (0, 1)
               for back in (False, True)]
    outputs += [T.cumsum(x.T[::-1], 1), T.cumsum(x.T, 0)]
    calls = [[RNG.integers(-99, 99, shape).astype(dtype)] for shape in SHAPES]
    f = compare([x], outputs, *calls)
    assert not ONE_THREAD.search(f.source("cuda"))


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_running_products_and_recurrences(dtype: str) -> None:
    x = matrix(dtype)
    outputs = [apply(Cumulate("prod", axis, back), x)[0] for axis in (0, 1)
               for back in (False, True)]
    if dtype == "float32":
        outputs += [apply(LinearRecurrence(axis, back), x * 0.5, T.tanh(x))[0] for axis in (0, 1)
                    for back in (False, True)]
    calls = [[RNG.choice([-1, 1, 2], shape, p=[0.5, 0.45, 0.05]).astype(dtype)]
             for shape in SHAPES]
    f = compare([x], outputs, *calls, rtol=1e-5 if dtype == "float32" else 0)
    assert not ONE_THREAD.search(f.source("cuda"))


def test_a_product_is_not_cut_where_a_chunk_of_it_overflows() -> None:
    x = T.fvector("x")
    a = np.ones(600, "float32")
    a[:200], a[300:500] = 0.7, 1 / 0.7
    a[256:512] *= 2.0
    a[0] = 0
    compare([x], [T.cumprod(x), apply(LinearRecurrence(0, False), x, x * 0)[0]], [a])


def test_a_long_running_sum_is_cut_into_chunks() -> None:
    x = T.fvector("x")
    f = compare([x], [T.cumsum(x)], *([RNG.standard_normal(n).astype("float32")]
                                      for n in (0, 1, 255, 256, 257, 100_000)), rtol=1e-5)
    text = f.source("cuda")
    one = ONE_THREAD.findall(text)
    assert len(one) == 1 and "chunk" in one[0]  # one thread adds up the sums of chunks alone
    assert np.signbit(f(np.full(600, -0.0, "float32"))).all()


def test_sums_have_one_order_whatever_is_around_them() -> None:
    """The running sum of a row has the same bits alone and among others."""
    x, a = T.fmatrix("x"), RNG.standard_normal((40, 1000)).astype("float32")
    f = function([x], T.cumsum(x, 1), backend="shim")
    np.testing.assert_array_equal(f(a)[7:8], f(a[7:8]))


@pytest.mark.parametrize("dtype", ["float32", "int8", "int64"])
def test_searches(dtype: str) -> None:
    x, v = T.TensorType(dtype, (False,))("x"), matrix(dtype)
    outputs = [T.searchsorted(x, v, side=side) for side in ("left", "right")]
    outputs += [T.searchsorted(x, v.T[::-1])]
    calls = [[np.sort(data((n,), dtype)), data(shape, dtype)] for n, shape in
             zip((0, 1, 50, 3, 1000, 7, 8, 9, 10), SHAPES, strict=True)]
    f = compare([x, v], outputs, *calls)
    assert not ONE_THREAD.search(f.source("cuda"))


def test_indices_are_unravelled_and_checked_by_many_threads() -> None:
    k = T.lvector("k")
    f = compare([k], list(T.unravel_index(k, (30, 20))), [np.arange(600)[::-1]],
                [np.zeros(0, "int64")])
    assert not ONE_THREAD.search(f.source("cuda"))
    with pytest.raises((IndexError, ValueError)):
        f(np.array([3, 600]))


def test_what_is_chosen_is_counted_in_chunks() -> None:
    x = T.fvector("x")
    calls = [[RNG.standard_normal(n).astype("float32")] for n in (0, 1, 255, 256, 257, 3000)]
    f = compare([x], [x[x > 0], T.nonzero(x > 1)[0]], *calls,
                [np.ones(700, "float32")], [-np.ones(700, "float32")])
    assert all("chunk" in found for found in ONE_THREAD.findall(f.source("cuda")))


ROWS = ((1, 1, 1), (7, 300, 3), (300, 5, 1), (3, 40, 300), (5, 0, 4), (5, 6, 0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_of_an_embedding(dtype: str) -> None:
    """Rows that meet are added in the order of the indices: bits are the interpreter's."""
    table, k, g = matrix(dtype), T.lvector("k"), T.TensorType(dtype, (False, False))("g")
    found = grad((table[k] * g).sum(), table)
    calls = [[RNG.standard_normal((v, d)).astype(dtype), RNG.integers(-v, v, n),
              RNG.standard_normal((n, d)).astype(dtype)] for v, n, d in ROWS]
    f = compare([table, k, g], [found], *calls)
    assert f.source("loops").count("# independent") == 2
    assert not ONE_THREAD.search(f.source("cuda")) and "_block(" not in f.source("cuda")
    with pytest.raises(IndexError, match="7"):
        f(np.zeros((7, 2), dtype), np.array([1, 7, 9]), np.zeros((3, 2), dtype))


def test_rows_written_by_index() -> None:
    """The last of equal indices is what stays; several axes of indices, and axes before them."""
    x, k, y = T.ftensor3("x"), T.lmatrix("k"), T.ftensor4("y")
    outputs = [T.inc_subtensor(x[:, k], y), T.set_subtensor(x[:, k], y),
               T.set_subtensor(x.dimshuffle(1, 0, 2)[k], y.dimshuffle(1, 2, 0, 3))]
    calls = [[RNG.standard_normal((a, n, d)).astype("float32"), RNG.integers(-n, n, (p, q)),
              RNG.standard_normal((a, p, q, d)).astype("float32")]
             for a, n, p, q, d in ((1, 1, 1, 1, 1), (2, 9, 5, 4, 3), (3, 4, 20, 2, 40),
                                   (2, 3, 0, 2, 2), (2, 3, 2, 2, 0), (0, 3, 2, 2, 2))]
    f = compare([x, k, y], outputs, *calls)
    assert not ONE_THREAD.search(f.source("cuda"))


def test_numbers_added_up_by_index() -> None:
    v, k = T.fvector("v"), T.lvector("k")
    calls = [[RNG.standard_normal(n).astype("float32"), RNG.integers(-n, n, m)]
             for n, m in ((1, 1), (3, 500), (5000, 700))]
    compare([v, k], [T.inc_subtensor(v[k], 0.25)], *calls)


def test_steps_that_sort_and_sum() -> None:
    """In a step, too: rows that it looks up and writes, sorts, and running sums."""
    x, k = T.ftensor3("x"), T.lmatrix("k")

    def step(now: Any, at: Any, h: Any) -> Any:
        h = T.set_subtensor(h[at], T.cumsum(now, 1)[:2])
        return h + T.sort(now * h, axis=0) + h[at[0]]

    h, _ = tinygraph.scan(step, [x, k], [T.zeros_like(x[0])])
    calls = [[RNG.standard_normal((t, n, d)).astype("float32"), RNG.integers(-n, n, (t, 2))]
             for t, n, d in ((3, 4, 5), (1, 1, 1), (2, 30, 20), (0, 4, 3))]
    calls = [c for c in calls if c[0].shape[1] > 1]
    compare([x, k], [h, grad(h.sum(), x)], *calls, rtol=1e-5)


def test_sizes_that_only_the_run_finds_out() -> None:
    x, k = T.fvector("x"), T.lvector("k")
    some = x[x > 0]
    outputs = [T.sort(some), T.cumsum(some), T.searchsorted(T.sort(some), some), some[some > 1],
               T.inc_subtensor(x[k[k > 2]], 1.0)]
    calls = [[RNG.standard_normal(n).astype("float32"), RNG.integers(0, max(n, 1), n)]
             for n in (0, 1, 2, 600)]
    compare([x, k], outputs, *calls, rtol=1e-5)
