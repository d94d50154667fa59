"""Products with few rows: the time goes into reading b, and into getting started."""

from __future__ import annotations

from tinygraph.backends.llvm.panels import KC, PANELS, A, Panels

FEW = 3  # most rows
STREAM = 4096  # bytes of a row of sums in ``stream``

FLAT = "ptr noalias nocapture readonly %b, i64 %brs, "
STRAIGHT = "ptr noalias nocapture %c, i64 %crs, "
SIZES = "i64 %m, i64 %n, i64 %k, i1 %acc"


class Rows(Panels):
    """Writes products with up to FEW rows; c has unit stride along n, b too or it is packed.

    Every element of c is summed in the same order as in ``panel``.
    """

    # -- packed b --------------------------------------------------------------------------

    @property
    def wide_panels(self) -> int:
        """How many panels at once keep the multipliers busy with one row, where one panel would
        not: eight sums in flight."""
        return 8 // self.nv

    def wide(self) -> str:
        """One row of c times packed panels, n columns: a multiple of those taken at once."""
        self.function("wide", f"{A} {PANELS} {STRAIGHT} {SIZES}")
        step = self.op("mul", "%k", self.nr)
        with self.each("p", 0, "%k", KC) as p:
            depth = self.smaller(self.op("sub", "%k", p), KC)
            a = self.corner("%a", (p, "%acs"))
            later = self.logic("or", "%acc", self.test("sgt", p, 0))
            loop = self.loop("j", 0, [(self.corner("%b", (p, self.nr)), "ptr"), ("%c", "ptr")])
            b, c = loop.values
            starts = [b]
            for _ in range(1, self.wide_panels):
                starts.append(self.at(starts[-1], step))
            row = [(start, j * self.lanes) for start in starts for j in range(self.nv)]
            self.tile(self.frozen([a]), self.frozen([c]), row, "%acs", str(self.nr), later, depth)
            following = self.op("add", loop.index, self.wide_panels * self.nr)
            new = [self.at(starts[-1], step), self.at(c, self.wide_panels * self.nr)]
            loop.close(following, self.test("slt", following, "%n"), new)
        return self.finish()

    # -- long rows of b --------------------------------------------------------------------

    def stream(self) -> str:
        """Few rows of c times a b that is read once and in order, while the sums of a block of k
        wait in a buffer.  n is a multiple of lanes."""
        self.function("stream", f"{A} {FLAT} {STRAIGHT} {SIZES}")
        most = STREAM // self.size
        sums = self.scratch(FEW * most)
        with self.each("j", 0, "%n", most) as j:
            cols = self.smaller(self.op("sub", "%n", j), most)
            b, c = self.at("%b", j), self.at("%c", j)
            with self.each("p", 0, "%k", KC) as p:
                end = self.smaller("%k", self.op("add", p, KC))
                with self.each("z", 0, self.op("mul", "%m", most), self.lanes) as z:
                    self.store("zeroinitializer", self.at(sums, z))
                middle = self.op("add", p, self.op("and", self.op("sub", end, p), -4))
                for start, stop, count in ((p, middle, 4), (middle, end, 1)):
                    some = self.test("slt", start, stop)
                    with self.when(some), self.each("p", start, stop, count) as q:
                        self.stream_rows(q, count, self.corner(b, (q, "%brs")), sums, cols)
                later = self.logic("or", "%acc", self.test("sgt", p, 0))
                self.drain(sums, c, cols, later)
        return self.finish()

    def stream_rows(self, p: str, count: int, b: str, sums: str, cols: str) -> None:
        """Add the products with ``count`` rows of b to the sums of every row of c."""
        rows = self.rows(b, "%brs", count)
        with self.each("i", 0, "%m", 1) as i:
            start = self.corner("%a", (i, "%ars"), (p, "%acs"))
            line = self.corner(sums, (i, STREAM // self.size))
            every = [self.splat(self.load(x, self.t)) for x in self.rows(start, "%acs", count)]
            with self.each("j", 0, cols, self.lanes) as j:
                place = self.at(line, j)
                total = self.load(place)
                for x, row in zip(every, rows, strict=True):
                    total = self.fused(x, self.load(self.at(row, j)), total)
                self.store(total, place)

    def drain(self, sums: str, c: str, cols: str, later: str) -> None:
        """Move the sums to c, on top of what is there if ``later``."""
        with self.each("i", 0, "%m", 1) as i:
            row, place = self.corner(sums, (i, STREAM // self.size)), self.corner(c, (i, "%crs"))
            with self.each("j", 0, cols, self.lanes) as j:
                self.write([self.load(self.at(row, j))], [self.at(place, j)], later)

    # -- small products ----------------------------------------------------------------------

    def slim(self) -> str:
        """Few rows and columns: no copies, no blocks but those of the sums, one vector a time."""
        self.function("slim", f"{A} {FLAT} {STRAIGHT} {SIZES}")
        with self.each("j", 0, "%n", self.lanes) as j:
            left = self.smaller(self.op("sub", "%n", j), self.lanes)
            mask = self.lane_mask(left)
            b, c = self.at("%b", j), self.at("%c", j)
            with self.each("i", 0, "%m", 1) as i, self.each("p", 0, "%k", KC) as p:
                depth = self.smaller(self.op("sub", "%k", p), KC)
                a = self.corner("%a", (i, "%ars"), (p, "%acs"))
                later = self.logic("or", "%acc", self.test("sgt", p, 0))
                start = [(a, "ptr"), (self.corner(b, (p, "%brs")), "ptr")]
                loop = self.loop("p", depth, [("zeroinitializer", self.v), *start])
                total, x, y = loop.values
                every = self.splat(self.load(x, self.t))
                total = self.fused(every, self.masked_load(y, mask), total)
                following = self.op("sub", loop.index, 1)
                new = [total, self.at(x, "%acs"), self.at(y, "%brs")]
                loop.close(following, self.test("ne", following, 0), new)
                self.put(total, self.corner(c, (i, "%crs")), left, mask, later)
        return self.finish()
