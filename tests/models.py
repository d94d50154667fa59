"""Recurrent networks written out by hand: the models that tests of several rooms share.

Every model is written the way users of Theano write it, in each of the forms that they use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinygraph
import tinygraph.tensor as T
from tinygraph import grad, scan, shared
from tinygraph.gradient import grad_clip

FORMS = ("separate", "stacked", "concat")


@dataclass
class Model:
    """inputs: x (batch, time, features) and, with a mask, mask (batch, time);  states: the
    stacked states (time, batch, units);  params: shared variables;  features: of x."""

    inputs: list[Any]
    states: list[Any]
    params: list[Any]
    features: int

    def cost(self) -> Any:
        """The mean square of all outputs."""
        return (self.states[0] ** 2).mean()

    def training(self, rate: float = 0.1, **options: Any) -> Any:
        """The training function: the cost, with a step of gradient descent as updates."""
        cost = self.cost()
        grads = grad(cost, self.params)
        updates = [(p, p - rate * g) for p, g in zip(self.params, grads, strict=True)]
        return tinygraph.function(self.inputs, cost, updates=updates, **options)

    def gradients(self, **options: Any) -> Any:
        """The function (inputs) -> cost and its gradients by the parameters and by x."""
        cost = self.cost()
        wrt = [*self.params, self.inputs[0]]
        return tinygraph.function(self.inputs, [cost, *grad(cost, wrt)], **options)

    def batch(self, batch: int, steps: int, seed: int = 0) -> list[np.ndarray]:
        """Random arguments; with a mask, sequences of random lengths."""
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((batch, steps, self.features))
        arrays = [x]
        if len(self.inputs) > 1:
            lengths = rng.integers(0, steps + 1, batch)
            arrays.append(np.arange(steps)[None] < lengths[:, None])
        return [np.asarray(a, v.dtype) for a, v in zip(arrays, self.inputs, strict=True)]


class Parameters:
    """Makes shared variables of random numbers, and remembers them."""

    def __init__(self, seed: int = 0, scale: float = 0.4) -> None:
        self.rng, self.scale = np.random.default_rng(seed), scale
        self.made: list[Any] = []

    def __call__(self, name: str, *shape: int) -> Any:
        value = self.scale * self.rng.standard_normal(shape)
        self.made.append(shared(value.astype(tinygraph.config.floatX), name))
        return self.made[-1]


def gates(p: Parameters, form: str, names: str, features: int, hidden: int,
          clip: float = 0) -> Callable[[Any, Any], tuple[list[Any], list[Any]]]:
    """(x, h) -> per gate the input's share x W + b, and the state's share h U, in a form that
    users write: separate matrices, one stacked matrix, or dot(concatenate([x, h]), W), where only
    the sum is known and comes first (the second is None)."""
    n = len(names)
    if form == "concat":
        w = [p(f"W_{g}", features + hidden, hidden) for g in names]
        b = [p(f"b_{g}", hidden) for g in names]

        def step(x: Any, h: Any) -> tuple[list[Any], list[Any]]:
            xh = T.concatenate([x, h], axis=1)
            return [T.dot(xh, w[k]) + b[k] for k in range(n)], [None] * n
    elif form == "stacked":
        w1, u1, b1 = p("W", features, n * hidden), p("U", hidden, n * hidden), p("b", n * hidden)

        def step(x: Any, h: Any) -> tuple[list[Any], list[Any]]:
            parts = [slice(k * hidden, (k + 1) * hidden) for k in range(n)]
            of_x, of_h = T.dot(x, w1) + b1, T.dot(h, u1)
            if clip:
                of_h = grad_clip(of_h, -clip, clip)
            return [of_x[:, s] for s in parts], [of_h[:, s] for s in parts]
    else:
        w = [p(f"W_{g}", features, hidden) for g in names]
        u = [p(f"U_{g}", hidden, hidden) for g in names]
        b = [p(f"b_{g}", hidden) for g in names]

        def step(x: Any, h: Any) -> tuple[list[Any], list[Any]]:
            return [T.dot(x, w[k]) + b[k] for k in range(n)], [T.dot(h, u[k]) for k in range(n)]
    return step


def lstm(form: str = "separate", mask: bool = False, peepholes: bool = False, clip: float = 0,
         features: int = 2, hidden: int = 5, backwards: bool = False, truncate: int = -1,
         seed: int = 0) -> Model:
    """Long short-term memory, with a learnt initial state."""
    p = Parameters(seed)
    shares = gates(p, form, "ifgo", features, hidden, clip)
    peeps = [p(f"peep_{g}", hidden) for g in "ifo"] if peepholes else []

    def cell(x: Any, h: Any, c: Any) -> list[Any]:
        i, f, g, o = (_clipped(_sum(a, b), clip) for a, b in zip(*shares(x, h), strict=True))
        if peepholes:
            i, f = i + c * peeps[0], f + c * peeps[1]
        new_c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
        if peepholes:
            o = o + new_c * peeps[2]
        return [T.nnet.sigmoid(o) * T.tanh(new_c), new_c]

    return _walk(cell, p, 2, mask, features, hidden, backwards, truncate)


def gru(form: str = "separate", mask: bool = False, clip: float = 0, features: int = 2,
        hidden: int = 5, backwards: bool = False, truncate: int = -1, seed: int = 0) -> Model:
    """Gated recurrent units, the reset gate behind the product: r * (h U) (Cho et al. 2014).
    In the form "concat" the candidate, whose two shares must stay apart, has two matrices."""
    p = Parameters(seed)
    shares = gates(p, form, "ru" if form == "concat" else "run", features, hidden, clip)
    if form == "concat":
        w, u, b = p("W_n", features, hidden), p("U_n", hidden, hidden), p("b_n", hidden)

    def cell(x: Any, h: Any) -> list[Any]:
        of_x, of_h = shares(x, h)
        if form == "concat":
            of_x, of_h = [*of_x, T.dot(x, w) + b], [*of_h, T.dot(h, u)]
        r, z = (T.nnet.sigmoid(_clipped(_sum(of_x[k], of_h[k]), clip)) for k in (0, 1))
        new = T.tanh(_clipped(of_x[2] + r * of_h[2], clip))
        return [(1 - z) * h + z * new]

    return _walk(cell, p, 1, mask, features, hidden, backwards, truncate)


def rnn(features: int = 2, hidden: int = 5, mask: bool = False, backwards: bool = False,
        truncate: int = -1, seed: int = 0) -> Model:
    """The simple recurrent network."""
    p = Parameters(seed)
    w, u, b = p("W", features, hidden), p("U", hidden, hidden), p("b", hidden)

    def cell(x: Any, h: Any) -> list[Any]:
        return [T.tanh(T.dot(x, w) + T.dot(h, u) + b)]

    return _walk(cell, p, 1, mask, features, hidden, backwards, truncate)


def _sum(a: Any, b: Any) -> Any:
    return a if b is None else a + b


def _clipped(x: Any, clip: float) -> Any:
    return grad_clip(x, -clip, clip) if clip else x


def _walk(cell: Callable[..., list[Any]], p: Parameters, count: int, mask: bool, features: int,
          hidden: int, backwards: bool, truncate: int) -> Model:
    x, m = T.tensor3("x"), T.matrix("mask")
    starts = [p(f"start_{k}", 1, hidden) for k in "hc"[:count]]
    ones = T.ones((x.shape[0], 1))
    inits = [T.dot(ones, s) for s in starts]

    def step(*values: Any) -> list[Any]:
        row, *states = values
        kept = states.pop(0).dimshuffle(0, "x") if mask else None
        new = cell(row, *states)
        if kept is None:
            return new
        return [T.switch(kept, a, b) for a, b in zip(new, states, strict=True)]

    sequences = [x.dimshuffle(1, 0, 2)] + ([m.dimshuffle(1, 0)] if mask else [])
    states, _ = scan(step, sequences=sequences, outputs_info=inits, go_backwards=backwards,
                     truncate_gradient=truncate, return_list=True)
    return Model([x, m] if mask else [x], states, p.made, features)


def relative_error(got: Any, want: Any, floor: float = 1e-30) -> float:
    """The largest difference, relative to the largest expected number, or to ``floor`` if that
    is larger."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape and got.dtype == want.dtype
    if want.size == 0:
        return 0.0
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    error = np.where(same, 0, np.abs(got.astype(np.float64) - want.astype(np.float64)))
    finite = np.abs(want[np.isfinite(want)])
    scale = float(finite.max()) if finite.size else 0.0
    return float(error.max() / max(scale, floor))


def assert_close(got: Sequence[Any], want: Sequence[Any], tolerance: float | None = None,
                 floor: float = 1e-30) -> None:
    """All arrays equal up to 1e-4 (float32) or 1e-10 (float64) of the largest number."""
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        limit = tolerance or {"float32": 1e-4, "float64": 1e-10}.get(np.asarray(b).dtype.name, 0)
        error = relative_error(a, b, floor)
        assert error <= limit, f"array {k}: relative error {error}"
