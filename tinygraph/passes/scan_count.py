"""count: a carry that counts is worked out from the number of the step.

The state of random draws is such a carry.  As a constant and a sequence it keeps no step waiting
for another, and it has no part in which rows of a batch belong together.
"""

from __future__ import annotations

from typing import Any

from tinygraph.dtypes import int64
from tinygraph.graph import Node, Value, replace
from tinygraph.ops.arithmetic import cast, elementwise
from tinygraph.ops.sizes import iota, size_value
from tinygraph.passes.scan_edit import ScanEdit, State
from tinygraph.rewrite.engine import Context, rule, rule_pass
from tinygraph.rewrite.pattern import fitting, pair
from tinygraph.scan_module.op import Scan


@rule(Scan)
def count_steps(node: Node, context: Context) -> list[Any] | None:
    """scan(c -> c + k), k the same in all steps --> in step t: init + k * t;  the final state is
    init + k * n"""
    edit = ScanEdit(node)
    if edit.op.until is not None:
        return None  # it counts its steps itself, and nobody knows them before
    varying = edit.varying()
    added = {s.param: k for s in edit.states if (k := _added(s, varying)) is not None}
    if not added:
        return None
    outer = dict(zip((c.param for c in edit.consts), (c.outer for c in edit.consts), strict=True))
    ends = dict(zip(added, replace(list(added.values()), outer), strict=True))
    step = edit.add_seq(context.intern(iota(edit.steps, int64))[0])
    old = edit.op.groups.outputs(node.outputs).carries
    inside, finals = {}, {}
    for s, final in zip(edit.states, old, strict=True):
        if s.param in added:
            now = _after(edit.add_const(s.init), added[s.param], step)
            inside[s.param] = fitting(now, s.param)
            end = _after(s.init, ends[s.param], size_value(edit.steps))
            finals[s.param] = fitting(end, final)
    if any(v is None for v in (*inside.values(), *finals.values())):
        return None
    states = edit.states
    edit.states = [s for s in states if s.param not in added]
    if not edit.states and not edit.stacks:
        return [finals[s.param] for s in states]
    edit.substitute(inside)
    done = edit.build(context.interner)
    carries = iter(done.carries)
    return [*(finals[s.param] if s.param in added else next(carries) for s in states),
            *done.stacks]


def _added(state: State, varying: set[Value]) -> Any:
    """k where each step adds k, which is the same in all steps, to an integer state."""
    both = pair(state.new, "add") if state.param.type.dtype.is_int else None
    if both is None or state.param not in both:
        return None
    k = both[1] if both[0] is state.param else both[0]
    return None if k in varying else k


def _after(start: Any, k: Any, steps: Any) -> Any:
    """What is counted after so many steps."""
    counted = elementwise("mul", k, cast(steps, start.type.dtype))
    return elementwise("add", start, counted)


count = rule_pass("count", count_steps.doc, (count_steps,))
