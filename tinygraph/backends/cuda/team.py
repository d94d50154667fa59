"""Writing a kernel: what the threads of a block do together.

``serial`` code is run by all threads in step, each with its own copy of the numbers; nests are
shared out (nest.py); a loop with nothing to share in it is left to one thread.  A barrier stands
between two things that touch memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinygraph.backends.cuda import nest as nests
from tinygraph.backends.cuda.names import c_type
from tinygraph.backends.cuda.nest import (
    Part,
    chain_of,
    has_teamwork,
    memory,
    outside_sums,
    take_apart,
)
from tinygraph.backends.cuda.scalar import accumulated, identity
from tinygraph.backends.cuda.threads import count_of
from tinygraph.backends.cuda.vectors import Vectors, fours
from tinygraph.dtypes import DType, float32
from tinygraph.errors import InternalError
from tinygraph.loops import build as E
from tinygraph.loops.language import (
    Alloc,
    Block,
    Check,
    Const,
    DimOf,
    Expr,
    For,
    Gemm,
    If,
    Let,
    Matrix,
    Note,
    Stmt,
    Store,
    While,
    walk,
)

OPS = {"add": "tg_Add", "mul": "tg_Mul", "min": "tg_Min", "max": "tg_Max", "and": "tg_And",
       "or": "tg_Or"}


@dataclass(frozen=True)
class Team:
    """Who shares a nest: a thread's number and how many there are, the same for warps."""

    thread: str
    threads: str
    warp: str
    warps: str


BLOCK = Team("(I64)threadIdx.x", "(I64)blockDim.x", "(I64)(threadIdx.x / 32)",
             "(I64)(blockDim.x / 32)")
GRID = Team("tg_thread()", "tg_threads()", "tg_thread() / 32", "tg_threads() / 32")
LANE = "(I64)(threadIdx.x % 32)"


@dataclass(frozen=True)
class Held:
    """A matrix in shared memory, row by row: whether it is there, where, and its columns."""

    flag: str
    place: str
    columns: str


