"""Training steps on one GPU: tinygraph, PyTorch and JAX, side by side in one run.

    python benchmarks/gpu.py [--only ROW ...] [--peers torch jax] [--hidden N ...] [--batch N ...]
                             [--modes MODE ...] [--quick] [--blocks N] [--seconds S] [--json FILE]
    python benchmarks/gpu.py --rehearse

Rows are W1 to W5 and W8 of ``run.py``, and ``grid``: a plain LSTM of 64 to 1024 units by batches
of 1 to 256; training steps, and the last state alone (``forward``) of W3 to W5 and the grid.
Inputs and parameters lie on the GPU before a step, for tinygraph as for its peers.  PyTorch takes
part with its own modules, which run cuDNN, where they can do the work (W2 to W5, grid), and with
cells written by hand, as they are and through ``torch.compile``.  Every
process is compared with a float64 reference before anything is timed.  A step ends when the GPU has
done all that was asked of it, which every process waits for, and its loss is on the host.
``--rehearse`` goes through all of it at tiny sizes without a GPU.

The status is 1 where results differ from the reference or tinygraph has none, and 2 where there is
no GPU to run on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.absolute()), str(Path(__file__).absolute().parents[1])]

from catalogue import COMPILED, LSTM, WORKLOADS, Workload  # noqa: E402
from harness import table  # noqa: E402
from measure import OWN, Plan, measure  # noqa: E402
from report import milliseconds  # noqa: E402
from run import note  # noqa: E402

from tinygraph.backends.cuda.device import DOCTOR, unavailable  # noqa: E402

PEERS = ("torch", "jax")
GRID = "grid"
HIDDEN, BATCH = (64, 128, 256, 512, 1024), (1, 4, 16, 64, 256)
HIDDEN_TINY, BATCH_TINY = (5, 12), (1, 3)
CUDNN = "torch nn"
NO_GPU = 2

Report = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A workload, and how many times faster than others a step should be.

    by_hand  than the best of JAX and PyTorch with a cell written by hand
    cudnn    than PyTorch's own module
    None where nothing is aimed at.
    """

    workload: Workload
    by_hand: float | None = None
    cudnn: float | None = None


LEVEL = 1 / 1.2  # "within 1.2 times"
_CELLS = {"torch": ("nn", "eager", "compile"), "jax": ("scan", "unrolled")}


# Sizes for --rehearse, by the module of a workload.
TINY: dict[str, dict[str, Any]] = {
    "tutorial": {"batch": 6, "hidden": 3},
    "add_rnn": {"batch": 5, "length": 6, "hidden": 4},
    "recurrent": {"batch": 3, "steps": 5, "features": 4, "hidden": 6},
}
TRAINING, FORWARD = "training", "forward"
MODES = (TRAINING, FORWARD)


def _row(name: str, variants: dict[str, tuple[str, ...]] | None = None,
         by_hand: float | None = None, cudnn: float | None = None) -> Row:
    own = WORKLOADS[name]
    return Row(replace(own, variants=variants or own.variants, slow=COMPILED), by_hand, cudnn)


ROWS = {row.workload.name: row for row in (
    _row("W1", by_hand=5),
    _row("W2", by_hand=5),
    _row("W3", _CELLS, 5, LEVEL),
    _row("W4", _CELLS, None, LEVEL),
    _row("W5", _CELLS),
    _row("W8"),
)}


def forward(row: Row) -> Row:
    """The last state alone, without a gradient, for a row of module 'recurrent'."""
    own = row.workload
    variants = {"torch": ("nn",), "jax": own.variants["jax"]}
    return Row(replace(own, name=f"{own.name} {FORWARD}", title=f"{own.title}, {FORWARD}",
                       sizes={**own.sizes, "update": "none"}, variants=variants))


def tiny(row: Row) -> Row:
    """The row with sizes that the shim does in seconds."""
    sizes = dict(TINY[row.workload.module])
    if row.workload.name == "W1":
        sizes["lengths"] = (5, 7)
    if row.workload.whole:
        sizes["drawn"] = (3, 4, 9)
    if row.workload.name.startswith("LSTM"):
        del sizes["hidden"], sizes["batch"]
    return replace(row, workload=replace(row.workload, sizes={**row.workload.sizes, **sizes},
                                         quick={}))


