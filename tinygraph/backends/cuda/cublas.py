"""Products of strided matrices by cuBLAS.

cuBLAS reads column by column.  A matrix whose rows lie together is, read so, its transpose: where
the result lies by rows, its transpose is computed, c' = b' a'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_PLAIN, _TRANSPOSED = 0, 1  # CUBLAS_OP_N, CUBLAS_OP_T
_TF32 = 3  # CUBLAS_TF32_TENSOR_OP_MATH, for which CuPy has no name
_MOST = 2**31  # cuBLAS takes sizes as int


@dataclass(frozen=True)
class Matrix:
    """Element (i, j) lies at ``address + (i * rows + j * cols) * itemsize``."""

    address: int
    rows: int
    cols: int

    @property
    def transposed(self) -> Matrix:
        """The same elements with rows and columns exchanged."""
        return Matrix(self.address, self.cols, self.rows)


@dataclass(frozen=True)
class Layout:
    """How cuBLAS is to read an operand: as it lies or transposed, and its leading dimension."""

    operation: int
    leading: int


def layout(matrix: Matrix, m: int, n: int) -> Layout | None:
    """How cuBLAS reads an m x n matrix; None where it cannot: neither of its strides is one, or
    its columns overlap.  Strides of an axis of one element say nothing."""
    if m == 0 or n == 0:
        return Layout(_PLAIN, max(1, m))
    if m <= 1 or matrix.rows == 1:
        leading = matrix.cols if n > 1 else max(1, m)
        if max(1, m) <= leading < _MOST:
            return Layout(_PLAIN, leading)
    if n <= 1 or matrix.cols == 1:
        leading = matrix.rows if m > 1 else max(1, n)
        if max(1, n) <= leading < _MOST:
            return Layout(_TRANSPOSED, leading)
    return None


@dataclass(frozen=True)
class Product:
    """What cuBLAS is asked: c of m x n, in its reading, from a of m x k and b of k x n."""

    m: int
    n: int
    k: int
    a: Matrix
    b: Matrix
    c: Matrix
    layouts: tuple[Layout, Layout, Layout]


def product(a: Matrix, b: Matrix, c: Matrix, m: int, n: int, k: int) -> Product | None:
    """How cuBLAS computes c = a b (m x k by k x n); None where it cannot for these strides."""
    if max(m, n, k) >= _MOST:
        return None
    for x, y, z, rows, cols in ((b.transposed, a.transposed, c.transposed, n, m), (a, b, c, m, n)):
        found = layout(x, rows, k), layout(y, k, cols), layout(z, rows, cols)
        if found[0] and found[1] and found[2] and found[2].operation == _PLAIN:
            return Product(rows, cols, k, x, y, z, (found[0], found[1], found[2]))
    return None


class Products:
    """cuBLAS on CuPy's current stream.  Raises ImportError where the library is missing.

    Not while a stream is captured: CuPy refuses cuBLAS there.
    """

    def __init__(self, cupy: Any) -> None:
        self.cublas = cupy.cuda.cublas
        self.handle = cupy.cuda.get_cublas_handle  # each thread has its own
        self._numbers = {d: np.array([0, 1], d) for d in ("float32", "float64")}

    def multiply(self, call: Product, dtype: str, accumulate: bool = False, tf32: bool = False
                 ) -> None:
        """c = a b, or c += a b, in 'float32' or 'float64'.

        tf32  factors of float32 may be rounded to 10 bits of mantissa
        """
        if call.m == 0 or call.n == 0:
            return
        numbers = self._numbers[dtype]
        zero = numbers.ctypes.data
        one = zero + numbers.itemsize
        gemm = self.cublas.sgemm if dtype == "float32" else self.cublas.dgemm
        a, b, c = call.layouts
        handle = self.handle()
        before = self.cublas.getMathMode(handle)
        wanted = _TF32 if tf32 else self.cublas.CUBLAS_DEFAULT_MATH
        if wanted != before:
            self.cublas.setMathMode(handle, wanted)
        try:
            gemm(handle, a.operation, b.operation, call.m, call.n, call.k,
                 one, call.a.address, a.leading, call.b.address, b.leading,
                 one if accumulate else zero, call.c.address, c.leading)
        finally:
            if wanted != before:
                self.cublas.setMathMode(handle, before)
