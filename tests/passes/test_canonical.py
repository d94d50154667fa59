"""canonical: every rule on the graph it is for, and on the one next to it."""

from __future__ import annotations

import numpy as np
import pytest

from tinygraph.dims import dim
from tinygraph.dtypes import bool_, float32, float64, int8, int32, int64
from tinygraph.gradient import grad
from tinygraph.graph import apply
from tinygraph.ops.arithmetic import (
    Broadcast,
    Elemwise,
    broadcast_to,
    cast,
    constant,
    elementwise,
    full,
    reduce_,
)
from tinygraph.ops.linalg import dot
from tinygraph.ops.sizes import size_value
from tinygraph.ops.views import (
    Concatenate,
    Region,
    SetSlice,
    Slice,
    Unslice,
    axis_region,
    concatenate,
    reshape,
    reverse,
    slice_,
    squeeze,
    transpose,
    unslice,
)
from tinygraph.passes.canonical import RULES, canonical
from tinygraph.passes.fold import fold

# --- arithmetic -----------------------------------------------------------------------------

UNARY_CASES = {
    "x + 0": (lambda x: x + 0, lambda x: x),
    "0 + x": (lambda x: 0 + x, lambda x: x),
    "x - 0": (lambda x: x - 0, lambda x: x),
    "0 - x": (lambda x: 0 - x, lambda x: -x),
    "x * 1": (lambda x: x * 1, lambda x: x),
    "1 * x": (lambda x: 1 * x, lambda x: x),
    "x * -1": (lambda x: x * -1, lambda x: -x),
    "x / 1": (lambda x: x / 1, lambda x: x),
    "x / -1": (lambda x: x / -1, lambda x: -x),
    "x / 4": (lambda x: x / 4, lambda x: x * 0.25),
    "x / 3 stays": (lambda x: x / 3, lambda x: x / 3),
    "x * 0 stays (nan)": (lambda x: x * 0, lambda x: x * 0),
    "neg neg": (lambda x: elementwise("neg", -x), lambda x: x),
    "2 * x": (lambda x: 2 * x, lambda x: x * 2),
    "max(x, x)": (lambda x: elementwise("maximum", x, x), lambda x: x),
    "abs(-x)": (lambda x: abs(-x), lambda x: abs(x)),
    "abs(abs(x))": (lambda x: abs(abs(x)), lambda x: abs(x)),
    "a row of ones": (lambda x: x * constant(np.ones(3)), lambda x: x),
    "switch(c, x, x)": (lambda x: (x > 0.5).switch(x, x), lambda x: x),
    "switch(~c, x, y)": (lambda x: (~(x > 0.5)).switch(x, x.exp()),
                         lambda x: (x > 0.5).switch(x.exp(), x)),
    "cast up and down": (lambda x: cast(cast(cast(x, float32), float64), float32),
                         lambda x: cast(x, float32)),
    "a lossy cast stays": (lambda x: cast(cast(x, float32), float64),
                           lambda x: cast(cast(x, float32), float64)),
}


@pytest.mark.parametrize("name", UNARY_CASES)
def test_one_operand(bench, name):
    before, after = UNARY_CASES[name]
    x = bench.input("x", 3)
    bench.same(bench.run(canonical, before(x)), after(x))


BINARY_CASES = {
    "x + -y": (lambda x, y: x + -y, lambda x, y: x - y),
    "-x + y": (lambda x, y: -x + y, lambda x, y: y - x),
    "x - -y": (lambda x, y: x - -y, lambda x, y: x + y),
    "-(x - y)": (lambda x, y: -(x - y), lambda x, y: y - x),
    "-x * -y": (lambda x, y: -x * -y, lambda x, y: x * y),
    "-x / -y": (lambda x, y: -x / -y, lambda x, y: x / y),
    "x*y + y*x": (lambda x, y: (x * y).exp() - (y * x).sin(),
                  lambda x, y: (x * y).exp() - (x * y).sin()),
}


