"""Masks of random zeros and ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tinygraph.tensor as T
from tinygraph.tensor.shared_randomstreams import RandomStreams
from tinygraph_rnn.random import get_rng


def Dropout(shape: Any, prob: Any, rng: Any = None) -> Any:
    """A mask of ``shape`` that is 0 with probability ``prob`` and else 1, of floatX.

    shape: ints or integer scalars, or one of them for a vector.  prob: a number or a scalar
    variable (shared: it can be changed later).  rng: a ``RandomStreams``; a new one, seeded from
    ``tinygraph_rnn.random``, unless given.
    """
    if rng is None:
        rng = RandomStreams(int(get_rng().uniform(0, 2 ** 30)))
    size = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    return T.cast(rng.binomial(n=1, p=1 - prob, size=size), "floatX")


def MultiDropout(shapes: Sequence[Any], dropout: Any = 0.0, rng: Any = None) -> list[Any]:
    """A ``Dropout`` mask for each of ``shapes``: to be drawn outside of a scan, whose steps then
    all use the same masks."""
    return [Dropout(shape, dropout, rng) for shape in shapes]


def apply_dropout(x: Any, mask: Any) -> Any:
    """``x`` where ``mask`` is 1, 0 where it is 0; a mask of None leaves ``x``."""
    return x if mask is None else mask * x
