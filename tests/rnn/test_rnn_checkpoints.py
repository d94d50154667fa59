"""A resumed training equals one that was not interrupted, bit for bit."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from resumable import Training

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as lasagne
from tinygraph import config, shared
from tinygraph.sandbox.rng_mrg import MRG_RandomStreams
from tinygraph.tensor.shared_randomstreams import RandomStreams
from tinygraph_rnn import cells
from tinygraph_rnn.layers import DenseLayer, DropoutLayer
from tinygraph_rnn.saving.files import encoded, read_file, write_file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "training.safetensors"


def network():
    return DenseLayer((None, 2), 3)


# --- the whole -----------------------------------------------------------------------------------


def test_resumed_equals_uninterrupted(path):
    with config.change(floatX="float32", backend="llvm"):
        training = Training(0)
        training.run(5)
        training.save(path)
        want = training.run(6), training.digest()
        # the same program again, in this process and in a fresh one, from other random numbers
        other = Training(1)
        other.run(2)
        state = other.resume(path)
        assert (other.run(6), other.digest()) == want
        program = Path(__file__).with_name("resumable.py")
        settings = {"PYTHONPATH": os.pathsep.join(sys.path), "TINYGRAPH_FLOATX": "float32",
                    "TINYGRAPH_BACKEND": "llvm"}
        done = subprocess.run([sys.executable, program, path, "6", "2"], capture_output=True,
                              text=True, check=True, env=os.environ | settings)
        assert tuple(json.loads(done.stdout)) == want
        # the same objects, turned back
        training.resume(path)
        assert (training.run(6), training.digest()) == want
    assert state["rng"] is other.rng
    assert state["best"] == np.float32(0.1) and type(state["best"]) is np.float32
    assert state["table"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_parameters_alone_come_out_of_a_checkpoint(path):
    net, other = network(), network()
    updates = lasagne.updates.adam(T.sum(net.W), [net.W])
    lasagne.checkpoint(path, net, updates, table=np.ones(3))
    lasagne.load(path, other)
    assert other.W.get_value().tobytes() == net.W.get_value().tobytes()
    assert list(lasagne.load(path)) == ["0.DenseLayer.W", "0.DenseLayer.b"]
    lasagne.save(path, net)
    with pytest.raises(lasagne.SavingError, match="holds parameters only; read it with load"):
        lasagne.resume(path, net, updates)


# --- which variables -----------------------------------------------------------------------------


def kept(path, *args, **options):
    lasagne.checkpoint(path, *args, **options)
    return read_file(path).names("variables")


def test_what_updates_change_and_read_is_kept(path):
    net = network()
    speed, rate, data = shared(np.zeros((2, 3)), "v"), shared(0.1, "rate"), shared(np.ones(9))
    new = 0.9 * speed - rate * T.sum(data)
    updates = {net.W: net.W + new, speed: new}
    assert kept(path, net, updates) == ["updates.0.v", "updates.1", "updates.2.rate"]
    assert kept(path, net, list(updates.items()), without=[data]) == [
        "updates.0.v", "updates.1.rate"]
    assert kept(path, net, {}) == []
    assert kept(path, [net.W], {net.W: 0.5}) == []


def test_default_updates_are_followed(path):
    a, b = shared(1.0, "a"), shared(2.0, "b")
    a.default_update = a + b
    assert kept(path, [], {shared(0.0, "c"): a}) == ["updates.0.c", "updates.1.a", "updates.2.b"]


@pytest.mark.parametrize("streams", [RandomStreams, MRG_RandomStreams])
def test_streams_are_found_in_updates_or_given(streams, path):
    source = streams(1)
    noise, other = source.normal((2,)), source.uniform((2,))
    w = shared(np.zeros(2), "w")
    assert kept(path, [w], {w: w + noise}) == ["updates.0.random state"]
    for given in (source, [source], [other], other, [other.rng]):
        assert kept(path, [w], {w: w + noise}, given) == [
            "updates.0.random state", "updates.1.random state"]
    f = tinygraph.function([], [noise, other], updates={w: w + noise})
    f()
    lasagne.checkpoint(path, [w], {w: w + noise}, streams=source)
    want = [x.tobytes() for x in f() + f()]
    lasagne.resume(path, [w], {w: w + noise}, streams=source)
    assert [x.tobytes() for x in f() + f()] == want


def test_draws_of_a_scan_are_found(path):
    source = RandomStreams(1)
    w = shared(0.0, "w")
    total, _ = tinygraph.scan(lambda s: s + source.normal(()), outputs_info=[w], n_steps=3)
    assert kept(path, [w], {w: total[-1]}) == ["updates.0.random state"]
    net = DropoutLayer(DenseLayer((None, 2), 3))
    cost = T.sum(lasagne.layers.get_output(net, np.ones((1, 2))))
    params = lasagne.layers.get_all_params(net)
    assert kept(path, net, lasagne.updates.sgd(cost, params, 1.0)) == ["updates.0.random state"]


def test_cells_are_kept_with_their_start_states(path):
    def build():
        model = cells.StackedCells(2, cells.LSTM, [3], T.tanh)
        cost = T.sum(model.forward(T.ones((2,)))[-1] ** 2)
        updates, *_ = cells.create_optimization_updates(cost, model.params)
        return model, updates, tinygraph.function([], cost, updates=updates)

    model, updates, f = build()
    f()
    lasagne.checkpoint(path, model, updates)
    want = [float(f()) for _ in range(3)]
    model, updates, f = build()
    lasagne.resume(path, model, updates)
    assert [float(f()) for _ in range(3)] == want


# --- what does not fit ---------------------------------------------------------------------------


def training(rule=lasagne.updates.adam, units=3):
    net = DenseLayer((None, 2), units)
    return net, rule(T.sum(net.W ** 2), [net.W], 0.1)


@pytest.mark.parametrize("other, message", [
    (lambda: training(lasagne.updates.rmsprop), "lacks the variables|has 'updates"),
    (lambda: training(lasagne.updates.adamax), "lacks the variables 'updates"),
    (lambda: training(units=4), "'0.DenseLayer.W' has shape"),
    (lambda: (training()[0], {}), "has 'updates.0.*which are not here"),
    (lambda: (DenseLayer((None, 2), 3, name="x"), {}), "lacks the parameters 'x.W'"),
])
def test_another_training_is_refused_and_not_changed(other, message, path):
    lasagne.checkpoint(path, *training())
    net, updates = other()
    generator = lasagne.random.get_rng()
    everything = [*lasagne.layers.get_all_params(net), *updates]
    before = [v.get_value().tobytes() for v in everything], str(generator.get_state())
    with pytest.raises(lasagne.SavingError, match=message):
        lasagne.resume(path, net, updates)
    assert ([v.get_value().tobytes() for v in everything], str(generator.get_state())) == before


def test_optimiser_of_another_dtype(path):
    v = shared(np.zeros(2, "float32"), "v")
    lasagne.checkpoint(path, [], {v: v})
    w = shared(np.zeros(2), "v")
    with pytest.raises(lasagne.SavingError, match="float64, but.*float32; the file is of another "):
        lasagne.resume(path, [], {w: w})


@pytest.mark.parametrize("options, message", [
    ({"updates": {"W": 1}}, "updates must be a dict from shared variables.*'W'"),
    ({"streams": np.random.default_rng(0)}, "a RandomStreams or a variable.*rng=rng"),
    ({"without": "W"}, "not 'W'"),
    ({"cost": T.scalar("cost")}, "cost is cost, but only None"),
    ({"table": np.array([{}])}, "table is an array of dtype object; dtypes that can be kept"),
    ({"table": np.array(["a"])}, "table is an array of dtype <U1"),
    ({"costs": [1.0, np.float32(2)]}, r"costs\[1\] is .*write float\(x\)"),
    ({"seen": {1: 2}}, "seen is"),
])
def test_what_cannot_be_kept_is_refused(options, message, path):
    with pytest.raises(TypeError, match=message):
        lasagne.checkpoint(path, network(), **{"updates": {}, **options})
    assert not path.exists()


# --- the user's state ----------------------------------------------------------------------------


VALUES = {
    "epoch": 3, "best": 0.1, "none": None, "text": "é\n\"", "flag": True, "big": 2 ** 100,
    "empty": {}, "nested": {"a": [1, {"b": [None, 2.5]}]}, "inf": math.inf,
    "sha256": "0", "array": [1], "initialisers": 1, "state": 2, "value": 3}


def test_plain_values_come_back(path):
    lasagne.checkpoint(path, [], {}, nan=math.nan, **VALUES)
    state = lasagne.resume(path, [], {})
    assert list(state) == ["nan", *VALUES]
    assert math.isnan(state.pop("nan"))
    assert state == VALUES
    assert [type(x) for x in state.values()] == [type(x) for x in VALUES.values()]


@pytest.mark.parametrize("value", [
    np.arange(6.0).reshape(2, 3).T, np.zeros((0, 3)), np.array(2, "int8"), np.float64(0.1),
    np.bool_(True), np.arange(3, dtype=">i4"), np.arange(9)[::2], np.float16(1)])
def test_arrays_come_back(value, path):
    lasagne.checkpoint(path, {"state.value": shared(1.0)}, {}, value=value)
    found = lasagne.resume(path, {"state.value": shared(1.0)}, {})["value"]
    assert found.dtype == value.dtype.newbyteorder("=") and found.shape == value.shape
    assert np.array_equal(found, value)
    assert isinstance(found, np.ndarray) == isinstance(value, np.ndarray)


def generators():
    bits = (np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox,
            np.random.SFC64)
    return {**{f"G{b.__name__}": np.random.Generator(b(3)) for b in bits},
            **{f"R{b.__name__}": np.random.RandomState(b(3)) for b in bits}}


def draw(generator):
    """Numbers, after which a half of something is left over in most generators."""
    return [generator.normal(size=3).tolist(), generator.random(2).tolist(),
            generator.permutation(7).tolist(), generator.normal()]


@pytest.mark.parametrize("name", [*generators(), "global"])
def test_generators_go_on_where_they_were(name, path):
    generator = {**generators(), "global": np.random}[name]
    draw(generator)
    lasagne.checkpoint(path, [], {}, rng=generator)
    want = draw(generator)
    assert lasagne.resume(path, [], {}, rng=generator)["rng"] is generator
    assert draw(generator) == want
    fresh = lasagne.resume(path, [], {})["rng"]
    assert fresh is not generator and draw(fresh) == want


@pytest.mark.parametrize("given, error, message", [
    ({"rng": np.random.default_rng(0)}, lasagne.SavingError,
     "'rng' is a Generator with PCG64, but .* it is a RandomState with MT19937"),
    ({"rng": np.random}, lasagne.SavingError, "'rng' is numpy.random itself with MT19937"),
    ({"other": np.random}, lasagne.SavingError, "holds no generator 'other'"),
    ({"epoch": np.random}, lasagne.SavingError, "holds no generator 'epoch'"),
    ({"rng": 3}, TypeError, "rng is 3, but only generators of NumPy are set"),
])
def test_generators_that_do_not_fit(given, error, message, path):
    w = shared(1.0)
    lasagne.checkpoint(path, [w], {}, rng=np.random.RandomState(0), epoch=3)
    w.set_value(2.0)
    with pytest.raises(error, match=message):
        lasagne.resume(path, [w], {}, **given)
    assert w.get_value() == 2


@pytest.mark.parametrize("before", [None, 3, np.random.default_rng(0)])
@pytest.mark.parametrize("after", [None, 3, np.random.default_rng(1), np.random.Generator(
    np.random.Philox(1))])
def test_initialisers_go_on_where_they_were(before, after, path):
    lasagne.random.set_rng(before)
    lasagne.random.get_rng().normal()
    lasagne.checkpoint(path, [], {})
    want = [network().W.get_value().tolist() for _ in range(2)]
    lasagne.random.set_rng(after)
    lasagne.resume(path, [], {})
    assert [network().W.get_value().tolist() for _ in range(2)] == want
    assert (lasagne.random.get_rng() is np.random) == (before is None)


def test_a_generator_that_is_the_initialisers_too_stays_it(path):
    rng = np.random.default_rng(5)
    lasagne.random.set_rng(rng)
    lasagne.checkpoint(path, [], {}, rng=rng)
    want = rng.normal()
    lasagne.resume(path, [], {}, rng=rng)
    assert lasagne.random.get_rng() is rng and rng.normal() == want


def test_a_generator_of_another_kind_cannot_be_kept(path):
    class Own:
        normal = uniform = permutation = print

    lasagne.random.set_rng(Own())
    with pytest.raises(TypeError, match="initialisers draw from .* whose state cannot be kept"):
        lasagne.checkpoint(path, [], {})


# --- hostile states, with a right digest ---------------------------------------------------------


def tampered(path, *place, value):
    """Another value at a place in what the file says of itself, and the digest anew."""
    stored = read_file(path)
    info = stored.info
    for key in place[:-1]:
        info = info[key]
    assert place[-1] in info or isinstance(info, list)
    info[place[-1]] = value
    write_file(path, encoded(stored.tensors, stored.info | {"sha256": "0" * 64}))


def keys(*changes):
    """A key of MT19937 with other numbers at its end."""
    return [1] * (624 - len(changes)) + list(changes)


MT, PHILOX, PCG = np.random.MT19937, np.random.Philox, np.random.PCG64
STATES = [
    *((MT, ("state", "pos"), pos) for pos in (625, -1, 1.5, True, [], None, 2 ** 70)),
    *((MT, ("state", "key"), key) for key in (
        keys(2 ** 32), keys(-1), keys(0.5), keys(True), keys("1"), keys()[1:], keys() + [1], 3)),
    (MT, ("state",), {"pos": 3}),
    (MT, ("state",), [3]),
    *((MT, ("bit_generator",), name) for name in ("Philox", "default_rng", [], None)),
    *((PHILOX, ("buffer_pos",), pos) for pos in (5, -1)),
    (PHILOX, ("buffer",), [1, 2, 3]),
    (PHILOX, ("state", "counter"), [2 ** 64, 0, 0, 0]),
    (PCG, ("has_uint32",), 2),
    (PCG, ("uinteger",), 2 ** 32),
    (PCG, ("state", "inc"), 2 ** 128),
]


@pytest.mark.parametrize("bits, place, value", STATES)
@pytest.mark.parametrize("kind", [np.random.Generator, np.random.RandomState])
def test_a_state_that_is_none_is_refused(kind, bits, place, value, path):
    w = shared(1.0)
    lasagne.checkpoint(path, [w], {}, rng=kind(bits(0)))
    lasagne.resume(path, [w], {})
    tampered(path, "state", "rng", "generator", "state", *place, value=value)
    w.set_value(2.0)
    for given in ({}, {"rng": kind(bits(1))}):
        with pytest.raises(lasagne.SavingError, match="'rng' in .* is no state of a generator"):
            lasagne.resume(path, [w], {}, **given)
    assert w.get_value() == 2


@pytest.mark.parametrize("place, value", [
    (("state", "epoch"), {"array": "x"}),
    (("state", "epoch"), {"array": []}),
    (("state", "epoch"), {"other": 7}),
    (("state", "epoch"), {}),
    (("state", "epoch"), 7),
    (("state", "epoch"), {"generator": 7}),
    (("state", "epoch"), {"generator": {"kind": [], "state": {"bit_generator": "PCG64"}}}),
    (("state",), None),
    (("variables",), [3]),
    (("variables",), ["0"]),
    (("parameters",), {}),
    (("parameters",), []),
    (("kind",), 3),
    (("kind",), "parameters"),
    (("initialisers",), 3),
    (("initialisers", "kind"), "Tor"),
    (("initialisers", "state", "gauss"), "0"),
    (("initialisers", "state", "has_gauss"), 7),
])
def test_a_checkpoint_with_a_part_that_is_none_is_refused(place, value, path):
    w = shared(1.0)
    lasagne.checkpoint(path, [w], {}, epoch=7)
    tampered(path, *place, value=value)
    w.set_value(2.0)
    with pytest.raises(lasagne.SavingError):
        lasagne.resume(path, [w], {})
    assert w.get_value() == 2
