"""Penalties, against sums written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import function, grad, shared
from tinygraph_rnn import init, layers, regularization, updates
from tinygraph_rnn.regularization import (
    apply_penalty,
    l1,
    l2,
    regularize_layer_params,
    regularize_layer_params_weighted,
    regularize_network_params,
)

BACKENDS = pytest.mark.parametrize("backend", ["numpy", "llvm"])


def value(x, backend="numpy"):
    return float(function([], x, backend=backend)())


def absolute(*params):
    return sum(np.abs(p.get_value()).sum() for p in params)


def squares(*params):
    return sum((p.get_value() ** 2).sum() for p in params)


@pytest.fixture
def network():
    """Two dense layers, whose biases are not zero."""
    l_in = layers.InputLayer((None, 3))
    first = layers.DenseLayer(l_in, 4, W=init.Normal(1.0), b=init.Normal(1.0))
    second = layers.DenseLayer(first, 2, W=init.Normal(1.0), b=init.Normal(1.0))
    return first, second


@BACKENDS
def test_l1_and_l2(backend):
    data = np.array([[1.0, -2.0, 0.0], [3.0, -4.0, 0.5]])
    x = T.matrix("x")
    found = function([x], [l1(x), l2(x), grad(l1(x), x), grad(l2(x), x)], backend=backend)(data)
    assert [float(v) for v in found[:2]] == [10.5, 30.25]
    np.testing.assert_array_equal(found[2], np.sign(data))
    np.testing.assert_array_equal(found[3], 2 * data)


@BACKENDS
def test_a_penalty_of_one_tensor_or_of_several(backend):
    a, b = shared(np.array([1.0, -2.0]), "a"), shared(np.array([[3.0], [-4.0]]), "b")
    for many in ([a, b], (a, b), iter([a, b]), {a: 1, b: 2}):
        assert value(apply_penalty(many, l2), backend) == 30
    assert value(apply_penalty(a, l1), backend) == 3
    assert value(apply_penalty(a + 1, l2), backend) == 5
    assert value(apply_penalty(np.array([1.0, -2.0]), l1)) == 3
    assert value(apply_penalty([np.array([1.0, -2.0]), a], l1)) == 6
    assert value(apply_penalty([], l2)) == 0


def test_other_arguments_go_to_the_penalty():
    a = shared(np.array([1.0, -2.0]), "a")

    def power(x, exponent, factor=1.0):
        return factor * T.sum(abs(x) ** exponent)

    assert value(apply_penalty([a, a], power, exponent=3)) == 18
    assert value(apply_penalty(a, power, exponent=3, factor=2.0)) == 18
    # A mistake of a penalty is not taken for a single tensor.
    with pytest.raises(TypeError, match="exponent"):
        apply_penalty([a], power)


@BACKENDS
def test_parameters_of_layers(network, backend):
    first, second = network
    assert value(regularize_layer_params(second, l2), backend) == pytest.approx(squares(second.W))
    both = regularize_layer_params([first, second], l1)
    assert value(both, backend) == pytest.approx(absolute(first.W, second.W))
    biases = regularize_layer_params(second, l2, tags={"regularizable": False})
    assert value(biases) == pytest.approx(squares(second.b))
    every = regularize_layer_params(second, l2, tags={})
    assert value(every) == pytest.approx(squares(second.W, second.b))
    assert value(regularize_layer_params(first.input_layer, l2)) == 0
    half = regularize_layer_params(second, lambda x, c: c * l2(x), c=0.5)
    assert value(half) == pytest.approx(0.5 * squares(second.W))


@BACKENDS
def test_weighted_layers(network, backend):
    first, second = network
    rate = shared(np.float64(0.5), "rate")
    total = regularize_layer_params_weighted({first: 0.1, second: rate}, l2)
    expected = 0.1 * squares(first.W) + 0.5 * squares(second.W)
    assert value(total, backend) == pytest.approx(expected)
    biases = regularize_layer_params_weighted({first: 2, second: 3}, l1,
                                              tags={"regularizable": False})
    assert value(biases) == pytest.approx(2 * absolute(first.b) + 3 * absolute(second.b))
    assert value(regularize_layer_params_weighted({}, l2)) == 0
    with pytest.raises(TypeError, match="layers must be a dict .* not list; .* there is"):
        regularize_layer_params_weighted([first], l2)


@BACKENDS
def test_parameters_of_networks(network, backend):
    first, second = network
    total = regularize_network_params(second, l2)
    assert value(total, backend) == pytest.approx(squares(first.W, second.W))
    trainable = regularize_network_params(second, l2, tags={"trainable": True})
    assert value(trainable) == pytest.approx(squares(first.W, first.b, second.W, second.b))
    # A shared parameter counts once in a network.
    other = layers.DenseLayer(first, 2, W=second.W, b=None)
    twice = regularize_network_params([second, other], l1)
    assert value(twice) == pytest.approx(absolute(first.W, second.W))
    g = function([], grad(total, [first.W, first.b], disconnected_inputs="ignore"))()
    np.testing.assert_allclose(g[0], 2 * first.W.get_value())
    np.testing.assert_array_equal(g[1], np.zeros(4))


def test_recurrent_layers_have_no_penalty_on_biases_and_starts():
    l_in = layers.InputLayer((None, None, 3))
    l_gru = layers.GRULayer(l_in, 4, hid_init=init.Normal(1.0), learn_init=True)
    chosen = l_gru.get_params(regularizable=True)
    assert len(chosen) == 6 and all(p.name and "W_" in p.name for p in chosen)
    assert value(regularize_network_params(l_gru, l2)) == pytest.approx(squares(*chosen))


def test_a_penalty_in_training_makes_weights_small(network):
    first, second = network
    start = squares(first.W, second.W)
    cost = 0.1 * regularize_network_params(second, l2)
    params = layers.get_all_params(second, regularizable=True)
    step = function([], cost, updates=updates.sgd(cost, params, 1.0), backend="llvm")
    for _ in range(5):
        step()
    assert squares(first.W, second.W) == pytest.approx(start * 0.8 ** 10)


def test_the_default_tags_cannot_be_changed():
    with pytest.raises(TypeError):
        regularization.REGULARIZABLE["trainable"] = True  # type: ignore[index]
