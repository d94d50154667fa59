"""Cutting the batch of a scan into tiles: each tile runs the whole loop on its own rows.

Where no step mixes the rows of the batch, the loop over time can stand inside a loop over tiles
of rows.  Tiles are independent, so threads may share them; what a step leaves in memory for the
next is the tile's, and small.  Every element is computed by the same operations in the same order
whatever the tiles are: results do not depend on the number of threads, not by a bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinygraph.dims import Dim, Sym, dim, floordiv, maximum, minimum
from tinygraph.dtypes import int64
from tinygraph.graph import Graph, Node, Type, Value, map_op, subgraphs
from tinygraph.loops import build as E
from tinygraph.loops.language import TRANSCENDENTAL, Binary, Expr, Select, Var
from tinygraph.lowering.view import View, element_count
from tinygraph.ops.arithmetic import Arithmetic, Broadcast, Constant, Elemwise, Reduce
from tinygraph.ops.bounds import Bounded
from tinygraph.ops.callback import Callback
from tinygraph.ops.cumulative import Cumulate, LinearRecurrence
from tinygraph.ops.index import Put, Take
from tinygraph.ops.linalg import Dot
from tinygraph.ops.sizes import Iota
from tinygraph.ops.views import (
    Concatenate,
    Region,
    Reshape,
    SetSlice,
    Slice,
    Squeeze,
    Transpose,
    Unslice,
)
from tinygraph.scan_module.op import Scan

GRAIN = 4  # tiles begin at multiples of so many rows
LINE = 16  # and of so many where rows lie side by side: threads must not write to one cache line
TRANSCENDENTAL_WORK = 16  # multiply-adds that take about as long as one exp
WORK = 1 << 17  # multiply-adds that are worth another thread (about 5 microseconds)


@dataclass(frozen=True)
class Tiling:
    """``batch`` rows as ``count`` tiles of at most ``most`` rows, which begin at multiples of
    ``grain``.

    ``rows`` is the symbol that stands for the rows of a tile within it; ``index``, ``start`` and
    ``here`` are the tile, its first row and its number of rows as the program names them.
    """

    batch: Sym
    grain: int
    rows: Sym
    count: Dim
    most: Dim
    index: Var
    start: Var
    here: Var

    def inside(self, d: Dim) -> Dim:
        """A size of the whole as a size of one tile."""
        return d.substitute(lambda s: dim(self.rows) if s == self.batch else dim(s))

    def whole(self, d: Dim) -> Dim:
        """A size of one tile as a size of the whole."""
        return d.substitute(lambda s: dim(self.batch) if s == self.rows else dim(s))

    def largest(self, d: Dim) -> Dim:
        """A size of one tile, for the largest tile."""
        return d.substitute(lambda s: self.most if s == self.rows else dim(s))

    def cut(self, view: View) -> View:
        """The part of a view of the whole that is this tile's."""
        for axis, d in enumerate(view.dims):
            if d.symbol == self.batch:
                step = E.mul(self.start, view.sizes.expr(view.strides[axis]))
                dims = (*view.dims[:axis], dim(self.rows), *view.dims[axis + 1:])
                return replace(view, offset=E.add(view.offset, step), dims=dims)
        return view

    def body(self, graph: Graph) -> Graph:
        """A step over the whole batch as a step over one tile."""
        inputs = tuple(Arithmetic(self._type(v.type), name=v.name, source=v.source)
                       for v in graph.inputs)
        memo: dict[Value, Value] = dict(zip(graph.inputs, inputs, strict=True))
        for node in graph.nodes():
            op = map_op(node.op, self.inside, self.body)
            types = tuple(self._type(v.type) for v in node.outputs)
            new = Node(op, tuple(memo[v] for v in node.inputs), types, cls=Arithmetic,
                       source=node.outputs[0].source)
            for old, made in zip(node.outputs, new.outputs, strict=True):
                made.name = old.name
                memo[old] = made
        return Graph(inputs, tuple(memo[v] for v in graph.outputs))

    def _type(self, t: Type) -> Type:
        return t.with_dims(self.inside(d) for d in t.dims)

    def bind(self, b: E.Builder, tile: Expr, size: Expr, count: Expr) -> None:
        """Name what a tile needs, at the head of its loop; ``size``: rows of the whole."""
        start = b.let(self._first(tile, size, count), self.start.name)
        end = self._first(E.add(tile, E.index(1)), size, count)
        here = b.let(E.sub(E.minimum(end, size), start), self.here.name)
        assert (start.name, here.name) == (self.start.name, self.here.name)

    def _first(self, tile: Expr, size: Expr, count: Expr) -> Expr:
        """The first row of a tile: the multiple of ``grain`` next to its even share; of the tile
        behind the last, at least ``size``."""
        last = Binary("ge", tile, count)
        near = E.floordiv(E.add(E.floordiv(E.mul(tile, size), count), E.index(self.grain // 2)),
                          E.index(self.grain))
        return E.minimum(Select(last, size, E.mul(near, E.index(self.grain))), size)


def tiling(op: Scan, lane: Dim | None, names: tuple[str, str, str], tiles: Sym) -> Tiling | None:
    """How to cut the batch of ``op`` into tiles, if its steps allow that.

    lane   the axis that lies innermost in memory;  names  three that are free in the program
    tiles  the most that there may be
    """
    batch = _batch(op)
    if batch is None:
        return None
    b, grain = dim(batch), LINE if lane == dim(batch) else GRAIN
    enough = floordiv(op.n_steps * work(op.body), dim(WORK))
    groups = floordiv(b + (grain - 1), dim(grain))
    count = maximum(dim(1), minimum(minimum(dim(tiles), groups), enough))
    most = (floordiv(b, count * LINE) + 2) * LINE
    index, start, here = (Var(name, int64) for name in names)
    return Tiling(batch, grain, Sym("rows"), count, most, index, start, here)


def work(graph: Graph) -> Dim:
    """Roughly the multiply-adds of one step, as a polynomial of sizes."""
    total = dim(0)
    for node in graph.nodes():
        out = node.outputs[0].type
        if isinstance(node.op, Dot):
            sizes = dict(zip((*node.op.a, *node.op.b),
                             (*node.inputs[0].type.dims, *node.inputs[1].type.dims), strict=True))
            total = total + element_count(tuple(sizes.values()))
        elif isinstance(node.op, Elemwise):
            fn = node.op.fn
            slow = fn.name in TRANSCENDENTAL or fn.prepare is not None
            weight = TRANSCENDENTAL_WORK if slow else 1
            total = total + element_count(out.dims) * weight
    return total


def _batch(op: Scan) -> Sym | None:
    """The symbol of an axis that every state and every row has, and that no step mixes."""
    first = op.body.outputs[0].type.dims if op.body.outputs else ()
    for d in first:
        s = d.symbol
        if s is None or s.bound is not None or s in op.n_steps.syms():
            continue
        if _independent(op.body, s) and all(_axis(v, s) is not None for v in op.body.outputs):
            return s
    return None


def _axis(v: Value, s: Sym) -> int | None:
    """The axis of ``v`` whose size is ``s``."""
    return next((k for k, d in enumerate(v.type.dims) if d.symbol == s), None)


def _plain(v: Value, s: Sym) -> bool:
    """Is ``s`` the size of at most one axis, and part of no other size?"""
    mentions = [d for d in v.type.dims if s in d.syms()]
    return len(mentions) <= 1 and all(d.symbol == s for d in mentions)


def _independent(graph: Graph, s: Sym) -> bool:
    """Is row i of every value made from rows i of its operands alone?"""
    return all(_plain(v, s) for v in graph.inputs) and all(
        (isinstance(node.op, Iota) or all(_plain(v, s) for v in node.outputs))
        and _row_by_row(node, s)
        for node in graph.nodes())


def _row_by_row(node: Node, s: Sym) -> bool:
    if isinstance(node.op, Callback):
        return False  # once per step, whatever it reads; and Python is not shared by threads
    if isinstance(node.op, (Take, Put, Bounded)):
        return False  # they leave the program where an index is bad, and no thread can do that
    if isinstance(node.op, Iota):
        return _numbers_rows(node.op.length, s)
    if any(not _plain(v, s) for v in node.inputs):  # made by such an Iota
        return isinstance(node.op, Reshape) and node.outputs[0].type.dims[0].symbol == s
    axes = [_axis(v, s) for v in node.inputs]
    if all(a is None for a in axes):
        # Made of nothing that has rows: it has none itself, or the same in all of them.
        return isinstance(node.op, Broadcast) or all(_axis(v, s) is None for v in node.outputs) \
            and not _reads_size(node, s)
    out = _axis(node.outputs[0], s)
    check = _CHECKS.get(type(node.op))
    return out is not None and check is not None and check(node, axes, out)


def _numbers_rows(length: Dim, s: Sym) -> bool:
    """May a tile count up to ``length`` from its first row on?"""
    each = floordiv(length, dim(s))
    return s not in length.syms() or (each * dim(s) == length and s not in each.syms())


def _reads_size(node: Node, s: Sym) -> bool:
    found = False

    def note(d: Dim) -> Dim:
        nonlocal found
        found = found or s in d.syms()
        return d

    map_op(node.op, note, lambda g: g)
    return found or bool(subgraphs(node.op))


def _same_axis(node: Node, axes: list[int | None], out: int) -> bool:
    return all(a is None or a == out for a in axes)


def _always(node: Node, axes: list[int | None], out: int) -> bool:
    return True


def _broadcast(node: Node, axes: list[int | None], out: int) -> bool:
    (axis,) = axes
    assert axis is not None
    return node.op.axes[axis] == out  # type: ignore[attr-defined]


def _dot(node: Node, axes: list[int | None], out: int) -> bool:
    label = node.op.out[out]  # type: ignore[attr-defined]
    pairs = zip((node.op.a, node.op.b), axes, strict=True)  # type: ignore[attr-defined]
    return all(axis is None or labels[axis] == label for labels, axis in pairs)


def _whole(region: Region, axis: int, size: Dim) -> bool:
    return (region.starts[axis] == 0 and region.steps[axis] == 1
            and region.lengths[axis] == size)


def _region(node: Node, axes: list[int | None], out: int) -> bool:
    size = node.outputs[0].type.dims[out]
    return _same_axis(node, axes, out) and _whole(
        node.op.region, out, size)  # type: ignore[attr-defined]


def _reshape(node: Node, axes: list[int | None], out: int) -> bool:
    (axis,) = axes
    before = node.inputs[0].type.dims[:axis]
    return element_count(before) == element_count(node.outputs[0].type.dims[:out])


def _concatenate(node: Node, axes: list[int | None], out: int) -> bool:
    return all(a == out for a in axes) and node.op.axis != out  # type: ignore[attr-defined]


def _along(node: Node, axes: list[int | None], out: int) -> bool:
    return _same_axis(node, axes, out) and node.op.axis != out  # type: ignore[attr-defined]


_CHECKS = {
    Cumulate: _along, LinearRecurrence: _along,
    Elemwise: _same_axis, Broadcast: _broadcast, Reduce: _always, Dot: _dot, Slice: _region,
    Unslice: _region, SetSlice: _region, Transpose: _always, Squeeze: _always,
    Reshape: _reshape, Concatenate: _concatenate, Constant: _always,
}
