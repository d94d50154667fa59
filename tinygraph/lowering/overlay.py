"""Overlay: a loop's stack takes the place of a sequence that the loop reads for the last time.

The backward loop of a recurrent layer reads the input's share of the gates in step t, and later
in that step stores the gradients of the gates: rows of one size, in one order.  Where no one else
reads the sequence, both may lie in one buffer.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinygraph.dims import Dim
from tinygraph.loops.language import (
    Block,
    Buffer,
    Const,
    DimOf,
    Expr,
    For,
    Load,
    Stmt,
    Store,
    Var,
    While,
    buffers,
    children,
    expressions,
    operands,
)
from tinygraph.lowering.view import View


@dataclass(frozen=True)
class SameRows:
    """In the loop over ``step`` row t of ``read`` and row t of ``written`` are alike in place and
    shape."""

    step: str
    read: Buffer
    written: Buffer


def same_rows(step: str, sequences: Iterable[View], stacks: Iterable[View]) -> list[SameRows]:
    """The pairs of a sequence and a stack of one scan that might share a buffer."""
    found = []
    alike: dict[Any, list[View]] = {}
    for s in sequences:
        if s.buffer is not None and s.buffer.role == "temp":
            alike.setdefault((s.dtype, s.dims, s.strides), []).append(s)
    for stack in stacks:
        assert stack.buffer is not None
        if stack.buffer.role == "temp":
            found += [SameRows(step, s.buffer, stack.buffer)  # type: ignore[arg-type]
                      for s in alike.get((stack.dtype, stack.dims, stack.strides), [])
                      if s.buffer is not stack.buffer and _equal(s.offset, stack.offset)]
    return found


def _equal(a: Any, b: Any) -> bool:
    """Are two expressions written alike?"""
    if a is b:
        return True
    if type(a) is not type(b) or not dataclasses.is_dataclass(a):
        return bool(type(a) is type(b) and a == b)
    return all(_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def overlay(body: Block, bytes_of: Mapping[Buffer, Dim], pairs: Sequence[SameRows]) -> Block:
    """``body`` with every stack that can do so in the place of a sequence.

    It can where nothing reads the sequence after the loop or touches the stack before it, and
    every step has read its row before it stores one.
    """
    pairs = [p for p in pairs if bytes_of[p.read] == bytes_of[p.written]]
    if not pairs:
        return body
    uses = Uses(body)
    for pair in pairs:
        if _allowed(uses, pair):
            uses.rename(pair.written, pair.read)
    if not uses.names:
        return body
    return _renamed(body, {old: uses.now(old) for old in uses.names}, {})


@dataclass(frozen=True)
class Use:
    """A statement that touches a buffer: the loops around it, and when it comes."""

    loops: tuple[Stmt, ...]
    time: int


class Uses:
    """Where a program touches which buffer, found in one walk: there are many pairs to look at.

    ``names``: buffers that are to have the place of others; the program still has the old ones
    """

    def __init__(self, body: Block) -> None:
        self.names: dict[Buffer, Buffer] = {}
        self.steps: dict[str, list[tuple[For, Use]]] = {}
        self.spans: dict[int, tuple[int, int]] = {}  # per loop: its first and last moment
        self.starts: dict[int, list[int]] = {}  # per loop: when its own statements begin
        self._of: dict[Buffer, list[tuple[Stmt, Use]]] = {}
        for stmt, use in _timed(body, (), itertools.count()):
            for buffer in _touched(stmt):
                self._of.setdefault(buffer, []).append((stmt, use))
            for loop in use.loops:
                start, _ = self.spans.get(id(loop), (use.time, 0))
                self.spans[id(loop)] = (start, use.time)
            if use.loops:
                self.starts.setdefault(id(use.loops[-1]), []).append(use.time)
            if isinstance(stmt, For):
                self.steps.setdefault(stmt.var.name, []).append((stmt, use))

    def of(self, *wanted: Buffer) -> list[tuple[Stmt, Use]]:
        """The statements that touch one of the buffers, in order."""
        found = {use.time: (stmt, use) for b in wanted for stmt, use in self._of.get(b, [])}
        return [found[time] for time in sorted(found)]

    def rename(self, old: Buffer, new: Buffer) -> None:
        """``old`` gets the place of ``new``."""
        self._of[new] = self.of(old, new)
        self._of.pop(old)
        self.names[old] = new

    def now(self, buffer: Buffer) -> Buffer:
        """The buffer in whose place ``buffer`` is."""
        while buffer in self.names:
            buffer = self.names[buffer]
        return buffer

    def child(self, loop: For, time: int) -> int:
        """When the statement of the loop's own block begins that holds what happens at ``time``."""
        starts = self.starts[id(loop)]
        return starts[bisect_right(starts, time) - 1]


