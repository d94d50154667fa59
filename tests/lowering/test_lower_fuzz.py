"""Random programs: the loop program and native code compute what the interpreter computes."""

from __future__ import annotations

import graph_fuzz
import models
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinygraph

QUIET = settings(max_examples=40, deadline=None, derandomize=True,
                 suppress_health_check=[HealthCheck.too_slow])


def check(seed: int, backend: str, sizes: int, passes: str | None = None) -> None:
    fuzz = graph_fuzz.Fuzz(seed)
    fuzz.grow(14)
    outputs = fuzz.outputs(4)
    with tinygraph.config.change(cache="off"):
        f = tinygraph.function(fuzz.inputs, outputs, backend=backend, passes=passes,
                               on_unused_input="ignore")
        oracle = tinygraph.function(fuzz.inputs, outputs, backend="numpy",
                                    on_unused_input="ignore")
    for arrays in fuzz.arrays[:sizes]:
        # Sums that cancel are rounding: errors count relative to the inputs, which are about 1.
        models.assert_close(f(*arrays), oracle(*arrays), floor=1.0)
    assert f.compiles == 1


@QUIET
@given(st.integers(0, 10**6))
def test_loops(seed):
    check(seed, "loops", 4)


@QUIET
@given(st.integers(0, 10**6))
def test_loops_without_passes(seed):
    check(seed, "loops", 4, "none")


@settings(QUIET, max_examples=8)
@given(st.integers(0, 10**6))
def test_llvm(seed):
    check(seed, "llvm", len(graph_fuzz.SIZES))


@pytest.mark.parametrize("seed", [
    1414,  # a row-major copy for a reshape joined a nest that ran before it
])
def test_programs_that_went_wrong_once(seed):
    check(seed, "loops", 4)
