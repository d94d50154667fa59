"""Indexing by arrays of integers: Take reads, Put writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinygraph.dims import Dim, prove_equal
from tinygraph.errors import ShapeError
from tinygraph.graph import Guard, Node, Op, Type, Value, apply, describe
from tinygraph.ops.arithmetic import lead
from tinygraph.ops.views import transpose

Env = Callable[[Dim], int]


def _checked(index: np.ndarray, size: int) -> np.ndarray:
    bad = (index < -size) | (index >= size)
    if bad.any():
        raise IndexError(f"index {index[bad].flat[0]} is out of range for size {size}")
    return np.where(index < 0, index + size, index)


@dataclass(frozen=True)
class Take(Op):
    """x[..., index, ...] along ``axis``: the index's axes stand in its place.

    Negative indices count from the end.  Raises IndexError at run time for one out of range.
    """

    axis: int

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        x, index = inputs
        if not index.type.dtype.is_int:
            raise TypeError(f"an index must be of integers, not {describe(index)}")
        before, after = x.type.dims[:self.axis], x.type.dims[self.axis + 1:]
        return (x.type.with_dims((*before, *index.type.dims, *after)),)

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        x, index = arrays
        return (np.take(x, _checked(index, x.shape[self.axis]), self.axis),)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        (g,), (x, index) = cotangents, node.inputs
        zeros = x.zeros() if x.type.dtype is g.type.dtype else x.zeros().cast(  # type: ignore
            g.type.dtype)
        return [apply(Put(self.axis, "add"), zeros, index, g)[0], None]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim
              ) -> tuple[Any, ...] | None:
        if batched[0] or not batched[1]:
            return _batch(self, inputs, batched, n)
        # The index's axes, its leading one too, come to stand where ``axis`` was.
        taken = apply(self, *inputs)[0]
        rest = (k for k in range(taken.ndim) if k != self.axis)
        return (transpose(taken, (self.axis, *rest)),)

    def lower(self, context: Any, node: Node) -> None:
        context.take(node.outputs[0], *node.inputs, self.axis)


@dataclass(frozen=True)
class Put(Op):
    """x with y written ('set': the last write stays) or added ('add': repeated indices add up)
    at ``index`` along ``axis``."""

    axis: int
    mode: str

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        x, index, y = inputs
        for a, b in zip(self._slot(x, index), y.type.dims, strict=True):
            if prove_equal(a, b) is False:
                raise ShapeError(f"{describe(y)} does not fit into the indexed part of "
                                 f"{describe(x)}: {y.type.dims} against {self._slot(x, index)}")
        return (x.type,)

    def _slot(self, x: Value, index: Value) -> tuple[Dim, ...]:
        return (*x.type.dims[:self.axis], *index.type.dims, *x.type.dims[self.axis + 1:])

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        x, index, y = inputs
        for k, (a, b) in enumerate(zip(self._slot(x, index), y.type.dims, strict=True)):
            yield Guard(b, "eq", a, f"axis {k} of {describe(y)} is {{left}}, but the indexed part "
                        f"of {describe(x)} has {{right}}")

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        x, index, y = arrays
        out = np.array(x)
        where = (slice(None),) * self.axis + (_checked(index, x.shape[self.axis]),)
        if self.mode == "add":
            np.add.at(out, where, y)  # type: ignore[arg-type]
        else:
            out[where] = y
        return (out,)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        (g,), (_, index, _) = cotangents, node.inputs
        by_y = apply(Take(self.axis), g, index)[0]
        if self.mode == "add":
            return [g, None, by_y]
        return [apply(self, g, index, by_y.zeros())[0], None, by_y]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim
              ) -> tuple[Any, ...] | None:
        return _batch(self, inputs, batched, n)

    def lower(self, context: Any, node: Node) -> None:
        context.put_index(node.outputs[0], *node.inputs, self.axis, self.mode)


def _batch(op: Take | Put, inputs: Sequence[Any], batched: Sequence[bool], n: Dim
           ) -> tuple[Any, ...] | None:
    """One more leading axis; None where the index itself has it."""
    x, index, *rest = inputs
    if batched[1]:
        return None
    arrays = [lead(v, b, n) for v, b in zip([x, *rest], [batched[0], *batched[2:]], strict=True)]
    return apply(replace(op, axis=op.axis + 1), arrays[0], index, *arrays[1:])
