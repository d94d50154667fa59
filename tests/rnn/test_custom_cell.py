"""Users' cells: the face they are written on, the two of the example, what they compile to."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import config, function, grad
from tinygraph_rnn import random
from tinygraph_rnn.layers import (
    CustomRecurrentLayer,
    DenseLayer,
    Gate,
    GatedRecurrence,
    GRULayer,
    InputLayer,
    LSTMLayer,
    Recurrence,
    RecurrentLayer,
    get_all_params,
    get_output,
)

EXAMPLE = runpy.run_path(
    str(Path(__file__).parents[2] / "examples" / "custom_cell.py"))
LayerNormLSTM, MinimalGatedUnit = EXAMPLE["LayerNormLSTM"], EXAMPLE["MinimalGatedUnit"]
RNG = np.random.default_rng(11)
X = RNG.standard_normal((3, 5, 2))
MASK = (np.arange(5) < np.array([5, 3, 1])[:, None]).astype(float)


def norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def layer_norm_lstm(x: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    h, c = p["hid_init"][0], p["cell_init"][0]
    out = []
    for row in x:
        sums = (norm(row @ p["W_in"]) * p["gain_in"] + norm(h @ p["W_hid"]) * p["gain_hid"]
                + p["b"])
        i, f, o = (ref.sigmoid(s) for s in np.split(sums, 4)[:3])
        c = f * c + i * np.tanh(np.split(sums, 4)[3])
        h = o * np.tanh(norm(c) * p["gain_cell"] + p["b_cell"])
        out.append(h)
    return np.array(out)


def minimal(x: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    h = p["hid_init"][0]
    out = []
    for row in x:
        f = ref.sigmoid(row @ p["W_in_to_forgetgate"] + h @ p["W_hid_to_forgetgate"]
                        + p["b_forgetgate"])
        c = np.tanh(row @ p["W_in_to_hidden_update"] + p["b_hidden_update"]
                    + f * (h @ p["W_hid_to_hidden_update"]))
        h = (1 - f) * h + f * c
        out.append(h)
    return np.array(out)


CELLS = [pytest.param(LayerNormLSTM, layer_norm_lstm, id="layer-norm"),
         pytest.param(MinimalGatedUnit, minimal, id="minimal")]


def build(make: Any, features: int = 2, **options: Any) -> tuple[list[Any], Any]:
    """The input variables, with that of a mask, and the layer, its parameters random."""
    l_in, l_mask = InputLayer((None, None, features)), InputLayer((None, None))
    layer = make(l_in, 4, mask_input=l_mask, **options)
    ref.randomise(layer)
    return [l_in.input_var, l_mask.input_var], layer


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
@pytest.mark.parametrize("options", [
    {}, {"backwards": True}, {"precompute_input": False}, {"only_return_final": True}],
    ids=lambda o: next(iter(o), "plain"))
@pytest.mark.parametrize(("make", "cell"), CELLS)
def test_cells_of_the_example_equal_numpy(make, cell, options, backend):
    inputs, layer = build(make, **options)
    got = function(inputs, get_output(layer), backend=backend)(X, MASK)
    back, final = options.get("backwards", False), options.get("only_return_final", False)
    for k, n in enumerate(MASK.sum(1).astype(int)):
        every = ref.batch(cell, X[k:k + 1, :n], ref.values(layer), back)[0]
        np.testing.assert_allclose(
            got[k] if final else got[k, :n], every[-1] if final else every, rtol=1e-10)


@pytest.mark.parametrize("features", [2, 12])
@pytest.mark.parametrize(("make", "cell"), CELLS)
def test_gradients_equal_differences_of_numpy(make, cell, features):
    inputs, layer = build(make, features, learn_init=True, grad_clipping=100.0)
    x, weights = RNG.standard_normal((3, 5, features)), RNG.standard_normal((3, 5, 4))
    params = get_all_params(layer, trainable=True)
    cost = T.sum(get_output(layer) * weights)
    found = function(inputs, grad(cost, params), backend="llvm")(x, np.ones((3, 5)))
    for param, g in zip(params, found, strict=True):
        old, d, eps, costs = param.get_value(), RNG.standard_normal(g.shape), 1e-5, []
        for sign in (1, -1):
            param.set_value(old + sign * eps * d)
            costs.append(np.sum(weights * ref.batch(cell, x, ref.values(layer))))
        param.set_value(old)
        np.testing.assert_allclose(
            np.sum(g * d), (costs[0] - costs[1]) / (2 * eps), rtol=1e-6, atol=1e-8)


def custom(incoming: Any, units: int, **options: Any) -> CustomRecurrentLayer:
    """Dense layers as the two networks of a CustomRecurrentLayer."""
    return CustomRecurrentLayer(
        incoming, DenseLayer(InputLayer((None, 2)), units, nonlinearity=None),
        DenseLayer(InputLayer((None, units)), units, b=None, nonlinearity=None), **options)


@pytest.mark.counts
@pytest.mark.parametrize("options", [
    {}, {"grad_clipping": 1.0, "learn_init": True}, {"backwards": True}, {"gradient_steps": 3},
    {"only_return_final": True}], ids=lambda o: next(iter(o), "plain"))
@pytest.mark.parametrize(("make", "functions"), [
    (RecurrentLayer, 0), (LSTMLayer, 5), (GRULayer, 3), (custom, 0), (LayerNormLSTM, 5),
    (MinimalGatedUnit, 2)], ids=lambda v: getattr(v, "__name__", ""))
def test_one_product_per_step_in_each_direction(make, functions, options):
    inputs, layer = build(make, **options)
    cost = T.mean(get_output(layer) ** 2)
    params = get_all_params(layer, trainable=True)
    f = function(inputs, [cost, *grad(cost, params)], backend="loops")
    counts = [(loop.step.products, loop.step.transcendentals) for loop in f.report().loops]
    assert counts == [(1, functions), (1, 0)]


@pytest.mark.counts
def test_lstm_without_peepholes_or_mask_has_one_product_per_step():
    x = T.tensor3("x")
    layer = LSTMLayer((None, None, 2), 4, peepholes=False)
    cost = T.mean(layer.get_output_for([x]) ** 2)
    f = function([x], [cost, *grad(cost, get_all_params(layer))], backend="loops")
    assert [loop.step.products for loop in f.report().loops] == [1, 1]


class Sum(Recurrence):
    """h = tanh(e^x + h'), the least that there is."""

    def project(self, x: Any, **kwargs: Any) -> Any:
        return T.exp(x)

    def step(self, inputs: Any, states: Any, **kwargs: Any) -> Any:
        return T.tanh(inputs[0] + states[0])


@pytest.mark.counts
def test_the_input_is_normalised_before_the_loop_unless_asked_otherwise():
    x = T.tensor3("x")
    for early, products, deviations in ((True, 1, 2), (False, 2, 3)):
        layer = LayerNormLSTM((None, None, 40), 40, precompute_input=early)
        f = function([x], layer.get_output_for([x]), backend="loops")
        (loop,) = f.report().loops
        assert loop.step.products == products
        assert f.source("loops").split("# scan")[1].count("sqrt(") == deviations


@pytest.mark.counts
def test_statistics_are_taken_in_few_nests():
    inputs, layer = build(LayerNormLSTM, only_return_final=True)
    params = get_all_params(layer, trainable=True)
    f = function(inputs, grad(T.mean(get_output(layer) ** 2), params), backend="loops")
    forward, backward = (loop.step.nests for loop in f.report().loops)
    assert (forward, backward) == (10, 12)


@pytest.mark.parametrize("start", [0.5, np.full((1, 2), 0.5)])
def test_a_cell_of_one_line(start):
    l_in = InputLayer((None, None, 2))
    layer = Sum(l_in, 2, hid_init=start, backwards=True, name="sum")
    h = [np.full((3, 2), 0.5)]
    for t in reversed(range(5)):
        h.append(np.tanh(np.exp(X[:, t]) + h[-1]))
    np.testing.assert_allclose(
        ref.run([l_in.input_var], get_output(layer), X), np.stack(h[:0:-1], axis=1))
    assert layer.output_shape == (None, None, 2)
    assert [p.name for p in get_all_params(layer)] == ["sum.hid_init"]


class Projected(Recurrence):
    """States of two sizes: h = c P, c = tanh(x W + h' U), and dropout of the input."""

    state_names = ("hid", "cell")

    def __init__(self, incoming: Any, num_units: int, cells: int, **options: Any) -> None:
        self.cells = cells
        super().__init__(incoming, num_units, **options)
        self.W = self.add_param(np.ones((self.num_inputs, cells)), (self.num_inputs, cells), "W")
        self.U = self.add_param(np.ones((num_units, cells)), (num_units, cells), "U")
        self.P = self.add_param(np.ones((cells, num_units)), (cells, num_units), "P")

    def state_shape(self, state: str) -> tuple[int, ...]:
        return (self.cells,) if state == "cell" else (self.num_units,)

    def project(self, x: Any, deterministic: bool = False, **kwargs: Any) -> Any:
        return T.dot(x if deterministic else 0 * x, self.W)

    def step(self, inputs: Any, states: Any, **kwargs: Any) -> list[Any]:
        c = T.tanh(inputs[0] + T.dot(states[0], self.U))
        return [T.dot(c, self.P), c]


def test_states_of_different_sizes_and_keywords():
    l_in = InputLayer((None, None, 1, 2))
    layer = Projected(l_in, 2, 3)
    ref.randomise(layer)
    p = ref.values(layer)
    assert p["hid_init"].shape == (1, 2) and p["cell_init"].shape == (1, 3)
    for deterministic in (True, False):
        states = layer.get_states_for([l_in.input_var], deterministic=deterministic)
        hs, cs = ref.run([l_in.input_var], states, X[:, :, None])
        h = p["hid_init"]
        for t in range(5):
            c = np.tanh(deterministic * (X[:, t] @ p["W"]) + h @ p["U"])
            h = c @ p["P"]
            np.testing.assert_allclose(cs[:, t], c)
            np.testing.assert_allclose(hs[:, t], h)
    assert layer.output_shape == (None, None, 2)


def test_initial_states_stay_behind_other_parameters():
    names = [p.name for p in get_all_params(Projected((None, None, 2), 2, 3))]
    assert names == ["W", "U", "P", "cell_init", "hid_init"]


def test_keywords_that_project_and_step_name_are_known(recwarn):
    class Louder(Sum):
        def step(self, inputs: Any, states: Any, louder: float = 1.0, **kwargs: Any) -> Any:
            return louder * super().step(inputs, states)

    l_in = InputLayer((None, None, 2))
    layer = Louder(l_in, 2)
    once, twice = (ref.run([l_in.input_var], get_output(layer, louder=k)[:, 0], X) for k in (1, 2))
    np.testing.assert_array_equal(twice, 2 * once)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="did you mean louder"):
        get_output(layer, luoder=2)


