"""Functions of neural networks: nonlinearities, costs and convolutions."""

from __future__ import annotations

from typing import Any

from tinygraph.dtypes import float32, float64, int64
from tinygraph.errors import ShapeError
from tinygraph.graph import apply, describe
from tinygraph.ops.arithmetic import as_value, broadcast_to, elementwise
from tinygraph.ops.control import Stop
from tinygraph.ops.sizes import iota
from tinygraph.tensor.conv import conv1d, conv2d, conv2d_transpose, conv3d
from tinygraph.tensor.indexing import getitem
from tinygraph.tensor.linalg import batched_dot, dot, tensordot
from tinygraph.tensor.nnet import abstract_conv, bn, conv, neighbours
from tinygraph.tensor.nnet.bn import batch_normalization
from tinygraph.tensor.reductions import argmax, max_, sum_
from tinygraph.tensor.selection import unique
from tinygraph.tensor.shaping import concatenate, insert_axes, reshape
from tinygraph.tensor.variable import as_tensor_variable

__all__ = [
    "abstract_conv", "batch_normalization", "binary_crossentropy", "bn",
    "categorical_crossentropy", "confusion_matrix", "conv", "conv1d", "conv2d",
    "conv2d_transpose", "conv3d", "crossentropy_categorical_1hot", "crossentropy_softmax_1hot",
    "crossentropy_softmax_1hot_with_bias", "crossentropy_softmax_argmax_1hot_with_bias",
    "crossentropy_softmax_max_and_argmax_1hot",
    "crossentropy_softmax_max_and_argmax_1hot_with_bias", "elu", "gelu", "h_softmax",
    "hard_sigmoid", "log_softmax", "logsoftmax", "neighbours", "prepend_0_to_each_row",
    "prepend_1_to_each_row", "prepend_scalar_to_each_row", "relu", "selu", "sigmoid",
    "sigmoid_binary_crossentropy", "softmax", "softmax_crossentropy", "softmax_graph",
    "softmax_with_bias", "softplus", "softsign", "swish", "ultra_fast_sigmoid",
]


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
    below = 0 if isinstance(alpha, (int, float)) and alpha == 0 else alpha * x
    # 0 has a branch of its own for its slope; no branch overflows or cancels digits.
    inner = elementwise("switch", x < 0, below, 0.5 * (1 + alpha) * x)
    return elementwise("switch", x > 0, x, inner)


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


log_softmax = logsoftmax
softmax_graph = softmax


def softmax_with_bias(x: Any, b: Any) -> Any:
    """softmax(x + b) of a matrix and a vector."""
    return softmax(as_tensor_variable(x) + as_tensor_variable(b))


def swish(x: Any, beta: Any = 1) -> Any:
    """x sigmoid(beta x) (Ramachandran 2017, arXiv:1710.05941)."""
    x = as_tensor_variable(x).as_float()
    return x * elementwise("sigmoid", x * beta)


def gelu(x: Any) -> Any:
    """x times the normal distribution function of x (Hendrycks 2016, arXiv:1606.08415)."""
    x = as_tensor_variable(x).as_float()
    return 0.5 * x * (1 + elementwise("erf", x * 0.7071067811865476))


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


def crossentropy_categorical_1hot(coding_dist: Any, true_one_of_n: Any) -> Any:
    """-log(coding_dist[i, true_one_of_n[i]]) per row i."""
    return categorical_crossentropy(coding_dist, true_one_of_n)


def softmax_crossentropy(x: Any, classes: Any) -> Any:
    """categorical_crossentropy(softmax(x), classes), without overflow: classes are integers, one
    per row of the matrix ``x``, or a distribution of its shape."""
    z = logsoftmax(x)
    classes = as_tensor_variable(classes)
    if classes.ndim == z.ndim:
        return -sum_(classes * z, 1)
    if classes.ndim != 1 or not classes.type.dtype.is_int:
        raise TypeError(f"softmax_crossentropy takes an integer per row, or a distribution, not "
                        f"{describe(classes)}")
    index = iota(z.type.dims[0], cls=type(z).result_class())
    return -getitem(z, (index, classes))


def crossentropy_softmax_1hot(x: Any, y_idx: Any) -> tuple[Any, Any]:
    """softmax_crossentropy(x, y_idx), and softmax(x)."""
    return softmax_crossentropy(x, y_idx), softmax(x)


