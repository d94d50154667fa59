"""Random programs as CUDA kernels, run by the shim: every op that users reach, put together at
random (tests/lowering/graph_fuzz.py).  ``tools/fuzz.py --backend shim`` runs as many as one likes.
"""

from __future__ import annotations

import pytest
import test_lower_fuzz as fuzz
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(fuzz.QUIET, max_examples=10)
@given(st.integers(0, 10**6))
def test_random_programs(seed: int) -> None:
    fuzz.check(seed, "shim", 4)


@pytest.mark.parametrize("seed", [
    1414,  # it went wrong once in the loop program
])
def test_programs_that_went_wrong_once(seed: int) -> None:
    fuzz.check(seed, "shim", 4)
