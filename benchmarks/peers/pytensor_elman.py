"""W6 in PyTensor: only the recurrence inside the scan."""

from __future__ import annotations

from typing import Any

import pytensor
import pytensor.tensor as pt
from pytensor_common import VERSION, Training

__all__ = ["VERSION", "Workload"]


class Workload(Training):
    """Training steps on one string each."""

    inputs = ("v", "target")

    def model(self, inputs: dict[str, Any]) -> Any:
        v, target, p = inputs["v"], inputs["target"], self.params
        h = pytensor.scan(lambda x, h, W: pt.tanh(x + pt.dot(h, W)),
                          sequences=[pt.dot(v, p["W_ih"]) + p["b_h"]], outputs_info=[p["h0"]],
                          non_sequences=[p["W_hh"]], strict=True, return_updates=False)
        x = pt.dot(h, p["W_ho"]) + p["b_o"]
        return pt.mean(pt.softplus(x) - target * x)
