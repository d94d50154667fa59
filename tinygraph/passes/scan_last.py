"""last: the last row of a stack of states is the final state."""

from __future__ import annotations

from typing import Any

from tinygraph.dims import dim
from tinygraph.graph import Node
from tinygraph.ops.arithmetic import broadcast_to
from tinygraph.ops.views import Region, Slice, Transpose, slice_, transpose
from tinygraph.passes.scan_edit import is_scan
from tinygraph.rewrite.engine import Context, rule, rule_pass


@rule(Slice)
def slice_of_transpose(node: Node, context: Context) -> Any:
    """transpose(x)[part] --> transpose(x[part])"""
    op, (x,) = node.op, node.inputs
    assert isinstance(op, Slice)
    if x.node is None or not isinstance(x.node.op, Transpose):
        return None
    perm = x.node.op.perm
    back = [perm.index(k) for k in range(len(perm))]
    part = op.region
    region = Region(tuple(part.starts[k] for k in back), tuple(part.lengths[k] for k in back),
                    tuple(part.steps[k] for k in back))
    return transpose(slice_(x.node.inputs[0], region), perm)


@rule(Slice)
def last_row(node: Node, context: Context) -> Any:
    """stack(carry)[-1:] --> final[None]"""
    op, (x,) = node.op, node.inputs
    assert isinstance(op, Slice)
    if not is_scan(x.node):
        return None
    scan: Any = x.node
    groups, body = scan.op.groups, scan.op.body
    place = x.index - groups.carries
    region = op.region
    if place < 0 or region.starts[0] != scan.op.n_steps - 1 or region.lengths[0] != 1:
        return None
    results = groups.outputs(body.outputs)
    item = results.stacks[place]
    for new, final in zip(results.carries, groups.outputs(scan.outputs).carries, strict=True):
        if new is item:
            whole = broadcast_to(final, (dim(1), *final.type.dims), range(1, x.ndim))
            rest = Region((dim(0), *region.starts[1:]), region.lengths, region.steps)
            return slice_(whole, rest)
    return None


last = rule_pass("last", last_row.doc, (last_row, slice_of_transpose))
