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

    SOME = 12  # of so many kernels of a test one is made machine code of, for each architecture
    MANY = 60  # compiled at one time, since NVRTC takes some time for each program, too

    def __init__(self, place: Path) -> None:
        self.place = place
        self.waiting: dict[str, list[str]] = {}  # of the present test, by what stands before them
        self.kept: dict[str, list[str]] = {}  # new ones of earlier tests
        self.tests: list[str] = []  # that emitted these

    def after(self, test: str) -> None:
        """A test has ended: compile what is kept if it is much."""
        for head, texts in self.waiting.items():
            new = [t for t in texts if self._first(self._key(head, t, False))]
            self.kept.setdefault(head, []).extend(new)
            self.tests += [test] if new else []
        self.waiting = {}
        if sum(map(len, self.kept.values())) >= self.MANY:
            self.flush()

    def flush(self) -> None:
        """Compile every kernel that is kept for every architecture.

        Raises InternalError, with NVRTC's log, where a kernel does not compile.
        """
        kept, tests, self.kept, self.tests = self.kept, self.tests, {}, []
        for head, texts in kept.items():
            self._compile(head, texts, f"{tests[0]} to {tests[-1]}", self.SOME)

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

    def compile(self, name: str, whole: bool = False) -> int:
        """Compile what the present test has emitted for every architecture, half of it to machine
        code for one of them in turn, or with ``whole`` all of it for all.  How many kernels had
        not been before."""
        waiting, self.waiting, count = self.waiting, {}, 0
        for head, texts in waiting.items():
            new = [t for t in texts if self._first(self._key(head, t, True))]
            self._compile(head, new, name, 1 if whole else 2 * len(targets()))
            count += len(new)
        return count

    def _compile(self, head: str, texts: Sequence[str], name: str, every: int) -> None:
        turns = [int(self._key(head, t, False)[:8], 16) for t in texts]
        for arch, made in self._shares(turns, every).items():
            made_for(arch, head, [numbered(texts[k], k) for k in made], name)

    @staticmethod
    def _shares(turns: Sequence[int], every: int) -> dict[str, list[int]]:
        """Which kernels are compiled for what.  Machine code takes ten times as long as PTX (of
        debugging, which is fast to make), so each architecture has that of one kernel of
        ``every``."""
        shares = dict[str, list[int]]()
        for k, turn in enumerate(turns):
            for n, arch in enumerate(targets()):
                mine = turn % every == n % every
                shares.setdefault(arch if mine else arch.replace("sm", "compute"), []).append(k)
        return shares

    @staticmethod
    def _key(head: str, text: str, whole: bool) -> str:
        parts = [*["whole"] * whole, head, canonical(text)[1]]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _first(self, key: str) -> bool:
        """Is this the first process that has this kernel, for the first time?"""
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


def made_for(arch: str, head: str, texts: Sequence[str], name: str) -> None:
    """Compile kernels for 'sm_90', or to PTX for 'compute_90', and look whether all are there."""
    machine = arch.startswith("sm")
    with config.change(cache="off"), pytest.MonkeyPatch.context() as patch:
        if not machine:  # a fifth of the time, for a text that is not made fast
            patch.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "-G"))
        [module] = compile_kernels(head, texts, arch, name, programs=1)
    assert module.code.startswith(b"\x7fELF") == machine, f"{arch}: no such code"
    for text in texts:
        entry = module.entries[canonical(text)[0]].encode()
        assert (b".text." + entry + b"\0" if machine else b".entry " + entry) in module.code, (
            f"{arch}: no {entry!r}")
