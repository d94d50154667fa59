"""Outputs, shapes and parameters of whole networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tinygraph import tensor as T
from tinygraph_rnn.layers.base import Layer, MergeLayer, Shape
from tinygraph_rnn.layers.input import InputLayer
from tinygraph_rnn.utils import unique


def get_all_layers(layer: Layer | Sequence[Layer], treat_as_input: Iterable[Layer] = ()
                   ) -> list[Layer]:
    """Every layer that one layer, or a list of them, needs, those that feed others first.

    treat_as_input: layers at which the walk ends.
    """
    ends = set(treat_as_input)
    order: dict[Layer, None] = {}
    stack: list[tuple[Layer, bool]] = [(top, False) for top in reversed(_listed(layer))]
    while stack:
        current, expanded = stack.pop()
        if current in order:
            continue
        if expanded or current in ends:
            order[current] = None
            continue
        stack.append((current, True))
        stack.extend((x, False) for x in reversed(current.inputs()) if x is not None)
    return list(order)


def _listed(layer: Layer | Sequence[Layer]) -> list[Layer]:
    return [layer] if isinstance(layer, Layer) else list(layer)


def get_output(layer_or_layers: Any, inputs: Any = None, **kwargs: Any) -> Any:
    """The output expression of a layer, or the list of those of a list of layers.

    inputs: None for the layers' own input variables; a variable or array for the one input
    layer of the network; or a dict from layer (any one, which is then not computed) to variable or
    array.  Keyword arguments (``deterministic=True``) go to every ``get_output_for``.
    Raises ValueError where an input is missing.
    """
    given = dict(inputs) if isinstance(inputs, Mapping) else {}
    layers = get_all_layers(layer_or_layers, given)
    known: dict[Any, Any] = {
        layer: T.as_tensor_variable(x) for layer, x in given.items() if layer is not None}
    if inputs is not None and not isinstance(inputs, Mapping):
        x = T.as_tensor_variable(inputs)
        known.update((layer, x) for layer in layers if isinstance(layer, InputLayer))
    for layer in layers:
        if layer in known:
            continue
        if isinstance(layer, InputLayer):
            known[layer] = layer.input_var
            continue
        sources = layer.inputs()
        if None in sources:
            raise ValueError(f"{layer!r} was built on a shape and has no input layer; feed an "
                             "InputLayer to it, or call its get_output_for")
        values = [known[x] for x in sources]
        known[layer] = layer.get_output_for(
            values if isinstance(layer, MergeLayer) else values[0], **kwargs)
    if isinstance(layer_or_layers, Layer):
        return known[layer_or_layers]
    return [known[layer] for layer in layer_or_layers]


def get_output_shape(layer_or_layers: Any, input_shapes: Any = None) -> Any:
    """The output shape of a layer, or the list of those of a list of layers.

    input_shapes: None for the shapes given at construction, else a shape for the input layers or
    a dict from layer to shape.
    """
    if input_shapes is None:
        if isinstance(layer_or_layers, Layer):
            return layer_or_layers.output_shape
        return [layer.output_shape for layer in layer_or_layers]
    given = dict(input_shapes) if isinstance(input_shapes, Mapping) else {}
    layers = get_all_layers(layer_or_layers, given)
    known: dict[Any, Shape] = {layer: tuple(shape) for layer, shape in given.items()}
    for layer in layers:
        if layer in known:
            continue
        if isinstance(layer, InputLayer):
            known[layer] = layer.shape if given else tuple(input_shapes)
        elif isinstance(layer, MergeLayer):
            known[layer] = layer.get_output_shape_for([
                shape if x is None else known[x]
                for x, shape in zip(layer.inputs(), layer.input_shapes, strict=True)])
        else:
            source = layer.input_layer
            known[layer] = layer.get_output_shape_for(
                layer.input_shape if source is None else known[source])
    if isinstance(layer_or_layers, Layer):
        return known[layer_or_layers]
    return [known[layer] for layer in layer_or_layers]


def get_all_params(layer: Layer | Sequence[Layer], unwrap_shared: bool = True, **tags: bool
                   ) -> list[Any]:
    """The parameters of every layer that ``layer`` (or a list) needs, each once, inputs first.

    Tags and unwrap_shared filter as in ``Layer.get_params``.
    """
    return unique(
        p for each in get_all_layers(layer)
        for p in each.get_params(unwrap_shared=unwrap_shared, **tags))


def count_params(layer: Layer | Sequence[Layer], **tags: bool) -> int:
    """The number of scalars in the parameters of a network."""
    return sum(
        int(np.prod(p.get_value(borrow=True).shape)) for p in get_all_params(layer, **tags))


def get_all_param_values(layer: Layer | Sequence[Layer], **tags: bool) -> list[np.ndarray]:
    """Copies of the values of ``get_all_params``, in its order."""
    return [p.get_value() for p in get_all_params(layer, **tags)]


def set_all_param_values(layer: Layer | Sequence[Layer], values: Sequence[Any], **tags: bool
                         ) -> None:
    """Set the parameters to what ``get_all_param_values`` gave.

    Raises ValueError, before anything is changed, if number or shapes do not fit.
    """
    params = get_all_params(layer, **tags)
    if len(values) != len(params):
        raise ValueError(f"{len(values)} values are given for {len(params)} parameters")
    arrays = [np.asarray(v) for v in values]
    for p, a in zip(params, arrays, strict=True):
        shape = p.get_value(borrow=True).shape
        if a.shape != shape:
            raise ValueError(f"parameter {p.name or ''} has shape {shape}, but its value "
                             f"has {a.shape}")
    for p, a in zip(params, arrays, strict=True):
        p.set_value(a.astype(p.dtype))
