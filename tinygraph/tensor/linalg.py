"""Products of arrays: dot, matmul, tensordot, batched_dot, outer; diagonals and triangles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygraph.config import config
from tinygraph.dims import dim, maximum, minimum
from tinygraph.dtypes import promote
from tinygraph.graph import Value, apply, describe
from tinygraph.ops import views
from tinygraph.ops.arithmetic import (
    as_value,
    cast,
    elementwise,
    reduce_,
)
from tinygraph.ops.index import Take
from tinygraph.ops.linalg import dot_general
from tinygraph.ops.sizes import iota, size_value
from tinygraph.ops.views import Region
from tinygraph.tensor.reductions import axes_of
from tinygraph.tensor.shaping import insert_axes


def pair(x: Any, y: Any) -> tuple[Any, Any]:
    """Two operands of one dtype."""
    x = as_value(x, y if isinstance(y, Value) else None)
    y = as_value(y, x)
    kind = promote(x.type.dtype, y.type.dtype, float_x=config.floatX)
    return cast(x, kind), cast(y, kind)


def contract(a: Sequence[Any], b: Sequence[Any], out: Sequence[Any], x: Any, y: Any) -> Any:
    """The product under labels, one per axis, as einsum has them; also of integers."""
    if x.type.dtype.is_float:
        return dot_general(a, b, out, x, y)
    every = [*out, *(label for label in a if label not in out)]
    operands = []
    for labels, v in ((a, x), (b, y)):
        order = [label for label in every if label in labels]
        v = views.transpose(v, [list(labels).index(label) for label in order])
        operands.append(insert_axes(v, [k for k, e in enumerate(every) if e not in labels]))
    return reduce_("sum", elementwise("mul", *operands), range(len(out), len(every)))


def dot(x: Any, y: Any) -> Any:
    """NumPy's dot: the last axis of ``x`` with the last but one of ``y`` (or its only one); a
    scalar multiplies."""
    x, y = pair(x, y)
    if not (x.ndim and y.ndim):
        return elementwise("mul", x, y)
    left = [("x", k) for k in range(x.ndim - 1)]
    right = [("y", k) for k in range(y.ndim - 1)]
    b = [*right[:-1], "shared", *right[-1:]] if right else ["shared"]
    return contract([*left, "shared"], b, left + right, x, y)


def matmul(x: Any, y: Any) -> Any:
    """NumPy's matmul: matrices in the last two axes, the axes before them broadcast."""
    x, y = pair(x, y)
    if not (x.ndim and y.ndim):
        raise TypeError(f"matmul of a scalar: {describe(x)}, {describe(y)}; write x * y")
    if x.ndim <= 2 and y.ndim <= 2:
        return dot(x, y)
    rank = max(x.ndim, y.ndim) - 2
    a = _matmul_labels(x, rank, ["row", "shared"])
    b = _matmul_labels(y, rank, ["shared", "column"] if y.ndim > 1 else ["shared"])
    # A size of 1 meets any size by broadcasting: without the axis, its operand serves them all.
    sizes = dict(zip(b, y.type.dims, strict=True))
    for label, d in zip(list(a), x.type.dims, strict=True):
        if isinstance(label, int) and label in sizes and (d == 1) != (sizes[label] == 1):
            if d == 1:
                x, a = views.squeeze(x, [a.index(label)]), [e for e in a if e != label]
            else:
                y, b = views.squeeze(y, [b.index(label)]), [e for e in b if e != label]
    tail = [e for e in ("row", "column") if e in (*a, *b)]
    return contract(a, b, [*range(rank), *tail], x, y)


def _matmul_labels(x: Any, rank: int, matrix: list[str]) -> list[Any]:
    own = matrix[-1:] if x.ndim == 1 else matrix
    lead = x.ndim - len(own)
    return [*range(rank - lead, rank), *own]


def tensordot(x: Any, y: Any, axes: Any = 2) -> Any:
    """The product of ``x`` and ``y`` summed over ``axes``: a number n (the last n of x with the
    first n of y), or the axes of x and those of y, each an integer or several."""
    return _tensordot(x, y, axes, batched=False)


def batched_tensordot(x: Any, y: Any, axes: Any = 2) -> Any:
    """``tensordot`` per entry of the first axis, which both have; axes count from it, and a number
    n takes the last n of x with the n of y that follow the first."""
    return _tensordot(x, y, axes, batched=True)


def _tensordot(x: Any, y: Any, axes: Any, batched: bool) -> Any:
    x, y = pair(x, y)
    if isinstance(axes, (int, np.integer)):
        begin = int(batched)
        if not 0 <= axes <= min(x.ndim, y.ndim) - begin:
            raise ValueError(f"tensordot over {axes} axes: {describe(x)} against {describe(y)}")
        first, second = tuple(range(x.ndim - axes, x.ndim)), tuple(range(begin, begin + axes))
    else:
        first, second = axes
    first, second = axes_of(x, _listed(first)), axes_of(y, _listed(second))
    if len(first) != len(second):
        raise ValueError(f"tensordot: {len(first)} axes of {describe(x)} against {len(second)} of "
                         f"{describe(y)}")
    if batched and (0 in first or 0 in second):
        raise ValueError("batched_tensordot: axis 0 is the batch and cannot be summed over")
    a: list[Any] = [("x", k) for k in range(x.ndim)]
    b: list[Any] = [("y", k) for k in range(y.ndim)]
    for i, j in zip(first, second, strict=True):
        b[j] = a[i]
    if batched:
        b[0] = a[0]
    summed = [a[i] for i in first]
    out = [e for e in a if e not in summed] + [e for e in b if e not in a]
    return contract(a, b, out, x, y)


