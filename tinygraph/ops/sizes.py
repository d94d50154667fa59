"""Sizes as values: the number behind a Dim, and a range over one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.dims import Atom, Dim, Sym, dim, floordiv, is_late
from tinygraph.dtypes import DType, int64
from tinygraph.graph import Node, Op, Type, Value, apply, describe
from tinygraph.ops.arithmetic import Arithmetic, Elemwise, elementwise, full, scalar_constant
from tinygraph.ops.scalars import cast_fn

Env = Callable[[Dim], int]


@dataclass(frozen=True)
class DimValue(Op):
    """The number behind a Dim, an int64 scalar.  It has no operands, hence no gradient."""

    dim: Dim

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        return (Type(int64),)

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.asarray(env(self.dim), np.int64),)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return []

    def lower(self, context: Any, node: Node) -> None:
        context.size(node.outputs[0], self.dim)


@dataclass(frozen=True)
class Iota(Op):
    """0, 1, ... length-1 as a vector."""

    length: Dim
    dtype: DType = int64

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        return (Type(self.dtype, (self.length,)),)

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.arange(env(self.length), dtype=self.dtype.np),)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return []

    def lower(self, context: Any, node: Node) -> None:
        context.iota(node.outputs[0])


def size_value(d: Dim, cls: type[Value] = Arithmetic) -> Any:
    """A Dim as an int64 scalar variable.  Among users' variables (``cls``) a late size is computed
    from the one that it is the value of, so that whatever needs the number needs what finds it
    out; a graph that is closed keeps that anyway."""
    users = cls is not Arithmetic
    if users and is_late(d) and all(s.value is not None for s in d.syms() if s.bound is not None):
        return _late_value(d, cls)
    return apply(DimValue(d), cls=cls)[0]


def _late_value(d: Dim, cls: type[Value]) -> Any:
    total: Any = None
    for monomial, c in d.terms:
        term: Any = full(c, (), int64, cls=cls)
        for atom in monomial:
            term = term * _atom_value(atom, cls)
        total = term if total is None else total + term
    return full(0, (), int64, cls=cls) if total is None else total


def _atom_value(atom: Atom, cls: type[Value]) -> Any:
    if isinstance(atom, Sym):
        return atom.value if atom.bound is not None else size_value(dim(atom), cls)
    left, right = size_value(atom.left, cls), size_value(atom.right, cls)
    name = {"floordiv": "floordiv", "min": "minimum", "max": "maximum"}[atom.op]
    return elementwise(name, left, right)


def iota(length: Dim, type_: DType = int64, cls: type[Value] = Arithmetic) -> Any:
    """0, 1, ... length-1 as a vector of dtype ``type_``."""
    return apply(Iota(length, type_), cls=cls)[0]


def as_dim(x: Any) -> Dim:
    """A size that a user gave: an int, a NumPy integer, a Dim, or an integer scalar variable.

    Sums, differences, products and floor divisions of sizes stay polynomials; any other scalar
    becomes a symbol that stands for its value.  Raises TypeError for anything else.
    """
    if isinstance(x, (Dim, Sym)):
        return dim(x)
    if not isinstance(x, Value):
        if isinstance(x, (bool, float)) or np.ndim(x) != 0:
            raise TypeError(f"a size must be an integer, not {x!r}")
        return dim(int(x))
    if x.ndim != 0 or not x.type.dtype.is_int:
        raise TypeError(f"a size must be an integer scalar, not {describe(x)}; write "
                        "T.cast(x, 'int64'), or declare it with T.lscalar")
    known = _polynomial(x)
    if known is not None:
        return known
    return dim(size_symbol(x))


def size_symbol(x: Value) -> Sym:
    """The symbol that stands for the value of the integer scalar ``x``: one per variable."""
    found = getattr(x, "size_symbol", None)
    if found is None:
        name = x.name or f"size{id(x) % 10000}"
        found = Sym(name, f"the value of {name}", value=x)
        x.size_symbol = found  # type: ignore[attr-defined]
    return found


def _polynomial(x: Value) -> Dim | None:
    number = scalar_constant(x)
    if number is not None:
        return dim(int(number))
    node = x.node
    if node is None:
        return None
    for s, k in node.op.late():
        if k == x.index:
            return dim(s)
    if isinstance(node.op, DimValue):
        return node.op.dim
    if isinstance(node.op, Elemwise):
        name = node.op.fn.name
        parts = [_polynomial(v) for v in node.inputs]
        if any(p is None for p in parts):
            return None
        if node.op.fn is cast_fn(x.type.dtype) and x.type.dtype.is_int:
            return parts[0]
        if name in ("add", "sub", "mul", "floordiv"):
            a, b = parts
            assert a is not None and b is not None
            return {"add": lambda: a + b, "sub": lambda: a - b, "mul": lambda: a * b,
                    "floordiv": lambda: floordiv(a, b)}[name]()
    return None


