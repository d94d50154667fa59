"""Losses and accuracies against NumPy, their slopes at the ends, and the shapes they refuse."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function, grad, shared
from tinygraph_rnn import nonlinearities as nl
from tinygraph_rnn import objectives as ob

RNG = np.random.default_rng(3)
P = RNG.uniform(0.05, 0.95, (4, 3))
Q = P / P.sum(1, keepdims=True)  # rows that add up to 1
X = 2 * RNG.standard_normal((4, 3))
HOT = np.eye(3)[[2, 0, 1, 1]]
BITS = (RNG.uniform(size=(4, 3)) > 0.5).astype(float)
CLASSES = np.array([2, 0, 1, 1], "int32")
ROWS = np.arange(4)


def wrong_best(x):
    return np.where(HOT > 0, -np.inf, x).max(1)


def huber(d, delta):
    return np.where(abs(d) <= delta, d ** 2 / 2, delta * (abs(d) - delta / 2))


# Loss, predictions, targets, what NumPy says.
TABLE = {
    "squared_error": (ob.squared_error, X, P, (X - P) ** 2),
    "absolute_error": (ob.absolute_error, X, P, abs(X - P)),
    "binary_crossentropy": (
        ob.binary_crossentropy, P, BITS, -np.log(np.where(BITS > 0, P, 1 - P))),
    "binary_crossentropy, soft": (
        ob.binary_crossentropy, P, Q, -Q * np.log(P) - (1 - Q) * np.log(1 - P)),
    "categorical_crossentropy": (
        ob.categorical_crossentropy, Q, CLASSES, -np.log(Q[ROWS, CLASSES])),
    "categorical_crossentropy, one hot": (
        ob.categorical_crossentropy, Q, HOT, -np.log(Q[ROWS, CLASSES])),
    "categorical_crossentropy, soft": (
        ob.categorical_crossentropy, Q, Q[::-1], -(Q[::-1] * np.log(Q)).sum(1)),
    "binary_hinge_loss": (
        ob.binary_hinge_loss, X, BITS, np.maximum(0, 1 - X * (2 * BITS - 1))),
    "binary_hinge_loss, log_odds=True": (
        lambda p, t: ob.binary_hinge_loss(p, t, 2, True), X, BITS,
        np.maximum(0, 2 - X * (2 * BITS - 1))),
    "binary_hinge_loss, probabilities": (
        lambda p, t: ob.binary_hinge_loss(p, t, log_odds=False), P, BITS,
        np.maximum(0, 1 - np.log(P / (1 - P)) * (2 * BITS - 1))),
    "binary_hinge_loss, signs": (
        lambda p, t: ob.binary_hinge_loss(p, t, delta=0.5, binary=False), X, 2 * BITS - 1,
        np.maximum(0, 0.5 - X * (2 * BITS - 1))),
    "binary_hinge_loss, unsigned": (
        ob.binary_hinge_loss, X, BITS.astype("uint8"), np.maximum(0, 1 - X * (2 * BITS - 1))),
    "multiclass_hinge_loss": (
        ob.multiclass_hinge_loss, X, CLASSES,
        np.maximum(0, wrong_best(X) - X[ROWS, CLASSES] + 1)),
    "multiclass_hinge_loss, one hot": (
        lambda p, t: ob.multiclass_hinge_loss(p, t, delta=0.3), X, HOT.astype("int8"),
        np.maximum(0, wrong_best(X) - X[ROWS, CLASSES] + 0.3)),
    "huber_loss": (ob.huber_loss, X, P, huber(X - P, 1)),
    "huber_loss, delta": (lambda p, t: ob.huber_loss(p, t, 0.4), X, P, huber(X - P, 0.4)),
    "binary_accuracy": (ob.binary_accuracy, P, BITS, (P >= 0.5) == BITS),
    "binary_accuracy, threshold": (
        lambda p, t: ob.binary_accuracy(p, t, threshold=0.2), P, BITS, (P >= 0.2) == BITS),
    "categorical_accuracy": (ob.categorical_accuracy, X, CLASSES, X.argmax(1) == CLASSES),
    "categorical_accuracy, one hot": (ob.categorical_accuracy, X, HOT, X.argmax(1) == CLASSES),
    "categorical_accuracy, two": (
        lambda p, t: ob.categorical_accuracy(p, t, top_k=2), X, CLASSES,
        X.argmin(1) != CLASSES),
    "categorical_accuracy, two, one hot": (
        lambda p, t: ob.categorical_accuracy(p, t, top_k=2), X, HOT, X.argmin(1) != CLASSES),
    "categorical_accuracy, all": (
        lambda p, t: ob.categorical_accuracy(p, t, top_k=3), X, CLASSES, np.ones(4, bool)),
}


def variable(array, name):
    return T.TensorType(array.dtype, (False,) * array.ndim)(name)


@pytest.mark.parametrize("backend", ["llvm", "numpy"])
@pytest.mark.parametrize("name", TABLE)
def test_table(name, backend):
    loss, predictions, targets, expected = TABLE[name]
    p, t = variable(predictions, "p"), variable(targets, "t")
    with config.change(backend=backend):
        out = function([p, t], loss(p, t))(predictions, targets)
    assert out.dtype == expected.dtype and out.shape == expected.shape
    np.testing.assert_allclose(out, expected, 1e-11, 1e-12)


@pytest.mark.parametrize("name", [n for n in TABLE if "accuracy" not in n])
def test_slopes_by_finite_differences(name):
    loss, predictions, targets, _ = TABLE[name]
    p, t = variable(predictions, "p"), variable(targets, "t")
    cost = loss(p, t).sum()
    f = function([p, t], [cost, grad(cost, p)])
    _, slope = f(predictions, targets)
    numeric = np.zeros_like(predictions)
    for k in np.ndindex(predictions.shape):
        step = np.zeros_like(predictions)
        step[k] = 1e-6
        numeric[k] = (f(predictions + step, targets)[0] - f(predictions - step, targets)[0]) / 2e-6
    np.testing.assert_allclose(slope, numeric, 1e-6, 1e-7)


# --- probabilities that round to 0 or 1 ----------------------------------------------------------


@pytest.mark.parametrize("floatX", ["float32", "float64"])
def test_sigmoid_of_large_numbers(floatX):
    logits, targets = np.array([-100.0, 100, -100, 100, 0]), np.array([0.0, 0, 1, 1, 1])
    with config.change(floatX=floatX, backend="llvm"):
        x, t = T.vector("x"), T.vector("t")
        entropy = ob.binary_crossentropy(nl.sigmoid(x), t)
        hinge = ob.binary_hinge_loss(nl.sigmoid(x), t, log_odds=False)
        f = function([x, t], [entropy, grad(entropy.sum(), x), hinge, grad(hinge.sum(), x)])
        found = f(logits.astype(floatX), targets.astype(floatX))
    for out, expected in zip(found, [
            [0, 100, 100, 0, np.log(2)], [0, 1, -1, 0, -0.5], [0, 101, 101, 0, 1],
            [0, 1, -1, 0, -1]], strict=True):
        np.testing.assert_allclose(out, expected, 1e-6, 1e-12)


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["classes", "one hot", "sequences", "sequences, one hot",
                                  "reshaped"])
def test_softmax_of_large_numbers(floatX, kind):
    logits = np.array([[-100.0, 100, 0], [400, 0, -400]]).astype(floatX)
    targets = np.array([0, 2])
    if "one hot" in kind:
        targets = np.eye(3, dtype=floatX)[targets]
    if "sequences" in kind:
        logits, targets = logits[None], targets[None]
    with config.change(floatX=floatX, backend="llvm"):
        x, t = variable(logits, "x"), variable(targets, "t")
        p = nl.softmax(x)
        if kind == "reshaped":  # a layer over all steps, and its results as sequences again
            cost = ob.categorical_crossentropy(p.reshape((1, -1, 3)), t.reshape((1, -1)))
        else:
            cost = ob.categorical_crossentropy(p, t)
        loss, slope = function([x, t], [cost, grad(cost.sum(), x)])(logits, targets)
    np.testing.assert_allclose(loss.ravel(), [200, 800])
    np.testing.assert_allclose(slope.reshape(2, 3), [[-1, 1, 0], [1, 0, -1]], atol=1e-12)


def test_huber_slope_is_bounded_by_delta():
    x = T.vector("x")
    slope = grad(ob.huber_loss(x, 0.0, 2.0).sum(), x)
    out = function([x], slope)([-1e30, -2, -0.5, 0, 0.5, 2, 1e30])
    np.testing.assert_allclose(out, [-2, -2, -0.5, 0, 0.5, 2, 2])


# --- shapes --------------------------------------------------------------------------------------


def test_sequences_of_classes():
    q = np.stack([Q, Q[::-1]])
    classes = np.stack([CLASSES, CLASSES])
    p, t = variable(q, "p"), variable(classes, "t")
    entropy, hinge, hit, near = function([p, t], [
        ob.categorical_crossentropy(p, t), ob.multiclass_hinge_loss(p, t),
        ob.categorical_accuracy(p, t), ob.categorical_accuracy(p, t, 2)])(q, classes)
    chosen = np.take_along_axis(q, classes[..., None], -1)[..., 0]
    wrong = np.where(np.eye(3)[classes] > 0, -1, q).max(-1)
    np.testing.assert_allclose(entropy, -np.log(chosen))
    np.testing.assert_allclose(hinge, np.maximum(0, wrong - chosen + 1))
    np.testing.assert_array_equal(hit, q.argmax(-1) == classes)
    np.testing.assert_array_equal(near, q.argmin(-1) != classes)


def test_one_sample_without_batch():
    p, t = T.vector("p"), T.iscalar("t")
    out = function([p, t], [ob.categorical_crossentropy(p, t), ob.categorical_accuracy(p, t)])(
        Q[0], 2)
    np.testing.assert_allclose(out[0], -np.log(Q[0, 2]))
    assert out[1] == (Q[0].argmax() == 2)


ELEMENTWISE = [ob.squared_error, ob.absolute_error, ob.binary_crossentropy, ob.binary_hinge_loss,
               ob.huber_loss, ob.binary_accuracy]


@pytest.mark.parametrize("loss", ELEMENTWISE, ids=lambda f: f.__name__)
def test_vector_of_targets_for_one_column(loss):
    p, t = T.col("p"), T.vector("t")
    both = function([p, t], [loss(p, t), loss(p, t.dimshuffle(0, "x"))])(P[:, :1], BITS[:, 0])
    assert both[0].shape == (4, 1)
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize("loss", ELEMENTWISE, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("p", "t"), [
    (T.matrix("p"), T.vector("t")), (T.vector("p"), T.col("t")), (T.tensor3("p"), T.matrix("t"))])
def test_other_ranks_are_refused(loss, p, t):
    with pytest.raises(TypeError, match="must have the same shape, but p .* axes and t .*"
                                        r"dimshuffle\(0, 'x'\)"):
        loss(p, t)


def test_a_number_or_scalar_may_stand_for_all_targets():
    p, s = T.matrix("p"), T.scalar("s")
    out = function([p, s], [ob.squared_error(p, 0.5), ob.squared_error(p, s),
                            ob.squared_error(np.float32(0.5), p)])(P, 0.5)
    for one in out:
        np.testing.assert_allclose(one, (P - 0.5) ** 2)


def test_arrays_may_be_targets():
    p = T.matrix("p")
    out = function([p], ob.squared_error(p, X))(P)
    np.testing.assert_allclose(out, (P - X) ** 2)


@pytest.mark.parametrize("loss", [
    ob.categorical_crossentropy, ob.multiclass_hinge_loss, ob.categorical_accuracy])
def test_class_numbers(loss):
    p = T.matrix("p")
    with pytest.raises(TypeError, match="are class numbers.*but t .*float64 vector.*T.cast"):
        loss(p, T.vector("t"))
    with pytest.raises(TypeError, match="one axis less.*has 2 axes and t .* has 3"):
        loss(p, T.itensor3("t"))
    with pytest.raises(ValueError, match="size 4 along axis 0, but .* has 3"):
        loss(T.as_tensor_variable(Q), T.as_tensor_variable(CLASSES[:3]))


@pytest.mark.parametrize("loss", [ob.categorical_crossentropy, ob.multiclass_hinge_loss])
def test_class_out_of_range(loss):
    p, t = T.matrix("p"), T.ivector("t")
    with pytest.raises(IndexError, match="3"):
        function([p, t], loss(p, t))(Q, np.array([0, 1, 2, 3], "int32"))


def test_other_errors():
    p, t = T.matrix("p"), T.ivector("t")
    with pytest.raises(ValueError, match="top_k is 0"):
        ob.categorical_accuracy(p, t, top_k=0)
    with pytest.raises(TypeError, match="predictions must be floats, not i "):
        ob.multiclass_hinge_loss(T.imatrix("i"), t)
    with pytest.raises(TypeError, match="'abc'.*neither an expression nor an array"):
        ob.squared_error(p, "abc")


# --- aggregate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["llvm", "numpy"])
@pytest.mark.parametrize("kind", ["float", "int8", "bool"])
def test_aggregate(kind, backend):
    weights = BITS.astype({"float": float}.get(kind, kind))
    p, w = T.matrix("p"), variable(weights, "w")
    modes = [ob.aggregate(p), ob.aggregate(p, mode="sum"), ob.aggregate(p, w),
             ob.aggregate(p, w, "sum"), ob.aggregate(p, weights=w, mode="normalized_sum")]
    with config.change(backend=backend):
        found = function([p, w], modes)(P, weights)
    total = (P * BITS).sum()
    np.testing.assert_allclose(found, [
        P.mean(), P.sum(), total / P.size, total, total / BITS.sum()])


def test_weights_of_samples():
    loss, column, w = T.matrix("loss"), T.col("column"), T.vector("w")
    weights = np.array([1.0, 0, 2, 0.5])
    f = function([loss, column, w], [
        ob.aggregate(loss, w.dimshuffle(0, "x"), "sum"), ob.aggregate(column, w, "sum"),
        ob.aggregate(loss, 0.5)])
    found = f(X, X[:, :1], weights)
    np.testing.assert_allclose(
        found, [(X * weights[:, None]).sum(), X[:, 0] @ weights, X.mean() / 2])


def test_aggregate_refuses():
    p = T.matrix("p")
    with pytest.raises(ValueError, match="pass weights"):
        ob.aggregate(p, mode="normalized_sum")
    with pytest.raises(ValueError, match="mode is 'max'"):
        ob.aggregate(p, mode="max")
    with pytest.raises(TypeError, match="the weights, w .*have more axes than the loss, l "):
        ob.aggregate(T.vector("l"), T.col("w"))


def test_weights_may_be_shared():
    w = shared(np.ones(4), "w")
    f = function([], ob.aggregate(T.as_tensor_variable(X[:, 0]), w))
    before = f()
    w.set_value(np.full(4, 3.0))
    np.testing.assert_allclose([before, f()], [X[:, 0].mean(), 3 * X[:, 0].mean()])
