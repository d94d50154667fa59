"""Writing a kernel whose blocks all work at one loop, and wait for one another.

Persistent kernels for weights that do not fit the shared memory of one block: the blocks share the
hidden units of each step.  A block keeps the columns of the weights that lead to its units in
shared memory through all steps, computes their share of a product and what the step does with it;
then all blocks wait (``tg_grid``), since the next step reads the units of all.  Where statements
only touch what belongs to the block itself (ownership.py), it waits for nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tinygraph.backends.cuda.names import c_type
from tinygraph.backends.cuda.nest import (
    SHARED,
    Part,
    chain_of,
    has_teamwork,
    loads,
    outside_sums,
    right_side_stays,
    take_apart,
)
from tinygraph.backends.cuda.ownership import Arena, Memory
from tinygraph.backends.cuda.team import (
    BLOCK,
    GRID,
    Held,
    TeamWriter,
    in_fours,
    left_to_one,
    shared_registers,
)
from tinygraph.backends.cuda.waiting import (
    AFTER,
    BEFORE,
    END,
    Waits,
    holds_time,
    kind,
    steps_of,
)
from tinygraph.loops import build as E
from tinygraph.loops.language import (
    Alloc,
    Block,
    Check,
    DimOf,
    For,
    Gemm,
    Let,
    Note,
    Stmt,
    Store,
    expressions,
    walk,
)

BLOCKS = "blocks"  # how many run, as expressions of the host name it


def shareable(stmt: Stmt) -> bool:
    """Can the blocks of a grid run ``stmt`` together?  Not where a branch or a loop that all go
    through hangs on memory, where a thread may find a failure, or where a number that one block
    finds is kept in its registers."""
    if isinstance(stmt, Gemm):
        return not any(True for e in expressions(stmt) for _ in loads(e))
    if isinstance(stmt, (Note, Let, Alloc, Store)):
        return True
    if isinstance(stmt, Block):
        opened = {id(s.buffer) for s in stmt.body if isinstance(s, Alloc)}
        return (not opened & shared_registers(stmt.body) and _sums_stored(stmt.body)
                and all(map(shareable, stmt.body)))
    if not isinstance(stmt, For) or any(isinstance(s, Check) for s in walk(stmt)) or any(
            True for _ in loads(stmt.extent)):
        return False
    if stmt.mode in SHARED:
        return (take_apart(stmt) is not None and not left_to_one(stmt)
                and not any(True for f in chain_of(stmt).chain for _ in loads(f.extent)))
    if stmt.mode == "parallel" and not holds_time(stmt):
        return True
    return not has_teamwork(stmt) or shareable(stmt.body)


def _sums_stored(stmts: Sequence[Stmt]) -> bool:
    """Is what nests sum up in registers around them read by stores to memory alone?  One thread
    makes these, of the block that has the sum."""
    pieces = list(_pieces(stmts))
    sums = {id(s.buffer) for stmt in pieces if isinstance(stmt, For) and stmt.mode in SHARED
            for s in outside_sums(stmt)}
    return not any(id(x.buffer) in sums for stmt in pieces if kind(stmt) != "alone"
                   for s in walk(stmt) for e in expressions(s) for x in loads(e))


def _pieces(stmts: Sequence[Stmt]) -> Iterator[Stmt]:
    """Statements, in the loops that all blocks go through too."""
    for stmt in stmts:
        if isinstance(stmt, Block):
            yield from _pieces(stmt.body)
        elif isinstance(stmt, For) and kind(stmt) == "step":
            yield from _pieces(stmt.body.body)
        else:
            yield stmt


class GridWriter(TeamWriter):
    """Code of all blocks together.

    stmts  what the kernel is going to run
    arena  where temps lie
    """

    def __init__(self, name: str, stmts: Sequence[Stmt], arena: Arena) -> None:
        super().__init__(name, GRID)
        self.waits = True
        self.stmts = stmts
        self.memory = Memory(stmts, arena, steps_of(stmts))
        self.order = Waits(stmts, self.memory)
        self.units = self.memory.units
        self.strips: dict[int, Held] = {}
        if self.units:
            self.first, self.own = self.names.fresh("first"), self.names.fresh("own")
            self._share(self.first, self.own, str(self.units))

    def _share(self, first: str, own: str, units: str) -> None:
        """Name the first unit of the block, and how many it has."""
        self.line(f"const I64 {first} = (I64)blockIdx.x * {units} / (I64)gridDim.x;")
        self.line(f"const I64 {own} = ((I64)blockIdx.x + 1) * {units} / (I64)gridDim.x - {first};")

    def _wait(self, stmt: Stmt, k: object = 0) -> None:
        wait = self.order.at(stmt, k)
        if wait is not None:
            self.line(wait)

    def guard(self) -> None:
        """Do nothing after a failure of an earlier kernel; no block finds one here."""
        self.checks = True
        self.line("if (fault[0] != 0) return;")

    # --- statements

    def together(self, stmt: Stmt) -> None:
        """Write one statement that all blocks run."""
        what = kind(stmt)
        if self.team is BLOCK:
            super().together(stmt)
        elif isinstance(stmt, Block):
            self.open()
            self.block(stmt.body)
            self.close()
        elif what in ("note", "value"):
            self._wait(stmt)
            self.statement(stmt)
        elif isinstance(stmt, Gemm):
            self._wait(stmt)
            self._units_product(stmt)
        elif isinstance(stmt, For) and what == "nest":
            self.nest(stmt)
        elif isinstance(stmt, For) and what == "dealt":
            self._wait(stmt)
            self._dealt(stmt)
        elif isinstance(stmt, For) and what == "step":
            self._in_step(stmt)
        else:
            self._wait(stmt)
            self.open(f"if ({self.team.thread} == 0)")
            self.statement(stmt)
            self.close()

    def _in_step(self, loop: For) -> None:
        """A loop that all blocks go through in step."""
        self._wait(loop, BEFORE)
        i, end = self.bind(loop.var), self.names.fresh(f"n_{loop.var.name}")
        self.line(f"const I64 {end} = {self.index(loop.extent)};")
        self.open(f"for (I64 {i} = 0; {i} < {end}; ++{i})")
        self.block(loop.body.body)
        self._wait(loop, END)
        self.close()
        self._wait(loop, AFTER)

    def _dealt(self, loop: For) -> None:
        """A parallel loop: blocks take its iterations in turn, each on its own."""
        i, end = self.bind(loop.var), self.names.fresh("end")
        self.line(f"const I64 {end} = {self.index(loop.extent)};")
        self.open(f"for (I64 {i} = blockIdx.x; {i} < {end}; {i} += gridDim.x)")
        self.team, self.touched = BLOCK, False
        self.block(loop.body.body)
        self.line("__syncthreads();")
        self.team = GRID
        self.close()

    # --- nests

    def nest(self, root: For) -> None:
        """A nest that all blocks share."""
        if self.team is BLOCK:
            super().nest(root)
            return
        sums = outside_sums(root)
        if sums:
            self._wait(root)
            self.team = BLOCK
            self.open("if (blockIdx.x == 0)")
            self._summed_outside(chain_of(root), sums)
            self.close()
            self.team = GRID
        self.dropped = frozenset(map(id, sums))
        for k, part in enumerate(take_apart(root) or (), bool(sums)):
            self._wait(root, k)
            if part.summed is not None:
                self.team = BLOCK
                self.open("if (blockIdx.x == 0)")
                self._part(part)
                self.close()
                self.team = GRID
            elif self.memory.shared_by_units(part):
                self._owned(part)
            else:
                self._part(part)
        self.dropped = frozenset()

    def _owned(self, part: Part) -> None:
        """Threads of a block share the iterations that belong to it."""
        before, self.only = self.only, part.stores
        outer, loop = part.over[:-1], part.over[-1]
        self.open()
        gates = self.index(E.floordiv(loop.extent, E.index(self.units)))
        inner, at, end = (self.names.fresh(n) for n in ("n_own", "at", "end"))
        self.line(f"const I64 {inner} = {gates} * {self.own};")
        counts = []
        for f in outer:
            counts.append(self.names.fresh(f"n_{f.var.name}"))
            self.line(f"const I64 {counts[-1]} = {self.index(f.extent)};")
        self.line(f"const I64 {end} = {' * '.join([*counts, inner])};")
        self.open(f"for (I64 {at} = threadIdx.x; {at} < {end}; {at} += blockDim.x)")
        mine, rest = f"{at} % {inner}" if outer else at, f"{at} / {inner}"
        column = self.bind(loop.var)
        if gates == "1":
            self.line(f"const I64 {column} = {self.first} + {mine};")
        else:
            self.line(f"const I64 {column} = ({mine}) / {self.own} * {self.units} + {self.first} "
                      f"+ ({mine}) % {self.own};")
        for k in range(len(outer) - 1, -1, -1):
            name = self.bind(outer[k].var)
            self.line(f"const I64 {name} = {rest if k == 0 else f'({rest}) % {counts[k]}'};")
            rest = f"({rest}) / {counts[k]}"
        closes = self._chain(part)
        self.alone(part.tail)
        for _ in range(closes + 2):
            self.close()
        self.only = before

    # --- products

    def _units_product(self, given: Gemm) -> None:
        """A product, whose columns are dealt to the blocks."""
        stmt = self.memory.by_columns(given)
        self.open()
        if self.memory.product_owner(stmt):
            first, own, count = self.first, self.own, str(self.units)
        else:
            first, own = self.names.fresh("first"), self.names.fresh("own")
            count = self.index(stmt.n)
            self._share(first, own, count)
        a, b, c = (self._matrix(x) for x in (stmt.a, stmt.b, stmt.c))
        sizes = ", ".join(self.index(e) for e in (stmt.m, stmt.n, stmt.k))
        rest = (f"{', '.join(c)}, {sizes}, {'true' if stmt.accumulate else 'false'}, {count}, "
                f"{first}, {first} + {own});")
        call = f"tg_gemm_units<{c_type(stmt.c.buffer.dtype)}>({', '.join(a)}, "
        plain = f"{call}{', '.join(b)}, false, {rest}"
        held = self.strips.get(id(given))
        if held is None:
            self.line(plain)
        else:
            self.line(f"if ({held.flag}) {call}{held.place}, {held.columns}, 1, true, {rest}")
            self.line(f"else {plain}")
        self.close()

    def hold_columns(self) -> None:
        """Copy the block's columns of weights into shared memory, those for which there is room;
        the host says for which."""
        known: dict[tuple[str, ...], Held] = {}
        for given, stmt in self._steady():
            kind = stmt.b.buffer.dtype
            if not known:
                only, room = kind, self.room(kind)
            if kind is only:
                key = self._key(stmt)
                if key not in known:
                    known[key] = self._strip(stmt, room)
                self.strips[id(given)] = known[key]
        if known:
            self.line("__syncthreads();")

    def _steady(self) -> list[tuple[Gemm, Gemm]]:
        """The products whose columns blocks share and whose weights stay the same, as they are
        given and by columns."""
        stays = right_side_stays(self.stmts)
        pairs = [(s, self.memory.by_columns(s)) for top in self.stmts for s in walk(top)
                 if isinstance(s, Gemm)]
        return [(s, t) for s, t in pairs if self.memory.product_owner(t) and stays(t)]

    def _strip(self, stmt: Gemm, room: str) -> Held:
        """Copy the columns of one matrix that belong to the block."""
        kind, name = stmt.b.buffer.dtype, f"held{len(self.held)}"
        gates = E.floordiv(stmt.n, E.index(self.units))
        widest = E.floordiv(E.add(E.sub(DimOf(BLOCKS), E.index(1)), E.index(self.units)),
                            DimOf(BLOCKS))
        self.held.append((name, E.mul(E.mul(stmt.k, in_fours(E.mul(gates, widest))),
                                      E.index(kind.itemsize))))
        flag, k = self.var(DimOf(name)), self.index(stmt.k)
        place, at, columns, width = (self.names.fresh(n)
                                     for n in ("weights", "at", "columns", "width"))
        base, rows, cols = self._matrix(stmt.b)
        self.line(f"const auto {place} = {room} + tg_taken;")
        self.line(f"const I64 {columns} = {self.index(gates)} * {self.own};")
        self.line(f"const I64 {width} = ({columns} + 3) / 4 * 4;  // to be read in fours")
        self.open(f"if ({flag})")
        self.open(f"for (I64 {at} = threadIdx.x; {at} < {k} * {width}; {at} += blockDim.x)")
        q, j = self.names.fresh("q"), self.names.fresh("j")
        self.line(f"const I64 {q} = {at} % {width};")
        self.line(f"const I64 {j} = {q} / {self.own} * {self.units} + {self.first} "
                  f"+ {q} % {self.own};")
        kind_c = c_type(kind)
        self.line(f"{place}[{at}] = {q} < {columns} ? "
                  f"({kind_c})({base})[{at} / {width} * {rows} + {j} * {cols}] : ({kind_c})0;")
        self.close()
        self.line(f"tg_taken += {k} * {width};")
        self.close()
        return Held(flag, place, width)
