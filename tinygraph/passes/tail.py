"""The elementwise end of a graph, set aside while passes work on loops and products.

The updates of an optimiser are most of the nodes of a training step.  They read gradients; passes
over loops have nothing to say about them, but would make all of them anew whenever a loop changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tinygraph.graph import Graph, Node, Value
from tinygraph.interning import Interner
from tinygraph.ops.arithmetic import Broadcast, Constant, Elemwise
from tinygraph.rewrite.engine import Pass

FEW = 64  # a shorter end is not worth it
ON_LOOPS = frozenset({
    "last", "first", "prune", "label_dots", "split_dots", "invariant", "before", "saved",
    "checkpoint", "after", "merge_dots", "accumulate", "join", "merge"})
"""Passes that change loops, products and what is next to them, and never anything else."""
_LIGHT = (Elemwise, Broadcast, Constant)


def headed(passes: Sequence[Pass]) -> list[bool]:
    """Per pass: may it run without the end of the graph?  A pass that cleans (canonical) may,
    between two such passes: another one cleans everything when they are through."""
    places = [k for k, p in enumerate(passes) if p.name in ON_LOOPS]
    cleans = [k for k, p in enumerate(passes) if p.name == "canonical"]
    between = {k for k in cleans if places and cleans and k < places[-1] < cleans[-1]}
    return [k in between and k > places[0] or p.name in ON_LOOPS for k, p in enumerate(passes)]


class Tail:
    """What ``cut_tail`` cut off: ``nodes``, operands first, that read ``crossing`` of the rest."""

    def __init__(self, graph: Graph, nodes: Sequence[Node]) -> None:
        self.graph, self.nodes = graph, nodes
        inside = {v for n in nodes for v in n.outputs}
        read: Iterable[Value] = (*(v for n in nodes for v in n.inputs), *graph.outputs)
        self.crossing = tuple(dict.fromkeys(
            v for v in read if v.node is not None and v not in inside))

    def head(self) -> Graph:
        """The rest of the graph, whose outputs are ``crossing``."""
        return Graph.closed(self.graph.inputs, self.crossing)

    def join(self, head: Graph, interner: Interner) -> Graph:
        """The whole graph, with what became of its head."""
        final = {old: new for old, new in zip(self.crossing, head.outputs, strict=True)
                 if new is not old}
        if not final:
            return self.graph
        for node in self.nodes:
            if any([v in final for v in node.inputs]):
                made = interner.remake(node, tuple([final.get(v, v) for v in node.inputs]))
                final.update(zip(node.outputs, made.outputs, strict=True))
        return Graph.closed(self.graph.inputs, tuple([final.get(v, v)
                                                      for v in self.graph.outputs]))


def cut_tail(graph: Graph) -> Tail | None:
    """The end of ``graph``: elementwise nodes that nothing else reads.  A sum stays in the head
    where one of its terms is no elementwise value, since passes take such sums apart.  None where
    the end is short."""
    sums: set[Value] = set()
    for node in graph.nodes():
        if _is_add(node) and any(v in sums or v.node is not None and not isinstance(
                v.node.op, _LIGHT) for v in node.inputs):
            sums.update(node.outputs)
    read: set[Value] = set()
    nodes: list[Node] = []
    for node in reversed(graph.nodes()):
        if isinstance(node.op, _LIGHT) and read.isdisjoint(node.outputs) and sums.isdisjoint(
                node.outputs):
            nodes.append(node)
        else:
            read.update(node.inputs)
    return Tail(graph, nodes[::-1]) if len(nodes) >= FEW else None


def _is_add(node: Node) -> bool:
    return isinstance(node.op, Elemwise) and node.op.fn.name == "add"
