"""Where the elements of a value are: a strided view of a buffer, or a formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinygraph.dims import Dim, dim, floordiv, product
from tinygraph.dtypes import DType
from tinygraph.loops import build as E
from tinygraph.loops.language import Buffer, Cast, Expr, Load
from tinygraph.lowering.sizes import SizeParameters
from tinygraph.ops.views import Region
from tinygraph.ops.windows import Sliding


@dataclass(frozen=True, eq=False)
class View:
    """Element (i, j, ...) is at ``offset + i*strides[0] + j*strides[1] + ...`` of ``buffer``.

    Without a buffer the element is ``literal``, or (a range) that flat offset itself.
    """

    sizes: SizeParameters
    dtype: DType
    offset: Expr
    dims: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    buffer: Buffer | None = None
    literal: Expr | None = None

    def flat(self, indices: Sequence[Expr]) -> Expr:
        """The element offset at ``indices``."""
        total = self.offset
        for i, stride in zip(indices, self.strides, strict=True):
            total = E.add(total, E.mul(i, self.sizes.expr(stride)))
        return total

    def element(self, indices: Sequence[Expr]) -> Expr:
        """The element at ``indices``."""
        if self.literal is not None:
            return self.literal
        flat = self.flat(indices)
        return Load(self.buffer, flat) if self.buffer else Cast(flat, self.dtype)

    def transpose(self, perm: Sequence[int]) -> View:
        """Axis k of the result is axis perm[k]."""
        return replace(self, dims=tuple(self.dims[k] for k in perm),
                       strides=tuple(self.strides[k] for k in perm))

    def squeeze(self, axes: Sequence[int]) -> View:
        """Without ``axes``."""
        kept = [k for k in range(len(self.dims)) if k not in axes]
        return self.transpose(kept)

    def broadcast(self, dims: Sequence[Dim], axes: Sequence[int]) -> View:
        """Axis k becomes axis axes[k]; what is new or stretched has stride 0."""
        strides = [dim(0)] * len(dims)
        for k, axis in enumerate(axes):
            if self.dims[k] != 1:
                strides[axis] = self.strides[k]
        return replace(self, dims=tuple(dims), strides=tuple(strides))

    def slice(self, region: Region) -> View:
        """The part ``region``."""
        offset = self.offset
        for start, stride in zip(region.starts, self.strides, strict=True):
            offset = E.add(offset, self.sizes.expr(start * stride))
        strides = tuple(s * k for s, k in zip(self.strides, region.steps, strict=True))
        return replace(self, offset=offset, dims=region.lengths, strides=strides)

    def windows(self, sliding: Sliding) -> View:
        """The elements seen through windows: an element may stand at several places."""
        strides, steps = list(self.strides), []
        for axis, _, _, stride, dilation in sliding.each():
            steps.append(self.strides[axis] * dilation)
            strides[axis] = self.strides[axis] * stride
        return replace(self, dims=sliding.dims(self.dims),
                       strides=(*strides[:-1], *steps, strides[-1]))

    def row(self, t: Expr) -> View:
        """The part at index t of axis 0."""
        offset = E.add(self.offset, E.mul(t, self.sizes.expr(self.strides[0])))
        return replace(self, offset=offset, dims=self.dims[1:], strides=self.strides[1:])

    def flip(self, axis: int) -> View:
        """The same elements with one axis walked from its end."""
        last = self.sizes.expr((self.dims[axis] - 1) * self.strides[axis])
        strides = tuple(-s if k == axis else s for k, s in enumerate(self.strides))
        return replace(self, offset=E.add(self.offset, last), strides=strides)

    def reshape(self, dims: Sequence[Dim]) -> View | None:
        """The same elements in row-major order under other sizes, if strides can say that."""
        if self.literal is not None:
            return replace(self, dims=tuple(dims), strides=(dim(0),) * len(dims))
        if self.strides == row_major(self.dims):
            return replace(self, dims=tuple(dims), strides=row_major(dims))
        old = [(d, s) for d, s in zip(self.dims, self.strides, strict=True) if d != 1]
        new = [d for d in dims if d != 1]
        found: list[Dim] = []
        while old or new:
            group = _group(old, new)
            if group is None:
                return None
            i, j = group
            if not _collapsible(old[:i]):
                return None
            stride = old[i - 1][1] if i else dim(0)
            inner = []
            for d in reversed(new[:j]):
                inner.append(stride)
                stride = stride * d
            found += reversed(inner)
            old, new = old[i:], new[j:]
        strides = iter(found)
        return replace(self, dims=tuple(dims),
                       strides=tuple(dim(0) if d == 1 else next(strides) for d in dims))


def _group(old: Sequence[tuple[Dim, Dim]], new: Sequence[Dim]) -> tuple[int, int] | None:
    """The shortest heads of both lists that hold equally many elements."""
    if not old or not new:
        return (len(old), len(new)) if not old and not new else None
    i = j = 1
    a, b = old[0][0], new[0]
    while a != b:
        grow_old = floordiv(b, a) * a == b and i < len(old)
        if grow_old or j >= len(new):
            if i >= len(old):
                return None
            a, i = a * old[i][0], i + 1
        else:
            b, j = b * new[j], j + 1
    return i, j


def _collapsible(axes: Sequence[tuple[Dim, Dim]]) -> bool:
    return all(s == d2 * s2 for (_, s), (d2, s2) in zip(axes, axes[1:], strict=False))


def row_major(dims: Sequence[Dim], order: Sequence[int] | None = None) -> tuple[Dim, ...]:
    """Strides of a dense array whose axes lie in memory in ``order`` (outermost first)."""
    order = list(range(len(dims))) if order is None else list(order)
    strides = [dim(1)] * len(dims)
    step = dim(1)
    for k in reversed(order):
        strides[k] = step
        step = step * dims[k]
    return tuple(strides)


def element_count(dims: Sequence[Dim]) -> Dim:
    """How many elements a shape holds."""
    return product(tuple(dims))
