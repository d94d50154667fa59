"""What the emitter must know about a program before it writes a line.

Which ``Let`` names are pure index arithmetic, which accumulations can live in a register for the
length of a loop, and which loops may carry vector hints.
"""

from __future__ import annotations

from collections.abc import Iterator

from tinygraph.dtypes import int64
from tinygraph.loops.language import (
    Alloc,
    Binary,
    Block,
    Call,
    Check,
    Const,
    Expr,
    For,
    Gemm,
    Let,
    Load,
    Note,
    Pack,
    Stmt,
    Store,
    Var,
    While,
    buffers,
    children,
    expressions,
    operands,
    walk,
)

LINEAR = ("add", "sub", "mul")


def nodes(*roots: Expr) -> Iterator[Expr]:
    """Every expression object at or under ``roots``, each once."""
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        expr = stack.pop()
        if id(expr) not in seen:
            seen.add(id(expr))
            yield expr
            stack.extend(operands(expr))


def children_first(root: Expr) -> list[Expr]:
    """Every expression object at or under ``root``, each once, operands before users."""
    done: dict[int, Expr] = {}
    stack = [(root, False)]
    while stack:
        expr, ready = stack.pop()
        if id(expr) in done:
            continue
        if ready:
            done[id(expr)] = expr
        else:
            stack.append((expr, True))
            stack.extend((e, False) for e in operands(expr))
    return list(done.values())


def index_names(body: Block) -> frozenset[str]:
    """The int64 names bound by ``Let`` whose every use is linear arithmetic of an index.

    Such a value cannot overflow without an index out of bounds, so its adds and products may say
    ``nsw``.  Any other int64 arithmetic (hashes of random streams, user data) may wrap.
    """
    linear: set[str] = set()
    other: set[str] = set()
    seen: set[tuple[int, bool]] = set()

    def use(root: Expr, as_index: bool) -> None:
        stack = [(root, as_index)]
        while stack:
            expr, index = stack.pop()
            if (id(expr), index) in seen:
                continue
            seen.add((id(expr), index))
            if isinstance(expr, Var):
                (linear if index else other).add(expr.name)
            elif isinstance(expr, Load):
                stack.append((expr.index, True))
            else:
                inner = index and isinstance(expr, Binary) and expr.op in LINEAR
                stack.extend((child, inner) for child in operands(expr))

    def visit(stmt: Stmt) -> None:
        # In reverse, all uses of a name have been seen when its Let is reached.
        for child in reversed(children(stmt)):
            visit(child)
        if isinstance(stmt, Let):
            name = stmt.var.name
            use(stmt.value, stmt.var.dtype is int64 and name in linear and name not in other)
        elif isinstance(stmt, Store):
            use(stmt.index, True)
            use(stmt.value, False)
        else:
            for expr in expressions(stmt):
                use(expr, False)

    visit(body)
    return frozenset(linear - other)


def vectorisable(loop: For) -> bool:
    """True for an innermost loop of mode "vector" without an early exit or a call."""
    inner = list(walk(loop.body))
    return loop.mode == "vector" and not any(
        isinstance(s, (For, While, Check, Gemm, Pack, Call)) for s in inner
    )


def closed_nest(loop: For) -> bool:
    """True for loops around arithmetic and memory alone: no call, no early exit, no branch."""
    return all(isinstance(s, (Block, For, Let, Store, Alloc, Note)) for s in walk(loop.body))


def bound_names(loop: For) -> set[str]:
    """The loop index and every name bound inside the loop."""
    names = {loop.var.name}
    for stmt in walk(loop.body):
        if isinstance(stmt, (For, Let)):
            names.add(stmt.var.name)
    return names


def invariant(expr: Expr, bound: set[str]) -> bool:
    """True if ``expr`` reads no memory and none of the names ``bound``."""
    return not any(
        isinstance(e, Load) or (isinstance(e, Var) and e.name in bound) for e in nodes(expr)
    )


def _direct(block: Block) -> Iterator[Stmt]:
    for stmt in block.body:
        if isinstance(stmt, Block):
            yield from _direct(stmt)
        else:
            yield stmt


def register_sums(loop: For) -> list[Store]:
    """The accumulations of ``loop`` into one fixed element that nothing else in it touches.

    The element may wait in a register until the loop ends.  It must be one that the loop touches
    whenever it runs: a store right under the loop, or one with a constant index.
    """
    inside = list(walk(loop.body))
    if not any(isinstance(s, Store) and s.accumulate for s in inside):
        return []
    direct = {id(s) for s in _direct(loop.body)}
    touched: dict[int, int] = {}
    for stmt in inside:
        if isinstance(stmt, Store):
            touched[id(stmt.buffer)] = touched.get(id(stmt.buffer), 0) + 1
        if isinstance(stmt, (Gemm, Pack, Call)):
            touched.update({id(buffer): 2 for buffer in buffers(stmt)})
        for expr in nodes(*expressions(stmt)):
            if isinstance(expr, Load):
                touched[id(expr.buffer)] = 2
    bound = bound_names(loop)
    return [
        s
        for s in inside
        if isinstance(s, Store)
        and s.accumulate is not None
        and touched[id(s.buffer)] == 1
        and (id(s) in direct or isinstance(s.index, Const))
        and invariant(s.index, bound)
    ]


def moves_with(index: Expr, var: Var, lets: dict[str, Expr]) -> bool:
    """True if ``index`` is surely a different element in every iteration of ``var``: a sum with
    one term ``var`` or ``var * constant``, the others without it."""
    if isinstance(index, Var):
        if index.name == var.name:
            return True
        return index.name in lets and moves_with(lets[index.name], var, lets)
    if not isinstance(index, Binary):
        return False
    for term, rest in ((index.x, index.y), (index.y, index.x)):
        if index.op == "add" and moves_with(term, var, lets):
            return not _mentions(rest, var, lets)
        if index.op == "mul" and isinstance(rest, Const) and rest.value != 0:
            return moves_with(term, var, lets)
    return False


def _mentions(expr: Expr, var: Var, lets: dict[str, Expr]) -> bool:
    for e in nodes(expr):
        if isinstance(e, Load):
            return True
        if isinstance(e, Var) and (
            e.name == var.name or (e.name in lets and _mentions(lets[e.name], var, lets))
        ):
            return True
    return False
