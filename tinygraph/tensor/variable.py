"""Tensor, the variable that users hold, and what turns arrays into one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from tinygraph.config import config
from tinygraph.dims import product
from tinygraph.dtypes import dtype
from tinygraph.graph import Node, Type, Value, describe, user_source
from tinygraph.ops import arithmetic
from tinygraph.ops.arithmetic import Arithmetic, Elemwise, elementwise
from tinygraph.ops.sizes import size_value
from tinygraph.tensor import indexing, linalg, ordering, reductions, selection, shaping
from tinygraph.tensor.building import note_built
from tinygraph.tensor.evaluation import eval_variable, get_scalar_constant_value
from tinygraph.tensor.refusals import Refusals
from tinygraph.tensor.test_values import Tag, compute


class ShapeTuple(tuple[Any, ...]):
    """The sizes of a variable, one int64 scalar per axis: unpacks, indexes and concatenates as a
    tuple, and serves wherever a shape is asked for.  Everything else it does as the vector of the
    sizes: ``x.shape.prod()``, ``x.shape[i]`` for a variable i, ``x.shape // 2``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(as_tensor_variable(self), name)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) and not any(
                isinstance(bound, Value) for bound in (index.start, index.stop, index.step)):
            return ShapeTuple(super().__getitem__(index))
        if isinstance(index, (int, np.integer)):
            return super().__getitem__(index)
        return as_tensor_variable(self)[index]

    def __sub__(self, other: Any) -> Any:
        return as_tensor_variable(self) - other

    def __rsub__(self, other: Any) -> Any:
        return other - as_tensor_variable(self)

    def __floordiv__(self, other: Any) -> Any:
        return as_tensor_variable(self) // other

    def __truediv__(self, other: Any) -> Any:
        return as_tensor_variable(self) / other

    def __mod__(self, other: Any) -> Any:
        return as_tensor_variable(self) % other

    def __repr__(self) -> str:
        return f"({', '.join(map(repr, self))})"


def _compress(self: Any, condition: Any, axis: int | None = None) -> Any:
    """The slices along ``axis`` (None: elements of self.flatten()) where ``condition`` is true."""
    return selection.compress(condition, self, axis)


def _elementwise(name: str) -> Callable[[Any], Any]:
    """The method that applies the scalar function ``name``."""
    def method(self: Any) -> Any:
        return elementwise(name, self)

    method.__name__ = name
    method.__doc__ = f"The function {name} of every element."
    return method


_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")


class VariableType(Type):
    """The type of a user's variable.  Called, it makes another variable of that dtype and those
    sizes: ``x.type()``.  It equals ``T.fmatrix`` and ``T.TensorType(...)`` of its dtype and
    ``broadcastable``, and other types if their sizes are the same too."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Type):
            return Type.__eq__(self, other)
        kind = getattr(other, "dtype", None), getattr(other, "broadcastable", None)
        return kind == (self.dtype, self.broadcastable)

    __hash__ = Type.__hash__

    def __call__(self, name: str | None = None) -> Tensor:
        return Tensor(self, name=name, source=user_source())

    def make_variable(self, name: str | None = None) -> Tensor:
        """The same in a word of Theano's."""
        return self(name)


