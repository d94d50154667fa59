"""Types, values, nodes and graphs: the data that everything else passes on.

A ``Value`` is a symbolic variable: a leaf, or one result of a ``Node``, which is one application
of an ``Op``.  Nodes are immutable.  What a user builds keeps its identity; an ``Interner`` makes
equal nodes one object, so that inside a compilation *equal* is *is*.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from tinygraph.dims import Dim, Sym, dim
from tinygraph.dtypes import DType
from tinygraph.errors import ShapeError

_HERE = str(Path(__file__).parent)
_OURS = (_HERE + "/", _HERE + "_rnn/", _HERE + "\\", _HERE + "_rnn\\")


_LINE: ContextVar[str] = ContextVar("tinygraph.line", default="")
T_ = TypeVar("T_")
NOWHERE = "?"  # as the source of what belongs to no line of a user's


def with_source(source: str, f: Callable[..., T_], *args: Any) -> T_:
    """f(*args), where what f builds by itself counts as built on the line ``source``: what a
    gradient consists of belongs to the lines of what it is the gradient of."""
    token = _LINE.set(source)
    try:
        return f(*args)
    finally:
        _LINE.reset(token)


def user_source() -> str:
    """file:line of the innermost frame outside tinygraph, or ''."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if _is_users(code.co_filename):
            return f"{code.co_filename}:{frame.f_lineno}"
        if code is with_source.__code__:
            line = _LINE.get()
            if line:
                return "" if line == NOWHERE else line
        frame = frame.f_back  # type: ignore[assignment]
    return ""


@functools.cache
def _is_users(filename: str) -> bool:
    return not filename.startswith(_OURS) and not filename.startswith("<")


@dataclass(frozen=True)
class Type:
    """An element type and a size per axis."""

    dtype: DType
    dims: tuple[Dim, ...] = ()

    def __eq__(self, other: object) -> bool:
        # Written out, so that the type of a user's variable, a subclass, equals it.
        if not isinstance(other, Type):
            return NotImplemented
        return self is other or (self.dtype is other.dtype and self.dims == other.dims)

    def __hash__(self) -> int:
        return hash((self.dtype, self.dims))

    @property
    def ndim(self) -> int:
        return len(self.dims)

    @property
    def broadcastable(self) -> tuple[bool, ...]:
        """Per axis: is its size 1, known when the graph is built?  Such an axis broadcasts."""
        return tuple(d == 1 for d in self.dims)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.dims))}]"

    def with_dims(self, dims: Iterable[Dim | int]) -> Type:
        """The same element type with other sizes."""
        return Type(self.dtype, tuple(dim(d) for d in dims))


def kind_name(type_: Type) -> str:
    """A type in a user's words: 'float32 matrix'."""
    names = ("scalar", "vector", "matrix", "3-d tensor", "4-d tensor", "5-d tensor")
    rank = names[type_.ndim] if type_.ndim < len(names) else f"{type_.ndim}-d tensor"
    return f"{type_.dtype} {rank}"


class Value:
    """A symbolic variable.

    ``type``    its dtype and sizes;  ``name`` the user's name or None
    ``source``  file:line of the user's code that made it
    ``node``    the application that computes it (None for a leaf), and which result it is
    Equality and hash are identity.
    """

    def __init__(self, type: Type, node: Node | None = None, index: int = 0,
                 name: str | None = None, source: str = "") -> None:
        self.type, self.node, self.index = type, node, index
        self.name, self.source = name, source

    @property
    def ndim(self) -> int:
        return len(self.type.dims)

    @property
    def dtype(self) -> str:
        return self.type.dtype.name

    @classmethod
    def built(cls, node: Node) -> None:
        """Called for every node that is built with results of this class, by a user or for a
        gradient (not for copies of nodes)."""

    @classmethod
    def result_class(cls) -> type[Value]:
        """The class of results computed from values of this class."""
        return cls

    def __repr__(self) -> str:
        return self.name or f"<{self.type}>"

    def __reduce__(self) -> Any:
        # Values are pickled as parts of graphs: rebuild without running __init__ of a subclass.
        return _restore, (type(self),), self.__dict__


