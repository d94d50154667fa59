"""Outputs and gradients of every recurrent layer against backpropagation written by hand."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import rnn_backprop as by_hand
import rnn_reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st
from rnn_cases import GATES, Built, Case, Compiled, check, expected, got

import tinygraph.tensor as T
from tinygraph import function, grad, shared
from tinygraph_rnn.layers import Gate, GRULayer

KINDS = ("rnn", "lstm", "gru")
ALL_OPTIONS: dict[str, Any] = {
    "mask": True, "backwards": True, "grad_clipping": 0.1, "gradient_steps": 3,
    "precompute_input": False, "states": "layer"}
LAYERS = [
    ("plain", {}),
    ("mask", {"mask": True}),
    ("backwards", {"backwards": True, "states": "zero"}),
    ("final", {"only_return_final": True}),
    ("final mask backwards", {"only_return_final": True, "mask": True, "backwards": True}),
    ("not precomputed mask backwards", {
        "precompute_input": False, "mask": True, "backwards": True}),
    ("two steps back", {"gradient_steps": 2, "mask": True, "backwards": True}),
    ("two steps back final", {"gradient_steps": 2, "only_return_final": True,
                              "precompute_input": False}),
    ("clipped not precomputed", {"grad_clipping": 0.1, "precompute_input": False}),
    ("clipped mask backwards", {"grad_clipping": 0.1, "mask": True, "backwards": True}),
    ("unrolled mask backwards clipped", {
        "unroll_scan": True, "mask": True, "backwards": True, "grad_clipping": 0.1}),
    ("states of layers", {"states": "layer"}),
    ("everything", ALL_OPTIONS),
    ("everything, sizes known", {
        **ALL_OPTIONS, "known_batch": True, "known_time": True, "only_return_final": True}),
    ("all sizes one", {"batch": 1, "time": 1, "features": (1,), "units": 1, "mask": True}),
    ("all sizes one and known", {"batch": 1, "time": 1, "features": (1,), "units": 1,
                                 "known_batch": True, "known_time": True, "states": "layer"}),
    ("one unit", {"units": 1, "mask": True, "backwards": True, "precompute_input": False}),
    ("features of two axes", {"features": (2, 3), "known_batch": True, "known_time": True}),
    ("features of three axes", {"features": (2, 1, 2), "precompute_input": False, "mask": True}),
    ("no bias", {"bias": False, "grad_clipping": 0.1}),
    ("sizes that vectors do not divide", {
        "batch": 7, "time": 6, "features": (5,), "units": 9, "mask": True}),
    ("sizes of use", {"batch": 20, "time": 12, "features": (11,), "units": 33}),
]
CASES = [pytest.param(Case(kind, **options), id=f"{kind} {name}")
         for kind in KINDS for name, options in LAYERS]
# Gates that are not bounded, so that what a clipped candidate sends back through them exceeds it.
OWN = [
    Case("rnn", out="rectify"), Case("rnn", out="identity", grad_clipping=0.2),
    Case("rnn", out="sigmoid", mask=True),
    Case("lstm", peepholes=False), Case("lstm", w_cell=False, mask=True),
    Case("lstm", gates=("rectify", "tanh", "identity", "rectify"), out="sigmoid"),
    Case("lstm", gates=("tanh", "identity", "sigmoid", "identity"), out="rectify",
         grad_clipping=0.2, mask=True),
    Case("lstm", gates=("identity",) * 4, out="identity", peepholes=False),
    Case("gru", gates=("rectify", "tanh", "identity")),
    Case("gru", gates=("identity", "sigmoid", "rectify"), grad_clipping=0.05, mask=True),
    Case("gru", gates=("identity", "identity", "identity"), backwards=True),
]


def name(case: Case) -> str:
    """What differs from the usual."""
    usual = Case(case.kind)
    return " ".join([case.kind, *(
        f"{f.name}={getattr(case, f.name)}" for f in fields(case)
        if getattr(case, f.name) != getattr(usual, f.name))])


@pytest.mark.parametrize("case", CASES)
def test_options(case):
    check(case)


@pytest.mark.parametrize("case", OWN, ids=name)
def test_gates_and_nonlinearities(case):
    check(case)


NONLINEAR = st.sampled_from(sorted(by_hand.NONLINEARITIES))


@st.composite
def cases(draw: Any, kind: str) -> Case:
    unroll = draw(st.booleans())
    return Case(
        kind, batch=draw(st.integers(1, 3)), time=draw(st.integers(1, 4)),
        features=tuple(draw(st.lists(st.integers(1, 2), min_size=1, max_size=2))),
        units=draw(st.integers(1, 3)), known_batch=draw(st.booleans()),
        known_time=draw(st.booleans()), mask=draw(st.booleans()),
        states=draw(st.sampled_from(["zero", "learnt", "layer"])),
        gates=tuple(draw(NONLINEAR) for _ in GATES[kind]), out=draw(NONLINEAR),
        bias=draw(st.booleans()), peepholes=draw(st.booleans()), w_cell=draw(st.booleans()),
        backwards=draw(st.booleans()), unroll_scan=unroll,
        gradient_steps=-1 if unroll else draw(st.sampled_from([-1, 1, 2, 5])),
        grad_clipping=draw(st.sampled_from([0, 0.03, 1.0])),
        only_return_final=draw(st.booleans()), precompute_input=draw(st.booleans()))


@pytest.mark.parametrize(("backend", "examples"), [("numpy", 40), ("llvm", 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_options_drawn(kind, backend, examples):
    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(cases(kind))
    def holds(case: Case) -> None:
        check(case, (backend,), seed=3)

    holds()


READ = [np.s_[:, -1], np.s_[:, 0], np.s_[:, 1:3], np.s_[:, ::2], np.s_[:, ::-1],
        np.s_[1:, :-1, 0], np.s_[0]]


@pytest.mark.parametrize(("kind", "read"), list(zip(itertools.cycle(KINDS), READ, strict=False)))
@pytest.mark.parametrize(("backwards", "steps", "backend"), [
    (False, 2, "llvm"), (True, -1, "numpy"), (True, 2, "numpy")])
def test_costs_that_read_a_part_of_the_output(kind, read, backwards, steps, backend):
    """Steps that nobody reads may be left out; the last steps that count are the same ones."""
    built = Built(Case(kind, backwards=backwards, gradient_steps=steps, mask=backwards))
    ref.randomise(built.layer, 1)
    values = built.case.draw(np.random.default_rng(3))
    seen = np.zeros_like(values["weights"])
    seen[read] = values["weights"][read]
    wanted = expected(built, {**values, "weights": seen})
    found = Compiled(built, backend, read)(values)
    np.testing.assert_allclose(found.pop("out"), wanted["out"][read], rtol=1e-8)
    for key, value in found.items():
        np.testing.assert_allclose(value, wanted[key], rtol=1e-8, atol=1e-8, err_msg=key)


@pytest.mark.parametrize("kind", KINDS)
def test_one_function_for_all_sizes(kind):
    case = Case(kind, mask=True, states="layer", gradient_steps=3, grad_clipping=0.2)
    built = Built(case)
    ref.randomise(built.layer)
    f = Compiled(built, "llvm")
    for batch, time in ((1, 1), (1, 7), (6, 1), (2, 3), (17, 4), (3, 40)):
        built.case = replace(case, batch=batch, time=time)
        values = built.case.draw(np.random.default_rng(time))
        wanted = expected(built, values)
        for key, value in f(values).items():
            np.testing.assert_allclose(
                value, wanted[key], rtol=1e-8, atol=1e-8, strict=True, err_msg=key)
    assert f.function.compiles == 1


@pytest.mark.parametrize("backend", ["llvm", "numpy"])
def test_one_variable_in_two_gates(backend):
    """Its gradient is the sum of those by two variables of the same value."""
    held = {"W_in": shared(0.3 * np.ones((2, 3))), "b": shared(np.array([0.1, 0.2, 0.3]))}
    layer = GRULayer((None, None, 2), 3, Gate(**held), Gate(**held))
    assert len(layer.get_params()) == 3 * 3 + 1 - 2
    p = ref.values(layer)
    values = Case("gru").draw(np.random.default_rng(0))
    walked = by_hand.walk(by_hand.Gru(), values["x"], p)
    wanted = walked.gradients(values["weights"])
    x = T.tensor3("x")
    out = layer.get_output_for([x])
    f = function([x], grad(T.sum(out * values["weights"]), list(held.values())), backend=backend)
    for key, found in zip(("W_in_to", "b"), f(values["x"]), strict=True):
        np.testing.assert_allclose(
            found, wanted[f"{key}_resetgate"] + wanted[f"{key}_updategate"], rtol=1e-9)


# --- the oracle itself --------------------------------------------------------------------------


@pytest.mark.parametrize("case", [
    *(Case(kind, mask=mask, backwards=back, only_return_final=final, states="layer")
      for kind, mask, back, final in itertools.product(KINDS, *[(False, True)] * 3)),
    *(replace(c, grad_clipping=0) for c in OWN)], ids=name)
def test_the_oracle_equals_differences(case):
    """By complex steps: the imaginary part of cost(v + 1e-30 i e) is 1e-30 times the slope."""
    built = Built(case)
    rng = np.random.default_rng(5)
    values = case.draw(rng)
    p = {k: 0.5 * rng.standard_normal(v.get_value().shape) for k, v in built.parameters().items()}
    p.update((f"{s}_init", rng.standard_normal((3, 3))) for s in case.oracle().states)
    p["x"] = values["x"]

    def cost(p: dict[str, np.ndarray]) -> Any:
        out = by_hand.walk(case.oracle(), p["x"], p, case.walk(), values.get("mask")).out
        return np.sum(out * values["weights"])

    found = by_hand.walk(case.oracle(), p["x"], p, case.walk(), values.get("mask")).gradients(
        values["weights"])
    for name, value in p.items():
        slopes = np.empty(value.shape)
        for k in np.ndindex(value.shape):
            moved = value.astype(complex)
            moved[k] += 1e-30j
            slopes[k] = cost({**p, name: moved}).imag / 1e-30
        np.testing.assert_allclose(found[name], slopes, rtol=1e-10, atol=1e-12, err_msg=name)


# --- what clipping and truncation do --------------------------------------------------------------


@pytest.mark.parametrize("precompute", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_clipping_changes_and_bounds_the_gradient(kind, precompute):
    """A bias gets at most the bound from every step of every sequence; outputs stay."""
    bound = 1e-3
    case = Case(kind, grad_clipping=bound, precompute_input=precompute)
    built = Built(case)
    ref.randomise(built.layer)
    values = case.draw(np.random.default_rng(0))
    clipped = got(built, values, "llvm")
    built.case = replace(case, grad_clipping=0)
    free = expected(built, values)
    np.testing.assert_allclose(free["out"], clipped["out"], rtol=1e-10)
    most = 3 * 5 * bound * (1 + 1e-12)
    for key in (n for n in free if n == "b" or n.startswith("b_")):
        assert np.max(abs(clipped[key])) <= most < np.max(abs(free[key])), key
    assert not np.allclose(free["x"], clipped["x"])


def test_peepholes_are_not_clipped():
    case = Case("lstm", grad_clipping=1e-6, time=1, states="layer")
    built = Built(case)
    values = case.draw(np.random.default_rng(0))
    clipped = got(built, values, "llvm")
    free = expected(Built(replace(case, grad_clipping=0)), values)
    assert np.max(abs(clipped["b_outgate"])) <= 3e-6 * (1 + 1e-12)
    assert np.max(abs(clipped["W_cell_to_outgate"])) > 1e-2
    assert abs(free["b_outgate"]).max() > 1e-2


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_truncated_gradients_are_zero_before_the_last_steps_walked(kind, backwards):
    case = Case(kind, gradient_steps=2, backwards=backwards)
    found = got(Built(case), case.draw(np.random.default_rng(0)), "numpy")
    x = found["x"][:, ::-1] if backwards else found["x"]
    assert np.all(x[:, :3] == 0) and np.any(x[:, 3] != 0) and np.any(x[:, 4] != 0)
    assert np.all(found["hid_init"] == 0)
