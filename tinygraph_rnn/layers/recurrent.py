"""Recurrent layers: sequences of shape (batch, time, features...) in, (batch, time, units) out.

``Recurrence`` walks a sequence: it moves time to the front, starts the state, carries it over
padding, reverses, cuts the gradient off and returns all states or the last.  A layer adds what
differs: its parameters, ``project``, the part of a step that needs the input alone, and ``step``,
from that and the previous state to the next one.

Two options ask for nothing here that the compiler would not do by itself.  ``precompute_input``
computes the input products of all steps at once, before the loop; False leaves them inside it.
``unroll_scan`` has no effect on the result or the speed; its documented conditions are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import tinygraph.tensor as T
from tinygraph import scan
from tinygraph.gradient import grad_clip
from tinygraph_rnn import init, nonlinearities
from tinygraph_rnn.layers import helper
from tinygraph_rnn.layers.base import Incoming, Layer, MergeLayer, Shape, known_product
from tinygraph_rnn.layers.dense import DenseLayer
from tinygraph_rnn.layers.input import InputLayer
from tinygraph_rnn.utils import unique

Nonlinearity = Callable[[Any], Any]

_ZERO = init.Constant(0.0)
_NORMAL = init.Normal(0.1)
_UNIFORM = init.Uniform()


class Gate:
    """How the parameters of a gate start: a gate mixes input, state and perhaps the cell linearly,
    adds a bias and applies a nonlinearity.

    W_in: (features, units).  W_hid: (units, units).  W_cell: the peephole, (units,), or None for
    no peephole.  b: (units,), or None for no bias.  nonlinearity: None for the identity.  Every
    one but the last is an initialiser, array, shared variable or expression.  One Gate may serve
    several gates, each of which draws its own values from initialisers.

    A forget gate starts open with ``Gate(b=init.Constant(5.))`` (Gers, Schmidhuber and Cummins
    2000, Learning to forget).
    """

    def __init__(self, W_in: Any = _NORMAL, W_hid: Any = _NORMAL, W_cell: Any = _NORMAL,
                 b: Any = _ZERO, nonlinearity: Nonlinearity | None = nonlinearities.sigmoid
                 ) -> None:
        self.W_in, self.W_hid, self.W_cell, self.b = W_in, W_hid, W_cell, b
        self.nonlinearity = nonlinearity or nonlinearities.identity


_SIGMOID_GATE = Gate()
_TANH_GATE = Gate(W_cell=None, nonlinearity=nonlinearities.tanh)
_NO_PEEPHOLE = Gate(W_cell=None)


@dataclass(frozen=True)
class Walk:
    """The options that every recurrent layer has (documented at ``Recurrence``)."""

    backwards: bool
    learn_init: bool
    gradient_steps: int
    grad_clipping: float
    unroll_scan: bool
    precompute_input: bool
    mask_input: Layer | None
    only_return_final: bool


class Recurrence(MergeLayer):
    """A layer that walks a sequence.  Inputs: the sequence (batch, time, features...), then the
    mask (batch, time) if there is one, then the initial states that are given by layers.

    backwards         walk from the end; the output is in the order of the input again
    learn_init        tag the initial states as trainable
    gradient_steps    through how many steps, counted from the last one, the gradient goes; -1: all
    grad_clipping     clip what comes back through a step's pre-activations to
                      [-grad_clipping, grad_clipping], element by element (Graves 2013,
                      arXiv:1308.0850, p. 6); 0: do not
    unroll_scan       needs gradient_steps=-1 and a known length, and changes nothing (see above)
    precompute_input  do what needs the input alone for all steps at once, before the loop
    mask_input        a layer whose output (batch, time) is 1 within a sequence and 0 on padding;
                      padding leaves the state as it is
    only_return_final return the state after the last step walked, (batch, units), only

    An initial state is an initialiser, array, shared variable or expression of shape (1, units),
    the same for the whole batch, or a layer of output (batch, units).
    Raises ValueError where conditions are not met.
    """

    state_names: ClassVar[tuple[str, ...]] = ("hid",)
    num_units: int

    def __init__(self, incoming: Incoming, states: dict[str, Any], walk: Walk, name: str | None
                 ) -> None:
        self.states, self.walk = states, walk
        incomings: list[Any] = [incoming]
        if walk.mask_input is not None:
            incomings.append(walk.mask_input)
        incomings += [states[k] for k in self.state_names if isinstance(states[k], Layer)]
        super().__init__(incomings, name)
        shape = self.input_shapes[0]
        _check_sequence(shape)
        self._check_walk(shape)

    def _check_walk(self, shape: Shape) -> None:
        walk = self.walk
        if walk.unroll_scan and walk.gradient_steps != -1:
            raise ValueError(f"gradient_steps is {walk.gradient_steps}, but unroll_scan=True "
                             "always takes the gradient through all steps: gradient_steps must "
                             "be -1")
        if walk.unroll_scan and shape[1] is None:
            raise ValueError(f"the sequence length of the input of shape {shape} is not known, but "
                             "unroll_scan=True needs it: give an int, or leave unroll_scan False")
        if walk.gradient_steps == 0 or walk.gradient_steps < -1:
            raise ValueError(f"gradient_steps is {walk.gradient_steps}; it must be positive, or "
                             "-1 for all steps")
        if walk.grad_clipping < 0:
            raise ValueError(f"grad_clipping is {walk.grad_clipping}; it must be positive, or 0 "
                             "for none")
        if walk.mask_input is not None:
            mask = self.input_shapes[1]
            fits = len(mask) == 2 and all(
                a is None or b is None or a == b for a, b in zip(mask, shape[:2], strict=True))
            if not fits:
                raise ValueError(f"the mask has shape {mask}; for an input of shape {shape} it "
                                 f"must be {shape[:2]}, (batch, time)")

    # --- what a layer defines ---------------------------------------------------------------

    def project(self, x: Any, **kwargs: Any) -> list[Any]:
        """The part of a step that needs the input alone; ``x`` is one step (batch, features...)
        or all of them (time, batch, features...)."""
        raise NotImplementedError(f"{type(self).__name__}.project")

    def step(self, inputs: Sequence[Any], states: Sequence[Any], **kwargs: Any) -> list[Any]:
        """The next states, from one step of what ``project`` gave and the previous states, in
        the order of ``state_names``; the first one is the output."""
        raise NotImplementedError(f"{type(self).__name__}.step")

    def state_shape(self) -> tuple[int, ...]:
        """The shape of the state of one sequence."""
        return (self.num_units,)

    # --- what all layers share --------------------------------------------------------------

    def add_states(self, *names: str) -> None:
        """Make the initial states that are not given by layers into parameters."""
        for key in names:
            spec = self.states[key]
            if not isinstance(spec, Layer):
                spec = self.add_param(spec, (1, *self.state_shape()), f"{key}_init",
                                      trainable=self.walk.learn_init, regularizable=False)
            setattr(self, f"{key}_init", spec)

    def clip(self, x: Any) -> Any:
        """``x``, its gradient clipped as ``grad_clipping`` says."""
        bound = self.walk.grad_clipping
        return grad_clip(x, -bound, bound) if bound else x

    def get_output_shape_for(self, input_shapes: list[Shape]) -> Shape:
        batch, time = input_shapes[0][:2]
        if self.walk.only_return_final:
            return (batch, *self.state_shape())
        return (batch, time, *self.state_shape())

    def get_output_for(self, inputs: list[Any], **kwargs: Any) -> Any:
        """The output for [sequence, mask if any, initial states given by layers]."""
        x, *rest = inputs
        mask = rest.pop(0) if self.walk.mask_input is not None else None
        batch, time = x.shape[0], x.shape[1]
        x = x.dimshuffle(1, 0, *range(2, x.ndim))
        early = self.walk.precompute_input
        sequences = self.project(x, **kwargs) if early else [x]
        count = len(sequences)
        if mask is not None:
            # alloc asserts that the mask has the sequence's sizes; scan would take a longer one.
            sequences = [*sequences, T.alloc(mask, batch, time).dimshuffle(1, 0, *self._spread())]

        def step(*values: Any) -> list[Any]:
            now, states = values[:count], values[len(sequences):]
            new = self.step(now if early else self.project(now[0], **kwargs), states, **kwargs)
            if mask is None:
                return new
            kept = values[count]
            return [T.switch(kept, a, b) for a, b in zip(new, states, strict=True)]

        outs, _ = scan(step, sequences=sequences, outputs_info=self._start(rest, batch),
                       n_steps=time, truncate_gradient=self.walk.gradient_steps,
                       go_backwards=self.walk.backwards, precompute=early, return_list=True,
                       name=self.name or type(self).__name__)
        out = outs[0]
        if self.walk.only_return_final:
            return out[-1]
        if self.walk.backwards:
            out = out[::-1]
        return out.dimshuffle(1, 0, *range(2, out.ndim))

    def _spread(self) -> tuple[str, ...]:
        return ("x",) * len(self.state_shape())

    def _start(self, given: list[Any], batch: Any) -> list[Any]:
        """The initial states, one row for each sequence of the batch."""
        given = list(given)
        out = []
        for key in self.state_names:
            if isinstance(self.states[key], Layer):
                out.append(given.pop(0))
                continue
            state = getattr(self, f"{key}_init")
            if not state.broadcastable[0]:
                state = T.addbroadcast(state, 0)
            out.append(T.alloc(state, batch, *self.state_shape()))
        return out


def _check_sequence(shape: Shape) -> None:
    if len(shape) < 3:
        raise ValueError(f"a recurrent layer needs an input of shape (batch, time, features...), "
                         f"not {shape}")


class _Gated(Recurrence):
    """What LSTM and GRU share: gates by name, with their parameters as attributes
    W_in_to_<gate>, W_hid_to_<gate> and b_<gate>."""

    gate_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, incoming: Incoming, num_units: int, gates: Sequence[Gate],
                 states: dict[str, Any], walk: Walk, name: str | None) -> None:
        super().__init__(incoming, states, walk, name)
        self.num_units = num_units
        features = known_product(self.input_shapes[0][2:], f"{type(self).__name__}")
        for key, gate in zip(self.gate_names, gates, strict=True):
            self._add(f"W_in_to_{key}", gate.W_in, (features, num_units))
            self._add(f"W_hid_to_{key}", gate.W_hid, (num_units, num_units))
            self._add(f"b_{key}", gate.b, (num_units,), regularizable=False)
            setattr(self, f"nonlinearity_{key}", gate.nonlinearity)

    def _add(self, key: str, spec: Any, shape: tuple[int, ...], **tags: bool) -> None:
        """A parameter as an attribute; None where a bias or peephole is left out."""
        setattr(self, key, None if spec is None else self.add_param(spec, shape, key, **tags))

    def project(self, x: Any, **kwargs: Any) -> list[Any]:
        extra = len(self.input_shapes[0]) - 3
        if extra:
            x = x.flatten(x.ndim - extra)
        return [_plus(T.dot(x, getattr(self, f"W_in_to_{key}")), getattr(self, f"b_{key}"))
                for key in self.gate_names]

    def recurrent_products(self, h: Any) -> list[Any]:
        """h W_hid of every gate."""
        return [T.dot(h, getattr(self, f"W_hid_to_{key}")) for key in self.gate_names]

    def activate(self, key: str, x: Any) -> Any:
        """The gate's nonlinearity."""
        return getattr(self, f"nonlinearity_{key}")(x)


