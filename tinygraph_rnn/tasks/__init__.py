"""Data of the tasks that recurrent networks are measured by, made on the spot.

add_batch      sum the two marked numbers of a long sequence
REBER, EMBEDDED_REBER   words of two small grammars: which symbols may come next?  (``reber`` has
               their functions)
pendulum_batch a double pendulum under a torque: trajectories to follow
"""

from __future__ import annotations

from tinygraph_rnn.tasks import pendulum, reber
from tinygraph_rnn.tasks.add import add_batch, gen_data
from tinygraph_rnn.tasks.pendulum import Pendulum, pendulum_batch
from tinygraph_rnn.tasks.reber import EMBEDDED_REBER, REBER, Grammar, padded_batch

__all__ = ["EMBEDDED_REBER", "REBER", "Grammar", "Pendulum", "add_batch", "gen_data",
           "padded_batch", "pendulum", "pendulum_batch", "reber"]
