"""The rewriting engine: named rules, applied bottom-up to interned nodes until none fires.

Purely functional: a graph goes in, a graph comes out, and where no rule fired the very same
nodes come out.  No step recurses on the depth of a graph, only on the nesting of scans.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygraph.errors import InternalError
from tinygraph.graph import (
    NOWHERE,
    Graph,
    Node,
    Op,
    Value,
    has_body,
    map_graphs,
    toposort,
    with_source,
)
from tinygraph.interning import Interner
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
        self._users: dict[Value, int] | None = None

    def users(self, value: Value) -> int | None:
        """How many places read ``value`` (outputs count), or None for a value that is newer
        than the frame."""
        if self._users is None:
            users = self._users = dict(Counter(self.graph.outputs))
            for node in self.graph.nodes():
                for v in node.inputs:
                    users[v] = users.get(v, 0) + 1
        return self._users.get(value)


@dataclass
class Context:
    """What rules and passes may ask, for the length of one compilation.

    ``asked``: has a rule asked who reads a value?  Then its answer holds for this graph alone.
    """

    interner: Interner
    journal: Journal = field(default_factory=Journal)
    frame: Frame | None = None
    pass_name: str = ""
    asked: bool = False
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
        self.asked = True
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
        out = with_source(NOWHERE, self.function, graph, context)
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
    ``resting``: nodes at which no rule fires, whatever the graph around them: nodes never change,
    so a rule that looks at operands only has said all that it will ever say.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self.settled: set[Any] = set()
        self.resting: set[Node] = set()
        self._known: dict[Any, tuple[Rule, ...]] = {}

    def __call__(self, op: Op) -> tuple[Rule, ...]:
        key: Any = op.fn.name if isinstance(op, Elemwise) else type(op)
        found = self._known.get(key)
        if found is None:
            name = "cast" if isinstance(key, str) and key.startswith("cast_") else key
            found = self._known[key] = tuple(
                r for r in self.rules
                if any(k == name if isinstance(k, str) else isinstance(op, k) for k in r.on))
        return found


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
        return graph if outputs == graph.outputs else Graph.closed(graph.inputs, outputs)

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
        changed: set[Value] = set()
        resting = self.table.resting
        self.budget = self.LIMIT * (len(graph.nodes()) + 10)
        for node in graph.nodes():
            if node in resting and changed.isdisjoint(node.inputs):
                final[node] = node.outputs  # most nodes of most passes
                continue
            if node not in final:
                self._sweep_one(node, final)
            if final[node] is not node.outputs:
                changed.update([v for v, new in zip(node.outputs, final[node], strict=True)
                                if v is not new])
        return tuple(final[v.node][v.index] if v.node else v for v in graph.outputs)

    def _sweep_one(self, node: Node, final: dict[Node, Sequence[Value]]) -> None:
        """Settle a node whose operands are settled."""
        new = self._settled_operands(node, final)
        replaced = None if new in final else self._replacement(new)
        if replaced is None:
            final[node] = final.setdefault(new, new.outputs)
            return
        todo: list[tuple[Node, int, Any]] = [(node, _RESULT, (new, replaced))]
        todo += [(v.node, _VISIT, None) for v in reversed(replaced) if v.node]
        self._settle(todo, {node, new}, final)

    def _settle(self, stack: list[tuple[Node, int, Any]], active: set[Node],
                final: dict[Node, Sequence[Value]]) -> None:
        """Rewrite the nodes on the stack, and what takes their places, until no rule fires."""
        while stack:
            node, state, payload = stack.pop()
            if state == _VISIT:
                if node in final:
                    continue
                if node in active:
                    raise self._cycle(node)
                active.add(node)
                stack.append((node, _REBUILD, None))
                stack.extend((v.node, _VISIT, None) for v in reversed(node.inputs)
                             if v.node and v.node not in final)
            elif state == _REBUILD:
                new = self._settled_operands(node, final)
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
                final[node] = final[new] = tuple(
                    final[v.node][v.index] if v.node else v for v in replaced)
                active -= {node, new}

    def _settled_operands(self, node: Node, final: dict[Node, Sequence[Value]]) -> Node:
        """``node`` over what became of its operands, and with what became of its bodies."""
        same, inputs = True, []
        for v in node.inputs:
            new = v if v.node is None else final[v.node][v.index]
            same = same and new is v
            inputs.append(new)
        op = node.op
        if has_body(op):
            op = map_graphs(op, lambda body: self._body(node.op, body))
        if op is not node.op:
            made = self.context.interner.make(op, *inputs, source=node.outputs[0].source)
            inherit(made, node.outputs)
            return made[0].node
        return node if same else self.context.interner.remake(node, tuple(inputs))

    def _replacement(self, node: Node) -> list[Any] | None:
        """What the first rule that fires makes of ``node``, interned."""
        if node in self.table.resting:
            return None
        self.context.asked = False
        start = time.perf_counter()
        for candidate in self.table(node.op):
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
        if not self.context.asked and not has_body(node.op):
            self.table.resting.add(node)
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
    for node in graph.loops:
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
    known = {v: context.intern(new, source=v.source)[0] for v, new in mapping.items()
             if new is not v}
    final: dict[Value, Value] = {}  # what changed
    done: set[Node | Value] = set()
    active: set[Node | Value] = set()
    stack: list[Any] = _below(graph.outputs, known, done)
    while stack:
        item = stack[-1]
        if item in done:
            stack.pop()
            continue
        waiting = _below((known[item],) if item in known else item.inputs, known, done)
        if not waiting:
            done.add(item)
            active.discard(stack.pop())
            _finish(item, known, final, context)
            continue
        if not active.isdisjoint(waiting):
            replaced = next(x for x in (item, *active) if x in known)
            raise InternalError(f"the replacement of {expression(replaced)} needs it")
        active.add(item)
        stack += waiting
    outputs = tuple([final.get(v, v) for v in graph.outputs])
    return graph if outputs == graph.outputs else Graph.closed(graph.inputs, outputs)


def _below(values: Sequence[Value], known: Mapping[Value, Value], done: Container[Any]
           ) -> list[Node | Value]:
    """What ``substitute`` must finish before ``values``, last to first: values that are replaced,
    and nodes."""
    found: list[Node | Value] = []
    for v in reversed(values):
        item = v if v in known else v.node
        if item is not None and item not in done:
            found.append(item)
    return found


def _finish(item: Any, known: Mapping[Value, Value], final: dict[Value, Value], context: Context
            ) -> None:
    """Note what becomes of a value that is replaced, or of the results of a node."""
    if item in known:
        target = known[item]
        check_replacement(context.pass_name, [item], [target])
        final[item] = final.get(target, target)
        inherit([final[item]], [item])
        return
    if any([v in final for v in item.inputs]):
        node = context.interner.remake(item, tuple([final.get(v, v) for v in item.inputs]))
        for old, new in zip(item.outputs, node.outputs, strict=True):
            if old not in known:
                final[old] = new


def ancestors(values: Iterable[Value]) -> set[Value]:
    """Every value that ``values`` need, they included."""
    values = list(values)
    found = set(values)
    for node in toposort(values):
        found.update(node.outputs)
        found.update(node.inputs)
    return found
