"""Arrays of random numbers as expressions of a stream's state: what each distribution is made of.

The state of a draw is an int64 vector of a key and of a counter of draws.  Element i of a draw is
a function of (i, counter, key) alone (ops/philox.py), written in elementwise ops: it fuses with
what reads it.  Integers, and all that is made of them by exact arithmetic, have the same bits on
every back end; the docstrings say where a value passes through a logarithm.

Every function takes the state first and gives one variable.  ``size`` is an integer, a sequence
of integers and integer scalars, an integer vector, or None: the shape of the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygraph.config import config
from tinygraph.dims import Dim, dim, product
from tinygraph.dtypes import DType, float32, float64, int64, promote
from tinygraph.graph import Value, apply, describe
from tinygraph.ops.arithmetic import (
    broadcast_to,
    broadcast_together,
    cast,
    constant_value,
    elementwise,
    reduce_,
    scalar_constant,
)
from tinygraph.ops.control import Stop
from tinygraph.ops.index import Take
from tinygraph.ops.ordering import Argsort
from tinygraph.ops.sizes import as_dim, iota, size_value
from tinygraph.ops.views import axis_region, reshape, row, slice_
from tinygraph.tensor.reductions import argmin, max_
from tinygraph.tensor.shaping import dims_of, insert_axes
from tinygraph.tensor.variable import Tensor, as_dtype, as_tensor_variable

Dims = tuple[Dim, ...]

# --- bits -----------------------------------------------------------------------------------


def bits(state: Value, dims: Sequence[Dim], half: str = "low") -> Any:
    """64 random bits for every element of an array, int64; ``half`` "low" or "high" gives two
    arrays of independent bits.  No gradient passes."""
    key, draw = row(state, 0), row(state, 1)
    index = reshape(iota(product(tuple(dims)), int64, Tensor), dims)
    return apply(Stop("disconnected"), elementwise(f"philox_{half}", index, draw, key))[0]


def fraction(random: Value, kind: DType) -> Any:
    """Bits as numbers of [0, 1), multiples of 2**-24 (float32) or 2**-53 (float64), exactly."""
    digits = 24 if kind is float32 else 53
    top = elementwise("and", elementwise("right_shift", random, 64 - digits), 2**digits - 1)
    return cast(top, kind) * 2.0**-digits


def _inner_fraction(random: Value) -> Any:
    """Bits as float64 numbers inside of (0, 1): 2**52 of them, evenly spaced, neither end."""
    top = elementwise("and", elementwise("right_shift", random, 12), 2**52 - 1)
    return cast(top, float64) * 2.0**-52 + 2.0**-53


# --- what users pass ------------------------------------------------------------------------


def shape_of(what: str, size: Any, ndim: int | None, *params: Any) -> Dims:
    """The shape of a draw: ``size``, or that of its parameters.

    Raises TypeError for a size that is no integer, ValueError for one below 0, or where ``ndim``
    or the rank of a parameter does not fit.
    """
    given = [p for p in params if isinstance(p, Value)]
    if size is None:
        dims = broadcast_together(given)[0].type.dims if given else ()
    else:
        dims = _sizes(what, size, ndim)
    if ndim is not None and ndim != len(dims):
        raise ValueError(f"{what}: ndim is {ndim}, but size {size!r} has {len(dims)} entries")
    for p in given:
        if p.ndim > len(dims):
            raise ValueError(f"{what}: the parameter {describe(p)} has {p.ndim} axes, but size "
                             f"{size!r} has {len(dims)} entries")
    return dims


def _sizes(what: str, size: Any, ndim: int | None) -> Dims:
    try:
        dims = dims_of(size, ndim)
    except TypeError as problem:
        raise TypeError(f"{what}: size is {size!r}: {problem}") from None
    for d in dims:
        if d.const is not None and d.const < 0:
            raise ValueError(f"{what}: size is {size!r}; a size must not be negative")
    return dims


def _float_dtype(what: str, dtype: Any, *params: Any) -> DType:
    """The dtype asked for, or floatX widened to that of the parameters that are variables."""
    if dtype is None:
        floats = [p.type.dtype for p in params if isinstance(p, Value) and p.type.dtype.is_float]
        return promote(as_dtype("floatX"), *floats, float_x=config.floatX)
    kind = as_dtype(dtype)
    if not kind.is_float:
        raise TypeError(f"{what}: dtype is {kind.name!r}; it must be 'float32' or 'float64'")
    return kind


def _parameter(x: Any) -> Any:
    """A number as it is, anything else as a variable."""
    return x if isinstance(x, (int, float)) and not isinstance(x, bool) else as_tensor_variable(x)


def _as(x: Any, kind: DType, dims: Dims) -> Any:
    """A parameter over the whole draw."""
    value = as_tensor_variable(x, dtype=kind) if not isinstance(x, Value) else cast(x, kind)
    return broadcast_to(value, dims) if value.ndim else value


def _trials(what: str, n: Any) -> Any:
    """A number of trials: an int, or an integer variable.  Raises TypeError, ValueError."""
    value = as_tensor_variable(n)
    if not value.type.dtype.is_int:
        raise TypeError(f"{what}: n is {n!r}; it must be an integer, or a variable of integers")
    known = scalar_constant(value) if value.ndim == 0 else None
    if known is not None and known < 0:
        raise ValueError(f"{what}: n is {n!r}; it must not be negative")
    return value if known is None else int(known)


# --- continuous -----------------------------------------------------------------------------


def uniform(state: Value, size: Any = None, low: Any = 0.0, high: Any = 1.0,
            ndim: int | None = None, dtype: Any = None) -> Any:
    """Numbers of [low, high), floatX unless ``dtype`` or a parameter is wider.

    With the bounds 0 and 1 they are multiples of 2**-24 (float32) or 2**-53 (float64), with the
    same bits on every back end.  Other bounds: low + (high - low) * u, computed in float64 and
    rounded; float32 results then have the same bits too, float64 ones may differ in the last bit.
    Rounding may give ``high`` itself there.  The gradient reaches low and high.
    """
    low, high = _parameter(low), _parameter(high)
    kind = _float_dtype("uniform", dtype, low, high)
    dims = shape_of("uniform", size, ndim, low, high)
    u = fraction(bits(state, dims), kind)
    if not isinstance(low, Value) and not isinstance(high, Value) and (low, high) == (0, 1):
        return u
    low, high = _as(low, float64, dims), _as(high, float64, dims)
    return cast(cast(u, float64) * (high - low) + low, kind)


def _gauss(state: Value, dims: Dims) -> Any:
    """Standard normal numbers, float64, by Box and Muller (1958)."""
    radius = (_inner_fraction(bits(state, dims)).log() * -2.0).sqrt()
    angle = fraction(bits(state, dims, "high"), float64) * (2 * math.pi)
    return radius * angle.cos()


def normal(state: Value, size: Any = None, avg: Any = 0.0, std: Any = 1.0,
           ndim: int | None = None, dtype: Any = None) -> Any:
    """Normal numbers of mean ``avg`` and standard deviation ``std``, floatX unless ``dtype`` or a
    parameter is wider.

    By the method of Box and Muller (1958) on 52 and 53 bits, in float64, then rounded: of float32
    numbers hardly one in a hundred million has another last bit on another back end; float64 ones
    agree to a few units in the last place of a number of size 1.  |z| is at most 8.6.  The
    gradient reaches avg and std.
    """
    avg, std = _parameter(avg), _parameter(std)
    kind = _float_dtype("normal", dtype, avg, std)
    dims = shape_of("normal", size, ndim, avg, std)
    return _scaled(_gauss(state, dims), avg, std, kind, dims)


def _scaled(z: Any, avg: Any, std: Any, kind: DType, dims: Dims) -> Any:
    if isinstance(std, Value) or std != 1:
        z = z * _as(std, float64, dims)
    if isinstance(avg, Value) or avg != 0:
        z = z + _as(avg, float64, dims)
    return cast(z, kind)


CANDIDATES = 12  # all of them are out of bounds once in 10**16 times


def truncated_normal(state: Value, size: Any = None, avg: Any = 0.0, std: Any = 1.0,
                     ndim: int | None = None, dtype: Any = None) -> Any:
    """Normal numbers, drawn again where they are more than two standard deviations from the
    mean: the first of twelve that is not (the mean itself where none is).  Else as ``normal``."""
    avg, std = _parameter(avg), _parameter(std)
    kind = _float_dtype("truncated_normal", dtype, avg, std)
    dims = shape_of("truncated_normal", size, ndim, avg, std)
    several = (dim(CANDIDATES), *dims)
    z = _gauss(state, several)
    turn = broadcast_to(iota(dim(CANDIDATES), int64, Tensor), several, [0])
    first = reduce_("min", elementwise("le", abs(z), 2.0).switch(turn, CANDIDATES), [0])
    chosen = elementwise("eq", turn, first).switch(z, 0.0)
    return _scaled(reduce_("sum", chosen, [0]), avg, std, kind, dims)


# --- discrete -------------------------------------------------------------------------------


def binomial(state: Value, size: Any = None, n: Any = 1, p: Any = 0.5, ndim: int | None = None,
             dtype: Any = "int64") -> Any:
    """How many of ``n`` trials succeed, each with probability ``p``; same bits on every back end.

    n: an integer or a variable of integers.  Takes time in proportion to n.
    """
    n, p = _trials("binomial", n), as_tensor_variable(p)
    kind, dims = as_dtype(dtype), shape_of("binomial", size, ndim, n, p)
    p = _as(p, float64, dims)
    if isinstance(n, int) and n == 1:
        return cast(elementwise("lt", fraction(bits(state, dims), float64), p), kind)
    most = n if isinstance(n, int) or n.ndim == 0 else elementwise("maximum", max_(n), 0)
    trials = (as_dim(most), *dims)
    hits = elementwise("lt", fraction(bits(state, trials), float64), p)
    if isinstance(n, Value) and n.ndim:
        turn = broadcast_to(iota(trials[0], int64, Tensor), trials, [0])
        hits = hits & elementwise("lt", turn, broadcast_to(cast(n, int64), dims))
    return cast(reduce_("sum", cast(hits, int64), [0]), kind)


def random_integers(state: Value, size: Any = None, low: Any = 0, high: Any = 1,
                    ndim: int | None = None, dtype: Any = "int64") -> Any:
    """Integers from ``low`` to ``high``, both included; same bits on every back end.

    A range of m numbers has every one of them with probability 1/m up to 2**-53.  Raises
    ValueError for an empty range, where it is known.
    """
    low, high = _integers("low", low), _integers("high", high)
    a, b = (scalar_constant(x) if x.ndim == 0 else None for x in (low, high))
    if a is not None and b is not None and a > b:
        raise ValueError(f"random_integers: low is {a} and high is {b}; low must not exceed high")
    dims = shape_of("random_integers", size, ndim, low, high)
    low, high = _as(low, int64, dims), _as(high, int64, dims)
    return cast(_below(bits(state, dims), high - low + 1) + low, as_dtype(dtype))


def _integers(name: str, x: Any) -> Any:
    value = as_tensor_variable(x)
    if not value.type.dtype.is_int:
        raise TypeError(f"random_integers: {name} is {x!r}; it must be an integer, or a variable "
                        "of integers")
    return value


def _below(random: Value, count: Any) -> Any:
    """Bits as int64 numbers of [0, count): a product of a fraction below 1, which never rounds up
    to count."""
    return cast(fraction(random, float64) * cast(count, float64), int64)


def multinomial(state: Value, size: Any = None, n: Any = 1, pvals: Any = None,
                ndim: int | None = None, dtype: Any = "int64") -> Any:
    """How often each class of the last axis of ``pvals`` comes up in ``n`` draws.

    The result has the shape size + (classes,); without ``size`` that of ``pvals``.  Only the
    ratios of pvals matter.  Of exponential numbers of rates pvals the smallest wins; where two
    agree to the last bits another back end may see another winner.
    """
    pvals = _probabilities("multinomial", pvals)
    n = _trials("multinomial", n)
    if isinstance(n, Value) and n.ndim:
        raise TypeError(f"multinomial: n is {describe(n)}; it must be a scalar")
    dims = _rows("multinomial", size, ndim, pvals)
    classes = pvals.type.dims[-1]
    once = isinstance(n, int) and n == 1
    trials = dims if once else (as_dim(n), *dims)
    winner = _race(state, trials, pvals)
    labels = iota(classes, int64, Tensor)
    hits = cast(elementwise("eq", insert_axes(winner, [len(trials)]), labels), int64)
    return cast(hits if once else reduce_("sum", hits, [0]), as_dtype(dtype))


def _probabilities(what: str, p: Any) -> Any:
    if p is None:
        raise TypeError(f"{what}: the probabilities are missing")
    value = as_tensor_variable(p)
    if value.ndim == 0:
        raise ValueError(f"{what}: {describe(value)} is a scalar; the probabilities of the classes "
                         "must stand along an axis")
    return cast(value, float64)


def _rows(what: str, size: Any, ndim: int | None, pvals: Any) -> Dims:
    """The shape of a draw of classes."""
    leading = pvals.type.dims[:-1]
    if size is None:
        return leading
    dims = shape_of(what, size, ndim)
    if len(dims) < len(leading):
        raise ValueError(f"{what}: {describe(pvals)} has {len(leading)} axes before that of the "
                         f"classes, but size {size!r} has {len(dims)} entries")
    return dims


def _race(state: Value, dims: Dims, pvals: Any) -> Any:
    """One class per element of ``dims``, with the probabilities ``pvals``."""
    return argmin(_times(state, dims, pvals), axis=len(dims))


def _times(state: Value, dims: Dims, pvals: Any) -> Any:
    """Exponential numbers whose rates are ``pvals``; infinite for a rate of 0."""
    every = (*dims, pvals.type.dims[-1])
    return -_inner_fraction(bits(state, every)).log() / broadcast_to(pvals, every)


SPAN, TERMS = 2.0, 25  # a Poisson number of mean 2 is beyond 25 less than once in 10**17 times


def poisson(state: Value, size: Any = None, lam: Any = 1.0, ndim: int | None = None,
            dtype: Any = "int64") -> Any:
    """Poisson numbers of mean ``lam``: a sum of as many numbers of a mean of at most 2 as are
    needed, each found in the table of its distribution.  Takes time in proportion to the largest
    lam.  A number that lies within the last bits of a step of the table may be another on another
    back end."""
    lam = cast(as_tensor_variable(lam), float64)
    dims = shape_of("poisson", size, ndim, lam)
    most = elementwise("ceil", max_(lam) / SPAN)
    known = constant_value(lam)
    count = as_dim(cast(elementwise("maximum", most, 1.0), int64)) if known is None else dim(
        max(1, math.ceil(known.max(initial=0.0) / SPAN)))
    parts = (count, *dims)
    u = fraction(bits(state, parts), float64)
    mean = broadcast_to(lam, dims) / cast(size_value(count, Tensor), float64)
    term = total = (-mean).exp()
    found = cast(elementwise("ge", u, total), int64)
    for k in range(1, TERMS):
        term = term * mean * (1.0 / k)
        total = total + term
        found = found + cast(elementwise("ge", u, total), int64)
    return cast(reduce_("sum", found, [0]), as_dtype(dtype))


# --- order ----------------------------------------------------------------------------------


def permutation(state: Value, size: Any = None, n: Any = 1, ndim: int | None = None,
                dtype: Any = "int64") -> Any:
    """Permutations of 0, ..., n - 1 along a new last axis, after the axes of ``size``: the order
    of n random keys of 64 bits.  Same bits on every back end."""
    dims = shape_of("permutation", () if size is None else size, ndim)
    keys = bits(state, (*dims, _count("permutation", "n", n)))
    return cast(apply(Argsort(), keys)[0], as_dtype(dtype))


def _count(what: str, name: str, n: Any) -> Dim:
    try:
        count = as_dim(n)
    except TypeError as problem:
        raise TypeError(f"{what}: {name} is {n!r}: {problem}") from None
    if count.const is not None and count.const < 0:
        raise ValueError(f"{what}: {name} is {n!r}; it must not be negative")
    return count


def choice(state: Value, size: Any = (), a: Any = 2, replace: bool = True, p: Any = None,
           ndim: int | None = None, dtype: Any = None) -> Any:
    """Elements of the vector ``a``, or numbers of 0, ..., a - 1 for an integer ``a``.

    p: a probability per element (equal without it).  replace=False: all of one draw differ; with
    p each is drawn among those that are left (Efraimidis and Spirakis, 2006).  ``dtype``: int64,
    or that of the vector.  Raises ValueError where more elements are asked for than there are.
    """
    items = None
    if not isinstance(a, (int, np.integer)):
        a = as_tensor_variable(a)
        items = a if a.ndim else None
    if items is not None and items.ndim != 1:
        raise ValueError(f"choice: {describe(items)} must be a vector, or a number of elements")
    count = items.type.dims[0] if items is not None else _count("choice", "a", a)
    dims = shape_of("choice", () if size is None else size, ndim)
    rates = None if p is None else _probabilities("choice", p)
    index = (_with_replacement if replace else _without_replacement)(state, dims, count, rates)
    out = index if items is None else apply(Take(0), items, index)[0]
    return out if dtype is None else cast(out, as_dtype(dtype))


def choice_per_row(state: Value, size: Any = 1, a: Any = None, replace: bool = True, p: Any = None,
                   ndim: int | None = None, dtype: Any = "int64") -> Any:
    """``size`` classes for every row of the matrix ``p`` of probabilities: a matrix (rows, size).
    With ``a``, or another p, as ``choice``."""
    rates = None if p is None else _probabilities("choice", p)
    if a is not None or rates is None or rates.ndim != 2:
        a = a if a is not None or rates is None else size_value(rates.type.dims[-1], Tensor)
        return choice(state, size, 2 if a is None else a, replace, p, ndim, dtype)
    rows, classes = rates.type.dims
    if replace:
        dims = (rows, as_dim(size))
        index = _race(state, dims, insert_axes(rates, [1]))
    else:
        order = apply(Argsort(), _times(state, (rows,), rates))[0]
        index = slice_(order, axis_region(order, 1, 0, as_dim(size)))
    return cast(index, as_dtype(dtype))


def _with_replacement(state: Value, dims: Dims, count: Dim, rates: Any) -> Any:
    if rates is not None:
        return _race(state, dims, broadcast_to(rates, (count,)))
    return _below(bits(state, dims), size_value(count, Tensor))


def _without_replacement(state: Value, dims: Dims, count: Dim, rates: Any) -> Any:
    wanted = product(dims)
    if wanted.const is not None and count.const is not None and wanted.const > count.const:
        raise ValueError(f"choice: {wanted} elements are asked for, but there are only {count}; "
                         "write replace=True")
    keys = bits(state, (count,)) if rates is None else _times(
        state, (), broadcast_to(rates, (count,)))
    order = apply(Argsort(), keys)[0]
    return reshape(slice_(order, axis_region(order, 0, 0, wanted)), dims)


def shuffle_row_elements(state: Value, input: Any) -> Any:
    """``input`` with the elements of every row (its last axis) in an order of their own."""
    x = as_tensor_variable(input)
    if x.ndim == 0:
        raise ValueError(f"shuffle_row_elements: {describe(x)} is a scalar: it has no rows")
    order = apply(Argsort(), bits(state, x.type.dims))[0]
    n = x.type.dims[-1]
    rows = reshape(iota(product(x.type.dims[:-1]), int64, Tensor), x.type.dims[:-1])
    place = order + insert_axes(rows * size_value(n, Tensor), [x.ndim - 1])
    return apply(Take(0), reshape(x, (product(x.type.dims),)), place)[0]
