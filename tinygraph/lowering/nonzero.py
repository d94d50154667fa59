"""Nonzero as a loop that counts; for back ends of many threads, one that counts in chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygraph.dims import dim, floordiv
from tinygraph.dtypes import int64
from tinygraph.graph import Node
from tinygraph.loops import build as E
from tinygraph.loops.language import Buffer, Cast, Expr, Load
from tinygraph.lowering.view import View

if TYPE_CHECKING:
    from tinygraph.lowering.region import Region

ZERO, ONE = E.index(0), E.index(1)
CHUNK = 256  # elements that a thread counts alone


def lower_nonzero(region: Region, node: Node) -> None:
    """The places of true elements one behind the other."""
    mask, storage = region.view(node.inputs[0]), region.storage
    total, places = (region.allocate(v) for v in node.outputs)
    ((symbol, _),) = node.op.late()
    chunks = floordiv(mask.dims[0] + (CHUNK - 1), dim(CHUNK))
    apart = storage.target.apart and region.outer is None and chunks != 1
    memory = storage.scratch("counts", int64, chunks + 1) if apart else None

    def stage(b: E.Builder) -> None:
        if memory is None:
            count = _counting(b, mask, places)
        else:
            count = _in_chunks(b, mask, places, memory, storage.sizes.expr(chunks))
        assert total.buffer is not None
        b.store(total.buffer, total.flat([]), count)
        region.learn(b, symbol, count)

    region.add(stage, *node.outputs)


def _counting(b: E.Builder, mask: View, places: View) -> Expr:
    """How many there are.  Each place is written where the next true one belongs, and stays if it
    is one: a loop without branches."""
    assert places.buffer is not None
    count = b.register(int64, hint="count")
    b.store(count, ZERO, ZERO)
    with b.loop(mask.sizes.expr(mask.dims[0])) as i:
        at = b.let(Load(count, ZERO), "at")
        b.store(places.buffer, places.flat([at]), i)
        b.store(count, ZERO, E.add(at, Cast(mask.element([i]), int64)))
    return Load(count, ZERO)


def _in_chunks(b: E.Builder, mask: View, places: View, memory: tuple[Buffer, Expr], chunks: Expr
               ) -> Expr:
    """Count in every chunk, add up how many are before it, and write its places behind them.
    ``memory``: for a number per chunk, and behind them how many there are."""
    assert places.buffer is not None
    buffer, begin = memory
    n = mask.sizes.expr(mask.dims[0])
    with b.loop(chunks, "independent", hint="chunk") as chunk:
        first = b.let(E.mul(chunk, E.index(CHUNK)), "first")
        here = b.let(E.minimum(E.sub(n, first), E.index(CHUNK)), "here")
        some = b.register(int64, hint="some")
        b.store(some, ZERO, ZERO)
        with b.loop(here) as i:
            b.store(some, ZERO, Cast(mask.element([E.add(first, i)]), int64), "add")
        b.store(buffer, E.add(begin, chunk), Load(some, ZERO))
    count = b.register(int64, hint="count")
    b.store(count, ZERO, ZERO)
    with b.loop(chunks, hint="chunk") as chunk:
        at = b.let(Load(count, ZERO), "at")
        b.store(count, ZERO, E.add(at, Load(buffer, E.add(begin, chunk))))
        b.store(buffer, E.add(begin, chunk), at)
    whole = E.add(begin, chunks)
    b.store(buffer, whole, Load(count, ZERO))
    with b.loop(chunks, "independent", hint="chunk") as chunk:
        first = b.let(E.mul(chunk, E.index(CHUNK)), "first")
        here = b.let(E.minimum(E.sub(n, first), E.index(CHUNK)), "here")
        next_ = b.register(int64, hint="next")
        b.store(next_, ZERO, Load(buffer, E.add(begin, chunk)))
        with b.loop(here) as i:
            place = b.let(E.add(first, i), "place")
            with b.if_(mask.element([place])):
                b.store(places.buffer, places.flat([Load(next_, ZERO)]), place)
                b.store(next_, ZERO, ONE, "add")
    return Load(buffer, whole)