def _allowed(uses: Uses, pair: SameRows) -> bool:
    found = uses.steps.get(pair.step, [])
    read = [use for _, use in uses.of(pair.read)]
    written = [use for _, use in uses.of(pair.written)]
    if len(found) != 1 or not read or not written:
        return False
    (loop, at) = found[0]
    depth = len(at.loops)
    while depth and isinstance(at.loops[depth - 1], For) and (
            at.loops[depth - 1].mode == "parallel"):  # type: ignore[union-attr]
        depth -= 1  # tiles of the batch
    whole = (*at.loops, loop)[depth]
    start, end = uses.spans.get(id(whole), (0, 0))
    if any(use.loops[:depth] != at.loops[:depth] for use in (*read, *written)):
        return False
    if any(whole in use.loops and loop not in use.loops for use in (*read, *written)):
        return False
    if any(use.time > end for use in read) or any(use.time < start for use in written):
        return False
    last = max((use.time for use in read if loop in use.loops), default=start)
    first = min((use.time for use in written if loop in use.loops), default=end)
    early, late = uses.child(loop, last), uses.child(loop, first)
    return early < late or (early == late and _element_by_element(
        uses, [(s, use) for s, use in uses.of(pair.read, pair.written)
               if loop in use.loops and use.time >= early], pair))


def _element_by_element(uses: Uses, statements: Sequence[tuple[Stmt, Use]], pair: SameRows
                        ) -> bool:
    """Does one nest read and store both, every element before it is overwritten, in the round
    that overwrites it?"""
    stores: dict[tuple[Stmt, ...], list[Store]] = {}
    for stmt, use in statements:
        if pair.written in map(uses.now, buffers(stmt)):
            if not isinstance(stmt, Store) or stmt.accumulate:
                break  # a product reads what was stored; what comes before it counts
            stores.setdefault(use.loops, []).append(stmt)
    done: set[tuple[Stmt, ...]] = set()
    for stmt, use in statements:
        if isinstance(stmt, Store) and uses.now(stmt.buffer) is pair.written:
            done.add(use.loops)
        for index in _loads(uses, stmt, pair.read):
            mine = stores.get(use.loops, [])
            if use.loops in done or not any(_equal(index, s.index) for s in mine):
                return False
        if pair.read in map(uses.now, buffers(stmt)):
            return False
    return True


def _loads(uses: Uses, stmt: Stmt, buffer: Buffer) -> list[Expr]:
    """The places of a buffer that the expressions of a statement read."""
    found, pending = [], list(expressions(stmt))
    while pending:
        expr = pending.pop()
        if isinstance(expr, Load) and uses.now(expr.buffer) is buffer:
            found.append(expr.index)
        pending += operands(expr)
    return found


def _timed(stmt: Stmt, loops: tuple[Stmt, ...], clock: Iterator[int]
           ) -> Iterator[tuple[Stmt, Use]]:
    """Every statement but blocks, in order."""
    if isinstance(stmt, Block):
        for child in stmt.body:
            yield from _timed(child, loops, clock)
        return
    yield stmt, Use(loops, next(clock))
    inner = (*loops, stmt) if isinstance(stmt, (For, While)) else loops
    for child in children(stmt):
        yield from _timed(child, inner, clock)


def _touched(stmt: Stmt) -> set[Buffer]:
    """The buffers that a statement itself writes or reads."""
    found = set(buffers(stmt))
    pending: list[Expr] = list(expressions(stmt))
    while pending:
        expr = pending.pop()
        if isinstance(expr, Load):
            found.add(expr.buffer)
        pending += operands(expr)
    return found


def _renamed(x: Any, names: Mapping[Buffer, Buffer], memo: dict[int, Any]) -> Any:
    """A statement, expression or matrix with buffers replaced."""
    kind = type(x)
    if kind is tuple:
        new = tuple([_renamed(y, names, memo) for y in x])
        return x if all(map(operator.is_, x, new)) else new
    if kind is Buffer:
        return names.get(x, x)
    parts = _parts(kind)  # type: ignore[arg-type]  # a class is hashable
    if not parts:
        return x
    if id(x) not in memo:
        changed = {}
        for name in parts:
            old = getattr(x, name)
            new = _renamed(old, names, memo)
            if new is not old:
                changed[name] = new
        memo[id(x)] = dataclasses.replace(x, **changed) if changed else x
    return memo[id(x)]


@functools.cache
def _parts(kind: type[Any]) -> tuple[str, ...]:
    """The fields of a class of the loop language in which there may be buffers."""
    if not dataclasses.is_dataclass(kind) or kind in (Var, Const, DimOf):
        return ()
    return tuple(f.name for f in dataclasses.fields(kind))
