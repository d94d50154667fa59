"""What is documented of the methods of recurrent layers, of Gate, and of what is refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import config, function, grad, shared
from tinygraph_rnn import init, nonlinearities
from tinygraph_rnn.layers import (
    CustomRecurrentLayer,
    DenseLayer,
    ElemwiseSumLayer,
    Gate,
    GRULayer,
    InputLayer,
    LSTMLayer,
    RecurrentLayer,
    get_all_layers,
    get_all_param_values,
    get_all_params,
    get_output,
    get_output_shape,
    set_all_param_values,
)

RNG = np.random.default_rng(23)
X = RNG.standard_normal((3, 5, 2))
MASK = np.array([[1.0, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])
H, C = RNG.standard_normal((2, 3, 4))
LAYERS = [LSTMLayer, GRULayer, RecurrentLayer]


def custom(shape: tuple[int | None, ...] = (2, 3, 4), rows_in: int | None = None,
           rows_hid: int | None = None, taken: int = 4, between: int = 5, hid_in: int = 5,
           hid_out: int = 5, **options: Any) -> CustomRecurrentLayer:
    """Two dense networks, whose sizes need not fit."""
    return CustomRecurrentLayer(
        InputLayer(shape), DenseLayer(InputLayer((rows_in, taken)), between),
        DenseLayer(InputLayer((rows_hid, hid_in)), hid_out), **options)


# --- get_output_for: the order of its inputs ------------------------------------------------------

FED = [(made, mask, states) for made in LAYERS for mask in (False, True)
       for states in ((), ("hid",), ("cell",), ("hid", "cell"))
       if made is LSTMLayer or "cell" not in states]


@pytest.mark.parametrize(("made", "mask", "states"), FED)
def test_the_inputs_are_sequence_mask_hidden_state_and_cell(made, mask, states):
    """inputs[1] is the mask, inputs[-1] the state; of two states the cell is inputs[-1]."""
    l_in, l_mask = InputLayer((None, None, 2)), InputLayer((None, None))
    given = {s: InputLayer((None, 4)) for s in states}
    options: dict[str, Any] = {f"{s}_init": layer for s, layer in given.items()}
    if mask:
        options["mask_input"] = l_mask
    layer = made(l_in, 4, **options)
    ref.randomise(layer)
    assert layer.input_layers == [l_in, *([l_mask] if mask else []), *given.values()]
    inputs = [T.tensor3("x"), *([T.matrix("m")] if mask else []), *(T.matrix(s) for s in states)]
    values = [X, *([MASK] if mask else []), *({"hid": H, "cell": C}[s] for s in states)]
    found = ref.run(inputs, layer.get_output_for(inputs), *values)
    by_network = ref.run([v.input_var for v in layer.input_layers], get_output(layer), *values)
    np.testing.assert_array_equal(found, by_network)
    cell = {LSTMLayer: ref.lstm, GRULayer: ref.gru, RecurrentLayer: simple}[made]
    for k in range(3):
        p = ref.values(layer)
        p.update({f"{s}_init": {"hid": H, "cell": C}[s][k:k + 1] for s in states})
        n = int(MASK[k].sum()) if mask else 5
        np.testing.assert_allclose(found[k, :n], cell(X[k, :n], p), rtol=1e-10)


def simple(x: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    h, out = p["hid_init"][0], []
    for row in x:
        h = np.maximum(row @ p["W_in_to_hid"] + h @ p["W_hid_to_hid"] + p["b"], 0)
        out.append(h)
    return np.array(out)


@pytest.mark.parametrize("made", LAYERS)
def test_inputs_that_are_not_as_many(made):
    layer = made((None, None, 2), 4, mask_input=InputLayer((None, None)),
                 hid_init=InputLayer((None, 4)))
    x, m = T.tensor3("x"), T.matrix("m")
    for inputs in ([x], [x, m], [x, m, m, m]):
        with pytest.raises(ValueError, match=f"given {len(inputs)} inputs, but it has 3: "
                                             "the sequence, the mask, hid_init"):
            layer.get_output_for(inputs)
    with pytest.raises(ValueError, match="m .*has 2 axes, but the input of shape"):
        layer.get_output_for([m, m, m])


@pytest.mark.parametrize("made", LAYERS)
def test_the_same_network_on_other_inputs(made):
    """A sequence and a mask given to get_output take the place of the input layers' variables."""
    l_in, l_mask = InputLayer((None, None, 2)), InputLayer((None, None))
    layer = made(l_in, 4, mask_input=l_mask)
    x, m = T.tensor3("x"), T.imatrix("m")
    out = get_output(layer, {l_in: x[:, 1:], l_mask: m[:, 1:]})
    found = ref.run([x, m], out, X, MASK.astype("int32"))
    usual = ref.run([l_in.input_var, l_mask.input_var], get_output(layer), X[:, 1:], MASK[:, 1:])
    np.testing.assert_allclose(found, usual, rtol=1e-12)
    with pytest.raises(ValueError, match="2 input layers"):
        get_output(layer, x)


