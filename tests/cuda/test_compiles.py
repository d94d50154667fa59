"""NVRTC compiles what is emitted for models, training functions, the examples and gradients of the
tables of ops, for every architecture (the tables themselves: test_nvrtc.py)."""

from __future__ import annotations

import argparse
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import test_lower_ops as ops
import test_lower_scalars as scalars
from compiling import needs_nvrtc, targets
from test_ops import gradients
from test_scans import layers, tutorial

import tinygraph
import tinygraph_rnn as lasagne
from tinygraph import dtypes, function, grad
from tinygraph.backends.cuda import nvrtc
from tinygraph.backends.cuda.prelude import prelude

EXAMPLES = Path(__file__).parents[2] / "examples"
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
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def all_layers() -> list[Any]:
    inputs, cost, params = layers("float32")
    return [function(inputs, [cost, *grad(cost, params)])]


def wide() -> list[Any]:
    return [models.lstm("stacked", mask=True, peepholes=True, clip=1.0, hidden=40).training()]


def table(case: Any) -> list[Any]:
    with tinygraph.config.change(floatX="float64"):
        return [function(*gradients(case), on_unused_input="ignore")]


def numbers(dtype: Any) -> list[Any]:
    inputs, _, outputs, _ = scalars.applications(dtype, np.random.default_rng(0))
    return [function(inputs, outputs)]


def elman() -> list[Any]:
    program = load("elman_reber")
    network = program["Elman"](4, np.random.default_rng(0))
    symbols, updates = network.write(0, 9)
    return [program["training"](network, 0.1), function([], symbols, updates=updates)]


def pendulum() -> list[Any]:
    options = argparse.Namespace(hidden=5, layers=2, eps=1e-5)
    return load("pendulum")["build"](options, True)[:1]


def reber() -> list[Any]:
    program = load("embedded_reber")
    return program["build"](program["NETWORKS"]["LSTM"],
                            argparse.Namespace(hidden=5, rate=0.1))[:1]


def custom() -> list[Any]:
    program = load("custom_cell")
    return [program["build"](program["CELLS"][name], 5)[0] for name in ("layer-norm", "minimal")]


def nested() -> list[Any]:
    return load("nested_scan_sine")["build"](5, 0.1, np.random.default_rng(0))[:1]


PROGRAMS: dict[str, Callable[[], list[Any]]] = {
    "the tutorial": lambda: [tutorial("shim")[0]],
    "all layers": all_layers, "a wide LSTM": wide,
    "custom_cell": custom, "elman_reber": elman, "embedded_reber": reber,
    "masked_batches": lambda: load("masked_batches")["build"](5, 0.1)[:1],
    "nested_scan_sine": nested, "pendulum": pendulum,
    **{f"gradients of {case.__name__}": lambda case=case: table(case)
       for case in (ops.sliding, ops.joining, ops.reductions, ops.order, ops.indices)},
    **{f"functions of {name}": lambda name=name: numbers(getattr(dtypes, name))
       for name in ("float32", "float64", "int8", "uint8")},
}


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_every_kernel_compiles(name: str) -> None:
    """To PTX: machine code takes four times as long, and test_nvrtc.py has it made."""
    for f in PROGRAMS[name]():
        text = f.source("cuda")
        assert "__global__" in text
        for arch in targets():
            made = nvrtc.compile_source(prelude() + text, arch.replace("sm", "compute"), name)
            assert text.count("__global__") == made.count(b".entry")
