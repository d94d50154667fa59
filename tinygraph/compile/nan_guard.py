"""nan_guard: when a call computes a nan or an infinity, say which operation made the first one.

Compiled code runs as always; its results are looked at.  Only where one is bad does the
interpreter run the graph again on the same inputs, and the bad elements are traced back from the
result through the operands that made them bad, step by step through scans.  A bad number that a
condition masks out, or that nothing reads, is never met on that way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.compile.signature import Signature
from tinygraph.compile.variables import SharedVariable
from tinygraph.errors import NotFiniteError
from tinygraph.graph import Node, Value, describe, toposort
from tinygraph.interpret import Sizes, every_value
from tinygraph.ops.arithmetic import Broadcast, Elemwise, Reduce
from tinygraph.ops.control import Identity
from tinygraph.ops.index import Take
from tinygraph.ops.views import (
    Concatenate,
    Reshape,
    SetSlice,
    Slice,
    Squeeze,
    Transpose,
    Unslice,
)
from tinygraph.scan_module.op import Scan

# What only moves elements: which element came from where is found by moving their numbers.
_MOVES = (Broadcast, Concatenate, Identity, Reshape, SetSlice, Slice, Squeeze, Take, Transpose,
          Unslice)

Masks = dict[Value, np.ndarray]
Bad = Callable[[np.ndarray], np.ndarray]


def guarded(kind: bool | str | None, default: str) -> str:
    """The argument ``nan_guard`` as 'off', 'nan', 'inf', 'both' or 'inside'; None is ``default``.
    Raises ValueError for anything else."""
    kind = default if kind is None else kind
    found = ("both" if kind else "off") if isinstance(kind, bool) else kind
    if found not in ("off", "nan", "inf", "both", "inside"):
        raise ValueError(f"nan_guard is {kind!r}; it must be True, False, 'nan', 'inf', 'both' or "
                         "'inside' (also values that reach no result)")
    return found


def guard_call(kind: str, name: str, signature: Signature, arrays: Sequence[np.ndarray],
               results: Sequence[np.ndarray]) -> None:
    """Raise NotFiniteError if a result or a new value of a shared variable is bad; with kind
    'inside' also if any value is that the graph computes."""
    bad = {"nan": _nans, "inf": _infs}.get(kind, not_finite)
    for k, array in enumerate(results):
        if bad(array).any():
            what = output_name(signature, k)
            text = explain(signature, arrays, k, np.asarray(array), bad)
            raise NotFiniteError(f"{name}: {what} {_counts(array, bad)}\n{text}\n"
                                 "Shared variables keep the values that they had.")
    if kind == "inside":
        inputs = dict(zip(signature.graph.inputs, arrays, strict=True))
        found = _first_inside(signature.graph.outputs, inputs, Sizes())
        if found is not None:
            raise NotFiniteError(f"{name}: a value that reaches no result is not finite\n{found}\n"
                                 "Shared variables keep the values that they had.")


def output_name(signature: Signature, k: int) -> str:
    """The k-th output of the graph in a message."""
    if k < signature.n_outputs:
        return f"output {k}, {describe(signature.graph.outputs[k])},"
    return f"the update of {describe(signature.written[k - signature.n_outputs])}"


def explain(signature: Signature, arrays: Sequence[np.ndarray], k: int, result: np.ndarray,
            bad: Bad) -> str:
    """Where the bad elements of the k-th result come from."""
    inputs = dict(zip(signature.graph.inputs, arrays, strict=True))
    value = signature.graph.outputs[k]
    sizes = Sizes()
    with np.errstate(all="ignore"):
        known = every_value([value], inputs, sizes)
        nan = bool((_nans(result) & bad(result)).any())
        look = _nans if nan else not_finite
        wanted = look(known[value])
        if not wanted.any():
            return ("The interpreter computes finite numbers there: compiled code treats denormal "
                    "numbers as zero, and rounds sums in another order.")
        first = _text_of(_Trace(look).run({value: wanted}, known, sizes), known, look)
        if not nan or not first.infinite:
            return str(first)
        origin = _Trace(not_finite).run({value: wanted}, known, sizes)
        cause = str(_text_of(origin, known, _infs))
    return f"{first}" if cause == str(first) else f"{first}\n{cause}"


@dataclass(frozen=True)
class Step:
    """Round ``t`` of ``n`` of a scan."""

    t: int
    n: int
    node: Node

    def __str__(self) -> str:
        op: Any = self.node.op
        title = f"scan {op.name!r}" if op.name else "the scan"
        source = self.node.outputs[0].source
        where = f" at {source}" if source else ""
        order = ", which walks from the last step to the first" if op.name == "backwards" else ""
        return f"step {self.t} (of {self.n}) of {title}{where}{order}"


@dataclass(frozen=True)
class Origin:
    """A node whose results are bad though its operands are not, in which steps of scans."""

    node: Node
    operands: tuple[np.ndarray, ...]
    results: tuple[np.ndarray, ...]
    steps: tuple[Step, ...] = ()

    @property
    def infinite(self) -> bool:
        """Does an operand hold an infinity?"""
        return any(_infs(a).any() for a in self.operands)

    def __str__(self) -> str:
        bad = next(_nans if _nans(r).any() else _infs for r in self.results
                   if not_finite(r).any())
        out = self.node.outputs[0]
        named = f" (named {out.name!r})" if out.name else ""
        where = f" at {out.source}" if out.source else ""
        inside = "".join(f", in {step}" for step in reversed(self.steps))
        kind = "nan" if bad is _nans else "inf"
        names = ", ".join(v.name or "..." for v in self.node.inputs)
        lines = [f"The first {kind} is made by {self.node.op}({names}){named}{where}{inside}; it "
                 "reads"]
        lines += [f"    {describe(v)}: {summary(a)}"
                  for v, a in zip(self.node.inputs, self.operands, strict=True)]
        return "\n".join(lines if self.node.inputs else [lines[0].replace("; it reads", "")])


@dataclass(frozen=True)
class Given:
    """A leaf that was bad when the call began."""

    leaf: Value
    array: np.ndarray
    bad: Bad
    infinite: bool = False

    def __str__(self) -> str:
        kind = "shared variable" if isinstance(self.leaf, SharedVariable) else "input"
        return (f"The {kind} {describe(self.leaf)} {_counts(self.array, self.bad)} "
                "already when the call began.")


def _text_of(found: tuple[list[Origin], Masks], known: Mapping[Value, np.ndarray], bad: Bad
             ) -> Origin | Given:
    origins, leaves = found
    for leaf in leaves:
        return Given(leaf, known[leaf], bad)
    return origins[0]


class _Trace:
    """Traces bad elements back to the nodes, or leaves, that they come from."""

    def __init__(self, bad: Bad) -> None:
        self.bad = bad

    def run(self, wanted: Masks, known: Mapping[Value, np.ndarray], sizes: Sizes
            ) -> tuple[list[Origin], Masks]:
        """The origins of the elements that the masks in ``wanted`` select, in the order of the
        program, and the bad elements of leaves that they come from."""
        masks, origins = dict(wanted), list[Origin]()
        for node in reversed(toposort(wanted, stop=())):
            if all(v not in masks for v in node.outputs):
                continue
            arrays = [known[v] for v in node.inputs]
            inner: list[Origin] = []
            if isinstance(node.op, Scan):
                inner, found = self._through_scan(node, node.op, masks, arrays, sizes)
            else:
                found = self._operands(node, masks[node.outputs[0]] if len(node.outputs) == 1
                                       else None, arrays, sizes)
            for v, mask in zip(node.inputs, found, strict=True):
                _join(masks, v, mask)
            if not inner and not any(m is not None and m.any() for m in found):
                results = tuple(known[v] for v in node.outputs)
                inner = [Origin(node, tuple(arrays), results)]
            origins = inner + origins
        return origins, {v: m for v, m in masks.items() if v.node is None and m.any()}

    def _operands(self, node: Node, mask: np.ndarray | None, arrays: Sequence[np.ndarray],
                  sizes: Sizes) -> list[np.ndarray | None]:
        """Per operand its bad elements that the selected elements of the result come from."""
        bads: list[np.ndarray | None] = [
            b if (b := self.bad(a)).any() else None for a in arrays]
        if mask is None or not any(b is not None for b in bads):
            return bads
        if isinstance(node.op, Elemwise):
            chosen = [mask] * len(arrays)
            if node.op.fn.name == "switch":
                chosen[1:] = mask & arrays[0], mask & ~arrays[0]
            return [None if b is None else b & c for b, c in zip(bads, chosen, strict=True)]
        if isinstance(node.op, Reduce):
            rows = np.expand_dims(mask, node.op.axes)
            return [None if b is None else b & rows for b in bads]
        if isinstance(node.op, _MOVES):
            return _moved(node, mask, arrays, bads, sizes)
        return bads

    def _through_scan(self, node: Node, op: Scan, wanted: Masks, arrays: Sequence[np.ndarray],
                      sizes: Sizes) -> tuple[list[Origin], list[np.ndarray | None]]:
        """From the last step that was asked for to the first."""
        rounds = list(_rounds(op, arrays, sizes))
        asked = op.groups.outputs([wanted.get(v) for v in node.outputs])
        params, results = op.groups.inputs(op.body.inputs), op.groups.outputs(op.body.outputs)
        outer: list[np.ndarray | None] = [None] * len(arrays)
        late: tuple[Any, ...] = asked.carries
        origins: list[Origin] = []
        for t in reversed(range(len(rounds))):
            now: Masks = {}
            for v, m in zip(results.carries, late, strict=True):
                _join(now, v, m)
            for v, m in zip(results.stacks, asked.stacks, strict=True):
                _join(now, v, None if m is None else m[t])
            late = (None,) * len(params.carries)
            if not now:
                continue
            known = every_value(op.body.outputs, rounds[t], inner := Sizes(sizes.env))
            found, leaves = self.run(now, known, inner)
            step = Step(t, len(rounds), node)
            origins = [dataclasses.replace(o, steps=(*o.steps, step)) for o in found] + origins
            late = tuple(leaves.get(p) for p in params.carries)
            _note_outer(op, outer, arrays, leaves, t)
        first = len(params.seqs)
        outer[first:first + len(late)] = late
        return origins, outer


def _note_outer(op: Scan, outer: list[np.ndarray | None], arrays: Sequence[np.ndarray],
                leaves: Masks, t: int) -> None:
    """Bad elements of rows and constants, as elements of what the scan was given."""
    groups = op.groups
    for k, p in enumerate(op.body.inputs):
        if p not in leaves or groups.seqs <= k < groups.seqs + groups.carries:
            continue
        mask = outer[k]
        if mask is None:
            mask = outer[k] = np.zeros(arrays[k].shape, bool)
        if k < groups.seqs:
            mask[t] |= leaves[p]
        else:
            mask |= leaves[p]


def _rounds(op: Scan, arrays: Sequence[np.ndarray], sizes: Sizes
            ) -> Iterator[dict[Value, np.ndarray]]:
    """Per step the arrays of the body's inputs."""
    given, params = op.groups.inputs(arrays), op.groups.inputs(op.body.inputs)
    news = op.groups.outputs(op.body.outputs).carries
    carries = given.carries
    for t in range(sizes(op.n_steps)):
        known = dict(zip(params.seqs, (s[t] for s in given.seqs), strict=True))
        known.update(zip(params.carries, carries, strict=True))
        known.update(zip(params.consts, given.consts, strict=True))
        yield known
        values = every_value(news, known, Sizes(sizes.env))
        carries = tuple(values[v] for v in news)


