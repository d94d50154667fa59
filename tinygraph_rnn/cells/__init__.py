"""Recurrent cells to be used inside a scan of one's own, under the names of theano_lstm.

A cell is a function of one step, ``activate(x, h)``; ``StackedCells`` puts several on top of each
other, and the step of a ``scan`` calls its ``forward``:

    model = StackedCells(4, layers=[20, 20], activation=T.tanh, celltype=LSTM)
    model.layers.append(Layer(20, 1, T.tanh))

    def step(x, *states):
        new = model.forward(x, states)
        return [world(x, new[-1])] + new[:-1]

    path, _ = scan(step, outputs_info=[start] + model.initial_states(), n_steps=n)

An input is one sample (features,) or a batch (batch, features).  A weight matrix has the shape
(outputs, inputs).

**Activations see units on the first axis**, (units,) or (units, batch), as theano_lstm has it: a
softmax over the units of a batch is ``lambda x: T.nnet.softmax(x.T).T``.

What theano_lstm does wrong and this does not:

- Setting ``params`` takes arrays as well as shared variables, and checks their number and shapes
  before it changes any.
- A start state is a vector also where the input is a batch, which its LSTM cannot add up; here
  ``activate`` spreads it over the batch, and ``initial_states(n)`` gives states for a scan.
- A gradient of norm 0 stays 0 under ``max_norm``; in earlier releases there it becomes nan, and the
  parameter too.
- ``GRU`` can be built, and has a start state.
- An unknown ``method`` of ``create_optimization_updates`` is refused; there it means sgd.
- The gradient of ``masked_loss`` is multiplied by the one that arrives; there it is divided.
- Masks of dropout may be drawn inside the step.

What it does too: ``params`` leaves out the start states, which are shared variables
``layer.initial_hidden_state`` (append them to the list of parameters to learn them); a mask of
dropout is 0 or 1, so at test time the input is to be multiplied by the probability of staying;
``masked_loss`` masks costs and not states (see there).
"""

from __future__ import annotations

from tinygraph_rnn.cells.dropout import Dropout, MultiDropout, apply_dropout
from tinygraph_rnn.cells.layers import (
    GRU,
    LSTM,
    RNN,
    Embedding,
    GatedInput,
    Layer,
    StackedCells,
    clip_gradient,
    create_shared,
)
from tinygraph_rnn.cells.learning import create_optimization_updates, masked_loss

__all__ = ["GRU", "LSTM", "RNN", "Dropout", "Embedding", "GatedInput", "Layer", "MultiDropout",
           "StackedCells", "apply_dropout", "clip_gradient", "create_optimization_updates",
           "create_shared", "masked_loss"]
