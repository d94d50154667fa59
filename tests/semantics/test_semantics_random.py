"""Random streams: points 63 and 65 to 67."""

from __future__ import annotations

import numpy as np

import tinygraph.tensor as T
from tinygraph import config, function, scan
from tinygraph.sandbox.rng_mrg import MRG_RandomStreams
from tinygraph.tensor.shared_randomstreams import RandomStreams


def test_63_every_step_draws_anew():
    streams = RandomStreams(1)
    out, updates = scan(lambda: streams.uniform((2,)), n_steps=3)
    f = function([], out, updates=updates)
    a, b = f(), f()
    assert len(np.unique(np.concatenate([a, b]))) == 12


def test_63_draws_go_on_without_the_updates_of_scan():
    streams = RandomStreams(1)
    out, _ = scan(lambda: streams.uniform((2,)), n_steps=3)
    f = function([], out)
    a, b = f(), f()
    assert len(np.unique(np.concatenate([a, b]))) == 12


def test_65_the_seed_and_the_order_of_calls_give_the_numbers():
    def draws(seed):
        streams = RandomStreams(seed)
        return function([], [streams.uniform((3,)), streams.normal((3,))])()

    first, again, other = draws(234), draws(234), draws(235)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    streams = RandomStreams(234)
    x, y = streams.uniform((3,)), streams.uniform((3,))
    a, b = function([], [x, y])()
    assert not np.array_equal(a, b)


def test_66_draws_and_calls():
    x = RandomStreams(1).uniform((2,))
    np.testing.assert_array_equal(function([], x - x)(), [0, 0])
    f, g = function([], x), function([], x * 1)
    frozen = function([], x, no_default_updates=True)
    a, b = f(), g()
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(frozen(), frozen())
    np.testing.assert_array_equal(frozen(), f())


def test_67_dtypes_sizes_and_flags():
    streams, n = RandomStreams(1), T.iscalar("n")
    for float_x in ("float32", "float64"):
        with config.change(floatX=float_x):
            assert streams.uniform((2,)).dtype == streams.normal((2,)).dtype == float_x
    for x in (streams.binomial((2,)), streams.random_integers((2,)),
              streams.multinomial(pvals=[0.5, 0.5])):
        assert x.dtype == "int64"
    assert streams.uniform((2,), dtype="float32").dtype == "float32"
    assert streams.binomial((2,), dtype="float32").dtype == "float32"
    mixed = streams.uniform((n, 1, 3))
    assert mixed.broadcastable == (False, True, False)
    assert function([n], mixed)(4).shape == (4, 1, 3)
    one = streams.multinomial(n=1, pvals=T.constant([0.2, 0.3, 0.5]))
    assert one.ndim == 1 and function([], one)().sum() == 1
    rows = MRG_RandomStreams(1).multinomial(n=1, pvals=T.constant([[0.5, 0.5], [0.0, 1.0]]))
    assert function([], rows)().shape == (2, 2)
