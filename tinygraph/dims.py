"""Symbolic sizes: polynomials over symbols, with floor division, minimum and maximum.

A ``Sym`` is the size of an input's axis, or the value of an integer scalar of the graph.  One
normal form per polynomial: equal polynomials are equal objects by ``==`` and hash.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

_order = itertools.count()  # gives symbols a stable order; nobody reads it otherwise


class Sym:
    """An unknown size.  ``origin`` says in the user's words what it is ('axis 0 of x (a.py:3)').

    ``test_size`` is the size in test values (config.compute_test_value), where there are some.
    ``value`` is the integer scalar (a graph Value) that it equals, or None for an input's axis.
    ``bound``: a size that it never exceeds, for a late symbol: one that only the run itself finds
    out, such as how many steps a loop takes until its condition holds; None for all others.
    """

    __slots__ = ("name", "origin", "value", "bound", "key", "test_size")
    test_size: int

    def __init__(self, name: str, origin: str = "", value: Any = None, key: int | None = None,
                 bound: Dim | None = None):
        self.name, self.origin, self.value, self.bound = name, origin, value, bound
        self.key = (0, next(_order) if key is None else key)

    def __repr__(self) -> str:
        return self.name

    def evaluate(self, env: Mapping[Sym, int]) -> int:
        return env[self]

    def substitute(self, f: Callable[[Sym], Dim]) -> Dim:
        return f(self)

    def syms(self) -> set[Sym]:
        return {self}


class _OfCall(Sym):
    """A symbol that no graph makes, but a call: a copy of it, or one from a file, is itself."""

    __slots__ = ()

    def __reduce__(self) -> str:
        return self.name.upper()


THREADS = _OfCall("threads", "config.threads")
"""How many threads a call may use: config.threads at the time of the call.  Sizes of a lowered
program (of work split among threads) may hold it, types in a graph never do."""

TILES = _OfCall("tiles", "how many tiles a scan's batch may be cut into")
"""The same for the tiles of scans, where the back end chooses them apart (see lowering/target.py).
"""


class Compound:
    """floordiv, min or max of two Dims, as an atom of a polynomial."""

    __slots__ = ("op", "left", "right", "key", "_hash")

    def __init__(self, op: str, left: Dim, right: Dim):
        self.op, self.left, self.right = op, left, right
        self.key = (1, op, left.key, right.key)
        self._hash = hash((op, left, right))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Compound) and (self.op, self.left, self.right) == (
            other.op, other.left, other.right)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> Any:
        return Compound, (self.op, self.left, self.right)  # the hash holds in this process only

    def __repr__(self) -> str:
        if self.op == "floordiv":
            return f"(({self.left}) // ({self.right}))"
        return f"{self.op}({self.left}, {self.right})"

    def evaluate(self, env: Mapping[Sym, int]) -> int:
        return ARITHMETIC[self.op](self.left.evaluate(env), self.right.evaluate(env))

    def substitute(self, f: Callable[[Sym], Dim]) -> Dim:
        return _MAKE[self.op](self.left.substitute(f), self.right.substitute(f))

    def syms(self) -> set[Sym]:
        return self.left.syms() | self.right.syms()


Atom = Sym | Compound
Monomial = tuple[Atom, ...]


class Dim:
    """An immutable polynomial: integer coefficients over products of atoms."""

    __slots__ = ("terms", "_key", "_hash", "_const")
    terms: tuple[tuple[Monomial, int], ...]

    def __init__(self, terms: Mapping[Monomial, int]):
        kept = [(m, c) for m, c in terms.items() if c]
        if len(kept) > 1:
            kept.sort(key=lambda t: (len(t[0]), tuple(a.key for a in t[0])))
        self.terms = tuple(kept)
        self._key: Any = None
        self._hash = hash(self.terms)
        self._const: int | None = None
        if not kept:
            self._const = 0
        elif len(kept) == 1 and not kept[0][0]:
            self._const = kept[0][1]

    @property
    def key(self) -> tuple[Any, ...]:
        """Orders Dims."""
        if self._key is None:
            self._key = tuple((tuple(a.key for a in m), c) for m, c in self.terms)
        return self._key

    @property
    def const(self) -> int | None:
        """The integer that this is, or None."""
        return self._const

    @property
    def symbol(self) -> Sym | None:
        """The symbol that this is, if it is nothing but one symbol."""
        if len(self.terms) != 1:
            return None
        monomial, c = self.terms[0]
        lone = c == 1 and len(monomial) == 1 and isinstance(monomial[0], Sym)
        return monomial[0] if lone else None  # type: ignore[return-value]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return self.const == other
        return self is other or (
            isinstance(other, Dim) and self._hash == other._hash and self.terms == other.terms)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> Any:
        return Dim, (dict(self.terms),)  # order and hash hold in this process only

    def __add__(self, other: Dim | int) -> Dim:
        if self._const is not None and isinstance(other, int):
            return dim(self._const + other)
        out = dict(self.terms)
        for m, c in dim(other).terms:
            out[m] = out.get(m, 0) + c
        return Dim(out)

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return Dim({m: -c for m, c in self.terms})

    def __sub__(self, other: Dim | int) -> Dim:
        return self + -dim(other)

    def __rsub__(self, other: int) -> Dim:
        return dim(other) - self

    def __mul__(self, other: Dim | int) -> Dim:
        factor = dim(other)
        if self._const == 1:
            return factor
        if factor._const == 1:
            return self
        out: dict[Monomial, int] = {}
        for (m1, c1), (m2, c2) in itertools.product(self.terms, factor.terms):
            m = tuple(sorted(m1 + m2, key=lambda a: a.key))
            out[m] = out.get(m, 0) + c1 * c2
        return Dim(out)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim | int) -> Dim:
        return floordiv(self, dim(other))

    def evaluate(self, env: Mapping[Sym, int]) -> int:
        """The value where ``env`` gives that of every symbol."""
        if self._const is not None:
            return self._const
        total = 0
        for monomial, c in self.terms:
            for atom in monomial:
                c *= atom.evaluate(env)
            total += c
        return total

    def substitute(self, f: Callable[[Sym], Dim]) -> Dim:
        """This polynomial with f(s) in the place of every symbol s."""
        if self.const is not None:
            return self
        if len(self.terms) == 1 and self.terms[0][1] == 1 and len(self.terms[0][0]) == 1:
            return self.terms[0][0][0].substitute(f)
        total = dim(0)
        for monomial, c in self.terms:
            product = dim(c)
            for atom in monomial:
                product = product * atom.substitute(f)
            total = total + product
        return total

    def syms(self) -> set[Sym]:
        """Every symbol in it."""
        return {s for m, _ in self.terms for a in m for s in a.syms()}

    def __repr__(self) -> str:
        def term(m: Monomial, c: int) -> str:
            factors = [str(a) for a in m]
            if c == -1 and m:
                return "-" + "*".join(factors)
            return "*".join(([] if c == 1 and m else [str(c)]) + factors)

        return " + ".join(term(m, c) for m, c in self.terms).replace("+ -", "- ") or "0"


def dim(x: Dim | Sym | int) -> Dim:
    """``x`` as a Dim."""
    if isinstance(x, Dim):
        return x
    if isinstance(x, Sym):
        return Dim({(x,): 1})
    return _number(int(x))


@functools.lru_cache(4096)
def _number(n: int) -> Dim:
    return Dim({(): n})


def floordiv(a: Dim, b: Dim) -> Dim:
    """a // b, divided out where b is one monomial that divides every term of a."""
    exact = _divide(a, b)
    if exact is not None:
        return exact
    if a.const is not None and b.const:
        return dim(a.const // b.const)
    return Dim({(Compound("floordiv", a, b),): 1})


def _divide(a: Dim, b: Dim) -> Dim | None:
    if len(b.terms) != 1:
        return dim(1) if a == b and a.terms else None
    (monomial, c), out = b.terms[0], {}
    for m, k in a.terms:
        rest = list(m)
        for atom in monomial:
            if atom not in rest:
                return None
            rest.remove(atom)
        if k % c:
            return None
        out[tuple(rest)] = k // c
    return Dim(out)


def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller of two sizes."""
    difference = (a - b).const
    if difference is not None:
        return a if difference <= 0 else b
    if nonnegative(a - b):
        return b
    if nonnegative(b - a):
        return a
    a, b = sorted((a, b), key=lambda d: d.key)
    return Dim({(Compound("min", a, b),): 1})


def maximum(a: Dim, b: Dim) -> Dim:
    """The larger of two sizes."""
    difference = (a - b).const
    if difference is not None:
        return a if difference >= 0 else b
    if nonnegative(a - b):
        return a
    if nonnegative(b - a):
        return b
    a, b = sorted((a, b), key=lambda d: d.key)
    return Dim({(Compound("max", a, b),): 1})


ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "floordiv": lambda a, b: a // b if b else 0, "min": min, "max": max}
_MAKE: dict[str, Callable[[Dim, Dim], Dim]] = {
    "floordiv": floordiv, "min": minimum, "max": maximum}


def nonnegative(a: Dim) -> bool:
    """True if ``a`` is at least 0 for a reason seen at once: an axis of an input is never
    negative, so a polynomial of axes with no negative coefficient is not either."""
    return all(c > 0 and all(_atom_nonnegative(x) for x in m) for m, c in a.terms)


def _atom_nonnegative(atom: Atom) -> bool:
    if isinstance(atom, Sym):
        return atom.value is None or atom.bound is not None
    if atom.op == "max":
        return nonnegative(atom.left) or nonnegative(atom.right)
    return nonnegative(atom.left) and nonnegative(atom.right)


def is_late(d: Dim) -> bool:
    """Does only the run itself find out this size?"""
    return d.const is None and any(s.bound is not None for s in d.syms())


def at_most(d: Dim) -> Dim:
    """A size, known before the run, that ``d`` never exceeds: late symbols lie between 0 and
    their bounds."""
    return _extreme(d, True) if is_late(d) else d


def _extreme(d: Dim, most: bool) -> Dim:
    total = dim(0)
    for monomial, c in d.terms:
        product = dim(c)
        for atom in monomial:
            product = product * _extreme_atom(atom, most == (c > 0))
        total = total + product
    return total


def _extreme_atom(atom: Atom, most: bool) -> Dim:
    if isinstance(atom, Sym):
        if atom.bound is None:
            return dim(atom)
        return at_most(atom.bound) if most else dim(0)
    left = _extreme(atom.left, most)
    if atom.op == "floordiv":  # by 0 it is 0
        least = _extreme(atom.right, False)
        if most:
            return floordiv(left, maximum(least, dim(1)))
        return floordiv(left, _extreme(atom.right, True)) if (least.const or 0) > 0 else dim(0)
    return _MAKE[atom.op](left, _extreme(atom.right, most))


def prove_equal(a: Dim, b: Dim) -> bool | None:
    """True or False where it can be seen, None where only the run can tell."""
    if a is b or a == b:
        return True
    difference = (a - b).const
    return None if difference is None else difference == 0


def product(dims: tuple[Dim, ...]) -> Dim:
    """The number of elements of a shape."""
    out = dim(1)
    for d in dims:
        out = out * d
    return out
