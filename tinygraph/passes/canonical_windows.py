"""Rules for windows: those of one element are no windows, and the gradient of a convolution is a
convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygraph.dims import Dim, dim, nonnegative
from tinygraph.graph import Node, Value, apply
from tinygraph.ops.arithmetic import broadcast_to
from tinygraph.ops.linalg import Dot, dot_general
from tinygraph.ops.views import Region, Slice, Unslice, slice_, squeeze, unslice
from tinygraph.ops.windows import Sliding, Unwindows, Windows, windows
from tinygraph.passes.canonical_views import plain, spans
from tinygraph.rewrite.engine import Context, rule
from tinygraph.rewrite.pattern import fitting, made_by, operands


def _single(sliding: Sliding, dims: Sequence[Dim]) -> list[int]:
    """Which of the windowed axes have windows of one element at every place."""
    return [m for m, (axis, count, size, stride, _) in enumerate(sliding.each())
            if size == 1 and stride == 1 and count == dims[axis]]


def _without(sliding: Sliding, gone: Sequence[int]) -> Sliding:
    left = [m for m in range(len(sliding.axes)) if m not in gone]
    fields = (sliding.axes, sliding.counts, sliding.sizes, sliding.strides, sliding.dilations)
    return Sliding(*(tuple(f[m] for m in left) for f in fields))  # type: ignore[arg-type]


@rule(Windows)
def windows_of_one(node: Node, context: Context) -> Any:
    """windows(x) of 1 x 1 elements --> x with new axes"""
    assert isinstance(node.op, Windows)
    (x,), sliding = node.inputs, node.op.sliding
    gone = _single(sliding, x.type.dims)
    if not gone:
        return None
    if len(gone) < len(sliding.axes):
        x = apply(Windows(_without(sliding, gone)), x)[0]
    dims = node.outputs[0].type.dims
    first = node.inputs[0].ndim - 1
    return broadcast_to(x, dims, [k for k in range(len(dims)) if k - first not in gone])


@rule(Unwindows)
def unwindows_of_one(node: Node, context: Context) -> Any:
    """unwindows(x) of 1 x 1 elements --> x without these axes"""
    assert isinstance(node.op, Unwindows)
    (x,), op = node.inputs, node.op
    gone = _single(op.sliding, op.dims)
    first = len(op.dims) - 1
    if not gone or any(x.type.dims[first + m] != 1 for m in gone):
        return None
    x = squeeze(x, [first + m for m in gone])
    if len(gone) < len(op.sliding.axes):
        x = apply(Unwindows(op.dims, _without(op.sliding, gone)), x)[0]
    return fitting(x, node.outputs[0])


@rule(Unwindows)
def unwindows_of_dot(node: Node, context: Context) -> Any:
    """unwindows(dot(g, w)) --> dot(windows(zeros around g), w backwards), for steps of 1: all
    windows are never in memory"""
    assert isinstance(node.op, Unwindows)
    dims, sliding = node.op.dims, node.op.sliding
    op = made_by(node.inputs[0], Dot)
    if op is None or context.users(node.inputs[0]) not in (1, None) or any(
            s != 1 for s in sliding.strides) or any(
            dims[axis] != count + (size - 1) * dilation
            for axis, count, size, _, dilation in sliding.each()):
        return None
    kept, inside = sliding.places(len(dims))
    places = [op.out[kept[axis]] for axis in sliding.axes]
    window = [op.out[k] for k in inside]
    labels, others, (g, w) = op.a, op.b, operands(node.inputs[0])
    if not set(places) <= set(labels):
        labels, others, g, w = others, labels, w, g
    if (not set(places) <= set(labels) or not set(window) <= set(others)
            or set(places) & set(others) or set(window) & set(labels)):
        return None
    axes = [labels.index(k) for k in places]
    if axes != sorted(axes):
        return None
    seen = _around(g, axes, sliding)
    names = list(labels)
    order = [*names[:-1], *window, names[-1]]
    out = [k for k in op.out if k not in window]
    turned = _backwards(w, [others.index(k) for k in window])
    return fitting(dot_general(order, others, out, seen, turned), node.outputs[0])


def _around(g: Value, axes: Sequence[int], sliding: Sliding) -> Any:
    """The windows of ``g`` and zeros around it that hold an element of it."""
    dims, starts = list(g.type.dims), [dim(0)] * g.ndim
    for axis, size, dilation in zip(axes, sliding.sizes, sliding.dilations, strict=True):
        starts[axis] = (size - 1) * dilation
        dims[axis] = dims[axis] + (size - 1) * dilation * 2
    wide = unslice(g, dims, Region(tuple(starts), g.type.dims, (1,) * g.ndim))
    return windows(wide, axes, sliding.sizes, None, sliding.dilations)


def _backwards(w: Value, axes: Sequence[int]) -> Any:
    dims = w.type.dims
    starts = tuple(d - 1 if k in axes else dim(0) for k, d in enumerate(dims))
    return slice_(w, Region(starts, dims, tuple(-1 if k in axes else 1 for k in range(w.ndim))))


@rule(Slice)
def slice_of_convolution(node: Node, context: Context) -> Any:
    """dot(windows(x), w)[places a..b] --> dot(windows(x[a..]), w)"""
    assert isinstance(node.op, Slice)
    v, region = node.inputs[0], node.op.region
    op = made_by(v, Dot)
    if op is None or context.users(v) not in (1, None):
        return None
    for flipped in (False, True):
        labels, others = (op.b, op.a) if flipped else (op.a, op.b)
        seen, w = operands(v)[::-1] if flipped else operands(v)
        inner = made_by(seen, Windows)
        if inner is None:
            continue
        x = operands(seen)[0]
        kept, _ = inner.sliding.places(x.ndim)
        places = {labels[kept[axis]]: m for m, axis in enumerate(inner.sliding.axes)}
        cut = [k for k, d in enumerate(v.type.dims)
               if (region.starts[k], region.steps[k], region.lengths[k]) != (dim(0), 1, d)]
        if not cut or any(op.out[k] not in places or op.out[k] in others or region.steps[k] != 1
                          for k in cut):
            continue
        part = _fewer(x, inner.sliding, {places[op.out[k]]: (region.starts[k], region.lengths[k])
                                         for k in cut})
        product = (dot_general(others, labels, op.out, w, part) if flipped
                   else dot_general(labels, others, op.out, part, w))
        return fitting(product, node.outputs[0])
    return None


@rule(Slice)
def slice_of_windows(node: Node, context: Context) -> Any:
    """windows(x)[some places] --> windows(x[..]) of as many places"""
    assert isinstance(node.op, Slice)
    v, region = node.inputs[0], node.op.region
    inner = made_by(v, Windows)
    if inner is None:
        return None
    x = operands(v)[0]
    kept, inside = inner.sliding.places(x.ndim)
    if any((region.starts[k], region.steps[k], region.lengths[k]) != (dim(0), 1, v.type.dims[k])
           for k in inside) or any(region.steps[kept[axis]] != 1 for axis in inner.sliding.axes):
        return None
    free = [axis for axis in range(x.ndim) if axis not in inner.sliding.axes]
    starts, lengths, steps = [dim(0)] * x.ndim, list(x.type.dims), [1] * x.ndim
    for axis in free:
        k = kept[axis]
        starts[axis], lengths[axis] = region.starts[k], region.lengths[k]
        steps[axis] = region.steps[k]
    part = slice_(x, Region(tuple(starts), tuple(lengths), tuple(steps)))
    cut = {m: (region.starts[kept[axis]], region.lengths[kept[axis]])
           for m, axis in enumerate(inner.sliding.axes)
           if region.lengths[kept[axis]] != v.type.dims[kept[axis]]}
    seen = _fewer(part, inner.sliding, cut) if cut else apply(Windows(inner.sliding), part)[0]
    return fitting(seen, node.outputs[0])


def _fewer(x: Value, sliding: Sliding, cut: dict[int, tuple[Dim, Dim]]) -> Any:
    """The windows at some of the places: from the first one on, so many."""
    starts, lengths = [dim(0)] * x.ndim, list(x.type.dims)
    counts = list(sliding.counts)
    for m, (start, length) in cut.items():
        axis, stride = sliding.axes[m], sliding.strides[m]
        starts[axis], counts[m] = start * stride, length
        lengths[axis] = (length - 1) * stride + (sliding.sizes[m] - 1) * sliding.dilations[m] + 1
    fewer = Sliding(sliding.axes, tuple(counts), sliding.sizes, sliding.strides,
                    sliding.dilations)
    part = slice_(x, Region(tuple(starts), tuple(lengths), (1,) * x.ndim))
    return apply(Windows(fewer), part)[0]


@rule(Slice)
def slice_around_unslice(node: Node, context: Context) -> Any:
    """unslice(x, r)[s] --> unslice(x, r - s) where s holds all of r"""
    assert isinstance(node.op, Slice)
    inner, region = made_by(node.inputs[0], Unslice), node.op.region
    if inner is None or not plain(inner.region) or not plain(region):
        return None
    part, starts = inner.region, []
    for a, n, b, m in spans(part, region):
        if not nonnegative(a - b) or not nonnegative(b + m - a - n):
            return None
        starts.append(a - b)
    return unslice(operands(node.inputs[0])[0], region.lengths,
                   Region(tuple(starts), part.lengths, part.steps))


RULES = (windows_of_one, unwindows_of_one, unwindows_of_dot, slice_of_convolution,
         slice_of_windows, slice_around_unslice)
