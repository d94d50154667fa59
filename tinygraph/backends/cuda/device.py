"""A GPU, through CuPy: memory, kernels, launches, streams, graphs.

CuPy is imported when a device is opened and not before.  Only those parts of it are used that
compile nothing when they run, so that no CUDA toolkit and no headers are needed.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tinygraph.backends.cuda import nvrtc
from tinygraph.backends.cuda.cublas import Products
from tinygraph.backends.cuda.cuda_home import CudaHome
from tinygraph.errors import UnavailableError

DOCTOR = "python -m tinygraph doctor"
_OLDEST = 12000  # the least CUDA version of a driver that CuPy takes


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def obstacles() -> list[str]:
    """What keeps kernels from running here, a clause each with what helps against it."""
    found, driver = list[str](), nvrtc.driver_version()
    if driver is None:
        found.append("there is no NVIDIA driver (libcuda cannot be loaded)")
    elif driver < _OLDEST:
        found.append(f"the NVIDIA driver takes CUDA {_version(driver)}, and the oldest that CuPy "
                     f"takes is {_version(_OLDEST)} (update the driver)")
    try:
        cupy = nvrtc.load_cupy()
    except UnavailableError as error:
        return [*found, str(error)]
    missing = nvrtc.available()
    if missing is not None:
        found.append(missing)
    if driver is not None and driver >= _OLDEST:
        found += _no_device(cupy, driver, missing is None)
    return found


def _no_device(cupy: Any, driver: int, compiles: bool) -> list[str]:
    """What keeps CuPy and this driver from using a GPU together."""
    takes, major = driver // 1000, nvrtc.cuda_major(cupy)
    others = f"update the driver, or pip uninstall {nvrtc.wheels(major)[0]} and {nvrtc.pip_line()}"
    if takes < major:
        return [f"CuPy is made for CUDA {major}, and the driver takes {_version(driver)} "
                f"({others})"]
    if compiles and takes < nvrtc.version()[0]:
        return [f"NVRTC makes code for CUDA {nvrtc.version()[0]}, and the driver takes "
                f"{_version(driver)} (update the driver, or pip uninstall nvidia-cuda-nvrtc and "
                f"{nvrtc.pip_line()})"]
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return [f"CUDA finds no GPU ({error})"]
    return [] if count else ["CUDA finds no GPU"]


def unavailable() -> str | None:
    """Why kernels cannot run here, in one sentence; None where they can."""
    return ", and ".join(obstacles()) or None


def require_cuda(number: int | None = None) -> CudaDevice:
    """The GPU of this number; None: the one that CuPy has chosen (the first, unless the program
    says otherwise).

    Raises UnavailableError, which says what is missing and how to get it.
    """
    why = unavailable()
    if why is not None:
        raise UnavailableError(f"backend='cuda' cannot run here: {why}. Write backend='llvm'; "
                               f"'{DOCTOR}' tests every back end")
    count = int(nvrtc.load_cupy().cuda.runtime.getDeviceCount())
    if number is not None and number >= count:
        raise UnavailableError(f"there is no GPU {number}: CUDA finds {count}, and counts from 0")
    return cuda_device(number)


def cuda_device(number: int | None = None) -> CudaDevice:
    """The GPU of this number, or the one that CuPy has chosen, without a look at what is missing:
    CuPy works.  There is one object for each GPU."""
    cupy = nvrtc.load_cupy()
    return _opened(cupy, int(cupy.cuda.Device().id) if number is None else number)


@functools.cache
def _opened(cupy: Any, number: int) -> CudaDevice:
    return CudaDevice(number)


@dataclass(frozen=True)
class Entry:
    """A kernel on the device.  ``function`` keeps its module loaded."""

    name: str
    pointer: int
    threads: int
    shared_bytes: int
    function: Any = field(repr=False, compare=False)


class Arguments:
    """The arguments of a launch: 8 bytes each, addresses and int64 numbers.

    A launch copies them, so the next may have other values in the same place; two threads may not
    share one.
    """

    def __init__(self, count: int) -> None:
        self.values = (ctypes.c_int64 * count)()
        start = ctypes.addressof(self.values)
        self._places = (ctypes.c_void_p * count)(*range(start, start + 8 * count, 8))
        self.address = ctypes.addressof(self._places)

    def set(self, values: Sequence[int]) -> None:
        """Put values in, from the first on."""
        self.values[:len(values)] = list(values)


class ArgumentRows:
    """The arguments of many launches, a row each, 8 bytes each.

    values  all of them, row after row (int64);  rows  each with its address, as ``Arguments``
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        counts = [len(row) for row in rows]
        self.values = np.array([value for row in rows for value in row], np.int64)
        self._places = self.values.ctypes.data + 8 * np.arange(sum(counts), dtype=np.int64)
        start = self._places.ctypes.data
        self.starts = np.cumsum([0, *counts])
        self.rows = [Row(start + 8 * int(at)) for at in self.starts[:-1]]


