"""invariant, before, scatter, after: what leaves a loop, and where it goes."""

from __future__ import annotations

import models
import numpy as np
import pytest
from scan_cases import compiled, count, inside, scans

import tinygraph.tensor as T
from tinygraph import function, grad, scan
from tinygraph.ops.arithmetic import Elemwise, Reduce
from tinygraph.ops.index import Put, Take
from tinygraph.ops.linalg import Dot
from tinygraph.ops.views import Slice
from tinygraph.scan_module import until


@pytest.fixture
def parts():
    rng = np.random.default_rng(4)
    x, h0, w, u = T.tensor3("x"), T.matrix("h0"), T.matrix("w"), T.matrix("u")
    arrays = [rng.standard_normal(s).astype("float32") for s in
              ((4, 3, 2), (3, 5), (2, 5), (5, 5))]
    return [x, h0, w, u], arrays


def same(inputs, outputs, arrays, name):
    want = function(inputs, outputs, backend="numpy")(*arrays)
    for passes in (None, f"-{name}", "none", name):
        f = function(inputs, outputs, backend="loops", passes=passes)
        models.assert_close(f(*arrays), want)


# --- invariant


def test_parts_of_weights_are_cut_once():
    # split_dots makes dot(concatenate([x, h]), W) into products with parts of W.
    model = models.lstm("concat")
    f = compiled(model.inputs, model.states[0])
    before, after = f.alone("invariant")
    assert inside(before, Slice)[0] == 8 and inside(after, Slice) == [0]
    assert count(before, Slice) + 8 == count(after, Slice)
    same(model.inputs, [model.states[0]], model.batch(2, 3), "invariant")


def test_what_the_step_reads_from_outside_is_computed_once(parts):
    inputs, arrays = parts
    x, h0, w, u = inputs
    h, _ = scan(lambda row, h: T.tanh(T.dot(row, T.exp(w)) + h * T.dot(u, u).sum()) + T.exp(
        u[0]), x, h0)
    graph = compiled(inputs, h).stage("invariant")
    (node,) = scans(graph)
    assert "exp" not in {n.op.fn.name for n in node.op.body.nodes() if isinstance(n.op, Elemwise)}
    assert inside(graph, Dot) == [1] and inside(graph, Reduce) == [0]
    # A row of the batch's size is stretched after it is computed.
    shapes = [n.outputs[0].ndim for n in graph.nodes()
              if isinstance(n.op, Elemwise) and n.op.fn.name == "exp"]
    assert sorted(shapes) == [1, 2]
    same(inputs, [h, *grad(h.sum(), [w, u])], arrays, "invariant")


def test_a_constant_output_is_computed_once():
    v, n = T.vector("v"), T.iscalar("n")
    (h, k), _ = scan(lambda h: [h * 2, T.exp(v)], None, [v, None], n_steps=n)
    f = compiled([v, n], [h, k])
    assert inside(f.stage("invariant"), Elemwise) == [1]
    got = f.function(np.zeros(2, "float32"), 3)
    np.testing.assert_array_equal(got[1], np.ones((3, 2)))
    same([v, n], [h, k], [np.ones(2, "float32"), np.array(3, "int32")], "invariant")


# --- before


def test_products_of_the_input_come_before_the_loop(parts):
    inputs, arrays = parts
    x, h0, w, u = inputs
    h, _ = scan(lambda row, h: T.tanh(T.dot(T.exp(row), w) + T.dot(h, u)), x, h0)
    before, after = compiled(inputs, h).alone("before")
    assert inside(before, Dot) == [2] and inside(after, Dot) == [1]
    assert sum(isinstance(n.op, Dot) for n in after.nodes()) == 1
    (node,) = scans(after)
    sequence = node.op.groups.inputs(node.inputs).seqs[-1]
    assert isinstance(sequence.node.op, Dot) and sequence.ndim == 3
    same(inputs, [h, *grad(h.sum(), [x, w, u])], arrays, "before")


