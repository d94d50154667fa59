"""The rewriting engine: named rules, applied bottom-up to interned nodes until none fires.

Purely functional: a graph goes in, a graph comes out, and where no rule fired the very same
nodes come out.  No step recurses on the depth of a graph, only on the nesting of scans.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygraph.errors import InternalError
from tinygraph.graph import Graph, Interner, Node, Op, Value, map_graphs, subgraphs, toposort
from tinygraph.ops.arithmetic import Elemwise
from tinygraph.rewrite.journal import Journal, PassRecord, expression

Result = Any  # a rule's answer: a Value, a sequence of Values (one per result), or None
RuleFunction = Callable[[Node, "Context"], Result]


@dataclass(frozen=True)
class Rule:
    """A rewrite of one node.

    ``function(node, context)`` gives the replacement (a Value, or one per result of the node),
    or None where the rule does not apply.  ``on`` says where to try: classes of ops, or names of
    scalar functions ("add"; "cast" for every cast).  ``doc`` reads "before --> after".
    """

    name: str
    doc: str
    on: tuple[type[Op] | str, ...]
    function: RuleFunction

    def __repr__(self) -> str:
        return f"<rule {self.name}>"


def rule(*on: type[Op] | str) -> Callable[[RuleFunction], Rule]:
    """Make a Rule of a function whose docstring reads "before --> after"."""
    def make(function: RuleFunction) -> Rule:
        doc = " ".join((function.__doc__ or "").split())
        return Rule(function.__name__, doc, on, function)  # type: ignore[attr-defined]
    return make


class Frame:
    """The graph that is being rewritten: the whole one, or the body of ``op``.

    What it says about users holds for the graph as it was when the frame was made.
    """

    def __init__(self, graph: Graph, op: Any = None) -> None:
        self.graph, self.op = graph, op
        self._users: Counter[Value] | None = None

    def users(self, value: Value) -> int | None:
        """How many places read ``value`` (outputs count), or None for a value that is newer
        than the frame."""
        if self._users is None:
            self._users = Counter(self.graph.outputs)
            for node in self.graph.nodes():
                self._users.update(node.inputs)
        return self._users.get(value)


@dataclass
class Context:
    """What rules and passes may ask, for the length of one compilation."""

    interner: Interner
    journal: Journal = field(default_factory=Journal)
    frame: Frame | None = None
    pass_name: str = ""
    _ranks: dict[Value, int] = field(default_factory=dict)
    _tables: dict[tuple[int, ...], _Dispatch] = field(default_factory=dict)

    def table(self, rules: Sequence[Rule]) -> _Dispatch:
        """The one table of ``rules``."""
        key = tuple(map(id, rules))
        if key not in self._tables:
            self._tables[key] = _Dispatch(rules)
        return self._tables[key]

    def users(self, value: Value) -> int | None:
        """How many places of the current graph read ``value``; None where that is not known."""
        return self.frame.users(value) if self.frame is not None else None

    def rank(self, value: Value) -> int:
        """A number that orders operands of commutative functions: first asked, first placed."""
        return self._ranks.setdefault(value, len(self._ranks))

    def intern(self, *values: Value, source: str = "") -> list[Any]:
        """``values`` with every new node interned; new nodes come from ``source``, if given."""
        stack = [v.node for v in values if v.node] if source else []
        while stack:
            node = stack.pop()
            if not self.interner.owns(node) and node.outputs[0].source != source:
                for v in node.outputs:
                    v.source = source
                stack.extend(v.node for v in node.inputs if v.node)
        return self.interner.values(values, {})


@dataclass(frozen=True)
class Pass:
    """A named function Graph --> Graph; calling it notes time and sizes in the journal."""

    name: str
    doc: str
    function: Callable[[Graph, Context], Graph]

    def __call__(self, graph: Graph, context: Context) -> Graph:
        outer, context.pass_name = context.pass_name, self.name
        start, nodes = time.perf_counter(), count_nodes(graph)
        out = self.function(graph, context)
        seconds = time.perf_counter() - start
        context.journal.passes.append(_record(self.name, seconds, nodes, graph, out))
        context.pass_name = outer
        return out


def _record(name: str, seconds: float, nodes: int, before: Graph, after: Graph) -> PassRecord:
    changed = before.outputs != after.outputs
    return PassRecord(name, seconds, nodes, count_nodes(after) if changed else nodes, changed)


def graph_pass(name: str, function: Callable[[Graph, Context], Graph]) -> Pass:
    """Make a Pass of a function whose docstring reads "before --> after"."""
    return Pass(name, " ".join((function.__doc__ or "").split()), function)


def rule_pass(name: str, doc: str, rules: Sequence[Rule], rounds: int = 1) -> Pass:
    """The pass that applies ``rules`` until none fires."""
    def function(graph: Graph, context: Context) -> Graph:
        return rewrite(graph, rules, context, rounds)
    return Pass(name, doc, function)


def count_nodes(graph: Graph) -> int:
    """The number of nodes of ``graph`` and of every body in it."""
    return graph.size


# --- rules ----------------------------------------------------------------------------------


def rewrite(graph: Graph, rules: Sequence[Rule], context: Context, rounds: int = 1) -> Graph:
    """``graph`` and every body in it (inner ones first), rewritten until no rule fires.

    One round reaches the fixpoint of rules that look at operands only, since operands are
    settled before their readers and what a rule builds is rewritten at once.  Rules that ask
    ``context.users`` need more ``rounds``, which end as soon as one changes nothing.

    Raises InternalError naming the rule if a replacement has another type than what it replaces,
    or if rules undo each other.
    """
    table = context.table(rules)
    for _ in range(rounds):
        new = _Rewriter(table, context).graph(context.interner.graph(graph), None)
        if new.outputs == graph.outputs:
            return graph
        graph = new
    return graph


class _Dispatch:
    """Which rules to try at an op, in the order of the table.

    ``settled``: bodies in which no rule fires any more; a later run passes them by.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self.settled: set[Any] = set()
        self._known: dict[Any, tuple[Rule, ...]] = {}

    def __call__(self, op: Op) -> tuple[Rule, ...]:
        key: Any = type(op)
        name = ""
        if isinstance(op, Elemwise):
            name = "cast" if op.fn.name.startswith("cast_") else op.fn.name
            key = (key, name)
        if key not in self._known:
            self._known[key] = tuple(
                r for r in self.rules
                if any(k == name if isinstance(k, str) else isinstance(op, k) for k in r.on))
        return self._known[key]


