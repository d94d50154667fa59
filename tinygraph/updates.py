"""Updates of shared variables, as ``scan`` returns and ``function`` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygraph.graph import Value, describe


class OrderedUpdates(dict[Any, Any]):
    """{shared variable: its new value}, in the order in which they were given.

    ``a + b`` has the updates of both, of which one may be a dict or a list of pairs.  Raises
    TypeError for a key that is no shared variable, and with ``+`` and ``update`` KeyError for one
    that gets two values.
    """

    def __init__(self, updates: Any = None) -> None:
        super().__init__()
        self.update(updates)

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, Value) or not hasattr(key, "get_value"):
            raise TypeError(f"updates: {describe(key) if isinstance(key, Value) else repr(key)} "
                            "is not a shared variable; make it with shared(...)")
        super().__setitem__(key, value)

    def update(self, other: Any = None) -> None:  # type: ignore[override]
        """Add the updates of a dict or a list of pairs."""
        for key, value in other.items() if isinstance(other, Mapping) else other or ():
            if self.get(key, value) is not value:
                raise KeyError(f"updates: {describe(key)} has two values; leave one of them out")
            self[key] = value

    def __add__(self, other: Any) -> OrderedUpdates:
        out = OrderedUpdates(self)
        out.update(other)
        return out

    def __radd__(self, other: Any) -> OrderedUpdates:
        out = OrderedUpdates(other)
        out.update(self)
        return out
