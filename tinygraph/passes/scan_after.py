"""after: a product whose result reaches no carry is computed behind the loop, for all steps in
one; and the sum over all steps of such products is one product."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from tinygraph.graph import Node, Value
from tinygraph.ops.arithmetic import Reduce, broadcast_to, reduce_
from tinygraph.ops.linalg import Dot, dot_general
from tinygraph.ops.views import Unslice
from tinygraph.ops.windows import Windows
from tinygraph.passes.scan_edit import Lift, ScanEdit, frontier
from tinygraph.rewrite.engine import Context, rule, rule_pass
from tinygraph.rewrite.pattern import made_by, operands
from tinygraph.scan_module.op import Scan


@rule(Scan)
def products_after(node: Node, context: Context) -> list[Any] | None:
    """ys = scan(... y = dot(a, b) for a stack ...) --> a, b = scan(...); ys = dot(as, bs)"""
    edit = ScanEdit(node)
    if edit.op.segments:
        return None
    moving = moving_products(edit)
    tops = [k for k, item in enumerate(edit.stacks) if item in moving]
    if not tops:
        return None
    reads = _read_of_steps(edit, moving)
    # A first lift, over the old rows, says whether every op on the way has a batch rule.
    trial = Lift(edit, {v: _stack_like(v, edit) for v in reads})
    if any(trial.value(edit.stacks[k]) is None for k in tops):
        return None
    items = list(edit.stacks)
    kept = [k for k in range(len(items)) if k not in tops]
    edit.stacks = [items[k] for k in kept]
    places = {v: edit.add_stack(v) for v in reads}
    done = edit.build(context.interner)
    lift = Lift(edit, {v: done.stacks[place] for v, place in places.items()})
    results: list[Any] = [None] * len(items)
    for place, k in enumerate(kept):
        results[k] = done.stacks[place]
    for k in tops:
        lifted = lift.value(items[k])
        assert lifted is not None
        value, batched = lifted
        results[k] = value if batched else broadcast_to(value, (edit.steps, *value.type.dims))
    return [*done.carries, *results]


def _read_of_steps(edit: ScanEdit, moving: dict[Value, None]) -> list[Value]:
    """The values that must be stacked for what moves behind the loop."""
    varying, rows = edit.varying(), {s.param for s in edit.seqs}
    return [v for v in frontier(moving, moving) if v in varying and v not in rows]


def stacked_for_products(edit: ScanEdit, items: Sequence[Value]) -> list[Value]:
    """What the scan will stack in the place of ``items``, when products have left it."""
    moving = moving_products(edit)
    found = dict.fromkeys(v for v in items if v not in moving)
    if any(v in moving for v in items):
        found.update(dict.fromkeys(_read_of_steps(edit, moving)))
    return list(found)


def rows_for_products(edit: ScanEdit, items: Sequence[Value]) -> set[Value]:
    """The rows of sequences that are read behind the loop, when products have left it."""
    moving = moving_products(edit)
    read = {*frontier(moving, moving), *items} if any(v in moving for v in items) else set(items)
    return read & {s.param for s in edit.seqs}


def _stack_like(v: Value, edit: ScanEdit) -> Any:
    return v.result_class()(v.type.with_dims((edit.steps, *v.type.dims)))


def moving_products(edit: ScanEdit) -> dict[Value, None]:
    """Products that reach no carry, and all that is computed from them."""
    reaching: set[Value] = {s.new for s in edit.states}
    for n in reversed(edit.nodes()):
        if any(v in reaching for v in n.outputs):
            reaching.update(n.inputs)
    varying = edit.varying()
    found: dict[Value, None] = {}
    for n in edit.nodes():
        v = n.outputs[0]
        product = isinstance(n.op, Dot) and v in varying
        if v not in reaching and (product or any(x in found for x in n.inputs)):
            found.update(dict.fromkeys(n.outputs))
    found.update(dict.fromkeys(_windows_of(edit, found)))
    return found


def _windows_of(edit: ScanEdit, moving: Container[Value]) -> list[Value]:
    """The windows that moving products read, and the zeros around what is seen through them: they
    are made again behind the loop, since they are larger than what they are made of."""
    varying, found = edit.varying(), dict[Value, None]()
    read = {x for n in edit.nodes() if n.outputs[0] in moving for x in n.inputs}
    for n in reversed(edit.nodes()):
        v = n.outputs[0]
        if v in read and v in varying and v not in moving and (
                isinstance(n.op, Windows) or isinstance(n.op, Unslice) and n.inputs[0] in varying
                and any(made_by(r, Windows) and v in operands(r) for r in found)):
            found[v] = None
            read.update(n.inputs)
    return list(found)


@rule(Reduce)
def sum_of_products(node: Node, context: Context) -> Any:
    """sum over t of dot(a, b)[t] --> dot over t as well, where nothing else reads the terms"""
    op, (x,) = node.op, node.inputs
    assert isinstance(op, Reduce)
    if op.kind != "sum" or x.node is None or not isinstance(x.node.op, Dot):
        return None
    dot, (a, b) = x.node.op, x.node.inputs
    labels = [dot.out[k] for k in op.axes]
    out = tuple(k for k in dot.out if k not in labels)
    only_a = [k for k in labels if k not in dot.b]
    only_b = [k for k in labels if k not in dot.a]
    # A product that is new and sums over steps and rows may have other readers: they are counted
    # in the next round.
    known, long = context.users(x), len({*dot.a} - {*dot.out}) > 1
    if known != 1 and (known is not None or long and (only_a or only_b)):
        return None
    a = reduce_("sum", a, [dot.a.index(k) for k in only_a])
    b = reduce_("sum", b, [dot.b.index(k) for k in only_b])
    return dot_general([k for k in dot.a if k not in only_a],
                       [k for k in dot.b if k not in only_b], out, a, b)


after = rule_pass("after", products_after.doc, (products_after, sum_of_products), rounds=3)
