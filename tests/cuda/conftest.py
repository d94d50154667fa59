"""Kernels by hand for the tests of the shim; every kernel that a test emits is compiled by NVRTC,
where it is installed.  Makes the tables of other rooms importable."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from compiling import MISSING, Emitted

from tinygraph.backends.cuda.prelude import prelude
from tinygraph.backends.cuda.shim import Shim

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


@pytest.fixture(scope="session")
def all_emitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emitted]:
    """Notes the kernels of all tests in this process."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base  # of all workers of a run
    emitted = Emitted(shared / "kernels")
    with emitted.watching():
        yield emitted


@pytest.fixture(autouse=True)
def emitted(all_emitted: Emitted, request: pytest.FixtureRequest) -> Iterator[Emitted]:
    """What a test emits is compiled after it, at the latest."""
    all_emitted.waiting.clear()
    yield all_emitted
    if MISSING is None:
        all_emitted.compile(request.node.name)
