"""How near a training step comes to the machine's products, on one thread."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from catalogue import LSTM, WORKLOADS
from harness import Peer, Running, interleave
from measure import Plan
from workloads.recurrent import products

SGEMM = 2.0 * 1024 ** 3
GOALS = {"W3": 0.90, "W4": 0.75}


def measure_limit(plan: Plan, say: Callable[[str], None], **other: Any) -> dict[str, Any]:
    """Rates in operations a second: of a large product ('sgemm'), and for W3 and W4 of a step
    ('step', the operations of its products over its whole time) and of its products alone
    through NumPy ('products').  ``other`` sizes replace those of the workloads."""
    one = replace(plan, threads=1)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        entries: list[tuple[str, str, float, Running]] = []

        def begin(row: str, what: str, work: float, peer: Peer, path: Path) -> None:
            say(f"starting {row} {what}")
            running = stack.enter_context(Running(peer, path, folder))
            entries.append((row, what, work, running))

        for row in GOALS:
            sizes = {**LSTM, **WORKLOADS[row].sizes, **other}
            path = folder / f"{row}.npz"
            WORKLOADS[row].create(plan.seed, **other).save(path)
            work = products(sizes)
            if not entries:
                begin("sgemm", "sgemm", SGEMM, peer("numpy", "limit", "sgemm", one), path)
            begin(row, "step", work, peer("tinygraph", "recurrent", "", one), path)
            begin(row, "products", work, peer("numpy", "limit", "products", one), path)
        say("timing")
        times = interleave([e[3] for e in entries], plan.blocks, plan.seconds, 1)
    report: dict[str, Any] = {"goals": GOALS, "rates": {}}
    for (row, what, work, _), t in zip(entries, times, strict=True):
        report["rates"].setdefault(row, {})[what] = {
            "median": work / float(np.median(t)), "maximum": work / float(t.min())}
    sgemm = report["rates"]["sgemm"]["sgemm"]
    report["shares"] = {row: {figure: report["rates"][row]["step"][figure] / sgemm[figure]
                              for figure in ("median", "maximum")} for row in GOALS}
    return report


def peer(system: str, module: str, variant: str, plan: Plan) -> Peer:
    """A process on one thread."""
    return Peer(system, f"{system}_{module}", variant, plan.threads, plan.limit)
