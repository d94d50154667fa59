"""Which back ends work here, and what the others need: ``python -m tinygraph doctor``."""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import llvmlite.binding as llvm
import numpy as np

import tinygraph
import tinygraph.tensor as T
from tinygraph.backends.cuda import device, nvrtc
from tinygraph.config import config, processors
from tinygraph.errors import UnavailableError

BACKENDS = ("llvm", "loops", "numpy", "cuda")
PACKAGES = ("numpy", "llvmlite", "networkx", "safetensors")
CUDA_PACKAGES = tuple(name for names in nvrtc.WHEELS.values() for name in names)
_VECTORS = ("avx512f", "avx2", "fma", "avx", "sse4.2", "neon", "sve")


@dataclass(frozen=True)
class Finding:
    """A back end, and what keeps it from working, a line each; '' if it works."""

    backend: str
    problem: str


def try_out(backend: str) -> None:
    """Compile and run a small function: a product, a loop, a gradient.

    Raises what the back end raises, AssertionError where it gives other numbers than NumPy.
    """
    x, w = T.matrix("x", dtype="float32"), T.matrix("w", dtype="float32")
    hs, _ = tinygraph.scan(lambda x_t, h: T.tanh(x_t + T.dot(h, w)), sequences=x,
                           outputs_info=T.zeros_like(x[0]))
    cost = hs.sum()
    f = tinygraph.function([x, w], [cost, tinygraph.grad(cost, w)], backend=backend)
    inputs = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)
    weights = np.array([[0.5, -0.25], [0.125, 1]], np.float32)
    found = f(inputs, weights)
    for got, wanted in zip(found, _by_hand(inputs, weights), strict=True):
        if not np.allclose(got, wanted, rtol=1e-4, atol=1e-5):
            raise AssertionError(f"a small recurrent net gives {got}, and {wanted} is right")


def _by_hand(x: np.ndarray, w: np.ndarray) -> list[Any]:
    """The same cost and gradient, written out."""
    states = [np.zeros(2)]
    for row in x.astype(np.float64):
        states.append(np.tanh(row + states[-1] @ w))
    gradient, later = np.zeros((2, 2)), np.zeros(2)
    for before, state in zip(states[-2::-1], states[:0:-1], strict=True):
        slope = (1 + later) * (1 - state ** 2)
        gradient += np.outer(before, slope)
        later = w @ slope
    return [np.sum(states), gradient]


def examine(backend: str, trial: Callable[[str], None] = try_out) -> Finding:
    """Does a back end work here?  A back end that cannot run is not tried."""
    problem = "\n".join(device.obstacles()) if backend == "cuda" else ""
    if not problem:
        try:
            trial(backend)
        except Exception as error:  # whatever it is, it is what the user wants to know
            problem = f"{type(error).__name__}: {error}"
    return Finding(backend, problem)


def doctor(out: TextIO | None = None) -> int:
    """Write what works here to ``out`` (standard output); 0 if the back end 'llvm' does."""
    write = (out or sys.stdout).write
    write("\n".join([*machine(), ""]) + "\n")
    findings = []
    for backend in BACKENDS:
        findings.append(examine(backend))
        said = (findings[-1].problem or "works").replace("\n", "\n       ")
        write(f"{backend:<6} {said}\n")
    return int(any(f.problem for f in findings if f.backend == "llvm"))


def machine() -> list[str]:
    """The versions, the processor, the cache and the GPU, a line each."""
    where = f"{platform.system()} {platform.machine()}"
    lines = [f"tinygraph {tinygraph.__version__}, Python {platform.python_version()}, {where}",
             ", ".join(_package(name) for name in PACKAGES)]
    features = llvm.get_host_cpu_features()
    vectors = [v for v in _VECTORS if features.get(v)] or ["no vectors"]
    lines.append(f"CPU {llvm.get_host_cpu_name()} ({', '.join(vectors)}), {processors()} "
                 f"processors, {config.threads} threads a call")
    lines.append(f"cache {config.cache_path} ({_cache_state(config.cache_path)})")
    return [*lines, *_cuda_lines()]


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def _cache_state(path: Path) -> str:
    """Whether compiled code is kept there."""
    if config.cache != "on":
        return "switched off"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return "can be written"
    except OSError as error:
        return f"cannot be written: {error.strerror}; set TINYGRAPH_CACHE_DIR"


def _cuda_lines() -> list[str]:
    """What there is of CUDA."""
    found = [_package(name) for name in CUDA_PACKAGES]
    found = [text for text in found if not text.startswith("no ")]
    driver = nvrtc.driver_version()
    if driver is not None:
        found.insert(0, f"driver for CUDA {driver // 1000}.{driver % 1000 // 10}")
    lines = [f"CUDA {', '.join(found) or 'nothing'}"]
    if driver is None:
        return lines
    try:
        gpu = device.require_cuda()
        lines.append(f"GPU {gpu.name}, {gpu.arch}, {gpu.multiprocessors} multiprocessors, "
                     f"{'cuBLAS' if gpu.products else 'no cuBLAS: products by our own kernels'}")
    except UnavailableError:
        return lines  # the back end's own line says why
    return lines
