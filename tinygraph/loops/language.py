"""The loop language: what every back end reads, on one page.

A program is one function over flat, typed buffers.  Its sizes are int64 parameters; every index
is a flat element offset.  Expressions are scalar and typed; statements are structured.

    Expr = Const | Var | DimOf | Load | Unary | Binary | Select | Cast
    Stmt = For | While | If | Let | Store | Alloc | Pack | Gemm | Call | Check | Note | Stamp
         | Block

Knows no tensor op and no graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinygraph.dtypes import DType, bool_, float32, float64, int32, int64

# Scalar functions.  Integer floordiv and mod follow Python's signs and give 0 for a divisor of 0.
# min and max hand on a nan.  shr is arithmetic.  to_bits/from_bits reinterpret a float as the
# integer of its width and back.  round is half to even.
TRANSCENDENTAL = frozenset({
    "exp", "expm1", "log", "log1p", "log2", "tanh", "sigmoid", "softplus", "sin", "cos", "tan",
    "erf", "pow", "arctan2", "arcsin", "arccos", "arctan", "sinh", "cosh", "arcsinh", "arccosh",
    "arctanh",
})
UNARY = frozenset({
    "neg", "abs", "not", "invert", "sqrt", "floor", "ceil", "trunc", "round", "isnan", "isinf",
    "to_bits", "from_bits",
}) | (TRANSCENDENTAL - {"pow", "arctan2"})
COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
BINARY = COMPARISONS | frozenset({
    "add", "sub", "mul", "div", "floordiv", "mod", "min", "max", "pow", "arctan2", "and", "or",
    "xor", "shl", "shr",
})


@dataclass(frozen=True, eq=False)
class Buffer:
    """A flat run of ``size`` elements.

    ``role``: "arg" is passed by the caller, "temp" lives in the arena (it has an offset in
    ``Program.arena``), "register" is a scalar or tiny array opened by an ``Alloc`` statement.
    ``writable`` is False for an argument that the program only reads.
    """

    name: str
    dtype: DType
    size: Expr
    role: str = "temp"
    writable: bool = True


@dataclass(frozen=True, eq=False)
class Const:
    """A literal of the given type."""

    value: float | int | bool
    dtype: DType


@dataclass(frozen=True, eq=False)
class Var:
    """A loop index (int64) or a name bound by ``Let``."""

    name: str
    dtype: DType


@dataclass(frozen=True, eq=False)
class DimOf:
    """The int64 size parameter ``name`` of the program."""

    name: str
    dtype: DType = int64


@dataclass(frozen=True, eq=False)
class Load:
    """buffer[index]"""

    buffer: Buffer
    index: Expr

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype


@dataclass(frozen=True, eq=False)
class Unary:
    """op(x); ``op`` is a member of UNARY."""

    op: str
    x: Expr

    @property
    def dtype(self) -> DType:
        if self.op in ("isnan", "isinf", "not"):
            return bool_
        if self.op == "to_bits":
            return int32 if self.x.dtype is float32 else int64
        if self.op == "from_bits":
            return float32 if self.x.dtype is int32 else float64
        return self.x.dtype


@dataclass(frozen=True, eq=False)
class Binary:
    """op(x, y), both of one dtype; ``op`` is a member of BINARY; comparisons give bool."""

    op: str
    x: Expr
    y: Expr

    @property
    def dtype(self) -> DType:
        return bool_ if self.op in COMPARISONS else self.x.dtype


@dataclass(frozen=True, eq=False)
class Select:
    """``then`` if cond else ``other``; both are evaluated."""

    cond: Expr
    then: Expr
    other: Expr

    @property
    def dtype(self) -> DType:
        return self.then.dtype


@dataclass(frozen=True, eq=False)
class Cast:
    """x as ``dtype``; float to integer truncates and saturates, nan gives 0; to bool is x != 0."""

    x: Expr
    dtype: DType


Expr = Const | Var | DimOf | Load | Unary | Binary | Select | Cast


@dataclass(frozen=True, eq=False)
class Block:
    """Statements one after another."""

    body: tuple[Stmt, ...]


@dataclass(frozen=True, eq=False)
class For:
    """for var in range(extent): body.

    ``mode`` "serial" runs in order.  "vector" promises that iterations touch memory
    independently, but for ``Store`` with ``accumulate``; "independent" promises the same of a loop
    around others.  "parallel" promises that no iteration writes what another touches, so that
    threads may share them; no Check stands in it.  Every mode may be run serially.
    """

    var: Var
    extent: Expr
    body: Block
    mode: str = "serial"


@dataclass(frozen=True, eq=False)
class While:
    """Run body again and again while cond, evaluated before each round, is true."""

    cond: Expr
    body: Block


@dataclass(frozen=True, eq=False)
class If:
    """Run ``then`` or ``other``."""

    cond: Expr
    then: Block
    other: Block = field(default_factory=lambda: Block(()))


@dataclass(frozen=True, eq=False)
class Let:
    """Bind ``var`` to a value until the end of the enclosing block."""

    var: Var
    value: Expr


@dataclass(frozen=True, eq=False)
class Store:
    """buffer[index] = value, or buffer[index] = accumulate(buffer[index], value).

    ``accumulate`` is None, "add", "mul", "min", "max", "and" or "or"; the order of accumulation
    is free, so a back end may reassociate it.
    """

    buffer: Buffer
    index: Expr
    value: Expr
    accumulate: str | None = None


@dataclass(frozen=True, eq=False)
class Alloc:
    """Open a "register" buffer of constant size until the end of the enclosing block."""

    buffer: Buffer


@dataclass(frozen=True, eq=False)
class Matrix:
    """A strided matrix inside a buffer: element (i, j) is at offset + i*rows + j*cols."""

    buffer: Buffer
    offset: Expr
    rows: Expr
    cols: Expr


@dataclass(frozen=True, eq=False)
class Pack:
    """Copy the k x n matrix ``source`` into panels of ``panel`` columns, for many a ``Gemm``.

    Element (p, j) goes to ``target``[offset + (j // panel) * panel * k + p * panel + j % panel];
    columns that the last panel lacks are filled with zeros.
    """

    k: Expr
    n: Expr
    source: Matrix
    target: Buffer
    offset: Expr
    panel: int


@dataclass(frozen=True, eq=False)
class Gemm:
    """c = a @ b, or c += a @ b if ``accumulate``; a is m x k, b is k x n, c is m x n.

    All three are float32 or float64 alike.  c overlaps neither a nor b.  Any of m, n, k may be 0
    (k = 0 without accumulate stores zeros).  ``panel``: 0, or b is what ``Pack`` with this panel
    width has written from its offset on, and has no strides of its own.
    """

    m: Expr
    n: Expr
    k: Expr
    a: Matrix
    b: Matrix
    c: Matrix
    accumulate: bool = False
    panel: int = 0


@dataclass(frozen=True, eq=False)
class Strided:
    """An array inside a buffer: element (i, j, ..) is at offset + i*strides[0] + j*strides[1]..."""

    buffer: Buffer
    offset: Expr
    sizes: tuple[Expr, ...]
    strides: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class Call:
    """Run a Python function on arrays: ``function(inputs, outputs)`` writes to the outputs.

    The arrays are views of the buffers and may be used during the call alone.  An exception
    leaves the program, and the caller of the program raises it.  Stands in no parallel loop,
    since Python runs one thread at a time.  ``name`` is for the reader of the program.
    """

    name: str
    function: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], None]
    inputs: tuple[Strided, ...]
    outputs: tuple[Strided, ...]


@dataclass(frozen=True, eq=False)
class Check:
    """Leave the program with failure ``site`` and the values of ``numbers`` unless cond holds."""

    cond: Expr
    site: int
    numbers: tuple[Expr, ...] = ()


@dataclass(frozen=True, eq=False)
class Note:
    """A comment in the printed program; ``source`` is the user's file:line or ''."""

    text: str
    source: str = ""


STAMP_NUMBERS = 3  # what a Stamp's buffer holds per slot: begun, ticks, how often


@dataclass(frozen=True, eq=False)
class Stamp:
    """Read a clock.  ``begin``: note the time in buffer[3 slot].  Else: the time since the Stamp
    of this slot that began, in the same block, is added to buffer[3 slot + 1], and 1 to
    buffer[3 slot + 2], also where several threads do so at once.  The buffer is int64.
    """

    buffer: Buffer
    slot: int
    begin: bool


Stmt = Block | For | While | If | Let | Store | Alloc | Pack | Gemm | Call | Check | Note | Stamp


@dataclass(frozen=True, eq=False)
class Program:
    """One function.

    sizes    names of the int64 parameters, in the order in which the caller passes them
    args     buffers passed by the caller, in order
    arena    (buffer, byte offset) of every temp; offsets are multiples of 64
    joint    groups of temps that share memory though they begin at different offsets
    arena_bytes   the size of the arena in bytes, over the size parameters
    sites    how many failure sites there are; a Check names one of range(sites)
    threads  how many threads may share a parallel loop
    """

    name: str
    sizes: tuple[str, ...]
    args: tuple[Buffer, ...]
    arena: tuple[tuple[Buffer, Expr], ...]
    arena_bytes: Expr
    body: Block
    sites: int = 0
    threads: Expr = Const(1, int64)
    joint: tuple[tuple[Buffer, ...], ...] = ()


def walk(stmt: Stmt) -> Iterator[Stmt]:
    """Every statement at or under ``stmt``, in program order."""
    yield stmt
    for child in children(stmt):
        yield from walk(child)


def children(stmt: Stmt) -> tuple[Stmt, ...]:
    """The statements directly under ``stmt``."""
    if isinstance(stmt, Block):
        return stmt.body
    if isinstance(stmt, (For, While)):
        return (stmt.body,)
    if isinstance(stmt, If):
        return (stmt.then, stmt.other)
    return ()


def operands(expr: Expr) -> tuple[Expr, ...]:
    """The expressions directly under ``expr``."""
    if isinstance(expr, Load):
        return (expr.index,)
    if isinstance(expr, (Unary, Cast)):
        return (expr.x,)
    if isinstance(expr, Binary):
        return (expr.x, expr.y)
    if isinstance(expr, Select):
        return (expr.cond, expr.then, expr.other)
    return ()


def expressions(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions that ``stmt`` itself evaluates, not those of the statements under it."""
    if isinstance(stmt, For):
        return (stmt.extent,)
    if isinstance(stmt, (While, If)):
        return (stmt.cond,)
    if isinstance(stmt, Let):
        return (stmt.value,)
    if isinstance(stmt, Store):
        return (stmt.index, stmt.value)
    if isinstance(stmt, Check):
        return (stmt.cond, *stmt.numbers)
    if isinstance(stmt, Gemm):
        matrices = (stmt.a, stmt.b, stmt.c)
        return (stmt.m, stmt.n, stmt.k, *(e for x in matrices for e in (x.offset, x.rows, x.cols)))
    if isinstance(stmt, Pack):
        x = stmt.source
        return (stmt.k, stmt.n, x.offset, x.rows, x.cols, stmt.offset)
    if isinstance(stmt, Call):
        arrays = (*stmt.inputs, *stmt.outputs)
        return tuple(e for a in arrays for e in (a.offset, *a.sizes, *a.strides))
    return ()


def buffers(stmt: Stmt) -> tuple[Buffer, ...]:
    """The buffers that ``stmt`` itself names; those that it loads stand in its expressions."""
    if isinstance(stmt, Store):
        return (stmt.buffer,)
    if isinstance(stmt, Gemm):
        return (stmt.a.buffer, stmt.b.buffer, stmt.c.buffer)
    if isinstance(stmt, Pack):
        return (stmt.source.buffer, stmt.target)
    if isinstance(stmt, Stamp):
        return (stmt.buffer,)
    if isinstance(stmt, Call):
        return tuple(a.buffer for a in (*stmt.inputs, *stmt.outputs))
    return ()
