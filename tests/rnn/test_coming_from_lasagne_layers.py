"""The points of docs/coming-from-lasagne.md that tell of layers and recurrent layers."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as lasagne
from tinygraph import config
from tinygraph_rnn import init, layers, nonlinearities
from tinygraph_rnn.layers import (
    DenseLayer,
    GRULayer,
    InputLayer,
    LSTMLayer,
    RecurrentLayer,
    get_all_params,
    get_output,
)


def evaluate(expression, given=None):
    given = given or {}
    return tinygraph.function(list(given), expression)(*given.values())


def values(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape)


# --- layers --------------------------------------------------------------------------------------


def test_01_incoming_is_a_layer_or_a_shape():
    free = DenseLayer((None, 3), 2, W=np.ones((3, 2)))
    assert free.input_layer is None and free.output_shape == (None, 2)
    assert DenseLayer(free, 4).input_layer is free
    x = T.matrix()
    assert evaluate(free.get_output_for(x), {x: np.ones((1, 3))}).tolist() == [[3, 3]]


def test_02_an_input_variable_has_the_sizes_given():
    l_in = InputLayer((2, None))
    assert l_in.input_var.dtype == config.floatX
    f = tinygraph.function([l_in.input_var], get_output(l_in) * 2)
    assert f(np.ones((2, 7))).shape == (2, 7)
    with pytest.raises(TypeError, match=r"shape \(3, 7\), whose axis 0 must have size 2"):
        f(np.ones((3, 7)))
    x = T.matrix()
    f = tinygraph.function([x], get_output(InputLayer((2, None), x)) * 2)
    assert f(np.ones((3, 7))).shape == (3, 7)


def test_03_what_describes_a_parameter():
    given = tinygraph.shared(np.ones((3, 2)))
    base = tinygraph.shared(np.ones((2, 3)), name="base")
    for spec in (2.0 * np.ones((3, 2)), init.Normal(), given, base.T):
        assert DenseLayer((None, 3), 2, W=spec).W.ndim == 2
    assert given.name == "W" and base.name == "base"
    assert get_all_params(DenseLayer((None, 3), 2, W=base.T, b=None)) == [base]
    assert lasagne.utils.create_param(init.Constant(1), (1, 4)).broadcastable == (True, False)
    assert lasagne.utils.create_param(2, ()).get_value() == 2
    with config.change(floatX="float32"):
        assert DenseLayer((None, 3), 2, W=np.ones((3, 2))).W.dtype == "float32"
    with pytest.raises(ValueError, match=r"must have shape \(4, 2\), but .* has \(3, 2\)"):
        DenseLayer((None, 4), 2, W=given)


def test_04_names_and_tags():
    layer = DenseLayer((None, 3), 2, name="hidden")
    assert (layer.W.name, layer.b.name) == ("hidden.W", "hidden.b")
    assert DenseLayer((None, 3), 2).W.name == "W"
    assert layer.params == {layer.W: {"trainable", "regularizable"}, layer.b: {"trainable"}}


def test_05_a_layer_of_ones_own():
    class DotLayer(layers.Layer):
        def __init__(self, incoming, num_units, W=init.Normal(0.01), **kwargs):  # noqa: B008
            super().__init__(incoming, **kwargs)
            self.num_units = num_units
            self.W = self.add_param(W, (self.input_shape[1], num_units), name="W")

        def get_output_for(self, input, scale=1, **kwargs):
            return scale * T.dot(input, self.W)

        def get_output_shape_for(self, input_shape):
            return (input_shape[0], self.num_units)

    l_in = InputLayer((None, 3))
    layer = DotLayer(l_in, 2, W=np.ones((3, 2)), name="dot")
    assert layer.output_shape == (None, 2) and layer.W.name == "dot.W"
    out = get_output(layer, scale=5)
    assert evaluate(out, {l_in.input_var: np.ones((1, 3))}).tolist() == [[15, 15]]


def test_06_dense_layers_flatten():
    assert DenseLayer((2, 3, 4), 5).W.get_value().shape == (12, 5)
    layer = DenseLayer((2, 3, 4), 5, num_leading_axes=2)
    assert layer.W.get_value().shape == (4, 5) and layer.output_shape == (2, 3, 5)
    assert DenseLayer((2, 3, 4), 5, num_leading_axes=-1).output_shape == (2, 3, 5)


def test_07_filters_are_flipped_and_borders_left_out():
    x, w = T.tensor3(), np.array([[[1.0, 10.0]]])
    for flip, expected in ((True, [12, 23]), (False, [21, 32])):
        layer = layers.Conv1DLayer((1, 1, 3), 1, 2, W=w, b=None, flip_filters=flip)
        found = evaluate(layer.get_output_for(x), {x: np.array([[[1.0, 2, 3]]])})
        assert found.tolist() == [[expected]]
    assert layers.MaxPool1DLayer((1, 1, 5), 2).output_shape == (1, 1, 2)
    assert layers.MaxPool1DLayer((1, 1, 5), 2, ignore_border=False).output_shape == (1, 1, 3)


def test_08_batch_norm():
    l_in = InputLayer((None, 3))
    dense = DenseLayer(l_in, 2, nonlinearity=nonlinearities.tanh, W=np.ones((3, 2)))
    last = layers.batch_norm(dense)
    assert dense.b is None and dense.nonlinearity is nonlinearities.identity
    assert last.nonlinearity is nonlinearities.tanh
    norm = last.input_layer
    x = values(5, 3)
    train = tinygraph.function([l_in.input_var], get_output(last))
    z = x @ np.ones((3, 2))
    expected = np.tanh((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-4))
    np.testing.assert_allclose(train(x), expected)
    np.testing.assert_allclose(norm.mean.get_value(), 0.1 * z.mean(0))
    test = tinygraph.function([l_in.input_var], get_output(last, deterministic=True))
    expected = np.tanh((z - norm.mean.get_value()) * norm.inv_std.get_value())
    np.testing.assert_allclose(test(x), expected)
    np.testing.assert_allclose(norm.mean.get_value(), 0.1 * z.mean(0))


def test_09_dropout():
    l_in = InputLayer((None, 100))
    dropped = layers.dropout(l_in, p=0.2)
    one, other = get_output(dropped), get_output(dropped)
    f = tinygraph.function([l_in.input_var], [one, other])
    a, b = f(np.ones((50, 100)))
    assert set(np.unique(a)) == {0, 1.25} and 0.95 < a.mean() < 1.05
    assert (a != b).any() and (f(np.ones((50, 100)))[0] != a).any()
    assert get_output(dropped, deterministic=True) is l_in.input_var


@pytest.mark.parametrize("build", [
    layers.ElemwiseSumLayer, lambda incoming: layers.ElemwiseMergeLayer(incoming, T.mul),
    lambda incoming: layers.ConcatLayer(incoming, axis=0)])
def test_10_shapes_that_do_not_fit(build):
    merged = build([InputLayer((2, 3)), InputLayer((2, 4))])
    with pytest.raises(ValueError, match="cannot be merged"):
        DenseLayer(merged, 5)


def test_11_softmax_is_over_the_last_axis():
    for ndim in (1, 2, 3):
        x = values(*(2, 3, 4)[:ndim])
        e = np.exp(x)
        np.testing.assert_allclose(nonlinearities.softmax(x).eval(), e / e.sum(-1, keepdims=True))


# --- recurrent layers ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LSTMLayer, GRULayer, RecurrentLayer])
def test_12_shapes(kind):
    l_in = InputLayer((None, None, 2, 3))
    layer = kind(l_in, 4)
    assert layer.output_shape == (None, None, 4)
    assert kind(l_in, 4, only_return_final=True).output_shape == (None, 4)
    out = evaluate(get_output(layer), {l_in.input_var: values(5, 6, 2, 3)})
    assert out.shape == (5, 6, 4)


@pytest.mark.parametrize("kind", [LSTMLayer, GRULayer, RecurrentLayer])
def test_13_masks(kind):
    l_in, l_mask = InputLayer((None, None, 3)), InputLayer((None, None))
    layer = kind(l_in, 2, mask_input=l_mask)
    f = tinygraph.function([l_in.input_var, l_mask.input_var], get_output(layer))
    x, mask = values(2, 4, 3), np.array([[1.0, 1, 0, 0], [1, 1, 1, 1]])
    out = f(x, mask)
    np.testing.assert_array_equal(out[0, 2], out[0, 1])
    np.testing.assert_array_equal(out[0, 3], out[0, 1])
    x[0, 2:] = 99
    np.testing.assert_array_equal(f(x, mask), out)
    np.testing.assert_allclose(f(x[:1, :2], mask[:1, :2])[0, -1], out[0, -1])


def test_14_backwards():
    l_in = InputLayer((None, None, 3))
    forward = LSTMLayer(l_in, 2)
    x = values(1, 4, 3)
    shared = dict(zip("WUb", get_all_params(forward), strict=False))
    assert len(shared) == 3
    backward = LSTMLayer(l_in, 2, backwards=True)
    layers.set_all_param_values(backward, layers.get_all_param_values(forward))
    f = tinygraph.function([l_in.input_var], [get_output(forward), get_output(backward)])
    found, reverse = f(x)[1], f(x[:, ::-1])[0]
    np.testing.assert_allclose(found, reverse[:, ::-1])
    final = LSTMLayer(l_in, 2, backwards=True, only_return_final=True)
    layers.set_all_param_values(final, layers.get_all_param_values(forward))
    np.testing.assert_allclose(evaluate(get_output(final), {l_in.input_var: x}), found[:, 0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_15_peepholes_and_the_formula_of_gru():
    l_in = InputLayer((None, 1, 3))
    x = values(2, 1, 3)
    without = get_all_params(LSTMLayer(l_in, 2, peepholes=False))
    assert len(without) == 14 and not any("W_cell_to" in p.name for p in without)
    lstm = LSTMLayer(l_in, 2)
    v = {p.name: p.get_value() for p in get_all_params(lstm)}
    i, c = sigmoid(x[:, 0] @ v["W_in_to_ingate"]), np.tanh(x[:, 0] @ v["W_in_to_cell"])
    cell = i * c
    o = sigmoid(x[:, 0] @ v["W_in_to_outgate"] + cell * v["W_cell_to_outgate"])
    found = evaluate(get_output(lstm), {l_in.input_var: x})
    np.testing.assert_allclose(found[:, 0], o * np.tanh(cell))
    gru = GRULayer(l_in, 2, hid_init=np.array([[0.3, -0.2]]))
    v = {p.name: p.get_value() for p in get_all_params(gru)}
    h = v["hid_init"]
    r, u = (sigmoid(x[:, 0] @ v[f"W_in_to_{k}"] + h @ v[f"W_hid_to_{k}"])
            for k in ("resetgate", "updategate"))
    new = np.tanh(x[:, 0] @ v["W_in_to_hidden_update"] + r * (h @ v["W_hid_to_hidden_update"]))
    found = evaluate(get_output(gru), {l_in.input_var: x})
    np.testing.assert_allclose(found[:, 0], (1 - u) * h + u * new)


def test_16_initial_states():
    l_in, l_hid = InputLayer((None, 1, 3)), InputLayer((None, 2))
    for learn in (False, True):
        layer = RecurrentLayer(l_in, 2, learn_init=learn)
        assert layer.hid_init.get_value().tolist() == [[0, 0]]
        assert (layer.hid_init in get_all_params(layer, trainable=True)) is learn
        assert layer.hid_init not in get_all_params(layer, regularizable=True)
    x, h, symbolic = values(4, 1, 3), values(4, 2), T.matrix("h")
    layer = RecurrentLayer(l_in, 2, hid_init=l_hid)
    found = evaluate(get_output(layer), {l_in.input_var: x, l_hid.input_var: h})
    again = RecurrentLayer(l_in, 2, hid_init=symbolic)
    layers.set_all_param_values(again, layers.get_all_param_values(layer))
    np.testing.assert_allclose(
        evaluate(get_output(again), {l_in.input_var: x, symbolic: h}), found)
    layer = RecurrentLayer(l_in, 2, hid_init=np.zeros((1, 2)))
    assert np.abs(evaluate(get_output(layer), {l_in.input_var: x}) - found).max() > 0.001


def test_17_grad_clipping():
    gates = [layers.Gate(W_in=init.Constant(1), W_hid=init.Constant(1), W_cell=w, b=None)
             for w in (init.Constant(1), init.Constant(1), None, init.Constant(1))]
    l_in = InputLayer((None, 1, 1))
    slopes = {}
    for bound in (0, 1e-3):
        layer = LSTMLayer(l_in, 1, *gates, grad_clipping=bound)
        grads = tinygraph.grad(1000 * get_output(layer).sum(),
                               [layer.W_in_to_outgate, layer.W_cell_to_outgate])
        slopes[bound] = evaluate(grads, {l_in.input_var: np.ones((1, 1, 1))})
    assert slopes[0][0] > 1 and slopes[1e-3][0] == pytest.approx(1e-3)
    assert slopes[0][1] > 1 and slopes[1e-3][1] == slopes[0][1]
    gru = GRULayer(l_in, 1, grad_clipping=1e-3, hid_init=init.Constant(1))
    grads = tinygraph.grad(1000 * get_output(gru).sum(), gru.get_params()[:-1])
    found = [np.abs(g).max() for g in evaluate(grads, {l_in.input_var: np.ones((1, 1, 1))})]
    assert 0 < max(found) <= 1e-3 + 1e-12


def test_18_gradient_steps():
    l_in = InputLayer((None, 5, 1))
    layer = RecurrentLayer(l_in, 1, nonlinearity=nonlinearities.tanh, gradient_steps=2)
    slope = tinygraph.grad(get_output(layer)[:, -1].sum(), l_in.input_var)
    found = evaluate(slope, {l_in.input_var: values(1, 5, 1)})[0, :, 0]
    assert (found[:3] == 0).all() and (found[3:] != 0).all()


def test_19_unrolling_changes_nothing_and_is_checked():
    l_in = InputLayer((None, 4, 3))
    plain, unrolled = (GRULayer(l_in, 2, unroll_scan=u) for u in (False, True))
    layers.set_all_param_values(unrolled, layers.get_all_param_values(plain))
    a, b = evaluate([get_output(plain), get_output(unrolled)], {l_in.input_var: values(2, 4, 3)})
    np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="unroll_scan=True needs it"):
        GRULayer(InputLayer((None, None, 3)), 2, unroll_scan=True)
    with pytest.raises(ValueError, match="gradient_steps must be -1"):
        GRULayer(l_in, 2, unroll_scan=True, gradient_steps=3)


def test_20_products_of_the_input_in_the_loop_give_the_same():
    l_in = InputLayer((None, None, 3))
    early, late = (GRULayer(l_in, 2, precompute_input=p) for p in (True, False))
    layers.set_all_param_values(late, layers.get_all_param_values(early))
    a, b = evaluate([get_output(early), get_output(late)], {l_in.input_var: values(2, 4, 3)})
    np.testing.assert_allclose(a, b, rtol=1e-12)


def test_21_the_order_of_parameters():
    def names(layer):
        return [p.name for p in get_all_params(layer)]

    def gates(*keys):
        return [f"{p}_{k}" for k in keys for p in ("W_in_to", "W_hid_to", "b")]

    shape = (None, None, 3)
    assert names(LSTMLayer(shape, 2)) == [
        *gates("ingate", "forgetgate", "cell", "outgate"), "W_cell_to_ingate",
        "W_cell_to_forgetgate", "W_cell_to_outgate", "cell_init", "hid_init"]
    assert names(GRULayer(shape, 2)) == [
        *gates("resetgate", "updategate", "hidden_update"), "hid_init"]
    assert names(RecurrentLayer(shape, 2)) == [
        "hid_init", "input_to_hidden.W", "input_to_hidden.b", "hidden_to_hidden.W"]
