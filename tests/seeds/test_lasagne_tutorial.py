"""Lasagne's tutorial on recurrent networks, cell by cell, on tinygraph.

The program of the cells is the tutorial's, its indentation restored.  Changed are the imports;
left out are what belongs to a notebook (pictures, lines that begin with %) and an import of
scikit-learn that nothing uses.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from tinygraph import config
from tinygraph_rnn import random
from tinygraph_rnn.tasks import add_batch

CELLS = {
    "imports": """
import tinygraph as theano
import tinygraph.tensor as T
import tinygraph_rnn as lasagne
import numpy as np
""",
    "data": """
from tinygraph_rnn.tasks import gen_data
""",
    "inputs": """
# By setting the first and second dimensions to None, we allow
# arbitrary minibatch sizes with arbitrary sequence lengths.
# The number of feature dimensions is 2, as described above.
l_in = lasagne.layers.InputLayer(shape=(None, None, 2))
# This input will be used to provide the network with masks.
# Masks are expected to be matrices of shape (n_batch, n_time_steps);
# both of these dimensions are variable for us so we will use
# an input shape of (None, None)
l_mask = lasagne.layers.InputLayer(shape=(None, None))
""",
    "gates": """
# All gates have initializers for the input-to-gate and hidden state-to-gate
# weight matrices, the cell-to-gate weight vector, the bias vector, and the nonlinearity.
# The convention is that gates use the standard sigmoid nonlinearity,
# which is the default for the Gate class.
gate_parameters = lasagne.layers.recurrent.Gate(
    W_in=lasagne.init.Orthogonal(), W_hid=lasagne.init.Orthogonal(),
    b=lasagne.init.Constant(0.))
cell_parameters = lasagne.layers.recurrent.Gate(
    W_in=lasagne.init.Orthogonal(), W_hid=lasagne.init.Orthogonal(),
    # Setting W_cell to None denotes that no cell connection will be used.
    W_cell=None, b=lasagne.init.Constant(0.),
    # By convention, the cell nonlinearity is tanh in an LSTM.
    nonlinearity=lasagne.nonlinearities.tanh)
""",
    "lstm": """
# Our LSTM will have 10 hidden/cell units
N_HIDDEN = 10
l_lstm = lasagne.layers.recurrent.LSTMLayer(
    l_in, N_HIDDEN,
    # We need to specify a separate input for masks
    mask_input=l_mask,
    # Here, we supply the gate parameters for each gate
    ingate=gate_parameters, forgetgate=gate_parameters,
    cell=cell_parameters, outgate=gate_parameters,
    # We'll learn the initialization and use gradient clipping
    learn_init=True, grad_clipping=100.)
""",
    "both directions": """
# The "backwards" layer is the same as the first,
# except that the backwards argument is set to True.
l_lstm_back = lasagne.layers.recurrent.LSTMLayer(
    l_in, N_HIDDEN, ingate=gate_parameters,
    mask_input=l_mask, forgetgate=gate_parameters,
    cell=cell_parameters, outgate=gate_parameters,
    learn_init=True, grad_clipping=100., backwards=True)
# We'll combine the forward and backward layer output by summing.
# Merge layers take in lists of layers to merge as input.
l_sum = lasagne.layers.ElemwiseSumLayer([l_lstm, l_lstm_back])
""",
    "dense": """
# First, retrieve symbolic variables for the input shape
n_batch, n_time_steps, n_features = l_in.input_var.shape
# Now, squash the n_batch and n_time_steps dimensions
l_reshape = lasagne.layers.ReshapeLayer(l_sum, (-1, N_HIDDEN))
# Now, we can apply feed-forward layers as usual.
# We want the network to predict a single value, the sum, so we'll use a single unit.
l_dense = lasagne.layers.DenseLayer(
    l_reshape, num_units=1, nonlinearity=lasagne.nonlinearities.tanh)
# Now, the shape will be n_batch*n_timesteps, 1. We can then reshape to
# n_batch, n_timesteps to get a single value for each timstep from each sequence
l_out = lasagne.layers.ReshapeLayer(l_dense, (n_batch, n_time_steps))
""",
    "functions": """
