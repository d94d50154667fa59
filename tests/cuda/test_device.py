"""The GPU behind CuPy, with a CuPy that is not there: what is asked of it, and what is refused."""

from __future__ import annotations

import itertools
import threading

import fake_cupy
import numpy as np
import pytest

from tinygraph.backends.cuda import nvrtc
from tinygraph.backends.cuda.cublas import Matrix, product
from tinygraph.backends.cuda.device import (
    ArgumentRows,
    Arguments,
    CudaDevice,
    require_cuda,
    unavailable,
)
from tinygraph.backends.cuda.gpu import GpuKernels, Place
from tinygraph.backends.cuda.kernel import Kernel
from tinygraph.dtypes import float32
from tinygraph.errors import InternalError, UnavailableError
from tinygraph.loops.language import Buffer, Const


@pytest.fixture
def log(monkeypatch):
    return fake_cupy.install(monkeypatch)


@pytest.fixture
def gpu(log):
    return CudaDevice()


def driver_is(monkeypatch, version):
    monkeypatch.setattr(nvrtc, "driver_version", lambda: version)


# --- what is missing

def test_nothing_is_missing(monkeypatch, log):
    driver_is(monkeypatch, 12040)
    assert unavailable() is None
    assert require_cuda().arch == "sm_90"


@pytest.mark.parametrize("driver, settings, says", [
    (None, {}, "no NVIDIA driver"),
    (11040, {}, "takes CUDA 11.4, and the oldest that CuPy takes is 12.0"),
    (12040, {"version": 13020, "nvrtc": (13, 5)},
     "CuPy is made for CUDA 13, and the driver takes 12.4 (update the driver, or pip uninstall "
     "cupy-cuda13x and pip install cupy-cuda12x nvidia-cuda-nvrtc-cu12 "),
    (12040, {"nvrtc": (13, 0)}, "NVRTC makes code for CUDA 13, and the driver takes 12.4"),
    (12040, {"devices": None}, "CUDA finds no GPU (cudaErrorNoDevice"),
    (12040, {"devices": 0}, "CUDA finds no GPU"),
])
def test_what_is_missing_is_said(monkeypatch, driver, settings, says):
    fake_cupy.install(monkeypatch, **settings)
    driver_is(monkeypatch, driver)
    why = unavailable()
    assert why is not None and says in why and "\n" not in why
    with pytest.raises(UnavailableError) as caught:
        require_cuda()
    assert str(caught.value).startswith(f"backend='cuda' cannot run here: {why}. ")
    assert "python -m tinygraph doctor" in str(caught.value)


@pytest.mark.parametrize("driver, wheel", [(None, "cupy-cuda13x"), (12020, "cupy-cuda12x"),
                                           (13000, "cupy-cuda13x"), (14010, "cupy-cuda13x")])
def test_without_cupy_the_right_wheels_are_named(monkeypatch, driver, wheel):
    driver_is(monkeypatch, driver)
    with fake_cupy.no_cupy(monkeypatch):
        why = unavailable()
    assert f"CuPy is not installed (pip install {wheel} nvidia-cuda-nvrtc" in why
    assert ("no NVIDIA driver" in why) == (driver is None)


def test_a_broken_cupy_is_told_from_a_missing_one(monkeypatch):
    def broken():
        raise ImportError("many\nlines") from OSError("libcuda.so.1 is too short")

    driver_is(monkeypatch, 12040)
    with fake_cupy.no_cupy(monkeypatch, broken):
        assert unavailable() == "CuPy cannot be imported (libcuda.so.1 is too short)"


def test_without_nvrtc_its_wheel_is_named(monkeypatch, log):
    def missing():
        raise RuntimeError('Failure finding "libnvrtc.so.12"\nand more')

    import cupy
    monkeypatch.setattr(cupy.cuda.nvrtc, "getVersion", missing)
    driver_is(monkeypatch, 12040)
    assert unavailable() == ('CuPy does not find NVRTC: Failure finding "libnvrtc.so.12" '
                             "(pip install nvidia-cuda-nvrtc-cu12)")


