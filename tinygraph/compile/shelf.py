"""Where compiled code is kept, and how it is found again.

There are two keys.  The *content key* is what the closed graph says: equal keys, equal code.  To
know it, the graph must be closed, which takes longer than all the rest of a warm start.  So an
entry under the *request key*, which is what the user built with all names and lines, holds the
content key and what closing found out; whoever starts the same program again closes nothing.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.backends.llvm import jit
from tinygraph.compile.close import Closed, Conditions
from tinygraph.compile.fingerprint import Unkeyed, code_version, dump, fingerprint, restore
from tinygraph.config import config
from tinygraph.dims import Sym
from tinygraph.graph import Graph, Value
from tinygraph.lowering.lower import Lowered
from tinygraph.passes.pipeline import PIPELINE
from tinygraph.rewrite.engine import Pass
from tinygraph.store import Store


@dataclass(frozen=True)
class Kept:
    """Code from the shelf, and what its calls check."""

    lowered: Lowered
    code: jit.ObjectCode
    conditions: Conditions


class Shelf:
    """The place on disk of one function's code, if there is to be one."""

    def __init__(self, passes: Sequence[Pass], use: bool = True) -> None:
        self.passes = passes
        usual = use and all(p in PIPELINE for p in passes)
        self.store = Store(config.cache_path) if usual and config.cache == "on" else None
        self._content: tuple[str, list[Sym]] = "", []
        self._request: tuple[str, list[Sym]] = "", []

    def requested(self, graph: Graph, shared_shapes: Mapping[Value, tuple[int, ...]]
                  ) -> Kept | None:
        """What is kept for the graph that a user built; None where nothing is."""
        shapes = tuple(shared_shapes.get(v) for v in graph.inputs)
        self._request = self._key(graph, f"request {shapes}")
        data = self._get(self._request)
        if data is None:
            return None
        content, syms, conditions = data
        self._content = content, syms
        return self._kept(conditions)

    def closed(self, closed: Closed) -> Kept | None:
        """What is kept for a closed graph; None where nothing is."""
        checked = "".join(f"{g.left} {g.relation} {g.right}: {g.text}" for g in closed.late_guards)
        checked += f" {closed.unread} unread" if closed.unread else ""
        self._content = self._key(closed.graph, checked)
        found = self._kept(closed.conditions)
        if found is not None:
            self._note(found.conditions)
        return found

    def put(self, lowered: Lowered, code: jit.ObjectCode, closed: Closed) -> None:
        """Keep ``code`` for the graphs that were asked for last."""
        key, syms = self._content
        if self.store is not None and key:
            self.store.put(key, dump((lowered, code), syms))
            self._note(closed.conditions)

    def _note(self, conditions: Conditions) -> None:
        key, syms = self._request
        if self.store is None or not key:
            return
        try:
            data = dump((*self._content, conditions), syms, strict=True)
        except Unkeyed:
            return  # a size that the graph makes itself: it is closed at every start
        self.store.put(key, data)

    def _kept(self, conditions: Conditions) -> Kept | None:
        data = self._get(self._content)
        if data is None:
            return None
        lowered, code = data
        return Kept(lowered, code, conditions)

    def _get(self, key: tuple[str, list[Sym]]) -> Any:
        text, syms = key
        data = self.store.get(text) if self.store is not None and text else None
        return None if data is None else restore(data, syms)

    def _key(self, graph: Graph, more: str) -> tuple[str, list[Sym]]:
        """A key, or '' for what cannot be cached."""
        if self.store is None:
            return "", []
        try:
            content, syms = fingerprint(graph, messages=bool(more))
        except Unkeyed:
            return "", []
        names = " ".join(p.name for p in self.passes)
        parts = (content, more, names, jit.target_key(), code_version(), np.__version__,
                 str(pickle.HIGHEST_PROTOCOL))
        return "\n".join(parts), syms
