"""sink: parts of an elementwise value of which only parts are read are computed apart.

The gates of a step that are added as one matrix and then taken apart need no memory: each part
is computed where it is used.
"""

from __future__ import annotations

from tinygraph.dims import Dim, dim, nonnegative, product
from tinygraph.graph import Graph, Node, Value, apply
from tinygraph.ops.arithmetic import Elemwise
from tinygraph.ops.views import Slice, slice_
from tinygraph.rewrite.engine import Context, Pass, everywhere, substitute


def _sink(graph: Graph, context: Context) -> Graph:
    # The operands of what has sunk may be elementwise themselves: again, until settled.
    while True:
        new = everywhere(graph, context, _sink_here)
        if new.outputs == graph.outputs:
            return graph
        graph = new


def _sink_here(graph: Graph, context: Context) -> Graph:
    readers: dict[Value, list[Node]] = {}
    kept = set(graph.outputs)
    for node in graph.nodes():
        for x in node.inputs:
            readers.setdefault(x, []).append(node)
    mapping: dict[Value, Value] = {}
    for node in graph.nodes():
        if not isinstance(node.op, Elemwise) or node.outputs[0] in kept:
            continue
        parts = readers.get(node.outputs[0], [])
        if parts and all(isinstance(r.op, Slice) for r in parts) and _disjoint(node, parts):
            for part in parts:
                region = part.op.region  # type: ignore[attr-defined]
                operands = [slice_(x, region) for x in node.inputs]
                (mapping[part.outputs[0]],) = apply(node.op, *operands,
                                                    source=node.outputs[0].source)
    return substitute(graph, mapping, context)


def _disjoint(node: Node, parts: list[Node]) -> bool:
    """Do the parts hold no more elements than the whole, so that nothing is computed twice?"""
    total: Dim = dim(0)
    for part in parts:
        total = total + product(part.outputs[0].type.dims)
    return nonnegative(product(node.outputs[0].type.dims) - total)


sink = Pass("sink", "f(x, y)[part], where f(x, y) is read by slices alone --> f(x[part], y[part])",
            _sink)
