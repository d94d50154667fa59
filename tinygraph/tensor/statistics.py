"""Covariance."""

from __future__ import annotations

from typing import Any

from tinygraph.dtypes import int64
from tinygraph.graph import describe
from tinygraph.ops.arithmetic import cast, elementwise
from tinygraph.ops.sizes import size_value
from tinygraph.ops.views import concatenate, transpose
from tinygraph.tensor.linalg import dot
from tinygraph.tensor.shaping import insert_axes, together
from tinygraph.tensor.variable import as_tensor_variable


def cov(m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: int | None = None,
        fweights: Any = None, aweights: Any = None) -> Any:
    """The covariance matrix of variables, one per row of ``m`` and of ``y`` (per column without
    ``rowvar``), of which there are as many observations as columns; as NumPy's.

    The sum is divided by the number of observations less ``ddof``, which is 1, or 0 with
    ``bias``, unless given.  fweights: how often each observation counts, an integer vector;
    aweights: its weight.  A vector is one variable; the result is a matrix even then.
    """
    x = _variables(m, rowvar)
    if y is not None:
        x = concatenate(together([x, _variables(y, rowvar)]), 0)
    x = x.as_float()
    ddof = (0 if bias else 1) if ddof is None else ddof
    if ddof != int(ddof):
        raise ValueError(f"cov: ddof is {ddof!r}; it must be an integer")
    cls = type(x).result_class()
    count = cast(size_value(x.type.dims[1], cls), x.type.dtype)
    weights = _weights(x, fweights, aweights)
    if weights is None:
        centered = x - x.mean(axis=1, keepdims=True)
        return dot(centered, transpose(centered, [1, 0])) / (count - ddof)
    total = weights.sum()
    mean = (x * weights).sum(axis=1, keepdims=True) / total
    if aweights is None or not ddof:
        scale = total - ddof
    else:
        scale = total - ddof * (weights * _vector(aweights, x)).sum() / total
    return dot((x - mean) * weights, transpose(x - mean, [1, 0])) / scale


def _variables(m: Any, rowvar: bool) -> Any:
    m = as_tensor_variable(m)
    if m.ndim == 1:
        return insert_axes(m, [0])
    if m.ndim != 2:
        raise TypeError(f"cov takes a vector or a matrix, not {describe(m)}")
    return m if rowvar else transpose(m, [1, 0])


def _vector(w: Any, x: Any) -> Any:
    w = as_tensor_variable(w)
    if w.ndim != 1:
        raise TypeError(f"cov: weights must be a vector, not {describe(w)}")
    return cast(w, x.type.dtype)


def _weights(x: Any, fweights: Any, aweights: Any) -> Any:
    """The weight of each observation; None where all count once."""
    found = None
    if fweights is not None:
        counts = as_tensor_variable(fweights)
        if not counts.type.dtype.is_int:
            raise TypeError(f"cov: fweights must be integers, not {describe(counts)}")
        found = _vector(cast(counts, int64), x)
    if aweights is not None:
        other = _vector(aweights, x)
        found = other if found is None else elementwise("mul", found, other)
    return found
