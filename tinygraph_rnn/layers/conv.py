"""Convolutions over one, two or three axes, and the same backwards.

    z[n, o, i, ...] = sum over c, u, ... of x[n, c, i * stride + u - pad, ...] * W[o, c, u, ...]

with W run backwards where filters are flipped (a convolution; without, a correlation).  Inputs and
outputs are (batch, channels, spatial axes...).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import tinygraph.tensor as T
from tinygraph.graph import Value
from tinygraph.tensor.nnet.abstract_conv import conv2d_grad_wrt_inputs, conv3d_grad_wrt_inputs
from tinygraph_rnn import init, nonlinearities
from tinygraph_rnn.layers.base import (
    Incoming,
    Layer,
    Nonlinearity,
    Shape,
    checked_nonlinearity,
    known_channels,
)

__all__ = [
    "BaseConvLayer", "Conv1DLayer", "Conv2DLayer", "Conv3DLayer", "Deconv2DLayer", "Deconv3DLayer",
    "DilatedConv2DLayer", "TransposedConv2DLayer", "TransposedConv3DLayer", "conv_input_length",
    "conv_output_length"]

_WEIGHTS = init.GlorotUniform()
_ZERO = init.Constant(0.0)
_MODES = ("valid", "full", "same")


def conv_output_length(input_length: Any, filter_size: int, stride: int, pad: Any = 0) -> Any:
    """The length of a convolution's output along one axis; None if ``input_length`` is.

    pad: the zeros on either side, or 'valid' (none), 'full' (filter_size - 1) or 'same' (as many
    as keep the length at stride 1).  Raises ValueError for another one.
    """
    before = _zeros(pad, filter_size)
    if input_length is None:
        return None
    places = input_length if pad == "same" else input_length + 2 * before - filter_size + 1
    return (places + stride - 1) // stride


def conv_input_length(output_length: Any, filter_size: int, stride: int, pad: Any = 0) -> Any:
    """The least length of an input for which a convolution gives ``output_length``; None if that
    is None.  pad: as in ``conv_output_length``."""
    before = _zeros(pad, filter_size)
    if output_length is None:
        return None
    return (output_length - 1) * stride - 2 * before + filter_size


def _zeros(pad: Any, filter_size: int) -> int:
    """The number of zeros before the input that ``pad`` says."""
    if isinstance(pad, str) and pad in _MODES:
        return {"valid": 0, "full": filter_size - 1, "same": filter_size // 2}[pad]
    if isinstance(pad, str) or not hasattr(pad, "__index__"):
        raise ValueError(f"pad is {pad!r}; it must be an int, 'valid', 'full' or 'same'")
    return operator.index(pad)


def per_axis(given: Any, n: int, what: str, least: int) -> tuple[int, ...]:
    """``given``, an int for all of ``n`` axes or one for each, as a tuple.

    Raises TypeError for what is no int, ValueError for another count or an int below ``least``.
    """
    many = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else None
    try:
        found = tuple(map(operator.index, (given,) * n if many is None else many))
    except TypeError:
        raise TypeError(f"{what} is {given!r}; it must be an int, or {n} of them") from None
    if len(found) != n or min(found, default=least) < least:
        raise ValueError(f"{what} is {given!r}; it must be an int of at least {least}, or {n} of "
                         "them")
    return found


def check_rank(layer: Layer, n: int) -> None:
    """Raise ValueError unless the input of ``layer`` has ``n`` spatial axes."""
    if len(layer.input_shape) != n + 2:
        raise ValueError(f"{type(layer).__name__} needs an input of {n + 2} axes (batch, channels, "
                         f"{n} spatial), but it has shape {layer.input_shape}")


class BaseConvLayer(Layer):
    """What convolutions over ``n`` spatial axes share: their arguments, and the bias and
    nonlinearity behind ``convolve``, which a layer defines.

    num_filters: the number of output channels.  filter_size, stride: an int, or one per axis.
    pad: zeros on either side of the input, an int or one per axis; 'valid' is 0, 'full' is
    filter_size - 1, 'same' (odd filters only) keeps the sizes at stride 1.
    untie_biases: a bias for every place, (num_filters, spatial sizes...), not only for every
    filter, (num_filters,).  W: the filters, of shape ``get_W_shape()``.  b: None for no bias.
    nonlinearity: None for the identity.  flip_filters: convolve; False: correlate.
    num_groups: channels and filters in so many groups, each of which sees only its own channels.
    n: the number of spatial axes; None takes it from the input.

    Raises ValueError where sizes do not fit or the number of channels is not known,
    NotImplementedError for 'same' with a filter of even size.
    """

    pad_name: ClassVar[str] = "pad"

    def __init__(self, incoming: Incoming, num_filters: int, filter_size: Any, stride: Any = 1,
                 pad: Any = 0, untie_biases: bool = False, W: Any = _WEIGHTS, b: Any = _ZERO,
                 nonlinearity: Nonlinearity | None = nonlinearities.rectify,
                 flip_filters: bool = True, num_groups: int = 1, n: int | None = None,
                 name: str | None = None) -> None:
        super().__init__(incoming, name)
        self.n = len(self.input_shape) - 2 if n is None else n
        check_rank(self, self.n)
        (self.num_filters,) = per_axis(num_filters, 1, "num_filters", 1)
        self.filter_size = per_axis(filter_size, self.n, "filter_size", 1)
        self.stride = per_axis(stride, self.n, "stride", 1)
        self.pad = self._pad(pad)
        self.untie_biases, self.flip_filters = untie_biases, flip_filters
        self.nonlinearity = checked_nonlinearity(nonlinearity)
        self.num_groups = num_groups
        self._check_channels()
        shape = self.output_shape
        self.W = self.add_param(W, self.get_W_shape(), "W")
        self.b = None
        if b is not None:
            self.b = self.add_param(b, self._bias_shape(shape), "b", regularizable=False)

    def _pad(self, pad: Any) -> Any:
        if pad == "same" and any(size % 2 == 0 for size in self.filter_size):
            raise NotImplementedError(f"{self.pad_name} is 'same', but filter_size is "
                                      f"{self.filter_size}: only filters of odd size keep the "
                                      "sizes of the input")
        if isinstance(pad, str):
            _zeros(pad, 1)
            return (0,) * self.n if pad == "valid" else pad
        return per_axis(pad, self.n, self.pad_name, 0)

    def _check_channels(self) -> None:
        channels, groups = known_channels(self), self.num_groups
        if groups < 1 or channels % groups or self.num_filters % groups:
            raise ValueError(f"num_groups is {groups}; it must be positive, and divide the "
                             f"{channels} channels of the input and the {self.num_filters} filters")

    def _bias_shape(self, output_shape: Shape) -> tuple[int, ...]:
        if not self.untie_biases:
            return (self.num_filters,)
        if None in output_shape[1:]:
            raise ValueError("untie_biases=True makes a bias for every place, but the output has "
                             f"shape {output_shape}: give the spatial sizes of the input")
        return tuple(n for n in output_shape[1:] if n is not None)

    def get_W_shape(self) -> tuple[int, ...]:  # noqa: N802
        """The shape of W: (num_filters, channels / num_groups, *filter_size)."""
        return (self.num_filters, known_channels(self) // self.num_groups, *self.filter_size)

    def _pads(self) -> tuple[Any, ...]:
        """The entry of ``pad`` for each axis."""
        return self.pad if isinstance(self.pad, tuple) else (self.pad,) * self.n

    def _lengths(self, spatial: Sequence[Any]) -> list[Any]:
        """The spatial sizes of the output for those of an input."""
        return [conv_output_length(*axis) for axis in zip(
            spatial, self.filter_size, self.stride, self._pads(), strict=True)]

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        lengths = self._lengths(input_shape[2:])
        if any(isinstance(n, int) and n < 1 for n in lengths):
            raise ValueError(f"an input of shape {tuple(input_shape)} is too small for "
                             f"{type(self).__name__} with filters of {self.filter_size} and "
                             f"{self.pad_name}={self.pad!r}: no output would be left")
        return (input_shape[0], self.num_filters, *lengths)

    def convolve(self, input: Any, **kwargs: Any) -> Any:
        """The convolution of ``input`` with W, without bias."""
        raise NotImplementedError(f"{type(self).__name__}.convolve")

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        activation = self.convolve(input, **kwargs)
        if self.b is not None and self.untie_biases:
            activation = activation + self.b.dimshuffle("x", *range(self.b.ndim))
        elif self.b is not None:
            activation = activation + self.b.dimshuffle("x", 0, *("x",) * self.n)
        return self.nonlinearity(activation)

    def border_mode(self) -> Any:
        """``pad`` in the words of ``T.nnet.conv2d``."""
        return "half" if self.pad == "same" else self.pad

    def known_input(self) -> Shape:
        """The input's shape for ``T.nnet.conv2d``: the batch may differ from the one said."""
        return (None, *self.input_shape[1:])


