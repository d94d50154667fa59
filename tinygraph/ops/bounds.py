"""Bounded: integers that are checked to lie in a range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.dims import Dim
from tinygraph.dtypes import int64
from tinygraph.graph import Node, Op, Type, Value, apply, describe


@dataclass(frozen=True)
class Bounded(Op):
    """The int64 array of the first input, each element of which is at least 0 and less than the
    second, an int64 scalar.  Raises IndexError at run time; ``what`` names the array then."""

    what: str

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        x, size = inputs
        if x.type.dtype is not int64 or size.type.dtype is not int64 or size.ndim:
            raise TypeError(f"integers within bounds: int64 and an int64 scalar are taken, not "
                            f"{describe(x)} and {describe(size)}")
        return (x.type,)

    def message(self, number: object, size: object) -> str:
        """What the user reads."""
        return (f"{number} in {self.what} is out of range; it must be at least 0 and less than "
                f"{size}")

    def numpy(self, env: Callable[[Dim], int], *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        x, size = arrays
        bad = x[(x < 0) | (x >= size)]
        if bad.size:
            raise IndexError(self.message(bad[0], size))
        return (x,)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [v.zeros() for v in node.inputs]  # type: ignore[attr-defined]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim
              ) -> tuple[Any, ...] | None:
        return None if batched[1] else apply(self, *inputs)

    def lower(self, context: Any, node: Node) -> None:
        context.bounded(node.outputs[0], *node.inputs, self.message("{0}", "{1}"))

    def __str__(self) -> str:
        return "bounded"
