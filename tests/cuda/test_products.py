"""Products: right for every size and layout, and every element added up in the one order that k
gives (tinygraph/backends/cuda/products_text.py), whatever form and share of the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiling import compiles, needs_nvrtc
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygraph.backends.cuda.prelude import prelude
from tinygraph.backends.cuda.shim import Shim, ShimError

Array = np.ndarray[Any, Any]

KERNELS = r"""
extern "C" __global__ void product_T(BUF(T) a, BUF(T) b, BUF(T) c, I64 a0, I64 ar, I64 ac,
        I64 b0, I64 br, I64 bc, I64 c0, I64 cr, I64 cc, I64 m, I64 n, I64 k, I64 accumulate) {
    tg_gemm<T>(a + a0, ar, ac, b + b0, br, bc, c + c0, cr, cc, m, n, k, accumulate != 0,
               (I64)blockIdx.x, (I64)gridDim.x);
}
extern "C" __global__ void units_T(BUF(T) a, BUF(T) b, BUF(T) c, I64 a0, I64 ar, I64 ac,
        I64 b0, I64 br, I64 bc, I64 c0, I64 cr, I64 cc, I64 m, I64 n, I64 k, I64 accumulate,
        I64 units, I64 held) {
    extern __shared__ T weights_T[];
    const I64 first = units * blockIdx.x / gridDim.x, last = units * (blockIdx.x + 1) / gridDim.x;
    const I64 own = last - first, gates = n / units;
    if (held == 1 || held == 3) {  // as they are, or padded to multiples of four
        const I64 w = gates * own, pitch = held == 3 ? (w + 3) / 4 * 4 : w;
        for (I64 at = threadIdx.x; at < k * pitch; at += blockDim.x) {
            const I64 p = at / pitch, q = at % pitch;
            weights_T[at] = q < w ? (T)b[b0 + p * br + (q / own * units + first + q % own) * bc]
                                  : (T)0;
        }
        __syncthreads();
        tg_gemm_units<T>(a + a0, ar, ac, weights_T, pitch, 1, true, c + c0, cr, cc, m, n, k,
                         accumulate != 0, units, first, last);
    } else {
        tg_gemm_units<T>(a + a0, ar, ac, b + b0, br, bc, held == 2, c + c0, cr, cc, m, n, k,
                         accumulate != 0, units, first, last);
    }
}
"""
RECURRENCE = r"""
extern "C" __global__ void steps(BUF(I64) sync, BUF(float) h, BUF(float) u, I64 m, I64 units,
        I64 steps) {
    const I64 first = units * blockIdx.x / gridDim.x, last = units * (blockIdx.x + 1) / gridDim.x;
    for (I64 s = 0; s < steps; ++s) {
        const auto now = h + s % 2 * m * units, next = h + (s + 1) % 2 * m * units;
        tg_gemm_units<float>(now, units, 1, u, units, 1, false, next, units, 1, m, units, units,
                             false, units, first, last);
        tg_grid(sync);
    }
}
"""
DTYPES = {"float": np.float32, "double": np.float64}
TEXT = "".join(KERNELS.replace("_T", f"_{t}").replace("(T)", f"({t})").replace("<T>", f"<{t}>")
               .replace("__ T ", f"__ {t} ") for t in DTYPES)
LAYOUTS = ("rows", "columns", "gaps", "apart", "rows of four", "columns of four")


@pytest.fixture(scope="module")
def run(shim: Callable[..., Shim]) -> Shim:
    names = [f"{kernel}_{t}" for kernel in ("product", "units") for t in DTYPES]
    return shim(TEXT, *names, shared_bytes=200 << 10)


class Laid:
    """A matrix in a buffer that ends with its last element: ``view`` is it, ``args`` its offset
    and strides."""

    def __init__(self, rng: np.random.Generator, rows: int, columns: int, t: str,
                 layout: str = "rows", skip: int = 0) -> None:
        four = [-n % 4 + n for n in (rows, columns)]
        strides = {"rows": (columns, 1), "columns": (1, rows), "gaps": (columns + 3, 1),
                   "apart": (2 * columns + 1, 2), "rows of four": (four[1], 1),
                   "columns of four": (1, four[0])}[layout]
        last = (rows - 1) * strides[0] + (columns - 1) * strides[1] if rows and columns else -1
        whole = np.zeros(skip + last + 5, DTYPES[t])
        start = -whole.ctypes.data // whole.itemsize % (16 // whole.itemsize)
        self.buffer = whole[start:start + skip + last + 1]  # of 16 bytes, as on a device
        self.buffer[...] = rng.normal(size=self.buffer.shape)
        self.args = [skip, *strides]
        self.view = np.lib.stride_tricks.as_strided(
            self.buffer[skip:], (rows, columns), [s * whole.itemsize for s in strides])


def ordered(a: Array, b: Array, c: Array | None = None) -> Array:
    """The product with the sums in their order: slices, each from its first term on."""
    k = a.shape[1]
    length = -(-k // 256) * 16
    total = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for start in range(0, k, length or 1):
        part = np.zeros_like(total)
        for p in range(start, min(start + length, k)):
            part += a[:, p, None] * b[p]
        total += part
    return total if c is None else c + total


def launch(run: Shim, t: str, a: Laid, b: Laid, c: Laid, accumulate: bool, threads: int = 256,
           blocks: int = 1, order: str = "forward", units: int | None = None,
           held: int = 0) -> None:
    (m, k), n = a.view.shape, b.view.shape[1]
    numbers = [*a.args, *b.args, *c.args, m, n, k, int(accumulate)]
    name = "product" if units is None else "units"
    run.launch(f"{name}_{t}", blocks, threads, [a.buffer, b.buffer, c.buffer],
               numbers if units is None else [*numbers, units, held], order=order)


def check(run: Shim, t: str, a: Laid, b: Laid, c: Laid, accumulate: bool, **how: Any) -> None:
    """The kernel writes the product, bit for bit, and nothing else."""
    untouched = Laid.__new__(Laid)
    untouched.buffer = c.buffer.copy()
    want = ordered(a.view, b.view, c.view if accumulate else None)
    exact = a.view.astype("f8") @ b.view.astype("f8") + (c.view if accumulate else 0)
    launch(run, t, a, b, c, accumulate, **how)
    np.testing.assert_array_equal(c.view, want)
    tolerance = 1e-4 if t == "float" else 1e-12
    np.testing.assert_allclose(c.view, exact, rtol=tolerance, atol=tolerance)
    kept = np.lib.stride_tricks.as_strided(untouched.buffer[c.args[0]:], c.view.shape,
                                           c.view.strides)
    kept[...] = want
    np.testing.assert_array_equal(c.buffer, untouched.buffer)


SIZES = [(1, 1, 1), (1, 70, 33), (8, 8, 8), (9, 300, 5), (16, 65, 40), (70, 3, 21), (300, 8, 2),
         (17, 9, 50), (65, 67, 31), (64, 64, 16), (130, 20, 3), (20, 129, 17), (5, 6, 0),
         (20, 30, 0), (0, 5, 3), (40, 0, 3), (4, 4, 300), (33, 17, 129), (2, 3, 1000), (5, 2, 4100)]


@pytest.mark.parametrize("t", DTYPES)
@pytest.mark.parametrize(("threads", "blocks"), [(32, 2), (64, 1), (256, 1), (128, 3), (256, 4)])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products(run: Shim, t: str, threads: int, blocks: int, size: tuple[int, int, int]) -> None:
    m, n, k = size
    rng = np.random.default_rng(m + n + k)
    number = SIZES.index(size) + blocks + threads // 64
    a, b, c = (Laid(rng, rows, columns, t, LAYOUTS[(number * s + s) % len(LAYOUTS)], number * s % 5)
               for s, (rows, columns) in enumerate([(m, k), (k, n), (m, n)], 1))
    check(run, t, a, b, c, number % 2 == 0, threads=threads, blocks=blocks,
          order="reversed" if number % 3 else "forward")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_product(run: Shim, data: st.DataObject) -> None:
    draw = data.draw
    t = draw(st.sampled_from(sorted(DTYPES)))
    m, n, k = (draw(st.integers(0, most)) for most in (70, 70, 80))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    a, b, c = (Laid(rng, *shape, t, draw(st.sampled_from(LAYOUTS)), draw(st.integers(0, 4)))
               for shape in ((m, k), (k, n), (m, n)))
    check(run, t, a, b, c, draw(st.booleans()), threads=draw(st.sampled_from([32, 64, 128, 256])),
          blocks=draw(st.integers(1, 3)), order=draw(st.sampled_from(["forward", "reversed"])))


UNITS = [(1, 4, 1, 1), (1, 4, 12, 12), (5, 3, 7, 7), (64, 4, 20, 20), (16, 1, 40, 40),
         (70, 4, 3, 130), (4, 2, 9, 300), (64, 1, 6, 64), (3, 4, 5, 0), (0, 3, 4, 4),
         (20, 4, 33, 40), (130, 1, 1, 50)]  # rows, gates, units, k


@pytest.mark.parametrize("t", DTYPES)
@pytest.mark.parametrize("held", [0, 1, 3], ids=["unpacked", "packed", "padded"])
@pytest.mark.parametrize("size", UNITS, ids=str)
def test_shares_of_units(run: Shim, t: str, held: int, size: tuple[int, int, int, int]) -> None:
    """Blocks together make the whole product, of the same bits for any number of blocks; with more
    blocks than units, some have none."""
    m, gates, units, k = size
    rng = np.random.default_rng(sum(size))
    number = UNITS.index(size) + held
    a = Laid(rng, m, k, t, LAYOUTS[number % len(LAYOUTS)], number % 3)
    b = Laid(rng, k, gates * units, t, LAYOUTS[(number + 4) % len(LAYOUTS)], number % 2)
    for blocks, threads in ((1, 256), (2, 64), (3, 256), (units + 1, 128)):
        c = Laid(rng, m, gates * units, t, LAYOUTS[(number + blocks) % len(LAYOUTS)], number % 4)
        check(run, t, a, b, c, blocks % 2 == 0, threads=threads, blocks=blocks, units=units,
              held=held, order="reversed" if blocks % 2 else "forward")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_share_of_units(run: Shim, data: st.DataObject) -> None:
    draw = data.draw
    t = draw(st.sampled_from(sorted(DTYPES)))
    m, gates, units, k = (draw(st.integers(low, most)) for low, most in
                          ((0, 70), (1, 4), (1, 20), (0, 140)))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    n = gates * units
    a, b, c = (Laid(rng, *shape, t, draw(st.sampled_from(LAYOUTS)), draw(st.integers(0, 4)))
               for shape in ((m, k), (k, n), (m, n)))
    check(run, t, a, b, c, draw(st.booleans()), threads=draw(st.sampled_from([64, 128, 256])),
          blocks=draw(st.integers(1, 5)), units=units, held=draw(st.sampled_from([0, 1, 3])),
          order=draw(st.sampled_from(["forward", "reversed"])))


@pytest.mark.parametrize("blocks", [1, 2, 5, 13])
def test_blocks_step_by_step(shim: Callable[..., Shim], blocks: int) -> None:
    """A state whose units blocks own goes through many steps, and has the bits of one block."""
    m, units, steps = 6, 12, 5
    rng = np.random.default_rng(5)
    h, u = rng.normal(size=(2, m, units)).astype("f"), rng.normal(size=(units, units)).astype("f")
    want = h[0]
    for _ in range(steps):
        want = ordered(want, u)
    sync = np.zeros(2, np.int64)
    shim(RECURRENCE, "steps").launch("steps", blocks, 64, [sync, h.reshape(-1), u.reshape(-1)],
                                     [m, units, steps], order="alternating", together=True)
    np.testing.assert_array_equal(h[steps % 2], want)


@pytest.mark.parametrize("t", DTYPES)
def test_a_packed_matrix_in_global_memory(run: Shim, t: str) -> None:
    rng = np.random.default_rng(0)
    a, b, c = (Laid(rng, *shape, t) for shape in ((9, 30), (30, 12), (9, 12)))
    check(run, t, a, b, c, True, units=4, held=2)  # one block: packed is as it is


def test_a_product_too_long_is_found(run: Shim) -> None:
    rng = np.random.default_rng(0)
    a, b, c = (Laid(rng, *shape, "float") for shape in ((9, 30), (30, 12), (9, 12)))
    a.buffer = a.buffer[:-1]
    with pytest.raises(ShimError, match=r"reads a\[269\], but a has 269 elements"):
        launch(run, "float", a, b, c, False)


@needs_nvrtc
def test_products_compile() -> None:
    for cubin in compiles(prelude() + TEXT + RECURRENCE).values():
        assert b"units_double" in cubin
