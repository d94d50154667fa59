"""Products: views go into labels; in a loop, products are split where a part can leave it;
products that share an operand, or whose results are added, become one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinygraph.dims import Dim, dim
from tinygraph.graph import Graph, Node, Value, users
from tinygraph.ops.linalg import Dot, dot_general
from tinygraph.ops.views import (
    Concatenate,
    Slice,
    axis_region,
    concatenate,
    slice_,
    transpose,
)
from tinygraph.ops.windows import Windows
from tinygraph.passes.dot_labels import RULES as LABEL_RULES
from tinygraph.passes.scan_join import stacked
from tinygraph.passes.sums import add_all, chains
from tinygraph.rewrite.engine import (
    Context,
    Frame,
    ancestors,
    everywhere,
    graph_pass,
    rule_pass,
    substitute,
)
from tinygraph.rewrite.pattern import fitting, made_by, operands

ROUNDS = 4  # of label rules, which ask for users

CONSTANT, SEQUENCE, CARRY = range(3)


class Roles:
    """In the body of a scan: on what a value depends, and whether a new carry depends on it.

    Outside of bodies all values are alike.
    """

    def __init__(self, frame: Frame) -> None:
        groups = getattr(frame.op, "groups", None)
        self.in_body = groups is not None
        self._depends: dict[Value, int] = {}
        self._reaching: set[Value] = set()
        if groups is None:
            return
        params = groups.inputs(frame.graph.inputs)
        self._depends.update((p, SEQUENCE) for p in params.seqs)
        self._depends.update((p, CARRY) for p in params.carries)
        for node in frame.graph.nodes():
            most = max((self.depends(v) for v in node.inputs), default=CONSTANT)
            self._depends.update((v, most) for v in node.outputs)
        self._reaching = ancestors(groups.outputs(frame.graph.outputs).carries)

    def depends(self, value: Value) -> int:
        """CONSTANT, SEQUENCE or CARRY: the most binding of what ``value`` is computed from."""
        return self._depends.get(value, CONSTANT)

    def reaches_carry(self, value: Value) -> bool:
        return value in self._reaching

    def kind(self, value: Value) -> tuple[int, bool]:
        """Values of one kind stay in the loop, or leave it, together."""
        return self.depends(value), self.reaches_carry(value)


def _roles(graph: Graph, context: Context) -> Roles:
    assert context.frame is not None
    return Roles(Frame(graph, context.frame.op))


def _dots(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes() if isinstance(node.op, Dot)]


# --- split ----------------------------------------------------------------------------------


def _split(graph: Graph, context: Context) -> Graph:
    """In a loop: dot(concatenate(x, h), w) --> dot(x, w[:k]) + dot(h, w[k:]), where h is carried
    and x is not;  dot(g, w)[:, :k] --> dot(g, w[:k]), where other columns alone are carried on, or
    none are read"""
    return everywhere(graph, context, _split_body)


def _split_body(graph: Graph, context: Context) -> Graph:
    roles = _roles(graph, context)
    if not roles.in_body:
        return graph
    mapping: dict[Value, Value] = {}
    readers = users(graph)
    for node in _dots(graph):
        out = node.outputs[0]
        new = fitting(_split_concatenate(node, roles), out)
        if new is not None:
            _note(context, "split_concatenate", mapping, out, new)
        elif out not in graph.outputs:
            for v, part in _split_slices(node, readers[out], roles):
                _note(context, "split_slices", mapping, v, part)
    for root, terms in chains(graph, context):
        if root not in graph.outputs and all(
                made_by(t, Dot) and t not in mapping and context.users(t) == 1 for t in terms):
            for v, part in _split_sum(terms, readers[root], roles):
                _note(context, "split_slices", mapping, v, part)
    return substitute(graph, mapping, context)


def _split_sum(terms: Sequence[Value], readers: Sequence[Node], roles: Roles
               ) -> list[tuple[Value, Any]]:
    """The slices of a sum of products as sums of products of slices."""
    split = [_split_slices(t.node, readers, roles) for t in terms if t.node]
    if not all(split):
        return []
    return [(column[0][0], add_all(part for _, part in column))
            for column in zip(*split, strict=True)]


def _note(context: Context, name: str, mapping: dict[Value, Value], old: Value, new: Value
          ) -> None:
    mapping[old] = new
    context.journal.note(context.pass_name, name, [old], [new])


def _split_concatenate(node: Node, roles: Roles) -> Any:
    op = node.op
    assert isinstance(op, Dot)
    for flipped in (False, True):
        labels, others = (op.b, op.a) if flipped else (op.a, op.b)
        x, w = node.inputs[::-1] if flipped else node.inputs
        joined = made_by(x, Concatenate)
        if joined is None or roles.depends(w) == CARRY:
            continue
        label = labels[joined.axis]
        if label in op.out:
            continue
        place, start = others.index(label), dim(0)
        groups: dict[bool, list[tuple[Any, Any]]] = {False: [], True: []}
        for part in operands(x):
            length = part.type.dims[joined.axis]
            rows = slice_(w, axis_region(w, place, start, length))
            groups[roles.depends(part) == CARRY].append((part, rows))
            start = start + length
        if not groups[False] or not groups[True]:
            continue
        return add_all(
            _product(op, flipped, concatenate([p for p, _ in group], joined.axis),
                     concatenate([r for _, r in group], place)) for group in groups.values())
    return None


def _product(op: Dot, flipped: bool, x: Value, y: Value) -> Any:
    return dot_general(op.a, op.b, op.out, *((y, x) if flipped else (x, y)))


def _split_slices(node: Node, readers: Sequence[Node], roles: Roles) -> list[tuple[Value, Any]]:
    """The slices of a product as products of slices: where only some of them reach a carry, or
    where there is only one."""
    op, out = node.op, node.outputs[0]
    assert isinstance(op, Dot)
    if len(readers) > 1 and len({roles.reaches_carry(n.outputs[0]) for n in readers}) < 2:
        return []
    found = []
    for reader in readers:
        sliced = reader.op
        if not isinstance(sliced, Slice):
            return []
        r = sliced.region
        cut = [k for k in range(out.ndim)
               if r.steps[k] != 1 or r.starts[k] != 0 or r.lengths[k] != out.type.dims[k]]
        if len(cut) != 1 or (op.out[cut[0]] in op.a) == (op.out[cut[0]] in op.b):
            return []
        label, k = op.out[cut[0]], cut[0]
        x, y = node.inputs
        if label in op.a:
            x = slice_(x, axis_region(x, op.a.index(label), r.starts[k], r.lengths[k], r.steps[k]))
        else:
            y = slice_(y, axis_region(y, op.b.index(label), r.starts[k], r.lengths[k], r.steps[k]))
        part = fitting(dot_general(op.a, op.b, op.out, x, y), reader.outputs[0])
        if part is None:
            return []
        found.append((reader.outputs[0], part))
    return found


# --- merge sums -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """A product as a term of a sum.  Labels: ('o', k) is axis k of the result, ('c', k) the k-th
    summed label of x."""

    x: Value
    y: Value
    a: tuple[tuple[str, int], ...]
    b: tuple[tuple[str, int], ...]
    flipped: bool

    @staticmethod
    def of(value: Value) -> Term:
        """The one of both orders of operands that comes first by its labels; ``flipped`` if that
        is not the order of the product."""
        op = made_by(value, Dot)
        assert op is not None
        x, y = operands(value)
        one = Term(x, y, *_summed(op.a, op.b, op.out), False)
        two = Term(y, x, *_summed(op.b, op.a, op.out), True)
        return one if (one.a, one.b) <= (two.a, two.b) else two

    def others(self) -> tuple[Any, ...]:
        """The labels, and the sizes of all but the first summed label."""
        sizes = dict(zip(self.a + self.b, self.x.type.dims + self.y.type.dims, strict=True))
        sizes.pop(("c", 0), None)
        return self.a, self.b, tuple(sorted((k, d.key) for k, d in sizes.items()))

    def product(self, x: Value, y: Value) -> Any:
        """The same product of other operands, in the order that the product has."""
        out = sorted({lab for lab in self.a + self.b if lab[0] == "o"})
        if self.flipped:
            return dot_general(self.b, self.a, out, y, x)
        return dot_general(self.a, self.b, out, x, y)


def _summed(a: Sequence[int], b: Sequence[int], out: Sequence[int]) -> tuple[Any, Any]:
    """The labels a and b in the words of Term."""
    names = {label: ("o", k) for k, label in enumerate(out)}
    for label in a:
        names.setdefault(label, ("c", len(names) - len(out)))
    return tuple(names[k] for k in a), tuple(names[k] for k in b)


def _merge_sums(graph: Graph, context: Context) -> Graph:
    """dot(x, u) + dot(y, v) --> dot(concatenate(x, y), concatenate(u, v));
    dot(x, w) + dot(y, w) --> dot(x + y, w)"""
    assert context.frame is not None
    context.frame = Frame(graph, context.frame.op)
    roles = Roles(context.frame)
    mapping: dict[Value, Value] = {}
    for root, terms in chains(graph, context):
        new = _merged_terms(terms, roles, context)
        total = fitting(add_all(new), root) if new is not None else None
        if total is not None:
            _note(context, "merge_sums", mapping, root, total)
    return substitute(graph, mapping, context)


def _merged_terms(terms: Sequence[Value], roles: Roles, context: Context) -> list[Any] | None:
    """``terms`` with alike products made one, in the place of the first; None if none are."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for i, t in enumerate(terms):
        if made_by(t, Dot) is None or context.users(t) != terms.count(t):
            continue
        if any(made_by(x, Windows) for x in operands(t)):
            continue  # joined or added, windows would be written out
        term = Term.of(t)
        if ("c", 0) in term.a:
            groups[term.others(), roles.kind(t)].append(i)
    out: list[Any] = list(terms)
    changed = False
    for places in groups.values():
        new = _merge_group([Term.of(terms[i]) for i in places], roles, context)
        if len(new) < len(places):
            changed = True
            for i in places:
                out[i] = None
            out[places[0]] = add_all(new)
    return [t for t in out if t is not None] if changed else None


