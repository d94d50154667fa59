"""exp, log and what is made of them, without branches and tables.

Reduction of the argument follows Cody and Waite (Software Manual for the Elementary Functions,
1980): exp(x) = 2^n exp(r) with x = n ln 2 + r, ln 2 in two parts of which the first times n is
exact; log(x) = e ln 2 + log(1 + f) with 1 + f between sqrt(1/2) and sqrt(2).  The polynomials
are minimax (tools/fit_math.py).  A product is added to only where it is exact or where its
rounding is within the error that we state, so results hold with fused multiply-add or without.
"""

from __future__ import annotations

import math

from tinygraph.lowering import vector_math_tables as tables
from tinygraph.lowering.lanes import Format, Num

LOG2_E = 1.4426950408889634
LN2 = 0.6931471805599453


def coefficients(form: Format, name: str) -> tuple[float, ...]:
    """The table ``name`` for the type."""
    return getattr(tables, f"{name}_{form.bits}")


def reduce(x: Num, sign: int = 1) -> tuple[Num, Num]:
    """(t, r): sign * x = n ln 2 + sign * r, n in the low bits of t (see ``Format.magic``)."""
    form = x.format
    high, low = coefficients(form, "LN2")
    t = (x * (sign * LOG2_E) + form.magic).let()
    n = (t - form.magic).let()
    return t, ((x - n * (sign * high)) - n * (sign * low)).let()


def expm1_series(r: Num, sign: int = 1) -> Num:
    """exp(sign * r) - 1 for abs(r) <= ln(2) / 2."""
    tail = r * r * r.poly(coefficients(r.format, "EXP"), sign)
    return tail + r if sign > 0 else tail - r


def power(t: Num, form: Format, offset: int = 0) -> Num:
    """2^(n + offset), n in the low bits of t."""
    return ((t.bits() << form.mantissa) + ((form.bias + offset) << form.mantissa)).from_bits()


def exp(x: Num) -> Num:
    """exp(x); 1.1 ulp"""
    form = x.format
    t, r = reduce(x)
    near = expm1_series(r) + 1.0
    # Multiplying by 2^n would overflow at n = bias + 1, where the result does not.
    value = (near.bits() + (t.bits() << form.mantissa)).from_bits()
    low = form.pick(-87.33654, -708.3964185322641)
    high = form.pick(88.72283, 709.782712893384)
    value = (x < low).choose(0.0, value)
    return (x <= high).choose(value, x * form.largest)  # a nan also takes the second way


def expm1(x: Num) -> Num:
    """exp(x) - 1; 1.75 ulp"""
    form = x.format
    inside = x.at_least(form.pick(-20.0, -40.0)).let()
    t, r = reduce(inside)
    half = power(t, form, -1).let()
    # half * r + (half - 1/2) is nearly exact: the rounding of r + r^2 p would show where
    # 2^n - 1 cancels it.
    tail = half * (r * r) * r.poly(coefficients(form, "EXP"))
    value = tail + (half * r + (half - 0.5))
    value = (abs(x) < form.tiny * 4).choose(x, value * 2.0)
    return (x <= form.pick(88.72283, 709.782712893384)).choose(value, x * form.largest)


def tanh(x: Num) -> Num:
    """x + x^3 p(x^2) below 0.55, 1 - 2 / (exp(2 abs(x)) + 1) above; 1.5 ulp.

    (d / (d + 2) with d = exp(2 x) - 1 would do for both with fewer operations, but its three
    roundings add up to 2.5 ulp.)"""
    form = x.format
    size = abs(x).at_most(form.pick(9.1, 19.1)).let()
    z = (size * size).let()
    near = size + size * (z * z.poly(coefficients(form, "TANH")))
    t = (size * (2 * LOG2_E) + form.magic).let()
    n = (t - form.magic).let()
    if form.bits == 32:
        # ln(2) / 2 rounded to float32 ends in three zeros and is right to 1e-9; where n > 8, so
        # that n * it may round, tanh depends on r no more.
        r = (size - n * (LN2 / 2)).let()
    else:
        high, low = coefficients(form, "LN2")
        r = ((size - n * (high / 2)) - n * (low / 2)).let()
    halved = tuple(2.0 * c for c in coefficients(form, "EXP"))
    half_d = r * r * r.poly(halved, 2.0) + r  # (exp(2 r) - 1) / 2
    scale = power(t, form).let()
    far = 1.0 - 1.0 / (scale * half_d + (scale * 0.5 + 0.5))
    return (size < 0.55).choose(near, far).like_sign_of(x)


