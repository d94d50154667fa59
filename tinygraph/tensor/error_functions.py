"""What the error function leaves of 1, far into its tail, and the inverses of both.

``erfc`` for x >= 0 is exp(-x^2) p(t) / (1 + 2 x), t = (x - 3.75) / (x + 3.75) (Shepherd and
Laframboise 1981, Mathematics of Computation 36, p. 249); the coefficients are of our own
interpolation at Chebyshev's nodes, whose relative error is below 3e-16.
"""

from __future__ import annotations

import math
from typing import Any

from tinygraph.ops.arithmetic import as_value, elementwise
from tinygraph.tensor.variable import as_tensor_variable

_COEFFICIENTS = (
    1.2375126308378275, -0.14024059858554702, 0.003585415485479575, 0.08227673849014977,
    -0.10880393014246645, 0.09230432116025894, -0.05869339857631061, 0.028362277420377335,
    -0.00974657968596217, 0.001755625843431864, 0.000293714390578856, -0.00029015404203352704,
    5.164649341002877e-05, 2.2384138525656757e-05, -1.1437980374495534e-05,
    -9.733875167494142e-07, 1.7419011945194367e-06, -5.741076073013916e-08,
    -2.4851108650210706e-07, 2.3398534313040898e-08, 3.195398612057818e-08,
    -3.798189797736207e-09, -2.618520156503145e-09, 3.2052623379289157e-10)


def _scaled(x: Any) -> Any:
    """exp(x^2) erfc(x) for x >= 0."""
    t = (x - 3.75) / (x + 3.75)
    out = as_value(_COEFFICIENTS[-1], x)
    for c in reversed(_COEFFICIENTS[:-1]):
        out = out * t + c
    return out / (1 + 2 * x)


def erfc(x: Any) -> Any:
    """1 - erf(x), also where that is small against 1."""
    x = as_tensor_variable(x).as_float()
    negative = x < 0
    size = negative.switch(-x, x)
    tail = (-size * size).exp() * _scaled(elementwise("minimum", size, 1e4))
    return negative.switch(2 - tail, tail)


def erfcx(x: Any) -> Any:
    """exp(x^2) erfc(x), which does not underflow."""
    x = as_tensor_variable(x).as_float()
    negative = x < 0
    scaled = _scaled(negative.switch(-x, x))
    return negative.switch(2 * (x * x).exp() - scaled, scaled)


def erfcinv(q: Any) -> Any:
    """The x with erfc(x) = q; infinite at 0 and 2, nan outside of [0, 2]."""
    q = as_tensor_variable(q).as_float()
    upper = q <= 1
    p = upper.switch(q, 2 - q)
    inside = (p > 0) & (p <= 1)
    x = _tail(inside.switch(p, 0.5))
    edge = elementwise("eq", p, 0).switch(math.inf, math.nan)
    x = inside.switch(x, edge)
    return upper.switch(x, -x)


def _tail(p: Any) -> Any:
    """``erfcinv`` for 0 < p <= 1: Hastings' rational (Abramowitz and Stegun 1964, 26.2.22), then
    Halley's steps."""
    t = (-2 * (p / 2).log()).sqrt()
    x = 0.7071067811865476 * (t - (2.30753 + 0.27061 * t) / (1 + t * (0.99229 + 0.04481 * t)))
    x = elementwise("maximum", x, 0)
    for _ in range(3):
        error = erfc(x) - p
        x = x + error / (_SLOPE * (-x * x).exp() - x * error)
    return x


_SLOPE = 2 / math.sqrt(math.pi)


def erfinv(y: Any) -> Any:
    """The x with erf(x) = y; infinite at -1 and 1, nan beyond."""
    y = as_tensor_variable(y).as_float()
    middle = abs(y) < 0.5
    small = middle.switch(y, 0)
    square = small * small
    x = small * (0.886226925452758 + square * (0.232013666534654 + square * 0.127556175305598))
    for _ in range(3):
        error = elementwise("erf", x) - small
        x = x - error / (_SLOPE * (-x * x).exp() + x * error)
    return middle.switch(x, erfcinv(1 - y))
