"""Settings: in code, by context manager, by environment variable.  Nothing is read at import.

>>> from tinygraph import config
>>> config.floatX
'float32'
>>> with config.change(floatX="float64"):
...     config.floatX
'float64'
"""

from __future__ import annotations

import ctypes
import operator
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any


class Setting:
    """One setting: a default, the values it may have (any text, if none are named), and the
    environment variable ``TINYGRAPH_<NAME>`` that gives it where code does not."""

    advice = ""

    def __init__(self, default: Any, choices: tuple[Any, ...] = (), doc: str = "") -> None:
        self.default, self.choices, self.__doc__ = default, choices, doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.value: ContextVar[Any] = ContextVar(f"tinygraph.{name}", default=None)
        self.process_value: Any = None

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = self.value.get()
        value = self.process_value if value is None else value
        if value is not None:
            return value
        variable = f"TINYGRAPH_{self.name.upper()}"
        text = os.environ.get(variable, "")
        return (self.checked(text, f"the environment variable {variable}") if text
                else self.unset(instance))

    def unset(self, settings: Any) -> Any:
        """The value where nobody has given one."""
        return self.default

    def __set__(self, instance: Any, value: object) -> None:
        self.process_value = self.checked(value)

    def checked(self, value: object, what: str = "") -> Any:
        """``value`` as the setting has it.  Raises ValueError for one that it cannot have."""
        if not self.choices:
            return os.fspath(value)  # type: ignore[call-overload]
        found = [choice for choice in self.choices if str(value) == str(choice)]
        if found:
            return found[0]
        known = ", ".join(map(repr, self.choices))
        known = known if len(self.choices) == 1 else f"one of {known}"
        raise ValueError(f"{what or f'config.{self.name}'} is {value!r}; it must be {known}"
                         f"{self.advice}")


class Foreign(Setting):
    """A setting that programs for other systems make: its values that mean nothing here are
    taken and remembered, the others refused with what to write instead."""

    def __init__(self, *choices: Any, advice: str) -> None:
        super().__init__(choices[0], choices, advice)
        self.advice = f": {advice}"


class Backend(Setting):
    """The back end, which hangs on the device where nobody has named one."""

    def unset(self, settings: Any) -> Any:
        """'llvm' for the CPU, 'cuda' for a GPU."""
        return self.default if settings.device == "cpu" else "cuda"


class Device(Setting):
    """'cpu', or a GPU: 'cuda', or 'cuda0', 'cuda1', ... for one of several.  Theano's 'gpu',
    'gpu0' mean the same."""

    def checked(self, value: object, what: str = "") -> Any:
        """The name with 'cuda' for 'gpu'.  Raises ValueError for another."""
        found = re.fullmatch(r"(cpu|cuda|gpu)(\d*)", str(value))
        if found is None or (found[1] == "cpu" and found[2]):
            raise ValueError(f"{what or f'config.{self.name}'} is {value!r}; it must be 'cpu', "
                             "'cuda', or 'cuda0', 'cuda1', ... for a GPU of several")
        return "cpu" if found[1] == "cpu" else f"cuda{found[2]}"


class Count:
    """A setting that is a number of at least 1, with a default that is found out.

    It is read at every call, so the environment is asked once, when it is needed first.
    ``word`` holds the number of the process, 0 before that; native code reads it too.
    """

    def __init__(self, default: Callable[[], int], doc: str = "") -> None:
        self.default, self.__doc__ = default, doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.value: ContextVar[int | None] = ContextVar(f"tinygraph.{name}", default=None)
        self.word = ctypes.c_int64(0)

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = self.value.get()
        if value is None:
            value = self.word.value
            if not value:
                value = self.word.value = self._found()
        return value

    def _found(self) -> int:
        variable = f"TINYGRAPH_{self.name.upper()}"
        text = os.environ.get(variable, "").strip()
        return self.checked(text, f"the environment variable {variable}") if text else (
            self.default())

    def __set__(self, instance: Any, value: object) -> None:
        self.word.value = self.checked(value)

    def checked(self, value: object, what: str = "") -> int:
        """``value`` as a number.  Raises ValueError for what is none, or less than 1."""
        try:
            number = int(value) if isinstance(value, str) else operator.index(value)  # type: ignore
        except (TypeError, ValueError):
            number = 0
        if not 1 <= number < 2**31 or isinstance(value, bool):
            raise ValueError(f"{what or f'config.{self.name}'} is {value!r}; it must be a whole "
                             "number of at least 1")
        return number


