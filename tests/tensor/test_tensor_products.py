"""einsum, products over axes, diagonals: every back end against NumPy, gradients against finite
differences."""

from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_checks import check, matches

import tinygraph.tensor as T
from tinygraph.errors import ShapeError

EINSUMS = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("ii->i", (3, 3)), ("ii", (3, 3)),
    ("ba", (2, 3)), ("ij->", (2, 3)), ("...ij,...jk->...ik", (5, 2, 3), (5, 3, 4)),
    ("...ij,jk", (5, 2, 3), (3, 4)), ("i,j,k->kij", (2,), (3,), (4,)),
    ("iij,jk->ik", (3, 3, 2), (2, 4)), ("ab,ac,bd->cd", (2, 3), (2, 4), (3, 5)),
    ("iii->i", (3, 3, 3)), ("i...->...", (2, 3, 4)), (",i->i", (), (3,)),
    ("ij,ij->ij", (2, 3), (2, 3)), ("ij,k->j", (2, 3), (4,)), ("bij , bjk -> bik", (2, 3, 4),
                                                               (2, 4, 5)),
]


@pytest.mark.parametrize("case", EINSUMS, ids=lambda c: c[0])
def test_einsum(case, rng):
    labels, *shapes = case
    arrays = [rng.normal(size=s) for s in shapes]
    matches(lambda *xs: T.einsum(labels, *xs), np.einsum(labels, *arrays), *arrays)
    whole = [rng.integers(-3, 4, s) for s in shapes]
    check(lambda *xs: T.einsum(labels, *xs), np.einsum(labels, *whole), *whole)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_einsum_of_any_labels(data):
    """Random labels, repeated ones too, with and without an arrow."""
    sizes = dict(zip(string.ascii_lowercase[:4], (2, 3, 2, 4), strict=True))
    one = st.text(alphabet="abcd", max_size=3)
    terms = data.draw(st.lists(one, min_size=1, max_size=3))
    every = sorted(set("".join(terms)))
    text = ",".join(terms)
    if data.draw(st.booleans()):
        text += "->" + "".join(data.draw(st.permutations(every)))[:data.draw(st.integers(0, 4))]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=[sizes[c] for c in term]) for term in terms]
    check(lambda *xs: T.einsum(text, *xs), np.einsum(text, *arrays), *arrays, rtol=1e-10)


def test_einsum_without_letters(rng):
    x, y = rng.normal(size=(2, 3)), rng.normal(size=(3, 4))
    check(lambda x, y: T.einsum(x, [0, 1], y, [1, 2], [2, 0]), (x @ y).T, x, y)
    check(lambda x, y: T.einsum(x, [0, 1], y, [1, 2]), x @ y, x, y)


def test_einsum_broadcasts_known_ones(rng):
    x, y = rng.normal(size=(1, 3)), rng.normal(size=(5, 3))
    check(lambda x, y: T.einsum("ij,ij->ij", T.addbroadcast(x, 0), y), x * y, x, y)
    check(lambda x, y: T.einsum("...i,...i", T.addbroadcast(x, 0), y), (x * y).sum(1), x, y)


def test_einsum_is_one_product():
    """The labels are those of the op: no transpose, no reshape."""
    x, y = T.tensor3(), T.tensor3()
    out = T.einsum("bij,bkj->kbi", x, y)
    assert str(out.owner.op).startswith("dot{")


@pytest.mark.parametrize("labels, operands, words", [
    ("ij,jk", 1, "labels for 2 operands, but there are 1"),
    ("i,j", 2, "1 labels for .* has 2 axes"),
    ("ij,jk->iz", 2, "must be labels of operands"),
    ("ij,jk->ii", 2, "each once"),
    ("i1,jk", 2, "must be letters"),
])
def test_einsum_refuses(labels, operands, words):
    with pytest.raises(ValueError, match=words):
        T.einsum(labels, *[T.matrix("m")] * operands)


@pytest.mark.parametrize("axes", [0, 1, 2, (0, 1), [[0], [1]], [[0, 1], [1, 0]], [(-1,), (0,)]])
def test_tensordot(axes, rng):
    x, y = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    matches(lambda x, y: T.tensordot(x, y, axes), np.tensordot(x, y, axes), x, y)