# Symbolic variable for the target network output.
# It will be of shape n_batch, because there's only 1 target value per sequence.
target_values = T.vector('target_output')
# This matrix will tell the network the length of each sequences.
# The actual values will be supplied by the gen_data function.
mask = T.matrix('mask')
# lasagne.layers.get_output produces an expression for the output of the net
network_output = lasagne.layers.get_output(l_out)
# The value we care about is the final value produced for each sequence
# so we simply slice it out.
predicted_values = network_output[:, -1]
# Our cost will be mean-squared error
cost = T.mean((predicted_values - target_values)**2)
# Retrieve all parameters from the network
all_params = lasagne.layers.get_all_params(l_out)
# Compute adam updates for training
updates = lasagne.updates.adam(cost, all_params)
# Theano functions for training and computing cost
train = theano.function(
    [l_in.input_var, target_values, l_mask.input_var],
    cost, updates=updates)
compute_cost = theano.function(
    [l_in.input_var, target_values, l_mask.input_var], cost)
""",
    "training": """
# We'll use this "validation set" to periodically check progress
X_val, y_val, mask_val = gen_data()
# We'll train the network with 10 epochs of 100 minibatches each
NUM_EPOCHS = 10
EPOCH_SIZE = 100
for epoch in range(NUM_EPOCHS):
    for _ in range(EPOCH_SIZE):
        X, y, m = gen_data()
        train(X, y, m)
    cost_val = compute_cost(X_val, y_val, mask_val)
    print("Epoch {} validation cost = {}".format(epoch + 1, cost_val))
""",
}


def run(**lines: str) -> tuple[dict, list[float]]:
    """The names after all cells, and the costs printed.  ``lines``: other values of constants."""
    names: dict = {}
    printed = io.StringIO()
    random.set_rng(1)
    rng = np.random.default_rng(2)
    with contextlib.redirect_stdout(printed):
        for name, text in CELLS.items():
            for constant, value in lines.items():
                if f"{constant} = " in text:
                    (old,) = (x for x in text.splitlines() if x.startswith(f"{constant} = "))
                    text = text.replace(old, f"{constant} = {value}")
            exec(compile(text, f"<cell {name}>", "exec"), names)
            if name == "data":  # the same batches at every run
                names["gen_data"] = lambda: add_batch(rng=rng)
    random.set_rng(None)
    return names, [float(line.split(" = ")[1]) for line in printed.getvalue().splitlines()]


def test_gen_data_is_the_task_of_the_text():
    names: dict = {}
    exec(CELLS["data"], names)
    X, y, mask = names["gen_data"]()
    assert X.shape == (100, 55, 2) and y.shape == (100,) and mask.shape == (100, 55)
    assert set(np.unique(mask)) == {0, 1}


@pytest.fixture(scope="module")
def trained() -> tuple[dict, list[float]]:
    return run()


def test_the_cost_falls_as_in_the_tutorial(trained):
    """Its costs: 0.169, 0.156, 0.074, ..., 0.018, 0.014, 0.018."""
    names, costs = trained
    assert len(costs) == 10 and 0.1 < costs[0] < 0.25
    assert max(costs[-3:]) < 0.05
    assert names["train"].compiles == names["compute_cost"].compiles == 1


def test_shapes_and_parameters(trained):
    names, _ = trained
    assert names["l_out"].output_shape == (None, None)
    assert names["l_lstm"].output_shape == names["l_sum"].output_shape == (None, None, 10)
    # each direction: four gates, three peepholes, two states; then the dense layer
    assert len(names["all_params"]) == 2 * (4 * 3 + 3 + 2) + 2
    for layer in (names["l_lstm"], names["l_lstm_back"]):
        assert {layer.cell_init, layer.hid_init} <= set(layer.get_params(trainable=True))


def test_any_number_of_sequences_and_steps(trained):
    names, _ = trained
    for n, longest in ((1, 4), (7, 30)):
        cost = names["compute_cost"](*add_batch(n, 4, longest, rng=0))
        assert cost.shape == () and np.isfinite(cost)
    assert names["compute_cost"].compiles == 1


def test_training_on_the_interpreter_gives_the_same_costs():
    short = {"NUM_EPOCHS": "1", "EPOCH_SIZE": "2"}
    with config.change(floatX="float64"):
        _, native = run(**short)
        with config.change(backend="numpy"):
            _, interpreted = run(**short)
    np.testing.assert_allclose(native, interpreted, rtol=1e-10)
