"""Functions of one variable that a layer applies to its activation."""

from __future__ import annotations

from typing import Any

import tinygraph.tensor as T


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return T.nnet.sigmoid(x)


def softmax(x: Any) -> Any:
    """exp(x) / sum(exp(x)) over the last axis of a matrix (rows are samples)."""
    return T.nnet.softmax(x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return T.tanh(x)


def rectify(x: Any) -> Any:
    """max(0, x)  (Glorot, Bordes and Bengio 2011)."""
    return T.nnet.relu(x)


def elu(x: Any) -> Any:
    """x for x > 0, else exp(x) - 1  (Clevert, Unterthiner and Hochreiter 2015)."""
    return T.switch(x > 0, x, T.expm1(T.minimum(x, 0)))


def softplus(x: Any) -> Any:
    """log(1 + exp(x))."""
    return T.nnet.softplus(x)


def identity(x: Any) -> Any:
    """x."""
    return x


linear = identity


class LeakyRectify:
    """x for x > 0, else ``leakiness`` * x  (Maas, Hannun and Ng 2013)."""

    def __init__(self, leakiness: float = 0.01) -> None:
        self.leakiness = leakiness

    def __call__(self, x: Any) -> Any:
        return T.nnet.relu(x, self.leakiness)


leaky_rectify = LeakyRectify(0.01)
very_leaky_rectify = LeakyRectify(1 / 3)


class ScaledTanH:
    """scale_out * tanh(scale_in * x)  (LeCun et al. 1998, Efficient BackProp, section 4.4)."""

    def __init__(self, scale_in: float = 1, scale_out: float = 1) -> None:
        self.scale_in, self.scale_out = scale_in, scale_out

    def __call__(self, x: Any) -> Any:
        return T.tanh(x * self.scale_in) * self.scale_out


ScaledTanh = ScaledTanH
