"""Whose an element is, where the blocks of a grid share hidden units between them.

Unit u of ``units`` belongs to one block, and with it every element of memory whose index, counted
from where rows begin, is u modulo ``units``: of a row of gates (i, f, g, o), u, u + units,
u + 2 units and u + 3 units.  Two statements that touch only elements that belong to the block which
runs them need no other block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tinygraph.backends.cuda.affine import Monomial, Poly, Rows, polynomial, rows_of
from tinygraph.backends.cuda.nest import Part, loads
from tinygraph.loops import build as E
from tinygraph.loops.language import (
    Buffer,
    Const,
    DimOf,
    Expr,
    For,
    Gemm,
    Let,
    Matrix,
    Stmt,
    Store,
    expressions,
    walk,
)


@dataclass(frozen=True)
class Owner:
    """An element belongs to the block of unit (index - base) modulo units."""

    units: int
    base: Poly

    def before(self, loop: str) -> Owner:
        """The same of an earlier round of a loop, as the present round names it."""
        base = self.base.put(loop, Poly.atom(loop) - Poly.number(1))
        return Owner(self.units, base.modulo(self.units))


@dataclass(frozen=True)
class Access:
    """Elements that a statement reads, or ``writes`` (and maybe reads).

    place  which memory it is: other places are other memory
    owner  the block that touches an element, if that is always the one to which it belongs
    rows   the row of memory in which they all lie, if that is known
    """

    place: object
    writes: bool
    owner: Owner | None = None
    rows: Rows | None = None

    def meets(self, other: Access) -> bool:
        """May both touch one element, of which one writes it?"""
        return self.place == other.place and (self.writes or other.writes) and not (
            self.rows is not None and other.rows is not None and self.rows.apart(other.rows))

    def beside(self, other: Access) -> bool:
        """Where both touch one element, is it one block that does?"""
        return self.owner is not None and self.owner == other.owner

    def before(self, loop: str) -> Access:
        """An access of an earlier round of a loop, as the present round sees it."""
        return replace(self, owner=None if self.owner is None else self.owner.before(loop),
                       rows=None if self.rows is None else self.rows.before(loop))


def base_of(index: Poly, unit: str | None, units: int, uniform: Callable[[str], bool]
            ) -> Poly | None:
    """b where ``index`` is b + unit modulo ``units`` (b, where ``unit`` is None) and b is the same
    for all threads; None where that is not so, or not seen.

    unit     the name of a variable
    uniform  has a variable one value for all threads?
    """
    rest: dict[Monomial, int] = {}
    found = unit is None
    for m, c in index.terms:
        if c % units == 0:
            continue
        if m == (unit,):
            if c % units != 1:
                return None
            found = True
        elif all(map(uniform, Poly.of({m: 1}).names())):
            rest[m] = c % units
        else:
            return None
    return Poly.of(rest) if found or units == 1 else None


def turned(stmt: Gemm) -> Gemm:
    """The same product, its result read with rows and columns exchanged."""
    a, b, c = (replace(x, rows=x.cols, cols=x.rows) for x in (stmt.b, stmt.a, stmt.c))
    return replace(stmt, m=stmt.n, n=stmt.m, a=a, b=b, c=c)


class Memory:
    """What statements of one kernel touch.

    stmts    everything that the kernel runs
    offsets  where temps begin, by the number of the buffer
    steps    the loops that all threads go through in step
    units    how many hidden units blocks share; 0: none
    """

    def __init__(self, stmts: Sequence[Stmt], offsets: Mapping[int, Expr], steps: Sequence[For]
                 ) -> None:
        inner = [s for top in stmts for s in walk(top)]
        self.offsets = offsets
        self.lets = {s.var.name: s.value for s in inner if isinstance(s, Let)
                     and not any(True for _ in loads(s.value))}
        self.extents = {s.var.name: polynomial(s.extent, self.lets) for s in inner
                        if isinstance(s, For)}
        self.steps = frozenset(s.var.name for s in steps)
        # A let that stands for no expression of others is read from memory.
        self.varying = {*self.extents, "?", *(s.var.name for s in inner if isinstance(s, Let)
                                              and s.var.name not in self.lets)}
        self.units = _likely_units(steps)

    # --- whose

    def by_columns(self, stmt: Gemm) -> Gemm:
        """A product with the axis that blocks share as its columns."""
        other = turned(stmt)
        if self.product_owner(stmt) or not (
                self.product_owner(other) or isinstance(stmt.n, Const) and stmt.n.value == 1):
            return stmt
        return other

    def product_owner(self, stmt: Gemm) -> Owner | None:
        """Whose the elements of a product's result are, if column j belongs to unit j modulo
        units, and all units have equally many columns."""
        c = stmt.c
        if not self.units or not self._multiple(stmt.n):
            return None
        one = isinstance(stmt.m, Const) and int(stmt.m.value) == 1
        beside = isinstance(c.cols, Const) and c.cols.value == 1
        base = self._base(c.offset, None) if beside and (one or self._multiple(c.rows)) else None
        return None if base is None else Owner(self.units, base)

    def shared_by_units(self, part: Part) -> bool:
        """May blocks share the innermost loop of a part unit by unit, so that some store goes to
        the block's own elements?"""
        if not self.units or part.lanes is not None or part.summed is not None or (
                not part.over or part.over[-1] is not part.chain[-1]):
            return False
        loop = part.over[-1]
        return self._multiple(loop.extent) and any(
            self._base(s.index, loop.var.name) is not None for s in _stores(part))

    def _multiple(self, e: Expr) -> bool:
        return all(c % self.units == 0 for _, c in polynomial(e, self.lets).terms)

    def _base(self, index: Expr, unit: str | None) -> Poly | None:
        return base_of(polynomial(index, self.lets), unit, self.units, self._uniform)

    def _uniform(self, name: str) -> bool:
        """Has a variable one value for all threads?  Sizes have, and loops that all go through."""
        return name in self.steps or name not in self.varying

    # --- where

    def part(self, part: Part) -> Iterator[Access]:
        """What a part of a nest touches."""
        unit = part.over[-1].var.name if self.shared_by_units(part) else None
        for lines in (*part.before, part.tail):
            for stmt in lines:
                for s in walk(stmt):
                    yield from self.reads(s, unit)
        for store in _stores(part):
            yield self._access(store.buffer, store.index, True, unit)

    def product(self, stmt: Gemm) -> Iterator[Access]:
        """What a product touches, whose columns blocks share."""
        yield self._matrix(stmt.a, stmt.m, stmt.k, False, None)
        yield self._matrix(stmt.b, stmt.k, stmt.n, False, None)
        yield self._matrix(stmt.c, stmt.m, stmt.n, True, self.product_owner(stmt))

    def reads(self, stmt: Stmt, unit: str | None = None) -> Iterator[Access]:
        """What a statement loads from memory; ``unit``: the variable that goes over units."""
        for e in expressions(stmt):
            for load in loads(e):
                if load.buffer.role != "register":
                    yield self._access(load.buffer, load.index, False, unit)

    def everything(self, stmt: Stmt) -> Iterator[Access]:
        """What a statement and those under it touch, by any thread."""
        for s in walk(stmt):
            yield from self.reads(s)
            if isinstance(s, Store) and s.buffer.role != "register":
                yield self._access(s.buffer, s.index, True, None)
            elif isinstance(s, Gemm):
                yield from (replace(a, owner=None) for a in self.product(s))

    def _access(self, buffer: Buffer, index: Expr, writes: bool, unit: str | None) -> Access:
        base = None if unit is None else self._base(index, unit)
        owner = None if base is None else Owner(self.units, base)
        rows = rows_of(polynomial(index, self.lets), self.steps, self.extents)
        return Access(self._place(buffer), writes, owner, rows)

    def _matrix(self, x: Matrix, m: Expr, n: Expr, writes: bool, owner: Owner | None) -> Access:
        i, j = DimOf("row of a matrix"), DimOf("column of a matrix")
        index = E.add(x.offset, E.add(E.mul(i, x.rows), E.mul(j, x.cols)))
        extents = {**self.extents, i.name: polynomial(m, self.lets),
                   j.name: polynomial(n, self.lets)}
        rows = rows_of(polynomial(index, self.lets), self.steps, extents)
        return Access(self._place(x.buffer), writes, owner, rows)

    def _place(self, buffer: Buffer) -> object:
        """Which memory a buffer is.  Temps that begin at one offset share it."""
        offset = self.offsets.get(id(buffer))
        return id(buffer) if offset is None else polynomial(offset, {})


def _stores(part: Part) -> Iterator[Store]:
    for lines in (*part.before, part.tail):
        for stmt in lines:
            for s in walk(stmt):
                if isinstance(s, Store) and id(s) in part.stores:
                    yield s


def _likely_units(steps: Sequence[For]) -> int:
    """The number of hidden units: how far the innermost loops of most nests go, or the columns of
    most products; 0 if none has a fixed extent."""
    counts: dict[int, int] = {}
    for step in steps:
        for nest in step.body.body:
            for loop in walk(nest):
                if (isinstance(loop, For) and isinstance(loop.extent, Const)
                        and not any(isinstance(s, For) for s in walk(loop.body))):
                    n = int(loop.extent.value)
                    counts[n] = counts.get(n, 0) + 1
    for step in steps if not counts else ():
        for s in walk(step):
            if isinstance(s, Gemm) and isinstance(s.n, Const):
                n = int(s.n.value)
                counts[n] = counts.get(n, 0) + 1
    counts.pop(1, None)
    return max(counts, key=lambda n: (counts[n], -n), default=0)
