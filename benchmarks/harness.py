"""What all benchmarks share: peers in processes of their own, timed in alternating blocks."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from problem import unpack

HERE = Path(__file__).parent.absolute()
WORKER = HERE / "peers" / "worker.py"
THREADS = ("TINYGRAPH_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
           "NUMBA_NUM_THREADS", "NPROC")
FAINT = 1e-12
# MKL from a wheel, for PyTensor's C mode, which has no BLAS of its own
MKL = next(Path(sys.prefix, "lib").glob("libmkl_rt.so*"), None)


class Skipped(Exception):  # noqa: N818  (not an error of the program)
    """A peer does not take part; the text says why.  ``name``: the peer's."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


@dataclass(frozen=True)
class Peer:
    """Who does a workload: a module in peers/ and a variant of it.

    system   'tinygraph', 'torch', 'jax', ...
    module   the file in peers/
    threads  how many it may use
    limit    seconds that an answer may take
    """

    system: str
    module: str
    variant: str = ""
    threads: int = 2
    limit: float = 900.0

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.system} {self.variant}".strip()

    def command(self, problem: Path, *more: str) -> list[str]:
        """The command line of the worker."""
        return [sys.executable, str(WORKER), self.module, str(problem), "--variant", self.variant,
                "--threads", str(self.threads), *more]

    def environment(self, cache: Path) -> dict[str, str]:
        """The environment of its processes, with all caches of compiled code in a folder.

        They may keep bytecode: an installed package has its own, so a checkout that is compiled
        anew in each process would not be comparable."""
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        path = os.pathsep.join(filter(None, [str(HERE.parent), kept.get("PYTHONPATH", "")]))
        flags = f"base_compiledir={cache / 'pytensor'}"
        if self.variant == "c" and MKL is not None:
            flags += f",blas__ldflags=-L{MKL.parent} -l:{MKL.name}"
            kept["LD_LIBRARY_PATH"] = str(MKL.parent)
        return {**kept, "PYTHONPATH": path, **dict.fromkeys(THREADS, str(self.threads)),
                "TINYGRAPH_CACHE_DIR": str(cache / "tinygraph"), "PYTENSOR_FLAGS": flags,
                "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
                # Several processes have the GPU in turn; JAX would take most of its memory.
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Running:
    """A peer's process, up to its first result.

    every     do all minibatches of the problem before the first answer
    first     seconds from the start of the process to that answer
    greeting  what it said then: losses, seconds of imports, build and first step, stages, version
    Raises Skipped where the process cannot go on, takes too long or ends.
    """

    def __init__(self, peer: Peer, problem: Path, cache: Path, every: bool = False) -> None:
        self.peer = peer
        self.late = False
        start = time.perf_counter()
        self.process = subprocess.Popen(
            peer.command(problem, *(["--all"] if every else [])),
            env=peer.environment(cache), text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.said: list[str] = []
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        try:
            self.greeting = self._read()
            self.first = time.perf_counter() - start
            if "unavailable" in self.greeting:
                raise self._skipped(self.greeting["unavailable"])
        except Skipped:
            self.close()
            raise

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request (see peers/worker.py)."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._skipped(f"its process ended: {self._last_words()}") from None
        return self._read()

    def results(self) -> dict[str, dict[str, np.ndarray]]:
        """What there is to compare, by kind and name."""
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "results.npz")
            self.ask(do="results", to=path)
            with np.load(path) as file:
                return unpack({name: file[name] for name in file.files})

    def _skipped(self, reason: str) -> Skipped:
        return Skipped(self.peer.name, reason)

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        timer = threading.Timer(self.peer.limit, self._give_up)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if self.late:
            raise self._skipped(f"no answer within {self.peer.limit:.0f} s")
        if not line:
            raise self._skipped(f"its process ended: {self._last_words()}")
        return json.loads(line)

    def _give_up(self) -> None:
        self.late = True
        self.process.kill()

    def _last_words(self) -> str:
        status = self.process.wait()
        self.listener.join(1)
        lines = [line.strip() for line in self.said if line.strip()]
        return lines[-1] if lines else f"status {status}"

    def close(self) -> None:
        """End the process and wait for it."""
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self.process.wait()
        self.listener.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def interleave(running: Sequence[Running], blocks: int, seconds: float, cycle: int
               ) -> list[np.ndarray]:
    """The seconds of steps as (blocks, steps) for each process: they take turns, a block each,
    so that what else the machine does meets all alike.

    seconds  about how long a block takes; it has whole cycles of steps
    cycle    steps after which the minibatches repeat: all are done once before anything is timed
    Two steps of every block come before its clock, to wake what sleeps between blocks.
    """
    counts = []
    for r in running:
        quick = min(r.ask(do="time", steps=cycle, idle=cycle)["seconds"])
        turns = max(1, min(round(seconds / (quick * cycle)), 5000 // cycle))
        counts.append(cycle * max(turns, -(-3 // cycle)))
    times: list[list[list[float]]] = [[] for _ in running]
    for _ in range(blocks):
        for r, count, found in zip(running, counts, times, strict=True):
            idle = cycle * -(-2 // cycle)
            found.append(r.ask(do="time", steps=count, idle=idle)["seconds"])
    return [np.array(t) for t in times]


def furthest(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
             ) -> tuple[float, str]:
    """The largest difference of arrays, each relative to its largest expected element, and the
    name of the array.  Raises ValueError where the names or shapes differ."""
    check_names(found, expected)
    worst = (0.0, "")
    for name, right in expected.items():
        left = np.asarray(found[name], np.float64)
        scale = float(np.abs(right).max()) or 1.0
        error = float(np.abs(left - right).max()) / scale
        if not error <= worst[0]:  # a nan is as far as can be
            worst = (error, name)
            if np.isnan(error):
                break
    return worst


def distance(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray],
             origin: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray]
             ) -> tuple[float, str]:
    """The largest difference of steps from ``origin``, each relative to the expected one's norm,
    and the name of the array.

    Not element by element: an optimiser that divides by the size of the gradient makes as large a
    step of a gradient that is nothing but rounding errors as of any other.  Where the expected
    gradient is less than ``FAINT`` nothing is compared: its square is lost in float32.
    Raises ValueError where the names or shapes differ."""
    check_names(found, expected)
    worst = (0.0, "")
    for name, right in expected.items():
        counts = np.abs(gradients[name]) >= FAINT
        norm = float(np.linalg.norm((right - origin[name])[counts])) or 1.0
        error = float(np.linalg.norm((found[name] - right)[counts])) / norm
        if not error <= worst[0]:
            worst = (error, name)
            if np.isnan(error):
                break
    return worst


def check_names(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError where the names or shapes of arrays differ."""
    if set(found) != set(expected):
        raise ValueError(f"only one side has {sorted(set(found) ^ set(expected))}")
    for name, right in expected.items():
        if np.shape(found[name]) != right.shape:
            raise ValueError(f"{name} has shape {np.shape(found[name])} here and {right.shape} "
                             "there")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text in columns; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) if k == 0 else cell.rjust(w)
                       for k, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip()
             for row in rows]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
