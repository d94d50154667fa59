"""Views: ops that move elements and compute nothing.  Most become index maps, not copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinygraph.dims import Dim, dim, maximum, minimum, nonnegative, product, prove_equal
from tinygraph.errors import ShapeError
from tinygraph.graph import Guard, Node, Op, Type, Value, apply, describe
from tinygraph.ops.arithmetic import broadcast_to, lead

Env = Callable[[Dim], int]


@dataclass(frozen=True)
class Transpose(Op):
    """Axis k of the output is axis ``perm[k]`` of the input."""

    perm: tuple[int, ...]

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        (x,) = inputs
        return (x.type.with_dims(x.type.dims[k] for k in self.perm),)

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.transpose(arrays[0], self.perm),)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [transpose(cotangents[0], [self.perm.index(k) for k in range(len(self.perm))])]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(Transpose((0, *(k + 1 for k in self.perm))), inputs[0])

    def lower(self, context: Any, node: Node) -> None:
        view = context.view(node.inputs[0])
        context.alias(node.outputs[0], view.transpose(self.perm))


@dataclass(frozen=True)
class Squeeze(Op):
    """Without ``axes``, each of size 1."""

    axes: tuple[int, ...]

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        (x,) = inputs
        for k in self.axes:
            if prove_equal(x.type.dims[k], dim(1)) is False:
                raise ShapeError(f"axis {k} of {describe(x)} cannot be dropped: its size is "
                                 f"{x.type.dims[k]}, not 1")
        return (x.type.with_dims(d for k, d in enumerate(x.type.dims) if k not in self.axes),)

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        for k in self.axes:
            yield Guard(inputs[0].type.dims[k], "eq", dim(1), f"axis {k} of {describe(inputs[0])} "
                        "must have size 1 here, but it is {left}")

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.squeeze(arrays[0], self.axes),)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        (x,) = node.inputs
        kept = tuple(k for k in range(x.ndim) if k not in self.axes)
        return [broadcast_to(cotangents[0], x.type.dims, kept)]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(Squeeze(tuple(k + 1 for k in self.axes)), inputs[0])

    def lower(self, context: Any, node: Node) -> None:
        context.alias(node.outputs[0], context.view(node.inputs[0]).squeeze(self.axes))


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in row-major order under other sizes."""

    dims: tuple[Dim, ...]

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        (x,) = inputs
        if prove_equal(product(x.type.dims), product(self.dims)) is False:
            raise ShapeError(f"{describe(x)} has {product(x.type.dims)} elements and cannot be "
                             f"reshaped to {self.dims}, which has {product(self.dims)}")
        return (x.type.with_dims(self.dims),)

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        yield Guard(product(inputs[0].type.dims), "eq", product(self.dims),
                    f"{describe(inputs[0])} has {{left}} elements and cannot be reshaped to "
                    f"{self.dims}, which has {{right}}")
        for d in self.dims:
            if not nonnegative(d):
                yield Guard(dim(0), "le", d, f"{describe(inputs[0])} cannot be reshaped to "
                            f"{self.dims}: a size would be {{right}}")

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.reshape(arrays[0], tuple(env(d) for d in self.dims)),)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [reshape(cotangents[0], node.inputs[0].type.dims)]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(Reshape((n, *self.dims)), inputs[0])

    def lower(self, context: Any, node: Node) -> None:
        context.reshape(node.outputs[0], node.inputs[0])


