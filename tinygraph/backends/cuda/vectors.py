"""Four iterations a thread: the innermost loop of a nest in vectors.

A thread takes four neighbouring iterations of the innermost loop that threads share.  What they
read and write side by side moves in one piece (``tg_load4`` and ``tg_store4`` of the prelude), what
is the same for all four is read once, everything else element by element.  Whether four elements
lie so that they can move in one piece is seen where they are moved, since sizes and offsets are.

All that the four read in pieces is read before any of them writes.  Iterations touch memory
independently of one another (the promise of a shared loop), so only the order within an iteration
counts: what is read after a store to the same buffer keeps a nest from being written this way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tinygraph.backends.cuda.affine import polynomial
from tinygraph.backends.cuda.names import c_type
from tinygraph.backends.cuda.nest import Part, depends, loads
from tinygraph.backends.cuda.scalar import accumulated
from tinygraph.backends.cuda.threads import Threads
from tinygraph.dtypes import int64
from tinygraph.loops import build as E
from tinygraph.loops.language import (
    TRANSCENDENTAL,
    Binary,
    Buffer,
    Const,
    DimOf,
    Expr,
    For,
    Let,
    Load,
    Note,
    Select,
    Stmt,
    Store,
    Unary,
    Var,
    expressions,
    operands,
)

ENOUGH = 1 << 12  # iterations from which on there are threads enough with four each
SHORT = 32  # rows of fewer elements must be whole fours
MOST_NUMBERS = 64  # that an iteration works out
MOST_BYTES = 384  # of vectors that a thread holds
MOST_FUNCTIONS = 24  # exp and the like, a double's counted twice: four times the code is long
_AT = Var("?at", int64)  # any iteration; no name of a program


@dataclass(frozen=True)
class Fours:
    """How a thread takes four iterations of ``loop`` at a time.

    tail    the statements of one iteration that count
    lets    what the numbers of the tail stand for
    across  the loads of four neighbours, as the name of what is loaded;  once: those of one
            element that all four read.  Loads of the same elements have the same name
    side    the stores of four neighbours
    """

    loop: For
    tail: tuple[Stmt, ...]
    lets: Mapping[str, Expr]
    across: Mapping[int, object]
    once: Mapping[int, object]
    side: frozenset[int]


def fours(part: Part) -> Fours | None:
    """How threads take the iterations of a part four at a time; None where they cannot, or where
    it is not worth it."""
    if (part.summed is not None or part.lanes is not None or not part.over
            or list(map(id, part.over)) != list(map(id, part.chain)) or not _long(part.over)):
        return None
    if not all(isinstance(s, (Let, Store, Note)) for s in part.tail):
        return None
    stores = [s for s in part.tail if isinstance(s, Store)]
    if any(s.buffer.role == "register" for s in stores):
        return None
    loop = part.over[-1]
    lets = {s.var.name: s.value for stmts in (*part.before, part.tail) for s in stmts
            if isinstance(s, Let)}
    tail = _live(part.tail, part.stores, frozenset())
    across: dict[int, object] = {}
    once: dict[int, object] = {}
    for x in (x for s in tail for e in expressions(s) for x in loads(e)):
        if x.buffer.role == "register":
            return None
        step = stride(x.index, loop.var.name, lets)
        if step in (0, 1):
            (across if step else once)[id(x)] = id(x.buffer), polynomial(x.index, lets)
    side = frozenset(id(s) for s in tail if isinstance(s, Store)
                     and stride(s.index, loop.var.name, lets) == 1)
    own = {s.var.name: s.value for s in part.tail if isinstance(s, Let)}
    found = Fours(loop, _live(part.tail, part.stores, across.keys() | once.keys() | side), own,
                  across, once, side)
    return found if (across or side) and _in_order(tail, side) and _small(found) else None


def groups(part: Part) -> Expr | None:
    """How many fours a part has for threads to take; None where it does not go by fours."""
    if fours(part) is None:
        return None
    count = fours_in(part.over[-1].extent)
    for f in part.over[:-1]:
        count = E.mul(f.extent, count)
    return count


def fours_in(count: Expr) -> Expr:
    """How many fours so many elements are, of which the last may not be whole."""
    return E.floordiv(E.add(count, E.index(3)), E.index(4))


def stride(index: Expr, name: str, lets: Mapping[str, Expr]) -> int | None:
    """By how much ``index`` grows from one value of a variable to the next; None where it is not
    always the same, or not seen.  ``lets``: what the names of other variables stand for."""
    if name not in depends(index, lets):
        return 0
    if not _seen(index, name, lets):
        return None
    here, there = (polynomial(index, {**lets, name: E.add(_AT, E.index(k))}) for k in (0, 1))
    return (there - here).constant()


def _seen(e: Expr, name: str, lets: Mapping[str, Expr]) -> bool:
    """Do polynomials show all that ``e`` does with a variable?"""
    if name not in depends(e, lets):
        return True
    if isinstance(e, Var) and e.name in lets:
        return _seen(lets[e.name], name, lets)
    return isinstance(e, (Var, DimOf, Binary, Select)) and all(
        _seen(x, name, lets) for x in operands(e))


def _long(over: Sequence[For]) -> bool:
    """Is the innermost loop long enough, as far as that is known, and all of them together?"""
    inner = over[-1].extent
    if isinstance(inner, Const) and (int(inner.value) < 4 or (
            int(inner.value) % 4 and int(inner.value) < SHORT)):
        return False
    count: Expr = E.index(1)
    for f in over:
        count = E.mul(count, f.extent)
    return not isinstance(count, Const) or int(count.value) >= ENOUGH


def _live(tail: Sequence[Stmt], stores: frozenset[int], moved: frozenset[int] | set[int]
          ) -> tuple[Stmt, ...]:
    """The statements that some stores need.  ``moved``: loads and stores whose index they do not
    work out themselves."""
    found: list[Stmt] = []
    names: set[str] = set()
    for stmt in reversed(tail):
        if isinstance(stmt, Note) or (isinstance(stmt, Let) and stmt.var.name in names) or (
                id(stmt) in stores):
            found.append(stmt)
            names |= _named(stmt, moved)
    return tuple(reversed(found))


def _named(stmt: Stmt, moved: frozenset[int] | set[int]) -> set[str]:
    """The variables that a statement names, but for the indices of what is moved."""
    def of(e: Expr) -> Iterator[str]:
        if isinstance(e, (Var, DimOf)):
            yield e.name
        if id(e) not in moved:
            for x in operands(e):
                yield from of(x)

    if isinstance(stmt, Store) and id(stmt) in moved:
        return set(of(stmt.value))
    return {name for e in expressions(stmt) for name in of(e)}


def _in_order(tail: Sequence[Stmt], side: frozenset[int]) -> bool:
    """Does an iteration find the same where it reads first and then writes, what goes by elements
    before what goes by fours?"""
    before: dict[int, list[Store]] = {}
    for stmt in tail:
        if any(id(x.buffer) in before for e in expressions(stmt) for x in loads(e)):
            return False
        if isinstance(stmt, Store):
            others = before.setdefault(id(stmt.buffer), [])
            if any(s.accumulate or stmt.accumulate or (id(s) in side) != (id(stmt) in side)
                   for s in others):
                return False
            others.append(stmt)
    return True


def _small(found: Fours) -> bool:
    """Does a thread have registers enough?"""
    stores = [s for s in found.tail if isinstance(s, Store) and id(s) in found.side]
    sizes = {found.across[id(x)]: x.buffer.dtype.itemsize for s in found.tail
             for e in expressions(s) for x in loads(e) if id(x) in found.across}
    wide = [*sizes.values(), *(s.buffer.dtype.itemsize for s in stores),
            *(s.buffer.dtype.itemsize for s in stores if s.accumulate)]
    functions = sum(_functions(e) for s in found.tail for e in expressions(s))
    return (sum(4 * max(size, 4) for size in wide) <= MOST_BYTES and functions <= MOST_FUNCTIONS
            and sum(isinstance(s, Let) for s in found.tail) <= MOST_NUMBERS)


def _functions(e: Expr) -> int:
    """How many functions of 4 bytes ``e`` works out."""
    own = isinstance(e, (Unary, Binary)) and e.op in TRANSCENDENTAL
    return own * (e.dtype.itemsize // 4) + sum(map(_functions, operands(e)))


class Vectors(Threads):
    """Code of threads that take four iterations at a time."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.given: dict[int, str] = {}  # loads that were made before, as C
        self.lane: tuple[str, str] | None = None  # which of how many iterations, in fours

    def element(self, load: Load) -> str:
        """An element; of an iteration that there is not, in fours, any."""
        if id(load) in self.given:
            return self.given[id(load)]
        place = super().element(load)
        if self.lane is None:
            return place
        v, left = self.lane
        return f"({v} < {left} ? {place} : ({c_type(load.buffer.dtype)})0)"

    def by_fours(self, part: Part, found: Fours, me: str, all_: str) -> None:
        """The iterations of a part, four at a time; ``me``: the thread's number of ``all_``."""
        left, closes = self._fours_loop(part.over, me, all_)
        for before in part.before:
            self.alone(before)
        self._loaded(found, left)
        old, new = self._results(found, left)
        v, first = self.names.fresh("v"), self.bound[found.loop.var.name]
        self.line("#pragma unroll")
        self.open(f"for (int {v} = 0; {v} < 4; ++{v})")
        moved = found.across.keys() | found.once.keys() | found.side
        if any(found.loop.var.name in _named(s, moved) for s in found.tail):
            self.line(f"const I64 {self.bind(found.loop.var)} = {first} + {v};")
        self.given = {k: name.replace("?", v) for k, name in self.given.items()}
        self.lane = v, left
        for stmt in found.tail:
            if isinstance(stmt, Store):
                self._result(stmt, v, left, old.get(id(stmt)), new.get(id(stmt)))
            else:
                self.statement(stmt)
        self.close()
        self.given, self.lane = {}, None
        self.bound[found.loop.var.name] = first
        for stmt in found.tail:
            if isinstance(stmt, Store) and id(stmt) in new:
                self.line(f"tg_store4({self._from(stmt.buffer, stmt.index, found)}, {left}, "
                          f"{new[id(stmt)]});")
        for _ in range(closes):
            self.close()

    def _fours_loop(self, over: Sequence[For], me: str, all_: str) -> tuple[str, int]:
        """Open the loop over fours; how many iterations are left there, and the open blocks."""
        left, inner = self.names.fresh("left"), over[-1]
        if len(over) == 1:
            end = self.names.fresh("end")
            self.line(f"const I64 {end} = {self.index(inner.extent)};")
            i = self.bind(inner.var)
            self.open(f"for (I64 {i} = 4 * {me}; {i} < {end}; {i} += 4 * {all_})")
            self.line(f"const int {left} = tg_least(4, {end} - {i});")
            return left, 1
        self.open()
        counts = [self.names.fresh(f"n_{f.var.name}") for f in over]
        for f, count in zip(over, counts, strict=True):
            self.line(f"const I64 {count} = {self.index(f.extent)};")
        side, end, at = (self.names.fresh(n) for n in ("fours", "end", "at"))
        self.line(f"const I64 {side} = ({counts[-1]} + 3) / 4;")
        self.line(f"const I64 {end} = {' * '.join([*counts[:-1], side])};")
        self.open(f"for (I64 {at} = {me}; {at} < {end}; {at} += {all_})")
        rest, i = self.names.fresh("rest"), self.bind(inner.var)
        self.line(f"const I64 {i} = {at} % {side} * 4;")
        self.line(f"const int {left} = tg_least(4, {counts[-1]} - {i});")
        self.line(f"const I64 {rest} = {at} / {side};")
        for k in range(len(over) - 2, -1, -1):
            name = self.bind(over[k].var)
            if k == 0:
                self.line(f"const I64 {name} = {rest};")
                break
            self.line(f"const I64 {name} = {rest} % {counts[k]};")
            following = self.names.fresh("rest")
            self.line(f"const I64 {following} = {rest} / {counts[k]};")
            rest = following
        return left, 2

    def _from(self, buffer: Buffer, index: Expr, found: Fours) -> str:
        """Where four elements begin."""
        return f"{self.buffer(buffer)} + {self.index(E.replaced(index, found.lets))}"

    def _loaded(self, found: Fours, left: str) -> None:
        """Load what the four iterations read; ``?`` stands for the iteration."""
        known: dict[object, str] = {}
        given: dict[int, str] = {}
        for x in (x for s in found.tail for e in expressions(s) for x in _outer(e, found)):
            key = found.across.get(id(x), found.once.get(id(x)))
            kind = c_type(x.buffer.dtype)
            if key not in known and id(x) in found.across:
                name = self.names.fresh(f"{self.buffer(x.buffer)}_4")
                self.line(f"{kind} {name}[4];")
                self.line(f"tg_load4({self._from(x.buffer, x.index, found)}, {left}, {name});")
                known[key] = f"{name}[?]"
            elif key not in known:
                place = self.place(x.buffer, E.replaced(x.index, found.lets))
                known[key] = self.names.fresh(f"{self.buffer(x.buffer)}_1")
                self.line(f"const {kind} {known[key]} = {place};")
            given[id(x)] = known[key]
        self.given = given

    def _results(self, found: Fours, left: str) -> tuple[dict[int, str], dict[int, str]]:
        """Where what is stored in fours is gathered, and what it is accumulated with."""
        old: dict[int, str] = {}
        new: dict[int, str] = {}
        for s in found.tail:
            if isinstance(s, Store) and id(s) in found.side:
                name = new[id(s)] = self.names.fresh(f"{self.buffer(s.buffer)}_4")
                self.line(f"{c_type(s.buffer.dtype)} {name}[4];")
                if s.accumulate is not None:
                    self.line(f"tg_load4({self._from(s.buffer, s.index, found)}, {left}, {name});")
                    old[id(s)] = name
        return old, new

    def _result(self, stmt: Store, v: str, left: str, old: str | None, new: str | None) -> None:
        """A store of one iteration: to what is stored in fours, or to memory."""
        value = self.expr(stmt.value)
        place = f"{new}[{v}]" if new else self.place(stmt.buffer, stmt.index)
        if stmt.accumulate is not None:
            before = place if old else f"({c_type(stmt.buffer.dtype)}){place}"
            value = accumulated(stmt.accumulate, stmt.buffer.dtype, before, value)
        self.line(f"{place} = {value};" if new else f"if ({v} < {left}) {place} = {value};")


def _outer(e: Expr, found: Fours) -> Iterator[Load]:
    """The loads in ``e`` that are made before the four iterations, not those in their indices."""
    if id(e) in found.across or id(e) in found.once:
        assert isinstance(e, Load)
        yield e
        return
    for x in operands(e):
        yield from _outer(x, found)
