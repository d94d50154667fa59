"""Where arrays lie: shared variables, inputs and results of functions that run on a device.

Everything is asked of the shim and of a GPU that is not there (``fake_cupy``, whose kernels the
shim runs), so that no logic of arrays is CuPy's alone.
"""

from __future__ import annotations

import gc
import pickle
import threading
from types import SimpleNamespace
from typing import Any

import fake_cupy
import models
import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import In, Out, function, grad, shared
from tinygraph.backends.cuda.cuda_home import CudaHome
from tinygraph.backends.cuda.shim_array import SHIM, ShimArray, ShimHome
from tinygraph.backends.homes import home_of
from tinygraph.backends.runners import NeedsHost
from tinygraph.compile import build, entrance
from tinygraph.errors import CheckError, NotFiniteError, UnavailableError
from tinygraph.tensor.shared_randomstreams import RandomStreams

FLOAT = "float32"


class Counted:
    """How many copies a home makes: ``up`` and ``down``, by the shapes of the arrays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.up: list[Any] = []
        self.down: list[Any] = []
        for home in (ShimHome, CudaHome):
            for name, seen in (("put", self.up), ("get", self.down)):
                monkeypatch.setattr(home, name, self.watched(getattr(home, name), seen))

    def watched(self, method: Any, seen: list[Any]) -> Any:
        def call(home: Any, array: Any, *rest: Any) -> Any:
            seen.append(array.shape)
            return method(home, array, *rest)
        return call

    def clear(self) -> None:
        self.up.clear()
        self.down.clear()


@pytest.fixture(params=["shim", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A back end, the home of its arrays, their type."""
    with tinygraph.config.change(cache="off", floatX=FLOAT):
        if request.param == "shim":
            yield SimpleNamespace(backend="shim", home=SHIM, array=ShimArray)
        else:
            from tinygraph.backends.cuda.device import cuda_device

            log = fake_cupy.running(monkeypatch)
            yield SimpleNamespace(backend="cuda", home=cuda_device().home,
                                  array=fake_cupy.ndarray, log=log)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, FLOAT)


def native(f: Any, *args: Any) -> bool:
    """Does the native entrance take this call?"""
    return f._enter(*args) is not None


def warm(f: Any, *args: Any) -> Any:
    """``f``, called often enough to know its native entrance."""
    assert entrance.method(wait=True) is not None
    for _ in range(5):
        f(*args)
    return f


# --- results


def test_results_are_numpys_unless_borrowed(device: Any) -> None:
    x = T.vector("x")
    for outputs in ([x + 1, Out(x * 2, borrow=True), Out(x * 3)],
                    {"a": x + 1, "b": Out(x * 2, borrow=True), "c": x * 3}):
        found = function([x], outputs, backend=device.backend)(ones(3))
        a, b, c = found.values() if isinstance(found, dict) else found
        assert type(a) is type(c) is np.ndarray and type(b) is device.array
        assert [v.tolist() for v in (a, b.get(), c)] == [[2] * 3, [2] * 3, [3] * 3]
    assert type(function([x], Out(x + 1, borrow=True), backend=device.backend)(ones(2))) is (
        device.array)
    assert type(function([x], Out(x + 1, borrow=True))(ones(2))) is np.ndarray
    assert repr(Out(x, borrow=True)) == "Out(x, borrow=True)"


def test_a_result_goes_into_the_next_call(device: Any, counted: Counted) -> None:
    x = T.matrix("x")
    f = function([x], Out(2 * x.T, borrow=True), backend=device.backend)
    y = f(np.arange(6, dtype=FLOAT).reshape(2, 3))
    counted.clear()
    again = f(f(y))
    assert not counted.up and not counted.down
    assert again.get().tolist() == (8 * np.arange(6.0).reshape(2, 3).T).tolist()
    assert y.get().tolist() == (2 * np.arange(6.0).reshape(2, 3).T).tolist()  # never written


