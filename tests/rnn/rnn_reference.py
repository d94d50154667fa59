"""Recurrent networks in plain NumPy, one sequence and one step at a time: the oracle.

Parameters are dicts under the attribute names of the layers.  ``x`` is (time, features).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygraph import function
from tinygraph.compile.variables import SharedVariable
from tinygraph_rnn.layers import get_all_params


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm(x: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    """All outputs h, (time, units)."""
    h, c = p["hid_init"][0], p["cell_init"][0]
    out = []
    for row in x:
        pre = {
            g: row @ p[f"W_in_to_{g}"] + h @ p[f"W_hid_to_{g}"] + p.get(f"b_{g}", 0)
            for g in ("ingate", "forgetgate", "cell", "outgate")}
        i = sigmoid(pre["ingate"] + p.get("W_cell_to_ingate", 0) * c)
        f = sigmoid(pre["forgetgate"] + p.get("W_cell_to_forgetgate", 0) * c)
        c = f * c + i * np.tanh(pre["cell"])
        o = sigmoid(pre["outgate"] + p.get("W_cell_to_outgate", 0) * c)
        h = o * np.tanh(c)
        out.append(h)
    return np.array(out)


def gru(x: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    """All outputs h, (time, units)."""
    h = p["hid_init"][0]
    out = []
    for row in x:
        r, u = (
            sigmoid(row @ p[f"W_in_to_{g}"] + h @ p[f"W_hid_to_{g}"] + p[f"b_{g}"])
            for g in ("resetgate", "updategate"))
        new = np.tanh(row @ p["W_in_to_hidden_update"] + p["b_hidden_update"]
                      + r * (h @ p["W_hid_to_hidden_update"]))
        h = (1 - u) * h + u * new
        out.append(h)
    return np.array(out)


def rnn(x: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    """All outputs h, (time, units), with tanh."""
    h = p["hid_init"][0]
    out = []
    for row in x:
        h = np.tanh(row @ p["W_in_to_hid"] + p["b"] + h @ p["W_hid_to_hid"])
        out.append(h)
    return np.array(out)


def batch(cell: Any, x: np.ndarray, p: dict[str, np.ndarray], backwards: bool = False
          ) -> np.ndarray:
    """(batch, time, features) -> (batch, time, units)."""
    if backwards:
        return np.array([cell(one[::-1], p)[::-1] for one in x])
    return np.array([cell(one, p) for one in x])


def values(layer: Any) -> dict[str, np.ndarray]:
    """Every parameter of a layer under its attribute name."""
    return {k: v.get_value() for k, v in vars(layer).items() if isinstance(v, SharedVariable)}


def randomise(layer: Any, seed: int = 0, scale: float = 0.4) -> None:
    """Random values for every parameter, the initial states included."""
    rng = np.random.default_rng(seed)
    for p in get_all_params(layer):
        value = scale * rng.standard_normal(p.get_value().shape)
        p.set_value(value.astype(p.dtype))


def run(inputs: list[Any], outputs: Any, *arrays: Any) -> Any:
    """Compile and call once."""
    return function(inputs, outputs)(*arrays)
