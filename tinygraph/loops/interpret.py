"""The slow oracle: runs a loop program in Python with NumPy scalars and checks every access.

The program is translated once to Python text (``translate``) and run by ``run``.  Values keep
the exact type of the language: float32 arithmetic rounds to float32, integers wrap.  Functions
such as exp are computed in float64 and rounded.  Denormals are not flushed.

Memory is one byte array for the arena, so temps that overlap do overlap; all memory that the
caller did not pass starts as nan, or as large integers, so that a read before a write shows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

import numpy as np

from tinygraph.dtypes import DType, bool_
from tinygraph.loops import scalars
from tinygraph.loops.build import index
from tinygraph.loops.check import check_program
from tinygraph.loops.language import (
    STAMP_NUMBERS,
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

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip


class OutOfBounds(IndexError):
    """A program reads or writes outside a buffer.

    ``buffer`` is the buffer's name, ``index`` the offending element offset, ``size`` how many
    elements the buffer has.
    """

    def __init__(self, buffer: str, index: int, size: int) -> None:
        super().__init__(f"index {index} is outside buffer {buffer} of {size} elements")
        self.buffer, self.index, self.size = buffer, index, size


@dataclass(frozen=True)
class Failure:
    """The program left at a ``Check``: its site, and the values of its numbers."""

    site: int
    numbers: tuple[int, ...]


def run(
    program: Program, sizes: Sequence[int], args: Sequence[np.ndarray], backward: bool = False
) -> int | Failure:
    """Run ``program`` on flat arrays, which it writes in place; 0, or the Failure it left with.

    sizes     one integer per name in ``program.sizes``
    args      one flat, contiguous array per buffer in ``program.args``, of its dtype and at
              least its size
    backward  run every loop that is not "serial" from its last iteration to its first, which
              must make no difference but to the rounding of accumulations

    Raises MalformedProgram, OutOfBounds, or ValueError for arguments that do not fit.
    """
    if len(sizes) != len(program.sizes) or len(args) != len(program.args):
        raise ValueError(
            f"program {program.name} takes {len(program.sizes)} sizes and {len(program.args)} "
            f"arrays, got {len(sizes)} and {len(args)}"
        )
    main = translate(program, backward)
    with np.errstate(all="ignore"):
        return main([int(n) for n in sizes], list(args))


@lru_cache(maxsize=64)
def translate(program: Program, backward: bool = False):
    """The Python function (sizes, args) -> 0 or Failure that ``run`` calls."""
    check_program(program)
    translator = _Translator(program, backward)
    source = translator.source()
    exec(compile(source, f"<loops {program.name}>", "exec"), translator.scope)
    return translator.scope["main"]


class _Translator:
    def __init__(self, program: Program, backward: bool) -> None:
        self.program = program
        self.backward = backward
        self.scope: dict = {f"f_{name}": f for name, f in scalars.FUNCTIONS.items()}
        self.scope.update(
            np=np, Failure=Failure, gemm=_gemm, pack=_pack, out=_out_of_bounds, argument=_argument,
            arena=_arena, temp=_temp, register=_register, strided=_strided,
            clock=time.perf_counter_ns,
        )  # fmt: skip
        self.names: dict[tuple[str, str], str] = {}
        self.lines: list[str] = []

    def name(self, kind: str, name: str) -> str:
        """A Python identifier for a name of the program."""
        return self.names.setdefault((kind, name), f"{kind}{len(self.names)}")

    def constant(self, value: object) -> str:
        name = f"c{len(self.scope)}"
        self.scope[name] = value
        return name

    def put(self, depth: int, line: str) -> None:
        self.lines.append("    " * depth + line)

    def source(self) -> str:
        program = self.program
        self.put(0, "def main(sizes, args):")
        for k, size in enumerate(program.sizes):
            self.put(1, f"{self.name('s', size)} = sizes[{k}]")
        for k, buffer in enumerate(program.args):
            size = self.size(1, buffer)
            self.put(1, f"{self.name('b', buffer.name)} = "
                        f"argument(args[{k}], {self.constant(buffer)}, {size})")  # fmt: skip
        self.put(1, f"memory = arena({self.expr(program.arena_bytes)})")
        for buffer, offset in program.arena:
            size, where = self.size(1, buffer), self.expr(offset)
            self.put(1, f"{self.name('b', buffer.name)} = "
                        f"temp(memory, {self.constant(buffer)}, {where}, {size})")  # fmt: skip
        self.block(1, program.body)
        self.put(1, "return 0")
        return "\n".join(self.lines)

    def size(self, depth: int, buffer: Buffer) -> str:
        name = self.name("n", buffer.name)
        self.put(depth, f"{name} = {self.expr(buffer.size)}")
        return name

    def block(self, depth: int, block: Block) -> None:
        self.put(depth, "pass")
        for stmt in block.body:
            self.stmt(depth, stmt)

    def stmt(self, depth: int, stmt: Stmt) -> None:
        if isinstance(stmt, Block):
            self.block(depth, stmt)
        elif isinstance(stmt, For):
            span = f"range({self.expr(stmt.extent)})"
            if self.backward and stmt.mode != "serial":
                span = f"reversed({span})"
            self.put(depth, f"for {self.name('v', stmt.var.name)} in {span}:")
            self.block(depth + 1, stmt.body)
        elif isinstance(stmt, While):
            self.put(depth, f"while {self.expr(stmt.cond)}:")
            self.block(depth + 1, stmt.body)
        elif isinstance(stmt, If):
            self.put(depth, f"if {self.expr(stmt.cond)}:")
            self.block(depth + 1, stmt.then)
            self.put(depth, "else:")
            self.block(depth + 1, stmt.other)
        elif isinstance(stmt, Stamp):
            name, at = self.name("b", stmt.buffer.name), STAMP_NUMBERS * stmt.slot
            if stmt.begin:
                self.put(depth, f"{name}[{at}] = clock()")
            else:
                self.put(depth, f"{name}[{at + 1}] += clock() - {name}[{at}]")
                self.put(depth, f"{name}[{at + 2}] += 1")
        elif not isinstance(stmt, Note):
            self.simple(depth, stmt)

    def simple(self, depth: int, stmt: Let | Store | Alloc | Pack | Gemm | Call | Check) -> None:
        if isinstance(stmt, Let):
            self.put(depth, f"{self.name('v', stmt.var.name)} = {self.expr(stmt.value)}")
        elif isinstance(stmt, Alloc):
            size = self.size(depth, stmt.buffer)
            name = self.name("b", stmt.buffer.name)
            self.put(depth, f"{name} = register({self.constant(stmt.buffer)}, {size})")
        elif isinstance(stmt, Store):
            self.store(depth, stmt)
        elif isinstance(stmt, Gemm):
            m, n, k = (self.expr(e) for e in (stmt.m, stmt.n, stmt.k))
            a, b, c = (self.matrix(x) for x in (stmt.a, stmt.b, stmt.c))
            flags = f"{stmt.accumulate}, {stmt.panel}"
            self.put(depth, f"gemm({m}, {n}, {k}, {a}, {b}, {c}, {flags})")
        elif isinstance(stmt, Pack):
            k, n, source = self.expr(stmt.k), self.expr(stmt.n), self.matrix(stmt.source)
            target = self.matrix(Matrix(stmt.target, stmt.offset, index(0), index(0)))
            self.put(depth, f"pack({k}, {n}, {source}, {target}, {stmt.panel})")
        elif isinstance(stmt, Call):
            inputs, outputs = ("".join(f"{self.strided(a)}, " for a in arrays)
                               for arrays in (stmt.inputs, stmt.outputs))
            self.put(depth, f"{self.constant(stmt.function)}(({inputs}), ({outputs}))")
        else:
            numbers = "".join(f"{self.expr(e)}, " for e in stmt.numbers)
            self.put(depth, f"if not {self.expr(stmt.cond)}:")
            self.put(depth + 1, f"return Failure({stmt.site}, ({numbers}))")

    def store(self, depth: int, stmt: Store) -> None:
        name = self.name("b", stmt.buffer.name)
        self.put(depth, f"x = {self.expr(stmt.value)}")
        self.put(depth, f"k = {self.place(stmt.buffer, self.expr(stmt.index))}")
        value = "x"
        if stmt.accumulate is not None:
            old = self.loaded(stmt.buffer, f"{name}[k]")
            value = self.operation(stmt.accumulate, stmt.buffer.dtype, old, "x")
        self.put(depth, f"{name}[k] = {value}")

    def matrix(self, x: Matrix) -> str:
        parts = ", ".join(self.expr(e) for e in (x.offset, x.rows, x.cols))
        name = x.buffer.name
        return f"({name!r}, {self.name('b', name)}, {self.name('n', name)}, {parts})"

    def strided(self, x: Strided) -> str:
        name = x.buffer.name
        sizes, strides = ("".join(f"{self.expr(e)}, " for e in part)
                          for part in (x.sizes, x.strides))
        return (f"strided({self.constant(x.buffer)}, {self.name('b', name)}, "
                f"{self.name('n', name)}, {self.expr(x.offset)}, ({sizes}), ({strides}))")

    def place(self, buffer: Buffer, index: str) -> str:
        """An element offset, checked."""
        size = self.name("n", buffer.name)
        return f"(i if 0 <= (i := {index}) < {size} else out({buffer.name!r}, i, {size}))"

    def loaded(self, buffer: Buffer, text: str) -> str:
        if buffer.dtype is bool_:
            return f"({text} != 0)"
        return text if buffer.dtype.is_float else f"int({text})"

    def expr(self, expr: Expr) -> str:
        if isinstance(expr, Const):
            value = scalars.literal(expr.value, expr.dtype)
            return self.constant(value) if expr.dtype.is_float else f"({value})"
        if isinstance(expr, Var):
            return self.name("v", expr.name)
        if isinstance(expr, DimOf):
            return self.name("s", expr.name)
        if isinstance(expr, Load):
            place = self.place(expr.buffer, self.expr(expr.index))
            return self.loaded(expr.buffer, f"{self.name('b', expr.buffer.name)}[{place}]")
        if isinstance(expr, Cast):
            cast = self.constant(scalars.caster(expr.x.dtype, expr.dtype))
            return f"{cast}({self.expr(expr.x)})"
        if isinstance(expr, Select):
            then, cond, other = (self.expr(e) for e in (expr.then, expr.cond, expr.other))
            return f"f_select({cond}, {then}, {other})"
        if isinstance(expr, Unary):
            return self.unary(expr)
        assert isinstance(expr, Binary)
        return self.operation(expr.op, expr.x.dtype, self.expr(expr.x), self.expr(expr.y))

    def unary(self, expr: Unary) -> str:
        x, dtype = self.expr(expr.x), expr.x.dtype
        if expr.op == "neg" and dtype.is_float:
            return f"(-{x})"
        if expr.op == "not" or (expr.op == "invert" and dtype is bool_):
            return f"(not {x})"
        if expr.op in ("neg", "invert"):
            return self.wrap(f"{'-' if expr.op == 'neg' else '~'}{x}", dtype)
        if expr.op == "abs" and dtype.is_int:
            return self.wrap(f"abs({x})", dtype)
        if expr.op in ("to_bits", "from_bits"):
            return f"f_{expr.op}{dtype.bits}({x})"
        if expr.op in scalars.ROUNDED:
            return f"{self.constant(dtype.np.type)}(f_{expr.op}(float({x})))"
        return f"f_{expr.op}({x})"

    def operation(self, op: str, dtype: DType, x: str, y: str) -> str:
        """x op y, both of ``dtype``."""
        if op in ("add", "sub", "mul") and dtype.is_int:
            return self.wrap(f"{x} {_INFIX[op]} {y}", dtype)
        if op in _INFIX:
            return f"({x} {_INFIX[op]} {y})"
        if op == "shl":
            return self.wrap(f"f_shl({x}, {y}, {dtype.bits})", dtype)
        if op == "shr":
            return f"f_shr({x}, {y}, {dtype.bits})"
        if op in ("floordiv", "mod") and dtype.is_int:
            return self.wrap(f"f_{op}_int({x}, {y})", dtype)
        if op in scalars.ROUNDED:
            return f"{self.constant(dtype.np.type)}(f_{op}(float({x}), float({y})))"
        return f"f_{op}({x}, {y})"

    def wrap(self, text: str, dtype: DType) -> str:
        """An integer brought back into the range of ``dtype``."""
        mask = (1 << dtype.bits) - 1
        half = 1 << (dtype.bits - 1) if dtype.kind == "i" else 0
        return f"((({text}) + {half} & {mask}) - {half})" if half else f"(({text}) & {mask})"


def _out_of_bounds(buffer: str, index: int, size: int) -> NoReturn:
    raise OutOfBounds(buffer, index, size)


def _stored(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Memory as the translated text reads it: a bool is a byte that is not 0."""
    return array.view(np.uint8) if dtype is bool_ else array


