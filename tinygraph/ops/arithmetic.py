"""Constant, Broadcast, Elemwise, Reduce: the four ops that arithmetic and its gradients need,
and ``Arithmetic``, the variable that has operators.

Broadcasting is explicit in the graph: an Elemwise takes operands of one shape; the operators put
a Broadcast before it where an axis of size 1 (known when the graph is built) has to stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tinygraph.config import config
from tinygraph.dims import Dim, dim, nonnegative, prove_equal
from tinygraph.dtypes import DType, bool_, dtype, int8, int16, int32, int64, promote
from tinygraph.errors import ShapeError
from tinygraph.graph import Guard, Node, Op, Type, Value, apply, describe, kind_name
from tinygraph.ops.scalars import TABLE, ScalarFn, cast_fn

Env = Callable[[Dim], int]


class Arithmetic(Value):
    """A variable with arithmetic operators; operands may be Python or NumPy numbers."""

    def __add__(self, other: Any) -> Any:
        return elementwise("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return elementwise("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return elementwise("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return elementwise("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return elementwise("mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return elementwise("mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return elementwise("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return elementwise("div", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return elementwise("floordiv", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return elementwise("floordiv", other, self)

    def __mod__(self, other: Any) -> Any:
        return elementwise("mod", self, other)

    def __rmod__(self, other: Any) -> Any:
        return elementwise("mod", other, self)

    def __pow__(self, other: Any) -> Any:
        return power(self, other)

    def __rpow__(self, other: Any) -> Any:
        return power(other, self)

    def __neg__(self) -> Any:
        return elementwise("neg", self)

    def __abs__(self) -> Any:
        return elementwise("abs", self)

    def __lt__(self, other: Any) -> Any:
        return elementwise("lt", self, other)

    def __le__(self, other: Any) -> Any:
        return elementwise("le", self, other)

    def __gt__(self, other: Any) -> Any:
        return elementwise("gt", self, other)

    def __ge__(self, other: Any) -> Any:
        return elementwise("ge", self, other)

    def __and__(self, other: Any) -> Any:
        return elementwise("and", self, other)

    def __or__(self, other: Any) -> Any:
        return elementwise("or", self, other)

    def __xor__(self, other: Any) -> Any:
        return elementwise("xor", self, other)

    def __invert__(self) -> Any:
        return elementwise("invert", self)

    def exp(self) -> Any:
        return elementwise("exp", self)

    def log(self) -> Any:
        return elementwise("log", self)

    def sqrt(self) -> Any:
        return elementwise("sqrt", self)

    def sigmoid(self) -> Any:
        return elementwise("sigmoid", self)

    def sin(self) -> Any:
        return elementwise("sin", self)

    def cos(self) -> Any:
        return elementwise("cos", self)

    def sinh(self) -> Any:
        return elementwise("sinh", self)

    def cosh(self) -> Any:
        return elementwise("cosh", self)

    def sign(self) -> Any:
        return elementwise("sign", self)

    def switch(self, then: Any, other: Any) -> Any:
        """``then`` where this condition holds, ``other`` elsewhere."""
        return elementwise("switch", self, then, other)

    def cast(self, target: DType) -> Any:
        """This value as another dtype."""
        return cast(self, target)

    def as_float(self) -> Any:
        """This value, as floatX unless it is a float already."""
        return self if self.type.dtype.is_float else cast(self, dtype(config.floatX))

    def zeros(self) -> Any:
        """Zeros of this shape, float."""
        target = self.type.dtype if self.type.dtype.is_float else dtype(config.floatX)
        return full(0, self.type.dims, target, cls=type(self).result_class())


# --- leaves ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant(Op):
    """An array known when the graph is built."""

    data: bytes = field(repr=False)
    dtype: DType
    shape: tuple[int, ...]

    @property
    def array(self) -> np.ndarray:
        """The array, read-only."""
        return np.frombuffer(self.data, self.dtype.np).reshape(self.shape)

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        return (Type(self.dtype, tuple(dim(n) for n in self.shape)),)

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return (self.array,)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return []

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        raise AssertionError("an op without inputs is never batched")

    def lower(self, context: Any, node: Node) -> None:
        context.constant(node.outputs[0], self.array)

    def __str__(self) -> str:
        return str(self.array.item()) if self.array.size == 1 else f"constant{self.shape}"


def constant(x: Any, type_: DType | None = None, cls: type[Value] = Arithmetic) -> Any:
    """A constant of ``x`` (any array-like).  Raises TypeError for a dtype that does not exist."""
    array = np.asarray(x)
    if array.dtype.kind in "USOV":
        text = repr(x)
        raise TypeError(f"{text if len(text) < 60 else text[:57] + '...'} is no number and no "
                        "array of numbers; a constant can be made of nothing else")
    kind = type_ or dtype(array.dtype)
    array = np.ascontiguousarray(array, kind.np).reshape(array.shape)
    return apply(Constant(array.tobytes(), kind, array.shape), cls=cls)[0]


def constant_value(value: Value) -> np.ndarray | None:
    """The array behind a constant, seen through broadcasts of one element; else None."""
    node = value.node
    while node is not None and isinstance(node.op, Broadcast):
        node = node.inputs[0].node
    if node is None or not isinstance(node.op, Constant):
        return None
    same = node.outputs[0] is value
    return node.op.array if same or node.op.array.size == 1 else None


def scalar_constant(value: Value) -> float | int | bool | None:
    """The one number that fills ``value``, if it is a constant; else None."""
    array = constant_value(value)
    return array.item() if array is not None and array.size == 1 else None


def as_value(x: Any, like: Value | None = None, cls: type[Value] = Arithmetic) -> Any:
    """``x`` as a variable, of the class of ``like`` or of ``cls``.  A Python number is weak: it
    takes the dtype of ``like`` where that can hold it (a float next to an integer is floatX)."""
    if isinstance(x, Value):
        return x
    cls = like.result_class() if like is not None else cls
    if isinstance(x, (bool, np.bool_)):
        return constant(x, bool_, cls)
    if isinstance(x, int) and like is not None:
        kind = like.type.dtype
        if kind.is_float:
            return constant(x, kind, cls)
        return constant(x, next((k for k in (kind, int8, int16, int32) if _holds(k, x)), int64),
                        cls)
    if isinstance(x, float):
        strong = like is not None and like.type.dtype.is_float
        return constant(x, like.type.dtype if strong else dtype(config.floatX), cls)  # type: ignore
    if isinstance(x, (list, tuple)) and any(isinstance(y, Value) for y in x):
        raise TypeError("a list of variables is not a variable; write T.stack([...])")
    return constant(x, cls=cls)


def _holds(kind: DType, x: int) -> bool:
    return kind.is_int and bool(np.iinfo(kind.np).min <= x <= np.iinfo(kind.np).max)


def full(x: float | int | bool, dims: Iterable[Dim | int], type_: DType,
         cls: type[Value] = Arithmetic) -> Any:
    """An array of shape ``dims`` filled with one number."""
    value = constant(x, type_, cls)
    sizes = tuple(dim(d) for d in dims)
    return apply(Broadcast(sizes, ()), value)[0] if sizes else value


# --- broadcast ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broadcast(Op):
    """Axis k of the input becomes axis ``axes[k]`` of the output; other axes are new, and an
    input axis of size 1 stretches to its place in ``dims``."""

    dims: tuple[Dim, ...]
    axes: tuple[int, ...]
    silent: ClassVar[bool] = True

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        (x,) = inputs
        for k, axis in enumerate(self.axes):
            if x.type.dims[k] != 1 and prove_equal(x.type.dims[k], self.dims[axis]) is False:
                raise ShapeError(
                    f"{describe(x)}: axis {k} has size {x.type.dims[k]} and cannot broadcast to "
                    f"{self.dims[axis]}; only a size of 1 can")
        return (x.type.with_dims(self.dims),)

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        (x,) = inputs
        for axis, d in enumerate(self.dims):
            if axis not in self.axes and not nonnegative(d):
                yield Guard(dim(0), "le", d, f"the size of axis {axis} of an array, {d} ("
                            f"{_origins(d)}), is {{right}}; a size must not be negative",
                            ValueError)
        for k, axis in enumerate(self.axes):
            if x.type.dims[k] not in (1, self.dims[axis]):
                needed = _origins(self.dims[axis])
                of = f", the size of {needed}" if needed else ""
                yield Guard(x.type.dims[k], "eq", self.dims[axis],
                            f"axis {k} of {describe(x)} is {{left}}, but {{right}} is needed{of}."
                            " A size of 1 only broadcasts where it is known when the graph is "
                            "built: write T.addbroadcast(x, axis)")

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = arrays
        shape = [1] * len(self.dims)
        order = np.argsort(self.axes)
        for k, axis in enumerate(self.axes):
            shape[axis] = x.shape[k]
        full_shape = tuple(env(d) for d in self.dims)
        return (np.broadcast_to(np.transpose(x, order).reshape(shape), full_shape),)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        (g,), (x,) = cotangents, node.inputs
        summed = tuple(
            axis for axis in range(len(self.dims))
            if axis not in self.axes or self.stretches(x, self.axes.index(axis)))
        out = reduce_("sum", g, summed) if summed else g
        kept = [axis for axis in sorted(self.axes) if axis not in summed]
        back = tuple(self.axes.index(axis) for axis in kept)
        if back != tuple(range(x.ndim)):
            out = broadcast_to(out, x.type.dims, back)
        return [out]

    def stretches(self, x: Value, k: int) -> bool:
        """Does input axis k (of size 1) stretch?"""
        return bool(x.type.dims[k] == 1 and self.dims[self.axes[k]] != 1)

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        axes = (0, *(a + 1 for a in self.axes))
        return apply(Broadcast((n, *self.dims), axes), inputs[0])

    def lower(self, context: Any, node: Node) -> None:
        view = context.view(node.inputs[0])
        context.alias(node.outputs[0], view.broadcast(self.dims, self.axes))


def _origins(d: Dim) -> str:
    """What a size depends on, in the user's words."""
    syms = sorted(d.syms(), key=lambda s: s.key)
    return ", ".join(describe(s.value) if s.value is not None else s.origin or s.name
                     for s in syms)


