"""Convolutions and their gradients under the names that programs for Theano import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tinygraph.graph import describe
from tinygraph.ops.views import axis_region, concatenate, reshape, slice_
from tinygraph.tensor.conv import (
    conv2d,
    conv2d_transpose,
    conv3d,
    convolve,
    filter_gradient,
    input_gradient,
    setting,
)
from tinygraph.tensor.shaping import dims_of
from tinygraph.tensor.variable import as_tensor_variable, constant

__all__ = [
    "AbstractConv2d", "AbstractConv2d_gradInputs", "AbstractConv2d_gradWeights", "AbstractConv3d",
    "AbstractConv3d_gradInputs", "AbstractConv3d_gradWeights", "bilinear_kernel_1D",
    "bilinear_kernel_2D", "bilinear_upsampling", "conv2d", "conv2d_grad_wrt_inputs",
    "conv2d_grad_wrt_weights", "conv2d_transpose", "conv3d", "conv3d_grad_wrt_inputs",
    "conv3d_grad_wrt_weights", "get_conv_output_shape", "get_conv_shape_1axis"]


def conv2d_grad_wrt_inputs(output_grad: Any, filters: Any, input_shape: Any,
                           filter_shape: Any = None, border_mode: Any = "valid",
                           subsample: Any = (1, 1), filter_flip: bool = True,
                           filter_dilation: Any = (1, 1), num_groups: int = 1) -> Any:
    """The gradient of the input of ``conv2d``, from that of its result.

    input_shape: (batch, channels, height, width), the first two may be None.  Raises as ``conv2d``
    does, and ShapeError where ``output_grad`` is no result for an input of that shape.
    """
    s = setting(2, border_mode, subsample, filter_flip, filter_dilation, num_groups,
                "conv2d_grad_wrt_inputs")
    return input_gradient(output_grad, filters, s, input_shape, filter_shape)


def conv3d_grad_wrt_inputs(output_grad: Any, filters: Any, input_shape: Any,
                           filter_shape: Any = None, border_mode: Any = "valid",
                           subsample: Any = (1, 1, 1), filter_flip: bool = True,
                           filter_dilation: Any = (1, 1, 1), num_groups: int = 1) -> Any:
    """The gradient of the input of ``conv3d``, see ``conv2d_grad_wrt_inputs``."""
    s = setting(3, border_mode, subsample, filter_flip, filter_dilation, num_groups,
                "conv3d_grad_wrt_inputs")
    return input_gradient(output_grad, filters, s, input_shape, filter_shape)


def conv2d_grad_wrt_weights(input: Any, output_grad: Any, filter_shape: Any,
                            input_shape: Any = None, border_mode: Any = "valid",
                            subsample: Any = (1, 1), filter_flip: bool = True,
                            filter_dilation: Any = (1, 1), num_groups: int = 1) -> Any:
    """The gradient of the filters of ``conv2d``, from that of its result.

    filter_shape: (outputs, channels per group, height, width), the first two may be None.
    """
    s = setting(2, border_mode, subsample, filter_flip, filter_dilation, num_groups,
                "conv2d_grad_wrt_weights")
    return filter_gradient(input, output_grad, s, filter_shape, input_shape)


def conv3d_grad_wrt_weights(input: Any, output_grad: Any, filter_shape: Any,
                            input_shape: Any = None, border_mode: Any = "valid",
                            subsample: Any = (1, 1, 1), filter_flip: bool = True,
                            filter_dilation: Any = (1, 1, 1), num_groups: int = 1) -> Any:
    """The gradient of the filters of ``conv3d``, see ``conv2d_grad_wrt_weights``."""
    s = setting(3, border_mode, subsample, filter_flip, filter_dilation, num_groups,
                "conv3d_grad_wrt_weights")
    return filter_gradient(input, output_grad, s, filter_shape, input_shape)


class _Abstract:
    """A convolution whose setting is chosen first; the instance is then called on variables.

    imshp, kshp: the shapes of input and filters, None where a size is not known.
    """

    rank: ClassVar[int] = 2

    def __init__(self, imshp: Any = None, kshp: Any = None, border_mode: Any = "valid",
                 subsample: Any = None, filter_flip: bool = True, filter_dilation: Any = None,
                 num_groups: int = 1) -> None:
        self.imshp = tuple(imshp) if imshp is not None else (None,) * (self.rank + 2)
        self.kshp = tuple(kshp) if kshp is not None else (None,) * (self.rank + 2)
        self.setting = setting(self.rank, border_mode, subsample, filter_flip, filter_dilation,
                               num_groups, type(self).__name__)
        self.border_mode, self.filter_flip = border_mode, filter_flip
        self.subsample, self.filter_dilation = self.setting.strides, self.setting.dilations
        self.num_groups = self.setting.groups

    def _shape(self, first: Sequence[Any], shape: Any) -> list[Any]:
        """Batch (or outputs) and channels, then the sizes of the other axes."""
        return [*first[:2], *dims_of(shape, self.rank)[-self.rank:]]


class AbstractConv2d(_Abstract):
    """``conv2d``, called on (input, filters)."""

    def __call__(self, img: Any, kern: Any) -> Any:
        return convolve(img, kern, self.setting, self.imshp, self.kshp)


class AbstractConv2d_gradInputs(_Abstract):  # noqa: N801
    """The gradient of the input, called on (filters, gradient of the result, sizes of the input's
    last axes)."""

    def __call__(self, kern: Any, topgrad: Any, shape: Any, add_assert_shape: bool = True) -> Any:
        return input_gradient(topgrad, kern, self.setting, self._shape(self.imshp, shape),
                              self.kshp)


class AbstractConv2d_gradWeights(_Abstract):  # noqa: N801
    """The gradient of the filters, called on (input, gradient of the result, sizes of the filters'
    last axes)."""

    def __call__(self, img: Any, topgrad: Any, shape: Any, add_assert_shape: bool = True) -> Any:
        return filter_gradient(img, topgrad, self.setting, self._shape(self.kshp, shape),
                               self.imshp)


class AbstractConv3d(AbstractConv2d):
    """``conv3d``, called on (input, filters)."""

    rank = 3


class AbstractConv3d_gradInputs(AbstractConv2d_gradInputs):  # noqa: N801
    """``AbstractConv2d_gradInputs`` over three axes."""

    rank = 3


class AbstractConv3d_gradWeights(AbstractConv2d_gradWeights):  # noqa: N801
    """``AbstractConv2d_gradWeights`` over three axes."""

    rank = 3


def get_conv_output_shape(image_shape: Sequence[Any], kernel_shape: Sequence[Any],
                          border_mode: Any, subsample: Any, filter_dilation: Any = None
                          ) -> tuple[Any, ...]:
    """The shape of a convolution's result: (batch, outputs, ...).  Sizes are integers, integer
    scalars, or None where they are not known; so is the result."""
    rank = len(image_shape) - 2
    if filter_dilation is None:
        filter_dilation = (1,) * rank
    modes = [border_mode] * rank if isinstance(border_mode, (str, int)) else list(border_mode)
    spatial = zip(image_shape[2:], kernel_shape[2:], modes, subsample, filter_dilation,
                  strict=True)
    return (image_shape[0], kernel_shape[0], *(get_conv_shape_1axis(*axis) for axis in spatial))


def get_conv_shape_1axis(image_shape: Any, kernel_shape: Any, border_mode: Any, subsample: Any,
                         dilation: Any = 1) -> Any:
    """The size of one axis of a convolution's result; None if one of the sizes is.

    border_mode: 'valid', 'half', 'full', a number of zeros or a pair of them.
    """
    if None in (image_shape, kernel_shape):
        return None
    extent = (kernel_shape - 1) * dilation + 1
    if isinstance(border_mode, str):
        modes = {"valid": 0, "half": extent // 2, "full": extent - 1}
        if border_mode not in modes:
            raise ValueError(f"border_mode is {border_mode!r}; it must be one of {list(modes)}")
        zeros = 2 * modes[border_mode]
    else:
        zeros = sum(border_mode) if isinstance(border_mode, (tuple, list)) else 2 * border_mode
        if zeros < 0:
            raise ValueError(f"border_mode is {border_mode}; it must not be negative")
    return (image_shape + zeros - extent) // subsample + 1


def bilinear_kernel_1D(ratio: int, normalize: bool = True) -> Any:  # noqa: N802
    """The vector 1, 2, ..., ratio, ..., 2, 1, divided by ``ratio`` if ``normalize``."""
    return constant(_rise_and_fall(ratio) / (ratio if normalize else 1), dtype="floatX")


def _rise_and_fall(ratio: int) -> np.ndarray:
    rise = np.arange(1.0, ratio + 1)
    return np.concatenate([rise, rise[-2::-1]])


def bilinear_kernel_2D(ratio: int, normalize: bool = True) -> Any:  # noqa: N802
    """The outer product of two ``bilinear_kernel_1D``."""
    kernel = bilinear_kernel_1D(ratio, normalize)
    return kernel.dimshuffle(0, "x") * kernel.dimshuffle("x", 0)


def bilinear_upsampling(input: Any, ratio: int, *, batch_size: Any = None,
                        num_input_channels: Any = None, use_1D_kernel: bool = True  # noqa: N803
                        ) -> Any:
    """``input`` (batch, channels, height, width) with height and width ``ratio`` times as large,
    interpolated linearly; beyond its border it goes on as at the border.

    batch_size, num_input_channels and use_1D_kernel are taken from programs that have them: sizes
    need not be known, and both ways to compute it give the same.
    """
    x = as_tensor_variable(input).as_float()
    if x.ndim != 4:
        raise TypeError("bilinear_upsampling takes (batch, channels, height, width), not "
                        f"{describe(x)}")
    n, c, height, width = x.type.dims
    x = reshape(x, (n * c, 1, height, width))
    for axis in (2, 3):
        x = _stretched(x, axis, ratio)
    return reshape(x, (n, c, height * ratio, width * ratio))


def _stretched(x: Any, axis: int, ratio: int) -> Any:
    """One axis of images of one channel ``ratio`` times as large: the gradient of a convolution in
    steps of ``ratio``, with the first and the last row repeated before."""
    n = x.type.dims[axis]
    ends = [slice_(x, axis_region(x, axis, at, 1)) for at in (0, n - 1)]
    wide = concatenate([ends[0], x, ends[1]], axis)

    def along(value: int, other: int) -> tuple[int, int]:
        return (value, other) if axis == 2 else (other, value)

    s = setting(2, along(2 * ratio - (ratio - 1) // 2 - 1, 0), along(ratio, 1),
                name="bilinear_upsampling")
    values = _rise_and_fall(ratio).reshape(1, 1, *along(2 * ratio - 1, 1)) / ratio
    kernel = constant(np.asarray(values, x.type.dtype.np))
    dims = list(x.type.dims)
    dims[axis] = n * ratio
    return input_gradient(wide, kernel, s, dims)
