"""zeros: the first steps of a loop that compute nothing but zeros are skipped.

Where a cost reads only the first row of what a loop stacks (the last step of a layer that walks
backwards in time), the gradient that enters the backward loop is zero but for its last step.  A
backward step is linear: zeros in, zeros out.
"""

from __future__ import annotations

from dataclasses import replace as with_fields
from typing import Any

import numpy as np

from tinygraph.dims import Dim, nonnegative
from tinygraph.graph import Node, Value
from tinygraph.ops.arithmetic import Broadcast, Elemwise, Reduce, scalar_constant
from tinygraph.ops.linalg import Dot
from tinygraph.ops.views import (
    Concatenate,
    Reshape,
    SetSlice,
    Slice,
    Squeeze,
    Transpose,
    Unslice,
    axis_region,
    slice_,
    unslice,
)
from tinygraph.passes.scan_edit import ScanEdit
from tinygraph.rewrite.engine import Context, rule, rule_pass
from tinygraph.rewrite.pattern import is_zero
from tinygraph.scan_module.op import Scan

_MOVES = (Broadcast, Reshape, Slice, Squeeze, Transpose, Unslice, Concatenate, SetSlice, Reduce)


@rule(Scan)
def skip_zero_steps(node: Node, context: Context) -> list[Any] | None:
    """scan(step, unslice(g, from p)) from zero states, where step(0) = 0 -->
    unslice(scan(step, g), from p)"""
    edit = ScanEdit(node)
    quiet = {k: start for k, s in enumerate(edit.seqs)
             if (start := _zeros_before(s.outer)) is not None}
    if not quiet or not all(is_zero(s.init) for s in edit.states):
        return None
    first = next(iter(quiet.values()))
    if any(start != first for start in quiet.values()) or not nonnegative(edit.steps - first):
        return None
    zero = zero_values(edit, {edit.seqs[k].param for k in quiet})
    if not all(v in zero for v in edit.results()):
        return None
    length = edit.steps - first
    for s in edit.seqs:
        s.outer = slice_(s.outer, axis_region(s.outer, 0, first, length))
    edit.op = with_fields(edit.op, n_steps=length)
    done = edit.build(context.interner)
    old = node.op.groups.outputs(node.outputs).stacks  # type: ignore[attr-defined]
    stacks = [unslice(new, v.type.dims, axis_region(v, 0, first, length))
              for v, new in zip(old, done.stacks, strict=True)]
    return [*done.carries, *stacks]


def _zeros_before(x: Value) -> Dim | None:
    """The first row of ``x`` that may differ from zero, if that is seen and not row 0."""
    node = x.node
    if node is None or not isinstance(node.op, Unslice):
        return None
    region = node.op.region
    start = region.starts[0]
    # Of an empty part nothing says that it begins inside.
    inside = nonnegative(start) or nonnegative(region.lengths[0] - 1)
    return start if region.steps[0] == 1 and start != 0 and inside else None


def zero_values(edit: ScanEdit, rows: set[Value]) -> set[Value]:
    """The body values that are zero where ``rows`` and all carries are."""
    zero = rows | {s.param for s in edit.states}
    for n in edit.nodes():
        if _gives_zero(n, zero):
            zero.update(n.outputs)
    return zero


def _gives_zero(node: Node, zero: set[Value]) -> bool:
    op = node.op
    known = [v in zero or is_zero(v) for v in node.inputs]
    if isinstance(op, Dot):
        return any(known)
    if isinstance(op, _MOVES):
        return all(known) and bool(known) and getattr(op, "kind", "sum") == "sum"
    if not isinstance(op, Elemwise):
        return False
    name = op.fn.name
    if name == "mul":
        return any(known)
    if name == "div":
        return known[0]
    if name == "switch":
        return known[1] and known[2]
    numbers = [0.0 if k else scalar_constant(v) for k, v in zip(known, node.inputs, strict=True)]
    if any(x is None for x in numbers) or not node.outputs[0].type.dtype.is_float:
        return False
    kind = node.inputs[-1].type.dtype.np
    with np.errstate(all="ignore"):
        return bool(op.fn.numpy(*(np.asarray(x, kind) for x in numbers)) == 0)


zeros = rule_pass("zeros", skip_zero_steps.doc, (skip_zero_steps,))
