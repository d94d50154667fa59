"""The layers of one step, and layers on top of each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

import tinygraph.tensor as T
from tinygraph import shared
from tinygraph.compile.variables import SharedVariable
from tinygraph.gradient import grad_clip
from tinygraph.graph import Value, describe
from tinygraph_rnn.cells.dropout import Dropout, apply_dropout
from tinygraph_rnn.random import get_rng
from tinygraph_rnn.utils import floatX

Activation = Callable[[Any], Any]


def create_shared(out_size: int, in_size: int | None = None, name: str | None = None) -> Any:
    """A shared vector (out_size,) or matrix (out_size, in_size) of floatX, normally distributed
    with standard deviation 1 / out_size (drawn from ``tinygraph_rnn.random``)."""
    shape = (out_size,) if in_size is None else (out_size, in_size)
    return shared(floatX(get_rng().normal(0.0, 1.0 / out_size, size=shape)), name=name)


def clip_gradient(x: Any, bound: float) -> Any:
    """``x``; what comes back through it is clipped to [-bound, bound], element by element."""
    return grad_clip(x, -bound, bound)


def carry_over_padding(mask: Any, new: Any, old: Any) -> Any:
    """``new`` where ``mask`` is not 0, and ``old`` where it is: what a step over padding returns,
    so that padding leaves the state alone, whatever stands there.

    new, old: states of one step, (units,) with a scalar mask or (batch, units) with a mask
    (batch,); or lists of such states.  An old state may be a vector for all rows of a batch.

    Raises ValueError for lists of different lengths, TypeError for a mask of another rank.
    """
    if isinstance(new, (list, tuple)):
        if len(new) != len(old):
            raise ValueError(f"carry_over_padding: {len(new)} new states are given, but "
                             f"{len(old)} old ones")
        return [carry_over_padding(mask, a, b) for a, b in zip(new, old, strict=True)]
    mask, new, old = (T.as_tensor_variable(v) for v in (mask, new, old))
    if mask.ndim != new.ndim - 1:
        what = "a scalar" if new.ndim == 1 else f"{new.ndim - 1} axes"
        raise TypeError(f"carry_over_padding: the mask {describe(mask)} must have one axis less "
                        f"than the state {describe(new)}: {what}")
    return T.switch(mask.dimshuffle(*range(mask.ndim), "x"), new, _over_batch(old, new))


def _over_batch(h: Any, x: Any) -> Any:
    """The state ``h`` with one row for each row of the batch ``x``."""
    return T.alloc(h, x.shape[0], h.shape[0]) if x.ndim > h.ndim else h


def _joined(x: Any, h: Any) -> Any:
    return T.concatenate([x, h], axis=x.ndim - 1)


class Layer:
    """y = activation(W x + b): not recurrent.

    ``linear_matrix`` is W, (hidden_size, input_size), ``bias_matrix`` b, (hidden_size,).
    activation: sees (units,) or (units, batch); it may be set later.
    clip_gradients: a bound for what comes back through the input, element by element, or False.
    In a recurrent cell it holds for x and for h', for what all gates send back together.
    """

    is_recursive: ClassVar[bool] = False
    activation: Activation

    def __init__(self, input_size: int, hidden_size: int, activation: Activation,
                 clip_gradients: float | bool = False) -> None:
        self.input_size, self.hidden_size = input_size, hidden_size
        self.activation = activation
        self.clip_gradients = clip_gradients
        self.create_variables()

    def create_variables(self) -> None:
        """Make the parameters."""
        self._affine(self.input_size)

    def _affine(self, inputs: int) -> None:
        name = type(self).__name__
        self.linear_matrix = create_shared(self.hidden_size, inputs, f"{name}.linear_matrix")
        self.bias_matrix = create_shared(self.hidden_size, name=f"{name}.bias_matrix")

    def _clipped(self, x: Any) -> Any:
        return x if self.clip_gradients is False else clip_gradient(x, self.clip_gradients)

    def _apply(self, x: Any) -> Any:
        """activation(W x + b) of a sample or a batch."""
        if x.ndim == 1:
            return self.activation(T.dot(self.linear_matrix, x) + self.bias_matrix)
        return self.activation(T.dot(self.linear_matrix, x.T) + self.bias_matrix[:, None]).T

    def activate(self, x: Any) -> Any:
        """The output for an input (features,) or (batch, features)."""
        return self._apply(self._clipped(x))

    @property
    def params(self) -> list[Any]:
        """The shared variables to learn.  Setting it copies values, from shared variables or
        arrays; ValueError where their number or a shape is another."""
        return [self.linear_matrix, self.bias_matrix]

    @params.setter
    def params(self, values: Sequence[Any]) -> None:
        _set_values(self.params, values)


def _set_values(params: Sequence[Any], values: Sequence[Any]) -> None:
    """Copy ``values`` into ``params``: all or none."""
    arrays = [np.asarray(v.get_value() if isinstance(v, SharedVariable) else v) for v in values]
    if len(arrays) != len(params):
        raise ValueError(f"{len(arrays)} values are given for {len(params)} parameters")
    for p, a in zip(params, arrays, strict=True):
        shape = p.storage.shape
        if a.shape != shape:
            raise ValueError(f"{describe(p)} has shape {shape}, but its value has {a.shape}")
    for p, a in zip(params, arrays, strict=True):
        p.set_value(a.astype(p.dtype))


class Embedding(Layer):
    """Rows of the matrix ``embedding_matrix`` (vocabulary_size, hidden_size) by their numbers:
    an integer scalar gives (hidden_size,), a vector of n (n, hidden_size)."""

    def __init__(self, vocabulary_size: int, hidden_size: int) -> None:
        self.vocabulary_size = vocabulary_size
        super().__init__(vocabulary_size, hidden_size, lambda x: x)

    def create_variables(self) -> None:
        self.embedding_matrix = create_shared(self.vocabulary_size, self.hidden_size,
                                              "Embedding.embedding_matrix")

    def activate(self, x: Any) -> Any:
        """The rows of the numbers ``x``."""
        return self.embedding_matrix[x]

    @property
    def params(self) -> list[Any]:
        """The embedding matrix.  Setting it copies the value."""
        return [self.embedding_matrix]

    @params.setter
    def params(self, values: Sequence[Any]) -> None:
        _set_values(self.params, values)


class RNN(Layer):
    """h = activation(W [x, h'] + b);  h': one step earlier.

    ``initial_hidden_state`` (state_size,) is a shared variable to start a scan from.
    """

    is_recursive = True

    @property
    def state_size(self) -> int:
        """The length of the state of one sample."""
        return self.hidden_size

    def create_variables(self) -> None:
        self._affine(self.input_size + self.hidden_size)
        self._start()

    def _start(self) -> None:
        self.initial_hidden_state = create_shared(
            self.state_size, name=f"{type(self).__name__}.initial_hidden_state")

    def _read(self, x: Any, h: Any) -> tuple[Any, Any]:
        """The input and the state as a cell reads them.  They are clipped here and not in its
        gates: so what comes back from all of them is bounded, and it is one product."""
        return self._clipped(x), self._clipped(_over_batch(h, x))

    def activate(self, x: Any, h: Any) -> Any:  # type: ignore[override]
        """The new state for an input and the old state."""
        return self._apply(_joined(*self._read(x, h)))

    def postprocess_activation(self, state: Any, x: Any = None, h: Any = None) -> Any:
        """What the layer above reads of a new state ``state``, from input ``x`` and state ``h``."""
        return state


class _Gated(RNN):
    """A cell whose parameters are those of the layers in ``internal_layers``."""

    internal_layers: list[Layer]

    def _gate(self, activation: Activation, size: int | None = None) -> Layer:
        return Layer(self.input_size + self.hidden_size, size or self.hidden_size, activation)

    @property
    def params(self) -> list[Any]:
        """The parameters of the gates, in their order.  Setting it copies values."""
        return [p for layer in self.internal_layers for p in layer.params]

    @params.setter
    def params(self, values: Sequence[Any]) -> None:
        _set_values(self.params, values)


class LSTM(_Gated):
    """Long short-term memory without peepholes (Graves 2013, arXiv:1308.0850, without its
    diagonal matrices).  With z = [x, h'], and c', h' one step earlier:

        c = forget_gate(z) * c' + in_gate(z) * in_gate2(z)
        h = out_gate(z) * tanh(c)

    The state is [c, h], (2 hidden_size,); the layer above reads h.  Every gate is a ``Layer``,
    whose ``activation`` may be set: a sigmoid, but ``activation`` for in_gate2.
    """

    @property
    def state_size(self) -> int:
        """The length of the state of one sample."""
        return 2 * self.hidden_size

    def create_variables(self) -> None:
        self.in_gate = self._gate(T.nnet.sigmoid)
        self.forget_gate = self._gate(T.nnet.sigmoid)
        self.in_gate2 = self._gate(self.activation)
        self.out_gate = self._gate(T.nnet.sigmoid)
        self.internal_layers = [self.in_gate, self.forget_gate, self.in_gate2, self.out_gate]
        self._start()

    def activate(self, x: Any, h: Any) -> Any:  # type: ignore[override]
        """The new state [c, h] for an input and the old state."""
        h = _over_batch(h, x)
        z = _joined(*self._read(x, self.postprocess_activation(h)))
        c = (self.forget_gate.activate(z) * h[..., :self.hidden_size]
             + self.in_gate.activate(z) * self.in_gate2.activate(z))
        return _joined(c, self.out_gate.activate(z) * T.tanh(c))

    def postprocess_activation(self, state: Any, x: Any = None, h: Any = None) -> Any:
        """h of a state [c, h]."""
        return state[..., self.hidden_size:]


class GRU(_Gated):
    """Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078).  With h' one step earlier:

        r = reset_layer([x, h'])
        u = memory_interpolation_layer([x, h'])
        h = (1 - u) * h' + u * memory_to_memory_layer([x, r * h'])

    Every one is a ``Layer``, whose ``activation`` may be set: a sigmoid, but ``activation`` for
    memory_to_memory_layer.
    """

    def create_variables(self) -> None:
        self.reset_layer = self._gate(T.nnet.sigmoid)
        self.memory_interpolation_layer = self._gate(T.nnet.sigmoid)
        self.memory_to_memory_layer = self._gate(self.activation)
        self.internal_layers = [self.reset_layer, self.memory_interpolation_layer,
                                self.memory_to_memory_layer]
        self._start()

    def activate(self, x: Any, h: Any) -> Any:  # type: ignore[override]
        """The new state for an input and the old state."""
        h = _over_batch(h, x)
        x, seen = self._read(x, h)
        z = _joined(x, seen)
        r, u = self.reset_layer.activate(z), self.memory_interpolation_layer.activate(z)
        return (1 - u) * h + u * self.memory_to_memory_layer.activate(_joined(x, r * seen))


class GatedInput(_Gated):
    """One gate for the whole input: g = sigmoid(w [x, h] + b), a scalar for each sample, where h
    is given by the caller; the layer above reads g * x.  It has no state of its own, so its place
    among ``prev_hiddens`` is taken by whatever it is to look at."""

    def create_variables(self) -> None:
        self.in_gate = self._gate(T.nnet.sigmoid, 1)
        self.internal_layers = [self.in_gate]

    def activate(self, x: Any, h: Any) -> Any:  # type: ignore[override]
        """The gate: a scalar, or (batch, 1) with an axis that broadcasts."""
        gate = self.in_gate.activate(_joined(*self._read(x, h)))
        return gate[0] if gate.ndim == 1 else gate[:, 0][:, None]

    def postprocess_activation(self, state: Any, x: Any = None, h: Any = None) -> Any:
        """The input, gated."""
        return state * x


class StackedCells:
    """Cells on top of each other, each reading what the one below gives.

    input_size: features.  layers: the sizes of the cells.  activation, clip_gradients: theirs.
    ``layers`` is a list of layers that may be changed: other layers may be put in and added.
    """

    def __init__(self, input_size: int, celltype: type[RNN] = RNN,
                 layers: Sequence[int] | None = None, activation: Activation = lambda x: x,
                 clip_gradients: float | bool = False) -> None:
        self.input_size, self.clip_gradients = input_size, clip_gradients
        self.layers: list[Any] = []
        for size in layers or ():
            self.layers.append(celltype(input_size, size, activation, clip_gradients))
            input_size = size

    @property
    def params(self) -> list[Any]:
        """The parameters of all layers, in order.  Setting it copies values, from shared
        variables or arrays; ValueError where their number or a shape is another."""
        return [p for layer in self.layers for p in layer.params]

    @params.setter
    def params(self, values: Sequence[Any]) -> None:
        _set_values(self.params, values)

    def initial_states(self, batch: Any = None) -> list[Any]:
        """The start states of the layers that have one: the shared vectors, or, with ``batch``
        (an int or integer scalar), matrices of so many equal rows, of which the time is the
        step's.  For ``outputs_info``."""
        starts = [layer.initial_hidden_state for layer in self.layers
                  if hasattr(layer, "initial_hidden_state")]
        return starts if batch is None else [T.alloc(h, batch, h.shape[0]) for h in starts]

    def forward(self, x: Any, prev_hiddens: Sequence[Any] | None = None, dropout: Any = None,
                mask: Any = None) -> list[Any]:
        """The new states of all layers (of a layer without state: its output).

        x: (features,) or (batch, features).
        prev_hiddens: the old states, one for each layer or one for each recurrent layer; the start
        states unless given.
        dropout: masks as ``MultiDropout`` gives them, one for the input of each layer, or numbers
        or None in their place; layers beyond the list have none.  Or the probability of dropping,
        a number or scalar variable: then masks are drawn here (inside a scan anew at each step),
        but none for integers, which an Embedding reads.
        mask: a scalar, or (batch,): 0 where this step is padding; states stay there as they were.

        Raises ValueError for another number of states, TypeError for a dropout mask
        for integers.
        """
        states = self._states(prev_hiddens)
        new, below = [], T.as_tensor_variable(x)
        for k, layer in enumerate(self.layers):
            seen = apply_dropout(below, self._mask(below, dropout, k))
            if not layer.is_recursive:
                below = layer.activate(seen)
                new.append(below)
                continue
            old = self._state(layer, k, states)
            state = layer.activate(seen, old)
            if mask is not None and hasattr(layer, "initial_hidden_state"):
                state = carry_over_padding(mask, state, old)
            new.append(state)
            below = layer.postprocess_activation(state, below, old)
        return new

    def _states(self, given: Sequence[Any] | None) -> dict[int, Any]:
        """Old states by the number of their layer."""
        if given is None:
            return {}
        recurrent = [k for k, layer in enumerate(self.layers) if layer.is_recursive]
        places = recurrent if len(given) == len(recurrent) else range(len(self.layers))
        if len(given) != len(places):
            raise ValueError(f"forward: {len(given)} states are given, but there are "
                             f"{len(recurrent)} recurrent layers among {len(self.layers)}; give "
                             "one state for each recurrent layer")
        return dict(zip(places, given, strict=True))

    def _state(self, layer: Any, k: int, states: dict[int, Any]) -> Any:
        state = states.get(k)
        if state is None:
            state = getattr(layer, "initial_hidden_state", None)
        if state is None:
            raise ValueError(f"forward: layer {k}, {type(layer).__name__}, has no start state; "
                             "pass prev_hiddens with what it is to look at")
        return state

    def _mask(self, x: Any, dropout: Any, k: int) -> Any:
        """The mask of dropout for ``x``, the input of layer ``k``."""
        integers = not x.type.dtype.is_float
        if isinstance(dropout, (list, tuple)):
            mask = dropout[k] if k < len(dropout) else None
            if integers and mask is not None:
                raise TypeError(f"forward: layer {k}, {type(self.layers[k]).__name__}, reads the "
                                f"integers {describe(x)}, of which dropout can drop nothing; give "
                                "None in the place of their mask")
            return mask
        if integers or dropout is None or (not isinstance(dropout, Value) and dropout == 0):
            return None
        return Dropout(x.shape, dropout)
