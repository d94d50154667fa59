"""Recurrent layers in plain NumPy, forward and back through time by hand: the oracle of gradients.

A cell has ``step``, its formula for one step of a batch, and ``back``, the chain rule through that
step.  ``walk`` takes either over a sequence: forward in time order (or against it), then back over
the steps that were walked.  Parameters are dicts under the attribute names of the layers.

    x        (batch, time, features)         mask   (batch, time), 0 on padding, or None
    states   (batch, units) for each name of ``cell.states``; the first one is the output
    weights  the derivative of the cost by the output, of the output's shape

Clipping: ``clip`` bounds what comes back through a step's pre-activations, element by element;
every ``back`` says where.  Truncation: ``gradient_steps=k`` goes back over the last k steps walked;
what the cost reads of earlier steps, and the initial states, get nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Nonlinearity:
    """s and its derivative, both of the pre-activation a; ``slope`` is also given s(a).

    The slope of the rectifier at 0 is 1/2: Theano's is (a + |a|) / 2."""

    value: Callable[[Any], Any]
    slope: Callable[[Any, Any], Any]


NONLINEARITIES = {
    "sigmoid": Nonlinearity(lambda a: 1 / (1 + np.exp(-a)), lambda a, s: s * (1 - s)),
    "tanh": Nonlinearity(np.tanh, lambda a, s: 1 - s * s),
    "rectify": Nonlinearity(
        lambda a: np.where(a.real > 0, a, 0), lambda a, s: np.heaviside(a.real, 0.5)),
    "identity": Nonlinearity(lambda a: a, lambda a, s: np.ones_like(a)),
}


class Activated:
    """s(a), and the way back through it."""

    def __init__(self, name: str, a: np.ndarray) -> None:
        self.kind, self.a = NONLINEARITIES[name], a
        self.out = self.kind.value(a)

    def back(self, d_out: np.ndarray) -> np.ndarray:
        return d_out * self.kind.slope(self.a, self.out)


class Gradients(dict):
    """Sums by name."""

    def add(self, name: str, value: np.ndarray) -> None:
        self[name] = self.get(name, 0) + value


def clipped(d: np.ndarray, bound: float) -> np.ndarray:
    return np.clip(d, -bound, bound) if bound else d


@dataclass(frozen=True)
class Simple:
    """h = s(x W_x + h' W_h + b)."""

    nonlinearity: str = "rectify"
    states: ClassVar[tuple[str, ...]] = ("hid",)

    def step(self, x: np.ndarray, states: Arrays, p: Arrays) -> tuple[Arrays, Any]:
        h = states["hid"]
        act = Activated(
            self.nonlinearity, x @ p["W_in_to_hid"] + h @ p["W_hid_to_hid"] + p.get("b", 0))
        return {"hid": act.out}, (x, h, act)

    def back(self, tape: Any, d_new: Arrays, p: Arrays, g: Gradients, clip: float
             ) -> tuple[np.ndarray, Arrays]:
        """Clips the derivative by the pre-activation."""
        x, h, act = tape
        d = clipped(act.back(d_new["hid"]), clip)
        g.add("W_in_to_hid", x.T @ d)
        g.add("W_hid_to_hid", h.T @ d)
        g.add("b", d.sum(0))
        return d @ p["W_in_to_hid"].T, {"hid": d @ p["W_hid_to_hid"].T}


