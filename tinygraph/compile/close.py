"""Close a graph for compilation: gather the guards, solve the sizes, intern the nodes.

What the user built says nothing of which sizes are the same; its guards do.  A guard 'a equals
b' is checked at every call with new sizes, so the passes may take a for b: afterwards equal
sizes are one Dim, and sizes of shared variables are the numbers they have now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tinygraph.dims import Dim, Sym, dim, is_late
from tinygraph.graph import Graph, Guard, Type, Value, map_op, op_dims, subgraphs
from tinygraph.interning import Interner
from tinygraph.late import late_symbols
from tinygraph.ops.arithmetic import Arithmetic
from tinygraph.ops.callback import OwnSize


@dataclass(frozen=True)
class Conditions:
    """What a call checks: ``guards`` are in the user's symbols; ``scalars`` are the symbols that
    stand for values of integer scalars.  ``late``: the late symbols, where results have such
    sizes; a call has a result more for each, which holds its value."""

    guards: tuple[Guard, ...]
    scalars: tuple[Sym, ...]
    late: tuple[Sym, ...]


@dataclass(frozen=True)
class Closed(Conditions):
    """``graph`` is interned and its sizes are solved.  ``late_guards``: those that mention late
    symbols; the program itself checks them.  ``unread``: how many outputs of the graph, the last
    ones, are no results: values of late symbols, there so that nobody takes their makers for
    dead."""

    graph: Graph
    interner: Interner
    late_guards: tuple[Guard, ...] = ()
    unread: int = 0

    @property
    def conditions(self) -> Conditions:
        """What a call checks, without the graph."""
        return Conditions(self.guards, self.scalars, self.late)


def collect_guards(graph: Graph) -> Iterator[Guard]:
    """The relations that only the sizes of a run can decide, bodies included."""
    for node in graph.nodes():
        for guard in node.op.requires(*node.inputs):
            if guard.holds() is not True:
                yield guard
        for body in subgraphs(node.op):
            yield from collect_guards(body)


class Solution:
    """Symbols replaced by what they equal."""

    def __init__(self) -> None:
        self.known: dict[Sym, Dim] = {}
        self._solved: dict[Dim, Dim] = {}

    def __call__(self, s: Sym) -> Dim:
        found = self.known.get(s)
        if found is None:
            return dim(s)
        solved = found.substitute(self)
        self.known[s] = solved
        return solved

    def dim(self, d: Dim) -> Dim:
        """``d`` in what is known."""
        found = self._solved.get(d)
        if found is None:
            new = d.substitute(self)
            found = self._solved[d] = d if new == d else new
        return found

    def equate(self, a: Dim, b: Dim) -> None:
        """Learn that a equals b, where one of them is a lone symbol."""
        a, b = self.dim(a), self.dim(b)
        if a == b or is_late(a) or is_late(b):
            return
        for left, right in sorted(((a, b), (b, a)), key=_preference):
            s = left.symbol
            if s is not None and s not in right.syms():
                self.known[s] = right
                self._solved.clear()
                return


def _preference(pair: tuple[Dim, Dim]) -> tuple[bool, bool, bool]:
    """Replace a symbol by a number rather than by a symbol, an axis's rather than a scalar's,
    and first one that only a user's op knows."""
    left, right = pair
    s = left.symbol
    return (right.const is None, not isinstance(s, OwnSize), s is None or s.value is not None)


def close(graph: Graph, shared_shapes: Mapping[Value, tuple[int, ...]]) -> Closed:
    """The closed form of a user's graph.

    Raises the error of a guard that the shapes of shared variables refute already.
    """
    guards = list(dict.fromkeys(collect_guards(graph)))
    solution = Solution()
    for shared, shape in shared_shapes.items():
        for d, n in zip(shared.type.dims, shape, strict=True):
            s = d.symbol
            if s is not None:
                solution.known[s] = dim(n)
    for guard in guards:
        solved = guard.substitute(solution)
        if solved.holds() is False:
            solved.check({})
    # A number reaches every symbol that equals it, whichever guard comes first.
    for _ in range(2):
        for guard in guards:
            if guard.relation == "eq":
                solution.equate(guard.left, guard.right)
    interner = Interner(Arithmetic)
    syms = {s for g in guards for d in (g.left, g.right) for s in d.syms()} | all_syms(graph)
    counts = _late_counts(graph) if any(s.bound is not None for s in syms) else {}
    whole = Graph(graph.inputs, (*graph.outputs, *counts.values())) if counts else graph
    closed = _Substitution(solution, interner).graph(whole)
    found = late_symbols(whole)
    scalars = tuple(sorted((s for s in syms if s.value is not None and s not in found),
                           key=lambda s: s.key))
    early = tuple(g for g in guards if not _mentions(g, found))
    late = tuple(g.substitute(solution) for g in guards if _mentions(g, found))
    read = any(is_late(d) for v in graph.outputs for d in v.type.dims)
    return Closed(early, scalars, tuple(counts) if read else (), closed, interner, late,
                  0 if read else len(counts))


def _late_counts(graph: Graph) -> dict[Sym, Value]:
    """The variable behind every late symbol that ``graph`` finds out or only mentions."""
    counts: dict[Sym, Value] = {}
    roots, bodies = list(graph.outputs), late_symbols(graph)
    while True:
        whole = Graph(graph.inputs, tuple(roots))
        counts.update((s, n.outputs[k]) for n in whole.nodes() for s, k in n.op.late())
        missing = {s for s in all_syms(whole) if s.bound is not None and s.value is not None}
        missing -= counts.keys() | bodies
        if not missing:
            return counts
        roots += [s.value for s in sorted(missing, key=lambda s: s.key)]


def _mentions(guard: Guard, syms: set[Sym]) -> bool:
    return bool(syms) and not syms.isdisjoint(guard.left.syms() | guard.right.syms())


class _Substitution:
    """A graph rebuilt with solved sizes on interned nodes."""

    def __init__(self, solution: Solution, interner: Interner) -> None:
        self.solution, self.interner = solution, interner
        self.bodies: dict[Graph, Graph] = {}

    def graph(self, graph: Graph) -> Graph:
        inputs = tuple(self.leaf(v) for v in graph.inputs)
        memo: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))
        for node in graph.nodes():
            op = map_op(node.op, self.solution.dim, self.body)
            made = self.interner.make(op, *(memo[v] for v in node.inputs),
                                      source=node.outputs[0].source)
            for old, new in zip(node.outputs, made, strict=True):
                new.name = new.name or old.name
                memo[old] = new
        return Graph.closed(inputs, tuple(memo[v] for v in graph.outputs))

    def body(self, graph: Graph) -> Graph:
        if graph not in self.bodies:
            self.bodies[graph] = self.graph(graph)
        return self.bodies[graph]

    def leaf(self, v: Value) -> Any:
        dims = tuple(self.solution.dim(d) for d in v.type.dims)
        return Arithmetic(Type(v.type.dtype, dims), name=v.name, source=v.source)


def all_syms(graph: Graph) -> set[Sym]:
    """Every symbol in the types and ops of a graph, bodies included."""
    found: set[Sym] = set()

    def note(dims: Iterable[Dim]) -> None:
        for d in dims:
            found.update(d.syms())

    for v in graph.inputs:
        note(v.type.dims)
    for node in graph.nodes():
        note(op_dims(node.op))
        for v in node.outputs:
            note(v.type.dims)
        for body in subgraphs(node.op):
            found.update(all_syms(body))
    return found
