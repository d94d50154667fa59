"""drop_gradient_nodes."""

from __future__ import annotations

from tinygraph.dims import dim
from tinygraph.dtypes import float64
from tinygraph.gradient import disconnected_grad, grad, grad_clip, zero_grad
from tinygraph.graph import Graph, Type, apply
from tinygraph.ops.arithmetic import Arithmetic, reduce_
from tinygraph.ops.control import Identity
from tinygraph.passes.drop_gradient_nodes import drop_gradient_nodes
from tinygraph.scan_module.groups import Groups
from tinygraph.scan_module.op import Scan


def test_identities_go_after_the_gradient_was_taken(bench):
    x = bench.input("x", 3)
    y = grad_clip(x, -1, 1) * disconnected_grad(x) + zero_grad(x)
    g = grad(reduce_("sum", y, (0,)), x)
    graph = bench.run(drop_gradient_nodes, y, g)
    assert bench.count(graph, Identity) == 0
    assert graph.outputs[0] is bench.graph(x * x + x).outputs[0]


def test_in_bodies_too(bench):
    xs, h0 = bench.input("xs", 4, 3), bench.input("h0", 3)
    x, h = (Arithmetic(Type(float64, (dim(3),))) for _ in range(2))
    op = Scan(Graph((x, h), (grad_clip(h * x, -1, 1),)), Groups(1, 1, 0, 0), dim(4))
    graph = bench.run(drop_gradient_nodes, apply(op, xs, h0)[0])
    (body,) = bench.bodies(graph)
    assert bench.count(body, Identity) == 0 and len(body.nodes()) == 1
