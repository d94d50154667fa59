"""Convolution of one, two or three dimensions, and its two adjoints.

    output[n, o, i, ...] = sum over c, u, ... of
        input[n, c, i*stride + u*dilation - padding, ...] * filters[o, c, u, ...]

where filters run backwards if they are flipped.  The sum is one product (``Dot``) of the input
seen through windows with the filters; the gradients of it are the gradients of these two.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinygraph.config import config
from tinygraph.dims import Dim, dim, floordiv, prove_equal
from tinygraph.dtypes import promote
from tinygraph.errors import ShapeError
from tinygraph.graph import apply, describe
from tinygraph.ops import views
from tinygraph.ops.arithmetic import broadcast_to, cast
from tinygraph.ops.linalg import dot_general
from tinygraph.ops.sizes import as_dim
from tinygraph.ops.windows import Sliding, Unwindows, Windows
from tinygraph.tensor.shaping import dims_of, pinned
from tinygraph.tensor.variable import as_tensor_variable

AXES = {1: "length", 2: "height, width", 3: "depth, height, width"}
Pads = tuple[tuple[Dim, Dim], ...]


@dataclass(frozen=True)
class Setting:
    """How a convolution over ``rank`` axes goes; the checked arguments of a user's call."""

    rank: int
    border_mode: Any
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    flip: bool
    groups: int
    name: str

    def pads(self, sizes: Sequence[Dim]) -> Pads:
        """The zeros before and after each axis for filters of ``sizes``."""
        extents = [(n - 1) * d + 1 for n, d in zip(sizes, self.dilations, strict=True)]
        if self.border_mode == "valid":
            return ((dim(0), dim(0)),) * self.rank
        if self.border_mode == "full":
            return tuple((e - 1, e - 1) for e in extents)
        if self.border_mode == "half":
            return tuple((floordiv(e, dim(2)),) * 2 for e in extents)
        return tuple((dim(a), dim(b)) for a, b in self.border_mode)

    def sliding(self, padded: Sequence[Dim], sizes: Sequence[Dim], first: int) -> Sliding:
        """The windows of filters of ``sizes`` over axes of ``padded`` sizes from ``first`` on."""
        counts = tuple(floordiv(n - (k - 1) * d - 1, dim(s)) + 1 for n, k, d, s in zip(
            padded, sizes, self.dilations, self.strides, strict=True))
        axes = tuple(range(first, first + self.rank))
        return Sliding(axes, counts, tuple(sizes), self.strides, self.dilations)


def setting(rank: int, border_mode: Any = "valid", subsample: Any = None, filter_flip: bool = True,
            filter_dilation: Any = None, num_groups: int = 1, name: str = "") -> Setting:
    """The checked arguments.  Raises ValueError for a border mode that there is not, and for
    strides, dilations or groups below 1."""
    name = name or f"conv{rank}d"
    strides = steps(subsample, rank, "subsample", name)
    dilations = steps(filter_dilation, rank, "filter_dilation", name)
    groups = operator.index(num_groups)
    if groups < 1:
        raise ValueError(f"{name}: num_groups is {groups}; it must be at least 1")
    return Setting(rank, _border(border_mode, rank, name), strides, dilations, bool(filter_flip),
                   groups, name)


def steps(given: Any, rank: int, what: str, name: str) -> tuple[int, ...]:
    """One integer of at least 1 per axis; None is 1, a number stands for all axes."""
    if given is None:
        return (1,) * rank
    if not isinstance(given, (tuple, list)):
        given = (given,) * rank
    found = tuple(operator.index(n) for n in given)
    if len(found) != rank or min(found) < 1:
        raise ValueError(f"{name}: {what} is {given}; it must be {rank} integers of at least 1")
    return found


def _border(mode: Any, rank: int, name: str) -> Any:
    if isinstance(mode, str):
        if mode not in ("valid", "full", "half"):
            raise ValueError(f"{name}: border_mode is {mode!r}; it must be 'valid', 'full', 'half'"
                             ", a number of zeros, or one such number or pair per axis")
        return mode
    if not isinstance(mode, (tuple, list)):
        mode = (mode,) * rank
    pairs = tuple(tuple(map(operator.index, p)) if isinstance(p, (tuple, list))
                  else (operator.index(p),) * 2 for p in mode)
    if len(pairs) != rank or any(len(p) != 2 or min(p) < 0 for p in pairs):
        raise ValueError(f"{name}: border_mode is {mode}; it must be {rank} numbers, or pairs of "
                         "numbers, that are not negative")
    return pairs