def _restore(cls: type) -> Any:
    return object.__new__(cls)


def describe(value: Value) -> str:
    """A variable in a message: its name (or its op and what that reads), kind and line."""
    if value.node is not None and not value.name and value.node.op.silent:
        inner = value.node.inputs[0]
        if inner.name or inner.node is None or inner.node.inputs:
            return describe(inner)
        where = f", {value.source}" if value.source else ""
        return f"{inner.node.op} ({kind_name(value.type)}{where})"
    what = value.name or "unnamed variable"
    if value.node is not None and not value.name:
        read = ", ".join(dict.fromkeys(v.name for v in value.node.inputs if v.name))
        what = f"result of {value.node.op}" + (f" of {read}" if read else "")
    where = f", {value.source}" if value.source else ""
    return f"{what} ({kind_name(value.type)}{where})"


@dataclass(frozen=True)
class Guard:
    """A relation between sizes ('eq' or 'le') that only a run can confirm.

    ``error`` is raised with ``text``, in which {left} and {right} stand for the two numbers.
    """

    left: Dim
    relation: str
    right: Dim
    text: str
    error: type[Exception] = ShapeError

    def substitute(self, f: Callable[[Sym], Dim]) -> Guard:
        return dataclasses.replace(
            self, left=self.left.substitute(f), right=self.right.substitute(f))

    def holds(self) -> bool | None:
        """True or False where that is known, else None."""
        left, right = self.left.const, self.right.const
        if self.left == self.right:
            return True
        if left is None or right is None:
            return None
        return left == right if self.relation == "eq" else left <= right

    def check(self, env: Mapping[Sym, int]) -> None:
        """Raise ``error`` unless the relation holds for these sizes."""
        left, right = self.left.evaluate(env), self.right.evaluate(env)
        if not (left == right if self.relation == "eq" else left <= right):
            text = self.text.replace("{left}", str(left)).replace("{right}", str(right))
            raise self.error(text)


class Op:
    """What a node applies.  Subclasses are frozen dataclasses; their fields are their parameters.

    infer     the types of the results;  raises ShapeError or TypeError in the user's words
    requires  the relations between sizes that ``infer`` could neither prove nor refute
    numpy     the meaning: arrays in, a tuple of arrays out; ``env(d)`` evaluates a Dim
    vjp       the gradient: cotangents of the results in (None where there is none),
              cotangents of the inputs out (None: no dependence)
    batch     the results of the same op where every input whose flag is set has one more,
              leading axis of size n; every result has it; None where there is no such form
    lower     emit loops, through the context that lowering passes in
    late      sizes that only the run of the op finds out
    silent    operators insert it by themselves: messages name its operand instead
    effect    it does something else than to give results: it runs in every step of its loop
    """

    silent: ClassVar[bool] = False
    effect: ClassVar[bool] = False

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        raise NotImplementedError(f"{type(self).__name__}.infer")

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        return ()

    def numpy(self, env: Callable[[Dim], int], *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        raise NotImplementedError(f"{type(self).__name__}.numpy")

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        raise NotImplementedError(f"{type(self).__name__}.vjp")

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim
              ) -> tuple[Any, ...] | None:
        return None

    def lower(self, context: Any, node: Node) -> None:
        raise NotImplementedError(f"{type(self).__name__}.lower")

    def late(self) -> tuple[tuple[Sym, int], ...]:
        """The late symbols (sizes that only the run finds out) that this op determines, each with
        the number of the result, an int64 scalar, that holds it."""
        return ()

    def __str__(self) -> str:
        fields = [
            f"{f.name}={getattr(self, f.name)}" for f in dataclasses.fields(self)  # type: ignore
            if f.repr]
        return type(self).__name__.lower() + (f"{{{', '.join(fields)}}}" if fields else "")


