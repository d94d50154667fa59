"""The workspace plan: when each temp lives, and where in the arena it lies."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tinygraph.dims import Dim, dim, floordiv, nonnegative
from tinygraph.loops.language import (
    Block,
    Buffer,
    Expr,
    For,
    If,
    Load,
    Stmt,
    While,
    buffers,
    expressions,
    operands,
    walk,
)

ALIGNMENT = 64
Loop = tuple[int, ...]


def lifetimes(body: Block) -> dict[Buffer, tuple[int, int]]:
    """First and last moment of every temp, in program order.

    Take the innermost loop that holds every use of a temp.  Inside it the temp is written anew in
    each round before it is read, so there it lives from its first use to its last; a use in a
    deeper loop counts for the whole of that loop.  A use in a parallel loop counts for the whole
    of it wherever it stands, since its rounds may run at once.
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
            if isinstance(stmt, For) and stmt.mode == "parallel":
                inside = {buffer for s in walk(stmt) for buffer in _touched(s)}
                for buffer in inside & uses.keys():
                    uses[buffer] += [(path, start), (path, clock)]
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
    yield from buffers(stmt)
    for expr in expressions(stmt):
        yield from _loaded(expr)


def _loaded(expr: Expr) -> Iterator[Buffer]:
    if isinstance(expr, Load):
        yield expr.buffer
    for child in operands(expr):
        yield from _loaded(child)


@dataclass
class Slot:
    """A piece of the arena.  Slots are numbered in the order in which they were opened, and lie
    one behind the other in that order; a slot may grow as long as not all temps have one."""

    number: int
    size: Dim


class Slots:
    """The pieces of an arena, and which of them are free.

    Free slots are kept by their size, of which there are few: a program of n temps asks n times,
    and must not look at n slots each time.
    """

    LOOKED_AT = 16  # sizes that are weighed against another: they are polynomials

    def __init__(self) -> None:
        self._all: list[Slot] = []
        self._busy: list[tuple[int, int, Slot]] = []  # by the moment from which it is free
        self._free: dict[Dim, list[tuple[int, Slot]]] = {}  # by number
        self._fits: dict[tuple[Dim, Dim], bool] = {}

    def take(self, size: Dim, first: int, last: int) -> Slot:
        """A slot for the moments ``first`` to ``last``: one that is as large, or surely at least
        as large (Dims are symbolic: larger for all sizes), or one that is surely smaller and
        grows, or a new one."""
        while self._busy and self._busy[0][0] < first:
            _, number, slot = heapq.heappop(self._busy)
            heapq.heappush(self._free.setdefault(slot.size, []), (number, slot))
        slot = self._taken(size if self._free.get(size) else self._fitting(size)) or self._open(
            size)
        if not self._holds(slot.size, size):
            slot.size = size
        heapq.heappush(self._busy, (last, slot.number, slot))
        return slot

    def offsets(self) -> tuple[list[Dim], Dim]:
        """Where every slot begins, by number, and where the last one ends."""
        found, total = [], dim(0)
        for slot in self._all:
            found.append(total)
            total = total + floordiv(slot.size + (ALIGNMENT - 1), dim(ALIGNMENT)) * ALIGNMENT
        return found, total

    def _taken(self, size: Dim | None) -> Slot | None:
        """The first free slot of a size, which is no longer free."""
        if size is None:
            return None
        _, slot = heapq.heappop(self._free[size])
        if not self._free[size]:
            del self._free[size]
        return slot

    def _fitting(self, size: Dim) -> Dim | None:
        """The size of the first free slot in which ``size`` fits, or of the last one that fits
        in it."""
        newest = list(itertools.islice(reversed(self._free), self.LOOKED_AT))
        larger = [s for s in newest if self._holds(s, size)]
        if larger:
            return min(larger, key=lambda s: self._free[s][0][0])
        return next((s for s in newest if self._holds(size, s)), None)

    def _holds(self, large: Dim, small: Dim) -> bool:
        found = self._fits.get((large, small))
        if found is None:
            found = self._fits[large, small] = nonnegative(large - small)
        return found

    def _open(self, size: Dim) -> Slot:
        self._all.append(Slot(len(self._all), size))
        return self._all[-1]


def plan(body: Block, bytes_of: Mapping[Buffer, Dim],
         together: Sequence[Mapping[Buffer, Dim]] = ()) -> tuple[list[tuple[Buffer, Dim]], Dim]:
    """The byte offset of every temp, and the size of the arena.  Temps take slots in the order of
    birth.

    together: temps that take one slot though they live at one time, with the byte at which each
    begins in it; the last one reaches farthest
    """
    spans = lifetimes(body)
    sizes = {buffer: bytes_of[buffer] for buffer in spans}
    starts: dict[Buffer, tuple[Buffer, Dim]] = {}
    for group in together:
        last = list(group)[-1]
        sizes[last] = group[last] + bytes_of[last]
        of_group = [spans[buffer] for buffer in group]
        spans[last] = min(first for first, _ in of_group), max(end for _, end in of_group)
        starts.update((buffer, (last, start)) for buffer, start in group.items())
    slots = Slots()
    taken = {buffer: slots.take(sizes[buffer], first, end)
             for buffer, (first, end) in sorted(spans.items(), key=lambda item: item[1])
             if starts.get(buffer, (buffer,))[0] is buffer}
    begins, total = slots.offsets()
    places = []
    for buffer in spans:
        last, start = starts.get(buffer, (buffer, dim(0)))
        places.append((buffer, begins[taken[last].number] + start))
    return places, total
