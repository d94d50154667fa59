"""The C++ before kernels that run on the CPU (see shim.py): what CUDA gives, and checked memory.

Names begin with shim_.  Nothing is included, so that a kernel compiles in a fraction of a second.
A thread of a block is a fiber with a stack of its own; shim_run.py has what runs them.
"""

from __future__ import annotations

STACK = 1 << 16  # bytes per thread
APRON = 1 << 20  # below the first stack, for what runs over
SHADOW = 40  # bytes that the shim keeps per element to find races
REPORT = ("kind", "buffer", "name", "index", "size", "block", "thread", "other_block",
          "other_thread", "line", "other_line")
VIEW = ("start", "shadow", "data", "size", "shift", "writable")
KINDS = ("", "out-of-bounds read", "out-of-bounds write", "race", "uninitialised", "read-only",
         "barrier", "warp", "stack", "grid", "misaligned")

_ONE = """acos acosh asin asinh atan atanh cbrt ceil cos cosh erf erfc exp exp2 expm1 fabs floor
    lgamma log log10 log1p log2 rint round sin sinh sqrt tan tanh tgamma trunc""".split()
_TWO = "atan2 copysign fmax fmin fmod hypot pow".split()


def _math() -> str:
    lines = []
    for name in _ONE:
        lines.append(f"double {name}(double); float {name}f(float);")
    for name in _TWO:
        lines.append(f"double {name}(double, double); float {name}f(float, float);")
    lines.append("double fma(double, double, double); float fmaf(float, float, float);")
    lines.append("void* calloc(__SIZE_TYPE__, __SIZE_TYPE__); void free(void*);")
    return 'extern "C" {\n' + "\n".join(lines) + "\n}\n"


_SWITCH = r"""
typedef long long I64;
typedef unsigned long long U64;
typedef unsigned int shim_U32;

extern "C" void shim_switch(void** save, void* load) __asm__("shim_switch");
#if defined(__x86_64__) && !defined(_WIN32)
__asm__(".text\n.p2align 4\nshim_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");
enum { SHIM_SAVED = 6, SHIM_ENTRY = 6, SHIM_FRAME = 8 };
#elif defined(__aarch64__) && !defined(_WIN32)
__asm__(".text\n.p2align 4\nshim_switch:\n"
        "sub sp, sp, #160\n"
        "stp x19, x20, [sp, #0]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\n"
        "stp x25, x26, [sp, #48]\nstp x27, x28, [sp, #64]\nstp x29, x30, [sp, #80]\n"
        "stp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\n"
        "stp d12, d13, [sp, #128]\nstp d14, d15, [sp, #144]\n"
        "mov x9, sp\nstr x9, [x0]\nmov sp, x1\n"
        "ldp x19, x20, [sp, #0]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\n"
        "ldp x25, x26, [sp, #48]\nldp x27, x28, [sp, #64]\nldp x29, x30, [sp, #80]\n"
        "ldp d8, d9, [sp, #96]\nldp d10, d11, [sp, #112]\n"
        "ldp d12, d13, [sp, #128]\nldp d14, d15, [sp, #144]\n"
        "add sp, sp, #160\nret\n");
enum { SHIM_SAVED = 20, SHIM_ENTRY = 11, SHIM_FRAME = 20 };
#else
#error "the shim switches fibers on x86-64 and arm64 with the System V convention only"
#endif
"""