def processors() -> int:
    """How many CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Rewrites(Mapping[str, Any]):
    """Rules and passes of users, by name, that join every function compiled from now on:
    after ``config.rewrites.add("name", rule)`` until ``config.rewrites.remove("name")``, or inside
    ``with config.rewrites.adding(name=rule):``, and for this thread only.
    """

    def __init__(self) -> None:
        self._process: dict[str, Any] = {}
        self._inside: ContextVar[dict[str, Any]] = ContextVar("tinygraph.rewrites")

    def _all(self) -> dict[str, Any]:
        return {**self._process, **self._inside.get({})}

    def __getitem__(self, name: str) -> Any:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _check(self, name: str) -> None:
        if name in self._all():
            raise ValueError(f"there is a rewrite {name!r} already; remove it first, or take "
                             "another name")

    def add(self, name: str, rewrite: Any) -> None:
        """Let ``rewrite`` join.  Raises ValueError for a name that is taken."""
        self._check(name)
        self._process[name] = rewrite

    def remove(self, name: str) -> None:
        """Take away what ``add`` gave.  Raises KeyError for a name that it did not."""
        del self._process[name]

    @contextmanager
    def adding(self, **rewrites: Any) -> Iterator[None]:
        """Let ``rewrites`` join inside a ``with`` block, for this thread only."""
        for name in rewrites:
            self._check(name)
        token = self._inside.set({**self._inside.get({}), **rewrites})
        try:
            yield
        finally:
            self._inside.reset(token)


def _default_cache() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(base) / "tinygraph")


# What programs that were written for Theano set, and what does it here.
_INSTEAD = {
    "base_compiledir": "set cache_dir", "compiledir": "set cache_dir",
    "blas": "no BLAS is used, and nothing is to be set",
    "gcc": "no C compiler is used, and nothing is to be set",
    "dnn": "nothing is to be set", "gpuarray": "nothing is to be set",
    "lib": "nothing is to be set", "nvcc": "nothing is to be set",
    "linker": "set backend",
    "openmp": "set threads", "openmp_elemwise_minsize": "set threads",
    "optimizer_excluding": "write function(..., passes='-name'), with names of passes",
    "optimizer_including": "every pass runs unless function(..., passes=...) says otherwise",
    "change_flags": "write with config.change(floatX='float64'):",
    "scan": "write scan(..., memory=bytes) to bound what the gradient keeps",
    "warn": "nothing is to be set",
}


def _unknown(name: str) -> AttributeError:
    known = ", ".join(k for k, v in vars(Config).items() if isinstance(v, (Setting, Count)))
    instead = f". For Theano's {name}: {_INSTEAD[name]}" if name in _INSTEAD else ""
    return AttributeError(f"there is no setting {name!r}; tinygraph.config has {known}{instead}")


class Config:
    """The settings of this process.

    floatX     dtype of new float variables: 'float32' (default) or 'float64'
    device     'cpu' (default) or 'cuda', also 'cuda1' and so on: where functions run, and shared
               variables lie, of which no more is said
    backend    'llvm' (default on the CPU), 'cuda' (default on a GPU) or 'numpy' (the
               interpreter); to check these, 'loops' (the loop program in Python) and 'shim' (the
               kernels on the CPU)
    cache_dir  where object code is kept; the empty string means the user's cache directory
    cache      'on' or 'off'
    compute_test_value   'ignore', 'warn' or 'raise': expressions are computed on x.tag.test_value
               as they are built; where a variable has none: nothing, a warning, an error
    nan_guard  what functions compiled from now on refuse to compute: 'off', 'nan', 'inf', 'both',
               or 'inside' (both, also in values that reach no result)
    mode       what ``function`` makes where it is not told: 'FAST_RUN' (default), 'FAST_COMPILE'
               (the interpreter), 'DebugMode' (every call is checked, as with check=True) or
               'NanGuardMode' (a call that computes a nan or an infinity is refused)
    optimizer  the passes that run: 'fast_run' (all), 'fast_compile' or 'None' (none)
    on_unused_input  what ``function`` does where an input is not used: 'raise', 'warn', 'ignore'
    threads    how many threads a call may use: a number of at least 1; as many as there are CPUs
               that this process may run on, unless given
    tf32       False (default), or True: a GPU may round the factors of float32 products to 10 bits
               of mantissa, which is faster on its tensor cores
    rewrites   rules and passes of users that join every function

    The others are settings of Theano which programs make and which need no setting here; see
    docs/coming-from-theano.md.
    """

    floatX = Setting("float32", ("float32", "float64"))
    backend = Backend("llvm", ("llvm", "loops", "numpy", "cuda", "shim"))
    cache_dir = Setting("")
    cache = Setting("on", ("on", "off"))
    nan_guard = Setting("off", ("off", "nan", "inf", "both", "inside"))
    mode = Setting("FAST_RUN", (
        "FAST_RUN", "Mode", "FAST_COMPILE", "DebugMode", "DEBUG_MODE", "NanGuardMode"))
    optimizer = Setting("fast_run", ("fast_run", "fast_compile", "None"))
    on_unused_input = Setting("raise", ("raise", "warn", "ignore"))
    threads = Count(processors)
    tf32 = Setting(False, (False, True))
    rewrites = Rewrites()
    device = Device("cpu", ("cpu", "cuda"))
    exception_verbosity = Foreign(
        "high", "low", advice="messages always name variables, with file and line")
    compute_test_value = Setting("off", ("off", "ignore", "warn", "raise"))
    warn_float64 = Foreign(
        "ignore", advice="debugprint(y) shows the dtype of every variable that y depends on")
    allow_gc = Foreign(True, False, advice="the memory of a call is kept for the next")
    cxx = Foreign("", advice="no C++ compiler is used")
    profile = Foreign(False, advice="write function(..., profile=True), then f.profile.summary()")

    def __getattr__(self, name: str) -> Any:
        raise _unknown(name)

    def __setattr__(self, name: str, value: object) -> None:
        if not isinstance(getattr(type(self), name, None), (Setting, Count)):
            raise _unknown(name)
        super().__setattr__(name, value)

    @property
    def gpu(self) -> int | None:
        """The number of the GPU that ``device`` names, None where it names none."""
        number = self.device[len("cuda"):] if self.device != "cpu" else ""
        return int(number) if number else None

    @property
    def cache_path(self) -> Path:
        """The cache directory in force."""
        return Path(self.cache_dir or _default_cache())

    @contextmanager
    def change(self, **settings: Any) -> Iterator[None]:
        """Other settings inside a ``with`` block, for this thread only."""
        changes = list[tuple[Any, Any]]()
        for name, value in settings.items():
            setting = vars(type(self)).get(name)
            if not isinstance(setting, (Setting, Count)):
                raise _unknown(name)
            changes.append((setting, setting.checked(value)))
        tokens = [(setting, setting.value.set(value)) for setting, value in changes]
        try:
            yield
        finally:
            for setting, token in reversed(tokens):
                setting.value.reset(token)


config = Config()
