"""Compiles kernels with NVRTC where it is installed; no GPU is needed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tinygraph.backends.cuda import nvrtc, runner
from tinygraph.backends.cuda.modules import canonical, compile_kernels
from tinygraph.config import config

ARCHITECTURES = ("sm_70", "sm_80", "sm_90")  # what NVRTC of CUDA 12 and 13 make code for

MISSING = nvrtc.available()
needs_nvrtc = pytest.mark.skipif(MISSING is not None, reason=f"kernels are not compiled: {MISSING}")


def targets() -> list[str]:
    """The architectures of ARCHITECTURES that this NVRTC knows (CUDA 13 has given sm_70 up)."""
    known = {f"sm_{n}" for n in nvrtc.architectures()}
    return [arch for arch in ARCHITECTURES if arch in known]


def compiles(source: str, name: str = "test") -> dict[str, bytes]:
    """The cubin of ``source`` (with its prelude) for every architecture.

    Raises InternalError, with NVRTC's log, where it does not compile.
    """
    wanted = targets()
    with ThreadPoolExecutor() as pool:  # NVRTC works outside the GIL
        return dict(zip(wanted, pool.map(
            lambda arch: nvrtc.compile_source(source, arch, name), wanted), strict=True))


def kernels_in(text: str) -> list[str]:
    """The kernels of a program, a text each."""
    start = 'extern "C" __global__'
    return [start + part for part in text.split(start)[1:]]


class Emitted:
    """The kernels that tests have emitted, to be compiled as a GPU would have them.

    ``place``: a folder of all processes of the test run, in which they note what one of them
    compiles.  Kernels that differ in names only are one.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.waiting: dict[str, list[str]] = {}  # texts by what stands before them

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Every kernel that is scheduled is noted."""
        made = runner.KernelRunner.__init__

        def noted(this: runner.KernelRunner, *how: Any) -> None:
            made(this, *how)
            texts = [k.text for k in this.host.kernels]
            if texts:
                head = this.source.partition(texts[0])[0]
                self.waiting.setdefault(head, []).extend(texts)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runner.KernelRunner, "__init__", noted)
            yield

    def compile(self, name: str) -> int:
        """Machine code of what is waiting, for every architecture; how many kernels are new.

        Raises InternalError, with NVRTC's log, where a kernel does not compile.
        """
        waiting, self.waiting, count = self.waiting, {}, 0
        for head, texts in waiting.items():
            new = [text for text in texts if self._first(head, text)]
            if new:
                made_for_all(head, [numbered(text, k) for k, text in enumerate(new)], name)
            count += len(new)
        return count

    def _first(self, head: str, text: str) -> bool:
        """Is this the first process that has this kernel, for the first time?"""
        key = hashlib.sha256("\n".join([head, canonical(text)[1]]).encode()).hexdigest()
        self.place.mkdir(parents=True, exist_ok=True)
        try:
            (self.place / key).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def numbered(text: str, number: int) -> str:
    """A kernel under a number of its own: every program has a 'k0_nest'."""
    name = canonical(text)[0]
    return re.sub(rf"\b{name}\b", f"k{number}_{name.partition('_')[2]}", text)


def made_for_all(head: str, texts: Sequence[str], name: str) -> None:
    """Compile kernels for every architecture and look whether all of them are there."""
    def one(arch: str) -> None:
        with config.change(cache="off"):
            [module] = compile_kernels(head, texts, arch, name, programs=1)
        assert module.code.startswith(b"\x7fELF"), f"{arch}: no machine code"
        for text in texts:
            entry = module.entries[canonical(text)[0]]
            assert b".text." + entry.encode() + b"\0" in module.code, f"{arch}: no {entry}"

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, targets()))
