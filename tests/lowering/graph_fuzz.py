"""Random programs: every op that users reach, put together at random, with sizes that vary.

Each value is evaluated under several sizes at once while the program grows, so that operands
are chosen whose shapes agree for all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygraph.tensor as T
from tinygraph import grad, scan
from tinygraph.interpret import evaluate
from tinygraph.scan_module import until

SIZES = ((2, 3), (5, 2), (1, 1), (0, 4), (9, 17))
MAX_ELEMENTS = 20000


class Fuzz:
    """``values``: variables with their arrays under every pair of sizes (n, t) of SIZES."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.inputs: list[Any] = []
        self.arrays: list[list[np.ndarray]] = [[] for _ in SIZES]
        self.values: list[Any] = []
        self.shapes: dict[Any, tuple[tuple[int, ...], ...]] = {}
        self._input("a", "n", "t", 3)
        self._input("b", "n", 3)
        self._input("c", "t", "n")
        self._input("w", 3, 3)
        self._input("v", 3)
        self.index = self._input("k", "n", ints=True)

    def _input(self, name: str, *dims: Any, ints: bool = False) -> Any:
        x = T.TensorType("int64" if ints else "float64", (False,) * len(dims))(name)
        self.inputs.append(x)
        for k, (n, t) in enumerate(SIZES):
            shape = tuple({"n": n, "t": t}.get(d, d) for d in dims)
            array = self.numbers.standard_normal(shape)
            self.arrays[k].append(self.numbers.integers(-3, 3, shape) if ints else array)
        self.shapes[x] = tuple(a[-1].shape for a in self.arrays)
        if not ints:
            self.values.append(x)
        return x

    def known(self, k: int) -> dict[Any, np.ndarray]:
        return dict(zip(self.inputs, self.arrays[k], strict=True))

    def add(self, x: Any) -> Any:
        """Keep ``x`` if it can be computed under all sizes, stays small and finite."""
        shapes = []
        for k in range(len(SIZES)):
            with np.errstate(all="ignore"):
                (array,) = evaluate([x], self.known(k))
            if array.size > MAX_ELEMENTS or not np.all(np.abs(array) < 1e3):
                return None
            shapes.append(array.shape)
        self.shapes[x] = tuple(shapes)
        self.values.append(x)
        return x

    def sizes(self, x: Any) -> list[tuple[int, ...]]:
        """Per axis the size under each pair of sizes."""
        return [tuple(s[k] for s in self.shapes[x]) for k in range(x.ndim)]

    def pick(self, test: Callable[[Any], bool] = lambda x: True) -> Any:
        """A random value, newer ones more often; None if none fits."""
        fitting = [x for x in self.values if test(x)]
        if not fitting:
            return None
        return fitting[-1 - int(len(fitting) * self.random.random() ** 2)]

    def grow(self, steps: int) -> None:
        """Apply ``steps`` random operations."""
        for _ in range(steps):
            makers = [self.unary, self.binary, self.rows, self.transpose, self.part, self.flat,
                      self.join, self.reduce, self.product, self.take, self.write, self.loop,
                      self.choice, self.repeat, self.gradient, self.ended, self.nested,
                      self.masked, self.ordered]
            made = self.random.choice(makers)()
            if made is not None:
                self.add(made)

    # --- the operations

    def unary(self) -> Any:
        x = self.pick()
        return self.random.choice([T.tanh, T.nnet.sigmoid, T.neg, T.abs_, T.sqr,
                                   lambda x: x * 0.5, lambda x: 1 - x])(x)

    def binary(self) -> Any:
        x = self.pick()
        y = self.pick(lambda y: y.ndim == x.ndim and self.sizes(y) == self.sizes(x))
        return self.random.choice([T.add, T.mul, T.sub, T.maximum])(x, y)

    def rows(self) -> Any:
        """An operand stretched along leading axes, or one axis with a new one."""
        x = self.pick(lambda x: x.ndim > 0)
        y = self.pick(lambda y: y.ndim < x.ndim
                      and self.sizes(y) == self.sizes(x)[x.ndim - y.ndim:])
        return None if y is None else self.random.choice([T.add, T.mul])(x, y)

    def transpose(self) -> Any:
        x = self.pick(lambda x: x.ndim > 1)
        perm = list(range(x.ndim))
        self.random.shuffle(perm)
        return x.dimshuffle(*perm)

    def part(self) -> Any:
        x = self.pick(lambda x: x.ndim > 0)
        some = [slice(None), slice(None, None, -1), slice(1, None), slice(None, -1),
                slice(None, None, 2), slice(-2, None), slice(None, None, -2), slice(0, 2)]
        return x[tuple(self.random.choice(some) for _ in range(x.ndim))]

    def flat(self) -> Any:
        x = self.pick(lambda x: x.ndim > 1)
        shape = [x.shape[k] for k in range(x.ndim)]
        at = self.random.randrange(x.ndim - 1)
        merged = (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2:])
        y = x.reshape(merged, ndim=x.ndim - 1)
        if self.random.random() < 0.5:
            return y
        return T.tanh(y).reshape(tuple(shape), ndim=x.ndim)

    def join(self) -> Any:
        x = self.pick(lambda x: x.ndim > 0)
        axis = self.random.randrange(x.ndim)

        def fits(y: Any) -> bool:
            return y.ndim == x.ndim and all(
                p == q for k, (p, q) in enumerate(zip(self.sizes(x), self.sizes(y), strict=True))
                if k != axis)

        parts = [x, self.pick(fits)] + ([self.pick(fits)] if self.random.random() < 0.3 else [])
        self.random.shuffle(parts)
        return T.concatenate(parts, axis=axis)

    def reduce(self) -> Any:
        x = self.pick(lambda x: x.ndim > 0)
        axes = [k for k in range(x.ndim) if self.random.random() < 0.6] or [0]
        some = [T.sum, T.mean]
        if all(0 not in self.sizes(x)[k] for k in axes):
            some.append(T.max)
        y = self.random.choice(some)(x, axis=axes, keepdims=self.random.random() < 0.2)
        return x - y if y.ndim == x.ndim else y

    def product(self) -> Any:
        x = self.pick(lambda x: x.ndim > 0)
        y = self.pick(lambda y: 0 < y.ndim < 4 and
                      self.sizes(y)[max(0, y.ndim - 2)] == self.sizes(x)[-1])
        return None if y is None else 0.3 * T.dot(x, y)

    def take(self) -> Any:
        x = self.pick(lambda x: x.ndim > 0 and min(self.sizes(x)[0]) >= 3)
        return None if x is None else x[self.index]

    def write(self) -> Any:
        x = self.pick(lambda x: x.ndim > 0 and min(self.sizes(x)[0]) >= 1)
        if x is None:
            return None
        y = self.pick(lambda y: self.sizes(y) == self.sizes(x)[1:])
        y = 0.25 if y is None else y
        at = self.random.choice([0, -1])
        return self.random.choice([T.set_subtensor, T.inc_subtensor])(x[at], y)

    def loop(self) -> Any:
        x = self.pick(lambda x: x.ndim > 0)
        start = self.pick(lambda y: self.sizes(y) == self.sizes(x)[1:])
        start = T.zeros_like(x.sum(axis=0)) if start is None else start
        extra = self.pick(lambda y: self.sizes(y) == self.sizes(x)[1:])
        weights = self.pick(lambda y: y.ndim == 2 and x.ndim > 1 and len(set(
            (*self.sizes(y), self.sizes(x)[-1]))) == 1)
        kind = self.random.randrange(4)

        def step(row: Any, h: Any) -> Any:
            pre = row + 0.5 * h
            if extra is not None and kind != 1:
                pre = pre * 0.5 + extra
            if weights is not None:
                pre = pre + 0.2 * T.dot(h, weights)
            return (T.tanh(pre), h * row) if kind == 2 else (T.tanh(pre), pre - row)

        (h, other), _ = scan(step, x, [start, None], go_backwards=self.random.random() < 0.4)
        self.add(h)
        return other if kind else h.sum(axis=0)

    def ended(self) -> Any:
        """A loop that ends when a sum grows large, in a number of steps of its own."""
        x = self.pick(lambda x: x.ndim > 0)
        limit = self.random.choice([0.5, 2.0, 50.0])

        def step(row: Any, h: Any) -> Any:
            h = T.tanh(row + 0.5 * h)
            return (h, h * row), until((h * h).sum() > limit)

        (h, other), _ = scan(step, x, [T.zeros_like(x.sum(axis=0)), None],
                             go_backwards=self.random.random() < 0.3)
        self.add(h)
        return self.random.choice([other, other.sum(axis=0), x[:h.shape[0]] * other])

    def nested(self) -> Any:
        """A loop in a loop."""
        x = self.pick(lambda x: x.ndim > 1)
        early = self.random.random() < 0.3

        def inner(a: Any, h: Any) -> Any:
            new = T.tanh(a - 0.5 * h)
            return (new, until(new.sum() > 1)) if early else new

        def outer(rows: Any, total: Any) -> Any:
            h, _ = scan(inner, rows, T.zeros_like(rows.sum(axis=0)))
            return 0.5 * total + h.sum(axis=0)

        start = T.zeros_like(x.sum(axis=(0, 1)))
        return scan(outer, x, start)[0]

    def masked(self) -> Any:
        """What a mask picks, or an array with that part changed."""
        x = self.pick(lambda x: x.ndim > 0)
        mask = x > 0.3
        # Not above 0: a sum of what cancels is 0 but for rounding, whose sign says nothing.
        rows = x.sum(axis=tuple(range(1, x.ndim))) > 0.1 if x.ndim > 1 else mask
        return self.random.choice([
            lambda: x[mask], lambda: x[rows], lambda: T.set_subtensor(x[mask], 0.25),
            lambda: T.inc_subtensor(x[rows], 0.5), lambda: x[rows].sum(axis=0)])()

    def ordered(self) -> Any:
        x = self.pick(lambda x: x.ndim > 0)
        axis = self.random.randrange(x.ndim)
        return self.random.choice([T.sort, T.cumsum])(x, axis=axis) * 0.5

    def choice(self) -> Any:
        x = self.pick()
        y = self.pick(lambda y: y.ndim == x.ndim and self.sizes(y) == self.sizes(x))
        return T.switch(x > 0.1, y, self.random.choice([x, 0.5]))

    def repeat(self) -> Any:
        x = self.pick(lambda x: x.ndim == 1)
        if x is None:
            return None
        return T.alloc(x, self.inputs[1].shape[0], x.shape[0])

    def gradient(self) -> Any:
        x = self.pick()
        cost = (x * T.constant(0.5)).sum()
        wrt = self.random.choice(self.inputs[:5])
        return grad(cost, wrt, disconnected_inputs="ignore")

    def outputs(self, count: int) -> list[Any]:
        """Some values (one twice), an input, and a view of an input."""
        some = [self.pick() for _ in range(count)] + self.values[-2:]
        return [*some, some[0], self.inputs[1], self.inputs[0][::-1].dimshuffle(1, 2, 0)]
