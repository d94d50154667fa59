"""A kernel: its text, and what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinygraph.backends.cuda.names import Names, c_type
from tinygraph.backends.cuda.scalar import Scalars
from tinygraph.dtypes import int64
from tinygraph.errors import InternalError
from tinygraph.loops.language import Buffer, DimOf, Expr, Load, Var

THREADS = 256  # of a block


@dataclass(frozen=True)
class Kernel:
    """``text``: the function in CUDA C.  Its parameters are the failure record if it ``checks``
    anything (int64), then ``buffers``, then ``scalars``: sizes of the program and int64 variables
    of the host's loops, by name.

    ``held``: matrices that the kernel keeps in shared memory where there is room, each as the name
    of the scalar that says whether there is, and its size in bytes.
    ``blocks``: how many blocks run it; ``elements``: over how many elements its blocks go, where
    any number of blocks will do.  If neither is there, one block does everything.
    ``shared_bytes``: of shared memory, on top of what the text declares.
    ``together``: all blocks run at one time and wait for one another (``tg_grid``); its parameter
    ``sync``, int64 numbers that are 0 before the call, stands behind the failure record.
    """

    name: str
    text: str
    buffers: tuple[Buffer, ...]
    scalars: tuple[str, ...]
    checks: bool = False
    blocks: Expr | None = None
    elements: Expr | None = None
    held: tuple[tuple[str, Expr], ...] = ()
    shared_bytes: int = 0
    together: bool = False


class Writer(Scalars):
    """Writes the text of one kernel.  What it names that it does not bind becomes a parameter."""

    def __init__(self, name: str) -> None:
        self.name, self.names = name, Names()
        self.lines: list[str] = []
        self.depth = 1
        self.bound: dict[str, str] = {}
        self.buffers: dict[int, tuple[Buffer, str]] = {}
        self.scalars: dict[str, str] = {}
        self.registers: dict[int, tuple[str, bool]] = {}
        self.checks = False
        self.waits = False  # blocks wait for one another
        self.resident = 0  # blocks that a multiprocessor shall run at a time, if that was asked for
        self.held: list[tuple[str, Expr]] = []

    def line(self, text: str) -> None:
        """Append a line at the present depth."""
        self.lines.append("    " * self.depth + text)

    def open(self, text: str = "") -> None:
        """Begin a block: ``text {``."""
        self.line(f"{text} {{".lstrip())
        self.depth += 1

    def close(self, text: str = "") -> None:
        """End a block."""
        self.depth -= 1
        self.line("}" + text)

    def bind(self, var: Var) -> str:
        """The C name of a variable that the kernel binds here."""
        found = self.bound[var.name] = self.names.fresh(var.name)
        return found

    def var(self, e: Var | DimOf) -> str:
        """A variable of the kernel, or a parameter."""
        if e.name in self.bound:
            return self.bound[e.name]
        if e.dtype is not int64:
            raise InternalError(f"{e.name} is {e.dtype}: only int64 numbers come from the host")
        if e.name not in self.scalars:
            self.scalars[e.name] = self.names.fresh(e.name)
        return self.scalars[e.name]

    def buffer(self, buffer: Buffer) -> str:
        """The C name of a buffer in memory."""
        found = self.buffers.get(id(buffer))
        if found is None:
            found = self.buffers[id(buffer)] = buffer, self.names.fresh(buffer.name)
        return found[1]

    def element(self, load: Load) -> str:
        """An element of a register or of memory."""
        return self.place(load.buffer, load.index)

    def place(self, buffer: Buffer, index: Expr) -> str:
        """The C expression of buffer[index]."""
        found = self.registers.get(id(buffer))
        if found is not None:
            return f"{found[0]}[{self.index(index)}]" if found[1] else found[0]
        if buffer.role == "register":
            raise InternalError(f"register {buffer.name} is used outside of its block")
        return f"{self.buffer(buffer)}[{self.index(index)}]"

    def declare(self, buffer: Buffer, size: int, where: str = "") -> None:
        """Declare a register; ``where``: '__shared__' for one of the whole block."""
        name = self.names.fresh(buffer.name)
        array = bool(where) or size != 1
        self.registers[id(buffer)] = name, array
        self.line(f"{where} {c_type(buffer.dtype)} {name}{f'[{max(size, 1)}]' if array else ''};"
                  .lstrip())

    def finish(self, blocks: Expr | None = None, elements: Expr | None = None) -> Kernel:
        """The kernel."""
        used = list(self.buffers.values())
        heads = ["BUF(I64) fault"] if self.checks else []
        heads += ["BUF(I64) sync"] if self.waits else []
        heads += [f"BUF({c_type(b.dtype)}) {name}" for b, name in used]
        heads += [f"I64 {name}" for name in self.scalars.values()]
        bounds = f"__launch_bounds__({THREADS}, {self.resident}) " if self.resident else ""
        head = _wrapped(f'extern "C" __global__ void {bounds}{self.name}(', heads)
        text = "\n".join([head, *self.lines, "}"]) + "\n"
        return Kernel(self.name, text, tuple(b for b, _ in used), tuple(self.scalars),
                      self.checks, blocks, elements, tuple(self.held), together=self.waits)


def _wrapped(start: str, items: Sequence[str]) -> str:
    """``start`` and items within 100 columns."""
    lines, now = [], start
    for k, item in enumerate(items):
        piece = item + (") {" if k == len(items) - 1 else ", ")
        if len(now) + len(piece) > 100:
            lines.append(now.rstrip())
            now = "        "
        now += piece
    if not items:
        now += ") {"
    return "\n".join([*lines, now])
