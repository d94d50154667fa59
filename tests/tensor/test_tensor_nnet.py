from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from tensor_checks import check, value

import tinygraph.tensor as T
from tinygraph.gradient_check import verify_grad

N = T.nnet
SMOOTH = {
    "sigmoid": (N.sigmoid, special.expit), "ultra_fast_sigmoid": (N.ultra_fast_sigmoid,
                                                                  special.expit),
    "softplus": (N.softplus, lambda x: np.logaddexp(0, x)),
    "softsign": (N.softsign, lambda x: x / (1 + np.abs(x))),
    "relu": (N.relu, lambda x: np.maximum(x, 0)),
    "leaky relu": (lambda x: N.relu(x, 0.1), lambda x: np.where(x > 0, x, 0.1 * x)),
    "elu": (N.elu, lambda x: np.where(x > 0, x, np.expm1(x))),
    "elu with alpha": (lambda x: N.elu(x, 0.5), lambda x: np.where(x > 0, x, 0.5 * np.expm1(x))),
    "selu": (N.selu, lambda x: 1.0507009873554805 * np.where(
        x > 0, x, 1.6732632423543772 * np.expm1(x))),
    "hard_sigmoid": (N.hard_sigmoid, lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    "softmax": (N.softmax, lambda x: special.softmax(x, 1)),
    "logsoftmax": (N.logsoftmax, lambda x: special.log_softmax(x, 1)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SMOOTH)
def test_nonlinearity(name, dtype, rng):
    f, numpy = SMOOTH[name]
    x = (2 * rng.normal(size=(4, 5))).astype(dtype)
    check(f, numpy(x).astype(dtype), x)
    if dtype == "float64":
        verify_grad(f, [x])


@pytest.mark.parametrize("f", [N.softmax, N.logsoftmax, N.softplus, N.elu])
def test_second_order(f, rng):
    verify_grad(lambda x: T.grad((f(x) ** 2).sum(), x), [rng.normal(size=(3, 4))])


def test_softmax_of_a_vector_is_a_row(rng):
    x = rng.normal(size=5)
    check(N.softmax, special.softmax(x)[None], x)
    assert N.softmax(T.vector()).broadcastable == (True, False)
    check(lambda x: N.softmax(x)[0], special.softmax(x), x)


def test_large_inputs_do_not_overflow():
    x = np.array([[1000.0, 0.0], [-1000.0, 0.0]])
    check(N.softmax, np.array([[1.0, 0], [0, 1]]), x)
    check(N.logsoftmax, np.array([[0.0, -1000], [-1000, 0]]), x)
    check(N.softplus, np.array([[1000.0, np.log(2)], [0, np.log(2)]]), x)
    check(lambda x: T.grad(N.elu(x).sum(), x), np.array([[1.0, 1], [0, 1]]), x)


def test_relu_at_zero_has_the_mean_slope():
    zero = np.zeros(1)
    check(lambda x: T.grad(N.relu(x).sum(), x), np.array([0.5]), zero)
    check(lambda x: T.grad(N.relu(x, 0.1).sum(), x), np.array([0.55]), zero)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_relu_of_every_size(dtype):
    """No sum of x and |x|, which would be inf or nan, or lose the digits of alpha * x."""
    large = np.finfo(dtype).max
    x = np.array([large, -large, np.inf, -np.inf, 1 / 3, -1 / 3, np.nan], dtype)
    for alpha in (0.01, 1 / 3):
        slope = np.array(alpha, dtype)
        check(lambda x, alpha=alpha: N.relu(x, alpha), np.where(x < 0, slope * x, x), x, rtol=0)
        check(lambda x, alpha=alpha: T.grad(N.relu(x, alpha).sum(), x),
              np.where(x < 0, slope, np.array(1, dtype))[:-1], x[:-1], rtol=1e-7)
    check(N.relu, np.where(x < 0, 0, x), x, rtol=0)
    check(lambda x: T.grad(N.relu(x).sum(), x), (x > 0).astype(dtype)[:-1], x[:-1], rtol=0)


@pytest.mark.parametrize("build, words", [
    (lambda: N.softmax(T.tensor3("x")), "softmax takes a vector or a matrix, not x"),
    (lambda: N.softmax(T.imatrix("x")), "softmax takes floats, not x"),
])
def test_softmax_refuses(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_binary_crossentropy(rng):
    p, t = rng.uniform(0.1, 0.9, (3, 4)), rng.integers(0, 2, (3, 4)).astype("float64")
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    check(N.binary_crossentropy, expected, p, t)
    verify_grad(N.binary_crossentropy, [p, t])
    check(lambda x, t: N.sigmoid_binary_crossentropy(x, t), expected, special.logit(p), t,
          rtol=1e-10)


def test_categorical_crossentropy(rng):
    p = special.softmax(rng.normal(size=(3, 4)), 1)
    t = special.softmax(rng.normal(size=(3, 4)), 1)
    check(N.categorical_crossentropy, -(t * np.log(p)).sum(1), p, t)
    classes = np.array([0, 3, 1], "int32")
    check(N.categorical_crossentropy, -np.log(p[[0, 1, 2], classes]), p, classes)
    verify_grad(N.categorical_crossentropy, [p, t])
    verify_grad(lambda p: N.categorical_crossentropy(p, classes), [p])
    with pytest.raises(TypeError, match="categorical_crossentropy"):
        N.categorical_crossentropy(T.matrix(), T.vector())
    with pytest.raises(ValueError, match="is 3, but of .* is 2|is 3.*it is 2"):
        value(N.categorical_crossentropy, p, classes[:2])


def test_a_small_model_learns_its_gradient(rng):
    """A layer, a softmax and a cost, as users write them."""
    x, w, b = rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)
    classes = rng.integers(0, 4, 5)

    def cost(w, b):
        out = N.softmax(T.tanh(T.dot(x, w) + b))
        return N.categorical_crossentropy(out, classes).mean() + 0.1 * (w ** 2).sum()

    verify_grad(cost, [w, b])
