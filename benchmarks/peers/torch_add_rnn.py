"""W2 in PyTorch.

Variants: 'nn', its own module on packed sequences, with one bias instead of two; 'eager', a loop
by hand over both directions at once, the input products before it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch_common import VERSION, Tensor, Training

__all__ = ["VERSION", "Workload"]

DIRECTIONS = {"forward": "", "backward": "_reverse"}
NAMES = {"W_in": "weight_ih_l0", "W_hid": "weight_hh_l0", "b": "bias_ih_l0"}


class Module(Training):
    """Training steps with ``torch.nn.RNN``."""

    inputs = ("X", "y", "lengths")
    on_host = ("lengths",)
    variants = ("nn",)

    def build(self) -> None:
        features, hidden = self.problem.parameters["forward.W_in"].shape
        self.rnn = torch.nn.RNN(features, hidden, batch_first=True, bidirectional=True)
        for name, p in self.rnn.named_parameters():
            if name.startswith("bias_hh"):
                torch.nn.init.zeros_(p)
                p.requires_grad_(False)
        self.dense = torch.nn.Linear(2 * hidden, 1)

    def names(self) -> dict[str, str]:
        """The problem's names with the modules'."""
        out = {f"{d}.{key}": f"rnn.{name}{suffix}"
               for d, suffix in DIRECTIONS.items() for key, name in NAMES.items()}
        return {**out, "dense.W": "dense.weight", "dense.b": "dense.bias"}

    def to_model(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: params[key].T for key, name in self.names().items()}

    def to_problem(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {key: params[name].T for key, name in self.names().items()}

    def prepared(self, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [batch["X"], batch["y"], batch["mask"].sum(1).astype(np.int64)]

    def loss(self, *batch: Tensor) -> Tensor:
        X, y, lengths = batch
        packed = torch.nn.utils.rnn.pack_padded_sequence(X, lengths, True, False)
        _, last = self.rnn(packed)
        out = torch.tanh(self.dense(last.transpose(0, 1).flatten(1)))[:, 0]
        return torch.nn.functional.mse_loss(out, y)


class Eager(Training):
    """Training steps with a loop."""

    inputs = ("X", "y", "mask")
    variants = ("eager",)

    def build(self) -> None:
        for name, value in self.to_model(self.problem.parameters).items():
            setattr(self, name, torch.nn.Parameter(torch.from_numpy(value.copy())))

    def to_model(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        out = {key: np.stack([params[f"{d}.{key}"] for d in DIRECTIONS]) for key in NAMES}
        return {**out, "dense_W": params["dense.W"], "dense_b": params["dense.b"]}

    def to_problem(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        out = {f"{d}.{key}": params[key][k] for k, d in enumerate(DIRECTIONS) for key in NAMES}
        return {**out, "dense.W": params["dense_W"], "dense.b": params["dense_b"]}

    def loss(self, *batch: Tensor) -> Tensor:
        X, y, mask = batch
        X, goes_on = X.transpose(0, 1), (mask.T != 0).unsqueeze(-1)
        steps, size, features = X.shape
        both = torch.stack([X, X.flip(0)]).reshape(2, -1, features)
        x = torch.baddbmm(self.b.unsqueeze(1), both, self.W_in).view(2, steps, size, -1)
        goes_on = torch.stack([goes_on, goes_on.flip(0)])
        h = x.new_zeros(2, size, x.shape[-1])
        for now, m in zip(x.unbind(1), goes_on.unbind(1), strict=True):
            h = torch.where(m, torch.tanh(torch.baddbmm(now, h, self.W_hid)), h)
        last = h.transpose(0, 1).flatten(1)
        out = torch.tanh(torch.addmm(self.dense_b, last, self.dense_W))[:, 0]
        return torch.nn.functional.mse_loss(out, y)


def Workload(problem, variant):  # noqa: N802
    """One of the variants."""
    return (Module if variant == "nn" else Eager)(problem, variant)
