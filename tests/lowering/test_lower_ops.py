"""Every op: the loop program and native code against the meaning that the op's class gives.

Cases are grouped so that one function, hence one compilation, holds many of them.
"""

from __future__ import annotations

import models
import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import scan
from tinygraph.graph import Op, apply, subgraphs
from tinygraph.lowering.lower import choose_lane
from tinygraph.ops.arithmetic import Reduce, reduce_
from tinygraph.ops.callback import Callback
from tinygraph.ops.control import Identity
from tinygraph.ops.cumulative import Cumulate, LinearRecurrence
from tinygraph.ops.linalg import dot_general
from tinygraph.ops.sizes import iota, size_value
from tinygraph.ops.views import SetSlice, axis_region, unslice
from tinygraph.ops.windows import windows

RNG = np.random.default_rng(9)
SIZES = ((3, 4), (1, 1), (2, 7), (0, 3), (5, 0), (40, 9))


def arrays(n, t):
    return [RNG.standard_normal((n, t, 3)), RNG.standard_normal((n, t)),
            RNG.standard_normal(t), RNG.integers(-t, t, n) if t else np.zeros(0, int)]


def run(make, backend, sizes=SIZES):
    """Compile what ``make(x, y, v, k)`` gives and compare it for every size."""
    with tinygraph.config.change(floatX="float64", cache="off"):
        x, y, v, k = T.tensor3("x"), T.matrix("y"), T.vector("v"), T.lvector("k")
        outputs = make(x, y, v, k)
        f = tinygraph.function([x, y, v, k], outputs, backend=backend, on_unused_input="ignore")
        oracle = tinygraph.function([x, y, v, k], outputs, backend="numpy",
                                    on_unused_input="ignore")
        for n, t in sizes:
            if backend == "loops" and n * t > 200:
                continue
            given = arrays(n, t)
            got, want = f(*given), oracle(*given)
            for j, (a, b) in enumerate(zip(got, want, strict=True)):
                try:
                    models.assert_close([a], [b], floor=1.0)
                except AssertionError as error:
                    raise AssertionError(f"output {j}, sizes {n}, {t}: {error}") from error
            assert not any(np.shares_memory(a, b) for i, a in enumerate(got)
                           for b in [*given, *got[i + 1:]])
    return f


BACKENDS = pytest.mark.parametrize("backend", ["loops", "llvm"])


def views(x, y, v, k):
    n, t = x.shape[0], x.shape[1]
    return [
        x.dimshuffle(2, 0, 1), x[::-1], x[:, ::-2, 1:], x[1:, :-1], x[-2:], x[:, :, 2],
        x.dimshuffle(1, 0, 2)[::-1].dimshuffle(1, 0, 2), y.dimshuffle(0, "x", 1),
        x.reshape((n * t, 3)), x.dimshuffle(1, 0, 2).reshape((n * t, 3)),
        x[:, ::-1].reshape((n, t * 3)), x.reshape((n * t, 3)).reshape((n, t, 3)) * 2,
        x.flatten(), x.dimshuffle(2, 1, 0).flatten(), T.alloc(v, n, t), T.alloc(1.5, n, t),
        T.alloc(v, n, t).reshape((n * t,)), T.alloc(v, n, t)[:, ::-1].dimshuffle(1, 0),
        (y + 1).dimshuffle(1, 0).reshape((t * n,)), y.dimshuffle(1, 0)[::2, ::-1],
        T.tanh(x).reshape((n * t, 3)).dimshuffle(1, 0)]


def joining(x, y, v, k):
    part = axis_region(y, 1, 0, 1, 1)
    region = axis_region(x, 0, x.type.dims[0] - 1, x.type.dims[0], -1)
    shifted = T.concatenate([T.zeros_like(y[:1]), y], axis=0)
    return [
        T.concatenate([y, y * 2], axis=1), T.concatenate([y, y, y[::-1]], axis=0),
        T.concatenate([T.tanh(y), y, T.ones_like(y[:, :1])], axis=1),
        T.concatenate([T.concatenate([y, y + 1], axis=1), T.concatenate([y, y], axis=1)],
                      axis=0),
        T.concatenate([x, x[:, :, :1]], axis=2).dimshuffle(2, 0, 1), shifted[:-1],
        unslice(x, x.type.dims, region), unslice(y[1:], y.type.dims,
                                                 axis_region(y, 0, 1, y[1:].type.dims[0])),
        T.set_subtensor(x[:, :, 1], y), T.inc_subtensor(x[:, ::-1, 0], y),
        T.set_subtensor(y[1:], 0.5), T.stack([y, y * 3], axis=1), part and y * 1,
        apply(SetSlice(region), x, T.exp(x))[0]]


