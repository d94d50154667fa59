"""Windows as loops: the sum of overlapping windows, and products of what is seen through windows.

A product reads each element of an array that is seen through windows from many places, and its
windows have no one stride for a Gemm to walk.  So the windows at some places (``SPACE`` elements)
are copied to scratch memory, where they lie as one matrix, multiplied, and forgotten: all windows
are never in memory.  So it is where a product makes windows that are added: one image at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinygraph.dims import THREADS, Dim, Sym, at_most, dim, floordiv, maximum, minimum, product
from tinygraph.graph import Node, Value
from tinygraph.loops import build as E
from tinygraph.loops.language import Expr
from tinygraph.lowering.nest import BLOCK, Nest, NestEmitter, Scratch, fill
from tinygraph.lowering.products import SHARE_WORK, Product
from tinygraph.lowering.view import View, row_major
from tinygraph.ops.linalg import Dot
from tinygraph.ops.windows import Sliding, Unwindows, Windows

SPACE = 1 << 18  # elements of windows that are copied at a time: they stay in the nearer caches
BLOCKS = 8  # into so many parts at most a sum over all windows is cut


def add_windows(b: E.Builder, source: View, target: View, sliding: Sliding, shared: bool) -> None:
    """target = 0, then every window of ``source`` is added where it lies in ``target``.

    shared: may threads share it, by the axes over which no window slides?
    """
    rank = len(target.dims)
    kept, inside = sliding.places(rank)
    slid = [kept[axis] for axis in sliding.axes]
    free = [k for k in kept if k not in slid and source.dims[k] != 1]
    whole = target.windows(sliding)
    sizes = target.sizes
    first = free[0] if shared and free and free[0] == 0 else None

    def levels(order: Sequence[int], at: list[Expr]) -> None:
        if not order:
            assert whole.buffer is not None
            b.store(whole.buffer, whole.flat(at), source.element(at), "add")
            return
        # For one place in the window, different places of the window are different elements.
        mode = "vector" if len(order) == 1 else "serial"
        with b.loop(sizes.expr(source.dims[order[0]]), mode) as i:
            at[order[0]] = i
            levels(order[1:], at)

    def some(at: list[Expr], rest: list[int], part: View) -> None:
        fill(b, part, E.const(0, target.dtype))
        order = [k for k in (*rest, *inside, *slid) if source.dims[k] != 1]
        order.sort(key=lambda k: k == kept[-1])
        levels(order, at)

    zero: list[Expr] = [E.index(0)] * len(source.dims)
    if first is None:
        some(zero, free, target)
        return
    rows, count = _blocks(source.dims[0], product(source.dims[1:]))
    with b.loop(sizes.expr(count), "parallel", hint="block") as block:
        start = b.let(E.mul(block, sizes.expr(rows)), "start")
        left = E.sub(sizes.expr(source.dims[0]), start)
        with b.loop(b.let(E.minimum(left, sizes.expr(rows)), "here")) as i:
            row = b.let(E.add(start, i), "row")
            some([row, *zero[1:]], free[1:], target.row(row))


def _blocks(size: Dim, inner: Dim) -> tuple[Dim, Dim]:
    """How many rows a thread takes at a time, and how often."""
    inner = at_most(inner)
    rows = maximum(dim(1), floordiv(dim(BLOCK) + inner - 1, maximum(inner, dim(1))))
    return rows, floordiv(size + rows - 1, rows)


@dataclass
class Roles:
    """The labels of a product of windows with something else, by what becomes of them.

    around  walked by loops: of a batch, or beside the places (images)
    places  where the windows lie; the first of them is cut into blocks
    summed  are the places summed over, and not an axis of the result?
    """

    around: list[int]
    places: list[int]
    summed: bool


def windowed(op: Dot, x: Value, y: Value) -> tuple[Dot, Value, Value, Roles] | None:
    """The product with the operand that is windows first, and the roles of its labels; None where
    neither is, or where windows are single elements side by side, as Gemm reads them."""
    for turned, v, w in ((op, x, y), (Dot(op.b, op.a, op.out), y, x)):
        if v.node is not None and isinstance(v.node.op, Windows):
            sliding = v.node.op.sliding
            found = roles(turned, sliding)
            plain = all(n == 1 for n in sliding.sizes) and all(s == 1 for s in sliding.strides)
            if found is not None and not plain:
                return turned, v, w, found
    return None


def roles(op: Dot, sliding: Sliding) -> Roles | None:
    """How to compute a product whose operand a is windows, or None where they are no matrix of
    windows by places."""
    rank = len(op.a) - len(sliding.axes)
    kept, inside = sliding.places(rank)
    places = [op.a[kept[axis]] for axis in sliding.axes]
    window = {op.a[k] for k in inside}
    batch = [k for k in op.a if k in op.b and k in op.out]
    summed = [k for k in op.a if k in op.b and k not in op.out]
    rows = [k for k in op.a if k not in op.b]
    for mine, others, is_summed in ((rows, summed, False), (summed, rows, True)):
        if set(places) <= set(mine) and window <= set(others):
            beside = [k for k in mine if k not in places]
            return Roles(batch + beside, places, is_summed)
    return None


class WindowProduct:
    """``out (+)= a . b`` where a is seen through windows.

    views    of a, b and out;  op  their labels, a's first
    """

    def __init__(self, op: Dot, views: tuple[View, View, View], found: Roles,
                 accumulate: bool) -> None:
        self.op, self.roles, self.accumulate = op, found, accumulate
        self.views = _plain_filters(op, views)
        self.sizes = views[2].sizes
        self.labels = dict(zip(op.a, self.views[0].dims, strict=True))
        self.around = [k for k in found.around if self.labels[k] != 1]
        self.block = found.places[0]
        self.patch = [k for k in op.a if k not in self.around]
        one = at_most(product(tuple(self.labels[k] for k in self.patch if k != self.block)))
        size = self.labels[self.block]
        self.most = maximum(dim(1), minimum(size, floordiv(dim(SPACE), maximum(one, dim(1)))))
        self.blocks = floordiv(size + self.most - 1, self.most)
        self.space = one * self.most

    def turns(self) -> Dim:
        """How many times windows are copied and multiplied."""
        return product(tuple(self.labels[k] for k in self.around)) * self.blocks

    def work(self) -> Dim:
        """The multiply-adds."""
        alone = [d for k, d in zip(self.op.b, self.views[1].dims, strict=True)
                 if k not in self.labels]
        return product((*self.labels.values(), *alone))

    def parts(self, shared: bool) -> Dim:
        """Into how many parts the turns are cut.  Where they are summed, that must not depend on
        how many threads there are."""
        if not shared:
            return dim(1)
        most = minimum(self.turns(), floordiv(self.work(), dim(SHARE_WORK)))
        limit = dim(BLOCKS) if self.roles.summed else dim(THREADS)
        return maximum(dim(1), minimum(limit, most))

    def emit(self, b: E.Builder, scratch: Scratch, shared: bool) -> None:
        """Write it; ``shared``: may threads share it?"""
        parts, out = self.parts(shared), self.views[2]
        buffer, first = scratch("windows", out.dtype, self.space * parts)
        zero = E.const(0, out.dtype)
        sums = None
        if self.roles.summed:
            if parts != 1:
                dims = (parts, *out.dims)
                held, start = scratch("part", out.dtype, product(dims))
                sums = View(self.sizes, out.dtype, start, dims, row_major(dims), held)
            elif not self.accumulate:
                fill(b, out, zero)
        turns = self.sizes.expr(self.turns())
        each = self.sizes.expr(floordiv(self.turns() + (parts - 1), parts))

        def part(p: Expr) -> None:
            start = b.let(E.mul(p, each), "start")
            here = b.let(E.maximum(E.minimum(E.sub(turns, start), each), E.index(0)), "here")
            mine = out
            if sums is not None:
                mine = sums.row(p)
                fill(b, mine, zero)
            at = b.let(E.add(first, E.mul(p, self.sizes.expr(self.space))), "at")
            space = replace(out, buffer=buffer, offset=at, dims=(), strides=())
            with b.loop(here, hint="turn") as i:
                self._turn(b, b.let(E.add(start, i), "turn"), space, mine)

        if parts == 1:
            part(E.index(0))
        else:
            with b.loop(self.sizes.expr(parts), "parallel", hint="part") as p:
                part(p)
        if sums is not None:
            self._add(b, sums, zero)

    def _add(self, b: E.Builder, sums: View, zero: E.Const) -> None:
        """out (+)= the parts, one after another."""
        out = self.views[2]
        if not self.accumulate:
            fill(b, out, zero)
        order = [0, *(k for k in range(1, len(sums.dims)) if sums.dims[k] != 1)]
        at: list[Expr] = [E.index(0)] * len(sums.dims)

        def level(rest: list[int]) -> None:
            if not rest:
                assert out.buffer is not None
                b.store(out.buffer, out.flat(at[1:]), sums.element(at), "add")
                return
            mode = "vector" if len(rest) == 1 and rest[0] else "serial"
            with b.loop(self.sizes.expr(sums.dims[rest[0]]), mode) as i:
                at[rest[0]] = i
                level(rest[1:])

        level(order)

    def _turn(self, b: E.Builder, turn: Expr, space: View, out: View) -> None:
        """Copy the windows of one turn and multiply them."""
        at: dict[int, Expr] = {}
        rest = turn
        for label in reversed([*self.around, self.block]):
            size = self.sizes.expr(self.blocks if label == self.block else self.labels[label])
            if label == ([*self.around, self.block])[0]:
                at[label] = rest
                break
            at[label] = b.let(E.mod(rest, size), "i")
            rest = b.let(E.floordiv(rest, size), "i")
        start = b.let(E.mul(at[self.block], self.sizes.expr(self.most)), "start")
        left = E.sub(self.sizes.expr(self.labels[self.block]), start)
        here = self.labels[self.block]
        if self.blocks != 1:
            sym = Sym("here")
            self.sizes.local[sym] = b.let(E.minimum(left, self.sizes.expr(self.most)), "here")
            here = dim(sym)
        at[self.block] = start
        names = (self.op.a, self.op.b, self.op.out)
        labels, views = zip(*(self._part(n, v, at, here) for n, v in zip(
            names, (self.views[0], self.views[1], out), strict=True)), strict=True)
        windows = views[0]
        copied, order = self._matrix(labels[0], windows, space)
        NestEmitter(Nest(copied.dims, copies=[(windows.transpose(order), copied)]), b).run()
        op = Dot(tuple(labels[0][k] for k in order), labels[1], labels[2])
        adding = self.accumulate or self.roles.summed
        Product(op, copied, views[1], views[2], adding).emit(b)

    def _matrix(self, labels: Sequence[int], windows: View, space: View
                ) -> tuple[View, list[int]]:
        """Where the windows of a turn are copied to: places innermost, as they lie in memory."""
        places = [labels.index(k) for k in self.roles.places if k in labels]
        order = [k for k in range(len(labels)) if k not in places] + places
        dims = tuple(windows.dims[k] for k in order)
        return replace(space, dims=dims, strides=row_major(dims)), order

    def _part(self, names: Sequence[int], view: View, at: dict[int, Expr], here: Dim
              ) -> tuple[tuple[int, ...], View]:
        """The part of an operand that one turn reads or writes, and its labels."""
        offset, kept = view.offset, []
        for k, label in enumerate(names):
            if label in at:
                offset = E.add(offset, E.mul(at[label], self.sizes.expr(view.strides[k])))
            if label not in at or label == self.block:
                kept.append(k)
        dims = tuple(here if names[k] == self.block else view.dims[k] for k in kept)
        part = replace(view, offset=offset, dims=dims,
                       strides=tuple(view.strides[k] for k in kept))
        return tuple(names[k] for k in kept), part


class UnwindowProduct:
    """target = the windows ``a . b``, each added where it lies.

    views  of a and b;  op  their labels, with those of the windows
    around  the axes of the target that windows do not slide over, and a or both have
    """

    def __init__(self, op: Dot, views: tuple[View, View], target: View, sliding: Sliding) -> None:
        rank = len(target.dims)
        kept, inside = sliding.places(rank)
        self.places = [op.out[kept[axis]] for axis in sliding.axes]
        if not set(self.places) <= set(op.a):
            op, views = Dot(op.b, op.a, op.out), views[::-1]
        self.op, self.views, self.target, self.sizes = op, views, target, target.sizes
        self.around = [axis for axis in range(rank - 1) if axis not in sliding.axes
                       and op.out[axis] in op.a and target.dims[axis] != 1]
        left = [axis for axis in range(rank) if axis not in self.around]
        self.sliding = replace(sliding, axes=tuple(left.index(axis) for axis in sliding.axes))
        self.labels = [k for at, k in enumerate(op.out) if at not in self.around]
        sizes = dict(zip(op.out, sliding.dims(target.dims), strict=True))
        self.dims = tuple(sizes[k] for k in self.labels)
        alone = [d for k, d in zip(op.a, self.views[0].dims, strict=True) if k not in op.out]
        self.work = product((*sizes.values(), *alone))

    def emit(self, b: E.Builder, scratch: Scratch, shared: bool) -> None:
        """Write it; ``shared``: may threads share it?"""
        turns = product(tuple(self.target.dims[axis] for axis in self.around))
        parts = dim(1)
        if shared:
            most = minimum(turns, floordiv(self.work, dim(SHARE_WORK)))
            parts = maximum(dim(1), minimum(dim(THREADS), most))
        space = product(self.dims)
        buffer, first = scratch("windows", self.target.dtype, space * parts)
        order = [k for k, label in enumerate(self.labels) if label not in self.places]
        order += [self.labels.index(label) for label in self.places]
        each = self.sizes.expr(floordiv(turns + (parts - 1), parts))
        with b.loop(self.sizes.expr(parts), "parallel" if parts != 1 else "serial") as p:
            start = b.let(E.mul(p, each), "start")
            left = E.sub(self.sizes.expr(turns), start)
            at = b.let(E.add(first, E.mul(p, self.sizes.expr(space))), "at")
            made = View(self.sizes, self.target.dtype, at, self.dims, row_major(self.dims, order),
                        buffer)
            here = b.let(E.maximum(E.minimum(left, each), E.index(0)), "here")
            with b.loop(here, hint="turn") as i:
                self._turn(b, b.let(E.add(start, i), "turn"), made)

    def _turn(self, b: E.Builder, turn: Expr, made: View) -> None:
        """Make the windows of one turn and add them."""
        at: dict[int, Expr] = {}
        for axis in reversed(self.around):
            size = self.sizes.expr(self.target.dims[axis])
            at[self.op.out[axis]] = b.let(E.mod(turn, size), "i")
            turn = b.let(E.floordiv(turn, size), "i")
        (a, one), (w, two) = (_at(names, view, at) for names, view in zip(
            (self.op.a, self.op.b), self.views, strict=True))
        Product(Dot(a, w, tuple(self.labels)), one, two, made).emit(b)
        names = [self.op.out[axis] if axis in self.around else -1
                 for axis in range(len(self.target.dims))]
        add_windows(b, made, _at(names, self.target, at)[1], self.sliding, False)


def _at(names: Sequence[int], view: View, at: dict[int, Expr]) -> tuple[tuple[int, ...], View]:
    """The part of ``view`` where its axes ``names`` have the indices ``at``, and its labels."""
    offset, kept = view.offset, []
    for k, label in enumerate(names):
        if label in at:
            offset = E.add(offset, E.mul(at[label], view.sizes.expr(view.strides[k])))
        else:
            kept.append(k)
    part = replace(view, offset=offset, dims=tuple(view.dims[k] for k in kept),
                   strides=tuple(view.strides[k] for k in kept))
    return tuple(names[k] for k in kept), part


def unwindowed(nodes: Sequence[Node], outputs: Sequence[Value]) -> set[Value]:
    """The products that nothing reads but an Unwindows: windows that are added as they are made,
    and have an axis of images (or the like) that one can go along."""
    readers: dict[Value, list[Node | None]] = {v: [None] for v in outputs}
    for node in nodes:
        for x in node.inputs:
            readers.setdefault(x, []).append(node)
    found = set()
    for node in nodes:
        (reader, *more) = readers.get(node.outputs[0], [None])
        if not isinstance(node.op, Dot) or more or reader is None or not isinstance(
                reader.op, Unwindows):
            continue
        sliding, rank, op = reader.op.sliding, len(reader.op.dims), node.op
        kept, inside = sliding.places(rank)
        places, window = ({op.out[k] for k in ks} for ks in (
            [kept[axis] for axis in sliding.axes], inside))
        for labels, others in ((op.a, op.b), (op.b, op.a)):
            free = [axis for axis in range(rank - 1) if axis not in sliding.axes
                    and op.out[axis] in labels]
            if (places <= set(labels) and window <= set(others) and free
                    and not places & set(others) and not window & set(labels)):
                found.add(node.outputs[0])
    return found


def _plain_filters(op: Dot, views: tuple[View, View, View]) -> tuple[View, View, View]:
    """The operands with every axis that b walks backwards walked forwards: windows are copied, in
    whatever order."""
    flipped = list(views)
    for axis, label in enumerate(op.b):
        first = views[1].strides[axis]
        if label in op.a and label not in op.out and first.terms and first.terms[-1][1] < 0:
            flipped[0] = flipped[0].flip(op.a.index(label))
            flipped[1] = flipped[1].flip(axis)
    return flipped[0], flipped[1], flipped[2]
