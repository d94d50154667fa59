"""Chains of additions as lists of terms, and the parts among them that tile an array."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from tinygraph.dims import Dim
from tinygraph.graph import Graph, Value
from tinygraph.ops.arithmetic import elementwise
from tinygraph.ops.views import Region, Unslice, concatenate, unslice
from tinygraph.rewrite.engine import Context, everywhere, substitute
from tinygraph.rewrite.pattern import fitting, made_by, operands, pair


def chains(graph: Graph, context: Context) -> list[tuple[Value, list[Value]]]:
    """Every maximal chain of additions in ``graph``: its value and its terms, left to right.

    An addition belongs to the chain of its reader where that is an addition and its only one.
    """
    assert context.frame is not None
    adds = [v for node in graph.nodes() for v in node.outputs if pair(v, "add")]
    inner = {x for v in adds for x in operands(v)
             if pair(x, "add") and context.frame.users(x) == 1}
    found = []
    for root in adds:
        if root in inner:
            continue
        terms: list[Value] = []
        stack = [root]
        while stack:
            v = stack.pop()
            if v is root or v in inner:
                stack.extend(reversed(operands(v)))
            else:
                terms.append(v)
        found.append((root, terms))
    return found


def add_all(terms: Iterable[Value]) -> Any:
    """The sum of ``terms``, from the left."""
    total: Any = None
    for term in terms:
        total = term if total is None else elementwise("add", total, term)
    return total


def tile_sums(graph: Graph, context: Context) -> Graph:
    """unslice(x, [:k]) + unslice(y, [k:]) --> concatenate(x, y), in any order, in any sum;
    parts that touch but leave a rest become one unslice"""
    return everywhere(graph, context, _tile_one)


def _tile_one(graph: Graph, context: Context) -> Graph:
    mapping: dict[Value, Value] = {}
    for root, terms in chains(graph, context):
        parts = [t for t in terms if made_by(t, Unslice)]
        if len(parts) < 2:
            continue
        tiled = _tiled(terms)
        new = fitting(add_all(tiled), root) if len(tiled) < len(terms) else None
        if new is not None:
            mapping[root] = new
            context.journal.note(context.pass_name, "tile_sums", [root], [new])
    return substitute(graph, mapping, context)


def _tiled(terms: Sequence[Value]) -> list[Any]:
    """``terms`` with the unslices among them joined where they meet or touch."""
    rest = [t for t in terms if made_by(t, Unslice) is None]
    parts = _same_place([t for t in terms if made_by(t, Unslice) is not None])
    ndim = terms[0].ndim
    for axis in range(ndim):
        parts = _runs(parts, axis)
    return rest + [unslice(x, dims, region) for (dims, region), x in parts.items()]


Place = tuple[tuple[Dim, ...], Region]


def _same_place(parts: Sequence[Value]) -> dict[Place, Any]:
    """The parts by place; those of one place are added."""
    out: dict[Place, Any] = {}
    for part in parts:
        op = made_by(part, Unslice)
        assert op is not None
        place, x = (op.dims, op.region), operands(part)[0]
        out[place] = out[place] + x if place in out else x
    return out


def _runs(parts: dict[Place, Any], axis: int) -> dict[Place, Any]:
    """Parts that touch along ``axis`` and agree elsewhere become one."""
    groups: dict[Any, list[tuple[Place, Any]]] = defaultdict(list)
    for (dims, r), x in parts.items():
        others = tuple((r.starts[k], r.lengths[k]) for k in range(len(dims)) if k != axis)
        key = (dims, r.steps, others) if r.steps[axis] == 1 else (dims, r)
        groups[key].append(((dims, r), x))
    out: dict[Place, Any] = {}
    for group in groups.values():
        starts = {place[1].starts[axis]: (place, x) for place, x in group}
        ends = {r.starts[axis] + r.lengths[axis] for (_, r), _ in group}
        heads = [s for s in starts if s not in ends]
        used = set()
        for head in heads:
            run, at = [], head
            while at in starts and at not in used:
                used.add(at)
                run.append(starts[at])
                at = at + run[-1][0][1].lengths[axis]
            place, x = _joined(run, axis)
            out[place] = out[place] + x if place in out else x
        for at, (place, x) in starts.items():
            if at not in used:
                out[place] = out[place] + x if place in out else x
        for place, x in group:  # two parts of different length may start at one index
            if starts[place[1].starts[axis]][0] != place:
                out[place] = out[place] + x if place in out else x
    return out


def _joined(run: Sequence[tuple[Place, Any]], axis: int) -> tuple[Place, Any]:
    (dims, first), _ = run[0]
    total = run[0][0][1].lengths[axis]
    for (_, r), _ in run[1:]:
        total = total + r.lengths[axis]
    lengths = tuple(total if k == axis else d for k, d in enumerate(first.lengths))
    return ((dims, Region(first.starts, lengths, first.steps)),
            concatenate([x for _, x in run], axis))
