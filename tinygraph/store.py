"""An on-disk store of bytes under content keys, shared by any number of processes.

One file per entry, named by the SHA-256 of its key.  A file is: magic, length of the payload,
SHA-256 of key and payload, payload.  It is written beside its place and renamed into it, so
that a reader sees a whole entry or none; what is damaged, cut short or foreign is no entry.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import warnings
from pathlib import Path

_MAGIC = b"tinygraph-cache-1\n"
_HEAD = struct.Struct("<Q32s")
_SUFFIX = ".entry"
_PRUNE_EVERY = 64


class Store:
    """A store in the directory ``path`` of at most about ``limit`` bytes.

    A directory that cannot be written is no error: one warning, and nothing is kept.
    """

    def __init__(self, path: str | os.PathLike[str], limit: int = 512 << 20) -> None:
        self.path, self.limit = Path(path), limit
        self._warned = False
        self._puts = 0

    def _place(self, key: str) -> Path:
        return self.path / (hashlib.sha256(key.encode()).hexdigest() + _SUFFIX)

    def get(self, key: str) -> bytes | None:
        """The bytes under ``key``, or None."""
        place = self._place(key)
        try:
            data = place.read_bytes()
        except OSError:
            return None
        start = len(_MAGIC) + _HEAD.size
        if len(data) < start or not data.startswith(_MAGIC):
            return None
        length, digest = _HEAD.unpack_from(data, len(_MAGIC))
        payload = data[start:]
        if len(payload) != length or _digest(key, payload) != digest:
            return None
        _touch(place)
        return payload

    def put(self, key: str, data: bytes) -> None:
        """Keep ``data`` under ``key``, in the place of what was there."""
        head = _MAGIC + _HEAD.pack(len(data), _digest(key, data))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.path, suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(head)
                    file.write(data)
                os.replace(temporary, self._place(key))
            except BaseException:
                _remove(Path(temporary))
                raise
        except OSError as problem:
            self._complain(problem)
            return
        self._puts += 1
        if self._puts % _PRUNE_EVERY == 1:
            self.prune()

    def prune(self) -> None:
        """Remove the entries that were used longest ago until three quarters of the limit are
        left, if the limit is passed; and files that a killed process left half written."""
        entries = []
        for place in self._files():
            try:
                info = place.stat()
            except OSError:
                continue
            entries.append((info.st_mtime, info.st_size, place))
        total = sum(size for _, size, _ in entries)
        if total <= self.limit:
            return
        for _, size, place in sorted(entries, key=lambda e: e[0]):
            if total <= self.limit * 3 // 4:
                return
            _remove(place)
            total -= size

    def _files(self) -> list[Path]:
        try:
            return [p for p in self.path.iterdir() if p.suffix in (_SUFFIX, ".tmp")]
        except OSError:
            return []

    def _complain(self, problem: OSError) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"compiled code is not kept: {self.path} cannot be written "
                          f"({problem.strerror}); set config.cache_dir to another directory, or "
                          "config.cache = 'off'", stacklevel=3)


def _digest(key: str, payload: bytes) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(b"\0")
    digest.update(payload)
    return digest.digest()


def _touch(place: Path) -> None:
    """Note the use, for ``prune``; a directory that is only readable stays useful without."""
    try:
        os.utime(place)
    except OSError:
        return


def _remove(place: Path) -> None:
    try:
        place.unlink()
    except OSError:
        return  # another process was faster
