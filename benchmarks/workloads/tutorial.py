"""The tutorial model: two LSTMs, one in each direction, on the add task.

Peepholes, learned initial states, clipped gate gradients, masks; the outputs of the directions
are summed, a dense layer with tanh follows at every step, and the loss is the mean squared error
of the last step.  W1 takes lengths in turn from a few, W8 a new one for every minibatch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import settings
from problem import Problem

from workloads import tape

DIRECTIONS = ("forward", "backward")
FEATURES = 2


def create(seed: int, batch: int = 100, hidden: int = 10, lengths: Sequence[int] = (),
           drawn: Sequence[int] = (), clip: float = settings.CLIP) -> Problem:
    """lengths: of the minibatches; or drawn: how many, the least and the largest length.

    A direction has the matrices of its gates (input, forget, cell, output) side by side, W_in
    (2, 4 hidden) and W_hid (hidden, 4 hidden), the bias b, the peepholes W_cell (3, hidden) of
    the gates but the cell, and the initial states cell_init and hid_init (1, hidden).
    """
    from tinygraph_rnn.tasks import add_batch

    rng = np.random.default_rng(seed)
    if drawn:
        count, least, largest = drawn
        lengths = rng.integers(least, largest + 1, count).tolist()
    batches = [dict(zip(("X", "y", "mask"), add_batch(batch, max(2, n - 5), n, rng), strict=True))
               for n in lengths]

    def normal(scale: float, *shape: int) -> np.ndarray:
        return rng.normal(0, scale, shape)
    params = {"dense.W": normal(0.3, hidden, 1), "dense.b": normal(0.1, 1)}
    for d in DIRECTIONS:
        params |= {f"{d}.W_in": normal(0.5, FEATURES, 4 * hidden),
                   f"{d}.W_hid": normal(hidden ** -0.5, hidden, 4 * hidden),
                   f"{d}.b": normal(0.1, 4 * hidden), f"{d}.W_cell": normal(0.1, 3, hidden),
                   f"{d}.cell_init": normal(0.1, 1, hidden),
                   f"{d}.hid_init": normal(0.1, 1, hidden)}
    return Problem({k: v.astype(np.float32) for k, v in params.items()}, batches,
                   {"update": "adam", "clip": clip})


def loss(params: dict[str, tape.Var], batch: dict[str, np.ndarray], options: dict[str, Any]
         ) -> tape.Var:
    """The mean squared error.  The last output of the direction that walks backwards is the one
    of its first step, so the reference stops there."""
    X, mask, y = batch["X"], batch["mask"], batch["y"]
    length = X.shape[1]
    last: Any = 0
    for d in DIRECTIONS:
        p = {k: params[f"{d}.{k}"] for k in ("W_in", "W_hid", "b", "W_cell", "cell_init",
                                             "hid_init")}
        h, c = (p[k] + np.zeros((len(X), 1)) for k in ("hid_init", "cell_init"))
        for t in range(length) if d == "forward" else (length - 1,):
            new_h, new_c = cell(p, X[:, t], h, c, options["clip"])
            goes_on = mask[:, t, None] != 0
            h, c = tape.where(goes_on, new_h, h), tape.where(goes_on, new_c, c)
        last = h + last
    out = tape.tanh(last @ params["dense.W"] + params["dense.b"])[:, 0]
    error = out - y
    return tape.mean(error * error)


def cell(p: dict[str, tape.Var], x: np.ndarray, h: tape.Var, c: tape.Var, clip: float
         ) -> tuple[tape.Var, tape.Var]:
    """The next h and c."""
    n = h.value.shape[1]
    gates = tape.clip_gradient(x @ p["W_in"] + h @ p["W_hid"] + p["b"], clip)
    i, f, g, o = (gates[:, k * n:(k + 1) * n] for k in range(4))
    peep_i, peep_f, peep_o = (p["W_cell"][k] for k in range(3))
    c = tape.sigmoid(f + peep_f * c) * c + tape.sigmoid(i + peep_i * c) * tape.tanh(g)
    return tape.sigmoid(o + peep_o * c) * tape.tanh(c), c
