from __future__ import annotations

import numpy as np
import pytest
from tensor_checks import check, leaf, run, value

import tinygraph.tensor as T
from tinygraph.gradient_check import verify_grad

ROWS = {  # the function, and NumPy's, of an array of shape (2, 3, 4)
    "reshape": (lambda x: x.reshape((6, 4)), lambda x: x.reshape(6, 4)),
    "reshape with -1": (lambda x: x.reshape((-1, 4)), lambda x: x.reshape(-1, 4)),
    "reshape to a vector": (lambda x: T.reshape(x, -1), lambda x: x.reshape(-1)),
    "reshape by sizes": (lambda x: x.reshape((x.shape[2], x.shape[0] * 3)),
                         lambda x: x.reshape(4, 6)),
    "reshape by arguments": (lambda x: x.reshape(4, 6), lambda x: x.reshape(4, 6)),
    "reshape by a tuple of sizes": (lambda x: x.reshape(x.shape[:1] + (-1,)),
                                    lambda x: x.reshape(2, -1)),
    "reshape by a list": (lambda x: T.reshape(x, [24, 1]), lambda x: x.reshape(24, 1)),
    "dimshuffle": (lambda x: x.dimshuffle(2, "x", 0, 1), lambda x: x.transpose(2, 0, 1)[:, None]),
    "dimshuffle of a list": (lambda x: x.dimshuffle([1, 0, 2]), lambda x: x.transpose(1, 0, 2)),
    "flatten": (lambda x: x.flatten(), lambda x: x.ravel()),
    "flatten to 2": (lambda x: T.flatten(x, 2), lambda x: x.reshape(2, 12)),
    "T": (lambda x: x.T, lambda x: x.T),
    "transpose": (lambda x: x.transpose(1, 2, 0), lambda x: x.transpose(1, 2, 0)),
    "transpose by a tuple": (lambda x: T.transpose(x, (0, 2, 1)), lambda x: x.transpose(0, 2, 1)),
    "swapaxes": (lambda x: x.swapaxes(0, -1), lambda x: x.swapaxes(0, 2)),
    "moveaxis": (lambda x: T.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1)),
    "expand_dims": (lambda x: T.expand_dims(x, -1), lambda x: x[..., None]),
    "shape_padleft": (lambda x: T.shape_padleft(x, 2), lambda x: x[None, None]),
    "shape_padright": (lambda x: T.shape_padright(x), lambda x: x[..., None]),
    "shape_padaxis": (lambda x: T.shape_padaxis(x, axis=1), lambda x: x[:, None]),
    "squeeze": (lambda x: x.dimshuffle(0, "x", 1, 2).squeeze(), lambda x: x),
    "concatenate": (lambda x: T.concatenate([x, x * 2, x], axis=1),
                    lambda x: np.concatenate([x, 2 * x, x], 1)),
    "concatenate at the end": (lambda x: T.concatenate([x, x], -1),
                               lambda x: np.concatenate([x, x], -1)),
    "stack": (lambda x: T.stack([x, -x], axis=1), lambda x: np.stack([x, -x], 1)),
    "stack of arguments": (lambda x: T.stack(x, -x), lambda x: np.stack([x, -x])),
    "repeat": (lambda x: T.repeat(x, 3, axis=1), lambda x: np.repeat(x, 3, 1)),
    "repeat flat": (lambda x: T.repeat(x, 2), lambda x: np.repeat(x, 2)),
    "repeat by size": (lambda x: x.repeat(x.shape[0], 2), lambda x: np.repeat(x, 2, 2)),
    "repeat each": (lambda x: T.repeat(x, [2, 0, 1], axis=1),
                    lambda x: np.repeat(x, [2, 0, 1], 1)),
    "tile": (lambda x: T.tile(x, (2, 1, 3)), lambda x: np.tile(x, (2, 1, 3))),
    "tile shorter": (lambda x: T.tile(x, 2), lambda x: np.tile(x, 2)),
    "tile longer": (lambda x: T.tile(x, (2, 1, 1, 2)), lambda x: np.tile(x, (2, 1, 1, 2))),
    "roll": (lambda x: T.roll(x, 3, axis=1), lambda x: np.roll(x, 3, 1)),
    "roll back": (lambda x: T.roll(x, -1, axis=2), lambda x: np.roll(x, -1, 2)),
    "roll flat": (lambda x: T.roll(x, 5), lambda x: np.roll(x, 5)),
    "flip": (lambda x: T.flip(x, 1), lambda x: np.flip(x, 1)),
    "flip all": (lambda x: T.flip(x), lambda x: np.flip(x)),
    "join": (lambda x: T.join(1, x, -x), lambda x: np.concatenate([x, -x], 1)),
    "diff": (lambda x: T.diff(x, 2), lambda x: np.diff(x, 2)),
    "diff along 0": (lambda x: T.diff(x, axis=0), lambda x: np.diff(x, axis=0)),
    "stacklists": (lambda x: T.stacklists([[x, x[::-1]], [-x, x]]),
                   lambda x: np.array([[x, x[::-1]], [-x, x]])),
    "zeros of a shape": (lambda x: x + T.zeros(T.shape(x), "float64"), lambda x: x),
    "split": (lambda x: T.split(x, [1, 3], axis=2)[1], lambda x: x[:, :, 1:]),
    "addbroadcast": (lambda x: T.addbroadcast(x[:, 0:1], 1) + x, lambda x: x[:, :1] + x),
    "patternbroadcast": (lambda x: T.patternbroadcast(x[:1], (True, False, False)),
                         lambda x: x[:1]),
    "unbroadcast": (lambda x: T.unbroadcast(x, 1), lambda x: x),
    "fill": (lambda x: x.fill(x[0, 0, 0]), lambda x: np.full_like(x, x[0, 0, 0])),
    "tril": (T.tril, np.tril), "triu": (lambda x: T.triu(x, 1), lambda x: np.triu(x, 1)),
}


