"""Identities with a gradient of their own, gradients of parts of a graph, and expressions as one
line."""

from __future__ import annotations

import numpy as np
import pytest
from tensor_checks import check, matches

import tinygraph
import tinygraph.tensor as T
from tinygraph import gradient
from tinygraph.errors import NotDifferentiableError
from tinygraph.printing import pp
from tinygraph.tensor.shared_randomstreams import RandomStreams


def test_scaled_gradient(rng):
    x = rng.normal(size=4)
    matches(lambda x: [gradient.grad_scale(x, -2) * 1, T.grad((gradient.grad_scale(x, -2) ** 2
                                                              ).sum(), x)],
            [x, -4 * x], x, smooth=False)


def test_scaled_gradient_in_a_loop(rng):
    x = rng.normal(size=3)

    def cost(x, factor):
        steps, _ = tinygraph.scan(lambda r, h: gradient.grad_scale(h, factor) + r,
                                  sequences=x, outputs_info=T.zeros((), x.dtype))
        return steps[-1]

    check(lambda x: T.grad(cost(x, 0.5), x), np.array([0.25, 0.5, 1]), x)


def test_undefined_gradient():
    x = T.dvector("x")
    y = gradient.undefined_grad(x)
    check(gradient.undefined_grad, np.ones(2), np.ones(2))
    with pytest.raises(NotDifferentiableError, match="undefined_grad of x"):
        T.grad(y.sum(), x)


def test_gradient_of_a_part(rng):
    """Two layers, differentiated one after the other, give what one sweep gives."""
    x, w1, w2 = T.dmatrix("x"), T.dmatrix("w1"), T.dmatrix("w2")
    hidden = T.tanh(T.dot(x, w1))
    out = T.dot(hidden, w2)
    cost, extra = (out ** 2).sum(), (w1 ** 2).sum()
    (upper,), (at_hidden,) = gradient.subgraph_grad([w2], [hidden], cost=cost)
    (lower,), (at_x,) = gradient.subgraph_grad([w1], [x], start={hidden: at_hidden}, cost=extra)
    whole = T.grad(cost + extra, [w2, w1, x])
    arrays = [rng.normal(size=s) for s in ((4, 3), (3, 2), (2, 5))]
    f = tinygraph.function([x, w1, w2], [upper, lower, at_x, *whole])
    got = f(*arrays)
    for a, b in zip(got[:3], got[3:], strict=True):
        np.testing.assert_allclose(a, b)


def test_gradient_of_a_part_in_detail(rng):
    x, y = T.dvector("x"), T.dvector("y")
    z = x * y
    (g,), ends, by_start, by_cost = gradient.subgraph_grad(
        [x], [y], start={z: T.constant(np.ones(2))}, cost=(3 * x).sum(), details=True)
    f = tinygraph.function([x, y], [g, ends[0], by_start[0], by_cost[0]])
    got = f([1, 2], [3, 4])
    for a, want in zip(got, ([6, 7], [1, 2], [3, 4], [3, 3]), strict=True):
        np.testing.assert_array_equal(a, want)
    _, _, none, some = gradient.subgraph_grad([x], [y], cost=z.sum(), details=True)
    assert none is None and len(some) == 1
    with pytest.raises(ValueError, match="needs a start, or a cost"):
        gradient.subgraph_grad([x], [y])


@pytest.mark.parametrize("build, text", [
    (lambda a, b, v: a + b * 2, "(a + (b * 2.0))"),
    (lambda a, b, v: T.exp(-v) / v, "(exp(-v) / v)"),
    (lambda a, b, v: v.sum(), "sum{0}(v)"),
    (lambda a, b, v: abs(a ** b) // 3, "(|(a ** b)| // 3.0)"),
    (lambda a, b, v: T.switch(a > b, a, b), "switch((a > b), a, b)"),
    (lambda a, b, v: ~T.eq(v, a), "~(v == a)"),
    (lambda a, b, v: v, "v"),
    (lambda a, b, v: T.dot(v, v), "dot{a,a->}(v, v)"),
])
def test_one_line(build, text):
    assert pp(build(T.dscalar("a"), T.dscalar("b"), T.dvector("v"))) == text


def test_one_line_names_what_has_no_name():
    assert pp(T.dvector()) == "<float64[dvector_0]>"
    assert pp(T.dvector() + 1) == "(<float64[dvector_0]> + 1.0)"


def test_numeric_gradient(rng):
    x, y = rng.normal(size=(2, 3)), rng.normal(size=3)
    found = gradient.numeric_grad(lambda x, y: (x @ y ** 2).sum(), [x, y])
    exact = [np.tile(y ** 2, (2, 1)), 2 * y * x.sum(0)]
    assert found.max_err(exact) < 1e-7
    assert gradient.numeric_grad(np.sum, x).max_err(np.zeros((2, 3))) == pytest.approx(1)
    with pytest.raises(TypeError, match="numeric_grad of int64"):
        gradient.numeric_grad(np.sum, np.arange(3))


def test_differences_of_what_reads_shared_variables():
    """Weights and the states of draws keep their values from one evaluation to the next."""
    weights = tinygraph.shared(np.array([2.0, -1.0, 0.5]), name="weights")
    draws = RandomStreams(3)
    point = [np.ones(3)]
    gradient.verify_grad(
        lambda x: (x * weights) ** 2 * draws.binomial(x.shape, dtype="float64"), point)
    with pytest.raises(gradient.GradientError):
        gradient.verify_grad(lambda x: gradient.grad_scale(x * weights, 2), point)


def test_all_names_of_the_module():
    assert all(callable(getattr(gradient, name)) for name in gradient.__all__)
    gradient.verify_grad(lambda x: x ** 2, [np.ones(2)], 1, np.random.default_rng(0))
    x = T.dvector("x")
    f = tinygraph.function([x], [gradient.jacobian(x ** 2, x), gradient.hessian((x ** 3).sum(), x)])
    for got, want in zip(f([1, 2]), ([2, 4], [6, 12]), strict=True):
        np.testing.assert_allclose(got, np.diag(want))
