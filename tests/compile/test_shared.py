"""Shared variables: what they hold, hand out and take, alone and from several threads."""

import copy
import pickle
import threading

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, shared


def test_dtypes_of_first_values():
    with tinygraph.config.change(floatX="float32"):
        assert shared(1.0).dtype == "float32"
        assert shared([1.0, 2.0]).dtype == "float32"
    with tinygraph.config.change(floatX="float64"):
        assert shared(1.0).dtype == "float64"
    assert shared(1).dtype == "int64"
    assert shared(True).dtype == "bool"
    assert shared(np.float64(1)).dtype == "float64"
    assert shared(np.zeros(2, "float64")).dtype == "float64"
    assert shared(np.zeros(2, ">f4")).get_value().dtype == np.dtype("float32")


def test_size_one_is_no_flag_unless_asked_for():
    assert shared(np.zeros((1, 3))).broadcastable == (False, False)
    assert shared(np.zeros((1, 3)), broadcastable=(True, False)).broadcastable == (True, False)
    with pytest.raises(TypeError, match="size 3"):
        shared(np.zeros((1, 3)), broadcastable=(True, True))
    with pytest.raises(TypeError, match="entries"):
        shared(np.zeros((1, 3)), broadcastable=(True,))


def test_what_cannot_be_shared():
    with pytest.raises(TypeError, match="symbolic"):
        shared(T.vector("v"))
    with pytest.raises(TypeError, match="complex"):
        shared(np.zeros(2, complex))


def test_get_value_copies_and_borrows():
    w = shared(np.zeros(3))
    w.get_value()[0] = 1
    assert w.get_value()[0] == 0
    w.get_value(borrow=True)[0] = 1
    assert w.get_value()[0] == 1


def test_first_value_is_copied_unless_borrowed():
    a = np.zeros(3)
    w, alias = shared(a), shared(a, borrow=True)
    a[0] = 5
    assert w.get_value()[0] == 0
    assert alias.get_value()[0] == 5


@pytest.mark.parametrize("make", [
    lambda a: np.asfortranarray(a), lambda a: a[::-1], lambda a: a[:, ::2],
    lambda a: a.astype(a.dtype.newbyteorder()), lambda a: a.T])
def test_any_layout_becomes_plain(make):
    a = make(np.arange(24.0).reshape(4, 6))
    before = a.copy()
    for w in (shared(a), shared(a, borrow=True)):
        held = w.get_value(borrow=True)
        assert held.flags.c_contiguous and held.flags.aligned and held.dtype.isnative
        np.testing.assert_array_equal(held, before)


def test_set_value_may_change_shape_but_not_rank():
    w = shared(np.zeros((2, 3)), "w")
    w.set_value(np.ones((5, 1)))
    assert w.get_value().shape == (5, 1)
    with pytest.raises(TypeError, match="^w "):
        w.set_value(np.ones(3))
    flagged = shared(np.zeros((1, 3)), broadcastable=(True, False))
    with pytest.raises(TypeError, match="axis 0 must have size 1"):
        flagged.set_value(np.zeros((2, 3)))


def test_set_value_loses_nothing():
    w = shared(np.zeros(2, "float32"), "w")
    with pytest.raises(TypeError, match=r"w \(float32 vector.*float64"):
        w.set_value(np.zeros(2))
    d = shared(np.zeros(2), "d")
    d.set_value(np.array([1, 2]))
    np.testing.assert_array_equal(d.get_value(), [1.0, 2.0])
    loose = shared(np.zeros(2, "float32"), allow_downcast=True)
    loose.set_value(np.array([0.1, 0.2]))
    assert loose.dtype == "float32"
    strict = shared(np.zeros(2), strict=True)
    with pytest.raises(TypeError, match="strict"):
        strict.set_value(np.zeros(2, "float32"))


def test_set_value_copies_unless_borrowed():
    w, a = shared(np.zeros(2)), np.ones(2)
    w.set_value(a)
    a[0] = 7
    assert w.get_value()[0] == 1
    w.set_value(a, borrow=True)
    assert w.get_value(borrow=True) is a


def test_borrowed_arrays_are_never_written_by_calls():
    mine, second = np.zeros(2), np.ones(2)
    w = shared(mine, borrow=True)
    step = function([], w, updates=[(w, w + 1)], backend="numpy")
    for _ in range(4):
        step()
    np.testing.assert_array_equal(mine, 0)
    w.set_value(second, borrow=True)
    for _ in range(4):
        step()
    np.testing.assert_array_equal(second, 1)
    lent = w.get_value(borrow=True)
    for _ in range(4):
        step()
    np.testing.assert_array_equal(lent, 5)


def test_update_swaps_two_arrays():
    w = shared(np.zeros(3))
    step = function([], updates=[(w, w + 1)], backend="numpy")
    step()
    first, spare = w.storage.array, w.storage.spare
    step()
    assert w.storage.array is spare and w.storage.spare is first
    np.testing.assert_array_equal(w.get_value(), 2)


def test_clone_shares_storage_but_no_default_update():
    w = shared(np.zeros(2), "w")
    w.default_update = w + 1
    other = tinygraph.clone(w, share_inputs=False)
    assert other is not w and other.default_update is None and other.name == "w"
    function([], updates=[(other, other + 3)], backend="numpy")()
    np.testing.assert_array_equal(w.get_value(), 3)
    w.set_value(np.full(5, 9.0))
    np.testing.assert_array_equal(other.get_value(), np.full(5, 9.0))


def test_clone_of_an_expression():
    w, x = shared(np.ones(2), "w"), T.dvector("x")
    y = tinygraph.clone(w * x, replace={x: x + 1})
    np.testing.assert_array_equal(function([x], y, backend="numpy")([1, 2]), [2, 3])
    with pytest.raises(TypeError, match="replacement"):
        tinygraph.clone(w * x, replace={x: T.dmatrix()})


def test_results_of_shared_variables_are_tensors():
    w = shared(np.ones(2))
    assert type(w + 1) is T.TensorVariable


def test_pickle_and_deepcopy():
    w = shared(np.arange(3.0), "w", broadcastable=(False,))
    for other in (pickle.loads(pickle.dumps(w)), copy.deepcopy(w)):
        assert other.name == "w" and other.type.dtype is w.type.dtype
        other.set_value(np.zeros(2))
        np.testing.assert_array_equal(w.get_value(), np.arange(3.0))
        step = function([], (other * 2).sum(), updates=[(other, other + 1)], backend="numpy")
        assert step() == 0 and step() == 4


@pytest.mark.parametrize("backend, size", [("numpy", 50), ("llvm", 20000)])
def test_threads_that_update_come_one_after_the_other(backend, size):
    w, v = shared(np.zeros(size), "w"), shared(np.zeros(size), "v")
    one = function([], updates=[(w, w + 1), (v, v + 1)], backend=backend)
    two = function([], updates=[(v, v + 1), (w, w + 1)], backend=backend)
    read = function([], [w, v], backend=backend)
    torn = []

    def look():
        for _ in range(100):
            a, b = read()
            if not (a == a[0]).all() or not (a == b).all():
                torn.append((a, b))

    def run(step):
        for _ in range(100):
            step()

    threads = [threading.Thread(target=run, args=(f,)) for f in (one, two, one, two)]
    threads += [threading.Thread(target=look) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not torn  # a reader sees all storages of one moment, and nobody writes under it
    np.testing.assert_array_equal(w.get_value(), 400)
    np.testing.assert_array_equal(v.get_value(), 400)
