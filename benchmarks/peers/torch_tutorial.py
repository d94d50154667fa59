"""The tutorial model in PyTorch.  No module of PyTorch has peepholes, masks or clipping at every
step, so the cell is written by hand: both directions at once as a batch of two products, the
input products of all steps before the loop.

Variants: 'eager'; 'compile', the cell through ``torch.compile``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch_common import VERSION, Tensor, Training

__all__ = ["VERSION", "Workload"]

DIRECTIONS = ("forward", "backward")
KEYS = ("W_in", "W_hid", "b", "W_cell", "cell_init", "hid_init")


class Clip(torch.autograd.Function):
    """The identity, whose gradient is clipped element by element."""

    @staticmethod
    def forward(ctx, x, bound):  # noqa: D102
        ctx.bound = bound
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):  # noqa: D102
        return grad.clamp(-ctx.bound, ctx.bound), None


def cell(x: Tensor, goes_on: Tensor, h: Tensor, c: Tensor, U: Tensor, peep: Tensor, clip: float
         ) -> tuple[Tensor, Tensor]:
    """One step: x (2, batch, 4 hidden) holds the input products, h and c are (2, batch, hidden);
    goes_on is (2, batch, 1), peep (2, 3, hidden)."""
    i, f, g, o = Clip.apply(torch.baddbmm(x, h, U), clip).chunk(4, -1)
    peep_i, peep_f, peep_o = peep.unsqueeze(2).unbind(1)
    new_c = (torch.sigmoid(torch.addcmul(f, peep_f, c)) * c
             + torch.sigmoid(torch.addcmul(i, peep_i, c)) * torch.tanh(g))
    new_h = torch.sigmoid(torch.addcmul(o, peep_o, new_c)) * torch.tanh(new_c)
    return torch.where(goes_on, new_h, h), torch.where(goes_on, new_c, c)


class Workload(Training):
    """Training steps.  The parameters of the directions are stacked."""

    variants = ("eager", "compile")
    inputs = ("X", "y", "mask")

    def build(self) -> None:
        for name, value in self.to_model(self.problem.parameters).items():
            setattr(self, name, torch.nn.Parameter(torch.from_numpy(value.copy())))
        self.cell = torch.compile(cell) if self.variant == "compile" else cell

    def to_model(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        out = {key: np.stack([params[f"{d}.{key}"] for d in DIRECTIONS]) for key in KEYS}
        return {**out, "dense_W": params["dense.W"], "dense_b": params["dense.b"]}

    def to_problem(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        out = {f"{d}.{key}": params[key][k] for k, d in enumerate(DIRECTIONS) for key in KEYS}
        return {**out, "dense.W": params["dense_W"], "dense.b": params["dense_b"]}

    def loss(self, *batch: Tensor) -> Tensor:
        X, y, mask = batch
        X, goes_on = X.transpose(0, 1), (mask.T != 0).unsqueeze(-1)
        steps, size, features = X.shape
        both = torch.stack([X, X.flip(0)])
        x = torch.baddbmm(self.b.unsqueeze(1), both.reshape(2, -1, features), self.W_in)
        x = x.view(2, steps, size, -1)
        goes_on = torch.stack([goes_on, goes_on.flip(0)])
        h, c = (p.expand(2, size, -1) for p in (self.hid_init, self.cell_init))
        clip = self.problem.options["clip"]
        out = []
        for now, m in zip(x.unbind(1), goes_on.unbind(1), strict=True):
            h, c = self.cell(now, m, h, c, self.W_hid, self.W_cell, clip)
            out.append(h)
        stack = torch.stack(out)
        hidden = stack[:, 0] + stack[:, 1].flip(0)
        y_hat = torch.tanh(hidden @ self.dense_W + self.dense_b)[..., 0]
        return torch.nn.functional.mse_loss(y_hat[-1], y)
