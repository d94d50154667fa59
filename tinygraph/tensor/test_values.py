"""Test values: arrays that go along with variables while an expression is built.

With ``config.compute_test_value`` at 'ignore', 'warn' or 'raise' every expression is computed on
the test values of its operands as soon as it is written, by the interpreter, so that shapes that
do not fit are refused on the line that joins them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from tinygraph.config import config
from tinygraph.dims import Dim, Sym
from tinygraph.graph import Graph, Node, Value, describe, op_dims, subgraphs, toposort
from tinygraph.interpret import Sizes


class Tag(SimpleNamespace):
    """A place for notes on a variable; ``test_value``, an array, is the one that is read."""

    def __init__(self, variable: Value | None = None) -> None:  # None: about to be unpickled
        super().__init__()
        self.__dict__["_variable"] = variable

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "test_value":
            value = fitting(self.__dict__["_variable"], value)
            _bind(self.__dict__["_variable"], value)
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.__dict__.items() if k != "_variable")
        return f"Tag({shown})"


def fitting(v: Value, x: Any) -> np.ndarray:
    """``x`` as a test value of ``v``.  Raises TypeError where it does not fit."""
    array, kind = np.asarray(x), v.type.dtype.np
    fact = ""
    if array.ndim != v.ndim:
        fact = f"has {array.ndim} axes"
    elif not np.can_cast(array.dtype, kind, "same_kind"):
        fact = f"is {array.dtype}, which {kind} cannot hold"
    else:
        for axis, (d, n) in enumerate(zip(v.type.dims, array.shape, strict=True)):
            if d.const is not None and d.const != n:
                fact = f"has size {n} on axis {axis}, which must be {d}"
    if fact:
        raise TypeError(f"the test value of {describe(v)} {fact}")
    return array.astype(kind, copy=False)


def _bind(v: Value, array: np.ndarray) -> None:
    for d, n in zip(v.type.dims, array.shape, strict=True):
        if d.symbol is not None:
            d.symbol.test_size = n


def known_value(v: Value) -> np.ndarray | None:
    """The test value of ``v``: its tag's, or what a shared variable holds; None if there is
    none."""
    storage = getattr(v, "storage", None)
    if storage is not None:
        return storage.array
    tag = getattr(v, "_tag", None)
    return None if tag is None else getattr(tag, "test_value", None)


def get_test_value(x: Any) -> np.ndarray:
    """The test value of ``x``, computed from those of the variables that it depends on if need
    be.  Raises AttributeError where one of these has none."""
    if not isinstance(x, Value):
        return np.asarray(x)
    for node in toposort([x]):
        if any(known_value(v) is None for v in node.outputs):
            missing = _missing(node)
            if missing:
                raise AttributeError(f"{describe(x)} has no test value: set .tag.test_value of "
                                     f"{missing}")
            _run(node)
    found = known_value(x)
    if found is None:
        raise AttributeError(f"{describe(x)} has no test value: set its .tag.test_value")
    return found


def compute(node: Node) -> None:
    """Give the results of a new node test values, as far as its operands have some.

    Raises AttributeError (or warns) where a variable of the user's has none and the setting says
    so; the error of an op where the test values do not fit together.
    """
    missing = _missing(node)
    if not missing:
        _run(node)
    elif config.compute_test_value != "ignore" and missing != _INNER:
        fact = (f"no test value for the {node.op} at {node.outputs[0].source}: set "
                f".tag.test_value of {missing}")
        if config.compute_test_value == "raise":
            raise AttributeError(fact)
        warnings.warn(fact, stacklevel=4)


_INNER = "a variable that the user did not make"


def _missing(node: Node) -> str:
    """What a node lacks to be computed; '' for nothing."""
    for v in node.inputs:
        if known_value(v) is None:
            return describe(v) if v.source and v.node is None else _INNER
    for s in _symbols(node):
        if _size(s) is None and not _found_inside(s, node):
            return s.origin or _INNER
    return ""


def _run(node: Node) -> None:
    arrays = [np.asarray(known_value(v)) for v in node.inputs]
    env = {s: n for s in _symbols(node) if (n := _size(s)) is not None}
    sizes = Sizes(env)
    for v, a in zip(node.inputs, arrays, strict=True):
        sizes.learn(v, a)
    for guard in node.op.requires(*node.inputs):
        if all(s in sizes.env for d in (guard.left, guard.right) for s in d.syms()):
            guard.check(sizes.env)
    with np.errstate(all="ignore"):
        try:
            results = node.op.numpy(sizes, *arrays)
        except IndexError as error:
            operands = ", ".join(map(describe, node.inputs))
            raise IndexError(f"{error}, in {node.op} of the test values of {operands}") from error
    for v, a in zip(node.outputs, results, strict=True):
        if hasattr(v, "tag"):
            v.tag.test_value = a
    for s, k in node.op.late():
        s.test_size = int(results[k])


def _size(s: Sym) -> int | None:
    """The size that test values give to a symbol."""
    if s.value is not None and (scalar := known_value(s.value)) is not None:
        return int(scalar)
    variable = getattr(s, "variable", None)
    if variable is not None:
        axis = next(k for k, d in enumerate(variable.type.dims) if d.symbol is s)
        return int(variable.storage.shape[axis])
    return getattr(s, "test_size", None)


def _found_inside(s: Sym, node: Node) -> bool:
    """Does the run of ``node`` find this size out?"""
    own = (d for v in node.inputs for d in v.type.dims)
    inner = (d for body in subgraphs(node.op) for v in body.inputs for d in v.type.dims)
    late = any(s is t for t, _ in node.op.late())
    return late or s.value is not None or any(d.symbol is s for d in (*own, *inner))


def _symbols(node: Node) -> set[Sym]:
    """The symbols that a run of ``node`` needs, those of bodies included."""
    found = _syms(op_dims(node.op))
    for body in subgraphs(node.op):
        found |= _body_symbols(body)
    return found | _syms(d for g in node.op.requires(*node.inputs) for d in (g.left, g.right))


def _body_symbols(body: Graph) -> set[Sym]:
    found: set[Sym] = set()
    for node in body.nodes():
        found |= _syms(op_dims(node.op))
        for inner in subgraphs(node.op):
            found |= _body_symbols(inner)
    return found


def _syms(dims: Iterable[Dim]) -> set[Sym]:
    return {s for d in dims for s in d.syms()}


def _firsts(seqs: Sequence[Value]) -> Iterator[np.ndarray | None]:
    for seq in seqs:
        array = known_value(seq)
        yield array[0] if array is not None and len(array) else None


def pass_to_step(rows: Sequence[Any], seqs: Sequence[Value], states: Sequence[Any],
                 inits: Sequence[Value]) -> None:
    """Give the parameters of a scan's step test values: the first rows of the sequences, and the
    initial states."""
    if config.compute_test_value == "off":
        return
    firsts = [*_firsts(seqs), *map(known_value, inits)]
    for param, array in zip((*rows, *states), firsts, strict=True):
        if array is not None:
            param.tag.test_value = array
