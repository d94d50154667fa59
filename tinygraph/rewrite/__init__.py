"""The rewriting engine, and what users need to write rules and passes of their own.

>>> @rule("mul")
... def square(node, context):
...     '''x * x --> sqr(x)'''
...     x, y = node.inputs
...     return T.sqr(x) if x is y else None
>>> f = tinygraph.function([x], y, passes=plus(square))
"""

from tinygraph.rewrite.engine import Context, Pass, Rule, graph_pass, rule, rule_pass
from tinygraph.rewrite.joining import plus

__all__ = ["Context", "Pass", "Rule", "graph_pass", "plus", "rule", "rule_pass"]
