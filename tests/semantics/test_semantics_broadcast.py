"""Broadcasting: points 1 to 9."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad, shared

F_, T_ = False, True


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_01_a_run_time_size_of_1_does_not_broadcast(backend):
    x, y = T.matrix("x"), T.matrix("y")
    f = function([x, y], x + y, backend=backend)
    np.testing.assert_array_equal(f(np.ones((2, 3)), np.ones((2, 3))), np.full((2, 3), 2.0))
    for a, b in [((2, 3), (1, 3)), ((2, 1), (2, 3)), ((1, 1), (2, 3))]:
        with pytest.raises(ValueError, match=r"T.addbroadcast\("):
            f(np.ones(a), np.ones(b))
    r = T.row("r")
    g = function([x, r], x + r, backend=backend)
    assert g(np.ones((2, 3)), np.ones((1, 3))).shape == (2, 3)
    h = function([x, y], x + T.addbroadcast(y, 0), backend=backend)
    assert h(np.ones((2, 3)), np.ones((1, 3))).shape == (2, 3)


def test_02_flags_of_constructors():
    assert T.matrix().broadcastable == (F_, F_)
    assert T.row().broadcastable == (T_, F_)
    assert T.col().broadcastable == (F_, T_)
    assert T.tensor3().broadcastable == (F_,) * 3
    assert T.tensor4().broadcastable == (F_,) * 4
    assert T.TensorType("float64", (F_, T_))().broadcastable == (F_, T_)
    assert T.scalar().broadcastable == ()
    r = T.row("r")
    f = function([r], r * 2)
    assert f(np.ones((1, 3))).shape == (1, 3)
    with pytest.raises(TypeError, match="axis 0 must have size 1"):
        f(np.ones((2, 3)))


def test_03_a_shared_size_of_1_is_no_flag_but_a_constants_is():
    assert shared(np.zeros((1, 3))).broadcastable == (F_, F_)
    assert shared(np.zeros((1, 3)), broadcastable=(T_, F_)).broadcastable == (T_, F_)
    assert T.constant(np.zeros((1, 3))).broadcastable == (T_, F_)
    assert T.as_tensor_variable(np.zeros((3, 1))).broadcastable == (F_, T_)
    x, w = T.matrix("x"), shared(np.zeros((1, 3)), "w")
    with pytest.raises(ValueError, match="T.addbroadcast"):
        function([x], x + w)(np.ones((2, 3)))


def test_04_a_size_given_as_the_constant_1_is_a_flag():
    n, x, s = T.iscalar("n"), T.matrix("x"), T.lvector("s")
    for y in (T.ones((n, 1)), T.zeros((n, 1)), T.alloc(0.0, n, 1), x.reshape((n, 1)),
              x.reshape((-1, 1))):
        assert y.broadcastable == (F_, T_)
    assert x.reshape(s, ndim=2).broadcastable == (F_, F_)
    assert T.zeros(T.as_tensor_variable([n, n])).broadcastable == (F_, F_)
    with pytest.raises(ValueError, match="ndim="):
        x.reshape(s)
    f = function([x, s], x.reshape(s, ndim=2))
    assert f(np.ones((2, 3)), np.array([3, 2])).shape == (3, 2)


def test_05_what_makes_and_drops_flags():
    x, v = T.matrix("x"), T.vector("v")
    assert x.sum(axis=1, keepdims=True).broadcastable == (F_, T_)
    assert x.max(axis=0, keepdims=True).broadcastable == (T_, F_)
    assert x.mean(keepdims=True).broadcastable == (T_, T_)
    assert v.dimshuffle("x", 0).broadcastable == (T_, F_)
    assert v.dimshuffle(0, "x").broadcastable == (F_, T_)
    assert T.shape_padleft(v).broadcastable == (T_, F_)
    assert T.shape_padright(v).broadcastable == (F_, T_)
    assert T.shape_padaxis(x, 1).broadcastable == (F_, T_, F_)
    assert v[:, None].broadcastable == (F_, T_)
    assert T.col("c").dimshuffle(0).ndim == 1
    with pytest.raises(ValueError, match="not known to be 1"):
        x.dimshuffle(0)
    assert T.tensor("float64", (1, None, 1)).squeeze().ndim == 1
    assert x.squeeze().ndim == 2
    assert function([x], x.squeeze())(np.ones((1, 3))).shape == (1, 3)


def test_06_a_slice_makes_no_flag():
    x, y = T.matrix("x"), T.matrix("y")
    assert x[:, 0:1].broadcastable == (F_, F_)
    assert x[0:1].broadcastable == (F_, F_)
    assert x[:, -1:].broadcastable == (F_, F_)
    s = T.addbroadcast(x[:, 0:1], 1)
    assert s.broadcastable == (F_, T_)
    assert function([x, y], s + y)(np.ones((2, 3)), np.ones((2, 4))).shape == (2, 4)
    f = function([x], T.addbroadcast(x[:, 0:2], 1))
    assert f(np.ones((2, 1))).shape == (2, 1)
    with pytest.raises(ValueError, match="1"):
        f(np.ones((2, 3)))


def test_06_a_part_of_known_size_1_is_known_to_be_1():
    x = T.tensor("float64", (None, 3), "x")
    assert x[:, 0:1].broadcastable == (F_, T_)


def test_07_flags_of_results():
    m, r, c = T.matrix("m"), T.row("r"), T.col("c")
    assert (r + r).broadcastable == (T_, F_)
    assert (m + r).broadcastable == (F_, F_)
    assert (c + r).broadcastable == (F_, F_)
    one = T.TensorType("float64", (T_, T_))("one")
    assert T.dot(c, one).broadcastable == (F_, T_)
    assert T.dot(c, r).broadcastable == (F_, F_)
    joined = T.concatenate([r, m], axis=1)
    assert joined.broadcastable == (T_, F_)
    assert T.concatenate([r, r], axis=0).broadcastable == (F_, F_)
    assert T.switch(c, m, r).broadcastable == (F_, F_)
    f = function([r, m], joined)
    assert f(np.ones((1, 2)), np.ones((1, 3))).shape == (1, 5)
    with pytest.raises(ValueError):
        f(np.ones((1, 2)), np.ones((2, 3)))


def test_08_the_gradient_of_a_broadcast_operand_keeps_its_form():
    m, r, c, v = T.matrix("m"), T.row("r"), T.col("c"), T.vector("v")
    s = T.scalar("s")
    cost = (m * r + c * v + s).sum() * s
    gr, gc, gv, gs = grad(cost, [r, c, v, s])
    assert gr.broadcastable == (T_, F_) and gc.broadcastable == (F_, T_)
    assert gv.ndim == 1 and gs.ndim == 0
    a, b = np.arange(6.0).reshape(2, 3), np.arange(3.0)
    f = function([m, r, c, v, s], [gr, gc, gv, gs])
    out = f(a, np.ones((1, 3)), np.array([[1.0], [2.0]]), b, 2.0)
    np.testing.assert_allclose(out[0], 2 * a.sum(axis=0, keepdims=True))
    np.testing.assert_allclose(out[1], np.full((2, 1), 2 * b.sum()))
    np.testing.assert_allclose(out[2], np.full(3, 6.0))
    assert out[3] == a.sum() + 3 * b.sum() + 6 * 2 + 2 * 6


def test_09_changing_flags_keeps_values_and_gradients():
    x = T.matrix("x")
    y = T.addbroadcast(x, 0)
    assert y.broadcastable == (T_, F_)
    assert T.patternbroadcast(x, (T_, F_)).broadcastable == (T_, F_)
    for z in (y, T.patternbroadcast(x, (T_, F_)), T.unbroadcast(y, 0), T.unbroadcast(x, 0)):
        f = function([x], [z, grad((z ** 2).sum(), x)])
        a = np.array([[1.0, 2.0, 3.0]])
        value, gradient = f(a)
        np.testing.assert_array_equal(value, a)
        np.testing.assert_array_equal(gradient, 2 * a)


def test_09_unbroadcast_is_the_identity():
    r, m = T.row("r"), T.matrix("m")
    u = T.unbroadcast(r, 0)
    assert function([r, m], u + m)(np.ones((1, 3)), np.ones((2, 3))).shape == (2, 3)
    w = shared(np.zeros((1, 3)), "w")
    function([r], [], updates=[(w, u + 1)])(np.ones((1, 3)))
    np.testing.assert_array_equal(w.get_value(), np.full((1, 3), 2.0))
    assert tinygraph.tensor.patternbroadcast(r, (F_, F_)).ndim == 2
