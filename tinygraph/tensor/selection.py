"""Picking elements by a condition: results whose size the values decide."""

from __future__ import annotations

from typing import Any

from tinygraph.dtypes import bool_
from tinygraph.graph import describe
from tinygraph.ops import nonzero as places
from tinygraph.ops.arithmetic import as_value, elementwise
from tinygraph.tensor import indexing, ordering, shaping


def _mask(x: Any) -> Any:
    """``x`` as booleans: true where it is not zero."""
    if x.ndim == 0:
        raise ValueError(f"nonzero takes an array, but {describe(x)} has no axes; write "
                         "x.flatten()")
    return x if x.type.dtype is bool_ else elementwise("ne", x, 0)


def nonzero(x: Any, return_matrix: bool = False) -> Any:
    """Where ``x`` is not zero: per axis a vector (int64) of indices, in row-major order; with
    return_matrix one matrix, shape (axes, elements).  Raises ValueError for a scalar."""
    found = tuple(places.nonzero(_mask(x)))
    return shaping.stack(list(found), axis=0) if return_matrix else found


def flatnonzero(x: Any) -> Any:
    """The indices of the elements of ``x.flatten()`` that are not zero (int64 vector)."""
    mask = _mask(x)
    return places.nonzero(shaping.flatten(mask) if mask.ndim > 1 else mask)[0]


def nonzero_values(x: Any) -> Any:
    """The elements of ``x`` that are not zero, in row-major order: a vector."""
    return indexing.getitem(x, nonzero(x))


def compress(condition: Any, x: Any, axis: int | None = None) -> Any:
    """The slices of ``x`` along ``axis`` (None: elements of x.flatten()) at which the boolean
    vector ``condition`` is true; it may be shorter than the axis."""
    x = shaping.flatten(x) if axis is None else x
    axis = 0 if axis is None else axis % x.ndim
    chosen = nonzero(as_value(condition, x))[0]
    return indexing.getitem(x, (slice(None),) * axis + (chosen,))


def unique(x: Any) -> Any:
    """The values of a vector (or of x.flatten()), each once, sorted."""
    ordered = ordering.sort(shaping.flatten(x))
    head, tail = (indexing.getitem(ordered, s) for s in (slice(None, 1), slice(1, None)))
    before = indexing.getitem(ordered, slice(None, -1))
    return shaping.concatenate([head, indexing.getitem(tail, elementwise("ne", tail, before))], 0)