class _Conv(BaseConvLayer):
    """A convolution by a function with the arguments of ``T.nnet.conv2d``."""

    rank: ClassVar[int]

    def __init__(self, incoming: Incoming, num_filters: int, filter_size: Any, stride: Any,
                 pad: Any, untie_biases: bool, W: Any, b: Any, nonlinearity: Nonlinearity | None,
                 flip_filters: bool, convolution: Callable[..., Any], num_groups: int,
                 name: str | None) -> None:
        super().__init__(incoming, num_filters, filter_size, stride, pad, untie_biases, W, b,
                         nonlinearity, flip_filters, num_groups, self.rank, name)
        self.convolution = convolution

    def convolve(self, input: Any, **kwargs: Any) -> Any:
        groups = {"num_groups": self.num_groups} if self.num_groups > 1 else {}
        return self.convolution(
            input, self.W, self.known_input(), self.get_W_shape(), subsample=self.stride,
            border_mode=self.border_mode(), filter_flip=self.flip_filters, **groups)


class Conv1DLayer(_Conv):
    """Convolution along one axis: (batch, channels, length) to (batch, num_filters, length').

    convolution: a function with the arguments of ``T.nnet.conv1d``.  The other arguments: see
    ``BaseConvLayer``.
    """

    rank = 1

    def __init__(self, incoming: Incoming, num_filters: int, filter_size: Any, stride: Any = 1,
                 pad: Any = 0, untie_biases: bool = False, W: Any = _WEIGHTS, b: Any = _ZERO,
                 nonlinearity: Nonlinearity | None = nonlinearities.rectify,
                 flip_filters: bool = True, convolution: Callable[..., Any] = T.nnet.conv1d,
                 num_groups: int = 1, name: str | None = None) -> None:
        super().__init__(incoming, num_filters, filter_size, stride, pad, untie_biases, W, b,
                         nonlinearity, flip_filters, convolution, num_groups, name)


