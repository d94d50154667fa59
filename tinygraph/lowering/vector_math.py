"""expand_math: every transcendental function of a loop program written out in plain arithmetic.

exp(x) and its like become polynomials over add, mul, Select and the bits of a float, bound by
further ``Let``s before the statement, so that a back end vectorises the loop around them and
calls no library.  The formulas are in vector_math_exp and vector_math_trig; tests/lowering
measures their errors.  Numbers too small to be normal count as 0, before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tinygraph.dtypes import bool_
from tinygraph.loops.build import Builder, index
from tinygraph.loops.language import (
    TRANSCENDENTAL,
    Alloc,
    Binary,
    Block,
    Buffer,
    Cast,
    Check,
    Expr,
    For,
    Gemm,
    If,
    Let,
    Load,
    Matrix,
    Program,
    Select,
    Stmt,
    Store,
    Unary,
    Var,
    While,
    expressions,
    operands,
    walk,
)
from tinygraph.lowering import vector_math_exp as exps
from tinygraph.lowering import vector_math_trig as trig
from tinygraph.lowering.lanes import Num

EXPANSIONS: dict[str, Callable[..., Num]] = {
    "exp": exps.exp,
    "expm1": exps.expm1,
    "log": exps.log,
    "log1p": exps.log1p,
    "log2": exps.log2,
    "tanh": exps.tanh,
    "sigmoid": exps.sigmoid,
    "softplus": exps.softplus,
    "sin": trig.sin,
    "cos": trig.cos,
    "tan": trig.tan,
    "erf": trig.erf,
    "pow": trig.pow,
    "arctan2": trig.arctan2,
    "arcsin": trig.arcsin,
    "arccos": trig.arccos,
    "arctan": trig.arctan,
    "sinh": trig.sinh,
    "cosh": trig.cosh,
    "arcsinh": trig.arcsinh,
    "arccosh": trig.arccosh,
    "arctanh": trig.arctanh,
}


def expand_math(program: Program) -> Program:
    """``program`` without TRANSCENDENTAL operations: Let(y, exp(x)) --> Lets of plain ones.

    A program that has none comes back as it is.
    """
    if not any(_has_math(e) for stmt in walk(program.body) for e in expressions(stmt)):
        return program
    return replace(program, body=_Expander(program).block(program.body))


def _has_math(expr: Expr) -> bool:
    if isinstance(expr, (Unary, Binary)) and expr.op in TRANSCENDENTAL:
        return True
    return any(_has_math(e) for e in operands(expr))


def _names(program: Program) -> Iterator[str]:
    """Every name that new Lets must keep clear of."""
    yield from program.sizes
    for buffer in (*program.args, *(b for b, _ in program.arena)):
        yield buffer.name
    for stmt in walk(program.body):
        if isinstance(stmt, (Let, For)):
            yield stmt.var.name
        elif isinstance(stmt, Alloc):
            yield stmt.buffer.name


class _Expander:
    def __init__(self, program: Program) -> None:
        self.names = Builder(_names(program))
        self.out: list[Stmt] = []  # the block being written

    def block(self, block: Block) -> Block:
        outer, self.out = self.out, []
        for stmt in block.body:
            self.stmt(stmt)
        inner, self.out = self.out, outer
        return Block(tuple(inner))

    def stmt(self, stmt: Stmt) -> None:
        """Append ``stmt`` to the block, after the Lets that it needs."""
        if isinstance(stmt, While) and _has_math(stmt.cond):
            self.loop_while(stmt)
            return
        if not any(_has_math(e) for e in expressions(stmt)):
            self.out.append(self.inside(stmt))
            return
        if isinstance(stmt, Let):
            self.let(stmt)
        elif isinstance(stmt, Store):
            index_, value = self.expr(stmt.index), self.expr(stmt.value)
            self.out.append(replace(stmt, index=index_, value=value))
        elif isinstance(stmt, For):
            extent = self.expr(stmt.extent)
            self.out.append(replace(stmt, extent=extent, body=self.block(stmt.body)))
        elif isinstance(stmt, If):
            cond = self.expr(stmt.cond)
            then, other = self.block(stmt.then), self.block(stmt.other)
            self.out.append(If(cond, then, other))
        elif isinstance(stmt, Check):
            numbers = tuple(self.expr(e) for e in stmt.numbers)
            self.out.append(replace(stmt, cond=self.expr(stmt.cond), numbers=numbers))
        elif isinstance(stmt, Gemm):
            m, n, k = (self.expr(e) for e in (stmt.m, stmt.n, stmt.k))
            a, b, c = (self.matrix(x) for x in (stmt.a, stmt.b, stmt.c))
            self.out.append(replace(stmt, m=m, n=n, k=k, a=a, b=b, c=c))

    def inside(self, stmt: Stmt) -> Stmt:
        """``stmt``, which needs no Let itself, with its blocks expanded."""
        if isinstance(stmt, Block):
            return self.block(stmt)
        if isinstance(stmt, (For, While)):
            return replace(stmt, body=self.block(stmt.body))
        if isinstance(stmt, If):
            return If(stmt.cond, self.block(stmt.then), self.block(stmt.other))
        return stmt

    def let(self, stmt: Let) -> None:
        """The last operation of an expansion keeps the name of the Let itself."""
        value = stmt.value
        if isinstance(value, (Unary, Binary)) and value.op in TRANSCENDENTAL:
            expanded = self.expanded(value.op, tuple(self.expr(e) for e in operands(value)))
        else:
            expanded = self.expr(value)
        self.out.append(Let(stmt.var, expanded))

    def loop_while(self, stmt: While) -> None:
        """A condition that needs Lets is computed into a flag, before and in every round."""
        flag = Buffer(self.names.fresh("again"), bool_, index(1), "register")
        self.out.append(Alloc(flag))
        self.out.append(self.computed(flag, stmt.cond))
        body = self.block(stmt.body)
        again = Block((*body.body, self.computed(flag, stmt.cond)))
        self.out.append(While(Load(flag, index(0)), again))

    def computed(self, flag: Buffer, cond: Expr) -> Block:
        return self.block(Block((Store(flag, index(0), cond),)))

    def matrix(self, x: Matrix) -> Matrix:
        return Matrix(x.buffer, self.expr(x.offset), self.expr(x.rows), self.expr(x.cols))

    def expr(self, expr: Expr) -> Expr:
        """``expr`` in plain operations; may append Lets."""
        if not _has_math(expr):
            return expr
        if isinstance(expr, Load):
            return Load(expr.buffer, self.expr(expr.index))
        if isinstance(expr, Cast):
            return Cast(self.expr(expr.x), expr.dtype)
        if isinstance(expr, Select):
            return Select(self.expr(expr.cond), self.expr(expr.then), self.expr(expr.other))
        assert isinstance(expr, (Unary, Binary))
        inner = tuple(self.expr(e) for e in operands(expr))
        if expr.op in TRANSCENDENTAL:
            return self.bind(self.expanded(expr.op, inner))
        return Unary(expr.op, *inner) if isinstance(expr, Unary) else Binary(expr.op, *inner)

    def expanded(self, op: str, inner: tuple[Expr, ...]) -> Expr:
        """The value of op(*inner); appends the Lets that it stands on."""
        atoms = [Num(e, self.bind).let() for e in inner]
        return EXPANSIONS[op](*atoms).expr

    def bind(self, expr: Expr) -> Var:
        """Append a Let with a fresh name."""
        var = Var(self.names.fresh("m"), expr.dtype)
        self.out.append(Let(var, expr))
        return var
