"""Gradients: points 37 to 46."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad, scan
from tinygraph.errors import DisconnectedInputError
from tinygraph.gradient import consider_constant, disconnected_grad, grad_clip, zero_grad


def slope(cost, at, x):
    return function([x], grad(cost, x), on_unused_input="ignore")(at)


def test_37_costs_and_forms_of_wrt():
    x, y = T.dvector("x"), T.dvector("y")
    with pytest.raises(TypeError, match="cost must be a scalar"):
        grad(x, x)
    cost = (x * y).sum()
    assert isinstance(grad(cost, x), T.TensorVariable)
    assert type(grad(cost, [x, y])) is list and type(grad(cost, (x,))) is tuple
    inner = x * 2
    np.testing.assert_array_equal(
        function([x], grad((inner ** 2).sum(), inner))([1.0, 2.0]), [4.0, 8.0])


def test_38_variables_without_a_path_to_the_cost():
    x, y = T.dvector("x"), T.dmatrix("y")
    cost = x.sum()
    with pytest.raises(DisconnectedInputError, match="y"):
        grad(cost, y)
    assert issubclass(DisconnectedInputError, ValueError)
    with pytest.warns(UserWarning, match="y"):
        grad(cost, y, disconnected_inputs="warn")
    zero = grad(cost, y, disconnected_inputs="ignore")
    np.testing.assert_array_equal(function([y], zero)(np.ones((2, 3))), np.zeros((2, 3)))
    assert grad(cost, y, disconnected_inputs="ignore", return_disconnected="None") is None
    nothing = grad(cost, y, disconnected_inputs="ignore", return_disconnected="Disconnected")
    assert isinstance(nothing, tinygraph.gradient.Disconnected)
    with pytest.raises(ValueError, match="return_disconnected is 'Zeros'; it must be 'zero'"):
        grad(cost, y, disconnected_inputs="ignore", return_disconnected="Zeros")


def test_39_sizes_carry_no_gradient_and_steps_carry_zero():
    x = T.dvector("x")
    with pytest.raises(DisconnectedInputError, match="shape"):
        grad(x.shape[0] * 1.0, x)
    for y in (T.cast(x, "int32"), x > 1, T.argmax(x), T.floor(x), T.ceil(x), T.sgn(x),
              T.round(x)):
        np.testing.assert_array_equal(slope((y * 1.0).sum(), np.ones(3), x), np.zeros(3))


def test_40_integers():
    i = T.ivector("i")
    g = grad((i * 2.5).sum(), i)
    assert g.dtype == "float64"
    np.testing.assert_array_equal(function([i], g, on_unused_input="ignore")([1, 2]), [2.5, 2.5])
    for cost in ((i * i).sum(), i.sum() * 2.5):
        g = grad(cost, i)
        assert g.dtype == "float64"
        whole = function([i], g, on_unused_input="ignore")([1, 2])
        np.testing.assert_array_equal(whole, [0, 0])


def test_41_a_gradient_has_the_dtype_of_its_variable():
    x, y = T.fvector("x"), T.dvector("y")
    assert grad((x * y).sum(), x).dtype == "float32"
    assert grad((x * y).sum(), y).dtype == "float64"
    w = tinygraph.shared(np.zeros(2, "float32"), "w")
    cost = ((w - y) ** 2).sum()
    function([y], cost, updates=[(w, w - 0.1 * grad(cost, w))])([1.0, 2.0])
    np.testing.assert_allclose(w.get_value(), [0.2, 0.4], rtol=1e-6)


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
def test_42_ties(backend):
    a, b = T.dscalar("a"), T.dscalar("b")

    def at(cost, *values):
        variables = [a, b][:len(values)]
        return [float(g) for g in
                function(variables, grad(cost, variables), backend=backend)(*values)]

    assert at(T.maximum(a, b), 1.0, 1.0) == [1, 0]
    assert at(T.minimum(a, b), 1.0, 1.0) == [1, 0]
    assert at(abs(a), 0.0) == [0]
    assert at(T.nnet.relu(a), 0.0) == [0.5] and at(T.nnet.relu(a, 0.1), 0.0) == [0.55]
    assert at(T.clip(a, 0.0, 1.0), 0.0) == [1] and at(T.clip(a, 0.0, 1.0), 1.0) == [1]
    assert at(T.clip(a, 0.0, 1.0), 1.5) == [0]
    assert at(T.sqrt(a), 0.0) == [np.inf]
    x = T.dvector("x")

    def along(cost, values):
        return function([x], grad(cost, x), backend=backend)(values)

    np.testing.assert_array_equal(along(x.max(), [1.0, 3.0, 3.0]), [0, 1, 1])
    assert np.isnan(along(x.norm(2), [0.0, 0.0])).all()
    np.testing.assert_array_equal(along(x.prod(), [0.0, 2.0, 3.0]), [6, 0, 0])
    np.testing.assert_array_equal(along(x.prod(), [0.0, 0.0, 3.0]), [0, 0, 0])
    np.testing.assert_array_equal(along(x.prod(), [1.0, 2.0, 3.0]), [6, 3, 2])


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
def test_43_an_infinite_slope_of_the_branch_not_taken(backend):
    s = T.dscalar("s")

    def at(cost, value):
        return function([s], grad(cost, s), backend=backend, on_unused_input="ignore")(value)

    assert np.isnan(at(T.switch(s > 0, T.sqrt(s), 0.0), 0.0))
    assert at(T.switch(s > 0, T.log(s), 0.0), -1.0) == 0
    safe = T.switch(s > 0, s, 1.0)
    assert at(T.switch(s > 0, T.sqrt(safe), 0.0), 0.0) == 0
    condition = s * 1.0
    with pytest.raises(DisconnectedInputError):
        grad(T.switch(T.dscalar("c"), 1.0, 0.0), condition)
    assert at(T.switch(s, 2.0, 3.0) + 0 * s, 1.0) == 0


def test_44_constants_stops_and_clips():
    x = T.dscalar("x")
    y = x * 2
    assert slope(x * y, 3.0, x) == 12
    assert function([x], grad(x * y, x, consider_constant=[y]))(3.0) == 6
    assert slope(x * consider_constant(y), 3.0, x) == 6
    assert slope(consider_constant(y), 3.0, x) == 0
    assert slope(x * disconnected_grad(y), 3.0, x) == 6
    with pytest.raises(DisconnectedInputError):
        grad(disconnected_grad(y), x)
    assert slope(zero_grad(y), 3.0, x) == 0
    clipped = grad_clip(y, -0.5, 0.5)
    value, g = function([x], [clipped, grad(clipped * 3, x)])(3.0)
    assert value == 6 and g == 1
    alone = grad(x * 5, x, consider_constant=[x])
    assert function([x], alone, on_unused_input="ignore")(3.0) == 5


def test_44_clips_inside_a_scan():
    x = T.dscalar("x")
    h, _ = scan(lambda h: grad_clip(h, -0.1, 0.1) * 2, outputs_info=[x], n_steps=3)
    assert slope(h[-1], 1.0, x) == pytest.approx(0.1)
    free, _ = scan(lambda h: h * 2, outputs_info=[x], n_steps=3)
    assert slope(free[-1], 1.0, x) == 8


def test_45_known_gradients():
    x = T.dscalar("x")
    y = x ** 2
    five = T.constant(5.0)
    assert function([x], grad(None, x, known_grads={y: five}))(3.0) == 30
    assert function([x], grad(7 * x, x, known_grads={y: five}))(3.0) == 37
    with pytest.raises(TypeError, match="float"):
        grad(None, x, known_grads={y: T.constant(5)})
    with pytest.raises(ValueError, match="known_grads"):
        grad(None, x)


def test_46_second_order():
    x, v = T.dvector("x"), T.dvector("v")
    cost = (x ** 3).sum()
    a = np.array([1.0, 2.0])
    second = grad(grad(cost, x).sum(), x)
    np.testing.assert_allclose(function([x], second)(a), 6 * a)
    y = T.concatenate([x ** 2, [x[0] * x[1]]])
    expected = np.array([[2.0, 0.0], [0.0, 4.0], [2.0, 1.0]])
    np.testing.assert_allclose(function([x], tinygraph.jacobian(y, x))(a), expected)
    np.testing.assert_allclose(function([x], tinygraph.hessian(cost, x))(a), np.diag(6 * a))
    np.testing.assert_allclose(
        function([x, v], tinygraph.Rop(y, x, v))(a, [1.0, -1.0]), expected @ [1.0, -1.0])
    np.testing.assert_allclose(
        function([x], tinygraph.Lop(y, x, T.constant([1.0, 2.0, 3.0])))(a),
        np.array([1.0, 2.0, 3.0]) @ expected)


def test_46_forms_of_jacobian_and_hessian():
    x, s = T.dvector("x"), T.dscalar("s")
    y = x * s
    of_x, of_s = tinygraph.jacobian(y, [x, s])
    a, b = function([x, s], [of_x, of_s])([1.0, 2.0], 3.0)
    np.testing.assert_allclose(a, 3 * np.eye(2))
    np.testing.assert_allclose(b, [1.0, 2.0])
    assert type(tinygraph.jacobian(y, (x, s))) is tuple
    assert function([s], tinygraph.jacobian(s ** 2, s))(3.0) == 6
    with pytest.raises(TypeError, match="flatten"):
        tinygraph.jacobian(T.dmatrix("m"), x)
    with pytest.raises(TypeError, match="vectors"):
        tinygraph.hessian(s ** 2, s)
    with pytest.raises(DisconnectedInputError):
        tinygraph.jacobian(y, T.dvector("other"))
    assert type(tinygraph.hessian(x.sum() ** 2, [x])) is list
    np.testing.assert_array_equal(
        function([x], tinygraph.hessian(x.sum(), x))([1.0, 2.0]), np.zeros((2, 2)))


def test_46_through_scan():
    x, v = T.dvector("x"), T.dvector("v")
    rows, _ = scan(lambda h: h ** 2, outputs_info=[x], n_steps=2)
    last = rows[-1]
    a = np.array([0.5, 1.5])
    np.testing.assert_allclose(function([x], tinygraph.jacobian(last, x))(a),
                               np.diag(4 * a ** 3))
    np.testing.assert_allclose(function([x], tinygraph.hessian(last.sum(), x))(a),
                               np.diag(12 * a ** 2))
    np.testing.assert_allclose(function([x, v], tinygraph.Rop(last, x, v))(a, [1.0, 2.0]),
                               4 * a ** 3 * [1.0, 2.0])
    np.testing.assert_allclose(function([x, v], tinygraph.Lop(last, x, v))(a, [1.0, 2.0]),
                               4 * a ** 3 * [1.0, 2.0])
