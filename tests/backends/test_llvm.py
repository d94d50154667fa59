"""The LLVM back end against NumPy: every statement and every operator."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from tinygraph.backends.llvm import jit
from tinygraph.dtypes import ALL, bool_, float32, float64, int32, int64
from tinygraph.errors import InternalError
from tinygraph.loops.language import (
    COMPARISONS,
    TRANSCENDENTAL,
    Alloc,
    Binary,
    Block,
    Buffer,
    Cast,
    Check,
    Const,
    DimOf,
    For,
    If,
    Let,
    Load,
    Note,
    Program,
    Select,
    Store,
    Unary,
    Var,
    While,
)

N, M = DimOf("N"), DimOf("M")
IX, JX = Var("i", int64), Var("j", int64)
ZERO = Const(0, int64)
FLOATS = (float32, float64)
MODES = ("serial", "vector")


def arg(name, dtype):
    return Buffer(name, dtype, N, "arg")


def add(x, y):
    return Binary("add", x, y)


def mul(x, y):
    return Binary("mul", x, y)


def program(args, *body, sizes=("N", "M"), arena=(), name="f"):
    return Program(name, sizes, tuple(args), tuple(arena), ZERO, Block(tuple(body)), 4)


def call(native, sizes, arrays, arena_bytes=0):
    """(return code, fault numbers) of one call."""
    numbers = np.array(sizes, dtype=np.int64)
    places = np.array([a.ctypes.data for a in arrays], dtype=np.uint64)
    arena = np.zeros(arena_bytes + 64, np.uint8)
    start = arena.ctypes.data + -arena.ctypes.data % 64
    fault = np.full(8, -7, np.int64)
    code = native(numbers.ctypes.data, places.ctypes.data, start, fault.ctypes.data)
    return code, fault


def run(prog, sizes, arrays, arena_bytes=0, **options):
    native = jit.load(jit.compile_program(prog, **options))
    code, _ = call(native, sizes, arrays, arena_bytes)
    assert code == 0


def elementwise(function, dtypes, result, mode="vector"):
    """o[i] = function(x0[i], x1[i], ...) for i < N."""
    ins = [arg(f"x{k}", d) for k, d in enumerate(dtypes)]
    out = arg("o", result)
    body = Store(out, IX, function(*(Load(x, IX) for x in ins)))
    return program([*ins, out], For(IX, N, Block((body,)), mode))


def apply(function, arrays, result, mode):
    dtypes = [next(d for d in ALL if d.np == a.dtype) for a in arrays]
    out = np.empty(len(arrays[0]), result.np)
    run(elementwise(function, dtypes, result, mode), [len(out), 1], [*arrays, out])
    return out


def samples(dtype):
    """Values with every edge, 21 of them so that vectors have a remainder."""
    if dtype is bool_:
        return np.arange(21) % 3 == 1
    if dtype.is_float:
        edge = [0.0, -0.0, np.nan, np.inf, -np.inf, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 7, -3, 1e9]
        return np.array([*edge, -1e9, 0.1, -0.1, 3.7, -3.7, 255.9, 300.0], dtype.np)
    info = np.iinfo(dtype.np)
    edge = [info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, 5, 7, 100, 63]
    signed = [-1, -2, -3, -5, -7, -100, -63, 31, 11] if info.min else [9] * 9
    return np.array(edge + signed, dtype.np)


def pairs(dtype):
    values = samples(dtype)
    grid = np.array(list(product(values, values)), dtype.np)
    return np.ascontiguousarray(grid[:, 0]), np.ascontiguousarray(grid[:, 1])


def same(got, want):
    np.testing.assert_array_equal(got, np.asarray(want).astype(got.dtype))


# -- expressions ---------------------------------------------------------------------------------

UNARY_NUMPY: dict[str, Any] = {
    "neg": np.negative,
    "abs": np.abs,
    "not": lambda x: x == 0,
    "invert": np.invert,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": np.rint,
    "isnan": np.isnan,
    "isinf": np.isinf,
}


def unary_cases():
    for op, dtype in product(UNARY_NUMPY, ALL):
        wrong = {"invert": dtype.is_float, "sqrt": not dtype.is_float, "neg": dtype is bool_}
        if not wrong.get(op, False):
            yield op, dtype


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op, dtype", list(unary_cases()))
def test_unary(op, dtype, mode):
    x = samples(dtype)
    result = Unary(op, Const(0, dtype)).dtype
    whole = op in ("floor", "ceil", "trunc", "round") and not dtype.is_float
    with np.errstate(all="ignore"):
        want = x if whole else UNARY_NUMPY[op](x)
    same(apply(lambda v: Unary(op, v), [x], result, mode), want)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("float_, int_", [(float32, int32), (float64, int64)])
def test_bits(float_, int_, mode):
    x = samples(float_)
    bits = apply(lambda v: Unary("to_bits", v), [x], int_, mode)
    same(bits, x.view(int_.np))
    back = apply(lambda v: Unary("from_bits", v), [bits], float_, mode)
    same(back.view(int_.np), bits)


def floor_division(x, y):
    """Python's floordiv, 0 for a zero divisor, wrapping where it overflows."""
    bits = 8 * x.dtype.itemsize
    out = [0 if b == 0 else int(a) // int(b) for a, b in zip(x, y, strict=True)]
    return np.array([v % (1 << bits) for v in out], np.uint64).astype(x.dtype)


def modulo(x, y):
    return np.array([0 if b == 0 else int(a) % int(b) for a, b in zip(x, y, strict=True)], x.dtype)


def shifted(op):
    return lambda x, y: op(x, y & (8 * x.dtype.itemsize - 1))


COMPARE: dict[str, Any] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
ARITHMETIC: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
}
BITS = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
INTEGER = {
    "floordiv": floor_division,
    "mod": modulo,
    "shl": shifted(np.left_shift),
    "shr": shifted(np.right_shift),
}


