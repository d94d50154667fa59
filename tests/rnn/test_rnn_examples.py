"""The example programs run, and the learning one learns."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from tinygraph import config
from tinygraph_rnn.tasks import add_batch

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    return runpy.run_path(str(EXAMPLES / name))


def test_add_task(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tqdm")
    picture = tmp_path / "curve.png"
    program = load("add_task.py")
    with config.change(floatX="float32"):
        validation = program["main"]([
            "--epochs", "2", "--epoch-size", "3", "--min-length", "5", "--max-length", "6",
            "--hidden", "3", "--backend", "numpy", "--output", str(picture)])
    assert len(validation) == 2 and np.all(np.isfinite(validation))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "Epoch 2 validation cost = " in capsys.readouterr().out


def test_add_task_learns():
    pytest.importorskip("matplotlib")
    pytest.importorskip("tqdm")
    train, compute_cost = load("add_task.py")["build"](hidden=4)
    rng = np.random.default_rng(0)
    data = add_batch(20, 3, 4, rng)
    before = float(compute_cost(*data))
    assert float(train(*data)) == pytest.approx(before)
    for _ in range(20):
        last = float(train(*data))
    assert float(compute_cost(*data)) < last < 0.97 * before


def test_interrupted_add_task_keeps_what_it_has(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tqdm")
    program = load("add_task.py")
    calls = []

    def interrupted(**lengths):
        calls.append(lengths)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return add_batch(**lengths)

    monkeypatch.setitem(program["learn"].__globals__, "add_batch", interrupted)
    picture = tmp_path / "curve.png"
    assert program["main"](["--min-length", "4", "--max-length", "4", "--hidden", "2",
                            "--output", str(picture)]) == []
    assert "Stopped after 2 minibatches" in capsys.readouterr().out and picture.exists()


def test_symbolic_basics(capsys):
    program = load("symbolic_basics.py")
    with config.change(floatX="float32"):
        program["main"]()
    printed = capsys.readouterr().out
    assert "-> 0.00000" in printed and "weights [ 1.99" in printed
    assert "[1.    1.5   1.75  1.875]" in printed
