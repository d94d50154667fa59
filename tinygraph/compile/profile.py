"""How long each part of a compiled program takes: ``function(..., profile=True)``, ``f.profile``.

A program with a profile is another program: the clock is read before and after every statement
at the top of it and of its loops, and the times are added up in an array that goes with the
program.  Without a profile there is none of this.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.backends.runners import Fault, Runner
from tinygraph.loops.language import STAMP_NUMBERS
from tinygraph.lowering.clock import Mark

_LONG = 0.005  # seconds after which the clock of the processor is known to a thousandth


def timed(profile: Any, backend: str) -> bool:
    """Is a profile asked for?  Raises ValueError where there is none to be had."""
    if profile and backend in ("cuda", "shim"):
        raise ValueError(f"profile=True has no clock for kernels, which backend {backend!r} runs; "
                         "use backend='llvm', or NVIDIA's profilers")
    if profile and backend == "numpy":
        raise ValueError("profile=True takes the time of the parts of a compiled program, and "
                         "backend 'numpy' compiles none; use backend='llvm'")
    return bool(profile)


class Stopwatch:
    """A runner with a clock: it passes calls on to ``runner``, and knows the marks of its program
    and the array that holds their times."""

    def __init__(self, runner: Runner, marks: Sequence[Mark], ticks: np.ndarray) -> None:
        self.runner, self.marks, self.ticks = runner, tuple(marks), ticks
        self.calls, self.seconds = 0, 0.0
        self._lock = threading.Lock()
        self._first = self._last = (0, 0.0)

    def __call__(self, plan: Any, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray],
                 constants: Sequence[np.ndarray], fresh: int = 0) -> Fault | None:
        start = time.perf_counter()
        fault = self.runner(plan, arrays, results, constants, fresh)
        end = time.perf_counter()
        with self._lock:
            self.calls += 1
            self.seconds += end - start
            self._last = int(self.ticks[0]), start
            if self.calls <= 2:  # the first call may prepare something before its clock starts
                self._first = self._last
        return fault

    def ticks_per_second(self) -> float:
        """How fast the clock of the processor goes."""
        seconds = self._last[1] - self._first[1]
        if seconds > _LONG:
            return (self._last[0] - self._first[0]) / seconds
        return max(float(self.ticks[1]), 1.0) / max(self.seconds, 1e-9)

    def entries(self) -> Iterator[Entry]:
        """One per mark, in the order of the program; the first is the whole."""
        rate, depths = self.ticks_per_second(), list[int]()
        for k, mark in enumerate(self.marks):
            depths.append(depths[mark.parent] + 1 if mark.parent >= 0 else -1)
            _, ticks, calls = self.ticks[STAMP_NUMBERS * k:STAMP_NUMBERS * (k + 1)]
            yield Entry(float(ticks) / rate, int(calls), mark.kind, mark.ops, mark.names,
                        mark.sources, depths[-1], mark.shared)


@dataclass(frozen=True)
class Entry:
    """One part of a program.

    seconds  in all calls together;  calls: how often it ran (once per step inside a loop)
    kind     'nest' (elementwise functions and sums), 'product', 'scan', 'copy', or an op's name
    ops      what it computes;  names, sources: the user's variables and lines that it comes from
    depth    0 at the top of the program, 1 in the step of a scan, and so on
    threads  it stands in a parallel loop: the times of threads that ran side by side are added
    """

    seconds: float
    calls: int
    kind: str
    ops: tuple[str, ...]
    names: tuple[str, ...]
    sources: tuple[str, ...]
    depth: int
    threads: bool

    @property
    def what(self) -> str:
        """Kind, ops and names in one line."""
        ops = ", ".join(self.ops)
        head = f"{self.kind} {ops}".strip() if self.kind in ("nest", "copy") else ops or self.kind
        return head + (f" -> {', '.join(self.names)}" if self.names else "")

    @property
    def source(self) -> str:
        """The user's lines."""
        more = f" (+{len(self.sources) - 1})" if len(self.sources) > 1 else ""
        return self.sources[0] + more if self.sources else ""


@dataclass(frozen=True)
class Profile:
    """The times of a function: ``calls`` so far, ``seconds`` in compiled code, and one entry per
    part of the program, in its order.  Prints as ``summary()``."""

    name: str
    calls: int
    seconds: float
    entries: tuple[Entry, ...]

    def top(self) -> list[Entry]:
        """The parts at the top of the program, longest first; they make up the whole."""
        return sorted((e for e in self.entries if e.depth == 0), key=lambda e: -e.seconds)

    def summary(self, most: int = 20) -> str:
        """A table of the ``most`` longest parts; what a scan consists of stands under it."""
        each = self.seconds / self.calls * 1e6 if self.calls else 0.0
        lines = [f"{self.name}: {self.calls} calls, {self.seconds:.6f} s in compiled code, "
                 f"{each:.1f} us each", f"{'share':>7} {'seconds':>10} {'runs':>9}  part"]
        lines += [self._line(e) for e in _longest_first(self.entries, most)]
        if any(e.threads for e in self.entries):
            lines.append("* in a loop that threads share: their times are added")
        return "\n".join(lines)

    def _line(self, e: Entry) -> str:
        share = 100 * e.seconds / self.seconds if self.seconds else 0.0
        what = e.what if len(e.what) <= 60 else e.what[:57] + "..."
        where = f"  {e.source}" if e.source else ""
        return (f"{share:6.1f}%{'*' if e.threads else ' '}{e.seconds:10.6f} {e.calls:9d}  "
                f"{'  ' * e.depth}{what}{where}")

    def __str__(self) -> str:
        return self.summary()


def _longest_first(entries: Sequence[Entry], most: int) -> list[Entry]:
    """The longest parts; each is followed by the parts that it consists of."""
    kept = sorted(entries, key=lambda e: -e.seconds)[:most]
    chosen = set(map(id, kept))

    def under(k: int, depth: int) -> Iterator[tuple[int, Entry]]:
        for j in range(k, len(entries)):
            if entries[j].depth < depth:
                return
            if entries[j].depth == depth:
                yield j, entries[j]

    def write(k: int, depth: int) -> Iterator[Entry]:
        for j, e in sorted(under(k, depth), key=lambda item: -item[1].seconds):
            if id(e) in chosen:
                yield e
            yield from write(j + 1, depth + 1)

    return list(write(0, 0))


def profiled(name: str, watches: Iterable[Stopwatch]) -> Profile:
    """The profile of a function over all that was compiled for it (one program per shape of its
    shared variables)."""
    calls, seconds, entries = 0, 0.0, list[Entry]()
    for watch in watches:
        found = list(watch.entries())
        calls, seconds = calls + watch.calls, seconds + found[0].seconds
        entries += found[1:]
    return Profile(name, calls, seconds, tuple(entries))
