"""Normalisation: of a batch, of each sample, and of neighbouring channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tinygraph.tensor as T
from tinygraph.compile.variables import SharedVariable
from tinygraph_rnn import init, nonlinearities
from tinygraph_rnn.layers.base import Incoming, Layer
from tinygraph_rnn.layers.conv import check_rank
from tinygraph_rnn.layers.dense import NonlinearityLayer
from tinygraph_rnn.layers.special import BiasLayer, ScaleLayer

__all__ = [
    "BatchNormLayer", "LocalResponseNormalization2DLayer", "StandardizationLayer", "batch_norm",
    "instance_norm", "layer_norm"]

_ZERO = init.Constant(0.0)
_ONE = init.Constant(1.0)


def _checked_axes(layer: Layer, axes: Any) -> tuple[int, ...]:
    """``axes``, an int or several, of the layer's input, in order and not negative."""
    given = tuple(axes) if isinstance(axes, Sequence) else (axes,)
    rank = len(layer.input_shape)
    if isinstance(axes, str) or not given or any(
            not isinstance(k, int) or not -rank <= k < rank for k in given):
        raise ValueError(f"axes is {axes!r}; for an input of shape {layer.input_shape} it must be "
                         f"an int from {-rank} to {rank - 1}, several of them, or 'auto'")
    return tuple(sorted({k % rank for k in given}))


class BatchNormLayer(Layer):
    """y = (x - mean) * (gamma * inv_std) + beta  (Ioffe and Szegedy 2015, arXiv:1502.03167).

    In training, mean and inv_std = 1 / sqrt(variance + epsilon) are those of the batch itself, and
    every function compiled from such an output moves the stored ones towards them:

        mean    = (1 - alpha) * mean + alpha * mean of the batch       the same for inv_std

    With ``deterministic=True`` the stored ones are used, and stay as they are.  The keyword
    arguments ``batch_norm_use_averages`` and ``batch_norm_update_averages`` of ``get_output`` say
    the one or the other by itself.

    axes: the axes that statistics are taken over, an int or several; 'auto': all but axis 1, so
    that every unit or channel has its own.  The variance is divided by the number of elements.
    beta, gamma, mean, inv_std: one number for each place of the other axes.  beta, gamma: None
    leaves them out.  mean, inv_std: tagged ``batch_norm_stat``, neither trainable nor
    regularizable; one that is given as an expression is used, and never moved.
    Raises ValueError where the size of another axis is not known.
    """

    def __init__(self, incoming: Incoming, axes: Any = "auto", epsilon: float = 1e-4,
                 alpha: float = 0.1, beta: Any = _ZERO, gamma: Any = _ONE, mean: Any = _ZERO,
                 inv_std: Any = _ONE, name: str | None = None) -> None:
        super().__init__(incoming, name)
        rank = len(self.input_shape)
        self.axes = (0, *range(2, rank)) if axes == "auto" else _checked_axes(self, axes)
        self.epsilon, self.alpha = epsilon, alpha
        shape = self._stat_shape()
        self.beta = self.gamma = None
        if beta is not None:
            self.beta = self.add_param(beta, shape, "beta", regularizable=False)
        if gamma is not None:
            self.gamma = self.add_param(gamma, shape, "gamma")
        tags = {"trainable": False, "regularizable": False, "batch_norm_stat": True}
        self.mean = self.add_param(mean, shape, "mean", **tags)
        self.inv_std = self.add_param(inv_std, shape, "inv_std", **tags)

    def _stat_shape(self) -> tuple[int, ...]:
        kept = [n for k, n in enumerate(self.input_shape) if k not in self.axes]
        if None in kept:
            raise ValueError(f"a BatchNormLayer over the axes {self.axes} needs the sizes of all "
                             f"other axes, but the input has shape {self.input_shape}; give an int "
                             "instead of None")
        return tuple(n for n in kept if n is not None)

    def get_output_for(self, input: Any, deterministic: bool = False,
                       batch_norm_use_averages: bool | None = None,
                       batch_norm_update_averages: bool | None = None, **kwargs: Any) -> Any:
        use = deterministic if batch_norm_use_averages is None else batch_norm_use_averages
        update = batch_norm_update_averages
        if update is None:
            update = not deterministic
        mean, inv_std = self.mean, self.inv_std
        if not use or update:
            batch_mean = input.mean(self.axes)
            batch_inv_std = 1 / T.sqrt(input.var(self.axes) + self.epsilon)
            if not use:
                mean, inv_std = batch_mean, batch_inv_std
            if update:
                mean = self._moving(self.mean, batch_mean, mean)
                inv_std = self._moving(self.inv_std, batch_inv_std, inv_std)
        scale = inv_std if self.gamma is None else inv_std * self.gamma
        out = (input - self._wide(mean)) * self._wide(scale)
        return out if self.beta is None else out + self._wide(self.beta)

    def _moving(self, stored: Any, measured: Any, used: Any) -> Any:
        """``used``; a function that computes it moves ``stored`` towards ``measured``.

        What moves is a clone on the same storage, so that other expressions of ``stored`` leave it
        alone, and that several outputs of the layer each bring their own statistics.  The switch
        puts the clone into the expression, where a function finds it, and never selects it.
        """
        if not isinstance(stored, SharedVariable):
            return used
        moved = stored.clone()
        moved.default_update = ((1 - self.alpha) * moved + self.alpha * measured).astype(
            stored.dtype)
        return T.switch(T.constant(True), used, moved)

    def _wide(self, parameter: Any) -> Any:
        """``parameter`` with an axis of size 1 for each of ``axes``."""
        kept = iter(range(parameter.ndim))
        return parameter.dimshuffle(
            *("x" if k in self.axes else next(kept) for k in range(len(self.input_shape))))


