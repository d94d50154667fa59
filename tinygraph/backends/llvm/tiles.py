"""What every part of the matrix products in ``gemm`` is written with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tinygraph.backends.llvm.scalar import Code, register_type
from tinygraph.dtypes import DType


@dataclass(frozen=True)
class Target:
    """What the kernels must know about the machine.

    arch           "x86", "aarch64" or "other"
    vector_bytes   width of a vector register
    registers      how many vector registers there are
    mask_registers whether storing under a mask is cheap
    attributes     LLVM function attributes that every function gets
    """

    arch: str
    vector_bytes: int
    registers: int
    mask_registers: bool = False
    attributes: str = ""


class Writer:
    """Writes functions on vectors of one dtype for one target.

    lanes  elements in a vector
    mr     most rows of a register tile
    nv     vectors in a row of a register tile
    nr     its columns, which are those of a panel of b
    """

    mr = 6

    def __init__(self, dtype: DType, target: Target) -> None:
        self.target = target
        self.dtype = dtype
        self.t = register_type(dtype)
        self.size = dtype.itemsize
        self.lanes = target.vector_bytes // dtype.itemsize
        self.v = f"<{self.lanes} x {self.t}>"
        self.mask = f"<{self.lanes} x i1>"
        self.nv = 4 if target.registers >= 32 else 2
        self.nr = self.nv * self.lanes
        self.code = Code()

    # -- small pieces ----------------------------------------------------------------------

    @property
    def suffix(self) -> str:
        """A vector as the names of intrinsics spell it."""
        return f"v{self.lanes}f{self.dtype.bits}"

    def function(self, name: str, parameters: str, hot: bool = True) -> None:
        """Start a function: a fresh body text.  Those called gemm are seen outside.

        One that only decides what others do is not ``hot``: LLVM then takes the short way.
        """
        self.code = Code()
        linkage = "" if name.startswith("gemm") else "internal "
        self.header = (f"define {linkage}void @{name}_{self.dtype}({parameters}) "
                       f"#{0 if hot else 1} {{\nentry:")

    def finish(self) -> str:
        """The text of the function."""
        return "\n".join([self.header, *self.code.lines, "  ret void\n}"])

    def call(self, name: str, *arguments: str) -> None:
        """Call a function of this module."""
        self.code.emit(f"call void @{name}_{self.dtype}({', '.join(arguments)})")

    def scratch(self, count: int) -> str:
        """Stack space for ``count`` elements."""
        return self.code.value(f"alloca [{count} x {self.t}], align 64")

    def at(self, pointer: str, offset: str | int) -> str:
        """The address ``offset`` elements from ``pointer``."""
        return self.code.value(f"getelementptr {self.t}, ptr {pointer}, i64 {offset}")

    def corner(self, pointer: str, *steps: tuple[str | int, str | int]) -> str:
        """The address sum(index * stride) elements from ``pointer``."""
        for index, stride in steps:
            pointer = self.at(pointer, self.op("mul", str(index), stride))
        return pointer

    def op(self, name: str, x: str, y: str | int) -> str:
        """An int64 operation."""
        return self.code.value(f"{name} i64 {x}, {y}")

    def test(self, relation: str, x: str, y: str | int) -> str:
        """An int64 comparison."""
        return self.code.value(f"icmp {relation} i64 {x}, {y}")

    def logic(self, op: str, *conditions: str) -> str:
        """``op`` over all conditions."""
        result = conditions[0]
        for other in conditions[1:]:
            result = self.code.value(f"{op} i1 {result}, {other}")
        return result

    def pick(self, cond: str, x: str | int, y: str | int, kind: str = "i64") -> str:
        """x if ``cond``, else y."""
        return self.code.value(f"select i1 {cond}, {kind} {x}, {kind} {y}")

    def smaller(self, x: str, y: str | int) -> str:
        """The smaller of two int64."""
        return self.pick(self.test("slt", x, y), x, y)

    # -- vectors ---------------------------------------------------------------------------

    def load(self, place: str, kind: str = "") -> str:
        """A vector, or a value of type ``kind``, from ``place``."""
        return self.code.value(f"load {kind or self.v}, ptr {place}, align {self.size}")

    def store(self, value: str, place: str, kind: str = "") -> None:
        """A vector, or a value of type ``kind``, to ``place``."""
        self.code.emit(f"store {kind or self.v} {value}, ptr {place}, align {self.size}")

    def masked_load(self, place: str, mask: str) -> str:
        """A vector from ``place``; 0 in the lanes that ``mask`` leaves out."""
        return self.code.value(
            f"call {self.v} @llvm.masked.load.{self.suffix}.p0(ptr {place}, i32 {self.size}, "
            f"{self.mask} {mask}, {self.v} zeroinitializer)"
        )

    def masked_store(self, value: str, place: str, mask: str) -> None:
        """A vector to ``place``, but for the lanes that ``mask`` leaves out."""
        self.code.emit(
            f"call void @llvm.masked.store.{self.suffix}.p0({self.v} {value}, ptr {place}, "
            f"i32 {self.size}, {self.mask} {mask})"
        )

    def lane_mask(self, count: str) -> str:
        """The mask whose first ``count`` lanes are set: none if it is negative."""
        vector = f"<{self.lanes} x i32>"
        low = self.code.value(f"trunc i64 {count} to i32")
        every = self.splat(low, "i32", vector)
        numbers = ", ".join(f"i32 {i}" for i in range(self.lanes))
        return self.code.value(f"icmp slt {vector} <{numbers}>, {every}")

    def splat(self, value: str, kind: str = "", vector: str = "") -> str:
        """``value`` in every lane."""
        kind, vector = kind or self.t, vector or self.v
        one = self.code.value(f"insertelement {vector} poison, {kind} {value}, i32 0")
        return self.code.value(
            f"shufflevector {vector} {one}, {vector} poison, <{self.lanes} x i32> zeroinitializer"
        )

    def shuffle(self, x: str, y: str, picks: list[int], lanes: int = 0) -> str:
        """The vector of the elements ``picks`` of x and y, which have ``lanes`` elements each."""
        vector = f"<{lanes or self.lanes} x {self.t}>"
        numbers = ", ".join(f"i32 {p}" for p in picks)
        return self.code.value(
            f"shufflevector {vector} {x}, {vector} {y}, <{len(picks)} x i32> <{numbers}>"
        )

    def fused(self, x: str, y: str, z: str) -> str:
        """x * y + z, lane by lane."""
        v = self.v
        return self.code.value(f"call {v} @llvm.fmuladd.{self.suffix}({v} {x}, {v} {y}, {v} {z})")

    def add(self, x: str, y: str, kind: str = "") -> str:
        """x + y, for vectors or for values of type ``kind``."""
        return self.code.value(f"fadd {kind or self.v} {x}, {y}")

    def prefetch(self, place: str, locality: int, write: bool = False) -> None:
        """Bring the cache line of ``place`` near: 3 into the first-level cache, 2 the second."""
        self.code.emit(
            f"call void @llvm.prefetch.p0(ptr {place}, i32 {int(write)}, i32 {locality}, i32 1)"
        )

    # -- control ---------------------------------------------------------------------------

    def loop(self, stem: str, start: str | int, carried: list[tuple[str, str]]) -> Loop:
        """Open a loop that runs at least once."""
        return Loop(self.code, stem, str(start), carried)

    @contextmanager
    def each(self, stem: str, start: str | int, end: str | int, step: str | int) -> Iterator[str]:
        """A loop over an index that runs at least once."""
        loop = self.loop(stem, start, [])
        yield loop.index
        following = self.op("add", loop.index, step)
        loop.close(following, self.test("slt", following, end), [])

    @contextmanager
    def when(self, cond: str) -> Iterator[None]:
        """What is written inside happens only if ``cond``."""
        take, skip = self.code.fresh("take"), self.code.fresh("skip")
        self.code.emit(f"br i1 {cond}, label %{take}, label %{skip}")
        self.code.block(take)
        yield
        self.code.emit(f"br label %{skip}")
        self.code.block(skip)

    def leave_if(self, cond: str) -> None:
        """Return if ``cond``."""
        take, skip = self.code.fresh("take"), self.code.fresh("skip")
        self.code.emit(f"br i1 {cond}, label %{take}, label %{skip}")
        self.code.block(take)
        self.code.emit("ret void")
        self.code.block(skip)

    def negated(self, cond: str) -> str:
        """not ``cond``."""
        return self.logic("xor", cond, "true")


class Loop:
    """A do-while loop under construction: an index and values carried from round to round."""

    def __init__(self, code: Code, stem: str, start: str, carried: list[tuple[str, str]]) -> None:
        self.code, self.start, self.carried = code, start, carried
        self.before = code.label
        self.label = code.fresh(stem)
        code.emit(f"br label %{self.label}")
        code.block(self.label)
        self.index = "%" + code.fresh(stem)
        self.values = ["%" + code.fresh("c") for _ in carried]
        self.position = len(code.lines)
        code.lines.append("")

    def close(self, following: str, again: str, new: list[str]) -> None:
        """Go round while ``again``, with the index ``following`` and the values ``new``."""
        code, end = self.code, self.code.label
        names = [(self.index, "i64", self.start, following)]
        for name, (first, kind), last in zip(self.values, self.carried, new, strict=True):
            names.append((name, kind, first, last))
        code.lines[self.position] = "\n".join(
            f"  {name} = phi {kind} [ {first}, %{self.before} ], [ {last}, %{end} ]"
            for name, kind, first, last in names
        )
        done = code.fresh("done")
        code.emit(f"br i1 {again}, label %{self.label}, label %{done}")
        code.block(done)
