"""W6 on tinygraph, as a notebook would write it."""

from __future__ import annotations

from typing import Any

from problem import Problem
from tinygraph_common import VERSION, Model, Training, shared

import tinygraph.tensor as T
from tinygraph import scan

__all__ = ["VERSION", "Workload"]


class Workload(Training):
    """Training steps on one string each."""

    def model(self, problem: Problem) -> Model:
        params = shared(problem)
        W_ih, W_hh, b_h, h0, W_ho, b_o = (
            params[k] for k in ("W_ih", "W_hh", "b_h", "h0", "W_ho", "b_o"))
        v, target = T.matrix("v"), T.matrix("target")

        def step(x: Any, h: Any) -> list[Any]:
            h = T.tanh(T.dot(x, W_ih) + T.dot(h, W_hh) + b_h)
            return [h, T.nnet.sigmoid(T.dot(h, W_ho) + b_o)]

        (_, y), _ = scan(step, sequences=v, outputs_info=[h0, None])
        cost = -T.mean(target * T.log(y) + (1 - target) * T.log(1 - y))
        return Model({"v": v, "target": target}, cost, params)
