"""Products: labels, splitting and merging, alone and in the loops of recurrent networks."""

from __future__ import annotations

import pytest

from tinygraph.dims import dim
from tinygraph.dtypes import float64
from tinygraph.gradient import grad
from tinygraph.graph import Graph, Type, apply
from tinygraph.ops.arithmetic import Arithmetic, broadcast_to, reduce_
from tinygraph.ops.linalg import Dot, dot, dot_general
from tinygraph.ops.views import Concatenate, Transpose, axis_region, concatenate, slice_, transpose
from tinygraph.passes.canonical import canonical
from tinygraph.passes.dot_labels import RULES
from tinygraph.passes.dots import CARRY, Roles, label_dots, merge_dots, split_dots
from tinygraph.passes.fold import fold
from tinygraph.rewrite.engine import Frame
from tinygraph.scan_module.groups import Groups
from tinygraph.scan_module.op import Scan


def t(x):
    return transpose(x, (1, 0))


# --- labels ---------------------------------------------------------------------------------


def test_transposes_go_into_labels(bench):
    n = bench.size("n", 3)
    x, y = bench.input("x", n, 4), bench.input("y", n, 5)
    graph = bench.run(label_dots, dot(t(x), y), t(dot(t(y), x)), dot(t(x), t(t(y))))
    wanted = dot_general("ki", "kj", "ij", x, y)
    bench.same(graph, wanted, dot_general("ki", "kj", "ji", y, x), wanted)


def test_a_transpose_of_a_product_that_others_read_stays_a_view(bench):
    x, y = bench.input("x", 3, 4), bench.input("y", 4, 5)
    z = dot(x, y)
    graph = bench.run(label_dots, t(z), z)
    assert bench.count(graph, Dot) == 1 and bench.count(graph, Transpose) == 1


def test_the_gradient_of_a_layer_has_no_transposes(bench):
    x, w = bench.input("x", 3, 4), bench.input("w", 4, 5)
    cost = reduce_("sum", dot(x, w).exp(), (0, 1))
    graph = bench.run(label_dots, *grad(cost, [x, w]))
    assert bench.count(graph, Transpose) == 0 and bench.count(graph, Dot) == 3


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("a, b, out, after", [
    ("tik", "tkj", "tij", ("ik", "tkj", "tij")),  # a repeated batch
    ("tik", "kj", "tij", ("ik", "kj", "ij")),  # repeated rows
    ("tik", "tkj", "ij", None),  # repeated summands
])
def test_broadcasts_go_out_of_products(bench, a, b, out, after, flip):
    sizes = {"t": bench.size("T", 6), "i": 3, "k": 4, "j": 5}
    x = bench.input("x", 3, 4)
    y = bench.input("y", *(sizes[c] for c in b))
    spread = broadcast_to(x, (sizes["t"], 3, 4))

    def product(p, q, r, v):
        return dot_general(q, p, r, y, v) if flip else dot_general(p, q, r, v, y)

    graph = bench.run(label_dots, product(a, b, out, spread))
    if after is None:
        summed = reduce_("sum", y, (0,))
        wanted = dot_general("kj", "ik", "ij", summed, x) if flip else dot_general(
            "ik", "kj", "ij", x, summed)
    else:
        wanted = product(*after, x)
        wanted = broadcast_to(wanted, (sizes["t"], 3, 5)) if wanted.ndim == 2 else wanted
    bench.same(graph, wanted)


def test_a_sum_of_batched_products_is_one_product(bench):
    steps, n = bench.size("T", 6), bench.size("n", 3)
    h, dz = bench.input("h", steps, n, 4), bench.input("dz", steps, n, 5)
    graph = bench.run(label_dots, reduce_("sum", dot_general("tnk", "tnj", "tkj", h, dz), (0,)))
    bench.same(graph, dot_general("tnk", "tnj", "kj", h, dz))


def test_a_sum_over_rows_of_a_product(bench):
    x, w = bench.input("x", 3, 4), bench.input("w", 4, 5)
    graph = bench.run(label_dots, reduce_("sum", dot(x, w), (0,)))
    bench.same(graph, dot(reduce_("sum", x, (0,)), w))


# --- merge ----------------------------------------------------------------------------------


def cut(x, axis, *lengths):
    start, out = 0, []
    for n in lengths:
        out.append(slice_(x, axis_region(x, axis, start, n)))
        start += n
    return out


