"""Running sums, products and linear recurrences: one loop along an axis.

Where the axis lies innermost in memory the value so far waits in a register; else the loop goes
row by row, adds to the row before, and vectorises along the row.

For back ends of many threads the value so far always waits in a register, since each thread then
has a loop of its own, and a long axis of a sum is cut into chunks: first each is summed up, then
sums of chunks are added up in order, then each chunk runs on from those before.  Chunks are of one
size, so that the order of additions does not hang on how many threads there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinygraph.dims import Dim, dim, floordiv, product
from tinygraph.loops import build as E
from tinygraph.loops.language import Binary, Buffer, Expr, Load, Select
from tinygraph.lowering.nest import loop_order
from tinygraph.lowering.view import View

if TYPE_CHECKING:
    from tinygraph.graph import Value
    from tinygraph.lowering.region import Region

ZERO, ONE = E.index(0), E.index(1)
CHUNK = 256  # elements that a thread adds up alone


def lower_cumulate(region: Region, out: Value, kind: str, inputs: Sequence[Value], axis: int,
                   reverse: bool) -> None:
    """A stage that puts what runs along ``axis`` of ``inputs`` where ``out`` is to be; ``kind``
    'sum', 'prod' or 'linear'."""
    sources = [region.view(x) for x in inputs]
    work = _Running(kind, sources, region.allocate(out), axis, reverse,
                    region.storage.target.apart)
    count = work.chunks(region.outer is None)
    if count == 1:
        region.add(work.emit, out)
        return
    others = product(tuple(d for k, d in enumerate(work.target.dims) if k != axis))
    memory = region.storage.scratch("chunks", work.target.dtype, count * others)
    region.add(lambda b: work.in_chunks(b, memory, count), out)


@dataclass
class _Running:
    kind: str
    sources: Sequence[View]
    target: View
    axis: int
    reverse: bool
    apart: bool

    def chunks(self, outermost: bool) -> Dim:
        """Into how many chunks the axis falls.  Products of floats and recurrences stay whole: what
        a chunk comes to may be infinite where nothing else is."""
        exact = self.kind == "sum" or self.kind == "prod" and not self.target.dtype.is_float
        if not (self.apart and outermost and exact):
            return dim(1)
        return floordiv(self.target.dims[self.axis] + (CHUNK - 1), dim(CHUNK))

    def emit(self, b: E.Builder) -> None:
        """Write the loops."""
        indices: list[Expr] = [ZERO] * len(self.target.dims)
        others = self._others()
        rows = not self.apart and bool(others) and self.target.strides[others[-1]] == 1
        self._outer(b, indices, others[:-1] if rows else others, others[-1] if rows else None)

    def _others(self) -> list[int]:
        """The other axes, the one that lies innermost in memory last."""
        others = [k for k in loop_order(self.target.dims, None) if k != self.axis]
        return sorted(others, key=lambda k: self.target.strides[k] == 1)

    def _outer(self, b: E.Builder, indices: list[Expr], rest: list[int], inner: int | None
               ) -> None:
        if rest:
            with b.loop(self._size(rest[0]), "independent") as i:
                indices[rest[0]] = i
                self._outer(b, indices, rest[1:], inner)
        elif inner is None:
            self._along(b, indices, self._start(), E.index(0), self._size(self.axis))
        else:
            self._by_rows(b, indices, inner)

    def _along(self, b: E.Builder, indices: list[Expr], start: Expr, first: Expr, count: Expr,
               stores: bool = True) -> Expr:
        """``count`` rounds from ``first`` on; gives the last value."""
        assert self.target.buffer is not None
        total = b.register(self.target.dtype, hint="total")
        b.store(total, ZERO, start)
        with b.loop(count) as t:
            indices[self.axis] = self._place(E.add(first, t))
            value = b.let(self._step(Load(total, ZERO), indices), "v")
            b.store(total, ZERO, value)
            if stores:
                b.store(self.target.buffer, self.target.flat(indices), value)
        return Load(total, ZERO)

    def in_chunks(self, b: E.Builder, memory: tuple[Buffer, Expr], count: Dim) -> None:
        """The sums of chunks, their running sums, and then all elements.  ``memory``: for a number
        per chunk and row."""
        buffer, begin = memory
        rows = product(tuple(d for k, d in enumerate(self.target.dims) if k != self.axis))
        chunks = self.target.sizes.expr(count)
        full = E.maximum(E.sub(chunks, ONE), ZERO)  # the last one's sum nobody asks for

        def at(chunk: Expr, row: Expr) -> Expr:
            return E.add(begin, E.add(E.mul(chunk, self.target.sizes.expr(rows)), row))

        def begun(chunk: Expr) -> Expr:
            return E.mul(chunk, E.index(CHUNK))

        def sums(chunk: Expr, indices: list[Expr], row: Expr) -> None:
            b.store(buffer, at(chunk, row), self._along(b, indices, self._start(), begun(chunk),
                                                        E.index(CHUNK), stores=False))

        def running(indices: list[Expr], row: Expr) -> None:
            total = b.register(self.target.dtype, hint="total")
            b.store(total, ZERO, self._start())
            with b.loop(full, hint="chunk") as chunk:
                value = b.let(self._joined(Load(total, ZERO), Load(buffer, at(chunk, row))), "v")
                b.store(total, ZERO, value)
                b.store(buffer, at(chunk, row), value)

        def elements(chunk: Expr, indices: list[Expr], row: Expr) -> None:
            before = Load(buffer, at(E.maximum(E.sub(chunk, ONE), ZERO), row))
            start = b.let(Select(Binary("eq", chunk, ZERO), self._start(), before), "start")
            left = E.sub(self._size(self.axis), begun(chunk))
            here = b.let(E.minimum(left, E.index(CHUNK)), "here")
            self._along(b, indices, start, begun(chunk), here)

        with b.loop(full, "independent", hint="chunk") as chunk:
            self._rows(b, lambda indices, row: sums(chunk, indices, row))
        self._rows(b, running)
        with b.loop(chunks, "independent", hint="chunk") as chunk:
            self._rows(b, lambda indices, row: elements(chunk, indices, row))

    def _rows(self, b: E.Builder, body: Callable[[list[Expr], Expr], None]) -> None:
        """Loops over the other axes; ``body`` is given the indices and the row's number."""
        indices: list[Expr] = [ZERO] * len(self.target.dims)

        def level(rest: Sequence[int], row: Expr) -> None:
            if not rest:
                body(indices, row)
                return
            size = self._size(rest[0])
            with b.loop(size, "independent") as i:
                indices[rest[0]] = i
                level(rest[1:], E.add(E.mul(row, size), i))

        level(self._others(), ZERO)

    def _by_rows(self, b: E.Builder, indices: list[Expr], inner: int) -> None:
        assert self.target.buffer is not None
        with b.loop(self._size(self.axis)) as t:
            here = self._place(t)
            before = self._place(b.let(E.maximum(E.sub(t, ONE), ZERO), "before"))
            first = b.let(Binary("eq", t, ZERO), "first")
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
        return E.sub(E.sub(self._size(self.axis), ONE), t) if self.reverse else t

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
        return self._joined(before, here[0])

    def _joined(self, before: Expr, here: Expr) -> Expr:
        return Binary("add" if self.kind == "sum" else "mul", before, here)
