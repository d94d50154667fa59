"""A padded batch gives what its sequences give one by one, in both directions; all masks."""

from __future__ import annotations

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import config, function, grad
from tinygraph_rnn.layers import (
    ElemwiseSumLayer,
    GRULayer,
    InputLayer,
    LSTMLayer,
    RecurrentLayer,
    SliceLayer,
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


# --- masks of every kind --------------------------------------------------------------------------

LAYERS = [LSTMLayer, GRULayer, RecurrentLayer]


def masked(make, variable=None, mask_shape=(None, None), **options):
    """A function from sequence and mask to output, and the layer."""
    l_in, l_mask = InputLayer((None, None, 2)), InputLayer(mask_shape, variable)
    layer = make(l_in, 3, mask_input=l_mask, **options)
    ref.randomise(layer)
    return function([l_in.input_var, l_mask.input_var], get_output(layer)), layer


@pytest.mark.parametrize("dtype", ["bool", "int8", "int32", "int64", "uint8", "float32"])
def test_masks_of_every_dtype(dtype):
    expected, _ = masked(LSTMLayer)
    f, _ = masked(LSTMLayer, T.TensorType(dtype, (False, False))("mask"))
    np.testing.assert_array_equal(f(X, MASK.astype(dtype)), expected(X, MASK))


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("make", LAYERS)
def test_steps_left_out_anywhere(make, backwards, backend):
    """Padding in front and gaps: the steps that count are walked as if there were no others."""
    mask = np.array([[0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]], float)
    with config.change(backend=backend):
        f, layer = masked(make, backwards=backwards)
        got = f(X, mask)
    alone = make((None, None, 2), 3, backwards=backwards)
    for p, q in zip(alone.get_params(), layer.get_params(), strict=True):
        p.set_value(q.get_value())
    x = T.tensor3("x")
    single = function([x], alone.get_output_for([x]))
    for k, row in enumerate(mask):
        steps = np.flatnonzero(row)
        np.testing.assert_allclose(got[k, steps], single(X[k:k + 1, steps])[0], rtol=1e-12)
        order = range(5)[::-1] if backwards else range(5)
        state = layer.hid_init.get_value()[0]
        for t in order:  # a step left out repeats what was before it
            if not row[t]:
                np.testing.assert_array_equal(got[k, t], state)
            state = got[k, t]


@pytest.mark.parametrize("make", LAYERS)
def test_a_sequence_of_padding_only_is_its_initial_state(make):
    mask = MASK.copy()
    mask[1] = 0
    l_in, l_mask, layer = build(make)
    out = get_output(layer)
    wrt = [l_in.input_var, layer.hid_init, *get_all_params(layer, regularizable=True)]
    weights = np.zeros((4, 5, 3))
    weights[1] = WEIGHTS[0]
    f = function([l_in.input_var, l_mask.input_var], [out, *grad(T.sum(out * weights), wrt)])
    got, d_x, d_init, *others = f(X, mask)
    np.testing.assert_array_equal(got[1], np.repeat(layer.hid_init.get_value(), 5, axis=0))
    np.testing.assert_allclose(d_init, WEIGHTS[0].sum(0, keepdims=True), rtol=1e-12)
    assert all(np.all(g == 0) for g in (d_x, *others))


@pytest.mark.parametrize("make", LAYERS)
def test_what_stands_in_the_padding_is_not_read(make):
    f, _ = masked(make)
    x = np.where(MASK[:, :, None] == 0, np.nan, X)
    np.testing.assert_array_equal(f(x, MASK), f(X, MASK))
    x = np.where(MASK[:, :, None] == 0, 1e300, X)
    np.testing.assert_array_equal(f(x, MASK), f(X, MASK))


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
@pytest.mark.parametrize("make", LAYERS)
def test_final_state_of_padded_sequences_backwards(make, backend):
    """Backwards the padding comes first: the final state is that behind the first step."""
    with config.change(backend=backend):
        f, layer = masked(make, backwards=True, only_return_final=True)
        every, twin = masked(make, backwards=True)
        for p, q in zip(twin.get_params(), layer.get_params(), strict=True):
            p.set_value(q.get_value())
        np.testing.assert_allclose(f(X, MASK), every(X, MASK)[:, 0], rtol=1e-12)
        shorter = every(X[1:2, :2], MASK[1:2, :2])
        np.testing.assert_allclose(f(X, MASK)[1], shorter[0, 0], rtol=1e-12)


@pytest.mark.parametrize("shape", [(None, None), (4, None), (None, 5), (4, 5)])
def test_masks_of_known_sizes(shape):
    expected, _ = masked(GRULayer)
    f, _ = masked(GRULayer, mask_shape=shape)
    np.testing.assert_array_equal(f(X, MASK), expected(X, MASK))


def test_a_mask_may_be_computed_by_layers():
    """The second feature says whether a step counts."""
    l_in = InputLayer((None, None, 2))
    layer = LSTMLayer(l_in, 3, mask_input=SliceLayer(l_in, 1, axis=2))
    ref.randomise(layer)
    x = X.copy()
    x[:, :, 1] = MASK
    got = function([l_in.input_var], get_output(layer))(x)
    for k, n in enumerate(LENGTHS):
        np.testing.assert_allclose(got[k, :n], ref.lstm(x[k, :n], ref.values(layer)), rtol=1e-12)


def test_one_mask_for_a_stack_of_layers():
    l_in, l_mask = InputLayer((None, None, 2)), InputLayer((None, None))
    first = LSTMLayer(l_in, 3, mask_input=l_mask)
    second = GRULayer(first, 4, mask_input=l_mask, backwards=True)
    ref.randomise(second)
    got = ref.run([l_in.input_var, l_mask.input_var], get_output(second), X, MASK)
    for k, n in enumerate(LENGTHS):
        hidden = ref.lstm(X[k, :n], ref.values(first))
        np.testing.assert_allclose(
            got[k, :n], ref.gru(hidden[::-1], ref.values(second))[::-1], rtol=1e-10)
