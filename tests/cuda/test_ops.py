"""Every op as CUDA kernels, run by the shim, against the interpreter: the tables of tests/lowering
(one of which fails where an op has no row), their gradients, and random streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import models
import numpy as np
import pytest
import test_lower_ops as ops
import test_lower_scalars as scalars
import test_tensor_random as streams

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad

LARGE = (70, 90)  # x has more elements than one block takes at a time
SIZES = ((3, 4), (1, 1), (0, 3), (5, 0), (40, 9), LARGE)
Case = Callable[..., list[Any]]
EVERY = pytest.mark.parametrize("case", ops.CASES, ids=lambda case: case.__name__)


@pytest.fixture(autouse=True)
def no_cache() -> Any:
    with tinygraph.config.change(cache="off"):
        yield


def fitting(case: Case) -> list[tuple[int, int]]:
    """Indices below t exist only where t is not 0."""
    return [s for s in SIZES if s[1] or case is not ops.indices]


@EVERY
def test_ops(case: Case) -> None:
    assert ops.run(case, "shim", fitting(case)).compiles == 1


@pytest.mark.parametrize("case", [ops.reductions, ops.products, ops.order, ops.scans],
                         ids=lambda case: case.__name__)
def test_ops_in_float32(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """What adds up, compares or calls functions of the prelude has code of its own for float32."""
    constant = T.constant

    def single(x: Any) -> Any:
        x = np.asarray(x)
        return constant(x.astype("float32") if x.dtype == "float64" else x)

    monkeypatch.setattr(T, "constant", single)
    with tinygraph.config.change(floatX="float32"):
        inputs = [T.tensor3("x"), T.matrix("y"), T.vector("v"), T.lvector("k")]
        outputs = [out for out in case(*inputs) if out.dtype != "float64"]
        assert len(outputs) > 3
        compare(inputs, outputs, [s for s in fitting(case) if s != LARGE])


def compare(inputs: list[Any], outputs: list[Any], sizes: list[tuple[int, int]]) -> None:
    """What kernels compute is what the interpreter computes."""
    f, oracle = (function(inputs, outputs, backend=backend, on_unused_input="ignore")
                 for backend in ("shim", "numpy"))
    for n, t in sizes:
        given = [np.asarray(a, v.dtype) for a, v in zip(ops.arrays(n, t), inputs, strict=True)]
        models.assert_close(f(*given), oracle(*given), floor=1.0)


def smooth(outputs: list[Any], inputs: list[Any]) -> list[Any]:
    """The float64 outputs that are numbers."""
    some = [out for out in outputs if out.dtype == "float64"]
    found = function(inputs, some, backend="numpy", on_unused_input="ignore")(*ops.arrays(3, 4))
    return [out for out, a in zip(some, found, strict=True) if np.isfinite(a).all()]


def gradients(case: Case) -> tuple[list[Any], list[Any]]:
    """The inputs, and the gradients of one cost that all rows of a table have a part in."""
    inputs = [T.tensor3("x"), T.matrix("y"), T.vector("v"), T.lvector("k")]
    outputs = smooth(case(*inputs), inputs)
    cost = sum(((k + 1.0) * T.sin(out).sum() for k, out in enumerate(outputs)), T.constant(0.0))
    return inputs, grad(cost, inputs[:3], disconnected_inputs="ignore")


@pytest.mark.parametrize("case", [c for c in ops.CASES if c is not ops.aliases],
                         ids=lambda case: case.__name__)
def test_gradients(case: Case) -> None:
    with tinygraph.config.change(floatX="float64"):
        compare(*gradients(case), [s for s in fitting(case) if s != LARGE])


@pytest.mark.parametrize("dtype", scalars.ALL, ids=str)
def test_scalar_functions(dtype: Any) -> None:
    scalars.test_scalar_functions(dtype, "shim")


def test_casts_and_special_numbers() -> None:
    scalars.test_casts_between_all_types("shim")
    scalars.test_special_floats("shim")
    ops.test_nan_in_max_and_min("shim")


def test_random_streams_have_the_bits_of_the_interpreter() -> None:
    streams.test_any_counter_and_key_has_the_same_bits("shim")
    streams.test_every_back_end_draws_the_same_bits(streams.calls("numpy"), "shim")
