from __future__ import annotations

import itertools

import numpy as np
import pytest
from tensor_checks import check, leaf, run, value

import tinygraph.tensor as T
from tinygraph.gradient_check import verify_grad

BOUNDS = [None, 0, 1, 2, 4, 7, -1, -2, -4, -7]
STEPS = [None, 1, 2, 3, -1, -2, -3]


@pytest.mark.parametrize("step", STEPS)
def test_slices_of_unknown_sizes_are_python_slices(step):
    x = T.lvector("x")
    cases = [slice(a, b, step) for a, b in itertools.product(BOUNDS, BOUNDS)]
    outs = [x[s] for s in cases]
    for n in (0, 1, 3, 4, 9):
        array = np.arange(n)
        for s, out in zip(cases, run(outs, {x: array}), strict=True):
            np.testing.assert_array_equal(out, array[s], err_msg=f"{s} of {n}")


@pytest.mark.parametrize("step", STEPS)
def test_slices_of_known_sizes_are_python_slices(step):
    cases = [slice(a, b, step) for a, b in itertools.product(BOUNDS, BOUNDS)]
    for n in (0, 1, 4):
        x, array = T.tensor("int64", (n,), "x"), np.arange(n)
        outs = [x[s] for s in cases]
        assert all(out.type.dims[0].const is not None for out in outs)
        for s, out in zip(cases, run(outs, {x: array}), strict=True):
            np.testing.assert_array_equal(out, array[s], err_msg=f"{s} of {n}")


@pytest.mark.parametrize("step", [1, 2, -1, -2])
def test_slices_with_variable_bounds_are_python_slices(step):
    x, a, b = T.lvector("x"), T.iscalar("a"), T.lscalar("b")
    outs = [x[a:b:step], x[a::step], x[:b:step], x[a:-1:step], x[1:b:step]]
    for n, i, j in itertools.product((0, 1, 4), range(-6, 7), range(-6, 7)):
        array = np.arange(n)
        known = {x: array, a: np.array(i, "int32"), b: np.array(j)}
        expected = [array[i:j:step], array[i::step], array[:j:step], array[i:-1:step],
                    array[1:j:step]]
        for out, wanted in zip(run(outs, known), expected, strict=True):
            np.testing.assert_array_equal(out, wanted, err_msg=f"{n} {i}:{j}:{step}")


