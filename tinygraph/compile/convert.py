"""From what a caller passes to what compiled code reads: C-contiguous, aligned, native byte
order, the exact dtype.  An array that is all this already is passed on without a copy."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from tinygraph.graph import Type, Value, describe

_NUMBERS = "biuf"


def as_layout(array: np.ndarray, kind: np.dtype) -> np.ndarray:
    """``array`` C-contiguous, aligned and of dtype ``kind``: itself if it is, else a copy."""
    flags = array.flags
    if array.dtype == kind and flags.c_contiguous and flags.aligned:
        return array
    return np.array(array, kind, order="C", copy=True)


class Converter:
    """Turns one argument into an array of ``type_``; raises TypeError in the user's words.

    variable        whose argument it is, for messages
    strict          take an ndarray of the very dtype only
    allow_downcast  True: cast anything; False: lose nothing; None: like False, but a Python
                    float may be rounded into a scalar of dtype ``float_x``
    setter          the argument is of ``set_value``, not of a function
    """

    def __init__(self, variable: Value, type_: Type, strict: bool = False,
                 allow_downcast: bool | None = None, float_x: str = "",
                 setter: bool = False) -> None:
        self.variable, self.type = variable, type_
        self.strict, self.allow_downcast = strict, allow_downcast
        self.kind = type_.dtype.np
        self.weak = allow_downcast is None and type_.ndim == 0 and self.kind.name == float_x
        self.setter = setter
        self.fixed = tuple((k, d.const) for k, d in enumerate(type_.dims) if d.const is not None)

    def __call__(self, x: Any) -> np.ndarray:
        """The array for ``x``."""
        if isinstance(x, Value):
            self._refuse(f"a symbolic variable, {describe(x)}", "pass its value: an array")
        if isinstance(x, np.ndarray):
            array = self._from_array(x)
        elif self.strict:
            self._refuse(f"{_what(x)}, but it is strict",
                         f"pass a numpy.ndarray of dtype {self.kind.name}")
        else:
            array = self._from_object(x)
        if array.ndim != self.type.ndim:
            self._refuse(f"{_what(x)} with {array.ndim} axes",
                         f"pass an array with {self.type.ndim}")
        for axis, size in self.fixed:
            if array.shape[axis] != size:
                self._refuse(f"an array of shape {array.shape}, whose axis {axis} must have size "
                             f"{size}", "declare the variable without that fixed size")
        return as_layout(array, self.kind)

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
    if isinstance(x, np.ndarray):
        return f"a {x.dtype} array of shape {x.shape}" if x.ndim else f"a {x.dtype} scalar array"
    if isinstance(x, np.generic):
        return f"the {x.dtype} number {x!r}"
    if isinstance(x, (list, tuple)):
        return f"a {type(x).__name__} of {len(x)}"
    text = repr(x)
    return f"the {type(x).__name__} {text if len(text) < 40 else text[:37] + '...'}"
