"""What the host can work out of a program before it runs: weights, work, conditions."""

from __future__ import annotations

from collections.abc import Sequence

from tinygraph.backends.cuda.affine import polynomial
from tinygraph.backends.cuda.nest import names_in, right_side_stays
from tinygraph.backends.cuda.waiting import over_time
from tinygraph.dtypes import bool_, int64
from tinygraph.loops import build as E
from tinygraph.loops.language import (
    Binary,
    Block,
    Cast,
    Const,
    DimOf,
    Expr,
    For,
    Gemm,
    Let,
    Select,
    Stmt,
    Store,
    Unary,
    Var,
    children,
    operands,
    walk,
)

COUNTING = frozenset("add sub mul floordiv mod min max neg abs lt le gt ge eq ne and or".split())


def never(cond: Expr) -> bool:
    return isinstance(cond, Const) and not cond.value


def at_least(x: Expr, y: int) -> Expr:
    if isinstance(x, Const):
        return E.const(int(x.value) >= y, bool_)
    return Binary("ge", x, E.index(y))


def above(x: Expr, y: Const) -> Expr:
    return at_least(x, int(y.value) + 1)


def both(x: Expr, y: Expr) -> Expr:
    if isinstance(x, Const):
        return y if x.value else x
    if isinstance(y, Const):
        return x if y.value else y
    return Binary("and", x, y)


def either(x: Expr, y: Expr) -> Expr:
    if isinstance(x, Const):
        return x if x.value else y
    if isinstance(y, Const):
        return y if y.value else x
    return Binary("or", x, y)


def steady_weights(loop: For) -> list[Gemm]:
    """The products in the loop over time of a parallel loop whose right sides stay the same."""
    stays = right_side_stays([loop])
    return [stmt for steps in loop.body.body if isinstance(steps, For) and steps.mode == "serial"
            for stmt in walk(steps) if isinstance(stmt, Gemm) and stays(stmt)]


def bytes_of(products: Sequence[Gemm]) -> Expr:
    """The bytes of the right sides of products, each counted once."""
    total: Expr = E.index(0)
    seen: set[object] = set()
    for stmt in products:
        key = id(stmt.b.buffer), polynomial(stmt.b.offset, {})
        if key not in seen:
            seen.add(key)
            size = E.mul(stmt.k, stmt.n)
            total = E.add(total, E.mul(size, E.index(stmt.b.buffer.dtype.np.itemsize)))
    return total


def work_of(body: Block, known: frozenset[str], names: dict[str, Expr]) -> Expr:
    """Roughly the multiply-adds of a block (of one step of the loops over time in it), counted
    where the host knows the sizes.  ``names``: what other variables stand for."""
    names = {**names, **{s.var.name: s.value for s in walk(body) if isinstance(s, Let)}}
    total: Expr = E.index(0)

    def known_size(e: Expr) -> Expr | None:
        e = E.replaced(e, names)
        return e if names_in(e) <= known and countable(e) else None

    def add(stmt: Stmt, times: Expr) -> None:
        nonlocal total
        if isinstance(stmt, Gemm):
            m, n, k = (known_size(e) for e in (stmt.m, stmt.n, stmt.k))
            if m is not None and n is not None and k is not None:
                total = E.add(total, E.mul(times, E.mul(m, E.mul(n, k))))
        elif isinstance(stmt, For):
            extent = E.index(1) if over_time(stmt) else known_size(stmt.extent)
            if extent is not None:
                times = E.mul(times, extent)
                if not any(isinstance(s, (For, Gemm)) for s in walk(stmt.body)):
                    total = E.add(total, E.mul(times, E.index(sum(
                        isinstance(s, (Let, Store)) for s in walk(stmt.body)))))
        for child in children(stmt):
            add(child, times)

    for stmt in body.body:
        add(stmt, E.index(1))
    return total


def countable(e: Expr) -> bool:
    """Is ``e`` made of what sizes are made of?  Bits (of a random stream, say) are the device's."""
    whole = e.dtype is int64 or e.dtype is bool_
    return (whole and isinstance(e, (Const, Var, DimOf, Unary, Binary, Select, Cast))
            and getattr(e, "op", "add") in COUNTING and all(countable(x) for x in operands(e)))
