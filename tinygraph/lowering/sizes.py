"""Dims as loop expressions over the size parameters of a program."""

from __future__ import annotations

from collections.abc import Callable

from tinygraph.dims import Dim, Monomial, Sym, dim, is_late
from tinygraph.errors import InternalError
from tinygraph.loops import build as E
from tinygraph.loops.language import DimOf, Expr

MOST_TERMS = 4  # of a sum that the program computes; a longer one is a parameter
_COMPUTED: dict[str, Callable[[Expr, Expr], Expr]] = {
    "floordiv": E.floordiv, "min": E.minimum, "max": E.maximum}


class SizeParameters:
    """The sizes that a program is passed: a symbol, or a quotient, minimum or maximum of sizes,
    which the caller works out once per distinct sizes.  The program itself computes short
    polynomials.

    ``local``: symbols that the program itself binds (the rows of a tile, late symbols)
    """

    def __init__(self) -> None:
        self.names: dict[Dim, str] = {}
        self.local: dict[Sym, Expr] = {}
        self._known: dict[Dim, Expr] = {}

    def expr(self, d: Dim | int) -> Expr:
        """``d`` as an int64 expression; one object per Dim."""
        d = dim(d)
        found = self._known.get(d)
        if found is None:
            found = self._known[d] = self._polynomial(d)
        return found

    def parameter(self, d: Dim) -> Expr:
        """``d`` as one parameter, whatever it is made of, or the name that the program gives it."""
        if d.symbol in self.local:
            return self.local[d.symbol]  # type: ignore[index]
        if is_late(d):
            (((atom,), _),) = d.terms
            if isinstance(atom, Sym):
                raise InternalError(f"{atom.origin or atom.name} is not known to the program")
            return _COMPUTED[atom.op](self.expr(atom.left), self.expr(atom.right))
        return DimOf(self.names.setdefault(d, f"n{len(self.names)}"))

    def _polynomial(self, d: Dim) -> Expr:
        total: Expr = E.index(0)
        for inner, rest in self._factored(d).items():
            product = self.parameter(rest) if len(rest.terms) > MOST_TERMS else self._sum(rest)
            for atom in inner:
                product = E.mul(self.parameter(Dim({(atom,): 1})), product)
            total = E.add(total, product)
        return total

    def _factored(self, d: Dim) -> dict[Monomial, Dim]:
        """The factors of what only the program knows; its terms as one sum if they have none."""
        if len(d.terms) <= MOST_TERMS:
            return {(): d}
        found: dict[Monomial, dict[Monomial, int]] = {}
        for monomial, c in d.terms:
            inner = tuple(a for a in monomial if a in self.local or is_late(Dim({(a,): 1})))
            rest = tuple(a for a in monomial if a not in inner)
            found.setdefault(inner, {})[rest] = c
        return {inner: Dim(terms) for inner, terms in found.items()}

    def _sum(self, d: Dim) -> Expr:
        total: Expr = E.index(0)
        for monomial, c in d.terms:
            product: Expr = E.index(c)
            for atom in monomial:
                product = E.mul(self.parameter(Dim({(atom,): 1})), product)
            total = E.add(total, product)
        return total
