"""join: stacks that are joined behind the loop are stacked as one, where the step joins them
anyway (the gates' gradients for the product of the backward step); and the parts of a product that
are stacked one by one are stacked as the product, which then writes its stack itself."""

from __future__ import annotations

from typing import Any, NamedTuple

from tinygraph.dims import Dim, dim, nonnegative, product
from tinygraph.graph import Graph, Node, Value
from tinygraph.ops.linalg import Dot
from tinygraph.ops.views import Concatenate, Region, Slice, axis_region, slice_
from tinygraph.passes.scan_edit import ScanEdit, is_scan
from tinygraph.rewrite.engine import Context, Pass, everywhere, substitute


class Rows(NamedTuple):
    """Rows start, start + step, ... of the stack of ``item``, made by ``scan``."""

    scan: Node
    item: Value
    start: Dim
    length: Dim
    step: int


def stacked(value: Value) -> Rows | None:
    """``value`` as rows of a stack, if it is that."""
    node = value.node
    start, length, step = dim(0), value.type.dims[0] if value.ndim else dim(0), 1
    if node is not None and isinstance(node.op, Slice):
        region = node.op.region
        if not region.is_rows(node.inputs[0].type.dims):
            return None
        start, length, step = region.starts[0], region.lengths[0], region.steps[0]
        value, node = node.inputs[0], node.inputs[0].node
    if node is None or not is_scan(node):
        return None
    groups, body = node.op.groups, node.op.body  # type: ignore[attr-defined]
    place = value.index - groups.carries
    return Rows(node, body.outputs[value.index], start, length, step) if place >= 0 else None


def _join(graph: Graph, context: Context) -> Graph:
    return everywhere(everywhere(graph, context, _join_here), context, _whole_here)


def _join_here(graph: Graph, context: Context) -> Graph:
    found: dict[Node, list[tuple[Node, list[Rows]]]] = {}
    for node in graph.nodes():
        if isinstance(node.op, Concatenate) and node.op.axis > 0:
            parts = [stacked(x) for x in node.inputs]
            if _one_scan(parts):
                found.setdefault(parts[0].scan, []).append((node, parts))  # type: ignore
    mapping: dict[Value, Any] = {}
    for scan, joined in found.items():
        mapping.update(_joined(scan, joined, context))
    return substitute(graph, mapping, context)


def _one_scan(parts: list[Rows | None]) -> bool:
    first = parts[0]
    return first is not None and all(
        p is not None and p.scan is first.scan and p[2:] == first[2:] for p in parts)


def _joined(scan: Node, joined: list[tuple[Node, list[Rows]]], context: Context
            ) -> dict[Value, Any]:
    edit = ScanEdit(scan)
    inside = {(n.op.axis, n.inputs): n.outputs[0]  # type: ignore[attr-defined]
              for n in edit.nodes() if isinstance(n.op, Concatenate)}
    places = []
    for node, parts in joined:
        axis = node.op.axis  # type: ignore[attr-defined]
        item = inside.get((axis - 1, tuple(x for p in parts for x in _flat(p.item, axis - 1))))
        if item is not None:
            places.append((node, parts[0], edit.add_stack(item)))
    if not places:
        return {}
    done = edit.build(context.interner)
    old = edit.op.groups.outputs(scan.outputs)
    mapping: dict[Value, Any] = dict(zip(old.carries, done.carries, strict=True))
    mapping.update(zip(old.stacks, done.stacks, strict=False))
    for node, rows, place in places:
        stack = done.stacks[place]
        mapping[node.outputs[0]] = slice_(
            stack, axis_region(stack, 0, rows.start, rows.length, rows.step))
        # Whoever reads a part alone reads it there, so that no part is stacked by itself.
        axis = node.op.axis  # type: ignore[attr-defined]
        for alone in (edit.stacks[place].node.inputs, _items(node)):
            start = dim(0)
            for part in alone:
                length = part.type.dims[axis - 1]
                for k, known in enumerate(old.stacks):
                    if edit.stacks[k] is part:
                        mapping[known] = slice_(stack, axis_region(stack, axis, start, length))
                start = start + length
    return mapping


def _items(node: Node) -> list[Value]:
    """What the step stacks as the parts of the concatenation ``node``."""
    return [rows.item for rows in map(stacked, node.inputs) if rows is not None]


def _flat(item: Value, axis: int) -> tuple[Value, ...]:
    """The parts of a concatenation along ``axis``; else the value."""
    node = item.node
    joins = node is not None and isinstance(node.op, Concatenate) and node.op.axis == axis
    return node.inputs if joins and node is not None else (item,)


def _whole_here(graph: Graph, context: Context) -> Graph:
    mapping: dict[Value, Any] = {}
    for node in graph.nodes():
        if is_scan(node):
            mapping.update(_whole(node, context))
    return substitute(graph, mapping, context)


def _whole(scan: Node, context: Context) -> dict[Value, Any]:
    """The stacks of parts of products as parts of their stacks, where these are no larger."""
    edit = ScanEdit(scan)
    parts: dict[Value, list[int]] = {}
    for k, item in enumerate(edit.stacks):
        if item.node is not None and isinstance(item.node.op, Slice):
            (x,) = item.node.inputs
            if x.node is not None and isinstance(x.node.op, Dot):
                parts.setdefault(x, []).append(k)
    places: dict[int, int] = {}
    for x, found in parts.items():
        size = dim(0)
        for item in {edit.stacks[k] for k in found}:
            size = size + product(item.type.dims)
        if nonnegative(size - product(x.type.dims)):
            places.update(dict.fromkeys(found, edit.add_stack(x)))
    if not places:
        return {}
    done, old = edit.build(context.interner), edit.op.groups.outputs(scan.outputs)
    mapping: dict[Value, Any] = dict(zip(old.carries, done.carries, strict=True))
    mapping.update(zip(old.stacks, done.stacks, strict=False))
    for k, place in places.items():
        stack, r = done.stacks[place], edit.stacks[k].node.op.region
        mapping[old.stacks[k]] = slice_(stack, Region(
            (dim(0), *r.starts), (stack.type.dims[0], *r.lengths), (1, *r.steps)))
    return mapping


join = Pass(
    "join", "concatenate(stack(x), stack(y)) --> stack(concatenate(x, y)), where the step has "
    "that concatenation; stack(dot(x, y)[part]) --> stack(dot(x, y))[part]", _join)
