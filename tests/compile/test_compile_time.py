"""Compile time, by counted work: what the compiler does grows as the graph does, a program that was
built before closes no graph, and a module falls apart into modules that make it up again."""

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph.backends.llvm import jit, parts
from tinygraph.backends.llvm.emit import Emitter
from tinygraph.compile import build as building
from tinygraph.compile.build import Compilation
from tinygraph.dims import Sym, dim
from tinygraph.errors import ShapeError
from tinygraph.interning import Interner
from tinygraph.lowering import region, workspace
from tinygraph.lowering.nest import Nest
from tinygraph.lowering.vector_math import expand_math
from tinygraph.passes.pipeline import PIPELINE
from tinygraph.passes.tail import cut_tail
from tinygraph.rewrite.engine import _Rewriter


def mixed(n):
    rng = np.random.default_rng(0)
    x, w, u = T.matrices("x", "w", "u")
    values = [T.tanh(T.dot(x, w))]
    while len(values) < n:
        a, b = (values[-1 - int(rng.integers(0, min(8, len(values))))] for _ in range(2))
        values.append((a + b, T.tanh(a), a * b, T.dot(a, u), a - b.sum(axis=0))[len(values) % 5])
    return [x, w, u], sum(v.mean() for v in values[-8:])


def chain(n):
    x = T.matrix("x")
    v = x
    for k in range(n):
        v = T.tanh(v) if k % 2 else v * 1.01
    return [x], v.sum()


