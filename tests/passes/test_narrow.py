"""narrow: every rule on the graph it is for, and on the one next to it."""

from __future__ import annotations

import numpy as np
import pytest

from tinygraph.dims import dim
from tinygraph.dtypes import bool_, float32
from tinygraph.gradient import grad
from tinygraph.ops.arithmetic import (
    Elemwise,
    Reduce,
    broadcast_to,
    cast,
    constant,
    reduce_,
)
from tinygraph.ops.linalg import Dot, dot, dot_general
from tinygraph.ops.views import (
    Region,
    Reshape,
    Slice,
    Squeeze,
    Unslice,
    axis_region,
    reshape,
    reverse,
    row,
    slice_,
    squeeze,
    transpose,
    unslice,
)
from tinygraph.passes import canonical_views
from tinygraph.passes.narrow import RESHAPE_RULES, narrow, pieces
from tinygraph.rewrite.engine import rule_pass

reshapes = rule_pass("reshapes", "reshapes go towards the outputs",
                     (*canonical_views.RULES, *RESHAPE_RULES))


def part(x, axis, start, length, step=1):
    return slice_(x, axis_region(x, axis, start, length, step))


def pad(g, n, start, axis=0, step=1):
    """Zeros of size n along ``axis`` with g from ``start`` on."""
    dims = tuple(dim(n) if k == axis else d for k, d in enumerate(g.type.dims))
    starts = tuple(dim(start) if k == axis else dim(0) for k in range(g.ndim))
    steps = tuple(step if k == axis else 1 for k in range(g.ndim))
    return unslice(g, dims, Region(starts, g.type.dims, steps))


def largest(graph, *kinds):
    """The number of elements (all unknown sizes 100) of the largest result of such an op."""
    out = [0]
    for node in graph.nodes():
        if isinstance(node.op, kinds):
            out += [np.prod([d.substitute(lambda s: dim(100)).const for d in v.type.dims])
                    for v in node.outputs]
    return max(out)


@pytest.fixture
def sizes(bench):
    return bench.size("b", 3), bench.size("t", 5)


# --- reshape --------------------------------------------------------------------------------


def test_pieces(sizes):
    b, t = sizes
    one, two, four = dim(1), dim(2), dim(4)
    assert pieces((b, t, four), (b * t, four)) == [([0, 1], [0]), ([2], [1])]
    assert pieces((b, one, t), (b * t, one)) == [([0, 2], [0])]
    assert pieces((four, b), (two, two, b)) == [([0], [0, 1]), ([1], [2])]
    assert pieces((b, t), (t, b)) == [([0, 1], [0, 1])]
    assert pieces((), (one, one)) == []
    assert pieces((b, t), (b, b)) is None
    assert pieces((b, dim(0)), (dim(0), b)) is None


def test_dot_of_merged_axes(bench, sizes):
    b, t = sizes
    x, w = bench.input("x", b, t, 4), bench.input("w", 4, 6)
    graph = bench.run(reshapes, dot(reshape(x, (b * t, 4)), w),
                      dot(transpose(w, (1, 0)), transpose(reshape(x, (b * t, 4)), (1, 0))),
                      dot_general("kj", "ik", "ij", w, reshape(x, (b * t, 4))))
    assert bench.journal.count("dot_of_reshape") == 2  # the transposed one waits for its labels
    bench.same(graph, reshape(dot(x, w), (b * t, 6)),
               dot(transpose(w, (1, 0)), transpose(reshape(x, (b * t, 4)), (1, 0))),
               reshape(dot_general("kj", "itk", "itj", w, x), (b * t, 6)))


def test_dot_over_merged_axes(bench, sizes):
    b, t = sizes
    x, g = bench.input("x", b, t, 4), bench.input("g", b, t, 6)
    y = bench.input("y", b * t, 6)
    merged = reshape(x, (b * t, 4))
    wanted = dot_general("nk", "nj", "kj", merged, y)
    value = dot_general("nk", "nj", "kj", merged, reshape(g, (b * t, 6)))
    graph = bench.run(reshapes, value, wanted)
    bench.same(graph, dot_general("btk", "btj", "kj", x, g), wanted)


def test_dot_of_a_split_axis_stays(bench):
    x, w = bench.input("x", 6, 4), bench.input("w", 4, 5)
    value = dot(reshape(x, (2, 3, 4)), w)
    bench.same(bench.run(reshapes, value), value)


def test_elementwise_of_reshapes(bench, sizes):
    b, t = sizes
    x, y = bench.input("x", b, t, 4), bench.input("y", b, t, 4)
    bias = bench.input("bias", 4)
    value = ((reshape(x, (b * t, 4)) + bias) * reshape(y, (b * t, 4)) + 1).exp()
    graph = bench.run(reshapes, value)
    bench.same(graph, reshape(((x + bias) * y + 1).exp(), (b * t, 4)))
    assert bench.journal.count("elementwise_of_reshape") == 4


