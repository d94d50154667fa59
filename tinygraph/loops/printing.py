"""A loop program as readable, Python-like text.

The text is complete and deterministic: two well-formed programs (``check.check_program``) with
equal text compute the same thing, so ``format_program(p, notes=False)`` may key a cache.

    $n is the size parameter n;  1.5f is a float32 and 1.5 a float64 literal;  a plain integer is
    an int64;  buffer[i] is a load;  float32(x) is a cast;  x if c else y is a Select, which
    evaluates both.
"""

from __future__ import annotations

import math

from tinygraph.dtypes import bool_, float64, int64
from tinygraph.loops.language import (
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

# op: (sign, precedence); other ops print as calls.
_INFIX = {
    "or": ("|", 2),
    "xor": ("^", 3),
    "and": ("&", 4),
    "shl": ("<<", 5),
    "shr": (">>", 5),
    "add": ("+", 6),
    "sub": ("-", 6),
    "mul": ("*", 7),
    "div": ("/", 7),
    "floordiv": ("//", 7),
    "mod": ("%", 7),
    "lt": ("<", 1),
    "le": ("<=", 1),
    "gt": (">", 1),
    "ge": (">=", 1),
    "eq": ("==", 1),
    "ne": ("!=", 1),
}
_COMPARISON, _PREFIX, _ATOM = 1, 8, 9
_ACCUMULATE = {"add": "+=", "mul": "*=", "and": "&=", "or": "|="}


def _name(name: str) -> str:
    """A name as it is, or quoted where it could be read as something else."""
    return name if name.replace(".", "_").isidentifier() else repr(name)


def format_expr(expr: Expr) -> str:
    """The text of one expression."""
    return _expr(expr)[0]


def _expr(expr: Expr) -> tuple[str, int]:
    """Text and precedence."""
    if isinstance(expr, Const):
        text = _const(expr)
        return text, _PREFIX if text.startswith("-") else _ATOM
    if isinstance(expr, Var):
        return _name(expr.name), _ATOM
    if isinstance(expr, DimOf):
        return f"${_name(expr.name)}", _ATOM
    if isinstance(expr, Load):
        return f"{_name(expr.buffer.name)}[{format_expr(expr.index)}]", _ATOM
    if isinstance(expr, Cast):
        return f"{expr.dtype}({format_expr(expr.x)})", _ATOM
    if isinstance(expr, Unary):
        if expr.op == "neg":
            return f"-{_at_least(expr.x, _PREFIX)}", _PREFIX
        return f"{expr.op}({format_expr(expr.x)})", _ATOM
    if isinstance(expr, Select):
        then, cond, other = (_at_least(e, 1) for e in (expr.then, expr.cond, expr.other))
        return f"{then} if {cond} else {other}", 0
    return _binary(expr)


def _binary(expr: Binary) -> tuple[str, int]:
    if expr.op not in _INFIX:
        return f"{expr.op}({format_expr(expr.x)}, {format_expr(expr.y)})", _ATOM
    sign, level = _INFIX[expr.op]
    left = _at_least(expr.x, level + (level == _COMPARISON))
    return f"{left} {sign} {_at_least(expr.y, level + 1)}", level


def _at_least(expr: Expr, level: int) -> str:
    text, own = _expr(expr)
    return text if own >= level else f"({text})"


def _const(expr: Const) -> str:
    if expr.dtype is bool_:
        return str(bool(expr.value))
    if expr.dtype.is_float:
        value = float(expr.value)
        text = repr(value) if math.isfinite(value) else f"{'-' * (value < 0)}{abs(value)}"
        return text if expr.dtype is float64 else f"{text}f"
    return str(int(expr.value)) if expr.dtype is int64 else f"{expr.dtype}({int(expr.value)})"


def format_stmt(stmt: Stmt, indent: int = 0, notes: bool = True) -> str:
    """The text of one statement, lines joined by newlines, each indented by ``indent`` levels."""
    return "\n".join(_lines(stmt, "    " * indent, notes))


def _lines(stmt: Stmt, pad: str, notes: bool) -> list[str]:
    if isinstance(stmt, Block):
        inside = [line for child in stmt.body for line in _lines(child, pad + "    ", notes)]
        return [f"{pad}block:", *(inside or [f"{pad}    pass"])]
    if isinstance(stmt, For):
        head = f"for {_name(stmt.var.name)} in range({format_expr(stmt.extent)}):"
        mark = "" if stmt.mode == "serial" else f"  # {stmt.mode}"
        return [f"{pad}{head}{mark}", *_body(stmt.body, pad, notes)]
    if isinstance(stmt, While):
        return [f"{pad}while {format_expr(stmt.cond)}:", *_body(stmt.body, pad, notes)]
    if isinstance(stmt, If):
        lines = [f"{pad}if {format_expr(stmt.cond)}:", *_body(stmt.then, pad, notes)]
        if stmt.other.body:
            lines += [f"{pad}else:", *_body(stmt.other, pad, notes)]
        return lines
    if isinstance(stmt, Stamp):
        return [f"{pad}clock {'begins' if stmt.begin else 'ends'} {stmt.slot}"] if notes else []
    if isinstance(stmt, Note):
        return _note(stmt, pad) if notes else []
    return [pad + _simple(stmt)]


def _body(block: Block, pad: str, notes: bool) -> list[str]:
    lines = [line for child in block.body for line in _lines(child, pad + "    ", notes)]
    return lines or [f"{pad}    pass"]


def _note(stmt: Note, pad: str) -> list[str]:
    # Every line gets its own mark, so that no note can read as a statement.
    where = f"  ({stmt.source})" if stmt.source else ""
    return [f"{pad}# {line}" for line in f"{stmt.text}{where}".splitlines()]


def _simple(stmt: Let | Store | Alloc | Pack | Gemm | Call | Check) -> str:
    if isinstance(stmt, Let):
        return f"{_name(stmt.var.name)}: {stmt.var.dtype} = {format_expr(stmt.value)}"
    if isinstance(stmt, Store):
        target = f"{_name(stmt.buffer.name)}[{format_expr(stmt.index)}]"
        value = format_expr(stmt.value)
        if stmt.accumulate is None:
            return f"{target} = {value}"
        if stmt.accumulate in _ACCUMULATE:
            return f"{target} {_ACCUMULATE[stmt.accumulate]} {value}"
        return f"{target} {stmt.accumulate}= {value}"
    if isinstance(stmt, Alloc):
        return f"register {_buffer(stmt.buffer)}"
    if isinstance(stmt, Gemm):
        m, n, k = (format_expr(e) for e in (stmt.m, stmt.n, stmt.k))
        a, b, c = (_matrix(x) for x in (stmt.a, stmt.b, stmt.c))
        if stmt.panel:
            place = f"{_name(stmt.b.buffer.name)}[{format_expr(stmt.b.offset)}"
            b = f"{place}; panels of {stmt.panel}]"
        sign = "+=" if stmt.accumulate else "="
        return f"{c} {sign} {a} @ {b}  where m = {m}, n = {n}, k = {k}"
    if isinstance(stmt, Pack):
        k, n = format_expr(stmt.k), format_expr(stmt.n)
        place = f"{_name(stmt.target.name)}[{format_expr(stmt.offset)}]"
        head = f"{place} = {_matrix(stmt.source)} in panels of {stmt.panel}"
        return f"{head}  where n = {n}, k = {k}"
    if isinstance(stmt, Call):
        outputs = ", ".join(map(_strided, stmt.outputs))
        return f"{outputs} = call {stmt.name!r} of {', '.join(map(_strided, stmt.inputs))}"
    numbers = ", ".join(format_expr(e) for e in stmt.numbers)
    return f"check {format_expr(stmt.cond)} else fail({stmt.site}; {numbers})"


def _matrix(x: Matrix) -> str:
    offset, rows, cols = (format_expr(e) for e in (x.offset, x.rows, x.cols))
    return f"{_name(x.buffer.name)}[{offset}; rows {rows}; cols {cols}]"


def _strided(x: Strided) -> str:
    sizes, strides = (", ".join(map(format_expr, part)) for part in (x.sizes, x.strides))
    shape = f"; sizes {sizes}; strides {strides}" if x.sizes else ""
    return f"{_name(x.buffer.name)}[{format_expr(x.offset)}{shape}]"


def _buffer(buffer: Buffer) -> str:
    return f"{_name(buffer.name)}: {buffer.dtype}[{format_expr(buffer.size)}]"


def format_program(program: Program, notes: bool = True) -> str:
    """The whole program: sizes, arguments, arena, body.  ``notes=False`` leaves comments out."""
    sizes = ", ".join("$" + _name(size) for size in program.sizes)
    lines = [f"def {_name(program.name)}({sizes}):"]
    for buffer in program.args:
        access = "writable" if buffer.writable else "read-only"
        lines.append(f"    arg {_buffer(buffer)} {access}")
    for buffer, offset in program.arena:
        lines.append(f"    temp {_buffer(buffer)} at byte {format_expr(offset)}")
    lines.append(f"    arena {format_expr(program.arena_bytes)} bytes, {program.sites} sites")
    for stmt in program.body.body:
        lines += _lines(stmt, "    ", notes)
    return "\n".join(lines) + "\n"
