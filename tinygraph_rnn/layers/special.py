"""Layers for one purpose each: biases, scales, expressions, inverses, gates and rectifiers with
parameters.

Where a layer has ``shared_axes``, its parameter (or draw) has the sizes of the input on all other
axes and is the same along those: an axis or a tuple of them, 'auto' for all axes but the second
(one value for each feature or channel), or 'all'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tinygraph.tensor as T
from tinygraph import config
from tinygraph.gradient import grad
from tinygraph.graph import Value
from tinygraph_rnn import init, nonlinearities
from tinygraph_rnn.layers.base import Incoming, Layer, MergeLayer, Shape, checked_axes
from tinygraph_rnn.layers.input import InputLayer
from tinygraph_rnn.layers.merge import joined_shape
from tinygraph_rnn.layers.noise import draw_shape, float_dtype, streams, strength
from tinygraph_rnn.utils import floatX

_ZERO = init.Constant(0.0)
_ONE = init.Constant(1.0)
_QUARTER = init.Constant(0.25)


class _Shared(Layer):
    """A layer with something per axis that is not in ``shared_axes``."""

    def __init__(self, incoming: Incoming, shared_axes: Any, name: str | None) -> None:
        super().__init__(incoming, name)
        self.shared_axes = checked_axes(shared_axes, len(self.input_shape))

    def _sizes(self) -> tuple[int, ...]:
        """The input's sizes on the axes that are not shared."""
        own = [n for k, n in enumerate(self.input_shape) if k not in self.shared_axes]
        if None in own:
            raise ValueError(f"a {type(self).__name__} needs the sizes of all axes that are not "
                             f"shared, but the input has shape {self.input_shape} and shared_axes "
                             f"is {self.shared_axes}; give ints, or share the axes of size None")
        return tuple(n for n in own if n is not None)

    def _spread(self, param: Any) -> Any:
        """``param`` with an axis of size 1 for each shared one."""
        axes = iter(range(param.ndim))
        return param.dimshuffle(*(
            "x" if k in self.shared_axes else next(axes) for k in range(len(self.input_shape))))


class BiasLayer(_Shared):
    """x + b.

    b: of the sizes of the axes that are not shared; None for no bias at all.  shared_axes: see
    the head of this file.
    Raises ValueError where a size that b needs is not known.
    """

    def __init__(self, incoming: Incoming, b: Any = _ZERO, shared_axes: Any = "auto",
                 name: str | None = None) -> None:
        super().__init__(incoming, shared_axes, name)
        self.b = None
        if b is not None:
            self.b = self.add_param(b, self._sizes(), "b", regularizable=False)

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        return input if self.b is None else input + self._spread(self.b)


class ScaleLayer(_Shared):
    """x * scales.

    scales: of the sizes of the axes that are not shared.  shared_axes: see the head of this file.
    Raises ValueError where a size that scales needs is not known.
    """

    def __init__(self, incoming: Incoming, scales: Any = _ONE, shared_axes: Any = "auto",
                 name: str | None = None) -> None:
        super().__init__(incoming, shared_axes, name)
        self.scales = self.add_param(scales, self._sizes(), "scales")

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        return input * self._spread(self.scales)


def standardize(layer: Layer, offset: Any, scale: Any, shared_axes: Any = "auto") -> ScaleLayer:
    """(x - offset) / scale, as a ``BiasLayer`` and a ``ScaleLayer`` whose parameters are not
    trainable.

    offset, scale: arrays of the sizes of the axes that are not shared, such as means and standard
    deviations of the training data.
    """
    shifted = BiasLayer(layer, -floatX(offset), shared_axes)
    shifted.params[shifted.b].discard("trainable")
    scaled = ScaleLayer(shifted, floatX(1 / floatX(scale)), shared_axes)
    scaled.params[scaled.scales].discard("trainable")
    return scaled


class ExpressionLayer(Layer):
    """function(x).

    function: from an expression to one.  output_shape: None where the shape stays; a shape; a
    function from the shape of the input to that of the output; or 'auto', which asks ``function``
    with a variable of the input's shape (of floatX, or the dtype of an ``InputLayer``'s variable),
    and so finds every size that does not depend on one that is None.
    """

    def __init__(self, incoming: Incoming, function: Callable[[Any], Any],
                 output_shape: Any = None, name: str | None = None) -> None:
        super().__init__(incoming, name)
        if isinstance(output_shape, str) and output_shape != "auto":
            raise ValueError(f"output_shape is {output_shape!r}; it must be None, a shape, a "
                             "function from shape to shape, or 'auto'")
        self.function, self._shape = function, output_shape

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        if self._shape is None:
            return input_shape
        if callable(self._shape):
            return tuple(self._shape(input_shape))
        if not isinstance(self._shape, str):
            return tuple(self._shape)
        source = self.input_layer
        dtype = source.input_var.dtype if isinstance(source, InputLayer) else config.floatX
        out = T.as_tensor_variable(self.function(T.tensor(dtype=dtype, shape=input_shape)))
        return tuple(n.const for n in out.type.dims)

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        return self.function(input)


