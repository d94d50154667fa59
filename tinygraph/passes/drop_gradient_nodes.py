"""Identities that only changed the gradient go, before they can hide a pattern."""

from __future__ import annotations

from typing import Any

from tinygraph.graph import Node
from tinygraph.ops.control import Identity
from tinygraph.rewrite.engine import Context, rule, rule_pass


@rule(Identity)
def drop_identity(node: Node, context: Context) -> Any:
    """grad_clip(x), disconnected_grad(x), zero_grad(x) --> x"""
    return node.inputs[0]


drop_gradient_nodes = rule_pass(
    "drop_gradient_nodes", "grad_clip(x) --> x, once gradients have been taken", (drop_identity,))