@pytest.mark.parametrize("name", BINARY_CASES)
def test_two_operands(bench, name):
    before, after = BINARY_CASES[name]
    x, y = bench.input("x", 3), bench.input("y", 3)
    bench.same(bench.run(canonical, before(x, y)), after(x, y))


def test_zero_that_widens_stays(bench):
    n, m = bench.size("n", 3), bench.size("m", 3)
    x, y = bench.input("x", n), bench.input("y", m)
    value = y * (x + full(0.0, (3,), float64))  # the sum has the known size 3, x has not
    graph = bench.run(canonical, value)
    assert graph.outputs[0].type == value.type


def test_integers_keep_their_rules(bench):
    x = bench.input("x", 3, dtype=int32)
    big = bench.input("big", 3, dtype=int64)
    graph = bench.run(canonical, cast(cast(x, int64), int8), cast(cast(big, float64), float32),
                      cast(cast(x, float64), float32))
    bench.same(graph, cast(x, int8), cast(cast(big, float64), float32), cast(x, float32))


def test_logic_with_constants(bench):
    c = bench.input("c", 3) > 0
    yes, no = full(True, (3,), bool_), full(False, (3,), bool_)
    ops = [elementwise(name, c, k) for name in ("and", "or") for k in (yes, no)]
    bench.same(bench.run(canonical, *ops), c, no, yes, c)


def test_switch_of_a_known_condition(bench):
    x, y = bench.input("x", 3), bench.input("y", 3)
    graph = bench.run(canonical, full(True, (3,), bool_).switch(x, y),
                      full(False, (3,), bool_).switch(x, y))
    bench.same(graph, x, y)


# --- views ----------------------------------------------------------------------------------


