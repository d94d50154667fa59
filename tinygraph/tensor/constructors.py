"""What makes variables: leaves of every dtype and rank, and arrays that are known or counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.config import config
from tinygraph.dims import Dim, Sym, dim, floordiv, maximum
from tinygraph.dtypes import DType, int64, promote
from tinygraph.dtypes import dtype as dtype_of
from tinygraph.graph import Type, Value, describe, user_source
from tinygraph.ops import arithmetic
from tinygraph.ops.arithmetic import as_value, broadcast_to, elementwise, scalar_constant
from tinygraph.ops.sizes import as_dim, iota
from tinygraph.tensor.shaping import dims_of, insert_axes
from tinygraph.tensor.variable import Tensor, as_dtype, as_tensor_variable

_RANKS = ("scalar", "vector", "matrix")


def variable(kind: DType, sizes: Sequence[int | None], name: str | None = None, what: str = ""
             ) -> Tensor:
    """A leaf of the given dtype; a size of None is a fresh symbol."""
    source = user_source()
    rank = len(sizes)
    what = what or (_RANKS[rank] if rank < len(_RANKS) else f"tensor{rank}")
    label = name or what
    where = f" ({source})" if source else ""
    dims = tuple(
        dim(Sym(f"{label}_{k}", f"axis {k} of {name or 'a ' + what}{where}")) if n is None
        else dim(n) for k, n in enumerate(sizes))
    return Tensor(Type(kind, dims), name=name, source=source)


def tensor(dtype: Any = None, shape: Sequence[int | None] = (), name: str | None = None) -> Tensor:
    """A variable whose sizes are partly known: ``tensor('float32', (None, 3, 1), 'x')``.

    A size of None is learnt at the call; one of 1 broadcasts.  ``dtype`` None means floatX.
    """
    for n in shape:
        if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0):
            raise TypeError(f"tensor: the size {n!r} must be None or an integer, 0 or more")
    kind = as_dtype(dtype or "floatX")
    return variable(kind, [None if n is None else int(n) for n in shape], name)


@dataclass(frozen=True)
class TensorType:
    """A dtype and, per axis, whether it has size 1 and broadcasts; called, it makes a variable."""

    dtype: str
    broadcastable: tuple[bool, ...]
    name: str | None = None

    def __init__(self, dtype: Any, broadcastable: Sequence[bool], name: str | None = None) -> None:
        object.__setattr__(self, "dtype", as_dtype(dtype).name)
        object.__setattr__(self, "broadcastable", tuple(bool(b) for b in broadcastable))
        object.__setattr__(self, "name", name)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.broadcastable)

    def __call__(self, name: str | None = None) -> Tensor:
        sizes = [1 if flag else None for flag in self.broadcastable]
        return variable(dtype_of(self.dtype), sizes, name or self.name)


# --- filled arrays --------------------------------------------------------------------------


def alloc(value: Any, *shape: Any) -> Any:
    """``value`` (a number or an array) repeated to ``shape``; a Python float is floatX."""
    if len(shape) == 1 and (isinstance(shape[0], (list, tuple))
                            or isinstance(shape[0], Value) and shape[0].ndim):
        (shape,) = shape
    x, dims = as_tensor_variable(value), dims_of(shape)
    if x.ndim > len(dims):
        raise ValueError(f"alloc: {describe(x)} does not fit into {len(dims)} axes")
    return broadcast_to(x, dims)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    """An array of ``shape`` filled with one number; a Python float is floatX."""
    x = as_tensor_variable(fill_value)
    return alloc(x if dtype is None else x.cast(as_dtype(dtype)), *dims_of(shape))


def zeros(shape: Any, dtype: Any = None) -> Any:
    """Zeros of ``shape``, floatX unless ``dtype`` is given."""
    return full(shape, 0, dtype or "floatX")


def ones(shape: Any, dtype: Any = None) -> Any:
    """Ones of ``shape``, floatX unless ``dtype`` is given."""
    return full(shape, 1, dtype or "floatX")


def empty(shape: Any, dtype: Any = None) -> Any:
    """An array of ``shape`` whose elements nobody may rely on (they are zeros), floatX unless
    ``dtype`` is given."""
    return zeros(shape, dtype)


@dataclass(frozen=True)
class AllocEmpty:
    """Called with sizes, it makes arrays of ``dtype`` whose elements nobody may rely on."""

    dtype: str

    def __call__(self, *shape: Any) -> Any:
        return empty(shape, self.dtype)


def zeros_like(x: Any, dtype: Any = None) -> Any:
    """Zeros of the shape and (unless given) the dtype of ``x``."""
    return as_tensor_variable(x).zeros_like(dtype)


def ones_like(x: Any, dtype: Any = None) -> Any:
    """Ones of the shape and (unless given) the dtype of ``x``."""
    return as_tensor_variable(x).ones_like(dtype)


def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Any:
    """``fill_value`` in the shape and (unless given) the dtype of ``x``."""
    x = as_tensor_variable(x)
    kind = x.type.dtype if dtype is None else as_dtype(dtype)
    return broadcast_to(as_value(fill_value, x).cast(kind), x.type.dims)


# --- counted arrays -------------------------------------------------------------------------


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Any:
    """start, start + step, ... before ``stop``, as NumPy's arange; int64 for integers.

    Bounds may be integer scalars.  Raises TypeError for a step or float bounds that are no
    constants: the length must be an integer expression.
    """
    if stop is None:
        start, stop = 0, start
    bounds = [_number(x) for x in (start, stop, step)]
    if all(not isinstance(b, Value) for b in bounds):
        return _constant_range(bounds, dtype)
    stride = bounds[2]
    if isinstance(stride, (Value, float)):
        raise TypeError(f"arange: the step must be a constant integer, not {step!r}")
    if stride == 0:
        raise ValueError("arange: the step must not be 0")
    for b in bounds[:2]:
        if isinstance(b, float) or isinstance(b, Value) and not b.type.dtype.is_int:
            raise TypeError(f"arange: the bounds must be integers, not {b!r}")
    first, last = as_dim(bounds[0]), as_dim(bounds[1])
    span: Dim = last - first if stride > 0 else first - last
    length = maximum(floordiv(span + (abs(stride) - 1), dim(abs(stride))), dim(0))
    out: Any = iota(length, int64, Tensor)
    out = out if stride == 1 else out * stride
    out = out if first == 0 else out + bounds[0]
    return out if dtype is None else out.cast(as_dtype(dtype))


def _number(x: Any) -> Any:
    """The Python number of a constant scalar, else ``x``."""
    if isinstance(x, Value):
        known = scalar_constant(x) if x.ndim == 0 else None
        return x if known is None else known
    return x.item() if isinstance(x, (np.generic, np.ndarray)) and np.size(x) == 1 else x


def _constant_range(bounds: list[Any], dtype: Any) -> Any:
    start, stop, step = bounds
    if all(isinstance(b, int) for b in bounds):
        length = len(range(start, stop, step))
        kind = int64 if dtype is None else as_dtype(dtype)
        if start == 0 and step == 1:
            return iota(dim(length), int64, Tensor).cast(kind)
        return arithmetic.constant(np.arange(start, stop, step), kind, Tensor)
    kind = as_dtype("floatX" if dtype is None else dtype)
    return arithmetic.constant(np.arange(start, stop, step), kind, Tensor)


def tri(n: Any, m: Any = None, k: int = 0, dtype: Any = None) -> Any:
    """An n by m matrix of ones at and below the ``k``-th diagonal, zeros above it."""
    return _by_diagonal(n, m, k, dtype, "le")


def eye(n: Any, m: Any = None, k: int = 0, dtype: Any = None) -> Any:
    """An n by m matrix of zeros with ones on the ``k``-th diagonal."""
    return _by_diagonal(n, m, k, dtype, "eq")


def identity_like(x: Any, dtype: Any = None) -> Any:
    """The identity matrix of the shape of the matrix ``x``."""
    x = as_tensor_variable(x)
    rows, columns = x.shape
    return eye(rows, columns, dtype=dtype or x.dtype)


def _by_diagonal(n: Any, m: Any, k: int, dtype: Any, relation: str) -> Any:
    rows, columns = as_dim(n), as_dim(n if m is None else m)
    down = insert_axes(iota(rows, int64, Tensor), [1])
    across = iota(columns, int64, Tensor)
    return elementwise(relation, across, down + k).cast(as_dtype(dtype or "floatX"))


def to_one_hot(y: Any, nb_class: Any, dtype: Any = None) -> Any:
    """A row per entry of the integer vector ``y``, with 1 at its class, of ``nb_class``."""
    y = as_tensor_variable(y)
    if y.ndim != 1 or not y.type.dtype.is_int:
        raise TypeError(f"to_one_hot takes an integer vector, not {describe(y)}")
    classes = iota(as_dim(nb_class), int64, Tensor)
    hit = elementwise("eq", insert_axes(y, [1]), classes)
    return hit.cast(as_dtype(dtype or "floatX"))


def upcast(*dtypes: Any) -> str:
    """The dtype of an arithmetic result of operands of these dtypes."""
    return promote(*(as_dtype(d) for d in dtypes), float_x=config.floatX).name
