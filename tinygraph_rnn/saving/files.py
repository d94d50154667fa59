"""One file: arrays by name in the safetensors format, with a digest, written at once or not at all.

The metadata of the file has one entry, ``tinygraph``, a JSON object that begins with the SHA-256 of
the whole file, computed while 64 zeros stood in its place.  The format itself would not notice a
flipped bit of the data.  The digest tells of damage, not of malice: whoever writes a file can write
its digest too, so what the header says is checked as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

FORMAT = 1
_ZEROS = "0" * 64
_MARK = b'"tinygraph":"{\\"sha256\\":\\"'
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "I64": "int64", "I32": "int32",
           "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16",
           "U8": "uint8", "BOOL": "bool"}
STORABLE = frozenset(_DTYPES.values())
_MOST_AXES = 32
_MOST_BYTES = 2 ** 63


class SavingError(ValueError):
    """A file does not hold what is asked of it: damaged, cut short, of another network or kind."""


@dataclass(frozen=True)
class Stored:
    """What a file holds: arrays by name, and what tinygraph wrote about them (None in a file of
    another program)."""

    path: str
    tensors: dict[str, np.ndarray]
    info: dict[str, Any] | None

    def refuse(self, why: str) -> NoReturn:
        """Raise SavingError about this file."""
        raise SavingError(f"{self.path} {why}")

    def part(self, name: str, kind: type) -> Any:
        """An entry of ``info``, which must be of type ``kind``."""
        found = (self.info or {}).get(name)
        if type(found) is not kind:
            self.refuse(f"says nothing of its {name}, or something that is none")
        return found

    def names(self, part: str) -> list[str]:
        """The entry ``part`` of ``info``, which must be a list of names of arrays, each once."""
        found = self.part(part, list)
        if not all(isinstance(n, str) and n in self.tensors for n in found):
            self.refuse(f"names {part} that it does not have")
        if len(set(found)) != len(found):
            self.refuse(f"names some of its {part} twice")
        return found


# --- writing -------------------------------------------------------------------------------------


def encoded(tensors: Mapping[str, np.ndarray], info: Mapping[str, Any]) -> bytearray:
    """The content of a file; the same for the same arrays and ``info`` (of what JSON can hold)."""
    from safetensors.numpy import save

    text = json.dumps({"sha256": _ZEROS, "format": FORMAT, **info}, separators=(",", ":"))
    data = bytearray(save(dict(tensors), {"tinygraph": text}))
    at = data.index(_MARK) + len(_MARK)
    data[at:at + 64] = hashlib.sha256(data).hexdigest().encode()
    return data


def write_file(path: str | os.PathLike[str], data: bytes | bytearray) -> None:
    """Put ``data`` into the file ``path``, which afterwards holds all of it, or, where that fails,
    what it held before.  A new file has the usual permissions, an old one keeps its own."""
    target = os.path.realpath(path)  # the file behind a link, so that the link stays one
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".{secrets.token_hex(8)}.tmp")
    mode = stat.S_IMODE(os.stat(target).st_mode) if os.path.exists(target) else None
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Make the new entry of ``folder`` outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading -------------------------------------------------------------------------------------


def read_file(path: str | os.PathLike[str], foreign: bool = False) -> Stored:
    """What the file ``path`` holds.

    foreign: take a file without a digest of tinygraph too.
    Raises SavingError for any other than a whole and sound file, OSError where there is none.
    Needs memory in proportion to the size of the file, whatever its header says.
    """
    with open(path, "rb") as file:
        data = file.read(os.fstat(file.fileno()).st_size)
    blank = Stored(str(Path(os.fspath(path))), {}, None)
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        blank.refuse("is no safetensors file, or was cut short")
    head = data[8:8 + length]
    ours = _check_digest(blank, data, head, foreign)
    header = _json(blank, head)
    metadata = header.pop("__metadata__", {})
    _check_places(blank, header, len(data) - 8 - length)
    info = _info(blank, metadata) if ours else None
    return Stored(blank.path, _arrays(blank, data), info)


def _check_digest(blank: Stored, data: bytes, head: bytes, foreign: bool) -> bool:
    """Is there a digest?  Refuse a wrong one, and, unless ``foreign``, none at all."""
    at = head.find(_MARK)
    if at < 0:
        if not foreign:
            blank.refuse("has no digest of tinygraph: it was damaged, or another program wrote it; "
                         "in that case load it with foreign=True, which finds no damage")
        return False
    at += 8 + len(_MARK)
    view = memoryview(data)
    digest = hashlib.sha256(view[:at])
    digest.update(_ZEROS.encode())
    digest.update(view[at + 64:])
    if bytes(view[at:at + 64]) != digest.hexdigest().encode():
        blank.refuse("is damaged: its content is not what its digest says")
    return True


def _json(blank: Stored, text: str | bytes) -> dict[str, Any]:
    """A JSON object, in which no key stands twice."""
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    try:
        found = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise SavingError(f"{blank.path} is no safetensors file: its header cannot be read "
                          f"({error})") from error
    if not isinstance(found, dict):
        blank.refuse("is no safetensors file: its header is no JSON object")
    return found


def _check_places(blank: Stored, header: Mapping[str, Any], size: int) -> None:
    """The arrays must lie one behind the other, each as large as its shape, and fill the file."""
    places = sorted(_place(blank, name, entry) for name, entry in header.items())
    end = 0
    for start, stop, name in places:
        if start != end:
            blank.refuse(f"is damaged: the data of {name!r} begins at byte {start} of all data, "
                         f"but what is before it ends at {end}")
        end = stop
    if end != size:
        blank.refuse(f"is damaged or cut short: its arrays have {end} bytes, but there are {size}")


def _place(blank: Stored, name: str, entry: Any) -> tuple[int, int, str]:
    """Where the data of an array begins and ends."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        blank.refuse(f"is no safetensors file: {name!r} is not described as an array")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        blank.refuse(f"holds {name!r} with dtype {kind!r}, which NumPy does not have; dtypes are "
                     f"{', '.join(_DTYPES)}")
    if not _naturals(shape) or len(shape) > _MOST_AXES:
        blank.refuse(f"is damaged: the shape of {name!r} is none")
    if not _naturals(offsets) or len(offsets) != 2:
        blank.refuse(f"is damaged: the place of {name!r} is none")
    item = np.dtype(_DTYPES[kind]).itemsize
    if item * math.prod(n for n in shape if n) >= _MOST_BYTES:
        blank.refuse(f"is damaged: {name!r} has the shape {shape}, which no memory holds")
    if offsets[1] - offsets[0] != item * math.prod(shape):
        blank.refuse(f"is damaged: {name!r} has {offsets[1] - offsets[0]} bytes, but its shape "
                     f"{shape} and dtype {kind} need {item * math.prod(shape)}")
    return offsets[0], offsets[1], name


