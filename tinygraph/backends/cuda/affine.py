"""Which rows of memory an index lies in, found out by arithmetic on polynomials.

A loop over time works on rows: step t reads row t of a state and writes row t + 1, or rows t and
t + 1 modulo 2.  Two indices whose rows are surely different meet at no element.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tinygraph.loops.language import Binary, Cast, Const, DimOf, Expr, Select, Unary, Var


@dataclass(frozen=True)
class Mod:
    """A remainder, as an atom of a polynomial."""

    x: Poly
    divisor: int


@dataclass(frozen=True)
class Least:
    """The lesser of two, as an atom."""

    x: Poly
    y: Poly


@dataclass(frozen=True)
class Opaque:
    """Any other expression, as an atom; ``key`` is equal for equal ones."""

    key: object
    positive: bool  # or zero


Atom = str | Mod | Least | Opaque
Monomial = tuple[Atom, ...]


def _order(atom: Atom) -> str:
    return atom if isinstance(atom, str) else "~" + repr(atom)


@dataclass(frozen=True)
class Poly:
    """A polynomial with integer coefficients: (atoms, coefficient) of every term."""

    terms: frozenset[tuple[Monomial, int]]

    @staticmethod
    def of(terms: Mapping[Monomial, int]) -> Poly:
        """The polynomial of these coefficients."""
        return Poly(frozenset((m, c) for m, c in terms.items() if c))

    @staticmethod
    def atom(a: Atom) -> Poly:
        """The polynomial that is one atom."""
        return Poly(frozenset([((a,), 1)]))

    @staticmethod
    def number(n: int) -> Poly:
        """A constant."""
        return Poly.of({(): n})

    def __add__(self, other: Poly) -> Poly:
        total = dict(self.terms)
        for m, c in other.terms:
            total[m] = total.get(m, 0) + c
        return Poly.of(total)

    def __mul__(self, other: Poly) -> Poly:
        total: dict[Monomial, int] = {}
        for m, c in self.terms:
            for n, d in other.terms:
                both = tuple(sorted((*m, *n), key=_order))
                total[both] = total.get(both, 0) + c * d
        return Poly.of(total)

    def __neg__(self) -> Poly:
        return Poly(frozenset((m, -c) for m, c in self.terms))

    def __sub__(self, other: Poly) -> Poly:
        return self + -other

    def modulo(self, n: int) -> Poly:
        """The polynomial with coefficients from 0 on below n, equal modulo n."""
        return Poly.of({m: c % n for m, c in self.terms})

    def constant(self) -> int | None:
        """Its value, if it is a number."""
        if not self.terms:
            return 0
        ((m, c), *rest) = self.terms
        return None if m or rest else c

    def atoms(self) -> Iterator[Atom]:
        """Its atoms, not those in atoms."""
        for m, _ in self.terms:
            yield from m

    def names(self) -> set[str]:
        """The variables in it, those in atoms too."""
        found: set[str] = set()
        for a in self.atoms():
            if isinstance(a, str):
                found.add(a)
            elif isinstance(a, Mod):
                found |= a.x.names()
            elif isinstance(a, Least):
                found |= a.x.names() | a.y.names()
            else:
                found.add("?")  # whatever it hangs on
        return found

    def put(self, name: str, value: Poly) -> Poly:
        """The polynomial with a variable replaced."""
        total = Poly.number(0)
        for m, c in self.terms:
            term = Poly.number(c)
            for a in m:
                term = term * (_put(a, name, value))
            total = total + term
        return total


def _put(a: Atom, name: str, value: Poly) -> Poly:
    if a == name:
        return value
    if isinstance(a, Mod):
        return Poly.atom(Mod(a.x.put(name, value), a.divisor))
    if isinstance(a, Least):
        return Poly.atom(Least(a.x.put(name, value), a.y.put(name, value)))
    return Poly.atom(a)


def polynomial(e: Expr, lets: Mapping[str, Expr]) -> Poly:
    """An int64 expression as a polynomial; ``lets``: what variables stand for."""
    if isinstance(e, Const):
        return Poly.number(int(e.value))
    if isinstance(e, (Var, DimOf)):
        return polynomial(lets[e.name], lets) if e.name in lets else Poly.atom(e.name)
    if isinstance(e, Unary) and e.op == "neg":
        return -polynomial(e.x, lets)
    if isinstance(e, Binary):
        x, y = polynomial(e.x, lets), polynomial(e.y, lets)
        if e.op in ("add", "sub", "mul"):
            return x + y if e.op == "add" else x - y if e.op == "sub" else x * y
        divisor = y.constant()
        if e.op == "mod" and divisor is not None and divisor > 0:
            return Poly.atom(Mod(x, divisor))
        if e.op == "min":
            return Poly.atom(Least(x, y))
    return Poly.atom(Opaque(_form(e, lets), positive(e, lets)))


def _form(e: Expr, lets: Mapping[str, Expr]) -> object:
    """An expression as something that is equal for equal expressions."""
    if isinstance(e, Const):
        return e.value
    if isinstance(e, (Var, DimOf)):
        return _form(lets[e.name], lets) if e.name in lets else e.name
    if isinstance(e, Binary):
        return e.op, _form(e.x, lets), _form(e.y, lets)
    if isinstance(e, Select):
        return "select", *(_form(x, lets) for x in (e.cond, e.then, e.other))
    return id(e)


def positive(e: Expr, lets: Mapping[str, Expr]) -> bool:
    """Is ``e`` surely at least 0?  Sizes and the variables of loops are."""
    if isinstance(e, Const):
        return e.value >= 0
    if isinstance(e, (Var, DimOf)):
        return e.name not in lets or positive(lets[e.name], lets)
    if isinstance(e, Binary):
        if e.op == "mod":
            return isinstance(e.y, Const) and e.y.value > 0
        return e.op in ("add", "mul", "floordiv", "min", "max") and positive(
            e.x, lets) and positive(e.y, lets)
    if isinstance(e, Select):
        return positive(e.then, lets) and positive(e.other, lets)
    return isinstance(e, Cast) and positive(e.x, lets)


@dataclass(frozen=True)
class Rows:
    """Memory as rows of ``size`` elements: the index lies in row ``row``."""

    size: Poly
    row: Poly

    def apart(self, other: Rows) -> bool:
        """Is it surely another row?"""
        if self.size != other.size:
            return False
        distance = self.row - other.row
        number = distance.constant()
        if number is not None:
            return number != 0
        plus = [m for m, c in distance.terms if c == 1]
        minus = [m for m, c in distance.terms if c == -1]
        if len(distance.terms) != 2 or len(plus) != 1 or len(minus) != 1:
            return False
        (x, y) = plus[0], minus[0]
        if len(x) != 1 or len(y) != 1 or not (isinstance(x[0], Mod) and isinstance(y[0], Mod)):
            return False
        between = (x[0].x - y[0].x).constant()
        return x[0].divisor == y[0].divisor and between is not None and (
            between % x[0].divisor != 0)

    def before(self, name: str) -> Rows:
        """The row of an earlier round of a loop, as the present round names it."""
        return Rows(self.size, self.row.put(name, Poly.atom(name) - Poly.number(1)))


def rows_of(index: Poly, steps: frozenset[str], extents: Mapping[str, Poly]) -> Rows | None:
    """The row in which an index lies; None where that is not seen.

    steps    variables of loops that all threads go through in step
    extents  how far the variables of all loops go
    """
    moving = [m for m, _ in index.terms if any(_names(a) & steps for a in m)]
    sizes = {tuple(a for a in m if not _names(a) & steps) for m in moving}
    for size in sizes:
        coefficients = {abs(c) for m, c in index.terms if m in moving and
                        tuple(a for a in m if not _names(a) & steps) == size}
        if len(coefficients) != 1:
            continue
        found = _split(index, size, coefficients.pop(), steps, extents)
        if found is not None:
            return found
    return None


def _names(a: Atom) -> set[str]:
    return Poly.atom(a).names()


def _split(index: Poly, size: Monomial, times: int, steps: frozenset[str],
           extents: Mapping[str, Poly]) -> Rows | None:
    """An index as row * size + rest, if the rest stays within a row, and the row is the same for
    all threads."""
    row, rest = Poly.number(0), Poly.number(0)
    for m, c in index.terms:
        left = list(m)
        for a in size:
            if a not in left:
                break
            left.remove(a)
        else:
            if c % times == 0 and not {n for a in left for n in _names(a)} & (
                    extents.keys() - steps):
                row = row + Poly.of({tuple(left): c // times})
                continue
        rest = rest + Poly.of({m: c})
    length = Poly.of({size: times})
    return Rows(length, row) if _within(rest, length, extents) else None


def _within(rest: Poly, length: Poly, extents: Mapping[str, Poly]) -> bool:
    """Is 0 <= rest < length surely?"""
    for m, c in rest.terms:
        if c < 0 or not all(_positive(a) for a in m):
            return False
    most = rest
    for _ in range(len(extents)):
        found = next((a for a in most.atoms() if isinstance(a, str) and a in extents), None)
        if found is None:
            break
        if any(c < 0 for m, c in most.terms if found in m):
            return False
        most = most.put(found, extents[found] - Poly.number(1))
    return _at_least_zero(length - most - Poly.number(1))


def _positive(a: Atom) -> bool:
    if isinstance(a, Opaque):
        return a.positive
    if isinstance(a, Least):
        return all(c >= 0 and all(map(_positive, m)) for p in (a.x, a.y) for m, c in p.terms)
    return True


def _at_least_zero(p: Poly, depth: int = 4) -> bool:
    """Is ``p`` surely at least 0?  A lesser of two that is taken away is at most either."""
    if all(c >= 0 and all(map(_positive, m)) for m, c in p.terms):
        return True
    if depth:
        for m, c in p.terms:
            least = next((a for a in m if isinstance(a, Least)), None)
            if c < 0 and least is not None:
                others = list(m)
                others.remove(least)
                rest = Poly.of({tuple(others): c})
                without = p - Poly.of({m: c})
                return any(_at_least_zero(without + rest * bound, depth - 1)
                           for bound in (least.x, least.y))
    return False
