"""The kernels of a program --> machine code: every kernel once, several at one time.

NVRTC takes most of its time for the machine code of each kernel (half a second for a scan, a
twentieth for an elementwise one) and a little for each program that it is given.  So kernels are
dealt out to as many programs as there are processors; what is found by its kernel's text in the
cache is not compiled again, and neither is a kernel that differs from another one in nothing but
names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tinygraph.backends.cuda import nvrtc
from tinygraph.config import processors
from tinygraph.store import Store

_HEAD = re.compile(r"__global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)"
                   r"\(([^)]*(?:\([^)]*\)[^)]*)*)\) \{")
_PARAMETER = re.compile(r"(\w+)\s*(?:,|$)")
_LOCAL = re.compile(r"\b(?:float|double|int|char|short|bool|I64|U64) (\w+)(?= ?[=;\[])")
_NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
_LEAST = 150.0  # ms: less than this is not worth a program of its own


@dataclass(frozen=True)
class Module:
    """``code``: a cubin.  ``entries``: by the name of a kernel, what it is called in there."""

    code: bytes
    entries: dict[str, str]


@dataclass(frozen=True)
class _Unit:
    """A kernel to be compiled under ``entry``; ``key``: all that its code depends on, hashed."""

    key: str
    entry: str
    text: str

    @property
    def cost(self) -> float:
        """About how many milliseconds it takes."""
        return 30 + 0.02 * len(self.text) + 250 * ("tg_gemm" in self.text)


def compile_kernels(head: str, texts: Sequence[str], arch: str, name: str,
                    programs: int | None = None) -> list[Module]:
    """Machine code for kernels, from the cache or new.

    head      what stands before every kernel;  texts  one kernel each
    arch      'sm_90', or 'compute_90' for PTX;  name  the program's in messages
    programs  among how many NVRTC programs, compiled at one time, to deal out what is new; as
              many as there are processors, if not given
    A kernel 'k3_scan' is called 'scan_' and eight digits of its hash in the code.
    Raises InternalError, with NVRTC's log, where a text is wrong; UnavailableError without NVRTC.
    """
    common = "\n".join([*nvrtc.settings(arch), head])
    store, names, units = nvrtc.opened(), dict[str, str](), dict[str, _Unit]()
    for text in texts:
        unit, kernel = _unit(common, text)
        names[kernel] = unit.entry
        units[unit.key] = unit
    codes, missing = _kept(store, units.values())
    groups = _dealt(missing, processors() if programs is None else programs)
    sources = [head + "\n".join(u.text for u in group) for group in groups]
    if sources:
        with ThreadPoolExecutor(len(sources)) as pool:
            made = list(pool.map(lambda s: nvrtc.compile_anew(s, arch, name), sources))
        for group, code in zip(groups, made, strict=True):
            codes.append((code, [u.entry for u in group]))
            if store is not None:
                _keep(store, group, code)
    where = {entry: k for k, (_, entries) in enumerate(codes) for entry in entries}
    return [Module(code, {n: entry for n, entry in names.items() if where[entry] == k})
            for k, (code, _) in enumerate(codes)]


def _unit(common: str, text: str) -> tuple[_Unit, str]:
    """What is to be compiled for a kernel, and the kernel's name."""
    kernel, plain = canonical(text)
    key = hashlib.sha256("\n".join(["kernel", common, plain]).encode()).hexdigest()
    entry = f"{re.sub(r'^k[0-9]+_', '', kernel)}_{key[:8]}"
    return _Unit(key, entry, re.sub(rf"\b{kernel}\b", entry, text)), kernel


def canonical(text: str) -> tuple[str, str]:
    """A kernel's name, and its text with comments off and all names that it declares numbered:
    two kernels with one such text are one but for these names."""
    head = _HEAD.search(text)
    if head is None:
        raise ValueError(f"this is not the text of a kernel: {text[:100]!r}")
    text = re.sub(r"//.*", "", text)
    declared = {head[1], *_PARAMETER.findall(head[2]), *_LOCAL.findall(text)}
    numbers: dict[str, str] = {}

    def numbered(found: re.Match[str]) -> str:
        name = found[0]
        return numbers.setdefault(name, f"${len(numbers)}") if name in declared else name

    return head[1], re.sub(r"\s+", " ", _NAME.sub(numbered, text))


def _dealt(units: Sequence[_Unit], programs: int) -> list[list[_Unit]]:
    """Units in groups that take about equally long, each in the order in which they came."""
    whole = sum(u.cost for u in units)
    groups: list[list[_Unit]] = [[] for _ in range(max(1, min(programs, int(whole / _LEAST))))]
    for unit in sorted(units, key=lambda u: -u.cost):
        min(groups, key=lambda group: sum(u.cost for u in group)).append(unit)
    return [sorted(group, key=list(units).index) for group in groups if group]


# --- the cache: a module under its hash, and under every kernel's key the hash of its module


def _kept(store: Store | None, units: Iterable[_Unit]
          ) -> tuple[list[tuple[bytes, list[str]]], list[_Unit]]:
    """Machine code that is kept, each with the entries wanted from it; and what is missing."""
    wanted: dict[str, list[_Unit]] = {}
    missing = []
    for unit in units:
        kept = None if store is None else store.get(unit.key)
        if kept is None:
            missing.append(unit)
        else:
            wanted.setdefault(kept.decode(), []).append(unit)
    codes = []
    for place, found in wanted.items():
        assert store is not None
        code = store.get(place)
        if code is None:  # the store drops what was not used for long
            missing += found
        else:
            codes.append((code, [u.entry for u in found]))
    return codes, missing


def _keep(store: Store, group: Sequence[_Unit], code: bytes) -> None:
    place = "module " + hashlib.sha256("".join(u.key for u in group).encode()).hexdigest()
    store.put(place, code)
    for unit in group:
        store.put(unit.key, place.encode())