class InverseLayer(MergeLayer):
    """``layer`` backwards: the gradient of its output with respect to its input, weighted with
    the output of ``incoming``  (Zeiler and Fergus 2014).

    Of a dense layer without nonlinearity it is the product with W', of a convolution the transposed
    one, of maximum pooling the unpooling to the places where the maxima were.
    incoming: a layer of the shape of ``layer``'s output.  layer: a layer with one input layer.
    Raises TypeError for another ``layer``.
    """

    def __init__(self, incoming: Incoming, layer: Layer, name: str | None = None) -> None:
        source = getattr(layer, "input_layer", None)
        if not isinstance(source, Layer):
            raise TypeError(f"an InverseLayer needs a layer that has one input layer, not "
                            f"{layer!r}")
        super().__init__([incoming, layer, source], name)

    def get_output_shape_for(self, input_shapes: list[Shape]) -> Shape:
        return input_shapes[2]

    def get_output_for(self, inputs: list[Any], **kwargs: Any) -> Any:
        weights, output, source = inputs
        return grad(None, source, known_grads={output: weights})


class MultiplicativeGatingLayer(MergeLayer):
    """gate * x1 + (1 - gate) * x2, the gate of highway networks  (Srivastava, Greff and
    Schmidhuber 2015, arXiv:1505.00387).

    gate: a layer of outputs from 0 to 1.  input1, input2: layers of the same shape.
    Raises ValueError where shapes disagree.
    """

    def __init__(self, gate: Incoming, input1: Incoming, input2: Incoming,
                 name: str | None = None) -> None:
        super().__init__([gate, input1, input2], name)
        joined_shape(self.input_shapes)

    def get_output_shape_for(self, input_shapes: list[Shape]) -> Shape:
        return joined_shape(input_shapes)

    def get_output_for(self, inputs: list[Any], **kwargs: Any) -> Any:
        gate, x1, x2 = inputs
        return gate * x1 + (1 - gate) * x2


class ParametricRectifierLayer(_Shared):
    """x for x > 0, else alpha x, with a learned alpha  (He et al. 2015, arXiv:1502.01852).

    alpha: of the sizes of the axes that are not shared.  shared_axes: see the head of this file.
    Raises ValueError where a size that alpha needs is not known.
    """

    def __init__(self, incoming: Incoming, alpha: Any = _QUARTER, shared_axes: Any = "auto",
                 name: str | None = None) -> None:
        super().__init__(incoming, shared_axes, name)
        self.alpha = self.add_param(alpha, self._sizes(), "alpha", regularizable=False)

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        return T.nnet.relu(input, self._spread(self.alpha))


def prelu(layer: Layer, **kwargs: Any) -> ParametricRectifierLayer:
    """A ``ParametricRectifierLayer`` (of the keyword arguments) in the place of ``layer``'s
    nonlinearity, which becomes the identity."""
    return ParametricRectifierLayer(_without_nonlinearity(layer), **kwargs)


class RandomizedRectifierLayer(_Shared):
    """x for x > 0, else a x, with a drawn from [lower, upper)  (Xu et al. 2015,
    arXiv:1505.00853); with ``deterministic=True`` a = (lower + upper) / 2.

    lower, upper: numbers or scalar variables.  shared_axes: axes along which a is the same, see
    the head of this file.
    Raises ValueError where lower is above upper.
    """

    def __init__(self, incoming: Incoming, lower: Any = 0.3, upper: Any = 0.8,
                 shared_axes: Any = "auto", name: str | None = None) -> None:
        super().__init__(incoming, shared_axes, name)
        self._srng = streams()
        self.lower, self.upper = lower, upper
        self._fixed = not isinstance(lower, Value) and not isinstance(upper, Value)
        if self._fixed and lower > upper:
            raise ValueError(f"lower is {lower} and upper is {upper}; lower must not be above "
                             "upper")

    def get_output_for(self, input: Any, deterministic: bool = False, **kwargs: Any) -> Any:
        dtype = float_dtype(input)
        lower, upper = strength(self.lower, dtype), strength(self.upper, dtype)
        if deterministic or (self._fixed and self.lower == self.upper):
            return T.nnet.relu(input, (lower + upper) / 2)
        slope = self._srng.uniform(draw_shape(input, self.shared_axes), lower, upper, dtype=dtype)
        return T.nnet.relu(input, slope)


def rrelu(layer: Layer, **kwargs: Any) -> RandomizedRectifierLayer:
    """A ``RandomizedRectifierLayer`` (of the keyword arguments) in the place of ``layer``'s
    nonlinearity, which becomes the identity."""
    return RandomizedRectifierLayer(_without_nonlinearity(layer), **kwargs)


def _without_nonlinearity(layer: Layer) -> Layer:
    if getattr(layer, "nonlinearity", None) is not None:
        layer.nonlinearity = nonlinearities.identity  # type: ignore[attr-defined]
    return layer