def _moved(node: Node, mask: np.ndarray, arrays: Sequence[np.ndarray],
           bads: Sequence[np.ndarray | None], sizes: Sizes) -> list[np.ndarray | None]:
    """The bad elements that were moved to where ``mask`` is: numbers of elements are moved."""
    numbers, start = list(arrays), 1
    for k, a in enumerate(arrays):
        if a.dtype.kind == "f":
            numbers[k] = np.arange(start, start + a.size, dtype=np.float64).reshape(a.shape)
            start += a.size
    (moved,) = node.op.numpy(sizes, *numbers)
    seen = np.zeros(start, bool)
    seen[np.asarray(moved)[mask].astype(np.int64)] = True
    return [None if b is None else b & seen[n.astype(np.int64)]
            for b, n in zip(bads, numbers, strict=True)]


def _join(masks: Masks, v: Value, mask: np.ndarray | None) -> None:
    if mask is not None and mask.any():
        masks[v] = masks[v] | mask if v in masks else mask


def _first_inside(outputs: Sequence[Value], inputs: Mapping[Value, np.ndarray], sizes: Sizes,
                  ) -> Origin | Given | None:
    """The first value that is bad at all, in the order of the program."""
    with np.errstate(all="ignore"):
        known = every_value(outputs, inputs, sizes)
        for leaf, array in inputs.items():
            if not_finite(array).any():
                return Given(leaf, array, not_finite)
        for node in toposort(outputs):
            arrays = [known[v] for v in node.inputs]
            if isinstance(node.op, Scan):
                rounds = list(_rounds(node.op, arrays, sizes))
                for t, given in enumerate(rounds):
                    found = _first_inside(node.op.body.outputs, given, Sizes(sizes.env))
                    if isinstance(found, Origin):
                        step = Step(t, len(rounds), node)
                        return dataclasses.replace(found, steps=(*found.steps, step))
            results = tuple(known[v] for v in node.outputs)
            if any(not_finite(r).any() for r in results):
                return Origin(node, tuple(arrays), results)
    return None


