"""The tutorial model on tinygraph, with the layers of tinygraph_rnn."""

from __future__ import annotations

import numpy as np
from problem import Problem
from tinygraph_common import VERSION, Arrays, Model, Training

import tinygraph.tensor as T
import tinygraph_rnn as lasagne
from tinygraph_rnn.layers import Gate, LSTMLayer

__all__ = ["VERSION", "Workload"]

DIRECTIONS = ("forward", "backward")
GATES = ("ingate", "forgetgate", "cell", "outgate")
PEEPHOLES = ("ingate", "forgetgate", "outgate")


class Workload(Training):
    """Training steps.  A layer has a matrix for each gate."""

    def model(self, problem: Problem) -> Model:
        layers = lasagne.layers
        hidden, clip = len(problem.parameters["dense.W"]), problem.options["clip"]
        l_in = layers.InputLayer((None, None, 2))
        l_mask = layers.InputLayer((None, None))
        cell = Gate(W_cell=None, nonlinearity=lasagne.nonlinearities.tanh)
        directions = [
            LSTMLayer(l_in, hidden, mask_input=l_mask, cell=cell, learn_init=True,
                      grad_clipping=clip, backwards=name == "backward", name=name)
            for name in DIRECTIONS]
        n_batch, n_steps, _ = l_in.input_var.shape
        l_sum = layers.ReshapeLayer(layers.ElemwiseSumLayer(directions), (-1, hidden))
        l_dense = layers.DenseLayer(l_sum, 1, nonlinearity=lasagne.nonlinearities.tanh,
                                    name="dense")
        l_out = layers.ReshapeLayer(l_dense, (n_batch, n_steps))
        target = T.vector("target")
        cost = T.mean((layers.get_output(l_out)[:, -1] - target) ** 2)
        return Model({"X": l_in.input_var, "y": target, "mask": l_mask.input_var}, cost,
                     {p.name: p for p in layers.get_all_params(l_out, trainable=True)})

    def to_model(self, params: Arrays) -> Arrays:
        out = {k: v for k, v in params.items() if k.startswith("dense") or k.endswith("_init")}
        for d in DIRECTIONS:
            for key, name in (("W_in", "W_in_to_"), ("W_hid", "W_hid_to_"), ("b", "b_")):
                parts = np.split(params[f"{d}.{key}"], len(GATES), axis=-1)
                out |= {f"{d}.{name}{g}": part for g, part in zip(GATES, parts, strict=True)}
            out |= {f"{d}.W_cell_to_{g}": w
                    for g, w in zip(PEEPHOLES, params[f"{d}.W_cell"], strict=True)}
        return out

    def to_problem(self, params: Arrays) -> Arrays:
        out = {k: v for k, v in params.items() if k.startswith("dense") or k.endswith("_init")}
        for d in DIRECTIONS:
            for key, name in (("W_in", "W_in_to_"), ("W_hid", "W_hid_to_"), ("b", "b_")):
                out[f"{d}.{key}"] = np.concatenate([params[f"{d}.{name}{g}"] for g in GATES], -1)
            out[f"{d}.W_cell"] = np.stack([params[f"{d}.W_cell_to_{g}"] for g in PEEPHOLES])
        return out
