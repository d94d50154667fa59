"""The rewriting engine, its journal, and the check of graphs."""

from __future__ import annotations

import time

import pytest

from tinygraph.dims import dim
from tinygraph.dtypes import float32, float64, int64
from tinygraph.errors import InternalError
from tinygraph.graph import Graph, Node, Type, apply
from tinygraph.ops.arithmetic import Arithmetic, Elemwise, cast, elementwise
from tinygraph.ops.scalars import TABLE
from tinygraph.ops.views import transpose
from tinygraph.passes.canonical import canonical
from tinygraph.rewrite.check import check_graph
from tinygraph.rewrite.engine import everywhere, rewrite, rule, rule_pass, substitute
from tinygraph.rewrite.pattern import beside, operand
from tinygraph.scan_module.groups import Groups
from tinygraph.scan_module.op import Scan


@rule("add")
def add_to_sub(node, context):
    """x + -y --> x - y"""
    y = operand(node.inputs[1], "neg")
    return node.inputs[0] - y if y is not None else None


@rule("sub")
def sub_to_exp(node, context):
    """x - y --> exp(x * y)"""
    x, y = node.inputs
    return (x * y).exp()


@rule("exp")
def exp_to_sub(node, context):
    """exp(x * y) --> x - y"""
    x, y = node.inputs[0].node.inputs
    return x - y


@rule("exp")
def exp_grows(node, context):
    """exp(x) --> exp(exp(x))"""
    return node.inputs[0].exp().exp()


@rule(Elemwise)
def to_float32(node, context):
    """x --> float32"""
    return cast(node.outputs[0], float32)


@rule("mul")
def one(node, context):
    """x * 1 --> x"""
    return beside(node.outputs[0], "mul", 1)


def test_what_a_rule_builds_is_rewritten_at_once(bench):
    x, y = bench.input("x", 3), bench.input("y", 3)
    graph = rewrite(bench.graph(x + -y), [add_to_sub, sub_to_exp], bench.context)
    bench.same(graph, (x * y).exp())
    assert bench.journal.counts() == {"add_to_sub": 1, "sub_to_exp": 1}


def test_an_untouched_graph_is_returned_itself(bench):
    x = bench.input("x", 3)
    graph = bench.graph(x.exp(), x * 2)
    assert rewrite(graph, [add_to_sub], bench.context) is graph


def test_rules_that_undo_each_other_are_named(bench):
    x, y = bench.input("x", 3), bench.input("y", 3)
    with pytest.raises(InternalError, match="undo each other.*sub_to_exp, exp_to_sub"):
        rewrite(bench.graph(x - y), [sub_to_exp, exp_to_sub], bench.context)


def test_a_rule_that_grows_for_ever_is_stopped(bench):
    x = bench.input("x", 3)
    with pytest.raises(InternalError, match="undo each other.*exp_grows"):
        rewrite(bench.graph(x.exp()), [exp_grows], bench.context)


def test_a_replacement_of_another_type_names_the_rule(bench):
    x = bench.input("x", 3)
    with pytest.raises(InternalError, match="to_float32 replaced .*float64.*float32"):
        rewrite(bench.graph(x * x), [to_float32], bench.context)


def test_names_and_lines_pass_to_replacements(bench):
    x = bench.input("x", 3)
    z = (x + -x.exp())
    z.name, z.source = "z", "user.py:7"
    (out,) = rewrite(bench.graph(z), [add_to_sub], bench.context).outputs
    assert (out.name, out.source) == ("z", "user.py:7")


def test_a_leaf_keeps_its_own_name(bench):
    x = Arithmetic(Type(float64, (dim(3),)))
    bench.inputs.append(x)
    z = x * 1
    z.name = "z"
    (out,) = rewrite(bench.graph(z), [one], bench.context).outputs
    assert out is x and x.name is None


def scan_of(bench, body_of, n_steps=3):
    """A scan with one sequence x, one carry h, one constant w."""
    xs, h0, w = (bench.input(name, *dims) for name, dims in (
        ("xs", (n_steps, 2)), ("h0", (2,)), ("w", (2,))))
    x, h, u = (Arithmetic(Type(float64, (dim(2),))) for _ in range(3))
    new, row = body_of(x, h, u)
    op = Scan(Graph((x, h, u), (new, row)), Groups(1, 1, 1, 1), dim(n_steps))
    return apply(op, xs, h0, w)


