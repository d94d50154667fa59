"""first, inside, sink: what enters a loop, and what is computed in it rather than before."""

from __future__ import annotations

import models
import numpy as np
import pytest
from scan_cases import compiled, count, inside, scans

import tinygraph.tensor as T
from tinygraph import function, grad, scan
from tinygraph.ops.arithmetic import Elemwise
from tinygraph.ops.linalg import Dot
from tinygraph.ops.views import Slice, Unslice

RNG = np.random.default_rng(3)


def same(inputs, outputs, shapes, name):
    arrays = [RNG.standard_normal(s).astype("float32") for s in shapes]
    want = function(inputs, outputs, backend="numpy")(*arrays)
    for backend in ("loops", "llvm"):
        for passes in (None, f"-{name}"):
            f = function(inputs, outputs, backend=backend, passes=passes)
            models.assert_close(f(*arrays), want)


def rnn(features=3, hidden=4):
    x, h0 = T.tensor3("x"), T.matrix("h0")
    W, U = T.matrix("W"), T.matrix("U")
    states, _ = scan(lambda row, h: T.tanh(T.dot(row, W) + T.dot(h, U)), x, h0)
    shapes = [(5, 6, features), (6, hidden), (features, hidden), (hidden, hidden)]
    return [x, h0, W, U], states, shapes


# --- first


def test_the_gradient_of_the_last_state_is_the_initial_state_of_the_backward_loop():
    inputs, states, shapes = rnn()
    outputs = grad((states[-1] ** 2).sum(), inputs)
    f = compiled(inputs, outputs)
    before, after = f.alone("first")
    assert count(before, Unslice) == 1
    assert count(f.final, Unslice) == 0
    # One sum less: the row is no longer added at every step.
    sums = [inside(graph, Elemwise)[-1] for graph in (before, after)]
    assert sums[1] == sums[0] - 1
    same(inputs, outputs, shapes, "first")


def test_a_row_that_is_read_twice_stays_a_sequence():
    inputs, states, shapes = rnn()
    rows = T.zeros((inputs[0].shape[0], 6, 4))
    rows = T.set_subtensor(rows[0], inputs[1])

    def step(row, h):
        return h + row, h * row

    (total, products), _ = scan(step, rows, [inputs[1], None])
    outputs = [total[-1], products.sum() + states.sum()]
    same(inputs, outputs, shapes, "first")


def test_no_steps_at_all():
    inputs, states, shapes = rnn()
    f = function(inputs, grad(states.sum(), inputs[2:]), backend="llvm")
    shapes[0] = (0, *shapes[0][1:])
    for found in f(*[np.ones(s, "float32") for s in shapes]):
        assert not found.any()


# --- inside


def test_a_bias_on_the_input_products_is_added_in_the_step():
    x, h0, b = T.tensor3("x"), T.matrix("h0"), T.vector("b")
    W = T.matrix("W")
    states, _ = scan(lambda row, h: T.tanh(row + h), T.dot(x, W) + b, h0)
    f = compiled([x, h0, b, W], states)
    assert count(f.stage("inside"), Elemwise) == 0
    assert count(f.stage("inside"), Dot) == 1
    same([x, h0, b, W], states, [(5, 6, 9), (6, 4), (4,), (9, 4)], "inside")


@pytest.mark.parametrize("features, outside", [(1, 0), (4, 0), (5, 1)])
def test_products_over_few_features_are_sums_in_the_step(features, outside):
    x, h0 = T.tensor3("x"), T.matrix("h0")
    W = np.full((features, 4), 0.5, "float32")
    states, _ = scan(lambda row, h: T.tanh(row + h), T.dot(x, T.as_tensor_variable(W)), h0)
    f = compiled([x, h0], states)
    assert count(f.final, Dot) == outside
    assert inside(f.final, Dot)[0] == 0
    same([x, h0], states, [(5, 6, features), (6, 4)], "inside")


