"""The pool of native threads: every index once, from any thread, nested, forked, at exit."""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import product

import llvmlite.binding as llvm
import numpy as np
import pytest

from tinygraph.backends.llvm import pool_ir, threads

COUNTS, THREADS = (0, 1, 2, 7, 1000), (1, 2, 3, 8)
LIMIT = 120  # seconds after which a deadlock is one
WARNS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the pool is serial here")

TASKS = (
    threads.declaration()
    + """
declare ptr @pthread_self()
declare i32 @sched_yield()

; context: squares, calls, sum
define i64 @square(ptr %context, i64 %i) {
  %squares = load ptr, ptr %context, align 8
  %second = getelementptr ptr, ptr %context, i64 1
  %calls = load ptr, ptr %second, align 8
  %third = getelementptr ptr, ptr %context, i64 2
  %sum = load ptr, ptr %third, align 8
  %place = getelementptr i64, ptr %squares, i64 %i
  %value = mul i64 %i, %i
  store i64 %value, ptr %place, align 8
  %call = getelementptr i64, ptr %calls, i64 %i
  %old = atomicrmw add ptr %call, i64 1 monotonic, align 8
  %so_far = atomicrmw add ptr %sum, i64 %i monotonic, align 8
  ret i64 0
}

; context: a code for each index
define i64 @code(ptr %codes, i64 %i) {
  %place = getelementptr i64, ptr %codes, i64 %i
  %code = load i64, ptr %place, align 8
  ret i64 %code
}

; context: one context of @square for each index
define i64 @nested(ptr %contexts, i64 %i) {
  %place = getelementptr ptr, ptr %contexts, i64 %i
  %context = load ptr, ptr %place, align 8
  %result = call i64 @tinygraph_parallel(ptr @square, ptr %context, i64 50, i64 3)
  ret i64 %result
}

; context: how many are here, how many shall come, patience, then for each index the thread and
; the product of the numbers @tiny and @unit, which is denormal
@tiny = global float 0x37A16C2000000000
@unit = global float 1.0
define i64 @meet(ptr %context, i64 %i) {
entry:
  %second = getelementptr i64, ptr %context, i64 1
  %expected = load i64, ptr %second, align 8
  %third = getelementptr i64, ptr %context, i64 2
  %patience = load i64, ptr %third, align 8
  %twice = mul i64 %i, 2
  %at = add i64 %twice, 3
  %thread_place = getelementptr i64, ptr %context, i64 %at
  %thread = call ptr @pthread_self()
  store ptr %thread, ptr %thread_place, align 8
  %product_place = getelementptr i64, ptr %thread_place, i64 1
  %tiny = load volatile float, ptr @tiny, align 4
  %unit = load volatile float, ptr @unit, align 4
  %product = fmul float %tiny, %unit
  %wide = bitcast float %product to i32
  %bits = zext i32 %wide to i64
  store i64 %bits, ptr %product_place, align 8
  %before = atomicrmw add ptr %context, i64 1 seq_cst, align 8
  br label %look
look:
  %turn = phi i64 [ 0, %entry ], [ %turn1, %wait ]
  %here = load atomic i64, ptr %context seq_cst, align 8
  %all = icmp sge i64 %here, %expected
  br i1 %all, label %leave, label %wait
wait:
  %yielded = call i32 @sched_yield()
  %turn1 = add i64 %turn, 1
  %enough = icmp sge i64 %turn1, %patience
  br i1 %enough, label %leave, label %look
leave:
  ret i64 0
}

define i64 @repeat(ptr %task, ptr %context, i64 %count, i64 %threads, i64 %times) {
entry:
  br label %next
next:
  %turn = phi i64 [ 0, %entry ], [ %turn1, %run ]
  %some = icmp slt i64 %turn, %times
  br i1 %some, label %run, label %leave
run:
  %result = call i64 @tinygraph_parallel(ptr %task, ptr %context, i64 %count, i64 %threads)
  %turn1 = add i64 %turn, 1
  %well = icmp eq i64 %result, 0
  br i1 %well, label %next, label %leave
leave:
  %code = phi i64 [ 0, %next ], [ %result, %run ]
  ret i64 %code
}
"""
)
FLUSH = """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define i64 @flushing(ptr %task, ptr %context, i64 %count, i64 %threads) {
  %old = alloca i32, align 4
  %new = alloca i32, align 4
  call void @llvm.x86.sse.stmxcsr(ptr %old)
  %mode = load volatile i32, ptr %old, align 4
  %flush = or i32 %mode, 32832
  store volatile i32 %flush, ptr %new, align 4
  call void @llvm.x86.sse.ldmxcsr(ptr %new)
  %code = call i64 @tinygraph_parallel(ptr %task, ptr %context, i64 %count, i64 %threads)
  call void @llvm.x86.sse.ldmxcsr(ptr %old)
  ret i64 %code
}
"""


