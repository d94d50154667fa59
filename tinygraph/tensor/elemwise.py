"""Elementwise functions under the names that users know.

Each takes variables, arrays and numbers.  Python numbers are weak: they take the dtype of the
variables beside them.  Integers give floats where the function needs floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygraph.dtypes import int64
from tinygraph.graph import Value
from tinygraph.ops.arithmetic import (
    as_value,
    broadcast_to,
    broadcast_together,
    elementwise,
)
from tinygraph.ops.arithmetic import power as raised
from tinygraph.tensor.variable import Tensor, as_dtype, as_tensor_variable, constant, rounded


def _operands(*operands: Any) -> list[Any]:
    """Operands among which at least one is a variable, lists that hold variables stacked."""
    out = [as_tensor_variable(x) if isinstance(x, (list, tuple)) else x for x in operands]
    if not any(isinstance(x, Value) for x in out):
        out[0] = as_tensor_variable(out[0])
    return out


def _unary(name: str, text: str, public: str = "") -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        return elementwise(name, *_operands(x))

    function.__name__ = function.__qualname__ = public or name
    function.__doc__ = text
    return function


def _binary(name: str, text: str, public: str = "") -> Callable[[Any, Any], Any]:
    def function(x: Any, y: Any) -> Any:
        return elementwise(name, *_operands(x, y))

    function.__name__ = function.__qualname__ = public or name
    function.__doc__ = text
    return function


def _nary(name: str, text: str) -> Callable[..., Any]:
    def function(x: Any, y: Any, *more: Any) -> Any:
        out, *rest = _operands(x, y, *more)
        for operand in rest:
            out = elementwise(name, out, operand)
        return out

    function.__name__ = function.__qualname__ = name
    function.__doc__ = text
    return function


def _logical(name: str, text: str, public: str = "") -> Callable[..., Any]:
    def function(*operands: Any) -> Any:
        return elementwise(name, *(x if x.dtype == "bool" else elementwise("ne", x, 0)
                                   for x in map(as_tensor_variable, operands)))

    function.__name__ = function.__qualname__ = public or f"logical_{name}"
    function.__doc__ = text
    return function


# --- arithmetic ---
add = _nary("add", "The sum of two or more operands.")
mul = _nary("mul", "The product of two or more operands.")
maximum = _nary(
    "maximum", "The larger operand; nan if one is; ties send the gradient to the first.")
minimum = _nary(
    "minimum", "The smaller operand; nan if one is; ties send the gradient to the first.")
sub = _binary("sub", "x - y.")
true_div = _binary("div", "x / y; of integers it is a float.", "true_div")
int_div = _binary("floordiv", "x // y, rounded down; integers divided by 0 give 0.", "int_div")
mod = _binary("mod", "x % y with the sign of y; for integers and y = 0 it is 0.")
neg = _unary("neg", "-x.")
abs_ = _unary("abs", "The magnitude of x.", "abs_")
sgn = _unary("sign", "-1, 0 or 1.", "sgn")
arctan2 = _binary("arctan2", "The angle of the point (y, x), arguments in that order.")

# --- exponentials ---
exp = _unary("exp", "e to the power x.")
expm1 = _unary("expm1", "exp(x) - 1, exact for small x.")
log = _unary("log", "The natural logarithm.")
log1p = _unary("log1p", "log(1 + x), exact for small x.")
log2 = _unary("log2", "The logarithm to base 2.")
sqrt = _unary("sqrt", "The square root.")
erf = _unary("erf", "The error function.")

# --- trigonometric and hyperbolic ---
sin = _unary("sin", "The sine of x in radians.")
cos = _unary("cos", "The cosine of x in radians.")
tan = _unary("tan", "The tangent of x in radians.")
arcsin = _unary("arcsin", "The inverse of the sine.")
arccos = _unary("arccos", "The inverse of the cosine.")
arctan = _unary("arctan", "The inverse of the tangent.")
sinh = _unary("sinh", "The hyperbolic sine.")
cosh = _unary("cosh", "The hyperbolic cosine.")
tanh = _unary("tanh", "The hyperbolic tangent.")
arcsinh = _unary("arcsinh", "The inverse of the hyperbolic sine.")
arccosh = _unary("arccosh", "The inverse of the hyperbolic cosine.")
arctanh = _unary("arctanh", "The inverse of the hyperbolic tangent.")
sigmoid = _unary("sigmoid", "1 / (1 + exp(-x)), without overflow.")
softplus = _unary("softplus", "log(1 + exp(x)), without overflow.")

# --- rounding; the gradient is zero ---
floor = _unary("floor", "The largest whole number not above x.")
ceil = _unary("ceil", "The smallest whole number not below x.")
trunc = _unary("trunc", "x without its fraction.")

# --- comparison and logic: bools ---
eq = _binary("eq", "Is x equal to y?")
neq = _binary("ne", "Does x differ from y?", "neq")
lt = _binary("lt", "x < y.")
le = _binary("le", "x <= y.")
gt = _binary("gt", "x > y.")
ge = _binary("ge", "x >= y.")
and_ = _binary("and", "x & y: logical of bools, bitwise of integers.", "and_")
or_ = _binary("or", "x | y: logical of bools, bitwise of integers.", "or_")
xor = _binary("xor", "x ^ y: logical of bools, bitwise of integers.")
left_shift = _binary(
    "left_shift", "x << y; bits that leave are lost, all of them where y is negative or too large.")
right_shift = _binary(
    "right_shift", "x >> y, which keeps the sign; a y that is negative or too large leaves 0, -1.")
invert = _unary("invert", "~x: logical of bools, bitwise of integers.")
left_shift = _binary("left_shift", "x with its bits moved up by y (0 or more) places; integers.")
right_shift = _binary(
    "right_shift", "x with its bits moved down by y (0 or more) places, its sign kept; integers.")
isnan = _unary("isnan", "Is x not a number?")
isinf = _unary("isinf", "Is x infinite?")


def sqr(x: Any) -> Any:
    """x * x, of the dtype of x."""
    x = as_tensor_variable(x)
    return x * x


def inv(x: Any) -> Any:
    """1 / x."""
    return 1 / as_tensor_variable(x)


def log10(x: Any) -> Any:
    """The logarithm to base 10."""
    return elementwise("log", as_tensor_variable(x)) * 0.4342944819032518


def exp2(x: Any) -> Any:
    """2 to the power x."""
    return elementwise("exp", as_tensor_variable(x).as_float() * 0.6931471805599453)


def deg2rad(x: Any) -> Any:
    """Degrees as radians."""
    return as_tensor_variable(x).as_float() * 0.017453292519943295


def rad2deg(x: Any) -> Any:
    """Radians as degrees."""
    return as_tensor_variable(x).as_float() * 57.29577951308232


def logaddexp(x: Any, y: Any) -> Any:
    """log(exp(x) + exp(y)), without overflow."""
    return maximum(x, y) + softplus(-abs_(sub(x, y)))


def pow(x: Any, y: Any) -> Any:
    """x to the power y; small whole powers of integers stay integers."""
    return raised(*_operands(x, y))


def round(x: Any, mode: str = "half_to_even") -> Any:
    """The nearest whole numbers; ``mode`` 'half_to_even' or 'half_away_from_zero'.  The gradient
    is zero."""
    return rounded(as_tensor_variable(x), mode)


def switch(condition: Any, then: Any, other: Any) -> Any:
    """``then`` where the condition holds (is not 0), ``other`` elsewhere.

    The gradient of the branch not taken is multiplied by zero after its own: an infinity there
    becomes nan.
    """
    condition = as_tensor_variable(condition)
    if condition.type.dtype.kind != "b":
        condition = elementwise("ne", condition, 0)
    like = next((v for v in (then, other) if isinstance(v, Value)), None)
    if like is None:  # two numbers: nothing beside them tells a dtype
        then = constant(then)
        like = then
        if isinstance(other, float) and not then.type.dtype.is_float:
            then = then.as_float()
    return elementwise("switch", condition, as_value(then, like), as_value(other, like))


where = switch


def clip(x: Any, low: Any, high: Any) -> Any:
    """Every element moved into [low, high]; the gradient passes at both bounds.  A bound of None
    is none."""
    x, low, high = (as_tensor_variable(v) if isinstance(v, (list, tuple)) else v
                    for v in (x, low, high))
    if not any(isinstance(v, Value) for v in (x, low, high)):
        x = as_tensor_variable(x)
    x = x if low is None else elementwise("maximum", x, low)
    return x if high is None else elementwise("minimum", x, high)


def cast(x: Any, dtype: Any) -> Any:
    """``x`` as another dtype.  A float becomes an integer by dropping its fraction."""
    return as_tensor_variable(x).cast(as_dtype(dtype))


def second(x: Any, y: Any) -> Any:
    """``y`` broadcast to the common shape of both."""
    x = as_tensor_variable(x)
    wide, value = broadcast_together([x, as_value(y, x)])
    return broadcast_to(value, wide.type.dims)


fill = second


def identity(x: Any) -> Any:
    """``x`` as a variable."""
    return as_tensor_variable(x)


def isclose(x: Any, y: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
            ) -> Any:
    """Is |x - y| <= atol + rtol * |y|, element by element?  Equal infinities are close."""
    x, y = as_tensor_variable(x).as_float(), as_tensor_variable(y).as_float()
    finite = ~(isinf(x) | isinf(y))
    close = (finite & le(abs_(x - y), atol + rtol * abs_(y))) | eq(x, y)
    return close | (isnan(x) & isnan(y)) if equal_nan else close


def allclose(x: Any, y: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
             ) -> Any:
    """Are all elements close (``isclose``)?"""
    out = isclose(x, y, rtol, atol, equal_nan)
    assert isinstance(out, Tensor)
    return out.all()


# --- floats that are no numbers ---


def isfinite(x: Any) -> Any:
    """Is x neither infinite nor nan?"""
    x = as_tensor_variable(x)
    return ~(isinf(x) | isnan(x))


def isposinf(x: Any) -> Any:
    """Is x infinite and positive?"""
    return eq(as_tensor_variable(x).as_float(), math.inf)


def isneginf(x: Any) -> Any:
    """Is x infinite and negative?"""
    return eq(as_tensor_variable(x).as_float(), -math.inf)


def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None,
               neginf: float | None = None) -> Any:
    """``x`` with numbers instead of nan and infinities, which become the largest numbers of its
    dtype unless others are given.  No gradient passes there."""
    x = as_tensor_variable(x)
    if not x.type.dtype.is_float:
        return x
    limits = np.finfo(x.type.dtype.np)
    high = float(limits.max) if posinf is None else posinf
    low = float(limits.min) if neginf is None else neginf
    x = switch(isposinf(x), high, switch(isneginf(x), low, x))
    return switch(isnan(x), nan, x)


# --- several operands, several results ---


def largest(*operands: Any) -> Any:
    """The largest of one or more operands, element by element."""
    return maximum(*operands) if len(operands) > 1 else as_tensor_variable(*operands)


def smallest(*operands: Any) -> Any:
    """The smallest of one or more operands, element by element."""
    return minimum(*operands) if len(operands) > 1 else as_tensor_variable(*operands)


def divmod(x: Any, y: Any) -> tuple[Any, Any]:
    """x // y and x % y."""
    return int_div(x, y), mod(x, y)


def ceil_intdiv(x: Any, y: Any) -> Any:
    """x / y of integers, rounded up."""
    return neg(int_div(neg(x), y))


def iround(x: Any, mode: str = "half_to_even") -> Any:
    """The nearest whole numbers as int64."""
    return round(x, mode).cast(int64)


def round_half_to_even(x: Any) -> Any:
    """The nearest whole numbers; halves go to the even neighbour."""
    return round(x)


def round_half_away_from_zero(x: Any) -> Any:
    """The nearest whole numbers; halves go to the neighbour with the larger magnitude."""
    return round(x, "half_away_from_zero")


def conj(x: Any) -> Any:
    """``x``: every variable is real."""
    return as_tensor_variable(x)


real = tensor_copy = conj
logical_and = _logical("and", "Do both hold (differ from 0)?")
logical_or = _logical("or", "Does one of both hold?")
logical_xor = _logical("xor", "Does just one of both hold?")
logical_not = _logical("invert", "Does it not hold (is it 0)?", "logical_not")
power = pow
bitwise_and, bitwise_or, bitwise_xor, bitwise_not = and_, or_, xor, invert
square, divide, floor_div, not_equal, sign = sqr, true_div, int_div, neq, sgn