_VISIT, _REBUILD, _RESULT = range(3)


class _Rewriter:
    """One round.  ``bodies`` holds what became of each body."""

    LIMIT = 200  # applications per node: far above what terminating rules need

    def __init__(self, table: _Dispatch, context: Context) -> None:
        self.table, self.context, self.budget = table, context, 0
        self.bodies: dict[Any, Graph] = {}

    def graph(self, graph: Graph, op: Any) -> Graph:
        outer, self.context.frame = self.context.frame, Frame(graph, op)
        try:
            outputs = self._sweep(graph)
        finally:
            self.context.frame = outer
        return graph if outputs == graph.outputs else Graph(graph.inputs, outputs)

    def _body(self, op: Op, body: Graph) -> Graph:
        key = (body, getattr(op, "groups", None))
        if key in self.table.settled:
            return body
        if key not in self.bodies:
            new = self.context.interner.body(self.graph(self.context.interner.body(body), op))
            if new is body:
                self.table.settled.add(key)
            self.bodies[key] = new
        return self.bodies[key]

    def _sweep(self, graph: Graph) -> tuple[Value, ...]:
        final: dict[Node, Sequence[Value]] = {}
        self.budget = self.LIMIT * (len(graph.nodes()) + 10)
        for node in graph.nodes():
            if node in final:
                continue
            if not self._rests(node, final):
                self._settle([(node, _VISIT, None)], set(), final)
                continue
            # Most nodes of most passes: the operands stay, and no rule fires.
            replaced = self._replacement(node) if self.table(node.op) else None
            if replaced is None:
                final[node] = node.outputs
            else:
                todo: list[tuple[Node, int, Any]] = [(node, _RESULT, (node, replaced))]
                todo += [(v.node, _VISIT, None) for v in reversed(replaced) if v.node]
                self._settle(todo, {node}, final)
        return tuple(final[v.node][v.index] if v.node else v for v in graph.outputs)

    @staticmethod
    def _rests(node: Node, final: dict[Node, Sequence[Value]]) -> bool:
        """Do the operands stay as they are (and is there no body)?"""
        for v in node.inputs:
            if v.node is not None and final[v.node][v.index] is not v:
                return False
        return not subgraphs(node.op)

    def _settle(self, stack: list[tuple[Node, int, Any]], active: set[Node],
                final: dict[Node, Sequence[Value]]) -> None:
        """Rewrite the nodes on the stack, and what takes their places, until no rule fires."""
        def settled(v: Value) -> Value:
            return final[v.node][v.index] if v.node else v

        while stack:
            node, state, payload = stack.pop()
            if state == _VISIT:
                if node in final:
                    continue
                if node in active:
                    raise self._cycle(node)
                active.add(node)
                stack.append((node, _REBUILD, None))
                stack.extend((v.node, _VISIT, None) for v in reversed(node.inputs) if v.node)
            elif state == _REBUILD:
                new = self._rebuilt(node, tuple(map(settled, node.inputs)))
                if new is not node and new in active:
                    raise self._cycle(new)
                replaced = None if new in final else self._replacement(new)
                if replaced is None:
                    final[node] = final.setdefault(new, new.outputs)
                    active.discard(node)
                    continue
                self.budget -= 1
                if self.budget < 0:
                    raise self._cycle(new)
                active.add(new)
                stack.append((node, _RESULT, (new, replaced)))
                stack.extend((v.node, _VISIT, None) for v in reversed(replaced) if v.node)
            else:
                new, replaced = payload
                final[node] = final[new] = tuple(map(settled, replaced))
                active -= {node, new}

    def _rebuilt(self, node: Node, inputs: tuple[Value, ...]) -> Node:
        op = map_graphs(node.op, lambda body: self._body(node.op, body))
        if op is node.op and inputs == node.inputs:
            return node
        outputs = self.context.interner.make(op, *inputs, source=node.outputs[0].source)
        inherit(outputs, node.outputs)
        return outputs[0].node

    def _replacement(self, node: Node) -> list[Any] | None:
        """What the first rule that fires makes of ``node``, interned."""
        for candidate in self.table(node.op):
            start = time.perf_counter()
            result = candidate.function(node, self.context)
            if result is None:
                continue
            values = [result] if isinstance(result, Value) else list(result)
            check_replacement(candidate.name, node.outputs, values)
            values = self.context.intern(*values, source=node.outputs[0].source)
            if all(a is b for a, b in zip(values, node.outputs, strict=True)):
                continue
            inherit(values, node.outputs)
            self.context.journal.note(self.context.pass_name, candidate.name, node.outputs,
                                      values, time.perf_counter() - start)
            return values
        return None

    def _cycle(self, node: Node) -> InternalError:
        last = [entry.rule for entry in self.context.journal.entries[-8:]]
        return InternalError(f"rules undo each other at {expression(node.outputs[0])}; the last "
                             f"ones were {', '.join(last)}")


