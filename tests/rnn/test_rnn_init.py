"""Initialisers, their random source, nonlinearities and the add task."""

from __future__ import annotations

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import config
from tinygraph_rnn import init, nonlinearities, random, tasks


@pytest.mark.parametrize(("initializer", "std"), [
    (init.Normal(0.2), 0.2), (init.Uniform(std=0.3), 0.3), (init.Uniform(0.3), 0.3 / np.sqrt(3)),
    (init.GlorotNormal(), np.sqrt(2 / 500)), (init.GlorotUniform("relu"), np.sqrt(4 / 500)),
    (init.HeNormal(), np.sqrt(1 / 200)), (init.HeUniform(2.0), 2 * np.sqrt(1 / 200)),
    (init.Glorot(init.Uniform), np.sqrt(2 / 500)), (init.He(), np.sqrt(1 / 200))])
def test_standard_deviations(initializer, std):
    sample = initializer((200, 300))
    assert sample.shape == (200, 300) and sample.dtype == np.float64
    assert abs(sample.std() / std - 1) < 0.02 and abs(sample.mean()) < 0.02 * std


def test_receptive_fields_count():
    assert abs(init.HeNormal()((100, 30, 5, 5)).std() / np.sqrt(1 / 750) - 1) < 0.02


def test_ranges_and_constants():
    sample = init.Uniform((1.0, 3.0))((1000,))
    assert sample.min() >= 1 and sample.max() <= 3 and sample.max() > 2.9
    assert np.all(init.Constant(2.5)((2, 3)) == 2.5)
    with config.change(floatX="float32"):
        assert init.Normal()((2,)).dtype == np.float32


@pytest.mark.parametrize("shape", [(4, 4), (2, 5), (5, 2), (1, 1), (4, 2, 3)])
def test_orthogonal(shape):
    w = init.Orthogonal(gain=1.5)(shape).reshape(shape[0], -1)
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(small, 2.25 * np.eye(len(small)), atol=1e-12)


def test_sparse():
    w = init.Sparse(sparsity=0.25, std=1.0)((40, 6))
    assert np.all(np.count_nonzero(w, axis=0) == 10)


def test_what_initialisers_refuse():
    for bad in (init.Orthogonal(), init.Glorot(), init.Sparse()):
        with pytest.raises(ValueError, match="shape"):
            bad((3,))
    with pytest.raises(ValueError, match="gain is 'tanh'"):
        init.Glorot(gain="tanh")


def test_random_source():
    for rng in (5, np.random.RandomState(5)):
        random.set_rng(rng)
        a = init.Normal()((3,))
        random.set_rng(5)
        np.testing.assert_array_equal(a, init.Normal()((3,)))
    random.set_rng(np.random.default_rng(5))
    assert init.Sparse()((5, 5)).shape == (5, 5)
    random.set_rng(None)
    np.random.seed(5)
    np.testing.assert_array_equal(a, init.Normal()((3,)))
    with pytest.raises(TypeError, match="random generator"):
        random.set_rng("seed")


@pytest.mark.parametrize(("function", "expected"), [
    (nonlinearities.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    (nonlinearities.tanh, np.tanh),
    (nonlinearities.rectify, lambda x: np.maximum(x, 0)),
    (nonlinearities.leaky_rectify, lambda x: np.where(x > 0, x, 0.01 * x)),
    (nonlinearities.very_leaky_rectify, lambda x: np.where(x > 0, x, x / 3)),
    (nonlinearities.elu, lambda x: np.where(x > 0, x, np.exp(x) - 1)),
    (nonlinearities.softplus, lambda x: np.log(1 + np.exp(x))),
    (nonlinearities.linear, lambda x: x),
    (nonlinearities.ScaledTanH(0.5, 2), lambda x: 2 * np.tanh(x / 2)),
    (nonlinearities.softmax, lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True))])
def test_nonlinearities(function, expected):
    x = np.array([[-2.0, -0.1, 0.0], [0.1, 1.0, 3.0]])
    v = T.matrix("v")
    np.testing.assert_allclose(ref.run([v], function(v), x), expected(x), rtol=1e-12)


def test_add_task():
    x, y, mask = tasks.add_batch(400, 20, 30, rng=1)
    assert x.shape == (400, 30, 2) and y.shape == (400,) and mask.shape == (400, 30)
    lengths = mask.sum(1)
    assert lengths.min() == 20 and lengths.max() == 30
    np.testing.assert_array_equal(mask, np.arange(30) < lengths[:, None])
    np.testing.assert_allclose(x.mean(axis=(0, 1)), 0, atol=1e-12)
    # Undo the centring: markers are 0 and 1, padding is 0, and y is the sum of the marked.
    numbers, marks = x[:, :, 0] - x[:, :, 0].min(), np.round(x[:, :, 1] - x[:, :, 1].min())
    assert set(np.unique(marks)) == {0, 1} and np.all(marks.sum(1) == 2)
    assert np.all(numbers * (1 - mask) == 0) and numbers.max() < 1
    total = (numbers * marks).sum(1)
    np.testing.assert_allclose(y, total - total.mean(), atol=1e-12)
    first, second = np.argmax(marks, 1), 29 - np.argmax(marks[:, ::-1], 1)
    assert np.all(first < np.floor(lengths / 10)) and first.max() > 0
    assert np.all(second >= lengths / 2) and np.all(second < lengths)
    assert abs(y.var() - 1 / 6) < 0.02


def test_add_task_is_repeatable_and_of_float_x():
    assert tasks.gen_data is tasks.add_batch
    for a, b in zip(tasks.add_batch(rng=3), tasks.add_batch(rng=3), strict=True):
        np.testing.assert_array_equal(a, b)
    with config.change(floatX="float32"):
        assert {a.dtype for a in tasks.add_batch(5)} == {np.dtype("float32")}
    assert tasks.add_batch(3, 2, 2)[0].shape == (3, 2, 2)
    with pytest.raises(ValueError, match="min_length is 5"):
        tasks.add_batch(3, 5, 4)
