"""A Dot as Gemm statements: its labels sorted into rows, columns, contraction and batch."""

from __future__ import annotations

from collections.abc import Sequence

from tinygraph.dims import THREADS, Dim, dim, floordiv, maximum, minimum, nonnegative, product
from tinygraph.loops import build as E
from tinygraph.loops.language import Expr, Matrix
from tinygraph.lowering.nest import Scratch, fill
from tinygraph.lowering.tiling import Tiling
from tinygraph.lowering.view import View, row_major
from tinygraph.ops.linalg import Dot

TILE = (6, 16)  # rows and columns of a register tile, about: parts for threads are whole tiles
STEP_WORK = 1 << 15  # the same for a thread that spins between the steps of a loop (a microsecond)
BLOCKS = 8  # into so many parts at most a sum of small products is cut
SMALL = 1 << 12  # elements of such a result
SHARE_WORK = 1 << 19  # multiply-adds that are worth another thread (about 10 microseconds)


class Group:
    """Labels of one role in a product that one index of Gemm walks together: a size, and the
    stride in each operand (0 where the operand lacks the label)."""

    def __init__(self, size: Dim, strides: Sequence[Dim]) -> None:
        self.size, self.strides = size, list(strides)

    def absorb(self, inner: Group) -> bool:
        """Join with the group that lies inside this one in every operand, if there is one
        stride for both."""
        if any(s != inner.size * t for s, t in zip(self.strides, inner.strides, strict=True)):
            return False
        self.size, self.strides = self.size * inner.size, inner.strides
        return True


def groups_of(labels: Sequence[int], op: Dot, views: Sequence[View]) -> list[Group]:
    """The labels as few groups: outermost first."""
    found: list[Group] = []
    for label in labels:
        strides, size = [], dim(1)
        for names, view in zip((op.a, op.b, op.out), views, strict=True):
            has = label in names
            strides.append(view.strides[names.index(label)] if has else dim(0))
            size = view.dims[names.index(label)] if has and size == 1 else size
        if size != 1:
            found.append(Group(size, strides))
    # A label that lies outermost anywhere comes first; equal sizes of strides keep their order.
    found.sort(key=lambda g: -max(_degree(s) for s in g.strides))
    merged: list[Group] = []
    for group in found:
        if not (merged and merged[-1].absorb(group)):
            merged.append(group)
    return merged


def _degree(stride: Dim) -> int:
    """A rough size of a symbolic stride: more symbols are larger, then larger numbers."""
    if not stride.terms:
        return 0
    return max(len(m) for m, _ in stride.terms) * 1_000_000 + min(
        sum(abs(c) for _, c in stride.terms), 999_999)


