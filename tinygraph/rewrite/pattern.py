"""What rules look for and what they build: a few words over nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tinygraph.graph import Node, Op, Value
from tinygraph.ops.arithmetic import (
    Broadcast,
    Constant,
    Elemwise,
    broadcast_to,
    elementwise,
    full,
    scalar_constant,
)

AnyOp = TypeVar("AnyOp", bound=Op)


def made_by(value: Value, kind: type[AnyOp]) -> AnyOp | None:
    """The op that made ``value``, if it is of class ``kind``."""
    node = value.node
    return node.op if node is not None and isinstance(node.op, kind) else None


def operands(value: Value) -> tuple[Any, ...]:
    """The operands of the op that made ``value``; none for a leaf."""
    return value.node.inputs if value.node is not None else ()


def operand(value: Value, name: str) -> Any:
    """x where ``value`` is the unary scalar function ``name`` of x, else None."""
    node = value.node
    if node is not None and isinstance(node.op, Elemwise) and node.op.fn.name == name:
        return node.inputs[0]
    return None


def pair(value: Value, name: str) -> tuple[Any, Any] | None:
    """(x, y) where ``value`` is the binary scalar function ``name`` of x and y, else None."""
    node = value.node
    if node is not None and isinstance(node.op, Elemwise) and node.op.fn.name == name:
        x, y = node.inputs
        return x, y
    return None


def is_number(value: Value, number: float) -> bool:
    """Is ``value`` a constant, all of whose elements are ``number``?"""
    node = value.node
    if node is None or not isinstance(node.op, (Constant, Broadcast)):
        return False  # asked of every operand there is: most are neither
    found = scalar_constant(value)
    return found is not None and found == number


def beside(value: Value, name: str, number: float) -> Any:
    """x where ``value`` is name(x, number) or name(number, x), a commutative function."""
    both = pair(value, name)
    if both is None:
        return None
    if is_number(both[1], number):
        return both[0]
    return both[1] if is_number(both[0], number) else None


def fitting(x: Any, value: Value) -> Any:
    """``x`` if it may stand where ``value`` stands (one type), else None."""
    return x if x is not None and x.type == value.type else None


def filled(number: float | int | bool, like: Value) -> Any:
    """``like``'s dtype and sizes, every element ``number``."""
    return full(number, like.type.dims, like.type.dtype)


def is_zero(value: Value) -> bool:
    """Is every element of ``value`` known to be 0?"""
    return is_number(value, 0)


def under_broadcast(x: Value, function: Callable[[Any], Any]) -> Any:
    """function(x), computed before the Broadcast that made ``x`` where there is one."""
    op = made_by(x, Broadcast)
    if op is None:
        return function(x)
    return broadcast_to(function(operands(x)[0]), op.dims, op.axes)


def call(node: Node, inputs: Sequence[Value]) -> Any:
    """The elementwise function of ``node`` on other operands."""
    assert isinstance(node.op, Elemwise)
    return elementwise(node.op.fn, *inputs)
