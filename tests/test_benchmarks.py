"""The benchmark programs run, and peers compute the same; nothing here looks at a time."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygraph import config
from tinygraph_rnn import random

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """A module of the benchmarks by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if BENCHMARKS in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
            del sys.modules[name]
    random.set_rng(None)


def small(peer, clip):
    """A problem that takes no time, with parameters of a size that all gradients count."""
    return peer.create(0, batch=6, length=7, hidden=3, clip=clip)


def test_tinygraph_steps(load):
    peer, worker = load("tinygraph_tutorial"), load("worker")
    with config.change(floatX="float32", backend="numpy"):
        arrays = small(peer, 100.0)
        workload = peer.Workload(arrays, "")
        first, second = workload.step(), workload.step()
        assert second < first
        assert len(worker.timed(workload, 2)) == 2
        after, gradients = workload.parameters(), workload.gradients()
    assert {f"parameter.{name}" for name in after} == {n for n in arrays if n[:10] == "parameter."}
    for name, gradient in gradients.items():
        old = arrays[f"parameter.{name}"]
        assert gradient.shape == after[name].shape == old.shape and gradient.dtype == np.float32
        assert gradient.any() and (after[name] != old).any()
    for name, value in workload.parameters().items():  # gradients() leaves the parameters alone
        np.testing.assert_array_equal(value, after[name])


@pytest.mark.parametrize("variant", ["scans", "vmapped"])
@pytest.mark.parametrize("clip", [100.0, 1e-3], ids=["clip-idle", "clip-bites"])
def test_tinygraph_and_jax_agree(load, variant, clip):
    pytest.importorskip("jax", reason="JAX is not installed: nothing to compare with")
    peer, jax_peer, harness = load("tinygraph_tutorial"), load("jax_tutorial"), load("harness")
    with config.change(floatX="float32"):
        arrays = small(peer, clip)
        own, other = peer.Workload(arrays, ""), jax_peer.Workload(arrays, variant)
        assert own.step() == pytest.approx(other.step(), rel=1e-5)
        assert harness.furthest(own.parameters(), other.parameters())[0] < 1e-5
        clipped = own.gradients()
        assert harness.furthest(clipped, other.gradients())[0] < 1e-4
        free = peer.Workload({**arrays, "clip": np.float64(0)}, "").gradients()
    # the clipping acts in the one case, and in the other it does not
    assert (harness.furthest(clipped, free)[0] > 1e-2) == (clip < 1)


def test_jax_layout_is_reversible(load):
    pytest.importorskip("jax", reason="JAX is not installed: its layout cannot be tested")
    peer, jax_peer = load("tinygraph_tutorial"), load("jax_tutorial")
    with config.change(floatX="float32"):
        arrays = small(peer, 1.0)
    back = jax_peer.separate(jax_peer.fuse(arrays))
    assert {f"parameter.{name}" for name in back} == {n for n in arrays if n[:10] == "parameter."}
    for name, value in back.items():
        np.testing.assert_array_equal(value, arrays[f"parameter.{name}"])


def test_furthest_finds_the_difference(load):
    harness = load("harness")
    right = {"a": np.array([1.0, -10.0]), "b": np.zeros(2)}
    assert harness.furthest(right, right) == (0.0, "")
    assert harness.furthest({**right, "a": np.array([1.0, -9.0])}, right) == (0.1, "a")
    assert harness.furthest({**right, "b": np.array([0.0, 0.5])}, right) == (0.5, "b")
    bad, name = harness.furthest({**right, "a": np.array([np.nan, -10.0])}, right)
    assert name == "a" and not bad <= 1e-4
    with pytest.raises(ValueError, match="only one side has .*'b'"):
        harness.furthest({"a": right["a"]}, right)
    with pytest.raises(ValueError, match="a has shape"):
        harness.furthest({**right, "a": np.zeros(3)}, right)


def test_program_without_jax(load, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TINYGRAPH_BACKEND", "numpy")
    path = tmp_path / "figures.json"
    report = load("tutorial").main([
        "--blocks", "2", "--steps", "2", "--starts", "1", "--batch", "4", "--length", "5",
        "--hidden", "2", "--json", str(path)])
    assert json.loads(path.read_text()) == report
    assert set(report["steps"]) == {"tinygraph"}
    assert len(report["steps"]["tinygraph"]["blocks"]) == 2
    assert set(report["starts"]) == {"tinygraph", "tinygraph, warm"}
    assert "a training step, ms" in capsys.readouterr().out