# --- arrays ---------------------------------------------------------------------------------


def _nans(a: np.ndarray) -> np.ndarray:
    return np.isnan(a) if a.dtype.kind == "f" else np.zeros(a.shape, bool)


def _infs(a: np.ndarray) -> np.ndarray:
    return np.isinf(a) if a.dtype.kind == "f" else np.zeros(a.shape, bool)


def not_finite(a: np.ndarray) -> np.ndarray:
    """Which elements are nan or infinite; none of integers."""
    return ~np.isfinite(a) if a.dtype.kind == "f" else np.zeros(a.shape, bool)


def _counts(a: np.ndarray, bad: Bad) -> str:
    """'holds 2 nan among 6 elements, the first at (0, 1)'."""
    mask = bad(a)
    words = [f"{n} {word}" for word, n in (("nan", int((_nans(a) & mask).sum())),
                                           ("inf", int((_infs(a) & mask).sum()))) if n]
    text = "holds " + " and ".join(words)
    if a.ndim:
        at = tuple(int(i) for i in np.argwhere(mask)[0])
        text += f" among {a.size} elements, the first at {at}"
    return text


def summary(a: np.ndarray) -> str:
    """An array in a few words: shape, the range of its finite elements, how many are not."""
    shape = f"shape {a.shape}, " if a.ndim else ""
    if not a.size:
        return f"{shape}no elements"
    bad = not_finite(a)
    words = [f"{int(m.sum())} {word}" for word, m in (("nan", _nans(a)), ("inf", _infs(a)))
             if m.any()]
    if not bad.all():
        low, high = a[~bad].min(), a[~bad].max()
        words.insert(0, f"{low}" if low == high else f"from {low} to {high}")
    return shape + ", ".join(words)
