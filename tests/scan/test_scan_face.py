"""``scan`` as users call it: order of arguments, taps, results, updates, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function, grad, scan, shared
from tinygraph.errors import MissingInputError
from tinygraph.scan_module.face import OrderedUpdates


@pytest.fixture(autouse=True, params=["numpy", "loops"])
def backend(request):
    with config.change(floatX="float64", backend=request.param):
        yield request.param


X = np.arange(1.0, 7.0)


# --- arguments and results


def test_order_of_arguments():
    x, y, init, k = T.vector("x"), T.vector("y"), T.vector("init"), T.scalar("k")
    seen = []

    def step(*args):
        seen.extend(a.ndim for a in args)
        x1, x0, y0, h2, h1, k = args
        return x1 * 1e5 + x0 * 1e4 + y0 * 1e3 + h2 * 1e2 + h1 * 10 + k

    h, _ = scan(step, [dict(input=x, taps=[1, 0]), y], dict(initial=init, taps=[-2, -1]), k)
    got = function([x, y, init, k], h)([1, 2, 3], [5, 6], [7, 8], 9)
    assert seen == [0] * 6
    assert got[0] == 2e5 + 1e4 + 5e3 + 7e2 + 8e1 + 9
    assert got[1] == 3e5 + 2e4 + 6e3 + 8e2 + got[0] * 10 + 9


def test_parameters_take_the_names_of_the_step():
    x = T.vector("x")
    names = []

    def step(element, total):
        names.extend([element.name, total.name])
        return total + element

    scan(step, x, x[0])
    assert names == ["element", "total"]


def test_one_output_is_a_variable_several_a_list():
    x = T.vector("x")
    one, updates = scan(lambda a: a * 2, x)
    assert not isinstance(one, list) and isinstance(updates, OrderedUpdates) and not updates
    assert not isinstance(scan(lambda a: [a * 2], x)[0], list)
    listed, _ = scan(lambda a: a * 2, x, return_list=True)
    assert isinstance(listed, list) and len(listed) == 1
    several, _ = scan(lambda a: (a, a * 2), x)
    assert isinstance(several, list) and len(several) == 2
    a, b = function([x], several)(X)
    np.testing.assert_array_equal(b, 2 * X)


def test_one_step_keeps_the_time_axis():
    x = T.matrix("x")
    h, _ = scan(lambda h: h * 2, None, x, n_steps=1)
    assert h.ndim == 3 and h.broadcastable[1:] == (False, False)
    assert function([x], h)(np.ones((2, 3))).shape == (1, 2, 3)


@pytest.mark.parametrize(("taps", "steps"), [
    ([-1, 0, 1], 4), ([0], 6), ([-2], 4), ([2], 4), (1, 5), ([0, 3], 3)])
def test_taps_of_a_sequence(taps, steps):
    x = T.vector("x")
    out, _ = scan(lambda *a: T.stack(list(a)), dict(input=x, taps=taps))
    got = function([x], out)(X)
    taps = [taps] if isinstance(taps, int) else taps
    first = -min(0, *taps)
    want = [[X[first + t + tap] for tap in taps] for t in range(steps)]
    np.testing.assert_array_equal(got, want)


def test_sequences_of_mixed_taps_start_together():
    x, y = T.vector("x"), T.vector("y")
    out, _ = scan(lambda a, b: a * 10 + b, [dict(input=x, taps=[1]), y])
    np.testing.assert_array_equal(function([x, y], out)([1, 2, 3], [4, 5, 6]), [24, 35])


def test_the_shortest_sequence_decides():
    x, y = T.vector("x"), T.vector("y")
    out, _ = scan(lambda a, b: a + b, [x, y])
    f = function([x, y], out)
    assert f(X, X[:2]).shape == (2,) and f(X[:1], X).shape == (1,) and f(X[:0], X).shape == (0,)


def test_fewer_steps_than_rows_and_more():
    x, n = T.vector("x"), T.iscalar("n")
    out, _ = scan(lambda a: a * 2, x, n_steps=n)
    f = function([x, n], out)
    np.testing.assert_array_equal(f(X, 2), [2, 4])
    with pytest.raises(ValueError, match=r"n_steps is 7, but sequence x .* 6 rows"):
        f(X, 7)
    out, _ = scan(lambda a: a * 2, x, n_steps=3, go_backwards=True)
    np.testing.assert_array_equal(function([x], out)(X), [12, 10, 8])


def test_output_taps():
    init = T.vector("init")
    h, _ = scan(lambda old: old + 1, None, dict(initial=init, taps=[-3]), n_steps=5)
    np.testing.assert_array_equal(function([init], h)([10, 20, 30]), [11, 21, 31, 12, 22])
    fib, _ = scan(lambda a, b: a + b, None, dict(initial=init, taps=[-2, -1]), n_steps=5)
    np.testing.assert_array_equal(function([init], fib)([1, 1]), [2, 3, 5, 8, 13])
    # More rows than taps: the first ones are used.
    np.testing.assert_array_equal(function([init], fib)([1, 1, 50]), [2, 3, 5, 8, 13])


def test_outputs_without_recurrence():
    x = T.vector("x")
    (a, b), _ = scan(lambda x, h: (x * 2, h + x), x, [None, T.constant(0.0, dtype="float64")])
    got = function([x], [a, b])(X)
    np.testing.assert_array_equal(got[0], 2 * X)
    np.testing.assert_array_equal(got[1], np.cumsum(X))


def test_numpy_sequences_and_none():
    out, _ = scan(lambda a, k: a * k, X, non_sequences=[3.0])
    np.testing.assert_array_equal(function([], out)(), 3 * X)
    out, _ = scan(lambda: T.constant(1.0), [], n_steps=3)
    np.testing.assert_array_equal(function([], out)(), [1, 1, 1])


def test_no_outputs_give_none_and_updates():
    k = shared(np.int64(0), "k")
    out, updates = scan(lambda: {k: k + 3}, n_steps=4)
    assert out is None and list(updates) == [k]
    function([], updates=updates)()
    assert k.get_value() == 12


@pytest.mark.parametrize("pack", [lambda o, u: (o, u), lambda o, u: (o, list(u.items()))])
def test_updates_are_threaded_from_step_to_step(pack):
    k, x = shared(np.float64(1), "k"), T.vector("x")
    out, updates = scan(lambda a: pack(a * k, {k: k * 2}), x)
    f = function([x], out, updates=updates)
    np.testing.assert_array_equal(f([1, 1, 1]), [1, 2, 4])
    assert k.get_value() == 8
    # Who does not pass them on leaves the variable as it is.
    function([x], out)([1, 1])
    assert k.get_value() == 8


def test_the_initial_state_is_not_in_the_stack():
    x, h0 = T.vector("x"), T.scalar("h0")
    h, _ = scan(lambda a, h: h + a, x, h0)
    np.testing.assert_array_equal(function([x, h0], h)([1, 2], 10), [11, 13])


def test_zero_steps():
    x, h0 = T.matrix("x"), T.vector("h0")
    h, _ = scan(lambda a, h: T.tanh(h + a), x, h0)
    f = function([x, h0], [h, h.sum(), *grad(h.sum(), [x, h0])])
    empty, total, dx, dh0 = f(np.zeros((0, 3)), np.ones(3))
    assert empty.shape == (0, 3) and total == 0 and dx.shape == (0, 3)
    np.testing.assert_array_equal(dh0, 0)


def test_closures_find_shared_outer_and_outer_results():
    x, y, w = T.vector("x"), T.scalar("y"), shared(2.0, "w")
    outer = T.exp(y)
    h, _ = scan(lambda a: a * w + outer + y, x)
    f = function([x, y], [h, *grad(h.sum(), [x, y, w])])
    got, dx, dy, dw = f([1.0, 2.0], 0.0)
    np.testing.assert_array_equal(got, [3, 5])
    assert dy == 4 and dw == 3 and np.all(dx == 2)


# --- what is refused


def test_what_is_refused():
    x, i = T.vector("x"), T.ivector("i")
    zero = T.constant(0.0, dtype="float64")
    for error, text, call in (
            (ValueError, "neither sequences nor n_steps", lambda: scan(lambda: zero)),
            (ValueError, "2 outputs, but outputs_info has 1",
             lambda: scan(lambda a, h: (a, h), x, [zero])),
            (ValueError, "1 outputs, but outputs_info has 2",
             lambda: scan(lambda a, h, g: a + h + g, x, [zero, zero])),
            (ValueError, r"taps \[1\].*must be negative",
             lambda: scan(lambda a, h: h, x, dict(initial=zero, taps=[1]))),
            (ValueError, "leading axis of 2",
             lambda: scan(lambda a, h: h, x, dict(initial=zero, taps=[-2]))),
            (ValueError, "not a variable", lambda: scan(lambda a: np.ones(2), x)),
            (ValueError, "in this order", lambda: scan(lambda a: ({}, {zero: zero}), x)),
            (TypeError, "no axis to walk", lambda: scan(lambda a: a, zero)),
            (TypeError, "integer", lambda: scan(lambda: zero, n_steps=2.5)),
            (TypeError, "integer", lambda: scan(lambda: zero, n_steps=T.scalar("n"))),
            (ValueError, "int32 scalar.*float64 scalar.*astype",
             lambda: scan(lambda a, h: h + a, x, i[0]))):
        with pytest.raises(error, match=text):
            call()


def test_a_state_that_changes_its_shape():
    x, h0 = T.matrix("x"), T.vector("h0")
    h, _ = scan(lambda a, h: T.concatenate([h, a])[1:], x, h0)
    f = function([x, h0], h)
    assert f(np.zeros((2, 1)), np.zeros(4)).shape == (2, 4)
    with pytest.raises(ValueError, match="h0"):
        f(np.zeros((2, 3)), np.zeros(4))


def test_a_state_with_a_size_of_one_that_grows():
    x = T.matrix("x")
    with pytest.raises(ValueError, match="axis 0"):
        function([x], scan(lambda a, h: h + a, x.dimshuffle("x", 0, 1), T.zeros((1, 3)))[0])(
            np.ones((2, 3)))


def test_strict():
    x, w, y = T.vector("x"), shared(2.0, "w"), T.scalar("y")
    with pytest.raises(MissingInputError, match=r"w \(float64 scalar.*list it there"):
        scan(lambda a: a * w, x, strict=True)
    with pytest.raises(MissingInputError, match=r"y \(float64 scalar"):
        scan(lambda a: a * y, x, strict=True)
    twice = y * 2
    out, _ = scan(lambda a, *_: a * twice + w, x, non_sequences=[w, twice], strict=True)
    np.testing.assert_array_equal(function([x, y], out)([1, 2], 3), [8, 14])


def test_a_size_in_the_step_that_is_an_argument():
    x, k = T.tensor3("x"), T.iscalar("k")
    hs, _ = scan(lambda row, h: h + row[:, k:].sum(axis=1, keepdims=True), x, T.zeros((3, 1)))
    f = function([x, k], hs[-1])
    for first in (1, -1, 4):
        np.testing.assert_array_equal(f(np.ones((2, 3, 4)), first),
                                      np.full((3, 1), 2.0 * len(range(4)[first:])))
