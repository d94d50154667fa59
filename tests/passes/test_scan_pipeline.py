"""The scan passes on whole programs: well formed after every pass, equal values without any."""

from __future__ import annotations

import models
import pytest
from scan_cases import cases, compiled

from tinygraph import function
from tinygraph.interpret import Sizes, evaluate
from tinygraph.passes.pipeline import PIPELINE
from tinygraph.rewrite.check import check_graph

CASES = cases()
SCAN_PASSES = ("unite", "last", "prune", "invariant", "before", "saved", "scatter", "after",
               "accumulate", "join", "checkpoint", "merge")


@pytest.mark.parametrize("name", CASES)
def test_graphs_are_well_formed_and_equal_after_every_pass(name):
    inputs, outputs, arrays = CASES[name]
    program = compiled(inputs, outputs)
    values = [*arrays, *(w.get_value() for w in program.function.shared)]
    want, checked = None, set()
    for stage, graph in program.stages:
        if graph in checked:
            continue
        checked.add(graph)
        check_graph(graph)
        got = evaluate(graph.outputs, dict(zip(graph.inputs, values, strict=True)), Sizes())
        want = want or got
        try:
            models.assert_close(got, want)
        except AssertionError as error:
            raise AssertionError(f"after {stage}: {error}") from error


@pytest.mark.parametrize("name", ["lstm", "second derivative", "nested", "taps"])
def test_every_pass_may_be_left_out(name):
    inputs, outputs, arrays = CASES[name]
    want = function(inputs, outputs, backend="numpy")(*arrays)
    for passes in ("none", *(f"-{p}" for p in SCAN_PASSES)):
        f = function(inputs, outputs, backend="loops", passes=passes)
        try:
            models.assert_close(f(*arrays), want)
        except AssertionError as error:
            raise AssertionError(f"passes={passes!r}: {error}") from error


@pytest.mark.parametrize("name", ["rnn truncated", "nested", "taps"])
def test_each_pass_alone(name):
    inputs, outputs, arrays = CASES[name]
    want = function(inputs, outputs, backend="numpy")(*arrays)
    for one in dict.fromkeys(p.name for p in PIPELINE):
        f = function(inputs, outputs, backend="loops", passes=[one])
        try:
            models.assert_close(f(*arrays), want)
        except AssertionError as error:
            raise AssertionError(f"passes=[{one!r}]: {error}") from error


@pytest.mark.parametrize("name", CASES)
def test_a_pass_that_ran_finds_nothing_more_to_do(name):
    inputs, outputs, _ = CASES[name]
    program = compiled(inputs, outputs)
    for one in SCAN_PASSES:
        _, graph = program.alone(one)
        assert program.again(one, graph).outputs == graph.outputs, one
