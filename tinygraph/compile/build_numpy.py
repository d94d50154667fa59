"""backend='numpy': no compiler at all, the interpreter behind the face of an executable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinygraph.compile.report import Report, Work
from tinygraph.dims import dim
from tinygraph.graph import Graph, Value
from tinygraph.interpret import Sizes, evaluate
from tinygraph.tensor.evaluation import check_sizes, unproved


def build_numpy(graph: Graph, *, name: str = "function", backend: str = "numpy",
                passes: Any = None, shared_shapes: Mapping[Value, tuple[int, ...]] | None = None
                ) -> NumpyExecutable:
    """An executable that runs ``graph`` node by node.  It serves every shape."""
    return NumpyExecutable(graph, name)


class NumpyExecutable:
    """``executable(arrays, out)``: arrays in the order of the graph's inputs; every result is
    the caller's own: ``out[i]`` where that fits, else a new array."""

    home = None
    on_host: tuple[int, ...] = ()

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name
        self.guards = list(unproved(graph.outputs, graph.inputs))
        self.checked: set[tuple[tuple[int, ...], ...]] = set()
        self.plain = all(not s.value for g in self.guards
                         for d in (g.left, g.right) for s in d.syms())

    def __call__(self, arrays: Sequence[np.ndarray], out: Sequence[np.ndarray | None]
                 ) -> list[np.ndarray]:
        inputs = dict(zip(self.graph.inputs, arrays, strict=True))
        sizes = Sizes()
        for v, a in inputs.items():
            sizes.learn(v, a)
        self._check(inputs, sizes)
        results = evaluate(self.graph.outputs, inputs, sizes)
        return [_own(r, v, o) for r, v, o in
                zip(results, self.graph.outputs, out, strict=True)]

    def _check(self, inputs: Mapping[Value, np.ndarray], sizes: Sizes) -> None:
        shapes = tuple(a.shape for a in inputs.values())
        if self.plain and shapes in self.checked:
            return
        check_sizes(self.guards, inputs, sizes)
        if self.plain:
            self.checked.add(shapes)

    def report(self) -> Report:
        """What will run: no native code."""
        return Report(self.name, [], Work(), 0, {}, [], False, dim(0))

    def source(self, stage: str = "numpy") -> str:
        """The nodes in the order of their run."""
        return "\n".join(map(repr, self.graph.nodes()))

    def after(self, pass_name: str) -> Graph:
        """There are no passes here: raises ValueError."""
        raise ValueError(f"backend 'numpy' runs no passes, so there is nothing after "
                         f"{pass_name!r}; use backend='llvm'")


def _own(result: np.ndarray, value: Value, out: np.ndarray | None) -> np.ndarray:
    if out is not None and out.shape == result.shape and out.dtype == result.dtype:
        np.copyto(out, result)
        return out
    return np.array(result, value.type.dtype.np, order="C", copy=True)
