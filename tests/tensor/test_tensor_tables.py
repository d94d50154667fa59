"""Every elementwise op of the compiler has a name in the face."""

from __future__ import annotations

import tinygraph.tensor as T
from tinygraph.graph import toposort
from tinygraph.ops.arithmetic import Elemwise
from tinygraph.ops.scalars import TABLE


def _applied(name: str) -> set[str]:
    """The scalar functions that the public function ``name`` applies to a fitting operand."""
    found: set[str] = set()
    for arity in (1, 2, 3):
        for dtype in ("float32", "int32"):
            try:
                out = getattr(T, name)(*(T.TensorType(dtype, (False,))() for _ in range(arity)))
            except (TypeError, ValueError):
                continue
            found |= {n.op.fn.name for n in toposort([out]) if isinstance(n.op, Elemwise)}
    return found


def test_every_scalar_function_has_a_public_name():
    public = ["exp", "log", "abs_", "neg", "sgn", "int_div", "true_div", "mod", "pow", "switch",
              "and_", "or_", "xor", "invert", "neq", *(n for n in TABLE if hasattr(T, n))]
    applied = set().union(*(_applied(name) for name in public))
    behind_the_random_streams = {"philox_low", "philox_high"}
    assert set(TABLE) - behind_the_random_streams <= applied


def test_all_names_exist_and_are_told_once():
    assert len(set(T.__all__)) == len(T.__all__)
    assert all(hasattr(T, name) for name in T.__all__)
    undocumented = [n for n in T.__all__ if callable(getattr(T, n)) and not getattr(T, n).__doc__]
    assert undocumented == []
