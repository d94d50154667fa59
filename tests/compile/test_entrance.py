"""The native way into a function: it takes what it should, and does what the slow way does."""

import gc
import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import config, function, shared
from tinygraph.backends.llvm import entry
from tinygraph.compile import entrance
from tinygraph.compile.convert import Converter
from tinygraph.compile.variables import GATE
from tinygraph.errors import ShapeError

pytestmark = pytest.mark.skipif(entry.layout() is None, reason="no native entrance here")


@pytest.fixture(autouse=True)
def settings():
    entrance.method(wait=True)
    with config.change(backend="llvm", floatX="float64"):
        yield


def warm(f, *args):
    """``f`` after so many calls that the next one like this is native."""
    for _ in range(4):
        f(*args)
    assert native(f, *args)
    return f


def native(f, *args):
    """Would the entrance take this call?  (It makes the call if so.)"""
    return f._enter(*args) is not None


# --- arguments


def test_what_is_native():
    x = T.dmatrix("x")
    a = np.arange(24.0).reshape(4, 6)
    f = warm(function([x], x + 1), a)
    frozen = a.copy()
    frozen.flags.writeable = False
    for taken in (a, a + 1, frozen, a.reshape(6, 4).reshape(4, 6)):
        assert native(f, taken)
        np.testing.assert_array_equal(f(taken), taken + 1)
    raw = np.zeros(a.nbytes + 1, "uint8")[1:].view("float64").reshape(4, 6)
    for refused in (a.T, a[:, ::-1], np.asfortranarray(a), a.astype("float32"), a[:2], a[0], raw,
                    a.astype(a.dtype.newbyteorder()), a.view(np.matrix), a.tolist(), None, 3.0):
        assert not native(f, refused)
    for converted in (a.T, a[:, ::-1], np.asfortranarray(a), a.astype("float32"), raw,
                      a.astype(a.dtype.newbyteorder()), a.view(np.matrix), a.tolist()):
        np.testing.assert_array_equal(f(converted), np.asarray(converted) + 1)


def test_wrong_calls_say_what_is_wrong():
    x, y = T.dvectors("x", "y")
    a = np.ones(3)
    f = warm(function([x, y], x + y, name="add"), a, a)
    for args in ((), (a,), (a, a, a), (a, a, 2)):
        assert not native(f, *args)
        with pytest.raises(TypeError, match="^add: "):
            f(*args)
    with pytest.raises(TypeError, match="axes"):
        f(a, a.reshape(1, 3))
    with pytest.raises(ShapeError):
        f(a, np.ones(4))
    with pytest.raises(TypeError, match="complex"):
        f(a, a * 1j)
    np.testing.assert_array_equal(f(y=a, x=a * 2), 3)


NUMBERS = [
    0, 1, -1, 3.5, 0.1, -0.0, float("nan"), float("inf"), 1e300, True, 2**24, 2**24 + 1, -2**24,
    2**31 - 1, 2**31, -2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -2**63, 10**30, np.float32(0.1),
    np.float64(0.1), np.int32(5), np.int64(-5), np.bool_(True), np.uint8(200), np.array(2.0),
    np.array(0.1, "float32"), np.array(7), None, "1", [1.0]]


@pytest.mark.parametrize("allow", [None, True, False])
@pytest.mark.parametrize("kind", ["float32", "float64", "int64", "int32", "int8", "bool", "uint8"])
@pytest.mark.parametrize("floatX", ["float32", "float64"])
def test_numbers(kind, allow, floatX):
    with config.change(floatX=floatX):
        x = T.scalar("x", dtype=kind)
        f = warm(function([x], [x, x], allow_input_downcast=allow), np.ones((), kind))
    convert = Converter(x, x.type, False, allow, floatX)
    for number in NUMBERS:
        try:
            want = convert(number)
        except TypeError as error:
            with pytest.raises(TypeError) as caught:
                f(number)
            assert str(caught.value) == str(error)
            assert not native(f, number)
        else:
            got = f(number)[0]
            assert got.dtype == want.dtype and got.shape == ()
            assert got.tobytes() == want.tobytes(), number
    if kind in ("float64", "int64"):
        assert native(f, 3) and native(f, np.dtype(kind).type(3))


def test_strict_takes_no_numbers():
    x = T.dscalar("x")
    f = warm(function([tinygraph.In(x, strict=True)], x * 2), np.array(1.0))
    for number in (1.0, 1, np.float64(1)):
        assert not native(f, number)
        with pytest.raises(TypeError, match="strict"):
            f(number)


# --- plans


