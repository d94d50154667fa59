"""Matrix products as LLVM vector IR.

``c (+)= a @ b`` for run-time sizes and strides.  One entry per dtype decides:

1. transpose the problem where that gives c unit stride along n;
2. call BLAS for a large product whose strides BLAS can express;
3. few rows, a and b contiguous along k: dot products (``inner``);
4. one or two rows, b and c contiguous along n: long runs of columns (``thin``);
5. everything else: register tiles of MR rows by NV vectors (``outer``), where b is copied into a
   contiguous panel if its rows are not contiguous or far apart.

Rows missing from the last tile are computed as copies of the last row, columns missing from the
last vector are masked, so nothing outside the matrices is read or written.
"""

from __future__ import annotations

from tinygraph.backends.llvm.tiles import Target, Tiles
from tinygraph.dtypes import DType, float32

KC = 256  # rows of b in a packed panel
MC = 240  # rows of a that stay in the second-level cache while the panels of b go by
CHUNK = 48  # rows of c that go through scratch when c has no unit stride
INNER_ROWS = 4  # up to so many rows dot products beat packing b
THIN_ROWS = 2  # up to so many rows get tiles of one row by THIN vectors
THIN = 8
PACK_ROWS = 24  # from so many rows on a far-strided b is worth a copy
BLAS_SIDE = 16
BLAS_WORK = 1 << 25  # multiply-adds from which BLAS, and its threads, are faster


def entry(dtype: DType) -> str:
    """The name of the function that a Gemm of ``dtype`` calls."""
    return f"gemm_{dtype}"


def declaration(dtype: DType) -> str:
    """How a module that calls ``entry(dtype)`` declares it."""
    matrix = "ptr, i64, i64"
    return f"declare void @{entry(dtype)}({matrix}, {matrix}, {matrix}, i64, i64, i64, i1)"


def kernels(dtype: DType, target: Target) -> str:
    """A module with ``entry(dtype)``, as text.

    It is written as it shall run: the optimiser only has to be kept away.
    """
    return _Kernels(dtype, target).text()


def blas_symbol(dtype: DType, convention: str) -> str:
    """The name under which emitted code imports the BLAS product of ``dtype``."""
    return f"tinygraph_{convention}_{'s' if dtype is float32 else 'd'}gemm"


MATRICES = (
    "ptr noalias nocapture readonly %a, i64 %ars, i64 %acs, "
    "ptr noalias nocapture readonly %b, i64 %brs, i64 %bcs, "
    "ptr noalias nocapture %c, i64 %crs, i64 %ccs, i64 %m, i64 %n, i64 %k, i1 %acc"
)