def test_elementwise_of_reshapes_that_differ_by_ones(bench, sizes):
    b, t = sizes
    x, y = bench.input("x", b, t), bench.input("y", b, t, 1)
    bias = bench.input("bias", 1)
    graph = bench.run(reshapes, reshape(x, (b * t, 1)) * (reshape(y, (b * t, 1)) + bias))
    assert bench.count(graph, Reshape) == 1 and isinstance(graph.outputs[0].node.op, Reshape)


def test_elementwise_with_another_operand_stays(bench, sizes):
    b, t = sizes
    x, y, z = bench.input("x", b, t), bench.input("y", b * t), bench.input("z", t, b)
    values = (reshape(x, (b * t,)) + y, reshape(x, (b * t,)) * reshape(z, (b * t,)))
    bench.same(bench.run(reshapes, *values), *values)


def test_sum_over_merged_axes(bench, sizes):
    b, t = sizes
    x = bench.input("x", b, t, 4)
    merged = reshape(x, (b * t, 4))
    graph = bench.run(reshapes, reduce_("sum", merged, [0]), reduce_("max", merged, [1]))
    bench.same(graph, reduce_("sum", x, [0, 1]), reshape(reduce_("max", x, [2]), (b * t,)))


# --- slice ----------------------------------------------------------------------------------


def test_slice_goes_up(bench, sizes):
    b, t = sizes
    x, w, bias = bench.input("x", t, b, 4), bench.input("w", 4, 6), bench.input("bias", 6)
    value = part((dot(x, w) + bias).exp(), 0, t - 1, 1)
    graph = bench.run(narrow, value)
    bench.same(graph, (dot(part(x, 0, t - 1, 1), w) + bias).exp())


def test_slice_of_what_others_read_stays(bench, sizes):
    b, t = sizes
    x, y = bench.input("x", t, b), bench.input("y", b, 4)
    z, p = x.exp(), dot(x, y)
    values = (part(z, 0, 0, 1), reduce_("sum", z, [0, 1]), part(p, 0, 0, 1), p.exp())
    bench.same(bench.run(narrow, *values), *values)


def test_slices_that_are_no_smaller_stay(bench, sizes):
    b, t = sizes
    x = bench.input("x", t, b)
    value = reverse(x.exp())
    bench.same(bench.run(narrow, value), value)


def test_slice_of_dot_cuts_both(bench):
    x, y = bench.input("x", 3, 4, 5), bench.input("y", 3, 5, 6)
    value = dot_general("bik", "bkj", "bij", x, y)
    region = Region(tuple(map(dim, (1, 0, 2))), tuple(map(dim, (1, 4, 3))), (1, 1, 1))
    graph = bench.run(narrow, slice_(value, region))
    corner = Region(tuple(map(dim, (1, 0, 2))), tuple(map(dim, (1, 5, 3))), (1, 1, 1))
    bench.same(graph, dot_general("bik", "bkj", "bij", part(x, 0, 1, 1), slice_(y, corner)))


def test_slice_of_sum_and_views(bench, sizes):
    b, t = sizes
    x, y = bench.input("x", t, b, 4), bench.input("y", t, 1, 6)
    graph = bench.run(
        narrow, part(reduce_("max", x, [2]), 0, 1, 2), part(squeeze(y, [1]), 0, 1, 2),
        part(transpose(x, (1, 0, 2)), 1, 1, 2), part(reshape(x, (t, b * 4)), 0, 1, 2),
        part(reshape(x, (t * b, 4)), 0, 1, 2), part(x, 0, 2, 1, -1))
    short = part(x, 0, 1, 2)
    bench.same(graph, reduce_("max", short, [2]), squeeze(part(y, 0, 1, 2), [1]),
               transpose(short, (1, 0, 2)), reshape(short, (2, b * 4)),
               part(reshape(x, (t * b, 4)), 0, 1, 2), part(x, 0, 2, 1))


# --- zeros around a part --------------------------------------------------------------------


def test_products_with_zeros(bench, sizes):
    b, t = sizes
    g, h, y = bench.input("g", 1, b), bench.input("h", 1, b), bench.input("y", t, b, positive=True)
    padded, other, cut = pad(g, t, t - 1), pad(h, t, t - 1), part(y, 0, t - 1, 1)
    graph = bench.run(narrow, padded * y, y * padded, padded / y, -padded, cast(padded, float32),
                      padded - other, (y > 1).switch(padded, 0), (y > 1).switch(0, padded),
                      (y > 1).switch(padded, other))
    inner = [g * cut, cut * g, g / cut, -g, cast(g, float32), g - h, (cut > 1).switch(g, 0),
             (cut > 1).switch(0, g), (cut > 1).switch(g, h)]
    bench.same(graph, *(pad(v, t, t - 1) for v in inner))


def test_sums_with_zeros_stay(bench, sizes):
    b, t = sizes
    g, y = bench.input("g", 1, b), bench.input("y", t, b, positive=True)
    values = (pad(g, t, 0) + y, pad(g, t, 0) + pad(g, t, t - 1), y / pad(g, t, 0) > 1,
              (y > 1).switch(pad(g, t, 0), 1))
    bench.same(bench.run(narrow, *values), *values)