def check_replacement(name: str, old: Sequence[Value], new: Sequence[Value]) -> None:
    """Raise InternalError unless ``new`` may stand where ``old`` stood."""
    if len(old) != len(new):
        raise InternalError(f"{name} replaced {len(old)} values by {len(new)}")
    for a, b in zip(old, new, strict=True):
        if a.type != b.type:
            raise InternalError(f"{name} replaced {expression(a)} of type {a.type} by "
                                f"{expression(b)} of type {b.type}")


def inherit(new: Iterable[Value], old: Iterable[Value]) -> None:
    """Results that replace others take over their user's names and lines, where they have none.
    Leaves keep what they have."""
    for a, b in zip(new, old, strict=True):
        if a.node is not None:
            a.name = a.name or b.name
            a.source = a.source or b.source


# --- whole graphs ---------------------------------------------------------------------------


def everywhere(graph: Graph, context: Context, transform: Callable[[Graph, Context], Graph],
               op: Any = None, memo: dict[Any, Graph] | None = None) -> Graph:
    """``transform`` applied to every body in ``graph``, inner ones first, then to ``graph``.

    ``context.frame`` tells the transform whose body it is given.
    """
    memo = {} if memo is None else memo
    interner = context.interner
    graph = interner.graph(graph)
    mapping: dict[Value, Value] = {}
    for node in graph.nodes():
        owner = node.op

        def inner(body: Graph, owner: Op = owner) -> Graph:
            key = (body, getattr(owner, "groups", None))
            if key not in memo:
                new = everywhere(interner.body(body), context, transform, owner, memo)
                memo[key] = interner.body(new)
            return memo[key]

        changed = map_graphs(owner, inner)
        if changed is not owner:
            outputs = interner.make(changed, *node.inputs, source=node.outputs[0].source)
            mapping.update(zip(node.outputs, outputs, strict=True))
    graph = substitute(graph, mapping, context)
    outer, context.frame = context.frame, Frame(graph, op)
    try:
        return transform(graph, context)
    finally:
        context.frame = outer


def substitute(graph: Graph, mapping: Mapping[Value, Value], context: Context) -> Graph:
    """``graph`` with the keys of ``mapping`` replaced, also inside what replaces others.

    Raises InternalError if a replacement needs what it replaces.
    """
    if not mapping:
        return graph
    interner = context.interner
    known = {v: context.intern(new, source=v.source)[0] for v, new in mapping.items()}
    final: dict[Value, Value] = {}
    active: set[Value] = set()
    stack = [(v, False) for v in graph.outputs]
    while stack:
        v, ready = stack.pop()
        if v in final:
            continue
        target = known.get(v, v)
        needs = (target,) if target is not v else v.node.inputs if v.node else ()
        if not ready:
            if v in active:
                raise InternalError(f"the replacement of {expression(v)} needs it")
            active.add(v)
            stack.append((v, True))
            stack.extend((x, False) for x in reversed(needs) if x not in final)
            continue
        active.discard(v)
        if target is not v:
            check_replacement(context.pass_name, [v], [target])
            final[v] = final[target]
            inherit([final[v]], [v])
        elif v.node is None or all(final[x] is x for x in v.node.inputs):
            final[v] = v
        else:
            made = interner.make(v.node.op, *(final[x] for x in v.node.inputs), source=v.source)
            inherit(made, v.node.outputs)
            final[v] = made[v.index]
    outputs = tuple(final[v] for v in graph.outputs)
    return graph if outputs == graph.outputs else Graph(graph.inputs, outputs)


def ancestors(values: Iterable[Value]) -> set[Value]:
    """Every value that ``values`` need, they included."""
    values = list(values)
    found = set(values)
    for node in toposort(values):
        found.update(node.outputs)
        found.update(node.inputs)
    return found
