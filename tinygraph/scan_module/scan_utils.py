"""Do two expressions compute the same?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinygraph.graph import Value
from tinygraph.interning import Interner
from tinygraph.rebuild import Rebuild, clone
from tinygraph.scan_module.face import until
from tinygraph.tensor.variable import Tensor

__all__ = ["clone", "equal_computations", "is_same_graph", "until"]


def equal_computations(xs: Sequence[Value], ys: Sequence[Value],
                       in_xs: Sequence[Value] | None = None,
                       in_ys: Sequence[Value] | None = None) -> bool:
    """Are ``xs`` pairwise the same operations on the same operands as ``ys``, in the same order,
    where ``in_xs`` are taken for ``in_ys``?  Constants are the same where dtype and values are.

    Raises ValueError for lists of different lengths.
    """
    if len(xs) != len(ys):
        raise ValueError(f"{len(xs)} expressions against {len(ys)}")
    return _equal(xs, ys, dict(zip(in_xs or (), in_ys or (), strict=True)))


def is_same_graph(var1: Value, var2: Value, givens: Mapping[Value, Value] | None = None) -> bool:
    """Are two variables the same operations on the same operands, in the same order, where the
    keys of ``givens`` are taken for its values?"""
    return _equal([var1], [var2], dict(givens or {}))


def _equal(xs: Sequence[Value], ys: Sequence[Value], same: dict[Value, Value]) -> bool:
    rebuild, interner = Rebuild(same), Interner(Tensor)
    left, right = interner.values(rebuild(xs), {}), interner.values(rebuild(ys), {})
    return all(a is b for a, b in zip(left, right, strict=True))