def binary_cases():
    for dtype in ALL:
        table = dict(COMPARE)
        if dtype is bool_:
            table |= {k: v for k, v in ARITHMETIC.items() if k != "sub"} | BITS
        elif dtype.is_int:
            table |= ARITHMETIC | BITS | INTEGER
        else:
            table |= ARITHMETIC | {"div": np.divide}
        yield from ((op, f, dtype) for op, f in table.items())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op, function, dtype", list(binary_cases()))
def test_binary(op, function, dtype, mode):
    x, y = pairs(dtype)
    with np.errstate(all="ignore"):
        want = function(x, y)
    result = bool_ if op in COMPARISONS else dtype
    same(apply(lambda a, b: Binary(op, a, b), [x, y], result, mode), want)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["floordiv", "mod"])
def test_float_division(op, dtype, mode):
    values = np.array([0, 1, -1, 2.5, -2.5, 7, -7, 0.1, -0.3, 100.25, np.inf, -np.inf, np.nan])
    x, y = (np.array(v, dtype.np) for v in zip(*product(values, values[1:]), strict=True))
    with np.errstate(all="ignore"):
        want = np.floor_divide(x, y) if op == "floordiv" else np.mod(x, y)
    keep = np.isfinite(x) if op == "floordiv" else np.full(x.shape, True)
    got = apply(lambda a, b: Binary(op, a, b), [x, y], dtype, mode)
    np.testing.assert_allclose(got[keep], want[keep], rtol=1e-4, atol=1e-5)


def cast_reference(x, target):
    if target is bool_:
        return x != 0
    if x.dtype.kind == "f" and target.is_int:
        info = np.iinfo(target.np)
        out = []
        for v in x.tolist():
            clipped = 0 if v != v else min(max(v, float(info.min)), float(info.max))
            out.append(min(max(int(clipped), info.min), info.max))
        return np.array(out, target.np)
    return x.astype(target.np)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source, target", list(product(ALL, ALL)))
def test_cast(source, target, mode):
    x = samples(source)
    same(apply(lambda v: Cast(v, target), [x], target, mode), cast_reference(x, target))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ALL)
def test_select_and_constants(dtype, mode):
    x = samples(dtype)
    flag = np.arange(len(x)) % 2 == 0
    value = 1 if dtype is bool_ else 3
    got = apply(lambda c, v: Select(c, v, Const(value, dtype)), [flag, x], dtype, mode)
    same(got, np.where(flag, x, np.array(value, dtype.np)))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e300, 0.1, -0.0])
@pytest.mark.parametrize("dtype", FLOATS)
def test_float_constants(value, dtype):
    got = apply(lambda x: Const(value, dtype), [np.zeros(3, np.int8)], dtype, "serial")
    with np.errstate(over="ignore"):
        want = np.full(3, value).astype(dtype.np)
    assert got.tobytes() == want.tobytes() or value != value
    same(got, want)


@pytest.mark.parametrize("op", sorted(TRANSCENDENTAL))
def test_transcendental_is_refused(op):
    def function(x):
        return Binary(op, x, x) if op in ("pow", "arctan2") else Unary(op, x)

    with pytest.raises(InternalError, match=f"'{op}' on float32 reached the LLVM back end"):
        jit.compile_program(elementwise(function, [float32], float32))


def test_meaningless_operation_is_refused():
    with pytest.raises(InternalError, match="no 'div' on int32"):
        jit.compile_program(elementwise(lambda x: Binary("div", x, x), [int32], int32))


