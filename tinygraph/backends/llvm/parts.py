"""A module as text, cut into parts that LLVM compiles side by side.

Code generation is most of the time of a compilation, its cost is that of the functions one by one,
and it needs no Python.  The parts call one another's functions, which the linker puts together.
"""

from __future__ import annotations

import ctypes
import functools
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import llvmlite.binding as llvm
from llvmlite.binding import ffi

SMALLEST = 1 << 16  # characters: less is not worth a thread, nor what all parts have in common
MOST = 8

_NAME = re.compile(r'@([A-Za-z_$][\w$.]*)')

Item = TypeVar("Item")
Made = TypeVar("Made")


def cut(text: str, count: int) -> list[str]:
    """``text``, a module whose functions stand between blank lines, as up to ``count`` modules of
    about one length.  What is internal to the module becomes hidden in the linked whole."""
    pieces = text.split("\n\n")
    functions = [p for p in pieces if p.startswith("define ")]
    common = [p for p in pieces if not p.startswith("define ")]
    count = min(count, len(functions), max(1, sum(map(len, functions)) // SMALLEST), MOST)
    if count == 1:
        return [text]
    heads = {_name(f): _declaration(f) for f in functions if f.startswith("define internal ")}
    bins: list[list[str]] = [[] for _ in range(count)]
    sizes = [0] * count
    for function in sorted(functions, key=len, reverse=True):
        smallest = sizes.index(min(sizes))
        bins[smallest].append(function)
        sizes[smallest] += len(function)
    return [_module(own, heads, common) for own in bins]


def _name(function: str) -> str:
    found = _NAME.search(function)
    return found.group(1) if found else ""


def _declaration(function: str) -> str:
    head = function[:function.index(" #")]
    return head.replace("define internal", "declare hidden", 1)


def _module(functions: Sequence[str], heads: dict[str, str], common: Sequence[str]) -> str:
    text = "\n\n".join(f.replace("define internal", "define hidden", 1) for f in functions)
    own = set(map(_name, functions))
    others = sorted(name for name in set(_NAME.findall(text)) if name in heads and name not in own)
    return "\n\n".join([text, "\n".join(heads[name] for name in others), *common])


def beside(work: Callable[[], Made]) -> Future[Made]:
    """Begin ``work()`` on a thread of its own."""
    future: Future[Made] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised by the thread that waits
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def side_by_side(work: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
    """work(item) for every item, each on a thread of its own; raises what one of them raises."""
    others = [beside(functools.partial(work, item)) for item in items[1:]]
    first = work(items[0])
    return [first, *(future.result() for future in others)]


def object_file(machine: llvm.TargetMachine, module: llvm.ModuleRef) -> bytes:
    """The object file of ``module``.  Nobody else may use ``machine`` or the module's context
    meanwhile: llvmlite holds one lock around all it calls, and here it is left out, since two
    machines and two contexts have nothing in common."""
    emit = getattr(ffi.lib.LLVMPY_TargetMachineEmitToMemory, "_cfn", None)
    if emit is None:  # another llvmlite: one after the other
        return machine.emit_object(module)
    with ffi.OutputString() as error:
        buffer = emit(machine, module, 1, error)
        if not buffer:
            raise RuntimeError(str(error))
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer),
                                ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def run_passes(passes: llvm.ModulePassManager, module: llvm.ModuleRef,
               builder: llvm.PassBuilder) -> None:
    """Run ``passes`` over ``module``, also without that lock, under the same condition."""
    run = getattr(ffi.lib.LLVMPY_RunNewModulePassManager, "_cfn", None)
    if run is None:
        passes.run(module, builder)
    else:
        run(passes, module, builder)
