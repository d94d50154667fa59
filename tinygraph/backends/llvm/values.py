"""Names, expressions and memory: what every statement of the emitter stands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tinygraph.backends.llvm import analysis, scalar
from tinygraph.backends.llvm.scalar import Code, memory_type, register_type
from tinygraph.backends.llvm.tiles import Target
from tinygraph.errors import InternalError
from tinygraph.loops.language import (
    Binary,
    Buffer,
    Cast,
    Const,
    DimOf,
    Expr,
    Load,
    Program,
    Select,
    Unary,
    Var,
    operands,
)


@dataclass
class Scope:
    """Names bound and expressions already computed in one straight line of blocks.

    ``hides`` says that an outer scope's results must not be reused, since a name they read has
    been bound anew here.
    """

    names: dict[str, str] = field(default_factory=dict)
    lets: dict[str, Expr] = field(default_factory=dict)
    memo: dict[tuple[int, bool], tuple[str, int]] = field(default_factory=dict)
    hides: bool = False


class Metadata:
    """The numbered metadata nodes at the end of the module."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._shared: dict[str, str] = {}

    def shared(self, hints: Sequence[str]) -> str:
        """The node of these hints on a loop, the same for all loops that have them."""
        key = "\n".join(hints)
        if key not in self._shared:
            nodes = [self.add(h) for h in hints]
            self._shared[key] = self.add(", ".join(["SELF", *nodes]), distinct=True)
        return self._shared[key]

    def add(self, body: str, distinct: bool = False) -> str:
        """A new node, as ``!7``; ``SELF`` in the body stands for the node itself."""
        name = f"!{len(self.lines)}"
        self.lines.append(
            f"{name} = {'distinct ' if distinct else ''}!{{{body.replace('SELF', name)}}}"
        )
        return name


