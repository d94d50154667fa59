"""Check a gradient against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygraph.compile.call import function
from tinygraph.dims import Sym, dim
from tinygraph.dtypes import dtype
from tinygraph.errors import CheckError
from tinygraph.gradient import grad
from tinygraph.graph import Type, user_source
from tinygraph.ops.arithmetic import cast, constant, reduce_
from tinygraph.tensor.variable import Tensor

_EPS = {"float32": 1e-2, "float64": 1e-6}
_TOLERANCE = {"float32": 2e-2, "float64": 1e-4}


def verify_grad(fun: Callable[..., Any], pt: Sequence[Any], n_tests: int = 2,
                rng: np.random.RandomState | None = None, eps: float | None = None,
                out_type: str | None = None, abs_tol: float | None = None,
                rel_tol: float | None = None, **options: Any) -> None:
    """Compare the gradient of ``fun`` at the float arrays ``pt`` with central differences.

    fun takes one variable per entry of ``pt`` and returns one variable; it is reduced to a
    number by ``n_tests`` random projections.  eps: the step of the differences.  An element may
    differ by rel_tol of its gradient's largest, or by abs_tol.  Further arguments are those of
    ``function``.

    Raises CheckError (an AssertionError) that names the argument and the element; TypeError for
    a point that is not of a float dtype.
    """
    rng = rng or np.random.RandomState(0)
    points = [np.array(p) for p in pt]
    for k, p in enumerate(points):
        if p.dtype.kind != "f":
            raise TypeError(f"verify_grad needs float arrays, but pt[{k}] is {p.dtype}")
    coarse = "float32" if any(p.dtype == np.float32 for p in points) else "float64"
    tolerance = _TOLERANCE[coarse] if rel_tol is None else rel_tol
    absolute = _TOLERANCE[coarse] if abs_tol is None else abs_tol
    inputs = [_variable(p, k) for k, p in enumerate(points)]
    out = fun(*inputs)
    value = function(inputs, out, on_unused_input="ignore", **options)
    shape = value(*points).shape
    for _ in range(n_tests):
        projection = (rng.rand(*shape) + 0.5).astype(out_type or out.dtype)
        weighted = cast(out, dtype(projection.dtype)) * constant(projection, cls=Tensor)
        cost = reduce_("sum", weighted, range(weighted.ndim))
        gradient = function(inputs, grad(cost, inputs, disconnected_inputs="ignore"),
                            on_unused_input="ignore", **options)
        numeric = _differences(value, points, projection, eps or _EPS[coarse])
        for k, (a, b) in enumerate(zip(gradient(*points), numeric, strict=True)):
            _compare(k, a, b, absolute, tolerance)


def _variable(p: np.ndarray, k: int) -> Tensor:
    dims = tuple(dim(1) if n == 1 else dim(Sym(f"pt{k}.{i}", f"axis {i} of pt[{k}]"))
                 for i, n in enumerate(p.shape))
    return Tensor(Type(dtype(p.dtype), dims), name=f"pt{k}", source=user_source())


def _differences(value: Callable[..., Any], points: Sequence[np.ndarray], projection: np.ndarray,
                 eps: float) -> list[np.ndarray]:
    """Central differences of sum(projection * value(points)), element by element."""
    def cost(arguments: Sequence[np.ndarray]) -> float:
        return float(np.sum(value(*arguments).astype(np.float64) * projection))

    out = []
    for k, p in enumerate(points):
        g = np.zeros(p.shape, np.float64)
        for at in np.ndindex(*p.shape):
            costs, steps = [], []
            for sign in (1, -1):
                moved = p.copy()
                moved[at] += sign * eps
                steps.append(float(moved[at]))
                costs.append(cost([*points[:k], moved, *points[k + 1:]]))
            g[at] = (costs[0] - costs[1]) / (steps[0] - steps[1])
        out.append(g)
    return out


def _compare(k: int, got: np.ndarray, want: np.ndarray, absolute: float, relative: float) -> None:
    scale = float(np.max(np.abs(want), initial=0.0))
    wrong = ~(np.abs(got - want) <= max(absolute, relative * scale))
    if np.any(wrong):
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise CheckError(f"the gradient of argument {k} is wrong at position {at}: it is "
                         f"{got[at]!r}, finite differences give {want[at]!r}")
