"""The shim runs what CUDA would run, and finds what CUDA would not forgive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygraph.backends.cuda import shim as shim_module
from tinygraph.backends.cuda.shim import Shim, ShimError

Build = Callable[..., Shim]

SUMS = r"""
extern "C" __global__ void reduce(BUF(float) x, BUF(float) total, BUF(float) most, I64 n) {
    float s = 0.0f, m = tg_lowest<float>();
    for (I64 i = tg_thread(); i < n; i += tg_threads()) {
        s += x[i];
        m = tg_max<float>(m, x[i]);
    }
    s = tg_block<tg_Add, float>(s, 0.0f);
    m = tg_block<tg_Max, float>(m, tg_lowest<float>());
    if (threadIdx.x == 0) { total[blockIdx.x] = s; most[blockIdx.x] = m; }
}
extern "C" __global__ void others(BUF(double) x, BUF(I64) y, BUF(int) z, BUF(bool) b,
                                  BUF(double) dx, BUF(I64) dy, BUF(int) dz, BUF(bool) db) {
    const I64 t = tg_thread();
    dx[t] = tg_warp<tg_Mul, double>(x[t]);
    dy[t] = tg_warp<tg_Add, I64>(y[t]);
    dz[t] = tg_block<tg_Min, int>(z[t], tg_highest<int>());
    db[t] = tg_block<tg_And, bool>(b[t], true);
}
"""


@pytest.mark.parametrize("order", ["forward", "reversed"])
@pytest.mark.parametrize("threads", [32, 64, 256])
def test_sums_of_blocks(shim: Build, threads: int, order: str) -> None:
    run = shim(SUMS, "reduce", "others")
    x = np.random.default_rng(0).normal(size=1001).astype(np.float32)
    total, most = np.zeros(3, np.float32), np.zeros(3, np.float32)
    run.launch("reduce", 3, threads, [x, total, most], [1001], order=order)
    np.testing.assert_allclose(total.sum(), x.sum(), rtol=1e-5)
    assert most.max() == x.max()
    which = np.arange(1001) // threads % 3
    np.testing.assert_allclose(total, [x[which == b].sum() for b in range(3)], rtol=1e-4)


def test_sums_of_other_types(shim: Build) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0.9, 1.1, 128), rng.integers(-(1 << 62), 1 << 62, 128)
    z, b = rng.integers(-99, 99, 128).astype(np.int32), np.arange(128) != 70
    out = [np.zeros_like(v) for v in (x, y, z, b)]
    shim(SUMS, "reduce", "others").launch("others", 2, 64, [x, y, z, b, *out])
    np.testing.assert_allclose(out[0], x.reshape(4, 32).prod(1).repeat(32))
    with np.errstate(over="ignore"):
        sums = np.add.reduce(y.reshape(4, 32), axis=1)
    np.testing.assert_array_equal(out[1], sums.repeat(32))
    np.testing.assert_array_equal(out[2], z.reshape(2, 64).min(1).repeat(64))
    np.testing.assert_array_equal(out[3], np.arange(128) < 64)


GEMM = r"""
extern "C" __global__ void product32(BUF(float) a, BUF(float) b, BUF(float) c, I64 ar, I64 ac,
        I64 br, I64 bc, I64 cr, I64 cc, I64 m, I64 n, I64 k, I64 accumulate) {
    tg_gemm<float>(a, ar, ac, b, br, bc, c, cr, cc, m, n, k, accumulate != 0,
                   (I64)blockIdx.x, (I64)gridDim.x);
}
extern "C" __global__ void product64(BUF(double) a, BUF(double) b, BUF(double) c, I64 ar, I64 ac,
        I64 br, I64 bc, I64 cr, I64 cc, I64 m, I64 n, I64 k, I64 accumulate) {
    tg_gemm<double>(a + 5, ar, ac, b + 3, br, bc, c + 2, cr, cc, m, n, k, accumulate != 0,
                    (I64)blockIdx.x, (I64)gridDim.x);
}
"""
SIZES = [(1, 1, 1), (1, 70, 33), (8, 8, 8), (9, 300, 5), (16, 65, 40), (70, 3, 21), (300, 8, 2),
         (17, 9, 50), (65, 67, 31), (64, 64, 16), (130, 20, 3), (20, 129, 17), (5, 6, 0),
         (20, 30, 0), (0, 5, 3), (40, 0, 3)]


def _matrix(rng: np.random.Generator, rows: int, columns: int, dtype: Any, how: str,
            skip: int) -> tuple[np.ndarray[Any, Any], int, int, np.ndarray[Any, Any]]:
    """A buffer that ends with its last element, its strides, and the matrix in it."""
    wide = columns if how != "gaps" else columns + 3
    strides = (1, rows) if how == "columns" else (wide, 1)
    size = skip + (1 + (rows - 1) * strides[0] + (columns - 1) * strides[1]
                   if rows and columns else 0)
    buffer = rng.normal(size=size).astype(dtype)
    item = buffer.itemsize
    view = np.lib.stride_tricks.as_strided(buffer[skip:], (rows, columns),
                                           (strides[0] * item, strides[1] * item))
    return buffer, strides[0], strides[1], view


@pytest.mark.parametrize("layout", [("rows", "rows", "rows"), ("columns", "rows", "gaps"),
                                    ("gaps", "columns", "columns")])
@pytest.mark.parametrize(("threads", "blocks"), [(64, 1), (256, 1), (128, 3)])
def test_products(shim: Build, threads: int, blocks: int, layout: tuple[str, str, str]) -> None:
    run = shim(GEMM, "product32", "product64")
    rng = np.random.default_rng(2)
    for number, (m, n, k) in enumerate(SIZES):
        for name, dtype, skips in (("product32", np.float32, (0, 0, 0)),
                                   ("product64", np.float64, (5, 3, 2))):
            a, ar, ac, left = _matrix(rng, m, k, dtype, layout[0], skips[0])
            b, br, bc, right = _matrix(rng, k, n, dtype, layout[1], skips[1])
            c, cr, cc, out = _matrix(rng, m, n, dtype, layout[2], skips[2])
            accumulate = number % 2
            want = left @ right + (out if accumulate else 0)
            untouched = c.copy()
            order = "reversed" if number % 3 else "forward"
            run.launch(name, blocks, threads, [a, b, c],
                       [ar, ac, br, bc, cr, cc, m, n, k, accumulate], order=order)
            tolerance = 1e-4 if dtype is np.float32 else 1e-12
            np.testing.assert_allclose(out, want, rtol=tolerance, atol=tolerance,
                                       err_msg=f"{(m, n, k)}")
            out[...] = 0  # and nothing else was written
            np.lib.stride_tricks.as_strided(untouched[skips[2]:], out.shape, out.strides)[...] = 0
            np.testing.assert_array_equal(c, untouched)


def test_products_in_blocks_of_fewer_threads(shim: Build) -> None:
    run = shim(GEMM, "product32", block=64)
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(70, 40)).astype("f"), rng.normal(size=(40, 90)).astype("f")
    c = np.zeros((70, 90), np.float32)
    run.launch("product32", 2, 64, [a.ravel(), b.ravel(), c.reshape(-1)],
               [40, 1, 90, 1, 90, 1, 70, 90, 40, 0])
    np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-4)


FAULTS = r"""
extern "C" __global__ void touch(BUF(float) x, BUF(float) y, I64 read, I64 write) {
    const I64 t = tg_thread();
    if (t == 37) y[write] = x[read];
}
extern "C" __global__ void neighbours(BUF(float) x, I64 barrier, I64 far) {
    const I64 t = threadIdx.x, n = blockDim.x;
    x[t] = (float)t;
    if (barrier == 1) __syncwarp();
    if (barrier == 2) __syncthreads();
    float y = x[t ^ far];
    if (barrier == 1) __syncwarp();
    if (barrier == 2) __syncthreads();
    x[t] = y;
}
extern "C" __global__ void shared(BUF(float) x, I64 first, I64 second, I64 only) {
    __shared__ float part[64];
    __shared__ float table[2][64], last;
    const I64 t = threadIdx.x;
    if (t != only) part[t] = x[t];
    if (first) __syncthreads();
    const float y = part[63 - t];
    if (second) __syncthreads();
    part[t] = y + 1.0f;
    table[t % 2][t] = part[t];
    if (t == 0) last = table[0][0];
    x[t] = table[t % 2][t];
}
extern "C" __global__ void rows(BUF(float) x, I64 at) {
    __shared__ float table[2][8];
    if (threadIdx.x == 0) { table[1][7] = 1.0f; table[0][at] = 2.0f; x[0] = table[0][at]; }
}
extern "C" __global__ void split(BUF(int) x, I64 how) {
    if (how == 0 && threadIdx.x < 40) return;
    if (how == 1) {
        if (threadIdx.x < 32) { __syncthreads();
        } else { __syncthreads(); }
    }
    if (how == 2 && threadIdx.x == 5) return;
    if (how == 2) x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
    if (how == 3 && threadIdx.x < 32) {
        if (threadIdx.x < 16) __syncwarp();
    }
    __syncthreads();
}
extern "C" __global__ void meet(BUF(float) x, I64 how) {
    if (how == 0 && threadIdx.x == 0) x[0] = 1.0f;
    if (how == 1 && threadIdx.x == 0) { if (blockIdx.x == 0) x[0] = 1.0f; else x[1] = x[0]; }
    if (how == 2 && threadIdx.x == 0) { if (blockIdx.x == 0) x[1] = x[0]; else x[0] = 1.0f; }
    if (how == 3 && threadIdx.x == 0) x[blockIdx.x + 1] = x[0];
}
extern "C" __global__ void two(BUF(float) x, BUF(I64) y) {
    if (threadIdx.x == 0) x[1] = 1.0f;
    if (threadIdx.x == 33) y[0] = 1;
}
extern "C" __global__ void fails(BUF(I64) fault, I64 site) {
    if (tg_thread() % 7 == 5) tg_fault(fault, site, 2, tg_thread(), (I64)8, (I64)9, (I64)10);
}
extern "C" __global__ void deep(BUF(float) x, I64 n) {
    volatile float much[30000];
    for (I64 i = 0; i < n; ++i) much[i] = 1.0f;
    if (tg_thread() == 0) x[0] = much[n - 1];
}
"""
NAMES = "touch neighbours shared rows split meet two fails deep".split()


@pytest.fixture(scope="module")
def faulty(shim: Build) -> Shim:
    return shim(FAULTS, *NAMES)


@pytest.mark.parametrize(("read", "write", "kind", "buffer", "index"), [
    (8, 0, "out-of-bounds read", "x", 8), (-1, 0, "out-of-bounds read", "x", -1),
    (1 << 60, 0, "out-of-bounds read", "x", 1 << 60),
    (7, 5, "out-of-bounds write", "y", 5), (0, -3, "out-of-bounds write", "y", -3)])
def test_bounds(faulty: Shim, read: int, write: int, kind: str, buffer: str, index: int) -> None:
    arena = np.arange(20, dtype=np.float32)
    x, y = arena[2:10], arena[12:17]
    with pytest.raises(ShimError, match=rf"touch: block 0, thread 37 \w+ {buffer}\[{index}\]") as e:
        faulty.launch("touch", 2, 64, [x, y], [read, write])
    found = e.value
    assert (found.kind, found.buffer, found.index, found.size) == (
        kind, buffer, index, 8 if buffer == "x" else 5)
    assert (found.kernel, found.block, found.thread) == ("touch", 0, 37)
    np.testing.assert_array_equal(arena, np.arange(20))  # found before it happened
    faulty.launch("touch", 2, 64, [x, y], [7, 4])
    assert y[4] == x[7]


def test_what_may_only_be_read(faulty: Shim) -> None:
    x, y = np.ones(3, np.float32), np.ones(3, np.float32)
    y.flags.writeable = False
    with pytest.raises(ShimError, match=r"writes y\[1\], but y may only be read") as e:
        faulty.launch("touch", 1, 64, [x, y], [0, 1])
    assert e.value.kind == "read-only"


@pytest.mark.parametrize(("barrier", "far", "races"), [
    (0, 1, True), (0, 32, True), (1, 1, False), (1, 32, True), (2, 1, False), (2, 32, False),
    (0, 0, False)])
@pytest.mark.parametrize("order", ["forward", "reversed"])
def test_missing_barriers(faulty: Shim, barrier: int, far: int, races: bool, order: str) -> None:
    x = np.zeros(64, np.float32)
    if races:
        with pytest.raises(ShimError, match="with no barrier between") as e:
            faulty.launch("neighbours", 1, 64, [x], [barrier, far], order=order)
        assert e.value.kind == "race" and e.value.buffer == "x"
        assert e.value.other == (0, e.value.thread ^ far)
    else:
        faulty.launch("neighbours", 2 - 1, 64, [x], [barrier, far], order=order)
        np.testing.assert_array_equal(x, np.arange(64) ^ far)


@pytest.mark.parametrize("order", ["forward", "reversed"])
def test_missing_barriers_on_shared_memory(faulty: Shim, order: str) -> None:
    x = np.arange(64, dtype=np.float32)
    faulty.launch("shared", 1, 64, [x], [1, 1, -1], order=order)
    np.testing.assert_array_equal(x, 64 - np.arange(64))
    for first, second in ((0, 1), (1, 0), (0, 0)):
        with pytest.raises(ShimError, match=r"part\[\d+\]") as e:
            faulty.launch("shared", 1, 64, [x], [first, second, -1], order=order)
        assert e.value.buffer == "part" and e.value.kind in ("race", "uninitialised")
    with pytest.raises(ShimError, match=r"reads part\[9\] of shared memory, which this") as e:
        faulty.launch("shared", 1, 64, [x], [1, 1, 9], order=order)
    assert (e.value.kind, e.value.thread) == ("uninitialised", 54)


def test_bounds_of_shared_memory(faulty: Shim) -> None:
    x = np.zeros(1, np.float32)
    faulty.launch("rows", 1, 32, [x], [7])
    assert x[0] == 2
    with pytest.raises(ShimError, match=r"writes table\[8\], but table has 8 elements"):
        faulty.launch("rows", 1, 32, [x], [8])


@pytest.mark.parametrize(("how", "kind", "said"), [
    (0, "barrier", r"thread 40 waits .*__syncthreads.* but thread 0 has ended"),
    (1, "barrier", r"thread 0 waits .* but thread 32 waits at `.*else"),
    (2, "warp", r"thread 0 waits .*__shfl_xor_sync.*, but thread 5 has ended"),
    (3, "warp", r"thread 0 waits .*__syncwarp.*, but thread 16 waits at")])
def test_barriers_that_not_all_reach(faulty: Shim, how: int, kind: str, said: str) -> None:
    x = np.zeros(64, np.int32)
    with pytest.raises(ShimError, match=said) as e:
        faulty.launch("split", 1, 64, [x], [how])
    assert e.value.kind == kind
    faulty.launch("split", 1, 64, [x], [9])  # and it goes on to work


@pytest.mark.parametrize(("how", "order"), [(0, "forward"), (0, "reversed"), (1, "forward"),
                                            (1, "reversed"), (2, "forward"), (2, "reversed")])
def test_blocks_that_meet(faulty: Shim, how: int, order: str) -> None:
    x = np.zeros(9, np.float32)
    with pytest.raises(ShimError, match=r"which block [01] (wrote|read) in the same launch") as e:
        faulty.launch("meet", 2, 32, [x], [how], order=order)
    assert (e.value.kind, e.value.buffer, e.value.index) == ("race", "x", 0)
    assert e.value.other[0] == 1 - e.value.block
    faulty.launch("meet", 1, 32, [x], [how])
    faulty.launch("meet", 8, 32, [x], [3])  # all may read


def test_buffers_that_overlap(faulty: Shim) -> None:
    arena = np.zeros(8, np.int64)
    x = arena.view(np.float32)
    faulty.launch("two", 1, 64, [x, arena[1:]])
    with pytest.raises(ShimError, match=r"thread 33 writes y\[0\], which thread 0 wrote"):
        faulty.launch("two", 1, 64, [x, arena])
    with pytest.raises(ShimError, match=r"thread 0 writes x\[1\], which thread 33 wrote"):
        faulty.launch("two", 1, 64, [x, arena], order="reversed")


def test_the_first_failure_is_kept(faulty: Shim) -> None:
    fault = np.zeros(8, np.int64)
    faulty.launch("fails", 3, 64, [fault], [41])
    assert fault.tolist() == [42, 5, 8, 0, 0, 0, 0, 0]


def test_a_stack_that_is_too_small(faulty: Shim) -> None:
    with pytest.raises(ShimError, match="bytes of stack") as e:
        faulty.launch("deep", 1, 32, [np.zeros(1, np.float32)], [30000])
    assert e.value.kind == "stack"


def test_what_does_not_fit(faulty: Shim, shim: Build) -> None:
    x = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="takes 2 buffers and 2 scalars; 1 and 2 came"):
        faulty.launch("touch", 1, 32, [x], [0, 0])
    with pytest.raises(ValueError, match="y must be a contiguous array of float32"):
        faulty.launch("touch", 1, 32, [x, x[::2]], [0, 0])
    with pytest.raises(ValueError, match="40 threads"):
        faulty.launch("touch", 1, 40, [x, x], [0, 0])
    with pytest.raises(ValueError, match="0 blocks; CUDA takes 1 to"):
        faulty.launch("touch", 0, 32, [x, x], [0, 0])
    with pytest.raises(ValueError, match="500000 bytes of shared memory"):
        faulty.launch("touch", 1, 32, [x, x], [0, 0], shared_bytes=500000)
    with pytest.raises(ValueError, match="no kernel 'nothing'"):
        shim(FAULTS, "nothing")
    with pytest.raises(ValueError, match="begin it with prelude"):
        Shim("void f() {}", [])
    with pytest.raises(RuntimeError, match="does not compile the kernels"):
        shim('extern "C" __global__ void bad(I64 n) { n = missing; }', "bad")


def test_every_way_to_write_an_element(shim: Build) -> None:
    run = shim(r"""
