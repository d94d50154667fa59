"""Sequences of different lengths in one batch: what lies behind an end does not count.

    python examples/masked_batches.py

GRU cells read words of the Reber grammar and say which symbol comes next.  A batch is padded to
its longest word; ``masked_loss`` takes the costs of each word's own steps.  In the end the same
words are read one by one, without padding: the cost is the same.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from tqdm import tqdm

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as rnn
from tinygraph_rnn.cells import (
    GRU,
    Layer,
    StackedCells,
    create_optimization_updates,
    masked_loss,
)
from tinygraph_rnn.tasks import REBER, padded_batch, reber

SYMBOLS = len(reber.SYMBOLS)


def build(hidden: int, rate: float) -> tuple[Any, Any]:
    """The functions train(inputs, labels, lengths) -> mean cost of a word, and
    costs(inputs, labels, lengths) -> cost of each word; arguments as ``padded_batch`` gives them.
    """
    model = StackedCells(SYMBOLS, GRU, [hidden], T.tanh)
    model.layers.append(Layer(hidden, SYMBOLS, lambda z: T.nnet.softmax(z.T).T))
    x, labels, lengths = T.tensor3("x"), T.imatrix("labels"), T.ivector("lengths")

    def step(x_t: Any, state: Any) -> list[Any]:
        return model.forward(x_t, [state])

    (_, p), _ = tinygraph.scan(
        step, sequences=x.dimshuffle(1, 0, 2),
        outputs_info=[*model.initial_states(x.shape[0]), None])
    each = masked_loss(p.dimshuffle(1, 0, 2), labels, lengths, T.zeros_like(lengths))
    cost = T.mean(each)
    updates, *_ = create_optimization_updates(cost, model.params, lr=rate, method="adagrad")
    inputs = [x, labels, lengths]
    return tinygraph.function(inputs, cost, updates=updates), tinygraph.function(inputs, each)


def entropy(words: list[str]) -> float:
    """The least cost of these words: at every step both symbols that may come are as likely."""
    choices = [np.log(REBER.allowed(word[:-1]).sum(axis=1)).sum() for word in words]
    return float(np.mean(choices))


def learn(train: Any, args: argparse.Namespace, rng: Any) -> list[float]:
    """The cost of every training step, less the least that was possible."""
    costs = []
    bar = tqdm(range(args.steps), unit="batch", miniters=20)
    for _ in bar:
        words = [REBER.word(rng=rng) for _ in range(args.batch)]
        costs.append(float(train(*padded_batch(words))) - entropy(words))
        if len(costs) % 50 == 0:
            bar.set_postfix(cost=f"{np.mean(costs[-50:]):.3f}", refresh=False)
    return costs


def plot(costs: list[float], path: str) -> None:
    """The learning curve as a picture file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="tight")
    axes = figure.subplots()
    axes.plot(costs)
    axes.set(xlabel="minibatches", ylabel="cost of a word, above the least (nats)",
             title="Reber words, padded")
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> tuple[float, float, float]:
    """Run with command line arguments; returns, for new words, the mean cost in one padded batch,
    the mean cost read one by one, and the least that is possible."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="training steps")
    parser.add_argument("--batch", type=int, default=20, help="words of a batch")
    parser.add_argument("--hidden", type=int, default=20, help="units of the state")
    parser.add_argument("--rate", type=float, default=0.1, help="the learning rate of AdaGrad")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="write the learning curve to FILE")
    args = parser.parse_args(argv)
    rnn.random.set_rng(args.seed)
    rng = np.random.default_rng(args.seed)
    train, costs_of = build(args.hidden, args.rate)
    curve = learn(train, args, rng)
    words = [REBER.word(rng=rng) for _ in range(200)]
    padded = float(np.mean(costs_of(*padded_batch(words))))
    single = float(np.mean([costs_of(*padded_batch([word]))[0] for word in words]))
    least = entropy(words)
    print(f"cost of a word: {padded:.5f} in a padded batch, {single:.5f} one by one, "
          f"{least:.5f} at the least")
    if args.plot:
        plot(curve, args.plot)
        print(f"The learning curve is in {args.plot}")
    return padded, single, least


if __name__ == "__main__":
    main()
