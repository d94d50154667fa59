"""Outputs, shapes and parameters of whole networks."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from tinygraph_rnn.layers.base import Layer, MergeLayer, checked_shape
from tinygraph_rnn.layers.input import InputLayer
from tinygraph_rnn.utils import as_theano_expression, inspect_kwargs, unique

# The names read so far in the get_output that is running: a layer that holds networks of its own
# calls get_output for them, and only the outermost call knows what nobody has read.
_read: ContextVar[set[str] | None] = ContextVar("tinygraph_rnn.layers.helper.read", default=None)


def get_all_layers(layer: Layer | Sequence[Layer], treat_as_input: Iterable[Layer] | None = None
                   ) -> list[Layer]:
    """Every layer that one layer, or a list of them, needs, each once, those that feed others
    first.

    treat_as_input: layers at which the walk ends; they are in the list, what feeds them is not.
    """
    ends = set(treat_as_input or ())
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


def _read_by(layers: Iterable[Layer]) -> set[str]:
    """The names of the keyword arguments that ``layers`` read."""
    return {name for each in layers
            for name in [*each.get_output_kwargs, *inspect_kwargs(each.get_output_for)]}


def _warn_of_unread(kwargs: Iterable[str], read: set[str]) -> None:
    """Warn of keyword arguments that no layer reads; a likely name is suggested."""
    unread = []
    for name in sorted(set(kwargs) - read):
        close = difflib.get_close_matches(name, sorted(read), n=1)
        unread.append(f"{name} (did you mean {close[0]}?)" if close else name)
    if unread:
        warnings.warn(f"get_output was given {', '.join(unread)}, but no layer of this network "
                      "reads a keyword argument of that name", UserWarning, stacklevel=3)


def get_output(layer_or_layers: Any, inputs: Any = None, **kwargs: Any) -> Any:
    """The output expression of a layer, or the list of those of a list of layers.

    inputs: None for the layers' own input variables; a variable or array for the one input
    layer of the network; or a dict from layer (any one, which is then not computed) to variable or
    array.  The key None stands for the input of layers that were built on a shape.
    Keyword arguments (``deterministic=True``) go to every ``get_output_for``; those that no layer
    reads cause a UserWarning.
    Raises ValueError where an input is missing, or one is given for several input layers, and
    TypeError for keys that are no layers.
    """
    known = _given(inputs, as_theano_expression)
    layers = get_all_layers(layer_or_layers, known)
    if inputs is not None and not isinstance(inputs, Mapping):
        known[_one_input(layers, "get_output", "input")] = as_theano_expression(inputs)
    outer = _read.get()
    read = {"deterministic"} if outer is None else outer
    read |= _read_by(layers)
    token = _read.set(read)
    try:
        _propagate(layers, known, kwargs)
    finally:
        _read.reset(token)
    if outer is None:
        _warn_of_unread(kwargs, read)
    return _asked(layer_or_layers, known)


def _propagate(layers: Sequence[Layer], known: dict[Any, Any], kwargs: dict[str, Any]) -> None:
    """Add the outputs of ``layers`` to ``known``, which holds the given ones."""
    for layer in layers:
        if layer in known:
            continue
        if isinstance(layer, InputLayer):
            known[layer] = layer.input_var
            continue
        sources = layer.inputs()
        if None in sources and None not in known:
            raise ValueError(f"{layer!r} was built on a shape and has no input layer; give "
                             "get_output a dict from None to its input, or from the layer to its "
                             "output, or build it on an InputLayer")
        values = [known[x] for x in sources]
        known[layer] = layer.get_output_for(
            values if isinstance(layer, MergeLayer) else values[0], **kwargs)


def _given(inputs: Any, convert: Callable[[Any], Any]) -> dict[Any, Any]:
    """The dict ``inputs``, its values converted; an empty one if ``inputs`` is none."""
    if not isinstance(inputs, Mapping):
        return {}
    for key in inputs:
        if key is not None and not isinstance(key, Layer):
            raise TypeError(f"the keys of inputs must be layers, not {key!r}")
    return {layer: convert(x) for layer, x in inputs.items()}


def _one_input(layers: Sequence[Layer], caller: str, what: str) -> Layer | None:
    """The layer that one input without a name is for; None for that of free layers."""
    found: list[Layer] = [layer for layer in layers if isinstance(layer, InputLayer)]
    if len(found) > 1:
        raise ValueError(f"{caller} is given one {what}, but the network has {len(found)} input "
                         f"layers ({', '.join(map(repr, found))}); give a dict from layer to "
                         f"{what}")
    return found[0] if found else None


def _asked(layer_or_layers: Any, known: Mapping[Any, Any]) -> Any:
    if isinstance(layer_or_layers, Layer):
        return known[layer_or_layers]
    return [known[layer] for layer in layer_or_layers]


def get_output_shape(layer_or_layers: Any, input_shapes: Any = None) -> Any:
    """The output shape of a layer, or the list of those of a list of layers.

    input_shapes: None for the shapes given at construction, else a shape for the one input layer
    or a dict from layer to shape, as in ``get_output``.  Raises what ``get_output`` does.
    """
    known = _given(input_shapes, checked_shape)
    layers = get_all_layers(layer_or_layers, known)
    if input_shapes is not None and not isinstance(input_shapes, Mapping):
        known[_one_input(layers, "get_output_shape", "shape")] = checked_shape(input_shapes)
    as_built = not known
    for layer in layers:
        if layer in known:
            continue
        if as_built or isinstance(layer, InputLayer):
            known_shape = layer.output_shape
        elif isinstance(layer, MergeLayer):
            known_shape = layer.get_output_shape_for([
                known.get(x, shape)
                for x, shape in zip(layer.inputs(), layer.input_shapes, strict=True)])
        else:
            known_shape = layer.get_output_shape_for(
                known.get(layer.input_layer, layer.input_shape))
        known[layer] = tuple(known_shape)
    return _asked(layer_or_layers, known)


def get_all_params(layer: Layer | Sequence[Layer], unwrap_shared: bool = True, *,
                   treat_as_input: Any = None, **tags: Any) -> list[Any]:
    """The parameters of every layer that ``layer`` (or a list) needs, each once, inputs first.

    Tags and unwrap_shared filter as in ``Layer.get_params``, treat_as_input as in
    ``get_all_layers``.
    """
    return unique(
        p for each in get_all_layers(layer, treat_as_input)
        for p in each.get_params(unwrap_shared=unwrap_shared, **tags))


def count_params(layer: Layer | Sequence[Layer], **tags: Any) -> int:
    """The number of scalars in the parameters of a network, or in those that have the tags."""
    return sum(
        int(np.prod(p.storage.shape)) for p in get_all_params(layer, **tags))


def get_all_param_values(layer: Layer | Sequence[Layer], **tags: Any) -> list[np.ndarray]:
    """Copies of the values of ``get_all_params``, in its order."""
    return [p.get_value() for p in get_all_params(layer, **tags)]


def set_all_param_values(layer: Layer | Sequence[Layer], values: Sequence[Any], **tags: Any
                         ) -> None:
    """Set the parameters to what ``get_all_param_values`` gave.

    Raises ValueError, before anything is changed, if number, shapes or kinds do not fit.
    """
    params = get_all_params(layer, **tags)
    if len(values) != len(params):
        names = ", ".join(str(p.name or "without a name") for p in params)
        raise ValueError(f"{len(values)} values are given for {len(params)} parameters: {names}")
    arrays = [_value_for(p, v) for p, v in zip(params, values, strict=True)]
    for p, a in zip(params, arrays, strict=True):
        p.set_value(a)


def _value_for(param: Any, value: Any) -> np.ndarray:
    """``value`` as an array for ``param``, whose shape it must have."""
    array, shape = np.asarray(value), param.storage.shape
    if array.shape != shape:
        raise ValueError(f"parameter {param.name or ''} has shape {shape}, but its value "
                         f"has {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"parameter {param.name or ''} holds numbers of {param.dtype}, but its "
                         f"value is an array of {array.dtype}")
    return array.astype(param.dtype)
