"""demand: a loop of whose stacks only the first rows are read takes no more steps than that."""

from __future__ import annotations

from dataclasses import replace as with_fields
from typing import Any

from tinygraph.dims import Dim, dim, nonnegative
from tinygraph.graph import Graph, Node, Value
from tinygraph.ops.views import Slice, axis_region, slice_
from tinygraph.passes.scan_edit import ScanEdit, is_scan
from tinygraph.rewrite.engine import Context, Pass, everywhere, substitute


def _demand(graph: Graph, context: Context) -> Graph:
    # What one loop no longer reads, another no longer has to make: again, until settled.
    while True:
        new = everywhere(graph, context, _demand_here)
        if new.outputs == graph.outputs:
            return graph
        graph = new


def _demand_here(graph: Graph, context: Context) -> Graph:
    readers: dict[Value, list[Node]] = {}
    for node in graph.nodes():
        for x in node.inputs:
            readers.setdefault(x, []).append(node)
    mapping: dict[Value, Any] = {}
    for node in graph.nodes():
        if is_scan(node):
            steps = _steps_read(node, readers, set(graph.outputs))
            if steps is not None:
                mapping.update(_shortened(node, steps, readers, context))
    return substitute(graph, mapping, context)


def _steps_read(node: Node, readers: dict[Value, list[Node]], outputs: set[Value]) -> Dim | None:
    """The number of rows that anyone reads, where it is a number and fewer than all for sure."""
    op: Any = node.op
    if op.until is not None:
        return None
    old = op.groups.outputs(node.outputs)
    if any(v in readers or v in outputs for v in old.carries):
        return None
    most = 0
    for stack in old.stacks:
        if stack in outputs:
            return None
        for reader in readers.get(stack, []):
            if not isinstance(reader.op, Slice):
                return None
            region = reader.op.region
            start, length = region.starts[0].const, region.lengths[0].const
            if start is None or length is None or length == 0:
                return None
            most = max(most, start + 1, start + (length - 1) * region.steps[0] + 1)
    steps = op.n_steps
    # A slice of row k says, by its guard, that there are more than k rows.
    return dim(most) if most and steps != most and not nonnegative(most - steps) else None


def _shortened(node: Node, steps: Dim, readers: dict[Value, list[Node]], context: Context
               ) -> dict[Value, Any]:
    edit = ScanEdit(node)
    edit.op = with_fields(edit.op, n_steps=steps)
    for seq in edit.seqs:
        seq.outer = slice_(seq.outer, axis_region(seq.outer, 0, 0, steps))
    done = edit.build(context.interner)
    old = node.op.groups.outputs(node.outputs)  # type: ignore[attr-defined]
    mapping: dict[Value, Any] = {}
    for stack, new in zip(old.stacks, done.stacks, strict=True):
        for reader in readers.get(stack, []):
            mapping[reader.outputs[0]] = slice_(new, reader.op.region)  # type: ignore
    return mapping


demand = Pass("demand", "scan of n steps, of which rows 0..k are read --> scan of k + 1 steps",
              _demand)