def test_gated_cells_have_their_gates_parameters():
    class Plain(GatedRecurrence):
        def step(self, inputs: Any, states: Any, **kwargs: Any) -> Any:
            (h_g,) = self.recurrent_products(states[0])
            return self.activate("gate", inputs[0] + h_g)

    layer = Plain((None, None, 2), 3, {"gate": Gate(b=None, nonlinearity=None)})
    assert layer.W_in_to_gate.get_value().shape == (2, 3)
    assert layer.W_hid_to_gate.get_value().shape == (3, 3)
    assert layer.b_gate is None and len(get_all_params(layer)) == 3
    x = T.tensor3("x")
    p = ref.values(layer)
    h = np.zeros((3, 3))
    for t in range(5):
        h = X[:, t] @ p["W_in_to_gate"] + h @ p["W_hid_to_gate"]
    np.testing.assert_allclose(ref.run([x], layer.get_output_for([x])[:, -1], X), h)


@pytest.mark.parametrize(("option", "text"), [
    ({"gradient_stops": 3}, "Sum has no argument gradient_stops"),
    ({"cell_init": 0.0}, "Sum has no argument cell_init")])
def test_unknown_options(option, text):
    with pytest.raises(TypeError, match=text):
        Sum((None, None, 2), 2, **option)


def test_a_cell_without_step():
    with pytest.raises(NotImplementedError, match="Recurrence.step"):
        Recurrence((None, None, 2), 2).get_output_for([T.tensor3("x")])


def test_the_example_learns(capsys):
    random.set_rng(0)
    with config.change(floatX="float32", backend="llvm"):
        costs = EXAMPLE["main"](["--epochs", "2", "--epoch-size", "40", "--hidden", "8",
                                 "--min-length", "4", "--max-length", "6"])
    assert set(costs) == {"lstm", "layer-norm", "minimal"}
    assert all(len(c) == 2 and c[-1] < 0.1 for c in costs.values())
    assert "minimal: epoch 2 validation cost = 0." in capsys.readouterr().out


def test_the_benchmark_runs(monkeypatch, capsys):
    folder = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    with config.change(backend="numpy"):
        rows = runpy.run_path(str(folder / "custom_cell.py"))["main"]([
            "--units", "3", "--batch", "2", "--features", "2", "--steps", "4", "--blocks", "1",
            "--seconds", "0"])
    assert [row[0] for row in rows] == ["lstm", "layer-norm", "minimal", "gru"]
    assert rows[0][3:] == ["1.00", "1.00"] and "minimal" in capsys.readouterr().out
