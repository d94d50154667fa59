"""Update rules against their formulas in NumPy, over several steps."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function, grad, shared
from tinygraph_rnn import updates

START = np.array([[0.5, -1.0], [2.0, 0.25]])
TARGET = np.array([[1.0, 1.0], [-1.0, 0.0]])


def gradient(p):
    return 2 * (p - TARGET) * (1 + p ** 2) + 2 * (p - TARGET) ** 2 * p


def sgd(p, g, s, t):
    return p - 0.02 * g


def momentum(p, g, s, t):
    s["v"] = 0.8 * s.get("v", 0) - 0.02 * g
    return p + s["v"]


def nesterov(p, g, s, t):
    s["v"] = 0.8 * s.get("v", 0) - 0.02 * g
    return p + 0.8 * s["v"] - 0.02 * g


def adagrad(p, g, s, t):
    s["a"] = s.get("a", 0) + g ** 2
    return p - 0.1 * g / np.sqrt(s["a"] + 1e-6)


def rmsprop(p, g, s, t):
    s["a"] = 0.9 * s.get("a", 0) + 0.1 * g ** 2
    return p - 0.1 * g / np.sqrt(s["a"] + 1e-6)


def adadelta(p, g, s, t):
    s["a"] = 0.95 * s.get("a", 0) + 0.05 * g ** 2
    u = g * np.sqrt(s.get("d", 0) + 1e-6) / np.sqrt(s["a"] + 1e-6)
    s["d"] = 0.95 * s.get("d", 0) + 0.05 * u ** 2
    return p - u


def adam(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g ** 2
    rate = 0.001 * np.sqrt(1 - 0.999 ** t) / (1 - 0.9 ** t)
    return p - rate * s["m"] / (np.sqrt(s["v"]) + 1e-8)


def adamax(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["u"] = np.maximum(0.999 * s.get("u", 0), abs(g))
    return p - 0.002 / (1 - 0.9 ** t) * s["m"] / (s["u"] + 1e-8)


def amsgrad(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g ** 2
    s["w"] = np.maximum(s.get("w", 0), s["v"])
    rate = 0.001 * np.sqrt(1 - 0.999 ** t) / (1 - 0.9 ** t)
    return p - rate * s["m"] / (np.sqrt(s["w"]) + 1e-8)


# Rule, arguments behind (cost, params), what NumPy says, and the state it keeps per parameter.
RULES = [
    (updates.sgd, (0.02,), sgd, []),
    (updates.momentum, (0.02, 0.8), momentum, ["velocity"]),
    (updates.nesterov_momentum, (0.02, 0.8), nesterov, ["velocity"]),
    (updates.adagrad, (0.1,), adagrad, ["adagrad_s"]),
    (updates.rmsprop, (0.1,), rmsprop, ["rmsprop_s"]),
    (updates.adadelta, (), adadelta, ["adadelta_s", "adadelta_d"]),
    (updates.adam, (), adam, ["adam_m", "adam_v"]),
    (updates.adamax, (), adamax, ["adamax_m", "adamax_u"]),
    (updates.amsgrad, (), amsgrad, ["amsgrad_m", "amsgrad_v", "amsgrad_v_hat"])]
each_rule = pytest.mark.parametrize(
    ("rule", "args", "reference", "state"), RULES, ids=[r[0].__name__ for r in RULES])


def cost_of(p):
    return T.sum((p - TARGET) ** 2 * (1 + p ** 2))


@each_rule
@pytest.mark.parametrize("backend", ["llvm", "numpy"])
def test_rule(rule, args, reference, state, backend):
    p = shared(START)
    with config.change(backend=backend):
        step = function([], cost_of(p), updates=rule(cost_of(p), [p], *args))
        expected, seen = START, {}
        for t in range(1, 6):
            step()
            expected = reference(expected, gradient(expected), seen, t)
            np.testing.assert_allclose(p.get_value(), expected, rtol=1e-9)


@each_rule
@pytest.mark.parametrize(("floatX", "dtype"), [
    ("float32", "float32"), ("float32", "float64"), ("float64", "float32")])
def test_dtypes_stay(rule, args, reference, state, floatX, dtype):
    """Whatever floatX is, and of whatever dtype the learning rate."""
    with config.change(floatX=floatX):
        p = shared(START.astype(dtype), "p")
        target = TARGET.astype(dtype)
        cost = T.sum((p - target) ** 2 * (1 + p ** 2))
        rate = shared(np.array(args[0] if args else 0.001))  # float64
        found = rule(cost, [p], rate, *args[1:])
        for variable, new in found.items():
            assert new.dtype == variable.dtype
            assert variable.dtype == (floatX if variable.name.endswith("_t") else dtype)
        step, expected, seen = function([], [], updates=found), START.astype(dtype), {}
        default = {"adadelta": 1.0, "adamax": 0.002}.get(rule.__name__)
        if default:
            rate.set_value(np.array(default))
        for t in range(1, 6):
            step()
            expected = reference(expected, gradient(expected), seen, t)
        np.testing.assert_allclose(p.get_value(), expected,
                                   rtol=1e-5, atol=1e-6 if dtype == "float32" else 0)


@each_rule
def test_order_and_names(rule, args, reference, state):
    """What a checkpoint finds its values by."""
    W, b = shared(START, "W"), shared(START[0], "b")
    args = args or (0.1,)
    found = list(rule(T.sum((W * b) ** 2), [W, b], *args))
    counter = ["adam_t", "adamax_t", "amsgrad_t"]
    names = [f"{p}.{s}" for p in "Wb" for s in state]
    names += [n for n in counter if n == f"{rule.__name__}_t"]
    assert sorted(v.name for v in found) == sorted(["W", "b", *names])
    assert [v.name for v in found if v not in (W, b)] == names
    assert [v for v in found if v in (W, b)] == [W, b]
    for v in found[:-1]:
        if v not in (W, b):
            assert np.all(v.get_value() == 0)
            assert v.get_value().shape == (W if v.name.startswith("W") else b).get_value().shape
    again = rule(T.sum((W * b) ** 2), [W, b], *args)
    assert [v.name for v in again] == [v.name for v in found]


@each_rule
def test_broadcasting_parameters_of_one_row(rule, args, reference, state):
    p = shared(START[:1], broadcastable=(True, False))
    step = function([], [], updates=rule(T.sum(p ** 2), [p], *args))
    step()
    np.testing.assert_allclose(p.get_value(), reference(START[:1], 2 * START[:1], {}, 1))


@each_rule
def test_learning_rates(rule, args, reference, state):
    """A number, an array, a shared variable that changes, an input, an expression of it."""
    rest, values, x = args[1:], [], T.scalar("x")
    rates = [0.25, np.float32(0.25), np.array(0.25), shared(0.25), x, x ** 2 + 0.1875,
             shared(np.float32(0.25))]
    for rate in rates:
        p = shared(START)
        step = function([x], [], updates=rule(cost_of(p), [p], rate, *rest),
                        on_unused_input="ignore")
        step(0.25)
        step(0.25)
        values.append(p.get_value())
    for one in values[1:]:
        np.testing.assert_allclose(one, values[0], rtol=1e-12)
    rate = shared(0.25, "rate")
    p = shared(START)
    step = function([], [], updates=rule(cost_of(p), [p], rate, *rest))
    step()
    after = p.get_value()
    assert np.all(after != START)
    if "momentum" not in rule.__name__:
        rate.set_value(0.0)
        step()
        np.testing.assert_array_equal(p.get_value(), after)


@each_rule
def test_no_gradient_no_nan(rule, args, reference, state):
    p = shared(np.zeros((2, 2), "float32"))
    step = function([], [], updates=rule(T.sum(p ** 2), [p], *args))
    step()
    np.testing.assert_array_equal(p.get_value(), 0)


@pytest.mark.parametrize("rule", [updates.adam, updates.adamax, updates.amsgrad])
def test_decays_may_be_symbolic_or_zero(rule):
    p, q, beta1, beta2 = shared(START), shared(START), T.scalar("b1"), T.scalar("b2")
    step = function([beta1, beta2], [], updates={
        **rule(cost_of(p), [p], 0.1, beta1=beta1, beta2=beta2),
        **rule(cost_of(q), [q], 0.1, beta1=0, beta2=0.5)})
    for _ in range(3):
        step(0.0, 0.5)
    np.testing.assert_allclose(p.get_value(), q.get_value())
    assert np.all(np.isfinite(p.get_value())) and np.all(p.get_value() != START)


def test_published_first_steps():
    """The first step of Adam and Adamax is the learning rate against the sign of the gradient,
    as their bias corrections promise; that of amsgrad is Adam's."""
    for rule in (updates.adam, updates.adamax, updates.amsgrad):
        p = shared(START.astype("float32"))
        function([], [], updates=rule(T.sum(3 * p ** 2), [p], 0.25))()
        np.testing.assert_allclose(p.get_value(), START - 0.25 * np.sign(START), atol=1e-6)