class Node:
    """One application of an op.  ``outputs`` are its results."""

    __slots__ = ("op", "inputs", "outputs")

    def __init__(self, op: Op, inputs: tuple[Value, ...], types: tuple[Type, ...],
                 cls: type[Value], source: str) -> None:
        self.op, self.inputs = op, inputs
        self.outputs = tuple([cls(t, self, i, None, source) for i, t in enumerate(types)])

    @classmethod
    def like(cls, node: Node, op: Op, inputs: tuple[Value, ...], of: type[Value]) -> Node:
        """``op`` on ``inputs``, whose results have the types, names and lines of ``node``'s."""
        self = cls.__new__(cls)
        self.op, self.inputs = op, inputs
        self.outputs = tuple([of(v.type, self, v.index, v.name, v.source) for v in node.outputs])
        return self

    def __repr__(self) -> str:
        return f"{self.op}({', '.join(map(repr, self.inputs))})"

    def __getstate__(self) -> tuple[Any, ...]:
        return self.op, self.inputs, self.outputs

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.op, self.inputs, self.outputs = state


def apply(op: Op, *inputs: Value, cls: type[Value] | None = None, source: str | None = None
          ) -> tuple[Any, ...]:
    """The results of ``op`` on ``inputs``; they are of the class of the operands (so that a
    user's variables make user's variables), or ``cls`` for an op without operands."""
    types = op.infer(*inputs)
    if cls is None:
        cls = _common_class(inputs)
    if source is not None:
        return Node(op, inputs, types, cls, source).outputs
    node = Node(op, inputs, types, cls, user_source())
    cls.built(node)
    return node.outputs


def _common_class(inputs: Sequence[Value]) -> type[Value]:
    best: type[Value] = Value
    for value in inputs:
        candidate = value.result_class()
        if issubclass(candidate, best):
            best = candidate
    return best


def toposort(outputs: Iterable[Value], stop: Container[Value] = ()) -> list[Node]:
    """Every node that ``outputs`` need, operands first, in a stable order; values in ``stop``
    count as leaves."""
    order: list[Node] = []
    done: set[Node] = set()
    # Without a set to look into (most calls), the innermost line of all asks less.
    inside = stop if stop else None
    stack = [v.node for v in outputs
             if v.node is not None and (inside is None or v not in inside)]
    stack.reverse()
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
            continue
        height = len(stack)
        for v in reversed(node.inputs):
            below = v.node
            if below is not None and below not in done and (inside is None or v not in inside):
                stack.append(below)
        if len(stack) == height:
            done.add(node)
            order.append(node)
            stack.pop()
    return order


def leaves(outputs: Iterable[Value]) -> list[Value]:
    """The leaf variables that ``outputs`` need, in the order of first use."""
    outputs = list(outputs)
    found: dict[Value, None] = {}
    for node in toposort(outputs):
        for v in node.inputs:
            if v.node is None:
                found[v] = None
    for v in outputs:
        if v.node is None:
            found[v] = None
    return list(found)


