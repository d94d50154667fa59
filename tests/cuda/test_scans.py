"""Recurrent networks as CUDA kernels, run by the shim, against the interpreter: scans of all kinds,
in one kernel for all steps and in launches for every step, layers, and training."""

from __future__ import annotations

from typing import Any

import models
import numpy as np
import pytest
import scan_cases
from test_user_ops import Square, Wrap

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as lasagne
from tinygraph import function, grad, scan, shared
from tinygraph.backends.cuda import schedule
from tinygraph.backends.cuda.runner import ShimDevice
from tinygraph.backends.cuda.shim import Shim
from tinygraph.scan_module import until
from tinygraph.tensor.shared_randomstreams import RandomStreams
from tinygraph_rnn.layers import (
    CustomRecurrentLayer,
    DenseLayer,
    ElemwiseSumLayer,
    Gate,
    GRULayer,
    InputLayer,
    LSTMLayer,
    ReshapeLayer,
    get_all_params,
    get_output,
)
from tinygraph_rnn.tasks import add_batch

RNG = np.random.default_rng(4)
NEVER = 1 << 60


@pytest.fixture(autouse=True)
def no_cache() -> Any:
    lasagne.random.set_rng(3)
    with tinygraph.config.change(cache="off"):
        yield
    lasagne.random.set_rng(None)


# From how much work of a step on loops over time are run by all blocks, launched step by step, and
# that where blocks cannot wait for one another; the shared memory of a block.
TIERS = {"one kernel": (NEVER, NEVER, NEVER, ShimDevice.shared_bytes),
         "all blocks": (0, NEVER, NEVER, 300),
         "launches": (NEVER, 0, 0, 0)}


@pytest.fixture(params=list(TIERS))
def tier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Loops over time are run in one way, however much they do."""
    step, launch, alone, room = TIERS[request.param]
    monkeypatch.setattr(schedule, "STEP_WORK", step)
    monkeypatch.setattr(schedule, "LAUNCH_WORK", launch)
    monkeypatch.setattr(schedule, "ALONE_WORK", alone)
    monkeypatch.setattr(ShimDevice, "shared_bytes", room)
    return request.param


def same(inputs: list[Any], outputs: list[Any], *calls: Any, **options: Any) -> Any:
    """What the kernels compute is what the interpreter computes; returns their function."""
    f, oracle = (function(inputs, outputs, backend=backend, **options)
                 for backend in ("shim", "numpy"))
    for arrays in calls:
        models.assert_close(f(*arrays), oracle(*arrays), floor=1e-6)
    assert f.compiles == 1
    return f


@pytest.mark.parametrize("name", list(scan_cases.cases()))
def test_scans_with_their_gradients(name: str, tier: str) -> None:
    inputs, outputs, arrays = scan_cases.cases()[name]
    same(inputs, outputs, arrays)


@pytest.mark.parametrize("make", [
    lambda: models.lstm("stacked", mask=True, peepholes=True, hidden=3),
    lambda: models.gru(mask=True, hidden=3, backwards=True)], ids=["lstm", "gru"])
def test_batches_of_any_size(make: Any, tier: str) -> None:
    """Batches that are less than a tile and more than one, in float64."""
    with tinygraph.config.change(floatX="float64"):
        model = make()
        cost = model.cost()
        f = same(model.inputs, [cost, *grad(cost, [*model.params, *model.inputs[:1]])],
                 *(model.batch(*sizes) for sizes in ((1, 1), (70, 2), (9, 4))))
    assert {"one kernel": "_scan", "all blocks": "_grid", "launches": "_product"}[tier] in f.source(
        "cuda")


def test_wide_states(tier: str) -> None:
    """The states lie as rows, and the products of a step are products."""
    model = models.gru("stacked", hidden=40)
    cost = model.cost()
    same(model.inputs, [cost, *grad(cost, model.params)], model.batch(1, 2), model.batch(19, 3))


def test_what_is_launched(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop is one launch, or its launches grow with its steps."""
    launched = []
    launch = Shim.launch
    monkeypatch.setattr(Shim, "launch", lambda self, name, *rest, **options: (
        launched.append(name), launch(self, name, *rest, **options)))
    x, w = T.tensor3("x"), T.matrix("w")
    mixed, _ = scan(lambda row, h: T.tanh(T.dot(row + h.mean(axis=0, keepdims=True), w)), x,
                    T.zeros_like(x[0]))
    model = models.rnn(hidden=40)
    for inputs, out, batch, cut in (
            ([x, w], mixed[-1], lambda n: [np.ones(k, "float32") for k in ((n, 6, 40), (40, 40))],
             False),
            (model.inputs, model.states[0][-1], lambda n: model.batch(3, n), True)):
        f, counts = function(inputs, out, backend="shim"), []
        for steps in (2, 5):
            launched.clear()
            f(*batch(steps))
            counts.append(len(launched))
        more = counts[1] - counts[0]
        assert any("_scan" in name for name in launched) == (cut and tier == "one kernel")
        assert any("_grid" in name for name in launched) == (tier == "all blocks")
        assert more > 0 and more % 3 == 0 if tier == "launches" else more == 0


