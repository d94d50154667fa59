"""W7: tanh(a b + c) sigmoid(d) - exp(-a a), its sum and the gradients of that."""

from __future__ import annotations

from typing import Any

import numpy as np
from problem import Problem

from workloads import tape


def create(seed: int, n: int = 1000) -> Problem:
    """The vectors a, b, c, d of ``n`` elements."""
    rng = np.random.default_rng(seed)
    return Problem({k: rng.standard_normal(n).astype(np.float32) for k in "abcd"},
                   options={"update": "gradients"})


def loss(params: dict[str, tape.Var], batch: dict[str, np.ndarray], options: dict[str, Any]
         ) -> tape.Var:
    """The sum."""
    a, b, c, d = params.values()
    return tape.total(tape.tanh(a * b + c) * tape.sigmoid(d) - tape.exp(-(a * a)))
