"""prune: what nobody reads leaves the loop, and what is there twice becomes one."""

from __future__ import annotations

from typing import Any

from tinygraph.graph import Graph, Value, leaves
from tinygraph.passes.scan_edit import Operand, ScanEdit, is_scan
from tinygraph.rewrite.engine import Context, Pass, everywhere, substitute


def _prune(graph: Graph, context: Context) -> Graph:
    # A scan that lost an operand may leave another scan's stack unread: again, until settled.
    while True:
        new = everywhere(graph, context, _prune_here)
        if new.outputs == graph.outputs:
            return graph
        graph = new


def _prune_here(graph: Graph, context: Context) -> Graph:
    assert context.frame is not None
    mapping: dict[Value, Value] = {}
    for node in graph.nodes():
        if is_scan(node):
            used = {v for v in node.outputs if context.frame.users(v)}
            mapping.update(_pruned(ScanEdit(node), used, context))
    return substitute(graph, mapping, context)


def _pruned(edit: ScanEdit, used: set[Value], context: Context) -> dict[Value, Any]:
    old = edit.op.groups.outputs(edit.node.outputs)
    mapping: dict[Value, Any] = {}
    before = (len(edit.seqs), len(edit.states), len(edit.consts), len(edit.stacks))
    _join_twins(edit)
    constant = _constant_states(edit, old.carries, mapping)
    alive = _alive(edit, old, used)
    states = [(s, v) for s, v in zip(edit.states, old.carries, strict=True)
              if s.param in alive and s.param not in constant]
    kept: dict[Value, list[int]] = {}
    for k, v in enumerate(old.stacks):
        if v in used:
            kept.setdefault(edit.stacks[k], []).append(k)
    edit.states, edit.stacks = [s for s, _ in states], list(kept)
    read = set(leaves(edit.results()))
    edit.seqs = [s for s in edit.seqs if s.param in read]
    edit.consts = [c for c in edit.consts if c.param in read]
    if before == (len(edit.seqs), len(edit.states), len(edit.consts), len(edit.stacks)):
        return {}
    if not edit.states and not edit.stacks:
        return mapping
    done = edit.build(context.interner)
    mapping.update((v, final) for (_, v), final in zip(states, done.carries, strict=True))
    for stack, places in zip(done.stacks, kept.values(), strict=True):
        mapping.update((old.stacks[k], stack) for k in places)
    return mapping


def _join_twins(edit: ScanEdit) -> None:
    """Operands given twice become one."""
    twins: dict[Any, Any] = {}
    for group in (edit.seqs, edit.consts):
        first: dict[Any, Operand] = {}
        for operand in group:
            known = first.setdefault(operand.outer, operand)
            if known is not operand:
                twins[operand.param] = known.param
    if twins:
        edit.substitute(twins)


def _constant_states(edit: ScanEdit, finals: Any, mapping: dict[Value, Any]) -> set[Any]:
    """Carries that no step changes become constants."""
    found = {}
    for state, final in zip(edit.states, finals, strict=True):
        if state.new is state.param:
            found[state.param] = edit.add_const(state.init)
            mapping[final] = state.init
    if found:
        edit.substitute(found)
    return set(found)


def _alive(edit: ScanEdit, old: Any, used: set[Value]) -> set[Any]:
    """Parameters of carries whose value matters to something that is read."""
    wanted = [edit.stacks[k] for k, v in enumerate(old.stacks) if v in used]
    first = 0 if edit.op.until is None else 2  # the flag and the count of a loop that has them
    final = [s for k, (s, v) in enumerate(zip(edit.states, old.carries, strict=True))
             if k < first or v in used]
    wanted += [s.new for s in final]
    alive = {s.param for s in final}
    while True:
        read = set(leaves(wanted))
        reached = [s for s in edit.states if s.param in read and s.param not in alive]
        if not reached:
            return alive
        alive.update(s.param for s in reached)
        wanted += [s.new for s in reached]


prune = Pass(
    "prune", "unread stacks, dead carries, unread and repeated operands --> nothing", _prune)