PARALLEL = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)
REPEATED = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3)


class Tasks:
    """The module ``text``, linked with the function at ``address``."""

    def __init__(self, address: int, text: str = TASKS) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(reloc="pic", jit=True)
        self.linker = llvm.create_lljit_compiler(machine)
        builder = llvm.JITLibraryBuilder().add_ir(text).add_current_process()
        builder.import_symbol(threads.SYMBOL, address)
        for name in re.findall(r"define i64 @(\w+)", text):
            builder.export_symbol(name)
        self.tracker = builder.link(self.linker, "tasks")

    def run(self, task: str, context: np.ndarray, count: int, number: int, times: int = 1) -> int:
        """``times`` calls with ``number`` threads, up to the first failure, and the result."""
        function = REPEATED(self.tracker["repeat"])
        return function(self.tracker[task], context.ctypes.data, count, number, times)

    def run_flushing(self, task: str, context: np.ndarray, count: int, number: int) -> int:
        """A call from a thread that flushes denormals."""
        function = PARALLEL(self.tracker["flushing"])
        return function(self.tracker[task], context.ctypes.data, count, number)


@functools.cache
def tasks() -> Tasks:
    return Tasks(threads.address())


class Squares:
    """The context of @square for ``count`` indices."""

    def __init__(self, count: int) -> None:
        self.squares = np.full(count + 1, -1)
        self.calls = np.zeros(count + 1, np.int64)
        self.sum = np.zeros(1, np.int64)
        self.count = count
        arrays = (self.squares, self.calls, self.sum)
        self.context = np.array([x.ctypes.data for x in arrays], dtype=np.uint64)

    def right(self, times: int = 1) -> bool:
        indices = np.arange(self.count)
        return (
            np.array_equal(self.squares[:-1], indices**2)
            and self.squares[-1] == -1
            and bool((self.calls[:-1] == times).all())
            and self.calls[-1] == 0
            and self.sum[0] == times * indices.sum()
        )


def squared(count: int, number: int, times: int = 1) -> bool:
    """True if ``times`` calls over ``count`` indices leave what they should."""
    squares = Squares(count)
    return tasks().run("square", squares.context, count, number, times) == 0 and squares.right(
        times
    )


def met(number: int, run: Callable[..., int] | None = None) -> np.ndarray:
    """The thread and the product of each of ``number`` tasks that wait for one another."""
    context = np.zeros(3 + 2 * number, dtype=np.int64)
    context[1:3] = number, 10_000_000
    assert (run or tasks().run)("meet", context, number, number) == 0
    return context[3:].reshape(number, 2)


@pytest.fixture(autouse=True)
def no_deadlock():
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.parametrize("count,number", list(product(COUNTS, THREADS)))
def test_every_index_once(count, number):
    assert squared(count, number)
    assert squared(count, number, times=100)


@pytest.mark.parametrize("count,number", [(2, 2), (7, 2), (7, 3), (2, 8), (9, 8)])
def test_ten_thousand_calls(count, number):
    assert squared(count, number, times=10_000)


@pytest.mark.parametrize("count,number", [(-1, 2), (5, 0), (5, -3), (300, 1000), (3, 2**62)])
def test_odd_arguments(count, number):
    squares = Squares(max(count, 0))
    assert tasks().run("square", squares.context, count, number) == 0
    assert squares.right()


def test_tasks_run_at_the_same_time():
    for number in (2, 3, 8):
        assert len(set(met(number)[:, 0])) == number


def test_workers_that_sleep_are_woken():
    for pause in (0.0, 0.0001, 0.0003, 0.001, 0.02) * 10:
        time.sleep(pause)
        assert len(set(met(2)[:, 0])) == 2
    time.sleep(0.3)
    assert len(set(met(3)[:, 0])) == 3


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="written for x86")
def test_workers_take_over_the_floating_point_mode():
    flushing = Tasks(threads.address(), TASKS + FLUSH).run_flushing
    for _ in range(3):
        flushed, kept = met(3, flushing), met(3)
        assert len(set(flushed[:, 0])) == len(set(kept[:, 0])) == 3
        assert (flushed[:, 1] == 0).all()
        assert (kept[:, 1] != 0).all()


def test_nested_calls():
    parts = [Squares(50) for _ in range(20)]
    contexts = np.array([p.context.ctypes.data for p in parts], dtype=np.uint64)
    assert tasks().run("nested", contexts, 20, 2, times=200) == 0
    assert all(p.right(200) for p in parts)


