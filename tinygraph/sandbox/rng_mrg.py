"""``MRG_RandomStreams``: the streams of layers' dropout and noise.

The name is that of a generator that others use here.  The numbers come from the one generator
that there is (tinygraph/tensor/shared_randomstreams.py).
"""

from __future__ import annotations

from typing import Any

from tinygraph.tensor import distributions
from tinygraph.tensor.shared_randomstreams import RandomStreams


class MRG_RandomStreams(RandomStreams):  # noqa: N801  (the name that users write)
    """``RandomStreams`` with other defaults.

    seed: an integer of at least 0, or a sequence of them.  ``nstreams`` is accepted and not
    needed: every element is a stream of its own.
    """

    def __init__(self, seed: Any = 12345) -> None:
        super().__init__(seed)

    def uniform(self, size: Any = None, low: Any = 0.0, high: Any = 1.0,
                ndim: int | None = None, dtype: Any = None, nstreams: Any = None) -> Any:
        """Numbers of [low, high)."""
        return super().uniform(size, low, high, ndim, dtype)

    def normal(self, size: Any = None, avg: Any = 0.0, std: Any = 1.0,
               ndim: int | None = None, dtype: Any = None, nstreams: Any = None,
               truncate: bool = False) -> Any:
        """Normal numbers; ``truncate``: within two standard deviations of the mean."""
        op = distributions.truncated_normal if truncate else distributions.normal
        return self.gen(op, size, avg, std, ndim, dtype)

    def truncated_normal(self, size: Any = None, avg: Any = 0.0,
                         std: Any = 1.0, ndim: int | None = None, dtype: Any = None,
                         nstreams: Any = None) -> Any:
        """Normal numbers within two standard deviations of the mean."""
        return super().truncated_normal(size, avg, std, ndim, dtype)

    def binomial(self, size: Any = None, n: Any = 1, p: Any = 0.5,
                 ndim: int | None = None, dtype: Any = "int64", nstreams: Any = None) -> Any:
        """How many of ``n`` trials of probability ``p`` succeed."""
        return super().binomial(size, n, p, ndim, dtype)

    def multinomial(self, size: Any = None, n: Any = 1,
                    pvals: Any = None, ndim: int | None = None, dtype: Any = "int64",
                    nstreams: Any = None) -> Any:
        """How often each class of the last axis of ``pvals`` comes up in ``n`` draws."""
        return super().multinomial(size, n, pvals, ndim, dtype)

    def choice(self, size: Any = 1, a: Any = None, replace: bool = True,
               p: Any = None, ndim: int | None = None, dtype: Any = "int64",
               nstreams: Any = None) -> Any:
        """``size`` classes for every row of the matrix ``p``, whose rows are probabilities: a
        matrix (rows, size).  With ``a``, or a vector p, as ``RandomStreams.choice``."""
        return self.gen(distributions.choice_per_row, size, a, replace, p, ndim, dtype)
