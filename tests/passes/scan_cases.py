"""What the tests of scan passes share: graphs after a pass, and models to run them on."""

from __future__ import annotations

from typing import Any

import models
import numpy as np

import tinygraph.tensor as T
from tinygraph import function, grad, scan, shared
from tinygraph.compile.build import Compilation
from tinygraph.graph import Graph, Node, subgraphs
from tinygraph.passes.pipeline import select
from tinygraph.rewrite.engine import Context
from tinygraph.scan_module.op import Scan


class Compiled:
    """A function of the back end "loops", with its graphs after every pass."""

    def __init__(self, inputs: list[Any], outputs: Any, passes: Any = None) -> None:
        self.function = function(inputs, outputs, backend="loops", passes=passes)
        shapes = {w: w.get_value().shape for w in self.function.shared}
        self.compilation = Compilation(self.function.graph, select(passes), shapes)
        self.stages = self.compilation.stages

    def stage(self, name: str) -> Graph:
        """The graph after the first run of a pass."""
        return next(g for n, g in self.stages if n == name)

    @property
    def final(self) -> Graph:
        return self.stages[-1][1]

    def alone(self, name: str) -> tuple[Graph, Graph]:
        """The graph before and after the first run of a pass."""
        place = next(k for k, (n, _) in enumerate(self.stages) if n == name)
        return self.stages[place - 1][1], self.stages[place][1]

    def again(self, name: str, graph: Graph) -> Graph:
        """One more run of a pass."""
        one = next(p for p in select(None) if p.name == name)
        return one(graph, Context(self.compilation.closed.interner))


def compiled(inputs: list[Any], outputs: Any, passes: Any = None) -> Compiled:
    return Compiled(inputs, outputs, passes)


def scans(graph: Graph) -> list[Node]:
    """The scans of a graph, without those inside bodies."""
    return [n for n in graph.nodes() if isinstance(n.op, Scan)]


def count(graph: Graph, kind: type) -> int:
    """Nodes of an op class, without bodies."""
    return sum(isinstance(n.op, kind) for n in graph.nodes())


def inside(graph: Graph, kind: type) -> list[int]:
    """Per scan, the nodes of an op class in its body."""
    return [count(n.op.body, kind) for n in scans(graph)]  # type: ignore[attr-defined]


def loops(f: Any) -> list[Any]:
    return f.report().loops


def all_graphs(graph: Graph) -> list[Graph]:
    """A graph and every body in it."""
    found = [graph]
    for n in graph.nodes():
        for body in subgraphs(n.op):
            found += all_graphs(body)
    return found


def cases() -> dict[str, tuple[list[Any], list[Any], list[np.ndarray]]]:
    """Programs with scans of every kind: inputs, outputs, arguments."""
    rng = np.random.default_rng(0)
    found = {}
    for name, model in (
            ("lstm", models.lstm("separate", mask=True, peepholes=True, clip=1.0, hidden=2)),
            ("lstm concat", models.lstm("concat", backwards=True, hidden=2)),
            ("gru stacked", models.gru("stacked", mask=True, hidden=2)),
            ("rnn truncated", models.rnn(truncate=2, hidden=3))):
        outputs = [model.cost(), *grad(model.cost(), [*model.params, model.inputs[0]])]
        found[name] = (model.inputs, outputs, model.batch(2, 3))
    model = models.rnn(hidden=2)
    inner = (grad((model.states[0] ** 2).sum(), model.params[1]) ** 2).sum()
    found["second derivative"] = (
        model.inputs, [inner, *grad(inner, model.params)], model.batch(2, 3))
    x, w = T.matrix("x"), shared(rng.standard_normal((2, 2)).astype("float32"), "w")

    def outer(row: Any, h: Any) -> Any:
        cs, _ = scan(lambda e, c: T.tanh(c * e + T.dot(h, w)), row, T.zeros_like(h))
        return cs[-1] + T.sin(h)

    hs, _ = scan(outer, x, T.ones_like(w[0]))
    cost = (hs ** 2).sum()
    found["nested"] = ([x], [cost, *grad(cost, [x, w])],
                       [rng.standard_normal((3, 4)).astype("float32")])
    v = T.vector("v")
    taps, _ = scan(lambda a, b, p, q: T.tanh(a - b + 0.5 * p * q), dict(input=v, taps=[0, 1]),
                   dict(initial=v[:2], taps=[-1, -2]))
    cost = (taps ** 2).sum() + taps[-1]
    found["taps"] = ([v], [cost, grad(cost, v), taps[::-1]],
                     [rng.standard_normal(6).astype("float32")])
    return found