def crossentropy_softmax_1hot_with_bias(x: Any, b: Any, y_idx: Any) -> tuple[Any, Any]:
    """crossentropy_softmax_1hot of x + b, a matrix and a vector."""
    return crossentropy_softmax_1hot(as_tensor_variable(x) + as_tensor_variable(b), y_idx)


def crossentropy_softmax_argmax_1hot_with_bias(x: Any, b: Any, y_idx: Any
                                               ) -> tuple[Any, Any, Any]:
    """crossentropy_softmax_1hot_with_bias, and the most probable class of each row."""
    cost, probabilities = crossentropy_softmax_1hot_with_bias(x, b, y_idx)
    return cost, probabilities, argmax(probabilities, 1)


def h_softmax(x: Any, batch_size: Any, n_outputs: Any, n_classes: int, n_outputs_per_class: int,
              W1: Any, b1: Any, W2: Any, b2: Any, target: Any = None) -> Any:
    """A softmax in two levels (Goodman 2001, arXiv:cs/0108006): of classes, then within a class.

    x (batch, features); W1 (features, n_classes), b1 (n_classes,); W2 (n_classes, features,
    n_outputs_per_class), b2 (n_classes, n_outputs_per_class); n_outputs at most n_classes *
    n_outputs_per_class.  Returns the probability of every output, (batch, n_outputs), or of the
    outputs ``target`` (batch,), which costs little.
    """
    x, W2, b2 = as_tensor_variable(x), as_tensor_variable(W2), as_tensor_variable(b2)
    classes = softmax(dot(x, as_tensor_variable(W1)) + b1)
    if target is None:
        inside = tensordot(x, W2, ((1,), (1,))) + b2
        rows = reshape(inside, (-1, n_outputs_per_class))
        both = reshape(softmax(rows), (batch_size, n_classes, n_outputs_per_class))
        joint = reshape(both * insert_axes(classes, [2]), (batch_size, -1))
        return joint[:, :n_outputs]
    target = as_tensor_variable(target)
    if target.ndim == 2:
        target = reshape(target, (-1,))
    group, place = target // n_outputs_per_class, target % n_outputs_per_class
    inside = softmax(batched_dot(x, W2[group]) + b2[group])
    index = iota(x.type.dims[0], cls=type(x).result_class())
    return classes[index, group] * inside[index, place]


def crossentropy_softmax_max_and_argmax_1hot_with_bias(x: Any, b: Any, y_idx: Any
                                                       ) -> tuple[Any, Any, Any, Any]:
    """crossentropy_softmax_1hot_with_bias, the largest probability of each row and its class."""
    cost, probabilities = crossentropy_softmax_1hot_with_bias(x, b, y_idx)
    return cost, probabilities, max_(probabilities, 1), argmax(probabilities, 1)


def crossentropy_softmax_max_and_argmax_1hot(x: Any, y_idx: Any) -> tuple[Any, Any, Any, Any]:
    """crossentropy_softmax_1hot, the largest probability of each row and its class."""
    return crossentropy_softmax_max_and_argmax_1hot_with_bias(x, 0, y_idx)


def confusion_matrix(actual: Any, pred: Any) -> list[Any]:
    """How often each class (rows) was taken for each class (columns), int64, and the classes in
    order: those that occur in one of the two integer vectors."""
    actual, pred = as_tensor_variable(actual), as_tensor_variable(pred)
    for v in (actual, pred):
        if v.ndim != 1:
            raise ValueError(f"confusion_matrix takes two vectors, not {describe(v)}")
    classes = unique(concatenate([actual, pred]))
    hits = [elementwise("eq", insert_axes(v, [1]), classes).cast(int64) for v in (actual, pred)]
    return [dot(hits[0].T, hits[1]), classes]


def prepend_scalar_to_each_row(value: Any, x: Any) -> Any:
    """The matrix ``x`` with a first column of ``value``."""
    x = as_tensor_variable(x)
    column = broadcast_to(as_value(value, x).cast(x.type.dtype), [x.type.dims[0], 1])
    return concatenate([column, x], 1)


def prepend_1_to_each_row(x: Any) -> Any:
    """The matrix ``x`` with a first column of ones."""
    return prepend_scalar_to_each_row(1, x)


def prepend_0_to_each_row(x: Any) -> Any:
    """The matrix ``x`` with a first column of zeros."""
    return prepend_scalar_to_each_row(0, x)