def broadcast_to(x: Value, dims: Sequence[Dim | int], axes: Sequence[int] | None = None) -> Any:
    """``x`` stretched to ``dims``; its axes are the last ones unless ``axes`` places them."""
    target = tuple(dim(d) for d in dims)
    places = tuple(range(len(target) - x.ndim, len(target))) if axes is None else tuple(axes)
    if target == x.type.dims and places == tuple(range(x.ndim)):
        return x
    return apply(Broadcast(target, places), x)[0]


def lead(x: Value, batched: bool, n: Dim) -> Any:
    """``x`` with a leading axis of size n: as it is if ``batched``, else repeated."""
    return x if batched else broadcast_to(x, (n, *x.type.dims))


# --- elementwise ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Elemwise(Op):
    """A scalar function at every place of operands of one shape and (but for the condition of
    switch) one dtype."""

    fn: ScalarFn

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        first = inputs[0]
        numbers = inputs[1:] if self.fn.name == "switch" else inputs
        alike = all(x.type.dims == first.type.dims for x in inputs)
        for x in () if alike else inputs[1:]:
            if x.ndim != first.ndim or any(
                    prove_equal(a, b) is False
                    for a, b in zip(x.type.dims, first.type.dims, strict=True)):
                raise ShapeError(f"{self.fn}: {describe(first)} has shape {_shape(first)}, "
                                 f"{describe(x)} has {_shape(x)}")
        kind = numbers[0].type.dtype
        for x in numbers:
            if x.type.dtype.kind not in self.fn.accepts or x.type.dtype is not kind:
                raise TypeError(f"{self.fn} does not take {describe(x)}")
        if isinstance(self.fn.result, DType):
            kind = self.fn.result
        elif self.fn.result == "bool":
            kind = bool_
        return (Type(kind, first.type.dims if alike else _join_dims(inputs)),)

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        first = inputs[0]
        for x in inputs[1:]:
            for k, (a, b) in enumerate(zip(first.type.dims, x.type.dims, strict=True)):
                if a == b:
                    continue  # most of them: no text is made
                yield Guard(a, "eq", b, f"{self.fn}: axis {k} of {describe(first)} is {{left}}, "
                            f"but of {describe(x)} it is {{right}}. Sizes must agree; a size of 1 "
                            "only broadcasts where it is known when the graph is built: write "
                            "T.addbroadcast(x, axis)")

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        with np.errstate(all="ignore"):
            out = self.fn.numpy(*arrays)
        if self.fn.result == "same":
            out = np.asarray(out, arrays[-1].dtype)
        return (np.asarray(out),)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        if not node.outputs[0].type.dtype.is_float:  # whole numbers move in steps
            return [cotangents[0].zeros() for _ in node.inputs]
        return list(self.fn.grad(*node.inputs, node.outputs[0], cotangents[0]))

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(self, *(lead(x, b, n) for x, b in zip(inputs, batched, strict=True)))

    def lower(self, context: Any, node: Node) -> None:
        context.elementwise(node.outputs[0], self.fn, node.inputs)

    def __str__(self) -> str:
        return self.fn.name


