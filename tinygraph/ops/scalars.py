"""Scalar functions: what an elementwise op computes, one table.

An entry is complete: result type, NumPy meaning, gradient, loop expression.  Gradients are
written with the operators of ``Arithmetic`` (ops/arithmetic.py), hence work to any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.dtypes import ALL, DType, bool_, int64
from tinygraph.loops import language as L
from tinygraph.ops.philox import philox, philox_half, philox_words

Grad = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class ScalarFn:
    """A scalar function of ``arity`` arguments of one dtype.

    result   "same", "bool", or a DType (a cast)
    accepts  dtype kinds that it takes: "f" float only, "fiu" numbers, "b"...
    numpy    its meaning on arrays
    grad     (*inputs, output, cotangent) -> a cotangent per input; None: no dependence
    loops    (*expressions) -> loop expression
    prepare  (let, *expressions) -> the expressions that ``loops`` takes instead; ``let`` binds
             one to a name.  Functions that share it share that work where operands are the same
    """

    name: str
    arity: int
    numpy: Callable[..., Any]
    grad: Grad
    loops: Callable[..., L.Expr]
    result: str | DType = "same"
    accepts: str = "fiu"
    prepare: Callable[..., tuple[L.Expr, ...]] | None = None

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> Any:
        if TABLE.get(self.name) is self:
            return _lookup, (self.name,)
        if isinstance(self.result, DType):
            return cast_fn, (self.result,)
        return super().__reduce__()


def _lookup(name: str) -> ScalarFn:
    return TABLE[name]


def _unary(name: str, numpy: Callable[..., Any], grad: Grad, **more: Any) -> ScalarFn:
    return ScalarFn(name, 1, numpy, grad, lambda x: L.Unary(name, x), **more)


def _binary(name: str, numpy: Callable[..., Any], grad: Grad, op: str = "", **more: Any
            ) -> ScalarFn:
    return ScalarFn(name, 2, numpy, grad, lambda x, y: L.Binary(op or name, x, y), **more)


def _flat(*args: Any) -> tuple[Any, ...]:
    """The gradient of a step function: zero everywhere, yet connected."""
    *inputs, _, g = args
    return tuple(g.zeros() for _ in inputs)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


def _floor_divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y == 0, np.zeros_like(x), np.floor_divide(x, np.where(y == 0, 1, y))) \
        if x.dtype.kind in "iu" else np.floor_divide(x, y)


def _mod(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y == 0, np.zeros_like(x), np.mod(x, np.where(y == 0, 1, y))) \
        if x.dtype.kind in "iu" else np.mod(x, y)


def _sign(x: L.Expr) -> L.Expr:
    zero, one = L.Const(0, x.dtype), L.Const(1, x.dtype)
    up = L.Cast(L.Binary("gt", x, zero), x.dtype)
    if x.dtype.kind == "u":
        return up
    sign = L.Binary("sub", up, L.Cast(L.Binary("lt", x, zero), x.dtype))
    if not x.dtype.is_float:
        return sign
    return L.Select(L.Unary("isnan", x), x, L.Binary("mul", sign, one))


def _left_shift(x: L.Expr, y: L.Expr) -> L.Expr:
    inside, most = _shift_amount(x, y)
    moved = L.Binary("shl", x, most)
    return moved if most is y else L.Select(inside, moved, L.Const(0, x.dtype))


def _right_shift(x: L.Expr, y: L.Expr) -> L.Expr:
    inside, most = _shift_amount(x, y)
    moved = L.Binary("shr", x, most)
    if most is y or x.dtype.kind == "i":
        return moved
    return L.Select(inside, moved, L.Const(0, x.dtype))


def _shift_amount(x: L.Expr, y: L.Expr) -> tuple[L.Expr, L.Expr]:
    """Is ``y`` a number of bits that ``x`` has; and y (itself, if it surely is), or the largest
    such number."""
    last = L.Const(x.dtype.bits - 1, x.dtype)
    inside = L.Binary("and", L.Binary("ge", y, L.Const(0, x.dtype)), L.Binary("le", y, last))
    sure = isinstance(y, L.Const) and 0 <= y.value < x.dtype.bits
    return inside, y if sure else L.Select(inside, y, last)


def _shift(op: str) -> Callable[..., L.Expr]:
    """The loop expression of a shift.  Counts that are negative or reach the width shift every
    bit out, as in NumPy; the loop language gives them no meaning."""
    def loops(x: L.Expr, y: L.Expr) -> L.Expr:
        zero, last = L.Const(0, x.dtype), L.Const(x.dtype.bits - 1, x.dtype)
        inside: L.Expr = L.Binary("le", y, last)
        if x.dtype.kind == "i":
            inside = L.Binary("and", L.Binary("ge", y, zero), inside)
            if op == "shr":  # the sign is what stays
                return L.Binary(op, x, L.Select(inside, y, last))
        return L.Select(inside, L.Binary(op, x, L.Select(inside, y, zero)), zero)

    return loops


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _pow_grad(x: Any, y: Any, out: Any, g: Any) -> tuple[Any, ...]:
    by_y = (x > 0).switch(out * (x > 0).switch(x, 1).log(), 0)
    return g * y * x ** (y - 1), g * by_y


def _bitwise(name: str) -> ScalarFn:
    return _binary(name, getattr(np, f"bitwise_{name}"), _flat, accepts="iub")


def _compare(name: str, numpy: Callable[..., Any]) -> ScalarFn:
    return _binary(name, numpy, _flat, result="bool", accepts="fiub")


_FLOAT: dict[str, Any] = {"accepts": "f"}

_ENTRIES = (
    # arithmetic
    _binary("add", np.add, lambda x, y, out, g: (g, g)),
    _binary("sub", np.subtract, lambda x, y, out, g: (g, -g)),
    _binary("mul", np.multiply, lambda x, y, out, g: (g * y, g * x)),
    _binary("div", np.divide, lambda x, y, out, g: (g / y, -g * out / y), **_FLOAT),
    _binary("floordiv", _floor_divide, _flat),
    _binary("mod", _mod, lambda x, y, out, g: (g, -g * (x // y).as_float())),
    _binary("pow", np.power, _pow_grad, **_FLOAT),
    _binary("maximum", np.maximum, op="max", accepts="fiub",
            grad=lambda x, y, out, g: ((x >= y).switch(g, 0), (x >= y).switch(0, g))),
    _binary("minimum", np.minimum, op="min", accepts="fiub",
            grad=lambda x, y, out, g: ((x <= y).switch(g, 0), (x <= y).switch(0, g))),
    _unary("neg", np.negative, lambda x, out, g: (-g,)),
    _unary("abs", np.abs, lambda x, out, g: (g * x.sign(),)),
    ScalarFn("sign", 1, np.sign, _flat, _sign),
    # rounding
    _unary("floor", np.floor, _flat, **_FLOAT),
    _unary("ceil", np.ceil, _flat, **_FLOAT),
    _unary("trunc", np.trunc, _flat, **_FLOAT),
    _unary("round", np.round, _flat, **_FLOAT),
    # exponentials
    _unary("sqrt", np.sqrt, lambda x, out, g: (g / (out + out),), **_FLOAT),
    _unary("exp", np.exp, lambda x, out, g: (g * out,), **_FLOAT),
    _unary("expm1", np.expm1, lambda x, out, g: (g * (out + 1),), **_FLOAT),
    _unary("log", np.log, lambda x, out, g: (g / x,), **_FLOAT),
    _unary("log1p", np.log1p, lambda x, out, g: (g / (x + 1),), **_FLOAT),
    _unary("log2", np.log2, lambda x, out, g: (g / (x * math.log(2.0)),), **_FLOAT),
    _unary("tanh", np.tanh, lambda x, out, g: (g * (1 - out * out),), **_FLOAT),
    _unary("sigmoid", _sigmoid, lambda x, out, g: (g * (out * (1 - out)),), **_FLOAT),
    _unary("softplus", lambda x: np.logaddexp(x.dtype.type(0), x),
           lambda x, out, g: (g * x.sigmoid(),), **_FLOAT),
    _unary("erf", lambda x: _erf(x).astype(x.dtype),
           lambda x, out, g: (g * (-x * x).exp() * (2 / math.sqrt(math.pi)),), **_FLOAT),
    # trigonometric and hyperbolic
    _unary("sin", np.sin, lambda x, out, g: (g * x.cos(),), **_FLOAT),
    _unary("cos", np.cos, lambda x, out, g: (-g * x.sin(),), **_FLOAT),
    _unary("tan", np.tan, lambda x, out, g: (g * (1 + out * out),), **_FLOAT),
    _unary("arcsin", np.arcsin, lambda x, out, g: (g / (1 - x * x).sqrt(),), **_FLOAT),
    _unary("arccos", np.arccos, lambda x, out, g: (-g / (1 - x * x).sqrt(),), **_FLOAT),
    _unary("arctan", np.arctan, lambda x, out, g: (g / (1 + x * x),), **_FLOAT),
    _unary("sinh", np.sinh, lambda x, out, g: (g * x.cosh(),), **_FLOAT),
    _unary("cosh", np.cosh, lambda x, out, g: (g * x.sinh(),), **_FLOAT),
    _unary("arcsinh", np.arcsinh, lambda x, out, g: (g / (x * x + 1).sqrt(),), **_FLOAT),
    _unary("arccosh", np.arccosh, lambda x, out, g: (g / (x * x - 1).sqrt(),), **_FLOAT),
    _unary("arctanh", np.arctanh, lambda x, out, g: (g / (1 - x * x),), **_FLOAT),
    _binary("arctan2", np.arctan2, accepts="f", grad=lambda y, x, out, g: (
        g * x / (x * x + y * y), -g * y / (x * x + y * y))),
    # comparison and logic
    _compare("lt", np.less), _compare("le", np.less_equal),
    _compare("gt", np.greater), _compare("ge", np.greater_equal),
    _compare("eq", np.equal), _compare("ne", np.not_equal),
    _bitwise("and"), _bitwise("or"), _bitwise("xor"),
    ScalarFn("left_shift", 2, np.left_shift, _flat, _shift("shl"), accepts="iu"),
    ScalarFn("right_shift", 2, np.right_shift, _flat, _shift("shr"), accepts="iu"),
    ScalarFn("invert", 1, np.invert, _flat, accepts="iub", loops=lambda x: L.Unary(
        "not" if x.dtype is bool_ else "invert", x)),
    # x << y and x >> y, where y is at least 0; a shift by the width or more moves all bits out
    ScalarFn("left_shift", 2, np.left_shift, _flat, _left_shift, accepts="iu"),
    ScalarFn("right_shift", 2, np.right_shift, _flat, _right_shift, accepts="iu"),
    # random bits of (index, draw, key): see ops/philox.py
    ScalarFn("philox_low", 3, lambda i, draw, key: philox(i, draw, key)[0], _flat,
             lambda a, b, c, d: philox_half(a, b), int64, "i", philox_words),
    ScalarFn("philox_high", 3, lambda i, draw, key: philox(i, draw, key)[1], _flat,
             lambda a, b, c, d: philox_half(c, d), int64, "i", philox_words),
    _unary("isnan", np.isnan, _flat, result="bool", accepts="f"),
    _unary("isinf", np.isinf, _flat, result="bool", accepts="f"),
    # a choice: the condition is bool, the others of one dtype
    ScalarFn("switch", 3, np.where, accepts="fiub", loops=L.Select, grad=lambda c, x, y, out, g: (
        g.zeros(), c.switch(g, 0), c.switch(0, g))),
)

TABLE: dict[str, ScalarFn] = {entry.name: entry for entry in _ENTRIES}


def cast_fn(target: DType) -> ScalarFn:
    """The scalar function that converts to ``target``."""
    return _CASTS[target]


def _cast(target: DType) -> ScalarFn:
    def convert(x: np.ndarray) -> np.ndarray:
        if x.dtype.kind == "f" and target.is_int:
            info = np.iinfo(target.np)
            wide = np.nan_to_num(np.trunc(x.astype(np.float64)), nan=0.0,
                                 posinf=math.inf, neginf=-math.inf)
            inside = (wide >= float(info.min)) & (wide < float(info.max) + 1.0)
            out = np.where(inside, wide, 0).astype(target.np)
            out = np.where(wide >= float(info.max) + 1.0, info.max, out)
            return np.where(wide < float(info.min), info.min, out).astype(target.np)
        return x.astype(target.np)

    def grad(x: Any, out: Any, g: Any) -> tuple[Any, ...]:
        return (g.cast(x.type.dtype if x.type.dtype.is_float else g.type.dtype)
                if target.is_float else g.zeros(),)

    return ScalarFn(f"cast_{target}", 1, convert, grad, lambda x: L.Cast(x, target),
                    result=target, accepts="fiub")


_CASTS = {d: _cast(d) for d in ALL}
