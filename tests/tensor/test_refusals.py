"""NumPy's functions of elements make expressions; Python's questions for a value are refused."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function
from tinygraph.tensor.variable import Tensor

A = np.array([1.0, 2.0, 4.0])


@pytest.fixture(autouse=True)
def settings():
    with config.change(floatX="float64", cache="off", backend="numpy"):
        yield


@pytest.mark.parametrize("op", [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
    operator.pow, operator.lt, operator.le, operator.gt, operator.ge, np.maximum, np.minimum,
    np.add, np.subtract, np.power], ids=lambda op: op.__name__)
@pytest.mark.parametrize("left", [A, np.float64(3.0)], ids=["array", "number"])
def test_arrays_on_the_left(op, left):
    x = T.vector("x")
    y = op(left, x)
    assert isinstance(y, Tensor)
    np.testing.assert_allclose(function([x], y)(A + 0.5), op(left, A + 0.5))
    np.testing.assert_allclose(function([x], op(x, left))(A + 0.5), op(A + 0.5, left))


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "floor", "absolute", "negative",
                                  "arctan", "log1p"])
def test_functions_of_elements(name):
    x = T.vector("x")
    y = getattr(np, name)(x)
    assert isinstance(y, Tensor)
    np.testing.assert_allclose(function([x], y)(A), getattr(np, name)(A))


def test_equality_is_identity():
    x = T.vector("x")
    assert operator.eq(A, x) is False and operator.ne(A, x) is True
    assert x in [1.0, x] and x not in [A, 2.0]


def test_matrix_product():
    m = T.matrix("m")
    np.testing.assert_allclose(function([m], np.eye(2) @ m)(np.ones((2, 2))), np.ones((2, 2)))


@pytest.mark.parametrize("act", [
    lambda x: np.hypot(x, 1.0), lambda x: np.add.reduce(x), lambda x: np.exp(x, out=A.copy()),
    float, int, operator.index, lambda x: [1, 2][x], lambda x: x(1), lambda x: range(x)],
    ids=["hypot", "reduce", "out", "float", "int", "index", "getitem", "call", "range"])
def test_refused(act):
    x = T.lscalar("the_x")
    with pytest.raises(TypeError, match=r"the_x \(int64 scalar, .*no(t| value)"):
        act(x)


def test_arrays_are_not_written_into():
    x, a = T.vector("x"), A.copy()
    with pytest.raises(TypeError, match="numpy.add cannot compute with the variable x"):
        a += x
    with pytest.raises(TypeError, match="T.set_subtensor"):
        x[0] = 1.0
