"""The tutorial model in JAX: the gates of a direction in one matrix, the input products of all
steps before the loop, ``lax.scan``.

Variants: 'scans', a scan for each direction; 'vmapped', one scan over both directions stacked;
'padded', 'scans' with minibatches padded to a multiple of 32 steps, for lengths that vary much.
Slower on the machine this was tuned on, hence left out: ``unroll=5`` in either scan (twice the
time of a step, three times that of compilation).  Adam on one flat vector: no difference.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax_common import VERSION, Training, Tree, clip_gradient

__all__ = ["VERSION", "Workload"]

DIRECTIONS = ("forward", "backward")
PADDING = 32


def cell_step(p: Tree, clip: float, carry: Tree, now: Tree) -> tuple[Tree, jax.Array]:
    """One step of one direction: carry (h, c), each (batch, hidden); now: the input products
    (batch, 4 hidden) and where the sequences go on (batch, 1)."""
    h, c = carry
    x, goes_on = now
    i, f, g, o = jnp.split(clip_gradient(x + h @ p["W_hid"], clip), 4, axis=-1)
    peep_i, peep_f, peep_o = p["W_cell"]
    new_c = (jax.nn.sigmoid(f + peep_f * c) * c
             + jax.nn.sigmoid(i + peep_i * c) * jnp.tanh(g))
    new_h = jax.nn.sigmoid(o + peep_o * new_c) * jnp.tanh(new_c)
    h, c = jnp.where(goes_on, new_h, h), jnp.where(goes_on, new_c, c)
    return (h, c), h


def start(p: Tree, batch: int) -> Tree:
    """The carry before the first step."""
    hidden = p["hid_init"].shape[-1]
    return tuple(jnp.broadcast_to(p[key], (batch, hidden)) for key in ("hid_init", "cell_init"))


def two_scans(params: Tree, X: jax.Array, goes_on: jax.Array, clip: float) -> jax.Array:
    """The sum of both directions' outputs, (time, batch, hidden); X is (time, batch, features)."""
    total = jnp.float32(0)
    for d in DIRECTIONS:
        p = params[d]
        _, out = jax.lax.scan(partial(cell_step, p, clip), start(p, X.shape[1]),
                              (X @ p["W_in"] + p["b"], goes_on), reverse=d == "backward")
        total = total + out
    return total


def one_scan(params: Tree, X: jax.Array, goes_on: jax.Array, clip: float) -> jax.Array:
    """``two_scans`` as one scan over both directions, stacked on a leading axis."""
    p = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[d] for d in DIRECTIONS))
    both = jnp.stack([X, X[::-1]], 1)
    products = jnp.einsum("tdbf,dfk->tdbk", both, p["W_in"]) + p["b"][:, None]
    step = jax.vmap(lambda p, carry, now: cell_step(p, clip, carry, now))
    _, out = jax.lax.scan(
        lambda carry, now: step(p, carry, now), jax.vmap(partial(start, batch=X.shape[1]))(p),
        (products, jnp.stack([goes_on, goes_on[::-1]], 1)))
    return out[:, 0] + out[::-1, 1]


class Workload(Training):
    """Training steps."""

    variants = ("scans", "vmapped", "padded")

    def prepared(self, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
        X, mask = batch["X"], batch["mask"]
        if self.variant == "padded":  # in front: the loss reads the last step
            more = -X.shape[1] % PADDING
            X = np.pad(X, ((0, 0), (more, 0), (0, 0)))
            mask = np.pad(mask, ((0, 0), (more, 0)))
        return [X, batch["y"], mask]

    def loss(self, params: Tree, *batch: jax.Array) -> jax.Array:
        X, y, mask = batch
        tree: Any = {d: {k.partition(".")[2]: v for k, v in params.items() if k.startswith(d)}
                     for d in DIRECTIONS}
        walk = one_scan if self.variant == "vmapped" else two_scans
        hidden = walk(tree, X.swapaxes(0, 1), mask.T[..., None] != 0,
                      self.problem.options["clip"])
        out = jnp.tanh(hidden @ params["dense.W"] + params["dense.b"])[..., 0]
        return jnp.mean((out[-1] - y) ** 2)
