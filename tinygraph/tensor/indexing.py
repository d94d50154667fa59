"""NumPy's indexing, reading and writing.

An index becomes a list of steps, each of which can be read (array to part) and written (array
and new part to new array).  Reading runs them forwards; ``set_subtensor`` and ``inc_subtensor``
run them back.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygraph.dims import Dim, dim, floordiv, maximum, minimum, nonnegative, product
from tinygraph.dtypes import int64
from tinygraph.graph import Value, apply, describe, kind_name
from tinygraph.ops import views
from tinygraph.ops.arithmetic import (
    as_value,
    broadcast_to,
    broadcast_together,
    cast,
    constant_value,
    elementwise,
    full,
)
from tinygraph.ops.index import Put, Take
from tinygraph.ops.nonzero import nonzero
from tinygraph.ops.sizes import as_dim, size_value
from tinygraph.ops.views import Region, SetSlice, Slice
from tinygraph.tensor.shaping import insert_axes, pinned

# --- steps ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A strided part of every axis."""

    region: Region

    def read(self, x: Any) -> Any:
        return apply(Slice(self.region), x)[0]

    def write(self, x: Any, y: Any, mode: str) -> Any:
        return y if self.region.is_whole(x.type.dims) else apply(SetSlice(self.region), x, y)[0]


@dataclass(frozen=True)
class Drop:
    """Without ``axes``, of size 1."""

    axes: tuple[int, ...]

    def read(self, x: Any) -> Any:
        return views.squeeze(x, self.axes)

    def write(self, x: Any, y: Any, mode: str) -> Any:
        return insert_axes(y, self.axes)


@dataclass(frozen=True)
class Insert:
    """New axes of size 1 at ``places`` of the result."""

    places: tuple[int, ...]

    def read(self, x: Any) -> Any:
        return insert_axes(x, self.places)

    def write(self, x: Any, y: Any, mode: str) -> Any:
        return views.squeeze(y, self.places)


@dataclass(frozen=True)
class Arrange:
    """Axes in another order."""

    perm: tuple[int, ...]

    def read(self, x: Any) -> Any:
        return views.transpose(x, self.perm)

    def write(self, x: Any, y: Any, mode: str) -> Any:
        return views.transpose(y, [self.perm.index(k) for k in range(len(self.perm))])


@dataclass(frozen=True)
class Merge:
    """``count`` axes from ``axis`` on as one."""

    axis: int
    count: int

    def read(self, x: Any) -> Any:
        a, b = self.axis, self.axis + self.count
        dims = x.type.dims
        return views.reshape(x, [*dims[:a], product(dims[a:b]), *dims[b:]])

    def write(self, x: Any, y: Any, mode: str) -> Any:
        return views.reshape(y, x.type.dims)


@dataclass(frozen=True, eq=False)
class Pick:
    """``index`` (integers of any rank) along ``axis``."""

    axis: int
    index: Any

    def read(self, x: Any) -> Any:
        return apply(Take(self.axis), x, self.index)[0]

    def write(self, x: Any, y: Any, mode: str) -> Any:
        return apply(Put(self.axis, mode), x, self.index, y)[0]


Step = Part | Drop | Insert | Arrange | Merge | Pick


# --- one axis -------------------------------------------------------------------------------


def integer_index(x: Any, axis: int, index: Dim) -> Dim:
    """``index`` counted from the front.  Raises IndexError if it is out of range for sure."""
    n, known = x.type.dims[axis], index.const
    if known is None:
        return index
    if n.const is not None and not -n.const <= known < n.const:
        raise IndexError(f"index {known} is out of range for axis {axis} of {describe(x)}, whose "
                         f"size is {n}")
    return n + known if known < 0 else index


def slice_span(n: Dim, s: slice) -> tuple[Dim, Dim, int]:
    """First index, number of indices and step of ``s`` on an axis of size ``n``, as Python's
    ``slice.indices`` gives them.  Raises TypeError for a step that is no constant."""
    step = 1 if s.step is None else _constant_int(s.step, "the step of a slice")
    if step == 0:
        raise ValueError("the step of a slice must not be 0")
    start = None if s.start is None else as_dim(s.start)
    stop = None if s.stop is None else as_dim(s.stop)
    return _span_up(n, start, stop, step) if step > 0 else _span_down(n, start, stop, step)


