"""Reverse differentiation of NumPy code in float64, as short as it can be: the reference that
every implementation has to agree with.  It shares no code with any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Pull = Callable[[np.ndarray], np.ndarray]


class Var:
    """An array that remembers how it was made: ``parents``, each with the function from the
    gradient of this one to its own."""

    __array_ufunc__ = None  # numpy arrays leave the operators to this class

    def __init__(self, value: Any, parents: Sequence[tuple[Var, Pull]] = ()) -> None:
        self.value = np.asarray(value, np.float64)
        self.parents = parents

    def __add__(self, other: Any) -> Var:
        other = lift(other)
        return Var(self.value + other.value, [(self, _to(self)), (other, _to(other))])

    def __mul__(self, other: Any) -> Var:
        other = lift(other)
        a, b = self.value, other.value
        to_a, to_b = _to(self), _to(other)
        return Var(a * b, [(self, lambda g: to_a(g * b)), (other, lambda g: to_b(g * a))])

    def __matmul__(self, other: Any) -> Var:
        other = lift(other)
        a, b = self.value, other.value
        return Var(a @ b, [(self, lambda g: g @ b.T), (other, lambda g: a.T @ g)])

    def __neg__(self) -> Var:
        return Var(-self.value, [(self, np.negative)])

    def __sub__(self, other: Any) -> Var:
        return self + -lift(other)

    def __rsub__(self, other: Any) -> Var:
        return lift(other) + -self

    __radd__, __rmul__ = __add__, __mul__

    def __rmatmul__(self, other: Any) -> Var:
        return lift(other) @ self

    def __getitem__(self, key: Any) -> Var:
        def back(g: np.ndarray) -> np.ndarray:
            out = np.zeros_like(self.value)
            out[key] = g
            return out
        return Var(self.value[key], [(self, back)])


def lift(x: Any) -> Var:
    """``x`` as a Var; a constant unless it is one already."""
    return x if isinstance(x, Var) else Var(x)


def _to(x: Var) -> Pull:
    """The gradient of a broadcast operand: the sum over what was broadcast."""
    shape = x.value.shape

    def back(g: np.ndarray) -> np.ndarray:
        g = g.sum(axis=tuple(range(g.ndim - len(shape))))
        wide = tuple(k for k, n in enumerate(shape) if n == 1 and g.shape[k] != 1)
        return g.sum(axis=wide, keepdims=True)
    return back


def _elementwise(x: Var, value: np.ndarray, slope: np.ndarray) -> Var:
    return Var(value, [(x, lambda g: g * slope)])


def tanh(x: Var) -> Var:
    y = np.tanh(x.value)
    return _elementwise(x, y, 1 - y * y)


def sigmoid(x: Var) -> Var:
    y = 1 / (1 + np.exp(-x.value))
    return _elementwise(x, y, y * (1 - y))


def exp(x: Var) -> Var:
    y = np.exp(x.value)
    return _elementwise(x, y, y)


def log(x: Var) -> Var:
    return _elementwise(x, np.log(x.value), 1 / x.value)


def where(condition: np.ndarray, a: Var, b: Var) -> Var:
    """``a`` where the constant condition holds, else ``b``; all of the result's shape or of one
    that broadcasts to it."""
    to_a, to_b = _to(a), _to(b)
    return Var(np.where(condition, a.value, b.value),
               [(a, lambda g: to_a(np.where(condition, g, 0))),
                (b, lambda g: to_b(np.where(condition, 0, g)))])


def clip_gradient(x: Var, bound: float) -> Var:
    """``x``, whose gradient is clipped to [-bound, bound] element by element."""
    return Var(x.value, [(x, lambda g: np.clip(g, -bound, bound))])


def concatenate(parts: Sequence[Var], axis: int) -> Var:
    ends = np.cumsum([p.value.shape[axis] for p in parts])

    def back(k: int) -> Pull:
        return lambda g: np.split(g, ends[:-1], axis)[k]
    return Var(np.concatenate([p.value for p in parts], axis),
               [(p, back(k)) for k, p in enumerate(parts)])


def total(x: Var) -> Var:
    """The sum of all elements."""
    return Var(x.value.sum(), [(x, lambda g: np.broadcast_to(g, x.value.shape))])


def mean(x: Var) -> Var:
    """The mean of all elements."""
    return total(x) * (1 / x.value.size)


def gradients(cost: Var, wrt: Sequence[Var]) -> list[np.ndarray]:
    """The gradients of a scalar; zeros where it does not depend on a variable."""
    order: list[Var] = []
    seen: set[int] = set()
    stack: list[tuple[Var, bool]] = [(cost, False)]
    while stack:
        var, done = stack.pop()
        if done:
            order.append(var)
        elif id(var) not in seen:
            seen.add(id(var))
            stack.append((var, True))
            stack += [(p, False) for p, _ in var.parents]
    leaves = {id(v) for v in wrt}
    needed = set(leaves)  # what depends on them; parents come first
    for var in order:
        if any(id(p) in needed for p, _ in var.parents):
            needed.add(id(var))
    found = {id(cost): np.ones(())}
    for var in reversed(order):
        if id(var) not in needed or id(var) not in found:
            continue
        g = found[id(var)] if id(var) in leaves else found.pop(id(var))
        for parent, back in var.parents:
            if id(parent) in needed:
                held = found.get(id(parent))
                found[id(parent)] = back(g) if held is None else held + back(g)
    return [found.get(id(v), np.zeros_like(v.value)) for v in wrt]
