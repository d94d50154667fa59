"""Einstein's summation: labels instead of axes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from tinygraph.graph import describe
from tinygraph.ops import views
from tinygraph.ops.arithmetic import reduce_
from tinygraph.tensor.linalg import contract, diagonal, pair
from tinygraph.tensor.shaping import pinned
from tinygraph.tensor.variable import as_tensor_variable

Label = Hashable


def einsum(subscripts: Any, *operands: Any, optimize: Any = None) -> Any:
    """The sum of products that ``subscripts`` name, as NumPy has it: ``einsum("ij,jk->ik", x, y)``.

    A label per axis; axes that share one run together, a label that is not behind the arrow is
    summed over.  Without an arrow the result has the labels that stand once, in alphabetical
    order.  ``...`` stands for axes that broadcast; a label that stands twice in one operand takes
    its diagonal.  Also ``einsum(x, [0, 1], y, [1, 2], [0, 2])``.

    Operands are multiplied from left to right; ``optimize`` is NumPy's and says nothing here.
    Raises ValueError where labels do not fit the operands.
    """
    del optimize
    if not isinstance(subscripts, str):
        terms, out, arrays = _interleaved([subscripts, *operands])
    else:
        terms, out = _parsed(subscripts)
        arrays = list(operands)
    if len(terms) != len(arrays):
        raise ValueError(f"einsum: labels for {len(terms)} operands, but there are {len(arrays)}")
    values = [as_tensor_variable(x) for x in arrays]
    labelled = [_spelt_out(t, v) for t, v in zip(terms, values, strict=True)]
    target = _target(out, labelled)
    pairs = [_distinct(labels, v) for labels, v in zip(labelled, values, strict=True)]
    return _product(_without_stretched(pairs), target)


def _parsed(text: str) -> tuple[list[list[Label]], list[Label] | None]:
    left, arrow, right = text.replace(" ", "").partition("->")
    return [_letters(term, text) for term in left.split(",")], (
        _letters(right, text) if arrow else None)


def _letters(term: str, text: str) -> list[Label]:
    before, dots, after = term.partition("...")
    letters: list[Label] = [*before, *([...] if dots else []), *after]
    if not all(x is ... or (isinstance(x, str) and x.isalpha()) for x in letters):
        raise ValueError(f"einsum: {term!r} in {text!r} must be letters, with one '...' at most")
    return letters


def _interleaved(items: Sequence[Any]) -> tuple[list[list[Label]], list[Label] | None, list[Any]]:
    out = list(items[-1]) if len(items) % 2 else None
    stop = len(items) - len(items) % 2
    return [list(x) for x in items[1:stop:2]], out, list(items[:stop:2])


def _spelt_out(labels: list[Label], x: Any) -> list[Label]:
    """A label per axis of ``x``: those that the dots stand for are ("...", places from the end)."""
    named = len(labels) - labels.count(...)
    if x.ndim < named or (x.ndim > named and ... not in labels):
        raise ValueError(f"einsum: {named} labels for {describe(x)}, which has {x.ndim} axes")
    if ... not in labels:
        return labels
    at = labels.index(...)
    dots: list[Label] = [("...", k) for k in range(x.ndim - named, 0, -1)]
    return [*labels[:at], *dots, *labels[at + 1:]]


def _is_dots(label: Label) -> bool:
    return isinstance(label, tuple)


def _target(out: list[Label] | None, labelled: list[list[Label]]) -> list[Label]:
    every = [label for labels in labelled for label in labels]
    dots = sorted({e for e in every if _is_dots(e)}, key=lambda e: -e[1])  # type: ignore[index]
    if out is None:
        once = [e for e in dict.fromkeys(every) if not _is_dots(e) and every.count(e) == 1]
        return [*dots, *sorted(once)]  # type: ignore[type-var]
    target: list[Label] = []
    for label in out:
        target.extend(dots if label is ... else [label])
    if len(set(target)) != len(target) or not set(target) <= set(every):
        raise ValueError(f"einsum: the result's labels {out} must be labels of operands, each once")
    return target


def _distinct(labels: list[Label], x: Any) -> tuple[list[Label], Any]:
    """``x`` with every label once: of axes that share one, the diagonal."""
    labels = list(labels)
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            x = diagonal(pinned(x, j, x.type.dims[i]), 0, i, j)
            labels = [e for k, e in enumerate(labels) if k not in (i, j)] + [label]
    return labels, x


def _without_stretched(pairs: list[tuple[list[Label], Any]]) -> list[tuple[list[Label], Any]]:
    """Axes known to be 1 meet any size by broadcasting: without them, their operand serves all."""
    wide = {label for labels, x in pairs for label, d in zip(labels, x.type.dims, strict=True)
            if d != 1}
    out = []
    for labels, x in pairs:
        ones = [k for k, (label, d) in enumerate(zip(labels, x.type.dims, strict=True))
                if d == 1 and label in wide]
        out.append(([e for k, e in enumerate(labels) if k not in ones], views.squeeze(x, ones)))
    return out


def _product(pairs: list[tuple[list[Label], Any]], target: list[Label]) -> Any:
    labels, x = pairs[0]
    labels, x = _summed(labels, x, [*target, *_labels(pairs[1:])])
    for k, (other, y) in enumerate(pairs[1:], start=2):
        needed = [*target, *_labels(pairs[k:])]
        other, y = _summed(other, y, [*needed, *labels])
        labels, x = _summed(labels, x, [*needed, *other])
        out = [e for e in dict.fromkeys([*labels, *other]) if e in needed]
        if k == len(pairs):
            out = list(target)
        x, y = pair(x, y)
        x, labels = contract(labels, other, out, x, y), out
    return views.transpose(x, [labels.index(e) for e in target])


def _labels(pairs: list[tuple[list[Label], Any]]) -> list[Label]:
    return [label for labels, _ in pairs for label in labels]


def _summed(labels: list[Label], x: Any, needed: Sequence[Label]) -> tuple[list[Label], Any]:
    """``x`` summed over the labels that nobody else has."""
    over = [k for k, e in enumerate(labels) if e not in needed]
    return [e for e in labels if e in needed], reduce_("sum", x, over)
