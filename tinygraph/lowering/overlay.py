"""Overlay: a loop's stack takes the place of a sequence that the loop reads for the last time.

The backward loop of a recurrent layer reads the input's share of the gates in step t, and later
in that step stores the gradients of the gates: rows of one size, in one order.  Where no one else
reads the sequence, both may lie in one buffer.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinygraph.dims import Dim
from tinygraph.loops.language import (
    Block,
    Buffer,
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
    sequences = [s for s in sequences if s.buffer is not None and s.buffer.role == "temp"]
    for stack in stacks:
        assert stack.buffer is not None
        if stack.buffer.role == "temp":
            found += [SameRows(step, s.buffer, stack.buffer)  # type: ignore[arg-type]
                      for s in sequences if s.buffer is not stack.buffer and _alike(s, stack)]
    return found


def _alike(a: View, b: View) -> bool:
    return (a.dtype is b.dtype and a.dims == b.dims and a.strides == b.strides
            and _equal(a.offset, b.offset))


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
    for pair in pairs:
        if bytes_of[pair.read] == bytes_of[pair.written] and _allowed(body, pair):
            body = _renamed(body, {pair.written: pair.read}, {})
    return body


@dataclass(frozen=True)
class Use:
    """A statement that touches a buffer: the loops around it, and when it comes."""

    loops: tuple[Stmt, ...]
    time: int


def _allowed(body: Block, pair: SameRows) -> bool:
    program = list(_timed(body, (), itertools.count()))
    found = [(s, use) for s, use in program if isinstance(s, For) and s.var.name == pair.step]
    read = [use for s, use in program if pair.read in _touched(s)]
    written = [use for s, use in program if pair.written in _touched(s)]
    if len(found) != 1 or not read or not written:
        return False
    (loop, at) = found[0]
    depth = len(at.loops)
    while depth and isinstance(at.loops[depth - 1], For) and (
            at.loops[depth - 1].mode == "parallel"):  # type: ignore[union-attr]
        depth -= 1  # tiles of the batch
    whole = (*at.loops, loop)[depth]
    inside = [use.time for _, use in program if whole in use.loops]
    start, end = min(inside, default=0), max(inside, default=0)
    if any(use.loops[:depth] != at.loops[:depth] for use in (*read, *written)):
        return False
    if any(whole in use.loops and loop not in use.loops for use in (*read, *written)):
        return False
    if any(use.time > end for use in read) or any(use.time < start for use in written):
        return False
    last = max((use.time for use in read if loop in use.loops), default=start)
    first = min((use.time for use in written if loop in use.loops), default=end)
    early, late = _child(loop, last, program), _child(loop, first, program)
    return early < late or (early == late and _element_by_element(
        [(s, use) for s, use in program if loop in use.loops and use.time >= early], pair))


def _element_by_element(statements: Sequence[tuple[Stmt, Use]], pair: SameRows) -> bool:
    """Does one nest read and store both, every element before it is overwritten, in the round
    that overwrites it?"""
    stores: dict[tuple[Stmt, ...], list[Store]] = {}
    for stmt, use in statements:
        if pair.written in buffers(stmt):
            if not isinstance(stmt, Store) or stmt.accumulate:
                break  # a product reads what was stored; what comes before it counts
            stores.setdefault(use.loops, []).append(stmt)
    done: set[tuple[Stmt, ...]] = set()
    for stmt, use in statements:
        if isinstance(stmt, Store) and stmt.buffer is pair.written:
            done.add(use.loops)
        for index in _loads(stmt, pair.read):
            mine = stores.get(use.loops, [])
            if use.loops in done or not any(_equal(index, s.index) for s in mine):
                return False
        if pair.read in buffers(stmt):
            return False
    return True


def _loads(stmt: Stmt, buffer: Buffer) -> list[Expr]:
    """The places of a buffer that the expressions of a statement read."""
    found, pending = [], list(expressions(stmt))
    while pending:
        expr = pending.pop()
        if isinstance(expr, Load) and expr.buffer is buffer:
            found.append(expr.index)
        pending += operands(expr)
    return found


def _child(loop: For, time: int, program: Sequence[tuple[Stmt, Use]]) -> int:
    """When the statement of the loop's own block begins that holds what happens at ``time``."""
    depth = next(len(use.loops) for s, use in program if s is loop)
    return max(use.time for s, use in program
               if use.time <= time and use.loops[depth:] == (loop,))


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
    if isinstance(x, Buffer):
        return names.get(x, x)
    if isinstance(x, tuple):
        new = tuple(_renamed(y, names, memo) for y in x)
        return x if all(a is b for a, b in zip(x, new, strict=True)) else new
    if not dataclasses.is_dataclass(x) or isinstance(x, (Var, type)):
        return x
    if id(x) not in memo:
        old = {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}
        changed = {k: v for k, y in old.items() if (v := _renamed(y, names, memo)) is not y}
        memo[id(x)] = dataclasses.replace(x, **changed) if changed else x
    return memo[id(x)]