@pytest.mark.parametrize("made", LAYERS)
def test_parameter_values_go_from_one_layer_to_another(made):
    """Whatever the options of either are, where the parameters are the same ones."""
    x = T.tensor3("x")
    source = made((None, None, 2), 4)
    ref.randomise(source)
    target = made((3, 5, 2), 4, unroll_scan=True, precompute_input=False, grad_clipping=1.0)
    set_all_param_values(target, get_all_param_values(source))
    np.testing.assert_allclose(ref.run([x], target.get_output_for([x]), X),
                               ref.run([x], source.get_output_for([x]), X), rtol=1e-12)


@pytest.mark.parametrize("options", [
    {"precompute_input": False, "backwards": True, "grad_clipping": 1.0},
    {"gradient_steps": 2, "only_return_final": True}], ids=str)
@pytest.mark.parametrize("made", LAYERS)
def test_float32_stays_float32(made, options):
    with config.change(floatX="float32", backend="llvm"):
        l_in, l_mask, l_hid = (InputLayer(s) for s in ((None, None, 2), (None, None), (None, 4)))
        layer = made(l_in, 4, mask_input=l_mask, hid_init=l_hid, **options)
        ref.randomise(layer)
        out = get_output(layer)
        inputs = [v.input_var for v in (l_in, l_mask, l_hid)]
        values = [v.astype("float32") for v in (X, MASK, H)]
        wrt = [l_in.input_var, l_hid.input_var, *layer.get_params()]
        found = ref.run(inputs, [out, *grad(T.mean(out ** 2), wrt)], *values)
        assert {v.dtype for v in found} == {np.dtype("float32")}
        weights = {p.name: p.get_value().astype("float64") for p in layer.get_params()}
    twins = [InputLayer(s) for s in ((None, None, 2), (None, None), (None, 4))]
    twin = made(twins[0], 4, mask_input=twins[1], hid_init=twins[2], **options)
    for p in twin.get_params():
        p.set_value(weights[p.name])
    out = get_output(twin)
    wrt = [twins[0].input_var, twins[2].input_var, *twin.get_params()]
    exact = ref.run([v.input_var for v in twins], [out, *grad(T.mean(out ** 2), wrt)], *values)
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_keyword_arguments_reach_the_networks_of_a_custom_layer():
    class Doubled(DenseLayer):
        def get_output_for(self, input, deterministic=False, **kwargs):
            return super().get_output_for(input) * (1 if deterministic else 2)

    l_in = InputLayer((None, None, 2))
    for early in (True, False):
        layer = CustomRecurrentLayer(
            l_in, Doubled(InputLayer((None, 2)), 3, np.ones((2, 3)), nonlinearity=None),
            Doubled(InputLayer((None, 3)), 3, np.zeros((3, 3)), init.Constant(1.0), None),
            precompute_input=early, nonlinearity=None)
        for deterministic, factor in ((True, 1), (False, 2)):
            out = get_output(layer, deterministic=deterministic)
            expected = np.repeat(factor * (X.sum(-1, keepdims=True) + 1), 3, axis=2)
            np.testing.assert_allclose(ref.run([l_in.input_var], out, X), expected, rtol=1e-12)


@pytest.mark.counts
@pytest.mark.parametrize(("early", "products"), [(True, 1), (False, 2)])
@pytest.mark.parametrize("made", [*LAYERS, CustomRecurrentLayer])
def test_where_the_input_products_are(made, early, products):
    """Before the loop (precompute_input=True), or within it, which keeps less in memory."""
    shape = (None, None, 3)
    layer = (custom(shape, taken=3, precompute_input=early) if made is CustomRecurrentLayer
             else made(InputLayer(shape), 4, precompute_input=early))
    f = function([layer.input_layers[0].input_var], get_output(layer), backend="loops")
    assert [loop.step.products for loop in f.report().loops] == [products]


