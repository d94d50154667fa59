"""Leaves by name: ``matrix``, ``fmatrix``, ``imatrices``, ... for every rank and dtype.

A name without a prefix makes variables of floatX, as it is at the call.  The prefixes b, w, i, l
stand for int8 to int64, f and d for float32 and float64, u for uint8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinygraph.dtypes import DType
from tinygraph.dtypes import dtype as dtype_of
from tinygraph.tensor.constructors import variable
from tinygraph.tensor.variable import Tensor, as_dtype


@dataclass(frozen=True)
class Constructor:
    """Makes leaves of one rank: ``matrix('x')``.  A dtype of None is floatX at the call."""

    what: str
    sizes: tuple[int | None, ...]
    kind: DType | None = None

    @property
    def dtype(self) -> str:
        """The dtype of what it makes."""
        return (self.kind or as_dtype("floatX")).name

    @property
    def broadcastable(self) -> tuple[bool, ...]:
        """Per axis of what it makes: is its size 1?"""
        return tuple(n == 1 for n in self.sizes)

    @property
    def ndim(self) -> int:
        """The number of axes of what it makes."""
        return len(self.sizes)

    def __call__(self, name: str | None = None, dtype: Any = None) -> Tensor:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"T.{self.what}: the name must be a string, not {name!r}")
        if self.kind is not None and dtype is not None:
            raise TypeError(f"T.{self.what} has the dtype {self.kind}; it takes no other")
        return variable(self.kind or as_dtype(dtype or "floatX"), self.sizes, name, self.what)


@dataclass(frozen=True)
class Several:
    """Makes several leaves: ``matrices('x', 'y')`` or ``matrices(2)``."""

    one: Constructor

    def __call__(self, *names: Any, dtype: Any = None) -> list[Tensor]:
        if len(names) == 1 and isinstance(names[0], int):
            return [self.one(dtype=dtype) for _ in range(names[0])]
        return [self.one(name, dtype=dtype) for name in names]


_KINDS = {"": None, "b": "int8", "w": "int16", "i": "int32", "l": "int64", "f": "float32",
          "d": "float64", "u": "uint8"}


def _family(what: str, *sizes: int | None) -> tuple[Constructor, ...]:
    """One rank without a prefix (floatX), then with b, w, i, l, f, d, u."""
    return tuple(Constructor(prefix + what, sizes, dtype_of(kind) if kind else None)
                 for prefix, kind in _KINDS.items())


def _plurals(*family: Constructor) -> tuple[Several, ...]:
    return tuple(Several(one) for one in family)


scalar, bscalar, wscalar, iscalar, lscalar, fscalar, dscalar, uscalar = _family("scalar")
vector, bvector, wvector, ivector, lvector, fvector, dvector, uvector = _family("vector", None)
row, brow, wrow, irow, lrow, frow, drow, urow = _family("row", 1, None)
col, bcol, wcol, icol, lcol, fcol, dcol, ucol = _family("col", None, 1)
(matrix, bmatrix, wmatrix, imatrix, lmatrix, fmatrix, dmatrix, umatrix) = _family(
    "matrix", None, None)
(tensor3, btensor3, wtensor3, itensor3, ltensor3, ftensor3, dtensor3, utensor3) = _family(
    "tensor3", None, None, None)
(tensor4, btensor4, wtensor4, itensor4, ltensor4, ftensor4, dtensor4, utensor4) = _family(
    "tensor4", None, None, None, None)
(tensor5, btensor5, wtensor5, itensor5, ltensor5, ftensor5, dtensor5, utensor5) = _family(
    "tensor5", None, None, None, None, None)
(tensor6, btensor6, wtensor6, itensor6, ltensor6, ftensor6, dtensor6, utensor6) = _family(
    "tensor6", None, None, None, None, None, None)
(tensor7, btensor7, wtensor7, itensor7, ltensor7, ftensor7, dtensor7, utensor7) = _family(
    "tensor7", None, None, None, None, None, None, None)

(scalars, bscalars, wscalars, iscalars, lscalars, fscalars, dscalars, uscalars) = _plurals(
    scalar, bscalar, wscalar, iscalar, lscalar, fscalar, dscalar, uscalar)
(vectors, bvectors, wvectors, ivectors, lvectors, fvectors, dvectors, uvectors) = _plurals(
    vector, bvector, wvector, ivector, lvector, fvector, dvector, uvector)
(rows, brows, wrows, irows, lrows, frows, drows, urows) = _plurals(
    row, brow, wrow, irow, lrow, frow, drow, urow)
(cols, bcols, wcols, icols, lcols, fcols, dcols, ucols) = _plurals(
    col, bcol, wcol, icol, lcol, fcol, dcol, ucol)
(matrices, bmatrices, wmatrices, imatrices, lmatrices, fmatrices, dmatrices, umatrices) = _plurals(
    matrix, bmatrix, wmatrix, imatrix, lmatrix, fmatrix, dmatrix, umatrix)
(tensor3s, btensor3s, wtensor3s, itensor3s, ltensor3s, ftensor3s, dtensor3s, utensor3s) = _plurals(
    tensor3, btensor3, wtensor3, itensor3, ltensor3, ftensor3, dtensor3, utensor3)
(tensor4s, btensor4s, wtensor4s, itensor4s, ltensor4s, ftensor4s, dtensor4s, utensor4s) = _plurals(
    tensor4, btensor4, wtensor4, itensor4, ltensor4, ftensor4, dtensor4, utensor4)
(tensor5s, btensor5s, wtensor5s, itensor5s, ltensor5s, ftensor5s, dtensor5s, utensor5s) = _plurals(
    tensor5, btensor5, wtensor5, itensor5, ltensor5, ftensor5, dtensor5, utensor5)
(tensor6s, btensor6s, wtensor6s, itensor6s, ltensor6s, ftensor6s, dtensor6s, utensor6s) = _plurals(
    tensor6, btensor6, wtensor6, itensor6, ltensor6, ftensor6, dtensor6, utensor6)
(tensor7s, btensor7s, wtensor7s, itensor7s, ltensor7s, ftensor7s, dtensor7s, utensor7s) = _plurals(
    tensor7, btensor7, wtensor7, itensor7, ltensor7, ftensor7, dtensor7, utensor7)

__all__ = [
    "bcol", "bcols", "bmatrices", "bmatrix", "brow", "brows", "bscalar", "bscalars", "btensor3",
    "btensor3s", "btensor4", "btensor4s", "btensor5", "btensor5s", "btensor6", "btensor6s",
    "btensor7", "btensor7s", "bvector", "bvectors", "col", "cols", "dcol", "dcols", "dmatrices",
    "dmatrix", "drow", "drows", "dscalar", "dscalars", "dtensor3", "dtensor3s", "dtensor4",
    "dtensor4s", "dtensor5", "dtensor5s", "dtensor6", "dtensor6s", "dtensor7", "dtensor7s",
    "dvector", "dvectors", "fcol", "fcols", "fmatrices", "fmatrix", "frow", "frows", "fscalar",
    "fscalars", "ftensor3", "ftensor3s", "ftensor4", "ftensor4s", "ftensor5", "ftensor5s",
    "ftensor6", "ftensor6s", "ftensor7", "ftensor7s", "fvector", "fvectors", "icol", "icols",
    "imatrices", "imatrix", "irow", "irows", "iscalar", "iscalars", "itensor3", "itensor3s",
    "itensor4", "itensor4s", "itensor5", "itensor5s", "itensor6", "itensor6s", "itensor7",
    "itensor7s", "ivector", "ivectors", "lcol", "lcols", "lmatrices", "lmatrix", "lrow", "lrows",
    "lscalar", "lscalars", "ltensor3", "ltensor3s", "ltensor4", "ltensor4s", "ltensor5",
    "ltensor5s", "ltensor6", "ltensor6s", "ltensor7", "ltensor7s", "lvector", "lvectors",
    "matrices", "matrix", "row", "rows", "scalar", "scalars", "tensor3", "tensor3s", "tensor4",
    "tensor4s", "tensor5", "tensor5s", "tensor6", "tensor6s", "tensor7", "tensor7s", "ucol",
    "ucols", "umatrices", "umatrix", "urow", "urows", "uscalar", "uscalars", "utensor3",
    "utensor3s", "utensor4", "utensor4s", "utensor5", "utensor5s", "utensor6", "utensor6s",
    "utensor7", "utensor7s", "uvector", "uvectors", "vector", "vectors", "wcol", "wcols",
    "wmatrices", "wmatrix", "wrow", "wrows", "wscalar", "wscalars", "wtensor3", "wtensor3s",
    "wtensor4", "wtensor4s", "wtensor5", "wtensor5s", "wtensor6", "wtensor6s", "wtensor7",
    "wtensor7s", "wvector", "wvectors",
]
