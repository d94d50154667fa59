"""Rules that move views and sums into the labels of a product."""

from __future__ import annotations

from typing import Any

from tinygraph.graph import Node
from tinygraph.ops.arithmetic import Broadcast, Reduce, broadcast_to, reduce_
from tinygraph.ops.linalg import Dot, dot_general
from tinygraph.ops.views import Transpose, squeeze
from tinygraph.rewrite.engine import Context, rule
from tinygraph.rewrite.pattern import fitting, made_by, operands


@rule(Dot)
def dot_of_transpose(node: Node, context: Context) -> Any:
    """dot(x.T, y) --> the dot of x and y under x's labels"""
    assert isinstance(node.op, Dot)
    op, (x, y) = node.op, node.inputs
    a, b = op.a, op.b
    turned = made_by(x, Transpose)
    if turned is not None:
        a, x = tuple(a[turned.perm.index(k)] for k in range(x.ndim)), operands(x)[0]
    else:
        turned = made_by(y, Transpose)
        if turned is None:
            return None
        b, y = tuple(b[turned.perm.index(k)] for k in range(y.ndim)), operands(y)[0]
    return dot_general(a, b, op.out, x, y)


@rule(Transpose)
def transpose_of_dot(node: Node, context: Context) -> Any:
    """dot(x, y).T --> the dot with its result's labels turned, where nothing else reads it"""
    assert isinstance(node.op, Transpose)
    v = node.inputs[0]
    op = made_by(v, Dot)
    if op is None or context.users(v) != 1:
        return None
    return dot_general(op.a, op.b, [op.out[k] for k in node.op.perm], *operands(v))


@rule(Dot)
def dot_of_broadcast(node: Node, context: Context) -> Any:
    """dot(broadcast(x), y) --> dot(x, y): a repeated batch axis is no axis of x, a repeated row
    is a repeated row of the result, a repeated summand is a sum of y"""
    assert isinstance(node.op, Dot)
    op = node.op
    for flipped in (False, True):
        labels, others = (op.b, op.a) if flipped else (op.a, op.b)
        x, y = node.inputs[::-1] if flipped else node.inputs
        spread = made_by(x, Broadcast)
        if spread is None:
            continue
        source = operands(x)[0]
        stretched = [k for k in range(source.ndim) if spread.stretches(source, k)]
        axes = [a for k, a in enumerate(spread.axes) if k not in stretched]
        if len(axes) == x.ndim or not axes:
            continue
        gone = {labels[k] for k in range(x.ndim) if k not in axes}
        if any(y.type.dims[k] == 1 for k, lab in enumerate(others) if lab in gone):
            continue
        summed = [k for k, lab in enumerate(others) if lab in gone and lab not in op.out]
        mine = tuple(labels[k] for k in axes)
        theirs = tuple(lab for k, lab in enumerate(others) if k not in summed)
        kept = [k for k, lab in enumerate(op.out) if lab not in gone or lab in theirs]
        out = [op.out[k] for k in kept]
        x, y = squeeze(source, stretched), reduce_("sum", y, summed)
        product = (dot_general(theirs, mine, out, y, x) if flipped
                   else dot_general(mine, theirs, out, x, y))
        return fitting(broadcast_to(product, node.outputs[0].type.dims, kept), node.outputs[0])
    return None


@rule(Reduce)
def sum_of_dot(node: Node, context: Context) -> Any:
    """sum over t of dot(x[t], y[t]) --> one dot over t as well, where nothing else reads the
    terms;  sum over i of dot(x, y)[i] --> dot(sum over i of x, y)"""
    assert isinstance(node.op, Reduce)
    v, axes = node.inputs[0], node.op.axes
    op = made_by(v, Dot)
    if op is None or node.op.kind != "sum" or context.users(v) != 1:
        return None
    gone = {op.out[k] for k in axes}
    x, y = operands(v)
    lone_x = [k for k, lab in enumerate(op.a) if lab in gone and lab not in op.b]
    lone_y = [k for k, lab in enumerate(op.b) if lab in gone and lab not in op.a]
    a = [lab for k, lab in enumerate(op.a) if k not in lone_x]
    b = [lab for k, lab in enumerate(op.b) if k not in lone_y]
    if not a or not b:
        return None
    out = [lab for lab in op.out if lab not in gone]
    product = dot_general(a, b, out, reduce_("sum", x, lone_x), reduce_("sum", y, lone_y))
    return fitting(product, node.outputs[0])


RULES = (dot_of_transpose, transpose_of_dot, dot_of_broadcast, sum_of_dot)
