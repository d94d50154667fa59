"""The examples in Lasagne's documentation of recurrent layers, with only the imports changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tinygraph import config, function, grad
from tinygraph.compile.variables import SharedVariable
from tinygraph_rnn import random
from tinygraph_rnn.layers import get_all_params, get_output

BLOCKS = {
    "lstm and dense": """
from tinygraph_rnn.layers import *
num_inputs, num_units, num_classes = 10, 12, 5
# By setting the first two dimensions as None, we are allowing them to vary
# They correspond to batch size and sequence length, so we will be able to
# feed in batches of varying size with sequences of varying length.
l_inp = InputLayer((None, None, num_inputs))
# We can retrieve symbolic references to the input variable's shape, which
# we will later use in reshape layers.
batchsize, seqlen, _ = l_inp.input_var.shape
l_lstm = LSTMLayer(l_inp, num_units=num_units)
# In order to connect a recurrent layer to a dense layer, we need to
# flatten the first two dimensions (our "sample dimensions"); this will
# cause each time step of each sequence to be processed independently
l_shp = ReshapeLayer(l_lstm, (-1, num_units))
l_dense = DenseLayer(l_shp, num_units=num_classes)
# To reshape back to our original shape, we can use the symbolic shape
# variables we retrieved above.
l_out = ReshapeLayer(l_dense, (batchsize, seqlen, num_classes))
""",
    "custom": """
import tinygraph_rnn as lasagne
n_batch, n_steps, n_in = (2, 3, 4)
n_hid = 5
l_in = lasagne.layers.InputLayer((n_batch, n_steps, n_in))
l_in_hid = lasagne.layers.DenseLayer(
    lasagne.layers.InputLayer((None, n_in)), n_hid)
l_hid_hid = lasagne.layers.DenseLayer(
    lasagne.layers.InputLayer((None, n_hid)), n_hid)
l_rec = lasagne.layers.CustomRecurrentLayer(l_in, l_in_hid, l_hid_hid)
""",
    "convolutional": """
n_batch, n_steps, n_channels, width, height = (2, 3, 4, 5, 6)
n_out_filters = 7
filter_shape = (3, 3)
l_in = lasagne.layers.InputLayer(
    (n_batch, n_steps, n_channels, width, height))
l_in_to_hid = lasagne.layers.Conv2DLayer(
    lasagne.layers.InputLayer((None, n_channels, width, height)),
    n_out_filters, filter_shape, pad='same')
l_hid_to_hid = lasagne.layers.Conv2DLayer(
    lasagne.layers.InputLayer(l_in_to_hid.output_shape),
    n_out_filters, filter_shape, pad='same')
l_rec = lasagne.layers.CustomRecurrentLayer(
    l_in, l_in_to_hid, l_hid_to_hid)
""",
    "gate": """
import tinygraph_rnn as lasagne
forget_gate = Gate(b=lasagne.init.Constant(5.0))
l_lstm = LSTMLayer((10, 20, 30), num_units=10,
                   forgetgate=forget_gate)