@pytest.mark.parametrize("name", ROWS)
def test_shaping(name, rng):
    f, numpy = ROWS[name]
    x = rng.normal(size=(2, 3, 4))
    check(f, numpy(x), x)
    verify_grad(f, [x])


def _named(y):
    y.name = "y"
    return y


PRODUCTS = {
    "dot": [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)),
            ((5, 2, 3), (6, 3, 4)), ((), (2, 3))],
    "matmul": [((3,), (3,)), ((2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (3, 4)),
               ((3,), (5, 3, 4)), ((5, 2, 3), (3,)), ((6, 5, 2, 3), (5, 3, 4))],
    "outer": [((2,), (3,)), ((2, 2), (3,))],
}


@pytest.mark.parametrize("name, a, b", [(n, a, b) for n, rows in PRODUCTS.items() for a, b in rows])
def test_products(name, a, b, rng):
    f, numpy = getattr(T, name), getattr(np, name)
    x, y = rng.normal(size=a), rng.normal(size=b)
    check(f, numpy(x, y), x, y)
    verify_grad(f, [x, y])
    i, j = rng.integers(-3, 3, a), rng.integers(-3, 3, b)
    check(f, numpy(i, j), i, j)


def test_products_of_two_dtypes_promote(rng):
    x, y = rng.normal(size=(2, 3)).astype("float32"), rng.normal(size=(3, 4))
    check(T.dot, np.dot(x, y), x, y)
    check(lambda x: T.dot(x, np.eye(3, dtype="float32")), x, x)
    check(lambda x: x @ np.eye(3, dtype="float32"), x, x)
    check(lambda x: np.eye(2, dtype="float32") @ x, x, x)


def test_matmul_broadcasts_a_known_size_of_one(rng):
    x, y = rng.normal(size=(5, 2, 3)), rng.normal(size=(3, 4))
    check(lambda x, y: T.matmul(x, y[None]), x @ y, x, y)


@pytest.mark.parametrize("axes", [1, 2, [[1, 2], [0, 1]], [[2], [1]], [1, 0], 0])
def test_tensordot(axes, rng):
    x, y = rng.normal(size=(2, 3, 3)), rng.normal(size=(3, 3, 2))
    check(lambda x, y: T.tensordot(x, y, axes), np.tensordot(x, y, axes), x, y)


