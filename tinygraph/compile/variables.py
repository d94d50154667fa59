"""Shared variables: state that outlives a call.

A ``SharedVariable`` is a leaf of graphs with a ``Storage`` behind it (``storage.py``).  A compiled
function reads the arrays of the storages it uses, computes every update from those old values, and
stores all new ones together after the call has succeeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygraph.backends.homes import Home, home_of
from tinygraph.compile.convert import Converter, as_layout, from_cpu
from tinygraph.compile.storage import GATE, Storage, Turn, snapshot
from tinygraph.config import config
from tinygraph.dims import Dim, Sym, dim
from tinygraph.dtypes import dtype
from tinygraph.graph import Type, Value, describe, user_source
from tinygraph.tensor.variable import Tensor, VariableType

__all__ = ["GATE", "SharedSym", "SharedVariable", "Storage", "Turn", "shared", "snapshot"]


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

    def get_value(self, borrow: bool = False, return_internal_type: bool = False) -> Any:
        """The current array: a NumPy array that is a copy.

        With ``borrow=True`` the array itself: NumPy's, or the device's where the value lies on
        one.  It is never written again by a call, and writing into it changes this variable
        until a function of another device has read it.  ``return_internal_type=True``: a copy
        that stays on the device.
        """
        if borrow:
            with GATE.closed():
                return self.storage.lend()[1]
        if not return_internal_type:
            return snapshot([self.storage])[0]
        turn = Turn([self.storage], [])
        try:
            (home, array), = turn.look()
            return array.copy() if home is None else home.copy(array)
        finally:
            turn.end([])

    def set_value(self, new_value: Any, borrow: bool = False) -> None:
        """Hold ``new_value``, an array of any kind or a number, from now on: a copy, or with
        ``borrow=True`` the array itself where its layout allows.  The shape may be new.

        Raises TypeError for another number of axes, or a dtype that would lose precision.
        """
        home = home_of(new_value)
        convert = Converter(self, self.type, self.strict, self.allow_downcast, setter=True,
                            home=home)
        array = convert(new_value)
        home = None if isinstance(array, np.ndarray) else home
        array, owned = _held(array, new_value, self.type.dtype.np, borrow, home)
        with GATE.closed():
            GATE.wait([self.storage])
            self.storage.store(array, owned, alone=False, home=home)

    def zero(self, borrow: bool = False) -> None:
        """Fill with zeros."""
        self.set_value(np.zeros(self.storage.shape, self.type.dtype.np), borrow=True)

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

    An array, of NumPy or of a library that speaks DLPack, keeps its dtype, and stays on its
    device; Python floats become floatX, Python integers int64.
    ``borrow=True`` keeps the array itself instead of a copy.  An axis of size 1 broadcasts only
    where ``broadcastable`` says True.  strict: ``set_value`` takes this dtype only;
    allow_downcast: it takes any.

    Raises TypeError for a symbolic variable or a dtype that tinygraph does not have.
    """
    home = home_of(value)
    array = _initial_array(value) if home is None else home.plain(home.take(value))
    kind = dtype(array.dtype)
    flags = tuple(broadcastable) if broadcastable is not None else (False,) * array.ndim
    if len(flags) != array.ndim:
        raise TypeError(f"broadcastable has {len(flags)} entries, but the value has "
                        f"{array.ndim} axes")
    for axis, flag in enumerate(flags):
        if flag and array.shape[axis] != 1:
            raise TypeError(f"broadcastable[{axis}] is True, but axis {axis} of the value has "
                            f"size {array.shape[axis]}; only a size of 1 broadcasts")
    kept, owned = _held(array, value, kind.np, borrow, home)
    source = user_source()
    what = name or f"shared variable ({source})"
    syms = [None if flag else SharedSym(f"{name or 'shared'}.{k}", f"axis {k} of {what}")
            for k, flag in enumerate(flags)]
    dims: tuple[Dim, ...] = tuple(dim(1) if s is None else dim(s) for s in syms)
    variable = SharedVariable(Storage(kept, owned, home), Type(kind, dims), name, source,
                              strict, allow_downcast)
    for s in syms:
        if s is not None:
            s.variable = variable
    return variable


def _held(array: Any, given: Any, kind: np.dtype, borrow: bool, home: Home | None
          ) -> tuple[Any, bool]:
    """The array to hold for ``array``, which was made of ``given``; and is it ours alone?"""
    if home is not None:
        return (array, False) if borrow else (home.copy(array), True)
    held = as_layout(array, kind)
    plain = isinstance(given, (int, float, list, tuple, np.generic))
    aliases = not plain and (not isinstance(given, np.ndarray)
                             or np.may_share_memory(held, np.asarray(given)))
    if aliases and not borrow:
        return held.copy(), True
    return held, not aliases


def _initial_array(value: Any) -> np.ndarray:
    if isinstance(value, Value):
        raise TypeError(f"shared() takes a number or an array, not the symbolic variable "
                        f"{describe(value)}")
    found = from_cpu(value)
    if found is not None:
        return found
    array = np.asarray(value)
    if not isinstance(value, (np.ndarray, np.generic)) and array.dtype == np.float64:
        return array.astype(config.floatX)
    return array
