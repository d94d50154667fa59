"""Axes and borders: atleast_*, stacks by direction, permutations, pad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygraph.dims import Dim, dim
from tinygraph.dtypes import int64
from tinygraph.graph import Value, apply, describe
from tinygraph.ops import arithmetic, views
from tinygraph.ops.arithmetic import as_value, broadcast_together, cast, full
from tinygraph.ops.index import Put
from tinygraph.ops.sizes import as_dim, iota, size_value
from tinygraph.tensor.shaping import concatenate, dims_of, flip, insert_axes, is_list, pinned
from tinygraph.tensor.variable import as_tensor_variable


def _each(one: Callable[[Any], Any], xs: Sequence[Any]) -> Any:
    out = [one(as_tensor_variable(x)) for x in xs]
    return out[0] if len(out) == 1 else out


def atleast_1d(*xs: Any) -> Any:
    """Scalars as vectors of one; a list of results for several operands."""
    return _each(lambda x: insert_axes(x, [0]) if x.ndim == 0 else x, xs)


def atleast_2d(*xs: Any) -> Any:
    """With new first axes of size 1, so that there are two; a list for several operands."""
    return _each(lambda x: insert_axes(x, range(max(0, 2 - x.ndim))), xs)


def atleast_3d(*xs: Any) -> Any:
    """With new axes of size 1, so that there are three: a vector of n is (1, n, 1), a matrix gets
    a last axis; a list for several operands."""
    places = ((0, 1, 2), (0, 2), (2,))
    return _each(lambda x: insert_axes(x, places[x.ndim]) if x.ndim < 3 else x, xs)


def broadcast_to(x: Any, shape: Any) -> Any:
    """``x`` stretched to ``shape``, from axes whose size is known to be 1."""
    x, dims = as_tensor_variable(x), dims_of(shape)
    if x.ndim > len(dims):
        raise ValueError(f"{describe(x)} cannot broadcast to {len(dims)} axes")
    return arithmetic.broadcast_to(x, dims)


def broadcast_arrays(*xs: Any) -> list[Any]:
    """All of ``xs`` stretched to one shape."""
    return broadcast_together([as_tensor_variable(x) for x in xs])


def specify_shape(x: Any, shape: Any) -> Any:
    """``x``, whose sizes are known to be ``shape`` from here on; a call checks them.  An entry of
    None says nothing of its axis."""
    x = as_tensor_variable(x)
    sizes = list(shape) if isinstance(shape, (list, tuple)) else dims_of(shape, x.ndim)
    if len(sizes) != x.ndim:
        raise ValueError(f"specify_shape: {len(sizes)} sizes for {describe(x)}")
    for axis, size in enumerate(sizes):
        if size is not None and as_dim(size) == 1:
            x = insert_axes(views.squeeze(x, [axis]), [axis]) if x.type.dims[axis] != 1 else x
        elif size is not None:
            x = pinned(x, axis, as_dim(size))
    return x


def flipud(x: Any) -> Any:
    """``x`` backwards along its first axis."""
    return flip(as_tensor_variable(x), 0)


def fliplr(x: Any) -> Any:
    """``x`` backwards along its second axis."""
    return flip(as_tensor_variable(x), 1)


def horizontal_stack(*parts: Any) -> Any:
    """Matrices side by side."""
    return concatenate(_matrices(parts, "horizontal_stack"), 1)


def vertical_stack(*parts: Any) -> Any:
    """Matrices one below the other."""
    return concatenate(_matrices(parts, "vertical_stack"), 0)


def _matrices(parts: Sequence[Any], name: str) -> list[Any]:
    values = [as_tensor_variable(p) for p in parts]
    for v in values:
        if v.ndim != 2:
            raise TypeError(f"{name} takes matrices, not {describe(v)}")
    return values


def inverse_permutation(perm: Any) -> Any:
    """The vector q with q[perm[k]] = k; of a matrix, of every row."""
    perm = as_tensor_variable(perm)
    if perm.ndim not in (1, 2) or not perm.type.dtype.is_int:
        raise TypeError(f"a permutation is an integer vector or matrix, not {describe(perm)}")
    cls, n = type(perm).result_class(), perm.type.dims[-1]
    if perm.ndim == 1:
        zeros = full(0, (n,), int64, cls)
        return cast(apply(Put(0, "set"), zeros, perm, iota(n, cls=cls))[0], perm.type.dtype)
    rows = perm.type.dims[0]
    start = insert_axes(iota(rows, cls=cls) * size_value(n, cls), [1])
    flat = views.reshape(start + perm, [rows * n])
    values = views.reshape(arithmetic.broadcast_to(iota(n, cls=cls), (rows, n)), [rows * n])
    out = apply(Put(0, "set"), full(0, (rows * n,), int64, cls), flat, values)[0]
    return cast(views.reshape(out, [rows, n]), perm.type.dtype)


# --- borders --------------------------------------------------------------------------------


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    """``x`` with a border around it.

    pad_width   how many elements go before and behind: a number for every axis, a pair for every
                axis, or a pair per axis; numbers may be integer scalars
    mode        'constant' (``constant_values``, one number), 'edge' (the outermost element again),
                'reflect' (mirrored at the outermost element), 'symmetric' (mirrored behind it) or
                'wrap' (from the other end)
    Raises ValueError for another mode.  A border that needs more elements than an axis has raises
    IndexError.
    """
    x = as_tensor_variable(x)
    widths = _widths(pad_width, x)
    if mode == "constant":
        return _framed(x, widths, constant_values)
    if mode not in _BORDERS:
        raise ValueError(f"pad: mode is {mode!r}; it must be 'constant', 'edge', 'reflect', "
                         "'symmetric' or 'wrap'")
    for axis, (before, after) in enumerate(widths):
        n = x.type.dims[axis]
        parts = [_BORDERS[mode](x, axis, n, before, True), x,
                 _BORDERS[mode](x, axis, n, after, False)]
        parts = [p for p, d in zip(parts, (before, None, after), strict=True) if d != 0]
        x = views.concatenate(parts, axis) if len(parts) > 1 else x
    return x


def _widths(given: Any, x: Any) -> list[tuple[Dim, Dim]]:
    pairs: list[Any] = list(given) if is_list(given) else [(given, given)]
    if len(pairs) == 2 and not any(map(is_list, pairs)):
        pairs = [tuple(pairs)]
    if len(pairs) == 1:
        pairs = pairs * x.ndim
    pairs = [tuple(p) if is_list(p) else (p, p) for p in pairs]
    if len(pairs) != x.ndim or any(len(p) != 2 for p in pairs):
        raise ValueError(f"pad: {given!r} must be a number, a pair, or a pair per axis of "
                         f"{describe(x)}")
    return [(as_dim(a), as_dim(b)) for a, b in pairs]


def _framed(x: Any, widths: Sequence[tuple[Dim, Dim]], value: Any) -> Any:
    dims = [a + n + b for n, (a, b) in zip(x.type.dims, widths, strict=True)]
    region = views.Region(tuple(a for a, _ in widths), x.type.dims, (1,) * x.ndim)
    if not isinstance(value, Value) and value == 0:
        return views.unslice(x, dims, region)
    border = arithmetic.broadcast_to(cast(as_value(value, x), x.type.dtype), dims)
    return apply(views.SetSlice(region), border, x)[0]


def _part(x: Any, axis: int, start: Any, length: Any, step: int = 1) -> Any:
    return views.slice_(x, views.axis_region(x, axis, start, length, step))


def _edge(x: Any, axis: int, n: Dim, width: Dim, front: bool) -> Any:
    one = _part(x, axis, dim(0) if front else n - 1, dim(1))
    dims = [width if k == axis else d for k, d in enumerate(x.type.dims)]
    return arithmetic.broadcast_to(one, dims)


def _reflect(x: Any, axis: int, n: Dim, width: Dim, front: bool) -> Any:
    return _part(x, axis, width if front else n - 2, width, -1)


def _symmetric(x: Any, axis: int, n: Dim, width: Dim, front: bool) -> Any:
    return _part(x, axis, width - 1 if front else n - 1, width, -1)


def _wrap(x: Any, axis: int, n: Dim, width: Dim, front: bool) -> Any:
    return _part(x, axis, n - width if front else dim(0), width)


_BORDERS: dict[str, Callable[..., Any]] = {
    "edge": _edge, "reflect": _reflect, "symmetric": _symmetric, "wrap": _wrap}
