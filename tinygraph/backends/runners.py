"""Loop program -> something that runs: natively, or slowly in Python as an oracle."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tinygraph.backends.llvm import jit
from tinygraph.backends.llvm.callbacks import RAISED, Callbacks
from tinygraph.errors import UnavailableError
from tinygraph.loops import interpret
from tinygraph.loops.language import Program

FAULT = ctypes.c_int64 * 8  # the numbers that a Check reports


class NeedsHost(UnavailableError):
    """A program has something in it that no device can do; the CPU can."""


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
    """Runs a program on the arrays of one call; None, or the Fault that ended it.

    Runners of a device take arrays of its home for ``arrays``, and NumPy's, and write into those
    of its home for ``results``."""

    def __call__(self, plan: Any, arrays: Sequence[Any], results: Sequence[Any],
                 constants: Sequence[np.ndarray], fresh: int = 0) -> Fault | None: ...


class LoopRunner:
    """The loop program in Python, every access checked: an oracle."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def __call__(self, plan: PlanLike, arrays: Sequence[np.ndarray],
                 results: Sequence[np.ndarray], constants: Sequence[np.ndarray], fresh: int = 0
                 ) -> Fault | None:
        flat = [a.reshape(-1) for a in (*arrays, *results, *constants)]
        done = interpret.run(self.program, [int(n) for n in plan.sizes], flat)
        return None if done == 0 else Fault(done.site, tuple(done.numbers))  # type: ignore


def address_of(array: np.ndarray) -> int:
    """The address of the first element (asking takes a microsecond)."""
    return array.__array_interface__["data"][0]


class NativeRunner:
    """One native function, called once per call, outside the GIL.

    ``spaces`` keeps workspaces for later calls; each running call has its own.  The arrays of
    shared variables come again and again (the current one and its spare in turn), so the addresses
    of the last two sets are kept, each with its arrays.
    """

    SETS = 2
    ALIGNMENT = 64  # of a workspace

    def __init__(self, code: jit.ObjectCode, arguments: int, transient: int = 0,
                 program: Program | None = None) -> None:
        """``transient``: how many of the first arrays are new at every call.  ``program``: the
        one of which ``code`` was made, needed where it calls Python functions."""
        self.callbacks = Callbacks(program)
        self.native = jit.load(code, self.callbacks.addresses)
        self.transient = transient
        self.spaces: list[np.ndarray] = []
        self._pointers = ctypes.c_int64 * max(1, arguments)
        self._sets: dict[tuple[int, ...], tuple[list[np.ndarray], Any]] = {}

    def __call__(self, plan: PlanLike, arrays: Sequence[np.ndarray],
                 results: Sequence[np.ndarray], constants: Sequence[np.ndarray], fresh: int = 0
                 ) -> Fault | None:
        space, fault = self._space(plan.arena_bytes), FAULT()
        start = address_of(space)
        pointers = self._addresses(arrays, results, constants, fresh)
        code = self.native(plan.sizes_address, ctypes.addressof(pointers),
                           start + -start % self.ALIGNMENT, ctypes.addressof(fault))
        self.spaces.append(space)
        if code == RAISED:
            raise self.callbacks.take()
        return None if code == 0 else Fault(code - 1, tuple(fault))

    def _addresses(self, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray],
                   constants: Sequence[np.ndarray], fresh: int) -> Any:
        """The addresses of all arguments; the first ``fresh`` results are new."""
        n, first = self.transient, len(arrays)
        lasting = [*arrays[n:], *results[fresh:]]
        key = (fresh, *map(id, lasting))
        known = self._sets.get(key)
        if known is None:
            everything = (*arrays, *results, *constants)
            known = lasting, self._pointers(*map(address_of, everything))
            # A new dictionary, so that other threads may look into the old one meanwhile.
            self._sets = {**dict(list(self._sets.items())[1 - self.SETS:]), key: known}
        pointers = self._pointers.from_buffer_copy(known[1])
        pointers[:n] = list(map(address_of, arrays[:n]))
        pointers[first:first + fresh] = list(map(address_of, results[:fresh]))
        return pointers

    def _space(self, size: int) -> np.ndarray:
        """A workspace of at least ``size`` aligned bytes that no other call is using."""
        needed = size + self.ALIGNMENT
        try:
            space = self.spaces.pop()
        except IndexError:
            return np.empty(needed, np.uint8)
        return space if space.size >= needed else np.empty(needed, np.uint8)
