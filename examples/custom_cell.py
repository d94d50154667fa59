"""New recurrent cells: a layer-normalised LSTM and a minimal gated unit, on the add task.

    python examples/custom_cell.py

A cell is a step: ``project`` is what it needs of the input, ``step`` makes new states of that and
the old states.  Masks, both directions, initial states from anywhere, truncated and clipped
gradients come with ``Recurrence``, and so does a loop with one product of matrices in each
direction.  A cost of 1/6 is that of guessing the mean.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as lasagne
from tinygraph.gradient import disconnected_grad
from tinygraph_rnn.init import Constant, Orthogonal
from tinygraph_rnn.layers import Gate, GatedRecurrence, InputLayer, LSTMLayer, Recurrence
from tinygraph_rnn.nonlinearities import sigmoid, tanh
from tinygraph_rnn.tasks import add_batch

ORTHOGONAL = Orthogonal()
GATE = Gate(ORTHOGONAL, ORTHOGONAL)
CANDIDATE = Gate(ORTHOGONAL, ORTHOGONAL, nonlinearity=tanh)
NARROW = 8  # so few features are normalised by a small product, more by passes over 4n sums


def mean(x: Any) -> Any:
    """The mean of every row, as a column."""
    return T.mean(x, axis=-1, keepdims=True)


def scale(variance: Any) -> Any:
    """What a row of this variance is multiplied by."""
    return 1 / T.sqrt(variance + 1e-5)


def normed(x: Any) -> Any:
    """Every row less its mean, divided by its standard deviation.

    The mean square around the mean does not change when the mean moves a little, so that gradients
    need not go that way (second ones would have to), and take all their sums of a row at once.
    """
    middle = mean(x)
    return (x - middle) * scale(mean((x - disconnected_grad(middle)) ** 2))


class LayerNormLSTM(Recurrence):
    """LSTM with layer normalisation (Ba, Kiros and Hinton 2016, arXiv:1607.06450, equations 20 to
    22; their three shifts are b and b_cell here):

        (i, f, o, g) = LN(h' W_hid) gain_hid + LN(x W_in) gain_in + b
        c = s(f) c' + s(i) tanh(g)
        h = s(o) tanh(LN(c) gain_cell + b_cell)

    LN takes off the mean of a row and divides by the standard deviation.  The mean of x W over
    columns is x times the mean of W's columns, so W is centred instead, outside of the loop.
    """

    state_names = ("hid", "cell")

    def __init__(self, incoming: Any, num_units: int, W: Any = ORTHOGONAL, **options: Any
                 ) -> None:
        super().__init__(incoming, num_units, **options)
        n, one, zero = num_units, Constant(1.0), Constant(0.0)
        self.W_in = self.add_param(W, (self.num_inputs, 4 * n), "W_in")
        self.W_hid = self.add_param(W, (n, 4 * n), "W_hid")
        self.b = self.add_param(zero, (4 * n,), "b", regularizable=False)
        self.b_cell = self.add_param(zero, (n,), "b_cell", regularizable=False)
        self.gain_in = self.add_param(one, (4 * n,), "gain_in", regularizable=False)
        self.gain_hid = self.add_param(one, (4 * n,), "gain_hid", regularizable=False)
        self.gain_cell = self.add_param(one, (n,), "gain_cell", regularizable=False)

    def project(self, x: Any, **kwargs: Any) -> Any:
        W = self.W_in - mean(self.W_in)
        if self.num_inputs > NARROW:
            sums = T.dot(x, W)
            return sums * scale(mean(sums ** 2)) * self.gain_in + self.b
        # The mean square of a row of x W is x W W' x' / 4n: nothing of the size of x W is walked.
        squares = T.sum(x * T.dot(x, T.dot(W, W.T)), axis=-1, keepdims=True)
        x = x * scale(T.maximum(squares, 0) / (4 * self.num_units))
        return T.dot(x, W * self.gain_in) + self.b

    def step(self, inputs: Any, states: Any, **kwargs: Any) -> list[Any]:
        (x,), (h, c), n = inputs, states, self.num_units
        sums = T.dot(h, self.W_hid - mean(self.W_hid))
        sums = self.clip(x + sums * scale(mean(sums ** 2)) * self.gain_hid)
        i, f, o, g = (sums[:, k * n:(k + 1) * n] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return [sigmoid(o) * tanh(normed(c) * self.gain_cell + self.b_cell), c]


class MinimalGatedUnit(GatedRecurrence):
    """One gate that forgets and resets (Zhou et al. 2016, arXiv:1603.09420), applied behind the
    product as in ``GRULayer``:

        f = s(x W_xf + h' W_hf + b_f)
        c = tanh(x W_xc + f * (h' W_hc) + b_c)
        h = (1 - f) * h' + f * c
    """

    def __init__(self, incoming: Any, num_units: int, forgetgate: Gate = GATE,
                 hidden_update: Gate = CANDIDATE, **options: Any) -> None:
        gates = {"forgetgate": forgetgate, "hidden_update": hidden_update}
        super().__init__(incoming, num_units, gates, **options)

    def step(self, inputs: Any, states: Any, **kwargs: Any) -> Any:
        (h,), (h_f, h_c), (x_f, x_c) = states, self.recurrent_products(states[0]), inputs
        f = self.activate("forgetgate", self.clip(x_f + h_f))
        c = self.activate("hidden_update", self.clip(x_c + f * h_c))
        return (1 - f) * h + f * c


CELLS = {"lstm": LSTMLayer, "layer-norm": LayerNormLSTM, "minimal": MinimalGatedUnit}


def build(cell: Any, hidden: int, rate: float = 0.01) -> tuple[Any, Any]:
    """The functions train(X, y, mask) and compute_cost(X, y, mask); both return the cost."""
    l_in, l_mask = InputLayer((None, None, 2)), InputLayer((None, None))
    l_last = cell(l_in, hidden, mask_input=l_mask, learn_init=True, grad_clipping=100.0,
                  only_return_final=True)
    l_out = lasagne.layers.DenseLayer(l_last, num_units=1, nonlinearity=None)
    target = T.vector("target")
    cost = T.mean((lasagne.layers.get_output(l_out)[:, 0] - target) ** 2)
    params = lasagne.layers.get_all_params(l_out, trainable=True)
    updates = lasagne.updates.adam(cost, params, rate)
    inputs = [l_in.input_var, target, l_mask.input_var]
    return (tinygraph.function(inputs, cost, updates=updates),
            tinygraph.function(inputs, cost))


def main(argv: list[str] | None = None) -> dict[str, list[float]]:
    """Run with command line arguments; returns the validation costs of every cell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--epoch-size", type=int, default=100, help="minibatches an epoch")
    parser.add_argument("--hidden", type=int, default=20, help="units of a cell")
    parser.add_argument("--min-length", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    costs: dict[str, list[float]] = {}
    for name in args.cells:
        lasagne.random.set_rng(args.seed)
        rng = np.random.default_rng(args.seed)
        lengths = {"min_length": args.min_length, "max_length": args.max_length, "rng": rng}
        train, compute_cost = build(CELLS[name], args.hidden)
        held_out, costs[name] = add_batch(**lengths), []
        for epoch in range(args.epochs):
            for _ in range(args.epoch_size):
                train(*add_batch(**lengths))
            costs[name].append(float(compute_cost(*held_out)))
            print(f"{name}: epoch {epoch + 1} validation cost = {costs[name][-1]:.6f}")
    return costs


if __name__ == "__main__":
    main()
