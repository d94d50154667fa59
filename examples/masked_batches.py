"""Sequences of different lengths in one batch: what lies behind an end does not count.

    python examples/masked_batches.py

GRU cells read words of the Reber grammar and say which symbol comes next.  A batch is padded to
its longest word, and holds words of about one length; ``masked_loss`` takes the costs of each
word's own steps.  In the end new words are read one by one, without padding: the cost is the same.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

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
from tinygraph_rnn.tasks import REBER, reber
from tinygraph_rnn.training import Curves, batches, padding_share, progress

SYMBOLS = len(reber.SYMBOLS)


def build(hidden: int, rate: float) -> tuple[Any, Any]:
    """The functions train(inputs, labels, lengths) -> mean cost of a word, and
    costs(inputs, labels, lengths) -> cost of each word.

    inputs: (batch, time, symbols); labels: (batch, time), numbers of the next symbols; lengths:
    (batch,).
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


def data_of(words: list[str]) -> tuple[list[Any], list[Any], np.ndarray]:
    """What is read of each word, which symbols really came next, and how many."""
    return ([reber.one_hot(word[:-1]) for word in words],
            [np.array([reber.SYMBOLS.index(s) for s in word[1:]], np.int32) for word in words],
            np.array([len(word) - 1 for word in words], np.int32))


def entropy(words: list[str]) -> float:
    """The least cost of these words: at every step both symbols that may come are as likely."""
    choices = [np.log(REBER.allowed(word[:-1]).sum(axis=1)).sum() for word in words]
    return float(np.mean(choices))


def mean_cost(costs_of: Any, words: list[str], size: int) -> float:
    """The mean cost of a word, read in batches of ``size``."""
    return float(np.mean(np.concatenate([
        costs_of(x, y, n) for x, _, y, n in batches(*data_of(words), size=size)])))


def learn(train: Any, costs_of: Any, args: argparse.Namespace, rng: Any) -> Curves:
    """The costs of every epoch, above the least that is possible, for words trained on and new
    ones."""
    words, new = ([REBER.word(rng=rng) for _ in range(n)] for n in (args.words, 200))
    inputs, labels, lengths = data_of(words)
    for bucket in (0, args.bucket):
        share = padding_share(lengths, args.batch, args.seed, bucket)
        print(f"{share:.0%} of the steps are padding with bucket={bucket}")
    data = batches(inputs, labels, lengths, size=args.batch, rng=rng, bucket=args.bucket)
    curves = Curves()
    for epoch in range(1, args.epochs + 1):
        costs = []
        for x, _, y, n in (bar := progress(data, desc=f"epoch {epoch}")):
            costs.append(len(n) * train(x, y, n))
            bar.show(cost=costs[-1] / len(n))
        curves.add(epoch, training=sum(costs) / len(words) - entropy(words),
                   new=mean_cost(costs_of, new, args.batch) - entropy(new))
    return curves


def main(argv: list[str] | None = None) -> tuple[float, float, float]:
    """Run with command line arguments; returns, for new words, the mean cost in one padded batch,
    the mean cost read one by one, and the least that is possible."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--words", type=int, default=1000, help="words an epoch")
    parser.add_argument("--batch", type=int, default=20, help="words of a batch")
    parser.add_argument("--bucket", type=int, default=10, help="batches sorted by length together")
    parser.add_argument("--hidden", type=int, default=20, help="units of the state")
    parser.add_argument("--rate", type=float, default=0.1, help="the learning rate of AdaGrad")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="write the learning curves to FILE")
    args = parser.parse_args(argv)
    rnn.random.set_rng(args.seed)
    rng = np.random.default_rng(args.seed)
    train, costs_of = build(args.hidden, args.rate)
    curves = learn(train, costs_of, args, rng)
    print(curves.table())
    words = [REBER.word(rng=rng) for _ in range(200)]
    padded, single = (mean_cost(costs_of, words, size) for size in (len(words), 1))
    least = entropy(words)
    print(f"cost of a word: {padded:.5f} in a padded batch, {single:.5f} one by one, "
          f"{least:.5f} at the least")
    if args.plot:
        curves.plot(args.plot, title="Reber words, padded",
                    ylabel="cost of a word, above the least (nats)")
        print(f"The learning curves are in {args.plot}")
    return padded, single, least


if __name__ == "__main__":
    main()
