"""Layers that move axes and elements and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import tinygraph.tensor as T
from tinygraph.graph import Value, describe
from tinygraph.ops.sizes import as_dim
from tinygraph_rnn.layers.base import Incoming, Layer, Shape, elements


class FlattenLayer(Layer):
    """The last axes made one, so that ``outdim`` axes are left."""

    def __init__(self, incoming: Incoming, outdim: int = 2, name: str | None = None) -> None:
        super().__init__(incoming, name)
        if not 1 <= outdim <= len(self.input_shape):
            raise ValueError(f"outdim is {outdim}; an input of shape {self.input_shape} can be "
                             f"flattened to 1 to {len(self.input_shape)} axes")
        self.outdim = outdim

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        return (*input_shape[:self.outdim - 1], elements(input_shape[self.outdim - 1:]))

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        return input.flatten(self.outdim)


flatten = FlattenLayer


class ReshapeLayer(Layer):
    """The elements in another shape.

    shape: per axis a positive int, ``[i]`` for the size of the input's axis i, -1 (once) for what
    is left, or a symbolic integer scalar such as ``l_in.input_var.shape[0]``.
    Raises ValueError for other entries, or where the numbers of elements are known and differ.
    """

    def __init__(self, incoming: Incoming, shape: Sequence[Any], name: str | None = None) -> None:
        super().__init__(incoming, name)
        self.shape = tuple(self._entry(s) for s in shape)
        if sum(s == -1 for s in self.shape if isinstance(s, int)) > 1:
            raise ValueError(f"the shape {shape} holds -1 more than once")
        self.get_output_shape_for(self.input_shape)

    def _entry(self, s: Any) -> Any:
        if isinstance(s, Value):
            if s.ndim != 0 or not s.type.dtype.is_int:
                raise ValueError(f"a size must be an integer scalar, not {describe(s)}")
            size = as_dim(s).const
            if size is None:
                return s
            s = size
        if isinstance(s, list):
            rank = len(self.input_shape)
            if len(s) != 1 or not 0 <= s[0] < rank:
                raise ValueError(f"{s} must name one axis, 0 to {rank - 1}, of the input of shape "
                                 f"{self.input_shape}")
            return s
        if not isinstance(s, (int, np.integer)) or (s <= 0 and s != -1):
            raise ValueError(f"{s!r} is no size: give a positive int, -1, [axis of the input], or "
                             "a symbolic integer scalar")
        return int(s)

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        sizes = [
            input_shape[s[0]] if isinstance(s, list) else (s if isinstance(s, int) else None)
            for s in self.shape]
        # An axis that is copied by [i] cancels, known or not, before elements are counted.
        copied = {s[0] for s in self.shape if isinstance(s, list)}
        before = elements([n for k, n in enumerate(input_shape)
                        if n is not None or k not in copied])
        counted = [n for n, s in zip(sizes, self.shape, strict=True)
                   if n != -1 and not (n is None and isinstance(s, list))]
        repeated = len(copied) < sum(isinstance(s, list) for s in self.shape)
        after = None if repeated and None in sizes else elements(counted)
        if -1 in sizes:
            hole = None
            if before is not None and after is not None:
                hole, rest = divmod(before, after)
                self._agree(rest == 0, input_shape)
            sizes[sizes.index(-1)] = hole
        elif before is not None and after is not None:
            self._agree(before == after, input_shape)
        return tuple(sizes)

    def _agree(self, fits: bool, input_shape: Shape) -> None:
        if not fits:
            raise ValueError(f"an input of shape {input_shape} cannot be reshaped to {self.shape}: "
                             "the numbers of elements differ")

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        sizes = [input.shape[s[0]] if isinstance(s, list) else s for s in self.shape]
        return input.reshape(tuple(sizes))


reshape = ReshapeLayer


class DimshuffleLayer(Layer):
    """The axes in another order.

    pattern: axes of the input, and 'x' for a new axis of size 1; axes left out must have size 1.
    Raises ValueError for a pattern that names an axis twice, drops one of another size, or names
    one that does not exist.
    """

    def __init__(self, incoming: Incoming, pattern: Sequence[Any], name: str | None = None
                 ) -> None:
        super().__init__(incoming, name)
        self.pattern = tuple(pattern)
        axes = [p for p in self.pattern if p != "x"]
        rank = len(self.input_shape)
        if len(set(axes)) != len(axes) or any(p not in range(rank) for p in axes):
            raise ValueError(f"the pattern {self.pattern} must name axes 0 to {rank - 1} of the "
                             "input, each once at most, and 'x'")
        for k, n in enumerate(self.input_shape):
            if k not in axes and n not in (None, 1):
                raise ValueError(f"the pattern {self.pattern} drops axis {k} of an input of shape "
                                 f"{self.input_shape}; only an axis of size 1 can be dropped")

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        return tuple(1 if p == "x" else input_shape[p] for p in self.pattern)

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        dropped = [k for k in range(input.ndim) if k not in self.pattern
                   and not input.broadcastable[k]]
        if dropped:
            input = T.addbroadcast(input, *dropped)
        return input.dimshuffle(*self.pattern)


dimshuffle = DimshuffleLayer


class PadLayer(Layer):
    """A border of ``val`` around the axes behind the first ``batch_ndim``.

    width: how many elements go in front and behind: an int for all axes, or a sequence with an
    int or a pair (in front, behind) for each of them.  val: a number.
    Raises ValueError for negative widths, or a sequence of another length.
    """

    def __init__(self, incoming: Incoming, width: Any, val: float = 0, batch_ndim: int = 2,
                 name: str | None = None) -> None:
        super().__init__(incoming, name)
        rank = len(self.input_shape)
        if not 0 <= batch_ndim <= rank:
            raise ValueError(f"batch_ndim is {batch_ndim}, but the input of shape "
                             f"{self.input_shape} has {rank} axes")
        self.width, self.val, self.batch_ndim = width, val, batch_ndim
        self.widths = [(0, 0)] * batch_ndim + self._pairs(width, rank - batch_ndim)

    def _pairs(self, width: Any, count: int) -> list[tuple[int, int]]:
        each = [width] * count if isinstance(width, (int, np.integer)) else list(width)
        pairs = [(w, w) if isinstance(w, (int, np.integer)) else tuple(w) for w in each]
        if len(pairs) != count or any(len(p) != 2 or min(p) < 0 for p in pairs):
            raise ValueError(f"width is {width!r}; it must be an int, or an int or a pair (in "
                             f"front, behind) for each of the {count} axes of the input of shape "
                             f"{self.input_shape} behind the first {self.batch_ndim}, none "
                             "negative")
        return [(int(a), int(b)) for a, b in pairs]

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        return tuple(None if n is None else n + before + after
                     for n, (before, after) in zip(input_shape, self.widths, strict=True))

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        return T.pad(input, self.widths, constant_values=self.val)


pad = PadLayer


class SliceLayer(Layer):
    """Part of one axis.

    indices: an int, which removes the axis, or a slice.  axis: which one; -1 is the last.
    """

    def __init__(self, incoming: Incoming, indices: int | slice, axis: int = -1,
                 name: str | None = None) -> None:
        super().__init__(incoming, name)
        rank = len(self.input_shape)
        if not -rank <= axis < rank:
            raise ValueError(f"axis {axis} of an input of shape {self.input_shape}: there is no "
                             "such axis")
        self.slice, self.axis = indices, axis % rank

    def get_output_shape_for(self, input_shape: Shape) -> Shape:
        before, n = input_shape[:self.axis], input_shape[self.axis]
        after = input_shape[self.axis + 1:]
        if not isinstance(self.slice, slice):
            return (*before, *after)
        return (*before, None if n is None else len(range(*self.slice.indices(n))), *after)

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        return input[(slice(None),) * self.axis + (self.slice,)]
