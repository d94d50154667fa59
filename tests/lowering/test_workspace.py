"""The arena: who lies where, and that no two temps that live at one time share memory by chance."""

from __future__ import annotations

import itertools

import models
import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad, scan, shared
from tinygraph.compile.build import Compilation
from tinygraph.dims import Sym, dim
from tinygraph.formulas import Formulas
from tinygraph.lowering import lower as lowering
from tinygraph.lowering.schedule import sunk_order
from tinygraph.lowering.workspace import Slots, lifetimes
from tinygraph.passes.pipeline import select


@pytest.fixture(autouse=True)
def no_cache():
    with tinygraph.config.change(cache="off"):
        yield


def lstm(hidden=6, features=5, memory=None, mask=False):
    rng = np.random.default_rng(0)
    w, u = (shared((0.4 * rng.standard_normal(s)).astype("float32"))
            for s in ((features, 4 * hidden), (hidden, 4 * hidden)))
    x, m = T.tensor3("x"), T.matrix("m")

    def step(row, *rest):
        *on, h, c = rest
        z = T.dot(row, w) + T.dot(h, u)
        i, f, o = (T.nnet.sigmoid(z[:, k * hidden:(k + 1) * hidden]) for k in range(3))
        new_c = f * c + i * T.tanh(z[:, 3 * hidden:])
        new = [o * T.tanh(new_c), new_c]
        return [T.switch(on[0].dimshuffle(0, "x"), a, b)
                for a, b in zip(new, (h, c), strict=True)] if on else new

    zeros = T.zeros((x.shape[1], hidden))
    (hs, _), _ = scan(step, [x, m] if mask else x, [zeros, zeros], memory=memory)
    return [x, m] if mask else [x], (hs[-1] ** 2).mean(), [w, u]


def planned(monkeypatch, inputs, outputs, steps, rows):
    """The temps of a program: per temp its lifetime and its bytes from .. to; and those that
    were put together.  Axis 0 of every input has a row for each step, axis 1 is the batch."""
    seen = {}

    def spy(body, bytes_of, together=()):
        offsets, arena = plan(body, bytes_of, together)
        seen.update(spans=lifetimes(body), bytes=bytes_of, offsets=dict(offsets), arena=arena,
                    together=together)
        return offsets, arena

    plan = lowering.plan
    monkeypatch.setattr(lowering, "plan", spy)
    f = function(inputs, outputs, backend="loops")
    shapes = {w: w.get_value().shape for w in f.shared}
    assert Compilation(f.graph, select(None), shapes).lowered.program is not None
    monkeypatch.undo()
    symbols = {s.name: s for d in (*seen["bytes"].values(), seen["arena"]) for s in d.syms()}
    numbers = {"threads": 2, "x_0": steps, "m_0": steps, "x_1": rows, "m_1": rows}
    env = {s: numbers[name] for name, s in symbols.items()}
    buffers = list(seen["spans"])
    arena, *found = Formulas([seen["arena"], *(seen["offsets"][b] for b in buffers),
                              *(seen["bytes"][b] for b in buffers)])(env)
    places = {}
    for k, buffer in enumerate(buffers):
        start, size = found[k], found[len(buffers) + k]
        assert start % 64 == 0 and 0 <= start <= start + size <= arena
        places[buffer] = (*seen["spans"][buffer], start, start + size)
    return places, seen["together"]


@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (7, 3), (40, 16)])
@pytest.mark.parametrize("memory", [None, 1, 4000, 1 << 40])
@pytest.mark.parametrize("mask", [False, True])
def test_what_lives_at_one_time_lies_apart(monkeypatch, mask, memory, steps, rows):
    inputs, cost, params = lstm(memory=memory, mask=mask)
    places, together = planned(monkeypatch, inputs, [cost, *grad(cost, params)],
                               steps, rows)
    groups = [set(group) for group in together]
    # The loop over what is left, and the loop inside of the segments.
    assert len(groups) == (0 if memory is None else 2)
    for (a, p), (b, q) in itertools.combinations(places.items(), 2):
        if p[0] <= q[1] and q[0] <= p[1] and not any({a, b} <= group for group in groups):
            assert p[3] <= q[2] or q[3] <= p[2] or p[2] == p[3] or q[2] == q[3]


