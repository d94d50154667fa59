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

docs/rnn/cells.md has programs for all of this, and lists what theano_lstm does wrong and this does
not.
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
    carry_over_padding,
    clip_gradient,
    create_shared,
)
from tinygraph_rnn.cells.learning import create_optimization_updates, masked_loss

__all__ = ["GRU", "LSTM", "RNN", "Dropout", "Embedding", "GatedInput", "Layer", "MultiDropout",
           "StackedCells", "apply_dropout", "carry_over_padding", "clip_gradient",
           "create_optimization_updates", "create_shared", "masked_loss"]