def _merge_group(group: Sequence[Term], roles: Roles, context: Context) -> list[Any]:
    first = group[0]
    pairs: list[tuple[Any, Any]] = [(t.x, t.y) for t in group]
    pairs = [(x, y) for y, x in _factored([(y, x) for x, y in _factored(pairs)])]
    if len(pairs) > 1 and _sum_is_worth(first, pairs, roles):
        varying = 0 if roles.depends(first.x) >= roles.depends(first.y) else 1
        pairs.sort(key=lambda p: context.rank(_item(p[varying])))
        x = concatenate([x for x, _ in pairs], first.a.index(("c", 0)))
        pairs = [(x, concatenate([y for _, y in pairs], first.b.index(("c", 0))))]
    return [first.product(x, y) for x, y in pairs]


def _factored(pairs: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """(x, u), (x, v) --> (x, u + v)"""
    by: dict[tuple[Any, Any], list[Any]] = defaultdict(list)
    for x, y in pairs:
        by[x, y.type].append(y)
    return [(x, add_all(ys)) for (x, _), ys in by.items()]


def _sum_is_worth(term: Term, pairs: Sequence[tuple[Any, Any]], roles: Roles) -> bool:
    """Joining operands copies them: worth it if each element serves many products, or if an
    operand does not change in the loop, so that it is joined once."""
    if roles.in_body and any(
            all(roles.depends(p[side]) == CONSTANT for p in pairs) for side in (0, 1)):
        return True
    return _has_free(term.a, term.b, term.x) and _has_free(term.b, term.a, term.y)


def _has_free(labels: Sequence[Any], others: Sequence[Any], x: Value) -> bool:
    """Has ``x`` an axis of its own, of a size other than 1?"""
    return any(lab not in others and d != 1
               for lab, d in zip(labels, x.type.dims, strict=True))


# --- merge products of one operand ----------------------------------------------------------


@dataclass(frozen=True)
class Sharer:
    """A product seen from one operand x.  Labels: ('x', i) is axis i of x, ('f', k) the k-th
    axis that y has alone."""

    value: Value
    x: Value
    y: Value
    a: tuple[tuple[str, int], ...]
    b: tuple[tuple[str, int], ...]
    out: tuple[tuple[str, int], ...]

    @staticmethod
    def of(value: Value, flipped: bool) -> Sharer:
        op = made_by(value, Dot)
        assert op is not None
        x, y = operands(value)
        a, b = op.a, op.b
        if flipped:
            x, y, a, b = y, x, b, a
        names = {label: ("x", i) for i, label in enumerate(a)}
        for label in b:
            names.setdefault(label, ("f", len(names) - len(a)))
        return Sharer(value, x, y, *(tuple(names[k] for k in g)  # type: ignore[arg-type]
                                     for g in (a, b, op.out)))

    def merge_keys(self) -> list[tuple[Any, ...]]:
        """What must agree, per axis that may differ in size."""
        found = []
        for axis, label in enumerate(self.b):
            if label[0] == "f":
                others = tuple(d for k, d in enumerate(self.y.type.dims) if k != axis)
                found.append((self.x, self.b, axis, others))
        return found


def _merge_shared(graph: Graph, context: Context) -> Graph:
    """dot(h, u), dot(h, v) --> dot(h, concatenate(u, v)) and a slice for each"""
    roles, level = _roles(graph, context), _levels(graph)
    groups: dict[Any, list[Sharer]] = defaultdict(list)
    for node in _dots(graph):
        v = node.outputs[0]
        for flipped in (False, True):
            if flipped and node.inputs[0] is node.inputs[1]:
                continue
            sharer = Sharer.of(v, flipped)
            if made_by(sharer.y, Windows):
                continue
            for key in sharer.merge_keys():
                groups[key, roles.kind(v), roles.depends(sharer.y), level[v],
                       _scan_of(sharer.y)].append(sharer)
    mapping: dict[Value, Value] = {}
    for (key, *_), group in sorted(groups.items(), key=lambda item: -len(item[1])):
        free = [s for s in group if s.value not in mapping]
        if len(free) > 1 and _shared_is_worth(free, roles):
            free.sort(key=lambda s: context.rank(_item(s.y)))
            for v, part in _merged_sharers(free, key[2]):
                _note(context, "merge_shared", mapping, v, part)
    return substitute(graph, mapping, context)


def _item(value: Value) -> Value:
    """The value that a stack stacks: joined stacks and the joined values of the step have one
    order, so that one is the stack of the other."""
    rows = stacked(value)
    return value if rows is None else rows.item


def _scan_of(value: Value) -> Node | None:
    """The scan that stacks ``value``.  Stacks of different scans are not joined: they are large,
    and each would be copied."""
    rows = stacked(value)
    return None if rows is None else rows.scan


def _levels(graph: Graph) -> dict[Value, int]:
    """Per value, how many products stand on the longest path to it: those of one level do not
    depend on each other, and neither do the merged ones."""
    level: dict[Value, int] = {}
    for node in graph.nodes():
        most = max((level.get(v, 0) for v in node.inputs), default=0)
        level.update((v, most + isinstance(node.op, Dot)) for v in node.outputs)
    return level


def _shared_is_worth(group: Sequence[Sharer], roles: Roles) -> bool:
    s = group[0]
    if roles.in_body and all(roles.depends(t.y) == CONSTANT for t in group):
        return True
    return _has_free(s.a, s.b, s.x)


def _merged_sharers(group: Sequence[Sharer], axis: int) -> list[tuple[Value, Any]]:
    first = group[0]
    label = first.b[axis]
    merged = dot_general(first.a, first.b, first.out, first.x,
                         concatenate([s.y for s in group], axis))
    place, start, found = first.out.index(label), dim(0), []
    for s in group:
        length: Dim = s.y.type.dims[axis]
        part = slice_(merged, axis_region(merged, place, start, length))
        part = fitting(transpose(part, [first.out.index(lab) for lab in s.out]), s.value)
        if part is None:
            return []
        found.append((s.value, part))
        start = start + length
    return found


def _merge_one(graph: Graph, context: Context) -> Graph:
    while True:
        new = _merge_shared(_merge_sums(graph, context), context)
        if new.outputs == graph.outputs:
            return graph
        graph = new


def _merge(graph: Graph, context: Context) -> Graph:
    """dot(h, u), dot(h, v) --> dot(h, concatenate(u, v)) and slices;  dot(x, u) + dot(y, v) -->
    dot(concatenate(x, y), concatenate(u, v)), among products that stay in a loop together"""
    return everywhere(graph, context, _merge_one)


label_dots = rule_pass(
    "label_dots", "dot(x.T, y), dot(x, y).T, sums of batched dots --> one dot, by its labels",
    LABEL_RULES, ROUNDS)
split_dots = graph_pass("split_dots", _split)
merge_dots = graph_pass("merge_dots", _merge)
