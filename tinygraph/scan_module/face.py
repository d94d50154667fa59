"""``scan`` as users call it (Theano's contract), desugared to one Scan.

Sequence taps become offset views, output taps -1..-K become K carries of which K-1 are
renamings, ``go_backwards`` a reversed view; what the step reads from outside is found by itself.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygraph.dims import Dim, Sym, dim, minimum
from tinygraph.dtypes import bool_, int64
from tinygraph.errors import MissingInputError
from tinygraph.graph import (
    Graph,
    Node,
    Type,
    Value,
    apply,
    describe,
    kind_name,
    leaves,
    replace,
    toposort,
)
from tinygraph.ops.arithmetic import as_value, constant
from tinygraph.ops.sizes import as_dim
from tinygraph.ops.views import axis_region, reverse, row, slice_
from tinygraph.scan_module.draws import add_default_updates, hand_on
from tinygraph.scan_module.groups import Groups, Inputs, Outputs
from tinygraph.scan_module.op import Scan
from tinygraph.tensor.building import nodes_built
from tinygraph.tensor.elemwise import neq
from tinygraph.tensor.test_values import pass_to_step
from tinygraph.tensor.variable import Tensor
from tinygraph.updates import OrderedUpdates


class until:  # noqa: N801  (the name that users write)
    """A condition, returned by a step beside its outputs: the loop ends after the first step in
    which it is true, and that step's outputs are still part of the result.

    condition: a boolean scalar variable.  Raises TypeError for anything else.
    """

    def __init__(self, condition: Any) -> None:
        if not isinstance(condition, Value):
            raise TypeError(f"until takes a variable, such as until(x > 1), not {condition!r}")
        if condition.ndim != 0:
            raise TypeError(f"until takes a scalar, but {describe(condition)} has "
                            f"{condition.ndim} axes; write until(condition.any()), or index it")
        self.condition = condition if condition.type.dtype is bool_ else neq(condition, 0)


@dataclass
class Recurrence:
    """One output of the step: where it starts and which of its past values the step reads.

    ``states[j]`` is the parameter for tap -(j+1); ``inits[j]`` what it holds at step 0.
    """

    taps: tuple[int, ...] = ()
    states: list[Any] = field(default_factory=list)
    inits: list[Any] = field(default_factory=list)


def scan(fn: Callable[..., Any], sequences: Any = None, outputs_info: Any = None,
         non_sequences: Any = None, n_steps: Any = None, truncate_gradient: int = -1,
         go_backwards: bool = False, mode: Any = None, name: str | None = None,
         profile: bool = False, allow_gc: Any = None, strict: bool = False,
         return_list: bool = False, precompute: bool = True, memory: int | None = None
         ) -> tuple[Any, OrderedUpdates]:
    """Apply ``fn`` step by step along the first axis of ``sequences``.

    fn(*rows, *past outputs, *non_sequences) returns the outputs of one step: a variable or a
    list of them, optionally with updates of shared variables as ``(outputs, updates)``.
    sequences: variables, or dict(input=x, taps=[...]), walked along axis 0 (from the end with
    go_backwards).  outputs_info: per output its initial state (the step then reads its last
    value), dict(initial=x, taps=[...]), or None (the step does not read it).  With taps below -1
    ``initial`` has a leading time axis.  n_steps: an int or integer scalar; without it the
    shortest sequence decides.  truncate_gradient=k: the gradient runs over the last k steps.
    strict: every outer variable that the step reads must be in non_sequences.
    precompute: products of sequences may be computed before the loop (False saves their memory).
    memory: the most bytes that the gradient through this scan keeps, for all steps together (None:
    as many as make it fastest).  It counts what the forward loop stores for the backward loop and
    what that stores for the gradients of weights; not the outputs, gradients of the sequences,
    nor arrays that do not grow with the number of steps.  The price is time: of a recurrent layer
    only the states are kept, and the backward loop computes gates, products too, once more.  A
    state that no product behind the loop reads, such as an LSTM's cell, then costs nothing: its
    rows make place for the gates' gradients.  So far gradients are equal bit for bit to those
    without a budget (not always of stacked layers: gates' gradients that another loop reads lie in
    another order, in which sums round differently).  Where that is too much at the sizes of a
    call, the loop runs in segments: one more run forward, and weights' gradients are added up
    segment by segment, which rounds differently.  The least that can be kept grows with the square
    root of the number of steps; a smaller number of bytes means this least, and a call warns of it
    (UserWarning); 0 asks for it.

    Returns (outputs, updates): each output stacked over time, shape (n_steps, ...), one variable
    or a list of them; updates to pass on to ``function``.

    Raises ValueError where the initial state and the step's output differ in dtype or number of
    axes, where neither sequences nor n_steps are given, where counts do not match, or where
    memory is no number of bytes.
    """
    del mode, profile, allow_gc  # Theano's; the compiler decides by itself
    seqs, rows, length = _sequences(_listed(sequences), go_backwards)
    steps = _n_steps(n_steps, length)
    infos = None if outputs_info is None else _listed(outputs_info)
    recurrences = [_recurrence(info, k) for k, info in enumerate(infos or [])]
    others = [_variable(x) for x in _listed(non_sequences)]
    states = [r.states[-tap - 1] for r in recurrences for tap in r.taps]
    _name_parameters(fn, [*rows, *states])
    pass_to_step(rows, seqs, [s for r in recurrences for s in r.states],
                 [x for r in recurrences for x in r.inits])
    _check_arguments(fn, len(rows), len(states), len(others))
    with nodes_built() as made:
        returned = fn(*rows, *states, *others)
    outputs, updates, ending = _results(returned)
    condition = [] if ending is None else [ending.condition]
    add_default_updates(updates, [*outputs, *condition], made)
    if not outputs and not updates:
        raise ValueError(f"scan: the step {getattr(fn, '__name__', '')} returns {returned!r}, and "
                         "has no updates; it must return its outputs")
    if infos is None:
        recurrences = [Recurrence() for _ in outputs]
    _check_outputs(outputs, recurrences)
    if ending is not None:
        recurrences, outputs = _ending(ending, recurrences, outputs)
    parts = _close_step(rows, recurrences, outputs, updates, made)
    if strict:
        inits = [x for r in recurrences for x in r.inits]
        _check_strict(parts.consts, [*others, *seqs, *inits, *updates])
    most, late = (None, None) if ending is None else (steps, _late_steps(steps, name))
    op = Scan(parts.body, parts.groups, steps if late is None else dim(late), truncate_gradient,
              precompute, memory=_checked_memory(memory), until=most, name=name or "")
    done = op.groups.outputs(apply(op, *seqs, *parts.inits, *parts.consts, cls=Tensor))
    if late is not None:
        late.value = done.carries[1]
        done = Outputs(done.carries, done.stacks[2:])
    finals = done.carries[len(done.carries) - len(updates):]
    new_values = OrderedUpdates(zip(updates, finals, strict=True))
    hand_on(made, new_values)
    stacks = list(done.stacks)
    if not stacks:
        return None, new_values
    single = len(stacks) == 1 and not return_list
    return (stacks[0] if single else stacks), new_values


@dataclass
class Parts:
    """A closed step: its body, and the outer values of its carries and constants."""

    body: Graph
    groups: Groups
    inits: list[Any]
    consts: list[Any]


def _close_step(rows: Sequence[Any], recurrences: Sequence[Recurrence], outputs: Sequence[Any],
                updates: dict[Any, Any], made: Container[Node]) -> Parts:
    """The body of a scan: carries of the outputs, then of updated shared variables; what it reads
    from outside becomes constants."""
    states = [s for r in recurrences for s in r.states]
    news = [v for r, out in zip(recurrences, outputs, strict=True)
            for v in [out, *r.states][:len(r.states)]]
    shared_states = [Tensor(shared.type, name=shared.name) for shared in updates]
    results = replace([*news, *updates.values(), *outputs],
                      dict(zip(updates, shared_states, strict=True)))
    carries = [*states, *shared_states]
    consts = _captured(results, [*rows, *carries], made)
    params = [Tensor(v.type, name=v.name, source=v.source) for v in consts]
    results = replace(results, dict(zip(consts, params, strict=True)))
    inside = Inputs(tuple(rows), tuple(carries), tuple(params))
    outside = Outputs(tuple(results[:len(carries)]), tuple(results[len(carries):]))
    body = Graph((*inside.seqs, *inside.carries, *inside.consts), tuple(results))
    inits = [*(x for r in recurrences for x in r.inits), *updates]
    return Parts(body, Groups.of(inside, outside), inits, consts)


def _ending(ending: until, recurrences: Sequence[Recurrence], outputs: Sequence[Any]
            ) -> tuple[list[Recurrence], list[Any]]:
    """The step with two more carries in front: whether to end, and how many steps there were."""
    flag, count = Tensor(Type(bool_), name="ended"), Tensor(Type(int64), name="steps")
    first = [Recurrence((-1,), [flag], [constant(False, bool_, Tensor)]),
             Recurrence((-1,), [count], [constant(0, int64, Tensor)])]
    return [*first, *recurrences], [ending.condition, count + 1, *outputs]


def _late_steps(most: Dim, name: str | None) -> Sym:
    what = f"scan {name}" if name else "a scan"
    return Sym("steps", f"the number of steps that {what} takes until its condition holds",
               bound=most)


def _listed(x: Any) -> list[Any]:
    if x is None:
        return []
    return list(x) if isinstance(x, (list, tuple)) else [x]


def _variable(x: Any) -> Any:
    return as_value(x, cls=Tensor)


def _sequences(specs: list[Any], go_backwards: bool) -> tuple[list[Any], list[Any], Dim | None]:
    """The sequence operands, the parameter for a row of each, and the shortest length."""
    tapped: list[tuple[Any, tuple[int, ...]]] = []
    for spec in specs:
        taps: Any = spec.get("taps", [0]) if isinstance(spec, dict) else [0]
        x = _variable(spec["input"] if isinstance(spec, dict) else spec)
        if x.ndim == 0:
            raise TypeError(f"scan: sequence {describe(x)} has no axis to walk along; pass it in "
                            "non_sequences")
        taps = (taps,) if isinstance(taps, int) else tuple(taps)
        tapped.append((reverse(x) if go_backwards else x, taps))
    lengths = [x.type.dims[0] - (max(*taps, 0, 0) - min(*taps, 0, 0)) for x, taps in tapped]
    length: Dim | None = None
    for d in lengths:
        length = d if length is None else minimum(length, d)
    seqs, rows = [], []
    for (x, taps), d in zip(tapped, lengths, strict=True):
        for tap in taps:
            seqs.append(slice_(x, axis_region(x, 0, tap - min(*taps, 0, 0), d)))
            rows.append(Tensor(x.type.with_dims(x.type.dims[1:]), name=x.name, source=x.source))
    return seqs, rows, length


def _checked_memory(memory: Any) -> int | None:
    if memory is None:
        return None
    try:
        number = operator.index(memory)
    except TypeError:
        number = -1
    if number < 0 or isinstance(memory, bool):
        raise ValueError(f"scan: memory is {memory!r}; it must be a whole number of bytes, or None "
                         "for no limit")
    return number


def _n_steps(n_steps: Any, length: Dim | None) -> Dim:
    if n_steps is None:
        if length is None:
            raise ValueError("scan: neither sequences nor n_steps is given, so the number of "
                             "steps is unknown; write n_steps=")
        return length
    return as_dim(n_steps)


_KEYS = {"initial", "taps", "inplace", "return_steps"}  # the last two are old, and mean nothing


def _recurrence(info: Any, k: int) -> Recurrence:
    """The carries behind entry k of outputs_info."""
    unknown = [key for key in info if key not in _KEYS] if isinstance(info, dict) else []
    if unknown:
        raise ValueError(f"scan: outputs_info[{k}] has the key {unknown[0]!r}; it may have "
                         "'initial' and 'taps'")
    if info is None or (isinstance(info, dict) and info.get("initial") is None):
        return Recurrence()
    given: Any = info.get("taps", [-1]) if isinstance(info, dict) else [-1]
    taps = (given,) if isinstance(given, int) else tuple(given)
    if any(tap >= 0 for tap in taps):
        raise ValueError(f"scan: outputs_info[{k}] has taps {list(taps)}; an output's taps must "
                         "be negative")
    initial = _variable(info["initial"] if isinstance(info, dict) else info)
    depth = -min(taps)
    if depth == 1:
        inits = [initial]
    else:
        if initial.ndim == 0:
            raise ValueError(f"scan: {describe(initial)} must have a leading axis of {depth} past "
                             f"values for taps {list(taps)}")
        inits = [row(initial, depth - 1 - j) for j in range(depth)]
    states = [Tensor(x.type, name=initial.name, source=initial.source) for x in inits]
    return Recurrence(taps, states, inits)


def _name_parameters(fn: Callable[..., Any], params: Sequence[Value]) -> None:
    """Parameters take the names that the step gives them, for messages and printing."""
    try:
        names = [p.name for p in inspect.signature(fn).parameters.values()
                 if p.kind is not p.VAR_POSITIONAL]
    except (TypeError, ValueError):  # a builtin has no signature
        return
    for param, param_name in zip(params, names, strict=False):
        param.name = param_name


def _check_arguments(fn: Callable[..., Any], rows: int, states: int, others: int) -> None:
    """Raise TypeError where the step takes other arguments than it gets."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # a builtin has no signature
        return
    try:
        signature.bind(*range(rows + states + others))
    except TypeError as error:
        name = getattr(fn, "__name__", repr(fn))
        wanted = ", ".join(repr(p) for p in signature.parameters) or "none"
        raise TypeError(
            f"scan: the step {name} takes the arguments {wanted}, but gets {rows} rows of "
            f"sequences, {states} past outputs and {others} non_sequences, in this order "
            f"({error}); the step reads a past output where outputs_info has an initial state "
            "for it") from None


