"""The gradient of a scan: the vjp of its body, run backwards.  Nothing is stored here: what the
backward step reads of the forward pass is asked for by one lazy scan, which passes *unite* and
*saved* answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygraph.config import config
from tinygraph.dims import Dim, dim, minimum
from tinygraph.graph import Graph, Node, Value, apply, replace, toposort
from tinygraph.late import late_symbols
from tinygraph.ops.arithmetic import broadcast_to, elementwise, reduce_
from tinygraph.ops.sizes import size_value
from tinygraph.ops.views import axis_region, slice_, unslice
from tinygraph.reverse_mode import backpropagate
from tinygraph.scan_module.groups import Groups, Inputs, Outputs


def scan_vjp(node: Node, op: Any, cotangents: Sequence[Any]) -> list[Any]:
    """Cotangents of the operands of a scan from those of its results."""
    given = op.groups.inputs(node.inputs)
    params = op.groups.inputs(op.body.inputs)
    step = BackwardStep(op, op.groups.outputs(cotangents))
    back = _run_backwards(node, op, step)
    grads: dict[Value, Any] = {}
    for p, stack in back.rows.items():
        if p in params.consts:
            grads[p] = reduce_("sum", stack, (0,))
        else:
            seq = given.seqs[params.seqs.index(p)]
            region = axis_region(seq, 0, op.n_steps - 1, back.n_steps, -1)
            grads[p] = unslice(stack, seq.type.dims, region)
    grads.update(back.finals)
    return [grads.get(p) for p in op.body.inputs]


class BackwardStep:
    """The body's vjp: from cotangents of its outputs to those of its inputs.

    ``carry_in``  per active carry, the parameter that holds its cotangent (None: inactive)
    ``stack_in``  per stack, the parameter that holds its row's cotangent (None: no cotangent)
    ``grads``     per body input, the cotangent that the step computes (None: no dependence)
    """

    def __init__(self, op: Any, given: Outputs) -> None:
        self.given = given
        params = op.groups.inputs(op.body.inputs)
        self.stack_in = [None if g is None else _param_like(g, row=True) for g in given.stacks]
        floats = [p for p in op.body.inputs if p.type.dtype.is_float]
        # Whole numbers, such as a count of steps, have no gradient.
        active = [g is not None and p.type.dtype.is_float
                  for g, p in zip(given.carries, params.carries, strict=True)]
        while True:
            self.carry_in = [_param_like(p) if on else None
                             for p, on in zip(params.carries, active, strict=True)]
            with config.change(compute_test_value="off"):
                found = backpropagate(op.body.outputs, [*self.carry_in, *self.stack_in],
                                      floats)
            self.grads = dict(zip(floats, found, strict=True))
            reached = [on or self.grads.get(p) is not None
                       for p, on in zip(params.carries, active, strict=True)]
            if reached == active:
                break
            active = reached


def _param_like(x: Value, row: bool = False) -> Any:
    type_ = x.type.with_dims(x.type.dims[1:]) if row else x.type
    return x.result_class()(type_)


class Backwards:
    """The results of the backward scan: cotangents of initial states, and stacked rows of the
    cotangents of sequences and constants, last step first."""

    def __init__(self, n_steps: Dim) -> None:
        self.n_steps = n_steps
        self.finals: dict[Value, Any] = {}
        self.rows: dict[Value, Any] = {}


def _run_backwards(node: Node, op: Any, step: BackwardStep) -> Backwards:
    params = op.groups.inputs(op.body.inputs)
    n_back = op.n_steps if op.truncate < 0 else minimum(op.n_steps, dim(op.truncate))
    rows = [p for p in (*params.seqs, *params.consts) if step.grads.get(p) is not None]
    active = [i for i, p in enumerate(step.carry_in) if p is not None]
    wanted = [step.grads[params.carries[i]] if step.grads.get(params.carries[i]) is not None
              else step.carry_in[i].zeros() for i in active]  # type: ignore[union-attr]
    inits = [step.given.carries[i] if step.given.carries[i] is not None
             else node.inputs[op.groups.seqs + i].zeros() for i in active]  # type: ignore
    outputs = [*wanted, *(step.grads[p] for p in rows)]
    cotangent_params = [p for p in (*step.carry_in, *step.stack_in) if p is not None]
    reads = forward_reads(op, outputs, cotangent_params)
    seqs, items = _sequences(node, op, step, reads, n_back)
    consts = [p for p in params.consts if p in reads]
    given_consts = [node.inputs[op.body.inputs.index(p)] for p in consts]
    carries = tuple(step.carry_in[i] for i in active)
    inside = Inputs(tuple(items.values()), carries, tuple(_param_like(p) for p in consts))
    memo = {**items, **dict(zip(consts, inside.consts, strict=True))}
    outputs = replace(outputs, memo)
    results = Outputs(tuple(outputs[:len(active)]), tuple(outputs[len(active):]))
    body = Graph((*inside.seqs, *inside.carries, *inside.consts), tuple(outputs))
    backward = type(op)(body, Groups.of(inside, results), n_back,
                       hoist=op.hoist, memory=op.memory, name=f"{op.name} backwards".strip())
    done = backward.groups.outputs(apply(
        backward, *seqs, *inits, *given_consts, cls=node.outputs[0].result_class()))
    out = Backwards(n_back)
    out.rows = dict(zip(rows, done.stacks, strict=True))
    for i, g in zip(active, done.carries, strict=True):
        out.finals[params.carries[i]] = _truncated(g, op)
    return out


def _truncated(g: Any, op: Any) -> Any:
    """The cotangent of an initial state: zero where truncation stops before the first step."""
    if op.truncate < 0:
        return g
    whole = elementwise("le", size_value(op.n_steps, g.result_class()), op.truncate)
    return broadcast_to(whole, g.type.dims).switch(g, 0)


def _sequences(node: Node, op: Any, step: BackwardStep, reads: list[Value], n_back: Dim
               ) -> tuple[list[Any], dict[Value, Any]]:
    """The sequences of the backward scan, and the parameter that stands for each in its body."""
    params = op.groups.inputs(op.body.inputs)
    seqs: list[Any] = []
    items: dict[Value, Any] = {}

    def backwards(x: Value) -> Any:
        return slice_(x, axis_region(x, 0, op.n_steps - 1, n_back, -1))

    for p, g in zip(step.stack_in, step.given.stacks, strict=True):
        if p is not None:
            seqs.append(backwards(g))
            items[p] = p
    asked = [v for v in reads if v not in params.seqs and v not in params.consts]
    for v, stack in zip(asked, ask_for(node, op, asked), strict=True):
        seqs.append(backwards(stack))
        items[v] = _param_like(v)
    for p in params.seqs:
        if p in reads:
            seqs.append(backwards(node.inputs[op.body.inputs.index(p)]))
            items[p] = _param_like(p)
    return seqs, items


def ask_for(node: Node, op: Any, values: Sequence[Value]) -> tuple[Any, ...]:
    """The stacks over time of inner values of a scan, as one lazy scan."""
    if not values:
        return ()
    carries = op.groups.outputs(op.body.outputs).carries
    body = Graph(op.body.inputs, (*carries, *values))
    groups = Groups(op.groups.seqs, op.groups.carries, op.groups.consts, len(values))
    lazy = type(op)(body, groups, op.n_steps, op.truncate, op.hoist, lazy=True,
                    memory=op.memory, until=op.until, name=op.name)
    return groups.outputs(apply(lazy, *node.inputs)).stacks


def forward_reads(op: Any, outputs: Sequence[Value], cotangents: Sequence[Value]) -> list[Value]:
    """The values of the forward body that the backward step reads.

    What it builds from them alone (1 - h*h), and what depends on constants alone, is computed
    again in the backward step, so that only values of the forward body are asked for.  So is what
    has another size in every step: such rows make no stack.
    """
    ragged = late_symbols(op.body)
    forward = set(op.body.inputs)
    varying = set(op.groups.inputs(op.body.inputs).seqs) | set(
        op.groups.inputs(op.body.inputs).carries)
    for n in toposort(op.body.outputs):
        forward.update(n.outputs)
        if any(v in varying for v in n.inputs):
            varying.update(n.outputs)
    found: dict[Value, None] = {}
    seen: set[Value] = set()
    stack = list(reversed(outputs))
    ignore = set(cotangents)
    while stack:
        v = stack.pop()
        if v in seen or v in ignore:
            continue
        seen.add(v)
        stackable = not ragged or all(ragged.isdisjoint(d.syms()) for d in v.type.dims)
        if v in forward and (v.node is None or (v in varying and stackable)):
            found[v] = None
        elif v.node is not None:
            stack.extend(reversed(v.node.inputs))
    return list(found)


