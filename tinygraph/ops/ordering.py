"""Order: Argsort says which element comes where, Searchsorted where one would go.

A nan comes after every number, as in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.dims import Dim
from tinygraph.dtypes import int64
from tinygraph.graph import Node, Op, Type, Value, apply, describe

Env = Callable[[Dim], int]


@dataclass(frozen=True)
class Argsort(Op):
    """The indices, int64, that sort the input along its last axis; equal elements keep their
    order."""

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        (x,) = inputs
        if x.ndim == 0:
            raise TypeError(f"{describe(x)} is a scalar: it has no axis along which to sort")
        return (Type(int64, x.type.dims),)

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.argsort(arrays[0], axis=-1, kind="stable").astype(np.int64),)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [node.inputs[0].zeros()]  # type: ignore[attr-defined]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(self, *inputs)

    def lower(self, context: Any, node: Node) -> None:
        context.argsort(node.outputs[0], node.inputs[0])


@dataclass(frozen=True)
class Searchsorted(Op):
    """For every element of the second input its place, int64, in the first, a sorted vector.

    ``side`` 'left': how many elements of the vector come before it; 'right': those that are
    equal count, too.
    """

    side: str

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        x, v = inputs
        if x.ndim != 1 or x.type.dtype is not v.type.dtype:
            raise TypeError(f"searchsorted takes a sorted vector and values of its dtype, not "
                            f"{describe(x)} and {describe(v)}")
        return (Type(int64, v.type.dims),)

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        x, v = arrays
        return (np.asarray(np.searchsorted(x, v, self.side), np.int64),)  # type: ignore

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [v.zeros() for v in node.inputs]  # type: ignore[attr-defined]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim
              ) -> tuple[Any, ...] | None:
        return None if batched[0] else apply(self, *inputs)

    def lower(self, context: Any, node: Node) -> None:
        context.searchsorted(node.outputs[0], *node.inputs, self.side)
