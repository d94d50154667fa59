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

import tinygraph.tensor as T
from tinygraph import function, grad, scan, shared
from tinygraph.backends.cuda import replay, schedule
from tinygraph.backends.cuda.device import cuda_device
from tinygraph.backends.cuda.gpu import GpuKernels, Place
from tinygraph.backends.cuda.host import RECORD_NUMBERS, SYNC_NUMBERS, HostRunner
from tinygraph.backends.cuda.kernel import Kernel
from tinygraph.backends.cuda.prelude import prelude
from tinygraph.backends.cuda.replay import Launched
from tinygraph.backends.cuda.schedule import HostFor, HostLet, HostProgram, Launch
from tinygraph.config import config
from tinygraph.dtypes import bool_, float32, int64
from tinygraph.loops import build as E
from tinygraph.loops.language import Block, Buffer, DimOf, Program, Var

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
    """A scan that is launched step by step (LAUNCH_WORK being 0)."""
    x, w = T.tensor3("x"), T.matrix("w")
    hs, _ = scan(lambda row, h: T.tanh(T.dot(row + h.mean(axis=0, keepdims=True), w)), x,
                 T.zeros_like(x[0]))
    f = function([x, w], hs[-1], backend=backend)
    weights = np.random.default_rng(2).normal(size=(size, size)).astype("float32") / size
    return lambda rows: f(rows, weights)


def test_graphs_have_kernels_whose_blocks_wait(gpu, monkeypatch):
    monkeypatch.setattr(schedule, "STEP_WORK", 0)
    f, oracle = stepwise("cuda"), stepwise("numpy")
    for n in (5, 3) * 3:
        x = RNG.normal(size=(n, 7, 80)).astype("float32")
        models.assert_close([f(x)], [oracle(x)], floor=1e-6)
    assert gpu.replayed >= 2 and any(node.together for node in gpu.graphs[-1])


def test_long_loops_are_cut_into_graphs(gpu, monkeypatch):
    monkeypatch.setattr(schedule, "LAUNCH_WORK", 0)
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
    monkeypatch.setattr(schedule, "LAUNCH_WORK", 0)
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


class Toy:
    """A device whose launches are names, and which writes down how each was made."""

    def __init__(self):
        self.done = []

    def addresses(self, places):
        return tuple(places)

    def launch(self, kernel, blocks, buffers, scalars, shared):
        self.done.append(kernel)

    def prepared(self, launches, addresses):
        class Made:
            works = [lambda k=x.kernel: self.done.append(f"again {k}") for x in launches]

            def move(made, addresses):
                made.addresses = addresses
        return Made()

    def captured(self, works):
        return lambda: self.done.append(f"{len(works)} in one")


def replays(*counts: int) -> Any:
    """A function (sizes, places) -> what is done for a call of so many launches; between them
    stands a call of Python, 'Python'."""
    device = Toy()
    known = replay.Replays(device, "toy")

    def call(sizes: Any, places: Any) -> list[str]:
        def put(sink: Any) -> None:
            for k, count in enumerate(counts):
                if k:
                    sink.work(lambda memory: device.done.append(f"Python {memory}"))
                for name in "abcdefghijklmnop"[:count]:
                    sink.launch(Launched(name, 1, (), (), (), 0))
        device.done.clear()
        known.run(sizes, places, sizes, put)
        return list(device.done)
    return call


def test_what_a_call_does():
    call = replays(3, 2)
    first, again = ["a", "b", "c", "Python 1", "a", "b"], ["again a", "again b"]
    graph = ["3 in one", "Python 1", *again]  # two launches are no graph
    assert call(1, (7,)) == first
    assert call(1, (8,)) == [*again, "again c", "Python 1", *again]
    assert call(1, (7,)) == graph and call(1, (8,)) == graph
    assert call(1, (9,)) != graph and call(1, (7,)) == graph
    assert call(2, (7,)) == [x.replace("1", "2") for x in first]