def test_results_are_the_callers_own(device: Any) -> None:
    x, w = T.vector("x"), shared(ones(3), "w")
    f = function([x], [Out(x, borrow=True), Out(w, borrow=True), Out(x, borrow=True)],
                 updates=[(w, w + x)], backend=device.backend)
    first = f(ones(3))
    second = f(first[0])
    assert len({id(r) for r in first + second}) == 6
    assert [r.get().tolist() for r in first + second] == [
        [1] * 3, [1] * 3, [1] * 3, [1] * 3, [2] * 3, [1] * 3]
    assert w.get_value().tolist() == [3] * 3


def test_sizes_that_only_the_run_finds_out(device: Any) -> None:
    x = T.vector("x")
    f = function([x], [Out(x[x > 0], borrow=True), x[x > 1], x.nonzero()[0]],
                 backend=device.backend)
    for values in ([1, -1, 2], [-1, 0, -2], [3, 1, 4]):
        a, b, c = f(np.array(values, FLOAT))
        x_ = np.array(values)
        assert a.get().tolist() == x_[x_ > 0].tolist() and b.tolist() == x_[x_ > 1].tolist()
        assert c.tolist() == x_.nonzero()[0].tolist()


# --- inputs


def test_arrays_of_the_device_are_not_copied(device: Any, counted: Counted) -> None:
    x, k = T.matrix("x"), T.lvector("k")
    f = function([x, k], [x[k], x.sum(axis=0)], backend=device.backend)
    rows, numbers = np.arange(12, dtype=FLOAT).reshape(4, 3), np.array([2, 0])
    there = device.home.put(rows), device.home.put(numbers)
    counted.clear()
    for a, b in ((rows, numbers), (there[0], numbers), there):
        found = f(a, b)
        assert found[0].tolist() == rows[numbers].tolist()
        assert found[1].tolist() == rows.sum(axis=0).tolist()
    assert counted.up == [] if device.backend == "cuda" else [(4, 3), (2,), (2,)]
    assert there[0].get().tolist() == rows.tolist()


def test_arrays_of_the_device_follow_the_rules_of_numpys(device: Any) -> None:
    x = T.vector("x")
    f = function([x], x * 2, backend=device.backend)
    assert f(device.home.put(np.arange(3, dtype="int16"))).tolist() == [0, 2, 4]
    wide = np.ones(3, "float64")
    with pytest.raises(TypeError) as ours:
        f(device.home.put(wide))
    with pytest.raises(TypeError) as numpys:
        f(wide)
    assert str(ours.value) == str(numpys.value) and "float64 array of shape (3,)" in str(
        ours.value)
    with pytest.raises(TypeError, match="x .* got a float32 array of shape .2, 2. with 2 axes"):
        f(device.home.put(ones(2, 2)))
    strict = function([In(x, strict=True)], x * 2, backend=device.backend)
    assert strict(device.home.put(ones(2))).tolist() == [2, 2]
    with pytest.raises(TypeError, match="strict"):
        strict(device.home.put(wide))
    narrow = function([x], x * 2, backend=device.backend, allow_input_downcast=True)
    assert narrow(device.home.put(wide)).tolist() == [2] * 3


def test_a_fixed_size_is_looked_at(device: Any) -> None:
    r = T.row("r")
    f = function([r], r + 1, backend=device.backend)
    assert f(device.home.put(ones(1, 2))).tolist() == [[2, 2]]
    with pytest.raises(TypeError, match="axis 0 must have size 1"):
        f(device.home.put(ones(2, 2)))


def test_defaults_on_the_device(device: Any) -> None:
    x = T.vector("x")
    f = function([In(x, value=device.home.put(ones(2)))], x * 2, backend=device.backend)
    assert f().tolist() == [2, 2] and f(ones(1)).tolist() == [2]


