"""The add task: remember one number until another comes, and sum them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygraph_rnn.utils import floatX


def add_batch(n_batch: int = 100, min_length: int = 50, max_length: int = 55, rng: Any = None
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch of the *add* task: the sum of the two numbers in a sequence that are marked.

    Hochreiter and Schmidhuber 1997, Long short-term memory, experiment 4.  Of the two features of
    a step the first is drawn from [0, 1), the second is 1 at the two marked steps and 0 elsewhere.
    Lengths are drawn from [min_length, max_length]; steps behind the end are 0.  One mark lies in
    the first tenth of the sequence, the other in its second half, so that the first number has to
    be remembered for 40% of the sequence at the least.  Both features (over batch and steps) and
    the targets have their mean subtracted: the variance of the targets, 1/6, is the error of a
    network that knows nothing.

    Returns X (n_batch, max_length, 2), y (n_batch,) and mask (n_batch, max_length), which is 1
    within a sequence and 0 behind its end; all of floatX.  rng: a ``numpy.random.Generator`` or
    an integer seed (None: unpredictable).
    Raises ValueError unless 2 <= min_length <= max_length.
    """
    if not 2 <= min_length <= max_length:
        raise ValueError(f"min_length is {min_length} and max_length {max_length}; two marks need "
                         "2 <= min_length <= max_length")
    rng = np.random.default_rng(rng)
    rows = np.arange(n_batch)
    length = rng.integers(min_length, max_length + 1, size=n_batch)
    mask = floatX(np.arange(max_length) < length[:, None])
    numbers = rng.random((n_batch, max_length)) * mask
    first = rng.integers(0, np.maximum(length // 10, 1))
    second = rng.integers((length + 1) // 2, length)
    y = numbers[rows, first] + numbers[rows, second]
    X = np.empty((n_batch, max_length, 2), mask.dtype)
    X[:, :, 0] = numbers - numbers.mean()
    X[:, :, 1] = -2 / max_length
    X[rows, first, 1] += 1
    X[rows, second, 1] += 1
    return X, floatX(y - y.mean()), mask


gen_data = add_batch
