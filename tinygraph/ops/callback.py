"""Ops of users: Callback runs one that is written in Python; UserView and Custom are identities
with a gradient that a user wrote, and are gone before anything is compiled.

A user's op is an object with ``perform(node, inputs, output_storage)`` and
``grad(inputs, output_gradients)``; gof/op.py has its class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinygraph.dims import Dim, Sym, prove_equal
from tinygraph.dtypes import DType
from tinygraph.errors import ShapeError
from tinygraph.graph import Node, Op, Type, Value, apply, describe
from tinygraph.ops.arithmetic import as_value, broadcast_to, cast, lead
from tinygraph.ops.control import Disconnected, Identity, NotDifferentiable

Env = Callable[[Dim], int]


class OwnSize(Sym):
    """A size of a result of a user's op of which nothing is known before the op has run."""

    __slots__ = ()


class UserOp:
    """A user's op as a field of one of ours.  It equals another where the user's op does, and
    cannot be written down, so that a function with it is not kept on disk."""

    __slots__ = ("op",)

    def __init__(self, op: Any) -> None:
        self.op = op

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UserOp) and (self.op is other.op or bool(self.op == other.op))

    def __hash__(self) -> int:
        try:
            return hash(self.op)
        except TypeError as error:
            raise TypeError(f"{type(self.op).__name__} defines __eq__ but no __hash__; write both, "
                            "or __props__ = ('name of an attribute', ...)") from error

    def __str__(self) -> str:
        return str(self.op)

    __repr__ = __str__


@dataclass(frozen=True)
class Callback(Op):
    """A user's op.

    dtypes, dims  of its results
    node    what ``perform`` is told: an object with ``op``, ``inputs`` and ``outputs``, which
            have types but stand in no graph
    source  file:line of the user's code that applied it
    """

    user: UserOp
    dtypes: tuple[DType, ...]
    dims: tuple[tuple[Dim, ...], ...]
    node: Any = field(compare=False, repr=False)
    source: str = field(compare=False, repr=False)

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        return tuple(Type(kind, dims) for kind, dims in zip(self.dtypes, self.dims, strict=True))

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        shapes = [tuple(_size(env, d) for d in dims) for dims in self.dims]
        return tuple(self._performed(arrays, shapes))

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Write what the user's op makes of ``inputs`` into ``outputs``."""
        results = self._performed(inputs, [out.shape for out in outputs])
        for out, result in zip(outputs, results, strict=True):
            out[...] = result

    def _performed(self, inputs: Sequence[np.ndarray], shapes: Sequence[tuple[int | None, ...]]
                   ) -> list[np.ndarray]:
        storage: list[list[Any]] = [[None] for _ in shapes]
        try:
            # Copies: what a user keeps or writes to is no memory of ours.
            self.user.op.perform(self.node, [np.array(x) for x in inputs], storage)
            return [self._result(k, cell, shape)
                    for k, (cell, shape) in enumerate(zip(storage, shapes, strict=True))]
        except BaseException as error:
            _explain(error, self._where())
            raise

    def _where(self) -> str:
        at = f", applied at {self.source}" if self.source else ""
        return f"in perform of {self}{at}"

    def _result(self, k: int, cell: Sequence[Any], shape: tuple[int | None, ...]) -> np.ndarray:
        value, kind = cell[0], self.dtypes[k].np
        if value is None:
            raise ValueError(f"perform of {self} left output {k} empty; write "
                             f"output_storage[{k}][0] = array")
        plain = isinstance(value, (bool, int, float))
        array = np.asarray(value, kind if plain else None)
        if array.dtype != kind:
            raise TypeError(f"perform of {self} gave {array.dtype} for output {k}, which is {kind} "
                            f"in the graph; write array.astype('{kind}'), or another dtype in "
                            "make_node")
        if array.ndim != len(shape) or any(
                m is not None and m != n for m, n in zip(shape, array.shape, strict=True)):
            raise SizeError(f"perform of {self} gave shape {array.shape} for output {k}, which has "
                            f"{shape} in the graph; infer_shape(self, node, shapes) of the op says "
                            "which shape an output has", self, k, array.shape)
        return array

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        given = [out.zeros() if g is None else g  # type: ignore[attr-defined]
                 for out, g in zip(node.outputs, cotangents, strict=True)]
        found = list(self.user.op.L_op(list(node.inputs), list(node.outputs), given))
        return fitted(str(self), found, node.inputs)

    def lower(self, context: Any, node: Node) -> None:
        context.call(node, str(self), self.run)

    def __str__(self) -> str:
        return str(self.user)


