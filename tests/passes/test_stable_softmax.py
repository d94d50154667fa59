"""The gradient of the logarithm of a softmax, where probabilities underflow to 0."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad
from tinygraph.passes.stable_softmax import RULES

ROWS = np.array([[-100, 100, 0], [100, -100, 100], [1, 2, 3], [300, 0, -300]])
CLASSES = np.array([0, 1, 2, 1])


def expected(weights):
    """The gradient of -sum(weights * log p)."""
    e = np.exp(ROWS - ROWS.max(1, keepdims=True))
    return weights.sum(1, keepdims=True) * e / e.sum(1, keepdims=True) - weights


HOT = np.eye(3)[CLASSES]
SOME = HOT * [[1], [0.5], [2], [0.25]]


def dense(p, y):
    return -(T.constant(SOME.astype("float32")) * T.log(p)).sum()


def chosen(p, y):
    return T.nnet.categorical_crossentropy(p, y).sum()


def chosen_and_weighted(p, y):
    return (T.nnet.categorical_crossentropy(p, y) * T.constant(
        np.array([1, 0.5, 2, 0.25], "float32"))).sum()


def reshaped(p, y):
    p, y = p.reshape((2, 2, 3)), y.reshape((2, 2))
    return -T.log(p[T.arange(2)[:, None], T.arange(2)[None], y]).sum()


def transposed(p, y):
    return -T.log(p.T[y, T.arange(4)]).sum()


def transposed_dense(p, y):
    return -(T.constant(SOME.T.astype("float32")) * T.log(p.T)).sum()



@pytest.mark.parametrize(("cost", "weights"), [
    (dense, SOME), (chosen, HOT), (chosen_and_weighted, SOME), (reshaped, HOT),
    (transposed, HOT), (transposed_dense, SOME)])
def test_slopes(cost, weights):
    with tinygraph.config.change(floatX="float32", cache="off"):
        x, y = T.matrix("x"), T.lvector("y")
        f = function([x, y], grad(cost(T.nnet.softmax(x), y), x), on_unused_input="ignore")
        out = f(ROWS.astype("float32"), CLASSES)
    np.testing.assert_allclose(out, expected(weights), atol=1e-6)


def test_another_use_of_the_probabilities_keeps_its_gradient():
    def both(p, y):
        return chosen(p, y) + (p ** 2).sum()

    slopes = []
    rows = np.array([[0.5, -1, 2]] * 4)
    with tinygraph.config.change(floatX="float64", cache="off"):
        x, y = T.matrix("x"), T.lvector("y")
        cost = both(T.nnet.softmax(x), y)
        for passes in ("all", "-stable"):
            slopes.append(function([x, y], grad(cost, x), passes=passes)(rows, CLASSES))
    np.testing.assert_allclose(*slopes, rtol=1e-12)


def test_every_rule_is_documented():
    assert all("-->" in r.doc for r in RULES)
