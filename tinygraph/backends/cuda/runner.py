"""A runner of CUDA kernels: behind the face that every runner of a program has."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygraph.backends.cuda.device import CudaDevice, require_cuda
from tinygraph.backends.cuda.gpu import GpuKernels, weight_room
from tinygraph.backends.cuda.host import FAULT_NUMBERS, RECORD_NUMBERS, HostRunner, Operand
from tinygraph.backends.cuda.kernel import THREADS, Kernel
from tinygraph.backends.cuda.prelude import prelude
from tinygraph.backends.cuda.schedule import explained, schedule
from tinygraph.backends.cuda.shim import Shim
from tinygraph.backends.cuda.shim_array import SHIM, ShimArray
from tinygraph.backends.runners import Fault
from tinygraph.loops.language import Program


class ShimDevice:
    """The CPU in the place of a GPU: kernels run in the shim, memory is NumPy's."""

    threads = 64  # of a block: fewer than on a GPU, since they are run one after another
    units = 3
    shared_bytes = 1 << 15
    repeats = None  # every call has new memory
    multiplies = True

    def __init__(self, source: str, kernels: Sequence[Kernel]) -> None:
        self.source, self.kernels = source, kernels
        self._shim: Shim | None = None

    @property
    def shim(self) -> Shim:
        """The compiled kernels."""
        if self._shim is None:
            self._shim = Shim(self.source, self.kernels, self.threads)
        return self._shim

    def part(self, memory: np.ndarray, dtype: np.dtype, start: int, count: int) -> np.ndarray:
        """Elements of the workspace."""
        return memory.view(np.uint8)[start:start + count * dtype.itemsize].view(dtype)

    def array(self, memory: np.ndarray, start: int, strides: Sequence[int], sizes: Sequence[int]
              ) -> np.ndarray:
        """A strided view."""
        if 0 in sizes:
            return np.empty(sizes, memory.dtype)
        return np.lib.stride_tricks.as_strided(
            memory[start:], sizes, [s * memory.itemsize for s in strides])

    def write(self, memory: np.ndarray, array: np.ndarray, start: int, strides: Sequence[int]
              ) -> None:
        """Nothing is to be done: the array was a view."""

    def launch(self, kernel: Kernel, blocks: int, buffers: Sequence[np.ndarray],
               scalars: Sequence[int], shared: int) -> None:
        """Run a kernel."""
        self.shim.launch(kernel.name, blocks, None, buffers, scalars, shared_bytes=shared,
                         together=kernel.together)

    def together(self, kernel: Kernel, shared: int) -> int:
        """As many as run at a time."""
        return self.units

    def multiply(self, a: Operand, b: Operand, c: Operand, sizes: tuple[int, int, int],
                 accumulate: bool) -> None:
        """NumPy does it."""
        m, n, k = sizes
        x, y, z = (self.array(o.memory, o.start, (o.rows, o.cols), shape)
                   for o, shape in ((a, (m, k)), (b, (k, n)), (c, (m, n))))
        np.add(x @ y, z if accumulate else 0, out=z)


class KernelRunner:
    """Runs a program's kernels on arrays of a home; NumPy's are put there first.

    host   the host's program;  text  its kernels;  units  how many blocks run at a time, about
    home   where its arrays lie
    """

    units: int
    runner: HostRunner
    home: Any

    def __init__(self, program: Program, room: int) -> None:
        self.program, self.host = program, schedule(program, room)
        self.text = "\n".join(k.text for k in self.host.kernels)
        self.source = prelude(THREADS) + self.text

    def __call__(self, plan: Any, arrays: Sequence[Any], results: Sequence[Any],
                 constants: Sequence[np.ndarray], fresh: int = 0) -> Fault | None:
        raise NotImplementedError(f"{type(self).__name__}.__call__")

    def wide(self, plan: Any) -> bool:
        """Is the batch of scans better not cut into tiles at these sizes?"""
        return self.runner.true(self.host.wide, [int(n) for n in plan.sizes])

    def explained(self) -> list[str]:
        """What is launched, for a report."""
        return explained(self.host.steps)


