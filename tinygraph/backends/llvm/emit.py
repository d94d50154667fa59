"""Program -> textual LLVM IR.

Two functions come out.  ``@NAME(ptr sizes, ptr args, ptr arena, ptr fault)`` is exported: it makes
the processor flush denormals, calls the body and puts the mode back.  The body returns 0, or
site + 1 with the numbers of the failed Check in ``fault``.
"""

from __future__ import annotations

from collections.abc import Callable

from tinygraph.backends.llvm import analysis, callbacks, gemm, scalar
from tinygraph.backends.llvm import threads as threads_
from tinygraph.backends.llvm.clock import stamp
from tinygraph.backends.llvm.export import exported
from tinygraph.backends.llvm.scalar import memory_type, register_type
from tinygraph.backends.llvm.values import Values
from tinygraph.backends.llvm.vector import VectorLoop
from tinygraph.dtypes import DType, int64
from tinygraph.errors import InternalError
from tinygraph.loops.language import (
    Alloc,
    Block,
    Buffer,
    Call,
    Check,
    Const,
    Expr,
    For,
    Gemm,
    If,
    Let,
    Matrix,
    Note,
    Pack,
    Program,
    Stamp,
    Stmt,
    Store,
    While,
    walk,
)

VECTORISE = "llvm.loop.parallel_accesses"  # for the vectoriser of opt_level 2 and above
FAULT_NUMBERS = 8  # how many int64 the caller's fault area holds


def emit(program: Program, target: gemm.Target) -> str:
    """The LLVM module of ``program`` as text.

    Raises InternalError for a program that breaks the rules of the loop language.
    """
    return Emitter(program, target).module()


