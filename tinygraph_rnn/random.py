"""The random numbers that initialise parameters.

By default they come from NumPy's global state, so ``numpy.random.seed(0)`` fixes them.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import numpy as np

_chosen: ContextVar[Any] = ContextVar("tinygraph_rnn.rng", default=None)


def get_rng() -> Any:
    """The generator that initialisers draw from: one with NumPy's ``normal``, ``uniform`` and
    ``permutation``."""
    chosen = _chosen.get()
    return np.random if chosen is None else chosen


def set_rng(rng: Any) -> None:
    """Draw from ``rng`` from now on, in this thread: a ``numpy.random.RandomState``, a
    ``numpy.random.Generator``, an integer seed, or None for NumPy's global state again.

    Raises TypeError for anything else.
    """
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        rng = np.random.RandomState(int(rng))
    if rng is not None and not all(hasattr(rng, n) for n in ("normal", "uniform", "permutation")):
        raise TypeError(f"a random generator of NumPy or an integer seed is needed, not {rng!r}")
    _chosen.set(rng)
