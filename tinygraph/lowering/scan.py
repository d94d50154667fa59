"""A scan as a serial loop.

A carry lives in rows of one buffer: row t is what step t reads, row t+1 what it writes.  A carry
that is also stacked keeps all n+1 rows, and the stack, or the stack of the *old* states, is a
view of them; another keeps two rows, used in turn; one that each step only adds to keeps one.

Where the step treats the rows of the batch one by one, the loop runs once per tile of rows
(``tiling``); inside, every view is cut to the tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tinygraph.dims import Dim, dim, is_late
from tinygraph.dtypes import bool_, int64
from tinygraph.graph import Node, Value, users
from tinygraph.loops import build as E
from tinygraph.loops.language import Binary, Expr, Let, Load, Unary, Var
from tinygraph.lowering.overlap import Looped, overlaps
from tinygraph.lowering.overlay import same_rows
from tinygraph.lowering.tiling import Tiling, tiling
from tinygraph.lowering.view import View
from tinygraph.ops.arithmetic import Elemwise
from tinygraph.ops.views import Slice, Transpose

if TYPE_CHECKING:
    from tinygraph.lowering.region import Region
    from tinygraph.scan_module.op import Scan


@dataclass
class Carry:
    """Where one carry lives: ``rows`` (axis 0: the rows kept), which are "all", "two" or "one"."""

    param: Value
    new: Value
    rows: View
    kept: str

    def row(self, t: Expr) -> View:
        """The state after t steps."""
        if self.kept == "one":
            return self.rows.row(E.index(0))
        return self.rows.row(Binary("mod", t, E.index(2)) if self.kept == "two" else t)


def lower_scan(region: Region, node: Node, op: Scan) -> None:
    """Lower a Scan node: storage for carries and stacks, then the loop."""
    given = op.groups.inputs(node.inputs)
    params = op.groups.inputs(op.body.inputs)
    results = op.groups.outputs(op.body.outputs)
    outs = op.groups.outputs(node.outputs)
    n = region.storage.sizes.expr(op.n_steps)
    carries = [_carry(region, op, param, new)
               for param, new in zip(params.carries, results.carries, strict=True)]
    for carry, init in zip(carries, given.carries, strict=True):
        _start(region, carry, init)
    stacks: list[tuple[int, View]] = []
    backwards = any(_reversed(seq) for seq in given.seqs)
    for k, (item, out) in enumerate(zip(results.stacks, outs.stacks, strict=True)):
        view = _stack_of_carry(item, carries, op.n_steps)
        if view is None:
            view = region.targets.get(out)
            if view is None:
                view = region.storage.temp(item, rows=op.n_steps)
                # Rows of a loop that walks backwards lie in the order of what it walks along.
                view = view.flip(0) if backwards and op.until is None else view
            stacks.append((k, view))
        region.where[out] = view
    t = Var(_name(region, "step"), n.dtype)
    names = _name(region, "tile"), _name(region, "start"), _name(region, "rows")
    whole = region.tile is not None or op.until is not None
    cut = None if whole else tiling(op, region.storage.lane, names,
                                        region.storage.target.tiles)
    step = _Step(region, node, op, cut, t)
    step.lower(carries, stacks)
    if op.until is None:
        region.storage.same_rows += same_rows(
            t.name, [region.view(seq) for seq in given.seqs], [view for _, view in stacks])
    if not whole and cut is None and not is_late(op.n_steps):
        loops = region.storage.loops
        loops[node] = Looped(t.name, carries)
        region.storage.overlaps += overlaps(region, node, op, loops, [v for _, v in stacks])
    for carry, out in zip(carries, outs.carries, strict=True):
        region.where[out] = carry.row(n)

    region.add(lambda b: step.emit(b, n, carries), *node.outputs)


def _count(steps: Dim) -> str:
    """A number of steps in a title: a long formula is named by what it depends on."""
    text = str(steps)
    if len(text) <= 60:
        return text
    return f"(a number over {', '.join(sorted(s.name for s in steps.syms()))})"


def _name(region: Region, hint: str) -> str:
    return region.storage.fresh(hint).replace("$", "")


class _Step:
    """The step of a scan as a region, over the whole batch or over one tile of it."""

    def __init__(self, region: Region, node: Node, op: Scan, cut: Tiling | None, t: Var) -> None:
        self.cut, self.t, self.op, self.source = cut, t, op, node.outputs[0].source
        graph = cut.body(op.body) if cut else op.body
        self.params, self.results = op.groups.inputs(graph.inputs), op.groups.outputs(graph.outputs)
        self.outer = region
        self.region = body = type(region)(region.storage, outer=region, tile=cut or region.tile)
        given = op.groups.inputs(node.inputs)
        body.stands = dict(zip(graph.inputs, node.inputs, strict=True))
        body.constants = set(self.params.consts)
        for param, seq in zip(self.params.seqs, given.seqs, strict=True):
            body.where[param] = self.mine(region.view(seq).row(t))
        for param, const in zip(self.params.consts, given.consts, strict=True):
            body.where[param] = self.mine(region.view(const))

    def mine(self, view: View) -> View:
        """The part of a view that the step works on."""
        return self.cut.cut(view) if self.cut else view

    def lower(self, carries: Sequence[Carry], stacks: Sequence[tuple[int, View]]) -> None:
        """Lower the step; ``stacks``: which rows it must store, by number, and where."""
        body, after = self.region, E.add(self.t, E.index(1))
        wanted: list[tuple[Value, View]] = []
        for param, new, carry in zip(self.params.carries, self.results.carries, carries,
                                     strict=True):
            body.where[param] = self.mine(carry.row(self.t))
            wanted.append((new, self.mine(carry.row(after))))
        wanted += [(self.results.stacks[k], self.mine(view.row(self.t))) for k, view in stacks]
        for value, view in wanted:
            if value.node is not None:
                body.targets.setdefault(value, view)
        with body.storage.within(body.tile):
            body.lower([value for value, _ in wanted])
            for value, view in wanted:
                body.put(value, view)

    def emit(self, b: E.Builder, n: Expr, carries: Sequence[Carry]) -> None:
        """Write what the loop needs before it, and the loop."""
        for stage in self.region.before:
            stage(b)
        if self.op.until is not None:
            self._until(b, carries[0])
            return
        if self.cut is None:
            self._loop(b, n)
            return
        sizes = self.region.storage.sizes
        count = sizes.expr(self.cut.count)
        with b.loop(count, "parallel", hint=self.cut.index.name) as tile:
            self.cut.bind(b, tile, sizes.expr(dim(self.cut.batch)), count)
            self._loop(b, n)

    def _until(self, b: E.Builder, flag: Carry) -> None:
        """The loop that ends where its flag, a carry, is set."""
        storage, zero = self.region.storage, E.index(0)
        most = storage.sizes.expr(self.op.most)
        count, ended = b.register(int64, hint="count"), b.register(bool_, hint="ended")
        b.store(count, zero, zero)
        b.store(ended, zero, E.const(False, bool_))
        more = Binary("lt", Load(count, zero), most)
        self._note(b)
        with b.while_(Binary("and", more, Unary("not", Load(ended, zero)))):
            b.emit(Let(self.t, Load(count, zero)))
            self.region.emit(b)
            following = E.add(self.t, E.index(1))
            b.store(ended, zero, flag.row(following).element([]))
            b.store(count, zero, following)
        for s, _ in self.op.late():
            self.outer.learn(b, s, Load(count, zero))

    def _note(self, b: E.Builder) -> None:
        b.note(f"scan {self.op.name or 'without a name'}: {_count(self.op.n_steps)} steps",
               self.source)

    def _loop(self, b: E.Builder, n: Expr) -> None:
        self._note(b)
        with b.loop(n, hint=self.t.name) as step:
            # Views were made over ``t``; the builder's index takes its name.
            assert step.name == self.t.name
            self.region.emit(b)


def _reversed(seq: Value) -> bool:
    while seq.node is not None and isinstance(seq.node.op, Transpose):
        seq = seq.node.inputs[0]
    return (seq.node is not None and isinstance(seq.node.op, Slice)
            and any(k < 0 for k in seq.node.op.region.steps))


def _carry(region: Region, op: Scan, param: Value, new: Value) -> Carry:
    """Rows for one carry: n+1 if its states are stacked, 1 if it only accumulates, else 2."""
    results = op.groups.outputs(op.body.outputs)
    stacked = any(item is param or (item is new and _owner(op, new) is param)
                  for item in results.stacks)
    kept = "all" if stacked else "one" if _accumulates(op, param, new) else "two"
    count = {"all": op.n_steps + 1, "two": dim(2), "one": dim(1)}[kept]
    return Carry(param, new, region.storage.temp(param, rows=count), kept)


def _owner(op: Scan, new: Value) -> Value:
    """The carry that stores ``new``, where several carries take the same value: the first."""
    params = op.groups.inputs(op.body.inputs)
    results = op.groups.outputs(op.body.outputs)
    return next(p for p, v in zip(params.carries, results.carries, strict=True) if v is new)


def _accumulates(op: Scan, param: Value, new: Value) -> bool:
    """Is the carry read by nothing but the elementwise op that makes its new value (so that
    reading and writing one place in one iteration is all that happens to it)?"""
    readers = users(op.body).get(param, [])
    results = op.groups.outputs(op.body.outputs)
    return (len(readers) == 1 and readers[0] is new.node and isinstance(readers[0].op, Elemwise)
            and list(op.body.outputs).count(new) == 1 and param not in results.carries)


def _start(region: Region, carry: Carry, init: Value) -> None:
    """Put the initial state into row 0.  Where that row is never written again, a state that a
    nest computes may be computed there."""
    first = carry.row(E.index(0))
    fresh = (carry.kept == "all" and init.node is not None and init not in region.where
             and init not in region.targets and init in region.home)
    if fresh:
        region.targets[init] = first
    region.put(init, first)


def _stack_of_carry(item: Value, carries: Sequence[Carry], n_steps: Dim) -> View | None:
    """The stack of a carry's new or old states, as part of its rows."""
    for carry in carries:
        if carry.kept == "all" and (item is carry.param or item is carry.new):
            start = dim(1 if item is carry.new else 0)
            sizes = carry.rows.sizes
            offset = E.add(carry.rows.offset, sizes.expr(start * carry.rows.strides[0]))
            return replace(carry.rows, offset=offset, dims=(n_steps, *carry.rows.dims[1:]))
    return None
