"""Fully connected layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tinygraph.tensor as T
from tinygraph_rnn import init, nonlinearities
from tinygraph_rnn.layers.base import Incoming, Layer, Shape, known_product

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
                 nonlinearity: Callable[[Any], Any] | None = nonlinearities.rectify,
                 num_leading_axes: int = 1, name: str | None = None) -> None:
        super().__init__(incoming, name)
        rank = len(self.input_shape)
        if not -rank <= num_leading_axes < rank:
            raise ValueError(f"num_leading_axes is {num_leading_axes}, but the input of shape "
                             f"{self.input_shape} has {rank} axes, of which one at least must be "
                             "left for the features")
        self.num_units = num_units
        self.num_leading_axes = num_leading_axes % rank
        self.nonlinearity = nonlinearity or nonlinearities.identity
        features = known_product(self.input_shape[self.num_leading_axes:], "a DenseLayer")
        self.W = self.add_param(W, (features, num_units), "W")
        self.b = None
        if b is not None:
            self.b = self.add_param(b, (num_units,), "b", regularizable=False)

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        return (*input_shape[:self.num_leading_axes], self.num_units)

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        if input.ndim > self.num_leading_axes + 1:
            input = input.flatten(self.num_leading_axes + 1)
        activation = T.dot(input, self.W)
        return self.nonlinearity(activation if self.b is None else activation + self.b)


class NonlinearityLayer(Layer):
    """nonlinearity(x), nothing else."""

    def __init__(self, incoming: Incoming,
                 nonlinearity: Callable[[Any], Any] | None = nonlinearities.rectify,
                 name: str | None = None) -> None:
        super().__init__(incoming, name)
        self.nonlinearity = nonlinearity or nonlinearities.identity

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        return self.nonlinearity(input)