_STATE = r"""
enum { SHIM_READY, SHIM_ENDED, SHIM_AT_BARRIER, SHIM_AT_WARP, SHIM_AT_GRID };
enum { SHIM_FINE, SHIM_BAD_READ, SHIM_BAD_WRITE, SHIM_RACE, SHIM_UNSET, SHIM_CONST, SHIM_BARRIER,
       SHIM_WARP, SHIM_STACK, SHIM_GRID, SHIM_MISALIGNED };
// What is wrong with a grid barrier (report.other_line).
enum { SHIM_NOT_ALL, SHIM_NOT_TOGETHER, SHIM_NOT_ZERO, SHIM_ANOTHER, SHIM_TOUCHED };
enum { SHIM_TG_GRID = 0xffff };  // "thread" that writes what tg_grid counts with

struct shim_Index { shim_U32 x, y, z; };
struct shim_Fiber {
    void* stack;
    char* low;  // where its stack ends
    int state, line, thread, flag;
    shim_U32 mask;
    int source;  // the lane whose value it takes
    U64 value, result;
    shim_Index at;
};
// Who last wrote and read an element.  An era is the time between two barriers of a block, a tick
// that between two synchronisations of a warp; no two blocks have an era in common.  A phase is
// the time between two grid barriers, or a launch without any: in it blocks run one after another.
struct shim_Shadow {
    shim_U32 wrote, wrote_tick, wrote_block;
    unsigned short wrote_thread, read_warp;
    shim_U32 read, read_tick, read_lanes, read_block;
    unsigned short read_other, atomic;
    shim_U32 padding;
};
static_assert(sizeof(shim_Shadow) == 40, "as shim_text.py has it");
struct shim_View { char* start; shim_Shadow* shadow; char* data; I64 size, shift, writable; };
struct shim_Report {
    I64 kind, buffer; const char* name; I64 index, size, block, thread, other_block, other_thread,
        line, other_line;
};

// Shared arrays are static.  Where blocks run together, each has its part of ``parts`` instead.
struct shim_Own { char* parts; shim_Own* next; };

shim_Fiber shim_fibers[1024];  // of one block, or of all that run together
shim_Fiber* shim_team;  // those of the block that runs
shim_Fiber* shim_now;
void* shim_main;
shim_Index shim_block, shim_threads, shim_blocks;
// Eras: the present one, the block's first in this phase, the one before the phase's first, and the
// first in which the block can have written shared memory.
shim_U32 shim_era, shim_first, shim_phase, shim_born, shim_ticks[32];
int shim_together;  // whether all blocks run at one time
shim_Own* shim_owned;
const shim_View* shim_sync_view;  // the buffer with which grid barriers of this launch count,
I64* shim_counts;  // and where in it
I64 shim_dynamic;  // bytes of shared memory that the launch gives
shim_Report shim_report;
const shim_View* shim_views;
const I64* shim_scalars;
void (*shim_kernel)(const shim_View*, const I64*);

namespace {
inline void shim_leave() { shim_switch(&shim_now->stack, shim_main); }

__attribute__((noinline)) void shim_fail(int kind, const shim_View* view, const char* name,
                                         I64 index, I64 size, const shim_Shadow* s, int writes) {
    shim_Report& r = shim_report;
    r.kind = kind; r.buffer = view ? view - shim_views : -1; r.name = name;
    r.index = index; r.size = size; r.block = shim_block.x; r.thread = shim_now->thread;
    r.other_block = r.other_thread = -1; r.line = writes; r.other_line = 0;
    if (s && kind == SHIM_RACE && s->wrote >= shim_phase && s->wrote_thread == SHIM_TG_GRID) {
        r.kind = SHIM_GRID; r.other_line = SHIM_TOUCHED;
    } else if (s && kind == SHIM_RACE) {
        const int thread = shim_now->thread;
        const bool newer = s->wrote == shim_era && s->wrote_thread != thread
            && (s->wrote_thread / 32 != thread / 32
                || s->wrote_tick == shim_ticks[thread / 32]);
        if (s->wrote >= shim_phase && (s->wrote < shim_first || newer)) {
            r.other_block = s->wrote_block; r.other_thread = s->wrote_thread; r.other_line = 1;
        } else if (s->read >= shim_phase && s->read_block != shim_block.x + 1 && !name) {
            r.other_block = s->read_block - 1;
        } else {
            const shim_U32 mine = s->read_warp == thread / 32 ? 1u << thread % 32 : 0;
            r.other_block = shim_block.x;
            r.other_thread = s->read_lanes & ~mine && !s->read_other
                ? s->read_warp * 32 + __builtin_ctz(s->read_lanes & ~mine) : s->read_other - 1;
            if (r.other_thread == thread) r.other_thread = s->read_warp * 32;
        }
    }
    shim_leave();
    __builtin_trap();
}

// Notes a read; false where another thread wrote the element at the same time.
inline bool shim_reads(shim_Shadow& s, bool shared) {
    const int thread = shim_now->thread, warp = thread >> 5;
    const shim_U32 bit = 1u << (thread & 31), tick = shim_ticks[warp];
    if (s.wrote >= shim_phase) {
        if (!shared && s.wrote < shim_first) return false;
        if (s.wrote == shim_era && s.wrote_thread != thread
            && (s.wrote_thread >> 5 != warp || s.wrote_tick == tick)) return false;
    }
    if (s.read < shim_phase) s.read_block = shim_block.x + 1;
    if (s.read != shim_era) {
        s.read = shim_era; s.read_tick = tick; s.read_warp = (unsigned short)warp;
        s.read_lanes = bit; s.read_other = 0;
    } else if (s.read_warp != warp) {
        s.read_other = (unsigned short)(thread + 1);
    } else {
        s.read_lanes = s.read_tick == tick ? s.read_lanes | bit : bit;
        s.read_tick = tick;
    }
    return true;
}

// Notes a write; false where another thread wrote or read the element at the same time.
inline bool shim_writes(shim_Shadow& s, bool shared) {
    const int thread = shim_now->thread, warp = thread >> 5;
    const shim_U32 bit = 1u << (thread & 31), tick = shim_ticks[warp];
    if (s.wrote >= shim_phase) {
        if (!shared && s.wrote < shim_first) return false;
        if (s.wrote == shim_era && s.wrote_thread != thread
            && (s.wrote_thread >> 5 != warp || s.wrote_tick == tick)) return false;
    }
    if (!shared && s.read >= shim_phase && s.read_block != shim_block.x + 1) return false;
    if (s.read == shim_era && (s.read_other || s.read_warp != warp
                               || (s.read_tick == tick && (s.read_lanes & ~bit)))) return false;
    s.wrote = shim_era; s.wrote_tick = tick; s.wrote_block = shim_block.x;
    s.wrote_thread = (unsigned short)thread; s.atomic = 0;
    return true;
}

}
"""