class SizeError(ShapeError):
    """A result of ``op`` has another shape than the graph says."""

    def __init__(self, text: str, op: Callback, output: int, shape: tuple[int, ...]) -> None:
        super().__init__(text)
        self.op, self.output, self.shape = op, output, shape


def _size(env: Env, d: Dim) -> int | None:
    """The number behind a Dim, None for one that only the op knows."""
    try:
        return env(d)
    except KeyError as unknown:
        if isinstance(unknown.args[0], OwnSize):
            return None
        raise


def _explain(error: BaseException, where: str) -> None:
    """Add ``where`` to what is shown of an error."""
    if hasattr(error, "add_note"):
        error.add_note(where)
    elif error.__cause__ is None:  # Python 3.10
        error.__cause__ = RuntimeError(where)


# --- gradients that users wrote --------------------------------------------------------------


def fitted(name: str, found: Sequence[Any], inputs: Sequence[Value]) -> list[Any]:
    """Gradients that a user's function gave for ``inputs``, as the sweep wants them: of the type
    of their input, None for no dependence.  Raises TypeError or ShapeError for what does not fit.
    """
    if len(found) != len(inputs):
        raise TypeError(f"the gradient of {name} must have one entry for each of its "
                        f"{len(inputs)} inputs, not {len(found)}; write None where it does not "
                        "depend on one")
    return [_fitted(name, k, g, x) for k, (g, x) in enumerate(zip(found, inputs, strict=True))]


def _fitted(name: str, k: int, g: Any, x: Value) -> Any:
    if g is None or isinstance(g, Disconnected):
        return None
    if isinstance(g, NotDifferentiable):
        return g
    g = as_value(g, x)
    if not x.type.dtype.is_float:
        return g if g.type.dtype.is_float else None
    where = f"the gradient of {name} by its input {k}, {describe(x)},"
    if g.ndim != x.ndim:
        raise ShapeError(f"{where} must have {x.ndim} axes, as the input, not {g.ndim}")
    if g.type.dtype is not x.type.dtype:
        g = cast(g, x.type.dtype)
    if g.type.dims == x.type.dims:
        return g
    g = _known_size(g, x)
    for axis, (a, b) in enumerate(zip(g.type.dims, x.type.dims, strict=True)):
        if prove_equal(a, b) is False or (a == 1 and b != 1):
            raise ShapeError(f"{where} has size {a} along axis {axis}, the input {b}")
    return broadcast_to(g, x.type.dims)  # with a guard, where sizes are not surely the same


def _known_size(g: Any, x: Value) -> Any:
    """The result of a user's op that says nothing of its size has, as a gradient, that of ``x``."""
    node = g.node
    if node is None or not isinstance(node.op, Callback):
        return g
    dims = tuple(b if isinstance(a.symbol, OwnSize) else a
                 for a, b in zip(g.type.dims, x.type.dims, strict=True))
    if dims == g.type.dims:
        return g
    old = node.op.dims
    op = replace(node.op, dims=(*old[:g.index], dims, *old[g.index + 1:]))
    return apply(op, *node.inputs, source=g.source)[g.index]


@dataclass(frozen=True)
class UserView(Identity):
    """A user's op that gives its input, with its own gradient."""

    user: UserOp = field(compare=False)
    name: str

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        op = self.user.op
        return fitted(self.name, list(op.L_op(list(node.inputs), list(node.outputs),
                                              list(cotangents))), node.inputs)

    def __str__(self) -> str:
        return self.name


class UserGradient:
    """A function (*inputs, output, gradient) -> gradients of the inputs, as a field of an op."""

    __slots__ = ("function", "name")

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name, self.function = name, function

    def __reduce__(self) -> Any:
        if "<" in getattr(self.function, "__qualname__", "<"):
            raise TypeError(f"the gradient of {self.name} is a lambda or a local function, which "
                            "cannot be pickled; define it with def at the top level of a module")
        return UserGradient, (self.name, self.function)


@dataclass(frozen=True)
class Custom(Identity):
    """The first input, which is computed from the others; ``gradient`` gives its gradient by
    them, whatever the computation is."""

    name: str
    gradient: UserGradient = field(compare=False, repr=False)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        inputs = node.inputs[1:]
        found = self.gradient.function(*inputs, node.outputs[0], cotangents[0])
        many = found if isinstance(found, (list, tuple)) else [found]
        return [None, *fitted(self.name, list(many), inputs)]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(self, *(lead(x, b, n) for x, b in zip(inputs, batched, strict=True)))

    def __str__(self) -> str:
        return self.name