@pytest.mark.parametrize("capability, arch", [("70", "sm_70"), ("86", "sm_80"), ("90", "sm_90"),
                                              ("120", "compute_100")])
def test_architectures(capability, arch):
    assert nvrtc.architecture(capability, (70, 72, 80, 90, 100)) == arch


def test_a_gpu_that_nvrtc_does_not_know():
    with pytest.raises(UnavailableError, match="capability 7.0, the least it knows is 75"):
        nvrtc.architecture("70", (75, 80, 90))


# --- launches

def test_arguments_arrive(gpu, log):
    entry = gpu.entry(gpu.load(b"cubin"), "k", 256, 1000)
    arguments = Arguments(3)
    arguments.set([1 << 40, -7, 3])
    gpu.launch(entry, 5, arguments, 4711)
    (f, blocks, threads, shared, stream, words), = log.launches
    assert (f, blocks, threads, shared, stream) == (1234, 5, 256, 1000, 4711)
    assert words(3) == [1 << 40, -7, 3]
    assert entry.function.module.cubin == b"cubin"


def test_arguments_of_many_launches_lie_in_one_array(gpu, log):
    entry = gpu.entry(gpu.load(b"cubin"), "k", 256, 1000)
    many = ArgumentRows([[5, -7], [], [1 << 40]])
    many.values += 1
    for row in many.rows:
        gpu.launch(entry, 2, row, shared_bytes=64)
    assert [call[3:5] for call in log.launches] == [(64, fake_cupy.Stream.ptr)] * 3
    assert log.launches[0][5](2) == [6, -6] and log.launches[2][5](1) == [(1 << 40) + 1]
    assert many.starts.tolist() == [0, 2, 2, 3]


def test_no_blocks_are_no_launch(gpu, log):
    gpu.launch(gpu.entry(gpu.load(b""), "k", 256), 0, Arguments(0), 0)
    assert not log.launches


@pytest.mark.parametrize("shared_bytes", [100 << 10, 40 << 10])
def test_shared_memory_is_asked_for(gpu, log, shared_bytes):
    """What the text declares counts, too: 40 KB may be more than there is without asking."""
    entry = gpu.entry(gpu.load(b""), "k", 256, shared_bytes)
    assert log.attributes == [(1234, 8, shared_bytes)]
    assert gpu.resident(entry) > 0
    gpu.launch(entry, 1, Arguments(0), together=True)
    gpu.launch(entry, 1, Arguments(0))
    with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
        gpu.launch(entry, 1, Arguments(0), shared_bytes=shared_bytes + 1)


def test_a_thread_has_a_context_before_it_launches(gpu, log):
    entry, seen = gpu.entry(gpu.load(b""), "k", 256), []

    def work():
        with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_CONTEXT"):
            gpu.launch(entry, 1, Arguments(0))
        with gpu.home.ordered():
            gpu.launch(entry, 1, Arguments(0))
        seen.append(gpu.resident(entry))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert seen == [8 * 132] and len(log.launches) == 1


def test_blocks_that_wait_for_one_another(gpu, log):
    entry = gpu.entry(gpu.load(b""), "k", 256)
    assert gpu.resident(entry) == 8 * 132 and gpu.resident(entry, 1000) == 8 * 132
    gpu.launch(entry, 8 * 132, Arguments(1), 0, together=True)
    assert log.together == [(1234, 8 * 132, 256)] and not log.launches


def test_a_capture_gives_a_graph(gpu, log):
    entry = gpu.entry(gpu.load(b""), "k", 32)
    assert gpu.capture(lambda stream: gpu.launch(entry, 1, Arguments(0), stream)) == "graph"
    assert len(log.launches) == 1