_ACCESS = r"""
namespace {
// What a kernel writes as x[i]: checked when read or written.  It becomes what is asked of it, so
// that `c ? x[i] : y` has the type of y, where CUDA has that of both: y must be of type T.
template<class Place, class T> struct shim_Element {
    Place place; I64 i;
    operator T() const { return place.get(i); }
    const shim_Element& operator=(T v) const { place.set(i, v); return *this; }
    const shim_Element& operator=(const shim_Element& v) const { return *this = (T)v; }
    shim_Element(const Place& p, I64 at) : place(p), i(at) {}
    shim_Element(const shim_Element&) = default;
#define SHIM_UPDATE(op) \
    template<class V> const shim_Element& operator op##=(V v) const { \
        return *this = (T)((T)*this op v); \
    }
    SHIM_UPDATE(+) SHIM_UPDATE(-) SHIM_UPDATE(*) SHIM_UPDATE(/) SHIM_UPDATE(%)
    SHIM_UPDATE(&) SHIM_UPDATE(|) SHIM_UPDATE(^)
};

struct shim_Atomic { const shim_View* view; char* at; I64 index, size; };
shim_Atomic shim_atomic;  // where the next atomic function works

template<class T> struct shim_Buffer {
    T* data; I64 low, high; const shim_View* view;
    shim_Buffer(const shim_View* v) : data((T*)v->data), low(0), high(v->size), view(v) {}
    shim_Element<shim_Buffer, T> operator[](I64 i) const { return {*this, i}; }
    shim_Buffer operator+(I64 d) const {
        shim_Buffer b = *this; b.data += d; b.low -= d; b.high -= d; return b;
    }
    friend shim_Buffer operator+(I64 d, shim_Buffer b) { return b + d; }
    void check(I64 i, int writes) const {
        if (i < low || i >= high)
            shim_fail(writes ? SHIM_BAD_WRITE : SHIM_BAD_READ, view, 0, i - low, high - low, 0,
                      writes);
        if (writes && !view->writable)
            shim_fail(SHIM_CONST, view, 0, i - low, high - low, 0, 1);
        shim_Shadow* s = view->shadow + (((char*)(data + i) - view->start) >> view->shift);
        for (I64 k = sizeof(T) >> view->shift; k > 0; --k, ++s)
            if (!(writes ? shim_writes(*s, false) : shim_reads(*s, false)))
                shim_fail(SHIM_RACE, view, 0, i - low, high - low, s, writes);
    }
    T get(I64 i) const { check(i, 0); return data[i]; }
    void set(I64 i, T v) const { check(i, 1); data[i] = v; }
    explicit operator U64*() const {  // for atomics
        if (low > 0 || high <= 0) shim_fail(SHIM_BAD_WRITE, view, 0, -low, high - low, 0, 1);
        shim_atomic = {view, (char*)data, -low, high - low};
        return (U64*)data;
    }
};

// What an atomic function has changed.  These do not race with one another.  Neither do they with
// other accesses, but where blocks run together: who has read the old value may go another way than
// who has read the new one, and not come to the next grid barrier.
inline void shim_changed() {
    const shim_Atomic& a = shim_atomic;
    if (!shim_together) return;
    shim_Shadow* s = a.view->shadow + ((a.at - a.view->start) >> a.view->shift);
    for (I64 k = sizeof(U64) >> a.view->shift; k > 0; --k, ++s) {
        if (s->atomic) s->wrote = 0;
        if (!shim_writes(*s, false)) shim_fail(SHIM_RACE, a.view, 0, a.index, a.size, s, 1);
        s->atomic = 1;
    }
}

template<class T> struct shim_Cell { T value; shim_Shadow shadow; };

// The block's copy of a shared array.
template<class T> inline shim_Cell<T>* shim_own(shim_Own& own, shim_Cell<T>* cells, I64 size) {
    if (!shim_together) return cells;
    const I64 bytes = (size + 1) * sizeof(shim_Cell<T>);
    if (!own.parts) {
        own.parts = (char*)calloc(shim_blocks.x, bytes);
        if (!own.parts) __builtin_trap();
        own.next = shim_owned; shim_owned = &own;
    }
    return (shim_Cell<T>*)(own.parts + bytes * shim_block.x);
}

// An array in shared memory, or a row of one.
template<class T> struct shim_Shared {
    shim_Cell<T>* cells; I64 low, high; const char* name;
    shim_Element<shim_Shared, T> operator[](I64 i) const { return {*this, i}; }
    shim_Shared operator+(I64 d) const { return {cells + d, low - d, high - d, name}; }
    void bounds(I64 i, int writes) const {
        if (i < low || i >= high)
            shim_fail(writes ? SHIM_BAD_WRITE : SHIM_BAD_READ, 0, name, i - low, high - low, 0,
                      writes);
    }
    T get(I64 i) const {
        bounds(i, 0);
        shim_Shadow* s = &cells[i].shadow;
        if (s->wrote < shim_born)
            shim_fail(SHIM_UNSET, 0, name, i - low, high - low, 0, 0);
        if (!shim_reads(*s, true)) shim_fail(SHIM_RACE, 0, name, i - low, high - low, s, 0);
        return cells[i].value;
    }
    void set(I64 i, T v) const {
        bounds(i, 1);
        shim_Shadow* s = &cells[i].shadow;
        if (!shim_writes(*s, true)) shim_fail(SHIM_RACE, 0, name, i - low, high - low, s, 1);
        cells[i].value = v;
    }
};
template<class T> struct shim_Shared2 {
    shim_Cell<T>* cells; I64 rows, columns; const char* name;
    shim_Shared<T> operator[](I64 i) const {
        if (i < 0 || i >= rows) shim_fail(SHIM_BAD_READ, 0, name, i, rows, 0, 0);
        return {cells + i * columns, 0, columns, name};
    }
};

// Four elements in pieces: these must lie as CUDA wants it.
template<class T> inline U64 shim_address(const shim_Buffer<T>& p) { return (U64)p.data; }
template<class T> inline U64 shim_address(const shim_Shared<T>& p) {
    return (U64)(-p.low * (I64)sizeof(T));
}
template<class P, class T> inline bool shim_lies(const P& p, const T*) {
    return shim_address(p) % (sizeof(T) < 4 ? 4 * sizeof(T) : 16) == 0;
}
template<class T> inline void shim_piece(const shim_Buffer<T>& p, const T* x, int writes) {
    if (!shim_lies(p, x))
        shim_fail(SHIM_MISALIGNED, p.view, 0, -p.low, p.high - p.low, 0, writes);
}
template<class T> inline void shim_piece(const shim_Shared<T>& p, const T* x, int writes) {
    if (!shim_lies(p, x))
        shim_fail(SHIM_MISALIGNED, 0, p.name, -p.low, p.high - p.low, 0, writes);
}
#define SHIM_PIECES(P) \
    template<class T> inline bool tg_aligned(P<T> p) { return shim_lies(p, (const T*)0); } \
    template<class T> inline void tg_load4(P<T> p, T* x) { \
        shim_piece(p, x, 0); \
        for (int j = 0; j < 4; ++j) x[j] = p.get(j); \
    } \
    template<class T> inline void tg_store4(P<T> p, const T* x) { \
        shim_piece(p, x, 1); \
        for (int j = 0; j < 4; ++j) p.set(j, x[j]); \
    }
SHIM_PIECES(shim_Buffer) SHIM_PIECES(shim_Shared)

inline void shim_wait(int state, int line) {
    shim_now->state = state; shim_now->line = line;
    shim_leave();
}
inline int shim_sync(int line, int flag) {
    shim_now->flag = flag != 0;
    shim_wait(SHIM_AT_BARRIER, line);
    return shim_now->flag;
}
void shim_stop(int kind, const shim_Fiber& f, const shim_Fiber* other) {
    shim_Report& r = shim_report;
    r.kind = kind; r.buffer = -1; r.name = 0; r.index = r.size = 0; r.block = shim_block.x;
    r.thread = f.thread; r.line = f.line; r.other_block = shim_block.x;
    r.other_thread = other ? other->thread : -1;
    r.other_line = !other || other->state == SHIM_ENDED ? 0 : other->line;
}

// The grid barrier: waits for all threads of all blocks.  What it counts with is its own.
__attribute__((noinline)) void shim_grid(int line, shim_Buffer<I64> sync) {
    const shim_View* view = sync.view;
    shim_now->line = line;
    if (sync.low > 0 || sync.high < 2)
        shim_fail(SHIM_BAD_WRITE, view, 0, (sync.low <= 0 && sync.high == 1) - sync.low,
                  sync.high - sync.low, 0, 1);
    if (!view->writable) shim_fail(SHIM_CONST, view, 0, -sync.low, sync.high - sync.low, 0, 1);
    int wrong = SHIM_NOT_ALL;
    if (!shim_together) wrong = SHIM_NOT_TOGETHER;
    else if (!shim_sync_view && sync.data[0]) wrong = SHIM_NOT_ZERO;
    else if (shim_sync_view && shim_counts != sync.data) wrong = SHIM_ANOTHER;
    shim_sync_view = view; shim_counts = sync.data;
    shim_Shadow* s = view->shadow + (((char*)sync.data - view->start) >> view->shift);
    for (I64 k = 2 * sizeof(I64) >> view->shift; k > 0; --k, ++s) {
        if (!wrong && (s->read >= shim_phase || (s->wrote >= shim_phase
                                                 && s->wrote_thread != SHIM_TG_GRID)))
            wrong = SHIM_TOUCHED;
        s->wrote = shim_phase; s->wrote_thread = SHIM_TG_GRID;
    }
    if (wrong) {
        shim_stop(SHIM_GRID, *shim_now, 0);
        shim_report.buffer = view - shim_views; shim_report.index = -sync.low;
        shim_report.size = sync.high - sync.low; shim_report.other_line = wrong;
        shim_leave();
    }
    shim_wait(SHIM_AT_GRID, line);
}
// Waits for the lanes of the mask; a ``source`` of -1 asks for the mask of their flags, one of -2
// for nothing but their memory.
__attribute__((noinline)) U64 shim_meet(int line, shim_U32 mask, U64 value, int source) {
    shim_now->mask = mask; shim_now->value = value; shim_now->source = source;
    shim_wait(SHIM_AT_WARP, line);
    return shim_now->result;
}
template<class T> inline T shim_shuffle(int line, shim_U32 mask, T x, int source) {
    U64 bits = 0;
    __builtin_memcpy(&bits, &x, sizeof(T));
    bits = shim_meet(line, mask, bits, source < 0 || source > 31 ? shim_now->thread & 31 : source);
    __builtin_memcpy(&x, &bits, sizeof(T));
    return x;
}
template<class T, class F> inline T shim_as(F x) {
    T y;
    static_assert(sizeof(T) == sizeof(F), "");
    __builtin_memcpy(&y, &x, sizeof(T));
    return y;
}
}
"""

