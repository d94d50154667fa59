"""W2 in PyTensor: the input products before the scans."""

from __future__ import annotations

from typing import Any

import pytensor
import pytensor.tensor as pt
from pytensor_common import VERSION, Training

__all__ = ["VERSION", "Workload"]


class Workload(Training):
    """Training steps."""

    inputs = ("X", "y", "mask")

    def model(self, inputs: dict[str, Any]) -> Any:
        X, mask = inputs["X"].dimshuffle(1, 0, 2), inputs["mask"].dimshuffle(1, 0, "x")
        last = pt.concatenate([self.direction(d, X, mask) for d in ("forward", "backward")], 1)
        out = pt.tanh(pt.dot(last, self.params["dense.W"]) + self.params["dense.b"])[:, 0]
        return pt.mean((out - inputs["y"]) ** 2)

    def direction(self, name: str, X: Any, mask: Any) -> Any:
        """The last state of one direction."""
        W, U, b = (self.params[f"{name}.{k}"] for k in ("W_in", "W_hid", "b"))
        hidden = self.problem.parameters[f"{name}.b"].size

        def step(x: Any, m: Any, h: Any, U: Any) -> Any:
            return pt.switch(m, pt.tanh(x + pt.dot(h, U)), h)

        rows = X.reshape((-1, X.shape[2]))
        products = (pt.dot(rows, W) + b).reshape((X.shape[0], X.shape[1], hidden))
        zero = pt.zeros((X.shape[1], hidden), dtype="float32")
        out = pytensor.scan(step, sequences=[products, mask], outputs_info=[zero],
                            non_sequences=[U], go_backwards=name == "backward", strict=True,
                            return_updates=False)
        return out[-1]
