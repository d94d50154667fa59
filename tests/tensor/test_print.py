"""Print shows a value whenever a function computes it, and changes nothing else."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function, grad, scan, shared
from tinygraph.printing import Print


@pytest.fixture(autouse=True, params=["numpy", "loops", "llvm"])
def backend(request):
    with config.change(floatX="float64", cache="off", backend=request.param):
        yield


def test_the_value_is_shown_and_handed_on(capfd):
    x = T.vector("x")
    f = function([x], Print("twice")(x * 2) + 1)
    np.testing.assert_array_equal(f([1.0, 2.0]), [3, 5])
    assert capfd.readouterr().out == "twice __str__ = [2. 4.]\n"
    f([0.5])
    assert capfd.readouterr().out == "twice __str__ = [1.]\n"


def test_attributes(capfd):
    x = T.matrix("x")
    f = function([x], Print("x", attrs=("shape", "mean", "dtype"))(x).sum())
    f(np.ones((2, 3)))
    assert capfd.readouterr().out.splitlines() == ["x shape = (2, 3)", "x mean = 1.0",
                                                   "x dtype = float64"]
    with pytest.raises(AttributeError, match="'shap'"):
        Print("x", attrs=("shap",))


def test_every_step_of_a_scan(capfd):
    x, w = T.vector("x"), shared(np.array(2.0), "w")

    def step(v, h):
        return Print("h", attrs=("item",))(h + v * Print("w", attrs=("item",))(w))

    h, _ = scan(step, x, T.zeros(()))
    f = function([x], h)
    np.testing.assert_array_equal(f([1.0, 2.0]), [2, 6])
    out = capfd.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("h")] == ["h item = 2.0", "h item = 6.0"]
    assert out.count("w item = 2.0") == 2


def test_what_stands_outside_of_a_scan_is_shown_once(capfd):
    x, w = T.vector("x"), shared(np.array(2.0), "w")
    outside = Print("w", attrs=("item",))(w)
    h, _ = scan(lambda v: v * outside, x)
    np.testing.assert_array_equal(function([x], h)([1.0, 2.0, 3.0]), [2, 4, 6])
    assert capfd.readouterr().out.splitlines() == ["w item = 2.0"]


def test_the_gradient_passes_and_a_step_is_shown_once(capfd):
    x = T.vector("x")
    shown, _ = scan(lambda v, h: Print("h", attrs=("item",))(T.tanh(h + v)), x, T.zeros(()))
    plain, _ = scan(lambda v, h: T.tanh(h + v), x, T.zeros(()))
    data = np.array([0.1, 0.2, 0.3])
    want = function([x], grad(plain[-1], x))(data)
    np.testing.assert_allclose(function([x], [shown[-1], grad(shown[-1], x)])(data)[1], want)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == (3 if config.backend != "numpy" else 6)  # the interpreter joins no loops


def test_what_no_result_needs_is_not_shown(capfd):
    x = T.vector("x")
    Print("lost")(x)
    function([x], x + 1)([1.0])
    assert capfd.readouterr().out == ""


def test_another_way_to_show():
    x, seen = T.vector("x"), []
    shown = Print("x", global_fn=lambda printer, value: seen.append((printer.message, value)))(x)
    function([x], shown * 2)([1.0, 2.0])
    assert [(m, list(v)) for m, v in seen] == [("x", [1.0, 2.0])]


def test_numbers_and_equality():
    assert Print("a") == Print("a") != Print("b") and len({Print("a"), Print("a")}) == 1
    assert str(Print("a")) == "print{a}"
    assert Print("a")(T.constant(1.5)).eval() == 1.5