def test_sizes_that_depend_on_values(device: Any) -> None:
    n, m = T.lscalar("n"), shared(np.int64(2), "m")
    f = function([n], T.arange(n * m), backend=device.backend)
    assert f(3).tolist() == list(range(6))
    assert f(device.home.put(np.array(2))).tolist() == list(range(4))
    more = function([], updates=[(m, m + 1)], backend=device.backend)
    more()
    assert f(2).tolist() == list(range(6)) and f(device.home.put(np.array(1))).tolist() == [0, 1, 2]


def test_a_size_that_is_shared_is_known_on_the_host(device: Any, counted: Counted) -> None:
    m, x = shared(np.int64(2), "m"), T.vector("x")
    f = function([x], [], updates=[(w := shared(ones(2), "w"), w + T.arange(m) + x)],
                 backend=device.backend)
    x_ = device.home.put(ones(2))
    f(x_)
    counted.clear()
    for _ in range(3):
        f(x_)
    assert counted.down == []
    assert w.get_value().tolist() == [5, 9]


def test_functions_of_the_cpu_refuse_them(device: Any) -> None:
    x = T.vector("x")
    there = device.home.put(ones(2))
    for backend in ("llvm", "numpy"):
        f = function([x], x + 1, backend=backend)
        with pytest.raises(TypeError, match=r"x \(float32 vector, .* of a device, but the function "
                                            r"works on the CPU; pass x.get\(\), or compile"):
            f(there)
    warm(function([x], x + 1), ones(2))
    with pytest.raises(TypeError, match=r"pass x.get\(\)"):
        warm(function([x], x + 1), ones(2))(there)


