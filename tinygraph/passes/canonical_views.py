"""Rules that compose views, and take views of what holds nothing but copies or zeros."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tinygraph.dims import Dim, dim, nonnegative
from tinygraph.graph import Node, Value
from tinygraph.ops.arithmetic import Broadcast, Constant, broadcast_to, full
from tinygraph.ops.views import (
    Concatenate,
    Region,
    Reshape,
    SetSlice,
    Slice,
    Squeeze,
    Transpose,
    Unslice,
    concatenate,
    reshape,
    slice_,
    squeeze,
    transpose,
    unslice,
)
from tinygraph.rewrite.engine import Context, rule
from tinygraph.rewrite.pattern import filled, fitting, is_zero, made_by, operands

# --- transpose ------------------------------------------------------------------------------


@rule(Transpose)
def transpose_of(node: Node, context: Context) -> Any:
    """x.T.T --> x;  transpose(broadcast(x)) --> broadcast(x) with its axes elsewhere"""
    assert isinstance(node.op, Transpose)
    x, perm = node.inputs[0], node.op.perm
    if perm == tuple(range(x.ndim)):
        return x
    inner = made_by(x, Transpose)
    if inner is not None:
        return transpose(operands(x)[0], [inner.perm[k] for k in perm])
    spread = made_by(x, Broadcast)
    if spread is not None:
        axes = [perm.index(axis) for axis in spread.axes]
        return broadcast_to(operands(x)[0], node.outputs[0].type.dims, axes)
    return None


# --- broadcast ------------------------------------------------------------------------------


@rule(Broadcast)
def broadcast_nothing(node: Node, context: Context) -> Any:
    """broadcast(x) --> x, or a transpose of x, where no axis is new or stretched"""
    assert isinstance(node.op, Broadcast)
    (x,), axes = node.inputs, node.op.axes
    if len(axes) != len(node.op.dims):
        return None
    return fitting(transpose(x, [axes.index(k) for k in range(x.ndim)]), node.outputs[0])


@rule(Broadcast)
def broadcast_of(node: Node, context: Context) -> Any:
    """broadcast(broadcast(x)) --> broadcast(x);  broadcast(x.T) --> broadcast(x);
    broadcast(constant [[2]]) --> broadcast(2)"""
    assert isinstance(node.op, Broadcast)
    x, op = node.inputs[0], node.op
    inner = made_by(x, Broadcast)
    if inner is not None:
        return broadcast_to(operands(x)[0], op.dims, [op.axes[k] for k in inner.axes])
    turned = made_by(x, Transpose)
    if turned is not None:
        axes = [op.axes[turned.perm.index(k)] for k in range(x.ndim)]
        return broadcast_to(operands(x)[0], op.dims, axes)
    known = made_by(x, Constant)
    if known is not None and x.ndim and known.array.size == 1:
        return full(known.array.item(), op.dims, known.dtype)
    return None


@rule(Broadcast)
def broadcast_of_squeeze(node: Node, context: Context) -> Any:
    """broadcast(squeeze(x)) --> broadcast(x), the dropped axes of size 1 standing for new ones"""
    assert isinstance(node.op, Broadcast)
    op, inner = node.op, made_by(node.inputs[0], Squeeze)
    if inner is None:
        return None
    x = operands(node.inputs[0])[0]
    new = [k for k in range(len(op.dims)) if k not in op.axes]
    if len(new) < len(inner.axes) or any(x.type.dims[k] != 1 for k in inner.axes):
        return None
    kept, dropped = iter(op.axes), iter(new)
    axes = [next(dropped) if k in inner.axes else next(kept) for k in range(x.ndim)]
    return broadcast_to(x, op.dims, axes)


# --- squeeze --------------------------------------------------------------------------------


@rule(Squeeze)
def squeeze_of(node: Node, context: Context) -> Any:
    """squeeze(squeeze(x)) --> squeeze(x);  squeeze(broadcast(x)) --> broadcast(x) without it;
    squeeze(reshape(x)) --> reshape(x)"""
    assert isinstance(node.op, Squeeze)
    x, axes = node.inputs[0], node.op.axes
    if not axes:
        return x
    inner = made_by(x, Squeeze)
    if inner is not None:
        source = operands(x)[0]
        kept = [k for k in range(source.ndim) if k not in inner.axes]
        return squeeze(source, sorted((*inner.axes, *(kept[k] for k in axes))))
    if made_by(x, Reshape) is not None:
        return reshape(operands(x)[0], node.outputs[0].type.dims)
    spread = made_by(x, Broadcast)
    if spread is None:
        return None
    source = operands(x)[0]
    lost = [k for k, axis in enumerate(spread.axes) if axis in axes]
    if any(source.type.dims[k] != 1 for k in lost):
        return None
    left = [axis for axis in range(x.ndim) if axis not in axes]
    places = [left.index(axis) for axis in spread.axes if axis not in axes]
    return broadcast_to(squeeze(source, lost), node.outputs[0].type.dims, places)


# --- reshape --------------------------------------------------------------------------------


@rule(Reshape)
def reshape_of(node: Node, context: Context) -> Any:
    """reshape(x, x.shape) --> x;  reshape(reshape(x)) --> reshape(x), also through a squeeze or
    new axes of size 1;  reshape(broadcast(2)) --> broadcast(2)"""
    x, dims = node.inputs[0], node.outputs[0].type.dims
    if dims == x.type.dims:
        return x
    if made_by(x, Reshape) is not None:
        return reshape(operands(x)[0], dims)
    lost = made_by(x, Squeeze)
    if lost is not None:
        source = operands(x)[0]
        known = all(source.type.dims[k] == 1 for k in lost.axes)
        return reshape(source, dims) if known else None
    spread = made_by(x, Broadcast)
    if spread is None:
        return None
    source = operands(x)[0]
    if source.ndim == 0:
        return broadcast_to(source, dims)
    moved = [d for d in x.type.dims if d != 1] == [d for d in source.type.dims if d != 1]
    return reshape(source, dims) if moved and list(spread.axes) == sorted(spread.axes) else None


@rule(Reshape)
def reshape_only_ones(node: Node, context: Context) -> Any:
    """reshape(x) --> new axes of size 1, or a squeeze, where that is all it does"""
    x, dims = node.inputs[0], node.outputs[0].type.dims
    left = [k for k, d in enumerate(x.type.dims) if d != 1]
    right = [k for k, d in enumerate(dims) if d != 1]
    if [x.type.dims[k] for k in left] != [dims[k] for k in right]:
        return None
    lost = [k for k in range(x.ndim) if k not in left]
    return broadcast_to(squeeze(x, lost), dims, right)


# --- slice ----------------------------------------------------------------------------------


def compose(inner: Region, outer: Region) -> Region:
    """The region of an array that is the part ``outer`` of its part ``inner``."""
    starts = tuple(a + b * s for a, b, s in zip(
        inner.starts, outer.starts, inner.steps, strict=True))
    steps = tuple(a * b for a, b in zip(inner.steps, outer.steps, strict=True))
    return Region(starts, outer.lengths, steps)


@rule(Slice)
def slice_of(node: Node, context: Context) -> Any:
    """x[:] --> x;  x[a][b] --> x[c];  unslice(x, r)[r] --> x;  setslice(y, x, r)[r] --> x"""
    assert isinstance(node.op, Slice)
    x, region = node.inputs[0], node.op.region
    if region.is_whole(x.type.dims):
        return x
    inner = made_by(x, Slice)
    if inner is not None:
        return slice_(operands(x)[0], compose(inner.region, region))
    part = made_by(x, Unslice) or made_by(x, SetSlice)
    if part is not None and part.region == region:
        return fitting(operands(x)[-1], node.outputs[0])
    return None


def plain(region: Region) -> bool:
    """Does the part go along every axis element by element?"""
    return all(step == 1 for step in region.steps)


def spans(a: Region, b: Region) -> Iterator[tuple[Dim, Dim, Dim, Dim]]:
    """Per axis where the first part begins and how long it is, then the same of the second."""
    return zip(a.starts, a.lengths, b.starts, b.lengths, strict=True)


@rule(Slice)
def slice_of_unslice(node: Node, context: Context) -> Any:
    """unslice(x, r)[s] --> x[s - r] where s lies inside r;  --> 0 where it lies outside"""
    assert isinstance(node.op, Slice)
    inner, region = made_by(node.inputs[0], Unslice), node.op.region
    if inner is None or not plain(inner.region) or not plain(region):
        return None
    part, starts = inner.region, []
    for a, n, b, m in spans(part, region):
        if nonnegative(b - a - n) or nonnegative(a - b - m):
            return filled(0, node.outputs[0])
        if not nonnegative(b - a) or not nonnegative(a + n - b - m):
            return None
        starts.append(b - a)
    return slice_(operands(node.inputs[0])[0], Region(tuple(starts), region.lengths, region.steps))


@rule(Slice)
def slice_of_broadcast(node: Node, context: Context) -> Any:
    """broadcast(x)[s] --> broadcast(x[s]), along new axes just shorter"""
    assert isinstance(node.op, Slice)
    spread, region = made_by(node.inputs[0], Broadcast), node.op.region
    if spread is None:
        return None
    x = operands(node.inputs[0])[0]
    starts, lengths, steps = [], [], []
    for k, axis in enumerate(spread.axes):
        whole = spread.stretches(x, k)
        starts.append(dim(0) if whole else region.starts[axis])
        lengths.append(dim(1) if whole else region.lengths[axis])
        steps.append(1 if whole else region.steps[axis])
    part = slice_(x, Region(tuple(starts), tuple(lengths), tuple(steps)))
    return broadcast_to(part, region.lengths, spread.axes)


@rule(Slice)
def slice_of_concatenate(node: Node, context: Context) -> Any:
    """concatenate(x, y, z)[s] --> x[s'], or concatenate(x, y)[s'], where s hits no other part"""
    assert isinstance(node.op, Slice)
    x, region = node.inputs[0], node.op.region
    op = made_by(x, Concatenate)
    if op is None or region.steps[op.axis] != 1:
        return None
    parts = operands(x)
    first, last = region.starts[op.axis], region.starts[op.axis] + region.lengths[op.axis]
    starts = [r.starts[op.axis] for r in op.regions(parts)]
    ends = [s + p.type.dims[op.axis] for s, p in zip(starts, parts, strict=True)]
    low = max((i for i, s in enumerate(starts) if nonnegative(first - s)), default=0)
    high = min((i for i, e in enumerate(ends) if nonnegative(e - last)),
               default=len(parts) - 1)
    if low > high or (low, high) == (0, len(parts) - 1):
        return None
    moved = list(region.starts)
    moved[op.axis] = first - starts[low]
    part = concatenate(parts[low:high + 1], op.axis)
    return slice_(part, Region(tuple(moved), region.lengths, region.steps))


# --- unslice, concatenate -------------------------------------------------------------------


@rule(Unslice)
def unslice_of(node: Node, context: Context) -> Any:
    """unslice(0) --> 0;  unslice(x, whole) --> x;  unslice(unslice(x)) --> unslice(x);
    unslice(x, all, backwards) --> x[::-1]"""
    assert isinstance(node.op, Unslice)
    x, op = node.inputs[0], node.op
    if is_zero(x):
        return filled(0, node.outputs[0])
    if op.region.is_whole(op.dims):
        return fitting(x, node.outputs[0])
    if _is_reversal(op.region, op.dims):
        return fitting(slice_(x, op.region), node.outputs[0])
    inner = made_by(x, Unslice)
    if inner is None:
        return None
    return unslice(operands(x)[0], op.dims, compose(op.region, inner.region))


def _is_reversal(region: Region, dims: tuple[Dim, ...]) -> bool:
    """Does the region hold every element, each axis forwards or backwards?  Then it is its own
    inverse."""
    return all(n == d and ((k == 1 and s == 0) or (k == -1 and s == d - 1)) for s, n, k, d in zip(
        region.starts, region.lengths, region.steps, dims, strict=True))


@rule(SetSlice)
def set_whole(node: Node, context: Context) -> Any:
    """setslice(x, y, whole) --> y"""
    assert isinstance(node.op, SetSlice)
    x, y = node.inputs
    return fitting(y, node.outputs[0]) if node.op.region.is_whole(x.type.dims) else None


@rule(Concatenate)
def concatenate_of(node: Node, context: Context) -> Any:
    """concatenate(x) --> x;  concatenate(concatenate(x, y), z) --> concatenate(x, y, z);
    concatenate(x[:k], x[k:]) --> x;  an empty part goes;  concatenate(0, 0) --> 0"""
    assert isinstance(node.op, Concatenate)
    if len(node.inputs) == 1:
        return node.inputs[0]
    axis = node.op.axis
    parts: list[Any] = []
    for v in node.inputs:
        inner = made_by(v, Concatenate)
        flat = operands(v) if inner is not None and inner.axis == axis else (v,)
        parts.extend(p for p in flat if p.type.dims[axis] != 0)
    if not parts or all(map(is_zero, parts)):
        return filled(0, node.outputs[0])
    parts = _joined(parts, axis)
    if len(parts) == len(node.inputs) and all(
            a is b for a, b in zip(parts, node.inputs, strict=True)):
        return None
    return fitting(concatenate(parts, axis), node.outputs[0])


def _joined(parts: Sequence[Value], axis: int) -> list[Any]:
    """Neighbouring slices of one array that touch become one slice."""
    out: list[Any] = []
    for p in parts:
        both = _touching(out[-1], p, axis) if out else None
        if both is None:
            out.append(p)
        else:
            out[-1] = both
    return out


def _touching(a: Value, b: Value, axis: int) -> Any:
    one, two = made_by(a, Slice), made_by(b, Slice)
    if one is None or two is None or operands(a)[0] is not operands(b)[0]:
        return None
    r, s = one.region, two.region
    step = r.steps[axis]
    if r.steps != s.steps or r.starts[axis] + r.lengths[axis] * step != s.starts[axis]:
        return None
    for k in range(a.ndim):
        if k != axis and (r.starts[k] != s.starts[k] or r.lengths[k] != s.lengths[k]):
            return None
    total: Dim = r.lengths[axis] + s.lengths[axis]
    lengths = tuple(total if k == axis else d for k, d in enumerate(r.lengths))
    return slice_(operands(a)[0], Region(r.starts, lengths, r.steps))


RULES = (
    transpose_of, broadcast_nothing, broadcast_of, broadcast_of_squeeze, squeeze_of, reshape_of,
    reshape_only_ones, slice_of, slice_of_unslice, slice_of_broadcast, slice_of_concatenate,
    unslice_of, set_whole, concatenate_of)
