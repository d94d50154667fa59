"""Expressions are computed on test values as they are built."""

from __future__ import annotations

import inspect
import pickle
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import config, function, grad, scan, shared
from tinygraph.errors import ShapeError
from tinygraph.tensor.test_values import get_test_value

HERE = Path(__file__).name


@pytest.fixture(autouse=True)
def settings():
    with config.change(floatX="float64", cache="off", compute_test_value="raise"):
        yield


def variable(make, array, name):
    """A variable with a test value."""
    x = make(name)
    x.tag.test_value = array
    return x


def line_of(text):
    lines = inspect.getsource(sys.modules[__name__]).splitlines()
    (found,) = [k for k, line in enumerate(lines, 1) if text in line and "line_of" not in line]
    return found


def test_values_go_along():
    x = variable(T.matrix, np.arange(6.0).reshape(2, 3), "x")
    w = shared(np.ones((3, 4)), "w")
    y = T.tanh(T.dot(x, w) + 1) * x.shape[0]
    want = np.tanh(np.arange(6.0).reshape(2, 3) @ np.ones((3, 4)) + 1) * 2
    np.testing.assert_allclose(y.tag.test_value, want)
    np.testing.assert_allclose(get_test_value(y), want)
    assert x.shape[1].tag.test_value == 3
    filled = T.zeros((x.shape[0] * 2, x.shape[1])) + T.arange(x.shape[1])
    assert filled.tag.test_value.shape == (4, 3)
    assert y.mean(axis=0)[1:].T.reshape((-1, 1)).tag.test_value.shape == (3, 1)


def test_a_shape_that_does_not_fit_is_refused_on_the_users_line():
    x = variable(T.matrix, np.ones((5, 3)), "x")
    y = variable(T.matrix, np.ones((4, 2)), "y")
    with pytest.raises(ShapeError, match=r"x \(.*y \(|y \(.*x \(") as caught:
        T.dot(x, y)  # does not fit
    frames = [f.lineno for f in traceback.extract_tb(caught.tb) if Path(f.filename).name == HERE]
    assert frames[-1] == line_of("T.dot(x, y)  # does not fit")
    with pytest.raises(ShapeError, match="5.*4|4.*5"):
        x[:, :2] + y
    with pytest.raises(IndexError, match="x \\(float64 matrix"):
        x[variable(T.lscalar, 7, "k")]
    with pytest.raises((ShapeError, IndexError), match="x \\(float64 matrix"):
        x[7]


def test_the_step_of_a_scan_has_test_values():
    x = variable(T.matrix, np.ones((6, 3)), "x")
    u = variable(T.matrix, np.ones((4, 4)), "u")
    seen = []

    def step(row, h):
        seen.append((row.tag.test_value.shape, h.tag.test_value.shape))
        return T.tanh(T.dot(h, u) + row.sum())

    hs, _ = scan(step, x, T.zeros((4,)))
    assert seen == [((3,), (4,))] and hs.tag.test_value.shape == (6, 4)
    with pytest.raises(ShapeError) as caught:
        scan(lambda row, h: T.dot(row, u) + h, x, T.zeros((4,)))
    assert "row (float64 vector" in str(caught.value) and "u (float64 matrix" in str(caught.value)
    g = grad((hs[-1] ** 2).sum(), u)
    f = function([x, u], g)
    np.testing.assert_allclose(g.tag.test_value, f(np.ones((6, 3)), np.ones((4, 4))))


def test_where_a_test_value_is_missing():
    x = T.vector("x")
    with pytest.raises(AttributeError, match=rf"set .tag.test_value of x \(float64 vector.*{HERE}"):
        T.exp(x)
    with config.change(compute_test_value="warn"), pytest.warns(UserWarning, match="x \\(float64"):
        y = T.exp(x)
    with config.change(compute_test_value="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        y = T.exp(x)
        assert not hasattr(y.tag, "test_value")
    with pytest.raises(AttributeError, match="x \\(float64 vector"):
        get_test_value(y)
    x.tag.test_value = [0, 1]
    np.testing.assert_allclose(get_test_value(y), np.exp([0, 1]))
    assert get_test_value(3) == 3


def test_off_computes_nothing():
    with config.change(compute_test_value="off"):
        x = variable(T.vector, np.ones(3), "x")
        y = T.exp(x)
    assert not hasattr(y.tag, "test_value")
    assert config.compute_test_value == "raise"
    with pytest.raises(ValueError, match="compute_test_value"):
        config.compute_test_value = "sometimes"


@pytest.mark.parametrize(("value", "words"), [
    (np.ones((2, 2)), "2 axes"), (np.ones(2, complex), "complex128"), (["a"], "cannot hold")])
def test_a_test_value_that_does_not_fit(value, words):
    x = T.vector("x")
    with pytest.raises(TypeError, match=words) as caught:
        x.tag.test_value = value
    assert "test value of x (float64 vector" in str(caught.value)
    row = T.row("row")
    with pytest.raises(TypeError, match="axis 0"):
        row.tag.test_value = np.ones((2, 3))


def test_tags_are_for_notes_too_and_go_into_files():
    x = variable(T.vector, np.ones(3), "x")
    x.tag.note = "mine"
    y = pickle.loads(pickle.dumps(x))
    assert y.tag.note == "mine" and y.tag.test_value.shape == (3,)
    assert "note='mine'" in repr(x.tag)
    assert tinygraph.shared(1.0).tag is not None


def test_a_function_is_not_changed():
    x = variable(T.vector, np.ones(3), "x")
    f = function([x], T.switch(x > 0, T.log(x), 0).sum())
    assert f(np.ones(5)) == 0
