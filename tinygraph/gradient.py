"""What users import as ``tinygraph.gradient``: differentiation (``reverse_mode``), derivatives of
vectors, which are loops, and the comparison with finite differences."""

from tinygraph.errors import DisconnectedInputError
from tinygraph.gradient_check import GradientError, numeric_grad, verify_grad
from tinygraph.reverse_mode import (
    Disconnected,
    DisconnectedType,
    Lop,
    NullTypeGradError,
    Rop,
    consider_constant,
    disconnected_grad,
    grad,
    grad_clip,
    grad_not_implemented,
    grad_scale,
    grad_undefined,
    subgraph_grad,
    undefined_grad,
    zero_grad,
)
from tinygraph.scan_module.jacobians import hessian, jacobian

__all__ = [
    "Disconnected", "DisconnectedInputError", "DisconnectedType", "GradientError", "Lop",
    "NullTypeGradError", "Rop", "consider_constant", "disconnected_grad", "grad", "grad_clip",
    "grad_not_implemented", "grad_scale", "grad_undefined", "hessian", "jacobian", "numeric_grad",
    "subgraph_grad", "undefined_grad", "verify_grad", "zero_grad",
]
