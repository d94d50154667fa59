"""Take a scan apart, change it, put it together: what the scan passes share.

Also the lift over time: body values computed once for all steps, by the batch rule of each op.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields
from typing import Any

from tinygraph.dims import Dim
from tinygraph.graph import Graph, Node, Value, replace, toposort
from tinygraph.interning import Interner
from tinygraph.ops.arithmetic import Reduce
from tinygraph.ops.index import Put, Take
from tinygraph.ops.views import axis_region, slice_
from tinygraph.rewrite.engine import Context
from tinygraph.scan_module.groups import Groups, Inputs, Outputs
from tinygraph.scan_module.op import Scan


@dataclass
class Operand:
    """A sequence or constant: the outer value, and the parameter that stands for it (or for a
    row of it) in the body."""

    outer: Any
    param: Any


@dataclass
class State:
    """A carry: its initial value outside, its parameter and new value in the body."""

    init: Any
    param: Any
    new: Any


class ScanEdit:
    """The parts of one Scan node, open to change.

    ``seqs``, ``states``, ``consts``; ``stacks``: the stacked body values. 
    """

    def __init__(self, node: Node) -> None:
        assert isinstance(node.op, Scan)
        self.node, self.op = node, node.op
        groups = self.op.groups
        given, params = groups.inputs(node.inputs), groups.inputs(self.op.body.inputs)
        results = groups.outputs(self.op.body.outputs)
        self.seqs = [Operand(x, p) for x, p in zip(given.seqs, params.seqs, strict=True)]
        self.consts = [Operand(x, p) for x, p in zip(given.consts, params.consts, strict=True)]
        self.states = [State(x, p, v) for x, p, v in
                       zip(given.carries, params.carries, results.carries, strict=True)]
        self.stacks: list[Any] = list(results.stacks)

    @staticmethod
    def around(node: Node, count: Dim) -> ScanEdit:
        """An empty loop over ``count`` segments of the steps of ``node``, to be filled."""
        edit = ScanEdit(node)
        edit.seqs, edit.consts, edit.states, edit.stacks = [], [], [], []
        edit.op = with_fields(edit.op, n_steps=count, truncate=-1, hoist=False, memory=None,
                              segments=True, name=f"{edit.op.name} segments".strip())
        return edit

    @property
    def steps(self) -> Dim:
        return self.op.n_steps

    def make_eager(self) -> None:
        """The scan is no longer a request of the gradient."""
        self.op = with_fields(self.op, lazy=False)

    def results(self) -> list[Any]:
        """All body values that the scan hands out: new carries, then stacked rows."""
        return [s.new for s in self.states] + self.stacks

    def nodes(self) -> list[Node]:
        """The nodes of the body."""
        return toposort(self.results())

    def add_seq(self, outer: Any) -> Any:
        """A row parameter for a further sequence (at least n_steps rows)."""
        return self._operand(self.seqs, outer, outer.type.with_dims(outer.type.dims[1:]))

    def add_const(self, outer: Any) -> Any:
        """A parameter for a further constant."""
        return self._operand(self.consts, outer, outer.type)

    def add_state(self, init: Any) -> State:
        """A further carry, whose new value is to be set."""
        param = init.result_class()(init.type, name=init.name, source=init.source)
        self.states.append(State(init, param, param))
        return self.states[-1]

    def _operand(self, group: list[Operand], outer: Any, type_: Any) -> Any:
        for known in group:
            if known.outer is outer:
                return known.param
        param = outer.result_class()(type_, name=outer.name, source=outer.source)
        group.append(Operand(outer, param))
        return param

    def add_stack(self, item: Any) -> int:
        """The position of the stack of ``item``."""
        for k, known in enumerate(self.stacks):
            if known is item:
                return k
        self.stacks.append(item)
        return len(self.stacks) - 1

    def substitute(self, mapping: dict[Any, Any]) -> None:
        """Replace body values."""
        fresh = replace(self.results(), mapping)
        n = len(self.states)
        for state, new in zip(self.states, fresh[:n], strict=True):
            state.new = new
        self.stacks = fresh[n:]

    def varying(self, *, seqs: bool = True, carries: bool = True) -> set[Value]:
        """Body values that depend on rows of sequences, or on carries, or that an op with an
        effect makes."""
        found: set[Value] = set()
        if seqs:
            found |= {s.param for s in self.seqs}
        if carries:
            found |= {s.param for s in self.states}
        for n in self.nodes():
            if n.op.effect or any(v in found for v in n.inputs):
                found.update(n.outputs)
        return found

    def build(self, interner: Interner) -> Outputs:
        """The scan put together: its finals and stacks, in the order of the parts."""
        inside = Inputs(tuple(s.param for s in self.seqs), tuple(s.param for s in self.states),
                        tuple(c.param for c in self.consts))
        results = Outputs(tuple(s.new for s in self.states), tuple(self.stacks))
        body = Graph((*inside.seqs, *inside.carries, *inside.consts),
                     (*results.carries, *results.stacks))
        op = with_fields(self.op, body=body, groups=Groups.of(inside, results))
        outer = [*(s.outer for s in self.seqs), *(s.init for s in self.states),
                 *(c.outer for c in self.consts)]
        outer = interner.values(outer, {})
        return op.groups.outputs(
            interner.make(op, *outer, source=self.node.outputs[0].source))


class Lift:
    """Body values for all steps at once, outside the loop.

    A row of a sequence becomes the sequence, a constant stays, a node goes through the batch
    rule of its op; ``known`` gives other values (such as stacks).  ``value`` is None where some
    op has no batch rule, and where it would look up rows before a loop with a condition: an index
    of a step that is never taken may be out of range.
    """

    def __init__(self, edit: ScanEdit, known: dict[Value, Any] | None = None) -> None:
        # Before a loop with a condition only the most steps that it may take are known.
        self.steps = edit.op.most if known is None else edit.steps
        self.unsure = known is None and edit.op.until is not None
        self.memo: dict[Value, tuple[Any, bool] | None] = {}
        for s in edit.seqs:
            whole = slice_(s.outer, axis_region(s.outer, 0, 0, self.steps))
            self.memo[s.param] = (whole, True)
        for c in edit.consts:
            self.memo[c.param] = (c.outer, False)
        for v, stack in (known or {}).items():
            self.memo[v] = (stack, True)

    def value(self, v: Value) -> tuple[Any, bool] | None:
        """``v`` outside the loop, and whether it has a leading axis of steps."""
        for node in toposort([v], stop=self.memo):
            self._node(node)
        return self.memo.get(v)

    def _node(self, node: Node) -> None:
        found = [self.memo.get(x) for x in node.inputs]
        if any(f is None for f in found) or self.unsure and isinstance(node.op, (Take, Put)):
            results: Sequence[Any] | None = None
        else:
            inputs = [f[0] for f in found]  # type: ignore[index]
            batched = [f[1] for f in found]  # type: ignore[index]
            if any(batched):
                results = node.op.batch(inputs, batched, self.steps)
            else:
                results = replace(node.outputs, dict(zip(node.inputs, inputs, strict=True)))
        for k, out in enumerate(node.outputs):
            self.memo[out] = None if results is None else (
                results[k], any(f is not None and f[1] for f in found))


def is_scan(node: Node | None) -> bool:
    """Is this an application of Scan?"""
    return node is not None and isinstance(node.op, Scan)


def summed_stacks(graph: Graph, context: Context) -> dict[Node, list[tuple[Node, int]]]:
    """The scans some of whose stacks nothing reads but a sum over the steps (and perhaps over
    other axes): each with its sums, and the places of their stacks."""
    sums: dict[Node, list[tuple[Node, int]]] = {}
    for node in graph.nodes():
        x = node.inputs[0] if isinstance(node.op, Reduce) and node.op.kind == "sum" else None
        if x is None or not is_scan(x.node) or 0 not in node.op.axes:  # type: ignore[attr-defined]
            continue
        scan = x.node
        assert scan is not None
        place = x.index - scan.op.groups.carries  # type: ignore[attr-defined]
        if place >= 0 and context.users(x) == 1:
            sums.setdefault(scan, []).append((node, place))
    return sums


def frontier(inside: Iterable[Value], chosen: Container[Value]) -> list[Value]:
    """The inputs of nodes of ``chosen`` values that are not chosen themselves."""
    found: dict[Value, None] = {}
    for v in inside:
        for x in (v.node.inputs if v.node else ()):
            if x not in chosen:
                found[x] = None
    return list(found)
