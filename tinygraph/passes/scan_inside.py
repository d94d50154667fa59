"""inside: what only a loop reads, row by row, is computed in the loop.

A bias that is added to the input products of all steps costs memory for all of them; in the step
it costs nothing.  The same holds for products over so few features that they are a handful of
multiply-adds for each element.

A loop that must not hoist (``hoist`` is False) computes rows of a product in its step even where
another loop reads the product too: then the product need not be kept for it.  This pass runs
after the last one that merges products, so that the row has the bits that the product has.
"""

from __future__ import annotations

from typing import Any

from tinygraph.dims import Dim, dim
from tinygraph.graph import Graph, Node, Value, apply
from tinygraph.ops.arithmetic import Broadcast, Elemwise, broadcast_to
from tinygraph.ops.linalg import Dot, Labels, dot_general
from tinygraph.ops.views import Region, Slice, axis_region, slice_, squeeze
from tinygraph.passes.canonical_views import compose
from tinygraph.passes.scan_edit import Operand, ScanEdit, is_scan
from tinygraph.rewrite.engine import Context, Frame, Pass, everywhere, substitute

FEW = 4  # a product over so few terms is done element by element


def _inside(graph: Graph, context: Context) -> Graph:
    return everywhere(graph, context, _inside_here)


def _inside_here(graph: Graph, context: Context) -> Graph:
    if any(is_scan(n) and not n.op.hoist for n in graph.nodes()):  # type: ignore[attr-defined]
        graph = _moved(graph, context, False)  # first, since others may then be the only readers
    return _moved(graph, context, True)


def _moved(graph: Graph, context: Context, hoist: bool) -> Graph:
    """The graph with rows computed in the steps of the loops that may hoist, or that may not."""
    assert context.frame is not None
    frame = Frame(graph, context.frame.op)
    mapping: dict[Value, Any] = {}
    for node in graph.nodes():
        if is_scan(node) and node.op.hoist is hoist:  # type: ignore[attr-defined]
            edit = ScanEdit(node)
            rows = _Rows(edit, frame)
            moved = {seq.param: row for seq in list(edit.seqs)
                     if (row := rows.of_sequence(seq)) is not None}
            if moved:
                edit.seqs = [seq for seq in edit.seqs if seq.param not in moved]
                edit.substitute(moved)
                done = edit.build(context.interner)
                mapping.update(zip(node.outputs, (*done.carries, *done.stacks), strict=True))
    return substitute(graph, mapping, context)


class _Rows:
    """Rows of outer values, computed in the step of a scan."""

    def __init__(self, edit: ScanEdit, frame: Frame) -> None:
        self.edit, self.frame = edit, frame

    def of_sequence(self, seq: Operand) -> Any:
        """The row of a sequence computed in the step, or None where it must stay a sequence."""
        x, part = seq.outer, None
        if not self.edit.op.hoist:
            row = self.of_product(x)
            if row is not None:
                return row
        if self.frame.users(x) != 1 or x.type.dims[0] != self.edit.steps:
            return None
        if x.node is not None and isinstance(x.node.op, Slice):
            (x,), part = x.node.inputs, x.node.op.region
        made = x.node is not None and (
            isinstance(x.node.op, Elemwise) or few_terms(x.node) is not None)
        return self.row(x, part, top=True) if made else None

    def of_product(self, x: Any) -> Any:
        """The row of a product, or of a part of one, that others read too."""
        part = None
        if x.node is not None and isinstance(x.node.op, Slice):
            (x,), part = x.node.inputs, x.node.op.region
        side = rows_operand(x)
        if side is None or self.frame.users(x) == 1:
            return None
        if few_terms(x.node) is not None:
            return self.row(few_terms(x.node), part, top=True)
        op, operands = x.node.op, list(x.node.inputs)
        if part is not None:
            operands = [slice_(y, _of_operand(part, y, labels, op.out)) for y, labels in
                        zip(operands, (op.a, op.b), strict=True)]
        rows = self.edit.add_seq(operands[side])
        fixed = self.edit.add_const(operands[1 - side])
        labels = (op.a[1:], op.b) if side == 0 else (op.a, op.b[1:])
        pair = (rows, fixed) if side == 0 else (fixed, rows)
        return dot_general(*labels, op.out[1:], *pair)

    def row(self, x: Any, part: Region | None, top: bool = False) -> Any:
        """The row of x, or of x[part]."""
        node = x.node
        alone = top or self.frame.users(x) in (1, None)
        if node is not None and isinstance(node.op, Broadcast):
            return self.broadcast(node, part)
        if node is not None and isinstance(node.op, Elemwise) and alone:
            return apply(node.op, *(self.row(y, part) for y in node.inputs), source=x.source)[0]
        if node is not None and isinstance(node.op, Slice) and alone:
            (y,), region = node.inputs, node.op.region
            if y.node is not None and few_terms(y.node) is not None:
                return self.row(y, compose(region, part) if part else region, top=True)
        total = few_terms(node) if node is not None and alone else None
        if total is not None:
            return self.row(total, part, top=True)
        return self.edit.add_seq(x if part is None else slice_(x, part))

    def broadcast(self, node: Node, part: Region | None) -> Any:
        """A row of a broadcast value; what is the same in all rows is a constant of the loop."""
        (x,), op = node.inputs, node.op
        dims = part.lengths if part is not None else node.outputs[0].type.dims
        if part is not None:
            x = slice_(x, _within(part, x, op.axes))  # type: ignore[attr-defined]
        axes = op.axes  # type: ignore[attr-defined]
        if 0 not in axes:
            return broadcast_to(self.edit.add_const(x), dims[1:], [k - 1 for k in axes])
        if axes[0] == 0 and x.type.dims[0] == dims[0]:
            return broadcast_to(self.edit.add_seq(x), dims[1:], [k - 1 for k in axes[1:]])
        whole = broadcast_to(x, dims, axes)
        return self.edit.add_seq(whole)


