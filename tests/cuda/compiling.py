"""Compiles kernels with NVRTC where it is installed; no GPU is needed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tinygraph.backends.cuda import nvrtc

ARCHITECTURES = ("sm_70", "sm_80", "sm_90")  # what NVRTC of CUDA 12 and 13 make code for

MISSING = nvrtc.available()
needs_nvrtc = pytest.mark.skipif(MISSING is not None, reason=f"kernels are not compiled: {MISSING}")


def targets() -> list[str]:
    """The architectures of ARCHITECTURES that this NVRTC knows (CUDA 13 has given sm_70 up)."""
    known = {f"sm_{n}" for n in nvrtc.architectures()}
    return [arch for arch in ARCHITECTURES if arch in known]


def compiles(source: str, name: str = "test", assembled: int | None = None) -> dict[str, bytes]:
    """The cubin of ``source`` (with its prelude) for every architecture.

    assembled  make machine code for this one of them only, counted modulo their number, and PTX
               for the others: the assembler takes ten times as long as the compiler
    Raises InternalError, with NVRTC's log, where it does not compile.
    """
    wanted = targets()
    with ThreadPoolExecutor() as pool:  # NVRTC works outside the GIL
        return dict(zip(wanted, pool.map(
            lambda k: nvrtc.compile_source(
                source, wanted[k] if assembled is None or k == assembled % len(wanted)
                else wanted[k].replace("sm_", "compute_"), name),
            range(len(wanted))), strict=True))


def kernels_of(f: object) -> str:
    """All that is compiled for a function of back end 'shim' or 'cuda' without shared variables."""
    runner = f._executable([]).runner  # type: ignore[attr-defined]
    return runner.text


def kernels_in(text: str) -> list[str]:
    """The kernels of a program, a text each."""
    start = 'extern "C" __global__'
    return [start + part for part in text.split(start)[1:]]
