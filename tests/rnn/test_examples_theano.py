"""The example programs of the Theano face run, shortened, and learn."""

from __future__ import annotations

import runpy
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import config
from tinygraph_rnn import random
from tinygraph_rnn.tasks import REBER, Pendulum, padded_batch, pendulum_batch

EXAMPLES = Path(__file__).parents[2] / "examples"

pytest.importorskip("tqdm")


@pytest.fixture(autouse=True)
def compiled_float32(float64_interpreter: None) -> Iterator[None]:
    """Examples run as users run them."""
    with config.change(floatX="float32", backend="llvm"):
        yield


def load(name):
    return runpy.run_path(str(EXAMPLES / name))


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_elman_reber(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curve.png"
    costs, words = load("elman_reber.py")["main"](["--epochs", "6", "--plot", str(picture)])
    assert costs[-1] < 0.05 * costs[0] and len(costs) == 6
    assert len(words) == 100 and sum(word in REBER for word in words) >= 95
    printed = capsys.readouterr().out
    assert "of 100 words are in the grammar" in printed and "may come" in printed
    assert is_picture(picture)


def test_elman_reber_ends_with_the_symbol_e(capsys):
    _, words = load("elman_reber.py")["main"](["--epochs", "1", "--words", "10"])
    assert all(word.startswith("B") for word in words)
    assert all(word.find("E") in (-1, len(word) - 1) for word in words)
    assert len({len(word) for word in words}) > 5
    assert "NOT in the grammar" in capsys.readouterr().out


def test_embedded_reber(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curves.png"
    curves = load("embedded_reber.py")["main"](["--epochs", "12", "--plot", str(picture)])
    assert curves["LSTM"][-1] >= 0.99
    assert 0.4 < curves["Elman"][-1] < 0.6
    assert len(curves["LSTM"]) == 13 and curves["LSTM"][0] < 0.6
    assert "LSTM: 100.0%" in capsys.readouterr().out
    assert is_picture(picture)


def test_nested_scan_sine(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "waves.png"
    cost = load("nested_scan_sine.py")["main"](["--plot", str(picture)])
    assert cost <= 1.3e-4
    assert "after 10000 steps" in capsys.readouterr().out
    assert is_picture(picture)


def test_nested_scan_sine_is_one_native_call():
    program = load("nested_scan_sine.py")
    train, _ = program["build"](4, 0.1, np.random.default_rng(0))
    data = program["waves"]()
    assert float(train(*data)) > float(train(*data)) > 0
    assert train.compiles == 1


def test_pendulum(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "path.png"
    results = load("pendulum.py")["main"]([
        "--steps", "250", "--length", "25", "--eps", "1e-4", "--layers", "1", "--batch", "5",
        "--plot", str(picture)])
    for costs in results.values():
        assert np.mean(costs[-20:]) < 0.1 * np.mean(costs[:20])
    assert "batch: mean cost" in capsys.readouterr().out
    assert is_picture(picture)


@pytest.mark.parametrize("batch", [False, True])
def test_pendulum_trains_in_one_native_call(batch):
    args = Namespace(hidden=3, layers=1, eps=1e-4)
    random.set_rng(0)
    train, predict = load("pendulum.py")["build"](args, batch)
    start, path = pendulum_batch(2, 6, rng=0)
    if not batch:
        start, path = start[0], path[:, 0]
    first = float(train(start, path))
    assert float(train(start, path)) < first
    assert train.compiles == 1
    given = predict(start, 9)
    assert given.shape == (9, *path.shape[1:])


def test_pendulum_moves_as_the_data_do():
    """Without a motor the loop gives what NumPy gives."""
    dynamics = load("pendulum.py")["dynamics"]
    p = Pendulum(1.0, 0.7, 1.0, 1.3)
    x, u = T.matrix(), T.vector()
    state = np.random.default_rng(0).standard_normal((3, 4)).astype("float32")
    motor = np.array([1.0, -2.0, 0.0], "float32")
    found = tinygraph.function([x, u], dynamics(x.T, u, p).T)(state, motor)
    np.testing.assert_allclose(found, p.step(state, motor), rtol=2e-5, atol=2e-6)


def test_masked_batches(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curve.png"
    padded, single, least = load("masked_batches.py")["main"](
        ["--epochs", "5", "--plot", str(picture)])
    assert padded == pytest.approx(single, rel=1e-5)
    assert least <= padded < 1.1 * least
    assert "at the least" in capsys.readouterr().out
    assert is_picture(picture)


def test_masked_batches_ignore_what_lies_behind_the_end():
    random.set_rng(0)
    _, costs = load("masked_batches.py")["build"](5, 0.1)
    inputs, labels, lengths = padded_batch(["BTXSE", "BTSSSXXTVVE"])
    expected = costs(inputs, labels, lengths)
    inputs[0, 4:], labels[0, 4:] = 7.0, 3
    np.testing.assert_array_equal(costs(inputs, labels, lengths), expected)
