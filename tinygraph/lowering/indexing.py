"""Take and Put as loops: every index is checked before it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tinygraph.dims import product
from tinygraph.dtypes import int64
from tinygraph.graph import Value
from tinygraph.loops import build as E
from tinygraph.loops.language import Binary, Cast, Const, Expr, Select
from tinygraph.lowering.nest import loop_order
from tinygraph.lowering.view import View

if TYPE_CHECKING:
    from tinygraph.lowering.region import Region

ZERO = E.index(0)
OWNERS = tuple(4 ** k for k in range(1, 8))  # shares of the places that are written by index
MANY, FEW = 1 << 16, 1 << 8  # threads that a whole GPU, or one block, has work for


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

        if region.storage.target.apart:
            threads = MANY if region.outer is None else FEW
            _owned(b, values, target, indices, axis, site, inner, threads)
        else:
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
    i: list[Expr] = [ZERO] * len(walked.dims)
    at: list[Expr] = [ZERO] * len(indexed.dims)
    size = indexed.sizes.expr(indexed.dims[axis])
    index_axes = list(range(axis, axis + rank))
    others = [k for k in loop_order(walked.dims, None) if k not in index_axes]
    order = [k for k in index_axes if walked.dims[k] != 1] + others

    def level(rest: list[int], found: bool) -> None:
        if not found and not any(k in index_axes for k in rest):
            at[axis] = _checked(b, indices.element(i[axis:axis + rank]), size, site)
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


def _owned(b: E.Builder, walked: View, indexed: View, indices: View, axis: int, site: int,
           inner: Callable[[list[Expr], list[Expr]], None], threads: int) -> None:
    """The same for what may meet at equal indices, by many threads: each goes through all indices
    in order, and writes where the index is its own, modulo the number of owners.  So what is added
    up at an element is added in the order of the indices, however many threads there are."""
    rank = len(indices.dims)
    i: list[Expr] = [ZERO] * len(walked.dims)
    at: list[Expr] = [ZERO] * len(indexed.dims)
    index_axes = list(range(axis, axis + rank))
    others = [k for k in loop_order(walked.dims, None) if k not in index_axes]
    others.sort(key=lambda k: walked.strides[k] == 1)
    size = indexed.sizes.expr(indexed.dims[axis])
    count = walked.sizes.expr(product(tuple(walked.dims[k] for k in others)))
    owners = _owners(b, count, threads)
    last = E.sub(owners, E.index(1))

    def write(owner: Expr) -> None:
        place = _checked(b, indices.element(i[axis:axis + rank]), size, site)
        mine = Binary("and", place, last)
        with b.if_(Binary("eq", mine, owner)):
            # The index itself, written so that it hangs on the owner.
            at[axis] = b.let(E.add(E.sub(place, mine), owner), "own")
            inner(i, at)

    def level(rest: list[int], mode: str, then: Callable[[], None]) -> None:
        if not rest:
            then()
            return
        k = rest[0]
        with b.loop(walked.sizes.expr(walked.dims[k]), mode) as var:
            i[k] = var
            if k not in index_axes:
                at[k if k < axis else k - rank + 1] = var
            level(rest[1:], mode, then)

    with b.loop(owners, "independent", hint="owner") as owner:
        level(others, "independent", lambda: level(
            [k for k in index_axes if walked.dims[k] != 1], "serial", lambda: write(owner)))


def _owners(b: E.Builder, count: Expr, threads: int) -> Expr:
    """How many owners of ``count`` elements each make about so many threads: a power of two."""
    owners: Expr = E.index(1)
    for n in OWNERS:
        if n > threads:
            continue
        fits = E.mul(count, E.index(n))
        if isinstance(fits, Const):
            owners = E.index(n) if int(fits.value) <= threads else owners
        else:
            owners = Select(Binary("le", fits, E.index(threads)), E.index(n), owners)
    return owners if isinstance(owners, Const) else b.let(owners, "owners")


def _checked(b: E.Builder, raw: Expr, size: Expr, site: int) -> Expr:
    """The index ``raw`` counted from the front, checked."""
    raw = b.let(raw if raw.dtype is int64 else Cast(raw, int64), "raw")
    wrapped = b.let(Select(Binary("lt", raw, ZERO), E.add(raw, size), raw), "at")
    inside = Binary("and", Binary("ge", wrapped, ZERO), Binary("lt", wrapped, size))
    b.check(inside, site, (raw, size))
    return wrapped
