"""OpRemove: a rewrite that takes applications of a user's op away."""

from __future__ import annotations

from typing import Any

from tinygraph.graph import Node
from tinygraph.ops.callback import Callback
from tinygraph.rewrite.engine import Context, Rule


def OpRemove(op: Any) -> Rule:
    """The rule op(x) --> x, for an op of one input that a user wrote.  A ``ViewOp`` needs none: it
    goes by itself, once gradients have been taken."""
    def remove(node: Node, context: Context) -> Any:
        if node.op.user.op != op or len(node.inputs) != 1:  # type: ignore[attr-defined]
            return None
        (x,), (out,) = node.inputs, node.outputs
        return x if x.type == out.type else None

    return Rule(f"remove {op}", f"{op}(x) --> x", (Callback,), remove)
