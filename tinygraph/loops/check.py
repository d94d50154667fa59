"""Is a loop program well formed?  Run after every rewrite of it, and before it is executed."""

from __future__ import annotations

from tinygraph.dtypes import DType, bool_, float32, float64, int32, int64
from tinygraph.loops.language import (
    BINARY,
    COMPARISONS,
    TRANSCENDENTAL,
    UNARY,
    Alloc,
    Binary,
    Block,
    Buffer,
    Call,
    Cast,
    Check,
    Const,
    DimOf,
    Expr,
    For,
    Gemm,
    If,
    Let,
    Load,
    Matrix,
    Note,
    Pack,
    Program,
    Select,
    Stamp,
    Stmt,
    Store,
    Strided,
    Unary,
    Var,
    While,
)
from tinygraph.loops.printing import format_expr, format_stmt

MODES = frozenset(["serial", "vector", "independent", "parallel"])
ACCUMULATIONS = frozenset(["add", "mul", "min", "max", "and", "or"])
_FLOAT_ONLY = TRANSCENDENTAL | frozenset({
    "sqrt", "floor", "ceil", "trunc", "round", "isnan", "isinf", "to_bits", "div",
})
_BITWISE = frozenset(["and", "or", "xor"])
_INTEGER_ONLY = frozenset(("shl", "shr"))


class MalformedProgram(ValueError):
    """A loop program breaks a rule of the language; the message says which and where."""


def check_program(program: Program) -> None:
    """Raise MalformedProgram unless types agree, names are bound and unique, buffers are known,
    register buffers are opened, indices and extents are int64, and sites are in range."""
    _Checker(program).run()


