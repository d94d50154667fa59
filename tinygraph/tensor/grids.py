"""Coordinates: mgrid, ogrid, meshgrid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinygraph.ops.arithmetic import broadcast_together
from tinygraph.tensor.constructors import arange
from tinygraph.tensor.shaping import insert_axes, swapaxes
from tinygraph.tensor.variable import as_tensor_variable


@dataclass(frozen=True)
class Grid:
    """Slices as coordinates: ``mgrid[0:3, 0:4]`` is a list of two 3 by 4 arrays, the row and the
    column of every place; ``ogrid`` gives them as 3 by 1 and 1 by 4, which broadcast.

    Bounds may be integer scalars, steps are constants.  One slice gives one vector.
    """

    sparse: bool

    def __getitem__(self, slices: Any) -> Any:
        if isinstance(slices, slice):
            return _range(slices)
        ranges = [_range(s) for s in slices]
        grids = [insert_axes(r, [k for k in range(len(ranges)) if k != j])
                 for j, r in enumerate(ranges)]
        return grids if self.sparse else broadcast_together(grids)


def _range(s: Any) -> Any:
    if not isinstance(s, slice) or s.stop is None:
        raise TypeError(f"a grid is made of slices such as 0:3, not {s!r}")
    return arange(0 if s.start is None else s.start, s.stop, 1 if s.step is None else s.step)


mgrid, ogrid = Grid(sparse=False), Grid(sparse=True)


def meshgrid(*xs: Any, indexing: str = "xy", sparse: bool = False) -> list[Any]:
    """Vectors as coordinates of a grid, one array for each: array j varies along axis j, but for
    the first two, which with ``indexing="xy"`` change places.  sparse: the other axes have size 1,
    and broadcast.

    Raises ValueError for another ``indexing``.
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing is {indexing!r}; it must be 'xy' or 'ij'")
    vectors = [as_tensor_variable(x) for x in xs]
    for v in vectors:
        if v.ndim > 1:
            raise ValueError(f"meshgrid takes vectors and scalars; {v!r} has {v.ndim} axes")
    grids = [insert_axes(v if v.ndim else insert_axes(v, [0]),
                         [k for k in range(len(vectors)) if k != j])
             for j, v in enumerate(vectors)]
    if indexing == "xy" and len(grids) > 1:
        grids = [swapaxes(g, 0, 1) for g in grids]
    return grids if sparse else broadcast_together(grids)