def test_a_capture_that_fails_ends(gpu, monkeypatch):
    streams = []

    class Seen(fake_cupy.Stream):
        def __init__(self, **how):
            super().__init__(**how)
            streams.append(self)

        def end_capture(self):
            super().end_capture()
            raise RuntimeError("cudaErrorStreamCaptureInvalidated")

    monkeypatch.setattr(gpu.cupy.cuda, "Stream", Seen)
    with pytest.raises(KeyError):
        gpu.capture(lambda stream: {}["no such kernel"])
    assert not streams[0].capturing


# --- memory

@pytest.mark.parametrize("value", [
    np.arange(6, dtype=np.float32).reshape(2, 3).T, np.float64(3).reshape(()),
    np.zeros((0, 4), np.int64), np.array([True, False])])
def test_copies_there_and_back(gpu, value):
    there = gpu.to_device(value)
    back = gpu.to_host(there)
    assert back.dtype == value.dtype and back.shape == value.shape
    np.testing.assert_array_equal(back, value)


def test_pinned_memory_may_be_changed_at_once(gpu, monkeypatch):
    value = np.arange(3)
    monkeypatch.setitem(fake_cupy.SHARED, "pinned", {value.ctypes.data})
    assert gpu.to_host(gpu.to_device(value)).tolist() == [0, 1, 2]  # the copy was waited for


def test_fills_and_copies(gpu):
    x, y = gpu.to_device(np.arange(3.0)), gpu.empty((3,), np.float64)
    gpu.copy(x, y)
    gpu.clear(x)
    assert y.host.tolist() == [0, 1, 2] and x.host.tolist() == [0, 0, 0]


# --- cuBLAS

