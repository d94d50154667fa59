"""The kernels of one program on a GPU: what the host's side of a call launches and reads.

Memory is named by places, which are an address and a dtype; who calls keeps the arrays alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tinygraph.backends.cuda.cublas import Matrix, product
from tinygraph.backends.cuda.device import ArgumentRows, Arguments, CudaDevice, Entry
from tinygraph.backends.cuda.host import Operand
from tinygraph.backends.cuda.kernel import THREADS, Kernel
from tinygraph.backends.cuda.modules import compile_kernels
from tinygraph.backends.cuda.replay import Addresses, Launched, Prepared, Work
from tinygraph.config import config
from tinygraph.errors import InternalError

_DECLARED = 48 << 10  # bytes of shared memory that the text of a kernel may declare
_WAVES = 2  # blocks that a multiprocessor has at a time, about


def weight_room(device: CudaDevice) -> int:
    """The bytes of shared memory that a block has beside what kernels declare."""
    return max(0, device.shared_bytes - _DECLARED)


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
        self.shared_bytes = weight_room(device)
        self._kernels = tuple(kernels)
        self._loaded: dict[str, tuple[Entry, Arguments]] = {}
        self._together: dict[tuple[str, int], int] = {}

    def _entry(self, kernel: Kernel) -> tuple[Entry, Arguments]:
        if not self._loaded:
            self._load()
        return self._loaded[kernel.name]

    def _load(self) -> None:
        texts = [k.text for k in self._kernels]
        head = self.source.partition(texts[0])[0] if texts else ""
        where: dict[str, tuple[Any, str]] = {}
        for made in compile_kernels(head, texts, self.device.arch, self.name):
            module = self.device.load(made.code)
            where.update({kernel: (module, entry) for kernel, entry in made.entries.items()})
        for k in self._kernels:
            entry = self.device.entry(*where[k.name], THREADS,
                                      self.shared_bytes if k.held or k.together
                                      else k.shared_bytes)
            self._loaded[k.name] = entry, Arguments(_count(k))

    def place(self, array: Any) -> Place:
        """Where a contiguous CuPy array is."""
        return Place(int(array.data.ptr), array.dtype)

    def part(self, memory: Place, dtype: np.dtype, start: int, count: int) -> Place:
        """The elements of ``dtype`` from byte ``start`` of ``memory`` on."""
        return Place(memory.address + start, np.dtype(dtype))

    @property
    def repeats(self) -> GpuKernels:
        """It replays calls itself."""
        return self

    def addresses(self, places: Sequence[Place]) -> Addresses:
        """Where the memory of a call is."""
        return tuple([place.address for place in places])

    def together(self, kernel: Kernel, shared: int) -> int:
        """How many blocks of a kernel, with ``shared`` bytes of shared memory, are to wait for one
        another: one a multiprocessor.  Raises InternalError where it cannot hold one."""
        found = self._together.get((kernel.name, shared))
        if found is None:
            entry, _ = self._entry(kernel)
            found = self.device.resident(entry, shared)
            if not found:
                raise InternalError(f"{kernel.name}: a multiprocessor has no room for a block with "
                                    f"{shared} bytes of shared memory")
            found = self._together[kernel.name, shared] = min(found, self.device.multiprocessors)
        return found

    def launch(self, kernel: Kernel, blocks: int, buffers: Sequence[Place],
               scalars: Sequence[int], shared: int = 0) -> None:
        """Run a kernel on the current stream.  ``buffers``: with the failure record in front where
        it checks;  ``shared``: bytes of shared memory on top of what its text declares."""
        entry, arguments = self._entry(kernel)
        arguments.set([*[b.address for b in buffers], *scalars])
        self.device.launch(entry, blocks, arguments, None, kernel.together, shared)

    def prepared(self, launches: Sequence[Launched], addresses: Addresses) -> Prepared:
        """Launches for later, each on the stream that is current then."""
        return _Prepared(self.device, [(x, self._entry(x.kernel)[0]) for x in launches], addresses)

    def captured(self, works: Sequence[Work]) -> Work:
        """Launches that ``prepared`` gave as a CUDA graph."""
        def all_of_them(stream: int) -> None:
            for launch in works:
                launch()

        work: Work = self.device.capture(all_of_them).launch
        return work

    @property
    def multiplies(self) -> bool:
        """Is there cuBLAS?"""
        return self.device.products is not None

    def multiply(self, a: Operand, b: Operand, c: Operand, sizes: tuple[int, int, int],
                 accumulate: bool) -> None:
        """c = a b, or c += a b, by cuBLAS on the current stream.  Raises InternalError without
        cuBLAS, and for strides that it does not take."""
        x, y, z = (Matrix(o.memory.address + o.start * o.memory.dtype.itemsize, o.rows, o.cols)
                   for o in (a, b, c))
        call, products = product(x, y, z, *sizes), self.device.products
        if call is None or products is None:
            raise InternalError(f"cuBLAS does not multiply {a} by {b}")
        products.multiply(call, c.memory.dtype.name, accumulate, config.tf32)

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


class _Prepared:
    """The arguments of launches in one array, so that all addresses change at once."""

    def __init__(self, device: CudaDevice, launches: Sequence[tuple[Launched, Entry]],
                 addresses: Addresses) -> None:
        self._arguments = ArgumentRows([[*(b.address for b in x.buffers), *x.scalars]
                                        for x, _ in launches])
        self._words = np.array([start + k for start, (x, _) in zip(
            self._arguments.starts.tolist(), launches, strict=False)
            for k in range(len(x.sources))], np.int64)
        self._sources = np.array([s for x, _ in launches for s in x.sources], np.int64)
        self._now = np.array(addresses, np.int64)
        self.works: Sequence[Work] = [
            partial(device.launch, entry, x.blocks, row, None, x.kernel.together, x.shared)
            for (x, entry), row in zip(launches, self._arguments.rows, strict=True)]

    def move(self, addresses: Addresses) -> None:
        """Put other addresses in; a launch has copied what it was given."""
        new = np.array(addresses, np.int64)
        self._arguments.values[self._words] += (new - self._now)[self._sources]
        self._now = new


def _reach(strides: Sequence[int], sizes: Sequence[int]) -> tuple[int, int]:
    """The lowest and the highest element of a strided array, counted from its first."""
    ends = [s * (n - 1) for s, n in zip(strides, sizes, strict=True)]
    return sum(min(e, 0) for e in ends), sum(max(e, 0) for e in ends)


def _count(kernel: Kernel) -> int:
    """How many parameters a kernel has."""
    return int(kernel.checks) + int(kernel.together) + len(kernel.buffers) + len(kernel.scalars)
