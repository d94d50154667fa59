"""erfc and the inverses against SciPy, far into the tails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from tensor_checks import check, matches, value

import tinygraph.tensor as T

X = np.concatenate([np.linspace(-6, 9, 121), [0.0, -0.0, 1e-300, 20, 26]])
P = np.concatenate([np.linspace(0.01, 1.99, 67), [1e-300, 1e-30, 1e-8, 1.0, 2 - 1e-12]])
Y = np.concatenate([np.linspace(-0.99, 0.99, 67), [1e-300, 1e-12, -1e-5, 0.0, 1 - 1e-12]])
CASES = {"erfc": (special.erfc, X), "erfcx": (special.erfcx, X), "erfcinv": (special.erfcinv, P),
         "erfinv": (special.erfinv, Y)}


def relative(name, x, rtol):
    got, want = value(getattr(T, name), x), CASES[name][0](x.astype("float64"))
    info = np.finfo(x.dtype)
    noise = 2 * info.eps if name == "erfcinv" else info.tiny  # it is 0 at 1, where q is rounded
    assert got.dtype == x.dtype
    np.testing.assert_allclose(got, want.astype(x.dtype), rtol=rtol, atol=noise)


@pytest.mark.parametrize("name", CASES)
def test_values(name):
    points = CASES[name][1]
    matches(getattr(T, name), CASES[name][0](points), points, rtol=1e-12, smooth=False)
    relative(name, points, 1e-12)


@pytest.mark.parametrize("name", ["erfc", "erfinv", "erfcinv"])
def test_values_in_float32(name):
    points = {"erfc": np.linspace(-4, 8, 50), "erfinv": np.linspace(-0.99, 0.99, 50),
              "erfcinv": np.geomspace(1e-20, 1, 50)}[name]
    relative(name, points.astype("float32"), 2e-5)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-300, 2.0, exclude_max=True))
def test_inverse_anywhere(q):
    check(T.erfcinv, special.erfcinv(q), np.array(q), rtol=1e-11)


def test_ends():
    check(T.erfinv, np.array([np.inf, -np.inf, np.nan]), np.array([1.0, -1.0, 1.5]))
    check(T.erfcinv, np.array([np.inf, -np.inf, np.nan]), np.array([0.0, 2.0, 2.5]))
    check(T.erfc, np.array([0.0, 2.0, np.nan]), np.array([np.inf, -np.inf, np.nan]))


def test_gradients():
    x = np.array([-2.0, -0.3, 0.0, 0.4, 3.0, 8.0])
    slope = -2 / np.sqrt(np.pi) * np.exp(-x ** 2)
    check(lambda x: T.grad(T.erfc(x).sum(), x), slope, x)
    p = np.array([1e-6, 0.3, 1.0, 1.7])
    slope = -np.sqrt(np.pi) / 2 * np.exp(special.erfcinv(p) ** 2)
    check(lambda p: T.grad(T.erfcinv(p).sum(), p), slope, p, rtol=1e-8)
    y = np.array([-0.9, -0.2, 0.0, 0.5, 0.7])
    slope = np.sqrt(np.pi) / 2 * np.exp(special.erfinv(y) ** 2)
    check(lambda y: T.grad(T.erfinv(y).sum(), y), slope, y, rtol=1e-8)
