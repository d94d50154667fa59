"""Identities with a gradient of their own.  A pass removes them right after differentiation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.dims import Dim
from tinygraph.graph import Node, Op, Type, Value, apply
from tinygraph.ops.arithmetic import elementwise


@dataclass(frozen=True)
class Identity(Op):
    """The input itself: the base of ops that only change the gradient."""

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        return (inputs[0].type,)

    def numpy(self, env: Callable[[Dim], int], *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return (arrays[0],)

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(self, *inputs)

    def lower(self, context: Any, node: Node) -> None:
        context.alias(node.outputs[0], context.view(node.inputs[0]))


class Disconnected:
    """What stands for "no dependence" in the list of gradients of a user's op, like None."""


@dataclass(frozen=True)
class NotDifferentiable:
    """What stands in the list of gradients of a user's op for one that cannot be had.  To ask for
    a gradient that needs it raises NotDifferentiableError with ``reason``."""

    reason: str


@dataclass(frozen=True)
class GradClip(Identity):
    """The gradient that passes is clipped to [low, high], element by element (Graves 2013,
    arXiv:1308.0850, p. 6).  The bounds are part of the op, so that two clips stay two."""

    low: float
    high: float

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [elementwise("minimum", elementwise("maximum", cotangents[0], self.low), self.high)]


@dataclass(frozen=True)
class GradScale(Identity):
    """The gradient that passes is multiplied by ``factor``."""

    factor: float

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [cotangents[0] * self.factor]


@dataclass(frozen=True)
class Undefined(Identity):
    """To ask for the gradient that passes is a mistake, for ``reason``."""

    reason: str

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [NotDifferentiable(self.reason)]


@dataclass(frozen=True)
class Stop(Identity):
    """No gradient passes: ``kind`` 'disconnected' (no dependence) or 'zero' (zeros)."""

    kind: str

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [None if self.kind == "disconnected" else cotangents[0].zeros()]
