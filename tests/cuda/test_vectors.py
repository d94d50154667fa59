"""Nests whose threads take four iterations at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiling import compiles, needs_nvrtc
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygraph
import tinygraph.tensor as T
from tinygraph import dtypes, function
from tinygraph.backends.cuda import nvrtc
from tinygraph.backends.cuda.host import evaluator
from tinygraph.backends.cuda.kernel import Kernel
from tinygraph.backends.cuda.nest import take_apart
from tinygraph.backends.cuda.prelude import prelude
from tinygraph.backends.cuda.shim import Shim, ShimError
from tinygraph.backends.cuda.team import GRID, TeamWriter
from tinygraph.backends.cuda.vectors import fours, groups, stride
from tinygraph.dtypes import DType, float32, int64
from tinygraph.loops import build as E
from tinygraph.loops.language import Binary, Buffer, Cast, DimOf, Expr, For, Load, Select, Var

N, M = DimOf("n"), DimOf("m")
ROW, J = Var("i", int64), Var("j", int64)
ALL = [getattr(dtypes, name) for name in ("float32", "float64", "int8", "int16", "int32", "int64",
                                          "uint8", "bool_")]


@pytest.fixture(autouse=True)
def no_cache() -> Any:
    with tinygraph.config.change(cache="off"):
        yield


def memory(name: str, dtype: DType = float32) -> Buffer:
    return Buffer(name, dtype, E.mul(N, M), "arg")


X, Y, Z, K = memory("x"), memory("y"), memory("z"), memory("k", int64)
Nest = Callable[[E.Builder], None]


def root_of(nest: Nest) -> For:
    b = E.Builder()
    nest(b)
    (root,) = b.block().body
    assert isinstance(root, For)
    return root


def kernel_of(root: For, many: bool = True) -> Kernel:
    """The kernel of all blocks for a nest of one part."""
    (part,) = take_apart(root) or ()
    writer = TeamWriter("k", GRID)
    writer.many = many
    writer.nest_part(part)
    return writer.finish(elements=groups(part) if many else None)


def moved(a: np.ndarray, by: int) -> np.ndarray:
    """A copy that begins ``by`` elements behind a multiple of 16 bytes."""
    raw = np.empty(a.size + 32, a.dtype)
    start = -raw.ctypes.data % 16 // a.itemsize + by
    raw[start:start + a.size] = a
    return raw[start:start + a.size]


def ran(kernel: Kernel, arrays: dict[str, np.ndarray], sizes: dict[str, int], blocks: int = 3
        ) -> dict[str, np.ndarray]:
    """What is in the buffers after a launch."""
    after = {name: moved(a, k) for k, (name, a) in enumerate(arrays.items())}
    Shim(prelude(64) + kernel.text, [kernel]).launch(
        kernel.name, blocks, 64, [after[b.name] for b in kernel.buffers],
        [sizes[name] for name in kernel.scalars])
    return after


# --- how an index grows

@pytest.mark.parametrize("index, lets, expected", [
    (J, {}, 1),
    (E.add(E.mul(ROW, M), J), {}, 1),
    (E.mul(ROW, M), {}, 0),
    (E.index(3), {}, 0),
    (E.add(E.mul(J, N), ROW), {}, None),
    (E.mul(J, E.index(2)), {}, 2),
    (E.sub(E.sub(N, E.index(1)), J), {}, -1),
    (E.mod(J, E.index(3)), {}, None),
    (E.add(J, E.mod(ROW, E.index(3))), {}, 1),
    (E.add(J, E.floordiv(ROW, M)), {}, 1),
    (E.add(J, E.floordiv(J, M)), {}, None),
    (E.mul(J, J), {}, None),
    (E.minimum(J, N), {}, None),
    (E.add(Var("t", int64), ROW), {"t": E.add(J, E.index(5))}, 1),
    (Var("t", int64), {"t": Load(K, J)}, None),
    (E.add(J, Var("t", int64)), {"t": Load(K, ROW)}, 1),
    (E.add(J, Load(K, J)), {}, None),
    (E.add(J, E.floordiv(Cast(Load(K, J), int64), N)), {}, None),
    (Select(Binary("lt", J, N), J, E.index(0)), {}, None),
])
def test_how_an_index_grows(index: Expr, lets: dict[str, Expr], expected: int | None) -> None:
    assert stride(index, "j", lets) == expected


# --- which nests go by fours

def at(i: Expr, j: Expr, columns: Expr = M) -> Expr:
    return E.add(E.mul(i, columns), j)


def plain(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        b.store(Y, at(i, j), Load(X, at(i, j)))


def rows_and_columns(b: E.Builder) -> None:
    """One number for a row, one for a column, and one turned round."""
    with b.loop(N, "independent") as i:
        row = b.let(Load(Z, i), "row")
        with b.loop(M, "vector") as j:
            x = b.let(Binary("mul", Load(X, at(i, j)), row))
            x = b.let(Binary("add", x, Load(Z, E.sub(E.sub(M, E.index(1)), j))))
            b.store(Y, at(i, j), Binary("add", x, Load(Z, E.index(0))))


def gathered(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        k = b.let(Load(K, j))
        b.store(Y, at(i, j), Load(X, at(i, k)))


def turned(b: E.Builder) -> None:
    """Reads by columns, writes by rows."""
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        b.store(Y, at(i, j), Load(X, at(j, i, N)))


def scattered(b: E.Builder) -> None:
    """Reads by rows, writes by columns, and adds to what is there."""
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        b.store(Y, at(j, i, N), Load(X, at(i, j)), "add")


def in_place(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        place = b.let(at(i, j), "place")
        x = b.let(Load(X, place))
        b.store(Y, place, Binary("add", x, Load(Y, place)))
        b.store(X, place, Binary("mul", x, x))


def added(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        b.store(Y, at(i, j), Binary("mul", Load(X, at(i, j)), Load(Y, at(i, j))), "add")


def two_halves(b: E.Builder) -> None:
    """Two stores to one buffer."""
    with b.loop(N, "independent") as i, b.loop(E.floordiv(M, E.index(2)), "vector") as j:
        b.store(Y, at(i, j), Load(X, at(i, j)))
        b.store(Y, E.add(at(i, j), E.floordiv(M, E.index(2))), Load(X, at(i, j)))


def three_loops(b: E.Builder) -> None:
    with (b.loop(N, "independent") as i, b.loop(E.index(3), "independent") as k,
          b.loop(E.floordiv(M, E.index(3)), "vector") as j):
        place = E.add(E.mul(E.add(E.mul(i, E.index(3)), k), E.floordiv(M, E.index(3))), j)
        b.store(Y, place, Binary("sub", Load(X, place), Load(Z, k)))


def read_after_store(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        b.store(Y, at(i, j), Load(X, at(i, j)))
        b.store(Z, at(i, j), Load(Y, at(i, j)))


def stored_twice(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        b.store(Y, at(i, j), Load(X, at(i, j)))
        b.store(Y, at(i, j), Load(X, at(i, j)), "add")


def by_fours_and_elements(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        b.store(Y, at(i, j), Load(X, at(i, j)))
        b.store(Y, E.mul(at(i, j), E.index(2)), Load(X, at(i, j)))


def only_gathers(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        b.store(Y, at(j, i, N), Load(X, E.mul(at(i, j), E.index(2))))


def columns_summed(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        b.store(Y, j, Load(X, at(i, j)), "add")


def checked(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        k = b.let(Load(K, j))
        b.check(Binary("lt", k, M), 0)
        b.store(Y, at(i, j), Load(X, k))


def with_a_loop(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M) as j:
        b.store(Y, at(i, j), Load(X, at(i, j)))


def with_a_register(b: E.Builder) -> None:
    with b.loop(N, "vector") as i:
        total = b.register(float32)
        b.store(total, E.index(0), Load(X, i))
        b.store(Y, i, Load(total, E.index(0)))


def too_much(b: E.Builder) -> None:
    with b.loop(N, "vector") as i:
        x = b.let(Load(X, i))
        for _ in range(70):
            x = b.let(Binary("add", x, x))
        b.store(Y, i, x)


def too_many_functions(b: E.Builder) -> None:
    with b.loop(N, "vector") as i:
        x: Expr = Load(X, i)
        for _ in range(30):
            x = b.let(Binary("pow", x, x))
        b.store(Y, i, x)


def of_sizes(*sizes: int) -> Nest:
    """Rows of known sizes."""
    def nest(b: E.Builder) -> None:
        n, m = map(E.index, sizes)
        with b.loop(n, "independent") as i, b.loop(m, "vector") as j:
            b.store(Y, at(i, j, m), Load(X, at(i, j, m)))

    nest.__name__ = f"of_{'x'.join(map(str, sizes))}"
    return nest


BY_FOURS = [plain, rows_and_columns, gathered, turned, scattered, in_place, added, two_halves,
            three_loops]
PAIRS = [(n, m) for n in (1, 3, 5) for m in (1, 2, 3, 4, 5, 6, 8, 11, 130)] + [(0, 5), (5, 0)]


@pytest.mark.parametrize("nest", BY_FOURS, ids=lambda nest: nest.__name__)
def test_what_goes_by_fours(nest: Nest) -> None:
    """Whatever the sizes, the bits are those of one iteration at a time; the shim finds accesses
    out of bounds and races."""
    root, rng = root_of(nest), np.random.default_rng(0)
    quick, slow = kernel_of(root), kernel_of(root, False)
    assert quick.text.count("tg_load4") + quick.text.count("tg_store4") >= 1
    assert "tg_" + "load4" not in slow.text and "tg_store4" not in slow.text
    changed = 0
    for n, m in PAIRS:
        if nest is three_loops:
            m *= 3
        given = {b.name: rng.standard_normal(n * m).astype("float32") for b in (X, Y)}
        given |= {"z": rng.standard_normal(n + m + 3).astype("float32"),
                  "k": rng.integers(0, max(m, 1), m + 1)}
        a, b = (ran(k, given, {"n": n, "m": m}) for k in (quick, slow))
        for name in given:
            np.testing.assert_array_equal(a[name], b[name], err_msg=f"{name}, {n} x {m}")
        changed += any((a[name] != given[name]).any() for name in given)
    assert changed > 20


@pytest.mark.parametrize("nest", [
    read_after_store, stored_twice, by_fours_and_elements, only_gathers, columns_summed, checked,
    with_a_loop, with_a_register, too_much, too_many_functions, of_sizes(3, 500),
    of_sizes(5000, 3), of_sizes(5000, 10)], ids=lambda nest: nest.__name__)
def test_what_does_not(nest: Nest) -> None:
    assert [fours(part) for part in take_apart(root_of(nest)) or ()] == [None]


@pytest.mark.parametrize("nest, count", [
    (plain, 7 * 26), (of_sizes(5000, 12), 15000), (of_sizes(50, 103), 50 * 26),
    (three_loops, 7 * 3 * 9)], ids=lambda x: getattr(x, "__name__", None))
def test_how_many_threads_have_something_to_do(nest: Nest, count: int) -> None:
    kernel = kernel_of(root_of(nest))
    assert kernel.elements is not None
    assert evaluator(kernel.elements)({"n": 7, "m": 103}) == count


def test_numbers_that_only_indices_need_are_not_worked_out() -> None:
    text = kernel_of(root_of(in_place)).text
    assert "place" not in text
    assert text.count("tg_load4(x ") == text.count("tg_load4(y ") == 1
    assert text.count("tg_store4") == 2


@pytest.mark.parametrize("what", ["load", "store"])
def test_the_shim_wants_pieces_to_lie_as_cuda_does(what: str) -> None:
    text = (f'extern "C" __global__ void k(BUF(short) x, I64 n) {{ short y[4] = {{1, 2, 3, 4}}; '
            f'tg_{what}4(x + n, y); }}')
    raw = np.zeros(64, "int16")
    x = raw[-raw.ctypes.data % 16 // 2:][:32]
    shim = Shim(prelude(32) + text, [Kernel("k", text, (), ())])
    if what == "load":  # all threads may
        shim.launch("k", 1, 32, [x], [8])
    with pytest.raises(ShimError, match=r"four elements from x\[9\] on in one piece") as found:
        shim.launch("k", 1, 32, [x], [9])
    assert found.value.kind == "misaligned"


# --- whole functions

def text_of(f: Any) -> str:
    return f.source("cuda")


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_every_dtype(dtype: DType) -> None:
    x = T.TensorType(dtype.name, (False,))("x")
    f = function([x], [T.concatenate([x, x[1:]]), T.eq(x[2:], x[:-2])], backend="shim")
    rng = np.random.default_rng(0)
    for n in (2, 3, 4, 5, 8, 130, 1027):
        a = (rng.standard_normal(n) * 50).astype(dtype.np)
        both, same = f(a)
        np.testing.assert_array_equal(both, np.concatenate([a, a[1:]]))
        np.testing.assert_array_equal(same, a[2:] == a[:-2])
    assert text_of(f).count("tg_load4") >= 4


SHAPES = [(1, 1), (3, 4), (4, 3), (5, 7), (2, 1027), (1027, 2), (0, 3), (3, 1)]


def test_slices_rows_columns_and_transposes() -> None:
    x, v = T.matrix("x"), T.vector("v")
    c = T.vector("c")
    outputs = [x[1:] + 1, x[:, 1:] * 2, x[::-1] + x, x[:, ::-1] - 1, x * v, x.T * 3,
               x + c.dimshuffle(0, "x"), x[:, ::2] + 1, x - x[:, 0].dimshuffle(0, "x"),
               v[1:] * v[:-1]]
    f = function([x, v, c], outputs, backend="shim")
    assert text_of(f).count("tg_store4") >= len(outputs) - 2
    for n, m in SHAPES:
        a = np.arange(n * m, dtype="float32").reshape(n, m)
        r, s = np.arange(m, dtype="float32"), np.arange(n, dtype="float32")
        expected = [a[1:] + 1, a[:, 1:] * 2, a[::-1] + a, a[:, ::-1] - 1, a * r, a.T * 3,
                    a + s[:, None], a[:, ::2] + 1, a - a[:, :1], r[1:] * r[:-1]]
        for got, want in zip(f(a, r, s), expected, strict=True):
            np.testing.assert_array_equal(got, want)


def test_updates_in_place_and_parts_that_are_set() -> None:
    value = np.arange(9 * 1003, dtype="float32").reshape(9, 1003)
    s, x = tinygraph.shared(value), T.matrix("x")
    set_, added = T.set_subtensor(x[1:, 1:], 7.0), T.inc_subtensor(x[:, ::2], 1.0)
    f = function([x], [set_, added], updates=[(s, s * 2 + x)], backend="shim")
    assert "tg_store4" in text_of(f)
    a, b = f(value)
    want = value.copy()
    want[1:, 1:] = 7
    np.testing.assert_array_equal(a, want)
    want = value.copy()
    want[:, ::2] += 1
    np.testing.assert_array_equal(b, want)
    np.testing.assert_array_equal(s.get_value(), value * 3)


CUTS = [slice(None), slice(1, None), slice(None, -1), slice(None, None, -1), slice(None, None, 2),
        slice(2, None)]
Pair = tuple[Any, Callable[..., Any]]


def random_program(rng: np.random.Generator, inputs: list[Any], depth: int) -> Pair:
    """A random expression of two matrices of one shape, and the same for NumPy."""
    if depth == 0:
        k = int(rng.integers(2))
        return inputs[k], lambda *arrays: arrays[k]
    kind, (a, p) = int(rng.integers(6)), random_program(rng, inputs, depth - 1)
    if kind == 0:
        b, q = random_program(rng, inputs, depth - 1)
        n, m = (T.minimum(a.shape[k], b.shape[k]) for k in (0, 1))

        def cut(*arrays: Any) -> Any:
            u, v = p(*arrays), q(*arrays)
            rows, columns = np.minimum(u.shape, v.shape)
            return u[:rows, :columns] * v[:rows, :columns] + 1
        return a[:n, :m] * b[:n, :m] + 1, cut
    if kind == 1:
        return a + a[0], lambda *arrays: p(*arrays) + p(*arrays)[0]
    if kind == 2:
        return a - a[:, 0].dimshuffle(0, "x"), lambda *arrays: p(*arrays) - p(*arrays)[:, :1]
    if kind == 3:
        return a.T, lambda *arrays: p(*arrays).T
    places = tuple(CUTS[k] for k in rng.integers(len(CUTS), size=2))
    return a[places], lambda *arrays: p(*arrays)[places]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_random_elementwise_programs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = T.imatrix("x"), T.imatrix("y")
    pairs = [random_program(rng, [x, y], int(rng.integers(1, 5))) for _ in range(3)]
    f = function([x, y], [out + 1 for out, _ in pairs], backend="shim", on_unused_input="ignore")
    for n, m in ((80, 77), (33, 64)):
        a, b = (rng.integers(-9, 9, (n, m)).astype("int32") for _ in range(2))
        for got, (_, reference) in zip(f(a, b), pairs, strict=True):
            np.testing.assert_array_equal(got, reference(a, b) + 1)


# --- what is compiled

@needs_nvrtc
def test_pieces_become_vector_instructions() -> None:
    text = prelude()
    names = []
    for dtype in ALL:
        a, b = memory(f"a_{dtype.name}", dtype), memory(f"b_{dtype.name}", dtype)
        builder = E.Builder()
        with builder.loop(N, "vector") as i:
            builder.store(b, i, Load(a, i))
        root = builder.block().body[0]
        assert isinstance(root, For)
        kernel = kernel_of(root).text.replace("void k(", f"void k_{dtype.name}(")
        names.append(f"k_{dtype.name}")
        text += kernel
    assert all(compiles(text).values())
    ptx = nvrtc.compile_source(text, "compute_80", "vectors").decode()
    for name, piece in zip(names, ("v4.f32", "v2.f64", "v4.u8", "v4.u16", "v4.u32", "v2.u64",
                                   "v4.u8", "v4.u8"), strict=True):
        body = ptx.split(f".entry {name}(")[1].split(".entry")[0]
        for what in ("ld", "st"):
            assert re.search(rf"{what}(\.global)?\.{piece[:2]}\.[fbu]{piece[4:]}", body), (
                name, piece, body)


@needs_nvrtc
def test_kernels_by_fours_compile() -> None:
    x, v = T.matrix("x"), T.vector("v")
    f = function([x, v], [T.tanh(x[1:]) * v, x.T + x[:, ::-1].T, T.exp(x) + v[0]], backend="shim")
    assert "tg_load4" in text_of(f)
    assert all(compiles(prelude() + text_of(f)).values())
