"""Rules of ``stable`` about the gradient of a loss that takes the logarithm of a softmax.

With p = e / s, where e = exp(x) and s is its sum, the gradient of log(p) divides by p and that of
the softmax multiplies by it again, or by e after a division by s.  Where p has underflowed to 0
that is nan, though the product is plain: these rules cancel it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygraph.graph import Node, Value, apply
from tinygraph.ops.arithmetic import elementwise
from tinygraph.ops.index import Put, Take
from tinygraph.ops.views import Reshape, Transpose
from tinygraph.rewrite.engine import Context, rule
from tinygraph.rewrite.pattern import fitting, is_zero, made_by, operand, operands, pair

Matches = Callable[[Value], bool]


def _times(x: Value, is_p: Matches, depth: int) -> Any:
    """x * p, where every term of ``x`` is a quotient by p that cancels; else None."""
    both = pair(x, "div")
    if both and is_p(both[1]):
        return both[0]
    if depth == 0:
        return None
    inner = operand(x, "neg")
    if inner is not None:
        found = _times(inner, is_p, depth - 1)
        return None if found is None else -found
    if both:
        found = _times(both[0], is_p, depth - 1)
        return None if found is None else found / both[1]
    factors = pair(x, "mul")
    for a, b in (factors, factors[::-1]) if factors else ():
        found = _times(a, is_p, depth - 1)
        if found is not None:
            return found * b
    for name in ("add", "sub"):
        terms = [_times(t, is_p, depth - 1) for t in pair(x, name) or ()]
        if terms and all(t is not None for t in terms):
            return elementwise(name, *terms)
    return _times_moved(x, is_p, depth)


def _times_moved(x: Value, is_p: Matches, depth: int) -> Any:
    """``_times`` where the quotient was formed before a change of shape, or at chosen places."""
    op = x.node.op if x.node is not None else None
    found: Any = None
    if isinstance(op, Reshape):
        found = _times(operands(x)[0], _made(is_p, Reshape), depth - 1)
    elif isinstance(op, Transpose):
        back = tuple(sorted(range(x.ndim), key=lambda k: op.perm[k]))
        found = _times(operands(x)[0], _made(is_p, Transpose, perm=back), depth - 1)
    if found is not None:
        return apply(op, found)[0]  # type: ignore[arg-type]
    if isinstance(op, Put) and op.mode == "add":
        base, index, y = operands(x)
        if is_zero(base):
            found = _times(y, _taken(is_p, op.axis, index), depth - 1)
            return None if found is None else apply(op, base, index, found)[0]
    return None


def _made(is_p: Matches, kind: type[Any], **fields: Any) -> Matches:
    """Is a value made from p by an op of ``kind`` with these fields?"""
    def matches(value: Value) -> bool:
        op = made_by(value, kind)
        return op is not None and is_p(operands(value)[0]) and all(
            getattr(op, name) == wanted for name, wanted in fields.items())
    return matches


def _taken(is_p: Matches, axis: int, index: Value) -> Matches:
    """Is a value what ``index`` chooses of p along ``axis``?"""
    def matches(value: Value) -> bool:
        op = made_by(value, Take)
        return (op is not None and op.axis == axis and operands(value)[1] is index
                and is_p(operands(value)[0]))
    return matches


@rule("mul")
def scattered_quotient(node: Node, context: Context) -> Any:
    """put(0, i, x / p[i]) * p --> put(0, i, x), and so on with views between, where p is a part
    of a softmax"""
    for p, other in (node.inputs, node.inputs[::-1]):
        both = pair(p, "div")
        if both and operand(both[0], "exp") is not None:
            found = _times(other, lambda v, p=p: v is p, 6)  # type: ignore[misc]
            if found is not None:
                return fitting(found, node.outputs[0])
    return None


@rule("mul")
def softmax_slope(node: Node, context: Context) -> Any:
    """(x / p / s + r) * e --> x + r * e, where p = e / s is a part of a softmax, e = exp(y)"""
    for e, other in (node.inputs, node.inputs[::-1]):
        if operand(e, "exp") is None:
            continue
        found = _scaled(other, e, 4)
        if found is not None:
            return fitting(found, node.outputs[0])
    return None


def _scaled(a: Value, e: Any, depth: int) -> Any:
    """a * e, where a term of ``a`` is a quotient by e / s and by s that cancels; else None."""
    both = pair(a, "div")
    if both:
        x, s = both
        return _times(x, lambda v: _is_quotient(v, e, s), 6)
    for name in ("add", "sub"):
        terms = pair(a, name) if depth else None
        found = [_scaled(t, e, depth - 1) for t in terms or ()]
        if terms and any(f is not None for f in found):
            return elementwise(name, *(t * e if f is None else f
                                       for t, f in zip(terms, found, strict=True)))
    return None


def _is_quotient(value: Value, e: Value, s: Value) -> bool:
    both = pair(value, "div")
    return both is not None and both[0] is e and both[1] is s


RULES = (scattered_quotient, softmax_slope)
