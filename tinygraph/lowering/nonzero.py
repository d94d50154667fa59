"""Nonzero as a loop that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygraph.dtypes import int64
from tinygraph.graph import Node
from tinygraph.loops import build as E
from tinygraph.loops.language import Cast, Load

if TYPE_CHECKING:
    from tinygraph.lowering.region import Region


def lower_nonzero(region: Region, node: Node) -> None:
    """The places of true elements one behind the other.  Each place is written where the next true
    one belongs, and stays if it is one: a loop without branches."""
    mask, storage = region.view(node.inputs[0]), region.storage
    total, places = (region.allocate(v) for v in node.outputs)
    ((symbol, _),) = node.op.late()

    def stage(b: E.Builder) -> None:
        zero = E.index(0)
        count = b.register(int64, hint="count")
        b.store(count, zero, zero)
        assert places.buffer is not None and total.buffer is not None
        with b.loop(storage.sizes.expr(mask.dims[0])) as i:
            at = b.let(Load(count, zero), "at")
            b.store(places.buffer, places.flat([at]), i)
            b.store(count, zero, E.add(at, Cast(mask.element([i]), int64)))
        b.store(total.buffer, total.flat([]), Load(count, zero))
        region.learn(b, symbol, Load(count, zero))

    region.add(stage, *node.outputs)
