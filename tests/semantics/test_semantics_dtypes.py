"""Dtypes: points 10 to 18."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function, grad, shared

f32, f64 = T.fvector("f32"), T.dvector("f64")
i8, i16, i32, i64 = T.bvector("i8"), T.wvector("i16"), T.ivector("i32"), T.lvector("i64")


@pytest.fixture
def single():
    with config.change(floatX="float32"):
        yield


def test_10_promotion_is_numpys():
    assert (f32 + i32).dtype == "float64"
    assert (f32 + i64).dtype == "float64"
    assert (f32 + i16).dtype == "float32"
    assert (f32 * f64).dtype == "float64"
    assert (i8 + i32).dtype == "int32"
    assert (f32 * np.array(1.0)).dtype == "float64"
    assert (f32 * np.ones(2)).dtype == "float64"
    assert T.upcast("float32", "int32") == "float64"
    assert T.upcast("float32", "int16") == "float32"


def test_10_integers_with_float32_stay_float32_under_floatX_float32(single):
    for x in (i8, i16, i32, i64):
        assert (f32 + x).dtype == "float32"
    assert T.upcast("float32", "int64") == "float32"
    assert (f64 + i32).dtype == "float64"
    assert (f32 * np.array(1.0)).dtype == "float64"


def test_11_python_numbers_take_the_dtype_beside_them():
    assert (f32 * 1).dtype == "float32" and (f32 * 0.5).dtype == "float32"
    assert (i32 + 1).dtype == "int32" and (i8 + 1).dtype == "int8"
    assert (i32 * 0.5).dtype == "float64" and (f64 * 0.1).dtype == "float64"
    assert (i8 + 300).dtype == "int16"


@pytest.mark.parametrize("float_x", ["float32", "float64"])
def test_11_a_python_number_never_widens_a_float(float_x):
    with config.change(floatX=float_x):
        for number in (0.1, 1e-30, 3, np.float64(0.1)):
            assert (f32 * number).dtype == "float32"
            assert (f64 * number).dtype == "float64"
        assert (i32 * 0.1).dtype == float_x and (i8 * 0.5).dtype == float_x


@pytest.mark.parametrize("float_x", ["float32", "float64"])
def test_12_constants(float_x):
    with config.change(floatX=float_x):
        for x in (T.constant(1.0), T.alloc(0.0, 4), T.zeros((2,)), T.ones((2,)), T.eye(2),
                  T.as_tensor_variable(1.5), shared(1.0)):
            assert x.dtype == float_x
        assert T.as_tensor_variable([1, 2]).dtype == "int64"
        assert T.as_tensor_variable(np.float64(1)).dtype == "float64"
        assert T.as_tensor_variable([1.0, 2]).dtype == "float64"
        assert shared(1).dtype == "int64" and shared(np.float64(1)).dtype == "float64"
        assert T.constant(1).dtype == "int64" and T.constant(1, dtype="int8").dtype == "int8"
        assert T.constant(np.ones(2, "float32")).dtype == "float32"


@pytest.mark.parametrize("float_x", ["float32", "float64"])
def test_13_true_division_of_integers(float_x):
    with config.change(floatX=float_x):
        for y in (i32 / i32, i64 / 2, 2 / i64, T.true_div(i8, i8)):
            assert y.dtype == float_x
    a, b = np.array([7, -7, 7, -7], "int32"), np.array([2, 2, -2, -2], "int32")
    x, y = T.ivector("x"), T.ivector("y")
    div, floor, rest = function([x, y], [x / y, x // y, x % y])(a, b)
    np.testing.assert_array_equal(div, a / b)
    np.testing.assert_array_equal(floor, a // b)
    np.testing.assert_array_equal(rest, a % b)
    assert floor.dtype == rest.dtype == np.int32
    assert (i32 // 2).dtype == "int32" and (f32 // f32).dtype == "float32"
    assert (f32 % 2).dtype == "float32" and (i32 // 2.0).dtype == "float64"


def test_14_comparisons_give_bools():
    c = f32 < f32
    assert c.dtype == "bool" and T.eq(i32, 1).dtype == "bool"
    assert (c + c).dtype == "bool" and (1 - c).dtype == "int8" and (c * 2).dtype == "int8"
    assert (~c).dtype == "bool" and (c * f32).dtype == "float32"
    with pytest.raises(TypeError, match="~"):
        _ = -c
    x = T.dvector("x")
    d = x > 1
    total, minus, flipped, times = function([x], [d + d, 1 - d, ~d, d * x])([0.0, 2.0])
    np.testing.assert_array_equal(total, [False, True])
    np.testing.assert_array_equal(minus, [1, 0])
    np.testing.assert_array_equal(flipped, [True, False])
    np.testing.assert_array_equal(times, [0, 2])
    assert total.dtype == bool and minus.dtype == np.int8


def test_15_reductions():
    c = i8 > 1
    for x in (i8, i32, i64, c):
        assert x.sum().dtype == "int64" and x.prod().dtype == "int64"
        assert x.mean().dtype == "float64"
    assert f32.sum().dtype == "float32" and f32.mean().dtype == "float32"
    assert i8.max().dtype == "int8" and f32.max().dtype == "float32"
    assert f32.argmax().dtype == "int64"
    assert f32.shape[0].dtype == "int64" and T.arange(i32[0]).dtype == "int64"
    assert T.mean(f32, dtype="float64").dtype == "float64"
    assert T.sum(i32, dtype="int32").dtype == "int32"
    assert T.sum(f32, acc_dtype="float64").dtype == "float32"


def test_15_accumulators():
    x = T.fvector("x")
    many = np.full(100_000, 0.1, "float32")
    exact = many.astype("float64").sum()
    plain, wide = function([x], [x.sum(), x.sum(acc_dtype="float64")])(many)
    assert plain.dtype == wide.dtype == np.float32
    np.testing.assert_allclose(plain, exact, rtol=1e-4)
    np.testing.assert_allclose(wide, exact, rtol=1e-7)


def test_15_argsort():
    assert T.argsort(f32).dtype == "int64"


def test_15_the_mean_of_integers_is_floatX(single):
    assert i32.mean().dtype == "float32"


def test_16_functions_of_integers():
    for fn in (T.exp, T.sqrt, T.nnet.sigmoid, T.tanh):
        assert fn(i32).dtype == fn(i64).dtype == "float64"
        assert fn(i8).dtype == fn(i16).dtype == "float32"
        assert fn(f32).dtype == "float32"
    assert T.floor(i32).dtype == T.ceil(i32).dtype == "float64"
    assert (i32 ** 2).dtype == "int32" and (f32 ** 2).dtype == "float32"
    assert (f32 ** 0.5).dtype == "float32"


def test_16_functions_of_integers_under_floatX_float32(single):
    for fn in (T.exp, T.sqrt, T.nnet.sigmoid, T.tanh, T.floor):
        assert fn(i32).dtype == fn(i64).dtype == fn(i8).dtype == "float32"


def test_17_writing_keeps_the_dtype_of_the_array():
    x = T.fvector("x")
    for write in (T.set_subtensor, T.inc_subtensor):
        y = write(x[:1], T.constant(np.array([0.1])))
        assert y.dtype == "float32"
        assert function([x], y)(np.zeros(2, "float32")).dtype == np.float32


def test_18_floatX_is_read_when_a_variable_is_made():
    early = T.matrix()
    with config.change(floatX="float32"):
        assert T.matrix().dtype == T.scalar().dtype == T.zeros((2,)).dtype == "float32"
        assert early.dtype == "float64"
    assert T.matrix().dtype == "float64"


def test_18_floatX_can_be_assigned():
    import subprocess
    import sys

    program = ("import tinygraph, tinygraph.tensor as T; a = T.matrix()\n"
               "tinygraph.config.floatX = 'float64'; b = T.matrix()\n"
               "tinygraph.config.floatX = 'float32'; print(a.dtype, b.dtype, T.matrix().dtype)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True, timeout=60)
    assert done.stdout.split() == ["float32", "float64", "float32"]
    assert grad(f32.sum(), f32).dtype == "float32"
