"""A bench for passes: inputs with sizes, one interner, values before and after."""

from __future__ import annotations

import numpy as np
import pytest

from tinygraph.dims import Dim, Sym, dim
from tinygraph.dtypes import float64
from tinygraph.graph import Graph, Type, subgraphs
from tinygraph.interning import Interner
from tinygraph.interpret import Sizes, evaluate
from tinygraph.ops.arithmetic import Arithmetic
from tinygraph.rewrite.check import check_graph
from tinygraph.rewrite.engine import Context
from tinygraph.rewrite.journal import expression


class Bench:
    """Makes inputs, runs passes on graphs of them, and compares graphs and values."""

    def __init__(self):
        self.context = Context(Interner(Arithmetic))
        self.inputs, self.env = [], {}
        self.random = np.random.default_rng(1)
        self.arrays = {}

    @property
    def journal(self):
        return self.context.journal

    def size(self, name, n):
        """An unknown size that is n when the graph is run."""
        sym = Sym(name)
        self.env[sym] = n
        return dim(sym)

    def input(self, name, *dims, dtype=float64, positive=False):
        """An input, and random numbers for it."""
        dims = tuple(d if isinstance(d, Dim) else dim(d) for d in dims)
        x = Arithmetic(Type(dtype, dims), name=name)
        shape = tuple(d.evaluate(self.env) for d in dims)
        array = self.random.standard_normal(shape) * (1 if dtype.is_float else 9)
        self.arrays[x] = np.asarray(np.abs(array) if positive else array, dtype.np)
        self.inputs.append(x)
        return x

    def graph(self, *outputs):
        return self.context.interner.graph(Graph(tuple(self.inputs), outputs))

    def run(self, passes, *outputs, rtol=1e-12):
        """The graph that ``passes`` make; it is well formed and computes the same."""
        graph = self.graph(*outputs)
        check_graph(graph)
        for one in passes if isinstance(passes, (list, tuple)) else [passes]:
            graph = one(graph, self.context)
            check_graph(graph)
            assert one(graph, self.context).outputs == graph.outputs, "not a fixpoint"
        before, after = self.values(outputs), self.values(graph.outputs)
        for a, b in zip(before, after, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(b, a, rtol=rtol, atol=1e-12)
        return graph

    def values(self, outputs):
        return evaluate(outputs, self.arrays, Sizes(dict(self.env)))

    def same(self, graph, *expected):
        """Is ``graph`` node for node what ``expected`` says?"""
        wanted = self.graph(*expected).outputs
        assert graph.outputs == wanted, f"{self.text(graph.outputs)}, not {self.text(wanted)}"

    @staticmethod
    def text(outputs):
        return "; ".join(expression(v, 12) for v in outputs)

    @staticmethod
    def count(graph, kind):
        """How many nodes of an op class a graph has (without bodies)."""
        return sum(isinstance(node.op, kind) for node in graph.nodes())

    @staticmethod
    def bodies(graph):
        return [g for node in graph.nodes() for g in subgraphs(node.op)]


@pytest.fixture
def bench():
    return Bench()
