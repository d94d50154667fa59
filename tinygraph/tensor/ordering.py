"""Along an axis: sorting, the largest elements, places in a sorted vector, running sums and
products, and one of several arrays chosen by an index.

Sorting is stable, and a nan comes after every number, as in NumPy.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygraph.config import config
from tinygraph.dims import Dim, dim, maximum, product
from tinygraph.dtypes import dtype, int64, promote
from tinygraph.graph import Value, apply, describe
from tinygraph.ops import views
from tinygraph.ops.arithmetic import (
    as_value,
    broadcast_to,
    broadcast_together,
    cast,
    check_axis,
    elementwise,
    scalar_constant,
)
from tinygraph.ops.bounds import Bounded
from tinygraph.ops.cumulative import Cumulate
from tinygraph.ops.index import Take
from tinygraph.ops.ordering import Argsort, Searchsorted
from tinygraph.ops.sizes import as_dim, iota, size_value
from tinygraph.tensor.shaping import flatten, insert_axes, moveaxis, together

# --- what the functions below are made of ----------------------------------------------------


def axis_of(x: Any, axis: Any) -> tuple[Any, int]:
    """``x`` and one of its axes, counted from the front; flattened where ``axis`` is None.

    Raises TypeError for an axis that is no constant integer, IndexError where x lacks it.
    """
    if axis is None:
        return flatten(x), 0
    known: Any = scalar_constant(axis) if isinstance(axis, Value) else axis
    if known is None:
        raise TypeError(f"the axis must be a constant integer, not {describe(axis)}")
    return x, check_axis(operator.index(known), x)


def along_last(x: Any, index: Any) -> Any:
    """out[..., j] = x[..., index[..., j]]: the elements that ``index``, of the same leading axes,
    names along the last one.  Raises IndexError at run time for one out of range."""
    if x.ndim == 1:
        return apply(Take(0), x, index)[0]
    *before, n = x.type.dims
    cls = type(x).result_class()
    rows = views.reshape(iota(product(tuple(before)), cls=cls), before)
    flat = views.reshape(x, [product(x.type.dims)])
    places = index + insert_axes(rows * size_value(n, cls), [rows.ndim])
    return apply(Take(0), flat, places)[0]


def within(index: Any, size: Any, what: str) -> Any:
    """The integers ``index``, each of which is checked to be at least 0 and less than ``size``,
    an integer scalar.  Raises IndexError at run time; ``what`` names the index then."""
    size = cast(as_value(size, index), int64)
    return apply(Bounded(f"{what} ({describe(index)})"), cast(index, int64), size)[0]


def wrapped(index: Any, size: Any, what: str) -> Any:
    """The integers ``index`` modulo ``size``."""
    return cast(index, int64) % size


def clipped(index: Any, size: Any, what: str) -> Any:
    """The integers ``index`` moved into [0, size - 1]."""
    return elementwise("minimum", elementwise("maximum", cast(index, int64), 0), size - 1)


INSIDE: dict[str, Callable[[Any, Any, str], Any]] = {
    "raise": within, "wrap": wrapped, "clip": clipped}


def _on_last(x: Any, axis: int, f: Callable[[Any], Any]) -> Any:
    """``f`` of ``x`` with ``axis`` moved to the end, and it moved back in the result."""
    return moveaxis(f(moveaxis(x, axis, -1)), -1, axis)


# --- sorting ---------------------------------------------------------------------------------


def _unordered(name: str, kind: str, order: Any) -> None:
    if order is not None:
        raise ValueError(f"{name}: order={order!r} names fields of records, and arrays here have "
                         "none")
    if kind not in ("quicksort", "mergesort", "heapsort", "stable"):
        raise ValueError(f"{name}: kind is {kind!r}; it must be 'quicksort', 'mergesort', "
                         "'heapsort' or 'stable'")


def sort(x: Any, axis: int | None = -1, kind: str = "quicksort", order: None = None) -> Any:
    """``x`` in ascending order along ``axis`` (None: flattened).  The gradient goes back to where
    the elements came from.  Every ``kind`` is stable."""
    _unordered("sort", kind, order)
    x, k = axis_of(x, axis)
    return _on_last(x, k, lambda v: along_last(v, apply(Argsort(), v)[0]))


def argsort(x: Any, axis: int | None = -1, kind: str = "quicksort", order: None = None) -> Any:
    """The indices, int64, that sort ``x`` along ``axis`` (None: of the flattened array).  Every
    ``kind`` is stable."""
    _unordered("argsort", kind, order)
    x, k = axis_of(x, axis)
    return _on_last(x, k, lambda v: apply(Argsort(), v)[0])


def argtopk(x: Any, kth: Any, axis: int | None = -1, sorted: bool = True,
            idx_dtype: Any = "int64") -> Any:
    """Where the ``kth`` largest elements along ``axis`` stand (None: in the flattened array), the
    largest first; for a negative ``kth`` the smallest, the smallest first.

    Of equal elements the first comes first; a nan counts as larger than any number.  ``sorted``
    False allows any order, and gives this one.  Raises ValueError for a ``kth`` of 0, IndexError
    where it exceeds the size of the axis.
    """
    x, k = axis_of(x, axis)
    return cast(_on_last(x, k, lambda v: _top(v, kth)), dtype(idx_dtype))


def topk(x: Any, kth: Any, axis: int | None = -1, sorted: bool = True,
         idx_dtype: Any = "int64") -> Any:
    """The ``kth`` largest elements along ``axis`` (None: of the flattened array), in the order of
    ``argtopk``; the smallest for a negative ``kth``."""
    return topk_and_argtopk(x, kth, axis, sorted, idx_dtype)[0]


def topk_and_argtopk(x: Any, kth: Any, axis: int | None = -1, sorted: bool = True,
                     idx_dtype: Any = "int64") -> tuple[Any, Any]:
    """The ``kth`` largest elements along ``axis``, and where they stand (see ``argtopk``)."""
    x, k = axis_of(x, axis)
    moved = moveaxis(x, k, -1)
    index = _top(moved, kth)
    values = along_last(moved, index)
    return moveaxis(values, -1, k), cast(moveaxis(index, -1, k), dtype(idx_dtype))


def _top(x: Any, kth: Any) -> Any:
    """The indices of the first of what ``kth`` asks for, along the last axis."""
    sign = scalar_constant(kth) if isinstance(kth, Value) else operator.index(kth)
    if sign == 0:
        raise ValueError(f"topk of {describe(x)}: kth is 0; it must be a positive number of "
                         "largest elements, or a negative one of smallest")
    count = as_dim(kth)
    if count.const is None:
        count = maximum(count, -count)
    cls, axis = type(x).result_class(), x.ndim - 1
    n = x.type.dims[axis]
    last = size_value(n - 1, cls)

    def turned(v: Any) -> Any:
        """Backwards, if the largest are asked for: then equal elements come in their order."""
        if sign is not None:
            return views.reverse(v, axis) if sign > 0 else v
        place = iota(n, cls=cls)
        return apply(Take(axis), v, elementwise("switch", kth > 0, last - place, place))[0]

    order = turned(apply(Argsort(), turned(x))[0])
    order.name = f"the order of {x.name}" if x.name else None
    first = views.slice_(order, views.axis_region(order, axis, 0, abs(count.const)
                                                  if count.const is not None else count))
    if sign is not None:
        return last - first if sign > 0 else first
    return elementwise("switch", kth > 0, last - first, first)


def searchsorted(x: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    """Where the elements of ``v`` would go in the ascending vector ``x``, int64: before those
    that are equal (side='left') or behind them ('right').

    sorter: indices that sort ``x``, where it is not sorted itself.
    """
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side is {side!r}; it must be 'left' or 'right'")
    if x.ndim != 1:
        raise TypeError(f"searchsorted looks into a vector, not into {describe(x)}")
    v = as_value(v, x)
    if sorter is not None:
        x = apply(Take(0), x, as_value(sorter, x))[0]
    kind = promote(x.type.dtype, v.type.dtype, float_x=config.floatX)
    return apply(Searchsorted(side), cast(x, kind), cast(v, kind))[0]


# --- running sums and products -----------------------------------------------------------------


def _running(kind: str, x: Any, axis: int | None) -> Any:
    x, k = axis_of(x, axis)
    x = x if x.type.dtype.is_float else cast(x, int64)
    return apply(Cumulate(kind, k), x)[0]


def cumsum(x: Any, axis: int | None = None) -> Any:
    """The sums of the elements up to each along ``axis`` (None: of the flattened array); int64
    for integers and bools."""
    return _running("sum", x, axis)


def cumprod(x: Any, axis: int | None = None) -> Any:
    """The products of the elements up to each along ``axis`` (None: of the flattened array);
    int64 for integers and bools.  The gradient is exact where elements are zero, too."""
    return _running("prod", x, axis)


# --- a choice ------------------------------------------------------------------------------------


def choose(a: Any, choices: Any, out: None = None, mode: str = "raise") -> Any:
    """out[i] = choices[a[i]][i]: per element of the integers ``a`` that of one of ``choices``, a
    list of arrays or an array along whose first axis they lie; all broadcast together.

    mode: what an index out of range does: 'raise' IndexError at run time, 'wrap' around, or
    'clip' to the nearest.  Raises TypeError for ``out``, which no graph can write to.
    """
    if out is not None:
        raise TypeError("choose: out must be None; arrays of a graph never change")
    if mode not in INSIDE:
        raise ValueError(f"choose: mode is {mode!r}; it must be 'raise', 'wrap' or 'clip'")
    if not a.type.dtype.is_int and a.type.dtype.kind != "b":
        raise TypeError(f"choose: an index must be of integers, not {describe(a)}")
    index, wide = _spread(a, choices)
    n, *rest = wide.type.dims
    cls = type(wide).result_class()
    size = size_value(n, cls)
    index = INSIDE[mode](index, size, "the index of choose")
    each = product(tuple(rest))
    place = views.reshape(iota(each, cls=cls), rest)
    flat = views.reshape(wide, [product(wide.type.dims)])
    return apply(Take(0), flat, index * size_value(each, cls) + place)[0]


def _spread(a: Any, choices: Any) -> tuple[Any, Any]:
    """The index and the choices, along a first axis, broadcast to one shape."""
    if not isinstance(choices, (Value, np.ndarray)):
        index, *values = broadcast_together([a, *together(list(choices))])
        return index, views.concatenate([insert_axes(v, [0]) for v in values], 0)
    stacked = as_value(choices, a)
    if stacked.ndim == 0:
        raise TypeError(f"choose: {describe(stacked)} is a scalar, not several arrays")
    n: Dim = stacked.type.dims[0]
    index, first = broadcast_together([a, views.row(stacked, dim(0))])
    dims = (n, *first.type.dims)
    return index, broadcast_to(stacked, dims, [0, *range(1 + first.ndim - stacked.ndim + 1,
                                                          1 + first.ndim)])
