"""Gradients through scan against finite differences, in float64."""

from __future__ import annotations

import models
import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import config, function, grad, scan, shared
from tinygraph_rnn import random
from tinygraph_rnn.layers import (
    ConcatLayer,
    DenseLayer,
    InputLayer,
    LSTMLayer,
    ReshapeLayer,
    SliceLayer,
    get_all_params,
    get_output,
)

RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def float64():
    random.set_rng(3)
    with config.change(floatX="float64", backend="loops", cache="off"):
        yield
    random.set_rng(None)


def check(cost, inputs, arrays, wrt=None, tolerance=1e-6, **options):
    """The gradient of ``cost`` by ``wrt`` (inputs or shared variables) has, along a random
    direction, the slope that the interpreter's costs have.  Returns the gradients."""
    wrt = list(inputs) if wrt is None else wrt
    found = function(inputs, grad(cost, wrt), on_unused_input="ignore", **options)(*arrays)
    value = function(inputs, cost, on_unused_input="ignore", backend="numpy")
    for v, g in zip(wrt, found, strict=True):
        base = v.get_value() if v not in inputs else arrays[inputs.index(v)]
        direction, step = RNG.standard_normal(np.shape(base)), 1e-5
        costs = []
        for sign in (1, -1):
            moved = base + sign * step * direction
            if v in inputs:
                costs.append(value(*[moved if u is v else a
                                     for u, a in zip(inputs, arrays, strict=True)]))
            else:
                v.set_value(moved)
                costs.append(value(*arrays))
                v.set_value(base)
        slope = float(costs[0] - costs[1]) / (2 * step)
        assert g.shape == np.shape(base)
        assert abs(float(np.sum(g * direction)) - slope) <= tolerance * max(1.0, abs(slope)), v
    return found


def tutorial_cost():
    """The add task's network: a bidirectional LSTM with everything, its last outputs, a cost."""
    l_in, l_mask = InputLayer((None, None, 2)), InputLayer((None, None))
    both = [LSTMLayer(l_in, 4, mask_input=l_mask, backwards=backwards, learn_init=True,
                      peepholes=True, grad_clipping=100.0) for backwards in (False, True)]
    joined = ConcatLayer(both, axis=2)
    dense = DenseLayer(ReshapeLayer(joined, (-1, 8)), 1, nonlinearity=T.tanh)
    rows = ReshapeLayer(dense, (3, 5, 1))
    out = get_output(SliceLayer(rows, -1, 1))[:, 0]
    target = T.vector("target")
    params = get_all_params(rows, trainable=True)
    rng = np.random.default_rng(0)
    for p in params:
        p.set_value(0.4 * rng.standard_normal(p.get_value().shape))
    return [l_in.input_var, target, l_mask.input_var], T.mean((out - target) ** 2), params


def tutorial_data():
    mask = (np.arange(5) < np.array([5, 2, 4])[:, None]).astype(float)
    return [RNG.standard_normal((3, 5, 2)), RNG.standard_normal(3), mask]


def test_the_whole_tutorial_cost():
    inputs, cost, params = tutorial_cost()
    found = check(cost, inputs, tutorial_data(), [*params, inputs[0]], 1e-5)
    assert len(found) == 2 * (4 * 3 + 3 + 2) + 2 + 1


def test_the_whole_tutorial_cost_natively():
    inputs, cost, params = tutorial_cost()
    data = tutorial_data()
    native = function(inputs, [cost, *grad(cost, params)], backend="llvm")
    oracle = function(inputs, [cost, *grad(cost, params)], backend="numpy")
    models.assert_close(native(*data), oracle(*data))


@pytest.mark.parametrize("make", [models.lstm, models.gru, models.rnn])
def test_second_derivatives(make):
    model = make(hidden=2)
    cost = (model.states[0] ** 2).sum()
    x = model.inputs[0]
    weights = [T.constant(RNG.standard_normal(p.get_value().shape)) for p in model.params]
    inner = sum((g * w).sum() for g, w in zip(grad(cost, model.params), weights, strict=True))
    check(inner, [x], model.batch(2, 3), [x, *model.params], 1e-5)


def test_second_derivatives_natively():
    model = models.rnn(hidden=3)
    x = model.inputs[0]
    inner = (grad((model.states[0] ** 2).sum(), model.params[1]) ** 2).sum()
    check(inner, [x], model.batch(2, 4), [x, *model.params], 1e-5, backend="llvm")


def test_gradients_of_clipped_gradients_are_clipped_forward_only():
    x = T.vector("x")
    h, _ = scan(lambda x, h: tinygraph.gradient.grad_clip(T.tanh(h + x), -0.1, 0.1), x,
                T.constant(0.0, dtype="float64") * x.sum())
    g = function([x], grad(5 * h[-1], x))(np.zeros(3))
    # What comes back into the last step is cut to 0.1, and tanh'(0) is 1 in every step.
    np.testing.assert_allclose(g, 0.1)


