"""verify_grad: a gradient against finite differences, on the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygraph.gradient import grad
from tinygraph.graph import Value
from tinygraph.interpret import evaluate
from tinygraph.tensor.constructors import TensorType
from tinygraph.tensor.variable import Tensor, as_tensor_variable

_STEPS = {"float32": 1e-2, "float64": 1e-6}
_TOLERANCES = {"float32": 2e-2, "float64": 1e-5}


class GradientError(AssertionError):
    """A gradient and finite differences disagree."""


def verify_grad(fun: Callable[..., Any], pt: Sequence[Any], rng: Any = None,
                eps: float | None = None, abs_tol: float | None = None,
                rel_tol: float | None = None, n_tests: int = 2) -> None:
    """Compare the gradient of ``fun`` at ``pt`` with central finite differences.

    fun: a function of as many variables as ``pt`` has arrays, which gives one variable.  pt:
    float arrays of one dtype; an axis of size 1 broadcasts.  The result is projected on a random
    array, and each input moved along a random direction by ``eps``, ``n_tests`` times.
    rng: a NumPy Generator or RandomState (default: seeded).  An error counts if it exceeds both
    ``abs_tol`` and ``rel_tol``.

    Raises GradientError (an AssertionError) that names the input and gives both numbers,
    TypeError for inputs that are no floats.
    """
    rng = np.random.default_rng(2718) if rng is None else rng
    arrays = [np.array(p) for p in pt]
    variables = [_leaf(a, k) for k, a in enumerate(arrays)]
    out = fun(*variables)
    for _ in range(n_tests):
        _one_test(out, variables, arrays, rng, eps, abs_tol, rel_tol)


def _leaf(array: np.ndarray, k: int) -> Tensor:
    if array.dtype.name not in _STEPS:
        raise TypeError(f"verify_grad: input {k} is {array.dtype}; it must be float32 or float64")
    return TensorType(array.dtype, [n == 1 for n in array.shape])(f"input {k}")


def _one_test(out: Any, variables: list[Tensor], arrays: list[np.ndarray], rng: Any,
              eps: float | None, abs_tol: float | None, rel_tol: float | None) -> None:
    known: dict[Value, np.ndarray] = dict(zip(variables, arrays, strict=True))
    (at,) = evaluate([out], known)
    weights = np.asarray(rng.uniform(0.5, 1.5, at.shape), at.dtype)
    cost = (out * as_tensor_variable(weights)).sum()
    grads = evaluate(grad(cost, variables, disconnected_inputs="ignore"), known)
    for k, (variable, array, symbolic) in enumerate(zip(variables, arrays, grads, strict=True)):
        kind = variable.dtype
        step = _STEPS[kind] if eps is None else eps
        direction = np.asarray(rng.uniform(-1, 1, array.shape), array.dtype)
        sides = []
        for moved in (array + step * direction, array - step * direction):
            (side,) = evaluate([out], {**known, variable: np.asarray(moved, array.dtype)})
            sides.append(np.sum(side.astype(np.float64) * weights))
        numeric = (sides[0] - sides[1]) / (2 * step)
        found = float(np.sum(symbolic.astype(np.float64) * direction))
        _compare(k, array, found, numeric, _TOLERANCES[kind] if abs_tol is None else abs_tol,
                 _TOLERANCES[kind] if rel_tol is None else rel_tol)


def _compare(k: int, array: np.ndarray, found: float, numeric: float, abs_tol: float,
             rel_tol: float) -> None:
    error = abs(found - numeric)
    relative = error / max(abs(found), abs(numeric), 1e-300)
    if not (error <= abs_tol or relative <= rel_tol):
        raise GradientError(
            f"the gradient with respect to input {k} (shape {array.shape}, {array.dtype}), along "
            f"a random direction, is {found:.8g}, but finite differences give {numeric:.8g}: "
            f"absolute error {error:.2g} (allowed {abs_tol:.2g}), relative error {relative:.2g} "
            f"(allowed {rel_tol:.2g})")
