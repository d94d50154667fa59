"""What the programs of both documents on theano_lstm share, and the names that they leave out."""

from __future__ import annotations

import numpy as np

IMPORTS = """
import numpy as np
import tinygraph as theano
import tinygraph.tensor as T
import tinygraph_rnn.cells as theano_lstm
from tinygraph_rnn.cells import (
    Layer, LSTM, StackedCells, create_optimization_updates, masked_loss)
"""

USAGE = """
# bug for now forces us to use 0.0 with scan,
dropout = 0.0

model = StackedCells(4, layers=[20, 20], activation=T.tanh, celltype=LSTM)
model.layers[0].in_gate2.activation = lambda x: x
model.layers.append(Layer(20, 2, lambda x: T.nnet.softmax(x)[0]))

# in this example dynamics is a random function that takes our
# output along with the current state and produces an observation
# for t + 1

def step(x, *prev_hiddens):
    new_states = stacked_rnn.forward(x, prev_hiddens, dropout)
    return [dynamics(x, new_states[-1])] + new_states[:-1]

initial_obs = T.vector()
timesteps = T.iscalar()

stacked_rnn = model  # a name of an earlier version

result, updates = theano.scan(step,
                              n_steps=timesteps,
                              outputs_info=[dict(initial=initial_obs, taps=[-1])] + [dict(initial=layer.initial_hidden_state, taps=[-1]) for layer in model.layers if hasattr(layer, 'initial_hidden_state')])

target = T.vector()

cost = (result[0][:,[0,2]] - target[[0,2]]).norm(L=2) / timesteps

updates, gsums, xsums, lr, max_norm = \\
    create_optimization_updates(cost, model.params, method='adadelta')

update_fun = theano.function([initial_obs, target, timesteps], cost, updates = updates, allow_input_downcast=True)
predict_fun = theano.function([initial_obs, timesteps], result[0], allow_input_downcast=True)
"""  # noqa: E501

USAGE_TRAINING = """
for example, label in training_set:
    c = update_fun(example, label, 10)
    costs.append(float(c))
"""

# Four corrections, without which no version of theano_lstm runs these lines on Theano: states and
# observations are float matrices, one row for each example (as the text says), not integers and
# not single vectors; the labels are a matrix, since two indices are taken of them; and what
# ``dynamics`` takes apart by x[0] to x[3] is its first axis.
BATCH_USAGE = """
model = StackedCells(4, layers=[20, 20], activation=T.tanh, celltype=LSTM)
model.layers[0].in_gate2.activation = lambda x: x
model.layers.append(Layer(20, 2, lambda x: T.nnet.softmax(x)[0]))

def step(x, *prev_hiddens):
    new_states = stacked_rnn.forward(x, prev_hiddens, dropout)
    return [dynamics(x.T, new_states[-1]).T] + new_states[:-1]

# switch to a matrix of observations:
initial_obs = T.matrix()
timesteps = T.iscalar()

stacked_rnn = model
dropout = 0.0

result, updates = theano.scan(step,
                              n_steps=timesteps,
                              outputs_info=[dict(initial=initial_obs, taps=[-1])] + [dict(initial=initial_hidden_state, taps=[-1]) for initial_hidden_state in model.initial_states(initial_obs.shape[0])])

target = T.matrix()

cost = (result[0][:,:,[0,2]] - target[:,[0,2]]).norm(L=2) / timesteps

updates, gsums, xsums, lr, max_norm = \\
    create_optimization_updates(cost, model.params, method='adadelta')

update_fun = theano.function([initial_obs, target, timesteps], cost, updates = updates, allow_input_downcast=True)
predict_fun = theano.function([initial_obs, timesteps], result[0], allow_input_downcast=True)
"""  # noqa: E501

BATCH_TRAINING = """
for minibatch, label in minibatches:
    c = update_fun(minibatch, label, 10)
    costs.append(float(c))
"""

# "a random function that takes our output along with the current state"
ANY_DYNAMICS = """
def dynamics(x, u):
    return x + 0.3 * T.tanh(u[0] - u[1] + 0.1 * x)
"""

# The same for a batch: u is what the softmax gives for the first unit, one number per example.
ANY_BATCH_DYNAMICS = """
def dynamics(x, u):
    return x + 0.3 * T.tanh(u - 0.5 + 0.1 * x)
"""


def run(*programs: str, **names: object) -> dict:
    """The names after running ``programs`` one after another."""
    namespace = dict(names)
    for k, program in enumerate(programs):
        exec(compile(program, f"<block {k}>", "exec"), namespace)
    return namespace


def usage(*programs: str, examples: int = 60) -> dict:
    """Train the network of the usage block on an observation and its label."""
    rng = np.random.default_rng(3)
    example = (rng.standard_normal(4), rng.standard_normal(4))  # float64, cast down
    return run(IMPORTS, *programs, USAGE, USAGE_TRAINING, costs=[],
               training_set=[example] * examples)


def batch_usage(*programs: str, batches: int = 60, **names: object) -> dict:
    """Train the network of the minibatch block on three observations and their labels."""
    rng = np.random.default_rng(3)
    batch = (0.3 * rng.standard_normal((3, 4)), 0.3 * rng.standard_normal((3, 4)))
    return run(IMPORTS, *programs, BATCH_USAGE, BATCH_TRAINING, costs=[],
               minibatches=[batch] * batches, **names)
