"""What the compiler makes of stacked cells, in counts: as many products per step, in each
direction, as there are products that wait for a state."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function, grad, scan
from tinygraph_rnn.cells import (
    GRU,
    LSTM,
    RNN,
    Embedding,
    Layer,
    MultiDropout,
    StackedCells,
    create_optimization_updates,
)

pytestmark = pytest.mark.counts
UNITS, WORDS = 20, 30


def training(cell=LSTM, batch=True, dropout=None, embedding=False, mask=False, clip=False,
             starts=False, backend="loops"):
    """The training function of two cells of 20 units and a layer on top of them, the products of
    a step of each loop, and those outside."""
    model = StackedCells(4, cell, [UNITS, UNITS], T.tanh, clip)
    model.layers.append(Layer(UNITS, 2, T.tanh))
    x = T.tensor3("x") if batch else T.matrix("x")
    if embedding:
        model.layers.insert(0, Embedding(WORDS, 4))
        x = T.imatrix("x") if batch else T.ivector("x")
    n = x.shape[1] if batch else None
    infos = [*[None] * embedding, *model.initial_states(n), None]
    inputs, drawn = [x], []
    if mask:
        inputs.append(T.matrix("mask") if batch else T.vector("mask"))
    if dropout == "outside":
        drawn = MultiDropout([(n, k) if batch else k for k in (4, UNITS, UNITS)], 0.3)

    def step(x_t, *rest):
        m_t = None
        if mask:
            m_t, *rest = rest
        masks = [None] * embedding + list(rest[2:]) if drawn else dropout
        return model.forward(x_t, rest[:2], masks, m_t)

    outs, rng_updates = scan(step, sequences=inputs, outputs_info=infos, non_sequences=drawn)
    cost = (outs[-1] ** 2).mean()
    params = model.params + (model.initial_states() if starts else [])
    new, *_ = create_optimization_updates(cost, params, updates=rng_updates)
    f = function(inputs, cost, updates=new, backend=backend)
    report = f.report()
    return f, [loop.step.products for loop in report.loops], report.outside.products


@pytest.fixture(autouse=True)
def float32():
    with config.change(floatX="float32", cache="off"):
        yield


@pytest.mark.parametrize("batch", [False, True], ids=["sample", "batch"])
@pytest.mark.parametrize("options", [
    {}, {"starts": True}, {"clip": 1.0}, {"mask": True}, {"dropout": "outside"}, {"dropout": 0.3},
    {"embedding": True}, {"embedding": True, "dropout": "outside", "mask": True, "clip": 1.0},
    {"embedding": True, "dropout": 0.3, "starts": True}], ids=str)
def test_two_lstm_cells_have_two_products_per_step_in_each_direction(batch, options):
    _, steps, outside = training(batch=batch, **options)
    assert steps == [2, 2] and outside <= 6


@pytest.mark.parametrize(("cell", "products"), [(RNN, 2), (GRU, 4)])
@pytest.mark.parametrize("options", [{}, {"mask": True, "clip": 1.0, "embedding": True}], ids=str)
def test_other_cells(cell, products, options):
    # GRU has a product that waits for another: what it may remember reads r * h.
    _, steps, _ = training(cell, **options)
    assert steps == [products, products]


@pytest.mark.parametrize("embedding", [False, True])
@pytest.mark.parametrize("batch", [False, True], ids=["sample", "batch"])
def test_forward_has_as_few(batch, embedding):
    model = StackedCells(4, LSTM, [UNITS, UNITS], T.tanh)
    if embedding:
        model.layers.insert(0, Embedding(WORDS, 4))
        x = T.imatrix("x") if batch else T.ivector("x")
    else:
        x = T.tensor3("x") if batch else T.matrix("x")
    states = model.initial_states(x.shape[1] if batch else None)
    outs, _ = scan(lambda x_t, *old: model.forward(x_t, old), sequences=x,
                   outputs_info=[None] * embedding + states)
    (loop,) = function([x], outs[-1][-1], backend="loops").report().loops
    assert loop.step.products == 2


@pytest.mark.parametrize("cell", [RNN, LSTM, GRU])
@pytest.mark.parametrize("batch", [False, True], ids=["sample", "batch"])
def test_gradients_of_an_embedding(cell, batch):
    with config.change(floatX="float64"):
        model = StackedCells(3, cell, [4], T.tanh, 0.05)
        model.layers.insert(0, Embedding(5, 3))
        for p in model.params:
            p.set_value(np.random.default_rng(1).standard_normal(p.get_value().shape))
        x = T.imatrix("x") if batch else T.ivector("x")
        outs, _ = scan(lambda x_t, *old: model.forward(x_t, old), sequences=x, outputs_info=[
            None, *model.initial_states(x.shape[1] if batch else None)])
        results = grad((outs[-1] ** 2).sum(), model.params)
        f = function([x], results, backend="llvm")
        plain = function([x], results, backend="numpy", passes="none")
    words = np.array([[4, 0, 4, 2, -1, 4], [0, 0, 1, -5, 2, 4]], "int32").T
    for numbers in (words, words[:1], words[:0]):
        numbers = numbers if batch else numbers[:, 0]
        for a, b in zip(f(numbers), plain(numbers), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    table = f(words if batch else words[:, 0])[0]
    assert np.all(table[3] == 0) and np.all(table[4] != 0)  # no word is 3
    with pytest.raises(IndexError, match="5"):
        f(words + 1 if batch else words[:, 0] + 1)


@pytest.mark.parametrize("batch", [False, True], ids=["sample", "batch"])
def test_one_native_function_that_learns(batch):
    f, steps, _ = training(batch=batch, embedding=True, mask=True, clip=5.0, backend="llvm")
    assert steps == [2, 2] and f.report().native_functions == 1
    words = np.random.default_rng(0).integers(0, WORDS, (6, 3) if batch else 6).astype("int32")
    kept = np.ones(words.shape, "float32")
    costs = [float(f(words, kept)) for _ in range(30)]
    assert costs[-1] < 0.9 * costs[0]
