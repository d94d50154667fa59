"""Where arrays lie: on the host, or on a device that runs kernels.

A *home* is such a device as far as its arrays go.  None stands for the host, whose arrays are
NumPy's.  What a home's arrays are is its own affair; all of them have ``shape``, ``dtype``,
``ndim``, ``size``, ``nbytes`` and ``get()``, which copies to the host.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from tinygraph.backends.cuda.shim_array import SHIM, ShimArray

ON_HOST = (1, 3)  # DLPack's kDLCPU, kDLCUDAHost
ON_GPU = (2, 13)  # kDLCUDA, kDLCUDAManaged


class Home(Protocol):
    """A place for arrays.  Work that one of these methods begins may go on after it has returned;
    whatever else is done with the array here stands in line behind it."""

    name: str  # for messages: 'GPU 0'

    def put(self, array: np.ndarray) -> Any:
        """A copy of a host array, which may be changed as soon as this returns."""

    def get(self, array: Any, out: np.ndarray | None = None) -> np.ndarray:
        """A copy on the host, in ``out`` if given."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """A new array, its elements not set."""

    def copy(self, array: Any) -> Any:
        """A copy of a plain array."""

    def part(self, array: Any, shape: tuple[int, ...]) -> Any:
        """The first elements of a plain vector as an array of ``shape``; all of them without a
        copy."""

    def take(self, value: Any) -> Any:
        """``value`` as an array of this home, without a copy, if it is on this device; if it is
        on another of the kind, a copy; else None."""

    def plain(self, array: Any) -> Any:
        """An array of this home C-contiguous and aligned: itself if it is, else a copy."""


def place_of(value: Any) -> tuple[int, int] | None:
    """The kind (as DLPack has it) and number of the device on which an array of any library lies;
    None for what does not say, NumPy's among them."""
    if isinstance(value, (np.ndarray, np.generic)):
        return None
    if hasattr(type(value), "__dlpack_device__"):
        kind, number = value.__dlpack_device__()
        return int(kind), int(number)
    if hasattr(value, "__cuda_array_interface__"):
        return ON_GPU[0], -1  # which one it does not say
    return None


def home_of(value: Any) -> Home | None:
    """The home on which ``value`` lies; None for the host, and for what is no array.

    Raises UnavailableError for an array of a GPU where CuPy is missing.
    """
    if isinstance(value, ShimArray):
        return SHIM
    place = place_of(value)
    if place is None or place[0] not in ON_GPU:
        return None
    from tinygraph.backends.cuda.device import cuda_device

    return cuda_device(place[1] if place[1] >= 0 else None).home


def on_host(array: Any, home: Home | None) -> np.ndarray:
    """An array of ``home``, or of NumPy, as NumPy's: itself if it is that."""
    return array if home is None or isinstance(array, np.ndarray) else home.get(array)
