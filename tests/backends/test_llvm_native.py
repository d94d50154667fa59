"""Products by every path, and native functions: saved, loaded elsewhere, called from threads."""

from __future__ import annotations

import ctypes
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product

import llvmlite.binding as llvm
import numpy as np
import pytest

from tinygraph.backends.llvm import jit
from tinygraph.backends.llvm.emit import VECTORISE
from tinygraph.dtypes import float32, float64, int64
from tinygraph.loops.language import (
    Binary,
    Block,
    Buffer,
    Cast,
    Const,
    DimOf,
    For,
    Gemm,
    Load,
    Matrix,
    Program,
    Store,
    Var,
)

FLOATS = (float32, float64)
N, M = DimOf("N"), DimOf("M")
IX, JX = Var("i", int64), Var("j", int64)
ZERO = Const(0, int64)
OWN = jit.host()
SIZES = tuple(["m", "n", "k", "ao", "ars", "acs", "bo", "brs", "bcs", "co", "crs", "ccs"])
LAYOUTS = {
    "rows": lambda r, c: (c + 2, 1),
    "columns": lambda r, c: (1, r + 1),
    "spread": lambda r, c: (3 * c + 1, 3),
    "backward": lambda r, c: (-c, -1),
    "one row": lambda r, c: (0, 1),
    "one element": lambda r, c: (0, 0),
}


def buffer(name, dtype):
    return Buffer(name, dtype, N, "arg")


def call(native, sizes, arrays):
    numbers = np.array(sizes, dtype=np.int64)
    places = np.array([a.ctypes.data for a in arrays], dtype=np.uint64)
    fault, arena = np.zeros(8, np.int64), np.zeros(64, np.uint8)
    return native(numbers.ctypes.data, places.ctypes.data, arena.ctypes.data, fault.ctypes.data)


def product_program(dtype, accumulate):
    a, b, c = (buffer(x, dtype) for x in "abc")
    d = {name: DimOf(name) for name in SIZES}
    left, right, out = (
        Matrix(x, d[f"{x.name}o"], d[f"{x.name}rs"], d[f"{x.name}cs"]) for x in (a, b, c)
    )
    body = Gemm(d["m"], d["n"], d["k"], left, right, out, accumulate)
    return Program("product", SIZES, (a, b, c), (), ZERO, Block((body,)))


class Strided:
    """A matrix in a sea of nan: what is read outside spoils a sum, what is written shows."""

    def __init__(self, rows, cols, layout, dtype):
        self.steps = LAYOUTS[layout](rows, cols)
        corners = [
            i * self.steps[0] + j * self.steps[1] for i in (0, rows - 1) for j in (0, cols - 1)
        ]
        low, high = (min(corners), max(corners)) if rows and cols else (0, 0)
        self.offset = 50 - low
        self.base = np.full(self.offset + high + 51, np.nan, dtype.np)
        self.shape = (rows, cols)

    def view(self, base):
        strides = tuple(s * base.itemsize for s in self.steps)
        return np.lib.stride_tricks.as_strided(base[self.offset :], self.shape, strides)

    def fill(self, rng):
        view = self.view(self.base)
        view[...] = rng.standard_normal(self.shape)
        return view

    @property
    def numbers(self):
        return [self.offset, *self.steps]


def check_product(native, shape, layouts, dtype, accumulate, rng):
    m, n, k = shape
    a, b, c = (
        Strided(r, q, layout, dtype)
        for (r, q), layout in zip(((m, k), (k, n), (m, n)), layouts, strict=True)
    )
    left, right = a.fill(rng), b.fill(rng)
    if accumulate:
        c.fill(rng)
    want = c.base.copy()
    old = c.view(c.base).astype("d") if accumulate else 0
    c.view(want)[...] = left.astype("d") @ right.astype("d") + old
    assert (
        call(native, [m, n, k, *a.numbers, *b.numbers, *c.numbers], [a.base, b.base, c.base]) == 0
    )
    tolerance = (1e-6 if dtype is float32 else 1e-14) * (k + 8)
    np.testing.assert_allclose(
        c.base, want, rtol=tolerance, atol=tolerance, err_msg=f"{shape} {layouts}"
    )