def test_shapes_come_again():
    x = T.dmatrix("x")
    f = function([x], [x * 2, x.sum(axis=0)])
    arrays = [np.random.RandomState(k).rand(1 + k % 5, k % 7) for k in range(40)]
    for _ in range(3):
        for a in arrays:
            twice, total = f(a)
            np.testing.assert_array_equal(twice, a * 2)
            np.testing.assert_allclose(total, a.sum(axis=0))
    assert all(native(f, a) for a in arrays)
    assert f.compiles == 1


def test_more_plans_than_are_kept(monkeypatch):
    monkeypatch.setattr(entrance, "_MOST_PLANS", 5)
    x = T.dvector("x")
    f = warm(function([x], x + 1), np.ones(3))
    for n in [*range(12), *range(12)]:
        np.testing.assert_array_equal(f(np.ones(n)), np.full(n, 2.0))
    assert len(f._entrance._plans) <= 5


def test_sizes_from_values():
    n, w = T.lscalar("n"), shared(np.int64(2), "w")
    f = function([n], [T.arange(n), T.arange(w * 2)])
    for count in [3, 5, 3, 0, 5, 5, 7, 3, 3]:
        got, other = f(count)
        np.testing.assert_array_equal(got, np.arange(count))
        np.testing.assert_array_equal(other, np.arange(2 * w.get_value()))
        if count == 7:
            w.set_value(np.int64(4))
    assert native(f, 3) and native(f, np.array(3)) and not native(f, 1000)


def test_threads_change_the_plan_but_not_the_code():
    x, h = T.dtensor3("x"), T.dmatrix("h")
    W = shared(np.eye(64), "W")
    y, _ = tinygraph.scan(lambda row, state: T.tanh(T.dot(state, W) + row), x, h)
    f = function([x, h], y[-1])
    arrays = np.random.RandomState(0).rand(20, 96, 64), np.zeros((96, 64))
    results = []
    for threads in [1, 2, 3, 1, 2, 3, 1, 2, 3, 3, 2, 1]:
        with config.change(threads=threads):
            results.append(f(*arrays))
    for r in results:
        np.testing.assert_array_equal(r, results[0])
    assert f.compiles == 1
    before = config.threads
    try:
        for threads in (1, 2, 3):
            config.threads = threads
            assert native(f, *arrays)
    finally:
        config.threads = before


def test_forms():
    x = T.dscalar("x")
    assert warm(function([x], x + 1), 1.0)(1) == 2
    assert warm(function([x], [x + 1]), 1.0)(1) == [2]
    assert warm(function([x], {"a": x, "b": x + 1}), 1.0)(1) == {"a": 1, "b": 2}
    w = shared(np.zeros(2))
    assert warm(function([x], updates=[(w, w + x)]), 1.0)(1) == []
    one = warm(function([x], x + 1), 1.0)(1.0)
    assert type(one) is np.ndarray and one.shape == ()


def test_results_are_new():
    x = T.dvector("x")
    a = np.zeros(1000)
    f = warm(function([x], [x, x + 1, x]), a)
    results = [f(a) for _ in range(3)]
    every = [r for rs in results for r in rs] + [a]
    for k, r in enumerate(every):
        assert r.flags.owndata and r.flags.writeable
        assert not any(np.shares_memory(r, other) for other in every[:k])


def test_no_references_are_lost_or_kept():
    x, s, w = T.dmatrix("x"), T.dscalar("s"), shared(np.zeros((3, 2)), "w")
    v = shared(np.ones(2), "v")
    a, number = np.ones((3, 2)), 0.37
    f = warm(function([x, s], [(w + x * s).sum(), x * v], updates=[(w, w + x)]), a, number)
    g = warm(function([x], {"k": x + w}), a)
    held = [a, number, a.dtype, None, np.ndarray, float, v.storage.array]

    def counts():
        gc.collect()
        now = [w.storage.array, w.storage.spare]
        return [sys.getrefcount(o) for o in held + now]

    before = counts()
    for _ in range(1000):
        f(a, number)
        g(a)
        assert not native(f, a)
        assert not native(f, a.T, number)
    after = counts()
    assert all(abs(p - q) < 20 for p, q in zip(before, after, strict=True)), (before, after)
    assert before[7:] == after[7:] and before[0] == after[0]


# --- shared variables


def test_a_failing_call_stores_nothing_and_says_why():
    w, k = shared(np.arange(5.0), "w"), T.lscalar("k")
    f = warm(function([k], w[k], updates=[(w, w + 1)]), 0)
    before = w.get_value()
    for _ in range(3):
        with pytest.raises(IndexError, match="index 9 "):
            f(9)
        np.testing.assert_array_equal(w.get_value(), before)
    assert f(2) == before[2]
    np.testing.assert_array_equal(w.get_value(), before + 1)
    assert not any(s.words[s.BUSY] for s in f._written) and GATE.words[GATE.RUNNING] == 0


