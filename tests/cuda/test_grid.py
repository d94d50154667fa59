"""Kernels whose blocks share the hidden units of a step: where they wait, whose an element is, and
that a wait left out is a race."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad, scan
from tinygraph.backends.cuda import schedule
from tinygraph.backends.cuda.affine import Least, Mod, Poly, polynomial, rows_of
from tinygraph.backends.cuda.host import evaluator
from tinygraph.backends.cuda.ownership import base_of
from tinygraph.backends.cuda.runner import ShimDevice
from tinygraph.backends.cuda.shim import ShimError
from tinygraph.backends.cuda.waiting import Waits
from tinygraph.dtypes import int64
from tinygraph.loops import build as E
from tinygraph.loops.language import Binary, DimOf, Expr, Unary, Var

HIDDEN = 16
NEVER = 1 << 60


@pytest.fixture(autouse=True)
def all_blocks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every loop over time is run by all blocks."""
    monkeypatch.setattr(schedule, "STEP_WORK", 0)
    monkeypatch.setattr(schedule, "LAUNCH_WORK", NEVER)
    monkeypatch.setattr(ShimDevice, "shared_bytes", 0)
    with tinygraph.config.change(cache="off"):
        yield


def waits(text: str) -> list[tuple[int, int]]:
    """Of every loop over time, how often in a step all blocks wait, and the threads of a block."""
    found = []
    for kernel in text.split('extern "C"')[1:]:
        inside: int | None = None
        for line in kernel.splitlines() if "_grid(" in kernel[:60] else ():
            depth = len(line) - len(line.lstrip())
            if re.match(r"\s*for \(I64 step", line):
                inside, counts = depth, [0, 0]
            elif inside is not None and depth <= inside:
                found.append((counts[0], counts[1]))
                inside = None
            elif inside is not None:
                counts[0] += "tg_grid" in line
                counts[1] += "__syncthreads" in line
    return found


@pytest.mark.counts
@pytest.mark.parametrize("hidden", [HIDDEN, 512])
@pytest.mark.parametrize("name, forward", [
    ("rnn", 1), ("lstm", 1), ("masked lstm", 1), ("gru", 1), ("gru of two products", 2)])
def test_how_often_blocks_wait_in_a_step(name: str, forward: int, hidden: int) -> None:
    """Once: the next step reads the units of all blocks.  Twice in a cell whose second product
    reads what comes of the first."""
    model = {"rnn": models.rnn, "lstm": models.lstm, "gru": models.gru,
             "masked lstm": lambda hidden: models.lstm(
                 "stacked", mask=True, peepholes=True, clip=1.0, hidden=hidden),
             "gru of two products": lambda hidden: models.gru("stacked", hidden=hidden, mask=True),
             }[name](hidden=hidden)
    cost = model.cost()
    f = function(model.inputs, [cost, *grad(cost, model.params)], backend="shim")
    (ahead, _), (back, _) = waits(f.source("cuda"))
    assert (ahead, back) == (forward, 1)


