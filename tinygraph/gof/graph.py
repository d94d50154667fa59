"""Walks over what users have built."""

from __future__ import annotations

from collections.abc import Iterable

from tinygraph.graph import Value
from tinygraph.ops.arithmetic import Constant
from tinygraph.scan_module.scan_utils import equal_computations, is_same_graph

__all__ = ["equal_computations", "inputs", "is_same_graph"]


def inputs(variable_list: Iterable[Value], blockers: Iterable[Value] | None = None) -> list[Value]:
    """The variables that ``variable_list`` is computed from, constants among them, each once.

    The last expression comes first, and within one its operands from left to right.
    ``blockers``: variables behind which the walk does not go, which count as computed from nothing
    but are not listed unless they are leaves.
    """
    stop = frozenset(blockers or ())
    stack, seen, found = list(variable_list), set[Value](), list[Value]()
    while stack:
        v = stack.pop()
        if v in seen:
            continue
        seen.add(v)
        if v.node is None or isinstance(v.node.op, Constant):
            found.append(v)
        elif v not in stop:
            stack.extend(reversed(v.node.inputs))
    return found
