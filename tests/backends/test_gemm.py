"""The kernels of matrix products, called one by one: values, bits, and the bounds of memory."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygraph.backends.llvm import gemm, jit
from tinygraph.dtypes import DType, float32, float64

FLOATS = (float32, float64)
OWN = jit.host()
TARGETS = {
    "host": OWN,
    "4 floats": replace(OWN, vector_bytes=16, registers=16, mask_registers=False),
    "16 floats": replace(OWN, vector_bytes=64, registers=32, mask_registers=True),
}
TILE = 6  # most rows of a register tile
BLOCK = 256  # of k


class Kernels(NamedTuple):
    """The three functions of a dtype on a target, and the width of its panels."""

    plain: ctypes._CFuncPtr
    packed: ctypes._CFuncPtr
    pack: ctypes._CFuncPtr
    width: int
    keep: tuple


@functools.cache
def machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=1,
        reloc="pic", jit=True,
    )


@functools.cache
def kernels(dtype: DType, name: str = "host") -> Kernels:
    module = llvm.parse_assembly(gemm.kernels(dtype, TARGETS[name]), llvm.create_context())
    module.verify()
    module.triple, module.data_layout = machine().triple, str(machine().target_data)
    builder = llvm.JITLibraryBuilder()
    builder.add_object_img(machine().emit_object(module))
    builder.add_current_process()
    names = [gemm.entry(dtype), gemm.packed_entry(dtype), gemm.pack_entry(dtype)]
    for symbol in names:
        builder.export_symbol(symbol)
    linker = llvm.create_lljit_compiler()
    library = builder.link(linker, f"products of {dtype}")
    matrix = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    sizes = [ctypes.c_int64] * 3 + [ctypes.c_bool]
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    parameters = [
        [*matrix, *matrix, *matrix, *sizes],
        [*matrix, pointer, *matrix, *sizes],
        [*matrix, number, number, pointer],
    ]
    functions = [
        ctypes.CFUNCTYPE(None, *kinds)(library[symbol])
        for symbol, kinds in zip(names, parameters, strict=True)
    ]
    return Kernels(*functions, gemm.panel(dtype, TARGETS[name]), (library, linker))


def matrix(x: np.ndarray) -> tuple[int, int, int]:
    return x.ctypes.data, *(s // x.itemsize for s in x.strides)


def multiply(k: Kernels, a: np.ndarray, b: np.ndarray, c: np.ndarray, add: bool = False) -> None:
    k.plain(*matrix(a), *matrix(b), *matrix(c), *c.shape, a.shape[1], add)


def packed(k: Kernels, b: np.ndarray) -> np.ndarray:
    rows, cols = b.shape
    panels = np.full((-(-cols // k.width), rows, k.width), np.nan, b.dtype)
    k.pack(*matrix(b), cols, rows, panels.ctypes.data)
    return panels


def multiply_packed(
    k: Kernels, a: np.ndarray, panels: np.ndarray, c: np.ndarray, add: bool = False
) -> None:
    k.packed(*matrix(a), panels.ctypes.data, *matrix(c), *c.shape, a.shape[1], add)


LAYOUTS = {
    "rows": lambda r, c: (c, 1),
    "columns": lambda r, c: (1, r),
    "far rows": lambda r, c: (c + 1024, 1),
    "spread": lambda r, c: (3 * c + 1, 3),
    "backward": lambda r, c: (-c, -1),
    "one row": lambda r, c: (0, 1),
    "one column": lambda r, c: (1, 0),
}
WRITABLE = ("rows", "columns", "far rows", "spread", "backward")


def strided(rows: int, cols: int, layout: str, dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    """A matrix, and the sea of nan in which it lies: what is read outside spoils a sum, what is
    written outside shows."""
    steps = LAYOUTS[layout](rows, cols)
    ends = [i * steps[0] + j * steps[1] for i in (0, rows - 1) for j in (0, cols - 1)]
    low, high = (min(ends), max(ends)) if rows and cols else (0, 0)
    base = np.full(high - low + 81, np.nan, dtype.np)
    strides = tuple(s * base.itemsize for s in steps)
    return np.lib.stride_tricks.as_strided(base[40 - low :], (rows, cols), strides), base


def check(
    k: Kernels, shape: tuple[int, int, int], layouts: tuple[str, str, str], dtype: DType, add: bool
) -> None:
    """Plain and packed products against NumPy, with all that lies around."""
    m, n, depth = shape
    rng = np.random.default_rng(m + 100 * n + 10000 * depth)
    (a, _), (b, _) = strided(m, depth, layouts[0], dtype), strided(depth, n, layouts[1], dtype)
    a[...], b[...] = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
    tolerance = (1e-6 if dtype is float32 else 1e-14) * (depth + 8)
    panels = packed(k, b)
    flat = panels.transpose(1, 0, 2).reshape(depth, panels.shape[0] * k.width)
    np.testing.assert_array_equal(flat[:, :n], b)
    np.testing.assert_array_equal(flat[:, n:], 0)
    for which in ("plain", "packed"):
        c, around = strided(m, n, layouts[2], dtype)
        c[...] = rng.standard_normal(c.shape) if add else np.nan
        want, old = around.copy(), c.astype("d") if add else 0
        view = want[(c.ctypes.data - around.ctypes.data) // c.itemsize :]
        np.lib.stride_tricks.as_strided(view, c.shape, c.strides)[...] = (
            a.astype("d") @ b.astype("d") + old)
        if which == "plain":
            multiply(k, a, b, c, add)
        else:
            multiply_packed(k, a, panels, c, add)
        np.testing.assert_allclose(
            around, want, rtol=tolerance, atol=tolerance, err_msg=f"{which} {shape} {layouts}")


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_all_strides(dtype, name):
    k, sizes = kernels(dtype, name), (1, 2, 3, TILE, 2 * TILE + 1, k_width(dtype, name) + 1, 70)
    rng = np.random.default_rng(0)
    for layouts in product(LAYOUTS, LAYOUTS, WRITABLE):
        m, n, depth = rng.choice(sizes, 3).tolist()
        check(k, (m, n, depth), layouts, dtype, bool(rng.integers(2)))


def k_width(dtype: DType, name: str) -> int:
    return gemm.panel(dtype, TARGETS[name])


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_sizes_about_those_of_tiles_and_blocks(dtype, name):
    k, width = kernels(dtype, name), k_width(dtype, name)
    depths = (0, 1, 7, 63, 64, 65, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3)
    columns = [i * width // 2 + d for i in (1, 2, 3, 8, 9) for d in (-1, 0, 1)]
    rng = np.random.default_rng(1)
    for m, depth in product((0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14, 19), depths):
        a, b = (str(rng.choice(("rows", "columns", "far rows"))) for _ in "ab")
        n = int(rng.choice([0, *columns]))
        check(k, (m, n, depth), (a, b, "rows"), dtype, bool(rng.integers(2)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_more_than_one_block_of_rows(dtype):
    k = kernels(dtype)
    for a, b in product(("rows", "columns", "far rows"), ("rows", "columns")):
        check(k, (1021, 67, 300), (a, b, "rows"), dtype, True)
    rows = 4096 // dtype.itemsize  # apart, they share sets of the cache and are copied
    check(k, (40, 70, rows), ("rows", "columns", "rows"), dtype, False)
    check(k, (40, 70, rows), ("rows", "rows", "rows"), dtype, True)
    check(k, (3, 3000, 300), ("rows", "rows", "rows"), dtype, True)
    check(k, (500, 260, 300), ("rows", "rows", "rows"), dtype, True)  # large enough to be copied


@settings(max_examples=150, deadline=None)
@given(
    dtype=st.sampled_from(FLOATS), name=st.sampled_from(sorted(TARGETS)), add=st.booleans(),
    shape=st.tuples(*[st.integers(0, 70)] * 3), a=st.sampled_from(sorted(LAYOUTS)),
    b=st.sampled_from(sorted(LAYOUTS)), c=st.sampled_from(WRITABLE),
)
def test_any_product(dtype, name, add, shape, a, b, c):
    check(kernels(dtype, name), shape, (a, b, c), dtype, add)


# -- equal bits ----------------------------------------------------------------------------------


def bits(x: np.ndarray) -> bytes:
    return np.ascontiguousarray(x).tobytes()


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layouts", list(product(("rows", "columns"), repeat=2)), ids="-".join)
def test_an_element_does_not_depend_on_what_is_computed_with_it(dtype, name, layouts):
    k, width = kernels(dtype, name), k_width(dtype, name)
    rng = np.random.default_rng(2)
    for m, n, depth in ((29, 5 * width + 3, 300), (14, 9 * width, 40), (9, width + 1, 2 * BLOCK)):
        (a, _), (b, _) = strided(m, depth, layouts[0], dtype), strided(depth, n, layouts[1], dtype)
        a[...], b[...] = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
        start = rng.standard_normal((m, n)).astype(dtype.np)
        whole, panels = start.copy(), packed(k, b)
        multiply(k, a, b, whole, True)
        from_panels = start.copy()
        multiply_packed(k, a, panels, from_panels, True)
        turned = np.asfortranarray(start)
        multiply(k, a, b, turned, True)
        assert bits(turned) == bits(whole)
        for i in range(0, m):
            for j in (*range(1, 8), m - i):
                some = start[i : i + j].copy()
                multiply(k, a[i : i + j], b, some, True)
                assert bits(some) == bits(whole[i : i + j])
                some = start[i : i + j].copy()
                multiply_packed(k, a[i : i + j], panels, some, True)
                assert bits(some) == bits(from_panels[i : i + j])
        for i in range(0, n, width):
            for j in (width, 2 * width, n - i):
                some = start[:, i : i + j].copy()
                multiply(k, a, b[:, i : i + j], some, True)
                assert bits(some) == bits(whole[:, i : i + j])
                some = start[:, i : i + j].copy()
                multiply_packed(k, a, panels[i // width :], some, True)
                assert bits(some) == bits(from_panels[:, i : i + j])


@pytest.mark.parametrize("dtype", FLOATS)
def test_packed_and_plain_products_are_equal_where_b_has_rows(dtype):
    k, rng = kernels(dtype), np.random.default_rng(3)
    for m, n, depth in product((1, 2, 3, 5, 30), (1, 10, 100, 300), (3, 50, 600)):
        a, b = (rng.standard_normal(s).astype(dtype.np) for s in ((m, depth), (depth, n)))
        plain, from_panels = np.empty((2, m, n), dtype.np)
        multiply(k, a, b, plain)
        multiply_packed(k, a, packed(k, b), from_panels)
        if n > 1:  # a single column is contiguous along k, which makes dot products
            assert bits(plain) == bits(from_panels)
        np.testing.assert_allclose(plain, from_panels, rtol=1e-3, atol=1e-3)


# -- the bounds of memory ------------------------------------------------------------------------


class Guarded:
    """Arrays that end, or begin, where memory does: the pages about them may not be touched."""

    def __init__(self) -> None:
        self.page = mmap.PAGESIZE
        self.protect = ctypes.CDLL(None).mprotect
        self.protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self.keep: list[tuple] = []

    def array(self, shape: tuple[int, ...], dtype: DType, last: bool) -> np.ndarray:
        size = int(np.prod(shape)) * dtype.itemsize
        pages = -(-size // self.page) * self.page
        area = mmap.mmap(-1, pages + 2 * self.page)
        place = ctypes.addressof(ctypes.c_char.from_buffer(area))
        for page in (place, place + self.page + pages):
            assert self.protect(page, self.page, 0) == 0
        self.keep.append((area, place, pages))
        offset = self.page + (pages - size if last else 0)
        return np.frombuffer(area, dtype.np, int(np.prod(shape)), offset).reshape(shape)

    def free(self) -> None:
        for _, place, pages in self.keep:
            for page in (place, place + self.page + pages):
                assert self.protect(page, self.page, mmap.PROT_READ | mmap.PROT_WRITE) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@pytest.mark.parametrize("last", (False, True))
@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_outside_is_touched(dtype, last):
    k, rng, guarded = kernels(dtype), np.random.default_rng(4), Guarded()
    shapes = list(product((1, 2, 3, 7, 33), (1, 3, 9, 17, 70, 130), (1, 5, 33, 300)))
    try:
        for (m, n, depth), turn in zip(shapes, np.tile(range(8), 99).tolist(), strict=False):
            forms = ((m, depth), (depth, n), (m, n))
            a, b, c = (
                guarded.array(s[::-1], dtype, last).T if turn >> i & 1
                else guarded.array(s, dtype, last)
                for i, s in enumerate(forms)
            )
            a[...], b[...] = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
            c[...] = 0
            multiply(k, a, b, c, True)
            np.testing.assert_allclose(c, a.astype("d") @ b, rtol=1e-3, atol=1e-3)
            panels = guarded.array((-(-n // k.width), depth, k.width), dtype, last)
            k.pack(*matrix(b), n, depth, panels.ctypes.data)
            multiply_packed(k, a, panels, c)
            np.testing.assert_allclose(c, a.astype("d") @ b, rtol=1e-3, atol=1e-3)
    finally:
        guarded.free()


# -- other machines ------------------------------------------------------------------------------

MACHINES = {
    "sse2": ("x86_64-unknown-linux-gnu", "x86-64", gemm.Target("x86", 16, 16)),
    "avx2": ("x86_64-unknown-linux-gnu", "haswell", gemm.Target("x86", 32, 16)),
    "avx512": ("x86_64-unknown-linux-gnu", "skylake-avx512", gemm.Target(
        "x86", 64, 32, True, '"prefer-vector-width"="512"')),
    "neon": ("aarch64-unknown-linux-gnu", "neoverse-n1", gemm.Target("aarch64", 16, 32)),
}


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_kernels_of_other_machines_compile(dtype, name):
    triple, cpu, target = MACHINES[name]
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(gemm.kernels(dtype, target), llvm.create_context())
    module.verify()
    other = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=1, reloc="pic")
    module.triple, module.data_layout = triple, str(other.target_data)
    assert len(other.emit_object(module)) > 4000


@pytest.mark.parametrize("dtype", FLOATS)
def test_declarations_fit_their_functions(dtype):
    text = gemm.kernels(dtype, OWN)
    functions = (gemm.declaration, gemm.packed_declaration, gemm.pack_declaration)
    declared = [function(dtype) for function in functions]
    module = llvm.parse_assembly(text, llvm.create_context())
    callers = llvm.parse_assembly("\n".join(declared), llvm.create_context())
    for function in callers.functions:
        assert str(module.get_function(function.name).global_value_type) == str(
            function.global_value_type)
        assert module.get_function(function.name).linkage == llvm.Linkage.external
