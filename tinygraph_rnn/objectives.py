"""Losses and accuracies, one number per element or per sample; ``aggregate`` or ``.mean()`` makes
the scalar cost.

Predictions and targets are expressions of as many axes.  A vector of targets beside predictions
of one column, (n, 1), counts as a column; any other difference in rank is refused, because it
would be a loss of everything against everything.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygraph.tensor as T
from tinygraph.graph import describe
from tinygraph_rnn.utils import as_theano_expression

_NUMBERS = (int, float, np.generic)


def align_targets(predictions: Any, targets: Any) -> tuple[Any, Any]:
    """Both as expressions; targets (n,) as a column (n, 1) if that is the shape of predictions.

    A number, or an expression without axes, is left as it is.  Raises TypeError where the numbers
    of axes differ otherwise.
    """
    both: list[Any] = [v if isinstance(v, _NUMBERS) else as_theano_expression(v)
                       for v in (predictions, targets)]
    ranks = [0 if isinstance(v, _NUMBERS) else v.ndim for v in both]
    p, t = both
    if ranks == [2, 1] and p.broadcastable[1]:
        return p, t.dimshuffle(0, "x")
    if 0 in ranks or ranks[0] == ranks[1]:
        return p, t
    raise TypeError(
        f"predictions and targets must have the same shape, but {describe(p)} has {ranks[0]} axes "
        f"and {describe(t)} has {ranks[1]}; write .flatten() for a vector, or .dimshuffle(0, 'x') "
        "for a column")


def squared_error(a: Any, b: Any) -> Any:
    """(a - b)^2, of the shape of a and b."""
    a, b = align_targets(a, b)
    return (a - b) ** 2


def absolute_error(a: Any, b: Any) -> Any:
    """|a - b|, of the shape of a and b."""
    a, b = align_targets(a, b)
    return abs(a - b)


def binary_crossentropy(predictions: Any, targets: Any) -> Any:
    """-t log p - (1 - t) log(1 - p), of the shape of the predictions p, which lie in (0, 1).

    Of p = sigmoid(x) it is computed from x, so that a p that rounds to 0 or 1 does no harm.
    """
    predictions, targets = align_targets(predictions, targets)
    return T.nnet.binary_crossentropy(predictions, targets)


def categorical_crossentropy(predictions: Any, targets: Any) -> Any:
    """-sum t log p over the last axis: one number per sample.

    predictions: (..., classes), probabilities that add up to 1 over the last axis.
    targets: integers (...), the number of the class, which must be below ``classes`` (IndexError
    in the call); or probabilities (..., classes).
    Of p = softmax(x) it is computed from x, so that a p that rounds to 0 does no harm.
    Raises TypeError for targets of another rank, or class numbers that are no integers.
    """
    p, t = _classes(predictions, targets)
    return -T.sum(t * T.log(p), axis=-1) if t.ndim == p.ndim else -T.log(_chosen(p, t))


def _classes(predictions: Any, targets: Any) -> tuple[Any, Any]:
    """Predictions (..., classes), and targets of that rank or integers (...)."""
    p, t = as_theano_expression(predictions), as_theano_expression(targets)
    if p.ndim == 0 or t.ndim not in (p.ndim, p.ndim - 1):
        raise TypeError(f"targets must be class numbers, of one axis less than the predictions, or "
                        f"have the shape of the predictions; {describe(p)} has {p.ndim} axes and "
                        f"{describe(t)} has {t.ndim}")
    if t.ndim < p.ndim and not t.type.dtype.is_int:
        raise TypeError(f"targets of one axis less than the predictions are class numbers, and so "
                        f"integers, but {describe(t)} is not; write T.cast(targets, 'int32')")
    if t.ndim < p.ndim:
        for k in range(t.ndim):
            _same_size(p, t, k)
    return p, t


def _same_size(p: Any, t: Any, axis: int) -> None:
    left, right = p.type.dims[axis].const, t.type.dims[axis].const
    if left is not None and right is not None and left != right:
        raise ValueError(f"{describe(p)} has size {left} along axis {axis}, but {describe(t)} has "
                         f"{right}")


def _chosen(p: Any, t: Any) -> Any:
    """p[..., t[...]]: what is predicted for one class per sample."""
    grid = [T.arange(p.shape[k]).dimshuffle(*["x"] * k, 0, *["x"] * (t.ndim - k - 1))
            for k in range(t.ndim)]
    return p[(*grid, t)]


def binary_hinge_loss(predictions: Any, targets: Any, delta: Any = 1, log_odds: bool | None = None,
                      binary: bool = True) -> Any:
    """max(0, delta - x t), of the shape of the predictions.

    log_odds: are the predictions x, log-odds (what a sigmoid is applied to), as they are taken for
    where it is True or None?  Otherwise they are probabilities p, and x = log(p / (1 - p)).
    binary: are the targets 0 and 1?  Otherwise they are t, which is -1 and 1.  delta: the margin.
    """
    x, t = align_targets(predictions, targets)
    if log_odds is not None and not log_odds:
        x = T.log(x) - T.log(1 - x)
    if binary:
        # Of the dtype of x first: unsigned integers and bools have no -1.
        t = 2 * T.cast(t, x.dtype) - 1
    return T.nnet.relu(delta - x * t)


def multiclass_hinge_loss(predictions: Any, targets: Any, delta: Any = 1) -> Any:
    """max(0, max of p_j over the wrong classes j - p_right + delta): one number per sample
    (Crammer and Singer 2001).

    predictions: (..., classes), of any sign.  targets: integers (...), the number of the right
    class, or (..., classes) with a 1 there and 0 elsewhere.  delta: the margin.
    Raises TypeError for targets of another rank, class numbers that are no integers, or
    predictions that are no floats.
    """
    p, t = _classes(predictions, targets)
    if not p.type.dtype.is_float:
        raise TypeError(f"predictions must be floats, not {describe(p)}")
    if t.ndim == p.ndim:
        right = T.neq(t, 0)
        correct = T.sum(T.switch(right, p, 0), axis=-1)
    else:
        right = T.eq(T.arange(p.shape[-1]), t.dimshuffle(*range(t.ndim), "x"))
        correct = _chosen(p, t)
    lowest = float(np.finfo(p.dtype).min)
    rest = T.max(T.switch(right, lowest, p), axis=-1)
    return T.nnet.relu(rest - correct + delta)


def huber_loss(predictions: Any, targets: Any, delta: Any = 1) -> Any:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), of the shape of the predictions;
    d = predictions - targets  (Huber 1964; Girshick 2015, arXiv:1504.08083, for delta 1)."""
    p, t = align_targets(predictions, targets)
    distance = abs(p - t)
    return T.switch(distance <= delta, 0.5 * distance ** 2, delta * (distance - delta / 2))