class ShimRunner(KernelRunner):
    """Runs kernels in the shim."""

    home = SHIM

    def __init__(self, program: Program) -> None:
        super().__init__(program, ShimDevice.shared_bytes)
        self.device = ShimDevice(self.source, self.host.kernels)
        self.units = self.device.units
        self.runner = HostRunner(program, self.host, self.device)

    def __call__(self, plan: Any, arrays: Sequence[Any], results: Sequence[ShimArray],
                 constants: Sequence[np.ndarray], fresh: int = 0) -> Fault | None:
        inputs = [_frozen(SHIM.put(a) if isinstance(a, np.ndarray) else a) for a in arrays]
        flat = [*inputs, *(a.memory.reshape(-1) for a in results),
                *(a.reshape(-1) for a in constants)]
        arena = np.full(plan.arena_bytes + 64, 0xA5, np.uint8)
        record = np.zeros(8 * RECORD_NUMBERS, np.uint8)
        self.runner.run([int(n) for n in plan.sizes], flat, arena, record)
        return _fault(record.view(np.int64))


def _frozen(array: ShimArray) -> np.ndarray:
    """The elements of an array, flat, for reading only."""
    flat = array.memory.reshape(-1)[:]
    flat.flags.writeable = False
    return flat


class GpuRunner(KernelRunner):
    """Runs kernels on a GPU."""

    def __init__(self, program: Program, device: CudaDevice) -> None:
        super().__init__(program, weight_room(device))
        self.device, self.home = device, device.home
        self.kernels = GpuKernels(device, self.source, self.host.kernels, program.name)
        self.units = self.kernels.units
        self.runner = HostRunner(program, self.host, self.kernels)
        self._constants: list[Any] | None = None
        self._lock = threading.Lock()

    def __call__(self, plan: Any, arrays: Sequence[Any], results: Sequence[Any],
                 constants: Sequence[np.ndarray], fresh: int = 0) -> Fault | None:
        device = self.device
        with self._lock, self.home.ordered():
            if self._constants is None:
                self._constants = [device.to_device(a) for a in constants]
            # A list lets go first what it got last.  CuPy's pool gives out first what it was
            # given back last, so that the next call has everything at the same addresses.
            own = [device.to_device(a) if isinstance(a, np.ndarray) else a for a in arrays]
            own.append(device.empty((plan.arena_bytes + 64,), np.dtype(np.uint8)))
            own.append(device.empty((RECORD_NUMBERS,), np.dtype(np.int64)))
            device.clear(own[-1])
            self._run(plan, own, results, self._constants)
            self.home.release()
            return _fault(device.to_host(own[-1])) if self.program.sites else None

    def _run(self, plan: Any, own: Sequence[Any], results: Sequence[Any],
             constants: Sequence[Any]) -> None:
        """``own``: the inputs, the workspace, the record."""
        *arrays, arena, record = map(self.kernels.place, own)
        given = [*arrays, *map(self.kernels.place, (*results, *constants))]
        self.runner.run([int(n) for n in plan.sizes], given, arena, record)


def _fault(record: np.ndarray) -> Fault | None:
    """What kernels have written down: a site and its numbers, or nothing."""
    if record[0] == 0:
        return None
    return Fault(int(record[0]) - 1, tuple(map(int, record[1:FAULT_NUMBERS])))


def kernel_runner(program: Program, backend: str, gpu: int | None = None) -> KernelRunner:
    """The runner for 'cuda' or 'shim'.  Raises UnavailableError where there is no GPU (of that
    number), NeedsHost where the program has something in it that kernels cannot do."""
    if backend == "shim":
        return ShimRunner(program)
    return GpuRunner(program, require_cuda(gpu))