def _argument(array: np.ndarray, buffer: Buffer, size: int) -> np.ndarray:
    if array.dtype != buffer.dtype.np or array.ndim != 1 or not array.flags.c_contiguous:
        raise ValueError(
            f"argument {buffer.name} is {array.dtype} of shape {array.shape}, "
            f"expected a flat, contiguous array of {buffer.dtype}"
        )
    if array.size < size:
        raise ValueError(f"argument {buffer.name} has {array.size} elements, expected {size}")
    return _stored(array[:size], buffer.dtype)


def _fresh(bytes_: int) -> np.ndarray:
    """Poisoned bytes: 0x7fff again and again is a nan of either width and a large integer."""
    return np.full((bytes_ + 7) // 8 * 4, 0x7FFF, np.uint16).view(np.uint8)


def _arena(bytes_: int) -> np.ndarray:
    return _fresh(bytes_)[:bytes_]


def _temp(memory: np.ndarray, buffer: Buffer, offset: int, size: int) -> np.ndarray:
    end = offset + size * buffer.dtype.itemsize
    if offset < 0 or offset % 64 or end > memory.size:
        raise ValueError(
            f"temp {buffer.name} lies at bytes {offset} to {end} of an arena of {memory.size} "
            "bytes; a temp lies inside, at a multiple of 64"
        )
    return _stored(memory[offset:end].view(buffer.dtype.np), buffer.dtype)


def _register(buffer: Buffer, size: int) -> np.ndarray:
    bytes_ = size * buffer.dtype.itemsize
    return _stored(_fresh(bytes_)[:bytes_].view(buffer.dtype.np), buffer.dtype)


def _inside(name: str, where: np.ndarray, size: int) -> None:
    for offset in (int(where.min()), int(where.max())) if where.size else ():
        if not 0 <= offset < size:
            raise OutOfBounds(name, offset, size)


def _elements(m: int, n: int, matrix: tuple) -> tuple[np.ndarray, np.ndarray]:
    """The memory of a Gemm's matrix and its m x n element offsets, checked."""
    name, array, size, offset, rows, cols = matrix
    where = offset + np.arange(m)[:, None] * rows + np.arange(n)[None, :] * cols
    _inside(name, where, size)
    return array, where


def _strided(buffer: Buffer, array: np.ndarray, size: int, offset: int, sizes: tuple[int, ...],
             strides: tuple[int, ...]) -> np.ndarray:
    """A view of memory as an array of the buffer's dtype, checked."""
    if any(n == 0 for n in sizes):
        return np.empty(sizes, buffer.dtype.np)
    ends = [(n - 1) * stride for n, stride in zip(sizes, strides, strict=True)]
    first, last = offset + sum(min(e, 0) for e in ends), offset + sum(max(e, 0) for e in ends)
    _inside(buffer.name, np.array([first, last]), size)
    item = buffer.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(array[offset:], sizes, [s * item for s in strides])
    return view.view(buffer.dtype.np)


def _panels(k: int, n: int, panel: int, matrix: tuple) -> tuple[np.ndarray, np.ndarray]:
    """The memory of a packed k x n matrix and the offsets of its elements, checked."""
    name, array, size, offset = matrix[:4]
    p, j = np.arange(k)[:, None], np.arange(n)[None, :]
    where = offset + j // panel * (panel * k) + p * panel + j % panel
    _inside(name, where, size)
    return array, where


def _pack(k: int, n: int, source: tuple, target: tuple, panel: int) -> None:
    whole = -(-n // panel) * panel
    (x, x_at), (y, y_at) = _elements(k, n, source), _panels(k, whole, panel, target)
    y[y_at] = 0
    y[y_at[:, :n]] = x[x_at]


def _addresses(array: np.ndarray, where: np.ndarray) -> np.ndarray:
    return array.__array_interface__["data"][0] + where.ravel() * array.itemsize


def _gemm(m: int, n: int, k: int, a: tuple, b: tuple, c: tuple, accumulate: bool, panel: int
          ) -> None:
    if min(m, n) <= 0:
        return
    k = max(k, 0)
    (x, x_at), (z, z_at) = _elements(m, k, a), _elements(m, n, c)
    y, y_at = _panels(k, n, panel, b) if panel else _elements(k, n, b)
    written = _addresses(z, z_at)
    if np.unique(written).size != written.size:
        raise ValueError(f"the elements of {c[0]} that a Gemm writes overlap each other")
    for name, array, at in ((a[0], x, x_at), (b[0], y, y_at)):
        if np.intersect1d(_addresses(array, at), written).size:
            raise ValueError(f"a Gemm writes to {c[0]} what it reads as {name}")
    product = x[x_at].astype(np.float64) @ y[y_at].astype(np.float64)
    z[z_at] = z[z_at] + product if accumulate else product
