"""checkpoint: a loop whose gradient must not keep more than so many bytes runs in segments.

Pass *saved* has left of the forward loop what the backward loop cannot compute again: the states
of all steps, and the backward loop stacks what the weights' gradients need.  Where that is more
than the budget, the forward loop keeps its states only at the beginning of each of q segments of
s steps.  Backwards, segment after segment, it runs forward again, then backward, and the sums over
time go on from segment to segment (Chen et al. 2016, arXiv:1604.06174, section 4).

The steps that q segments leave over, T - q s < q, come last and are not run again.  q is a formula
over the sizes of the call.  Where everything fits into the budget, q = 0: all steps are left over,
and the program computes what it would compute without a budget, in the same order.

A state that the step back alone reads, such as an LSTM's cell, costs nothing: going back, its rows
make place for the gradients that are stacked (lowering/overlap.py).  So that they find that
place, the step back computes the input's share of the gates again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace as with_fields
from typing import Any

from tinygraph.dims import Dim, dim, floordiv, maximum, minimum, nonnegative, product
from tinygraph.graph import Graph, Node, Value, apply
from tinygraph.ops.arithmetic import Reduce, reduce_
from tinygraph.ops.views import (
    Concatenate,
    Reshape,
    Slice,
    Squeeze,
    Transpose,
    axis_region,
    concatenate,
    reshape,
    reverse,
    slice_,
)
from tinygraph.passes.scan_after import rows_for_products, stacked_for_products
from tinygraph.passes.scan_edit import ScanEdit, is_scan
from tinygraph.passes.scan_inside import few_terms, rows_operand
from tinygraph.rewrite.engine import Context, Pass, everywhere, substitute

_ROOTS = 12  # the square root of a number of steps is sought among 1, 2, 4, ..., 2048


@dataclass(frozen=True)
class Cut:
    """T steps as ``count`` segments of ``steps`` each, and ``rest`` steps at the end."""

    total: Dim
    count: Dim
    steps: Dim

    @property
    def rest(self) -> Dim:
        return self.total - self.covered

    @property
    def covered(self) -> Dim:
        return self.count * self.steps

    def kept(self, each: Dim, start: Dim) -> Dim:
        """The bytes of the states at the segments' beginnings and of one segment."""
        return self.count * start + maximum(self.steps, self.rest) * each

    def early(self, x: Any) -> Any:
        """The rows of the segments: (count, steps, ...)."""
        part = slice_(x, axis_region(x, 0, 0, self.covered))
        return reshape(part, (self.count, self.steps, *x.type.dims[1:]))

    def early_backwards(self, x: Any) -> Any:
        """The rows of the segments of ``x`` whose rows come last step first."""
        part = slice_(x, axis_region(x, 0, self.rest, self.covered))
        return reshape(part, (self.count, self.steps, *x.type.dims[1:]))

    def late(self, x: Any, backwards: bool = False) -> Any:
        """The rows of the rest."""
        return slice_(x, axis_region(x, 0, 0 if backwards else self.covered, self.rest))


def _checkpoint(graph: Graph, context: Context) -> Graph:
    return everywhere(graph, context, _checkpoint_here)


def _checkpoint_here(graph: Graph, context: Context) -> Graph:
    while True:
        pairs = [(n, b) for n in graph.nodes() if is_scan(n) and (b := _backward(n, graph))]
        if not pairs:
            return graph
        graph = substitute(graph, _Segments(*pairs[0], graph, context).run(), context)


def _backward(node: Node, graph: Graph) -> Node | None:
    """The scan that walks back over all steps of ``node``, and reads its stacks: its gradient."""
    op: Any = node.op
    if op.memory is None or op.segments or op.until is not None:
        return None
    old = [v for v, item in zip(op.groups.outputs(node.outputs).stacks,
                                op.groups.outputs(op.body.outputs).stacks, strict=True)
           if item in op.groups.inputs(op.body.inputs).carries]
    found: list[tuple[int, Node]] = []
    for n in graph.nodes():
        if is_scan(n) and n is not node:
            other: Any = n.op
            fits = other.memory is not None and other.n_steps == op.n_steps
            bases = [_base(x, op.n_steps) for x in other.groups.inputs(n.inputs).seqs]
            read = {b for b, _ in bases if b.node is node}
            whole = all(back for b, back in bases if b in read)
            if fits and read and whole and not _reads_otherwise(n, node):
                found.append((sum(v in read for v in old), n))
    # The gradient of the next layer reads stacks too, but new states alone, and comes before.
    return max(reversed(found), key=lambda item: item[0])[1] if found else None


