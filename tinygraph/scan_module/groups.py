"""Which operand of a scan is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Inputs(NamedTuple):
    """The operands of a scan, or the inputs of its body (rows, carries, constants)."""

    seqs: tuple[Any, ...]
    carries: tuple[Any, ...]
    consts: tuple[Any, ...]


class Outputs(NamedTuple):
    """The results of a scan (finals, stacks), or of its body (new carries, rows)."""

    carries: tuple[Any, ...]
    stacks: tuple[Any, ...]


@dataclass(frozen=True)
class Groups:
    """How many operands of each kind a scan has."""

    seqs: int
    carries: int
    consts: int
    stacks: int

    def inputs(self, values: Sequence[Any]) -> Inputs:
        """Operands, or inputs of the body, by kind."""
        a, b = self.seqs, self.seqs + self.carries
        return Inputs(tuple(values[:a]), tuple(values[a:b]), tuple(values[b:]))

    def outputs(self, values: Sequence[Any]) -> Outputs:
        """Results, or outputs of the body, by kind."""
        return Outputs(tuple(values[:self.carries]), tuple(values[self.carries:]))

    @staticmethod
    def of(inputs: Inputs, outputs: Outputs) -> Groups:
        """The groups of a scan that is put together from its parts."""
        return Groups(len(inputs.seqs), len(inputs.carries), len(inputs.consts),
                      len(outputs.stacks))
