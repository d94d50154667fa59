"""Shared variables whose values lie on a device, on the host, or on both."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest
from placing import FLOAT, Counted, native, ones, warm

import tinygraph
import tinygraph.tensor as T
from tinygraph import Out, function, shared
from tinygraph.errors import CheckError, NotFiniteError


def test_values_stay_where_they_were_computed(device: Any, counted: Counted) -> None:
    w, x = shared(ones(3), "w"), T.vector("x")
    f = function([x], [], updates=[(w, w + x)], backend=device.backend)
    f(ones(3))
    assert counted.up[0] == (3,)
    there = w.get_value(borrow=True)
    assert type(there) is device.array and there.get().tolist() == [2] * 3
    counted.clear()
    x_ = device.home.put(ones(3))
    counted.clear()
    for _ in range(4):
        f(x_)
    assert not counted.up and not counted.down
    assert there.get().tolist() == [2] * 3  # somebody has it: it is not written again
    copy = w.get_value()
    assert type(copy) is np.ndarray and copy.tolist() == [6] * 3
    inside = w.get_value(return_internal_type=True)
    assert type(inside) is device.array and inside is not w.get_value(borrow=True)
    f(x_)
    assert copy.tolist() == inside.get().tolist() == [6] * 3 and w.storage.shape == (3,)


def test_two_arrays_take_turns(device: Any) -> None:
    w = shared(ones(3), "w")
    f = function([], [], updates=[(w, w + 1)], backend=device.backend)
    seen = []
    for _ in range(6):
        f()
        seen.append(id(w.storage.there))
    assert len(set(seen[2:])) == 2 and seen[2] == seen[4] != seen[3] == seen[5]


def test_values_are_given_on_the_device(device: Any, counted: Counted) -> None:
    mine = device.home.put(ones(2, 3))
    w, v = shared(mine, "w"), shared(mine, "v", borrow=True)
    assert w.dtype == FLOAT and w.ndim == 2
    assert w.get_value(borrow=True) is not mine and v.get_value(borrow=True) is mine
    f = function([], [], updates=[(w, w + v)], backend=device.backend)
    counted.clear()
    f()
    assert not counted.up and not counted.down
    assert w.get_value().tolist() == [[2] * 3] * 2 and mine.get().tolist() == [[1] * 3] * 2
    other = device.home.put(np.full((1, 2), 5, FLOAT))
    w.set_value(other, borrow=True)
    assert w.get_value(borrow=True) is other and w.storage.shape == (1, 2)
    w.set_value(device.home.put(np.full((2, 2), 5, "int16")))
    assert w.get_value().tolist() == [[5, 5]] * 2
    with pytest.raises(TypeError, match="set_value got a float64 array"):
        w.set_value(device.home.put(np.ones((2, 2))))
    w.zero()
    assert w.get_value().tolist() == [[0, 0]] * 2


def test_a_borrowed_array_is_the_variables_own(device: Any) -> None:
    w = shared(ones(3), "w")
    there = function([], Out(w * 1, borrow=True), backend=device.backend)
    cpu = warm(function([], w * 1))
    there()
    assert native(cpu)  # it lies in both places
    lent = w.get_value(borrow=True)
    assert type(lent) is device.array
    raw = lent.memory if device.backend == "shim" else lent.host
    raw[:] = 5
    assert there().get().tolist() == [5] * 3 and w.get_value().tolist() == [5] * 3
    assert cpu().tolist() == [5] * 3  # now it has moved to the host
    raw[:] = 6
    assert cpu().tolist() == there().get().tolist() == w.get_value().tolist() == [5] * 3


def test_a_borrowed_array_of_the_host_moves(device: Any) -> None:
    mine = ones(3)
    w = shared(mine, "w", borrow=True)
    there, cpu = function([], w * 1, backend=device.backend), function([], w * 1)
    mine[:] = 2
    assert cpu().tolist() == there().tolist() == [2] * 3
    mine[:] = 3
    for f in (cpu, there) * 2:
        assert f().tolist() == [2] * 3
    w.get_value(borrow=True)
    assert mine.tolist() == [3] * 3


@pytest.mark.parametrize("reads", [True, False], ids=["read", "only written"])
def test_functions_of_both_take_turns(device: Any, reads: bool) -> None:
    """Native code of the CPU never sees what lies on the device alone."""
    w, v = shared(np.zeros((2, 3), FLOAT), "w"), shared(np.zeros((2, 3), FLOAT), "v")
    x = T.matrix("x")
    new = w + x if reads else x * 1
    cpu = warm(function([x], x.sum(), updates=[(w, new)]), ones(2, 3))
    both = warm(function([], [w.sum(), v.sum()]))
    there = function([x], [], updates=[(w, w + 2 * x), (v, v + 1)], backend=device.backend)
    expected, count = w.get_value(), 0
    rng = np.random.default_rng(1)
    for kind in rng.integers(5, size=120):
        a = rng.integers(-3, 4, (2, 3)).astype(FLOAT)
        if kind < 2:
            cpu(a)
            expected = expected + a if reads else a
        elif kind == 2:
            there(a)
            expected, count = expected + 2 * a, count + 1
        elif kind == 3:
            assert [float(s) for s in both()] == [expected.sum(), 6 * count]
        else:
            w.set_value(a if rng.integers(2) else device.home.put(a))
            expected = a
        if rng.integers(3) == 0:
            np.testing.assert_array_equal(w.get_value(), expected)
    np.testing.assert_array_equal(w.get_value(), expected)
    assert cpu._entrance is not None and count


def test_native_calls_between_updates_of_the_device(device: Any) -> None:
    w = shared(np.zeros(3, FLOAT), "w")
    cpu = warm(function([], w * 2, updates=[(w, w + 1)]))
    read = warm(function([], w.sum()))
    there = function([], w * 2, updates=[(w, w + 10)], backend=device.backend)
    total = 5.0
    for _ in range(10):
        assert there().tolist() == [2 * total] * 3
        total += 10
        assert not native(cpu) and not native(read)
        assert read() == 3 * total and native(read)
        for _ in range(4):
            assert cpu().tolist() == [2 * total] * 3
            total += 1
        assert native(read) and w.get_value().tolist() == [total] * 3


def test_many_threads(device: Any) -> None:
    """Updates of both kinds from several threads: none is lost, and none is seen by half."""
    w, v = shared(np.zeros(4, "int64"), "w"), shared(np.zeros(4, "int64"), "v")
    updates = [(w, w + 1), (v, v + 1)]
    cpu = warm(function([], [w, v], updates=updates))
    there = function([], [w, v], updates=updates, backend=device.backend)
    read = function([], [w, v], backend=device.backend)
    reads = warm(function([], [w * 1, v * 1]))
    rounds, wrong = 40, list[Any]()

    def work(f: Any) -> None:
        for _ in range(rounds):
            a, b = f()
            if len({*a.tolist(), *b.tolist()}) != 1:
                wrong.append((a, b))

    def lend() -> None:
        for _ in range(rounds):
            w.get_value(borrow=True)
            w.get_value()

    threads = [threading.Thread(target=work, args=[f]) for f in (cpu, there, cpu, read, reads)]
    threads.append(threading.Thread(target=lend))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not wrong and not any(thread.is_alive() for thread in threads)
    assert w.get_value().tolist() == v.get_value().tolist() == [5 + 3 * rounds] * 4


def test_a_failed_call_changes_nothing(device: Any) -> None:
    w, k = shared(ones(3), "w"), T.lscalar("k")
    f = function([k], w[k], updates=[(w, w + 1)], backend=device.backend)
    f(0)
    there = w.get_value(borrow=True)
    for _ in range(2):
        with pytest.raises(IndexError, match="index 7 "):
            f(7)
        assert w.get_value(borrow=True) is there and there.get().tolist() == [2] * 3
    assert f(2) == 2 and w.get_value().tolist() == [3] * 3


def test_shapes_that_change(device: Any) -> None:
    w, x = shared(ones(2), "w"), T.vector("x")
    f = function([x], w.shape[0], updates=[(w, T.concatenate([w, x]))], backend=device.backend)
    assert [int(f(ones(k % 3))) for k in range(9)] == [2, 2, 3, 5, 5, 6, 8, 8, 9]
    w.set_value(ones(1))
    assert f(ones(1)) == 1 and w.get_value().tolist() == [1, 1]


def test_clones_share_their_array(device: Any, counted: Counted) -> None:
    w = shared(ones(3), "w")
    v = w.clone()
    f = function([], w + v, updates=[(w, w + v)], backend=device.backend)
    assert [f().tolist() for _ in range(3)] == [[2] * 3, [4] * 3, [8] * 3]
    assert v.get_value().tolist() == [8] * 3


# --- what reads values


def test_what_is_pickled_is_numpys(device: Any) -> None:
    w, x = shared(ones(3), "w"), T.vector("x")
    f = function([x], w * x, updates=[(w, w + x)], backend=device.backend)
    f(ones(3))
    again = pickle.loads(pickle.dumps(w))
    value = again.get_value(borrow=True)
    assert type(value) is np.ndarray and value.tolist() == [2] * 3
    g = pickle.loads(pickle.dumps(f))
    assert g(ones(3)).tolist() == f(ones(3)).tolist() == [2] * 3
    assert type(g.shared[0].get_value(borrow=True)) is device.array


def test_calls_that_are_watched(device: Any) -> None:
    w, x = shared(ones(3), "w"), T.vector("x")
    f = function([x], Out(w * x, borrow=True), updates=[(w, w / x)], backend=device.backend,
                 check=True)
    assert f(2 * ones(3)).get().tolist() == [2] * 3
    f(device.home.put(ones(3)))
    with pytest.raises(CheckError, match="not finite"):
        f(np.zeros(3, FLOAT))
    g = function([x], w * x, updates=[(w, w / x)], backend=device.backend, nan_guard=True)
    with pytest.raises(NotFiniteError, match="update of w"):
        g(np.zeros(3, FLOAT))
    assert w.get_value().tolist() == [0.5] * 3
    with pytest.raises(ValueError, match="profile=True has no clock for kernels"):
        function([x], x, profile=True, backend=device.backend)


def test_values_that_graphs_are_computed_with(device: Any) -> None:
    w = shared(ones(3), "w")
    function([], [], updates=[(w, w + 1)], backend=device.backend)()
    assert (w * 2).eval().tolist() == [4] * 3
    with tinygraph.config.change(compute_test_value="raise"):
        assert (w * 3).tag.test_value.tolist() == [6] * 3
    assert type(w.get_value(borrow=True)) is device.array
