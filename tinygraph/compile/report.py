"""What a compiled function does, as data that prints readably."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tinygraph.config import config
from tinygraph.dims import THREADS, TILES, Dim
from tinygraph.loops.language import (
    TRANSCENDENTAL,
    Block,
    Expr,
    For,
    Gemm,
    If,
    Note,
    Program,
    Stmt,
    While,
    children,
    expressions,
    operands,
)

SCAN = "scan "


@dataclass
class Work:
    """What one run of a piece of program does, loops inside it not unrolled.

    products: Gemm statements;  nests: loop nests;  transcendentals: calls of exp, tanh, ... in
    the text of a nest, hence per element
    """

    products: int = 0
    nests: int = 0
    transcendentals: int = 0

    def plus(self, other: Work) -> Work:
        """Both, one after the other."""
        return Work(self.products + other.products, self.nests + other.nests,
                    self.transcendentals + other.transcendentals)

    def __str__(self) -> str:
        return (f"{_number(self.products, 'product')}, {_number(self.nests, 'loop nest')}, "
                f"{_number(self.transcendentals, 'transcendental function')} per element")


def _number(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


@dataclass
class LoopReport:
    """One scan: its title ('scan name: n steps'), and the work of one step."""

    title: str
    source: str
    step: Work
    inner: list[LoopReport] = field(default_factory=list)


@dataclass
class Report:
    """A compiled function.

    loops               every scan with the work of one step
    outside             the work outside of all scans
    native_functions    how many native functions a call enters
    seconds             per stage of compilation;  pass_seconds  per pass, in order
    cached              did the object code come from the disk cache
    compiles            how often the function has been built so far
    arena               the workspace in bytes, over the symbolic sizes;  ``workspace_bytes``
                        gives the number
    launches            for a GPU: what the host launches, line by line
    remarks             what is otherwise than asked for
    """

    name: str
    loops: list[LoopReport]
    outside: Work
    native_functions: int
    seconds: dict[str, float]
    pass_seconds: list[tuple[str, float]]
    cached: bool
    arena: Dim
    compiles: int = 1
    launches: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def sizes(self) -> list[str]:
        """The names of the symbolic sizes of the workspace."""
        return sorted(s.name for s in self.arena.syms())

    def workspace_bytes(self, **sizes: int) -> int:
        """The workspace where the sizes have these values: ``workspace_bytes(x_0=100, x_1=55)``.
        ``threads`` is config.threads unless given.  Raises TypeError for a size that is missing.
        """
        sizes = {THREADS.name: config.threads, TILES.name: config.threads, **sizes}
        missing = [name for name in self.sizes if name not in sizes]
        if missing:
            raise TypeError(f"the workspace also depends on {', '.join(missing)}")
        return self.arena.evaluate({s: sizes[s.name] for s in self.arena.syms()})

    def __str__(self) -> str:
        kinds = "kernel" if self.launches else "native function"
        lines = [f"{self.name}: {_number(self.native_functions, kinds)}, compiled "
                 f"{_number(self.compiles, 'time')}{', from the cache' if self.cached else ''}"]
        lines += [f"  {line}" for line in self.remarks]
        lines += _lines(self.loops, "  ")
        lines.append(f"  outside loops: {self.outside}")
        lines += [f"  launches {line.strip()}" if not k else f"           {line}"
                  for k, line in enumerate(self.launches)]
        over = f" over {', '.join(self.sizes)}" if self.sizes else ""
        constant = self.arena.const
        amount = f"{constant} bytes" if constant is not None else f"a size{over}"
        lines.append(f"  workspace: {amount}")
        lines.append("  seconds: " + ", ".join(f"{k} {v:.3f}" for k, v in self.seconds.items()))
        slow = sorted(self.pass_seconds, key=lambda p: -p[1])[:5]
        lines.append("  slowest passes: " + ", ".join(f"{k} {v:.3f}" for k, v in slow))
        return "\n".join(lines)


def _lines(loops: list[LoopReport], pad: str) -> Iterator[str]:
    for loop in loops:
        where = f" ({loop.source})" if loop.source else ""
        yield f"{pad}{loop.title}{where}"
        yield f"{pad}  each step: {loop.step}"
        yield from _lines(loop.inner, pad + "  ")


def count(program: Program) -> tuple[list[LoopReport], Work]:
    """The scans of a program and the work outside of them.  A scan is a serial loop under a
    note that says so."""
    return _count(program.body)


def _count(block: Block) -> tuple[list[LoopReport], Work]:
    loops: list[LoopReport] = []
    work = Work()
    title: Note | None = None
    for stmt in block.body:
        if isinstance(stmt, (For, While)) and title is not None:
            inner, step = _count(stmt.body)
            loops.append(LoopReport(title.text, title.source, step, inner))
        elif isinstance(stmt, For) and stmt.mode == "parallel":
            inner, part = _count(stmt.body)
            loops += inner
            work = work.plus(part)
        elif isinstance(stmt, For):
            work.nests += 0 if _holds_product(stmt) else 1
            work.products += sum(isinstance(s, Gemm) for s in _under(stmt))
            work.transcendentals += sum(map(_functions, _under(stmt)))
        elif isinstance(stmt, If):
            for branch in (stmt.then, stmt.other):
                inner, part = _count(branch)
                loops += inner
                work = work.plus(part)
        else:
            work.products += isinstance(stmt, Gemm)
            work.transcendentals += _functions(stmt)
        title = stmt if isinstance(stmt, Note) and stmt.text.startswith(SCAN) else None
    return loops, work


def _holds_product(stmt: Stmt) -> bool:
    return any(isinstance(s, Gemm) for s in _under(stmt))


def _under(stmt: Stmt) -> Iterator[Stmt]:
    yield stmt
    for child in children(stmt):
        yield from _under(child)


def _functions(stmt: Stmt) -> int:
    return sum(map(_functions_in, expressions(stmt)))


def _functions_in(expr: Expr) -> int:
    own = getattr(expr, "op", "") in TRANSCENDENTAL
    return own + sum(map(_functions_in, operands(expr)))
