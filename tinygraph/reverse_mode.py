"""Reverse-mode differentiation: grad, Lop, Rop, grad_clip and friends.

Knows no op: every rule stands in ``Op.vjp``.  A gradient of None means no dependence.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tinygraph.config import config
from tinygraph.dtypes import dtype
from tinygraph.errors import DisconnectedInputError, NotDifferentiableError, NotScalarError
from tinygraph.graph import Node, Value, apply, describe, kind_name, toposort, with_source
from tinygraph.ops.arithmetic import as_value, full
from tinygraph.ops.control import (
    Disconnected,
    GradClip,
    GradScale,
    NotDifferentiable,
    Stop,
    Undefined,
)


def grad(cost: Value | None, wrt: Any, consider_constant: Iterable[Value] | None = None,
         disconnected_inputs: str = "raise", add_names: bool = True,
         known_grads: Mapping[Value, Any] | None = None, return_disconnected: str = "zero") -> Any:
    """The gradient of the scalar ``cost`` with respect to one variable, or a list of them.

    wrt: a variable (also an intermediate one), or a list or tuple; the result has its form, each
    gradient the shape of its variable.  consider_constant: variables through which the gradient
    is zero.  disconnected_inputs: 'raise', 'warn' or 'ignore' where the cost does not depend on
    a variable; 'ignore' gives zeros, or None with return_disconnected='None'.  known_grads: the
    gradient of given variables, added to what flows from ``cost`` (which may be None then).

    Raises NotScalarError (a TypeError) if the cost is not a scalar, DisconnectedInputError (a
    ValueError) where a path is cut.
    """
    many = isinstance(wrt, (list, tuple))
    variables = list(wrt) if many else [wrt]
    for v in variables:
        if not isinstance(v, Value):
            raise TypeError(f"wrt must hold variables, not {v!r}")
    seeds = _seeds(cost, known_grads)
    sweep = Sweep(seeds, variables, frozenset(consider_constant or ()))
    grads = [
        sweep.gradient(v) if sweep.gradient(v) is not None
        else _disconnected(sweep, v, disconnected_inputs, return_disconnected)
        for v in variables]
    if add_names:
        for v, g in zip(variables, grads, strict=True):
            if isinstance(g, Value) and g.name is None and v.name:
                g.name = f"grad({getattr(cost, 'name', None) or 'cost'}, {v.name})"
    if not many:
        return grads[0]
    return tuple(grads) if isinstance(wrt, tuple) else grads


def _seeds(cost: Value | None, known: Mapping[Value, Any] | None) -> dict[Value, Any]:
    seeds: dict[Value, Any] = {}
    if cost is None and not known:
        raise ValueError("grad needs a cost, or known_grads")
    if cost is not None:
        if not isinstance(cost, Value):
            raise TypeError(f"the cost must be a variable, not {cost!r}")
        if cost.ndim != 0:
            raise NotScalarError(f"the cost must be a scalar, but {describe(cost)} is a "
                                 f"{kind_name(cost.type)}; write T.mean(cost) or T.sum(cost)")
        kind = cost.type.dtype if cost.type.dtype.is_float else dtype(config.floatX)
        seeds[cost] = full(1, (), kind, cls=cost.result_class())
    for v, g in (known or {}).items():
        g = as_value(g, v)
        if not g.type.dtype.is_float:
            raise TypeError(f"the known gradient of {describe(v)} must be a float, not "
                            f"{g.type.dtype}")
        seeds[v] = seeds[v] + g if v in seeds else g
    return seeds


def _disconnected(sweep: Sweep, v: Value, policy: str, result: str) -> Any:
    if result.lower() not in ("zero", "none", "disconnected"):
        raise ValueError(f"return_disconnected is {result!r}; it must be 'zero', 'None' or "
                         "'Disconnected'")
    if policy not in ("raise", "warn", "ignore"):
        raise ValueError(f"disconnected_inputs is {policy!r}; it must be 'raise', 'warn' or "
                         "'ignore'")
    if policy != "ignore":
        message = sweep.explain(v)
        if policy == "raise":
            raise DisconnectedInputError(message)
        warnings.warn(message, stacklevel=3)
    if result.lower() != "zero":
        return None if result.lower() == "none" else Disconnected()
    return as_value(v).zeros()


class Sweep:
    """One reverse sweep: cotangents of ``seeds`` carried back to ``wrt``."""

    def __init__(self, seeds: Mapping[Value, Any], wrt: Sequence[Value],
                 constant: frozenset[Value] = frozenset(),
                 ends: frozenset[Value] = frozenset()) -> None:
        self.seeds, self.constant = seeds, constant
        self.cotangents: dict[Value, Any] = {}
        self.cuts: dict[Node, Value] = {}
        self.order = toposort(seeds, stop=ends)
        self.reached = self._reached(set(wrt))
        self._run()

    def _reached(self, wrt: set[Value]) -> set[Value]:
        """Every value that depends on one of ``wrt``."""
        reached = set(wrt)
        for node in self.order:
            if any(v in reached for v in node.inputs):
                reached.update(node.outputs)
        return reached

    def _run(self) -> None:
        for v, g in self.seeds.items():
            self._add(v, g)
        for node in reversed(self.order):
            if not any(v in self.reached for v in node.inputs):
                continue
            incoming = [self._incoming(v) for v in node.outputs]
            if all(g is None for g in incoming):
                continue
            pulled = with_source(node.outputs[0].source, node.op.vjp, node, incoming)
            for v, g in zip(node.inputs, pulled, strict=True):
                if v not in self.reached:
                    continue
                if isinstance(g, NotDifferentiable):
                    raise NotDifferentiableError(g.reason)
                if g is None:
                    self.cuts[node] = v
                else:
                    self._add(v, g)

    def _incoming(self, v: Value) -> Any:
        g = self.cotangents.get(v)
        return g.zeros() if g is not None and v in self.constant else g

    def _add(self, v: Value, g: Any) -> None:
        old = self.cotangents.get(v)
        self.cotangents[v] = g if old is None else old + g

    def gradient(self, v: Value) -> Any:
        """The gradient of ``v``, or None if nothing came through."""
        return self.cotangents.get(v)

    def explain(self, v: Value) -> str:
        """Why no gradient reaches ``v``: where the path is cut."""
        names = ", ".join(describe(s) for s in self.seeds)
        downstream = Sweep.__new__(Sweep)
        downstream.order = self.order
        reached = downstream._reached({v})
        cuts = [n for n in self.cuts if any(x in reached for x in n.inputs)]
        if not any(s in reached for s in self.seeds):
            fact = f"{names} does not depend on {describe(v)}"
            fact += " (its shape alone may be used, which carries no gradient)"
        elif cuts:
            at = cuts[-1]
            where = f" at {at.outputs[0].source}" if at.outputs[0].source else ""
            fact = f"the path from {describe(v)} to {names} is cut by {at.op}{where}"
        else:
            fact = f"no gradient flows from {names} to {describe(v)}"
        return (f"{fact}. Pass disconnected_inputs='ignore' to get zeros, or drop it from wrt.")


def backpropagate(outputs: Sequence[Value], cotangents: Sequence[Any], wrt: Sequence[Value]
                  ) -> list[Any]:
    """Cotangents of ``wrt`` from those of ``outputs`` (None: no cotangent; no dependence)."""
    seeds: dict[Value, Any] = {}
    for v, g in zip(outputs, cotangents, strict=True):
        if g is not None:
            seeds[v] = seeds[v] + g if v in seeds else g
    sweep = Sweep(seeds, wrt)
    return [sweep.gradient(v) for v in wrt]


def Lop(f: Any, wrt: Any, eval_points: Any, consider_constant: Iterable[Value] | None = None,
        disconnected_inputs: str = "raise") -> Any:
    """eval_points^T J: the vector-Jacobian product of ``f`` (a variable or list of them, with
    eval_points of the same shapes) with respect to ``wrt``."""
    outs = list(f) if isinstance(f, (list, tuple)) else [f]
    points = list(eval_points) if isinstance(eval_points, (list, tuple)) else [eval_points]
    return grad(None, wrt, consider_constant, disconnected_inputs,
                known_grads=dict(zip(outs, points, strict=True)))


def Rop(f: Any, wrt: Any, eval_points: Any) -> Any:
    """J eval_points: the Jacobian-vector product of ``f`` with respect to ``wrt``, as the
    gradient of the vector-Jacobian product, which is linear in its vector (Townsend 2017)."""
    many = isinstance(f, (list, tuple))
    outs = list(f) if many else [f]
    inputs = list(wrt) if isinstance(wrt, (list, tuple)) else [wrt]
    points = list(eval_points) if isinstance(eval_points, (list, tuple)) else [eval_points]
    vectors = [as_value(v).zeros() for v in outs]
    pulled = backpropagate(outs, vectors, inputs)
    pairs = [(p, as_value(e)) for p, e in zip(pulled, points, strict=True) if p is not None]
    pushed = backpropagate([p for p, _ in pairs], [e for _, e in pairs], vectors)
    result = [as_value(v).zeros() if g is None else g for v, g in zip(outs, pushed, strict=True)]
    return result if many else result[0]


class DisconnectedType:
    """``DisconnectedType()()`` in the list that ``grad`` of a user's op returns says that the op
    does not depend on that input."""

    def __call__(self) -> Disconnected:
        return Disconnected()


NullTypeGradError = NotDifferentiableError


def grad_not_implemented(op: Any, x_pos: int, x: Value, comment: str = "") -> NotDifferentiable:
    """For the list that ``grad`` of a user's op returns: nobody has written the gradient of
    ``op`` by its input number ``x_pos``, ``x``.  Who needs it gets a NotDifferentiableError."""
    return NotDifferentiable(_without(op, x_pos, x, "is not implemented", comment))


def grad_undefined(op: Any, x_pos: int, x: Value, comment: str = "") -> NotDifferentiable:
    """As ``grad_not_implemented``, where there is no such gradient in mathematics."""
    return NotDifferentiable(_without(op, x_pos, x, "is undefined", comment))


def _without(op: Any, x_pos: int, x: Value, fact: str, comment: str) -> str:
    more = f": {comment}" if comment else ""
    return f"the gradient of {op} by its input {x_pos}, {describe(x)}, {fact}{more}"


def grad_clip(x: Any, lower_bound: float, upper_bound: float) -> Any:
    """``x`` itself, but the gradient that comes back through it is clipped to
    [lower_bound, upper_bound] element by element (Graves 2013, arXiv:1308.0850, p. 6)."""
    return apply(GradClip(float(lower_bound), float(upper_bound)), as_value(x))[0]


def disconnected_grad(x: Any) -> Any:
    """``x`` itself, but no gradient comes back: a cost that depends on a variable through it
    alone is disconnected from that variable."""
    return apply(Stop("disconnected"), as_value(x))[0]


def zero_grad(x: Any) -> Any:
    """``x`` itself, but the gradient that comes back is zero."""
    return apply(Stop("zero"), as_value(x))[0]


def consider_constant(x: Any) -> Any:
    """``x`` itself, taken for a constant by the gradient: zero comes back."""
    return apply(Stop("zero"), as_value(x))[0]


def grad_scale(x: Any, multiplier: float) -> Any:
    """``x`` itself, but the gradient that comes back is multiplied by ``multiplier``; by -1 it
    is reversed (Ganin 2015, arXiv:1409.7495)."""
    return apply(GradScale(float(multiplier)), as_value(x))[0]


def undefined_grad(x: Any) -> Any:
    """``x`` itself, but a gradient that would come back through it is a NotDifferentiableError."""
    x = as_value(x)
    return apply(Undefined(f"a gradient would pass undefined_grad of {describe(x)}"), x)[0]


def subgraph_grad(wrt: Sequence[Value], end: Sequence[Value],
                  start: Mapping[Value, Any] | None = None, cost: Value | None = None,
                  details: bool = False) -> tuple[Any, ...]:
    """Gradients of a part of a graph, between ``end`` and where the gradient comes in.

    Takes ``start``, the gradients of some variables, or a scalar ``cost``, or both, which add up;
    ``end`` variables count as given, so that what is computed from them is not differentiated
    further.  Returns the gradients of ``wrt`` and of ``end``, two lists; with ``details`` also what
    start and what cost alone give to ``wrt`` (None where it is not given).

    Raises ValueError where neither is given, and what ``grad`` raises.
    """
    if not start and cost is None:
        raise ValueError("subgraph_grad needs a start, or a cost")
    order = [*wrt, *end]
    parts = [None if not given and source is None else _between(order, list(end), given, source)
             for given, source in ((start, None), (None, cost))]
    sums = [None if not known else sum(known[1:], known[0]) for known in
            ([p[k] for p in parts if p is not None and p[k] is not None]
             for k in range(len(order)))]
    out = [as_value(v).zeros() if g is None else g for v, g in zip(order, sums, strict=True)]
    both = out[:len(wrt)], out[len(wrt):]
    if not details:
        return both
    return (*both, *(None if p is None else p[:len(wrt)] for p in parts))


def _between(order: Sequence[Value], end: Sequence[Value], start: Mapping[Value, Any] | None,
             cost: Value | None) -> list[Any]:
    """The gradient of each of ``order``, not carried on behind ``end``."""
    sweep = Sweep(_seeds(cost, start), order, ends=frozenset(end))
    return [sweep.gradient(v) for v in order]
