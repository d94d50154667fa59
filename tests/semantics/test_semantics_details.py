"""T.nnet and other details: points 68 to 78."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, gof, grad, scan


def test_68_softmax():
    v = T.dvector("v")
    y = T.nnet.softmax(v)
    assert y.broadcastable == (True, False)
    np.testing.assert_allclose(function([v], y)([0.0, 0.0]), [[0.5, 0.5]])
    for wrong in (T.dtensor3(), T.imatrix()):
        with pytest.raises(ValueError, match="softmax"):
            T.nnet.softmax(wrong)


def test_69_categorical_crossentropy():
    p, t, q = T.dmatrix("p"), T.ivector("t"), T.dmatrix("q")
    a, classes = np.array([[0.2, 0.8], [0.5, 0.5]]), np.array([1, 0], "int32")
    f = function([p, t, q], [T.nnet.categorical_crossentropy(p, t),
                             T.nnet.categorical_crossentropy(p, q)])
    by_class, by_rows = f(a, classes, np.array([[0.5, 0.5], [1.0, 0.0]]))
    np.testing.assert_allclose(by_class, -np.log([0.8, 0.5]))
    np.testing.assert_allclose(by_rows, [-0.5 * np.log(0.2 * 0.8), -np.log(0.5)])


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_70_rounding_spread_and_nan(backend):
    x = T.dvector("x")
    f = function([x], [T.round(x), x.var(), x.std(), x.max()], backend=backend)
    rounded, var, std, largest = f([0.5, 1.5, 2.5, -0.5])
    np.testing.assert_array_equal(rounded, [0, 2, 2, 0])
    np.testing.assert_allclose([var, std], [1.25, 1.25 ** 0.5])
    assert np.isnan(f([1.0, np.nan, 0.0, 2.0])[3]) and largest == 2.5
    with pytest.raises(ValueError, match="empty"):
        f([])


def test_71_dot():
    a, b = np.arange(24.0).reshape(2, 3, 4), np.arange(40.0).reshape(2, 4, 5)
    x, y, m, v = T.dtensor3("x"), T.dtensor3("y"), T.dmatrix("m"), T.dvector("v")
    np.testing.assert_allclose(function([x, y], T.dot(x, y))(a, b), np.dot(a, b))
    got = function([m, v], [T.dot(m, v), T.dot(v, v), T.dot(m, m.T)])(a[0], a[0, 0])
    for g, expected in zip(got, [a[0] @ a[0, 0], a[0, 0] @ a[0, 0], a[0] @ a[0].T], strict=True):
        np.testing.assert_allclose(g, expected)


def test_72_stack():
    x, y = T.dvector("x"), T.dvector("y")
    for stacked in (T.stack([x, y]), T.stack(x, y), T.stack([x, y], axis=0)):
        got = function([x, y], stacked)([1.0, 2.0], [3.0, 4.0])
        np.testing.assert_array_equal(got, [[1, 2], [3, 4]])


def test_73_leaves():
    x, y, m = T.dvector("x"), T.dvector("y"), T.dmatrix("m")
    two = T.constant(2.0)
    assert gof.graph.inputs([x + y, m.sum() * two]) == [m, two, x, y]
    assert gof.graph.inputs([x + x]) == [x]


def test_74_equal_expressions():
    x, y = T.dvector("x"), T.dvector("y")
    same, equal = gof.graph.is_same_graph, gof.graph.equal_computations
    assert same(x + 1, x + 1) and not same(x + 1, 1 + x) and not same(x + 1, y + 1)
    assert equal([x + 1, x], [x + 1, x]) and not equal([x + 1], [x + 2])
    assert equal([x + 1], [y + 1], [x], [y]) and not equal([x + 1], [y + 1])
    assert same(x + 1, y + 1, {x: y})
    assert tinygraph.scan_module.scan_utils.equal_computations([x], [x])

    def loop(factor):
        return scan(lambda r, h: r * factor + h, sequences=x, outputs_info=[T.constant(0.0)])[0]

    assert same(loop(2), loop(2)) and not same(loop(2), loop(3))


class Doubled(gof.Op):
    """2 x, with a gradient that is one of its own applications."""

    __props__ = ()

    def make_node(self, x):
        x = T.as_tensor_variable(x)
        return gof.Apply(self, [x], [x.type()])

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = 2 * inputs[0]

    def grad(self, inputs, output_gradients):
        return [self(output_gradients[0])]


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_75_ops_of_users(backend):
    x = T.dvector("x")
    y = Doubled()(x)
    f = function([x], [y, grad((y ** 2).sum(), x)], backend=backend)
    value, g = f([1.0, 2.0])
    np.testing.assert_array_equal(value, [2, 4])
    np.testing.assert_array_equal(g, [8, 16])
    out, _ = scan(lambda h: Doubled()(h), outputs_info=[x], n_steps=3)
    value, g = function([x], [out[-1], grad(out[-1].sum(), x)], backend=backend,
                        on_unused_input="ignore")([1.0, 2.0])
    np.testing.assert_array_equal(value, [8, 16])
    np.testing.assert_array_equal(g, [8, 8])


def test_76_variables_as_text():
    x = T.dmatrix("x")
    assert str(x) == "x" and "x" in repr(x)
    assert "float64" in str(T.dmatrix()) and "float64" in str(x + 1)


def test_77_a_list_with_a_slice_is_an_index_of_several_axes():
    x = T.dmatrix("x")
    a = np.arange(12.0).reshape(3, 4)
    got = function([x], [x[[slice(None), slice(0, 3)]], x[[0, 2]]])(a)
    np.testing.assert_array_equal(got[0], a[:, 0:3])
    np.testing.assert_array_equal(got[1], a[[0, 2]])


def test_78_functions_are_objects_of_many_operands():
    x, y, z = T.dvectors("x", "y", "z")
    for merge, expected in ((T.add, 6), (T.mul, 6), (T.maximum, 3), (T.minimum, 1)):
        assert function([x, y, z], merge(x, y, z))([1.0], [2.0], [3.0]) == expected
    assert T.add(1, x).dtype == "float64"
