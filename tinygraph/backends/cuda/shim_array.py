"""Arrays of the shim: they lie in the CPU's memory, and are kept apart from NumPy's.

So whatever takes an array of a device for one of the host, or the other way round, fails here as
it would with a GPU.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

_EXTENSION = 12  # DLPack's kDLExtDev: a device that no other library knows


class ShimArray:
    """An array on the shim.  ``memory``: its elements, C-contiguous, for who runs kernels."""

    __slots__ = ("memory",)
    __array_ufunc__ = None  # arithmetic with NumPy's arrays is refused

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        return self.memory.shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the elements."""
        return self.memory.dtype

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return self.memory.ndim

    @property
    def size(self) -> int:
        """How many elements there are."""
        return self.memory.size

    @property
    def nbytes(self) -> int:
        """How many bytes they take."""
        return self.memory.nbytes

    def get(self, out: np.ndarray | None = None) -> np.ndarray:
        """A copy as NumPy's array, in ``out`` if given."""
        if out is None:
            return self.memory.copy()
        out[...] = self.memory
        return out

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise TypeError("an array of the shim is not one of NumPy's; write x.get() for a copy")

    def __dlpack_device__(self) -> tuple[int, int]:
        return _EXTENSION, 0

    def __dlpack__(self, **how: Any) -> NoReturn:
        raise BufferError("an array of the shim is for the shim alone; write x.get() for a copy")

    def __repr__(self) -> str:
        return f"ShimArray({self.memory!r})"


class ShimHome:
    """The home of the shim's arrays (see ``backends/homes.py``)."""

    name = "the shim"

    def put(self, array: np.ndarray) -> ShimArray:
        """A copy of a host array."""
        return ShimArray(np.array(array, order="C", copy=True))

    def get(self, array: ShimArray, out: np.ndarray | None = None) -> np.ndarray:
        """A copy on the host."""
        return array.get(out)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> ShimArray:
        """A new array, full of garbage."""
        new = np.empty(shape, dtype)
        new.reshape(-1).view(np.uint8).fill(0xA5)
        return ShimArray(new)

    def copy(self, array: ShimArray) -> ShimArray:
        """A copy."""
        return ShimArray(array.memory.copy())

    def part(self, array: ShimArray, shape: tuple[int, ...]) -> ShimArray:
        """The first elements of a vector, in ``shape``."""
        count = int(np.prod(shape, dtype=np.int64))
        first = array.memory[:count]
        return ShimArray((first if count == array.size else first.copy()).reshape(shape))

    def take(self, value: Any) -> ShimArray | None:
        """``value`` if it is an array of the shim."""
        return value if isinstance(value, ShimArray) else None

    def plain(self, array: ShimArray) -> ShimArray:
        """All of these arrays are plain."""
        return array


SHIM = ShimHome()
