"""Ops of your own: in Python, with a gradient, and as an expression that is compiled.

    python examples/write_an_op.py
"""

from __future__ import annotations

import numpy as np

import tinygraph
import tinygraph.tensor as T
from tinygraph import gof


class SortRows(gof.Op):
    """The rows of a matrix, each sorted: NumPy does the work, inside compiled code."""

    __props__ = ()  # two of these are the same op

    def infer(self, x):
        return x.type, ("int64", x.shape)  # the sorted rows, and where their elements were

    def perform(self, node, inputs, output_storage):
        order = np.argsort(inputs[0], axis=1, kind="stable")
        output_storage[0][0] = np.take_along_axis(inputs[0], order, axis=1)
        output_storage[1][0] = order

    def grad(self, inputs, output_gradients):
        return [PutBack()(output_gradients[0], self(*inputs)[1])]


class PutBack(gof.Op):
    """The gradient of SortRows: every element goes back to where it was."""

    __props__ = ()

    def infer(self, g, order):
        return g.type

    def perform(self, node, inputs, output_storage):
        g, order = inputs
        output_storage[0][0] = back = np.empty_like(g)
        np.put_along_axis(back, order, g, axis=1)


# An elementwise function needs no Python at run time: it is compiled with what is around it.
# This one is the identity rounded to quarters, whose gradient is taken to be 1.
quarters = tinygraph.elementwise_op(
    "quarters", lambda x: T.round(x * 4) / 4, grad=lambda x, out, g: g)


def main() -> None:
    """Print values and gradients."""
    x = T.matrix("x")
    rows, _ = SortRows()(T.tanh(x))
    cost = (rows * T.arange(3)).sum()
    f = tinygraph.function([x], [rows, tinygraph.grad(cost, x)])
    values, slopes = f([[3.0, 1.0, 2.0], [0.0, -1.0, 5.0]])
    print("sorted:", values.round(3), "gradient:", slopes.round(3), sep="\n")

    # The same ops in a loop: each step sorts, and the gradient goes through all of them.
    states, _ = tinygraph.scan(lambda h: SortRows()(h * h)[0], outputs_info=x, n_steps=3)
    g = tinygraph.function([x], tinygraph.grad(states[-1].sum(), x))
    print("through a loop:", g([[0.5, 1.0, -1.0]]))

    y = quarters(x)
    h = tinygraph.function([x], [y, tinygraph.grad((y ** 2).sum(), x)])
    print("quarters:", *h([[0.125, 0.25, 0.625]]))


if __name__ == "__main__":
    main()