def _plus(x: Any, bias: Any) -> Any:
    return x if bias is None else x + bias


class LSTMLayer(_Gated):
    """Long short-term memory with forget gates and peepholes (Hochreiter and Schmidhuber 1997;
    Gers, Schmidhuber and Cummins 2000; in the form of Graves 2013, arXiv:1308.0850):

        i = s_i(x W_xi + h' W_hi + w_ci * c' + b_i)      input gate;  c', h': one step earlier
        f = s_f(x W_xf + h' W_hf + w_cf * c' + b_f)      forget gate
        c = f * c' + i * s_c(x W_xc + h' W_hc + b_c)     cell
        o = s_o(x W_xo + h' W_ho + w_co * c + b_o)       output gate
        h = o * s_h(c)                                   output

    num_units: the number of cells, and of outputs.  ingate, forgetgate, cell, outgate: ``Gate``s.
    nonlinearity: s_h, None for the identity.  cell_init, hid_init: c and h before the first step.
    peepholes: use the gates' W_cell; a gate whose W_cell is None has no peephole.
    grad_clipping clips the sums of products and bias; the peepholes' share is added behind it.
    The other arguments: see ``Recurrence``.
    """

    state_names: ClassVar[tuple[str, ...]] = ("hid", "cell")
    gate_names: ClassVar[tuple[str, ...]] = ("ingate", "forgetgate", "cell", "outgate")

    def __init__(self, incoming: Incoming, num_units: int, ingate: Gate = _SIGMOID_GATE,
                 forgetgate: Gate = _SIGMOID_GATE, cell: Gate = _TANH_GATE,
                 outgate: Gate = _SIGMOID_GATE,
                 nonlinearity: Nonlinearity | None = nonlinearities.tanh, cell_init: Any = _ZERO,
                 hid_init: Any = _ZERO, backwards: bool = False, learn_init: bool = False,
                 peepholes: bool = True, gradient_steps: int = -1, grad_clipping: float = 0,
                 unroll_scan: bool = False, precompute_input: bool = True,
                 mask_input: Layer | None = None, only_return_final: bool = False,
                 name: str | None = None) -> None:
        walk = Walk(backwards, learn_init, gradient_steps, grad_clipping, unroll_scan,
                    precompute_input, mask_input, only_return_final)
        super().__init__(incoming, num_units, (ingate, forgetgate, cell, outgate),
                         {"hid": hid_init, "cell": cell_init}, walk, name)
        self.nonlinearity = nonlinearity or nonlinearities.identity
        self.peepholes = peepholes
        for key, gate in (("ingate", ingate), ("forgetgate", forgetgate), ("outgate", outgate)):
            self._add(f"W_cell_to_{key}", gate.W_cell if peepholes else None, (num_units,))
        self.add_states("cell", "hid")

    def step(self, inputs: Sequence[Any], states: Sequence[Any], **kwargs: Any) -> list[Any]:
        h, c = states
        ingate, forgetgate, cell, outgate = (
            self.clip(a + b) for a, b in zip(inputs, self.recurrent_products(h), strict=True))
        i = self.activate("ingate", self._peep("ingate", ingate, c))
        f = self.activate("forgetgate", self._peep("forgetgate", forgetgate, c))
        c = f * c + i * self.activate("cell", cell)
        o = self.activate("outgate", self._peep("outgate", outgate, c))
        return [o * self.nonlinearity(c), c]

    def _peep(self, key: str, x: Any, c: Any) -> Any:
        weights = getattr(self, f"W_cell_to_{key}")
        return x if weights is None else x + c * weights


