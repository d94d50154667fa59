"""Matrix products as LLVM vector IR.

``c (+)= a @ b`` for run-time sizes and strides, with b as it is or packed once for many products.
One entry per dtype decides:

1. transpose the problem where that gives c unit stride along n;
2. a and b contiguous along k, and k not short: dot products (``dots``);
3. few rows of a (``rows``): b is read once, in order;
4. everything else: panels of NR columns of b, register tiles of up to MR rows (``panels``), blocks
   of k so that a panel stays in the first-level cache, blocks of rows so that those of a stay in
   the second.  b is copied into a panel if its rows are not contiguous or far apart, a is copied
   if its rows are not contiguous, or fall upon one another in the cache, or are read by many
   panels (``packing``).

An element of c is a sum over k in a fixed order: dot products have one, all other ways share
another, and which of the two it is depends on k and on strides only.  So rows and columns can be
computed apart, by any number of threads, in any tile, from packed or plain b, with equal bits.

Nothing outside the matrices is read or written.

No BLAS is called, for three reasons.  What recurrent networks multiply is faster here: GFLOP/s
of float32 on one core of a Zen 3 (peak 103, machine in use), the OpenBLAS of NumPy's wheel beside
plain and packed b, a transposed where k is 6400:

    (m, n, k)           OpenBLAS  plain  packed
    (8, 512, 128)             43     58      78
    (64, 512, 128)            82     87      91
    (50, 400, 100)            77     88      91
    (64, 2048, 512)           81     86      94
    (64, 512, 6400)           77     81      90
    (512, 512, 6400)          91     89      92
    (1024, 1024, 1024)        92     89      91
    (2048, 2048, 2048)        92     83      88

Results do not depend on how many threads there are.  And no second pool of threads spins beside
tinygraph's own.
"""

from __future__ import annotations

from tinygraph.backends.llvm.dots import Dots
from tinygraph.backends.llvm.panels import KC, PANELS, A, B, C
from tinygraph.backends.llvm.rows import FEW, SIZES
from tinygraph.backends.llvm.tiles import Target, Writer
from tinygraph.dtypes import DType

SPACE = 384 << 10  # bytes of a that are copied, or left to the second-level cache, at a time
# From so many products on dot products beat transposing b.  Measured for (m, n, k) = (64, 512, k),
# GFLOP/s: 70 against 91 at k = 192, 85 each at 512; for (1, 512, k) dots are three times faster.
DOT_K = 256
LARGE = (128, 256)  # rows and columns of c from which, with such a k, a is always copied
COPY_PANELS = 2  # panels of b that make a copy of a worth while
COPY_SIZE = 2048  # elements of a, below which it stays in the first-level cache as it is
PACK_ROWS = 20  # from so many rows on a far-strided b is worth a copy
FAR = 512  # bytes between rows of b


def entry(dtype: DType) -> str:
    """The name of the function that a Gemm of ``dtype`` calls."""
    return f"gemm_{dtype}"


def declaration(dtype: DType) -> str:
    """How a module that calls ``entry(dtype)`` declares it."""
    matrix = "ptr, i64, i64"
    return f"declare void @{entry(dtype)}({matrix}, {matrix}, {matrix}, i64, i64, i64, i1)"


def panel(dtype: DType, target: Target) -> int:
    """NR, the number of columns in a panel of a packed matrix.

    A packed k x n matrix is its panels of NR columns one after another, each k rows of NR elements:
    element (p, j) of panel q is at q*NR*k + p*NR + (j - q*NR).  The last panel is filled up with
    zeros, so that the whole has k * ceil(n/NR) * NR elements.
    """
    return Writer(dtype, target).nr


def packed_entry(dtype: DType) -> str:
    """The name of the product whose b is packed."""
    return f"gemm_packed_{dtype}"


def packed_declaration(dtype: DType) -> str:
    """How a module that calls ``packed_entry(dtype)`` declares it."""
    matrix = "ptr, i64, i64"
    return f"declare void @{packed_entry(dtype)}({matrix}, ptr, {matrix}, i64, i64, i64, i1)"


def pack_entry(dtype: DType) -> str:
    """The name of the function that packs a matrix: (b, brs, bcs, n, k, panels)."""
    return f"gemm_pack_{dtype}"


