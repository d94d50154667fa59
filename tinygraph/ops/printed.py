"""Print: a value is shown when it is computed, and handed on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from tinygraph.graph import apply, user_source
from tinygraph.ops.arithmetic import as_value
from tinygraph.ops.callback import Callback, UserOp


class Shown(Callback):
    """The callback that shows its operand: it stays in the loop in which it stands."""

    effect: ClassVar[bool] = True


def _show(printer: Print, value: np.ndarray) -> None:
    for attribute in printer.attrs:
        found = getattr(value, attribute)
        print(printer.message, attribute, "=", found() if callable(found) else found)


class Print:
    """``Print("what it is")(x)`` is ``x``, and prints it whenever a function computes it: once in
    every step of a scan.  What no result depends on is not computed, and not printed.

    message    is printed first
    attrs      the attributes of the array that are printed: ("shape", "mean"), its text unless
               given; methods are called
    global_fn  (printer, array) -> None is called instead of printing
    """

    def __init__(self, message: str = "", attrs: Sequence[str] = ("__str__",),
                 global_fn: Callable[[Print, np.ndarray], None] = _show) -> None:
        self.message, self.attrs, self.global_fn = message, tuple(attrs), global_fn
        for attribute in self.attrs:
            if not hasattr(np.ndarray, attribute):
                raise AttributeError(f"Print: arrays have no attribute {attribute!r}")

    def __call__(self, x: Any) -> Any:
        """``x``, to be printed."""
        x = as_value(x)
        leaf = x.result_class()(x.type, name=x.name, source=x.source)
        node = SimpleNamespace(op=self, inputs=[leaf], outputs=[leaf])
        op = Shown(UserOp(self), (x.type.dtype,), (x.type.dims,), node, user_source())
        (out,) = apply(op, x)
        return out

    def perform(self, node: Any, inputs: Sequence[np.ndarray], storage: Sequence[list[Any]]
                ) -> None:
        """Show the value."""
        self.global_fn(self, inputs[0])
        storage[0][0] = inputs[0]

    def L_op(self, inputs: Sequence[Any], outputs: Sequence[Any], gradients: Sequence[Any]
             ) -> list[Any]:
        """The gradient passes."""
        return [gradients[0]]

    def _key(self) -> tuple[Any, ...]:
        return self.message, self.attrs, self.global_fn

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Print) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        return f"print{{{self.message}}}"
