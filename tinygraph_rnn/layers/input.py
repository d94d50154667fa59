"""Where data enters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tinygraph.tensor as T
from tinygraph import config
from tinygraph.graph import Value, describe
from tinygraph_rnn.layers.base import Layer, Shape, checked_shape


class InputLayer(Layer):
    """A network's input.

    shape: ints, and None for a size that may change from call to call.  input_var: the variable
    that stands for the data, of as many axes; made here (dtype floatX) if None, as the attribute
    ``input_var``, whose given sizes are fixed.
    Raises ValueError where the axes disagree, TypeError for an input_var that is no variable.
    """

    def __init__(self, shape: Sequence[int | None], input_var: Any = None,
                 name: str | None = None) -> None:
        self.name = name
        self.params = {}
        self.get_output_kwargs = []
        self.shape = checked_shape(shape)
        if input_var is None:
            label = "input" if name is None else f"{name}.input"
            input_var = T.tensor(dtype=config.floatX, shape=self.shape, name=label)
        elif not isinstance(input_var, Value):
            raise TypeError(f"input_var must be a variable such as T.matrix(), not a "
                            f"{type(input_var).__name__}; give arrays to get_output, or make a "
                            "tinygraph.shared variable of them")
        elif input_var.ndim != len(self.shape):
            raise ValueError(f"the shape {self.shape} has {len(self.shape)} axes, but "
                             f"{describe(input_var)} has {input_var.ndim}")
        self.input_var = input_var

    @property
    def output_shape(self) -> Shape:
        """The shape given."""
        return self.shape

    def inputs(self) -> list[Layer | None]:
        """None feeds an input."""
        return []
