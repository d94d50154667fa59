"""Stands for CuPy where there is no GPU: the parts that the back end uses, on the CPU's memory.

Signatures are those of CuPy 14.  Launches are written down; products by cuBLAS are computed, column
by column as cuBLAS reads memory, at the very addresses.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import types

import numpy as np


class CUDARuntimeError(RuntimeError):
    pass


class Pointer:
    def __init__(self, address):
        self.ptr = address

    def memset_async(self, value, size, stream=None):
        ctypes.memset(self.ptr, value, size)

    def copy_from_device_async(self, src, size, stream=None):
        ctypes.memmove(self.ptr, src.ptr, size)


class ndarray:
    def __init__(self, shape, dtype=float):
        self.host = np.full(shape, 99, dtype)
        self.shape, self.dtype = self.host.shape, self.host.dtype
        self.size, self.nbytes = self.host.size, self.host.nbytes
        self.data = Pointer(self.host.ctypes.data)

    def reshape(self, shape):
        new = ndarray(shape, self.dtype)
        new.host[...] = self.host.reshape(shape)
        return new

    def get(self, stream=None, order="C", out=None, blocking=True):
        out[...] = self.host
        return out


def array(obj, dtype=None, copy=True, order="K"):
    assert obj.ndim == 1 and obj.flags.c_contiguous  # of no axes: CuPy would compile a kernel
    new = ndarray(obj.shape, obj.dtype)
    new.host[...] = obj
    return new


class Stream:
    ptr = 4711

    def __init__(self, non_blocking=False):
        self.non_blocking, self.capturing = non_blocking, False

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    def synchronize(self):
        pass

    def begin_capture(self, mode=None):
        assert self.non_blocking and not self.capturing
        self.capturing = True

    def end_capture(self):
        assert self.capturing
        self.capturing = False
        return "graph"


class Function:
    ptr = 1234

    def __init__(self, module, name):
        self.module, self.name = module, name


class Module:
    def load(self, cubin):
        self.cubin = cubin

    def get_function(self, name):
        return Function(self, name)


class Log:
    """What was asked of the driver; ``together``: launches whose blocks may wait."""

    def __init__(self):
        self.launches, self.together, self.attributes, self.modes = [], [], [], []


def words(kernel_params, count):
    """The arguments of a launch, 8 bytes each."""
    places = (ctypes.c_void_p * count).from_address(kernel_params)
    return [ctypes.c_int64.from_address(p).value for p in places]


def driver(log):
    def launchKernel(f, gx, gy, gz, bx, by, bz, shared_mem_bytes, stream, kernel_params, extra):
        assert (gy, gz, by, bz, extra) == (1, 1, 1, 1, 0)
        log.launches.append((f, gx, bx, shared_mem_bytes, stream,
                             lambda count: words(kernel_params, count)))

    def launchCooperativeKernel(f, gx, gy, gz, bx, by, bz, shared_mem_bytes, stream, params):
        log.together.append((f, gx, bx))

    return types.SimpleNamespace(
        launchKernel=launchKernel, launchCooperativeKernel=launchCooperativeKernel,
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
        funcSetAttribute=lambda f, attribute, value: log.attributes.append((f, attribute, value)),
        occupancyMaxActiveBlocksPerMultiprocessor=lambda f, block, shared: 2048 // block)


def runtime(devices, version):
    def getDeviceCount():
        if devices is None:
            raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return devices

    def memcpyAsync(dst, src, size, kind, stream):
        assert kind in (1, 2) and stream == Stream.ptr
        ctypes.memmove(dst, src, size)

    return types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError, getDeviceCount=getDeviceCount, memcpyAsync=memcpyAsync,
        runtimeGetVersion=lambda: version, setDevice=lambda number: None,
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
    log = Log()
    cupy = types.ModuleType("cupy")
    compiler = types.SimpleNamespace(getVersion=lambda: nvrtc,
                                     getSupportedArchs=lambda: (70, 80, 90))
    device = types.SimpleNamespace(id=0, compute_capability="90")
    cupy.ndarray, cupy.array = ndarray, array
    cupy.from_dlpack = lambda x: ("from_dlpack", x)
    cupy.asarray = lambda x: ("asarray", x)
    cupy.cuda = types.SimpleNamespace(
        Device=lambda number=None: device, Stream=Stream, get_current_stream=Stream,
        get_cublas_handle=lambda: 1, function=types.SimpleNamespace(Module=Module),
        nvrtc=compiler, runtime=runtime(devices, version), driver=driver(log), cublas=cublas(log))
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
