"""A training that is stopped and resumed: an LSTM with noise, batch normalisation and dropout,
adam, a learning rate that is set between calls, shuffled batches.

    python resumable.py CHECKPOINT STEPS SEED

resumes it in a fresh process, does STEPS steps and prints the costs and a digest of everything.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as lasagne
from tinygraph.tensor.shared_randomstreams import RandomStreams
from tinygraph_rnn.layers import (
    BatchNormLayer,
    DenseLayer,
    DropoutLayer,
    GaussianNoiseLayer,
    InputLayer,
    LSTMLayer,
)


class Training:
    """Everything that a training has; ``seed`` draws the parameters and the batches."""

    def __init__(self, seed: int) -> None:
        lasagne.random.set_rng(np.random.RandomState(seed))
        self.rng = np.random.default_rng(seed)
        self.streams = RandomStreams(seed)
        self.costs: list[float] = []
        x, y = T.tensor3("x"), T.vector("y")
        noisy = GaussianNoiseLayer(InputLayer((None, None, 2), x))
        lstm = LSTMLayer(noisy, 4, only_return_final=True)
        self.network = DenseLayer(DropoutLayer(BatchNormLayer(lstm)), 1)
        cost = T.mean((lasagne.layers.get_output(self.network)[:, 0] - y) ** 2)
        self.noise = self.streams.normal(())
        self.rate = tinygraph.shared(np.float32(0.01), name="rate")
        self.parameters = lasagne.layers.get_all_params(self.network)
        self.updates = lasagne.updates.adam(
            cost, lasagne.layers.get_all_params(self.network, trainable=True),
            learning_rate=self.rate)
        self.step = tinygraph.function([x, y], [cost, self.noise], updates=self.updates)
        data = np.random.default_rng(1)
        self.x = data.normal(size=(12, 5, 2)).astype("float32")
        self.y = self.x.sum((1, 2))

    def run(self, steps: int) -> list[float]:
        """The costs, and numbers of the other random streams, of more steps."""
        out = []
        for _ in range(steps):
            chosen = self.rng.permutation(12)[:4]
            cost, noise = self.step(self.x[chosen], self.y[chosen])
            self.costs.append(float(cost))
            out += [float(cost), float(noise)]
            self.rate.set_value(np.float32(self.rate.get_value() * np.float32(0.99)))
        return out

    def save(self, path: Any) -> None:
        lasagne.checkpoint(path, self.network, self.updates, self.streams, rng=self.rng,
                           costs=self.costs, best=np.float32(0.1), table=np.arange(6).reshape(2, 3))

    def resume(self, path: Any) -> dict[str, Any]:
        state = lasagne.resume(path, self.network, self.updates, self.streams, rng=self.rng)
        self.costs = state["costs"]
        return state

    def digest(self) -> str:
        """Of the parameters, of what adam remembers, and of the next numbers of all generators."""
        arrays = [v.get_value() for v in [*self.parameters, *self.updates]]
        arrays += [s.get_value() for s in self.streams.states]
        arrays += [self.rng.normal(size=3), lasagne.random.get_rng().normal(size=3),
                   np.array(self.costs)]
        return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


if __name__ == "__main__":
    training = Training(int(sys.argv[3]))
    training.resume(sys.argv[1])
    print(json.dumps([training.run(int(sys.argv[2])), training.digest()]))
