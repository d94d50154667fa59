"""A nest: elementwise values and reductions over one domain, computed in one set of loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygraph.dims import Dim, at_most, dim, floordiv, maximum, product
from tinygraph.dtypes import DType, bool_
from tinygraph.graph import Value
from tinygraph.loops import build as E
from tinygraph.loops.language import Buffer, Const, Expr, Load
from tinygraph.lowering.view import View, row_major
from tinygraph.ops.scalars import ScalarFn

# Threads take blocks of so many elements: some microseconds of work, and of memory that stays in
# the second-level cache.  How a sum is blocked must not depend on how many threads there are.
BLOCK = 1 << 14
Scratch = Callable[[str, DType, Dim], tuple[Buffer, Expr]]

ACCUMULATE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "and": "and", "or": "or"}


def identity_element(kind: str, dtype: DType) -> Const:
    """What a reduction of ``kind`` starts from."""
    if dtype is bool_:
        return Const(kind in ("and", "prod", "min"), dtype)
    if kind in ("sum", "or"):
        return E.const(0, dtype)
    if kind in ("prod", "and"):
        return E.const(1, dtype)
    if dtype.is_float:
        return E.const(float("-inf") if kind == "max" else float("inf"), dtype)
    info = np.iinfo(dtype.np)
    return E.const(int(info.min if kind == "max" else info.max), dtype)


@dataclass
class Reduction:
    """``kind`` of ``value`` over ``axes`` of the domain, into ``view`` (over the kept axes)."""

    kind: str
    axes: tuple[int, ...]
    value: Value | View
    view: View


@dataclass
class Nest:
    """``steps``: (value, scalar function, operands) in order; an operand is a View, or a Value
    that an earlier step computes.  ``stores``: which values go to memory, and where.
    ``cluster``: what its values have in common (see region.clusters).
    ``scratch``: makes memory for a number of elements, where threads may share the nest.
    ``block``: so many elements make a block that one does, if nothing is summed up."""

    dims: tuple[Dim, ...]
    lane: Dim | None = None
    cluster: object = None
    steps: list[tuple[Value, ScalarFn, tuple[Value | View, ...]]] = field(default_factory=list)
    stores: dict[Value, View] = field(default_factory=dict)
    copies: list[tuple[View, View]] = field(default_factory=list)
    reductions: list[Reduction] = field(default_factory=list)
    scratch: Scratch | None = None
    block: int = BLOCK

    def views(self) -> list[View]:
        """Every view over the whole domain that the nest reads or writes."""
        found = [x for _, _, operands in self.steps for x in operands if isinstance(x, View)]
        found += self.stores.values()
        found += [v for pair in self.copies for v in pair]
        found += [r.value for r in self.reductions if isinstance(r.value, View)]
        return found

    def emit(self, b: E.Builder) -> None:
        """Write the loops."""
        for r in self.reductions:
            fill(b, r.view, identity_element(r.kind, r.view.dtype))
        NestEmitter(self, b).run()


def loop_order(dims: Sequence[Dim], lane: Dim | None) -> list[int]:
    """Axes from the outermost loop to the innermost; axes of size 1 have no loop."""
    order = [k for k, d in enumerate(dims) if d != 1]
    lanes = [k for k in order if lane is not None and dims[k] == lane]
    if lanes:
        order.remove(lanes[-1])
        order.append(lanes[-1])
    return order


def fill(b: E.Builder, view: View, value: Expr) -> None:
    """Write ``value`` to every element of ``view``."""
    axes = loop_order(view.dims, None)
    axes.sort(key=lambda k: view.strides[k] == 1)

    def level(indices: list[Expr], rest: list[int]) -> None:
        if not rest:
            assert view.buffer is not None
            b.store(view.buffer, view.flat(indices), value)
            return
        mode = "vector" if len(rest) == 1 else "independent"
        with b.loop(view.sizes.expr(view.dims[rest[0]]), mode) as i:
            indices[rest[0]] = i
            level(indices, rest[1:])

    if axes and view.strides == row_major(view.dims):
        with b.loop(view.sizes.expr(product(view.dims)), "vector") as i:
            assert view.buffer is not None
            b.store(view.buffer, E.add(view.offset, i), value)
        return
    level([E.index(0)] * len(view.dims), axes)


@dataclass
class Axis:
    """One loop: its size, and the domain axes that it walks (several where they collapse)."""

    size: Dim
    axes: list[int]


class NestEmitter:
    """Writes the loops of one nest.

    Adjacent axes are collapsed where every view walks them with one stride.  A load stands at
    the outermost level at which its index is known; a reduction over the innermost loops
    accumulates in a register.
    """

    def __init__(self, nest: Nest, b: E.Builder) -> None:
        self.nest, self.b = nest, b
        self.sizes = nest.views()[0].sizes if nest.views() else nest.reductions[0].view.sizes
        self.loops = self._collapsed(loop_order(nest.dims, nest.lane))
        self.depth = len(self.loops)
        self.indices: list[Expr] = [E.index(0)] * len(nest.dims)
        self.loaded: dict[int, Expr] = {}
        self.registers: dict[int, Buffer] = {}
        self.partial: dict[int, View] = {}
        self.block: Expr = E.index(0)

    def _collapsed(self, order: list[int]) -> list[Axis]:
        loops: list[Axis] = []
        for k in order:
            if loops and self._joins(loops[-1].axes[-1], k):
                loops[-1].axes.append(k)
                loops[-1].size = loops[-1].size * self.nest.dims[k]
            else:
                loops.append(Axis(self.nest.dims[k], [k]))
        return loops

    def _joins(self, outer: int, inner: int) -> bool:
        """May the loop over axis ``outer`` and the one over ``inner`` inside be one loop?"""
        n = self.nest.dims[inner]
        for view in self.nest.views():
            if view.strides[outer] != n * view.strides[inner]:
                return False
        for r in self.nest.reductions:
            if (outer in r.axes) != (inner in r.axes):
                return False
            if outer not in r.axes and (self._kept_stride(r, outer)
                                        != n * self._kept_stride(r, inner)):
                return False
        return True

    @staticmethod
    def _kept_stride(r: Reduction, axis: int) -> Dim:
        return r.view.strides[axis - sum(a < axis for a in r.axes)]

    def run(self) -> None:
        """Write the loops: over blocks that threads share, if there may be enough of them."""
        rows, count = self._blocks()
        if count == 1:
            self._level(0)
            return
        outermost = self.loops[0]
        split = [r for r in self.nest.reductions if all(k in r.axes for k in outermost.axes)]
        for r in split:
            self.partial[id(r)] = self._partial(r, count)
        size = outermost.size
        with self.b.loop(self.sizes.expr(count), "parallel", hint="block") as block:
            start = self.b.let(E.mul(block, self.sizes.expr(rows)), "start")
            left = E.sub(self.sizes.expr(size), start)
            here = self.b.let(E.minimum(left, self.sizes.expr(rows)), "here")
            for r in split:
                row = self.partial[id(r)].row(block)
                fill(self.b, row, identity_element(r.kind, row.dtype))
            self.block = block
            self._level(0, start, here)
        for r in split:
            self._combine(r, self.partial[id(r)])

    def _blocks(self) -> tuple[Dim, Dim]:
        """How many rounds of the outermost loop make a block, and how many blocks there are."""
        if self.nest.scratch is None or not self.loops:
            return dim(1), dim(1)
        # As large as it may become: how much memory blocks take must not hang on a late size.
        inner = at_most(product(tuple(loop.size for loop in self.loops[1:])))
        size = self.loops[0].size
        block = BLOCK if self.nest.reductions else self.nest.block
        rows = maximum(dim(1), floordiv(dim(block) + inner - 1, inner))
        count = floordiv(size + rows - 1, rows)
        work = (size * inner).const
        return (rows, dim(1)) if work is not None and work <= 2 * block else (rows, count)

    def _partial(self, r: Reduction, count: Dim) -> View:
        """Memory for what each block accumulates."""
        assert self.nest.scratch is not None
        dims = r.view.dims
        buffer, start = self.nest.scratch("part", r.view.dtype, count * product(dims))
        whole = (count, *dims)
        # In the order of the loops, since axes may have been joined.
        kept = [k - sum(a < k for a in r.axes) for loop in self.loops for k in loop.axes
                if k not in r.axes]
        strides = row_major(whole, [0, *(1 + k for k in kept)])
        return View(self.sizes, r.view.dtype, start, whole, strides, buffer)

    def _combine(self, r: Reduction, partial: View) -> None:
        """Accumulate what the blocks have, in order."""
        kept = Nest(partial.dims, None)
        kept.reductions.append(Reduction(r.kind, (0,), partial, r.view))
        NestEmitter(kept, self.b).run()

    def _level(self, level: int, start: Expr | None = None, here: Expr | None = None) -> None:
        self._loads(level)
        if level == self.depth:
            self._body()
            return
        starting = [r for r in self.nest.reductions if self._register_level(r) == level]
        for r in starting:
            register = self.b.register(r.view.dtype, hint="acc")
            self.registers[id(r)] = register
            self.b.store(register, E.index(0), identity_element(r.kind, r.view.dtype))
        loop = self.loops[level]
        mode = "vector" if level == self.depth - 1 else "independent"
        with self.b.loop(self.sizes.expr(loop.size) if here is None else here, mode) as i:
            # A collapsed loop walks its innermost axis; the outer ones are covered by it.
            for k in loop.axes[:-1]:
                self.indices[k] = E.index(0)
            self.indices[loop.axes[-1]] = i if start is None else E.add(start, i)
            self._level(level + 1)
        for r in starting:
            register = self.registers[id(r)]
            self._accumulate(r, Load(register, E.index(0)))

    def _register_level(self, r: Reduction) -> int:
        """The level of the outermost of the innermost loops that ``r`` reduces (depth: none)."""
        level = self.depth
        while level > 0 and all(k in r.axes for k in self.loops[level - 1].axes):
            level -= 1
        return level

    def _accumulate(self, r: Reduction, value: Expr) -> None:
        kept = [i for k, i in enumerate(self.indices) if k not in r.axes]
        view = self.partial[id(r)].row(self.block) if id(r) in self.partial else r.view
        assert view.buffer is not None
        self.b.store(view.buffer, view.flat(kept), value, ACCUMULATE[r.kind])

    def _loads(self, level: int) -> None:
        """Load every view whose index is known at ``level`` and was not before."""
        for view in self.nest.views():
            if id(view) in self.loaded or self._known_at(view) != level or self._written(view):
                continue
            element = view.element(self.indices)
            self.loaded[id(view)] = self.b.let(element, "x") if view.literal is None else element

    def _written(self, view: View) -> bool:
        return any(view is w for w in self.nest.stores.values()) or any(
            view is w for _, w in self.nest.copies)

    def _known_at(self, view: View) -> int:
        level = 0
        for n, loop in enumerate(self.loops):
            if any(view.strides[k] != 0 for k in loop.axes):
                level = n + 1
        return level

    def _body(self) -> None:
        computed: dict[Value, Any] = {}
        prepared: dict[Any, tuple[Expr, ...]] = {}

        def operand(x: Value | View) -> Expr:
            return self.loaded[id(x)] if isinstance(x, View) else computed[x]

        for value, fn, operands in self.nest.steps:
            given = [operand(x) for x in operands]
            if fn.prepare is not None:
                key = (fn.prepare, *map(id, given))
                if key not in prepared:
                    prepared[key] = fn.prepare(self.b.let, *given)
                given = list(prepared[key])
            expr = fn.loops(*given)
            computed[value] = self.b.let(expr, _hint(value))
        for value, view in self.nest.stores.items():
            assert view.buffer is not None
            self.b.store(view.buffer, view.flat(self.indices), computed[value])
        for source, target in self.nest.copies:
            assert target.buffer is not None
            self.b.store(target.buffer, target.flat(self.indices), operand(source))
        for r in self.nest.reductions:
            register = self.registers.get(id(r)) if self._register_level(r) < self.depth else None
            if register is None:
                self._accumulate(r, operand(r.value))
            else:
                self.b.store(register, E.index(0), operand(r.value), ACCUMULATE[r.kind])


def _hint(value: Value) -> str:
    name = value.name or ""
    return name if name.isidentifier() and name.isascii() else "t"
