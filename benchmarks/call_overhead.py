"""What a call costs besides the work: the parts of it, and some whole functions.

    python benchmarks/call_overhead.py

A part is the slope of a family of functions: what one more argument, result, shared variable adds.
The work of a whole function is timed by calling its native code directly, with ctypes and
addresses that are known; what ctypes itself takes for that is timed with a function that does
nothing, and taken off.  All figures are minima of many repetitions, in microseconds.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, scan, shared
from tinygraph.compile import entrance
from tinygraph_rnn.updates import adam

MANY = 8  # the size of a family: slopes are from 0 or 1 to so many
FLOAT = "float32"


class Clock:
    """Takes the minimum of ``rounds`` rounds of about ``seconds`` each."""

    def __init__(self, rounds: int, seconds: float) -> None:
        self.rounds, self.seconds = rounds, seconds

    def __call__(self, call: Callable[..., Any], *args: Any) -> float:
        """Microseconds of ``call(*args)``, without those of the loop around it."""
        count = 1
        while self._spin(call, args, count) < self.seconds:
            count *= 2
        spent = min(self._spin(call, args, count) for _ in range(self.rounds))
        loop = min(self._loop(count) for _ in range(self.rounds))
        return (spent - loop) / count * 1e6

    @staticmethod
    def _spin(call: Callable[..., Any], args: Sequence[Any], count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            call(*args)
        return time.perf_counter() - start

    @staticmethod
    def _loop(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            pass
        return time.perf_counter() - start


def warm(f: Any, *args: Any) -> Any:
    """``f`` after some calls, so that all are alike from now on."""
    for _ in range(5):
        f(*args)
    return f


def work(clock: Clock, f: Any, *args: np.ndarray) -> float:
    """The native code of ``f`` alone."""
    executable = f._ready[1]
    arrays = [*args, *(w.storage.array for w in f.shared)]
    plan = executable.planner(arrays)
    results = plan.results([None] * len(plan.shapes))
    everything = [*arrays, *results, *executable.constants]
    addresses = (ctypes.c_int64 * len(everything))(*(a.ctypes.data for a in everything))
    space = np.empty(plan.arena_bytes + 64, np.uint8)
    fault = (ctypes.c_int64 * 8)()
    start = space.ctypes.data + -space.ctypes.data % 64
    numbers = plan.sizes_address, ctypes.addressof(addresses), start, ctypes.addressof(fault)
    return clock(_pointer_call(executable.runner.native.address), *numbers)


def _pointer_call(address: int, release: bool = True) -> Any:
    kind = ctypes.CFUNCTYPE if release else ctypes.PYFUNCTYPE
    return kind(ctypes.c_int64, *[ctypes.c_void_p] * 4)(address)


def parts(clock: Clock) -> list[tuple[str, float]]:
    """What the parts of a call take."""
    one = np.ones(3, FLOAT)
    vectors = [T.vector(f"x{k}", FLOAT) for k in range(MANY)]
    x, lone = vectors[0], T.scalar("s", FLOAT)
    states = [shared(one, f"w{k}") for k in range(MANY)]

    def timed(inputs: list[Any], outputs: list[Any], args: list[Any], **more: Any) -> float:
        return clock(warm(function(inputs, outputs, on_unused_input="ignore", **more), *args),
                     *args)

    empty = warm(function([], []))
    address = empty._ready[1].runner.native.address
    released = clock(_pointer_call(address), 0, 0, 0, 0)
    kept = clock(_pointer_call(address, release=False), 0, 0, 0, 0)
    whole = clock(empty)
    entered = clock(empty._enter)
    first = timed([x], [x + 1], [one])
    outputs = timed([x], [x + k for k in range(1, MANY + 1)], [one])
    inputs = timed(vectors, [], [one] * MANY)
    read = timed([], [sum(states)], [])
    read_two = timed([], [states[0] + states[1]], [])
    update = timed([x], [], [one], updates=[(w, w + x) for w in states])
    update_one = timed([x], [], [one], updates=[(states[0], states[0] + x)])
    array = timed([lone], [], [np.ones((), FLOAT)])
    number = timed([lone], [], [0.1])
    refused = warm(function([x], [x + 1]), one)
    more = MANY - 1
    return [
        ("a ctypes call of a function that does nothing", released),
        ("  of that, giving up the GIL and taking it again", released - kept),
        ("a call with nothing in and nothing out", whole),
        ("  of that, Function.__call__", whole - entered),
        ("each argument that is an array", (inputs - whole) / MANY),
        ("an argument that is a Python number, more than a 0-d array", number - array),
        ("each result", (outputs - first) / more),
        ("each shared variable that is read", (read - read_two) / (MANY - 2)),
        ("each shared variable that is read and updated", (update - update_one) / more),
        ("to see that no plan fits", clock(refused._enter, np.ones(4, FLOAT))),
    ]


def chain(n: int) -> tuple[Any, list[np.ndarray]]:
    """tanh(a*b+c)*sigmoid(d)-exp(-a*a): its sum and the gradients."""
    symbols = [T.vector(name, FLOAT) for name in "abcd"]
    a, b, c, d = symbols
    total = (T.tanh(a * b + c) * T.nnet.sigmoid(d) - T.exp(-a * a)).sum()
    f = function(symbols, [total, *tinygraph.grad(total, symbols)])
    return f, list(np.random.RandomState(0).rand(4, n).astype(FLOAT))


def elman() -> tuple[Any, list[np.ndarray]]:
    """One step of gradient descent of a small Elman network on one sequence of 10 steps."""
    random = np.random.RandomState(0)
    shapes = [(7, 10), (10, 10), (10,), (10,), (10, 7), (7,)]
    weights = [shared(random.normal(0, 0.1, s).astype(FLOAT)) for s in shapes]
    W, U, b, h0, V, c = weights
    v, target = T.matrix("v", FLOAT), T.matrix("target", FLOAT)
    h, _ = scan(lambda x, h: T.tanh(T.dot(x, W) + T.dot(h, U) + b), v, h0)
    y = T.nnet.sigmoid(T.dot(h, V) + c)
    cost = -T.mean(target * T.log(y) + (1 - target) * T.log(1 - y))
    steps = zip(weights, tinygraph.grad(cost, weights), strict=True)
    f = function([v, target], cost, updates=[(w, w - np.float32(0.2) * g) for w, g in steps])
    return f, [random.rand(10, 7).astype(FLOAT), random.rand(10, 7).astype(FLOAT)]


def many_states() -> tuple[Any, list[np.ndarray]]:
    """A step of Adam on 36 small parameters: 109 shared variables."""
    random, x = np.random.RandomState(0), T.vector("x", FLOAT)
    params = [shared(random.rand(10).astype(FLOAT)) for _ in range(36)]
    cost = sum(((w - x) ** 2).sum() for w in params)
    return function([x], cost, updates=adam(cost, params)), [np.ones(10, FLOAT)]


def wholes(clock: Clock, nothing: float) -> list[tuple[str, float, float]]:
    """Whole functions: a call, and the work in it."""
    x, y = T.vector("x", FLOAT), T.vector("y", FLOAT)
    small = np.ones(3, FLOAT)
    rows: list[tuple[str, Any, list[np.ndarray]]] = [
        ("x + 1, 3 elements", function([x], x + 1), [small]),
        ("x + y, 3 elements", function([x, y], x + y), [small, small]),
        ("elementwise chain, sum and 4 gradients, 1 element", *chain(1)),
        ("elementwise chain, sum and 4 gradients, 1000 elements", *chain(1000)),
        ("Elman network, 10 steps, 6 parameters, SGD", *elman()),
        ("Adam on 36 parameters, 109 shared variables", *many_states()),
    ]
    out = []
    for title, f, args in rows:
        warm(f, *args)
        out.append((title, clock(f, *args), max(0.0, work(clock, f, *args) - nothing)))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.01)
    options = parser.parse_args()
    clock = Clock(options.rounds, options.seconds)
    with tinygraph.config.change(backend="llvm", floatX=FLOAT):
        if entrance.method(wait=True) is None:
            print("there is no native entrance on this machine: figures are of the slow way")
        rows = parts(clock)
        print(f"{'part':62} {'us':>7}")
        for title, us in rows:
            print(f"{title:62} {us:7.3f}")
        print(f"\n{'function':54} {'call':>8} {'work':>8} {'overhead':>9}")
        for title, call, own in wholes(clock, rows[0][1]):
            print(f"{title:54} {call:8.2f} {own:8.2f} {call - own:9.2f}")


if __name__ == "__main__":
    main()
