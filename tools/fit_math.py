"""Writes tinygraph/lowering/vector_math_tables.py: where its coefficients come from.

    python tools/fit_math.py > tinygraph/lowering/vector_math_tables.py

Every table is the minimax polynomial p of a function g on an interval, in the sense of the
weighted error w(x) (p(x) - g(x)), found by the exchange algorithm of Remez (1934) in 60 digits
with mpmath, and rounded to the element type.  A table lists the constant term first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mpmath import mp, mpf

mp.dps = 60
Function = Callable[[mpf], mpf]


def remez(g: Function, w: Function, low: mpf, high: mpf, degree: int) -> tuple[list[mpf], mpf]:
    """Coefficients of the minimax polynomial, constant term first, and its weighted error."""
    middle, half, count = (low + high) / 2, (high - low) / 2, degree + 2
    # No point falls on 0 or on an end, where some g are 0 / 0.
    grid = [middle - half * mp.cos(mp.pi * (k + mpf("0.37")) / (40 * count))
            for k in range(40 * count)]  # fmt: skip
    values, weights = [g(x) for x in grid], [w(x) for x in grid]
    chosen = [min(len(grid) - 1, 20 + 40 * k) for k in range(count)]
    for _ in range(12):
        system = mp.matrix(count, count)
        right = mp.matrix(count, 1)
        for row, k in enumerate(chosen):
            scaled = (grid[k] - middle) / half
            for power in range(degree + 1):
                system[row, power] = scaled**power
            system[row, degree + 1] = (-1) ** row / weights[k]
            right[row] = values[k]
        solution = mp.lu_solve(system, right)
        coefficients = list(solution)[:-1]
        error = [w_k * (mp.polyval(coefficients[::-1], (x - middle) / half) - v)
                 for x, v, w_k in zip(grid, values, weights, strict=True)]  # fmt: skip
        peaks = _alternating_peaks(error)
        if len(peaks) < count or peaks[:count] == chosen:
            break
        chosen = _best_run(peaks, error, count)
    return _unscaled(coefficients, middle, half), max(abs(e) for e in error)


def _alternating_peaks(error: list[mpf]) -> list[int]:
    """Where |error| is largest between two changes of its sign."""
    peaks = [0]
    for k in range(1, len(error)):
        if (error[k] > 0) != (error[peaks[-1]] > 0):
            peaks.append(k)
        elif abs(error[k]) > abs(error[peaks[-1]]):
            peaks[-1] = k
    return peaks


def _best_run(peaks: list[int], error: list[mpf], count: int) -> list[int]:
    runs = [peaks[k : k + count] for k in range(len(peaks) - count + 1)]
    return max(runs, key=lambda run: min(abs(error[k]) for k in run))


def _unscaled(coefficients: list[mpf], middle: mpf, half: mpf) -> list[mpf]:
    """The polynomial in (x - middle) / half as one in x."""
    result = [mpf(0)]
    for c in reversed(coefficients):
        times = [mpf(0)] + [r / half for r in result]
        result = [t - r * middle / half for t, r in zip(times, [*result, mpf(0)], strict=True)]
        result[0] += c
    return result[: len(coefficients)]


def one(x: mpf) -> mpf:
    """The weight of an absolute error."""
    return mpf(1)


def of_square(g: Function) -> Function:
    """z -> g(sqrt(z)), for the series of odd and even functions."""
    return lambda z: g(mp.sqrt(z))


LN2_HALF = mp.log(2) / 2 * mpf("1.001")
ROOT_LOW, ROOT_HIGH = mp.sqrt(mpf("0.5")) - 1, mp.sqrt(mpf(2)) - 1
QUARTER_PI = mp.pi / 4 * mpf("1.001")
S_MAX = (mp.sqrt(mpf(2)) - 1) / (mp.sqrt(mpf(2)) + 1)
ERF_CUT, ERF_ENDS = mpf("0.75"), (4, 6)


def erf_exponent(middle: mpf) -> Function:
    """u -> -log(1 - erf(x)) / x at x = u + middle."""
    return lambda u: -mp.log(mp.erfc(u + middle)) / (u + middle)


# name: (what it is, g, w, low, high, degree for float32, degree for float64 or None)
FITS = {
    "EXP": ("exp(r) = 1 + r + r^2 p(r)", lambda r: (mp.expm1(r) - r) / r**2,
            abs, -LN2_HALF, LN2_HALF, 4, 9),
    # 1/2 is exact in every type; the rounding of a fitted coefficient in its place would show.
    "EXP_WIDE": ("exp(r) = 1 + r + r^2/2 + r^3 p(r), up to r = ln 2",
                 lambda r: (mp.expm1(r) - r - r**2 / 2) / r**3,
                 lambda r: abs(r**3) / mp.exp(r), -LN2_HALF, 2 * LN2_HALF, 4, 9),
    "LOG": ("log(1 + f) = f - f^2/2 + f^3 p(f)", lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3,
            lambda f: f**2, ROOT_LOW, ROOT_HIGH, 7, None),
    "ATANH": ("2 atanh(s) = s (2 + z p(z)), z = s^2",
              of_square(lambda s: (2 * mp.atanh(s) / s - 2) / s**2), abs, 0, S_MAX**2, None, 6),
    "ATANH_TAIL": ("2 atanh(s) = s (2 + z 2/3 + z^2 p(z)), z = s^2",
                   of_square(lambda s: (2 * mp.atanh(s) / s - 2 - 2 * s**2 / 3) / s**4),
                   lambda z: z**2, 0, S_MAX**2, None, 7),
    "SOFTPLUS": ("log(1 + y) = y - y^2 p(y - 1/2), 0 <= y <= 1",
                 lambda u: (u + 0.5 - mp.log1p(u + 0.5)) / (u + 0.5) ** 2,
                 lambda u: u + 0.5, -0.5, 0.5, 8, 19),
    "SIN": ("sin(r) = r + r z p(z), z = r^2", of_square(lambda r: (mp.sin(r) / r - 1) / r**2),
            abs, 0, QUARTER_PI**2, 2, 5),
    "COS": ("cos(r) = 1 - z/2 + z^2 p(z), z = r^2",
            of_square(lambda r: (mp.cos(r) - 1 + r**2 / 2) / r**4), lambda z: z**2,
            0, QUARTER_PI**2, 2, 5),
    "TAN": ("tan(r) = r + r z p(z), z = r^2", of_square(lambda r: (mp.tan(r) / r - 1) / r**2),
            abs, 0, QUARTER_PI**2, 6, 14),
    "ATAN": ("atan(a) = a + a z p(z), z = a^2", of_square(lambda a: (mp.atan(a) / a - 1) / a**2),
             abs, 0, 1, 8, 20),
    "ASIN": ("asin(s) = s + s z p(z), z = s^2", of_square(lambda s: (mp.asin(s) / s - 1) / s**2),
             abs, 0, mpf("0.2976"), 5, 12),
    "ERF_NEAR": ("erf(x) = x + x p(z), z = x^2", of_square(lambda x: mp.erf(x) / x - 1), one,
                 0, ERF_CUT**2 * mpf("1.001"), 5, 10),
    "SINH": ("sinh(x) = x + x z p(z), z = x^2", of_square(lambda x: (mp.sinh(x) / x - 1) / x**2),
             abs, 0, mpf("1.001"), 3, 6),
}  # fmt: skip

# name: (value, bits of each part but the last, which takes what is left).  A part times an
# integer of at most 24 or 53 minus so many bits is exact (Cody & Waite, 1980).
SPLITS = {
    "LN2_32": (mp.log(2), (9,), 24),
    "LN2_64": (mp.log(2), (32,), 53),
    "HALF_PI_32": (mp.pi / 2, (24,), 24),
    "HALF_PI_64": (mp.pi / 2, (53,), 53),
    "HALF_PI_PARTS_32": (mp.pi / 2, (33,), 53),
    "HALF_PI_PARTS_64": (mp.pi / 2, (33, 33), 53),
    "LOG2_E_POW": (2 / (3 * mp.log(2)), (26,), 53),
    "LN2_POW": (mp.log(2), (26,), 53),
}


def split(value: mpf, leading: tuple[int, ...], last: int) -> list[mpf]:
    """``value`` as a sum of parts of so many bits each."""
    parts = []
    for bits in leading:
        unit = mpf(2) ** (mp.floor(mp.log(abs(value), 2)) + 1 - bits)
        parts.append(mp.nint(value / unit) * unit)
        value -= parts[-1]
    return [*parts, mpf(float(np.float32(float(value)))) if last == 24 else value]


def table(name: str, what: str, coefficients: list[mpf], error: mpf, bits: str) -> str:
    dtype = np.float32 if bits == "32" else np.float64
    rows = "".join(f"    {float(dtype(c))!r},\n" for c in coefficients)
    size = float(mp.log(error, 2))
    return f"\n# {what}; fitted to 2^{size:.1f}\n{name}_{bits} = (\n{rows})\n"


def main() -> None:
    print('"""Polynomial coefficients for vector_math; written by tools/fit_math.py."""\n')
    print("from __future__ import annotations")
    for name, (what, g, w, low, high, *degrees) in FITS.items():
        for bits, degree in zip(("32", "64"), degrees, strict=True):
            if degree is not None:
                print(table(name, what, *remez(g, w, mpf(low), mpf(high), degree), bits), end="")
    for bits, degree, end in zip(("32", "64"), (9, 27), ERF_ENDS, strict=True):
        middle, half = (end + ERF_CUT) / 2, (end - ERF_CUT) / 2
        what = f"-log(1 - erf(x)) = x p(x - {middle}), {ERF_CUT} <= x <= {end}"
        fit = remez(erf_exponent(middle), one, -half, half, degree)
        print(table("ERF", what, *fit, bits), end="")
    for name, (value, leading, last) in SPLITS.items():
        print(f"\n{name} = (")
        for part in split(value, leading, last):
            print(f"    {float(part)!r},")
        print(")")


if __name__ == "__main__":
    main()
