"""The tutorial model in JAX: the gates of a direction in one matrix, the input products of all
steps before the loop, ``lax.scan``, one jitted training step with donated buffers.

Variants: 'scans', a scan for each direction; 'vmapped', one scan over both directions stacked.
Slower on the machine this was tuned on, hence left out: ``unroll=5`` in either scan (twice the
time of a step, three times that of compilation).  Adam on one flat vector: no difference.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

VERSION = f"JAX {jax.__version__}, Python {sys.version.split()[0]}"
VARIANTS = ("scans", "vmapped")
GATES = ("ingate", "forgetgate", "cell", "outgate")
PEEPHOLES = ("ingate", "forgetgate", "outgate")
DIRECTIONS = ("forward", "backward")
RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8

Tree = Any


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def clip_gradient(x: jax.Array, bound: float) -> jax.Array:
    """``x``, whose gradient is clipped to [-bound, bound] element by element."""
    return x


clip_gradient.defvjp(
    lambda x, bound: (x, None),
    lambda bound, _, g: (jnp.clip(g, -bound, bound),))


def fuse(arrays: dict[str, np.ndarray], prefix: str = "parameter.") -> Tree:
    """The parameters of the problem with the gates of a direction side by side."""
    def direction(d: str) -> dict[str, np.ndarray]:
        def get(key: str) -> np.ndarray:
            return arrays[f"{prefix}{d}.{key}"]
        return {"W_in": np.concatenate([get(f"W_in_to_{g}") for g in GATES], 1),
                "W_hid": np.concatenate([get(f"W_hid_to_{g}") for g in GATES], 1),
                "b": np.concatenate([get(f"b_{g}") for g in GATES]),
                "W_cell": np.stack([get(f"W_cell_to_{g}") for g in PEEPHOLES]),
                "cell_init": get("cell_init"), "hid_init": get("hid_init")}
    return {"forward": direction("forward"), "backward": direction("backward"),
            "dense": {"W": arrays[f"{prefix}dense.W"], "b": arrays[f"{prefix}dense.b"]}}


def separate(tree: Tree) -> dict[str, np.ndarray]:
    """The reverse of ``fuse``, without a prefix."""
    out = {f"dense.{key}": np.asarray(value) for key, value in tree["dense"].items()}
    for d in DIRECTIONS:
        p = {key: np.asarray(value) for key, value in tree[d].items()}
        for key, name in (("W_in", "W_in_to_"), ("W_hid", "W_hid_to_"), ("b", "b_")):
            parts = np.split(p[key], len(GATES), axis=-1)
            out |= {f"{d}.{name}{g}": part for g, part in zip(GATES, parts, strict=True)}
        out |= {f"{d}.W_cell_to_{g}": w for g, w in zip(PEEPHOLES, p["W_cell"], strict=True)}
        out |= {f"{d}.{key}": p[key] for key in ("cell_init", "hid_init")}
    return out


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


def loss(params: Tree, X: jax.Array, y: jax.Array, mask: jax.Array, *, clip: float, variant: str
         ) -> jax.Array:
    """The mean squared error of the last step's output."""
    walk = two_scans if variant == "scans" else one_scan
    goes_on = mask.T[..., None] != 0
    hidden = walk(params, X.swapaxes(0, 1), goes_on, clip)
    out = jnp.tanh(hidden @ params["dense"]["W"] + params["dense"]["b"])[..., 0]
    return jnp.mean((out[-1] - y) ** 2)


def adam(params: Tree, grads: Tree, state: Tree) -> tuple[Tree, Tree]:
    """Kingma and Ba 2014, section 2, in their faster order of computation."""
    t = state["t"] + 1
    rate = RATE * jnp.sqrt(1 - BETA2 ** t) / (1 - BETA1 ** t)
    mean = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, state["mean"], grads)
    square = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g ** 2, state["square"], grads)
    new = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + EPSILON),
                       params, mean, square)
    return new, {"t": t, "mean": mean, "square": square}


class Workload:
    """Training steps with Adam; see ``worker.Workload``.  variant: one of ``VARIANTS``."""

    def __init__(self, arrays: dict[str, np.ndarray], variant: str) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"there is no variant {variant!r}; there are {', '.join(VARIANTS)}")
        self.stages: dict[str, float] = {}
        self.initial = fuse(arrays)
        self.params = jax.tree.map(jnp.array, self.initial)
        self.state = {"t": jnp.float32(0), "mean": jax.tree.map(np.zeros_like, self.initial),
                      "square": jax.tree.map(np.zeros_like, self.initial)}
        self.state = jax.tree.map(jnp.array, self.state)
        self.data = [jnp.asarray(arrays[name]) for name in ("X", "y", "mask")]
        self.loss = partial(loss, clip=float(arrays["clip"]), variant=variant)
        self.train = jax.jit(self._train, donate_argnums=(0, 1))

    def _train(self, params: Tree, state: Tree, *data: jax.Array) -> tuple[Tree, Tree, jax.Array]:
        value, grads = jax.value_and_grad(self.loss)(params, *data)
        return *adam(params, grads, state), value

    def step(self) -> float:
        self.params, self.state, value = self.train(self.params, self.state, *self.data)
        return float(value)

    def gradients(self) -> dict[str, np.ndarray]:
        return separate(jax.jit(jax.grad(self.loss))(self.initial, *self.data))

    def parameters(self) -> dict[str, np.ndarray]:
        return separate(self.params)
