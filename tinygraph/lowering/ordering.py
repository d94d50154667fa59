"""Sorting, searching and checking, written in the loop language.

``argsort`` is a bottom-up merge sort (Knuth, The Art of Computer Programming, volume 3, section
5.2.4): runs of 1, 2, 4, ... elements are merged from one half of the scratch memory into the other.
It takes n log n steps whatever the order is, and keeps equal elements in theirs.  What is compared
are integers that order as the elements do.  For back ends of many threads, every element finds its
place in the merged run by itself, by halving in the other run; then all of a pass are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinygraph.dims import THREADS, Dim, at_most, dim, floordiv, is_late, maximum, minimum, product
from tinygraph.dtypes import DType, bool_, dtype, int64
from tinygraph.loops import build as E
from tinygraph.loops.language import Binary, Buffer, Cast, Expr, Load, Select, Unary, Var
from tinygraph.lowering.nest import loop_order
from tinygraph.lowering.storage import Site
from tinygraph.lowering.view import View

if TYPE_CHECKING:
    from tinygraph.graph import Value
    from tinygraph.lowering.region import Region

ZERO, ONE = E.index(0), E.index(1)
ONE_PART = dim(1)
SHARE = 1 << 12  # elements that are worth a thread
LONGEST = 40  # binary digits of the longest row that can be sorted


def lower_argsort(region: Region, out: Value, x: Value) -> None:
    """A stage that sorts ``x`` along its last axis, row by row, in scratch memory."""
    source, target = region.view(x), region.allocate(out)
    axes = loop_order(target.dims[:-1], None)
    if region.storage.target.apart:
        size = product(target.dims) * 2
        keys = region.storage.scratch("keys", _ordered(x.type.dtype), size)
        places = region.storage.scratch("places", int64, size)
        region.add(_RankSort(source, target, keys, places).emit, out)
        return
    parts = _parts(region, target.dims, axes)
    count = x.type.dims[-1] * 2
    keys = region.storage.scratch("keys", _ordered(x.type.dtype), count * parts)
    places = region.storage.scratch("places", int64, count * parts)
    work = _MergeSort(source, target, keys, places)
    region.add(lambda b: _for_each(b, target, axes, work.emit, parts), out)


def lower_searchsorted(region: Region, out: Value, x: Value, v: Value, side: str) -> None:
    """A stage that looks every element of ``v`` up in the sorted ``x`` by halving."""
    work = _Search(region.view(x), region.view(v), region.allocate(out), side)
    axes = loop_order(work.target.dims, None)
    parts = ONE_PART if region.storage.target.apart else _parts(region, work.target.dims, axes)
    region.add(lambda b: _for_each(b, work.target, axes, work.emit, parts, "independent"), out)


def lower_bounded(region: Region, out: Value, x: Value, size: Value, message: str) -> None:
    """A stage that copies ``x`` and checks every element against ``size``."""
    source, limit, target = region.view(x), region.view(size), region.allocate(out)
    where = f", at {out.source}" if out.source else ""
    region.storage.sites.append(Site(IndexError, message + where))
    site = len(region.storage.sites) - 1

    def body(b: E.Builder, indices: list[Expr], part: Expr) -> None:
        assert target.buffer is not None
        value, end = b.let(source.element(indices), "x"), b.let(limit.element([]), "end")
        inside = Binary("and", Binary("ge", value, ZERO), Binary("lt", value, end))
        b.check(inside, site, (value, end))
        b.store(target.buffer, target.flat(indices), value)

    region.add(lambda b: _for_each(b, target, loop_order(target.dims, None), body,
                                  mode="independent"), out)


def _parts(region: Region, dims: Sequence[Dim], axes: Sequence[int]) -> Dim:
    """Into how many parts the outermost of the loops over ``axes`` falls, for threads to share:
    one per thread, but each of some work."""
    whole = product(tuple(dims))
    if region.outer is not None or not axes or is_late(whole) or (
            whole.const is not None and whole.const < 2 * SHARE):
        return dim(1)
    most = minimum(dims[axes[0]], dim(THREADS))
    return maximum(dim(1), minimum(most, floordiv(whole, dim(SHARE))))


def _for_each(b: E.Builder, view: View, axes: Sequence[int],
              body: Callable[[E.Builder, list[Expr], Expr], None], parts: Dim = ONE_PART,
              mode: str = "serial") -> None:
    """Loops over ``axes`` of ``view``, the first in ``parts``, and ``body`` inside of them."""
    indices: list[Expr] = [ZERO] * len(view.dims)

    def level(rest: Sequence[int], part: Expr) -> None:
        if not rest:
            body(b, indices, part)
            return
        with b.loop(view.sizes.expr(view.dims[rest[0]]), mode) as i:
            indices[rest[0]] = i
            level(rest[1:], part)

    if parts == 1:
        level(axes, ZERO)
        return
    size, count = view.sizes.expr(view.dims[axes[0]]), view.sizes.expr(parts)
    with b.loop(count, "parallel", hint="part") as part:
        first, end = (b.let(E.floordiv(E.mul(k, size), count), hint)
                      for k, hint in ((part, "first"), (E.add(part, ONE), "end")))
        with b.loop(E.sub(end, first), mode) as i:
            indices[axes[0]] = E.add(first, i)
            level(axes[1:], part)


def _ordered(kind: DType) -> DType:
    """The dtype of the keys of elements of ``kind``."""
    if kind.is_float:
        return dtype(f"int{kind.bits}")
    return dtype("int8") if kind is bool_ else kind


def _key(b: E.Builder, x: Expr) -> Expr:
    """An integer that orders as ``x`` does.

    The bits of floats order as integers do, but for those below zero, which run the other way.
    Both zeros are one key, every nan is the largest, and denormals keep apart.
    """
    kind = _ordered(x.dtype)
    if not x.dtype.is_float:
        return x if kind is x.dtype else Cast(x, kind)
    x = b.let(x, "element")
    least, most = (E.const(limit, kind) for limit in (-2 ** (kind.bits - 1),
                                                      2 ** (kind.bits - 1) - 1))
    raw = b.let(Unary("to_bits", x), "raw")
    bits = b.let(Select(Binary("eq", raw, least), E.const(0, kind), raw), "bits")
    mirror = Binary("and", Binary("shr", bits, E.const(kind.bits - 1, kind)), most)
    return Select(Unary("isnan", x), most, Binary("xor", bits, mirror))


@dataclass
class _Search:
    x: View
    v: View
    target: View
    side: str

    def emit(self, b: E.Builder, indices: list[Expr], part: Expr) -> None:
        """Halve the part of x in which the place must be, until it is empty."""
        assert self.target.buffer is not None
        wanted = b.let(_key(b, self.v.element(indices)), "wanted")
        low, length = (b.register(int64, hint=hint) for hint in ("low", "length"))
        b.store(low, ZERO, ZERO)
        b.store(length, ZERO, self.x.sizes.expr(self.x.dims[0]))

        def before(middle: Expr) -> Expr:
            here = b.let(_key(b, self.x.element([middle])), "here")
            return Binary("lt" if self.side == "left" else "le", here, wanted)

        _halve(b, low, length, before)
        b.store(self.target.buffer, self.target.flat(indices), Load(low, ZERO))


@dataclass
class _Sort:
    """``keys`` and ``places``: memory for 2n elements each, per part (or per row), and where they
    begin: what is sorted so far lies in one half, n elements long, and moves to the other."""

    source: View
    target: View
    keys: tuple[Buffer, Expr]
    places: tuple[Buffer, Expr]

    @staticmethod
    def _at(memory: tuple[Buffer, Expr], index: Expr) -> Expr:
        buffer, start = memory
        return Load(buffer, E.add(start, index))

    def _put(self, b: E.Builder, index: Expr, key: Expr, place: Expr) -> None:
        for (buffer, start), value in ((self.keys, key), (self.places, place)):
            b.store(buffer, E.add(start, index), value)


class _MergeSort(_Sort):
    """Runs are merged element by element."""

    def emit(self, b: E.Builder, indices: list[Expr], part: Expr) -> None:
        """Sort the row at ``indices``."""
        n = self.target.sizes.expr(self.target.dims[-1])
        base = E.mul(part, E.mul(n, E.index(2)))
        with b.loop(n, "vector") as i:
            indices[-1] = i
            self._put(b, E.add(base, i), _key(b, self.source.element(indices)), i)
        half = b.register(int64, hint="half")
        width = b.register(int64, hint="width")
        b.store(half, ZERO, ZERO)
        b.store(width, ZERO, ONE)
        with b.while_(Binary("lt", Load(width, ZERO), n)):
            run, old = b.let(Load(width, ZERO), "run"), b.let(Load(half, ZERO), "old")
            pair, new = b.let(E.mul(run, E.index(2)), "pair"), b.let(E.sub(n, old), "new")
            with b.loop(E.floordiv(E.add(n, E.sub(pair, ONE)), pair)) as k:
                low = b.let(E.mul(k, pair), "low")
                self._merge(b, b.let(E.add(base, old), "here"), b.let(E.add(base, new), "there"),
                            low, b.let(E.minimum(E.add(low, run), n), "middle"),
                            b.let(E.minimum(E.add(low, pair), n), "high"))
            b.store(half, ZERO, new)
            b.store(width, ZERO, pair)
        assert self.target.buffer is not None
        done = b.let(Load(half, ZERO), "done")
        with b.loop(n, "vector") as i:
            indices[-1] = i
            b.store(self.target.buffer, self.target.flat(indices),
                    self._at(self.places, E.add(E.add(base, done), i)))

    def _merge(self, b: E.Builder, old: Var, new: Var, low: Var, middle: Var, high: Var) -> None:
        """The runs [low, middle) and [middle, high), of which the second may be empty, as one.

        Both heads are read in every round; at the end of a run its last element stands for what
        is not there, so that no place outside of the run is read.
        """
        left = b.register(int64, hint="left")
        b.store(left, ZERO, low)
        with b.loop(E.sub(high, low)) as k:
            i = b.let(Load(left, ZERO), "i")
            j = b.let(E.sub(E.add(k, E.add(low, middle)), i), "j")
            x = b.let(self._at(self.keys, E.add(old, E.minimum(i, E.sub(middle, ONE)))), "x")
            y = b.let(self._at(self.keys, E.add(old, E.minimum(j, E.sub(high, ONE)))), "y")
            wins = Binary("or", Binary("ge", j, high), Binary("le", x, y))
            first = b.let(Binary("and", Binary("lt", i, middle), wins), "first")
            taken = E.add(old, Select(first, i, j))
            place = b.let(self._at(self.places, taken), "place")
            self._put(b, E.add(E.add(new, low), k), Select(first, x, y), place)
            b.store(left, ZERO, E.add(i, Cast(first, int64)))


class _RankSort(_Sort):
    """Every element of two runs finds its place in the merged one by itself.

    Of equal elements those of the first run come first: an element of the first run has those of
    the second before it that are less, one of the second also those of the first that are equal.
    """

    def emit(self, b: E.Builder) -> None:
        """Sort all rows."""
        sizes, size = self.target.sizes, self.target.dims[-1]
        n, passes = sizes.expr(size), sizes.expr(_doublings(at_most(size)))

        def begin(indices: list[Expr], base: Expr) -> None:
            key = _key(b, self.source.element(indices))
            self._put(b, E.add(base, indices[-1]), key, indices[-1])

        def end(indices: list[Expr], base: Expr) -> None:
            assert self.target.buffer is not None
            place = self._at(self.places, E.add(E.add(base, half), indices[-1]))
            b.store(self.target.buffer, self.target.flat(indices), place)

        self._everywhere(b, begin)
        with b.loop(passes, hint="doubling") as doubling:
            old = b.let(E.mul(E.mod(doubling, E.index(2)), n), "old")
            new = b.let(E.sub(n, old), "new")
            self._everywhere(b, lambda indices, base: self._move(
                b, indices[-1], doubling, E.add(base, old), E.add(base, new)))
        half = b.let(E.mul(E.mod(passes, E.index(2)), n), "half")
        self._everywhere(b, end)

    def _everywhere(self, b: E.Builder, body: Callable[[list[Expr], Expr], None]) -> None:
        """Loops over all elements; ``body`` is given where a row's memory begins."""
        indices: list[Expr] = [ZERO] * len(self.target.dims)
        sizes, dims = self.target.sizes, self.target.dims

        def level(rest: Sequence[int], row: Expr) -> None:
            if rest:
                with b.loop(sizes.expr(dims[rest[0]]), "independent") as i:
                    indices[rest[0]] = i
                    level(rest[1:], E.add(E.mul(row, sizes.expr(dims[rest[0]])), i))
                return
            with b.loop(sizes.expr(dims[-1]), "independent") as i:
                indices[-1] = i
                body(indices, b.let(E.mul(row, E.mul(sizes.expr(dims[-1]), E.index(2))), "base"))

        level(loop_order(dims[:-1], None), ZERO)

    def _move(self, b: E.Builder, i: Expr, doubling: Var, old: Expr, new: Expr) -> None:
        """Element ``i`` to its place in the pair of runs, each of 2^doubling elements."""
        n = self.target.sizes.expr(self.target.dims[-1])
        x = b.let(self._at(self.keys, E.add(old, i)), "x")
        run = b.let(Binary("shr", i, doubling), "run")
        first = b.let(Binary("eq", Binary("and", run, ONE), ZERO), "first")
        start = b.let(Binary("shl", run, doubling), "start")
        width = b.let(Binary("shl", ONE, doubling), "width")
        pair = b.let(Select(first, start, E.sub(start, width)), "pair")
        other = b.let(Select(first, E.minimum(E.add(start, width), n), pair), "other")
        stop = Select(first, E.minimum(E.add(other, width), n), start)
        low, length = (b.register(int64, hint=hint) for hint in ("low", "length"))
        b.store(low, ZERO, other)
        b.store(length, ZERO, E.sub(stop, other))
        _halve(b, low, length, lambda middle: self._before(b, middle, old, x, first))
        rank = E.add(E.sub(i, start), E.sub(Load(low, ZERO), other))
        place = b.let(self._at(self.places, E.add(old, i)), "place")
        self._put(b, b.let(E.add(new, E.add(pair, rank)), "there"), x, place)

    def _before(self, b: E.Builder, middle: Expr, old: Expr, x: Expr, first: Expr) -> Expr:
        """Does the element at ``middle`` of the other run come before ``x``?"""
        y = b.let(self._at(self.keys, E.add(old, middle)), "y")
        return Select(first, Binary("lt", y, x), Binary("le", y, x))


def _doublings(size: Dim) -> Dim:
    """How often 1 is doubled until it is at least ``size``."""
    last = maximum(size, ONE_PART) - 1
    if last.const is not None:
        return dim(last.const.bit_length())
    total = dim(0)
    for k in range(LONGEST):
        total = total + minimum(ONE_PART, floordiv(last, dim(1 << k)))
    return total


def _halve(b: E.Builder, low: Buffer, length: Buffer, before: Callable[[Var], Expr]) -> None:
    """Halve the ``length`` elements from ``low`` on until none is left: ``low`` is then the first
    of which ``before`` does not hold."""
    with b.while_(Binary("gt", Load(length, ZERO), ZERO)):
        start, size = b.let(Load(low, ZERO), "start"), b.let(Load(length, ZERO), "size")
        half = b.let(Binary("shr", size, ONE), "half")
        middle = b.let(E.add(start, half), "middle")
        beyond = b.let(before(middle), "beyond")
        b.store(low, ZERO, Select(beyond, E.add(middle, ONE), start))
        rest = E.sub(E.sub(size, half), ONE)
        b.store(length, ZERO, Select(beyond, rest, half))
