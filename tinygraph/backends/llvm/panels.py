"""Register tiles: c (+)= a @ b, one panel of columns of b after another."""

from __future__ import annotations

from tinygraph.backends.llvm.scalar import store_first
from tinygraph.backends.llvm.tiles import Writer

KC = 256  # elements of k in a block: so much of a panel of b is half a first-level cache

# How many rows the next tile gets when 0 to 9 (or more) are left: sixes, but 4 + 3 and 4 + 4, as
# a tile of fewer than four rows would leave the multipliers idle between dependent sums.
TILE_ROWS = (0, 1, 2, 3, 4, 5, 6, 4, 4, 6)
LONG = 64  # from such a k on it is worth fetching c beforehand
# Rows of b between a load and the prefetch for a later one, where b is read once.
AHEAD = 16

A = "ptr noalias nocapture readonly %a, i64 %ars, i64 %acs, "
B = "ptr noalias nocapture readonly %b, i64 %brs, i64 %bcs, "
C = "ptr noalias nocapture %c, i64 %crs, i64 %ccs, "
PANELS = "ptr noalias nocapture readonly %b, "  # packed


class Panels(Writer):
    """Writes the products of rows of a with panels of b.

    In all of them k >= 1.  Within a block of KC an element of c is summed in the order of k.
    """

    # -- one panel -------------------------------------------------------------------------

    def panel(self, nv: int) -> str:
        """All rows of c times one panel of at most nv vectors of columns, 1 <= k <= KC.

        b is read in whole vectors.  ``strips``: the rows of a were copied by ``strips``.  While
        the tiles are computed, what will be needed next is fetched: k places from ``ahead`` on in
        the first tile, as many more in the next, for ``turns`` tiles.
        """
        self.function(
            f"panel{nv}",
            f"{A} i1 %strips, ptr noalias nocapture readonly %b, i64 %brs, "
            f"ptr nocapture readonly %ahead, i64 %ahead_step, i64 %turns, {C} "
            "i64 %m, i64 %cols, i64 %k, i1 %acc",
        )
        width = nv * self.lanes
        tile, spare = self.scratch(self.mr * width), self.scratch(width)
        direct = self.logic("and", self.test("eq", "%cols", width), self.test("eq", "%ccs", 1))
        loop = self.loop("row", 0, [("%a", "ptr"), ("%c", "ptr"), ("%ahead", "ptr"),
                                      ("%ahead_step", "i64"), ("%turns", "i64")])
        a, c, ahead, ahead_step, turns = loop.values
        count = self.tile_rows(self.op("sub", "%m", loop.index))
        place = self.pick(direct, c, tile, "ptr"), self.pick(direct, "%crs", width)
        adding = self.logic("and", "%acc", direct)
        self.tiles(nv, a, count, place, spare, adding, (ahead, ahead_step))
        with self.when(self.negated(direct)):
            self.call("flush", f"ptr {tile}, i64 {width}, ptr {c}, i64 %crs, i64 %ccs, "
                      f"i64 {count}, i64 %cols, i1 %acc")
        following, turns = self.op("add", loop.index, count), self.op("sub", turns, 1)
        more = self.test("sgt", turns, 0)
        ahead = self.pick(more, self.corner(ahead, ("%k", ahead_step)), "%b", "ptr")
        step = self.pick("%strips", "%k", "%ars")
        new = [self.corner(a, (count, step)), self.corner(c, (count, "%crs")), ahead,
               self.pick(more, ahead_step, "%brs"), turns]
        loop.close(following, self.test("slt", following, "%m"), new)
        return self.finish()

    def heights(self, nv: int) -> list[int]:
        """The rows of the tiles there are.  One of fewer rows would not be faster."""
        return [h for h in (2, 4) if nv * h >= 8 and nv == self.nv] + [self.mr]

    def tiles(
        self, nv: int, a: str, count: str, c: tuple[str, str], spare: str, add: str,
        ahead: tuple[str, str]
    ) -> None:
        """The tile of ``count`` rows, or the next higher one there is, whose last rows then are
        computed again and go to ``spare``."""
        ars, acs = self.pick("%strips", 1, "%ars"), self.pick("%strips", count, "%acs")
        row = [("%b", j * self.lanes) for j in range(nv)]
        code, heights = self.code, self.heights(nv)
        join = code.fresh("join")
        least = 1
        for height in heights:
            take, skip = code.fresh("tile"), code.fresh("higher")
            if height < self.mr:
                fits = self.test("sle", count, height)
                code.emit(f"br i1 {fits}, label %{take}, label %{skip}")
                code.block(take)
            a_rows, c_rows = [a], [c[0]]
            for r in range(1, height):
                next_a, next_c = self.at(a_rows[-1], ars), self.at(c_rows[-1], c[1])
                if r >= least:
                    there = self.test("sgt", count, r)
                    next_a = self.pick(there, next_a, a_rows[-1], "ptr")
                    next_c = self.pick(there, next_c, spare, "ptr")
                a_rows.append(next_a)
                c_rows.append(next_c)
            self.tile(self.frozen(a_rows), self.frozen(c_rows), row, acs, "%brs", add, "%k", ahead)
            code.emit(f"br label %{join}")
            least = height + 1
            if height < self.mr:
                code.block(skip)
        code.block(join)

    def tile_rows(self, left: str) -> str:
        """How many of the ``left`` rows the next tile takes."""
        table = sum(rows << 4 * i for i, rows in enumerate(TILE_ROWS))
        shift = self.op("mul", self.smaller(left, len(TILE_ROWS) - 1), 4)
        return self.op("and", self.op("lshr", str(table), shift), 15)

    # -- one tile --------------------------------------------------------------------------

    def tile(
        self,
        a_rows: list[str],
        c_rows: list[str],
        row: list[tuple[str, int]],
        acs: str,
        brs: str,
        add: str,
        depth: str,
        ahead: tuple[str, str] | None = None,
    ) -> None:
        """Rows of c by the vectors of ``row``, held in registers over ``depth`` rows of b.

        ``row``: where its vectors begin, as (start, offset).
        ``ahead``: where the places begin that are fetched one by one, and how far apart they are;
        without it b is fetched AHEAD rows before it is read.
        """
        places = [self.at(x, j * self.lanes) for x in c_rows for j in range(len(row))]
        if ahead:
            with self.when(self.test("sge", depth, LONG)):
                for x in c_rows:
                    self.prefetch(x, 3, write=True)
                    self.prefetch(self.at(x, len(row) * self.lanes - 1), 3, write=True)
        first = ahead[0] if ahead else "null"
        zeros = [("zeroinitializer", self.v)] * len(places)
        loop = self.loop("k", depth, [*zeros, (first, "ptr"), ("0", "i64"), ("0", "i64")])
        *sums, fetched, a_offset, b_offset = loop.values
        starts = {start: self.at(start, b_offset) for start, _ in row}
        if ahead:
            self.prefetch(fetched, 2)
            fetched = self.at(fetched, ahead[1])
        else:
            for start in starts.values():
                self.prefetch(self.at(start, self.op("mul", brs, AHEAD)), 2)
        vectors = [self.load(self.at(starts[start], offset)) for start, offset in row]
        new = self.products([self.at(x, a_offset) for x in a_rows], vectors, sums)
        following = self.op("sub", loop.index, 1)
        offsets = [self.op("add", a_offset, acs), self.op("add", b_offset, brs)]
        loop.close(following, self.test("ne", following, 0), [*new, fetched, *offsets])
        self.write(new, places, add)

    def products(self, elements: list[str], vectors: list[str], sums: list[str]) -> list[str]:
        """The sums, and every element times every vector.

        Whichever are fewer stay in registers, so that one more register is enough for the others.
        """
        every = [self.splat(self.load(x, self.t)) for x in elements]
        count, new = len(vectors), [""] * len(sums)
        if count <= len(every):
            order = [(r, j) for r in range(len(every)) for j in range(count)]
        else:
            order = [(r, j) for j in range(count) for r in range(len(every))]
        for r, j in order:
            new[r * count + j] = self.fused(every[r], vectors[j], sums[r * count + j])
        return new

    def rows(self, start: str, stride: str, count: int) -> list[str]:
        """Pointers to ``count`` rows."""
        pointers = [start]
        for _ in range(1, count):
            pointers.append(self.at(pointers[-1], stride))
        return self.frozen(pointers)

    def frozen(self, pointers: list[str]) -> list[str]:
        """The pointers; LLVM would otherwise compute them anew from one another in every round."""
        return [self.code.value(f"freeze ptr {p}") for p in pointers]

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
        with self.when(straight), self.each("j", 0, "%cols", self.lanes) as j:
            left = self.smaller(self.op("sub", "%cols", j), self.lanes)
            mask, source, target = self.lane_mask(left), self.at("%tile", j), self.at("%c", j)
            with self.each("i", 0, "%rows", 1) as i:
                new = self.load(self.corner(source, (i, "%width")))
                self.put(new, self.corner(target, (i, "%crs")), left, mask, "%acc")
        with self.when(self.negated(straight)), self.each("i", 0, "%rows", 1) as i:
            source, target = self.corner("%tile", (i, "%width")), self.corner("%c", (i, "%crs"))
            with self.each("j", 0, "%cols", 1) as j:
                place, new = self.corner(target, (j, "%ccs")), self.load(self.at(source, j), self.t)
                total = self.add(self.load(place, self.t), new, self.t)
                self.store(self.pick("%acc", total, new, self.t), place, self.t)
        return self.finish()

    def put(self, new: str, place: str, count: str, mask: str, add: str) -> None:
        """Store the first ``count`` lanes, those of ``mask``; on top of what was if ``add``."""
        some = self.code.value(f"select i1 {add}, {self.mask} {mask}, {self.mask} zeroinitializer")
        total = self.add(self.masked_load(place, some), new)
        final = self.pick(add, total, new, self.v)
        if self.target.mask_registers:
            self.masked_store(final, place, mask)
        else:
            tails = [f", align {self.size}"]
            store_first(self.code, self.t, self.lanes, count, [final], [place], tails)
