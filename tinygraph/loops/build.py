"""Writing loop programs: expression helpers that fold index arithmetic, and a statement builder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from tinygraph.dtypes import DType, int64
from tinygraph.loops.language import (
    Alloc,
    Binary,
    Block,
    Buffer,
    Cast,
    Check,
    Const,
    Expr,
    For,
    Gemm,
    If,
    Let,
    Load,
    Matrix,
    Note,
    Pack,
    Select,
    Stmt,
    Store,
    Unary,
    Var,
    While,
)


def const(value: float | int | bool, dtype: DType) -> Const:
    """A literal of ``dtype``; an integer is wrapped into the range of an integer dtype."""
    if dtype.kind == "b":
        return Const(bool(value), dtype)
    if dtype.is_float:
        return Const(float(value), dtype)
    wrapped = int(value) & ((1 << dtype.bits) - 1)
    if dtype.kind == "i" and wrapped >> (dtype.bits - 1):
        wrapped -= 1 << dtype.bits
    return Const(wrapped, dtype)


def index(n: int) -> Const:
    """The int64 literal ``n``."""
    return const(n, int64)


def _literal(x: Expr) -> int | None:
    """The value of an int64 literal, else None: only index arithmetic is folded."""
    return int(x.value) if isinstance(x, Const) and x.dtype is int64 else None


def add(x: Expr, y: Expr) -> Expr:
    """x + y; int64 literals are folded, also through (e + literal) + literal."""
    a, b = _literal(x), _literal(y)
    if a is not None and b is not None:
        return index(a + b)
    if a == 0:
        return y
    if b == 0:
        return x
    if a is not None:
        return add(y, x)
    if b is not None and isinstance(x, Binary) and x.op == "add":
        inner = _literal(x.y)
        if inner is not None:
            return add(x.x, index(inner + b))
    return Binary("add", x, y)


def sub(x: Expr, y: Expr) -> Expr:
    """x - y; int64 literals are folded."""
    b = _literal(y)
    if b is not None:
        return add(x, index(-b))
    if x is y and x.dtype is int64:
        return index(0)
    return Binary("sub", x, y)


def mul(x: Expr, y: Expr) -> Expr:
    """x * y; int64 literals are folded."""
    a, b = _literal(x), _literal(y)
    if a is not None and b is not None:
        return index(a * b)
    if a == 0 or b == 0:
        return index(0)
    if a == 1:
        return y
    if b == 1:
        return x
    if a is not None:
        return mul(y, x)
    if b is not None and isinstance(x, Binary) and x.op == "mul":
        inner = _literal(x.y)
        if inner is not None:
            return mul(x.x, index(inner * b))
    return Binary("mul", x, y)


def floordiv(x: Expr, y: Expr) -> Expr:
    """x // y with Python's signs; int64 literals are folded; 0 for a divisor of 0."""
    a, b = _literal(x), _literal(y)
    if b == 1:
        return x
    if b == 0 or a == 0:
        return index(0)
    if a is not None and b is not None:
        return index(a // b)
    return Binary("floordiv", x, y)


def mod(x: Expr, y: Expr) -> Expr:
    """x % y with Python's signs; int64 literals are folded; 0 for a divisor of 0."""
    a, b = _literal(x), _literal(y)
    if b in (0, 1) or a == 0:
        return index(0)
    if a is not None and b is not None:
        return index(a % b)
    return Binary("mod", x, y)


def minimum(x: Expr, y: Expr) -> Expr:
    """min(x, y); int64 literals are folded."""
    a, b = _literal(x), _literal(y)
    if a is not None and b is not None:
        return index(min(a, b))
    return x if x is y else Binary("min", x, y)


def maximum(x: Expr, y: Expr) -> Expr:
    """max(x, y); int64 literals are folded."""
    a, b = _literal(x), _literal(y)
    if a is not None and b is not None:
        return index(max(a, b))
    return x if x is y else Binary("max", x, y)


_FOLDED = {"add": add, "sub": sub, "mul": mul, "floordiv": floordiv, "mod": mod, "min": minimum,
           "max": maximum}


def replaced(e: Expr, names: Mapping[str, Expr]) -> Expr:
    """``e`` with variables replaced by what they stand for, also in what replaces them; int64
    literals are folded."""
    if isinstance(e, Var) and e.name in names:
        return replaced(names[e.name], names)
    if isinstance(e, Binary):
        x, y = replaced(e.x, names), replaced(e.y, names)
        fold = _FOLDED.get(e.op) if e.dtype is int64 else None
        return fold(x, y) if fold else Binary(e.op, x, y)
    if isinstance(e, Select):
        return Select(*(replaced(x, names) for x in (e.cond, e.then, e.other)))
    if isinstance(e, (Unary, Cast)):
        return replace(e, x=replaced(e.x, names))
    if isinstance(e, Load):
        return replace(e, index=replaced(e.index, names))
    return e


class Builder:
    """Appends statements to the innermost open block.

    >>> b = Builder()
    >>> with b.loop(DimOf("n"), "vector") as i:
    ...     x = b.let(Load(source, i))
    ...     b.store(target, i, x)
    >>> body = b.block()

    Every name it makes is unique in the Builder; ``taken`` are names it must not make.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._open: list[list[Stmt]] = [[]]
        self._taken = set(taken)
        self._count: dict[str, int] = {}

    def fresh(self, hint: str) -> str:
        """A name that this Builder has not made before: ``hint`` and, from the second on, a
        number."""
        name = hint
        while name in self._taken:
            number = self._count.get(hint, 1)
            self._count[hint] = number + 1
            name = f"{hint}_{number}"
        self._taken.add(name)
        return name

    def emit(self, stmt: Stmt) -> None:
        """Append a statement made elsewhere."""
        self._open[-1].append(stmt)

    def let(self, expr: Expr, hint: str = "t") -> Var:
        """Bind ``expr`` to a fresh name."""
        var = Var(self.fresh(hint), expr.dtype)
        self.emit(Let(var, expr))
        return var

    def store(
        self, buffer: Buffer, index: Expr, value: Expr, accumulate: str | None = None
    ) -> None:
        """buffer[index] = value, or the accumulation of it (see ``Store``)."""
        self.emit(Store(buffer, index, value, accumulate))

    def alloc(self, buffer: Buffer) -> Buffer:
        """Open a register buffer until the end of the innermost block; gives it back."""
        self._taken.add(buffer.name)
        self.emit(Alloc(buffer))
        return buffer

    def register(self, dtype: DType, size: int = 1, hint: str = "r") -> Buffer:
        """Make and open a register buffer of ``size`` elements with a fresh name."""
        return self.alloc(Buffer(self.fresh(hint), dtype, index(size), "register"))

    def gemm(
        self,
        m: Expr,
        n: Expr,
        k: Expr,
        a: Matrix,
        b: Matrix,
        c: Matrix,
        accumulate: bool = False,
        panel: int = 0,
    ) -> None:
        """c = a @ b, or c += a @ b (see ``Gemm``)."""
        self.emit(Gemm(m, n, k, a, b, c, accumulate, panel))

    def pack(
        self, k: Expr, n: Expr, source: Matrix, target: Buffer, offset: Expr, panel: int
    ) -> None:
        """Copy a k x n matrix into panels (see ``Pack``)."""
        self.emit(Pack(k, n, source, target, offset, panel))

    def check(self, cond: Expr, site: int, numbers: Iterable[Expr] = ()) -> None:
        """Leave with failure ``site`` unless cond holds."""
        self.emit(Check(cond, site, tuple(numbers)))

    def note(self, text: str, source: str = "") -> None:
        """A comment."""
        self.emit(Note(text, source))

    @contextmanager
    def loop(self, extent: Expr, mode: str = "serial", hint: str = "i") -> Iterator[Var]:
        """``for var in range(extent)`` around what is appended inside; yields the int64 Var."""
        var = Var(self.fresh(hint), int64)
        with self._nested() as body:
            yield var
        self.emit(For(var, extent, Block(tuple(body)), mode))

    @contextmanager
    def if_(self, cond: Expr) -> Iterator[None]:
        """``if cond`` around what is appended inside; ``else_`` may follow."""
        with self._nested() as body:
            yield
        self.emit(If(cond, Block(tuple(body))))

    @contextmanager
    def else_(self) -> Iterator[None]:
        """The other branch of the ``if_`` just closed.  Raises ValueError where none was."""
        last = self._open[-1][-1] if self._open[-1] else None
        if not isinstance(last, If) or last.other.body:
            raise ValueError("else_() does not directly follow an if_() block without an else_()")
        with self._nested() as body:
            yield
        self._open[-1][-1] = If(last.cond, last.then, Block(tuple(body)))

    @contextmanager
    def while_(self, cond: Expr) -> Iterator[None]:
        """``while cond`` around what is appended inside."""
        with self._nested() as body:
            yield
        self.emit(While(cond, Block(tuple(body))))

    @contextmanager
    def _nested(self) -> Iterator[list[Stmt]]:
        body: list[Stmt] = []
        self._open.append(body)
        try:
            yield body
        finally:
            self._open.pop()

    def block(self) -> Block:
        """All that was appended.  Raises ValueError inside an open loop, if or while."""
        if len(self._open) != 1:
            raise ValueError(f"block() called inside {len(self._open) - 1} open nested blocks")
        return Block(tuple(self._open[0]))
