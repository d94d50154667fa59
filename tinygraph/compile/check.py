"""check=True: every call is run by the interpreter too, and what differs is named.

So is the first operation that makes a nan (or an inf, if nothing makes a nan) out of finite
numbers: its line in the user's program, and the step of the scan in which it happened.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinygraph.compile.nan_guard import explain, not_finite, output_name
from tinygraph.compile.signature import Signature
from tinygraph.errors import CheckError
from tinygraph.interpret import evaluate

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


def check_call(signature: Signature, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray]
               ) -> None:
    """Raise CheckError if ``results`` are not what the interpreter computes from ``arrays``, or
    hold a nan or inf although every input is finite."""
    graph = signature.graph
    inputs = dict(zip(graph.inputs, arrays, strict=True))
    expected = evaluate(graph.outputs, inputs)
    for k, (got, want) in enumerate(zip(results, expected, strict=True)):
        _compare(output_name(signature, k), np.asarray(got), np.asarray(want))
    if all(_finite(a) for a in arrays):
        for k, got in enumerate(results):
            if not _finite(got):
                raise CheckError(
                    f"{output_name(signature, k)} is not finite although every input is\n"
                    f"{explain(signature, arrays, k, got, not_finite)}")


def _compare(name: str, got: np.ndarray, want: np.ndarray) -> None:
    if got.shape != want.shape or got.dtype != want.dtype:
        raise CheckError(f"{name} came out as {got.dtype} of shape {got.shape}, but the "
                         f"interpreter gives {want.dtype} of shape {want.shape}")
    if got.dtype.kind != "f":
        wrong = got != want
    else:
        with np.errstate(all="ignore"):
            finite = np.abs(want[np.isfinite(want)]).astype(np.float64)
            scale = float(finite.max()) if finite.size else 0.0
            close = np.abs(got - want) <= TOLERANCE[got.dtype.name] * max(scale, 1e-30)
        wrong = ~(close | (got == want) | (np.isnan(got) & np.isnan(want)))
    if np.any(wrong):
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise CheckError(f"{name} differs at position {at}: compiled code gives {got[at]!r}, the "
                         f"interpreter {want[at]!r} ({int(wrong.sum())} of {wrong.size} "
                         "elements differ)")


def _finite(a: np.ndarray) -> bool:
    return a.dtype.kind != "f" or bool(np.isfinite(a).all())