@dataclass(frozen=True, eq=False)
class Graph:
    """Closed: every leaf of ``outputs`` is one of ``inputs``.  Compared by identity."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    def __post_init__(self) -> None:
        used = {v for n in self._nodes for v in n.inputs if v.node is None}
        used.update(v for v in self.outputs if v.node is None)
        loose = used.difference(self.inputs)
        if loose:
            raise ValueError(f"graph is not closed: {', '.join(map(describe, loose))}")

    @classmethod
    def closed(cls, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Graph:
        """A graph that is closed by the way it was made, such as from a closed one: nothing is
        walked through before somebody asks."""
        self = object.__new__(cls)
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "outputs", outputs)
        return self

    def nodes(self) -> tuple[Node, ...]:
        """Its nodes, operands first."""
        return self._nodes

    @functools.cached_property
    def size(self) -> int:
        """How many nodes there are, bodies included."""
        return len(self._nodes) + sum(g.size for n in self.loops for g in subgraphs(n.op))

    @functools.cached_property
    def loops(self) -> tuple[Node, ...]:
        """Its nodes that have a body."""
        return tuple([n for n in self._nodes if has_body(n.op)])

    @functools.cached_property
    def _nodes(self) -> tuple[Node, ...]:
        return tuple(toposort(self.outputs))

    def __repr__(self) -> str:
        return f"<graph of {len(self.nodes())} nodes>"


def users(graph: Graph) -> dict[Value, list[Node]]:
    """Every value of ``graph`` with the nodes that read it."""
    out: dict[Value, list[Node]] = {v: [] for v in graph.inputs}
    for node in graph.nodes():
        for v in node.inputs:
            out.setdefault(v, []).append(node)
        for v in node.outputs:
            out.setdefault(v, [])
    return out


def map_field(x: Any, on_dim: Callable[[Dim], Dim], on_graph: Callable[[Graph], Graph]) -> Any:
    """A field of an op, with every Dim and every Graph in it replaced.  A record that holds Dims
    says so by ``holds_sizes``."""
    if isinstance(x, Dim):
        return on_dim(x)
    if isinstance(x, Graph):
        return on_graph(x)
    if getattr(x, "holds_sizes", False):
        return map_op(x, on_dim, on_graph)
    if type(x) is tuple:
        mapped = tuple(map_field(y, on_dim, on_graph) for y in x)
        return x if all(a is b for a, b in zip(x, mapped, strict=True)) else mapped
    return x


def map_op(op: Any, on_dim: Callable[[Dim], Dim], on_graph: Callable[[Graph], Graph]) -> Any:
    """``op`` (or a record among its fields) with every Dim and Graph in it replaced; ``op``
    itself if none changed."""
    changes = {}
    for name in _sized_fields(type(op)):  # type: ignore[arg-type]
        old = getattr(op, name)
        new = map_field(old, on_dim, on_graph)
        if new is not old:
            changes[name] = new
    return dataclasses.replace(op, **changes) if changes else op


@functools.cache
def _sized_fields(cls: type) -> tuple[str, ...]:
    """The fields of a record that may hold a Dim or a Graph, by their annotations."""
    return tuple(f.name for f in dataclasses.fields(cls)
                 if any(word in str(f.type) for word in ("Dim", "Graph", "Region", "Sliding")))


@functools.cache
def _graph_fields(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls) if "Graph" in str(f.type))


def map_graphs(op: Any, on_graph: Callable[[Graph], Graph]) -> Any:
    """``op`` with every body among its fields replaced; ``op`` itself if none changed."""
    names = _graph_fields(type(op))  # type: ignore[arg-type]
    changes = {}
    for name in names:
        old = getattr(op, name)
        new = on_graph(old)
        if new is not old:
            changes[name] = new
    return dataclasses.replace(op, **changes) if changes else op


def op_dims(op: Op) -> Iterator[Dim]:
    """Every Dim among the fields of ``op``."""
    if not _sized_fields(type(op)):  # type: ignore[arg-type]
        return iter(())
    found: list[Dim] = []

    def note(d: Dim) -> Dim:
        found.append(d)
        return d

    map_op(op, note, lambda g: g)
    return iter(found)


def has_body(op: Op) -> bool:
    """Is there a Graph among the fields of ``op``?"""
    return bool(_graph_fields(type(op)))  # type: ignore[arg-type]


def subgraphs(op: Op) -> list[Graph]:
    """Every Graph among the fields of ``op`` (the body of a scan)."""
    return [getattr(op, name) for name in _graph_fields(type(op))]  # type: ignore[arg-type]


def replace(outputs: Sequence[Value], mapping: Mapping[Value, Value],
            make: Callable[..., tuple[Any, ...]] = apply) -> list[Any]:
    """``outputs`` rebuilt with the keys of ``mapping`` replaced.  Untouched parts are shared."""
    memo: dict[Value, Value] = dict(mapping)
    for node in toposort(outputs, stop=mapping):
        inputs = [memo.get(v, v) for v in node.inputs]
        if any(a is not b for a, b in zip(inputs, node.inputs, strict=True)):
            fresh = make(node.op, *inputs, source=node.outputs[0].source)
            for old, new in zip(node.outputs, fresh, strict=True):
                new.name = new.name or old.name
                memo.setdefault(old, new)
    return [memo.get(v, v) for v in outputs]
