"""A closed loop: LSTM cells steer a double pendulum, and learn it through the pendulum.

    python examples/pendulum.py

The motor of the lower joint is to act as a spring and a damper, of which the network knows only
the angles that they lead to.  One step of the loop reads the state, asks the network for the
acceleration and moves the pendulum; the gradient goes back through all of it, dynamics included.
First with one pendulum at a time, then with a batch of them.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from tqdm import tqdm

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as rnn
from tinygraph_rnn.cells import LSTM, Layer, StackedCells, create_optimization_updates
from tinygraph_rnn.tasks import Pendulum, pendulum_batch


def dynamics(x: Any, u: Any, p: Pendulum) -> Any:
    """The state after ``x``, (4,) or (4, batch), with the lower angle accelerated by ``u``."""
    swing = p.mass_2 * p.length_1 * T.sin(x[2] - x[0])
    weight = (p.mass_1 + p.mass_2) * p.gravity
    cos = T.cos(x[2] - x[0])
    den1 = (p.mass_1 + p.mass_2) * p.length_1 - p.mass_2 * p.length_1 * cos ** 2
    den2 = p.length_2 / p.length_1 * den1
    dydx = T.zeros_like(x)
    dydx = T.set_subtensor(dydx[0], x[1])
    dydx = T.set_subtensor(dydx[1], (
        swing * x[1] ** 2 * cos + p.mass_2 * p.gravity * T.sin(x[2]) * cos
        + p.mass_2 * p.length_2 * x[3] ** 2 * T.sin(x[2] - x[0]) - weight * T.sin(x[0])) / den1)
    dydx = T.set_subtensor(dydx[2], x[3])
    dydx = T.set_subtensor(dydx[3], (
        -p.mass_2 * p.length_2 * x[3] ** 2 * T.sin(x[2] - x[0]) * cos
        + weight * T.sin(x[0]) * cos - (p.mass_1 + p.mass_2) / p.mass_2 * swing * x[1] ** 2
        - weight * T.sin(x[2])) / den2 + u)
    return x + dydx * p.dt


def build(args: argparse.Namespace, batch: bool) -> tuple[Any, Any]:
    """The functions train(start, path) -> cost and predict(start, steps) -> path.

    start: (4,), path: (steps, 4), or with ``batch`` (batch, 4) and (steps, batch, 4).
    """
    p = Pendulum()
    model = StackedCells(4, layers=[args.hidden] * args.layers, activation=T.tanh, celltype=LSTM)
    model.layers.append(Layer(args.hidden, 1, lambda z: 10 * T.tanh(z)))
    start = T.matrix("start") if batch else T.vector("start")
    path = T.tensor3("path") if batch else T.matrix("path")
    steps = T.iscalar("steps")

    def step(x: Any, *states: Any) -> list[Any]:
        new = model.forward(x, states)
        u = new[-1].T[0]  # one for each pendulum
        return [dynamics(x.T, u, p).T] + new[:-1]

    states = model.initial_states(start.shape[0] if batch else None)

    def walk(n: Any) -> Any:
        found, _ = tinygraph.scan(step, n_steps=n, outputs_info=[start, *states])
        return found[0]

    angles = walk(path.shape[0])[..., [0, 2]]
    cost = T.mean((angles - path[..., [0, 2]]) ** 2)
    updates, *_ = create_optimization_updates(
        cost, model.params, method="adadelta", eps=args.eps, max_norm=5.0)
    return (tinygraph.function([start, path], cost, updates=updates, name="train"),
            tinygraph.function([start, steps], walk(steps), name="predict"))


def learn(args: argparse.Namespace, batch: bool) -> tuple[list[float], Any]:
    """The cost of every training step, and the function that predicts."""
    rnn.random.set_rng(args.seed)
    rng = np.random.default_rng(args.seed)
    train, predict = build(args, batch)
    costs = []
    bar = tqdm(range(args.steps), unit="step", desc="batch" if batch else "single", miniters=20)
    for _ in bar:
        start, path = pendulum_batch(args.batch if batch else 1, args.length, rng=rng)
        if not batch:
            start, path = start[0], path[:, 0]
        costs.append(float(train(start, path)))
        if len(costs) % 50 == 0:
            bar.set_postfix(cost=f"{np.mean(costs[-50:]):.2e}", refresh=False)
    return costs, predict


def plot(predict: Any, args: argparse.Namespace, path: str) -> None:
    """The lower angle of one pendulum, as wanted and as steered, as a picture file."""
    from matplotlib.figure import Figure

    start, wanted = pendulum_batch(args.batch, 2 * args.length, rng=args.seed + 1)
    given = predict(start, 2 * args.length)
    figure = Figure(figsize=(7, 4), layout="tight")
    axes = figure.subplots()
    for k, name in ((0, "upper"), (2, "lower")):
        axes.plot(wanted[:, 0, k], "o", markersize=3, label=f"{name} angle, wanted")
        axes.plot(given[:, 0, k], label=f"{name} angle, steered")
    axes.set(xlabel="step", ylabel="rad", title="A double pendulum, steered by LSTM cells")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> dict[str, list[float]]:
    """Run with command line arguments; returns the costs of the steps by kind of training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="training steps of each kind")
    parser.add_argument("--length", type=int, default=40, help="steps of a trajectory")
    parser.add_argument("--batch", type=int, default=20, help="pendulums of a batch")
    parser.add_argument("--hidden", type=int, default=20, help="units of a layer")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--eps", type=float, default=1e-5, help="of AdaDelta; larger is faster")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="write a picture to FILE")
    args = parser.parse_args(argv)
    results = {}
    for kind in ("single", "batch"):
        results[kind], predict = learn(args, kind == "batch")
        first, last = (np.mean(part) for part in (results[kind][:20], results[kind][-20:]))
        print(f"{kind}: mean cost of the first 20 steps {first:.3g}, of the last 20 {last:.3g}")
    if args.plot:
        plot(predict, args, args.plot)
        print(f"The picture is in {args.plot}")
    return results


if __name__ == "__main__":
    main()
