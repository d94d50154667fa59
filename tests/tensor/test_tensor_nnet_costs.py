"""Costs of class indices, softmax in two levels, batch normalization: every back end against
NumPy, gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from tensor_checks import check, matches, value

import tinygraph.tensor as T

N = T.nnet


def test_more_nonlinearities(rng):
    x = rng.normal(size=(3, 4))
    normal = special.ndtr(x)
    matches(lambda x: [N.swish(x), N.swish(x, 2.0), N.gelu(x), N.softmax_graph(x),
                       N.log_softmax(x), N.relu(x + 5, x), N.elu(x, 0.3)],
            [x * special.expit(x), x * special.expit(2 * x), x * normal, special.softmax(x, 1),
             special.log_softmax(x, 1), x + 5, np.where(x > 0, x, 0.3 * np.expm1(x))], x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_costs_of_classes(dtype, rng):
    x, b = rng.normal(size=(5, 3)).astype(dtype), rng.normal(size=3).astype(dtype)
    classes = rng.integers(0, 3, 5)
    rows = np.arange(5)
    logs, probabilities = special.log_softmax(x, 1), special.softmax(x, 1)
    check(lambda x: N.softmax_crossentropy(x, classes), -logs[rows, classes], x)
    for k, want in enumerate((-logs[rows, classes], probabilities)):
        check(lambda x, k=k: N.crossentropy_softmax_1hot(x, classes)[k], want, x)
    logs, probabilities = special.log_softmax(x + b, 1), special.softmax(x + b, 1)
    matches(lambda x, b: N.crossentropy_softmax_1hot_with_bias(x, b, classes),
            [-logs[rows, classes], probabilities], x, b)
    matches(lambda x, b: [*N.crossentropy_softmax_argmax_1hot_with_bias(x, b, classes),
                          N.softmax_with_bias(x, b)],
            [-logs[rows, classes], probabilities, probabilities.argmax(1), probabilities], x, b)


def test_costs_of_distributions(rng):
    x, t = rng.normal(size=(5, 3)), special.softmax(rng.normal(size=(5, 3)), 1)
    matches(N.softmax_crossentropy, -(t * special.log_softmax(x, 1)).sum(1), x, t)
    p, classes = special.softmax(x, 1), rng.integers(0, 3, 5)
    matches(lambda p: N.crossentropy_categorical_1hot(p, classes),
            -np.log(p[np.arange(5), classes]), p)
    with pytest.raises(TypeError, match="an integer per row"):
        N.softmax_crossentropy(T.matrix(), T.vector())


def test_most_probable_classes(rng):
    x, classes = rng.normal(size=(5, 3)), rng.integers(0, 3, 5)
    p = special.softmax(x, 1)
    matches(lambda x: N.crossentropy_softmax_max_and_argmax_1hot(x, classes),
            [-np.log(p[np.arange(5), classes]), p, p.max(1), p.argmax(1)], x)


def test_confusion_matrix():
    actual, guess = np.array([1, 1, 7, 2, 7, 7]), np.array([1, 2, 7, 2, 2, 9])
    counts = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]])
    matches(N.confusion_matrix, [counts, np.array([1, 2, 7, 9])], actual, guess)
    with pytest.raises(ValueError, match="takes two vectors"):
        N.confusion_matrix(T.imatrix(), T.ivector())


def test_prepended_columns(rng):
    x = rng.normal(size=(3, 2))
    matches(lambda x: [N.prepend_1_to_each_row(x), N.prepend_0_to_each_row(x)],
            [np.c_[np.ones(3), x], np.c_[np.zeros(3), x]], x)


def test_cost_of_a_sure_answer_is_finite():
    x = np.array([[1000.0, 0, 0]])
    check(lambda x: N.softmax_crossentropy(x, np.array([1])), np.array([1000.0]), x)
    check(lambda x: N.softmax_crossentropy(x, np.array([0])), np.array([0.0]), x)


def test_softmax_in_two_levels(rng):
    features, classes, inside, batch, outputs = 3, 2, 3, 4, 5
    x = rng.normal(size=(batch, features))
    weights = [rng.normal(size=s) for s in ((features, classes), (classes,),
                                            (classes, features, inside), (classes, inside))]
    w1, b1, w2, b2 = weights
    groups = special.softmax(x @ w1 + b1, 1)
    places = special.softmax(np.einsum("bf,cfk->bck", x, w2) + b2, 2)
    joint = (groups[:, :, None] * places).reshape(batch, -1)[:, :outputs]

    def build(x, *weights):
        return N.h_softmax(x, x.shape[0], outputs, classes, inside, *weights)

    matches(build, joint, x, *weights)
    target = rng.integers(0, outputs, batch)
    matches(lambda x, *weights: N.h_softmax(x, batch, outputs, classes, inside, *weights,
                                            target=target),
            joint[np.arange(batch), target], x, *weights)


# --- batch normalization ----------------------------------------------------------------------

AXES = {"per-activation": (0,), "spatial": (0, 2), (0, 1): (0, 1)}


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("short", [False, True])
def test_batch_normalization(axes, short, rng):
    x, over = rng.normal(size=(4, 3, 2)), AXES[axes]
    wide = tuple(1 if k in over else n for k, n in enumerate(x.shape))
    form = tuple(n for k, n in enumerate(x.shape) if k not in over) if short else wide
    gamma, beta, old_mean = (rng.normal(size=form) for _ in range(3))
    old_var = rng.uniform(0.5, 1, form)
    mean, var = x.mean(over, keepdims=True), x.var(over, keepdims=True)
    scale = 1 / np.sqrt(var + 1e-4)
    n = x.size // mean.size
    out = (x - mean) * scale * gamma.reshape(wide) + beta.reshape(wide)
    after = [0.9 * old_mean + 0.1 * mean.reshape(form),
             0.9 * old_var + 0.1 * (var * n / (n - 1)).reshape(form)]
    matches(lambda x, g, b, m, v: N.bn.batch_normalization_train(
        x, g, b, axes, running_mean=m, running_var=v),
        [out, mean.reshape(form), scale.reshape(form), *after], x, gamma, beta, old_mean, old_var,
        rtol=1e-9)
    tested = (x - old_mean.reshape(wide)) / np.sqrt(old_var.reshape(wide) + 1e-4)
    tested = tested * gamma.reshape(wide) + beta.reshape(wide)
    matches(lambda *xs: N.bn.batch_normalization_test(*xs, axes=axes), tested, x, gamma, beta,
            old_mean, old_var, rtol=1e-9)


def test_plain_batch_normalization(rng):
    x, g, b, m, s = (rng.uniform(1, 2, size) for size in ((4, 3), 3, 3, 3, 3))
    matches(N.batch_normalization, (x - m) * g / s + b, x, g, b, m, s)


def test_batch_normalization_refuses(rng):
    x, v = T.matrix("x"), T.tensor3("v")
    with pytest.raises(ValueError, match="v .* must have as many axes as x"):
        N.bn.batch_normalization_test(x, v, v, v, v)
    with pytest.raises(ValueError, match="axes is 'all'"):
        N.bn.batch_normalization_train(x, v, v, "all")
    with pytest.raises(ValueError, match="give both"):
        N.bn.batch_normalization_train(x, x[0], x[0], running_mean=x[0])
    with pytest.raises(ValueError, match="size 1"):
        value(lambda x: N.bn.batch_normalization_test(x, x, x, x, x), rng.normal(size=(2, 3)))
