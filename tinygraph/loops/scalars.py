"""What each scalar operation of the loop language means, on Python integers and NumPy floats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygraph.dtypes import DType, bool_
from tinygraph.loops.language import TRANSCENDENTAL

# Computed in float64, then rounded to the operand's dtype.
ROUNDED = TRANSCENDENTAL


def literal(value: float | int | bool, dtype: DType) -> Any:
    """The scalar that a ``Const`` stands for: bool, int, np.float32 or np.float64."""
    if dtype is bool_:
        return bool(value)
    return dtype.np.type(value) if dtype.is_float else int(value)


def caster(source: DType, target: DType) -> Callable[[Any], Any]:
    """The function that takes a scalar of ``source`` to ``target`` (see ``Cast``)."""
    if target is bool_:
        return lambda x: bool(x != 0)
    if target.is_float:
        if source.is_int and source.bits == 64:  # through float64 it would round twice
            return lambda x: np.int64(x).astype(target.np)
        return target.np.type
    if not source.is_float:
        return lambda x: _wrapped(int(x), target)
    info = np.iinfo(target.np)
    low, high = int(info.min), int(info.max)

    def saturate(x: Any) -> int:
        if x != x:
            return 0
        if math.isinf(x):
            return high if x > 0 else low
        return min(max(int(x), low), high)

    return saturate


def _wrapped(x: int, dtype: DType) -> int:
    half = 1 << (dtype.bits - 1) if dtype.kind == "i" else 0
    return ((x + half) & ((1 << dtype.bits) - 1)) - half


def _select(cond: Any, then: Any, other: Any) -> Any:
    return then if cond else other


def _minimum(x: Any, y: Any) -> Any:
    return x if x < y or x != x else y


def _maximum(x: Any, y: Any) -> Any:
    return x if x > y or x != x else y


def _floordiv_int(x: int, y: int) -> int:
    return x // y if y else 0


def _mod_int(x: int, y: int) -> int:
    return x % y if y else 0


def _shl(x: int, y: int, bits: int) -> int:
    # A shift by the width or more has no meaning; a large value makes its use show.
    return x << y if 0 <= y < bits else (1 << (bits - 1)) - 1


def _shr(x: int, y: int, bits: int) -> int:
    return x >> y if 0 <= y < bits else (1 << (bits - 1)) - 1


def _sigmoid(x: float) -> float:
    e = np.exp(-abs(x))
    return 1.0 / (1.0 + e) if x >= 0 else e / (1.0 + e)


def _softplus(x: float) -> float:
    return np.maximum(x, 0.0) + np.log1p(np.exp(-abs(x)))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "select": _select,
    "min": _minimum,
    "max": _maximum,
    "div": lambda x, y: x / y,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "floordiv_int": _floordiv_int,
    "mod_int": _mod_int,
    "shl": _shl,
    "shr": _shr,
    "abs": abs,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": np.rint,
    "isnan": lambda x: bool(x != x),
    "isinf": lambda x: bool(math.isinf(x)),
    "to_bits32": lambda x: int(x.view(np.int32)),
    "to_bits64": lambda x: int(x.view(np.int64)),
    "from_bits32": lambda x: np.int32(x).view(np.float32),
    "from_bits64": lambda x: np.int64(x).view(np.float64),
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "erf": math.erf,
    "pow": np.power,
    "arctan2": np.arctan2,
    "arcsin": np.arcsin,
    "arccos": np.arccos,
    "arctan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "arcsinh": np.arcsinh,
    "arccosh": np.arccosh,
    "arctanh": np.arctanh,
}
