"""merge: scans over the same steps that do not depend on each other become one scan, where it pays.

It pays where a step mostly waits for the step before it: two chains of dependent operations then
run side by side in one processor.  Measured on the LLVM back end, one thread, the time of two
loops apart divided by that of one merged loop of 200 steps, with the gradient:

    step              1 element   8     64    1000
    tanh(x + 0.9 h)   1.7         1.5   1.06  1.0
    x + 0.9 h         1.3         1.2   1.05  1.0

Products fill the processor by themselves, and two of one shape stay two (one product of a block
diagonal matrix would be twice the work).  Both directions of a network, trained, over 50 steps:

    hidden, batch    10, 1   10, 100   30, 10   100, 1   100, 10   100, 100
    tanh network     1.01    0.98      1.00     0.97     1.01      1.08
    LSTM             0.98    0.93      0.96     0.98     0.97      1.04

So scans are merged if neither step has a product or a loop of its own, and their states have the
same sizes (one nest then serves both, and threads can still share the work).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as with_fields
from typing import Any

from tinygraph.graph import Graph, Node, Value
from tinygraph.ops.linalg import Dot
from tinygraph.passes.scan_edit import ScanEdit, State, is_scan
from tinygraph.rewrite.engine import Context, Pass, everywhere, substitute

Rule = Callable[[Node, Node], bool]


def merge_where(pays: Rule) -> Pass:
    """The pass that merges every two scans for which that is possible, and ``pays``."""
    def here(graph: Graph, context: Context) -> Graph:
        while True:
            pair = _pair(graph, pays)
            if pair is None:
                return graph
            graph = substitute(graph, _merged(*pair, context), context)

    def everywhere_here(graph: Graph, context: Context) -> Graph:
        return everywhere(graph, context, here)

    return Pass("merge", "scan(f, x), scan(g, y) over the same steps, neither behind the other "
                "--> scan(f and g, x, y)", everywhere_here)


def waits(first: Node, second: Node) -> bool:
    """Are the steps of both scans chains of elementwise operations, on states of one size?"""
    shapes = []
    for node in (first, second):
        op: Any = node.op
        if any(isinstance(n.op, Dot) or is_scan(n) for n in op.body.nodes()):
            return False
        shapes.append({p.type.dims for p in op.groups.inputs(op.body.inputs).carries})
    return shapes[0] == shapes[1] and len(shapes[0]) == 1


def _pair(graph: Graph, pays: Rule) -> tuple[Node, Node] | None:
    """The first two scans that may become one, and gain by it."""
    scans = [n for n in graph.nodes() if is_scan(n) and pays(n, n)]
    behind = _scans_behind(graph) if len(scans) > 1 else {}
    for k, second in enumerate(scans):
        for first in scans[:k]:
            if _alike(first.op, second.op) and first not in behind[second] and (
                    pays(first, second)):
                return first, second
    return None


def _alike(a: Any, b: Any) -> bool:
    """Do two scans take the same steps, under the same rules?"""
    if a.lazy or b.lazy or a.segments or b.segments or a.memory != b.memory:
        return False
    if a.until is not None or b.until is not None:
        return False
    return (a.n_steps, a.hoist, a.truncate) == (b.n_steps, b.hoist, b.truncate)


def _scans_behind(graph: Graph) -> dict[Node, set[Node]]:
    """Per node, the scans whose results it needs, on any path."""
    found: dict[Node, set[Node]] = {}
    for node in graph.nodes():
        mine: set[Node] = set()
        for v in node.inputs:
            if v.node is not None:
                mine |= found[v.node]
                if is_scan(v.node):
                    mine.add(v.node)
        found[node] = mine
    return found


def _merged(first: Node, second: Node, context: Context) -> dict[Value, Any]:
    """What takes the place of the results of two scans: those of one scan that does both."""
    edit, other = ScanEdit(first), ScanEdit(second)
    fresh = _with_own_parameters(other)
    for s in other.seqs:
        fresh[s.param] = edit.add_seq(s.outer)
    for c in other.consts:
        fresh[c.param] = edit.add_const(c.outer)
    other.substitute(fresh)
    count = len(edit.states), len(edit.stacks)
    edit.states += [State(s.init, fresh[s.param], s.new) for s in other.states]
    edit.stacks = [*edit.stacks, *other.stacks]
    names = dict.fromkeys(n for n in (first.op.name, second.op.name) if n)  # type: ignore
    edit.op = with_fields(edit.op, name=" and ".join(names))
    done = edit.build(context.interner)
    mapping: dict[Value, Any] = {}
    for node, carries, stacks in (
            (first, done.carries[:count[0]], done.stacks[:count[1]]),
            (second, done.carries[count[0]:], done.stacks[count[1]:])):
        old = node.op.groups.outputs(node.outputs)  # type: ignore[attr-defined]
        mapping.update(zip(old.carries, carries, strict=True))
        mapping.update(zip(old.stacks, stacks, strict=True))
    return mapping


def _with_own_parameters(edit: ScanEdit) -> dict[Any, Any]:
    """New parameters for the carries: those of any two bodies may be the same objects."""
    return {s.param: s.param.result_class()(s.param.type, name=s.param.name)
            for s in edit.states}


merge = merge_where(waits)