class Emitter(Values):
    """Writes the body of one program, statement by statement.

    ``outlines``: loop nests become functions of their own, whose parameters are the numbers that
    do not change in them.  LLVM's time grows faster than a function does, above all where it
    weighs the address formulas of a loop; and equal nests become one.

    ``ready``: takes modules of nests as they are complete, to compile them meanwhile; ``rest`` is
    then the module that goes with them, ``given`` how it declares what they have.
    """

    outlines = True
    ENOUGH = 1 << 16  # characters of a module that is worth a thread
    ready: Callable[[str], None] | None = None

    def __init__(self, program: Program, target: gemm.Target,
                 index_names: frozenset[str] | None = None) -> None:
        super().__init__(program, target, index_names)
        self.given: list[str] = []
        self.stamps: dict[int, str] = {}
        self.rest = ""
        self.calls: dict[int, int] = {}  # numbers of Calls

    # -- the module ------------------------------------------------------------------------

    def module(self) -> str:
        """The text of the whole module."""
        self.calls = {id(call): k for k, call in enumerate(callbacks.calls(self.program))}
        self.open_buffers()
        self.block(self.program.body)
        self.code.emit("ret i64 0")
        name = f'"{self.program.name}"'
        parameters = (
            "ptr noalias nocapture readonly %sizes, ptr noalias nocapture readonly %args, "
            "ptr nocapture %arena, ptr noalias nocapture writeonly %fault"
        )
        body = [
            f"define internal i64 @body({parameters}) #0 {{",
            "entry:",
            *self.allocas,
            *self.code.lines,
            "}",
        ]
        nests = [f"define internal void @{kernel}{text}" for text, kernel in self.kernels.items()]
        rest = [
            *([callbacks.entry(self.target)] if self.calls else []),
            *(f"define internal i64 @{task}{text}" for text, task in self.tasks.items()),
            "\n".join(body),
            exported(name, self.target),
            *self._common(),
        ]
        self.rest = "\n\n".join([*self.given, *nests[len(self.given):], *rest]) + "\n"
        return "\n\n".join([*nests, *rest]) + "\n"

    def _common(self) -> list[str]:
        """What every module of the program has at its end."""
        return [
            "\n".join(sorted(self.declarations)),
            f"attributes #0 = {{ noinline nounwind {self.target.attributes} }}",
            f"attributes #1 = {{ nounwind {self.target.attributes} }}",
            "\n".join(self.metadata.lines),
        ]

    def _hand_over(self) -> None:
        """Give the nests that are complete to ``ready``, if they are enough for a module."""
        new = list(self.kernels.items())[len(self.given):]
        if self.ready is None or sum(len(text) for text, _ in new) < self.ENOUGH:
            return
        texts = [f"define hidden void @{kernel}{text}" for text, kernel in new]
        self.ready("\n\n".join([*self.given, *texts, *self._common()]) + "\n")
        self.given += [f"declare hidden void @{kernel}{text[:text.index(' #')]}"
                       for text, kernel in new]

    # -- statements ------------------------------------------------------------------------

    def scoped(self, block: Block) -> None:
        """Write ``block`` in a scope of its own."""
        self.open_scope()
        self.block(block)
        self.close_scope()

    def block(self, block: Block) -> None:
        """Write the statements of ``block`` in the scope that is open."""
        for stmt in block.body:
            self.statement(stmt)
            self._hand_over()

    def statement(self, stmt: Stmt) -> None:
        """Write one statement."""
        if isinstance(stmt, Block):
            self.scoped(stmt)
        elif isinstance(stmt, For):
            self.loop(stmt)
        elif isinstance(stmt, While):
            self.while_loop(stmt)
        elif isinstance(stmt, If):
            self.branch(stmt)
        elif isinstance(stmt, Let):
            operand = self.expr(stmt.value, index=stmt.var.name in self.index_names)
            self.bind(stmt.var.name, operand)
            self.scopes[-1].lets[stmt.var.name] = stmt.value
        elif isinstance(stmt, Store):
            self.store_statement(stmt)
        elif isinstance(stmt, Alloc):
            self.open_register(stmt.buffer)
        elif isinstance(stmt, Gemm):
            self.product(stmt)
        elif isinstance(stmt, Pack):
            self.pack(stmt)
        elif isinstance(stmt, Call):
            callbacks.write(self, stmt, self.calls[id(stmt)])
        elif isinstance(stmt, Check):
            self.check(stmt)
        elif isinstance(stmt, Stamp):
            stamp(self, stmt)
        elif isinstance(stmt, Note):
            text = " ".join(f"{stmt.text} {stmt.source}".split())
            self.code.lines.append(f"  ; {text}")
        else:
            raise InternalError(f"{type(stmt).__name__} is not a statement of the loop language")

    def open_register(self, buffer: Buffer) -> None:
        """Stack space for a buffer that the optimiser is to turn into registers."""
        if not isinstance(buffer.size, Const):
            raise InternalError(f"the size of register buffer {buffer.name!r} is not a constant")
        count = max(1, int(buffer.size.value))
        self.pointers[id(buffer)] = self.alloca(memory_type(buffer.dtype), count)

    def store_statement(self, stmt: Store) -> None:
        """A plain or an accumulating store."""
        value = self.expr(stmt.value)
        if id(stmt) in self.promoted:
            self.accumulate_register(stmt, value)
            return
        index = self.expr(stmt.index, index=True)
        grouped = stmt.accumulate is None or self.moves(stmt.index)
        if stmt.accumulate is not None:
            old = self.load(stmt.buffer, index, grouped)
            value = self.combine(stmt.accumulate, old, value, stmt.buffer.dtype)
        self.store(stmt.buffer, index, value, grouped)

    def moves(self, index: Expr) -> bool:
        """True if the vector loop being written never meets ``index`` twice."""
        var = self.vector_var
        return var is not None and analysis.moves_with(index, var, self.lets())

    def combine(self, op: str, old: str, value: str, dtype: DType) -> str:
        """old accumulated with value; sums and products may be reassociated."""
        return scalar.binary(self.code, op, old, value, dtype, free=op in ("add", "mul"))

    def accumulate_register(self, stmt: Store, value: str) -> None:
        """Accumulate into an element that waits in a register."""
        code, slot, dtype = self.code, self.promoted[id(stmt)], stmt.buffer.dtype
        kind = memory_type(dtype)
        old = scalar.from_memory(code, code.value(f"load {kind}, ptr {slot}"), dtype)
        new = self.combine(str(stmt.accumulate), old, value, dtype)
        code.emit(f"store {kind} {scalar.to_memory(code, new, dtype)}, ptr {slot}")

    def open_sums(self, loop: For) -> list[tuple[Store, str, str]]:
        """Load the elements that stay in registers while ``loop`` runs."""
        opened = []
        for stmt in analysis.register_sums(loop):
            if id(stmt) in self.promoted:
                continue
            index = self.expr(stmt.index, index=True)
            kind = memory_type(stmt.buffer.dtype)
            slot = self.alloca(kind, 1, stmt.buffer.dtype.itemsize)
            value = self.load(stmt.buffer, index, grouped=False)
            raw = scalar.to_memory(self.code, value, stmt.buffer.dtype)
            self.code.emit(f"store {kind} {raw}, ptr {slot}")
            self.promoted[id(stmt)] = slot
            opened.append((stmt, slot, index))
        return opened

    def finish_sum(self, stmt: Store, total: str) -> None:
        """Accumulate ``total``, what a vector loop has summed up, where ``stmt`` does."""
        if id(stmt) in self.promoted:
            self.accumulate_register(stmt, total)
            return
        index = self.expr(stmt.index, index=True)
        old = self.load(stmt.buffer, index, grouped=False)
        new = self.combine(str(stmt.accumulate), old, total, stmt.buffer.dtype)
        self.store(stmt.buffer, index, new, grouped=False)

    def close_sums(self, opened: list[tuple[Store, str, str]]) -> None:
        """Store what ``open_sums`` kept in registers."""
        for stmt, slot, index in opened:
            kind = memory_type(stmt.buffer.dtype)
            raw = self.code.value(f"load {kind}, ptr {slot}")
            value = scalar.from_memory(self.code, raw, stmt.buffer.dtype)
            self.store(stmt.buffer, index, value, grouped=False)
            del self.promoted[id(stmt)]

    # -- control ---------------------------------------------------------------------------

    def loop(self, loop: For) -> None:
        """A counted loop, tested before the first round and after each."""
        if loop.mode == "parallel" and self.outlines:
            TaskEmitter(self, loop).write()
            return
        if analysis.vectorisable(loop):
            vector = VectorLoop(self, loop)
            if vector.fits():
                vector.write()
                return
        if self.outlines and analysis.closed_nest(loop):
            NestEmitter(self, loop).write()
            return
        code = self.code
        extent = self.expr(loop.extent)
        enter, body, leave = code.fresh("enter"), code.fresh("body"), code.fresh("leave")
        some = code.value(f"icmp sgt i64 {extent}, 0")
        code.emit(f"br i1 {some}, label %{enter}, label %{leave}")
        code.block(enter)
        self.open_scope()
        sums = self.open_sums(loop)
        before = code.label
        code.emit(f"br label %{body}")
        code.block(body)
        index, following = "%" + code.fresh("i"), "%" + code.fresh("i")
        phi_line = len(code.lines)
        code.lines.append("")
        hints = self.open_vector(loop)
        self.epoch += 1
        self.open_scope()
        self.bind(loop.var.name, index)
        self.block(loop.body)
        self.close_scope()
        self.group, self.vector_var = "", None
        code.lines[phi_line] = (
            f"  {index} = phi i64 [ 0, %{before} ], [ {following}, %{code.label} ]"
        )
        code.emit(f"{following} = add nuw nsw i64 {index}, 1")
        again = code.value(f"icmp slt i64 {following}, {extent}")
        done = code.fresh("done")
        code.emit(f"br i1 {again}, label %{body}, label %{done}, !llvm.loop {hints}")
        code.block(done)
        self.close_sums(sums)
        self.close_scope()
        code.emit(f"br label %{leave}")
        code.block(leave)
        self.epoch += 1

    def open_vector(self, loop: For) -> str:
        """The loop's metadata; opens an access group for an innermost vector loop."""
        if not analysis.vectorisable(loop):
            return self.plain_loop()
        self.group = self.metadata.add("", distinct=True)
        self.vector_var = loop.var
        # Only a sum needs several chains; elsewhere they are lost on short rows.
        chains = 4 if any(id(s) in self.promoted for s in walk(loop.body)) else 1
        hints = [
            '!"llvm.loop.unroll.runtime.disable"',
            f'!"{VECTORISE}", {self.group}',
            f'!"llvm.loop.interleave.count", i32 {chains}',
        ]
        nodes = [self.metadata.add(h) for h in hints]
        return self.metadata.add(", ".join(["SELF", *nodes]), distinct=True)

    def plain_loop(self) -> str:
        """The metadata of a loop that the optimiser shall neither unroll at run time, which costs
        more compile time than it saves, nor vectorise.  One for all, so that nests can be equal."""
        hints = ['!"llvm.loop.unroll.runtime.disable"', '!"llvm.loop.isvectorized", i32 1']
        return self.metadata.shared(hints)

    def while_loop(self, loop: While) -> None:
        """Test, run, test again."""
        code = self.code
        head, body, leave = code.fresh("head"), code.fresh("body"), code.fresh("leave")
        code.emit(f"br label %{head}")
        code.block(head)
        self.epoch += 1
        self.open_scope()
        cond = self.expr(loop.cond)
        code.emit(f"br i1 {cond}, label %{body}, label %{leave}")
        code.block(body)
        self.scoped(loop.body)
        code.emit(f"br label %{head}")
        self.close_scope()
        code.block(leave)
        self.epoch += 1

    def branch(self, stmt: If) -> None:
        """One of two blocks."""
        code = self.code
        cond = self.expr(stmt.cond)
        then, other, join = code.fresh("then"), code.fresh("else"), code.fresh("join")
        code.emit(f"br i1 {cond}, label %{then}, label %{other}")
        for label, block in ((then, stmt.then), (other, stmt.other)):
            code.block(label)
            self.scoped(block)
            code.emit(f"br label %{join}")
        code.block(join)
        self.epoch += 1

    def check(self, stmt: Check) -> None:
        """Leave with the numbers in ``fault`` unless the condition holds."""
        code = self.code
        cond = self.expr(stmt.cond)
        passed, failed = code.fresh("passed"), code.fresh("failed")
        code.emit(f"br i1 {cond}, label %{passed}, label %{failed}, !prof {self.likely()}")
        code.block(failed)
        self.open_scope()
        if len(stmt.numbers) > FAULT_NUMBERS:
            raise InternalError(f"a Check has {len(stmt.numbers)} numbers, {FAULT_NUMBERS} fit")
        for position, number in enumerate(stmt.numbers):
            value = scalar.cast(code, self.expr(number), number.dtype, int64)
            place = code.value(f"getelementptr inbounds i64, ptr %fault, i64 {position}")
            code.emit(f"store i64 {value}, ptr {place}, align 8")
        self.close_scope()
        code.emit(f"ret i64 {stmt.site + 1}")
        code.block(passed)

    def likely(self) -> str:
        """The weights of a branch that is nearly always taken."""
        return self.metadata.add('!"branch_weights", i32 1048576, i32 1')

    # -- products --------------------------------------------------------------------------

    def product(self, stmt: Gemm) -> None:
        """A call of a kernel of the dtype."""
        dtype = stmt.c.buffer.dtype
        a, c = self.matrix(stmt.a), self.matrix(stmt.c)
        b = self.panels(stmt.b) if stmt.panel else self.matrix(stmt.b)
        sizes = ", ".join(f"i64 {self.expr(e)}" for e in (stmt.m, stmt.n, stmt.k))
        flag = "true" if stmt.accumulate else "false"
        name = gemm.packed_entry(dtype) if stmt.panel else gemm.entry(dtype)
        self.declare(gemm.packed_declaration(dtype) if stmt.panel else gemm.declaration(dtype))
        self.code.emit(f"call void @{name}({a}, {b}, {c}, {sizes}, i1 {flag})")
        self.epoch += 1

    def panels(self, matrix: Matrix) -> str:
        """A packed matrix as one operand."""
        return f"ptr {self.address(matrix.buffer, self.expr(matrix.offset, index=True))}"

    def pack(self, stmt: Pack) -> None:
        """A call that copies a matrix into panels."""
        dtype = stmt.target.dtype
        if stmt.panel != gemm.panel(dtype, self.target):
            raise InternalError(f"the products of this machine take panels of "
                                f"{gemm.panel(dtype, self.target)} columns, not {stmt.panel}")
        self.declare(gemm.pack_declaration(dtype))
        sizes = f"i64 {self.expr(stmt.n)}, i64 {self.expr(stmt.k)}"
        target = self.address(stmt.target, self.expr(stmt.offset, index=True))
        self.code.emit(f"call void @{gemm.pack_entry(dtype)}({self.matrix(stmt.source)}, "
                       f"{sizes}, ptr {target})")
        self.epoch += 1

    def matrix(self, matrix: Matrix) -> str:
        """A matrix as three operands: its first element and its two strides."""
        place = self.address(matrix.buffer, self.expr(matrix.offset, index=True))
        return f"ptr {place}, i64 {self.expr(matrix.rows)}, i64 {self.expr(matrix.cols)}"


