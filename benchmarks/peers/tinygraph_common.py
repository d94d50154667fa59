"""What the workloads on tinygraph share."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import settings
from problem import Problem
from worker import on_host

import tinygraph
from tinygraph_rnn import updates

VERSION = f"tinygraph {tinygraph.__version__}, NumPy {np.__version__}"

Arrays = dict[str, np.ndarray]


@dataclass
class Model:
    """inputs: variables by the names of a minibatch's arrays;  result: the cost, or what is
    inferred;  params: shared variables by name."""

    inputs: dict[str, Any]
    result: Any
    params: dict[str, Any]


def shared(problem: Problem) -> dict[str, Any]:
    """The parameters as shared variables."""
    return {name: tinygraph.shared(value, name) for name, value in problem.parameters.items()}


RULES: dict[str, Callable[..., Any]] = {
    "adam": lambda cost, params: updates.adam(
        cost, params, settings.ADAM_RATE, settings.BETA1, settings.BETA2, settings.ADAM_EPSILON),
    # tinygraph_rnn has its epsilon under the root
    "adagrad": lambda cost, params: updates.adagrad(
        cost, params, settings.ADAGRAD_RATE, settings.ADAGRAD_EPSILON ** 2),
    "sgd": lambda cost, params: updates.sgd(cost, params, settings.SGD_RATE),
    "none": lambda cost, params: {},
}


class Training:
    """Steps of a model; see ``worker.Workload``; ``variant``: passes, as ``function`` takes them.
    A subclass defines ``model``, and where its
    parameters have other forms than the problem's, ``to_model`` and ``to_problem``."""

    def __init__(self, problem: Problem, variant: str) -> None:
        clock = [time.perf_counter()]
        self.problem = problem
        self.network = self.model(problem)
        clock.append(time.perf_counter())
        params = list(self.network.params.values())
        changes = RULES[problem.options["update"]](self.network.result, params)
        clock.append(time.perf_counter())
        self.inputs = list(self.network.inputs.values())
        device = problem.options.get("device", "cpu")
        self.backend = None if device == "cpu" else device
        on_gpu = device == "cuda"
        result = self.network.result
        self.function = tinygraph.function(self.inputs,
                                           tinygraph.Out(result, borrow=True) if on_gpu else result,
                                           updates=changes,
                                           name=type(self).__name__, passes=variant or None,
                                           backend=self.backend)
        clock.append(time.perf_counter())
        self.stages = dict(zip(("network", "gradient and updates", "function()"),
                               np.diff(clock).tolist(), strict=True))
        self.cupy = importlib.import_module("cupy") if on_gpu else None
        put = self.cupy.asarray if self.cupy else np.asarray
        self.batches = [[put(batch[name]) for name in self.network.inputs]
                        for batch in problem.batches]
        self.done = 0
        self._put(self.to_model(problem.parameters))

    def model(self, problem: Problem) -> Model:
        """The symbolic model."""
        raise NotImplementedError

    def to_model(self, params: Arrays) -> Arrays:
        """The problem's parameters as the model has them."""
        return params

    def to_problem(self, params: Arrays) -> Arrays:
        """The reverse of ``to_model``; it serves gradients too."""
        return params

    @property
    def compiles(self) -> int:
        return self.function.compiles

    def step(self) -> Any:
        batch = self.batches[self.done % len(self.batches)]
        self.done += 1
        result = self.function(*batch)
        if self.cupy is None:
            return result
        self.cupy.cuda.Device().synchronize()
        return float(result) if result.ndim == 0 else result

    def results(self) -> dict[str, Arrays]:
        if self.problem.options["update"] == "none":
            return {"outputs": {"result": on_host(self.function(*self.batches[0]))}}
        names, params = zip(*self.network.params.items(), strict=True)
        gradients = tinygraph.function(self.inputs,
                                       tinygraph.grad(self.network.result, list(params)),
                                       backend=self.backend)
        now = {name: p.get_value() for name, p in self.network.params.items()}
        self._put(self.to_model(self.problem.parameters))
        found = dict(zip(names, gradients(*self.batches[0]), strict=True))
        self._put(now)
        return {"gradients": self.to_problem(found), "parameters": self.to_problem(now)}

    def _put(self, values: Arrays) -> None:
        for name, p in self.network.params.items():
            p.set_value(values[name])