class Conv2DLayer(_Conv):
    """Convolution of images: (batch, channels, rows, columns) to (batch, num_filters, rows',
    columns').

    convolution: a function with the arguments of ``T.nnet.conv2d``.  The other arguments: see
    ``BaseConvLayer``.
    """

    rank = 2

    def __init__(self, incoming: Incoming, num_filters: int, filter_size: Any,
                 stride: Any = (1, 1), pad: Any = 0, untie_biases: bool = False, W: Any = _WEIGHTS,
                 b: Any = _ZERO, nonlinearity: Nonlinearity | None = nonlinearities.rectify,
                 flip_filters: bool = True, convolution: Callable[..., Any] = T.nnet.conv2d,
                 num_groups: int = 1, name: str | None = None) -> None:
        super().__init__(incoming, num_filters, filter_size, stride, pad, untie_biases, W, b,
                         nonlinearity, flip_filters, convolution, num_groups, name)


class Conv3DLayer(_Conv):
    """Convolution of volumes: (batch, channels, depth, rows, columns) to (batch, num_filters,
    depth', rows', columns').

    convolution: a function with the arguments of ``T.nnet.conv3d``.  The other arguments: see
    ``BaseConvLayer``.
    """

    rank = 3

    def __init__(self, incoming: Incoming, num_filters: int, filter_size: Any,
                 stride: Any = (1, 1, 1), pad: Any = 0, untie_biases: bool = False,
                 W: Any = _WEIGHTS, b: Any = _ZERO,
                 nonlinearity: Nonlinearity | None = nonlinearities.rectify,
                 flip_filters: bool = True, convolution: Callable[..., Any] = T.nnet.conv3d,
                 num_groups: int = 1, name: str | None = None) -> None:
        super().__init__(incoming, num_filters, filter_size, stride, pad, untie_biases, W, b,
                         nonlinearity, flip_filters, convolution, num_groups, name)


