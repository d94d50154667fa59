"""Where a mask is true: the one op whose result has a size that its operand's values decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.dims import Dim, Sym, dim, product
from tinygraph.dtypes import bool_, int64
from tinygraph.graph import Node, Op, Type, Value, apply, describe
from tinygraph.ops.sizes import size_value
from tinygraph.ops.views import reshape

Env = Callable[[Dim], int]


@dataclass(frozen=True)
class Nonzero(Op):
    """How many elements of a boolean vector are true, and their places in order.

    ``count`` is the late symbol of that number.
    """

    count: Dim

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        (mask,) = inputs
        if mask.type.dtype is not bool_ or mask.ndim != 1:
            raise TypeError(f"nonzero takes a boolean vector, not {describe(mask)}")
        return Type(int64), Type(int64, (self.count,))

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        places = np.flatnonzero(arrays[0]).astype(np.int64)
        return np.asarray(places.size, np.int64), places

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [None]

    def lower(self, context: Any, node: Node) -> None:
        context.nonzero(node)

    def late(self) -> tuple[tuple[Sym, int], ...]:
        symbol = self.count.symbol
        return () if symbol is None else ((symbol, 0),)


def nonzero(mask: Any) -> list[Any]:
    """Per axis of the boolean array ``mask`` the indices of its true elements, in row-major order:
    int64 vectors.  Asked twice of one variable, they are the same variables."""
    found = getattr(mask, "nonzero_places", None)
    if found is None:
        dims, size = mask.type.dims, product(mask.type.dims)
        name = mask.name or "a mask"
        s = Sym("true", f"the number of true elements of {name}", bound=size)
        count, places = apply(Nonzero(dim(s)), reshape(mask, [size]))
        s.value = count
        found = []
        for d in reversed(dims[1:]):
            extent = size_value(d, mask.result_class())
            found.append(places % extent)
            places = places // extent
        found = [places, *reversed(found)]
        mask.nonzero_places = found
    return list(found)
