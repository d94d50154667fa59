"""What all benchmarks share: peers in processes of their own, timed in alternating blocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
WORKER = HERE / "peers" / "worker.py"


@dataclass(frozen=True)
class Peer:
    """Who does a workload: a module in peers/, a variant of it and the Python that runs it.

    environment: what is added to the environment of the process
    """

    name: str
    module: str
    variant: str = ""
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, problem: Path, *more: str) -> list[str]:
        """The command line of the worker."""
        return [self.python, str(WORKER), self.module, str(problem), "--variant", self.variant,
                *more]


def tinygraph_peer(workload: str) -> Peer:
    """The peer that is this checkout of tinygraph."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
    return Peer("tinygraph", f"tinygraph_{workload}", environment={"PYTHONPATH": path})


def surroundings(peer: Peer) -> dict[str, str]:
    """The environment of a peer's processes.  They may keep bytecode: an installed package has
    its own, so a checkout that is compiled anew in each process would not be comparable."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **peer.environment}


def create(peer: Peer, problem: Path, **options: Any) -> None:
    """Write the arrays of the problem that ``peer`` defines; options: seed and sizes."""
    subprocess.run(peer.command(problem, "--create", "--options", json.dumps(options)),
                   check=True, env=surroundings(peer))


class Running:
    """A peer's process, up to its first result.

    first      seconds from the start of the process to the first result
    greeting   what it said then: loss, seconds of imports, build and first step, stages, version
    Raises RuntimeError where the process ends instead; what it printed is on the error stream.
    """

    def __init__(self, peer: Peer, problem: Path, cache: str = "") -> None:
        self.peer = peer
        environment = surroundings(peer)
        if cache:
            environment["TINYGRAPH_CACHE_DIR"] = cache
        start = time.perf_counter()
        self.process = subprocess.Popen(peer.command(problem), env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.greeting = self._read()
        self.first = time.perf_counter() - start

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request (see peers/worker.py)."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._read()

    def arrays(self, what: str) -> dict[str, np.ndarray]:
        """'gradients' or 'parameters', by name."""
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "arrays.npz")
            self.ask(do=what, to=path)
            with np.load(path) as file:
                return {name: file[name] for name in file.files}

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.peer.name} ended with status "
                               f"{self.process.wait()} before it answered")
        return json.loads(line)

    def close(self) -> None:
        """End the process and wait for it."""
        self.process.communicate()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


@dataclass
class Start:
    """Seconds of fresh processes: to the first result, and its parts by name, a list of each."""

    first: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)

    def add(self, running: Running) -> None:
        """Note one more process."""
        self.first.append(running.first)
        for key, value in {**running.greeting["seconds"], **running.greeting["stages"]}.items():
            self.parts.setdefault(key, []).append(value)

    def least(self, *parts: str) -> float:
        """The least of a part's seconds, or of the sum of parts; of ``first`` for none."""
        if not parts:
            return min(self.first)
        return min(map(sum, zip(*(self.parts[p] for p in parts), strict=True)))


def starts(peers: Sequence[Peer], problem: Path, times: int, caches: Sequence[str | None]
           ) -> list[Start]:
    """Fresh processes of every peer, alternating.  A peer's cache: a directory to keep between
    its processes, or None for an empty one each time."""
    out = [Start() for _ in peers]
    for _ in range(times):
        for peer, cache, start in zip(peers, caches, out, strict=True):
            with (tempfile.TemporaryDirectory() as empty,
                  Running(peer, problem, cache or empty) as running):
                start.add(running)
    return out


def interleave(running: Sequence[Running], blocks: int, steps: int) -> list[np.ndarray]:
    """The seconds of steps as (blocks, steps) for each process: they take turns, a block each,
    so that what else the machine does meets all alike.  One block before is not counted."""
    out: list[list[list[float]]] = [[] for _ in running]
    for block in range(-1, blocks):
        for r, times in zip(running, out, strict=True):
            seconds = r.ask(do="time", steps=steps)["seconds"]
            if block >= 0:
                times.append(seconds)
    return [np.array(t) for t in out]


def furthest(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
             ) -> tuple[float, str]:
    """The largest difference of arrays, each relative to its largest expected element, and the
    name of the array.  Raises ValueError where the names or shapes differ."""
    if set(found) != set(expected):
        raise ValueError(f"only one side has {sorted(set(found) ^ set(expected))}")
    worst = (0.0, "")
    for name, right in expected.items():
        left = np.asarray(found[name], np.float64)
        if left.shape != right.shape:
            raise ValueError(f"{name} has shape {left.shape} here and {right.shape} there")
        scale = float(np.abs(right).max()) or 1.0
        error = float(np.abs(left - right).max()) / scale
        if not error <= worst[0]:  # a nan is as far as can be
            worst = (error, name)
            if np.isnan(error):
                break
    return worst


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text in columns; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) if k == 0 else cell.rjust(w)
                       for k, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip()
             for row in rows]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
