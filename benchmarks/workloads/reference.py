"""What the steps of a workload should give: NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import settings
from problem import Problem

from workloads import tape

Arrays = dict[str, np.ndarray]


def steps(module: Any, problem: Problem, count: int) -> tuple[list[float], dict[str, Arrays]]:
    """Do ``count`` steps; the result of each (its mean) and, by kind, the arrays to compare.

    module: of this folder, with ``loss(parameters, batch, options)``.  What a step gives besides
    is in the problem's options: ``update``, the name of an optimiser, or 'gradients', the
    gradients alone, or 'none', the result alone.
    """
    update, options = problem.options["update"], problem.options
    values = {k: np.asarray(v, np.float64) for k, v in problem.parameters.items()}
    state: dict[str, Arrays] = {}
    results: list[float] = []
    out: dict[str, Arrays] = {}
    for k in range(count):
        params = {name: tape.Var(v) for name, v in values.items()}
        loss = module.loss(params, problem.batches[k % len(problem.batches)], options)
        results.append(float(loss.value.mean()))
        if update == "none":
            return results * count, {"outputs": {"result": loss.value}}
        grads = dict(zip(params, tape.gradients(loss, list(params.values())), strict=True))
        if update == "gradients":
            return results * count, {"gradients": grads}
        values = UPDATES[update](values, grads, state, k + 1)
        out = out or {"gradients": grads, "parameters": values}
    return results, out


def adam(values: Arrays, grads: Arrays, state: dict[str, Arrays], t: int) -> Arrays:
    """Kingma and Ba 2014, algorithm 1."""
    b1, b2 = settings.BETA1, settings.BETA2
    zeros = {name: np.zeros_like(v) for name, v in values.items()}
    m, v = state.get("m", zeros), state.get("v", zeros)
    state["m"] = m = {k: b1 * m[k] + (1 - b1) * g for k, g in grads.items()}
    state["v"] = v = {k: b2 * v[k] + (1 - b2) * g * g for k, g in grads.items()}
    return {k: p - settings.ADAM_RATE * (m[k] / (1 - b1 ** t))
            / (np.sqrt(v[k] / (1 - b2 ** t)) + settings.ADAM_EPSILON) for k, p in values.items()}


def adagrad(values: Arrays, grads: Arrays, state: dict[str, Arrays], t: int) -> Arrays:
    """Duchi, Hazan and Singer 2011, with diagonal matrices."""
    old = state.get("s", dict.fromkeys(values, 0.0))
    state["s"] = s = {k: old[k] + g * g for k, g in grads.items()}
    return {k: p - settings.ADAGRAD_RATE * grads[k] / (np.sqrt(s[k]) + settings.ADAGRAD_EPSILON)
            for k, p in values.items()}


def sgd(values: Arrays, grads: Arrays, state: dict[str, Arrays], t: int) -> Arrays:
    """Gradient descent."""
    return {k: p - settings.SGD_RATE * grads[k] for k, p in values.items()}


UPDATES: dict[str, Callable[..., Arrays]] = {"adam": adam, "adagrad": adagrad, "sgd": sgd}