def test_amsgrad_keeps_the_largest_second_moment():
    p, g = shared(np.zeros(1)), T.vector("g")
    by_rule = {}
    for rule in (updates.adam, updates.amsgrad):
        p.set_value(np.zeros(1))
        step = function([g], [], updates=rule([g], [p], 0.1, beta1=0.0, beta2=0.5))
        step([10.0])
        first = p.get_value()
        for _ in range(40):
            step([1e-3])
        by_rule[rule.__name__] = abs(p.get_value() - first)[0]
    # Adam forgets the large gradient, and steps by the learning rate in the end.
    assert by_rule["amsgrad"] < 1e-3 and by_rule["adam"] > 0.5


# --- momentum on other rules ---------------------------------------------------------------------


@pytest.mark.parametrize("apply", [updates.apply_momentum, updates.apply_nesterov_momentum])
def test_momentum_of_other_updates(apply):
    p, q = shared(START, "p"), shared(START, "q")
    before = updates.sgd(cost_of(p) + cost_of(q), [p, q], 0.02)
    found = apply(before, [p], momentum=0.8)
    assert [v.name for v in found] == ["p", "q", "p.velocity"] and list(before) == [p, q]
    step = function([], [], updates=found)
    reference = momentum if apply is updates.apply_momentum else nesterov
    expected, plain, seen = START, START, {}
    for t in range(1, 4):
        step()
        expected = reference(expected, gradient(expected), seen, t)
        plain = plain - 0.02 * gradient(plain)
        np.testing.assert_allclose(p.get_value(), expected, rtol=1e-9)
        np.testing.assert_allclose(q.get_value(), plain, rtol=1e-9)
    assert len(apply(before)) == 4
    with pytest.raises(ValueError, match="momentum is asked for r .*no update"):
        apply(before, [shared(START, "r")])