def _constant_int(x: Any, what: str) -> int:
    if isinstance(x, Value):
        known = constant_value(x)
        if known is None or known.size != 1:
            raise TypeError(f"{what} must be a constant, not {describe(x)}")
        x = known.item()
    return operator.index(x)


def _wrapped(bound: Dim, n: Dim) -> Dim:
    """A bound counted from the front: n is added where it is negative."""
    if bound.const is not None:
        return n + bound if bound.const < 0 else bound
    past = (n - bound).const
    if nonnegative(bound) or (past is not None and past <= 2):
        return bound  # for n - 1 and n - 2, wrapping again gives what clamping gives
    return bound + n * minimum(maximum(-bound, dim(0)), dim(1))


def _span_up(n: Dim, start: Dim | None, stop: Dim | None, step: int) -> tuple[Dim, Dim, int]:
    end = n if stop is None else maximum(minimum(_wrapped(stop, n), n), dim(0))
    if start is None:
        first = dim(0)
    else:
        first = _wrapped(start, n)
        if end == n and step == 1 and ((n - first).const or 0) > 0:
            length = minimum(n, n - first)  # x[-3:] has min(n, 3) elements
            return n - length, length, step
        first = maximum(first, dim(0))
    if first.const is not None and n.const is not None:
        first = dim(min(first.const, n.const))
    span = maximum(end - first, dim(0))
    return first, span if step == 1 else floordiv(span + (step - 1), dim(step)), step


def _span_down(n: Dim, start: Dim | None, stop: Dim | None, step: int) -> tuple[Dim, Dim, int]:
    low, high = dim(-1), n - 1
    first = high if start is None else maximum(minimum(_wrapped(start, n), high), low)
    end = low if stop is None else maximum(minimum(_wrapped(stop, n), high), low)
    span = maximum(first - end, dim(0))
    return first, span if step == -1 else floordiv(span + (-step - 1), dim(-step)), step


# --- parsing --------------------------------------------------------------------------------


