"""Philox4x32-10, the counter-based generator of random bits (Salmon, Moraes, Dror and Shaw,
*Parallel random numbers: as easy as 1, 2, 3*, SC 2011, section 3.2 and table 2).

A function without state: (counter of 128 bits, key of 64 bits) -> 128 random bits.  Here the
counter is (index, draw), two int64: which element, and the how-manieth array.  So any element of
any draw is computed alone, in whatever order, by whatever thread, with the same bits.  It is the
meaning of two scalar functions, ``philox_low`` and ``philox_high``: the words of 32 bits 0 and 1,
and 2 and 3, of the result, each as one int64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinygraph.dtypes import int64
from tinygraph.loops import language as L

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85  # what a round adds to the two words of the key
MASK = 0xFFFFFFFF


def philox(index: np.ndarray, draw: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The low and the high half of the result, int64, for int64 arrays that broadcast."""
    mask, half = np.uint64(MASK), np.uint64(32)
    wide = [np.asarray(x).astype(np.int64).view(np.uint64) for x in (index, draw, key)]
    (a, b), (c, d), (k, m) = ((x & mask, x >> half) for x in wide)
    with np.errstate(over="ignore"):
        for r in range(ROUNDS):
            one, two = a * np.uint64(MULTIPLIERS[0]), c * np.uint64(MULTIPLIERS[1])
            key0 = k + np.uint64(r * WEYL[0] & MASK) & mask
            key1 = m + np.uint64(r * WEYL[1] & MASK) & mask
            a, b, c, d = (two >> half) ^ b ^ key0, two & mask, (one >> half) ^ d ^ key1, one & mask
    return (a | b << half).view(np.int64), (c | d << half).view(np.int64)


def philox_words(let: Callable[[L.Expr], L.Expr], *operands: L.Expr) -> tuple[L.Expr, ...]:
    """The four words for (index, draw, key), as statements; ``let`` binds a name.

    Each stands in the low half of an int64, with anything above: products alone need it clear.
    """
    index, draw, key = (let(x if x.dtype is int64 else L.Cast(x, int64)) for x in operands)
    a, b, c, d = index, let(_high(index)), draw, let(_high(draw))
    keys = key, let(_high(key))
    for r in range(ROUNDS):
        one, two = (let(L.Binary("mul", let(_low(x)), L.Const(factor, int64)))
                    for x, factor in zip((a, c), MULTIPLIERS, strict=True))
        key0, key1 = (L.Binary("add", k, L.Const(r * w & MASK, int64))
                      for k, w in zip(keys, WEYL, strict=True))
        a, b, c, d = (let(_mix(_high(two), b, key0)), two,
                      let(_mix(_high(one), d, key1)), one)
    return a, b, c, d


def philox_half(low: L.Expr, high: L.Expr) -> L.Expr:
    """Two words as one int64."""
    return L.Binary("or", _low(low), L.Binary("shl", high, L.Const(32, int64)))


def _low(x: L.Expr) -> L.Expr:
    return L.Binary("and", x, L.Const(MASK, int64))


def _high(x: L.Expr) -> L.Expr:
    return L.Binary("shr", x, L.Const(32, int64))


def _mix(x: L.Expr, y: L.Expr, z: L.Expr) -> L.Expr:
    return L.Binary("xor", L.Binary("xor", x, y), z)
