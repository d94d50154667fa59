"""Which statements of a program are timed, where a profile is asked for.

Every stage of a region stands between two ``Stamp``s.  Their buffer has three numbers per mark:
when it began last, how many ticks it took so far, and how often it ran.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tinygraph.dtypes import int64
from tinygraph.graph import Value
from tinygraph.loops import build as E
from tinygraph.loops.language import STAMP_NUMBERS, Buffer, Stamp
from tinygraph.lowering.nest import Nest

MOST = 2048  # marks of a program; what comes then is part of what stands around it


@dataclass(frozen=True)
class Mark:
    """What is timed: ``values`` are made by it, inside mark ``parent`` (-1: it is the whole).

    kind    'nest', 'copy', 'product', 'scan' or the name of an op
    ops     the names of the ops;  names, sources: of the user's variables and lines, the line
            of most of the values first
    shared  it stands in a parallel loop: threads may run it side by side, and their times add up
    """

    parent: int
    kind: str
    ops: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    shared: bool = False


def made_by(k: int, stage: object, ready: Mapping[Value, int], home: Container[Value]
            ) -> tuple[str, list[Value], list[str]]:
    """Of stage ``k`` of a region: its kind, the values it makes, the ops that they are of.
    ``ready``, ``home``: those of the region."""
    if isinstance(stage, Nest):
        made = [v for v, _, _ in stage.steps]
        made += [v for v, at in ready.items() if at == k and v not in home]
        kinds = [fn.name for _, fn, _ in stage.steps] + [r.kind for r in stage.reductions]
        return "nest" if kinds else "copy", made, kinds
    made = [v for v, at in ready.items() if at == k]
    nodes = [v.node for v in made if v.node is not None]
    kind = type(nodes[0].op).__name__.lower() if nodes else "copy"
    return {"dot": "product"}.get(kind, kind), made, [str(n.op) for n in nodes]


class Clock:
    """The marks of a program that is being written."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []
        self.buffer = Buffer("ticks$0", int64, E.index(STAMP_NUMBERS * MOST), "arg", True)
        self._open = [-1]

    def array(self) -> np.ndarray:
        """What the caller passes as the buffer."""
        return np.zeros(STAMP_NUMBERS * MOST, np.int64)

    @contextmanager
    def timed(self, b: E.Builder, kind: str, values: Sequence[Value] = (), ops: Sequence[str] = (),
              shared: bool = False) -> Iterator[None]:
        """Time what is written inside."""
        slot = len(self.marks)
        if slot >= MOST:
            yield
            return
        self.marks.append(Mark(
            self._open[-1], kind, tuple(dict.fromkeys(ops)),
            tuple(dict.fromkeys(v.name for v in values if v.name)),
            tuple(line for line, _ in Counter(v.source for v in values if v.source).most_common()),
            shared))
        self._open.append(slot)
        b.emit(Stamp(self.buffer, slot, True))
        yield
        b.emit(Stamp(self.buffer, slot, False))
        self._open.pop()