@dataclass(frozen=True)
class Region:
    """A strided part of an array: per axis first index, number of indices, step (not 0)."""

    holds_sizes: ClassVar[bool] = True
    starts: tuple[Dim, ...]
    lengths: tuple[Dim, ...]
    steps: tuple[int, ...]

    def slices(self, env: Env) -> tuple[slice, ...]:
        """As NumPy writes it."""
        out = []
        for start, length, step in zip(self.starts, self.lengths, self.steps, strict=True):
            first, count = env(start), env(length)
            stop: int | None = first + count * step
            if count <= 0:
                first = stop = 0
            out.append(slice(first, None if stop is not None and stop < 0 else stop, step))
        return tuple(out)

    def lead(self, n: Dim) -> Region:
        """The same part under one more, whole, leading axis of size n."""
        return Region((dim(0), *self.starts), (n, *self.lengths), (1, *self.steps))

    def is_whole(self, dims: Sequence[Dim]) -> bool:
        """Does it hold every element of an array of sizes ``dims`` in order?"""
        return (all(s == 0 for s in self.starts) and all(k == 1 for k in self.steps)
                and self.lengths == tuple(dims))

    def is_rows(self, dims: Sequence[Dim]) -> bool:
        """Does it hold whole rows: every element of all axes but the first?"""
        return (all(s == 0 for s in self.starts[1:]) and all(k == 1 for k in self.steps[1:])
                and self.lengths[1:] == tuple(dims[1:]))

    def requires(self, x: Value, dims: Sequence[Dim], what: str) -> Iterable[Guard]:
        """It lies inside an array of sizes ``dims``."""
        for k, (start, length, step) in enumerate(
                zip(self.starts, self.lengths, self.steps, strict=True)):
            last = start + (length - 1) * step
            low, high = (start, last) if step > 0 else (last, start)
            where = f"axis {k} of {describe(x)}"
            if not nonnegative(length):
                yield Guard(dim(0), "le", length, f"a slice of {where} has length {{right}}",
                            IndexError)
            some = minimum(length, dim(1))  # an empty region lies inside whatever its start is
            if not nonnegative(low):
                yield Guard(dim(0), "le", some * low,
                            f"{what} {{right}} is out of range for {where}", IndexError)
            if not (step == 1 and length == maximum(dims[k] - start, dim(0))):
                yield Guard(some * (high + 1), "le", dims[k], f"{what} {high} is out of range for "
                            f"{where}, whose size is {{right}}", IndexError)


@dataclass(frozen=True)
class Slice(Op):
    """The part ``region`` of the input."""

    region: Region

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        return (inputs[0].type.with_dims(self.region.lengths),)

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        return self.region.requires(inputs[0], inputs[0].type.dims, "index")

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return (arrays[0][self.region.slices(env)],)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [unslice(cotangents[0], node.inputs[0].type.dims, self.region)]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(Slice(self.region.lead(n)), inputs[0])

    def lower(self, context: Any, node: Node) -> None:
        context.alias(node.outputs[0], context.view(node.inputs[0]).slice(self.region))


@dataclass(frozen=True)
class Unslice(Op):
    """Zeros of sizes ``dims`` with the input at ``region``: the gradient of Slice."""

    dims: tuple[Dim, ...]
    region: Region

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        return (inputs[0].type.with_dims(self.dims),)

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        out = np.zeros(tuple(env(d) for d in self.dims), arrays[0].dtype)
        out[self.region.slices(env)] = arrays[0]
        return (out,)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [slice_(cotangents[0], self.region)]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(Unslice((n, *self.dims), self.region.lead(n)), inputs[0])

    def lower(self, context: Any, node: Node) -> None:
        context.unslice(node.outputs[0], node.inputs[0], self.region)


@dataclass(frozen=True)
class SetSlice(Op):
    """The first input with the second one at ``region``."""

    region: Region

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        x, y = inputs
        for a, b in zip(y.type.dims, self.region.lengths, strict=True):
            if prove_equal(a, b) is False:
                raise ShapeError(f"{describe(y)} has shape {y.type.dims} and does not fit into a "
                                 f"part of shape {self.region.lengths} of {describe(x)}")
        return (x.type,)

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        x, y = inputs
        yield from self.region.requires(x, x.type.dims, "index")
        for k, (a, b) in enumerate(zip(y.type.dims, self.region.lengths, strict=True)):
            yield Guard(a, "eq", b, f"axis {k} of {describe(y)} is {{left}}, but the part of "
                        f"{describe(x)} that it is written to has {{right}}")

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        out = np.array(arrays[0])
        out[self.region.slices(env)] = arrays[1]
        return (out,)

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        (g,), y = cotangents, node.inputs[1]
        return [apply(self, g, y.zeros() if y.type.dtype is g.type.dtype  # type: ignore
                      else slice_(g, self.region).zeros())[0], slice_(g, self.region)]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        x, y = (lead(v, b, n) for v, b in zip(inputs, batched, strict=True))
        return apply(SetSlice(self.region.lead(n)), x, y)

    def lower(self, context: Any, node: Node) -> None:
        context.set_slice(node.outputs[0], *node.inputs, self.region)