def test_momentum_is_0_9_by_default():
    for rule in (updates.momentum, updates.nesterov_momentum):
        by_default, given = shared(START), shared(START)
        step = function([], [], updates={**rule(cost_of(by_default), [by_default], 0.01),
                                         **rule(cost_of(given), [given], 0.01, 0.9)})
        for _ in range(3):
            step()
        np.testing.assert_array_equal(by_default.get_value(), given.get_value())


# --- what is given -------------------------------------------------------------------------------


def test_gradients_may_be_given():
    p = shared(START, "p")
    by_cost, by_grad = (
        function([], list(updates.sgd(x, [p], 0.1).values()))
        for x in (cost_of(p), [grad(cost_of(p), p)]))
    np.testing.assert_allclose(by_cost()[0], by_grad()[0])
    clipped = updates.total_norm_constraint(updates.get_or_compute_grads(cost_of(p), [p]), 1.0)
    change = function([], updates.sgd(clipped, [p], 1.0)[p] - p)()
    np.testing.assert_allclose(np.sqrt((change ** 2).sum()), 1, rtol=1e-6)
    narrow = shared(START.astype("float32"))
    assert updates.sgd([grad(cost_of(p), p)], [narrow], 0.1)[narrow].dtype == "float32"


def test_what_is_refused():
    p, k = shared(START, "p"), shared(np.arange(3), "k")
    with pytest.raises(ValueError, match="2 gradients are given for 1"):
        updates.sgd([p, p], [p], 0.1)
    with pytest.raises(ValueError, match="only shared variables can be updated.*unwrap_shared"):
        updates.sgd(cost_of(p), [p * 2], 0.1)
    with pytest.raises(ValueError, match="only shared variables can be updated.*array"):
        updates.sgd(cost_of(p), [START], 0.1)
    with pytest.raises(ValueError, match="params holds p .*twice"):
        updates.adam(cost_of(p), [p, p])
    with pytest.raises(TypeError, match="params holds k .*make it of floats"):
        updates.adam(T.sum(k * 1.5), [k])
    with pytest.raises(TypeError, match="the cost must be a scalar"):
        updates.adam(p ** 2, [p])
    with pytest.raises(ValueError, match="does not depend on q"):
        updates.adam(cost_of(p), [p, shared(START, "q")])


