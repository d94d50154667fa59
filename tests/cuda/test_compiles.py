"""NVRTC compiles every kernel of the examples for every architecture: half of them to machine code
for one, whose turn it is, and those of the add task for all.

Whatever a test in this folder emits (conftest.py) is compiled for every architecture, too, a part
of it to machine code: all ops and their gradients, scans, layers, training functions, random
programs.
"""

from __future__ import annotations

import argparse
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from compiling import Emitted, kernels_in, needs_nvrtc
from test_scans import layers

import tinygraph
import tinygraph_rnn as lasagne
from tinygraph import function, grad

FOLDER = Path(__file__).parents[2] / "examples"
pytestmark = needs_nvrtc


@pytest.fixture(autouse=True)
def shim() -> Any:
    lasagne.random.set_rng(3)
    with tinygraph.config.change(cache="off", backend="shim"):
        yield
    lasagne.random.set_rng(None)


def load(name: str) -> dict[str, Any]:
    """The names of an example."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("tqdm")
    return runpy.run_path(str(FOLDER / f"{name}.py"))


def all_layers() -> list[Any]:
    inputs, cost, params = layers("float32")
    return [function(inputs, [cost, *grad(cost, params)])]


def wide() -> list[Any]:
    return [models.lstm("stacked", mask=True, peepholes=True, clip=1.0, hidden=40).training()]


# --- the examples: those that train give their functions, the others run


def custom_cell() -> list[Any]:
    program = load("custom_cell")
    return [f for name in program["CELLS"] for f in program["build"](program["CELLS"][name], 5)[:2]]


def elman_reber() -> list[Any]:
    program = load("elman_reber")
    network = program["Elman"](4, np.random.default_rng(0))
    symbols, updates = network.write(0, 9)
    return [program["training"](network, 0.1), function([], symbols, updates=updates)]


def embedded_reber() -> list[Any]:
    program = load("embedded_reber")
    return [f for name in program["NETWORKS"] for f in program["build"](
        program["NETWORKS"][name], argparse.Namespace(hidden=5, rate=0.1))]


def nested_scan_sine() -> list[Any]:
    return load("nested_scan_sine")["build"](5, 0.1, np.random.default_rng(0))


def pendulum() -> list[Any]:
    options = argparse.Namespace(hidden=5, layers=2, eps=1e-5)
    return load("pendulum")["build"](options, True)[:1]


def main(name: str) -> list[Any]:
    load(name)["main"]()
    return []


EXAMPLES: dict[str, Callable[[], Sequence[Any]]] = {
    "add_task": lambda: load("add_task")["build"](6),
    "custom_cell": custom_cell, "elman_reber": elman_reber, "embedded_reber": embedded_reber,
    "masked_batches": lambda: load("masked_batches")["build"](5, 0.1),
    "nested_scan_sine": nested_scan_sine, "pendulum": pendulum,
    **{name: lambda name=name: main(name)
       for name in ("symbolic_basics", "write_a_pass", "write_an_op")},
}
PROGRAMS = {"all layers": all_layers, "a wide LSTM": wide, **EXAMPLES}


def test_no_example_is_left_out() -> None:
    assert set(EXAMPLES) == {path.stem for path in FOLDER.glob("*.py")}


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_every_kernel_compiles(name: str, emitted: Emitted) -> None:
    assert all(kernels_in(f.source("cuda")) for f in PROGRAMS[name]())
    assert emitted.waiting
    emitted.compile(name, whole=name == "add_task")
    assert not emitted.waiting
