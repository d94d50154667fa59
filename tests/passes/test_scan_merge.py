"""merge: independent scans over the same steps become one, where it pays."""

from __future__ import annotations

import models
import numpy as np
import pytest
from scan_cases import compiled, scans

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad, scan
from tinygraph.interpret import Sizes, evaluate
from tinygraph.passes.pipeline import PIPELINE
from tinygraph.passes.scan_merge import merge_where
from tinygraph.printing import equations


@pytest.fixture(autouse=True)
def no_cache():
    with tinygraph.config.change(cache="off", floatX="float64"):
        yield


def always(first, second):
    return True


ALWAYS = merge_where(always)
EAGER = [ALWAYS if p.name == "merge" else p for p in PIPELINE]


def decay(rate):
    return lambda row, h: T.tanh(row + rate * h)


def both_ways(x, h0):
    """A layer that walks forwards and one that walks backwards over the same sequence."""
    ahead, _ = scan(decay(0.5), x, h0)
    back, _ = scan(decay(0.25), x, h0, go_backwards=True)
    return ahead, back[::-1]


def steps(program):
    return len(scans(program.final))


def same(inputs, outputs, arrays, **options):
    want = function(inputs, outputs, backend="numpy")(*arrays)
    for backend in ("loops", "llvm"):
        got = function(inputs, outputs, backend=backend, **options)(*arrays)
        models.assert_close(got, want)


def test_the_merged_graph():
    x, h0 = T.matrix("x"), T.vector("h0")
    program = compiled([x, h0], both_ways(x, h0))
    before, after = program.alone("merge")
    assert len(scans(before)) == 2
    lines = equations(after).splitlines()
    places = [line.split("  at ")[0].rstrip() for line in lines]
    assert places == """\
x : float64[x_0, h0_0]
h0 : float64[h0_0]
%1 = slice{region=Region(starts=(-1 + x_0, 0), lengths=(x_0, h0_0), steps=(-1, 1))}(x) : float64[x_0, h0_0]
%2, %3, %4, %5 = scan{x_0 steps}(x, %1, h0, h0) : float64[h0_0], float64[h0_0], float64[x_0, h0_0], float64[x_0, h0_0]
    p0 : float64[h0_0]
    p1 : float64[h0_0]
    p2 : float64[h0_0]
    p3 : float64[h0_0]
    %6 = 0.5 : float64[]
    %7 = broadcast{dims=(h0_0,), axes=()}(%6) : float64[h0_0]
    %8 = mul(p2, %7) : float64[h0_0]
    %9 = add(p0, %8) : float64[h0_0]
    %10 = tanh(%9) : float64[h0_0]
    %11 = 0.25 : float64[]
    %12 = broadcast{dims=(h0_0,), axes=()}(%11) : float64[h0_0]
    %13 = mul(p3, %12) : float64[h0_0]
    %14 = add(p1, %13) : float64[h0_0]
    %15 = tanh(%14) : float64[h0_0]
    return %10, %15, %10, %15
%16 = slice{region=Region(starts=(-1 + x_0, 0), lengths=(x_0, h0_0), steps=(-1, 1))}(%5) : float64[x_0, h0_0]
return %4, %16""".splitlines()  # noqa: E501


@pytest.mark.parametrize("rows", [0, 1, 2, 7])
def test_values_of_merged_scans(rows):
    x, h0 = T.matrix("x"), T.vector("h0")
    outputs = list(both_ways(x, h0))
    arrays = [np.random.default_rng(rows).standard_normal((rows, 3)), np.ones(3)]
    same([x, h0], outputs, arrays)
    same([x, h0], outputs, arrays, passes="-merge")


def test_backward_loops_are_merged_too():
    x, h0 = T.matrix("x"), T.vector("h0")
    ahead, back = both_ways(x, h0)
    cost = ((ahead * back) ** 2).sum()
    outputs = [cost, *grad(cost, [x, h0])]
    assert steps(compiled([x, h0], outputs)) == 2
    assert steps(compiled([x, h0], outputs, "-merge")) == 4
    same([x, h0], outputs, [np.random.default_rng(0).standard_normal((5, 3)), np.ones(3)])


