"""Padded and masked sequences give what they give alone: native code, float64."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import config, function, grad
from tinygraph_rnn import random
from tinygraph_rnn.layers import (
    ConcatLayer,
    GRULayer,
    InputLayer,
    LSTMLayer,
    get_all_params,
    get_output,
)

LENGTHS = (6, 1, 4, 3)


@pytest.fixture(autouse=True)
def native_float64():
    random.set_rng(7)
    with config.change(floatX="float64", backend="llvm", cache="off"):
        yield
    random.set_rng(None)


def network(make, masked, **options):
    """A bidirectional network: its inputs, the output and its parameters."""
    l_in, l_mask = InputLayer((None, None, 3)), InputLayer((None, None))
    both = [make(l_in, 4, backwards=backwards, learn_init=True,
                 mask_input=l_mask if masked else None, **options)
            for backwards in (False, True)]
    top = ConcatLayer(both, axis=2)
    rng = np.random.default_rng(0)
    params = get_all_params(top, trainable=True)
    for p in params:
        p.set_value(0.5 * rng.standard_normal(p.get_value().shape))
    return l_in.input_var, l_mask.input_var, get_output(top), params


@pytest.mark.parametrize("make", [LSTMLayer, GRULayer])
def test_padded_equals_alone(make):
    rng = np.random.default_rng(1)
    x_data = rng.standard_normal((4, 6, 3))
    mask_data = (np.arange(6) < np.array(LENGTHS)[:, None]).astype(float)
    target_data = rng.standard_normal((4, 6, 8))
    target = T.tensor3("target")

    x, mask, out, params = network(make, masked=True, grad_clipping=100.0)
    cost = T.sum(mask.dimshuffle(0, 1, "x") * (out - target) ** 2)
    padded = function([x, mask, target], [cost, *grad(cost, [x, *params])])
    got, dx, *dparams = padded(x_data, mask_data, target_data)

    x, mask, out, params = network(make, masked=False)
    cost = T.sum((out - target) ** 2)
    alone = function([x, target], [cost, *grad(cost, [x, *params])])
    total, totals = 0.0, [np.zeros(p.get_value().shape) for p in params]
    for k, n in enumerate(LENGTHS):
        one, one_dx, *grads = alone(x_data[k:k + 1, :n], target_data[k:k + 1, :n])
        total += float(one)
        np.testing.assert_allclose(dx[k, :n], one_dx[0], rtol=1e-9, atol=1e-12)
        assert not dx[k, n:].any()
        for t, g in zip(totals, grads, strict=True):
            t += g
    np.testing.assert_allclose(got, total, rtol=1e-12)
    for g, t in zip(dparams, totals, strict=True):
        np.testing.assert_allclose(g, t, rtol=1e-9, atol=1e-12)


@pytest.mark.counts
@pytest.mark.parametrize("make", [LSTMLayer, GRULayer])
def test_masks_cost_no_products(make):
    x, mask, out, params = network(make, masked=True, grad_clipping=100.0)
    cost = T.sum(mask.dimshuffle(0, 1, "x") * out ** 2)
    f = function([x, mask], [cost, *grad(cost, [x, *params])])
    assert [loop.step.products for loop in f.report().loops] == [1, 1, 1, 1]


def test_what_stands_in_the_padding_does_not_matter():
    x, mask, out, params = network(LSTMLayer, masked=True)
    cost = T.sum(mask.dimshuffle(0, 1, "x") * out ** 2)
    f = tinygraph.function([x, mask], [cost, *grad(cost, params)])
    rng = np.random.default_rng(2)
    mask_data = (np.arange(6) < np.array(LENGTHS)[:, None]).astype(float)
    a = rng.standard_normal((4, 6, 3))
    b = np.where(mask_data[:, :, None] == 1, a, 1e3)
    for p, q in zip(f(a, mask_data), f(b, mask_data), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-12)
