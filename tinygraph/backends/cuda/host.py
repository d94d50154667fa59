"""The host's side of a call: numbers worked out, kernels launched in order.

A device is what runs kernels: a GPU through CuPy (device.py), or the shim (shim.py).  Calls that
come again are replayed (replay.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from tinygraph.backends.cuda import cublas
from tinygraph.backends.cuda.grid import BLOCKS
from tinygraph.backends.cuda.kernel import THREADS, Kernel
from tinygraph.backends.cuda.replay import Launched, Launcher, Now, Repeats, Replays, Sink
from tinygraph.backends.cuda.schedule import (
    Either,
    HostCall,
    HostFor,
    HostLet,
    HostProgram,
    Launch,
    Product,
    Step,
)
from tinygraph.dtypes import int64
from tinygraph.errors import InternalError
from tinygraph.loops.language import (
    Binary,
    Buffer,
    Cast,
    Const,
    DimOf,
    Expr,
    Gemm,
    Program,
    Select,
    Strided,
    Unary,
    Var,
)

MOST_BLOCKS = 1 << 16
FAULT_NUMBERS = 8  # of a failure
SYNC_NUMBERS = 24  # with which blocks count that wait for one another
RECORD_NUMBERS = FAULT_NUMBERS + SYNC_NUMBERS  # of a call

_INFIX = {"add": "+", "sub": "-", "mul": "*", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
          "eq": "==", "ne": "!="}
_CALLS = {"floordiv": "floordiv", "mod": "mod", "min": "min", "max": "max"}


@dataclass(frozen=True)
class Operand:
    """A matrix of a product: element (i, j) of ``memory`` is at start + i*rows + j*cols."""

    memory: Any
    start: int
    rows: int
    cols: int


class Device(Launcher, Protocol):
    """What runs kernels.  Memory is given by objects that only the device knows."""

    units: int  # how many blocks run at a time, about
    shared_bytes: int  # of shared memory that a block may have beside what kernels declare

    @property
    def repeats(self) -> Repeats | None:
        """What replays calls; None where every call is worked out."""

    @property
    def multiplies(self) -> bool:
        """Can it multiply matrices without a kernel of the program (cuBLAS)?"""

    def part(self, memory: Any, dtype: np.dtype, start: int, count: int) -> Any:
        """``count`` elements of ``dtype`` from byte ``start`` of ``memory`` on."""

    def array(self, memory: Any, start: int, strides: Sequence[int], sizes: Sequence[int],
              ) -> np.ndarray:
        """Elements of ``memory`` as an array on the host, which writes to it may change."""

    def write(self, memory: Any, array: np.ndarray, start: int, strides: Sequence[int]) -> None:
        """Put what ``array`` gave out back."""

    def together(self, kernel: Kernel, shared: int) -> int:
        """How many blocks of a kernel that wait for one another are to run."""

    def multiply(self, a: Operand, b: Operand, c: Operand, sizes: tuple[int, int, int],
                 accumulate: bool) -> None:
        """c = a b, or c += a b, m x k by k x n (``sizes``: m, n, k), of strides that
        ``cublas.product`` takes."""


def evaluator(e: Expr) -> Callable[[dict[str, int]], int]:
    """A function that works out an int64 expression from what names stand for."""
    return eval(f"lambda env: {_python(e)}", {"floordiv": _floordiv, "mod": _mod})


def _floordiv(x: int, y: int) -> int:
    return x // y if y else 0


def _mod(x: int, y: int) -> int:
    return x % y if y else 0


def _python(e: Expr) -> str:
    if isinstance(e, Const):
        return repr(int(e.value))
    if isinstance(e, (Var, DimOf)):
        return f"env[{e.name!r}]"
    if isinstance(e, Binary):
        x, y = _python(e.x), _python(e.y)
        if e.op in _INFIX:
            return f"({x} {_INFIX[e.op]} {y})"
        if e.op in ("and", "or"):
            bits = {"and": "&", "or": "|"}[e.op]
            return f"({x} {bits if e.dtype is int64 else e.op} {y})"
        if e.op in _CALLS:
            return f"{_CALLS[e.op]}({x}, {y})"
    if isinstance(e, Unary) and e.op in ("neg", "abs"):
        return f"({'-' if e.op == 'neg' else 'abs'}({_python(e.x)}))"
    if isinstance(e, Select):
        return f"({_python(e.then)} if {_python(e.cond)} else {_python(e.other)})"
    if isinstance(e, Cast) and e.dtype is int64:
        return f"int({_python(e.x)})"
    raise InternalError(f"{e!r} is nothing that the host can work out")


@dataclass
class Memory:
    """Where buffers are in one call: arrays by their number, and the workspace, whose places hang
    on the program's own sizes; the failure record, and what blocks that wait count."""

    arrays: Sequence[Any]
    arena: Any
    sizes: dict[str, int]
    fault: Any
    sync: Any
    places: dict[int, Any] = field(default_factory=dict)


