"""State that a step advances by itself: random draws, and shared variables with a default update.

A draw made by the step has a state, a shared variable, that is threaded from step to step, so that
every step draws anew.  A draw made outside and read by the step is one array, the same in all
steps.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from tinygraph.graph import Node, Value, toposort


def add_default_updates(updates: dict[Any, Any], outputs: Sequence[Value],
                        made: Container[Node]) -> None:
    """Add to the ``updates`` of a step the default update of every shared variable that it reads,
    unless there is an update already.

    ``made`` are the nodes that the step has built.  What an expression made outside reads is not
    read by the step.
    """
    while True:
        roots = [*outputs, *updates.values()]
        fresh = {v: v.default_update for v in _read(roots, made)
                 if v not in updates and getattr(v, "default_update", None) is not None}
        if not fresh:
            return
        updates.update(fresh)


def _read(roots: Sequence[Value], made: Container[Node]) -> list[Any]:
    """The leaves that are roots, or operands of nodes that the step has built."""
    read = list(roots)
    for node in toposort(roots):
        if node in made:
            read += node.inputs
    return [v for v in read if v.node is None]


def hand_on(made: Container[Node], finals: Mapping[Any, Any]) -> None:
    """From now on the states of the step's own draws advance by all steps of the scan, also where
    the caller drops its updates."""
    for state, final in finals.items():
        update = getattr(state, "default_update", None)
        if update is not None and update.node in made:
            state.default_update = final