class GRULayer(_Gated):
    """Gated recurrent unit (Cho et al. 2014, arXiv:1409.1259):

        r = s_r(x W_xr + h' W_hr + b_r)              reset gate;  h': one step earlier
        u = s_u(x W_xu + h' W_hu + b_u)              update gate
        c = s_c(x W_xc + r * (h' W_hc) + b_c)        candidate
        h = (1 - u) * h' + u * c                     output

    The reset gate is applied behind the product, so that all products with h' are one; Chung et
    al. 2014 (arXiv:1412.3555) apply it before.
    num_units: the number of outputs.  resetgate, updategate, hidden_update: ``Gate``s, whose
    W_cell is not used.  The other arguments: see ``Recurrence``.
    """

    gate_names: ClassVar[tuple[str, ...]] = ("resetgate", "updategate", "hidden_update")

    def __init__(self, incoming: Incoming, num_units: int, resetgate: Gate = _NO_PEEPHOLE,
                 updategate: Gate = _NO_PEEPHOLE, hidden_update: Gate = _TANH_GATE,
                 hid_init: Any = _ZERO, backwards: bool = False, learn_init: bool = False,
                 gradient_steps: int = -1, grad_clipping: float = 0, unroll_scan: bool = False,
                 precompute_input: bool = True, mask_input: Layer | None = None,
                 only_return_final: bool = False, name: str | None = None) -> None:
        walk = Walk(backwards, learn_init, gradient_steps, grad_clipping, unroll_scan,
                    precompute_input, mask_input, only_return_final)
        super().__init__(incoming, num_units, (resetgate, updategate, hidden_update),
                         {"hid": hid_init}, walk, name)
        self.add_states("hid")

    def step(self, inputs: Sequence[Any], states: Sequence[Any], **kwargs: Any) -> list[Any]:
        (h,) = states
        x_r, x_u, x_c = (self.clip(x) for x in inputs)
        h_r, h_u, h_c = (self.clip(x) for x in self.recurrent_products(h))
        r = self.activate("resetgate", x_r + h_r)
        u = self.activate("updategate", x_u + h_u)
        c = self.activate("hidden_update", self.clip(x_c + r * h_c))
        return [(1 - u) * h + u * c]


