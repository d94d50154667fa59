"""Runs emitted CUDA C on the CPU, without a GPU, and watches it.

The text that NVRTC would compile is compiled as C++ instead: what CUDA itself gives (threads,
barriers, shuffles) is emulated by fibers, and every element of a buffer or of a shared array is
checked when it is read or written: its bounds, and that no other thread uses it at the same time.
For tests: a kernel runs some hundred times slower than plain C.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tinygraph.backends.cuda import shim_run, shim_text
from tinygraph.backends.cuda.names import C_TYPES
from tinygraph.backends.cuda.prelude import BUILTIN, GRID

MAX_THREADS = 1024  # of a block, and of all blocks that run together
MAX_BLOCKS = (1 << 31) - 1
MAX_SHARED = 227 << 10  # bytes
_FLAGS = ("-std=c++17 -O0 -shared -fPIC -w -fwrapv -fno-strict-aliasing -ffp-contract=off "
          "-fno-exceptions -fno-rtti -fno-threadsafe-statics -fno-stack-protector "
          "-fno-sanitize=all -fvisibility=hidden").split()
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?'
                     r'(\w+)\s*\(((?:[^()]|\([^()]*\))*)\)\s*\{')
_SHARED = re.compile(r"(extern\s+)?__shared__\s+((?:(?:unsigned|signed|long)\s+)*\w+)\s+"
                     r"(\w+\s*(?:\[[^;]*)?);")
_ORDERS = ("forward", "reversed", "alternating")
_DTYPES = {c: np.dtype(name) for name, c in C_TYPES.items()}


class Launchable(Protocol):
    """What the shim needs of a kernel."""

    @property
    def name(self) -> str:
        """The function's name in the source."""

    @property
    def shared_bytes(self) -> int:
        """Bytes of shared memory that the launch gives on top of what the kernel declares."""


class ShimError(Exception):
    """A kernel did what CUDA forbids, or what has no defined result.

    ``kind``: "out-of-bounds read", "out-of-bounds write", "race", "uninitialised" (shared memory
    read before it is written), "read-only", "barrier" (not all threads reach it), "warp" (not all
    lanes reach a shuffle or __syncwarp), "grid" (not all blocks reach a tg_grid, or it is misused)
    or "stack".  ``buffer``: the parameter or shared array, or None; ``index`` and ``size`` count
    elements in it.  ``other``: (block, thread) of the other thread of a race, barrier or shuffle,
    or of a block that a grid barrier waits for; -1 where it is not known.
    """

    def __init__(self, message: str, kind: str, kernel: str, buffer: str | None, index: int,
                 size: int, block: int, thread: int, other: tuple[int, int]) -> None:
        super().__init__(message)
        self.kind, self.kernel, self.buffer = kind, kernel, buffer
        self.index, self.size, self.block, self.thread = index, size, block, thread
        self.other = other


@dataclass(frozen=True)
class _Entry:
    """A kernel's parameters as its text has them: buffers (name, dtype), then scalars."""

    number: int
    buffers: tuple[tuple[str, np.dtype[Any]], ...]
    scalars: tuple[str, ...]
    shared_bytes: int


