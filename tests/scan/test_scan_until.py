"""A scan that ends when a condition holds: lengths, values, gradients, on every back end."""

import itertools

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph.scan_module import until

BACKENDS = ("numpy", "loops", "llvm")


def on_all(inputs, outputs, *calls, **options):
    """The results of the interpreter for every call, after comparing the other back ends."""
    functions = [tinygraph.function(inputs, outputs, backend=b, **options) for b in BACKENDS]
    functions.append(tinygraph.function(inputs, outputs, passes="none", **options))
    found = []
    for args in calls:
        first, *others = [f(*args) for f in functions]
        for other in others:
            for a, b in zip(first, other, strict=True):
                assert a.shape == b.shape
                np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
        found.append(first)
    return found


@pytest.mark.parametrize("limit", [-1.0, 2.5, 9.0, 1000.0])
def test_the_step_that_ends_the_loop_is_included(limit):
    x, bound = T.vector("x"), T.scalar("bound")
    sums, _ = tinygraph.scan(lambda a, s: (s + a, until(s + a > bound)), sequences=x,
                             outputs_info=T.constant(np.float32(0)))
    values = np.arange(8, dtype="float32")
    ((found, count, total),) = on_all([x, bound], [sums, sums.shape[0], sums.sum()],
                                      (values, limit))
    running = np.cumsum(values)
    ended = int(np.argmax(running > limit)) + 1 if (running > limit).any() else 8
    np.testing.assert_array_equal(found, running[:ended])
    assert count == ended and total == running[:ended].sum()


def test_no_sequence_rows_no_steps():
    x = T.vector("x")
    out, _ = tinygraph.scan(lambda a: (a, until(a > 0)), sequences=x)
    ((found, count),) = on_all([x], [out, out.shape[0]], (np.zeros(0, "float32"),))
    assert found.shape == (0,) and count == 0


def test_n_steps_is_an_upper_bound_and_may_be_symbolic():
    n, start = T.iscalar("n"), T.scalar("start")
    out, _ = tinygraph.scan(lambda v: (v * 2, until(v * 2 > 50)), outputs_info=start, n_steps=n)
    found = on_all([start, n], [out, out[-1]], (1.0, 3), (1.0, 100), (60.0, 5))
    assert [f[0].tolist() for f in found] == [[2, 4, 8], [2, 4, 8, 16, 32, 64], [120]]


def test_gradients_run_over_the_steps_taken():
    y, bound = T.scalar("y"), T.scalar("bound")
    powers, _ = tinygraph.scan(lambda v: (v * y, until(v * y > bound)), n_steps=1000,
                               outputs_info=T.constant(np.float32(1)))
    last, total = tinygraph.grad(powers[-1], y), tinygraph.grad(powers.sum(), y)
    again = tinygraph.grad(total, y)
    ((_, k, a, b, c),) = on_all([y, bound], [powers, powers.shape[0], last, total, again],
                                (2.0, 50.0))
    assert k == 6 and a == 6 * 2**5
    assert b == sum(j * 2 ** (j - 1) for j in range(1, 7))
    assert c == sum(j * (j - 1) * 2 ** (j - 2) for j in range(2, 7))


def layer(x, weights, inputs, start, bound, **options):
    def step(row, h):
        h = T.tanh(T.dot(row, inputs) + T.dot(h, weights))
        return h, until((h * h).sum() > bound)

    return tinygraph.scan(step, sequences=x, outputs_info=start, **options)[0]


@pytest.mark.parametrize("truncate", [-1, 2])
def test_a_recurrent_layer_with_a_condition(truncate):
    rng = np.random.default_rng(3)
    x, weights, inputs, start = T.tensor3("x"), T.matrix("W"), T.matrix("U"), T.matrix("h")
    bound = T.scalar("bound")
    states = layer(x, weights, inputs, start, bound, truncate_gradient=truncate)
    cost = (states[-1] ** 2).sum() + states.mean()
    gradients = tinygraph.grad(cost, [weights, inputs, start, x])
    args = [rng.standard_normal(s).astype("float32") for s in ((7, 4, 2), (3, 3), (2, 3), (4, 3))]
    calls = [(*args, limit) for limit in (0.01, 7.0, 9.0, 100.0)]
    found = on_all([x, weights, inputs, start, bound], [states, cost, *gradients], *calls)
    lengths = [len(f[0]) for f in found]
    assert lengths[0] == 1 and lengths[-1] == 7 and lengths == sorted(lengths)
    for f, steps in zip(found, lengths, strict=True):
        assert not f[5][steps:].any()  # rows never read have no gradient
        if truncate == 2 and steps > 2:
            assert not f[5][:steps - 2].any() and not f[4].any()


def test_the_input_product_is_still_computed_before_the_loop():
    x, weights, inputs, start = T.tensor3("x"), T.matrix("W"), T.matrix("U"), T.matrix("h")
    states = layer(x, weights, inputs, start, T.constant(np.float32(4)))
    f = tinygraph.function([x, weights, inputs, start], states)
    (loop,) = f.report().loops
    assert loop.step.products == 1


