"""Functions that a layer applies to its activation, element by element (``softmax``: row by row).

Each takes an expression of any rank and gives one of the same shape.  Those with parameters are
classes, whose instances are such functions.
"""

from __future__ import annotations

from typing import Any

import tinygraph.tensor as T
from tinygraph.gradient import disconnected_grad
from tinygraph.graph import describe


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), in [0, 1]."""
    return T.nnet.sigmoid(x)


def softmax(x: Any) -> Any:
    """exp(x) / sum(exp(x)) over the last axis: a vector, or the rows of a matrix (samples by
    classes), become probabilities that add up to 1.  The shape stays.

    Raises ValueError for a scalar and for integers.
    """
    x = T.as_tensor_variable(x)
    if x.ndim == 2:
        return T.nnet.softmax(x)
    if x.ndim == 0 or not x.type.dtype.is_float:
        raise ValueError(f"softmax needs an axis of floats to run over, not {describe(x)}")
    # The shift cancels, so no gradient need pass through the maximum.
    e = T.exp(x - disconnected_grad(T.max(x, axis=-1, keepdims=True)))
    return e / T.sum(e, axis=-1, keepdims=True)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent, in [-1, 1]."""
    return T.tanh(x)


class ScaledTanH:
    """scale_out * tanh(scale_in * x)  (LeCun et al. 1998, Efficient BackProp, section 4.4).

    They recommend scale_in = 2/3 and scale_out = 1.7159 for inputs and targets of variance 1:
    then 1 and -1 stay where they are.
    """

    def __init__(self, scale_in: float = 1, scale_out: float = 1) -> None:
        self.scale_in, self.scale_out = scale_in, scale_out

    def __call__(self, x: Any) -> Any:
        return T.tanh(x * self.scale_in) * self.scale_out


ScaledTanh = ScaledTanH


def rectify(x: Any) -> Any:
    """max(0, x); the slope at 0 is 1/2  (Glorot, Bordes and Bengio 2011)."""
    return T.nnet.relu(x)


class LeakyRectify:
    """x for x > 0, else ``leakiness`` * x; the slope at 0 is the mean of both
    (Maas, Hannun and Ng 2013).

    leakiness: a number, normally between 0 (``rectify``) and 1 (``linear``).
    """

    def __init__(self, leakiness: float = 0.01) -> None:
        self.leakiness = leakiness

    def __call__(self, x: Any) -> Any:
        return T.nnet.relu(x, self.leakiness)


leaky_rectify = LeakyRectify(0.01)
very_leaky_rectify = LeakyRectify(1 / 3)


def elu(x: Any) -> Any:
    """x for x > 0, else exp(x) - 1  (Clevert, Unterthiner and Hochreiter 2015,
    arXiv:1511.07289)."""
    return T.nnet.elu(x)


class SELU:
    """scale * x for x > 0, else scale * scale_neg * (exp(x) - 1)  (Klambauer, Unterthiner, Mayr
    and Hochreiter 2017, arXiv:1706.02515)."""

    def __init__(self, scale: float = 1, scale_neg: float = 1) -> None:
        self.scale, self.scale_neg = scale, scale_neg

    def __call__(self, x: Any) -> Any:
        return self.scale * T.nnet.elu(x, self.scale_neg)


# With these two numbers, mean 0 and variance 1 are a fixed point (equation 14 of the paper).
selu = SELU(scale=1.0507009873554804934193349852946, scale_neg=1.6732632423543772848170429916717)


def softplus(x: Any) -> Any:
    """log(1 + exp(x))."""
    return T.nnet.softplus(x)


def hard_sigmoid(x: Any) -> Any:
    """clip(0.2 x + 0.5, 0, 1): three straight lines in the place of a sigmoid."""
    return T.nnet.hard_sigmoid(x)


def swish(x: Any) -> Any:
    """x sigmoid(x)  (Ramachandran, Zoph and Le 2017, arXiv:1710.05941)."""
    return T.nnet.swish(x)


silu = swish


def gelu(x: Any) -> Any:
    """x times the normal distribution function of x  (Hendrycks and Gimpel 2016,
    arXiv:1606.08415)."""
    return T.nnet.gelu(x)


def linear(x: Any) -> Any:
    """x."""
    return x


identity = linear
