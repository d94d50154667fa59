"""check_program: every rule of the loop language, broken once."""

from __future__ import annotations

import pytest

from tinygraph.dtypes import bool_, float32, float64, int32, int64
from tinygraph.loops.build import Builder, const, index
from tinygraph.loops.check import MalformedProgram, check_program
from tinygraph.loops.language import (
    Alloc,
    Binary,
    Block,
    Buffer,
    Check,
    Const,
    DimOf,
    For,
    Gemm,
    If,
    Let,
    Matrix,
    Program,
    Select,
    Stmt,
    Store,
    Unary,
    Var,
)
from tinygraph.loops.printing import format_stmt

N = DimOf("n")
INDEX, OTHER = Var("i", int64), Var("j", int64)
X = Buffer("x", float32, N, "arg", False)
Y = Buffer("y", float32, N, "arg")
D = Buffer("d", float64, N, "arg")
R = Buffer("r", float32, index(1), "register")
ZERO = index(0)
ONE = const(1.0, float32)

MALFORMED: dict[str, list[Stmt]] = {
    "a is int32, its value int64": [Let(Var("a", int32), ZERO)],
    "a is bound twice": [Let(Var("a", int64), ZERO), Let(Var("a", int64), ZERO)],
    "a of int64 is unbound": [Store(Y, Var("a", int64), ONE)],
    "a of int32 is a int64": [
        Let(Var("a", int64), ZERO), Let(Var("c", int32), Var("a", int32))],
    "i of int64 is unbound": [For(INDEX, N, Block(())), Store(Y, INDEX, ONE)],
    "read-only": [Store(X, ZERO, ONE)],
    "buffer q is no argument": [Store(Buffer("q", float32, N), ZERO, ONE)],
    "buffer r is no argument": [For(INDEX, N, Block((Alloc(R),))), Store(R, ZERO, ONE)],
    "called r": [Alloc(R), Alloc(R)],
    "holds float32, got float64": [Store(Y, ZERO, const(1, float64))],
    "index into y is int32": [Store(Y, const(0, int32), ONE)],
    "extent of the loop over i is float32": [For(INDEX, ONE, Block(()))],
    "no loop mode": [For(INDEX, N, Block(()), "sideways")],
    "loop index k is int32": [For(Var("k", int32), N, Block(()))],
    "if condition is int64": [If(ZERO, Block(()))],
    "site 3 is not in range": [Check(Const(True, bool_), 3)],
    "no int64 size parameter": [Store(Y, DimOf("m"), ONE)],
    "mixes float32 and float64": [Store(Y, ZERO, Binary("add", ONE, const(1, float64)))],
    "exp takes floats, got int64": [Let(INDEX, Unary("exp", ZERO))],
    "shl takes integers": [Store(Y, ZERO, Binary("shl", ONE, ONE))],
    "and takes integers or bool": [Store(Y, ZERO, Binary("and", ONE, ONE))],
    "add takes numbers, got bool": [
        Let(Var("a", bool_), Binary("add", Const(True, bool_), Const(True, bool_)))],
    "not takes a bool": [Let(Var("a", bool_), Unary("not", ZERO))],
    "no unary operation": [Let(INDEX, Unary("sqare", ZERO))],
    "no binary operation": [Let(INDEX, Binary("plus", ZERO, ZERO))],
    "no accumulation": [Store(Y, ZERO, ONE, "sub")],
    "a Select is float32 or int64": [Let(INDEX, Select(Const(True, bool_), ONE, ZERO))],
    "matrices of a Gemm must be float32 or float64 alike": [Gemm(
        N, N, N, *(Matrix(Y, ZERO, N, N),) * 2, Matrix(D, ZERO, N, N))],
    "no constant size": [Alloc(Buffer("k", int64, N, "register"))],
    "has role 'temp', expected 'register'": [Alloc(Buffer("k", int64, index(1)))],
}  # fmt: skip


@pytest.mark.parametrize("fact", MALFORMED)
def test_malformed_programs_are_refused(fact: str) -> None:
    p = Program("p", ("n",), (X, Y, D), (), ZERO, Block(tuple(MALFORMED[fact])), 3)
    with pytest.raises(MalformedProgram, match=fact):
        check_program(p)


def test_the_message_shows_the_statement() -> None:
    p = Program("step", ("n",), (X, Y), (), ZERO, Block((Store(X, ZERO, ONE),)))
    with pytest.raises(MalformedProgram, match=r"`x\[0\] = 1.0f` of program step"):
        check_program(p)


def test_siblings_may_use_the_same_name() -> None:
    loop = For(INDEX, N, Block((Let(OTHER, INDEX), Alloc(R), Store(R, ZERO, ONE))))
    check_program(Program("p", ("n",), (), (), ZERO, Block((loop, loop))))
    assert format_stmt(loop).count("register r: float32[1]") == 1


def test_a_check_in_a_parallel_loop_is_refused():
    b = Builder()
    with b.loop(index(4), "parallel") as i:
        b.check(Binary("lt", i, index(3)), 0)
    program = Program("p", (), (), (), index(0), b.block(), sites=1)
    with pytest.raises(MalformedProgram, match="parallel loop"):
        check_program(program)
