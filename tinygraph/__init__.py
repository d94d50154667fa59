"""tinygraph: symbolic tensor expressions, compiled to one native function.

>>> import tinygraph
>>> import tinygraph.tensor as T
>>> x = T.vector("x")
>>> f = tinygraph.function([x], (x * x).sum())
>>> float(f([1, 2, 3]))
14.0
"""

from tinygraph import compile, gof, gradient, rewrite, sandbox, scan_module, tensor
from tinygraph.compile.call import Function, function
from tinygraph.compile.signature import In, Out
from tinygraph.compile.variables import SharedVariable, shared
from tinygraph.config import config
from tinygraph.gof import Apply, Op
from tinygraph.gradient import (
    Lop,
    Rop,
    consider_constant,
    disconnected_grad,
    grad,
    grad_clip,
    subgraph_grad,
    zero_grad,
)
from tinygraph.gradient_check import GradientError, verify_grad
from tinygraph.graph import Type, Value
from tinygraph.printing import debugprint, pp
from tinygraph.rebuild import clone
from tinygraph.scan_module.face import scan
from tinygraph.scan_module.jacobians import hessian, jacobian
from tinygraph.scan_module.shorthands import foldl, foldr, map, reduce
from tinygraph.tensor import dot
from tinygraph.tensor.constructors import TensorType
from tinygraph.tensor.custom import elementwise_op
from tinygraph.tensor.variable import Tensor
from tinygraph.updates import OrderedUpdates

__version__ = "0.1.0"

Variable = Value

__all__ = [
    "Apply",
    "Function",
    "GradientError",
    "In",
    "Lop",
    "Op",
    "OrderedUpdates",
    "Out",
    "Rop",
    "SharedVariable",
    "Tensor",
    "TensorType",
    "Type",
    "Value",
    "Variable",
    "clone",
    "compile",
    "config",
    "consider_constant",
    "debugprint",
    "disconnected_grad",
    "dot",
    "elementwise_op",
    "foldl",
    "foldr",
    "function",
    "gof",
    "grad",
    "grad_clip",
    "gradient",
    "hessian",
    "jacobian",
    "map",
    "pp",
    "reduce",
    "sandbox",
    "rewrite",
    "scan",
    "scan_module",
    "shared",
    "subgraph_grad",
    "tensor",
    "verify_grad",
    "zero_grad",
]
