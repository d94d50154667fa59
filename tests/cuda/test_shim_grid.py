"""Blocks that wait for one another in the shim, and what it finds there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tinygraph.backends.cuda.shim import Shim, ShimError

Build = Callable[..., Shim]

TOGETHER = r"""
// Every step makes state (s + 1) % 2 from all of state s % 2; a block has a share of it.
extern "C" __global__ void steps(BUF(I64) sync, BUF(double) x, BUF(double) sums, I64 n, I64 steps,
                                 I64 skipped) {
    __shared__ double mine[64], scale;
    extern __shared__ double room[];
    const I64 share = (n + gridDim.x - 1) / gridDim.x, first = blockIdx.x * share;
    mine[threadIdx.x] = 0.0;
    room[blockDim.x - 1 - threadIdx.x] = (double)blockIdx.x;
    if (threadIdx.x == 0) scale = 1.0 / n;
    __syncthreads();
    for (I64 s = 0; s < steps; ++s) {
        for (I64 i = first + threadIdx.x; i < first + share && i < n; i += blockDim.x) {
            double sum = 0.0;
            for (I64 j = 0; j < n; ++j) sum += x[s % 2 * n + j] * (double)(1 + (i + j) % 3);
            x[(s + 1) % 2 * n + i] = sum * scale;
            mine[threadIdx.x] += sum * scale;
        }
        if (s != skipped) tg_grid(sync);
        else __syncthreads();
    }
    const double sum = tg_block<tg_Add, double>(mine[threadIdx.x], 0.0);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum + room[blockDim.x - 1];
}
extern "C" __global__ void faults(BUF(I64) sync, BUF(I64) x, I64 how) {
    __shared__ I64 part[64];
    extern __shared__ I64 room[];
    const I64 t = threadIdx.x, b = blockIdx.x;
    if (how == 1 && b == 2) return;
    if (how == 2 && t >= 32) return;
    if (how == 3) { if (t < 32) { tg_grid(sync); } else { __syncthreads(); } }
    if (how == 4) { if (t < 32) { tg_grid(sync);
        } else { tg_grid(sync); } }
    if (how == 5 && b == 0) part[t] = t;
    if (how == 9 && b == 1 && t == 7) sync[1] = 5;
    if (how == 10 && b == 0 && t == 63) x[0] = sync[0];
    if (how == 14 && b == 1 && t == 40) room[64] = 1;
    x[t + b * blockDim.x] = b;
    tg_grid(sync);
    if (how == 5) x[t + b * blockDim.x] = part[t];
    if (how == 6 && b == 1) x[t + (t == 9) * 4096] = 1;
    if (how == 7 && b == 1) { x[64 + t] = t; x[t] = x[64 + (t ^ 32)]; }
    if (how == 8) x[(b + 1) % gridDim.x * blockDim.x + t] = x[t + b * blockDim.x];
    if (how == 11 && b == 3 && t == 1) x[0] = sync[1];
    if (how == 12) tg_grid(sync + 2);
    if (b % 2) {
        tg_grid(sync);
    } else {
        tg_grid(sync);
    }
    if (how == 13 && b != 1) tg_grid(sync);
    if (how == 15 && b == 0 && t == 2) x[0] = sync[0];
}
extern "C" __global__ void turns(BUF(I64) sync, BUF(I64) x) {
    for (I64 k = 0; k <= gridDim.x; ++k) {
        const I64 at = (blockIdx.x + k) % gridDim.x * blockDim.x + threadIdx.x;
        x[at] = 2 * x[at] + blockIdx.x;
        tg_grid(sync);
    }
}
extern "C" __global__ void first(BUF(I64) sync, BUF(I64) won, I64 rounds) {
    for (I64 k = 0; k < rounds; ++k) {
        tg_first(won + k, tg_thread() + 1);
        atomicCAS((U64*)(won + rounds), (U64)tg_thread(), (U64)(tg_thread() + 1));
        tg_grid(sync);
    }
}
extern "C" __global__ void stops(BUF(I64) sync, BUF(I64) fault, BUF(I64) x, I64 bad, I64 late) {
    for (I64 k = 0; k < 3; ++k) {
        if (late && fault[0] != 0) return;  // while another block fails
        if (k == 1 && tg_thread() == bad) tg_fault(fault, 6, 1, bad, 0, 0, 0);
        if (k == 1 && tg_thread() % 32 == 9) tg_first(fault + 7, 1);
        tg_grid(sync);
        if (!late) {
            const bool stop = fault[0] != 0;
            tg_grid(sync);
            if (stop) return;
        }
        x[tg_thread()] += 1;
    }
}
"""


@pytest.fixture(scope="module")
def together(shim: Build) -> Shim:
    return shim(TOGETHER, "steps", "faults", "first", "stops", "turns",
                shared_bytes=64 * 8)


def _steps(run: Shim, n: int, steps: int, blocks: int, order: str = "forward",
           skipped: int = -1) -> None:
    x = np.random.default_rng(n).normal(size=(2, n))
    i, j = np.indices((n, n))
    state, shares = x[0].copy(), [range(k, min(k + -(-n // blocks), n))
                                  for k in range(0, blocks * -(-n // blocks), -(-n // blocks))]
    sync, sums, want = np.zeros(2, np.int64), np.zeros(blocks), np.arange(float(blocks))
    for _ in range(steps):
        state = (1 + (i + j) % 3) @ state / n
        want += [state[list(share)].sum() for share in shares]
    run.launch("steps", blocks, 64, [sync, x.reshape(-1), sums], [n, steps, skipped],
               order=order, together=True)
    np.testing.assert_allclose(x[steps % 2], state)
    np.testing.assert_allclose(sums, want)
    assert sync.tolist() == [0, steps - (skipped >= 0)]


@pytest.mark.parametrize("order", ["forward", "reversed", "alternating"])
@pytest.mark.parametrize(("blocks", "n", "steps"), [(1, 5, 3), (4, 150, 5), (16, 31, 4)])
def test_blocks_that_wait_for_one_another(together: Shim, blocks: int, n: int, steps: int,
                                          order: str) -> None:
    _steps(together, n, steps, blocks, order)


@pytest.mark.parametrize("order", ["forward", "reversed", "alternating"])
def test_a_grid_barrier_that_is_missing(together: Shim, order: str) -> None:
    with pytest.raises(ShimError, match=r"x\[\d+\], which block \d (wrote|read) with no grid") as e:
        _steps(together, 12, 4, 3, order, skipped=1)
    assert (e.value.kind, e.value.buffer) == ("race", "x")
    assert e.value.other[0] not in (e.value.block, -1)
    _steps(together, 12, 4, 1, order, skipped=1)  # a barrier of the block does for one


@pytest.mark.parametrize(("how", "kind", "said"), [
    (1, "grid", r"block 0, thread 0 waits for the grid at `tg_grid\(sync\);`, a grid barrier that "
                "not all blocks reach: block 2 has ended"),
    (13, "grid", r"block 0, thread 0 waits .* not all blocks reach: block 1 has ended"),
    (2, "barrier", r"block 0, thread 0 waits .*tg_grid.* but thread 32 has ended"),
    (3, "barrier", r"block 0, thread 0 waits .*tg_grid.* but thread 32 waits at `if \(how == 3"),
    (4, "barrier", r"block 0, thread 0 waits .*tg_grid.* but thread 32 waits at `} else { tg_grid"),
    (5, "uninitialised", r"block 1, thread 0 reads part\[0\] of shared memory, which this block"),
    (6, "out-of-bounds write", r"block 1, thread 9 writes x\[4105\], but x has 256 elements"),
    (7, "race", r"block 1, thread \d+ \w+ x\[\d+\], which thread \d+ (read|wrote) with no barrier"),
    (8, "race", r"block 1, thread 0 reads x\[64\], which block 0 wrote with no grid barrier"),
    (9, "grid", r"block 1, thread 7 touches sync\[1\], which only tg_grid may"),
    (10, "grid", r"block 0, thread 63 touches sync\[0\], which only tg_grid may"),
    (11, "grid", r"block 3, thread 1 touches sync\[1\], which only tg_grid may"),
    (12, "grid", r"block 0, thread 0 waits .* by sync\[2\], but other threads waited by another"),
    (15, "grid", r"block 0, thread 2 touches sync\[0\], which only tg_grid may"),
    (14, "out-of-bounds write", r"thread 40 writes room\[64\], but room has 64 elements")])
def test_faults_of_blocks_that_wait(together: Shim, how: int, kind: str, said: str) -> None:
    x = np.zeros(256, np.int64)
    with pytest.raises(ShimError, match=said) as e:
        together.launch("faults", 4, 64, [np.zeros(4, np.int64), x], [how], together=True)
    assert e.value.kind == kind
    with pytest.raises(ShimError, match=r"\w+: block"):
        together.launch("faults", 4, 64, [np.zeros(4, np.int64), x], [how], order="reversed",
                        together=True)
    sync = np.zeros(2, np.int64)
    together.launch("faults", 4, 64, [sync, x], [0], together=True)  # and it goes on to work
    np.testing.assert_array_equal(x, np.arange(256) // 64)
    assert sync.tolist() == [0, 2]


@pytest.mark.parametrize("order", ["forward", "reversed", "alternating"])
def test_blocks_that_take_turns(together: Shim, order: str) -> None:
    x, want = np.arange(128), np.arange(128)
    together.launch("turns", 4, 32, [np.zeros(2, np.int64), x], order=order, together=True)
    for k in range(5):
        want = 2 * want + (np.arange(128) // 32 - k) % 4
    np.testing.assert_array_equal(x, want)


def test_what_a_grid_barrier_needs(together: Shim) -> None:
    x, sync = np.zeros(256, np.int64), np.zeros(2, np.int64)
    with pytest.raises(ShimError, match="but blocks run one after another: launch it with") as e:
        together.launch("faults", 4, 64, [sync, x], [0])
    assert (e.value.kind, e.value.block, e.value.thread) == ("grid", 0, 0)
    with pytest.raises(ShimError, match=r"but sync\[0\] is not 0 before the launch"):
        together.launch("faults", 4, 64, [sync + 1, x], [0], together=True)
    with pytest.raises(ShimError, match=r"writes sync\[1\], but sync has 1 elements"):
        together.launch("faults", 4, 64, [sync[:1], x], [0], together=True)
    constant = sync.copy()
    constant.flags.writeable = False
    with pytest.raises(ShimError, match=r"writes sync\[0\], but sync may only be read"):
        together.launch("faults", 4, 64, [constant, x], [0], together=True)
    with pytest.raises(ValueError, match="32 blocks of 64 threads cannot run together in the shim, "
                                         "which has stacks for 1024 threads: launch 16 blocks"):
        together.launch("faults", 32, 64, [sync, x], [0], together=True)
    with pytest.raises(ValueError, match="it must be 'forward', 'reversed' or 'alternating'"):
        together.launch("faults", 4, 64, [sync, x], [0], order="random")


@pytest.mark.parametrize(("order", "first"), [
    ("forward", [1, 1, 1, 128]), ("reversed", [128, 128, 128, 3]),
    ("alternating", [1, 128, 1, 128])])
def test_the_order_of_blocks_between_grid_barriers(together: Shim, order: str,
                                                   first: list[int]) -> None:
    won = np.zeros(4, np.int64)
    together.launch("first", 4, 32, [np.zeros(2, np.int64), won], [3], order=order, together=True)
    assert won.tolist() == first


@pytest.mark.parametrize("order", ["forward", "reversed", "alternating"])
@pytest.mark.parametrize("bad", [0, 40, 127])
def test_blocks_that_stop_at_a_failure(together: Shim, bad: int, order: str) -> None:
    def launch(bad: int, late: int) -> list[list[int]]:
        sync, fault, x = np.zeros(2, np.int64), np.zeros(8, np.int64), np.zeros(128, np.int64)
        together.launch("stops", 4, 32, [sync, fault, x], [bad, late], order=order, together=True)
        return [fault.tolist(), np.unique(x).tolist()]

    assert launch(bad, 0) == [[7, bad, 0, 0, 0, 0, 0, 1], [1]]
    assert launch(-1, 0) == launch(-1, 1) == [[0, 0, 0, 0, 0, 0, 0, 1], [3]]
    with pytest.raises(ShimError, match=r"fault\[0\], which .* with no (grid )?barrier") as e:
        launch(bad, 1)
    assert (e.value.kind, e.value.buffer, e.value.index) == ("race", "fault", 0)
