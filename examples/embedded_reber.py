"""The embedded Reber grammar: an Elman network guesses, an LSTM remembers.

    python examples/embedded_reber.py

The last symbol but one of a word equals its second symbol, and between the two stands a word of
the Reber grammar, which tells nothing about it (Hochreiter and Schmidhuber 1997, experiment 1).
Both networks are trained in the same way, one word per step of gradient descent.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from tqdm import tqdm

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as rnn
from tinygraph_rnn.cells import LSTM, RNN, Layer, StackedCells
from tinygraph_rnn.tasks import EMBEDDED_REBER, reber

SYMBOLS = len(reber.SYMBOLS)
NETWORKS = {"Elman": RNN, "LSTM": LSTM}


def build(celltype: Any, args: argparse.Namespace) -> tuple[Any, Any]:
    """The functions train(inputs, allowed next symbols) -> cost and predict(inputs)."""
    model = StackedCells(SYMBOLS, celltype, [args.hidden], T.tanh)
    model.layers.append(Layer(args.hidden, SYMBOLS, lambda z: z))
    x, target = T.matrix("x"), T.matrix("target")

    def step(x_t: Any, state: Any) -> list[Any]:
        return model.forward(x_t, [state])

    (_, scores), _ = tinygraph.scan(
        step, sequences=x, outputs_info=[model.layers[0].initial_hidden_state, None])
    y = T.nnet.sigmoid(scores)
    cost = T.mean(T.nnet.binary_crossentropy(y, target))
    updates = rnn.updates.adam(cost, model.params, learning_rate=args.rate)
    return tinygraph.function([x, target], cost, updates=updates), tinygraph.function([x], y)


def remembered(predict: Any, examples: list[Any]) -> float:
    """In which part of the examples the network tells the last symbol but one: of the two symbols
    that it may be, the right one has the larger output."""
    marks = [reber.SYMBOLS.index(s) for s in "TP"]
    right = [np.argmax(predict(x)[-2][marks]) == np.argmax(target[-2][marks])
             for x, target in examples]
    return float(np.mean(right))


def learn(name: str, args: argparse.Namespace) -> list[float]:
    """Train the network; how much it remembers of new words before training and after every
    epoch."""
    rnn.random.set_rng(args.seed)
    rng = np.random.default_rng(args.seed)
    data = EMBEDDED_REBER.examples(args.words, args.min_length, rng)
    new = EMBEDDED_REBER.examples(500, args.min_length, rng)
    train, predict = build(NETWORKS[name], args)
    curve = [remembered(predict, new)]
    bar = tqdm(range(args.epochs), unit="epoch", desc=name)
    for _ in bar:
        for k in rng.integers(len(data), size=len(data)):
            train(*data[k])
        curve.append(remembered(predict, new))
        bar.set_postfix(remembered=f"{curve[-1]:.1%}")
    return curve


def plot(curves: dict[str, list[float]], path: str) -> None:
    """How much each network remembers, epoch by epoch, as a picture file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="tight")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(curve, label=name)
    axes.axhline(0.5, color="0.5", linestyle=":", label="guessing")
    axes.set(xlabel="epochs", ylabel="last symbol but one told", ylim=(0, 1.05),
             title="Embedded Reber grammar")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> dict[str, list[float]]:
    """Run with command line arguments; returns the curve of each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--words", type=int, default=1000, help="words an epoch")
    parser.add_argument("--min-length", type=int, default=10, help="symbols of a word")
    parser.add_argument("--hidden", type=int, default=10, help="units of the state")
    parser.add_argument("--rate", type=float, default=0.01, help="the learning rate of Adam")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="write a picture to FILE")
    args = parser.parse_args(argv)
    curves = {}
    for name in NETWORKS:
        start = time.perf_counter()
        curves[name] = learn(name, args)
        print(f"{name}: {curves[name][-1]:.1%} of the last symbols but one are right, after "
              f"{time.perf_counter() - start:.1f} s")
    if args.plot:
        plot(curves, args.plot)
        print(f"The picture is in {args.plot}")
    return curves


if __name__ == "__main__":
    main()
