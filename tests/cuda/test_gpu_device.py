"""The device itself, where there is one: launches, graphs, copies, cuBLAS."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import function, grad, scan
from tinygraph.backends.cuda.cublas import Matrix, product
from tinygraph.backends.cuda.device import Arguments, CudaDevice, require_cuda, unavailable
from tinygraph.backends.cuda.nvrtc import compile_source
from tinygraph.config import config

MISSING = unavailable()
pytestmark = [pytest.mark.gpu,
              pytest.mark.skipif(MISSING is not None, reason=f"needs a GPU: {MISSING}")]

HALVE = """\
extern "C" __global__ void halve(float* x, long long n) {
    extern __shared__ float kept[];
    for (long long i = threadIdx.x; i < n; i += blockDim.x) {
        kept[threadIdx.x] = x[i];
        x[i] = 0.5f * kept[threadIdx.x];
    }
}
"""


@pytest.fixture(scope="module")
def gpu() -> CudaDevice:
    return require_cuda()


def halve(gpu, x, stream, shared_bytes=1024):
    with config.change(cache="off"):
        entry = gpu.entry(gpu.load(compile_source(HALVE, gpu.arch, "halve")), "halve", 256,
                          shared_bytes)
    arguments = Arguments(2)
    arguments.set([x.data.ptr, x.size])
    gpu.launch(entry, 1, arguments, stream)
    return entry


@pytest.mark.parametrize("shared_bytes", [1024, 64 << 10])
def test_a_launch(gpu, shared_bytes):
    gpu.use()
    values = np.arange(1000, dtype=np.float32).reshape(10, 100)
    x = gpu.to_device(values)
    entry = halve(gpu, x, gpu.stream().ptr, shared_bytes)
    np.testing.assert_array_equal(gpu.to_host(x), values / 2)
    assert gpu.resident(entry) >= 1


def test_a_graph_does_it_again(gpu):
    x = gpu.to_device(np.full(5, 8, np.float32))
    entries = []
    graph = gpu.capture(lambda stream: entries.append(halve(gpu, x, stream)))
    assert gpu.to_host(x).tolist() == [8] * 5
    graph.launch()
    graph.launch()
    assert gpu.to_host(x).tolist() == [2] * 5


@pytest.mark.parametrize("value", [np.float32(3).reshape(()), np.zeros((0, 2)),
                                   np.arange(6).reshape(2, 3).T, np.array([True, False])])
def test_copies(gpu, value):
    back = gpu.to_host(gpu.to_device(value))
    assert back.dtype == value.dtype and back.shape == value.shape
    np.testing.assert_array_equal(back, value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cublas(gpu, dtype):
    if gpu.products is None:
        pytest.skip("cuBLAS is not installed")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 40)).astype(dtype), rng.normal(size=(50, 40)).astype(dtype)
    x, y, z = gpu.to_device(a), gpu.to_device(b), gpu.empty((30, 50), dtype)
    call = product(Matrix(x.data.ptr, 40, 1), Matrix(y.data.ptr, 1, 40), Matrix(z.data.ptr, 50, 1),
                   30, 50, 40)
    gpu.products.multiply(call, dtype)
    np.testing.assert_allclose(gpu.to_host(z), a @ b.T, rtol=1e-4, atol=1e-4)


def test_calls_that_come_again():
    """Worked out, written down, captured, replayed: the same bits."""
    x, w = T.tensor3("x"), T.matrix("w")
    hs, _ = scan(lambda row, h: T.tanh(T.dot(row + h.mean(axis=0, keepdims=True), w)), x,
                 T.zeros_like(x[0]))
    cost = (hs ** 2).sum()
    f = function([x, w], [cost, *grad(cost, [x, w])], backend="cuda")
    rng = np.random.default_rng(0)
    for size in (300, 40):  # the large one has products for cuBLAS
        arrays = [rng.normal(size=s).astype("float32") / size
                  for s in ((7, size, size), (size, size))]
        first, *others = [f(*arrays) for _ in range(5)]
        for other in others:
            for a, b in zip(first, other, strict=True):
                np.testing.assert_array_equal(a, b)
        for a, b in zip(first, function([x, w], [cost, *grad(cost, [x, w])], backend="llvm")(
                *arrays), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * abs(b).max())


def test_time_passes(gpu):
    start, end = gpu.event(timing=True), gpu.event(timing=True)
    start.record(gpu.stream())
    end.record(gpu.stream())
    assert gpu.seconds(start, end) >= 0
