"""What a region decides about its nodes before it lowers them: who belongs together, in which
order they come, which products are added in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygraph.graph import Node, Value
from tinygraph.ops.arithmetic import Broadcast, Constant, Elemwise, Reduce
from tinygraph.ops.linalg import Dot
from tinygraph.ops.sizes import DimValue, Iota
from tinygraph.ops.views import Reshape, Slice, Squeeze, Transpose
from tinygraph.ops.windows import Windows

# What is computed where it is used, or costs nothing: it waits until something needs it.
_WAITS = (Elemwise, Broadcast, Constant, DimValue, Iota, Reshape, Slice, Squeeze, Transpose,
          Windows, Reduce)


def late_order(nodes: Sequence[Node], outputs: Sequence[Value]) -> list[Node]:
    """The nodes of a step with products first and elementwise values as late as what reads them
    allows, so that a value that a later nest needs is computed there and not stored."""
    level: dict[Value, int] = {}
    for node in nodes:
        above = max((level.get(x, 0) for x in node.inputs), default=0)
        own = above if isinstance(node.op, _WAITS) else above + 1
        level.update((v, own) for v in node.outputs)
    last = max(level.values(), default=0)
    late = {v: last for v in level}
    for node in reversed(nodes):
        waits = isinstance(node.op, _WAITS)
        limit = late[node.outputs[0]] if waits else level[node.outputs[0]] - 1
        for x in node.inputs:
            if x in late:
                late[x] = min(late[x], limit)

    phases = _phases(nodes)

    def place(item: tuple[int, Node]) -> tuple[Any, ...]:
        k, node = item
        out = node.outputs[0]
        if not isinstance(node.op, _WAITS):
            return level[out], False, (), k
        return late[out], True, phases[out], k

    return [node for _, node in sorted(enumerate(nodes), key=place)]


def _phases(nodes: Sequence[Node]) -> dict[Value, tuple[int, int]]:
    """An order in which what waits meets in few nests: first by how many reductions, one after
    another, still follow a value before a product or the end, so that what is needed behind a
    reduction only is computed there; then by the axes that it has, so that numbers of rows are
    known when the nest over the rows' elements begins."""
    after = {v: 0 for node in nodes for v in node.outputs}
    for node in reversed(nodes):
        if isinstance(node.op, _WAITS):
            own = max(after[v] for v in node.outputs) + isinstance(node.op, Reduce)
            for x in node.inputs:
                after[x] = max(after.get(x, 0), own)
    axes: dict[Value, int] = {}
    for node in nodes:
        for v in node.outputs:
            own = sum(d != 1 for d in v.type.dims)
            here = (axes[x] for x in node.inputs if x in axes and after[x] == after[v])
            axes[v] = max(own, *here, 0)
    return {v: (-after[v], axes[v]) for v in axes}


def sunk_order(nodes: Sequence[Node], outputs: Sequence[Value]) -> list[Node]:
    """The nodes of a function in their order, but elementwise values that are no outputs right
    before the first node that reads them: then they are computed in its nest, and not stored."""
    first: dict[Value, int] = {}
    kept, places = set(outputs), [0] * len(nodes)
    for k in reversed(range(len(nodes))):
        node, place = nodes[k], k
        if isinstance(node.op, _WAITS) and not isinstance(node.op, Reduce) and (
                kept.isdisjoint(node.outputs)):
            place = min((first[v] for v in node.outputs if v in first), default=k)
        places[k] = place
        first.update((x, min(place, first.get(x, place))) for x in node.inputs)
    return [nodes[k] for k in sorted(range(len(nodes)), key=lambda k: (places[k], k))]


def clusters(nodes: Sequence[Node]) -> dict[Value, object]:
    """Elementwise values that hang together: one reads the other, or both read one array."""
    parent: dict[Value, Value] = {}

    def root(v: Value) -> Value:
        while parent.setdefault(v, v) is not v:
            parent[v] = parent[parent[v]]
            v = parent[v]
        return v

    for node in nodes:
        if isinstance(node.op, Elemwise):
            for x in node.inputs:
                if x.node is None or not isinstance(x.node.op, Broadcast):
                    parent[root(node.outputs[0])] = root(x)
    return {v: root(v) for v in list(parent)}


def sums_with_products(nodes: Sequence[Node], outputs: Sequence[Value]
                       ) -> dict[Value, tuple[Value, Value]]:
    """Products that nothing reads but a sum with an elementwise value that nothing else reads,
    where no elementwise value reads the sum: product --> (sum, other summand).

    A sum that is read element by element costs nothing in the nest that reads it.
    """
    readers: dict[Value, list[Node | None]] = {v: [None] for v in outputs}
    for node in nodes:
        for x in node.inputs:
            readers.setdefault(x, []).append(node)
    found: dict[Value, tuple[Value, Value]] = {}
    for node in nodes:
        if not isinstance(node.op, Elemwise) or node.op.fn.name != "add":
            continue
        total, (x, y) = node.outputs[0], node.inputs
        if any(r is not None and isinstance(r.op, Elemwise) for r in readers.get(total, [])):
            continue
        for product, other in ((x, y), (y, x)):
            if (_made_by(product, Dot) and _made_by(other, Elemwise) and x is not y
                    and len(readers[product]) == 1 and len(readers[other]) == 1):
                found[product] = total, other
                break
    return found


def _made_by(x: Value, op: type) -> bool:
    return x.node is not None and isinstance(x.node.op, op)
