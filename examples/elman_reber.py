"""An Elman network learns the Reber grammar, and writes words of it.

    python examples/elman_reber.py

After each symbol of a word the network (Elman 1990, Finding structure in time) says which symbols
may come next.  It reads one word per step of gradient descent.  Then a loop that feeds it symbols
drawn by itself, and that ends with the symbol E, writes words.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from tqdm import tqdm

import tinygraph
import tinygraph.tensor as T
from tinygraph.scan_module import until
from tinygraph.tensor.shared_randomstreams import RandomStreams
from tinygraph_rnn.tasks import REBER, reber

SYMBOLS = len(reber.SYMBOLS)


def weights(rng: Any, rows: int, columns: int, name: str) -> Any:
    """A shared matrix whose largest singular value is 1: behind tanh, a state of this matrix
    neither explodes nor vanishes at once."""
    values = rng.uniform(-1, 1, (rows, columns))
    values /= np.linalg.svd(values, compute_uv=False)[0]
    return tinygraph.shared(values.astype(tinygraph.config.floatX), name)


def zeros(size: int, name: str) -> Any:
    """A shared vector of zeros."""
    return tinygraph.shared(np.zeros(size, tinygraph.config.floatX), name)


class Elman:
    """h = tanh(x W_in + h' W_hid + b), y = sigmoid(h W_out + c);  h': one step earlier.  The
    state before the first step is learnt, too."""

    def __init__(self, hidden: int, rng: Any) -> None:
        self.W_in = weights(rng, SYMBOLS, hidden, "W_in")
        self.W_hid = weights(rng, hidden, hidden, "W_hid")
        self.W_out = weights(rng, hidden, SYMBOLS, "W_out")
        self.b, self.c, self.h0 = zeros(hidden, "b"), zeros(SYMBOLS, "c"), zeros(hidden, "h0")
        self.params = [self.W_in, self.W_hid, self.W_out, self.b, self.c, self.h0]

    def step(self, x: Any, h: Any) -> list[Any]:
        """The state after reading ``x``, and the argument of the sigmoid."""
        h = T.tanh(T.dot(x, self.W_in) + T.dot(h, self.W_hid) + self.b)
        return [h, T.dot(h, self.W_out) + self.c]

    def predict(self, x: Any) -> Any:
        """The outputs after each row of ``x``, (time, symbols)."""
        (_, scores), _ = tinygraph.scan(self.step, sequences=x, outputs_info=[self.h0, None])
        return T.nnet.sigmoid(scores)

    def write(self, seed: int, longest: int) -> tuple[Any, Any]:
        """The symbols of a word, (time, symbols), and the updates of its random numbers."""
        random = RandomStreams(seed)

        def step(x: Any, h: Any) -> tuple[list[Any], Any]:
            h, score = self.step(x, h)
            y = T.nnet.sigmoid(score)
            drawn = T.cast(random.multinomial(n=1, pvals=y / T.sum(y)), x.dtype)
            return [drawn, h], until(drawn[reber.SYMBOLS.index("E")] > 0.99)

        start = T.constant(reber.one_hot("B")[0])
        (symbols, _), updates = tinygraph.scan(
            step, outputs_info=[start, self.h0], n_steps=longest)
        return symbols, updates


def training(network: Elman, rate: float) -> Any:
    """The function train(inputs, allowed next symbols) -> cost of one word."""
    x, target = T.matrix("x"), T.matrix("target")
    each = T.nnet.binary_crossentropy(network.predict(x), target)
    cost = T.mean(T.sum(each, axis=1))
    grads = tinygraph.grad(cost, network.params)
    updates = [(p, p - rate * g) for p, g in zip(network.params, grads, strict=True)]
    return tinygraph.function([x, target], cost, updates=updates)


def learn(train: Any, args: argparse.Namespace, rng: Any) -> list[float]:
    """The mean cost of each epoch; every epoch draws words from the same set."""
    data = REBER.examples(args.words, rng=rng)
    costs = []
    bar = tqdm(range(args.epochs), unit="epoch")
    for _ in bar:
        total = 0.0
        for k in rng.integers(len(data), size=len(data)):
            total += float(train(*data[k]))
        costs.append(total / len(data))
        bar.set_postfix(cost=f"{costs[-1]:.4f}")
    return costs


def show_predictions(network: Elman, word: str) -> None:
    """Print what the network expects after each symbol, beside what may come."""
    word = word[:-1]  # nothing comes after the last
    x = T.matrix("x")
    predict = tinygraph.function([x], network.predict(x))
    print(f"after   {'    '.join(reber.SYMBOLS)}     may come")
    for symbol, p, allowed in zip(
            word, predict(reber.one_hot(word)), REBER.allowed(word), strict=True):
        names = "".join(s for s, a in zip(reber.SYMBOLS, allowed, strict=True) if a)
        print(f"{symbol:5}", " ".join(f"{v:.2f}" for v in p), "   ", names)


def write_words(network: Elman, args: argparse.Namespace) -> list[str]:
    """Words that the network writes, printed with what the grammar says of them."""
    symbols, updates = network.write(args.seed, longest=1000)
    write = tinygraph.function([], symbols, updates=updates)
    words = ["B" + reber.as_word(write()) for _ in range(args.samples)]
    for word in words[:10]:
        print(f"{word:20}", "in the grammar" if word in REBER else "NOT in the grammar")
    right = sum(word in REBER for word in words)
    print(f"{right} of {len(words)} words are in the grammar")
    return words


def plot(costs: list[float], path: str) -> None:
    """The learning curve as a picture file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="tight")
    axes = figure.subplots()
    axes.semilogy(np.arange(1, len(costs) + 1), costs, "o-")
    axes.set(xlabel="epochs", ylabel="cross entropy", title="An Elman network, Reber grammar")
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> tuple[list[float], list[str]]:
    """Run with command line arguments; returns the costs of the epochs and the words written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--words", type=int, default=1000, help="words an epoch")
    parser.add_argument("--hidden", type=int, default=10, help="units of the state")
    parser.add_argument("--rate", type=float, default=0.2, help="the learning rate")
    parser.add_argument("--samples", type=int, default=100, help="words to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="write the learning curve to FILE")
    args = parser.parse_args(argv)
    rng = np.random.default_rng(args.seed)
    network = Elman(args.hidden, rng)
    costs = learn(training(network, args.rate), args, rng)
    print(f"cost of the first epoch {costs[0]:.4f}, of the last {costs[-1]:.4f}")
    show_predictions(network, REBER.word(min_length=10, rng=rng))
    words = write_words(network, args)
    if args.plot:
        plot(costs, args.plot)
        print(f"The learning curve is in {args.plot}")
    return costs, words


if __name__ == "__main__":
    main()