class Tensor(Refusals, Arithmetic):
    """A symbolic array.

    ``type`` is its dtype and sizes, ``name`` its name, ``shape`` its sizes as scalars.  Arithmetic
    broadcasts as NumPy does, but only from sizes that are known to be 1 when the graph is built.
    ``==`` is identity: write ``T.eq`` to compare elements.
    """

    _tag: Tag | None = None

    def __init__(self, type: Type, node: Node | None = None, index: int = 0,
                 name: str | None = None, source: str = "") -> None:
        if not isinstance(type, VariableType):
            type = VariableType(type.dtype, type.dims)
        super().__init__(type, node, index, name, source)

    # --- what it is ---

    @property
    def broadcastable(self) -> tuple[bool, ...]:
        """Per axis: is its size 1, known when the graph is built?"""
        return self.type.broadcastable

    @property
    def shape(self) -> ShapeTuple:
        """The sizes, one int64 scalar per axis.  No gradient passes through them."""
        cls = type(self).result_class()
        return ShapeTuple(size_value(d, cls) for d in self.type.dims)

    @property
    def size(self) -> Any:
        """The number of elements, an int64 scalar."""
        return size_value(product(self.type.dims), type(self).result_class())

    @property
    def owner(self) -> Node | None:
        """The application that computes it; None for a variable that is given."""
        return self.node

    @property
    def tag(self) -> Tag:
        """A place for a user's own notes, and for ``test_value``."""
        if self._tag is None:
            self._tag = Tag(self)
        return self._tag

    @classmethod
    def built(cls, node: Node) -> None:
        """Compute the test values of new expressions, if these are asked for; tell a step that
        is being built."""
        note_built(node)
        if config.compute_test_value != "off":
            compute(node)

    def __bool__(self) -> bool:
        op = self.node.op if self.node is not None else None
        if self.type.dtype.kind == "b" and isinstance(op, Elemwise):
            kind = "comparison" if op.fn.name in _COMPARISONS else "condition"
            raise TypeError(
                f"the {kind} {describe(self)} has no truth value when the graph is built; write "
                "T.switch(condition, a, b) instead of if, & and | instead of and and or")
        return True

    def __len__(self) -> int:
        raise TypeError(f"len() of {describe(self)}: its size is a variable; write x.shape[0]")

    def __iter__(self) -> Any:
        raise TypeError(f"{describe(self)} cannot be iterated over: its size is a variable; use "
                        "scan, or x[0], x[1] for known indices")

    def __getitem__(self, index: Any) -> Any:
        return indexing.getitem(self, index)

    def __matmul__(self, other: Any) -> Any:
        return linalg.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return linalg.matmul(other, self)

    def __rand__(self, other: Any) -> Any:
        return elementwise("and", other, self)

    def __ror__(self, other: Any) -> Any:
        return elementwise("or", other, self)

    def __rxor__(self, other: Any) -> Any:
        return elementwise("xor", other, self)

    def __lshift__(self, other: Any) -> Any:
        return elementwise("left_shift", self, other)

    def __rlshift__(self, other: Any) -> Any:
        return elementwise("left_shift", other, self)

    def __rshift__(self, other: Any) -> Any:
        return elementwise("right_shift", self, other)

    def __rrshift__(self, other: Any) -> Any:
        return elementwise("right_shift", other, self)

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[Any, Any]:
        return other // self, other % self

    # --- elements ---

    def astype(self, dtype: Any) -> Any:
        """This variable as another dtype; 'floatX' names the default float."""
        return arithmetic.cast(self, as_dtype(dtype))

    def clip(self, low: Any, high: Any) -> Any:
        """Every element moved into [low, high]; the gradient passes at both bounds.  A bound of
        None is none."""
        out = self if low is None else elementwise("maximum", self, low)
        return out if high is None else elementwise("minimum", out, high)

    def round(self, mode: str = "half_to_even") -> Any:
        """The nearest whole numbers; ``mode`` 'half_to_even' or 'half_away_from_zero'."""
        return rounded(self, mode)

    tan, tanh, erf = _elementwise("tan"), _elementwise("tanh"), _elementwise("erf")
    log1p, log2, expm1 = _elementwise("log1p"), _elementwise("log2"), _elementwise("expm1")
    floor, ceil, trunc = _elementwise("floor"), _elementwise("ceil"), _elementwise("trunc")
    arcsin, arccos = _elementwise("arcsin"), _elementwise("arccos")
    arctan, arcsinh = _elementwise("arctan"), _elementwise("arcsinh")
    arccosh, arctanh = _elementwise("arccosh"), _elementwise("arctanh")

    def log10(self) -> Any:
        """The logarithm to base 10 of every element."""
        return elementwise("log", self) * 0.4342944819032518

    def exp2(self) -> Any:
        """2 to the power of every element."""
        return elementwise("exp", self.as_float() * 0.6931471805599453)

    def deg2rad(self) -> Any:
        """Degrees as radians."""
        return self.as_float() * 0.017453292519943295

    def rad2deg(self) -> Any:
        """Radians as degrees."""
        return self.as_float() * 57.29577951308232

    def fill(self, value: Any) -> Any:
        """``value`` in the shape of this variable."""
        return shaping.broadcast_to(arithmetic.as_value(value, self), self.type.dims)

    def zeros_like(self, dtype: Any = None) -> Any:
        """Zeros of this shape, of this dtype unless another is given."""
        return self._filled(0, dtype)

    def ones_like(self, dtype: Any = None) -> Any:
        """Ones of this shape, of this dtype unless another is given."""
        return self._filled(1, dtype)

    def _filled(self, x: int, dtype: Any) -> Any:
        kind = self.type.dtype if dtype is None else as_dtype(dtype)
        return arithmetic.full(x, self.type.dims, kind, type(self).result_class())

    def eval(self, inputs_to_values: Any = None) -> np.ndarray:
        """Its array, interpreted here and now: ``y.eval({x: 3})``.  Raises MissingInputError
        where a variable that it needs has no value."""
        return eval_variable(self, inputs_to_values)

    @property
    def data(self) -> np.ndarray:
        """The array of a constant.  Raises AttributeError for any other variable."""
        known = arithmetic.constant_value(self)
        if known is None:
            raise AttributeError(f"{describe(self)} is no constant: it has no value before a call")
        return np.broadcast_to(known, [d.const or 0 for d in self.type.dims])

    value = data

    def get_scalar_constant_value(self) -> np.ndarray:
        """The one number of a constant expression.  Raises NotScalarConstantError otherwise."""
        return get_scalar_constant_value(self)

    def conj(self) -> Any:
        """This variable: every variable is real."""
        return self

    conjugate = conj

    def copy(self, name: str | None = None) -> Any:
        """The same values as another variable."""
        out = indexing.getitem(self, ...)
        out.name = name
        return out

    # --- reductions, shapes and products, as in their modules ---

    sum, prod, mean = reductions.sum_, reductions.prod, reductions.mean
    max, min, ptp = reductions.max_, reductions.min_, reductions.ptp
    all, any = reductions.all_, reductions.any_
    var, std, norm = reductions.var, reductions.std, reductions.norm
    argmax, argmin = reductions.argmax, reductions.argmin

    reshape, dimshuffle, flatten = shaping.reshape, shaping.dimshuffle, shaping.flatten
    transpose, swapaxes, squeeze = shaping.transpose, shaping.swapaxes, shaping.squeeze
    repeat = shaping.repeat

    sort, argsort, searchsorted = ordering.sort, ordering.argsort, ordering.searchsorted
    cumsum, cumprod, choose = ordering.cumsum, ordering.cumprod, ordering.choose

    nonzero, nonzero_values, compress = selection.nonzero, selection.nonzero_values, _compress

    dot, diagonal, trace = linalg.dot, linalg.diagonal, linalg.trace
    take = indexing.take

    def ravel(self) -> Any:
        """All elements as a vector, in row-major order."""
        return shaping.flatten(self)

    @property
    def T(self) -> Any:
        """The axes in reverse order."""
        return shaping.transpose(self)


