"""first: what enters a loop at its first step alone belongs into the initial state.

The gradient of a loss of the last state comes as a sequence that is zero but for one row, which
the backward loop adds to its carry at every step.
"""

from __future__ import annotations

from typing import Any

from tinygraph.dims import dim
from tinygraph.graph import Graph, Node, Value
from tinygraph.ops.arithmetic import Elemwise
from tinygraph.ops.views import Slice, Unslice, axis_region, slice_, squeeze
from tinygraph.passes.scan_edit import ScanEdit, State, is_scan
from tinygraph.rewrite.engine import Context, Pass, everywhere, substitute


def _first(graph: Graph, context: Context) -> Graph:
    return everywhere(graph, context, _first_here)


def _first_here(graph: Graph, context: Context) -> Graph:
    mapping: dict[Value, Any] = {}
    for node in graph.nodes():
        if is_scan(node):
            edit = ScanEdit(node)
            if _moved(edit):
                done = edit.build(context.interner)
                new = (*done.carries, *done.stacks)
                mapping.update(zip(node.outputs, new, strict=True))
    return substitute(graph, mapping, context)


def _moved(edit: ScanEdit) -> bool:
    """Add first rows to initial states, wherever that can be done."""
    readers: dict[Value, list[Node]] = {}
    for inner in edit.nodes():
        for x in inner.inputs:
            readers.setdefault(x, []).append(inner)
    handed_out = set(edit.results())
    mapping: dict[Value, Any] = {}
    for seq in edit.seqs:
        row, state = _first_row(seq.outer), None
        if row is not None and seq.param not in handed_out:
            state = _added_to(seq.param, readers, edit.states, handed_out)
        if state is not None:
            (total,) = readers[seq.param]
            mapping[total.outputs[0]] = state.param
            state.init = state.init + row
    if mapping:
        edit.substitute(mapping)
    return bool(mapping)


def _first_row(x: Value) -> Any:
    """The first row of a sequence that is zero in all others, or None."""
    if x.node is not None and isinstance(x.node.op, Slice):
        inside, part = x.node.inputs[0], x.node.op.region
        row = _first_row(inside) if part.starts[0] == 0 and part.steps[0] == 1 else None
        whole = all(s == 0 and n == d and k == 1 for s, n, d, k in zip(
            part.starts[1:], part.lengths[1:], inside.type.dims[1:], part.steps[1:], strict=True))
        return row if whole and part.lengths[0] != 0 else None
    if x.node is None or not isinstance(x.node.op, Unslice):
        return None
    (inside,), part = x.node.inputs, x.node.op.region
    if part.starts[0] != 0 or part.lengths[0] != 1 or inside.type.dims[1:] != x.type.dims[1:]:
        return None
    return squeeze(slice_(inside, axis_region(inside, 0, 0, dim(1))), (0,))


def _added_to(param: Value, readers: dict[Value, list[Node]], states: list[State],
              handed_out: set[Any]) -> State | None:
    """The state to which ``param`` is added, if both are read by that sum alone."""
    found = readers.get(param, [])
    if len(found) != 1 or not isinstance(found[0].op, Elemwise) or found[0].op.fn.name != "add":
        return None
    (total,) = found
    other = total.inputs[1] if total.inputs[0] is param else total.inputs[0]
    for state in states:
        if state.param is other and state.param not in handed_out and len(readers[other]) == 1:
            return state
    return None


first = Pass("first", "scan(carry + rows), where rows is zero but for its first --> the first "
             "row joins the initial state", _first)
