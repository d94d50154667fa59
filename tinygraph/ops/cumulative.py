"""What runs along an axis: sums and products so far, and the linear recurrence that is the
gradient of products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinygraph.dims import Dim, dim, maximum, prove_equal
from tinygraph.errors import ShapeError
from tinygraph.graph import Guard, Node, Op, Type, Value, apply, describe
from tinygraph.ops.arithmetic import cast, full, lead
from tinygraph.ops.views import SetSlice, axis_region, slice_

Env = Callable[[Dim], int]


@dataclass(frozen=True)
class Cumulate(Op):
    """Per element the sum or product (``kind`` 'sum' or 'prod') of all elements up to it along
    ``axis``, itself included; ``reverse``: from it to the end."""

    kind: str
    axis: int
    reverse: bool = False

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        return (inputs[0].type,)

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        x = np.flip(arrays[0], self.axis) if self.reverse else arrays[0]
        run = np.cumsum if self.kind == "sum" else np.cumprod
        with np.errstate(all="ignore"):
            out = run(x, self.axis, x.dtype)
        return (np.flip(out, self.axis) if self.reverse else out,)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        (g,), (x,), (y,) = cotangents, node.inputs, node.outputs
        if self.kind == "sum":
            return [apply(replace(self, reverse=not self.reverse), g)[0]]
        # Every product without its k-th factor: what comes before k, times the rest of it.
        # The rests, each times its cotangent, add up backwards: s[k] = g[k] + x[k+1] * s[k+1].
        x, y = cast(x, g.type.dtype), cast(y, g.type.dtype)
        back = LinearRecurrence(self.axis, not self.reverse)
        rest = apply(back, _moved(x, self.axis, not self.reverse, 0), g)[0]
        return [_moved(y, self.axis, self.reverse, 1) * rest]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(replace(self, axis=self.axis + 1), *inputs)

    def lower(self, context: Any, node: Node) -> None:
        context.cumulate(node.outputs[0], self.kind, node.inputs, self.axis, self.reverse)


@dataclass(frozen=True)
class LinearRecurrence(Op):
    """h[t] = a[t] * h[t-1] + b[t] along ``axis``, of floats ``a`` and ``b``, from h[-1] = 0;
    ``reverse``: h[t+1] in place of h[t-1], from the end."""

    axis: int
    reverse: bool = False

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        a, b = inputs
        if not a.type.dtype.is_float or a.type.dtype is not b.type.dtype:
            raise TypeError(f"a linear recurrence takes two floats of one dtype, not {describe(a)} "
                            f"and {describe(b)}")
        if a.ndim != b.ndim or any(prove_equal(m, n) is False for m, n in
                                   zip(a.type.dims, b.type.dims, strict=True)):
            raise ShapeError(f"a linear recurrence takes arrays of one shape, not {describe(a)} of "
                             f"{a.type.dims} and {describe(b)} of {b.type.dims}")
        return (b.type,)

    def requires(self, *inputs: Value) -> Sequence[Guard]:
        a, b = inputs
        return [Guard(m, "eq", n, f"axis {k} of {describe(a)} is {{left}}, but of {describe(b)} it "
                      "is {right}")
                for k, (m, n) in enumerate(zip(a.type.dims, b.type.dims, strict=True))]

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = (np.moveaxis(x, self.axis, 0) for x in arrays)
        h, out = np.zeros(b.shape[1:], b.dtype), np.empty_like(b)
        with np.errstate(all="ignore"):
            for t in reversed(range(len(b))) if self.reverse else range(len(b)):
                out[t] = h = a[t] * h + b[t]
        return (np.moveaxis(out, 0, self.axis),)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        (g,), (a, _), (h,) = cotangents, node.inputs, node.outputs
        back = replace(self, reverse=not self.reverse)
        by_b = apply(back, _moved(a, self.axis, back.reverse, 0), g)[0]
        return [by_b * _moved(h, self.axis, self.reverse, 0), by_b]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        a, b = (lead(v, flag, n) for v, flag in zip(inputs, batched, strict=True))
        return apply(replace(self, axis=self.axis + 1), a, b)

    def lower(self, context: Any, node: Node) -> None:
        context.cumulate(node.outputs[0], "linear", node.inputs, self.axis, self.reverse)


def _moved(x: Any, axis: int, reverse: bool, first: float) -> Any:
    """What comes before each element on the way along ``axis``; ``first`` before the first."""
    n = x.type.dims[axis]
    fewer = maximum(n - 1, dim(0))
    start, end = axis_region(x, axis, 0, fewer), axis_region(x, axis, 1, fewer)
    target, source = (start, end) if reverse else (end, start)
    base = full(first, x.type.dims, x.type.dtype, cls=type(x).result_class())
    return apply(SetSlice(target), base, slice_(x, source))[0]
