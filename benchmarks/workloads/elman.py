"""W6: an Elman network predicts the next symbol of strings of a Reber grammar, one string a step,
by gradient descent: the cost of a call, not of its arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
from problem import Problem

from workloads import tape

SYMBOLS = "BTSXPVE"
GRAMMAR: dict[int, tuple[tuple[str, int], ...]] = {
    0: (("B", 1),), 1: (("T", 2), ("P", 3)), 2: (("S", 2), ("X", 4)), 3: (("T", 3), ("V", 5)),
    4: (("X", 3), ("S", 6)), 5: (("P", 4), ("V", 6)), 6: (("E", 7),), 7: ()}


def word(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The symbols of a string but its last, and which symbols may follow each; both (steps, 7).

    The grammar is Reber's (1967, Implicit learning of artificial grammars), between B and E."""
    state, seen, follow = 0, [], []
    while GRAMMAR[state]:
        symbol, state = GRAMMAR[state][rng.integers(len(GRAMMAR[state]))]
        seen.append([s == symbol for s in SYMBOLS])
        follow.append([any(s == t for t, _ in GRAMMAR[state]) for s in SYMBOLS])
    return np.array(seen[:-1], np.float32), np.array(follow[:-1], np.float32)


def create(seed: int, hidden: int = 10, words: int = 5, least: int = 9, largest: int = 11
           ) -> Problem:
    """``words`` strings of ``least`` to ``largest`` steps.  The parameters are W_ih (7, hidden),
    W_hh, b_h, the initial state h0, W_ho (hidden, 7) and b_o."""
    rng = np.random.default_rng(seed)
    batches: list[dict[str, np.ndarray]] = []
    while len(batches) < words:
        v, target = word(rng)
        if least <= len(v) <= largest:
            batches.append({"v": v, "target": target})
    n = len(SYMBOLS)
    shapes = {"W_ih": (n, hidden), "W_hh": (hidden, hidden), "b_h": (hidden,), "h0": (hidden,),
              "W_ho": (hidden, n), "b_o": (n,)}
    params = {k: rng.uniform(-0.5, 0.5, shape) for k, shape in shapes.items()}
    return Problem({k: v.astype(np.float32) for k, v in params.items()}, batches,
                   {"update": "sgd"})


def loss(params: dict[str, tape.Var], batch: dict[str, np.ndarray], options: dict[str, Any]
         ) -> tape.Var:
    """The cross entropy, mean over steps and symbols."""
    h = params["h0"]
    sums: Any = 0
    for x, target in zip(batch["v"], batch["target"], strict=True):
        row = tape.tanh(x[None] @ params["W_ih"] + lifted(h) @ params["W_hh"] + params["b_h"])
        h = row[0]
        y = tape.sigmoid(row @ params["W_ho"] + params["b_o"])[0]
        sums = tape.total(tape.log(y) * target + tape.log(1 - y) * (1 - target)) + sums
    return sums * (-1 / batch["target"].size)


def lifted(h: tape.Var) -> tape.Var:
    """A vector as a matrix of one row."""
    return h[None]
