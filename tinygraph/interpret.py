"""Run a graph node by node with the NumPy meaning of every op: the oracle of every test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tinygraph.dims import Dim, Sym
from tinygraph.errors import MissingInputError
from tinygraph.graph import Node, Op, Value, describe, leaves, op_dims, subgraphs, toposort
from tinygraph.late import late_last


class Sizes:
    """The sizes of one run: symbols are learnt from inputs, or computed from scalar values."""

    def __init__(self, env: Mapping[Sym, int] | None = None) -> None:
        self.env: dict[Sym, int] = dict(env or {})

    def __call__(self, d: Dim) -> int:
        return d.evaluate(self.env)

    def learn(self, value: Value, array: np.ndarray) -> None:
        """Bind the symbols that are whole axes of ``value`` to the shape of ``array``."""
        for d, n in zip(value.type.dims, array.shape, strict=True):
            if d.symbol is not None:
                self.env.setdefault(d.symbol, n)


def evaluate(outputs: Sequence[Value], inputs: Mapping[Value, np.ndarray],
             sizes: Sizes | None = None) -> list[np.ndarray]:
    """The arrays of ``outputs``, given those of the leaves.

    Raises MissingInputError for a leaf without a value.
    """
    known = every_value(outputs, inputs, sizes)
    return [_value(v, known) for v in outputs]


def every_value(outputs: Sequence[Value], inputs: Mapping[Value, np.ndarray],
                sizes: Sizes | None = None) -> dict[Value, np.ndarray]:
    """The arrays of all values that ``outputs`` need, given those of the leaves."""
    sizes = sizes or Sizes()
    known: dict[Value, np.ndarray] = {}
    for value, array in inputs.items():
        known[value] = array
        sizes.learn(value, array)
    for node in late_last(toposort(outputs)):
        if node.outputs[0] in known:
            continue
        own = {s for s, _ in node.op.late()}
        for d in op_dims(node.op):
            _bind_scalars(d, known, sizes, own)
        for d in _dims_of_bodies(node.op):
            _bind_scalars(d, known, sizes, own, of_body=True)
        arrays = [_value(v, known) for v in node.inputs]
        for out, array in zip(node.outputs, _run(node, sizes, arrays), strict=True):
            known[out] = array
            sizes.learn(out, array)
        for s, k in node.op.late():
            sizes.env[s] = int(known[node.outputs[k]])
    return known


def _run(node: Node, sizes: Sizes, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    try:
        return node.op.numpy(sizes, *arrays)
    except IndexError as error:
        where = f", at {node.outputs[0].source}" if node.outputs[0].source else ""
        operands = ", ".join(map(describe, node.inputs))
        raise IndexError(f"{error}, in {node.op} of {operands}{where}") from error


def _value(v: Value, known: Mapping[Value, np.ndarray]) -> np.ndarray:
    if v not in known:
        raise MissingInputError(f"no value for {describe(v)}")
    return known[v]


def _bind_scalars(d: Dim, known: dict[Value, np.ndarray], sizes: Sizes, own: set[Sym],
                  of_body: bool = False) -> None:
    """``of_body``: what hangs on values of the body is bound there."""
    for sym in d.syms() - own:
        if sym not in sizes.env and sym.value is not None:
            if of_body and not all(v in known for v in leaves([sym.value])):
                continue
            (array,) = evaluate([sym.value], known, Sizes(sizes.env))
            sizes.env[sym] = int(array)


def _dims_of_bodies(op: Op) -> Iterator[Dim]:
    """Every Dim in the bodies of ``op``."""
    for body in subgraphs(op):
        for node in body.nodes():
            yield from op_dims(node.op)
            yield from _dims_of_bodies(node.op)
