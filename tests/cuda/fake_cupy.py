"""Stands for CuPy where there is no GPU: the parts that the back end uses, on the CPU's memory.

Signatures are those of CuPy 14.  Memory comes from a pool that gives out first what it was given
back last, as CuPy's does for each size, and is full of garbage.  Launches are written down
(``fake_gpu`` runs them); products by cuBLAS are computed, column by column as cuBLAS reads memory,
at the very addresses.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import operator
import sys
import threading
import types

import numpy as np

UNIT = 512  # sizes in the pool are multiples of it
UNASKED, MOST_SHARED = 48 << 10, 227 << 10  # shared memory of a block, on an H100
DECLARED = 20 << 10  # of it, what the text of every kernel is taken to declare
ON_GPU = 2  # kDLCUDA


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class Pool:
    """Blocks of memory by size.  ``live``: those in use, by address."""

    def __init__(self):
        self.free, self.live = {}, {}

    def take(self, size):
        rounded = -(-max(size, 1) // UNIT) * UNIT
        blocks = self.free.setdefault(rounded, [])
        raw = blocks.pop() if blocks else np.empty(rounded + UNIT, np.uint8)
        start = -raw.ctypes.data % UNIT
        raw[start:start + rounded] = 0xA5
        self.live[raw.ctypes.data + start] = raw[start:start + rounded]
        return raw, raw.ctypes.data + start

    def give(self, raw, address):
        self.free[len(self.live.pop(address))].append(raw)

    def at(self, address, dtype):
        """All elements from an address to the end of its block."""
        for start, block in self.live.items():
            if start <= address < start + len(block):
                left = block[address - start:]
                return left[:len(left) // dtype.itemsize * dtype.itemsize].view(dtype)
        raise AssertionError(f"no memory has been taken at {address:#x}")


class PooledMemory:
    def __init__(self, pool, size):
        self.pool = pool
        self.raw, self.ptr = pool.take(size)

    def __del__(self):
        self.pool.give(self.raw, self.ptr)


class ForeignMemory:
    """Memory of another library, which keeps it until this is gone."""

    def __init__(self, pool, owner, host):
        self.pool, self.owner, self.ptr = pool, owner, host.ctypes.data
        size = sum(s * (n - 1) for s, n in zip(host.strides, host.shape, strict=True))
        memory = (ctypes.c_char * (size + host.itemsize)).from_address(self.ptr)
        self.block = pool.live[self.ptr] = np.frombuffer(memory, np.uint8)

    def __del__(self):
        if self.pool.live.get(self.ptr) is self.block:
            del self.pool.live[self.ptr]


class Pointer:
    def __init__(self, mem, address, device=None):
        self.mem, self.ptr = mem, address
        self.device = STATE.device if device is None else types.SimpleNamespace(id=device)

    def memset_async(self, value, size, stream=None):
        ctypes.memset(self.ptr, value, size)

    def copy_from_device_async(self, src, size, stream=None):
        ctypes.memmove(self.ptr, src.ptr, size)


class ndarray:
    def __init__(self, shape, dtype=float, memptr=None, strides=None):
        kind = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if memptr is None:
            STATE.context = True
            mem = PooledMemory(STATE.pool, size)
            memptr = Pointer(mem, mem.ptr)
        self.data = memptr
        memory = (ctypes.c_char * max(size, kind.itemsize)).from_address(memptr.ptr)
        if strides is None:
            self.host = np.ndarray(shape, kind, memory)
        else:
            first = np.frombuffer(memory, kind, 1)
            self.host = np.lib.stride_tricks.as_strided(first, shape, strides)
        self.shape, self.dtype, self.strides = self.host.shape, kind, self.host.strides
        self.size, self.nbytes, self.ndim = self.host.size, self.host.nbytes, self.host.ndim
        self.flags, self.itemsize = self.host.flags, kind.itemsize

    @property
    def device(self):
        return self.data.device

    def __getitem__(self, index):
        part = self.host[index]
        shift = part.ctypes.data - self.host.ctypes.data if part.size else 0
        return ndarray(part.shape, self.dtype, Pointer(self.data.mem, self.data.ptr + shift),
                       part.strides)

    def reshape(self, shape):
        assert self.flags.c_contiguous
        return ndarray(shape, self.dtype, self.data)

    @property
    def T(self):
        return ndarray(self.shape[::-1], self.dtype, self.data, self.strides[::-1])

    def get(self, stream=None, order="C", out=None, blocking=True):
        assert self.flags.c_contiguous  # else CuPy would compile a kernel
        if out is None:
            out = np.empty(self.shape, self.dtype)
        assert (out.shape, out.dtype) == (self.shape, self.dtype) and out.flags.c_contiguous
        assert STATE.stream.nodes is None  # a stream that is captured cannot be waited for
        STATE.log.downloads.append(self.shape)
        out[...] = self.host
        return out

    def __array__(self, dtype=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. "
                        "Please use `.get()` to construct a NumPy array explicitly.")

    def __dlpack_device__(self):
        return ON_GPU, self.device.id


class Tensor:
    """An array of another library on a GPU, which speaks DLPack."""

    def __init__(self, host, device=0):
        self.host, self.place, self.streams = host, device, []

    def __dlpack_device__(self):
        return ON_GPU, self.place

    def __dlpack__(self, *, stream=None, max_version=None, copy=None):
        self.streams.append(stream)
        return self

    def cpu(self):
        return self.host


def foreign(owner, host, number):
    memory = ForeignMemory(STATE.pool, owner, host)
    return ndarray(host.shape, host.dtype, Pointer(memory, memory.ptr, number), host.strides)


def from_dlpack(array, *, device=None, copy=None):
    found = array.__dlpack__(stream=STATE.stream.ptr, max_version=(1, 0), copy=copy)
    return foreign(found, found.host, found.place)


def asarray(a):
    interface = types.SimpleNamespace(__array_interface__=a.__cuda_array_interface__)
    return foreign(a, np.asarray(interface), STATE.current)


def array(obj, dtype=None, copy=True, order="K", *, blocking=False):
    assert obj.ndim == 1 and obj.flags.c_contiguous  # of no axes: CuPy would compile a kernel
    assert blocking == (obj.ctypes.data in SHARED["pinned"]) and STATE.stream.nodes is None
    STATE.log.uploads.append(obj.size)
    new = ndarray(obj.shape, obj.dtype)
    new.host[...] = obj
    return new


class Event:
    """``done`` of all events can be held back (STATE.busy)."""

    numbers = itertools.count()

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.number = next(self.numbers)

    @property
    def done(self):
        return not STATE.busy

    def record(self, stream=None):
        self.stream = stream.ptr
        STATE.log.records.append((self.number, stream.ptr))

    def synchronize(self):
        pass


class Stream:
    ptr = 4711  # of the default stream
    addresses = itertools.count(5000)

    def __init__(self, null=False, non_blocking=False, ptds=False):
        self.non_blocking, self.capturing, self.nodes = non_blocking, False, None
        if not null:
            self.ptr = next(self.addresses)

    def __enter__(self):
        self.before, STATE.stream = STATE.stream, self
        return self

    def __exit__(self, *args):
        STATE.stream = self.before

    def synchronize(self):
        pass

    def wait_event(self, event):
        STATE.log.waits.append((self.ptr, event.stream))

    def begin_capture(self, mode=None):
        assert self.non_blocking and not self.capturing
        self.capturing = True

    def end_capture(self):
        assert self.capturing
        self.capturing = False
        return "graph"


class State(threading.local):
    """What CuPy keeps for a thread (the current stream and device, and whether calls of CUDA's
    runtime have made a context, without which the driver refuses it), and its pool."""

    def __init__(self):
        self.stream, self.current, self.context = Stream(null=True), 0, False

    @property
    def device(self):
        return types.SimpleNamespace(id=self.current, compute_capability="90")

    pool = property(lambda self: SHARED["pool"])
    log = property(lambda self: SHARED["log"])
    busy = property(lambda self: SHARED["busy"])


SHARED = {"pool": Pool(), "log": None, "busy": False, "pinned": set()}
STATE = State()


class Function:
    ptr = 1234

    def __init__(self, module, name):
        self.module, self.name = module, name


class Module:
    def load(self, cubin):
        assert type(cubin) is bytes
        STATE.context = True
        self.cubin = cubin

    def get_function(self, name):
        return Function(self, name)


class Log:
    """What was asked of the driver; ``together``: launches whose blocks may wait."""

    def __init__(self):
        self.launches, self.together, self.attributes, self.modes = [], [], [], []
        self.uploads, self.downloads, self.records, self.waits = [], [], [], []


def words(kernel_params, count):
    """The arguments of a launch, 8 bytes each."""
    places = (ctypes.c_void_p * count).from_address(kernel_params)
    return [ctypes.c_int64.from_address(p).value for p in places]


def driver(log):
    """The driver: it wants numbers and nothing else, a context of the thread, and to be asked for
    much shared memory before a launch and before it counts blocks."""
    asked = {}

    def room(f):
        return asked.get(operator.index(f), UNASKED - DECLARED)

    def with_context():
        if not STATE.context:
            raise CUDADriverError("CUDA_ERROR_INVALID_CONTEXT: invalid device context")

    def check(f, gx, gy, gz, bx, by, bz, shared, stream, params):
        with_context()
        assert all(0 <= operator.index(n) < 2**32 for n in (gx, gy, gz, bx, by, bz, shared))
        assert all(-2**63 <= operator.index(n) < 2**63 for n in (f, stream, params))
        assert (gy, gz, by, bz) == (1, 1, 1, 1)
        if not (0 < gx < 2**31 and 0 < bx <= 1024 and shared <= room(f)):
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")

    def launchKernel(f, gx, gy, gz, bx, by, bz, shared_mem_bytes, stream, kernel_params, extra):
        check(f, gx, gy, gz, bx, by, bz, shared_mem_bytes, stream, kernel_params)
        assert extra == 0
        log.launches.append((f, gx, bx, shared_mem_bytes, stream,
                             lambda count: words(kernel_params, count)))

    def launchCooperativeKernel(f, gx, gy, gz, bx, by, bz, shared_mem_bytes, stream, params):
        check(f, gx, gy, gz, bx, by, bz, shared_mem_bytes, stream, params)
        log.together.append((f, gx, bx))

    def funcSetAttribute(f, attribute, value):
        with_context()
        if not 0 <= operator.index(value) <= MOST_SHARED - DECLARED:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        asked[operator.index(f)] = value
        log.attributes.append((f, attribute, value))

    def occupancy(func, blockSize, dynamicSMemSize):
        with_context()
        return 2048 // blockSize if dynamicSMemSize <= room(func) else 0

    return types.SimpleNamespace(
        check=check, launchKernel=launchKernel, launchCooperativeKernel=launchCooperativeKernel,
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8, funcSetAttribute=funcSetAttribute,
        occupancyMaxActiveBlocksPerMultiprocessor=occupancy)


def runtime(devices, version):
    def getDeviceCount():
        if devices is None:
            raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return devices

    def memcpyAsync(dst, src, size, kind, stream):
        assert kind in (1, 2) and stream == STATE.stream.ptr and STATE.stream.nodes is None
        ctypes.memmove(dst, src, size)

    def setDevice(number):
        STATE.current, STATE.context = number, True

    return types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError, getDeviceCount=getDeviceCount, memcpyAsync=memcpyAsync,
        runtimeGetVersion=lambda: version, setDevice=setDevice,
        getDevice=lambda: STATE.current,
        cudaDevAttrMultiProcessorCount=16, cudaDevAttrMaxSharedMemoryPerBlockOptin=97,
        memcpyHostToDevice=1, memcpyDeviceToHost=2,
        deviceGetAttribute=lambda code, number: {16: 132, 97: 227 << 10}[code],
        getDeviceProperties=lambda number: {"name": b"Fake 9000"})


def cublas(log):
    def gemm(dtype):
        item = np.dtype(dtype).itemsize

        def matrix(address, rows, cols, ld):
            """As cuBLAS sees it: ``rows`` down a column, columns ``ld`` apart."""
            assert ld >= max(1, rows)
            if not rows or not cols:
                return np.zeros((rows, cols), dtype)
            size = (ld * (cols - 1) + rows) * item
            memory = (ctypes.c_char * size).from_address(address)
            return np.ndarray((rows, cols), dtype, memory, 0, (item, ld * item))

        def call(handle, transa, transb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc):
            a = matrix(A, k, m, lda).T if transa else matrix(A, m, k, lda)
            b = matrix(B, n, k, ldb).T if transb else matrix(B, k, n, ldb)
            c = matrix(C, m, n, ldc)
            scale, keep = (matrix(x, 1, 1, 1)[0, 0] for x in (alpha, beta))
            c[...] = scale * (a @ b) + (keep * c if keep else 0)
            log.modes.append(log.mode)
        return call

    log.mode = 0
    return types.SimpleNamespace(
        sgemm=gemm(np.float32), dgemm=gemm(np.float64), CUBLAS_DEFAULT_MATH=0,
        getMathMode=lambda handle: log.mode,
        setMathMode=lambda handle, mode: setattr(log, "mode", mode))


def install(monkeypatch, *, devices=1, version=12090, nvrtc=(12, 9)):
    """Put a fake CuPy where ``import cupy`` finds it; its Log."""
    log = SHARED["log"] = Log()
    SHARED.update(pool=Pool(), busy=False)
    STATE.context = False
    cupy = types.ModuleType("cupy")
    compiler = types.SimpleNamespace(getVersion=lambda: nvrtc,
                                     getSupportedArchs=lambda: (70, 80, 90))

    def Device(number=None):
        return types.SimpleNamespace(id=STATE.current if number is None else number,
                                     compute_capability="90")

    cupy.ndarray, cupy.array, cupy.from_dlpack, cupy.asarray = ndarray, array, from_dlpack, asarray
    cupy.cuda = types.SimpleNamespace(
        Device=Device, Stream=Stream, Event=Event, get_current_stream=lambda: STATE.stream,
        get_cublas_handle=lambda: 1, function=types.SimpleNamespace(Module=Module),
        nvrtc=compiler, runtime=runtime(devices, version), driver=driver(log), cublas=cublas(log),
        pinned_memory=types.SimpleNamespace(
            is_memory_pinned=lambda address: address in SHARED["pinned"]))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return log


def missing():
    raise ModuleNotFoundError("No module named 'cupy'", name="cupy")


@contextlib.contextmanager
def no_cupy(monkeypatch, instead=missing):
    """``import cupy`` does ``instead``, which raises."""
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "cupy":
                instead()

    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "cupy", raising=False)
        patch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
        yield
