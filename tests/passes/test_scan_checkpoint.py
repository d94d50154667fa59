"""scan(..., memory=bytes): a gradient that keeps less, and computes again what it did not keep."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scan_cases import compiled, scans

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad, scan, shared
from tinygraph.interpret import Sizes, evaluate
from tinygraph.ops.arithmetic import Elemwise
from tinygraph.ops.linalg import Dot
from tinygraph.passes.scan_checkpoint import _backward
from tinygraph.rewrite.engine import ancestors

LITTLE, MUCH = 1, 1 << 40


@pytest.fixture(autouse=True)
def no_cache():
    with tinygraph.config.change(cache="off"):
        yield


def parameter(rng, *shape):
    return shared((0.3 * rng.standard_normal(shape)).astype(tinygraph.config.floatX))


def lstm(memory=None, hidden=8, features=6, mask=False, read="last", seed=0, x=None, **options):
    """The inputs of a network of LSTM units, its cost and its parameters."""
    rng = np.random.default_rng(seed)
    w, u, b = (parameter(rng, *s) for s in (
        (features, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)))
    x, m = T.tensor3("x") if x is None else x, T.matrix("m")

    def step(row, *rest):
        *kept, h, c = rest
        z = T.dot(row, w) + T.dot(h, u) + b
        i, f, g, o = (z[:, k * hidden:(k + 1) * hidden] for k in range(4))
        new_c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
        new = [T.nnet.sigmoid(o) * T.tanh(new_c), new_c]
        if not mask:
            return new
        on = kept[0].dimshuffle(0, "x")
        return [T.switch(on, a, old) for a, old in zip(new, (h, c), strict=True)]

    zeros = T.zeros((x.shape[1], hidden))
    (hs, _), _ = scan(step, [x, m] if mask else x, [zeros, zeros], memory=memory, **options)
    cost = {"last": hs[-1] ** 2, "all": hs ** 2, "both": hs[-1] * (hs ** 2).mean()}[read].mean()
    return [x, m] if mask else [x], cost, [w, u, b], hs


def gru(memory=None, hidden=8, features=6):
    rng = np.random.default_rng(0)
    w, u, b = (parameter(rng, *s) for s in (
        (features, 3 * hidden), (hidden, 3 * hidden), (3 * hidden,)))
    x = T.tensor3("x")

    def step(row, h):
        of_x, of_h = T.dot(row, w) + b, T.dot(h, u)
        r, z = (T.nnet.sigmoid(of_x[:, s] + of_h[:, s])
                for s in (slice(0, hidden), slice(hidden, 2 * hidden)))
        new = T.tanh(of_x[:, 2 * hidden:] + r * of_h[:, 2 * hidden:])
        return (1 - z) * h + z * new

    hs, _ = scan(step, x, T.zeros((x.shape[1], hidden)), memory=memory)
    return [x], (hs ** 2).mean(), [w, u, b], hs


def gradients(model, *args, passes=None, backend="llvm", **options):
    inputs, cost, params, _ = model(*args, **options)
    wrt = [*params, inputs[0]]
    return function(inputs, [cost, *grad(cost, wrt)], backend=backend, passes=passes)


def batch(steps, rows=5, mask=False, features=6):
    rng = np.random.default_rng(steps)
    arrays = [rng.standard_normal((steps, rows, features))]
    if mask:
        arrays.append(np.arange(steps)[:, None] < rng.integers(0, steps + 1, rows))
    return [a.astype(tinygraph.config.floatX) for a in arrays]


def workspace(f, **sizes):
    report = f.report()
    return report.workspace_bytes(**{k: sizes[k] for k in report.sizes if k in sizes})


def equal_bits(a, b):
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def close(got, want, tolerance=1e-5):
    for a, b in zip(got, want, strict=True):
        scale = max(np.abs(b).max(), 1e-30) if b.size else 1
        assert a.shape == b.shape and np.all(np.abs(a - b) <= tolerance * scale)


# --- recomputation in the step


def test_states_alone_are_kept():
    inputs, cost, params, _ = lstm(MUCH)
    program = compiled(inputs, grad(cost, params))
    before, after = program.alone("saved")
    forward, backward = scans(program.stage("saved"))
    plain = scans(compiled(*_plain(lstm)).stage("saved"))[1]

    def products(node):
        return sum(isinstance(n.op, Dot) for n in node.op.body.nodes())

    def functions(node):
        return sorted(n.op.fn.name for n in node.op.body.nodes() if isinstance(n.op, Elemwise)
                      and n.op.fn.name in ("sigmoid", "tanh"))

    # What is read back are two states, the input, its share and the cotangent.
    stacks = set(forward.outputs)
    read = {x.node.inputs[0] for x in backward.inputs if x.node and x.node.inputs}
    params_of = forward.op.groups.inputs(forward.op.body.inputs).carries
    new = forward.op.groups.outputs(forward.op.body.outputs).carries
    kept = {forward.op.body.outputs[v.index] for v in stacks & read}
    assert kept <= {*params_of, *new} and len(kept & set(params_of)) == 2
    assert functions(backward) == ["sigmoid"] * 3 + ["tanh"] * 2 and functions(plain) == []
    assert products(backward) == products(plain) + 1
    assert len(scans(before)) == len(scans(after)) == 2


def _plain(model):
    inputs, cost, params, _ = model(None)
    return inputs, grad(cost, params)


def test_of_a_product_and_what_it_is_read_for_the_smaller_is_kept():
    """With a budget bytes alone count: of a wide product's sum the sum is kept, not the product;
    and what costs no byte is read rather than computed."""
    rng = np.random.default_rng(0)
    w = parameter(rng, 3, 50)
    x = T.matrix("x")
    hs, _ = scan(lambda row, h: h * T.tanh(T.dot(row, w).sum()), x, T.ones((3,)), memory=MUCH)
    program = compiled([x], grad((hs ** 2).sum(), w))
    forward, *_ = scans(program.stage("saved"))
    close(function([x], grad((hs ** 2).sum(), w), backend="llvm")(
        np.ones((4, 3), "float32") / 9), program.function(np.ones((4, 3), "float32") / 9))
    assert forward.op.memory == MUCH


# --- segments


def test_the_loops_of_a_budget():
    inputs, cost, params, _ = lstm(LITTLE)
    program = compiled(inputs, grad(cost, params))
    before, after = program.alone("checkpoint")
    assert [n.op.segments for n in scans(before)] == [False, False]
    early, forward, backward, segments = scans(after)
    # early keeps its states at the beginnings; forward and backward walk what is left over.
    assert [n.op.segments for n in (early, forward, backward, segments)] == [
        True, False, False, True]
    assert early.op.groups.stacks == 2
    (inner,) = scans(early.op.body)
    again, back = scans(segments.op.body)
    assert inner.op.n_steps == again.op.n_steps == back.op.n_steps
    assert forward.op.n_steps == backward.op.n_steps
    covered = early.op.n_steps * inner.op.n_steps
    assert covered + forward.op.n_steps == before.inputs[0].type.dims[0]
    # Two cotangents of states, and the sums over time of three parameters.
    assert segments.op.groups.carries == 5 and segments.op.groups.stacks == 0
    assert program.again("checkpoint", after).outputs == after.outputs


def sizes_of(program, steps, rows):
    """The steps of the inner loops and the number of segments, for a call."""
    early, forward, *_ = scans(program.stage("checkpoint"))
    (inner,) = scans(early.op.body)
    x = program.stages[0][1].inputs[0]
    env = dict(zip([d.symbol for d in x.type.dims[:2]], (steps, rows), strict=True))
    return tuple(n.op.n_steps.evaluate(env) for n in (early, inner, forward))


@pytest.mark.parametrize(("memory", "steps", "expected"), [
    (MUCH, 100, (0, 0, 100)), (MUCH, 0, (0, 0, 0)), (LITTLE, 0, (0, 0, 0)),
    (LITTLE, 1, (1, 1, 0)), (LITTLE, 100, (8, 12, 4)), (80_000, 100, (0, 0, 100)),
    (79_999, 100, (3, 33, 1)), (40_000, 100, (4, 25, 0)), (30_000, 100, (6, 16, 4))])
def test_how_many_segments_a_call_has(memory, steps, expected):
    inputs, cost, params, _ = lstm(memory)
    # A step keeps a state and the gradients of the gates: 5 * 8 floats of 5 rows, 800 bytes.  The
    # cell makes place for these.
    assert sizes_of(compiled(inputs, grad(cost, params)), steps, 5) == expected


CASES = {
    "lstm": (lstm, {}), "mask": (lstm, {"mask": True}),
    "all states": (lstm, {"read": "all"}), "states twice": (lstm, {"read": "both", "mask": True}),
    "backwards": (lstm, {"go_backwards": True, "read": "all"}), "gru": (gru, {}),
    "truncated": (lstm, {"truncate_gradient": 3, "read": "all"})}


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
@pytest.mark.parametrize("case", CASES)
def test_values_within_a_budget(case, backend):
    model, options = CASES[case]
    mask = options.get("mask", False)
    with tinygraph.config.change(floatX="float64"):
        plain = gradients(model, backend="numpy", **options)
        limited = gradients(model, 4000, backend=backend, **options)
        for steps in (1, 2, 5, 11):
            arrays = batch(steps, 2, mask)
            close(limited(*arrays), plain(*arrays), 1e-10)


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
@pytest.mark.parametrize("memory", [LITTLE, MUCH])
def test_no_steps(backend, memory):
    rng = np.random.default_rng(0)
    u, x = parameter(rng, 3, 3), T.tensor3("x")
    hs, _ = scan(lambda row, h: T.tanh(row + T.dot(h, u)), x, T.ones((x.shape[1], 3)),
                 memory=memory)
    cost = (hs ** 2).sum()
    f = function([x], [cost, *grad(cost, [u, x])], backend=backend)
    got = f(np.zeros((0, 2, 3), "float32"))
    assert got[0] == 0 and not got[1].any() and got[2].shape == (0, 2, 3)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_bits_are_equal_where_all_steps_fit(case, threads):
    model, options = CASES[case]
    mask = options.get("mask", False)
    with tinygraph.config.change(threads=threads):
        plain, limited = (gradients(model, m, **options) for m in (None, 1_000_000))
        for steps in (1, 2, 5, 40):
            arrays = batch(steps, 5, mask)
            assert equal_bits(limited(*arrays), plain(*arrays))


@pytest.mark.parametrize("features", [1, 3, 4, 5])
@pytest.mark.parametrize("model", [lstm, gru])
def test_bits_are_equal_over_few_features(model, features):
    """Products over few features are sums in the step, in both loops alike."""
    plain, limited = (gradients(model, m, features=features) for m in (None, MUCH))
    arrays = batch(9, 5, features=features)
    assert equal_bits(limited(*arrays), plain(*arrays))


@pytest.mark.parametrize("threads", [1, 2])
def test_half_the_memory_gives_the_same_bits(threads):
    """100 steps of 128 LSTM units, trained by Adam on the last state."""
    sizes = {"x_0": 100, "x_1": 64, "threads": threads}
    made, budget = [], None
    with tinygraph.config.change(threads=threads):
        for _ in range(2):
            inputs, cost, params, _ = lstm(budget, hidden=128, features=64)
            train = function(inputs, [cost, *grad(cost, params)],
                             updates=adam(cost, params), backend="llvm")
            budget = workspace(train, **sizes) // 2
            made.append((train, params, budget * 2))
        (plain, old, much), (limited, new, little) = made
        assert little <= 1.1 * much / 2
        arrays = batch(100, 64, features=64)
        for _ in range(2):
            assert equal_bits(limited(*arrays), plain(*arrays))
            assert equal_bits([p.get_value() for p in new], [p.get_value() for p in old])


def adam(cost, params):
    updates = []
    for p, g in zip(params, grad(cost, params), strict=True):
        m, v = (shared(np.zeros_like(p.get_value())) for _ in range(2))
        new_m, new_v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        updates += [(m, new_m), (v, new_v), (p, p - 0.001 * new_m / (T.sqrt(new_v) + 1e-8))]
    return updates


def test_the_share_of_the_input_is_not_kept_for_the_loop_back():
    """It is computed again, so that the cell's rows lie where it was."""
    inputs, cost, params, _ = lstm(MUCH)
    program = compiled(inputs, grad(cost, params))
    tail_forward, tail_back = [n for n in scans(program.final) if not n.op.segments]
    shared_product = next(x for x in tail_forward.inputs if x.node and isinstance(x.node.op, Dot))
    assert shared_product not in {y for x in tail_back.inputs for y in
                                  (x, *(x.node.inputs if x.node else ()))}
    products = [sum(isinstance(n.op, Dot) for n in s.op.body.nodes())
                for s in (tail_forward, tail_back)]
    assert products == [1, 3]
    # Without a state that gives way nothing is gained by that: the share is kept.
    inputs, cost, params, _ = gru(MUCH)
    (_, back) = [n for n in scans(compiled(inputs, grad(cost, params)).final)
                 if not n.op.segments]
    assert back.op.hoist


