"""Nonlinearities: values and slopes against NumPy, at every rank and at the ends of the range."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function, grad
from tinygraph_rnn import nonlinearities as nl

erf = np.vectorize(math.erf, otypes=[np.float64])
SCALE, SCALE_NEG = 1.0507009873554805, 1.6732632423543772


def sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


def leaky(slope):
    return lambda x: np.where(x > 0, x, slope * x), lambda x: np.where(
        x > 0, 1, np.where(x < 0, slope, (1 + slope) / 2))


def exponential(scale, scale_neg):
    return (lambda x: scale * np.where(x > 0, x, scale_neg * np.expm1(np.minimum(x, 0))),
            lambda x: scale * np.where(x > 0, 1, scale_neg * np.exp(np.minimum(x, 0))))


def scaled(a, b):
    return lambda x: b * np.tanh(a * x), lambda x: a * b * (1 - np.tanh(a * x) ** 2)


def normal(x):
    return np.exp(-x ** 2 / 2) / np.sqrt(2 * np.pi)


# Function, its formula, the formula of its slope.
TABLE = {
    "sigmoid": (nl.sigmoid, sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "tanh": (nl.tanh, *scaled(1, 1)),
    "ScaledTanH": (nl.ScaledTanH(2 / 3, 1.7159), *scaled(2 / 3, 1.7159)),
    "ScaledTanH()": (nl.ScaledTanH(), *scaled(1, 1)),
    "rectify": (nl.rectify, *leaky(0)),
    "LeakyRectify()": (nl.LeakyRectify(), *leaky(0.01)),
    "LeakyRectify(0.2)": (nl.LeakyRectify(0.2), *leaky(0.2)),
    "leaky_rectify": (nl.leaky_rectify, *leaky(0.01)),
    "very_leaky_rectify": (nl.very_leaky_rectify, *leaky(1 / 3)),
    "elu": (nl.elu, *exponential(1, 1)),
    "SELU()": (nl.SELU(), *exponential(1, 1)),
    "SELU(2, 0.5)": (nl.SELU(2, 0.5), *exponential(2, 0.5)),
    "selu": (nl.selu, *exponential(SCALE, SCALE_NEG)),
    "softplus": (nl.softplus, lambda x: np.logaddexp(0, x), sigmoid),
    "hard_sigmoid": (nl.hard_sigmoid, lambda x: np.clip(0.2 * x + 0.5, 0, 1),
                     lambda x: np.where(abs(x) < 2.5, 0.2, 0)),
    "swish": (nl.swish, lambda x: x * sigmoid(x),
              lambda x: sigmoid(x) + x * sigmoid(x) * sigmoid(-x)),
    "gelu": (nl.gelu, lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
             lambda x: 0.5 * (1 + erf(x / np.sqrt(2))) + x * normal(x)),
    "linear": (nl.linear, lambda x: x, np.ones_like),
}
POINTS = np.array([-1e6, -200.0, -30, -4, -1, -1e-3, 0, 1e-3, 1, 4, 30, 200, 1e6])


@pytest.mark.parametrize("backend", ["llvm", "numpy"])
@pytest.mark.parametrize(("floatX", "rtol", "atol"), [("float64", 1e-12, 1e-14),
                                                      ("float32", 1e-5, 1e-6)])
def test_values_and_slopes(backend, floatX, rtol, atol):
    x = T.vector("x", dtype=floatX)
    results = []
    for f, _, _ in TABLE.values():
        results += [f(x), grad(T.sum(f(x)), x)]
    with config.change(floatX=floatX, backend=backend), np.errstate(all="ignore"):
        found = iter(function([x], results)(POINTS.astype(floatX)))
        exact = POINTS.astype(floatX).astype(np.float64)
        for name, (_, value, slope) in TABLE.items():
            for formula in (value, slope):
                out = next(found)
                assert out.dtype == floatX and out.shape == POINTS.shape
                np.testing.assert_allclose(out, formula(exact), rtol, atol, err_msg=name)


@pytest.mark.parametrize("ndim", [0, 1, 3])
def test_any_rank(ndim):
    x = T.TensorType(config.floatX, (False,) * ndim)("x")
    sample = np.linspace(-2, 2, 2 ** ndim).reshape((2,) * ndim)
    found = function([x], [f(x) for f, _, _ in TABLE.values()])(sample)
    for (name, (_, value, _)), out in zip(TABLE.items(), found, strict=True):
        assert out.shape == sample.shape
        np.testing.assert_allclose(out, value(sample), 1e-12, err_msg=name)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("backend", ["llvm", "numpy"])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4), (2, 1, 3, 2), (4, 1)])
def test_softmax_runs_over_the_last_axis(backend, shape):
    rng = np.random.default_rng(0)
    sample, weights = 3 * rng.standard_normal(shape), rng.standard_normal(shape)
    sample.flat[0] = 1000  # without the shift, exp overflows
    x = T.TensorType(config.floatX, (False,) * len(shape))("x")
    y = nl.softmax(x)
    with config.change(backend=backend):
        out, slope = function([x], [y, grad(T.sum(y * weights), x)])(sample)
    p = softmax(sample)
    np.testing.assert_allclose(out, p, 1e-12, 1e-300)
    np.testing.assert_allclose(slope, p * (weights - (weights * p).sum(-1, keepdims=True)),
                               1e-9, 1e-15)


def test_softmax_refuses_what_has_no_last_axis_of_floats():
    for bad in (T.scalar("s"), T.ivector("s"), T.imatrix("s")):
        with pytest.raises(ValueError, match="softmax .*floats.* not s "):
            nl.softmax(bad)


def test_other_names():
    assert nl.identity is nl.linear and nl.silu is nl.swish and nl.ScaledTanh is nl.ScaledTanH
    assert nl.LeakyRectify().leakiness == nl.leaky_rectify.leakiness == 0.01
    assert nl.very_leaky_rectify.leakiness == 1 / 3
    assert (nl.selu.scale, nl.selu.scale_neg) == (SCALE, SCALE_NEG)


def test_recommended_scales_keep_one():
    x = T.scalar("x")
    out = function([x], nl.ScaledTanH(scale_in=2 / 3, scale_out=1.7159)(x))(1.0)
    np.testing.assert_allclose(out, 1, atol=1e-4)


def test_selu_keeps_mean_and_variance():
    # The expectation over a normal distribution, on a fine grid.
    grid = np.linspace(-12, 12, 200001)
    x = T.vector("x")
    out = function([x], nl.selu(x))(grid)
    weight = normal(grid) * (grid[1] - grid[0])
    np.testing.assert_allclose([(out * weight).sum(), (out ** 2 * weight).sum()], [0, 1],
                               atol=1e-8)
