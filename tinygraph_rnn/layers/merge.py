"""Layers that make one output of several inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import tinygraph.tensor as T
from tinygraph_rnn.layers.base import Incoming, MergeLayer, Shape


def _joined(shapes: Sequence[Shape], free: int | None = None) -> list[int | None]:
    """Per axis the size that the inputs agree on, None where none knows it.

    Axis ``free`` may differ.  Raises ValueError where sizes or numbers of axes disagree.
    """
    if len({len(shape) for shape in shapes}) != 1:
        raise ValueError(f"inputs of shapes {', '.join(map(str, shapes))} cannot be merged: they "
                         "must have equally many axes")
    out: list[int | None] = []
    for axis, sizes in enumerate(zip(*shapes, strict=True)):
        known = {n for n in sizes if n is not None}
        if len(known) > 1 and axis != free:
            raise ValueError(f"inputs of shapes {', '.join(map(str, shapes))} cannot be merged: "
                             f"axis {axis} differs")
        out.append(min(known) if known else None)
    return out


class ConcatLayer(MergeLayer):
    """The inputs one behind the other along ``axis``; all other sizes must agree."""

    def __init__(self, incomings: Sequence[Incoming], axis: int = 1, name: str | None = None
                 ) -> None:
        super().__init__(incomings, name)
        self.axis = axis

    def get_output_shape_for(self, input_shapes: list[Shape]) -> Shape:
        rank = len(input_shapes[0])
        if not -rank <= self.axis < rank:
            raise ValueError(f"axis {self.axis} of inputs of shape {input_shapes[0]}: there is no "
                             "such axis")
        axis = self.axis % rank
        out = _joined(input_shapes, free=axis)
        sizes = [shape[axis] for shape in input_shapes]
        out[axis] = None if None in sizes else sum(n for n in sizes if n is not None)
        return tuple(out)

    def get_output_for(self, inputs: list[Any], **kwargs: Any) -> Any:
        return T.concatenate(inputs, axis=self.axis)


class ElemwiseMergeLayer(MergeLayer):
    """merge_function applied to the first two inputs, to that result and the third, and so on.

    merge_function: of two variables of one shape, such as T.mul or T.maximum.
    """

    def __init__(self, incomings: Sequence[Incoming], merge_function: Callable[[Any, Any], Any],
                 name: str | None = None) -> None:
        super().__init__(incomings, name)
        self.merge_function = merge_function

    def get_output_shape_for(self, input_shapes: list[Shape]) -> Shape:
        return tuple(_joined(input_shapes))

    def get_output_for(self, inputs: list[Any], **kwargs: Any) -> Any:
        return reduce(self.merge_function, inputs)


class ElemwiseSumLayer(ElemwiseMergeLayer):
    """The sum of the inputs, each times its coefficient.

    coeffs: one number for all or a list of one per input.  Raises ValueError for a list of
    another length.
    """

    def __init__(self, incomings: Sequence[Incoming], coeffs: Any = 1, name: str | None = None
                 ) -> None:
        super().__init__(incomings, T.add, name)
        self.coeffs = list(coeffs) if isinstance(coeffs, (list, tuple)) else (
            [coeffs] * len(self.input_shapes))
        if len(self.coeffs) != len(self.input_shapes):
            raise ValueError(f"{len(self.coeffs)} coefficients are given for "
                             f"{len(self.input_shapes)} inputs")

    def get_output_for(self, inputs: list[Any], **kwargs: Any) -> Any:
        # A coefficient may be symbolic, so only numbers are compared with 1.
        scaled = [
            x if isinstance(c, (int, float)) and c == 1 else x * c
            for x, c in zip(inputs, self.coeffs, strict=True)]
        return super().get_output_for(scaled, **kwargs)
