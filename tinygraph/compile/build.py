"""Closed graph -> passes -> loop program -> native function, behind the face of an executable."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tinygraph.backends.homes import Home
from tinygraph.backends.llvm import jit
from tinygraph.backends.runners import LoopRunner, NativeRunner, NeedsHost, Runner
from tinygraph.compile.build_numpy import build_numpy
from tinygraph.compile.close import Closed, Conditions, close
from tinygraph.compile.plan import Plan, Planner
from tinygraph.compile.profile import Stopwatch
from tinygraph.compile.report import Report, count
from tinygraph.compile.shelf import Kept, Shelf
from tinygraph.compile.variables import SharedVariable
from tinygraph.dtypes import DType
from tinygraph.graph import Graph, Value, subgraphs
from tinygraph.loops.language import Program
from tinygraph.loops.printing import format_program
from tinygraph.lowering import target as targets
from tinygraph.lowering.lower import Lowered, lower
from tinygraph.lowering.target import Target
from tinygraph.lowering.vector_math import expand_math
from tinygraph.ops.callback import SizeError
from tinygraph.ops.linalg import Dot
from tinygraph.passes.pipeline import select
from tinygraph.passes.tail import Tail, cut_tail, headed
from tinygraph.printing import equations
from tinygraph.rewrite.engine import Context, Pass
from tinygraph.rewrite.journal import Journal

SYMBOL = "tinygraph_function"
KERNELS = ("cuda", "shim")  # back ends that run CUDA kernels


@contextmanager
def collector_paused() -> Iterator[None]:
    """Python's cycle collector rests while a graph is compiled: it would walk through hundreds
    of thousands of nodes again and again, a fifth of the time, and find next to nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def build(graph: Graph, *, name: str, backend: str, passes: Any,
          shared_shapes: Mapping[Value, tuple[int, ...]], gpu: int | None = None,
          profile: bool = False) -> Any:
    """The executable of ``graph`` for one back end (see config.backend), on the GPU of number
    ``gpu`` if that matters; with ``profile`` it takes the time of its parts ('numpy' does not).

    Raises ValueError for an unknown back end or pass, and the user's error where the shapes of
    shared variables do not fit together.
    """
    if backend == "numpy":
        return build_numpy(graph, name=name, backend=backend, passes=passes,
                           shared_shapes=shared_shapes)
    if backend not in ("llvm", "loops", *KERNELS):
        raise ValueError(f"there is no back end {backend!r}; write 'llvm', 'loops', 'numpy', "
                         "'cuda' or 'shim'")
    with collector_paused():
        chosen = select(passes, graph)
        if backend in KERNELS:
            try:
                return Executable(graph, name, backend, chosen, shared_shapes, profile, gpu)
            except NeedsHost as error:
                made = Executable(graph, name, "llvm", chosen, shared_shapes, profile)
                made.remarks.append(f"runs on the CPU, not on {backend!r}: {error}")
                return made
        return Executable(graph, name, backend, chosen, shared_shapes, profile)