@pytest.mark.parametrize("off", ["-saved", "-checkpoint", "-before", "-after", "-prune", "none"])
def test_values_do_not_depend_on_passes(off):
    plain = gradients(lstm, read="both")
    limited = gradients(lstm, 20_000, passes=off, backend="loops", read="both")
    arrays = batch(7)
    close(limited(*arrays), plain(*arrays))


def test_stacked_layers_each_have_a_budget():
    def network(memory):
        inputs, _, params, hs = lstm(memory)
        _, cost, more, _ = lstm(memory, features=8, seed=1, x=hs)
        return inputs, cost, [*params, *more], hs

    plain, limited = gradients(network, None), gradients(network, 10_000)
    for steps in (1, 23):
        close(limited(*batch(steps)), plain(*batch(steps)))


def test_a_layer_goes_with_its_own_gradient():
    """The gradient of the next layer walks back over the states, too."""
    inputs, _, params, hs = lstm(MUCH, hidden=40, features=20)
    _, cost, more, _ = lstm(MUCH, hidden=40, features=40, seed=1, x=hs)
    program = compiled(inputs, grad(cost, [*params, *more]))
    before = scans(program.alone("checkpoint")[0])
    forward = [n for n in before if "backwards" not in n.op.name]
    graph = program.alone("checkpoint")[0]
    backward = [_backward(n, graph) for n in forward]
    assert len(forward) == 2 and None not in backward and backward[0] is not backward[1]
    first, second = (backward if _reads(forward[1], forward[0]) else backward[::-1])
    assert _reads(first, second) and not _reads(second, first)
    # Per layer a state and the gates' gradients; and for each a stack of hs or its gradient.
    kept = 1000 * 16 * (5 + 5 + 2) * 40 * 4
    f = function(inputs, grad(cost, [*params, *more]))
    assert workspace(f, x_0=1000, x_1=16, threads=2) < 1.5 * kept