# --- options of scan ---


@pytest.mark.parametrize("steps", [1, 3, 5, 9, -1])
def test_truncate_gradient(steps):
    x, w, h0 = T.vector("x"), T.scalar("w"), T.scalar("h0")
    h, _ = scan(lambda x, h: T.tanh(w * h + x), x, h0, truncate_gradient=steps)
    xs, wv, start = RNG.standard_normal(5), np.array(0.7), np.array(0.3)
    got = function([x, w, h0], grad(h[-1], [x, w, h0]))(xs, wv, start)
    states = [0.3]
    for v in xs:
        states.append(np.tanh(0.7 * states[-1] + v))
    back, dx, dw = 1.0, np.zeros(5), 0.0
    for t in reversed(range(5)):
        if steps != -1 and t < 5 - steps:
            back = 0.0
            break
        pre = back * (1 - states[t + 1] ** 2)
        dx[t], dw, back = pre, dw + pre * states[t], 0.7 * pre
    np.testing.assert_allclose(got[0], dx, rtol=1e-12)
    np.testing.assert_allclose(got[1], dw, rtol=1e-12)
    np.testing.assert_allclose(got[2], back, rtol=1e-12)


def test_go_backwards():
    x, w = T.matrix("x"), T.matrix("w")
    h, _ = scan(lambda x, h: T.tanh(T.dot(h, w) + x), x, T.zeros_like(x[0]), go_backwards=True)
    xs, ws = RNG.standard_normal((4, 3)), RNG.standard_normal((3, 3))
    want, state = [], np.zeros(3)
    for row in xs[::-1]:
        state = np.tanh(state @ ws + row)
        want.append(state)
    np.testing.assert_allclose(function([x, w], h)(xs, ws), want, rtol=1e-12)
    check((h ** 2).sum() + h[1].sum(), [x, w], [xs, ws])


def test_taps_of_sequences_and_outputs():
    x, init, w = T.vector("x"), T.vector("init"), T.scalar("w")

    def step(before, now, after, old, older):
        return before * now - after + w * T.tanh(old) - 0.3 * older

    h, _ = scan(step, dict(input=x, taps=[-1, 0, 1]), dict(initial=init, taps=[-1, -2]))
    xs, start = RNG.standard_normal(7), RNG.standard_normal(2)
    rows = list(start)
    for t in range(1, 6):
        rows.append(xs[t - 1] * xs[t] - xs[t + 1] + 0.6 * np.tanh(rows[-1]) - 0.3 * rows[-2])
    got = function([x, init, w], h)(xs, start, 0.6)
    np.testing.assert_allclose(got, rows[2:], rtol=1e-12)
    check((h ** 2).sum(), [x, init, w], [xs, start, np.array(0.6)])


def test_non_sequences_closures_and_intermediates():
    x, a, b = T.vector("x"), T.scalar("a"), T.scalar("b")
    k = shared(0.4, "k")
    doubled = 2 * b
    h, _ = scan(lambda x, h, a: T.sin(a * h + doubled * x) + k, x, T.as_tensor_variable(
        np.float64(0.1)), non_sequences=a)
    cost = (h ** 3).sum() + b
    check(cost, [x, a, b], [RNG.standard_normal(4), np.array(0.5), np.array(-0.2)], [x, a, b, k])


@pytest.mark.parametrize("constant", [True, False])
def test_number_of_steps(constant):
    x, n = T.vector("x"), T.iscalar("n")
    h, _ = scan(lambda h, x: T.tanh(1.5 * h) + x, None, x, non_sequences=x,
                n_steps=3 if constant else n)
    cost = (h ** 2).sum()
    f = function([x, n], [h, grad(cost, x)], on_unused_input="ignore")
    xs = RNG.standard_normal(2)
    hs, g = f(xs, 3)
    want = [np.tanh(1.5 * xs) + xs]
    for _ in range(2):
        want.append(np.tanh(1.5 * want[-1]) + xs)
    np.testing.assert_allclose(hs, want, rtol=1e-12)
    given = x if constant else None
    if given is not None:
        check(cost, [x], [xs])
    else:
        slope = []
        for k in range(2):
            d = np.eye(2)[k] * 1e-6
            slope.append(((f(xs + d, 3)[0] ** 2).sum() - (f(xs - d, 3)[0] ** 2).sum()) / 2e-6)
        np.testing.assert_allclose(g, slope, rtol=1e-6)


