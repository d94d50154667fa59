"""saved, last, accumulate, prune: which stacks a loop keeps, and which carries."""

from __future__ import annotations

import models
import numpy as np
import pytest
from scan_cases import compiled, inside, scans

import tinygraph.tensor as T
from tinygraph import function, grad, scan
from tinygraph.ops.arithmetic import Elemwise, Reduce
from tinygraph.ops.linalg import Dot
from tinygraph.passes.scan_edit import ScanEdit
from tinygraph.passes.scan_saved import minimum_cut


def same(inputs, outputs, arrays, name):
    want = function(inputs, outputs, backend="numpy")(*arrays)
    for passes in (None, f"-{name}", "none", name):
        f = function(inputs, outputs, backend="loops", passes=passes)
        models.assert_close(f(*arrays), want)


def vector_case(seed=0, n=5):
    return np.random.default_rng(seed).standard_normal(n).astype("float32")


# --- saved


def test_cheap_values_are_computed_again():
    x, h0 = T.matrix("x"), T.vector("h0")

    def step(row, h):
        gate = T.nnet.sigmoid(row)
        return gate * h + (1 - gate) * T.tanh(row + h)

    h, _ = scan(step, x, h0)
    cost = (h ** 2).sum()
    f = compiled([x, h0], grad(cost, [x, h0]))
    before, after = f.alone("saved")
    stacks = [n.op.groups.stacks for n in scans(f.final)]
    # Kept: the states (new and old are one memory), the gate and the candidate; 1 - gate and
    # the products with it are computed again.
    assert stacks[0] <= 4
    assert inside(after, Elemwise)[0] == inside(before, Elemwise)[0]
    functions = {n.op.fn.name for n in scans(f.final)[1].op.body.nodes()
                 if isinstance(n.op, Elemwise)}
    assert not functions & {"sigmoid", "tanh", "exp"}
    arrays = [np.random.default_rng(1).standard_normal(s).astype("float32")
              for s in ((4, 3), (3,))]
    same([x, h0], grad(cost, [x, h0]), arrays, "saved")


def test_products_and_functions_are_never_computed_again():
    model = models.lstm(mask=True, peepholes=True)
    f = compiled(model.inputs, grad(model.cost(), model.params))
    forward, backward = scans(f.final)
    kept = {n.op.fn.name for n in backward.op.body.nodes() if isinstance(n.op, Elemwise)}
    assert not kept & {"sigmoid", "tanh", "exp", "log"}
    assert sum(isinstance(n.op, Dot) for n in backward.op.body.nodes()) == 1
    dropped = compiled(model.inputs, grad(model.cost(), model.params), "-saved")
    assert forward.op.groups.stacks < scans(dropped.final)[0].op.groups.stacks


def test_the_cut_keeps_what_costs_least():
    x, h0 = T.matrix("x"), T.vector("h0")

    def step(row, h):
        a = T.exp(row + h)
        b, c = a * 2, a * 3 + 1
        return b * c

    h, _ = scan(step, x, h0)
    f = compiled([x, h0], h)
    (node,) = scans(f.stage("unite"))
    edit = ScanEdit(node)
    new = edit.states[0].new
    (b, c) = new.node.inputs
    kept = minimum_cut(edit, [b, c], [])
    (a,) = {v for v in b.node.inputs if v in edit.varying()}
    assert kept == {a}
    assert minimum_cut(edit, [b], [b]) == {b}  # in memory anyway, hence for nothing


# --- last


def test_the_last_state_needs_no_stack():
    x, h0 = T.matrix("x"), T.vector("h0")
    h, _ = scan(lambda row, h: T.tanh(row + h), x, h0)
    (node,) = scans(compiled([x, h0], h[-1]).final)
    assert node.op.groups.stacks == 0
    (node,) = scans(compiled([x, h0], [h[-1], h.sum(axis=1)]).final)
    assert node.op.groups.stacks == 1
    arrays = [np.ones((3, 2), "float32"), np.ones(2, "float32")]
    same([x, h0], [h[-1], h[-1:], h[-2]], arrays, "last")


def test_the_last_state_through_a_transpose():
    x, h0 = T.tensor3("x"), T.matrix("h0")
    h, _ = scan(lambda row, h: T.tanh(row + h), x, h0)
    out = h.dimshuffle(1, 0, 2)[:, -1]
    (node,) = scans(compiled([x, h0], out).final)
    assert node.op.groups.stacks == 0
    arrays = [np.ones((3, 2, 4), "float32"), np.ones((2, 4), "float32")]
    same([x, h0], [out], arrays, "last")


def test_other_rows_keep_the_stack():
    x, h0 = T.matrix("x"), T.vector("h0")
    (h, y), _ = scan(lambda row, h: (row + h, row * h), x, [h0, None])
    for out in (h[-2], h[0], y[-1]):
        (node,) = scans(compiled([x, h0], out).final)
        assert node.op.groups.stacks == 1


@pytest.mark.parametrize("backend", ["numpy", "loops"])
def test_no_steps_have_no_last_state(backend):
    x, h0 = T.matrix("x"), T.vector("h0")
    h, _ = scan(lambda row, h: T.tanh(row + h), x, h0)
    f = function([x, h0], h[-1], backend=backend)
    with pytest.raises(IndexError, match="out of range"):
        f(np.zeros((0, 2), "float32"), np.zeros(2, "float32"))


# --- accumulate