def _within(part: Region, x: Value, axes: tuple[int, ...]) -> Region:
    """The part of a value that becomes ``part`` of what it is broadcast to."""
    one = [d == 1 for d in x.type.dims]
    return Region(tuple(dim(0) if single else part.starts[k] for k, single in
                        zip(axes, one, strict=True)),
                  tuple(dim(1) if single else part.lengths[k] for k, single in
                        zip(axes, one, strict=True)),
                  tuple(1 if single else part.steps[k] for k, single in
                        zip(axes, one, strict=True)))


def rows_operand(x: Value) -> int | None:
    """Which operand of the product ``x`` alone has its axis 0."""
    if x.node is None or not isinstance(x.node.op, Dot):
        return None
    op = x.node.op
    label = op.out[0]
    for side, mine, other in ((0, op.a, op.b), (1, op.b, op.a)):
        if mine[0] == label and label not in other:
            return side
    return None


def _of_operand(part: Region, y: Value, labels: Labels, out: Labels) -> Region:
    """The part of an operand of which ``part`` of the product is made."""
    places = [out.index(k) if k in out else None for k in labels]
    return Region(tuple(dim(0) if k is None else part.starts[k] for k in places),
                  tuple(d if k is None else part.lengths[k] for k, d in
                        zip(places, y.type.dims, strict=True)),
                  tuple(1 if k is None else part.steps[k] for k in places))


def few_terms(node: Node) -> Any:
    """A product over at most FEW terms of something with rows and something without, as a sum of
    outer products; else None."""
    if not isinstance(node.op, Dot):
        return None
    op, (x, y) = node.op, node.inputs
    deep = [k for k in op.a if k in op.b and k not in op.out]
    shared = [k for k in op.a if k in op.b and k in op.out]
    if len(deep) != 1 or shared:
        return None
    axis_x, axis_y = op.a.index(deep[0]), op.b.index(deep[0])
    count = x.type.dims[axis_x].const or y.type.dims[axis_y].const
    if count is None or count > FEW:
        return None
    dims, total = node.outputs[0].type.dims, None
    for i in range(count):
        term = (_spread(x, axis_x, i, op.a, op.out, dims)
                * _spread(y, axis_y, i, op.b, op.out, dims))
        total = term if total is None else total + term
    return total


def _spread(x: Any, axis: int, i: int, names: Labels, out: Labels, dims: tuple[Dim, ...]) -> Any:
    """Part i of ``x`` along ``axis``, over the labels ``out``."""
    part = squeeze(slice_(x, axis_region(x, axis, i, 1)), (axis,))
    return broadcast_to(part, dims, [out.index(k) for k in names if k != names[axis]])


inside = Pass("inside", "scan(f(x, y)), f(x, y) read by the scan alone --> the step computes "
              "f(row of x, row of y)", _inside)
