"""Late sizes in graphs: who finds them out, and in which order nodes can run then."""

from __future__ import annotations

from collections.abc import Sequence

from tinygraph.dims import Sym, is_late
from tinygraph.graph import Graph, Node, op_dims, subgraphs


def late_last(nodes: Sequence[Node]) -> list[Node]:
    """``nodes`` in their order, except that what mentions a late size waits for the node that
    determines it: no operand need say so."""
    makers = {s for n in nodes for s, _ in n.op.late()}
    if not makers:
        return list(nodes)
    order: list[Node] = []
    done: set[Node] = set()
    inside, waiting = set(nodes), list(nodes)
    while waiting:
        later = []
        for n in waiting:
            own = {s for s, _ in n.op.late()}
            if any(v.node in inside and v.node not in done for v in n.inputs) or (
                    (_mentioned(n) & makers) - own):
                later.append(n)
                continue
            done.add(n)
            order.append(n)
            makers -= own
        if len(later) == len(waiting):
            raise ValueError("sizes found out during the run depend on each other: "
                             + ", ".join(str(n.op) for n in later))
        waiting = later
    return order


def _mentioned(node: Node) -> set[Sym]:
    """The late symbols in the op and the types of a node, bodies included."""
    dims = [*op_dims(node.op), *(d for v in node.outputs for d in v.type.dims)]
    found = {s for d in dims if is_late(d) for s in d.syms() if s.bound is not None}
    for body in subgraphs(node.op):
        for n in body.nodes():
            found |= _mentioned(n)
    return found


def late_symbols(graph: Graph) -> set[Sym]:
    """The sizes that only a run of the nodes of ``graph`` finds out, bodies included."""
    found = {s for node in graph.nodes() for s, _ in node.op.late()}
    for node in graph.nodes():
        for body in subgraphs(node.op):
            found |= late_symbols(body)
    return found
