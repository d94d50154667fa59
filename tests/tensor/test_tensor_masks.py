"""Boolean masks and nonzero: results whose size the values decide, on every back end."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygraph
import tinygraph.tensor as T

BACKENDS = ("numpy", "loops", "llvm")
FLOATS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6),
                    elements=st.integers(-2, 2).map(float))


def bools(ndim, name):
    return T.TensorType("bool", (False,) * ndim)(name)


@pytest.fixture(scope="module")
def picking():
    x = T.matrix("x")
    chosen, rows = x > 0, bools(1, "rows")
    outputs = [
        x[chosen], x[chosen].sum(), x[chosen].shape[0], x[rows], x[rows, 0:2], x[:, 1:][rows],
        T.set_subtensor(x[chosen], 9.0), T.inc_subtensor(x[rows], 1.0), T.nonzero(x, True),
        *T.nonzero(x), T.flatnonzero(x), T.nonzero_values(x), T.compress(rows, x, 0), T.unique(x),
        tinygraph.grad((x[chosen] ** 2).sum(), x), T.zeros((x[rows].shape[0], 2)),
    ]
    return [tinygraph.function([x, rows], outputs, backend=b) for b in BACKENDS]


@settings(max_examples=30, deadline=None)
@given(FLOATS, st.data())
def test_as_numpy(picking, x, data):
    x = np.resize(x, (x.shape[0], max(x.shape[1], 1))) if x.size == 0 else x
    rows = np.array(data.draw(st.lists(st.booleans(), min_size=len(x), max_size=len(x))), bool)
    chosen = x > 0
    written, added = x.copy(), x.copy()
    written[chosen] = 9
    added[rows] += 1
    expected = [
        x[chosen], x[chosen].sum(), chosen.sum(), x[rows], x[rows, 0:2], x[:, 1:][rows],
        written, added, np.array(x.nonzero()), *x.nonzero(), np.flatnonzero(x), x[x != 0], x[rows],
        np.unique(x + 0.0), np.where(chosen, 2 * x, 0), np.zeros((rows.sum(), 2)),
    ]
    for f in picking:
        for k, (a, b) in enumerate(zip(f(x, rows), expected, strict=True)):
            if k == 13 and x.size == 0:
                continue  # the first of no values
            np.testing.assert_array_equal(a, b, err_msg=f"output {k}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mask_over_several_axes_and_one_in_the_middle(backend):
    x, both, middle = T.tensor3("x"), bools(2, "both"), bools(1, "middle")
    f = tinygraph.function([x, both, middle], [x[both], x[:, middle], x[:, middle, 1]],
                           backend=backend)
    values = np.arange(24, dtype="float32").reshape(2, 3, 4)
    a, b = np.array([[1, 0, 1], [0, 0, 1]], bool), np.array([0, 1, 1], bool)
    for got, expected in zip(f(values, a, b), (values[a], values[:, b], values[:, b, 1]),
                             strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_a_scan_every_row_has_a_size_of_its_own(backend):
    x = T.matrix("x")
    sums, _ = tinygraph.scan(lambda row: (row[row > 0] ** 2).sum(), sequences=x)
    f = tinygraph.function([x], [sums, tinygraph.grad(sums.sum(), x)], backend=backend)
    values = np.random.default_rng(0).standard_normal((5, 4)).astype("float32")
    total, gradient = f(values)
    np.testing.assert_allclose(total, (values.clip(0) ** 2).sum(1), rtol=1e-5)
    np.testing.assert_allclose(gradient, 2 * values.clip(0), rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives(backend):
    x = T.vector("x")
    gradient = tinygraph.grad((x[x > 0] ** 3).sum(), x)
    f = tinygraph.function([x], tinygraph.grad((gradient**2).sum(), x), backend=backend)
    values = np.array([1, -2, 3, 0.5], "float32")
    np.testing.assert_allclose(f(values), np.where(values > 0, 36 * values**3, 0), rtol=1e-5)


def test_what_two_masks_pick_must_have_one_size():
    v, w = T.vector("v"), T.vector("w")
    f = tinygraph.function([v, w], v[v > 0] + w[w > 0])
    a, b = np.array([1, -1, 2], "float32"), np.array([5, 6, -7], "float32")
    assert f(a, b).tolist() == [6, 8]
    with pytest.raises(ValueError, match="is 2, but of .* it is 3"):
        f(a, np.abs(b))


def test_a_mask_of_another_size_is_refused():
    x, rows = T.matrix("x"), bools(1, "rows")
    f = tinygraph.function([x, rows], x[rows])
    with pytest.raises((ValueError, IndexError), match=r"axis 0 of (x|rows)"):
        f(np.ones((3, 2), "float32"), np.array([True, False]))


def test_the_size_of_a_late_result_in_later_products():
    x, w = T.matrix("x"), T.matrix("w")
    picked = x[x.sum(axis=1) > 0]
    f = tinygraph.function([x, w], [T.dot(picked, w), T.dot(picked.T, picked),
                                    tinygraph.grad(T.dot(picked, w).sum(), w)])
    rng = np.random.default_rng(0)
    for rows in (0, 1, 40):
        a, b = rng.standard_normal((rows, 5)), rng.standard_normal((5, 3))
        a, b = a.astype("float32"), b.astype("float32")
        p = a[a.sum(1) > 0]
        expected = p @ b, p.T @ p, np.repeat(p.sum(0)[:, None], 3, 1)
        for got, e in zip(f(a, b), expected, strict=True):
            np.testing.assert_allclose(got, e, rtol=1e-4, atol=1e-4)
    assert f.compiles == 1


def test_scalars_have_no_places():
    with pytest.raises(ValueError, match="has no axes"):
        T.nonzero(T.scalar("s"))