class _Kernels(Tiles):
    """The text of the kernels of one dtype on one target."""

    def text(self) -> str:
        """Every function of the family and the declarations they need."""
        parts = [self.entry(), self.inner(), self.thin(), self.outer(), self.pack()]
        parts += [self.panel(self.nv, False)]
        parts += [self.panel(nv, True) for nv in range(1, self.nv + 1)]
        if self.target.blas:
            parts.append(self.blas_call())
        return "\n\n".join([*parts, self.declarations()]) + "\n"

    def declarations(self) -> str:
        """The intrinsics and attributes that the functions use."""
        v, mask, name = self.v, self.mask, self.suffix
        return "\n".join(
            [
                f"declare {v} @llvm.masked.load.{name}.p0(ptr, i32, {mask}, {v})",
                f"declare void @llvm.masked.store.{name}.p0({v}, ptr, i32, {mask})",
                f"attributes #0 = {{ noinline nounwind {self.target.attributes} }}",
            ]
        )

    # -- one or two rows ---------------------------------------------------------------------

    def thin(self) -> str:
        """One or two rows: so many columns at once that b is read in long runs."""
        self.function("thin", MATRICES)
        code = self.code
        width = THIN * self.lanes
        rows = self.loop("i", 0, [])
        a = self.at("%a", self.op("mul", rows.index, "%ars"))
        c = self.at("%c", self.op("mul", rows.index, "%crs"))
        most = self.op("sub", "%n", self.op("srem", "%n", width))
        full, rest, last = code.fresh("full"), code.fresh("rest"), code.fresh("last")
        ends, before = code.fresh("end"), code.label
        code.emit(f"br i1 {self.test('sgt', most, 0)}, label %{full}, label %{rest}")
        code.block(full)
        cols = self.loop("j", 0, [])
        corners = (a, self.at("%b", cols.index), self.at(c, cols.index))
        self.tile(1, THIN, corners, "1", "")
        following = self.op("add", cols.index, width)
        cols.close(following, self.test("slt", following, most), [])
        after = code.label
        code.emit(f"br label %{rest}")
        code.block(rest)
        first = code.value(f"phi i64 [ 0, %{before} ], [ {most}, %{after} ]")
        code.emit(f"br i1 {self.test('slt', first, '%n')}, label %{last}, label %{ends}")
        code.block(last)
        cols = self.loop("j", first, [])
        mask = self.lane_mask(self.smaller(self.op("sub", "%n", cols.index), self.lanes))
        corners = (a, self.at("%b", cols.index), self.at(c, cols.index))
        self.tile(1, 1, corners, "1", mask)
        following = self.op("add", cols.index, self.lanes)
        cols.close(following, self.test("slt", following, "%n"), [])
        code.emit(f"br label %{ends}")
        code.block(ends)
        following = self.op("add", rows.index, 1)
        rows.close(following, self.test("slt", following, "%m"), [])
        code.emit("ret void")
        return self.finish()

    # -- blocks of k, rows and columns -------------------------------------------------------

    def outer(self) -> str:
        """Blocks of k by blocks of rows by panels of columns."""
        self.function("outer", MATRICES)
        code = self.code
        panel = self.scratch("panel", KC * self.nr)
        tile = self.scratch("tile", CHUNK * self.nr)
        straight = self.test("eq", "%ccs", 1)
        flat = self.test("eq", "%bcs", 1)
        far = self.logic(
            "and", self.test("sge", "%m", PACK_ROWS), self.test("sgt", "%brs", self.nr)
        )
        pack = self.logic("or", self.logic("xor", flat, "true"), far)
        narrow = self.test("sle", "%n", 2 * self.nr)
        block = self.pick(straight, self.pick(narrow, "%m", MC), CHUNK)
        depth = self.loop("p", 0, [])
        kc = self.smaller(self.op("sub", "%k", depth.index), KC)
        later = self.logic("or", "%acc", self.test("sgt", depth.index, 0))
        rows = self.loop("i", 0, [])
        mc = self.smaller(self.op("sub", "%m", rows.index), block)
        shift = self.op("mul", rows.index, "%ars")
        a = self.at("%a", self.op("add", shift, self.op("mul", depth.index, "%acs")))
        cols = self.loop("j", 0, [])
        nc = self.smaller(self.op("sub", "%n", cols.index), self.nr)
        shift = self.op("mul", depth.index, "%brs")
        b = self.at("%b", self.op("add", shift, self.op("mul", cols.index, "%bcs")))
        shift = self.op("mul", rows.index, "%crs")
        c = self.at("%c", self.op("add", shift, self.op("mul", cols.index, "%ccs")))
        b, brs = self.packed(pack, b, nc, kc, panel)
        direct_c = self.pick(straight, c, tile, "ptr")
        direct_crs = self.pick(straight, "%crs", self.nr)
        add = self.logic("and", later, straight)
        self.dispatch(
            f"ptr {a}, i64 %ars, i64 %acs, ptr {b}, i64 {brs}, ptr {direct_c}, "
            f"i64 {direct_crs}, i64 {mc}, i64 {kc}",
            nc,
            add,
        )
        self.scatter(straight, tile, c, mc, nc, later)
        for loop, step, end in ((cols, self.nr, "%n"), (rows, block, "%m"), (depth, KC, "%k")):
            following = self.op("add", loop.index, step)
            loop.close(following, self.test("slt", following, end), [])
        code.emit("ret void")
        return self.finish()

    def scratch(self, name: str, count: int) -> str:
        """Stack space for ``count`` elements."""
        return self.code.value(f"alloca [{count} x {self.t}], align 64  ; {name}")

    def packed(self, pack: str, b: str, nc: str, kc: str, panel: str) -> tuple[str, str]:
        """b itself, or its copy in ``panel`` if ``pack``; and the distance of its rows."""
        code = self.code
        copy, ready, before = code.fresh("copy"), code.fresh("ready"), code.label
        some = self.logic("and", pack, self.test("sgt", kc, 0))
        code.emit(f"br i1 {some}, label %{copy}, label %{ready}")
        code.block(copy)
        code.emit(
            f"call void @pack_{self.dtype}(ptr {b}, i64 %brs, i64 %bcs, i64 {nc}, i64 {kc}, "
            f"ptr {panel})"
        )
        code.emit(f"br label %{ready}")
        code.block(ready)
        place = code.value(f"phi ptr [ {b}, %{before} ], [ {panel}, %{copy} ]")
        return place, code.value(f"phi i64 [ %brs, %{before} ], [ {self.nr}, %{copy} ]")

    def dispatch(self, operands: str, nc: str, add: str) -> None:
        """Call the panel that fits ``nc`` columns."""
        code = self.code
        above = self.op("sub", nc, 1)
        before = self.op("and", above, -self.lanes)
        last = self.op("sub", nc, before)
        whole = self.test("eq", nc, self.nr)
        number = self.op("lshr", before, self.lanes.bit_length() - 1)
        choice = self.pick(whole, self.nv, number)
        labels = [code.fresh("panel") for _ in range(self.nv + 1)]
        join = code.fresh("join")
        cases = " ".join(f"i64 {i}, label %{x}" for i, x in enumerate(labels[:-1]))
        code.emit(f"switch i64 {choice}, label %{labels[-1]} [ {cases} ]")
        for i, label in enumerate(labels):
            name = f"panel{self.nv}" if i == self.nv else f"panel{i + 1}m"
            code.block(label)
            code.emit(f"call void @{name}_{self.dtype}({operands}, i64 {last}, i1 {add})")
            code.emit(f"br label %{join}")
        code.block(join)

    def scatter(self, straight: str, tile: str, c: str, mc: str, nc: str, later: str) -> None:
        """Where c has no unit stride, move the finished chunk from scratch into it."""
        code = self.code
        enter, leave = code.fresh("scatter"), code.fresh("leave")
        code.emit(f"br i1 {straight}, label %{leave}, label %{enter}")
        code.block(enter)
        rows = self.loop("i", 0, [])
        source = self.at(tile, self.op("mul", rows.index, self.nr))
        target = self.at(c, self.op("mul", rows.index, "%crs"))
        cols = self.loop("j", 0, [])
        place = self.at(target, self.op("mul", cols.index, "%ccs"))
        value = code.value(f"load {self.t}, ptr {self.at(source, cols.index)}, align {self.size}")
        self.put(place, value, later)
        for loop, end in ((cols, nc), (rows, mc)):
            following = self.op("add", loop.index, 1)
            loop.close(following, self.test("slt", following, end), [])
        code.emit(f"br label %{leave}")
        code.block(leave)

    def put(self, place: str, value: str, add: str) -> None:
        """*place = value, or *place += value if ``add``."""
        old = self.code.value(f"load {self.t}, ptr {place}, align {self.size}")
        total = self.code.value(f"fadd {self.t} {old}, {value}")
        final = self.pick(add, total, value, self.t)
        self.code.emit(f"store {self.t} {final}, ptr {place}, align {self.size}")

    # -- dot products ------------------------------------------------------------------------

    def inner(self) -> str:
        """a and b contiguous along k: tiles of dot products, vectors along k."""
        self.function("inner", MATRICES)
        code = self.code
        whole = self.op("and", "%k", -self.lanes)
        mask = self.lane_mask(self.op("sub", "%k", whole))
        rows = self.loop("i", 0, [])
        left = self.op("sub", "%m", rows.index)
        a = self.at("%a", self.op("mul", rows.index, "%ars"))
        c = self.at("%c", self.op("mul", rows.index, "%crs"))
        cols = self.loop("j", 0, [])
        self.dots(2, 4, a, c, left, cols.index, whole, mask)
        following = self.op("add", cols.index, 4)
        cols.close(following, self.test("slt", following, "%n"), [])
        following = self.op("add", rows.index, 2)
        rows.close(following, self.test("slt", following, "%m"), [])
        code.emit("ret void")
        return self.finish()

    def dots(
        self, mr: int, nr: int, a: str, c: str, left: str, j: str, whole: str, mask: str
    ) -> None:
        """mr x nr dot products from row ``a`` and column ``j`` on."""
        code = self.code
        left_cols = self.op("sub", "%n", j)
        a_rows = self.rows(a, "%ars", mr, left)
        b_cols = self.rows(self.at("%b", self.op("mul", j, "%bcs")), "%bcs", nr, left_cols)
        c_rows = self.rows(self.at(c, self.op("mul", j, "%ccs")), "%crs", mr, left)
        places = [p for row in c_rows for p in self.rows(row, "%ccs", nr, left_cols)]
        head, tail, start = code.fresh("head"), code.fresh("tail"), code.label
        code.emit(f"br i1 {self.test('sgt', whole, 0)}, label %{head}, label %{tail}")
        code.block(head)
        loop = self.loop("k", 0, [("zeroinitializer", self.v)] * (mr * nr))
        new = self.dot_step(a_rows, b_cols, loop.index, loop.values, "")
        following = self.op("add", loop.index, self.lanes)
        loop.close(following, self.test("slt", following, whole), new)
        after = code.label
        code.emit(f"br label %{tail}")
        code.block(tail)
        sums = [
            code.value(f"phi {self.v} [ zeroinitializer, %{start} ], [ {x}, %{after} ]")
            for x in new
        ]
        sums = self.dot_step(a_rows, b_cols, whole, sums, mask)
        totals = [
            code.value(
                f"call reassoc {self.t} @llvm.vector.reduce.fadd.{self.suffix}"
                f"({self.t} 0.0, {self.v} {x})"
            )
            for x in sums
        ]
        olds = [code.value(f"load {self.t}, ptr {p}, align {self.size}") for p in places]
        finals = [
            self.pick("%acc", code.value(f"fadd {self.t} {old}, {x}"), x, self.t)
            for old, x in zip(olds, totals, strict=True)
        ]
        for value, place in zip(finals, places, strict=True):
            code.emit(f"store {self.t} {value}, ptr {place}, align {self.size}")

    def dot_step(
        self, a_rows: list[str], b_cols: list[str], p: str, sums: list[str], mask: str
    ) -> list[str]:
        """The sums after one more vector of k."""
        left = [self.vector_load(self.at(x, p), mask) for x in a_rows]
        right = [self.vector_load(self.at(x, p), mask) for x in b_cols]
        pairs = [(x, y) for x in left for y in right]
        return [self.fused(x, y, s) for (x, y), s in zip(pairs, sums, strict=True)]

    # -- the decision --------------------------------------------------------------------------

    def entry(self) -> str:
        """Choose the way to compute one product."""
        self.function("gemm", MATRICES)
        code = self.code
        some, work = code.fresh("some"), code.fresh("work")
        empty = code.fresh("empty")
        any_ = self.logic("and", self.test("sgt", "%m", 0), self.test("sgt", "%n", 0))
        code.emit(f"br i1 {any_}, label %{some}, label %{empty}")
        code.block(empty)
        code.emit("ret void")
        code.block(some)
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
        operands = ", ".join(
            [f"ptr {x[0]}, i64 {x[1]}, i64 {x[2]}" for x in (one, two, three)]
            + [f"i64 {m}, i64 {n}, i64 %k, i1 %acc"]
        )
        if self.target.blas:
            self.try_blas(one, two, three, m, n, operands)
        code.emit(f"br label %{work}")
        code.block(work)
        self.own_kernel(one, two, three, m, operands)
        return self.finish()

    def own_kernel(self, a: list[str], b: list[str], c: list[str], m: str, operands: str) -> None:
        """Call the kernel of this module that fits the strides and the number of rows."""
        code = self.code
        dots, other, thin, tiles = (code.fresh(s) for s in ("dots", "other", "thin", "tiles"))
        contiguous = self.logic(
            "and",
            self.test("eq", a[2], 1),
            self.test("eq", b[1], 1),
            self.test("ne", b[2], 1),
            self.test("sle", m, INNER_ROWS),
        )
        code.emit(f"br i1 {contiguous}, label %{dots}, label %{other}")
        code.block(other)
        flat = self.logic(
            "and",
            self.test("eq", b[2], 1),
            self.test("eq", c[2], 1),
            self.test("sle", m, THIN_ROWS),
        )
        code.emit(f"br i1 {flat}, label %{thin}, label %{tiles}")
        for label, name in ((dots, "inner"), (thin, "thin"), (tiles, "outer")):
            code.block(label)
            code.emit(f"call void @{name}_{self.dtype}({operands})")
            code.emit("ret void")

    def try_blas(
        self, a: list[str], b: list[str], c: list[str], m: str, n: str, operands: str
    ) -> None:
        """Leave through BLAS if the product is large and BLAS can express the strides."""
        code = self.code
        sides = [self.test("sge", x, BLAS_SIDE) for x in (m, n, "%k")]
        work = self.op("mul", self.op("mul", m, n), "%k")
        good = self.logic("and", *sides, self.test("sge", work, BLAS_WORK))
        good = self.logic("and", good, self.test("eq", c[2], 1), self.test("sge", c[1], n))
        for x, outer, inner in ((a, m, "%k"), (b, "%k", n)):
            plain = self.logic("and", self.test("eq", x[2], 1), self.test("sge", x[1], inner))
            turned = self.logic("and", self.test("eq", x[1], 1), self.test("sge", x[2], outer))
            good = self.logic("and", good, self.logic("or", plain, turned))
        call, own = code.fresh("blas"), code.fresh("own")
        code.emit(f"br i1 {good}, label %{call}, label %{own}")
        code.block(call)
        code.emit(f"call void @blas_{self.dtype}({operands})")
        code.emit("ret void")
        code.block(own)

    def blas_call(self) -> str:
        """Hand a product over to BLAS; c has unit stride along n."""
        name = blas_symbol(self.dtype, self.target.blas)
        self.function("blas", MATRICES)
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
        self.code.emit("ret void")
        return self.finish() + f"\n\ndeclare void @{name}({parameters})"

    def slot(self, kind: str, value: str) -> str:
        """``value`` in memory, for an argument by reference."""
        place = self.code.value(f"alloca {kind}")
        self.code.emit(f"store {kind} {value}, ptr {place}")
        return place
