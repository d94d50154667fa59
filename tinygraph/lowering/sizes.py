"""Dims as loop expressions over the size parameters of a program."""

from __future__ import annotations

from tinygraph.dims import Compound, Dim, Sym, dim
from tinygraph.loops import build as E
from tinygraph.loops.language import Binary, DimOf, Expr


class SizeParameters:
    """The symbols of a function and the parameters that carry them."""

    def __init__(self) -> None:
        self.names: dict[Sym, str] = {}
        self._known: dict[Dim, Expr] = {}

    def expr(self, d: Dim | int) -> Expr:
        """``d`` as an int64 expression; one object per Dim."""
        d = dim(d)
        found = self._known.get(d)
        if found is None:
            found = self._known[d] = self._polynomial(d)
        return found

    def _polynomial(self, d: Dim) -> Expr:
        total: Expr = E.index(0)
        for monomial, c in d.terms:
            product: Expr = E.index(c)
            for atom in monomial:
                product = E.mul(self._atom(atom), product)
            total = E.add(total, product)
        return total

    def _atom(self, atom: Sym | Compound) -> Expr:
        if isinstance(atom, Sym):
            name = self.names.setdefault(atom, f"n{len(self.names)}")
            return DimOf(name)
        left, right = self.expr(atom.left), self.expr(atom.right)
        return Binary(atom.op, left, right)
