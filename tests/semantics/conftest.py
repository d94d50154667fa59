"""Tests of what docs/coming-from-theano.md lists, point by point: the number in a test's name is
the number there.  floatX is 'float64' here, under which the rules for dtypes are NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from tinygraph import config


@pytest.fixture(autouse=True)
def double_precision():
    with config.change(floatX="float64", cache="off"):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
