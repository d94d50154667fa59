"""Rebuild expressions with variables replaced, sizes included: givens, clone.

Where a replaced variable was the only one to define a symbolic size, every mention of that size
(in ops, in bodies of scans) becomes the size of its replacement.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from tinygraph.dims import Dim, Sym, dim
from tinygraph.graph import (
    Graph,
    Node,
    Op,
    Type,
    Value,
    apply,
    map_op,
    op_dims,
    subgraphs,
    toposort,
)
from tinygraph.ops.arithmetic import cast
from tinygraph.ops.callback import Callback, OwnSize
from tinygraph.ops.sizes import as_dim


class Rebuild:
    """``outputs`` with the keys of ``values`` replaced, all at once.

    ``kept``: symbols that stay defined although a replaced variable has them on an axis.
    """

    def __init__(self, values: Mapping[Value, Value], kept: Container[Sym] = ()) -> None:
        self.memo: dict[Value, Value] = dict(values)
        self.sizes: dict[Sym, Dim] = {}
        self.exact: dict[Dim, Dim] = {}
        for old, new in values.items():
            for a, b in zip(old.type.dims, new.type.dims, strict=True):
                sym = a.symbol
                if a == b:
                    continue
                if sym is not None and sym not in kept:
                    self.sizes.setdefault(sym, b)
                elif sym is None and any(s not in kept for s in a.syms()):
                    self.exact.setdefault(a, b)

    def __call__(self, outputs: Sequence[Value]) -> list[Any]:
        """The rebuilt variables; what nothing replaced touches is shared."""
        if not (self.memo or self.sizes or self.exact):
            return list(outputs)
        for node in toposort(outputs, stop=self.memo):
            self._node(node)
        return [self.memo.get(v, v) for v in outputs]

    def _node(self, node: Node) -> None:
        inputs = [self.memo.get(v, v) for v in node.inputs]
        for s, _ in node.op.late():
            self.sizes.setdefault(s, dim(s))  # while its own node is rebuilt
        op = map_op(node.op, self.dim, self.body)
        if op is node.op and all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            self.memo.update((v, v) for v in node.outputs)
            return
        made = self._fresh_late(node)
        op = map_op(node.op, self.dim, self.body) if made else op
        first = node.outputs[0]
        cls = None if inputs else first.result_class()
        fresh = apply(op, *inputs, cls=cls, source=first.source)
        for old, new in zip(node.outputs, fresh, strict=True):
            new.name = new.name or old.name
            self.memo.setdefault(old, new)
        for s, k in made:
            s.value = fresh[k]

    def _fresh_late(self, node: Node) -> list[tuple[Sym, int]]:
        """New late symbols for a node that will find out other numbers, each with the number of
        the result that holds it."""
        made = []
        for s, k in node.op.late():
            if self.sizes[s] == dim(s):
                new = Sym(s.name, s.origin, bound=s.bound and self.dim(s.bound))
                self.sizes[s] = dim(new)
                made.append((new, k))
        return made

    def dim(self, d: Dim) -> Dim:
        """``d`` in the new sizes."""
        if d in self.exact:
            return self.exact[d]
        new = d.substitute(self._sym)
        return d if new == d else new

    def _sym(self, s: Sym) -> Dim:
        found = self.sizes.get(s)
        if found is None:
            found = Dim({(s,): 1})
            if s.value is not None:
                new = self([s.value])[0]
                if new is not s.value:
                    found = as_dim(cast(new, s.value.type.dtype))
            self.sizes[s] = found
        return found

    def body(self, graph: Graph) -> Graph:
        """The body of a scan in the new sizes."""
        params = tuple(self._param(v) for v in graph.inputs)
        inner = Rebuild({})
        inner.sizes, inner.exact = self.sizes, self.exact
        inner.memo = dict(self.memo)
        inner.memo.update(zip(graph.inputs, params, strict=True))
        outputs = tuple(inner(graph.outputs))
        same = zip((*params, *outputs), (*graph.inputs, *graph.outputs), strict=True)
        return graph if all(a is b for a, b in same) else Graph(params, outputs)

    def _param(self, v: Value) -> Value:
        dims = tuple(self.dim(d) for d in v.type.dims)
        if dims == v.type.dims:
            return v
        return v.result_class()(Type(v.type.dtype, dims), name=v.name, source=v.source)


class Survey:
    """What ``outputs`` read: ``leaves``, and ``syms``, the sizes that something must define."""

    def __init__(self, outputs: Iterable[Value]) -> None:
        self.leaves: dict[Value, None] = {}
        self.syms: dict[Sym, None] = {}
        self.defined: set[Sym] = set()
        self._nodes: set[Node] = set()
        self.add(outputs)

    def add(self, outputs: Iterable[Value], bound: frozenset[Value] = frozenset()) -> None:
        """Survey more."""
        outputs = list(outputs)
        nodes = toposort(outputs)
        self.defined.update(s for node in nodes for s, _ in node.op.late())
        for node in nodes:
            if node in self._nodes:
                continue
            self._nodes.add(node)
            self._note(node.inputs, bound)
            self._ops(node.op, bound)
            self._results(node)
            if not bound and isinstance(node.op, Callback):
                self.defined.update(s for d in op_dims(node.op) for s in d.syms()
                                    if isinstance(s, OwnSize))
        self._note(outputs, bound)

    def _note(self, values: Iterable[Value], bound: frozenset[Value]) -> None:
        for v in values:
            if v.node is None and v not in bound:
                self.leaves[v] = None

    def _ops(self, op: Op, bound: frozenset[Value]) -> None:
        for d in op_dims(op):
            if d.const is not None:
                continue
            for s in sorted(d.syms(), key=lambda s: s.key):
                if s in self.syms:
                    continue
                self.syms[s] = None
                made_here = s.bound is not None and s in self.defined
                if s.value is not None and not made_here:
                    self.add([s.value], bound)
        for g in subgraphs(op):
            self._define(g.inputs)
            self.add(g.outputs, bound | frozenset(g.inputs))

    def _define(self, values: Iterable[Value]) -> None:
        self.defined.update(s for v in values for d in v.type.dims if (s := d.symbol))

    def _results(self, node: Node) -> None:
        """A size that only a result has is defined by the run of the node."""
        if all(d.const is not None or any(d in x.type.dims for x in node.inputs)
               for v in node.outputs for d in v.type.dims):
            return
        mentioned = {s for d in op_dims(node.op) for s in d.syms()}
        mentioned |= {s for v in node.inputs for d in v.type.dims for s in d.syms()}
        for v in node.outputs:
            for d in v.type.dims:
                s = d.symbol
                if s is not None and s not in mentioned and not isinstance(s, OwnSize):
                    self.defined.add(s)


def clone(output: Any, replace: Any = None, strict: bool = True, share_inputs: bool = True,
          copy_inputs: bool | None = None) -> Any:
    """``output`` (a variable, or a list of them) with variables replaced.

    replace: a dict or a list of pairs (variable, replacement).  share_inputs=False: inputs
    that are not replaced become new variables; the copy of a shared variable uses the same
    storage.  strict: a replacement must have the dtype and rank of what it replaces.
    """
    share_inputs = share_inputs if copy_inputs is None else copy_inputs
    many = isinstance(output, (list, tuple))
    outputs = list(output) if many else [output]
    pairs = dict(replace.items() if isinstance(replace, Mapping) else replace or ())
    for old, new in pairs.items():
        if strict and (old.type.dtype != new.type.dtype or old.ndim != new.ndim):
            raise TypeError(f"{old!r} is {old.type}, but its replacement {new!r} is {new.type}")
    if not share_inputs:
        for v in Survey(outputs).leaves:
            if v not in pairs:
                pairs[v] = _twin(v)
    kept = {s for v in Survey(outputs).leaves if v not in pairs
            for d in v.type.dims for s in d.syms()}
    result = Rebuild(pairs, kept)(outputs)
    return result if many else result[0]


def _twin(v: Value) -> Value:
    """A new leaf like ``v``: of the same sizes, since it stands in the same places."""
    copy = getattr(v, "clone", None)
    if copy is not None and hasattr(v, "storage"):
        return copy()
    return v.result_class()(v.type, name=v.name, source=v.source)
