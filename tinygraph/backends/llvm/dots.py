"""Dot products: c (+)= a @ b where a and b are contiguous along k."""

from __future__ import annotations

from tinygraph.backends.llvm.packing import Packing
from tinygraph.backends.llvm.panels import A, C

DEPTH = 2048  # bytes of a row of a that are multiplied before the sums go to c
SIDE = 4  # columns of a tile
BLOCK = 96  # rows of a that stay in the second-level cache


class Dots(Packing):
    """Writes products with vectors along k.

    Every element of c is the sum over blocks of DEPTH bytes of sums of ``lanes`` partial sums.
    """

    def dots(self) -> str:
        """Tiles of 3 or 1 rows by SIDE columns; rows and columns past the end repeat the last."""
        self.function(
            "dots",
            f"{A} ptr noalias nocapture readonly %b, i64 %bcs, {C} "
            "i64 %m, i64 %n, i64 %k, i1 %acc",
        )
        most = DEPTH // self.size
        width = most + self.lanes
        space, few = self.scratch(BLOCK * width), self.scratch(SIDE * width)
        many = self.logic("and", self.test("sge", "%m", 12), self.test("sge", "%n", 16))
        with self.each("p", 0, "%k", most) as p:
            depth = self.smaller(self.op("sub", "%k", p), most)
            whole = self.op("and", depth, -self.lanes)
            tail = self.lane_mask(self.op("sub", depth, whole))
            later = self.logic("or", "%acc", self.test("sgt", p, 0))
            with self.each("i", 0, "%m", BLOCK) as i:
                rows = self.smaller(self.op("sub", "%m", i), BLOCK)
                a = self.corner(self.at("%a", p), (i, "%ars"))
                c = self.corner("%c", (i, "%crs"))
                a, ars = self.spread((a, "%ars"), rows, depth, many, (space, width))
                with self.each("j", 0, "%n", SIDE) as j:
                    b = self.corner(self.at("%b", p), (j, "%bcs"))
                    cols = self.smaller(self.op("sub", "%n", j), SIDE)
                    b, bcs = self.spread((b, "%bcs"), cols, depth, many, (few, width))
                    place = self.corner(c, (j, "%ccs"))
                    self.column_group((a, ars), (b, bcs), place, (rows, cols),
                                      (whole, depth, tail, later))
        return self.finish()

    def spread(
        self, rows: tuple[str, str], count: str, depth: str, many: str, space: tuple[str, int]
    ) -> tuple[str, str]:
        """Rows and their distance: copies if they are used often and share cache sets."""
        (start, stride), (buffer, width) = rows, space
        clash = self.logic("and", many, self.clash(stride))
        with self.when(clash):
            self.call("copy", f"ptr {start}, i64 {stride}, i64 {count}, i64 {depth}, "
                      f"ptr {buffer}, i64 {width}")
        return self.pick(clash, buffer, start, "ptr"), self.pick(clash, width, stride)

    def column_group(
        self, a: tuple[str, str], b: tuple[str, str], c: str, sizes: tuple[str, str],
        block: tuple[str, str, str, str],
    ) -> None:
        """All rows of up to SIDE columns."""
        code, (rows, cols) = self.code, sizes
        loop = self.loop("i", 0, [(a[0], "ptr"), (c, "ptr")])
        row, place = loop.values
        left = self.op("sub", rows, loop.index)
        many, one, join = code.fresh("many"), code.fresh("one"), code.fresh("join")
        several = self.test("sgt", left, 1)
        code.emit(f"br i1 {several}, label %{many}, label %{one}")
        for height, label in ((3, many), (1, one)):
            code.block(label)
            a_rows = self.repeated(row, a[1], height, left)
            self.dot_tile(a_rows, self.repeated(b[0], b[1], SIDE, cols), place, (left, cols), block)
            code.emit(f"br label %{join}")
        code.block(join)
        step = self.pick(several, 3, 1)
        following = self.op("add", loop.index, step)
        new = [self.corner(row, (step, a[1])), self.corner(place, (step, "%crs"))]
        loop.close(following, self.test("slt", following, rows), new)

    def repeated(self, start: str, stride: str, count: int, present: str) -> list[str]:
        """Pointers to ``count`` rows; rows from ``present`` on repeat the last one."""
        pointers = [start]
        for r in range(1, count):
            step = self.pick(self.test("sgt", present, r), stride, 0)
            pointers.append(self.at(pointers[-1], step))
        return pointers

    def dot_tile(
        self, a_rows: list[str], b_cols: list[str], c: str, present: tuple[str, str],
        block: tuple[str, str, str, str],
    ) -> None:
        """The products of all ``a_rows`` with all ``b_cols``."""
        code, (left, cols), rows = self.code, present, len(a_rows)
        whole, depth, mask, later = block
        sums = self.dot_loop(a_rows, b_cols, whole)
        before, tail, ready = code.label, code.fresh("tail"), code.fresh("ready")
        code.emit(f"br i1 {self.test('slt', whole, depth)}, label %{tail}, label %{ready}")
        code.block(tail)
        more = self.dot_step(a_rows, b_cols, whole, sums, mask)
        code.emit(f"br label %{ready}")
        code.block(ready)
        sums = [
            code.value(f"phi {self.v} [ {x}, %{before} ], [ {y}, %{tail} ]")
            for x, y in zip(sums, more, strict=True)
        ]
        totals = [x for r in range(rows) for x in self.sums(sums[r * SIDE : (r + 1) * SIDE])]
        starts = self.repeated(c, "%crs", rows, left)
        places = [p for row in starts for p in self.repeated(row, "%ccs", SIDE, cols)]
        # All loads come before all stores, since places may be repeated.
        olds = [self.load(p, self.t) for p in places]
        finals = [
            self.pick(later, self.add(old, x, self.t), x, self.t)
            for old, x in zip(olds, totals, strict=True)
        ]
        for value, place in zip(finals, places, strict=True):
            self.store(value, place, self.t)

    def dot_loop(self, a_rows: list[str], b_cols: list[str], whole: str) -> list[str]:
        """The partial sums over the whole vectors of k, if any."""
        code = self.code
        count = len(a_rows) * len(b_cols)
        head, tail, start = code.fresh("head"), code.fresh("tail"), code.label
        code.emit(f"br i1 {self.test('sgt', whole, 0)}, label %{head}, label %{tail}")
        code.block(head)
        loop = self.loop("k", 0, [("zeroinitializer", self.v)] * count)
        new = self.dot_step(a_rows, b_cols, loop.index, loop.values, "")
        following = self.op("add", loop.index, self.lanes)
        loop.close(following, self.test("slt", following, whole), new)
        after = code.label
        code.emit(f"br label %{tail}")
        code.block(tail)
        return [
            code.value(f"phi {self.v} [ zeroinitializer, %{start} ], [ {x}, %{after} ]")
            for x in new
        ]

    def dot_step(
        self, a_rows: list[str], b_cols: list[str], p: str, sums: list[str], mask: str
    ) -> list[str]:
        """The sums after one more vector of k."""
        def vector(start: str) -> str:
            place = self.at(start, p)
            return self.masked_load(place, mask) if mask else self.load(place)

        # The vectors of a and one of b at a time: with the sums they just fit 16 registers.
        left, new = [vector(x) for x in a_rows], dict[int, str]()
        for j, start in enumerate(b_cols):
            right = vector(start)
            for r, x in enumerate(left):
                at = r * SIDE + j
                new[at] = self.fused(x, right, sums[at])
        return [new[at] for at in range(len(sums))]

    def sums(self, vectors: list[str]) -> list[str]:
        """The sum of the elements of each vector: halves upon halves, several vectors at once."""
        width, lanes = self.lanes, self.lanes
        order = [[i] for i in range(len(vectors))]
        while width > 1:
            half, new, numbers = width // 2, [], []
            paired = len(vectors) > 1
            for i in range(0, len(vectors), 2 if paired else 1):
                x, y = vectors[i], vectors[i + 1] if paired else "poison"
                groups = range(0, lanes, width)
                sides = (0, lanes) if paired else (0,)
                low = [s + g + e for g in groups for s in sides for e in range(half)]
                parts = [self.shuffle(x, y, [p + at for p in low], lanes) for at in (0, half)]
                kind = f"<{len(low)} x {self.t}>"
                new.append(self.add(parts[0], parts[1], kind))
                others = order[i + 1] if paired else []
                numbers.append([n for pair in zip(order[i], others, strict=True) for n in pair]
                               if paired else order[i])
            lanes = lanes if paired else lanes // 2
            vectors, order, width = new, numbers, half
        kind = f"<{lanes} x {self.t}>"
        totals = {
            n: self.code.value(f"extractelement {kind} {vector}, i32 {i}")
            for vector, numbers in zip(vectors, order, strict=True)
            for i, n in enumerate(numbers)
        }
        return [totals[n] for n in sorted(totals)]
