"""The tutorial model in PyTensor: gates in one matrix, the input products before the scans."""

from __future__ import annotations

from typing import Any

import pytensor
import pytensor.tensor as pt
from pytensor.gradient import grad_clip
from pytensor_common import VERSION, Training

__all__ = ["VERSION", "Workload"]


class Workload(Training):
    """Training steps."""

    inputs = ("X", "y", "mask")

    def model(self, inputs: dict[str, Any]) -> Any:
        X, mask = inputs["X"].dimshuffle(1, 0, 2), inputs["mask"].dimshuffle(1, 0, "x")
        forward = self.direction("forward", X, mask, False)
        backward = self.direction("backward", X, mask, True)[::-1]
        hidden = forward + backward
        out = pt.tanh(pt.dot(hidden, self.params["dense.W"]) + self.params["dense.b"])[:, :, 0]
        return pt.mean((out[-1] - inputs["y"]) ** 2)

    def direction(self, name: str, X: Any, mask: Any, backwards: bool) -> Any:
        """The outputs of one direction in the order of its steps, (time, batch, hidden)."""
        W, U, b, peep, c0, h0 = (self.params[f"{name}.{k}"] for k in (
            "W_in", "W_hid", "b", "W_cell", "cell_init", "hid_init"))
        n, clip = len(self.problem.parameters["dense.W"]), self.problem.options["clip"]

        def step(x: Any, m: Any, h: Any, c: Any, U: Any, peep: Any) -> list[Any]:
            gates = grad_clip(x + pt.dot(h, U), -clip, clip)
            i, f, g, o = (gates[:, k * n:(k + 1) * n] for k in range(4))
            new_c = (pt.sigmoid(f + peep[1] * c) * c
                     + pt.sigmoid(i + peep[0] * c) * pt.tanh(g))
            new_h = pt.sigmoid(o + peep[2] * new_c) * pt.tanh(new_c)
            return [pt.switch(m, new_h, h), pt.switch(m, new_c, c)]

        rows = X.reshape((-1, X.shape[2]))
        products = (pt.dot(rows, W) + b).reshape((X.shape[0], X.shape[1], 4 * n))
        ones = pt.ones((X.shape[1], 1), dtype="float32")
        outs = pytensor.scan(step, sequences=[products, mask],
                             outputs_info=[pt.dot(ones, h0), pt.dot(ones, c0)],
                             non_sequences=[U, peep], go_backwards=backwards, strict=True,
                             return_list=True, return_updates=False)
        return outs[0]
