"""unite: what the gradient asked of a scan joins that scan."""

from __future__ import annotations

from typing import Any

from tinygraph.graph import Graph, Node, Value
from tinygraph.passes.scan_edit import ScanEdit, is_scan
from tinygraph.rewrite.engine import Context, Pass, everywhere, substitute


def _unite(graph: Graph, context: Context) -> Graph:
    return everywhere(graph, context, _unite_here)


def _unite_here(graph: Graph, context: Context) -> Graph:
    families: dict[Any, list[Node]] = {}
    for node in graph.nodes():
        if is_scan(node):
            families.setdefault(_family(node), []).append(node)
    mapping: dict[Value, Value] = {}
    for members in families.values():
        if len(members) > 1 or members[0].op.lazy:  # type: ignore[attr-defined]
            mapping.update(_united(members, context))
    return substitute(graph, mapping, context)


def _family(node: Node) -> Any:
    """Equal for scans that take the same steps: the same operands and the same new carries."""
    op: Any = node.op
    carries = op.groups.outputs(op.body.outputs).carries
    return (node.inputs, op.body.inputs, carries, op.groups.seqs, op.n_steps, op.truncate,
            op.hoist, op.memory)


def _united(members: list[Node], context: Context) -> dict[Value, Value]:
    edit = ScanEdit(members[0])
    edit.make_eager()
    places: list[list[int]] = []
    for node in members:
        op: Any = node.op
        stacks = op.groups.outputs(op.body.outputs).stacks
        places.append([edit.add_stack(item) for item in stacks])
    made = edit.build(context.interner)
    mapping: dict[Value, Value] = {}
    for node, where in zip(members, places, strict=True):
        old = node.op.groups.outputs(node.outputs)  # type: ignore[attr-defined]
        mapping.update(zip(old.carries, made.carries, strict=True))
        mapping.update(zip(old.stacks, (made.stacks[k] for k in where), strict=True))
    return mapping


unite = Pass(
    "unite", "scan(step, x) --> a, and a request for stacks of inner values of scan(step, x) --> "
    "one scan that also stacks those values", _unite)
