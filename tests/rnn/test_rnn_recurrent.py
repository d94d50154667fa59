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
    NonlinearityLayer,
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


def test_outputs_of_layers_must_be_given_to_initial_states():
    layer = GRULayer((None, None, 2), 4, hid_init=InputLayer((None, 4)))
    assert layer.initial_states(3, [T.matrix("h")])[0].ndim == 2
    with pytest.raises(ValueError, match="hid_init is <InputLayer .*must be given"):
        layer.initial_states(3)


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


def test_initial_state_from_a_number():
    for number in (1, 0.25, np.float32(0.25)):
        layer = GRULayer((None, None, 2), 4, hid_init=number)
        assert np.all(layer.hid_init.get_value() == number)
        assert layer.hid_init.get_value().shape == (1, 4)


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("kind", ["shared", "expression", "input", "one row"])
def test_initial_state_with_a_row_for_each_sequence(kind, batch, backend):
    rows = RNG.standard_normal((1 if kind == "one row" else 3, 4))
    h = T.matrix("h")
    given = {"shared": shared(rows), "expression": shared(rows / 2) * 2, "input": h,
             "one row": T.addbroadcast(h, 0)}[kind]
    l_in = InputLayer((batch, None, 2))
    layer = GRULayer(l_in, 4, hid_init=given)
    inputs, arrays = [l_in.input_var], [X]
    if kind in ("input", "one row"):
        inputs, arrays = [*inputs, h], [*arrays, rows]
    got = function(inputs, get_output(layer), backend=backend)(*arrays)
    for k in range(3):
        p = {**ref.values(layer), "hid_init": rows[k % len(rows)][None]}
        np.testing.assert_allclose(got[k], ref.gru(X[k], p), rtol=1e-10)


def test_one_row_in_the_call_is_refused_where_there_was_one_for_each_sequence():
    h, l_in = T.matrix("h"), InputLayer((None, None, 2))
    f = function([l_in.input_var, h], get_output(GRULayer(l_in, 4, hid_init=h)))
    with pytest.raises(ValueError, match=r"axis 0 of h .* is 1, but 3 is needed.*T.addbroadcast"):
        f(X, np.zeros((1, 4)))


@pytest.mark.parametrize(("init", "text"), [
    (np.zeros(4), r"hid_init must have shape \(1, 4\), but the array given has \(4,\)"),
    (np.zeros((3, 4)), r"hid_init must have shape \(1, 4\)"),
    (shared(np.zeros((2, 4)), "h"), r"hid_init is h .* with 2 rows; .* or 3, one for each"),
    (shared(np.zeros((3, 5)), "h"), r"hid_init must have shape \(3, 4\), but h .* has \(3, 5\)"),
    (T.vector("h"), r"hid_init must have shape \(1, 4\)"),
    (InputLayer((3, 5)), r"hid_init is .* of shape \(3, 5\), .* must be \(3, 4\)"),
    (InputLayer((2, 4)), r"hid_init is .* of shape \(2, 4\), .* must be \(3, 4\)"),
    (InputLayer((3,)), r"hid_init is .* of shape \(3,\)"),
])
def test_initial_states_that_do_not_fit(init, text):
    with pytest.raises(ValueError, match=text):
        LSTMLayer((3, None, 2), 4, hid_init=init)
    with pytest.raises(ValueError, match=text.replace("hid", "cell")):
        LSTMLayer((3, None, 2), 4, cell_init=init)


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
def test_state_carried_from_batch_to_batch(backend):
    h, c = (shared(np.zeros((3, 4)), name) for name in "hc")
    l_in = InputLayer((3, None, 2))
    layer = LSTMLayer(l_in, 4, hid_init=h, cell_init=c)
    hs, cs = layer.get_states_for([l_in.input_var])
    f = function([l_in.input_var], hs, updates=[(h, hs[:, -1]), (c, cs[:, -1])], backend=backend)
    got = np.concatenate([f(X[:, :2]), f(X[:, 2:3]), f(X[:, 3:])], axis=1)
    p = {**ref.values(layer), "hid_init": np.zeros((1, 4)), "cell_init": np.zeros((1, 4))}
    np.testing.assert_allclose(got, ref.batch(ref.lstm, X, p), rtol=1e-10)


