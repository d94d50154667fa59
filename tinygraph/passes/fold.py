"""Constant folding: what depends on constants alone is computed now, by the NumPy meaning."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygraph.dims import Dim, product
from tinygraph.graph import Node, Op, Value, has_body, op_dims
from tinygraph.ops.arithmetic import (
    Broadcast,
    Constant,
    Elemwise,
    constant,
    full,
    scalar_constant,
)
from tinygraph.ops.callback import Callback
from tinygraph.ops.sizes import DimValue
from tinygraph.rewrite.engine import Context, rule, rule_pass
from tinygraph.rewrite.pattern import made_by

SMALL = 4096  # elements: results up to here are kept even where they are larger than operands


@rule(DimValue)
def size_of_known_axis(node: Node, context: Context) -> Any:
    """dimvalue{5} --> 5"""
    assert isinstance(node.op, DimValue)
    n = node.op.dim.const
    return None if n is None else constant(np.asarray(n, np.int64))


@rule(Elemwise)
def elementwise_of_numbers(node: Node, context: Context) -> Any:
    """broadcast(2) * broadcast(3) --> broadcast(6), of any size"""
    numbers = []
    for v in node.inputs:
        numbers.append(scalar_constant(v))
        if numbers[-1] is None:
            return None
    arrays = [np.asarray(n, v.type.dtype.np) for n, v in zip(numbers, node.inputs, strict=True)]
    (out,) = node.op.numpy(_static, *arrays)
    result = node.outputs[0]
    return full(out.item(), result.type.dims, result.type.dtype)


@rule(Op)
def fold_constants(node: Node, context: Context) -> Any:
    """f(constants) --> constant, where the result is small or no larger than the operands"""
    if not node.inputs or isinstance(node.op, (Broadcast, Callback)) or has_body(node.op):
        return None  # a user's op runs when the function is called
    if not all(made_by(v, Constant) or made_by(v, Broadcast) for v in node.inputs):
        return None
    if any(d.const is None for d in op_dims(node.op)):
        return None
    arrays = [_known(v) for v in node.inputs]
    if any(a is None for a in arrays) or not all(_small(v, node) for v in node.outputs):
        return None
    if any(d.const is None for v in node.outputs for d in v.type.dims):
        return None
    try:
        results = node.op.numpy(_static, *arrays)  # type: ignore[arg-type]
    except IndexError:
        return None  # an index out of range is reported by the call, not by the compiler
    return [constant(np.asarray(a), v.type.dtype)
            for a, v in zip(results, node.outputs, strict=True)]


def _known(value: Value) -> np.ndarray | None:
    """The array of a constant, or of a constant that is broadcast to known sizes."""
    op = made_by(value, Constant)
    if op is not None:
        return op.array
    stretched = made_by(value, Broadcast)
    if stretched is None or any(d.const is None for d in value.type.dims):
        return None
    assert value.node is not None
    inner = made_by(value.node.inputs[0], Constant)
    if inner is None:
        return None
    return stretched.numpy(_static, inner.array)[0]


def _small(value: Value, node: Node) -> bool:
    n = product(value.type.dims).const
    if n is None:
        return False
    own = [made_by(v, Constant) for v in node.inputs]
    return n <= SMALL or n <= sum(op.array.size for op in own if op is not None)


def _static(d: Dim) -> int:
    assert d.const is not None, f"{d} is not known"
    return d.const


RULES = (size_of_known_axis, elementwise_of_numbers, fold_constants)

fold = rule_pass("fold", "f(constants) --> constant", RULES)
