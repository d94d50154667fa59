"""before: a product that reads only sequences and constants is computed before the loop, for all
steps in one: precomputed input products."""

from __future__ import annotations

from typing import Any

from tinygraph.graph import Node, Value
from tinygraph.ops.index import Take
from tinygraph.ops.linalg import Dot
from tinygraph.passes.scan_edit import Lift, ScanEdit
from tinygraph.rewrite.engine import Context, rule, rule_pass
from tinygraph.scan_module.op import Scan


@rule(Scan)
def products_before(node: Node, context: Context) -> list[Any] | None:
    """scan(... dot(x[t], w) ...) --> y = dot(x, w); scan(... y[t] ...)"""
    edit = ScanEdit(node)
    if not edit.op.hoist:
        return None
    carried, varying = edit.varying(seqs=False), edit.varying()
    lift = Lift(edit)
    moved: dict[Value, Any] = {}
    for n in edit.nodes():
        v = n.outputs[0]
        if not isinstance(n.op, Dot) or v in carried or v not in varying:
            continue
        lifted = lift.value(v)
        if lifted is not None and lifted[1]:
            (outer,) = context.intern(lifted[0])
            moved[v] = edit.add_seq(outer)
    if not moved:
        return None
    edit.substitute(moved)
    edit.substitute(_rows_looked_up(edit, lift, context))
    done = edit.build(context.interner)
    return [*done.carries, *done.stacks]


def _rows_looked_up(edit: ScanEdit, lift: Lift, context: Context) -> dict[Value, Any]:
    """Rows of tables that the products needed for all steps, and that the step reads besides (or
    stacks for its gradient): it need not look them up again."""
    found: dict[Value, Any] = {}
    for n in edit.nodes():
        lifted = lift.memo.get(n.outputs[0]) if isinstance(n.op, Take) else None
        if lifted is not None and lifted[1]:
            (outer,) = context.intern(lifted[0])
            found[n.outputs[0]] = edit.add_seq(outer)
    return found


before = rule_pass("before", products_before.doc, (products_before,))
