"""Rules that give equal elementwise expressions one form, and drop what does nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygraph.dtypes import DType, bool_
from tinygraph.graph import Node, Value
from tinygraph.ops.arithmetic import Broadcast, Constant, Elemwise, cast, full, scalar_constant
from tinygraph.rewrite.engine import Context, rule
from tinygraph.rewrite.pattern import (
    beside,
    call,
    filled,
    fitting,
    is_number,
    is_zero,
    made_by,
    operand,
    operands,
    pair,
)

COMMUTATIVE = ("add", "mul", "maximum", "minimum", "and", "or", "xor", "eq", "ne")


@rule(*COMMUTATIVE)
def order_operands(node: Node, context: Context) -> Any:
    """2 * x --> x * 2;  where y * x is known as x * y: y * x --> x * y"""
    x, y = node.inputs
    if _place(x, context) <= _place(y, context):
        return None
    return fitting(call(node, [y, x]), node.outputs[0])


def _place(v: Value, context: Context) -> tuple[bool, str, int]:
    """Constants last, leaves first; else by what makes the operand, so that two layers of one
    kind come out alike and share their code; equals by who was met first."""
    inner = operands(v)[0] if made_by(v, Broadcast) else v
    if inner.node is None:
        return False, "", context.rank(v)
    op = inner.node.op
    kind = op.fn.name if isinstance(op, Elemwise) else type(op).__name__
    return isinstance(op, Constant), kind, context.rank(v)


@rule("add")
def add_zero(node: Node, context: Context) -> Any:
    """x + 0 --> x"""
    return fitting(beside(node.outputs[0], "add", 0), node.outputs[0])


@rule("sub")
def sub_zero(node: Node, context: Context) -> Any:
    """x - 0 --> x;  0 - x --> -x"""
    x, y = operands(node.outputs[0])
    if is_zero(y):
        return fitting(x, node.outputs[0])
    return fitting(-y, node.outputs[0]) if is_zero(x) and y.type.dtype.is_float else None


@rule("mul")
def mul_one(node: Node, context: Context) -> Any:
    """x * 1 --> x;  x * -1 --> -x"""
    out = node.outputs[0]
    x, y = operands(out)
    for factor, other in ((y, x), (x, y)):
        if is_number(factor, 1):
            return fitting(other, out)
        if is_number(factor, -1) and fitting(other, out) is not None:
            return -other if out.type.dtype.kind in "fi" else None
    return None


@rule("div")
def div_exact(node: Node, context: Context) -> Any:
    """x / 1 --> x;  x / -1 --> -x;  x / 2**k --> x * 2**-k (exact)"""
    x, y = operands(node.outputs[0])
    number, out = scalar_constant(y), node.outputs[0]
    if number is None or fitting(x, out) is None or not number or not math.isfinite(number):
        return None
    if number in (1, -1):
        return x if number == 1 else -x
    mantissa, exponent = math.frexp(number)
    if abs(mantissa) != 0.5 or abs(exponent) > 100:
        return None
    return x * filled(1.0 / number, y)


@rule("neg", "invert")
def twice(node: Node, context: Context) -> Any:
    """-(-x) --> x;  ~~x --> x"""
    assert isinstance(node.op, Elemwise)
    return operand(node.inputs[0], node.op.fn.name)


@rule("neg")
def neg_of_difference(node: Node, context: Context) -> Any:
    """-(x - y) --> y - x"""
    both = pair(node.inputs[0], "sub")
    return fitting(both[1] - both[0], node.outputs[0]) if both else None


@rule("add")
def add_of_neg(node: Node, context: Context) -> Any:
    """x + -y --> x - y;  -x + y --> y - x"""
    x, y = node.inputs
    negated = operand(y, "neg")
    if negated is not None:
        return fitting(x - negated, node.outputs[0])
    negated = operand(x, "neg")
    return fitting(y - negated, node.outputs[0]) if negated is not None else None


@rule("sub")
def sub_of_neg(node: Node, context: Context) -> Any:
    """x - -y --> x + y"""
    negated = operand(node.inputs[1], "neg")
    return fitting(node.inputs[0] + negated, node.outputs[0]) if negated is not None else None


@rule("mul", "div")
def product_of_negs(node: Node, context: Context) -> Any:
    """-x * -y --> x * y;  -x / -y --> x / y"""
    x, y = (operand(v, "neg") for v in node.inputs)
    return call(node, [x, y]) if x is not None and y is not None else None


@rule("abs")
def abs_of_sign(node: Node, context: Context) -> Any:
    """abs(-x) --> abs(x);  abs(abs(x)) --> abs(x)"""
    x = operand(node.inputs[0], "neg")
    if x is not None:
        return abs(x)
    return node.inputs[0] if operand(node.inputs[0], "abs") is not None else None


@rule("maximum", "minimum", "and", "or")
def same_twice(node: Node, context: Context) -> Any:
    """maximum(x, x) --> x;  x & x --> x"""
    return node.inputs[0] if node.inputs[0] is node.inputs[1] else None


@rule("and", "or")
def logic_with_constant(node: Node, context: Context) -> Any:
    """x & True --> x;  x & False --> False;  x | False --> x;  x | True --> True"""
    assert isinstance(node.op, Elemwise)
    out = node.outputs[0]
    if out.type.dtype is not bool_:
        return None
    name = node.op.fn.name
    kept = beside(out, name, name == "and")
    if kept is not None:
        return fitting(kept, out)
    return filled(name == "or", out) if beside(out, name, name == "or") is not None else None


@rule("switch")
def switch_known(node: Node, context: Context) -> Any:
    """switch(True, x, y) --> x;  switch(c, x, x) --> x;  switch(~c, x, y) --> switch(c, y, x)"""
    condition, x, y = node.inputs
    known = scalar_constant(condition)
    if known is not None:
        return fitting(x if known else y, node.outputs[0])
    if x is y:
        return fitting(x, node.outputs[0])
    other = operand(condition, "invert")
    return call(node, [other, y, x]) if other is not None else None


@rule("cast")
def cast_to_own_dtype(node: Node, context: Context) -> Any:
    """cast(x, x.dtype) --> x"""
    return fitting(node.inputs[0], node.outputs[0])


@rule("cast")
def cast_of_cast(node: Node, context: Context) -> Any:
    """cast(cast(x, wide), target) --> cast(x, target), where wide holds every x exactly"""
    inner = node.inputs[0].node
    if inner is None or not isinstance(inner.op, Elemwise) or not inner.op.fn.name.startswith(
            "cast_"):
        return None
    x = inner.inputs[0]
    if not _exact(x.type.dtype, inner.outputs[0].type.dtype):
        return None
    return cast(x, node.outputs[0].type.dtype)


def _exact(source: DType, target: DType) -> bool:
    """Can ``target`` hold every number of ``source``?  (NumPy calls int64 to float64 safe.)"""
    if source.is_int and target.is_float:
        return source.bits < {32: 25, 64: 54}[target.bits]
    return bool(np.can_cast(source.np, target.np, "safe"))


@rule(Constant)
def uniform_constant(node: Node, context: Context) -> Any:
    """constant [2, 2, 2] --> broadcast(2)"""
    op = node.op
    assert isinstance(op, Constant)
    if not op.shape or not op.array.size:
        return None
    size = op.dtype.itemsize
    if op.data != op.data[:size] * op.array.size:
        return None
    return full(op.array.flat[0].item(), op.shape, op.dtype)


RULES = (
    uniform_constant, cast_to_own_dtype, cast_of_cast, add_zero, sub_zero, mul_one, div_exact,
    twice, neg_of_difference, add_of_neg, sub_of_neg, product_of_negs, abs_of_sign, same_twice,
    logic_with_constant, switch_known, order_operands)
