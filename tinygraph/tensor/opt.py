"""Rewrites that join every function, under the names that programs for Theano use."""

from __future__ import annotations

from typing import Any

from tinygraph.config import config


def register_canonicalize(optimizer: Any, *tags: str, name: str | None = None) -> Any:
    """Let ``optimizer``, a rule or a pass, join all functions that are compiled from now on; gives
    it back, so that this can stand as a decorator.  ``tags`` are left aside.

    Raises ValueError if the name (its own unless given) is taken.
    """
    config.rewrites.add(name or optimizer.name, optimizer)
    return optimizer


register_stabilize = register_specialize = register_canonicalize


def hashtype(op: Any) -> int:
    """A hash that is equal for all ops of one class."""
    return hash((type(op).__module__, type(op).__qualname__))