def _naturals(x: Any) -> bool:
    return isinstance(x, list) and all(type(n) is int and 0 <= n < _MOST_BYTES for n in x)


def _info(blank: Stored, metadata: Any) -> dict[str, Any]:
    """What tinygraph wrote about the arrays."""
    text = metadata.get("tinygraph") if isinstance(metadata, dict) else None
    info = _json(blank, text if isinstance(text, str) else "null")
    if type(info.get("format")) is not int or info["format"] > FORMAT:
        blank.refuse(f"has format {info.get('format')}, but this release of tinygraph knows "
                     f"formats up to {FORMAT}; read it with a newer release")
    return info


def _arrays(blank: Stored, data: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise SavingError(f"{blank.path} is no safetensors file: {error}") from error
    for name, a in tensors.items():
        if has_broken_bools(a):
            blank.refuse(f"is damaged: {name!r} has bools that are neither 0 nor 1")
    return tensors


def has_broken_bools(a: np.ndarray) -> bool:
    """Are there bools whose bytes are neither 0 nor 1?  Native code would take them for numbers."""
    return a.dtype == bool and int(a.view(np.uint8).max(initial=0)) > 1


def shortened(names: list[str]) -> str:
    """A list of names in a message: the first few."""
    text = ", ".join(map(repr, names[:5]))
    return f"{text} and {len(names) - 5} more" if len(names) > 5 else text