class Shim:
    """A CUDA source, compiled for the CPU.

    ``source``  the prelude and kernels, as NVRTC would compile them
    ``kernels`` those that may be launched
    ``threads`` how many threads a block has where ``launch`` does not say

    Raises RuntimeError where there is no C++ compiler, or where it refuses the source.
    """

    def __init__(self, source: str, kernels: Sequence[Launchable], threads: int = 64) -> None:
        self.threads = threads
        signatures = {m[1]: m[2] for m in _KERNEL.finditer(source)}
        self._entries = {}
        for number, kernel in enumerate(kernels):
            if kernel.name not in signatures:
                raise ValueError(f"the source has no kernel {kernel.name!r}; "
                                 f"it has {', '.join(signatures) or 'none'}")
            buffers, scalars = _parameters(kernel.name, signatures[kernel.name])
            self._entries[kernel.name] = _Entry(number, buffers, scalars, kernel.shared_bytes)
        self.text = _host_text(source, self._entries)
        # Held under the interpreter's lock: the library's state and the stacks are for one launch.
        self._library = ctypes.PyDLL(str(_compiled(self.text)))

    def launch(self, name: str, blocks: int, threads: int | None,
               buffers: Sequence[np.ndarray[Any, Any]], scalars: Sequence[int] = (),
               order: str = "forward", shared_bytes: int | None = None,
               together: bool = False) -> None:
        """Runs a kernel.  ``buffers``: contiguous arrays of the parameters' dtypes, which may
        overlap.  ``order``: "forward", "reversed" for the last block and thread first, or
        "alternating": forward until the first grid barrier, reversed until the next, and so on.
        ``shared_bytes``: of shared memory, the kernel's own number unless given.
        ``together``: all blocks run at one time, so that they can wait for one another with
        tg_grid; all in all they have MAX_THREADS threads at most.

        Raises ShimError at the first thing that goes wrong; what was written stays written.
        """
        entry, threads = self._entries[name], threads or self.threads
        dynamic = entry.shared_bytes if shared_bytes is None else shared_bytes
        _possible(name, blocks, threads, dynamic, order, together)
        _fits(name, entry, buffers, scalars)
        table, keep = _views(buffers)
        numbers = np.array([int(s) for s in scalars] or [0], np.int64)
        report = np.zeros(len(shim_text.REPORT), np.int64)
        stacks = _stacks()
        kind = self._library.shim_launch(
            ctypes.c_int(entry.number), ctypes.c_longlong(blocks), ctypes.c_int(threads),
            ctypes.c_int(_ORDERS.index(order)), ctypes.c_int(together), _address(table),
            _address(numbers), _address(stacks), ctypes.c_longlong(shim_text.STACK),
            ctypes.c_longlong(dynamic), _address(report))
        del keep
        if kind:
            raise self._error(name, entry, dict(zip(shim_text.REPORT, report.tolist(),
                                                    strict=True)), together)

    def _error(self, name: str, entry: _Entry, r: dict[str, int], together: bool) -> ShimError:
        kind = shim_text.KINDS[r["kind"]]
        buffer = None
        if r["buffer"] >= 0:
            buffer = entry.buffers[r["buffer"]][0]
        elif r["name"]:
            buffer = (ctypes.string_at(r["name"])).decode()
        other = (r["other_block"], r["other_thread"])
        who = f"block {r['block']}, thread {r['thread']}"
        if kind in ("barrier", "warp", "stack"):
            said = self._waiting(kind, who, r)
        elif kind == "grid":
            said = self._grid(who, f"{buffer}[{r['index']}]", r)
        else:
            said = _touching(kind, who, buffer or "", r, together)
        return ShimError(f"{name}: {said}", kind, name, buffer, r["index"], r["size"], r["block"],
                         r["thread"], other)

    def _waiting(self, kind: str, who: str, r: dict[str, int]) -> str:
        if kind == "stack":
            return f"{who} uses more than {shim_text.STACK} bytes of stack"
        here, there = self._line(r["line"]), self._line(r["other_line"])
        what = "the barrier" if kind == "barrier" else "the other lanes of its warp"
        if r["other_thread"] < 0:
            return f"{who} waits in vain for {what} at `{here}`: its mask leaves out a lane"
        rest = f"waits at `{there}`" if r["other_line"] else "has ended"
        return f"{who} waits for {what} at `{here}`, but thread {r['other_thread']} {rest}"

    def _grid(self, who: str, place: str, r: dict[str, int]) -> str:
        if r["other_line"] == 4:
            return f"{who} touches {place}, which only tg_grid may while blocks run together"
        here = f"{who} waits for the grid at `{self._line(r['line'])}`"
        return here + (
            f", a grid barrier that not all blocks reach: block {r['other_block']} has ended",
            ", but blocks run one after another: launch it with together=True",
            f", but {place} is not 0 before the launch",
            f" by {place}, but other threads waited by another place in this launch",
        )[r["other_line"]]

    def _line(self, number: int) -> str:
        lines = self.text.split("\n")
        return lines[number - 1].strip() if 0 < number <= len(lines) else ""


def _touching(kind: str, who: str, buffer: str, r: dict[str, int], together: bool) -> str:
    place = f"{buffer}[{r['index']}]"
    if kind == "uninitialised":
        return f"{who} reads {place} of shared memory, which this block has not written"
    if kind == "read-only":
        return f"{who} writes {place}, but {buffer} may only be read"
    if kind == "misaligned":
        return (f"{who} {'writes' if r['line'] else 'reads'} four elements from {place} on in one "
                "piece, which does not begin at a multiple of its size")
    if kind != "race":
        verb = "writes" if kind.endswith("write") else "reads"
        return f"{who} {verb} {place}, but {buffer} has {r['size']} elements"
    verb, did = ("writes" if r["line"] else "reads"), "wrote" if r["other_line"] else "read"
    if r["other_block"] != r["block"]:
        return (f"{who} {verb} {place}, which block {r['other_block']} {did} "
                + ("with no grid barrier between" if together else "in the same launch"))
    return (f"{who} {verb} {place}, which thread {r['other_thread']} {did} "
            "with no barrier between")


