"""A plain LSTM or GRU over sequences without masks: training on the mean of the squares of the
last states (W3, W4, W5), and inference of the last state (W9)."""

from __future__ import annotations

from typing import Any

import numpy as np
from problem import Problem

from workloads import tape

GATES = {"lstm": 4, "gru": 3}


def create(seed: int, cell: str = "lstm", batch: int = 64, steps: int = 100, features: int = 64,
           hidden: int = 128, update: str = "adam") -> Problem:
    """X is (steps, batch, features).  The matrices of the gates are side by side, W (features,
    n hidden), U (hidden, n hidden) and b: input, forget, cell, output of the LSTM; reset, update,
    candidate of the GRU.  update: 'adam', or 'none' for inference."""
    rng = np.random.default_rng(seed)
    width = GATES[cell] * hidden
    params = {"W": rng.normal(0, features ** -0.5, (features, width)),
              "U": rng.normal(0, hidden ** -0.5, (hidden, width)),
              "b": rng.normal(0, 0.1, width)}
    X = rng.standard_normal((steps, batch, features))
    return Problem({k: v.astype(np.float32) for k, v in params.items()},
                   [{"X": X.astype(np.float32)}], {"update": update, "cell": cell})


def loss(params: dict[str, tape.Var], batch: dict[str, np.ndarray], options: dict[str, Any]
         ) -> tape.Var:
    """The loss, or in inference the last state."""
    X, (W, U, b) = batch["X"], (params[k] for k in ("W", "U", "b"))
    hidden = U.value.shape[0]
    h = c = tape.Var(np.zeros((X.shape[1], hidden)))
    for x in X:
        if options["cell"] == "lstm":
            i, f, g, o = parts(x @ W + h @ U + b, hidden)
            c = tape.sigmoid(f) * c + tape.sigmoid(i) * tape.tanh(g)
            h = tape.sigmoid(o) * tape.tanh(c)
        else:
            (xr, xz, xn), (hr, hz, hn) = parts(x @ W + b, hidden), parts(h @ U, hidden)
            z = tape.sigmoid(xz + hz)
            h = (1 - z) * h + z * tape.tanh(xn + tape.sigmoid(xr + hr) * hn)
    return h if options["update"] == "none" else tape.mean(h * h)


def parts(x: tape.Var, hidden: int) -> list[tape.Var]:
    """The gates of ``x``."""
    return [x[:, k:k + hidden] for k in range(0, x.value.shape[1], hidden)]


def products(sizes: dict[str, Any]) -> float:
    """The floating point operations of the products of a training step: forwards the input's and
    the state's, backwards those of the state and of all weights."""
    rows, width = sizes["steps"] * sizes["batch"], GATES[sizes["cell"]] * sizes["hidden"]
    both = sizes["features"] + sizes["hidden"]
    return 2.0 * rows * width * (2 * both + sizes["hidden"])
