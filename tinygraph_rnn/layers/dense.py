"""Layers that mix features linearly, and the nonlinearity alone."""

from __future__ import annotations

from typing import Any

import tinygraph.tensor as T
from tinygraph_rnn import init, nonlinearities
from tinygraph_rnn.layers.base import (
    Incoming,
    Layer,
    Nonlinearity,
    Shape,
    checked_nonlinearity,
    checked_units,
    known_channels,
    known_features,
)

_WEIGHTS = init.GlorotUniform()
_ZERO = init.Constant(0.0)


class DenseLayer(Layer):
    """nonlinearity(x W + b), with the axes of x behind the leading ones flattened to features.

    num_units: the number of outputs.  W: (features, num_units).  b: (num_units,), or None for no
    bias.  num_leading_axes: how many axes stay in front of the features; negative ones count from
    the end, so -1 takes the last axis for the features.
    Raises ValueError where the number of features is not known, or there is no such axis.
    """

    def __init__(self, incoming: Incoming, num_units: int, W: Any = _WEIGHTS, b: Any = _ZERO,
                 nonlinearity: Nonlinearity | None = nonlinearities.rectify,
                 num_leading_axes: int = 1, name: str | None = None) -> None:
        super().__init__(incoming, name)
        rank = len(self.input_shape)
        if not -rank <= num_leading_axes < rank:
            raise ValueError(f"num_leading_axes is {num_leading_axes}, but the input of shape "
                             f"{self.input_shape} has {rank} axes, of which one at least must be "
                             "left for the features")
        self.num_units = checked_units(num_units)
        self.num_leading_axes = num_leading_axes % rank
        self.nonlinearity = checked_nonlinearity(nonlinearity)
        features = known_features(self.input_shape[self.num_leading_axes:], "a DenseLayer")
        self.W = self.add_param(W, (features, self.num_units), "W")
        self.b = None
        if b is not None:
            self.b = self.add_param(b, (self.num_units,), "b", regularizable=False)

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        return (*input_shape[:self.num_leading_axes], self.num_units)

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        if input.ndim > self.num_leading_axes + 1:
            input = input.flatten(self.num_leading_axes + 1)
        activation = T.dot(input, self.W)
        return self.nonlinearity(activation if self.b is None else activation + self.b)


class NINLayer(Layer):
    """nonlinearity(W' x + b) at every place: a dense layer over the channels, for inputs of shape
    (batch, channels, places...)  (Lin, Chen and Yan 2013, Network in network, arXiv:1312.4400).

    num_units: the number of output channels.  untie_biases: a bias for every place, of shape
    (num_units, places...), instead of one for all, (num_units,).  W: (channels, num_units).
    b: None for no bias.
    Raises ValueError where the number of channels is not known, or with untie_biases those of
    places, or where there is no channel axis.
    """

    def __init__(self, incoming: Incoming, num_units: int, untie_biases: bool = False,
                 W: Any = _WEIGHTS, b: Any = _ZERO,
                 nonlinearity: Nonlinearity | None = nonlinearities.rectify,
                 name: str | None = None) -> None:
        super().__init__(incoming, name)
        if len(self.input_shape) < 2:
            raise ValueError(f"a NINLayer needs an input of shape (batch, channels, places...), "
                             f"not {self.input_shape}")
        self.num_units, self.untie_biases = checked_units(num_units), untie_biases
        self.nonlinearity = checked_nonlinearity(nonlinearity)
        self.W = self.add_param(W, (known_channels(self), self.num_units), "W")
        self.b = None
        if b is not None:
            places = [n for n in self.input_shape[2:] if n is not None] if untie_biases else []
            if untie_biases and None in self.input_shape[2:]:
                raise ValueError("a NINLayer with untie_biases needs the sizes of all axes behind "
                                 f"the channels, but the input has shape {self.input_shape}; give "
                                 "ints instead of None")
            self.b = self.add_param(b, (self.num_units, *places), "b", regularizable=False)

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.num_units, *input_shape[2:])

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        places = range(2, input.ndim)
        out = T.tensordot(input, self.W, axes=[[1], [0]])
        out = out.dimshuffle(0, input.ndim - 1, *(k - 1 for k in places))
        if self.b is not None:
            spread = (k - 1 if self.untie_biases else "x" for k in places)
            out = out + self.b.dimshuffle("x", 0, *spread)
        return self.nonlinearity(out)


class NonlinearityLayer(Layer):
    """nonlinearity(x), nothing else."""

    def __init__(self, incoming: Incoming,
                 nonlinearity: Nonlinearity | None = nonlinearities.rectify,
                 name: str | None = None) -> None:
        super().__init__(incoming, name)
        self.nonlinearity = checked_nonlinearity(nonlinearity)

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        return self.nonlinearity(input)