@pytest.mark.parametrize("mask", [False, True])
def test_a_state_and_a_stack_in_one_memory(monkeypatch, mask):
    """Row t of the stack lies behind every state that is read in step t or later."""
    inputs, cost, params = lstm(hidden=40, memory=1 << 40, mask=mask)
    places, together = planned(monkeypatch, inputs, grad(cost, params), 9, 4)
    state_bytes, row_bytes = 4 * 40 * 4, 4 * 160 * 4
    state, share, stack = next(group for group in together if places[list(group)[-1]][3]
                               - places[list(group)[-1]][2] > 0)
    start = places[state][2]
    assert places[state][3] - start == 10 * state_bytes
    assert places[share][2:] == places[stack][2:]
    assert places[stack][3] - places[stack][2] == 9 * row_bytes
    for t in range(9):
        behind = start + (t + 2) * state_bytes  # the end of the state that step t leaves
        assert behind <= places[stack][2] + t * row_bytes


@pytest.mark.parametrize("backend", ["loops", "llvm"])
def test_values_where_states_make_place(backend):
    for mask in (False, True):
        (inputs, *old), (_, *new) = (lstm(memory=m, mask=mask) for m in (None, 1 << 40))
        more = lstm(memory=1 << 40, mask=mask)
        oracle = function(inputs, grad(*old), backend="numpy")
        f = function(more[0], grad(*more[1:]), backend=backend)
        rng = np.random.default_rng(0)
        for steps, rows in ((1, 1), (2, 5), (3, 1), (17, 4)):
            x = rng.standard_normal((steps, rows, 5)).astype("float32")
            m = (rng.random((steps, rows)) < 0.7).astype("float32")
            given = [x, m] if mask else [x]
            models.assert_close(f(*given), oracle(*given))


def test_a_state_that_is_read_after_the_loop_back_keeps_its_memory(monkeypatch):
    hidden = 6
    x, w = T.tensor3("x"), shared(np.ones((hidden, 2 * hidden), "float32") / 9)

    def step(row, h, c):
        z = T.dot(h, w)
        new = T.tanh(row + z[:, :hidden]) * c + T.nnet.sigmoid(z[:, hidden:])
        return T.tanh(new), new

    zeros = T.ones((x.shape[1], hidden))
    (hs, cs), _ = scan(step, x, [zeros, zeros], memory=1 << 40)
    cost = (hs[-1] ** 2).sum()
    g = grad(cost, w)
    _, apart = planned(monkeypatch, [x], [cost, g, (cs * g.sum()).sum(axis=0)], 4, 3)
    assert len(apart) == 1  # in the segments alone
    _, together = planned(monkeypatch, [x], [cost, g], 4, 3)
    assert len(together) == 2


def test_slots_are_reused_and_grow():
    n = dim(Sym("n", "axis 0 of x"))
    slots = Slots()
    small = slots.take(dim(64), 0, 1)
    rows = slots.take(n * 64, 0, 3)
    assert slots.take(dim(256), 2, 5) is small  # grows: nothing else was free
    assert slots.take(dim(128), 4, 6) is not small
    assert slots.take(n * 128, 4, 5) is rows
    begins, total = slots.offsets()
    assert begins[:2] == [dim(0), dim(256)] and total == begins[2] + 128
    assert begins[2].evaluate({n.symbol: 3}) == 256 + 3 * 128


def test_elementwise_values_wait_for_who_reads_them():
    a, b, w = T.matrix("a"), T.matrix("b"), T.matrix("w")
    early = a * 2
    late = T.dot(b, w)
    total = early + late
    nodes = [early.node, late.node, total.node]
    assert sunk_order(nodes, [total]) == [late.node, early.node, total.node]
    assert sunk_order(nodes, [early, total]) == nodes
