"""Dims as loop expressions over the size parameters of a program."""

from __future__ import annotations

from tinygraph.dims import Dim, Sym, dim
from tinygraph.loops import build as E
from tinygraph.loops.language import DimOf, Expr


class SizeParameters:
    """The sizes that a program is passed: a symbol, or a quotient, minimum or maximum of sizes,
    which the caller works out once per distinct sizes.  The program itself computes polynomials.

    ``local``: symbols that the program itself binds (the rows of a tile)
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
        return DimOf(self.names.setdefault(d, f"n{len(self.names)}"))

    def _polynomial(self, d: Dim) -> Expr:
        total: Expr = E.index(0)
        for monomial, c in d.terms:
            product: Expr = E.index(c)
            for atom in monomial:
                product = E.mul(self.parameter(Dim({(atom,): 1})), product)
            total = E.add(total, product)
        return total