def binary_accuracy(predictions: Any, targets: Any, threshold: Any = 0.5) -> Any:
    """Is a prediction of at least ``threshold`` where the target is 1, and below it where that is
    0?  Bools of the shape of the predictions, whose mean is the accuracy.  No gradient passes."""
    p, t = align_targets(predictions, targets)
    return T.eq(T.ge(p, threshold), t)


def categorical_accuracy(predictions: Any, targets: Any, top_k: int = 1) -> Any:
    """Is the right class among the ``top_k`` of the largest predictions?  One bool per sample,
    whose mean is the accuracy.  No gradient passes.

    predictions: (..., classes).  targets: integers (...), or (..., classes), of which the largest
    is right.
    Raises TypeError for targets of another rank, ValueError where top_k is below 1.
    """
    p, t = _classes(predictions, targets)
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be at least 1")
    if t.ndim == p.ndim:
        t = T.argmax(t, axis=-1)
    if top_k == 1:
        return T.eq(T.argmax(p, axis=-1), t)
    top = T.argsort(p, axis=-1)[(*[slice(None)] * t.ndim, slice(-top_k, None))]
    return T.any(T.eq(top, t.dimshuffle(*range(t.ndim), "x")), axis=-1)


def aggregate(loss: Any, weights: Any = None, mode: str = "mean") -> Any:
    """One number from a loss, each element weighted if ``weights`` (broadcastable) are given.

    mode: 'mean', the sum divided by the number of elements; 'sum'; or 'normalized_sum', the sum
    divided by the sum of the weights, as it is right for masks.
    Weights (n,) of a loss of one column (n, 1) count as a column.
    Raises ValueError for another mode, or for 'normalized_sum' without weights, TypeError for
    weights of more axes than the loss.
    """
    if mode not in ("mean", "sum", "normalized_sum"):
        raise ValueError(f"mode is {mode!r}; it must be 'mean', 'sum' or 'normalized_sum'")
    loss = as_theano_expression(loss)
    if weights is None:
        if mode == "normalized_sum":
            raise ValueError("mode='normalized_sum' divides by the sum of the weights; pass "
                             "weights")
        return loss.mean() if mode == "mean" else loss.sum()
    weights = _weights_for(loss, as_theano_expression(weights))
    loss = loss * weights
    if mode == "mean":
        return loss.mean()
    return loss.sum() if mode == "sum" else loss.sum() / weights.sum()


def _weights_for(loss: Any, weights: Any) -> Any:
    if weights.ndim > loss.ndim:
        raise TypeError(f"the weights, {describe(weights)}, have more axes than the loss, "
                        f"{describe(loss)}; write weights.flatten() for a vector")
    if weights.ndim == 1 and loss.ndim == 2 and loss.broadcastable[1]:
        return weights.dimshuffle(0, "x")
    return weights