class _Checker:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.vars: dict[str, DType] = {}
        self.buffers: dict[str, Buffer] = {}
        self.where = f"program {program.name}"
        self.shared = False  # inside a parallel loop

    def fail(self, fact: str) -> None:
        raise MalformedProgram(f"{fact}; in {self.where}")

    def run(self) -> None:
        program = self.program
        if len(set(program.sizes)) != len(program.sizes):
            self.fail(f"size parameters are not unique: {', '.join(program.sizes)}")
        for buffer in program.args:
            self.open(buffer, "arg")
            self.index(buffer.size, f"the size of {buffer.name}")
        for buffer, offset in program.arena:
            self.open(buffer, "temp")
            self.index(buffer.size, f"the size of {buffer.name}")
            self.index(offset, f"the arena offset of {buffer.name}")
        self.index(program.arena_bytes, "arena_bytes")
        self.index(program.threads, "threads")
        self.block(program.body)

    def open(self, buffer: Buffer, role: str) -> None:
        if buffer.role != role:
            self.fail(f"buffer {buffer.name} has role {buffer.role!r}, expected {role!r}")
        if buffer.name in self.buffers:
            self.fail(f"two buffers in one scope are called {buffer.name}")
        self.buffers[buffer.name] = buffer

    def bind(self, var: Var) -> None:
        if var.name in self.vars:
            self.fail(f"{var.name} is bound twice in one scope")
        self.vars[var.name] = var.dtype

    def block(self, block: Block, var: Var | None = None) -> None:
        outer = dict(self.vars), dict(self.buffers)
        if var is not None:
            self.bind(var)
        for stmt in block.body:
            self.stmt(stmt)
        self.vars, self.buffers = outer

    def stmt(self, stmt: Stmt) -> None:
        if isinstance(stmt, Block):
            self.block(stmt)
        elif isinstance(stmt, For):
            self.where = f"for {stmt.var.name} of program {self.program.name}"
            self.index(stmt.extent, f"the extent of the loop over {stmt.var.name}")
            if stmt.mode not in MODES:
                self.fail(f"{stmt.mode!r} is no loop mode")
            if stmt.var.dtype is not int64:
                self.fail(f"loop index {stmt.var.name} is {stmt.var.dtype}, expected int64")
            outer, self.shared = self.shared, self.shared or stmt.mode == "parallel"
            self.block(stmt.body, stmt.var)
            self.shared = outer
        elif isinstance(stmt, While):
            self.cond(stmt.cond, "a while condition")
            self.block(stmt.body)
        elif isinstance(stmt, If):
            self.cond(stmt.cond, "an if condition")
            self.block(stmt.then)
            self.block(stmt.other)
        elif isinstance(stmt, Stamp):
            self.known(stmt.buffer)
            self.writable(stmt.buffer)
            if stmt.buffer.dtype is not int64:
                self.fail(f"a Stamp writes int64 numbers, {stmt.buffer.name} holds "
                          f"{stmt.buffer.dtype}")
        elif not isinstance(stmt, Note):
            self.where = f"`{format_stmt(stmt)}` of program {self.program.name}"
            self.simple(stmt)

    def simple(self, stmt: Let | Store | Alloc | Pack | Gemm | Call | Check) -> None:
        if isinstance(stmt, Let):
            self.expr(stmt.value)
            if stmt.var.dtype is not stmt.value.dtype:
                self.fail(f"{stmt.var.name} is {stmt.var.dtype}, its value {stmt.value.dtype}")
            self.bind(stmt.var)
        elif isinstance(stmt, Store):
            self.store(stmt)
        elif isinstance(stmt, Alloc):
            if not isinstance(stmt.buffer.size, Const):
                self.fail(f"register buffer {stmt.buffer.name} has no constant size")
            self.index(stmt.buffer.size, f"the size of {stmt.buffer.name}")
            self.open(stmt.buffer, "register")
        elif isinstance(stmt, Gemm):
            self.gemm(stmt)
        elif isinstance(stmt, Pack):
            self.pack(stmt)
        elif isinstance(stmt, Call):
            self.call(stmt)
        else:
            if self.shared:
                self.fail("a Check stands in a parallel loop, which cannot be left")
            self.cond(stmt.cond, "a checked condition")
            if not 0 <= stmt.site < self.program.sites:
                self.fail(f"site {stmt.site} is not in range({self.program.sites})")
            for number in stmt.numbers:
                self.index(number, "a reported number")

    def store(self, stmt: Store) -> None:
        self.known(stmt.buffer)
        self.writable(stmt.buffer)
        self.index(stmt.index, f"the index into {stmt.buffer.name}")
        self.expr(stmt.value)
        if stmt.value.dtype is not stmt.buffer.dtype:
            self.fail(f"{stmt.buffer.name} holds {stmt.buffer.dtype}, got {stmt.value.dtype}")
        if stmt.accumulate is None:
            return
        if stmt.accumulate not in ACCUMULATIONS:
            self.fail(f"{stmt.accumulate!r} is no accumulation")
        self.operand(stmt.accumulate, stmt.buffer.dtype)

    def matrix(self, matrix: Matrix) -> None:
        self.known(matrix.buffer)
        for part in ("offset", "rows", "cols"):
            self.index(getattr(matrix, part), f"{part} of {matrix.buffer.name}")

    def pack(self, stmt: Pack) -> None:
        self.index(stmt.k, "k")
        self.index(stmt.n, "n")
        self.matrix(stmt.source)
        self.known(stmt.target)
        self.writable(stmt.target)
        self.index(stmt.offset, f"the offset in {stmt.target.name}")
        if stmt.panel < 1:
            self.fail(f"a panel has {stmt.panel} columns")
        if stmt.source.buffer.dtype is not stmt.target.dtype:
            self.fail(f"{stmt.target.name} holds {stmt.target.dtype}, "
                      f"got {stmt.source.buffer.dtype}")

    def gemm(self, stmt: Gemm) -> None:
        for name in "mnk":
            self.index(getattr(stmt, name), name)
        for matrix in (stmt.a, stmt.b, stmt.c):
            self.matrix(matrix)
        self.writable(stmt.c.buffer)
        dtypes = [x.buffer.dtype for x in (stmt.a, stmt.b, stmt.c)]
        if dtypes[0] not in (float32, float64) or len(set(dtypes)) > 1:
            names = ", ".join(map(str, dtypes))
            self.fail(f"the matrices of a Gemm must be float32 or float64 alike, got {names}")

    def call(self, stmt: Call) -> None:
        if self.shared:
            self.fail("a Call stands in a parallel loop, whose threads Python would run in turn")
        for array in (*stmt.inputs, *stmt.outputs):
            self.strided(array)
        for array in stmt.outputs:
            self.writable(array.buffer)

    def strided(self, array: Strided) -> None:
        self.known(array.buffer)
        if len(array.sizes) != len(array.strides):
            self.fail(f"an array in {array.buffer.name} has {len(array.sizes)} sizes and "
                      f"{len(array.strides)} strides")
        for expr in (array.offset, *array.sizes, *array.strides):
            self.index(expr, f"offset, size or stride of an array in {array.buffer.name}")

    def known(self, buffer: Buffer) -> None:
        if self.buffers.get(buffer.name) is not buffer:
            self.fail(f"buffer {buffer.name} is no argument, no temp and no open register")

    def writable(self, buffer: Buffer) -> None:
        if not buffer.writable:
            self.fail(f"{buffer.name} is read-only and cannot be stored to")

    def index(self, expr: Expr, what: str) -> None:
        self.expr(expr)
        if expr.dtype is not int64:
            self.fail(f"{what} is {expr.dtype}, expected int64")

    def cond(self, expr: Expr, what: str) -> None:
        self.expr(expr)
        if expr.dtype is not bool_:
            self.fail(f"{what} is {expr.dtype}, expected bool")

    def expr(self, expr: Expr) -> None:
        if isinstance(expr, Const):
            if not isinstance(expr.value, (int, float)):
                self.fail(f"literal {expr.value!r} is no Python number")
        elif isinstance(expr, Var):
            if self.vars.get(expr.name) is not expr.dtype:
                bound = self.vars.get(expr.name)
                self.fail(f"{expr.name} of {expr.dtype} is {f'a {bound}' if bound else 'unbound'}")
        elif isinstance(expr, DimOf):
            if expr.name not in self.program.sizes or expr.dtype is not int64:
                self.fail(f"{expr.name} is no int64 size parameter")
        elif isinstance(expr, Load):
            self.known(expr.buffer)
            self.index(expr.index, f"the index into {expr.buffer.name}")
        elif isinstance(expr, Cast):
            self.expr(expr.x)
        elif isinstance(expr, Unary):
            self.unary(expr)
        elif isinstance(expr, Binary):
            self.binary(expr)
        elif isinstance(expr, Select):
            self.cond(expr.cond, "a Select condition")
            self.expr(expr.then)
            self.expr(expr.other)
            if expr.then.dtype is not expr.other.dtype:
                self.fail(f"a Select is {expr.then.dtype} or {expr.other.dtype}")
        else:
            self.fail(f"{expr!r} is no expression")

    def unary(self, expr: Unary) -> None:
        self.expr(expr.x)
        dtype = expr.x.dtype
        if expr.op not in UNARY:
            self.fail(f"{expr.op!r} is no unary operation")
        if expr.op == "from_bits" and dtype not in (int32, int64):
            self.fail(f"from_bits takes int32 or int64, got {dtype}")
        if expr.op == "not" and dtype is not bool_:
            self.fail(f"not takes a bool, got {dtype}")
        if expr.op == "invert" and dtype.is_float:
            self.fail(f"invert takes integers or bool, got {dtype}")
        if expr.op not in ("from_bits", "not", "invert"):
            self.operand(expr.op, dtype)

    def binary(self, expr: Binary) -> None:
        self.expr(expr.x)
        self.expr(expr.y)
        if expr.op not in BINARY:
            self.fail(f"{expr.op!r} is no binary operation")
        if expr.x.dtype is not expr.y.dtype:
            self.fail(f"`{format_expr(expr)}` mixes {expr.x.dtype} and {expr.y.dtype}")
        if expr.op not in COMPARISONS:
            self.operand(expr.op, expr.x.dtype)

    def operand(self, op: str, dtype: DType) -> None:
        """Does ``op`` take operands of ``dtype``?"""
        if op in _FLOAT_ONLY and not dtype.is_float:
            self.fail(f"{op} takes floats, got {dtype}")
        if op in _BITWISE and dtype.is_float:
            self.fail(f"{op} takes integers or bool, got {dtype}")
        if op in _INTEGER_ONLY and not dtype.is_int:
            self.fail(f"{op} takes integers, got {dtype}")
        if dtype is bool_ and op not in _BITWISE and op not in ("min", "max"):
            self.fail(f"{op} takes numbers, got bool: cast first")
