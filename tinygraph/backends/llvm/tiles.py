"""Register tiles: the parts from which the matrix products in ``gemm`` are made."""

from __future__ import annotations

from dataclasses import dataclass

from tinygraph.backends.llvm.scalar import Code, register_type, store_first
from tinygraph.dtypes import DType


@dataclass(frozen=True)
class Target:
    """What the kernels must know about the machine.

    arch           "x86", "aarch64" or "other"
    vector_bytes   width of a vector register
    registers      how many vector registers there are
    mask_registers whether storing under a mask is cheap
    blas           the calling convention of the BLAS to call, a key of ``blas.CONVENTIONS``, or ""
    attributes     LLVM function attributes that every function gets
    """

    arch: str
    vector_bytes: int
    registers: int
    mask_registers: bool = False
    blas: str = ""
    attributes: str = ""


class Tiles:
    """Writes functions on tiles of one dtype for one target."""

    def __init__(self, dtype: DType, target: Target) -> None:
        self.target = target
        self.dtype = dtype
        self.t = register_type(dtype)
        self.size = dtype.itemsize
        self.lanes = target.vector_bytes // dtype.itemsize
        self.v = f"<{self.lanes} x {self.t}>"
        self.mask = f"<{self.lanes} x i1>"
        self.nv = 4 if target.registers >= 32 else 2
        self.mr = 6
        self.nr = self.nv * self.lanes
        self.code = Code()
        self.counts: dict[str, str] = {}  # how many lanes a mask lets through

    # -- small pieces ----------------------------------------------------------------------

    @property
    def suffix(self) -> str:
        """A vector as the names of intrinsics spell it."""
        return f"v{self.lanes}f{self.dtype.bits}"

    def function(self, name: str, parameters: str) -> None:
        """Start a function: a fresh body text."""
        self.code = Code()
        linkage = "" if name == "gemm" else "internal "
        self.header = f"define {linkage}void @{name}_{self.dtype}({parameters}) #0 {{\nentry:"

    def finish(self) -> str:
        """The text of the function."""
        return "\n".join([self.header, *self.code.lines, "}"])

    def at(self, pointer: str, offset: str) -> str:
        """The address ``offset`` elements from ``pointer``."""
        return self.code.value(f"getelementptr {self.t}, ptr {pointer}, i64 {offset}")

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

    def vector_load(self, place: str, mask: str = "") -> str:
        """A vector from ``place``; 0 in the lanes that ``mask`` leaves out."""
        if mask:
            return self.code.value(
                f"call {self.v} @llvm.masked.load.{self.suffix}.p0(ptr {place}, i32 {self.size}, "
                f"{self.mask} {mask}, {self.v} zeroinitializer)"
            )
        return self.code.value(f"load {self.v}, ptr {place}, align {self.size}")

    def vector_store(self, value: str, place: str, mask: str = "") -> None:
        """A vector to ``place``, but for the lanes that ``mask`` leaves out."""
        if mask:
            self.code.emit(
                f"call void @llvm.masked.store.{self.suffix}.p0({self.v} {value}, ptr {place}, "
                f"i32 {self.size}, {self.mask} {mask})"
            )
        else:
            self.code.emit(f"store {self.v} {value}, ptr {place}, align {self.size}")

    def splat(self, value: str, kind: str = "", vector: str = "") -> str:
        """``value`` in every lane."""
        kind, vector = kind or self.t, vector or self.v
        one = self.code.value(f"insertelement {vector} poison, {kind} {value}, i32 0")
        return self.code.value(
            f"shufflevector {vector} {one}, {vector} poison, <{self.lanes} x i32> zeroinitializer"
        )

    def lane_mask(self, count: str) -> str:
        """The mask whose first ``count`` lanes are set."""
        vector = f"<{self.lanes} x i32>"
        low = self.code.value(f"trunc i64 {count} to i32")
        every = self.splat(low, "i32", vector)
        numbers = ", ".join(f"i32 {i}" for i in range(self.lanes))
        mask = self.code.value(f"icmp ult {vector} <{numbers}>, {every}")
        self.counts[mask] = count
        return mask

    def rows(self, base: str, stride: str, count: int, present: str) -> list[str]:
        """Pointers to ``count`` rows; rows from ``present`` on repeat the last one."""
        pointers = [base]
        for r in range(1, count):
            step = self.pick(self.test("sgt", present, r), stride, 0)
            pointers.append(self.at(pointers[-1], step))
        return pointers

    def loop(self, stem: str, start: str | int, carried: list[tuple[str, str]]) -> Loop:
        """Open a loop that runs at least once."""
        return Loop(self.code, stem, str(start), carried)

    # -- register tiles --------------------------------------------------------------------

    def panel(self, nv: int, masked: bool) -> str:
        """All rows of c times one panel of at most nv vectors of columns.

        ``last`` is the number of columns in the last vector of a masked panel.
        """
        self.function(
            f"panel{nv}{'m' if masked else ''}",
            "ptr noalias nocapture readonly %a, i64 %ars, i64 %acs, "
            "ptr noalias nocapture readonly %b, i64 %brs, ptr noalias nocapture %c, i64 %crs, "
            "i64 %m, i64 %k, i64 %last, i1 %acc",
        )
        code = self.code
        mask = self.lane_mask("%last") if masked else ""
        loop = self.loop("row", 0, [])
        a = self.at("%a", self.op("mul", loop.index, "%ars"))
        c = self.at("%c", self.op("mul", loop.index, "%crs"))
        left = self.op("sub", "%m", loop.index)
        join, half, two, one, full = (code.fresh(s) for s in ("next", "half", "two", "one", "full"))
        many = self.test("sge", left, self.mr // 2 + 1)
        code.emit(f"br i1 {many}, label %{full}, label %{half}")
        code.block(half)
        some = self.test("sge", left, 2)
        code.emit(f"br i1 {some}, label %{two}, label %{one}")
        steps = []
        for label, rows in ((full, self.mr), (two, self.mr // 2), (one, 1)):
            code.block(label)
            self.tile(rows, nv, (a, "%b", c), left, mask)
            steps.append(f"[ {rows}, %{code.label} ]")
            code.emit(f"br label %{join}")
        code.block(join)
        done = code.value(f"phi i64 {', '.join(steps)}")
        following = self.op("add", loop.index, done)
        loop.close(following, self.test("slt", following, "%m"), [])
        code.emit("ret void")
        return self.finish()

    def tile(self, mr: int, nv: int, corners: tuple[str, str, str], left: str, mask: str) -> None:
        """mr x nv vectors of c, held in registers over the whole of k.

        ``corners`` are the first elements of a, b and c, ``left`` the rows that exist.
        """
        code = self.code
        a, b_start, c = corners
        a_rows = self.rows(a, "%ars", mr, left)
        c_rows = self.rows(c, "%crs", mr, left)
        masks = [""] * (nv - 1) + [mask]
        check = code.fresh("any")
        finish = code.fresh("sum")
        code.emit(f"br label %{check}")
        code.block(check)
        some = self.test("sgt", "%k", 0)
        enter = code.fresh("enter")
        code.emit(f"br i1 {some}, label %{enter}, label %{finish}")
        code.block(enter)
        zeros = [("zeroinitializer", self.v)] * (mr * nv)
        loop = self.loop("k", 0, [*zeros, ("0", "i64"), (b_start, "ptr")])
        *sums, offset, b = loop.values
        vectors = [self.vector_load(self.at(b, str(j * self.lanes)), masks[j]) for j in range(nv)]
        new = []
        for r in range(mr):
            element = code.value(
                f"load {self.t}, ptr {self.at(a_rows[r], offset)}, align {self.size}"
            )
            every = self.splat(element)
            for j in range(nv):
                new.append(self.fused(every, vectors[j], sums[r * nv + j]))
        following = self.op("add", loop.index, 1)
        next_offset, next_b = self.op("add", offset, "%acs"), self.at(b, "%brs")
        loop.close(following, self.test("slt", following, "%k"), [*new, next_offset, next_b])
        after = code.label
        code.emit(f"br label %{finish}")
        code.block(finish)
        totals = [
            code.value(f"phi {self.v} [ zeroinitializer, %{check} ], [ {x}, %{after} ]")
            for x in new
        ]
        places = [self.at(c_rows[r], str(j * self.lanes)) for r in range(mr) for j in range(nv)]
        self.write(totals, places, masks * mr)

    def fused(self, x: str, y: str, z: str) -> str:
        """x * y + z, lane by lane."""
        v = self.v
        return self.code.value(f"call {v} @llvm.fmuladd.{self.suffix}({v} {x}, {v} {y}, {v} {z})")

    def write(self, totals: list[str], places: list[str], masks: list[str]) -> None:
        """Store the sums, on top of what c holds if ``acc``.  All loads come before all stores,
        since rows may be repeated."""
        code = self.code
        add, put, start = code.fresh("add"), code.fresh("put"), code.label
        code.emit(f"br i1 %acc, label %{add}, label %{put}")
        code.block(add)
        added = []
        for total, place, mask in zip(totals, places, masks, strict=True):
            old = self.vector_load(place, mask)
            added.append(code.value(f"fadd {self.v} {old}, {total}"))
        code.emit(f"br label %{put}")
        code.block(put)
        final = [
            code.value(f"phi {self.v} [ {x}, %{start} ], [ {y}, %{add} ]")
            for x, y in zip(totals, added, strict=True)
        ]
        ends: list[tuple[str, str]] = []
        for value, place, mask in zip(final, places, masks, strict=True):
            if mask and not self.target.mask_registers:
                ends.append((value, place))
            else:
                self.vector_store(value, place, mask)
        if ends:
            values, starts = map(list, zip(*ends, strict=True))
            count = self.counts[masks[-1]]
            tails = [f", align {self.size}"] * len(values)
            store_first(code, self.t, self.lanes, count, values, starts, tails)

    # -- copying b into a panel -------------------------------------------------------------

    def pack(self) -> str:
        """dst[p * NR + j] = b[p, j] for p < k, j < cols."""
        self.function(
            "pack",
            "ptr noalias nocapture readonly %b, i64 %brs, i64 %bcs, i64 %cols, i64 %k, "
            "ptr noalias nocapture writeonly %dst",
        )
        code = self.code
        flat, steep, blocks = (code.fresh(s) for s in ("flat", "steep", "blocks"))
        rows, done = code.fresh("rows"), code.fresh("done")
        code.emit(f"br i1 {self.test('eq', '%bcs', 1)}, label %{flat}, label %{steep}")
        code.block(flat)
        whole = self.test("eq", "%cols", self.nr)
        code.emit(f"br i1 {whole}, label %{rows}, label %{steep}")
        code.block(rows)
        loop = self.loop("p", 0, [("%b", "ptr"), ("%dst", "ptr")])
        source, target = loop.values
        for j in range(self.nv):
            value = self.vector_load(self.at(source, str(j * self.lanes)))
            self.vector_store(value, self.at(target, str(j * self.lanes)))
        following = self.op("add", loop.index, 1)
        new = [self.at(source, "%brs"), self.at(target, str(self.nr))]
        loop.close(following, self.test("slt", following, "%k"), new)
        code.emit("ret void")
        code.block(steep)
        # Columns contiguous along k: transpose lanes x lanes blocks in registers.
        upright = self.test("eq", "%brs", 1)
        most_cols = self.op("and", "%cols", -self.lanes)
        most_k = self.op("and", "%k", -self.lanes)
        some = self.logic("and", upright, self.test("sgt", most_cols, 0))
        some = self.logic("and", some, self.test("sgt", most_k, 0))
        code.emit(f"br i1 {some}, label %{blocks}, label %{done}")
        code.block(blocks)
        self.transposed_blocks(most_cols, most_k)
        after = code.label
        code.emit(f"br label %{done}")
        code.block(done)
        first_k = code.value(f"phi i64 [ {most_k}, %{after} ], [ 0, %{steep} ]")
        first_col = code.value(f"phi i64 [ {most_cols}, %{after} ], [ 0, %{steep} ]")
        # What the blocks left: all columns of the last rows, then the last columns of the others.
        self.copy_elements("0", "%cols", first_k, "%k")
        self.copy_elements(first_col, "%cols", "0", first_k)
        code.emit("ret void")
        return self.finish()

    def transposed_blocks(self, most_cols: str, most_k: str) -> None:
        """Copy all whole lanes x lanes blocks of a b whose columns are contiguous."""
        outer = self.loop("j", 0, [])
        inner = self.loop("p", 0, [])
        corner = self.op("add", self.op("mul", outer.index, "%bcs"), inner.index)
        pointer = self.at("%b", corner)
        vectors = []
        for _ in range(self.lanes):
            vectors.append(self.vector_load(pointer))
            pointer = self.at(pointer, "%bcs")
        half = self.lanes // 2
        low = [x for i in range(half) for x in (i, self.lanes + i)]
        high = [x for i in range(half, self.lanes) for x in (i, self.lanes + i)]
        for _ in range(self.lanes.bit_length() - 1):
            # A perfect shuffle of rows, log2(lanes) times, is the transpose.
            mixed = []
            for i in range(half):
                mixed.append(self.shuffle(vectors[i], vectors[i + half], low))
                mixed.append(self.shuffle(vectors[i], vectors[i + half], high))
            vectors = mixed
        start = self.op("add", self.op("mul", inner.index, self.nr), outer.index)
        for i, value in enumerate(vectors):
            self.vector_store(value, self.at("%dst", self.op("add", start, i * self.nr)))
        following = self.op("add", inner.index, self.lanes)
        inner.close(following, self.test("slt", following, most_k), [])
        following = self.op("add", outer.index, self.lanes)
        outer.close(following, self.test("slt", following, most_cols), [])

    def shuffle(self, x: str, y: str, picks: list[int]) -> str:
        """The vector of the elements ``picks`` of x and y."""
        numbers = ", ".join(f"i32 {p}" for p in picks)
        return self.code.value(
            f"shufflevector {self.v} {x}, {self.v} {y}, <{self.lanes} x i32> <{numbers}>"
        )

    def copy_elements(self, j0: str, j1: str, p0: str, p1: str) -> None:
        """Copy columns j0..j1 of rows p0..p1 one by one."""
        code = self.code
        enter, leave = code.fresh("enter"), code.fresh("leave")
        some = self.logic("and", self.test("slt", j0, j1), self.test("slt", p0, p1))
        code.emit(f"br i1 {some}, label %{enter}, label %{leave}")
        code.block(enter)
        outer = self.loop("p", p0, [])
        row = self.at("%b", self.op("mul", outer.index, "%brs"))
        target = self.at("%dst", self.op("mul", outer.index, self.nr))
        inner = self.loop("j", j0, [])
        place = self.at(row, self.op("mul", inner.index, "%bcs"))
        value = code.value(f"load {self.t}, ptr {place}, align {self.size}")
        code.emit(f"store {self.t} {value}, ptr {self.at(target, inner.index)}, align {self.size}")
        following = self.op("add", inner.index, 1)
        inner.close(following, self.test("slt", following, j1), [])
        following = self.op("add", outer.index, 1)
        outer.close(following, self.test("slt", following, p1), [])
        code.emit(f"br label %{leave}")
        code.block(leave)


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
