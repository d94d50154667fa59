"""W7 on tinygraph."""

from __future__ import annotations

import time
from typing import Any

from problem import Problem
from tinygraph_common import VERSION

import tinygraph
import tinygraph.tensor as T

__all__ = ["VERSION", "Workload"]


class Workload:
    """The sum and its gradients; see ``worker.Workload``."""

    def __init__(self, problem: Problem, variant: str) -> None:
        start = time.perf_counter()
        a, b, c, d = wrt = [T.vector(k) for k in "abcd"]
        y = (T.tanh(a * b + c) * T.nnet.sigmoid(d) - T.exp(-a * a)).sum()
        self.function = tinygraph.function(wrt, [y, *tinygraph.grad(y, wrt)], name="chain")
        self.stages = {"function()": time.perf_counter() - start}
        self.arrays = [problem.parameters[k] for k in "abcd"]

    @property
    def compiles(self) -> int:
        return self.function.compiles

    def step(self) -> Any:
        return self.function(*self.arrays)[0]

    def results(self) -> dict[str, dict[str, Any]]:
        return {"gradients": dict(zip("abcd", self.function(*self.arrays)[1:], strict=True))}
