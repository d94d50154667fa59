"""Ops that users write: ``Op`` and ``ViewOp``, their applications, and what removes one."""

from tinygraph.gof import graph
from tinygraph.gof.op import Apply, Op, ViewOp
from tinygraph.gof.remove import OpRemove
from tinygraph.graph import Value as Variable

__all__ = ["Apply", "Op", "OpRemove", "Variable", "ViewOp", "graph"]
