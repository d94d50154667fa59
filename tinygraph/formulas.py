"""Sizes of a program as one list of steps, to be worked out again and again.

The sizes of a lowered program are made of each other: offsets in the workspace are sums of
what lies before them.  As a list of steps every part is worked out once, without recursion.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence

from tinygraph.dims import ARITHMETIC, Atom, Dim, Monomial, Sym

_Step = tuple[Callable[[int, int], int], int, int]


class Formulas:
    """``formulas(env)``: the values of the Dims that this was made of, as a list.

    The numbers are registers: constants, then symbols, then the result of every step.
    """

    def __init__(self, dims: Sequence[Dim]) -> None:
        self._constants: dict[int, int] = {}
        self._symbols: dict[Sym, int] = {}
        for d in dims:
            self._note(d)
        self._steps: dict[_Step, int] = {}
        self._atoms: dict[Atom, int] = {}
        self._first = len(self._constants) + len(self._symbols)
        for s, k in self._symbols.items():
            self._atoms[s] = len(self._constants) + k
        self._results = [self._dim(d) for d in dims]
        self._program = list(self._steps)

    @property
    def steps(self) -> int:
        """How many operations a call takes."""
        return len(self._program)

    def __call__(self, env: Mapping[Sym, int]) -> list[int]:
        """The values where ``env`` gives that of every symbol.  Raises KeyError for one missing."""
        registers = [*self._constants, *map(env.__getitem__, self._symbols)]
        append = registers.append
        for function, a, b in self._program:
            append(function(registers[a], registers[b]))
        return [registers[k] for k in self._results]

    def _note(self, root: Dim) -> None:
        """Give places to the constants and symbols under ``root``."""
        seen, pending = set[Dim](), [root]
        while pending:
            d = pending.pop()
            if d in seen:
                continue
            seen.add(d)
            if not d.terms:
                self._constants.setdefault(0, len(self._constants))
            for monomial, factor in d.terms:
                if factor != 1 or not monomial:
                    self._constants.setdefault(factor, len(self._constants))
                for atom in monomial:
                    if isinstance(atom, Sym):
                        self._symbols.setdefault(atom, len(self._symbols))
                    else:
                        pending += [atom.left, atom.right]

    def _dim(self, d: Dim) -> int:
        """The register of ``d``."""
        if not d.terms:
            return self._constants[0]
        total, *rest = [self._term(monomial, factor) for monomial, factor in d.terms]
        for term in rest:
            total = self._step(operator.add, total, term)
        return total

    def _term(self, monomial: Monomial, factor: int) -> int:
        parts = [self._atom(atom) for atom in monomial]
        if factor != 1 or not parts:
            parts.append(self._constants[factor])
        product, *rest = parts
        for part in rest:
            product = self._step(operator.mul, product, part)
        return product

    def _atom(self, atom: Atom) -> int:
        found = self._atoms.get(atom)
        if found is None:
            assert not isinstance(atom, Sym)
            left, right = self._dim(atom.left), self._dim(atom.right)
            found = self._atoms[atom] = self._step(ARITHMETIC[atom.op], left, right)
        return found

    def _step(self, function: Callable[[int, int], int], a: int, b: int) -> int:
        return self._steps.setdefault((function, a, b), self._first + len(self._steps))
