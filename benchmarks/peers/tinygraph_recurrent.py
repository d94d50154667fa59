"""Plain LSTM and GRU on tinygraph: a scan as its users write it."""

from __future__ import annotations

from typing import Any

from problem import Problem
from tinygraph_common import VERSION, Model, Training, shared

import tinygraph.tensor as T
from tinygraph import scan

__all__ = ["VERSION", "Workload"]


class Workload(Training):
    """Training steps, or inference of the last state."""

    def model(self, problem: Problem) -> Model:
        params = shared(problem)
        W, U, b = params["W"], params["U"], params["b"]
        hidden = len(problem.parameters["U"])
        X = T.tensor3("X")

        def parts(x: Any) -> list[Any]:
            count = problem.parameters["b"].size // hidden
            return [x[:, k * hidden:(k + 1) * hidden] for k in range(count)]

        def lstm(x: Any, h: Any, c: Any) -> list[Any]:
            i, f, g, o = parts(T.dot(x, W) + T.dot(h, U) + b)
            c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
            return [T.nnet.sigmoid(o) * T.tanh(c), c]

        def gru(x: Any, h: Any) -> list[Any]:
            (xr, xz, xn), (hr, hz, hn) = parts(T.dot(x, W) + b), parts(T.dot(h, U))
            z = T.nnet.sigmoid(xz + hz)
            return [(1 - z) * h + z * T.tanh(xn + T.nnet.sigmoid(xr + hr) * hn)]

        step, states = {"lstm": (lstm, 2), "gru": (gru, 1)}[problem.options["cell"]]
        zero = T.zeros((X.shape[1], hidden))
        outs, _ = scan(step, sequences=X, outputs_info=[zero] * states, return_list=True)
        last = outs[0][-1]
        result = last if problem.options["update"] == "none" else (last ** 2).mean()
        return Model({"X": X}, result, params)
