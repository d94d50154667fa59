"""Large results of the native entrance: their memory is used again, and nobody notices."""

import ctypes
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import Future

import numpy as np
import pytest

import tinygraph.tensor as T
from tinygraph import config, function
from tinygraph.backends.llvm import entry, recycle
from tinygraph.compile import entrance

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


def large_function(n=100_000):
    """A function with two large results of different sizes, and arguments."""
    x, y = T.fvector("x"), T.dvector("y")
    args = np.arange(n, dtype="float32"), np.arange(n, dtype="float64")
    return warm(function([x, y], [x + 1, y * 2]), *args), args


def handler(array):
    core = getattr(np, "_core", None) or np.core
    return core.multiarray.get_handler_name(array)


def place(array):
    return array.__array_interface__["data"][0]


def test_large_results_lie_where_earlier_ones_lay():
    f, args = large_function()
    f(*args)
    places = {tuple(map(place, f(*args))) for _ in range(20)}
    assert len(places) == 1
    results = f(*args)
    for k, r in enumerate(results):
        assert handler(r) == "tinygraph" and place(r) % 64 == 0
        assert r.flags.num == np.empty_like(r).flags.num and r.base is None
        np.testing.assert_array_equal(r, args[k] + 1 if k == 0 else args[k] * 2)
    small = warm(function([x := T.dvector("x")], x + 1), np.ones(10))(np.ones(10))
    assert handler(small) == "default_allocator"


@pytest.mark.parametrize("shape", [(20_000,), (20_000, 1), (1, 20_000), (1, 20_000, 1),
                                   (20, 10, 90), (1, 1, 20_000)])
def test_large_results_are_like_arrays_of_numpy(shape):
    x = T.tensor("float64", (None,) * len(shape), "x")
    a = np.random.RandomState(0).rand(*shape)
    r = warm(function([x], x + 1), a)(a)
    assert handler(r) == "tinygraph"
    made = np.empty(shape)
    assert (r.flags.num, r.strides, r.dtype) == (made.flags.num, made.strides, made.dtype)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(r)), a + 1)


def test_no_memory_is_used_again_while_somebody_sees_it():
    f, args = large_function()
    random = np.random.RandomState(0)
    seen = []
    for k in range(60):
        first, second = f(args[0] + np.float32(k), args[1] + k)
        view = [first[5:], memoryview(second), second.reshape(-1, 2).T, first.view("int32"),
                first][random.randint(5)]
        seen.append((view, np.array(view)))
        del first, second, view
        if len(seen) > 6:
            seen.pop(random.randint(len(seen)))
        arrays = [np.asarray(v) for v, _ in seen]
        for v, copy in seen:
            np.testing.assert_array_equal(np.asarray(v), copy)
        assert not any(np.shares_memory(a, b) for j, a in enumerate(arrays) for b in arrays[:j])


def test_large_results_can_be_resized():
    f, args = large_function()
    others = f(*args)
    want = np.arange(100_000) * 2.0
    for n in (100_001, 99_000, 10, 60_000, 1_000_000, 0, 1, 200_000, 30_000_000, 100):
        result = f(*args)[1]
        result.resize(n, refcheck=False)
        np.testing.assert_array_equal(result[:100_000], want[:n])
        assert not result[100_000:].any() and handler(result) == "tinygraph"
        result[:] = 7
        result.resize(50_000, refcheck=False)
        np.testing.assert_array_equal(result, np.where(np.arange(50_000) < n, 7, 0))
    np.testing.assert_array_equal(others[1], want)
    grown = f(*args)[0]
    for n in range(100_000, 400_000, 20_000):
        grown.resize(n, refcheck=False)
    np.testing.assert_array_equal(grown[:100_000], args[0] + 1)
    assert not grown[100_000:].any()


def test_large_results_take_new_contents_and_shapes():
    f, args = large_function()
    result = f(*args)[1]
    result.__setstate__(pickle.loads(pickle.dumps(np.ones(7))).__reduce__()[2])
    np.testing.assert_array_equal(result, np.ones(7))
    result = f(*args)[1]
    result.shape = 1000, 100
    del result
    np.testing.assert_array_equal(f(*args)[1], args[1] * 2)


def resident():
    """The memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no such file")
def test_no_more_memory_is_kept_than_allowed():
    x = T.dvector("x")
    f = function([x], x + 1)
    for _ in range(3):
        f(np.ones(10))
    before = resident()
    for n in (400_000, 700_000, 1_000_000, 3_000_000, 2_000_000):
        held = {k: f(np.ones(n)) for k in range(8)}
        assert native(f, np.ones(n)) and handler(held[7]) == "tinygraph"
        del held
    # NumPy's memory keeps some too, of the arguments.
    assert recycle.MOST_BYTES / 2 < resident() - before < recycle.MOST_BYTES + 48e6
    beyond = recycle.MOST_BYTES // 8 + 1
    f(np.ones(beyond))
    assert handler(f(np.ones(beyond))) == "default_allocator"


def test_the_pages_of_large_results_are_there():
    resource = pytest.importorskip("resource")
    f, args = large_function(1_000_000)
    f(*args)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        f(*args)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000


def test_tracemalloc_sees_large_results():
    f, args = large_function()
    tracemalloc.start()
    try:
        f(*args)
        before = tracemalloc.get_traced_memory()[0]
        results = f(*args)
        during = tracemalloc.get_traced_memory()[0]
        del results
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 1_200_000 <= during - before < 1_250_000 and abs(after - before) < 50_000


def test_a_handler_that_the_user_chose():
    capsule, default = entry._default_handler()
    own = ctypes.create_string_buffer(ctypes.string_at(default, 168), 168)
    own[:5] = b"mine\0"
    new = ctypes.pythonapi["PyCapsule_New"]
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    address = entry._word(entry._table() + 8 * 304)  # of PyDataMem_SetHandler
    use = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(address)
    f, args = large_function()
    name = recycle.CAPSULE
    before = use(new(ctypes.addressof(own), name, None))
    try:
        results = f(*args)
        assert [handler(r) for r in results] == ["mine", "mine"]
        np.testing.assert_array_equal(results[1], args[1] * 2)
        del results
    finally:
        use(before)
    assert id(before) == capsule and handler(f(*args)[0]) == "tinygraph"


OUTLIVED = """
import numpy as np, os, sys, tinygraph, tinygraph.tensor as T
from tinygraph.compile import entrance
entrance.method(wait=True)
x = T.dvector("x")
f = tinygraph.function([x], [x + 1, x * 2])
a = np.arange(1e5)
for _ in range(4):
    results = f(a)