def test_product_with_repeated_zeros(bench, sizes):
    b, t = sizes
    g, y = bench.input("g", b, 1), bench.input("y", b, t, 4)
    spread = broadcast_to(pad(g, t, 2, axis=1), (b, t, 4), (0, 1))
    graph = bench.run(narrow, spread * y, spread)
    inner = broadcast_to(g, (b, 1, 4), (0, 1)) * part(y, 1, 2, 1)
    bench.same(graph, pad(inner, t, 2, axis=1), spread)


def test_dot_of_zeros(bench, sizes):
    b, t = sizes
    g, w, x = bench.input("g", 1, b, 4), bench.input("w", 4, 6), bench.input("x", t, b, 6)
    padded = pad(g, t, t - 1)
    graph = bench.run(narrow, dot(padded, w), dot_general("tbi", "tbj", "ij", padded, x),
                      dot_general("tbj", "tbi", "tij", x, padded))
    cut = part(x, 0, t - 1, 1)
    bench.same(graph, pad(dot(g, w), t, t - 1), dot_general("tbi", "tbj", "ij", g, cut),
               pad(dot_general("tbj", "tbi", "tij", cut, g), t, t - 1))


def test_views_of_zeros(bench, sizes):
    b, t = sizes
    g, y = bench.input("g", 2, b, 4), bench.input("y", 2, 1)
    padded = pad(g, t, 1)
    graph = bench.run(
        narrow, transpose(padded, (1, 0, 2)), squeeze(pad(y, t, 1), [1]),
        broadcast_to(padded, (t, 1, b, 4), (0, 2, 3)), reshape(padded, (t, b * 4)),
        reduce_("sum", padded, [1]), reverse(padded), reshape(padded, (t * b, 4)))
    bench.same(
        graph, pad(transpose(g, (1, 0, 2)), t, 1, axis=1), pad(squeeze(y, [1]), t, 1),
        pad(broadcast_to(g, (2, 1, b, 4), (0, 2, 3)), t, 1), pad(reshape(g, (2, b * 4)), t, 1),
        pad(reduce_("sum", g, [1]), t, 1), pad(reverse(g), t, t - 3),
        reshape(padded, (t * b, 4)))


def test_reversed_zeros_with_steps(bench):
    g = bench.input("g", 2, 3)
    graph = bench.run(narrow, reverse(pad(g, 7, 1, step=3)), reverse(pad(g, 7, 5, step=-2)),
                      reverse(pad(part(g, 0, 0, 1), 7, 2)))
    bench.same(graph, pad(reverse(g), 7, 2, step=3), pad(reverse(g), 7, 3, step=-2),
               pad(part(g, 0, 0, 1), 7, 4))


def test_graphs_without_parts_are_left_alone(bench, sizes):
    b, t = sizes
    x, w = bench.input("x", b, t, 4), bench.input("w", 4, 6)
    values = (dot(reshape(x, (b * t, 4)), w), part(x, 0, 0, 1))
    bench.same(bench.run(narrow, *values), *values)
    assert not bench.journal.entries


# --- together -------------------------------------------------------------------------------


def dense(x, w, bias, b, t):
    """The add task's last layers: all steps through a dense layer, then the last step."""
    merged = reshape(x, (b * t, 4))
    return row(reshape((dot(merged, w) + bias).sin(), (b, t)), t - 1, axis=1)


def test_dense_layer_of_the_last_step(bench, sizes):
    b, t = sizes
    one, two = bench.input("one", t, b, 4), bench.input("two", t, b, 4)
    w, bias, goal = bench.input("w", 4, 1), bench.input("bias", 1), bench.input("goal", b)
    x = transpose(one, (1, 0, 2)) + transpose(reverse(two), (1, 0, 2))
    error = dense(x, w, bias, b, t) - goal
    cost = reduce_("sum", error * error, [0])
    graph = bench.run(narrow, cost, *grad(cost, [one, two, w, bias]))
    assert bench.count(graph, Reshape) == 0 and bench.count(graph, Unslice) == 2
    assert largest(graph, Unslice) == 100 * 100 * 4
    assert largest(graph, Elemwise, Dot, Reduce, Slice, Squeeze) == 100 * 4
    for v in graph.outputs[1:3]:
        assert isinstance(v.node.op, Unslice)


def test_zero_times_infinity_is_no_gradient(bench):
    x = bench.input("x", 3)
    with np.errstate(divide="ignore"):
        g = grad(reduce_("sum", part(1 / (x - x + constant(np.arange(3.0))), 0, 1, 2), [0]), x)
        graph = narrow(bench.graph(g), bench.context)
        assert not np.isfinite(bench.values([g])[0]).all()
        assert np.isfinite(bench.values(graph.outputs)[0]).all()


def test_conditions_are_cut(bench, sizes):
    b, t = sizes
    c, x = bench.input("c", t, b, dtype=bool_), bench.input("x", t, b)
    graph = bench.run(narrow, part(c.switch(x.exp(), 0), 0, 0, 1))
    assert largest(graph, Elemwise) == 100
    assert largest(bench.graph(part(c.switch(x.exp(), 0), 0, 0, 1)), Elemwise) == 100 * 100