def strided(rng, rows, cols, order, gap, dtype):
    """A matrix that lies by rows or by columns, with a gap between them, and what to call it."""
    long, short = (cols, rows) if order == "C" else (rows, cols)
    memory = rng.normal(size=(short, long + gap)).astype(dtype)
    array = memory[:, :long] if order == "C" else memory[:, :long].T
    return array, Matrix(memory.ctypes.data, *(s // memory.itemsize for s in array.strides))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("orders", ["".join(x) for x in itertools.product("CF", repeat=3)])
def test_products(gpu, orders, dtype):
    rng = np.random.default_rng(0)
    for m, n, k, gap, accumulate in [(3, 4, 5, 0, False), (3, 4, 5, 2, True), (1, 4, 5, 1, True),
                                     (3, 1, 1, 0, False), (1, 1, 7, 3, False), (2, 3, 0, 1, True),
                                     (2, 3, 0, 1, False), (0, 3, 2, 0, False)]:
        a, first = strided(rng, m, k, orders[0], gap, dtype)
        b, second = strided(rng, k, n, orders[1], gap, dtype)
        c, third = strided(rng, m, n, orders[2], gap, dtype)
        expected = a @ b + (c if accumulate else 0)
        call = product(first, second, third, m, n, k)
        assert call is not None
        gpu.products.multiply(call, dtype, accumulate)
        np.testing.assert_allclose(c, expected, rtol=1e-5)


def test_strides_that_cublas_does_not_read():
    plain = Matrix(0, 4, 1)
    assert product(plain, plain, plain, 4, 4, 4) is not None
    for bad in (Matrix(0, 8, 2), Matrix(0, 0, 1), Matrix(0, 2**31, 1), Matrix(0, -4, 1)):
        for place in range(3):
            operands = [plain, plain, plain]
            operands[place] = bad
            assert product(*operands, 4, 4, 4) is None
    assert product(plain, plain, plain, 2**31, 4, 4) is None


def test_tf32_only_when_asked(gpu, log):
    x = np.ones((2, 2), np.float32)
    call = product(*[Matrix(x.ctypes.data, 2, 1)] * 2, Matrix(np.empty_like(x).ctypes.data, 2, 1),
                   2, 2, 2)
    gpu.products.multiply(call, "float32")
    gpu.products.multiply(call, "float32", tf32=True)
    assert log.modes == [0, 3] and log.mode == 0


@pytest.mark.parametrize("error", [ImportError("libcublas.so.12"),
                                   RuntimeError("Failed to dlopen libcublas.so.12")])
def test_without_cublas(gpu, monkeypatch, error):
    class Missing:
        def __getattr__(self, name):
            raise error

    monkeypatch.setattr(gpu, "cupy", type("cupy", (), {"cuda": Missing()}))
    assert gpu.products is None


# --- a program's kernels

def test_kernels_are_loaded_once_and_launched(gpu, log, monkeypatch):
    compiled = []
    monkeypatch.setattr(nvrtc, "opened", lambda: None)
    monkeypatch.setattr(nvrtc, "_compile", lambda source, options, name: (
        compiled.append((source, options[-1])) or b"cubin"))
    buffer = Buffer("x", float32, Const(8, float32), "in")
    text = 'extern "C" __global__ void k0_nest(BUF(I64) fault, BUF(float) x, I64 n, I64 m) {\n}\n'
    kernel = Kernel("k0_nest", text, (buffer,), ("n", "m"), checks=True)
    kernels = GpuKernels(gpu, "prelude\n" + text, (kernel,))
    assert kernels.units >= 132
    memory = gpu.to_device(np.arange(64, dtype=np.uint8))
    arena = kernels.place(memory)
    place = kernels.part(arena, np.dtype(np.float32), 16, 4)
    for size in (3, 4):
        kernels.launch(kernel, 2, [Place(7, np.dtype(np.int64)), place], [size, -1])
    [(source, option)] = compiled
    name = source.split("(")[0].split()[-1]
    assert source == "prelude\n" + text.replace("k0_nest", name) and name.startswith("nest_")
    assert option == "--gpu-architecture=sm_90"
    f, blocks, threads, shared, stream, words = log.launches[-1]
    assert (blocks, threads, stream) == (2, 256, fake_cupy.Stream.ptr)
    assert words(4) == [7, memory.data.ptr + 16, 4, -1]


def test_as_many_blocks_wait_as_there_are_multiprocessors(gpu, log, monkeypatch):
    monkeypatch.setattr(nvrtc, "opened", lambda: None)
    monkeypatch.setattr(nvrtc, "_compile", lambda source, options, name: b"cubin")
    text = 'extern "C" __global__ void k0(BUF(I64) fault, BUF(I64) sync) {\n}\n'
    kernel = Kernel("k0", text, (), (), checks=True, together=True)
    kernels = GpuKernels(gpu, text, (kernel,))
    assert kernels.together(kernel, kernels.shared_bytes) == 132
    assert log.attributes == [(1234, 8, kernels.shared_bytes)]
    places = [Place(7, np.dtype(np.int64)), Place(71, np.dtype(np.int64))]
    kernels.launch(kernel, 132, places, [])
    assert log.together == [(1234, 132, 256)]
    monkeypatch.setattr(gpu.driver, "occupancyMaxActiveBlocksPerMultiprocessor", lambda *how: 0)
    with pytest.raises(InternalError, match="k0: a multiprocessor has no room for a block with 99"):
        kernels.together(kernel, 99)


@pytest.mark.parametrize("start, strides, sizes", [
    (0, [4, 1], [3, 4]), (1, [4, 2], [3, 2]), (11, [-4, -1], [2, 3]), (5, [], []),
    (3, [1], [0])])
def test_python_functions_see_arrays(gpu, start, strides, sizes):
    kernels = GpuKernels(gpu, "", ())
    memory = gpu.to_device(np.arange(12.0))
    view = np.lib.stride_tricks.as_strided(
        np.arange(12.0)[start:], sizes, [8 * s for s in strides])
    place = kernels.place(memory)
    array = kernels.array(place, start, strides, sizes)
    np.testing.assert_array_equal(array, view)
    array += 100
    kernels.write(place, array, start, strides)
    changed = set(view.reshape(-1).tolist())
    assert memory.host.tolist() == [x + 100 * (x in changed) for x in range(12)]
