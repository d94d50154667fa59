"""Expressions as text: numbered equations."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from tinygraph.graph import Graph, Node, Value, leaves, subgraphs, toposort
from tinygraph.ops.printed import Print

__all__ = ["Print", "debugprint", "equations", "pp"]


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


# --- one line -------------------------------------------------------------------------------

_BETWEEN = {"add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%",
            "pow": "**", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
            "and": "&", "or": "|", "xor": "^", "left_shift": "<<", "right_shift": ">>"}
_BEFORE = {"neg": "-", "invert": "~"}


def pp(x: Value) -> str:
    """``x`` as one line of text, as one writes it: ``(a + (b * 2))``.

    What is used several times is written out as often; ``debugprint`` is for large expressions.
    """
    text: dict[Value, str] = {}
    for node in toposort([x]):
        operands = [text.get(v) or v.name or f"<{v.type}>" for v in node.inputs]
        for v in node.outputs:
            part = f"[{v.index}]" if len(node.outputs) > 1 else ""
            text[v] = _written(str(node.op), operands) + part
    return text.get(x) or x.name or f"<{x.type}>"


def _written(op: str, operands: Sequence[str]) -> str:
    if op in _BETWEEN and len(operands) == 2:
        return f"({operands[0]} {_BETWEEN[op]} {operands[1]})"
    if op in _BEFORE:
        return f"{_BEFORE[op]}{operands[0]}"
    if op == "abs":
        return f"|{operands[0]}|"
    if op.startswith("broadcast{"):  # stretching is not what one writes
        return operands[0]
    return f"{op}({', '.join(operands)})" if operands else op
