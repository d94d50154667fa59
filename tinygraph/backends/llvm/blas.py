"""Where the matrix products of BLAS are, if anywhere.

First the OpenBLAS inside the NumPy wheel, which NumPy has loaded anyway (a second copy would bring
a second pool of threads), then SciPy's table for Cython, else none.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# cblas64: row-major CBLAS with 64-bit integers.  fortran32: the Fortran interface with 32-bit ones.
CONVENTIONS = ("cblas64", "fortran32")


@dataclass(frozen=True)
class Blas:
    """A BLAS in this process: its convention, the addresses of its products, where it is from."""

    convention: str
    sgemm: int
    dgemm: int
    source: str


@functools.cache
def find() -> Blas | None:
    """The BLAS that compiled code calls, or None."""
    return from_numpy() or from_scipy()


def from_numpy() -> Blas | None:
    """The OpenBLAS that a NumPy wheel carries beside the package."""
    package = Path(np.__file__).parent
    folders = (package.parent / "numpy.libs", package / ".dylibs", package / ".libs")
    for folder in folders:
        for path in sorted(folder.glob("*openblas64_*")) if folder.is_dir() else ():
            try:
                library = ctypes.CDLL(str(path))
                sgemm, dgemm = library.scipy_cblas_sgemm64_, library.scipy_cblas_dgemm64_
            except (OSError, AttributeError):  # another build of OpenBLAS: try the next
                continue
            return Blas("cblas64", _address(sgemm), _address(dgemm), f"NumPy's {path.name}")
    return None


def _address(function: object) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert address is not None
    return address


def from_scipy() -> Blas | None:
    """The Fortran entries that SciPy publishes for Cython, if their integers are C ints."""
    if importlib.util.find_spec("scipy") is None:
        return None
    table = importlib.import_module("scipy.linalg.cython_blas").__pyx_capi__
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype = ctypes.c_void_p
    pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]
    addresses = []
    for routine in ("sgemm", "dgemm"):
        signature = name_of(table[routine])
        if b"int *" not in signature:
            return None
        addresses.append(pointer_of(table[routine], signature))
    return Blas("fortran32", addresses[0], addresses[1], "SciPy's cython_blas")
