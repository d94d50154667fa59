"""Element types and the one promotion table."""

from __future__ import annotations

import numpy as np


class DType(str):
    """An element type: its name, which knows more.

    ``kind`` is 'f' (float), 'i' (signed), 'u' (unsigned) or 'b' (bool).  There is one object per
    type, so that ``is`` compares them.
    """

    __slots__ = ("bits", "kind")
    kind: str
    bits: int

    def __new__(cls, name: str, kind: str, bits: int) -> DType:
        self = super().__new__(cls, name)
        self.kind, self.bits = kind, bits
        return self

    @property
    def name(self) -> str:
        """The name as a plain text."""
        return str.__str__(self)

    @property
    def np(self) -> np.dtype:
        """The NumPy dtype of native byte order."""
        return np.dtype(self.name)

    @property
    def itemsize(self) -> int:
        """Bytes per element in memory (a bool takes one byte)."""
        return max(1, self.bits // 8)

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_int(self) -> bool:
        return self.kind in "iu"

    def __reduce__(self) -> tuple[object, ...]:
        return dtype, (self.name,)  # one object per type, also after a copy

    def __repr__(self) -> str:
        return self.name


bool_ = DType("bool", "b", 1)
int8 = DType("int8", "i", 8)
int16 = DType("int16", "i", 16)
int32 = DType("int32", "i", 32)
int64 = DType("int64", "i", 64)
uint8 = DType("uint8", "u", 8)
float32 = DType("float32", "f", 32)
float64 = DType("float64", "f", 64)

ALL = (bool_, uint8, int8, int16, int32, int64, float32, float64)
_BY_NAME = {d.name: d for d in ALL}


def dtype(spec: object) -> DType:
    """The DType that ``spec`` names: a DType, a name, a NumPy dtype or a Python type.

    Raises TypeError for a type that tinygraph does not have (complex, strings, float16...).
    """
    if isinstance(spec, DType):
        return spec
    try:
        name = np.dtype(spec).name  # type: ignore[call-overload]
    except TypeError:
        name = str(spec)
    if name not in _BY_NAME:
        known = ", ".join(d.name for d in ALL)
        raise TypeError(f"dtype {name!r} is not supported; tinygraph has {known}")
    return _BY_NAME[name]


def promote(*dtypes: DType, float_x: str = "float32") -> DType:
    """The dtype of an arithmetic result: NumPy's table, except that under
    ``float_x='float32'`` an integer of any width with float32 stays float32."""
    result = dtypes[0]
    for other in dtypes[1:]:
        result = _promote_pair(result, other, float_x)
    return result


def _promote_pair(a: DType, b: DType, float_x: str) -> DType:
    if a is b:
        return a
    if a.is_float != b.is_float and float_x == "float32":
        return a if a.is_float else b
    return dtype(np.promote_types(a.np, b.np))