def test_results_do_not_hang_on_the_number_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.lstm(hidden=HIDDEN)
    cost, batch = model.cost(), model.batch(5, 4)
    found = []
    for blocks, room in product((1, 2, 3, 7), (0, 1 << 15)):
        monkeypatch.setattr(ShimDevice, "units", blocks)
        monkeypatch.setattr(ShimDevice, "shared_bytes", room)
        monkeypatch.setattr(schedule, "above", lambda x, y: E.const(True, tinygraph.dtypes.bool_))
        f = function(model.inputs, [cost, *grad(cost, model.params)], backend="shim")
        found.append(f(*batch))
        assert "_grid(" in f.source("cuda")
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("which", range(4))
def test_a_wait_left_out_is_a_race(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All waits are needed: without any one of those that stand in the steps of an LSTM and its
    gradient, the shim finds a race."""
    model = models.lstm(hidden=HIDDEN)
    cost, seen, at = model.cost(), [], Waits.at

    def without(self: Waits, stmt: Any, k: object = 0) -> str | None:
        wait = at(self, stmt, k)
        if wait is None or isinstance(k, str):
            return wait
        seen.append(wait)
        return None if len(seen) == which + 1 else wait

    monkeypatch.setattr(Waits, "at", without)
    f = function(model.inputs, [cost, *grad(cost, model.params)], backend="shim")
    assert len(seen) >= 4
    with pytest.raises(ShimError, match="with no|race|barrier"):
        f(*model.batch(5, 4))


def test_loops_of_many_kinds_in_all_blocks() -> None:
    """A parallel loop, sums over everything and a serial loop of its own in the step."""
    x, w = T.tensor3("x"), T.matrix("w")

    def step(row: Any, h: Any) -> Any:
        h = T.dot(h, w) + row
        return T.tanh(T.cumsum(h, axis=1) / (1 + (h ** 2).sum())) * T.nnet.softmax(h)

    hs, _ = scan(step, x, T.zeros_like(x[0]))
    outputs = [hs[-1], *grad((hs ** 2).sum(), [x, w])]
    f, oracle = (function([x, w], outputs, backend=b) for b in ("shim", "numpy"))
    rng = np.random.default_rng(1)
    for t, n in ((3, 5), (1, 1), (0, 2)):
        arrays = [rng.standard_normal(s).astype("float32") for s in ((t, n, 6), (6, 6))]
        if t:
            models.assert_close(f(*arrays), oracle(*arrays), floor=1e-6)
    assert "_grid(" in f.source("cuda")


# --- the arithmetic behind it

NAMES = ("step", "i", "n")


def expressions() -> Any:
    leaves = st.integers(-4, 9).map(E.index) | st.sampled_from(
        [Var("step", int64), Var("i", int64), DimOf("n")])
    return st.recursive(leaves, lambda inner: st.builds(
        Binary, st.sampled_from(["add", "sub", "mul", "min"]), inner, inner)
        | st.builds(lambda x: Unary("neg", x), inner)
        | st.builds(lambda x, d: Binary("mod", x, E.index(d)), inner, st.integers(1, 4)),
        max_leaves=8)


def value(p: Poly, env: dict[str, int]) -> int:
    """What a polynomial is where its variables are numbers."""
    for name, number in env.items():
        p = p.put(name, Poly.number(number))
    total = 0
    for atoms, c in p.terms:
        for a in atoms:
            if isinstance(a, Mod):
                c *= value(a.x, {}) % a.divisor
            else:
                assert isinstance(a, Least)
                c *= min(value(a.x, {}), value(a.y, {}))
        total += c
    return total


@settings(max_examples=200, deadline=None)
@given(expressions(), st.tuples(*[st.integers(0, 6)] * 3))
def test_polynomials_have_the_values_of_expressions(e: Expr, numbers: tuple[int, ...]) -> None:
    env = dict(zip(NAMES, numbers, strict=True))
    assert value(polynomial(e, {}), env) == evaluator(e)(env)


@settings(max_examples=300, deadline=None)
@given(expressions(), expressions(), st.integers(1, 4))
def test_rows_apart_have_no_element_in_common(x: Expr, y: Expr, n: int) -> None:
    extents = {"i": Poly.atom("n"), "step": Poly.number(4)}
    a, b = (rows_of(polynomial(e, {}), frozenset(["step"]), extents) for e in (x, y))
    if a is None or b is None:
        return
    numbers = [[{evaluator(e)({"step": s, "i": i, "n": n}) for i in range(n)} for s in range(4)]
               for e in (x, y)]
    if a.apart(b):
        assert all(not p & q for p, q in zip(*numbers, strict=True))
    if a.before("step").apart(b):
        assert all(not p & q for p, q in zip(numbers[0][:-1], numbers[1][1:], strict=True))


def test_rows_of_states_are_told_apart() -> None:
    """Step t reads row t and writes row t + 1, or the same modulo 2."""
    step, i = Var("step", int64), Var("i", int64)
    extents = {"i": Poly.atom("n"), "step": Poly.atom("steps")}
    after = E.add(step, E.index(1))
    for now, then in ((step, after), *[[Binary("mod", s, E.index(2)) for s in (step, after)]]):
        a, b = (rows_of(polynomial(E.add(E.mul(s, DimOf("n")), i), {}), frozenset(["step"]),
                        extents) for s in (now, then))
        assert a is not None and b is not None
        assert a.apart(b) and b.apart(a) and not a.apart(a)
        assert not b.before("step").apart(a)  # what the last step wrote is read now


@settings(max_examples=200, deadline=None)
@given(expressions(), st.integers(1, 5), st.tuples(*[st.integers(0, 6)] * 3))
def test_units_of_indices(e: Expr, units: int, numbers: tuple[int, ...]) -> None:
    """index = base + i modulo units, and the base does not hang on i."""
    base = base_of(polynomial(e, {}), "i", units, lambda name: name in ("step", "n"))
    if base is not None:
        env = dict(zip(NAMES, numbers, strict=True))
        assert (evaluator(e)(env) - value(base, env) - env["i"]) % units == 0
        assert "i" not in base.names()


# --- memory that temps have in common

def shared_weights(rows: int, cols: int, dtype: str = "float32") -> Any:
    rng = np.random.default_rng(0)
    return tinygraph.shared(rng.standard_normal((rows, cols)).astype(dtype) / 4, "W")


def compare(inputs: list[Any], outputs: list[Any], calls: list[list[np.ndarray]]) -> str:
    """Results of all blocks are the oracle's; the kernels."""
    f, oracle = (function(inputs, outputs, backend=b) for b in ("shim", "numpy"))
    for arrays in calls:
        models.assert_close(f(*arrays), oracle(*arrays), floor=1e-6)
    assert "_grid(" in f.source("cuda")
    return f.source("cuda")


def test_elements_of_two_sizes_in_one_place_are_not_of_the_same_block() -> None:
    """A float64 and a float32 temp of a step take turns in one place."""
    x = T.tensor3("x")
    wide = x.astype("float64")
    u, w = shared_weights(HIDDEN, HIDDEN, "float64"), shared_weights(HIDDEN, HIDDEN)

    def step(row: Any, then: Any, g: Any, h: Any) -> Any:
        return T.tanh(T.dot(T.tanh(g * then), u)), T.tanh(T.dot(h, w) + row)

    then = T.concatenate([wide, wide], axis=1)
    (gs, hs), _ = scan(step, [x, then], [T.zeros_like(then[0]) + 1, T.zeros_like(x[0])])
    rng = np.random.default_rng(1)
    compare([x], [gs[-1], hs[-1]], [[rng.standard_normal((4, 5, HIDDEN)).astype("float32")]])


def test_a_stack_that_lies_over_states_is_not_written_before_they_are_read() -> None:
    """A loop backwards stacks rows in the memory of the states that it walks along."""
    units = 6  # so that the stack does not begin at a multiple of the units
    gates, rows = T.matrix("gates"), T.matrix("rows")
    w = shared_weights(units, 4 * units)

    def step(g: Any, y: Any, s: Any, c: Any) -> Any:
        s = T.tanh(s + y)
        i, f, u, o = T.split(g + T.dot(s, w), [units] * 4, axis=0)
        sigmoid = T.nnet.sigmoid
        return s, 0.9 * c + sigmoid(f) * sigmoid(i) * T.tanh(u) * sigmoid(o)

    (_, cs), _ = scan(step, [gates, rows], [T.zeros((units,)), T.zeros((units,))])
    cost = cs[-1].sum()
    rng = np.random.default_rng(1)
    calls = [[rng.standard_normal((t, n)).astype("float32") for n in (4 * units, units)]
             for t in (1, 2, 9)]
    compare([gates, rows], [cost, *grad(cost, [gates, rows])], calls)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["floordiv", "max", "mod"]), st.integers(-2, 2), st.integers(-2, 2))