@pytest.mark.parametrize("number", THREADS)
def test_the_lowest_failure_is_the_result(number):
    codes = np.zeros(100, dtype=np.int64)
    assert tasks().run("code", codes, 100, number) == 0
    for failing in ([0], [99], [50, 51], [3, 4, 5, 98], list(range(100))):
        codes[:] = 0
        codes[failing] = [-7 - i for i in failing]
        for _ in range(200):
            assert tasks().run("code", codes, 100, number) == -7 - failing[0]
    codes[:] = 0
    assert tasks().run("code", codes, 100, number) == 0


def test_four_python_threads():
    wrong = []

    def work(number: int) -> None:
        for turn in range(200):
            if not squared(3 + turn % 5, number, times=20):
                wrong.append((number, turn))

    started = [threading.Thread(target=work, args=(n,)) for n in (2, 3, 8, 2)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(LIMIT)
    assert not wrong and not any(t.is_alive() for t in started)


def in_child(number: int) -> None:
    """What a forked child does; ends it with 0 if all is well."""
    signal.alarm(LIMIT // 2)
    well = all(squared(count, number, times=50) for count in (2, 7))
    well = well and len(set(met(number)[:, 0])) == number
    os._exit(0 if well else 3)


def fork() -> int:
    """The exit status of a child that calls the pool."""
    child = os.fork()
    if not child:
        try:
            in_child(2)
        finally:
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@WARNS
def test_fork():
    assert squared(7, 3)
    for pause in (0.0, 0.01, 0.0):  # the parent's workers awake and asleep
        time.sleep(pause)
        assert fork() == 0
        assert len(set(met(3)[:, 0])) == 3


@WARNS
def test_fork_of_a_fork():
    assert squared(7, 2)
    child = os.fork()
    if not child:
        try:
            signal.alarm(LIMIT // 2)
            assert squared(7, 2)
            assert fork() == 0
            os._exit(0)
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@WARNS
def test_fork_while_another_thread_is_in_a_call():
    done, results = threading.Event(), []

    def work() -> None:
        while not done.is_set():
            results.append(squared(7, 3, times=2000))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        statuses = [fork() for _ in range(20)]
    finally:
        done.set()
        thread.join(LIMIT)
    assert statuses == [0] * 20
    assert results and all(results)


@WARNS
def test_multiprocessing():
    assert squared(7, 2)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=in_child, args=(2,)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(LIMIT)
    assert [child.exitcode for child in children] == [0, 0, 0]


SCRIPTS = {
    "workers spin": "assert squared(7, 3, times=100)",
    "workers sleep": "assert squared(7, 3); time.sleep(0.1)",
    "threads are in calls": (
        "squares = Squares(7)\n"
        "work = lambda: tasks().run('square', squares.context, 7, 2, 1 << 40)\n"
        "for _ in range(3): threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.2)"
    ),
    "it is being compiled": "threads.prepare()",
    "it is compiled twice": "threads.prepare(); assert squared(7, 2)",
    "fork while it is being compiled": (
        "threads.prepare(); assert fork() == 0; assert squared(7, 2)"
    ),
    "it is loaded": (
        "threads.address(CODE)\n"
        "assert squared(7, 2, 100) and len(set(met(2)[:, 0])) == 2\n"
        "assert threads.object_code() == CODE"
    ),
}


@pytest.mark.parametrize("case", SCRIPTS)
def test_processes_end_well(case):
    folder = os.path.dirname(os.path.abspath(__file__))
    lines = ["from test_threads_pool import *"]
    if "CODE" in SCRIPTS[case]:
        lines.append(f"CODE = {threads.object_code()!r}")
    lines.append(SCRIPTS[case])
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", "\n".join(lines)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([folder, *sys.path])},
        timeout=LIMIT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_without_threads(monkeypatch):
    monkeypatch.setattr(threads, "_pthreads", dict)
    pool = threads._link(None)
    assert pool.reset is None
    serial = Tasks(pool.address)
    for count, number in product(COUNTS, THREADS):
        squares = Squares(count)
        assert serial.run("square", squares.context, count, number) == 0
        assert squares.right()
    codes = np.arange(5, dtype=np.int64)
    assert serial.run("code", codes, 5, 2) == 1


@pytest.mark.parametrize("arch", ["x86", "aarch64", "other"])
def test_every_platform_has_a_valid_module(arch):
    text = pool_ir.pool(arch, 1, 2, {"SIGSEGV": 11})
    module = llvm.parse_assembly(text, llvm.create_context())
    module.verify()
    assert {f.name for f in module.functions} >= {threads.SYMBOL, pool_ir.RESET}
