"""Compiled functions: points 19 to 32."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import In, Out, config, function, grad, scan, shared
from tinygraph.errors import MissingInputError, UnusedInputError


def identity(x, **options):
    return function([x], x * 1, **options)


# --- arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize("make, argument", [
    (T.dvector, np.array([1, 2])), (T.dvector, np.array([1, 2], "float32")),
    (T.iscalar, np.array(3)), (T.fvector, [1, 2]), (T.fvector, [1.5]), (T.ivector, [1, 2])])
def test_19_arguments_that_lose_nothing_are_taken(make, argument):
    np.testing.assert_array_equal(identity(make("x"))(argument), argument)


@pytest.mark.parametrize("make, argument", [
    (T.fvector, np.array([1.0])), (T.ivector, np.array([1, 2])), (T.fvector, np.array([1, 2])),
    (T.ivector, np.array([1.0])), (T.fvector, [1.1])])
def test_19_arguments_of_a_wider_dtype_are_refused(make, argument):
    with pytest.raises(TypeError, match="^x .*cannot hold without loss"):
        identity(make("x"))(argument)


def test_20_downcasts():
    with config.change(floatX="float32"):
        x = T.fscalar("x")
        assert identity(x)(0.1) == np.float32(0.1)
        with pytest.raises(TypeError):
            identity(x)(np.array(0.1))
        with pytest.raises(TypeError):
            identity(x, allow_input_downcast=False)(0.1)
    with pytest.raises(TypeError):
        identity(T.fscalar("x"))(0.1)
    assert identity(T.iscalar("n"), allow_input_downcast=True)(1.7) == 1
    x = T.dvector("x")
    strict = function([In(x, strict=True)], x * 1)
    assert strict(np.ones(2)).shape == (2,)
    for wrong in ([1.0], np.ones(2, "float32"), np.ones(2, int)):
        with pytest.raises(TypeError, match="strict"):
            strict(wrong)


def test_21_number_and_names_of_arguments():
    x, y = T.dvector("x"), T.dscalar("y")
    f = function([x, In(y, value=2.0)], x * y)
    np.testing.assert_array_equal(f(x=[1.0]), [2.0])
    np.testing.assert_array_equal(f([1.0], y=3.0), [3.0])
    np.testing.assert_array_equal(function([x, (y, 4.0)], x * y)([1.0]), [4.0])
    with pytest.raises(TypeError, match="Missing required input"):
        f()
    with pytest.raises(TypeError, match="3 arguments"):
        f([1.0], 1.0, 2.0)
    with pytest.raises(TypeError, match="no input named 'z'"):
        f([1.0], z=1.0)
    for wrong in (1.0, np.ones((1, 1))):
        with pytest.raises(TypeError, match="axes"):
            f(wrong)
    with pytest.raises(TypeError, match="shared variable"):
        In(y, value=1.0, update=y + 1)


def test_22_inputs_that_are_unused_twice_shared_or_missing():
    x, y, w = T.dvector("x"), T.dvector("y"), shared(np.zeros(2), "w")
    with pytest.raises(UnusedInputError, match="y "):
        function([x, y], x)
    assert not issubclass(UnusedInputError, (TypeError, ValueError))
    with pytest.warns(UserWarning, match="y "):
        function([x, y], x, on_unused_input="warn")
    function([x, y], x, on_unused_input="ignore")
    with config.change(on_unused_input="ignore"):
        function([x, y], x)
    with pytest.raises(UnusedInputError, match="twice"):
        function([x, x], x)
    with pytest.raises(TypeError, match="shared"):
        function([w], w)
    with pytest.raises(MissingInputError, match="y "):
        function([x], x + y)
    with pytest.raises(MissingInputError, match="y "):
        (x + y).eval({x: [1.0]})


def test_23_forms_of_outputs():
    x = T.dvector("x")
    total = x.sum()
    one = function([x], total)([1.0, 2.0])
    assert isinstance(one, np.ndarray) and one.shape == () and one == 3
    assert function([x], [total, x])([1.0])[0] == 1
    assert set(function([x], {"a": total, "b": x})([1.0])) == {"a", "b"}
    assert function([], [])() == [] and function([])() == []
    assert function([x], Out(total, borrow=True))([1.0]) == 1
    assert function([x], [Out(total)])([1.0]) == [1]


def test_22_a_constant_gradient_does_not_use_its_scalar():
    s, x = T.dscalar("s"), T.dvector("x")
    with pytest.raises(UnusedInputError, match="s "):
        function([s], grad(3 * s, s))
    assert function([s], grad(3 * s, s), on_unused_input="ignore")(1.0) == 3
    np.testing.assert_array_equal(function([x], grad((3 * x).sum(), x))([1.0, 2.0]), [3, 3])


# --- updates ---------------------------------------------------------------------------------


def test_24_updates_read_old_values():
    a, b = shared(1.0, "a"), shared(2.0, "b")
    f = function([], [a, b], updates=[(a, b), (b, a)])
    assert f() == [1, 2] and a.get_value() == 2 and b.get_value() == 1
    with pytest.raises(ValueError, match="twice"):
        function([], [], updates=[(a, a + 1), (a, a + 2)])


def test_25_updates_have_the_type_of_the_variable():
    w = shared(np.zeros((1, 2)), "w")
    for wrong in (T.ones((1, 2), "float32"), T.ones((1, 2), "int8"), T.ones((2,))):
        with pytest.raises(TypeError, match="update of w"):
            function([], [], updates=[(w, wrong)])
    row = shared(np.zeros((1, 2)), "row", broadcastable=(True, False))
    with pytest.raises(TypeError, match="addbroadcast"):
        function([], [], updates=[(row, w + 1)])


def test_25_a_size_known_to_be_1_fits_one_that_is_not_known():
    w = shared(np.zeros((1, 2)), "w")
    function([], [], updates=[(w, T.ones((1, 2)))])()
    np.testing.assert_array_equal(w.get_value(), [[1.0, 1.0]])


@pytest.mark.parametrize("form", [list, dict, OrderedDict, tuple])
def test_26_forms_of_updates(form):
    a, b = shared(0.0, "a"), shared(0.0, "b")
    f = function([], [], updates=form([(a, a + 1), (b, a + 2)]))
    f()
    assert a.get_value() == 1 and b.get_value() == 2


def test_26_updates_of_scan_take_others():
    a, b = shared(0.0, "a"), shared(0.0, "b")
    _, updates = scan(lambda: {a: a + 1}, n_steps=3)
    seven = b + 7
    updates.update([(b, seven)])
    updates.update({b: seven})
    function([], [], updates=updates)()
    assert a.get_value() == 3 and b.get_value() == 7
    assert function([], [], updates=list(updates.items()))() == []
    with pytest.raises(KeyError, match="b .* two values"):
        updates.update({b: b + 5})
    with pytest.raises(TypeError, match="not a shared variable"):
        updates[T.dscalar("x")] = seven


def test_26_updates_add_up():
    a, b = shared(0.0, "a"), shared(0.0, "b")
    own = tinygraph.OrderedUpdates([(a, a + 1)])
    for other in ({b: b + 2}, [(b, b + 2)], tinygraph.OrderedUpdates({b: b + 2})):
        assert list(own + other) == [a, b] and list(other + own) == [b, a]
    assert list(own) == [a]
    function([], [], updates=own + {b: b + 2})()
    assert a.get_value() == 1 and b.get_value() == 2


def test_27_givens():
    x, y, w = T.dvector("x"), T.dvector("y"), shared(np.ones(2), "w")
    for form in (dict, list):
        f = function([y], x * 2 + w, givens=form([(x, y + 1), (w, y)]))
        np.testing.assert_array_equal(f([1.0, 2.0]), [5.0, 8.0])
    inner = x + 1
    np.testing.assert_array_equal(function([y], inner * 2, givens={inner: y})([3.0]), [6.0])
    n = T.iscalar("n")
    with pytest.raises(TypeError, match="one type"):
        function([], n * 1, givens={n: T.constant(1, dtype="int8")})
    with pytest.raises(TypeError, match="one type"):
        function([y], x * 1, givens={x: y.sum()})


def test_28_default_updates():
    w, v = shared(0.0, "w"), shared(0.0, "v")
    w.default_update = w + 1
    function([], w * 2)()
    assert w.get_value() == 1
    v.default_update = v + w
    function([], v * 1)()
    assert w.get_value() == 2 and v.get_value() == 1
    function([], w * 1, updates=[(w, w + 10)])()
    assert w.get_value() == 12
    for frozen in (True, [w]):
        function([], w * 1, no_default_updates=frozen)()
    x = T.dscalar("x")
    function([x], x * 1)(1.0)
    assert w.get_value() == 12
    function([], [], updates=[(v, w * 1)])()
    assert w.get_value() == 13


# --- values ----------------------------------------------------------------------------------


def test_29_get_value_and_set_value():
    a = np.zeros(2)
    w, alias = shared(a, "w"), shared(a, "alias", borrow=True)
    a[0] = 5
    assert w.get_value()[0] == 0 and alias.get_value()[0] == 5
    w.get_value()[0] = 7
    assert w.get_value()[0] == 0
    w.set_value(np.ones(3))
    assert w.get_value().shape == (3,)
    w.set_value(np.arange(2))
    assert w.get_value().dtype == np.float64
    with pytest.raises(TypeError):
        w.set_value(np.ones((2, 2)))
    with pytest.raises(TypeError, match="without loss"):
        shared(np.zeros(2, "float32"), "s").set_value(np.array([0.1]))


def test_30_nothing_of_the_callers_is_changed_or_shared():
    x, w = T.dvector("x"), shared(np.zeros(2), "w")
    y = T.set_subtensor(x[0], 9.0)
    f = function([x], [x, y, y, w + x], updates=[(w, w + x)])
    a = np.array([1.0, 2.0])
    for _ in range(4):
        first = f(a)
        kept = [r.copy() for r in first]
        f(np.array([5.0, 6.0]))
        for r, k in zip(first, kept, strict=True):
            np.testing.assert_array_equal(r, k)
        np.testing.assert_array_equal(a, [1.0, 2.0])
        first[0][:] = -1
        np.testing.assert_array_equal(a, [1.0, 2.0])


def test_31_a_clone_has_the_same_storage():
    w, x = shared(0.0, "w"), T.dscalar("x")
    w.default_update = w + 100
    other = tinygraph.clone(w, share_inputs=False)
    assert other is not w and other.default_update is None
    function([x], [], updates=[(other, other + x)])(3.0)
    assert w.get_value() == 3
    other.default_update = 0.5 * other + 0.5 * x
    function([x], x + 0 * other)(1.0)
    assert w.get_value() == 2


def test_32_identity_truth_and_length():
    x, y = T.dmatrix("x"), T.dmatrix("y")
    assert (x == y) is False and x != y and x in [x] and {x: 1}[x] == 1
    assert bool(x)
    for condition in (x < 1, x >= y):
        with pytest.raises(TypeError, match="T.switch"):
            bool(condition)
    with pytest.raises(TypeError, match="shape"):
        len(x)
    with pytest.raises(TypeError, match="scan"):
        iter(x)
    rows, columns = x.shape
    assert len(tuple(x.shape)) == 2
    assert function([x], rows * columns)(np.ones((2, 3))) == 6


# --- the rest of the signature --------------------------------------------------------------


def test_function_takes_theanos_arguments_in_theanos_order():
    x, w = T.dscalar("x"), shared(0.0, "w")
    f = function([x], x + w, "FAST_RUN", [(w, w + 1)], {}, False, False, "named", True, None,
                 None, "raise")
    assert f(1.0) == 1 and f(1.0) == 2 and f.name == "named"
    with pytest.raises(TypeError, match="updates=... by name"):
        function([x], x + w, [(w, w + 1)])
    with pytest.raises(TypeError, match="name of a mode"):
        function([x], x, mode=object())
    with pytest.raises(ValueError, match="mode is 'FAST'.*'FAST_RUN'"):
        function([x], x, mode="FAST")


@pytest.mark.counts
def test_modes():
    x = T.dscalar("x")
    y = T.log(x)
    assert function([x], y, mode="FAST_COMPILE").options["backend"] == "numpy"
    for bad in (function([x], y, mode="DebugMode"), function([x], y, mode="NanGuardMode")):
        assert bad(1.0) == 0
        with pytest.raises(AssertionError, match="log"):
            bad(-1.0)
    with config.change(mode="NanGuardMode"):
        guarded = function([x], y)
    with pytest.raises(AssertionError, match="log"):
        guarded(-1.0)
    with config.change(optimizer="None"):
        plain = function([x], T.log(1 + T.exp(x)), backend="llvm")
    stable = function([x], T.log(1 + T.exp(x)), backend="llvm")
    assert np.isinf(plain(1000.0)) and stable(1000.0) == 1000


def test_copies_of_functions():
    x = T.dscalar("x")
    w, v = shared(1.0, "w"), shared(10.0, "v")
    f = function([x], x * w, updates=[(w, w + 1)], name="f")
    assert f.get_shared() == [w] and not f.trust_input
    frozen = f.copy(delete_updates=True)
    assert frozen(2.0) == 2 and frozen(2.0) == 2 and frozen.name == "f"
    swapped = f.copy(swap={w: v}, name="g")
    assert swapped(2.0) == 20 and v.get_value() == 11 and w.get_value() == 1
    assert swapped.get_shared() == [v] and swapped.name == "g"
    assert f(2.0) == 2 and w.get_value() == 2
    with pytest.raises(ValueError, match="does not use"):
        f.copy(swap={v: w})
    with pytest.raises(TypeError, match="swap"):
        f.copy(swap={w: shared(np.zeros(2), "other")})


def test_copies_of_functions_with_loops_and_sizes():
    w, v = shared(np.ones(3), "w"), shared(np.full(5, 2.0), "v")
    rows, _ = scan(lambda r, s: s + r * w.sum() / w.shape[0], sequences=[w],
                   outputs_info=[T.zeros(())])
    f = function([], [rows, T.zeros(w.shape) + 1, grad(rows[-1], w)])
    out = f.copy(swap={w: v})()
    np.testing.assert_allclose(out[0], np.cumsum(np.full(5, 4.0)))
    assert out[1].shape == out[2].shape == (5,)
    assert f()[0].shape == (3,)
