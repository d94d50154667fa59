"""Take and Put as loops: every index is checked before it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tinygraph.dtypes import int64
from tinygraph.graph import Value
from tinygraph.loops import build as E
from tinygraph.loops.language import Binary, Cast, Expr, Select
from tinygraph.lowering.nest import loop_order
from tinygraph.lowering.view import View

if TYPE_CHECKING:
    from tinygraph.lowering.region import Region


def lower_take(region: Region, out: Value, x: Value, index: Value, axis: int) -> None:
    """out[.., i.., ..] = x[.., index[i..], ..]"""
    source, indices, target = region.view(x), region.view(index), region.allocate(out)
    site = _site(region, out, x, index, axis)

    def stage(b: E.Builder) -> None:
        def inner(i: list[Expr], at: list[Expr]) -> None:
            assert target.buffer is not None
            b.store(target.buffer, target.flat(i), source.element(at))

        _indexed(b, target, source, indices, axis, site, inner, unique=True)

    region.add(stage, out)


def lower_put(region: Region, out: Value, x: Value, index: Value, y: Value, axis: int, mode: str
              ) -> None:
    """out = x, then out[.., index[i..], ..] = or += y[.., i.., ..]"""
    base, indices, values = region.view(x), region.view(index), region.view(y)
    target = region.allocate(out)
    site = _site(region, out, x, index, axis)
    region.add(region.copy_nest(base, target))

    def stage(b: E.Builder) -> None:
        def inner(i: list[Expr], at: list[Expr]) -> None:
            assert target.buffer is not None
            b.store(target.buffer, target.flat(at), values.element(i),
                    "add" if mode == "add" else None)

        _indexed(b, values, target, indices, axis, site, inner)

    region.add(stage, out)


def _site(region: Region, out: Value, x: Value, index: Value, axis: int) -> int:
    return region.storage.index_site(region.named(x), region.named(index), axis, out.source)


def _indexed(b: E.Builder, walked: View, indexed: View, indices: View, axis: int, site: int,
             inner: Callable[[list[Expr], list[Expr]], None], unique: bool = False) -> None:
    """Loops over ``walked``, whose axes are those of ``indexed`` with ``axis`` replaced by the
    axes of ``indices``; every index is checked before it is used.  ``unique``: no element is
    written twice, even where indices are equal."""
    rank = len(indices.dims)
    i: list[Expr] = [E.index(0)] * len(walked.dims)
    at: list[Expr] = [E.index(0)] * len(indexed.dims)
    size = indexed.sizes.expr(indexed.dims[axis])
    index_axes = list(range(axis, axis + rank))
    others = [k for k in loop_order(walked.dims, None) if k not in index_axes]
    order = [k for k in index_axes if walked.dims[k] != 1] + others

    def find() -> None:
        raw = indices.element(i[axis:axis + rank])
        raw = b.let(raw if raw.dtype is int64 else Cast(raw, int64), "raw")
        wrapped = b.let(Select(Binary("lt", raw, E.index(0)), E.add(raw, size), raw), "at")
        inside = Binary("and", Binary("ge", wrapped, E.index(0)), Binary("lt", wrapped, size))
        b.check(inside, site, (raw, size))
        at[axis] = wrapped

    def level(rest: list[int], found: bool) -> None:
        if not found and not any(k in index_axes for k in rest):
            find()
            found = True
        if not rest:
            inner(i, at)
            return
        k = rest[0]
        apart = unique or k not in index_axes
        with b.loop(walked.sizes.expr(walked.dims[k]), "independent" if apart else "serial") as var:
            i[k] = var
            if k not in index_axes:
                at[k if k < axis else k - rank + 1] = var
            level(rest[1:], found)

    level(order, False)
