"""Kernels by hand for the tests of the shim; devices for tests of arrays; every kernel that a
test emits is compiled by NVRTC, where it is installed.  Makes the tables of other rooms
importable."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_cupy
import fake_gpu
import pytest
from compiling import MISSING, Emitted
from placing import FLOAT, Counted, gpu_home

import tinygraph
from tinygraph.backends.cuda.prelude import prelude
from tinygraph.backends.cuda.shim import Shim
from tinygraph.backends.cuda.shim_array import SHIM, ShimArray

sys.path += [str(Path(__file__).parents[1] / room)
             for room in ("lowering", "passes", "extension", "tensor")]


@dataclass(frozen=True)
class Hand:
    """A kernel written by hand: as much of one as the shim needs."""

    name: str
    shared_bytes: int = 0


@pytest.fixture(scope="session")
def shim() -> Callable[..., Shim]:
    """shim(text, *names): the prelude and ``text``, compiled."""
    def build(text: str, *names: str, shared_bytes: int = 0, block: int = 256) -> Shim:
        kernels = [Hand(name, shared_bytes) for name in names]
        return Shim(prelude(block) + text, kernels)

    return build


@pytest.fixture(params=["shim", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A back end, the home of its arrays, their type."""
    with tinygraph.config.change(cache="off", floatX=FLOAT):
        if request.param == "shim":
            yield SimpleNamespace(backend="shim", home=SHIM, array=ShimArray)
        else:
            fake_gpu.install(monkeypatch)
            yield SimpleNamespace(backend="cuda", home=gpu_home(), array=fake_cupy.ndarray)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """The copies that homes make."""
    return Counted(monkeypatch)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A GPU that is not there is the back end; what is asked of it."""
    with tinygraph.config.change(cache="off", floatX=FLOAT, backend="cuda"):
        yield fake_gpu.install(monkeypatch).log


@pytest.fixture(scope="session")
def all_emitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emitted]:
    """Notes the kernels of all tests in this process."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base  # of all workers of a run
    emitted = Emitted(shared / "kernels")
    with emitted.watching():
        yield emitted
    if MISSING is None:
        emitted.flush()


@pytest.fixture(autouse=True)
def emitted(all_emitted: Emitted, request: pytest.FixtureRequest) -> Iterator[Emitted]:
    """What tests emit is compiled after some of them, and after the last one."""
    yield all_emitted
    if MISSING is None:
        all_emitted.after(request.node.nodeid)
