"""Tiles of the batch, blocks of nests, shares of products: what threads may take."""

from __future__ import annotations

import models
import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad, scan
from tinygraph.compile.build import Compilation
from tinygraph.loops.language import For, Gemm, Pack, buffers, walk
from tinygraph.lowering.lower import lower
from tinygraph.lowering.nest import BLOCK
from tinygraph.lowering.target import Target
from tinygraph.lowering.workspace import lifetimes
from tinygraph.passes.pipeline import select

RNG = np.random.default_rng(5)


def compilation(inputs, outputs):
    f = function(inputs, outputs, backend="loops")
    return Compilation(f.graph, select(None), {w: w.get_value().shape for w in f.shared})


def program(inputs, outputs):
    return compilation(inputs, outputs).program


def parallel(body):
    return [s for s in walk(body) if isinstance(s, For) and s.mode == "parallel"]


def rnn(step=None):
    x, h0, U = T.tensor3("x"), T.matrix("h0"), T.matrix("U")
    states, _ = scan(step or (lambda row, h: T.tanh(row + T.dot(h, U))), x, h0)
    return [x, h0, U], states


def tiled(inputs, outputs):
    """Is there a loop over time inside a parallel loop?"""
    return any(isinstance(inner, For) and inner.var.name.startswith("step")
               for loop in parallel(program(inputs, outputs).body) for inner in walk(loop.body))


# --- which scans are cut


def test_rows_that_do_not_meet_are_cut_into_tiles():
    inputs, states = rnn()
    assert tiled(inputs, states)
    assert tiled(inputs, grad((states ** 2).sum(), inputs))


@pytest.mark.parametrize("name, step", [
    ("a mean over the batch", lambda row, h: T.tanh(row + h - h.mean(axis=0, keepdims=True))),
    ("a product over the batch", lambda row, h: T.tanh(row + T.dot(T.dot(h, h.T), h))),
    ("rows shifted", lambda row, h: T.tanh(row + T.concatenate([h[1:], h[:1]]))),
    ("the size of the batch", lambda row, h: T.tanh(row + h / h.shape[0])),
    ("a picked row", lambda row, h: T.tanh(row + h[T.argmax(h[:, 0])])),
    ("reversed rows", lambda row, h: T.tanh(row + h[::-1]))])
def test_rows_that_meet_are_not_cut(name, step):
    x, h0 = T.tensor3("x"), T.matrix("h0")
    states, _ = scan(lambda row, h: mixed(step(row, h)), x, h0)
    assert not tiled([x, h0], states)
    models.assert_close(
        function([x, h0], states, backend="llvm")(*data(x, h0)),
        function([x, h0], states, backend="numpy")(*data(x, h0)))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name, step", [
    ("the row's number", lambda row, h: h + row * T.arange(h.shape[0]).dimshuffle(0, "x")),
    ("the element's number", lambda row, h: h + row * T.sin(
        T.arange(h.shape[0] * 5).reshape(h.shape).astype("float32")))])
def test_tiles_count_rows_on(name, step, threads):
    x, h0 = T.tensor3("x"), T.matrix("h0")
    states, _ = scan(lambda row, h: mixed(step(row, h)), x, h0)
    assert tiled([x, h0], states)
    arrays = data(x, h0, n=1500, t=50)
    with tinygraph.config.change(threads=threads):
        got = function([x, h0], states, backend="llvm")(*arrays)
    models.assert_close(got, function([x, h0], states, backend="numpy")(*arrays))


def test_a_sum_over_the_numbers_of_elements_is_not_cut():
    x, h0 = T.tensor3("x"), T.matrix("h0")
    states, _ = scan(lambda row, h: mixed(row + h * (T.arange(h.shape[0] * 5).max() % 7)), x, h0)
    assert not tiled([x, h0], states)


def mixed(h):
    """A product over the units, so that only rows can be independent."""
    return T.dot(h, T.as_tensor_variable(np.full((5, 5), 0.1, "float32")))


def data(*inputs, n=19, t=4, width=5):
    shapes = {3: (t, n, width), 2: (n, width), 1: (width,)}
    rng = np.random.default_rng(1)
    return [rng.standard_normal(shapes[v.ndim]).astype("float32") for v in inputs]


def test_a_carry_without_rows_is_not_cut():
    x, h0, c = T.tensor3("x"), T.matrix("h0"), T.vector("c")
    (states, _), _ = scan(lambda row, h, k: (T.tanh(row + mixed(h) * k), k * 0.5), x, [h0, c])
    assert not tiled([x, h0, c], states)


