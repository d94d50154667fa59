"""Closed graph -> passes -> loop program -> native function, behind the face of an executable."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.backends.runners import Runner, make_runner
from tinygraph.compile.build_numpy import build_numpy
from tinygraph.compile.close import Closed, close
from tinygraph.compile.plan import Plan, Planner
from tinygraph.graph import Graph, Value
from tinygraph.lowering.lower import Lowered, lower
from tinygraph.lowering.vector_math import expand_math
from tinygraph.passes.pipeline import select
from tinygraph.rewrite.engine import Context, Pass


def build(graph: Graph, *, name: str, backend: str, passes: Any,
          shared_shapes: Mapping[Value, tuple[int, ...]]) -> Any:
    """The executable of ``graph`` for one back end: 'llvm', 'loops' or 'numpy'.

    Raises ValueError for an unknown back end or pass, and the user's error where the shapes of
    shared variables do not fit together.
    """
    if backend == "numpy":
        return build_numpy(graph, name=name, backend=backend, passes=passes,
                           shared_shapes=shared_shapes)
    return Executable(graph, name, backend, select(passes), shared_shapes)


@dataclass
class Times:
    """Seconds that the stages of one build took."""

    close: float = 0.0
    passes: float = 0.0
    lower: float = 0.0
    backend: float = 0.0


class Executable:
    """A compiled graph: one native function for all sizes of its inputs."""

    def __init__(self, graph: Graph, name: str, backend: str, passes: Sequence[Pass],
                 shared_shapes: Mapping[Value, tuple[int, ...]]) -> None:
        self.user_graph, self.name, self.backend = graph, name, backend
        self.passes, self.times = tuple(passes), Times()
        clock = time.perf_counter()

        def lap() -> float:
            nonlocal clock
            before, clock = clock, time.perf_counter()
            return clock - before

        self.closed: Closed = close(graph, shared_shapes)
        self.times.close = lap()
        self.context = Context(self.closed.interner)
        self.stages: list[tuple[str, Graph]] = [("closed", self.closed.graph)]
        current = self.closed.graph
        for p in self.passes:
            current = p(current, self.context)
            self.stages.append((p.name, current))
        self.times.passes = lap()
        self.lowered: Lowered = lower(current, "tinygraph_function")
        self.times.lower = lap()
        self.runner: Runner = make_runner(backend, expand_math(self.lowered.program))
        self.times.backend = lap()
        self.planner = Planner(graph, self.closed, self.lowered)

    def __call__(self, arrays: list[np.ndarray], out: list[np.ndarray | None]
                 ) -> list[np.ndarray]:
        plan: Plan = self.planner(arrays)
        results = plan.results(out)
        fault = self.runner(plan, arrays, results, self.lowered.constants)
        if fault is not None:
            raise self.lowered.sites[fault.site].exception(fault.numbers)
        return results
