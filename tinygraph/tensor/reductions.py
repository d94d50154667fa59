"""Reductions over axes: sum, mean, max, argmax, ... as functions of a variable.

Every function takes ``axis`` (None for all, an integer, negative from the end, or several of
them) and ``keepdims`` (the reduced axes stay, with size 1, and broadcast).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygraph.dims import Dim, dim, product
from tinygraph.dtypes import DType, dtype, int64
from tinygraph.graph import Value, apply, describe
from tinygraph.ops.arithmetic import (
    as_value,
    broadcast_to,
    cast,
    check_axis,
    elementwise,
    reduce_,
)
from tinygraph.ops.control import Stop
from tinygraph.ops.sizes import iota, size_value
from tinygraph.ops.views import reshape, transpose

Axis = int | Sequence[int] | None


def axes_of(x: Value, axis: Any) -> tuple[int, ...]:
    """``axis`` as axes counted from the front; all of them for None.

    Raises IndexError for an axis that ``x`` lacks, ValueError for one given twice.
    """
    if axis is None:
        return tuple(range(x.ndim))
    given = axis if isinstance(axis, (list, tuple, np.ndarray)) and np.ndim(axis) else (axis,)
    axes = tuple(check_axis(operator.index(k), x) for k in given)
    if len(set(axes)) != len(axes):
        raise ValueError(f"an axis of {describe(x)} is named twice in {tuple(given)}")
    return axes


def _restored(out: Any, x: Value, axes: Sequence[int], keepdims: bool) -> Any:
    """``out``, which lacks ``axes`` of ``x``; with keepdims they come back with size 1."""
    if not keepdims or not axes:
        return out
    dims = [dim(1) if k in axes else d for k, d in enumerate(x.type.dims)]
    return broadcast_to(out, dims, [k for k in range(x.ndim) if k not in axes])


def _reduced(kind: str, x: Any, axis: Any, keepdims: bool) -> Any:
    axes = axes_of(x, axis)
    return _restored(reduce_(kind, x, axes), x, axes, keepdims)


def _accumulated(kind: str, x: Any, axis: Any, target: Any, keepdims: bool, acc: Any) -> Any:
    """sum or prod: integers and bools give int64; the accumulator may be wider."""
    kept = x.type.dtype if x.type.dtype.is_float else int64
    result = kept if target is None else dtype(target)
    wide = result if acc is None else dtype(acc)
    return cast(_reduced(kind, cast(x, wide), axis, keepdims), result)


def sum_(x: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False,
         acc_dtype: Any = None) -> Any:
    """The sum over ``axis``; int64 for integers and bools unless ``dtype`` is given."""
    return _accumulated("sum", x, axis, dtype, keepdims, acc_dtype)


def prod(x: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False,
         acc_dtype: Any = None, no_zeros_in_input: bool = False) -> Any:
    """The product over ``axis``; int64 for integers and bools unless ``dtype`` is given.

    The gradient is exact where elements are zero.  A caller who knows of none can say so by
    ``no_zeros_in_input``; nothing is different then.
    """
    del no_zeros_in_input
    return _accumulated("prod", x, axis, dtype, keepdims, acc_dtype)


def count_of(x: Value, axis: Any, kind: DType) -> Any:
    """How many elements of ``x`` one reduction over ``axis`` takes, as a scalar."""
    total = product(tuple(x.type.dims[k] for k in axes_of(x, axis)))
    if total.const is not None:
        return total.const
    return cast(size_value(total, type(x).result_class()), kind)


def mean(x: Any, axis: Axis = None, dtype: Any = None, op: bool = False, keepdims: bool = False,
         acc_dtype: Any = None) -> Any:
    """The mean over ``axis``; floatX for integers and bools.  Of no elements it is nan.  ``op``
    is Theano's choice between two forms of it, and says nothing here."""
    del op
    x = x.as_float() if dtype is None else x
    total = sum_(x, axis, dtype, keepdims, acc_dtype)
    total = total.as_float()
    return total / count_of(x, axis, total.type.dtype)


