"""The loop language: builder, printer, interpreter."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygraph.dtypes import (
    bool_,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint8,
)
from tinygraph.loops import build
from tinygraph.loops.build import Builder, const, index
from tinygraph.loops.interpret import Failure, OutOfBounds, run
from tinygraph.loops.language import (
    Binary,
    Block,
    Buffer,
    Cast,
    Const,
    DimOf,
    Expr,
    Load,
    Matrix,
    Program,
    Select,
    Unary,
    Var,
)
from tinygraph.loops.printing import format_expr, format_program

N = DimOf("n")
SMALL = st.integers(-20, 20)


def program(b: Builder, *args: Buffer, arena=(), arena_bytes=None, sites=0) -> Program:
    return Program("p", ("n",), args, arena, arena_bytes or index(0), b.block(), sites)


def value_of(expr: Expr, **inputs) -> object:
    """What the interpreter computes for one expression over Loads of one-element inputs."""
    out = Buffer("out", expr.dtype, index(1), "arg")
    b = Builder()
    b.store(out, index(0), expr)
    buffers, values = zip(*inputs.values(), strict=True)
    arrays = [np.array([v], x.dtype.np) for x, v in zip(buffers, values, strict=True)]
    result = np.zeros(1, expr.dtype.np)
    assert run(program(b, *buffers, out), [3], [*arrays, result]) == 0
    return result[0]


# ---------------------------------------------------------------- builder


@given(SMALL, SMALL)
def test_index_literals_fold_to_what_python_computes(x: int, y: int) -> None:
    expected = {
        "add": x + y, "sub": x - y, "mul": x * y, "minimum": min(x, y), "maximum": max(x, y),
        "floordiv": x // y if y else 0, "mod": x % y if y else 0,
    }  # fmt: skip
    for name, value in expected.items():
        folded = getattr(build, name)(index(x), index(y))
        assert isinstance(folded, Const)
        assert folded.value == value


@given(st.integers(-50, 50), st.lists(st.tuples(st.sampled_from(
    ["add", "sub", "mul", "floordiv", "mod", "minimum", "maximum"]), SMALL, st.booleans()),
    max_size=6))  # fmt: skip
def test_folding_keeps_the_value(start: int, steps: list[tuple[str, int, bool]]) -> None:
    ops = {"minimum": "min", "maximum": "max"}
    folded: Expr = N
    plain: Expr = N
    for name, literal, left in steps:
        pair = (index(literal), folded) if left else (folded, index(literal))
        raw = (index(literal), plain) if left else (plain, index(literal))
        folded, plain = getattr(build, name)(*pair), Binary(ops.get(name, name), *raw)
    out = Buffer("out", int64, index(2), "arg")
    b = Builder()
    b.store(out, index(0), folded)
    b.store(out, index(1), plain)
    result = np.zeros(2, np.int64)
    run(program(b, out), [start], [result])
    assert result[0] == result[1]


def test_neutral_elements_vanish() -> None:
    assert build.add(N, index(0)) is N
    assert build.add(index(0), N) is N
    assert build.sub(N, index(0)) is N
    assert build.mul(N, index(1)) is N
    assert build.floordiv(N, index(1)) is N
    assert format_expr(build.mul(N, index(0))) == "0"
    assert format_expr(build.sub(N, N)) == "0"
    assert format_expr(build.add(index(2), build.add(N, index(3)))) == "$n + 5"


def test_floats_are_not_folded() -> None:
    x = Var("x", float32)
    assert isinstance(build.mul(x, const(0, float32)), Binary)  # nan * 0 is nan
    assert isinstance(build.add(x, const(0, float32)), Binary)  # -0.0 + 0.0 is 0.0


def test_integer_literals_wrap() -> None:
    assert const(200, int8).value == -56
    assert const(-1, uint8).value == 255
    assert const(2, bool_).value is True


def test_names_are_unique() -> None:
    b = Builder(["t"])
    names = [b.let(index(0)).name for _ in range(3)] + [b.register(float32, 2, "t").name]
    with b.loop(N, hint="t") as i:
        names.append(i.name)
    assert len({"t", *names}) == 6


def test_block_inside_an_open_loop_is_refused() -> None:
    b = Builder()
    with b.loop(N), pytest.raises(ValueError, match="1 open nested"):
        b.block()


def test_else_needs_an_if() -> None:
    b = Builder()
    b.note("no if here")
    with pytest.raises(ValueError, match="does not directly follow"), b.else_():
        pass


# ---------------------------------------------------------------- printing


def test_precedence_is_printed() -> None:
    a, c = Var("a", float64), Var("c", float64)
    left = Binary("add", Binary("add", a, c), a)
    right = Binary("add", a, Binary("add", a, c))
    assert format_expr(left) == "a + c + a"
    assert format_expr(right) == "a + (a + c)"
    assert format_expr(Binary("mul", left, Unary("neg", a))) == "(a + c + a) * -a"
    assert format_expr(Unary("neg", Unary("neg", a))) == "--a"
    chained = Binary("eq", Binary("lt", a, c), Binary("lt", c, a))
    assert format_expr(chained) == "(a < c) == (c < a)"
    choice = Select(Binary("lt", a, c), a, Select(Binary("lt", c, a), c, a))
    assert format_expr(choice) == "a if a < c else (c if c < a else a)"


def test_literals_tell_their_type_and_every_bit() -> None:
    texts = [format_expr(Const(v, d)) for v, d in [
        (1, int64), (1, int32), (1.0, float32), (1.0, float64), (True, bool_), (-0.0, float64),
        (math.inf, float32), (-math.inf, float64), (math.nan, float64), (0.1 + 0.2, float64)]]
    assert texts == ["1", "int32(1)", "1.0f", "1.0", "True", "-0.0", "inff", "-inf", "nan",
                     "0.30000000000000004"]  # fmt: skip


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_equal_text_means_equal_float(x: float, y: float) -> None:
    same = format_expr(Const(x, float64)) == format_expr(Const(y, float64))
    assert same == (x == y and math.copysign(1, x) == math.copysign(1, y))


def sample_program(note: str = "a note") -> Program:
    x = Buffer("x", float32, N, "arg", False)
    y = Buffer("y", float32, N, "arg")
    t = Buffer("t", float32, N)
    b = Builder(["x", "y", "t", "n"])
    with b.loop(N, "vector") as i:
        b.note(note, "model.py:3")
        v = b.let(Unary("tanh", Load(x, i)), "v")
        b.store(t, i, v)
        with b.if_(Binary("lt", i, index(2))):
            b.store(y, i, v, "max")
        with b.else_():
            b.check(Binary("ne", i, index(7)), 0, [i])
    r = b.register(float32, 2)
    with b.while_(Binary("lt", Load(r, index(0)), const(0.0, float32))):
        b.store(r, index(0), const(1.0, float32), "add")
    one, zero = index(1), index(0)
    b.gemm(one, one, N, Matrix(t, zero, N, one), Matrix(x, zero, one, one),
           Matrix(y, zero, one, one), True)  # fmt: skip
    return program(b, x, y, arena=((t, zero),), arena_bytes=build.mul(N, index(4)), sites=1)


def test_the_text_of_a_program() -> None:
    assert format_program(sample_program()) == """\
