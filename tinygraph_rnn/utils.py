"""What the other modules share: arrays of floatX, and parameters from their specifications."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tinygraph import config, shared
from tinygraph.compile.variables import SharedVariable
from tinygraph.dims import dim, prove_equal
from tinygraph.graph import Value, describe, leaves


def floatX(x: Any) -> np.ndarray:
    """``x`` as an array of ``config.floatX``."""
    return np.asarray(x, dtype=config.floatX)


def unique(items: Iterable[Any]) -> list[Any]:
    """``items`` without repetitions, in the order of first appearance."""
    return list(dict.fromkeys(items))


def collect_shared_vars(expressions: Iterable[Value]) -> list[Any]:
    """The shared variables in ``expressions``, each once, in the order of first use."""
    return [v for v in leaves(expressions) if isinstance(v, SharedVariable)]


def create_param(spec: Any, shape: Sequence[int], name: str | None = None) -> Any:
    """The variable of ``shape`` (ints) that ``spec`` describes.

    spec: a number or array (becomes a shared variable), a callable from the shape to one of the
    others (an initialiser), or a shared variable or expression, which is taken as it is.  An axis
    that must have size 1 broadcasts in the shared variables made here.

    Raises ValueError for a shape that does not fit, TypeError for a spec of another kind.
    """
    shape = tuple(int(n) for n in shape)
    if any(n <= 0 for n in shape):
        raise ValueError(f"parameter {name or ''} cannot have shape {shape}: every axis must be "
                         "positive")
    if callable(spec) and not isinstance(spec, Value):
        spec = spec(shape)
    if isinstance(spec, Value):
        return _checked(spec, shape, name)
    if not isinstance(spec, (int, float, np.generic, np.ndarray, list, tuple)):
        raise TypeError(f"parameter {name or ''} cannot be made from {spec!r}: give an array, a "
                        "shared variable, an expression, or an initialiser such as "
                        "init.Normal(0.1)")
    array = floatX(spec)
    if array.shape != shape:
        raise ValueError(f"parameter {name or ''} must have shape {shape}, but the array given "
                         f"has {array.shape}")
    return shared(array, name=name, broadcastable=tuple(n == 1 for n in shape))


def _checked(spec: Any, shape: tuple[int, ...], name: str | None) -> Any:
    sizes = spec.type.dims
    if isinstance(spec, SharedVariable):
        sizes = tuple(dim(n) for n in spec.get_value(borrow=True).shape)
    if len(sizes) != len(shape) or any(
            prove_equal(a, dim(b)) is False for a, b in zip(sizes, shape, strict=True)):
        raise ValueError(f"parameter {name or ''} must have shape {shape}, but {describe(spec)} "
                         f"has ({', '.join(map(str, sizes))})")
    return spec
