"""Which loops of a nest threads may share, found out from the loop program alone.

A nest is a loop of mode "independent" or "vector" with everything in it.  Its *chain* are the loops
that stand directly in one another; its *tail* is what stands in the innermost of them.

    flat   threads share all iterations of the chain
    rows   a warp takes an iteration of the chain, and its lanes share the loop of the tail that
           accumulates into a register
    whole  the chain is summed up: every thread has a part, which the block then adds up

Where a store accumulates at a place that does not hang on every loop of the chain, the other loops
must stay in one thread; stores that want different loops in one thread are written as nests of
their own, one after another, each computing what it needs.  So every sum has one order, whatever
the number of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from tinygraph.loops.language import (
    Alloc,
    Block,
    Buffer,
    Check,
    Const,
    DimOf,
    Expr,
    For,
    Gemm,
    If,
    Let,
    Load,
    Note,
    Pack,
    Stmt,
    Store,
    Var,
    While,
    children,
    expressions,
    operands,
    walk,
)

SHARED = ("independent", "vector")
FEW = 16  # a loop of fewer rounds is not worth a warp


@dataclass(frozen=True)
class Part:
    """What one nest in CUDA does of a nest in the loop program.

    chain    loops that stand directly in one another;  before: per loop what stands in it before
             the next;  tail: what stands in the innermost
    over     the loops of the chain that threads (or warps) share
    stores   the stores to memory that it makes; those of other parts are left out
    summed   of these the one that is summed up over the whole chain, if any
    lanes    the loop of the tail that the lanes of a warp share, if any
    """

    chain: tuple[For, ...]
    before: tuple[tuple[Stmt, ...], ...]
    tail: tuple[Stmt, ...]
    over: tuple[For, ...]
    stores: frozenset[int]
    summed: Store | None = None
    lanes: For | None = None


def outside_sums(root: For) -> list[Store]:
    """The stores of a nest to registers that are opened around it."""
    own = {id(s.buffer) for s in walk(root) if isinstance(s, Alloc)}
    return [s for s in walk(root) if isinstance(s, Store)
            and s.buffer.role == "register" and id(s.buffer) not in own]


def has_teamwork(stmt: Stmt) -> bool:
    """Is there anything under ``stmt`` that the threads of a block do together?"""
    return any(isinstance(s, (Gemm, Pack)) or (isinstance(s, For) and s.mode != "serial")
               for s in walk(stmt))


def chain_of(root: For) -> Part:
    """The chain of ``root`` with its tail, as one part that stores nothing."""
    chain, before = [root], []
    body = root.body.body
    while True:
        head, last = body[:-1], body[-1] if body else None
        bound = {s.var.name for s in head if isinstance(s, Let)} | {f.var.name for f in chain}
        if (not isinstance(last, For) or last.mode not in SHARED
                or not all(isinstance(s, (Let, Note)) for s in head)
                or names_in(last.extent) & bound or _loads(last.extent)):
            break
        before.append(tuple(head))
        chain.append(last)
        body = last.body.body
    loops = tuple(chain)
    return Part(loops, (*before, ()), tuple(body), loops, frozenset())


def take_apart(root: For) -> tuple[Part, ...] | None:
    """The parts that do the work of the nest ``root``; None where threads cannot share it."""
    whole = chain_of(root)
    lets = {s.var.name: s.value for s in walk(root) if isinstance(s, Let)}
    own = {id(s.buffer) for s in walk(root) if isinstance(s, Alloc)}
    loops = {f.var.name for f in whole.chain}
    groups: dict[tuple[str, ...], list[Store]] = {}
    deeper: list[Part] = []
    for stmt, path in _stores(root, ()):
        if id(stmt.buffer) in own or stmt.buffer.role == "register":
            continue
        named = depends(stmt.index, lets)
        over = loops if stmt.accumulate is None else loops & named
        if over != loops and named & {f.var.name for f in path} - loops:
            found = _alone(stmt, path, own, lets)
            if found is None:
                return None
            deeper.append(found)
            continue
        groups.setdefault(tuple(sorted(over)), []).append(stmt)
    lanes = _lanes(whole.tail, lets)
    parts: list[Part] = []
    # What is stored plainly comes last: it may lie where the others still read.
    for names, stores in sorted(groups.items(), key=lambda g: len(g[0])):
        shared = tuple(f for f in whole.chain if f.var.name in names)
        for some in ([[s] for s in stores] if not names else [stores]):
            parts.append(replace(whole, over=shared, stores=frozenset(map(id, some)),
                                 summed=None if names else some[0], lanes=lanes))
    return (*deeper, *parts)


def _stores(stmt: Stmt, path: tuple[For, ...]) -> Iterator[tuple[Store, tuple[For, ...]]]:
    """Every store under ``stmt`` with the loops around it."""
    if isinstance(stmt, Store):
        yield stmt, path
    inner = (*path, stmt) if isinstance(stmt, For) else path
    for child in children(stmt):
        yield from _stores(child, inner)


def _alone(store: Store, path: tuple[For, ...], own: set[int], lets: Mapping[str, Expr]
           ) -> Part | None:
    """A part for a store that sums up over a loop of the chain and stands deeper than its tail:
    the loops around it as a chain, where they hold all that it needs."""
    needed = depends(store.index, lets) | depends(store.value, lets)
    values = [store.index, store.value, *(lets[n] for n in needed if n in lets)]
    if any(id(x.buffer) in own for e in values for x in loads(e)):
        return None
    before = []
    for k, loop in enumerate(path):
        if loop.mode not in SHARED or any(
                isinstance(s, (While, If, Check)) for s in loop.body.body):
            return None
        if names_in(loop.extent) & ({f.var.name for f in path} | set(lets)):
            return None
        following = path[k + 1] if k + 1 < len(path) else store
        lines = [s for s in loop.body.body if isinstance(s, Let) and s.var.name in needed]
        if not any(s is following for s in loop.body.body):
            return None
        before.append(tuple(lines))
    names = depends(store.index, lets)
    over = tuple(f for f in path if f.var.name in names)
    return Part(path, tuple(before), (store,), over, frozenset([id(store)]),
                None if over else store)


def _lanes(tail: tuple[Stmt, ...], lets: Mapping[str, Expr]) -> For | None:
    """The loop of the tail that a warp's lanes may share: it alone, and it accumulates into
    registers opened in the tail."""
    opened = [s.buffer for s in tail if isinstance(s, Alloc)]
    loops = [s for s in tail if isinstance(s, For)]
    if not opened or len(loops) != 1 or loops[0].mode not in SHARED:
        return None
    if any(not isinstance(s, (Alloc, Store, Let, Note, For)) for s in tail):
        return None
    loop, ids = loops[0], {id(b) for b in opened}
    extent = loop.extent
    if isinstance(extent, Const) and int(extent.value) < FEW:
        return None
    for stmt in walk(loop):
        if isinstance(stmt, (Alloc, Check)):  # the others would wait for a lane that has left
            return None
        if isinstance(stmt, Store):
            mine = id(stmt.buffer) in ids
            if mine and (stmt.accumulate is None or not _single(stmt.buffer)):
                return None
            if not mine and stmt.accumulate and loop.var.name not in depends(stmt.index, lets):
                return None
        if any(id(x.buffer) in ids for e in expressions(stmt) for x in loads(e)):
            return None
    return loop


def _single(buffer: Buffer) -> bool:
    return isinstance(buffer.size, Const) and int(buffer.size.value) == 1


def depends(e: Expr, lets: Mapping[str, Expr]) -> set[str]:
    """The variables that ``e`` hangs on, through what ``lets`` bind."""
    found: set[str] = set()
    stack = list(names_in(e))
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            if name in lets:
                stack.extend(names_in(lets[name]))
    return found


def names_in(e: Expr) -> set[str]:
    """The variables and sizes that ``e`` names."""
    if isinstance(e, (Var, DimOf)):
        return {e.name}
    return {name for x in operands(e) for name in names_in(x)}


def loads(e: Expr) -> Iterable[Load]:
    """Every Load in ``e``."""
    if isinstance(e, Load):
        yield e
    for x in operands(e):
        yield from loads(x)


def _loads(e: Expr) -> bool:
    return any(True for _ in loads(e))


def memory(stmt: Stmt) -> bool:
    """Does ``stmt``, without what stands under it, read memory that is no register?"""
    return any(x.buffer.role != "register" for e in expressions(stmt) for x in loads(e))


def written_by(stmt: Stmt) -> tuple[Buffer, ...]:
    """The buffers that ``stmt`` itself writes."""
    if isinstance(stmt, Store):
        return (stmt.buffer,)
    return (stmt.c.buffer,) if isinstance(stmt, Gemm) else ()


def right_side_stays(stmts: Iterable[Stmt]) -> Callable[[Gemm], bool]:
    """Tells of a product in ``stmts`` whether its right side is one and the same wherever they
    are: never written, and named by nothing that they bind."""
    inside = [s for stmt in stmts for s in walk(stmt)]
    bound = {s.var.name for s in inside if isinstance(s, (For, Let))}
    written = {id(b) for s in inside for b in written_by(s)}

    def stays(product: Gemm) -> bool:
        b = product.b
        return id(b.buffer) not in written and not bound & {
            name for e in (b.offset, b.rows, b.cols, product.k, product.n)
            for name in names_in(e)}

    return stays


def block_of(stmt: Stmt) -> tuple[Block, ...]:
    """The blocks directly under ``stmt``."""
    return tuple(s for s in children(stmt) if isinstance(s, Block))