_CUDA = r"""
#define BUF(T) shim_Buffer<T>
#define TG_DEVICE inline
#define TG_FUNCTION static __attribute__((noinline))
#define TG_FUNCTION inline
#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __restrict__
#define warpSize 32
#define threadIdx (shim_now->at)
#define blockIdx shim_block
#define blockDim shim_threads
#define gridDim shim_blocks
#define __syncthreads() ((void)shim_sync(__LINE__, 0))
#define __syncthreads_or(flag) shim_sync(__LINE__, flag)
#define __syncwarp(...) ((void)shim_meet(__LINE__, shim_mask(__VA_ARGS__), 0, -2))
#define SHIM_LANE ((int)(shim_now->thread & 31))
#define __shfl_sync(mask, x, from) shim_shuffle(__LINE__, mask, x, (from) & 31)
#define __shfl_xor_sync(mask, x, d) shim_shuffle(__LINE__, mask, x, SHIM_LANE ^ (d))
#define __shfl_down_sync(mask, x, d) shim_shuffle(__LINE__, mask, x, SHIM_LANE + (int)(d))
#define __shfl_up_sync(mask, x, d) shim_shuffle(__LINE__, mask, x, SHIM_LANE - (int)(d))
#define __ballot_sync(mask, flag) ((shim_U32)shim_meet(__LINE__, mask, (flag) != 0, -1))
#define __any_sync(mask, flag) (__ballot_sync(mask, flag) != 0)
#define __all_sync(mask, flag) (__ballot_sync(mask, flag) == (mask))
#define tg_grid(sync) shim_grid(__LINE__, sync)
#define __threadfence() ((void)0)
#define __threadfence_block() ((void)0)
#define __int_as_float(x) shim_as<float>((int)(x))
#define __float_as_int(x) shim_as<int>((float)(x))
#define __longlong_as_double(x) shim_as<double>((I64)(x))
#define __double_as_longlong(x) shim_as<I64>((double)(x))
namespace {
inline shim_U32 shim_mask(shim_U32 mask = 0xffffffffu) { return mask; }
inline U64 atomicCAS(U64* at, U64 old, U64 value) {
    const U64 was = *at;
    if (was == old) { shim_changed(); *at = value; }
    return was;
}
"""

BEFORE = _math() + _SWITCH + _STATE + _ACCESS + _CUDA