@dataclass(frozen=True)
class Concatenate(Op):
    """The inputs one after another along ``axis``."""

    axis: int

    def infer(self, *inputs: Value) -> tuple[Type, ...]:
        first = inputs[0]
        total = dim(0)
        for x in inputs:
            if x.ndim != first.ndim or x.type.dtype is not first.type.dtype:
                raise TypeError(f"cannot concatenate {describe(first)} and {describe(x)}: dtypes "
                                "and numbers of axes must agree")
            for k, (a, b) in enumerate(zip(first.type.dims, x.type.dims, strict=True)):
                if k != self.axis and prove_equal(a, b) is False:
                    raise ShapeError(f"cannot concatenate along axis {self.axis}: axis {k} of "
                                     f"{describe(first)} is {a}, of {describe(x)} it is {b}")
            total = total + x.type.dims[self.axis]
        dims = list(first.type.dims)
        for k in range(first.ndim):
            dims[k] = next((x.type.dims[k] for x in inputs if x.type.dims[k].const is not None),
                           dims[k])
        dims[self.axis] = total
        return (first.type.with_dims(dims),)

    def requires(self, *inputs: Value) -> Iterable[Guard]:
        first = inputs[0]
        for x in inputs[1:]:
            for k, (a, b) in enumerate(zip(first.type.dims, x.type.dims, strict=True)):
                if k != self.axis:
                    yield Guard(a, "eq", b, f"concatenate along axis {self.axis}: axis {k} of "
                                f"{describe(first)} is {{left}}, of {describe(x)} it is {{right}}")

    def numpy(self, env: Env, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.concatenate(arrays, self.axis),)

    def regions(self, inputs: Sequence[Value]) -> list[Region]:
        """Where each input lies in the output."""
        out, start = [], dim(0)
        for x in inputs:
            starts = tuple(start if k == self.axis else dim(0) for k in range(x.ndim))
            out.append(Region(starts, x.type.dims, (1,) * x.ndim))
            start = start + x.type.dims[self.axis]
        return out

    def vjp(self, node: Node, cotangents: Sequence[Any]) -> list[Any]:
        return [slice_(cotangents[0], r) for r in self.regions(node.inputs)]

    def batch(self, inputs: Sequence[Any], batched: Sequence[bool], n: Dim) -> tuple[Any, ...]:
        return apply(Concatenate(self.axis + 1),
                     *(lead(x, b, n) for x, b in zip(inputs, batched, strict=True)))

    def lower(self, context: Any, node: Node) -> None:
        context.concatenate(node.outputs[0], node.inputs)


def transpose(x: Value, perm: Sequence[int]) -> Any:
    """``x`` with its axes in the order ``perm``."""
    return x if tuple(perm) == tuple(range(x.ndim)) else apply(Transpose(tuple(perm)), x)[0]


def reshape(x: Value, dims: Sequence[Dim | int]) -> Any:
    """``x`` under other sizes with the same product."""
    target = tuple(dim(d) for d in dims)
    return x if target == x.type.dims else apply(Reshape(target), x)[0]


def squeeze(x: Value, axes: Sequence[int]) -> Any:
    """``x`` without ``axes``, each of size 1."""
    return apply(Squeeze(tuple(axes)), x)[0] if axes else x


def slice_(x: Value, region: Region) -> Any:
    """The part ``region`` of ``x``."""
    return x if region.is_whole(x.type.dims) else apply(Slice(region), x)[0]


def unslice(x: Value, dims: Sequence[Dim], region: Region) -> Any:
    """Zeros of sizes ``dims`` with ``x`` at ``region``."""
    return x if region.is_whole(dims) else apply(Unslice(tuple(dims), region), x)[0]


def axis_region(x: Value, axis: int, start: Dim | int, length: Dim | int, step: int = 1) -> Region:
    """The region of ``x`` that is whole but for one axis."""
    starts = tuple(dim(start) if k == axis else dim(0) for k in range(x.ndim))
    lengths = tuple(dim(length) if k == axis else d for k, d in enumerate(x.type.dims))
    return Region(starts, lengths, tuple(step if k == axis else 1 for k in range(x.ndim)))


def reverse(x: Value, axis: int = 0) -> Any:
    """``x`` backwards along one axis."""
    n = x.type.dims[axis]
    return apply(Slice(axis_region(x, axis, n - 1, n, -1)), x)[0]


def row(x: Value, index: Dim | int, axis: int = 0) -> Any:
    """x[index] along one axis, which disappears."""
    return squeeze(slice_(x, axis_region(x, axis, index, 1)), [axis])


def concatenate(parts: Sequence[Value], axis: int) -> Any:
    """The parts one after another along ``axis``."""
    return parts[0] if len(parts) == 1 else apply(Concatenate(axis), *parts)[0]