def grid(hidden: Sequence[int] = HIDDEN, batch: Sequence[int] = BATCH) -> dict[str, Row]:
    """A row for each size of a plain LSTM, 'LSTM 64 x 1' for 64 units and a batch of 1."""
    rows = {}
    for units in hidden:
        for size in batch:
            name = f"LSTM {units} x {size}"
            workload = Workload(name, f"{units} units, batch {size}", "recurrent", 1,
                                {**LSTM, "hidden": units, "batch": size},
                                {"torch": ("nn",), "jax": ("scan",)})
            rows[name] = Row(workload, None, LEVEL if units <= 512 else None)
    return rows


def problem_of(row: Row, plan: Plan, device: str, **sizes: Any) -> Any:
    """The numbers of a row, and where they are to be worked on."""
    problem = row.workload.create(plan.seed, plan.quick, **sizes)
    problem.options["device"] = device
    return problem


def ratio(report: Report, counts: Callable[[str], bool]) -> tuple[str, float] | None:
    """The best peer of those that count by its median, and its median divided by tinygraph's."""
    own = report["peers"].get(OWN, {}).get("median")
    others = {name: p["median"] for name, p in report["peers"].items()
              if name != OWN and "median" in p and counts(name)}
    if own is None or not others:
        return None
    best = min(others, key=lambda name: others[name])
    return best, others[best] / own


def ratios(report: Report) -> Report:
    """``by hand`` and ``cudnn``: the name of the peer and how many times tinygraph is faster."""
    found = {"by hand": ratio(report, lambda name: name != CUDNN),
             "cudnn": ratio(report, lambda name: name == CUDNN)}
    return {kind: r for kind, r in found.items() if r is not None}


def show(report: Report, rehearsal: bool = False) -> str:
    """One row as text; of a rehearsal without times."""
    if rehearsal:
        return rehearsed(report)
    unit, time = ("s", lambda s: f"{s:.2f}") if report["whole"] else ("ms", milliseconds)
    own = report["peers"].get(OWN, {}).get("median")
    rows = [[report["title"], f"median {unit}", f"min {unit}", "to tinygraph", "first s", "error",
             "version"]]
    for name, p in report["peers"].items():
        if "median" in p:
            rows.append([name, time(p["median"]), time(p["minimum"]),
                         f"{p['median'] / own:.2f}" if own else "", f"{min(p['first']):.1f}",
                         f"{max(p['errors'].values()):.0e}", p["version"]])
    return "\n".join([table(rows), *_left_out(report)])


def rehearsed(report: Report) -> str:
    """Who agrees with the reference, and how well."""
    rows = [[report["title"], "error", "version"]]
    rows += [[name, f"{max(p['errors'].values()):.0e}", p["version"]]
             for name, p in report["peers"].items()]
    return "\n".join([table(rows), *_left_out(report)])


def _left_out(report: Report) -> list[str]:
    """Who was not timed, and why."""
    lines = [f"  skipped: {name}: {why}" for name, why in report["skipped"].items()]
    lines += [f"  NOT EQUAL, not timed: {name}: {why}" for name, why in report["wrong"].items()]
    return lines