def _parameters(name: str, text: str) -> tuple[tuple[tuple[str, np.dtype[Any]], ...],
                                               tuple[str, ...]]:
    buffers: list[tuple[str, np.dtype[Any]]] = []
    scalars: list[str] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        found = re.fullmatch(r"(?:const\s+)?BUF\(\s*([\w ]+?)\s*\)\s*(?:__restrict__\s+)?(\w+)",
                             part)
        number = re.fullmatch(r"(?:const\s+)?I64\s+(\w+)", part)
        if found and found[1] in _DTYPES and not scalars:
            buffers.append((found[2], _DTYPES[found[1]]))
        elif number:
            scalars.append(number[1])
        else:
            raise ValueError(f"{name}: the parameter `{part}` is no BUF(type) before the scalars "
                             "and no I64")
    return tuple(buffers), tuple(scalars)


def _host_text(source: str, entries: dict[str, _Entry]) -> str:
    """The C++ for ``source``: what it has line by line, between the shim's own."""
    if BUILTIN not in source:
        raise ValueError("the source does not have the prelude's BUILTIN, which the shim replaces; "
                         "begin it with prelude()")
    text = source.replace(BUILTIN, "").replace(GRID, "")
    text = re.sub(r'extern\s+"C"\s+__global__\s+void', "static void", text)
    text = _SHARED.sub(_shared, text)
    calls = []
    c_types = {dtype: c for c, dtype in _DTYPES.items()}
    for name, entry in entries.items():
        given = [f"shim_Buffer<{c_types[d]}>(shim_b + {k})"
                 for k, (_, d) in enumerate(entry.buffers)]
        given += [f"shim_s[{k}]" for k in range(len(entry.scalars))]
        calls.append("[](const shim_View* shim_b, const I64* shim_s) "
                     f"{{ {name}({', '.join(given)}); }}")
    table = ("void (*const shim_kernels[])(const shim_View*, const I64*) = {\n"
             + ",\n".join([*calls, "0"]) + "};\n")
    return shim_text.BEFORE + text + "\n" + table + shim_run.RUN


def _shared(match: re.Match[str]) -> str:
    """Shared arrays as checked ones; on one line, so that line numbers stay."""
    dynamic, kind, rest = match.groups()
    out = []
    for one in rest.split(","):
        found = re.fullmatch(r"\s*(\w+)\s*((?:\[[^\]]*\]\s*)*)", one)
        sizes = re.findall(r"\[([^\]]*)\]", found[2]) if found else []
        if found is None or len(sizes) > 2:
            raise ValueError(f"the shim does not understand `{match[0]}`")
        name, label = found[1], f'"{found[1]}"'
        static = count = " * ".join(f"({size})" for size in sizes) or "1"
        if dynamic:
            static = f"{MAX_SHARED} / sizeof({kind})"
            count = f"shim_dynamic / (I64)sizeof({kind})"
        out.append(f"static shim_Cell<{kind}> shim_{name}[{static}]; "
                   f"static shim_Own shim_own_{name};")
        cells = f"shim_own(shim_own_{name}, shim_{name}, {count})"
        row = f"{{{cells}, 0, {count}, {label}}};"
        if dynamic or len(sizes) == 1:
            out.append(f"const shim_Shared<{kind}> {name} = {row}")
        elif not sizes:
            out.append(f"const shim_Element<shim_Shared<{kind}>, {kind}> {name}"
                       f"(shim_Shared<{kind}>{row[:-1]}, 0);")
        else:
            out.append(f"const shim_Shared2<{kind}> {name} = "
                       f"{{{cells}, {sizes[0]}, {sizes[1]}, {label}}};")
    return " ".join(out) + "\n" * match[0].count("\n")