class CustomRecurrentLayer(Recurrence):
    """h = s(f_x(x) + f_h(h')) with networks for f_x and f_h; h': one step earlier.

    input_to_hidden: a network from (batch, features...) to (batch, units...); with
    precompute_input its batch axis holds all steps of all sequences.  hidden_to_hidden: a network
    from (batch, units...) to the same.  nonlinearity: s, None for the identity.
    The other arguments: see ``Recurrence``.
    Raises ValueError where the shapes of the networks do not fit.
    """

    def __init__(self, incoming: Incoming, input_to_hidden: Layer, hidden_to_hidden: Layer,
                 nonlinearity: Nonlinearity | None = nonlinearities.rectify, hid_init: Any = _ZERO,
                 backwards: bool = False, learn_init: bool = False, gradient_steps: int = -1,
                 grad_clipping: float = 0, unroll_scan: bool = False,
                 precompute_input: bool = True, mask_input: Layer | None = None,
                 only_return_final: bool = False, name: str | None = None) -> None:
        walk = Walk(backwards, learn_init, gradient_steps, grad_clipping, unroll_scan,
                    precompute_input, mask_input, only_return_final)
        super().__init__(incoming, {"hid": hid_init}, walk, name)
        self.input_to_hidden, self.hidden_to_hidden = input_to_hidden, hidden_to_hidden
        self.nonlinearity = nonlinearity or nonlinearities.identity
        self._check_networks()
        self.add_states("hid")

    def _check_networks(self) -> None:
        units = self.state_shape()
        expected = (
            ("input_to_hidden gives", self.input_to_hidden.output_shape[1:], units),
            ("input_to_hidden takes", _entry(self.input_to_hidden).shape[1:],
             self.input_shapes[0][2:]),
            ("hidden_to_hidden takes", _entry(self.hidden_to_hidden).shape[1:], units))
        for what, found, wanted in expected:
            if len(found) != len(wanted) or any(
                    a is not None and b is not None and a != b
                    for a, b in zip(found, wanted, strict=True)):
                raise ValueError(f"{what} samples of shape {found}, but they must have shape "
                                 f"{wanted}")

    def state_shape(self) -> tuple[int, ...]:
        shape = self.hidden_to_hidden.output_shape[1:]
        known_product(shape, "a recurrent state")
        return tuple(n for n in shape if n is not None)

    def get_params(self, unwrap_shared: bool = True, **tags: bool) -> list[Any]:
        """The layer's own parameters, then those of input_to_hidden and hidden_to_hidden."""
        return unique([
            *super().get_params(unwrap_shared, **tags),
            *helper.get_all_params(self.input_to_hidden, unwrap_shared, **tags),
            *helper.get_all_params(self.hidden_to_hidden, unwrap_shared, **tags)])

    def project(self, x: Any, **kwargs: Any) -> list[Any]:
        features = len(self.input_shapes[0]) - 2
        lead = [x.shape[k] for k in range(x.ndim - features)]
        if len(lead) == 2:
            tail = [x.shape[k] for k in range(2, x.ndim)]
            x = x.reshape((lead[0] * lead[1], *tail))
        out = helper.get_output(self.input_to_hidden, x, **kwargs)
        if len(lead) == 2:
            out = out.reshape((*lead, *self.state_shape()))
        return [out]

    def step(self, inputs: Sequence[Any], states: Sequence[Any], **kwargs: Any) -> list[Any]:
        (x,), (h,) = inputs, states
        hidden = helper.get_output(self.hidden_to_hidden, h, **kwargs)
        return [self.nonlinearity(self.clip(x + hidden))]


