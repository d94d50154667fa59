"""Update rules against their formulas in NumPy, over several steps."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import function, grad, shared
from tinygraph_rnn import objectives, updates

START = np.array([[0.5, -1.0], [2.0, 0.25]])
TARGET = np.array([[1.0, 1.0], [-1.0, 0.0]])


def gradient(p):
    return 2 * (p - TARGET) * (1 + p ** 2) + 2 * (p - TARGET) ** 2 * p


def sgd(p, g, s, t):
    return p - 0.1 * g


def momentum(p, g, s, t):
    s["v"] = 0.8 * s.get("v", 0) - 0.1 * g
    return p + s["v"]


def nesterov(p, g, s, t):
    s["v"] = 0.8 * s.get("v", 0) - 0.1 * g
    return p + 0.8 * s["v"] - 0.1 * g


def adagrad(p, g, s, t):
    s["a"] = s.get("a", 0) + g ** 2
    return p - 0.1 * g / np.sqrt(s["a"] + 1e-6)


def rmsprop(p, g, s, t):
    s["a"] = 0.9 * s.get("a", 0) + 0.1 * g ** 2
    return p - 0.1 * g / np.sqrt(s["a"] + 1e-6)


def adadelta(p, g, s, t):
    s["a"] = 0.95 * s.get("a", 0) + 0.05 * g ** 2
    u = g * np.sqrt(s.get("d", 0) + 1e-6) / np.sqrt(s["a"] + 1e-6)
    s["d"] = 0.95 * s.get("d", 0) + 0.05 * u ** 2
    return p - u


def adam(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g ** 2
    rate = 0.001 * np.sqrt(1 - 0.999 ** t) / (1 - 0.9 ** t)
    return p - rate * s["m"] / (np.sqrt(s["v"]) + 1e-8)


def adamax(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["u"] = np.maximum(0.999 * s.get("u", 0), abs(g))
    return p - 0.002 / (1 - 0.9 ** t) * s["m"] / (s["u"] + 1e-8)


RULES = [
    (updates.sgd, (0.1,), sgd), (updates.momentum, (0.1, 0.8), momentum),
    (updates.nesterov_momentum, (0.1, 0.8), nesterov), (updates.adagrad, (0.1,), adagrad),
    (updates.rmsprop, (0.1,), rmsprop), (updates.adadelta, (), adadelta),
    (updates.adam, (), adam), (updates.adamax, (), adamax)]


def cost_of(p):
    return T.sum((p - TARGET) ** 2 * (1 + p ** 2))


@pytest.mark.parametrize(("rule", "args", "reference"), RULES, ids=lambda x: getattr(
    x, "__name__", ""))
def test_rule(rule, args, reference):
    p = shared(START)
    step = function([], cost_of(p), updates=rule(cost_of(p), [p], *args))
    expected, state = START, {}
    for t in range(1, 6):
        step()
        expected = reference(expected, gradient(expected), state, t)
        np.testing.assert_allclose(p.get_value(), expected, rtol=1e-9)


@pytest.mark.parametrize(("rule", "args", "reference"), RULES, ids=lambda x: getattr(
    x, "__name__", ""))
def test_broadcasting_parameters_of_one_row(rule, args, reference):
    p = shared(START[:1], broadcastable=(True, False))
    step = function([], [], updates=rule(T.sum(p ** 2), [p], *args))
    step()
    np.testing.assert_allclose(p.get_value(), reference(START[:1], 2 * START[:1], {}, 1))


def test_gradients_may_be_given():
    p = shared(START)
    by_cost, by_grad = (
        function([], list(updates.sgd(x, [p], 0.1).values()))
        for x in (cost_of(p), [grad(cost_of(p), p)]))
    np.testing.assert_allclose(by_cost()[0], by_grad()[0])
    with pytest.raises(ValueError, match="2 gradients are given for 1"):
        updates.sgd([p, p], [p], 0.1)
    with pytest.raises(ValueError, match="only shared variables can be updated"):
        updates.sgd(cost_of(p), [p * 2], 0.1)


def test_learning_rate_may_be_symbolic():
    p, rate = shared(START), T.scalar("rate")
    step = function([rate], [], updates=updates.adam(cost_of(p), [p], rate))
    step(0.5)
    np.testing.assert_allclose(abs(p.get_value() - START), 0.5, rtol=1e-6)


def test_norm_constraints():
    w = T.matrix("w")
    x = np.array([[3.0, 0.3], [4.0, 0.4]])
    scaled, total = updates.total_norm_constraint([w, 2 * w], 1.0, return_norm=True)
    results = function([w], [updates.norm_constraint(w, 1.0), scaled[0], total])(x)
    out, joint, norm = results
    np.testing.assert_allclose(out, [[0.6, 0.3], [0.8, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(norm, np.sqrt(5 * np.sum(x ** 2)))
    np.testing.assert_allclose(joint, x / norm, rtol=1e-6)
    with pytest.raises(ValueError, match="pass norm_axes"):
        updates.norm_constraint(T.vector("v"), 1.0)


def test_objectives():
    p, t = T.matrix("p"), T.matrix("t")
    P, Q = np.array([[0.2, 0.8], [0.5, 0.5]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    losses = [objectives.squared_error(p, t), objectives.binary_crossentropy(p, t),
              objectives.categorical_crossentropy(p, t)]
    square, binary, classes = function([p, t], losses)(P, Q)
    np.testing.assert_allclose(square, (P - Q) ** 2)
    np.testing.assert_allclose(binary, -Q * np.log(P) - (1 - Q) * np.log(1 - P))
    np.testing.assert_allclose(classes, -np.log([0.8, 0.5]))
    modes = [objectives.aggregate(p), objectives.aggregate(p, mode="sum"),
             objectives.aggregate(p, t), objectives.aggregate(p, t, mode="normalized_sum")]
    np.testing.assert_allclose(
        [float(v) for v in function([p, t], modes)(P, Q)], [0.5, 2.0, 1.3 / 4, 0.65])
    with pytest.raises(ValueError, match="pass weights"):
        objectives.aggregate(p, mode="normalized_sum")
    with pytest.raises(ValueError, match="mode is 'max'"):
        objectives.aggregate(p, mode="max")
