"""``Layer`` and ``MergeLayer``: what every layer is made of.

A layer has inputs (layers, or shapes that stand for them), parameters with tags, an output shape
(per axis an int, or None where only a run tells) and an expression for its output.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Union

import numpy as np

from tinygraph.compile.variables import SharedVariable
from tinygraph.graph import Value
from tinygraph_rnn import nonlinearities
from tinygraph_rnn.utils import collect_shared_vars, create_param, unique

Shape = tuple[int | None, ...]
Incoming = Union["Layer", Shape]
Nonlinearity = Callable[[Any], Any]


class Layer:
    """A layer with one input.

    incoming: a Layer, or the shape of an input that ``get_output_for`` will be given by hand.
    name: prefixed to the names of the parameters.
    To define a layer, write ``get_output_for`` and, where the shape changes,
    ``get_output_shape_for``; make parameters with ``add_param`` in the constructor.

    Attributes: ``input_layer`` (None where a shape was given), ``input_shape``, ``params`` (a dict
    from parameter to its set of tags) and ``get_output_kwargs``, the names of keyword arguments
    that ``get_output_for`` reads out of its ``**kwargs``: ``get_output`` warns of names that no
    layer reads, and knows those that stand in a signature by itself.
    """

    input_layer: Layer | None

    def __init__(self, incoming: Incoming, name: str | None = None) -> None:
        self.name = name
        self.params: dict[Any, set[str]] = {}
        self.get_output_kwargs: list[str] = []
        self.input_layer, self.input_shape = _split(incoming)

    @property
    def output_shape(self) -> Shape:
        """The shape of the output: ints, and None for what only a run tells.

        Raises ValueError where ``get_output_shape_for`` gives symbolic sizes.
        """
        return self._numbers(self.get_output_shape_for(self.input_shape))

    def _numbers(self, shape: Any) -> Shape:
        out = tuple(shape)
        if any(isinstance(n, Value) for n in out):
            raise ValueError(f"get_output_shape_for of a {type(self).__name__} gives {out}, which "
                             "holds symbolic sizes; an output shape is of ints, and None for what "
                             "only a run tells")
        return out

    def inputs(self) -> list[Layer | None]:
        """The layers that feed this one (None where only a shape was given)."""
        return [self.input_layer]

    def add_param(self, spec: Any, shape: Sequence[int], name: str | None = None, **tags: bool
                  ) -> Any:
        """A parameter of this layer, from any ``spec`` that ``utils.create_param`` takes.

        A parameter is tagged ``trainable`` and ``regularizable`` unless told otherwise; any
        other tag may be given as ``tag=True``.
        """
        if name is not None and self.name is not None:
            name = f"{self.name}.{name}"
        param = create_param(spec, shape, name)
        tags = {"trainable": True, "regularizable": True, **tags}
        self.params[param] = {tag for tag, on in tags.items() if on}
        return param

    def get_params(self, unwrap_shared: bool = True, **tags: bool) -> list[Any]:
        """The parameters, in the order they were added.

        ``tag=True`` keeps those that have a tag, ``tag=False`` those that do not.  A parameter
        given as an expression stands for the shared variables in it; with unwrap_shared=False
        it is returned itself.
        """
        found = [
            p for p, own in self.params.items()
            if all((tag in own) == wanted for tag, wanted in tags.items())]
        if not unwrap_shared:
            return found
        return unique(
            v for p in found
            for v in ([p] if isinstance(p, SharedVariable) else collect_shared_vars([p])))

    def get_output_shape_for(self, input_shape: Any) -> Shape:
        """The output shape for a shape of the input; the same one unless overridden."""
        return input_shape

    def get_output_for(self, *args: Any, **kwargs: Any) -> Any:
        """get_output_for(input, **kwargs): the output expression for an input expression (a list
        of them in a MergeLayer).  Keyword arguments are those of ``get_output``
        (``deterministic=True`` and the like)."""
        raise NotImplementedError(f"{type(self).__name__}.get_output_for")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or ''}{self.output_shape}>"


class MergeLayer(Layer):
    """A layer with several inputs: ``incomings`` is a list of layers or shapes, and
    ``get_output_for`` and ``get_output_shape_for`` take lists in the same order.

    Attributes as ``Layer``'s, with lists ``input_layers`` and ``input_shapes``.
    """

    def __init__(self, incomings: Sequence[Incoming], name: str | None = None) -> None:
        self.name = name
        self.params = {}
        self.get_output_kwargs = []
        pairs = [_split(incoming) for incoming in incomings]
        self.input_layers = [layer for layer, _ in pairs]
        self.input_shapes = [shape for _, shape in pairs]

    @property
    def output_shape(self) -> Shape:
        """The shape of the output: ints, and None for what only a run tells."""
        return self._numbers(self.get_output_shape_for(self.input_shapes))

    def inputs(self) -> list[Layer | None]:
        """The layers that feed this one (None where only a shape was given)."""
        return list(self.input_layers)

    def get_output_shape_for(self, input_shapes: Any) -> Shape:
        """The output shape for a list of input shapes."""
        raise NotImplementedError(f"{type(self).__name__}.get_output_shape_for")


def _split(incoming: Incoming) -> tuple[Layer | None, Shape]:
    """The layer, or None, and the shape behind an ``incoming``."""
    if isinstance(incoming, Layer):
        return incoming, incoming.output_shape
    if not isinstance(incoming, (tuple, list)):
        raise TypeError(f"a layer or a shape is needed as input, not {incoming!r}")
    return None, checked_shape(incoming)


def checked_shape(shape: Sequence[Any]) -> Shape:
    """``shape`` as a tuple.  Raises TypeError unless its entries are ints or None, ValueError
    unless the ints are positive."""
    try:
        out = tuple(None if n is None else operator.index(n) for n in shape)
    except TypeError:
        raise TypeError(f"{shape!r} is no shape: every size must be an int, or None where it is "
                        "not known yet") from None
    if any(n is not None and n <= 0 for n in out):
        raise ValueError(f"the shape {out} is not one: every size must be positive, or None where "
                         "it is not known yet")
    return out


def checked_units(units: Any, what: str = "num_units") -> int:
    """The number of units.  Raises ValueError unless it is a positive int."""
    if not isinstance(units, (int, np.integer)) or units <= 0:
        raise ValueError(f"{what} is {units!r}; it must be a positive int")
    return int(units)


def checked_nonlinearity(nonlinearity: Nonlinearity | None) -> Nonlinearity:
    """``nonlinearity``, or the identity for None.  Raises TypeError for what is no function."""
    if nonlinearity is None:
        return nonlinearities.identity
    if isinstance(nonlinearity, type):
        raise TypeError(f"the nonlinearity is the class {nonlinearity.__name__}; write "
                        f"{nonlinearity.__name__}() for one of its functions")
    if not callable(nonlinearity):
        raise TypeError(f"the nonlinearity is {nonlinearity!r}; it must be a function of an "
                        "expression, such as nonlinearities.tanh, or None for the identity")
    return nonlinearity


def elements(shape: Sequence[int | None]) -> int | None:
    """The number of elements of ``shape``, or None where a size is not known."""
    known = [n for n in shape if n is not None]
    return math.prod(known) if len(known) == len(shape) else None


def known_features(shape: Sequence[int | None], what: str) -> int:
    """The number of features of an input that ends in ``shape``.  Raises ValueError if a size is
    not known: the message says that ``what`` needs it."""
    total = elements(shape)
    if total is None:
        raise ValueError(f"{what} needs the number of its input features, but the input shape "
                         f"ends in {tuple(shape)}; give an int instead of None")
    return total


def known_channels(layer: Layer) -> int:
    """The size of axis 1 of the layer's input.  Raises ValueError if it is not known."""
    channels = layer.input_shape[1]
    if channels is None:
        raise ValueError(f"{type(layer).__name__} needs the number of channels, axis 1 of the "
                         f"input, whose shape is {layer.input_shape}; give an int there")
    return channels


def checked_axes(shared_axes: Any, rank: int) -> tuple[int, ...]:
    """The axes, 0 to ``rank`` - 1, that ``shared_axes`` names: an axis or several (negative ones
    count from the end), 'auto' for all but the second, or 'all'.

    Raises ValueError where there is no such axis, or for another word.
    """
    if isinstance(shared_axes, str):
        if shared_axes not in ("auto", "all"):
            raise ValueError(f"shared_axes is {shared_axes!r}; it must be an axis, a tuple of "
                             "axes, 'auto' or 'all'")
        return tuple(k for k in range(rank) if shared_axes == "all" or k != 1)
    axes = [shared_axes] if isinstance(shared_axes, (int, np.integer)) else list(shared_axes)
    if any(not -rank <= k < rank for k in axes):
        raise ValueError(f"shared_axes is {shared_axes!r}, but the input has {rank} axes, 0 to "
                         f"{rank - 1}")
    return tuple(dict.fromkeys(int(k) % rank for k in axes))
