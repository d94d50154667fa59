"""Overlap: a state's rows and the stack of a loop that walks back over them share one memory.

A loop walks back over n states and stacks a row per step.  After step t no state from row t on is
read any more, and before it no row of the stack up to t is written.  A state's row has R bytes, a
row of the stack S >= R: if the stack begins 2 R bytes behind the states, its row t lies at
2 R + t S, behind the end (t + 2) R of the state's row t + 1, so that no row of the stack is
written over a state that is still to be read.

    | c0 c1 c2 c3 ...                     the states of all steps, from the beginning on
    |       [ row 0   ][ row 1   ] ...    the stack, last row first

Forwards the same holds the other way round: a sequence with rows like the stack's may lie in its
place if the loop forward is the last to read it.  Step t reads its row t and writes state t + 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinygraph.dims import Dim, dim, floordiv, nonnegative
from tinygraph.graph import Node, Value
from tinygraph.loops.language import Block, Buffer, Const, For
from tinygraph.lowering.overlay import Uses
from tinygraph.lowering.view import View
from tinygraph.lowering.workspace import ALIGNMENT
from tinygraph.ops.views import Slice

if TYPE_CHECKING:
    from tinygraph.lowering.region import Region
    from tinygraph.lowering.scan import Carry
    from tinygraph.scan_module.op import Scan


@dataclass(frozen=True)
class Overlap:
    """What may lie in one memory, as far as one sees from a loop forward and the loop back over
    its states.

    forward, back  the loops, by the names of their steps
    state, row     rows of a state, and the bytes of one
    stack          what the loop back stacks, a row of it at least as large
    shares         what the loop forward reads, row t in step t, with rows like the stack's
    others         what else the loop forward reads row by row
    """

    forward: str
    back: str
    state: Buffer
    row: Dim
    stack: Buffer
    shares: tuple[Buffer, ...]
    others: tuple[Buffer, ...]


@dataclass(frozen=True)
class Looped:
    """A scan that became one serial loop: the name of its step, and where its states lie."""

    step: str
    carries: Sequence[Carry]


def overlaps(region: Region, node: Node, op: Scan, loops: Mapping[Node, Looped],
             stacks: Sequence[View]) -> list[Overlap]:
    """The pairs of a state that the scan ``node`` walks back over and a stack that it makes.

    loops: the scans that became one serial loop, ``node`` among them
    """
    found = []
    given, temps = op.groups.inputs(node.inputs), region.storage.temps
    walked = {x: _walked_back(x, op.n_steps) for x in given.seqs}
    for base in dict.fromkeys(b for b in walked.values() if b is not None):
        source: Node = base.node  # type: ignore[assignment]
        carry = _carry_of(base, loops.get(source))
        if carry is None or not _only_walked_back(region, node, carry, walked):
            continue
        row = carry.rows.strides[0] * carry.rows.dtype.itemsize
        state = carry.rows.buffer
        for view in stacks:
            size = -view.strides[0] * view.dtype.itemsize
            stack = view.buffer
            assert stack is not None and state is not None
            if temps.get(stack) == size * op.n_steps and nonnegative(size - row):
                shares, others = _sequences(region, source, temps[stack], size)
                found.append(Overlap(loops[source].step, loops[node].step, state, row, stack,
                                     shares, tuple(b for b in others if b is not state)))
    return found


def _walked_back(x: Value, steps: Dim) -> Value | None:
    """The stack of a scan over as many steps that ``x`` is, from the last row to the first."""
    if x.node is None or not isinstance(x.node.op, Slice):
        return None
    (base,), region = x.node.inputs, x.node.op.region
    whole = (region.is_rows(base.type.dims) and region.steps[0] == -1
             and region.starts[0] == steps - 1 and region.lengths[0] == steps
             and base.type.dims[0] == steps)
    return base if whole else None


def _carry_of(stack: Value, loop: Looped | None) -> Carry | None:
    """The state whose rows ``stack`` is a view of."""
    if loop is None:
        return None
    groups, body = stack.node.op.groups, stack.node.op.body  # type: ignore[union-attr]
    if stack.index < groups.carries:
        return None
    item = body.outputs[stack.index]
    return next((c for c in loop.carries if c.kept == "all" and item in (c.param, c.new)), None)


def _only_walked_back(region: Region, node: Node, carry: Carry,
                      walked: Mapping[Value, Value | None]) -> bool:
    """Does the loop read nothing of the state but row t, or t + 1, in the step for row t?"""
    op = node.op
    given = op.groups.inputs(node.inputs)  # type: ignore[attr-defined]
    mine = [x for x in (*given.seqs, *given.consts)
            if region.view(x).buffer is carry.rows.buffer]
    return all(walked.get(x) is not None for x in mine)


def _sequences(region: Region, node: Node, size: Dim, row: Dim
               ) -> tuple[tuple[Buffer, ...], tuple[Buffer, ...]]:
    """The temps that a scan reads row by row: those of ``size`` bytes of which step t reads row t
    alone, and the others."""
    given = node.op.groups.inputs(node.inputs)  # type: ignore[attr-defined]
    fits: dict[Buffer, bool] = {}
    for x in given.seqs:
        buffer = region.view(x).buffer
        if buffer is not None and buffer.role == "temp":
            fits[buffer] = fits.get(buffer, True) and _row_by_row(region, x, size, row)
    for x in given.consts:
        buffer = region.view(x).buffer
        if buffer in fits:
            fits[buffer] = False
    return (tuple(b for b, fit in fits.items() if fit),
            tuple(b for b, fit in fits.items() if not fit))


def _row_by_row(region: Region, x: Value, size: Dim, row: Dim) -> bool:
    while x.node is not None and isinstance(x.node.op, Slice):
        part = x.node.op.region
        if part.starts[0] != 0 or part.steps[0] != 1:
            return False
        x = x.node.inputs[0]
    view = region.view(x)
    first = isinstance(view.offset, Const) and view.offset.value == 0
    return (first and region.storage.temps.get(view.buffer) == size  # type: ignore[arg-type]
            and view.strides[0] * view.dtype.itemsize == row)


def placed_together(body: Block, found: Sequence[Overlap]) -> list[dict[Buffer, Dim]]:
    """Those of ``found`` that the whole program allows, as temps with the byte at which each
    begins in their common memory: the largest one last."""
    if not found:
        return []
    uses, taken, groups = Uses(body), set[Buffer](), []
    for overlap in found:
        shares = [b for b in overlap.shares if uses.of(b)]
        members = (overlap.state, *shares[:1], overlap.stack)
        if not taken & set(members) and _allowed(uses, overlap, shares):
            taken.update(members)
            start = floordiv(overlap.row * 2 + (ALIGNMENT - 1), dim(ALIGNMENT)) * ALIGNMENT
            groups.append({b: dim(0) if b is overlap.state else start for b in members})
    return groups


def _allowed(uses: Uses, overlap: Overlap, shares: Sequence[Buffer]) -> bool:
    loops = [uses.steps.get(name, []) for name in (overlap.forward, overlap.back)]
    if any(len(found) != 1 for found in loops) or not uses.of(overlap.state) or not uses.of(
            overlap.stack) or len(shares) > 1:
        return False
    ((forward, at),), ((back, then),) = loops
    around = at.loops
    if then.loops != around or any(isinstance(s, For) and s.mode == "parallel" for s in around):
        return False
    start, end = uses.spans.get(id(back), (0, -1))
    forward_end = uses.spans.get(id(forward), (0, start))[1]

    def within(buffer: Buffer, first: float, last: float) -> bool:
        return all(use.loops[:len(around)] == around and first <= use.time <= last
                   for _, use in uses.of(buffer))

    never = float("inf")
    if not (within(overlap.state, 0, end) and within(overlap.stack, start, never)
            and all(within(b, 0, forward_end) for b in shares) and forward_end < start):
        return False
    # Else what the loop forward reads last would have left its place to the stack.
    return bool(shares) or not any(within(b, 0, start) for b in overlap.others if uses.of(b))
