"""Plain LSTM and GRU in PyTorch.

Variants: 'nn', its own modules, with one bias instead of two; 'eager', a cell written by hand with
the module's parameters, the input products before the loop; 'compile', that cell through
``torch.compile``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from problem import Problem
from torch_common import VERSION, Tensor, Training, limit_threads, open_device, wait

__all__ = ["VERSION", "Workload"]

MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
NAMES = {"W": "rnn.weight_ih_l0", "U": "rnn.weight_hh_l0", "b": "rnn.bias_ih_l0"}


def module(problem: Problem) -> torch.nn.Module:
    """The module, whose second bias stays zero."""
    features, hidden = len(problem.parameters["W"]), len(problem.parameters["U"])
    out = MODULES[problem.options["cell"]](features, hidden)
    torch.nn.init.zeros_(out.bias_hh_l0)
    out.bias_hh_l0.requires_grad_(False)
    return out


def to_model(problem: Problem, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The problem's parameters as the module has them, transposed.  The update gate of its GRU
    keeps the state where the problem's changes it: the argument has the other sign."""
    return {NAMES[k]: np.ascontiguousarray((signs(problem) * v).T) for k, v in params.items()}


def signs(problem: Problem) -> np.ndarray:
    """For every column of the gates: the module's sign against the problem's."""
    hidden = len(problem.parameters["U"])
    per_gate = [1, -1, 1] if problem.options["cell"] == "gru" else [1, 1, 1, 1]
    return np.repeat(np.array(per_gate, np.float32), hidden)


def lstm(x: Tensor, U: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step: x (batch, 4 hidden) holds the input products."""
    i, f, g, o = torch.addmm(x, h, U).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(x: Tensor, U: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step with the module's signs; c is passed on."""
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, -1), (h @ U).chunk(3, -1)
    z = torch.sigmoid(xz + hz)
    n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
    return n + z * (h - n), c


CELLS = {"lstm": lstm, "gru": gru}


class Steps(Training):
    """Training steps."""

    variants = ("nn", "eager", "compile")
    inputs = ("X",)

    def build(self) -> None:
        self.rnn = module(self.problem)
        cell = CELLS[self.problem.options["cell"]]
        self.cell = torch.compile(cell) if self.variant == "compile" else cell

    def to_model(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return to_model(self.problem, params)

    def to_problem(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {k: params[name].T * signs(self.problem) for k, name in NAMES.items()}

    def loss(self, *batch: Tensor) -> Tensor:
        last = self.rnn(batch[0])[0][-1] if self.variant == "nn" else self.looped(batch[0])
        return (last ** 2).mean()

    def looped(self, X: Tensor) -> Tensor:
        """The last state, by a loop in Python."""
        steps, size, features = X.shape
        W, U, b = (self.rnn.get_parameter(NAMES[k].removeprefix("rnn.")) for k in "WUb")
        x = torch.addmm(b, X.reshape(-1, features), W.T).view(steps, size, -1)
        h = c = x.new_zeros(size, U.shape[1])
        for now in x.unbind(0):
            h, c = self.cell(now, U.T, h, c)
        return h


class Inference:
    """The last state; see ``worker.Workload``."""

    def __init__(self, problem: Problem, variant: str) -> None:
        limit_threads()
        self.stages: dict[str, float] = {}
        self.compiles = None
        device = open_device(problem)
        self.rnn = module(problem)
        with torch.no_grad():
            for name, value in to_model(problem, problem.parameters).items():
                self.rnn.get_parameter(name.removeprefix("rnn.")).copy_(torch.from_numpy(value))
        self.rnn.to(device)
        self.X = torch.from_numpy(problem.batches[0]["X"]).to(device)

    def step(self) -> Tensor:
        with torch.inference_mode():
            last = self.rnn(self.X)[0][-1]
        wait(last)
        return last

    def results(self) -> dict[str, dict[str, Any]]:
        return {"outputs": {"result": self.step().cpu().numpy()}}


def Workload(problem: Problem, variant: str) -> Any:  # noqa: N802
    """Training or inference, as the problem says."""
    return (Inference if problem.options["update"] == "none" else Steps)(problem, variant)
