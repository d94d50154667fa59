"""Rewrites of your own: a rule and a pass that join the compiler's.

    python examples/write_a_pass.py
"""

from __future__ import annotations

import numpy as np

import tinygraph
import tinygraph.tensor as T
from tinygraph.rewrite import graph_pass, plus, rule
from tinygraph.rewrite.pattern import pair


@rule("div")
def one_division(node, context):
    """(x / y) / z --> x / (y * z)"""
    x, z = node.inputs
    inner = pair(x, "div")
    return None if inner is None else inner[0] / (inner[1] * z)


def count_products(graph, context):
    """graph --> the same graph, and a line that says how many products it has"""
    found = sum(type(node.op).__name__ == "Dot" for node in graph.nodes())
    print("products before the compiler moves them:", found)
    return graph


def main() -> None:
    """Print what becomes of an expression."""
    x, y = T.vector("x"), T.vector("y")
    expression = x / y / (y + 1) / 3

    # For one function: passes= takes a rule, or plus(...) with rules and passes.
    plain = tinygraph.function([x, y], expression)
    mine = tinygraph.function([x, y], expression, passes=one_division)
    print("divisions:", plain.source().count("div("), "-->", mine.source().count("div("))
    arrays = np.array([6.0, 8.0], "float32"), np.array([1.0, 3.0], "float32")
    print("values:", plain(*arrays), mine(*arrays))

    # For all functions inside a block; config.rewrites.add(name, rule) lasts until remove(name).
    with tinygraph.config.rewrites.adding(one_division=one_division):
        print("everywhere:", tinygraph.function([x, y], expression).source().count("div("))

    m = T.matrix("m")
    tinygraph.function([m], T.dot(T.dot(m, m.T), m),
                       passes=plus(graph_pass("count_products", count_products)))


if __name__ == "__main__":
    main()