def test_precompute_false_leaves_them_inside(parts):
    inputs, arrays = parts
    x, h0, w, u = inputs
    h, _ = scan(lambda row, h: T.tanh(T.dot(row, w) + T.dot(h, u)), x, h0, precompute=False)
    assert inside(compiled(inputs, h).final, Dot) == [2]
    same(inputs, [h], arrays, "before")


def test_products_of_carries_stay(parts):
    inputs, arrays = parts
    x, h0, w, u = inputs
    h, _ = scan(lambda row, h: T.dot(T.dot(row, w) + h, u), x, h0)
    assert inside(compiled(inputs, h).final, Dot) == [1]
    same(inputs, [h], arrays, "before")


def test_only_the_steps_that_run_are_computed(parts):
    inputs, arrays = parts
    x, h0, w, _ = inputs
    h, _ = scan(lambda row, h: T.tanh(T.dot(row, w) + h), x, h0, n_steps=2)
    f = compiled(inputs[:3], h)
    (node,) = scans(f.final)
    assert node.op.groups.inputs(node.inputs).seqs[0].type.dims[0] == 2
    same(inputs[:3], [h], arrays[:3], "before")


def lookup(index_ndim):
    """A network that reads rows of a table by their numbers, in the step."""
    rng = np.random.default_rng(5)
    index = T.imatrix("index") if index_ndim else T.ivector("index")
    table, w, u, h0 = T.matrix("table"), T.matrix("w"), T.matrix("u"), T.matrix("h0")
    start = h0 if index_ndim else h0[0]
    h, _ = scan(lambda i, h: T.tanh(T.dot(table[i], w) + T.dot(h, u)), index, start)
    arrays = [rng.integers(-7, 7, (4, 3) if index_ndim else 4).astype("int32"), *(
        rng.standard_normal(s).astype("float32") for s in ((7, 2), (2, 5), (5, 5), (3, 5)))]
    return [index, table, w, u, h0], h, arrays


@pytest.mark.parametrize("index_ndim", [0, 1])
def test_rows_of_a_table_are_looked_up_before_the_loop(index_ndim):
    inputs, h, arrays = lookup(index_ndim)
    before, after = compiled(inputs, h).alone("before")
    assert inside(before, Take) == [1] and inside(after, Take) == [0]
    assert inside(before, Dot) == [2] and inside(after, Dot) == [1]
    # The gradient of the weights needs them too: they are looked up once.
    final = compiled(inputs, [h, *grad(h.sum(), inputs[1:])]).final
    assert inside(final, Take) == [0, 0] and count(final, Take) == 1
    same(inputs, [h, *grad(h.sum(), inputs[1:])], arrays, "before")


def test_columns_of_a_table_are_looked_up_before_the_loop_too():
    index, table = T.tensor3("index", "int32"), T.tensor3("table")
    w, h0 = T.matrix("w"), T.tensor4("h0")
    # (table's first axis, the two axes of an index, table's last axis)
    h, _ = scan(lambda i, h: T.tanh(T.dot(table[:, i], w) + h), index, h0)
    before, after = compiled([index, table, w, h0], h).alone("before")
    assert inside(before, Take) == [1] and inside(after, Take) == [0]
    f = compiled([index, table, w, h0], [h, *grad((h ** 2).sum(), [table, w])])
    assert all(loop.step.products == 0 for loop in f.function.report().loops)
    rng = np.random.default_rng(6)
    arrays = [rng.integers(-5, 5, (3, 2, 4)).astype("int32"), *(
        rng.standard_normal(s).astype("float32") for s in ((2, 5, 3), (3, 6), (2, 2, 4, 6)))]
    same([index, table, w, h0], [h, *grad((h ** 2).sum(), [table, w])], arrays, "before")
    same([index, table, w, h0], [h, *grad((h ** 2).sum(), [table, w])], arrays, "scatter")


def test_rows_are_not_looked_up_before_a_loop_that_may_end():
    index, table, w, h0 = T.ivector("index"), T.matrix("table"), T.matrix("w"), T.vector("h0")

    def step(i, h):
        new = h + T.dot(table[i], w)
        return new, until(T.sum(new) > 3)

    h, _ = scan(step, index, h0)
    assert inside(compiled([index, table, w, h0], h).final, Dot) == [1]
    arrays = [np.ones(s, "float32") for s in ((2, 3), (3, 2), (2,))]
    numbers = np.array([0, 99], "int32")  # the loop ends before 99 is looked up
    same([index, table, w, h0], [h], [numbers, *arrays], "before")


