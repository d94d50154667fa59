"""Scalar expressions of the loop language as C expressions."""

from __future__ import annotations

import math

from tinygraph.backends.cuda.names import c_type
from tinygraph.dtypes import DType, bool_, float32, int64
from tinygraph.errors import InternalError
from tinygraph.loops.language import (
    COMPARISONS,
    TRANSCENDENTAL,
    Binary,
    Cast,
    Const,
    DimOf,
    Expr,
    Load,
    Select,
    Unary,
    Var,
)

_INFIX = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_PLAIN = {"add": "+", "sub": "-", "mul": "*"}


def literal(value: float | int | bool, dtype: DType) -> str:
    """A constant; floats are written so that they come back as the same bits."""
    if dtype is bool_:
        return "true" if value else "false"
    if not dtype.is_float:
        n = int(value)
        if dtype is int64 and not -(1 << 31) < n < 1 << 31:
            return f"(I64){n}LL" if n != -(1 << 63) else "(-9223372036854775807LL - 1)"
        return str(n) if n >= 0 else f"({n})"
    x = float(dtype.np.type(value))
    if math.isnan(x):
        return "tg_nan<float>()" if dtype is float32 else "tg_nan<double>()"
    if math.isinf(x):
        sign = "-" if x < 0 else ""
        return f"{sign}tg_inf<{c_type(dtype)}>()"
    text = repr(x) if dtype is not float32 else str(dtype.np.type(x))
    if not any(c in text for c in ".en"):
        text += ".0"
    text += "f" if dtype is float32 else ""
    return f"({text})" if x < 0 or text.startswith("-") else text


class Scalars:
    """Writes expressions.  ``var`` and ``load`` say how variables and elements are written."""

    def var(self, e: Var | DimOf) -> str:
        """The C name of a variable or size."""
        raise NotImplementedError

    def element(self, load: Load) -> str:
        """The C expression of an element."""
        raise NotImplementedError

    def index(self, e: Expr) -> str:
        """An int64 expression that counts elements and so does not overflow."""
        return self.expr(e, True)

    def expr(self, e: Expr, index: bool = False) -> str:
        """``e`` in C.  ``index``: its sums and products do not overflow."""
        if isinstance(e, Const):
            return literal(e.value, e.dtype)
        if isinstance(e, (Var, DimOf)):
            return self.var(e)
        if isinstance(e, Load):
            return self.element(e)
        if isinstance(e, Unary):
            return self._unary(e)
        if isinstance(e, Binary):
            return self._binary(e, index)
        if isinstance(e, Select):
            cond, then, other = self.expr(e.cond), self.expr(e.then, index), self.expr(e.other,
                                                                                      index)
            return f"({cond} ? {then} : {other})"
        if isinstance(e, Cast):
            return self._cast(e)
        raise InternalError(f"{type(e).__name__} is no expression of the loop language")

    def _unary(self, e: Unary) -> str:
        x, dtype = self.expr(e.x), e.x.dtype
        if e.op == "neg":
            return f"(-{x})" if dtype.is_float else f"tg_neg<{c_type(dtype)}>({x})"
        if e.op == "not":
            return f"(!{x})"
        if e.op == "invert":
            return f"(!{x})" if dtype is bool_ else f"({c_type(dtype)})(~{x})"
        return f"tg_{e.op}({x})"

    def _binary(self, e: Binary, index: bool) -> str:
        x, y = self.expr(e.x, index), self.expr(e.y, index)
        dtype = e.x.dtype
        if e.op in COMPARISONS:
            return f"({x} {_INFIX[e.op]} {y})"
        if e.op in _PLAIN:
            if dtype.is_float or index:
                return f"({x} {_PLAIN[e.op]} {y})"
            return f"tg_{e.op}<{c_type(dtype)}>({x}, {y})"
        if e.op == "div":
            return f"({x} / {y})"
        if e.op in ("and", "or", "xor"):
            sign = {"and": "&", "or": "|", "xor": "^"}[e.op]
            if dtype is bool_:
                return f"({x} {sign * 2 if sign != '^' else '!='} {y})"
            return f"({c_type(dtype)})({x} {sign} {y})"
        if e.op in ("min", "max", "floordiv", "mod", "shl", "shr"):
            return f"tg_{e.op}<{c_type(dtype)}>({x}, {y})"
        if e.op in TRANSCENDENTAL:
            return f"tg_{e.op}({x}, {y})"
        raise InternalError(f"{e.op!r} is no operation of the loop language")

    def _cast(self, e: Cast) -> str:
        x, source, target = self.expr(e.x), e.x.dtype, e.dtype
        if source is target:
            return x
        if target is bool_:
            return f"({x} != 0)"
        if source.is_float and target.is_int:
            return f"tg_to_int<{c_type(target)}>({x})"
        return f"({c_type(target)})({x})"


def accumulated(op: str, dtype: DType, old: str, new: str) -> str:
    """``old`` accumulated with ``new``."""
    if op in ("add", "mul") and dtype.is_float:
        return f"{old} {_PLAIN[op]} {new}"
    if op in ("and", "or"):
        sign = {"and": "&", "or": "|"}[op]
        return f"({c_type(dtype)})({old} {sign} {new})"
    return f"tg_{op}<{c_type(dtype)}>({old}, {new})"


def identity(op: str, dtype: DType) -> str:
    """What accumulation with ``op`` starts from."""
    t = c_type(dtype)
    if op in ("add", "or"):
        return f"({t})0"
    if op == "mul":
        return f"({t})1"
    if op == "and":
        return "true" if dtype is bool_ else f"({t})-1"
    return f"tg_{'highest' if op == 'min' else 'lowest'}<{t}>()"


