"""The device itself, where there is one: launches, graphs, copies, cuBLAS."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import Out, function, grad, scan, shared
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


def loaded(gpu, shared_bytes=1024):
    with config.change(cache="off"):
        return gpu.entry(gpu.load(compile_source(HALVE, gpu.arch, "halve")), "halve", 256,
                         shared_bytes)


def halve(gpu, entry, x, stream):
    arguments = Arguments(2)
    arguments.set([x.data.ptr, x.size])
    gpu.launch(entry, 1, arguments, stream)


@pytest.mark.parametrize("shared_bytes", [1024, 64 << 10])
def test_a_launch(gpu, shared_bytes):
    gpu.use()
    values = np.arange(1000, dtype=np.float32).reshape(10, 100)
    x = gpu.to_device(values)
    entry = loaded(gpu, shared_bytes)
    halve(gpu, entry, x, gpu.stream().ptr)
    np.testing.assert_array_equal(gpu.to_host(x), values / 2)
    assert gpu.resident(entry) >= 1


def test_a_graph_does_it_again(gpu):
    x = gpu.to_device(np.full(5, 8, np.float32))
    entry = loaded(gpu)  # nothing is loaded while a stream is captured
    graph = gpu.capture(lambda stream: halve(gpu, entry, x, stream))
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


# --- arrays of functions


@pytest.fixture
def on_gpu():
    """CuPy, of which is used what compiles no kernel."""
    with tinygraph.config.change(device="cuda", floatX="float32"):
        yield pytest.importorskip("cupy")


def test_arrays_stay_on_the_device(on_gpu):
    cupy, x, w = on_gpu, T.vector("x"), shared(np.ones(3, "float32"), "w")
    f = function([x], [w.sum(), Out(w * x, borrow=True)], updates=[(w, w + x)])
    cpu = function([x], w * x, updates=[(w, w - x)], backend="llvm")
    total, product = f(cupy.asarray(np.arange(3, dtype="float32")))
    assert isinstance(total, np.ndarray) and total == 3
    assert isinstance(product, cupy.ndarray) and product.get().tolist() == [0, 1, 2]
    assert isinstance(w.get_value(borrow=True), cupy.ndarray)
    assert f(product)[1].get().tolist() == [0, 2, 6] and product.get().tolist() == [0, 1, 2]
    assert w.get_value().tolist() == [1, 3, 5]
    for _ in range(4):
        assert cpu(np.ones(3, "float32")).tolist() == [1, 3, 5]
        assert f(cupy.asarray(np.ones(3, "float32")))[1].get().tolist() == [0, 2, 4]
    with pytest.raises(TypeError, match=r"pass x.get\(\)"):
        cpu(product)
    w.set_value(cupy.asarray(np.full(2, 7, "float32")))
    assert f(np.ones(2, "float32"))[0] == 14


def test_arrays_with_gaps_or_out_of_line(on_gpu):
    cupy, x = on_gpu, T.matrix("x")
    f = function([x], x + 1)
    rows = np.arange(60, dtype="float32").reshape(6, 10)
    there = cupy.asarray(rows)
    for part in (np.s_[:], np.s_[::2, 1:], np.s_[::-1], np.s_[1:3, :], np.s_[:0]):
        np.testing.assert_array_equal(f(there[part]), rows[part] + 1)
    np.testing.assert_array_equal(f(there.T), rows.T + 1)
    np.testing.assert_array_equal(f(cupy.asarray(rows.astype("int16"))), rows + 1)


def test_streams_wait(on_gpu):
    """What one stream has computed is there for the next, as often as they change."""
    cupy, x = on_gpu, T.matrix("x")
    w = shared(np.zeros((500, 500), "float32"), "w")
    f = function([x], [], updates=[(w, w + T.dot(x, x))])
    eye = cupy.asarray(np.eye(500, dtype="float32"))
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(3)]
    cupy.cuda.get_current_stream().synchronize()
    for k in range(60):
        with streams[k % 3]:
            f(eye)
    np.testing.assert_array_equal(w.get_value(), 60 * np.eye(500))


def test_tensors_of_torch(on_gpu):
    torch, x = pytest.importorskip("torch"), T.matrix("x")
    f = function([x], Out(2 * x, borrow=True))
    for tensor in (torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(2, 3).cuda(),
                   torch.arange(6.0).reshape(3, 2).T.cuda()):
        np.testing.assert_array_equal(f(tensor).get(), 2 * tensor.cpu().numpy())
    back = torch.from_dlpack(f(torch.ones(2, 2).cuda()))
    assert back.is_cuda and back.cpu().tolist() == [[2, 2], [2, 2]]
    for _ in range(50):  # memory that torch gives out again at once
        assert f(torch.ones(300, 300).cuda()).get().sum() == 2 * 300 * 300


def test_parameters_move_between_devices(on_gpu):
    w, x = shared(np.linspace(0, 1, 7, dtype="float32"), "w"), T.vector("x")
    function([x], [], updates=[(w, w * x)])(np.full(7, 3, "float32"))
    v = shared(w.get_value(), "v")
    cpu = function([x], v * x, backend="llvm")
    np.testing.assert_array_equal(cpu(np.ones(7, "float32")), w.get_value())


def test_random_numbers_have_the_bits_of_the_cpu(on_gpu):
    def draws(backend):
        streams = tinygraph.tensor.shared_randomstreams.RandomStreams(5)
        return function([], streams.uniform((100,)), backend=backend)

    f, g = draws("cuda"), draws("llvm")
    for _ in range(3):
        np.testing.assert_array_equal(f(), g())