def test_three_scans_become_one():
    x, h0 = T.matrix("x"), T.vector("h0")
    outputs = [scan(decay(rate), x, h0)[0] for rate in (0.1, 0.2, 0.3)]
    (node,) = scans(compiled([x, h0], outputs).final)
    assert node.op.groups.seqs == 1 and node.op.groups.carries == 3
    same([x, h0], outputs, [np.random.default_rng(0).standard_normal((5, 3)), np.ones(3)])


def layers(between):
    """Two scans, and what the second reads of the first."""
    x, h0 = T.matrix("x"), T.vector("h0")
    first, _ = scan(decay(0.5), x, h0)
    second, _ = scan(decay(0.25), *between(x, h0, first))
    return [x, h0], [first, second]


DEPENDENT = {
    "sequence": lambda x, h0, first: (first, h0),
    "state": lambda x, h0, first: (x, first[-1]),
    "through nodes": lambda x, h0, first: (x + T.exp(first.sum()), h0),
    "steps": lambda x, h0, first: (x[:3], h0),
    "size": lambda x, h0, first: (T.concatenate([x, x], axis=1), T.concatenate([h0, h0])),
}


@pytest.mark.parametrize("case", DEPENDENT)
def test_scans_that_stay_apart(case):
    inputs, outputs = layers(DEPENDENT[case])
    assert steps(compiled(inputs, outputs)) == 2
    arrays = [np.random.default_rng(0).standard_normal((5, 3)), np.ones(3)]
    same(inputs, outputs, arrays)
    if case != "size":
        assert steps(compiled(inputs, outputs, EAGER)) == 2
        same(inputs, outputs, arrays, passes=EAGER)


def test_a_scan_behind_a_merged_one_is_not_merged_with_it():
    """a and b are independent, c reads a: with a and b merged, c must stay behind both."""
    x, h0 = T.matrix("x"), T.vector("h0")
    a, _ = scan(decay(0.5), x, h0)
    b, _ = scan(decay(0.25), x, h0)
    c, _ = scan(decay(0.125), a, h0)
    d, _ = scan(decay(0.75), b, h0)
    outputs = [a, b, c, d]
    assert steps(compiled([x, h0], outputs)) == 2
    same([x, h0], outputs, [np.random.default_rng(0).standard_normal((4, 3)), np.ones(3)])


def test_scans_with_products_are_merged_only_on_demand():
    ahead, back = models.lstm(hidden=4), models.lstm(backwards=True, hidden=4, seed=1)
    cost = ((ahead.states[0] + back.states[0][::-1]) ** 2).mean()
    cost = tinygraph.clone(cost, {back.inputs[0]: ahead.inputs[0]})
    outputs = [cost, *grad(cost, ahead.params + back.params)]
    assert steps(compiled(ahead.inputs, outputs)) == 4
    assert steps(compiled(ahead.inputs, outputs, EAGER)) == 2
    arrays = ahead.batch(3, 4)
    same(ahead.inputs, outputs, arrays, passes=EAGER)


def test_requests_and_budgets_are_not_merged():
    x, h0 = T.matrix("x"), T.vector("h0")
    ahead, back = both_ways(x, h0)
    outputs = grad(((ahead * back) ** 2).sum(), [x, h0])
    program = compiled([x, h0], outputs, passes=[ALWAYS])
    graph = program.final
    lazy = [n for n in scans(graph) if n.op.lazy]
    assert len(lazy) == 2  # what the gradient asks of each forward scan
    limited, _ = scan(decay(0.5), x, h0, memory=1000)
    free, _ = scan(decay(0.25), x, h0)
    assert steps(compiled([x, h0], [limited, free])) == 2


def test_it_is_settled_after_one_run():
    x, h0 = T.matrix("x"), T.vector("h0")
    program = compiled([x, h0], both_ways(x, h0))
    _, graph = program.alone("merge")
    assert program.again("merge", graph).outputs == graph.outputs
    arrays = dict(zip(graph.inputs, [np.ones((3, 2)), np.ones(2)], strict=True))
    models.assert_close(evaluate(graph.outputs, arrays, Sizes()),
                        function([x, h0], list(both_ways(x, h0)), backend="numpy")(
                            np.ones((3, 2)), np.ones(2)))