def test_borrowed_arrays_are_never_written():
    mine = np.zeros(3)
    w = shared(np.ones(3), "w")
    f = warm(function([], w * 1, updates=[(w, w + 1)]))
    w.set_value(mine, borrow=True)
    for k in range(5):
        assert native(f)
        np.testing.assert_array_equal(mine, 0)
        lent = w.get_value(borrow=True)
        np.testing.assert_array_equal(lent, k + 1)
    np.testing.assert_array_equal(lent, 5)
    for _ in range(5):
        f()
    np.testing.assert_array_equal(lent, 5)
    first, spare = w.storage.array, w.storage.spare
    f()
    assert w.storage.array is spare and w.storage.spare is first


def test_values_set_between_calls():
    w, v = shared(np.zeros(3), "w"), shared(np.zeros(3), "v")
    f = warm(function([], w.sum(), updates=[(w, w + v), (v, w * 1)]))
    g = warm(function([], updates=[(v, v + 10)]))
    w.set_value(np.ones(3))
    v.set_value(np.full(3, 2.0))
    assert f() == 3
    np.testing.assert_array_equal(w.get_value(), 3)
    np.testing.assert_array_equal(v.get_value(), 1)
    g()
    np.testing.assert_array_equal(v.get_value(), 11)
    assert f() == 9
    np.testing.assert_array_equal(w.get_value(), 14)
    for n in (5, 2, 5, 7, 8, 9, 10, 9, 8):
        w.set_value(np.ones(n))
        v.set_value(np.ones(n))
        assert f() == n and w.get_value().shape == (n,) and f() == 2 * n
    w.set_value(np.ones(4))
    with pytest.raises(ShapeError):
        f()


def test_an_update_may_change_the_shape():
    w, x = shared(np.zeros(2), "w"), T.dvector("x")
    f = warm(function([x], w.shape[0], updates=[(w, T.concatenate([w, x]))]), np.zeros(0))
    sizes = [int(f(np.ones(k % 3))) for k in range(12)]
    assert sizes == [2, 2, 3, 5, 5, 6, 8, 8, 9, 11, 11, 12]
    g = warm(function([x], w, updates=[(w, x)]), np.ones(4))
    for n in (4, 6, 4, 6, 6, 4, 4):
        f_before = w.get_value()
        np.testing.assert_array_equal(g(np.full(n, n)), f_before)
        np.testing.assert_array_equal(w.get_value(), np.full(n, n))


def test_a_lent_array_that_changes_its_shape():
    w = shared(np.arange(6.0), "w")
    f = warm(function([], w * 2))
    w.get_value(borrow=True).shape = (2, 3)
    assert not native(f)
    w.get_value(borrow=True).shape = (6,)
    assert native(f)
    np.testing.assert_array_equal(f(), 2 * np.arange(6.0))


def test_a_closed_gate_is_waited_for():
    w = shared(np.zeros(3), "w")
    f = warm(function([], w.sum(), updates=[(w, w + 1)]))
    before = w.get_value()
    with GATE.closed():
        assert not native(f)
        thread = threading.Thread(target=f)
        thread.start()
        time.sleep(0.05)
        np.testing.assert_array_equal(w.storage.array, before)
    thread.join(30)
    np.testing.assert_array_equal(w.get_value(), before + 1)


def test_who_waits_for_a_running_call_is_woken():
    w, n = shared(np.zeros(50_000), "w"), T.lscalar("n")
    last, _ = tinygraph.scan(lambda s: T.tanh(s + 1), outputs_info=w, n_steps=n)
    f = warm(function([n], updates=[(w, last[-1])]), 2)
    w.set_value(np.zeros(50_000))
    f(400), f(400)
    assert native(f, 400)
    caller = threading.Thread(target=lambda: [f(400) for _ in range(10)])
    caller.start()
    for k in range(10):
        w.set_value(np.full(50_000, float(k)))
    caller.join(60)
    assert not caller.is_alive() and GATE.words[GATE.WAITING] == GATE.words[GATE.RUNNING] == 0


def test_readers_and_writers_in_threads():
    many = [shared(np.zeros(50), f"w{k}") for k in range(20)]
    x = T.dscalar("x")
    step = warm(function([x], many[0].sum(), updates=[(w, w + x) for w in many]), 0)
    half = warm(function([x], updates=[(w, w - x) for w in many[5:15]]), 0)
    read = warm(function([], many))
    torn, done = [], threading.Event()

    def look():
        while not done.is_set():
            values = read()
            outer = {float(a[j]) for a in values[:5] + values[15:] for j in (0, 49)}
            inner = {float(a[j]) for a in values[5:15] for j in (0, 49)}
            if len(outer) > 1 or len(inner) > 1:
                torn.append(values)
            if len({float(w.get_value()[0]) for w in many[:1]}) != 1:
                torn.append(None)

    def run(f):
        for _ in range(500):
            f(1)

    readers = [threading.Thread(target=look) for _ in range(2)]
    writers = [threading.Thread(target=run, args=(f,)) for f in (step, half, step, half)]
    for t in readers + writers:
        t.start()
    for t in writers:
        t.join(120)
    done.set()
    for t in readers:
        t.join(30)
    assert not torn
    for k, w in enumerate(many):
        np.testing.assert_array_equal(w.get_value(), 0 if 5 <= k < 15 else 1000)


