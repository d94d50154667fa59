"""The host's side of a call: numbers worked out, kernels launched in order.

A device is what runs kernels: a GPU through CuPy (device.py), or the shim (shim.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tinygraph.backends.cuda.grid import BLOCKS
from tinygraph.backends.cuda.kernel import THREADS, Kernel
from tinygraph.backends.cuda.schedule import (
    Either,
    HostCall,
    HostFor,
    HostLet,
    HostProgram,
    Launch,
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
    Program,
    Select,
    Strided,
    Unary,
    Var,
)

MOST_BLOCKS = 1 << 16
FAULT_NUMBERS = 8  # of a failure
RECORD_NUMBERS = 16  # of a call: a failure's, and what blocks need that wait for one another

_INFIX = {"add": "+", "sub": "-", "mul": "*", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
          "eq": "==", "ne": "!="}
_CALLS = {"floordiv": "floordiv", "mod": "mod", "min": "min", "max": "max"}


class Device(Protocol):
    """What runs kernels.  Memory is given by objects that only the device knows."""

    units: int  # how many blocks run at a time, about
    shared_bytes: int  # of shared memory that a block may have beside what kernels declare

    def part(self, memory: Any, dtype: np.dtype, start: int, count: int) -> Any:
        """``count`` elements of ``dtype`` from byte ``start`` of ``memory`` on."""

    def array(self, memory: Any, start: int, strides: Sequence[int], sizes: Sequence[int],
              ) -> np.ndarray:
        """Elements of ``memory`` as an array on the host, which writes to it may change."""

    def write(self, memory: Any, array: np.ndarray, start: int, strides: Sequence[int]) -> None:
        """Put what ``array`` gave out back."""

    def launch(self, kernel: Kernel, blocks: int, buffers: Sequence[Any], scalars: Sequence[int],
               shared: int) -> None:
        """Run a kernel; ``buffers`` with the failure record in front where it checks.
        ``shared``: bytes of shared memory."""


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
            return f"({x} {e.op} {y})"
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
    on the program's own sizes."""

    arrays: Sequence[Any]
    arena: Any
    sizes: dict[str, int]


class HostRunner:
    """Runs the host's program of a loop program on a device."""

    def __init__(self, program: Program, host: HostProgram, device: Device) -> None:
        self.program, self.host, self.device = program, host, device
        self._known: dict[int, Callable[[dict[str, int]], int]] = {}
        self._argument = {id(b): k for k, b in enumerate(program.args)}
        self._offset = {id(b): offset for b, offset in program.arena}

    def number(self, e: Expr, env: dict[str, int]) -> int:
        """The value of an expression."""
        found = self._known.get(id(e))
        if found is None:
            found = self._known[id(e)] = evaluator(e)
        return found(env)

    def true(self, cond: Expr, sizes: Sequence[int]) -> bool:
        """Does a condition on the program's sizes hold?"""
        return bool(self.number(cond, dict(zip(self.program.sizes, sizes, strict=True))))

    def run(self, sizes: Sequence[int], arrays: Sequence[Any], arena: Any, fault: Any) -> None:
        """Launch everything.  ``arrays``: the program's arguments, flat, in the device's memory;
        ``arena``: the workspace;  ``fault``: the failure record, zeros."""
        env = dict(zip(self.program.sizes, sizes, strict=True))
        self._steps(self.host.steps, dict(env), Memory(arrays, arena, env), fault)

    def _steps(self, steps: Sequence[Step], env: dict[str, int], memory: Memory, fault: Any
               ) -> None:
        for step in steps:
            if isinstance(step, Launch):
                self._launch(step.kernel, env, memory, fault)
            elif isinstance(step, HostLet):
                env[step.var.name] = self.number(step.value, env)
            elif isinstance(step, HostFor):
                for k in range(self.number(step.extent, env)):
                    env[step.var.name] = k
                    self._steps(step.body, env, memory, fault)
            elif isinstance(step, Either):
                chosen = step.then if self.number(step.cond, env) else step.other
                self._steps(chosen, env, memory, fault)
            elif isinstance(step, HostCall):
                self._call(step, env, memory)

    def _launch(self, kernel: Kernel, env: dict[str, int], memory: Memory, fault: Any) -> None:
        blocks = 1
        if kernel.blocks is not None:
            blocks = self.number(kernel.blocks, env)
        elif kernel.elements is not None:
            blocks = -(-self.number(kernel.elements, env) // THREADS)
        if blocks <= 0:
            return
        buffers = [self._place(b, memory) for b in kernel.buffers]
        if kernel.together:
            buffers.insert(0, self.device.part(fault, int64.np, 8 * FAULT_NUMBERS, 2))
            blocks = min(blocks, self.device.units) if kernel.blocks is not None else (
                self.device.units)
            env = {**env, BLOCKS: blocks}
        if kernel.checks:
            buffers.insert(0, self.device.part(fault, int64.np, 0, FAULT_NUMBERS))
        room, held = self.device.shared_bytes, dict.fromkeys((n for n, _ in kernel.held), 0)
        for name, size in kernel.held:
            needed = self.number(size, env)
            if needed <= room:
                room, held[name] = room - needed, 1
        scalars = [held[name] if name in held else env[name] for name in kernel.scalars]
        self.device.launch(kernel, min(blocks, MOST_BLOCKS), buffers, scalars,
                           self.device.shared_bytes - room)

    def _place(self, buffer: Buffer, memory: Memory) -> Any:
        found = self._argument.get(id(buffer))
        if found is not None:
            return memory.arrays[found]
        start = self.number(self._offset[id(buffer)], memory.sizes)
        count = self.number(buffer.size, memory.sizes)
        return self.device.part(memory.arena, buffer.dtype.np, start, count)

    def _call(self, step: HostCall, env: dict[str, int], memory: Memory) -> None:
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