def _reads_otherwise(reader: Node, node: Node) -> bool:
    """Does ``reader`` have stacks of ``node`` as anything but a sequence?"""
    groups = reader.op.groups  # type: ignore[attr-defined]
    stacks = node.op.groups.outputs(node.outputs).stacks  # type: ignore[attr-defined]
    return any(v in stacks for v in reader.inputs[groups.seqs:])


def _base(x: Value, steps: Dim) -> tuple[Value, bool]:
    """``x``, or what it is all rows of from the last to the first (and True)."""
    if x.node is not None and isinstance(x.node.op, Slice):
        (y,), region = x.node.inputs, x.node.op.region
        if (region.is_rows(y.type.dims) and region.steps[0] == -1
                and region.starts[0] == steps - 1 and region.lengths[0] == steps):
            return y, True
    return x, False


class _Segments:
    """One pair of a forward and a backward scan, cut into segments."""

    def __init__(self, forward: Node, backward: Node, graph: Graph, context: Context) -> None:
        self.forward, self.backward, self.context = forward, backward, context
        self.interner = context.interner
        edit = ScanEdit(forward)
        self.steps = edit.steps
        self.bases = {k: _base(s.outer, self.steps) for k, s in enumerate(ScanEdit(backward).seqs)}
        self.sums = _sums(backward, graph)
        self.whole = _read_elsewhere(forward, backward, self.bases, graph)
        self.bytes = _Bytes(forward, backward, self.bases, self.sums, self.whole)
        self.cut = _cut(self.steps, self.bytes.each, _bytes(s.param for s in edit.states),
                        dim(max(edit.op.memory or 0, 1)))

    def run(self) -> dict[Value, Any]:
        """What takes the place of the results of both scans, and of the sums over time."""
        mapping: dict[Value, Any] = {}
        starts, finals, early = self.forwards()
        tail = self.scan(self.forward, {}, self.cut.rest, finals, self.cut.late)
        old = self.results(self.forward)
        mapping.update(zip(old.carries, tail.carries, strict=True))
        for k, v in enumerate(old.stacks):
            if v in self.whole:
                mapping[v] = self.joined([self.flat(early[v]), tail.stacks[k]])
        last = self.scan(self.backward, dict(zip(old.stacks, tail.stacks, strict=True)),
                         self.cut.rest, None, self.cut.late)
        mapping.update(self.backwards(starts, last))
        return mapping

    def results(self, node: Node) -> Any:
        return node.op.groups.outputs(node.outputs)  # type: ignore[attr-defined]

    def flat(self, x: Any) -> Any:
        """(count, steps, ...) --> (count * steps, ...)"""
        return reshape(x, (self.cut.covered, *x.type.dims[2:]))

    @staticmethod
    def joined(parts: list[Any]) -> Any:
        return concatenate(parts, 0)

    # --- the loops

    def forwards(self) -> tuple[list[Any], list[Any], dict[Value, Any]]:
        """The segments, forwards: the states at the beginning of each, the final states, and the
        stacks that others read."""
        outer = ScanEdit.around(self.forward, self.cut.count)
        states = [outer.add_state(s.init) for s in ScanEdit(self.forward).states]
        inside = _Inside(outer, self.cut, False)
        done = self.scan(self.forward, {}, self.cut.steps, [s.param for s in states], inside.rows,
                         inside.const)
        for state, new in zip(states, done.carries, strict=True):
            state.new = new
        stacks = self.results(self.forward).stacks
        outer.stacks = [s.param for s in states]
        outer.stacks += [done.stacks[k] for k, v in enumerate(stacks) if v in self.whole]
        kept = self.cut.kept(self.bytes.each, _bytes(s.param for s in states))
        outer.op = with_fields(outer.op, memory=self.forward.op.memory,  # type: ignore
                               kept=kept)
        made = outer.build(self.interner)
        whole = [v for v in stacks if v in self.whole]
        starts = list(made.stacks[:len(states)])
        return starts, list(made.carries), dict(
            zip(whole, made.stacks[len(states):], strict=True))

    def backwards(self, starts: list[Any], last: Any) -> dict[Value, Any]:
        """The segments, from the last one to the first: forwards again, then backwards."""
        outer = ScanEdit.around(self.backward, self.cut.count)
        states = [outer.add_state(g) for g in last.carries]
        inside = _Inside(outer, self.cut, True)
        inits = [outer.add_seq(reverse(x)) for x in starts]
        again = self.scan(self.forward, {}, self.cut.steps, inits, inside.rows, inside.const)
        stacks = dict(zip(self.results(self.forward).stacks, again.stacks, strict=True))
        done = self.scan(self.backward, stacks, self.cut.steps, [s.param for s in states],
                         inside.rows, inside.const)
        for state, new in zip(states, done.carries, strict=True):
            state.new = new
        old, sums = self.results(self.backward), []
        for k, v in enumerate(old.stacks):
            for node in self.sums.get(v, ()):
                state = outer.add_state(_sum(node, last.stacks[k]))
                state.new = state.param + _sum(node, done.stacks[k])
                sums.append(node.outputs[0])
        kept = [k for k, v in enumerate(old.stacks) if v not in self.sums]
        outer.stacks = [done.stacks[k] for k in kept]
        made = outer.build(self.interner)
        mapping = dict(zip((*old.carries, *sums), made.carries, strict=True))
        for k, early in zip(kept, made.stacks, strict=True):
            mapping[old.stacks[k]] = self.joined([last.stacks[k], self.flat(early)])
        return mapping

    def scan(self, node: Node, stacks: dict[Value, Any], steps: Dim, inits: list[Any] | None,
             rows: Any, const: Any = None) -> Any:
        """One of the two scans on other rows.  ``stacks``: what stands for those of the forward
        scan; ``rows(x)``: for a sequence; ``const(x)``: for a constant."""
        edit = ScanEdit(node)
        backward = node is self.backward
        for k, s in enumerate(edit.seqs):
            base, back = self.bases[k] if backward else (s.outer, False)
            if base in stacks:
                s.outer = reverse(stacks[base])
            elif backward and not back:
                s.outer = rows(base, backwards=True)
            else:
                s.outer = reverse(self.rows(base, rows, const)) if back else self.rows(
                    base, rows, const)
        if inits is not None:
            for state, init in zip(edit.states, inits, strict=True):
                state.init = init
        if const is not None:
            for c in edit.consts:
                c.outer = const(c.outer)
        hoist = edit.op.hoist and not (backward and self.bytes.lean)
        edit.op = with_fields(edit.op, n_steps=steps, memory=None, hoist=hoist)
        return edit.build(self.interner)

    def rows(self, base: Any, rows: Any, const: Any) -> Any:
        """Rows of a sequence; those of a product are computed of rows."""
        side = rows_operand(base)
        if side is None:
            return rows(base)
        operands = list(base.node.inputs)
        other = operands[1 - side]
        operands[side] = rows(operands[side])
        operands[1 - side] = other if const is None else const(other)
        return apply(base.node.op, *operands)[0]


