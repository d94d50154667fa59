"""What tests of this folder share that compile: every back end, which must agree."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensor_checks import leaf

import tinygraph

BACKENDS = ("numpy", "loops", "llvm")


def on_all(f: Any, *arrays: Any) -> list[np.ndarray]:
    """What ``f`` of variables gives for ``arrays``, which all back ends agree on."""
    given = [np.asarray(a) for a in arrays]
    variables = [leaf(a, f"x{k}") for k, a in enumerate(given)]
    out = f(*variables)
    out = list(out) if isinstance(out, (list, tuple)) else [out]
    results = [tinygraph.function(variables, out, backend=backend, on_unused_input="ignore")(*given)
               for backend in BACKENDS]
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            tight = 1e-5 if a.dtype == np.float32 else 1e-12
            np.testing.assert_allclose(a, b, rtol=tight, atol=tight)
    return results[0]


def agrees(f: Any, expected: Any, *arrays: Any) -> None:
    """``f`` of variables is the array ``expected``, and of its dtype, on all back ends."""
    (found,) = on_all(f, *arrays)
    expected = np.asarray(expected)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    tight = 1e-5 if found.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(found, expected, rtol=tight, atol=tight)
