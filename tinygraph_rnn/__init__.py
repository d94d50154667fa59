"""Recurrent networks on tinygraph, under the names that Lasagne taught.

>>> import tinygraph_rnn as lasagne
>>> l_in = lasagne.layers.InputLayer((None, None, 2))
>>> l_lstm = lasagne.layers.LSTMLayer(l_in, num_units=10)
>>> lasagne.layers.count_params(l_lstm)
570

A layer only describes: it makes the parameters when it is built and the expression when
``layers.get_output`` asks for it.  What the compiler does by itself (input products before the
loop, one product for all gates, only the last state where only that is read) is nobody's option.
"""

from __future__ import annotations

from tinygraph_rnn import (
    cells,
    init,
    layers,
    nonlinearities,
    objectives,
    random,
    regularization,
    saving,
    tasks,
    training,
    updates,
    utils,
)
from tinygraph_rnn.saving import (
    SavingError,
    checkpoint,
    load,
    load_npz,
    read_metadata,
    resume,
    save,
    save_npz,
)

__all__ = [
    "SavingError", "cells", "checkpoint", "init", "layers", "load", "load_npz",
    "nonlinearities", "objectives", "random", "read_metadata",
    "regularization", "resume", "save", "save_npz",
    "saving", "tasks", "training", "updates", "utils"]