class Compilation:
    """The stages of one compilation, each worked out when it is first asked for."""

    def __init__(self, graph: Graph, passes: Sequence[Pass],
                 shared_shapes: Mapping[Value, tuple[int, ...]], timed: bool = False,
                 kernels: bool = False) -> None:
        self.timed, self.kernels = timed, kernels
        self.passes, self.seconds = tuple(passes), dict[str, float]()
        self.graph, self.shared_shapes = graph, dict(shared_shapes)
        self.journal = Journal()
        self._closed: Closed | None = None
        self._stages: list[tuple[str, Graph, Tail | None]] = []
        self._final: Graph | None = None
        self._lowered: Lowered | None = None

    @property
    def closed(self) -> Closed:
        """The closed graph.  Raises the error of a guard that the shapes of shared variables
        refute."""
        if self._closed is None:
            start = time.perf_counter()
            self._closed = close(self.graph, self.shared_shapes)
            self.seconds["close"] = time.perf_counter() - start
        return self._closed

    @property
    def stages(self) -> list[tuple[str, Graph]]:
        """The closed graph, and the graph after every pass."""
        if not self._stages:
            self._run()
        interner = self.closed.interner
        return [(name, graph if tail is None else tail.join(graph, interner))
                for name, graph, tail in self._stages]

    def _run(self) -> None:
        """Run the passes, those on loops without the elementwise end of the graph."""
        closed, start = self.closed, time.perf_counter()
        context = Context(closed.interner, self.journal)
        current, tail = closed.graph, None
        stages: list[tuple[str, Graph, Tail | None]] = [("close", current, None)]
        for p, without_tail in zip(self.passes, headed(self.passes), strict=True):
            if tail is not None and not without_tail:
                current, tail = tail.join(current, closed.interner), None
            elif tail is None and without_tail:
                tail = cut_tail(current)
                current = current if tail is None else tail.head()
            current = p(current, context)
            stages.append((p.name, current, tail))
        if tail is not None:
            current = tail.join(current, closed.interner)
        self._stages, self._final = stages, current
        self.seconds["passes"] = time.perf_counter() - start

    @property
    def final(self) -> Graph:
        """The graph after all passes."""
        if self._final is None:
            self._run()
        assert self._final is not None
        return self._final

    @property
    def lowered(self) -> Lowered:
        """The loop program."""
        if self._lowered is None:
            graph = self.final
            start = time.perf_counter()
            self._lowered = lower(
                graph, SYMBOL, targets.KERNELS if self.kernels else Target(jit.panel),
                self.closed.late_guards, self.closed.unread, self.timed)
            self.seconds["lower"] = time.perf_counter() - start
        return self._lowered

    @property
    def program(self) -> Program:
        """The loop program itself."""
        program = self.lowered.program
        assert program is not None  # only what comes from the cache has none
        return program


