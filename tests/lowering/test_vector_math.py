"""The expansions of vector_math: their error in ulp, their special values, the rewrite itself.

A loop of one statement is expanded and its Lets are evaluated on whole NumPy arrays, with
products and sums rounded apart; the LLVM test below sees them fused where the machine can.
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinygraph.dtypes import DType, float32, float64, int64
from tinygraph.loops.build import Builder, add, index
from tinygraph.loops.check import check_program
from tinygraph.loops.interpret import Failure, run
from tinygraph.loops.language import (
    TRANSCENDENTAL,
    Binary,
    Buffer,
    Cast,
    Const,
    DimOf,
    Expr,
    Let,
    Load,
    Program,
    Select,
    Store,
    Unary,
    Var,
    operands,
    walk,
)
from tinygraph.loops.printing import format_program
from tinygraph.lowering.vector_math import expand_math

N = DimOf("n")
DTYPES = [float32, float64]


def elementwise(op: str, dtype: DType) -> Program:
    """out[i] = op(x[i]), or op(x[i], y[i])."""
    count = 2 if op in ("pow", "arctan2") else 1
    args = [Buffer(name, dtype, N, "arg", False) for name in "xy"[:count]]
    out = Buffer("out", dtype, N, "arg")
    b = Builder(["n", "x", "y", "out"])
    with b.loop(N, "vector") as i:
        inner = [b.let(Load(a, i)) for a in args]
        value = Unary(op, *inner) if count == 1 else Binary(op, *inner)
        b.store(out, i, b.let(value))
    return Program(f"map_{op}", ("n",), (*args, out), (), index(0), b.block())


NUMPY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "min": np.minimum,
    "max": np.maximum, "shl": np.left_shift, "shr": np.right_shift, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
    "ne": np.not_equal, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "neg": np.negative, "abs": np.abs, "not": np.logical_not, "sqrt": np.sqrt,
    "floor": np.floor, "round": np.rint, "isnan": np.isnan, "isinf": np.isinf,
}  # fmt: skip


def evaluate(expr: Expr, env: dict[str, np.ndarray]) -> np.ndarray:
    """An expression on arrays: one element per iteration."""
    if isinstance(expr, Const):
        return expr.dtype.np.type(expr.value)
    if isinstance(expr, Var):
        return env[expr.name]
    if isinstance(expr, Load):
        return env[expr.buffer.name]
    assert isinstance(expr, (Unary, Binary, Select, Cast))
    values = [evaluate(e, env) for e in operands(expr)]
    if isinstance(expr, Select):
        return np.where(*values)
    if isinstance(expr, Cast):
        return values[0].astype(expr.dtype.np)
    if expr.op in ("to_bits", "from_bits"):
        return values[0].view(expr.dtype.np)
    return NUMPY[expr.op](*values)


def apply(op: str, *arrays: np.ndarray) -> np.ndarray:
    """The expansion of ``op`` on arrays."""
    dtype = float32 if arrays[0].dtype == np.float32 else float64
    program = expand_math(elementwise(op, dtype))
    env = dict(zip("xy", arrays, strict=False))
    with np.errstate(all="ignore"):
        for stmt in walk(program.body):
            if isinstance(stmt, Let):
                env[stmt.var.name] = evaluate(stmt.value, env)
            elif isinstance(stmt, Store):
                return evaluate(stmt.value, env)
    raise AssertionError("the loop stores nothing")


def operations(op: str, dtype: DType) -> dict[str, int]:
    """How often the expansion uses each operation."""
    counts: dict[str, int] = {}

    def count(expr: Expr) -> None:
        name = getattr(expr, "op", type(expr).__name__)
        if not isinstance(expr, (Const, Var, Load)):
            counts[name] = counts.get(name, 0) + 1
        for e in operands(expr):
            count(e)

    for stmt in walk(expand_math(elementwise(op, dtype)).body):
        if isinstance(stmt, (Let, Store)):
            count(stmt.value)
    return counts


DOCUMENT = Path(__file__).parents[2] / "docs" / "vector_math.md"
EXHAUSTIVE = ("exp", "log", "tanh", "sigmoid")  # float32: measured on all inputs


def table(dtype: DType) -> dict[str, float]:
    """The largest errors in ulp that the document states."""
    text = DOCUMENT.read_text(encoding="utf-8")
    part = text.split(f"<!-- {dtype} -->")[1].split("<!-- end -->")[0]
    rows = re.findall(r"^\| (\w+) \| [\d.e+]+ \| ([\d.]+) \|", part, re.MULTILINE)
    return {op: float(error) for op, error in rows}


def bound(op: str, dtype: DType, fused: bool) -> float:
    """What a sample may show: the row of the table, where all inputs were measured, else a
    little more, and never more than 2."""
    row = table(dtype)[op]
    exhaustive = fused and dtype is float32 and op in EXHAUSTIVE
    return min(2.0, row + (0.001 if exhaustive else 0.25))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_document_states_at_most_two_ulp_for_every_function(dtype: DType) -> None:
    rows = table(dtype)
    assert rows.keys() == TRANSCENDENTAL
    assert all(0.49 < error <= 2 for error in rows.values())
    if dtype is float32:
        assert rows["exp"] <= 1.01 and rows["log"] <= 1.01


def reference(op: str, *arrays: np.ndarray) -> np.ndarray:
    """Good to far below one ulp of the arrays' dtype: float64 for float32, else long double."""
    wide: type[np.floating] = np.float64 if arrays[0].dtype == np.float32 else np.longdouble
    x: np.ndarray = arrays[0].astype(wide)
    with np.errstate(all="ignore"):
        if op == "sigmoid":
            small = np.exp(-np.abs(x))
            return np.where(x < 0, small, wide(1)) / (1 + small)
        if op == "softplus":
            return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
        if op == "erf":
            return _erf(x)
        if op == "pow":
            return np.power(x, arrays[1].astype(wide))
        return getattr(np, op)(x, *(a.astype(wide) for a in arrays[1:]))


