"""What is documented of every argument of every recurrent layer, one entry for each.

``LAYERS`` lists, for each class, what tests each of its arguments, and is held against the
signature: a new argument needs an entry.  Gate's arguments are in test_rnn_documented_methods.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import grad, shared
from tinygraph_rnn import init, nonlinearities
from tinygraph_rnn.layers import (
    CustomRecurrentLayer,
    DenseLayer,
    Gate,
    GRULayer,
    InputLayer,
    Layer,
    LSTMLayer,
    RecurrentLayer,
    get_output,
)

Make = Callable[..., Any]
RNG = np.random.default_rng(17)
X = RNG.standard_normal((3, 5, 2))
UNITS = 4


def make_custom(incoming: Any, num_units: int = UNITS, **options: Any) -> CustomRecurrentLayer:
    """A custom layer of two dense ones."""
    shape = incoming.output_shape if isinstance(incoming, Layer) else incoming
    features = shape[2:] or (1,)
    return CustomRecurrentLayer(
        incoming, DenseLayer(InputLayer((None, *features)), num_units, nonlinearity=None, name="i"),
        DenseLayer(InputLayer((None, num_units)), num_units, nonlinearity=None, name="h"),
        **options)


def feed(shape: tuple[int | None, ...] = (None, None, 2)) -> InputLayer:
    return InputLayer(shape)


def copied(make: Make, l_in: Any, seed: int = 0, **options: Any) -> Any:
    """A layer whose parameters are the same whatever its options are."""
    layer = make(l_in, UNITS, **options)
    ref.randomise(layer, seed)
    return layer


def run(layer: Any, *arrays: Any, inputs: Any = None) -> np.ndarray:
    inputs = inputs or [layer.input_layers[0]]
    return ref.run([v.input_var for v in inputs], get_output(layer), *arrays)


def run_with_gradients(layer: Any, x: np.ndarray = X, weights: Any = None) -> list[np.ndarray]:
    """Output, and the gradients of its (weighted) sum by the input and all parameters."""
    l_in = layer.input_layers[0]
    out = get_output(layer)
    cost = T.sum(out if weights is None else out * weights)
    return ref.run([l_in.input_var], [out, *grad(cost, [l_in.input_var, *layer.get_params()])], x)


def same(found: Any, expected: Any) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


# --- arguments that all layers have ---------------------------------------------------------------


def incoming_may_be_a_layer_or_a_shape(make: Make) -> None:
    l_in = feed((3, 5, 2))
    layer, free = copied(make, l_in), copied(make, (3, 5, 2))
    assert layer.input_layers == [l_in] and free.input_layers == [None]
    assert layer.input_shapes == free.input_shapes == [(3, 5, 2)]
    x = T.tensor3("x")
    np.testing.assert_allclose(ref.run([x], free.get_output_for([x]), X), run(layer, X))
    for shape in ((3, 5), (3,)):
        with pytest.raises(ValueError, match="batch, time, features"):
            make(shape, UNITS)


def num_units_is_the_size_of_the_output(make: Make) -> None:
    for n in (1, 6):
        layer = make(feed(), n)
        assert layer.output_shape == (None, None, n)
        assert run(layer, X).shape == (3, 5, n)


def nonlinearity_is_applied(make: Make) -> None:
    zeros = [np.zeros(p.get_value().shape) for p in make(feed(), UNITS).get_params()]
    for chosen, at_two in ((nonlinearities.tanh, np.tanh(2.0)), (None, 2.0),
                           (lambda v: v * v, 4.0)):
        layer = make(feed(), UNITS, nonlinearity=chosen, hid_init=init.Constant(0.0))
        for p, zero in zip(layer.get_params(), zeros, strict=True):
            p.set_value(zero)
        np.testing.assert_allclose(_output_at_two(layer), at_two, rtol=1e-12)


def _output_at_two(layer: Any) -> np.ndarray:
    """The first output of a layer of zeros where what the nonlinearity is given is 2."""
    if isinstance(layer, LSTMLayer):  # c = 2 from f = 1, o = 1
        layer.cell_init.set_value(np.full((1, UNITS), 2.0))
        for bias in (layer.b_forgetgate, layer.b_outgate):
            bias.set_value(np.full(UNITS, 100.0))
    else:
        bias = layer.input_to_hidden.b
        bias.set_value(np.full(UNITS, 2.0))
    return run(layer, X)[:, 0]


def state_init(key: str) -> Callable[[Make], None]:
    """The initial state of that name is any of what is documented."""

    def check(make: Make) -> None:
        start = RNG.standard_normal((1, UNITS))
        base = make(feed(), UNITS)
        expected = None
        for spec in (start, shared(start), lambda shape: start.reshape(shape), shared(start) * 1):
            layer = make(feed(), UNITS, **{f"{key}_init": spec})
            _copy(base, layer)
            found = run(layer, X)
            expected = found if expected is None else expected
            np.testing.assert_allclose(found, expected, rtol=1e-12)
        l_in, l_start = feed(), InputLayer((None, UNITS))
        layer = make(l_in, UNITS, **{f"{key}_init": l_start})
        _copy(base, layer)
        assert getattr(layer, f"{key}_init") is l_start and l_start in layer.input_layers
        per_sequence = np.concatenate([start, 2 * start, 0 * start])
        found = run(layer, X, per_sequence, inputs=[l_in, l_start])
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
        assert not np.allclose(found[1], expected[1])
        usual = make(feed(), UNITS)
        _copy(base, usual)
        np.testing.assert_allclose(found[2], run(usual, X)[2], rtol=1e-12)
        np.testing.assert_array_equal(getattr(usual, f"{key}_init").get_value(),
                                      np.zeros((1, UNITS)))
        with pytest.raises(ValueError, match=f"{key}_init must have shape"):
            make(feed(), UNITS, **{f"{key}_init": np.zeros((1, UNITS + 1))})

    return check


def _copy(source: Any, target: Any) -> None:
    """Random parameters, the same for all layers of a class; the states stay."""
    rng = np.random.default_rng(4)
    own = {p.name: p for p in target.get_params() if p.name is not None}
    for p in source.get_params():
        value = 0.5 * rng.standard_normal(p.get_value().shape)
        if p.name in own and not p.name.endswith("_init"):
            own[p.name].set_value(value)
    assert len(own) >= len(source.get_params()) - 1


def backwards_reverses_input_and_output(make: Make) -> None:
    forward, back = copied(make, feed()), copied(make, feed(), backwards=True)
    same([run(back, X)], [run(forward, X[:, ::-1])[:, ::-1]])
    # The first entry of the output has seen all of the input, the last one only its own step.
    x = X.copy()
    x[:, 0] += 1
    changed = abs(run(back, x) - run(back, X)).max(axis=(0, 2))
    assert changed[0] > 0 and np.all(changed[1:] == 0)


def learn_init_makes_the_initial_states_trainable(make: Make) -> None:
    for learn in (False, True):
        layer = make((None, None, 2), UNITS, learn_init=learn)
        states = [p for p in layer.get_params() if (p.name or "").endswith("_init")]
        assert len(states) == len(layer.state_names)
        assert all((p in layer.get_params(trainable=True)) is learn for p in states)
        assert not set(states) & set(layer.get_params(regularizable=True))


def gradient_steps_counts_the_steps_back(make: Make) -> None:
    full = copied(make, feed(), hid_init=np.ones((1, UNITS)))
    for steps in (1, 2, 4, 5, 8):
        cut = copied(make, feed(), gradient_steps=steps, hid_init=np.ones((1, UNITS)))
        weights = np.zeros((3, 5, UNITS))
        weights[:, -1] = 1  # the cost reads the last output, by which all steps are reached
        out, dx, *_ = run_with_gradients(cut, weights=weights)
        same([out, dx[:, -steps:]], [v if k == 0 else v[:, -steps:] for k, v in enumerate(
            run_with_gradients(full, weights=weights)[:2])])
        assert np.all(dx[:, :-steps] == 0)
    for steps in (0, -2):
        with pytest.raises(ValueError, match=f"gradient_steps is {steps}"):
            make(feed(), UNITS, gradient_steps=steps)


def grad_clipping_bounds_what_comes_back(make: Make) -> None:
    free, wide = copied(make, feed()), copied(make, feed(), grad_clipping=1e9)
    tight = copied(make, feed(), grad_clipping=1e-4)
    same(run_with_gradients(wide), run_with_gradients(free))
    for none in (False, None):  # "passing in a float rather than False"
        same(run_with_gradients(copied(make, feed(), grad_clipping=none)), run_with_gradients(free))
    (out, *exact), (clipped_out, *clipped) = run_with_gradients(free), run_with_gradients(tight)
    same([clipped_out], [out])
    names = [None, *(p.name for p in tight.get_params())]
    biases = [k for k, name in enumerate(names) if name and name.split(".")[-1].startswith("b")]
    assert biases
    for k in biases:
        assert abs(clipped[k]).max() <= 3 * 5 * 1e-4 * (1 + 1e-9) < abs(exact[k]).max()
    with pytest.raises(ValueError, match="grad_clipping is -1"):
        make(feed(), UNITS, grad_clipping=-1)


def unroll_scan_changes_nothing_but_has_conditions(make: Make) -> None:
    l_in = feed((None, 5, 2))
    for backwards in (False, True):
        same(run_with_gradients(copied(make, l_in, unroll_scan=True, backwards=backwards)),
             run_with_gradients(copied(make, l_in, backwards=backwards)))
    with pytest.raises(ValueError, match="gradient_steps is 3, but unroll_scan=True"):
        make(l_in, UNITS, unroll_scan=True, gradient_steps=3)
    with pytest.raises(ValueError, match="sequence length .* not known"):
        make(feed((3, None, 2)), UNITS, unroll_scan=True)


def precompute_input_changes_nothing(make: Make) -> None:
    for options in ({}, {"backwards": True, "gradient_steps": 2}):
        same(run_with_gradients(copied(make, feed(), precompute_input=False, **options)),
             run_with_gradients(copied(make, feed(), **options)))


def mask_input_leaves_padding_out(make: Make) -> None:
    lengths = np.array([5, 2, 1])
    mask = (np.arange(5) < lengths[:, None]).astype(float)
    l_in, l_mask = feed(), InputLayer((None, None))
    masked, free = copied(make, l_in, mask_input=l_mask), copied(make, feed())
    assert masked.input_layers[:2] == [l_in, l_mask] and len(free.input_layers) == 1
    found = run(masked, X, mask, inputs=[l_in, l_mask])
    for k, n in enumerate(lengths):
        np.testing.assert_allclose(found[k, :n], run(free, X[k:k + 1, :n])[0], rtol=1e-12)
        assert np.all(found[k, n:] == found[k, n - 1])
    for shape in ((None, 4), (None, None, 1), (4, None)):
        with pytest.raises(ValueError, match="the mask has shape"):
            make(feed((3, 5, 2)), UNITS, mask_input=InputLayer(shape))


def only_return_final_gives_the_last_step(make: Make) -> None:
    for backwards, last in ((False, -1), (True, 0)):
        every = copied(make, feed(), backwards=backwards)
        final = copied(make, feed(), backwards=backwards, only_return_final=True)
        np.testing.assert_allclose(run(final, X), run(every, X)[:, last], rtol=1e-12)
        assert final.output_shape == (None, UNITS)
        assert every.output_shape == (None, None, UNITS)


def name_comes_before_the_names_of_parameters(make: Make) -> None:
    layer = make((None, None, 2), UNITS, name="first")
    assert layer.name == "first"
    own, free = (
        [p.name for p in (v.params if type(v) is CustomRecurrentLayer else v.get_params())]
        for v in (layer, make((None, None, 2), UNITS)))
    assert own == [f"first.{name}" for name in free]
    networks = ["input_to_hidden.W", "input_to_hidden.b", "hidden_to_hidden.W"]
    assert make is not RecurrentLayer or free == ["hid_init", *networks]


# --- arguments of one layer -----------------------------------------------------------------------


def parameter(argument: str, shape: tuple[int, ...], may_be_none: bool = False
              ) -> Callable[[Make], None]:
    """An argument of the simple network is a parameter's initialiser, array or variable."""

    def check(make: Make) -> None:
        value = RNG.standard_normal(shape)
        held = shared(value)
        assert getattr(make(feed(), UNITS, **{argument: held}), argument) is held
        for spec in (value, lambda wanted: value.reshape(wanted), init.Constant(3.0)):
            found = getattr(make(feed(), UNITS, **{argument: spec}), argument).get_value()
            np.testing.assert_array_equal(
                found, np.full(shape, 3.0) if isinstance(spec, init.Constant) else value)
        with pytest.raises(ValueError, match="must have shape"):
            make(feed(), UNITS, **{argument: np.zeros((7, 7))})
        if may_be_none:
            layer = make(feed(), UNITS, **{argument: None})
            assert getattr(layer, argument) is None
            assert len(layer.get_params()) == len(make(feed(), UNITS).get_params()) - 1

    return check


