"""stable: every form against higher precision, where the one people write fails."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph.dims import dim
from tinygraph.dtypes import float32, float64, int64
from tinygraph.gradient import grad
from tinygraph.graph import Graph, Type, apply
from tinygraph.interpret import evaluate
from tinygraph.ops.arithmetic import Arithmetic, broadcast_to, elementwise, reduce_
from tinygraph.ops.index import Take
from tinygraph.ops.views import reshape
from tinygraph.passes.canonical import canonical
from tinygraph.passes.fold import fold
from tinygraph.passes.stable import RULES, stable
from tinygraph.rewrite.check import check_graph
from tinygraph.scan_module.groups import Groups
from tinygraph.scan_module.op import Scan

POINTS = np.array([-800, -200, -90, -40, -3, -1e-9, 0, 1e-9, 0.5, 20, 90, 200, 800])


def sp(x):
    return elementwise("softplus", x)


def e(name):
    return lambda x: elementwise(name, x)


def high(f):
    """f in extended precision, as float64."""
    def run(x):
        with np.errstate(all="ignore"):
            return np.asarray(f(np.asarray(x, np.longdouble)), np.float64)
    return run


def sigmoid(x):
    return np.where(x > 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (
        1 + np.exp(-np.abs(x))))


def softplus(x):
    return np.logaddexp(np.longdouble(0), x)


CASES = {
    "1/(1+exp(-x))": (lambda x: 1 / (1 + (-x).exp()), e("sigmoid"), sigmoid),
    "1/(exp(-x)+1)": (lambda x: 1 / ((-x).exp() + 1), e("sigmoid"), sigmoid),
    "1/(1+exp(x))": (lambda x: 1 / (1 + x.exp()), lambda x: (-x).sigmoid(),
                     lambda x: sigmoid(-x)),
    "exp(x)/(1+exp(x))": (lambda x: x.exp() / (1 + x.exp()), e("sigmoid"), sigmoid),
    "x/(1+exp(-x))": (lambda x: x / (1 + (-x).exp()), lambda x: x * x.sigmoid(),
                      lambda x: x * sigmoid(x)),
    "log(sigmoid(x))": (lambda x: x.sigmoid().log(), lambda x: -sp(-x), lambda x: -softplus(-x)),
    "log of a written sigmoid": (lambda x: (1 / (1 + (-x).exp())).log(), lambda x: -sp(-x),
                                 lambda x: -softplus(-x)),
    "log(1-sigmoid(x))": (lambda x: (1 - x.sigmoid()).log(), lambda x: -sp(x),
                          lambda x: -softplus(x)),
    "log1p(-sigmoid(x))": (lambda x: elementwise("log1p", -x.sigmoid()), lambda x: -sp(x),
                           lambda x: -softplus(x)),
    "log(1+exp(x))": (lambda x: (1 + x.exp()).log(), sp, softplus),
    "log1p(exp(x))": (lambda x: elementwise("log1p", x.exp()), sp, softplus),
    "log(exp(x))": (lambda x: x.exp().log(), lambda x: x, lambda x: x),
    "exp(x)-1": (lambda x: x.exp() - 1, e("expm1"), np.expm1),
    "1-exp(x)": (lambda x: 1 - x.exp(), lambda x: -elementwise("expm1", x),
                 lambda x: -np.expm1(x)),
    "sigmoid(x)*exp(-x)": (lambda x: x.sigmoid() * (-x).exp(), lambda x: (-x).sigmoid(),
                           lambda x: sigmoid(-x)),
    "1-sigmoid stays": (lambda x: 1 - x.sigmoid(), lambda x: 1 - x.sigmoid(), None),
}


@pytest.mark.parametrize("name", CASES)
def test_form(bench, name):
    before, after, exact = CASES[name]
    x = bench.input("x", len(POINTS))
    graph = stable(canonical(bench.graph(before(x)), bench.context), bench.context)
    check_graph(graph)
    bench.same(graph, after(x))
    if exact is not None:
        with np.errstate(all="ignore"):
            (out,) = evaluate(graph.outputs, {x: POINTS})
        np.testing.assert_allclose(out, high(exact)(POINTS), rtol=1e-14)


@pytest.mark.parametrize("sign", [1, -1])
def test_log_of_one_plus_a_small_number(bench, sign):
    x = bench.input("x", 4, positive=True)
    bench.arrays[x] = np.array([1e-300, 1e-17, 1e-9, 0.25])
    value = (1 + x if sign > 0 else 1 - x).log()
    graph = bench.run(stable, value, rtol=1e-6)
    (out,) = bench.values(graph.outputs)
    np.testing.assert_allclose(out, high(lambda v: np.log1p(sign * v))(bench.arrays[x]),
                               rtol=1e-15)


def softmax(x):
    spread = broadcast_to(reduce_("sum", x.exp(), (1,)), x.type.dims, (0,))
    return x.exp() / spread


def shifted_softmax(x):
    top = broadcast_to(reduce_("max", x, (1,)), x.type.dims, (0,))
    return softmax(x - top)


ROWS = np.array([[0.0, 1000, -1000], [-2000, -2001, -1990], [1, 2, 3]])


def log_softmax_of(x):
    x = x.astype(np.longdouble)
    x = x - x.max(1, keepdims=True)
    return (x - np.log(np.exp(x).sum(1, keepdims=True))).astype(np.float64)


@pytest.mark.parametrize("form", [softmax, shifted_softmax])
def test_log_of_softmax(bench, form):
    x = bench.input("x", 3, 3)
    bench.arrays[x] = ROWS
    graph = stable(canonical(bench.graph(form(x).log(), form(x)), bench.context), bench.context)
    check_graph(graph)
    log, plain = bench.values(graph.outputs)
    np.testing.assert_allclose(log, log_softmax_of(ROWS), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(plain, np.exp(log_softmax_of(ROWS)), rtol=1e-12)


def test_log_of_a_chosen_probability(bench):
    x = bench.input("x", 3, 3)
    bench.arrays[x] = ROWS
    index = bench.input("index", 3, dtype=int64)
    bench.arrays[index] = np.array([2, 3, 8])
    chosen = apply(Take(0), reshape(shifted_softmax(x), (9,)), index)[0]
    graph = stable(bench.graph(chosen.log()), bench.context)
    check_graph(graph)
    (out,) = bench.values(graph.outputs)
    np.testing.assert_allclose(out, log_softmax_of(ROWS).ravel()[[2, 3, 8]], rtol=1e-14)


def test_log_sum_exp(bench):
    x = bench.input("x", 4, 2)
    bench.arrays[x] = np.array([[1000.0, 999], [-np.inf, -np.inf], [np.inf, 0], [0, 0]])
    graph = stable(bench.graph(reduce_("sum", x.exp(), (1,)).log()), bench.context)
    check_graph(graph)
    with np.errstate(all="ignore"):
        (out,) = bench.values(graph.outputs)
    np.testing.assert_allclose(out, [1000 + np.log1p(np.exp(-1)), -np.inf, np.inf, np.log(2)])


def test_gradient_of_the_log_of_a_sigmoid(bench):
    x = bench.input("x", 3, dtype=float32)
    bench.arrays[x] = np.array([-120, 0, 120], np.float32)
    cost = reduce_("sum", x.sigmoid().log() + (1 - x.sigmoid()).log(), (0,))
    graph = bench.graph(grad(cost, x))
    for one in (canonical, fold, stable, canonical):
        graph = one(graph, bench.context)
        check_graph(graph)
    with np.errstate(all="ignore"):
        (out,) = bench.values(graph.outputs)
    np.testing.assert_allclose(out, [1, 0, -1])


def test_gradient_of_a_written_sigmoid(bench):
    x = bench.input("x", 3)
    bench.arrays[x] = np.array([-800.0, 0, 800])
    graph = bench.graph(grad(reduce_("sum", 1 / (1 + (-x).exp()), (0,)), x))
    for one in (canonical, fold, stable, canonical):
        graph = one(graph, bench.context)
        check_graph(graph)
    with np.errstate(all="ignore"):
        (out,) = bench.values(graph.outputs)
    np.testing.assert_allclose(out, [0, 0.25, 0])


def test_inside_a_scan(bench):
    xs, h0 = bench.input("xs", 4, 3), bench.input("h0", 3)
    x, h = (Arithmetic(Type(float64, (dim(3),))) for _ in range(2))
    new = 1 / (1 + (-(h + x)).exp())
    op = Scan(Graph((x, h), (new, (1 + h.exp()).log())), Groups(1, 1, 0, 1), dim(4))
    graph = bench.run([canonical, stable], *apply(op, xs, h0))
    (body,) = bench.bodies(graph)
    p, q = body.inputs
    assert body.outputs == tuple(bench.context.intern((q + p).sigmoid(), sp(q)))


def test_every_rule_is_documented():
    assert all("-->" in r.doc for r in RULES)


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
@pytest.mark.parametrize("rows", ["all", "last"])
def test_a_probability_that_a_step_computes_and_a_logarithm_outside(name, rows):
    """As the textbook writes it: no nan where the probability is 0 or 1 to the last bit."""
    with tinygraph.config.change(floatX="float32", cache="off"):
        weights = tinygraph.shared(np.array([[30.0, -30.0]], "float32"))
        x, t = T.matrix("x"), T.matrix("t")

        def step(x_t, h):
            h = T.tanh(x_t + h)
            scores = T.dot(h, weights)
            return h, T.nnet.sigmoid(scores) if name == "sigmoid" else T.nnet.softmax(scores)[0]

        (_, p), _ = tinygraph.scan(step, x, [T.zeros((1,)), None])
        p, wanted = (p, t) if rows == "all" else (p[-1], t[-1])
        cost = -(wanted * T.log(p)).sum()
        if name == "sigmoid":
            cost = cost - ((1 - wanted) * T.log(1 - p)).sum()
        f = tinygraph.function([x, t], [cost, tinygraph.grad(cost, weights)])
        for target in ([1, 0], [0, 1]):
            inputs = np.full((3, 1), 3, "float32"), np.array([target] * 3, "float32")
            value, gradient = f(*inputs)
            wrong = target == [0, 1]  # then every step costs 30 h twice, or 60 h
            count = 3 if rows == "all" else 1
            np.testing.assert_allclose(value, 60 * count * wrong, atol=0.5)
            if rows == "all":  # of one row alone the value is right, the gradient not yet
                np.testing.assert_allclose(gradient, [[count * wrong, -count * wrong]], atol=0.02)
