"""Shared variables: state that outlives a call.

A ``SharedVariable`` is a leaf of graphs with a ``Storage`` behind it.  A compiled function reads
the arrays of the storages it uses, computes every update from those old values, and stores all
new ones together after the call has succeeded.

Threads.  Every reading of several storages, and every storing, is one moment: Python code does it
with the ``GATE`` closed, and the native entrance of a function under the GIL, if the gate is open.
A call that updates storages marks them as busy from its start to its end, so that two such calls
happen one after the other; who finds one busy waits.  A call that only reads waits for nobody.
An array that another call may still be reading is never written: it becomes the spare, into
which the next update goes, only if no other call was running when it was replaced.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinygraph.compile.convert import Converter, as_layout
from tinygraph.config import config
from tinygraph.dims import Dim, Sym, dim
from tinygraph.dtypes import dtype
from tinygraph.graph import Type, Value, describe, user_source
from tinygraph.tensor.variable import Tensor, VariableType


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


class Storage:
    """The current array of a shared variable, and a spare of the same shape and dtype or None.

    ``cell`` holds the two; ``words`` tell whether a call is going to store here, and whether
    nobody outside holds the current array, so that it may become the spare.  Both change while
    the gate is closed; native code works with both.
    """

    BUSY, OWNED = range(2)

    def __init__(self, array: np.ndarray, owned: bool) -> None:
        self.cell: list[Any] = [array, None]
        self.words = (ctypes.c_int64 * 2)(0, owned)
        self.address = ctypes.addressof(self.words)
        self.holder = 0  # the thread that made it busy, where Python code did
        GATE.watch(self)

    @property
    def array(self) -> np.ndarray:
        """The current array."""
        return self.cell[0]

    @property
    def spare(self) -> np.ndarray | None:
        """The array for the next new value."""
        return self.cell[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the current array."""
        return self.cell[0].shape

    def __getstate__(self) -> np.ndarray:
        return self.array

    def __setstate__(self, array: np.ndarray) -> None:
        self.__init__(array, True)  # type: ignore[misc]

    def store(self, array: np.ndarray, owned: bool, alone: bool) -> None:
        """Make ``array`` the current one.  ``owned``: nobody else has it.  ``alone``: no other
        call can be reading the old one, which then becomes the spare.  Needs the gate closed."""
        old = self.cell[0]
        again = alone and self.words[self.OWNED] and old.shape == array.shape
        self.cell[:] = array, old if again else None
        self.words[self.OWNED] = owned


class Turn:
    """What one call has of the shared variables, between ``begin`` and ``end``.

    ``end`` must be called whatever happens in between.
    """

    def __init__(self, read: Sequence[Storage], written: Sequence[Storage]) -> None:
        self.read, self.written = read, written
        self.counted = self.marked = False

    def begin(self) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        """The arrays to read, all of one moment, and the spares to write."""
        gate = GATE
        with gate.closed():
            gate.wait(self.written)
            # An interrupt between two lines may leave a call too many counted, never one too few.
            gate.words[gate.RUNNING] += 1
            self.counted = self.marked = True
            for s in self.written:
                s.words[s.BUSY], s.holder = 1, threading.get_ident()
            return [s.cell[0] for s in self.read], [s.cell[1] for s in self.written]

    def end(self, new: Sequence[np.ndarray]) -> None:
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
                s.store(array, True, alone)


class SharedSym(Sym):
    """The size of an axis of a shared variable."""

    __slots__ = ("variable",)

    def __init__(self, name: str, origin: str = "", variable: Value | None = None) -> None:
        super().__init__(name, origin)
        self.variable = variable

    def __reduce__(self) -> Any:
        return SharedSym, (self.name, self.origin), (None, {"variable": self.variable})


