"""The workloads: their sizes, who does them in which variants, and the ratios aimed at."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from problem import Problem

PEERS = ("torch", "jax", "pytensor")
MODES = ("numba", "c")


@dataclass(frozen=True)
class Workload:
    """One row of the benchmark.

    name      W1 to W9
    title     what it is, for tables
    module    the file in workloads/, and the second half of the names of the files in peers/
    sizes     arguments of its ``create``
    goal      how many times faster than the best peer a step should be
    variants  by peer
    slow      (peer, variant) that take minutes to start: not with --quick
    whole     not a step is measured but a process that does all minibatches
    quick     sizes that --quick changes
    """

    name: str
    title: str
    module: str
    goal: float
    sizes: Mapping[str, Any]
    variants: Mapping[str, tuple[str, ...]]
    slow: frozenset[tuple[str, str]] = frozenset()
    whole: bool = False
    quick: Mapping[str, Any] = field(default_factory=dict)

    def create(self, seed: int, quick: bool = False, **other: Any) -> Problem:
        """Its numbers; ``other`` sizes replace its own."""
        sizes = {**self.sizes, **(self.quick if quick else {}), **other}
        return self.source().create(seed, **sizes)

    def source(self) -> Any:
        """The module in workloads/."""
        return importlib.import_module(f"workloads.{self.module}")


COMPILED = frozenset({("torch", "compile")})
RECURRENT = {"torch": ("nn",), "jax": ("scan", "unrolled"), "pytensor": MODES}
LSTM = {"cell": "lstm", "batch": 64, "steps": 100, "features": 64, "hidden": 128}
TUTORIAL = {"torch": ("eager", "compile"), "jax": ("scans", "vmapped"), "pytensor": MODES}
CHAIN = {"torch": ("eager", "compile"), "jax": ("",), "pytensor": MODES}

WORKLOADS = {w.name: w for w in (
    Workload("W1", "tutorial model, hidden 10", "tutorial", 20,
             {"lengths": (53, 50, 55, 51, 54, 52)}, TUTORIAL, COMPILED),
    Workload("W2", "tanh network in both directions, hidden 100", "add_rnn", 5, {},
             {"torch": ("nn", "eager"), "jax": ("scans", "vmapped"), "pytensor": MODES}),
    Workload("W3", "LSTM, hidden 128", "recurrent", 2.5, LSTM, RECURRENT),
    Workload("W4", "LSTM, hidden 512", "recurrent", 1.4, {**LSTM, "hidden": 512}, RECURRENT),
    Workload("W5", "GRU, hidden 128", "recurrent", 2.5, {**LSTM, "cell": "gru"}, RECURRENT),
    Workload("W6", "Elman network, one string a step", "elman", 4, {},
             {"torch": ("nn", "eager", "compile"), "jax": ("scan", "unrolled"),
              "pytensor": MODES}, COMPILED),
    Workload("W7", "elementwise chain, n = 1e3", "chain", 3, {"n": 1000}, CHAIN, COMPILED),
    Workload("W7-1e6", "elementwise chain, n = 1e6", "chain", 1.5, {"n": 1000000}, CHAIN,
             COMPILED),
    Workload("W8", "tutorial model, 100 minibatches of new lengths", "tutorial", 6,
             {"drawn": (100, 20, 200)},
             {"torch": ("eager",), "jax": ("padded", "scans"), "pytensor": MODES},
             whole=True, quick={"drawn": (12, 20, 200)}),
    Workload("W9", "inference of W3 at batch 1", "recurrent", 2,
             {**LSTM, "batch": 1, "update": "none"}, RECURRENT),
)}
LIMIT = "limit"


def select(names: list[str] | None) -> list[str]:
    """The rows that names mean, in order: W7 is both of its rows; all for None.  Raises
    ValueError for a name that is not known."""
    known = [*WORKLOADS, LIMIT]
    if not names:
        return known
    for name in names:
        if not any(_means(name, k) for k in known):
            raise ValueError(f"there is no workload {name!r}; there are {', '.join(known)}")
    return [k for k in known if any(_means(n, k) for n in names)]


def _means(name: str, known: str) -> bool:
    return known == name or known.startswith(f"{name}-")
