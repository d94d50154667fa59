"""The buffers of a program: which there are, how each lies in memory, how large it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from tinygraph.dims import Dim, Sym, at_most, dim, floordiv
from tinygraph.dtypes import DType, int64
from tinygraph.graph import Guard, Node, Type, Value, describe
from tinygraph.loops import build as E
from tinygraph.loops.language import Binary, Buffer, Expr, Var
from tinygraph.lowering.clock import Clock
from tinygraph.lowering.nest import loop_order
from tinygraph.lowering.overlap import Looped, Overlap
from tinygraph.lowering.overlay import SameRows
from tinygraph.lowering.sizes import SizeParameters
from tinygraph.lowering.target import CPU, Target
from tinygraph.lowering.tiling import LINE, Tiling
from tinygraph.lowering.view import View, element_count, row_major
from tinygraph.lowering.workspace import ALIGNMENT


@dataclass(frozen=True)
class Site:
    """A place where native code can fail: the error, and a message over the reported numbers."""

    error: type[Exception]
    text: str

    def exception(self, numbers: Sequence[int]) -> Exception:
        """The user's error."""
        text = self.text
        for k, number in enumerate(numbers):
            text = text.replace(f"{{{k}}}", str(number))
        return self.error(text)


class Storage:
    """Buffers and size parameters of one program.

    ``lane``: a Dim whose axis lies innermost in every temp that has it, or None (row-major).
    Small hidden sizes fill vector registers badly; a batch in the lanes fills them.
    ``looped``: is there a scan in the program?
    ``clock``: what times the stages, where a profile is asked for
    ``target``: what the back end wants
    """

    def __init__(self, lane: Dim | None = None, target: Target = CPU) -> None:
        self.lane, self.target, self.looped = lane, target, False
        self.tile: Tiling | None = None
        self.sizes = SizeParameters()
        self.temps: dict[Buffer, Dim] = {}
        self.same_rows: list[SameRows] = []
        self.loops: dict[Node, Looped] = {}
        self.overlaps: list[Overlap] = []
        self.args: list[Buffer] = []
        self.constants: list[np.ndarray] = []
        self.constant_buffers: list[Buffer] = []
        self.sites: list[Site] = []
        self.clock: Clock | None = None
        self._names: dict[str, int] = {}
        self.late_guards: list[Guard] = []

    def expect(self, late: Iterable[Sym], guards: Iterable[Guard]) -> None:
        """Late symbols that the program will determine, and what it then has to check."""
        self.late_guards = list(guards)
        for s in sorted(late, key=lambda s: s.key):
            self.sizes.local[s] = Var(self.fresh("late").replace("$", ""), int64)

    def late_names(self) -> list[str]:
        """What the program calls late symbols."""
        return [var.name for s, var in self.sizes.local.items()
                if s.bound is not None and isinstance(var, Var)]

    def check(self, b: E.Builder, guard: Guard) -> None:
        """Write the check of a relation between sizes."""
        text = guard.text.replace("{left}", "{0}").replace("{right}", "{1}")
        self.sites.append(Site(guard.error, text))
        left, right = self.sizes.expr(guard.left), self.sizes.expr(guard.right)
        holds = Binary("eq" if guard.relation == "eq" else "le", left, right)
        b.check(holds, len(self.sites) - 1, (left, right))

    def fresh(self, hint: str) -> str:
        """A buffer name that is not taken."""
        hint = hint if hint.isidentifier() and hint.isascii() else "t"
        count = self._names[hint] = self._names.get(hint, 0) + 1
        return f"{hint}${count}"

    def argument(self, value: Value, hint: str, writable: bool) -> View:
        """A dense array that the caller passes."""
        buffer = self._buffer(hint, value.type, writable)
        self.args.append(buffer)
        return self.dense_view(buffer, value.type.dims)

    def constant(self, value: Value, array: np.ndarray) -> View:
        """An array that goes with the program."""
        buffer = self._buffer("const", value.type, False)
        self.constants.append(np.ascontiguousarray(array))
        self.constant_buffers.append(buffer)
        return self.dense_view(buffer, value.type.dims)

    def temp(self, value: Value, dense: bool = False, rows: Dim | None = None) -> View:
        """Memory in the arena: for ``value``, or for ``rows`` values one after another."""
        dims = value.type.dims
        order = list(range(len(dims))) if dense else self._order(dims)
        places = dims if dense else self._padded(dims, order)
        count = element_count(places) * (dim(1) if rows is None else rows)
        buffer, start = self.scratch(value.name or "t", value.type.dtype, count)
        view = View(self.sizes, value.type.dtype, start, dims, row_major(places, order), buffer)
        if rows is None:
            return view
        return replace(view, dims=(rows, *dims), strides=(element_count(places), *view.strides))

    def _padded(self, dims: tuple[Dim, ...], order: list[int]) -> tuple[Dim, ...]:
        """How many places each axis has: where the whole batch lies innermost, rows begin at
        cache lines, so that threads that work on tiles of it do not write to the same ones."""
        if self.lane is None or self.tile is not None or len(order) < 2:
            return dims
        inner = order[-1]
        if dims[inner] != self.lane:
            return dims
        whole = floordiv(self.lane + (LINE - 1), dim(LINE)) * LINE
        return (*dims[:inner], whole, *dims[inner + 1:])

    def scratch(self, hint: str, dtype: DType, count: Dim) -> tuple[Buffer, Expr]:
        """Memory for ``count`` elements in the arena, and where in the buffer they begin: tiles
        that may run at once have each their own."""
        start: Expr = E.index(0)
        count = at_most(count)
        if self.tile is not None:
            # Whole cache lines, whatever an element's size: threads must not share one.
            count = floordiv(self.tile.largest(count) + (ALIGNMENT - 1), dim(ALIGNMENT)) * ALIGNMENT
            start = E.mul(self.tile.index, self.sizes.expr(count))
            count = at_most(count * self.tile.count)
        buffer = Buffer(self.fresh(hint), dtype, self.sizes.expr(count), "temp", True)
        self.temps[buffer] = count * dtype.itemsize
        return buffer, start

    @contextmanager
    def within(self, tile: Tiling | None) -> Iterator[None]:
        """Temps made inside belong to ``tile``."""
        before = self.tile, self.lane
        self.tile = tile
        if tile is not None:
            self.sizes.local[tile.rows] = tile.here
            self.lane = self.lane and tile.inside(self.lane)
        try:
            yield
        finally:
            self.tile, self.lane = before

    def layout(self, value: Value) -> View:
        """How ``value`` would lie in memory (no buffer is made)."""
        dims = value.type.dims
        order = self._order(dims)
        return View(self.sizes, value.type.dtype, E.index(0), dims,
                    row_major(self._padded(dims, order), order), Buffer("trial", value.type.dtype,
                                                               E.index(0)))

    def dense_view(self, buffer: Buffer, dims: tuple[Dim, ...]) -> View:
        """A row-major array that fills ``buffer``."""
        return View(self.sizes, buffer.dtype, E.index(0), dims, row_major(dims), buffer)

    def index_site(self, x: Value, index: Value, axis: int, source: str) -> int:
        """The failure site of indexing ``x`` by ``index`` at ``source`` of the user's code."""
        where = f", at {source}" if source else ""
        self.sites.append(Site(IndexError, f"index {{0}} in {describe(index)} is out of range for "
                               f"axis {axis} of {describe(x)}, whose size is {{1}}{where}"))
        return len(self.sites) - 1

    def _order(self, dims: tuple[Dim, ...]) -> list[int]:
        ones = [k for k, d in enumerate(dims) if d == 1]
        return ones + loop_order(dims, self.lane)

    def _buffer(self, hint: str, type_: Type, writable: bool) -> Buffer:
        size = self.sizes.expr(at_most(element_count(type_.dims)))
        return Buffer(self.fresh(hint), type_.dtype, size, "arg", writable)
