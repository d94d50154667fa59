"""How a user's rules and passes join those of the compiler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinygraph.graph import Graph, subgraphs
from tinygraph.ops.callback import Callback
from tinygraph.rewrite.engine import Pass, Rule, rule_pass


@dataclass(frozen=True)
class Plus:
    """The passes that ``base`` says, with ``more`` right before the first one called ``before``."""

    more: tuple[Pass, ...]
    base: Any
    before: str


def plus(*rewrites: Rule | Pass, passes: Any = None, before: str = "canonical") -> Plus:
    """For ``function(..., passes=...)``: rules and passes of your own besides the compiler's.

    passes  which of the compiler's: as for ``function``, all unless given
    before  the pass before which yours run, in their order; 'end' puts them behind all.  Before
            'canonical' they see the graph nearly as it was written; at the end they see what will
            be compiled.

    Raises TypeError for what is neither a Rule nor a Pass.
    """
    return Plus(tuple(as_pass(x) for x in rewrites), passes, before)


def as_pass(x: Any) -> Pass:
    """A rule as the pass that applies it until it fires no more; a Pass as it is."""
    if isinstance(x, Pass):
        return x
    if isinstance(x, Rule):
        return rule_pass(x.name, x.doc, (x,))
    raise TypeError(f"{x!r} is neither a rule nor a pass; write @rule(...) before a function of a "
                    "node, or graph_pass(name, function) of a function of a graph")


def needed(x: Any, graph: Graph) -> bool:
    """May a user's rewrite find anything to do?  A rule for users' ops can not, where there are
    none: no pass makes one."""
    if not isinstance(x, Rule) or x.on != (Callback,):
        return True
    return any(isinstance(n.op, Callback) or any(needed(x, body) for body in subgraphs(n.op))
               for n in graph.nodes())
