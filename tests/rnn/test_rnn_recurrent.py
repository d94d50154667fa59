"""Recurrent layers against NumPy: values, gradients, and every way to start and to end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import config, function, grad, shared
from tinygraph_rnn import init, nonlinearities
from tinygraph_rnn.layers import (
    CustomRecurrentLayer,
    DenseLayer,
    Gate,
    GRULayer,
    InputLayer,
    LSTMLayer,
    RecurrentLayer,
    get_all_params,
    get_output,
    get_output_shape,
)

RNG = np.random.default_rng(7)
X = RNG.standard_normal((3, 5, 2))


def make_rnn(*args: Any, **kwargs: Any) -> RecurrentLayer:
    return RecurrentLayer(*args, nonlinearity=nonlinearities.tanh, **kwargs)


CELLS = [
    pytest.param(LSTMLayer, ref.lstm, id="lstm"),
    pytest.param(GRULayer, ref.gru, id="gru"),
    pytest.param(make_rnn, ref.rnn, id="rnn"),
]


def build(make: Any, shape: tuple[int | None, ...] = (None, None, 2), units: int = 4,
          **kwargs: Any) -> tuple[Any, Any]:
    l_in = InputLayer(shape)
    layer = make(l_in, units, **kwargs)
    ref.randomise(layer)
    return l_in, layer


def output(l_in: Any, layer: Any, x: np.ndarray = X) -> np.ndarray:
    return ref.run([l_in.input_var], get_output(layer), x)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("make", "cell"), CELLS)
def test_outputs_equal_numpy(make, cell, backwards):
    l_in, layer = build(make, backwards=backwards)
    expected = ref.batch(cell, X, ref.values(layer), backwards)
    np.testing.assert_allclose(output(l_in, layer), expected, rtol=1e-12)
    assert layer.output_shape == (None, None, 4)


@pytest.mark.parametrize(("make", "cell"), CELLS)
def test_gradient_equals_differences_of_numpy(make, cell):
    l_in, layer = build(make, learn_init=True)
    weights = RNG.standard_normal((3, 5, 4))
    cost = T.sum(get_output(layer) * weights)
    params = get_all_params(layer, trainable=True)
    found = ref.run([l_in.input_var], grad(cost, [*params, l_in.input_var]), X)

    def reference(x: np.ndarray) -> float:
        return float(np.sum(weights * ref.batch(cell, x, ref.values(layer))))

    for param, g in zip(params, found[:-1], strict=True):
        old, d, eps = param.get_value(), RNG.standard_normal(g.shape), 1e-5
        param.set_value(old + eps * d)
        up = reference(X)
        param.set_value(old - eps * d)
        down = reference(X)
        param.set_value(old)
        np.testing.assert_allclose(np.sum(g * d), (up - down) / (2 * eps), rtol=1e-6, atol=1e-8)
    d = RNG.standard_normal(X.shape)
    slope = (reference(X + 1e-5 * d) - reference(X - 1e-5 * d)) / 2e-5
    np.testing.assert_allclose(np.sum(found[-1] * d), slope, rtol=1e-6)


@pytest.mark.parametrize("option", [
    {"precompute_input": False}, {"unroll_scan": True}, {"grad_clipping": 100.0}],
    ids=lambda o: next(iter(o)))
@pytest.mark.parametrize(("make", "cell"), CELLS)
def test_options_that_do_not_change_the_output(make, cell, option):
    l_in, layer = build(make, (None, 5, 2), **option)
    np.testing.assert_allclose(
        output(l_in, layer), ref.batch(cell, X, ref.values(layer)), rtol=1e-12)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("make", "cell"), CELLS)
def test_only_return_final(make, cell, backwards):
    l_in, layer = build(make, only_return_final=True, backwards=backwards)
    every = ref.batch(cell, X, ref.values(layer), backwards)
    np.testing.assert_allclose(output(l_in, layer), every[:, 0 if backwards else -1], rtol=1e-12)
    assert layer.output_shape == (None, 4)


@pytest.mark.parametrize("shape", [(1, 1, 1), (None, None, 1), (1, None, 1)])
@pytest.mark.parametrize(("make", "cell"), CELLS)
def test_one_unit_one_sequence_one_step(make, cell, shape):
    l_in, layer = build(make, shape, units=1, learn_init=True)
    x = np.array([[[0.3]]])
    np.testing.assert_allclose(
        output(l_in, layer, x), ref.batch(cell, x, ref.values(layer)), rtol=1e-12)
    params = get_all_params(layer, trainable=True)
    grads = ref.run([l_in.input_var], grad(T.sum(get_output(layer)), params), x)
    assert [g.shape for g in grads] == [p.get_value().shape for p in params]


@pytest.mark.parametrize("shape", [(1, 1, 1), (None, None, 1)])
def test_one_unit_with_shared_variables_that_do_not_broadcast(shape):
    matrix, vector, start = shared([[0.7]]), shared([0.2]), shared([[0.1]])
    gate = Gate(matrix, matrix, vector, vector)
    l_in, l_mask = InputLayer(shape), InputLayer((None, None))
    layer = LSTMLayer(l_in, 1, gate, hid_init=start, mask_input=l_mask, grad_clipping=1.0)
    x = np.array([[[0.3]]])
    cost = T.sum(get_output(layer))
    f = function([l_in.input_var, l_mask.input_var],
                 [get_output(layer), grad(cost, matrix)])
    out, g = f(x, np.ones((1, 1)))
    np.testing.assert_allclose(out, ref.batch(ref.lstm, x, ref.values(layer)), rtol=1e-12)
    assert g.shape == (1, 1) and g != 0


def test_float32():
    with config.change(floatX="float32"):
        l_in, layer = build(LSTMLayer, grad_clipping=100.0)
        x = X.astype("float32")
        cost = T.mean(get_output(layer) ** 2)
        out, *grads = ref.run(
            [l_in.input_var], [get_output(layer), *grad(cost, get_all_params(layer))], x)
        assert {a.dtype for a in (out, *grads)} == {np.dtype("float32")}
        np.testing.assert_allclose(
            out, ref.batch(ref.lstm, x, ref.values(layer)), rtol=1e-4, atol=1e-6)


def test_one_function_serves_all_sizes():
    l_in, layer = build(LSTMLayer)
    f = function([l_in.input_var], get_output(layer))
    for shape in ((1, 1, 2), (4, 3, 2), (2, 9, 2)):
        x = RNG.standard_normal(shape)
        np.testing.assert_allclose(f(x), ref.batch(ref.lstm, x, ref.values(layer)), rtol=1e-12)


def test_trailing_feature_axes_are_flattened():
    l_in, layer = build(LSTMLayer, (None, None, 3, 2))
    x = RNG.standard_normal((2, 4, 3, 2))
    expected = ref.batch(ref.lstm, x.reshape(2, 4, 6), ref.values(layer))
    np.testing.assert_allclose(output(l_in, layer, x), expected, rtol=1e-12)


def test_lstm_without_peepholes_ignores_w_cell():
    l_in, layer = build(LSTMLayer, peepholes=False)
    assert layer.W_cell_to_ingate is None
    assert len(get_all_params(layer)) == 14
    np.testing.assert_allclose(
        output(l_in, layer), ref.batch(ref.lstm, X, ref.values(layer)), rtol=1e-12)


def test_gate_without_bias_or_peephole():
    bare = Gate(W_cell=None, b=None)
    l_in, layer = build(LSTMLayer, ingate=bare)
    assert layer.b_ingate is None and layer.W_cell_to_ingate is None
    np.testing.assert_allclose(
        output(l_in, layer), ref.batch(ref.lstm, X, ref.values(layer)), rtol=1e-12)


def test_initial_states_from_layers():
    l_in, l_hid, l_cell = InputLayer((None, None, 2)), InputLayer((None, 4)), InputLayer((None, 4))
    layer = LSTMLayer(l_in, 4, hid_init=l_hid, cell_init=l_cell)
    ref.randomise(layer)
    h, c = RNG.standard_normal((2, 3, 4))
    got = ref.run([l_in.input_var, l_hid.input_var, l_cell.input_var], get_output(layer), X, h, c)
    for k in range(3):
        p = {**ref.values(layer), "hid_init": h[k:k + 1], "cell_init": c[k:k + 1]}
        np.testing.assert_allclose(got[k], ref.lstm(X[k], p), rtol=1e-12)
    assert len(get_all_params(layer)) == 15


def test_initial_state_from_array_shared_and_expression():
    start = RNG.standard_normal((1, 4))
    held = shared(start)
    half = shared(start / 2)
    for spec in (start, held, half * 2):
        l_in = InputLayer((None, None, 2))
        layer = GRULayer(l_in, 4, hid_init=spec)
        p = {**ref.values(layer), "hid_init": start}
        np.testing.assert_allclose(output(l_in, layer), ref.batch(ref.gru, X, p), rtol=1e-12)
    assert half in layer.get_params() and half not in layer.get_params(unwrap_shared=False)


def test_gradient_steps_cut_the_gradient():
    l_in, layer = build(make_rnn, gradient_steps=2)
    cost = T.sum(get_output(layer)[:, -1])
    g = ref.run([l_in.input_var], grad(cost, l_in.input_var), X)
    assert np.all(g[:, :3] == 0) and np.all(g[:, 3:] != 0)


def test_grad_clipping_bounds_what_comes_back():
    l_in = InputLayer((None, None, 2))
    layer = make_rnn(l_in, 4, W_in_to_hid=np.ones((2, 4)), grad_clipping=0.5)
    cost = 1000 * T.sum(get_output(layer)[:, -1])
    g = ref.run([l_in.input_var], grad(cost, l_in.input_var), X)
    # The input is read through W = 1 only: each of the 4 units sends back 0.5 at the most.
    np.testing.assert_allclose(g[:, -1], 2.0)


def test_lstm_clips_in_front_of_the_peepholes():
    l_in, layer = build(LSTMLayer, grad_clipping=1e-3)
    cost = 1e6 * T.sum(get_output(layer)[:, -1])
    g_bias, g_peep = ref.run(
        [l_in.input_var], grad(cost, [layer.b_outgate, layer.W_cell_to_outgate]), X)
    assert np.max(abs(g_bias)) <= 3 * 5 * 1e-3 + 1e-12
    assert np.max(abs(g_peep)) > 1


def test_custom_recurrence_equals_the_simple_network():
    l_in, layer = build(make_rnn)
    for early in (True, False):
        custom = CustomRecurrentLayer(
            l_in, DenseLayer(InputLayer((None, 2)), 4, layer.W_in_to_hid, layer.b, None),
            DenseLayer(InputLayer((None, 4)), 4, layer.W_hid_to_hid, None, None),
            nonlinearities.tanh, hid_init=layer.hid_init, precompute_input=early)
        np.testing.assert_allclose(output(l_in, custom), output(l_in, layer), rtol=1e-12)
        assert set(custom.get_params()) == set(layer.get_params())


def test_parameters_their_order_and_tags():
    layer = LSTMLayer((None, None, 2), 3, name="l")
    gates = [f"l.{kind}_{gate}" if kind == "b" else f"l.{kind}_to_{gate}"
             for gate in ("ingate", "forgetgate", "cell", "outgate")
             for kind in ("W_in", "W_hid", "b")]
    peepholes = [f"l.W_cell_to_{gate}" for gate in ("ingate", "forgetgate", "outgate")]
    states = ["l.cell_init", "l.hid_init"]
    names = [p.name for p in layer.get_params()]
    assert names == gates + peepholes + states
    assert [p.name for p in layer.get_params(trainable=True)] == gates + peepholes
    assert [p.name for p in layer.get_params(regularizable=False)] == [
        *(n for n in gates if ".b_" in n), *states]
    learnt = LSTMLayer((None, None, 2), 3, name="l", learn_init=True)
    assert [p.name for p in learnt.get_params(trainable=True)] == names


def test_parameter_shapes_and_defaults():
    layer = LSTMLayer((None, None, 2), 3, forgetgate=Gate(b=init.Constant(5.0)))
    shapes = {k: v.shape for k, v in ref.values(layer).items()}
    assert shapes["W_in_to_ingate"] == (2, 3) and shapes["W_hid_to_cell"] == (3, 3)
    assert shapes["W_cell_to_outgate"] == (3,) and shapes["cell_init"] == (1, 3)
    assert np.all(layer.b_forgetgate.get_value() == 5) and np.all(layer.b_ingate.get_value() == 0)
    assert np.any(layer.W_in_to_ingate.get_value() != layer.W_in_to_outgate.get_value())


def test_output_shapes():
    l_in = InputLayer((7, 8, 2))
    layer = GRULayer(l_in, 3)
    assert layer.output_shape == (7, 8, 3)
    assert get_output_shape(layer, (1, 2, 2)) == (1, 2, 3)
    assert GRULayer(l_in, 3, only_return_final=True).output_shape == (7, 3)


@pytest.mark.parametrize(("shape", "options", "text"), [
    ((None, 5, 2), {"unroll_scan": True, "gradient_steps": 3}, "gradient_steps is 3"),
    ((None, None, 2), {"unroll_scan": True}, "is not known"),
    ((None, 5, 2), {"gradient_steps": 0}, "gradient_steps is 0"),
    ((None, 5, 2), {"grad_clipping": -1}, "grad_clipping is -1"),
    ((None, 5), {}, "needs an input of shape"),
    ((None, 5, None), {}, "number of its input features"),
    ((None, 5, 2), {"mask_input": InputLayer((None, 4))}, "mask has shape"),
    ((None, 5, 2), {"hid_init": np.zeros((2, 4))}, "must have shape"),
])
@pytest.mark.parametrize("make", [LSTMLayer, GRULayer, RecurrentLayer])
def test_what_is_refused(make, shape, options, text):
    with pytest.raises(ValueError, match=text):
        make(InputLayer(shape), 4, **options)


def test_custom_networks_that_do_not_fit():
    l_in = InputLayer((None, None, 2))
    four = DenseLayer(InputLayer((None, 4)), 4)
    with pytest.raises(ValueError, match="input_to_hidden takes"):
        CustomRecurrentLayer(l_in, DenseLayer(InputLayer((None, 3)), 4), four)
    with pytest.raises(ValueError, match="input_to_hidden gives"):
        CustomRecurrentLayer(l_in, DenseLayer(InputLayer((None, 2)), 3), four)
    with pytest.raises(ValueError, match="hidden_to_hidden takes"):
        CustomRecurrentLayer(l_in, DenseLayer(InputLayer((None, 2)), 3),
                             DenseLayer(InputLayer((None, 4)), 3))


@pytest.mark.parametrize(("early", "products"), [(True, 1), (False, 2)])
def test_precompute_input_false_keeps_the_product_in_the_loop(early, products):
    """Fewer bytes, more time: the input products of all steps are not kept."""
    x = T.tensor3("x")
    layer = LSTMLayer((None, None, 3), 4, precompute_input=early)
    f = function([x], layer.get_output_for([x]), backend="loops")
    assert [loop.step.products for loop in f.report().loops] == [products]
    assert "LSTMLayer" in f.report().loops[0].title
