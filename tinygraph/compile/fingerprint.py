"""What a graph says, as a key: equal keys, equal compiled code."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinygraph.dims import Dim, Sym
from tinygraph.dtypes import DType
from tinygraph.graph import Graph, Node, Value, describe
from tinygraph.ops.arithmetic import Elemwise
from tinygraph.ops.index import Put, Take
from tinygraph.ops.scalars import TABLE, ScalarFn, cast_fn


class Unkeyed(Exception):
    """Something in the graph has no text (a user's Python function): it is not cached."""


def fingerprint(graph: Graph, *, messages: bool = False) -> tuple[str, list[Sym]]:
    """A key of the graph's content, and its symbols in the order in which the key numbers them.

    messages: the key also says how variables are called and where they were made: equal keys,
    equal messages.
    Raises Unkeyed where an op holds something that cannot be written down.
    """
    writer = _Writer(messages)
    return writer.graph(graph), list(writer.syms)


class _Writer:
    def __init__(self, messages: bool) -> None:
        self.messages = messages
        self.syms: dict[Sym, int] = {}
        self.graphs: dict[Graph, str] = {}
        self.dims: dict[Dim, str] = {}

    def graph(self, graph: Graph) -> str:
        found = self.graphs.get(graph)
        if found is not None:
            return found
        lines = [self.leaf(v) for v in graph.inputs]
        numbers: dict[Value, str] = {v: f"i{k}" for k, v in enumerate(graph.inputs)}
        for k, node in enumerate(graph.nodes()):
            for v in node.outputs:
                numbers[v] = f"n{k}.{v.index}"
            lines.append(f"{self.op(node.op)}({','.join([numbers[v] for v in node.inputs])})")
            self.results(node, lines)
        lines.append("->" + ",".join([numbers[v] for v in graph.outputs]))
        self.graphs[graph] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        return self.graphs[graph]

    def leaf(self, v: Value) -> str:
        text = self.field((v.type.dtype, v.type.dims))
        return f"{text} {v.name!r} {v.source}" if self.messages else text

    def results(self, node: Node, lines: list[str]) -> None:
        """What a node says beside its op: the sizes that only its results have, and how its
        failures call what they mean."""
        for v in node.outputs:
            for d in v.type.dims:
                if d.const is None and d not in self.dims:
                    lines.append(self.dim(d))
            if self.messages:
                lines.append(f"{v.name!r} {v.source}")
        if isinstance(node.op, (Take, Put)):
            lines += map(describe, node.inputs)

    def op(self, op: Any) -> str:
        return self.field(op.fn) if type(op) is Elemwise else self.record(op)

    def record(self, x: Any) -> str:
        kind = type(x)
        fields = ",".join([self.field(getattr(x, name))
                           for name in _fields(kind, self.messages)])  # type: ignore[arg-type]
        return f"{kind.__module__}.{kind.__qualname__}[{fields}]"

    def field(self, x: Any) -> str:
        if x is None or isinstance(x, (str, int, float, bool)):
            return repr(x)
        if isinstance(x, Dim):
            return self.dim(x)
        if isinstance(x, tuple):
            return f"({','.join(map(self.field, x))})"
        if isinstance(x, ScalarFn):
            if TABLE.get(x.name) is x or (isinstance(x.result, DType) and cast_fn(x.result) is x):
                return x.name
            raise Unkeyed(x.name)
        if isinstance(x, bytes):
            return x.hex() if len(x) <= 32 else hashlib.sha256(x).hexdigest()
        if isinstance(x, DType):
            return x.name
        if isinstance(x, Graph):
            return self.graph(x)
        if dataclasses.is_dataclass(x) and not isinstance(x, type):
            return self.record(x)
        raise Unkeyed(repr(x))

    def dim(self, d: Dim) -> str:
        found = self.dims.get(d)
        if found is None:
            terms = []
            for monomial, c in d.terms:
                atoms = sorted(self.atom(a) for a in monomial)
                terms.append("*".join([str(c), *atoms]))
            found = self.dims[d] = "+".join(sorted(terms)) or "0"
        return found

    def atom(self, a: Any) -> str:
        if not isinstance(a, Sym):
            return f"{a.op}({self.dim(a.left)},{self.dim(a.right)})"
        kind = "s" if a.value is None else "n"  # an axis is never negative, a number may be
        if a in self.syms or not self.messages:
            return f"{kind}{self.syms.setdefault(a, len(self.syms))}"
        self.syms[a] = len(self.syms)
        return f"{kind}{self.syms[a]}={a.name} {a.origin}"


@functools.cache
def _fields(kind: type, messages: bool) -> tuple[str, ...]:
    """The fields that say what code is made; those that only messages show, where asked for."""
    return tuple(f.name for f in dataclasses.fields(kind) if f.compare or messages)


def dump(x: Any, syms: Iterable[Sym], strict: bool = False) -> bytes:
    """``x`` pickled, with symbols written as their numbers in ``syms``.

    strict: raises Unkeyed for another symbol, which only this process knows.
    """
    numbers = {s: k for k, s in enumerate(syms)}

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if not isinstance(obj, Sym):
                return None
            if strict and obj not in numbers:
                raise Unkeyed(obj.name)
            return numbers.get(obj)

    out = io.BytesIO()
    Pickler(out, pickle.HIGHEST_PROTOCOL).dump(x)
    return out.getvalue()


def restore(data: bytes, syms: list[Sym]) -> Any:
    """What ``dump`` wrote, over the symbols of this process."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, number: Any) -> Any:
            return syms[number]

    return Unpickler(io.BytesIO(data)).load()


@functools.cache
def code_version() -> str:
    """Changes whenever a source file of the compiler does."""
    lines, folders = list[str](), [Path(__file__).parent.parent]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(Path(entry.path))
                elif entry.name.endswith(".py"):
                    info = entry.stat()
                    lines.append(f"{entry.path} {info.st_size} {info.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
