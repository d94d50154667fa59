"""W6 in PyTorch.

Variants: 'nn', its own module, with one bias instead of two; 'eager', a loop by hand with the
input products before it; 'compile', that loop through ``torch.compile``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch_common import VERSION, Tensor, Training

__all__ = ["VERSION", "Workload"]

NAMES = {"W_ih": "rnn.weight_ih_l0", "W_hh": "rnn.weight_hh_l0", "b_h": "rnn.bias_ih_l0",
         "W_ho": "dense.weight", "b_o": "dense.bias", "h0": "h0"}


class Module(Training):
    """Training steps with ``torch.nn.RNN``."""

    inputs = ("v", "target")
    variants = ("nn",)

    def build(self) -> None:
        symbols, hidden = self.problem.parameters["W_ih"].shape
        self.rnn = torch.nn.RNN(symbols, hidden)
        torch.nn.init.zeros_(self.rnn.bias_hh_l0)
        self.rnn.bias_hh_l0.requires_grad_(False)
        self.dense = torch.nn.Linear(hidden, symbols)
        self.h0 = torch.nn.Parameter(torch.zeros(hidden))

    def to_model(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: params[key].T for key, name in NAMES.items()}

    def to_problem(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {key: params[name].T for key, name in NAMES.items()}

    def loss(self, *batch: Tensor) -> Tensor:
        v, target = batch
        h, _ = self.rnn(v, self.h0.unsqueeze(0))
        return torch.nn.functional.binary_cross_entropy_with_logits(self.dense(h), target)


def cost(v: Tensor, target: Tensor, W_ih: Tensor, W_hh: Tensor, b_h: Tensor, h: Tensor,
         W_ho: Tensor, b_o: Tensor) -> Tensor:
    """The loss by hand."""
    h = h.unsqueeze(0)
    rows = []
    for x in torch.addmm(b_h, v, W_ih).split(1):
        h = torch.tanh(torch.addmm(x, h, W_hh))
        rows.append(h)
    y = torch.addmm(b_o, torch.cat(rows), W_ho)
    return torch.nn.functional.binary_cross_entropy_with_logits(y, target)


class Eager(Training):
    """Training steps with a loop."""

    inputs = ("v", "target")
    variants = ("eager", "compile")

    def build(self) -> None:
        super().build()
        self.cost = torch.compile(cost, dynamic=False) if self.variant == "compile" else cost

    def loss(self, *batch: Tensor) -> Tensor:
        return self.cost(*batch, self.W_ih, self.W_hh, self.b_h, self.h0, self.W_ho, self.b_o)


def Workload(problem, variant):  # noqa: N802
    """One of the variants."""
    return (Module if variant == "nn" else Eager)(problem, variant)