def test_bodies_are_rewritten(bench):
    final, stack = scan_of(bench, lambda x, h, u: (h * 1 + x, (x + 0) * u))
    graph = bench.run(canonical, final, stack)
    (body,) = bench.bodies(graph)
    p, q, r = body.inputs
    assert body.outputs == tuple(bench.context.intern(q + p, p * r))


def test_equal_bodies_are_rewritten_once(bench):
    a, _ = scan_of(bench, lambda x, h, u: (h * 1 + x, x * u))
    b, _ = scan_of(bench, lambda x, h, u: (h * 1 + x, x * u))
    graph = canonical(bench.graph(a, b), bench.context)
    one, two = bench.bodies(graph)
    assert one is two
    assert bench.journal.count("mul_one") == 1


def test_everywhere_goes_inner_first_and_tells_whose_body(bench):
    final, _ = scan_of(bench, lambda x, h, u: (h + x, x * u))
    seen = []

    def look(graph, context):
        seen.append(context.frame.op)
        return graph

    graph = bench.graph(final)
    assert everywhere(graph, bench.context, look).outputs == graph.outputs
    assert isinstance(seen[0], Scan) and seen[1] is None


def test_substitute_reaches_into_replacements(bench):
    x = bench.input("x", 3)
    a, b = bench.context.intern(x.exp(), x.exp().sin())
    graph = bench.graph(b * 2)
    new = substitute(graph, {a: x.cos(), b: a.sinh()}, bench.context)
    bench.same(new, x.cos().sinh() * 2)
    with pytest.raises(InternalError, match="needs it"):
        substitute(graph, {a: b.cos()}, bench.context)


@pytest.mark.parametrize("through", [1, 2])
def test_a_chain_of_5000_nodes_in_linear_time(bench, through):
    x = bench.input("x", 3)
    v = x
    for _ in range(5000):
        v = (v + 1.0) * 1
        v = v + v.exp() if through == 2 else v  # a diamond at every step
    graph = bench.graph(v)
    start = time.perf_counter()
    graph = canonical(graph, bench.context)
    assert time.perf_counter() - start < 30
    assert bench.count(graph, Elemwise) == 5000 * (1 if through == 1 else 3)
    assert bench.journal.count("mul_one") == 5000


def test_the_journal_tells_what_happened(bench):
    x, y = bench.input("x", 3), bench.input("y", 3)
    z = x + -y
    z.source = "user.py:3"
    swap = rule_pass("swap", "x + -y --> x - y", [add_to_sub])
    swap(bench.graph(z), bench.context)
    (entry,), (record,) = bench.journal.entries, bench.journal.passes
    assert (entry.before, entry.after) == ("add(x, neg(y))", "sub(x, y)")
    assert str(entry) == "swap/add_to_sub: add(x, neg(y)) --> sub(x, y)  (user.py:3)"
    assert (record.name, record.nodes_before, record.nodes_after) == ("swap", 2, 1)
    assert record.changed and record.seconds > 0
    assert "swap" in str(bench.journal)
    assert add_to_sub.doc == "x + -y --> x - y" and add_to_sub.name == "add_to_sub"


# --- check_graph ----------------------------------------------------------------------------


def test_check_finds_a_wrong_type(bench):
    x = bench.input("x", 3)
    bad = Node(Elemwise(TABLE["exp"]), (x,), (Type(int64, x.type.dims),), Arithmetic, "")
    with pytest.raises(InternalError, match=r"exp\(x\) is recorded as int64"):
        check_graph(Graph((x,), bad.outputs))


def test_check_finds_equal_nodes(bench):
    x = bench.input("x", 3)
    with pytest.raises(InternalError, match="two nodes are equal: exp"):
        check_graph(Graph((x,), (x.exp(), x.exp())))
    check_graph(bench.graph(x.exp(), x.exp()))


def test_check_looks_into_bodies(bench):
    final, stack = scan_of(bench, lambda x, h, u: (h + x, h + x))
    with pytest.raises(InternalError, match="two nodes are equal: add"):
        check_graph(Graph(tuple(bench.inputs), (final, stack)))


def test_check_finds_a_repeated_input(bench):
    x = bench.input("x", 3)
    with pytest.raises(InternalError, match="are one variable"):
        check_graph(Graph((x, x), (x.exp(),)))


def test_dispatch_by_name_and_by_class(bench):
    x = bench.input("x", 3, 4)
    graph = bench.graph(transpose(elementwise("add", x, -x), (1, 0)))
    graph = rewrite(graph, [add_to_sub], bench.context)
    bench.same(graph, transpose(x - x, (1, 0)))