class TeamWriter(Vectors):
    """Code of the threads of a block, or of all blocks, together."""

    def __init__(self, name: str, team: Team = BLOCK) -> None:
        super().__init__(name)
        self.team = team
        self.many = team is GRID  # have flat parts many elements, which threads take in fours?
        self.touched = False  # memory, since the last barrier
        self.kept: dict[tuple[str, ...], Held] = {}  # matrices in shared memory

    def guard(self) -> None:
        """Do nothing after a failure of an earlier kernel; the whole block agrees on it."""
        self.checks = True
        self.line("if (__syncthreads_or(threadIdx.x == 0 && fault[0] != 0)) return;")

    # --- statements that all threads come to

    def block(self, stmts: Sequence[Stmt]) -> None:
        """Write statements that the whole block runs."""
        shared = shared_registers(stmts)
        for stmt in stmts:
            if isinstance(stmt, Alloc):
                where = "__shared__" if id(stmt.buffer) in shared else ""
                self.declare(stmt.buffer, count_of(stmt.buffer), where)
            else:
                self.together(stmt)

    def together(self, stmt: Stmt) -> None:
        """Write one statement that the whole block runs."""
        if isinstance(stmt, Note):
            self.statement(stmt)
        elif isinstance(stmt, Block):
            self.open()
            self.block(stmt.body)
            self.close()
        elif isinstance(stmt, Let):
            self._reads(stmt)
            self.statement(stmt)
        elif isinstance(stmt, Check):
            self._check_together(stmt)
        elif isinstance(stmt, Store) and self._private(stmt):
            self._reads(stmt)
            self.statement(stmt)
        elif isinstance(stmt, Gemm):
            self._product(stmt)
        elif isinstance(stmt, For) and stmt.mode in nests.SHARED:
            self.nest(stmt)
        elif has_teamwork(stmt):
            self._control(stmt)
        else:
            self._one_thread(stmt)

    def barrier(self) -> None:
        """All threads wait for one another, if memory was touched since they last did."""
        if self.touched:
            self.line("__syncthreads();")
            self.touched = False

    def _reads(self, stmt: Stmt) -> None:
        if memory(stmt) or self._shared_read(stmt):
            self.barrier()
            self.touched = True

    def _shared_read(self, stmt: Stmt) -> bool:
        """Does ``stmt`` read a register of the whole block?"""
        return any(self.registers.get(id(x.buffer), ("", False))[1]
                   for e in nests.expressions(stmt) for x in nests.loads(e))

    def _private(self, stmt: Store) -> bool:
        """Does every thread store into a register of its own?"""
        return id(stmt.buffer) in self.registers and not self.registers[id(stmt.buffer)][1]

    def _check_together(self, stmt: Check) -> None:
        self._reads(stmt)
        self.checks = True
        self.open(f"if (!({self.expr(stmt.cond)}))")
        self.open(f"if ({self.team.thread} == 0)")
        self.report(stmt)
        self.close()
        self.line("return;")
        self.close()

    def _control(self, stmt: Stmt) -> None:
        """A loop or branch that all threads go through in step."""
        self.barrier()
        if isinstance(stmt, For):
            i, end = self.bind(stmt.var), self.names.fresh(f"n_{stmt.var.name}")
            self.line(f"const I64 {end} = {self.index(stmt.extent)};")
            self.open(f"for (I64 {i} = 0; {i} < {end}; ++{i})")
            self._body(stmt.body)
        elif isinstance(stmt, While):
            # Every thread reads the condition before any changes what it reads.
            self.open("while (true)")
            going = self.names.fresh("going")
            self.line(f"const bool {going} = {self.expr(stmt.cond)};")
            self.line("__syncthreads();")
            self.line(f"if (!{going}) break;")
            self._body(stmt.body)
        elif isinstance(stmt, If):
            chosen = self.names.fresh("chosen")
            self.line(f"const bool {chosen} = {self.expr(stmt.cond)};")
            self.line("__syncthreads();")
            self.open(f"if ({chosen})")
            self._body(stmt.then)
            if stmt.other.body:
                self.open("else")
                self._body(stmt.other)
        else:
            raise InternalError(f"{type(stmt).__name__} cannot be run by a block")

    def _body(self, block: Block) -> None:
        self.block(block.body)
        self.barrier()
        self.close()

    def _one_thread(self, stmt: Stmt) -> None:
        """What has nothing to share is done by thread 0."""
        self.barrier()
        fails = any(isinstance(s, Check) for s in walk(stmt))
        if fails:
            failed = self.names.fresh("failed")
            self.open(f"const bool {failed} = [&]() -> bool")
            self.open(f"if ({self.team.thread} == 0)")
            self.statement(stmt)
            self.close()
            self.line("return false;")
            self.close("();")
            self.line(f"if (__syncthreads_or({failed})) return;")
            return
        self.open(f"if ({self.team.thread} == 0)")
        self.statement(stmt)
        self.close()
        self.touched = True

    def _product(self, stmt: Gemm) -> None:
        if stmt.panel:
            raise InternalError("kernels take matrices as they are, not in panels")
        self.barrier()
        if stmt.c.buffer.dtype is float32:
            self.resident = 2  # which products would have too many registers for
        a, b, c = (self._matrix(x) for x in (stmt.a, stmt.b, stmt.c))
        sizes = ", ".join(self.index(e) for e in (stmt.m, stmt.n, stmt.k))
        flag = "true" if stmt.accumulate else "false"
        share = "0, 1" if self.team is BLOCK else "blockIdx.x, gridDim.x"
        call = f"tg_gemm<{c_type(stmt.c.buffer.dtype)}>"
        plain = f"{call}({', '.join([*a, *b, *c])}, {sizes}, {flag}, {share});"
        held = self.kept.get(self._key(stmt))
        if held is None:
            self.line(plain)
        else:
            near = [held.place, held.columns, "1"]
            self.line(f"if ({held.flag}) {call}({', '.join([*a, *near, *c])}, {sizes}, {flag}, "
                      f"{share});")
            self.line(f"else {plain}")
        self.touched = True

    def _key(self, stmt: Gemm) -> tuple[str, ...]:
        return (*self._matrix(stmt.b), self.index(stmt.k), self.index(stmt.n))

    def room(self, kind: DType) -> str:
        """Declare the shared memory that a launch gives for matrices, none of it taken."""
        name = f"tg_room_{kind.name}"  # one name has one type in a whole source
        self.line(f"alignas(16) extern __shared__ {c_type(kind)} {name}[];")
        self.line("I64 tg_taken = 0;")
        return name

    def hold(self, products: Sequence[Gemm]) -> None:
        """Copy the right sides of products into shared memory, those for which there is room;
        the host says for which."""
        if not products:
            return
        kind = products[0].b.buffer.dtype
        for stmt in products:
            if self._key(stmt) in self.kept or stmt.b.buffer.dtype is not kind:
                continue
            if not self.kept:
                room = self.room(kind)
            name = f"held{len(self.kept)}"
            count = in_fours(E.mul(stmt.k, stmt.n))  # so that the next begins where vectors may
            self.held.append((name, E.mul(count, E.index(kind.itemsize))))
            flag, k, n = self.var(DimOf(name)), self.index(stmt.k), self.index(stmt.n)
            place, at = self.names.fresh("weights"), self.names.fresh("at")
            base, rows, cols = self._matrix(stmt.b)
            self.line(f"const auto {place} = {room} + tg_taken;")
            self.open(f"if ({flag})")
            self.open(f"for (I64 {at} = threadIdx.x; {at} < {k} * {n}; {at} += blockDim.x)")
            self.line(f"{place}[{at}] = ({base})[{at} / {n} * {rows} + {at} % {n} * {cols}];")
            self.close()
            self.line(f"tg_taken += {self.index(count)};")
            self.close()
            self.kept[self._key(stmt)] = Held(flag, place, n)
        self.touched = True
        self.barrier()

    def _matrix(self, x: Matrix) -> list[str]:
        at = self.index(x.offset)
        base = self.buffer(x.buffer)
        return [base if at == "0" else f"{base} + {at}", self.index(x.rows), self.index(x.cols)]

    # --- nests

    def nest(self, root: For) -> None:
        """A nest that threads share."""
        self.barrier()
        outside, parts = self._outside_sums(root), take_apart(root)
        if outside is None or parts is None:
            self._one_thread(root)
            return
        if outside:
            self._summed_outside(chain_of(root), outside)
        self.dropped = frozenset(map(id, outside))
        for k, part in enumerate(parts):
            if k or outside:
                self.line("__syncthreads();")
            self._part(part)
        self.dropped = frozenset()
        self.touched = True

    def nest_part(self, part: Part) -> None:
        """One part of a nest, by all blocks."""
        self._part(part)

    def _outside_sums(self, root: For) -> list[Store] | None:
        """The stores of a nest that accumulate in registers opened around it; None where it does
        with such registers what threads cannot share."""
        if left_to_one(root):
            return None
        return outside_sums(root)

    def _summed_outside(self, whole: Part, sums: list[Store]) -> None:
        """Every thread has a part of what registers around the nest sum up."""
        totals = [(s, self._total(s)) for s in sums]
        self.only = frozenset()
        self._flat(whole)
        self.only = None
        for stmt, total in totals:
            place, dtype = self.place(stmt.buffer, stmt.index), stmt.buffer.dtype
            op = OPS[str(stmt.accumulate)]
            added = (f"tg_block<{op}, {c_type(dtype)}>({total}, "
                     f"{identity(str(stmt.accumulate), dtype)})")
            self.line(f"{place} = {accumulated(str(stmt.accumulate), dtype, place, added)};")
            del self.sums[id(stmt)]

    def _total(self, stmt: Store) -> str:
        total = self.names.fresh("part")
        start = identity(str(stmt.accumulate), stmt.buffer.dtype)
        self.line(f"{c_type(stmt.buffer.dtype)} {total} = {start};")
        self.sums[id(stmt)] = total
        return total

    def _part(self, part: Part) -> None:
        before, self.only = self.only, part.stores
        if part.summed is not None:
            self._whole(part, part.summed)
        elif part.lanes is not None:
            self._rows(part, part.lanes)
        else:
            self._flat(part)
        self.only = before

    def _whole(self, part: Part, stmt: Store) -> None:
        """The sum over the whole chain, by the block."""
        total, dtype = self._total(stmt), stmt.buffer.dtype
        over = replace(part, over=part.chain, summed=None)
        if part.lanes is not None:
            self._rows(over, part.lanes)
        else:
            self._flat(over)
        del self.sums[id(stmt)]
        op, start = OPS[str(stmt.accumulate)], identity(str(stmt.accumulate), dtype)
        self.line(f"{total} = tg_block<{op}, {c_type(dtype)}>({total}, {start});")
        self.open(f"if ({self.team.thread} == 0)")
        place = self.place(stmt.buffer, stmt.index)
        old = f"({c_type(dtype)}){place}"
        self.line(f"{place} = {accumulated(str(stmt.accumulate), dtype, old, total)};")
        self.close()

    def _flat(self, part: Part) -> None:
        """Threads share the iterations of the loops that the part is over."""
        found = fours(part) if self.many and not self.sums else None
        if found is not None:
            self.by_fours(part, found, self.team.thread, self.team.threads)
            return
        fails = any(isinstance(s, Check) for stmt in part.tail for s in walk(stmt))
        if not fails:
            self._by_one(part)
            return
        # A thread that finds a failure leaves the loop and nothing else: all come to the barriers.
        failed = self.names.fresh("failed") if self.team is BLOCK else ""
        self.open(f"const bool {failed} = [&]() -> bool" if failed else "[&]() -> bool")
        self._by_one(part)
        self.line("return false;")
        self.close("();")
        if failed:
            self.line(f"if (__syncthreads_or({failed})) return;")

    def _by_one(self, part: Part) -> None:
        """A thread takes one iteration at a time."""
        closes = self._shared_loop(part.over, self.team.thread, self.team.threads)
        closes += self._chain(part)
        self.alone(part.tail)
        for _ in range(closes):
            self.close()

    def _rows(self, part: Part, lanes: For) -> None:
        """Warps share the iterations, the lanes of a warp the loop in the tail."""
        closes = self._shared_loop(part.over, self.team.warp, self.team.warps)
        closes += self._chain(part)
        sums = [s for s in walk(lanes) if isinstance(s, Store) and s.accumulate is not None
                and any(isinstance(t, Alloc) and t.buffer is s.buffer for t in part.tail)]
        for stmt in part.tail:
            if stmt is lanes:
                self._lanes(lanes, sums)
            elif isinstance(stmt, Store) and id(stmt.buffer) not in self.registers:
                if self.only is None or id(stmt) in self.only:
                    self.open(f"if ({LANE} == 0)")
                    self.store(stmt)
                    self.close()
            else:
                self.statement(stmt)
        for _ in range(closes):
            self.close()

    def _lanes(self, loop: For, sums: list[Store]) -> None:
        totals = [(s, self._total(s)) for s in sums]
        self.counted(loop, LANE, "32")
        for stmt, total in totals:
            del self.sums[id(stmt)]
            dtype, op = stmt.buffer.dtype, str(stmt.accumulate)
            place = self.place(stmt.buffer, stmt.index)
            whole = f"tg_warp<{OPS[op]}, {c_type(dtype)}>({total})"
            self.line(f"{place} = {accumulated(op, dtype, place, whole)};")

    def _shared_loop(self, over: Sequence[For], me: str, all_: str) -> int:
        """Open the loop that is shared; returns how many blocks are open."""
        if not over:
            self.open()
            return 1
        extents = [self.index(f.extent) for f in over]
        if len(over) == 1:
            i = self.bind(over[0].var)
            end = self.names.fresh("end")
            self.line(f"const I64 {end} = {extents[0]};")
            self.open(f"for (I64 {i} = {me}; {i} < {end}; {i} += {all_})")
            return 1
        self.open()
        counts = []
        for f, extent in zip(over, extents, strict=True):
            counts.append(self.names.fresh(f"n_{f.var.name}"))
            self.line(f"const I64 {counts[-1]} = {extent};")
        end, at = self.names.fresh("end"), self.names.fresh("at")
        self.line(f"const I64 {end} = {' * '.join(counts)};")
        self.open(f"for (I64 {at} = {me}; {at} < {end}; {at} += {all_})")
        rest = at
        for k in range(len(over) - 1, -1, -1):
            i = self.bind(over[k].var)
            if k == 0:
                self.line(f"const I64 {i} = {rest};")
                break
            self.line(f"const I64 {i} = {rest} % {counts[k]};")
            following = self.names.fresh("rest")
            self.line(f"const I64 {following} = {rest} / {counts[k]};")
            rest = following
        return 2

    def _chain(self, part: Part) -> int:
        """What stands along the chain, with the loops that stay in one thread."""
        opened = 0
        for loop, before in zip(part.chain, part.before, strict=True):
            if all(loop is not f for f in part.over):
                i = self.bind(loop.var)
                self.open(f"for (I64 {i} = 0; {i} < {self.index(loop.extent)}; ++{i})")
                opened += 1
            self.alone(before)
        return opened


