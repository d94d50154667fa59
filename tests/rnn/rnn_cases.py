"""Recurrent layers with options drawn or listed, built and compared with ``rnn_backprop``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import rnn_backprop as by_hand
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import function, grad
from tinygraph_rnn import init, nonlinearities
from tinygraph_rnn.layers import Gate, GRULayer, InputLayer, LSTMLayer, RecurrentLayer, get_output

GATES = {
    "lstm": ("ingate", "forgetgate", "cell", "outgate"),
    "gru": ("resetgate", "updategate", "hidden_update"),
    "rnn": (),
}
PEEPHOLES = ("ingate", "forgetgate", "outgate")
STATES = {"lstm": ("hid", "cell"), "gru": ("hid",), "rnn": ("hid",)}


@dataclass(frozen=True)
class Case:
    """A layer, its options and the sizes of what it is fed.

    gates: nonlinearities, in the order of GATES; ``out``: that of an LSTM's output or of the
    simple network.  known_batch, known_time: the layer is told these sizes.  states: 'zero'
    (the default of the constructor), 'learnt' or 'layer'.
    """

    kind: str
    batch: int = 3
    time: int = 5
    features: tuple[int, ...] = (2,)
    units: int = 3
    known_batch: bool = False
    known_time: bool = False
    mask: bool = False
    states: str = "learnt"
    gates: tuple[str, ...] = ()
    out: str = "tanh"
    bias: bool = True
    peepholes: bool = True
    w_cell: bool = True
    backwards: bool = False
    gradient_steps: int = -1
    grad_clipping: float = 0
    only_return_final: bool = False
    precompute_input: bool = True
    unroll_scan: bool = False

    @property
    def gate_kinds(self) -> dict[str, str]:
        """The nonlinearity of every gate; sigmoid, and tanh where something is computed."""
        usual = {g: "tanh" if g in ("cell", "hidden_update") else "sigmoid"
                 for g in GATES[self.kind]}
        return dict(zip(usual, self.gates, strict=True)) if self.gates else usual

    def oracle(self) -> Any:
        if self.kind == "rnn":
            return by_hand.Simple(self.out)
        if self.kind == "gru":
            return by_hand.Gru(**self.gate_kinds)
        return by_hand.Lstm(**self.gate_kinds, nonlinearity=self.out)

    def walk(self) -> by_hand.Walk:
        return by_hand.Walk(self.backwards, self.gradient_steps, self.grad_clipping,
                            self.only_return_final)

    def sequence_shape(self) -> tuple[int | None, ...]:
        return (self.batch if self.known_batch else None,
                self.time if self.known_time or self.unroll_scan else None, *self.features)

    def draw(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """x, weights of the outputs in the cost, a mask with padding, states of layers."""
        shape = (self.batch, self.units) if self.only_return_final else (
            self.batch, self.time, self.units)
        values = {"x": rng.standard_normal((self.batch, self.time, *self.features)),
                  "weights": rng.standard_normal(shape)}
        if self.mask:
            lengths = rng.integers(1, self.time + 1, self.batch)
            values["mask"] = (np.arange(self.time) < lengths[:, None]).astype(float)
        if self.states == "layer":
            values.update((f"{s}_init", rng.standard_normal((self.batch, self.units)))
                          for s in STATES[self.kind])
        return values


class Built:
    """The layer of a case, and the input layers that feed it: ``inputs`` by name."""

    def __init__(self, case: Case) -> None:
        self.case = case
        shape = case.sequence_shape()
        self.inputs: dict[str, Any] = {"x": InputLayer(shape)}
        options: dict[str, Any] = {
            k: getattr(case, k) for k in (
                "backwards", "gradient_steps", "grad_clipping", "only_return_final",
                "precompute_input", "unroll_scan")}
        if case.mask:
            self.inputs["mask"] = options["mask_input"] = InputLayer(shape[:2])
        if case.states == "layer":
            for s in STATES[case.kind]:
                given = InputLayer((shape[0], case.units))
                self.inputs[f"{s}_init"] = options[f"{s}_init"] = given
        elif case.states == "learnt":
            options["learn_init"] = True
        options.update(self._own_options())
        make = {"lstm": LSTMLayer, "gru": GRULayer, "rnn": RecurrentLayer}[case.kind]
        self.layer = make(self.inputs["x"], case.units, **options)

    def _own_options(self) -> dict[str, Any]:
        case, zero = self.case, init.Constant(0.0)
        own: dict[str, Any] = {
            gate: Gate(W_cell=init.Normal(0.1) if case.w_cell and gate in PEEPHOLES else None,
                       b=zero if case.bias else None,
                       nonlinearity=getattr(nonlinearities, kind))
            for gate, kind in case.gate_kinds.items()}
        if case.kind != "gru":
            own["nonlinearity"] = getattr(nonlinearities, case.out)
        if case.kind == "lstm":
            own["peepholes"] = case.peepholes
        if case.kind == "rnn" and not case.bias:
            own["b"] = None
        return own

    def parameters(self) -> dict[str, Any]:
        """Every parameter by the name of its attribute."""
        case = self.case
        names = ["W_in_to_hid", "W_hid_to_hid", *(["b"] if case.bias else [])]
        if case.kind != "rnn":
            names = [f"{w}_to_{g}" for g in GATES[case.kind] for w in ("W_in", "W_hid")]
            names += [f"b_{g}" for g in GATES[case.kind]] if case.bias else []
        if case.kind == "lstm" and case.peepholes and case.w_cell:
            names += [f"W_cell_to_{g}" for g in PEEPHOLES]
        if case.states != "layer":
            names += [f"{s}_init" for s in STATES[case.kind]]
        return {name: getattr(self.layer, name) for name in names}


class Compiled:
    """Called with values: the output ('out') and the gradients of sum(weights * output) by every
    parameter and input but the mask.  The cost reads out[read] only, if that is given."""

    def __init__(self, built: Built, backend: str, read: Any = None) -> None:
        self.names = list(built.inputs)
        out = get_output(built.layer)
        self.read, out = read, out if read is None else out[read]
        weights = T.TensorType(out.dtype, (False,) * out.ndim)("weights")
        wrt = {**built.parameters(),
               **{k: v.input_var for k, v in built.inputs.items() if k != "mask"}}
        found = grad(T.sum(out * weights), list(wrt.values()))
        inputs = [v.input_var for v in built.inputs.values()]
        self.function = function([*inputs, weights], [out, *found], backend=backend)
        self.results = ["out", *wrt]

    def __call__(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        weights = values["weights"] if self.read is None else values["weights"][self.read]
        results = self.function(*(values[k] for k in self.names), weights)
        return dict(zip(self.results, results, strict=True))


def got(built: Built, values: dict[str, np.ndarray], backend: str) -> dict[str, np.ndarray]:
    """One call of ``Compiled``."""
    return Compiled(built, backend)(values)


def expected(built: Built, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same by hand."""
    case = built.case
    p = {k: v.get_value() for k, v in built.parameters().items()}
    p.update((k, values[k]) for k in values if k.endswith("_init"))
    x = values["x"].reshape(case.batch, case.time, -1)
    walked = by_hand.walk(case.oracle(), x, p, case.walk(), values.get("mask"))
    g = walked.gradients(values["weights"])
    g["x"] = g["x"].reshape(values["x"].shape)
    if case.states != "layer":
        for s in STATES[case.kind]:
            g[f"{s}_init"] = g[f"{s}_init"].sum(0, keepdims=True)
    return {"out": walked.out, **g}


def check(case: Case, backends: tuple[str, ...] = ("llvm", "numpy"), seed: int = 0) -> None:
    """The layer of the case gives what is computed by hand."""
    built = Built(case)
    if case.states != "zero":
        ref.randomise(built.layer, seed)
    values = case.draw(np.random.default_rng(seed))
    wanted = expected(built, values)
    for backend in backends:
        for name, value in got(built, values, backend).items():
            np.testing.assert_allclose(
                value, wanted[name], rtol=1e-8, atol=1e-8, strict=True,
                err_msg=f"{name} on {backend}, {case}")
    assert len(built.layer.output_shape) == wanted["out"].ndim
    for told, is_ in zip(built.layer.output_shape, wanted["out"].shape, strict=True):
        assert told in (None, is_)
