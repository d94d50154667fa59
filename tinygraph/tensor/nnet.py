"""Functions of neural networks: nonlinearities and costs."""

from __future__ import annotations

from typing import Any

from tinygraph.dtypes import float32, float64
from tinygraph.errors import ShapeError
from tinygraph.graph import apply, describe
from tinygraph.ops.arithmetic import as_value, elementwise
from tinygraph.ops.control import Stop
from tinygraph.ops.sizes import iota
from tinygraph.tensor.indexing import getitem
from tinygraph.tensor.reductions import max_, sum_
from tinygraph.tensor.shaping import insert_axes
from tinygraph.tensor.variable import as_tensor_variable


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), without overflow."""
    return elementwise("sigmoid", as_tensor_variable(x))


ultra_fast_sigmoid = sigmoid


def hard_sigmoid(x: Any) -> Any:
    """clip(0.2 x + 0.5, 0, 1)."""
    x = as_tensor_variable(x).as_float() * 0.2 + 0.5
    return elementwise("minimum", elementwise("maximum", x, 0), 1)


def softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow."""
    return elementwise("softplus", as_tensor_variable(x))


def softsign(x: Any) -> Any:
    """x / (1 + |x|)."""
    x = as_tensor_variable(x)
    return x / (1 + abs(x))


def relu(x: Any, alpha: Any = 0) -> Any:
    """x where it is positive, alpha * x elsewhere; at 0 the slope is the mean of both."""
    x = as_tensor_variable(x)
    if not x.type.dtype.is_float:
        return elementwise("maximum", x, x * alpha)
    if isinstance(alpha, (int, float)) and alpha == 0:
        return 0.5 * (x + abs(x))
    return 0.5 * (1 + alpha) * x + 0.5 * (1 - alpha) * abs(x)


def elu(x: Any, alpha: Any = 1) -> Any:
    """x where it is positive, alpha * (exp(x) - 1) elsewhere (Clevert 2015, arXiv:1511.07289)."""
    x = as_tensor_variable(x).as_float()
    below = elementwise("expm1", elementwise("minimum", x, 0))
    return elementwise("switch", x > 0, x, alpha * below)


def selu(x: Any) -> Any:
    """The self-normalizing unit of Klambauer 2017 (arXiv:1706.02515)."""
    return 1.0507009873554805 * elu(x, 1.6732632423543772)


def _rows(x: Any, name: str) -> Any:
    """A float matrix; a vector is one row."""
    x = as_tensor_variable(x)
    if x.type.dtype not in (float32, float64):
        raise ValueError(f"{name} takes floats, not {describe(x)}")
    if x.ndim not in (1, 2):
        raise ValueError(f"{name} takes a vector or a matrix, not {describe(x)}; reshape it to a "
                         "matrix, or compute it with exp and sum over the axis you mean")
    return x if x.ndim == 2 else insert_axes(x, [0])


def _shifted(x: Any) -> Any:
    """``x`` less the largest entry of its row.  The shift cancels, so no gradient need pass."""
    return x - apply(Stop("disconnected"), max_(x, 1, keepdims=True))[0]


def softmax(x: Any) -> Any:
    """exp(x) / sum(exp(x)) per row of a matrix, without overflow; a vector of n gives (1, n).

    Raises ValueError for other ranks and for integers.
    """
    e = _shifted(_rows(x, "softmax")).exp()
    return e / sum_(e, 1, keepdims=True)


def logsoftmax(x: Any) -> Any:
    """log(softmax(x)), computed without the logarithm of a small number."""
    z = _shifted(_rows(x, "logsoftmax"))
    return z - sum_(z.exp(), 1, keepdims=True).log()


def binary_crossentropy(output: Any, target: Any) -> Any:
    """-(target log(output) + (1 - target) log(1 - output)), element by element."""
    output = as_tensor_variable(output)
    target = as_value(target, output)
    return -(target * output.log() + (1 - target) * (1 - output).log())


def sigmoid_binary_crossentropy(output: Any, target: Any) -> Any:
    """binary_crossentropy(sigmoid(output), target), without overflow."""
    output = as_tensor_variable(output)
    return softplus(output) - output * as_value(target, output)


def categorical_crossentropy(coding_dist: Any, true_dist: Any) -> Any:
    """The cost of coding ``true_dist`` by ``coding_dist``, per row.

    true_dist is a distribution of the same shape, -sum(true log(coding)) over the last axis; or an
    integer vector of classes, one per row of the matrix: -log(coding[i, true[i]]).
    """
    p = as_tensor_variable(coding_dist)
    t = as_tensor_variable(true_dist)
    if t.ndim == p.ndim:
        return -sum_(t * p.log(), p.ndim - 1)
    if t.ndim != 1 or p.ndim != 2 or not t.type.dtype.is_int:
        raise TypeError(
            f"categorical_crossentropy takes a matrix with an integer vector, or two of one rank, "
            f"not {describe(p)} and {describe(t)}")
    rows, classes = p.type.dims[0].const, t.type.dims[0].const
    if rows is not None and classes is not None and rows != classes:
        raise ShapeError(f"{describe(p)} has {rows} rows, but {describe(t)} has {classes} entries")
    index = iota(p.type.dims[0], cls=type(p).result_class())
    return -getitem(p, (index, t)).log()