# --- get_output_shape_for -------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [(3, 5), (None, None), (3, None), (None, 5)])
@pytest.mark.parametrize("made", [*LAYERS, CustomRecurrentLayer])
def test_output_shapes(made, lead):
    for final in (False, True):
        options = {"only_return_final": final, "mask_input": InputLayer(lead)}
        shape = (*lead, 4)
        layer = (custom(shape, **options) if made is CustomRecurrentLayer
                 else made(InputLayer(shape), 5, **options))
        assert layer.output_shape == ((lead[0], 5) if final else (*lead, 5))
        for other in ((7, 9), (None, None)):
            wanted = (other[0], 5) if final else (*other, 5)
            assert layer.get_output_shape_for([(*other, 4), other]) == wanted
            inputs = {layer.input_layers[0]: (*other, 4), layer.input_layers[1]: other}
            assert get_output_shape(layer, inputs) == wanted


def test_output_shape_of_a_state_of_several_axes():
    layer = CustomRecurrentLayer(InputLayer((2, 3, 4, 5)), InputLayer((None, 4, 5)),
                                 InputLayer((None, 4, 5)))
    assert layer.output_shape == (2, 3, 4, 5)
    assert layer.get_output_shape_for([(None, 7, 4, 5)]) == (None, 7, 4, 5)
    assert layer.hid_init.get_value().shape == (1, 4, 5)
    final = CustomRecurrentLayer(InputLayer((2, 3, 4, 5)), InputLayer((None, 4, 5)),
                                 InputLayer((None, 4, 5)), only_return_final=True)
    assert final.output_shape == (2, 4, 5)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("early", [True, False])
def test_states_of_several_axes(early, mask):
    """h = rectify(x + h'): cumulated sums, for which no parameter is needed."""
    l_in, l_mask = InputLayer((None, None, 2, 3)), InputLayer((None, None))
    x = abs(RNG.standard_normal((3, 5, 2, 3)))
    layer = CustomRecurrentLayer(
        l_in, InputLayer((None, 2, 3)), InputLayer((None, 2, 3)), precompute_input=early,
        mask_input=l_mask if mask else None)
    inputs = [v.input_var for v in layer.input_layers]
    found = ref.run(inputs, get_output(layer), *([x, MASK] if mask else [x]))
    live = x * MASK[:, :, None, None] if mask else x
    np.testing.assert_allclose(found, np.cumsum(live, axis=1), rtol=1e-12)


# --- get_params -----------------------------------------------------------------------------------

OWN = {
    LSTMLayer: 4 * 3 + 3 + 2, GRULayer: 3 * 3 + 1, RecurrentLayer: 4,
}


@pytest.mark.parametrize("made", LAYERS)
def test_parameters_by_tags(made):
    for learn in (False, True):
        layer = made((None, None, 2), 4, learn_init=learn)
        every = layer.get_params()
        assert len(every) == OWN[made]
        states = [p for p in every if p.name.endswith("_init")]
        biases = [p for p in every if p.name.split(".")[-1].startswith("b")]
        weights = [p for p in every if p not in states + biases]
        assert layer.get_params(regularizable=True) == weights
        assert set(layer.get_params(regularizable=False)) == set(states + biases)
        assert set(layer.get_params(trainable=False)) == (set() if learn else set(states))
        assert layer.get_params(trainable=True, regularizable=True) == weights
        assert layer.get_params(special=True) == []
        assert get_all_params(layer) == every


@pytest.mark.parametrize("made", LAYERS)
def test_unwrapped_and_wrapped_parameters(made):
    """A parameter given as an expression stands for its shared variables, or for itself."""
    base, half = shared(np.ones((2, 4)), name="base"), shared(np.ones((2, 4)), name="half")
    weights = base + half
    options = {"W_in_to_hid": weights} if made is RecurrentLayer else {
        ("ingate" if made is LSTMLayer else "resetgate"): Gate(weights)}
    layer = made((None, None, 2), 4, **options)
    unwrapped, wrapped = layer.get_params(), layer.get_params(unwrap_shared=False)
    assert base in unwrapped and half in unwrapped and weights not in unwrapped
    assert weights in wrapped and base not in wrapped
    assert len(unwrapped) == len(wrapped) + 1 == OWN[made] + 1
    assert base in layer.get_params(regularizable=True)
    assert base not in layer.get_params(regularizable=False)
    g = ref.run([], grad(T.sum(layer.get_output_for([T.constant(X)])), base))
    assert g.shape == (2, 4)