def _reads(node, other):
    """Does ``node`` depend on ``other``?"""
    return other in [v.node for v in ancestors(node.inputs)]


def test_second_derivatives():
    inputs, cost, (w, u, _), _ = lstm(LITTLE, hidden=3)
    length = sum((g ** 2).sum() for g in grad(cost, [w, u]))
    outputs = [length, *grad(length, [w, u])]
    want = function(inputs, outputs, backend="numpy")(*batch(5, 2))
    program = compiled(inputs, outputs)
    values = [batch(5, 2)[0], *(v.get_value() for v in program.function.shared)]
    graph = program.final
    close(evaluate(graph.outputs, dict(zip(graph.inputs, values, strict=True)), Sizes()), want,
          1e-4)


# --- bytes


@pytest.mark.parametrize("part", [2, 4, 10, 20])
def test_the_workspace_keeps_to_the_budget(part):
    steps, rows, hidden = 2000, 64, 128
    sizes = {"x_0": steps, "x_1": rows, "threads": 2}
    (budget, limited) = (None, None)
    for k in range(2):
        inputs, cost, params, _ = lstm(budget, hidden=hidden, features=64)
        limited = function(inputs, grad(cost, params))
        used = workspace(limited, **sizes)
        budget = used // part if k == 0 else budget
    assert 0.2 * budget < used < 1.1 * budget


