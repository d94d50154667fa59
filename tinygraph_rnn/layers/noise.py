"""Noise that a network is trained with: dropout and Gaussian noise.

Every layer has random streams of its own (``_srng``), seeded from ``tinygraph_rnn.random`` when it
is built.  Every ``get_output`` makes a draw of its own, every call of a function draws anew, and
so does every step of a recurrent layer whose networks hold such a layer.  The states advance by
themselves: a function needs no updates for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tinygraph.tensor as T
from tinygraph import config
from tinygraph.graph import Value
from tinygraph.tensor.shared_randomstreams import RandomStreams
from tinygraph_rnn.layers.base import Incoming, Layer, checked_axes
from tinygraph_rnn.random import get_rng


def streams() -> RandomStreams:
    """New random streams, seeded from ``tinygraph_rnn.random``."""
    return RandomStreams(int(get_rng().uniform(1, 2 ** 31 - 1)))


def draw_shape(x: Any, shared_axes: Sequence[int]) -> tuple[Any, ...]:
    """The shape of ``x`` with size 1 on the axes along which a draw is the same."""
    return tuple(1 if k in shared_axes else x.shape[k] for k in range(x.ndim))


def float_dtype(x: Any) -> str:
    """The dtype of noise on ``x``: its own, or floatX where it holds integers."""
    return x.dtype if x.dtype in T.float_dtypes else config.floatX


def strength(s: Any, dtype: str) -> Any:
    """A parameter of noise: a number, or a variable as one of ``dtype``."""
    return T.cast(s, dtype) if isinstance(s, Value) else s


class DropoutLayer(Layer):
    """Elements set to zero at random, each with probability p  (Hinton et al. 2012,
    arXiv:1207.0580; Srivastava et al. 2014):

        y = x m / (1 - p)      m: 0 with probability p, else 1;  without rescale: y = x m

    p: a number, or a scalar variable (shared: it can be changed between calls).  rescale: divide
    by 1 - p, so that the expected value stays.  shared_axes: an axis or several along which the
    mask is the same; negative ones count from the end.
    With ``deterministic=True``, or p = 0, the output is the input itself.
    Raises ValueError for a p that is no probability, or 1 with rescale, and for axes that do not
    exist.
    """

    def __init__(self, incoming: Incoming, p: Any = 0.5, rescale: bool = True,
                 shared_axes: Sequence[int] = (), name: str | None = None) -> None:
        super().__init__(incoming, name)
        if not isinstance(p, Value) and (not 0 <= p <= 1 or (rescale and p == 1)):
            raise ValueError(f"p is {p}; it must be a probability, 0 to 1, and below 1 where what "
                             "is kept is divided by 1 - p")
        self._srng = streams()
        self.p, self.rescale = p, rescale
        self.shared_axes = checked_axes(shared_axes, len(self.input_shape))

    def get_output_for(self, input: Any, deterministic: bool = False, **kwargs: Any) -> Any:
        if deterministic or (not isinstance(self.p, Value) and self.p == 0):
            return input
        dtype = float_dtype(input)
        kept = 1 - strength(self.p, dtype)
        mask = self._srng.binomial(draw_shape(input, self.shared_axes), p=kept, dtype=dtype)
        return (input / kept if self.rescale else input) * mask


dropout = DropoutLayer


def dropout_channels(incoming: Incoming, p: Any = 0.5, rescale: bool = True,
                     name: str | None = None) -> DropoutLayer:
    """A ``DropoutLayer`` that keeps or drops whole channels: for inputs of shape (batch, channels,
    places...) the mask is the same at all places."""
    rank = len(incoming.output_shape if isinstance(incoming, Layer) else incoming)
    return DropoutLayer(incoming, p, rescale, tuple(range(2, rank)), name)


spatial_dropout = dropout_channels


def dropout_locations(incoming: Incoming, p: Any = 0.5, rescale: bool = True,
                      name: str | None = None) -> DropoutLayer:
    """A ``DropoutLayer`` that keeps or drops whole places: for inputs of shape (batch, channels,
    places...) the mask is the same in all channels."""
    return DropoutLayer(incoming, p, rescale, (1,), name)


class GaussianNoiseLayer(Layer):
    """x + sigma n, n normal of mean 0 and standard deviation 1, drawn for every element.

    sigma: a number, or a scalar variable.  With ``deterministic=True``, or sigma = 0, the output
    is the input itself.
    """

    def __init__(self, incoming: Incoming, sigma: Any = 0.1, name: str | None = None) -> None:
        super().__init__(incoming, name)
        self._srng = streams()
        self.sigma = sigma

    def get_output_for(self, input: Any, deterministic: bool = False, **kwargs: Any) -> Any:
        if deterministic or (not isinstance(self.sigma, Value) and self.sigma == 0):
            return input
        dtype = float_dtype(input)
        noise = self._srng.normal(draw_shape(input, ()), dtype=dtype)
        return input + strength(self.sigma, dtype) * noise
