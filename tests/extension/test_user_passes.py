"""Rewrites that users write: for one function, for all, and in the words of Theano."""

from __future__ import annotations

import contextlib
import runpy
import threading
from pathlib import Path

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import gof
from tinygraph.errors import InternalError
from tinygraph.passes.pipeline import PIPELINE, select
from tinygraph.rewrite import graph_pass, plus, rule, rule_pass
from tinygraph.rewrite.pattern import pair

pytestmark = pytest.mark.counts
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def float64():
    with tinygraph.config.change(floatX="float64"):
        yield


@pytest.fixture
def clean():
    """No rewrite that a test registers stays."""
    before = set(tinygraph.config.rewrites)
    yield
    for name in set(tinygraph.config.rewrites) - before:
        tinygraph.config.rewrites.remove(name)


@rule("div")
def one_division(node, context):
    """(x / y) / z --> x / (y * z)"""
    x, z = node.inputs
    inner = pair(x, "div")
    return None if inner is None else inner[0] / (inner[1] * z)


def chain():
    x, y = T.vector("x"), T.vector("y")
    return [x, y], x / y / (y + 1) / 3


def divisions(f):
    return f.source().count("div(")


# --- one function -----------------------------------------------------------------------------


def test_a_rule_joins_one_function():
    inputs, out = chain()
    a, b = np.array([6.0, 8.0]), np.array([1.0, 3.0])
    plain = tinygraph.function(inputs, out)
    mine = tinygraph.function(inputs, out, passes=one_division)
    assert (divisions(plain), divisions(mine)) == (3, 1)
    np.testing.assert_allclose(mine(a, b), plain(a, b), rtol=1e-14)
    assert divisions(tinygraph.function(inputs, out)) == 3


