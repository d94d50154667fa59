"""check=True: every call is run by the interpreter too, and what differs is named.

So is the first operation that makes a nan (or an inf, if nothing makes a nan) out of finite
numbers: its line in the user's program, and the step of the scan in which it happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph.compile.signature import Signature
from tinygraph.errors import CheckError
from tinygraph.graph import Node, Value, describe, leaves, op_dims, toposort
from tinygraph.interpret import Sizes, evaluate
from tinygraph.scan_module.op import Scan

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


def check_call(signature: Signature, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray]
               ) -> None:
    """Raise CheckError if ``results`` are not what the interpreter computes from ``arrays``, or
    hold a nan or inf although every input is finite."""
    graph = signature.graph
    inputs = dict(zip(graph.inputs, arrays, strict=True))
    expected = evaluate(graph.outputs, inputs)
    for k, (got, want) in enumerate(zip(results, expected, strict=True)):
        _compare(output_name(signature, k), np.asarray(got), np.asarray(want))
    if all(_finite(a) for a in arrays):
        for k, (got, value) in enumerate(zip(results, graph.outputs, strict=True)):
            if not _finite(got):
                raise CheckError(_blame(output_name(signature, k), value, inputs))


def output_name(signature: Signature, k: int) -> str:
    """The k-th output of the graph in a message."""
    if k < signature.n_outputs:
        return f"output {k}, {describe(signature.graph.outputs[k])},"
    return f"the update of {describe(signature.written[k - signature.n_outputs])}"


def _compare(name: str, got: np.ndarray, want: np.ndarray) -> None:
    if got.shape != want.shape or got.dtype != want.dtype:
        raise CheckError(f"{name} came out as {got.dtype} of shape {got.shape}, but the "
                         f"interpreter gives {want.dtype} of shape {want.shape}")
    if got.dtype.kind != "f":
        wrong = got != want
    else:
        with np.errstate(all="ignore"):
            finite = np.abs(want[np.isfinite(want)]).astype(np.float64)
            scale = float(finite.max()) if finite.size else 0.0
            close = np.abs(got - want) <= TOLERANCE[got.dtype.name] * max(scale, 1e-30)
        wrong = ~(close | (got == want) | (np.isnan(got) & np.isnan(want)))
    if np.any(wrong):
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise CheckError(f"{name} differs at position {at}: compiled code gives {got[at]!r}, the "
                         f"interpreter {want[at]!r} ({int(wrong.sum())} of {wrong.size} "
                         "elements differ)")


def _finite(a: np.ndarray) -> bool:
    return a.dtype.kind != "f" or bool(np.isfinite(a).all())


def _has_nan(a: np.ndarray) -> bool:
    return a.dtype.kind == "f" and bool(np.isnan(a).any())


def _not_finite(a: np.ndarray) -> bool:
    return not _finite(a)


@dataclass(frozen=True)
class Culprit:
    """The node that made the first bad number, and the steps of the scans around it."""

    node: Node
    steps: tuple[int, ...] = ()

    def __str__(self) -> str:
        out = self.node.outputs[0]
        names = ", ".join(describe(v) for v in self.node.inputs)
        text = str(self.node.op) + (f" of {names}" if names else "")
        if out.name:
            text += f" (named {out.name!r})"
        if out.source:
            text += f" at {out.source}"
        if self.steps:
            text += f", in step {', '.join(map(str, self.steps))} of the scan"
        return text


def _blame(name: str, value: Value, inputs: Mapping[Value, np.ndarray]) -> str:
    for kind, bad in (("nan", _has_nan), ("inf", _not_finite)):
        found = _first([value], inputs, Sizes(), bad)
        if found is not None:
            return (f"{name} is not finite although every input is: the first {kind} comes "
                    f"from {found}")
    return f"{name} is not finite although every input is; the interpreter's result is finite"


def _first(outputs: Sequence[Value], inputs: Mapping[Value, np.ndarray], sizes: Sizes,
           bad: Callable[[np.ndarray], bool]) -> Culprit | None:
    """The first node whose result is bad though its operands are not."""
    known = dict(inputs)
    for v, a in inputs.items():
        sizes.learn(v, a)
    for node in toposort(outputs):
        for d in op_dims(node.op):
            for s in d.syms():
                if s not in sizes.env and s.value is not None:
                    given = {v: known[v] for v in leaves([s.value])}
                    sizes.env[s] = int(evaluate([s.value], given, Sizes(sizes.env))[0])
        arrays = [known[v] for v in node.inputs]
        for out, a in zip(node.outputs, node.op.numpy(sizes, *arrays), strict=True):
            known[out] = a
            sizes.learn(out, a)
        if any(bad(known[v]) for v in node.outputs) and not any(map(bad, arrays)):
            inner = _in_scan(node.op, arrays, sizes, bad) if isinstance(node.op, Scan) else None
            return inner or Culprit(node)
    return None


def _in_scan(op: Scan, arrays: Sequence[Any], sizes: Sizes, bad: Callable[[np.ndarray], bool]
             ) -> Culprit | None:
    given, params = op.groups.inputs(arrays), op.groups.inputs(op.body.inputs)
    carries = list(given.carries)
    for t in range(sizes(op.n_steps)):
        known = dict(zip(params.seqs, (s[t] for s in given.seqs), strict=True))
        known.update(zip(params.carries, carries, strict=True))
        known.update(zip(params.consts, given.consts, strict=True))
        found = _first(op.body.outputs, known, Sizes(sizes.env), bad)
        if found is not None:
            return Culprit(found.node, (t, *found.steps))
        results = evaluate(op.body.outputs, known, Sizes(sizes.env))
        carries = list(op.groups.outputs(results).carries)
    return None
