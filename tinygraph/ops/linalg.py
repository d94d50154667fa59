"""Dot: the product of two arrays over shared axes, with everything that a transpose, a batch
or a sum over the batch would need in its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.dims import Dim, prove_equal
from tinygraph.errors import ShapeError
from tinygraph.graph import Guard, Node, Op, Type, Value, apply, describe

Labels = tuple[int, ...]


@dataclass(frozen=True)
class Dot(Op):
    """out[labels] = sum over the labels that ``out`` lacks of a[labels] * b[labels].

    Every axis bears a label, an operand bears none twice, and a label of one operand alone stays
    in ``out`` (Einstein's convention, as np.einsum writes it: 'ik,kj->ij').
    """

    a: Labels
    b: Labels
    out: Labels

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        x, y = inputs
        if not x.type.dtype.is_float or x.type.dtype is not y.type.dtype:
            raise TypeError(f"dot takes two floats of one dtype, not {describe(x)} and "
                            f"{describe(y)}")
        for i, j in self.shared():
            if prove_equal(x.type.dims[i], y.type.dims[j]) is False:
                raise ShapeError(f"dot: axis {i} of {describe(x)} is {x.type.dims[i]}, but axis "
                                 f"{j} of {describe(y)} is {y.type.dims[j]}")
        sizes = dict(zip(self.b, y.type.dims, strict=True))
        for label, d in zip(self.a, x.type.dims, strict=True):
            if label not in sizes or sizes[label].const is None:
                sizes[label] = d
        return (x.type.with_dims(sizes[label] for label in self.out),)

    def shared(self) -> list[tuple[int, int]]:
        """Pairs of axes of a and b that bear one label."""
        return [(i, self.b.index(label)) for i, label in enumerate(self.a) if label in self.b]

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        x, y = inputs
        for i, j in self.shared():
            yield Guard(x.type.dims[i], "eq", y.type.dims[j], f"dot: axis {i} of {describe(x)} is "
                        f"{{left}}, but axis {j} of {describe(y)} is {{right}}")

    def numpy(self, env: Callable[[Dim], int], *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        x, y = arrays
        out = np.einsum(x, list(self.a), y, list(self.b), list(self.out), optimize=True)
        return (np.asarray(out, x.dtype),)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        (g,), (x, y) = cotangents, node.inputs
        return [dot_general(self.out, self.b, self.a, g, y),
                dot_general(self.out, self.a, self.b, g, x)]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        new = max((*self.a, *self.b), default=-1) + 1
        a, b = (((new, *labels) if flag else labels)
                for labels, flag in zip((self.a, self.b), batched, strict=True))
        return (dot_general(a, b, (new, *self.out), *inputs),)

    def lower(self, context: Any, node: Node) -> None:
        context.dot(node.outputs[0], self, *node.inputs)

    def __str__(self) -> str:
        return f"dot{{{einsum_text(self)}}}"


def einsum_text(op: Dot) -> str:
    """The labels as np.einsum writes them."""
    def letters(labels: Labels) -> str:
        return "".join(chr(ord("a") + label) for label in labels)

    return f"{letters(op.a)},{letters(op.b)}->{letters(op.out)}"


def dot_general(a: Sequence[Any], b: Sequence[Any], out: Sequence[Any], x: Value, y: Value) -> Any:
    """Dot under any hashable labels; they are renamed in the order of first appearance, so that
    equal products are equal ops."""
    names: dict[Any, int] = {}
    for label in (*a, *b):
        names.setdefault(label, len(names))
    op = Dot(tuple(names[k] for k in a), tuple(names[k] for k in b), tuple(names[k] for k in out))
    return apply(op, x, y)[0]


def dot(x: Value, y: Value) -> Any:
    """The product of NumPy's ``dot``: last axis of x with the last but one of y (or its only
    one).  Raises TypeError for a scalar operand."""
    if x.ndim == 0 or y.ndim == 0:
        raise TypeError(f"dot of a scalar: {describe(x)}, {describe(y)}; write x * y")
    a = tuple(("a", i) for i in range(x.ndim - 1))
    left = tuple(("b", j) for j in range(y.ndim - 2))
    right = (("b", "last"),) if y.ndim > 1 else ()
    k = (("k", 0),)
    return dot_general(a + k, left + k + right, a + left + right, x, y)
