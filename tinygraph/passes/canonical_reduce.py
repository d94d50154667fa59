"""Rules for reductions (and products) of what is made of copies, zeros or parts."""

from __future__ import annotations

from typing import Any

from tinygraph.dims import product
from tinygraph.dtypes import bool_
from tinygraph.graph import Node
from tinygraph.ops.arithmetic import Broadcast, Reduce, broadcast_to, cast, constant, reduce_
from tinygraph.ops.linalg import Dot
from tinygraph.ops.sizes import size_value
from tinygraph.ops.views import (
    Region,
    Reshape,
    Transpose,
    Unslice,
    squeeze,
    transpose,
    unslice,
)
from tinygraph.rewrite.engine import Context, rule
from tinygraph.rewrite.pattern import filled, is_zero, made_by, operand, operands
from tinygraph.scan_module.op import Scan


@rule(Reduce)
def reduce_zeros(node: Node, context: Context) -> Any:
    """sum(0) --> 0"""
    assert isinstance(node.op, Reduce)
    known = node.op.kind == "sum" and is_zero(node.inputs[0])
    return filled(0, node.outputs[0]) if known else None


@rule(Reduce)
def reduce_nothing(node: Node, context: Context) -> Any:
    """sum(x) over axes of size 1 --> squeeze(x)"""
    assert isinstance(node.op, Reduce)
    (x,), op = node.inputs, node.op
    if op.kind in ("and", "or") and x.type.dtype is not bool_:
        return None
    ones = [k for k in op.axes if x.type.dims[k] == 1]
    if not ones and op.axes:
        return None
    left = [k for k in range(x.ndim) if k not in ones]
    return reduce_(op.kind, squeeze(x, ones), [left.index(k) for k in op.axes if k not in ones])


@rule(Reduce)
def reduce_of_reduce(node: Node, context: Context) -> Any:
    """sum(sum(x)) --> sum(x) over all their axes, unless x is a loop's and others read sum(x): the
    sum of products is a product, which is not to be made once more for its own sum"""
    assert isinstance(node.op, Reduce)
    inner = made_by(node.inputs[0], Reduce)
    if inner is None or inner.kind != node.op.kind:
        return None
    x = operands(node.inputs[0])[0]
    if made_by(x, Scan) and context.users(node.inputs[0]) != 1:
        return None
    left = [k for k in range(x.ndim) if k not in inner.axes]
    return reduce_(inner.kind, x, (*inner.axes, *(left[k] for k in node.op.axes)))


@rule(Reduce)
def reduce_of_view(node: Node, context: Context) -> Any:
    """sum(x.T) --> sum(x).T;  sum of all of reshape(x) --> sum of all of x"""
    assert isinstance(node.op, Reduce)
    v, op = node.inputs[0], node.op
    turned = made_by(v, Transpose)
    if turned is not None:
        axes = sorted(turned.perm[k] for k in op.axes)
        out = reduce_(op.kind, operands(v)[0], axes)
        left = [k for k in range(v.ndim) if k not in axes]
        kept = [turned.perm[k] for k in range(v.ndim) if k not in op.axes]
        return transpose(out, [left.index(k) for k in kept])
    if len(op.axes) == v.ndim and made_by(v, Reshape):
        x = operands(v)[0]
        return reduce_(op.kind, x, range(x.ndim)) if x.ndim else None
    return None


@rule(Reduce)
def reduce_of_broadcast(node: Node, context: Context) -> Any:
    """sum of broadcast(x) over new axes --> x * size;  max of broadcast(x) over them --> x"""
    assert isinstance(node.op, Reduce)
    op, spread = node.op, made_by(node.inputs[0], Broadcast)
    if spread is None or op.kind not in ("sum", "max", "min"):
        return None
    x = operands(node.inputs[0])[0]
    stretched = [k for k in range(x.ndim) if spread.stretches(x, k)]
    own = [axis for k, axis in enumerate(spread.axes) if k not in stretched]
    copies = [axis for axis in op.axes if axis not in own]
    if not copies:
        return None
    lost = [k for k in stretched if spread.axes[k] in copies]
    axes = [a for k, a in enumerate(spread.axes) if k not in lost]
    out = reduce_(op.kind, squeeze(x, lost), [i for i, a in enumerate(axes) if a in op.axes])
    if op.kind == "sum":
        out = out * _size(product(tuple(spread.dims[a] for a in copies)), out)
    left = [a for a in range(len(spread.dims)) if a not in op.axes]
    places = [left.index(a) for a in axes if a not in op.axes]
    return broadcast_to(out, node.outputs[0].type.dims, places)


def _size(n: Any, like: Any) -> Any:
    return constant(n.const, like.type.dtype) if n.const is not None else cast(
        size_value(n), like.type.dtype)


@rule(Reduce)
def sum_of_unslice(node: Node, context: Context) -> Any:
    """sum(unslice(x)) --> sum(x), or unslice(sum(x)) where axes are left"""
    assert isinstance(node.op, Reduce)
    op, inner = node.op, made_by(node.inputs[0], Unslice)
    if inner is None or op.kind != "sum":
        return None
    left = [k for k in range(len(inner.dims)) if k not in op.axes]
    r = inner.region
    region = Region(tuple(r.starts[k] for k in left), tuple(r.lengths[k] for k in left),
                    tuple(r.steps[k] for k in left))
    out = reduce_("sum", operands(node.inputs[0])[0], op.axes)
    return unslice(out, node.outputs[0].type.dims, region)


@rule(Reduce)
def sum_of_neg(node: Node, context: Context) -> Any:
    """sum(-x) --> -sum(x)"""
    assert isinstance(node.op, Reduce)
    x = operand(node.inputs[0], "neg") if node.op.kind == "sum" else None
    return -reduce_("sum", x, node.op.axes) if x is not None else None


@rule(Dot)
def dot_of_zero(node: Node, context: Context) -> Any:
    """dot(0, x) --> 0;  dot(x, 0) --> 0"""
    return filled(0, node.outputs[0]) if any(map(is_zero, node.inputs)) else None


RULES = (
    reduce_zeros, reduce_nothing, reduce_of_reduce, reduce_of_view, reduce_of_broadcast,
    sum_of_unslice, sum_of_neg, dot_of_zero)