@pytest.mark.parametrize("side", ["left", "right"])
def test_products_of_one_operand_become_one(bench, side):
    n = bench.size("n", 3)
    x = bench.input("x", n, 4)
    u, v = (bench.input(name, 4, k) if side == "left" else bench.input(name, k, n)
            for name, k in (("u", 2), ("v", 5)))
    if side == "left":
        graph = bench.run(merge_dots, dot(x, u), dot(x, v))
        bench.same(graph, *cut(dot(x, concatenate([u, v], 1)), 1, 2, 5))
    else:
        graph = bench.run(merge_dots, dot(u, x), dot(v, x))
        one = dot_general("kj", "ik", "ij", x, concatenate([u, v], 0))
        other = dot_general("ik", "kj", "ij", concatenate([u, v], 0), x)
        halves = [bench.graph(*cut(w, 0, 2, 5)).outputs for w in (one, other)]
        assert graph.outputs in halves


def test_batched_products_of_one_operand(bench):
    x, u, v = (bench.input(name, 6, *dims) for name, dims in (
        ("x", (3, 4)), ("u", (4, 2)), ("v", (4, 5))))
    graph = bench.run(merge_dots, *(dot_general("tik", "tkj", "tij", x, w) for w in (u, v)))
    merged = dot_general("tik", "tkj", "tij", x, concatenate([u, v], 2))
    bench.same(graph, *cut(merged, 2, 2, 5))


def test_results_that_lie_differently(bench):
    x, u, v = bench.input("x", 3, 4), bench.input("u", 4, 2), bench.input("v", 4, 5)
    graph = bench.run(merge_dots, dot(x, u), dot_general("ik", "kj", "ji", x, v))
    a, b = cut(dot(x, concatenate([u, v], 1)), 1, 2, 5)
    bench.same(graph, a, t(b))


def test_products_that_depend_on_each_other_stay(bench):
    h, u = bench.input("h", 3, 4), bench.input("u", 4, 4)
    for _ in range(5):
        h = dot(h, u).exp()
    graph = bench.run(merge_dots, h)
    assert bench.count(graph, Dot) == 5


def test_crossed_groups_make_no_cycle(bench):
    """x.a and x.f(y.b); y.c and y.f(x.d): merging both pairs would close a circle."""
    x, y, a, c = (bench.input(name, 4, 4) for name in "xyac")
    b, d = bench.input("b", 4, 4), bench.input("d", 4, 4)
    graph = bench.run(merge_dots, dot(x, a), dot(x, dot(y, b).sin()), dot(y, c),
                      dot(y, dot(x, d).sin()))
    assert bench.count(graph, Dot) == 4  # x[a|d], y[b|c], and two behind them


def test_a_vector_at_the_top_is_not_worth_copying_matrices(bench):
    x, u, v = bench.input("x", 4), bench.input("u", 4, 2), bench.input("v", 4, 5)
    outputs = dot(x, u), dot(x, v)
    assert bench.run(merge_dots, *outputs).outputs == bench.graph(*outputs).outputs


def test_added_products_become_one(bench):
    n = bench.size("n", 3)
    x, y, u, v, b = (bench.input(name, *dims) for name, dims in (
        ("x", (n, 4)), ("y", (n, 5)), ("u", (4, 6)), ("v", (5, 6)), ("b", (n, 6))))
    graph = bench.run(merge_dots, dot(x, u) + b + dot(y, v))
    bench.same(graph, dot(concatenate([x, y], 1), concatenate([u, v], 0)) + b)


def test_added_products_of_one_matrix_share_it(bench):
    x, y, w = bench.input("x", 3, 4), bench.input("y", 3, 4), bench.input("w", 4, 5)
    bench.same(bench.run(merge_dots, dot(x, w) + dot(y, w)), dot(x + y, w))


def test_a_product_that_is_read_elsewhere_is_not_computed_twice(bench):
    x, y, u, v = (bench.input(name, 4, 4) for name in "xyuv")
    p = dot(x, u)
    graph = bench.run(merge_dots, p + dot(y, v), p.exp())
    assert bench.count(graph, Dot) == 2


def test_the_gradient_of_an_unrolled_loop_is_two_products_wide(bench):
    steps, n, k = 4, 3, 5
    u, w = bench.input("u", k, k), bench.input("w", 2, k)
    xs = [bench.input(f"x{i}", n, 2) for i in range(steps)]
    h = bench.input("h", n, k)
    for x in xs:
        h = (dot(x, w) + dot(h, u)).sin()
    gu, gw = grad(reduce_("sum", h, (0, 1)), [u, w])
    before = bench.count(bench.graph(gu, gw), Dot)
    graph = bench.run([label_dots, canonical, merge_dots], gu, gw, rtol=1e-9)
    # forward: one product per step; backward: one per step but the last; and two gradients
    assert before > bench.count(graph, Dot) <= steps + (steps - 1) + 2


