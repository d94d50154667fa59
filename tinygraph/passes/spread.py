"""spread: what a step computes for each row only to spread it over the row's elements is computed
where it is used.

A mask is compared with zero once per row; the loop over the elements of a row does that on its
way, and needs no nest and no memory before it.
"""

from __future__ import annotations

from tinygraph.graph import Graph, Node, Value, apply
from tinygraph.loops.language import TRANSCENDENTAL
from tinygraph.ops.arithmetic import Broadcast, Constant, Elemwise
from tinygraph.ops.sizes import DimValue, Iota
from tinygraph.ops.views import Reshape, Slice, Squeeze, Transpose
from tinygraph.rewrite.engine import Context, Pass, everywhere, substitute

_FREE = (Broadcast, Constant, DimValue, Iota, Reshape, Slice, Squeeze, Transpose)


def _spread(graph: Graph, context: Context) -> Graph:
    # The operands of what has moved may be computed for rows themselves: again, until settled.
    while True:
        new = everywhere(graph, context, _spread_here)
        if new.outputs == graph.outputs:
            return graph
        graph = new


def _spread_here(graph: Graph, context: Context) -> Graph:
    if context.frame is None or context.frame.op is None:
        return graph  # outside of loops a nest more costs nothing
    readers: dict[Value, list[Node]] = {}
    for node in graph.nodes():
        for x in node.inputs:
            readers.setdefault(x, []).append(node)
    kept, cheap = set(graph.outputs), set(graph.inputs)
    mapping: dict[Value, Value] = {}
    for node in graph.nodes():
        if all(x in cheap for x in node.inputs) and (isinstance(node.op, _FREE) or _fast(node)):
            cheap.update(node.outputs)
        if not isinstance(node.op, Broadcast):
            continue
        (x,) = node.inputs
        if (x.node is not None and _fast(x.node) and x in cheap and x not in kept
                and all(isinstance(r.op, Broadcast) for r in readers[x])):
            source = node.outputs[0].source
            operands = [apply(node.op, y, source=source)[0] for y in x.node.inputs]
            (mapping[node.outputs[0]],) = apply(x.node.op, *operands, source=x.source)
    return substitute(graph, mapping, context)


def _fast(node: Node) -> bool:
    """Is it an elementwise function that costs as much as a load?"""
    return (isinstance(node.op, Elemwise) and node.op.fn.name not in TRANSCENDENTAL
            and node.op.fn.prepare is None)


spread = Pass("spread", "broadcast(f(x)), where a step computes f(x) for rows of what it is given "
              "--> f(broadcast(x))", _spread)