def test_a_rule_reaches_the_bodies_of_loops_and_gradients():
    x = T.vector("x")
    hs, _ = tinygraph.scan(lambda h: h / (h + 2) / (x * x + 1) + 1, outputs_info=x, n_steps=3)
    outputs = [hs[-1], tinygraph.grad(hs.sum(), x)]
    plain = tinygraph.function([x], outputs)
    mine = tinygraph.function([x], outputs, passes=plus(one_division, before="end"))
    assert divisions(mine) < divisions(plain)
    for a, b in zip(mine(np.linspace(0, 1, 4)), plain(np.linspace(0, 1, 4)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_passes_stand_where_they_are_told_to():
    p = graph_pass("mine", lambda graph, context: graph)
    names = [q.name for q in PIPELINE]
    first = names.index("canonical")
    assert [q.name for q in select(p)] == [*names[:first], "mine", *names[first:]]
    assert [q.name for q in select(plus(p, before="end"))] == [*names, "mine"]
    assert [q.name for q in select(plus(p, before="saved"))].index("mine") == names.index("saved")
    assert [q.name for q in select(plus(p, one_division, passes="none"))] == [
        "mine", "one_division"]
    assert "fold" not in [q.name for q in select(plus(p, passes="-fold"))]
    assert [q.name for q in select(["fold", p, one_division])] == ["fold", "mine", "one_division"]


def test_a_pass_sees_the_graph_and_the_function_can_be_looked_at_after_it():
    sizes = []

    def measure(graph, context):
        """graph --> graph"""
        sizes.append(graph.size)
        return graph

    inputs, out = chain()
    f = tinygraph.function(inputs, out, passes=plus(
        graph_pass("measure", measure), rule_pass("divide", "fewer divisions", (one_division,))))
    assert len(sizes) == 1 and sizes[0] > 3
    assert f.after("measure").count("div(") == 3 and f.after("divide").count("div(") == 1


def test_mistakes_are_named():
    inputs, out = chain()
    with pytest.raises(TypeError, match="neither a rule nor a pass; write @rule"):
        plus(lambda node, context: None)
    with pytest.raises(ValueError, match="no pass 'nowhere'; the passes are drop_gradient_nodes"):
        tinygraph.function(inputs, out, passes=plus(one_division, before="nowhere"))

    @rule("div")
    def wrong(node, context):
        """x / y --> a scalar"""
        return T.sum(node.inputs[0])

    x = T.vector("x")
    with pytest.raises(InternalError, match=r"wrong replaced .* of type float64\[x_0\]"):
        tinygraph.function([x], T.tanh(x / x.sum()), passes=wrong)


# --- all functions ----------------------------------------------------------------------------


def test_a_rule_joins_every_function_inside_a_block():
    inputs, out = chain()
    with tinygraph.config.rewrites.adding(mine=one_division):
        assert divisions(tinygraph.function(inputs, out)) == 1
        assert divisions(tinygraph.function(inputs, out, passes="-mine")) == 3
        assert divisions(tinygraph.function(inputs, out, passes="-fold")) == 1
        other = []
        thread = threading.Thread(
            target=lambda: other.append(divisions(tinygraph.function(inputs, out))))
        thread.start()
        thread.join()
        assert other == [3]
        with pytest.raises(ValueError, match="there is a rewrite 'mine' already"):
            tinygraph.config.rewrites.add("mine", one_division)
    assert divisions(tinygraph.function(inputs, out)) == 3


def test_a_rule_joins_every_function_until_it_is_removed(clean):
    inputs, out = chain()
    rewrites = tinygraph.config.rewrites
    rewrites.add("mine", one_division)
    assert "mine" in rewrites and divisions(tinygraph.function(inputs, out)) == 1
    rewrites.remove("mine")
    assert divisions(tinygraph.function(inputs, out)) == 3
    with pytest.raises(KeyError):
        rewrites.remove("mine")


def test_a_rule_of_ones_own_keeps_functions_off_the_disk(tmp_path):
    inputs, out = chain()
    with tinygraph.config.change(cache="on", cache_dir=str(tmp_path)):
        tinygraph.function(inputs, out, passes=one_division)
        assert not list(tmp_path.glob("*.entry"))


# --- as programs for Theano do it -------------------------------------------------------------


class Clip(tinygraph.compile.ViewOp):
    """The gradient that passes is clipped."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    def grad(self, inputs, output_gradients):
        return [T.clip(g, self.low, self.high) for g in output_gradients]


def clipped(x, bound):
    op = Clip(-bound, bound)
    with contextlib.suppress(ValueError):
        T.opt.register_canonicalize(gof.OpRemove(op), name=f"clip_{bound}")
    return op(x)


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_a_view_with_its_own_gradient(clean, backend):
    x = T.vector("x")
    y = clipped(clipped(x * x, 2.0) * 5, 1.0)
    f = tinygraph.function([x], [y, tinygraph.grad(y.sum(), x)], backend=backend)
    value, slope = f(np.array([1.0, -3.0]))
    np.testing.assert_array_equal(value, [5, 45])
    np.testing.assert_array_equal(slope, [4, -12])
    assert list(tinygraph.config.rewrites) == ["clip_2.0", "clip_1.0"]


def test_a_view_costs_nothing_in_a_loop_and_can_be_kept_on_disk(clean, tmp_path):
    x, w = T.tensor3("x"), T.matrix("w")

    def build(clip):
        hs, _ = tinygraph.scan(lambda x_t, h: clip(T.tanh(x_t + T.dot(h, w))), sequences=x,
                               outputs_info=T.zeros((3, 2)))
        return tinygraph.function([x, w], [hs, tinygraph.grad((hs ** 2).sum(), w)])

    ours = build(lambda v: tinygraph.grad_clip(v, -0.1, 0.1))
    with tinygraph.config.change(cache="on", cache_dir=str(tmp_path)):
        theirs = build(lambda v: clipped(v, 0.1))
        assert build(lambda v: clipped(v, 0.1)).report().cached
    assert theirs.source("loops") == ours.source("loops")
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(5, 3, 2)), rng.normal(size=(2, 2))
    for a, b in zip(theirs(*arrays), ours(*arrays), strict=True):
        np.testing.assert_array_equal(a, b)


class Noisy(gof.Op):
    """Gives its input, slowly."""

    __props__ = ("name",)

    def __init__(self, name):
        self.name, self.calls = name, 0

    def infer(self, x):
        return x.type

    def perform(self, node, inputs, output_storage):
        self.calls += 1
        output_storage[0][0] = inputs[0]


def test_op_remove_takes_one_op_away(clean):
    x = T.vector("x")
    first, second = Noisy("first"), Noisy("second")
    T.opt.register_canonicalize(gof.OpRemove(Noisy("first")))
    with pytest.raises(ValueError, match="already"):
        T.opt.register_canonicalize(gof.OpRemove(Noisy("first")))
    f = tinygraph.function([x], second(first(x) + 1))
    np.testing.assert_array_equal(f(np.ones(2)), [2, 2])
    assert (first.calls, second.calls) == (0, 1)


def test_op_remove_leaves_the_disk_to_functions_without_such_ops(clean, tmp_path):
    T.opt.register_canonicalize(gof.OpRemove(Noisy("first")), "fast_run", name="first")
    x = T.vector("x")
    with tinygraph.config.change(cache="on", cache_dir=str(tmp_path)):
        tinygraph.function([x], x * 2)
        assert tinygraph.function([x], x * 2).report().cached


def test_the_example_runs(capsys):
    with tinygraph.config.change(floatX="float32"):
        runpy.run_path(str(EXAMPLES / "write_a_pass.py"), run_name="__main__")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "divisions: 3 --> 1" and shown[2] == "everywhere: 1"
    assert shown[3] == "products before the compiler moves them: 2"
