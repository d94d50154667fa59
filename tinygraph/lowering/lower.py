"""Graph -> loop program: the entry to the rooms of lowering.

    views become index maps, elementwise clusters and reductions nests, dots Gemm statements,
    scans serial loops; every temp gets its place in one arena.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinygraph.dims import THREADS, Dim, dim, is_late
from tinygraph.graph import Graph, Guard, Value, subgraphs, toposort
from tinygraph.late import late_symbols
from tinygraph.loops import build as E
from tinygraph.loops.language import Block, Expr, For, Program, walk
from tinygraph.lowering.clock import Clock, Mark
from tinygraph.lowering.overlap import placed_together
from tinygraph.lowering.overlay import overlay
from tinygraph.lowering.region import Region
from tinygraph.lowering.storage import Site, Storage
from tinygraph.lowering.target import CPU, Target
from tinygraph.lowering.workspace import plan
from tinygraph.scan_module.op import Scan

# Below this many columns a row does not fill vector registers well: the batch goes there.
NARROW = 32


@dataclass(frozen=True)
class Lowered:
    """A loop program and what a caller needs to run it.

    program    the program (None where only its object code was kept)
    arguments  how many arrays it takes: inputs, outputs, constants
    sizes      the Dim behind every size parameter, in order
    constants  arrays passed after inputs and outputs
    arena      the size of the workspace in bytes
    outputs    the shape of every output
    sites      failure sites: what a Check that fails means
    budgets    what loops with a budget keep for their gradient
    marks      what is timed, where that was asked for; the last constant takes the times
    """

    program: Program | None
    arguments: int
    sizes: tuple[Dim, ...]
    constants: tuple[np.ndarray, ...]
    arena: Dim
    outputs: tuple[tuple[Dim, ...], ...]
    sites: tuple[Site, ...]
    budgets: tuple[Budget, ...] = ()
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Budget:
    """A loop keeps ``kept`` bytes for its gradient; ``most`` is what it was to keep at most."""

    most: int
    kept: Dim
    source: str


def lower(graph: Graph, name: str = "f", target: Target = CPU, guards: Sequence[Guard] = (),
          unread: int = 0, timed: bool = False) -> Lowered:
    """The loop program of a closed graph.  Its arguments: inputs, outputs, constants.

    guards: about late symbols, for the program to check
    unread: how many of the last outputs are computed, but are no results
    timed: the program takes the time of its parts
    """
    storage = Storage(choose_lane(graph) if target.lanes else None, target)
    storage.expect(late_symbols(graph), guards)
    storage.clock = Clock() if timed else None
    storage.looped = bool(_scans(graph))
    region = Region(storage)
    for k, value in enumerate(graph.inputs):
        region.where[value] = storage.argument(value, value.name or f"in{k}", writable=False)
        if storage.lane in value.type.dims[:-1]:
            region.lay_out(value)
    outputs = graph.outputs[:len(graph.outputs) - unread]
    places = [storage.argument(value, f"out{k}", writable=True)
               for k, value in enumerate(outputs)]
    for value, place in zip(outputs, places, strict=True):
        if value.node is not None:
            region.targets.setdefault(value, place)
    region.lower(graph.outputs)
    for value, place in zip(outputs, places, strict=True):
        region.put(value, place)
    b = E.Builder(taken=("sizes", "args", *storage.late_names()))
    if storage.clock is None:
        region.emit(b)
    else:
        with storage.clock.timed(b, "call"):
            region.emit(b)
    return _finish(name, storage, b.block(), outputs)


def _finish(name: str, storage: Storage, body: Block, outputs: Sequence[Value]) -> Lowered:
    body = overlay(body, storage.temps, storage.same_rows)
    marks: tuple[Mark, ...] = ()
    if storage.clock is not None:
        storage.constants.append(storage.clock.array())
        storage.constant_buffers.append(storage.clock.buffer)
        marks = tuple(storage.clock.marks)
    together = placed_together(body, storage.overlaps)
    offsets, arena = plan(body, storage.temps, together)
    places = tuple((buffer, _offset(storage, offset)) for buffer, offset in offsets)
    arena_bytes = storage.sizes.parameter(arena)
    threads: Expr = E.index(1)
    if any(isinstance(s, For) and s.mode == "parallel" for s in walk(body)):
        threads = storage.sizes.parameter(dim(THREADS))
    program = Program(
        name, tuple(storage.sizes.names.values()),
        (*storage.args, *storage.constant_buffers), places, arena_bytes, body,
        len(storage.sites), threads, tuple(map(tuple, together)))
    return Lowered(program, len(program.args), tuple(storage.sizes.names),
                   tuple(storage.constants), arena, tuple(v.type.dims for v in outputs),
                   tuple(storage.sites), _budgets(outputs), marks)


def _offset(storage: Storage, offset: Dim) -> Expr:
    if offset.const is not None:
        return E.index(offset.const)
    return storage.sizes.parameter(offset)


def choose_lane(graph: Graph) -> Dim | None:
    """The axis that lies innermost: the batch of the recurrent states, where these are narrow
    matrices (batch, few units) of unknown batch and known width; else None."""
    votes: Counter[Dim] = Counter()
    for body_owner in _scans(graph):
        for state in body_owner.groups.inputs(body_owner.body.inputs).carries:
            dims = state.type.dims
            if len(dims) == 2 and dims[0].const is None and not is_late(dims[0]):
                narrow = dims[1].const is not None and dims[1].const < NARROW
                votes[dims[0]] += 1 if narrow else -1
    best = votes.most_common(1)
    return best[0][0] if best and best[0][1] > 0 else None


def _budgets(outputs: Sequence[Value]) -> tuple[Budget, ...]:
    found: list[Budget] = []
    for node in toposort(outputs):
        if isinstance(node.op, Scan) and node.op.kept is not None:
            found.append(Budget(node.op.memory or 0, node.op.kept, node.outputs[0].source))
        for body in subgraphs(node.op):
            found += _budgets(body.outputs)
    return tuple(found)


def _scans(graph: Graph) -> list[Scan]:
    found = []
    for node in toposort(graph.outputs):
        if isinstance(node.op, Scan):
            found.append(node.op)
        for body in subgraphs(node.op):
            found += _scans(body)
    return found
