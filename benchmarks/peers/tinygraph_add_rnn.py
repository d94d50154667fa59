"""W2 on tinygraph, with the layers of tinygraph_rnn."""

from __future__ import annotations

from problem import Problem
from tinygraph_common import VERSION, Arrays, Model, Training

import tinygraph.tensor as T
import tinygraph_rnn as lasagne

__all__ = ["VERSION", "Workload"]

NAMES = {"W_in": "input_to_hidden.W", "W_hid": "hidden_to_hidden.W", "b": "input_to_hidden.b"}


class Workload(Training):
    """Training steps."""

    def model(self, problem: Problem) -> Model:
        layers, tanh = lasagne.layers, lasagne.nonlinearities.tanh
        hidden = problem.parameters["forward.b"].size
        l_in = layers.InputLayer((None, None, 2))
        l_mask = layers.InputLayer((None, None))
        directions = [
            layers.RecurrentLayer(l_in, hidden, nonlinearity=tanh, mask_input=l_mask,
                                  backwards=name == "backward", only_return_final=True, name=name)
            for name in ("forward", "backward")]
        l_out = layers.DenseLayer(layers.ConcatLayer(directions), 1, nonlinearity=tanh,
                                  name="dense")
        target = T.vector("target")
        cost = T.mean((layers.get_output(l_out)[:, 0] - target) ** 2)
        return Model({"X": l_in.input_var, "y": target, "mask": l_mask.input_var}, cost,
                     {p.name: p for p in layers.get_all_params(l_out, trainable=True)})

    def to_model(self, params: Arrays) -> Arrays:
        return {rename(k, NAMES): v for k, v in params.items()}

    def to_problem(self, params: Arrays) -> Arrays:
        return {rename(k, {v: k for k, v in NAMES.items()}): v for k, v in params.items()}


def rename(name: str, names: dict[str, str]) -> str:
    """A parameter of a direction under its other name."""
    layer, _, key = name.partition(".")
    return name if layer == "dense" else f"{layer}.{names[key]}"
