"""Networks within the custom recurrent layer that are more than a product."""

from __future__ import annotations

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import function, grad
from tinygraph_rnn.layers import (
    CustomRecurrentLayer,
    DenseLayer,
    InputLayer,
    LSTMLayer,
    dropout,
    get_output,
)

RNG = np.random.default_rng(29)


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
@pytest.mark.parametrize("early", [True, False])
def test_a_recurrent_layer_for_every_step(early, backend):
    """Words of letters: an LSTM over the letters of a word gives what goes into a step."""
    x = RNG.standard_normal((2, 3, 4, 5))
    l_in = InputLayer((None, None, 4, 5))
    letters = LSTMLayer(InputLayer((None, 4, 5)), 3, only_return_final=True)
    layer = CustomRecurrentLayer(
        l_in, letters, DenseLayer(InputLayer((None, 3)), 3), precompute_input=early)
    ref.randomise(layer)

    def expected(x: np.ndarray) -> np.ndarray:
        h = np.repeat(layer.hid_init.get_value(), 2, axis=0)
        w, b = (p.get_value() for p in layer.hidden_to_hidden.get_params())
        out = []
        for t in range(3):
            words = np.array([ref.lstm(word, ref.values(letters))[-1] for word in x[:, t]])
            h = np.maximum(words + np.maximum(h @ w + b, 0), 0)
            out.append(h)
        return np.stack(out, axis=1)

    out = get_output(layer)
    wrt = [l_in.input_var, *layer.get_params()]
    f = function([l_in.input_var], [out, *grad(T.sum(out ** 2), wrt)], backend=backend)
    found, d_x, *d_params = f(x)
    np.testing.assert_allclose(found, expected(x), rtol=1e-9, atol=1e-12)
    move = 1e-6 * RNG.standard_normal(x.shape)
    slope = (np.sum(expected(x + move) ** 2) - np.sum(expected(x - move) ** 2)) / 2
    np.testing.assert_allclose(np.sum(d_x * move), slope, rtol=1e-5, atol=1e-12)
    for p, d in zip(layer.get_params(), d_params, strict=True):
        old, move, costs = p.get_value(), 1e-6 * RNG.standard_normal(d.shape), []
        for sign in (1, -1):
            p.set_value(old + sign * move)
            costs.append(np.sum(expected(x) ** 2))
        p.set_value(old)
        np.testing.assert_allclose(
            np.sum(d * move), (costs[0] - costs[1]) / 2, rtol=1e-5, atol=1e-12, err_msg=p.name)


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
@pytest.mark.parametrize("early", [True, False])
def test_dropout_draws_anew_at_every_step(early, backend):
    """Of ones half is doubled, half is 0; the gradient comes through what was kept."""
    l_in = InputLayer((None, None, 20))
    layer = CustomRecurrentLayer(
        l_in, dropout(InputLayer((None, 20)), 0.5),
        DenseLayer(InputLayer((None, 20)), 20, np.zeros((20, 20))), precompute_input=early)
    x = np.ones((4, 6, 20))
    out = get_output(layer)
    f = function([l_in.input_var], [out, grad(T.sum(out), l_in.input_var)], backend=backend)
    (first, d_first), (second, _) = f(x), f(x)
    assert set(np.unique(first)) == {0, 2} and 0.35 < np.mean(first == 0) < 0.65
    steps = first.transpose(1, 0, 2).reshape(6, -1)
    assert len(np.unique(steps, axis=0)) == 6 and np.any(first != second)
    np.testing.assert_array_equal(d_first, first)
    still = get_output(layer, deterministic=True)
    np.testing.assert_array_equal(function([l_in.input_var], still, backend=backend)(x), x)


@pytest.mark.parametrize("early", [True, False])
def test_dropout_of_the_state(early):
    """Other units at every step: h = x + 2 kept h'."""
    l_in = InputLayer((None, None, 50))
    layer = CustomRecurrentLayer(
        l_in, InputLayer((None, 50)), dropout(InputLayer((None, 50)), 0.5),
        precompute_input=early, nonlinearity=None)
    out = ref.run([l_in.input_var], get_output(layer), np.ones((2, 5, 50)))
    before = np.concatenate([np.zeros((2, 1, 50)), out[:, :-1]], axis=1)
    kept = (out - 1)[:, 1:] / before[:, 1:]
    assert set(np.unique(kept)) == {0, 2}
    assert len(np.unique(kept.transpose(1, 0, 2).reshape(4, -1), axis=0)) == 4
