"""One compiled training function serves every batch size and sequence length."""

from __future__ import annotations

import models
import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T

RNG = np.random.default_rng(5)
PAIRS = [(1, 1), (1, 7), (8, 1), (3, 0), (0, 4), (0, 0), (1, 0), (2, 5), (17, 3), (33, 2)] + [
    (int(b), int(t)) for b, t in zip(RNG.integers(1, 20, 40), RNG.integers(1, 13, 40), strict=True)]


@pytest.fixture(autouse=True)
def no_cache():
    with tinygraph.config.change(cache="off"):
        yield


def total_cost(model):
    """A cost that is defined for no steps and no sequences too."""
    wrt = [*model.params, model.inputs[0]]
    cost = sum((s ** 2).sum() for s in model.states)
    return [cost, *tinygraph.grad(cost, wrt)]


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("make", [
    lambda: models.lstm("separate", mask=True, peepholes=True, clip=50.0),
    lambda: models.gru("stacked", mask=False, hidden=33)], ids=["narrow lstm", "wide gru"])
def test_fifty_shapes_one_compile(make, floatX):
    assert len(PAIRS) == 50
    with tinygraph.config.change(floatX=floatX):
        model = make()
        outputs = total_cost(model)
        f = tinygraph.function(model.inputs, outputs, backend="llvm")
        oracle = tinygraph.function(model.inputs, outputs, backend="numpy")
    for k, (batch, steps) in enumerate(PAIRS):
        arrays = model.batch(batch, steps, seed=k)
        models.assert_close(f(*arrays), oracle(*arrays))
    assert f.compiles == 1


@pytest.mark.parametrize("make", [models.lstm, models.gru, models.rnn])
def test_hidden_and_features_of_one(make):
    model = make(features=1, hidden=1, mask=True)
    outputs = total_cost(model)
    f = tinygraph.function(model.inputs, outputs, backend="loops")
    oracle = tinygraph.function(model.inputs, outputs, backend="numpy")
    for batch, steps in ((1, 1), (3, 4), (1, 5), (4, 0), (0, 2)):
        arrays = model.batch(batch, steps)
        models.assert_close(f(*arrays), oracle(*arrays))


@pytest.mark.parametrize("backend", ["loops", "llvm", "numpy"])
def test_the_last_state_of_no_steps_is_refused(backend):
    model = models.rnn()
    f = tinygraph.function(model.inputs, model.states[0][-1], backend=backend)
    assert f(*model.batch(2, 1)).shape == (2, 5)
    with pytest.raises(IndexError, match="out of range"):
        f(*model.batch(2, 0))


def test_training_with_updates_over_changing_shapes():
    trained, same = models.gru(mask=True, seed=3), models.gru(mask=True, seed=3)
    f, oracle = trained.training(backend="llvm"), same.training(backend="numpy")
    for k, (batch, steps) in enumerate([(3, 4), (1, 1), (5, 9), (2, 2), (3, 4)] * 3):
        arrays = trained.batch(batch, steps, seed=k)
        models.assert_close([f(*arrays)], [oracle(*arrays)], 1e-4)
    for a, b in zip(trained.params, same.params, strict=True):
        models.assert_close([a.get_value()], [b.get_value()], 1e-4)
    assert f.compiles == 1


def test_sizes_that_only_a_scalar_tells():
    x, n = T.matrix("x"), T.iscalar("n")
    h, _ = tinygraph.scan(lambda h, x: T.tanh(h + x), outputs_info=x, non_sequences=x * 0.5,
                          n_steps=n)
    outputs = [h, tinygraph.grad((h ** 2).sum(), x)]
    f = tinygraph.function([x, n], outputs, backend="llvm")
    oracle = tinygraph.function([x, n], outputs, backend="numpy")
    for k, shape in enumerate([(2, 3), (1, 1), (5, 2), (0, 3), (2, 3)]):
        for steps in (0, 1, 4):
            a = np.random.default_rng(k).standard_normal(shape).astype("float32")
            models.assert_close(f(a, steps), oracle(a, steps))
    with pytest.raises(ValueError, match="n_steps is -1"):
        f(np.zeros((2, 2), "float32"), -1)
    assert f.compiles == 1
