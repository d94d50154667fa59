"""Which nodes a block of code builds: how a scan tells what its step makes from what it reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tinygraph.graph import Node

_BUILT: ContextVar[set[Node] | None] = ContextVar("tinygraph.built", default=None)


@contextmanager
def nodes_built() -> Iterator[set[Node]]:
    """A set that gets every node of user's variables that is built inside the block; a block
    around it gets them too."""
    nodes: set[Node] = set()
    outer = _BUILT.get()
    token = _BUILT.set(nodes)
    try:
        yield nodes
    finally:
        _BUILT.reset(token)
        if outer is not None:
            outer |= nodes


@contextmanager
def unnoticed() -> Iterator[None]:
    """What is built inside the block is no part of the blocks around it."""
    token = _BUILT.set(None)
    try:
        yield
    finally:
        _BUILT.reset(token)


def note_built(node: Node) -> None:
    """Tell the block that is running, if there is one."""
    nodes = _BUILT.get()
    if nodes is not None:
        nodes.add(node)
