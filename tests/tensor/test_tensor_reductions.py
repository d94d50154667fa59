from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from tensor_checks import check, value

import tinygraph.tensor as T
from tinygraph import config
from tinygraph.gradient_check import verify_grad

# name, NumPy's meaning, is the gradient to be checked?
REDUCTIONS = [
    ("sum", np.sum, True), ("prod", np.prod, True), ("mean", np.mean, True),
    ("max", np.max, True), ("min", np.min, True), ("var", np.var, True), ("std", np.std, True),
    ("all", np.all, False), ("any", np.any, False), ("norm", None, True),
    ("logsumexp", special.logsumexp, True),
]


def _norm(x, axis, keepdims):
    return np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), [1], ()])
@pytest.mark.parametrize("name, numpy, smooth", REDUCTIONS, ids=[r[0] for r in REDUCTIONS])
def test_reduction(name, numpy, smooth, axis, keepdims, rng):
    x = rng.normal(size=(2, 3, 4))
    places = tuple(axis) if isinstance(axis, list) else axis

    def f(x):
        return getattr(T, name)(x, axis=axis, keepdims=keepdims)

    if axis == () and name in ("std", "logsumexp", "norm"):
        smooth = False
    check(f, (numpy or _norm)(x, axis=places, keepdims=keepdims), x)
    if smooth:
        verify_grad(f, [x])


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_arg(name, axis, keepdims, rng):
    x = rng.integers(0, 4, (3, 5)).astype("float32")
    for array in (x, x.astype("int32"), np.where(x == 1, np.nan, x)):
        expected = getattr(np, name)(array, axis=axis, keepdims=keepdims)
        check(lambda x: getattr(T, name)(x, axis, keepdims), expected, array)


def test_max_and_argmax(rng):
    x = rng.normal(size=(3, 4))
    check(lambda x: T.max_and_argmax(x, axis=1)[0], x.max(1), x)
    check(lambda x: T.max_and_argmax(x, axis=1)[1], x.argmax(1), x)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "int64"])
def test_integers_are_summed_as_int64(dtype):
    x = np.ones((300, 2)).astype(dtype)
    check(T.sum, np.int64(600), x)
    check(lambda x: x.prod(axis=0), np.ones(2, "int64"), x)
    with config.change(floatX="float64"):
        check(T.mean, np.float64(1), x)


def test_float32_sums_are_float32_and_can_be_asked_for_wider(rng):
    x = rng.normal(size=(5, 6)).astype("float32")
    check(lambda x: x.sum(axis=0), x.sum(axis=0), x)
    check(lambda x: x.sum(acc_dtype="float64"), x.astype("float64").sum().astype("float32"), x)
    check(lambda x: x.mean(dtype="float64"), x.astype("float64").mean(), x)


@pytest.mark.parametrize("L", [0, 1, 2, 3, np.inf, -np.inf])
def test_norms(L, rng):
    x = rng.uniform(0.5, 2, (3, 4))
    check(lambda x: x.norm(L), np.linalg.norm(x.ravel(), L), x, rtol=1e-10)
    check(lambda x: x.norm(L, axis=1), np.linalg.norm(x, L, axis=1), x, rtol=1e-10)
    if L != 0:
        verify_grad(lambda x: x.norm(L), [x])


def test_var_with_ddof(rng):
    x = rng.normal(size=(4, 3))
    check(lambda x: x.var(axis=0, ddof=1), x.var(axis=0, ddof=1), x)
    check(lambda x: x.std(ddof=2), x.std(ddof=2), x)


def test_logsumexp_does_not_overflow():
    x = np.array([[1000.0, 1000.0], [-np.inf, -np.inf]])
    check(lambda x: T.logsumexp(x, axis=1), np.array([1000 + np.log(2), -np.inf]), x)


def test_max_shows_a_nan():
    check(T.max, np.float64(np.nan), np.array([1.0, np.nan, 2.0]))


def test_ties_of_max_all_get_the_gradient():
    check(lambda x: T.grad(x.max(), x), np.array([1.0, 0, 1]), np.array([2.0, 1, 2]))


def test_prod_with_zeros_has_an_exact_gradient():
    x = np.array([[2.0, 3, 4], [2, 0, 4], [0, 3, 0]])
    expected = np.array([[12.0, 8, 6], [0, 8, 0], [0, 0, 0]])
    check(lambda x: T.grad(x.prod(axis=1).sum(), x), expected, x)


def test_kept_dimensions_broadcast(rng):
    x = rng.normal(size=(3, 4))
    check(lambda x: x / x.sum(axis=1, keepdims=True), x / x.sum(axis=1, keepdims=True), x)


def test_mistakes_name_the_variable():
    with pytest.raises(IndexError, match="axis 2 of m"):
        T.matrix("m").sum(axis=2)
    with pytest.raises(ValueError, match="twice"):
        T.matrix("m").sum(axis=(0, -2))
    with pytest.raises(ValueError, match="empty"):
        value(T.max, np.zeros(0))
