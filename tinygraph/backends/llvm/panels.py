"""Register tiles: c (+)= a @ b on one panel of columns, or on few rows of many."""

from __future__ import annotations

from tinygraph.backends.llvm.scalar import store_first
from tinygraph.backends.llvm.tiles import Writer

# How many rows the next tile gets when 0 to 14 (or more) are left: sixes, but so that no tile of
# fewer than four rows remains, as it would leave the multipliers idle between dependent sums.
TILE_ROWS = (0, 1, 2, 3, 4, 5, 6, 4, 4, 5, 6, 6, 6, 5, 6)
KC = 256  # elements of k in a block
STREAM = 4096  # bytes of a row of sums in ``stream``
A = "ptr noalias nocapture readonly %a, i64 %ars, i64 %acs, "
C = "ptr noalias nocapture %c, i64 %crs, i64 %ccs, "


class Panels(Writer):
    """Writes the products of rows of a with panels of b.

    In all of them k >= 1, and every element of c is the sum over k in order.
    """

    # -- one panel -------------------------------------------------------------------------

    def panel(self, nv: int) -> str:
        """All rows of c times one panel of at most nv vectors of columns, k >= 1.

        b is read in whole vectors.  ``strips``: the rows of a were copied by ``strips``.
        """
        self.function(
            f"panel{nv}",
            f"{A} i1 %strips, ptr noalias nocapture readonly %b, i64 %brs, "
            f"ptr nocapture readonly %ahead, i64 %ahead_step, {C} "
            "i64 %m, i64 %cols, i64 %k, i1 %acc",
        )
        code = self.code
        tile = self.scratch(self.mr * nv * self.lanes)
        direct = self.logic(
            "and", self.test("eq", "%cols", nv * self.lanes), self.test("eq", "%ccs", 1)
        )
        add = self.logic("and", "%acc", direct)
        crs = self.pick(direct, "%crs", nv * self.lanes)
        step = self.pick("%strips", "%k", "%ars")
        ars = self.pick("%strips", 1, "%ars")
        ahead = [("%ahead", "ptr"), ("%ahead_step", "i64")]
        loop = self.loop("row", 0, [("%a", "ptr"), ("%c", "ptr"), *ahead])
        a, c, *ahead = loop.values
        place = self.pick(direct, c, tile, "ptr")
        count = self.tile_rows(self.op("sub", "%m", loop.index))
        join, labels = code.fresh("join"), [code.fresh("tile") for _ in range(self.mr)]
        cases = " ".join(f"i64 {i + 1}, label %{x}" for i, x in enumerate(labels[:-1]))
        code.emit(f"switch i64 {count}, label %{labels[-1]} [ {cases} ]")
        for rows, label in enumerate(labels, 1):
            code.block(label)
            acs = self.pick("%strips", rows, "%acs")
            self.tile(rows, self.row(nv, "%b"), (a, ars, acs), "%brs", (place, crs), add, "%k", ahead)
            code.emit(f"br label %{join}")
        code.block(join)
        with self.when(self.negated(direct)):
            self.call("flush", f"ptr {tile}, i64 {nv * self.lanes}, ptr {c}, i64 %crs, i64 %ccs, "
                      f"i64 {count}, i64 %cols, i1 %acc")
        following = self.op("add", loop.index, count)
        new = [self.corner(a, (count, step)), self.corner(c, (count, "%crs")), "%b", "%brs"]
        loop.close(following, self.test("slt", following, "%m"), new)
        return self.finish()

    def tile_rows(self, left: str) -> str:
        """How many of the ``left`` rows the next tile takes."""
        table = sum(rows << 4 * i for i, rows in enumerate(TILE_ROWS))
        shift = self.op("mul", self.smaller(left, len(TILE_ROWS) - 1), 4)
        return self.op("and", self.op("lshr", str(table), shift), 15)

    def row(self, nv: int, b: str, step: str = "", panels: int = 1) -> list[tuple[str, int]]:
        """Where the vectors of a row of b begin: (start, offset), in ``panels`` panels that are
        ``step`` elements apart."""
        starts = [b]
        for _ in range(1, panels):
            starts.append(self.at(starts[-1], step))
        return [(start, j * self.lanes) for start in starts for j in range(nv)]

    def tile(
        self,
        mr: int,
        row: list[tuple[str, int]],
        a: tuple[str, str, str],
        brs: str,
        c: tuple[str, str],
        add: str,
        depth: str = "%k",
        ahead: tuple[str, str] = (),
    ) -> None:
        """mr rows of c by the vectors of ``row``, held in registers over the whole of k."""
        nv = len(row)
        a_rows, c_rows = self.rows(a[0], a[1], mr), self.rows(c[0], c[1], mr)
        zeros = [("zeroinitializer", self.v)] * (mr * nv)
        if ahead: zeros.append((ahead[0], "ptr"))
        loop = self.loop("k", 0, [*zeros, ("0", "i64"), ("0", "i64")])
        *sums, a_offset, b_offset = loop.values
        if ahead:
            pf = sums.pop()
            self.code.emit(f"call void @llvm.prefetch.p0(ptr {pf}, i32 0, i32 2, i32 1)")
        vectors = []
        if not ahead:
            for start in dict.fromkeys(x for x, _ in row):
                pf = self.at(self.at(start, b_offset), self.op("mul", brs, 16))
                self.code.emit(f"call void @llvm.prefetch.p0(ptr {pf}, i32 0, i32 2, i32 1)")
        for start, offset in row:
            vectors.append(self.load(self.at(self.at(start, b_offset), offset)))
        new = [""] * (mr * nv)
        every = [self.splat(self.load(self.at(x, a_offset), self.t)) for x in a_rows]
        order = [(r, j) for r in range(mr) for j in range(nv)]
        for r, j in sorted(order, key=lambda x: x if nv <= mr else x[::-1]):
            new[r * nv + j] = self.fused(every[r], vectors[j], sums[r * nv + j])
        following = self.op("add", loop.index, 1)
        offsets = [self.op("add", a_offset, a[2]), self.op("add", b_offset, brs)]
        fetched = [self.at(pf, ahead[1])] if ahead else []
        loop.close(following, self.test("slt", following, depth), [*new, *fetched, *offsets])
        places = [self.at(c_rows[r], j * self.lanes) for r in range(mr) for j in range(nv)]
        self.write(new, places, add)

    def rows(self, start: str, stride: str, count: int) -> list[str]:
        """Pointers to ``count`` rows."""
        pointers = [start]
        for _ in range(1, count):
            pointers.append(self.at(pointers[-1], stride))
        return pointers

    def write(self, totals: list[str], places: list[str], add: str) -> None:
        """Store the sums, on top of what is there if ``add``."""
        code = self.code
        more, put, done = code.fresh("add"), code.fresh("put"), code.fresh("done")
        code.emit(f"br i1 {add}, label %{more}, label %{put}")
        code.block(more)
        for total, place in zip(totals, places, strict=True):
            self.store(self.add(self.load(place), total), place)
        code.emit(f"br label %{done}")
        code.block(put)
        for total, place in zip(totals, places, strict=True):
            self.store(total, place)
        code.emit(f"br label %{done}")
        code.block(done)

    # -- the last columns, and c without unit stride -----------------------------------------

    def flush(self) -> str:
        """Move rows x cols finished elements from a tile, whose rows are ``width`` apart, to c."""
        self.function(
            "flush",
            f"ptr noalias nocapture readonly %tile, i64 %width, {C} i64 %rows, i64 %cols, i1 %acc",
        )
        straight = self.test("eq", "%ccs", 1)
        with self.each("i", 0, "%rows", 1) as i:
            source, target = self.corner("%tile", (i, "%width")), self.corner("%c", (i, "%crs"))
            with self.when(straight):
                self.flush_row(source, target)
            with self.when(self.negated(straight)), self.each("j", 0, "%cols", 1) as j:
                place, new = self.corner(target, (j, "%ccs")), self.load(self.at(source, j), self.t)
                total = self.add(self.load(place, self.t), new, self.t)
                self.store(self.pick("%acc", total, new, self.t), place, self.t)
        return self.finish()

    def flush_row(self, source: str, target: str) -> None:
        """One row of which c has unit stride: vectors, then what is left of one."""
        code = self.code
        with self.each("j", 0, "%cols", self.lanes) as j:
            new, place = self.load(self.at(source, j)), self.at(target, j)
            left = self.smaller(self.op("sub", "%cols", j), self.lanes)
            mask = self.lane_mask(left)
            old = code.value(
                f"select i1 %acc, {self.mask} {mask}, {self.mask} zeroinitializer")
            total = self.add(self.masked_load(place, old), new)
            final = self.pick("%acc", total, new, self.v)
            if self.target.mask_registers:
                self.masked_store(final, place, mask)
            else:
                tails = [f", align {self.size}"]
                store_first(code, self.t, self.lanes, left, [final], [place], tails)

    # -- few rows --------------------------------------------------------------------------

    @property
    def wide_panels(self) -> dict[int, int]:
        """How many panels at once keep the multipliers busy for 1, 2 or 3 rows, where one panel
        would not: at least eight sums in flight."""
        counts = {rows: max(1, 8 // (rows * self.nv)) for rows in (1, 2)}
        counts[3] = 2 if self.nv == 2 else 1
        return {rows: count for rows, count in counts.items() if count > 1}

    def wide(self) -> str:
        """1, 2 or 3 rows of c times packed panels, n columns in all: a multiple of those that are
        taken at once."""
        self.function(
            "wide",
            f"{A} ptr noalias nocapture readonly %b, "
            "ptr noalias nocapture %c, i64 %crs, i64 %m, i64 %n, i64 %k, i1 %acc",
        )
        step = self.op("mul", "%k", self.nr)
        for rows, panels in self.wide_panels.items():
            with self.when(self.test("eq", "%m", rows)):
                loop = self.loop("j", 0, [("%b", "ptr"), ("%c", "ptr")])
                b, c = loop.values
                with self.each("p", 0, "%k", KC) as p:
                    depth = self.smaller(self.op("sub", "%k", p), KC)
                    a = self.corner("%a", (p, "%acs"))
                    row = self.row(self.nv, self.corner(b, (p, self.nr)), step, panels)
                    later = self.logic("or", "%acc", self.test("sgt", p, 0))
                    self.tile(rows, row, (a, "%ars", "%acs"), str(self.nr), (c, "%crs"), later, depth)
                following = self.op("add", loop.index, panels * self.nr)
                new = [self.corner(b, (panels, step)), self.at(c, panels * self.nr)]
                loop.close(following, self.test("slt", following, "%n"), new)
        return self.finish()

    def stream(self) -> str:
        """Few rows of c times a b with rows of unit stride, which is read once and in order: the
        sums of a block of k wait in a buffer.  n is a multiple of lanes."""
        b, c = "ptr noalias nocapture readonly %b, i64 %brs, ", "ptr noalias nocapture %c, i64 %crs, "
        self.function("stream", f"{A} {b} {c} i64 %m, i64 %n, i64 %k, i1 %acc")
        most = STREAM // self.size
        sums = self.scratch(3 * most)
        with self.each("j", 0, "%n", most) as j:
            cols = self.smaller(self.op("sub", "%n", j), most)
            with self.each("p", 0, "%k", KC) as p:
                end = self.smaller("%k", self.op("add", p, KC))
                b, later = self.at("%b", j), self.logic("or", "%acc", self.test("sgt", p, 0))
                with self.each("z", 0, self.op("mul", "%m", most), self.lanes) as z:
                    self.store("zeroinitializer", self.at(sums, z))
                fours = self.op("and", self.op("sub", end, p), -4)
                middle = self.op("add", p, fours)
                for start, stop, count in ((p, middle, 4), (middle, end, 1)):
                    some = self.test("slt", start, stop)
                    with self.when(some), self.each("p", start, stop, count) as q:
                        self.stream_rows(q, count, self.corner(b, (q, "%brs")), sums, cols)
                with self.each("i", 0, "%m", 1) as i:
                    row, place = self.corner(sums, (i, most)), self.corner(self.at("%c", j), (i, "%crs"))
                    with self.each("j", 0, cols, self.lanes) as x:
                        new, target = self.load(self.at(row, x)), self.at(place, x)
                        with self.when(later):
                            self.store(self.add(self.load(target), new), target)
                        with self.when(self.negated(later)):
                            self.store(new, target)
        return self.finish()

    def stream_rows(self, p: str, count: int, b: str, sums: str, cols: str) -> None:
        """Add the products with ``count`` rows of b to the sums of every row of c."""
        rows = self.rows(b, "%brs", count)
        with self.each("i", 0, "%m", 1) as i:
            start, line = self.corner("%a", (i, "%ars"), (p, "%acs")), self.corner(sums, (i, STREAM // self.size))
            every = [self.splat(self.load(x, self.t)) for x in self.rows(start, "%acs", count)]
            with self.each("j", 0, cols, self.lanes) as j:
                place = self.at(line, j)
                total = self.load(place)
                for x, row in zip(every, rows, strict=True):
                    total = self.fused(x, self.load(self.at(row, j)), total)
                self.store(total, place)
