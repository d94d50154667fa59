"""nan_guard names the operation that made the first bad number, and nothing else."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function, grad, scan, shared
from tinygraph.errors import NotFiniteError

HERE = Path(__file__).name


@pytest.fixture(autouse=True, params=["numpy", "loops", "llvm"])
def backend(request):
    with config.change(floatX="float64", backend=request.param, cache="off"):
        yield request.param


def line_of(text):
    """file:line of the line of this file that holds ``text`` (and is not the question)."""
    lines = inspect.getsource(sys.modules[__name__]).splitlines()
    (found,) = [k for k, line in enumerate(lines, 1) if text in line and "line_of" not in line]
    return f"{HERE}:{found}"


def message(f, *args):
    """What the call says that is refused by the guard."""
    with pytest.raises(NotFiniteError) as caught:
        f(*args)
    return str(caught.value)


def test_the_operation_its_operands_and_the_input():
    x, w = T.vector("x"), shared(np.array(2.0), "w")
    logs = T.log(x)  # nan below zero
    logs.name = "logs"
    f = function([x], (logs * w).sum(), updates=[(w, w + 1)], nan_guard=True, name="guarded")
    assert f([1.0, 1.0]) == 0
    text = message(f, [1.0, -3.0])
    for word in ("guarded: output 0", "holds 1 nan", "first nan is made by log(x)", "'logs'",
                 line_of("# nan below zero"), "x (float64 vector", "shape (2,), from -3.0 to 1.0"):
        assert word in text, text
    assert w.get_value() == 3  # one call was good
    text = message(f, [1.0, np.nan])
    assert "The input x" in text and "already when the call began" in text and "(1,)" in text
    w.set_value(np.inf)
    assert "The shared variable w" in message(f, [1.0, 2.0])


def test_updates_are_guarded_too():
    x, w = T.scalar("x"), shared(np.array(1.0), "w")
    f = function([x], x, updates=[(w, w / x)], nan_guard="inf")
    f(2.0)
    text = message(f, 0.0)
    assert "the update of w" in text and "holds 1 inf" in text and "0.5" in text
    assert w.get_value() == 0.5


@pytest.mark.parametrize(("kind", "values", "refused"), [
    ("nan", -1.0, True), ("nan", 0.0, False), ("inf", -1.0, False), ("inf", 0.0, True),
    (True, 0.0, True), (True, -1.0, True), (False, -1.0, False), ("off", 0.0, False)])
def test_which_numbers_are_refused(kind, values, refused):
    x = T.scalar("x")
    f = function([x], T.log(x), nan_guard=kind)
    if refused:
        message(f, values)
    else:
        assert not np.isfinite(f(values))


def test_the_setting():
    x = T.scalar("x")
    with config.change(nan_guard="both"):
        f, g = function([x], T.log(x)), function([x], T.log(x), nan_guard=False)
    message(f, 0.0)
    assert g(0.0) == -np.inf
    with pytest.raises(ValueError, match="nan_guard is 'sometimes'"):
        function([x], x, nan_guard="sometimes")


def test_what_is_masked_out_is_no_alarm():
    x = T.vector("x")
    logs = T.log(x)  # masked
    kept = T.switch(x > 0, logs, 0)
    assert function([x], [kept, logs.shape[0]], nan_guard=True)([1.0, -1.0])[0].sum() == 0
    f = function([x], kept, nan_guard="inside")
    assert f([1.0, 1.0]).sum() == 0
    assert line_of("# masked") in message(f, [1.0, -1.0])


def test_of_two_bad_values_the_one_that_reached_the_result_is_named():
    x = T.vector("x")
    masked = T.switch(x > -10, 0, T.sqrt(x))
    guilty = T.log(x)  # guilty
    mixed = T.switch(x > 5, T.sqrt(x - 100), guilty + masked)
    f = function([x], mixed[::-1].reshape((2, -1)).T.sum(), nan_guard="nan")
    assert line_of("# guilty") in message(f, [1.0, -1.0, 2.0, 3.0])


def test_the_infinity_behind_a_nan_is_named_too():
    x, y = T.scalar("x"), T.scalar("y")
    large = T.exp(x)  # overflow
    f = function([x, y], large * y, nan_guard="nan")
    text = message(f, 1000.0, 0.0)
    assert "first nan is made by mul(..., y)" in text and "1 inf" in text
    assert "The first inf is made by exp(x)" in text and line_of("# overflow") in text


def rooted(r, h):
    root = T.sqrt(r)  # in the step
    return h + root


def test_the_step_of_a_scan():
    x, w = T.vector("x"), shared(np.array(0.0), "w")
    h, _ = scan(rooted, x, w * 1.0)
    f = function([x], h[-1], updates=[(w, w + 1)], nan_guard=True)
    assert f([1.0, 4.0, 9.0]) == 6
    text = message(f, [1.0, 4.0, -9.0, 1.0, -1.0])
    assert "in step 2 (of 5) of the scan" in text and line_of("# in the step") in text
    assert "r (float64 scalar" in text and "-9.0" in text
    assert w.get_value() == 1
    stacked = function([x], h, nan_guard="nan")
    assert "in step 1 (of 3)" in message(stacked, [1.0, -4.0, 9.0])


def test_a_bad_initial_state_is_an_input():
    x, start = T.vector("x"), T.scalar("start")
    h, _ = scan(lambda r, h: 0.5 * h + r, x, start)
    f = function([x, start], h[-1], nan_guard=True)
    assert "The input start" in message(f, [1.0, 2.0], np.nan)
    assert "The input x" in message(f, [1.0, np.nan], 0.0)


def test_a_masked_step_of_a_scan_is_no_cause():
    x, m = T.vector("x"), T.vector("m")

    def step(r, on, h, other):
        new = T.log(r)  # seldom used
        return T.switch(on > 0, new, h), other + T.sqrt(r)

    (h, other), _ = scan(step, [x, m], [T.zeros(()), T.zeros(())])
    f = function([x, m], h[-1], nan_guard="nan")
    assert f([-1.0, 1.0], [0.0, 1.0]) == 0
    text = message(f, [-1.0, 1.0, -2.0, -3.0], [0.0, 1.0, 1.0, 0.0])
    assert "step 2 (of 4)" in text and line_of("# seldom used") in text


def test_nested_scans():
    x = T.matrix("x")
    outer, _ = scan(lambda row, s: scan(rooted, row, s)[0][-1], x, T.zeros(()))
    f = function([x], outer, nan_guard=True)
    text = message(f, [[1.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    assert re.search(r"in step 2 \(of 3\) of the scan.*, in step 1 \(of 2\) of the scan", text)
    assert line_of("# in the step") in text


def test_in_the_gradient():
    x = T.vector("x")
    h, _ = scan(rooted, x, T.zeros(()))
    f = function([x], [h[-1], grad(h[-1], x)], nan_guard=True)
    f([1.0, 2.0])
    text = message(f, [1.0, 0.0, 4.0])
    assert "grad(cost, x)" in text and "first inf is made by div" in text
    assert "step 1 (of 3) of scan 'backwards'" in text
    assert "walks from the last step to the first" in text
    assert line_of("# in the step") in text  # the gradient belongs to the line of what it is of
    root = T.sqrt(x.sum())
    g = function([x], grad(root, x), nan_guard=True)
    assert "first inf is made by div" in message(g, [0.0])


def test_integers_and_empty_arrays_are_never_bad():
    n, x = T.lvector("n"), T.matrix("x")
    f = function([n, x], [n + 1, x * 2, x.argmax(axis=1)], nan_guard=True)
    assert f([1], np.ones((1, 2)))[0] == 2
    f(np.array([2**60]), np.zeros((0, 3)))


def test_where_the_interpreter_sees_nothing_wrong():
    """Compiled code counts denormal numbers as zero."""
    with config.change(backend="llvm"):
        x = T.fscalar("x")
        f = function([x], T.log(x), nan_guard=True)
    text = message(f, np.float32(1e-40))
    assert "holds 1 inf" in text and "denormal" in text
