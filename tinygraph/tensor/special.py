"""The logarithm of the gamma function and its derivatives, by Stirling's series.

Abramowitz and Stegun 1964: 6.1.41 (gammaln), 6.3.18 (psi), 6.4.12 (tri_gamma); arguments below 8
are shifted up by 8 first (6.1.15, 6.3.5, 6.4.6), those below 1/2 reflected (6.1.17, 6.3.7, 6.4.7).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tinygraph.ops.arithmetic import as_value, elementwise
from tinygraph.tensor.variable import as_tensor_variable

_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
_SHIFT = 8


def _polynomial(coefficients: Sequence[float], x: Any) -> Any:
    out = as_value(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        out = out * x + c
    return out


def _parts(x: Any) -> tuple[Any, Any, Any]:
    """Is ``x`` small, the argument of the series (at least 8), and ``x`` where it is small."""
    small = x < _SHIFT
    return small, small.switch(x + _SHIFT, x), small.switch(x, 1)


def _reflected(f: Callable[[Any], Any], x: Any, other: Callable[[Any, Any], Any]) -> Any:
    """``f`` from 1/2 on; below it ``other(x, f(1 - x))``."""
    low = x < 0.5
    value = f(low.switch(1 - x, x))
    return low.switch(other(low.switch(x, 0.25), value), value)


def gammaln(x: Any) -> Any:
    """The logarithm of the magnitude of the gamma function; infinite at 0, -1, -2, ..."""
    return _reflected(_gammaln, as_tensor_variable(x).as_float(), lambda x, g: (
        math.log(math.pi) - abs(_sin_pi(x)).log() - g))


def _gammaln(x: Any) -> Any:
    small, y, low = _parts(x)
    inverse = 1 / y
    series = inverse * _polynomial(
        [b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, start=1)], inverse * inverse)
    product = low
    for j in range(1, _SHIFT):
        product = product * (low + j)
    out = (y - 0.5) * y.log() - y + 0.5 * math.log(2 * math.pi) + series
    return out - small.switch(product, 1).log()


def _sin_pi(x: Any) -> Any:
    """sin(pi x), exactly 0 for whole numbers."""
    return (math.pi * (x - elementwise("round", x))).sin()


def gamma(x: Any) -> Any:
    """The gamma function; nan at 0, -1, -2, ..."""
    x = as_tensor_variable(x).as_float()
    odd = elementwise("ne", elementwise("floor", x) % 2, 0) & (x < 0)
    size = gammaln(x).exp()
    pole = elementwise("eq", elementwise("floor", x), x) & (x <= 0)
    return pole.switch(math.nan, odd.switch(-size, size))


def psi(x: Any) -> Any:
    """The derivative of ``gammaln``, the digamma function."""
    def other(x: Any, p: Any) -> Any:
        part = math.pi * (x - elementwise("round", x))
        return p - math.pi * part.cos() / part.sin()

    return _reflected(_psi, as_tensor_variable(x).as_float(), other)


def _psi(x: Any) -> Any:
    small, y, low = _parts(x)
    inverse = 1 / y
    square = inverse * inverse
    series = square * _polynomial(
        [b / (2 * k) for k, b in enumerate(_BERNOULLI, start=1)], square)
    out = y.log() - 0.5 * inverse - series
    return out - small.switch(_sum_of_inverses(low, 1), 0)


def tri_gamma(x: Any) -> Any:
    """The derivative of ``psi``."""
    def other(x: Any, t: Any) -> Any:
        s = _sin_pi(x)
        return math.pi ** 2 / (s * s) - t

    return _reflected(_tri_gamma, as_tensor_variable(x).as_float(), other)


def _tri_gamma(x: Any) -> Any:
    small, y, low = _parts(x)
    inverse = 1 / y
    square = inverse * inverse
    series = square * inverse * _polynomial(_BERNOULLI, square)
    out = inverse + 0.5 * square + series
    return out + small.switch(_sum_of_inverses(low, 2), 0)


def _sum_of_inverses(x: Any, power: int) -> Any:
    total: Any = 0
    for j in range(_SHIFT):
        term = 1 / (x + j)
        total = total + (term * term if power == 2 else term)
    return total