def _cut_off(layer: Layer) -> Any:
    """Take nonlinearity and bias away from ``layer``; returns the nonlinearity, or None."""
    nonlinearity = getattr(layer, "nonlinearity", None)
    if nonlinearity is not None:
        vars(layer)["nonlinearity"] = nonlinearities.identity
    bias = getattr(layer, "b", None)
    if bias is not None:
        del layer.params[bias]
        vars(layer)["b"] = None
    return nonlinearity


def _named(name: str | None, ending: str) -> str | None:
    return None if name is None else f"{name}_{ending}"


def _behind(layer: Layer, nonlinearity: Any, name: str | None) -> Layer:
    """``layer`` with the nonlinearity that was taken away from another one, if there was any."""
    if nonlinearity is None:
        return layer
    return NonlinearityLayer(layer, nonlinearity, name=_named(name, "nonlin"))


def batch_norm(layer: Layer, **kwargs: Any) -> Layer:
    """``layer`` with a ``BatchNormLayer`` between its sum and its nonlinearity.

    The layer is changed: its bias ``b``, which the normalisation would cancel, goes, and its
    nonlinearity becomes the identity and moves behind into a ``NonlinearityLayer`` of its own.
    Keyword arguments go to the BatchNormLayer, whose name is <name of the layer>_bn if there is
    none among them.  Returns the last layer.
    """
    name = kwargs.pop("name", None) or _named(layer.name, "bn")
    nonlinearity = _cut_off(layer)
    return _behind(BatchNormLayer(layer, name=name, **kwargs), nonlinearity, name)


class StandardizationLayer(Layer):
    """y = (x - mean) / sqrt(variance + epsilon), with mean and variance of each sample by itself,
    in training and after it.

    axes: the axes that they are taken over, an int or several; 'spatial': all but the first two
    (instance normalisation: Ulyanov et al. 2016, arXiv:1607.08022); 'features': all but the first
    (layer normalisation: Ba, Kiros and Hinton 2016, arXiv:1607.06450); 'auto': 'features' for
    inputs of two axes, else 'spatial'.  The variance is divided by the number of elements.
    """

    def __init__(self, incoming: Incoming, axes: Any = "auto", epsilon: float = 1e-4,
                 name: str | None = None) -> None:
        super().__init__(incoming, name)
        rank = len(self.input_shape)
        if axes == "auto":
            axes = "spatial" if rank > 2 else "features"
        if axes in ("spatial", "features"):
            axes = tuple(range(2 if axes == "spatial" else 1, rank))
        self.axes = _checked_axes(self, axes)
        self.epsilon = epsilon

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        centred = input - input.mean(self.axes, keepdims=True)
        return centred / T.sqrt(input.var(self.axes, keepdims=True) + self.epsilon)


def instance_norm(layer: Layer, learn_scale: bool = True, learn_bias: bool = True, **kwargs: Any
                  ) -> Layer:
    """``layer`` with a ``StandardizationLayer`` over its spatial axes, then a ``ScaleLayer`` and a
    ``BiasLayer`` where these are to be learned, between its sum and its nonlinearity.

    The layer is changed as by ``batch_norm``.  Keyword arguments go to the StandardizationLayer,
    whose name is <name of the layer>_in if there is none among them.  Returns the last layer.
    """
    name = kwargs.pop("name", None) or _named(layer.name, "in")
    return _standardized(layer, {"axes": "spatial", **kwargs}, name, learn_scale, learn_bias)


def layer_norm(layer: Layer, **kwargs: Any) -> Layer:
    """``layer`` with a ``StandardizationLayer`` over all its features, a ``ScaleLayer`` and a
    ``BiasLayer`` (one number per unit or channel each) between its sum and its nonlinearity.

    As ``instance_norm``, with a name in _ln.
    """
    name = kwargs.pop("name", None) or _named(layer.name, "ln")
    return _standardized(layer, {"axes": "features", **kwargs}, name, True, True)


def _standardized(layer: Layer, arguments: dict[str, Any], name: str | None, scale: bool,
                  bias: bool) -> Layer:
    nonlinearity = _cut_off(layer)
    out: Layer = StandardizationLayer(layer, name=name, **arguments)
    if scale:
        out = ScaleLayer(out, name=_named(name, "scale"))
    if bias:
        out = BiasLayer(out, name=_named(name, "bias"))
    return _behind(out, nonlinearity, name)


class LocalResponseNormalization2DLayer(Layer):
    """y[c] = x[c] / (k + alpha * sum of x[d]^2 over the n channels d around c) ^ beta, for every
    pixel of (batch, channels, rows, columns)  (Krizhevsky, Sutskever and Hinton 2012, section 3.3).

    n: how many neighbouring channels count, the channel itself included; there are none beyond the
    first and the last.  Raises ValueError for an even n, which has no channel in its middle.
    """

    def __init__(self, incoming: Incoming, alpha: float = 1e-4, k: float = 2, beta: float = 0.75,
                 n: int = 5, name: str | None = None) -> None:
        super().__init__(incoming, name)
        check_rank(self, 2)
        if n < 1 or n % 2 == 0:
            raise ValueError(f"n is {n}; it must be odd and positive, so that as many channels "
                             "count before a channel as behind it")
        self.alpha, self.k, self.beta, self.n = alpha, k, beta, n

    def get_output_for(self, input: Any, **kwargs: Any) -> Any:
        batch, channels, rows, columns = (input.shape[k] for k in range(4))
        beyond = T.zeros((batch, self.n // 2, rows, columns), dtype=input.dtype)
        squares = T.concatenate([beyond, T.sqr(input), beyond], axis=1)
        total = sum(squares[:, k:k + channels] for k in range(self.n))
        return input / (self.k + self.alpha * total) ** self.beta
