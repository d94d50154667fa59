"""Settings: in code, by context manager, by environment variable.  Nothing is read at import.

>>> from tinygraph import config
>>> config.floatX
'float32'
>>> with config.change(floatX="float64"):
...     config.floatX
'float64'
"""

from __future__ import annotations

import os
from collections.abc import Iterator
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


def _default_cache() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(base) / "tinygraph")


class Config:
    """The settings of this process.

    floatX     dtype of new float variables: 'float32' (default) or 'float64'
    backend    'llvm' (default) or 'numpy' (the interpreter)
    cache_dir  where object code is kept; the empty string means the user's cache directory
    cache      'on' or 'off'
    """

    floatX = Setting("float32", ("float32", "float64"))
    backend = Setting("llvm", ("llvm", "loops", "numpy"))
    cache_dir = Setting("")
    cache = Setting("on", ("on", "off"))

    def __setattr__(self, name: str, value: object) -> None:
        if not isinstance(getattr(type(self), name, None), Setting):
            known = ", ".join(k for k, v in vars(type(self)).items() if isinstance(v, Setting))
            raise AttributeError(f"there is no setting {name!r}; tinygraph.config has {known}")
        super().__setattr__(name, value)

    @property
    def cache_path(self) -> Path:
        """The cache directory in force."""
        return Path(self.cache_dir or _default_cache())

    @contextmanager
    def change(self, **settings: str) -> Iterator[None]:
        """Other settings inside a ``with`` block, for this thread only."""
        tokens = []
        for name, value in settings.items():
            setting = vars(type(self)).get(name)
            if not isinstance(setting, Setting):
                raise AttributeError(f"there is no setting {name!r}")
            tokens.append((setting, setting.value.set(setting.checked(value))))
        try:
            yield
        finally:
            for setting, token in reversed(tokens):
                setting.value.reset(token)


config = Config()
