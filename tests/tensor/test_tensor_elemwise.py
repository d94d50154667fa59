from __future__ import annotations

import math

import numpy as np
import pytest
from tensor_checks import check, leaf, value

import tinygraph.tensor as T
from tinygraph import config
from tinygraph.gradient_check import verify_grad

# name, NumPy's meaning, the interval of inputs, is the gradient to be checked?
UNARY = [
    ("exp", np.exp, -2, 2, True), ("expm1", np.expm1, -2, 2, True),
    ("log", np.log, 0.1, 3, True), ("log1p", np.log1p, -0.5, 3, True),
    ("log2", np.log2, 0.1, 3, True), ("log10", np.log10, 0.1, 3, True),
    ("exp2", np.exp2, -2, 2, True), ("sqrt", np.sqrt, 0.1, 3, True),
    ("sqr", np.square, -2, 2, True), ("square", np.square, -2, 2, True),
    ("inv", np.reciprocal, 0.3, 2, True), ("neg", np.negative, -2, 2, True),
    ("abs_", np.abs, 0.1, 2, True), ("sgn", np.sign, -2, 2, True),
    ("sin", np.sin, -2, 2, True), ("cos", np.cos, -2, 2, True), ("tan", np.tan, -1, 1, True),
    ("arcsin", np.arcsin, -0.9, 0.9, True), ("arccos", np.arccos, -0.9, 0.9, True),
    ("arctan", np.arctan, -2, 2, True), ("sinh", np.sinh, -2, 2, True),
    ("cosh", np.cosh, -2, 2, True), ("tanh", np.tanh, -2, 2, True),
    ("arcsinh", np.arcsinh, -2, 2, True), ("arccosh", np.arccosh, 1.2, 3, True),
    ("arctanh", np.arctanh, -0.9, 0.9, True), ("erf", np.vectorize(math.erf), -2, 2, True),
    ("erfc", np.vectorize(math.erfc), -2, 2, True),
    ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), -3, 3, True),
    ("softplus", lambda x: np.log1p(np.exp(x)), -3, 3, True),
    ("deg2rad", np.deg2rad, -90, 90, True), ("rad2deg", np.rad2deg, -2, 2, True),
    ("floor", np.floor, -2, 2, False), ("ceil", np.ceil, -2, 2, False),
    ("trunc", np.trunc, -2, 2, False), ("round", np.round, -2, 2, False),
    ("isnan", np.isnan, -2, 2, False), ("isinf", np.isinf, -2, 2, False),
]
BINARY = [
    ("add", np.add, True), ("sub", np.subtract, True), ("mul", np.multiply, True),
    ("true_div", np.divide, True), ("int_div", np.floor_divide, False), ("mod", np.mod, True),
    ("pow", np.power, True), ("maximum", np.maximum, True), ("minimum", np.minimum, True),
    ("arctan2", np.arctan2, True), ("logaddexp", np.logaddexp, True),
    ("eq", np.equal, False), ("neq", np.not_equal, False), ("lt", np.less, False),
    ("le", np.less_equal, False), ("gt", np.greater, False), ("ge", np.greater_equal, False),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, numpy, low, high, smooth", UNARY, ids=[r[0] for r in UNARY])
def test_unary(name, numpy, low, high, smooth, dtype, rng):
    x = rng.uniform(low, high, (3, 4)).astype(dtype)
    expected = np.asarray(numpy(x))
    check(getattr(T, name), expected.astype(bool if expected.dtype == bool else dtype), x)
    if smooth and dtype == "float64":
        verify_grad(getattr(T, name), [x])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, numpy, smooth", BINARY, ids=[r[0] for r in BINARY])
def test_binary(name, numpy, smooth, dtype, rng):
    x, y = (rng.uniform(0.3, 2, (3, 4)).astype(dtype) for _ in range(2))
    check(getattr(T, name), numpy(x, y), x, y)
    if smooth and dtype == "float64":
        verify_grad(getattr(T, name), [x, y])
        verify_grad(getattr(T, name), [x, y[:1]])


@pytest.mark.parametrize("f", [
    lambda x: T.tanh(x) * T.exp(-x), lambda x: x ** 3 + 1 / x, lambda x: T.sigmoid(x) * x,
    lambda x: T.softplus(x).sum(axis=0), lambda x: T.prod(x, axis=1), lambda x: x ** 2.5,
    lambda x: T.dot(x, x.T) ** 2, lambda x: x[[1, 0, 1]] ** 3, lambda x: x[:, ::-1] * x ** 2,
    lambda x: T.set_subtensor(x[0], x[1] ** 2) ** 2, lambda x: x.std(axis=1),
    lambda x: x.max(axis=0) ** 3, lambda x: T.concatenate([x, x * x], 1) ** 2,
    lambda x: T.logsumexp(x, axis=1), lambda x: x.norm(2), lambda x: x.repeat(2, 0) ** 3])
def test_second_order(f, rng):
    def slope(x):
        return T.grad(f(x).sum(), x)

    verify_grad(slope, [rng.uniform(0.5, 2, (2, 3))])


def test_add_and_mul_take_any_number_of_operands(rng):
    x = rng.normal(size=(2, 3))
    check(lambda x: T.add(x, 1, x, x), 3 * x + 1, x)
    check(lambda x: T.mul(x, x, x, 2.0), 2 * x ** 3, x)
    check(lambda x: T.maximum(x, 0, 0.5), np.maximum(x, 0.5), x)


def test_logic_of_bools_and_of_integers():
    a, b = np.array([True, True, False]), np.array([True, False, False])
    check(T.and_, a & b, a, b)
    check(T.or_, a | b, a, b)
    check(T.xor, a ^ b, a, b)
    check(T.invert, ~a, a)
    i, j = np.array([6, 3], "int32"), np.array([3, 5], "int32")
    check(T.and_, i & j, i, j)
    check(T.bitwise_or, i | j, i, j)
    check(lambda i: ~i, ~i, i)


def test_integer_division_rounds_down():
    i, j = np.array([7, -7, 7, -7], "int32"), np.array([2, 2, -2, -2], "int32")
    check(lambda i, j: i // j, i // j, i, j)
    check(lambda i, j: i % j, i % j, i, j)


@pytest.mark.parametrize("build, dtypes, expected", [
    (lambda x: x + 1, ["float32"], "float32"), (lambda x: x * 0.1, ["float32"], "float32"),
    (lambda x: x + 1, ["int32"], "int32"), (lambda x: x ** 2, ["int32"], "int32"),
    (lambda x: x + 1, ["int8"], "int8"), (lambda x: x * 0.5, ["int32"], "float32"),
    (lambda x, y: x + y, ["float32", "int64"], "float32"),
    (lambda x, y: x + y, ["float32", "float64"], "float64"),
    (lambda x, y: x + y, ["int32", "int64"], "int64"),
    (lambda x, y: x / y, ["int32", "int32"], "float32"),
    (lambda x, y: x * y, ["bool", "float32"], "float32"),
    (lambda x, y: x < y, ["float32", "float32"], "bool"),
    (T.exp, ["int32"], "float32"), (T.mean, ["int32"], "float32"), (T.sum, ["int32"], "int64"),
    (T.sum, ["bool"], "int64"), (T.sum, ["float32"], "float32"), (T.max, ["int16"], "int16"),
    (T.argmax, ["float32"], "int64"),
    (lambda x: T.mean(x, dtype="float64"), ["float32"], "float64"),
    (lambda x: T.sum(x, dtype="int32"), ["int8"], "int32"),
    (lambda x: T.cast(x, "floatX"), ["int64"], "float32"),
    (lambda x: x.astype("int8"), ["float64"], "int8"),
    (lambda x: 2.0 - x, ["float32"], "float32"),
    (lambda x: T.switch(x, 1, 0), ["float32"], "int64"),
    (lambda x: T.switch(x > 0, x, 0.0), ["float32"], "float32"),
    (lambda x: T.switch(x > 0, 1.0, 0), ["float64"], "float32"),
    (lambda x: np.ones(3, "float32") + x, ["float32"], "float32"),
])
def test_dtypes_under_float32(build, dtypes, expected):
    assert build(*(T.TensorType(d, (False,))() for d in dtypes)).dtype == expected


@pytest.mark.parametrize("build, dtypes, expected", [
    (lambda x: x * 0.1, ["float32"], "float32"), (lambda x: x * 0.5, ["int32"], "float64"),
    (lambda x, y: x + y, ["float32", "int64"], "float64"),
    (lambda x, y: x / y, ["int32", "int32"], "float64"), (T.mean, ["int32"], "float64"),
    (T.exp, ["int32"], "float64"), (T.exp, ["int8"], "float32"),
])
def test_dtypes_under_float64(build, dtypes, expected):
    with config.change(floatX="float64"):
        assert build(*(T.TensorType(d, (False,))() for d in dtypes)).dtype == expected


def test_clip_passes_the_gradient_at_both_bounds():
    x = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    check(lambda x: T.clip(x, 0, 1), np.clip(x, 0, 1), x)
    check(lambda x: T.grad(x.clip(0, 1).sum(), x), np.array([0.0, 1, 1, 1, 0]), x)


def test_ties_of_maximum_go_to_the_first():
    x = np.array([1.0, 2.0])
    check(lambda x, y: T.grad(T.maximum(x, y).sum(), x), np.array([1.0, 1.0]), x, x)
    check(lambda x, y: T.grad(T.maximum(x, y).sum(), y), np.array([0.0, 0.0]), x, x)


def test_a_branch_not_taken_turns_its_infinity_into_nan():
    x = np.array([0.0, 4.0])
    out = value(lambda x: T.grad(T.switch(x > 0, T.sqrt(x), 0.0).sum(), x), x)
    assert np.isnan(out[0]) and out[1] == 0.25


@pytest.mark.parametrize("f", [T.floor, T.ceil, T.round, T.sgn, lambda x: T.cast(x, "int32"),
                               lambda x: x < 1, T.argmax, lambda x: x // 2])
def test_steps_are_connected_with_a_zero_gradient(f):
    with config.change(floatX="float64"):
        check(lambda x: T.grad((f(x) * 2.0).sum(), x), np.zeros(2), np.array([1.5, 2.5]))


def test_the_gradient_of_an_integer_variable_is_a_float():
    check(lambda x: T.grad((x * 2.5).sum(), x), np.full(2, 2.5, "float32"), np.array([1, 2]))


def test_round_modes():
    x = np.array([-2.5, -0.5, 0.5, 1.5, 2.5])
    check(T.round, np.round(x), x)
    check(lambda x: T.round(x, "half_away_from_zero"), np.array([-3.0, -1, 1, 2, 3]), x)
    with pytest.raises(ValueError, match="mode is 'up'"):
        T.round(T.dvector(), mode="up")


def test_isclose():
    x, y = np.array([1.0, 2.0, np.inf, np.nan]), np.array([1.0 + 1e-9, 2.1, np.inf, np.nan])
    check(T.isclose, np.isclose(x, y), x, y)
    check(T.allclose, np.allclose(x, y), x, y)


def test_second_broadcasts_its_second_operand(rng):
    x = rng.normal(size=(2, 3))
    check(lambda x: T.fill(x, 2.0), np.full((2, 3), 2.0), x)


def test_sizes_that_differ_are_refused_with_names():
    x, y = np.ones(3), np.ones(1)
    with pytest.raises(ValueError, match="axis 0 of x0.*is 3, but of x1.*it is 1.*addbroadcast"):
        value(lambda x, y: x + y, x, y)


def test_negative_of_a_bool_is_refused():
    with pytest.raises(TypeError, match="neg does not take"):
        T.neg(leaf(np.array([True])))
