"""What the other modules share: arrays of floatX, parameters from their specifications, and small
helpers for people who write layers."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

import tinygraph.tensor as T
from tinygraph import config, shared
from tinygraph.compile.variables import SharedVariable
from tinygraph.dims import dim, prove_equal
from tinygraph.graph import Value, describe, leaves
from tinygraph.tensor.ordering import within

int_types = (numbers.Integral, np.integer)


def floatX(x: Any) -> np.ndarray:
    """``x``, numbers or an array, as an array of ``config.floatX``.

    Raises TypeError for a symbolic variable, which has no numbers yet.
    """
    if isinstance(x, Value):
        raise TypeError(f"floatX makes arrays of numbers, and {describe(x)} is symbolic; write "
                        f"T.cast(x, {config.floatX!r})")
    return np.asarray(x, dtype=config.floatX)


def shared_empty(dim: int = 2, dtype: Any = None) -> SharedVariable:
    """A shared variable of ``dim`` axes, each of size 1, to be filled by ``set_value``.

    dtype: floatX unless given.  No axis broadcasts, so that any shape may follow.
    Raises TypeError where dim is not a whole number of at least 0.
    """
    if not isinstance(dim, int_types) or dim < 0:
        raise TypeError(f"dim is {dim!r}; it must be the number of axes, 0 or more")
    return shared(np.zeros((1,) * int(dim), dtype=config.floatX if dtype is None else dtype))


def as_theano_expression(input: Any) -> Any:
    """``input`` if it is symbolic already, else the constant of its numbers.

    Raises TypeError for what is neither symbolic nor an array.
    """
    if isinstance(input, Value):
        return input
    try:
        return T.as_tensor_variable(input)
    except Exception as error:
        raise TypeError(f"{input!r} ({type(input).__name__}) is neither an expression nor an array "
                        f"to make a constant of: {error}") from error


def collect_shared_vars(expressions: Any) -> list[Any]:
    """The shared variables in one expression or several, each once, in the order of first use."""
    roots = [expressions] if isinstance(expressions, Value) else list(expressions)
    return [v for v in leaves(roots) if isinstance(v, SharedVariable)]


def one_hot(x: Any, m: Any = None) -> Any:
    """Whole numbers as rows that have a 1 at their place and 0 elsewhere: shape of ``x`` + (m,),
    floatX.

    x: integers, or floats that hold whole numbers, of any rank.  m: how many classes there are,
    the largest element of ``x`` and one more unless given; it may be symbolic.  A number outside
    0..m-1 raises IndexError when the function is called.
    """
    x = T.cast(as_theano_expression(x), "int64")
    if m is None:
        m = T.max(x) + 1
    x = within(x, m, "a class for one_hot")
    hit = T.eq(x.dimshuffle(*range(x.ndim), "x"), T.arange(m))
    return T.cast(hit, config.floatX)


def unique(l: Iterable[Any]) -> list[Any]:  # noqa: E741
    """The elements of ``l`` without repetitions, in the order of first appearance."""
    return list(dict.fromkeys(l))


def as_tuple(x: Any, N: int, t: Any = None) -> tuple[Any, ...]:
    """``x``, one value or an iterable of N, as a tuple of N values.

    t: a type, or tuple of types, that every value must have.
    Raises TypeError for a value of another type, ValueError for another number of values.
    """
    values = tuple(x) if isinstance(x, Iterable) and not isinstance(x, (str, Value)) else (x,) * N
    if t is not None and not all(isinstance(v, t) for v in values):
        kinds = t if isinstance(t, tuple) else (t,)
        names = " or ".join(k.__name__ for k in kinds)
        raise TypeError(f"{x!r} is given where one value or {N} values of type {names} are needed")
    if len(values) != N:
        raise ValueError(f"{x!r} has {len(values)} values where one value, or {N}, are needed")
    return values


def inspect_kwargs(func: Callable[..., Any]) -> list[str]:
    """The names of the arguments of ``func`` that have defaults, in order."""
    return [p.name for p in inspect.signature(func).parameters.values() if p.default is not p.empty]


def compute_norms(array: Any, norm_axes: Sequence[int] | None = None) -> Any:
    """The norm, sqrt(sum x^2), of every unit's incoming weights.

    array: a NumPy array (gives an array), or an expression (gives an expression).
    norm_axes: the axes that a norm runs over.  By default none of a vector (gives |x|), the first
    of a matrix, and all but the first of three axes or more.
    Raises TypeError for another kind of array, ValueError for a scalar without norm_axes.
    """
    if not isinstance(array, (Value, np.ndarray)):
        raise TypeError(f"compute_norms takes an array or an expression, not {array!r} "
                        f"({type(array).__name__}); write numpy.asarray(...) around it")
    x: Any = array
    axes = _norm_axes(x) if norm_axes is None else as_axes(norm_axes)
    if not axes:
        return abs(x)
    m: Any = np if isinstance(x, np.ndarray) else T
    return m.sqrt(m.sum(x ** 2, axis=axes))


def as_axes(axes: Any) -> tuple[int, ...]:
    """One axis or a sequence of them, as a tuple."""
    return (int(axes),) if isinstance(axes, int_types) else tuple(axes)


def _norm_axes(array: Any) -> tuple[int, ...]:
    if array.ndim == 0:
        raise ValueError("a scalar has no axis for a norm to run over; pass norm_axes=() for its "
                         "absolute value")
    return ((), (0,))[array.ndim - 1] if array.ndim < 3 else tuple(range(1, array.ndim))


def create_param(spec: Any, shape: Sequence[int], name: str | None = None) -> Any:
    """The variable of ``shape`` (ints) that ``spec`` describes.

    spec: a number or array (becomes a shared variable), a callable from the shape to one of the
    others (an initialiser), or a shared variable or expression, which is taken as it is.  An axis
    that must have size 1 broadcasts in the shared variables made here.  A variable without a name
    gets ``name``.

    Raises ValueError for a shape that does not fit, TypeError for a spec of another kind or a size
    that is no int.
    """
    label = f"parameter {name}" if name else "a parameter"
    if not all(isinstance(n, int_types) for n in shape):
        raise TypeError(f"{label} cannot have shape {tuple(shape)}: every axis must be an int")
    shape = tuple(int(n) for n in shape)
    if any(n <= 0 for n in shape):
        raise ValueError(f"{label} cannot have shape {shape}: every axis must be positive")
    origin = "the array given"
    if callable(spec) and not isinstance(spec, Value):
        origin = f"what {getattr(spec, '__name__', type(spec).__name__)} made for it"
        spec = spec(shape)
    if isinstance(spec, Value):
        _check_sizes(spec, shape, label)
        spec.name = spec.name or name
        return spec
    if not isinstance(spec, (int, float, np.generic, np.ndarray, list, tuple)):
        raise TypeError(f"{label} cannot be made from {spec!r}: give an array, a shared variable, "
                        "an expression, or an initialiser such as init.Normal(0.1)")
    array = _numbers(spec, label)
    if array.shape != shape:
        raise ValueError(f"{label} must have shape {shape}, but {origin} has {array.shape}")
    return shared(array, name=name, broadcastable=tuple(n == 1 for n in shape))


def _numbers(spec: Any, label: str) -> np.ndarray:
    try:
        array = np.asarray(spec)
    except ValueError as error:
        raise TypeError(f"{label} cannot be made from a list of rows of several lengths: {error}"
                        ) from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{label} is made of real numbers, but the array given has dtype "
                        f"{array.dtype}")
    return floatX(array)


def _check_sizes(spec: Any, shape: tuple[int, ...], label: str) -> None:
    sizes = spec.type.dims
    if isinstance(spec, SharedVariable):
        sizes = tuple(dim(n) for n in spec.storage.shape)
    if len(sizes) != len(shape) or any(
            prove_equal(a, dim(b)) is False for a, b in zip(sizes, shape, strict=True)):
        raise ValueError(f"{label} must have shape {shape}, but {describe(spec)} has "
                         f"({', '.join(map(str, sizes))})")


def unroll_scan(fn: Callable[..., Any], sequences: Any, outputs_info: Any, non_sequences: Any,
                n_steps: int, go_backwards: bool = False) -> list[Any]:
    """``scan`` written out: a copy of the step per step, for a known number of them.

    fn: the step, called with an entry of every sequence, the outputs of the step before, and the
    non_sequences; returns its outputs, one or a list.  sequences, non_sequences: lists (or one
    variable, or None).  outputs_info: the outputs "before" the first step, one per output, or None
    for an output that is not fed back; None alone: no output is.  go_backwards: from entry
    n_steps - 1 down to entry 0.
    Returns a list with a stack (n_steps first) per output, in the order of computation.

    ``tinygraph.scan`` compiles once for every number of steps and runs no slower; this is for
    steps that differ from each other.

    Raises TypeError where n_steps is not an int, ValueError where it is not positive or the step
    does not return one output per entry of outputs_info.
    """
    if not isinstance(n_steps, int_types):
        raise TypeError(f"n_steps is {n_steps!r}; unroll_scan needs an int, because it writes "
                        "every step out; for a symbolic number of steps use tinygraph.scan")
    if n_steps < 1:
        raise ValueError(f"n_steps is {n_steps}; unroll_scan needs at least one step")
    walked, constants = _as_list(sequences), _as_list(non_sequences)
    before = _as_list(outputs_info)
    fed = [v is not None for v in before]
    steps: list[list[Any]] = []
    order = range(int(n_steps))
    for k in reversed(order) if go_backwards else order:
        carried = [v for v, used in zip(before, fed, strict=True) if used]
        before = _as_list(fn(*(s[k] for s in walked), *carried, *constants))
        if outputs_info is None:
            fed = [False] * len(before)
        if len(before) != len(fed):
            raise ValueError(f"the step returns {len(before)} outputs, but outputs_info has "
                             f"{len(fed)} entries; write one per output, None for an output "
                             "that is not fed back")
        steps.append(before)
    return [T.stack(list(values)) for values in zip(*steps, strict=True)]


def _as_list(values: Any) -> list[Any]:
    if values is None:
        return []
    return list(values) if isinstance(values, (list, tuple)) else [values]
