"""A region: the nodes of one block (a function, or the step of a scan) turned into stages.

Ops come here to be lowered: each op's ``lower`` calls one method.  Elementwise values and
reductions gather in nests; everything else is a stage of its own.  Stages are written out in
order when the region is complete.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinygraph.dims import Dim, Sym, dim, floordiv, is_late
from tinygraph.dtypes import int64
from tinygraph.errors import InternalError
from tinygraph.graph import Node, Value, toposort
from tinygraph.late import late_last
from tinygraph.loops import build as E
from tinygraph.loops.language import Cast, Expr, Let, Var
from tinygraph.lowering.call import lower_call
from tinygraph.lowering.clock import made_by
from tinygraph.lowering.cumulative import lower_cumulate
from tinygraph.lowering.indexing import lower_put, lower_take
from tinygraph.lowering.nest import Nest, Reduction, Scratch, fill
from tinygraph.lowering.nonzero import lower_nonzero
from tinygraph.lowering.ordering import lower_argsort, lower_bounded, lower_searchsorted
from tinygraph.lowering.products import Product
from tinygraph.lowering.scan import lower_scan
from tinygraph.lowering.schedule import (
    clusters,
    late_order,
    sums_with_products,
    sunk_order,
)
from tinygraph.lowering.storage import Storage
from tinygraph.lowering.tiling import Tiling
from tinygraph.lowering.view import View
from tinygraph.lowering.windows import (
    UnwindowProduct,
    WindowProduct,
    add_windows,
    unwindowed,
    windowed,
)
from tinygraph.ops.linalg import Dot
from tinygraph.ops.scalars import ScalarFn
from tinygraph.ops.views import Concatenate, Reshape, Slice, Squeeze, Transpose
from tinygraph.ops.views import Region as Part
from tinygraph.ops.windows import Sliding, Windows

Stage = Callable[[E.Builder], None]

# A nest takes no more values: LLVM's time grows faster than the length of a function does.
LONGEST = 256


class Region:
    """Lowers nodes one by one.

    ``where``    the View of every value that is in memory, or a formula
    ``home``     the nest that computes a value, and its position among the stages
    ``targets``  where a value must be put, decided before it is lowered
    ``parts``    per concatenation, the views of its parts
    ``ready``    the position of the stage after which a value is in memory
    ``nests``    the positions of nests that take more values, by domain and cluster
    ``stands``   in a step: per parameter what it stands for outside
    ``constants``  in a step: the parameters that are the same in all steps
    ``before``   in a step: stages that must run before the loop
    ``folded``   products that are computed by the one stage that reads them
    ``added``    a product and the sum that it is added to in place, each way
    ``late``     the late symbols that the stages written so far have found out
    ``tile``     the part of the batch that this region works on, if that is not the whole
    """

    def __init__(self, storage: Storage, outer: Region | None = None,
                 tile: Tiling | None = None) -> None:
        self.storage, self.outer, self.tile = storage, outer, tile
        self.where: dict[Value, View] = {}
        self.home: dict[Value, int] = {}
        self.ready: dict[Value, int] = {}
        self.targets: dict[Value, View] = {}
        self.parts: dict[Value, list[View]] = {}
        self.stands: dict[Value, Value] = {}
        self.constants: set[Value] = set()
        self.before: list[Stage] = []
        self.panels: dict[tuple[Value, Dim, Dim], View] = {}
        self.stages: list[Nest | Stage] = []
        self.clusters: dict[Value, object] = {}
        self.nests: dict[object, list[int]] = {}
        self.added: dict[Value, Value] = {}
        self.folded: set[Value] = set()
        self.late: set[Sym] = set()

    # --- the walk -----------------------------------------------------------------------

    def lower(self, outputs: Sequence[Value]) -> None:
        """Lower every node that ``outputs`` need and this region does not have yet."""
        nodes = [n for n in toposort(outputs) if n.outputs[0] not in self.where]
        if self.outer is None:
            self.clusters = clusters(nodes)
            nodes = sunk_order(nodes, outputs)
        else:
            nodes = late_order(nodes, outputs)
        for node in reversed(nodes):
            if isinstance(node.op, Concatenate):
                self._place_parts(node, nodes)
        self.folded |= unwindowed(nodes, outputs)
        for item, (total, other) in sums_with_products(nodes, outputs).items():
            if total not in self.targets:
                self.targets[total] = self.storage.temp(total)
            if other not in self.targets:
                self.targets[other] = self.targets[total]
                self.added[item], self.added[total] = total, item
        for node in late_last(nodes):
            node.op.lower(self, node)

    def _place_parts(self, node: Node, nodes: Sequence[Node]) -> None:
        """Let the parts of a concatenation be computed where they belong, unless only a later stage
        finds out where that is."""
        out = node.outputs[0]
        view = self.targets.get(out) or self.storage.temp(out)
        self.targets[out] = view
        regions = node.op.regions(node.inputs)  # type: ignore[attr-defined]
        self.parts[out] = [view.slice(r) for r in regions]
        for x, part, region in zip(node.inputs, self.parts[out], regions, strict=True):
            known = not any(map(is_late, (*region.starts, *part.strides)))
            if x.node is not None and x not in self.targets and known:
                self.targets[x] = part

    def emit(self, b: E.Builder) -> None:
        """Write all stages."""
        clock = self.storage.clock
        for k, stage in enumerate(self.stages):
            write = stage.emit if isinstance(stage, Nest) else stage
            if clock is None or stage is _nothing:
                write(b)
                continue
            kind, made, ops = made_by(k, stage, self.ready, self.home)
            with clock.timed(b, kind, made, ops, shared=self.tile is not None):
                write(b)

    def add(self, stage: Nest | Stage, *made: Value) -> int:
        """Append a stage that puts ``made`` in memory; its position."""
        self.stages.append(stage)
        for value in made:
            self.ready[value] = len(self.stages) - 1
        return len(self.stages) - 1

    def learn(self, b: E.Builder, s: Sym, value: Expr) -> None:
        """Write that the late symbol ``s`` is ``value``, and the checks that waited for it."""
        var = self.storage.sizes.local[s]
        assert isinstance(var, Var)
        b.emit(Let(var, value))
        self.late.add(s)
        known, region = set(self.late), self.outer
        while region is not None:
            known, region = known | region.late, region.outer
        for guard in self.storage.late_guards:
            mentioned = {x for x in guard.left.syms() | guard.right.syms() if x.bound is not None}
            if s in mentioned and mentioned <= known:
                self.storage.check(b, guard)

    # --- memory -------------------------------------------------------------------------

    def allocate(self, value: Value) -> View:
        """Memory for ``value``: its target, or a fresh temp."""
        view = self.targets.get(value) or self.storage.temp(value)
        self.where[value] = view
        return view

    def view(self, value: Value) -> View:
        """Where ``value`` is; a value that only a nest knows so far is stored from now on."""
        found = self.where.get(value)
        if found is not None:
            return found
        if value in self.home:
            position = self.home[value]
            nest = self.stages[position]
            assert isinstance(nest, Nest)
            nest.stores[value] = self.allocate(value)
            self.ready[value] = position
            return self.where[value]
        if self.outer is None:
            raise InternalError(f"{value!r} was not lowered")
        return self.outer.view(value)

    def memory(self, value: Value) -> View:
        """Where ``value`` is in a buffer; a formula is written out first."""
        view = self.view(value)
        if view.buffer is not None:
            return view
        target = self.storage.temp(value)
        self.add(self.copy_nest(view, target), value)
        self.where[value] = target
        return target

    def lay_out(self, value: Value) -> None:
        """Copy ``value`` to where the lane lies innermost: loops that read it again and again
        would pick its elements one by one."""
        target = self.storage.temp(value)
        self.add(self.copy_nest(self.where[value], target), value)
        self.where[value] = target

    def put(self, value: Value, target: View) -> None:
        """Make sure that ``value`` is at ``target``."""
        if self.targets.get(value) is target and value in self.home:
            self.view(value)
        view = self.view(value)
        if view is not target:
            self.add(self.copy_nest(view, target))

    def copy_nest(self, source: View, target: View) -> Nest:
        """The nest that copies one view to another."""
        return Nest(target.dims, self.storage.lane, copies=[(source, target)],
                    scratch=self._scratch(target.dims), block=self.storage.target.block)

    def _scratch(self, dims: Sequence[Dim]) -> Scratch | None:
        """Memory for a nest that threads may share; None in a loop, which is shared whole."""
        if self.outer is not None:
            return None
        return self.storage.scratch if self._shares(dims) else None

    def _shares(self, dims: Sequence[Dim]) -> bool:
        """May a nest over ``dims`` be large enough for several threads?  Beside a loop over time
        only what has a row for every step is."""
        unknown = sum(d.const is None for d in dims)
        return unknown == 0 or unknown >= (2 if self.storage.looped else 1)

    # --- what ops call ------------------------------------------------------------------

    def constant(self, out: Value, array: np.ndarray) -> None:
        """A literal, or data passed to the program."""
        if array.size == 1:
            literal = E.const(array.item(), out.type.dtype)
            self._formula(out, literal)
        else:
            self.where[out] = self.storage.constant(out, array)

    def size(self, out: Value, d: Dim) -> None:
        """The value of a Dim."""
        expr = self.storage.sizes.expr(d)
        self._formula(out, expr if out.type.dtype is int64 else Cast(expr, out.type.dtype))

    def _formula(self, out: Value, literal: Expr) -> None:
        dims = out.type.dims
        self.where[out] = View(self.storage.sizes, out.type.dtype, E.index(0), dims,
                               (dim(0),) * len(dims), literal=literal)

    def iota(self, out: Value) -> None:
        """0, 1, ...: a view without a buffer is its own flat offset.  A tile counts on from its
        first row."""
        sizes, (length,) = self.storage.sizes, out.type.dims
        start: Expr = E.index(0)
        if self.tile is not None and self.tile.rows in length.syms():
            start = E.mul(self.tile.start, sizes.expr(floordiv(length, dim(self.tile.rows))))
        self.where[out] = View(sizes, out.type.dtype, start, out.type.dims, (dim(1),))

    def alias(self, out: Value, view: View) -> None:
        """``out`` is another view of memory that exists."""
        self.where[out] = replace(view)

    def reshape(self, out: Value, x: Value) -> None:
        """Another view if strides can say that, else a row-major copy."""
        known = x in self.where or x in self.targets or x not in self.home
        if not known:
            trial = self.storage.layout(x)
            if trial.reshape(out.type.dims) is None:
                self.targets[x] = self.storage.temp(x, dense=True)
        view = self.view(x).reshape(out.type.dims)
        if view is None:
            dense = self.storage.temp(x, dense=True)
            self.add(self.copy_nest(self.view(x), dense), out)
            view = dense.reshape(out.type.dims)
        if view is None:
            raise InternalError(f"a dense array of {x.type} cannot be viewed as {out.type}")
        self.where[out] = view

    def elementwise(self, out: Value, fn: ScalarFn, inputs: Sequence[Value]) -> None:
        """Join a nest over the same domain, or open one."""
        if out in self.added:
            self._add_product(out, inputs)
            return
        position = self._nest_for(out.type.dims, inputs, self.clusters.get(out))
        nest = self.stages[position]
        assert isinstance(nest, Nest)
        nest.steps.append((out, fn, tuple(self._operand(x, position) for x in inputs)))
        self.home[out] = position
        if out in self.targets:
            self.view(out)

    def reduce(self, out: Value, kind: str, x: Value, axes: tuple[int, ...]) -> None:
        """Accumulate in a nest over the domain of ``x``."""
        position = self._nest_for(x.type.dims, [x], self.clusters.get(x))
        nest = self.stages[position]
        assert isinstance(nest, Nest)
        view = self.allocate(out)
        nest.reductions.append(Reduction(kind, axes, self._operand(x, position), view))
        self.ready[out] = position

    def _operand(self, x: Value, position: int) -> Value | View:
        """``x`` as the nest at ``position`` reads it."""
        return x if self.home.get(x) == position else self.view(x)

    def _nest_for(self, dims: tuple[Dim, ...], inputs: Sequence[Value], cluster: object) -> int:
        """A nest over ``dims`` in which every input is available, else a new one.

        Outside of loops only values of one cluster share a nest: what has nothing in common gains
        nothing, and nests that are alike are compiled once.  In a loop fewer nests are better,
        and the last one is best: a value that waited until now is needed there.
        """
        earliest = max((self._available(x, dims) for x in inputs), default=0)
        key = (dims, cluster if dims else None)
        open_ = self.nests.setdefault(key, [])
        able = open_[bisect_left(open_, earliest):]
        for position in able if self.outer is None else reversed(able):
            nest = self.stages[position]
            assert isinstance(nest, Nest)
            if len(nest.steps) + len(nest.reductions) < LONGEST:
                return position
            open_.remove(position)
        nest = Nest(dims, self.storage.lane, cluster, scratch=self._scratch(dims),
                    block=self.storage.target.block)
        open_.append(self.add(nest))
        return open_[-1]

    def _available(self, x: Value, dims: tuple[Dim, ...]) -> int:
        """The first position at which a nest over ``dims`` can read ``x``."""
        if x in self.home:
            nest = self.stages[self.home[x]]
            same = isinstance(nest, Nest) and nest.dims == dims
            return self.home[x] + (not same)
        return max((self.ready[v] + 1 for v in self._sources(x)), default=0)

    def _sources(self, x: Value) -> list[Value]:
        """The values whose memory ``x`` views."""
        found, stack = [], [x]
        while stack:
            v = stack.pop()
            if v in self.ready:
                found.append(v)
            elif v in self.home:
                self.view(v)
                found.append(v)
            elif v.node is not None and v in self.where:
                stack.extend(v.node.inputs)
        return found

    def dot(self, out: Value, op: Dot, x: Value, y: Value) -> None:
        """A product stage."""
        if out not in self.added and out not in self.folded:
            self._product(out, op, x, y, self.allocate(out), accumulate=False)

    def _add_product(self, total: Value, inputs: Sequence[Value]) -> None:
        """total = product + other: the product is added where the other summand is."""
        product = self.added[total]
        (other,) = (x for x in inputs if x is not product)
        self.put(other, self.targets[total])
        assert product.node is not None and isinstance(product.node.op, Dot)
        self.where[total] = self.targets[total]
        x, y = product.node.inputs
        self._product(total, product.node.op, x, y, self.targets[total], accumulate=True)

    def _product(self, out: Value, op: Dot, x: Value, y: Value, c: View, accumulate: bool) -> None:
        """A product.  Weights that stay the same in a loop are packed before it."""
        found = windowed(op, x, y)
        if found is not None:
            op, x, y, roles = found
            views = self.memory(x), self.memory(y), c
            shared, seen = self.outer is None, WindowProduct(op, views, roles, accumulate)
            self.add(lambda builder: seen.emit(builder, self.storage.scratch, shared), out)
            return
        if x in self.constants and y not in self.constants:
            op, x, y = Dot(op.b, op.a, op.out), y, x
        product = Product(op, self.memory(x), self.memory(y), c, accumulate)
        panel = self.storage.target.panel(out.type.dtype)
        if panel and y in self.constants and product.packable() and not self._of_tile(y):
            panels = self._panels(y, product)
            share = product.shares_in_step(self.tile)
            self.add(lambda builder: product.emit(builder, panels, panel, share), out)
        elif self.outer is None and product.small_sum():
            self.add(lambda builder: product.emit_sum(builder, self.storage.scratch), out)
        else:
            cut = self.outer is None and (self.storage.target.shares or not product.single())
            share = product.shares() if cut else None
            self.add(lambda builder: product.emit(builder, share=share), out)

    def _of_tile(self, value: Value) -> bool:
        """Does ``value`` have another part for every tile of the batch?"""
        return self.tile is not None and any(
            self.tile.rows in d.syms() for d in value.type.dims)

    def _panels(self, y: Value, product: Product) -> View:
        """The constant ``y`` in panels, copied before the outermost loop in which it is one."""
        inner: Region = self
        while inner.outer is not None and inner.outer.outer is not None and (
                inner.stands[y] in inner.outer.constants):
            y, inner = inner.stands[y], inner.outer
        outer = inner.outer
        assert outer is not None
        strides = product.k.strides[1], product.n.strides[1]
        found = inner.panels.get((y, *strides))
        if found is None:
            found = self._pack(inner, outer, y, product)
            inner.panels[(y, *strides)] = found
        return found

    def _pack(self, inner: Region, outer: Region, y: Value, product: Product) -> View:
        k, n, dtype = product.k.size, product.n.size, y.type.dtype
        width = self.storage.target.panel(dtype)
        count = floordiv(n + (width - 1), dim(width)) * width * k
        with self.storage.within(outer.tile):
            buffer, start = self.storage.scratch("panels", dtype, count)
        sizes = self.storage.sizes
        source = product.matrix(1, product.views[1].offset, product.k, product.n)

        def stage(b: E.Builder) -> None:
            b.pack(sizes.expr(k), sizes.expr(n), source, buffer, start, width)

        inner.before.append(stage)
        return View(sizes, dtype, start, (count,), (dim(1),), buffer)

    def concatenate(self, out: Value, inputs: Sequence[Value]) -> None:
        """Parts that were not computed in place are copied."""
        self.allocate(out)
        for x, part in zip(inputs, self.parts[out], strict=True):
            self.put(x, part)
        self.add(_nothing, out)

    def unslice(self, out: Value, x: Value, part: Part) -> None:
        """Zeros with ``x`` at ``part``."""
        source, target = self.view(x), self.allocate(out)
        zero = E.const(0, out.type.dtype)
        self.add(lambda b: fill(b, target, zero))
        self.add(self.copy_nest(source, target.slice(part)), out)

    def unwindows(self, out: Value, x: Value, sliding: Sliding) -> None:
        """Zeros to which the windows ``x`` are added."""
        target, shared = self.allocate(out), self.outer is None
        if x in self.folded and x.node is not None and isinstance(x.node.op, Dot):
            first, second = map(self.memory, x.node.inputs)
            made = UnwindowProduct(x.node.op, (first, second), target, sliding)
            self.add(lambda b: made.emit(b, self.storage.scratch, shared), out)
            return
        source = self.view(x)
        self.add(lambda b: add_windows(b, source, target, sliding, shared), out)

    def set_slice(self, out: Value, x: Value, y: Value, part: Part) -> None:
        """A copy of ``x`` with ``y`` at ``part``."""
        base, source, target = self.view(x), self.view(y), self.allocate(out)
        self.add(self.copy_nest(base, target))
        self.add(self.copy_nest(source, target.slice(part)), out)

    def scan(self, node: Node, op: Any) -> None:
        """A loop stage."""
        lower_scan(self, node, op)

    argsort, searchsorted, bounded = lower_argsort, lower_searchsorted, lower_bounded
    cumulate = lower_cumulate

    def nonzero(self, node: Node) -> None:
        """A loop that counts."""
        lower_nonzero(self, node)

    def call(self, node: Node, name: str, function: Callable[..., None]) -> None:
        """A stage that runs a Python function."""
        lower_call(self, node, name, function)

    def take(self, out: Value, x: Value, index: Value, axis: int) -> None:
        """Reading at indices."""
        lower_take(self, out, x, index, axis)

    def named(self, value: Value) -> Value:
        """What messages call ``value``: behind views and parameters, what the user named."""
        while True:
            if value in self.stands and self.outer is not None:
                return self.outer.named(self.stands[value])
            views = (Transpose, Squeeze, Reshape, Slice, Windows)
            if value.name or value.node is None or not isinstance(value.node.op, views):
                return value
            value = value.node.inputs[0]

    def put_index(self, out: Value, x: Value, index: Value, y: Value, axis: int, mode: str
                  ) -> None:
        """Writing at indices."""
        lower_put(self, out, x, index, y, axis, mode)


def _nothing(b: E.Builder) -> None:
    """A stage that marks a position."""
