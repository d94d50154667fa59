"""Hash-consing: equal nodes become one object, for the length of one compilation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinygraph.graph import Graph, Node, Op, Type, Value, apply, has_body, map_graphs


class Interner:
    """Makes equal nodes one object, for the length of one compilation.

    Bodies of scans are interned too: their inputs become canonical parameters, so that two
    bodies that compute the same thing are one Graph.
    """

    def __init__(self, cls: type[Value]) -> None:
        self.cls = cls
        self._nodes: dict[Op, dict[tuple[Value, ...], Node]] = {}
        self._known_ops: dict[int, tuple[Op, dict[tuple[Value, ...], Node]]] = {}
        self._owned: set[Node] = set()
        self._graphs: dict[tuple[Any, ...], Graph] = {}
        self._params: dict[tuple[int, Type], Value] = {}

    def owns(self, node: Node) -> bool:
        return node in self._owned

    def _applications(self, op: Op) -> dict[tuple[Value, ...], Node]:
        """The nodes of ``op`` by their operands.  An op that was seen before is known by its
        place in memory: to hash all its fields takes longer than all the rest."""
        found = self._known_ops.get(id(op))
        if found is None:
            found = self._known_ops[id(op)] = (op, self._nodes.setdefault(op, {}))
        return found[1]

    def param(self, index: int, type_: Type) -> Value:
        """The canonical ``index``-th input of a body."""
        found = self._params.get((index, type_))
        if found is None:
            found = self.cls(type_, name=f"p{index}")
            self._params[index, type_] = found
        return found

    def make(self, op: Op, *inputs: Value, source: str = "", **_: Any) -> tuple[Any, ...]:
        """The one node of ``op`` on ``inputs``."""
        op = map_graphs(op, self.body)
        known = self._applications(op)
        node = known.get(inputs)
        if node is None:
            outputs = apply(op, *inputs, cls=self.cls, source=source)
            node = known[inputs] = outputs[0].node
            self._owned.add(node)
        return node.outputs

    def remake(self, node: Node, inputs: tuple[Value, ...]) -> Node:
        """The one node like ``node`` on other operands of the types of its own: what its op
        infers is known."""
        op = node.op
        if has_body(op):
            op = map_graphs(op, self.body)
        known = self._applications(op)
        new = known.get(inputs)
        if new is None:
            new = known[inputs] = Node.like(node, op, inputs, self.cls)
            self._owned.add(new)
            return new
        for a, b in zip(new.outputs, node.outputs, strict=True):
            a.name = a.name or b.name
            a.source = a.source or b.source
        return new

    def values(self, outputs: Sequence[Value], memo: dict[Value, Value]) -> list[Any]:
        """``outputs`` with every node interned; ``memo`` maps leaves (and what is known)."""
        pending = [v for v in outputs if v not in memo]
        for node in _unowned(pending, memo, self._owned):
            fresh = self.remake(node, tuple([memo.get(v, v) for v in node.inputs]))
            for old, new in zip(node.outputs, fresh.outputs, strict=True):
                memo.setdefault(old, new)
        return [memo.get(v, v) for v in outputs]

    def graph(self, graph: Graph) -> Graph:
        """``graph`` with every node interned; its inputs stay."""
        outputs = tuple(self.values(graph.outputs, {}))
        return graph if outputs == graph.outputs else Graph.closed(graph.inputs, outputs)

    def body(self, graph: Graph) -> Graph:
        """``graph`` as a body: canonical inputs, interned nodes, one object per content."""
        known = self._graphs.get((graph.inputs, graph.outputs))
        if known is not None:
            return known
        params = tuple(self.param(i, v.type) for i, v in enumerate(graph.inputs))
        memo: dict[Value, Value] = dict(zip(graph.inputs, params, strict=True))
        for node in graph.nodes():
            fresh = self.remake(node, tuple([memo.get(v, v) for v in node.inputs]))
            memo.update(zip(node.outputs, fresh.outputs, strict=True))
        outputs = tuple(memo.get(v, v) for v in graph.outputs)
        key = (params, outputs)
        if key not in self._graphs:
            self._graphs[key] = Graph.closed(params, outputs)
        return self._graphs[key]


def _unowned(outputs: Sequence[Value], memo: Mapping[Value, Value], owned: set[Node]
             ) -> list[Node]:
    """The nodes under ``outputs`` that are neither owned nor in ``memo``, operands first."""
    order: list[Node] = []
    done: set[Node] = set()
    stack = [(v.node, False) for v in reversed(outputs) if v.node]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
            continue
        if node in done or node in owned or all(v in memo for v in node.outputs):
            continue
        done.add(node)
        stack.append((node, True))
        stack.extend((v.node, False) for v in reversed(node.inputs)
                     if v.node and v not in memo)
    return order
