"""Expressions as text: numbered equations."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from tinygraph.graph import Graph, Node, Value, leaves, subgraphs, toposort


def debugprint(x: Any, file: TextIO | None = None) -> str:
    """Print ``x`` as numbered equations, one per operation, operands first, each with its type,
    the user's name for it and the line that made it; the body of a scan stands indented under
    it.  Returns the text.

    x     a variable, a list of them, a Graph, or a compiled function
    file  where to print; standard output unless given
    """
    text = "\n".join(_Equations().lines(_outputs(x)))
    print(text, file=file or sys.stdout)
    return text


def equations(x: Any) -> str:
    """The text that ``debugprint`` prints."""
    return "\n".join(_Equations().lines(_outputs(x)))


def _outputs(x: Any) -> list[Value]:
    if isinstance(x, Value):
        return [x]
    graph = x if isinstance(x, Graph) else getattr(x, "graph", None)
    if isinstance(graph, Graph):
        return list(graph.outputs)
    if isinstance(x, (list, tuple)) and all(isinstance(v, Value) for v in x):
        return list(x)
    raise TypeError(f"debugprint takes variables or a function, not {x!r}")


class _Equations:
    """Numbers run through the bodies too, so that every equation has one number."""

    def __init__(self) -> None:
        self.names: dict[Value, str] = {}
        self.count = 0

    def lines(self, outputs: Sequence[Value], params: Sequence[Value] = (), indent: str = ""
              ) -> Iterator[str]:
        for v in (*params, *leaves(outputs)):
            if v not in self.names:
                self.names[v] = self._leaf_name(v)
                yield f"{indent}{self.names[v]} : {v.type}{_where(v)}"
        for node in toposort(outputs):
            yield from self._node(node, indent)
        yield f"{indent}return {', '.join(self.names[v] for v in outputs)}"

    def _leaf_name(self, v: Value) -> str:
        taken = set(self.names.values())
        name = v.name or "unnamed"
        k = 1
        while name in taken:
            k += 1
            name = f"{v.name or 'unnamed'}_{k}"
        return name

    def _node(self, node: Node, indent: str) -> Iterator[str]:
        for out in node.outputs:
            self.count += 1
            self.names[out] = f"%{self.count}"
        left = ", ".join(self.names[v] for v in node.outputs)
        operands = f"({', '.join(self.names[v] for v in node.inputs)})" if node.inputs else ""
        types = ", ".join(str(v.type) for v in node.outputs)
        named = ", ".join(repr(v.name) for v in node.outputs if v.name)
        named = f"  {named}" if named else ""
        yield f"{indent}{left} = {node.op}{operands} : {types}{named}{_where(node.outputs[0])}"
        for body in subgraphs(node.op):
            yield from self.lines(body.outputs, body.inputs, indent + "    ")


def _where(v: Value) -> str:
    return f"  at {v.source}" if v.source else ""