""",
}


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    random.set_rng(3)
    with config.change(floatX="float64"):
        yield
    random.set_rng(None)


def run(last: str) -> dict[str, Any]:
    """The names after the blocks up to ``last``, as one reads them."""
    names: dict[str, Any] = {}
    for name, text in BLOCKS.items():
        exec(compile(text, f"<block {name}>", "exec"), names)
        if name == last:
            break
    return names


def randomise(layer: Any) -> dict[str, np.ndarray]:
    """Random values for all parameters; those of the layer itself by the names of attributes."""
    rng = np.random.default_rng(0)
    for p in get_all_params(layer):
        p.set_value(0.4 * rng.standard_normal(p.get_value().shape))
    return {name: p.get_value() for name, p in vars(layer).items()
            if isinstance(p, SharedVariable)}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_lstm_and_dense_in_one_network():
    names = run("lstm and dense")
    l_inp, l_out, l_dense = names["l_inp"], names["l_out"], names["l_dense"]
    assert l_out.output_shape == (None, None, 5) and l_dense.output_shape == (None, 5)
    p = randomise(names["l_lstm"])
    w, b = l_dense.W.get_value(), l_dense.b.get_value()
    f = function([l_inp.input_var], get_output(l_out))
    for n, steps in ((3, 4), (1, 1), (5, 2)):
        x = np.random.default_rng(n).standard_normal((n, steps, 10))
        h, c = np.repeat(p["hid_init"], n, 0), np.repeat(p["cell_init"], n, 0)
        found = f(x)
        assert found.shape == (n, steps, 5)
        for t in range(steps):
            i, u, z, o = (
                x[:, t] @ p[f"W_in_to_{g}"] + h @ p[f"W_hid_to_{g}"] + p[f"b_{g}"]
                for g in ("ingate", "forgetgate", "cell", "outgate"))
            i, u = (sigmoid(a + c * p[f"W_cell_to_{g}"])
                    for a, g in ((i, "ingate"), (u, "forgetgate")))
            c = u * c + i * np.tanh(z)
            h = sigmoid(o + c * p["W_cell_to_outgate"]) * np.tanh(c)
            np.testing.assert_allclose(
                found[:, t], np.maximum(h @ w + b, 0), rtol=1e-9, atol=1e-12)
    assert f.compiles == 1


def test_custom_recurrence_of_dense_layers():
    names = run("custom")
    l_rec = names["l_rec"]
    assert l_rec.output_shape == (2, 3, 5)
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    randomise(l_rec)
    found = function([names["l_in"].input_var], get_output(l_rec))(x)

    def dense(layer: Any, v: np.ndarray) -> np.ndarray:
        return np.maximum(v @ layer.W.get_value() + layer.b.get_value(), 0)

    h = np.repeat(l_rec.hid_init.get_value(), 2, 0)
    for t in range(3):
        h = np.maximum(dense(names["l_in_hid"], x[:, t]) + dense(names["l_hid_hid"], h), 0)
        np.testing.assert_allclose(found[:, t], h, rtol=1e-9, atol=1e-12)


def convolved(layer: Any, x: np.ndarray) -> np.ndarray:
    """rectify(x * W + b) with zeros around x; true convolution: filters are flipped."""
    w, b = layer.W.get_value()[:, :, ::-1, ::-1], layer.b.get_value()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((x.shape[0], w.shape[0], *x.shape[2:])) + b[:, None, None]
    for i in range(3):
        for j in range(3):
            part = padded[:, :, i:i + x.shape[2], j:j + x.shape[3]]
            out += np.einsum("ncxy,fc->nfxy", part, w[:, :, i, j])
    return np.maximum(out, 0)


def test_convolutional_recurrence():
    names = run("convolutional")
    l_rec, l_in = names["l_rec"], names["l_in"]
    assert l_rec.output_shape == (2, 3, 7, 5, 6)
    assert l_rec.hid_init.get_value().shape == (1, 7, 5, 6)
    assert len(get_all_params(l_rec)) == 5
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6))
    randomise(l_rec)
    start = l_rec.hid_init.get_value()

    def expected(x: np.ndarray) -> np.ndarray:
        h, out = np.repeat(start, 2, 0), []
        for t in range(3):
            h = np.maximum(convolved(names["l_in_to_hid"], x[:, t])
                           + convolved(names["l_hid_to_hid"], h), 0)
            out.append(h)
        return np.stack(out, 1)

    out = get_output(l_rec)
    w = names["l_hid_to_hid"].W
    f = function([l_in.input_var], [out, *grad((out ** 2).mean(), [l_in.input_var, w])])
    found, d_x, d_w = f(x)
    np.testing.assert_allclose(found, expected(x), rtol=1e-9, atol=1e-12)
    rng = np.random.default_rng(1)
    step = 1e-6 * rng.standard_normal(x.shape)
    slope = (np.mean(expected(x + step) ** 2) - np.mean(expected(x - step) ** 2)) / 2
    np.testing.assert_allclose(np.sum(d_x * step), slope, rtol=1e-5)
    old, step = w.get_value(), 1e-6 * rng.standard_normal(d_w.shape)
    costs = []
    for sign in (1, -1):
        w.set_value(old + sign * step)
        costs.append(np.mean(expected(x) ** 2))
    np.testing.assert_allclose(np.sum(d_w * step), (costs[0] - costs[1]) / 2, rtol=1e-5)


def test_forget_gate_that_starts_open():
    names = run("gate")
    l_lstm = names["l_lstm"]
    np.testing.assert_array_equal(l_lstm.b_forgetgate.get_value(), np.full(10, 5.0))
    for gate in ("ingate", "cell", "outgate"):
        np.testing.assert_array_equal(getattr(l_lstm, f"b_{gate}").get_value(), np.zeros(10))
    assert l_lstm.W_in_to_forgetgate.get_value().shape == (30, 10)
    assert l_lstm.output_shape == (10, 20, 10)
