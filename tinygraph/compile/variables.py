"""Shared variables: state that outlives a call.

A ``SharedVariable`` is a leaf of graphs with a ``Storage`` behind it.  A compiled function reads
the arrays of the storages it uses, computes every update from those old values, and stores all
new ones together after the call has succeeded.

Threads.  A call that updates storages holds their ``writing`` locks from its start to its end,
taken in order of creation, so that two such calls happen one after the other.  A call that only
reads takes no such lock: under the one short ``GATE`` lock it sees all storages of one moment.
An array that another call may still be reading is never written: it becomes the spare, into
which the next update goes, only if no other call was running when it was replaced.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygraph.compile.convert import Converter, as_layout
from tinygraph.config import config
from tinygraph.dims import Dim, Sym, dim
from tinygraph.dtypes import dtype
from tinygraph.graph import Type, Value, describe, user_source
from tinygraph.tensor.variable import Tensor

_serial = itertools.count()  # gives storages a stable order of locking; nobody reads it otherwise


class Gate:
    """How many calls are running, and the lock for the moments of reading and storing."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = 0


GATE = Gate()


class Storage:
    """The current array of a shared variable, and a spare of the same shape and dtype.

    ``owned`` says that nobody outside holds the current array, so that it may become the spare.
    ``writing`` is held by whoever stores; ``array``, ``shape`` and ``spare`` change under the gate.
    """

    def __init__(self, array: np.ndarray, owned: bool) -> None:
        self.array, self.shape, self.owned = array, array.shape, owned
        self.spare: np.ndarray | None = None
        self._prepare()

    def _prepare(self) -> None:
        self.serial = next(_serial)
        self.writing = threading.RLock()

    def __getstate__(self) -> np.ndarray:
        return self.array

    def __setstate__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.owned, self.spare = array, array.shape, True, None
        self._prepare()

    def store(self, array: np.ndarray, alone: bool) -> None:
        """Make ``array`` (the caller's own) the current one.  ``alone``: no other call can be
        reading the old one, which then becomes the spare.  Needs the gate's lock."""
        same = array.shape == self.shape
        self.spare = self.array if same and alone and self.owned else None
        if not same:
            self.shape = array.shape
        self.array, self.owned = array, True


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
            with GATE.lock:
                storage.owned = False
                return storage.array
        with GATE.lock:
            GATE.running += 1
            array = storage.array
        try:
            return array.copy()
        finally:
            with GATE.lock:
                GATE.running -= 1

    def set_value(self, new_value: Any, borrow: bool = False) -> None:
        """Hold ``new_value`` from now on: a copy, or with ``borrow=True`` the array itself where
        its layout allows.  The shape may be new.

        Raises TypeError for another number of axes, or a dtype that would lose precision.
        """
        convert = Converter(self, self.type, self.strict, self.allow_downcast, setter=True)
        array, owned = _held(convert(new_value), new_value, self.type.dtype.np, borrow)
        with self.storage.writing, GATE.lock:
            self.storage.store(array, alone=False)
            self.storage.owned = owned

    def zero(self, borrow: bool = False) -> None:
        """Fill with zeros."""
        self.set_value(np.zeros_like(self.get_value(borrow=True)), borrow=True)

    def clone(self, name: str | None = None) -> SharedVariable:
        """Another variable on the same storage, without default update: an update through one
        is seen by both."""
        return SharedVariable(self.storage, self.type, name or self.name, self.source,
                              self.strict, self.allow_downcast)

    def __reduce__(self) -> Any:
        axes = tuple(1 if d == 1 else next(iter(d.syms())) for d in self.type.dims)
        state = {k: v for k, v in self.__dict__.items() if k != "type"}
        return _revive, (type(self), self.type.dtype.name, axes), state


def _revive(cls: type[SharedVariable], kind: str, axes: Sequence[Sym | int]) -> SharedVariable:
    variable = cls.__new__(cls)
    variable.type = Type(dtype(kind), tuple(dim(a) for a in axes))
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
