"""Layers that make one output of several inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import tinygraph.tensor as T
from tinygraph_rnn.layers.base import Incoming, MergeLayer, Shape


def joined_shape(shapes: Sequence[Shape], free: int | None = None) -> Shape:
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
    return tuple(out)


def autocrop(inputs: Sequence[Any], cropping: Sequence[str | None] | None) -> list[Any]:
    """``inputs``, cut to the size of the smallest along the axes that ``cropping`` names.

    cropping: None for no cutting, or per axis None (leave it), 'lower' (keep the front),
    'center' (keep the middle) or 'upper' (keep the end); axes at the end may be left out.
    Raises ValueError for other words, or inputs of different numbers of axes.
    """
    inputs = list(inputs)
    if cropping is None:
        return inputs
    modes = _modes([x.ndim for x in inputs], cropping)
    for axis, mode in enumerate(modes):
        if mode is not None and len({x.type.dims[axis] for x in inputs}) > 1:
            smallest = reduce(T.minimum, [x.shape[axis] for x in inputs])
            inputs = [_cut(x, axis, smallest, mode) for x in inputs]
    return inputs


def _cut(x: Any, axis: int, size: Any, mode: str) -> Any:
    surplus = x.shape[axis] - size
    start = {"lower": 0, "center": surplus // 2, "upper": surplus}[mode]
    return x[(slice(None),) * axis + (slice(start, start + size),)]


def autocrop_array_shapes(input_shapes: Sequence[Shape], cropping: Sequence[str | None] | None
                          ) -> list[Shape]:
    """The shapes of what ``autocrop`` makes of arrays of ``input_shapes``; an axis that is cut
    has size None unless it is known of all of them.  Raises what ``autocrop`` does."""
    if cropping is None:
        return list(input_shapes)
    modes = _modes([len(shape) for shape in input_shapes], cropping)
    columns = []
    for mode, sizes in zip(modes, zip(*input_shapes, strict=True), strict=True):
        known = [n for n in sizes if n is not None]
        smallest = min(known) if len(known) == len(sizes) else None
        columns.append(sizes if mode is None else (smallest,) * len(sizes))
    return [tuple(column[k] for column in columns) for k in range(len(input_shapes))]


def _modes(ranks: Sequence[int], cropping: Sequence[str | None]) -> list[str | None]:
    """One mode for each axis."""
    if len(set(ranks)) != 1:
        raise ValueError(f"cropping needs inputs of equally many axes, but they have "
                         f"{', '.join(map(str, ranks))}")
    modes = list(cropping)
    if any(mode not in (None, *_CROPPINGS) for mode in modes) or len(modes) > ranks[0]:
        raise ValueError(f"cropping is {cropping!r}; it must hold for each axis, {ranks[0]} at "
                         "most, None, 'lower', 'center' or 'upper'")
    return modes + [None] * (ranks[0] - len(modes))


_CROPPINGS = ("lower", "center", "upper")


class ConcatLayer(MergeLayer):
    """The inputs one behind the other along ``axis``; all other sizes must agree.

    cropping: how inputs are cut along the other axes first, see ``autocrop``; None: not at all.
    Raises ValueError, when the shape is asked for, where sizes or numbers of axes disagree.
    """

    def __init__(self, incomings: Sequence[Incoming], axis: int = 1,
                 cropping: Sequence[str | None] | None = None, name: str | None = None) -> None:
        super().__init__(incomings, name)
        self.axis = axis
        self.cropping = self._without_axis(cropping)

    def _without_axis(self, cropping: Sequence[str | None] | None) -> list[str | None] | None:
        """``cropping``, but never along the axis that is joined."""
        if cropping is None:
            return None
        axis = self.axis % len(self.input_shapes[0])
        return [None if k == axis else mode for k, mode in enumerate(cropping)]

    def get_output_shape_for(self, input_shapes: list[Shape]) -> Shape:
        rank = len(input_shapes[0])
        if not -rank <= self.axis < rank:
            raise ValueError(f"axis {self.axis} of inputs of shape {input_shapes[0]}: there is no "
                             "such axis")
        axis = self.axis % rank
        input_shapes = autocrop_array_shapes(input_shapes, self.cropping)
        out = list(joined_shape(input_shapes, free=axis))
        sizes = [shape[axis] for shape in input_shapes]
        out[axis] = None if None in sizes else sum(n for n in sizes if n is not None)
        return tuple(out)

    def get_output_for(self, inputs: list[Any], **kwargs: Any) -> Any:
        return T.concatenate(autocrop(inputs, self.cropping), axis=self.axis)


concat = ConcatLayer


class ElemwiseMergeLayer(MergeLayer):
    """merge_function applied to the first two inputs, to that result and the third, and so on.

    merge_function: of two variables of one shape, such as T.mul or T.maximum.
    cropping: how inputs are cut to one shape first, see ``autocrop``; None: not at all.
    Raises ValueError, when the shape is asked for, where sizes or numbers of axes disagree.
    """

    def __init__(self, incomings: Sequence[Incoming], merge_function: Callable[[Any, Any], Any],
                 cropping: Sequence[str | None] | None = None, name: str | None = None) -> None:
        super().__init__(incomings, name)
        self.merge_function, self.cropping = merge_function, cropping

    def get_output_shape_for(self, input_shapes: list[Shape]) -> Shape:
        return joined_shape(autocrop_array_shapes(input_shapes, self.cropping))

    def get_output_for(self, inputs: list[Any], **kwargs: Any) -> Any:
        return reduce(self.merge_function, autocrop(inputs, self.cropping))


class ElemwiseSumLayer(ElemwiseMergeLayer):
    """The sum of the inputs, each times its coefficient.

    coeffs: one number for all or a list of one per input.  cropping: see ``autocrop``.
    Raises ValueError for a list of another length.
    """

    def __init__(self, incomings: Sequence[Incoming], coeffs: Any = 1,
                 cropping: Sequence[str | None] | None = None, name: str | None = None) -> None:
        super().__init__(incomings, T.add, cropping, name)
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
