"""Pooling: one number for every window of an image or a volume."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.dims import Dim, dim, floordiv, maximum
from tinygraph.graph import Value, apply, describe
from tinygraph.ops.arithmetic import broadcast_to, constant_value, elementwise, full
from tinygraph.ops.sizes import iota, size_value
from tinygraph.ops.views import Region, SetSlice
from tinygraph.ops.windows import Sliding, Windows
from tinygraph.tensor.conv import pad as pad_with_zeros
from tinygraph.tensor.reductions import max_, sum_
from tinygraph.tensor.variable import as_tensor_variable

__all__ = ["max_pool_2d_same_size", "pool_2d", "pool_3d"]

MODES = ("max", "sum", "average_inc_pad", "average_exc_pad")


def pool_2d(input: Any, ws: Any = None, ignore_border: bool | None = None, stride: Any = None,
            pad: Any = (0, 0), mode: str = "max", ds: Any = None, st: Any = None,
            padding: Any = None) -> Any:
    """Pool over the last two axes of ``input``.

    ws: (rows, columns) of a window, or one number for both.  stride: steps between windows
    (default: ws).  ignore_border: leave out windows that are not whole (without it they count, cut
    off at the border).  pad: rows and columns around the image, which never are the maximum; needs
    ignore_border, and less than ws.
    mode: 'max', 'sum', 'average_inc_pad' (padding counts as zeros) or 'average_exc_pad' (it does
    not count).  Every entry that equals the maximum gets its gradient.
    ds, st, padding: older names of ws, stride, pad.

    Raises ValueError for a mode, size or padding that there is not, TypeError for a rank below 2.
    """
    given = _renamed("pool_2d", ws, stride, pad, ds, st, padding)
    return _pool("pool_2d", 2, input, *given, ignore_border, mode)


def pool_3d(input: Any, ws: Any = None, ignore_border: bool | None = None, stride: Any = None,
            pad: Any = (0, 0, 0), mode: str = "max", ds: Any = None, st: Any = None,
            padding: Any = None) -> Any:
    """Pool over the last three axes of ``input``, see ``pool_2d``."""
    given = _renamed("pool_3d", ws, stride, pad, ds, st, padding)
    return _pool("pool_3d", 3, input, *given, ignore_border, mode)


def max_pool_2d_same_size(input: Any, patch_size: Any) -> Any:
    """``input`` with zeros for all that is no maximum of its patch; patches of (rows, columns) lie
    side by side over the last two axes, and what they do not cover is zero."""
    x = as_tensor_variable(input)
    pooling = _checked("max_pool_2d_same_size", 2, x, patch_size, None, None, True, "max")
    seen = pooling.windows(x)
    kept = _window_axes(x.ndim, 2)
    top = max_(seen, kept, keepdims=True)
    found = elementwise("switch", elementwise("eq", seen, top), seen, 0)
    assert seen.node is not None
    return seen.node.op.vjp(seen.node, [found])[0]


@dataclass(frozen=True)
class Pooling:
    """The checked arguments of a call; ``cut``: windows that are not whole count too."""

    name: str
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    cut: bool
    mode: str

    def counts(self, dims: Sequence[Dim]) -> tuple[Dim, ...]:
        """How many windows there are along axes of sizes ``dims``."""
        found = []
        for n, size, stride, p in zip(dims, self.sizes, self.strides, self.pads, strict=True):
            if not self.cut:
                found.append(floordiv(n + (2 * p - size), dim(stride)) + 1)
            elif stride >= size:
                found.append(floordiv(n - 1, dim(stride)) + 1)
            else:
                beyond = floordiv(n + (stride - 1 - size), dim(stride))
                found.append(maximum(beyond, dim(0)) + 1)
        return tuple(found)

    def rest(self, dims: Sequence[Dim]) -> tuple[Dim, ...]:
        """How far the last window reaches beyond the end of each axis."""
        if not self.cut:
            return tuple(dim(p) for p in self.pads)
        return tuple(maximum((count - 1) * stride + size - n, dim(0)) for n, count, size, stride
                     in zip(dims, self.counts(dims), self.sizes, self.strides, strict=True))

    def windows(self, x: Any) -> Any:
        """``x`` seen through the windows, what lies around it filled up."""
        first = x.ndim - len(self.sizes)
        dims = x.type.dims[first:]
        pads = tuple((dim(p), r) for p, r in zip(self.pads, self.rest(dims), strict=True))
        wide = _padded_low(x, pads) if self.mode == "max" else pad_with_zeros(x, pads)
        sliding = Sliding(
            tuple(range(first, x.ndim)), self.counts(dims), tuple(map(dim, self.sizes)),
            self.strides, (1,) * len(self.sizes))
        seen = apply(Windows(sliding), wide)[0]
        seen.name = x.name
        return seen


def _window_axes(ndim: int, rank: int) -> list[int]:
    return list(range(ndim - 1, ndim - 1 + rank))


def _pool(name: str, rank: int, x: Any, ws: Any, stride: Any, pads: Any,
          ignore_border: bool | None, mode: str) -> Any:
    x = as_tensor_variable(x)
    pooling = _checked(name, rank, x, ws, stride, pads, bool(ignore_border), mode)
    if mode.startswith("average"):
        x = x.as_float()
    seen = pooling.windows(x)
    axes = _window_axes(x.ndim, rank)
    if mode == "max":
        return max_(seen, axes)
    total = sum_(seen, axes, dtype=x.dtype)
    if mode == "sum":
        return total
    for k in range(rank):
        total = _divided(total, x, pooling, k)
    return total


def _divided(total: Any, x: Any, pooling: Pooling, k: int) -> Any:
    """``total`` divided by the number of elements that the windows have along one axis."""
    axis = x.ndim - len(pooling.sizes) + k
    size, stride, p = pooling.sizes[k], pooling.strides[k], pooling.pads[k]
    if not pooling.cut and (p == 0 or pooling.mode == "average_inc_pad"):
        return total / size
    cls = type(x).result_class()
    start = iota(total.type.dims[axis], cls=cls) * stride - p
    end = elementwise("minimum", start + size, size_value(x.type.dims[axis], cls))
    count = (end - elementwise("maximum", start, 0)).cast(x.type.dtype)
    return total / broadcast_to(count, total.type.dims, (axis,))


def _padded_low(x: Any, pads: Sequence[tuple[Dim, Dim]]) -> Any:
    """``x`` with the lowest number there is before and after each of its last axes."""
    if all(a == 0 and b == 0 for a, b in pads):
        return x
    first = x.ndim - len(pads)
    kind = x.type.dtype
    low = -np.inf if kind.is_float else False if kind.kind == "b" else int(np.iinfo(kind.np).min)
    dims = (*x.type.dims[:first], *(n + a + b for n, (a, b) in zip(
        x.type.dims[first:], pads, strict=True)))
    starts = (*[dim(0)] * first, *(a for a, _ in pads))
    region = Region(starts, x.type.dims, (1,) * x.ndim)
    return apply(SetSlice(region), full(low, dims, kind, type(x).result_class()), x)[0]


def _renamed(name: str, ws: Any, stride: Any, pads: Any, ds: Any, st: Any, padding: Any
             ) -> tuple[Any, Any, Any]:
    """ws, stride and pad, of which each may have come under its older name."""
    if ds is not None and ws is not None:
        raise ValueError(f"{name}: ws and ds are two names of one argument: pass ws")
    if st is not None and stride is not None:
        raise ValueError(f"{name}: stride and st are two names of one argument: pass stride")
    if padding is not None and any(_integers(pads)):
        raise ValueError(f"{name}: pad and padding are two names of one argument: pass pad")
    return (ds if ws is None else ws, st if stride is None else stride,
            pads if padding is None else padding)


def _integers(given: Any) -> list[int]:
    """Integers that a user gave: a number, several, or constants of them."""
    if isinstance(given, (tuple, list)):
        return [n for one in given for n in _integers(one)]
    known = constant_value(given) if isinstance(given, Value) else np.asarray(given)
    if known is None:
        raise TypeError(f"{describe(given)} must be known when the graph is built: write integers")
    return [operator.index(n) for n in np.atleast_1d(known)]


def _checked(name: str, rank: int, x: Any, ws: Any, stride: Any, pads: Any, ignore: bool,
             mode: str) -> Pooling:
    if x.ndim < rank:
        raise TypeError(f"{name} pools over the last {rank} axes, but {describe(x)} has {x.ndim}")
    if mode not in MODES:
        raise ValueError(f"{name}: mode is {mode!r}; it must be one of {', '.join(MODES)}")
    if ws is None:
        raise ValueError(f"{name}: ws, the size of a window, is missing")
    sizes = _each(name, "ws", ws, rank, 1)
    strides = sizes if stride is None else _each(name, "stride", stride, rank, 1)
    zeros = (0,) * rank if pads is None else _each(name, "pad", pads, rank, 0)
    if any(zeros) and not ignore:
        raise ValueError(f"{name}: pad={zeros} needs ignore_border=True")
    if any(p >= n for p, n in zip(zeros, sizes, strict=True)):
        raise ValueError(f"{name}: pad is {zeros}; it must be less than ws, which is {sizes}")
    return Pooling(name, sizes, strides, zeros, not ignore, mode)


def _each(name: str, what: str, given: Any, rank: int, least: int) -> tuple[int, ...]:
    found = _integers(given)
    if len(found) == 1:
        found *= rank
    if len(found) != rank or min(found) < least:
        raise ValueError(f"{name}: {what} is {given}; it must be {rank} integers of at least "
                         f"{least}")
    return tuple(found)