def p($n):
    arg x: float32[$n] read-only
    arg y: float32[$n] writable
    temp t: float32[$n] at byte 0
    arena $n * 4 bytes, 1 sites
    for i in range($n):  # vector
        # a note  (model.py:3)
        v: float32 = tanh(x[i])
        t[i] = v
        if i < 2:
            y[i] max= v
        else:
            check i != 7 else fail(0; i)
    register r: float32[2]
    while r[0] < 0.0f:
        r[0] += 1.0f
    y[0; rows 1; cols 1] += t[0; rows $n; cols 1] @ x[0; rows 1; cols 1]  where m = 1, n = 1, k = $n
"""


def test_notes_can_be_left_out_and_cannot_forge_statements() -> None:
    texts = [format_program(sample_program(note), notes=False) for note in ("a", "b\nc")]
    assert texts[0] == texts[1]
    assert "        # c  (model.py:3)" in format_program(sample_program("b\nc")).splitlines()


def test_programs_that_differ_print_differently() -> None:
    p = sample_program()
    others = [
        replace(p, args=(replace(p.args[0], writable=True), p.args[1])),
        replace(p, sizes=("n", "m")),
        replace(p, arena_bytes=index(64)),
        replace(p, sites=2),
        replace(p, body=Block(p.body.body[:-1])),
    ]
    assert len({format_program(q) for q in [p, *others]}) == 6


def test_a_name_cannot_be_read_as_an_expression() -> None:
    assert format_expr(Var("a + b", int64)) == "'a + b'"
    assert format_expr(Load(Buffer("lstm.W", float32, N), index(0))) == "lstm.W[0]"


# ---------------------------------------------------------------- interpreter


def test_float32_rounds_after_every_operation() -> None:
    a = Buffer("a", float32, index(1), "arg", False)
    x = Load(a, index(0))
    big = const(2.0**24, float32)
    expr = Binary("sub", Binary("add", x, big), big)
    assert value_of(expr, a=(a, 1.0)) == 0.0
    assert value_of(Binary("mul", x, x), a=(a, 1e30)) == np.float32(np.inf)


@pytest.mark.parametrize(
    ("op", "x", "y", "dtype", "expected"),
    [
        ("add", 127, 1, int8, -128),
        ("mul", 2**31 - 1, 2, int32, -2),
        ("sub", 0, 1, uint8, 255),
        ("add", 2**63 - 1, 1, int64, -(2**63)),
        ("floordiv", -7, 2, int64, -4),
        ("mod", -7, 2, int64, 1),
        ("mod", 7, -2, int64, -1),
        ("floordiv", 7, 0, int64, 0),
        ("mod", 7, 0, int64, 0),
        ("floordiv", -(2**63), -1, int64, -(2**63)),
        ("shl", 1, 31, int32, -(2**31)),
        ("shr", -8, 1, int32, -4),
        ("min", math.nan, 1.0, float64, math.nan),
        ("max", 1.0, math.nan, float32, math.nan),
        ("div", 1.0, 0.0, float64, math.inf),
        ("xor", True, True, bool_, False),
        ("mod", -7.5, 2.0, float64, 0.5),
    ],
)
def test_binary_operations(op, x, y, dtype, expected) -> None:
    a = Buffer("a", dtype, index(1), "arg", False)
    got = value_of(Binary(op, Load(a, index(0)), Const(y, dtype)), a=(a, x))
    np.testing.assert_equal(got, dtype.np.type(expected))


@pytest.mark.parametrize(
    ("x", "source", "target", "expected"),
    [
        (2.9, float64, int32, 2),
        (-2.9, float64, int32, -2),
        (1e30, float64, int32, 2**31 - 1),
        (-math.inf, float32, int64, -(2**63)),
        (math.nan, float64, int64, 0),
        (-5.0, float32, uint8, 0),
        (300, int64, uint8, 44),
        (0.5, float32, bool_, True),
        (0.0, float32, bool_, False),
        (True, bool_, float32, 1.0),
        (2**53 + 1, int64, float64, 2.0**53),
        (2**62 + 2**38 + 1, int64, float32, 2.0**62 + 2.0**39),
    ],
)
def test_casts(x, source, target, expected) -> None:
    a = Buffer("a", source, index(1), "arg", False)
    assert value_of(Cast(Load(a, index(0)), target), a=(a, x)) == expected


@pytest.mark.parametrize(
    ("op", "x", "expected"),
    [
        ("neg", 2.0, -2.0), ("abs", -2.0, 2.0), ("sqrt", 2.25, 1.5), ("floor", -1.5, -2.0),
        ("ceil", 1.2, 2.0), ("trunc", -1.7, -1.0), ("round", 2.5, 2.0), ("isnan", math.nan, True),
        ("isinf", -math.inf, True), ("to_bits", 1.0, 0x3F800000), ("sigmoid", 0.0, 0.5),
        ("erf", 0.0, 0.0), ("softplus", 0.0, np.float32(math.log(2))),
    ],
)  # fmt: skip
def test_unary_operations(op, x, expected) -> None:
    a = Buffer("a", float32, index(1), "arg", False)
    assert value_of(Unary(op, Load(a, index(0))), a=(a, x)) == expected


def test_bits_go_there_and_back() -> None:
    for dtype in (float32, float64):
        a = Buffer("a", dtype, index(1), "arg", False)
        x = Load(a, index(0))
        assert value_of(Unary("from_bits", Unary("to_bits", x)), a=(a, -1.75)) == -1.75


def test_the_sample_program_runs() -> None:
    n = 5
    x, y = np.linspace(0.1, 0.5, n, dtype=np.float32), np.zeros(n, np.float32)
    expected = np.where(np.arange(n) < 2, np.tanh(x), 0).astype(np.float32)
    expected[0] += np.tanh(x) @ x
    # The register starts as nan, so its loop ends at once.
    assert run(sample_program(), [n], [x, y]) == 0
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_a_check_leaves_with_site_and_numbers() -> None:
    x = np.zeros(9, np.float32)
    assert run(sample_program(), [9], [x, x.copy()]) == Failure(0, (7,))


@pytest.mark.parametrize("offset", [-1, 1])
def test_every_load_and_store_is_checked(offset: int) -> None:
    x = Buffer("x", float64, N, "arg")
    for reads in (True, False):
        b = Builder()
        with b.loop(N) as i:
            at = Binary("add", i, index(offset))
            b.store(x, i if reads else at, Load(x, at if reads else i))
        with pytest.raises(OutOfBounds) as caught:
            run(program(b, x), [4], [np.zeros(4)])
        assert (caught.value.buffer, caught.value.size) == ("x", 4)
        assert caught.value.index == (-1 if offset < 0 else 4)


def matrices(c_rows: int = 3) -> Program:
    a, b_, c = (Buffer(name, float32, index(size), "arg") for name, size in
                (("a", 6), ("b", 12), ("c", 8)))  # fmt: skip
    b, zero, one = Builder(), index(0), index(1)
    b.gemm(index(2), N, index(3), Matrix(a, zero, index(3), one), Matrix(b_, zero, index(4), one),
           Matrix(c, zero, index(c_rows), one))  # fmt: skip
    return program(b, a, b_, c)


def test_gemm() -> None:
    a = np.arange(6, dtype=np.float32)
    b, c = np.arange(12, dtype=np.float32), np.full(8, 9, np.float32)
    assert run(matrices(4), [3], [a, b, c]) == 0
    wanted = np.full((2, 4), 9, np.float32)
    wanted[:, :3] = a.reshape(2, 3) @ b.reshape(3, 4)[:, :3]
    np.testing.assert_array_equal(c.reshape(2, 4), wanted)
    with pytest.raises(OutOfBounds, match="buffer c of 8"):
        run(matrices(6), [3], [a, b, c])
    with pytest.raises(ValueError, match="overlap"):
        run(matrices(2), [3], [a, b, c])


def test_gemm_must_not_write_what_it_reads() -> None:
    memory = np.arange(20, dtype=np.float32)
    with pytest.raises(ValueError, match="writes to c what it reads as b"):
        run(matrices(4), [3], [memory[:6].copy(), memory[:12], memory[8:16]])


def test_gemm_of_no_products_stores_zeros() -> None:
    c = Buffer("c", float64, N, "arg")
    b, zero, one = Builder(), index(0), index(1)
    empty = Matrix(c, zero, zero, zero)
    b.gemm(N, one, zero, empty, empty, Matrix(c, zero, one, one))
    out = np.ones(3)
    assert run(program(b, c), [3], [out]) == 0
    assert not out.any()


def test_temps_that_overlap_do_overlap_and_fresh_memory_is_poison() -> None:
    t, u = Buffer("t", float64, N), Buffer("u", int64, N)
    out, before = Buffer("out", int64, N, "arg"), Buffer("before", float64, N, "arg")
    b = Builder()
    with b.loop(N) as i:
        b.store(before, i, Load(t, i))
        b.store(t, i, const(1.0, float64))
        b.store(out, i, Load(u, i))
    both = ((t, index(0)), (u, index(0)))
    p = program(b, out, before, arena=both, arena_bytes=build.mul(N, index(8)))
    got, old = np.zeros(2, np.int64), np.zeros(2)
    assert run(p, [2], [got, old]) == 0
    assert np.isnan(old).all()
    np.testing.assert_array_equal(got.view(np.float64), 1.0)


@pytest.mark.parametrize(("offset", "bytes_"), [(0, 8), (32, 64), (64, 64)])
def test_temps_lie_inside_the_arena_at_multiples_of_64(offset: int, bytes_: int) -> None:
    t = Buffer("t", float64, index(2))
    p = program(Builder(), arena=((t, index(offset)),), arena_bytes=index(bytes_))
    with pytest.raises(ValueError, match="temp t lies at bytes"):
        run(p, [1], [])


def test_backward_runs_the_free_loops_from_the_end() -> None:
    x, y = Buffer("x", int64, index(1), "arg"), Buffer("y", int64, index(1), "arg")
    b = Builder()
    for target, mode in ((x, "vector"), (y, "serial")):
        with b.loop(N, mode) as i:
            b.store(target, index(0), i)
    last, first = np.zeros(1, np.int64), np.zeros(1, np.int64)
    run(program(b, x, y), [4], [first, last], backward=True)
    assert (first[0], last[0]) == (0, 3)


def test_arguments_that_do_not_fit_are_refused() -> None:
    x = Buffer("x", float32, N, "arg")
    p = program(Builder(), x)
    cases: list[tuple[list[int], list[np.ndarray], str]] = [
        ([], [np.zeros(1, np.float32)], "takes 1 sizes"),
        ([1], [np.zeros(1)], "argument x is float64"),
        ([2], [np.zeros(1, np.float32)], "has 1 elements, expected 2"),
        ([1], [np.zeros((1, 1), np.float32)], "expected a flat"),
    ]
    for sizes, args, words in cases:
        with pytest.raises(ValueError, match=words):
            run(p, sizes, args)


def test_bool_memory_is_any_nonzero_byte() -> None:
    x, y = Buffer("x", bool_, N, "arg"), Buffer("y", bool_, N, "arg")
    b = Builder()
    with b.loop(N) as i:
        b.store(y, i, Load(x, i), "or")
        b.store(x, i, Unary("not", Load(y, i)))
    left, right = np.array([True, False, False]), np.array([False, True, False])
    run(program(b, x, y), [3], [left, right])
    assert right.tolist() == [True, True, False]
    assert left.tolist() == [False, False, True]