def _erf(x: np.ndarray) -> np.ndarray:
    """The series 2/sqrt(pi) exp(-x^2) x (1 + 2x^2/3 + (2x^2)^2/15 + ...); all terms positive."""
    total, term = np.ones_like(x), np.ones_like(x)
    for k in range(1, 200):
        term = term * (2 * x * x) / (2 * k + 1)
        total += term
    root = np.sqrt(np.arccos(x.dtype.type(-1)))
    return 2 * x * np.exp(-x * x) * total / root


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Errors in units of the last place of the exact result; 0 where that is not a normal
    number of got's dtype."""
    info = np.finfo(got.dtype)
    size = np.abs(exact)
    normal = (size >= info.tiny) & (size < info.max)
    _, exponent = np.frexp(np.where(normal, size, 1))
    unit = np.ldexp(exact.dtype.type(1), exponent - 1 - info.nmant)
    wrong = np.where(normal, got, 0).astype(exact.dtype) - np.where(normal, exact, 0)
    return np.abs(wrong) / unit


RANGES = {  # what is sampled evenly, for float32 and float64
    "exp": (-88, 89, -709, 710), "expm1": (-20, 89, -40, 710), "tanh": (-12, 12, -22, 22),
    "sigmoid": (-90, 40, -712, 60), "softplus": (-90, 90, -712, 710), "erf": (-4, 4, -5, 5),
    "sinh": (-89.4, 89.4, -710, 710), "cosh": (-89.4, 89.4, -710, 710), "sin": (-1e5, 1e5) * 2,
    "cos": (-1e5, 1e5) * 2, "tan": (-1e5, 1e5) * 2, "arcsin": (-1, 1) * 2,
    "arccos": (-1, 1) * 2, "arctanh": (-1, 1) * 2, "arccosh": (1, 50) * 2,
}  # fmt: skip


def samples(op: str, dtype: np.dtype, count: int = 20000) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(7)
    scale = 30 if dtype == np.float32 else 200

    def magnitudes(low: float, high: float) -> np.ndarray:
        return np.exp2(rng.uniform(low, high, count))

    pair: tuple[np.ndarray, ...]
    signs = rng.choice([-1.0, 1.0], count)
    if op == "arctan2":
        pair = magnitudes(-8, 8) * signs, magnitudes(-8, 8) * rng.choice([-1.0, 1.0], count)
    elif op == "pow":
        base = np.concatenate([magnitudes(-5, 5), 1 + rng.uniform(-1e-3, 1e-3, count)])
        limit = 20 if dtype == np.float32 else 180
        pair = base, np.concatenate([rng.uniform(-limit, limit, count), signs * 5e4])
    else:
        first = 0 if dtype == np.float32 else 2
        low, high = RANGES.get(op, (-1e3, 1e3) * 2)[first : first + 2]
        x = np.concatenate([
            rng.uniform(low, high, 2 * count), magnitudes(-scale, 6) * signs,
            magnitudes(-scale, scale), 1 + signs * magnitudes(-20, -1), rng.uniform(-3, 3, count),
        ])  # fmt: skip
        x = x[(x >= low) & (x <= high)] if op in RANGES else x
        lowest = {"log": 0, "log2": 0, "log1p": -1}.get(op, -np.inf)
        pair = (x[x > lowest],)
    return tuple(a.astype(dtype) for a in pair)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", sorted(TRANSCENDENTAL))