def _possible(name: str, blocks: int, threads: int, shared_bytes: int, order: str,
              together: bool) -> None:
    if threads % 32 or not 0 < threads <= MAX_THREADS:
        raise ValueError(f"{name}: {threads} threads a block; a multiple of 32 up to "
                         f"{MAX_THREADS} is needed")
    if not 0 < blocks <= MAX_BLOCKS:
        raise ValueError(f"{name}: {blocks} blocks; CUDA takes 1 to {MAX_BLOCKS}")
    if together and blocks * threads > MAX_THREADS:
        raise ValueError(f"{name}: {blocks} blocks of {threads} threads cannot run together in "
                         f"the shim, which has stacks for {MAX_THREADS} threads: launch "
                         f"{MAX_THREADS // threads} blocks or fewer")
    if not 0 <= shared_bytes <= MAX_SHARED:
        raise ValueError(f"{name}: {shared_bytes} bytes of shared memory; a block of CUDA can have "
                         f"{MAX_SHARED}")
    if order not in _ORDERS:
        raise ValueError(f"the order is {order!r}; it must be 'forward', 'reversed' or "
                         "'alternating'")


def _fits(name: str, entry: _Entry, buffers: Sequence[np.ndarray[Any, Any]],
          scalars: Sequence[int]) -> None:
    if len(buffers) != len(entry.buffers) or len(scalars) != len(entry.scalars):
        raise ValueError(f"{name}: it takes {len(entry.buffers)} buffers and "
                         f"{len(entry.scalars)} scalars; {len(buffers)} and {len(scalars)} came")
    for array, (parameter, dtype) in zip(buffers, entry.buffers, strict=True):
        if array.dtype != dtype or not array.flags.c_contiguous or not array.flags.aligned:
            raise ValueError(f"{name}: {parameter} must be a contiguous array of {dtype}; "
                             f"{array.dtype} with strides {array.strides} came")


def _views(buffers: Sequence[np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], list[Any]]:
    """A row of shim_text.VIEW per buffer, and what must live as long.  Buffers that overlap have
    their shadow in common, so that it is known per place and not per buffer."""
    table = np.zeros((max(len(buffers), 1), len(shim_text.VIEW)), np.int64)
    spans = sorted((a.ctypes.data, a.ctypes.data + a.nbytes, k) for k, a in enumerate(buffers))
    keep: list[Any] = []
    at = 0
    while at < len(spans):
        start, end, _ = spans[at]
        last = at + 1
        while last < len(spans) and spans[last][0] < end:
            end = max(end, spans[last][1])
            last += 1
        members = [k for _, _, k in spans[at:last]]
        grain = math.gcd(*(buffers[k].itemsize for k in members),
                         *(buffers[k].ctypes.data - start for k in members))
        shadow = np.zeros((end - start) // grain * shim_text.SHADOW + 8, np.uint8)
        keep.append(shadow)
        for k in members:
            array = buffers[k]
            table[k] = (start, shadow.ctypes.data, array.ctypes.data, array.size,
                        grain.bit_length() - 1, array.flags.writeable)
        at = last
    return table, keep


def _address(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@lru_cache(maxsize=1)
def _stacks() -> np.ndarray[Any, Any]:
    """The stacks of a block's threads; pages that no thread uses take no memory."""
    raw = np.empty(shim_text.APRON + shim_text.STACK * MAX_THREADS + 64, np.uint8)
    return raw[shim_text.APRON + -raw.ctypes.data % 64:]


@lru_cache(maxsize=1)
def compiler() -> tuple[str, ...]:
    """The command of a C++ compiler: one on the path, else that of the wheel ziglang."""
    for name in ("c++", "g++", "clang++"):
        found = shutil.which(name)
        if found:
            return (found,)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "c++", "-nostdlib++")  # which it would build
    raise RuntimeError("there is no C++ compiler (c++, g++ or clang++), which running CUDA kernels "
                       "on the CPU needs; install one, or the wheel that has one: "
                       "pip install ziglang")


@lru_cache(maxsize=256)
def _compiled(text: str) -> Path:
    """The shared library for ``text``, from an earlier process where it is there."""
    command = [*compiler(), *_FLAGS]
    key = hashlib.sha256("\0".join([*command, text]).encode()).hexdigest()[:32]
    folder = _folder()
    library = folder / f"{key}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=folder) as work:
        source, built = Path(work) / "kernel.cpp", Path(work) / "kernel.so"
        source.write_text(text)
        done = subprocess.run([*command, str(source), "-o", str(built), "-lm"],
                              capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} does not compile the kernels:\n"
                               f"{done.stderr[:4000]}")
        os.replace(built, library)  # whole or not at all, whoever else does the same
    return library


@lru_cache(maxsize=1)
def _folder() -> Path:
    """A folder for libraries that nobody else can write."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"tinygraph-shim-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if folder.is_symlink() or state.st_uid != user or state.st_mode & 0o022:
        folder = Path(tempfile.mkdtemp(prefix="tinygraph-shim-"))
    return folder