class _Inside:
    """What a round of a loop over segments is given, in the loop's body."""

    def __init__(self, outer: ScanEdit, cut: Cut, backwards: bool) -> None:
        self.outer, self.cut, self.walks_back = outer, cut, backwards
        self.known: dict[tuple[Value, bool], Any] = {}

    def rows(self, x: Any, backwards: bool = False) -> Any:
        """The segment of ``x``; ``backwards``: ``x`` itself has the last step first."""
        if (x, backwards) not in self.known:
            whole = self.cut.early_backwards(x) if backwards else self.cut.early(x)
            if self.walks_back and not backwards:
                whole = reverse(whole)
            self.known[x, backwards] = self.outer.add_seq(whole)
        return self.known[x, backwards]

    def const(self, x: Any) -> Any:
        return self.outer.add_const(x)


def _sums(node: Node, graph: Graph) -> dict[Value, list[Node]]:
    """The stacks of which nothing is read but sums over time, with these."""
    stacks = node.op.groups.outputs(node.outputs).stacks  # type: ignore[attr-defined]
    found: dict[Value, list[Node]] = {v: [] for v in stacks if v not in graph.outputs}
    for n in graph.nodes():
        for x in n.inputs:
            if x in found:
                op = n.op
                if isinstance(op, Reduce) and op.kind == "sum" and 0 in op.axes:
                    found[x].append(n)
                else:
                    del found[x]
    return found


def _read_elsewhere(forward: Node, backward: Node, bases: dict[int, tuple[Value, bool]],
                    graph: Graph) -> set[Value]:
    """The stacks of the forward scan that are read by others than the backward one."""
    stacks = set(forward.op.groups.outputs(forward.outputs).stacks)  # type: ignore[attr-defined]
    mine = {x for k, x in enumerate(backward.inputs) if k in bases and bases[k][0] in stacks}
    found = stacks & set(graph.outputs)
    found |= {_base(x, forward.op.n_steps)[0]  # type: ignore[attr-defined]
              for x in mine if x in graph.outputs}
    for n in graph.nodes():
        for x in n.inputs:
            if x in stacks and n is not backward and n.outputs[0] not in mine:
                found.add(x)
            elif x in mine and n is not backward:
                found.add(bases[backward.inputs.index(x)][0])
    return found & stacks


