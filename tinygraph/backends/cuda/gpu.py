"""The kernels of one program on a GPU: what the host's side of a call launches and reads.

Memory is named by places, which are an address and a dtype; who calls keeps the arrays alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from tinygraph.backends.cuda.device import Arguments, CudaDevice, Entry
from tinygraph.backends.cuda.kernel import THREADS, Kernel
from tinygraph.backends.cuda.modules import compile_kernels

_DECLARED = 48 << 10  # bytes of shared memory that the text of a kernel may declare
_WAVES = 4  # blocks that a multiprocessor has at a time, about


class Place(NamedTuple):
    """Elements of ``dtype`` from ``address`` on."""

    address: int
    dtype: np.dtype


class GpuKernels:
    """Compiles and loads a program's kernels when the first is launched.

    ``source``: their text, with the prelude.  One call at a time may use it.
    Raises InternalError where the text does not compile, UnavailableError without NVRTC.
    """

    def __init__(self, device: CudaDevice, source: str, kernels: Sequence[Kernel],
                 name: str = "program") -> None:
        self.device, self.source, self.name = device, source, name
        self.units = device.multiprocessors * _WAVES
        self.shared_bytes = max(0, device.shared_bytes - _DECLARED)
        self._kernels = tuple(kernels)
        self._loaded: dict[str, tuple[Entry, Arguments]] = {}

    def _load(self) -> None:
        texts = [k.text for k in self._kernels]
        head = self.source.partition(texts[0])[0] if texts else ""
        where: dict[str, tuple[Any, str]] = {}
        for made in compile_kernels(head, texts, self.device.arch, self.name):
            module = self.device.load(made.code)
            where.update({kernel: (module, entry) for kernel, entry in made.entries.items()})
        for k in self._kernels:
            entry = self.device.entry(*where[k.name], THREADS,
                                      self.shared_bytes if k.held else k.shared_bytes)
            self._loaded[k.name] = entry, Arguments(
                int(k.checks) + len(k.buffers) + len(k.scalars))

    def place(self, array: Any) -> Place:
        """Where a contiguous CuPy array is."""
        return Place(int(array.data.ptr), array.dtype)

    def part(self, memory: Place, dtype: np.dtype, start: int, count: int) -> Place:
        """The elements of ``dtype`` from byte ``start`` of ``memory`` on."""
        return Place(memory.address + start, np.dtype(dtype))

    def launch(self, kernel: Kernel, blocks: int, buffers: Sequence[Place],
               scalars: Sequence[int], shared: int = 0) -> None:
        """Run a kernel on the current stream; ``buffers`` with the failure record in front where
        it checks.  ``shared``: bytes of shared memory on top of what its text declares."""
        if not self._loaded:
            self._load()
        entry, arguments = self._loaded[kernel.name]
        arguments.set([*(b.address for b in buffers), *scalars])
        self.device.launch(replace(entry, shared_bytes=shared), blocks, arguments,
                           int(self.device.stream().ptr))

    # --- for Python functions inside a program

    def array(self, memory: Place, start: int, strides: Sequence[int], sizes: Sequence[int]
              ) -> np.ndarray:
        """A strided array (element ``start`` first) as it is after what was launched."""
        if 0 in sizes:
            return np.empty(sizes, memory.dtype)
        return self._fetched(memory, start, strides, sizes)[1]

    def write(self, memory: Place, array: np.ndarray, start: int, strides: Sequence[int]) -> None:
        """Put back what ``array`` gave out.  What lies between its elements stays as it is."""
        if not array.size:
            return
        region, place = self._fetched(memory, start, strides, array.shape)
        place[...] = array
        low, _ = _reach(strides, array.shape)
        self.device.send(region, memory.address + (start + low) * memory.dtype.itemsize)

    def _fetched(self, memory: Place, start: int, strides: Sequence[int], sizes: Sequence[int]
                 ) -> tuple[np.ndarray, np.ndarray]:
        """All memory from the lowest to the highest element of a strided array, and the array."""
        low, high = _reach(strides, sizes)
        region = np.empty(high - low + 1, memory.dtype)
        item = memory.dtype.itemsize
        self.device.fetch(memory.address + (start + low) * item, region)
        return region, np.ndarray(sizes, memory.dtype, region, -low * item,
                                  [s * item for s in strides])


def _reach(strides: Sequence[int], sizes: Sequence[int]) -> tuple[int, int]:
    """The lowest and the highest element of a strided array, counted from its first."""
    ends = [s * (n - 1) for s, n in zip(strides, sizes, strict=True)]
    return sum(min(e, 0) for e in ends), sum(max(e, 0) for e in ends)