@pytest.mark.parametrize("a, b, how", [
    ((5, 2, 3), (5, 3, 4), "nij,njk->nik"), ((5, 3), (5, 3, 4), "nj,njk->nk"),
    ((5, 2, 3), (5, 3), "nij,nj->ni"), ((5, 3), (5, 3), "nj,nj->n")])
def test_batched_dot(a, b, how, rng):
    x, y = rng.normal(size=a), rng.normal(size=b)
    check(T.batched_dot, np.einsum(how, x, y), x, y)
    verify_grad(T.batched_dot, [x, y])


def test_diagonals(rng):
    for shape in ((3, 3), (2, 4), (4, 2)):
        x = rng.normal(size=shape)
        check(T.diag, np.diag(x), x)
        check(lambda x: x.trace(), np.trace(x), x)
        verify_grad(T.diag, [x])
    check(T.diag, np.diag(np.arange(3.0)), np.arange(3.0))


def test_a_reshape_back_by_the_shape_of_another(rng):
    x = rng.normal(size=(2, 3, 4))
    check(lambda x: (x.reshape((-1, 4)) * 2).reshape(x.shape), 2 * x, x)
    vector = leaf(np.array([4, 6]), "s")
    var = leaf(x, "x")
    (out,) = run([T.reshape(var, vector, ndim=2)], {var: x, vector: np.array([4, 6])})
    assert out.shape == (4, 6)


def test_known_sizes_make_broadcast_axes():
    x = T.matrix()
    assert x.reshape((x.shape[0], x.shape[1], 1)).broadcastable == (False, False, True)
    assert T.ones((x.shape[0], 1)).broadcastable == (False, True)
    assert T.alloc(0.0, x.shape[0], 1).broadcastable == (False, True)
    assert x.sum(axis=1, keepdims=True).broadcastable == (False, True)
    assert T.row().broadcastable == (True, False)
    assert T.TensorType("float32", (False, True))("c").broadcastable == (False, True)


@pytest.mark.parametrize("f, error, words", [
    (lambda m: m.dimshuffle(0), ValueError, "drops axis 1 of m.*addbroadcast"),
    (lambda m: m.dimshuffle(0, 0, 1), ValueError, "repeats an axis"),
    (lambda m: m.reshape((-1, -1)), ValueError, "only one size may be -1"),
    (lambda m: m.transpose(0), ValueError, "every axis"),
    (lambda m: T.patternbroadcast(m, (True,)), ValueError, "1 entries; m"),
    (lambda m: T.concatenate([m, m[0]]), TypeError, "concatenate: m.*matrix"),
    (lambda m: T.concatenate(m), TypeError, "a list of variables"),
    (lambda m: T.stack([m, m[0]]), TypeError, "one number of axes"),
    (lambda m: m.flatten(3), ValueError, "cannot be flattened to 3"),
    (lambda m: T.reshape(m, T.ivector("s")), ValueError, "ndim="),
    (lambda m: m.reshape((2.0, 3)), TypeError, "must be an integer"),
    (lambda m: T.repeat(m, T.fvector("r"), 0), TypeError, "r .*a vector of integers"),
])
def test_mistakes_are_told_when_the_graph_is_built(f, error, words):
    with pytest.raises(error, match=words):
        f(T.matrix("m"))


@pytest.mark.parametrize("f, words", [
    (lambda x: T.addbroadcast(x, 0), "axis 0 of x0.*must have size 1.*3"),
    (lambda x: x.reshape((2, 4)), "12 elements.*cannot be reshaped.*8"),
    (lambda x: T.split(x, [1, 1], axis=0)[0], "is 3, but 2"),
    (lambda x: T.repeat(x, [1, 2], axis=0), "is 3, but 2"),
    (lambda x: T.concatenate([x, _named(x.T)], axis=0), "axis 1 of x0.*is 4, of y.*it is 3"),
])
def test_mistakes_are_told_at_run_time(f, words):
    with pytest.raises(ValueError, match=words):
        value(f, np.zeros((3, 4)))
