"""narrow: compute only what is read.

A dense layer on all steps of a sequence, of which the last step alone is read, is computed on
the last step.  Three movements do it: reshapes go towards the outputs, so that the axis of time
is seen again; slices go towards the inputs; zeros around a part (the gradient of a slice) go
towards the outputs.  A product with such a zero is zero, whatever the other factor is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygraph.dims import Dim, dim
from tinygraph.graph import Graph, Node, Value, apply, subgraphs
from tinygraph.ops.arithmetic import Broadcast, Elemwise, Reduce, broadcast_to, reduce_
from tinygraph.ops.linalg import Dot, dot_general
from tinygraph.ops.sizes import Iota
from tinygraph.ops.views import (
    Region,
    Reshape,
    Slice,
    Squeeze,
    Transpose,
    Unslice,
    reshape,
    slice_,
    squeeze,
    transpose,
    unslice,
)
from tinygraph.passes import canonical_reduce, canonical_views
from tinygraph.passes.scan_last import slice_of_transpose
from tinygraph.rewrite.engine import Context, Pass, rewrite, rule
from tinygraph.rewrite.pattern import fitting, is_zero, made_by, operands

ROUNDS = 12  # of rules that ask for users: one per value that is read in several places

Piece = tuple[list[int], list[int]]  # axes before and after a reshape that hold one another

# --- reshape --------------------------------------------------------------------------------


def pieces(before: Sequence[Dim], after: Sequence[Dim]) -> list[Piece] | None:
    """The shortest runs of axes that a reshape turns into one another, without axes of size 1;
    None where the sizes do not show them."""
    if any(d == 0 for d in (*before, *after)):
        return None
    left = [k for k, d in enumerate(before) if d != 1]
    right = [k for k, d in enumerate(after) if d != 1]
    ends, count = {}, dim(1)
    for j, k in enumerate(right):
        count = count * after[k]
        ends[count] = j + 1
    out, first, start, count = [], 0, 0, dim(1)
    for i, k in enumerate(left):
        count = count * before[k]
        end = ends.get(count)
        if end is not None:
            out.append((left[first:i + 1], right[start:end]))
            first, start = i + 1, end
    return out if first == len(left) and start == len(right) else None


def _same_axis(found: list[Piece]) -> dict[int, int]:
    """Axes that a reshape leaves alone: their place after it, and before it."""
    return {b[0]: a[0] for a, b in found if len(a) == len(b) == 1}


def merged(x: Value) -> list[tuple[Dim, ...]] | None:
    """Where a Reshape that splits no axis made ``x``: per axis of ``x`` the sizes that were
    merged into it.  None where no axis was merged, or one was split."""
    if made_by(x, Reshape) is None:
        return None
    before = operands(x)[0].type.dims
    found = pieces(before, x.type.dims)
    if found is None or any(len(b) > 1 for _, b in found) or all(len(a) == 1 for a, _ in found):
        return None
    parts = {b[0]: tuple(before[k] for k in a) for a, b in found}
    return [parts.get(k, (d,)) for k, d in enumerate(x.type.dims)]


def _unmerged(x: Value, parts: Sequence[tuple[Dim, ...]] | None) -> Any:
    """The source of a Reshape under the sizes ``parts``; ``x`` itself for None."""
    if parts is None:
        return x
    return reshape(operands(x)[0], [d for part in parts for d in part])


@rule(Dot)
def dot_of_reshape(node: Node, context: Context) -> Any:
    """dot(reshape(x, (b*t, h)), w) --> reshape(dot(x, w));  a product over b*t of two reshapes
    --> the product over b and t"""
    x, y = node.inputs
    left, right = merged(x), merged(y)
    for a, b in ((left, right), (left, None), (None, right)):
        out = _relabelled(node, a, b) if a is not None or b is not None else None
        if out is not None:
            return fitting(reshape(out, node.outputs[0].type.dims), node.outputs[0])
    return None


def _relabelled(node: Node, left: Any, right: Any) -> Any:
    """The product with a label per part of a merged axis, if both operands agree on them."""
    op, (x, y) = node.op, node.inputs
    assert isinstance(op, Dot)
    mine = dict(zip(op.a, left or [(d,) for d in x.type.dims], strict=True))
    other = dict(zip(op.b, right or [(d,) for d in y.type.dims], strict=True))
    for label in mine.keys() & other.keys():
        one, two = mine[label], other[label]
        if one != two and (len(one) > 1 or len(two) > 1):
            return None

    def labels(old: Sequence[int]) -> list[tuple[int, int]]:
        return [(k, i) for k in old for i in range(len(mine.get(k, other.get(k, ()))))]

    return dot_general(labels(op.a), labels(op.b), labels(op.out),
                       _unmerged(x, left), _unmerged(y, right))


@rule(Elemwise)
def elementwise_of_reshape(node: Node, context: Context) -> Any:
    """reshape(x) + reshape(y) --> reshape(x + y);  also with a broadcast beside them.  A range in
    another shape stays: it costs nothing, and says which row is which"""
    shaped = next((v for v in node.inputs
                   if made_by(v, Reshape) and not made_by(operands(v)[0], Iota)), None)
    if shaped is None:
        return None
    before, after = operands(shaped)[0].type.dims, shaped.type.dims
    found = pieces(before, after)
    if found is None or any(v.type.dims != after for v in node.inputs):
        return None
    inputs = [_back(v, before, found) for v in node.inputs]
    if any(v is None for v in inputs):
        return None
    out = reshape(apply(node.op, *inputs)[0], node.outputs[0].type.dims)
    return fitting(out, node.outputs[0])


def _back(v: Value, before: tuple[Dim, ...], found: list[Piece]) -> Any:
    """``v`` under the sizes ``before``, if it is a Reshape from there or a Broadcast that
    repeats what the reshape merges."""
    if made_by(v, Reshape) is not None:
        x = operands(v)[0]
        alike = [d for d in x.type.dims if d != 1] == [d for d in before if d != 1]
        return reshape(x, before) if alike else None
    spread = made_by(v, Broadcast)
    if spread is None:
        return None
    x, alone = operands(v)[0], _same_axis(found)
    ones = [k for k in range(x.ndim) if x.type.dims[k] == 1]
    places = [alone.get(spread.axes[k]) for k in range(x.ndim) if k not in ones]
    if any(k is None for k in places):
        return None
    return broadcast_to(squeeze(x, ones), before, places)  # type: ignore[arg-type]


@rule(Reduce)
def reduce_of_reshape(node: Node, context: Context) -> Any:
    """sum over b*t of reshape(x) --> the sum of x over b and t"""
    assert isinstance(node.op, Reduce)
    (x,), op = node.inputs, node.op
    parts = merged(x)
    if parts is None:
        return None
    owner = [k for k, part in enumerate(parts) for _ in part]
    out = reduce_(op.kind, _unmerged(x, parts), [i for i, k in enumerate(owner) if k in op.axes])
    return fitting(reshape(out, node.outputs[0].type.dims), node.outputs[0])


# --- slice ----------------------------------------------------------------------------------


def _placed(region: Region, axes: Sequence[int | None], dims: Sequence[Dim]) -> Region:
    """The region of an array of sizes ``dims`` that has ``region``'s axis ``axes[k]`` as its
    axis k, and is whole where that is None."""
    return Region(
        tuple(dim(0) if j is None else region.starts[j] for j in axes),
        tuple(d if j is None else region.lengths[j] for j, d in zip(axes, dims, strict=True)),
        tuple(1 if j is None else region.steps[j] for j in axes))


def _cut_axes(region: Region, dims: Sequence[Dim]) -> list[int]:
    """The axes along which ``region`` is not whole."""
    return [k for k, d in enumerate(dims) if region.starts[k] != 0 or region.steps[k] != 1
            or region.lengths[k] != d]


def _only_reader(node: Node, context: Context) -> bool:
    """Does the slice ``node`` read less than its operand, and nothing else read that?"""
    assert isinstance(node.op, Slice)
    x = node.inputs[0]
    return node.op.region.lengths != x.type.dims and context.users(x) == 1


@rule(Slice)
def slice_of_one(node: Node, context: Context) -> Any:
    """x[k:k-1:-1] --> x[k:k+1]"""
    assert isinstance(node.op, Slice)
    r = node.op.region
    steps = tuple(1 if n == 1 else k for n, k in zip(r.lengths, r.steps, strict=True))
    return slice_(node.inputs[0], Region(r.starts, r.lengths, steps)) if steps != r.steps else None


@rule(Slice)
def slice_of_squeeze(node: Node, context: Context) -> Any:
    """squeeze(x)[s] --> squeeze(x[s])"""
    assert isinstance(node.op, Slice)
    op = made_by(node.inputs[0], Squeeze)
    if op is None:
        return None
    x = operands(node.inputs[0])[0]
    kept = [k for k in range(x.ndim) if k not in op.axes]
    axes = [kept.index(k) if k in kept else None for k in range(x.ndim)]
    return squeeze(slice_(x, _placed(node.op.region, axes, x.type.dims)), op.axes)


@rule(Slice)
def slice_of_reshape(node: Node, context: Context) -> Any:
    """reshape(x)[s] --> reshape(x[s]), where s cuts axes that the reshape leaves alone"""
    assert isinstance(node.op, Slice)
    v, region = node.inputs[0], node.op.region
    if made_by(v, Reshape) is None:
        return None
    x = operands(v)[0]
    found = pieces(x.type.dims, v.type.dims)
    if found is None:
        return None
    alone = _same_axis(found)
    cut = _cut_axes(region, v.type.dims)
    if any(k not in alone for k in cut):
        return None
    places = {alone[k]: k for k in cut}
    part = _placed(region, [places.get(k) for k in range(x.ndim)], x.type.dims)
    return reshape(slice_(x, part), region.lengths)


@rule(Slice)
def slice_of_elementwise(node: Node, context: Context) -> Any:
    """(x + y)[s] --> x[s] + y[s], where nothing else reads the sum"""
    assert isinstance(node.op, Slice)
    v, region = node.inputs[0], node.op.region
    op = made_by(v, Elemwise)
    if op is None or not _only_reader(node, context):
        return None
    return fitting(apply(op, *(slice_(x, region) for x in operands(v)))[0], node.outputs[0])


@rule(Slice)
def slice_of_dot(node: Node, context: Context) -> Any:
    """dot(x, y)[s] --> dot(x[s], y[s']), where nothing else reads the product"""
    assert isinstance(node.op, Slice)
    v, region = node.inputs[0], node.op.region
    op = made_by(v, Dot)
    if op is None or not _only_reader(node, context):
        return None
    x, y = (_along(z, labels, op, region) for z, labels in
            zip(operands(v), (op.a, op.b), strict=True))
    return fitting(apply(op, x, y)[0], node.outputs[0])


def _along(x: Value, labels: Sequence[int], op: Dot, region: Region) -> Any:
    """The part of an operand that makes the part ``region`` of a product."""
    axes = [op.out.index(k) if k in op.out else None for k in labels]
    return slice_(x, _placed(region, axes, x.type.dims))


@rule(Slice)
def slice_of_reduce(node: Node, context: Context) -> Any:
    """sum(x)[s] --> sum(x[s]), where nothing else reads the sum"""
    assert isinstance(node.op, Slice)
    v = node.inputs[0]
    op = made_by(v, Reduce)
    if op is None or not _only_reader(node, context):
        return None
    x = operands(v)[0]
    kept = [k for k in range(x.ndim) if k not in op.axes]
    axes = [kept.index(k) if k in kept else None for k in range(x.ndim)]
    return reduce_(op.kind, slice_(x, _placed(node.op.region, axes, x.type.dims)), op.axes)


# --- zeros around a part --------------------------------------------------------------------


def padded(v: Value) -> tuple[Any, Region] | None:
    """(g, region) where ``v`` is zeros with g at ``region``: an Unslice, or a Broadcast of one;
    else None."""
    op = made_by(v, Unslice)
    if op is not None:
        return operands(v)[0], op.region
    spread = made_by(v, Broadcast)
    inner = made_by(operands(v)[0], Unslice) if spread is not None else None
    if spread is None or inner is None:
        return None
    x = operands(v)[0]
    stretched = [k for k in range(x.ndim) if spread.stretches(x, k)]
    if any(k in stretched for k in _cut_axes(inner.region, inner.dims)):
        return None
    source = {axis: k for k, axis in enumerate(spread.axes) if k not in stretched}
    region = _placed(inner.region, [source.get(j) for j in range(v.ndim)], v.type.dims)
    return broadcast_to(operands(x)[0], region.lengths, spread.axes), region


def _spread_out(node: Node, inputs: Sequence[Any], region: Region) -> Any:
    """The function of ``node`` on parts, with zeros around the result."""
    out = unslice(apply(node.op, *inputs)[0], node.outputs[0].type.dims, region)
    return fitting(out, node.outputs[0])


@rule("mul")
def mul_of_unslice(node: Node, context: Context) -> Any:
    """unslice(g, s) * y --> unslice(g * y[s], s)"""
    for k in (0, 1):
        found = padded(node.inputs[k])
        if found is not None:
            pair = [found[0], slice_(node.inputs[1 - k], found[1])]
            return _spread_out(node, pair if k == 0 else pair[::-1], found[1])
    return None


@rule("div")
def div_of_unslice(node: Node, context: Context) -> Any:
    """unslice(g, s) / y --> unslice(g / y[s], s)"""
    x, y = node.inputs
    found = padded(x) if x.type.dtype.is_float else None
    if found is None:
        return None
    return _spread_out(node, [found[0], slice_(y, found[1])], found[1])


@rule("neg", "cast")
def unary_of_unslice(node: Node, context: Context) -> Any:
    """-unslice(g) --> unslice(-g);  cast(unslice(g)) --> unslice(cast(g))"""
    found = padded(node.inputs[0])
    return None if found is None else _spread_out(node, found[:1], found[1])


@rule("add", "sub")
def add_of_unslices(node: Node, context: Context) -> Any:
    """unslice(g, s) + unslice(h, s) --> unslice(g + h, s)"""
    one, two = map(padded, node.inputs)
    if one is None or two is None or one[1] != two[1]:
        return None
    return _spread_out(node, [one[0], two[0]], one[1])


@rule("switch")
def switch_of_unslice(node: Node, context: Context) -> Any:
    """switch(c, unslice(g, s), 0) --> unslice(switch(c[s], g, 0), s);  also the other way
    round, or with two parts at one place"""
    condition, *both = node.inputs
    found = [padded(v) for v in both]
    region = next((f[1] for f in found if f is not None), None)
    if region is None or not all(
            is_zero(v) if f is None else f[1] == region
            for v, f in zip(both, found, strict=True)):
        return None
    parts = [slice_(v, region) if f is None else f[0] for v, f in zip(both, found, strict=True)]
    return _spread_out(node, [slice_(condition, region), *parts], region)


@rule(Dot)
def dot_of_unslice(node: Node, context: Context) -> Any:
    """dot(unslice(g, s), w) --> unslice(dot(g, w)), or dot(g, w[s]) where s cuts what is summed"""
    op = node.op
    assert isinstance(op, Dot)
    for k in (0, 1):
        found = padded(node.inputs[k])
        if found is None:
            continue
        (g, region), y = found, node.inputs[1 - k]
        mine, others = (op.a, op.b) if k == 0 else (op.b, op.a)

        def at(labels: Sequence[int], dims: Sequence[Dim], mine: Sequence[int] = mine,
               region: Region = region) -> Region:
            return _placed(region, [mine.index(j) if j in mine else None for j in labels], dims)

        part = slice_(y, at(others, y.type.dims))
        dims = node.outputs[0].type.dims
        out = apply(op, *((g, part) if k == 0 else (part, g)))[0]
        return fitting(unslice(out, dims, at(op.out, dims)), node.outputs[0])
    return None


@rule(Transpose)
def transpose_of_unslice(node: Node, context: Context) -> Any:
    """transpose(unslice(g)) --> unslice(transpose(g))"""
    assert isinstance(node.op, Transpose)
    op, perm = made_by(node.inputs[0], Unslice), node.op.perm
    if op is None:
        return None
    dims = node.outputs[0].type.dims
    return unslice(transpose(operands(node.inputs[0])[0], perm), dims,
                   _placed(op.region, perm, dims))


@rule(Squeeze)
def squeeze_of_unslice(node: Node, context: Context) -> Any:
    """squeeze(unslice(g)) --> unslice(squeeze(g)), where g has all of the axes that go"""
    assert isinstance(node.op, Squeeze)
    op, axes = made_by(node.inputs[0], Unslice), node.op.axes
    if op is None or any(k in axes for k in _cut_axes(op.region, op.dims)):
        return None
    kept = [k for k in range(len(op.dims)) if k not in axes]
    dims = node.outputs[0].type.dims
    return unslice(squeeze(operands(node.inputs[0])[0], axes), dims,
                   _placed(op.region, kept, dims))


@rule(Broadcast)
def new_axes_of_unslice(node: Node, context: Context) -> Any:
    """unslice(g)[:, None] --> unslice(g[:, None])"""
    assert isinstance(node.op, Broadcast)
    op = node.op
    found = padded(node.outputs[0])
    # other axes would make it larger, and a view of it an array
    if found is None or any(d != 1 for k, d in enumerate(op.dims) if k not in op.axes):
        return None
    x = node.inputs[0]
    if any(op.stretches(x, k) for k in range(x.ndim)):
        return None
    return unslice(found[0], op.dims, found[1])


@rule(Reshape)
def reshape_of_unslice(node: Node, context: Context) -> Any:
    """reshape(unslice(g)) --> unslice(reshape(g)), where the reshape leaves the axes alone that
    are cut"""
    op = made_by(node.inputs[0], Unslice)
    dims = node.outputs[0].type.dims
    found = pieces(op.dims, dims) if op is not None else None
    if op is None or found is None:
        return None
    alone = {a: b for b, a in _same_axis(found).items()}
    cut = _cut_axes(op.region, op.dims)
    if any(k not in alone for k in cut):
        return None
    places = {alone[k]: k for k in cut}
    region = _placed(op.region, [places.get(k) for k in range(len(dims))], dims)
    return unslice(reshape(operands(node.inputs[0])[0], region.lengths), dims, region)


@rule(Slice)
def reversed_unslice(node: Node, context: Context) -> Any:
    """unslice(g, s)[::-1] --> unslice(g[::-1], s counted from the other end)"""
    assert isinstance(node.op, Slice)
    op, turn = made_by(node.inputs[0], Unslice), node.op.region
    if op is None or turn.lengths != op.dims:
        return None
    starts, back, r = [], [], op.region
    for k, n in enumerate(op.dims):
        turned = turn.steps[k] == -1 and turn.starts[k] == n - 1
        if not turned and (turn.steps[k] != 1 or turn.starts[k] != 0):
            return None
        starts.append(n - 1 - r.starts[k] - (r.lengths[k] - 1) * r.steps[k] if turned
                      else r.starts[k])
        back.append(-1 if turned and r.lengths[k] != 1 else 1)
    ends = tuple(n - 1 if s < 0 else dim(0) for n, s in zip(r.lengths, back, strict=True))
    g = slice_(operands(node.inputs[0])[0], Region(ends, r.lengths, tuple(back)))
    return unslice(g, op.dims, Region(tuple(starts), r.lengths, r.steps))


# --- the pass -------------------------------------------------------------------------------

RESHAPE_RULES = (dot_of_reshape, elementwise_of_reshape, reduce_of_reshape)
SLICE_RULES = (
    slice_of_one, slice_of_squeeze, slice_of_transpose, slice_of_reshape, slice_of_elementwise,
    slice_of_dot, slice_of_reduce)
UNSLICE_RULES = (
    mul_of_unslice, div_of_unslice, unary_of_unslice, add_of_unslices, switch_of_unslice,
    dot_of_unslice, transpose_of_unslice, squeeze_of_unslice, new_axes_of_unslice,
    reshape_of_unslice, reversed_unslice)
RULES = (*RESHAPE_RULES, *SLICE_RULES, *UNSLICE_RULES)
_MOVED = (Elemwise, Dot, Reduce, Reshape, Squeeze, Transpose, Broadcast, Unslice)
_VIEWS = (*canonical_views.RULES, *canonical_reduce.RULES)


def _has_work(graph: Graph) -> bool:
    """Is there a part of what is computed, or a computation on zeros around a part?"""
    for node in graph.nodes():
        op = node.op
        if any(_has_work(body) for body in subgraphs(op)):
            return True
        if isinstance(op, (Slice, *_MOVED)) and any(made_by(v, Unslice) for v in node.inputs):
            return True
        if isinstance(op, Slice):
            x = node.inputs[0]
            if op.region.lengths != x.type.dims and x.node and isinstance(x.node.op, _MOVED):
                return True
    return False


def _narrow(graph: Graph, context: Context) -> Graph:
    if not _has_work(graph):
        return graph
    # reshapes first: what is hidden behind them would be counted among the users of others
    graph = rewrite(graph, (*_VIEWS, *RESHAPE_RULES), context)
    return rewrite(graph, (*_VIEWS, *RULES), context, ROUNDS)


narrow = Pass("narrow", "dense(x)[:, -1] --> dense(x[:, -1]), and its gradient likewise", _narrow)