def test_shared_expressions_are_written_once():
    x = arg("x", float32)
    value: Any = Load(x, IX)
    for _ in range(40):  # a tree of 2**40 leaves
        value = Binary("mul", value, value)
    out = arg("o", float32)
    prog = program([x, out], For(IX, N, Block((Store(out, IX, value),)), "vector"))
    text = jit.compile_program(prog).llvm_ir
    assert text.count("fmul") == 2 * 40  # whole vectors and the masked round


def test_loads_are_read_again_after_a_store():
    x, o = arg("x", float32), arg("o", float32)
    value = Load(x, ZERO)
    body = [
        Store(o, ZERO, value),
        Store(x, ZERO, Const(5, float32)),
        Store(o, Const(1, int64), value),
    ]
    a, out = np.array([2.0], "f"), np.zeros(2, "f")
    run(program([x, o], *body), [1, 1], [a, out])
    assert out.tolist() == [2, 5]


# -- statements ----------------------------------------------------------------------------------

ACCUMULATE = {
    "add": np.add,
    "mul": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
}


def accumulate_cases():
    for op, dtype in product(ACCUMULATE, ALL):
        if not (op in ("and", "or") and dtype.is_float):
            yield op, dtype


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", [0, 1, 21])
@pytest.mark.parametrize("op, dtype", list(accumulate_cases()))
def test_accumulate(op, dtype, n, mode):
    """One total, one total a row, and one element each, on top of what is there."""
    m, rng = 3, np.random.default_rng(n)
    x = rng.integers(0, 2, m * n) == 1 if dtype is bool_ else rng.integers(1, 4, m * n)
    x = x.astype(dtype.np)
    if dtype.is_float:
        x *= 0.75
    start = np.ones(m * n, dtype.np)
    totals, rows, each = np.ones(1, dtype.np), np.ones(m, dtype.np), start
    ins = [arg("x", dtype), arg("t", dtype), arg("r", dtype), arg("e", dtype)]
    index = Var("at", int64)
    body = Block(
        (
            Let(index, add(mul(IX, N), JX)),
            Store(ins[1], ZERO, Load(ins[0], index), op),
            Store(ins[2], IX, Load(ins[0], index), op),
            Store(ins[3], index, Load(ins[0], index), op),
        )
    )
    nest = For(IX, M, Block((For(JX, N, body, mode),)))
    want = [
        ACCUMULATE[op].reduce(x, initial=dtype.np.type(1), dtype=dtype.np),
        ACCUMULATE[op].reduce(x.reshape(m, n), axis=1, initial=dtype.np.type(1), dtype=dtype.np),
        ACCUMULATE[op](start, x),
    ]
    run(program(ins, nest), [n, m], [x, totals, rows, each])
    for got, expected in zip((totals[0], rows, each), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_nan_survives_a_maximum():
    x, o = arg("x", float32), arg("o", float32)
    body = For(IX, N, Block((Store(o, ZERO, Load(x, IX), "max"),)), "vector")
    a, out = np.arange(30, dtype="f"), np.array([-np.inf], "f")
    run(program([x, o], body), [30, 1], [a, out])
    assert out[0] == 29
    a[17] = np.nan
    run(program([x, o], body), [30, 1], [a, out])
    assert np.isnan(out[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", [0, 1, 7, 8, 37])
def test_gather_and_scatter(mode, n):
    """o[k[i]] += x[k[i]] * y[n - 1 - i]; the same element may come up twice."""
    x, y, k, o = arg("x", float32), arg("y", float32), arg("k", int64), arg("o", float32)
    at = Load(k, IX)
    back = Binary("sub", Binary("sub", N, Const(1, int64)), IX)
    body = Store(o, at, mul(Load(x, at), Load(y, back)), "add")
    gathered = arg("g", float32)
    first = For(IX, N, Block((Store(gathered, IX, Load(x, at)),)), mode)
    rng = np.random.default_rng(0)
    xs, ys = rng.standard_normal((2, n)).astype("f")
    ks = rng.integers(0, max(n // 2, 1), n)
    out, picked = np.zeros(n, "f"), np.zeros(n, "f")
    prog = program([x, y, k, o, gathered], first, For(IX, N, Block((body,)), mode))
    run(prog, [n, 1], [xs, ys, ks, out, picked])
    want = np.zeros(n)
    np.add.at(want, ks, xs[ks] * ys[::-1])
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-6)
    same(picked, xs[ks])


@pytest.mark.parametrize("mode", MODES)
def test_strided_stores_and_branches(mode):
    x, o, p = arg("x", float32), arg("o", float32), arg("p", float32)
    spread = Store(o, mul(IX, Const(3, int64)), Load(x, IX))
    branch = If(
        Binary("lt", Load(x, IX), Const(0, float32)),
        Block((Store(p, IX, Const(-1, float32)),)),
        Block((Store(p, IX, Load(x, IX)),)),
    )
    xs = np.random.default_rng(0).standard_normal(21).astype("f")
    out, branched = np.zeros(63, "f"), np.zeros(21, "f")
    prog = program([x, o, p], *(For(IX, N, Block((s,)), mode) for s in (spread, branch)))
    run(prog, [21, 1], [xs, out, branched])
    same(out[::3], xs)
    same(branched, np.where(xs < 0, -1, xs))


def test_while_and_register():
    """Collatz: how many steps from N to 1."""
    o = arg("o", int64)
    now, count = (Buffer(x, int64, Const(1, int64), "register") for x in ("now", "count"))
    value, two, one = Load(now, ZERO), Const(2, int64), Const(1, int64)
    odd = Binary("eq", Binary("mod", value, two), one)
    step = Select(odd, add(mul(value, Const(3, int64)), one), Binary("floordiv", value, two))
    loop = While(
        Binary("ne", value, one),
        Block((Store(now, ZERO, step), Store(count, ZERO, one, "add"))),
    )
    body = [Alloc(now), Alloc(count), Store(now, ZERO, N), Store(count, ZERO, ZERO), loop]
    out = np.zeros(1, np.int64)
    run(program([o], *body, Store(o, ZERO, Load(count, ZERO))), [27, 1], [out])
    assert out[0] == 111


def test_check_leaves_with_its_numbers():
    x, o = arg("x", int32), arg("o", int32)
    value = Load(x, IX)
    check = Check(Binary("lt", value, Const(10, int32)), 3, (IX, value, N))
    prog = program([x, o], For(IX, N, Block((check, Store(o, IX, value))), "vector"))
    native = jit.load(jit.compile_program(prog))
    xs, out = np.arange(5, 15, dtype=np.int32), np.zeros(10, np.int32)
    code, fault = call(native, [10, 1], [xs, out])
    assert code == 4
    assert fault[:4].tolist() == [5, 10, 10, -7]
    assert out.tolist() == [5, 6, 7, 8, 9, 0, 0, 0, 0, 0]
    code, _ = call(native, [5, 1], [xs, out])
    assert code == 0


def test_arena_notes_and_zero_extents():
    """o = (2 x)[..] by way of two temps whose place depends on N."""
    x, o = arg("x", float32), arg("o", float32)
    a, b = Buffer("a", float32, N), Buffer("b", float32, N)
    first = For(IX, N, Block((Store(a, IX, mul(Load(x, IX), Const(2, float32))),)), "vector")
    second = For(IX, N, Block((Store(b, IX, Load(a, IX)),)), "vector")
    third = For(IX, N, Block((Store(o, IX, Load(b, IX)),)), "vector")
    prog = program(
        [x, o],
        Note("two\nlines", "model.py:3"),
        first,
        second,
        third,
        arena=[(a, ZERO), (b, mul(N, Const(64, int64)))],
    )
    native = jit.load(jit.compile_program(prog))
    for n in (0, 1, 100):
        xs, out = np.arange(n, dtype="f"), np.zeros(n, "f")
        assert call(native, [n, 1], [xs, out], 128 * n)[0] == 0
        same(out, 2 * xs)


@pytest.mark.parametrize("mode", MODES)
def test_a_name_bound_again(mode):
    """The same expression object under two bindings of one name has two values."""
    o, p = arg("o", float32), arg("p", float32)
    value = Cast(add(IX, Const(1, int64)), float32)
    inner = For(IX, N, Block((Store(p, IX, value),)), mode)
    outer = For(IX, M, Block((Store(o, IX, value), inner, Store(o, IX, value, "add"))))
    out, inside = np.zeros(3, "f"), np.zeros(9, "f")
    run(program([o, p], outer), [9, 3], [out, inside])
    assert out.tolist() == [2, 4, 6]
    assert inside.tolist() == list(range(1, 10))


def test_hashes_may_wrap():
    """int64 arithmetic on a loop index that is not an address wraps; it is not undefined."""
    o = arg("o", int64)
    factor = 0x5851F42D4C957F2D
    body = For(
        IX, N, Block((Store(o, IX, Binary("shr", mul(IX, Const(factor, int64)), Const(7, int64))),))
    )
    out = np.zeros(50, np.int64)
    run(program([o], body), [50, 1], [out])
    with np.errstate(over="ignore"):
        same(out, (np.arange(50) * np.int64(factor)) >> 7)


def test_use_outside_a_scope_is_refused():
    o = arg("o", int64)
    with pytest.raises(InternalError, match="name 'i' is used outside its scope"):
        jit.compile_program(program([o], Store(o, ZERO, IX)))
    with pytest.raises(InternalError, match="buffer 'lost' is no argument"):
        jit.compile_program(program([o], Store(Buffer("lost", int64, N), ZERO, N)))