def test_a_step_that_mixes_the_batch(tier: str) -> None:
    """There are no tiles: every row of the batch needs all others."""
    x, w = T.tensor3("x"), T.matrix("w")

    def step(row: Any, h: Any) -> Any:
        h = T.dot(h, w) + row
        return T.tanh(h - h.mean(axis=0)) * T.nnet.softmax(h.T).T

    hs, _ = scan(step, x, T.zeros_like(x[0]))
    cost = (hs ** 2).sum()
    calls = [[RNG.standard_normal(s).astype("float32") for s in ((t, n, 6), (6, 6))]
             for t, n in ((3, 5), (1, 1), (2, 37))]
    same([x, w], [cost, hs[-1], *grad(cost, [x, w])], *calls)


def test_loops_that_end_by_themselves(tier: str) -> None:
    x, limit = T.matrix("x"), T.scalar("limit")

    def step(row: Any, h: Any) -> Any:
        h = T.tanh(row + 0.5 * h)
        return (h, h * row), until((h * h).sum() > limit)

    (h, other), _ = scan(step, x, [T.zeros_like(x[0]), None])
    cost = (h * other).sum()
    rows = RNG.standard_normal((6, 5)).astype("float32")
    same([x, limit], [h, other[::-1], h.shape[0], grad(cost, x), x[:h.shape[0]] * h],
         *((rows, np.float32(v)) for v in (0.01, 1.5, 99)), (rows[:0], np.float32(1)))


def test_loops_in_loops(tier: str) -> None:
    """One of them ends by itself; sizes are known only in a call."""
    x = T.tensor3("x")

    def inner(a: Any, h: Any) -> Any:
        h = T.tanh(a - 0.5 * h)
        return h, until(h.sum() > 1)

    def outer(rows: Any, total: Any) -> Any:
        h, _ = scan(inner, rows, T.zeros_like(total))
        other, _ = scan(lambda a, s: s + T.sin(a) * total, rows, T.zeros_like(total))
        return 0.5 * total + h[-1] + other.sum(axis=0)

    totals, _ = scan(outer, x, T.zeros_like(x[0, 0]))
    calls = [[RNG.standard_normal(s).astype("float32")] for s in ((3, 4, 2), (1, 1, 33))]
    same([x], [totals, grad(totals.sum(), x)], *calls)


def test_draws_in_a_step_have_the_bits_of_the_interpreter(tier: str) -> None:
    found = []
    for backend in ("shim", "numpy"):
        streams, x, h0 = RandomStreams(3), T.matrix("x"), T.matrix("h0")
        w = shared(np.eye(3, dtype="float32") * 0.5, "w")

        def step(row: Any, h: Any, streams: Any = streams, w: Any = w) -> Any:
            kept = streams.binomial(h.shape, p=0.8)
            return T.tanh(T.dot(h, w) + row) * kept, kept, streams.uniform((2,))

        (h, kept, u), more = scan(step, x, [h0, None, None])
        cost = (h ** 2).sum()
        f = function([x, h0], [kept, u, cost], backend=backend,
                     updates=[*more.items(), (w, w - 0.1 * grad(cost, w))])
        x_rows = np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3)
        found.append([f(x_rows, np.ones((5, 3), "float32")) for _ in range(3)] + [[w.get_value()]])
    for got, want in zip(*found, strict=True):
        models.assert_close(got, want)
        for a, b in zip(got[:2], want[:2], strict=True):
            if len(want) > 1:
                np.testing.assert_array_equal(a, b)


def test_ops_of_users_in_python(tier: str) -> None:
    """Between kernels, and in every step of a loop."""
    x, y = T.matrix("x"), T.vector("y")
    hs, _ = scan(lambda row, h: Square()(T.sin(row) + 0.3 * h), x, y)
    a, b = Wrap(3)(hs, y)
    cost = (a ** 2).sum() + (b ** 3).sum()
    rows = RNG.standard_normal((4, 3)).astype("float32")
    same([x, y], [hs, b, *grad(cost, [x, y])], (rows, rows[0]), (rows[:1], rows[1]))


# --- layers and training


def layers(dtype: str) -> tuple[list[Any], Any, list[Any]]:
    """A network of all recurrent layers: inputs, its cost, its parameters."""
    x, mask = InputLayer((None, None, 2)), InputLayer((None, None))
    lstm = LSTMLayer(x, 4, mask_input=mask, learn_init=True, grad_clipping=1.0)
    gru = GRULayer(lstm, 3, mask_input=mask, backwards=True, gradient_steps=3)
    to_hidden = DenseLayer(InputLayer((None, 3)), 5, nonlinearity=None)
    over = DenseLayer(DenseLayer(InputLayer((None, 5)), 4), 5, nonlinearity=None)
    custom = CustomRecurrentLayer(gru, to_hidden, over, nonlinearity=T.tanh,
                                  only_return_final=True)
    out = get_output(DenseLayer(custom, 2))
    return [x.input_var, mask.input_var], (out ** 2).mean(), get_all_params(
        [lstm, gru, custom], trainable=True)


