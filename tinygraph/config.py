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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any


class Setting:
    """One setting: a default, the texts it may have, and the environment variable
    ``TINYGRAPH_<NAME>`` that gives it where code does not."""

    def __init__(self, default: str, choices: tuple[str, ...] = (), doc: str = "") -> None:
        self.default, self.choices, self.__doc__ = default, choices, doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.value: ContextVar[str | None] = ContextVar(f"tinygraph.{name}", default=None)
        self.process_value: str | None = None

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = self.value.get() or self.process_value
        if value is None:
            value = os.environ.get(f"TINYGRAPH_{self.name.upper()}", self.default)
        return self.checked(value)

    def __set__(self, instance: Any, value: str) -> None:
        self.process_value = self.checked(str(value))

    def checked(self, value: str) -> str:
        if self.choices and value not in self.choices:
            known = ", ".join(map(repr, self.choices))
            raise ValueError(f"config.{self.name} is {value!r}; it must be one of {known}")
        return value


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


def _default_cache() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(base) / "tinygraph")


class Config:
    """The settings of this process.

    floatX     dtype of new float variables: 'float32' (default) or 'float64'
    backend    'llvm' (default) or 'numpy' (the interpreter)
    cache_dir  where object code is kept; the empty string means the user's cache directory
    cache      'on' or 'off'
    threads    how many threads a call may use: a number of at least 1; as many as there are CPUs
               that this process may run on, unless given
    """

    floatX = Setting("float32", ("float32", "float64"))
    backend = Setting("llvm", ("llvm", "loops", "numpy"))
    cache_dir = Setting("")
    cache = Setting("on", ("on", "off"))
    threads = Count(processors)

    def __setattr__(self, name: str, value: object) -> None:
        if not isinstance(getattr(type(self), name, None), (Setting, Count)):
            known = ", ".join(k for k, v in vars(type(self)).items()
                              if isinstance(v, (Setting, Count)))
            raise AttributeError(f"there is no setting {name!r}; tinygraph.config has {known}")
        super().__setattr__(name, value)

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
                raise AttributeError(f"there is no setting {name!r}")
            changes.append((setting, setting.checked(value)))
        tokens = [(setting, setting.value.set(value)) for setting, value in changes]
        try:
            yield
        finally:
            for setting, token in reversed(tokens):
                setting.value.reset(token)


config = Config()