class HostRunner:
    """Runs the host's program of a loop program on a device.  One call at a time may use it."""

    def __init__(self, program: Program, host: HostProgram, device: Device) -> None:
        self.program, self.host, self.device = program, host, device
        self.replays = Replays(device.repeats, program.name) if device.repeats else None
        self._known: dict[int, Callable[[dict[str, int]], int]] = {}
        self._argument = {id(b): k for k, b in enumerate(program.args)}
        self._offset = {id(b): offset for b, offset in program.arena}
        self._arena = len(program.args)  # the place of the workspace in a call; the record is next
        self._parameters: dict[str, tuple[list[int], list[int | None]]] = {}

    def number(self, e: Expr, env: dict[str, int]) -> int:
        """The value of an expression."""
        found = self._known.get(id(e))
        if found is None:
            found = self._known[id(e)] = evaluator(e)
        return found(env)

    def true(self, cond: Expr, sizes: Sequence[int]) -> bool:
        """Does a condition on the program's sizes hold?"""
        return bool(self.number(cond, dict(zip(self.program.sizes, sizes, strict=True))))

    def run(self, sizes: Sequence[int], arrays: Sequence[Any], arena: Any, record: Any) -> None:
        """Launch everything.  ``arrays``: the program's arguments, flat, in the device's memory;
        ``arena``: the workspace;  ``record``: the failure record, RECORD_NUMBERS zeros."""
        part = self.device.part
        memory = Memory(arrays, arena, dict(zip(self.program.sizes, sizes, strict=True)),
                        part(record, int64.np, 0, FAULT_NUMBERS),
                        part(record, int64.np, 8 * FAULT_NUMBERS, SYNC_NUMBERS))

        def call(sink: Sink) -> None:
            self._steps(self.host.steps, dict(memory.sizes), memory, sink)

        if self.replays is None:
            call(Now(self.device, memory))
        else:
            self.replays.run(tuple(sizes), (*arrays, arena, record), memory, call)

    def _steps(self, steps: Sequence[Step], env: dict[str, int], memory: Memory, sink: Sink
               ) -> None:
        for step in steps:
            if isinstance(step, Launch):
                self._launch(step.kernel, env, memory, sink)
            elif isinstance(step, HostLet):
                env[step.var.name] = self.number(step.value, env)
            elif isinstance(step, Product):
                self._product(step, env, memory, sink)
            elif isinstance(step, HostFor):
                for k in range(self.number(step.extent, env)):
                    env[step.var.name] = k
                    self._steps(step.body, env, memory, sink)
            elif isinstance(step, Either):
                chosen = step.then if self.number(step.cond, env) else step.other
                self._steps(chosen, env, memory, sink)
            elif isinstance(step, HostCall):
                sink.work(partial(self._call, step, dict(env)))

    def _launch(self, kernel: Kernel, env: dict[str, int], memory: Memory, sink: Sink) -> None:
        blocks = self._blocks(kernel, env)
        if blocks <= 0:
            return
        sources, arguments = self._takes(kernel)
        buffers = [memory.fault] if kernel.checks else []
        if kernel.together:
            env = {**env, BLOCKS: blocks}
            buffers.append(memory.sync)
        buffers += [self._place(b, memory) if k is None else memory.arrays[k]
                    for k, b in zip(arguments, kernel.buffers, strict=True)]
        room = self.device.shared_bytes
        held = dict[str, int]()
        for name, size in kernel.held:
            needed = self.number(size, env)
            held[name] = int(needed <= room)
            if needed <= room:
                room -= needed
        scalars = [held[name] if name in held else env[name] for name in kernel.scalars]
        sink.launch(Launched(kernel, blocks, buffers, sources, scalars,
                             self.device.shared_bytes - room))

    def _takes(self, kernel: Kernel) -> tuple[list[int], list[int | None]]:
        """The place of each of its parameters among the addresses of a call; and of each of its
        buffers among the arguments, None for one in the workspace."""
        found = self._parameters.get(kernel.name)
        if found is None:
            arguments = [self._argument.get(id(b)) for b in kernel.buffers]
            sources = [self._arena + 1] * (kernel.checks + kernel.together)
            sources += [self._arena if k is None else k for k in arguments]
            found = self._parameters[kernel.name] = sources, arguments
        return found

    def _blocks(self, kernel: Kernel, env: dict[str, int]) -> int:
        most = MOST_BLOCKS
        if kernel.together:  # a block may take all the shared memory there is
            most = self.device.together(kernel, self.device.shared_bytes)
        if kernel.blocks is not None:
            return min(self.number(kernel.blocks, env), most)
        if kernel.elements is not None:
            return min(-(-self.number(kernel.elements, env) // THREADS), most)
        return most if kernel.together else 1

    def _product(self, step: Product, env: dict[str, int], memory: Memory, sink: Sink) -> None:
        gemm = step.gemm
        m, n, k = (self.number(e, env) for e in (gemm.m, gemm.n, gemm.k))
        if self.device.multiplies and m * n * k >= step.limit:
            a, b, c = (cublas.Matrix(*(self.number(e, env) for e in (x.offset, x.rows, x.cols)))
                       for x in (gemm.a, gemm.b, gemm.c))
            if cublas.product(a, b, c, m, n, k) is not None:
                sink.work(partial(self._multiply, gemm, (a, b, c), (m, n, k)))
                return
        self._launch(step.kernel.kernel, env, memory, sink)

    def _multiply(self, gemm: Gemm, matrices: Sequence[cublas.Matrix], sizes: tuple[int, int, int],
                  memory: Memory) -> None:
        """``matrices``: as cuBLAS has them, but with offsets in elements for addresses."""
        a, b, c = (Operand(self._place(x.buffer, memory), m.address, m.rows, m.cols)
                   for x, m in zip((gemm.a, gemm.b, gemm.c), matrices, strict=True))
        self.device.multiply(a, b, c, sizes, gemm.accumulate)

    def _place(self, buffer: Buffer, memory: Memory) -> Any:
        found = self._argument.get(id(buffer))
        if found is not None:
            return memory.arrays[found]
        place = memory.places.get(id(buffer))
        if place is None:
            start = self.number(self._offset[id(buffer)], memory.sizes)
            count = self.number(buffer.size, memory.sizes)
            place = self.device.part(memory.arena, buffer.dtype.np, start, count)
            memory.places[id(buffer)] = place
        return place

    def _call(self, step: HostCall, env: dict[str, int], memory: Memory) -> None:
        if self.program.sites and self.device.array(memory.fault, 0, [1], [1])[0]:
            return  # a kernel has failed, and the function's arrays may hold anything
        call = step.call
        inputs = [self._strided(x, env, memory) for x in call.inputs]
        outputs = [self._strided(x, env, memory) for x in call.outputs]
        call.function([x[0] for x in inputs], [x[0] for x in outputs])
        for array, place, start, strides in outputs:
            self.device.write(place, array, start, strides)

    def _strided(self, x: Strided, env: dict[str, int], memory: Memory
                 ) -> tuple[np.ndarray, Any, int, list[int]]:
        place = self._place(x.buffer, memory)
        start = self.number(x.offset, env)
        strides = [self.number(e, env) for e in x.strides]
        sizes = [self.number(e, env) for e in x.sizes]
        return self.device.array(place, start, strides, sizes), place, start, strides
