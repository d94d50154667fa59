"""Pickle graphs.  Symbols get fresh places in the order of this process, dtypes stay the one
object that each is."""

from __future__ import annotations

import io
import pickle
from typing import Any

from tinygraph.compile.signature import REQUIRED
from tinygraph.dims import Sym
from tinygraph.dtypes import DType, dtype


class _Pickler(pickle.Pickler):
    def reducer_override(self, x: Any) -> Any:
        if type(x) is DType:
            return dtype, (x.name,)
        if type(x) is Sym:
            return Sym, (x.name, x.origin), (None, {"value": x.value})
        if x is REQUIRED:
            return _required, ()
        return NotImplemented


def _required() -> Any:
    return REQUIRED


def dumps(x: Any) -> bytes:
    """``x``, graphs included, as bytes."""
    file = io.BytesIO()
    _Pickler(file, protocol=4).dump(x)
    return file.getvalue()


def loads(data: bytes) -> Any:
    """What ``dumps`` wrote."""
    return pickle.loads(data)
