"""The ideas one at a time: variables, functions, gradients, shared state, loops, a look inside.

    python examples/symbolic_basics.py
"""

from __future__ import annotations

import numpy as np

import tinygraph
import tinygraph.tensor as T


def main() -> None:
    """Print what every idea gives."""
    # A variable stands for data to come; an expression of variables computes nothing yet.
    x = T.matrix("x")
    w = T.vector("w")
    y = T.tanh(T.dot(x, w))

    # function compiles; one compiled function serves every batch size.
    f = tinygraph.function([x, w], y)
    print("tanh(x w):", f([[1.0, 2.0]], [0.5, -0.5]), f(np.ones((3, 2), "float32"), [1.0, 0.0]))

    # grad gives an expression like any other: it can be compiled, or differentiated again.
    cost = T.mean(y ** 2)
    slope = tinygraph.grad(cost, w)
    curvature = tinygraph.grad(T.sum(slope), w)
    g = tinygraph.function([x, w], [cost, slope, curvature])
    print("cost, gradient, its gradient:", *g([[1.0, 2.0], [0.0, 1.0]], [0.5, -0.5]))

    # A shared variable keeps its value between calls; updates change it after the call.
    weights = tinygraph.shared([0.0, 0.0], name="weights")
    target = T.vector("target")
    error = T.mean((T.dot(x, weights) - target) ** 2)
    step = tinygraph.function(
        [x, target], error,
        updates={weights: weights - 0.1 * tinygraph.grad(error, weights)})
    data, answers = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [2.0, -1.0, 1.0]
    errors = [float(step(data, answers)) for _ in range(100)]
    print(f"error {errors[0]:.3f} -> {errors[-1]:.6f}, weights {weights.get_value()}")

    # scan is a loop: here a linear recurrence, h_t = a h_{t-1} + s_t, and its gradient.
    s = T.vector("s")
    a = T.scalar("a")
    states, _ = tinygraph.scan(lambda now, h: a * h + now, sequences=s,
                               outputs_info=T.zeros(()))
    last = tinygraph.function([s, a], [states, tinygraph.grad(states[-1], a)])
    print("states, d last / d a:", *last([1.0, 1.0, 1.0, 1.0], 0.5))

    # report says what the compiler made of it.
    print(last.report())


if __name__ == "__main__":
    main()
