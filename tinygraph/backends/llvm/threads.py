"""The threads of compiled code: one native pool per process, which Python only sets up.

    i64 @tinygraph_parallel(ptr task, ptr context, i64 count, i64 threads)      # in the IR

calls ``i64 task(ptr context, i64 index)`` once for each index below ``count``, on the calling
thread and at most ``threads - 1`` workers, and returns when all calls have.  The result is 0, or
what the failing task of the lowest index returned; after a failure the rest is skipped.  A call
from inside a task, or while another thread of the process has the pool, runs on the thread that
calls: same results.

Workers start at the first call that needs them, take over the caller's floating-point mode, and
sleep when nobody has called for a while.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import signal
import sys
import threading
import time
from dataclasses import dataclass

import llvmlite.binding as llvm

from tinygraph.backends.llvm import pool_ir
from tinygraph.backends.llvm.pool_platform import IMPORTS

SYMBOL = pool_ir.ENTRY

# Held while compiling, and across a fork, so that a child never inherits a half-made pool.
_LOCK = threading.RLock()


@dataclass(frozen=True)
class Pool:
    """The pool in this process.

    address  of the function
    reset    of the function that a forked child calls; None if there are no threads to forget
    code     the object file, good for any process on this machine
    """

    address: int
    reset: int | None
    code: bytes


def declaration() -> str:
    """The line that makes the function known to a module."""
    return f"declare i64 @{SYMBOL}(ptr, ptr, i64, i64)"


def address(code: bytes | None = None) -> int:
    """The address of the function in this process.

    The first use compiles the pool, in some milliseconds, unless it is given the ``code`` that
    ``object_code`` returned in another process on this machine.  No thread starts before the
    function is called.
    """
    return _pool(code).address


def object_code() -> bytes:
    """The object file of the pool, to keep with the code that calls it."""
    return _pool().code


def prepare() -> None:
    """Begin to compile the pool on a thread of its own, so that ``address`` need not wait."""
    _watch_forks()
    # Not a daemon: the process must not end under LLVM's feet.
    threading.Thread(target=address, name="tinygraph.pool").start()


def _pool(code: bytes | None = None) -> Pool:
    """The pool; the first call makes it."""
    _watch_forks()
    with _LOCK:
        made = _made()
        if not made:
            made.append(_link(code))
        return made[0]


@functools.cache
def _made() -> list[Pool]:
    """The pool of this process, once there is one."""
    return []


def _watch_forks() -> None:
    with _LOCK:
        _forks_watched()


@functools.cache
def _forks_watched() -> bool:
    register = getattr(os, "register_at_fork", None)  # none on Windows, where nothing forks
    if register is not None:
        register(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_begin_anew)
    return True


def _begin_anew() -> None:
    """In the child of a fork, which has none of its parent's threads."""
    for pool in _made():
        if pool.reset is not None:
            ctypes.CFUNCTYPE(None)(pool.reset)()
    _LOCK.release()


def _link(code: bytes | None) -> Pool:
    """Link the pool into this process, compiled now if ``code`` is None."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # Without optimisation: it would triple the time, and the threads wait for memory anyway.
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(),
        opt=0, reloc="pic", jit=True,
    )  # fmt: skip
    imports = _pthreads()
    exports = [SYMBOL, pool_ir.RESET] if imports else [SYMBOL]
    if code is None:
        module = llvm.parse_assembly(source(), llvm.create_context())
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        module.verify()
        code = machine.emit_object(module)
    builder = llvm.JITLibraryBuilder()
    builder.add_object_img(code)
    builder.add_current_process()  # memset
    for name, place in imports.items():
        builder.import_symbol(name, place)
    for name in exports:
        builder.export_symbol(name)
    linker = llvm.create_lljit_compiler(machine)
    tracker = builder.link(linker, "tinygraph.pool")
    addresses = [tracker[name] for name in exports]
    # Workers stay in this code until the process ends, so nothing may ever unload it.
    tracker.detach()
    linker.detach()
    return Pool(addresses[0], addresses[1] if imports else None, code)


def source() -> str:
    """The LLVM IR of the pool for this platform."""
    if not _pthreads():
        return pool_ir.serial()
    machine = platform.machine().lower()
    arch = "aarch64" if machine in ("aarch64", "arm64") else "other"
    if machine in ("x86_64", "amd64"):
        arch = "x86"
    names = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT")
    kept = {name: int(getattr(signal, name)) for name in names}
    return pool_ir.pool(arch, time.CLOCK_MONOTONIC, int(signal.SIG_SETMASK), kept)


def _pthreads() -> dict[str, int]:
    """Where the functions that the pool needs are; empty on a platform that lacks one."""
    if os.name != "posix" or sys.maxsize < 2**32:
        return {}
    process = ctypes.CDLL(None)
    found = {}
    for name in IMPORTS:
        function = getattr(process, name, None)
        if function is None:
            return {}
        place = ctypes.cast(function, ctypes.c_void_p).value
        assert place is not None
        found[name] = place
    return found
