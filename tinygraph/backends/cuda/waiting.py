"""Where the blocks of a grid must wait for one another, worked out before a kernel is written.

A wait stands between two accesses that may meet, unless one block makes both: then its own threads
wait.  A loop is gone through again and again with what its last round has left, until what a round
leaves stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tinygraph.backends.cuda.nest import SHARED, has_teamwork, outside_sums, take_apart
from tinygraph.backends.cuda.ownership import Access, Memory
from tinygraph.loops.language import Block, For, Gemm, Let, Note, Stmt, Store, walk

ALL, BLOCK = "tg_grid(sync);", "__syncthreads();"
BEFORE, END, AFTER = "before", "end", "after"  # of a loop
_ROUNDS = 4


def over_time(loop: For) -> bool:
    """Is ``loop`` serial with something in it that threads share?"""
    return loop.mode == "serial" and has_teamwork(loop)


def holds_time(loop: For) -> bool:
    """Does a loop over time stand in ``loop``?"""
    return any(isinstance(s, For) and over_time(s) for s in loop.body.body)


def kind(stmt: Stmt) -> str:
    """What the blocks of a grid do with a statement: 'note', 'block', 'step' (a loop that all go
    through), 'value' (worked out by every thread), 'product', 'nest', 'dealt' (iterations of a
    loop, each by one block) or 'alone' (by one thread)."""
    if isinstance(stmt, Note):
        return "note"
    if isinstance(stmt, Block):
        return "block"
    if isinstance(stmt, Let) or isinstance(stmt, Store) and stmt.buffer.role == "register":
        return "value"
    if isinstance(stmt, Gemm):
        return "product"
    if isinstance(stmt, For):
        if stmt.mode in SHARED:
            return "nest"
        if stmt.mode == "parallel" and not holds_time(stmt):
            return "dealt"
        if has_teamwork(stmt):
            return "step"
    return "alone"


def steps_of(stmts: Iterable[Stmt]) -> list[For]:
    """The loops that all blocks go through, inner ones too."""
    found: list[For] = []
    for stmt in stmts:
        if isinstance(stmt, Block):
            found += steps_of(stmt.body)
        elif isinstance(stmt, For) and kind(stmt) == "step":
            found += [stmt, *steps_of(stmt.body.body)]
    return found


class Waits:
    """What stands before each piece of ``stmts``: ``at(stmt, k)`` is ALL, BLOCK or None; for
    loops, k is BEFORE, END (of a round) or AFTER."""

    def __init__(self, stmts: Sequence[Stmt], memory: Memory) -> None:
        self.memory = memory
        self._found: dict[tuple[int, object], str | None] = {}
        self._pieces: dict[int, list[frozenset[Access]]] = {}
        self._grid: frozenset[Access] = frozenset()  # touched since all blocks waited
        self._block: frozenset[Access] = frozenset()  # since the threads of each block did
        self._stmts(stmts)

    def at(self, stmt: Stmt, k: object = 0) -> str | None:
        """The wait before a piece of a statement."""
        return self._found[id(stmt), k]

    def _stmts(self, stmts: Sequence[Stmt]) -> None:
        for stmt in stmts:
            what = kind(stmt)
            if what == "block":
                assert isinstance(stmt, Block)
                self._stmts(stmt.body)
            elif what == "step":
                assert isinstance(stmt, For)
                self._loop(stmt)
            else:
                for k, coming in enumerate(self._accesses(stmt, what)):
                    self._found[id(stmt), k] = self._order(coming)

    def _accesses(self, stmt: Stmt, what: str) -> list[frozenset[Access]]:
        """What every piece of a statement touches."""
        found = self._pieces.get(id(stmt))
        if found is None:
            memory = self.memory
            if isinstance(stmt, For) and what == "nest":
                found = [frozenset(memory.part(p)) for p in take_apart(stmt) or ()]
                if outside_sums(stmt):
                    found.insert(0, frozenset(a for s in walk(stmt) for a in memory.reads(s)))
            elif isinstance(stmt, Gemm):
                found = [frozenset(memory.product(memory.by_columns(stmt)))]
            elif what in ("value", "note"):
                found = [frozenset(memory.reads(stmt))]
            else:
                found = [frozenset(memory.everything(stmt))]
            self._pieces[id(stmt)] = found
        return found

    def _order(self, coming: frozenset[Access]) -> str | None:
        wait = None
        if any(a.meets(b) and not a.beside(b) for a in coming for b in self._grid):
            wait = self._all()
        elif any(a.meets(b) for a in coming for b in self._block):
            wait, self._block = BLOCK, frozenset()
        self._grid |= coming
        self._block |= coming
        return wait

    def _all(self) -> str | None:
        """All blocks wait, if memory was touched since they last did."""
        wait = ALL if self._grid else None
        self._grid = self._block = frozenset()
        return wait

    def _loop(self, loop: For) -> None:
        self._found[id(loop), BEFORE] = self._all()
        self._found[id(loop), END] = None
        grid = block = frozenset[Access]()
        for k in range(2 * _ROUNDS):
            self._grid, self._block = grid, block
            self._stmts(loop.body.body)
            # Where nobody waits, ever more rows are left: then any row.
            name = loop.var.name
            left = [frozenset(a.before(name) if k < _ROUNDS else a.sometime(name) for a in x)
                    for x in (self._grid, self._block)]
            if left[0] <= grid and left[1] <= block:
                break
            grid, block = grid | left[0], block | left[1]
        else:
            self._grid = self._block = frozenset()
            self._stmts(loop.body.body)
            self._found[id(loop), END] = self._all()
        self._found[id(loop), AFTER] = self._all()
