"""Matrix products as LLVM vector IR.

``c (+)= a @ b`` for run-time sizes and strides, with b as it is or packed in panels once for many
products.  One entry per dtype decides:

1. transpose the problem where that gives c unit stride along n;
2. call BLAS for a large product whose strides BLAS can express, if the target has one;
3. a and b contiguous along k, and k not short: dot products (``dots``);
4. up to three rows: several panels of columns at once (``wide``);
5. everything else: panels of NR columns, register tiles of up to MR rows (``panel``), blocks of k so
   that a panel of b stays in the first-level cache, blocks of rows so that those of a stay in the
   second.  b is copied into a panel if its rows are not contiguous or far apart, a into strips if
   its columns are.

An element of c is the sum over k in a fixed order: dot products have one, all other ways share
another, and which of the two it is depends on k and on strides only.  So rows and columns can be
computed apart, by any number of threads, in any tile, from packed or plain b, with equal bits.

Nothing outside the matrices is read or written.
"""

from __future__ import annotations

from tinygraph.backends.llvm.dots import Dots
from tinygraph.backends.llvm.panels import KC, A, C
from tinygraph.backends.llvm.tiles import Target, Writer
from tinygraph.dtypes import DType, float32

SPACE = 384 << 10  # bytes of a block of a
WAY = 4096  # bytes after which addresses fall into the same cache set
COPY_SIZE = 2048
DOT_K = 256  # from so many products on dot products beat copying b
COPY_PANELS = 4  # panels of b that make a copy of a worth while
PACK_ROWS = 12  # from so many rows on a far-strided b is worth a copy
FAR = 512  # bytes between rows of b
BLAS_SIDE = 16
BLAS_WORK = 1 << 25  # multiply-adds from which BLAS, and its threads, are faster


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


def blas_symbol(dtype: DType, convention: str) -> str:
    """The name under which emitted code imports the BLAS product of ``dtype``."""
    return f"tinygraph_{convention}_{'s' if dtype is float32 else 'd'}gemm"


B = "ptr noalias nocapture readonly %b, i64 %brs, i64 %bcs, "
SIZES = "i64 %m, i64 %n, i64 %k, i1 %acc"