def reductions(x, y, v, k):
    some = [reduce_("sum", x, axes) for axes in ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2),
                                                 (0, 1, 2))]
    some += [reduce_("prod", x, (1,)), reduce_("sum", x * x, (0, 2)),
             reduce_("sum", T.exp(x) - y.dimshuffle(0, 1, "x"), (1,)),
             reduce_("sum", x.dimshuffle(2, 1, 0), (1,)), x.sum(axis=1) / 2 - y.sum(),
             reduce_("max", x, (2,)), reduce_("min", x.dimshuffle(2, 0, 1), (0,)),
             reduce_("and", x > 0, (2,)), reduce_("or", x > 1, (0, 1)),
             reduce_("and", x > -9, (0, 1, 2)), T.cast(x * 10, "int32").sum(axis=1),
             T.cast(x * 10, "int8").sum(), (x > 0).sum(axis=0)]
    return some


def chosen(x, y, v, k):
    """Sizes that only the run finds out."""
    some, some_rows = x[x > 0], y[y.sum(axis=1) > 0]
    return [some, some * 2 + 1, some.sum(), some_rows, T.dot(some_rows, v), y[:, v > 0],
            T.exp(some_rows).dimshuffle(1, 0)[::-1], T.concatenate([some_rows, y], axis=0),
            T.zeros((some.shape[0], 2)), T.set_subtensor(x[x > 0], 1.0), some[some > 1]]


@BACKENDS
def test_nan_in_max_and_min(backend):
    kinds = [Reduce(kind, (0,)) for kind in ("max", "min")]
    x = T.dmatrix("x")
    f = tinygraph.function([x], [apply(op, x)[0] for op in kinds], backend=backend)
    a = np.array([[1.0, np.nan, 3.0], [2.0, 0.0, -np.inf]])
    np.testing.assert_array_equal(f(a), [[2, np.nan, 3], [1, np.nan, -np.inf]])


def products(x, y, v, k):
    w = T.constant(RNG.standard_normal((3, 5)))
    u = T.constant(RNG.standard_normal((4, 2, 3)))
    return [
        T.dot(x, w), T.dot(y, v), T.dot(v, v), T.dot(y.T, y), T.dot(y, y.T[:, ::-1]),
        T.dot(x.dimshuffle(1, 0, 2), w), T.dot(w.T, x.dimshuffle(2, 0, 1).reshape(
            (3, x.shape[0] * x.shape[1]))),
        T.tensordot(x, y, axes=[[0, 1], [0, 1]]), T.tensordot(x, u, axes=[[2], [2]]),
        T.batched_dot(x, x.dimshuffle(0, 2, 1)), T.outer(v, v), T.dot(y[::-1], v[::-1]),
        dot_general("ijk", "ijk", "ij", x, x), dot_general("ijk", "ij", "k", x, y),
        dot_general("ijk", "lmk", "mjli", x, u), dot_general("ij", "j", "ij", y, v),
        dot_general("ijk", "ijk", "kj", x, x), dot_general("ij", "k", "kij", y, v),
        T.dot(T.tanh(x), w) + 1, T.concatenate([T.dot(x, w), T.dot(x * 2, w)], axis=2)]


def indices(x, y, v, k):
    rows = y.T  # (t, n): k indexes t
    return [
        rows[k], v[k], T.inc_subtensor(v[k], 1.0), T.inc_subtensor(rows[k], 0.5),
        T.set_subtensor(v[k * 0 + k], 2.0), T.exp(x.dimshuffle(1, 0, 2))[k].sum(axis=0),
        rows[k][:, ::-1], size_value(x.type.dims[0]), size_value(
            x.type.dims[0] * x.type.dims[1] - 1), iota(x.type.dims[0]) * 2,
        T.arange(x.shape[1])[::-1] + 1, T.eye(x.shape[0], x.shape[1]),
        T.arange(3, 11, 2), T.constant(np.arange(6.0).reshape(2, 3)), T.constant(7)]


def order(x, y, v, k):
    floats = y * T.switch(T.gt(y, 1), np.nan, 1.0)
    return [
        T.argsort(x), T.argsort(x.dimshuffle(2, 1, 0)), T.sort(floats, axis=0)[::-1],
        T.argsort(T.cast(y, "int8"), axis=0), T.sort(v > 0), T.argsort(T.exp(v)[::-1]),
        T.searchsorted(T.sort(v), y), T.searchsorted(T.sort(k), k[::-1], side="right"),
        T.cumsum(x, 0), T.cumsum(x, 1), T.cumsum(x, 2), T.cumsum(x.dimshuffle(2, 0, 1), 1),
        T.cumprod(y, 1), T.cumsum(k), apply(Cumulate("sum", 0, True), y)[0],
        apply(Cumulate("prod", 1, True), x)[0],
        *(apply(LinearRecurrence(axis, back), y, T.tanh(y))[0]
          for axis in (0, 1) for back in (False, True)),
        *T.unravel_index(k % 6, (2, 3))]


