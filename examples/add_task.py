"""The add task: a bidirectional LSTM learns to sum the two marked numbers of a long sequence.

    python examples/add_task.py

The network of Hochreiter and Schmidhuber's (1997) task in two directions; a cost of 1/6 is that
of guessing the mean.  Writes the learning curve to add_task.png.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

import matplotlib
import numpy as np
from tqdm import tqdm

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as lasagne
from tinygraph_rnn.layers import Gate, LSTMLayer
from tinygraph_rnn.tasks import add_batch

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  (the back end must be chosen first)


def build(hidden: int) -> tuple[Any, Any]:
    """The functions train(X, y, mask) and compute_cost(X, y, mask); both return the cost."""
    l_in = lasagne.layers.InputLayer(shape=(None, None, 2))
    l_mask = lasagne.layers.InputLayer(shape=(None, None))
    orthogonal, zero = lasagne.init.Orthogonal(), lasagne.init.Constant(0.0)
    gate = Gate(W_in=orthogonal, W_hid=orthogonal, b=zero)
    cell = Gate(W_in=orthogonal, W_hid=orthogonal, W_cell=None, b=zero,
                nonlinearity=lasagne.nonlinearities.tanh)
    forward, backward = (
        LSTMLayer(l_in, hidden, mask_input=l_mask, ingate=gate, forgetgate=gate, cell=cell,
                  outgate=gate, learn_init=True, grad_clipping=100.0, backwards=backwards)
        for backwards in (False, True))
    l_sum = lasagne.layers.ElemwiseSumLayer([forward, backward])

    n_batch, n_time_steps, _ = l_in.input_var.shape
    l_reshape = lasagne.layers.ReshapeLayer(l_sum, (-1, hidden))
    l_dense = lasagne.layers.DenseLayer(
        l_reshape, num_units=1, nonlinearity=lasagne.nonlinearities.tanh)
    l_out = lasagne.layers.ReshapeLayer(l_dense, (n_batch, n_time_steps))

    target_values = T.vector("target_output")
    predicted_values = lasagne.layers.get_output(l_out)[:, -1]
    cost = T.mean((predicted_values - target_values) ** 2)
    all_params = lasagne.layers.get_all_params(l_out, trainable=True)
    updates = lasagne.updates.adam(cost, all_params)
    inputs = [l_in.input_var, target_values, l_mask.input_var]
    return (tinygraph.function(inputs, cost, updates=updates),
            tinygraph.function(inputs, cost))


def learn(args: argparse.Namespace, costs: list[float], validation: list[float]) -> None:
    """Train, appending every minibatch's cost and every epoch's validation cost."""
    lasagne.random.set_rng(args.seed)
    rng = np.random.default_rng(args.seed)
    lengths = {"min_length": args.min_length, "max_length": args.max_length, "rng": rng}
    train, compute_cost = build(args.hidden)
    held_out = add_batch(**lengths)
    with tqdm(total=args.epochs * args.epoch_size, unit="batch") as bar:
        for epoch in range(args.epochs):
            for _ in range(args.epoch_size):
                costs.append(float(train(*add_batch(**lengths))))
                bar.set_postfix(cost=f"{np.mean(costs[-20:]):.4f}", refresh=False)
                bar.update()
            validation.append(float(compute_cost(*held_out)))
            tqdm.write(f"Epoch {epoch + 1} validation cost = {validation[-1]:.6f}")


def plot(costs: list[float], validation: list[float], epoch_size: int, path: str) -> None:
    """The learning curve as a picture file."""
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.semilogy(np.arange(1, len(costs) + 1), costs, color="0.75", linewidth=0.8,
                  label="training, each minibatch")
    axes.semilogy(epoch_size * np.arange(1, len(validation) + 1), validation, "o-",
                  color="tab:blue", label="validation, each epoch")
    axes.axhline(1 / 6, color="tab:red", linestyle=":", label="guessing the mean, 1/6")
    axes.set(xlabel="minibatches", ylabel="mean squared error", title="The add task")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: list[str] | None = None) -> list[float]:
    """Run with command line arguments; returns the validation costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--epoch-size", type=int, default=100, help="minibatches an epoch")
    parser.add_argument("--hidden", type=int, default=10, help="units in each direction")
    parser.add_argument("--min-length", type=int, default=50)
    parser.add_argument("--max-length", type=int, default=55)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default=tinygraph.config.backend)
    parser.add_argument("--output", default="add_task.png", help="the learning curve")
    args = parser.parse_args(argv)
    costs: list[float] = []
    validation: list[float] = []
    with tinygraph.config.change(backend=args.backend), contextlib.suppress(KeyboardInterrupt):
        learn(args, costs, validation)
    if len(validation) < args.epochs:
        print(f"Stopped after {len(costs)} minibatches.")
    if costs:
        plot(costs, validation, args.epoch_size, args.output)
        print(f"The learning curve is in {args.output}")
    return validation


if __name__ == "__main__":
    main()