def test_taps_several_outputs_and_updates():
    shared = tinygraph.shared(np.float32(0), "s")
    x, init = T.vector("x"), T.vector("init")

    def step(a, older, old):
        new = old + older + a
        return [new, new * 2], {shared: shared + 1}, until(new > 20)

    (fib, twice), updates = tinygraph.scan(
        step, sequences=x, outputs_info=[{"initial": init, "taps": [-2, -1]}, None])
    for backend in BACKENDS:
        shared.set_value(np.float32(0))
        f = tinygraph.function([x, init], [fib, twice], updates=updates, backend=backend)
        for calls in (1, 2):
            a, b = f(np.zeros(20, "float32"), np.array([1, 1], "float32"))
            assert a.tolist() == [2, 3, 5, 8, 13, 21] and b.tolist() == (2 * a).tolist()
            assert shared.get_value() == 6 * calls


def test_a_loop_with_a_condition_inside_a_loop():
    x, w, bound = T.matrix("x"), T.scalar("w"), T.scalar("bound")

    def outer(row):
        states, _ = tinygraph.scan(lambda a, h: (h * w + a, until(h * w + a > bound)),
                                   sequences=row, outputs_info=T.constant(np.float32(0)))
        return states[-1], states.sum(), states.shape[0]

    (last, total, count), _ = tinygraph.scan(outer, sequences=x)
    gradients = tinygraph.grad((last**2).sum() + total.sum(), [w, x])
    values = np.abs(np.random.default_rng(1).standard_normal((5, 4))).astype("float32")
    ((found, sums, counts, *_),) = on_all([x, w, bound], [last, total, count, *gradients],
                                          (values, 0.5, 1.0))
    for row, a, b, n in zip(values, found, sums, counts, strict=True):
        states = list(itertools.accumulate(row, lambda h, v: h * 0.5 + v, initial=0.0))[1:]
        ended = next((k for k, h in enumerate(states) if h > 1), 3) + 1
        assert n == ended
        np.testing.assert_allclose([a, b], [states[ended - 1], sum(states[:ended])], rtol=1e-5)


def test_sizes_that_must_agree_are_checked_when_they_are_known():
    x, y = T.vector("x"), T.vector("y")
    out, _ = tinygraph.scan(lambda a: (a, until(a > 2)), sequences=x)
    f = tinygraph.function([x, y], out + y)
    values = np.arange(6, dtype="float32")
    assert f(values, np.ones(4, "float32")).tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="axis 0.*is 4, but of y .* is 5"):
        f(values, np.ones(5, "float32"))


def test_one_function_serves_every_length():
    x = T.vector("x")
    out, _ = tinygraph.scan(lambda a: (a * 2, until(a < 0)), sequences=x)
    f = tinygraph.function([x], out)
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.standard_normal(rng.integers(1, 30)).astype("float32")
        ended = next((k for k, v in enumerate(values) if v < 0), len(values) - 1) + 1
        np.testing.assert_array_equal(f(values), 2 * values[:ended])
    assert f.compiles == 1


def test_clones_have_a_condition_of_their_own():
    x, y = T.vector("x"), T.vector("y")
    out, _ = tinygraph.scan(lambda a: (a, until(a > 2)), sequences=x)
    other = tinygraph.clone(out, {x: y})
    f = tinygraph.function([x, y], [out, other, out.shape[0] + other.shape[0]])
    a, b, n = f(np.arange(9, dtype="float32"), np.array([5, 6], "float32"))
    assert a.tolist() == [0, 1, 2, 3] and b.tolist() == [5] and n == 5


def test_updates_may_have_a_size_that_the_run_finds_out():
    x = T.vector("x")
    kept = tinygraph.shared(np.zeros(3, "float32"), "kept")
    out, _ = tinygraph.scan(lambda a: (a, until(a > 2)), sequences=x)
    f = tinygraph.function([x], [], updates={kept: out})
    for n in (2, 9, 4):
        f(np.arange(n, dtype="float32"))
        assert kept.get_value().tolist() == list(range(min(n, 4)))


def test_what_is_no_condition_is_refused():
    with pytest.raises(TypeError, match="until takes a variable"):
        until(True)
    with pytest.raises(TypeError, match=r"v .* has 1 axes; write until\(condition.any\(\)\)"):
        until(T.vector("v") > 1)


def test_a_late_size_in_the_cache(tmp_path):
    x = T.vector("x")

    def build():
        out, _ = tinygraph.scan(lambda a: (a, until(a > 2)), sequences=x)
        return tinygraph.function([x], [out, out.sum()])

    with tinygraph.config.change(cache="on", cache_dir=str(tmp_path)):
        for _ in range(2):
            a, total = build()(np.arange(9, dtype="float32"))
            assert a.tolist() == [0, 1, 2, 3] and total == 6


def test_results_of_known_size_come_through_the_native_entrance(tmp_path):
    """And what is kept on disk for them is not taken for the function that returns the count."""
    x = T.vector("x")
    with tinygraph.config.change(cache="on", cache_dir=str(tmp_path)):
        out, _ = tinygraph.scan(lambda a: (a, until(a > 2)), sequences=x)
        total = tinygraph.function([x], [out.sum()])
        both = tinygraph.function([x], [out.sum(), out.shape[0]])
        for n in (3, 9, 5, 9, 3, 9):
            values = np.arange(n, dtype="float32")
            expected = values[:4].sum()
            assert total(values) == [expected] and both(values) == [expected, min(n, 4)]
    assert total._entrance is not None and len(total._entrance._plans) == 3