def test_one_function_in_many_threads_has_a_workspace_for_each():
    x = T.dmatrix("x")
    f = function([x], T.dot(T.tanh(T.dot(x, x)), x).sum(axis=0))
    arrays = [np.random.RandomState(k).rand(40 + k, 40 + k) for k in range(4)]
    want = [[f(a) for a in arrays] for _ in range(3)][-1]
    wrong = []

    def run():
        for _ in range(50):
            for a, expected in zip(arrays, want, strict=True):
                if not np.array_equal(f(a), expected):
                    wrong.append(a)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not wrong


# --- where it comes from


def test_without_an_entrance(monkeypatch):
    monkeypatch.setattr(entry, "layout", lambda: None)
    w, x = shared(np.zeros(3)), T.dvector("x")
    f = function([x], w.sum(), updates=[(w, w + x)])
    assert [float(f(np.ones(3))) for _ in range(6)] == [0, 3, 6, 9, 12, 15]
    assert f._enter(np.ones(3)) is None


def test_an_entrance_that_cannot_be_loaded(monkeypatch):
    def fail(data):
        raise RuntimeError("no memory may be executed")

    monkeypatch.setattr(entry, "load", fail)
    monkeypatch.setattr(entrance, "_begun", entrance._begun.__wrapped__)
    x = T.dvector("x")
    f = function([x], x + 1)
    with pytest.warns(RuntimeWarning, match="no memory may be executed"):
        assert entrance.method(wait=True) is None
        for _ in range(4):
            np.testing.assert_array_equal(f(np.ones(3)), 2)
            entrance.method(wait=True)
    assert not native(f, np.ones(3))


def test_the_entrance_is_kept_on_disk(tmp_path):
    program = ("from tinygraph.compile import entrance; from tinygraph.backends.llvm import entry\n"
               "made = entry.compile_entry\n"
               "entry.compile_entry = lambda: (print('compiled'), made())[1]\n"
               "print(entrance.method(wait=True) is not None)")
    environment = {**os.environ, "TINYGRAPH_CACHE_DIR": str(tmp_path), "TINYGRAPH_CACHE": "on"}
    said = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                           timeout=120, env=environment).stdout.split() for _ in range(2)]
    assert said == [["compiled", "True"], ["True"]]


@pytest.mark.parametrize("kwargs", [{"backend": "numpy"}, {"backend": "loops"}, {"check": True}])
def test_functions_that_have_none(kwargs):
    x = T.dvector("x")
    f = function([x], x + 1, **kwargs)
    for _ in range(5):
        np.testing.assert_array_equal(f(np.ones(3)), 2)
    assert not native(f, np.ones(3))


def test_a_foreign_layout_is_noticed():
    at = entry.layout()
    fields = ("array_data", "array_axes", "array_shape", "array_dtype", "array_flags")
    assert all(entry._lies(a, at) for a in entry._probes())
    for field in fields:
        other = {**at, field: at["array_axes" if field != "array_axes" else "array_flags"]}
        assert not all(entry._lies(a, other) for a in entry._probes()), field
    assert not entry._lists_lie({**at, "list_size": at["object_type"]})
    assert not entry._scalars_lie({**at, "scalar_value": at["object_type"]})


def test_a_pickled_function():
    w = shared(np.zeros(3), "w")
    f = warm(function([], w.sum(), updates=[(w, w + 1)]))
    g = pickle.loads(pickle.dumps(f))
    before = w.get_value()
    assert float(f()) == float(g()) == before.sum()
    warm(g)
    np.testing.assert_array_equal(w.get_value(), before + 1)


FORKS = """
import os, threading, time
import numpy as np, tinygraph, tinygraph.tensor as T
from tinygraph.compile import entrance
entrance.method(wait=True)
w, n = tinygraph.shared(np.zeros(20000)), T.lscalar("n")
last, _ = tinygraph.scan(lambda s: T.tanh(s + 1), outputs_info=w, n_steps=n)
f = tinygraph.function([n], updates=[(w, last[-1])])
for _ in range(4):
    f(2)
running = threading.Thread(target=f, args=(20000,), daemon=True)
running.start()
time.sleep(0.2)
child = os.fork()
if child == 0:
    for _ in range(3):
        f(2)
    w.set_value(np.ones(5))
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), running.is_alive())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_while_a_call_is_running_and_an_exit_too():
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["7", "True"]