def test_error_in_ulp(op: str, dtype: DType) -> None:
    if dtype is float64 and np.finfo(np.longdouble).nmant < 63:
        pytest.skip("no long double to compare with on this machine")
    arrays = samples(op, dtype.np)
    assert arrays[0].size >= 20000
    error = ulps(apply(op, *arrays), reference(op, *arrays))
    assert error.max() <= bound(op, dtype, fused=False)


INF, NAN = math.inf, math.nan
EDGES = {
    "exp": [(0, 1), (-0.0, 1), (INF, INF), (-INF, 0), (NAN, NAN), (1e3, INF), (-1e3, 0)],
    "expm1": [(0, 0), (-0.0, -0.0), (INF, INF), (-INF, -1), (NAN, NAN), (1e3, INF), (-1e3, -1)],
    "log": [(1, 0), (0, -INF), (-0.0, -INF), (INF, INF), (-1, NAN), (-INF, NAN), (NAN, NAN)],
    "log2": [(1, 0), (8, 3), (0, -INF), (-0.0, -INF), (INF, INF), (-1, NAN), (NAN, NAN)],
    "log1p": [(0, 0), (-0.0, -0.0), (-1, -INF), (-2, NAN), (INF, INF), (-INF, NAN), (NAN, NAN)],
    "tanh": [(0, 0), (-0.0, -0.0), (INF, 1), (-INF, -1), (NAN, NAN), (30, 1), (-30, -1)],
    "sigmoid": [(0, 0.5), (-0.0, 0.5), (INF, 1), (-INF, 0), (NAN, NAN), (1e3, 1), (-1e3, 0)],
    "softplus": [(INF, INF), (-INF, 0), (NAN, NAN), (1e3, 1e3), (-1e3, 0), (1e30, 1e30)],
    "sin": [(0, 0), (-0.0, -0.0), (INF, NAN), (-INF, NAN), (NAN, NAN)],
    "cos": [(0, 1), (-0.0, 1), (INF, NAN), (-INF, NAN), (NAN, NAN)],
    "tan": [(0, 0), (-0.0, -0.0), (INF, NAN), (-INF, NAN), (NAN, NAN)],
    "erf": [(0, 0), (-0.0, -0.0), (INF, 1), (-INF, -1), (NAN, NAN), (7, 1), (-7, -1)],
    "arcsin": [(0, 0), (-0.0, -0.0), (1, math.pi / 2), (-1, -math.pi / 2), (2, NAN), (NAN, NAN)],
    "arccos": [(1, 0), (-1, math.pi), (0, math.pi / 2), (2, NAN), (-2, NAN), (NAN, NAN)],
    "arctan": [(0, 0), (-0.0, -0.0), (INF, math.pi / 2), (-INF, -math.pi / 2), (NAN, NAN)],
    "sinh": [(0, 0), (-0.0, -0.0), (INF, INF), (-INF, -INF), (1e3, INF), (NAN, NAN)],
    "cosh": [(0, 1), (-0.0, 1), (INF, INF), (-INF, INF), (1e3, INF), (NAN, NAN)],
    "arcsinh": [(0, 0), (-0.0, -0.0), (INF, INF), (-INF, -INF), (NAN, NAN)],
    "arccosh": [(1, 0), (0, NAN), (-5, NAN), (INF, INF), (-INF, NAN), (NAN, NAN)],
    "arctanh": [(0, 0), (-0.0, -0.0), (1, INF), (-1, -INF), (2, NAN), (-2, NAN), (NAN, NAN)],
    "pow": [
        (0, 0, 1), (NAN, 0, 1), (1, NAN, 1), (1, INF, 1), (-1, INF, 1), (2, INF, INF), (2, -INF, 0),
        (0.5, INF, 0), (0.5, -INF, INF), (0, 2, 0), (-0.0, 3, -0.0), (-0.0, -3, -INF),
        (0, -2, INF), (INF, 2, INF), (INF, -1, 0), (-INF, 3, -INF), (-INF, 0.5, INF),
        (-2, 3, -8), (-2, 2, 4), (-2, 0.5, NAN), (NAN, 1, NAN), (2, NAN, NAN), (2, 10, 1024),
        (2, 1e30, INF), (2, -1e30, 0), (-1, 1e30, 1),
    ],
    "arctan2": [
        (0, 1, 0), (-0.0, 1, -0.0), (0, -1, math.pi), (-0.0, -1, -math.pi), (0, 0, 0),
        (0, -0.0, math.pi), (-0.0, -0.0, -math.pi), (1, 0, math.pi / 2), (-1, 0, -math.pi / 2),
        (INF, INF, math.pi / 4), (INF, -INF, 3 * math.pi / 4), (1, INF, 0), (1, -INF, math.pi),
        (INF, 1, math.pi / 2), (NAN, 1, NAN), (1, NAN, NAN),
    ],
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", sorted(TRANSCENDENTAL))
def test_special_values(op: str, dtype: DType) -> None:
    check_edges(op, dtype, apply)


def check_edges(op: str, dtype: DType, function: Callable[..., np.ndarray]) -> None:
    """Does ``function`` give what the table says?"""
    table = np.array(EDGES[op], dtype=dtype.np)
    want, got = table[:, -1], function(op, *(c.copy() for c in table[:, :-1].T))
    tiny = np.finfo(dtype.np).tiny
    got = np.where(np.abs(got) < tiny, np.copysign(0, got), got)  # no denormals
    np.testing.assert_allclose(got, want, rtol=4 * np.finfo(dtype.np).eps)
    real = ~np.isnan(want)
    assert (np.signbit(got) == np.signbit(want))[real].all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_ends_of_the_range_of_exp(dtype: DType) -> None:
    info = np.finfo(dtype.np)
    top = dtype.np.type(np.log(np.longdouble(info.max)))
    top = top if np.exp(np.longdouble(top)) <= info.max else np.nextafter(top, dtype.np.type(0))
    below, above = apply("exp", np.array([top, np.nextafter(top, dtype.np.type(INF))]))
    assert below > 0.99 * info.max and np.isfinite(below)
    assert np.isinf(above)
    bottom = dtype.np.type(np.log(np.longdouble(info.tiny)) * (1 - 1e-6))
    small, none = apply("exp", np.array([bottom, bottom * dtype.np.type(1.01)]))
    assert info.tiny < small < 1.01 * info.tiny
    assert none == 0


@pytest.mark.parametrize("op", ["sinh", "cosh"])
def test_sinh_and_cosh_overflow_where_they_should(op: str) -> None:
    for dtype in DTYPES:
        top = np.arccosh(np.longdouble(np.finfo(dtype.np).max)).astype(dtype.np)
        near, far = np.nextafter(top, dtype.np.type(0)), np.nextafter(top, dtype.np.type(INF))
        x = np.concatenate([[near], far * np.linspace(1, 1.01, 50).astype(dtype.np)[1:]])
        results = apply(op, x.astype(dtype.np))
        assert np.isfinite(results[0]) and np.isposinf(results[1:]).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tanh_stays_within_one_and_is_x_where_x_is_small(dtype: DType) -> None:
    x = np.linspace(0, 30, 200001).astype(dtype.np)
    assert apply("tanh", x).max() == 1
    top = -30 if dtype is float32 else -60
    small = np.exp2(np.linspace(-100, top, 999)).astype(dtype.np)
    np.testing.assert_array_equal(apply("tanh", small), small)


@pytest.mark.parametrize("op", ["tanh", "arctan", "erf", "sinh", "arcsinh", "arcsin", "sin"])
def test_odd_functions_are_odd(op: str) -> None:
    x = np.random.default_rng(1).uniform(0, 1, 1000).astype(np.float32)
    np.testing.assert_array_equal(apply(op, -x), -apply(op, x))


@pytest.mark.parametrize("op", ["sin", "cos"])
def test_sin_and_cos_stay_bounded_beyond_their_range(op: str) -> None:
    x = np.exp2(np.linspace(20, 1000, 500))
    assert np.abs(apply(op, x)).max() <= 1
    assert np.abs(apply(op, x[x < 3e38].astype(np.float32))).max() <= 1


# What an activation costs, all operations counted one by one (a multiply-add is two).
BUDGET = {
    ("exp", float32): 29, ("tanh", float32): 34, ("sigmoid", float32): 29,
    ("log", float32): 41, ("exp", float64): 40, ("sigmoid", float64): 40, ("tanh", float64): 47,
}  # fmt: skip


@pytest.mark.parametrize("key", BUDGET, ids=lambda key: f"{key[0]}-{key[1]}")
def test_operations_are_few(key: tuple[str, DType]) -> None:
    counts = operations(*key)
    assert sum(counts.values()) <= BUDGET[key]
    assert counts.get("div", 0) <= 1


@pytest.mark.parametrize("op", sorted(TRANSCENDENTAL))
def test_expansions_are_well_formed_and_plain(op: str) -> None:
    for dtype in DTYPES:
        program = expand_math(elementwise(op, dtype))
        check_program(program)
        assert not TRANSCENDENTAL & operations(op, dtype).keys()
        assert expand_math(program) is program


def test_functions_inside_expressions_and_conditions() -> None:
    """Nested calls, an if, a while, a check: against the interpreter's own functions."""
    x, y = Buffer("x", float64, N, "arg", False), Buffer("y", float64, N, "arg")
    b = Builder(["n", "x", "y"])
    with b.loop(N) as i:
        b.store(y, i, Unary("exp", Unary("tanh", Load(x, i))))
        large = Binary("gt", Unary("sigmoid", Load(x, i)), Const(0.5, float64))
        with b.if_(large):
            b.store(y, i, Unary("log1p", Load(x, i)), "add")
        with b.else_():
            b.store(y, i, Unary("expm1", Load(x, i)), "add")
        with b.while_(Binary("lt", Unary("softplus", Load(y, i)), Const(3.0, float64))):
            b.store(y, i, Const(0.5, float64), "add")
        number = Cast(Unary("exp", Load(x, i)), int64)
        b.check(Binary("lt", Unary("cosh", Load(x, i)), Const(20.0, float64)), 0, [number])
    program = Program("nested", ("n",), (x, y), (), index(0), b.block(), 1)
    plain = expand_math(program)
    check_program(plain)
    assert all(name not in format_program(plain) for name in ("exp(", "tanh(", "cosh("))
    values = np.linspace(-2, 2, 9)
    results = []
    for p in (program, plain):
        out = np.zeros(9)
        assert run(p, [9], [values, out]) == 0
        results.append(out)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-14)
    assert run(plain, [1], [np.array([5.0]), np.zeros(1)]) == Failure(0, (148,))


