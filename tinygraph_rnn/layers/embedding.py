"""Vectors for symbols."""

from __future__ import annotations

from typing import Any

from tinygraph.graph import describe
from tinygraph_rnn import init
from tinygraph_rnn.layers.base import Incoming, Layer, Shape, checked_units

_NORMAL = init.Normal()


class EmbeddingLayer(Layer):
    """The row of W for every integer of the input: input of shape (sizes...), output of shape
    (sizes..., output_size).

    input_size: how many symbols there are; the input holds 0 to input_size - 1.
    output_size: the length of a row.  W: (input_size, output_size).
    The input is of an integer dtype: give InputLayer an ``input_var`` such as T.imatrix().
    Raises TypeError for an input of floats; a call raises IndexError for an integer that names no
    row.
    """

    def __init__(self, incoming: Incoming, input_size: int, output_size: int, W: Any = _NORMAL,
                 name: str | None = None) -> None:
        super().__init__(incoming, name)
        self.input_size = checked_units(input_size, "input_size")
        self.output_size = checked_units(output_size, "output_size")
        self.W = self.add_param(W, (self.input_size, self.output_size), "W")

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.output_size)

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        if not input.type.dtype.is_int:
            raise TypeError(f"the input of an EmbeddingLayer must hold integers, but "
                            f"{describe(input)} is of {input.dtype}; give the InputLayer an "
                            "input_var such as T.imatrix()")
        return self.W[input]
