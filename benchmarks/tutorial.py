"""One training step of the tutorial model: tinygraph against JAX.

    python -m venv /path/to/jax && /path/to/jax/bin/pip install jax
    python benchmarks/tutorial.py --jax-python /path/to/jax/bin/python

Two LSTMs of 10 units, one in each direction, with peepholes, learned initial states and clipped
gate gradients, on 100 masked sequences of 55 steps and 2 features; the error of the last step;
Adam; float32.  Compares results first, then measures (see README.md).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from harness import (
    Peer,
    Running,
    Start,
    create,
    furthest,
    interleave,
    starts,
    table,
    tinygraph_peer,
)

WORKLOAD = "tutorial"
JAX_VARIANTS = ("scans", "vmapped")
TOLERANCE = 1e-4
BUILD = ("build", "first step")


def check(running: list[Running], report: dict[str, Any]) -> None:
    """Compare loss, gradients and the parameters after one step with those of the first process.

    Raises ValueError where one differs by more than ``TOLERANCE`` of the largest element.
    """
    def results(r: Running) -> dict[str, dict[str, np.ndarray]]:
        return {"loss": {"loss": np.array(r.greeting["loss"])},
                "parameters": r.arrays("parameters"), "gradients": r.arrays("gradients")}

    own = results(running[0])
    for other in running[1:]:
        theirs = results(other)
        for what, expected in theirs.items():
            error, name = furthest(own[what], expected)
            report.setdefault("differences", {}).setdefault(other.peer.name, {})[what] = error
            if not error <= TOLERANCE:
                raise ValueError(f"{what} of {running[0].peer.name} and {other.peer.name} differ "
                                 f"by {error:.1e} of the largest element in {name}, more than "
                                 f"{TOLERANCE:.0e}")


def measure_steps(peers: list[Peer], problem: Path, args: argparse.Namespace,
                  report: dict[str, Any]) -> None:
    """Check, then time, steps; the figures go into ``report['steps']``, in milliseconds."""
    with ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory())
        running = [stack.enter_context(Running(p, problem, cache)) for p in peers]
        report["versions"] = {r.peer.name: r.greeting["version"] for r in running}
        check(running, report)
        report["steps"] = {
            r.peer.name: {"median": 1e3 * float(np.median(t)), "minimum": 1e3 * float(t.min()),
                          "blocks": (1e3 * np.median(t, axis=1)).tolist()}
            for r, t in zip(running, interleave(running, args.blocks, args.steps), strict=True)}


def measure_starts(peers: list[Peer], problem: Path, times: int, report: dict[str, Any]) -> None:
    """Time from process start to the first result, with an empty cache, and tinygraph's with a
    filled one too; seconds."""
    own = Peer("tinygraph, warm", **{k: v for k, v in vars(peers[0]).items() if k != "name"})
    with tempfile.TemporaryDirectory() as filled:
        Running(own, problem, filled).close()
        entries = [*peers, own]
        found = starts(entries, problem, times, [None] * len(peers) + [filled])
    report["starts"] = {p.name: {"first": s.first, **s.parts}
                        for p, s in zip(entries, found, strict=True)}


def summarise(report: dict[str, Any]) -> None:
    """The ratios; above 1 is in tinygraph's favour.  Against the best variant in each figure."""
    ratios: dict[str, float] = {}
    jax = [name for name in report["steps"] if name.startswith("jax")]
    own = report["steps"]["tinygraph"]
    if jax:
        for figure in ("median", "minimum"):
            best = min(report["steps"][name][figure] for name in jax)
            ratios[f"step, {figure}, JAX / tinygraph"] = best / own[figure]
        best_blocks = np.min([report["steps"][name]["blocks"] for name in jax], axis=0)
        ratios["step, median of blocks' ratios, JAX / tinygraph"] = float(
            np.median(best_blocks / own["blocks"]))
    started = {name: Start(parts["first"], parts) for name, parts in report["starts"].items()}
    cold, warm = started["tinygraph"], started["tinygraph, warm"]
    if jax:
        ratios["first result, minimum, JAX / tinygraph"] = (
            min(started[name].least() for name in jax) / cold.least())
    ratios["build and first step, minimum, cold / warm"] = cold.least(*BUILD) / warm.least(*BUILD)
    ratios["function(), minimum, cold / warm"] = (
        cold.least("function()") / warm.least("function()"))
    report["ratios"] = ratios


def show(report: dict[str, Any]) -> None:
    """Print the report as tables."""
    print(f"{report['machine']}")
    for name, version in report["versions"].items():
        print(f"  {name}: {version}")
    for name, differences in report.get("differences", {}).items():
        print(f"  tinygraph and {name} differ by "
              + ", ".join(f"{error:.0e} ({what})" for what, error in differences.items()))
    rows = [("a training step, ms", "median", "minimum")]
    rows += [(name, f"{s['median']:.3f}", f"{s['minimum']:.3f}")
             for name, s in report["steps"].items()]
    print("\n" + table(rows))
    parts = list(dict.fromkeys(k for s in report["starts"].values() for k in s))
    head = ["fresh process, s, minimum", *parts]
    print("\n" + table([head, *([name, *(f"{min(s[k]):.2f}" if k in s else "" for k in parts)]
                                for name, s in report["starts"].items())]))
    print("\n" + table([("ratio", ""), *((k, f"{v:.2f}") for k, v in report["ratios"].items())]))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run with command line arguments; returns what ``--json`` writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jax-python", help="the Python that has JAX; without it tinygraph alone")
    parser.add_argument("--jax-variants", nargs="+", choices=JAX_VARIANTS, default=JAX_VARIANTS)
    parser.add_argument("--blocks", type=int, default=10, help="blocks of steps of each process")
    parser.add_argument("--steps", type=int, default=50, help="steps of a block")
    parser.add_argument("--starts", type=int, default=3, help="fresh processes of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--length", type=int, default=55, help="steps of the sequences")
    parser.add_argument("--hidden", type=int, default=10)
    parser.add_argument("--json", help="a file for all figures")
    args = parser.parse_args(argv)
    peers = [tinygraph_peer(WORKLOAD)]
    if args.jax_python:
        peers += [Peer(f"jax {v}", f"jax_{WORKLOAD}", v, args.jax_python)
                  for v in args.jax_variants]
    options = {key: getattr(args, key) for key in ("seed", "batch", "length", "hidden")}
    report: dict[str, Any] = {
        "workload": WORKLOAD, "options": options,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}"}
    with tempfile.TemporaryDirectory() as folder:
        problem = Path(folder) / "problem.npz"
        create(peers[0], problem, **options)
        measure_steps(peers, problem, args, report)
        measure_starts(peers, problem, args.starts, report)
    summarise(report)
    show(report)
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n")
    return report


if __name__ == "__main__":
    main()
