"""What a closed graph says, as a key: equal keys, equal compiled code."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinygraph.dims import Dim, Sym
from tinygraph.dtypes import DType
from tinygraph.graph import Graph, Value, describe
from tinygraph.ops.index import Put, Take
from tinygraph.ops.scalars import TABLE, ScalarFn, cast_fn


class Unkeyed(Exception):
    """Something in the graph has no text (a user's Python function): it is not cached."""


def fingerprint(graph: Graph) -> tuple[str, list[Sym]]:
    """A key of the graph's content, and its symbols in the order in which the key numbers them.

    Raises Unkeyed where an op holds something that cannot be written down.
    """
    writer = _Writer()
    return writer.graph(graph), list(writer.syms)


class _Writer:
    def __init__(self) -> None:
        self.syms: dict[Sym, int] = {}
        self.known: dict[Graph, str] = {}

    def graph(self, graph: Graph) -> str:
        found = self.known.get(graph)
        if found is not None:
            return found
        lines = [self.field((v.type.dtype, v.type.dims)) for v in graph.inputs]
        numbers: dict[Value, str] = {v: f"i{k}" for k, v in enumerate(graph.inputs)}
        for k, node in enumerate(graph.nodes()):
            numbers.update((v, f"n{k}.{v.index}") for v in node.outputs)
            operands = ",".join(numbers[v] for v in node.inputs)
            lines.append(f"{self.record(node.op)}({operands})")
            if isinstance(node.op, (Take, Put)):  # their failures name variables and lines
                lines += map(describe, node.inputs)
        lines.append("->" + ",".join(numbers[v] for v in graph.outputs))
        self.known[graph] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        return self.known[graph]

    def record(self, x: Any) -> str:
        fields = ",".join(self.field(getattr(x, f.name))
                          for f in dataclasses.fields(x) if f.compare)
        return f"{type(x).__module__}.{type(x).__qualname__}[{fields}]"

    def field(self, x: Any) -> str:
        if x is None or isinstance(x, (str, int, float, bool)):
            return repr(x)
        if isinstance(x, bytes):
            return hashlib.sha256(x).hexdigest()
        if isinstance(x, DType):
            return x.name
        if isinstance(x, Dim):
            return self.dim(x)
        if isinstance(x, Graph):
            return self.graph(x)
        if isinstance(x, tuple):
            return "(" + ",".join(map(self.field, x)) + ")"
        if isinstance(x, ScalarFn):
            if TABLE.get(x.name) is x or (isinstance(x.result, DType) and cast_fn(x.result) is x):
                return x.name
            raise Unkeyed(x.name)
        if dataclasses.is_dataclass(x) and not isinstance(x, type):
            return self.record(x)
        raise Unkeyed(repr(x))

    def dim(self, d: Dim) -> str:
        terms = []
        for monomial, c in d.terms:
            atoms = sorted(self.atom(a) for a in monomial)
            terms.append("*".join([str(c), *atoms]))
        return "+".join(sorted(terms)) or "0"

    def atom(self, a: Any) -> str:
        if isinstance(a, Sym):
            return f"s{self.syms.setdefault(a, len(self.syms))}"
        return f"{a.op}({self.dim(a.left)},{self.dim(a.right)})"


def dump(x: Any, syms: Iterable[Sym]) -> bytes:
    """``x`` pickled, with symbols written as their numbers in ``syms``."""
    numbers = {s: k for k, s in enumerate(syms)}

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return numbers.get(obj) if isinstance(obj, Sym) else None

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
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        info = path.stat()
        digest.update(f"{path.relative_to(root)} {info.st_size} {info.st_mtime_ns}\n".encode())
    return digest.hexdigest()
