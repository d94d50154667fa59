"""stable: forms that neither overflow nor lose digits, in the place of the ones people write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygraph.graph import Node, Value, apply
from tinygraph.ops.arithmetic import Broadcast, Reduce, broadcast_to, elementwise, reduce_
from tinygraph.ops.index import Take
from tinygraph.ops.views import Reshape, Slice, Squeeze, Transpose
from tinygraph.passes.canonical_arithmetic import order_operands
from tinygraph.passes.stable_softmax import RULES as SOFTMAX_RULES
from tinygraph.rewrite.engine import Context, rule, rule_pass
from tinygraph.rewrite.pattern import (
    beside,
    filled,
    fitting,
    is_number,
    made_by,
    operand,
    operands,
    pair,
    under_broadcast,
)


def _negated(x: Any) -> Any:
    inner = operand(x, "neg")
    return inner if inner is not None else -x


def _one_minus(value: Value) -> Any:
    """x where ``value`` is 1 - x, else None."""
    both = pair(value, "sub")
    return both[1] if both and is_number(both[0], 1) else None


def _exponential(x: Value, name: str) -> Any:
    """y where ``x`` is name(y), also where y is stretched after it."""
    spread = made_by(x, Broadcast)
    if spread is None:
        return operand(x, name)
    inner = operand(operands(x)[0], name)
    return None if inner is None else broadcast_to(inner, spread.dims, spread.axes)


# --- sigmoid --------------------------------------------------------------------------------


@rule("div")
def sigmoid_from_exp(node: Node, context: Context) -> Any:
    """x / (1 + exp(-y)) --> x * sigmoid(y);  exp(y) / (1 + exp(y)) --> sigmoid(y)"""
    x, bottom = node.inputs
    e = beside(bottom, "add", 1)
    y = _exponential(e, "exp") if e is not None else None
    if y is None:
        return None
    if x is e:
        return fitting(y.sigmoid(), node.outputs[0])
    out = _negated(y).sigmoid()
    return fitting(out if is_number(x, 1) else x * out, node.outputs[0])


@rule("mul")
def sigmoid_times_exp(node: Node, context: Context) -> Any:
    """sigmoid(x) * exp(-x) --> sigmoid(-x), also where other factors stand between"""
    for a, b in (node.inputs, node.inputs[::-1]):
        y = operand(a, "exp")
        if y is None:
            continue
        replaced = _swap_factor(b, operand(y, "neg"), y, 4)
        if replaced is not None:
            return fitting(replaced, node.outputs[0])
    return None


def _swap_factor(product: Value, x: Any, y: Value, depth: int) -> Any:
    """``product`` with one factor sigmoid(-y) replaced by sigmoid(y); None where it has none."""
    z = operand(product, "sigmoid")
    if z is not None and (z is x or operand(z, "neg") is y):
        return y.sigmoid()  # type: ignore[attr-defined]
    if depth == 0:
        return None
    inner = operand(product, "neg")
    if inner is not None:
        found = _swap_factor(inner, x, y, depth - 1)
        return None if found is None else -found
    for name in ("mul", "div"):
        both = pair(product, name)
        if both is None:
            continue
        found = _swap_factor(both[0], x, y, depth - 1)
        if found is not None:
            return elementwise(name, found, both[1])
        found = _swap_factor(both[1], x, y, depth - 1) if name == "mul" else None
        if found is not None:
            return both[0] * found
    return None


@rule("mul")
def cancel_probability(node: Node, context: Context) -> Any:
    """(x / p) * (p * y) --> x * y, and (x / p - z / q) * (p * q) --> x * q - z * p, where p and
    q may underflow: a sigmoid, 1 - sigmoid, or a part of a softmax"""
    for a, b in (node.inputs, node.inputs[::-1]):
        found = _cancelled(a, b, 4)
        if found is not None:
            return fitting(found, node.outputs[0])
    return None


_ONE = object()
_VIEWS = (Take, Reshape, Slice, Squeeze, Transpose)


def _cancelled(a: Value, b: Value, depth: int) -> Any:
    """a * b, every quotient in the sum ``a`` cancelled against a factor of ``b``; else None."""
    quotient = pair(a, "div")
    if quotient and _is_probability(quotient[1]):
        rest = _without_factor(b, quotient[1], 4)
        if rest is not None:
            return quotient[0] if rest is _ONE else quotient[0] * rest
    if depth == 0:
        return None
    inner = operand(a, "neg")
    if inner is not None:
        found = _cancelled(inner, b, depth - 1)
        return None if found is None else -found
    factors = pair(a, "mul")
    if factors:
        for x, y in (factors, factors[::-1]):
            found = _cancelled(x, b, depth - 1)
            if found is not None:
                return found * y
    for name in ("add", "sub"):
        terms = pair(a, name)
        parts = [_cancelled(t, b, depth - 1) for t in terms or ()]
        if parts and all(p is not None for p in parts):
            return elementwise(name, *parts)
    return None


@rule(Slice)
def quotient_behind_slice(node: Node, context: Context) -> Any:
    """(x / p)[i] --> x[i] / p[i], also within a sum or a product: with a factor p[i] it cancels"""
    (x,) = node.inputs
    return _sliced(x, node.op, 4) if _has_quotient(x, 4) else None


def _has_quotient(x: Value, depth: int) -> bool:
    """Is a quotient by a probability a term or factor of ``x``?"""
    quotient = pair(x, "div")
    if quotient:
        return _is_probability(quotient[1])
    parts = _parts(x) if depth else ()
    return any([_has_quotient(p, depth - 1) for p in parts])


def _parts(x: Value) -> Sequence[Value]:
    for name in ("add", "sub", "mul"):
        both = pair(x, name)
        if both:
            return both
    inner = operand(x, "neg")
    return () if inner is None else (inner,)


def _sliced(x: Any, op: Any, depth: int) -> Any:
    """``op``, a Slice, of ``x``, taken from the operands of sums, products and quotients."""
    other = _one_minus(x)
    parts = pair(x, "div") or _parts(x)
    if not depth or not parts:
        return apply(op, x)[0]
    if other is not None:
        rest = apply(op, other)[0]
        return elementwise("sub", filled(1, rest), rest)
    return elementwise(x.node.op.fn, *(_sliced(p, op, depth - 1) for p in parts))


def _is_probability(p: Value) -> bool:
    other = _one_minus(p)
    if other is not None:
        p = other
    while any(made_by(p, k) for k in _VIEWS):
        p = operands(p)[0]
    top = pair(p, "div")
    return operand(p, "sigmoid") is not None or (
        top is not None and operand(top[0], "exp") is not None)


def _without_factor(product: Value, p: Value, depth: int) -> Any:
    if product is p:
        return _ONE
    both = pair(product, "mul") if depth else None
    for a, b in (both, both[::-1]) if both else ():
        rest = _without_factor(a, p, depth - 1)
        if rest is not None:
            return b if rest is _ONE else rest * b
    return None


# --- logarithm ------------------------------------------------------------------------------


@rule("log")
def log_of_sigmoid(node: Node, context: Context) -> Any:
    """log(sigmoid(x)) --> -softplus(-x);  log(1 - sigmoid(x)) --> -softplus(x)"""
    x = operand(node.inputs[0], "sigmoid")
    if x is not None:
        return -elementwise("softplus", _negated(x))
    other = _one_minus(node.inputs[0])
    x = operand(other, "sigmoid") if other is not None else None
    return fitting(-elementwise("softplus", x), node.outputs[0]) if x is not None else None


@rule("log1p")
def log1p_of(node: Node, context: Context) -> Any:
    """log1p(exp(x)) --> softplus(x);  log1p(-sigmoid(x)) --> -softplus(x)"""
    x = operand(node.inputs[0], "exp")
    if x is not None:
        return elementwise("softplus", x)
    other = operand(node.inputs[0], "neg")
    x = operand(other, "sigmoid") if other is not None else None
    return -elementwise("softplus", x) if x is not None else None


@rule("log")
def log_of_one_plus(node: Node, context: Context) -> Any:
    """log(1 + x) --> log1p(x);  log(1 - x) --> log1p(-x)"""
    x = beside(node.inputs[0], "add", 1)
    if x is None:
        x = _one_minus(node.inputs[0])
        x = None if x is None else _negated(x)
    return fitting(elementwise("log1p", x), node.outputs[0]) if x is not None else None


@rule("sub", "add")
def exp_minus_one(node: Node, context: Context) -> Any:
    """exp(x) - 1 --> expm1(x);  1 - exp(x) --> -expm1(x)"""
    out = node.outputs[0]
    both = pair(out, "sub")
    if both and is_number(both[0], 1):
        x = operand(both[1], "exp")
        return fitting(-elementwise("expm1", x), out) if x is not None else None
    e = both[0] if both and is_number(both[1], 1) else beside(out, "add", -1)
    x = operand(e, "exp") if e is not None else None
    return fitting(elementwise("expm1", x), out) if x is not None else None


@rule("log")
def log_of_exp(node: Node, context: Context) -> Any:
    """log(exp(x)) --> x;  log(exp(x) / s) --> x - log(s), as in the log of a softmax"""
    x = operand(node.inputs[0], "exp")
    if x is not None:
        return x
    quotient = pair(node.inputs[0], "div")
    x = operand(quotient[0], "exp") if quotient else None
    if x is None or quotient is None:
        return None
    return fitting(x - under_broadcast(quotient[1], _log), node.outputs[0])


def _log(x: Any) -> Any:
    return x.log()


@rule("log", "log1p")
def log_of_view(node: Node, context: Context) -> Any:
    """log(p[i]) --> log(p)[i], where log(p) has a better form: p a softmax or a sigmoid;
    log(1 - sigmoid(x)[i]) and log1p(-sigmoid(x)[i]) --> -softplus(x)[i]"""
    views = []
    (x,) = node.inputs
    small = node.op.fn.name == "log1p"  # type: ignore[attr-defined]
    other = operand(x, "neg") if small else _one_minus(x)
    if small and other is None:
        return None
    p: Any = x if other is None else other
    while any(made_by(p, k) for k in _VIEWS):
        views.append(p.node)
        p = operands(p)[0]
    if not views or p.node is None or not _is_probability(p):
        return None
    if other is not None and operand(p, "sigmoid") is None:
        return None
    out = p.log() if other is None else -elementwise("softplus", operand(p, "sigmoid"))
    for view in reversed(views):
        assert view is not None
        out = apply(view.op, out, *view.inputs[1:])[0]
    return out


# --- softmax --------------------------------------------------------------------------------


def _row_maximum(x: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """The largest element along ``axes`` (0 where that is infinite), reduced and spread."""
    top = reduce_("max", x, axes)
    infinite = elementwise("isinf", top)
    top = infinite.switch(filled(0, top), top)
    kept = tuple(k for k in range(x.ndim) if k not in axes)
    return top, broadcast_to(top, x.type.dims, kept)


def _is_shifted(x: Value) -> bool:
    """Is x a difference from a maximum, and so at most 0 (or the infinite case)?"""
    both = pair(x, "sub")
    if both is None:
        return False
    top = both[1]
    while top.node is not None and made_by(top, Reduce) is None:
        switched = top.node.op
        if str(switched) == "switch":
            top = top.node.inputs[2]
        elif isinstance(switched, (Broadcast, Squeeze, Reshape, Transpose)):
            top = top.node.inputs[0]
        else:
            return False
    op = made_by(top, Reduce)
    return op is not None and op.kind == "max"


@rule("log")
def log_of_sum_of_exp(node: Node, context: Context) -> Any:
    """log(sum(exp(x))) --> m + log(sum(exp(x - m))), where m is the maximum of x"""
    total = made_by(node.inputs[0], Reduce)
    x = operand(operands(node.inputs[0])[0], "exp") if total is not None else None
    if total is None or total.kind != "sum" or x is None or _is_shifted(x):
        return None
    top, spread = _row_maximum(x, total.axes)
    return fitting(top + reduce_("sum", (x - spread).exp(), total.axes).log(), node.outputs[0])


@rule("div")
def softmax_shifted(node: Node, context: Context) -> Any:
    """exp(x) / sum(exp(x)) --> exp(x - m) / sum(exp(x - m)), where m is the maximum of x"""
    e, bottom = node.inputs
    x, spread = operand(e, "exp"), made_by(bottom, Broadcast)
    if x is None or spread is None or _is_shifted(x):
        return None
    total = made_by(operands(bottom)[0], Reduce)
    if total is None or total.kind != "sum" or operands(operands(bottom)[0])[0] is not e:
        return None
    shifted = (x - _row_maximum(x, total.axes)[1]).exp()
    sums = reduce_("sum", shifted, total.axes)
    return fitting(shifted / broadcast_to(sums, spread.dims, spread.axes), node.outputs[0])


RULES = (
    quotient_behind_slice, sigmoid_from_exp, sigmoid_times_exp, cancel_probability, log_of_sigmoid,
    log1p_of, log_of_exp, log_of_view, log_of_sum_of_exp, log_of_one_plus, exp_minus_one,
    softmax_shifted, *SOFTMAX_RULES, order_operands)

stable = rule_pass(
    "stable", "1 / (1 + exp(-x)) --> sigmoid(x), log(1 + exp(x)) --> softplus(x), and the like",
    RULES)