def gate(argument: str, peephole: bool = False) -> Callable[[Make], None]:
    """A gate's parameters and nonlinearity are those of the layer's gate of that name."""

    def check(make: Make) -> None:
        held = {"W_in": shared(RNG.standard_normal((2, UNITS))),
                "W_hid": shared(RNG.standard_normal((UNITS, UNITS))),
                "W_cell": shared(RNG.standard_normal(UNITS)),
                "b": shared(RNG.standard_normal(UNITS))}
        layer = make(feed(), UNITS, **{argument: Gate(**held, nonlinearity=nonlinearities.tanh)})
        assert getattr(layer, f"W_in_to_{argument}") is held["W_in"]
        assert getattr(layer, f"W_hid_to_{argument}") is held["W_hid"]
        assert getattr(layer, f"b_{argument}") is held["b"]
        assert getattr(layer, f"nonlinearity_{argument}") is nonlinearities.tanh
        assert (held["W_cell"] in layer.get_params()) is peephole
        if peephole:
            assert getattr(layer, f"W_cell_to_{argument}") is held["W_cell"]
            off = make(feed(), UNITS, peepholes=False, **{argument: Gate(**held)})
            assert held["W_cell"] not in off.get_params()
        used = grad(T.sum(get_output(layer)), [held["W_in"], held["W_hid"], held["b"]])
        for g in ref.run([layer.input_layers[0].input_var], used, X):
            assert np.any(g != 0)

    return check


