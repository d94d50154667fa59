"""One peer on one workload in a process of its own, driven over its standard streams.

    python worker.py MODULE PROBLEM.npz [--variant NAME] [--all] [--threads N]

MODULE is a file beside this one.  It defines ``VERSION`` and ``Workload(problem, variant)``; a
variant that cannot run here raises ``Unavailable``.  After the first step (``--all``: after as
many as the problem has minibatches) the process writes a line of JSON, then answers each line it
reads with one.  Only the standard library is imported before the clock runs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO


class Unavailable(Exception):  # noqa: N818  (not an error of the program)
    """A variant cannot run on this machine; the text says why."""


class Workload(Protocol):
    """One workload on one peer, made from a ``problem.Problem`` and the name of a variant.

    stages    the seconds of parts of that, as far as the peer knows them
    compiles  how often it has compiled, where that can be counted; None elsewhere
    """

    stages: dict[str, float]
    compiles: int | None

    def step(self) -> Any:
        """Do the work once with the next minibatch, from the state that the last step left.
        Gives the loss before it, or in inference the result, when all work is done."""

    def results(self) -> dict[str, dict[str, Any]]:
        """What to compare after the first step, by kind and name: 'parameters' as they are now,
        'gradients' at the parameters and first minibatch of the problem; in inference the
        'outputs'."""


def main(argv: list[str] | None = None) -> None:
    """Run as the command line says until the input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("module")
    parser.add_argument("problem")
    parser.add_argument("--variant", default="")
    parser.add_argument("--all", action="store_true", help="do all minibatches first")
    parser.add_argument("--threads", type=int, default=0, help="run on so many CPUs")
    args = parser.parse_args(argv)
    if args.threads:
        _confine(args.threads)
    # Modules that import this one must meet this one.
    sys.modules.setdefault("worker", sys.modules[__name__])
    sys.path.insert(1, str(Path(__file__).parents[1]))
    channel = _claim_stdout()
    try:
        workload, greeting = begin(args.module, args.problem, args.variant, args.all)
    except Unavailable as reason:
        _say(channel, {"unavailable": str(reason)})
        return
    _say(channel, greeting)
    for line in sys.stdin:
        _say(channel, answer(workload, json.loads(line)))


def begin(name: str, path: str, variant: str, every: bool) -> tuple[Workload, dict[str, Any]]:
    """The workload after its first step or steps, and what to say then."""
    start = time.perf_counter()
    module: Any = importlib.import_module(name)
    from problem import Problem
    seconds = {"imports": time.perf_counter() - start}
    problem = Problem.load(path)
    start = time.perf_counter()
    workload = module.Workload(problem, variant)
    seconds["build"] = time.perf_counter() - start
    start = time.perf_counter()
    losses = [value(workload.step())]
    seconds["first step"] = time.perf_counter() - start
    if every:
        losses += [value(workload.step()) for _ in problem.batches[1:]]
    return workload, {"losses": losses, "seconds": seconds, "stages": workload.stages,
                      "version": module.VERSION, "compiles": workload.compiles}


def value(result: Any) -> float:
    """The result of a step as one number: the mean where it is an array."""
    import numpy as np

    return float(np.mean(np.asarray(on_host(result)), dtype=np.float64))


def on_host(array: Any) -> Any:
    """An array as NumPy takes it: CuPy's by ``get``, PyTorch's by ``cpu``."""
    for copy in ("get", "cpu"):
        if hasattr(array, copy):
            return getattr(array, copy)()
    return array


def answer(workload: Workload, request: Mapping[str, Any]) -> dict[str, Any]:
    """Do what ``request['do']`` names.  Raises ValueError for what is not known."""
    what = request["do"]
    if what == "time":
        return {"seconds": timed(workload, request["steps"], request["idle"])}
    if what == "losses":
        return {"losses": [value(workload.step()) for _ in range(request["steps"])]}
    if what == "results":
        import numpy as np
        from problem import pack

        np.savez(request["to"], **pack(workload.results()))
        return {}
    if what == "state":
        return {"compiles": workload.compiles, "peak": peak_memory()}
    raise ValueError(f"there is no request {what!r}; write 'time', 'losses', 'results' or 'state'")


def timed(workload: Workload, steps: int, idle: int = 0) -> list[float]:
    """The seconds of each of some steps; ``idle`` more before them are not timed."""
    for _ in range(idle):
        workload.step()
    out = []
    clock = time.perf_counter
    for _ in range(steps):
        start = clock()
        workload.step()
        out.append(clock() - start)
    return out


def peak_memory() -> int | None:
    """The largest resident set of this process so far in bytes; None where the system does not
    say."""
    status = Path("/proc/self/status")
    found = status.exists() and re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
    return int(found[1]) * 1024 if found else None


def _confine(count: int) -> None:
    """Keep this process on ``count`` of the CPUs it may use, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def _claim_stdout() -> TextIO:
    """The standard output for answers alone: what libraries print goes to the error stream."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


def _say(channel: TextIO, message: Mapping[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
