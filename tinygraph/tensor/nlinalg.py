"""Matrices under the names of ``theano.tensor.nlinalg``: diagonals, traces, chains of products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinygraph.graph import describe
from tinygraph.tensor import functions, linalg, reductions
from tinygraph.tensor.constructors import identity_like
from tinygraph.tensor.variable import as_tensor_variable

diag, trace = functions.diag, functions.trace


@dataclass(frozen=True)
class ExtractDiag:
    """Called on an array, it takes a diagonal of the matrices in two axes; ``view`` is Theano's,
    and says nothing here."""

    offset: int = 0
    axis1: int = 0
    axis2: int = 1
    view: bool = False

    def __call__(self, x: Any) -> Any:
        return linalg.diagonal(as_tensor_variable(x), self.offset, self.axis1, self.axis2)


@dataclass(frozen=True)
class AllocDiag:
    """Called on a vector, it makes the square matrix that has it on the diagonal ``offset``."""

    offset: int = 0

    def __call__(self, x: Any) -> Any:
        x = as_tensor_variable(x)
        if x.ndim != 1:
            raise TypeError(f"AllocDiag takes a vector, not {describe(x)}")
        return linalg.diag(x, self.offset)


extract_diag, alloc_diag = ExtractDiag(), AllocDiag()


def matrix_dot(*factors: Any) -> Any:
    """The product of several matrices, from left to right."""
    out = as_tensor_variable(factors[0])
    for factor in factors[1:]:
        out = linalg.dot(out, factor)
    return out


def matrix_power(x: Any, n: int) -> Any:
    """The product of ``n`` (0 or more) times the matrix ``x``, by repeated squaring."""
    x = as_tensor_variable(x)
    if n < 0:
        raise ValueError(f"matrix_power: n is {n}; it must not be negative")
    out: Any = None
    while n:
        if n % 2:
            out = x if out is None else linalg.dot(out, x)
        n //= 2
        x = linalg.dot(x, x) if n else x
    return identity_like(x) if out is None else out


def norm(x: Any, ord: Any = None) -> Any:
    """The norm of a vector (``ord`` 2 unless given, or any number) or the Frobenius norm ("fro",
    None) of a matrix, whose norms 1 and infinity are the largest sum of magnitudes of a column
    and of a row, minus those the smallest.

    Raises ValueError for another ``ord`` of a matrix, or other ranks.
    """
    x = as_tensor_variable(x)
    if x.ndim == 1:
        return reductions.norm(x, 2 if ord is None else float(ord))
    if x.ndim == 2 and ord in (None, "fro"):
        return reductions.norm(x)
    if x.ndim == 2 and abs(ord) in (1, float("inf")):
        sums = reductions.sum_(abs(x), 0 if abs(ord) == 1 else 1)
        return (reductions.max_ if ord > 0 else reductions.min_)(sums)
    raise ValueError(f"norm: ord is {ord!r} for {describe(x)}")
