"""Scan: points 47 to 64."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad, scan, shared
from tinygraph.errors import MissingInputError
from tinygraph.updates import OrderedUpdates


def test_47_order_of_the_steps_arguments():
    x, y = T.dvector("x"), T.dvector("y")
    start = np.array([100.0, 200.0])

    def step(x0, x_before, y0, two_ago, one_ago, factor):
        return x0 + 10 * x_before + 1000 * two_ago - one_ago, y0 * factor

    (a, b), _ = scan(step, sequences=[{"input": x, "taps": [0, -1]}, y],
                     outputs_info=[{"initial": start, "taps": [-2, -1]}, None],
                     non_sequences=[T.constant(3.0)])
    got = function([x, y], [a, b])([1.0, 2.0, 4.0], [7.0, 8.0, 9.0])
    first = 2 + 10 * 1 + 1000 * 100 - 200
    np.testing.assert_array_equal(got[0], [first, 4 + 10 * 2 + 1000 * 200 - first])
    # x starts one entry late, y does not
    np.testing.assert_array_equal(got[1], [21, 24])
    swapped, _ = scan(lambda one_ago, two_ago: one_ago * 10 + two_ago,
                      outputs_info=[{"initial": start, "taps": [-1, -2]}], n_steps=1)
    assert function([], swapped)() == [2100]


def test_48_forms_of_the_result():
    x = T.dvector("x")
    one, updates = scan(lambda r: [r * 2], sequences=x)
    assert isinstance(one, T.TensorVariable) and isinstance(updates, OrderedUpdates)
    assert isinstance(tinygraph.scan_module.OrderedUpdates(), dict)
    listed, _ = scan(lambda r: r * 2, sequences=x, return_list=True)
    assert type(listed) is list and len(listed) == 1
    two, _ = scan(lambda r: (r, r * 2), sequences=x)
    assert type(two) is list and len(two) == 2


def test_49_what_a_step_returns():
    x, w = T.dvector("x"), shared(0.0, "w")
    for step in (lambda r: (r, {w: w + r}), lambda r: (r, [(w, w + r)]),
                 lambda r: ([r], {w: w + r})):
        out, updates = scan(step, sequences=x)
        assert list(updates) == [w]
        np.testing.assert_array_equal(function([x], out)([1.0, 2.0]), [1, 2])
    for step in (lambda r: {w: w + r}, lambda r: [(w, w + r)]):
        out, updates = scan(step, sequences=x)
        assert out is None and list(updates) == [w]
    with pytest.raises(ValueError, match="in this order"):
        scan(lambda r: ({w: w + r}, r), sequences=x)
    with pytest.raises(ValueError, match="not a variable"):
        scan(lambda r: np.float64(1), sequences=x)


def test_49_until_beside_outputs_and_updates():
    x, w = T.dvector("x"), shared(0.0, "w")
    out, updates = scan(lambda r: ([r], {w: w + 1}, tinygraph.scan_module.until(r > 1)),
                        sequences=x)
    f = function([x], out, updates=updates)
    np.testing.assert_array_equal(f([1.0, 2.0, 3.0]), [1, 2])
    assert w.get_value() == 2


def test_50_outputs_info():
    x, h0 = T.dvector("x"), T.dscalar("h0")
    for info in (h0, [h0], {"initial": h0}, [{"initial": h0, "taps": [-1]}],
                 [{"initial": h0, "taps": -1}]):
        out, _ = scan(lambda r, h: r + h, sequences=x, outputs_info=info)
        np.testing.assert_array_equal(function([x, h0], out)([1.0, 2.0], 10.0), [11, 13])
    for info in (None, [None], [{}]):
        out, _ = scan(lambda r: r + 1, sequences=x, outputs_info=info)
        np.testing.assert_array_equal(function([x], out)([1.0, 2.0]), [2, 3])
    for wrong in ([h0], [h0, None, None]):
        with pytest.raises(ValueError, match="outputs"):
            scan(lambda r, h: [r + h, r], sequences=x, outputs_info=wrong)
    with pytest.raises(ValueError, match="negative"):
        scan(lambda r, h: r + h, sequences=x, outputs_info=[{"initial": h0, "taps": [1]}])


def test_51_initial_values_of_earlier_taps():
    start = T.dvector("start")
    for taps, expected in (([-3, -1], [13, 33, 36]), ([-2], [20, 30, 20])):
        out, _ = scan(lambda *past: sum(past), n_steps=3,
                      outputs_info=[{"initial": start, "taps": taps}])
        values = np.array([10.0, 20.0, 3.0, 99.0] if len(taps) == 2 else [20.0, 30.0, 99.0])
        np.testing.assert_array_equal(function([start], out)(values), expected)
    scalar = T.dscalar("s")
    out, _ = scan(lambda h: h + 1, outputs_info=[{"initial": scalar, "taps": [-1]}], n_steps=2)
    np.testing.assert_array_equal(function([scalar], out)(0.0), [1, 2])


def test_52_taps_of_sequences():
    x, y = T.dvector("x"), T.dvector("y")
    out, _ = scan(lambda a, b, c: a + 10 * b + 100 * c,
                  sequences={"input": x, "taps": [-1, 0, 1]})
    np.testing.assert_array_equal(function([x], out)([1.0, 2.0, 3.0, 4.0, 5.0]), [321, 432, 543])
    out, _ = scan(lambda a: a, sequences={"input": x, "taps": -2})
    np.testing.assert_array_equal(function([x], out)([1.0, 2.0, 3.0, 4.0]), [1, 2])
    out, _ = scan(lambda a, b: a * b, sequences=[{"input": x, "taps": [1]}, y])
    np.testing.assert_array_equal(function([x, y], out)([1.0, 2.0, 3.0], [10.0, 20.0, 30.0]),
                                  [20, 60])


def test_53_the_number_of_steps():
    x, y, n = T.dvector("x"), T.dvector("y"), T.iscalar("n")
    out, _ = scan(lambda a, b: a + b, sequences=[x, y])
    assert function([x, y], out)([1.0, 2.0, 3.0], [1.0, 2.0]).shape == (2,)
    out, _ = scan(lambda a: a, sequences=x, n_steps=n)
    f = function([x, n], out)
    assert f([1.0, 2.0, 3.0], 2).shape == (2,)
    with pytest.raises(ValueError, match="3"):
        f([1.0, 2.0, 3.0], 4)
    with pytest.raises(ValueError, match="n_steps"):
        scan(lambda h: h, outputs_info=[T.dscalar()])
    with pytest.raises(TypeError):
        scan(lambda a: a, sequences=x, n_steps=T.dscalar("float_steps"))


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_53_zero_steps_give_an_empty_result(backend):
    n, h0 = T.iscalar("n"), T.dvector("h0")
    out, _ = scan(lambda h: h * 2, outputs_info=[h0], n_steps=n)
    f = function([n, h0], [out, out.sum()], backend=backend)
    assert f(0, [1.0, 2.0])[0].shape == (0, 2) and f(0, [1.0, 2.0])[1] == 0
    assert f(2, [1.0, 2.0])[0].shape == (2, 2)
    with pytest.raises((IndexError, ValueError), match="0"):
        function([n, h0], out[-1], backend=backend)(0, [1.0, 2.0])


def test_54_one_step_keeps_the_time_axis():
    h0, r = T.dvector("h0"), T.drow("r")
    out, _ = scan(lambda h: h * 2, outputs_info=[h0], n_steps=1)
    assert function([h0], out)([1.0, 2.0]).shape == (1, 2)
    out, _ = scan(lambda h: h * 2, outputs_info=[r], n_steps=T.iscalar())
    assert out.broadcastable == (False, True, False)


@pytest.mark.parametrize("initial", [
    T.constant(0), T.constant(0, dtype="int8"), T.fscalar("f"), T.dvector("v"),
    T.imatrix("m"), T.constant(np.float32(0))])
def test_55_state_and_output_have_one_type(initial):
    x = T.dvector("x")
    with pytest.raises(ValueError, match="the carry"):
        scan(lambda r, h: r + h.sum(), sequences=x, outputs_info=[initial])


def test_55_a_wider_state_is_not_narrowed():
    x = T.fvector("x")
    with pytest.raises(ValueError, match="float64.*float32"):
        scan(lambda r, h: T.cast(r + h, "float32"), sequences=x, outputs_info=[T.dscalar("h")])
    out, _ = scan(lambda r, h: r + h, sequences=T.dvector("y"), outputs_info=[T.constant(0.0)])
    assert out.dtype == "float64"


def test_56_a_state_of_known_size_1_whose_output_may_be_larger():
    r, m = T.drow("r"), T.dmatrix("m")
    with pytest.raises((TypeError, ValueError), match="1"):
        out, _ = scan(lambda h: h + m, outputs_info=[r], n_steps=2)
        function([r, m], out)(np.ones((1, 2)), np.ones((3, 2)))
    out, _ = scan(lambda h: h + m, outputs_info=[T.dot(T.ones((m.shape[0], 1)), r)], n_steps=2)
    assert function([r, m], out)(np.ones((1, 2)), np.ones((3, 2))).shape == (2, 3, 2)


def test_57_walking_backwards():
    x = T.dvector("x")
    out, _ = scan(lambda r, h: r + h, sequences=x, outputs_info=[T.constant(0.0)],
                  go_backwards=True)
    np.testing.assert_array_equal(function([x], out)([1.0, 2.0, 4.0]), [4, 6, 7])


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_58_until(backend):
    until = tinygraph.scan_module.until
    x, h0 = T.dvector("x"), T.dscalar("h0")
    out, _ = scan(lambda r, h: (h + r, until(h + r > 5)), sequences=x, outputs_info=[h0])
    f = function([x, h0], [out, *grad(out.sum(), [x, h0])], backend=backend)
    values, gx, gh = f([1.0, 2.0, 4.0, 8.0], 0.0)
    np.testing.assert_array_equal(values, [1, 3, 7])
    np.testing.assert_array_equal(gx, [3, 2, 1, 0])
    assert gh == 3
    assert f([1.0, 2.0], 0.0)[0].shape == (2,)
    bounded, _ = scan(lambda h: (h * 2, until(h > 100)), outputs_info=[h0], n_steps=3)
    assert function([h0], bounded, backend=backend)(1.0).shape == (3,)
    for wrong in (T.dvector("v") > 1, True):
        with pytest.raises((AssertionError, TypeError, ValueError)):
            scan(lambda h, wrong=wrong: (h * 2, until(wrong)), outputs_info=[h0], n_steps=3)


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
def test_59_truncated_gradients(backend):
    x, h0, w = T.dvector("x"), T.dscalar("h0"), T.dscalar("w")
    a = np.array([1.0, 2.0, 3.0, 4.0])

    def gradients(k):
        out, _ = scan(lambda r, h, w: w * h + r, sequences=x, outputs_info=[h0],
                      non_sequences=w, truncate_gradient=k)
        return function([x, h0, w], grad(out[-1], [x, h0, w]), backend=backend)(a, 1.0, 2.0)

    states = [1.0, 3.0, 8.0, 19.0]  # before each step
    gx, gh, gw = gradients(2)
    np.testing.assert_array_equal(gx, [0, 0, 2, 1])
    assert gh == 0 and gw == 2 * states[2] + states[3]
    for k in (-1, 4, 9):
        gx, gh, gw = gradients(k)
        np.testing.assert_array_equal(gx, [8, 4, 2, 1])
        assert gh == 16 and gw == 8 * 1 + 4 * 3 + 2 * 8 + 19


def test_59_truncated_gradients_of_the_steps_that_ran():
    until = tinygraph.scan_module.until
    x, h0 = T.dvector("x"), T.dscalar("h0")
    out, _ = scan(lambda r, h: (2 * h + r, until(r > 2)), sequences=x, outputs_info=[h0],
                  truncate_gradient=2)
    g = function([x, h0], grad(out[-1], [x, h0]))([1.0, 2.0, 3.0, 4.0], 1.0)
    np.testing.assert_array_equal(g[0], [0, 2, 1, 0])
    assert g[1] == 0


def test_60_the_gradient_of_a_sequence_covers_all_of_it():
    x = T.dvector("x")
    out, _ = scan(lambda r: r ** 2, sequences=x, n_steps=2)
    np.testing.assert_array_equal(function([x], grad(out.sum(), x))([1.0, 2.0, 3.0]), [2, 4, 0])
    out, _ = scan(lambda r, h: h + r, sequences=x, outputs_info=[T.constant(0.0)],
                  go_backwards=True)
    np.testing.assert_array_equal(
        function([x], grad(out.sum(), x), on_unused_input="ignore")([1.0, 2.0, 3.0]), [1, 2, 3])


def test_61_what_the_step_reads_from_outside():
    x, b, w = T.dvector("x"), T.dscalar("b"), shared(2.0, "w")
    out, _ = scan(lambda r: r * w + b * 3, sequences=x)
    value, gw, gb = function([x, b], [out, *grad(out.sum(), [w, b])])([1.0, 2.0], 1.0)
    np.testing.assert_array_equal(value, [5, 7])
    assert gw == 3 and gb == 6
    with pytest.raises(MissingInputError, match="w"):
        scan(lambda r: r * w, sequences=x, strict=True)
    scan(lambda r: r * w, sequences=x, non_sequences=[], strict=False)
    outer = b * 3
    for step, others in ((lambda r, _: r * w, [w]), (lambda r, _: r * outer, [outer])):
        out, _ = scan(step, sequences=x, non_sequences=others, strict=True)
        function([x, b], out.sum(), on_unused_input="ignore")([1.0, 2.0], 1.0)


def test_62_updates_go_from_step_to_step():
    w, v = shared(1.0, "w"), shared(1.0, "v")
    out, updates = scan(lambda: ([w * 1], {w: w * 2}), n_steps=3)
    assert list(updates) == [w]
    f = function([], out, updates=updates)
    np.testing.assert_array_equal(f(), [1, 2, 4])
    assert w.get_value() == 8
    out, _ = scan(lambda: ([v * 1], {v: v * 2}), n_steps=3)
    np.testing.assert_array_equal(function([], out)(), [1, 2, 4])
    assert v.get_value() == 1


def test_64_loops_in_loops_and_their_shorthands():
    m, x = T.dmatrix("m"), T.dvector("x")
    a = np.arange(6.0).reshape(2, 3)

    def row_sums(r):
        inner, _ = scan(lambda e, h: e + h, sequences=r, outputs_info=[T.constant(0.0)])
        return inner

    nested, _ = scan(row_sums, sequences=m)
    np.testing.assert_array_equal(function([m], nested)(a), np.cumsum(a, axis=1))
    again, _ = scan(lambda r: r.sum(), sequences=nested)
    np.testing.assert_array_equal(function([m], again)(a), np.cumsum(a, axis=1).sum(axis=1))
    out, _ = scan(lambda h: h + 1, sequences=[], outputs_info=[T.constant(0.0)], n_steps=2)
    np.testing.assert_array_equal(function([], out)(), [1, 2])
    out, _ = scan(lambda r: r * 2, sequences=np.arange(3.0))
    np.testing.assert_array_equal(function([], out)(), [0, 2, 4])
    mapped, _ = tinygraph.map(lambda r: r * 2, x)
    total, _ = tinygraph.reduce(lambda r, h: r + h, x, T.constant(0.0))
    left, _ = tinygraph.foldl(lambda r, h: 10 * h + r, x, T.constant(0.0))
    right, _ = tinygraph.foldr(lambda r, h: 10 * h + r, x, T.constant(0.0))
    got = function([x], [mapped, total, left, right])([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(got[0], [2, 4, 6])
    assert [float(v) for v in got[1:]] == [6, 123, 321]
    assert total.ndim == left.ndim == right.ndim == 0