def test_the_oldest_are_forgotten(monkeypatch):
    monkeypatch.setattr(replay, "MOST_CALLS", 2)
    monkeypatch.setattr(replay, "MOST_PLACES", 2)
    call, graph, first = replays(3), ["3 in one"], ["a", "b", "c"]
    assert [call(n, (0,)) == graph for n in (1, 1, 2, 2, 1, 3)] == [0, 1, 0, 1, 1, 0]
    assert call(1, (0,)) == graph and call(2, (0,)) == first
    again = [f"again {x}" for x in first]
    assert [call(1, (k,)) for k in (0, 1, 1, 0, 2, 0, 1)] == [
        graph, again, graph, graph, again, graph, again]


@pytest.mark.parametrize("most, third", [
    (9, ["again a", "again b", "again c"]), (5, ["again a", "again b", "again c"]),
    (2, ["a", "b", "c"])])
def test_what_is_remembered_has_an_end(monkeypatch, most, third):
    monkeypatch.setattr(replay, "MOST_STEPS", most)
    call = replays(3)
    assert [call(1, (0,)) for _ in range(3)][2] == (["3 in one"] if most == 9 else third)
    for n in (2, 2, 3, 3):
        call(n, (0,))
    assert call(1, (0,)) == (["a", "b", "c"])


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
    fs = []
    for backend in ("cuda", "numpy"):
        w = shared(np.ones((70, 70), "float32") / 70, "w")
        h = T.tanh(T.dot(x[k], w))
        cost = (T.dot(h, w) ** 2).sum()
        fs.append(function([x, k], cost, updates=[(w, w - 1e-3 * grad(cost, w))], backend=backend))
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
        assert gpu.products >= 20


def test_products_accumulate_and_have_gradients(gpu, monkeypatch):
    """All that a network multiplies, in every step of a loop and outside of it."""
    monkeypatch.setattr(schedule, "LARGE_PRODUCT", 0)
    monkeypatch.setattr(schedule, "LAUNCH_WORK", 0)
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
    monkeypatch.setattr(cuda_device(), "products", None)
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
    return (Program("p", ("n",), (X,), ((S, E.index(64)),), E.index(128), Block(()), sites=1),
            HostProgram(tuple(steps), (), E.const(False, bool_)))


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
    fault, sync = ("R", "int64", 0, 8), ("R", "int64", 64, SYNC_NUMBERS)
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
        (2, [1, 200]), (4, [2, 400])]


def test_a_gpu_launches_them_together(gpu):
    """Each block leaves its number for the one before it."""
    source = prelude() + (
        'extern "C" __global__ void k0(BUF(I64) sync, BUF(float) x, BUF(float) s, I64 blocks) {\n'
        "    if (threadIdx.x == 0) s[blockIdx.x] = (float)blockIdx.x;\n"
        "    tg_grid(sync);\n"
        "    if (threadIdx.x == 0) x[blockIdx.x] = s[(blockIdx.x + 1) % blocks];\n}\n")
    kernel = Kernel("k0", source, (X, S), ("blocks",), together=True)
    device = cuda_device()
    kernels = GpuKernels(device, source, (kernel,))
    runner = HostRunner(*program(Launch(kernel)), kernels)
    x, arena = (device.empty((n,), np.dtype(t)) for n, t in ((6, "float32"), (1024, "uint8")))
    for _ in range(3):
        record = device.to_device(np.zeros(RECORD_NUMBERS, np.int64))
        runner.run([6], [kernels.place(x)], kernels.place(arena), kernels.place(record))
        assert x.host.tolist() == [1, 2, 3, 4, 5, 0]
        assert record.host[:10].tolist() == [0] * 9 + [1]
        device.clear(x)


def test_prepared_launches_move(gpu):
    source = prelude() + (
        'extern "C" __global__ void k0(BUF(float) x, BUF(float) y, I64 n) {\n'
        "    for (I64 i = threadIdx.x; i < n; i += blockDim.x) x[i] = 2 * y[i];\n}\n")
    kernel = Kernel("k0", source, (X, S), ("n",))
    device = cuda_device()
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
    assert arrays[0].host[:4].tolist() == [10, 12, 14, 3] and len(gpu.singles) == 1