def peepholes_are_used_or_not(make: Make) -> None:
    names = [f"W_cell_to_{g}" for g in ("ingate", "forgetgate", "outgate")]
    l_in = feed()
    on, off = copied(make, l_in), copied(make, l_in, peepholes=False)
    assert [p.name for p in on.get_params() if "W_cell" in p.name] == names
    assert not [p for p in off.get_params() if "W_cell" in p.name]
    for p in off.get_params():
        (twin,) = [q for q in on.get_params() if q.name == p.name]
        twin.set_value(p.get_value())
    assert not np.allclose(run(on, X), run(off, X))
    for name in names:
        getattr(on, name).set_value(np.zeros(UNITS))
    np.testing.assert_allclose(run(on, X), run(off, X), rtol=1e-12)


def network(argument: str) -> Callable[[Make], None]:
    """A network of the custom layer may be a chain, whose parameters are the layer's too."""

    def check(make: Make) -> None:
        features = 2 if argument == "input_to_hidden" else UNITS
        chain = DenseLayer(
            DenseLayer(InputLayer((None, features)), 7, nonlinearity=nonlinearities.tanh), UNITS,
            nonlinearity=None)
        plain = {"input_to_hidden": DenseLayer(InputLayer((None, 2)), UNITS, nonlinearity=None),
                 "hidden_to_hidden": DenseLayer(
                     InputLayer((None, UNITS)), UNITS, nonlinearity=None)}
        networks = {**plain, argument: chain}
        for early in (True, False):
            layer = CustomRecurrentLayer(
                feed(), **networks, nonlinearity=nonlinearities.tanh, precompute_input=early)
            ref.randomise(layer)
            assert getattr(layer, argument) is chain
            assert set(chain.get_params() + chain.input_layer.get_params()) < set(
                layer.get_params())
            x, h = T.matrix("x"), T.matrix("h")
            formula = T.tanh(get_output(networks["input_to_hidden"], x)
                             + get_output(networks["hidden_to_hidden"], h))
            states = [np.repeat(layer.hid_init.get_value(), 3, 0)]
            for t in range(5):
                states.append(ref.run([x, h], formula, X[:, t], states[-1]))
            np.testing.assert_allclose(
                run(layer, X), np.stack(states[1:], 1), rtol=1e-12)

    return check


