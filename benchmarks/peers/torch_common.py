"""What the workloads in PyTorch share: eager training steps."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import settings
import torch
from problem import Problem
from worker import Unavailable

VERSION = f"PyTorch {torch.__version__}, Python {sys.version.split()[0]}"

Tensor = torch.Tensor

RULES: dict[str, Callable[[list[Any]], torch.optim.Optimizer]] = {
    "adam": lambda params: torch.optim.Adam(
        params, settings.ADAM_RATE, (settings.BETA1, settings.BETA2), settings.ADAM_EPSILON,
        **({"fused": True} if params[0].is_cuda else {"foreach": True})),
    "adagrad": lambda params: torch.optim.Adagrad(
        params, settings.ADAGRAD_RATE, eps=settings.ADAGRAD_EPSILON, foreach=True),
    "sgd": lambda params: torch.optim.SGD(params, settings.SGD_RATE, foreach=True),
}


def limit_threads() -> None:
    """As many threads as the benchmark allows."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


def open_device(problem: Problem) -> torch.device:
    """Where the problem is to be worked on: the CPU unless its options say 'cuda', where float32
    is then float32 in cuDNN, too.  Raises Unavailable without such a GPU."""
    device = torch.device("cuda" if problem.options.get("device") == "cuda" else "cpu")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise Unavailable("this PyTorch finds no GPU")
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return device


def wait(result: Tensor) -> None:
    """Until the GPU has done all that was asked of it, where the result lies on one."""
    if result.is_cuda:
        torch.cuda.synchronize()


class Training(torch.nn.Module):
    """Training steps; see ``worker.Workload``.  A subclass defines ``variants``, ``inputs``,
    ``build``, ``loss`` and, where a module of PyTorch has its parameters in other forms than the
    problem, ``to_model`` and ``to_problem``."""

    variants: tuple[str, ...] = ("",)
    inputs: tuple[str, ...] = ()
    on_host: tuple[str, ...] = ()  # of the inputs, those that PyTorch wants there

    def __init__(self, problem: Problem, variant: str) -> None:
        if variant not in self.variants:
            raise Unavailable(f"there is no variant {variant!r}")
        limit_threads()
        super().__init__()
        self.stages: dict[str, float] = {}
        self.compiles = None
        self.problem, self.variant = problem, variant
        device = open_device(problem)
        self.build()
        self.to(device)
        self.put(problem.parameters)
        self.trained = {k: p for k, p in self.named_parameters() if p.requires_grad}
        self.optimizer = RULES[problem.options["update"]](list(self.trained.values()))
        self.batches = [[torch.from_numpy(a).to("cpu" if name in self.on_host else device)
                         for name, a in zip(self.inputs, self.prepared(batch), strict=True)]
                        for batch in problem.batches]
        self.done = 0

    def build(self) -> None:
        """Make the modules and parameters; the parameters of the problem are the default."""
        for name, value in self.problem.parameters.items():
            key = name.replace(".", "_")
            setattr(self, key, torch.nn.Parameter(torch.from_numpy(value.copy())))

    def prepared(self, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The arguments of ``loss`` that a minibatch gives."""
        return [batch[name] for name in self.inputs]

    def loss(self, *batch: Tensor) -> Tensor:
        """The scalar to minimise."""
        raise NotImplementedError

    def to_model(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The problem's parameters as the modules have them."""
        return {name.replace(".", "_"): value for name, value in params.items()}

    def to_problem(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The reverse of ``to_model``; it serves gradients too."""
        return {name: params[name.replace(".", "_")] for name in self.problem.parameters}

    def put(self, params: dict[str, np.ndarray]) -> None:
        """Set the parameters to those of the problem."""
        with torch.no_grad():
            own = dict(self.named_parameters())
            for name, value in self.to_model(params).items():
                own[name].copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def step(self) -> float:
        batch = self.batches[self.done % len(self.batches)]
        self.done += 1
        self.optimizer.zero_grad()
        value = self.loss(*batch)
        value.backward()
        self.optimizer.step()
        wait(value)
        return value.item()

    def results(self) -> dict[str, dict[str, Any]]:
        now = {k: p.detach().cpu().numpy().copy() for k, p in self.trained.items()}
        self.put(self.problem.parameters)
        self.optimizer.zero_grad()
        self.loss(*self.batches[0]).backward()
        grads = {k: p.grad.cpu().numpy().copy() for k, p in self.trained.items()
                 if p.grad is not None}
        out = {"gradients": self.to_problem(grads), "parameters": self.to_problem(now)}
        self.put(out["parameters"])
        return out
