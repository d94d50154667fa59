"""scatter: gradients of rows that were looked up (an embedding) are added up behind the loop, in
one Put for all steps, where they come from a product that can leave the loop.

In the loop that Put would hold the product back: ``after`` moves only what may be computed for
all steps at once, and one table for each step is too much.
"""

from __future__ import annotations

from typing import Any

from tinygraph.graph import Graph, Node, Value, apply
from tinygraph.ops.index import Put
from tinygraph.ops.views import transpose
from tinygraph.passes.scan_after import moving_products
from tinygraph.passes.scan_edit import Lift, ScanEdit, summed_stacks
from tinygraph.rewrite.engine import Context, Pass, everywhere, substitute
from tinygraph.rewrite.pattern import filled, is_zero, made_by, operands


def _scatter(graph: Graph, context: Context) -> Graph:
    return everywhere(graph, context, _scatter_here)


def _scatter_here(graph: Graph, context: Context) -> Graph:
    mapping: dict[Value, Value] = {}
    for scan, sums in summed_stacks(graph, context).items():
        edit = ScanEdit(scan)
        moving = moving_products(edit)
        found = [(node, place) for node, place in sums if node.op.axes == (0,)  # type: ignore
                 and edit.stacks[place] in moving and _adds(edit.stacks[place])]
        if found and not edit.op.segments:
            mapping.update(_with_puts(edit, found, context))
    return substitute(graph, mapping, context)


def _adds(item: Value) -> bool:
    """Is ``item`` values added into zeros?"""
    op = made_by(item, Put)
    return op is not None and op.mode == "add" and is_zero(operands(item)[0])


def _with_puts(edit: ScanEdit, found: list[tuple[Node, int]], context: Context
               ) -> dict[Value, Any]:
    """What stands for the results of a scan and for these sums of its stacks, when the scan
    stacks what is added, not the tables it is added to."""
    old, items = edit.op.groups.outputs(edit.node.outputs), list(edit.stacks)
    gone = {place for _, place in found}
    kept = [k for k in range(len(items)) if k not in gone]
    edit.stacks = [items[k] for k in kept]
    lift = Lift(edit, {})
    indices = [lift.value(operands(items[place])[1]) for _, place in found]
    stacked = [edit.add_stack(operands(items[place])[1]) if index is None or not index[1] else None
               for (_, place), index in zip(found, indices, strict=True)]
    added = [edit.add_stack(operands(items[place])[2]) for _, place in found]
    done = edit.build(context.interner)
    mapping: dict[Value, Any] = dict(zip(old.carries, done.carries, strict=True))
    mapping.update((old.stacks[k], done.stacks[j]) for j, k in enumerate(kept))
    for (node, place), index, row, k in zip(found, indices, stacked, added, strict=True):
        op, total, ys = made_by(items[place], Put), node.outputs[0], done.stacks[k]
        assert op is not None and (index is not None or row is not None)
        where = index[0] if row is None else done.stacks[row]  # type: ignore[index]
        rest = range(op.axis + 1, ys.ndim)
        ys = transpose(ys, (*range(1, op.axis + 1), 0, *rest))
        mapping[total] = apply(op, filled(0, total), where, ys)[0]
    return mapping


scatter = Pass("scatter", "sum over t of stack(put(0, i, y)) --> put(0, stack(i), stack(y))",
               _scatter)