class Product:
    """A Dot on three views: one Gemm inside loops over what one Gemm cannot walk.

    m, n, k   the labels that Gemm walks, by role
    outer     labels around it, of the batch, rows and columns;  deep: of the contraction
    accumulate  add to what ``out`` holds
    """

    def __init__(self, op: Dot, x: View, y: View, out: View, accumulate: bool = False) -> None:
        self.accumulate = accumulate
        self.views = views = _forwards(op, (x, y, out))
        in_a, in_b, in_out = set(op.a), set(op.b), set(op.out)
        labels = list(dict.fromkeys((*op.a, *op.b)))
        rows = groups_of([k for k in labels if k in in_a - in_b], op, views)
        cols = groups_of([k for k in labels if k in in_b - in_a], op, views)
        deep = groups_of([k for k in labels if k in (in_a & in_b) - in_out], op, views)
        batch = groups_of([k for k in labels if k in in_a & in_b & in_out], op, views)
        self.m, self.n, self.k = (_pick(g) for g in (rows, cols, deep))
        self.deep = [g for g in deep if g is not self.k]
        self.outer = batch + [g for g in rows if g is not self.m] + [
            g for g in cols if g is not self.n]
        self.sizes = out.sizes

    def matrix(self, i: int, at: Expr, r: Group, c: Group) -> Matrix:
        """Operand i from offset ``at`` on, with r along its rows and c along its columns."""
        buffer = self.views[i].buffer
        assert buffer is not None
        return Matrix(buffer, at, self.sizes.expr(r.strides[i]), self.sizes.expr(c.strides[i]))

    def packable(self) -> bool:
        """Is b one matrix, and c contiguous along its columns, so that panels of b serve?"""
        return (self.n.strides[2] == 1 and not self.deep and self.n.size != 1
                and all(g.strides[1] == 0 for g in self.outer))

    def emit(self, b: E.Builder, panels: View | None = None, panel: int = 0,
             share: Dim | None = None) -> None:
        """Write the loops and the Gemm.  ``panels``: b, packed, in panels of ``panel`` columns;
        ``share``: into how many parts threads cut the columns (or the rows, if there are more of
        them and b is not packed)."""
        offsets: list[Expr] = [v.offset for v in self.views]
        if self.deep and not self.accumulate:
            fill(b, self.views[2], E.const(0, self.views[2].dtype))
        m, n, k = (self.sizes.expr(g.size) for g in (self.m, self.n, self.k))
        if panels is not None:
            offsets[1] = panels.offset
        if share is None:
            self._nest(b, offsets, m, n, panels, panel)
            return
        columns, unit = (True, panel) if panel else self._cut()
        group = self.n if columns else self.m
        most = self.sizes.expr(floordiv(group.size + (share * unit - 1), share * unit) * unit)
        with b.loop(self.sizes.expr(share), "parallel", hint="part") as part:
            start = b.let(E.mul(part, most), "start")
            left = E.sub(self.sizes.expr(group.size), start)
            here = b.let(E.maximum(E.minimum(left, most), E.index(0)), "share")
            at = self._moved(offsets, start, group)
            if panels is not None:
                at[1] = E.add(panels.offset, E.mul(start, k))
            self._nest(b, at, m if columns else here, here if columns else n, panels, panel)

    def _cut(self) -> tuple[bool, int]:
        """Whether threads should cut the columns (or else the rows), and into multiples of what:
        where more register tiles lie one after another, parts are the most even."""
        upright = self.m.strides[2] == 1  # the kernels then take rows for columns
        tall, wide = (TILE[1], TILE[0]) if upright else TILE
        m, n = self.m.size, self.n.size
        if m.const is None or n.const is None:
            columns = _degree(n) >= _degree(m)
        else:
            columns = n.const * tall >= m.const * wide
        return columns, wide if columns else tall

    def _nest(self, b: E.Builder, at: list[Expr], m: Expr, n: Expr, panels: View | None,
              panel: int) -> None:
        """The loops around the Gemm of an m x n part whose operands begin at ``at``."""

        def level(rest: list[Group], at: list[Expr]) -> None:
            if rest:
                with b.loop(self.sizes.expr(rest[0].size)) as i:
                    level(rest[1:], self._moved(at, i, rest[0]))
                return
            right = self.matrix(1, at[1], self.k, self.n)
            if panels is not None and panels.buffer is not None:
                right = Matrix(panels.buffer, at[1], E.index(0), E.index(0))
            b.gemm(m, n, self.sizes.expr(self.k.size), self.matrix(0, at[0], self.m, self.k), right,
                   self.matrix(2, at[2], self.m, self.n), self.accumulate or bool(self.deep), panel)

        level(self.outer + self.deep, at)

    def _moved(self, at: list[Expr], i: Expr, group: Group) -> list[Expr]:
        return [E.add(o, E.mul(i, self.sizes.expr(s)))
                for o, s in zip(at, group.strides, strict=True)]

    def work(self) -> Dim:
        """The multiply-adds."""
        total = self.m.size * self.n.size * self.k.size
        for g in (*self.outer, *self.deep):
            total = total * g.size
        return total

    def single(self) -> bool:
        """Is it one Gemm, with no loop around it?"""
        return not self.outer and not self.deep

    def shares(self) -> Dim:
        """Into how many parts threads should cut a product outside of loops."""
        return maximum(dim(1), minimum(dim(THREADS), floordiv(self.work(), dim(SHARE_WORK))))

    def emit_sum(self, b: E.Builder, scratch: Scratch) -> None:
        """Write a sum of small products (a loop around the Gemm adds to one small c) as sums over
        blocks of the loop, which threads may share, and the sum of these.

        How many blocks there are must not depend on how many threads there are.
        """
        group, out = self.deep[0], self.views[2]
        count = maximum(dim(1), minimum(dim(BLOCKS), floordiv(self.work(), dim(SHARE_WORK))))
        most = self.sizes.expr(floordiv(group.size + (count - 1), count))
        dims = (count, self.m.size, self.n.size)
        buffer, first = scratch("part", out.dtype, product(dims))
        parts = View(self.sizes, out.dtype, first, dims, row_major(dims), buffer)
        whole = self.views
        with b.loop(self.sizes.expr(count), "parallel", hint="block") as block:
            start = b.let(E.mul(block, most), "start")
            left = E.sub(self.sizes.expr(group.size), start)
            here = b.let(E.maximum(E.minimum(left, most), E.index(0)), "share")
            mine = parts.row(block)
            fill(b, mine, E.const(0, out.dtype))
            at = self._moved([v.offset for v in whole], start, group)
            with b.loop(here) as i:
                at = self._moved(at, i, group)
                m, n, k = (self.sizes.expr(g.size) for g in (self.m, self.n, self.k))
                b.gemm(m, n, k, self.matrix(0, at[0], self.m, self.k),
                       self.matrix(1, at[1], self.k, self.n),
                       Matrix(buffer, mine.offset, n, E.index(1)), accumulate=True)
        self._add_parts(b, parts)

    def _add_parts(self, b: E.Builder, parts: View) -> None:
        """out (+)= the parts, one after another."""
        out = self.views[2]
        if not self.accumulate:
            fill(b, out, E.const(0, out.dtype))
        assert out.buffer is not None
        rows, cols = (self.sizes.expr(g.strides[2]) for g in (self.m, self.n))
        with b.loop(self.sizes.expr(parts.dims[0])) as part, \
                b.loop(self.sizes.expr(self.m.size)) as i, \
                b.loop(self.sizes.expr(self.n.size), "vector") as j:
            place = E.add(E.add(out.offset, E.mul(i, rows)), E.mul(j, cols))
            b.store(out.buffer, place, parts.element([part, i, j]), "add")

    def small_sum(self) -> bool:
        """Is it a sum over one loop of products whose result is small?"""
        size = (self.m.size * self.n.size).const
        return len(self.deep) == 1 and not self.outer and size is not None and size <= SMALL

    def shares_in_step(self, tile: Tiling | None) -> Dim | None:
        """Into how many parts threads should cut a product with packed weights in a step: as many
        as are left over by the tiles of the batch.  None where the weights are few."""
        weights = (self.n.size * self.k.size).const
        if weights is None or weights < STEP_WORK:
            return None
        rows = tile.whole(self.m.size) if tile else self.m.size
        left = floordiv(dim(THREADS), tile.count) if tile else dim(THREADS)
        return maximum(dim(1), minimum(left, floordiv(rows * weights, dim(STEP_WORK))))


def _forwards(op: Dot, views: tuple[View, View, View]) -> tuple[View, View, View]:
    """The operands with every axis that all of them walk backwards walked forwards: the order of
    a product's terms is free, and axes that lie behind one another join."""
    flipped = list(views)
    for label in {*op.a, *op.b}:
        places = [(k, names.index(label)) for k, names in enumerate((op.a, op.b, op.out))
                  if label in names]
        strides = [views[k].strides[axis] for k, axis in places]
        if all(s != 0 and nonnegative(-s) for s in strides):
            for k, axis in places:
                flipped[k] = flipped[k].flip(axis)
    return flipped[0], flipped[1], flipped[2]


def _pick(groups: list[Group]) -> Group:
    """The group that Gemm itself walks: the innermost one."""
    return groups[-1] if groups else Group(dim(1), [dim(0)] * 3)
