"""What a back end wants of the loop program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinygraph.dims import THREADS, TILES, Sym
from tinygraph.dtypes import DType


def _sixteen(dtype: DType) -> int:
    return 16


def _none(dtype: DType) -> int:
    return 0


@dataclass(frozen=True)
class Target:
    """Choices of lowering that hang on what runs the program.

    panel   how many columns of a matrix of a dtype the back end's products pack together; 0 for
            products that take matrices as they are
    lanes   may the batch lie innermost in memory, where rows do not fill vector registers?
    tiles   the most tiles into which the batch of a scan is cut
    shares  are products outside of loops cut into parts that threads share?  Else the back end does
            that itself, but for many products of one kind
    block   elements of a block of an elementwise loop, which threads share
    apart   is what depends on what came before along an axis (running sums, sorts, rows added up by
            index) a loop of its own for every element across, or every part of the axis, so that
            thousands of threads find work?  Else few loops are cut, and vectorise across
    """

    panel: Callable[[DType], int] = _sixteen
    lanes: bool = True
    tiles: Sym = THREADS
    shares: bool = True
    block: int = 1 << 14
    apart: bool = False


CPU = Target()
KERNELS = Target(_none, lanes=False, tiles=TILES, shares=False, block=1 << 12, apart=True)
