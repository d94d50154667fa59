"""What the workloads in JAX share: one jitted training step with donated buffers."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import settings
from problem import Problem
from worker import Unavailable

VERSION = f"JAX {jax.__version__}, Python {sys.version.split()[0]}"

Tree = Any


def sgd(params: Tree, grads: Tree, state: Tree) -> tuple[Tree, Tree]:
    """Gradient descent."""
    return jax.tree.map(lambda p, g: p - settings.SGD_RATE * g, params, grads), state


def adagrad(params: Tree, grads: Tree, state: Tree) -> tuple[Tree, Tree]:
    """Duchi, Hazan and Singer 2011, with diagonal matrices."""
    square = jax.tree.map(lambda s, g: s + g * g, state["square"], grads)
    new = jax.tree.map(
        lambda p, g, s: p - settings.ADAGRAD_RATE * g / (jnp.sqrt(s) + settings.ADAGRAD_EPSILON),
        params, grads, square)
    return new, {**state, "square": square}


def adam(params: Tree, grads: Tree, state: Tree) -> tuple[Tree, Tree]:
    """Kingma and Ba 2014, section 2, in their faster order of computation."""
    b1, b2 = settings.BETA1, settings.BETA2
    t = state["t"] + 1
    rate = settings.ADAM_RATE * jnp.sqrt(1 - b2 ** t) / (1 - b1 ** t)
    mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state["mean"], grads)
    square = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g ** 2, state["square"], grads)
    new = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + settings.ADAM_EPSILON),
                       params, mean, square)
    return new, {"t": t, "mean": mean, "square": square}


RULES = {"sgd": (sgd, ()), "adagrad": (adagrad, ("square",)), "adam": (adam, ("mean", "square"))}


def open_device(problem: Problem) -> None:
    """Where the options say 'cuda', make products of float32 exact.  Raises Unavailable where JAX
    would work elsewhere."""
    if problem.options.get("device") == "cuda":
        if jax.default_backend() != "gpu":
            raise Unavailable(f"this JAX finds no GPU, only {jax.default_backend()}")
        jax.config.update("jax_default_matmul_precision", "highest")


class Training:
    """Training steps; see ``worker.Workload``.  A subclass defines ``variants`` and ``loss``, a
    function of parameters and a minibatch's arrays in the order of ``inputs``."""

    variants: tuple[str, ...] = ("",)
    inputs: tuple[str, ...] = ()

    def __init__(self, problem: Problem, variant: str) -> None:
        if variant not in self.variants:
            raise Unavailable(f"there is no variant {variant!r}")
        self.stages: dict[str, float] = {}
        self.problem, self.variant = problem, variant
        open_device(problem)
        self.params = jax.tree.map(jnp.array, problem.parameters)
        self.rule, remembered = RULES[problem.options["update"]]
        zeros = {k: jax.tree.map(jnp.zeros_like, self.params) for k in remembered}
        self.state = {"t": jnp.float32(0), **zeros}
        self.batches = [[jnp.asarray(a) for a in self.prepared(batch)]
                        for batch in problem.batches]
        self.train = jax.jit(self._train, donate_argnums=(0, 1))
        self.done = 0

    def prepared(self, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The arguments of ``loss`` that a minibatch gives."""
        return [batch[name] for name in self.inputs]

    def loss(self, params: Tree, *batch: jax.Array) -> jax.Array:
        """The scalar to minimise."""
        raise NotImplementedError

    def _train(self, params: Tree, state: Tree, *batch: jax.Array) -> tuple[Tree, Tree, jax.Array]:
        value, grads = jax.value_and_grad(self.loss)(params, *batch)
        return *self.rule(params, grads, state), value

    @property
    def compiles(self) -> int:
        return self.train._cache_size()

    def step(self) -> float:
        batch = self.batches[self.done % len(self.batches)]
        self.done += 1
        self.params, self.state, value = self.train(self.params, self.state, *batch)
        jax.block_until_ready(self.params)
        return float(value)

    def results(self) -> dict[str, dict[str, Any]]:
        grads = jax.jit(jax.grad(self.loss))(self.problem.parameters, *self.batches[0])
        return {"gradients": jax.tree.map(np.asarray, grads),
                "parameters": jax.tree.map(np.array, self.params)}


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def clip_gradient(x: jax.Array, bound: float) -> jax.Array:
    """``x``, whose gradient is clipped to [-bound, bound] element by element."""
    return x


clip_gradient.defvjp(
    lambda x, bound: (x, None),
    lambda bound, _, g: (jnp.clip(g, -bound, bound),))
