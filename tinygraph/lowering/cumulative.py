"""Running sums, products and linear recurrences: one loop along an axis.

Where the axis lies innermost in memory the value so far waits in a register; else the loop goes
row by row, adds to the row before, and vectorises along the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinygraph.loops import build as E
from tinygraph.loops.language import Binary, Expr, Load, Select
from tinygraph.lowering.nest import loop_order
from tinygraph.lowering.view import View

if TYPE_CHECKING:
    from tinygraph.graph import Value
    from tinygraph.lowering.region import Region


def lower_cumulate(region: Region, out: Value, kind: str, inputs: Sequence[Value], axis: int,
                   reverse: bool) -> None:
    """A stage that puts what runs along ``axis`` of ``inputs`` where ``out`` is to be; ``kind``
    'sum', 'prod' or 'linear'."""
    sources = [region.view(x) for x in inputs]
    work = _Running(kind, sources, region.allocate(out), axis, reverse)
    region.add(work.emit, out)


@dataclass
class _Running:
    kind: str
    sources: Sequence[View]
    target: View
    axis: int
    reverse: bool

    def emit(self, b: E.Builder) -> None:
        """Write the loops."""
        indices: list[Expr] = [E.index(0)] * len(self.target.dims)
        others = [k for k in loop_order(self.target.dims, None) if k != self.axis]
        inner = next((k for k in others if self.target.strides[k] == 1), None)
        self._outer(b, indices, [k for k in others if k != inner], inner)

    def _outer(self, b: E.Builder, indices: list[Expr], rest: list[int], inner: int | None
               ) -> None:
        if rest:
            with b.loop(self._size(rest[0])) as i:
                indices[rest[0]] = i
                self._outer(b, indices, rest[1:], inner)
        elif inner is None:
            self._in_register(b, indices)
        else:
            self._by_rows(b, indices, inner)

    def _in_register(self, b: E.Builder, indices: list[Expr]) -> None:
        assert self.target.buffer is not None
        total = b.register(self.target.dtype, hint="total")
        b.store(total, E.index(0), self._start())
        with b.loop(self._size(self.axis)) as t:
            indices[self.axis] = self._place(t)
            value = b.let(self._step(Load(total, E.index(0)), indices), "v")
            b.store(total, E.index(0), value)
            b.store(self.target.buffer, self.target.flat(indices), value)

    def _by_rows(self, b: E.Builder, indices: list[Expr], inner: int) -> None:
        assert self.target.buffer is not None
        with b.loop(self._size(self.axis)) as t:
            here = self._place(t)
            before = self._place(b.let(E.maximum(E.sub(t, E.index(1)), E.index(0)), "before"))
            first = b.let(Binary("eq", t, E.index(0)), "first")
            with b.loop(self._size(inner), "vector") as i:
                indices[inner], indices[self.axis] = i, before
                old = Load(self.target.buffer, self.target.flat(indices))
                indices[self.axis] = here
                value = b.let(self._step(Select(first, self._start(), old), indices), "v")
                b.store(self.target.buffer, self.target.flat(indices), value)

    def _size(self, axis: int) -> Expr:
        return self.target.sizes.expr(self.target.dims[axis])

    def _place(self, t: Expr) -> Expr:
        """The index along the axis in round ``t``."""
        return E.sub(E.sub(self._size(self.axis), E.index(1)), t) if self.reverse else t

    def _start(self) -> Expr:
        """What the first element meets; a sum of zeros keeps their sign."""
        floats = self.target.dtype.is_float
        number = {"sum": -0.0 if floats else 0, "prod": 1, "linear": 0}[self.kind]
        return E.const(number, self.target.dtype)

    def _step(self, before: Expr, indices: Sequence[Expr]) -> Expr:
        """The value here, from the one before."""
        here = [source.element(indices) for source in self.sources]
        if self.kind == "linear":
            return Binary("add", Binary("mul", here[0], before), here[1])
        return Binary("add" if self.kind == "sum" else "mul", before, here[0])
