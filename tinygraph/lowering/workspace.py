"""The workspace plan: when each temp lives, and where in the arena it lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tinygraph.dims import Dim, dim, floordiv, nonnegative
from tinygraph.loops.language import (
    Block,
    Buffer,
    Expr,
    For,
    Gemm,
    If,
    Load,
    Stmt,
    Store,
    While,
    expressions,
    operands,
)

ALIGNMENT = 64
Loop = tuple[int, ...]


def lifetimes(body: Block) -> dict[Buffer, tuple[int, int]]:
    """First and last moment of every temp, in program order.

    Take the innermost loop that holds every use of a temp.  Inside it the temp is written anew in
    each round before it is read, so there it lives from its first use to its last; a use in a
    deeper loop counts for the whole of that loop.
    """
    uses: dict[Buffer, list[tuple[Loop, int]]] = {}
    extents: dict[Loop, tuple[int, int]] = {}
    clock = 0

    def visit(stmt: Stmt, path: Loop) -> None:
        nonlocal clock
        clock += 1
        for buffer in _touched(stmt):
            if buffer.role == "temp":
                uses.setdefault(buffer, []).append((path, clock))
        if isinstance(stmt, (For, While)):
            inner, start = (*path, clock), clock
            visit(stmt.body, inner)
            clock += 1
            extents[inner] = (start, clock)
        elif isinstance(stmt, Block):
            for child in stmt.body:
                visit(child, path)
        elif isinstance(stmt, If):
            visit(stmt.then, path)
            visit(stmt.other, path)

    visit(body, ())
    return {buffer: _span(found, extents) for buffer, found in uses.items()}


def _span(uses: list[tuple[Loop, int]], extents: Mapping[Loop, tuple[int, int]]
          ) -> tuple[int, int]:
    common = uses[0][0]
    for path, _ in uses:
        while path[:len(common)] != common:
            common = common[:-1]
    first, last = [], []
    for path, time in uses:
        start, end = (time, time) if path == common else extents[path[:len(common) + 1]]
        first.append(start)
        last.append(end)
    return min(first), max(last)


def _touched(stmt: Stmt) -> Iterator[Buffer]:
    if isinstance(stmt, Store):
        yield stmt.buffer
    elif isinstance(stmt, Gemm):
        for matrix in (stmt.a, stmt.b, stmt.c):
            yield matrix.buffer
    for expr in expressions(stmt):
        yield from _loaded(expr)


def _loaded(expr: Expr) -> Iterator[Buffer]:
    if isinstance(expr, Load):
        yield expr.buffer
    for child in operands(expr):
        yield from _loaded(child)


@dataclass
class Slot:
    """A piece of the arena, and the moment from which it is free again."""

    size: Dim
    offset: Dim
    free_from: int


def plan(body: Block, bytes_of: Mapping[Buffer, Dim]) -> tuple[list[tuple[Buffer, Dim]], Dim]:
    """The byte offset of every temp, and the size of the arena.

    Temps in order of birth take a free slot that is as large, or surely at least as large (Dims
    are symbolic: larger for all sizes), or open a new one.
    """
    slots: list[Slot] = []
    offsets: list[tuple[Buffer, Dim]] = []
    total = dim(0)
    spans = sorted(lifetimes(body).items(), key=lambda item: item[1])
    for buffer, (first, last) in spans:
        size = bytes_of[buffer]
        free = [s for s in slots if s.free_from < first]
        slot = next((s for s in free if s.size == size), None) or next(
            (s for s in free if nonnegative(s.size - size)), None)
        if slot is None:
            slot = Slot(size, total, last)
            slots.append(slot)
            total = total + floordiv(size + (ALIGNMENT - 1), dim(ALIGNMENT)) * ALIGNMENT
        slot.free_from = last
        offsets.append((buffer, slot.offset))
    return offsets, total
