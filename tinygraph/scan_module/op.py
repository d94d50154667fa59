"""Scan: a loop in the graph.

    (*finals, *stacks) = Scan(*sequences, *initial states, *constants)

Step t reads row t of every sequence, the carries that step t-1 left (the initial states at
t = 0) and the constants; it gives new carries and one row for every stack.  Stacks never contain
the initial state.  ``Groups`` alone knows which operand is which, on both sides of the boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygraph.dims import Dim, Sym, dim, nonnegative, prove_equal
from tinygraph.errors import ShapeError
from tinygraph.graph import Graph, Guard, Node, Op, Type, Value, describe
from tinygraph.interpret import Sizes, evaluate
from tinygraph.scan_module.groups import Groups
from tinygraph.scan_module.vjp import scan_vjp


@dataclass(frozen=True)
class Scan(Op):
    """``n_steps`` rounds of ``body``.

    truncate  the gradient runs over the last so many steps (-1: all)
    hoist     may products of sequences be computed before the loop (more memory, less time)
    lazy      a request, made by the gradient, for the rows of inner values of a scan that is in
              the graph already: pass *unite* lets that scan stack them, and pass *saved* says
              which of them the backward loop computes again
    memory    the most bytes that the gradient may keep of this loop for the backward loop
              (None: as many as make it fast); passes *saved* and *checkpoint* see to it
    segments  each round is a segment of another loop, made by *checkpoint* to save memory: what a
              round computes for all steps of its segment stays inside
    kept      how many bytes a loop over segments keeps in fact, where ``memory`` was the budget
    until     the most steps of a loop that ends as soon as the first carry, a flag, is true after
              a step; the second carry counts the steps, and ``n_steps`` is the late symbol of that
              count, so that stacks have as many rows as there were steps
    """

    body: Graph
    groups: Groups
    n_steps: Dim
    truncate: int = -1
    hoist: bool = True
    lazy: bool = False
    memory: int | None = None
    segments: bool = False
    kept: Dim | None = None
    until: Dim | None = None
    name: str = field(default="", compare=False)

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        given, params = self.groups.inputs(inputs), self.groups.inputs(self.body.inputs)
        results = self.groups.outputs(self.body.outputs)
        for seq, item in zip(given.seqs, params.seqs, strict=True):
            if seq.type.dtype is not item.type.dtype or seq.ndim != item.ndim + 1:
                raise TypeError(f"scan: sequence {describe(seq)} does not fit row {item.type}")
        pairs = [*zip(given.carries, params.carries, strict=True),
                 *zip(given.consts, params.consts, strict=True),
                 *zip(results.carries, params.carries, strict=True)]
        for value, param in pairs:
            if value.type.dtype is not param.type.dtype or value.ndim != param.ndim:
                raise TypeError(f"scan: {describe(value)} does not fit {param.type}")
            for k, (a, b) in enumerate(zip(value.type.dims, param.type.dims, strict=True)):
                if prove_equal(a, b) is False:
                    raise ShapeError(f"scan: axis {k} of {describe(value)} is {a}, but "
                                     f"{param.name or 'the state'} ({describe(param)}) has {b} "
                                     "there; a state keeps its shape from step to step")
        finals = tuple(p.type for p in params.carries)
        stacks = tuple(s.type.with_dims((self.n_steps, *s.type.dims)) for s in results.stacks)
        return finals + stacks

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        given, params = self.groups.inputs(inputs), self.groups.inputs(self.body.inputs)
        results = self.groups.outputs(self.body.outputs)
        if not nonnegative(self.most):
            yield Guard(dim(0), "le", self.most, "scan: n_steps is {right}; it must not be "
                        "negative")
        for seq, item in zip(given.seqs, params.seqs, strict=True):
            yield Guard(self.most, "le", seq.type.dims[0], f"scan: n_steps is {{left}}, but "
                        f"sequence {describe(seq)} has only {{right}} rows")
            yield from _same(seq, seq.type.dims[1:], item.type.dims, "row of sequence")
        for x, p in zip((*given.carries, *given.consts), (*params.carries, *params.consts),
                        strict=True):
            yield from _same(x, x.type.dims, p.type.dims, "initial state")
        for new, p, init in zip(results.carries, params.carries, given.carries, strict=True):
            for k, (a, b) in enumerate(zip(new.type.dims, p.type.dims, strict=True)):
                if a != b:
                    yield Guard(a, "eq", b, f"scan: the state {p.name or ''} begins as "
                                f"{describe(init)}, whose axis {k} has size {{right}}, but the "
                                f"step returns {describe(new)}, where it has {{left}}; give both "
                                "one shape")

    def numpy(self, env: Callable[[Dim], int], *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        given = self.groups.inputs(arrays)
        params = self.groups.inputs(self.body.inputs)
        n, carries = env(self.most), list(given.carries)
        results = self.groups.outputs(self.body.outputs)
        stacks = [np.zeros((n, *(env(d) for d in s.type.dims)), s.type.dtype.np)
                  for s in results.stacks]
        sizes = Sizes(env.env) if isinstance(env, Sizes) else Sizes()
        done = 0
        for t in range(n):
            known = dict(zip(params.seqs, (s[t] for s in given.seqs), strict=True))
            known.update(zip(params.carries, carries, strict=True))
            known.update(zip(params.consts, given.consts, strict=True))
            out = self.groups.outputs(evaluate(self.body.outputs, known, Sizes(sizes.env)))
            carries = list(out.carries)
            for stack, row in zip(stacks, out.stacks, strict=True):
                stack[t] = row
            done = t + 1
            if self.until is not None and carries[0]:
                break
        return (*carries, *(stack[:done] for stack in stacks))

    @property
    def most(self) -> Dim:
        """The number of steps, or how many there are at most."""
        return self.n_steps if self.until is None else self.until

    def late(self) -> tuple[tuple[Sym, int], ...]:
        symbol = self.n_steps.symbol
        return () if self.until is None or symbol is None else ((symbol, 1),)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return scan_vjp(node, self, cotangents)

    def lower(self, context: Any, node: Node) -> None:
        context.scan(node, self)

    def __str__(self) -> str:
        title = f" {self.name!r}" if self.name else ""
        return f"{'lazy ' if self.lazy else ''}scan{title}{{{self.n_steps} steps}}"


def _same(x: Value, dims: Sequence[Dim], wanted: Sequence[Dim], what: str) -> Iterable[Guard]:
    for k, (a, b) in enumerate(zip(dims, wanted, strict=True)):
        if a != b:
            yield Guard(a, "eq", b, f"scan: {what} {describe(x)} has size {{left}} on axis {k}, "
                        "but the step works with {right}")