def test_slices_with_computed_bounds_are_python_slices():
    x = T.lvector("x")
    for n, c in itertools.product(range(8), range(-2, 9)):
        array = np.arange(n)
        size = x.shape[0]
        outs = [x[:size - c], x[size - c:], x[size // 2:], x[:size * 2]]
        expected = [array[:n - c], array[n - c:], array[n // 2:], array[:2 * n]]
        for out, wanted in zip(run(outs, {x: array}), expected, strict=True):
            np.testing.assert_array_equal(out, wanted, err_msg=f"{n} - {c}")


def test_the_sizes_of_common_slices_are_simple():
    x = T.vector("x")
    n = x.type.dims[0]
    assert x[:].type.dims[0] == n
    assert x[::-1].type.dims[0] == n
    assert str(x[1:].type.dims[0]) == "max(0, -1 + x_0)"
    assert x[1:].type.dims == x[:-1].type.dims == x[:x.shape[0] - 1].type.dims
    assert T.tensor("float32", (5,))[1:].type.dims[0] == 4


MASK = np.array([[True, False, True, False], [False, True, False, False], [True] * 4])
INDICES = {  # into an array of shape (3, 4, 5)
    "integer": 1, "negative": -1, "two": (1, 2), "three": (0, -1, 4), "numpy": np.int64(2),
    "mixed": (slice(1, None), 0, slice(None, None, -1)), "ellipsis": (..., 0),
    "ellipsis inside": (1, ..., slice(0, 2)), "all": ..., "nothing": (), "new": None,
    "new inside": (slice(None), None, 0), "new after": (0, ..., None),
    "steps": (slice(None, None, 2), slice(None, None, -2)),
    "list": [0, 2, 2], "array": (slice(None), np.array([3, 0])),
    "matrix": np.array([[0, 2], [1, 1]]),
    "negative array": (slice(None), [-1, 0]), "pair": ([0, 1], [2, 3]),
    "pair that broadcasts": (np.array([[0], [2]]), np.array([1, 3])),
    "all three": ([0, 1], [2, -3], [4, 0]), "pair apart": ([0, 1], slice(None), [2, 3]),
    "pair at the end": (slice(1, None), [0, 1], [2, -1]), "integer and array": (0, [1, 2]),
    "integer apart from array": (0, slice(None), [1, 2]), "array and integer": ([1, 2], 0),
    "array, new, array": ([0, 1], None, [2, 3]), "new before array": (None, [0, 1]),
    "new after array": ([0, 1], None), "slices around an array": (slice(0, 2), [1, 0], slice(1, 3)),
    "mask": np.array([True, False, True]), "mask of two axes": MASK,
    "mask behind": (slice(None), np.array([True, False, False, True])),
    "empty list": [], "slice and ellipsis with array": ([0, 1], ..., slice(1, 2)),
    "array apart with new": (0, None, [1, 2]),
}


@pytest.mark.parametrize("name", INDICES)
def test_index(name, rng):
    index = INDICES[name]
    x = rng.normal(size=(3, 4, 5))
    check(lambda x: x[index], x[index], x)
    if x[index].size:
        verify_grad(lambda x: x[index], [x])


@pytest.mark.parametrize("name", INDICES)
def test_set_and_inc(name, rng):
    index = INDICES[name]
    x = rng.normal(size=(3, 4, 5))
    y = rng.normal(size=x[index].shape)
    before = x.copy()
    expected = x.copy()
    if name not in ("list", "matrix"):  # they write twice to one place: see below
        expected[index] = y
        check(lambda x, y: T.set_subtensor(x[index], y), expected, x, y)
        verify_grad(lambda x, y: T.set_subtensor(x[index], y), [x, y])
    expected = x.copy()
    np.add.at(expected, index, y)
    check(lambda x, y: T.inc_subtensor(x[index], y), expected, x, y)
    verify_grad(lambda x, y: T.inc_subtensor(x[index], y), [x, y])
    expected = x.copy()
    expected[index] = 2.5
    check(lambda x: T.set_subtensor(x[index], 2.5), expected, x)
    np.testing.assert_array_equal(x, before)


def test_a_list_that_holds_a_slice_is_a_tuple(rng):
    x = rng.normal(size=(4, 5))
    check(lambda x: x[[slice(None), slice(0, 3)]], x[:, 0:3], x)


def test_the_last_of_repeated_writes_stays():
    x, y = np.zeros(3), np.array([1.0, 2.0])
    check(lambda x, y: T.set_subtensor(x[[0, 0]], y), np.array([2.0, 0, 0]), x, y)
    check(lambda x: T.inc_subtensor(x[[0, 0]], 1.0), np.array([2.0, 0, 0]), x)
    check(lambda x: T.grad(x[[0, 0, 1]].sum(), x), np.array([2.0, 1, 0]), x)


def test_variable_indices(rng):
    x = rng.normal(size=(3, 4, 5))
    i, j = np.array(-1, "int32"), np.array(2)
    check(lambda x, i: x[i], x[-1], x, i)
    check(lambda x, i, j: x[i, j], x[-1, 2], x, i, j)
    check(lambda x, i, j: x[i, :, j], x[-1, :, 2], x, i, j)
    check(lambda x, i, j: x[i, j, 0], x[-1, 2, 0], x, i, j)
    check(lambda x: x[x.shape[0] - 1], x[-1], x)
    v, w = np.array([0, 2, -1]), np.array([1, 1, 0], "int8")
    check(lambda x, v: x[v], x[v], x, v)
    check(lambda x, v, w: x[v, w], x[v, w], x, v, w)
    check(lambda x, v, i: x[v, i], x[v, -1], x, v, i)
    check(lambda x, v, i: x[i, :, v], x[-1, :, v], x, v, i)
    check(lambda x, v: x[T.arange(x.shape[0]), v], x[np.arange(3), v], x, v)
    check(lambda x, i: x[[0, i]], x[[0, -1]], x, i)
    expected = x.copy()
    expected[-1] = 0
    check(lambda x, i: T.set_subtensor(x[i], 0), expected, x, i)
    expected[-1, 2] = 1
    check(lambda x, i, j: T.inc_subtensor(T.set_subtensor(x[i], 0)[i, j], 1), expected, x, i, j)
    check(lambda x, v: T.take(x, v, axis=1), np.take(x, v, 1), x, v)
    check(lambda x, v: T.take(x, v), np.take(x, v), x, v)


def test_values_that_broadcast_into_the_slot(rng):
    x, y = rng.normal(size=(3, 4)), rng.normal(size=4)
    expected = x.copy()
    expected[1:] = y
    check(lambda x, y: T.set_subtensor(x[1:], y), expected, x, y)
    verify_grad(lambda x, y: T.set_subtensor(x[1:], y), [x, y])


def test_the_array_keeps_its_dtype():
    x, y = T.fvector("x"), T.dvector("y")
    assert T.set_subtensor(x[1:], y).dtype == "float32"
    assert T.inc_subtensor(T.ivector()[0], 1).dtype == "int32"


@pytest.mark.parametrize("f, error, words", [
    (lambda m: m[0, 0, 0], IndexError, "3 indices for m .*2 axes"),
    (lambda m: m[..., ...], IndexError, "one Ellipsis"),
    (lambda m: m[::0], ValueError, "step of a slice must not be 0"),
    (lambda m: m[::T.iscalar("k")], TypeError, "step of a slice must be a constant, not k"),
    (lambda m: m[0.5], TypeError, "an index must be an integer"),
    (lambda m: m[m], TypeError, "cast the index"),
    (lambda m: m[True], TypeError, "T.switch"),
    (lambda m: m["a"], TypeError, "an index must be an integer"),
    (lambda m: T.set_subtensor(m, 0), TypeError, "set_subtensor takes an indexed variable.*not m"),
    (lambda m: T.inc_subtensor(3, 0), TypeError, "not 3"),
    (lambda m: T.set_subtensor(m[0], m), TypeError, "more axes"),
    (lambda m: T.tensor("float32", (3,), "t")[3], IndexError, "index 3 .*axis 0 of t .*size is 3"),
    (lambda m: T.tensor("float32", (3,), "t")[-4], IndexError, "index -4 .*t"),
    (lambda m: T.tensor("float32", (3,), "t")[[0, 5]], IndexError, "index 5 .*t"),
])
def test_mistakes_are_told_when_the_graph_is_built(f, error, words):
    with pytest.raises(error, match=words):
        f(T.matrix("m"))


@pytest.mark.parametrize("f, error, words", [
    (lambda x: x[3], IndexError, "index 3 is out of range for axis 0 of x0.*size is 3"),
    (lambda x: x[-4], IndexError, "out of range for axis 0 of x0"),
    (lambda x: x[:, [4]], IndexError, "index 4 is out of range"),
    (lambda x: x[[0, 0], [1, -5]], IndexError, "out of range"),
    (lambda x: x[[0, 0], [1, 4]], IndexError, "out of range"),
    (lambda x: x[np.array([True, False])], ValueError, "axis 0 of x0.* is 3, but 2"),
    (lambda x: T.set_subtensor(x[1:], x), ValueError, "is 3, but 2 is needed"),
])
def test_mistakes_are_told_at_run_time(f, error, words):
    with pytest.raises(error, match=words):
        value(f, np.zeros((3, 4)))


def test_a_part_of_an_array_can_be_written_through_another_name():
    x = leaf(np.zeros(4), "x")
    part = x[:]
    assert part is not x
    (out,) = run([T.set_subtensor(part, 1.0)], {x: np.zeros(4)})
    np.testing.assert_array_equal(out, np.ones(4))