# --- the three products -------------------------------------------------------------------------


def convolve(x: Any, filters: Any, s: Setting, input_shape: Any = None, filter_shape: Any = None
             ) -> Any:
    """The convolution of ``x`` (batch, channels, ...) with ``filters`` (outputs, channels per
    group, ...)."""
    x, filters = _operands(s, input=(x, input_shape), filters=(filters, filter_shape))
    x = _with_channels(x, filters, s)
    sizes = filters.type.dims[2:]
    padded = pad(x, s.pads(sizes))
    seen = _named(apply(Windows(s.sliding(padded.type.dims[2:], sizes, 2 + (s.groups > 1))),
                        _grouped(padded, 1, s))[0], x)
    return _ungrouped(dot_general(_seen(s), _filters(s), _output(s), seen,
                                  _weights(filters, s)), 1, s)


def input_gradient(top: Any, filters: Any, s: Setting, input_shape: Any, filter_shape: Any = None
                   ) -> Any:
    """The input whose convolution with ``filters`` has the gradient ``top``: a convolution
    backwards.  input_shape: that of the result; batch and channels may be None."""
    top, filters = _operands(s, output_grad=(top, None), filters=(filters, filter_shape))
    shape = list(input_shape) if isinstance(input_shape, (tuple, list)) else dims_of(
        input_shape, 2 + s.rank)
    _check_length(shape, 2 + s.rank, "input_shape", s)
    sizes = filters.type.dims[2:]
    spatial = tuple(as_dim(n) for n in shape[2:])
    batch = top.type.dims[0] if shape[0] is None else as_dim(shape[0])
    channels = filters.type.dims[1] * s.groups
    if shape[1] is not None and prove_equal(as_dim(shape[1]), channels) is False:
        raise ShapeError(f"{s.name}: input_shape has {shape[1]} channels, but {describe(filters)} "
                         f"take {channels}")
    top = pinned(top, 0, batch)
    top = _agree(top, filters.type.dims[0], s, f"{s.name}: {describe(top)} must have as many "
                 f"channels as {describe(filters)} has filters")
    pads = s.pads(sizes)
    padded = [n + a + b for n, (a, b) in zip(spatial, pads, strict=True)]
    groups = (dim(s.groups),) if s.groups > 1 else ()
    whole = (batch, *groups, filters.type.dims[1], *padded)
    spread = dot_general(_output(s), _filters(s), _seen(s), _grouped(top, 1, s),
                         _weights(filters, s))
    out = apply(Unwindows(whole, s.sliding(padded, sizes, 2 + len(groups))), spread)[0]
    out = _ungrouped(out, 1, s)
    return views.slice_(out, _inside(out, spatial, pads))


def filter_gradient(x: Any, top: Any, s: Setting, filter_shape: Any, input_shape: Any = None
                    ) -> Any:
    """The gradient of filters of ``filter_shape`` where their convolution with ``x`` has the
    gradient ``top``."""
    x, top = _operands(s, input=(x, input_shape), output_grad=(top, None))
    shape = list(filter_shape) if isinstance(filter_shape, (tuple, list)) else dims_of(
        filter_shape, 2 + s.rank)
    _check_length(shape, 2 + s.rank, "filter_shape", s)
    sizes = tuple(as_dim(n) for n in shape[2:])
    if shape[0] is not None:
        top = pinned(top, 1, as_dim(shape[0]))
    if shape[1] is not None:
        x = pinned(x, 1, as_dim(shape[1]) * s.groups)
    padded = pad(x, s.pads(sizes))
    seen = _named(apply(Windows(s.sliding(padded.type.dims[2:], sizes, 2 + (s.groups > 1))),
                        _grouped(padded, 1, s))[0], x)
    out = _ungrouped(dot_general(_seen(s), _output(s), _filters(s), seen, _grouped(top, 1, s)),
                     0, s)
    return _flipped(out, s)


def pad(x: Any, pads: Pads) -> Any:
    """``x`` with zeros before and after each of its last axes."""
    first = x.ndim - len(pads)
    sizes = x.type.dims[first:]
    dims = (*x.type.dims[:first], *(n + a + b for n, (a, b) in zip(sizes, pads, strict=True)))
    starts = (*[dim(0)] * first, *(a for a, _ in pads))
    return views.unslice(x, dims, views.Region(starts, x.type.dims, (1,) * x.ndim))


