"""What tests of where arrays lie have in common; their devices are in conftest.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinygraph.backends.cuda.cuda_home import CudaHome
from tinygraph.backends.cuda.device import cuda_device
from tinygraph.backends.cuda.shim_array import ShimHome
from tinygraph.compile import entrance

FLOAT = "float32"


class Counted:
    """How many copies a home makes: ``up`` and ``down``, by the shapes of the arrays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.up: list[Any] = []
        self.down: list[Any] = []
        for home in (ShimHome, CudaHome):
            for name, seen in (("put", self.up), ("get", self.down)):
                monkeypatch.setattr(home, name, self.watched(getattr(home, name), seen))

    def watched(self, method: Any, seen: list[Any]) -> Any:
        def call(home: Any, array: Any, *rest: Any) -> Any:
            seen.append(array.shape)
            return method(home, array, *rest)
        return call

    def clear(self) -> None:
        self.up.clear()
        self.down.clear()


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, FLOAT)


def native(f: Any, *args: Any) -> bool:
    """Does the native entrance take this call?"""
    return f._enter(*args) is not None


def warm(f: Any, *args: Any) -> Any:
    """``f``, called often enough to know its native entrance."""
    assert entrance.method(wait=True) is not None
    for _ in range(5):
        f(*args)
    return f


def gpu_home() -> CudaHome:
    """The home of the GPU that CuPy has chosen."""
    return cuda_device().home