def view_cases():
    part = Region(tuple(map(_dim, (1, 0))), tuple(map(_dim, (2, 4))), (1, 1))
    return {
        "x.T.T": (lambda x: transpose(transpose(x, (1, 0)), (1, 0)), lambda x: x),
        "transpose of broadcast": (
            lambda x: transpose(broadcast_to(x, (5, 3, 4)), (2, 0, 1)),
            lambda x: broadcast_to(x, (4, 5, 3), (2, 0))),
        "broadcast of broadcast": (
            lambda x: broadcast_to(broadcast_to(x, (5, 3, 4)), (2, 5, 3, 4)),
            lambda x: broadcast_to(x, (2, 5, 3, 4))),
        "broadcast of transpose": (
            lambda x: broadcast_to(transpose(x, (1, 0)), (5, 4, 3)),
            lambda x: broadcast_to(x, (5, 4, 3), (2, 1))),
        "broadcast that transposes": (
            lambda x: broadcast_to(x, (4, 3), (1, 0)), lambda x: transpose(x, (1, 0))),
        "squeeze of new axis": (
            lambda x: squeeze(broadcast_to(x, (3, 1, 4), (0, 2)), [1]), lambda x: x),
        "squeeze of squeeze": (
            lambda x: squeeze(squeeze(reshape(x, (1, 12, 1)), [0]), [1]),
            lambda x: reshape(x, (12,))),
        "reshape of reshape": (
            lambda x: reshape(reshape(x, (12,)), (2, 6)), lambda x: reshape(x, (2, 6))),
        "reshape and back": (lambda x: reshape(reshape(x, (12,)), (3, 4)), lambda x: x),
        "reshape to ones": (
            lambda x: reshape(x, (3, 1, 4)), lambda x: broadcast_to(x, (3, 1, 4), (0, 2))),
        "slice of slice": (
            lambda x: slice_(slice_(x, axis_region(x, 1, 3, 4, -1)),
                             Region(part.starts, tuple(map(_dim, (2, 2))), (1, 1))),
            lambda x: slice_(x, Region(tuple(map(_dim, (1, 3))), tuple(map(_dim, (2, 2))),
                                       (1, -1)))),
        "reverse of reverse": (lambda x: reverse(reverse(x)), lambda x: x),
        "whole slice": (
            lambda x: apply(Slice(axis_region(x, 0, 0, 3)), x)[0], lambda x: x),
        "slice of unslice": (
            lambda x: slice_(unslice(x, _dims(7, 4), axis_region(x, 0, 2, 3)),
                             axis_region(x, 0, 2, 3)), lambda x: x),
        "slice inside unslice": (
            lambda x: slice_(unslice(x, _dims(7, 4), axis_region(x, 0, 2, 3)),
                             axis_region(x, 0, 3, 2)),
            lambda x: slice_(x, axis_region(x, 0, 1, 2))),
        "slice beside unslice": (
            lambda x: slice_(unslice(x, _dims(7, 4), axis_region(x, 0, 2, 3)),
                             axis_region(x, 0, 5, 2)), lambda x: full(0, (2, 4), float64)),
        "slice across unslice stays": (
            lambda x: slice_(unslice(x, _dims(7, 4), axis_region(x, 0, 2, 3)),
                             axis_region(x, 0, 1, 3)),
            lambda x: slice_(unslice(x, _dims(7, 4), axis_region(x, 0, 2, 3)),
                             axis_region(x, 0, 1, 3))),
        "slice of a number": (
            lambda x: x + slice_(full(2.0, (9, 4), float64), axis_region(x, 0, 5, 3)),
            lambda x: x + full(2.0, (3, 4), float64)),
        "slice of broadcast": (
            lambda x: slice_(broadcast_to(x, (5, 3, 4)), Region(
                _dims(2, 1, 0), _dims(2, 2, 4), (1, 1, 1))),
            lambda x: broadcast_to(slice_(x, part), (2, 2, 4))),
        "unslice of zero": (
            lambda x: x + unslice(full(0.0, (1, 4), float64), _dims(3, 4), axis_region(x, 0, 1, 1)),
            lambda x: x),
        "unslice of unslice": (
            lambda x: unslice(unslice(x, _dims(7, 4), axis_region(x, 0, 1, 3, 2)), _dims(9, 4),
                              axis_region(x, 0, 2, 7)),
            lambda x: unslice(x, _dims(9, 4), axis_region(x, 0, 3, 3, 2))),
        "setslice of all": (
            lambda x: apply(SetSlice(axis_region(x, 0, 0, 3)), x, x.exp())[0],
            lambda x: x.exp()),
        "slice of setslice": (
            lambda x: slice_(apply(SetSlice(part), x, slice_(x, part).exp())[0], part),
            lambda x: slice_(x, part).exp()),
    }


def _dim(n):
    return dim(n)


def _dims(*sizes):
    return tuple(map(_dim, sizes))


@pytest.mark.parametrize("name", view_cases())
def test_views(bench, name):
    before, after = view_cases()[name]
    x = bench.input("x", 3, 4)
    bench.same(bench.run([canonical, fold, canonical], before(x)), after(x))


def test_squeeze_and_new_axis_cancel(bench):
    x = bench.input("x", 3, 1, 4)
    graph = bench.run(canonical, broadcast_to(squeeze(x, [1]), (3, 1, 4), (0, 2)),
                      broadcast_to(squeeze(x, [1]), (3, 5, 4), (0, 2)))
    bench.same(graph, x, broadcast_to(x, (3, 5, 4)))


def test_slices_of_concatenate(bench):
    n = bench.size("n", 3)
    parts = [bench.input(name, 2, d) for name, d in (("x", n), ("y", 4), ("z", n))]
    joined = concatenate(parts, 1)

    def cut(start, length):
        return slice_(joined, axis_region(joined, 1, start, length))

    graph = bench.run(canonical, cut(n, 4), cut(0, n + 4), cut(n + 5, 2), cut(1, n + 4))
    x, y, z = parts
    assert graph.outputs[0] is y
    bench.same(graph, y, concatenate([x, y], 1), slice_(z, axis_region(z, 1, 1, 2)),
               cut(1, n + 4))