def nested():
    x, w = T.matrix("x"), T.matrix("w")

    def outer(row, h):
        def inner(element, c, h):
            return T.tanh(c * element + T.dot(h, w))

        cs, _ = scan(inner, row, T.zeros_like(h), non_sequences=h)
        return cs[-1] + 0.5 * cs.sum(axis=0) + T.sin(h)

    hs, _ = scan(outer, x, T.ones_like(w[0]))
    return [x, w], hs


@pytest.mark.parametrize("backend", ["loops", "llvm"])
def test_nested_scan(backend):
    inputs, hs = nested()
    arrays = [RNG.standard_normal((3, 4)), RNG.standard_normal((2, 2))]
    state, want = np.ones(2), []
    for row in arrays[0]:
        cs = [np.zeros(2)]
        for element in row:
            cs.append(np.tanh(cs[-1] * element + state @ arrays[1]))
        state = cs[-1] + 0.5 * sum(cs[1:]) + np.sin(state)
        want.append(state)
    with config.change(backend=backend):
        np.testing.assert_allclose(function(inputs, hs)(*arrays), want, rtol=1e-12)
        check((hs ** 2).sum(), inputs, arrays)


def test_nested_scan_of_stacked_rows():
    x = T.tensor3("x")

    def outer(plane, h):
        rows, _ = scan(lambda row, c: T.tanh(row + 0.5 * c), plane, h)
        return rows[-1], rows

    (h, rows), _ = scan(outer, x, [T.zeros_like(x[0, 0]), None])
    check((rows ** 2).sum() + h[-1].sum(), [x], [RNG.standard_normal((3, 4, 2))])


def test_several_outputs_with_none():
    x, h0 = T.vector("x"), T.scalar("h0")

    def step(x, h):
        new = T.tanh(h + x)
        return [new * x, new, T.exp(-new)]

    (a, b, c), _ = scan(step, x, [None, h0, None])
    cost = (a * b).sum() + (c ** 2).sum() + b[-1]
    check(cost, [x, h0], [RNG.standard_normal(4), np.array(0.2)])
    # Only what does not reach the carry.
    check(c[1:].sum(), [x, h0], [RNG.standard_normal(4), np.array(0.2)])


def test_scan_over_a_scan():
    x, w = T.vector("x"), T.scalar("w")
    h, _ = scan(lambda x, h: T.tanh(w * h + x), x, w)
    g, _ = scan(lambda h, c: h * c + w, h[::-1], w)
    check((g ** 2).sum() + h[0], [x, w], [RNG.standard_normal(5), np.array(0.5)])


def test_the_gradient_of_a_sequence_covers_what_was_not_read():
    x, y = T.vector("x"), T.vector("y")
    out, _ = scan(lambda x, y: x * y, [x, y])
    arrays = [RNG.standard_normal(5), RNG.standard_normal(3)]
    dx, dy = check(out.sum(), [x, y], arrays)
    np.testing.assert_allclose(dx, [*arrays[1], 0, 0])
    np.testing.assert_allclose(dy, arrays[0][:3])


def test_mask_with_reused_states_and_integer_sequences():
    x, ids = T.matrix("x"), T.ivector("ids")
    table = shared(RNG.standard_normal((4, 3)), "table")
    h, _ = scan(lambda row, k, h: T.switch(T.gt(k, 0), T.tanh(row + table[k] * h), h), [x, ids],
                T.zeros_like(x[0]))
    arrays = [RNG.standard_normal((5, 3)), np.array([1, 0, 3, 3, 2], "int32")]
    f = function([x, ids], [h, *grad((h ** 2).sum(), [x, table])])
    oracle = function([x, ids], [h, *grad((h ** 2).sum(), [x, table])], backend="numpy")
    models.assert_close(f(*arrays), oracle(*arrays))
    d, step = RNG.standard_normal((4, 3)), 1e-6
    base, costs = table.get_value(), []
    for sign in (1, -1):
        table.set_value(base + sign * step * d)
        costs.append(float((f(*arrays)[0] ** 2).sum()))
    table.set_value(base)
    np.testing.assert_allclose((f(*arrays)[2] * d).sum(), (costs[0] - costs[1]) / (2 * step),
                               rtol=1e-6)


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_updates_of_a_shared_variable_inside(backend):
    count, x = shared(np.float64(1), "count"), T.vector("x")

    def step(x, h):
        return h + x * count, {count: count + 2}

    h, updates = scan(step, x, T.zeros((), dtype="float64") + x[0] * 0)
    assert list(updates) == [count]
    f = function([x], [h, grad(h[-1], x)], updates=updates, backend=backend)
    hs, g = f(np.ones(3))
    np.testing.assert_array_equal(hs, [1, 4, 9])
    np.testing.assert_array_equal(g, [1, 3, 5])
    assert count.get_value() == 7
    f(np.ones(2))
    assert count.get_value() == 11
