"""canonical: equal expressions get one form, and what does nothing goes."""

from __future__ import annotations

from tinygraph.graph import Graph
from tinygraph.passes import (
    canonical_arithmetic,
    canonical_reduce,
    canonical_views,
    canonical_windows,
)
from tinygraph.passes.sums import tile_sums
from tinygraph.rewrite.engine import Context, Pass, rewrite

RULES = (*canonical_arithmetic.RULES, *canonical_views.RULES, *canonical_windows.RULES,
         *canonical_reduce.RULES)


def _canonical(graph: Graph, context: Context) -> Graph:
    while True:
        settled = rewrite(graph, RULES, context)
        graph = tile_sums(settled, context)
        if graph.outputs == settled.outputs:
            return graph


canonical = Pass(
    "canonical", "x + 0 --> x and the like, views composed, sums of parts that tile an array "
    "--> concatenate", _canonical)
