"""invariant: what reads only constants moves out of the loop."""

from __future__ import annotations

from typing import Any

from tinygraph.graph import Node, Value, leaves, replace
from tinygraph.ops.arithmetic import Broadcast
from tinygraph.passes.scan_edit import ScanEdit
from tinygraph.rewrite.engine import Context, rule, rule_pass
from tinygraph.scan_module.op import Scan


@rule(Scan)
def hoist_constants(node: Node, context: Context) -> list[Any] | None:
    """scan(... f(constants) ...) --> c = f(constants); scan(... c ...)"""
    edit = ScanEdit(node)
    moved = _invariant(edit)
    if not moved:
        return None
    outer = dict(zip((c.param for c in edit.consts), (c.outer for c in edit.consts), strict=True))
    fresh = context.intern(*replace(moved, outer))
    edit.substitute({v: edit.add_const(x) for v, x in zip(moved, fresh, strict=True)})
    done = edit.build(context.interner)
    return [*done.carries, *done.stacks]


def _invariant(edit: ScanEdit) -> list[Value]:
    """The largest expressions of constants.  A broadcast stays inside: there it is an index map,
    outside it would be one more operand."""
    varying = edit.varying()
    found: dict[Value, None] = {}
    for v in [v for n in edit.nodes() if n.outputs[0] in varying for v in n.inputs] + [
            v for v in edit.results() if v not in varying]:
        while v.node is not None and isinstance(v.node.op, Broadcast):
            v = v.node.inputs[0]
        if v not in varying and v.node is not None and leaves([v]):
            found[v] = None
    return list(found)


invariant = rule_pass("invariant", hoist_constants.doc, (hoist_constants,))