@pytest.mark.parametrize("floatX", ["float32", "float64"])
def test_layers(floatX: str, tier: str) -> None:
    with tinygraph.config.change(floatX=floatX):
        inputs, cost, params = layers(floatX)
        x = RNG.standard_normal((5, 6, 2)).astype(floatX)
        mask = (np.arange(6)[None] < [[6], [1], [3], [0], [5]]).astype(floatX)
        same(inputs, [cost, *grad(cost, params)], (x, mask), (x[:1, :2], mask[:1, :2]))


def tutorial(backend: str, hidden: int = 6) -> tuple[Any, list[Any]]:
    """The training function of the add task's bidirectional network, and its parameters."""
    lasagne.random.set_rng(5)
    x, mask = InputLayer((None, None, 2)), InputLayer((None, None))
    gate = Gate(W_in=lasagne.init.Orthogonal(), W_hid=lasagne.init.Orthogonal())
    ahead, back = (LSTMLayer(x, hidden, mask_input=mask, ingate=gate, forgetgate=gate,
                             outgate=gate, learn_init=True, grad_clipping=100.0, backwards=b)
                   for b in (False, True))
    rows = ReshapeLayer(ElemwiseSumLayer([ahead, back]), (-1, hidden))
    dense = DenseLayer(rows, 1, nonlinearity=lasagne.nonlinearities.tanh)
    n, steps, _ = x.input_var.shape
    out = ReshapeLayer(dense, (n, steps))
    target = T.vector("target")
    cost = ((get_output(out)[:, -1] - target) ** 2).mean()
    params = get_all_params(out, trainable=True)
    f = function([x.input_var, target, mask.input_var], cost, backend=backend,
                 updates=lasagne.updates.adam(cost, params))
    return f, params


@pytest.mark.parametrize("floatX", ["float32", "float64"])
def test_twenty_steps_of_training(floatX: str, tier: str) -> None:
    with tinygraph.config.change(floatX=floatX):
        (f, ours), (oracle, theirs) = tutorial("shim"), tutorial("numpy")
        rng = np.random.default_rng(0)
        tight = 1e-4 if floatX == "float32" else 1e-10
        shortest = 3 if tier == "launches" else 6  # a launch is slow in the shim
        for _ in range(20):
            batch = [np.asarray(a, floatX) for a in add_batch(
                n_batch=9, min_length=shortest, max_length=2 * shortest - 1, rng=rng)]
            np.testing.assert_allclose(f(*batch), oracle(*batch), rtol=tight)
        assert f.compiles == 1
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.get_value(), q.get_value(), rtol=tight, atol=tight)


# --- failures


@pytest.mark.parametrize("where", ["before", "in the loop", "after"])
def test_failures_are_the_users_and_change_nothing(where: str, tier: str) -> None:
    x, k = T.matrix("x"), T.ivector("k")
    w = shared(np.ones((3, 3), "float32"), "w")
    count = shared(np.int64(0), "count")
    if where == "in the loop":
        hs, _ = scan(lambda row, i, h: T.tanh(T.dot(h, w)[i] + row), [x, k], T.zeros_like(x[0]))
    else:
        rows = x[k] if where == "before" else x
        hs, _ = scan(lambda row, h: T.tanh(T.dot(h, w) + row), rows, T.zeros_like(x[0]))
        hs = hs[k] if where == "after" else hs
    cost = (hs ** 2).sum()
    f = function([x, k], cost, backend="shim",
                 updates=[(w, w - 0.1 * grad(cost, w)), (count, count + 1)])
    rows = RNG.standard_normal((4, 3)).astype("float32")
    f(rows, [2, 0, 1, -1])
    kept = w.get_value()
    assert count.get_value() == 1 and not np.array_equal(kept, np.ones((3, 3)))
    with pytest.raises(IndexError, match="7"):
        f(rows, [2, 7, 1, 0])
    np.testing.assert_array_equal(w.get_value(), kept)
    assert count.get_value() == 1
    f(rows, [0, 0, 0, 0])
    assert count.get_value() == 2


@pytest.mark.parametrize("make", [
    lambda x: scan(lambda a, h: (Square()(a + 0.1 * h), until(h > 1)), x, T.zeros(()))[0],
    lambda x: Square()(x[x > 0])], ids=["until", "late size"])
def test_python_that_only_the_device_could_call_runs_on_the_cpu(make):
    x = T.vector("x")
    f = function([x], make(x), backend="shim")
    np.testing.assert_allclose(f([1, 2, 3]), function([x], make(x), backend="numpy")([1, 2, 3]))
    assert "runs on the CPU, not on 'shim': " in str(f.report())


def test_a_scan_in_several_tiles(tier):
    l_in = InputLayer((None, None, 3))
    layer = LSTMLayer(l_in, 40)  # enough work for several tiles
    cost = (get_output(layer) ** 2).sum()
    outputs = [cost, *grad(cost, get_all_params(layer, trainable=True))]
    x = RNG.standard_normal((70, 9, 3)).astype("float32")
    found, expected = (function([l_in.input_var], outputs, backend=b)(x) for b in ("shim", "numpy"))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * abs(b).max())
