"""W2: a tanh network in both directions on the add task; the last states of the two, side by
side, through a dense layer with tanh; AdaGrad."""

from __future__ import annotations

from typing import Any

import numpy as np
from problem import Problem

from workloads import tape

DIRECTIONS = ("forward", "backward")
FEATURES = 2


def create(seed: int, batch: int = 100, length: int = 55, hidden: int = 100) -> Problem:
    """A direction has W_in (2, hidden), W_hid (hidden, hidden) and b; states start at zero."""
    from tinygraph_rnn.tasks import add_batch

    rng = np.random.default_rng(seed)
    X, y, mask = add_batch(batch, max(2, length - 5), length, rng)
    params = {"dense.W": rng.normal(0, (2 * hidden) ** -0.5, (2 * hidden, 1)),
              "dense.b": rng.normal(0, 0.1, 1)}
    for d in DIRECTIONS:
        params |= {f"{d}.W_in": rng.normal(0, 0.5, (FEATURES, hidden)),
                   f"{d}.W_hid": rng.normal(0, hidden ** -0.5, (hidden, hidden)),
                   f"{d}.b": rng.normal(0, 0.1, hidden)}
    return Problem({k: v.astype(np.float32) for k, v in params.items()},
                   [{"X": X, "y": y, "mask": mask}], {"update": "adagrad"})


def loss(params: dict[str, tape.Var], batch: dict[str, np.ndarray], options: dict[str, Any]
         ) -> tape.Var:
    """The mean squared error."""
    X, mask, y = batch["X"], batch["mask"], batch["y"]
    last = []
    for d in DIRECTIONS:
        W, U, b = (params[f"{d}.{k}"] for k in ("W_in", "W_hid", "b"))
        h = tape.Var(np.zeros((len(X), b.value.size)))
        for t in range(X.shape[1])[::1 if d == "forward" else -1]:
            h = tape.where(mask[:, t, None] != 0, tape.tanh(X[:, t] @ W + h @ U + b), h)
        last.append(h)
    out = tape.tanh(tape.concatenate(last, 1) @ params["dense.W"] + params["dense.b"])
    error = out[:, 0] - y
    return tape.mean(error * error)
