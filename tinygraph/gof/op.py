"""The op that a user writes in Python.

>>> class Cumsum(Op):
...     def infer(self, x):
...         return x.type
...     def perform(self, node, inputs, output_storage):
...         output_storage[0][0] = np.cumsum(inputs[0])
...     def grad(self, inputs, output_gradients):
...         return [Cumsum()(output_gradients[0][::-1])[::-1]]
>>> y = Cumsum()(T.vector("x"))

Instead of ``infer`` an op may have ``make_node(self, *inputs)``, which returns an ``Apply``, and
``infer_shape(self, node, shapes)``, which returns a tuple of sizes per output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygraph.dims import Dim, dim
from tinygraph.dtypes import DType
from tinygraph.graph import Type, Value, apply, describe, kind_name, user_source
from tinygraph.ops.callback import Callback, OwnSize, UserOp, UserView
from tinygraph.ops.sizes import as_dim, size_value
from tinygraph.tensor.test_values import get_test_value
from tinygraph.tensor.variable import Tensor, as_dtype, as_tensor_variable

__all__ = ["Apply", "FromFunction", "Op", "ViewOp", "as_op", "get_test_value"]


class Op:
    """The base of ops in Python.

    A subclass has ``perform``, and ``infer`` or ``make_node``, or ``itypes`` and ``otypes``, lists
    of types such as ``T.dmatrix``; ``grad`` if it is to be
    differentiated; ``infer_shape`` where the sizes of its outputs are not those that ``infer`` or
    ``make_node`` says.  Ops with equal ``__props__`` (names of attributes) are one op, and equal
    applications run once.  Code in C is not run.
    """

    __props__: tuple[str, ...] | None = None
    default_output: int | None = None
    itypes: Sequence[Any] | None = None
    otypes: Sequence[Any] | None = None

    def __init__(self, **kwargs: Any) -> None:
        """``kwargs`` are taken and left aside."""

    def _props(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__props__ or ())

    def __eq__(self, other: object) -> bool:
        if self.__props__ is None or type(self) is not type(other):
            return self is other
        return self._props() == other._props()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        if self.__props__ is None:
            return object.__hash__(self)
        return hash((type(self), self._props()))

    def __str__(self) -> str:
        props = ", ".join(f"{n}={getattr(self, n)!r}" for n in self.__props__ or ())
        return type(self).__name__ + (f"{{{props}}}" if props else "")

    __repr__ = __str__

    # --- what a user writes ---

    def infer(self, *inputs: Any) -> Any:
        """What the outputs are: a type such as ``x.type``, a pair (dtype, shape) whose shape holds
        numbers and sizes such as ``x.shape[0]``, or a list of these."""
        raise NotImplementedError(f"{type(self).__name__} has neither infer nor make_node")

    def perform(self, node: Any, inputs: Sequence[Any], output_storage: Sequence[list[Any]]
                ) -> None:
        """Compute: arrays in, ``output_storage[k][0] = array`` out."""
        raise NotImplementedError(f"{type(self).__name__} has no perform")

    def grad(self, inputs: Sequence[Any], output_gradients: Sequence[Any]) -> Sequence[Any]:
        """Gradients of the inputs from those of the outputs, as expressions; None for no
        dependence, ``gradient.grad_not_implemented(self, k, x)`` for one that is not written."""
        raise NotImplementedError(f"{type(self).__name__} has no grad, so that no gradient passes "
                                  "through it")

    def L_op(self, inputs: Sequence[Any], outputs: Sequence[Any], output_gradients: Sequence[Any]
             ) -> Sequence[Any]:
        """As ``grad``, with the outputs as expressions."""
        return self.grad(inputs, output_gradients)

    # --- what calls it ---

    def make_node(self, *inputs: Any) -> Apply:
        """The application of this op to ``inputs``."""
        variables = [as_tensor_variable(x) for x in inputs]
        if self.itypes is not None and self.otypes is not None:
            self._check_types(variables, self.itypes)
            return Apply(self, variables, [t() for t in self.otypes])
        found = self.infer(*variables)
        many = isinstance(found, list) or (isinstance(found, tuple) and not _is_pair(found))
        return Apply(self, variables, [_output(x) for x in (found if many else [found])])

    def _check_types(self, variables: Sequence[Any], types: Sequence[Any]) -> None:
        if len(variables) != len(types):
            raise TypeError(f"{self} takes {len(types)} inputs, not {len(variables)}")
        for x, t in zip(variables, types, strict=True):
            if x.type != t:
                raise TypeError(f"{self} takes {t!r}, not {describe(x)}")

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        many = kwargs.pop("return_list", False)
        outputs = self.make_node(*inputs, **kwargs).outputs
        if self.default_output is not None:
            outputs = [outputs[self.default_output]]
        return outputs if many or len(outputs) != 1 else outputs[0]


class ViewOp(Op):
    """An op that gives its input, and whose ``grad`` is its own: it costs nothing."""

    __props__: tuple[str, ...] | None = ()

    def make_node(self, *inputs: Any) -> Apply:
        """The application of this op to one variable."""
        (x,) = map(as_tensor_variable, inputs)
        return Apply(self, [x], [x.type()])

    def perform(self, node: Any, inputs: Sequence[Any], output_storage: Sequence[list[Any]]
                ) -> None:
        """The input."""
        output_storage[0][0] = inputs[0]


class FromFunction(Op):
    """A Python function of arrays as an op; made by ``as_op``."""

    __props__ = ("function", "itypes", "otypes")

    def __init__(self, function: Callable[..., Any], itypes: Sequence[Any], otypes: Sequence[Any],
                 infer_shape: Callable[..., Any] | None) -> None:
        self.function, self.itypes, self.otypes = function, tuple(itypes), tuple(otypes)
        self.__name__ = function.__name__
        if infer_shape is not None:
            self.infer_shape = infer_shape

    def __str__(self) -> str:
        return self.function.__name__

    def perform(self, node: Any, inputs: Sequence[Any], output_storage: Sequence[list[Any]]
                ) -> None:
        """What the function returns: one array, or one per output."""
        found = self.function(*inputs)
        many = found if isinstance(found, (list, tuple)) else [found]
        for cell, array in zip(output_storage, many, strict=True):
            cell[0] = array


def as_op(itypes: Any, otypes: Any, infer_shape: Callable[..., Any] | None = None
          ) -> Callable[[Callable[..., Any]], FromFunction]:
    """Make an op without gradient of a function of arrays, as a decorator.

    itypes, otypes: the types of what it takes and returns, such as ``[T.dmatrix, T.dvector]``.
    infer_shape: a function (node, shapes of the inputs) -> a tuple of sizes per output.
    """
    def make(function: Callable[..., Any]) -> FromFunction:
        takes, gives = (x if isinstance(x, (list, tuple)) else [x] for x in (itypes, otypes))
        return FromFunction(function, takes, gives, infer_shape)

    return make


class Apply:
    """An application of ``op``.  ``outputs`` are given as variables that say what types they
    have, such as ``x.type()``; afterwards they are the results in the graph."""

    def __init__(self, op: Op, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        self.op = op
        self.inputs = [as_tensor_variable(x) for x in inputs]
        self.outputs = list(outputs)
        for v in self.outputs:
            if not isinstance(v, Value) or v.node is not None:
                raise TypeError(f"Apply of {op}: its outputs must be new variables such as "
                                f"x.type(), not {describe(v) if isinstance(v, Value) else v!r}")
        self.outputs = list(self._applied(user_source()))

    def _applied(self, source: str) -> Sequence[Any]:
        if isinstance(self.op, ViewOp) and type(self.op).perform is ViewOp.perform:
            return apply(UserView(UserOp(self.op), str(self.op)), *self.inputs, source=source)
        dims = self._sizes()
        record = object.__new__(Apply)
        record.op = self.op
        record.inputs, record.outputs = (
            [Tensor(v.type, name=v.name) for v in side] for side in (self.inputs, self.outputs))
        kinds = tuple(v.type.dtype for v in self.outputs)
        op = Callback(UserOp(self.op), kinds, dims, record, source)
        results = apply(op, *self.inputs, cls=None if self.inputs else Tensor, source=source)
        for result, given in zip(results, self.outputs, strict=True):
            result.name = given.name
        return results

    def _sizes(self) -> tuple[tuple[Dim, ...], ...]:
        """The sizes of the outputs."""
        infer_shape = getattr(self.op, "infer_shape", None)
        if infer_shape is None:
            return tuple(self._declared(k, v.type) for k, v in enumerate(self.outputs))
        shapes = [tuple(size_value(d, Tensor) for d in v.type.dims) for v in self.inputs]
        found = infer_shape(self, shapes)
        if len(found) != len(self.outputs) or any(
                len(shape) != v.ndim for shape, v in zip(found, self.outputs, strict=True)):
            expected = ", ".join(kind_name(v.type) for v in self.outputs)
            raise TypeError(f"infer_shape of {self.op} must return a tuple of sizes for each of "
                            f"its outputs ({expected}), not {found!r}")
        return tuple(tuple(dim(1) if given == 1 else as_dim(n)
                           for n, given in zip(shape, v.type.dims, strict=True))
                     for shape, v in zip(found, self.outputs, strict=True))

    def _declared(self, k: int, type_: Type) -> tuple[Dim, ...]:
        """The sizes that a variable of ``make_node`` has; those of none of the inputs are new."""
        known = {s for v in self.inputs for d in v.type.dims for s in d.syms()}
        return tuple(
            d if all(s in known or s.value is not None for s in d.syms()) else
            dim(OwnSize(f"size_{axis}", f"axis {axis} of output {k} of {self.op}, which "
                        f"infer_shape(self, node, shapes) of {type(self.op).__name__} must tell"))
            for axis, d in enumerate(type_.dims))


def _is_pair(x: Any) -> bool:
    """Is ``x`` (dtype, shape)?"""
    return len(x) == 2 and isinstance(x[0], (str, DType, type)) and isinstance(x[1], (tuple, list))


def _output(x: Any) -> Any:
    """A variable of the type that ``infer`` names."""
    if isinstance(x, Value):
        return Tensor(x.type)
    if isinstance(x, Type):
        return Tensor(x)
    if isinstance(x, tuple) and _is_pair(x):
        return Tensor(Type(as_dtype(x[0]), tuple(as_dim(n) for n in x[1])))
    raise TypeError(f"infer must give types, such as x.type or ('float32', (x.shape[0], 3)), "
                    f"not {x!r}")
