"""Windows: a view in which windows slide over some axes; Unwindows, its adjoint, adds them up.

Convolution is a Dot of windows with filters, pooling a reduction over windows.  An element of the
input may stand in many windows: the view is strides over the input's memory, nothing is copied.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinygraph.dims import Dim, dim, floordiv, minimum, nonnegative
from tinygraph.errors import ShapeError
from tinygraph.graph import Guard, Node, Op, Type, Value, apply, describe

Env = Callable[[Dim], int]


@dataclass(frozen=True)
class Sliding:
    """How windows slide.  Along ``axes[m]`` there are ``counts[m]`` places for a window, each
    ``strides[m]`` elements after the last; a window has ``sizes[m]`` elements there, each
    ``dilations[m]`` after the last.

    The view of windows has the axes of the input, a windowed one now of as many entries as there
    are places; right before the last of them stand the axes of the window.  So loops over the
    window lie outside of the loop along memory, which stays long.
    """

    holds_sizes: ClassVar[bool] = True
    axes: tuple[int, ...]
    counts: tuple[Dim, ...]
    sizes: tuple[Dim, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    def each(self) -> Iterator[tuple[int, Dim, Dim, int, int]]:
        """(axis, places, size, stride, dilation) of every windowed axis."""
        return zip(self.axes, self.counts, self.sizes, self.strides, self.dilations, strict=True)

    def places(self, rank: int) -> tuple[list[int], list[int]]:
        """Where in the view the axes of an input of ``rank`` axes stand, and those of the
        window."""
        more = len(self.axes)
        return ([*range(rank - 1), rank - 1 + more], list(range(rank - 1, rank - 1 + more)))

    def dims(self, dims: Sequence[Dim]) -> tuple[Dim, ...]:
        """The sizes of the view of an array of sizes ``dims``."""
        out = list(dims)
        for axis, count in zip(self.axes, self.counts, strict=True):
            out[axis] = count
        return (*out[:-1], *self.sizes, out[-1])

    def lead(self) -> Sliding:
        """The same under one more leading axis."""
        return Sliding(tuple(a + 1 for a in self.axes), self.counts, self.sizes, self.strides,
                       self.dilations)

    def requires(self, x: Value, dims: Sequence[Dim]) -> Iterable[Guard]:
        """All windows lie inside an array of sizes ``dims``."""
        for axis, count, size, stride, dilation in self.each():
            where = f"axis {axis} of {describe(x)}"
            extent = (size - 1) * dilation + 1
            if not nonnegative(size - 1):
                yield Guard(dim(1), "le", size, f"a window over {where} has size {{right}}; it "
                            "must have at least 1")
            fits = Guard(extent, "le", dims[axis], f"a window over {where} takes {{left}} "
                         "elements, but there are {right}")
            if count == floordiv(dims[axis] - extent, dim(stride)) + 1:
                yield fits
                continue
            if not nonnegative(count):
                yield Guard(dim(0), "le", count, f"{{right}} windows over {where}")
            some = minimum(count, dim(1))
            yield Guard(some * ((count - 1) * stride + extent), "le", dims[axis], "the last "
                        f"window over {where} would end at {{left}}, behind its end {{right}}")

    def check(self, x: Value, dims: Sequence[Dim]) -> None:
        """Raise ShapeError where a window is known not to fit."""
        for guard in self.requires(x, dims):
            if guard.holds() is False:
                guard.check({})


@dataclass(frozen=True)
class Windows(Op):
    """The input seen through windows (see ``Sliding``)."""

    sliding: Sliding

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        (x,) = inputs
        self.sliding.check(x, x.type.dims)
        return (x.type.with_dims(self.sliding.dims(x.type.dims)),)

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        return self.sliding.requires(inputs[0], inputs[0].type.dims)

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = arrays
        shape, strides = list(x.shape), list(x.strides)
        sizes, steps = [], []
        for axis, places, window, stride, dilation in self.sliding.each():
            count, size = env(places), env(window)
            if min(count, size) < 0 or (count and size and x.shape[axis] < (
                    (count - 1) * stride + (size - 1) * dilation + 1)):
                raise ShapeError(f"{count} windows of {size} do not fit into axis {axis} of size "
                                 f"{x.shape[axis]}")
            sizes.append(size)
            steps.append(x.strides[axis] * dilation)
            shape[axis], strides[axis] = count, x.strides[axis] * stride
        view = np.lib.stride_tricks.as_strided(
            x, (*shape[:-1], *sizes, shape[-1]), (*strides[:-1], *steps, strides[-1]),
            writeable=False)
        return (view,)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [apply(Unwindows(node.inputs[0].type.dims, self.sliding), cotangents[0])[0]]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(Windows(self.sliding.lead()), inputs[0])

    def lower(self, context: Any, node: Node) -> None:
        context.alias(node.outputs[0], context.view(node.inputs[0]).windows(self.sliding))


@dataclass(frozen=True)
class Unwindows(Op):
    """Zeros of sizes ``dims`` to which every window is added where it lies: the gradient of
    Windows."""

    dims: tuple[Dim, ...]
    sliding: Sliding

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        (x,) = inputs
        self.sliding.check(x, self.dims)
        return (x.type.with_dims(self.dims),)

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        yield from self.sliding.requires(inputs[0], self.dims)
        for k, (a, b) in enumerate(
                zip(inputs[0].type.dims, self.sliding.dims(self.dims), strict=True)):
            if a != b:
                yield Guard(a, "eq", b, f"axis {k} of {describe(inputs[0])} is {{left}}, but "
                            "there are {right} windows or entries of one")

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = arrays
        out = np.zeros(tuple(env(d) for d in self.dims), x.dtype)
        rank = len(self.dims)
        whole: list[Any] = [slice(None)] * (rank - 1)
        for offsets in itertools.product(*(range(env(size)) for size in self.sliding.sizes)):
            part: list[Any] = [slice(None)] * rank
            for (axis, count, _, stride, dilation), i in zip(
                    self.sliding.each(), offsets, strict=True):
                first, last = i * dilation, i * dilation + (env(count) - 1) * stride
                part[axis] = slice(first, last + 1, stride) if last >= first else slice(0)
            out[tuple(part)] += x[(*whole, *offsets)]
        return (out,)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [apply(Windows(self.sliding), cotangents[0])[0]]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(Unwindows((n, *self.dims), self.sliding.lead()), inputs[0])

    def lower(self, context: Any, node: Node) -> None:
        context.unwindows(node.outputs[0], node.inputs[0], self.sliding)


def windows(x: Value, axes: Sequence[int], sizes: Sequence[Dim | int],
            strides: Sequence[int] | None = None, dilations: Sequence[int] | None = None) -> Any:
    """``x`` seen through windows of ``sizes`` that slide over ``axes`` (in increasing order), as
    many as fit.  For the axes of the result see ``Sliding``.

    Raises ShapeError where a window is known not to fit; else that is asked in a call.
    """
    steps = tuple(strides or [1] * len(axes))
    spread = tuple(dilations or [1] * len(axes))
    extents = tuple(dim(n) for n in sizes)
    counts = tuple(
        floordiv(x.type.dims[a] - (n - 1) * d - 1, dim(s)) + 1
        for a, n, s, d in zip(axes, extents, steps, spread, strict=True))
    sliding = Sliding(tuple(axes), counts, extents, steps, spread)
    return apply(Windows(sliding), x)[0]
