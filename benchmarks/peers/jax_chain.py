"""W7 in JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax_common import VERSION
from problem import Problem

__all__ = ["VERSION", "Workload"]


def chain(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    """The sum."""
    return jnp.sum(jnp.tanh(a * b + c) * jax.nn.sigmoid(d) - jnp.exp(-a * a))


class Workload:
    """The sum and its gradients; see ``worker.Workload``."""

    def __init__(self, problem: Problem, variant: str) -> None:
        self.stages: dict[str, float] = {}
        self.function = jax.jit(jax.value_and_grad(chain, (0, 1, 2, 3)))
        self.arrays = [jnp.asarray(problem.parameters[k]) for k in "abcd"]

    @property
    def compiles(self) -> int:
        return self.function._cache_size()

    def step(self) -> jax.Array:
        return jax.block_until_ready(self.function(*self.arrays))[0]

    def results(self) -> dict[str, dict[str, Any]]:
        return {"gradients": dict(zip("abcd", self.function(*self.arrays)[1], strict=True))}
