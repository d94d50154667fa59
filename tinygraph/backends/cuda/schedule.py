"""Loop program --> kernels, and the host's program that launches them.

The statements of a program are launched in order.  What blocks may share becomes a kernel of many
blocks: a parallel loop (a block takes one iteration after another; a scan whose batch is cut into
tiles is one), a nest over enough elements, a product.  What lies between them is done by the
kernel of one block.  A scan of many weights, or one that cannot be cut into tiles and is much work,
is run by all blocks together (grid.py), a step of very much work launched; where sizes decide, the
host does so at each call: ``Either``.

What depends on numbers that only the device knows (sizes that a run finds out) stays in the one
kernel that finds them out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinygraph.backends.cuda.costs import (
    above,
    at_least,
    both,
    bytes_of,
    countable,
    either,
    never,
    steady_weights,
    work_of,
)
from tinygraph.backends.cuda.grid import GridWriter, shareable
from tinygraph.backends.cuda.kernel import Kernel
from tinygraph.backends.cuda.nest import (
    SHARED,
    has_teamwork,
    loads,
    names_in,
    take_apart,
)
from tinygraph.backends.cuda.ownership import Arena
from tinygraph.backends.cuda.team import BLOCK, GRID, Team, TeamWriter
from tinygraph.backends.cuda.threads import no_python
from tinygraph.backends.cuda.vectors import groups
from tinygraph.backends.cuda.waiting import holds_time
from tinygraph.dtypes import bool_, int64
from tinygraph.loops import build as E
from tinygraph.loops.language import (
    Alloc,
    Binary,
    Block,
    Buffer,
    Call,
    Const,
    Expr,
    For,
    Gemm,
    Let,
    Note,
    Program,
    Stmt,
    Var,
    buffers,
    expressions,
    walk,
)

SMALL = 1 << 12  # elements that one block does as fast as many
# Multiply-adds of a step from which on ...
STEP_WORK = 1 << 17  # ... all blocks, which wait for one another, are faster than one
ALONE_WORK = 1 << 20  # ... launches are, where blocks cannot wait for one another
LAUNCH_WORK = 1 << 29  # ... launches are faster than all blocks in one kernel
LARGE_PRODUCT = 1 << 24  # multiply-adds from which on cuBLAS is faster than a kernel (an estimate)
SIDE = 64  # of a tile of a product


@dataclass(frozen=True)
class Launch:
    """Run a kernel."""

    kernel: Kernel


@dataclass(frozen=True)
class Product:
    """A product of ``limit`` multiply-adds or more is the device's (cuBLAS), if it can; else
    ``kernel`` computes it."""

    gemm: Gemm
    limit: int
    kernel: Launch


@dataclass(frozen=True)
class HostLet:
    """Bind a number that the host works out."""

    var: Var
    value: Expr


@dataclass(frozen=True)
class HostFor:
    """for var in range(extent): body"""

    var: Var
    extent: Expr
    body: tuple[Step, ...]


@dataclass(frozen=True)
class Either:
    """``then`` if ``cond`` holds, else ``other``; ``why``: the condition in words."""

    cond: Expr
    why: str
    then: tuple[Step, ...]
    other: tuple[Step, ...]


@dataclass(frozen=True)
class HostCall:
    """Run a Python function on arrays."""

    call: Call


Step = Launch | Product | HostLet | HostFor | Either | HostCall


@dataclass(frozen=True)
class HostProgram:
    """What the host does, and every kernel of it.

    wide  does a scan have more weights than a block's shared memory?  Then its batch is better not
          cut into tiles
    """

    steps: tuple[Step, ...]
    kernels: tuple[Kernel, ...]
    wide: Expr


def schedule(program: Program, room: int) -> HostProgram:
    """The kernels of ``program`` and the order in which they are launched.

    room  the bytes of shared memory that a block has for weights
    Raises UnavailableError for a Python function in a loop that only the device can steer.
    """
    scheduler = _Scheduler(program, room)
    known = frozenset(program.sizes)
    scheduler.find_wide(program.body, known)
    steps = scheduler.steps(program.body.body, known)
    return HostProgram(steps, tuple(scheduler.kernels), scheduler.wide)


class _Scheduler:
    def __init__(self, program: Program, room: int) -> None:
        self.guarded, self.room = program.sites > 0, E.index(room)
        self.arena = Arena(program)
        self.kernels: list[Kernel] = []
        self.wide: Expr = E.const(False, bool_)
        self.by_launches = False  # loops over time are launched step by step

    def find_wide(self, body: Block, known: frozenset[str]) -> None:
        """Is there a scan with more weights than a block has room for?"""
        for stmt in body.body:
            if isinstance(stmt, For) and stmt.mode == "parallel" and holds_time(stmt):
                weights = bytes_of(steady_weights(stmt))
                if shareable(stmt) and names_in(weights) <= known:
                    self.wide = either(self.wide, above(weights, self.room))

    def writer(self, what: str, team: Team = BLOCK) -> TeamWriter:
        """Begins the next kernel."""
        writer = TeamWriter(f"k{len(self.kernels)}_{what}", team)
        if self.guarded:
            writer.guard()
        return writer

    def add(self, kernel: Kernel) -> Launch:
        """Keep a kernel and launch it."""
        self.kernels.append(kernel)
        return Launch(kernel)

    def steps(self, stmts: Sequence[Stmt], known: frozenset[str]) -> tuple[Step, ...]:
        """What the host does for statements of one block."""
        out: list[Step] = []
        waiting: list[Stmt] = []
        held = 0  # the statement up to which what is waiting must stay together

        def flush() -> None:
            if any(not isinstance(s, Note) for s in waiting):
                out.append(self.one_block(waiting))
            waiting.clear()

        for k, stmt in enumerate(stmts):
            if isinstance(stmt, Let) and self.on_host(stmt, known) and stmt.var.dtype is int64:
                out.append(HostLet(stmt.var, stmt.value))
                known |= {stmt.var.name}
                continue
            made = None if k < held else self.launched(stmt, known)
            if made is not None:
                flush()
                out += made
                continue
            if isinstance(stmt, Call):
                raise no_python(stmt)
            waiting.append(stmt)
            if isinstance(stmt, (Let, Alloc)):
                held = max(held, _last_use(stmt, stmts) + 1)
        flush()
        return tuple(out)

    def on_host(self, stmt: Stmt, known: frozenset[str]) -> bool:
        """Can the host work out the expressions of ``stmt`` itself?"""
        return all(names_in(e) <= known and countable(e) for e in expressions(stmt))

    def launched(self, stmt: Stmt, known: frozenset[str]) -> list[Step] | None:
        """``stmt`` as launches of its own, if that is worth it and the host knows its numbers."""
        if not _free(stmt) <= known or _outside_registers(stmt):
            return None
        if isinstance(stmt, Call):
            return [HostCall(stmt)]
        if isinstance(stmt, Gemm):
            launch = self.product(stmt)
            whole = self.on_host(stmt, known) and not stmt.panel
            return [Product(stmt, LARGE_PRODUCT, launch) if whole else launch]
        if not isinstance(stmt, For):
            return None
        if stmt.mode == "parallel":
            return self.tiles(stmt, known) if holds_time(stmt) else [self.blocks(stmt)]
        if stmt.mode in SHARED:
            return self.spread(stmt)
        if stmt.mode == "serial" and (has_teamwork(stmt) or _calls(stmt)):
            return self.over_time(stmt, known)
        return None

    def one_block(self, stmts: Sequence[Stmt]) -> Launch:
        """A kernel of one block."""
        writer = self.writer("block")
        writer.block(stmts)
        return self.add(writer.finish())

    def blocks(self, loop: For) -> Launch:
        """A kernel whose blocks take the iterations of a parallel loop."""
        writer = self.writer(_kind(loop))
        writer.many = _kind(loop) != "scan"
        end = writer.names.fresh("end")
        writer.line(f"const I64 {end} = {writer.index(loop.extent)};")
        writer.hold(steady_weights(loop))
        i = writer.bind(loop.var)
        writer.open(f"for (I64 {i} = blockIdx.x; {i} < {end}; {i} += gridDim.x)")
        writer.block(loop.body.body)
        writer.touched = True
        writer.barrier()
        writer.close()
        return self.add(writer.finish(blocks=loop.extent))

    def spread(self, root: For) -> list[Step] | None:
        """Kernels of many blocks for a nest, one for each of its parts."""
        parts = take_apart(root)
        if parts is None or any(part.summed is not None for part in parts):
            return None
        out: list[Step] = []
        for part in parts:
            count: Expr = E.index(32 if part.lanes is not None else 1)
            for f in part.over:
                count = E.mul(count, f.extent)
            if isinstance(count, Const) and int(count.value) <= SMALL and len(parts) == 1:
                return None
            writer = self.writer("nest", GRID)
            writer.nest_part(part)
            out.append(self.add(writer.finish(elements=groups(part) or count)))
        return out

    def product(self, stmt: Gemm) -> Launch:
        """A kernel of many blocks for a product: each takes tiles of the result."""
        writer = self.writer("product", GRID)
        writer.together(stmt)
        down, along = (E.floordiv(E.add(n, E.index(SIDE - 1)), E.index(SIDE))
                       for n in (stmt.m, stmt.n))
        return self.add(writer.finish(blocks=E.maximum(E.mul(down, along), E.index(1))))

    def tiles(self, loop: For, known: frozenset[str]) -> list[Step]:
        """A scan whose batch is cut into tiles, of which a block takes one after another; one that
        all blocks run together, where weights are many and the batch is one tile."""
        if self.by_launches:
            return [self.launches(loop, known)]
        weights = bytes_of(steady_weights(loop))
        if never(self.wide) or not shareable(loop) or not names_in(weights) <= known:
            return [self.blocks(loop)]
        work = work_of(loop.body, known, {loop.var.name: E.index(0)})
        single = Binary("le", loop.extent, E.index(1))
        large = either(above(weights, self.room), at_least(work, STEP_WORK))
        return self.either(
            both(single, at_least(work, LAUNCH_WORK)), "where a step is very much work",
            lambda: [self.launches(loop, known)],
            lambda: self.either(
                both(single, large), "where weights are many and the batch is not cut",
                lambda: [self.grid(loop)], lambda: [self.blocks(loop)]))

    def over_time(self, loop: For, known: frozenset[str]) -> list[Step] | None:
        """A loop that cannot be cut into tiles, by what is fastest: one block, all blocks, or
        launches step by step."""
        if self.by_launches or _calls(loop):
            return [self.launches(loop, known)]
        work = work_of(loop.body, known | {loop.var.name}, {})
        if shareable(loop):
            return self.either(
                at_least(work, LAUNCH_WORK), "where a step is very much work",
                lambda: [self.launches(loop, known)],
                lambda: self.either(at_least(work, STEP_WORK), "where a step is much work",
                                    lambda: [self.grid(loop)], lambda: [self.one_block([loop])]))
        before = len(self.kernels)
        many = self.launches(loop, known)
        if all(k.blocks is None and k.elements is None for k in self.kernels[before:]):
            del self.kernels[before:]
            return None
        return self.either(at_least(work, ALONE_WORK), "where a step is much work",
                           lambda: [many], lambda: [self.one_block([loop])])

    def launches(self, loop: For, known: frozenset[str]) -> HostFor:
        """A loop whose iterations the host launches, and those of the loops in it."""
        before, self.by_launches = self.by_launches, True
        steps = self.steps(loop.body.body, known | {loop.var.name})
        self.by_launches = before
        return HostFor(loop.var, loop.extent, steps)

    def grid(self, loop: For) -> Launch:
        """A kernel of all blocks, which wait for one another."""
        writer = GridWriter(f"k{len(self.kernels)}_grid", [loop], self.arena)
        if self.guarded:
            writer.guard()
        writer.hold_columns()
        writer.together(loop)
        return self.add(writer.finish(blocks=E.index(writer.units) if writer.units else None))

    def either(self, cond: Expr, why: str, then: Callable[[], list[Step]],
               other: Callable[[], list[Step]]) -> list[Step]:
        """One of two ways, and only the one where the condition is known."""
        if isinstance(cond, Const):
            return then() if cond.value else other()
        return [Either(cond, why, tuple(then()), tuple(other()))]


def _kind(loop: For) -> str:
    """What a parallel loop is, for the name of its kernel."""
    scan = any(isinstance(s, Note) and s.text.startswith("scan ") for s in walk(loop))
    return "scan" if scan else "blocks"


def _calls(stmt: Stmt) -> bool:
    """Is there a Python function to call under ``stmt``?"""
    return any(isinstance(s, Call) for s in walk(stmt))


def _free(stmt: Stmt) -> set[str]:
    """The names that ``stmt`` uses and does not bind."""
    used: set[str] = set()
    bound: set[str] = set()
    for s in walk(stmt):
        for e in expressions(s):
            used |= names_in(e)
        if isinstance(s, (For, Let)):
            bound.add(s.var.name)
    return used - bound


def _outside_registers(stmt: Stmt) -> bool:
    """Does ``stmt`` use a register that is opened outside of it?"""
    own = {id(s.buffer) for s in walk(stmt) if isinstance(s, Alloc)}
    return any(b.role == "register" and id(b) not in own for b in _registers(stmt))


def _registers(stmt: Stmt) -> list[Buffer]:
    found: list[Buffer] = []
    for s in walk(stmt):
        found += [b for b in buffers(s) if b.role == "register"]
        found += [x.buffer for e in expressions(s) for x in loads(e) if x.buffer.role == "register"]
    return found


def _last_use(stmt: Let | Alloc, stmts: Sequence[Stmt]) -> int:
    """The position of the last statement that uses what ``stmt`` names."""
    def uses(other: Stmt) -> bool:
        if isinstance(stmt, Let):
            return other is stmt or stmt.var.name in _free(other)
        return other is stmt or any(b is stmt.buffer for b in _registers(other))

    return max(k for k, other in enumerate(stmts) if uses(other))


def explained(steps: Sequence[Step], depth: int = 1) -> list[str]:
    """What the host does, a line for each thing, for a report."""
    lines: list[str] = []
    for step in steps:
        if isinstance(step, Launch):
            lines.append(f"{step.kernel.name}: {_how(step.kernel)}")
        elif isinstance(step, Product):
            lines.append(f"{step.kernel.kernel.name}: many blocks; of {step.limit:,} multiply-adds "
                         "or more cuBLAS, where it takes these strides")
        elif isinstance(step, HostFor):
            lines += [f"for {step.var.name}, launched step by step:", *explained(step.body)]
        elif isinstance(step, HostCall):
            lines.append(f"{step.call.name}: Python, on the host")
        elif isinstance(step, Either):
            lines += [f"{step.why}:", *explained(step.then), "else:", *explained(step.other)]
    return ["  " * bool(depth) + line for line in lines]


def _how(kernel: Kernel) -> str:
    if kernel.together:
        held = ", each with its columns of the weights in shared memory" if kernel.held else ""
        return f"one persistent kernel for all steps, all blocks share the units{held}"
    if kernel.blocks is None and kernel.elements is None:
        return "one block"
    if kernel.elements is not None:
        return "as many blocks as there are elements for"
    if "_scan" not in kernel.name:
        return "many blocks"
    held = ", weights in shared memory where there is room" if kernel.held else ""
    return f"one persistent kernel for all steps, blocks take tiles of the batch{held}"