def test_tensordot_of_more_axes(rng):
    x, y = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 3, 5))
    matches(lambda x, y: T.tensordot(x, y, axes=[[1, 2], [1, 0]]),
               np.tensordot(x, y, [[1, 2], [1, 0]]), x, y)
    with pytest.raises(ValueError, match="tensordot over 4 axes"):
        T.tensordot(T.matrix(), T.matrix(), 4)
    with pytest.raises(ValueError, match="1 axes of .* against 2 of"):
        T.tensordot(T.matrix(), T.matrix(), [[0], [0, 1]])


def test_batched_tensordot(rng):
    x, y = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 4, 3, 5))
    matches(lambda x, y: T.batched_tensordot(x, y, [[1, 2], [2, 1]]),
               np.einsum("bij,bjik->bk", x, y), x, y)
    y = rng.normal(size=(2, 4, 5))
    matches(lambda x, y: T.batched_tensordot(x, y, 1), x @ y, x, y)
    with pytest.raises(ValueError, match="axis 0 is the batch"):
        T.batched_tensordot(T.tensor3(), T.tensor3(), [[0], [1]])


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (4, 3)), ((2, 3), (3,)), ((), (3,))])
def test_inner(shapes, rng):
    x, y = (rng.normal(size=s) for s in shapes)
    matches(T.inner, np.inner(x, y), x, y)


@pytest.mark.parametrize("shapes", [((2, 3), (3, 4)), ((3,), (4,)), ((2, 3), (4,)), ((3,), (2, 2))])
def test_kron(shapes, rng):
    x, y = (rng.normal(size=s) for s in shapes)
    matches(T.kron, np.kron(x, y), x, y)
    assert T.slinalg.kron is T.kron


@pytest.mark.parametrize("k", [-3, -1, 0, 1, 2, 5])
def test_diagonals(k, rng):
    m, v = rng.normal(size=(3, 4)), rng.normal(size=3)
    matches(lambda m: [T.diagonal(m, k), T.diag(m, k), T.trace(m, k)],
               [np.diagonal(m, k), np.diag(m, k), np.trace(m, k)], m)
    matches(lambda v: T.diag(v, k), np.diag(v, k), v)
    check(lambda m: T.ExtractDiag(k)(m), np.diagonal(m, k), m)
    check(lambda v: T.AllocDiag(k)(v), np.diag(v, k), v)


@pytest.mark.parametrize("axes", [(0, 1), (2, 0), (-1, 1)])
def test_diagonals_of_more_axes(axes, rng):
    x = rng.normal(size=(3, 4, 5))
    matches(lambda x: [x.diagonal(1, *axes), x.trace(0, *axes)],
               [np.diagonal(x, 1, *axes), np.trace(x, 0, *axes)], x)


def test_matrices(rng):
    x, y = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    L = T.nlinalg
    matches(lambda x, y: L.matrix_dot(x, y, x), x @ y @ x, x, y)
    for n in range(4):
        check(lambda x, n=n: L.matrix_power(x, n), np.linalg.matrix_power(x, n), x)
    for order in (None, "fro", 1, -1, np.inf, -np.inf):
        check(lambda x, o=order: L.norm(x, o), np.linalg.norm(x, order), x)
    for order in (None, 0, 1, 2, 3, np.inf):
        check(lambda x, o=order: L.norm(x[0], o), np.linalg.norm(x[0], order), x)
    with pytest.raises(ValueError, match="ord is 3"):
        L.norm(T.matrix(), 3)
    with pytest.raises(ValueError, match="must not be negative"):
        L.matrix_power(T.matrix(), -1)


def test_sizes_that_do_not_fit(rng):
    with pytest.raises(ShapeError):
        T.einsum("ij,jk", T.ones((2, 3)), T.ones((4, 5)))
    with pytest.raises(ShapeError):
        check(lambda x: T.einsum("ii", x), 0.0, rng.normal(size=(3, 4)))