# --- scatter


@pytest.mark.parametrize("index_ndim", [0, 1])
def test_gradients_of_looked_up_rows_are_added_behind_the_loop(index_ndim):
    inputs, h, arrays = lookup(index_ndim)
    f = compiled(inputs, grad((h ** 2).sum(), inputs[1:]))
    before, after = f.alone("scatter")
    assert sum(inside(before, Put)) == 1 and sum(inside(after, Put)) == 0
    assert count(before, Put) == 0 and count(after, Put) == 1
    assert inside(f.final, Dot) == [1, 1]
    assert [loop.step.products for loop in f.function.report().loops] == [1, 1]
    same(inputs, [h, *grad((h ** 2).sum(), inputs[1:])], arrays, "scatter")


def test_a_table_that_no_product_waits_for_is_added_up_in_the_loop():
    index, table, h0 = T.imatrix("index"), T.matrix("table"), T.matrix("h0")
    h, _ = scan(lambda i, h: T.tanh(table[i] + h), index, h0)
    f = compiled([index, table, h0], grad((h ** 2).sum(), table))
    before, after = f.alone("scatter")
    assert after is before
    arrays = [np.array([[1, 0], [1, 1], [-1, 0]], "int32"), np.ones((3, 2), "float32"),
              np.ones((2, 2), "float32")]
    same([index, table, h0], [h, grad((h ** 2).sum(), table)], arrays, "scatter")


# --- after


def test_products_that_reach_no_carry_come_after_the_loop(parts):
    inputs, arrays = parts
    x, h0, w, u = inputs
    (h, y), _ = scan(lambda row, h: (T.tanh(T.dot(row, w) + h), T.nnet.sigmoid(T.dot(h, u))),
                     x, [h0, None])
    before, after = compiled(inputs, [h[-1], y]).alone("after")
    assert inside(before, Dot) == [1] and inside(after, Dot) == [0]
    # What follows the product goes with it, and its operand is stacked instead.
    assert inside(after, Elemwise) == [2]
    assert scans(after)[0].op.groups.stacks == 1
    same(inputs, [h[-1], y, *grad(y.sum(), [w, u])], arrays, "after")


def test_weight_gradients_are_one_product_over_batch_and_time():
    model = models.rnn()
    f = compiled(model.inputs, grad(model.cost(), model.params[1]))
    assert inside(f.stage("saved"), Dot) == [1, 2]
    final = f.final
    assert inside(final, Dot) == [1, 1]
    outside = [n for n in final.nodes() if isinstance(n.op, Dot)]
    weight = [n for n in outside if n.outputs[0].ndim == 2 and n.inputs[0].ndim == 3]
    assert len(weight) == 1
    op = weight[0].op
    assert len(set(op.a) & set(op.b)) == 2  # it sums over time and batch


def test_a_weight_gradient_of_which_a_sum_is_read_too_is_one_product(parts):
    inputs, arrays = parts
    x, h0, w, u = inputs
    centred = u - u.mean(axis=1, keepdims=True)
    h, _ = scan(lambda row, h: T.tanh(T.dot(row, w) + T.dot(h, centred)), x, h0)
    outputs = [grad((h ** 2).sum(), u)]
    final = compiled(inputs, outputs).final
    # The input's, and the gradient's, whose sum over a row is taken of what it gives.
    assert count(final, Dot) == 2
    same(inputs, outputs, arrays, "after")


def test_a_product_that_reaches_a_carry_stays(parts):
    inputs, arrays = parts
    x, h0, w, u = inputs

    def step(row, h):
        y = T.dot(h, u)
        return T.tanh(y + T.dot(row, w)), y

    (h, y), _ = scan(step, x, [h0, None])
    assert inside(compiled(inputs, [h, y]).final, Dot) == [1]
    same(inputs, [h, y], arrays, "after")