def _shape(x: Value) -> str:
    return "(" + ", ".join(map(str, x.type.dims)) + ")"


def _join_dims(inputs: Sequence[Value]) -> tuple[Dim, ...]:
    """Per axis the integer size where some operand knows it, else the first one's."""
    out = []
    for sizes in zip(*(x.type.dims for x in inputs), strict=True):
        out.append(next((d for d in sizes if d.const is not None), sizes[0]))
    return tuple(out)


_OF_BOOLS = {"add": "or", "mul": "and"}  # as NumPy has it


def elementwise(name: str | ScalarFn, *operands: Any) -> Any:
    """A scalar function of operands that are promoted to one dtype and broadcast to one shape."""
    fn = TABLE[name] if isinstance(name, str) else name
    like = next((x for x in operands if isinstance(x, Value)), None)
    floats = [x for x in operands if isinstance(x, Value) and x.type.dtype.is_float]
    values = [as_value(x, floats[0] if floats else like) for x in operands]
    if fn.name in _OF_BOOLS and all(v.type.dtype is bool_ for v in values):
        fn = TABLE[_OF_BOOLS[fn.name]]
    return apply(Elemwise(fn), *broadcast_together(_promoted(fn, values)))[0]


def _promoted(fn: ScalarFn, values: list[Any]) -> list[Any]:
    condition: list[Any] = []
    if fn.name == "switch":
        condition, values = values[:1], values[1:]
        if condition[0].type.dtype is not bool_:
            condition = [elementwise("ne", condition[0], 0)]
    kind = promote(*(v.type.dtype for v in values), float_x=config.floatX)
    if kind.kind not in fn.accepts:
        if "f" not in fn.accepts:
            raise TypeError(f"{fn.name} does not take {describe(values[0])}")
        if fn.accepts != "f" and kind is bool_ and fn.name not in ("neg", "sub"):
            kind = dtype("int8")
        elif fn.accepts == "f":
            kind = dtype(config.floatX) if fn.name == "div" else _float_of(kind)
        else:
            raise TypeError(f"{fn.name} does not take {describe(values[0])}; cast it to an "
                            "integer or use ~ for logical not")
    return condition + [cast(v, kind) for v in values]