def _inside(padded: Any, sizes: Sequence[Dim], pads: Pads) -> views.Region:
    """Where the last axes of an array that was padded to ``padded`` lie."""
    first = padded.ndim - len(pads)
    starts = (*[dim(0)] * first, *(a for a, _ in pads))
    return views.Region(starts, (*padded.type.dims[:first], *sizes), (1,) * padded.ndim)


# --- labels: n batch, g group, c channel, o output, i places, u window ----------------------------


def _seen(s: Setting) -> tuple[Any, ...]:
    places, window = _axes(s)
    return ("n", *_group(s), "c", *places[:-1], *window, places[-1])


def _filters(s: Setting) -> tuple[Any, ...]:
    return (*_group(s), "o", "c", *_axes(s)[1])


def _output(s: Setting) -> tuple[Any, ...]:
    return ("n", *_group(s), "o", *_axes(s)[0])


def _axes(s: Setting) -> tuple[list[Any], list[Any]]:
    return [("i", k) for k in range(s.rank)], [("u", k) for k in range(s.rank)]


def _group(s: Setting) -> tuple[str, ...]:
    return ("g",) if s.groups > 1 else ()


def _grouped(x: Any, axis: int, s: Setting) -> Any:
    """``x`` with ``axis`` as two: groups, and the rest."""
    if s.groups == 1:
        return x
    dims = x.type.dims
    rest = floordiv(dims[axis], dim(s.groups))
    if dims[axis].const is not None and dims[axis].const % s.groups:
        raise ShapeError(f"{s.name}: axis {axis} of {describe(x)} has size {dims[axis]}, which "
                         f"num_groups={s.groups} does not divide")
    return views.reshape(x, (*dims[:axis], dim(s.groups), rest, *dims[axis + 1:]))


def _ungrouped(x: Any, axis: int, s: Setting) -> Any:
    """``x`` with ``axis`` and the one after it as one, if there are groups."""
    if s.groups == 1:
        return x
    dims = x.type.dims
    return views.reshape(x, (*dims[:axis], dims[axis] * dims[axis + 1], *dims[axis + 2:]))


def _weights(filters: Any, s: Setting) -> Any:
    return _grouped(_flipped(filters, s), 0, s)


def _flipped(filters: Any, s: Setting) -> Any:
    """The filters as they lie on the input: backwards, if they are flipped."""
    if not s.flip:
        return filters
    dims, ones = filters.type.dims, (1,) * 2
    starts = (dim(0), dim(0), *(n - 1 for n in dims[2:]))
    region = views.Region(starts, dims, (*ones, *(-1 for _ in dims[2:])))
    return _named(views.slice_(filters, region), filters)


# --- what the user gave --------------------------------------------------------------------------


def _operands(s: Setting, **given: Any) -> list[Any]:
    """Variables of one float dtype and of rank + 2 axes, with the sizes that the user told."""
    found = []
    for what, (x, shape) in given.items():
        x = as_tensor_variable(x)
        if x.ndim != s.rank + 2:
            kinds = "filters, channels" if what == "filters" else "batch, channels"
            raise TypeError(f"{s.name}: the {what} must have {s.rank + 2} axes ({kinds}, "
                            f"{AXES[s.rank]}), but {describe(x)} has {x.ndim}")
        found.append(_told(_named(x.as_float(), x), shape, what, s))
    kind = promote(*(x.type.dtype for x in found), float_x=config.floatX)
    return [_named(cast(x, kind), x) for x in found]


def _told(x: Any, shape: Any, what: str, s: Setting) -> Any:
    """``x`` with the sizes of ``shape`` that are not None."""
    if shape is None:
        return x
    shape = list(shape)
    _check_length(shape, x.ndim, f"the shape of the {what}", s)
    sizes = list(x.type.dims)
    for k, n in enumerate(shape):
        if n is not None:
            sizes[k] = as_dim(n)
            if prove_equal(x.type.dims[k], sizes[k]) is False:
                raise ShapeError(f"{s.name}: axis {k} of {describe(x)} has size "
                                 f"{x.type.dims[k]}, but the shape given for the {what} says {n}")
    return _named(broadcast_to(x, sizes), x)


