"""Batch normalization (Ioffe 2015, arXiv:1502.03167)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygraph.graph import describe
from tinygraph.tensor.reductions import axes_of, count_of, mean, var
from tinygraph.tensor.shaping import addbroadcast, insert_axes, squeeze
from tinygraph.tensor.variable import as_tensor_variable


def batch_normalization(inputs: Any, gamma: Any, beta: Any, mean: Any, std: Any,
                        mode: str = "low_mem") -> Any:
    """(inputs - mean) gamma / std + beta, where all five broadcast.  ``mode`` is Theano's, and
    says nothing here: the compiler decides what it computes when."""
    del mode
    inputs, gamma, beta, mean, std = map(as_tensor_variable, (inputs, gamma, beta, mean, std))
    return (inputs - mean) * (gamma / std) + beta


def batch_normalization_train(inputs: Any, gamma: Any, beta: Any, axes: Any = "per-activation",
                              epsilon: float = 1e-4, running_average_factor: float = 0.1,
                              running_mean: Any = None, running_var: Any = None
                              ) -> tuple[Any, ...]:
    """Normalize by the mean and the variance of the batch itself.

    axes      'per-activation' (over axis 0), 'spatial' (over all axes but 1), or a tuple of axes
    gamma, beta, running_mean, running_var   of as many axes as ``inputs``, of which ``axes`` have
              size 1, or only the axes that are not in ``axes``
    Returns (normalized, mean, 1 / sqrt(variance + epsilon)), the last two of the form of gamma;
    with running_mean and running_var also what these become: each moves by
    ``running_average_factor`` towards the batch's (the variance by n - 1).

    Raises ValueError for parameters of another rank, or for one running value without the other.
    """
    inputs = as_tensor_variable(inputs)
    form = _Form(inputs, axes)
    if (running_mean is None) != (running_var is None):
        raise ValueError("batch_normalization_train: give both running_mean and running_var, or "
                         "neither")
    wide_gamma, wide_beta = form.widened(gamma), form.widened(beta)
    center = mean(inputs, form.axes, keepdims=True)
    spread = var(inputs, form.axes, keepdims=True)
    scale = 1 / (spread + epsilon).sqrt()
    out = (inputs - center) * (wide_gamma * scale) + wide_beta
    short = as_tensor_variable(gamma).ndim != inputs.ndim
    results = [out, form.narrowed(center, short), form.narrowed(scale, short)]
    if running_mean is not None:
        r, n = running_average_factor, count_of(inputs, form.axes, inputs.type.dtype)
        pairs = ((running_mean, center), (running_var, spread * n / (n - 1)))
        for old, new in pairs:
            moved = form.widened(old) * (1 - r) + new * r
            results.append(form.narrowed(moved, as_tensor_variable(old).ndim != inputs.ndim))
    return tuple(results)


def batch_normalization_test(inputs: Any, gamma: Any, beta: Any, mean: Any, var: Any,
                             axes: Any = "per-activation", epsilon: float = 1e-4) -> Any:
    """Normalize by a given mean and variance; ``axes`` and the form of the parameters are as in
    ``batch_normalization_train``."""
    inputs = as_tensor_variable(inputs)
    form = _Form(inputs, axes)
    gamma, beta, mean, var = (form.widened(p) for p in (gamma, beta, mean, var))
    return (inputs - mean) * (gamma / (var + epsilon).sqrt()) + beta


class _Form:
    """The axes over which one normalizes, and parameters with and without them."""

    def __init__(self, inputs: Any, axes: Any) -> None:
        self.inputs = inputs
        if axes == "per-activation":
            axes = (0,)
        elif axes == "spatial":
            axes = (0, *range(2, inputs.ndim))
        elif not isinstance(axes, (int, tuple, list)):
            raise ValueError(f"axes is {axes!r}; it must be 'per-activation', 'spatial' or axes")
        self.axes: Sequence[int] = sorted(axes_of(inputs, axes))

    def widened(self, parameter: Any) -> Any:
        """``parameter`` with an axis of size 1, which broadcasts, for each of the axes."""
        x = as_tensor_variable(parameter)
        if x.ndim == self.inputs.ndim:
            return addbroadcast(x, *self.axes)
        if x.ndim != self.inputs.ndim - len(self.axes):
            raise ValueError(f"{describe(x)} must have as many axes as {describe(self.inputs)}, "
                             f"or {self.inputs.ndim - len(self.axes)}: those that are not "
                             "normalized over")
        return insert_axes(x, self.axes)

    def narrowed(self, x: Any, short: bool) -> Any:
        """``x`` without the axes, if ``short``."""
        return squeeze(x, self.axes) if short else x