extern "C" __global__ void b(BUF(float) x, BUF(I64) k, BUF(bool) t, BUF(signed char) c,
                             BUF(double) d, I64 s) {
    __shared__ I64 at;
    if (threadIdx.x == 0) {
        at = k[0];
        x[0] = t[0] ? x[1] : x[2];
        x[3] = t[1] ? x[k[0]] : 0.5f;
        x[4] += 2.0f;
        x[5] = x[6] = 3.0f;
        (x + k[1])[1] = -x[7];
        x[8] = tg_max<float>(x[1], (float)k[2]);
        x[9] = tg_isnan(x[1]) ? x[2] : tg_nan<float>();
        t[2] = (!t[0] && x[1] < x[2]) || c[0] == (signed char)-1;
        c[1] = (signed char)(c[0] + c[2]);
        c[3] = tg_add<signed char>(c[0], tg_abs(c[2]));
        d[0] = (double)x[1] * d[1] + tg_pow(x[1], x[2]);
        d[2] = x[1];
        k[3] = (I64)d[3] % k[2] + ~k[4];
        k[4] ^= s;
    }
    __syncthreads();
    if (threadIdx.x == 40) k[5] = at + (k[0] > 0);
}""", "b")
    x, k = np.arange(10, dtype=np.float32), np.arange(1, 7)
    t, c, d = np.ones(3, np.bool_), np.array([-1, 0, -100, 0], np.int8), np.arange(4.0)
    run.launch("b", 1, 64, [x, k, t, c, d], [9])
    np.testing.assert_array_equal(x, np.array([1, 1, 2, -7, 6, 3, 3, 7, 3, np.nan], np.float32))
    assert k.tolist() == [1, 2, 3, -6, 5 ^ 9, 2]
    assert t.all() and c.tolist() == [-1, -101, -100, 99] and d.tolist() == [2, 1, 1, 3]


def test_dynamic_shared_memory(shim: Build) -> None:
    run = shim(r"""
extern "C" __global__ void turn(BUF(double) x, I64 n) {
    extern __shared__ double room[];
    room[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = room[n - 1 - threadIdx.x];
}""", "turn", shared_bytes=64 * 8)
    x = np.arange(64.0)
    run.launch("turn", 1, 64, [x], [64])
    np.testing.assert_array_equal(x, np.arange(64.0)[::-1])
    with pytest.raises(ShimError, match=r"room\[64\], but room has 64 elements"):
        run.launch("turn", 1, 96, [np.arange(96.0)], [96])


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    shim_module.compiler.cache_clear()
    monkeypatch.setattr(shim_module.shutil, "which", lambda name: None)
    monkeypatch.setattr(shim_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install ziglang"):
        shim_module.compiler()
    monkeypatch.setattr(shim_module.importlib.util, "find_spec", lambda name: object())
    assert shim_module.compiler()[1:4] == ("-m", "ziglang", "c++")
    shim_module.compiler.cache_clear()