def _results(returned: Any) -> tuple[list[Any], dict[Any, Any], until | None]:
    """The outputs, the updates and the condition among what the step returned."""
    outputs, updates, ending = returned, None, None
    if isinstance(returned, (tuple, list)) and returned and isinstance(returned[-1], until):
        ending = returned[-1]
        returned = tuple(returned[:-1])
        outputs = returned = returned[0] if len(returned) == 1 else returned
    if _are_updates(returned):
        outputs, updates = [], returned
    elif isinstance(returned, tuple) and len(returned) == 2 and _are_updates(returned[1]):
        outputs, updates = returned
    outputs = [] if outputs is None else _listed(outputs)
    for k, out in enumerate(outputs):
        if _are_updates(out):
            raise ValueError("scan: the step must return (outputs, updates), in this order")
        if not isinstance(out, Value):
            raise ValueError(f"scan: output {k} of the step is {out!r}, not a variable; write "
                             "T.constant(...) for a constant")
    return outputs, dict(updates or {}), ending


def _are_updates(x: Any) -> bool:
    if isinstance(x, dict):
        return True
    pairs = isinstance(x, list) and len(x) > 0
    return pairs and all(isinstance(p, tuple) and len(p) == 2 for p in x)


def _check_outputs(outputs: Sequence[Any], recurrences: Sequence[Recurrence]) -> None:
    if len(outputs) != len(recurrences):
        raise ValueError(f"scan: the step returns {len(outputs)} outputs, but outputs_info has "
                         f"{len(recurrences)} entries; write one per output, None for an output "
                         "that the step does not read")
    for k, (out, recurrence) in enumerate(zip(outputs, recurrences, strict=True)):
        _check_state(k, out, recurrence)