def test_states_of_backward_walks_and_final_ones():
    for back in (False, True):
        l_in, layer = build(LSTMLayer, backwards=back)
        _, final = build(LSTMLayer, backwards=back, only_return_final=True)
        v = l_in.input_var
        every, last = (ref.run([v], each.get_states_for([v]), X) for each in (layer, final))
        for a, b in zip(every, last, strict=True):
            np.testing.assert_array_equal(a[:, 0 if back else -1], b)
        np.testing.assert_array_equal(every[0], output(l_in, layer))


@pytest.mark.parametrize(("make", "cell"), CELLS)
def test_one_step_after_another(make, cell):
    l_in, layer = build(make, (None, None, 2, 1))
    row, states = T.tensor3("row"), layer.initial_states(3)
    variables = [T.matrix(name) for name in layer.state_names]
    advance = function([row, *variables], layer.advance(row, variables))
    now = ref.run([], states)
    expected = ref.batch(cell, X, ref.values(layer))
    for t in range(5):
        now = advance(X[:, t, :, None], *now)
        np.testing.assert_allclose(now[0], expected[:, t], rtol=1e-10)


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


def dense(rows: Any, inputs: int, units: int) -> DenseLayer:
    return DenseLayer(InputLayer((rows, inputs)), units)


@pytest.mark.parametrize(("to_hidden", "between", "options", "text"), [
    (dense(None, 3, 4), dense(None, 4, 4), {}, r"input_to_hidden takes shape \(None, 3\).*6, 2\)"),
    (dense(None, 2, 3), dense(None, 4, 4), {}, r"input_to_hidden gives shape \(None, 3\).*6, 4\)"),
    (dense(None, 2, 3), dense(None, 4, 3), {}, r"hidden_to_hidden takes shape \(None, 4\).*2, 3\)"),
    (dense(2, 2, 4), dense(None, 4, 4), {}, r"takes shape \(2, 2\).*=True.*\(6, 2\), \(batch \*"),
    (dense(6, 2, 4), dense(None, 4, 4), {"precompute_input": False},
     r"takes shape \(6, 2\).*=False.*\(2, 2\), \(batch, ...\)"),
    (dense(None, 2, 4), dense(7, 4, 4), {}, r"hidden_to_hidden takes shape \(7, 4\).*\(2, 4\)"),
    (dense(None, 2, 4), dense(6, 4, 4), {"precompute_input": False},
     r"hidden_to_hidden takes shape \(6, 4\).*\(2, 4\), \(batch, ...\)"),
    (dense(None, 2, 4), NonlinearityLayer(InputLayer((None, None))), {},
     r"hidden_to_hidden gives shape \(None, None\), but the sizes of a state .* must be known"),
])
def test_custom_networks_that_do_not_fit(to_hidden, between, options, text):
    with pytest.raises(ValueError, match=text):
        CustomRecurrentLayer((2, 3, 2), to_hidden, between, **options)


@pytest.mark.parametrize(("shape", "rows", "early"), [
    ((3, 5, 2), 15, True), ((3, 5, 2), 3, False), ((None, 5, 2), 15, True),
    ((3, 5, 2), None, True)])
def test_custom_networks_of_known_batch(shape, rows, early):
    l_in = InputLayer(shape)
    layer = CustomRecurrentLayer(l_in, dense(rows, 2, 4), dense(shape[0], 4, 4),
                                 precompute_input=early)
    assert output(l_in, layer).shape == (3, 5, 4) and layer.output_shape == (*shape[:2], 4)


def test_a_custom_network_may_begin_with_the_shape_that_the_other_gives():
    """As in the documents' example, here with a batch that is known: rows are batch * time."""
    l_in = InputLayer((3, 5, 2))
    to_hidden = dense(15, 2, 4)
    between = DenseLayer(InputLayer(to_hidden.output_shape), 4)
    layer = CustomRecurrentLayer(l_in, to_hidden, between)
    free = CustomRecurrentLayer(
        l_in, to_hidden, DenseLayer(InputLayer((None, 4)), 4, W=between.W, b=between.b))
    assert between.output_shape == (15, 4) and layer.output_shape == (3, 5, 4)
    np.testing.assert_array_equal(output(l_in, layer), output(l_in, free))


@pytest.mark.parametrize(("early", "products"), [(True, 1), (False, 2)])
def test_precompute_input_false_keeps_the_product_in_the_loop(early, products):
    """Fewer bytes, more time: the input products of all steps are not kept."""
    x = T.tensor3("x")
    layer = LSTMLayer((None, None, 3), 4, precompute_input=early)
    f = function([x], layer.get_output_for([x]), backend="loops")
    assert [loop.step.products for loop in f.report().loops] == [products]
    assert "LSTMLayer" in f.report().loops[0].title
