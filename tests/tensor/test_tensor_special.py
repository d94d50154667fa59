"""gammaln and its derivatives against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from tensor_checks import check, matches

import tinygraph.tensor as T

POINTS = np.concatenate([np.linspace(0.01, 20, 97), np.linspace(-4.77, -0.03, 23),
                         [1e-6, 0.5, 1, 2, 7.999, 8, 100, 1e4]])
PAIRS = {"gammaln": special.gammaln, "psi": special.psi,
         "tri_gamma": lambda x: special.polygamma(1, x), "gamma": special.gamma}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(name, dtype):
    x = POINTS.astype(dtype)
    if name == "gamma":
        x = x[x < 30]
    want = PAIRS[name](x.astype("float64")).astype(dtype)
    matches(getattr(T, name), want, x, rtol=3e-4 if dtype == "float32" else 2e-12, smooth=False)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 1e6))
def test_anywhere(x):
    for name in ("gammaln", "psi", "tri_gamma"):
        check(getattr(T, name), PAIRS[name](x), np.array(x), rtol=1e-13 + 1e-12)


def test_gradients():
    x = np.array([0.3, 1.0, 2.5, 9.0, -0.6, -2.3])
    for name, slope in (("gammaln", special.psi), ("psi", PAIRS["tri_gamma"]),
                        ("tri_gamma", lambda x: special.polygamma(2, np.abs(x)))):
        at = x if name != "tri_gamma" else x[:4]
        check(lambda x, n=name: T.grad(getattr(T, n)(x).sum(), x), slope(at), at, rtol=1e-9)


def test_poles():
    x = np.array([0.0, -1.0, -3.0])
    check(T.gammaln, np.full(3, np.inf), x)
    check(T.gamma, np.full(3, np.nan), x)


def test_of_integers():
    x = np.arange(1, 8, dtype="int32")
    check(T.gamma, special.gamma(x).astype("float32"), x, rtol=1e-4)