class Row(NamedTuple):
    """The arguments of a launch.  Somebody else keeps them alive."""

    address: int


class CudaDevice:
    """One GPU.

    number           its number in CUDA
    capability       its compute capability: '90' for 9.0
    arch             what to compile for: 'sm_90'
    multiprocessors  how many it has
    shared_bytes     the most shared memory that a block may have
    """

    def __init__(self, number: int | None = None) -> None:
        self.cupy = nvrtc.load_cupy()
        self.runtime, self.driver = self.cupy.cuda.runtime, self.cupy.cuda.driver
        device = self.cupy.cuda.Device() if number is None else self.cupy.cuda.Device(number)
        self.number = int(device.id)
        self.capability = str(device.compute_capability)
        self.multiprocessors = self._attribute("MultiProcessorCount")
        self.shared_bytes = self._attribute("MaxSharedMemoryPerBlockOptin")

    def _attribute(self, name: str) -> int:
        code = getattr(self.runtime, f"cudaDevAttr{name}")
        return int(self.runtime.deviceGetAttribute(code, self.number))

    @cached_property
    def arch(self) -> str:
        """What to compile for.  Raises UnavailableError where NVRTC does not know the GPU."""
        return nvrtc.architecture(self.capability, nvrtc.architectures())

    @cached_property
    def products(self) -> Products | None:
        """cuBLAS; None where its library is missing, or cannot be loaded."""
        try:
            return Products(self.cupy)
        except (ImportError, RuntimeError):  # RuntimeError: it is there, but not what it needs
            return None

    @cached_property
    def home(self) -> CudaHome:
        """Its arrays."""
        return CudaHome(self)

    @property
    def name(self) -> str:
        """What the GPU is called."""
        return str(self.runtime.getDeviceProperties(self.number)["name"].decode())

    def use(self) -> None:
        """Make this GPU the current one of the calling thread, and make its context.

        A thread that launches without CuPy having made the context would be refused.
        """
        self.runtime.setDevice(self.number)

    # --- kernels

    def load(self, cubin: bytes) -> Any:
        """Put a cubin on the device; it stays as long as the module or an ``Entry`` of it."""
        self.use()
        module = self.cupy.cuda.function.Module()
        module.load(cubin)
        return module

    def entry(self, module: Any, name: str, threads: int, shared_bytes: int = 0) -> Entry:
        """A kernel of a module, to be run with ``threads`` in a block.

        shared_bytes  of shared memory on top of what its text declares
        """
        function = module.get_function(name)
        if shared_bytes:  # what the text declares counts towards the 48 KB that go without asking
            self.driver.funcSetAttribute(
                function.ptr, self.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                shared_bytes)
        return Entry(name, int(function.ptr), threads, shared_bytes, function)

    def resident(self, entry: Entry, shared_bytes: int | None = None) -> int:
        """How many blocks of a kernel, with its shared memory or ``shared_bytes`` of it, the
        device runs at one time."""
        shared = entry.shared_bytes if shared_bytes is None else shared_bytes
        each = self.driver.occupancyMaxActiveBlocksPerMultiprocessor(
            entry.pointer, entry.threads, shared)
        return int(each) * self.multiprocessors

    def launch(self, entry: Entry, blocks: int, arguments: Arguments | Row,
               stream: int | None = None, together: bool = False,
               shared_bytes: int | None = None) -> None:
        """Run a kernel after what ``stream`` (its address; the current one unless given) has to
        do; nothing for no blocks.

        together      all blocks run at one time, so that they may wait for one another; there must
                      be no more than ``resident`` of them
        shared_bytes  of shared memory for this launch, no more than the entry has
        """
        if blocks <= 0:
            return
        shared = entry.shared_bytes if shared_bytes is None else shared_bytes
        stream = int(self.stream().ptr) if stream is None else stream
        shape = blocks, 1, 1, entry.threads, 1, 1, shared, stream, arguments.address
        if together:
            self.driver.launchCooperativeKernel(entry.pointer, *shape)
        else:
            self.driver.launchKernel(entry.pointer, *shape, 0)

    # --- memory, from CuPy's pool

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A new array, its elements not set."""
        return self.cupy.ndarray(shape, dtype)

    def clear(self, array: Any) -> None:
        """Fill a contiguous array with zeros, on the current stream."""
        if array.size:
            array.data.memset_async(0, array.nbytes)

    def to_device(self, array: np.ndarray) -> Any:
        """A copy of a host array.  The host array may be changed as soon as this returns."""
        if not array.size:
            return self.empty(array.shape, array.dtype)
        # CuPy compiles a kernel to fill an array without axes; one of one axis it copies.
        flat = np.asarray(array, order="C").reshape(-1)
        # Pinned memory is read where it is, and the copy may be going on when CuPy returns.
        pinned = self.cupy.cuda.pinned_memory.is_memory_pinned(flat.ctypes.data)
        return self.cupy.array(flat, copy=True, blocking=bool(pinned)).reshape(array.shape)

    def to_host(self, array: Any, out: np.ndarray | None = None) -> np.ndarray:
        """A copy of a contiguous device array, into ``out`` if given; waits for the current
        stream."""
        out = np.empty(array.shape, array.dtype) if out is None else out
        return array.get(out=out) if array.size else out

    def copy(self, source: Any, target: Any) -> None:
        """Copy between contiguous device arrays of one size and dtype, on the current stream."""
        if source.size:
            target.data.copy_from_device_async(source.data, source.nbytes)

    def fetch(self, address: int, out: np.ndarray) -> None:
        """Copy what lies at ``address`` into a contiguous host array, when the current stream has
        come so far."""
        stream = self.stream()
        self.runtime.memcpyAsync(out.ctypes.data, address, out.nbytes,
                                 self.runtime.memcpyDeviceToHost, stream.ptr)
        stream.synchronize()

    def send(self, array: np.ndarray, address: int) -> None:
        """Copy a contiguous host array to ``address``; it is there when this returns."""
        stream = self.stream()
        self.runtime.memcpyAsync(address, array.ctypes.data, array.nbytes,
                                 self.runtime.memcpyHostToDevice, stream.ptr)
        stream.synchronize()

    # --- order and time

    def stream(self) -> Any:
        """CuPy's current stream, on which the user's own work with CuPy arrays stands."""
        return self.cupy.cuda.get_current_stream()

    def event(self, timing: bool = False) -> Any:
        """A mark for ``event.record(stream)`` and ``event.synchronize()``."""
        return self.cupy.cuda.Event(disable_timing=not timing)

    def seconds(self, start: Any, end: Any) -> float:
        """The time between two events made with ``timing``, once the second has come."""
        end.synchronize()
        return float(self.cupy.cuda.get_elapsed_time(start, end)) / 1000

    def capture(self, work: Callable[[int], None]) -> Any:
        """A graph of the launches that ``work(stream)`` makes; ``graph.launch()`` does them all
        on the current stream.

        They are not run now.  Addresses and numbers stay as they are in the graph, so the memory
        must stay, too.  Only launches, fills and copies: CuPy refuses cuBLAS here.
        """
        stream = self.cupy.cuda.Stream(non_blocking=True)
        with stream, _captured(stream) as graphs:
            work(int(stream.ptr))
        return graphs[0]


@contextmanager
def _captured(stream: Any) -> Iterator[list[Any]]:
    """Capture ``stream``; the graph is in the list afterwards.  A capture ends in any case."""
    graphs: list[Any] = []
    stream.begin_capture()
    try:
        yield graphs
    except BaseException:
        with suppress(RuntimeError):  # what broke the work may have broken the capture, too
            stream.end_capture()
        raise
    graphs.append(stream.end_capture())
