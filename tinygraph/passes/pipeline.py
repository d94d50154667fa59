"""The pipeline: the table of contents of the compiler, in the order in which passes run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tinygraph.config import config
from tinygraph.graph import Graph
from tinygraph.passes.canonical import canonical
from tinygraph.passes.dots import label_dots, merge_dots, split_dots
from tinygraph.passes.drop_gradient_nodes import drop_gradient_nodes
from tinygraph.passes.fold import fold
from tinygraph.passes.narrow import narrow
from tinygraph.passes.scan_accumulate import accumulate
from tinygraph.passes.scan_after import after
from tinygraph.passes.scan_before import before
from tinygraph.passes.scan_checkpoint import checkpoint
from tinygraph.passes.scan_count import count
from tinygraph.passes.scan_demand import demand
from tinygraph.passes.scan_first import first
from tinygraph.passes.scan_inside import inside
from tinygraph.passes.scan_invariant import invariant
from tinygraph.passes.scan_join import join
from tinygraph.passes.scan_last import last
from tinygraph.passes.scan_merge import merge
from tinygraph.passes.scan_prune import prune
from tinygraph.passes.scan_saved import saved
from tinygraph.passes.scan_scatter import scatter
from tinygraph.passes.scan_zeros import zeros
from tinygraph.passes.sink import sink
from tinygraph.passes.spread import spread
from tinygraph.passes.stable import stable
from tinygraph.passes.unite import unite
from tinygraph.rewrite.engine import Pass, Rule
from tinygraph.rewrite.joining import Plus, as_pass, needed, plus

PIPELINE: tuple[Pass, ...] = (
    drop_gradient_nodes,
    unite,
    canonical,
    fold,
    count,
    stable,
    narrow,
    zeros,
    narrow,
    demand,
    narrow,
    last,
    first,
    prune,
    label_dots,
    split_dots,
    invariant,
    before,
    saved,
    checkpoint,
    scatter,
    after,
    merge_dots,
    invariant,
    canonical,
    stable,  # what stood in the step and what stood behind the loop have met
    accumulate,
    prune,
    label_dots,
    merge_dots,
    join,
    prune,
    merge,
    canonical,
    inside,
    sink,
    spread,
    canonical,
)


def select(passes: object, graph: Graph | None = None) -> tuple[Pass, ...]:
    """The passes that a user asks for: None or 'all', 'none', a sequence of names or Passes, a
    string such as '-dots -fold' (all but these), a user's Rule or Pass (all, and this one), or
    ``rewrite.plus(...)``.

    Those of ``config.rewrites`` that may find something to do in ``graph`` are among all.
    Raises ValueError for an unknown name.
    """
    if isinstance(passes, (Rule, Pass)):
        passes = plus(passes)
    if isinstance(passes, Plus):
        return _inserted(select(passes.base, graph), passes.more, passes.before)
    if passes == "none":
        return ()
    if passes is None or passes == "all":
        passes = ""
    if isinstance(passes, str):
        words = passes.split()
        if all(w.startswith("-") for w in words):
            dropped = {w[1:] for w in words}
            everywhere = _registered(graph)
            _check_names(dropped, config.rewrites)
            kept = tuple(p for p in PIPELINE if p.name not in dropped)
            return _inserted(kept, [p for name, p in everywhere if name not in dropped],
                             "canonical")
        passes = words
    chosen = list(passes)  # type: ignore[call-overload]
    _check_names(p for p in chosen if isinstance(p, str))
    by_name = {p.name: p for p in PIPELINE}
    return tuple(by_name[p] if isinstance(p, str) else as_pass(p) for p in chosen)


def _registered(graph: Graph | None) -> list[tuple[str, Pass]]:
    """The rewrites of ``config.rewrites``, with their names there."""
    return [(name, as_pass(x)) for name, x in config.rewrites.items()
            if graph is None or needed(x, graph)]


def _inserted(passes: Sequence[Pass], more: Sequence[Pass], before: str) -> tuple[Pass, ...]:
    """``passes`` with ``more`` before the first one of a name; without that one, behind
    drop_gradient_nodes."""
    names = [p.name for p in passes]
    if not more:
        return tuple(passes)
    if before == "end":
        return (*passes, *more)
    if before not in names:
        _check_names([before])
    place = names.index(before) if before in names else names.count("drop_gradient_nodes")
    return (*passes[:place], *more, *passes[place:])


def _check_names(names: Iterable[str], more: Iterable[str] = ()) -> None:
    known = list(dict.fromkeys([*(p.name for p in PIPELINE), *more]))
    for name in names:
        if name not in known:
            raise ValueError(f"there is no pass {name!r}; the passes are {', '.join(known)}")
