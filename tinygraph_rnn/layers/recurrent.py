"""Recurrent layers: sequences of shape (batch, time, features...) in, (batch, time, units) out.

Every layer here is a cell on ``Recurrence``, which walks the sequence; see there what the options
that all share mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import tinygraph.tensor as T
from tinygraph_rnn import init, nonlinearities
from tinygraph_rnn.layers import helper
from tinygraph_rnn.layers.base import (
    Incoming,
    Layer,
    Nonlinearity,
    checked_nonlinearity,
    checked_units,
    elements,
)
from tinygraph_rnn.layers.dense import DenseLayer
from tinygraph_rnn.layers.input import InputLayer
from tinygraph_rnn.layers.recurrence import Recurrence, check_sequence, may_equal
from tinygraph_rnn.utils import unique

__all__ = ["CustomRecurrentLayer", "GRULayer", "Gate", "GatedRecurrence", "LSTMLayer",
           "RecurrentLayer"]

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
        self.nonlinearity = checked_nonlinearity(nonlinearity)


_SIGMOID_GATE = Gate()
_TANH_GATE = Gate(W_cell=None, nonlinearity=nonlinearities.tanh)
_NO_PEEPHOLE = Gate(W_cell=None)


class GatedRecurrence(Recurrence):
    """A cell with gates, on which LSTM, GRU and users' cells are written.

    gates: ``Gate``s by name.  Every one has its parameters as attributes W_in_to_<gate>,
    W_hid_to_<gate> and b_<gate> (None without a bias).  ``project`` gives x W_in + b of each, in
    the order of ``gates``; a subclass writes ``step``.  The other arguments: see ``Recurrence``.
    """

    def __init__(self, incoming: Incoming, num_units: int, gates: Mapping[str, Gate],
                 **options: Any) -> None:
        super().__init__(incoming, num_units, **options)
        self.gates = dict(gates)
        for key, gate in gates.items():
            if not isinstance(gate, Gate):
                raise TypeError(f"{key} is {gate!r}; it must be a Gate, such as "
                                "Gate(b=init.Constant(1.0))")
            for name, spec, size in (("W_in", gate.W_in, self.num_inputs),
                                     ("W_hid", gate.W_hid, self.num_units)):
                name = f"{name}_to_{key}"
                setattr(self, name, self.add_param(spec, (size, self.num_units), name))
            self._add(f"b_{key}", gate.b, (num_units,), regularizable=False)
            setattr(self, f"nonlinearity_{key}", gate.nonlinearity)

    def _add(self, key: str, spec: Any, shape: tuple[int, ...], **tags: bool) -> None:
        """A parameter as an attribute; None where a bias or peephole is left out."""
        setattr(self, key, None if spec is None else self.add_param(spec, shape, key, **tags))

    def project(self, x: Any, **kwargs: Any) -> list[Any]:
        products = [T.dot(x, getattr(self, f"W_in_to_{key}")) for key in self.gates]
        biases = [getattr(self, f"b_{key}") for key in self.gates]
        return [a if b is None else a + b for a, b in zip(products, biases, strict=True)]

    def recurrent_products(self, h: Any) -> list[Any]:
        """h W_hid of every gate."""
        return [T.dot(h, getattr(self, f"W_hid_to_{key}")) for key in self.gates]

    def activate(self, key: str, x: Any, cell: Any = None) -> Any:
        """The gate's nonlinearity of ``x``, and of its peephole on ``cell`` where it has one."""
        peephole = None if cell is None else getattr(self, f"W_cell_to_{key}")
        return getattr(self, f"nonlinearity_{key}")(x if peephole is None else x + cell * peephole)