class SharedVariable(Tensor):
    """A variable that holds an array between calls.  Make one with ``shared``.

    ``default_update``: an expression that every function using this variable stores into it,
    unless the function's own updates name the variable.
    """

    def __init__(self, storage: Storage, type_: Type, name: str | None = None, source: str = "",
                 strict: bool = False, allow_downcast: bool | None = None) -> None:
        super().__init__(type_, name=name, source=source)
        self.storage = storage
        self.strict, self.allow_downcast = strict, allow_downcast
        self.default_update: Value | None = None

    @classmethod
    def result_class(cls) -> type[Value]:
        return Tensor

    def get_value(self, borrow: bool = False, return_internal_type: bool = False) -> np.ndarray:
        """The current array: a copy, or with ``borrow=True`` the array itself (which is never
        written again by a call; writing into it changes this variable)."""
        storage = self.storage
        if borrow:
            with GATE.closed():
                storage.words[storage.OWNED] = False
                return storage.array
        turn = Turn([storage], [])
        try:
            (array,), _ = turn.begin()
            return array.copy()
        finally:
            turn.end([])

    def set_value(self, new_value: Any, borrow: bool = False) -> None:
        """Hold ``new_value`` from now on: a copy, or with ``borrow=True`` the array itself where
        its layout allows.  The shape may be new.

        Raises TypeError for another number of axes, or a dtype that would lose precision.
        """
        convert = Converter(self, self.type, self.strict, self.allow_downcast, setter=True)
        array, owned = _held(convert(new_value), new_value, self.type.dtype.np, borrow)
        with GATE.closed():
            GATE.wait([self.storage])
            self.storage.store(array, owned, alone=False)

    def zero(self, borrow: bool = False) -> None:
        """Fill with zeros."""
        self.set_value(np.zeros_like(self.get_value(borrow=True)), borrow=True)

    def clone(self, name: str | None = None) -> SharedVariable:
        """Another variable on the same storage, without default update: an update through one
        is seen by both."""
        return SharedVariable(self.storage, self.type, name or self.name, self.source,
                              self.strict, self.allow_downcast)

    def __reduce__(self) -> Any:
        axes = tuple(next(iter(d.syms()), d.const) for d in self.type.dims)
        state = {k: v for k, v in self.__dict__.items() if k != "type"}
        return _revive, (type(self), self.type.dtype.name, axes), state


def _revive(cls: type[SharedVariable], kind: str, axes: Sequence[Sym | int]) -> SharedVariable:
    variable = cls.__new__(cls)
    variable.type = VariableType(dtype(kind), tuple(dim(a) for a in axes))
    return variable


def shared(value: Any, name: str | None = None, borrow: bool = False, strict: bool = False,
           allow_downcast: bool | None = None, broadcastable: Sequence[bool] | None = None
           ) -> SharedVariable:
    """A shared variable that starts as ``value``: an array, a number or a list of numbers.

    A NumPy array or number keeps its dtype; Python floats become floatX, Python integers int64.
    ``borrow=True`` keeps the array itself instead of a copy.  An axis of size 1 broadcasts only
    where ``broadcastable`` says True.  strict: ``set_value`` takes this dtype only;
    allow_downcast: it takes any.

    Raises TypeError for a symbolic variable or a dtype that tinygraph does not have.
    """
    array = _initial_array(value)
    kind = dtype(array.dtype)
    flags = tuple(broadcastable) if broadcastable is not None else (False,) * array.ndim
    if len(flags) != array.ndim:
        raise TypeError(f"broadcastable has {len(flags)} entries, but the value has "
                        f"{array.ndim} axes")
    for axis, flag in enumerate(flags):
        if flag and array.shape[axis] != 1:
            raise TypeError(f"broadcastable[{axis}] is True, but axis {axis} of the value has "
                            f"size {array.shape[axis]}; only a size of 1 broadcasts")
    kept, owned = _held(array, value, kind.np, borrow)
    source = user_source()
    what = name or f"shared variable ({source})"
    syms = [None if flag else SharedSym(f"{name or 'shared'}.{k}", f"axis {k} of {what}")
            for k, flag in enumerate(flags)]
    dims: tuple[Dim, ...] = tuple(dim(1) if s is None else dim(s) for s in syms)
    variable = SharedVariable(Storage(kept, owned), Type(kind, dims), name, source,
                              strict, allow_downcast)
    for s in syms:
        if s is not None:
            s.variable = variable
    return variable


def _held(array: np.ndarray, given: Any, kind: np.dtype, borrow: bool) -> tuple[np.ndarray, bool]:
    """The array to hold for ``array``, which was made of ``given``; and is it ours alone?"""
    held = as_layout(array, kind)
    aliases = (not isinstance(given, (int, float, list, tuple, np.generic))
               and np.may_share_memory(held, np.asarray(given)))
    if aliases and not borrow:
        return held.copy(), True
    return held, not aliases


def _initial_array(value: Any) -> np.ndarray:
    if isinstance(value, Value):
        raise TypeError(f"shared() takes a number or an array, not the symbolic variable "
                        f"{describe(value)}")
    array = np.asarray(value)
    if not isinstance(value, (np.ndarray, np.generic)) and array.dtype == np.float64:
        return array.astype(config.floatX)
    return array
