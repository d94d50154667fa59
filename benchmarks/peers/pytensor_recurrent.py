"""Plain LSTM and GRU in PyTensor: gates in one matrix, the input products before the scan."""

from __future__ import annotations

from typing import Any

import pytensor
import pytensor.tensor as pt
from pytensor_common import VERSION, Training

__all__ = ["VERSION", "Workload"]


class Workload(Training):
    """Training steps, or inference of the last state."""

    inputs = ("X",)

    def model(self, inputs: dict[str, Any]) -> Any:
        X, W, U, b = inputs["X"], *(self.params[k] for k in ("W", "U", "b"))
        hidden = len(self.problem.parameters["U"])

        def parts(x: Any) -> list[Any]:
            count = self.problem.parameters["b"].size // hidden
            return [x[:, k * hidden:(k + 1) * hidden] for k in range(count)]

        def lstm(x: Any, h: Any, c: Any, U: Any) -> list[Any]:
            i, f, g, o = parts(x + pt.dot(h, U))
            c = pt.sigmoid(f) * c + pt.sigmoid(i) * pt.tanh(g)
            return [pt.sigmoid(o) * pt.tanh(c), c]

        def gru(x: Any, h: Any, U: Any) -> list[Any]:
            (xr, xz, xn), (hr, hz, hn) = parts(x), parts(pt.dot(h, U))
            z = pt.sigmoid(xz + hz)
            return [(1 - z) * h + z * pt.tanh(xn + pt.sigmoid(xr + hr) * hn)]

        step, states = {"lstm": (lstm, 2), "gru": (gru, 1)}[self.problem.options["cell"]]
        zero = pt.zeros((X.shape[1], hidden), dtype="float32")
        rows = X.reshape((-1, X.shape[2]))
        products = (pt.dot(rows, W) + b).reshape((X.shape[0], X.shape[1], -1))
        outs = pytensor.scan(step, sequences=[products], outputs_info=[zero] * states,
                             non_sequences=[U], strict=True, return_list=True,
                             return_updates=False)
        last = outs[0][-1]
        return last if self.problem.options["update"] == "none" else pt.mean(last ** 2)
