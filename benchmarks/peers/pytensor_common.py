"""What the workloads in PyTensor share: one compiled training step on shared variables.

Variants are main modes: 'numba', its default; 'c', which needs a C++ compiler.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import settings
from problem import Problem
from worker import Unavailable

VERSION = f"PyTensor {pytensor.__version__}, Python {sys.version.split()[0]}"

pytensor.config.floatX = "float32"

Arrays = dict[str, np.ndarray]


def mode(variant: str) -> Any:
    """The mode of a variant."""
    if variant == "c":
        if not pytensor.config.cxx:
            raise Unavailable("there is no C++ compiler")
        return "CVM"
    return "NUMBA"


def like(p: Any) -> Any:
    """A shared variable of zeros of the form of ``p``."""
    return pytensor.shared(np.zeros_like(p.get_value()), shape=p.type.shape)


def sgd(params: list[Any], grads: list[Any]) -> list[tuple[Any, Any]]:
    """Gradient descent."""
    return [(p, p - np.float32(settings.SGD_RATE) * g)
            for p, g in zip(params, grads, strict=True)]


def adagrad(params: list[Any], grads: list[Any]) -> list[tuple[Any, Any]]:
    """Duchi, Hazan and Singer 2011, with diagonal matrices."""
    out = []
    for p, g in zip(params, grads, strict=True):
        total = like(p)
        new = total + g * g
        out += [(total, new), (p, p - np.float32(settings.ADAGRAD_RATE) * g
                               / (pt.sqrt(new) + np.float32(settings.ADAGRAD_EPSILON)))]
    return out


def adam(params: list[Any], grads: list[Any]) -> list[tuple[Any, Any]]:
    """Kingma and Ba 2014, section 2, in their faster order of computation."""
    b1, b2, epsilon = map(np.float32, (settings.BETA1, settings.BETA2, settings.ADAM_EPSILON))
    steps = pytensor.shared(np.float32(0))
    t = steps + np.float32(1)
    rate = np.float32(settings.ADAM_RATE) * pt.sqrt(1 - b2 ** t) / (1 - b1 ** t)
    out = [(steps, t)]
    for p, g in zip(params, grads, strict=True):
        mean, square = like(p), like(p)
        m, v = b1 * mean + (1 - b1) * g, b2 * square + (1 - b2) * g * g
        out += [(mean, m), (square, v), (p, p - rate * m / (pt.sqrt(v) + epsilon))]
    return out


RULES = {"sgd": sgd, "adagrad": adagrad, "adam": adam}


class Training:
    """Steps of a model; see ``worker.Workload``.  A subclass defines ``inputs``, the names of a
    minibatch's arrays, and ``model``."""

    inputs: tuple[str, ...] = ()

    def __init__(self, problem: Problem, variant: str) -> None:
        self.stages: dict[str, float] = {}
        self.compiles = 1
        self.mode, self.problem = mode(variant), problem
        self.params = {k: pytensor.shared(v, k, shape=v.shape)
                       for k, v in problem.parameters.items()}
        first = problem.batches[0]
        self.variables = [pt.TensorType("float32", (None,) * first[k].ndim)(k)
                          for k in self.inputs]
        self.result = self.model(dict(zip(self.inputs, self.variables, strict=True)))
        changes = []
        if problem.options["update"] != "none":
            params = list(self.params.values())
            self.grads = pt.grad(self.result, params)
            changes = RULES[problem.options["update"]](params, self.grads)
        self.function = pytensor.function(self.variables, self.result, updates=changes,
                                          mode=self.mode, trust_input=True)
        self.batches = [[batch[k] for k in self.inputs] for batch in problem.batches]
        self.done = 0

    def model(self, inputs: dict[str, Any]) -> Any:
        """The loss, or what is inferred."""
        raise NotImplementedError

    def step(self) -> Any:
        batch = self.batches[self.done % len(self.batches)]
        self.done += 1
        return self.function(*batch)

    def results(self) -> dict[str, dict[str, Any]]:
        if self.problem.options["update"] == "none":
            return {"outputs": {"result": self.function(*self.batches[0])}}
        now = {k: p.get_value() for k, p in self.params.items()}
        gradients = pytensor.function(self.variables, self.grads, mode=self.mode)
        self.put(self.problem.parameters)
        found = dict(zip(self.params, gradients(*self.batches[0]), strict=True))
        self.put(now)
        return {"gradients": found, "parameters": now}

    def put(self, values: Arrays) -> None:
        """Set the parameters."""
        for k, p in self.params.items():
            p.set_value(values[k])
