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
    """Runs a program's kernels; a call takes and gives NumPy arrays.

    host   the host's program;  text  its kernels;  units  how many blocks run at a time, about
    """

    units: int
    runner: HostRunner

    def __init__(self, program: Program, room: int) -> None:
        self.program, self.host = program, schedule(program, room)
        self.text = "\n".join(k.text for k in self.host.kernels)
        self.source = prelude(THREADS) + self.text

    def __call__(self, plan: Any, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray],
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

    def __init__(self, program: Program) -> None:
        super().__init__(program, ShimDevice.shared_bytes)
        self.device = ShimDevice(self.source, self.host.kernels)
        self.units = self.device.units
        self.runner = HostRunner(program, self.host, self.device)

    def __call__(self, plan: Any, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray],
                 constants: Sequence[np.ndarray], fresh: int = 0) -> Fault | None:
        flat = [a.reshape(-1) for a in (*arrays, *results, *constants)]
        arena = np.full(plan.arena_bytes + 64, 0xA5, np.uint8)
        record = np.zeros(8 * RECORD_NUMBERS, np.uint8)
        self.runner.run([int(n) for n in plan.sizes], flat, arena, record)
        return _fault(record.view(np.int64))


class GpuRunner(KernelRunner):
    """Runs kernels on a GPU.  Arguments are copied there and results back, in each call."""

    def __init__(self, program: Program, device: CudaDevice) -> None:
        super().__init__(program, weight_room(device))
        self.device = device
        self.kernels = GpuKernels(device, self.source, self.host.kernels, program.name)
        self.units = self.kernels.units
        self.runner = HostRunner(program, self.host, self.kernels)
        self._constants: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, plan: Any, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray],
                 constants: Sequence[np.ndarray], fresh: int = 0) -> Fault | None:
        device = self.device
        with self._lock:
            device.use()
            for k, array in enumerate(constants):
                if k not in self._constants:
                    self._constants[k] = device.to_device(array)
            inputs = [device.to_device(a) for a in arrays]
            outputs = [device.empty(a.shape, a.dtype) for a in results]
            arena = device.empty((plan.arena_bytes + 64,), np.dtype(np.uint8))
            fault = device.empty((RECORD_NUMBERS,), np.dtype(np.int64))
            device.clear(fault)
            given = [*inputs, *outputs, *(self._constants[k] for k in range(len(constants)))]
            self.runner.run([int(n) for n in plan.sizes], [self.kernels.place(a) for a in given],
                            self.kernels.place(arena), self.kernels.place(fault))
            found = _fault(device.to_host(fault)) if self.program.sites else None
            if found is None:
                for array, out in zip(outputs, results, strict=True):
                    device.to_host(array, out)
        return found


def _fault(record: np.ndarray) -> Fault | None:
    return None if record[0] == 0 else Fault(int(record[0]) - 1,
                                             tuple(map(int, record[1:FAULT_NUMBERS])))


def kernel_runner(program: Program, backend: str) -> KernelRunner:
    """The runner for 'cuda' or 'shim'.  Raises UnavailableError where there is no GPU."""
    if backend == "shim":
        return ShimRunner(program)
    return GpuRunner(program, require_cuda())
