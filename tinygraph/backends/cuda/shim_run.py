"""The C++ after kernels that run on the CPU (see shim.py): it runs a launch's fibers.

Blocks run one after another, to their end; where they run together, to the next grid barrier.
"""

from __future__ import annotations

RUN = r"""
void shim_entry() {
    shim_kernel(shim_views, shim_scalars);
    shim_now->state = SHIM_ENDED;
    shim_leave();
    __builtin_trap();
}

enum { SHIM_CANARY = 0x5a17c0de };

void shim_begin(shim_Fiber& f, char* low, I64 bytes, int thread) {
    void** top = (void**)(low + bytes) - 2 - SHIM_FRAME;
    for (int k = 0; k < SHIM_SAVED; ++k) top[k] = 0;
    top[SHIM_ENTRY] = (void*)shim_entry;
    *(int*)low = SHIM_CANARY;
    f.stack = top; f.low = low; f.state = SHIM_READY; f.thread = thread;
    f.at.x = (shim_U32)thread; f.at.y = f.at.z = 0;
}

bool shim_with(const shim_Fiber& f, const shim_Fiber& g) {
    return g.state == SHIM_AT_WARP && g.line == f.line && g.mask == f.mask;
}

// Lets go on every group of lanes whose members have all come; how many groups that were.
int shim_release(shim_Fiber* lanes, int warp) {
    int groups = 0;
    for (int l = 0; l < 32; ++l) {
        shim_Fiber& f = lanes[l];
        if (f.state != SHIM_AT_WARP || !(f.mask >> l & 1)) continue;
        shim_U32 flags = 0;
        bool all = true;
        for (int k = 0; k < 32; ++k)
            if (f.mask >> k & 1) {
                all = all && shim_with(f, lanes[k]);
                if (lanes[k].source >= 0 && !(f.mask >> lanes[k].source & 1)) all = false;
                flags |= (shim_U32)(lanes[k].value != 0) << k;
            }
        if (!all) continue;
        const shim_U32 mask = f.mask;
        if (mask == 0xffffffffu && f.source == -2) ++shim_ticks[warp];
        for (int k = 0; k < 32; ++k)
            if (mask >> k & 1) {
                shim_Fiber& g = lanes[k];
                g.result = g.source < 0 ? flags : lanes[g.source].value;
                g.state = SHIM_READY;
            }
        ++groups;
    }
    return groups;
}

bool shim_run_warp(int warp, int reversed) {
    shim_Fiber* lanes = shim_team + warp * 32;
    do {
        for (int k = 0; k < 32; ++k) {
            shim_Fiber& f = lanes[reversed ? 31 - k : k];
            if (f.state != SHIM_READY) continue;
            shim_now = &f;
            shim_switch(&shim_main, f.stack);
            if (*(int*)f.low != SHIM_CANARY || (char*)f.stack < f.low)
                shim_stop(SHIM_STACK, f, 0);
            if (shim_report.kind) return false;
        }
    } while (shim_release(lanes, warp));
    return true;
}

enum { SHIM_STOPPED, SHIM_GOES_ON, SHIM_HAS_ENDED, SHIM_WAITS };

// After every thread of the block has run as far as it can: lets them go on from a barrier.
int shim_gather(int threads) {
    shim_Fiber* f = shim_team;
    int done = 0, flag = 0;
    for (int t = 0; t < threads; ++t) {
        done += f[t].state == SHIM_ENDED;
        if (f[t].state == SHIM_AT_BARRIER) flag |= f[t].flag;
        if (f[t].state != SHIM_AT_WARP) continue;
        const shim_Fiber* other = 0;  // none: its own lane, or the one it takes from, is not in
        for (int k = 31; k >= 0; --k) {
            const shim_Fiber& g = f[t / 32 * 32 + k];
            if ((f[t].mask >> k & 1) && !shim_with(f[t], g)) other = &g;
        }
        shim_stop(SHIM_WARP, f[t], other);
        return SHIM_STOPPED;
    }
    if (done == threads) return SHIM_HAS_ENDED;
    int first = 0;
    while (f[first].state == SHIM_ENDED) ++first;
    for (int t = 0; t < threads; ++t)
        if (f[t].state != f[first].state || f[t].line != f[first].line) {
            shim_stop(SHIM_BARRIER, f[first], &f[t]);
            return SHIM_STOPPED;
        }
    if (f[0].state == SHIM_AT_GRID) return SHIM_WAITS;
    for (int t = 0; t < threads; ++t) { f[t].flag = flag; f[t].state = SHIM_READY; }
    return SHIM_GOES_ON;
}

// Runs the block of shim_team until all its threads have ended or wait for the grid.
int shim_run_block(int threads, int reversed) {
    shim_first = ++shim_era;
    for (;;) {
        for (int w = 0; w < threads / 32; ++w)
            if (!shim_run_warp(reversed ? threads / 32 - 1 - w : w, reversed)) return SHIM_STOPPED;
        const int how = shim_gather(threads);
        if (how != SHIM_GOES_ON) return how;
        ++shim_era;
    }
}

void shim_one_by_one(I64 blocks, int threads, int reversed, char* stacks, I64 bytes) {
    shim_phase = ++shim_era;
    for (I64 b = 0; b < blocks; ++b) {
        shim_block.x = (shim_U32)(reversed ? blocks - 1 - b : b);
        for (int t = 0; t < threads; ++t) shim_begin(shim_team[t], stacks + bytes * t, bytes, t);
        shim_born = shim_era + 1;
        if (shim_run_block(threads, reversed) != SHIM_HAS_ENDED) return;
    }
}

// A grid barrier: true where all blocks have come and go on; false where they have all ended, or
// where some wait for others that have.
bool shim_gather_blocks(int blocks, int threads) {
    int waits = -1, ended = -1;
    for (int b = blocks - 1; b >= 0; --b)
        (shim_fibers[b * threads].state == SHIM_ENDED ? ended : waits) = b;
    if (waits < 0) return false;
    if (ended >= 0) {
        shim_block.x = (shim_U32)waits;
        shim_stop(SHIM_GRID, shim_fibers[waits * threads], &shim_fibers[ended * threads]);
        shim_report.other_block = ended;
        return false;
    }
    ++shim_counts[1];
    shim_phase = ++shim_era;
    shim_Shadow* s = shim_sync_view->shadow
        + (((char*)shim_counts - shim_sync_view->start) >> shim_sync_view->shift);
    for (I64 k = 2 * sizeof(I64) >> shim_sync_view->shift; k > 0; --k, ++s) s->wrote = shim_phase;
    for (int t = 0; t < blocks * threads; ++t) shim_fibers[t].state = SHIM_READY;
    return true;
}

void shim_all_together(int blocks, int threads, int order, char* stacks, I64 bytes) {
    for (int t = 0; t < blocks * threads; ++t)
        shim_begin(shim_fibers[t], stacks + bytes * t, bytes, t % threads);
    shim_born = 1;
    shim_phase = ++shim_era;
    for (int phase = 0;; ++phase) {
        const int reversed = order == 2 ? phase & 1 : order;
        for (int k = 0; k < blocks; ++k) {
            const int b = reversed ? blocks - 1 - k : k;
            shim_block.x = (shim_U32)b;
            shim_team = shim_fibers + b * threads;
            if (!shim_run_block(threads, reversed)) return;
        }
        if (!shim_gather_blocks(blocks, threads)) return;
    }
}
}

extern "C" __attribute__((visibility("default")))
int shim_launch(int kernel, I64 blocks, int threads, int order, int together,
                const shim_View* views, const I64* scalars, char* stacks, I64 bytes, I64 dynamic,
                shim_Report* report) {
    shim_kernel = shim_kernels[kernel]; shim_views = views; shim_scalars = scalars;
    shim_dynamic = dynamic; shim_together = together; shim_sync_view = 0; shim_team = shim_fibers;
    shim_threads.x = (shim_U32)threads; shim_blocks.x = (shim_U32)blocks;
    shim_threads.y = shim_threads.z = shim_blocks.y = shim_blocks.z = 1;
    shim_report = shim_Report();
    if (together) shim_all_together((int)blocks, threads, order, stacks, bytes);
    else shim_one_by_one(blocks, threads, order == 1, stacks, bytes);
    while (shim_owned) {
        shim_Own* own = shim_owned;
        shim_owned = own->next;
        free(own->parts);
        own->parts = 0;
    }
    *report = shim_report;
    return (int)shim_report.kind;
}
"""