def max_(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The largest element over ``axis``; nan where there is one.  Empty axes are refused."""
    return _reduced("max", x, axis, keepdims)


def min_(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The smallest element over ``axis``; nan where there is one.  Empty axes are refused."""
    return _reduced("min", x, axis, keepdims)


def _as_bool(x: Any) -> Any:
    return x if x.type.dtype.kind == "b" else elementwise("ne", x, 0)


def all_(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Are all elements over ``axis`` true (not zero)?"""
    return _reduced("and", _as_bool(x), axis, keepdims)


def any_(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Is any element over ``axis`` true (not zero)?"""
    return _reduced("or", _as_bool(x), axis, keepdims)


def var(x: Any, axis: Axis = None, ddof: int = 0, keepdims: bool = False,
        corrected: bool = False) -> Any:
    """The variance over ``axis``: the mean squared distance from the mean, divided by the number
    of elements less ``ddof``.  ``corrected`` takes off what the rounding of the mean adds (Chan
    1983, The American Statistician 37, p. 244)."""
    x = x.as_float()
    centered = x - mean(x, axis, keepdims=True)
    squares = centered * centered
    n = count_of(x, axis, x.type.dtype)
    total = sum_(squares, axis, keepdims=keepdims)
    if corrected:
        error = sum_(centered, axis, keepdims=keepdims)
        total = total - error * error / n
    return total / (n - ddof if ddof else n)


def std(x: Any, axis: Axis = None, ddof: int = 0, keepdims: bool = False,
        corrected: bool = False) -> Any:
    """The standard deviation over ``axis``: the square root of ``var``."""
    return var(x, axis, ddof, keepdims, corrected).sqrt()


def _arg(kind: str, x: Any, axis: Any, keepdims: bool) -> Any:
    """The first index at which the extreme stands; for nan, the first nan.  Of several axes, the
    index counts them as one, the last one fastest."""
    axes = tuple(sorted(axes_of(x, axis)))
    if len(axes) != 1:
        rest = [k for k in range(x.ndim) if k not in axes]
        kept = [x.type.dims[k] for k in rest]
        joined = product(tuple(x.type.dims[k] for k in axes))
        flat = reshape(transpose(x, [*rest, *axes]), [*kept, joined])
        return _restored(_arg(kind, flat, len(rest), False), x, axes, keepdims)
    k = axes[0]
    best = reduce_(kind, x, axes)
    kept_axes = [j for j in range(x.ndim) if j != k]
    hit = elementwise("eq", x, broadcast_to(best, x.type.dims, kept_axes))
    if x.type.dtype.is_float:
        hit = hit | elementwise("isnan", x)
    n: Dim = x.type.dims[k]
    cls = type(x).result_class()
    index = broadcast_to(iota(n, cls=cls), x.type.dims, [k])
    first = reduce_("min", elementwise("switch", hit, index, size_value(n, cls)), axes)
    return _restored(first, x, axes, keepdims)


def argmax(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Where the largest element stands along ``axis``, int64.  Along several axes (None: all) they
    count as one, flattened."""
    return _arg("max", x, axis, keepdims)


def argmin(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Where the smallest element stands along ``axis``, int64.  Along several axes (None: all)
    they count as one, flattened."""
    return _arg("min", x, axis, keepdims)


def max_and_argmax(x: Any, axis: Axis = None, keepdims: bool = False) -> tuple[Any, Any]:
    """The largest element along ``axis``, and where it stands."""
    return max_(x, axis, keepdims), argmax(x, axis, keepdims)


def ptp(x: Any, axis: Axis = None) -> Any:
    """The largest element less the smallest over ``axis``."""
    return max_(x, axis) - min_(x, axis)


def norm(x: Any, L: float = 2, axis: Axis = None, keepdims: bool = False) -> Any:
    """The ``L`` norm of the elements over ``axis``: 0 counts those that are not zero, infinity
    takes the largest magnitude, minus infinity the smallest."""
    x = x.as_float()
    if L == 0:
        return sum_(cast(elementwise("ne", x, 0), x.type.dtype), axis, keepdims=keepdims)
    if L == 2:
        return sum_(x * x, axis, keepdims=keepdims).sqrt()
    size = elementwise("abs", x)
    if L == 1:
        return sum_(size, axis, keepdims=keepdims)
    if math.isinf(L):
        return (max_ if L > 0 else min_)(size, axis, keepdims)
    return sum_(size ** L, axis, keepdims=keepdims) ** (1.0 / L)


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) over ``axis``, computed without overflow."""
    x = x.as_float()
    axes = axes_of(x, axis)
    # The shift cancels, so no gradient needs to pass through it; an infinite one is not taken.
    top = apply(Stop("disconnected"), max_(x, axes, keepdims=True))[0]
    infinite = elementwise("isinf", top)
    top = infinite.switch(as_value(0, top), top)
    total = sum_((x - top).exp(), axes, keepdims=True).log() + top
    if keepdims or not axes:
        return total
    return reshape(total, [d for k, d in enumerate(x.type.dims) if k not in axes])