def conditions(x, y, v, k):
    return [
        T.switch(x > 0, x, 0.0), T.switch(y > v, y, v), T.maximum(x, 0.3), T.clip(x, -1, 1),
        T.eq(k, k[::-1]), T.switch(T.eq(k % 2, 0), k, -k), (x > 0) & (x < 1), ~(y > 0),
        T.isnan(x / x), T.cast(x, "float32"), T.cast(x > 0, "float64"), T.cast(x, "int16"),
        tinygraph.gradient.grad_clip(x, -1, 1) * 2, tinygraph.gradient.disconnected_grad(y)]


def scans(x, y, v, k):
    steps = x.dimshuffle(1, 0, 2)
    w = T.constant(0.3 * RNG.standard_normal((3, 3)))
    (h, last), _ = scan(lambda row, h, c: (T.tanh(T.dot(row, w) + T.dot(h, w) + c), c + row),
                        steps, [T.zeros_like(x.sum(axis=1))] * 2)
    g, _ = scan(lambda row, h: row - 0.5 * h, y.T, y.sum(axis=1), go_backwards=True)
    taps, _ = scan(lambda a, p, q: a + 0.5 * p - 0.25 * q, v,
                   dict(initial=T.constant(np.ones(2)), taps=[-1, -2]))
    add, _ = scan(lambda row, total: total + row, y, T.zeros_like(v))
    swap, _ = scan(lambda a, b, row: [b, a + 0 * row], None,
                   [T.sum(v), T.sum(y)], non_sequences=T.sum(x), n_steps=3)
    counts, _ = scan(lambda i, n: n + i, T.arange(x.shape[0]), T.constant(np.int64(0)))
    same, _ = scan(lambda row, h: h, y, v)
    return [h, last, h[::-1].dimshuffle(1, 0, 2), g, taps, add, *swap, counts, same,
            h.sum(axis=0)]


def aliases(x, y, v, k):
    z = T.tanh(y)
    h, _ = scan(lambda row, h: row + h, y, T.zeros_like(v))
    return [x, x, y.T, z, z, z.T, z[::-1], y[:0], h, h, h[::-1], h[:1], k, v, v[::-1],
            x.reshape((x.shape[0] * x.shape[1], 3))]


def sliding(x, y, v, k):
    seen = windows(x, (2,), (2,))
    return [seen * 2, seen.sum(axis=2), seen.max(axis=2), T.grad((seen ** 2).sum(), x),
            T.grad(windows(x, (2,), (1,), (2,)).sum(), x)]


CASES = (sliding, views, joining, reductions, chosen, products, indices, order, conditions, scans,
         aliases)


@BACKENDS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_ops(case, backend):
    # Indices below t exist only where t is not 0.
    f = run(case, backend, [s for s in SIZES if s[1] or case is not indices])
    assert f.compiles == 1


def test_scans_are_loops():
    assert len(run(scans, "loops", SIZES[:1]).report().loops) >= 6


# --- memory


def test_many_temps_share_the_workspace():
    """The interpreter of loops keeps all temps in one array of bytes, checked for bounds: temps
    that live at the same time and overlapped would spoil each other."""
    for model in (models.lstm(mask=True, peepholes=True), models.gru("stacked", hidden=40)):
        f = model.gradients(backend="loops")
        oracle = model.gradients(backend="numpy")
        for batch, steps in ((1, 1), (3, 2), (2, 5), (4, 0)):
            given = model.batch(batch, steps)
            models.assert_close(f(*given), oracle(*given))


@pytest.mark.parametrize("hidden", [3, 40])
def test_the_batch_lies_innermost_where_states_are_narrow(hidden):
    model = models.lstm(hidden=hidden, features=2)
    graph = model.gradients(backend="loops")._ready[1].compilation.stages[-1][1]
    batch = graph.inputs[0].type.dims[0]
    assert choose_lane(graph) == (batch if hidden < 32 else None)
    f, oracle = model.gradients(backend="llvm"), model.gradients(backend="numpy")
    for b, t in ((1, 1), (7, 3), (16, 2), (33, 5)):
        given = model.batch(b, t)
        models.assert_close(f(*given), oracle(*given))


def test_every_op_has_a_case():
    """A new class of op needs a case above (GradClip and Stop stand for all that are identities;
    what calls Python is in tests/extension and tests/tensor/test_print.py)."""
    found, pending = set(), []
    with tinygraph.config.change(floatX="float64"):
        for case in CASES:
            made = case(T.tensor3("x"), T.matrix("y"), T.vector("v"), T.lvector("k"))
            pending += [v.node for v in made]
    seen = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found.add(type(node.op).__name__)
        pending += [v.node for v in node.inputs]
        pending += [v.node for body in subgraphs(node.op) for v in body.outputs]

    def classes(cls):
        for sub in cls.__subclasses__():
            yield sub
            yield from classes(sub)

    known = {c.__name__ for c in classes(Op) if c.__module__.startswith("tinygraph.")
             and not issubclass(c, (Identity, Callback))}
    assert known <= found