class Executable:
    """A compiled graph: one native function for all sizes of its inputs."""

    def __init__(self, graph: Graph, name: str, backend: str, passes: Sequence[Pass],
                 shared_shapes: Mapping[Value, tuple[int, ...]], profile: bool = False,
                 gpu: int | None = None) -> None:
        self.name, self.backend = name, backend
        self.remarks: list[str] = []
        self.kernels: Any = None
        kernels = backend in KERNELS
        self.compilation = Compilation(graph, passes, shared_shapes, profile, kernels)
        self.cached = False
        self.transient = sum(not isinstance(v, SharedVariable) for v in graph.inputs)
        self.runner: Runner
        if backend == "loops":
            lowered = self.compilation.lowered
            conditions: Conditions = self.compilation.closed
            self.runner = LoopRunner(expand_math(self.compilation.program))
        elif kernels:
            lowered, conditions = self.compilation.lowered, self.compilation.closed
            self.runner = self.kernels = _kernels(self.compilation.program, backend, gpu)
        else:
            kept, program = self._native()
            lowered, conditions = kept.lowered, kept.conditions
            self.runner = NativeRunner(kept.code, lowered.arguments, self.transient, program)
        self.sites, self.constants = lowered.sites, lowered.constants
        self.stopwatch: Stopwatch | None = None
        if profile:
            self.stopwatch = self.runner = Stopwatch(self.runner, lowered.marks,
                                                     lowered.constants[-1])
        varying = self.transient if len(shared_shapes) == len(graph.inputs) - self.transient else (
            len(graph.inputs))
        units = self.kernels.units if self.kernels else None
        self.home: Home | None = self.kernels.home if self.kernels else None
        self.planner = Planner(graph, conditions, lowered, varying, units, self.home)
        self.on_host: list[int] = self.planner.scalar_inputs

    def __call__(self, arrays: list[Any], out: list[Any]) -> list[Any]:
        try:
            return self._run(arrays, out)
        except SizeError:
            if not self.planner.forget():
                raise
        return self._run(arrays, out)  # a size that only a user's op knows is another one now

    def _run(self, arrays: list[Any], out: list[Any]) -> list[Any]:
        plan: Plan = self.planner(arrays)
        if self.kernels is not None and self.kernels.wide(plan):
            plan = self.planner(arrays, tiles=1)
        late = len(self.planner.late)
        results = plan.results([*out, *[None] * late] if late else out, self.home)
        fresh = next((k for k, o in enumerate(out) if o is not None), len(out))
        fault = self.runner(plan, arrays, results, self.constants, fresh)
        if fault is not None:
            raise self.sites[fault.site].exception(fault.numbers)
        return self.planner.trimmed(plan, results) if late else results

    # --- native code, from the cache or new

    def _native(self) -> tuple[Kept, Program | None]:
        """The code, and the program of which it was made if that was now."""
        compilation, start = self.compilation, time.perf_counter()
        shelf = Shelf(compilation.passes, use=not compilation.timed)
        kept = shelf.requested(compilation.graph, compilation.shared_shapes)
        if kept is None:
            kept = shelf.closed(compilation.closed)
        if kept is not None:
            self.cached = True
            compilation.seconds["load"] = time.perf_counter() - start
            return kept, None
        closed = compilation.closed
        jit.prepare_products(_product_dtypes(closed.graph))
        lowered = compilation.lowered
        start = time.perf_counter()
        program = expand_math(compilation.program)
        code = jit.compile_program(program)
        compilation.seconds["llvm"] = time.perf_counter() - start
        shelf.put(replace(lowered, program=None), replace(code, llvm_ir=""), closed)
        return Kept(lowered, code, closed), program

    # --- looking inside

    def report(self) -> Report:
        """What the compiler did.  After a load from the cache the stages are worked out anew."""
        lowered = self.compilation.lowered
        loops, outside = count(self.compilation.program)
        passes = [(p.name, p.seconds) for p in self.compilation.journal.passes]
        made, launches = int(self.backend == "llvm"), list[str]()
        if self.kernels:
            made, launches = len(self.kernels.host.kernels), self.kernels.explained()
        return Report(self.name, loops, outside, made, dict(self.compilation.seconds), passes,
                      self.cached, lowered.arena, launches=launches, remarks=list(self.remarks))

    def source(self, stage: str = "graph") -> str:
        """The program as text: 'graph' (after all passes), 'loops', 'llvm' or 'asm'."""
        program = self.compilation.program
        if stage == "graph":
            return equations(self.compilation.final)
        if stage == "loops":
            return format_program(program)
        if self.kernels:
            if stage == "cuda":
                return self.kernels.text
            raise ValueError(f"there is no stage {stage!r}; write 'graph', 'loops' or 'cuda'")
        if stage == "llvm":
            return jit.optimised_ir(expand_math(program))
        if stage == "asm":
            return jit.assembly(expand_math(program))
        raise ValueError(f"there is no stage {stage!r}; write 'graph', 'loops', 'llvm' or 'asm'")

    def after(self, pass_name: str) -> str:
        """The graph after (the last run of) a pass, as numbered equations; 'close' is the graph
        before all passes.  Raises ValueError for a pass that did not run."""
        for name, graph in reversed(self.compilation.stages):
            if name == pass_name:
                return equations(graph)
        known = ", ".join(dict.fromkeys(name for name, _ in self.compilation.stages))
        raise ValueError(f"no pass {pass_name!r} ran; there are {known}")


def _kernels(program: Program, backend: str, gpu: int | None) -> Any:
    """The runner of CUDA kernels, whose room is only read in where it is asked for."""
    from tinygraph.backends.cuda.runner import kernel_runner

    return kernel_runner(program, backend, gpu)


def _product_dtypes(graph: Graph) -> set[DType]:
    """The dtypes of the products in a graph, bodies included."""
    found = {n.outputs[0].type.dtype for n in graph.nodes() if isinstance(n.op, Dot)}
    for node in graph.nodes():
        for body in subgraphs(node.op):
            found |= _product_dtypes(body)
    return found
