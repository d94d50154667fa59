"""A padded batch gives what its sequences give one by one, in both directions."""

from __future__ import annotations

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import function, grad
from tinygraph_rnn.layers import (
    ElemwiseSumLayer,
    GRULayer,
    InputLayer,
    LSTMLayer,
    RecurrentLayer,
    get_all_params,
    get_output,
)

LENGTHS = (5, 2, 4, 1)
RNG = np.random.default_rng(3)
X = RNG.standard_normal((4, 5, 2))
MASK = (np.arange(5) < np.array(LENGTHS)[:, None]).astype(float)
WEIGHTS = RNG.standard_normal((4, 5, 3)) * MASK[:, :, None]


def build(make, masked=True, **options):
    l_in, l_mask = InputLayer((None, None, 2)), InputLayer((None, None))
    layer = make(l_in, 3, mask_input=l_mask if masked else None, learn_init=True, **options)
    ref.randomise(layer)
    return l_in, l_mask, layer


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("make", [LSTMLayer, GRULayer, RecurrentLayer])
def test_padding_changes_neither_outputs_nor_gradients(make, backwards):
    l_in, l_mask, layer = build(make, backwards=backwards)
    params = get_all_params(layer, trainable=True)
    weights = T.tensor3("weights")
    out = get_output(layer)
    wrt = [l_in.input_var, *params]
    cost = T.sum(out * weights)
    f = function([l_in.input_var, weights, l_mask.input_var], [out, *grad(cost, wrt)])
    got, dx, *dparams = f(X, WEIGHTS, MASK)

    alone_in, _, alone = build(make, masked=False, backwards=backwards)
    alone_params = get_all_params(alone, trainable=True)
    out = get_output(alone)
    cost = T.sum(out * weights)
    single = function([alone_in.input_var, weights],
                      [out, *grad(cost, [alone_in.input_var, *alone_params])])
    totals = [np.zeros(p.get_value().shape) for p in params]
    for k, n in enumerate(LENGTHS):
        one, one_dx, *one_dparams = single(X[k:k + 1, :n], WEIGHTS[k:k + 1, :n])
        np.testing.assert_allclose(got[k, :n], one[0], rtol=1e-12)
        np.testing.assert_allclose(dx[k, :n], one_dx[0], rtol=1e-10, atol=1e-14)
        assert np.all(dx[k, n:] == 0)
        for total, g in zip(totals, one_dparams, strict=True):
            total += g
    for g, total in zip(dparams, totals, strict=True):
        np.testing.assert_allclose(g, total, rtol=1e-10, atol=1e-14)


def test_padding_keeps_the_state():
    l_in, l_mask, layer = build(LSTMLayer)
    got = ref.run([l_in.input_var, l_mask.input_var], get_output(layer), X, MASK)
    for k, n in enumerate(LENGTHS):
        assert np.all(got[k, n:] == got[k, n - 1])


def test_final_state_of_padded_sequences():
    l_in, l_mask, layer = build(GRULayer, only_return_final=True)
    got = ref.run([l_in.input_var, l_mask.input_var], get_output(layer), X, MASK)
    p = ref.values(layer)
    expected = [ref.gru(X[k, :n], p)[-1] for k, n in enumerate(LENGTHS)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_both_directions_summed():
    l_in, l_mask, forward = build(LSTMLayer)
    back = LSTMLayer(l_in, 3, mask_input=l_mask, backwards=True)
    ref.randomise(back, seed=1)
    both = ElemwiseSumLayer([forward, back])
    got = ref.run([l_in.input_var, l_mask.input_var], get_output(both), X, MASK)
    for k, n in enumerate(LENGTHS):
        expected = (ref.lstm(X[k, :n], ref.values(forward))
                    + ref.lstm(X[k, :n][::-1], ref.values(back))[::-1])
        np.testing.assert_allclose(got[k, :n], expected, rtol=1e-12)


def test_a_mask_of_another_size_is_refused():
    l_in, l_mask, layer = build(LSTMLayer)
    f = function([l_in.input_var, l_mask.input_var], get_output(layer))
    with pytest.raises(ValueError, match="6"):
        f(X, np.ones((4, 6)))