# --- the table ------------------------------------------------------------------------------------

SHARED: dict[str, Callable[[Make], None]] = {
    "incoming": incoming_may_be_a_layer_or_a_shape, "hid_init": state_init("hid"),
    "backwards": backwards_reverses_input_and_output,
    "learn_init": learn_init_makes_the_initial_states_trainable,
    "gradient_steps": gradient_steps_counts_the_steps_back,
    "grad_clipping": grad_clipping_bounds_what_comes_back,
    "unroll_scan": unroll_scan_changes_nothing_but_has_conditions,
    "precompute_input": precompute_input_changes_nothing,
    "mask_input": mask_input_leaves_padding_out,
    "only_return_final": only_return_final_gives_the_last_step,
    "name": name_comes_before_the_names_of_parameters,
}
LAYERS: dict[type, dict[str, Callable[[Make], None]]] = {
    CustomRecurrentLayer: {
        **SHARED, "input_to_hidden": network("input_to_hidden"),
        "hidden_to_hidden": network("hidden_to_hidden"), "nonlinearity": nonlinearity_is_applied},
    RecurrentLayer: {
        **SHARED, "num_units": num_units_is_the_size_of_the_output,
        "W_in_to_hid": parameter("W_in_to_hid", (2, UNITS)),
        "W_hid_to_hid": parameter("W_hid_to_hid", (UNITS, UNITS)),
        "b": parameter("b", (UNITS,), may_be_none=True), "nonlinearity": nonlinearity_is_applied},
    LSTMLayer: {
        **SHARED, "num_units": num_units_is_the_size_of_the_output,
        "ingate": gate("ingate", True), "forgetgate": gate("forgetgate", True),
        "cell": gate("cell"), "outgate": gate("outgate", True),
        "nonlinearity": nonlinearity_is_applied, "cell_init": state_init("cell"),
        "peepholes": peepholes_are_used_or_not},
    GRULayer: {
        **SHARED, "num_units": num_units_is_the_size_of_the_output,
        "resetgate": gate("resetgate"), "updategate": gate("updategate"),
        "hidden_update": gate("hidden_update")},
}
CALLS = [pytest.param(made, check, id=f"{made.__name__} {argument}")
         for made, checks in LAYERS.items() for argument, check in checks.items()]


@pytest.mark.parametrize("made", LAYERS, ids=lambda c: c.__name__)
def test_every_argument_has_a_test(made):
    assert set(LAYERS[made]) == set(inspect.signature(made).parameters)


@pytest.mark.parametrize(("made", "check"), CALLS)
def test_argument(made, check):
    check(make_custom if made is CustomRecurrentLayer else made)