class _Kernels(Dots):
    """The text of the kernels of one dtype on one target."""

    def text(self) -> str:
        """Every function of the family and the declarations they need."""
        parts = [self.entry(), self.packed_product(), self.clear(), self.blocked("plain")]
        parts += [self.blocked("panels"), self.wide(), self.stream(), self.dots(), self.flush(), self.strips(), self.copy()]
        parts += [self.pack_all(), self.pack(), self.panel(self.nv), self.panel(self.nv // 2)]
        if self.target.blas:
            parts.append(self.blas_call())
        return "\n\n".join([*parts, self.declarations()]) + "\n"

    def declarations(self) -> str:
        """The intrinsics and attributes that the functions use."""
        v, mask, name = self.v, self.mask, self.suffix
        return "\n".join(
            [
                f"declare {v} @llvm.masked.load.{name}.p0(ptr, i32, {mask}, {v})",
                "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
                f"declare void @llvm.masked.store.{name}.p0({v}, ptr, i32, {mask})",
                f"attributes #0 = {{ noinline nounwind {self.target.attributes} }}",
            ]
        )

    # -- blocks of k, rows and columns -------------------------------------------------------

    def blocked(self, form: str) -> str:
        """Blocks of k by blocks of rows by panels of columns, for b ``plain`` or in ``panels``."""
        plain = form == "plain"
        b = B if plain else "ptr noalias nocapture readonly %b, "
        self.function(form, f"{A} {b} {C} {SIZES}")
        panel = self.scratch(KC * self.nr) if plain else ""
        width = KC + self.lanes  # rows of a copy, so that they share no cache sets
        most = SPACE // self.size // width // self.mr * self.mr
        space = self.scratch(most * width)
        copy = self.copy_panels() if plain else ""
        many = self.logic("and", self.test("sge", "%n", COPY_PANELS * self.nr),
                          self.test("sge", self.op("mul", "%m", "%k"), COPY_SIZE))
        split = self.logic("and", self.test("ne", "%acs", 1), many)
        spread = self.logic("and", self.test("eq", "%acs", 1), many, self.clash("%ars"))
        block = self.block_rows(most, self.logic("or", split, spread))
        first = self.few_rows(plain)
        self.leave_if(self.test("eq", first, "%n"))
        with self.each("p", 0, "%k", KC) as p:
            depth = self.smaller(self.op("sub", "%k", p), KC)
            later = self.logic("or", "%acc", self.test("sgt", p, 0))
            with self.each("i", 0, "%m", block) as i:
                rows = self.smaller(self.op("sub", "%m", i), block)
                a = self.corner("%a", (i, "%ars"), (p, "%acs"))
                with self.when(split):
                    self.call("strips", f"ptr {a}, i64 %ars, i64 %acs, i64 {rows}, i64 {depth}, "
                              f"ptr {space}")
                with self.when(spread):
                    self.call("copy", f"ptr {a}, i64 %ars, i64 {rows}, i64 {depth}, "
                              f"ptr {space}, i64 {width}")
                a = self.pick(self.logic("or", split, spread), space, a, "ptr")
                ars = self.pick(spread, width, "%ars")
                operands = f"ptr {a}, i64 {ars}, i64 %acs, i1 {split}"
                c = self.corner("%c", (i, "%crs"))
                self.all_panels(operands, c, rows, (p, depth, later, first), (copy, panel))
        return self.finish()

    def clash(self, stride: str) -> str:
        """Whether rows ``stride`` apart fall into the same sets of the first-level cache."""
        return self.test("eq", self.op("and", stride, WAY // self.size - 1), 0)

    def block_rows(self, most: int, copied: str) -> str:
        """How many rows of a block: all, or even parts, of no more than ``most`` if they are
        ``copied``."""
        code = self.code
        limit = self.pick(copied, most, 4 * most)
        before = code.label
        with self.when(self.test("sgt", "%m", limit)):
            parts = self.op("sdiv", self.op("add", "%m", self.op("sub", limit, 1)), limit)
            size = self.op("sdiv", self.op("add", "%m", self.op("sub", parts, 1)), parts)
            sixes = self.op("sdiv", self.op("add", size, self.mr - 1), self.mr)
            even, after = self.op("mul", sixes, self.mr), code.label
        return code.value(f"phi i64 [ %m, %{before} ], [ {even}, %{after} ]")

    def copy_panels(self) -> str:
        """Whether b is copied: always if its rows are not contiguous."""
        far = self.logic(
            "and", self.test("sge", "%m", PACK_ROWS), self.test("sgt", "%brs", FAR // self.size))
        return self.logic("or", self.test("ne", "%bcs", 1), far)

    def all_panels(
        self, a: str, c: str, rows: str, block: tuple[str, str, str, str], copy: tuple[str, str]
    ) -> None:
        """Some rows times all panels."""
        p, depth, later, first = block
        plain = bool(copy[0])
        if plain:
            start = self.corner("%b", (p, "%brs"))
            brs, bcs = "%brs", "%bcs"
        else:
            start = self.corner("%b", (p, self.nr))
            brs, bcs = str(self.nr), "%k"
        with self.each("j", first, "%n", self.nr) as j:
            cols = self.smaller(self.op("sub", "%n", j), self.nr)
            b, step = self.corner(start, (j, bcs)), brs
            if plain:
                whole = self.logic("or", self.test("eq", cols, self.nr), self.test("eq", cols, self.nr // 2))
                short = self.negated(whole)
                b, step = self.copied(self.logic("or", copy[0], short), b, cols, depth, copy[1])
            place = self.corner(c, (j, "%ccs"))
            more = self.test("slt", self.op("add", j, self.nr), "%n")
            if plain:
                more = self.logic("and", more, self.test("eq", "%bcs", 1))
            nxt = self.corner(start, (self.op("add", j, self.nr), bcs))
            nxt, nstep = self.pick(more, nxt, b, "ptr"), self.pick(more, brs, step)
            operands = (f"{a}, ptr {b}, i64 {step}, ptr {nxt}, i64 {nstep}, ptr {place}, i64 %crs, "
                        f"i64 %ccs, i64 {rows}, i64 {cols}, i64 {depth}, i1 {later}")
            narrow = self.test("sle", cols, self.nr // 2)
            with self.when(narrow):
                self.call(f"panel{self.nv // 2}", operands)
            with self.when(self.negated(narrow)):
                self.call(f"panel{self.nv}", operands)

    def few_rows(self, plain: bool) -> str:
        """Up to three rows have ways of their own.  The first column that is left."""
        code, counts = self.code, self.wide_panels
        if plain:
            first = self.op("and", "%n", -self.lanes)
            enough = self.logic("and", self.test("eq", "%bcs", 1), self.test("sge", "%n", 4 * self.nr))
        else:
            width = self.pick(self.test("eq", "%m", 1), counts[1], counts.get(2, 1))
            first = self.op("and", "%n", self.op("mul", width, -self.nr))
            enough = self.test("sgt", first, 0)
        most = 3 if plain else max(counts)
        fit = self.logic("and", enough, self.test("eq", "%ccs", 1), self.test("sle", "%m", most))
        before = code.label
        with self.when(fit):
            sizes = f"ptr %c, i64 %crs, i64 %m, i64 {first}, i64 %k, i1 %acc"
            b = "ptr %b, i64 %brs" if plain else "ptr %b"
            self.call("stream" if plain else "wide", f"ptr %a, i64 %ars, i64 %acs, {b}, {sizes}")
            after = code.label
        return code.value(f"phi i64 [ {first}, %{after} ], [ 0, %{before} ]")

    def copied(self, copy: str, b: str, cols: str, depth: str, panel: str) -> tuple[str, str]:
        """b itself, or its copy in ``panel`` if ``copy``; and the distance of its rows."""
        with self.when(copy):
            self.call("pack", f"ptr {b}, i64 %brs, i64 %bcs, i64 {cols}, i64 {depth}, ptr {panel}")
        return self.pick(copy, panel, b, "ptr"), self.pick(copy, self.nr, "%brs")

    # -- the decision --------------------------------------------------------------------------

    def clear(self) -> str:
        """c = 0."""
        self.function("clear", f"{C} i64 %m, i64 %n")
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
        self.function("gemm_packed", f"{A} ptr noalias nocapture readonly %b, {C} {SIZES}")
        self.guard()
        matrices = [f"ptr %{x}, i64 %{x}rs, i64 %{x}cs" for x in "ac"]
        self.call("panels", matrices[0], "ptr %b", matrices[1], SIZES)
        return self.finish()

    def entry(self) -> str:
        """Choose the way to compute one product."""
        self.function("gemm", f"{A} {B} {C} {SIZES}")
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
        sizes = f"i64 {m}, i64 {n}, i64 %k, i1 %acc"
        a, b, c = (f"ptr {x[0]}, i64 {x[1]}, i64 {x[2]}" for x in (one, two, three))
        if self.target.blas:
            self.try_blas(one, two, three, m, n, f"{a}, {b}, {c}, {sizes}")
        contiguous = self.logic(
            "and", self.test("eq", one[2], 1), self.test("eq", two[1], 1),
            self.test("sge", "%k", DOT_K),
        )
        with self.when(contiguous):
            self.call("dots", a, f"ptr {two[0]}, i64 {two[2]}", c, sizes)
        with self.when(self.negated(contiguous)):
            self.call("plain", a, b, c, sizes)
        return self.finish()

    def try_blas(
        self, a: list[str], b: list[str], c: list[str], m: str, n: str, operands: str
    ) -> None:
        """Leave through BLAS if the product is large and BLAS can express the strides."""
        sides = [self.test("sge", x, BLAS_SIDE) for x in (m, n, "%k")]
        work = self.op("mul", self.op("mul", m, n), "%k")
        good = self.logic("and", *sides, self.test("sge", work, BLAS_WORK))
        good = self.logic("and", good, self.test("eq", c[2], 1), self.test("sge", c[1], n))
        for x, outer, inner in ((a, m, "%k"), (b, "%k", n)):
            plain = self.logic("and", self.test("eq", x[2], 1), self.test("sge", x[1], inner))
            turned = self.logic("and", self.test("eq", x[1], 1), self.test("sge", x[2], outer))
            good = self.logic("and", good, self.logic("or", plain, turned))
        with self.when(good):
            self.call("blas", operands)
        self.leave_if(good)

    def blas_call(self) -> str:
        """Hand a product over to BLAS; c has unit stride along n."""
        name = blas_symbol(self.dtype, self.target.blas)
        self.function("blas", f"{A} {B} {C} {SIZES}")
        plain_a, plain_b = self.test("eq", "%acs", 1), self.test("eq", "%bcs", 1)
        lda, ldb = self.pick(plain_a, "%ars", "%acs"), self.pick(plain_b, "%brs", "%bcs")
        one = f"{self.t} 1.0"
        beta = self.pick("%acc", "1.0", "0.0", self.t)
        if self.target.blas == "cblas64":
            # CblasRowMajor is 101, CblasNoTrans 111, CblasTrans 112.
            ta, tb = self.pick(plain_a, 111, 112, "i32"), self.pick(plain_b, 111, 112, "i32")
            self.code.emit(
                f"call void @{name}(i32 101, i32 {ta}, i32 {tb}, i64 %m, i64 %n, i64 %k, {one}, "
                f"ptr %a, i64 {lda}, ptr %b, i64 {ldb}, {self.t} {beta}, ptr %c, i64 %crs)"
            )
            parameters = (
                f"i32, i32, i32, i64, i64, i64, {self.t}, ptr, i64, ptr, i64, {self.t}, ptr, i64"
            )
        else:
            # Fortran order: c' = b' a', every argument by reference, 32-bit integers.
            ta, tb = self.pick(plain_a, 78, 84, "i8"), self.pick(plain_b, 78, 84, "i8")
            numbers = [
                self.code.value(f"trunc i64 {x} to i32")
                for x in ("%n", "%m", "%k", ldb, lda, "%crs")
            ]
            slots = [self.slot("i8", tb), self.slot("i8", ta)]
            slots += [self.slot("i32", x) for x in numbers]
            alpha, beta = self.slot(self.t, "1.0"), self.slot(self.t, beta)
            order = [*slots[:5], alpha, "%b", slots[5], "%a", slots[6], beta, "%c", slots[7]]
            self.code.emit(f"call void @{name}({', '.join(f'ptr {x}' for x in order)})")
            parameters = ", ".join(["ptr"] * 13)
        return self.finish() + f"\n\ndeclare void @{name}({parameters})"

    def slot(self, kind: str, value: str) -> str:
        """``value`` in memory, for an argument by reference."""
        place = self.code.value(f"alloca {kind}")
        self.code.emit(f"store {kind} {value}, ptr {place}")
        return place
