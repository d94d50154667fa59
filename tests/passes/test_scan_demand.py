"""zeros and demand: steps that nobody reads, and steps of zeros, are not taken."""

from __future__ import annotations

import models
import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph.gradient import grad_clip


@pytest.fixture(autouse=True)
def no_cache():
    with tinygraph.config.change(cache="off", floatX="float64"):
        yield


def steps(f):
    """The number of steps of every loop, as the report prints it."""
    return [loop.title.split(": ")[1] for loop in f.report().loops]


def recurrent(x, w, h0, **options):
    states, _ = tinygraph.scan(lambda row, h: T.tanh(grad_clip(T.dot(h, w), -9, 9) + row),
                               sequences=x, outputs_info=h0, **options)
    return states


def test_a_loop_takes_the_steps_that_are_read():
    x, h0 = T.matrix("x"), T.vector("h0")
    w = tinygraph.shared(np.random.default_rng(0).normal(size=(3, 3)), name="w")
    states = recurrent(x, w, h0)
    out = [states[0], states[2] * 2]
    f = tinygraph.function([x, h0], out, backend="loops")
    assert steps(f) == ["3 steps"]
    whole = tinygraph.function([x, h0], out, backend="numpy")
    data = np.random.default_rng(1).normal(size=(6, 3)), np.ones(3)
    for a, b in zip(f(*data), whole(*data), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    with pytest.raises(IndexError, match="index 2"):
        f(data[0][:2], data[1])


@pytest.mark.parametrize("reader", ["final", "whole", "symbolic"])
def test_a_loop_of_which_more_is_read_takes_all_its_steps(reader):
    x, h0, k = T.matrix("x"), T.vector("h0"), T.iscalar("k")
    w = tinygraph.shared(np.eye(3), name="w")
    states = recurrent(x, w, h0)
    more = {"final": states[-1], "whole": states.sum(), "symbolic": states[k]}[reader]
    f = tinygraph.function([x, h0, k], [states[0], more], backend="loops",
                           on_unused_input="ignore")
    assert steps(f) == ["x_0 steps"]


def test_the_gradient_of_the_first_row_takes_one_step_each_way():
    x, h0 = T.matrix("x"), T.vector("h0")
    w = tinygraph.shared(np.random.default_rng(0).normal(size=(3, 3)), name="w")
    cost = (recurrent(x, w, h0, go_backwards=True)[0] ** 2).sum()
    out = [cost, *tinygraph.grad(cost, [w, h0, x])]
    f = tinygraph.function([x, h0], out, backend="loops")
    assert steps(f) == ["1 steps", "1 steps"]
    data = np.random.default_rng(1).normal(size=(5, 3)), np.ones(3)
    expected = tinygraph.function([x, h0], out, backend="numpy")(*data)
    for a, b in zip(f(*data), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("off", ["-zeros", "-demand", "-narrow"])
def test_values_do_not_depend_on_the_passes(off):
    model = models.lstm("separate", mask=True, peepholes=True, backwards=True)
    data = model.batch(3, 4)
    expected = model.gradients(backend="loops")(*data)
    models.assert_close(model.gradients(backend="loops", passes=off)(*data), expected)


def test_a_step_that_makes_something_of_zeros_is_taken():
    """cos(0) is 1: the first steps matter though what enters them is zero."""
    g, h0 = T.vector("g"), T.zeros((2,))
    late = T.inc_subtensor(T.zeros((5, 2))[4], g)
    states, _ = tinygraph.scan(lambda row, h: T.cos(h) + row, sequences=late, outputs_info=h0)
    f = tinygraph.function([g], states[-1], backend="loops")
    assert steps(f) == ["5 steps"]
    expected = tinygraph.function([g], states[-1], backend="numpy")([1.0, 2.0])
    np.testing.assert_allclose(f([1.0, 2.0]), expected, rtol=1e-12)
    linear, _ = tinygraph.scan(lambda row, h: T.sin(h) * 2 + row, sequences=late, outputs_info=h0)
    skipping = tinygraph.function([g], linear[-1], backend="loops", passes="-zeros")
    assert steps(skipping) == ["5 steps"]