def test_parameters_of_a_custom_layer_are_its_own_and_its_networks():
    layer = custom()
    networks = [*get_all_params(layer.input_to_hidden), *get_all_params(layer.hidden_to_hidden)]
    assert layer.get_params() == [layer.hid_init, *networks]
    assert layer.get_params(trainable=True) == networks
    assert layer.get_params(regularizable=True) == [networks[0], networks[2]]
    assert layer in get_all_layers(layer) and layer.input_to_hidden not in get_all_layers(layer)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "text"), [
    ({"between": 6}, r"input_to_hidden gives shape \(None, 6\).* it must be \(6, 5\)"),
    ({"hid_out": 6}, r"input_to_hidden gives shape \(None, 5\).* it must be \(6, 6\)"),
    ({"taken": 3}, r"input_to_hidden takes shape \(None, 3\).* it must be \(6, 4\)"),
    ({"hid_in": 3}, r"hidden_to_hidden takes shape \(None, 3\).* it must be \(2, 5\)"),
    ({"rows_in": 2}, r"input_to_hidden takes shape \(2, 4\).* it must be \(6, 4\)"),
    ({"rows_in": 6, "precompute_input": False},
     r"input_to_hidden takes shape \(6, 4\).* it must be \(2, 4\)"),
])
def test_networks_that_do_not_fit(options, text):
    with pytest.raises(ValueError, match=text):
        custom(**options)


@pytest.mark.parametrize("options", [
    {"rows_in": 6}, {"rows_in": 2, "precompute_input": False}, {"rows_in": None},
    {"rows_in": 6, "rows_hid": 2}, {"rows_in": 6, "shape": (None, None, 4)},
    {"rows_in": 6, "shape": (2, None, 4)}])
def test_leading_sizes_that_fit(options):
    layer = custom(**options)
    x = RNG.standard_normal((2, 3, 4))
    out = ref.run([layer.input_layers[0].input_var], get_output(layer), x)
    assert out.shape == (2, 3, 5)


@pytest.mark.parametrize("which", ["input_to_hidden", "hidden_to_hidden"])
def test_networks_need_one_input_layer(which):
    two = ElemwiseSumLayer([DenseLayer(InputLayer((None, 4)), 4) for _ in range(2)])
    none = DenseLayer((None, 4), 4)
    for wrong, count in ((two, 2), (none, 0)):
        networks = {k: DenseLayer(InputLayer((None, 4)), 4)
                    for k in ("input_to_hidden", "hidden_to_hidden")}
        networks[which] = wrong
        with pytest.raises(ValueError, match=f"must end in one InputLayer, but it has {count}"):
            CustomRecurrentLayer(InputLayer((None, None, 4)), **networks)


@pytest.mark.parametrize(("options", "error", "text"), [
    ({"num_units": 0}, ValueError, "num_units is 0; it must be a positive int"),
    ({"num_units": 2.5}, ValueError, "num_units is 2.5"),
    ({"gradient_steps": 2.5}, ValueError, "gradient_steps is 2.5; it must be a positive int"),
    ({"gradient_steps": None}, ValueError, "gradient_steps is None"),
    ({"mask_input": MASK}, TypeError, "mask_input is of type ndarray; it must be a layer"),
    ({"hid_init": None}, TypeError, "hid_init cannot be made from None"),
    ({"incoming": 3}, TypeError, "a layer or a shape is needed as input, not 3"),
])
@pytest.mark.parametrize("made", LAYERS)
def test_arguments_of_another_kind(made, options, error, text):
    with pytest.raises(error, match=text):
        made(**{"incoming": InputLayer((None, None, 2)), "num_units": 4, **options})


@pytest.mark.parametrize(("made", "argument"), [
    (LSTMLayer, "ingate"), (LSTMLayer, "forgetgate"), (LSTMLayer, "cell"), (LSTMLayer, "outgate"),
    (GRULayer, "resetgate"), (GRULayer, "updategate"), (GRULayer, "hidden_update")])
def test_gates_of_another_kind(made, argument):
    for wrong in (None, nonlinearities.tanh):
        with pytest.raises(TypeError, match=f"{argument} is .*; it must be a Gate"):
            made((None, None, 2), 4, **{argument: wrong})
    for weights in ("W_in", "W_hid"):  # only a bias and a peephole can be left out
        with pytest.raises(TypeError, match=f"{weights}_to_{argument} cannot be made from None"):
            made((None, None, 2), 4, **{argument: Gate(**{weights: None})})


