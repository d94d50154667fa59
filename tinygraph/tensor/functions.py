"""Reductions, shapes, products and indexing as functions of array-likes."""

from __future__ import annotations

from typing import Any

from tinygraph.tensor import indexing, linalg, ordering, reductions, selection, shaping
from tinygraph.tensor.variable import ShapeTuple, as_tensor_variable, lifted

sum = lifted(reductions.sum_)
prod = lifted(reductions.prod)
mean = lifted(reductions.mean)
max = lifted(reductions.max_)
min = lifted(reductions.min_)
all = lifted(reductions.all_)
any = lifted(reductions.any_)
var = lifted(reductions.var)
std = lifted(reductions.std)
argmax = lifted(reductions.argmax)
argmin = lifted(reductions.argmin)
max_and_argmax = lifted(reductions.max_and_argmax)
ptp = lifted(reductions.ptp)
norm = lifted(reductions.norm)
logsumexp = lifted(reductions.logsumexp)

reshape = lifted(shaping.reshape)
dimshuffle = lifted(shaping.dimshuffle)
flatten = lifted(shaping.flatten)
transpose = lifted(shaping.transpose)
swapaxes = lifted(shaping.swapaxes)
moveaxis = lifted(shaping.moveaxis)
squeeze = lifted(shaping.squeeze)
expand_dims = lifted(shaping.expand_dims)
shape_padaxis = expand_dims
shape_padleft = lifted(shaping.shape_padleft)
shape_padright = lifted(shaping.shape_padright)
addbroadcast = lifted(shaping.addbroadcast)
unbroadcast = lifted(shaping.unbroadcast)
patternbroadcast = lifted(shaping.patternbroadcast)
split = lifted(shaping.split)
repeat = lifted(shaping.repeat)
tile = lifted(shaping.tile)
roll = lifted(shaping.roll)
flip = lifted(shaping.flip)
diff = lifted(shaping.diff)

nonzero = lifted(selection.nonzero)
flatnonzero = lifted(selection.flatnonzero)
nonzero_values = lifted(selection.nonzero_values)
unique = lifted(selection.unique)

sort = lifted(ordering.sort)
argsort = lifted(ordering.argsort)
topk = lifted(ordering.topk)
argtopk = lifted(ordering.argtopk)
topk_and_argtopk = lifted(ordering.topk_and_argtopk)
searchsorted = lifted(ordering.searchsorted)
cumsum = lifted(ordering.cumsum)
cumprod = lifted(ordering.cumprod)
choose = lifted(ordering.choose)

dot = lifted(linalg.dot)
matmul = lifted(linalg.matmul)
tensordot = lifted(linalg.tensordot)
batched_dot = lifted(linalg.batched_dot)
batched_tensordot = lifted(linalg.batched_tensordot)
inner = lifted(linalg.inner)
kron = lifted(linalg.kron)
outer = lifted(linalg.outer)
diag = lifted(linalg.diag)
diagonal = lifted(linalg.diagonal)
trace = lifted(linalg.trace)
tril = lifted(linalg.tril)
triu = lifted(linalg.triu)
take = lifted(indexing.take)


def shape(x: Any) -> ShapeTuple:
    """The sizes of ``x``, one int64 scalar per axis."""
    out: ShapeTuple = as_tensor_variable(x).shape
    return out


def stacklists(x: Any) -> Any:
    """Nested lists of scalars or arrays as one array: a new axis per level of nesting."""
    return as_tensor_variable(x)


def compress(condition: Any, x: Any, axis: int | None = None) -> Any:
    """The slices of ``x`` along ``axis`` (None: elements of x.flatten()) at which ``condition`` is
    true."""
    return selection.compress(condition, as_tensor_variable(x), axis)
