"""The circular and hyperbolic functions, their inverses, erf and pow, without branches.

sin, cos, tan reduce by multiples of pi / 2 in parts (Cody & Waite 1980), for float32 in float64.
Their results are good for abs(x) <= 1e5 and stay bounded (sin, cos), but mean nothing, above 1e9.
"""

from __future__ import annotations

import math

from tinygraph.dtypes import float32, float64
from tinygraph.lowering import vector_math_tables as tables
from tinygraph.lowering.lanes import Num
from tinygraph.lowering.vector_math_exp import (
    coefficients,
    exp,
    expm1_series,
    log,
    log1p,
    log_parts,
    scaled,
    series,
)

TWO_OVER_PI = 0.6366197723675814
LN2 = 0.6931471805599453


def _turned(x: Num) -> tuple[Num, Num, Num]:
    """(q, r, lost): x = q pi/2 + r + lost, abs(r) <= pi/4; q is an integer modulo 4, r and what
    its rounding lost are float64."""
    wide = x.cast(float64).let() if x.format.bits == 32 else x
    magic = wide.format.magic
    t = (wide * TWO_OVER_PI + magic).let()
    n = (t - magic).let()
    first, second, *third = coefficients(x.format, "HALF_PI_PARTS")
    left = (wide - n * first).let()
    r, lost = (left - n * second).let(), x.lift(0.0)
    if third:
        near, moved = r, (n * second).let()
        rest = (((left - near) - moved) - n * third[0]).let()
        r = (near + rest).let()
        lost = rest - (r - near)
    q = t.bits() if wide is x else t.bits().cast(x.format.integer)
    return q.let(), r.at_most(0.8).at_least(-0.8).let(), lost


def quarter_turns(x: Num) -> tuple[Num, Num]:
    """(q, r): x = q pi/2 + r, abs(r) <= pi/4; q is an integer modulo 4."""
    q, r, _ = _turned(x)
    return q, r.cast(x.format.dtype).let() if x.format.bits == 32 else r


def _sin_cos(r: Num) -> tuple[Num, Num]:
    z = (r * r).let()
    sin = r + r * (z * series(z, coefficients(r.format, "SIN")))
    half = (z * 0.5).let()
    near = (1.0 - half).let()
    # What 1 - z/2 lost is added back; 1, near and half need no product.
    cos = near + (((1.0 - near) - half) + z * z * series(z, coefficients(r.format, "COS")))
    return sin.let(), cos.let()


def sin(x: Num) -> Num:
    """sin(x); 2.5 ulp"""
    q, r = quarter_turns(x)
    s, c = _sin_cos(r)
    value = (q & 1).differs(0).choose(c, s).flip_sign(q << (x.format.bits - 2))
    return x.same(0.0).choose(x, value)


def cos(x: Num) -> Num:
    """cos(x); 2.5 ulp"""
    q, r = quarter_turns(x)
    s, c = _sin_cos(r)
    return (q & 1).differs(0).choose(s, c).flip_sign((q + 1) << (x.format.bits - 2))


def tan(x: Num) -> Num:
    """tan(x); 2 ulp; for float32 all of it is computed in float64"""
    q, r, lost = _turned(x)
    z = (r * r).let()
    tail = r * (z * series(z, coefficients(x.format, "TAN")))
    if x.format.bits == 64:
        tail = tail + (lost + lost * z)
    value = (r + tail).let()
    odd = (q & 1).differs(0)
    value = odd.choose(-1.0, value) / odd.choose(value, 1.0)
    return x.same(0.0).choose(x, value.cast(x.format.dtype))


def erf(x: Num) -> Num:
    """x + x p(x^2) below 0.75; 1 - exp(-g) above, g = -log(1 - erf(abs(x))), whose error that
    form damps; 2 ulp"""
    form = x.format
    end = form.pick(4.0, 6.0)
    size = abs(x).at_most(end).let()
    z = (size * size).let()
    near = size + size * series(z, coefficients(form, "ERF_NEAR"))
    middle = (end + 0.75) / 2
    g = (size * series((size - middle).let(), coefficients(form, "ERF"))).let()
    scale, r = scaled(g, -1)
    far = (1.0 - scale) - scale * expm1_series(r, -1)
    return (size < 0.75).choose(near, far).like_sign_of(x)


def _unit_arctan(a: Num) -> Num:
    """arctan(a) for 0 <= a <= 1."""
    z = (a * a).let()
    return a + a * (z * series(z, coefficients(a.format, "ATAN")))


