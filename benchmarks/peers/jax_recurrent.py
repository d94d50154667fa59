"""Plain LSTM and GRU in JAX: gates in one matrix, the input products before ``lax.scan``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax_common import VERSION, Training, Tree, open_device
from problem import Problem

__all__ = ["VERSION", "Workload"]


def lstm(U: jax.Array, carry: Tree, x: jax.Array) -> tuple[Tree, None]:
    """One step: carry (h, c)."""
    h, c = carry
    i, f, g, o = jnp.split(x + h @ U, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None


def gru(U: jax.Array, carry: Tree, x: jax.Array) -> tuple[Tree, None]:
    """One step: carry (h,)."""
    (h,) = carry
    (xr, xz, xn), (hr, hz, hn) = jnp.split(x, 3, axis=-1), jnp.split(h @ U, 3, axis=-1)
    z = jax.nn.sigmoid(xz + hz)
    return ((1 - z) * h + z * jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn),), None


CELLS = {"lstm": (lstm, 2), "gru": (gru, 1)}


def last_state(cell: str, params: Tree, X: jax.Array, unroll: int) -> jax.Array:
    """The last h; X is (time, batch, features)."""
    step, states = CELLS[cell]
    U = params["U"]
    zero = jnp.zeros((X.shape[1], U.shape[0]), X.dtype)
    carry, _ = jax.lax.scan(lambda carry, x: step(U, carry, x), (zero,) * states,
                            X @ params["W"] + params["b"], unroll=unroll)
    return carry[0]


class Steps(Training):
    """Training steps.  Variants: 'scan'; 'unrolled', four steps in one turn of the loop."""

    variants = ("scan", "unrolled")
    inputs = ("X",)

    def loss(self, params: Tree, *batch: jax.Array) -> jax.Array:
        h = last_state(self.problem.options["cell"], params, batch[0],
                       4 if self.variant == "unrolled" else 1)
        return jnp.mean(h ** 2)


class Inference:
    """The last state; see ``worker.Workload``."""

    def __init__(self, problem: Problem, variant: str) -> None:
        self.stages: dict[str, float] = {}
        open_device(problem)
        self.params = jax.tree.map(jnp.array, problem.parameters)
        self.X = jnp.asarray(problem.batches[0]["X"])
        unroll = 4 if variant == "unrolled" else 1
        self.infer = jax.jit(lambda p, X: last_state(problem.options["cell"], p, X, unroll))

    @property
    def compiles(self) -> int:
        return self.infer._cache_size()

    def step(self) -> jax.Array:
        return self.infer(self.params, self.X).block_until_ready()

    def results(self) -> dict[str, dict[str, Any]]:
        return {"outputs": {"result": self.step()}}


def Workload(problem: Problem, variant: str) -> Any:  # noqa: N802
    """Training or inference, as the problem says."""
    return (Inference if problem.options["update"] == "none" else Steps)(problem, variant)
