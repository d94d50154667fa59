"""Walking a sequence, written once for all recurrent layers, and the face for new cells.

A cell is a subclass of ``Recurrence``: it makes its parameters, and defines ``project``, the part
of a step that needs the input alone, and ``step``, from that and the states to the next states.
All the options come with it: time moved to the front, initial states, padding that leaves the
states as they are, walking backwards, cutting the gradient off, all outputs or the last.

Two options ask for nothing here that the compiler would not do by itself.  ``precompute_input``
computes ``project`` for all steps at once, before the loop; False leaves it inside.
``unroll_scan`` has no effect on the result or the speed; its documented conditions are checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

import tinygraph.tensor as T
from tinygraph import scan
from tinygraph.gradient import grad_clip
from tinygraph.graph import Value, describe
from tinygraph_rnn import init
from tinygraph_rnn.layers.base import (
    Incoming,
    Layer,
    MergeLayer,
    Shape,
    checked_units,
    known_features,
)
from tinygraph_rnn.utils import collect_shared_vars, inspect_kwargs

_ZERO = init.Constant(0.0)


class Recurrence(MergeLayer):
    """A layer that walks a sequence, one ``step`` after the other.

    Inputs: the sequence (batch, time, features...), then the mask (batch, time) if there is one,
    then the initial states that are given by layers.  Output: (batch, time, units).

    num_units         of every state, unless ``state_shape`` says otherwise
    backwards         walk from the end; the output is in the order of the input again
    learn_init        tag the initial states as trainable
    gradient_steps    through how many steps, counted from the last one walked, the gradient goes;
                      -1: all
    grad_clipping     what ``clip`` clips the gradient of a step's sums to, [-grad_clipping,
                      grad_clipping], element by element (Graves 2013, arXiv:1308.0850, p. 6); 0:
                      it does not
    unroll_scan       needs gradient_steps=-1 and a known length, and changes nothing (see above)
    precompute_input  do what needs the input alone for all steps at once, before the loop
    mask_input        a layer whose output (batch, time) is 1 within a sequence and 0 on padding;
                      padding leaves the states as they are
    only_return_final return the state after the last step walked, (batch, units), only

    Every state has an argument ``<state>_init`` (hid_init, cell_init), by default zero: a number;
    an initialiser or array of shape (1, units), the same for all sequences; a variable or
    expression of that shape, or of shape (batch, units), a row for each sequence; or a layer of
    output (batch, units).  A variable is one row for all if its first size is 1 as far as can be
    told when the layer is built; later it must be the size of the batch.
    Raises ValueError where conditions are not met, TypeError for an option that there is not.

        class Sum(Recurrence):                       # h = tanh(x + h')
            def step(self, inputs, states, **kwargs):
                return T.tanh(inputs[0] + states[0])
    """

    state_names: ClassVar[tuple[str, ...]] = ("hid",)  # the first one is the output
    flat_features: ClassVar[bool] = True  # whether ``project`` sees the features as one axis

    def __init__(self, incoming: Incoming, num_units: int, *, backwards: bool = False,
                 learn_init: bool = False, gradient_steps: int = -1, grad_clipping: float = 0,
                 unroll_scan: bool = False, precompute_input: bool = True,
                 mask_input: Layer | None = None, only_return_final: bool = False,
                 name: str | None = None, **inits: Any) -> None:
        starts = {key: inits.pop(f"{key}_init", _ZERO) for key in self.state_names}
        if inits:
            raise TypeError(f"{type(self).__name__} has no argument {', '.join(inits)}")
        if mask_input is not None and not isinstance(mask_input, (Layer, tuple)):
            raise TypeError(f"mask_input is of type {type(mask_input).__name__}; it must be a "
                            "layer, such as InputLayer((None, None), mask)")
        incomings: list[Any] = [incoming] if mask_input is None else [incoming, mask_input]
        given = [start for start in starts.values() if isinstance(start, Layer)]
        super().__init__([*incomings, *given], name)
        self.get_output_kwargs = [*inspect_kwargs(self.project), *inspect_kwargs(self.step)]
        self.num_units = checked_units(num_units)
        self.backwards, self.learn_init = backwards, learn_init
        self.gradient_steps, self.grad_clipping = gradient_steps, grad_clipping
        self.unroll_scan, self.precompute_input = unroll_scan, precompute_input
        self.mask_input, self.only_return_final = mask_input, only_return_final
        check_sequence(self.input_shapes[0])
        self._check_options(self.input_shapes[0])
        self._starts: list[Any] = []
        self._spread: set[str] = set()
        for key, start in reversed(starts.items()):
            setattr(self, f"{key}_init", self._start_from(key, start))

    def _check_options(self, shape: Shape) -> None:
        steps = self.gradient_steps
        if self.unroll_scan and steps != -1:
            raise ValueError(f"gradient_steps is {steps}, but unroll_scan=True always takes the "
                             "gradient through all steps: gradient_steps must be -1")
        if self.unroll_scan and shape[1] is None:
            raise ValueError(f"the sequence length of the input of shape {shape} is not known, but "
                             "unroll_scan=True needs it: give an int, or leave unroll_scan False")
        if not isinstance(steps, (int, np.integer)) or steps == 0 or steps < -1:
            raise ValueError(f"gradient_steps is {steps}; it must be a positive int, or -1 for all "
                             "steps")
        if self.grad_clipping and self.grad_clipping < 0:
            raise ValueError(f"grad_clipping is {self.grad_clipping}; it must be positive, or 0 "
                             "for none")
        if self.mask_input is not None and not may_equal(self.input_shapes[1], shape[:2]):
            raise ValueError(f"the mask has shape {self.input_shapes[1]}; for an input of shape "
                             f"{shape} it must be {shape[:2]}, (batch, time)")

    # --- what a cell defines ----------------------------------------------------------------

    def project(self, x: Any, **kwargs: Any) -> Any:
        """What a step needs of the input alone: an expression or a list of them.  ``x`` is one
        step (batch, features) or all of them (time, batch, features).  As it stands, x itself."""
        return x

    def step(self, inputs: Sequence[Any], states: Sequence[Any], **kwargs: Any) -> Any:
        """The next states, in the order of ``state_names``, from the list of what ``project``
        gave for this step and the states before it; a single one may stand without a list.
        Keyword arguments, here and in ``project``, are those of ``get_output``."""
        raise NotImplementedError(f"{type(self).__name__}.step")

    def state_shape(self, state: str) -> tuple[int, ...]:
        """The shape of the state of that name, without the batch.  It may read what a
        constructor has set before it calls this class's."""
        return (self.num_units,)

    # --- what a cell may use ----------------------------------------------------------------

    @property
    def num_inputs(self) -> int:
        """The number of features.  Raises ValueError if the input shape does not tell."""
        return known_features(self.input_shapes[0][2:], type(self).__name__)

    def add_param(self, spec: Any, shape: Sequence[int], name: str | None = None, **tags: bool
                  ) -> Any:
        """As of any layer; the initial states stay behind all other parameters."""
        param = super().add_param(spec, shape, name, **tags)
        for start in self._starts:
            self.params[start] = self.params.pop(start)
        return param

    def clip(self, x: Any) -> Any:
        """``x``, its gradient clipped as ``grad_clipping`` says."""
        bound = self.grad_clipping
        return grad_clip(x, -bound, bound) if bound else x

    # --- what is the same for all -----------------------------------------------------------

    def get_output_shape_for(self, input_shapes: list[Shape]) -> Shape:
        batch, time = input_shapes[0][:2]
        state = self.state_shape(self.state_names[0])
        return (batch, *state) if self.only_return_final else (batch, time, *state)

    def get_output_for(self, inputs: list[Any], **kwargs: Any) -> Any:
        """The output for [sequence, mask if any, initial states given by layers]."""
        return self.get_states_for(inputs, **kwargs)[0]

    def get_states_for(self, inputs: list[Any], **kwargs: Any) -> list[Any]:
        """Like ``get_output_for``, for every state: of an LSTM the outputs and the cells."""
        self._check_inputs(inputs)
        x, *rest = inputs
        mask = rest.pop(0) if self.mask_input is not None else None
        batch, time = x.shape[0], x.shape[1]
        x = self._flat(x.dimshuffle(1, 0, *range(2, x.ndim)), 2)
        early = self.precompute_input
        sequences = _listed(self.project(x, **kwargs)) if early else [x]
        count = len(sequences)
        if mask is not None:
            # alloc asserts that the mask has the sequence's sizes; scan would take a longer one.
            sequences = [*sequences, T.alloc(mask, batch, time).dimshuffle(1, 0)]

        def step(*values: Any) -> list[Any]:
            now, states = values[:count], values[len(sequences):]
            new = _listed(self.step(
                now if early else _listed(self.project(now[0], **kwargs)), states, **kwargs))
            if mask is None:
                return new
            kept = values[count]
            return [T.switch(kept.dimshuffle(0, *"x" * (a.ndim - 1)), a, b)
                    for a, b in zip(new, states, strict=True)]

        outs, _ = scan(step, sequences=sequences, outputs_info=self.initial_states(batch, rest),
                       n_steps=time, truncate_gradient=self.gradient_steps,
                       go_backwards=self.backwards, precompute=early, return_list=True,
                       name=self.name or type(self).__name__)
        if self.only_return_final:
            return [out[-1] for out in outs]
        outs = [out[::-1] for out in outs] if self.backwards else outs
        return [out.dimshuffle(1, 0, *range(2, out.ndim)) for out in outs]

    def _check_inputs(self, inputs: Sequence[Any]) -> None:
        shape = self.input_shapes[0]
        if len(inputs) != len(self.input_shapes):
            names = ["the sequence", *(["the mask"] if self.mask_input is not None else []),
                     *(f"{key}_init" for key in self.state_names
                       if isinstance(getattr(self, f"{key}_init"), Layer))]
            raise ValueError(f"{type(self).__name__} is given {len(inputs)} inputs, but it has "
                             f"{len(names)}: {', '.join(names)}")
        if inputs[0].ndim != len(shape):
            raise ValueError(f"{describe(inputs[0])} has {inputs[0].ndim} axes, but the input of "
                             f"shape {shape} has {len(shape)}")

    def advance(self, x: Any, states: Sequence[Any], **kwargs: Any) -> list[Any]:
        """One step by hand: the states behind ``x``, an input (batch, features...), from those
        before it, each (batch, units)."""
        return _listed(self.step(_listed(self.project(self._flat(x, 1), **kwargs)), states,
                                 **kwargs))

    def initial_states(self, batch: Any, given: Sequence[Any] = ()) -> list[Any]:
        """The states before the first step, each (batch, units); ``given`` are the outputs of
        the layers among them."""
        given, out = list(given), []
        for key in self.state_names:
            state = getattr(self, f"{key}_init")
            if isinstance(state, Layer):
                if not given:
                    raise ValueError(f"{key}_init is {state!r}, whose output must be given")
                state = given.pop(0)
            elif key in self._spread and not state.broadcastable[0]:
                state = T.addbroadcast(state, 0)
            out.append(T.alloc(state, batch, *self.state_shape(key)))
        return out

    def _flat(self, x: Any, leading: int) -> Any:
        """``x`` with the features as one axis behind the leading ones."""
        return x.flatten(leading + 1) if self.flat_features and x.ndim > leading + 1 else x

    def _start_from(self, key: str, spec: Any) -> Any:
        """The layer or the parameter that a state starts from."""
        batch, shape = self.input_shapes[0][0], self.state_shape(key)
        if isinstance(spec, Layer):
            if not may_equal(spec.output_shape, (batch, *shape)):
                raise ValueError(f"{key}_init is {spec!r} of shape {spec.output_shape}, but for "
                                 f"an input of shape {self.input_shapes[0]} it must be "
                                 f"{(batch, *shape)}")
            return spec
        if isinstance(spec, (int, float, np.generic)):
            spec = init.Constant(float(spec))
        rows: int | None = 1
        if isinstance(spec, Value) and spec.ndim == len(shape) + 1:
            rows = _rows(spec)
            if rows not in (1, None) and batch not in (rows, None):
                raise ValueError(f"{key}_init is {describe(spec)} with {rows} rows; it must have "
                                 f"one for all sequences, or {batch}, one for each sequence of "
                                 f"the input of shape {self.input_shapes[0]}")
        if rows == 1:
            self._spread.add(key)
        start = self.add_param(spec, (rows or 1, *shape), f"{key}_init",
                               trainable=self.learn_init, regularizable=False)
        self._starts.append(start)
        return start


def check_sequence(shape: Sequence[int | None]) -> None:
    """Raises ValueError for the shape of anything but a batch of sequences."""
    if len(shape) < 3:
        raise ValueError(f"a recurrent layer needs an input of shape (batch, time, features...), "
                         f"not {tuple(shape)}")


def may_equal(a: Sequence[int | None], b: Sequence[int | None]) -> bool:
    """Whether two shapes may be the same, None being any size."""
    return len(a) == len(b) and all(
        m is None or n is None or m == n for m, n in zip(a, b, strict=True))


def _listed(x: Any) -> list[Any]:
    return list(x) if isinstance(x, (list, tuple)) else [x]


def _rows(x: Any) -> int | None:
    """The size of the first axis, if that is known now."""
    sizes = {d.symbol: n for v in collect_shared_vars([x])
             for d, n in zip(v.type.dims, v.storage.shape, strict=True)
             if d.symbol is not None}
    first = x.type.dims[0]
    return first.evaluate(sizes) if first.syms() <= sizes.keys() else None
