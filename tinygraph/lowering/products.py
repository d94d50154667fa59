"""A Dot as Gemm statements: its labels sorted into rows, columns, contraction and batch."""

from __future__ import annotations

from collections.abc import Sequence

from tinygraph.dims import Dim, dim, nonnegative
from tinygraph.loops import build as E
from tinygraph.loops.language import Expr, Matrix
from tinygraph.lowering.nest import fill
from tinygraph.lowering.view import View
from tinygraph.ops.linalg import Dot


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


def lower_dot(b: E.Builder, op: Dot, x: View, y: View, out: View) -> None:
    """out = the product, as one Gemm inside loops over what one Gemm cannot walk."""
    x, y, out = views = _forwards(op, (x, y, out))
    in_a, in_b, in_out = set(op.a), set(op.b), set(op.out)
    labels = list(dict.fromkeys((*op.a, *op.b)))
    rows = groups_of([k for k in labels if k in in_a - in_b], op, views)
    cols = groups_of([k for k in labels if k in in_b - in_a], op, views)
    deep = groups_of([k for k in labels if k in (in_a & in_b) - in_out], op, views)
    batch = groups_of([k for k in labels if k in in_a & in_b & in_out], op, views)
    m, n, k = (_pick(g) for g in (rows, cols, deep))
    inner_loops = [g for g in deep if g is not k]
    outer = batch + [g for g in rows if g is not m] + [g for g in cols if g is not n]
    offsets: list[Expr] = [v.offset for v in views]
    sizes = out.sizes

    def gemm(at: list[Expr], accumulate: bool) -> None:
        def matrix(i: int, r: Group, c: Group) -> Matrix:
            buffer = views[i].buffer
            assert buffer is not None
            return Matrix(buffer, at[i], sizes.expr(r.strides[i]), sizes.expr(c.strides[i]))

        b.gemm(sizes.expr(m.size), sizes.expr(n.size), sizes.expr(k.size),
               matrix(0, m, k), matrix(1, k, n), matrix(2, m, n), accumulate)

    def nest(rest: list[Group], at: list[Expr], accumulate: bool) -> None:
        if not rest:
            gemm(at, accumulate)
            return
        with b.loop(sizes.expr(rest[0].size)) as i:
            moved = [E.add(o, E.mul(i, sizes.expr(s)))
                     for o, s in zip(at, rest[0].strides, strict=True)]
            nest(rest[1:], moved, accumulate)

    if inner_loops:
        fill(b, out, E.const(0, out.dtype))
        nest(outer + inner_loops, offsets, True)
    else:
        nest(outer, offsets, False)


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


