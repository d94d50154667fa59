"""What Theano's modes and optimizers are in our terms."""

from __future__ import annotations

from typing import Any

from tinygraph.config import Config, config


def mode_options(mode: Any, options: dict[str, Any]) -> dict[str, Any]:
    """``options`` of a function (backend, passes, check, nan_guard), where those that are None
    come from ``mode``, or from ``config.mode`` without one, and from ``config.optimizer``.

    Raises TypeError for a mode that is no name, ValueError for a name that is not known.
    """
    name = config.mode if mode is None else _checked(mode)
    passes = None if config.optimizer == "fast_run" else "none"
    told = {
        "backend": "numpy" if name == "FAST_COMPILE" else config.backend,
        "passes": passes,
        "check": name in ("DebugMode", "DEBUG_MODE"),
        "nan_guard": "both" if name == "NanGuardMode" else None,
    }
    return {key: told[key] if value is None else value for key, value in options.items()}


def _checked(mode: Any) -> str:
    if not isinstance(mode, str):
        if isinstance(mode, (dict, list, tuple)):
            raise TypeError("the third argument of function is mode; write updates=... by name")
        known = ", ".join(map(repr, Config.mode.choices))
        raise TypeError(f"mode is {mode!r}; it must be the name of a mode: one of {known}. Passes "
                        "are left out by function(..., passes='-name')")
    return str(Config.mode.checked(mode, "mode"))
