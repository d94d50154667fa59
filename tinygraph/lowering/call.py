"""A user's op in Python: a Call on the memory of its operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinygraph.graph import Node
from tinygraph.loops.language import Call, Strided
from tinygraph.lowering.view import View

if TYPE_CHECKING:
    from tinygraph.lowering.region import Region


def lower_call(region: Region, node: Node, name: str,
               function: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], None]) -> None:
    """A stage that calls ``function`` on the operands and results of ``node``."""
    inputs = [region.memory(x) for x in node.inputs]
    outputs = [region.allocate(v) for v in node.outputs]
    made = Call(name, function, tuple(map(_strided, inputs)), tuple(map(_strided, outputs)))
    region.add(lambda b: b.emit(made), *node.outputs)


def _strided(view: View) -> Strided:
    assert view.buffer is not None
    sizes, strides = (tuple(map(view.sizes.expr, part)) for part in (view.dims, view.strides))
    return Strided(view.buffer, view.offset, sizes, strides)
