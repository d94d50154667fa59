"""What a call has to know for given sizes, worked out once per distinct sizes."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.backends.homes import Home, on_host
from tinygraph.compile.close import Conditions
from tinygraph.config import config
from tinygraph.dims import THREADS, TILES, Dim, Sym, at_most, is_late, product
from tinygraph.dtypes import int64
from tinygraph.errors import ShapeError
from tinygraph.formulas import Formulas
from tinygraph.graph import Graph, Guard, Value, describe, leaves, op_dims
from tinygraph.interpret import Sizes, evaluate
from tinygraph.lowering.lower import Budget, Lowered
from tinygraph.ops.callback import Callback, OwnSize

_MOST_PLANS = 4096
_MOST_BYTES = 1 << 24  # of values that sizes depend on: where these are arrays, they are large


@dataclass(frozen=True)
class Plan:
    """``sizes``: the size parameters;  ``arena_bytes``: the workspace;  ``shapes``, ``dtypes``:
    of the results;  ``threads``: for how many it was made, 0 if it holds for any number;
    ``values``: of the inputs that sizes depend on, each with its number among the inputs;
    ``env``: all sizes known before the run, kept where the shape of a result needs others too."""

    sizes: np.ndarray
    sizes_address: int
    arena_bytes: int
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype, ...]
    threads: int
    values: tuple[tuple[int, bytes], ...]
    env: Mapping[Sym, int] | None = None

    def results(self, out: Sequence[Any], home: Home | None = None) -> list[Any]:
        """An array per result: the one offered where it fits, else a new one."""
        empty = np.empty if home is None else home.empty
        return [
            o if o is not None and o.shape == shape and o.dtype == kind else empty(shape, kind)
            for o, shape, kind in zip(out, self.shapes, self.dtypes, strict=True)]


@dataclass(frozen=True)
class _Lasting:
    """What is the same in every plan, because some inputs (most are shared variables) never
    change their shape: their sizes; the guards that are about others too; the shapes of results
    that depend on nothing else, None for the rest."""

    sizes: Mapping[Sym, int]
    guards: Sequence[Guard]
    shapes: Sequence[tuple[int, ...] | None]


class Planner:
    """Plans by sizes.  Making one checks every guard; a known one costs a look-up.

    ``varying``: how many of the first inputs may change their shape from call to call.
    ``threads_matter``: a size depends on how many threads may run, so that a plan holds for one
    number of them.
    """

    def __init__(self, graph: Graph, conditions: Conditions, lowered: Lowered, varying: int,
                 units: int | None = None, home: Home | None = None) -> None:
        """``units``: how many threads (or blocks of a GPU) there are, if config does not say.
        ``home``: whose arrays the results are."""
        self.units, self.home = units, home
        self.inputs, self.varying = graph.inputs, varying
        self.guards, self.scalars = conditions.guards, conditions.scalars
        self.late = conditions.late
        self.lowered = lowered
        read = set(leaves([s.value for s in self.scalars]))
        self.scalar_inputs = [k for k, v in enumerate(graph.inputs) if v in read]
        self.threads_matter = any({THREADS, TILES} & d.syms()
                                  for d in (*lowered.sizes, lowered.arena))
        self.dtypes = (*(v.type.dtype.np for v in graph.outputs),
                       *(int64.np for _ in self.late))
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._bytes = 0
        self._lasting: _Lasting | None = None
        # What must be interpreted to know the sizes that users' ops alone know.
        self._learnt_from = [
            n.outputs[0] for n in graph.nodes() if isinstance(n.op, Callback)
            and any(isinstance(s, OwnSize) for d in op_dims(n.op) for s in d.syms())]

    def __call__(self, arrays: Sequence[Any], tiles: int | None = None) -> Plan:
        """The plan for these inputs.  Raises the error of a guard that does not hold.

        tiles  the most into which the batch of a scan is cut, if not as many as there are threads
        """
        key: tuple[object, ...] = tuple([a.shape for a in arrays[:self.varying]])
        # Read once: another thread may be writing into what the caller passed.
        values = tuple([(k, on_host(arrays[k], self.home).tobytes()) for k in self.scalar_inputs])
        threads = (self.units or config.threads) if self.threads_matter else 0
        key += (values, threads, tiles)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._make(arrays, values, threads, tiles)
            self._bytes += sum(len(data) for _, data in values)
            if len(self._plans) >= _MOST_PLANS or self._bytes > _MOST_BYTES:
                self._plans.clear()
                self._bytes = 0
            self._plans[key] = plan
        return plan

    def _make(self, arrays: Sequence[Any], values: tuple[tuple[int, bytes], ...],
              threads: int, tiles: int | None) -> Plan:
        given = dict(zip(self.inputs, arrays, strict=True))
        for k, data in values:
            array = arrays[k]
            given[self.inputs[k]] = np.frombuffer(data, array.dtype).reshape(array.shape)
        lasting = self._lasting or self._find_lasting(given)
        sizes = Sizes()
        sizes.env = {**lasting.sizes, THREADS: threads or 1,
                     TILES: tiles or threads or 1}
        varying = self.inputs[:self.varying]
        for value in varying:
            sizes.learn(value, given[value])
        for value in varying:
            _check_axes(value, given[value], sizes)
        for s in self.scalars:
            (number,) = evaluate([s.value], given, Sizes(sizes.env))
            sizes.env[s] = int(number)
        if self._learnt_from:
            evaluate(self._learnt_from, {v: on_host(a, self.home) for v, a in given.items()},
                     sizes)
        for guard in lasting.guards if self._lasting else self.guards:
            guard.check(sizes.env)
        self._lasting = lasting
        n = len(self.lowered.sizes)
        found = self._formulas(sizes.env)
        for budget, kept in zip(self.lowered.budgets, found[n + 1:], strict=True):
            _warn_if_over(budget, kept)
        numbers = np.array(found[:n] or [0], np.int64)
        shapes = tuple(known or self._shape(dims, sizes) for known, dims in
                       zip(lasting.shapes, self.lowered.outputs, strict=True))
        return Plan(numbers, numbers.ctypes.data, found[n], shapes, self.dtypes, threads, values,
                    sizes.env if self.late else None)

    def forget(self) -> bool:
        """Forget the plans if there are sizes in them that only users' ops know, found out by
        running these once; else False."""
        self._plans.clear()
        return bool(self._learnt_from)

    @staticmethod
    def _shape(dims: Sequence[Dim], sizes: Sizes) -> tuple[int, ...]:
        """The shape of a result; one whose size only the run finds out is a vector that is long
        enough."""
        if any(map(is_late, dims)):
            return (sizes(at_most(product(tuple(dims)))),)
        return tuple(sizes(d) for d in dims)

    def trimmed(self, plan: Plan, results: list[Any]) -> list[Any]:
        """The results in the sizes that the run has found out; the last ones hold these."""
        n = len(results) - len(self.late)
        env = dict(plan.env or {})
        env.update((s, int(on_host(x, self.home)))
                   for s, x in zip(self.late, results[n:], strict=True))
        kept = []
        for x, dims in zip(results[:n], self.lowered.outputs, strict=False):
            if any(map(is_late, dims)):
                shape = tuple(d.evaluate(env) for d in dims)
                x = _part(x, shape) if self.home is None else self.home.part(x, shape)
            kept.append(x)
        return kept

    @functools.cached_property
    def _formulas(self) -> Formulas:
        """The size parameters, the bytes of the workspace, what budgets keep."""
        kept = [budget.kept for budget in self.lowered.budgets]
        return Formulas([*self.lowered.sizes, self.lowered.arena, *kept])

    def _find_lasting(self, given: Mapping[Value, np.ndarray]) -> _Lasting:
        fixed = Sizes()
        for value in self.inputs[self.varying:]:
            fixed.learn(value, given[value])
        known = fixed.env.keys()
        guards = [g for g in self.guards if not g.left.syms() | g.right.syms() <= known]
        shapes = [tuple(map(fixed, dims)) if all(d.syms() <= known for d in dims) else None
                  for dims in self.lowered.outputs]
        return _Lasting(fixed.env, guards, shapes)


def _part(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The first elements of ``x`` in this shape, without the memory of the rest."""
    part = x[:math.prod(shape)]
    return (part if part.size == x.size else part.copy()).reshape(shape)


def _warn_if_over(budget: Budget, kept: int) -> None:
    if budget.most and kept * 10 > budget.most * 11:  # 0 asks for the least
        where = f" ({budget.source})" if budget.source else ""
        warnings.warn(f"scan{where}: the least that its gradient can keep at these sizes is "
                      f"{kept} bytes, which is more than memory={budget.most}", stacklevel=9)


def _check_axes(value: Value, array: np.ndarray, sizes: Sizes) -> None:
    for k, (d, n) in enumerate(zip(value.type.dims, array.shape, strict=True)):
        if sizes(d) != n:
            raise ShapeError(f"axis {k} of {describe(value)} must have size {sizes(d)}, but the "
                             f"array passed has shape {array.shape}")
