"""The pipeline: the table of contents of the compiler, in the order in which passes run."""

from __future__ import annotations

from collections.abc import Iterable

from tinygraph.passes.canonical import canonical
from tinygraph.passes.dots import label_dots, merge_dots, split_dots
from tinygraph.passes.drop_gradient_nodes import drop_gradient_nodes
from tinygraph.passes.fold import fold
from tinygraph.passes.narrow import narrow
from tinygraph.passes.scan_accumulate import accumulate
from tinygraph.passes.scan_after import after
from tinygraph.passes.scan_before import before
from tinygraph.passes.scan_checkpoint import checkpoint
from tinygraph.passes.scan_demand import demand
from tinygraph.passes.scan_first import first
from tinygraph.passes.scan_inside import inside
from tinygraph.passes.scan_invariant import invariant
from tinygraph.passes.scan_join import join
from tinygraph.passes.scan_last import last
from tinygraph.passes.scan_merge import merge
from tinygraph.passes.scan_prune import prune
from tinygraph.passes.scan_saved import saved
from tinygraph.passes.scan_zeros import zeros
from tinygraph.passes.sink import sink
from tinygraph.passes.stable import stable
from tinygraph.passes.unite import unite
from tinygraph.rewrite.engine import Pass

PIPELINE: tuple[Pass, ...] = (
    drop_gradient_nodes,
    unite,
    canonical,
    fold,
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
    after,
    merge_dots,
    invariant,
    canonical,
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
    canonical,
)


def select(passes: object) -> tuple[Pass, ...]:
    """The passes that a user asks for: None or 'all', 'none', a sequence of names or Passes, or
    a string such as '-dots -fold' (all but these).  Raises ValueError for an unknown name."""
    if passes is None or passes == "all":
        return PIPELINE
    if passes == "none":
        return ()
    if isinstance(passes, str):
        words = passes.split()
        if words and all(w.startswith("-") for w in words):
            dropped = {w[1:] for w in words}
            _check_names(dropped)
            return tuple(p for p in PIPELINE if p.name not in dropped)
        passes = words
    chosen = list(passes)  # type: ignore[call-overload]
    _check_names(p for p in chosen if isinstance(p, str))
    by_name = {p.name: p for p in PIPELINE}
    return tuple(by_name[p] if isinstance(p, str) else p for p in chosen)


def _check_names(names: Iterable[str]) -> None:
    known = [p.name for p in PIPELINE]
    for name in names:
        if name not in known:
            raise ValueError(f"there is no pass {name!r}; the passes are {', '.join(known)}")