class LSTMLayer(GatedRecurrence):
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

    def __init__(self, incoming: Incoming, num_units: int, ingate: Gate = _SIGMOID_GATE,
                 forgetgate: Gate = _SIGMOID_GATE, cell: Gate = _TANH_GATE,
                 outgate: Gate = _SIGMOID_GATE,
                 nonlinearity: Nonlinearity | None = nonlinearities.tanh, cell_init: Any = _ZERO,
                 hid_init: Any = _ZERO, backwards: bool = False, learn_init: bool = False,
                 peepholes: bool = True, gradient_steps: int = -1, grad_clipping: float = 0,
                 unroll_scan: bool = False, precompute_input: bool = True,
                 mask_input: Layer | None = None, only_return_final: bool = False,
                 name: str | None = None) -> None:
        gates = {"ingate": ingate, "forgetgate": forgetgate, "cell": cell, "outgate": outgate}
        super().__init__(
            incoming, num_units, gates, hid_init=hid_init, cell_init=cell_init, backwards=backwards,
            learn_init=learn_init, gradient_steps=gradient_steps, grad_clipping=grad_clipping,
            unroll_scan=unroll_scan, precompute_input=precompute_input, mask_input=mask_input,
            only_return_final=only_return_final, name=name)
        self.nonlinearity = checked_nonlinearity(nonlinearity)
        self.peepholes = peepholes
        for key in ("ingate", "forgetgate", "outgate"):
            self._add(f"W_cell_to_{key}", gates[key].W_cell if peepholes else None, (num_units,))

    def step(self, inputs: Sequence[Any], states: Sequence[Any], **kwargs: Any) -> list[Any]:
        h, c = states
        ingate, forgetgate, cell, outgate = (
            self.clip(a + b) for a, b in zip(inputs, self.recurrent_products(h), strict=True))
        i = self.activate("ingate", ingate, c)
        f = self.activate("forgetgate", forgetgate, c)
        c = f * c + i * self.activate("cell", cell)
        o = self.activate("outgate", outgate, c)
        return [o * self.nonlinearity(c), c]


class GRULayer(GatedRecurrence):
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

    def __init__(self, incoming: Incoming, num_units: int, resetgate: Gate = _NO_PEEPHOLE,
                 updategate: Gate = _NO_PEEPHOLE, hidden_update: Gate = _TANH_GATE,
                 hid_init: Any = _ZERO, backwards: bool = False, learn_init: bool = False,
                 gradient_steps: int = -1, grad_clipping: float = 0, unroll_scan: bool = False,
                 precompute_input: bool = True, mask_input: Layer | None = None,
                 only_return_final: bool = False, name: str | None = None) -> None:
        gates = {"resetgate": resetgate, "updategate": updategate, "hidden_update": hidden_update}
        super().__init__(
            incoming, num_units, gates, hid_init=hid_init, backwards=backwards,
            learn_init=learn_init, gradient_steps=gradient_steps, grad_clipping=grad_clipping,
            unroll_scan=unroll_scan, precompute_input=precompute_input, mask_input=mask_input,
            only_return_final=only_return_final, name=name)

    def step(self, inputs: Sequence[Any], states: Sequence[Any], **kwargs: Any) -> Any:
        (h,) = states
        x_r, x_u, x_c = (self.clip(x) for x in inputs)
        h_r, h_u, h_c = (self.clip(x) for x in self.recurrent_products(h))
        r = self.activate("resetgate", x_r + h_r)
        u = self.activate("updategate", x_u + h_u)
        c = self.activate("hidden_update", self.clip(x_c + r * h_c))
        return (1 - u) * h + u * c


