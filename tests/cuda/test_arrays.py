"""Where inputs and results of functions that run on a device lie, and what whole programs copy.

Everything is asked of the shim and of a GPU that is not there (``fake_cupy``, whose kernels the
shim runs), so that no logic of arrays is CuPy's alone.
"""

from __future__ import annotations

from typing import Any

import models
import numpy as np
import pytest
from placing import FLOAT, Counted, ones, warm

import tinygraph.tensor as T
from tinygraph import In, Out, function, grad, shared
from tinygraph.backends.runners import NeedsHost
from tinygraph.compile import build
from tinygraph.tensor.shared_randomstreams import RandomStreams

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
