"""W7 in PyTorch.  Variants: 'eager'; 'compile', the sum through ``torch.compile``."""

from __future__ import annotations

from typing import Any

import torch
from problem import Problem
from torch_common import VERSION, Tensor, limit_threads

__all__ = ["VERSION", "Workload"]


def chain(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """The sum."""
    return (torch.tanh(a * b + c) * torch.sigmoid(d) - torch.exp(-a * a)).sum()


class Workload:
    """The sum and its gradients; see ``worker.Workload``."""

    def __init__(self, problem: Problem, variant: str) -> None:
        limit_threads()
        self.stages: dict[str, float] = {}
        self.compiles = None
        self.chain = torch.compile(chain) if variant == "compile" else chain
        self.arrays = [torch.from_numpy(problem.parameters[k]).requires_grad_() for k in "abcd"]

    def run(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The sum and the gradients."""
        y = self.chain(*self.arrays)
        return y.detach(), torch.autograd.grad(y, self.arrays)

    def step(self) -> Tensor:
        return self.run()[0]

    def results(self) -> dict[str, dict[str, Any]]:
        grads = [g.numpy() for g in self.run()[1]]
        return {"gradients": dict(zip("abcd", grads, strict=True))}