def _half_pi_minus(x: Num, times: float = 1.0) -> Num:
    """times * pi / 2 - x"""
    high, low = coefficients(x.format, "HALF_PI")
    return times * high - (x - times * low)


def arctan(x: Num) -> Num:
    """arctan(x); 1.75 ulp"""
    size = abs(x).let()
    steep = (size > 1.0).let()
    near = _unit_arctan(steep.choose(1.0 / size, size).let()).let()
    return steep.choose(_half_pi_minus(near), near).like_sign_of(x)


def arctan2(y: Num, x: Num) -> Num:
    """The angle of the point (x, y), with the signed zeros of IEEE 754; 1.75 ulp"""
    high, wide = abs(y).let(), abs(x).let()
    steep = (high > wide).let()
    top, bottom = steep.choose(wide, high).let(), steep.choose(high, wide).let()
    ratio = top.same(bottom).choose(bottom.same(0.0).choose(bottom, 1.0), top / bottom).let()
    near = _unit_arctan(ratio).let()
    near = steep.choose(_half_pi_minus(near), near).let()
    angle = (x.bits() < 0).choose(_half_pi_minus(near, 2.0), near).like_sign_of(y)
    return _nan_from(x, y, angle)


def _nan_from(x: Num, y: Num, value: Num) -> Num:
    """value, or nan where x or y is one."""
    either = x.apply("isnan").op("or", y.apply("isnan"))
    return either.choose(math.nan, value)


def _arcsin_parts(size: Num) -> tuple[Num, Num]:
    """(far, p): arcsin(size) is p, or pi/2 - 2 p where far; nan for size > 1."""
    far = (size > 0.545).let()
    z = far.choose((1.0 - size) * 0.5, size * size).let()
    s = far.choose(z.apply("sqrt"), size).let()
    return far, (s + s * (z * series(z, coefficients(size.format, "ASIN")))).let()


def arcsin(x: Num) -> Num:
    """arcsin(x); 2 ulp"""
    size = abs(x).let()
    far, p = _arcsin_parts(size)
    return far.choose(_half_pi_minus(p * 2.0), p).like_sign_of(x)


def arccos(x: Num) -> Num:
    """arccos(x); 1.25 ulp"""
    far, p = _arcsin_parts(abs(x).let())
    negative = (x < 0.0).let()
    outside = negative.choose(_half_pi_minus(p * 2.0, 2.0), p * 2.0)
    signed = negative.choose(-p, p)
    return far.choose(outside, _half_pi_minus(signed))


def half_exp(x: Num) -> Num:
    """exp(x) / 2 for x >= 0, right up to where exp(x) / 2 overflows."""
    form = x.format
    quarter, r = scaled(x.at_most(form.pick(89.6, 710.6)).let(), 1, -2)
    return (quarter * expm1_series(r) + quarter) * 2.0


def cosh(x: Num) -> Num:
    """cosh(x); 1.6 ulp"""
    half = half_exp(abs(x).let()).let()
    return half + 0.25 / half


def sinh(x: Num) -> Num:
    """sinh(x); 1.75 ulp"""
    size = abs(x).let()
    half = half_exp(size).let()
    z = (x * x).let()
    near = size + size * (z * series(z, coefficients(x.format, "SINH")))
    return (size < 1.0).choose(near, half - 0.25 / half).like_sign_of(x)


def arcsinh(x: Num) -> Num:
    """log(abs(x) + sqrt(x^2 + 1)), written for log1p; 2 ulp"""
    size = abs(x).let()
    far = (size > x.format.pick(2.0**30, 2.0**60)).let()
    z = far.choose(0.0, size * size).let()
    near = log1p((size + z / ((z + 1.0).apply("sqrt") + 1.0)).let()).let()
    return far.choose(near + LN2, near).like_sign_of(x)


def arccosh(x: Num) -> Num:
    """log(x + sqrt(x^2 - 1)), written for log1p of x - 1; nan below 1; 2 ulp"""
    far = (x > x.format.pick(2.0**30, 2.0**60)).let()
    d = (x - 1.0).let()
    root = far.choose(0.0, d * 2.0 + d * d).apply("sqrt").let()
    total = (root + d).let()
    near = log1p(total, d - (total - root)).let()
    return (x < 1.0).choose(math.nan, far.choose(near + LN2, near))