def _listed(axes: Any) -> list[int]:
    return list(axes) if isinstance(axes, (list, tuple, np.ndarray)) else [axes]


def inner(x: Any, y: Any) -> Any:
    """The product of ``x`` and ``y`` summed over the last axis of both; a scalar multiplies."""
    x, y = pair(x, y)
    if not (x.ndim and y.ndim):
        return elementwise("mul", x, y)
    return _tensordot(x, y, (-1, -1), batched=False)


def kron(x: Any, y: Any) -> Any:
    """The Kronecker product: every element of ``x`` replaced by itself times ``y``."""
    x, y = pair(x, y)
    rank = max(x.ndim, y.ndim)
    x, y = (insert_axes(v, range(rank - v.ndim)) for v in (x, y))
    both = elementwise("mul", insert_axes(x, range(1, 2 * rank, 2)),
                       insert_axes(y, range(0, 2 * rank, 2)))
    sizes = [a * b for a, b in zip(x.type.dims, y.type.dims, strict=True)]
    return views.reshape(both, sizes)


def batched_dot(x: Any, y: Any) -> Any:
    """Per entry of the first axis, the dot of the rest: (n, i, k) by (n, k, j) is (n, i, j)."""
    x, y = pair(x, y)
    if not (x.ndim and y.ndim):
        raise TypeError(f"batched_dot needs a first axis: {describe(x)}, {describe(y)}")
    if x.ndim == 1 or y.ndim == 1:
        wide = [insert_axes(v, range(1, 1 + max(x.ndim, y.ndim) - v.ndim)) if v.ndim == 1 else v
                for v in (x, y)]
        return elementwise("mul", *wide)
    left = [("x", k) for k in range(x.ndim - 2)]
    right = [("y", k) for k in range(y.ndim - 2)]
    b = ["n", *right[:-1], "shared", *right[-1:]] if right else ["n", "shared"]
    return contract(["n", *left, "shared"], b, ["n", *left, *right], x, y)


def outer(x: Any, y: Any) -> Any:
    """Every element of ``x`` by every element of ``y``, as a matrix."""
    x, y = pair(x, y)
    flat = [views.reshape(v, [v.type.dims[0] if v.ndim == 1 else _count(v)]) for v in (x, y)]
    return elementwise("mul", insert_axes(flat[0], [1]), flat[1])


def _count(x: Any) -> Any:
    total = dim(1)
    for d in x.type.dims:
        total = total * d
    return total


def diag(x: Any, k: int = 0) -> Any:
    """The ``k``-th diagonal of a matrix, or the square matrix that has the vector ``x`` on it."""
    cls = type(x).result_class()
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise TypeError(f"diag takes a vector or a matrix, not {describe(x)}")
    n = x.type.dims[0] + abs(k)
    on = elementwise("eq", iota(n, cls=cls), insert_axes(iota(n, cls=cls), [1]) + k)
    places = Region((dim(max(-k, 0)),), x.type.dims, (1,))
    spread = insert_axes(views.unslice(x, [n], places), [1])
    return elementwise("switch", on, spread, full_like_zero(x))


def full_like_zero(x: Any) -> Any:
    """The scalar 0 of the dtype of ``x``."""
    return cast(as_value(0, x), x.type.dtype)


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The elements x[..., k, k + offset] of the matrices in ``axis1`` and ``axis2``, as a last
    axis.  A negative ``offset`` counts down the rows."""
    if x.ndim < 2:
        raise TypeError(f"diagonal takes an array of two axes or more, not {describe(x)}")
    first, second = axes_of(x, (axis1, axis2))
    rest = [k for k in range(x.ndim) if k not in (first, second)]
    x = views.transpose(x, [*rest, first, second])
    *lead, n, m = x.type.dims
    down, across = max(-offset, 0), max(offset, 0)
    length = maximum(minimum(n - down, m - across), dim(0))
    cls = type(x).result_class()
    index = iota(length, cls=cls) * (size_value(m, cls) + 1)
    if offset:
        index = index + size_value(m * down + across, cls)
    return apply(Take(len(lead)), views.reshape(x, [*lead, n * m]), index)[0]


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The sum of a diagonal (``diagonal``)."""
    along = diagonal(x, offset, axis1, axis2)
    return reduce_("sum", along, [along.ndim - 1])


def _triangle(x: Any, k: int, lower: bool) -> Any:
    if x.ndim < 2:
        raise TypeError(f"a triangle of {describe(x)}: it has fewer than two axes")
    cls = type(x).result_class()
    rows = insert_axes(iota(x.type.dims[-2], cls=cls), [1])
    columns = iota(x.type.dims[-1], cls=cls)
    keep = columns - rows <= k if lower else columns - rows >= k
    return elementwise("switch", keep, x, full_like_zero(x))


def tril(x: Any, k: int = 0) -> Any:
    """``x`` with zeros above the ``k``-th diagonal of its last two axes."""
    return _triangle(x, k, lower=True)


def triu(x: Any, k: int = 0) -> Any:
    """``x`` with zeros below the ``k``-th diagonal of its last two axes."""
    return _triangle(x, k, lower=False)
