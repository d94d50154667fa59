"""Functions that Theano keeps in a module of its own, under the names that it gives them.

``unique`` and ``compress`` are not here: the sizes of what they give depend on values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygraph.config import config
from tinygraph.dims import dim, maximum, minimum
from tinygraph.dtypes import int64, promote
from tinygraph.graph import Value, apply, describe
from tinygraph.ops.arithmetic import as_value, broadcast_to, cast, elementwise, full
from tinygraph.ops.index import Put
from tinygraph.ops.sizes import as_dim, iota, size_value
from tinygraph.ops.views import concatenate
from tinygraph.tensor.constructors import to_one_hot
from tinygraph.tensor.functions import cumprod, cumsum, diff, repeat, searchsorted, squeeze
from tinygraph.tensor.ordering import INSIDE, within
from tinygraph.tensor.shaping import pinned
from tinygraph.tensor.variable import Tensor, as_tensor_variable

__all__ = ["bartlett", "bincount", "cumprod", "cumsum", "diff", "fill_diagonal",
           "fill_diagonal_offset", "ravel_multi_index", "repeat", "searchsorted", "squeeze",
           "to_one_hot", "unravel_index"]


def _integers(x: Any, name: str) -> Any:
    x = as_tensor_variable(x)
    if not x.type.dtype.is_int and x.type.dtype.kind != "b":
        raise TypeError(f"{name} takes integers, not {describe(x)}")
    return x


def bincount(x: Any, weights: Any = None, minlength: Any = None, assert_nonneg: bool = False
             ) -> Any:
    """How often each of 0, 1, ... occurs in the vector ``x``: int64 counts, or sums of
    ``weights``, of their dtype.  There are as many as the largest element asks for, and at least
    ``minlength``.

    An element below zero is refused at run time (IndexError) whether ``assert_nonneg`` or not.
    """
    x = _integers(x, "bincount")
    if x.ndim != 1:
        raise TypeError(f"bincount takes a vector, not {describe(x)}")
    cls = type(x).result_class()
    # The -1 stands for the largest of no elements.
    top = concatenate([cast(x, int64), full(-1, (1,), int64, cls)], 0).max()
    size = as_dim(top) + 1
    # Not below zero: it is the largest of numbers of which one is -1.
    size = maximum(size, dim(0) if minlength is None else as_dim(minlength))
    n = size_value(size, cls)
    x = within(x, n, "what bincount counts")
    if weights is None:
        weights = full(1, x.type.dims, int64, cls)
    weights = as_tensor_variable(weights)
    if weights.ndim != 1:
        raise TypeError(f"bincount: the weights must be a vector, not {describe(weights)}")
    zeros = full(0, (size,), weights.type.dtype, cls)
    return apply(Put(0, "add"), zeros, x, weights)[0]


def fill_diagonal(a: Any, val: Any) -> Any:
    """``a`` with the scalar ``val``, which takes its dtype, on the main diagonal: where all
    indices are equal.  An array of more than two axes must have one size along all."""
    a = as_tensor_variable(a)
    if a.ndim < 2:
        raise TypeError(f"fill_diagonal takes an array of two axes or more, not {describe(a)}")
    if a.ndim > 2:
        for k in range(1, a.ndim):
            a = pinned(a, k, a.type.dims[0])
    places = [_along(a, k) for k in range(a.ndim)]
    hit = elementwise("eq", places[0], places[1])
    for place in places[2:]:
        hit = hit & elementwise("eq", places[0], place)
    return _filled(a, val, hit, "fill_diagonal")


def fill_diagonal_offset(a: Any, val: Any, offset: Any) -> Any:
    """The matrix ``a`` with the scalar ``val``, which takes its dtype, on the diagonal that begins
    ``offset`` columns to the right of the main one, or rows below it if negative."""
    a, offset = as_tensor_variable(a), _integers(offset, "fill_diagonal_offset: an offset")
    if a.ndim != 2 or offset.ndim != 0:
        raise TypeError(f"fill_diagonal_offset takes a matrix and a scalar offset, not "
                        f"{describe(a)} and {describe(offset)}")
    hit = elementwise("eq", _along(a, 0) + offset, _along(a, 1))
    return _filled(a, val, hit, "fill_diagonal_offset")


def _along(a: Any, axis: int) -> Any:
    """Per element of ``a`` its index along ``axis``."""
    return broadcast_to(iota(a.type.dims[axis], cls=type(a).result_class()), a.type.dims, [axis])


def _filled(a: Any, val: Any, hit: Any, name: str) -> Any:
    val, kind = as_value(val, a), a.type.dtype
    if val.ndim != 0 or promote(kind, val.type.dtype, float_x=config.floatX) is not kind:
        raise TypeError(f"{name}: the value must be a scalar that fits into {describe(a)}, of "
                        f"dtype {kind}, not {describe(val)} of dtype {val.type.dtype}")
    val = cast(val, kind)
    return elementwise("switch", hit, val, a)


# --- flat and multiple indices ---------------------------------------------------------------


def _shape(dims: Any, ndim: int | None = None) -> list[Any]:
    """The entries of a shape as int64 scalars."""
    if isinstance(dims, Value) and dims.ndim:
        count = dims.type.dims[0].const if ndim is None else ndim
        if dims.ndim != 1 or count is None:
            raise ValueError(f"{describe(dims)} cannot serve as a shape: its length must be known; "
                             "pass ndim=")
        dims = pinned(dims, 0, dim(count))
        return [size_value(as_dim(dims[k]), Tensor) for k in range(count)]
    sizes = dims if isinstance(dims, (list, tuple)) else [dims]
    return [size_value(as_dim(n), Tensor) for n in sizes]


def _checked_order(order: str) -> bool:
    if order not in ("C", "F"):
        raise ValueError(f"order is {order!r}; it must be 'C', the last index fastest, or 'F', "
                         "the first")
    return order == "F"


def unravel_index(indices: Any, dims: Any, order: str = "C", ndim: int | None = None
                  ) -> tuple[Any, ...]:
    """The indices along each axis, int64, of an array of shape ``dims`` that belong to
    ``indices`` into it flattened.

    order: 'C' flattens with the last index fastest, 'F' with the first.  ndim: how many axes a
    vector ``dims`` of unknown length has.  Raises IndexError at run time for an index out of
    range.
    """
    backwards, sizes = _checked_order(order), _shape(dims, ndim)
    total: Any = 1
    for n in sizes:
        total = n * total
    rest = within(_integers(indices, "unravel_index"), total, "an index of unravel_index")
    found = []
    for n in sizes if backwards else sizes[::-1]:
        found.append(rest % n)
        rest = rest // n
    return tuple(found if backwards else found[::-1])


def ravel_multi_index(multi_index: Sequence[Any], dims: Any, mode: Any = "raise", order: str = "C"
                      ) -> Any:
    """The index, int64, into a flattened array of shape ``dims`` that belongs to one index per
    axis: ``unravel_index`` backwards.

    mode: what an index out of range does, one word for all axes or one for each: 'raise'
    IndexError at run time, 'wrap' around, or 'clip' to the nearest.
    """
    backwards, indices = _checked_order(order), list(multi_index)
    sizes = _shape(dims, len(indices))
    modes = [mode] * len(sizes) if isinstance(mode, str) else list(mode)
    if not len(indices) == len(sizes) == len(modes):
        raise ValueError(f"ravel_multi_index: {len(indices)} indices and {len(modes)} modes for "
                         f"{len(sizes)} axes")
    steps = list(zip(range(len(sizes)), indices, sizes, modes, strict=True))
    flat: Any = 0
    for k, index, n, how in steps[::-1] if backwards else steps:
        if how not in INSIDE:
            raise ValueError(f"ravel_multi_index: mode is {how!r}; it must be 'raise', 'wrap' or "
                             "'clip'")
        index = _integers(index, "ravel_multi_index")
        flat = flat * n + INSIDE[how](index, n, f"index {k} of ravel_multi_index")
    return flat


def bartlett(M: Any) -> Any:
    """The Bartlett window: a triangle of ``M`` points, floatX, from 0 to 1 and back to 0; one
    point is 1."""
    n = maximum(as_dim(M), dim(0))
    place = iota(n, cls=Tensor).as_float()
    # One point has no side to rise on: it stands at the top of a window of three.
    alone = size_value(minimum(n, dim(2)), Tensor) < 2
    last = elementwise("switch", alone, 2, size_value(n - 1, Tensor)).as_float()
    place = elementwise("switch", alone, 1, place)
    return 1 - abs(2 * place / last - 1)