class _TransposedConv(BaseConvLayer):
    """What a convolution hands back to its input, as a layer of its own."""

    pad_name: ClassVar[str] = "crop"
    rank: ClassVar[int]

    def __init__(self, incoming: Incoming, num_filters: int, filter_size: Any, stride: Any,
                 crop: Any, untie_biases: bool, W: Any, b: Any, nonlinearity: Nonlinearity | None,
                 flip_filters: bool, output_size: Any, name: str | None) -> None:
        if output_size is not None and not isinstance(output_size, Value):
            output_size = per_axis(output_size, self.rank, "output_size", 1)
        self.output_size = output_size
        super().__init__(incoming, num_filters, filter_size, stride, crop, untie_biases, W, b,
                         nonlinearity, flip_filters, 1, self.rank, name)
        self._check_output_size()

    def _check_output_size(self) -> None:
        """The forward convolution must lead from ``output_size`` to the input."""
        if not isinstance(self.output_size, tuple):
            return
        back = super()._lengths(self.output_size)
        if any(n is not None and n != m for n, m in zip(self.input_shape[2:], back, strict=True)):
            least = self._least(self.input_shape[2:])
            raise ValueError(f"output_size is {self.output_size}, which this convolution would "
                             f"take to {tuple(back)}, but the input has shape {self.input_shape}; "
                             f"the least output_size is {tuple(least)}, and each may be larger by "
                             "less than the stride")

    @property
    def crop(self) -> Any:
        """What is cut off on either side of the output."""
        return self.pad

    def get_W_shape(self) -> tuple[int, ...]:  # noqa: N802
        """The shape of W: (channels, num_filters, *filter_size)."""
        return (known_channels(self), self.num_filters, *self.filter_size)

    def _lengths(self, spatial: Sequence[Any]) -> list[Any]:
        if isinstance(self.output_size, tuple):
            return list(self.output_size)
        if self.output_size is not None:
            return [None] * self.n
        return self._least(spatial)

    def _least(self, spatial: Sequence[Any]) -> list[Any]:
        """The least spatial sizes that the forward convolution takes to ``spatial``."""
        return [conv_input_length(*axis) for axis in zip(
            spatial, self.filter_size, self.stride, self._pads(), strict=True)]

    def convolve(self, input: Any, **kwargs: Any) -> Any:
        backwards = conv2d_grad_wrt_inputs if self.rank == 2 else conv3d_grad_wrt_inputs
        if isinstance(self.output_size, Value):
            wanted: Any = self.output_size
            sizes = [wanted[k] for k in range(self.n)]
        else:
            sizes = self._lengths([input.shape[k] if n is None else n
                                   for k, n in enumerate(self.input_shape) if k > 1])
        return backwards(
            input, self.W, (None, self.num_filters, *sizes), self.get_W_shape(),
            border_mode=self.border_mode(), subsample=self.stride,
            filter_flip=not self.flip_filters)


