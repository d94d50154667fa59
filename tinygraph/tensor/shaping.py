"""Other shapes for the same elements: reshape, dimshuffle, concatenate, repeat, ..."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygraph.config import config
from tinygraph.dims import Dim, dim, floordiv, maximum, product
from tinygraph.dtypes import int64, promote
from tinygraph.errors import ShapeError
from tinygraph.graph import Value, apply, describe, kind_name
from tinygraph.ops import views
from tinygraph.ops.arithmetic import (
    as_value,
    broadcast_to,
    cast,
    check_axis,
    constant,
    constant_value,
    reduce_,
)
from tinygraph.ops.bounds import Bounded
from tinygraph.ops.cumulative import Cumulate
from tinygraph.ops.index import Take
from tinygraph.ops.ordering import Searchsorted
from tinygraph.ops.sizes import as_dim, iota, size_value
from tinygraph.tensor.reductions import axes_of


def dims_of(shape: Any, ndim: int | None = None) -> tuple[Dim, ...]:
    """A user's shape as Dims: a size, a sequence of sizes, or an integer vector.

    A vector whose length is not known needs ``ndim``.  Raises ValueError without it, TypeError
    for a size that is no integer.
    """
    if isinstance(shape, Value) and shape.ndim == 1:
        known = constant_value(shape)
        if known is not None:
            return tuple(as_dim(n) for n in known)
        length = ndim if ndim is not None else shape.type.dims[0].const
        if length is None:
            raise ValueError(f"the length of the shape {describe(shape)} is not known: pass ndim=")
        shape = pinned(shape, 0, dim(length))
        return tuple(as_dim(views.row(shape, k)) for k in range(length))
    if isinstance(shape, Value) or np.ndim(shape) == 0 and not isinstance(shape, (list, tuple)):
        return (as_dim(shape),)
    return tuple(as_dim(n) for n in shape)


def reshape(x: Any, shape: Any, *more: Any, ndim: int | None = None) -> Any:
    """``x`` under another shape, in row-major order; one size may be -1: whatever remains.

    Sizes are integers or integer scalars, or one integer vector; its length must be known, or be
    given as ``ndim``.  Raises ShapeError (a ValueError) where the numbers of
    elements differ.
    """
    if more and is_list(shape):
        (ndim,) = more  # Theano's second argument
    elif more:
        shape = (shape, *more)
    target = list(dims_of(shape, ndim))
    if ndim is not None and len(target) != ndim:
        raise ValueError(f"reshape: the shape has {len(target)} entries, but ndim is {ndim}")
    free = [k for k, d in enumerate(target) if d == -1]
    if len(free) > 1:
        raise ValueError(f"reshape of {describe(x)}: only one size may be -1, not {shape}")
    if free:
        rest = product(tuple(d for d in target if d != -1))
        total = product(x.type.dims)
        if rest.const == 0 or (total.const is not None and rest.const and total.const % rest.const):
            raise ShapeError(f"{describe(x)} has {total} elements and cannot be reshaped to "
                             f"{tuple(target)}: {total} is no multiple of {rest}")
        target[free[0]] = floordiv(total, rest)
    return views.reshape(x, target)


def is_list(x: Any) -> bool:
    """Does ``x`` hold several numbers: a list, an array, a vector?"""
    return isinstance(x, (list, tuple)) or (isinstance(x, (Value, np.ndarray)) and x.ndim > 0)


def dimshuffle(x: Any, *pattern: Any) -> Any:
    """The axes of ``x`` in another order: integers name axes, 'x' stands for a new axis of size 1
    that broadcasts.  An axis left out must have size 1, known when the graph is built.

    Raises ValueError for an axis that is missing, repeated or cannot be dropped.
    """
    if len(pattern) == 1 and isinstance(pattern[0], (list, tuple)):
        pattern = tuple(pattern[0])
    kept = [check_axis(operator.index(p), x) for p in pattern if not _is_new(p)]
    if len(set(kept)) != len(kept):
        raise ValueError(f"dimshuffle{pattern} of {describe(x)} repeats an axis")
    dropped = [k for k in range(x.ndim) if k not in kept]
    for k in dropped:
        if x.type.dims[k] != 1:
            raise ShapeError(
                f"dimshuffle{pattern} drops axis {k} of {describe(x)}, whose size "
                f"{x.type.dims[k]} is not known to be 1; write T.addbroadcast(x, {k}) first")
    out = views.squeeze(x, dropped)
    order = sorted(kept)
    out = views.transpose(out, [order.index(k) for k in kept])
    return insert_axes(out, [j for j, p in enumerate(pattern) if _is_new(p)])


def _is_new(entry: Any) -> bool:
    return isinstance(entry, str) and entry == "x"


def insert_axes(x: Any, places: Sequence[int]) -> Any:
    """``x`` with new axes of size 1 that stand at ``places`` of the result."""
    if not places:
        return x
    rank = x.ndim + len(places)
    old = [k for k in range(rank) if k not in places]
    dims = [dim(1)] * rank
    for k, d in zip(old, x.type.dims, strict=True):
        dims[k] = d
    return broadcast_to(x, dims, old)


def flatten(x: Any, ndim: int = 1) -> Any:
    """``x`` with ``ndim`` axes: the first ndim - 1 stay, the others become one."""
    if ndim < 1 or (ndim > x.ndim and ndim != 1):
        raise ValueError(f"{describe(x)} cannot be flattened to {ndim} axes: it has {x.ndim}")
    head, tail = x.type.dims[:ndim - 1], x.type.dims[ndim - 1:]
    return views.reshape(x, [*head, product(tail)])


def transpose(x: Any, *axes: Any) -> Any:
    """``x`` with its axes in the order ``axes``, or reversed without them."""
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (list, tuple))):
        axes = tuple(axes[0] or ())
    if not axes:
        return views.transpose(x, range(x.ndim)[::-1])
    perm = axes_of(x, axes)
    if len(perm) != x.ndim:
        raise ValueError(f"transpose{axes} of {describe(x)}: every axis must be named once")
    return views.transpose(x, perm)


def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """``x`` with two axes exchanged."""
    perm = list(range(x.ndim))
    a, b = check_axis(axis1, x), check_axis(axis2, x)
    perm[a], perm[b] = perm[b], perm[a]
    return views.transpose(x, perm)


def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """``x`` with the axes ``source`` moved to the places ``destination``."""
    origin, target = axes_of(x, source), axes_of(x, destination)
    if len(origin) != len(target):
        raise ValueError(f"moveaxis of {describe(x)}: {source} and {destination} differ in number")
    rest = iter([k for k in range(x.ndim) if k not in origin])
    return views.transpose(
        x, [origin[target.index(k)] if k in target else next(rest) for k in range(x.ndim)])


def squeeze(x: Any, axis: Any = None) -> Any:
    """``x`` without its axes of size 1: those known when the graph is built, or those named (a
    named axis whose size is not known is checked at run time)."""
    if axis is None:
        return views.squeeze(x, [k for k, d in enumerate(x.type.dims) if d == 1])
    return views.squeeze(x, sorted(axes_of(x, axis)))


def expand_dims(x: Any, axis: int) -> Any:
    """``x`` with a new axis of size 1 at place ``axis``."""
    rank = x.ndim + 1
    if not -rank <= axis < rank:
        raise IndexError(f"axis {axis}: with a new axis, {describe(x)} has {rank} axes")
    return insert_axes(x, [axis % rank])


def shape_padleft(x: Any, n_ones: int = 1) -> Any:
    """``x`` with ``n_ones`` new axes of size 1 before the others."""
    return insert_axes(x, range(n_ones))


def shape_padright(x: Any, n_ones: int = 1) -> Any:
    """``x`` with ``n_ones`` new axes of size 1 after the others."""
    return insert_axes(x, range(x.ndim, x.ndim + n_ones))


def addbroadcast(x: Any, *axes: int) -> Any:
    """``x`` whose ``axes`` have size 1 and broadcast.  Each is checked at run time where its size
    is not known when the graph is built."""
    todo = sorted(k for k in axes_of(x, axes) if x.type.dims[k] != 1)
    return insert_axes(views.squeeze(x, todo), todo)


def unbroadcast(x: Any, *axes: int) -> Any:
    """``x`` itself.  A size that is known to be 1 always broadcasts here; programs that forbid it
    in other systems mean the same values."""
    axes_of(x, axes)
    return x


def patternbroadcast(x: Any, broadcastable: Sequence[bool]) -> Any:
    """``x`` whose axes marked True have size 1 and broadcast."""
    if len(broadcastable) != x.ndim:
        raise ValueError(f"the pattern {tuple(broadcastable)} has {len(broadcastable)} entries; "
                         f"{describe(x)} has {x.ndim} axes")
    return addbroadcast(x, *(k for k, flag in enumerate(broadcastable) if flag))


# --- several arrays into one, one into several ---------------------------------------------


def together(parts: Any) -> list[Any]:
    """Array-likes as variables of one dtype; Python numbers take the dtype of the others."""
    if isinstance(parts, Value):
        raise TypeError(f"expected a list of variables, not {describe(parts)}")
    like = next((p for p in parts if isinstance(p, Value)), None)
    values = [stack(p) if isinstance(p, (list, tuple)) and any(isinstance(q, Value) for q in p)
              else as_value(p, like) for p in parts]
    if not values:
        raise ValueError("an empty list of variables cannot be joined")
    kind = promote(*(v.type.dtype for v in values), float_x=config.floatX)
    return [cast(v, kind) for v in values]


def concatenate(parts: Any, axis: int = 0) -> Any:
    """``parts`` one after another along ``axis``.  Other sizes must agree; an axis known to be 1
    in one part does not broadcast."""
    values = together(parts)
    first = values[0]
    if first.ndim == 0:
        raise TypeError(f"concatenate: {describe(first)} has no axis; write T.stack([...])")
    for v in values:
        if v.ndim != first.ndim:
            raise TypeError(f"concatenate: {describe(first)} is a {kind_name(first.type)}, but "
                            f"{describe(v)} is a {kind_name(v.type)}; give all parts the same "
                            "number of axes, such as b[:, None] for a vector as a column")
    return views.concatenate(values, check_axis(operator.index(axis), first))


def stack(parts: Any, *more: Any, axis: int = 0) -> Any:
    """Arrays of one shape along a new axis: ``stack([a, b], axis=0)`` or ``stack(a, b)``."""
    if isinstance(parts, (list, tuple)):
        if more:
            (axis,) = more
    else:
        parts = (parts, *more)
    values = together(parts)
    if any(v.ndim != values[0].ndim for v in values):
        kinds = ", ".join(describe(v) for v in values)
        raise TypeError(f"stack takes arrays of one number of axes, not {kinds}")
    rank = values[0].ndim + 1
    if not -rank <= axis < rank:
        raise IndexError(f"stack: axis {axis} of a result with {rank} axes")
    return views.concatenate([insert_axes(v, [axis % rank]) for v in values], axis % rank)


def join(axis: int, *parts: Any) -> Any:
    """``parts`` one after another along ``axis``: ``concatenate`` with the axis first."""
    return concatenate(parts, axis)


def split(x: Any, splits_size: Any, n_splits: int | None = None, axis: int = 0) -> list[Any]:
    """``x`` cut along ``axis`` into pieces of ``splits_size``, which must add up to its size."""
    k = check_axis(axis, x)
    sizes = dims_of(splits_size, n_splits)
    if n_splits is not None and len(sizes) != n_splits:
        raise ValueError(f"split: {len(sizes)} sizes for {n_splits} pieces")
    total = sum(sizes, dim(0))
    x, start = pinned(x, k, total), dim(0)
    out: list[Any] = []
    for size in sizes:
        out.append(views.slice_(x, views.axis_region(x, k, start, size)))
        start = start + size
    return out


def pinned(x: Any, axis: int, size: Dim) -> Any:
    """``x`` whose ``axis`` is known to have ``size``: checked at run time if need be."""
    if x.type.dims[axis] == size:
        return x
    if x.type.dims[axis] == 1:
        raise ShapeError(f"axis {axis} of {describe(x)} has size 1, not {size}")
    return broadcast_to(x, [size if k == axis else d for k, d in enumerate(x.type.dims)])


def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    """Every element ``repeats`` times in a row along ``axis`` (None: of the flattened array).

    ``repeats`` is an integer, an integer scalar, or a vector with a number per element; the
    values of a vector that is no constant decide the size of the result.  A call raises
    IndexError for a negative number in it.
    """
    if axis is None:
        x, axis = flatten(x), 0
    k = check_axis(axis, x)
    counts = constant_value(repeats) if isinstance(repeats, Value) else repeats
    if isinstance(counts, (list, tuple, np.ndarray)) and np.ndim(counts) == 1:
        index = np.repeat(np.arange(len(counts)), counts)
        x = pinned(x, k, dim(len(counts)))
        return apply(Take(k), x, as_value(index, x))[0]
    if isinstance(repeats, Value) and repeats.ndim:
        return _repeated(x, k, repeats)
    count = as_dim(repeats if isinstance(repeats, Value) else int(np.asarray(repeats)))
    wide = insert_axes(x, [k + 1])
    dims = list(wide.type.dims)
    dims[k + 1] = count
    wide = broadcast_to(wide, dims)
    return views.reshape(wide, [*dims[:k], dims[k] * count, *dims[k + 2:]])


def _repeated(x: Any, axis: int, repeats: Any) -> Any:
    """``repeat`` by a vector: every place of the result looks for itself in the running sum."""
    if repeats.ndim != 1 or not repeats.type.dtype.is_int:
        raise TypeError(f"repeat: {describe(repeats)} must be an integer, or a vector of integers")
    cls = type(x).result_class()
    counts = cast(repeats, int64)
    total = maximum(as_dim(reduce_("sum", counts, [0])), dim(0))
    counts = pinned(counts, 0, x.type.dims[axis])
    many = constant(np.iinfo(np.int64).max, int64, cls)
    counts = apply(Bounded(f"the numbers of repeat ({describe(repeats)})"), counts, many)[0]
    ends = apply(Cumulate("sum", 0), counts)[0]
    places = apply(Searchsorted("right"), ends, iota(total, cls=cls))[0]
    return apply(Take(axis), x, places)[0]


def tile(x: Any, reps: Any, ndim: int | None = None) -> Any:
    """``x`` laid side by side ``reps`` times along each of its last axes."""
    counts = list(dims_of(reps, ndim))
    rank = max(x.ndim, len(counts), ndim or 0)
    counts = [dim(1)] * (rank - len(counts)) + counts
    x = shape_padleft(x, rank - x.ndim)
    wide = insert_axes(x, range(0, 2 * rank, 2))
    dims = [d for pair in zip(counts, x.type.dims, strict=True) for d in pair]
    out = [a * b for a, b in zip(counts, x.type.dims, strict=True)]
    return views.reshape(broadcast_to(wide, dims), out)


def roll(x: Any, shift: Any, axis: int | None = None) -> Any:
    """``x`` with its elements moved ``shift`` places along ``axis``; what leaves at the end comes
    back at the front (None: in the flattened array)."""
    if axis is None:
        return views.reshape(roll(flatten(x), shift, 0), x.type.dims)
    k = check_axis(axis, x)
    n, cls = x.type.dims[k], type(x).result_class()
    return apply(Take(k), x, (iota(n, cls=cls) - shift) % size_value(n, cls))[0]


def flip(x: Any, axis: Any = None) -> Any:
    """``x`` backwards along ``axis`` (None: along all)."""
    for k in axes_of(x, axis):
        x = views.reverse(x, k)
    return x


def diff(x: Any, n: int = 1, axis: int = -1) -> Any:
    """Differences of neighbours along ``axis``, taken ``n`` times."""
    k = check_axis(axis, x)
    for _ in range(n):
        size = x.type.dims[k]
        fewer = maximum(size - 1, dim(0))
        later = views.slice_(x, views.axis_region(x, k, 1, fewer))
        x = later - views.slice_(x, views.axis_region(x, k, 0, fewer))
    return x