class OnCpu:
    """An array of another library on the CPU."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **how: Any) -> Any:
        return self.array.__dlpack__()


def test_arrays_of_other_libraries_on_the_cpu(device: Any) -> None:
    x = T.vector("x")
    array = ones(3)
    for backend in ("llvm", "numpy", device.backend):
        f = function([x], x * 2, backend=backend)
        assert f(OnCpu(array)).tolist() == [2] * 3
        with pytest.raises(TypeError, match="float64 array of shape .3,., which float32 cannot"):
            f(OnCpu(np.ones(3)))
    w = shared(OnCpu(array), "w")
    array[:] = 7
    assert w.get_value().tolist() == [1] * 3 and w.dtype == FLOAT
    w.set_value(OnCpu(array), borrow=True)
    assert np.shares_memory(w.get_value(borrow=True), array)


# --- shared variables


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


# --- whole programs


def test_random_numbers_have_the_same_bits(device: Any) -> None:
    def draws(backend: str) -> tuple[Any, Any]:
        streams = RandomStreams(7)
        u = streams.uniform((3, 4))
        return function([], [u, streams.uniform((2,)) < 0.5], backend=backend), streams

    (f, ours), (g, theirs) = draws(device.backend), draws("llvm")
    for _ in range(3):
        for a, b in zip(f(), g(), strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(ours.states, theirs.states, strict=True):
        assert type(a.get_value(borrow=True)) is device.array
        b.set_value(a.get_value())
    np.testing.assert_array_equal(f()[0], g()[0])
    ours.seed(3), theirs.seed(3)
    np.testing.assert_array_equal(f()[0], g()[0])


def test_training_with_everything_on_the_device(device: Any, counted: Counted) -> None:
    """After the first step no parameter goes up and no update comes down."""
    def make(backend: str) -> tuple[Any, list[Any]]:
        model = models.lstm("stacked", mask=True, hidden=3)
        cost = model.cost()
        updates: list[Any] = []
        for p, g in zip(model.params, grad(cost, model.params), strict=True):
            m = shared(np.zeros(p.storage.shape, FLOAT), f"{p.name}.m")
            updates += [(m, 0.9 * m + g), (p, p - 0.5 * m)]
        return function(model.inputs, cost, updates=updates, backend=backend), [
            model, [w for w, _ in updates]]

    (f, (model, ours)), (oracle, (_, theirs)) = make(device.backend), make("llvm")
    for step in range(20):
        batch = model.batch(3, 2, seed=step)
        counted.clear()
        np.testing.assert_allclose(f(*batch), oracle(*batch), rtol=1e-4)
        if step:
            assert counted.down == [()]  # the cost
            assert counted.up == ([] if device.backend == "cuda" else [a.shape for a in batch])
    assert f.compiles == 1
    for p, q in zip(ours, theirs, strict=True):
        assert type(p.get_value(borrow=True)) is device.array
        np.testing.assert_allclose(p.get_value(), q.get_value(), rtol=1e-4, atol=1e-4)
        q.set_value(p.get_value(borrow=True))  # from a device to a function of the CPU
        np.testing.assert_array_equal(q.get_value(), p.get_value())
    batch = model.batch(2, 3)
    np.testing.assert_allclose(f(*batch), oracle(*batch), rtol=1e-5)


def test_saved_parameters_move_between_devices(device: Any, tmp_path: Any) -> None:
    from tinygraph_rnn.saving import load, save

    def make(backend: str) -> tuple[Any, Any]:
        model = models.gru(hidden=3)
        return model, model.training(backend=backend)

    (a, f), (b, g) = make(device.backend), make("llvm")
    batch = a.batch(2, 2)
    f(*batch), f(*batch)
    named = [{p.name: p for p in m.params} for m in (a, b)]
    for source, target in (named, named[::-1]):
        save(tmp_path / "params.npz", source)
        load(tmp_path / "params.npz", target)
        for name in source:
            np.testing.assert_array_equal(source[name].get_value(), target[name].get_value())
        g(*batch)
    assert all(type(p.get_value(borrow=True)) is np.ndarray for p in a.params)
    np.testing.assert_allclose(f(*batch), f(*batch), rtol=0.1)


def test_python_that_only_the_device_could_call_runs_on_the_cpu(device: Any) -> None:
    from test_user_ops import Square

    x, w = T.vector("x"), shared(ones(3), "w")
    f = function([x], Square()(x[x > 0]), updates=[(w, w + 1)], backend=device.backend, name="f")
    assert f(np.array([1, -1, 3], FLOAT)).tolist() == [1, 9]
    assert "  runs on the CPU, not on '" in str(f.report()) and "is a Python function" in str(
        f.report())
    function([], [], updates=[(w, w + 1)], backend=device.backend)()
    f(ones(3))
    assert w.get_value().tolist() == [4] * 3


@pytest.mark.parametrize("first", [True, False], ids=["first here", "first there"])
def test_shapes_for_which_the_cpu_has_to_work(device: Any, monkeypatch: pytest.MonkeyPatch,
                                              first: bool) -> None:
    """Of one function some executables may run on the device and others not."""
    kernels = build._kernels

    def refused(program: Any, *rest: Any) -> Any:
        if (len(made) == 0) != first:
            made.append(None)
            raise NeedsHost("it cannot")
        made.append(program)
        return kernels(program, *rest)

    made: list[Any] = []
    monkeypatch.setattr(build, "_kernels", refused)
    w, x = shared(ones(2), "w"), T.scalar("x")
    f = function([x], [w.sum(), Out(w * x, borrow=True)], updates=[(w, w + x)],
                 backend=device.backend)
    for size in (2, 3, 2, 3):
        w.set_value(ones(size))
        for k in range(4):
            total, product = f(1)
            assert total == size * (k + 1)
            assert type(product) is (device.array if first else np.ndarray)
            assert (product.get() if first else product).tolist() == [k + 1] * size
        assert w.get_value().tolist() == [5] * size
    assert f.compiles == 2


# --- the order of things, and where they lie: a GPU alone


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Any:
    with tinygraph.config.change(cache="off", floatX=FLOAT, backend="cuda"):
        yield fake_cupy.running(monkeypatch)


def gpu_home() -> CudaHome:
    from tinygraph.backends.cuda.device import cuda_device

    return cuda_device().home


def test_a_call_waits_only_for_what_it_gives_out(log: Any) -> None:
    w, x, k = shared(ones(3), "w"), T.vector("x"), T.lscalar("k")
    plain = function([x], Out(w * x, borrow=True), updates=[(w, w + x)])
    checked = function([k], [], updates=[(w, w + w[k])])
    both = function([k, x], [w[k], x * 1, Out(x, borrow=True)])
    plain(ones(3)), checked(1)
    log.downloads.clear()
    plain(ones(3))
    assert log.downloads == []
    checked(1)
    assert log.downloads == [(16,)]
    log.downloads.clear()
    both(1, ones(2))
    assert log.downloads == [(16,), (), (2,)]


def test_memory_of_other_libraries_is_used_in_place(log: Any) -> None:
    x = T.matrix("x")
    f = function([x], Out(x + 1, borrow=True))
    tensor = fake_cupy.Tensor(np.zeros((2, 32), FLOAT))  # aligned by NumPy
    log.uploads.clear()
    assert f(tensor).get().tolist() == [[1] * 32] * 2
    assert tensor.streams == [fake_cupy.Stream.ptr]
    assert not log.uploads or tensor.host.ctypes.data % 16
    transposed = fake_cupy.Tensor(np.arange(6, dtype=FLOAT).reshape(2, 3).T)
    assert f(transposed).get().tolist() == [[1, 4], [2, 5], [3, 6]]

    class Interface:
        __cuda_array_interface__ = np.full((1, 4), 5, FLOAT).__array_interface__
        kept = None

    values = np.full((1, 4), 5, FLOAT)
    interface = Interface()
    Interface.__cuda_array_interface__ = values.__array_interface__
    assert f(interface).get().tolist() == [[6] * 4]
    assert shared(interface, "w").get_value().tolist() == [[5] * 4]
    with pytest.raises(TypeError, match=r"fake_cupy.Tensor of a device, .*pass x.cpu\(\)"):
        function([x], x, backend="llvm")(tensor)
    with pytest.raises(TypeError, match="but the function works on GPU 0"):
        f(SHIM.put(ones(1, 2)))


def test_arrays_with_gaps_or_out_of_line_are_copied(log: Any) -> None:
    x = T.vector("x")
    f = function([x], Out(x + 1, borrow=True))
    whole = gpu_home().put(np.arange(40, dtype=FLOAT))
    log.uploads.clear()
    assert f(whole[4:8]).get().tolist() == [5, 6, 7, 8] and not log.uploads
    assert f(whole[1:4]).get().tolist() == [2, 3, 4] and not log.uploads
    assert f(whole[::3]).get().tolist() == [1 + 3 * k for k in range(14)]
    assert f(whole[8:2:-2]).get().tolist() == [9, 7, 5]


def test_what_other_libraries_lend_is_kept_until_it_was_read(log: Any) -> None:
    x = T.vector("x")
    f = function([x], [], updates=[(w := shared(ones(2), "w"), w + x)])
    tensor = fake_cupy.Tensor(ones(2))
    held = gpu_home()._kept
    assert held == []
    fake_cupy.SHARED["busy"] = True
    f(tensor)
    assert len(gpu_home()._kept) == 1
    f(ones(2))
    assert len(gpu_home()._kept) == 1
    fake_cupy.SHARED["busy"] = False
    f(ones(2))
    assert gpu_home()._kept == [] and w.get_value().tolist() == [4, 4]


def test_streams_wait_for_one_another(log: Any) -> None:
    w = shared(ones(2), "w")
    f, g = (function([], [], updates=[(w, w + 1)]) for _ in range(2))
    first, second = fake_cupy.Stream(), fake_cupy.Stream()
    with first:
        f()
        f()
    assert log.waits == []
    with second:
        g()
        f()
    assert log.waits == [(second.ptr, first.ptr)]
    log.waits.clear()
    with first:
        f()
    assert log.waits == [(first.ptr, second.ptr)]
    log.waits.clear()
    assert w.get_value().tolist() == [6, 6]
    default = fake_cupy.Stream.ptr
    assert sorted(log.waits) == sorted([(default, first.ptr), (default, second.ptr)])
    for _ in range(40):
        with fake_cupy.Stream():
            f()
    assert len(gpu_home()._marks) <= 16


def test_threads_have_default_streams_of_their_own(log: Any) -> None:
    f = function([], [], updates=[(w := shared(ones(2), "w"), w + 1)])
    own = fake_cupy.Stream()
    own.ptr = 2

    def work() -> None:
        with fake_cupy.Stream(null=True) as stream:
            stream.ptr = 2
            f()

    with own:
        f()
        f()
    assert log.waits == []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert log.waits == [(2, 2)] and w.get_value().tolist() == [4, 4]


def test_calls_of_one_size_find_the_same_addresses(log: Any) -> None:
    x, k = T.matrix("x"), T.lvector("k")
    w = shared(ones(4, 3), "w")
    f = function([x, k], [x[k].sum(axis=0), T.dot(x, w)], updates=[(w, w + w.sum())])
    a, b = ones(5, 4), np.array([1, 0])
    calls = []
    for _ in range(8):
        log.launches.clear()
        f(a, b)
        calls.append(list(log.launches))
    assert calls[3] == calls[5] == calls[7] and calls[2] == calls[4] == calls[6]
    g = function([x, k], [x[k].sum(axis=0), T.dot(x, x.T)])
    calls = []
    for _ in range(4):
        log.launches.clear()
        g(a, b)
        calls.append(list(log.launches))
    assert calls[1] == calls[2] == calls[3]


def test_memory_goes_back_to_the_pool(log: Any) -> None:
    x, w = T.vector("x"), shared(ones(2), "w")
    f = function([x], x * 2, updates=[(w, w + x)])
    f(ones(2)), f(ones(2))
    gc.collect()
    before = len(fake_cupy.STATE.pool.live)
    for _ in range(5):
        f(ones(2))
    assert len(fake_cupy.STATE.pool.live) == before


def test_another_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.running(monkeypatch, devices=2)
    x, w = T.vector("x"), shared(ones(2), "w")
    with tinygraph.config.change(cache="off", floatX=FLOAT, device="cuda1"):
        f = function([x], Out(x + w, borrow=True), updates=[(w, w + 1)])
    with tinygraph.config.change(cache="off", floatX=FLOAT, device="gpu0"):
        g = function([x], Out(x + w, borrow=True), updates=[(w, w + 1)])
    assert f(ones(2)).device.id == 1 and g(ones(2)).device.id == 0
    assert fake_cupy.STATE.current == 0
    assert f(g(ones(2))).get().tolist() == [8, 8] and w.get_value().tolist() == [5, 5]
    assert home_of(f(ones(2))).name == "GPU 1"
    with tinygraph.config.change(device="cuda2"), pytest.raises(
            UnavailableError, match="there is no GPU 2: CUDA finds 2, and counts from 0"):
        function([x], x)


def test_the_device_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    x, config = T.vector("x"), tinygraph.config
    assert config.backend == "llvm" and config.gpu is None
    fake_cupy.running(monkeypatch)
    for device, number in (("cuda", None), ("gpu", None), ("cuda0", 0), ("gpu0", 0)):
        with config.change(device=device, cache="off"):
            assert config.backend == "cuda" and config.gpu == number
            assert function([x], x)._home.name == "GPU 0"
            for elsewhere in ({"backend": "llvm"}, {"mode": "FAST_COMPILE"}):
                assert function([x], x, **elsewhere)._home is None
            with config.change(backend="llvm"):
                assert function([x], x)._home is None
