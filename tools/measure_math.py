"""Measures the compiled transcendental functions against exact values, and what they cost.

    python tools/measure_math.py                    every table of docs/vector_math.md, printed
    python tools/measure_math.py --write            the same, written into the document
    python tools/measure_math.py --only exp,tanh    these functions only
    python tools/measure_math.py --stride 1009      one float32 in so many, where all would do

float32: exp, log, tanh and sigmoid of all 2^32 bit patterns, the other functions of one argument
of every 97th, against float64.  float64: about 10^5 inputs over all ranges against mpmath with 40
digits.  Functions of two arguments take random pairs.  Needs mpmath and scipy.

An error is counted in units in the last place of the exact result.  Results of less than the
smallest normal number count as 0, as they do for compiled code; what should be nan, infinite or 0
has to be just that.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.special
from mpmath import mp

import tinygraph
import tinygraph.tensor as T
from tinygraph.loops.language import TRANSCENDENTAL

DOCUMENT = Path(__file__).parents[1] / "docs" / "vector_math.md"
EXHAUSTIVE = ("exp", "log", "tanh", "sigmoid")
STRIDE = 97
CHUNK = 1 << 16
PAIRS = 1 << 24
POINTS = 100_000
TURNING = ("sin", "cos", "tan")  # good for abs(x) <= LIMIT
LIMIT = 1e5
TWO = ("pow", "arctan2")

Arrays = tuple[np.ndarray, ...]


def compiled(op: str, dtype: str) -> Callable[..., np.ndarray]:
    """The native function of one operation."""
    given = [T.TensorType(dtype, (False,))(name) for name in ("xy" if op in TWO else "x")]
    return tinygraph.function(given, getattr(T, op)(*given), backend="llvm")


# --- exact values


def wide(op: str, *arrays: np.ndarray) -> np.ndarray:
    """``op`` of float32 arrays in float64, good to 2^-50."""
    x = arrays[0].astype(np.float64)
    if op == "sigmoid":
        return 1 / (1 + np.exp(-x))
    if op == "softplus":
        return np.logaddexp(0, x)
    if op == "erf":
        return scipy.special.erf(x)
    if op == "pow":
        return np.power(x, arrays[1].astype(np.float64))
    return getattr(np, op)(x, *(a.astype(np.float64) for a in arrays[1:]))


EXACT: dict[str, Callable[..., object]] = {
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "log2": lambda x: mp.log(x, 2),
    "arctan2": mp.atan2, "arcsin": mp.asin, "arccos": mp.acos, "arctan": mp.atan,
    "arcsinh": mp.asinh, "arccosh": mp.acosh, "arctanh": mp.atanh, "pow": mp.power,
}  # fmt: skip


def exact(op: str, arrays: Arrays) -> list[tuple[float, float]]:
    """``op`` of float64 arrays as sums of two floats, nan where it is not a real number."""
    function = EXACT.get(op) or getattr(mp, op)
    out = []
    for values in zip(*(a.tolist() for a in arrays), strict=True):
        try:
            value = function(*(mp.mpf(v) for v in values))
        except (ValueError, ZeroDivisionError, OverflowError):
            value = mp.nan
        if isinstance(value, mp.mpc) or not mp.isfinite(value):
            out.append((math.nan, 0.0))
            continue
        high = float(value)
        out.append((high, float(value - high) if math.isfinite(high) else 0.0))
    return out


# --- errors


@dataclass
class Worst:
    """The errors of one function so far, in ulp."""

    count: int = 0
    total: float = 0.0
    largest: float = 0.0
    where: tuple[float, ...] = ()
    wrong: tuple[float, ...] = ()  # an input whose special value is not what it should be

    def add(self, errors: np.ndarray, arrays: Arrays, wrong: np.ndarray) -> None:
        """Take in the errors at ``arrays``."""
        self.count += errors.size
        self.total += float(errors.sum())
        if errors.size and errors.max() > self.largest:
            k = int(errors.argmax())
            self.largest, self.where = float(errors[k]), tuple(float(a[k]) for a in arrays)
        if wrong.any() and not self.wrong:
            self.wrong = tuple(float(a[int(wrong.argmax())]) for a in arrays)


def unit(size: np.ndarray, dtype: type) -> np.ndarray:
    """One unit in the last place of ``dtype`` at the float64 numbers ``size``, none negative."""
    info = np.finfo(dtype)
    exponent = size.view(np.int64) & (0x7FF << 52)
    return np.maximum(exponent.view(np.float64) * 2.0**-info.nmant, info.tiny * info.eps)


def compare(got: np.ndarray, want: np.ndarray, rest: np.ndarray | float
            ) -> tuple[np.ndarray, np.ndarray]:
    """(errors in ulp, whether a special value is wrong) of ``got`` where ``want + rest`` is
    exact; ``want`` is float64."""
    dtype = got.dtype.type
    info = np.finfo(dtype)
    size, high = np.abs(want), got.astype(np.float64)
    step = unit(size, dtype)
    error = np.abs((high - want) - rest) / step
    ordinary = size.size and size.min() > 2 * info.tiny and size.max() < info.max / 2
    if ordinary and np.isfinite(error.max()):
        return error, np.zeros(error.shape, bool)
    # Within half a unit of the largest number, that number and inf are both right.
    near_top = (size > info.max) | (size + step > float(info.max))
    over = (size >= float(info.max)) & np.isinf(got) & ((got > 0) == (want > 0))
    # Just below the smallest normal number, that number and 0 are both right.
    flushed = (size < info.tiny * (1 + 4 * info.eps)) & (np.abs(high) <= info.tiny)
    below = (size < info.tiny) & (np.abs(high) <= info.tiny)
    special = over | flushed | below | np.isnan(want)
    error = np.where(special, 0, error)
    wrong = np.isnan(want) != np.isnan(got)
    wrong |= ~np.isfinite(error)
    return np.where(wrong, 0, error), wrong & ~(near_top & np.isinf(got))


# --- inputs


def float32_inputs(op: str, stride: int) -> Iterator[Arrays]:
    """Every ``stride``-th float32, or pairs; denormals left out."""
    tiny = np.finfo(np.float32).tiny
    if op in TWO:
        yield from pairs(op, np.float32, PAIRS // stride if stride > STRIDE else PAIRS)
        return
    with np.errstate(invalid="ignore"):
        for start in range(0, 1 << 32, CHUNK * stride):
            bits = np.arange(start, min(start + CHUNK * stride, 1 << 32), stride, np.uint64)
            x = bits.astype(np.uint32).view(np.float32)
            keep = (np.abs(x) >= tiny) | (x == 0) | np.isnan(x)
            if op in TURNING:
                keep &= np.abs(x) <= LIMIT
            yield (x if keep.all() else x[keep],)


def pairs(op: str, dtype: type, count: int) -> Iterator[Arrays]:
    """Random pairs of arguments: of every magnitude, of middle ones, and near 1."""
    rng = np.random.default_rng(0)
    wide_, top = (60, 120) if dtype is np.float32 else (300, 1000)
    for start in range(0, count, CHUNK):
        n = min(CHUNK, count - start)

        def signed(low: float, high: float, n: int = n) -> np.ndarray:
            return np.exp2(rng.uniform(low, high, n)) * rng.choice([-1.0, 1.0], n)

        if op == "arctan2":
            spread = rng.choice([1.0, 8.0, wide_, top], n)
            yield tuple((signed(-1, 1) * np.exp2(rng.uniform(-spread, spread))).astype(dtype)
                        for _ in range(2))
            continue
        base = np.abs(np.where(rng.random(n) < 0.6, signed(-5, 5), signed(-top, top)))
        base = np.where(rng.random(n) < 0.2, 1 + signed(-20, -1), base)
        # Exponents that use the whole range of results.
        reach = np.log2(np.finfo(dtype).max) / np.maximum(np.abs(np.log2(base)), 1e-9)
        yield base.astype(dtype), (rng.uniform(-1, 1, n) * reach).astype(dtype)


RANGES = {  # where the results of functions of one argument are neither constant nor infinite
    "exp": (-745, 710), "expm1": (-40, 710), "tanh": (-20, 20), "sigmoid": (-745, 40),
    "softplus": (-745, 60), "erf": (-6, 6), "sinh": (-711, 711), "cosh": (-711, 711),
    "arcsin": (-1, 1), "arccos": (-1, 1), "arctanh": (-1, 1), "arccosh": (1, 100),
    "log": (0, 3), "log2": (0, 3), "log1p": (-1, 3), "arcsinh": (-10, 10), "arctan": (-10, 10),
    "sin": (-LIMIT, LIMIT), "cos": (-LIMIT, LIMIT), "tan": (-LIMIT, LIMIT),
}  # fmt: skip


def float64_inputs(op: str, count: int) -> Arrays:
    """Inputs in layers: the range, every magnitude, near 0, near 1 and near the range's ends."""
    if op in TWO:
        return next(pairs(op, np.float64, min(count, CHUNK)))
    rng, n = np.random.default_rng(0), count // 8
    low, high = RANGES[op]
    signs = rng.choice([-1.0, 1.0], n)
    quarter = np.round(rng.uniform(-1e3, 1e3, n)) * (math.pi / 4)
    x = np.concatenate([
        rng.uniform(low, high, n), rng.uniform(-3, 3, n), rng.uniform(-1, 1, n),
        signs * np.exp2(rng.uniform(-1022, 1023, n)), signs * np.exp2(rng.uniform(-30, 7, n)),
        1 + signs * np.exp2(rng.uniform(-52, -1, n)),
        np.concatenate([low + (high - low) * np.exp2(rng.uniform(-52, 0, n // 2)),
                        high - (high - low) * np.exp2(rng.uniform(-52, 0, n // 2))]),
        quarter * (1 + rng.choice([-1.0, 0.0, 1.0], n) * np.exp2(rng.uniform(-53, -20, n))),
    ])  # fmt: skip
    keep = np.abs(x) >= np.finfo(np.float64).tiny
    return (x[keep & (np.abs(x) <= LIMIT)] if op in TURNING else x[keep],)


# --- the measurements


def measure(op: str, dtype: str, stride: int, points: int) -> Worst:
    """The errors of ``op``."""
    function, worst = compiled(op, dtype), Worst()
    with np.errstate(all="ignore"):
        if dtype == "float32":
            step = stride if op in EXHAUSTIVE else max(stride, STRIDE)
            for arrays in float32_inputs(op, step):
                errors, wrong = compare(function(*arrays), wide(op, *arrays), 0.0)
                worst.add(errors, arrays, wrong)
            return worst
        arrays = float64_inputs(op, points)
        want, rest = np.array(exact(op, arrays)).T
        got = function(*arrays)
        defined = np.isfinite(want)
        arrays = tuple(a[defined] for a in arrays)
        worst.add(*_swap(compare(got[defined], want[defined].copy(), rest[defined]), arrays))
    return worst


def _swap(pair: tuple[np.ndarray, np.ndarray], arrays: Arrays) -> tuple:
    return pair[0], arrays, pair[1]


def nanoseconds(op: str, dtype: str, size: int = 2048) -> float:
    """Per element, in cache: the best of many calls, less that of a call for one element."""
    function, rng = compiled(op, dtype), np.random.default_rng(0)
    low, high = RANGES.get(op, (0.5, 2.0))
    draw = [rng.uniform(max(low, -4), min(high, 4), size).astype(dtype)
            for _ in range(2 if op in TWO else 1)]
    least = [math.inf, math.inf]
    for _ in range(2000):
        for k, arrays in enumerate((draw, [a[:1] for a in draw])):
            start = time.perf_counter_ns()
            function(*arrays)
            least[k] = min(least[k], time.perf_counter_ns() - start)
    return (least[0] - least[1]) / size


def row(op: str, dtype: str, worst: Worst, cost: float) -> str:
    """One line of the table."""
    where = ", ".join(f"{w:.9g}" if dtype == "float32" else f"{w:.17g}" for w in worst.where)
    mean = worst.total / max(1, worst.count)
    return (f"| {op} | {worst.count:.2g} | {worst.largest:.3f} | {mean:.3f} | {where} | "
            f"{cost:.2f} |")


HEAD = ("| function | inputs | max ulp | mean ulp | largest at | ns an element |\n"
        "|---|---|---|---|---|---|")


def tables(ops: list[str], dtypes: list[str], stride: int, points: int) -> dict[str, str]:
    """The table of each dtype."""
    out = {}
    for dtype in dtypes:
        rows = [HEAD]
        print(f"\n{dtype}\n{HEAD}", flush=True)
        for op in ops:
            start = time.perf_counter()
            worst = measure(op, dtype, stride, points)
            rows.append(row(op, dtype, worst, nanoseconds(op, dtype)))
            flaw = f"   WRONG at {worst.wrong}" if worst.wrong else ""
            print(f"{rows[-1]}{flaw}   {time.perf_counter() - start:.0f} s", flush=True)
        out[dtype] = "\n".join(rows)
    return out


def write(found: dict[str, str]) -> None:
    """Replace the tables in the document: each stands between two comments with its dtype."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for dtype, table in found.items():
        pattern = rf"(<!-- {dtype} -->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.S)
        if count != 1:
            raise SystemExit(f"{DOCUMENT.name} has {count} places for the table of {dtype}")
    DOCUMENT.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(sorted(TRANSCENDENTAL)))
    parser.add_argument("--dtypes", default="float32,float64")
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    mp.dps = 40
    with tinygraph.config.change(cache="off"):
        found = tables(options.only.split(","), options.dtypes.split(","), options.stride,
                       options.points)
    if options.write:
        if options.only != parser.get_default("only"):
            sys.exit("--write takes all functions")
        write(found)


if __name__ == "__main__":
    main()
