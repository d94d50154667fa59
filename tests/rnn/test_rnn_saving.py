"""Parameters in files: their names, what is refused, and how a file is written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as lasagne
from tinygraph import config
from tinygraph_rnn import cells
from tinygraph_rnn.layers import (
    CustomRecurrentLayer,
    DenseLayer,
    InputLayer,
    Layer,
    LSTMLayer,
)
from tinygraph_rnn.saving.names import named

ROOT = Path(__file__).parents[2]


def network(units=3, name=None, floatX="float64", tied=False):
    """Two dense layers on an input layer."""
    with config.change(floatX=floatX):
        first = DenseLayer(InputLayer((None, 4)), 4, name=name)
        return DenseLayer(first, 4 if tied else units, W=first.W if tied else
                          lasagne.init.GlorotUniform())


def bits(network):
    return [v.get_value().tobytes() for v in named(network).values()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


# --- names and round trips -----------------------------------------------------------------------


class Scaled(Layer):
    """Parameters without names, with equal names, and given as expressions."""

    def __init__(self, incoming, name=None):
        super().__init__(incoming, name)
        self.add_param(tinygraph.shared(np.ones(4)), (4,))
        self.add_param(tinygraph.shared(np.ones(4), name="w"), (4,))
        self.add_param(tinygraph.shared(np.ones(4), name="w"), (4,))
        half = tinygraph.shared(np.ones(4), name="half")
        self.add_param(half + half, (4,), name="whole")


def variables(*names):
    return [tinygraph.shared(np.random.default_rng(k).normal(size=2), name=name)
            for k, name in enumerate(names)]


def stack():
    model = cells.StackedCells(2, cells.LSTM, [3], T.tanh)
    model.layers.append(cells.Layer(3, 1, T.tanh))
    return model


def expression():
    a, b = variables("a", "b")
    return [a, a * b, T.tanh(b)]


class Model:
    """Parameters under attributes, in a layer and elsewhere."""

    layers = 3

    def __init__(self):
        self.gate, self.hidden = cells.Layer(2, 3, T.tanh), variables("u", None)
        self.out = variables("w")[0]
        self.params = [*self.gate.params, self.out, *self.hidden]


class Stack(cells.StackedCells):
    def __init__(self):
        super().__init__(2)
        self.layers.append(cells.Layer(2, 2, T.tanh))
        self.out = variables("w")[0]

    @property
    def params(self):
        return [*super().params, self.out]


GATES = [f"0.LSTM.{gate}.{what}" for gate in ("in_gate", "forget_gate", "in_gate2", "out_gate")
         for what in ("linear_matrix", "bias_matrix")]
NETWORKS = {
    "unnamed layers": (network, ["0.DenseLayer.W", "0.DenseLayer.b", "1.DenseLayer.W",
                                 "1.DenseLayer.b"]),
    "a named layer": (lambda: network(name="low"), ["low.W", "low.b", "1.DenseLayer.W",
                                                    "1.DenseLayer.b"]),
    "tied": (lambda: network(tied=True), ["0.DenseLayer.W", "0.DenseLayer.b", "1.DenseLayer.b"]),
    "layers without parameters do not count": (
        lambda: DenseLayer(lasagne.layers.ReshapeLayer(InputLayer((2, 4)), (4, 2)), 3),
        ["0.DenseLayer.W", "0.DenseLayer.b"]),
    "a list of layers": (
        lambda: [DenseLayer((None, 4), 2), DenseLayer((None, 4), 2, name="out", b=None)],
        ["0.DenseLayer.W", "0.DenseLayer.b", "out.W"]),
    "two layers of one name": (
        lambda: [DenseLayer((None, 4), 2, name="x"), DenseLayer((None, 4), 2, name="x")],
        ["x.W", "x.b", "x.W~2", "x.b~2"]),
    "odd parameters": (
        lambda: Scaled((None, 4)),
        ["0.Scaled.param0", "0.Scaled.w", "0.Scaled.w~2", "0.Scaled.half"]),
    "variables": (lambda: variables("a", None, "a"), ["0.a", "1", "2.a"]),
    "expressions": (expression, ["0.a", "1.b"]),
    "one variable": (lambda: variables("w")[0], ["0.w"]),
    "a dict": (lambda: OrderedDict(zip(("é", "__metadata__x", "tinygraph"),
                                       variables("p", "p", "p"), strict=True)),
               ["é", "__metadata__x", "tinygraph"]),
    "stacked cells": (stack, [*GATES, "0.LSTM.initial_hidden_state", "1.Layer.linear_matrix",
                              "1.Layer.bias_matrix"]),
    "cells": (lambda: [cells.Embedding(3, 2)], ["0.Embedding.embedding_matrix"]),
    "a cell": (lambda: cells.Embedding(3, 2), ["0.Embedding.embedding_matrix"]),
    "another model with params": (Model, ["0.Model.gate.linear_matrix", "0.Model.gate.bias_matrix",
                                          "0.Model.out", "0.Model.u", "0.Model.param4"]),
    "a stack with more": (Stack, ["0.Layer.linear_matrix", "0.Layer.bias_matrix", "Stack.out"]),
    "a custom recurrent layer": (
        lambda: CustomRecurrentLayer(InputLayer((None, None, 2)), DenseLayer(
            InputLayer((None, 2)), 3, name="in"), DenseLayer(InputLayer((None, 3)), 3),
            learn_init=True),
        ["0.CustomRecurrentLayer.hid_init", "0.CustomRecurrentLayer.in.W",
         "0.CustomRecurrentLayer.in.b", "0.CustomRecurrentLayer.W", "0.CustomRecurrentLayer.b"]),
    "nothing": (lambda: [], []),
}


@pytest.mark.parametrize("build, names", NETWORKS.values(), ids=NETWORKS)
def test_round_trip_by_name(build, names, path):
    network, other = build(), build()
    assert list(named(network)) == names
    for v in named(other).values():
        v.set_value(v.get_value() + 1)
    lasagne.save(path, network)
    lasagne.load(path, other)
    assert bits(other) == bits(network)
    arrays = lasagne.load(path)
    assert list(arrays) == names
    assert all(a.flags.writeable and a.flags.owndata for a in arrays.values())


def test_clones_on_one_storage_are_one_parameter():
    w = tinygraph.shared(np.ones(2), name="w")
    assert list(named([w, w.clone()])) == ["0.w"]


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "float32",
                                   "float64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (3, 2), (1, 1, 5)])
def test_every_dtype_and_shape(dtype, shape, path):
    value = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    lasagne.save(path, {"v": tinygraph.shared(value)})
    new = tinygraph.shared(np.zeros_like(value))
    lasagne.load(path, {"v": new})
    found = new.get_value()
    assert (found.dtype, found.shape, found.tobytes()) == (dtype, shape, value.tobytes())


@pytest.mark.parametrize("wrong", [3, None, "W", object(), [1], [DenseLayer((2, 2), 2), 3],
                                   {"a": 1}, {1: tinygraph.shared(1.0)}])
def test_what_has_no_parameters_is_refused(wrong, path):
    with pytest.raises(TypeError, match="needed, not|needed, but it has"):
        lasagne.save(path, wrong)
    assert not path.exists()


def test_equal_content_gives_equal_files(tmp_path):
    net = network()
    for name in "ab":
        lasagne.save(tmp_path / name, net, epoch=3, author="é")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert lasagne.read_metadata(tmp_path / "a") == {"epoch": 3, "author": "é"}


def test_other_programs_can_read_the_files(path):
    from safetensors.numpy import load_file

    net = network()
    lasagne.save(path, net)
    found = load_file(path)
    assert {n: a.tobytes() for n, a in found.items()} == {
        n: v.get_value().tobytes() for n, v in named(net).items()}


@pytest.mark.parametrize("bad", [np.float32(1), {"a": [1, {2}]}, {1: 2}, b"x"])
def test_metadata_is_json(bad, path):
    with pytest.raises(TypeError, match="metadata.*can be kept"):
        lasagne.save(path, network(), note=bad)
    assert not path.exists()


def test_importing_needs_no_safetensors():
    program = "import sys, tinygraph_rnn; print('safetensors' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_values_are_those_of_one_moment(path):
    """A thread that trains changes both or none between two readings."""
    a, b = tinygraph.shared(0, "a"), tinygraph.shared(0, "b")
    step = tinygraph.function([], updates={a: a + 1, b: b + 1})
    done = threading.Event()

    def train():
        while not done.is_set():
            step()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for _ in range(50):
            lasagne.save(path, [a, b])
            found = lasagne.load(path)
            assert found["0.a"] == found["1.b"]
            lasagne.load(path, [a, b])
    finally:
        done.set()
        thread.join()
    assert a.get_value() == b.get_value()


# --- what does not fit ---------------------------------------------------------------------------


def swapped():
    """As ``network``, but the second layer has another shape: the first one fits."""
    return network(units=5)


MISFITS = {
    "shape": (swapped, r"'1\.DenseLayer\.W' has shape \(4, 5\), but in .*net\.safetensors it has "
                       r"\(4, 3\)"),
    "dtype": (lambda: network(floatX="float32"),
              r"'0\.DenseLayer\.W' is of dtype float32, but .* of float64; pass cast=True"),
    "name": (lambda: network(name="low"),
             r"lacks the parameters 'low\.W', 'low\.b' and has "
             r"'0\.DenseLayer\.W', '0\.DenseLayer\.b', which are not here; strict=False"),
    "fewer": (lambda: DenseLayer((None, 4), 4), "has '1.DenseLayer.W', '1.DenseLayer.b', which"),
    "more": (lambda: DenseLayer(network(), 2), "lacks the parameters '2.DenseLayer.W'"),
    "untied": (lambda: LSTMLayer((None, None, 2), 3), "lacks .* and 1[0-9] more"),
}


@pytest.mark.parametrize("build, message", MISFITS.values(), ids=MISFITS)
def test_another_network_is_refused_and_not_changed(build, message, path):
    lasagne.save(path, network())
    other = build()
    before = bits(other)
    with pytest.raises(lasagne.SavingError, match=message):
        lasagne.load(path, other)
    assert bits(other) == before


def test_a_tied_file_does_not_fit_an_untied_network(path):
    lasagne.save(path, network(tied=True))
    with pytest.raises(lasagne.SavingError, match=r"lacks the parameters '1\.DenseLayer\.W'"):
        lasagne.load(path, network(units=4))


def test_strict_false_loads_what_both_have(path):
    net, other = network(), network(name="low")
    lasagne.save(path, net)
    before = bits(other)
    lasagne.load(path, other, strict=False)
    assert bits(other) == before[:2] + bits(net)[2:]
    with pytest.raises(lasagne.SavingError, match="has none of the parameters"):
        lasagne.load(path, LSTMLayer((None, None, 2), 3), strict=False)
    with pytest.raises(lasagne.SavingError, match="has shape"):
        lasagne.load(path, swapped(), strict=False)


@pytest.mark.parametrize("value, dtype, message", [
    ([1e300], "float32", "float32 cannot hold, such as 1e"),
    ([300], "uint8", "cannot be converted"),
    ([2 ** 40], "int32", "int32 cannot hold"),
    ([1.5], "int64", "cannot be converted"),
])
def test_cast_refuses_what_is_more_than_rounding(value, dtype, message, path):
    lasagne.save(path, {"v": tinygraph.shared(np.array(value))})
    v = tinygraph.shared(np.ones(1, dtype))
    with pytest.raises(lasagne.SavingError, match=message):
        lasagne.load(path, {"v": v}, cast=True)
    assert v.get_value() == [1]


def test_cast_rounds(path):
    net, other = network(), network(floatX="float32")
    lasagne.save(path, net)
    lasagne.load(path, other, cast=True)
    assert bits(other) == [v.get_value().astype("float32").tobytes()
                           for v in named(net).values()]


# --- writing -------------------------------------------------------------------------------------


def test_a_missing_file_is_an_oserror(path):
    with pytest.raises(FileNotFoundError):
        lasagne.load(path, network())
    with pytest.raises(FileNotFoundError):
        lasagne.save(path / "no" / "folder", network())


@pytest.mark.parametrize("failing", ["fsync", "replace", "chmod"])
def test_a_failing_write_leaves_the_old_file_and_no_litter(failing, path, monkeypatch):
    lasagne.save(path, network())
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        lasagne.save(path, network(units=5))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
def test_a_full_disk(path):
    program = ("import sys, resource, signal, numpy, tinygraph, tinygraph_rnn as lasagne\n"
               "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
               "lasagne.save(sys.argv[1], [tinygraph.shared(numpy.ones(9))])\n"
               "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
               "try:\n    lasagne.save(sys.argv[1], [tinygraph.shared(numpy.ones(9999))])\n"
               "except OSError as error:\n    print(error.errno)\n")
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True,
                          text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "27"
    assert list(lasagne.load(path)["0"]) == [1] * 9
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_permissions_and_links_are_kept(path):
    old = os.umask(0o027)
    try:
        lasagne.save(path, network())
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    link = path.with_name("link")
    link.symlink_to(path)
    lasagne.save(link, network(units=5))
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert lasagne.load(path)["1.DenseLayer.W"].shape == (4, 5)
