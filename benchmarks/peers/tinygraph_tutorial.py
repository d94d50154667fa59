"""The tutorial model on tinygraph: two LSTMs, one in each direction, on the add task."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as lasagne
from tinygraph_rnn.layers import Gate, LSTMLayer

VERSION = f"tinygraph, NumPy {np.__version__}"
FEATURES = 2


class Network:
    """The symbolic model: ``inputs`` X (batch, time, features), y (batch,) and mask (batch,
    time); the scalar ``cost``; ``params``, shared variables by the names of the problem."""

    def __init__(self, hidden: int, clip: float) -> None:
        layers = lasagne.layers
        l_in = layers.InputLayer((None, None, FEATURES))
        l_mask = layers.InputLayer((None, None))
        matrix, zero = lasagne.init.Orthogonal(), lasagne.init.Constant(0.0)
        gate = Gate(matrix, matrix, b=zero)
        cell = Gate(matrix, matrix, None, zero, lasagne.nonlinearities.tanh)
        directions = [
            LSTMLayer(l_in, hidden, mask_input=l_mask, ingate=gate, forgetgate=gate, cell=cell,
                      outgate=gate, learn_init=True, grad_clipping=clip,
                      backwards=name == "backward", name=name)
            for name in ("forward", "backward")]
        n_batch, n_steps, _ = l_in.input_var.shape
        l_sum = layers.ReshapeLayer(layers.ElemwiseSumLayer(directions), (-1, hidden))
        l_dense = layers.DenseLayer(l_sum, 1, nonlinearity=lasagne.nonlinearities.tanh,
                                    name="dense")
        l_out = layers.ReshapeLayer(l_dense, (n_batch, n_steps))
        target = T.vector("target")
        self.cost = T.mean((layers.get_output(l_out)[:, -1] - target) ** 2)
        self.inputs = [l_in.input_var, target, l_mask.input_var]
        self.params = {p.name: p for p in layers.get_all_params(l_out, trainable=True)}


def create(seed: int, batch: int, length: int, hidden: int, clip: float = 100.0
           ) -> dict[str, np.ndarray]:
    """The arrays of the problem: X, y, mask, clip and the parameters.

    Biases and initial states are small random numbers, so that none of them is left out of a
    comparison by being zero.
    """
    lasagne.random.set_rng(seed)
    rng = np.random.default_rng(seed)
    X, y, mask = lasagne.tasks.add_batch(batch, max(2, length - 5), length, rng)
    arrays: dict[str, Any] = {"X": X, "y": y, "mask": mask, "clip": np.float64(clip)}
    for name, p in Network(hidden, clip).params.items():
        value = p.get_value()
        if not value.any():
            value = rng.normal(0.0, 0.1, value.shape)
        arrays[f"parameter.{name}"] = value.astype(X.dtype)
    return arrays


class Workload:
    """Training steps with Adam; see ``worker.Workload``.  variant: not used."""

    def __init__(self, arrays: dict[str, np.ndarray], variant: str) -> None:
        clock = [time.perf_counter()]
        hidden = arrays["parameter.dense.W"].shape[0]
        self.network = Network(hidden, float(arrays["clip"]))
        clock.append(time.perf_counter())
        params = list(self.network.params.values())
        updates = lasagne.updates.adam(self.network.cost, params)
        clock.append(time.perf_counter())
        self.train = tinygraph.function(self.network.inputs, self.network.cost, updates=updates,
                                        name="train")
        clock.append(time.perf_counter())
        self.stages = dict(zip(("network", "gradient and Adam", "function()"),
                               np.diff(clock).tolist(), strict=True))
        self.arrays = arrays
        self.data = [arrays[name] for name in ("X", "y", "mask")]
        self._put(arrays, "parameter.")

    def _put(self, arrays: dict[str, Any], prefix: str = "") -> None:
        for name, p in self.network.params.items():
            p.set_value(arrays[prefix + name])

    def step(self) -> float:
        return float(self.train(*self.data))

    def gradients(self) -> dict[str, np.ndarray]:
        names, params = zip(*self.network.params.items(), strict=True)
        function = tinygraph.function(self.network.inputs,
                                      tinygraph.grad(self.network.cost, list(params)))
        now = self.parameters()
        self._put(self.arrays, "parameter.")
        try:
            return dict(zip(names, function(*self.data), strict=True))
        finally:
            self._put(now)

    def parameters(self) -> dict[str, np.ndarray]:
        return {name: p.get_value() for name, p in self.network.params.items()}
