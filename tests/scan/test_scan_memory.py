"""The argument ``memory`` of scan: what is accepted, and that it changes no meaning."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function, grad, scan, shared


@pytest.fixture(autouse=True)
def no_cache():
    with config.change(cache="off", floatX="float64"):
        yield


def states(x, memory, weight=0.5):
    return scan(lambda row, h: T.tanh(row + weight * h), x, T.ones_like(x[0]), memory=memory)[0]


@pytest.mark.parametrize("memory", [0, 1, 10**12, np.int64(5000)])
@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_a_budget_changes_no_value(memory, backend):
    x = T.matrix("x")
    w = shared(0.5, "w")
    want, got = (
        function([x], [(hs := states(x, m, w)), *grad((hs ** 2).sum(), [w, x])], backend=b)
        for m, b in ((None, "numpy"), (memory, backend)))
    for steps in (1, 2, 3, 17):
        data = np.random.default_rng(steps).standard_normal((steps, 3))
        for a, b in zip(got(data), want(data), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("memory", [-1, 1.5, "1 GB", True])
def test_what_is_no_number_of_bytes_is_refused(memory):
    with pytest.raises(ValueError, match=r"memory is .*; it must be a whole number of bytes"):
        states(T.matrix("x"), memory)


def test_a_function_without_gradient_ignores_it():
    x = T.matrix("x")
    plain, limited = (function([x], states(x, m)[-1], backend="llvm") for m in (None, 1))
    assert len(limited.report().loops) == len(plain.report().loops) == 1
    data = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_array_equal(plain(data), limited(data))