def wide(n):
    x = T.matrix("x")
    return [x], sum(T.tanh(x * (1.0 + k)).sum() for k in range(n // 3))


def layers(n):
    x = T.matrix("x")
    weights, v = [T.matrix(f"w{k}") for k in range(n // 4)], x
    for w in weights:
        v = T.tanh(T.dot(v, w))
    return [x, *weights], v.sum()


def states(n):
    x, starts = T.tensor3("x"), [T.matrix(f"h{i}") for i in range(n)]

    def step(x_t, *h):
        return [T.tanh(x_t * (0.1 * i + 1) + v * 0.5) for i, v in enumerate(h)]

    outs, _ = tinygraph.scan(step, sequences=x, outputs_info=starts)
    return [x, *starts], sum((o * o).sum() for o in outs)


def trained(parameters):
    """Adam-like updates of many parameters, of which a loop makes the gradients."""
    x = T.tensor3("x")
    weights = [tinygraph.shared(np.eye(3, dtype="float32"), f"w{k}") for k in range(parameters)]

    def step(x_t, h):
        for w in weights:
            h = T.tanh(x_t + T.dot(h, w))
        return h

    hs, _ = tinygraph.scan(step, sequences=x, outputs_info=T.zeros((2, 3)))
    cost = (hs[-1] ** 2).sum()
    updates = []
    for w, g in zip(weights, tinygraph.grad(cost, weights), strict=True):
        m = tinygraph.shared(np.zeros((3, 3), "float32"))
        new = 0.9 * m + 0.1 * g
        updates += [(m, new), (w, w - 0.1 * new / (T.sqrt(new * new) + 1e-3))]
    return x, cost, updates


class Work:
    """How often the compiler visits a node, makes one, and weighs two sizes."""

    def __init__(self, patch):
        self.counts = {}
        self.count(patch, _Rewriter, "_replacement")
        self.count(patch, Interner, "make")
        self.count(patch, Interner, "remake")
        self.count(patch, workspace, "nonnegative")
        self.count(patch, region.Region, "_available")

    def count(self, patch, owner, name):
        inner = getattr(owner, name)

        def counted(*args, **kwargs):
            self.counts[name] = self.counts.get(name, 0) + 1
            return inner(*args, **kwargs)

        patch.setattr(owner, name, counted)


def compiled(model, n):
    inputs, cost = model(n)
    f = tinygraph.function(inputs, [cost, *tinygraph.grad(cost, inputs)], backend="loops")
    return f, f.graph.size


def worked(model, n):
    with pytest.MonkeyPatch.context() as patch:
        work = Work(patch)
        _, nodes = compiled(model, n)
    return work.counts, nodes


@pytest.mark.parametrize("model, n", [
    (mixed, 300), (chain, 150), (wide, 100), (layers, 120), (states, 10)])
def test_work_grows_as_the_graph(model, n):
    small, nodes = worked(model, n)
    large, more = worked(model, 3 * n)
    assert more > 2.5 * nodes
    assert exponent(sum(small.values()), sum(large.values()), more / nodes) <= 1.2
    for name, count in large.items():
        assert exponent(small.get(name, 0), count, more / nodes) <= 1.35, (name, small, large)


def exponent(before, after, growth):
    """Of the growth of counts, of which the first 100 do not matter."""
    return np.log((after + 100) / (before + 100)) / np.log(growth)


def longest_nest(f):
    lengths = []
    for stage in f:
        if isinstance(stage, Nest):
            lengths.append(len(stage.steps) + len(stage.reductions))
    return max(lengths)


@pytest.mark.parametrize("model", [chain, wide])
def test_no_nest_is_longer_than_llvm_likes(model, monkeypatch):
    regions = []
    inner = region.Region.emit

    def emit(self, builder):
        regions.append(self)
        inner(self, builder)

    monkeypatch.setattr(region.Region, "emit", emit)
    inputs, cost = model(1000)
    x = np.full((2, 3), 0.5, "float32")
    small = tinygraph.function(inputs, cost, backend="loops")
    assert 1 < longest_nest(regions[0].stages) <= region.LONGEST
    assert np.allclose(small(x), tinygraph.function(inputs, cost, backend="numpy")(x), rtol=1e-4)


def test_the_end_of_a_graph_is_set_aside_and_comes_back():
    x, cost, updates = trained(8)
    f = tinygraph.function([x], cost, updates=updates, backend="loops")
    compilation = f._ready[1].compilation
    sizes = {p.name: p.nodes_before for p in compilation.journal.passes}
    assert sizes["prune"] < sizes["fold"] - 60
    joined = dict(compilation.stages)
    assert joined["prune"].size > sizes["prune"] + 60
    assert all(graph.inputs == joined["close"].inputs for graph in joined.values())
    given = np.linspace(0, 1, 24, dtype="float32").reshape(4, 2, 3)
    x, cost, others = trained(8)
    plain = tinygraph.function([x], cost, updates=others, backend="numpy")
    for _ in range(3):
        assert np.allclose(f(given), plain(given), rtol=1e-5)
    for (a, _), (b, _) in zip(updates, others, strict=True):
        assert np.allclose(a.get_value(), b.get_value(), rtol=1e-4, atol=1e-6)


def test_a_sum_of_products_is_not_set_aside():
    x, w = T.matrices("x", "w")
    out = T.dot(x, w) + T.dot(w, x)
    for _ in range(40):
        out = T.tanh(out) * 0.5
    f = tinygraph.function([x, w], out, passes="none", backend="loops")
    tail = cut_tail(f._ready[1].compilation.closed.graph)
    assert [str(v.node.op) for v in tail.crossing] == ["add"]


def test_passes_on_loops_make_few_nodes_anew(monkeypatch):
    work = Work(monkeypatch)
    x, cost, updates = trained(8)
    f = tinygraph.function([x], cost, updates=updates, backend="loops")
    assert work.counts["remake"] < 12 * f.graph.size


# --- warm start


@pytest.fixture
def cache(tmp_path):
    with tinygraph.config.change(cache="on", cache_dir=str(tmp_path)):
        yield tmp_path


def model(scale, name="x"):
    x = T.matrix(name)
    w = tinygraph.shared(np.eye(3, dtype="float32"), "w")
    return tinygraph.function([x], (T.tanh(T.dot(x, w)) * scale).sum())


def test_a_program_that_is_started_again_closes_nothing(cache, monkeypatch):
    first = [model(2.0) for _ in range(2)]
    assert [f._ready[1].cached for f in first] == [False, True]

    def refuse(*args):
        raise AssertionError("the graph was closed")

    monkeypatch.setattr(building, "close", refuse)
    again = model(2.0)
    x = np.ones((2, 3), "float32")
    assert again(x) == first[0](x) == first[1](x)
    with pytest.raises(ShapeError, match="x"):
        again(np.ones((2, 4), "float32"))


def test_other_names_find_the_code_and_keep_their_messages(cache):
    model(3.0)
    f = model(3.0, "other")
    assert f._ready[1].cached
    for _ in range(2):
        with pytest.raises(ShapeError, match="other"):
            model(3.0, "other")(np.ones((2, 4), "float32"))
    with pytest.raises(ShapeError, match="of x"):
        model(3.0)(np.ones((2, 4), "float32"))


def test_other_shapes_of_shared_variables_are_other_programs(cache):
    def build(n):
        w = tinygraph.shared(np.ones((n,), "float32"), "w")
        return tinygraph.function([], w.sum())

    assert [float(build(n)()) for n in (3, 4, 3, 4)] == [3, 4, 3, 4]


def test_steps_from_a_number_are_learnt_again(cache):
    for n in (3, 5):
        k, x = T.iscalar("k"), T.vector("x")
        hs, _ = tinygraph.scan(lambda h, x: h + x, outputs_info=T.zeros_like(x),
                               non_sequences=x, n_steps=k)
        f = tinygraph.function([k, x], hs[-1])
        assert f(n, np.ones(2, "float32")).tolist() == [n, n]
    assert f._ready[1].cached


def test_a_report_after_a_load_has_all_stages(cache):
    model(4.0)
    f = model(4.0)
    assert f._ready[1].cached and "dot" in f.source("graph")
    assert f.report().seconds["close"] > 0


# --- parts of a module


def test_parts_make_up_the_module(monkeypatch):
    monkeypatch.setattr(parts, "SMALLEST", 1)
    monkeypatch.setattr(Emitter, "ENOUGH", 1)  # nests are handed over one by one
    inputs, cost = mixed(40)
    outputs = [cost, *tinygraph.grad(cost, inputs)]
    f = tinygraph.function(inputs, outputs, backend="loops")
    text = jit.emit(expand_math(f._ready[1].compilation.program), jit.host())
    pieces = parts.cut(text, 3)
    assert len(pieces) == 3
    whole = sum(line.startswith("define") for line in text.splitlines())
    assert sum(p.count("\ndefine ") + p.startswith("define ") for p in pieces) == whole
    assert parts.cut(text, 1) == [text]
    x = [np.full((3, 3), 0.1, "float32")] * 3
    with tinygraph.config.change(cache="off"):
        monkeypatch.setattr(jit, "processors", lambda: 3)
        many = tinygraph.function(inputs, outputs)(*x)
        monkeypatch.setattr(jit, "processors", lambda: 1)
        one = tinygraph.function(inputs, outputs)(*x)
    assert all(np.array_equal(a, b) for a, b in zip(many, one, strict=True))


def test_what_a_thread_raises_is_raised():
    def work(k):
        if k == 2:
            raise ValueError("two")
        return k

    assert parts.side_by_side(work, [0, 1, 3]) == [0, 1, 3]
    with pytest.raises(ValueError, match="two"):
        parts.side_by_side(work, [0, 1, 2])


# --- workspace


def test_slots_are_reused_by_size():
    slots = workspace.Slots()
    n = dim(Sym("n"))
    a = slots.take(n * 8, 0, 1)
    b = slots.take(n * 4, 0, 5)
    assert slots.take(n * 4, 2, 3) is a  # surely large enough
    assert slots.take(n * 4, 6, 7) in (a, b)
    assert slots.take(n * 16, 8, 9) in (a, b)  # grows
    assert slots.take(dim(64), 8, 9) not in (a, b)  # n may be 0
    for k in range(200):
        slots.take(n * 4 + (200 - k), 10 + k, 10 + k)
    assert slots.offsets()[1].evaluate({n.symbol: 64}) < 64 * 60


def test_one_compilation_for_all_lengths():
    inputs, cost = states(2)
    f = tinygraph.function(inputs, cost)
    for steps in (10, 10_000):
        f(np.zeros((steps, 2, 3), "float32"), *[np.zeros((2, 3), "float32")] * 2)
    assert f.compiles == 1


def test_the_passes_are_worked_out_once():
    inputs, cost = chain(5)
    closed = tinygraph.function(inputs, cost, backend="loops")
    compilation = Compilation(closed.graph, PIPELINE, {})
    assert compilation.final is compilation.final
    assert len(compilation.journal.passes) == len(PIPELINE)
    assert compilation.stages[-1][1] is compilation.final