@pytest.mark.parametrize("which", ["input_to_hidden", "hidden_to_hidden"])
def test_networks_of_another_kind(which):
    networks = {"input_to_hidden": InputLayer((None, 4)), "hidden_to_hidden": InputLayer((None, 4))}
    with pytest.raises(TypeError, match=f"{which} is 4; it must be a layer"):
        CustomRecurrentLayer(InputLayer((None, None, 4)), **{**networks, which: 4})


@pytest.mark.parametrize("made", LAYERS)
def test_states_of_layers_must_fit(made):
    for shape in ((None, 3), (None, 1, 4), (2, 4)):
        with pytest.raises(ValueError, match=r"hid_init is .* it must be \(3, 4\)"):
            made(InputLayer((3, None, 2)), 4, hid_init=InputLayer(shape))


@pytest.mark.parametrize(("mask", "hid"), [
    ((1, 5), (3, 4)), ((3, 1), (3, 4)), ((2, 5), (3, 4)), ((3, 6), (3, 4)), ((3, 5), (1, 4)),
    ((3, 5), (2, 4))])
@pytest.mark.parametrize("backend", ["numpy", "llvm"])
def test_sizes_that_only_a_run_tells(mask, hid, backend):
    """A size of one does not broadcast, be it of a mask or of a state."""
    l_in, l_mask, l_hid = (InputLayer(s) for s in ((None, None, 2), (None, None), (None, 4)))
    layer = GRULayer(l_in, 4, mask_input=l_mask, hid_init=l_hid)
    inputs = [v.input_var for v in (l_in, l_mask, l_hid)]
    f = function(inputs, get_output(layer), backend=backend)
    with pytest.raises(ValueError, match=r"is \d, but \d is needed"):
        f(X, np.ones(mask), np.ones(hid))


# --- Gate -----------------------------------------------------------------------------------------


def held_by(attribute: str) -> Callable[[], None]:
    """The argument is an initialiser, array or variable of the layer's parameter."""
    shape = {"W_in": (2, 4), "W_hid": (4, 4), "W_cell": (4,), "b": (4,)}[attribute]
    name = {"W_in": "W_in_to_{}", "W_hid": "W_hid_to_{}", "W_cell": "W_cell_to_{}", "b": "b_{}"}

    def check() -> None:
        value = RNG.standard_normal(shape)
        for spec in (value, shared(value), shared(value) * 1, lambda wanted: value.reshape(wanted)):
            gate = Gate(**{attribute: spec})
            assert getattr(gate, attribute) is spec
            layer = LSTMLayer((None, None, 2), 4, gate, gate)
            for key in ("ingate", "forgetgate"):
                param = getattr(layer, name[attribute].format(key))
                np.testing.assert_array_equal(ref.run([], param * 1), value)
        with pytest.raises(ValueError, match="must have shape"):
            LSTMLayer((None, None, 2), 4, Gate(**{attribute: np.zeros((9, 9))}))
        if attribute in ("W_cell", "b"):
            layer = LSTMLayer((None, None, 2), 4, Gate(**{attribute: None}))
            assert getattr(layer, name[attribute].format("ingate")) is None
            assert len(layer.get_params()) == OWN[LSTMLayer] - 1

    return check


def nonlinearity_of_a_gate() -> None:
    assert Gate(nonlinearity=None).nonlinearity is nonlinearities.identity
    assert Gate(nonlinearity=nonlinearities.tanh).nonlinearity is nonlinearities.tanh
    zero = init.Constant(0.0)
    for chosen, at_half in ((None, 0.5), (nonlinearities.tanh, np.tanh(0.5)),
                            (nonlinearities.sigmoid, 1 / (1 + np.exp(-0.5)))):
        # u = s(1/2), c = 1 and h' = 0 give h = u
        layer = GRULayer(
            (None, None, 2), 4, updategate=Gate(zero, zero, None, init.Constant(0.5), chosen),
            hidden_update=Gate(zero, zero, None, init.Constant(1.0), None))
        x = T.tensor3("x")
        found = ref.run([x], layer.get_output_for([x]), X)
        np.testing.assert_allclose(found[:, 0], at_half, rtol=1e-12)


GATE: dict[str, Callable[[], None]] = {
    **{name: held_by(name) for name in ("W_in", "W_hid", "W_cell", "b")},
    "nonlinearity": nonlinearity_of_a_gate,
}


def test_every_argument_of_gate_has_a_test():
    assert list(GATE) == list(inspect.signature(Gate).parameters)


@pytest.mark.parametrize("argument", GATE)
def test_argument_of_gate(argument):
    GATE[argument]()
