"""Losses, element by element; ``aggregate`` or ``.mean()`` makes the scalar cost."""

from __future__ import annotations

from typing import Any

import tinygraph.tensor as T


def squared_error(a: Any, b: Any) -> Any:
    """(a - b)^2, of the shape of a and b."""
    return (a - b) ** 2


def binary_crossentropy(predictions: Any, targets: Any) -> Any:
    """-t log p - (1 - t) log(1 - p), of the shape of the predictions (in (0, 1))."""
    return T.nnet.binary_crossentropy(predictions, targets)


def categorical_crossentropy(predictions: Any, targets: Any) -> Any:
    """-sum t log p over the classes: one number per sample.

    predictions: (n, classes), rows that sum to 1.  targets: a vector of n class numbers, or a
    matrix of the shape of the predictions.
    """
    return T.nnet.categorical_crossentropy(predictions, targets)


def aggregate(loss: Any, weights: Any = None, mode: str = "mean") -> Any:
    """One number from a loss, each element weighted if ``weights`` (broadcastable) are given.

    mode: 'mean', 'sum', or 'normalized_sum' (the sum divided by the sum of the weights).
    Raises ValueError for another mode, or for 'normalized_sum' without weights.
    """
    if weights is not None:
        loss = loss * weights
    if mode == "mean":
        return loss.mean()
    if mode == "sum":
        return loss.sum()
    if mode != "normalized_sum":
        raise ValueError(f"mode is {mode!r}; it must be 'mean', 'sum' or 'normalized_sum'")
    if weights is None:
        raise ValueError("mode='normalized_sum' divides by the sum of the weights; pass weights")
    return loss.sum() / weights.sum()
