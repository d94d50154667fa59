"""Innermost vector loops, written as vector code.

LLVM's own loop vectoriser would do most of this, at four times the compile time and with a scalar
loop for the last elements of every row, which is where short rows spend their time.  Here the main
loop takes whole vectors and one masked round takes the rest.  What does not fit (branches,
scattered stores) stays a plain loop, which LLVM vectorises from opt_level 2 on.

Each loop is a function of its own, a kernel, whose parameters are the addresses and numbers that
do not change in it.  Kernels of the same text are one; small functions keep LLVM's time linear.

Every int64 expression has a stride: how much it grows from lane to lane.  0 is uniform and stays
scalar, 1 under a load is one vector, anything else is gathered; None is no fixed stride.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tinygraph.backends.llvm import analysis, scalar
from tinygraph.backends.llvm.scalar import memory_type, register_type
from tinygraph.dtypes import DType, bool_, int64
from tinygraph.errors import InternalError
from tinygraph.loops.language import (
    Binary,
    Block,
    Buffer,
    Cast,
    Const,
    Expr,
    For,
    Let,
    Load,
    Note,
    Select,
    Stmt,
    Store,
    Unary,
    Var,
    operands,
)

if TYPE_CHECKING:
    from tinygraph.backends.llvm.emit import Emitter


def statements(block: Block) -> Iterator[Stmt]:
    """The statements of ``block`` with inner blocks opened."""
    for stmt in block.body:
        if isinstance(stmt, Block):
            yield from statements(stmt)
        elif not isinstance(stmt, Note):
            yield stmt


class VectorLoop:
    """One innermost loop of mode "vector" in the hands of ``emitter``."""

    def __init__(self, emitter: Emitter, loop: For) -> None:
        self.emitter, self.loop = emitter, loop
        self.code = scalar.Code()  # of the kernel; what it is passed is written by the emitter
        self.parameters: dict[tuple[str, str], str] = {}
        self.slot_lines: list[str] = []
        self.index = ""
        self.body = list(statements(loop.body))
        self.strides: dict[str, int | None] = {loop.var.name: 1}
        self.known: dict[int, int | None] = {}
        self.measured: set[int] = set()
        self.orders: dict[Expr, list[Expr]] = {}
        self.vectors: dict[str, str] = {}
        self.memo: dict[int, tuple[str, int]] = {}
        self.slots: dict[int, str] = {}
        self.mask = self.count = ""
        self.pending: list[tuple[str, str, str, str, Buffer]] = []
        self.lanes = 1
        self.written = 0  # counts stores: what was loaded before one may have changed

    # -- what fits -------------------------------------------------------------------------

    def fits(self) -> bool:
        """True if the loop can be written here; sets the number of lanes."""
        names = [s.var.name for s in self.body if isinstance(s, Let)]
        if self.loop.var.name in names or len(set(names)) < len(names):
            return False
        sums = {id(s) for s in analysis.register_sums(self.loop)}
        widest = 1
        for stmt in self.body:
            if isinstance(stmt, Let):
                widest = max(widest, self.width(stmt.value))
                self.strides[stmt.var.name] = self.stride(stmt.value)
            elif isinstance(stmt, Store):
                stride = self.stride(stmt.index)
                if not (stride == 1 or (stride == 0 and id(stmt) in sums)):
                    return False
                widest = max(widest, self.width(stmt.value), stmt.buffer.dtype.itemsize)
            else:
                return False
        self.lanes = min(16, self.emitter.target.vector_bytes // widest)
        return self.lanes > 1

    def stride(self, expr: Expr) -> int | None:
        """By how much ``expr`` grows from lane to lane."""
        if isinstance(expr, Var):
            return self.strides.get(expr.name, 0)
        if id(expr) not in self.known:
            self.known[id(expr)] = self.find_stride(expr)
        return self.known[id(expr)]

    def find_stride(self, expr: Expr) -> int | None:
        """The rule behind ``stride``."""
        inner = [self.stride(e) for e in operands(expr)]
        if all(s == 0 for s in inner):
            return 0
        if not isinstance(expr, Binary) or expr.dtype is not int64:
            return None
        x, y = inner
        if expr.op in ("add", "sub") and x is not None and y is not None:
            return x + y if expr.op == "add" else x - y
        if expr.op == "mul" and x is not None and isinstance(expr.y, Const):
            return x * int(expr.y.value)
        if expr.op == "mul" and y is not None and isinstance(expr.x, Const):
            return y * int(expr.x.value)
        return None

    def width(self, root: Expr) -> int:
        """Bytes of the widest element that ``root`` computes with, indices aside."""
        for expr in analysis.children_first(root):  # so that deep expressions need no deep stack
            self.stride(expr)
        widest, stack = 1, [root]
        while stack:
            expr = stack.pop()
            if id(expr) in self.measured or self.stride(expr) is not None:
                continue
            self.measured.add(id(expr))
            widest = max(widest, expr.dtype.itemsize)
            if not isinstance(expr, Load):
                stack.extend(operands(expr))
        return widest

    # -- the loop --------------------------------------------------------------------------

    def write(self) -> None:
        """The kernel and its call."""
        emitter = self.emitter
        extent = emitter.expr(self.loop.extent)
        emitter.epoch += 1
        emitter.open_scope()
        emitter.bind(self.loop.var.name, "0")  # addresses are those of the first iteration
        totals = self.kernel_body()
        emitter.close_scope()
        kinds = [kind for _, kind in self.parameters]
        names = self.parameters.values()
        heads = [f"{kind} {name}" for kind, name in zip(kinds, names, strict=True)]
        text = "\n".join([f"({', '.join(['i64 %extent', *heads])}) #0 {{", "entry:",
                          *self.slot_lines, *self.code.lines, "  ret void", "}"])
        name = emitter.kernels.setdefault(text, f"nest{len(emitter.kernels)}")
        passed = [f"{kind} {operand}" for operand, kind in self.parameters]
        emitter.code.emit(f"call void @{name}({', '.join([f'i64 {extent}', *passed])})")
        emitter.epoch += 1
        for stmt, place in totals:
            kind = register_type(stmt.buffer.dtype)
            emitter.finish_sum(stmt, emitter.code.value(f"load {kind}, ptr {place}"))

    def outer(self, operand: str, kind: str) -> str:
        """A value of the caller inside the kernel: a literal, or a parameter."""
        if not operand.startswith("%"):
            return operand
        name = f"%p{len(self.parameters)}"
        return self.parameters.setdefault((operand, kind), name)

    def kernel_body(self) -> list[tuple[Store, str]]:
        """Whole vectors first, then one masked round; the sums, and where the caller finds them."""
        code = self.code
        rounds, body, rest = code.fresh("rounds"), code.fresh("vector"), code.fresh("rest")
        masked, done = code.fresh("masked"), code.fresh("done")
        self.open_sums()
        whole = code.value(f"and i64 %extent, {-self.lanes}")
        enough = code.value(f"icmp sgt i64 {whole}, 0")
        code.emit(f"br i1 {enough}, label %{rounds}, label %{rest}")
        code.block(rounds)
        code.emit(f"br label %{body}")
        code.block(body)
        index, following = "%" + code.fresh("i"), "%" + code.fresh("i")
        code.emit(f"{index} = phi i64 [ 0, %{rounds} ], [ {following}, %{body} ]")
        self.round(index)
        code.emit(f"{following} = add nuw nsw i64 {index}, {self.lanes}")
        again = code.value(f"icmp slt i64 {following}, {whole}")
        code.emit(f"br i1 {again}, label %{body}, label %{rest}")
        code.block(rest)
        left = code.value(f"sub nsw i64 %extent, {whole}")
        over = code.value(f"icmp sgt i64 {left}, 0")
        code.emit(f"br i1 {over}, label %{masked}, label %{done}")
        code.block(masked)
        self.mask, self.count = self.lane_mask(left), left
        self.round(whole)
        code.emit(f"br label %{done}")
        code.block(done)
        return self.close_sums()

    def round(self, index: str) -> None:
        """The body once, for ``lanes`` iterations from ``index`` on."""
        self.vectors, self.memo, self.index = {}, {}, index
        for stmt in self.body:
            if isinstance(stmt, Let):
                self.let(stmt)
            elif isinstance(stmt, Store):
                self.store(stmt)
        self.flush()

    def let(self, stmt: Let) -> None:
        """Bind a name: as a vector, or, if it is linear in the lane, by its value in the first
        iteration, which the caller computes."""
        name = stmt.var.name
        if self.strides[name] is None:
            self.vectors[name] = self.value(stmt.value)
        elif not self.mask:
            operand = self.emitter.expr(stmt.value, index=name in self.emitter.index_names)
            self.emitter.bind(name, operand)

    def wide(self) -> None:
        """From here on scalar operations write vectors."""
        self.code.lanes = self.lanes

    def narrow(self) -> None:
        """Back to scalars."""
        self.code.lanes = 1

    def lane_mask(self, count: str) -> str:
        """The mask whose first ``count`` lanes are set."""
        low = self.code.value(f"trunc i64 {count} to i32")
        every = self.splat(low, "i32")
        lanes = ", ".join(f"i32 {i}" for i in range(self.lanes))
        return self.code.value(f"icmp ult <{self.lanes} x i32> <{lanes}>, {every}")

    # -- vector expressions ------------------------------------------------------------------

    def splat(self, value: str, kind: str) -> str:
        """``value`` in every lane."""
        vector = f"<{self.lanes} x {kind}>"
        one = self.code.value(f"insertelement {vector} poison, {kind} {value}, i32 0")
        return self.code.value(
            f"shufflevector {vector} {one}, {vector} poison, <{self.lanes} x i32> zeroinitializer"
        )

    def value(self, root: Expr) -> str:
        """``vector(root)``, from the leaves up."""
        if root not in self.orders:
            varying = [e for e in analysis.children_first(root) if self.stride(e) is None]
            self.orders[root] = varying
        for expr in self.orders[root]:
            self.vector(expr)
        return self.vector(root)

    def vector(self, expr: Expr) -> str:
        """The operand that holds ``expr`` for all lanes."""
        if isinstance(expr, Var) and expr.name in self.vectors:
            return self.vectors[expr.name]
        if id(expr) in self.memo:
            operand, epoch = self.memo[id(expr)]
            if epoch == self.written or not self.emitter.has_load(expr):
                return operand
        operand = self.compute(expr)
        self.memo[id(expr)] = (operand, self.written)
        return operand

    def compute(self, expr: Expr) -> str:
        """Write the instructions of ``expr``."""
        stride = self.stride(expr)
        if stride is not None:
            return self.linear(expr, stride)
        if isinstance(expr, Load):
            return self.load(expr)
        parts = [self.vector(e) for e in operands(expr)]
        self.wide()
        try:
            if isinstance(expr, Unary):
                return scalar.unary(self.code, expr.op, parts[0], expr.x.dtype)
            if isinstance(expr, Binary):
                return scalar.binary(self.code, expr.op, parts[0], parts[1], expr.x.dtype)
            if isinstance(expr, Select):
                return self.code.choose(parts[0], parts[1], parts[2], expr.dtype)
            if isinstance(expr, Cast):
                return scalar.cast(self.code, parts[0], expr.x.dtype, expr.dtype)
        finally:
            self.narrow()
        raise InternalError(f"{type(expr).__name__} is not an expression of the loop language")

    def linear(self, expr: Expr, stride: int) -> str:
        """first lane + lane * stride."""
        kind = register_type(expr.dtype)
        if isinstance(expr, Const):
            return f"splat ({kind} {scalar.constant(expr.value, expr.dtype)})"
        base = self.outer(self.emitter.expr(expr), kind)
        if stride == 0:
            return self.splat(base, kind)
        moved = self.code.value(f"mul nsw i64 {self.index}, {stride}")
        first = self.splat(self.code.value(f"add nsw i64 {base}, {moved}"), kind)
        steps = ", ".join(f"i64 {i * stride}" for i in range(self.lanes))
        return self.code.value(f"add <{self.lanes} x i64> {first}, <{steps}>")

    def place(self, buffer: Buffer, index: Expr) -> str:
        """The address of the first lane's element, for an index of stride 1."""
        emitter = self.emitter
        start = emitter.address(buffer, emitter.expr(index, index=True))
        kind = memory_type(buffer.dtype)
        base = self.outer(start, "ptr")
        return self.code.value(f"getelementptr inbounds {kind}, ptr {base}, i64 {self.index}")

    # -- memory ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write the stores of the masked round that were held back, all in one go."""
        pending, self.pending = self.pending, []
        for kind in dict.fromkeys(p[0] for p in pending):
            values, places, tails = zip(*(p[1:4] for p in pending if p[0] == kind), strict=True)
            scalar.store_first(self.code, kind, self.lanes, self.count, list(values),
                               list(places), list(tails), whole=False)

    def load(self, expr: Load) -> str:
        """A vector of contiguous elements, or a gather."""
        if any(p[4] is expr.buffer for p in self.pending):
            self.flush()
        emitter, dtype = self.emitter, expr.buffer.dtype
        kind, size = memory_type(dtype), dtype.itemsize
        vector, truth = f"<{self.lanes} x {kind}>", f"<{self.lanes} x i1>"
        suffix = f"v{self.lanes}{_short(dtype)}"
        if self.stride(expr.index) == 1:
            place = self.place(expr.buffer, expr.index)
            if self.mask:
                name = f"llvm.masked.load.{suffix}.p0"
                emitter.declare(f"declare {vector} @{name}(ptr, i32, {truth}, {vector})")
                instruction = (
                    f"call {vector} @{name}(ptr {place}, i32 {size}, {truth} {self.mask}, "
                    f"{vector} zeroinitializer)"
                )
            else:
                instruction = f"load {vector}, ptr {place}, align {size}"
        else:
            base = self.outer(emitter.pointer(expr.buffer), "ptr")
            lanes = f"<{self.lanes} x i64> {self.vector(expr.index)}"
            places = self.code.value(f"getelementptr inbounds {kind}, ptr {base}, {lanes}")
            pointers = f"<{self.lanes} x ptr>"
            name = f"llvm.masked.gather.{suffix}.v{self.lanes}p0"
            emitter.declare(f"declare {vector} @{name}({pointers}, i32, {truth}, {vector})")
            instruction = (
                f"call {vector} @{name}({pointers} {places}, i32 {size}, "
                f"{truth} {self.mask or 'splat (i1 true)'}, {vector} zeroinitializer)"
            )
        self.wide()
        value = scalar.from_memory(self.code, self.code.value(instruction), dtype)
        self.narrow()
        return value

    def put(self, stmt: Store, place: str, value: str) -> None:
        """Store a vector of contiguous elements."""
        dtype = stmt.buffer.dtype
        self.wide()
        raw = scalar.to_memory(self.code, value, dtype)
        self.narrow()
        kind, size = memory_type(dtype), dtype.itemsize
        vector, truth = f"<{self.lanes} x {kind}>", f"<{self.lanes} x i1>"
        if self.mask and not self.emitter.target.mask_registers:
            self.pending.append((kind, raw, place, f", align {size}", stmt.buffer))
        elif self.mask:
            name = f"llvm.masked.store.v{self.lanes}{_short(dtype)}.p0"
            self.emitter.declare(f"declare void @{name}({vector}, ptr, i32, {truth})")
            self.code.emit(
                f"call void @{name}({vector} {raw}, ptr {place}, i32 {size}, "
                f"{truth} {self.mask})"
            )
        else:
            self.code.emit(f"store {vector} {raw}, ptr {place}, align {size}")
        self.written += 1

    def store(self, stmt: Store) -> None:
        """A store of contiguous elements, or a part of a sum."""
        value = self.value(stmt.value)
        if id(stmt) in self.slots:
            self.accumulate(stmt, value)
            return
        if stmt.accumulate is not None:
            old = self.load(Load(stmt.buffer, stmt.index))
            value = self.combine(stmt.accumulate, old, value, stmt.buffer.dtype)
        self.put(stmt, self.place(stmt.buffer, stmt.index), value)

    # -- sums --------------------------------------------------------------------------------

    def combine(self, op: str, old: str, value: str, dtype: DType) -> str:
        """old accumulated with value, lane by lane."""
        self.wide()
        result = scalar.binary(self.code, op, old, value, dtype, free=op in ("add", "mul"))
        self.narrow()
        return result

    def open_sums(self) -> None:
        """A vector register of neutral elements for every accumulation into one element."""
        for stmt in self.body:
            if isinstance(stmt, Store) and self.stride(stmt.index) == 0:
                dtype, op = stmt.buffer.dtype, str(stmt.accumulate)
                kind = register_type(dtype)
                slot = f"%slot{len(self.slot_lines)}"
                self.slot_lines.append(f"  {slot} = alloca <{self.lanes} x {kind}>, align 64")
                start = scalar.constant(_neutral(op, dtype), dtype)
                self.code.emit(f"store <{self.lanes} x {kind}> splat ({kind} {start}), ptr {slot}")
                self.slots[id(stmt)] = slot

    def accumulate(self, stmt: Store, value: str) -> None:
        """Add one vector to a sum; lanes that do not exist keep theirs."""
        slot, dtype = self.slots[id(stmt)], stmt.buffer.dtype
        vector = f"<{self.lanes} x {register_type(dtype)}>"
        old = self.code.value(f"load {vector}, ptr {slot}")
        new = self.combine(str(stmt.accumulate), old, value, dtype)
        if self.mask:
            self.wide()
            new = self.code.choose(self.mask, new, old, dtype)
            self.narrow()
        self.code.emit(f"store {vector} {new}, ptr {slot}")

    def close_sums(self) -> list[tuple[Store, str]]:
        """Add up the lanes; the totals go to places that the caller passes."""
        totals = []
        for stmt in self.body:
            if isinstance(stmt, Store) and id(stmt) in self.slots:
                dtype = stmt.buffer.dtype
                kind = register_type(dtype)
                vector = f"<{self.lanes} x {kind}>"
                lanes = self.code.value(f"load {vector}, ptr {self.slots[id(stmt)]}")
                total = self.across(str(stmt.accumulate), lanes, dtype)
                place = self.emitter.alloca(kind, 1)
                self.code.emit(f"store {kind} {total}, ptr {self.outer(place, 'ptr')}")
                totals.append((stmt, place))
        return totals

    def across(self, op: str, lanes: str, dtype: DType) -> str:
        """The lanes of one vector combined."""
        kind = register_type(dtype)
        vector, suffix = f"<{self.lanes} x {kind}>", f"v{self.lanes}{_short(dtype, memory=False)}"
        if dtype is bool_:
            op = {"add": "or", "max": "or", "mul": "and", "min": "and"}.get(op, op)
        if dtype.is_float and op in ("add", "mul"):
            start = scalar.constant(_neutral(op, dtype), dtype)
            return self.code.value(
                f"call reassoc nsz {kind} @llvm.vector.reduce.f{op}.{suffix}"
                f"({kind} {start}, {vector} {lanes})"
            )
        if op in ("min", "max"):
            prefix = "f" if dtype.is_float else ("s" if dtype.kind == "i" else "u")
            op = f"{prefix}{op}{'imum' if dtype.is_float else ''}"
        flags = "nsz " if dtype.is_float else ""
        return self.code.value(
            f"call {flags}{kind} @llvm.vector.reduce.{op}.{suffix}({vector} {lanes})"
        )


def _short(dtype: DType, memory: bool = True) -> str:
    """The dtype as the names of intrinsics spell it."""
    bits = 8 if dtype is bool_ and memory else dtype.bits
    return f"{'f' if dtype.is_float else 'i'}{bits}"


def _neutral(op: str, dtype: DType) -> float | int | bool:
    """The x with op(x, y) == y for every y."""
    if op in ("add", "or"):
        return 0
    if op in ("mul", "and"):
        return 1 if op == "mul" or dtype is bool_ else -1
    if dtype.is_float:
        return float("inf") if op == "min" else float("-inf")
    if dtype is bool_:
        return op == "min"
    signed = dtype.kind == "i"
    low = -(1 << (dtype.bits - 1)) if signed else 0
    return (1 << (dtype.bits - signed)) - 1 if op == "min" else low
