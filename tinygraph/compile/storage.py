"""The arrays behind shared variables, and what keeps the calls that use them apart.

Threads.  Every reading of several storages, and every storing, is one moment: Python code does it
with the ``GATE`` closed, and the native entrance of a function under the GIL, if the gate is open.
A call that updates storages marks them as busy from its start to its end, so that two such calls
happen one after the other; who finds one busy waits.  A call that only reads waits for nobody.
An array that another call may still be reading is never written: it becomes the spare, into
which the next update goes, only if no other call was running when it was replaced.

Devices.  A value lies on the host, on a device, or on both with the same elements; whoever reads
it where it is not copies it there, once.  An array that somebody outside holds could be written to
unnoticed, so it never lies in both places: the value moves.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinygraph.backends.homes import Home


class Gate:
    """The lock for the moments of reading and storing, and how many calls are running.

    ``words``, which native code reads and writes too: is the gate closed, how many calls are
    running, how many threads wait for storages that are busy.
    """

    HELD, RUNNING, WAITING = range(3)

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.freed = threading.Condition(self.lock)
        self.words = (ctypes.c_int64 * 3)()
        self.address = ctypes.addressof(self.words)
        self._storages: weakref.WeakSet[Storage] = weakref.WeakSet()
        self._watching = False

    def watch(self, storage: Storage) -> None:
        """In the child of a fork, where no call of another thread goes on, free ``storage``."""
        self._storages.add(storage)
        if not self._watching and hasattr(os, "register_at_fork"):
            self._watching = True
            os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        self.lock = threading.Lock()
        self.freed = threading.Condition(self.lock)
        self.words[:] = [0, 0, 0]
        for storage in self._storages:
            storage.words[storage.BUSY] = 0

    @contextmanager
    def closed(self) -> Iterator[None]:
        """One moment: nothing that is shared is read or stored by anybody else."""
        with self.lock:
            self.words[self.HELD] = 1
            try:
                yield
            finally:
                self.words[self.HELD] = 0

    def wait(self, storages: Sequence[Storage]) -> bool:
        """Wait until no call is going to store into ``storages``; was there one?  Needs the gate
        closed, and opens it meanwhile."""
        me = threading.get_ident()
        if any([s.words[s.BUSY] and s.holder == me for s in storages]):
            raise RuntimeError("a shared variable is given a value inside a call that is going to "
                               "update it, which would wait for itself; perform of an op must "
                               "leave it alone")
        waited = False
        while any([s.words[s.BUSY] for s in storages]):
            waited = True
            self.words[self.WAITING] += 1
            self.words[self.HELD] = 0
            try:
                self.freed.wait()
            finally:
                self.words[self.HELD] = 1
                self.words[self.WAITING] -= 1
        return waited

    def wake(self) -> None:
        """Let those who wait look again."""
        with self.lock:
            self.freed.notify_all()


GATE = Gate()


@functools.cache
def _absent(ndim: int) -> np.ndarray:
    """What stands in a cell whose value is on a device alone.  Native code looks at dtypes first:
    no variable has this one.  It compares shapes where it stores, so there are as many axes."""
    return np.empty((0,) * ndim, "V1")


class Storage:
    """The current array of a shared variable, and a spare of the same shape and dtype or None.

    ``cell`` holds the host's two; ``words`` tell whether a call is going to store here, and
    whether nobody outside holds the host's current array, so that it may become the spare.  Both
    change while the gate is closed; native code works with both.

    ``home`` has another two, ``there`` and ``there_spare``.  ``there`` has the value as long as
    the cell's first is the very object ``same``: native code, which knows of no device, puts
    another there.
    """

    BUSY, OWNED = range(2)

    def __init__(self, array: Any, owned: bool, home: Home | None = None) -> None:
        self.cell: list[Any] = [array if home is None else _absent(array.ndim), None]
        self.words = (ctypes.c_int64 * 2)(0, owned and home is None)
        self.address = ctypes.addressof(self.words)
        self.holder = 0  # the thread that made it busy, where Python code did
        self.home = home
        self.there: Any = None if home is None else array
        self.there_owned = owned
        self.there_spare: Any = None
        self.same: Any = None if home is None else self.cell[0]
        GATE.watch(self)

    @property
    def array(self) -> np.ndarray:
        """The current array; a copy of it where it is on a device."""
        array = self.cell[0]
        return array if array.dtype.kind != "V" else snapshot([self])[0]

    @property
    def spare(self) -> np.ndarray | None:
        """The host's array for the next new value."""
        return self.cell[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the current array."""
        while True:
            array = self.cell[0]
            if array.dtype.kind != "V":
                return array.shape
            there = self.there
            if there is not None:  # else it has come back in between
                return there.shape

    def __getstate__(self) -> np.ndarray:
        return self.array

    def __setstate__(self, array: np.ndarray) -> None:
        self.__init__(array, True)  # type: ignore[misc]

    # --- all below needs the gate closed

    def device(self) -> Home | None:
        """The device on which the value lies, be it on the host too or not."""
        if self.same is self.cell[0]:
            return self.home
        if self.there is not None:
            self._leave()
        return None

    def _leave(self) -> None:
        self.home = self.there = self.there_spare = self.same = None

    def at(self, home: Home | None) -> Any:
        """The current array at ``home``, None if it is not there."""
        if home is None:
            array = self.cell[0]
            return array if array.dtype.kind != "V" else None
        return self.there if self.device() is home else None

    def spare_at(self, home: Home | None) -> Any:
        """The spare at ``home``, or None."""
        if home is None:
            return self.cell[1]
        return self.there_spare if self.device() is home else None

    def anywhere(self) -> tuple[Home | None, Any]:
        """A place where the value is, and the array there."""
        array = self.cell[0]
        return (None, array) if array.dtype.kind != "V" else (self.home, self.there)

    def lend(self) -> tuple[Home | None, Any]:
        """The place where the value is from now on, and the array, for somebody outside."""
        home = self.device()
        if home is None:
            self.words[self.OWNED] = False
            return None, self.cell[0]
        self.there_owned = False
        self._only_there()
        return home, self.there

    def _only_there(self) -> None:
        self.same = _absent(self.there.ndim)
        self.cell[:] = self.same, None
        self.words[self.OWNED] = False

    def copied(self, origin: Home | None, source: Any, home: Home | None, array: Any) -> None:
        """``array`` at ``home`` is a copy of ``source`` at ``origin``: let it have the value too,
        if ``source`` still is what is current."""
        if self.at(origin) is not source or self.at(home) is not None:
            return
        if home is None:
            if self.there_owned:
                self.same = array
            else:
                self._leave()
            self.words[self.OWNED] = self.same is None  # the spare of none, while it is on both
            self.cell[:] = array, None
            return
        lent = origin is None and not self.words[self.OWNED]
        self.home, self.there, self.there_spare, self.there_owned = home, array, None, True
        if lent:
            self._only_there()
        elif origin is None:
            self.words[self.OWNED], self.same = False, source
            self.cell[1] = None

    def store(self, array: Any, owned: bool, alone: bool, home: Home | None = None) -> None:
        """Make ``array``, at ``home``, the current one.  ``owned``: nobody else has it.
        ``alone``: no other call can be reading the old one, which then becomes the spare."""
        if home is None:
            old = self.cell[0]
            again = alone and self.words[self.OWNED] and old.shape == array.shape
            self.cell[:] = array, old if again else None
            self.words[self.OWNED] = owned
            if self.there is not None:
                self._leave()
            return
        old = self.at(home)
        again = alone and old is not None and self.there_owned and old.shape == array.shape
        self.home, self.there, self.there_owned = home, array, owned
        self.there_spare = old if again else None
        self._only_there()


class Turn:
    """What one call has of the shared variables, between ``begin`` and ``end``.

    home     where the call works; None: on the host
    on_host  the numbers of those in ``read`` that it wants on the host in any case
    ``end`` must be called whatever happens in between.
    """

    def __init__(self, read: Sequence[Storage], written: Sequence[Storage],
                 home: Home | None = None, on_host: Collection[int] = ()) -> None:
        self.read, self.written = read, written
        self.home, self.on_host = home, on_host
        self.counted = self.marked = False

    def begin(self) -> tuple[list[Any], list[Any]]:
        """The arrays to read, all of one moment, and the spares to write."""
        if self.home is None:
            return self._on_host()
        homes = [None if k in self.on_host else self.home for k in range(len(self.read))]
        with GATE.closed():
            self._enter()
            arrays = [s.at(home) for s, home in zip(self.read, homes, strict=True)]
            spares = [s.spare_at(self.home) for s in self.written]
            missing = [(k, *self.read[k].anywhere()) for k, a in enumerate(arrays) if a is None]
        if missing:
            self._bring(arrays, homes, missing)
        return arrays, spares

    def _on_host(self) -> tuple[list[Any], list[Any]]:
        with GATE.closed():
            self._enter()
            arrays = [s.cell[0] for s in self.read]
            spares = [s.cell[1] for s in self.written]
            missing = [(k, s.home, s.there) for k, s in enumerate(self.read)
                       if s.same is arrays[k] and s.at(None) is None]
        if missing:
            self._bring(arrays, [None] * len(arrays), missing)
        return arrays, spares

    def _bring(self, arrays: list[Any], homes: Sequence[Home | None],
               missing: Sequence[tuple[int, Home | None, Any]]) -> None:
        """Copy what is elsewhere.  Nothing that is current now is written to before ``end``, as
        this call is counted."""
        for k, origin, source in missing:
            array = source if origin is None else origin.get(source)
            home = homes[k]
            arrays[k] = array if home is None else home.put(array)
        with GATE.closed():
            for k, origin, source in missing:
                self.read[k].copied(origin, source, homes[k], arrays[k])

    def _enter(self) -> None:
        gate = GATE
        gate.wait(self.written)
        # An interrupt between two lines may leave a call too many counted, never one too few.
        gate.words[gate.RUNNING] += 1
        self.counted = self.marked = True
        for s in self.written:
            s.words[s.BUSY], s.holder = 1, threading.get_ident()

    def look(self) -> list[tuple[Home | None, Any]]:
        """In the place of ``begin``: the values where they lie, all of one moment."""
        with GATE.closed():
            self._enter()
            return [s.anywhere() for s in self.read]

    def end(self, new: Sequence[Any]) -> None:
        """Store the new values: all of them, or none if there are none after a failure."""
        gate = GATE
        with gate.closed():
            if self.counted:
                gate.words[gate.RUNNING] -= 1
            if self.marked:
                for s in self.written:
                    s.words[s.BUSY] = s.holder = 0
                gate.freed.notify_all()
            alone = gate.words[gate.RUNNING] == 0
            for s, array in zip(self.written, new, strict=False):
                s.store(array, True, alone, self.home)


def snapshot(storages: Sequence[Storage]) -> list[np.ndarray]:
    """Copies of the values on the host, all of one moment; they stay where they are."""
    turn = Turn(storages, [])
    try:
        return [array.copy() if home is None else home.get(array) for home, array in turn.look()]
    finally:
        turn.end([])
