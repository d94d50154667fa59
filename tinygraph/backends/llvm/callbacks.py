"""Calls from native code back into Python.

For a ``Call`` native code writes down, 8 bytes each, per array: its address, its sizes, its
strides in elements; and calls a function of ctypes with the address of these words.  That function
takes the GIL, makes arrays of the words and runs the Python function on them.  An exception is
kept for the thread, native code leaves with ``RAISED``, and whoever called it raises it there.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygraph.backends.llvm.tiles import Target
from tinygraph.loops.language import Call, Program, walk

RAISED = -1  # what a program returns after an exception
PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
ENTRY = "python_call"


def calls(program: Program) -> list[Call]:
    """The Calls of a program, in its order."""
    return [s for s in walk(program.body) if isinstance(s, Call)]


def symbol(number: int) -> str:
    """What the program calls its ``number``-th Call."""
    return f"tinygraph_python_{number}"


def entry(target: Target) -> str:
    """The function that makes the processor treat denormals as Python expects them, calls, and
    puts the mode back."""
    call = "call i64 %function(ptr %words)"
    lines = [f"define internal i64 @{ENTRY}(ptr %function, ptr %words) #1 {{", "entry:"]
    if target.arch == "x86":
        lines += [
            "  %state = alloca i32, align 4",
            "  %usual = alloca i32, align 4",
            "  call void @llvm.x86.sse.stmxcsr(ptr %state)",
            "  %old = load volatile i32, ptr %state, align 4",
            f"  %new = and i32 %old, {~0x8040}  ; neither FTZ nor DAZ",
            "  store volatile i32 %new, ptr %usual, align 4",
            "  call void @llvm.x86.sse.ldmxcsr(ptr %usual)",
            f"  %code = {call}",
            "  call void @llvm.x86.sse.ldmxcsr(ptr %state)",
        ]
    elif target.arch == "aarch64":
        lines += [
            "  %old = call i64 @llvm.aarch64.get.fpcr()",
            f"  %new = and i64 %old, {~(1 << 24)}  ; not FZ",
            "  call void @llvm.aarch64.set.fpcr(i64 %new)",
            f"  %code = {call}",
            "  call void @llvm.aarch64.set.fpcr(i64 %old)",
        ]
    else:
        lines.append(f"  %code = {call}")
    return "\n".join([*lines, "  ret i64 %code", "}"])


def write(emitter: Any, stmt: Call, number: int) -> None:
    """Tell Python where the arrays of the ``number``-th Call lie; leave if it raised."""
    code, words = emitter.code, list[tuple[str, str]]()
    for x in (*stmt.inputs, *stmt.outputs):
        words.append(("ptr", emitter.address(x.buffer, emitter.expr(x.offset, index=True))))
        words += [("i64", emitter.expr(e)) for e in (*x.sizes, *x.strides)]
    area = emitter.alloca("i64", max(1, len(words)))
    for position, (kind, operand) in enumerate(words):
        place = code.value(f"getelementptr inbounds i64, ptr {area}, i64 {position}")
        code.emit(f"store {kind} {operand}, ptr {place}, align 8")
    emitter.declare(f"declare i64 @{symbol(number)}(ptr)")
    raised = code.value(f"call i64 @{ENTRY}(ptr @{symbol(number)}, ptr {area})")
    cond = code.value(f"icmp eq i64 {raised}, 0")
    passed, failed = code.fresh("passed"), code.fresh("failed")
    code.emit(f"br i1 {cond}, label %{passed}, label %{failed}, !prof {emitter.likely()}")
    code.block(failed)
    code.emit(f"ret i64 {RAISED}")
    code.block(passed)
    emitter.epoch += 1


class Callbacks:
    """What the Calls of one program need in this process.  Must live as long as its code.

    ``addresses``: what to link, by symbol
    """

    def __init__(self, program: Program | None) -> None:
        self._raised = threading.local()
        found = calls(program) if program is not None else []
        self._functions = [PROTOTYPE(self._function(call)) for call in found]
        self.addresses = {symbol(k): ctypes.cast(f, ctypes.c_void_p).value or 0
                          for k, f in enumerate(self._functions)}

    def __bool__(self) -> bool:
        return bool(self._functions)

    def _function(self, call: Call) -> Callable[[int], int]:
        shared, arrays = self._raised, _Arrays(call)

        def run(words: int) -> int:
            try:
                call.function(*arrays(words))
            except BaseException as error:  # also an interrupt: take() hands it on
                shared.error = error
                return 1
            return 0

        return run

    def take(self) -> BaseException:
        """The exception with which the program has just left in this thread."""
        error = self._raised.error
        del self._raised.error
        return error


class _Arrays:
    """Makes arrays, those of the inputs and those of the outputs, of the words of a Call."""

    def __init__(self, call: Call) -> None:
        both = (*call.inputs, *call.outputs)
        self._kinds = [(len(x.sizes), x.buffer.dtype.np) for x in both]
        self._words = ctypes.c_int64 * max(1, sum(1 + 2 * rank for rank, _ in self._kinds))
        self._inputs = len(call.inputs)

    def __call__(self, address: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        words, at, found = self._words.from_address(address)[:], 0, list[np.ndarray]()
        for rank, kind in self._kinds:
            sizes = words[at + 1:at + 1 + rank]
            if 0 in sizes:
                found.append(np.empty(sizes, kind))
            else:
                strides = [n * kind.itemsize for n in words[at + 1 + rank:at + 1 + 2 * rank]]
                found.append(np.asarray(_Memory(words[at], sizes, strides, kind)))
            at += 1 + 2 * rank
        return found[:self._inputs], found[self._inputs:]


class _Memory:
    """Memory of native code, as NumPy wants it described."""

    def __init__(self, start: int, sizes: Sequence[int], strides: Sequence[int], kind: np.dtype
                 ) -> None:
        self.__array_interface__: dict[str, Any] = {
            "version": 3, "data": (start, False), "shape": tuple(sizes),
            "strides": tuple(strides), "typestr": kind.str}
