"""The host's side of a call: calls that come again, products by cuBLAS, kernels whose blocks wait
for one another.  The GPU is one that is not there (fake_gpu), or the shim."""

from __future__ import annotations

import warnings
from typing import Any

import fake_gpu
import models
import numpy as np
import pytest
from test_scans import same, tutorial
from test_user_ops import Square

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad, scan, shared
from tinygraph.backends.cuda import replay, schedule
from tinygraph.backends.cuda.device import CudaDevice
from tinygraph.backends.cuda.gpu import GpuKernels, Place
from tinygraph.backends.cuda.host import RECORD_NUMBERS, HostRunner
from tinygraph.backends.cuda.kernel import Kernel
from tinygraph.backends.cuda.replay import Launched
from tinygraph.backends.cuda.schedule import HostFor, HostLet, HostProgram, Launch
from tinygraph.backends.runners import Fault
from tinygraph.config import config
from tinygraph.dtypes import float32, int64
from tinygraph.loops import build as E
from tinygraph.loops.language import Block, Buffer, Const, DimOf, Program, Var

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_cache() -> Any:
    with config.change(cache="off"):
        yield


@pytest.fixture
def gpu(monkeypatch):
    return fake_gpu.install(monkeypatch)


def batches(count: int) -> list[list[np.ndarray]]:
    """Batches of the tutorial, of two sizes in turn."""
    rng = np.random.default_rng(1)
    return [[rng.normal(size=(9, n, 2)).astype("float32"), rng.normal(size=9).astype("float32"),
             np.ones((9, n), "float32")] for n in [5 + k % 2 for k in range(count)]]


# --- replays


def trained(gpu: fake_gpu.Gpu, count: int = 20) -> tuple[list[Any], list[Any]]:
    """Costs and parameters after training, and what was done in each call."""
    f, params = tutorial("cuda")
    costs, done = [], []
    for batch in batches(count):
        costs.append(f(*batch))
        done.append(gpu.done())
    return [*costs, *(p.get_value() for p in params)], done


def test_twenty_steps_of_training(gpu, monkeypatch):
    """The first call of a size is worked out, the next is launched from what was written down
    unless its addresses came, too, and then all is one graph; the numbers stay the same bits."""
    with monkeypatch.context() as patch:
        patch.setattr(replay, "MOST_STEPS", 0)
        want, launched = trained(gpu)
    assert not gpu.graphs and {d[1:] for d in launched} == {(0, 0)}
    got, done = trained(gpu)
    for x, y in zip(got, want, strict=True):
        np.testing.assert_array_equal(x, y)
    (launches, _, _), *_ = launched
    assert launches > 20 and {d[0] for d in done[:2]} == {launches}
    assert set(done[6:]) == {(0, 1, 0)}
    made = len(gpu.graphs)
    assert 2 <= made <= 4 and {len(g) for g in gpu.graphs} == {launches}
    assert sum(d[1] for d in done) == sum(d[0] == 0 for d in done)


def test_addresses_that_do_not_come_again(gpu):
    """What was written down is launched with the new ones; there is no graph."""
    import cupy
    x, w = T.matrix("x"), T.matrix("w")
    cost = (T.tanh(x @ w).sum(axis=0) ** 2).sum()
    f, g = (function([x, w], [cost, *grad(cost, [x, w])], backend=b) for b in ("cuda", "numpy"))
    kept = []
    for n in (3, 4, 3, 4, 3, 4, 4):
        arrays = [RNG.normal(size=s).astype("float32") for s in ((n, 5), (5, 40))]
        models.assert_close(f(*arrays), g(*arrays), floor=1e-6)
        kept.append([cupy.ndarray((1 << k,), np.uint8) for k in range(8, 14)])
    assert not gpu.graphs and len(gpu.singles) % 7 == 0


def test_python_functions_stand_between_graphs(gpu):
    x = T.matrix("x")
    calls = []

    class Counted(Square):
        def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
            calls.append(inputs[0].copy())
            super().perform(node, inputs, outputs)

    def busy(y: Any) -> Any:  # sums along both axes in turn: a launch each
        for _ in range(4):
            y = T.nnet.softmax(T.nnet.softmax(y).T + 1).T
        return y

    out = busy(Counted()(busy(x)))
    f, oracle = (function([x], out, backend=b) for b in ("cuda", "numpy"))
    for k in range(5):
        rows = RNG.normal(size=(90, 70)).astype("float32")
        want = oracle(rows)
        calls.clear()
        gpu.forget()
        models.assert_close([f(rows)], [want], floor=1e-6)
        assert len(calls) == 1
        if k > 1:
            assert gpu.done()[:2] == (0, 2)


