"""Constant folding."""

from __future__ import annotations

import numpy as np
import pytest

from tinygraph.dtypes import bool_, float64, int64
from tinygraph.graph import apply
from tinygraph.ops.arithmetic import Constant, cast, constant, elementwise, full, reduce_
from tinygraph.ops.linalg import dot
from tinygraph.ops.sizes import size_value
from tinygraph.ops.views import Unslice, axis_region, concatenate, slice_
from tinygraph.passes.fold import SMALL, fold


def array(*shape):
    return constant(np.arange(float(np.prod(shape))).reshape(shape))


def test_a_chain_of_constants_becomes_one(bench):
    x = bench.input("x", 2, 2)
    value = x * dot(array(2, 3), array(3, 2)).exp()
    graph = bench.run(fold, value)
    expected = np.exp(np.arange(6.0).reshape(2, 3) @ np.arange(6.0).reshape(3, 2))
    bench.same(graph, x * constant(expected))


def test_numbers_fold_at_any_size(bench):
    n = bench.size("n", 5)
    x = bench.input("x", n)
    graph = bench.run(fold, x + full(2.0, (n,), float64) * full(3.0, (n,), float64))
    bench.same(graph, x + full(6.0, (n,), float64))


def test_comparisons_and_casts_of_numbers(bench):
    x = bench.input("x", 3)
    condition = elementwise("lt", full(1, (3,), int64), full(2, (3,), int64))
    graph = bench.run(fold, condition.switch(x, x + cast(condition, float64)))
    bench.same(graph, full(True, (3,), bool_).switch(x, x + full(1.0, (3,), float64)))


def test_a_known_size_is_a_number(bench):
    n = bench.size("n", 5)
    x = bench.input("x", n, 4)
    graph = bench.run(fold, x * cast(size_value(x.type.dims[1]), float64),
                      x * cast(size_value(x.type.dims[0]), float64))
    bench.same(graph, x * 4.0, x * cast(size_value(n), float64))


def test_a_large_result_is_left_to_the_run(bench):
    wide, tall = array(1, SMALL), array(2, 1)
    graph = bench.run(fold, dot(tall, wide), wide * 2)
    bench.same(graph, dot(tall, wide), constant(np.arange(float(SMALL)).reshape(1, -1) * 2))


def test_a_size_that_only_the_run_knows_is_left(bench):
    n = bench.size("n", 5)
    x = bench.input("x", n)
    value = apply(Unslice((n,), axis_region(x, 0, 1, 2)), array(2))[0] + x
    assert bench.run(fold, value).outputs == bench.graph(value).outputs


@pytest.mark.parametrize("build", [
    lambda: reduce_("sum", array(3, 4), (0,)),
    lambda: concatenate([array(3), array(4)], 0),
    lambda: slice_(array(5), axis_region(array(5), 0, 4, 3, -1)),
    lambda: array(3) + full(2.0, (3,), float64),
])
def test_every_kind_of_op_folds(bench, build):
    graph = bench.run(fold, build())
    assert isinstance(graph.outputs[0].node.op, Constant)
