"""W2 in JAX: input products before ``lax.scan``.

Variants: 'scans', a scan for each direction; 'vmapped', one over both stacked.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax_common import VERSION, Training, Tree

__all__ = ["VERSION", "Workload"]

DIRECTIONS = ("forward", "backward")


def two_scans(params: Tree, X: jax.Array, goes_on: jax.Array) -> jax.Array:
    """The last states side by side, (batch, 2 hidden); X is (time, batch, features)."""
    last = []
    for d in DIRECTIONS:
        W, U, b = (params[f"{d}.{k}"] for k in ("W_in", "W_hid", "b"))

        def step(h: jax.Array, now: Tree, U: jax.Array = U) -> tuple[jax.Array, None]:
            x, m = now
            return jnp.where(m, jnp.tanh(x + h @ U), h), None
        zero = jnp.zeros((X.shape[1], b.size), X.dtype)
        h, _ = jax.lax.scan(step, zero, (X @ W + b, goes_on), reverse=d == "backward")
        last.append(h)
    return jnp.concatenate(last, 1)


def one_scan(params: Tree, X: jax.Array, goes_on: jax.Array) -> jax.Array:
    """The same in one scan."""
    W, U, b = (jnp.stack([params[f"{d}.{k}"] for d in DIRECTIONS])
               for k in ("W_in", "W_hid", "b"))
    products = jnp.einsum("tdbf,dfk->tdbk", jnp.stack([X, X[::-1]], 1), W) + b[:, None]

    def step(h: jax.Array, now: Tree) -> tuple[jax.Array, None]:
        x, m = now
        return jnp.where(m, jnp.tanh(x + jnp.einsum("dbh,dhk->dbk", h, U)), h), None
    zero = jnp.zeros((2, X.shape[1], b.shape[1]), X.dtype)
    h, _ = jax.lax.scan(step, zero, (products, jnp.stack([goes_on, goes_on[::-1]], 1)))
    return jnp.concatenate([h[0], h[1]], 1)


class Workload(Training):
    """Training steps."""

    variants = ("scans", "vmapped")
    inputs = ("X", "y", "mask")

    def loss(self, params: Tree, *batch: jax.Array) -> jax.Array:
        X, y, mask = batch
        walk = one_scan if self.variant == "vmapped" else two_scans
        last = walk(params, X.swapaxes(0, 1), mask.T[..., None] != 0)
        out = jnp.tanh(last @ params["dense.W"] + params["dense.b"])[:, 0]
        return jnp.mean((out - y) ** 2)
