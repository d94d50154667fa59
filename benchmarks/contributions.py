"""What each optimisation of a training step contributes: its time with the optimisation off.

    python benchmarks/contributions.py [--only W1 W3] [--seconds 0.3] [--blocks 7] [--threads 2]

Every variant is compiled in this process, then all take turns, a block of steps each.  The table
has the minimum of the blocks' medians, in milliseconds, and how many times longer it is than with
everything on.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from catalogue import WORKLOADS
from harness import table
from problem import Problem

import tinygraph

sys.path.insert(0, str(Path(__file__).parent / "peers"))

ROWS = ("W1", "W2", "W3", "W5", "W9")
# What is left out, and what that stands for.
VARIANTS = {
    "": "everything on",
    "-narrow -zeros -demand": "dead steps and rows are computed",
    "-before -inside": "input products in the loop",
    "-merge_dots -join": "a product for each gate",
    "-after": "weight gradients in the loop",
    "-saved": "all forward values stored or asked for twice",
    "-inside": "biases and products over few features before the loop",
    "-first": "the last state's gradient as a sequence",
    "-sink": "gates added as one matrix",
    "-accumulate": "sums over time stored first",
}


def steps(row: str, passes: str, problem: Problem) -> Any:
    """The workload with ``passes``, compiled, every length of its minibatches seen."""
    module = importlib.import_module(f"tinygraph_{WORKLOADS[row].module}")
    workload = module.Workload(problem, passes)
    for _ in range(2 * len(problem.batches)):
        workload.step()
    return workload


def block(step: Callable[[], Any], seconds: float) -> float:
    """The median step of a block, in milliseconds."""
    spent, end = [], time.perf_counter() + seconds
    while not spent or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        spent.append(time.perf_counter() - start)
    return float(np.median(spent)) * 1e3


def measure(row: str, options: argparse.Namespace) -> list[list[str]]:
    """A row of figures for each variant, then for one thread."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        WORKLOADS[row].create(0).save(path)
        problem = Problem.load(path)
    runs = [(what, options.threads, steps(row, passes, problem))
            for passes, what in VARIANTS.items()]
    runs.append(("one thread", 1, runs[0][2]))
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(options.blocks):
        for (_, threads, workload), found in zip(runs, times, strict=True):
            with tinygraph.config.change(threads=threads):
                workload.step()
                found.append(block(workload.step, options.seconds))
    best = [min(found) for found in times]
    return [[what, f"{ms:.3f}", f"{ms / best[0]:.2f}"]
            for (what, _, _), ms in zip(runs, best, strict=True)]


def main() -> None:
    """Print a table for every workload."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(WORKLOADS), default=ROWS)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a block")
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    for row in options.only:
        print(table([[f"{row}: without it", "ms", "times"], *measure(row, options)]), "\n")


if __name__ == "__main__":
    main()
