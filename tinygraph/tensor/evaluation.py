"""Interpret expressions with every relation between sizes checked first: ``x.eval()``, and the
back end 'numpy'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tinygraph.dims import Sym
from tinygraph.errors import MissingInputError, NotScalarConstantError, ShapeError
from tinygraph.graph import Guard, Value, describe, leaves, op_dims, replace, subgraphs, toposort
from tinygraph.interpret import Sizes, evaluate
from tinygraph.ops.arithmetic import constant_value


def unproved(outputs: Sequence[Value], inputs: Iterable[Value]) -> Iterator[Guard]:
    """The relations in the graph of ``outputs``, bodies included, that only the sizes of a run
    can decide.  Those in a body that mention a size of the body's own are left to its ops."""
    own = {s for v in inputs for d in v.type.dims if (s := d.symbol)}
    for node in toposort(outputs):
        for guard in node.op.requires(*node.inputs):
            if guard.holds() is not True:
                yield guard
        for body in subgraphs(node.op):
            for guard in unproved(body.outputs, body.inputs):
                if guard.left.syms() | guard.right.syms() <= own:
                    yield guard


def check_sizes(guards: Iterable[Guard], inputs: Mapping[Value, np.ndarray], sizes: Sizes) -> None:
    """Raise the error of the first relation that does not hold for the shapes of ``inputs``;
    ShapeError where one symbol would have two sizes."""
    for v, a in inputs.items():
        for k, (d, n) in enumerate(zip(v.type.dims, a.shape, strict=True)):
            if all(s in sizes.env for s in d.syms()) and sizes(d) != n:
                raise ShapeError(f"axis {k} of {describe(v)} is {n}, but it must be {d}, which "
                                 f"is {sizes(d)}")
    for guard in guards:
        syms = guard.left.syms() | guard.right.syms()
        for s in syms:
            known = s in sizes.env or s.value is None or not set(leaves([s.value])) <= set(inputs)
            if not known:
                sizes.env[s] = int(evaluate([s.value], inputs, Sizes(sizes.env))[0])
        if all(s in sizes.env for s in syms):
            guard.check(sizes.env)


def eval_variable(x: Value, inputs_to_values: Mapping[Value, Any] | None = None) -> np.ndarray:
    """The array of ``x``, given a value for each variable that it needs; shared variables give
    theirs themselves.

    Raises MissingInputError where a variable has no value, or is given one but not needed;
    TypeError for a value that does not fit.
    """
    given: dict[Value, np.ndarray] = {}
    stand_ins: dict[Value, Value] = {}
    for v, array in (inputs_to_values or {}).items():
        if not isinstance(v, Value):
            raise TypeError(f"eval: the key {v!r} is not a variable")
        leaf = v
        if v.node is not None:
            leaf = stand_ins[v] = v.result_class()(v.type, name=v.name, source=v.source)
        given[leaf] = _as_array(v, array)
    (out,) = replace([x], stand_ins)
    needed = leaves([out])
    for v in needed:
        if v not in given and hasattr(v, "get_value"):
            given[v] = v.get_value()
    extra = [describe(v) for v in given if v not in needed and not _sizes_read(v, out)]
    if extra:
        raise MissingInputError(f"eval of {describe(x)} does not need {'; '.join(extra)}")
    missing = [describe(v) for v in needed if v not in given]
    if missing:
        raise MissingInputError(f"eval of {describe(x)} needs a value for {'; '.join(missing)}: "
                                "write x.eval({variable: value})")
    return _run(out, given)


def _sizes_read(v: Value, out: Value) -> bool:
    """Does ``out`` mention a size of ``v``?"""
    own = {s for d in v.type.dims for s in d.syms()}
    return any(not own.isdisjoint(d.syms()) for node in toposort([out])
               for d in op_dims(node.op))


def _run(out: Value, given: Mapping[Value, np.ndarray]) -> np.ndarray:
    sizes = Sizes()
    for v, a in given.items():
        sizes.learn(v, a)
    try:
        check_sizes(unproved([out], given), given, sizes)
        (result,) = evaluate([out], given, sizes)
    except KeyError as problem:
        sym = problem.args[0]
        if not isinstance(sym, Sym):
            raise
        raise MissingInputError(f"eval of {describe(out)} needs a size, {sym.origin or sym}, of a "
                                "variable that has no value") from None
    return np.array(result, out.type.dtype.np, order="C", copy=True)


def _as_array(v: Value, x: Any) -> np.ndarray:
    kind = v.type.dtype.np
    array = np.asarray(x)
    if array.ndim != v.ndim:
        raise TypeError(f"eval: {describe(v)} got an array with {array.ndim} axes")
    for axis, (d, n) in enumerate(zip(v.type.dims, array.shape, strict=True)):
        if d.const is not None and d.const != n:
            raise TypeError(f"eval: axis {axis} of {describe(v)} must have size {d}, not {n}")
    if not np.can_cast(array.dtype, kind, "same_kind"):
        raise TypeError(f"eval: {describe(v)} got {array.dtype}, which {kind} cannot hold")
    return array.astype(kind, copy=False)


def get_scalar_constant_value(x: Any) -> np.ndarray:
    """The one number that fills ``x``, a number, an array or an expression of constants, as an
    array without axes.

    Raises NotScalarConstantError where it depends on a variable, or has several elements.
    """
    if not isinstance(x, Value):
        array = np.asarray(x)
    else:
        known = constant_value(x)
        if known is None and leaves([x]):
            raise NotScalarConstantError(f"{describe(x)} depends on a variable")
        try:
            array = eval_variable(x) if known is None else known
        except MissingInputError:
            raise NotScalarConstantError(f"{describe(x)} depends on the size of a variable"
                                         ) from None
    if array.size != 1:
        raise NotScalarConstantError(f"{x!r} has {array.size} elements, not one")
    return array.reshape(())