def test_what_is_no_polynomial_changes_with_the_step(op: str, a: int, b: int) -> None:
    step, i, n = Var("step", int64), Var("i", int64), DimOf("n")
    extents = {"i": Poly.atom("n"), "step": Poly.atom("steps")}

    def index(more: int) -> Expr:
        row = E.add(step, E.add(Binary(op, step, E.index(2) if op != "mod" else n), E.index(more)))
        return E.add(E.mul(row, n), i)

    x, y = index(a), index(b)
    p, q = (rows_of(polynomial(e, {}), frozenset(["step"]), extents) for e in (x, y))
    if p is None or q is None:
        return
    for size in (1, 2, 3):
        first, second = ([{evaluator(e)({"step": s, "i": k, "n": size}) for k in range(size)}
                          for s in range(6)] for e in (x, y))
        if p.before("step").apart(q):
            assert all(not u & v for u, v in zip(first[:-1], second[1:], strict=True))


def test_gates_at_constant_places_have_rows() -> None:
    """Row t of rows of 4 gates of 6 units: the second gate lies 6 elements further."""
    step, i = Var("step", int64), Var("i", int64)
    extents = {"i": Poly.number(6), "step": Poly.atom("steps")}
    gates = [rows_of(polynomial(E.add(E.mul(E.sub(E.index(-1), step), E.index(24)),
                                      E.add(i, E.index(6 * g))), {}),
                     frozenset(["step"]), extents) for g in range(4)]
    assert gates[0] is not None and gates == gates[:1] * 4
    assert gates[0].before("step").apart(gates[0])


@pytest.mark.counts
@pytest.mark.parametrize("hidden", [100, 128])
def test_blocks_share_units_of_any_number(hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temps of a tile lie in multiples of 64 elements, of which the units need not be divisors."""
    monkeypatch.setattr(ShimDevice, "shared_bytes", 1 << 15)
    monkeypatch.setattr(schedule, "above", lambda x, y: E.const(True, tinygraph.dtypes.bool_))
    model = models.lstm(hidden=hidden)
    cost = model.cost()
    text = function(model.inputs, [cost, *grad(cost, model.params)], backend="shim").source("cuda")
    (ahead, _), (back, _) = waits(text)[:2]
    assert (ahead, back) == (1, 1)
    scans = [k for k in text.split('extern "C"') if "_grid(" in k[:60]][:2]
    assert all("if (held0) tg_gemm_units" in k for k in scans)