def _float_of(kind: DType) -> DType:
    """The float dtype in which a function of integers is computed."""
    wide = dtype("float64") if kind.bits > 16 else dtype("float32")
    return dtype("float32") if config.floatX == "float32" else wide


def broadcast_together(values: Sequence[Any]) -> list[Any]:
    """Operands of any ranks stretched to one shape, as NumPy does, but from known 1s only."""
    rank = max(v.ndim for v in values)
    padded = [(dim(1),) * (rank - v.ndim) + v.type.dims for v in values]
    target = []
    for sizes in zip(*padded, strict=True):
        wide = [d for d in sizes if d != 1]
        known = [d for d in wide if d.const is not None]
        target.append((known or wide or [dim(1)])[0])
    out = []
    for v, sizes in zip(values, padded, strict=True):
        fits = all(a != 1 or b == 1 for a, b in zip(sizes, target, strict=True))
        if v.ndim == rank and fits:
            out.append(v)
            continue
        wanted = tuple(b if a == 1 else a for a, b in zip(sizes, target, strict=True))
        out.append(broadcast_to(v, wanted))
    return out


def cast(x: Any, target: DType) -> Any:
    """``x`` as dtype ``target``; the same variable if it has that dtype."""
    if x.type.dtype is target:
        return x
    return apply(Elemwise(cast_fn(target)), x)[0]