def test_concatenate(bench):
    n = bench.size("n", 3)
    x, y, e = bench.input("x", n), bench.input("y", 4), bench.input("e", 0)
    zero = full(0.0, (2,), float64)
    halves = [slice_(x, axis_region(x, 0, 0, 1)), slice_(x, axis_region(x, 0, 1, n - 1))]
    graph = bench.run(canonical, concatenate([concatenate([x, y], 0), e, y], 0),
                      concatenate(halves, 0), concatenate([zero, zero], 0) + y,
                      apply(Concatenate(0), x)[0])
    bench.same(graph, concatenate([x, y, y], 0), x, y, x)


# --- reductions -----------------------------------------------------------------------------


def reduce_cases():
    def two(x):
        return broadcast_to(x, (5, 3, 4))
    return {
        "sum of zero": (lambda x: x + reduce_("sum", full(0.0, (3, 4, 7), float64), (2,)),
                        lambda x: x),
        "sum of sum": (lambda x: reduce_("sum", reduce_("sum", x, (1,)), (0,)),
                       lambda x: reduce_("sum", x, (0, 1))),
        "max of max": (lambda x: reduce_("max", reduce_("max", x, (0,)), (0,)),
                       lambda x: reduce_("max", x, (0, 1))),
        "sum over an axis of one": (
            lambda x: reduce_("sum", reshape(x, (3, 1, 4)), (0, 1)),
            lambda x: reduce_("sum", x, (0,))),
        "sum of transpose": (lambda x: reduce_("sum", transpose(x, (1, 0)), (0,)),
                             lambda x: reduce_("sum", x, (1,))),
        "sum of all of a reshape": (lambda x: reduce_("sum", reshape(x, (6, 2)), (0, 1)),
                                    lambda x: reduce_("sum", x, (0, 1))),
        "sum over copies": (lambda x: reduce_("sum", two(x), (0,)), lambda x: x * 5.0),
        "sum over copies and rows": (lambda x: reduce_("sum", two(x), (0, 2)),
                                     lambda x: reduce_("sum", x, (1,)) * 5.0),
        "max over copies": (lambda x: reduce_("max", two(x), (0, 1)),
                            lambda x: reduce_("max", x, (0,))),
        "sum, copies left": (lambda x: reduce_("sum", two(x), (1,)),
                             lambda x: reduce_("sum", two(x), (1,))),
        "sum of stretched": (
            lambda x: reduce_("sum", broadcast_to(reduce_("max", x, (0,)), (9, 4)), (0, 1)),
            lambda x: reduce_("sum", reduce_("max", x, (0,)), (0,)) * 9.0),
        "sum of unslice": (
            lambda x: reduce_("sum", unslice(x, _dims(7, 4), axis_region(x, 0, 2, 3)), (0, 1)),
            lambda x: reduce_("sum", x, (0, 1))),
        "sum of unslice, axis left": (
            lambda x: reduce_("sum", unslice(x, _dims(7, 4), axis_region(x, 0, 2, 3)), (1,)),
            lambda x: unslice(reduce_("sum", x, (1,)), _dims(7), Region(
                _dims(2), _dims(3), (1,)))),
        "sum of neg": (lambda x: reduce_("sum", -x, (0,)), lambda x: -reduce_("sum", x, (0,))),
        "dot with zero": (lambda x: x + dot(full(0.0, (3, 7), float64), full(1.0, (7, 4), float64)),
                          lambda x: x),
    }


@pytest.mark.parametrize("name", reduce_cases())
def test_reductions(bench, name):
    before, after = reduce_cases()[name]
    x = bench.input("x", 3, 4)
    bench.same(bench.run(canonical, before(x)), after(x))


def test_a_sum_over_copies_uses_the_size_of_the_run(bench):
    n = bench.size("n", 5)
    x = bench.input("x", 3)
    total = reduce_("sum", broadcast_to(x, (n, 3)), (0,))
    bench.same(bench.run(canonical, total), x * cast(size_value(n), float64))