def test_what_fits_is_not_cut():
    """A state, and the gradients of the gates in the place of the input's share and the cell."""
    sizes = {"x_0": 1000, "x_1": 64, "threads": 2}
    inputs, cost, params, _ = lstm(MUCH, hidden=128, features=64)
    f = function(inputs, grad(cost, params))
    kept = 1000 * 64 * 5 * 128 * 4
    assert kept < workspace(f, **sizes) < 1.03 * kept


def test_a_budget_below_the_least_is_named():
    inputs, cost, params, _ = lstm(LITTLE)
    f = function(inputs, grad(cost, params), backend="llvm")
    # 8 segments of 12 steps: 2 states of 5 rows at their beginnings, 12 steps of 800 bytes.
    with pytest.warns(UserWarning, match="is 12160 bytes, which is more than memory=1") as found:
        f(*batch(100))
    assert "test_scan_checkpoint.py" in str(found[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs, cost, params, _ = lstm(30_000)
        function(inputs, grad(cost, params), backend="llvm")(*batch(100))


def test_the_least_grows_with_the_root_of_time():
    inputs, cost, params, _ = lstm(LITTLE, hidden=128, features=64)
    f = function(inputs, grad(cost, params))
    few, many = (workspace(f, x_0=n, x_1=64, threads=2) for n in (500, 8000))
    assert many < 4.5 * few