# --- loops ----------------------------------------------------------------------------------


class Cell:
    """An LSTM, written in one of three ways, as a scan over xs with its gradient."""

    def __init__(self, bench, form, batch=True):
        self.bench, self.form = bench, form
        n, self.k, m = (bench.size("n", 3),) if batch else (), 4, 2
        self.rows = n
        self.xs = bench.input("xs", 5, *n, m)
        self.h0, self.c0 = bench.input("h0", *n, self.k), bench.input("c0", *n, self.k)
        if form == "four":
            shapes = [(m, self.k)] * 4 + [(self.k, self.k)] * 4
        elif form == "stacked":
            shapes = [(m, 4 * self.k), (self.k, 4 * self.k)]
        else:
            shapes = [(m + self.k, 4 * self.k)]
        self.weights = [bench.input(f"w{i}", *s) for i, s in enumerate(shapes)]

    def gates(self, x, h, w):
        if self.form == "four":
            return [dot(x, w[i]) + dot(h, w[4 + i]) for i in range(4)]
        if self.form == "stacked":
            z = dot(x, w[0]) + dot(h, w[1])
        else:
            z = dot(concatenate([x, h], x.ndim - 1), w[0])
        return cut(z, z.ndim - 1, *[self.k] * 4)

    def scan(self):
        x = Arithmetic(Type(float64, self.xs.type.dims[1:]))
        h, c = (Arithmetic(v.type) for v in (self.h0, self.c0))
        w = [Arithmetic(v.type) for v in self.weights]
        i, f, g, o = self.gates(x, h, w)
        new_c = f.sigmoid() * c + i.sigmoid() * g.sin()
        new_h = o.sigmoid() * new_c.sin()
        body = Graph((x, h, c, *w), (new_h, new_c, new_h))
        op = Scan(body, Groups(1, 2, len(w), 1), dim(5))
        return apply(op, self.xs, self.h0, self.c0, *self.weights)

    def graph(self):
        """The stack of states, and the gradients of everything."""
        *_, stack = self.scan()
        cost = reduce_("sum", stack * stack, range(stack.ndim))
        return [stack, *grad(cost, [self.xs, self.h0, *self.weights])]


def in_loop(op):
    """How many products of a loop depend on carries and reach carries, and how many it has."""
    body = op.body
    roles = Roles(Frame(body, op))
    kinds = [roles.kind(v.outputs[0]) for v in body.nodes() if isinstance(v.op, Dot)]
    return sum(kind == (CARRY, True) for kind in kinds), len(kinds)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("form", ["four", "stacked", "concatenated"])
def test_an_lstm_has_one_product_per_step_each_way(bench, form, batch):
    cell = Cell(bench, form, batch)
    graph = bench.run([canonical, fold, canonical, label_dots, split_dots, canonical, merge_dots,
                       canonical], *cell.graph(), rtol=1e-9)
    scans = [node for node in graph.nodes() if isinstance(node.op, Scan) and not node.op.lazy]
    forward, backward = scans
    assert in_loop(forward.op) == (1, 2)  # h.U; x.W can leave
    carried, total = in_loop(backward.op)
    assert carried == 1  # dz.U'; the others, dz.W', x'dz, h'dz, can leave
    assert total <= 4


def test_a_split_leaves_what_is_carried_together(bench):
    """A concatenation of two carries is not split."""
    xs, h0, c0, w = (bench.input(name, *dims) for name, dims in (
        ("xs", (4, 3, 2)), ("h0", (3, 2)), ("c0", (3, 2)), ("w", (4, 2))))
    x, h, c = (Arithmetic(Type(float64, (dim(3), dim(2)))) for _ in range(3))
    u = Arithmetic(w.type)
    body = Graph((x, h, c, u), (dot(concatenate([h, c], 1), u), h * x))
    graph = bench.run(split_dots, *apply(Scan(body, Groups(1, 2, 1, 0), dim(4)), xs, h0, c0, w))
    (new,) = bench.bodies(graph)
    assert bench.count(new, Dot) == 1 and bench.count(new, Concatenate) == 1


def test_nothing_is_split_at_the_top(bench):
    x, h, w = bench.input("x", 3, 2), bench.input("h", 3, 4), bench.input("w", 6, 5)
    value = dot(concatenate([x, h], 1), w)
    assert bench.run(split_dots, value).outputs == bench.graph(value).outputs


def test_every_rule_is_documented():
    assert all("-->" in r.doc for r in (*RULES, label_dots, split_dots, merge_dots))
