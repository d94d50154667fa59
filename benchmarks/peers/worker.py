"""One peer on one workload in a process of its own, driven over its standard streams.

    python worker.py MODULE PROBLEM.npz [--variant NAME]
    python worker.py MODULE PROBLEM.npz --create --options '{"seed": 0}'

MODULE is a file beside this one.  It defines ``Workload(arrays, variant)``, ``VERSION`` and, in
one module per workload, ``create(seed, ...)`` with the sizes of the workload as further arguments,
which makes the arrays of PROBLEM.npz: data under their own names, parameters under
``parameter.<name>``.

After the first step the process writes a line of JSON, then answers each line it reads with one.
Nothing but the standard library is imported before the clock runs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO


class Workload(Protocol):
    """One workload on one peer.

    Made from the arrays of the problem and the name of a variant; ``stages`` are the seconds of
    parts of that, as far as the peer knows them.
    """

    stages: dict[str, float]

    def step(self) -> float:
        """Do the work once, from the state that the last step left; the loss before it."""

    def gradients(self) -> dict[str, Any]:
        """The gradients at the parameters of the problem, by name."""

    def parameters(self) -> dict[str, Any]:
        """The parameters now, by name."""


def main(argv: list[str] | None = None) -> None:
    """Run as the command line says until the input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("module")
    parser.add_argument("problem")
    parser.add_argument("--variant", default="")
    parser.add_argument("--create", action="store_true")
    parser.add_argument("--options", default="{}", help="JSON: the arguments of create()")
    args = parser.parse_args(argv)
    channel = _claim_stdout()
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    module: Any = importlib.import_module(args.module)
    seconds["imports"] = time.perf_counter() - start
    if args.create:
        write(args.problem, module.create(**json.loads(args.options)))
        return
    arrays = read(args.problem)
    start = time.perf_counter()
    workload = module.Workload(arrays, args.variant)
    seconds["build"] = time.perf_counter() - start
    start = time.perf_counter()
    loss = workload.step()
    seconds["first step"] = time.perf_counter() - start
    _say(channel, {"loss": loss, "seconds": seconds, "stages": workload.stages,
                   "version": module.VERSION})
    for line in sys.stdin:
        _say(channel, answer(workload, json.loads(line)))


def answer(workload: Workload, request: Mapping[str, Any]) -> dict[str, Any]:
    """Do what ``request['do']`` names.  Raises ValueError for what is not known."""
    what = request["do"]
    if what == "time":
        return {"seconds": timed(workload, request["steps"])}
    if what in ("gradients", "parameters"):
        write(request["to"], getattr(workload, what)())
        return {}
    raise ValueError(f"there is no request {what!r}; write 'time', 'gradients' or 'parameters'")


def timed(workload: Workload, steps: int) -> list[float]:
    """The seconds of each of some steps."""
    out = []
    for _ in range(steps):
        start = time.perf_counter()
        workload.step()
        out.append(time.perf_counter() - start)
    return out


# NumPy is imported where it is used: its time is part of the imports that are measured.

def read(path: str) -> dict[str, Any]:
    """The arrays of an npz file, by name."""
    import numpy as np

    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def write(path: str, arrays: Mapping[str, Any]) -> None:
    """Arrays by name as an npz file."""
    import numpy as np

    np.savez(path, **arrays)


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
