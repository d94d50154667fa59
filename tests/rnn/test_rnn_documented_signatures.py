"""Names, order and defaults of the arguments of recurrent layers are those of Lasagne 0.2."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import tinygraph_rnn as lasagne
from tinygraph_rnn import init, nonlinearities
from tinygraph_rnn.layers import (
    CustomRecurrentLayer,
    Gate,
    GRULayer,
    LSTMLayer,
    RecurrentLayer,
)

NEEDED = object()  # an argument without a default
ZERO = "Constant(0.)"
WALK = (("backwards", False), ("learn_init", False))
TAIL = (("gradient_steps", -1), ("grad_clipping", 0), ("unroll_scan", False),
        ("precompute_input", True), ("mask_input", None), ("only_return_final", False))
SIGNATURES: dict[type, tuple[tuple[str, Any], ...]] = {
    CustomRecurrentLayer: (
        ("incoming", NEEDED), ("input_to_hidden", NEEDED), ("hidden_to_hidden", NEEDED),
        ("nonlinearity", nonlinearities.rectify), ("hid_init", ZERO), *WALK, *TAIL),
    RecurrentLayer: (
        ("incoming", NEEDED), ("num_units", NEEDED), ("W_in_to_hid", "Uniform(0.01)"),
        ("W_hid_to_hid", "Uniform(0.01)"), ("b", ZERO), ("nonlinearity", nonlinearities.rectify),
        ("hid_init", ZERO), *WALK, *TAIL),
    LSTMLayer: (
        ("incoming", NEEDED), ("num_units", NEEDED), ("ingate", "Gate()"),
        ("forgetgate", "Gate()"), ("cell", "Gate(W_cell=None, tanh)"), ("outgate", "Gate()"),
        ("nonlinearity", nonlinearities.tanh), ("cell_init", ZERO), ("hid_init", ZERO), *WALK,
        ("peepholes", True), *TAIL),
    GRULayer: (
        ("incoming", NEEDED), ("num_units", NEEDED), ("resetgate", "Gate(W_cell=None)"),
        ("updategate", "Gate(W_cell=None)"), ("hidden_update", "Gate(W_cell=None, tanh)"),
        ("hid_init", ZERO), *WALK, *TAIL),
    Gate: (
        ("W_in", "Normal(0.1)"), ("W_hid", "Normal(0.1)"), ("W_cell", "Normal(0.1)"), ("b", ZERO),
        ("nonlinearity", nonlinearities.sigmoid)),
}


def told(default: Any) -> Any:
    """Gates and initialisers in words, everything else as it is."""
    if default is inspect.Parameter.empty:
        return NEEDED
    if isinstance(default, Gate):
        assert told(default.W_in) == told(default.W_hid) == "Normal(0.1)"
        assert told(default.b) == ZERO and told(default.W_cell) in ("Normal(0.1)", None)
        kinds = {nonlinearities.sigmoid: [], nonlinearities.tanh: ["tanh"]}
        words = ["W_cell=None"] if default.W_cell is None else []
        return f"Gate({', '.join(words + kinds[default.nonlinearity])})"
    if isinstance(default, init.Constant):
        return f"Constant({default.val:.0f}.)"
    if isinstance(default, init.Normal):
        assert default.mean == 0
        return f"Normal({default.std})"
    if isinstance(default, init.Uniform):
        assert default.range == (-0.01, 0.01)
        return "Uniform(0.01)"
    return default


@pytest.mark.parametrize("made", SIGNATURES, ids=lambda c: c.__name__)
def test_arguments_and_defaults(made):
    found = [(p.name, told(p.default)) for p in inspect.signature(made).parameters.values()]
    expected = list(SIGNATURES[made])
    if made is not Gate:
        expected.append(("name", None))  # what Lasagne's layers take in **kwargs
    assert found == expected


@pytest.mark.parametrize("made", SIGNATURES, ids=lambda c: c.__name__)
def test_an_unknown_argument_is_refused(made):
    needed = sum(default is NEEDED for _, default in SIGNATURES[made])
    with pytest.raises(TypeError, match="backward"):
        made(*[(None, 5, 2), 4, 4][:needed], backward=True)


@pytest.mark.parametrize("made", [RecurrentLayer, LSTMLayer, GRULayer], ids=lambda c: c.__name__)
def test_arguments_by_position(made):
    """A layer keeps what it was told under the name of the argument."""
    options = {"backwards": True, "learn_init": True, "gradient_steps": 3, "grad_clipping": 0.5,
               "unroll_scan": False, "precompute_input": False, "only_return_final": True}
    values: list[Any] = []
    for name, default in SIGNATURES[made][2:]:
        default = inspect.signature(made).parameters[name].default
        values.append(options.get(name, default))
    layer = made((None, 5, 2), 4, *values)
    assert {k: getattr(layer, k) for k in options} == options
    assert layer.num_units == 4


def test_names_and_where_they_are():
    for made in SIGNATURES:
        assert getattr(lasagne.layers, made.__name__) is made
        assert getattr(lasagne.layers.recurrent, made.__name__) is made
        assert made.__name__ in lasagne.layers.__all__
    names: dict[str, Any] = {}
    exec("from tinygraph_rnn.layers import *", names)
    assert names["Gate"] is Gate and names["LSTMLayer"] is LSTMLayer
    assert names["recurrent"] is lasagne.layers.recurrent


def test_default_initialisers_draw_anew_for_every_parameter():
    """Defaults are made once; what they draw is not."""
    a, b = LSTMLayer((None, None, 2), 4), LSTMLayer((None, None, 2), 4)
    draws = [p.get_value() for layer in (a, b) for p in layer.get_params(regularizable=True)]
    assert len(draws) == 22
    assert len({v.tobytes() for v in draws}) == len(draws)
    weights = np.concatenate([v.ravel() for v in draws])
    assert 0.05 < weights.std() < 0.15
    uniform = RecurrentLayer((None, None, 20), 20)
    for w in (uniform.W_in_to_hid, uniform.W_hid_to_hid):
        assert 0.005 < abs(w.get_value()).max() <= 0.01
