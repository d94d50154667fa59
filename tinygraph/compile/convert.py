"""From what a caller passes to what compiled code reads: C-contiguous, aligned, native byte
order, the exact dtype.  An array that is all this already is passed on without a copy.

Arrays of other libraries come by DLPack.  Those of a device stay there for a function that works
on it; for any other they are refused."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from tinygraph.backends.homes import ON_HOST, Home, place_of
from tinygraph.graph import Type, Value, describe

_NUMBERS = "biuf"


def as_layout(array: np.ndarray, kind: np.dtype) -> np.ndarray:
    """``array`` C-contiguous, aligned and of dtype ``kind``: itself if it is, else a copy."""
    flags = array.flags
    if array.dtype == kind and flags.c_contiguous and flags.aligned:
        return array
    return np.array(array, kind, order="C", copy=True)


def from_cpu(value: Any) -> np.ndarray | None:
    """The array of another library on the CPU as NumPy's, by DLPack without a copy where that can
    be; None for what is none."""
    place = place_of(value)
    if place is None or place[0] not in ON_HOST:
        return None
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError):  # of a dtype, say, that only the other way knows
        return np.asarray(value)


class Converter:
    """Turns one argument into an array of ``type_``; raises TypeError in the user's words.

    variable        whose argument it is, for messages
    strict          take an ndarray of the very dtype only
    allow_downcast  True: cast anything; False: lose nothing; None: like False, but a Python
                    float may be rounded into a scalar of dtype ``float_x``
    setter          the argument is of ``set_value``, not of a function
    home            the device whose arrays are taken as they are; None: there is none
    """

    def __init__(self, variable: Value, type_: Type, strict: bool = False,
                 allow_downcast: bool | None = None, float_x: str = "",
                 setter: bool = False, home: Home | None = None) -> None:
        self.variable, self.type = variable, type_
        self.strict, self.allow_downcast = strict, allow_downcast
        self.kind = type_.dtype.np
        self.weak = allow_downcast is None and type_.ndim == 0 and self.kind.name == float_x
        self.setter, self.home = setter, home
        self.fixed = tuple((k, d.const) for k, d in enumerate(type_.dims) if d.const is not None)

    def __call__(self, x: Any) -> Any:
        """The array for ``x``: NumPy's, or one of ``home``."""
        if isinstance(x, Value):
            self._refuse(f"a symbolic variable, {describe(x)}", "pass its value: an array")
        if isinstance(x, np.ndarray):
            array = self._from_array(x)
        elif (place := place_of(x)) is not None:
            return self._from_elsewhere(x, place)
        elif self.strict:
            self._refuse(f"{_what(x)}, but it is strict",
                         f"pass a numpy.ndarray of dtype {self.kind.name}")
        else:
            array = self._from_object(x)
        self._check_axes(array, x)
        return as_layout(array, self.kind)

    def _check_axes(self, array: Any, x: Any) -> None:
        if array.ndim != self.type.ndim:
            self._refuse(f"{_what(x)} with {array.ndim} axes",
                         f"pass an array with {self.type.ndim}")
        for axis, size in self.fixed:
            if array.shape[axis] != size:
                self._refuse(f"an array of shape {array.shape}, whose axis {axis} must have size "
                             f"{size}", "declare the variable without that fixed size")

    def _from_elsewhere(self, x: Any, place: tuple[int, int]) -> Any:
        """The array of another library, or of a device."""
        there = None if self.home is None else self.home.take(x)
        if self.home is None or there is None:
            array = from_cpu(x)
            if array is not None:
                return self(array)
            self._refuse_place(x)
        if there.dtype == self.kind:
            self._check_axes(there, there)
            return self.home.plain(there)
        return self(self.home.get(there))

    def _refuse_place(self, x: Any) -> NoReturn:
        word = self.variable.name or "x"
        copy = next((f"{word}.{name}()" for name in ("get", "cpu") if hasattr(x, name)),
                    f"np.asarray({word})")
        kind = f"a {type(x).__module__.partition('.')[0]}.{type(x).__name__} of a device"
        if self.setter:
            self._refuse(kind + " that tinygraph does not know", f"pass {copy}")
        where = "on the CPU" if self.home is None else f"on {self.home.name}"
        self._refuse(f"{kind}, but the function works {where}",
                     f"pass {copy}, or compile the function for that device")

    def _from_array(self, x: np.ndarray) -> np.ndarray:
        if type(x) is not np.ndarray:
            if isinstance(x, np.ma.MaskedArray):
                self._refuse("a masked array", "pass its .filled(...)")
            x = np.asarray(x)
        if x.dtype == self.kind:
            return x
        if self.strict:
            self._refuse(f"{_what(x)}, but it is strict", f"pass dtype {self.kind.name}")
        if x.dtype.kind not in _NUMBERS:
            self._refuse(_what(x), "pass an array of numbers")
        if self.allow_downcast or np.can_cast(x.dtype, self.kind, "safe"):
            return self._cast(x)
        if x.ndim == 0 and x.dtype.kind != "f":
            return self._exact(x, x)
        self._too_wide(x)

    def _from_object(self, x: Any) -> np.ndarray:
        try:
            array = np.asarray(x)
        except ValueError:
            self._refuse("rows of different lengths", "pad them to one length")
        if array.dtype.kind not in _NUMBERS:
            self._refuse(_what(x), "pass numbers")
        if self.allow_downcast or (self.weak and type(x) is float):
            return self._cast(array)
        return self._exact(array, x)

    def _cast(self, array: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return array.astype(self.kind)

    def _exact(self, array: np.ndarray, x: Any) -> np.ndarray:
        """``array`` cast, if every value stays what it is."""
        if array.dtype.kind == "f" and self.kind.kind != "f":
            if array.size:
                self._too_wide(x)
            return array.astype(self.kind)
        cast = self._cast(array)
        same = (cast == array) & ((cast < 0) == (array < 0)) | (cast != cast) & (array != array)
        if self.kind.kind in "iu" and array.dtype.kind in "iu":
            bounds = np.iinfo(self.kind)
            same &= (array >= bounds.min) & (array <= bounds.max)
        if not np.all(same):
            self._too_wide(x)
        return cast

    def _too_wide(self, x: Any) -> NoReturn:
        name = self.kind.name
        downcast = ("make it with shared(..., allow_downcast=True)" if self.setter
                    else "allow_input_downcast=True")
        word = self.variable.name or "x"
        self._refuse(f"{_what(x)}, which {name} cannot hold without loss",
                     f"pass np.asarray({word}, '{name}') or {downcast}")

    def _refuse(self, got: str, advice: str) -> NoReturn:
        call = "set_value got" if self.setter else "got"
        raise TypeError(f"{describe(self.variable)} {call} {got}; {advice}")


def _what(x: Any) -> str:
    """An argument in a message."""
    if isinstance(x, np.ndarray) or place_of(x) is not None:
        return f"a {x.dtype} array of shape {x.shape}" if x.ndim else f"a {x.dtype} scalar array"
    if isinstance(x, np.generic):
        return f"the {x.dtype} number {x!r}"
    if isinstance(x, (list, tuple)):
        return f"a {type(x).__name__} of {len(x)}"
    text = repr(x)
    return f"the {type(x).__name__} {text if len(text) < 40 else text[:37] + '...'}"
