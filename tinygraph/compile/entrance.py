"""The native way into a function, for calls like one before: no Python code on it.

``Entrance`` fills the tables that ``backends/llvm/entry_ir.py`` describes.  A call whose arguments
have dtypes, shapes and layout as a known plan wants them runs at once; of any other the entrance
says None, and ``call.py`` does what is needed: it converts arguments, finds a plan or the user's
mistake, and waits.  Everything that can be called natively can be called without, more slowly.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from tinygraph.backends.llvm import entry, recycle
from tinygraph.backends.llvm.entry_ir import (
    DOUBLE,
    HEADER,
    INT,
    LONG,
    NO_NUMBERS,
    PLAN,
    ROUNDED,
    SMALL,
)
from tinygraph.backends.runners import NativeRunner, address_of
from tinygraph.compile.convert import Converter
from tinygraph.compile.plan import Plan
from tinygraph.compile.signature import Signature
from tinygraph.compile.variables import GATE, Storage
from tinygraph.config import config
from tinygraph.graph import Value
from tinygraph.store import Store

_MOST_PLANS = 512
_MOST_BYTES = 64  # of a value that sizes depend on

_LOCK = threading.Lock()


def method(wait: bool = False) -> entry.Method | None:
    """The native entrance of this process.  The first use begins to make it, beside the calls,
    and None comes until it is there (``wait``: wait for it), or where there can be none."""
    if entry.layout() is None:
        return None
    with _LOCK:
        future = _begun(os.getpid())
    return future.result() if wait or future.done() else None


@functools.cache
def _begun(process: int) -> Future[entry.Method | None]:
    """``process``: a fork has none of its parent's threads, and begins anew."""
    future: Future[entry.Method | None] = Future()
    store = Store(config.cache_path) if config.cache == "on" else None

    def work() -> None:
        try:
            future.set_result(_made(store))
        except Exception as error:
            warnings.warn(f"calls take a few microseconds more than they need: {error}",
                          RuntimeWarning, stacklevel=2)
            future.set_result(None)

    threading.Thread(target=work, name="tinygraph.entry").start()
    return future


def _made(store: Store | None) -> entry.Method:
    key = entry.key()
    data = store.get(key) if store else None
    if data is None:
        data = entry.compile_entry()
        if store is not None:
            store.put(key, data)
    return entry.load(data)


def native_runner(executable: Any) -> NativeRunner | None:
    """The runner of an executable that has native code.  None where the code calls Python: what
    that raises comes out of a call from Python alone."""
    runner = getattr(executable, "runner", None)
    return runner if isinstance(runner, NativeRunner) and not runner.callbacks else None


def _numbers(c: Converter) -> int:
    """Which Python numbers the entrance may take for the converter's argument."""
    if c.strict or c.type.ndim:
        return NO_NUMBERS
    exact = {"float32": SMALL, "float64": DOUBLE, "int64": LONG, "int32": INT}
    rounded = c.kind.name == "float32" and (c.weak or c.allow_downcast)
    return ROUNDED if rounded else exact.get(c.kind.name, NO_NUMBERS)


class Entrance:
    """The native way into one function.

    call    takes the arguments by position, and returns what the function returns, or None
    spaces  the workspaces, which runners may share
    """

    def __init__(self, native: entry.Method, signature: Signature,
                 converters: Sequence[Converter], read: Sequence[Storage],
                 written: Sequence[Storage], spaces: list[np.ndarray]) -> None:
        graph = signature.graph
        rows: list[int] = []
        for c in converters:
            scalar = 0 if c.strict or c.type.ndim else id(c.kind.type)
            rows += [id(c.kind), c.type.ndim, scalar, _numbers(c), 0]
        for w, s in zip(signature.shareds, read, strict=True):
            rows += _row(w, s.address)
        for v in graph.outputs[:signature.n_outputs]:
            rows += _row(v, 0)
        for w, s in zip(signature.written, written, strict=True):
            rows += _row(w, s.address)
        counts = [len(converters), len(read), signature.n_outputs, len(written)]
        start = [*counts, int(signature.form != "one"), GATE.address, 0, 0, 0]
        assert len(start) == HEADER
        self._header = np.array([*start, *rows], np.int64)
        self._plans: list[np.ndarray] = []
        self._known: dict[int, Plan] = {}
        # The code reads these objects and the words of storages by address: they stay as long.
        self._alive = [*converters, *read, *written]
        state = [self._header, self._plans, spaces, [s.cell for s in (*read, *written)], GATE.wake]
        self._method = native  # must live as long
        form = signature.form
        self.call = _named(native(state), form) if isinstance(form, tuple) else native(state)

    def learn(self, executable: Any, arrays: list[np.ndarray]) -> bool:
        """Know the plan of ``executable`` for these inputs and shared variables from now on.

        False if it is known already, or cannot be.  Raises the user's errors about sizes.
        """
        runner = native_runner(executable)
        plan: Plan = executable.planner(arrays)
        if id(plan) in self._known or runner is None or executable.planner.late:
            return False
        if any(len(data) > _MOST_BYTES for _, data in plan.values):
            return False
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
            self._known.clear()
        if plan.threads:
            setting = type(config).threads
            self._header[7:9] = id(setting.value), ctypes.addressof(setting.word)
        constants = list(map(address_of, executable.constants))
        self._header[6] = max(int(self._header[6]), len(constants))
        self._known[id(plan)] = plan
        self._plans.insert(0, _words(runner.native.address, plan, arrays, constants))
        return True


def _named(call: Callable[..., Any], keys: tuple[Any, ...]) -> Callable[..., Any]:
    """``call`` with its list of results as a dict."""
    def named(*args: Any) -> Any:
        results = call(*args)
        return None if results is None else dict(zip(keys, results, strict=True))
    return named


def _row(v: Value, words: int) -> list[int]:
    return [id(v.type.dtype.np), v.ndim, 0, NO_NUMBERS, words]


def _words(address: int, plan: Plan, arrays: Sequence[np.ndarray], constants: Sequence[int]
           ) -> np.ndarray:
    """The words of a plan."""
    dims = [n for a in arrays for n in a.shape]
    results = [n for shape, kind in zip(plan.shapes, plan.dtypes, strict=True)
               for n in (_block_bytes(shape, kind), *shape)]
    sizes_at = PLAN + len(dims)
    results_at = sizes_at + len(plan.sizes)
    constants_at = results_at + len(results)
    values_at = constants_at + len(constants)
    table, kept = [len(plan.values)], list[int]()
    kept_at = values_at + 1 + 3 * len(plan.values)
    for k, data in plan.values:
        table += [k, len(data), kept_at + len(kept)]
        padded = data + bytes(-len(data) % 8)
        kept += np.frombuffer(padded, np.int64).tolist()
    start = [address, plan.arena_bytes, plan.threads, sizes_at, results_at, constants_at, values_at,
             len(constants)]
    assert len(start) == PLAN
    return np.array([*start, *dims, *plan.sizes.tolist(), *results, *constants, *table, *kept],
                    np.int64)


def _block_bytes(shape: Sequence[int], kind: np.dtype) -> int:
    """The bytes of a result that lies on a block of ours; 0 for others."""
    size = math.prod(shape) * kind.itemsize
    return size if recycle.LEAST <= size <= recycle.MOST_BYTES else 0
