"""Which loops of a nest threads share, for nests written by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tinygraph.backends.cuda.nest import Part, chain_of, depends, has_teamwork, take_apart
from tinygraph.backends.cuda.prelude import prelude
from tinygraph.backends.cuda.shim import Shim
from tinygraph.backends.cuda.team import TeamWriter, left_to_one
from tinygraph.dtypes import float32, int64
from tinygraph.loops import build as E
from tinygraph.loops.language import Binary, Buffer, Const, DimOf, For, Load, Var

N, M, K = (DimOf(name) for name in "nmk")
SIZE = E.index(1000)


def memory(name: str) -> Buffer:
    return Buffer(name, float32, SIZE, "arg")


X, Y, Z = memory("x"), memory("y"), memory("z")


def at(*terms: tuple[Var, DimOf | None]) -> Binary | Var:
    """The index i * n + j ..., of pairs (variable, size behind it or None)."""
    total = None
    for var, size in terms:
        term = var if size is None else E.mul(var, size)
        total = term if total is None else E.add(total, term)
    return total


def elementwise(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        b.store(Y, at((i, M), (j, None)), Load(X, at((i, M), (j, None))))


def behind_a_number(b: E.Builder) -> None:
    """What stands between two loops is done by every thread for itself."""
    with b.loop(N, "independent") as i:
        row = b.let(E.mul(i, M), "row")
        with b.loop(M, "vector") as j:
            b.store(Y, E.add(row, j), Load(X, E.add(row, j)))


def ragged(b: E.Builder) -> None:
    """The inner loop has another length in every round of the outer one."""
    with b.loop(N, "independent") as i, b.loop(i, "vector") as j:
        b.store(Y, at((i, M), (j, None)), Load(X, j))


def time_inside(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M) as j:
        b.store(Y, i, Load(X, at((i, M), (j, None))), "add")


def rows(b: E.Builder) -> None:
    with b.loop(N, "independent") as i:
        total = b.register(float32)
        b.store(total, E.index(0), E.const(0, float32))
        with b.loop(M, "vector") as j:
            b.store(total, E.index(0), Load(X, at((i, M), (j, None))), "add")
        b.store(Y, i, Load(total, E.index(0)))


def checked_rows(b: E.Builder) -> None:
    """A lane that finds a failure could not take part in the sum of its warp."""
    with b.loop(N, "independent") as i:
        total = b.register(float32)
        b.store(total, E.index(0), E.const(0, float32))
        with b.loop(M, "vector") as j:
            b.check(Binary("lt", j, K), 0)
            b.store(total, E.index(0), Load(X, j), "add")
        b.store(Y, i, Load(total, E.index(0)))


def checked_sums(b: E.Builder) -> None:
    """A sum over everything and elements, of which any may fail."""
    with b.loop(N, "independent") as i:
        b.check(Binary("lt", i, K), 6, [i])
        b.store(Z, E.index(0), Load(X, i), "add")
        b.store(Y, i, Load(X, i))


def checked_outside(b: E.Builder) -> None:
    """The same with a register around the nest."""
    total = b.register(float32)
    b.store(total, E.index(0), E.const(0, float32))
    with b.loop(N, "independent") as i:
        b.check(Binary("lt", i, K), 6, [i])
        b.store(total, E.index(0), Load(X, i), "add")
        b.store(Y, i, Load(X, i))
    b.store(Z, E.index(0), Load(total, E.index(0)))


def short_rows(b: E.Builder) -> None:
    with b.loop(N, "independent") as i:
        total = b.register(float32)
        b.store(total, E.index(0), E.const(0, float32))
        with b.loop(E.index(3), "vector") as j:
            b.store(total, E.index(0), Load(X, at((i, M), (j, None))), "add")
        b.store(Y, i, Load(total, E.index(0)))


def read_on_the_way(b: E.Builder) -> None:
    """The sum so far is read: the rounds cannot be shared out."""
    with b.loop(N, "independent") as i:
        total = b.register(float32)
        b.store(total, E.index(0), E.const(0, float32))
        with b.loop(M, "vector") as j:
            b.store(total, E.index(0), Load(X, j), "add")
            b.store(Y, at((i, M), (j, None)), Load(total, E.index(0)))


def whole(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        b.store(Y, E.index(0), Load(X, at((i, M), (j, None))), "add")


def columns(b: E.Builder) -> None:
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        b.store(Y, j, Load(X, at((i, M), (j, None))), "add")


def bias_and_in_place(b: E.Builder) -> None:
    """Sums over rows, over everything, and x itself changed."""
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        place = at((i, M), (j, None))
        b.store(X, place, Binary("mul", Load(X, place), Load(X, place)))
        b.store(Y, j, Load(X, place), "add")
        b.store(Z, E.index(0), Load(X, place), "add")


def by_a_number(b: E.Builder) -> None:
    """The place hangs on the loops through a number bound before."""
    with b.loop(N, "independent") as i, b.loop(M, "vector") as j:
        place = b.let(E.add(E.mul(i, M), j), "place")
        b.store(Y, place, Load(X, place), "add")


def summed_deeper(b: E.Builder) -> None:
    """A sum over i by k, next to a loop over j."""
    with b.loop(N, "independent") as i:
        with b.loop(M, "vector") as j:
            b.store(Y, at((i, M), (j, None)), Load(X, j))
        with b.loop(K, "vector") as k:
            b.store(Z, k, Load(X, at((i, K), (k, None))), "add")


def largest(b: E.Builder) -> None:
    with b.loop(N, "vector") as i:
        b.store(Y, E.index(0), Load(X, i), "max")


Nest = Callable[[E.Builder], None]

# Per nest: the chain, then per part what threads share, what one thread goes through, and how.
TABLE: list[tuple[Nest, str, list[tuple[str, str]]]] = [
    (elementwise, "nm", [("nm", "flat")]),
    (behind_a_number, "nm", [("nm", "flat")]),
    (ragged, "n", [("n", "flat")]),
    (time_inside, "n", [("n", "flat")]),
    (rows, "n", [("n", "rows")]),
    (short_rows, "n", [("n", "flat")]),
    (checked_rows, "n", [("n", "flat")]),
    (checked_sums, "n", [("", "whole"), ("n", "flat")]),
    (read_on_the_way, "n", [("n", "flat")]),
    (whole, "nm", [("", "whole")]),
    (columns, "nm", [("m", "flat")]),
    (bias_and_in_place, "nm", [("", "whole"), ("m", "flat"), ("nm", "flat")]),
    (by_a_number, "nm", [("nm", "flat")]),
    (summed_deeper, "n", [("k", "flat"), ("n", "flat")]),
    (largest, "n", [("", "whole")]),
]


def built(nest: Nest) -> For:
    b = E.Builder()
    nest(b)
    (root,) = b.block().body
    assert isinstance(root, For)
    return root


def letters(loops: tuple[For, ...]) -> str:
    return "".join(f.extent.name for f in loops)


def how(part: Part) -> str:
    if part.summed is not None:
        return "whole"
    return "rows" if part.lanes is not None else "flat"


@pytest.mark.parametrize(("nest", "chain", "expected"), TABLE,
                         ids=lambda x: getattr(x, "__name__", ""))
def test_parts(nest: Nest, chain: str, expected: list[tuple[str, str]]) -> None:
    root = built(nest)
    parts = take_apart(root)
    assert letters(chain_of(root).chain) == chain
    assert [(letters(part.over), how(part)) for part in parts or ()] == expected


def test_every_store_is_made_once_and_what_is_in_place_last() -> None:
    parts = take_apart(built(bias_and_in_place))
    made = [number for part in parts or () for number in part.stores]
    assert len(made) == len(set(made)) == 3
    assert [part.tail[k].buffer.name for part in parts or ()
            for k in range(3) if id(part.tail[k]) in part.stores] == ["z", "y", "x"]


def test_what_cannot_be_shared() -> None:
    """A sum over i into places that a loop finds which hangs on what every round works out."""
    b = E.Builder()
    with b.loop(N, "independent") as i:
        total = b.register(float32)
        b.store(total, E.index(0), Load(X, i))
        with b.loop(K, "vector") as k:
            b.store(Z, k, Load(total, E.index(0)), "add")
        b.store(Y, i, Load(total, E.index(0)))
    assert take_apart(b.block().body[0]) is None


def test_registers_around_a_nest() -> None:
    """A plain store to one, or reading one while it is summed up, leaves the nest to a thread."""
    for kind, alone in (("sum", False), ("plain", True), ("read", True)):
        b = E.Builder()
        total = b.register(float32)
        with b.loop(N, "independent") as i:
            value = Load(total, E.index(0)) if kind == "read" else Load(X, i)
            b.store(total, E.index(0), value, None if kind == "plain" else "add")
        root = b.block().body[-1]
        assert isinstance(root, For)
        assert left_to_one(root) == ({id(total)} if alone else set())


@pytest.mark.parametrize("good", [200, 199, 130, 0])
@pytest.mark.parametrize("nest", [checked_rows, checked_sums, checked_outside])
def test_threads_that_fail_leave_nobody_at_a_barrier(nest: Nest, good: int) -> None:
    """The shim refuses a barrier, and a sum of a warp, that not all come to."""
    b = E.Builder()
    nest(b)
    writer = TeamWriter("k")
    writer.guard()
    writer.block(b.block().body)
    kernel = writer.finish()
    arrays = {"x": np.ones(1000, np.float32), "y": np.zeros(1000, np.float32),
              "z": np.zeros(1000, np.float32)}
    fault, sizes = np.zeros(8, np.int64), {"n": 200, "m": 200, "k": good}
    Shim(prelude(64) + kernel.text, [kernel]).launch(
        "k", 1, 64, [fault, *(arrays[b.name] for b in kernel.buffers)],
        [sizes[name] for name in kernel.scalars])
    assert (fault[0] > 0) == (good < 200)
    if good == 200:
        assert arrays["y"][:200].tolist() == [200 if nest is checked_rows else 1] * 200
        assert nest is checked_rows or arrays["z"][0] == 200


def test_teamwork() -> None:
    b = E.Builder()
    with b.loop(N) as i:
        b.store(Y, i, Load(X, i))
    with b.loop(N), b.loop(M, "vector") as j:
        b.store(Y, j, Load(X, j))
    alone, shared = b.block().body
    assert not has_teamwork(alone) and has_teamwork(shared)


def test_what_hangs_on_what() -> None:
    i, t, u = (Var(name, int64) for name in "itu")
    lets = {"t": E.mul(i, E.index(2)), "u": E.add(t, M)}
    assert depends(u, lets) == {"u", "t", "i", "m"}
    assert depends(Const(1, int64), lets) == set()