def power(x: Any, y: Any) -> Any:
    """x ** y; small integer powers are products, and keep an integer dtype."""
    exponent = scalar_constant(y) if isinstance(y, Value) else y
    if isinstance(exponent, np.ndarray):
        exponent = exponent.item() if exponent.size == 1 else None
    if isinstance(x, Value) and exponent is not None and not isinstance(exponent, np.generic):
        special = _known_power(x, exponent)
        if special is not None:
            return special
    return elementwise("pow", x, y)


def _known_power(x: Any, exponent: float) -> Any:
    if exponent == 0.5 and x.type.dtype.is_float:
        return x.sqrt()
    if exponent in (1, 2, 3, 4):
        square = x * x
        return (x, square, square * x, square * square)[int(exponent) - 1]
    if exponent == -1 and x.type.dtype.is_float:
        return 1 / x
    return None


# --- reduce ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reduce(Op):
    """sum, prod, max, min, and, or over ``axes``, which disappear."""

    kind: str
    axes: tuple[int, ...]

    NUMPY: ClassVar[dict[str, Any]] = {
        "sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum,
        "and": np.logical_and, "or": np.logical_or}

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        (x,) = inputs
        kept = tuple(d for k, d in enumerate(x.type.dims) if k not in self.axes)
        if self.kind in ("max", "min") and any(x.type.dims[k] == 0 for k in self.axes):
            raise ShapeError(f"{self.kind} of an empty axis of {describe(x)} is undefined")
        return (x.type.with_dims(kept),)

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        if self.kind in ("max", "min"):
            for k in self.axes:
                yield Guard(dim(1), "le", inputs[0].type.dims[k], f"{self.kind} over axis {k} of "
                            f"{describe(inputs[0])}, which is empty")

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = arrays
        wide = np.float64 if x.dtype.kind == "f" and self.kind in ("sum", "prod") else x.dtype
        with np.errstate(all="ignore"):
            out = self.NUMPY[self.kind].reduce(x, axis=self.axes, dtype=wide)
        return (np.asarray(out, x.dtype),)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        (g,), (x,) = cotangents, node.inputs
        if not x.type.dtype.is_float:
            return [x.zeros()]  # type: ignore[attr-defined]
        kept = tuple(k for k in range(x.ndim) if k not in self.axes)
        spread = broadcast_to(g, x.type.dims, kept)
        if self.kind == "sum":
            return [spread]
        if self.kind in ("max", "min"):
            out = broadcast_to(node.outputs[0], x.type.dims, kept)
            return [elementwise("eq", x, out).switch(spread, 0)]
        if self.kind == "prod":
            zero = elementwise("eq", x, 0)
            count = reduce_("sum", cast(zero, dtype("int64")), self.axes)
            others = reduce_("prod", zero.switch(1, x), self.axes)
            count = broadcast_to(count, x.type.dims, kept)
            others = broadcast_to(others, x.type.dims, kept)
            alone = elementwise("and", zero, elementwise("eq", count, 1))
            none = elementwise("eq", count, 0)
            return [spread * none.switch(others / zero.switch(1, x), alone.switch(others, 0))]
        return [x.zeros()]  # type: ignore[attr-defined]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(Reduce(self.kind, tuple(a + 1 for a in self.axes)), inputs[0])

    def lower(self, context: Any, node: Node) -> None:
        context.reduce(node.outputs[0], self.kind, node.inputs[0], self.axes)

    def __str__(self) -> str:
        return f"{self.kind}{{{', '.join(map(str, self.axes))}}}"


def reduce_(kind: str, x: Value, axes: Iterable[int]) -> Any:
    """``kind`` of ``x`` over ``axes`` (all non-negative); ``x`` itself for no axes."""
    axes = tuple(sorted(axes))
    return apply(Reduce(kind, axes), x)[0] if axes else x


def check_axis(axis: int, x: Value) -> int:
    """``axis`` counted from the front.  Raises IndexError where ``x`` has no such axis."""
    if not -x.ndim <= axis < x.ndim:
        raise IndexError(f"axis {axis} of {describe(x)}: a {kind_name(x.type)} has {x.ndim} axes")
    return axis % x.ndim
