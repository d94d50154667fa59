"""A GPU as a home of arrays: CuPy's arrays, in the order of CuPy's streams.

Everything is done on the stream that is CuPy's current one, so that it stands in line with what
the user does there.  Whoever comes with another stream waits, on the GPU, for what was begun on
the first; memory is CuPy's pool's, which gives it out again in the order of the stream.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

ALIGNMENT = 16  # bytes that kernels may load at a time
_MOST_MARKS = 16
_PER_THREAD = 2  # the address of each thread's own default stream
_ON_GPU = (2, 13)  # kDLCUDA, kDLCUDAManaged


class DeviceLike(Protocol):
    """The part of ``device.CudaDevice`` that is needed here."""

    cupy: Any
    runtime: Any
    number: int

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any: ...
    def copy(self, source: Any, target: Any) -> None: ...
    def to_device(self, array: np.ndarray) -> Any: ...
    def to_host(self, array: Any, out: np.ndarray | None = None) -> np.ndarray: ...
    def fetch(self, address: int, out: np.ndarray) -> None: ...
    def stream(self) -> Any: ...
    def event(self, timing: bool = False) -> Any: ...


class _Mark:
    """How far a stream had come when it was last used, and which streams wait for that.  The
    stream lives as long, so that no other gets its address."""

    def __init__(self, stream: Any, event: Any) -> None:
        self.stream, self.event, self.awaited = stream, event, set[Any]()


class CudaHome:
    """The arrays of one GPU (see ``backends/homes.py``)."""

    def __init__(self, device: DeviceLike) -> None:
        self.device, self.name = device, f"GPU {device.number}"
        self._lock = threading.Lock()
        self._marks: dict[Any, _Mark] = {}
        self._kept: list[tuple[Any, list[Any]]] = []  # until an event has come
        self._thread = threading.local()

    # --- order

    @contextmanager
    def ordered(self) -> Iterator[None]:
        """Work on the current stream of this GPU, behind what was begun here on other streams."""
        device, runtime = self.device, self.device.runtime
        before = runtime.getDevice()
        runtime.setDevice(device.number)
        try:
            stream = device.stream()
            key = _key(stream)
            self._wait(stream, key)
            try:
                yield
            finally:
                self._mark(stream, key)
        finally:
            if before != device.number:
                runtime.setDevice(before)

    def _wait(self, stream: Any, key: Any) -> None:
        with self._lock:
            for other, mark in self._marks.items():
                if other != key and key not in mark.awaited:
                    stream.wait_event(mark.event)
                    mark.awaited.add(key)
            if self._kept:
                self._kept = [(event, arrays) for event, arrays in self._kept if not event.done]

    def _mark(self, stream: Any, key: Any) -> None:
        with self._lock:
            mark = self._marks.get(key)
            if mark is None:
                if len(self._marks) >= _MOST_MARKS:
                    self._forget()
                mark = self._marks[key] = _Mark(stream, self.device.event())
            mark.event.record(stream)
            mark.awaited.clear()

    def _forget(self) -> None:
        """Forget the streams that have nothing to do."""
        for key in [key for key, mark in self._marks.items() if mark.event.done]:
            del self._marks[key]
            for mark in self._marks.values():
                mark.awaited.discard(key)

    def release(self) -> None:
        """Keep what this thread took from other libraries until the current stream has come so
        far: their memory is not given out again in its order."""
        taken = self._thread.__dict__.pop("taken", None)
        if taken:
            event = self.device.event()
            event.record(self.device.stream())
            with self._lock:
                self._kept.append((event, taken))

    # --- arrays

    def put(self, array: np.ndarray) -> Any:
        """A copy of a host array, which may be changed as soon as this returns."""
        with self.ordered():
            return self.device.to_device(array)

    def get(self, array: Any, out: np.ndarray | None = None) -> np.ndarray:
        """A copy on the host."""
        with self.ordered():
            if array.flags.c_contiguous:
                return self.device.to_host(array, out)
            found = self._strided(array)
            if out is None:
                return found.copy()
            out[...] = found
            return out

    def _strided(self, array: Any) -> np.ndarray:
        """An array with gaps, by a copy of all its memory: CuPy would compile a kernel."""
        if not array.size:
            return np.empty(array.shape, array.dtype)
        steps = [s * (n - 1) for s, n in zip(array.strides, array.shape, strict=True)]
        low, high = sum(min(s, 0) for s in steps), sum(max(s, 0) for s in steps)
        region = np.empty(high - low + array.dtype.itemsize, np.uint8)
        self.device.fetch(int(array.data.ptr) + low, region)
        return np.ndarray(array.shape, array.dtype, region, -low, array.strides)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """A new array, its elements not set."""
        runtime, number = self.device.runtime, self.device.number
        before = runtime.getDevice()
        if before == number:
            return self.device.empty(shape, dtype)
        runtime.setDevice(number)
        try:
            return self.device.empty(shape, dtype)
        finally:
            runtime.setDevice(before)

    def copy(self, array: Any) -> Any:
        """A copy of a plain array."""
        with self.ordered():
            new = self.device.empty(array.shape, array.dtype)
            self.device.copy(array, new)
            return new

    def part(self, array: Any, shape: tuple[int, ...]) -> Any:
        """The first elements of a vector, in ``shape``."""
        count = int(np.prod(shape, dtype=np.int64))
        if count == array.size:
            return array.reshape(shape)
        return self.copy(array[:count]).reshape(shape)

    def take(self, value: Any) -> Any:
        """A CuPy array of ``value`` if that is on a GPU; None if it is elsewhere.  From another
        GPU it is copied."""
        cupy = self.device.cupy
        if isinstance(value, cupy.ndarray):
            return value if int(value.device.id) == self.device.number else self._moved(value)
        if hasattr(type(value), "__dlpack_device__"):
            kind, number = map(int, value.__dlpack_device__())
            if kind not in _ON_GPU:
                return None
            if number != self.device.number:
                return self._moved(cupy.from_dlpack(value))
            with self.ordered():
                found = cupy.from_dlpack(value)
        elif hasattr(value, "__cuda_array_interface__"):
            with self.ordered():
                found = cupy.asarray(value)
        else:
            return None
        self._thread.__dict__.setdefault("taken", []).append(found)
        return found

    def _moved(self, array: Any) -> Any:
        """A copy from another GPU, by way of the host, behind what that one's stream has to do."""
        runtime = self.device.runtime
        before = runtime.getDevice()
        runtime.setDevice(int(array.device.id))
        try:
            found = array.get()
        finally:
            runtime.setDevice(before)
        return self.put(found)

    def plain(self, array: Any) -> Any:
        """``array`` C-contiguous and aligned: itself if it is, else a copy."""
        if not array.flags.c_contiguous:
            return self.put(self.get(array))
        return array if int(array.data.ptr) % ALIGNMENT == 0 else self.copy(array)


def _key(stream: Any) -> Any:
    """What tells streams apart."""
    pointer = int(stream.ptr)
    return (pointer, threading.get_ident()) if pointer == _PER_THREAD else pointer
