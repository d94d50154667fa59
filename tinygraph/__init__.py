"""tinygraph: symbolic tensor expressions, compiled to one native function.

>>> import tinygraph
>>> import tinygraph.tensor as T
>>> x = T.vector("x")
>>> f = tinygraph.function([x], (x * x).sum())
>>> float(f([1, 2, 3]))
14.0
"""

from tinygraph import gradient, scan_module, tensor
from tinygraph.compile.call import Function, function
from tinygraph.compile.rebuild import clone
from tinygraph.compile.signature import In
from tinygraph.compile.variables import SharedVariable, shared
from tinygraph.config import config
from tinygraph.gradient import (
    Lop,
    Rop,
    consider_constant,
    disconnected_grad,
    grad,
    grad_clip,
    zero_grad,
)
from tinygraph.gradient_check import GradientError, verify_grad
from tinygraph.graph import Type, Value
from tinygraph.printing import debugprint
from tinygraph.scan_module.face import scan
from tinygraph.tensor import dot
from tinygraph.tensor.constructors import TensorType
from tinygraph.tensor.variable import Tensor

__version__ = "0.1.0"

Variable = Value

__all__ = [
    "Function",
    "GradientError",
    "In",
    "Lop",
    "Rop",
    "SharedVariable",
    "Tensor",
    "TensorType",
    "Type",
    "Value",
    "Variable",
    "clone",
    "config",
    "consider_constant",
    "debugprint",
    "disconnected_grad",
    "dot",
    "function",
    "grad",
    "grad_clip",
    "gradient",
    "scan",
    "scan_module",
    "shared",
    "tensor",
    "verify_grad",
    "zero_grad",
]
