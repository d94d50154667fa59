"""Neighbourhoods of images as rows of a matrix, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygraph.dims import dim, floordiv, prove_equal
from tinygraph.errors import ShapeError
from tinygraph.graph import Value, apply, describe
from tinygraph.ops import views
from tinygraph.ops.arithmetic import constant_value
from tinygraph.ops.windows import Sliding, Unwindows, windows
from tinygraph.tensor.conv import pad, setting, steps
from tinygraph.tensor.shaping import dims_of, pinned
from tinygraph.tensor.variable import as_tensor_variable

__all__ = ["images2neibs", "neibs2images"]


def images2neibs(ten4: Any, neib_shape: Any, neib_step: Any = None, mode: str = "valid") -> Any:
    """The neighbourhoods of all pixels of ``ten4`` (images, channels, height, width) as a matrix:
    a row for every image, channel and place, in this order, a column for every pixel of it.

    neib_shape: (rows, columns) of a neighbourhood.  neib_step: steps between them (default: side
    by side).  mode: 'valid' (they must fit exactly), 'ignore_borders' (what is left over is not
    seen), 'half' and 'full' (zeros around the image, as ``conv2d`` has them), 'wrap_centered' (the
    image goes on at its other end; sizes must be odd).

    Raises TypeError for another rank, ValueError for another mode or sizes below 1, ShapeError
    where 'valid' neighbourhoods do not fit.
    """
    x = as_tensor_variable(ten4)
    if x.ndim != 4:
        raise TypeError(f"images2neibs takes (images, channels, height, width), not {describe(x)}")
    sizes = _pair(neib_shape, "neib_shape")
    strides = sizes if neib_step is None else _pair(neib_step, "neib_step")
    if mode not in ("valid", "ignore_borders", "half", "full", "wrap_centered"):
        raise ValueError(f"images2neibs: mode is {mode!r}; it must be 'valid', 'ignore_borders', "
                         "'half', 'full' or 'wrap_centered'")
    if mode == "wrap_centered":
        if any(size % 2 == 0 for size in sizes):
            raise ValueError(f"images2neibs: neib_shape is {sizes}; 'wrap_centered' needs odd "
                             "sizes")
        x = _wrapped(_wrapped(x, 2, sizes[0] // 2), 3, sizes[1] // 2)
    if mode in ("half", "full"):
        x = pad(x, setting(2, mode).pads([dim(n) for n in sizes]))
    if mode == "valid":
        x = _exact(x, sizes, strides)
    seen = windows(x, (2, 3), sizes, strides)
    n, c, i, u, v, j = seen.type.dims
    return views.reshape(views.transpose(seen, (0, 1, 2, 5, 3, 4)), (n * c * i * j, u * v))


def _wrapped(x: Any, axis: int, rows: int) -> Any:
    """``x`` with its last rows before the first and its first ones behind the last."""
    if rows == 0:
        return x
    last = x.type.dims[axis] - rows
    ends = [views.slice_(x, views.axis_region(x, axis, start, rows)) for start in (last, 0)]
    return views.concatenate([ends[0], x, ends[1]], axis)


def _exact(x: Any, sizes: Sequence[int], strides: Sequence[int]) -> Any:
    """``x``, whose last axes end where the last neighbourhoods do."""
    for axis, size, step in zip((2, 3), sizes, strides, strict=True):
        n = x.type.dims[axis]
        whole = floordiv(n - size, dim(step)) * step + size
        if prove_equal(n, whole) is False:
            raise ShapeError(f"images2neibs: neighbourhoods of {size} in steps of {step} do not "
                             f"fit exactly into axis {axis} of {describe(x)}, whose size is {n}")
        x = pinned(x, axis, whole)
    return x


def neibs2images(neibs: Any, neib_shape: Any, original_shape: Any, mode: str = "valid") -> Any:
    """The images of ``original_shape`` whose neighbourhoods, side by side, are ``neibs``: the
    inverse of ``images2neibs``."""
    if mode not in ("valid", "ignore_borders"):
        raise ValueError(f"neibs2images: mode is {mode!r}; it must be 'valid' or 'ignore_borders'")
    x, sizes = as_tensor_variable(neibs), _pair(neib_shape, "neib_shape")
    n, c, height, width = dims = dims_of(original_shape, 4)
    counts = tuple(floordiv(d, dim(size)) for d, size in zip((height, width), sizes, strict=True))
    parts = views.reshape(x, (n, c, *counts, *map(dim, sizes)))
    sliding = Sliding((2, 3), counts, tuple(map(dim, sizes)), sizes, (1, 1))
    return apply(Unwindows(dims, sliding), views.transpose(parts, (0, 1, 2, 4, 5, 3)))[0]


def _pair(given: Any, what: str) -> tuple[int, ...]:
    known = constant_value(given) if isinstance(given, Value) else given
    if known is None:
        raise TypeError(f"{what} is {describe(given)}; it must be known when the graph is built")
    return steps(tuple(int(n) for n in known), 2, what, "neighbours")
