"""W7 in PyTensor."""

from __future__ import annotations

from typing import Any

import pytensor
import pytensor.tensor as pt
from problem import Problem
from pytensor_common import VERSION, mode

__all__ = ["VERSION", "Workload"]


class Workload:
    """The sum and its gradients; see ``worker.Workload``."""

    def __init__(self, problem: Problem, variant: str) -> None:
        self.stages: dict[str, float] = {}
        self.compiles = 1
        a, b, c, d = wrt = [pt.vector(k, dtype="float32") for k in "abcd"]
        y = (pt.tanh(a * b + c) * pt.sigmoid(d) - pt.exp(-a * a)).sum()
        self.function = pytensor.function(wrt, [y, *pt.grad(y, wrt)], mode=mode(variant),
                                          trust_input=True)
        self.arrays = [problem.parameters[k] for k in "abcd"]

    def step(self) -> Any:
        return self.function(*self.arrays)[0]

    def results(self) -> dict[str, dict[str, Any]]:
        return {"gradients": dict(zip("abcd", self.function(*self.arrays)[1:], strict=True))}
