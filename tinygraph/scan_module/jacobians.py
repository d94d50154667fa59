"""Matrices of derivatives, row by row: a scan whose step is one vector-Jacobian product."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinygraph.graph import Value, describe
from tinygraph.reverse_mode import grad
from tinygraph.scan_module.face import scan
from tinygraph.tensor.building import unnoticed
from tinygraph.tensor.constructors import eye


def jacobian(expression: Any, wrt: Any, consider_constant: Iterable[Value] | None = None,
             disconnected_inputs: str = "raise") -> Any:
    """The derivative of every element of the vector ``expression`` (n) with respect to ``wrt``:
    shape (n, *shape of wrt).  Of a scalar it is the gradient.  wrt: a variable, or a list or
    tuple, which the result then is, too.

    Raises TypeError for an expression of more axes, and what ``grad`` raises.
    """
    if expression.ndim == 0:
        return grad(expression, wrt, consider_constant, disconnected_inputs)
    if expression.ndim != 1:
        raise TypeError(f"jacobian takes a scalar or a vector, not {describe(expression)}; write "
                        "x.flatten()")
    many = isinstance(wrt, (list, tuple))
    variables = list(wrt) if many else [wrt]

    def one_row(picked: Any) -> list[Any]:
        with unnoticed():  # no row advances a shared variable
            return grad(None, variables, consider_constant, disconnected_inputs,
                        known_grads={expression: picked})

    kind = expression.dtype if expression.type.dtype.is_float else None
    rows, _ = scan(one_row, eye(expression.shape[0], dtype=kind), return_list=True,
                   name="jacobian")
    if not many:
        return rows[0]
    return tuple(rows) if isinstance(wrt, tuple) else rows


def hessian(cost: Any, wrt: Any, consider_constant: Iterable[Value] | None = None,
            disconnected_inputs: str = "raise") -> Any:
    """The second derivatives of the scalar ``cost``: shape (n, n) for a vector ``wrt`` of n.
    wrt may be a list or tuple of vectors, which the result then is, too.

    Raises TypeError for a variable that is no vector, and what ``grad`` raises.
    """
    many = isinstance(wrt, (list, tuple))
    out = []
    for x in wrt if many else [wrt]:
        if x.ndim != 1:
            raise TypeError(f"hessian takes vectors, not {describe(x)}; make the parameters parts "
                            "of one vector")
        slope = grad(cost, x, consider_constant, disconnected_inputs)
        out.append(jacobian(slope, x, consider_constant, "ignore"))
    if not many:
        return out[0]
    return tuple(out) if isinstance(wrt, tuple) else out
