"""These tests compare with NumPy in float64, on the interpreter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tinygraph import config
from tinygraph_rnn import random


@pytest.fixture(autouse=True)
def float64_interpreter() -> Iterator[None]:
    random.set_rng(1234)
    with config.change(floatX="float64", backend="numpy"):
        yield
    random.set_rng(None)