def stepwise(backend: str, size: int = 80) -> Any:
    """A scan that is launched step by step (STEP_WORK being 0)."""
    x, w = T.tensor3("x"), T.matrix("w")
    hs, _ = scan(lambda row, h: T.tanh(T.dot(row + h.mean(axis=0, keepdims=True), w)), x,
                 T.zeros_like(x[0]))
    f = function([x, w], hs[-1], backend=backend)
    weights = RNG.normal(size=(size, size)).astype("float32") / size
    return lambda rows: f(rows, weights)


def test_long_loops_are_cut_into_graphs(gpu, monkeypatch):
    monkeypatch.setattr(schedule, "STEP_WORK", 0)
    monkeypatch.setattr(replay, "GRAPH_NODES", 8)
    f = stepwise("cuda")
    x = RNG.normal(size=(7, 60, 80)).astype("float32")
    results = [f(x) for _ in range(4)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    gpu.forget()
    f(x)
    singles, replayed, _ = gpu.done()
    assert {len(g) for g in gpu.graphs[:-1]} == {8} and len(gpu.graphs[-1]) <= 8
    assert singles < replay.FEWEST and replayed == len(gpu.graphs) > 2


@pytest.mark.parametrize("share", [0.5, 1.5])
def test_very_long_loops_are_not_captured(gpu, monkeypatch, share):
    """Nor written down, if they are longer still."""
    monkeypatch.setattr(schedule, "STEP_WORK", 0)
    f, x = stepwise("cuda"), RNG.normal(size=(4, 60, 80)).astype("float32")
    first = f(x)
    launches, _, _ = gpu.done()
    recorded = []
    play = replay.Script.play
    monkeypatch.setattr(replay.Script, "play",
                        lambda self, *rest: (recorded.append(1), play(self, *rest)))
    monkeypatch.setattr(replay, "MOST_STEPS", int(launches * share) if share < 1 else launches + 1)
    for _ in range(3):
        np.testing.assert_array_equal(f(x), first)
        assert gpu.done() == (launches, 0, 0)
    assert len(recorded) == (0 if share < 1 else 3)


def test_the_oldest_sizes_are_forgotten(gpu, monkeypatch):
    monkeypatch.setattr(replay, "MOST_CALLS", 2)
    x = T.matrix("x")
    y = x
    for _ in range(3):
        y = T.nnet.softmax(T.nnet.softmax(y).T).T
    f = function([x], y, backend="cuda")
    calls = {n: np.ones((n, 80), "float32") for n in (60, 61, 62)}

    def single(n: int) -> bool:
        f(calls[n])
        singles, replayed, _ = gpu.done()
        assert (singles == 0) == (replayed > 0)
        return singles > 0

    assert [single(n) for n in (60, 60, 61, 61)] == [True, False, True, False]
    assert [single(n) for n in (60, 61, 62)] == [False, False, True]
    assert [single(n) for n in (61, 62, 60)] == [False, False, True]
    assert len(gpu.graphs) == 3


def test_graphs_that_are_refused(gpu, monkeypatch):
    """One warning, and calls go on launch by launch."""
    def refuse(self: Any) -> None:
        self.nodes = None
        raise RuntimeError("cudaErrorStreamCaptureUnsupported")

    monkeypatch.setattr(fake_gpu.Stream, "end_capture", refuse)
    want, _ = trained(gpu, 2)
    f, _ = tutorial("cuda")
    gpu.forget()
    with pytest.warns(UserWarning, match="no graph of its launches.*CaptureUnsupported"):
        costs = [f(*batch) for batch in batches(6)]
    assert gpu.done()[1] == 0
    np.testing.assert_array_equal(costs[:2], want[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f(*batches(1)[0])


@pytest.mark.parametrize("large", [0, 1 << 60], ids=["cuBLAS", "kernels"])
def test_failures_in_replays(gpu, monkeypatch, large):
    """What runs after a failure changes nothing, and the next call is as good as any."""
    monkeypatch.setattr(schedule, "LARGE_PRODUCT", large)
    x, k = T.matrix("x"), T.ivector("k")
    w = shared(np.ones((70, 70), "float32"), "w")
    h = T.tanh(T.dot(x[k], w))
    cost = (T.dot(h, w) ** 2).sum()
    fs = [function([x, k], cost, updates=[(v, v - 1e-3 * grad(cost, v))], backend=b,
                   givens=[(w, v)]) for b, v in
          [(b, shared(w.get_value(), f"w_{b}")) for b in ("cuda", "numpy")]]
    rows = RNG.normal(size=(70, 70)).astype("float32") / 70
    for turn in range(8):
        index = RNG.integers(0, 70, 70).astype("int32")
        if turn % 3 == 2:
            index[turn] = 70
            for f in fs:
                with pytest.raises(IndexError, match="70"):
                    f(rows, index)
        else:
            np.testing.assert_allclose(*[f(rows, index) for f in fs], rtol=1e-4)
    singles, replayed, products = gpu.done()
    assert replayed > 0 and (products > 0) == (large == 0)


def test_python_functions_are_not_called_after_a_failure():
    calls = []

    class Counted(Square):
        def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
            calls.append(1)
            super().perform(node, inputs, outputs)

    x, k = T.vector("x"), T.ivector("k")
    f = function([x, k], Counted()(x[k]), backend="shim")
    assert f([1, 2, 3], [1, 2]).tolist() == [4, 9] and len(calls) == 1
    with pytest.raises(IndexError, match="7"):
        f([1, 2, 3], [1, 7])
    assert len(calls) == 1


# --- products


def matrices() -> tuple[list[Any], Any]:
    """Products with factors of every layout, and what they give."""
    x, y = T.matrix("x"), T.matrix("y")
    return [x, y], [T.dot(x, y), T.dot(x.T, x), T.dot(y, y.T) + T.dot(y, x), T.dot(y.T, x.T),
                    T.dot(x[1:, 2:], y[2:, :5]), T.dot(x[::2], y), T.dot(x[:, ::-1], y)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["shim", "cuda"])
def test_products(gpu, monkeypatch, backend, dtype):
    monkeypatch.setattr(schedule, "LARGE_PRODUCT", 0)
    with config.change(floatX=dtype):
        inputs, outputs = matrices()
        f, oracle = (function(inputs, outputs, backend=b) for b in (backend, "numpy"))
        for n in (70, 9, 70, 1, 70):
            arrays = [RNG.normal(size=(n, n)).astype(dtype) for _ in inputs]
            models.assert_close(f(*arrays), oracle(*arrays), floor=1e-5)
    if backend == "cuda":
        assert gpu.products >= 5 * 5


def test_products_accumulate_and_have_gradients(gpu, monkeypatch):
    """All that a network multiplies, in every step of a loop and outside of it."""
    monkeypatch.setattr(schedule, "LARGE_PRODUCT", 0)
    monkeypatch.setattr(schedule, "STEP_WORK", 0)
    model = models.gru("stacked", hidden=40)
    cost = model.cost()
    outputs = [cost, *grad(cost, model.params)]
    same(model.inputs, outputs, model.batch(2, 3), model.batch(19, 2))
    assert gpu.products == 0
    f, oracle = (function(model.inputs, outputs, backend=b) for b in ("cuda", "numpy"))
    for batch in [model.batch(2, 3), model.batch(19, 2)] * 3:
        models.assert_close(f(*batch), oracle(*batch), floor=1e-5)
    assert gpu.products > 0 and gpu.replayed > 0


def test_small_products_and_those_without_cublas_are_kernels(gpu, monkeypatch):
    inputs, outputs = matrices()
    arrays = [np.ones((70, 70), "float32") for _ in inputs]
    f = function(inputs, outputs, backend="cuda")
    f(*arrays)
    assert gpu.products == 0
    monkeypatch.setattr(schedule, "LARGE_PRODUCT", 0)
    monkeypatch.setattr(CudaDevice, "products", None)
    f = function(inputs, outputs, backend="cuda")
    models.assert_close(f(*arrays), function(inputs, outputs, backend="numpy")(*arrays))
    assert gpu.products == 0


def test_tf32_is_a_setting_of_the_call(gpu, monkeypatch):
    monkeypatch.setattr(schedule, "LARGE_PRODUCT", 0)
    x = T.matrix("x")
    f = function([x], T.dot(x, x), backend="cuda")
    rows = np.ones((70, 70), "float32")
    for tf32 in (False, True, False):
        with config.change(tf32=tf32):
            f(rows)
    assert gpu.log.modes == [0, 3, 0]


def test_the_report_names_cublas():
    x = T.matrix("x")
    f = function([x], T.dot(x, x), backend="shim")
    f(np.ones((3, 3), "float32"))
    assert "of 16,777,216 multiply-adds or more cuBLAS" in str(f.report())


# --- kernels by hand


X = Buffer("x", float32, DimOf("n"), "arg")
S = Buffer("s", float32, DimOf("n"), "temp")


def program(*steps: Any) -> tuple[Program, HostProgram]:
    kernels = [s.kernel for s in schedule._flat(steps) if isinstance(s, Launch)]
    return (Program("p", ("n",), (X,), ((S, E.index(64)),), E.index(128), Block(()), sites=1),
            HostProgram(tuple(steps), tuple(kernels)))


class Device:
    """Writes launches down."""

    units, shared_bytes, repeats, multiplies = 3, 1000, None, False

    def __init__(self):
        self.launches = []

    def part(self, memory, dtype, start, count):
        return (memory, dtype.name, start, count)

    def together(self, kernel, shared):
        assert shared == self.shared_bytes
        return 5

    def launch(self, kernel, blocks, buffers, scalars, shared):
        self.launches.append((kernel.name, blocks, list(buffers), list(scalars), shared))


def test_blocks_that_wait_for_one_another():
    held = (("h0", E.floordiv(E.index(4000), Var("blocks", int64))), ("h1", E.index(201)))
    waits = Kernel("k0", "", (X, S), ("n", "blocks", "h0", "h1"), checks=True, together=True,
                   held=held)
    few = Kernel("k1", "", (), ("blocks",), blocks=DimOf("n"), together=True)
    device = Device()
    HostRunner(*program(Launch(waits), Launch(few)), device).run([2], ["X"], "A", "R")
    fault, sync = ("R", "int64", 0, 8), ("R", "int64", 64, 2)
    assert device.launches == [
        ("k0", 5, [fault, sync, "X", ("A", "float32", 64, 2)], [2, 5, 1, 0], 800),
        ("k1", 2, [sync], [2], 0)]


def test_numbers_of_loops_reach_kernels():
    k = Var("k", int64)
    each = Kernel("k0", "", (S,), ("k", "m"), elements=E.mul(DimOf("n"), Var("m", int64)))
    device = Device()
    HostRunner(*program(HostFor(k, E.index(3), (
        HostLet(Var("m", int64), E.mul(k, E.index(200))), Launch(each)))), device).run(
            [2], ["X"], "A", "R")
    assert [(blocks, scalars) for _, blocks, _, scalars, _ in device.launches] == [
        (1 + (k > 1), [k, 200 * k]) for k in (1, 2)] + [] or device.launches == []


def test_a_gpu_launches_them_together(gpu):
    source = ('extern "C" __global__ void k0(BUF(I64) sync, BUF(float) x, I64 n) {\n'
              "    if (threadIdx.x == 0) x[blockIdx.x * n] = (float)gridDim.x;\n}\n")
    kernel = Kernel("k0", source, (X,), ("n",), together=True)
    seen = []
    gpu.launch_together = lambda *shape: seen.append(shape)
    kernels = GpuKernels(CudaDevice(), source, (kernel,))
    assert kernels.together(kernel, 100) == 132
    assert RECORD_NUMBERS == 16 and Fault


def test_prepared_launches_move(gpu):
    from tinygraph.backends.cuda.prelude import prelude
    source = prelude() + (
        'extern "C" __global__ void k0(BUF(float) x, BUF(float) y, I64 n) {\n'
        "    for (I64 i = threadIdx.x; i < n; i += blockDim.x) x[i] = 2 * y[i];\n}\n")
    kernel = Kernel("k0", source, (X, S), ("n",))
    device = CudaDevice()
    kernels = GpuKernels(device, source, (kernel,))
    arrays = [device.to_device(np.arange(8, dtype=np.float32) + k) for k in range(4)]
    places = [kernels.place(a) for a in arrays]
    one = Launched(kernel, 1, [places[0], Place(places[1].address + 16, places[1].dtype)], [0, 1],
                   [3], 0)
    back = Launched(kernel, 1, [places[1], places[0]], [1, 0], [2], 0)
    prepared = kernels.prepared([one, back], [p.address for p in places[:2]])
    prepared.move([places[2].address, places[3].address])
    graph = kernels.captured(prepared.works)
    prepared.move([places[0].address, places[1].address])
    assert not gpu.singles
    graph()
    assert arrays[2].host[:4].tolist() == [14, 16, 18, 5]
    assert arrays[3].host[:4].tolist() == [28, 32, 5, 6]
    prepared.works[0]()
    assert arrays[0].host[:4].tolist() == [10, 12, 14, 3] and gpu.singles == ["k0"]