def _entry(network: Layer) -> InputLayer:
    """The input layer of a network that has one."""
    found = [x for x in helper.get_all_layers(network) if isinstance(x, InputLayer)]
    if len(found) != 1:
        raise ValueError(f"{network!r} must end in one InputLayer, but it has {len(found)}")
    return found[0]


class RecurrentLayer(CustomRecurrentLayer):
    """The simple recurrent network: h = s(x W_x + h' W_h + b); h': one step earlier.

    num_units: the number of outputs.  W_in_to_hid: (features, units).  W_hid_to_hid: (units,
    units).  b: (units,), or None for no bias.  nonlinearity: s, None for the identity.
    The other arguments: see ``Recurrence``.
    """

    def __init__(self, incoming: Incoming, num_units: int, W_in_to_hid: Any = _UNIFORM,
                 W_hid_to_hid: Any = _UNIFORM, b: Any = _ZERO,
                 nonlinearity: Nonlinearity | None = nonlinearities.rectify, hid_init: Any = _ZERO,
                 backwards: bool = False, learn_init: bool = False, gradient_steps: int = -1,
                 grad_clipping: float = 0, unroll_scan: bool = False,
                 precompute_input: bool = True, mask_input: Layer | None = None,
                 only_return_final: bool = False, name: str | None = None) -> None:
        shape = incoming.output_shape if isinstance(incoming, Layer) else tuple(incoming)
        _check_sequence(shape)
        prefix = "" if name is None else f"{name}."
        in_to_hid = DenseLayer(
            InputLayer((None, *shape[2:])), num_units, W_in_to_hid, b, None,
            name=f"{prefix}input_to_hidden")
        hid_to_hid = DenseLayer(
            InputLayer((None, num_units)), num_units, W_hid_to_hid, None, None,
            name=f"{prefix}hidden_to_hidden")
        super().__init__(
            incoming, in_to_hid, hid_to_hid, nonlinearity, hid_init, backwards, learn_init,
            gradient_steps, grad_clipping, unroll_scan, precompute_input, mask_input,
            only_return_final, name)
        self.num_units = num_units
        self.W_in_to_hid, self.b = in_to_hid.W, in_to_hid.b
        self.W_hid_to_hid = hid_to_hid.W
