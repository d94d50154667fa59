"""Borders, grids, stacks, axes: every back end against NumPy, gradients against differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_checks import check, matches, value

import tinygraph
import tinygraph.tensor as T
from tinygraph.errors import ShapeError

MODES = ("constant", "edge", "reflect", "symmetric", "wrap")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", [1, (2, 1), [(0, 2), (1, 0)]], ids=str)
def test_pad(mode, width, rng):
    x = rng.normal(size=(3, 4))
    matches(lambda x: T.pad(x, width, mode), np.pad(x, width, mode), x)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODES), st.lists(st.tuples(st.integers(2, 5), st.integers(0, 1),
                                                  st.integers(0, 1)), min_size=1, max_size=3))
def test_pad_of_any_shape(mode, axes):
    x = np.arange(np.prod([n for n, _, _ in axes]), dtype="int32").reshape([n for n, _, _ in axes])
    widths = [(a, b) for _, a, b in axes]
    check(lambda x: T.pad(x, widths, mode), np.pad(x, widths, mode), x)


def test_pad_by_a_number(rng):
    x = rng.normal(size=(2, 3)).astype("float32")
    matches(lambda x: T.pad(x, 1, constant_values=2.5),
               np.pad(x, 1, constant_values=np.float32(2.5)), x)


def test_pad_by_a_variable(rng):
    x, n = rng.normal(size=(3, 4)), T.iscalar("n")
    v = T.dmatrix("v")
    for mode in ("constant", "edge", "reflect"):
        f = tinygraph.function([v, n], T.pad(v, (n, 0), mode))
        for k in range(3):
            np.testing.assert_array_equal(f(x, k), np.pad(x, (k, 0), mode))


def test_pad_refuses(rng):
    with pytest.raises(ValueError, match="mode is 'mean'"):
        T.pad(T.matrix(), 1, "mean")
    with pytest.raises(ValueError, match="a pair per axis"):
        T.pad(T.matrix(), [(1, 1)] * 3)
    with pytest.raises(IndexError):
        value(lambda x: T.pad(x, 3, "reflect"), rng.normal(size=3))


def test_grids():
    n = np.array(4, "int32")
    check(lambda n: T.stack(T.mgrid[0:3, 0:n]), np.mgrid[0:3, 0:4], n)
    check(lambda n: T.stack(T.mgrid[1:6:2, 0:n, 2:3]), np.mgrid[1:6:2, 0:4, 2:3], n)
    for j in range(2):
        check(lambda n, j=j: T.ogrid[0:3, 0:n][j], np.ogrid[0:3, 0:4][j], n)
    check(lambda n: T.mgrid[0:n], np.mgrid[0:4], n)
    with pytest.raises(TypeError, match="slices such as 0:3"):
        T.mgrid[0:3, 4]


@pytest.mark.parametrize("indexing", ["xy", "ij"])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_meshgrid(indexing, sparse, count, rng):
    xs = [rng.normal(size=k + 2) for k in range(count)]
    matches(lambda *xs: T.meshgrid(*xs, indexing=indexing, sparse=sparse),
               np.meshgrid(*xs, indexing=indexing, sparse=sparse), *xs)
    with pytest.raises(ValueError, match="indexing is 'yx'"):
        T.meshgrid(T.vector(), indexing="yx")


@pytest.mark.parametrize("name", ["atleast_1d", "atleast_2d", "atleast_3d"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (1, 2, 3, 4)], ids=str)
def test_atleast(name, shape, rng):
    x = rng.normal(size=shape)
    matches(getattr(T, name), getattr(np, name)(x), x)
    assert len(getattr(T, name)(T.vector(), T.matrix())) == 2


def test_broadcasting(rng):
    x, y = rng.normal(size=(1, 3)), rng.normal(size=(4, 1))
    matches(lambda x: T.broadcast_to(T.addbroadcast(x, 0), (4, 3)), np.broadcast_to(x, (4, 3)),
               x)
    matches(lambda x, y: T.broadcast_arrays(T.addbroadcast(x, 0), T.addbroadcast(y, 1)),
               np.broadcast_arrays(x, y), x, y)
    with pytest.raises(ValueError, match="cannot broadcast to 1 axes"):
        T.broadcast_to(T.matrix(), 3)


def test_specified_shape(rng):
    x = rng.normal(size=(2, 1))
    out = T.specify_shape(T.matrix("m"), (None, 1))
    assert out.broadcastable == (False, True)
    matches(lambda x: T.specify_shape(x, (2, 1)) + np.ones((2, 3)), x + np.ones((2, 3)), x)
    with pytest.raises(ShapeError):
        value(lambda x: T.specify_shape(x, (3, 1)), x)
    with pytest.raises(ValueError, match="3 sizes for m"):
        T.specify_shape(T.matrix("m"), (1, 2, 3))


def test_stacks_and_flips(rng):
    x, y = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    matches(lambda x, y: [T.horizontal_stack(x, y), T.vertical_stack(x, y), T.flipud(x),
                             T.fliplr(y), T.stack([x, y], 1), T.stack(x, y)],
               [np.hstack([x, y]), np.vstack([x, y]), np.flipud(x), np.fliplr(y),
                np.stack([x, y], 1), np.stack([x, y])], x, y)
    with pytest.raises(TypeError, match="horizontal_stack takes matrices, not v"):
        T.horizontal_stack(T.vector("v"))


def test_inverse_permutation(rng):
    one, rows = rng.permutation(5), np.stack([rng.permutation(4) for _ in range(3)])
    matches(T.inverse_permutation, np.argsort(one), one)
    matches(T.inverse_permutation, np.argsort(rows, 1), rows)
    matches(T.inverse_permutation, np.argsort(one).astype("int32"), one.astype("int32"))
    with pytest.raises(TypeError, match="an integer vector or matrix"):
        T.inverse_permutation(T.vector())


# --- constructors -----------------------------------------------------------------------------

PREFIXES = {"b": "int8", "w": "int16", "i": "int32", "l": "int64", "f": "float32", "d": "float64",
            "u": "uint8"}
RANKS = {"scalar": (), "vector": (False,), "row": (True, False), "col": (False, True),
         "matrix": (False, False), **{f"tensor{n}": (False,) * n for n in range(3, 8)}}


@pytest.mark.parametrize("what", RANKS)
def test_constructors_of_every_rank_and_dtype(what):
    plural = "matrices" if what == "matrix" else what + "s"
    for prefix, dtype in PREFIXES.items():
        x = getattr(T, prefix + what)("x")
        assert (x.name, x.dtype, x.broadcastable) == ("x", dtype, RANKS[what])
        a, b = getattr(T, prefix + plural)("a", "b")
        assert (a.name, b.name, b.dtype) == ("a", "b", dtype)
        assert len(getattr(T, prefix + plural)(3)) == 3
    with tinygraph.config.change(floatX="float64"):
        assert getattr(T, what)("x").dtype == "float64"
    assert getattr(T, what)(name="x", dtype="int32").dtype == "int32"


def test_types_are_objects():
    kind = T.TensorType("float32", (False, True))
    assert (kind.dtype, kind.ndim, kind.broadcastable) == ("float32", 2, (False, True))
    assert kind == T.TensorType("float32", [False, True])
    assert kind("x").broadcastable == (False, True)


@pytest.mark.parametrize("call, expected", [
    (lambda n: T.arange(n), np.arange(5)),
    (lambda n: T.arange(1, n), np.arange(1, 5)),
    (lambda n: T.arange(n, 0, -2), np.arange(5, 0, -2)),
    (lambda n: T.arange(2, n * 2, 3, "float32"), np.arange(2, 10, 3, "float32")),
    (lambda n: T.arange(0, 1, 0.25, "float64"), np.arange(0, 1, 0.25)),
    (lambda n: T.eye(n, 3, 1, "int32"), np.eye(5, 3, 1, "int32")),
    (lambda n: T.eye(3, n, -1, "float64"), np.eye(3, 5, -1)),
    (lambda n: T.tri(n, 3, -1, "float64"), np.tri(5, 3, -1)),
    (lambda n: T.identity_like(T.zeros((n, 4), "float64")), np.eye(5, 4)),
    (lambda n: T.full((n, 2), 7, "int8"), np.full((5, 2), 7, "int8")),
    (lambda n: T.alloc(np.arange(2.0), n, 2), np.tile(np.arange(2.0), (5, 1))),
    (lambda n: T.AllocEmpty("float32")(n, 3).zeros_like(), np.zeros((5, 3), "float32")),
    (lambda n: T.empty((2, n), "int16") * 0, np.zeros((2, 5), "int16")),
    (lambda n: T.tile(T.arange(3), (n, 2)), np.tile(np.arange(3), (5, 2))),
    (lambda n: T.repeat(T.arange(3), n), np.repeat(np.arange(3), 5)),
    (lambda n: T.repeat(T.arange(3), [1, 0, 2]), np.repeat(np.arange(3), [1, 0, 2])),
    (lambda n: T.roll(T.arange(4), n), np.roll(np.arange(4), 5)),
])
def test_counted_arrays(call, expected):
    matches(call, expected, np.array(5, "int32"))


def test_reshape_takes_the_number_of_axes(rng):
    x = rng.normal(size=(2, 6))
    shape = np.array([3, 4])
    matches(lambda x, s: [x.reshape(s, 2), T.reshape(x, s, ndim=2), x.reshape((4, -1), 2)],
               [x.reshape(3, 4), x.reshape(3, 4), x.reshape(4, 3)], x, shape)
    with pytest.raises(ValueError, match="2 entries, but ndim is 3"):
        T.matrix().reshape((2, 3), 3)


def test_split_and_back(rng):
    x = rng.normal(size=(6, 2))
    matches(lambda x: T.split(x, [1, 2, 3], 3, axis=0), np.split(x, [1, 3]), x)
    matches(lambda x: T.join(0, *T.split(x, np.array([4, 2]), 2)), x, x)


@pytest.mark.parametrize("counts", [[1, 0, 2], [3, 3, 3], [0, 0, 0], [0, 0, 5]], ids=str)
def test_repeat_by_a_variable_vector(counts, rng):
    """The size of the result is known when the counts are."""
    x, counts = rng.normal(size=(3, 2)), np.array(counts, "int32")
    matches(lambda x, n: [T.repeat(x, n, 0), x[:, 1].repeat(n), T.repeat(x.T, n, 1).sum(1)],
            [np.repeat(x, counts, 0), np.repeat(x[:, 1], counts),
             np.repeat(x.T, counts, 1).sum(1)], x, counts)
    want = 2 * x * counts[:, None]
    matches(lambda x, n: T.grad((T.repeat(x, n, 0) ** 2).sum(), x), want, x, counts)


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_repeat_refuses(backend):
    x, n = T.dvector("x"), T.lvector("n")
    f = tinygraph.function([x, n], T.repeat(x, n), backend=backend)
    with pytest.raises(IndexError, match="-1 in the numbers of repeat"):
        f([1, 2], [2, -1])
    with pytest.raises(IndexError, match="-3 in the numbers of repeat"):
        f([1, 2], [-3, 1])
    with pytest.raises(ShapeError):
        f([1, 2], [2, 1, 1])