def pack_declaration(dtype: DType) -> str:
    """How a module that calls ``pack_entry(dtype)`` declares it."""
    return f"declare void @{pack_entry(dtype)}(ptr, i64, i64, i64, i64, ptr)"


def kernels(dtype: DType, target: Target) -> str:
    """A module with ``entry(dtype)``, as text.

    It is written as it shall run: the optimiser only has to be kept away.
    """
    return _Kernels(dtype, target).text()


class _Kernels(Dots):
    """The text of the kernels of one dtype on one target."""

    def text(self) -> str:
        """Every function of the family and the declarations they need."""
        parts = [self.entry(), self.packed_product(), self.clear()]
        parts += [self.blocked("plain"), self.blocked("packed")]
        parts += [self.panel(self.nv), self.panel(self.nv // 2), self.flush()]
        parts += [self.wide(), self.stream(), self.slim(), self.dots()]
        parts += [self.strips(), self.copy(), self.pack_all(), self.pack()]
        return "\n\n".join([*parts, self.declarations()]) + "\n"

    def declarations(self) -> str:
        """The intrinsics and attributes that the functions use."""
        v, mask, name = self.v, self.mask, self.suffix
        return "\n".join(
            [
                f"declare {v} @llvm.masked.load.{name}.p0(ptr, i32, {mask}, {v})",
                f"declare void @llvm.masked.store.{name}.p0({v}, ptr, i32, {mask})",
                "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
                f"attributes #0 = {{ noinline nounwind {self.target.attributes} }}",
                f"attributes #1 = {{ noinline optnone nounwind {self.target.attributes} }}",
            ]
        )

    # -- blocks of k, rows and columns -------------------------------------------------------

    def blocked(self, form: str) -> str:
        """Blocks of k by blocks of rows by panels of columns, for b ``plain`` or ``packed``."""
        plain = form == "plain"
        self.function(form, f"{A} {B if plain else PANELS} {C} {SIZES}", hot=False)
        panel = self.scratch(KC * self.nr) if plain else ""
        width = KC + self.lanes  # of a copied row: neighbours do not share cache sets
        most = SPACE // self.size // width // self.mr * self.mr
        space = self.scratch(most * width)
        first = self.few_rows(plain)
        self.leave_if(self.test("eq", first, "%n"))
        many = self.logic("and", self.test("sge", "%n", COPY_PANELS * self.nr),
                          self.test("sge", self.op("mul", "%m", "%k"), COPY_SIZE))
        steep = self.logic("and", self.test("ne", "%acs", 1), many)
        large = self.logic("and", self.test("sge", "%m", LARGE[0]),
                           self.test("sge", "%n", LARGE[1]), self.test("sge", "%k", KC))
        clash = self.logic("and", self.test("eq", "%acs", 1), many,
                           self.logic("or", large, self.clash("%ars")))
        block = self.block_rows(most)
        with self.each("p", 0, "%k", KC) as p:
            depth = self.smaller(self.op("sub", "%k", p), KC)
            later = self.logic("or", "%acc", self.test("sgt", p, 0))
            with self.each("i", 0, "%m", block) as i:
                rows = self.smaller(self.op("sub", "%m", i), block)
                a = self.corner("%a", (i, "%ars"), (p, "%acs"))
                with self.when(steep):
                    self.call("strips", f"ptr {a}, i64 %ars, i64 %acs, i64 {rows}, i64 {depth}, "
                              f"ptr {space}")
                with self.when(clash):
                    self.call("copy", f"ptr {a}, i64 %ars, i64 {rows}, i64 {depth}, "
                              f"ptr {space}, i64 {width}")
                a = self.pick(self.logic("or", steep, clash), space, a, "ptr")
                ars = self.pick(clash, width, "%ars")
                operand = f"ptr {a}, i64 {ars}, i64 %acs, i1 {steep}"
                c = self.corner("%c", (i, "%crs"))
                self.all_panels(operand, c, (rows, depth, later), (p, first), panel)
        return self.finish()

    def block_rows(self, most: int) -> str:
        """How many rows of a block: all, or even parts, of no more than ``most``."""
        code, before = self.code, self.code.label
        with self.when(self.test("sgt", "%m", most)):
            parts = self.op("sdiv", self.op("add", "%m", most - 1), most)
            unit = self.op("mul", parts, self.mr)
            sixes = self.op("sdiv", self.op("add", "%m", self.op("sub", unit, 1)), unit)
            even, after = self.op("mul", sixes, self.mr), code.label
        return code.value(f"phi i64 [ %m, %{before} ], [ {even}, %{after} ]")

    def few_rows(self, plain: bool) -> str:
        """Few rows have ways of their own.  The first column that these leave."""
        code = self.code
        if plain:
            first = self.op("and", "%n", -self.lanes)
            wide = self.test("sge", "%n", 4 * self.nr)
            enough = self.logic("and", self.test("eq", "%bcs", 1), wide)
        else:
            first = self.op("and", "%n", -self.wide_panels * self.nr)
            enough = self.test("sgt", first, 0)
        few = self.test("sle", "%m", FEW if plain else 1)
        before = code.label
        with self.when(self.logic("and", enough, self.test("eq", "%ccs", 1), few)):
            b, name = ("ptr %b, i64 %brs", "stream") if plain else ("ptr %b", "wide")
            self.call(name, f"ptr %a, i64 %ars, i64 %acs, {b}, ptr %c, i64 %crs, i64 %m, "
                      f"i64 {first}, i64 %k, i1 %acc")
            after = code.label
        return code.value(f"phi i64 [ {first}, %{after} ], [ 0, %{before} ]")

    def all_panels(
        self, a: str, c: str, block: tuple[str, str, str], start: tuple[str, str], panel: str
    ) -> None:
        """Some rows times all panels from column ``start[1]`` and row ``start[0]`` of b on.

        ``panel``: where a panel of a plain b is copied to, or "".
        """
        (rows, depth, later), (p, first) = block, start
        brs, bcs = ("%brs", "%bcs") if panel else (str(self.nr), "%k")
        top = self.corner("%b", (p, brs))
        pace, turns = (brs, "1") if panel else self.pace(rows)
        with self.each("j", first, "%n", self.nr) as j:
            left = self.op("sub", "%n", j)
            cols = self.smaller(left, self.nr)
            b, step = self.corner(top, (j, bcs)), brs
            more = self.test("sgt", left, self.nr)
            # Of a row that lies across two cache lines the first came with the last panel.
            following = self.at(self.corner(top, (self.op("add", j, self.nr), bcs)), self.nr - 1)
            if panel:
                more = self.logic("and", more, self.test("eq", "%bcs", 1))
                b, step = self.copied(b, cols, depth, panel)
            operands = (
                f"{a}, ptr {b}, i64 {step}, ptr {self.pick(more, following, b, 'ptr')}, "
                f"i64 {self.pick(more, pace, step)}, i64 {turns}, "
                f"ptr {self.corner(c, (j, '%ccs'))}, i64 %crs, i64 %ccs, i64 {rows}, "
                f"i64 {cols}, i64 {depth}, i1 {later}"
            )
            narrow = self.test("sle", cols, self.nr // 2)
            with self.when(narrow):
                self.call(f"panel{self.nv // 2}", operands)
            with self.when(self.negated(narrow)):
                self.call(f"panel{self.nv}", operands)

    def pace(self, rows: str) -> tuple[str, str]:
        """How to fetch the next of the packed panels during all tiles of this one, that memory
        has the time: elements from one place to the next, and the number of tiles."""
        tiles = self.op("sdiv", self.op("add", rows, self.mr - 1), self.mr)
        most = self.smaller(tiles, self.nr)
        step = self.op("sdiv", self.op("add", most, self.nr - 1), most)
        turns = self.op("sdiv", self.op("add", step, self.nr - 1), step)
        return step, turns

    def copied(self, b: str, cols: str, depth: str, panel: str) -> tuple[str, str]:
        """A panel of a plain b itself, or its copy; and the distance of its rows.

        It is copied if its rows are not contiguous, if vectors would reach past its end, or if
        its rows are far apart and enough tiles will read them.
        """
        far = self.logic(
            "and", self.test("sge", "%m", PACK_ROWS), self.test("sgt", "%brs", FAR // self.size))
        half = self.test("ne", cols, self.nr // 2)
        short = self.logic("and", self.test("ne", cols, self.nr), half)
        copy = self.logic("or", self.test("ne", "%bcs", 1), far, short)
        with self.when(copy):
            self.call("pack", f"ptr {b}, i64 %brs, i64 %bcs, i64 {cols}, i64 {depth}, ptr {panel}")
        return self.pick(copy, panel, b, "ptr"), self.pick(copy, self.nr, "%brs")

    # -- the decision --------------------------------------------------------------------------

    def clear(self) -> str:
        """c = 0."""
        self.function("clear", f"{C} i64 %m, i64 %n", hot=False)
        with self.each("i", 0, "%m", 1) as i:
            row = self.corner("%c", (i, "%crs"))
            with self.each("j", 0, "%n", 1) as j:
                self.store("0.0", self.corner(row, (j, "%ccs")), self.t)
        return self.finish()

    def guard(self) -> None:
        """Leave where nothing is to be multiplied."""
        none = self.logic("or", self.test("sle", "%m", 0), self.test("sle", "%n", 0))
        self.leave_if(none)
        empty = self.test("sle", "%k", 0)
        with self.when(self.logic("and", empty, self.negated("%acc"))):
            self.call("clear", "ptr %c, i64 %crs, i64 %ccs, i64 %m, i64 %n")
        self.leave_if(empty)

    def packed_product(self) -> str:
        """The product whose b is in panels."""
        self.function("gemm_packed", f"{A} {PANELS} {C} {SIZES}", hot=False)
        self.guard()
        matrices = [f"ptr %{x}, i64 %{x}rs, i64 %{x}cs" for x in "ac"]
        self.call("packed", matrices[0], "ptr %b", matrices[1], SIZES)
        return self.finish()

    def entry(self) -> str:
        """Choose the way to compute one product."""
        self.function("gemm", f"{A} {B} {C} {SIZES}", hot=False)
        self.guard()
        column = self.logic("and", self.test("eq", "%n", 1), self.test("sgt", "%m", 1))
        steep = self.logic("and", self.test("ne", "%ccs", 1), self.test("eq", "%crs", 1))
        swap = self.logic("or", column, steep)
        one = [
            self.pick(swap, f"%{y}", f"%{x}", k)
            for x, y, k in (("a", "b", "ptr"), ("ars", "bcs", "i64"), ("acs", "brs", "i64"))
        ]
        two = [
            self.pick(swap, f"%{x}", f"%{y}", k)
            for x, y, k in (("a", "b", "ptr"), ("acs", "brs", "i64"), ("ars", "bcs", "i64"))
        ]
        three = ["%c", self.pick(swap, "%ccs", "%crs"), self.pick(swap, "%crs", "%ccs")]
        m, n = self.pick(swap, "%n", "%m"), self.pick(swap, "%m", "%n")
        self.own_kernel(one, two, three, (m, n))
        return self.finish()

    def own_kernel(self, a: list[str], b: list[str], c: list[str], sizes: tuple[str, str]) -> None:
        """Call the kernel of this module that fits the strides and the sizes."""
        m, n = sizes
        tail = f"i64 {m}, i64 {n}, i64 %k, i1 %acc"
        left, right, out = (f"ptr {x[0]}, i64 {x[1]}, i64 {x[2]}" for x in (a, b, c))
        contiguous = self.logic(
            "and", self.test("eq", a[2], 1), self.test("eq", b[1], 1),
            self.test("sge", "%k", DOT_K),
        )
        small = self.logic(
            "and", self.test("eq", b[2], 1), self.test("eq", c[2], 1), self.test("sle", m, FEW),
            self.test("sle", n, self.nr), self.negated(contiguous),
        )
        with self.when(contiguous):
            self.call("dots", left, f"ptr {b[0]}, i64 {b[2]}", out, tail)
        with self.when(small):
            self.call("slim", left, f"ptr {b[0]}, i64 {b[1]}, ptr {c[0]}, i64 {c[1]}", tail)
        with self.when(self.negated(self.logic("or", contiguous, small))):
            self.call("plain", left, right, out, tail)
