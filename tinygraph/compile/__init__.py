"""From expressions to something that can be called: shared variables, functions, the cache."""

from tinygraph.compile import ops
from tinygraph.compile.call import Function, function
from tinygraph.compile.signature import In, Out
from tinygraph.compile.variables import SharedVariable, shared
from tinygraph.gof import ViewOp

__all__ = ["Function", "In", "Out", "SharedVariable", "ViewOp", "function", "ops", "shared"]