def _check_state(k: int, out: Any, recurrence: Recurrence) -> None:
    if not recurrence.states:
        return
    state = recurrence.states[0]
    if out.type.dtype is state.type.dtype and out.ndim == state.ndim:
        return
    init = recurrence.inits[0]
    if out.type.dtype is not state.type.dtype:
        fix = (f"write initial.astype({out.dtype!r}), or cast the step's output to "
               f"{state.dtype!r}")
    else:
        fix = "give both the same number of axes"
    raise ValueError(
        f"scan: the carry {state.name or k} starts as {kind_name(init.type)} ({describe(init)}), "
        f"but the step returns {kind_name(out.type)} for it ({describe(out)}); {fix}")


def _captured(outputs: Sequence[Value], params: Sequence[Value], made: Container[Node]
              ) -> list[Value]:
    """The outer values that the step reads: the largest expressions without a parameter.
    Constants and sizes are written into the body instead, and so are ops with an effect that
    the step has ``made``."""
    inner = set(params)
    for node in toposort(outputs):
        if (node.op.effect and node in made) or any(v in inner for v in node.inputs):
            inner.update(node.outputs)
    found: dict[Value, None] = {}
    stack = list(reversed(outputs))
    seen: set[Value] = set()
    while stack:
        v = stack.pop()
        if v in seen or v in params:
            continue
        seen.add(v)
        if v not in inner and leaves([v]):
            found[v] = None
        elif v.node is not None:
            stack.extend(reversed(v.node.inputs))
    return list(found)


def _check_strict(consts: Sequence[Value], listed: Sequence[Value]) -> None:
    allowed = set(listed) | set(leaves(listed))
    for v in leaves(consts):
        if v not in allowed:
            raise MissingInputError(f"scan: the step reads {describe(v)}, which is not in "
                                    "non_sequences; list it there, or drop strict=True")