def test_names_of_the_expansion_are_new() -> None:
    x = Buffer("m", float32, N, "arg")
    b = Builder(["m"])
    with b.loop(N, hint="m_1") as i:
        b.store(x, add(i, index(0)), Unary("exp", b.let(Load(x, i), "m_2")))
    check_program(expand_math(Program("p", ("n",), (x,), (), index(0), b.block())))


def native(op: str, *arrays: np.ndarray) -> np.ndarray:
    """The expansion of ``op`` on arrays, compiled by LLVM."""
    jit = pytest.importorskip("tinygraph.backends.llvm.jit")
    dtype = float32 if arrays[0].dtype == np.float32 else float64
    code = jit.load(jit.compile_program(expand_math(elementwise(op, dtype))))
    out = np.empty_like(arrays[0])
    where = np.array([a.ctypes.data for a in (*arrays, out)], np.int64)
    sizes, fault = np.array([out.size]), np.zeros(16, np.int64)
    assert code(sizes.ctypes.data, where.ctypes.data, 0, fault.ctypes.data) == 0
    return out


def fuses() -> bool:
    """Does this machine multiply and add with one rounding?"""
    features = pytest.importorskip("llvmlite.binding").get_host_cpu_features()
    return platform.machine() == "aarch64" or bool(features.get("fma"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", sorted(TRANSCENDENTAL))
def test_native_code_keeps_the_promises(op: str, dtype: DType) -> None:
    """The same through LLVM, which may fuse multiplications with additions."""
    check_edges(op, dtype, native)
    if dtype is float32 or np.finfo(np.longdouble).nmant >= 63:
        arrays = samples(op, dtype.np)
        error = ulps(native(op, *arrays), reference(op, *arrays))
        assert error.max() <= bound(op, dtype, fused=fuses())