def rounded(x: Any, mode: str = "half_to_even") -> Any:
    """The nearest whole numbers."""
    if mode == "half_to_even":
        return elementwise("round", x)
    if mode == "half_away_from_zero":
        return elementwise("floor", abs(x) + 0.5) * x.sign()
    raise ValueError(f"round: mode is {mode!r}; it must be 'half_to_even' or "
                     "'half_away_from_zero'")


def as_dtype(spec: Any) -> Any:
    """A user's dtype; 'floatX' names the default float."""
    return dtype(arithmetic.config.floatX if isinstance(spec, str) and spec == "floatX" else spec)


def as_tensor_variable(x: Any, name: str | None = None, ndim: int | None = None,
                       dtype: Any = None) -> Any:
    """``x`` as a variable: itself if it is one, a stack of a list that holds variables, else a
    constant.  A Python float is floatX, arrays and lists are as NumPy has them.

    ndim: new axes of size 1 are put in front up to that number.  Raises TypeError for more axes.
    """
    if isinstance(x, ShapeTuple) and not x:
        return constant(np.zeros(0, np.int64), name, ndim, dtype)
    if isinstance(x, (list, tuple)) and any(_holds_variable(y) for y in x):
        x = shaping.stack([as_tensor_variable(y) if isinstance(y, (list, tuple)) else y for y in x])
    if not isinstance(x, Value):
        return constant(x, name, ndim, dtype)
    if dtype is not None:
        x = arithmetic.cast(x, as_dtype(dtype))
    return _with_rank(x, ndim)


def _holds_variable(x: Any) -> bool:
    return isinstance(x, Value) or isinstance(x, (list, tuple)) and any(map(_holds_variable, x))


def _with_rank(x: Any, ndim: int | None) -> Any:
    if ndim is None or ndim == x.ndim:
        return x
    if ndim < x.ndim:
        raise TypeError(f"{describe(x)} has more than {ndim} axes")
    return shaping.shape_padleft(x, ndim - x.ndim)


def constant(x: Any, name: str | None = None, ndim: int | None = None, dtype: Any = None) -> Any:
    """A constant of an array-like.  Its sizes are known: an axis of size 1 broadcasts.  A Python
    float is floatX unless ``dtype`` says otherwise."""
    if isinstance(x, Value):
        raise TypeError(f"{describe(x)} is a variable already, not a constant")
    if dtype is None and isinstance(x, float) and not isinstance(x, np.generic):
        dtype = "floatX"
    value = arithmetic.constant(x, None if dtype is None else as_dtype(dtype), Tensor)
    value = _with_rank(value, ndim)
    value.name = name
    return value


F = TypeVar("F", bound=Callable[..., Any])


def lifted(f: F) -> F:
    """``f``, a function of a variable, for array-likes too."""

    @functools.wraps(f)
    def function(x: Any, *args: Any, **kwargs: Any) -> Any:
        return f(as_tensor_variable(x), *args, **kwargs)

    function.__name__ = function.__qualname__ = f.__name__.rstrip("_")
    return cast(F, function)
