"""Elementwise functions of users, written as expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygraph.config import config
from tinygraph.dtypes import promote
from tinygraph.graph import Type, Value, apply, describe, kind_name, toposort
from tinygraph.ops.arithmetic import (
    Broadcast,
    Constant,
    Elemwise,
    as_value,
    broadcast_to,
    broadcast_together,
    cast,
)
from tinygraph.ops.callback import Custom, UserGradient
from tinygraph.ops.control import Identity
from tinygraph.tensor.variable import Tensor


class ElementwiseOp:
    """A user's elementwise function; made by ``elementwise_op``, called on variables."""

    def __init__(self, name: str, function: Callable[..., Any],
                 grad: Callable[..., Any] | None = None) -> None:
        self.name, self.function, self.grad = name, function, grad
        self.__name__ = name

    def __call__(self, *operands: Any) -> Any:
        like = next((x for x in operands if isinstance(x, Value)), None)
        values = [as_value(x, like, Tensor) for x in operands]
        kind = promote(*(v.type.dtype for v in values), float_x=config.floatX)
        values = broadcast_together([cast(v, kind) for v in values])
        self._check([Tensor(Type(kind), name=v.name) for v in values])
        out = as_value(self.function(*values), values[0])
        out = broadcast_to(out, values[0].type.dims)
        if self.grad is None:
            return out
        return apply(Custom(self.name, UserGradient(self.name, self.grad)), out, *values)[0]

    def _check(self, scalars: list[Tensor]) -> None:
        """Raise TypeError unless the function of scalars is made of elementwise functions."""
        out = as_value(self.function(*scalars), scalars[0])
        if out.ndim:
            raise TypeError(f"{self.name} must be elementwise, but of scalars it is a "
                            f"{kind_name(out.type)}, {describe(out)}")
        for node in toposort([out]):
            if not isinstance(node.op, (Elemwise, Constant, Broadcast, Identity)):
                raise TypeError(f"{self.name} must be made of elementwise functions; {node.op} is "
                                "none")

    def __repr__(self) -> str:
        return f"<elementwise op {self.name}>"


def elementwise_op(name: str, function: Callable[..., Any],
                   grad: Callable[..., Any] | None = None) -> ElementwiseOp:
    """An elementwise function of your own, compiled as if it were one of ours.

    >>> cube = elementwise_op("cube", lambda x: x * x * x, grad=lambda x, out, g: g * 3 * x * x)

    function  (*operands) -> the result, written with operators and elementwise functions of T.
              Operands come with one dtype and one shape, broadcast as in arithmetic
    grad      (*operands, result, gradient of the result) -> the gradient of the operand, or a
              list with one for each (None: no dependence); it is an expression too, so that there
              are gradients of any order.  Without it the function itself is differentiated

    It needs no pass, no native code and no place in a table, and fuses with what is around it.  A
    graph or a function that holds it can be pickled if ``grad`` is no lambda.
    Calling it raises TypeError where ``function`` is not elementwise.
    """
    return ElementwiseOp(name, function, grad)
