"""Scans of one kind by their names: map, reduce, foldl, foldr."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygraph.scan_module.face import scan
from tinygraph.updates import OrderedUpdates


def map(fn: Callable[..., Any], sequences: Any, non_sequences: Any = None,
        truncate_gradient: int = -1, go_backwards: bool = False, mode: Any = None,
        name: str | None = None) -> tuple[Any, OrderedUpdates]:
    """``fn`` of every row of ``sequences``, stacked: a scan whose steps do not read each other."""
    return scan(fn, sequences, None, non_sequences, truncate_gradient=truncate_gradient,
                go_backwards=go_backwards, mode=mode, name=name)


def reduce(fn: Callable[..., Any], sequences: Any, outputs_info: Any, non_sequences: Any = None,
           go_backwards: bool = False, mode: Any = None, name: str | None = None
           ) -> tuple[Any, OrderedUpdates]:
    """The last values of a scan over ``sequences``: one variable, or a list of them.  A call with
    empty sequences raises IndexError: there is no last step."""
    outputs, updates = scan(fn, sequences, outputs_info, non_sequences,
                            go_backwards=go_backwards, mode=mode, name=name)
    if isinstance(outputs, list):
        return [out[-1] for out in outputs], updates
    return outputs[-1], updates


def foldl(fn: Callable[..., Any], sequences: Any, outputs_info: Any, non_sequences: Any = None,
          mode: Any = None, name: str | None = None) -> tuple[Any, OrderedUpdates]:
    """``reduce`` from the first row to the last."""
    return reduce(fn, sequences, outputs_info, non_sequences, mode=mode, name=name)


def foldr(fn: Callable[..., Any], sequences: Any, outputs_info: Any, non_sequences: Any = None,
          mode: Any = None, name: str | None = None) -> tuple[Any, OrderedUpdates]:
    """``reduce`` from the last row to the first."""
    return reduce(fn, sequences, outputs_info, non_sequences, True, mode, name)