def test_updates_go_together_with_others():
    p, n = shared(START), shared(0, "n")
    found = updates.adam(cost_of(p), [p])
    found.update({n: n + 1})
    step = function([], [], updates=found)
    step()
    step()
    assert n.get_value() == 2 and list(found)[-1] is n


# --- norms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axes"), [
    ((4, 3), (0,)), ((4, 3, 2), (1, 2)), ((4, 3, 2, 2), (1, 2, 3)),
    ((3, 3, 2, 2, 2), (1, 2, 3, 4))])
def test_norms_of_units(shape, axes):
    x = np.random.default_rng(0).standard_normal(shape) * 2
    norms = np.sqrt((x ** 2).sum(axes, keepdims=True))
    middle = float(np.median(norms)) + 1e-3
    v, bound = T.TensorType("float64", (False,) * len(shape))("v"), T.scalar("bound")
    given = 0 if axes == (0,) else axes
    out = function([v, bound], [
        updates.norm_constraint(v, middle), updates.norm_constraint(v, bound, norm_axes=given),
        updates.norm_constraint(v, middle, epsilon=0)])(x, middle)
    expected = np.where(norms > middle, x * middle / norms, x)
    np.testing.assert_allclose(out[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(out[1], out[0])
    np.testing.assert_allclose(out[2], expected, rtol=1e-12)


def test_norm_of_a_vector_needs_axes():
    v = T.vector("v")
    with pytest.raises(ValueError, match="v .*has 1 axes: pass norm_axes"):
        updates.norm_constraint(v, 1.0)
    out = function([v], updates.norm_constraint(v, 1.0, norm_axes=(0,)))([3.0, 4.0])
    np.testing.assert_allclose(out, [0.6, 0.8], rtol=1e-6)


def test_norm_of_zeros_is_no_nan():
    v = T.matrix("v")
    out = function([v], [updates.norm_constraint(v, 1.0),
                         updates.total_norm_constraint([v], 1.0)[0]])(np.zeros((2, 2)))
    np.testing.assert_array_equal(out, np.zeros((2, 2, 2)))


def test_total_norm():
    w, u = T.matrix("w"), T.fvector("u")
    x, y = np.array([[3.0, 0.3], [4.0, 0.4]]), np.array([1.0, 2], "float32")
    norm = np.sqrt((x ** 2).sum() + 5)
    for bound, factor in ((1.0, 1 / norm), (100.0, 1.0), (shared(2.0), 2 / norm)):
        scaled, before = updates.total_norm_constraint([w, u], bound, return_norm=True)
        assert isinstance(scaled, list) and [v.dtype for v in scaled] == ["float64", "float32"]
        out = function([w, u], [*scaled, before])(x, y)
        for one, expected in zip(out, (x * factor, y * factor, norm), strict=True):
            np.testing.assert_allclose(one, expected, rtol=1e-6)
    assert isinstance(updates.total_norm_constraint([w], 1.0), list)
    with pytest.raises(ValueError, match="no variable"):
        updates.total_norm_constraint([], 1.0)


def test_a_constraint_in_updates():
    p = shared(START)
    found = updates.sgd(cost_of(p), [p], 0.1)
    found[p] = updates.norm_constraint(found[p], 0.5)
    function([], [], updates=found)()
    norms = np.sqrt((p.get_value() ** 2).sum(0))
    assert np.all(norms <= 0.5) and np.any(norms > 0.499)