def test_a_sum_over_time_is_a_carry():
    x, w = T.tensor3("x"), T.matrix("w")
    y, _ = scan(lambda row: T.tanh(T.dot(T.exp(row), w).max(axis=1)), x)
    f = compiled([x, w], y.sum(axis=0))
    before, after = f.alone("accumulate")
    assert [n.op.groups.stacks for n in scans(before)] == [1]
    assert [n.op.groups.carries for n in scans(before)] == [0]
    (node,) = scans(after)
    assert (node.op.groups.stacks, node.op.groups.carries) == (0, 1)
    assert not [n for n in after.nodes() if isinstance(n.op, Reduce) and n.op.kind == "sum"]
    arrays = [np.random.default_rng(0).standard_normal(s).astype("float32")
              for s in ((4, 3, 2), (2, 5))]
    same([x, w], [y.sum(axis=0)], arrays, "accumulate")
    same([x, w], [y.sum()], arrays, "accumulate")


def test_a_stack_that_something_else_reads_is_not_accumulated():
    x = T.matrix("x")
    y, _ = scan(lambda row, h: T.tanh(row * h), x, T.ones_like(x[0]))
    _, after = compiled([x], [y.sum(axis=0), y]).alone("accumulate")
    assert scans(after)[0].op.groups.carries == 1
    same([x], [y.sum(axis=0), y, (y * 2).sum()], [np.ones((3, 2), "float32")], "accumulate")


# --- prune


def test_what_nobody_reads_is_dropped():
    x, z = T.matrix("x"), T.matrix("z")

    def step(row, other, h, g):
        return T.tanh(row + h), g + other, row * 3

    (h, _, _), _ = scan(step, [x, z], [T.zeros_like(x[0]), T.zeros_like(z[0]), None])
    f = compiled([x, z, ], [h, z.sum()])
    (node,) = scans(f.final)
    assert (node.op.groups.seqs, node.op.groups.carries, node.op.groups.stacks) == (1, 1, 1)
    arrays = [np.ones((3, 2), "float32"), np.ones((3, 2), "float32")]
    same([x, z], [h, z.sum()], arrays, "prune")


def test_a_carry_that_nothing_changes_is_a_constant():
    x = T.matrix("x")
    (h, k), _ = scan(lambda row, h, k: (T.tanh(row * k + h), k), x, [T.zeros_like(x[0])] * 2)
    (node,) = scans(compiled([x], h).final)
    assert node.op.groups.carries == 1 and node.op.groups.consts <= 1
    same([x], [h, k[-1]], [np.ones((3, 2), "float32")], "prune")


def test_an_operand_given_twice_is_one():
    x = T.matrix("x")
    h, _ = scan(lambda a, b, h: T.tanh(a * b + h), [x, x], T.zeros_like(x[0]))
    (node,) = scans(compiled([x], h).final)
    assert node.op.groups.seqs == 1
    same([x], [h], [np.ones((3, 2), "float32")], "prune")


def test_a_scan_that_feeds_only_a_dead_one_is_dropped():
    x = T.matrix("x")
    first, _ = scan(lambda row, h: T.tanh(row + h), x, T.zeros_like(x[0]))
    (a, b), _ = scan(lambda row, other, h: (T.sin(row + h), other * h), [x, first],
                     [T.zeros_like(x[0]), None])
    assert len(scans(compiled([x], [a, b]).final)) == 2
    assert len(scans(compiled([x], a).final)) == 1
    same([x], [a], [np.ones((3, 2), "float32")], "prune")


# --- join


def test_stacks_that_are_joined_behind_the_loop_are_one():
    model = models.lstm()
    f = compiled(model.inputs, grad(model.cost(), model.params))
    before, after = f.alone("join")
    backward = scans(before)[1], scans(after)[1]
    assert backward[0].op.groups.stacks == 4 and backward[1].op.groups.stacks == 5
    # Nobody reads the four alone any more.
    assert scans(f.final)[1].op.groups.stacks == 1
    same(model.inputs, [model.cost(), *grad(model.cost(), model.params)], model.batch(2, 3),
         "join")


def test_a_stack_of_joined_stacks_is_one_too():
    x, h0, w = T.tensor3("x"), T.matrix("h0"), T.matrix("w")

    def step(row, h):
        u, v, r = T.tanh(row + h), T.exp(-h), row * h
        both = T.concatenate([u, v], axis=1)
        return T.tanh(T.dot(T.concatenate([both, r], axis=1), w)), both, r

    (h, both, r), _ = scan(step, x, [h0, None, None])
    outputs = [h[-1], T.concatenate([both, r], axis=2), both[1]]
    f = compiled([x, h0, w], outputs)
    before, after = (scans(g)[0] for g in f.alone("join"))
    assert after.op.groups.stacks == before.op.groups.stacks + 1
    assert scans(f.final)[0].op.groups.stacks == 1
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal(s).astype("float32") for s in ((4, 3, 2), (3, 2), (6, 2))]
    same([x, h0, w], outputs, arrays, "join")


@pytest.mark.parametrize("parts", [2, 1])
def test_parts_of_a_product_are_stacked_as_the_product(parts):
    x, h0, w = T.tensor3("x"), T.matrix("h0"), T.matrix("w")
    wide = T.specify_shape(w, (2, 4))

    def step(row, h):
        y = T.dot(h, wide)
        halves = y[:, :2], y[:, 2:4]
        return [T.tanh(row + halves[0] * halves[1]), *halves[:parts]]

    stacks, _ = scan(step, x, [h0, *[None] * parts])
    outputs = [T.exp(s) for s in stacks[1:]]
    f = compiled([x, h0, w], outputs)
    (scan_,) = scans(f.final)
    (made,) = {v.node.op.__class__ for v in scan_.op.groups.outputs(scan_.op.body.outputs).stacks}
    # One half alone would keep more than is read.
    assert (made is Dot) == (parts == 2)
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal(s).astype("float32") for s in ((4, 3, 2), (3, 2), (2, 4))]
    same([x, h0, w], outputs, arrays, "join")
