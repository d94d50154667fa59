"""accumulate: the sum over a stack that nothing else reads becomes a carry: no stack is kept.

Where each step sums over other axes as well, the carry adds up what it sums, element by element,
and the loop is followed by one sum over those axes: so the rows of a batch stay independent of
one another in the loop, and it can be cut into tiles of rows.
"""

from __future__ import annotations

from typing import Any

from tinygraph.graph import Graph, Node, Value
from tinygraph.ops.arithmetic import Reduce, full, reduce_
from tinygraph.passes.scan_edit import ScanEdit, State, summed_stacks
from tinygraph.rewrite.engine import Context, Pass, everywhere, substitute


def _accumulate(graph: Graph, context: Context) -> Graph:
    return everywhere(graph, context, _accumulate_here)


def _accumulate_here(graph: Graph, context: Context) -> Graph:
    mapping: dict[Value, Value] = {}
    for scan, found in summed_stacks(graph, context).items():
        mapping.update(_with_sums(scan, found, context))
    return substitute(graph, mapping, context)


def _with_sums(scan: Node, found: list[tuple[Node, int]], context: Context) -> dict[Value, Any]:
    edit, later = ScanEdit(scan), list[list[int]]()
    old = edit.op.groups.outputs(scan.outputs)
    for node, place in found:
        item, axes = edit.stacks[place], [k - 1 for k in node.op.axes if k > 0]  # type: ignore
        if item.node is not None and _is_sum(item.node) and not axes:
            axes, item = list(item.node.op.axes), item.node.inputs[0]
        later.append(axes)
        zeros = full(0, item.type.dims, item.type.dtype)
        param = item.result_class()(item.type)
        edit.states.append(State(zeros, param, param + item))
    gone = {place for _, place in found}
    kept = [k for k in range(len(edit.stacks)) if k not in gone]
    edit.stacks = [edit.stacks[k] for k in kept]
    done = edit.build(context.interner)
    mapping: dict[Value, Any] = dict(zip(old.carries, done.carries, strict=False))
    mapping.update((old.stacks[k], done.stacks[j]) for j, k in enumerate(kept))
    totals = done.carries[len(old.carries):]
    for (node, _), total, axes in zip(found, totals, later, strict=True):
        mapping[node.outputs[0]] = reduce_("sum", total, axes) if axes else total
    return mapping


def _is_sum(node: Node) -> bool:
    return isinstance(node.op, Reduce) and node.op.kind == "sum"


accumulate = Pass(
    "accumulate", "sum over t of stack(y) --> the final state of a carry acc + y", _accumulate)
