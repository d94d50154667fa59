"""Initialisers and their random source."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from tinygraph import config
from tinygraph_rnn import init, layers, random, utils


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


@pytest.mark.parametrize(("initializer", "std"), [
    (init.GlorotNormal(c01b=True), np.sqrt(2 / (25 * 130))),
    (init.GlorotUniform("relu", c01b=True), np.sqrt(4 / (25 * 130))),
    (init.HeNormal(c01b=True), np.sqrt(1 / 750)), (init.HeUniform(3.0, True), np.sqrt(9 / 750)),
    (init.Glorot(init.Normal, c01b=True), np.sqrt(2 / (25 * 130))),
    (init.He(init.Uniform, 1.0, True), np.sqrt(1 / 750))])
def test_receptive_fields_in_the_middle(initializer, std):
    sample = initializer((30, 5, 5, 100))
    assert sample.shape == (30, 5, 5, 100) and abs(sample.std() / std - 1) < 0.02


@pytest.mark.parametrize("make", [init.GlorotUniform, init.HeUniform, lambda: init.Uniform(std=1)])
def test_uniform_values_fill_their_range(make):
    sample = make()((300, 200))
    bound = np.sqrt(3) * sample.std()
    assert abs(sample).max() <= 1.02 * bound
    counts, _ = np.histogram(sample, 10, (-bound, bound))
    assert counts.min() > 0.9 * sample.size / 10


@pytest.mark.parametrize("make", [init.GlorotNormal, init.HeNormal, init.Normal])
def test_normal_values_have_normal_tails(make):
    sample = make()((300, 200))
    within = [np.mean(abs(sample) < k * sample.std()) for k in (1, 2, 3)]
    np.testing.assert_allclose(within, [0.6827, 0.9545, 0.9973], atol=0.01)


SIGNATURES = [
    (init.Constant, "(val=0.0)"), (init.Normal, "(std=0.01, mean=0.0)"),
    (init.Uniform, "(range=0.01, std=None, mean=0.0)"),
    *((cls, "(gain=1.0, c01b=False)") for cls in (
        init.GlorotNormal, init.GlorotUniform, init.HeNormal, init.HeUniform)),
    (init.Orthogonal, "(gain=1.0)"), (init.Sparse, "(sparsity=0.1, std=0.01)")]


@pytest.mark.parametrize(("cls", "expected"), SIGNATURES, ids=lambda x: getattr(x, "__name__", ""))
def test_arguments_and_defaults(cls, expected):
    parameters = inspect.signature(cls).parameters.values()
    assert str(inspect.Signature([p.replace(annotation=p.empty) for p in parameters])) == expected


def test_normal_values_about_a_mean():
    sample = init.Normal(0.5, 3.0)((100, 100))
    assert abs(sample.mean() - 3) < 0.02 and abs(sample.std() - 0.5) < 0.02
    sample = init.Uniform(std=0.5, mean=3.0)((100, 100))
    assert abs(sample.mean() - 3) < 0.02 and abs(sample.std() - 0.5) < 0.02


def test_gains():
    for gain, factor in ((1.0, 1), ("relu", np.sqrt(2)), (3, 3)):
        w = init.Orthogonal(gain)((6, 4))
        np.testing.assert_allclose(w.T @ w, factor ** 2 * np.eye(4), atol=1e-12)
        random.set_rng(1)
        a = init.HeNormal()((6, 4))
        random.set_rng(1)
        np.testing.assert_allclose(init.HeNormal(gain)((6, 4)), factor * a)


def test_ranges_and_constants():
    for pair in ((1.0, 3.0), [1.0, 3.0], np.array([1.0, 3.0])):
        sample = init.Uniform(pair)((1000,))
        assert 1.1 > sample.min() >= 1 and 2.9 < sample.max() <= 3
    assert np.all(init.Constant(2.5)((2, 3)) == 2.5)
    with config.change(floatX="float32"):
        for initializer in (init.Constant(), init.Normal(), init.Uniform(), init.GlorotNormal(),
                            init.HeUniform(), init.Orthogonal(), init.Sparse(),
                            init.Normal().seeded(0)):
            assert initializer((2, 3)).dtype == np.float32
            assert initializer.sample((2, 3)).dtype == np.float32


@pytest.mark.parametrize("shape", [(4, 4), (2, 5), (5, 2), (1, 1), (4, 2, 3)])
def test_orthogonal(shape):
    w = init.Orthogonal(gain=1.5)(shape).reshape(shape[0], -1)
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(small, 2.25 * np.eye(len(small)), atol=1e-12)


def test_sparse():
    w = init.Sparse(sparsity=0.25, std=1.0)((40, 6))
    assert np.all(np.count_nonzero(w, axis=0) == 10)
    w = init.Sparse(0.5, 0.3)((1000, 100))
    assert abs(w[w != 0].std() - 0.3) < 0.005
    assert np.all(np.count_nonzero(init.Sparse(0.01)((10, 4)), axis=0) == 1)


def test_what_initialisers_refuse():
    for bad in (init.Orthogonal(), init.Glorot(), init.Sparse()):
        with pytest.raises(ValueError, match="shape"):
            bad((3,))
    for cls in (init.Glorot, init.HeNormal, init.GlorotUniform, init.Orthogonal):
        with pytest.raises(ValueError, match="gain is 'tanh'; it must be a number or 'relu'"):
            cls(gain="tanh")
    for bad in (init.GlorotNormal(c01b=True), init.HeUniform(c01b=True)):
        with pytest.raises(ValueError, match=r"with c01b needs a shape of four axes .* \(3, 4\)"):
            bad((3, 4))
    with pytest.raises(ValueError, match="range is .*; it must be a number or a pair"):
        init.Uniform((1.0, 2.0, 3.0))
    with pytest.raises(NotImplementedError, match=r"Initializer\.sample"):
        init.Initializer()((2, 3))


def test_a_seed_for_one_initialiser():
    initializer = init.Orthogonal().seeded(5)
    first, second = initializer((4, 3)), initializer((4, 3))
    assert abs(first - second).max() > 0.01
    random.set_rng(9)
    np.testing.assert_array_equal(init.Orthogonal().seeded(5)((4, 3)), first)
    # The others go on as if it were not there, and it does as they do.
    after = init.Normal()((3,))
    random.set_rng(9)
    np.testing.assert_array_equal(init.Normal()((3,)), after)
    random.set_rng(5)
    np.testing.assert_array_equal(init.Orthogonal()((4, 3)), first)
    random.set_rng(None)
    np.random.seed(3)
    np.testing.assert_array_equal(init.Orthogonal().seeded(5)((4, 3)), first)
    after = init.Normal()((3,))
    np.random.seed(3)
    np.testing.assert_array_equal(init.Normal()((3,)), after)
    with pytest.raises(ValueError, match="shape"):
        init.Glorot().seeded(1)((3,))
    assert random.get_rng() is np.random


def test_an_initialiser_of_ones_own():
    class Triangular(init.Initializer):
        def __init__(self, std=1.0):
            self.std = std

        def sample(self, shape):
            rng = random.get_rng()
            return self.std * (rng.uniform(-1, 1, shape) + rng.uniform(-1, 1, shape)) * 1.5 ** 0.5

    assert abs(Triangular(0.2)((200, 300)).std() - 0.2) < 0.01
    assert abs(init.He(Triangular)((200, 300)).std() / np.sqrt(1 / 200) - 1) < 0.02
    np.testing.assert_array_equal(Triangular().seeded(1)((2, 3)), Triangular().seeded(1)((2, 3)))
    param = utils.create_param(Triangular(), (200, 300), name="w")
    assert param.get_value().std() > 0.9


def test_a_network_is_repeatable():
    def values():
        l_in = layers.InputLayer((None, None, 3))
        return layers.get_all_param_values(layers.LSTMLayer(l_in, 4))

    random.set_rng(7)
    a, c = values(), values()
    random.set_rng(7)
    for x, y in zip(a, values(), strict=True):
        np.testing.assert_array_equal(x, y)
    assert any(not np.array_equal(x, y) for x, y in zip(a, c, strict=True))


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
