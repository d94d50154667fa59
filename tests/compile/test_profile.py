"""f.profile: the parts of a program with their times, which make up the whole."""

from __future__ import annotations

import inspect
import pickle
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function, grad, scan, shared

HERE = Path(__file__).name


@pytest.fixture(autouse=True)
def settings():
    with config.change(floatX="float32", cache="off"):
        yield


def line_of(text):
    lines = inspect.getsource(sys.modules[__name__]).splitlines()
    (found,) = [k for k, line in enumerate(lines, 1) if text in line and "line_of" not in line]
    return f"{HERE}:{found}"


def train(hidden=32, **options):
    """A training function of a recurrent network, and its arguments."""
    x, h0 = T.tensor3("x"), T.matrix("h0")
    w = shared(np.full((3, hidden), 0.1, "float32"), "w")
    u = shared(np.eye(hidden, dtype="float32") * np.float32(0.1), "u")

    def step(row, h):
        return T.tanh(T.dot(row, w) + T.dot(h, u))

    hs, _ = scan(step, x, h0, name="rnn")
    cost = (hs[-1] ** 2).sum()
    cost.name = "cost"
    updates = [(p, p - 0.1 * g) for p, g in zip([w, u], grad(cost, [w, u]), strict=True)]
    f = function([x, h0], cost, updates=updates, name="train", **options)
    return f, (np.ones((12, 20, 3), "float32"), np.zeros((20, hidden), "float32"))


@pytest.mark.parametrize("backend", ["llvm", "loops"])
@pytest.mark.parametrize("hidden", [8, 32])
def test_the_parts_make_up_the_whole(backend, hidden):
    plain, args = train(hidden, backend=backend)
    f, _ = train(hidden, backend=backend, profile=True)
    small = [args[0][:2, :3], args[1][:3]]
    for _ in range(20 if backend == "llvm" else 3):
        np.testing.assert_array_equal(f(*small), plain(*small))
    profile = f.profile
    assert profile.calls == (20 if backend == "llvm" else 3) and profile.seconds > 0
    parts = profile.top()
    assert 0.3 < sum(e.seconds for e in parts) / profile.seconds <= 1.001
    assert all(e.calls == profile.calls and e.seconds >= 0 for e in parts)
    assert [e.seconds for e in parts] == sorted((e.seconds for e in parts), reverse=True)


@pytest.mark.counts
def test_what_a_scan_consists_of():
    f, args = train(profile=True)
    for _ in range(3):
        f(*args)
    scans = [k for k, e in enumerate(f.profile.entries) if e.kind == "scan"]
    assert len(scans) == 2 and all(f.profile.entries[k].depth == 0 for k in scans)
    inner = f.profile.entries[scans[0] + 1:scans[0] + 3]
    assert {e.kind for e in inner} == {"product", "nest"}
    assert all(e.depth == 1 and e.calls >= 3 * 12 and e.calls % 36 == 0 for e in inner)
    (nest,) = [e for e in inner if e.kind == "nest"]
    assert "tanh" in nest.ops and nest.source.endswith(line_of("return T.tanh"))
    back = f.profile.entries[scans[1] + 1:]
    assert [e for e in back if e.kind == "product" and e.depth == 1
            and e.source.endswith(line_of("return T.tanh"))]  # the gradient's lines are these, too


def test_the_table():
    f, args = train(profile=True)
    f(*args)
    text = f.profile.summary()
    lines = text.splitlines()
    assert lines[0].startswith("train: 1 calls, ") and "us each" in lines[0]
    assert any("scan 'rnn'" in line and HERE in line for line in lines)
    assert any("cost" in line for line in lines) and str(f.profile) == text
    assert len(f.profile.summary(most=2).splitlines()) <= 5


def test_a_nested_scan():
    x = T.matrix("x")
    rows, _ = scan(lambda row: scan(lambda v, s: T.tanh(s + v), row, T.zeros(()))[0][-1], x)
    f = function([x], rows, profile=True)
    for _ in range(4):
        f(np.ones((3, 5), "float32"))
    kinds = [(e.kind, e.depth, e.calls) for e in f.profile.entries]
    assert ("scan", 0, 4) in kinds and ("scan", 1, 12) in kinds
    assert any(kind == "nest" and depth == 2 and calls == 60 for kind, depth, calls in kinds)


def test_without_a_profile_there_is_none():
    f, args = train()
    assert f.profile is None
    assert "clock" not in f.source("loops") and "readcyclecounter" not in f.source("llvm")
    with pytest.raises(ValueError, match="profile=True.*backend 'numpy'"):
        train(backend="numpy", profile=True)


def test_a_call_that_fails_leaves_the_times_right():
    x, k = T.vector("x"), T.lscalar("k")
    f = function([x, k], T.exp(x)[k] + x.sum(), profile=True)
    for _ in range(3):
        f(np.ones(100, "float32"), 1)
    with pytest.raises(IndexError):
        f(np.ones(100, "float32"), 100)
    assert f.profile.calls == 4
    assert all(0 <= e.seconds < 1 for e in f.profile.entries)


def test_threads_and_pickle():
    f, args = train(profile=True)
    threads = [threading.Thread(target=lambda: [f(*args) for _ in range(10)]) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert f.profile.calls == 40 and all(e.calls % 40 == 0 for e in f.profile.entries)
    copy = pickle.loads(pickle.dumps(f))
    copy(*args)
    assert copy.profile.calls == 1 and sys.getsizeof(copy.profile) > 0


def test_a_new_shape_of_a_shared_variable():
    w = shared(np.ones(3, "float32"), "w")
    f = function([], T.exp(w).sum(), profile=True)
    f()
    w.set_value(np.ones(5, "float32"))
    f()
    assert f.profile.calls == 2 and f.compiles == 2
