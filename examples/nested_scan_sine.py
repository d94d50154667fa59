"""A scan over examples around a scan over time: an Elman network follows two sine waves.

    python examples/nested_scan_sine.py

The network reads (sin t, cos t) step by step and gives the values of the step before, which it has
to remember.  Nothing here is a batch: the outer scan walks over the examples, and its step is the
whole inner scan.  The gradient goes through both; one call of the compiled function trains.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from tqdm import tqdm

import tinygraph
import tinygraph.tensor as T


def waves() -> tuple[np.ndarray, np.ndarray]:
    """Two examples, the second one step behind the first, and what to answer: both
    (2, 32, 2) of floatX, which is (example, time, sine and cosine)."""
    t = np.arange(0.0, 2 * np.pi, 0.2)
    wave = np.stack([np.sin(t), np.cos(t)], axis=1)
    inputs = np.stack([wave, np.roll(wave, 1, axis=0)]).astype(tinygraph.config.floatX)
    return inputs, np.roll(inputs, 1, axis=1)


def weights(rng: Any, rows: int, columns: int, name: str) -> Any:
    """A shared matrix whose largest singular value is 1."""
    values = rng.uniform(-1, 1, (rows, columns))
    values /= np.linalg.svd(values, compute_uv=False)[0]
    return tinygraph.shared(values.astype(tinygraph.config.floatX), name)


def build(hidden: int, rate: float, rng: Any) -> tuple[Any, Any]:
    """The functions train(inputs, answers) -> mean squared error, and predict(inputs)."""
    W_in, W_hid, W_out = (weights(rng, rows, columns, name) for rows, columns, name in (
        (2, hidden, "W_in"), (hidden, hidden, "W_hid"), (hidden, 2, "W_out")))
    b, c, h0 = (tinygraph.shared(np.zeros(size, tinygraph.config.floatX), name)
                for size, name in ((hidden, "b"), (2, "c"), (hidden, "h0")))

    def over_time(x_t: Any, h: Any) -> list[Any]:
        h = T.tanh(T.dot(x_t, W_in) + T.dot(h, W_hid) + b)
        return [h, T.dot(h, W_out) + c]

    def over_examples(x: Any) -> Any:
        (_, y), _ = tinygraph.scan(over_time, sequences=x, outputs_info=[h0, None])
        return y

    x, answers = T.tensor3("x"), T.tensor3("answers")
    y, _ = tinygraph.scan(over_examples, sequences=x)
    cost = T.mean((y - answers) ** 2)
    params = [W_in, W_hid, W_out, b, c, h0]
    updates = [(p, p - rate * g)
               for p, g in zip(params, tinygraph.grad(cost, params), strict=True)]
    return tinygraph.function([x, answers], cost, updates=updates), tinygraph.function([x], y)


def plot(answers: np.ndarray, outputs: np.ndarray, path: str) -> None:
    """What the network gives for the first example, as a picture file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="tight")
    axes = figure.subplots()
    for k, name in enumerate(("sine", "cosine")):
        axes.plot(answers[0, :, k], "o", markerfacecolor="none", label=f"{name}, wanted")
        axes.plot(outputs[0, :, k], label=f"{name}, given")
    axes.set(xlabel="step", title="A wave, one step late")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> float:
    """Run with command line arguments; returns the last cost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000, help="steps of gradient descent")
    parser.add_argument("--hidden", type=int, default=4, help="units of the state")
    parser.add_argument("--rate", type=float, default=0.1, help="the learning rate")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--plot", metavar="FILE", help="write a picture to FILE")
    args = parser.parse_args(argv)
    start = time.perf_counter()
    train, predict = build(args.hidden, args.rate, np.random.default_rng(args.seed))
    inputs, answers = waves()
    compiled = time.perf_counter() - start
    cost = float("nan")
    for _ in tqdm(range(args.steps), unit="step", miniters=100):
        cost = float(train(inputs, answers))
    total = time.perf_counter() - start
    print(f"cost {cost:.3g} after {args.steps} steps; {total:.1f} s, of which {compiled:.1f} s "
          "to compile")
    if args.plot:
        plot(answers, predict(inputs), args.plot)
        print(f"The picture is in {args.plot}")
    return cost


if __name__ == "__main__":
    main()
