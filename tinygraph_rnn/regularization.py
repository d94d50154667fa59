"""Penalties on parameters, to be added to a cost.

A penalty is a function of a tensor that gives a scalar: ``l1``, ``l2``, or any other one.  The
functions below add it up over the parameters of layers; a parameter counts if its tags fit, and
biases are not tagged ``regularizable``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

import tinygraph.tensor as T
from tinygraph.graph import Value
from tinygraph_rnn.layers.base import Layer
from tinygraph_rnn.layers.helper import get_all_params

Penalty = Callable[..., Any]
REGULARIZABLE: Mapping[str, bool] = MappingProxyType({"regularizable": True})


def l1(x: Any) -> Any:
    """The sum of the absolute values of a tensor."""
    return T.sum(abs(T.as_tensor_variable(x)))


def l2(x: Any) -> Any:
    """The sum of the squares of a tensor (not its root)."""
    return T.sum(T.as_tensor_variable(x) ** 2)


def apply_penalty(tensor_or_tensors: Any, penalty: Penalty, **kwargs: Any) -> Any:
    """penalty(x, **kwargs) of one tensor, or its sum over several; 0 over none.

    tensor_or_tensors: a variable or array, or a list (or another iterable) of them.
    """
    if isinstance(tensor_or_tensors, (Value, np.ndarray, np.generic, int, float)):
        return penalty(tensor_or_tensors, **kwargs)
    return _total(penalty(x, **kwargs) for x in tensor_or_tensors)


def _total(terms: Iterable[Any]) -> Any:
    """The sum of ``terms``: a scalar expression also where there is none."""
    found = list(terms)
    return sum(found[1:], found[0]) if found else T.zeros(())


def regularize_layer_params(layer: Layer | Iterable[Layer], penalty: Penalty,
                            tags: Mapping[str, Any] = REGULARIZABLE, **kwargs: Any) -> Any:
    """The penalty of the parameters of a layer, or of several layers, but not of those below.

    tags: which parameters, as in ``Layer.get_params``: {tag: True} those that have a tag,
    {tag: False} those that do not; {} all.  Other keyword arguments go to ``penalty``.
    """
    layers = [layer] if isinstance(layer, Layer) else list(layer)
    return apply_penalty([p for each in layers for p in each.get_params(**tags)], penalty,
                         **kwargs)


def regularize_layer_params_weighted(layers: Mapping[Layer, Any], penalty: Penalty,
                                     tags: Mapping[str, Any] = REGULARIZABLE, **kwargs: Any
                                     ) -> Any:
    """The sum over ``layers``, a dict from layer to coefficient (a number or scalar variable), of
    the coefficient times the penalty of the layer's parameters.

    tags and keyword arguments are those of ``regularize_layer_params``.
    Raises TypeError where ``layers`` is not a dict.
    """
    if not isinstance(layers, Mapping):
        raise TypeError(f"layers must be a dict from layer to coefficient, not "
                        f"{type(layers).__name__}; for equal coefficients there is "
                        "regularize_layer_params")
    return _total(coefficient * regularize_layer_params(layer, penalty, tags, **kwargs)
                  for layer, coefficient in layers.items())


def regularize_network_params(layer: Layer | Iterable[Layer], penalty: Penalty,
                              tags: Mapping[str, Any] = REGULARIZABLE, **kwargs: Any) -> Any:
    """The penalty of the parameters of a layer, or of several, and of all layers below, each
    parameter once.

    tags and keyword arguments are those of ``regularize_layer_params``.
    """
    layers = layer if isinstance(layer, Layer) else list(layer)
    return apply_penalty(get_all_params(layers, **tags), penalty, **kwargs)
