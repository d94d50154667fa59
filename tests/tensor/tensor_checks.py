"""What the tests of this folder share: evaluate on the interpreter, guards checked; or on every
back end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import tinygraph
import tinygraph.tensor as T
from tinygraph.gradient_check import verify_grad
from tinygraph.graph import Value, toposort
from tinygraph.interpret import Sizes, evaluate


def leaf(array: np.ndarray, name: str = "x") -> T.TensorVariable:
    """A variable that fits ``array``, every size unknown."""
    return T.TensorType(array.dtype, (False,) * array.ndim)(name)


def run(outputs: Sequence[Value], known: dict[Value, np.ndarray]) -> list[np.ndarray]:
    """The arrays of ``outputs``; every guard of the graph is checked as a call would."""
    sizes = Sizes()
    for value, array in known.items():
        sizes.learn(value, array)
    guards = [g for node in toposort(outputs) for g in node.op.requires(*node.inputs)]
    late = []
    for guard in guards:
        if guard.left.syms() | guard.right.syms() <= set(sizes.env):
            guard.check(sizes.env)
        else:
            late.append(guard)
    arrays = evaluate(outputs, known, sizes)
    for guard in late:
        if guard.left.syms() | guard.right.syms() <= set(sizes.env):
            guard.check(sizes.env)
    for out, array in zip(outputs, arrays, strict=True):
        assert array.dtype == out.type.dtype.np, "the declared dtype is not the real one"
        assert array.shape == tuple(sizes(d) for d in out.type.dims), "the declared shape is wrong"
    return arrays


def value(f: Any, *arrays: Any) -> np.ndarray:
    """``f`` of variables that hold ``arrays``."""
    given = [np.asarray(a) for a in arrays]
    variables = [leaf(a, f"x{k}") for k, a in enumerate(given)]
    (out,) = run([f(*variables)], dict(zip(variables, given, strict=True)))
    return out


def check(f: Any, expected: Any, *arrays: Any, rtol: float | None = None) -> None:
    """``f`` of variables has the value, shape and dtype of the array ``expected``."""
    out, expected = value(f, *arrays), np.asarray(expected)
    assert out.dtype == expected.dtype
    assert out.shape == expected.shape
    if rtol is None:
        rtol = 1e-5 if out.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(out, expected, rtol=rtol, atol=rtol)


BACKENDS = ("numpy", "loops", "llvm")


def matches(f: Any, expected: Any, *arrays: Any, rtol: float | None = None,
            smooth: bool = True) -> None:
    """``f`` of variables (one result or several) has the values, shapes and dtypes of
    ``expected`` on every back end.  If ``smooth`` and the first array is float64, the gradient of
    every floating result agrees with finite differences too."""
    given = [np.asarray(a) for a in arrays]
    variables = [leaf(a, f"x{k}") for k, a in enumerate(given)]
    outs = f(*variables)
    many = isinstance(outs, (list, tuple))
    for backend in BACKENDS:
        call = tinygraph.function(variables, list(outs) if many else [outs], backend=backend,
                                  on_unused_input="ignore")
        for got, want in zip(call(*given), expected if many else [expected], strict=True):
            want = np.asarray(want)
            assert (got.dtype, got.shape) == (want.dtype, want.shape), backend
            near = rtol or (1e-5 if got.dtype == np.float32 else 1e-12)
            np.testing.assert_allclose(got, want, rtol=near, atol=near, err_msg=backend)
    if smooth and given and all(a.dtype == np.float64 for a in given):
        for k, out in enumerate(outs if many else [outs]):
            if out.type.dtype.is_float:
                verify_grad(lambda *xs, k=k: f(*xs)[k] if many else f(*xs), given)