def in_fours(count: Expr) -> Expr:
    """The multiple of 4 at or above."""
    return E.mul(E.floordiv(E.add(count, E.index(3)), E.index(4)), E.index(4))


def shared_registers(stmts: Sequence[Stmt]) -> set[int]:
    """The registers among ``stmts`` that one thread writes for all."""
    found: set[int] = set()
    for stmt in stmts:
        if isinstance(stmt, Block):
            found |= shared_registers(stmt.body)
        elif isinstance(stmt, For) and stmt.mode in nests.SHARED:
            found |= left_to_one(stmt)
        elif has_teamwork(stmt):
            for block in nests.block_of(stmt):
                found |= shared_registers(block.body)
        elif not isinstance(stmt, (Store, Let, Alloc)):
            found |= {id(s.buffer) for s in walk(stmt)
                      if isinstance(s, Store) and s.buffer.role == "register"}
    return found


def left_to_one(root: For) -> set[int]:
    """The registers opened around a nest that threads cannot share, so that one thread has to
    run the nest: those it stores into plainly, or reads and sums up."""
    own = {id(s.buffer) for s in walk(root) if isinstance(s, Alloc)}
    outside = [s for s in walk(root) if isinstance(s, Store) and s.buffer.role == "register"
               and id(s.buffer) not in own]
    stored = {id(s.buffer) for s in outside}
    read = {id(x.buffer) for s in walk(root) for e in nests.expressions(s) for x in nests.loads(e)}
    apart = all(s.accumulate is not None and isinstance(s.index, Const) for s in outside)
    return set() if apart and not stored & read else stored