@pytest.mark.parametrize("part", ["all", "reversed", "columns"])
def test_parts_of_products_enter_too(part):
    x, h0 = T.tensor3("x"), T.matrix("h0")
    W = T.as_tensor_variable(RNG.standard_normal((2, 8)).astype("float32"))
    rows = T.dot(x, W)
    rows = {"all": rows[:, :, :4] * rows[:, :, 4:], "reversed": rows[::-1, :, 4:] + 1,
            "columns": rows[:, :, 1::2]}[part]
    states, _ = scan(lambda row, h: T.tanh(row + h), rows, h0)
    f = compiled([x, h0], states)
    assert count(f.final, Dot) == 0
    same([x, h0], states, [(5, 6, 2), (6, 4)], "inside")


def test_what_is_read_elsewhere_stays_before_the_loop():
    x, h0 = T.tensor3("x"), T.matrix("h0")
    rows = T.exp(x)
    states, _ = scan(lambda row, h: T.tanh(row + h), rows, h0)
    f = compiled([x, h0], [states, rows])
    assert count(f.final, Elemwise) == 1
    same([x, h0], [states, rows], [(5, 6, 4), (6, 4)], "inside")


# --- sink


def test_gates_that_are_taken_apart_are_added_apart():
    x, h0, b = T.tensor3("x"), T.matrix("h0"), T.as_tensor_variable(np.ones(8, "float32"))
    W, U = (T.as_tensor_variable(RNG.standard_normal((n, 8)).astype("float32")) for n in (9, 4))

    def step(row, h):
        gates = T.dot(row, W) + T.dot(h, U) + b
        return T.nnet.sigmoid(gates[:, :4]) * T.tanh(gates[:, 4:])

    states, _ = scan(step, x, h0)
    inputs = [x, h0]
    f = compiled(inputs, states)
    body = scans(f.final)[0].op.body
    sliced = [n.inputs[0].node for n in body.nodes() if isinstance(n.op, Slice)]
    assert not any(n is not None and isinstance(n.op, Elemwise) for n in sliced)
    report = f.function.report()
    assert report.loops[0].step.nests == 1
    same(inputs, states, [(5, 6, 9), (6, 4)], "sink")


def test_what_a_step_computes_for_rows_is_computed_where_it_is_used():
    x, m, h0 = T.tensor3("x"), T.matrix("m"), T.matrix("h0")
    U = T.as_tensor_variable(RNG.standard_normal((4, 4)).astype("float32"))

    def step(row, kept, h):
        new = T.tanh(row + T.dot(h, U))
        return T.switch(kept.dimshuffle(0, "x") > 0.5, new, h)

    states, _ = scan(step, [x, m], h0)
    f = compiled([x, m, h0], states)
    body = scans(f.final)[0].op.body
    (compared,) = (n for n in body.nodes() if isinstance(n.op, Elemwise) and n.op.fn.name == "gt")
    assert compared.outputs[0].ndim == 2
    assert f.function.report().loops[0].step.nests == 1
    same([x, m, h0], states, [(5, 6, 4), (5, 6), (6, 4)], "spread")


def test_what_a_step_reduces_is_not_computed_again_for_every_element():
    x, h0 = T.tensor3("x"), T.matrix("h0")

    def step(row, h):
        return (row + h) * (1 / (1 + (h * h).sum(axis=1, keepdims=True)))

    states, _ = scan(step, x, h0)
    f = compiled([x, h0], states)
    body = scans(f.final)[0].op.body
    (share,) = (n for n in body.nodes() if isinstance(n.op, Elemwise) and n.op.fn.name == "div")
    assert share.outputs[0].type.dims[1] == 1
    same([x, h0], states, [(5, 6, 4), (6, 4)], "spread")


def test_parts_that_overlap_are_not_computed_twice():
    x = T.matrix("x")
    y = T.exp(x + 1)
    outputs = [y[:, 1:] * 2, y[:, :-1] * 3]
    f = compiled([x], outputs)
    assert sum(n.op.fn.name == "exp" for n in f.final.nodes() if isinstance(n.op, Elemwise)) == 1
    same([x], outputs, [(4, 5)], "sink")
