"""The order of things on a GPU and where they lie there: streams, the pool, other libraries."""

from __future__ import annotations

import gc
import threading
from typing import Any

import fake_cupy
import fake_gpu
import numpy as np
import pytest
from placing import FLOAT, gpu_home, ones

import tinygraph
import tinygraph.tensor as T
from tinygraph import Out, function, shared
from tinygraph.backends.cuda.host import RECORD_NUMBERS
from tinygraph.backends.cuda.shim_array import SHIM
from tinygraph.backends.homes import home_of
from tinygraph.errors import UnavailableError


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
    assert log.downloads == [(RECORD_NUMBERS,)]
    log.downloads.clear()
    both(1, ones(2))
    assert log.downloads == [(RECORD_NUMBERS,), (), (2,)]


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
        values = np.full((1, 4), 5, FLOAT)
        __cuda_array_interface__ = values.__array_interface__

    interface = Interface()
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
    fake_gpu.install(monkeypatch, devices=2)
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
    fake_gpu.install(monkeypatch)
    for device, number in (("cuda", None), ("gpu", None), ("cuda0", 0), ("gpu0", 0)):
        with config.change(device=device, cache="off"):
            assert config.backend == "cuda" and config.gpu == number
            assert function([x], x)._home.name == "GPU 0"
            for elsewhere in ({"backend": "llvm"}, {"mode": "FAST_COMPILE"}):
                assert function([x], x, **elsewhere)._home is None
            with config.change(backend="llvm"):
                assert function([x], x)._home is None