def test_units_that_do_not_meet_are_cut_as_well():
    x, h0 = T.tensor3("x"), T.matrix("h0")
    states, _ = scan(lambda row, h: T.tanh(row + h - h.mean(axis=0, keepdims=True)), x, h0)
    assert tiled([x, h0], states)


# --- what the tiles have


def test_weights_are_packed_once_before_the_loop():
    inputs, states = rnn()
    body = program(inputs, states).body
    packs = [s for s in walk(body) if isinstance(s, Pack)]
    assert len(packs) == 1
    assert not any(isinstance(s, Pack) for loop in walk(body) if isinstance(loop, For)
                   for s in walk(loop.body))
    (product,) = [s for s in walk(body) if isinstance(s, Gemm)]
    assert product.panel == packs[0].panel > 0


def test_what_tiles_use_at_once_does_not_share_memory():
    inputs, states = rnn()
    made = program(inputs, grad((states ** 2).sum(), inputs))
    spans = lifetimes(made.body)
    places = dict(made.arena)
    for loop in parallel(made.body):
        used = {b for s in walk(loop.body) for b in buffers(s)} & spans.keys()
        offsets = [repr(places[b]) for b in used]
        assert len(set(offsets)) == len(offsets)


@pytest.mark.parametrize("backend", ["loops", "llvm"])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 16, 33, 100])
def test_every_number_of_rows(backend, n):
    inputs, states = rnn()
    outputs = [states[-1], *grad((states ** 2).sum(), inputs)]
    f = function(inputs, outputs, backend=backend)
    rng = np.random.default_rng(n)
    arrays = [rng.standard_normal(s).astype("float32") * 0.5 for s in ((3, n, 5), (n, 5), (5, 5))]
    want = function(inputs, outputs, backend="numpy")(*arrays)
    for threads in (1, 2, 5):
        with tinygraph.config.change(threads=threads):
            models.assert_close(f(*arrays), want)


# --- bit for bit


@pytest.mark.parametrize("name, make", [
    ("lstm", lambda: models.lstm(mask=True, peepholes=True, clip=1.0)),
    ("wide lstm", lambda: models.lstm("stacked", hidden=48)),
    ("gru", lambda: models.gru("stacked", mask=True)),
    ("rnn", lambda: models.rnn(hidden=64))])
def test_results_do_not_depend_on_the_number_of_threads(name, make):
    model = make()
    f = function(model.inputs, [model.cost(), *grad(model.cost(), model.params)], backend="llvm")
    for batch, steps in ((16, 40), (100, 30), (37, 50)):
        arrays = model.batch(batch, steps)
        results = []
        for threads in (1, 2, 3):
            with tinygraph.config.change(threads=threads):
                results.append(f(*arrays))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert np.array_equal(a, b)
    assert f.compiles == 1


@pytest.mark.parametrize("n", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 3])
def test_long_sums_do_not_depend_on_the_number_of_threads(n):
    x, y = T.vector("x"), T.matrix("y")
    z = T.exp(x) * 2
    outputs = [z, z.sum(), z.max() if n else z.sum(), y.sum(axis=0), y.sum(axis=1), (y * y).sum()]
    f = function([x, y], outputs, backend="llvm")
    a = RNG.standard_normal(n).astype("float32")
    b = RNG.standard_normal((n // 7, 7)).astype("float32")
    with tinygraph.config.change(threads=1):
        first = f(a, b)
    with tinygraph.config.change(threads=4):
        second = f(a, b)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)
    models.assert_close(first, function([x, y], outputs, backend="numpy")(a, b))


def test_large_products_are_shared_and_equal_bit_for_bit():
    a, b = T.matrix("a"), T.matrix("b")
    f = function([a, b], T.dot(a, b), backend="llvm")
    x, y = (RNG.standard_normal(s).astype("float32") for s in ((150, 170), (170, 131)))
    found = []
    for threads in (1, 2, 3):
        with tinygraph.config.change(threads=threads):
            found.append(f(x, y))
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    models.assert_close([found[0]], [x @ y])


def test_lowering_takes_the_panel_width_of_the_back_end():
    inputs, states = rnn()
    graph = compilation(inputs, states).stages[-1][1]
    made = lower(graph, target=Target(panel=lambda dtype: 4)).program
    assert made is not None
    assert {s.panel for s in walk(made.body) if isinstance(s, Pack)} == {4}