def _entries(x: Any, index: Any) -> list[Any]:
    """One entry per axis of ``x`` and per new axis: slices, integers, None, arrays."""
    if isinstance(index, list) and any(isinstance(i, (slice, tuple)) or i is None or i is Ellipsis
                                       for i in index):
        index = tuple(index)
    raw = index if isinstance(index, tuple) else (index,)
    items: list[Any] = []
    for item in raw:
        items.extend(_normal(x, item))
    used = sum(i is not None and i is not Ellipsis for i in items)
    if used > x.ndim:
        raise IndexError(f"{used} indices for {describe(x)}, which has {x.ndim} axes")
    dots = [k for k, i in enumerate(items) if i is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can hold only one Ellipsis")
    at = dots[0] if dots else len(items)
    return items[:at] + [slice(None)] * (x.ndim - used) + items[at + 1:]


def _normal(x: Any, item: Any) -> list[Any]:
    """One entry of an index as slices, ints, None, Ellipsis or integer variables."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return [item]
    if isinstance(item, (bool, np.bool_)):
        raise TypeError(f"{describe(x)} cannot be indexed by {item}; write T.switch to choose")
    if isinstance(item, (int, np.integer)):
        return [int(item)]
    if isinstance(item, (list, tuple)) and any(isinstance(i, Value) for i in item):
        item = views.concatenate([insert_axes(cast(as_value(i, x), int64), [0]) for i in item], 0)
    if not isinstance(item, Value):
        item = np.asarray(item)
        item = item.astype(np.int64) if item.size == 0 else item
        if item.dtype.kind not in "biu":
            raise TypeError(f"{describe(x)} is indexed by {item!r}; an index must be an integer, "
                            "a slice, None, or an array of integers")
        item = as_value(item, x)
    kind = item.type.dtype
    if kind.kind == "b":
        known = constant_value(item)
        if known is None and item.ndim:
            places = nonzero(item)
            for d, place in zip(item.type.dims, places, strict=True):
                place.mask_size = d
            return places
        if known is None:
            raise TypeError(f"{describe(x)} cannot be indexed by {describe(item)}, a boolean "
                            "without axes; write T.switch to choose")
        return _mask_entries(known, x)
    if not kind.is_int:
        raise TypeError(f"{describe(x)} cannot be indexed by {describe(item)}; cast the index to "
                        "an integer dtype")
    return [item]


def _mask_entries(mask: np.ndarray, x: Any) -> list[Any]:
    """The integer arrays of a constant boolean mask, which remember its sizes."""
    out = []
    for size, places in zip(mask.shape, mask.nonzero(), strict=True):
        value = as_value(places.astype(np.int64), x)
        value.mask_size = size
        out.append(value)
    return out


@dataclass
class _Axes:
    """What an index does to the axes, collected in one pass over its entries."""

    starts: list[Dim] = field(default_factory=list)
    lengths: list[Dim] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)     # axes of integers known as Dims
    scalars: list[tuple[int, Any]] = field(default_factory=list)   # axis, 0-d variable
    arrays: list[tuple[int, Any]] = field(default_factory=list)    # axis, index variable

    def add(self, start: Dim | int, length: Dim, step: int = 1) -> None:
        self.starts.append(dim(start))
        self.lengths.append(length)
        self.steps.append(step)


def index_steps(x: Any, index: Any) -> tuple[Any, list[Step]]:
    """``x`` (with the sizes that masks tell) and the steps that read ``x[index]``."""
    entries = _entries(x, index)
    axes = _Axes()
    for entry in entries:
        if entry is None:
            continue
        k = len(axes.starts)
        n = x.type.dims[k]
        if isinstance(entry, slice):
            axes.add(*slice_span(n, entry))
            continue
        if isinstance(entry, int) or (entry.ndim == 0 and _is_size(entry)):
            axes.add(integer_index(x, k, as_dim(entry)), dim(1))
            axes.dropped.append(k)
            continue
        x = _checked_array(x, k, entry)
        axes.add(0, x.type.dims[k])
        (axes.arrays if entry.ndim else axes.scalars).append((k, entry))
    return x, _assembled(x, entries, axes)


def _is_size(index: Any) -> bool:
    """Is this scalar a polynomial of sizes (not of the values of variables)?"""
    return all(s.value is None for s in as_dim(index).syms())


def _checked_array(x: Any, k: int, index: Any) -> Any:
    """``x``; constant indices are checked against a known size."""
    size = getattr(index, "mask_size", None)
    if size is not None:
        return pinned(x, k, dim(size))
    n, known = x.type.dims[k].const, constant_value(index)
    if n is not None and known is not None and known.size:
        for bad in (int(known.min()), int(known.max())):
            if not -n <= bad < n:
                raise IndexError(f"index {bad} is out of range for axis {k} of {describe(x)}, "
                                 f"whose size is {n}")
    return x


def _assembled(x: Any, entries: list[Any], axes: _Axes) -> list[Step]:
    steps: list[Step] = []
    region = Region(tuple(axes.starts), tuple(axes.lengths), tuple(axes.steps))
    if not region.is_whole(x.type.dims):
        steps.append(Part(region))
    if axes.dropped:
        steps.append(Drop(tuple(axes.dropped)))
    left = [k for k in range(x.ndim) if k not in axes.dropped]
    for k, scalar in reversed(axes.scalars):
        steps.append(Pick(left.index(k), scalar))
        left.remove(k)
    block = 0
    if axes.arrays:
        places = [left.index(k) for k, _ in axes.arrays]
        sizes = [axes.lengths[k] for k, _ in axes.arrays]
        front = not _adjacent(entries)
        arrays = [index for _, index in axes.arrays]
        steps += _picks(places, sizes, arrays, len(left), front)
        block = max(index.ndim for index in arrays)
    news = _new_places(entries, block)
    if news:
        steps.append(Insert(tuple(news)))
    if not steps:
        steps.append(Part(region))
    return steps


def _advanced(entry: Any) -> bool:
    """Does NumPy count this entry among the advanced ones?  Integers are, beside arrays."""
    return entry is not None and not isinstance(entry, slice)


def _is_array(entry: Any) -> bool:
    return isinstance(entry, Value) and entry.ndim > 0


def _adjacent(entries: list[Any]) -> bool:
    """Do the advanced entries stand side by side?"""
    places = [k for k, e in enumerate(entries) if _advanced(e)]
    return places[-1] - places[0] + 1 == len(places)


def _picks(places: list[int], sizes: list[Dim], arrays: list[Any], rank: int, front: bool
           ) -> list[Step]:
    """The steps of array indices on the axes ``places`` of an array of ``rank`` axes."""
    at = 0 if front else places[0]
    rest = [k for k in range(rank) if k not in places]
    perm = (*rest[:at], *places, *rest[at:])
    steps: list[Step] = [] if perm == tuple(range(rank)) else [Arrange(perm)]
    if len(places) == 1:
        return [*steps, Pick(at, arrays[0])]
    cls = type(arrays[0]).result_class()
    wide = broadcast_together([cast(a, int64) for a in arrays])
    flat: Any = full(0, (), int64, cls)
    inside: Any = None
    for index, n in zip(wide, sizes, strict=True):
        size = size_value(n, cls)
        good = (index >= -size) & (index < size)
        inside = good if inside is None else inside & good
        flat = flat * size + elementwise("switch", index < 0, index + size, index)
    # An index that leaves its own axis must not land inside the merged one.
    checked = elementwise("switch", inside, flat, size_value(product(tuple(sizes)), cls))
    checked.name = f"the joint index of {', '.join(map(describe, arrays))}"
    return [*steps, Merge(at, len(places)), Pick(at, checked)]


def _new_places(entries: list[Any], block: int) -> list[int]:
    """Where new axes stand in the result; ``block`` axes replace the arrays together."""
    arrays = any(_is_array(e) for e in entries)
    front = arrays and not _adjacent(entries)
    place, news, seen = (block if front else 0), [], front
    for entry in entries:
        if entry is None:
            news.append(place)
            place += 1
        elif isinstance(entry, slice):
            place += 1
        elif arrays and not seen and _advanced(entry):
            seen = True
            place += block
    return news


# --- the face -------------------------------------------------------------------------------


def getitem(x: Any, index: Any) -> Any:
    """``x[index]``, as NumPy reads it.  The result remembers where it comes from, so that
    ``set_subtensor`` can write there.

    Raises IndexError for too many indices and for a constant index out of range; an index that
    only the run knows raises IndexError there.
    """
    x, steps = index_steps(x, index)
    values = [x]
    for step in steps:
        values.append(step.read(values[-1]))
    values[-1].slot = Slot(tuple(values), tuple(steps))
    return values[-1]


@dataclass(frozen=True, eq=False)
class Slot:
    """Where a part was read: the array, every step, and what each step gave."""

    values: tuple[Any, ...]
    steps: tuple[Step, ...]

    def write(self, y: Any, add: bool) -> Any:
        """The array with ``y`` (of the shape of the part) written or added."""
        picks = [k for k, s in enumerate(self.steps) if isinstance(s, Pick)]
        adding = picks[-1] if add and picks else -1
        if add and not picks:
            y = self.values[-1] + y
        for k in reversed(range(len(self.steps))):
            y = self.steps[k].write(self.values[k], y, "add" if k == adding else "set")
        return y


def _write(part: Any, y: Any, add: bool) -> Any:
    name = "inc_subtensor" if add else "set_subtensor"
    slot = getattr(part, "slot", None)
    if slot is None:
        what = describe(part) if isinstance(part, Value) else repr(part)
        raise TypeError(f"{name} takes an indexed variable such as x[0:2], not {what}")
    base = slot.values[0]
    y = as_value(y, base)
    if y.ndim > part.ndim:
        raise TypeError(f"{name}: {describe(y)} has more axes than the part it is written to, "
                        f"which is a {kind_name(part.type)}")
    return slot.write(broadcast_to(cast(y, base.type.dtype), part.type.dims), add)


def set_subtensor(x: Any, y: Any) -> Any:
    """The array of which ``x`` is a part, such as ``a[1:3]``, with ``y`` in that place.

    y broadcasts into the place and takes the array's dtype; the array itself does not change.
    Where an integer array names a place twice, the last write stays.
    Raises TypeError where ``x`` is no part of an array or ``y`` has more axes.
    """
    return _write(x, y, add=False)


def inc_subtensor(x: Any, y: Any) -> Any:
    """As ``set_subtensor``, but ``y`` is added to what is there; repeated places add up."""
    return _write(x, y, add=True)


def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """``x[..., indices, ...]`` along ``axis`` (None: of the flattened array)."""
    if axis is None:
        return getitem(views.reshape(x, [product(x.type.dims)]), indices)
    whole: Sequence[Any] = [slice(None)] * (axis % x.ndim if x.ndim else 0)
    return getitem(x, (*whole, indices))