class TransposedConv2DLayer(_TransposedConv):
    """A convolution of images backwards ("deconvolution"; Dumoulin and Visin 2016,
    arXiv:1603.07285, chapter 4): every element of the input puts a filter, scaled by it, into the
    output, ``stride`` apart.

    W: (channels, num_filters, rows, columns).  crop: what is cut off on either side of the output,
    with the values of ``pad`` ('full' cuts off filter_size - 1, 'same' half a filter).
    flip_filters: False puts them in backwards, which turns round a ``Conv2DLayer`` with
    flip_filters=True, its default.
    output_size: (rows, columns) of the output where several fit, or an integer vector of both;
    None for the least, (input - 1) * stride - 2 * crop + filter_size.
    The other arguments: see ``BaseConvLayer``.
    """

    rank = 2

    def __init__(self, incoming: Incoming, num_filters: int, filter_size: Any,
                 stride: Any = (1, 1), crop: Any = 0, untie_biases: bool = False,
                 W: Any = _WEIGHTS, b: Any = _ZERO,
                 nonlinearity: Nonlinearity | None = nonlinearities.rectify,
                 flip_filters: bool = False, output_size: Any = None, name: str | None = None
                 ) -> None:
        super().__init__(incoming, num_filters, filter_size, stride, crop, untie_biases, W, b,
                         nonlinearity, flip_filters, output_size, name)


class TransposedConv3DLayer(_TransposedConv):
    """A convolution of volumes backwards, see ``TransposedConv2DLayer``."""

    rank = 3

    def __init__(self, incoming: Incoming, num_filters: int, filter_size: Any,
                 stride: Any = (1, 1, 1), crop: Any = 0, untie_biases: bool = False,
                 W: Any = _WEIGHTS, b: Any = _ZERO,
                 nonlinearity: Nonlinearity | None = nonlinearities.rectify,
                 flip_filters: bool = False, output_size: Any = None, name: str | None = None
                 ) -> None:
        super().__init__(incoming, num_filters, filter_size, stride, crop, untie_biases, W, b,
                         nonlinearity, flip_filters, output_size, name)


Deconv2DLayer = TransposedConv2DLayer
Deconv3DLayer = TransposedConv3DLayer


class DilatedConv2DLayer(BaseConvLayer):
    """Convolution of images with holes between the elements of a filter (Yu and Koltun 2015,
    arXiv:1511.07122): (batch, channels, rows, columns) to (batch, num_filters, rows', columns').

    W: (channels, num_filters, rows, columns), in the order of ``TransposedConv2DLayer``.
    dilation: steps between the elements of a filter, an int or one per axis; a filter then covers
    (filter_size - 1) * dilation + 1 elements, to which ``pad`` refers.
    The other arguments: see ``BaseConvLayer``.
    """

    def __init__(self, incoming: Incoming, num_filters: int, filter_size: Any,
                 dilation: Any = (1, 1), pad: Any = 0, untie_biases: bool = False,
                 W: Any = _WEIGHTS, b: Any = _ZERO,
                 nonlinearity: Nonlinearity | None = nonlinearities.rectify,
                 flip_filters: bool = False, name: str | None = None) -> None:
        self.dilation = per_axis(dilation, 2, "dilation", 1)
        super().__init__(incoming, num_filters, filter_size, 1, pad, untie_biases, W, b,
                         nonlinearity, flip_filters, 1, 2, name)

    def get_W_shape(self) -> tuple[int, ...]:  # noqa: N802
        """The shape of W: (channels, num_filters, *filter_size)."""
        return (known_channels(self), self.num_filters, *self.filter_size)

    def _lengths(self, spatial: Sequence[Any]) -> list[Any]:
        extents = [(size - 1) * d + 1 for size, d in zip(
            self.filter_size, self.dilation, strict=True)]
        return [conv_output_length(n, extent, 1, pad) for n, extent, pad in zip(
            spatial, extents, self._pads(), strict=True)]

    def convolve(self, input: Any, **kwargs: Any) -> Any:
        c, o, *size = self.get_W_shape()
        return T.nnet.conv2d(
            input, self.W.dimshuffle(1, 0, 2, 3), self.known_input(), (o, c, *size),
            border_mode=self.border_mode(), filter_flip=self.flip_filters,
            filter_dilation=self.dilation)
