"""W6 in JAX.  Variants: 'scan'; 'unrolled', no loop but straight code for every length."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax_common import VERSION, Training, Tree

__all__ = ["VERSION", "Workload"]


class Workload(Training):
    """Training steps on one string each."""

    variants = ("scan", "unrolled")
    inputs = ("v", "target")

    def loss(self, params: Tree, *batch: jax.Array) -> jax.Array:
        v, target = batch

        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = jnp.tanh(x + h @ params["W_hh"])
            return h, h
        _, h = jax.lax.scan(step, params["h0"], v @ params["W_ih"] + params["b_h"],
                            unroll=len(v) if self.variant == "unrolled" else 1)
        x = h @ params["W_ho"] + params["b_o"]
        return jnp.mean(jax.nn.softplus(x) - target * x)
