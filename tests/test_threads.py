"""One function may be called by several threads at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import models
import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, shared

THREADS = 8


@pytest.fixture(autouse=True)
def no_cache():
    with tinygraph.config.change(cache="off"):
        yield


def together(work):
    """work(k) in 8 threads that start at the same moment; their results in order."""
    barrier = threading.Barrier(THREADS)

    def run(k):
        barrier.wait(timeout=30)
        return work(k)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


@pytest.mark.parametrize("backend", ["llvm", "numpy"])
def test_one_function_with_other_sizes_in_every_thread(backend):
    model = models.lstm(mask=True, peepholes=True, hidden=4)
    f = model.gradients(backend=backend)
    cases = [[model.batch(1 + (3 * k + j) % 7, (k + j) % 9, seed=10 * k + j) for j in range(6)]
             for k in range(THREADS)]
    alone = [[f(*arrays) for arrays in case] for case in cases]
    got = together(lambda k: [[f(*arrays) for arrays in cases[k]] for _ in range(3)])
    for rounds, want in zip(got, alone, strict=True):
        for results in rounds:
            for a, b in zip(results, want, strict=True):
                for p, q in zip(a, b, strict=True):
                    np.testing.assert_array_equal(p, q)


def test_updates_by_many_threads_are_all_counted():
    count, total = shared(np.int64(0), "count"), shared(np.zeros(3), "total")
    x = T.dvector("x")
    f = function([x], count, updates=[(count, count + 1), (total, total + x)], backend="llvm")

    def work(k):
        return [int(f(np.full(3, k))) for _ in range(50)]

    seen = sorted(sum(together(work), []))
    assert seen == list(range(50 * THREADS))
    assert count.get_value() == 50 * THREADS
    np.testing.assert_array_equal(total.get_value(), 50 * sum(range(THREADS)))


def test_compiling_in_many_threads():
    def work(k):
        with tinygraph.config.change(cache="off", floatX="float64"):
            x = T.vector("x")
            h, _ = tinygraph.scan(lambda row, h: T.tanh(row + (k + 1) * h), x, x[0] * 0)
            return function([x], [h, tinygraph.grad(h.sum(), x)], backend="llvm")(np.arange(4.0))

    for k, (h, g) in enumerate(together(work)):
        state, want = 0.0, []
        for row in range(4):
            state = np.tanh(row + (k + 1) * state)
            want.append(state)
        np.testing.assert_allclose(h, want, rtol=1e-12)
        assert g.shape == (4,)


def test_a_failure_in_one_thread_is_its_own():
    x, k = T.dvector("x"), T.lvector("k")
    f = function([x, k], x[k] * 2, backend="llvm")

    def work(thread):
        out = []
        for _ in range(20):
            if thread % 2:
                with pytest.raises(IndexError, match=f"index {thread + 10} "):
                    f(np.arange(5.0), np.array([0, thread + 10]))
                out.append(None)
            else:
                out.append(f(np.arange(5.0) * thread, np.array([4, 1])))
        return out

    for thread, results in enumerate(together(work)):
        for r in results:
            if r is not None:
                np.testing.assert_array_equal(r, [8.0 * thread, 2.0 * thread])