class Outlined(Emitter):
    """Writes a part of a program as a function of its own, for the emitter ``caller``.

    ``passed``: what it takes from the caller, (operand there, type) --> its name here.
    """

    def __init__(self, caller: Emitter, part: For) -> None:
        super().__init__(caller.program, caller.target, caller.index_names)
        self.caller, self.part = caller, part
        self.metadata, self.declarations = caller.metadata, caller.declarations
        self.kernels, self.tasks = caller.kernels, caller.tasks
        self.passed: dict[tuple[str, str], str] = {}
        self.bound = analysis.bound_names(part)

    def parameter(self, operand: str, kind: str) -> str:
        """A value of the caller inside this function."""
        if not operand.startswith("%"):
            return operand
        return self.passed.setdefault((operand, kind), f"%p{len(self.passed)}")

    def expr(self, expr: Expr, index: bool = False) -> str:
        """What does not change in the part and reads no memory is passed in."""
        if analysis.invariant(expr, self.bound) and not self.has_load(expr):
            operand = self.caller.expr(expr, index)
            return self.parameter(operand, register_type(expr.dtype))
        return super().expr(expr, index)

    def pointer(self, buffer: Buffer) -> str:
        """Registers are this function's own, other buffers are passed in."""
        if id(buffer) in self.pointers:
            return self.pointers[id(buffer)]
        return self.parameter(self.caller.pointer(buffer), "ptr")


