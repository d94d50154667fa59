"""Is a graph well formed?  Tests, and ``check=True``, ask after every pass."""

from __future__ import annotations

from tinygraph.dims import prove_equal
from tinygraph.errors import InternalError
from tinygraph.graph import Graph, Node, Op, Value, describe, subgraphs
from tinygraph.rewrite.journal import expression


def check_graph(graph: Graph) -> None:
    """Raise InternalError unless ``graph`` and every body in it is well formed.

    Every leaf is an input (or a canonical parameter of the body); every node's recorded types
    are what its op infers; no two nodes apply one op to the same operands.
    """
    pending, seen = [graph], set()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        _check_one(current)
        for node in current.nodes():
            pending.extend(subgraphs(node.op))


def _check_one(graph: Graph) -> None:
    inputs = set(graph.inputs)
    if len(inputs) != len(graph.inputs):
        raise InternalError(f"two inputs of {graph!r} are one variable")
    unique: dict[tuple[Op, tuple[Value, ...]], Node] = {}
    for node in graph.nodes():
        for v in node.inputs:
            if v.node is None and v not in inputs:
                raise InternalError(f"{describe(v)} is a leaf, but no input of its graph; it is "
                                    f"read by {expression(node.outputs[0])}")
        _check_types(node)
        twin = unique.setdefault((node.op, node.inputs), node)
        if twin is not node:
            raise InternalError(f"two nodes are equal: {expression(node.outputs[0])}")
    for v in graph.outputs:
        if v.node is None and v not in inputs:
            raise InternalError(f"the output {describe(v)} is a leaf, but no input of its graph")


def _check_types(node: Node) -> None:
    inferred = node.op.infer(*node.inputs)
    if len(inferred) != len(node.outputs):
        raise InternalError(f"{expression(node.outputs[0])} has {len(node.outputs)} results, but "
                            f"its op infers {len(inferred)}")
    for v, type_ in zip(node.outputs, inferred, strict=True):
        agree = v.type.dtype is type_.dtype and v.ndim == type_.ndim and all(
            prove_equal(a, b) for a, b in zip(v.type.dims, type_.dims, strict=True))
        if not agree:
            raise InternalError(f"{expression(v)} is recorded as {v.type}, but its op infers "
                                f"{type_}")
