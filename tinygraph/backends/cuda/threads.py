"""Code of one thread: the loop program as it stands, in C."""

from __future__ import annotations

from collections.abc import Sequence

from tinygraph.backends.cuda.kernel import Writer
from tinygraph.backends.cuda.names import c_type
from tinygraph.backends.cuda.scalar import accumulated
from tinygraph.backends.runners import NeedsHost
from tinygraph.errors import InternalError
from tinygraph.loops.language import (
    Alloc,
    Block,
    Buffer,
    Call,
    Check,
    Const,
    For,
    If,
    Let,
    Note,
    Stmt,
    Store,
    While,
)


class Threads(Writer):
    """Code of one thread: the loop program as it stands."""

    only: frozenset[int] | None = None  # the stores to memory that the part being written makes
    dropped: frozenset[int] = frozenset()  # stores to registers that it does not make
    sums: dict[int, str]  # stores that add up in a variable of the thread instead

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.sums = {}

    def alone(self, stmts: Sequence[Stmt]) -> None:
        """Write statements one after another."""
        for stmt in stmts:
            self.statement(stmt)

    def statement(self, stmt: Stmt) -> None:
        """Write one statement."""
        if isinstance(stmt, Block):
            self.open()
            self.alone(stmt.body)
            self.close()
        elif isinstance(stmt, For):
            self.counted(stmt, "0", "1")
        elif isinstance(stmt, While):
            self.open(f"while ({self.expr(stmt.cond)})")
            self.alone(stmt.body.body)
            self.close()
        elif isinstance(stmt, If):
            self.branch(stmt)
        elif isinstance(stmt, Let):
            value = self.expr(stmt.value)
            self.line(f"const {c_type(stmt.var.dtype)} {self.bind(stmt.var)} = {value};")
        elif isinstance(stmt, Store):
            self.store(stmt)
        elif isinstance(stmt, Alloc):
            self.declare(stmt.buffer, count_of(stmt.buffer))
        elif isinstance(stmt, Check):
            self.check(stmt)
        elif isinstance(stmt, Note):
            self.line(f"// {' '.join(f'{stmt.text} {stmt.source}'.split())}")
        elif isinstance(stmt, Call):
            raise no_python(stmt)
        else:
            raise InternalError(f"{type(stmt).__name__} is nothing that one thread does")

    def counted(self, loop: For, first: str, step: str) -> None:
        """A loop from ``first`` in steps."""
        extent = self.index(loop.extent)
        if not isinstance(loop.extent, Const) and not extent.isidentifier():
            end = self.names.fresh(f"n_{loop.var.name}")
            self.line(f"const I64 {end} = {extent};")
            extent = end
        i = self.bind(loop.var)
        after = f"++{i}" if step == "1" else f"{i} += {step}"
        self.open(f"for (I64 {i} = {first}; {i} < {extent}; {after})")
        self.alone(loop.body.body)
        self.close()

    def branch(self, stmt: If) -> None:
        """One of two blocks."""
        self.open(f"if ({self.expr(stmt.cond)})")
        self.alone(stmt.then.body)
        if stmt.other.body:
            self.close(" else {")
            self.depth += 1
            self.alone(stmt.other.body)
        self.close()

    def store(self, stmt: Store) -> None:
        """A plain or an accumulating store, if it is one of this part's."""
        register = id(stmt.buffer) in self.registers
        if id(stmt) in self.dropped or (
                not register and self.only is not None and id(stmt) not in self.only):
            return
        value = self.expr(stmt.value)
        if id(stmt) in self.sums:
            total, op = self.sums[id(stmt)], str(stmt.accumulate)
            self.line(f"{total} = {accumulated(op, stmt.buffer.dtype, total, value)};")
            return
        place = self.place(stmt.buffer, stmt.index)
        if stmt.accumulate is not None:
            old = place if register else f"({c_type(stmt.buffer.dtype)}){place}"
            value = accumulated(stmt.accumulate, stmt.buffer.dtype, old, value)
        self.line(f"{place} = {value};")

    def check(self, stmt: Check) -> None:
        """Report and stop unless the condition holds."""
        self.checks = True
        self.open(f"if (!({self.expr(stmt.cond)}))")
        self.report(stmt)
        self.line("return true;")
        self.close()

    def report(self, stmt: Check) -> None:
        """Write down the failure."""
        numbers = [f"(I64)({self.expr(e)})" for e in stmt.numbers[:4]]
        given = ", ".join([*numbers, *["0"] * (4 - len(numbers))])
        self.line(f"tg_fault(fault, {stmt.site}, {len(numbers)}, {given});")


def no_python(call: Call) -> NeedsHost:
    """What is wrong with a Python function where the host cannot run it."""
    return NeedsHost(
        f"{call.name} is a Python function, and kernels cannot call it: it stands in a loop with a "
        "condition, or takes an array of a size that only the run finds out, so that only the "
        "device knows when its turn comes")


def count_of(buffer: Buffer) -> int:
    if not isinstance(buffer.size, Const):
        raise InternalError(f"the size of register {buffer.name!r} is not a constant")
    return int(buffer.size.value)
