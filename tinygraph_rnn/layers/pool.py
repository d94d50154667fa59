"""Layers that pool, and layers that scale up: of places, and of features.

Inputs and outputs are (batch, channels, spatial axes...).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import tinygraph.tensor as T
from tinygraph.tensor.signal.pool import pool_2d, pool_3d
from tinygraph_rnn.layers.base import Incoming, Layer, Shape
from tinygraph_rnn.layers.conv import check_rank, per_axis

__all__ = [
    "FeaturePoolLayer", "FeatureWTALayer", "GlobalPoolLayer", "MaxPool1DLayer", "MaxPool2DLayer",
    "MaxPool3DLayer", "Pool1DLayer", "Pool2DLayer", "Pool3DLayer", "Upscale1DLayer",
    "Upscale2DLayer", "Upscale3DLayer", "pool_output_length"]

_MODES = ("max", "sum", "average_inc_pad", "average_exc_pad")


def pool_output_length(input_length: Any, pool_size: int, stride: int, pad: int,
                       ignore_border: bool) -> Any:
    """The number of windows along one axis; None if ``input_length`` is.

    Arguments: those of ``Pool2DLayer``, for one axis.  Raises ValueError for padding without
    ignore_border.
    """
    _check_pad((pad,), (pool_size,), ignore_border)
    if input_length is None:
        return None
    if ignore_border:
        return (input_length + 2 * pad - pool_size) // stride + 1
    if stride >= pool_size:
        return (input_length + stride - 1) // stride
    return max(0, (input_length - pool_size + stride - 1) // stride) + 1


def _check_pad(pad: tuple[int, ...], pool_size: tuple[int, ...], ignore_border: bool) -> None:
    if any(pad) and not ignore_border:
        raise ValueError(f"pad is {pad}, but without ignore_border there is no padding: it must be "
                         "0")
    if any(p >= size for p, size in zip(pad, pool_size, strict=True)):
        raise ValueError(f"pad is {pad}; it must be less than pool_size, which is {pool_size}: a "
                         "window must see the input")


class _Pool(Layer):
    """Pooling over ``n`` axes; the arguments are documented at ``Pool2DLayer``."""

    n: ClassVar[int]

    def __init__(self, incoming: Incoming, pool_size: Any, stride: Any, pad: Any,
                 ignore_border: bool, mode: str, name: str | None) -> None:
        super().__init__(incoming, name)
        check_rank(self, self.n)
        self.pool_size = per_axis(pool_size, self.n, "pool_size", 1)
        self.stride = self.pool_size if stride is None else per_axis(stride, self.n, "stride", 1)
        self.pad = per_axis(pad, self.n, "pad", 0)
        self.ignore_border, self.mode = ignore_border, mode
        if mode not in _MODES:
            raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(_MODES)}")
        _check_pad(self.pad, self.pool_size, ignore_border)
        self.get_output_shape_for(self.input_shape)

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        lengths = [pool_output_length(*axis, self.ignore_border) for axis in zip(
            input_shape[2:], self.pool_size, self.stride, self.pad, strict=True)]
        if any(isinstance(n, int) and n < 1 for n in lengths):
            raise ValueError(f"an input of shape {tuple(input_shape)} is smaller than one window "
                             f"of pool_size={self.pool_size}; ignore_border=False pools what "
                             "there is")
        return (*input_shape[:2], *lengths)

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        pool, sizes, strides, pads = pool_3d, self.pool_size, self.stride, self.pad
        if self.n == 1:  # one column of an image
            input = input.dimshuffle(0, 1, 2, "x")
            sizes, strides, pads = (*sizes, 1), (*strides, 1), (*pads, 0)
        if self.n < 3:
            pool = pool_2d
        out = pool(input, ws=sizes, ignore_border=self.ignore_border, stride=strides, pad=pads,
                   mode=self.mode)
        return out[:, :, :, 0] if self.n == 1 else out


class Pool1DLayer(_Pool):
    """Pooling along one axis: (batch, channels, length) to (batch, channels, length'), see
    ``Pool2DLayer``."""

    n = 1

    def __init__(self, incoming: Incoming, pool_size: Any, stride: Any = None, pad: Any = 0,
                 ignore_border: bool = True, mode: str = "max", name: str | None = None) -> None:
        super().__init__(incoming, pool_size, stride, pad, ignore_border, mode, name)


class Pool2DLayer(_Pool):
    """One number for every window of an image: (batch, channels, rows, columns) to (batch,
    channels, rows', columns').

    pool_size: of a window, an int or one per axis.  stride: steps between windows; None is
    pool_size.  pad: zeros on either side, less than pool_size; no maximum is taken of them.
    ignore_border: leave out windows that are not whole; False counts them, cut off at the border,
    and needs pad=0.  mode: 'max', 'average_inc_pad' (zeros of the padding count), 'average_exc_pad'
    (they do not) or 'sum'.
    Raises ValueError for sizes and modes that do not fit.
    """

    n = 2

    def __init__(self, incoming: Incoming, pool_size: Any, stride: Any = None,
                 pad: Any = (0, 0), ignore_border: bool = True, mode: str = "max",
                 name: str | None = None) -> None:
        super().__init__(incoming, pool_size, stride, pad, ignore_border, mode, name)


class Pool3DLayer(_Pool):
    """Pooling of volumes: (batch, channels, depth, rows, columns), see ``Pool2DLayer``."""

    n = 3

    def __init__(self, incoming: Incoming, pool_size: Any, stride: Any = None,
                 pad: Any = (0, 0, 0), ignore_border: bool = True, mode: str = "max",
                 name: str | None = None) -> None:
        super().__init__(incoming, pool_size, stride, pad, ignore_border, mode, name)


class MaxPool1DLayer(Pool1DLayer):
    """``Pool1DLayer`` with mode 'max'."""

    def __init__(self, incoming: Incoming, pool_size: Any, stride: Any = None, pad: Any = 0,
                 ignore_border: bool = True, name: str | None = None) -> None:
        super().__init__(incoming, pool_size, stride, pad, ignore_border, "max", name)


class MaxPool2DLayer(Pool2DLayer):
    """``Pool2DLayer`` with mode 'max'."""

    def __init__(self, incoming: Incoming, pool_size: Any, stride: Any = None,
                 pad: Any = (0, 0), ignore_border: bool = True, name: str | None = None) -> None:
        super().__init__(incoming, pool_size, stride, pad, ignore_border, "max", name)


class MaxPool3DLayer(Pool3DLayer):
    """``Pool3DLayer`` with mode 'max'."""

    def __init__(self, incoming: Incoming, pool_size: Any, stride: Any = None,
                 pad: Any = (0, 0, 0), ignore_border: bool = True, name: str | None = None
                 ) -> None:
        super().__init__(incoming, pool_size, stride, pad, ignore_border, "max", name)


class _Upscale(Layer):
    """Scaling up over ``n`` axes; the arguments are documented at ``Upscale1DLayer``."""

    n: ClassVar[int]

    def __init__(self, incoming: Incoming, scale_factor: Any, mode: str = "repeat",
                 name: str | None = None) -> None:
        super().__init__(incoming, name)
        check_rank(self, self.n)
        self.scale_factor = per_axis(scale_factor, self.n, "scale_factor", 1)
        if mode not in ("repeat", "dilate"):
            raise ValueError(f"mode is {mode!r}; it must be 'repeat' or 'dilate'")
        self.mode = mode

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        return (*input_shape[:2], *(None if n is None else n * k for n, k in zip(
            input_shape[2:], self.scale_factor, strict=True)))

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        if self.mode == "repeat":
            for k, factor in enumerate(self.scale_factor):
                input = T.repeat(input, factor, axis=2 + k) if factor > 1 else input
            return input
        shape = [input.shape[k] for k in range(input.ndim)]
        sizes = [n * k for n, k in zip(shape[2:], self.scale_factor, strict=True)]
        zeros = T.zeros((*shape[:2], *sizes), dtype=input.dtype)
        places = (slice(None), slice(None), *(slice(None, None, k) for k in self.scale_factor))
        return T.set_subtensor(zeros[places], input)


class Upscale1DLayer(_Upscale):
    """Scale sequences up: (batch, channels, length).

    scale_factor: an int, or one per axis, of at least 1: every axis becomes so many times as long.
    mode: 'repeat' repeats every element; 'dilate' puts zeros behind it.
    Raises ValueError for a factor below 1 or another mode.
    """

    n = 1


class Upscale2DLayer(_Upscale):
    """Scale images up: (batch, channels, rows, columns), see ``Upscale1DLayer``."""

    n = 2


class Upscale3DLayer(_Upscale):
    """Scale volumes up: (batch, channels, depth, rows, columns), see ``Upscale1DLayer``."""

    n = 3


class _FeaturePools(Layer):
    """Neighbours along ``axis`` in pools of ``pool_size``, side by side."""

    def __init__(self, incoming: Incoming, pool_size: int, axis: int, name: str | None) -> None:
        super().__init__(incoming, name)
        (self.pool_size,) = per_axis(pool_size, 1, "pool_size", 1)
        rank = len(self.input_shape)
        if not -rank <= axis < rank:
            raise ValueError(f"axis {axis} of an input of shape {self.input_shape}: there is no "
                             "such axis")
        self.axis = axis % rank
        size = self.input_shape[self.axis]
        if size is not None and size % self.pool_size:
            raise ValueError(f"axis {self.axis} of the input has size {size}, which pool_size="
                             f"{self.pool_size} does not divide")

    def pools(self, x: Any) -> Any:
        """``x`` with an axis of pools and one within a pool for ``axis``."""
        k = self.axis
        shape = [x.shape[i] for i in range(x.ndim)]
        size = self.input_shape[k]
        count = -1 if size is None else size // self.pool_size
        return x.reshape((*shape[:k], count, self.pool_size, *shape[k + 1:]))


class FeaturePoolLayer(_FeaturePools):
    """pool_function of every pool of ``pool_size`` neighbours along ``axis``: maxout, with T.max
    (Goodfellow et al. 2013, arXiv:1302.4389).

    pool_function: takes a tensor and ``axis=``, which it removes.
    Raises ValueError where pool_size does not divide the axis.
    """

    def __init__(self, incoming: Incoming, pool_size: int, axis: int = 1,
                 pool_function: Callable[..., Any] = T.max, name: str | None = None) -> None:
        super().__init__(incoming, pool_size, axis, name)
        self.pool_function = pool_function

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        size = input_shape[self.axis]
        pooled = None if size is None else size // self.pool_size
        return (*input_shape[:self.axis], pooled, *input_shape[self.axis + 1:])

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        return self.pool_function(self.pools(input), axis=self.axis + 1)


class FeatureWTALayer(_FeaturePools):
    """Winner takes all: of every pool of ``pool_size`` neighbours along ``axis`` the largest stays
    (the first, if several are), the others become 0 (Srivastava et al. 2013, Compete to compute).

    Raises ValueError where pool_size does not divide the axis.
    """

    def __init__(self, incoming: Incoming, pool_size: int, axis: int = 1, name: str | None = None
                 ) -> None:
        super().__init__(incoming, pool_size, axis, name)

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        pools = self.pools(input)
        winner = T.argmax(pools, axis=self.axis + 1, keepdims=True)
        place = T.arange(self.pool_size).dimshuffle(
            *("x" if k != self.axis + 1 else 0 for k in range(pools.ndim)))
        kept = T.switch(T.eq(winner, place), pools, 0)
        return kept.reshape(tuple(input.shape[k] for k in range(input.ndim)))


class GlobalPoolLayer(Layer):
    """pool_function over all axes behind the first two: (batch, channels, ...) to (batch,
    channels).  pool_function: takes a tensor and ``axis=``, which it removes."""

    def __init__(self, incoming: Incoming, pool_function: Callable[..., Any] = T.mean,
                 name: str | None = None) -> None:
        super().__init__(incoming, name)
        if len(self.input_shape) < 3:
            raise ValueError("GlobalPoolLayer needs an input of 3 axes at least (batch, channels, "
                             f"spatial...), but it has shape {self.input_shape}")
        self.pool_function = pool_function

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        return input_shape[:2]

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        return self.pool_function(input.flatten(3), axis=2)
