"""What a function takes for an argument, and what it says to what it does not take."""

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import In
from tinygraph.compile.convert import Converter


def function(*args, **kwargs):
    return tinygraph.function(*args, backend="numpy", **kwargs)


def identity(x, **kwargs):
    return function([x], x * 1, **kwargs)


TAKEN = [
    (T.dvector, np.array([1, 2])), (T.dvector, np.array([1, 2], "float32")),
    (T.iscalar, np.array(3)), (T.iscalar, np.int64(3)), (T.iscalar, 3), (T.dscalar, 3),
    (T.dscalar, 0.1), (T.fvector, [1, 2]), (T.fvector, [1.5]), (T.ivector, [1, 2]),
    (T.fvector, np.array([1, 2], "int16")), (T.fscalar, np.float64(0.5)), (T.ivector, []),
    (T.dmatrix, [[1, 2], [3, 4]]), (T.dvector, [float("nan"), float("inf")]),
    (T.fvector, np.array([True, False])), (T.fvector, np.array([0.5], "float16")),
]


@pytest.mark.parametrize("make, x", TAKEN, ids=lambda p: getattr(p, "what", repr(p)))
def test_taken(make, x):
    f = identity(make("x"))
    np.testing.assert_array_equal(f(x), np.asarray(x))


REFUSED = [
    (T.fvector, np.array([1.0])), (T.ivector, np.array([1, 2])), (T.fvector, np.array([1, 2])),
    (T.ivector, np.array([1.0])), (T.fvector, [1.1]), (T.ivector, [1.5]), (T.ivector, [2**40]),
    (T.iscalar, np.array(2**40)), (T.fscalar, np.array(0.1)), (T.fscalar, np.float64(0.1)),
    (T.iscalar, 1.0), (T.bvector, [300]), (T.fscalar, 2**24 + 1),
    (T.dvector, ["a"]), (T.dvector, np.array([1j])), (T.dmatrix, [[1, 2], [3]]),
    (T.dvector, None), (T.dvector, np.array(["a"])),
]


@pytest.mark.parametrize("make, x", REFUSED, ids=lambda p: getattr(p, "what", repr(p)))
def test_refused(make, x):
    f = identity(make("x"))
    with pytest.raises(TypeError, match=r"^x \(.*test_inputs.py:\d+\)"):
        f(x)


@pytest.mark.parametrize("x", [np.zeros(2), np.zeros((2, 2, 2)), 1.0, [1.0]])
def test_wrong_rank(x):
    with pytest.raises(TypeError, match=r"x \(float64 matrix.*axes; pass an array with 2"):
        identity(T.dmatrix("x"))(x)


def test_message_says_what_to_write():
    with pytest.raises(TypeError, match=r"np.asarray\(x, 'float32'\) or allow_input_downcast=True"):
        identity(T.fvector("x"))(np.zeros(2))


def test_python_float_is_rounded_only_into_a_floatx_scalar():
    with tinygraph.config.change(floatX="float32"):
        f = identity(T.fscalar("x"))
        assert f(0.1) == np.float32(0.1)
        with pytest.raises(TypeError):
            identity(T.fvector("x"))([0.1])
        with pytest.raises(TypeError):
            identity(T.fscalar("x"), allow_input_downcast=False)(0.1)
    with tinygraph.config.change(floatX="float64"), pytest.raises(TypeError):
        identity(T.fscalar("x"))(0.1)


def test_downcast_casts_anything():
    f = identity(T.iscalar("x"), allow_input_downcast=True)
    assert f(1.7) == 1 and f(np.float64(-1.7)) == -1
    g = identity(T.fvector("x"), allow_input_downcast=True)
    np.testing.assert_array_equal(g([0.1]), np.float32([0.1]))
    with pytest.raises(TypeError):
        g(["0.1"])
    with pytest.raises(TypeError):
        g(0.1)


def test_strict_converts_nothing():
    x = T.fvector("x")
    f = function([In(x, strict=True)], x * 2)
    np.testing.assert_array_equal(f(np.ones(2, "float32")), [2, 2])
    for bad in ([1.0], np.ones(2), np.ones(2, "int8")):
        with pytest.raises(TypeError, match="strict"):
            f(bad)


def test_fixed_sizes():
    r = T.drow("r")
    f = function([r], r * 2)
    assert f(np.ones((1, 3))).shape == (1, 3)
    with pytest.raises(TypeError, match=r"r \(.*axis 0 must have size 1"):
        f(np.ones((2, 3)))


def layouts():
    a = np.arange(48.0).reshape(6, 8)
    raw = np.zeros(a.nbytes + 1, "uint8")
    unaligned = raw[1:].view("float64").reshape(6, 8)
    unaligned[...] = a
    readonly = a.copy()
    readonly.flags.writeable = False
    swapped = a.astype(a.dtype.newbyteorder())
    return {"plain": a, "fortran": np.asfortranarray(a), "strided": a[::2, 1::3],
            "reversed": a[::-1, ::-1], "transposed": a.T, "readonly": readonly,
            "swapped": swapped, "unaligned": unaligned, "broadcast": np.broadcast_to(a[0], (6, 8)),
            "empty": a[:0], "float32": a.astype("float32"), "matrix": a.view(np.matrix)}


@pytest.mark.parametrize("name", layouts())
def test_layouts(name):
    a = layouts()[name]
    before = np.array(a)
    x = T.dmatrix("x")
    np.testing.assert_array_equal(function([x], x + 1)(a), before + 1)
    np.testing.assert_array_equal(a, before)
    got = Converter(x, x.type)(a)
    assert type(got) is np.ndarray and got.dtype == np.float64 and got.dtype.isnative
    assert got.flags.c_contiguous and got.flags.aligned
    if name in ("plain", "readonly"):
        assert got is a


def test_masked_arrays_are_refused():
    with pytest.raises(TypeError, match="filled"):
        identity(T.dvector("x"))(np.ma.masked_array([1.0, 2.0], [True, False]))


def test_a_variable_is_no_argument():
    with pytest.raises(TypeError, match="symbolic variable, y"):
        identity(T.dvector("x"))(T.dvector("y"))


def test_keywords_and_defaults():
    x, y, z = T.dscalars("x", "y", "z")
    f = function([x, In(y, value=10), In(z, name="more", value=100)], x + y + z)
    assert f(1) == 111 and f(1, 2) == 103 and f(x=1, more=0) == 11 and f(1, more=1, y=1) == 3
    assert function([(x, 5.0)], x * 2)() == 10


@pytest.mark.parametrize("args, kwargs, fact", [
    ((), {}, "Missing required input: x"), ((1, 2, 3), {}, "3 arguments"),
    ((1, 2), {"x": 1}, "'x' was passed twice"), ((1, 2), {"q": 1}, "no input named 'q'"),
    ((1,), {}, "Missing required input: y")])
def test_calls_that_do_not_fit(args, kwargs, fact):
    x, y = T.dscalars("x", "y")
    f = function([x, y], x + y, name="add")
    with pytest.raises(TypeError, match=fact) as caught:
        f(*args, **kwargs)
    text = str(caught.value)
    assert text.startswith("add: ") and "expects x (float64 scalar" in text