def sigmoid(x: Num) -> Num:
    """1 / (1 + exp(-x)); 2 ulp"""
    form = x.format
    # The lower end gives 2^-bias at the most, which counts as 0.
    inside = x.at_least(form.pick(-88.3, -709.4)).at_most(form.pick(40.0, 60.0)).let()
    t, r = reduce(inside, -1)
    scale = power(t, form).let()
    return 1.0 / ((scale * expm1_series(r, -1) + 1.0) + scale)


def softplus(x: Num) -> Num:
    """max(x, 0) + log1p(exp(-abs(x))); 2 ulp"""
    form = x.format
    size = abs(x).at_most(form.pick(88.1, 709.2)).let()  # n is then -bias, and power gives 0
    t, r = reduce(size, -1)
    e = ((expm1_series(r, -1) + 1.0) * power(t, form)).let()
    tail = e * (e * (e - 0.5).let().poly(coefficients(form, "SOFTPLUS")))
    return x.at_least(0.0) + (e - tail)


def log_parts(x: Num, correction: Num | None = None) -> tuple[Num, Num]:
    """(f, e): x + correction = 2^e (1 + f), for x positive and normal."""
    form = x.format
    mask = (1 << form.mantissa) - 1
    root = _bits(math.sqrt(0.5), form)
    shifted = (x.bits() + ((form.bias << form.mantissa) - root)).let()
    field = (shifted & (((1 << (form.bits - 1 - form.mantissa)) - 1) << form.mantissa)).let()
    # The exponent as a float: an integer in the low bits of 2^mantissa.
    unit = (form.bias + form.mantissa) << form.mantissa
    e = ((field >> form.mantissa) | unit).from_bits() - (2.0**form.mantissa + form.bias)
    f = ((shifted & mask) + root).from_bits() - 1.0
    if correction is not None:
        scale = (((2 * form.bias + 1) << form.mantissa) - field).from_bits()  # 2^(1 - e), or 0
        f = f + (correction * 0.5) * scale
    return f.let(), e.let()


def _bits(value: float, form: Format) -> int:
    return int(form.dtype.np.type(value).view(form.integer.np))


def log_of_parts(f: Num, e: Num) -> Num:
    """log(2^e (1 + f))"""
    form = f.format
    high, low = coefficients(form, "LN2")
    square = (f * f).let()
    if form.bits == 32:
        tail = square * (f * f.poly(coefficients(form, "LOG"))) + e * low
        return (f + (tail - square * 0.5)) + e * high
    # log(1 + f) = 2 atanh(s) = f - f^2/2 + s (f^2/2 + z p), the form of Ng in fdlibm (1993).
    s = (f / (f + 2.0)).let()
    z = (s * s).let()
    half = (square * 0.5).let()
    tail = s * (half + z * z.poly(coefficients(form, "ATANH"))) + e * low
    return (f - (half - tail)) + e * high


def log_special(x: Num, value: Num) -> Num:
    """``value`` where x is positive and finite, else what log gives."""
    below = (x < 0.0).choose(value.lift(math.nan), -math.inf)
    value = (x < x.format.tiny).choose(below, value)
    return (x < math.inf).choose(value, x)


def log(x: Num) -> Num:
    """log(x); 1 ulp"""
    return log_special(x, log_of_parts(*log_parts(x)))


def log2(x: Num) -> Num:
    """log2(x), exact for powers of two; 1.75 ulp"""
    f, e = log_parts(x)
    return log_special(x, log_of_parts(f, f.lift(0.0)) * LOG2_E + e)


def log1p(x: Num) -> Num:
    """log(u) with u = 1 + x, corrected by what the sum lost; 1.5 ulp"""
    large, small = x.at_least(1.0).let(), x.at_most(1.0).let()
    u = (x + 1.0).let()
    lost = small - (u - large)
    value = log_special(u, log_of_parts(*log_parts(u, lost)))
    return (abs(x) < x.format.tiny * 4).choose(x, value)