class CustomRecurrentLayer(Recurrence):
    """h = s(f_x(x) + f_h(h')) with networks for f_x and f_h; h': one step earlier.

    input_to_hidden: a network from (batch, features...) to (batch, units...); with
    precompute_input its batch axis holds all steps of all sequences.  hidden_to_hidden: a network
    from (batch, units...) to the same; its InputLayer may also be of the shape that
    input_to_hidden gives.  nonlinearity: s, None for the identity.
    The other arguments: see ``Recurrence``.
    Raises ValueError where the shapes of the networks do not fit.
    """

    flat_features: ClassVar[bool] = False

    def __init__(self, incoming: Incoming, input_to_hidden: Layer, hidden_to_hidden: Layer,
                 nonlinearity: Nonlinearity | None = nonlinearities.rectify, hid_init: Any = _ZERO,
                 backwards: bool = False, learn_init: bool = False, gradient_steps: int = -1,
                 grad_clipping: float = 0, unroll_scan: bool = False,
                 precompute_input: bool = True, mask_input: Layer | None = None,
                 only_return_final: bool = False, name: str | None = None) -> None:
        self.input_to_hidden, self.hidden_to_hidden = input_to_hidden, hidden_to_hidden
        self.nonlinearity = checked_nonlinearity(nonlinearity)
        for key in ("input_to_hidden", "hidden_to_hidden"):
            if not isinstance(getattr(self, key), Layer):
                raise TypeError(f"{key} is {getattr(self, key)!r}; it must be a layer")
        super().__init__(
            incoming, _state_size(hidden_to_hidden), hid_init=hid_init, backwards=backwards,
            learn_init=learn_init, gradient_steps=gradient_steps, grad_clipping=grad_clipping,
            unroll_scan=unroll_scan, precompute_input=precompute_input, mask_input=mask_input,
            only_return_final=only_return_final, name=name)
        self._check_networks()

    def _check_networks(self) -> None:
        """Raises ValueError unless the networks take and give what they must."""
        shape, units = self.input_shapes[0], self.state_shape("hid")
        batch, time = shape[:2]
        rows, what = batch, "batch"
        if self.precompute_input:
            rows, what = None if batch is None or time is None else batch * time, "batch * time"
        flat, either = ((rows, what),), ((batch, "batch"), (rows, what))
        for name, found, behind, leading in (
                ("input_to_hidden takes", _entry(self.input_to_hidden).shape, shape[2:], flat),
                ("input_to_hidden gives", self.input_to_hidden.output_shape, units, flat),
                # A program may begin it with InputLayer(input_to_hidden.output_shape).
                ("hidden_to_hidden takes", _entry(self.hidden_to_hidden).shape, units, either),
                ("hidden_to_hidden gives", self.hidden_to_hidden.output_shape, units, either)):
            if not any(may_equal(found, (n, *behind)) for n, _ in leading):
                first, what = leading[0]
                raise ValueError(
                    f"{name} shape {found}, but for an input of shape {shape}, a state of shape "
                    f"{units} and precompute_input={self.precompute_input} it must be "
                    f"{(first, *behind)}, ({what}, ...); None fits any size")

    def state_shape(self, state: str) -> tuple[int, ...]:
        return tuple(n for n in self.hidden_to_hidden.output_shape[1:] if n is not None)

    def get_params(self, unwrap_shared: bool = True, **tags: Any) -> list[Any]:
        """The layer's own parameters, then those of input_to_hidden and hidden_to_hidden."""
        return unique([
            *super().get_params(unwrap_shared, **tags),
            *helper.get_all_params(self.input_to_hidden, unwrap_shared, **tags),
            *helper.get_all_params(self.hidden_to_hidden, unwrap_shared, **tags)])

    def project(self, x: Any, **kwargs: Any) -> Any:
        lead = [x.shape[k] for k in range(x.ndim - len(self.input_shapes[0]) + 2)]
        if len(lead) == 1:
            return helper.get_output(self.input_to_hidden, x, **kwargs)
        rows = x.reshape((lead[0] * lead[1], *(x.shape[k] for k in range(2, x.ndim))))
        out = helper.get_output(self.input_to_hidden, rows, **kwargs)
        return out.reshape((*lead, *self.state_shape("hid")))

    def step(self, inputs: Sequence[Any], states: Sequence[Any], **kwargs: Any) -> Any:
        hidden = helper.get_output(self.hidden_to_hidden, states[0], **kwargs)
        return self.nonlinearity(self.clip(inputs[0] + hidden))


def _state_size(network: Layer) -> int:
    """The number of units of the state that hidden_to_hidden gives."""
    shape = network.output_shape
    units = elements(shape[1:])
    if units is None:
        raise ValueError(f"hidden_to_hidden gives shape {shape}, but the sizes of a state behind "
                         "the batch must be known; give ints instead of None to its InputLayer")
    return units


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
        shape = Layer(incoming).input_shape
        check_sequence(shape)
        num_units = checked_units(num_units)
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
        self.W_in_to_hid, self.b = in_to_hid.W, in_to_hid.b
        self.W_hid_to_hid = hid_to_hid.W