def arctanh(x: Num) -> Num:
    """log1p(2 x / (1 - x)) / 2, the quotient as 2 x + 2 x^2 / (1 - x); 2 ulp"""
    size = abs(x).let()
    twice = (size * 2.0).let()
    value = log1p((twice + twice * size / (1.0 - size)).let()) * 0.5
    return (size > 1.0).choose(math.nan, value).like_sign_of(x)


def pow(x: Num, y: Num) -> Num:
    """x ** y with the special cases of IEEE 754; a negative x takes integers y only;
    1 ulp."""
    size = abs(x).let()
    if x.format.bits == 32:
        wide = y.cast(float64) * log(size.cast(float64).let())
        value = exp(wide.let()).cast(float32)
    else:
        value = _pow_double(size, y)
    value = (y.same(0.0).op("or", x.same(1.0))).choose(1.0, value.let())
    value = (size.same(1.0).op("and", abs(y).same(math.inf))).choose(1.0, value).let()
    whole = y.apply("floor").same(y).let()
    half = (y * 0.5).let()
    odd = whole.op("and", half.apply("floor").differs(half))
    negative = (x.bits() < 0).let()
    value = negative.op("and", odd).choose(-value, value)
    refused = (x < 0.0).op("and", (size < math.inf).op("and", whole.apply("not")))
    return refused.choose(math.nan, value)


def _short(x: Num) -> Num:
    """x cut to 26 bits or fewer: the product of two such numbers is exact."""
    return (x.bits() & -(1 << 27)).from_bits().let()


def _log2_double(x: Num) -> tuple[Num, Num]:
    """log2(x) as a short number and a rest, to about 2^-68, for x positive and normal.

    The scheme of pow in fdlibm (Sun, 1993): s = f / (2 + f) and its square in two parts; every
    product whose rounding would show is one of short numbers, so it has none."""
    f, e, _ = log_parts(x)
    t = (f + 2.0).let()
    t_lost = f - (t - 2.0)
    s = (f / t).let()
    s_high, t_high = _short(s), _short(t)
    t_low = (t - t_high) + t_lost
    s_low = (((f - s_high * t_high) - s_high * t_low) / t).let()
    z = (s * s).let()
    # log(1 + f) = 2/3 s (3 + z + w), w = 3/2 z^2 p(z)
    w = z * z * (series(z, tables.ATANH_TAIL_64) * 1.5)
    square = (s_high * s_high).let()
    rest = (w + s_low * (s_high + s)).let()
    a_high = _short((square + 3.0) + rest)
    a_low = (rest - ((a_high - 3.0) - square)).let()
    u = (s_high * a_high).let()
    v = (s_low * a_high + a_low * s).let()
    p_high = _short(u + v)
    p_low = (v - (p_high - u)).let()
    scale_high, scale_low = tables.LOG2_E_POW
    z_high = (p_high * scale_high).let()
    z_low = (p_high * scale_low + p_low * (scale_high + scale_low)).let()
    high = _short((z_high + z_low) + e)
    return high, z_low - ((high - e) - z_high)


def _pow_double(x: Num, y: Num) -> Num:
    """x ** y for x >= 0: y log2(x) in two parts, then exp of what is left of its integer."""
    form = x.format
    high, low = _log2_double(x)
    bounded = y.at_most(2.0**70).at_least(-(2.0**70)).let()
    y_high = _short(bounded)
    p_low = ((bounded - y_high) * high + bounded * low).let()
    p_high = (y_high * high).let()
    total = (p_low + p_high).let()
    t = (total + form.magic).let()
    left = (p_high - (t - form.magic)).let()
    cut = _short(p_low + left)
    ln2_high, ln2_low = tables.LN2_POW
    u = (cut * ln2_high).let()
    v = ((p_low - (cut - left)) * LN2 + cut * ln2_low).let()
    z = (u + v).let()
    lost = v - (z - u)
    near = (z + (z * z * series(z, coefficients(form, "EXP")) + lost)) + 1.0
    value = (near.bits() + (t.bits() << form.mantissa)).from_bits()
    value = (total < -1022.0).choose(0.0, value)
    value = (total >= 1024.0).choose(math.inf, value)
    value = x.same(0.0).op("or", x.same(math.inf)).choose(_pow_ends(x, y), value)
    return _nan_from(x, y, value)


def _pow_ends(x: Num, y: Num) -> Num:
    """x ** y for x = 0 or inf."""
    grows = x.same(0.0).op("eq", y < 0.0)
    return grows.choose(x.lift(math.inf), 0.0)