def summary(reports: dict[str, Report], rows: dict[str, Row]) -> str:
    """All ratios in one table, with what is aimed at."""
    out = [["times faster than", "by hand or JAX", "", "aim", "cuDNN", "aim"]]
    for name, report in reports.items():
        hand, cudnn = (report["ratios"].get(kind) for kind in ("by hand", "cudnn"))
        aims = [f"{aim:.2g}" if aim else "" for aim in (rows[name].by_hand, rows[name].cudnn)]
        out.append([f"{name} {report['title']}", hand[0] if hand else "",
                    f"{hand[1]:.2f}" if hand else "", aims[0], f"{cudnn[1]:.2f}" if cudnn else "",
                    aims[1]])
    return table(out)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = [*ROWS, GRID]
    parser.add_argument("--only", nargs="+", choices=known, default=known, metavar="ROW",
                        help=f"of {', '.join(known)}")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--hidden", nargs="+", type=int, help="of the grid")
    parser.add_argument("--batch", nargs="+", type=int, help="of the grid")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES,
                        help="forward: the last state alone, of W3 to W5 and the grid")
    parser.add_argument("--rehearse", action="store_true",
                        help="without a GPU: tiny sizes, kernels run by the shim, peers on the "
                             "CPU; results are compared, and no times are shown")
    parser.add_argument("--quick", action="store_true",
                        help="few steps, nothing that takes minutes to start")
    parser.add_argument("--blocks", type=int, help="turns of every process")
    parser.add_argument("--seconds", type=float, help="of a turn, about")
    parser.add_argument("--limit", type=float, help="seconds that a process may take to answer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="a file for all figures")
    return parser.parse_args(argv)


def plan_of(args: argparse.Namespace) -> Plan:
    """How long to measure: one process of each kind, but three where processes are timed."""
    plan = Plan(quick=args.quick, seed=args.seed, threads=min(8, os.cpu_count() or 1))
    if args.rehearse:
        plan = replace(plan, quick=True, blocks=1, seconds=0.001, starts=1, limit=300.0)
    elif args.quick:
        plan = replace(plan, blocks=3, seconds=0.2, starts=1, limit=300.0)
    given = {k: getattr(args, k) for k in ("blocks", "seconds", "limit")}
    return replace(plan, **{k: v for k, v in given.items() if v is not None})


def chosen(args: argparse.Namespace) -> dict[str, Row]:
    """The rows that are asked for."""
    rows = {name: row for name, row in ROWS.items() if name in args.only}
    if GRID in args.only:
        hidden, batch = (HIDDEN_TINY, BATCH_TINY) if args.rehearse else (HIDDEN, BATCH)
        rows |= grid(args.hidden or hidden, args.batch or batch)
    found = {}
    for name, row in rows.items():
        if TRAINING in args.modes:
            found[name] = row
        if FORWARD in args.modes and row.workload.module == "recurrent":
            found[f"{name} {FORWARD}"] = forward(row)
    return {name: tiny(row) for name, row in found.items()} if args.rehearse else found


def main(argv: list[str] | None = None, device: str = "cuda", **sizes: Any) -> Report:
    """Run with command line arguments; returns what ``--json`` writes.

    device  a back end of tinygraph beside which peers run; sizes: other ones for the workloads
    Exits with status 2 where there is no GPU.
    """
    args = parse(argv)
    device = "shim" if args.rehearse else device
    why = unavailable() if device == "cuda" else None
    if why is not None:
        print(f"there is no GPU to run these benchmarks on: {why}; '{DOCTOR}' tests every back "
              "end", file=sys.stderr)
        sys.exit(NO_GPU)
    plan, rows = plan_of(args), chosen(args)
    out: Report = {"device": device_name(device), "rehearsal": args.rehearse,
                   "plan": asdict(plan), "workloads": {}}
    print(f"{out['device']}; float32, no tf32; an error is the largest difference from a float64 "
          "reference")
    print(f"{'a rehearsal: nothing here says how fast anything is' if args.rehearse else ''}\n")
    for name, row in rows.items():
        problem = problem_of(row, plan, device, **sizes)
        own = plan if row.workload.whole else replace(plan, starts=1)
        found = measure(row.workload, args.peers, own, problem, note(name))
        if args.rehearse:
            found["peers"] = {peer: {k: p[k] for k in ("system", "version", "errors")}
                              for peer, p in found["peers"].items()}
        found["ratios"] = ratios(found)
        out["workloads"][name] = found
        print(f"{name} {show(found, args.rehearse)}\n", flush=True)
        if args.json:
            Path(args.json).write_text(json.dumps(out, indent=1) + "\n")
    if not args.rehearse:
        print(summary(out["workloads"], rows))
    return out


def device_name(device: str) -> str:
    """What the GPU is called."""
    if device != "cuda":
        return device
    from tinygraph.backends.cuda.device import CudaDevice

    return CudaDevice().name


if __name__ == "__main__":
    sys.exit(any(w["wrong"] or OWN not in w["peers"] for w in main()["workloads"].values()))