# --- how many segments


def _cut(total: Dim, each: Dim, start: Dim, budget: Dim) -> Cut:
    """The smallest number of segments with which the budget is met, with at most half of it for
    one segment: then the other half holds the states at the segments' beginnings wherever any
    number of segments can meet it.  A budget that none can meet is taken for the least.

    each: bytes of one step;  start: bytes of the states
    """
    whole = total * each
    over = minimum(maximum(whole - budget, dim(0)), dim(1))
    wanted = floordiv(whole * 2 + (budget - 1), budget)
    best = _root(floordiv(whole, maximum(each + start, dim(1))))
    count = over * minimum(wanted, best)
    return Cut(total, count, floordiv(total, count))


def _root(n: Dim) -> Dim:
    """At least 1, and the square root of ``n`` but for a factor below 1.5."""
    found = dim(1)
    for k in range(1, _ROOTS):
        found = maximum(found, minimum(dim(1 << k), floordiv(n, dim(1 << k))))
    return found


def _bytes(values: Iterable[Value]) -> Dim:
    total = dim(0)
    for v in values:
        total = total + product(v.type.dims) * v.type.dtype.itemsize
    return total


class _Bytes:
    """What one step of both loops needs in memory until its segment is done.

    each   bytes of a step
    lean   does the step back compute the input's share of the gates again?
    """

    def __init__(self, forward: Node, backward: Node, bases: dict[int, tuple[Value, bool]],
                 sums: dict[Value, list[Node]], whole: set[Value]) -> None:
        self.edit, self.back, self.bases = ScanEdit(forward), ScanEdit(backward), bases
        self.outs = self.edit.op.groups.outputs(forward.outputs).stacks
        items = [v for v, out in zip(self.back.stacks, self.back.op.groups.outputs(
            backward.outputs).stacks, strict=True) if sums.get(out)]
        made = {part: None for v in stacked_for_products(self.back, items)
                for part in _parts(v) if all(part is not s.param for s in self.back.seqs)}
        stacked = _bytes(made)
        after = rows_for_products(self.back, items)
        later = {bases[k][0] for k, s in enumerate(self.back.seqs) if s.param in after}
        free = [v for v, outs in self.kept().items()
                if not outs & (later | whole) and nonnegative(stacked - _bytes([v]))]
        inputs = [s.outer for s in self.edit.seqs if rows_operand(s.outer) is not None]
        ready = {b for b, _ in bases.values()}
        few = any(few_terms(x.node) is not None for x in inputs)
        read = any(x in ready for x in inputs)
        self.lean = read and (bool(free) or few)
        # The gradients of the gates take the place of the input's share (lowering/overlay.py).
        shares = _bytes(s.param for s in self.edit.seqs if s.outer in inputs)
        together = maximum(shares, stacked) if read else shares + stacked
        self.each = _bytes(v for v in self.kept() if v not in free[:1]) + together

    def kept(self) -> dict[Value, set[Value]]:
        """What the forward loop stacks for the loop back, and the stacks of it: a state's old and
        new values have one memory."""
        owners = {s.new: s.param for s in reversed(self.edit.states)}
        ready = {b for b, _ in self.bases.values()}
        found: dict[Value, set[Value]] = {}
        for v, out in zip(self.edit.stacks, self.outs, strict=True):
            if out in ready:
                found.setdefault(owners.get(v, v), set()).add(out)
        return found


def _parts(v: Value) -> list[Value]:
    """What a value is put together from, behind views."""
    while v.node is not None and isinstance(v.node.op, (Transpose, Squeeze, Reshape)):
        v = v.node.inputs[0]
    if v.node is not None and isinstance(v.node.op, Concatenate):
        return [p for x in v.node.inputs for p in _parts(x)]
    return [v]


def _sum(node: Node, stack: Any) -> Any:
    """The sum that ``node`` takes, of another stack."""
    return reduce_("sum", stack, node.op.axes)  # type: ignore[attr-defined]


checkpoint = Pass(
    "checkpoint", "a scan with memory=, and the scan back over its stacks --> scans over "
    "segments: states kept at their beginnings; backwards each forward again, then backward",
    _checkpoint)