class NestEmitter(Outlined):
    """Writes one loop nest as a function whose parameters are what it takes."""

    outlines = False

    def write(self) -> None:
        """The function and its call."""
        caller = self.caller
        self.loop(self.part)
        heads = ", ".join(f"{kind} {name}" for (_, kind), name in self.passed.items())
        text = "\n".join([f"({heads}) #0 {{", "entry:", *self.allocas, *self.code.lines,
                          "  ret void", "}"])
        name = self.kernels.setdefault(text, f"nest{len(self.kernels)}")
        operands = ", ".join(f"{kind} {operand}" for operand, kind in self.passed)
        caller.code.emit(f"call void @{name}({operands})")
        caller.epoch += 1


class TaskEmitter(Outlined):
    """Writes the body of a parallel loop as a function of a context and the index, and the call
    that runs it once per index.  What it takes lies in the context, 8 bytes each."""

    def write(self) -> None:
        """The function, the context and the call."""
        caller, code = self.caller, self.caller.code
        extent = caller.expr(self.part.extent)
        threads = caller.expr(self.program.threads)
        self.bind(self.part.var.name, "%index")
        self.block(self.part.body)
        loads = []
        for position, ((_, kind), name) in enumerate(self.passed.items()):
            place = f"getelementptr inbounds i64, ptr %context, i64 {position}"
            loads += [f"  {name}.at = {place}", f"  {name} = load {kind}, ptr {name}.at, align 8"]
        text = "\n".join(["(ptr noalias nocapture readonly %context, i64 %index) #0 {", "entry:",
                          *loads, *self.allocas, *self.code.lines, "  ret i64 0", "}"])
        name = self.tasks.setdefault(text, f"task{len(self.tasks)}")
        context = caller.alloca("i64", max(1, len(self.passed)))
        for position, (operand, kind) in enumerate(self.passed):
            place = code.value(f"getelementptr inbounds i64, ptr {context}, i64 {position}")
            code.emit(f"store {kind} {operand}, ptr {place}, align 8")
        caller.declare(threads_.declaration())
        code.value(f"call i64 @{threads_.SYMBOL}(ptr @{name}, ptr {context}, i64 {extent}, "
                   f"i64 {threads})")
        caller.epoch += 1