class Values:
    """Writes the expressions of one program."""

    def __init__(self, program: Program, target: Target,
                 index_names: frozenset[str] | None = None) -> None:
        self.program, self.target = program, target
        self.code = Code()
        self.metadata = Metadata()
        self.scopes = [Scope()]
        self.pointers: dict[int, str] = {}
        self.places: dict[str, str] = {}  # arena offset --> pointer
        self.sizes: dict[str, str] = {}
        self.promoted: dict[int, str] = {}
        self.declarations: set[str] = set()
        self.allocas: list[str] = []
        self.kernels: dict[str, str] = {}  # text of a nest's function --> its name
        self.tasks: dict[str, str] = {}  # text of a parallel loop's function --> its name
        self.group = ""  # access group of the vector loop being written, or ""
        self.vector_var: Var | None = None
        self.epoch = 0  # counts moments at which memory may have changed
        self.reads: dict[int, bool] = {}
        self.index_names = (
            analysis.index_names(program.body) if index_names is None else index_names)

    # -- buffers ---------------------------------------------------------------------------

    def open_buffers(self) -> None:
        """Load sizes and pointers once."""
        code = self.code
        constant = self.metadata.add("")
        for position, name in enumerate(self.program.sizes):
            place = code.value(f"getelementptr inbounds i64, ptr %sizes, i64 {position}")
            self.sizes[name] = code.value(f"load i64, ptr {place}, !invariant.load {constant}")
        for position, buffer in enumerate(self.program.args):
            place = code.value(f"getelementptr inbounds ptr, ptr %args, i64 {position}")
            self.pointers[id(buffer)] = code.value(
                f"load ptr, ptr {place}, !invariant.load {constant}"
            )
        for buffer, offset in self.program.arena:
            start = self.expr(offset)
            if start not in self.places:
                self.places[start] = code.value(
                    f"getelementptr inbounds i8, ptr %arena, i64 {start}")
            self.pointers[id(buffer)] = self.places[start]

    # -- scopes ----------------------------------------------------------------------------

    def bind(self, name: str, operand: str) -> None:
        """Give ``name`` a value from here to the end of the scope."""
        scope = self.scopes[-1]
        if any(name in s.names for s in self.scopes):
            scope.memo.clear()
            scope.hides = True
        scope.names[name] = operand
        scope.lets.pop(name, None)

    def lookup(self, name: str) -> str:
        """The operand that ``name`` stands for here."""
        for scope in reversed(self.scopes):
            if name in scope.names:
                return scope.names[name]
        raise InternalError(f"{self.program.name}: name {name!r} is used outside its scope")

    def lets(self) -> dict[str, Expr]:
        """The visible names bound by Let, with their values."""
        visible: dict[str, Expr] = {}
        for scope in self.scopes:
            for name in scope.names:
                visible.pop(name, None)
            visible.update(scope.lets)
        return visible

    def open_scope(self) -> None:
        """Begin a straight line that ends before the one around it."""
        self.scopes.append(Scope())

    def close_scope(self) -> None:
        """Forget what was bound and computed since ``open_scope``."""
        self.scopes.pop()

    def declare(self, line: str) -> None:
        """Add a declaration to the module."""
        self.declarations.add(line)

    # -- expressions -----------------------------------------------------------------------

    def has_load(self, expr: Expr) -> bool:
        """True if the value of ``expr`` depends on memory."""
        known = self.reads.get(id(expr))
        if known is None:
            known = isinstance(expr, Load) or any(self.has_load(e) for e in operands(expr))
            self.reads[id(expr)] = known
        return known

    def expr(self, expr: Expr, index: bool = False) -> str:
        """The operand that holds ``expr``, computed once per dominating straight line."""
        if isinstance(expr, Const):
            return scalar.constant(expr.value, expr.dtype)
        if isinstance(expr, Var):
            return self.lookup(expr.name)
        if isinstance(expr, DimOf):
            if expr.name not in self.sizes:
                raise InternalError(f"{self.program.name} has no size parameter {expr.name!r}")
            return self.sizes[expr.name]
        linear = index and isinstance(expr, Binary) and expr.op in analysis.LINEAR
        key = (id(expr), linear)
        for scope in reversed(self.scopes):
            if key in scope.memo:
                operand, epoch = scope.memo[key]
                if epoch == self.epoch or not self.has_load(expr):
                    return operand
                break
            if scope.hides:
                break
        operand = self.compute(expr, linear)
        self.scopes[-1].memo[key] = (operand, self.epoch)
        return operand

    def compute(self, expr: Expr, linear: bool) -> str:
        """Write the instructions of ``expr``; ``linear`` keeps ``nsw`` going below it."""
        code = self.code
        if isinstance(expr, Load):
            return self.load(expr.buffer, self.expr(expr.index, index=True))
        if isinstance(expr, Unary):
            return scalar.unary(code, expr.op, self.expr(expr.x), expr.x.dtype)
        if isinstance(expr, Binary):
            x, y = self.expr(expr.x, linear), self.expr(expr.y, linear)
            return scalar.binary(code, expr.op, x, y, expr.x.dtype, index=linear)
        if isinstance(expr, Select):
            cond, then, other = self.expr(expr.cond), self.expr(expr.then), self.expr(expr.other)
            kind = register_type(expr.dtype)
            return code.value(f"select i1 {cond}, {kind} {then}, {kind} {other}")
        if isinstance(expr, Cast):
            return scalar.cast(code, self.expr(expr.x), expr.x.dtype, expr.dtype)
        raise InternalError(f"{type(expr).__name__} is not an expression of the loop language")

    # -- memory ----------------------------------------------------------------------------

    def address(self, buffer: Buffer, index: str, lanes: int = 1) -> str:
        """A pointer to element ``index`` of ``buffer``, or a vector of so many of them."""
        pointer = self.pointer(buffer)
        if index == "0":
            return pointer
        kind = memory_type(buffer.dtype)
        step = "i64" if lanes == 1 else f"<{lanes} x i64>"
        return self.code.value(f"getelementptr inbounds {kind}, ptr {pointer}, {step} {index}")

    def pointer(self, buffer: Buffer) -> str:
        """Where ``buffer`` begins."""
        if id(buffer) not in self.pointers:
            raise InternalError(
                f"{self.program.name}: buffer {buffer.name!r} is no argument, has no place in the "
                "arena and was not opened by an Alloc"
            )
        return self.pointers[id(buffer)]

    def tags(self, grouped: bool = True) -> str:
        """The metadata of an access to memory."""
        return f", !llvm.access.group {self.group}" if self.group and grouped else ""

    def load(self, buffer: Buffer, index: str, grouped: bool = True) -> str:
        """The element ``index`` of ``buffer`` as a register value."""
        place = self.address(buffer, index)
        kind, size = memory_type(buffer.dtype), buffer.dtype.itemsize
        raw = self.code.value(f"load {kind}, ptr {place}, align {size}{self.tags(grouped)}")
        return scalar.from_memory(self.code, raw, buffer.dtype)

    def store(self, buffer: Buffer, index: str, value: str, grouped: bool = True) -> None:
        """buffer[index] = value."""
        raw = scalar.to_memory(self.code, value, buffer.dtype)
        place = self.address(buffer, index)
        kind, size = memory_type(buffer.dtype), buffer.dtype.itemsize
        self.code.emit(f"store {kind} {raw}, ptr {place}, align {size}{self.tags(grouped)}")
        self.epoch += 1

    def alloca(self, kind: str, count: int, alignment: int = 64) -> str:
        """Stack space for ``count`` elements, opened at the function's entry."""
        name = "%" + self.code.fresh("register")
        self.allocas.append(f"  {name} = alloca [{count} x {kind}], align {alignment}")
        return name
