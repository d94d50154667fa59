"""count: carries that count become formulas over the number of the step."""

from __future__ import annotations

import numpy as np
import pytest
from scan_cases import compiled, scans

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad, scan, shared
from tinygraph.printing import equations
from tinygraph.tensor.shared_randomstreams import RandomStreams


def carries(graph) -> list[int]:
    return [node.op.groups.carries for node in scans(graph)]


def test_a_counter_is_a_formula():
    c, k, n = T.lvector("c"), T.lvector("k"), T.lscalar("n")
    (last, rows), _ = scan(lambda s: [s + k, s * s], n_steps=n, outputs_info=[c, None])
    program = compiled([c, k, n], [last[-1], rows])
    before, after = program.alone("count")
    assert carries(before) == [1] and carries(after) == [0]
    lines = [line.split("  at ")[0] for line in equations(after).splitlines()]
    body = [line.strip() for line in lines if line.startswith("    ")]
    assert [line.split("(")[0].split(" = ")[-1] for line in body if " = " in line] == [
        "broadcast{dims=", "mul", "add", "add", "mul"]
    assert program.again("count", after).outputs == after.outputs
    arrays = np.array([5, -3]), np.array([2, 7]), 4
    for passes in (None, "-count", "none", "count"):
        got = function([c, k, n], [last[-1], rows], passes=passes, backend="loops")(*arrays)
        np.testing.assert_array_equal(got[0], [13, 25])
        np.testing.assert_array_equal(got[1], (np.array([5, -3]) + np.arange(4)[:, None]
                                               * np.array([2, 7])) ** 2)


def test_a_counter_in_a_nested_loop_starts_where_the_outer_step_says():
    def outer(row, total):
        (_, seen), _ = scan(lambda i: [i + 1, i * row], n_steps=3, outputs_info=[total, None])
        return total + 3, seen

    x = T.lvector("x")
    (_, seen), _ = scan(outer, x, [T.constant(10, dtype="int64"), None])
    expected = np.array([[10, 11, 12], [26, 28, 30], [48, 51, 54]])
    for passes in (None, "-count"):
        np.testing.assert_array_equal(
            function([x], seen, passes=passes, backend="loops")([1, 2, 3]), expected)


def test_what_does_not_count_stays():
    x, f = T.lvector("x"), T.dscalar("f")
    (a, b, c), _ = scan(lambda row, s, t, u: [s + row, t + 0.5, u + u], x,
                        [T.constant(0, dtype="int64"), f, T.constant(1, dtype="int64")])
    program = compiled([x, f], [a, b, c])
    assert carries(program.alone("count")[1]) == [3]


def test_zero_steps_leave_the_state_as_it_was():
    n = T.lscalar("n")
    w = shared(np.array([1, 5]), "w")
    w.default_update = w + np.array([0, 1])
    out, updates = scan(lambda z: z + w.sum(), n_steps=n, outputs_info=T.constant(0, dtype="int64"))
    f = function([n], out, updates=updates)
    assert f(0).shape == (0,)
    np.testing.assert_array_equal(w.get_value(), [1, 5])
    np.testing.assert_array_equal(f(3), [6, 13, 21])
    np.testing.assert_array_equal(w.get_value(), [1, 8])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_loop_that_draws_is_shared_by_tiles(threads):
    streams = RandomStreams(5)
    x, w = T.ftensor3("x"), T.fmatrix("w")

    def step(row, h):
        new = T.tanh(row + T.dot(h, w))
        return new * streams.binomial(new.shape, p=0.8, dtype="float32")

    h, _ = scan(step, x, T.zeros_like(x[0]))
    outputs = [h, grad((h ** 2).sum(), w)]
    f = function([x, w], outputs, no_default_updates=True)
    assert "tile" in f.source("loops")
    assert [loop.step.nests for loop in f.report().loops] == [1, 1]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(0, 0.1, s).astype("float32") for s in ((6, 300, 64), (64, 64))]
    with tinygraph.config.change(threads=threads):
        got = f(*arrays)
    want = function([x, w], outputs, no_default_updates=True, backend="numpy")(*arrays)
    np.testing.assert_array_equal(got[0] == 0, want[0] == 0)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-4, atol=1e-3)
