"""Every workload on tinygraph and on its peers, side by side in one run.

    pip install -e ".[bench]" && python benchmarks/run.py [--only W1 W3] [--peers jax torch]
        [--quick] [--threads 2] [--json FILE] [--png FILE]

README.md beside this file says what is done and how it is measured.  The status is 1 where
results differ from the reference, or tinygraph itself has none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.absolute()), str(Path(__file__).absolute().parents[1])]

import report as reports  # noqa: E402  (the folders must be known first)
from catalogue import LIMIT, PEERS, WORKLOADS, select  # noqa: E402
from limit import measure_limit  # noqa: E402
from measure import Plan, measure  # noqa: E402


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="ROW",
                        help=f"of {', '.join([*WORKLOADS, LIMIT])}")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--quick", action="store_true",
                        help="few steps, one fresh process each, nothing that takes minutes")
    parser.add_argument("--threads", type=int, default=2, help="of every process")
    parser.add_argument("--blocks", type=int, help="turns of every process")
    parser.add_argument("--seconds", type=float, help="of a turn, about")
    parser.add_argument("--starts", type=int, help="fresh processes of each kind")
    parser.add_argument("--limit", type=float, help="seconds that a process may take to answer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="a file for all figures")
    parser.add_argument("--png", help="a file for the ratios as bars")
    args = parser.parse_args(argv)
    try:
        args.rows = select(args.only)
    except ValueError as unknown:
        parser.error(str(unknown))
    return args


def plan_of(args: argparse.Namespace) -> Plan:
    """How long to measure."""
    plan = Plan(quick=args.quick, threads=args.threads, seed=args.seed)
    if args.quick:
        plan = replace(plan, blocks=3, seconds=0.2, starts=1, limit=300.0)
    given = {k: getattr(args, k) for k in ("blocks", "seconds", "starts", "limit")}
    return replace(plan, **{k: v for k, v in given.items() if v is not None})


def note(row: str) -> Any:
    """Something that says on the error stream what goes on, if someone watches."""
    start = time.perf_counter()

    def say(what: str) -> None:
        if sys.stderr.isatty() or os.environ.get("BENCHMARK_PROGRESS"):
            print(f"[{row} {time.perf_counter() - start:6.1f} s] {what}", file=sys.stderr)
    return say


def main(argv: list[str] | None = None, **sizes: Any) -> dict[str, Any]:
    """Run with command line arguments; returns what ``--json`` writes.  sizes: other sizes for
    the workloads' ``create``."""
    args = parse(argv)
    plan = plan_of(args)
    out: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, "
                   f"{platform.system()}, Python {platform.python_version()}",
        "plan": asdict(plan), "workloads": {}}
    print(f"{out['machine']}; {plan.threads} threads; float32; an error is the largest difference "
          "from a float64 reference\n")
    for row in args.rows:
        if row == LIMIT:
            out[LIMIT] = measure_limit(plan, note(row), **sizes)
            print(reports.show_limit(out[LIMIT]) + "\n", flush=True)
            continue
        workload = WORKLOADS[row]
        problem = workload.create(plan.seed, plan.quick, **sizes)
        found = measure(workload, args.peers, plan, problem, note(row))
        reports.summarise(found)
        out["workloads"][row] = found
        print(reports.show(row, found) + "\n", flush=True)
        save(args, out)
    if out["workloads"]:
        print(reports.summary(out["workloads"]))
    save(args, out)
    return out


def save(args: argparse.Namespace, out: dict[str, Any]) -> None:
    """Write the files that are asked for."""
    if args.json:
        Path(args.json).write_text(json.dumps(out, indent=1) + "\n")
    if args.png and out["workloads"]:
        reports.picture(out["workloads"], args.png)


if __name__ == "__main__":
    sys.exit(any(w["wrong"] or "tinygraph" not in w["peers"]
                 for w in main()["workloads"].values()))
