"""verify_grad: a gradient against finite differences, on the interpreter; numeric_grad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygraph.graph import Value, leaves
from tinygraph.interpret import evaluate
from tinygraph.reverse_mode import grad
from tinygraph.tensor.constructors import TensorType
from tinygraph.tensor.variable import Tensor, as_tensor_variable

_STEPS = {"float32": 1e-2, "float64": 1e-6}
_TOLERANCES = {"float32": 2e-2, "float64": 1e-5}


class GradientError(AssertionError):
    """A gradient and finite differences disagree."""


def verify_grad(fun: Callable[..., Any], pt: Sequence[Any], n_tests: int = 2, rng: Any = None,
                eps: float | None = None, out_type: Any = None, abs_tol: float | None = None,
                rel_tol: float | None = None, mode: Any = None) -> None:
    """Compare the gradient of ``fun`` at ``pt`` with central finite differences.

    fun: a function of as many variables as ``pt`` has arrays, which gives one variable.  pt:
    float arrays of one dtype; an axis of size 1 broadcasts.  The result is projected on a random
    array, and each input moved along a random direction by ``eps``, ``n_tests`` times.  Shared
    variables, states of random draws among them, keep their values meanwhile.
    rng: a NumPy Generator or RandomState (default: seeded).  An error counts if it exceeds both
    ``abs_tol`` and ``rel_tol``.  ``out_type`` and ``mode`` are Theano's, and say nothing here.

    Raises GradientError (an AssertionError) that names the input and gives both numbers,
    TypeError for inputs that are no floats.
    """
    del out_type, mode
    rng = np.random.default_rng(2718) if rng is None else rng
    arrays = [np.array(p) for p in pt]
    variables = [_leaf(a, k) for k, a in enumerate(arrays)]
    out = fun(*variables)
    for _ in range(n_tests):
        _one_test(out, variables, arrays, rng, eps, abs_tol, rel_tol)


class numeric_grad:  # noqa: N801  (the name that users write)
    """The gradient of ``f`` at ``pt`` by central finite differences, element by element.

    f   a function of arrays, which gives a number
    pt  one float array, or a list of them
    gf  the gradient: an array, or a list of them, as ``pt`` is
    """

    def __init__(self, f: Callable[..., Any], pt: Any, eps: float | None = None) -> None:
        many = isinstance(pt, (list, tuple))
        arrays = [np.array(p) for p in (pt if many else [pt])]
        grads = [np.zeros_like(a) for a in arrays]
        for array, gradient in zip(arrays, grads, strict=True):
            if array.dtype.name not in _STEPS:
                raise TypeError(f"numeric_grad of {array.dtype}: it must be float32 or float64")
            step = array.dtype.type(eps or _STEPS[array.dtype.name])
            for place in np.ndindex(array.shape):
                here = array[place]
                array[place] = here + step
                above = float(f(*arrays))
                array[place] = here - step
                gradient[place] = (above - float(f(*arrays))) / (2 * float(step))
                array[place] = here
        self.gf: Any = grads if many else grads[0]

    def max_err(self, g_pt: Any) -> float:
        """The largest relative error of another gradient of the same form, where numbers below 1
        count as 1."""
        pairs = zip(self.gf, g_pt, strict=True) if isinstance(self.gf, list) else [(self.gf, g_pt)]
        return max((float(np.max(np.abs(a - b) / np.maximum(1, np.maximum(np.abs(a), np.abs(b)))))
                    for a, b in pairs if np.size(a)), default=0.0)


def _leaf(array: np.ndarray, k: int) -> Tensor:
    if array.dtype.name not in _STEPS:
        raise TypeError(f"verify_grad: input {k} is {array.dtype}; it must be float32 or float64")
    return TensorType(array.dtype, [n == 1 for n in array.shape])(f"input {k}")


def _one_test(out: Any, variables: list[Tensor], arrays: list[np.ndarray], rng: Any,
              eps: float | None, abs_tol: float | None, rel_tol: float | None) -> None:
    known: dict[Value, np.ndarray] = dict(zip(variables, arrays, strict=True))
    known.update((v, v.get_value()) for v in leaves([out])
                 if v not in known and hasattr(v, "get_value"))
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
