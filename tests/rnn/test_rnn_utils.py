"""The helpers that layers are written with, and what they say when they are used wrongly."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function, shared
from tinygraph_rnn import init, utils

# --- arrays and expressions ----------------------------------------------------------------------


@pytest.mark.parametrize("floatX", ["float32", "float64"])
def test_float_x(floatX):
    with config.change(floatX=floatX):
        for x in (1, 2.5, [1, 2], np.arange(3), np.ones((2, 2), "float32"), True):
            out = utils.floatX(x)
            assert isinstance(out, np.ndarray) and out.dtype == floatX
            np.testing.assert_array_equal(out, np.asarray(x))
        with pytest.raises(TypeError, match=f"x .*is symbolic; write T.cast\\(x, '{floatX}'\\)"):
            utils.floatX(T.vector("x"))


def test_shared_empty():
    for ndim, kind in ((0, None), (1, "int8"), (2, None), (3, "float32")):
        v = utils.shared_empty(ndim, kind)
        assert v.get_value().shape == (1,) * ndim and v.dtype == (kind or "float64")
        assert v.broadcastable == (False,) * ndim
        v.set_value(np.ones((2,) * ndim, v.dtype))
    assert utils.shared_empty().ndim == 2 and utils.shared_empty(dim=1, dtype="bool").ndim == 1
    with config.change(floatX="float32"):
        assert utils.shared_empty().dtype == "float32"
    for bad in (-1, 1.5, "2"):
        with pytest.raises(TypeError, match="dim is .*the number of axes"):
            utils.shared_empty(bad)


def test_as_theano_expression():
    x = T.vector("x")
    assert utils.as_theano_expression(x) is x
    for constant in (1.5, [1, 2], np.ones((2, 3))):
        np.testing.assert_array_equal(utils.as_theano_expression(constant).eval(), constant)
    for bad in ("abc", {"x": x}, object()):
        with pytest.raises(TypeError, match="neither an expression nor an array"):
            utils.as_theano_expression(bad)


def test_collect_shared_vars():
    a, b, c = (shared(1.0, n) for n in "abc")
    x = T.scalar("x")
    assert utils.collect_shared_vars(b * x + a * b) == [b, a]
    assert utils.collect_shared_vars([a * 2, c + b, a]) == [a, c, b]
    assert utils.collect_shared_vars(a) == [a] and utils.collect_shared_vars([x]) == []


def test_unique():
    assert utils.unique([3, 1, 3, 2, 1]) == [3, 1, 2] and utils.unique(iter("abca")) == list("abc")


# --- one_hot -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["llvm", "numpy"])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 2, 2)])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64", "float64"])
def test_one_hot(backend, shape, dtype):
    classes = np.random.default_rng(1).integers(0, 5, shape).astype(dtype)
    x, m = T.TensorType(dtype, (False,) * len(shape))("x"), T.iscalar("m")
    with config.change(backend=backend):
        free, given, symbolic = function(
            [x, m], [utils.one_hot(x), utils.one_hot(x, 7), utils.one_hot(x, m=m)])(classes, 6)
    whole = classes.astype(int)
    assert free.dtype == given.dtype == config.floatX
    np.testing.assert_array_equal(free, np.eye(whole.max() + 1)[whole])
    np.testing.assert_array_equal(given, np.eye(7)[whole])
    np.testing.assert_array_equal(symbolic, np.eye(6)[whole])


@pytest.mark.parametrize("backend", ["llvm", "numpy"])
@pytest.mark.parametrize("bad", [3, -1])
def test_one_hot_of_a_class_that_is_not_there(backend, bad):
    x = T.ivector("x")
    with config.change(backend=backend):
        f = function([x], utils.one_hot(x, 3))
        with pytest.raises(IndexError, match=f"{bad} in a class for one_hot.*less than 3"):
            f(np.array([0, bad], "int32"))


# --- tuples, keywords, norms ---------------------------------------------------------------------


def test_as_tuple():
    assert utils.as_tuple(3, 2) == (3, 3) and utils.as_tuple([1, 2], 2, int) == (1, 2)
    assert utils.as_tuple("same", 3, str) == ("same",) * 3
    assert utils.as_tuple(np.int64(2), 1, utils.int_types) == (2,)
    assert utils.as_tuple((n for n in (1, 2)), 2) == (1, 2)
    x = T.scalar("x")
    assert utils.as_tuple(x, 2) == (x, x)
    with pytest.raises(TypeError, match=r"1.5 is given where one value or 2 values of type int"):
        utils.as_tuple(1.5, 2, int)
    with pytest.raises(TypeError, match="of type int or float are needed"):
        utils.as_tuple((1, "a"), 2, (int, float))
    with pytest.raises(ValueError, match=r"\(1, 2, 3\) has 3 values where one value, or 2"):
        utils.as_tuple((1, 2, 3), 2)


def test_int_types():
    assert isinstance(3, utils.int_types) and isinstance(np.int8(3), utils.int_types)
    assert not isinstance(3.0, utils.int_types) and not isinstance(np.ones(1), utils.int_types)


def test_inspect_kwargs():
    def f(a, b, c=1, *args, d=2, e, **more):
        return a

    class Layer:
        def get_output_for(self, input, deterministic=False, **kwargs):
            return input

    assert utils.inspect_kwargs(f) == ["c", "d"]
    assert utils.inspect_kwargs(Layer().get_output_for) == ["deterministic"]


@pytest.mark.parametrize(("shape", "norm_axes", "axes"), [
    ((5,), None, ()), ((3, 4), None, (0,)), ((3, 4, 2), None, (1, 2)),
    ((2, 3, 2, 2), None, (1, 2, 3)), ((2, 3, 2, 2, 3), None, (1, 2, 3, 4)), ((3, 4), (1,), (1,)),
    ((3, 4), 1, (1,)), ((3, 4), [0, 1], (0, 1)), ((5,), (0,), (0,)), ((), (), ())])
def test_compute_norms(shape, norm_axes, axes):
    x = np.random.default_rng(2).standard_normal(shape)
    expected = np.sqrt((x ** 2).sum(axes)) if axes else abs(x)
    by_array = utils.compute_norms(np.asarray(x), norm_axes)
    assert isinstance(by_array, (np.ndarray, np.floating))
    np.testing.assert_allclose(by_array, expected)
    v = T.TensorType("float64", (False,) * len(shape))("v")
    np.testing.assert_allclose(function([v], utils.compute_norms(v, norm_axes))(x), expected)


def test_what_compute_norms_refuses():
    with pytest.raises(TypeError, match=r"\[1, 2\] \(list\); write numpy.asarray"):
        utils.compute_norms([1, 2])
    with pytest.raises(ValueError, match="a scalar has no axis"):
        utils.compute_norms(T.scalar())


# --- create_param --------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [
    np.ones((2, 1)), np.ones((2, 1), "float32"), np.ones((2, 1), int), [[1], [1]],
    init.Constant(1), lambda shape: np.ones(shape), lambda shape: shared(np.ones(shape))])
def test_parameters_from_arrays_and_callables(spec):
    p = utils.create_param(spec, (2, np.int64(1)), name="W")
    assert p.name == "W" and p.dtype == config.floatX
    np.testing.assert_array_equal(p.get_value(), [[1], [1]])
    if not callable(spec) or isinstance(spec, init.Constant):
        assert p.broadcastable == (False, True)


def test_scalar_parameters():
    for spec in (2, 2.0, np.float32(2), np.array(2.0), lambda shape: 2.0):
        p = utils.create_param(spec, ())
        assert p.get_value() == 2 and p.name is None


def test_variables_are_taken_as_they_are():
    named, unnamed, wide = shared(np.ones(3), "mine"), shared(np.ones(3)), T.matrix()
    assert utils.create_param(named, (3,), "W") is named and named.name == "mine"
    assert utils.create_param(unnamed, (3,), "W") is unnamed and unnamed.name == "W"
    assert utils.create_param(wide, (3, 2)) is wide and wide.name is None
    product = named * 2
    assert utils.create_param(lambda shape: product, (3,), "P") is product and product.name == "P"


def made(shape):
    return np.ones(4)


@pytest.mark.parametrize(("spec", "shape", "error", "message"), [
    (np.ones(3), (2, 3), ValueError, r"parameter W must have shape \(2, 3\), but the array given "
                                     r"has \(3,\)"),
    (2.0, (2,), ValueError, r"but the array given has \(\)"),
    (made, (3,), ValueError, r"but what made made for it has \(4,\)"),
    (shared(np.ones(2), "mine"), (3,), ValueError, r"must have shape \(3,\), but mine .*has \(2\)"),
    (T.matrix("m"), (3,), ValueError, "parameter W must have shape .*but m "),
    (T.as_tensor_variable(np.ones((2, 2))), (2, 3), ValueError, r"has \(2, 2\)"),
    (init.Constant(1), (2, 0), ValueError, r"cannot have shape \(2, 0\): every axis"),
    (init.Constant(1), (-1,), ValueError, "every axis must be positive"),
    (init.Constant(1), (2.5,), TypeError, r"cannot have shape \(2.5,\): every axis must be an int"),
    (None, (2,), TypeError, "parameter W cannot be made from None: give an array"),
    ("abc", (2,), TypeError, "cannot be made from 'abc'"),
    (lambda shape: None, (2,), TypeError, "cannot be made from None"),
    (np.array(["a"]), (1,), TypeError, "real numbers, but the array given has dtype <U1"),
    (np.ones(2) * 1j, (2,), TypeError, "real numbers, but the array given has dtype complex128"),
    ([[1, 2], [3]], (2, 2), TypeError, "rows of several lengths")])
def test_what_create_param_refuses(spec, shape, error, message):
    with pytest.raises(error, match=message):
        utils.create_param(spec, shape, "W")


# --- unroll_scan ---------------------------------------------------------------------------------


def decay(x, h, s, w):
    new = w * h + x
    return [new, s + new]


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("backend", ["llvm", "numpy"])
def test_unroll_scan(go_backwards, backend):
    x, h0, w = T.matrix("x"), T.vector("h0"), T.vector("w")
    stacks = utils.unroll_scan(decay, sequences=[x], outputs_info=[h0, T.zeros_like(h0)],
                               non_sequences=[w], n_steps=3, go_backwards=go_backwards)
    assert isinstance(stacks, list) and len(stacks) == 2
    rows, start, weights = np.arange(8.0).reshape(4, 2), np.array([1.0, 2]), np.array([0.5, -1])
    with config.change(backend=backend):
        out = function([x, h0, w], stacks)(rows, start, weights)
    h, s, expected = start, 0, []
    for k in (2, 1, 0) if go_backwards else (0, 1, 2):
        h, s = decay(rows[k], h, s, weights)
        expected.append([h, s])
    np.testing.assert_allclose(out, np.swapaxes(expected, 0, 1))


def test_unroll_scan_of_one_variable_each():
    x, h, w = T.vector("x"), T.scalar("h"), T.scalar("w")
    for step in (lambda x, h, w: w * h + x, lambda x, h, w: (w * h + x,)):
        (stack,) = utils.unroll_scan(step, x, h, w, 3)
        np.testing.assert_array_equal(function([x, h, w], stack)([1.0, 2, 3], 1, 2), [3, 8, 19])


def test_unroll_scan_without_feeding_back():
    x, h = T.vector("x"), T.scalar("h")
    free = utils.unroll_scan(lambda x: [x * 2, x * 3], [x], None, None, 2)
    some = utils.unroll_scan(lambda x, h: (x * h, h + x), [x], [None, h], [], 2)
    found = function([x, h], [*free, *some])([1.0, 2], 5)
    np.testing.assert_array_equal(found, [[2, 4], [3, 6], [5, 12], [6, 8]])


def test_unroll_scan_without_sequences():
    h = T.scalar("h")
    (stack,) = utils.unroll_scan(lambda h: h * 2, [], [h], [], np.int64(4))
    np.testing.assert_array_equal(function([h], stack)(1), [2, 4, 8, 16])


def test_what_unroll_scan_refuses():
    x, h = T.vector("x"), T.scalar("h")
    with pytest.raises(TypeError, match="n_steps is n; .*tinygraph.scan"):
        utils.unroll_scan(lambda x: x, x, None, None, T.iscalar("n"))
    for bad in (0, -2):
        with pytest.raises(ValueError, match=f"n_steps is {bad}; .*at least one step"):
            utils.unroll_scan(lambda x: x, x, None, None, bad)
    with pytest.raises(ValueError, match="returns 2 outputs, but outputs_info has 1 entries"):
        utils.unroll_scan(lambda x, h: [x, h], x, h, [], 2)
    with pytest.raises(ValueError, match="returns 1 outputs, but outputs_info has 2 entries"):
        utils.unroll_scan(lambda x, h, s: h, x, [h, h], [], 2)