# --- sums that tile -------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1), (3, 2, 1, 0)])
def test_parts_that_tile_an_axis_become_concatenate(bench, order):
    n = bench.size("n", 5)
    z, other = bench.input("z", n, 12), bench.input("other", n, 12)
    gates = [bench.input(f"g{i}", n, 3) for i in range(4)]
    parts = [unslice(g.exp(), z.type.dims, axis_region(z, 1, 3 * i, 3))
             for i, g in enumerate(gates)]
    total = parts[order[0]] + parts[order[1]] + other + parts[order[2]] + parts[order[3]]
    graph = bench.run(canonical, total)
    bench.same(graph, other + concatenate([g.exp() for g in gates], 1))


def test_the_gradient_of_a_stacked_gate_matrix_is_a_concatenate(bench):
    n = bench.size("n", 2)
    z = bench.input("z", n, 12)
    i, f, c, o = (slice_(z, axis_region(z, 1, 3 * k, 3)) for k in range(4))
    cost = reduce_("sum", (o * f * c.sin() + i * o), (0, 1))
    graph = bench.run([canonical, fold, canonical], grad(cost, z))
    assert bench.count(graph, Unslice) == 0 and bench.count(graph, Concatenate) == 1


def test_parts_that_leave_a_rest_become_one_part(bench):
    x, y = bench.input("x", 2), bench.input("y", 3)
    total = (unslice(y, _dims(9), axis_region(y, 0, 3, 3))
             + unslice(x, _dims(9), axis_region(x, 0, 1, 2)))
    graph = bench.run(canonical, total)
    bench.same(graph, unslice(concatenate([x, y], 0), _dims(9), Region(
        _dims(1), _dims(5), (1,))))


def test_parts_of_one_place_are_added(bench):
    x, y = bench.input("x", 2), bench.input("y", 2)
    r = axis_region(x, 0, 3, 2)
    graph = bench.run(canonical, unslice(x, _dims(9), r) + unslice(y, _dims(9), r))
    bench.same(graph, unslice(x + y, _dims(9), r))


def test_parts_that_overlap_stay(bench):
    x, y = bench.input("x", 2), bench.input("y", 3)
    total = (unslice(x, _dims(9), axis_region(x, 0, 3, 2))
             + unslice(y, _dims(9), axis_region(y, 0, 3, 3)))
    bench.same(bench.run(canonical, total), total)


def test_tiles_in_two_directions(bench):
    z = bench.input("z", 4, 6)
    parts, total = {}, None
    for a in (0, 2):
        for b in (0, 3):
            x = parts[a, b] = bench.input(f"x{a}{b}", 2, 3)
            term = unslice(x, z.type.dims, Region(_dims(a, b), _dims(2, 3), (1, 1)))
            total = term if total is None else total + term
    graph = bench.run(canonical, total)
    assert bench.count(graph, Unslice) == 0 and bench.count(graph, Elemwise) == 0


def test_a_hundred_rows_in_one_concatenate(bench):
    x = bench.input("x", 100, 3)
    rows = [slice_(x, axis_region(x, 0, t, 1)) for t in range(100)]
    cost = reduce_("sum", sum((r.exp() for r in rows), start=rows[0]), (0, 1))
    graph = bench.run(canonical, grad(cost, x))
    assert bench.count(graph, Unslice) == 0


# --- the table ------------------------------------------------------------------------------


def test_every_rule_is_documented_and_named_once():
    names = [r.name for r in RULES]
    assert len(set(names)) == len(names)
    assert all("-->" in r.doc for r in RULES)


def test_random_constants_broadcast_alike(bench):
    x = bench.input("x", 2, 3)
    graph = bench.run(canonical, x * constant(np.full((1, 1), 2.0)), x * 2.0,
                      x * constant(np.full((2, 3), 2.0)))
    assert graph.outputs[0] is graph.outputs[1] is graph.outputs[2]
    assert isinstance(graph.outputs[0].node.inputs[1].node.op, Broadcast)