def _into(gate: str, p: Arrays, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """x W_in + h W_hid + b of a gate."""
    return x @ p[f"W_in_to_{gate}"] + h @ p[f"W_hid_to_{gate}"] + p.get(f"b_{gate}", 0)


@dataclass(frozen=True)
class Lstm:
    """i = s_i(x W_xi + h' W_hi + w_ci c' + b_i),  f alike,  c = f c' + i s_c(x W_xc + h' W_hc +
    b_c),  o = s_o(x W_xo + h' W_ho + w_co c + b_o),  h = o s_h(c).  Peepholes: the w_c in p."""

    ingate: str = "sigmoid"
    forgetgate: str = "sigmoid"
    cell: str = "tanh"
    outgate: str = "sigmoid"
    nonlinearity: str = "tanh"
    states: ClassVar[tuple[str, ...]] = ("hid", "cell")

    def step(self, x: np.ndarray, states: Arrays, p: Arrays) -> tuple[Arrays, Any]:
        h, c0 = states["hid"], states["cell"]

        def gate(name: str, seen: Any) -> Activated:
            a = _into(name, p, x, h) + p.get(f"W_cell_to_{name}", 0) * seen
            return Activated(getattr(self, name), a)

        i, f, z = gate("ingate", c0), gate("forgetgate", c0), gate("cell", 0)
        c = f.out * c0 + i.out * z.out
        o = gate("outgate", c)
        y = Activated(self.nonlinearity, c)
        return {"hid": o.out * y.out, "cell": c}, (x, h, c0, c, i, f, z, o, y)

    def back(self, tape: Any, d_new: Arrays, p: Arrays, g: Gradients, clip: float
             ) -> tuple[np.ndarray, Arrays]:
        """Clips the derivatives by the sums of products and bias; not what a peephole passes."""
        x, h, c0, c, i, f, z, o, y = tape
        d_h, d_c = d_new["hid"], d_new["cell"]
        d = {"outgate": o.back(d_h * y.out)}
        d_c = d_c + y.back(d_h * o.out) + d["outgate"] * p.get("W_cell_to_outgate", 0)
        d["ingate"], d["forgetgate"] = i.back(d_c * z.out), f.back(d_c * c0)
        d["cell"] = z.back(d_c * i.out)
        d_c0 = d_c * f.out
        for name, seen in (("ingate", c0), ("forgetgate", c0), ("outgate", c)):
            g.add(f"W_cell_to_{name}", (d[name] * seen).sum(0))
            if name != "outgate":
                d_c0 = d_c0 + d[name] * p.get(f"W_cell_to_{name}", 0)
        d_x, d_h0 = np.zeros_like(x), np.zeros_like(h)
        for name, whole in d.items():
            part = clipped(whole, clip)
            g.add(f"W_in_to_{name}", x.T @ part)
            g.add(f"W_hid_to_{name}", h.T @ part)
            g.add(f"b_{name}", part.sum(0))
            d_x = d_x + part @ p[f"W_in_to_{name}"].T
            d_h0 = d_h0 + part @ p[f"W_hid_to_{name}"].T
        return d_x, {"hid": d_h0, "cell": d_c0}


@dataclass(frozen=True)
class Gru:
    """r = s_r(x W_xr + h' W_hr + b_r),  u alike,  c = s_c(x W_xc + r (h' W_hc) + b_c),
    h = (1 - u) h' + u c."""

    resetgate: str = "sigmoid"
    updategate: str = "sigmoid"
    hidden_update: str = "tanh"
    states: ClassVar[tuple[str, ...]] = ("hid",)

    def step(self, x: np.ndarray, states: Arrays, p: Arrays) -> tuple[Arrays, Any]:
        h = states["hid"]
        r = Activated(self.resetgate, _into("resetgate", p, x, h))
        u = Activated(self.updategate, _into("updategate", p, x, h))
        hidden = h @ p["W_hid_to_hidden_update"]
        c = Activated(self.hidden_update, x @ p["W_in_to_hidden_update"] + r.out * hidden
                      + p.get("b_hidden_update", 0))
        return {"hid": (1 - u.out) * h + u.out * c.out}, (x, h, r, u, hidden, c)

    def back(self, tape: Any, d_new: Arrays, p: Arrays, g: Gradients, clip: float
             ) -> tuple[np.ndarray, Arrays]:
        """Clips three times: the candidate's pre-activation, the input products with bias, the
        products with the state."""
        x, h, r, u, hidden, c = tape
        d_h = d_new["hid"]
        d_c = clipped(c.back(d_h * u.out), clip)
        d_r, d_u = r.back(d_c * hidden), u.back(d_h * (c.out - h))
        d_x, d_h0 = np.zeros_like(x), d_h * (1 - u.out)
        for name, by_input, by_hidden in (
                ("resetgate", d_r, d_r), ("updategate", d_u, d_u),
                ("hidden_update", d_c, d_c * r.out)):
            by_input, by_hidden = clipped(by_input, clip), clipped(by_hidden, clip)
            g.add(f"W_in_to_{name}", x.T @ by_input)
            g.add(f"b_{name}", by_input.sum(0))
            g.add(f"W_hid_to_{name}", h.T @ by_hidden)
            d_x = d_x + by_input @ p[f"W_in_to_{name}"].T
            d_h0 = d_h0 + by_hidden @ p[f"W_hid_to_{name}"].T
        return d_x, {"hid": d_h0}


@dataclass(frozen=True)
class Walk:
    """How a sequence is walked."""

    backwards: bool = False
    gradient_steps: int = -1
    grad_clipping: float = 0
    only_return_final: bool = False

    def steps(self, length: int) -> list[int]:
        """The indices of time in the order of the walk."""
        return list(range(length))[::-1 if self.backwards else 1]


@dataclass
class Walked:
    """A walk that was taken: its output, and what the way back needs."""

    cell: Any
    p: Arrays
    how: Walk
    mask: np.ndarray
    shape: tuple[int, ...]
    out: np.ndarray
    tapes: list[Any] = field(default_factory=list)

    def gradients(self, weights: np.ndarray) -> Gradients:
        """The derivatives of sum(weights * out) by the parameters, ``x``, and ``<state>_init``
        of shape (batch, units)."""
        g = Gradients(x=np.zeros(self.shape))
        d = {k: np.zeros((self.shape[0], self.out.shape[-1])) for k in self.cell.states}
        order = list(enumerate(self.how.steps(self.shape[1])))
        kept = self.how.gradient_steps
        cut = 0 < kept < len(order)
        for k, t in reversed(order[-kept:] if cut else order):
            last = k == len(order) - 1
            if not self.how.only_return_final:
                d["hid"] = d["hid"] + weights[:, t]
            elif last:
                d["hid"] = d["hid"] + weights
            live = self.mask[:, t, None]
            d_x, d_old = self.cell.back(self.tapes[k], {s: d[s] * live for s in d}, self.p, g,
                                        self.how.grad_clipping)
            g["x"][:, t] = d_x
            d = {s: d_old[s] + d[s] * (1 - live) for s in d}
        for s in self.cell.states:
            g[f"{s}_init"] = np.zeros_like(d[s]) if cut else d[s]
        return g


def walk(cell: Any, x: np.ndarray, p: Arrays, how: Walk | None = None,
         mask: np.ndarray | None = None) -> Walked:
    """Take the cell over the sequence, from the ``<state>_init`` in p, (1 or batch, units)."""
    how = how or Walk()
    n, length = x.shape[:2]
    mask = np.ones((n, length)) if mask is None else (mask != 0) * 1.0
    states = {s: np.repeat(p[f"{s}_init"], n // len(p[f"{s}_init"]), axis=0) for s in cell.states}
    rows: dict[int, np.ndarray] = {}
    tapes = []
    for t in how.steps(length):
        new, tape = cell.step(x[:, t], states, p)
        live = mask[:, t, None] != 0
        states = {s: np.where(live, new[s], states[s]) for s in states}
        rows[t] = states["hid"]
        tapes.append(tape)
    out = states["hid"] if how.only_return_final else np.stack(
        [rows[t] for t in range(length)], axis=1)
    return Walked(cell, p, how, mask, x.shape, out, tapes)
