"""From expressions to something that can be called: shared variables, functions, the cache."""

from tinygraph.compile.call import Function, function
from tinygraph.compile.signature import In
from tinygraph.compile.variables import SharedVariable, shared

__all__ = ["Function", "In", "SharedVariable", "function", "shared"]
