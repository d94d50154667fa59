"""What cells are trained with: masked losses and updates, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function, grad, shared
from tinygraph_rnn import updates
from tinygraph_rnn.cells import create_optimization_updates, masked_loss

RNG = np.random.default_rng(7)

# --- masked loss


def masked_arrays(batch=3, time=5, classes=4):
    e = np.exp(RNG.standard_normal((batch, time, classes)))
    p = e / e.sum(-1, keepdims=True)
    y = RNG.integers(0, classes, (batch, time)).astype("int32")
    lengths = np.array([2, 0, 5], "int32")[:batch]
    starts = np.array([1, 3, 0], "int32")[:batch]
    return p, y, lengths, starts


VARIABLES = T.dtensor3("p"), T.imatrix("y"), T.ivector("lengths"), T.ivector("starts")


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_masked_loss_and_its_gradient(backend):
    p, y, lengths, starts = masked_arrays()
    weights = np.array([2.0, 3.0, 5.0])  # theano_lstm is right only for ones
    loss = masked_loss(*VARIABLES)
    total = (loss * T.constant(weights)).sum()
    f = function(list(VARIABLES), [loss, grad(total, VARIABLES[0])], backend=backend)
    expected, slope = np.zeros(3), np.zeros_like(p)
    for i in range(3):
        for t in range(starts[i], starts[i] + lengths[i]):
            expected[i] -= np.log(p[i, t, y[i, t]])
            slope[i, t, y[i, t]] = -weights[i] / p[i, t, y[i, t]]
    found, gradient = f(p, y, lengths, starts)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, slope, rtol=1e-12)
    for bad in (0.0, np.nan):
        q = np.where((slope != 0).any(-1, keepdims=True), p, bad)
        again, gradient = f(q, y, lengths, starts)
        np.testing.assert_allclose(again, expected, rtol=1e-12)
        np.testing.assert_allclose(gradient, slope, rtol=1e-12)


def test_masked_loss_of_a_padded_batch_is_that_of_single_sequences():
    p, y, lengths, _ = masked_arrays()
    starts = np.zeros(3, "int32")
    f = function(list(VARIABLES), masked_loss(*VARIABLES), backend="llvm")
    whole = f(p, y, lengths, starts)
    for i in (0, 2):
        part = slice(i, i + 1), slice(0, lengths[i])
        np.testing.assert_allclose(
            f(p[part], y[part], lengths[i:i + 1], starts[:1]), whole[i:i + 1], rtol=1e-12)


def test_masked_loss_refuses():
    p, y, n, s = VARIABLES
    for arguments, text in (((y, y, n, s), "predictions must have 3 axes of floats"),
                            ((p, p, n, s), "labels must have 2 axes of integers"),
                            ((p, y, T.dvector(), s), "lengths must have 1 axes of integers"),
                            ((p, y, n, y), "starts must have 1 axes of integers")):
        with pytest.raises(TypeError, match=text):
            masked_loss(*arguments)


# --- updates


def descend(method, steps=5, scale=1.0, **options):
    """Values of two parameters after steps of descent on a quadratic."""
    p, q = shared(np.array([1.0, -2.0]), "p"), shared(np.array([[3.0]]), "q")
    cost = scale * ((p ** 2).sum() + 2 * (q ** 2).sum() + p[0] * q[0, 0])
    new, *rest = create_optimization_updates(cost, [p, q], method=method, **options)
    f = function([], cost, updates=new)
    for _ in range(steps):
        f()
    return p.get_value(), q.get_value(), rest


def reference(method, steps=5, scale=1.0, max_norm=5.0, lr=0.01, eps=1e-6, rho=0.95):
    params = [np.array([1.0, -2.0]), np.array([[3.0]])]
    s, d = [np.zeros_like(x) for x in params], [np.zeros_like(x) for x in params]
    for _ in range(steps):
        (p, q), grads = params, []
        grads.append(scale * (2 * p + np.array([q[0, 0], 0])))
        grads.append(scale * (4 * q + p[0]))
        for k, g in enumerate(grads):
            norm = np.sqrt((g ** 2).sum())
            if max_norm and norm > max_norm:
                g = g * max_norm / norm
            if method == "sgd":
                params[k] = params[k] - lr * g
            elif method == "adagrad":
                s[k] = s[k] + g ** 2
                params[k] = params[k] - lr * g / np.sqrt(s[k] + eps)
            else:
                s[k] = rho * s[k] + (1 - rho) * g ** 2
                u = g * np.sqrt((d[k] + eps) / (s[k] + eps))
                d[k] = rho * d[k] + (1 - rho) * u ** 2
                params[k] = params[k] - u
    return params


@pytest.mark.parametrize("method", ["sgd", "adagrad", "adadelta"])
@pytest.mark.parametrize("options", [{}, {"max_norm": None}, {"max_norm": False},
                                     {"max_norm": 0.5, "lr": 0.1, "eps": 1e-3, "rho": 0.8}])
def test_updates_compute_their_formulas(method, options):
    p, q, _ = descend(method, **options)
    expected = reference(method, **options)
    np.testing.assert_allclose(p, expected[0], rtol=1e-12)
    np.testing.assert_allclose(q, expected[1], rtol=1e-12)


def test_gradients_may_be_given():
    p = shared(np.array([1.0, 2.0]))
    new, *_ = create_optimization_updates(None, [p], method="sgd", lr=1.0, gradients=[-p])
    function([], updates=new)()
    np.testing.assert_array_equal(p.get_value(), [2.0, 4.0])


def test_adadelta_is_the_one_of_updates():
    p, q, _ = descend("adadelta", max_norm=None, steps=1)
    same = shared(np.array([1.0, -2.0]), "p")
    function([], updates=updates.adadelta((same ** 2).sum() + 3 * same[0], [same]))()
    np.testing.assert_allclose(p, same.get_value(), rtol=1e-9)


def test_what_the_updates_return():
    _, _, (gsums, xsums, lr, max_norm) = descend("adadelta")
    assert len(gsums) == len(xsums) == 2 and float(lr.get_value()) == 0.95
    assert float(max_norm.get_value()) == 5 and (gsums[0].get_value() > 0).all()
    _, _, (gsums, xsums, lr, max_norm) = descend("adagrad", max_norm=None)
    assert xsums == [None, None] and float(lr.get_value()) == 0.01 and max_norm is None
    _, _, (gsums, xsums, _, _) = descend("sgd")
    assert gsums == xsums == [None, None]
    given = {shared(0.0): T.constant(1.0)}
    p = shared(1.0)
    assert create_optimization_updates(p ** 2, [p], given, method="sgd")[0] is given
    assert len(given) == 2
    with pytest.raises(ValueError, match="method is 'adam'"):
        create_optimization_updates(p ** 2, [p], method="adam")


@pytest.mark.parametrize("method", ["sgd", "adagrad", "adadelta"])
def test_a_gradient_of_nothing_changes_nothing(method):
    p, q, _ = descend(method, scale=0.0)
    np.testing.assert_array_equal(p, [1.0, -2.0])
    np.testing.assert_array_equal(q, [[3.0]])


def test_the_learning_rate_may_be_changed():
    p = shared(1.0)
    new, _, _, lr, _ = create_optimization_updates(p ** 2, [p], method="sgd", lr=0.25)
    f = function([], updates=new)
    f()
    assert p.get_value() == 0.5
    lr.set_value(0.0)
    f()
    assert p.get_value() == 0.5


def test_updates_keep_the_type_of_a_parameter():
    with config.change(floatX="float32"):
        p = shared(np.ones(3, "float32"))
        for method in ("sgd", "adagrad", "adadelta"):
            cost = (p * T.constant(np.ones(3))).sum()  # float64
            new, *_ = create_optimization_updates(cost, [p], method=method)
            function([], updates=new)()
            assert p.get_value().dtype == np.float32
