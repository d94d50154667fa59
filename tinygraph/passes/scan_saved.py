"""saved: which values of a forward loop the backward loop finds in memory, and which it computes
again, chosen by a minimum cut on bytes.

The gradient asks for stacks of forward values.  Some are cheap to compute from others (the cell's
candidate times its gate), or are in memory anyway (a state that is stacked).  Products and
transcendental functions are never computed again, unless the scan has a budget (``memory=``):
then bytes alone count, and of a recurrent layer little more than its states is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinygraph.dims import Dim, dim, product
from tinygraph.graph import Graph, Node, Value, replace, toposort
from tinygraph.loops.language import TRANSCENDENTAL
from tinygraph.ops.arithmetic import Broadcast, Elemwise
from tinygraph.ops.control import Identity
from tinygraph.ops.views import (
    Reshape,
    Slice,
    Squeeze,
    Transpose,
    Unslice,
    axis_region,
    slice_,
)
from tinygraph.ops.windows import Windows
from tinygraph.passes.scan_edit import ScanEdit, is_scan
from tinygraph.rewrite.engine import Context, Pass, everywhere, substitute
from tinygraph.scan_module.op import Scan

NOMINAL = 64  # stands for every unknown size when bytes are compared


@dataclass(frozen=True)
class Read:
    """A backward scan reads rows start, start + step, ... of a stack as its sequence ``place``."""

    scan: Node
    place: int
    start: Dim
    length: Dim
    step: int


def _saved(graph: Graph, context: Context) -> Graph:
    return everywhere(graph, context, _saved_here)


def _saved_here(graph: Graph, context: Context) -> Graph:
    done: set[Any] = set()
    while True:
        mapping: dict[Value, Any] = {}
        for node in graph.nodes():
            key = node.op.body if is_scan(node) else None  # type: ignore[attr-defined]
            if key is not None and (key, node.inputs) not in done:
                done.add((key, node.inputs))
                mapping = _recomputed(node, graph, context)
                if mapping:
                    break
        if not mapping:
            return graph
        graph = substitute(graph, mapping, context)


def _recomputed(node: Node, graph: Graph, context: Context) -> dict[Value, Any]:
    """The scan and its readers where the cut saves other values than were asked for."""
    edit = ScanEdit(node)
    reads = _reads(node, graph)
    stacks = edit.op.groups.outputs(node.outputs).stacks
    asked = {edit.stacks[k]: reads[v] for k, v in enumerate(stacks) if reads.get(v)}
    pinned = [edit.stacks[k] for k, v in enumerate(stacks) if v not in reads]
    if not asked:
        return {}
    kept = minimum_cut(edit, list(asked), pinned)
    dropped = [v for v in asked if v not in kept and v.node is not None]
    if not dropped:
        return {}
    places = {v: edit.add_stack(v) for v in kept if v not in {s.param for s in edit.seqs}}
    made = edit.build(context.interner)
    old = edit.op.groups.outputs(node.outputs)
    mapping: dict[Value, Any] = dict(zip(old.carries, made.carries, strict=True))
    mapping.update(zip(old.stacks, made.stacks, strict=False))
    readers = {r.scan for v in dropped for r in asked[v]}
    for reader in readers:
        wanted = {r.place: (v, r) for v in dropped for r in asked[v] if r.scan is reader}
        sources = {v: made.stacks[k] for v, k in places.items()}
        mapping.update(_recompute_in(reader, wanted, edit, sources, context))
    return mapping


def _reads(node: Node, graph: Graph) -> dict[Value, list[Read]]:
    """Per stack that only slices for backward scans read, those reads.  Stacks that something
    else reads are left out."""
    stacks = set(node.op.groups.outputs(node.outputs).stacks)  # type: ignore[attr-defined]
    found: dict[Value, list[Read]] = {v: [] for v in stacks}
    slices: dict[Value, Value] = {}
    other = set(graph.outputs) & stacks
    for n in graph.nodes():
        for place, x in enumerate(n.inputs):
            if x in stacks and isinstance(n.op, Slice) and n.op.region.is_rows(x.type.dims):
                slices[n.outputs[0]] = x
            elif x in stacks and is_scan(n) and place < n.op.groups.seqs:  # type: ignore
                found[x].append(Read(n, place, dim(0), x.type.dims[0], 1))
            elif x in stacks:
                other.add(x)
            elif x in slices and is_scan(n) and place < n.op.groups.seqs:  # type: ignore
                region = x.node.op.region  # type: ignore[union-attr]
                found[slices[x]].append(Read(n, place, region.starts[0], region.lengths[0],
                                             region.steps[0]))
            elif x in slices:
                other.add(slices[x])
    other |= {x for out, x in slices.items() if out in graph.outputs}
    return {v: r for v, r in found.items() if v not in other}


def _recompute_in(reader: Node, wanted: dict[int, tuple[Value, Read]], forward: ScanEdit,
                  sources: dict[Value, Any], context: Context) -> dict[Value, Any]:
    edit = ScanEdit(reader)
    memo: dict[Value, Any] = {}
    rows = {s.param: s.outer for s in forward.seqs}
    constants = {c.param: c.outer for c in forward.consts}
    mapping: dict[Any, Any] = {}
    for place, (value, read) in wanted.items():
        def row(stack: Any, read: Read = read) -> Any:
            region = axis_region(stack, 0, read.start, read.length, read.step)
            return edit.add_seq(context.intern(slice_(stack, region))[0])

        for leaf in _leaves(value, {**sources, **rows, **constants}):
            if leaf not in memo:
                memo[leaf] = (row(sources[leaf]) if leaf in sources else row(rows[leaf])
                              if leaf in rows else edit.add_const(constants[leaf]))
        mapping[edit.seqs[place].param] = replace([value], memo)[0]
    gone = set(mapping)
    edit.substitute(mapping)
    edit.seqs = [s for s in edit.seqs if s.param not in gone]
    made = edit.build(context.interner)
    return dict(zip(reader.outputs, (*made.carries, *made.stacks), strict=True))


def _leaves(value: Value, known: dict[Value, Any]) -> list[Value]:
    nodes = toposort([value], stop=known)
    found = [x for n in nodes for x in n.inputs if x in known]
    return list(dict.fromkeys(found))


def minimum_cut(edit: ScanEdit, asked: list[Value], pinned: list[Value]) -> set[Value]:
    """The body values to keep so that all of ``asked`` can be computed from them, of least total
    cost.  ``pinned`` are kept anyway, and cost nothing more."""
    varying, free = edit.varying(), _free_values(edit, pinned)
    simple = _settled(edit, asked, free, varying)
    if simple is not None:
        return simple
    kept = _flow(edit, asked, free, varying)
    if edit.op.memory is not None:
        # The new states lie in the rows of the old ones: there is nothing to compute again.
        owners = {s.new: s.param for s in reversed(edit.states)}
        kept |= {new for new, param in owners.items() if param in kept and new in varying}
    return kept


def _settled(edit: ScanEdit, asked: list[Value], free: set[Value], varying: set[Value]
             ) -> set[Value] | None:
    """The cut where what must be kept anyway suffices for all the rest; None where a choice is
    left."""
    kept = {v for v in asked if v.node is None or not _again(v.node, edit)}
    known = kept | free | {s.param for s in edit.seqs}
    stack = [v for v in asked if v not in kept]
    while stack:
        v = stack.pop()
        if v in known:
            kept.add(v)
        elif v in varying:
            if v.node is None or not _again(v.node, edit):
                return None
            stack.extend(v.node.inputs)
    return kept


def _flow(edit: ScanEdit, asked: list[Value], free: set[Value], varying: set[Value]
          ) -> set[Value]:
    """The cut by maximum flow (Ford and Fulkerson 1956)."""
    import networkx

    net = networkx.DiGraph()
    net.add_node("source")
    net.add_node("sink")
    seen: set[Value] = set()
    stack = list(asked)
    for v in asked:
        net.add_edge((v, "out"), "sink")
    while stack:
        v = stack.pop()
        if v in seen:
            continue
        seen.add(v)
        net.add_edge((v, "in"), (v, "out"), capacity=_cost(v, free, edit))
        if v.node is None or not _again(v.node, edit):
            net.add_edge("source", (v, "in"))
            continue
        if not _cheap(v.node):
            net.add_edge("source", (v, "in"), capacity=1)  # of two cuts the one with less work
        for x in v.node.inputs:
            if x in varying:
                net.add_edge((x, "out"), (v, "in"))
                stack.append(x)
    _, (left, _) = networkx.minimum_cut(net, "source", "sink")
    return {v for v in seen if (v, "in") in left and (v, "out") not in left}


def _free_values(edit: ScanEdit, pinned: list[Value]) -> set[Value]:
    """Values that are in memory anyway: stacks that others read, and with a state its old one."""
    free = set(pinned)
    for state in edit.states:
        if state.new in free:
            free.add(state.param)
    return free


def _cost(v: Value, free: set[Value], edit: ScanEdit) -> int:
    """Bytes written and read per step; a row that is in memory anyway is only read, which counts
    for little where memory is short."""
    sizes = [d.substitute(lambda s: dim(NOMINAL)).const or NOMINAL for d in v.type.dims]
    count = product(tuple(dim(n) for n in sizes)).const or 1
    known = v in free or any(v is s.param for s in edit.seqs)
    if edit.op.memory is not None:
        return 1 if known else count * v.type.dtype.itemsize * 1024
    return count * v.type.dtype.itemsize * (1 if known else 4)


def _again(node: Node, edit: ScanEdit) -> bool:
    """May this be computed again?"""
    if edit.op.memory is None:
        return _cheap(node)
    return not isinstance(node.op, Scan)


def _cheap(node: Node) -> bool:
    """Does this cost next to nothing in a loop nest?"""
    if isinstance(node.op, Elemwise):
        return node.op.fn.name not in TRANSCENDENTAL and node.op.fn.prepare is None
    return isinstance(node.op, (Broadcast, Transpose, Squeeze, Reshape, Slice, Unslice, Windows,
                                Identity))


saved = Pass(
    "saved", "stacks that the backward loop reads --> fewer stacks, and the rest computed again "
    "in the backward loop", _saved)
