"""Parameters and whole trainings in files.

``save`` and ``load`` keep the parameters of a network by name, ``checkpoint`` and ``resume`` all
that a training needs to go on as if it had never stopped, ``save_npz`` and ``load_npz`` the plain
list of values that Lasagne's users write.  Nothing here unpickles anything; a file that is damaged,
of another network or hostile raises ``SavingError`` and changes nothing.  See docs/rnn/saving.md.
"""

from __future__ import annotations

from tinygraph_rnn.saving.checkpoints import checkpoint, resume
from tinygraph_rnn.saving.files import SavingError
from tinygraph_rnn.saving.networks import load, read_metadata, save
from tinygraph_rnn.saving.npz import load_npz, save_npz

__all__ = ["SavingError", "checkpoint", "load", "load_npz", "read_metadata", "resume", "save",
           "save_npz"]
