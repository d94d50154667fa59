"""exp, log and what is made of them, without branches and tables.

Reduction of the argument follows Cody and Waite (Software Manual for the Elementary Functions,
1980): exp(x) = 2^n exp(r) with x = n ln 2 + r, ln 2 in two parts of which the first times n is
exact; log(x) = e ln 2 + log(1 + f) with 1 + f between sqrt(1/2) and sqrt(2).  The polynomials
are minimax (tools/fit_math.py).  A product is added to only where it is exact or where its
rounding is within the error that we state, so results hold with fused multiply-add or without.
"""

from __future__ import annotations

import math

from tinygraph.loops.language import Const
from tinygraph.lowering import vector_math_tables as tables
from tinygraph.lowering.lanes import Format, Num

LOG2_E = 1.4426950408889634
LN2 = 0.6931471805599453


def coefficients(form: Format, name: str) -> tuple[float, ...]:
    """The table ``name`` for the type."""
    return getattr(tables, f"{name}_{form.bits}")


def series(x: Num, coefficients: tuple[float, ...], scale: float = 1.0) -> Num:
    """c0 + c1 s + c2 s^2 ..., s = scale * x; ``scale`` is a power of 2, up to its sign.

    Horner's rule for a few terms.  A long chain of dependent operations keeps a processor
    waiting, so many terms are two or four interleaved chains, in x^2 or x^4."""
    scaled = [c * scale**k for k, c in enumerate(coefficients)]
    ways = 1 if len(scaled) < 9 else 2 if len(scaled) < 15 else 4
    step = x
    for _ in range(ways // 2):
        step = (step * step).let()
    groups = [_short_series(x, scaled[k : k + ways]) for k in range(0, len(scaled), ways)]
    result = groups[-1]
    for group in reversed(groups[:-1]):
        result = result * step + group
    return result


def _short_series(x: Num, c: list[float]) -> Num:
    """Up to four terms: (c0 + c1 x) + x^2 (c2 + c3 x)."""
    low = x * c[1] + c[0] if len(c) > 1 else x.lift(c[0])
    return (x * x) * _short_series(x, c[2:]) + low if len(c) > 2 else low


def reduce(x: Num, sign: int = 1, offset: int = 0) -> tuple[Num, Num]:
    """(t, r): sign * x = n ln 2 + sign * r, n + offset in the low bits of t (see
    ``Format.magic``)."""
    high, low = coefficients(x.format, "LN2")
    magic = x.format.magic + offset
    t = (x * (sign * LOG2_E) + magic).let()
    n = (t - magic).let()
    return t, ((x - n * (sign * high)) - n * (sign * low)).let()


def scaled(x: Num, sign: int = 1, offset: int = 0) -> tuple[Num, Num]:
    """(2^(n + offset), r): sign * x = n ln 2 + sign * r.

    0 for n + offset = -bias and inf for bias + 1; nothing sensible beyond."""
    t, r = reduce(x, sign, x.format.bias + offset)
    return power(t), r


def power(t: Num) -> Num:
    """2^n, n + bias in the low bits of t."""
    return (t.bits() << t.format.mantissa).from_bits().let()


def expm1_series(r: Num, sign: int = 1) -> Num:
    """exp(sign * r) - 1 for abs(r) <= ln(2) / 2."""
    tail = r * r * series(r, coefficients(r.format, "EXP"), sign)
    return tail + r if sign > 0 else tail - r


def exp(x: Num) -> Num:
    """exp(x); 1.1 ulp

    n stops at bias, for 2^(bias + 1) is inf: the polynomial holds up to r = ln 2, and from there
    on the product overflows by itself.  A nan comes through r."""
    form = x.format
    inside = x.at_least(form.pick(-88.03, -709.1)).let()  # n is then -bias, and the power 0
    high, low = coefficients(form, "LN2")
    magic = form.magic + form.bias
    t = (inside * LOG2_E + magic).at_most(magic + form.bias).let()
    n = (t - magic).let()
    r = ((inside - n * high) - n * low).let()
    e = r * r * series(r, (0.5, *coefficients(form, "EXP_WIDE"))) + r
    scale = power(t)
    return scale * e + scale


def expm1(x: Num) -> Num:
    """exp(x) - 1; 1.75 ulp"""
    form = x.format
    inside = x.at_least(form.pick(-20.0, -40.0)).at_most(form.pick(89.0, 710.0)).let()
    half, r = scaled(inside, 1, -1)
    # half * r + (half - 1/2) is nearly exact: the rounding of r + r^2 p would show where
    # 2^n - 1 cancels it.
    tail = half * (r * r) * series(r, coefficients(form, "EXP"))
    value = tail + (half * r + (half - 0.5))
    return (abs(x) < form.tiny * 4).choose(x, value * 2.0)


def tanh(x: Num) -> Num:
    """(1 - e) / (1 + e), e = exp(-2 abs(x)); 2 ulp

    With e = s (1 - m), s a power of 2: (s m + (1 - s)) / ((1 + s) - s m), where 1 - s and 1 + s
    are exact.  The other sign of the exponent would cost 0.6 ulp: (s m + (s - 1)) / ((s + 1) +
    s m) rounds more where s is large."""
    form = x.format
    size = abs(x).at_most(form.pick(9.1, 19.1)).let()
    magic = form.magic + form.bias
    t = (size * (-2 * LOG2_E) + magic).let()
    n = (t - magic).let()
    if form.bits == 32:
        # ln(2) / 2 rounded to float32 ends in three zeros and is right to 1e-9; where n < -8, so
        # that n * it may round, tanh depends on r no more.
        r = (size + n * (LN2 / 2)).let()
    else:
        high, low = coefficients(form, "LN2")
        r = ((size + n * (high / 2)) + n * (low / 2)).let()
    doubled = tuple(-4.0 * c for c in coefficients(form, "EXP"))
    m = r * r * series(r, doubled, -2.0) + (r + r)  # 1 - exp(-2 r)
    scale = power(t)
    moved = (scale * m).let()
    return ((moved + (1.0 - scale)) / ((scale + 1.0) - moved)).like_sign_of(x)


def sigmoid(x: Num) -> Num:
    """1 / (1 + exp(-x)); 2 ulp"""
    form = x.format
    # The lower end gives 2^-bias at the most, which counts as 0.
    inside = x.at_least(form.pick(-88.3, -709.4)).at_most(form.pick(40.0, 60.0)).let()
    scale, r = scaled(inside, -1)
    return 1.0 / ((scale * expm1_series(r, -1) + 1.0) + scale)


def softplus(x: Num) -> Num:
    """max(x, 0) + log1p(exp(-abs(x))); 2 ulp"""
    form = x.format
    size = abs(x).at_most(form.pick(88.1, 709.2)).let()  # n is then -bias, and the power 0
    scale, r = scaled(size, -1)
    e = (scale * expm1_series(r, -1) + scale).let()
    tail = e * (e * series((e - 0.5).let(), coefficients(form, "SOFTPLUS")))
    return x.at_least(0.0) + (e - tail)


def log_parts(x: Num, correction: Num | None = None) -> tuple[Num, Num, Num]:
    """(f, e, low): x + correction = 2^e (1 + f + low), for x positive and normal; low is what
    the rounding of f lost, 0 without a correction."""
    form = x.format
    mask = (1 << form.mantissa) - 1
    root = _bits(math.sqrt(0.5), form)
    shifted = (x.bits() + ((form.bias << form.mantissa) - root)).let()
    field = (shifted & (((1 << (form.bits - 1 - form.mantissa)) - 1) << form.mantissa)).let()
    # The exponent as a float: an integer in the low bits of 2^mantissa.
    unit = (form.bias + form.mantissa) << form.mantissa
    e = ((field >> form.mantissa) | unit).from_bits() - (2.0**form.mantissa + form.bias)
    f = (((shifted & mask) + root).from_bits() - 1.0).let()
    if correction is None:
        return f, e.let(), f.lift(0.0)
    scale = (((2 * form.bias + 1) << form.mantissa) - field).from_bits()  # 2^(1 - e), or 0
    moved = ((correction * 0.5) * scale).let()
    near, f = f, (f + moved).let()
    return f, e.let(), (near - f) + moved


def _bits(value: float, form: Format) -> int:
    return int(form.dtype.np.type(value).view(form.integer.np))


def log_of_parts(f: Num, e: Num, low: Num) -> Num:
    """log(2^e (1 + f + low)); low is the literal 0, or below an ulp of f."""
    form = f.format
    high, low_ln2 = coefficients(form, "LN2")
    square = (f * f).let()
    if form.bits == 32:
        tail = square * (f * series(f, coefficients(form, "LOG"))) + e * low_ln2
        return (f + (_with(tail, low) - square * 0.5)) + e * high
    # log(1 + f) = 2 atanh(s) = f - f^2/2 + s (f^2/2 + z p), the form of Ng in fdlibm (1993).
    s = (f / (f + 2.0)).let()
    z = (s * s).let()
    half = (square * 0.5).let()
    tail = s * (half + z * series(z, coefficients(form, "ATANH"))) + e * low_ln2
    return (f - (half - _with(tail, low))) + e * high


def _with(tail: Num, low: Num) -> Num:
    """tail + low, where low is not the literal 0."""
    return tail if isinstance(low.expr, Const) else tail + low


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
    f, e, none = log_parts(x)
    return log_special(x, log_of_parts(f, none, none) * LOG2_E + e)


def log1p(x: Num, rest: Num | None = None) -> Num:
    """log(u) with u = 1 + x, corrected by what the sum lost, and by ``rest``, what x lost when
    it was computed; 1.5 ulp"""
    large, small = x.at_least(1.0).let(), x.at_most(1.0).let()
    u = (x + 1.0).let()
    lost = small - (u - large)
    if rest is not None:
        lost = lost + rest
    value = log_special(u, log_of_parts(*log_parts(u, lost)))
    return (abs(x) < x.format.tiny * 4).choose(x, value)
