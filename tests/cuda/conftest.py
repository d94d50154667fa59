"""Kernels by hand for the tests of the shim.  Makes the tables of other rooms importable."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

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
