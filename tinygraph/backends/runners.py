"""Loop program -> something that runs: natively, or slowly in Python as an oracle."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tinygraph.backends.llvm import jit
from tinygraph.loops import interpret
from tinygraph.loops.language import Program


@dataclass(frozen=True)
class Fault:
    """A failed Check: its site and the numbers that it reports."""

    site: int
    numbers: tuple[int, ...]


class PlanLike(Protocol):
    """The part of a call's plan that a runner reads."""

    sizes: np.ndarray
    sizes_address: int
    arena_bytes: int


class Runner(Protocol):
    """Runs a program on the arrays of one call; None, or the Fault that ended it."""

    def __call__(self, plan: Any, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray],
                 constants: Sequence[np.ndarray]) -> Fault | None: ...


class LoopRunner:
    """The loop program in Python, every access checked: an oracle."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def __call__(self, plan: PlanLike, arrays: Sequence[np.ndarray],
                 results: Sequence[np.ndarray], constants: Sequence[np.ndarray]) -> Fault | None:
        flat = [a.reshape(-1) for a in (*arrays, *results, *constants)]
        done = interpret.run(self.program, [int(n) for n in plan.sizes], flat)
        return None if done == 0 else Fault(done.site, tuple(done.numbers))  # type: ignore


class Addresses:
    """Where arrays lie in memory.  Asking NumPy takes a microsecond; the arrays of shared
    variables come again and again, so their answers are kept, each with its array."""

    LIMIT = 4096

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[np.ndarray], int]] = {}

    def __call__(self, array: np.ndarray) -> int:
        entry = self._known.get(id(array))
        if entry is not None and entry[0]() is array:
            return entry[1]
        address = address_of(array)
        if len(self._known) >= self.LIMIT:
            self._known.clear()
        self._known[id(array)] = (weakref.ref(array), address)
        return address


def address_of(array: np.ndarray) -> int:
    """The address of the first element."""
    return array.__array_interface__["data"][0]


class NativeRunner:
    """One native function, called once per call, outside the GIL.

    Workspaces are kept for later calls; each running call has its own.
    """

    ALIGNMENT = 64

    def __init__(self, code: jit.ObjectCode, arguments: int, transient: int = 0) -> None:
        """``transient``: how many of the first arrays are new at every call."""
        self.native, self.transient = jit.load(code), transient
        self._addresses = Addresses()
        self._arenas: list[np.ndarray] = []
        self._pointers = ctypes.c_void_p * max(1, arguments)

    def __call__(self, plan: PlanLike, arrays: Sequence[np.ndarray],
                 results: Sequence[np.ndarray], constants: Sequence[np.ndarray]) -> Fault | None:
        arena = self._arena(plan.arena_bytes)
        kept = self._addresses
        pointers = self._pointers(
            *map(address_of, arrays[:self.transient]), *map(kept, arrays[self.transient:]),
            *map(kept, results), *map(kept, constants))
        fault = (ctypes.c_int64 * 8)()
        start = kept(arena)
        start += -start % self.ALIGNMENT
        code = self.native(plan.sizes_address, ctypes.addressof(pointers), start,
                           ctypes.addressof(fault))
        self._arenas.append(arena)
        return None if code == 0 else Fault(code - 1, tuple(fault))

    def _arena(self, size: int) -> np.ndarray:
        try:
            arena = self._arenas.pop()
        except IndexError:
            return np.empty(size + self.ALIGNMENT, np.uint8)
        if arena.nbytes < size + self.ALIGNMENT:
            return np.empty(size + self.ALIGNMENT, np.uint8)
        return arena
