"""Indexing: points 33 to 36."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import function, grad


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_33_slices_and_integers(backend):
    x, i = T.dmatrix("x"), T.lscalar("i")
    a = np.arange(12.0).reshape(4, 3)
    f = function([x, i], [x[i], x[1:100], x[::-1, 2:0:-1], x[-2:, :i], x[i:]], backend=backend)
    for k in (1, -1, -4):
        for got, expected in zip(f(a, k), [a[k], a[1:100], a[::-1, 2:0:-1], a[-2:, :k], a[k:]],
                                 strict=True):
            np.testing.assert_array_equal(got, expected)
    with pytest.raises(IndexError, match="4"):
        f(a, 4)


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_33_integer_arrays(backend):
    x, k, m = T.dmatrix("x"), T.lvector("k"), T.lmatrix("m")
    a, b = np.arange(12.0).reshape(4, 3), np.array([0, 3, -1])
    c = np.array([[0, 1], [2, -4]])
    parts = [x[[0, 1]], x[k], x[:, [2, 0]], x[m], x[k, [0, 1, 2]], x[k, 1:]]
    assert all(p.broadcastable == (False,) * p.ndim for p in parts)
    expected = [a[[0, 1]], a[b], a[:, [2, 0]], a[c], a[b, [0, 1, 2]], a[b, 1:]]
    for got, want in zip(function([x, k, m], parts, backend=backend)(a, b, c), expected,
                         strict=True):
        np.testing.assert_array_equal(got, want)
    with pytest.raises(IndexError, match="7"):
        function([x, k], x[k], backend=backend)(a, np.array([0, 7]))


def test_33_masks():
    x = T.dvector("x")
    a = np.array([1.0, -1.0, 2.0])
    np.testing.assert_array_equal(function([x], x[x > 0])(a), a[a > 0])


def test_33_nonzero():
    x = T.dmatrix("x")
    a = np.array([[1.0, -1.0], [2.0, 0.0]])
    np.testing.assert_array_equal(function([x], x[(x > 0).nonzero()])(a), a[a > 0])


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_34_repeated_indices(backend):
    v, m = T.dvector("v"), T.dmatrix("m")
    a = np.zeros(3)
    f = function([v], [T.inc_subtensor(v[[0, 0]], 1.0),
                       T.set_subtensor(v[[0, 0]], np.array([1.0, 2.0]))], backend=backend)
    added, written = f(a)
    np.testing.assert_array_equal(added, [2, 0, 0])
    np.testing.assert_array_equal(written, [2, 0, 0])
    g = function([m], grad((m[[1, 1, 0]] * np.array([[1.0], [10.0], [100.0]])).sum(), m),
                 backend=backend)
    np.testing.assert_array_equal(g(np.ones((3, 2))), [[100, 100], [11, 11], [0, 0]])


def test_35_writing_into_parts():
    x, y = T.dmatrix("x"), T.dvector("y")
    with pytest.raises(TypeError, match="indexed"):
        T.set_subtensor(x, 1.0)
    with pytest.raises(TypeError, match="more axes"):
        T.set_subtensor(y[:2], T.dmatrix("m"))
    f = function([x, y], [T.set_subtensor(x[0], y), T.inc_subtensor(x[:, 1:], 1.0),
                          T.set_subtensor(x[1:], y)])
    a = np.zeros((3, 2))
    row, plus, rows = f(a, np.array([1.0, 2.0]))
    np.testing.assert_array_equal(row, [[1, 2], [0, 0], [0, 0]])
    np.testing.assert_array_equal(plus, [[0, 1]] * 3)
    np.testing.assert_array_equal(rows, [[0, 0], [1, 2], [1, 2]])
    np.testing.assert_array_equal(a, 0)


def test_36_new_axes_without_an_index_for_every_axis():
    x = T.dmatrix("x")
    a = np.arange(6.0).reshape(2, 3)
    for part, expected in ((x[:, None], a[:, None]), (x[None], a[None]),
                           (x[..., None], a[..., None])):
        np.testing.assert_array_equal(function([x], part)(a), expected)
    assert x[None].broadcastable == (True, False, False)