def _named(y: Any, x: Any) -> Any:
    """``y``, which messages call what they call ``x``."""
    if y is not x:
        y.name = x.name
    return y


def _check_length(shape: Sequence[Any], rank: int, what: str, s: Setting) -> None:
    if len(shape) != rank:
        raise ValueError(f"{s.name}: {what} has {len(shape)} entries, not {rank}: {tuple(shape)}")


def _with_channels(x: Any, filters: Any, s: Setting) -> Any:
    each = f" in each of {s.groups} groups" if s.groups > 1 else ""
    return _agree(x, filters.type.dims[1] * s.groups, s, f"{s.name}: {describe(filters)} take "
                  f"{filters.type.dims[1]} channels{each}, which {describe(x)} must have")


def _agree(x: Any, size: Dim, s: Setting, text: str) -> Any:
    """``x``; raises ShapeError where it is known not to have ``size`` channels.  Without groups a
    call asks that of the product."""
    if prove_equal(x.type.dims[1], size) is False:
        raise ShapeError(f"{text}, but its axis 1 has size {x.type.dims[1]}")
    return x if s.groups == 1 else _named(pinned(x, 1, size), x)


# --- the face ------------------------------------------------------------------------------------


def conv1d(input: Any, filters: Any, input_shape: Any = None, filter_shape: Any = None,
           border_mode: Any = "valid", subsample: Any = 1, filter_flip: bool = True,
           filter_dilation: Any = 1, num_groups: int = 1) -> Any:
    """Convolution along one axis: input (batch, channels, length), filters (outputs, channels,
    length), see ``conv2d``."""
    s = setting(1, border_mode, subsample, filter_flip, filter_dilation, num_groups)
    return convolve(input, filters, s, input_shape, filter_shape)


def conv2d(input: Any, filters: Any, input_shape: Any = None, filter_shape: Any = None,
           border_mode: Any = "valid", subsample: Any = (1, 1), filter_flip: bool = True,
           image_shape: Any = None, filter_dilation: Any = (1, 1), num_groups: int = 1) -> Any:
    """Convolution of images.

    input: (batch, channels, height, width);  filters: (outputs, channels / num_groups, height,
    width);  the result: (batch, outputs, height, width).
    input_shape, filter_shape: sizes that are known (None: not), checked in a call.
    border_mode: 'valid' (windows inside the image), 'full' (windows that touch it), 'half' (half a
    filter of zeros around it: odd filters keep the size), or the zeros around it: a number, one
    per axis, or a pair (before, after) per axis.
    subsample: steps between windows.  filter_dilation: steps between a window's elements.
    filter_flip: convolution; False: correlation.  num_groups: channels and outputs in so many
    groups, each of which sees only its own.

    Raises TypeError for ranks, ShapeError for sizes, ValueError for modes that do not fit.
    """
    s = setting(2, border_mode, subsample, filter_flip, filter_dilation, num_groups)
    shape = image_shape if input_shape is None else input_shape
    return convolve(input, filters, s, shape, filter_shape)


def conv3d(input: Any, filters: Any, input_shape: Any = None, filter_shape: Any = None,
           border_mode: Any = "valid", subsample: Any = (1, 1, 1), filter_flip: bool = True,
           filter_dilation: Any = (1, 1, 1), num_groups: int = 1) -> Any:
    """Convolution of volumes: input (batch, channels, depth, height, width), see ``conv2d``."""
    s = setting(3, border_mode, subsample, filter_flip, filter_dilation, num_groups)
    return convolve(input, filters, s, input_shape, filter_shape)


def conv2d_transpose(input: Any, filters: Any, output_shape: Any, filter_shape: Any = None,
                     border_mode: Any = "valid", input_dilation: Any = (1, 1),
                     filter_flip: bool = True, filter_dilation: Any = (1, 1), num_groups: int = 1
                     ) -> Any:
    """Convolution backwards: what ``conv2d`` of an input of ``output_shape`` hands back to it.

    input: (batch, filters, height, width), filters as ``conv2d`` has them, input_dilation: the
    ``subsample`` of that convolution.
    """
    s = setting(2, border_mode, input_dilation, filter_flip, filter_dilation, num_groups,
                "conv2d_transpose")
    return input_gradient(input, filters, s, output_shape, filter_shape)