TARGETS = {
    "as it comes": jit.host(),
    "own": OWN,
    "4 floats": replace(OWN, vector_bytes=16, registers=16),
    "16 floats": replace(OWN, vector_bytes=64, registers=32, mask_registers=True),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype, accumulate", list(product(FLOATS, (False, True))))
def test_products_of_small_sizes_and_all_strides(dtype, accumulate, target):
    code = jit.compile_program(product_program(dtype, accumulate), target=TARGETS[target])
    native, rng = jit.load(code), np.random.default_rng(0)
    readable, writable = list(LAYOUTS), list(LAYOUTS)[:4]
    for shape in rng.integers(0, 21, (800, 3)).tolist():
        layouts = (rng.choice(readable), rng.choice(readable), rng.choice(writable))
        check_product(native, shape, layouts, dtype, accumulate, rng)
    for shape in product((0, 1, 6), (0, 1, 17), (0, 1, 20)):
        check_product(native, shape, ("rows",) * 3, dtype, accumulate, rng)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype, accumulate", list(product(FLOATS, (False, True))))
def test_products_over_more_than_one_block(dtype, accumulate, target):
    code = jit.compile_program(product_program(dtype, accumulate), target=TARGETS[target])
    native, rng = jit.load(code), np.random.default_rng(0)
    shapes = [(50, 33, 300), (1, 150, 270), (3, 200, 40), (250, 70, 20), (500, 40, 17)]
    for shape, a, b in product(shapes, list(LAYOUTS)[:3], list(LAYOUTS)[:3]):
        for c in list(LAYOUTS)[:3]:
            check_product(native, shape, (a, b, c), dtype, accumulate, rng)


@pytest.mark.parametrize("dtype, accumulate", list(product(FLOATS, (False, True))))
def test_large_products(dtype, accumulate):
    code = jit.compile_program(product_program(dtype, accumulate))
    assert not code.pool
    native, rng = jit.load(code), np.random.default_rng(0)
    for a, b, c in product(("rows", "columns"), ("rows", "columns", "spread"), ("rows", "columns")):
        check_product(native, (330, 331, 332), (a, b, c), dtype, accumulate, rng)


# -- native functions ----------------------------------------------------------------------------


def doubled(mode="vector", factor=2.0):
    x, o = buffer("x", float32), buffer("o", float32)
    value = Binary("mul", Load(x, IX), Const(factor, float32))
    body = For(IX, N, Block((Store(o, IX, value),)), mode)
    return Program("doubled", ("N",), (x, o), (), ZERO, Block((body,)))


def test_vector_instructions_for_a_fused_nest_and_a_sum():
    a, b, c, o, s = (buffer(x, float32) for x in "abcos")
    index = Binary("add", Binary("mul", IX, N), JX)
    value = Binary("add", Binary("mul", Load(a, index), Load(b, JX)), Load(c, IX))
    value = Binary("max", value, Const(0, float32))
    nest = For(IX, M, Block((For(JX, N, Block((Store(o, index, value),)), "vector"),)))
    total = For(IX, N, Block((Store(s, ZERO, Load(a, IX), "add"),)), "vector")
    lanes = jit.host().vector_bytes // 4
    for body in (nest, total):
        prog = Program("f", ("N", "M"), (a, b, c, o, s), (), ZERO, Block((body,)))
        text = jit.optimised_ir(prog)
        assert f"load <{lanes} x float>" in text
        assert f"fadd reassoc nsz contract <{lanes} x float>" in text or body is nest
        assert f"store <{lanes} x float>" in text or body is total
    prog = Program("f", ("N", "M"), (a, b, c, o, s), (), ZERO, Block((nest,)))
    if jit.host().arch == "x86" and jit.host().vector_bytes >= 32:
        assert "vfmadd" in jit.assembly(prog)


@pytest.mark.parametrize("opt_level", range(4))
def test_every_level_of_optimisation(opt_level):
    x, o, s = (buffer(name, float32) for name in "xos")
    at = Binary("mul", IX, Const(2, int64))
    bodies = [Store(s, ZERO, Load(x, IX), "add"), Store(o, at, Load(x, IX))]
    loops = [For(IX, N, Block((b,)), "vector") for b in bodies]
    for count in (1, 2):  # with and without a loop that is left to LLVM's vectoriser
        prog = Program("f", ("N",), (x, o, s), (), ZERO, Block(tuple(loops[:count])))
        native = jit.load(jit.compile_program(prog, opt_level=opt_level))
        xs, out, total = np.arange(50, dtype="f"), np.zeros(100, "f"), np.zeros(1, "f")
        assert call(native, [50], [xs, out, total]) == 0
        assert total[0] == 49 * 25
        np.testing.assert_array_equal(out[::2], xs if count == 2 else 0 * xs)


def test_nothing_is_said_about_loops_that_stay_scalar(capfd):
    x, o, k = buffer("x", float32), buffer("o", float32), buffer("k", int64)
    store = Store(o, Load(k, IX), Load(x, IX), "add")
    body = For(IX, N, Block((store,)), "vector")
    jit.compile_program(Program("f", ("N",), (x, o, k), (), ZERO, Block((body,))))
    assert capfd.readouterr() == ("", "")


def test_scattered_stores_are_left_to_the_vectoriser():
    x, o = buffer("x", float32), buffer("o", float32)
    at = Binary("mul", IX, Const(2, int64))
    body = For(IX, N, Block((Store(o, at, Binary("mul", Load(x, IX), Load(x, IX))),)), "vector")
    prog = Program("f", ("N",), (x, o), (), ZERO, Block((body,)))
    assert VECTORISE in jit.compile_program(prog).llvm_ir
    assert " x float>" in jit.optimised_ir(prog, opt_level=3)


def test_no_undefined_symbols():
    # What the object needed would have to come from this process: link without it.
    code = jit.compile_program(product_program(float32, True), target=OWN)
    builder = llvm.JITLibraryBuilder()
    for data in jit.objects(code.data):
        builder.add_object_img(data)
    builder.export_symbol("product")
    linker = llvm.create_lljit_compiler()
    assert builder.link(linker, "alone")["product"]


def test_saved_code_runs_in_another_process(tmp_path):
    code = jit.compile_program(product_program(float64, False))
    path = tmp_path / "code"
    path.write_bytes(pickle.dumps((code.name, code.data, code.pool)))
    script = """
import pickle, sys
import numpy as np
from tinygraph.backends.llvm import jit
with open(sys.argv[1], "rb") as file:
    name, data, pool = pickle.load(file)
native = jit.load(jit.ObjectCode(name, data, "", 0.0, pool))
for n in (12, 330):
    a, b = np.random.default_rng(0).standard_normal((2, n, n))
    c = np.empty((n, n))
    sizes = np.array([n, n, n, 0, n, 1, 0, n, 1, 0, n, 1])
    args = np.array([x.ctypes.data for x in (a, b, c)])
    fault = np.zeros(8, np.int64)
    assert native(sizes.ctypes.data, args.ctypes.data, fault.ctypes.data, fault.ctypes.data) == 0
    assert np.allclose(c, a @ b)
print("done")
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr


def test_functions_are_independent_and_reload():
    natives = [jit.load(jit.compile_program(doubled(factor=f))) for f in (1.0, 2.0, 3.0)]
    code = jit.compile_program(doubled(factor=4.0))
    natives += [jit.load(code), jit.load(code)]
    assert len({n.address for n in natives}) == 5
    x, out = np.arange(10, dtype="f"), np.zeros(10, "f")
    for native, factor in zip(natives, (1, 2, 3, 4, 4), strict=True):
        call(native, [10], [x, out])
        np.testing.assert_array_equal(out, factor * x)


def test_eight_threads_compile_and_call():
    def work(seed):
        native = jit.load(jit.compile_program(doubled(factor=float(seed))))
        x = np.random.default_rng(seed).standard_normal(1000).astype("f")
        out = np.zeros(1000, "f")
        for _ in range(200):
            call(shared, [1000], [x, out])
            np.testing.assert_array_equal(out, 2 * x)
        call(native, [1000], [x, out])
        np.testing.assert_array_equal(out, seed * x)
        return True

    shared = jit.load(jit.compile_program(doubled()))
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_eight_threads_start_a_process():
    script = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from tinygraph.backends.llvm import jit
from tinygraph.loops.language import Block, Const, Program
from tinygraph.dtypes import int64

start = Barrier(8)
def work(k):
    start.wait()
    program = Program("f", (), (), (), Const(0, int64), Block(()))
    return jit.load(jit.compile_program(program))(0, 0, 0, 0)

with ThreadPoolExecutor(8) as pool:
    print(list(pool.map(work, range(8))))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stdout) == (0, f"{[0] * 8}\n"), result.stderr


def test_the_gil_is_released():
    """While one thread is inside native code this one goes on running Python."""
    o = buffer("o", int64)
    serial = Store(o, ZERO, Binary("xor", Binary("mul", Load(o, ZERO), Const(5, int64)), IX))
    prog = Program("slow", ("N",), (o,), (), ZERO, Block((For(IX, N, Block((serial,))),)))
    native, out = jit.load(jit.compile_program(prog)), np.ones(1, np.int64)
    inside, rounds = threading.Event(), 0

    def work():
        inside.set()
        call(native, [200_000_000], [out])

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    while thread.is_alive():
        time.sleep(0.001)
        rounds += 1
    thread.join()
    assert rounds > 20


@pytest.fixture
def mxcsr():
    """Read the processor's floating-point control and status word."""
    if jit.host().arch != "x86":
        pytest.skip("MXCSR is an x86 register")
    text = """
define i32 @read() {
  %slot = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %slot)
  %value = load volatile i32, ptr %slot
  ret i32 %value
}
declare void @llvm.x86.sse.stmxcsr(ptr)
"""
    jit.load(jit.compile_program(doubled()))
    library = llvm.JITLibraryBuilder().add_ir(text).export_symbol("read")
    linker = llvm.create_lljit_compiler()
    tracker = library.link(linker, "mxcsr")
    yield ctypes.CFUNCTYPE(ctypes.c_uint32)(tracker["read"])
    del tracker, linker


@pytest.mark.parametrize("dtype", FLOATS)
def test_denormals_are_flushed_inside_and_only_inside(dtype, mxcsr):
    x, o, f = buffer("x", dtype), buffer("o", dtype), buffer("f", int64)
    half = Binary("mul", Load(x, IX), Const(0.5, dtype))
    body = Block((Store(o, IX, half), Store(f, IX, Cast(Load(x, IX), int64))))
    prog = Program("halves", ("N",), (x, o, f), (), ZERO, Block((For(IX, N, body, "vector"),)))
    native = jit.load(jit.compile_program(prog))
    smallest = np.finfo(dtype.np).tiny
    xs, out = np.full(11, smallest), np.ones(11, dtype.np)
    control = 0xFFC0  # rounding, masks, FTZ and DAZ; the rest records what happened
    before = mxcsr() & control
    assert call(native, [11], [xs.astype(dtype.np), out, np.zeros(11, np.int64)]) == 0
    assert mxcsr() & control == before
    assert out.tolist() == [0] * 11
    assert smallest * dtype.np.type(0.5) > 0


def test_target_key_tells_targets_apart():
    assert jit.target_key() == jit.target_key()
    assert len({jit.target_key(t) for t in TARGETS.values()}) == len(set(TARGETS.values()))
    assert llvm.get_host_cpu_name() in jit.target_key()