child = os.fork()
if child == 0:
    ok = all(np.array_equal(f(a + k)[0], a + k + 1) for k in range(5))
    results = f(a)
    os._exit(3 if ok else 4)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
class Late:
    def __init__(self, held): self.held = held
    def __del__(self): self.held.clear()
late = Late(f(a))
late.me = late
sys.kept = [f(a)[0][3:], late]
np.kept = f(a)
del f, x, a
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_large_results_after_a_fork_and_at_the_exit():
    done = subprocess.run([sys.executable, "-c", OUTLIVED], capture_output=True, text=True,
                          timeout=120)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["done"], "")


def test_large_results_in_many_threads():
    f, args = large_function(20_000)
    wrong = []

    def run(k):
        random = np.random.RandomState(k)
        held = []
        for j in range(150):
            first, second = f(args[0] + np.float32(k), args[1] + j)
            held.append((second, j))
            if not np.array_equal(first, args[0] + np.float32(k) + 1):
                wrong.append(k)
            if len(held) > 4:
                array, number = held.pop(random.randint(5))
                if not np.array_equal(array, (args[1] + number) * 2):
                    wrong.append(number)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not wrong and not any(t.is_alive() for t in threads)


@pytest.fixture
def allocator():
    """What the handler of a large result does, as functions."""
    f, args = large_function()
    result = f(*args)[0]
    capsule = ctypes.c_void_p.from_address(id(result) + entry.layout()["array_handler"]).value
    at = entry._pointer(ctypes.cast(capsule, ctypes.py_object), recycle.CAPSULE) + 136
    size, address = ctypes.c_size_t, ctypes.c_void_p
    kinds = [(address, size), (address, size, size), (address, address, size),
             (address, address, size)]
    return [ctypes.PYFUNCTYPE(address, *kind)(entry._word(at + 8 * k))
            for k, kind in enumerate(kinds)]


def test_what_the_handler_does(allocator):
    malloc, calloc, realloc, free = allocator
    one = malloc(None, 1000)
    ctypes.memset(one, 7, 1000)
    assert one % 64 == 0 and realloc(None, one, 1000) == one
    bigger = realloc(None, one, 5000)
    assert ctypes.string_at(bigger, 1000) == b"\7" * 1000
    ctypes.memset(bigger, 8, 5000)
    free(None, bigger, 5000)
    clear = calloc(None, 10, 500)
    assert clear == bigger and ctypes.string_at(clear, 5000) == bytes(5000)
    assert malloc(None, 2**63) is None and calloc(None, 2**40, 2**40) is None
    assert realloc(None, clear, 2**63) is None
    free(None, clear, 5000)
    free(None, None, 0)
    empty = realloc(None, None, 0)
    assert empty
    free(None, empty, 0)


def test_which_blocks_are_kept(allocator):
    malloc, _, _, free = allocator
    most = recycle.MOST_BLOCKS
    sizes = [5000] * 20 + [3000] * (most - 10)
    blocks = [malloc(None, size) for size in sizes]
    assert len(set(blocks)) == len(blocks)
    assert len({b % 4096 for b in blocks[:20]}) == 20
    for b in blocks:
        free(None, b, 1)
    # The oldest ten are gone, and what is too small is passed over.
    assert [malloc(None, 4900) for _ in range(10)] == blocks[10:20][::-1]
    others = [malloc(None, 2950) for _ in range(most - 10)]
    assert others == blocks[20:][::-1]
    for b in others:
        free(None, b, 1)
    wide = [malloc(None, recycle.MOST_BYTES // 2) for _ in range(3)]
    for b in wide:
        free(None, b, 1)
    again = [malloc(None, recycle.MOST_BYTES // 2) for _ in range(2)]
    assert again == wide[:0:-1]
    for b in again:
        free(None, b, 1)


def test_blocks_of_a_heap(monkeypatch):
    source = recycle.source
    monkeypatch.setattr(recycle, "source", lambda: source(pages=False))
    future = Future()
    future.set_result(entry.load(entry.compile_entry()))
    monkeypatch.setattr(entrance, "_begun", lambda process: future)
    f, args = large_function()
    f(*args)
    assert len({tuple(map(place, f(*args))) for _ in range(20)}) == 1
    held = [f(args[0], args[1] + k) for k in range(100)]
    for k, results in enumerate(held):
        assert handler(results[1]) == "tinygraph" and place(results[1]) % 64 == 0
        np.testing.assert_array_equal(results[1], (args[1] + k) * 2)
        results[1].resize(10 + 3000 * k, refcheck=False)
        np.testing.assert_array_equal(results[1][:100_000], (args[1] + k)[:10 + 3000 * k] * 2)
