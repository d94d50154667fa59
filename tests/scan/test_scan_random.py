"""Random draws in the step of a scan, and other state that a step advances by itself."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad, scan, shared
from tinygraph.tensor.shared_randomstreams import RandomStreams

BACKENDS = ("numpy", "loops", "llvm")


@pytest.fixture(autouse=True)
def no_cache():
    with tinygraph.config.change(cache="off"):
        yield


def draws(variable, count):
    f = function([], variable)
    return [f() for _ in range(count)]



@pytest.mark.parametrize("backend", BACKENDS)
def test_every_step_draws_anew_and_the_state_advances_by_all(backend):
    want = draws(RandomStreams(1).uniform((3,)), 12)
    for passed in (True, False):
        s = RandomStreams(1)
        (u, v), updates = scan(lambda z, s=s: [s.uniform((3,)), z + 1], n_steps=4,
                               outputs_info=[None, T.constant(0.0)])
        assert list(updates) == s.states and len(updates) == 1
        f = function([], [u, v], updates=updates if passed else None, backend=backend)
        np.testing.assert_array_equal(f()[0], want[:4])
        np.testing.assert_array_equal(f()[0], want[4:8])
        assert s.states[0].get_value()[1] == 8


def test_a_draw_made_outside_is_the_same_in_all_steps():
    s = RandomStreams(1)
    mask = s.binomial((3,), dtype="float32")
    x = T.fmatrix("x")
    h, updates = scan(lambda row: row * mask + s.uniform((3,)) * 0, x)
    assert list(updates) == [s.states[1]]
    f = function([x], [h, mask])
    got, m = f(np.ones((5, 3), "f"))
    np.testing.assert_array_equal(got, np.broadcast_to(m, (5, 3)))
    assert [state.get_value()[1] for state in s.states] == [1, 5]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nested_scans_thread_the_state_through_both(backend):
    s = RandomStreams(2)

    def outer(c):
        inner, _ = scan(lambda: s.uniform((2,)), n_steps=3)
        return c + 1, inner

    (_, values), _ = scan(outer, n_steps=2, outputs_info=[T.constant(0), None])
    f = function([], values, backend=backend)
    want = np.reshape(draws(RandomStreams(2).uniform((2,)), 12), (4, 3, 2))
    np.testing.assert_array_equal(f(), want[:2])
    np.testing.assert_array_equal(f(), want[2:])


def dropout_network(streams, x, h0, w):
    def step(row, h):
        new = T.tanh(T.dot(h, w) + row)
        return new * streams.binomial(new.shape, p=0.8, dtype="float64")

    h, _ = scan(step, x, h0)
    return (h ** 2).sum()


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_through_dropout_in_a_loop(backend):
    x, h0, w = T.dtensor3("x"), T.dmatrix("h0"), T.dmatrix("w")
    cost = dropout_network(RandomStreams(3), x, h0, w)
    f = function([x, h0, w], [cost, *grad(cost, [x, h0, w])], no_default_updates=True,
                 backend=backend)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in ((5, 4, 3), (4, 3), (3, 3))]
    _, *slopes = f(*arrays)
    for k, slope in enumerate(slopes):
        direction = rng.standard_normal(arrays[k].shape)
        ends = []
        for sign in (1, -1):
            moved = list(arrays)
            moved[k] = arrays[k] + sign * 1e-6 * direction
            ends.append(f(*moved)[0])
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, (slope * direction).sum(),
                                   rtol=1e-6)


def test_training_with_dropout_in_a_loop_is_the_same_on_all_back_ends():
    results = []
    for backend in BACKENDS:
        x, h0 = T.dtensor3("x"), T.dmatrix("h0")
        w = shared(np.eye(3) * 0.5, "w")
        cost = dropout_network(RandomStreams(3), x, h0, w)
        f = function([x, h0], cost, updates=[(w, w - 0.1 * grad(cost, w))], backend=backend)
        rng = np.random.default_rng(0)
        arrays = rng.standard_normal((5, 4, 3)), rng.standard_normal((4, 3))
        results.append([f(*arrays) for _ in range(3)] + [w.get_value()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10)


def test_default_updates_of_other_shared_variables_are_threaded():
    w = shared(np.float64(0), "w")
    w.default_update = w + 1
    rows, updates = scan(lambda: T.exp(w * 1), n_steps=3)
    assert list(updates) == [w]
    np.testing.assert_allclose(function([], rows, updates=updates)(), np.exp([0, 1, 2]))
    assert w.get_value() == 3
    outside, x = w * 10, T.dvector("x")
    rows, none = scan(lambda row: row + outside, x)
    assert not none
    np.testing.assert_array_equal(function([x], rows)([1, 2]), [31, 32])
    w.set_value(3)
    explicit, updates = scan(lambda: ([w * 1], {w: w + 5}), n_steps=2)
    function([], explicit, updates=updates)()
    assert w.get_value() == 13


def test_the_rows_of_a_jacobian_advance_nothing():
    w = shared(np.array([1.0, 2.0, 3.0]), "w")
    w.default_update = w + 1
    f = function([], tinygraph.jacobian(w ** 3, w))
    np.testing.assert_array_equal(f(), np.diag([3, 12, 27]))
    np.testing.assert_array_equal(w.get_value(), [2, 3, 4])


def test_a_draw_in_a_loop_that_ends_by_itself():
    s = RandomStreams(12)
    want = np.array(draws(RandomStreams(12).uniform(()), 50))
    u, _ = scan(lambda: (lambda v: (v, tinygraph.scan_module.until(v > 0.9)))(s.uniform(())),
                n_steps=50)
    steps = int(np.argmax(want > 0.9)) + 1
    f = function([], u)
    np.testing.assert_array_equal(f(), want[:steps])
    assert s.states[0].get_value()[1] == steps
