"""CUDA C --> machine code of a GPU (a cubin), by NVRTC.  No GPU and no driver is needed for it.

CuPy's binding of NVRTC is used and nothing else of CuPy; it finds the library in the wheels by
itself.  What is compiled is kept on disk.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Sequence
from typing import Any

from tinygraph.config import config
from tinygraph.errors import InternalError, UnavailableError
from tinygraph.store import Store

OPTIONS = ("--std=c++17", "--fmad=true", "--ftz=true")
# By the CUDA version: CuPy, NVRTC, cuBLAS, and the headers that CuPy's own kernels include.
WHEELS = {
    12: ("cupy-cuda12x", "nvidia-cuda-nvrtc-cu12", "nvidia-cublas-cu12",
         "nvidia-cuda-runtime-cu12"),
    13: ("cupy-cuda13x", "nvidia-cuda-nvrtc", "nvidia-cublas", "nvidia-cuda-runtime"),
}
NEWEST = max(WHEELS)
_ARCH = "--gpu-architecture="
_SHOWN = 6  # lines of a compiler's log


def wheels(major: int) -> tuple[str, ...]:
    """The wheels that bring everything for CUDA ``major``: CuPy, NVRTC, cuBLAS, headers."""
    return WHEELS.get(major, WHEELS[NEWEST])


def driver_version() -> int | None:
    """The CUDA version that the NVIDIA driver takes, 12040 for 12.4; None without a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        number = ctypes.c_int(0)
        failed = driver.cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return None if failed else number.value


def pip_line() -> str:
    """The command that brings what the driver of this machine takes; without a driver the
    newest."""
    driver = driver_version()
    return f"pip install {' '.join(wheels(NEWEST if driver is None else driver // 1000))}"


def load_cupy() -> Any:
    """CuPy.  Raises UnavailableError, with the pip line, where it cannot be imported."""
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise UnavailableError(f"CuPy cannot be imported ({error})") from error
        raise UnavailableError(f"CuPy is not installed ({pip_line()})") from error
    except ImportError as error:
        why = str(error.__cause__ or error).strip().splitlines()[0]
        raise UnavailableError(f"CuPy cannot be imported ({why})") from error
    return cupy


def cuda_major(cupy: Any) -> int:
    """The CUDA version, 12 or 13, that this CuPy is made for."""
    return int(cupy.cuda.runtime.runtimeGetVersion()) // 1000


def available() -> str | None:
    """What is missing for compiling, with the pip line that brings it; None if nothing is."""
    try:
        version()
    except UnavailableError as error:
        return str(error)
    return None


def version() -> tuple[int, int]:
    """NVRTC's version.  Raises UnavailableError where it is missing."""
    cupy = load_cupy()
    try:
        major, minor = cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # CuPy, its binding and the loader each have errors of their own
        wheel = wheels(cuda_major(cupy))[1]
        why = str(error).strip().splitlines()[0]
        raise UnavailableError(f"CuPy does not find NVRTC: {why} (pip install {wheel})") from error
    return major, minor


def architectures() -> tuple[int, ...]:
    """The compute capabilities for which NVRTC makes code: 90 for 9.0.

    Raises UnavailableError where NVRTC is missing.
    """
    version()
    return tuple(load_cupy().cuda.nvrtc.getSupportedArchs())


def architecture(capability: str, supported: Sequence[int]) -> str:
    """The architecture to compile for where a GPU has ``capability``: 'sm_90' for '90'.

    Code for an earlier capability of the same generation runs too: '8.6' runs code for '8.0'.  For
    a generation that NVRTC does not know, PTX of an earlier one, which the driver translates.
    Raises UnavailableError where NVRTC knows later ones only.
    """
    number = int(capability)
    earlier = [n for n in supported if n <= number]
    if not earlier:
        raise UnavailableError(
            f"this NVRTC makes no code for a GPU of compute capability {number // 10}."
            f"{number % 10}, the least it knows is {min(supported)}: install an earlier version of "
            f"{' or '.join(names[1] for names in WHEELS.values())}")
    best = max(earlier)
    return f"{'sm' if best // 10 == number // 10 else 'compute'}_{best}"


def compile_source(source: str, arch: str, name: str) -> bytes:
    """The cubin of ``source`` for ``arch`` ('sm_90'), or its PTX ('compute_90'), from the cache
    or new.

    name  what the program is called in messages
    Raises InternalError with the first errors of the log and the lines they are about, where the
    text is wrong; UnavailableError where NVRTC is missing.
    """
    store, key = opened(), "\n".join(["cuda", *settings(arch), source])
    cubin = None if store is None else store.get(key)
    if cubin is None:
        cubin = compile_anew(source, arch, name)
        if store is not None:
            store.put(key, cubin)
    return cubin


def opened() -> Store | None:
    """The cache on disk, if it is on."""
    return Store(config.cache_path) if config.cache == "on" else None


def settings(arch: str) -> tuple[str, ...]:
    """What machine code depends on beside its source: NVRTC's version and its options.

    Raises UnavailableError where NVRTC is missing.
    """
    major, minor = version()
    return (f"NVRTC {major}.{minor}", *OPTIONS, f"{_ARCH}{arch}")


def compile_anew(source: str, arch: str, name: str) -> bytes:
    """As ``compile_source``, without the cache.  NVRTC works outside the GIL, so threads that
    call this compile at one time."""
    return _compile(source, (*OPTIONS, f"{_ARCH}{arch}"), name)


def _compile(source: str, options: Sequence[str], name: str) -> bytes:
    nvrtc = load_cupy().cuda.nvrtc
    program = nvrtc.createProgram(source, f"{name}.cu", (), ())
    try:
        try:
            nvrtc.compileProgram(program, tuple(options))
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program)
            raise InternalError(_refusal(source, options[-1], name, log or str(error))) from error
        if options[-1].startswith(f"{_ARCH}compute_"):
            return bytes(nvrtc.getPTX(program))
        # CuPy's getCUBIN leaves out the last byte, as if a cubin ended in a zero for C; it is a
        # zero, but one of the file's own.
        return bytes(nvrtc.getCUBIN(program)) + b"\0"
    finally:
        nvrtc.destroyProgram(program)


def _refusal(source: str, target: str, name: str, log: str) -> str:
    """What the log says first, and the line of the source that it is about."""
    lines, text = source.splitlines(), [line for line in log.splitlines() if line.strip()]
    errors = [k for k, line in enumerate(text) if "error" in line] or [0]
    said = text[errors[0]:errors[0] + _SHOWN]
    found = re.search(r"\((\d+)\): (?:catastrophic )?error", "\n".join(said))
    if found and 1 <= int(found[1]) <= len(lines):
        said.append(f"line {found[1]} of the text: {lines[int(found[1]) - 1].strip()}")
    return "\n    ".join([f"NVRTC refuses the kernels of {name} ({target})", *said])
