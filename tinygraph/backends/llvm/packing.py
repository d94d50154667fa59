"""Copies of the operands of a product in the order in which its tiles read them."""

from __future__ import annotations

from tinygraph.backends.llvm.panels import A
from tinygraph.backends.llvm.rows import Rows

WAY = 4096  # bytes after which addresses fall into the same set of the first-level cache
STRIP = 16  # columns of a that go into strips at a time


class Packing(Rows):
    """Writes the functions that copy panels of b and strips of a."""

    # -- strips of a -----------------------------------------------------------------------

    def strips(self) -> str:
        """Rows of a in the strips that ``panel`` takes: h rows, element (r, p) at p*h + r.

        A few columns at a time, so that a row of k is still in the cache for the next strip.
        """
        self.function("strips", f"{A} i64 %m, i64 %k, ptr noalias nocapture writeonly %dst")
        whole = self.test("eq", "%ars", 1)
        with self.each("q", 0, "%k", STRIP) as q:
            depth = self.smaller(self.op("sub", "%k", q), STRIP)
            first = self.corner("%a", (q, "%acs"))
            loop = self.loop("i", 0, [(first, "ptr"), ("%dst", "ptr")])
            a, strip = loop.values
            count = self.tile_rows(self.op("sub", "%m", loop.index))
            dst = self.corner(strip, (q, count))
            fast = self.logic("and", whole, self.test("eq", count, self.mr))
            with self.when(fast):
                self.strip_loop(a, dst, self.mr, depth, f"<{self.mr} x {self.t}>")
            with self.when(self.negated(fast)), self.each("r", 0, count, 1) as r:
                row = self.corner(a, (r, "%ars"))
                self.strip_loop(row, self.at(dst, r), count, depth, self.t)
            following = self.op("add", loop.index, count)
            new = [self.corner(a, (count, "%ars")), self.corner(strip, (count, "%k"))]
            loop.close(following, self.test("slt", following, "%m"), new)
        return self.finish()

    def strip_loop(self, a: str, dst: str, step: str | int, depth: str, kind: str) -> None:
        """Copy ``depth`` values of type ``kind``, which are ``step`` elements apart in a strip."""
        loop = self.loop("p", 0, [(a, "ptr"), (dst, "ptr")])
        self.store(self.load(loop.values[0], kind), loop.values[1], kind)
        following = self.op("add", loop.index, 1)
        new = [self.at(loop.values[0], "%acs"), self.at(loop.values[1], step)]
        loop.close(following, self.test("slt", following, depth), new)

    def copy(self) -> str:
        """Rows of unit stride to ``dst``, ``width`` elements apart.  Whole vectors are read where
        a row has as many elements, the last ones where they end with it."""
        self.function(
            "copy",
            "ptr noalias nocapture readonly %a, i64 %ars, i64 %m, i64 %k, "
            "ptr noalias nocapture writeonly %dst, i64 %width",
        )
        last = self.op("sub", "%k", self.lanes)
        short = self.test("slt", last, 0)
        with self.each("i", 0, "%m", 1) as i:
            source, target = self.corner("%a", (i, "%ars")), self.corner("%dst", (i, "%width"))
            with self.when(short), self.each("p", 0, "%k", 1) as p:
                self.store(self.load(self.at(source, p), self.t), self.at(target, p), self.t)
            with self.when(self.negated(short)), self.each("p", 0, "%k", self.lanes) as index:
                p = self.smaller(index, last)
                self.store(self.load(self.at(source, p)), self.at(target, p))
        return self.finish()

    def clash(self, stride: str) -> str:
        """Whether rows ``stride`` apart share sets of the first-level cache."""
        return self.test("eq", self.op("and", stride, WAY // self.size - 1), 0)

    # -- panels of b -----------------------------------------------------------------------

    def pack_all(self) -> str:
        """All panels of b, one after another."""
        self.function(
            "gemm_pack",
            "ptr noalias nocapture readonly %b, i64 %brs, i64 %bcs, i64 %n, i64 %k, "
            "ptr noalias nocapture writeonly %dst", hot=False,
        )
        some = self.logic("and", self.test("sgt", "%n", 0), self.test("sgt", "%k", 0))
        with self.when(some), self.each("j", 0, "%n", self.nr) as j:
            cols = self.smaller(self.op("sub", "%n", j), self.nr)
            b, dst = self.corner("%b", (j, "%bcs")), self.corner("%dst", (j, "%k"))
            self.call("pack", f"ptr {b}, i64 %brs, i64 %bcs, i64 {cols}, i64 %k, ptr {dst}")
        return self.finish()

    def pack(self) -> str:
        """dst[p * NR + j] = b[p, j] for p < k, j < cols, and 0 from there on."""
        self.function(
            "pack",
            "ptr noalias nocapture readonly %b, i64 %brs, i64 %bcs, i64 %cols, i64 %k, "
            "ptr noalias nocapture writeonly %dst",
        )
        code = self.code
        flat, other = code.fresh("flat"), code.fresh("other")
        code.emit(f"br i1 {self.test('eq', '%bcs', 1)}, label %{flat}, label %{other}")
        code.block(flat)
        whole = self.test("eq", "%cols", self.nr)
        with self.when(whole):
            self.copy_rows([""] * self.nv)
        with self.when(self.negated(whole)):
            lefts = [self.op("sub", "%cols", j * self.lanes) for j in range(self.nv)]
            self.copy_rows([self.lane_mask(left) for left in lefts])
        code.emit("ret void")
        code.block(other)
        with self.when(self.test("ne", "%cols", self.nr)):
            end = self.op("mul", "%k", self.nr)
            with self.each("z", 0, end, self.lanes) as z:
                self.store("zeroinitializer", self.at("%dst", z))
        self.pack_columns()
        return self.finish()

    def copy_rows(self, masks: list[str]) -> None:
        """Rows of b of unit stride, vector by vector."""
        loop = self.loop("p", 0, [("%b", "ptr"), ("%dst", "ptr")])
        source, target = loop.values
        for j, mask in enumerate(masks):
            place = self.at(source, j * self.lanes)
            value = self.masked_load(place, mask) if mask else self.load(place)
            self.store(value, self.at(target, j * self.lanes))
        following = self.op("add", loop.index, 1)
        new = [self.at(source, "%brs"), self.at(target, self.nr)]
        loop.close(following, self.test("slt", following, "%k"), new)

    def pack_columns(self) -> None:
        """Columns that are contiguous along k: squares of lanes x lanes are transposed in
        registers, the last ones where they end with the matrix and overlap those before.  All
        others go element by element."""
        code = self.code
        square = self.logic(
            "and", self.test("eq", "%brs", 1), self.test("sge", "%cols", self.lanes),
            self.test("sge", "%k", self.lanes),
        )
        last_col, last_p = (self.op("sub", x, self.lanes) for x in ("%cols", "%k"))
        blocks, elements, done = code.fresh("blocks"), code.fresh("elements"), code.fresh("done")
        code.emit(f"br i1 {square}, label %{blocks}, label %{elements}")
        code.block(blocks)
        with self.each("j", 0, "%cols", self.lanes) as index:
            j = self.smaller(index, last_col)
            column, place = self.corner("%b", (j, "%bcs")), self.at("%dst", j)
            with self.each("p", 0, "%k", self.lanes) as index:
                p = self.smaller(index, last_p)
                self.transpose_block(self.at(column, p), self.corner(place, (p, self.nr)))
        code.emit(f"br label %{done}")
        code.block(elements)
        with self.each("p", 0, "%k", 1) as p:
            row, target = self.corner("%b", (p, "%brs")), self.corner("%dst", (p, self.nr))
            with self.each("j", 0, "%cols", 1) as j:
                value = self.load(self.corner(row, (j, "%bcs")), self.t)
                self.store(value, self.at(target, j), self.t)
        code.emit(f"br label %{done}")
        code.block(done)

    def transpose_block(self, source: str, target: str) -> None:
        """lanes columns of b into as many rows of a panel."""
        vectors = []
        for _ in range(self.lanes):
            vectors.append(self.load(source))
            source = self.at(source, "%bcs")
        for i, value in enumerate(self.transposed(vectors)):
            self.store(value, self.at(target, i * self.nr))

    def transposed(self, rows: list[str]) -> list[str]:
        """The transpose of a square in registers: first squares of 16 bytes within the parts of
        16 bytes that processors shuffle cheaply, then the parts."""
        unit = 16 // self.size
        squares = [rows[i : i + unit] for i in range(0, self.lanes, unit)]
        squares = [self.interleaved(s, 1, unit) for s in squares]
        columns = [self.interleaved(list(s), unit, self.lanes) for s in zip(*squares, strict=True)]
        return [x for group in zip(*columns, strict=True) for x in group]

    def interleaved(self, rows: list[str], unit: int, part: int) -> list[str]:
        """A perfect shuffle of rows, log2 times, which is the transpose: in every ``part`` of a
        row, with ``unit`` elements for one."""
        half, count = len(rows) // 2, part // unit
        picks: list[list[int]] = []
        for first in (0, count // 2):
            places: list[int] = []
            for start in range(0, self.lanes, part):
                for i in range(first, first + count // 2):
                    for other in (0, self.lanes):
                        begin = other + start + i * unit
                        places += range(begin, begin + unit)
            picks.append(places)
        for _ in range(len(rows).bit_length() - 1):
            pairs = [(rows[i], rows[i + half]) for i in range(half)]
            rows = [self.shuffle(x, y, which) for x, y in pairs for which in picks]
        return rows
