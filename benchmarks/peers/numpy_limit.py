"""Products of NumPy's OpenBLAS in float32: how fast this machine multiplies.

Variants: 'sgemm', one product of 1024 x 1024 matrices; 'products', all products of a training
step of the recurrent problem, with results written where they were before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from problem import Problem

VERSION = f"NumPy {np.__version__}"
SIZE = 1024


class Workload:
    """Products; see ``worker.Workload``."""

    def __init__(self, problem: Problem, variant: str) -> None:
        self.stages: dict[str, float] = {}
        self.compiles = None
        rng = np.random.default_rng(0)

        def array(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape, np.float32)
        if variant == "sgemm":
            self.once, self.each = [(array(SIZE, SIZE), array(SIZE, SIZE))], []
        else:
            X, U = problem.batches[0]["X"], problem.parameters["U"]
            W = problem.parameters["W"]
            steps, batch, features = X.shape
            hidden, width = U.shape
            rows = steps * batch
            X, h, g = X.reshape(rows, features), array(batch, hidden), array(batch, width)
            H, G = array(rows, hidden), array(rows, width)
            self.once = [(X, W), (X.T, G), (H.T, G)]
            self.each = [(h, U), (g, U.T)] * steps
        self.out: dict[tuple[int, int], np.ndarray] = {}
        for a, b in self.once + self.each:
            self.out[len(a), b.shape[1]] = array(len(a), b.shape[1])

    def step(self) -> float:
        for a, b in self.once + self.each:
            np.matmul(a, b, out=self.out[len(a), b.shape[1]])
        return 0.0

    def results(self) -> dict[str, dict[str, Any]]:
        return {}
