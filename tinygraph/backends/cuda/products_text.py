'''CUDA C for products of matrices (a part of the prelude).

One order of sums
    The sum over k is cut into slices whose length depends on k alone, at most TG_SLICES of them.
    Each is added up from its first term on, then the slices are added up in their order.  Whatever
    computes an element of a product (how many threads, blocks, rows and columns, from what memory),
    it is added up in this order, so its bits depend on nothing but its row, its column and k.
'''

from __future__ import annotations

SIDE = 64  # of a tile of a product


def sizes(block: int) -> str:
    """The constants of products where a block has up to ``block`` threads."""
    return (f"#define TG_SIDE {SIDE}\n#define TG_SLICES 16\n#define TG_LOADS 2\n"
            f"#define TG_ROOM {max(2304, 9 * block)}\n")

_PIECES = {"float": "float4", "int": "int4", "short": "short4", "signed char": "char4",
           "unsigned char": "uchar4", "bool": "uchar4", "double": "double2", "I64": "longlong2"}


def _pieces() -> str:
    """Four elements of every type, in pieces of up to 16 bytes."""
    lines = []
    for kind, piece in _PIECES.items():
        take = [("v", "0", "xyzw")] if piece[-1] == "4" else [("v", "0", "xy"), ("w", "1", "xy")]
        load = " ".join(f"const {piece} {v} = ((const {piece}*)p)[{k}];" for v, k, _ in take)
        parts = [f"{v}.{c}" for v, _, names in take for c in names]
        each = 4 // len(take)
        store = " ".join(
            f"(({piece}*)p)[{k}] = make_{piece}("
            f"{', '.join(f'x[{j}]' for j in range(int(k) * each, int(k) * each + each))});"
            for _, k, _ in take)
        lines += [
            f"TG_DEVICE bool tg_aligned({kind}* p) {{ return (U64)p % sizeof({piece}) == 0; }}",
            f"TG_DEVICE void tg_load4({kind}* p, {kind}* x) {{",
            f"    {load}",
            f"    {' '.join(f'x[{j}] = {part};' for j, part in enumerate(parts))}",
            "}",
            f"TG_DEVICE void tg_store4({kind}* p, const {kind}* x) {{ {store} }}"]
    return "\n".join(lines) + "\n"


BUILTIN = ("// Four elements in one piece, or two; the shim has the general forms below.\n"
           + _pieces())

PRODUCTS = r"""
template<class P> TG_DEVICE bool tg_aligned(P p) { return true; }
template<class P, class T> TG_DEVICE void tg_load4(P p, T* x) {
    for (int j = 0; j < 4; ++j) x[j] = p[j];
}
template<class P, class T> TG_DEVICE void tg_store4(P p, const T* x) {
    for (int j = 0; j < 4; ++j) p[j] = x[j];
}
TG_DEVICE int tg_least(int x, I64 y) { return y < x ? (int)y : x; }

// The first `left` of four elements, in one piece where all four are there and lie so.
template<class P, class T> TG_DEVICE void tg_load4(P p, int left, T* x) {
    if (left == 4 && tg_aligned(p)) {
        tg_load4(p, x);
    } else {
        #pragma unroll
        for (int j = 0; j < 4; ++j) x[j] = j < left ? (T)p[j] : (T)0;
    }
}
template<class P, class T> TG_DEVICE void tg_store4(P p, int left, const T* x) {
    if (left == 4 && tg_aligned(p)) {
        tg_store4(p, x);
    } else {
        #pragma unroll
        for (int j = 0; j < 4; ++j) if (j < left) p[j] = x[j];
    }
}

// What lies between two k in shared memory: rows, and so many more that banks do not conflict.
TG_DEVICE int tg_pitch(int rows) { return rows % 8 ? rows : rows + 4; }

// What one product of a block at a time has of shared memory.
template<class T> TG_DEVICE auto tg_room() {
    alignas(16) __shared__ T room[TG_ROOM];
    return room + 0;
}

// How the threads of a block bring a factor of a product to shared memory, piece by piece: of
// `rows` rows from i0 on, for every cut `deep` elements along k.  Element (i, p) lies at
// x[i * ir + p * pc], and comes to [(cut * deep + p) * pitch + i].  A thread brings up to TG_LOADS
// times four elements, which it has in registers in between.
template<class T, class X> struct tg_Stage {
    X x; I64 pc, inner; int pitch; bool across, whole;
    I64 at[TG_LOADS], p[TG_LOADS]; int many[TG_LOADS], to[TG_LOADS]; T held[TG_LOADS][4];

    TG_DEVICE tg_Stage(X x_, I64 ir, I64 pc_, I64 i0, I64 m, int rows, int deep, int cuts,
                       I64 slice) : x(x_), pc(pc_), pitch(tg_pitch(rows)) {
        across = ir == 1 && pc != 1;  // the four are neighbours in i, not in p
        inner = across ? ir : pc;
        whole = inner == 1 && (across ? pc : ir) % 4 == 0 && tg_aligned(x + i0 * ir);
        #pragma unroll
        for (int v = 0; v < TG_LOADS; ++v) {
            const int e = (int)(threadIdx.x + v * blockDim.x);
            const int side = (across ? rows : deep) / 4, other = across ? deep : rows;
            const int near = e % side * 4, far = e / side % other, cut = e / side / other;
            const int i = across ? near : far, q = across ? far : near;
            p[v] = cut * slice + q;
            at[v] = (i0 + i) * ir + p[v] * pc;
            many[v] = i0 + i < m ? tg_least(4, across ? m - i0 - i : 4) : 0;
            to[v] = cut < cuts ? (cut * deep + q) * pitch + i : -1;
        }
    }
    // What lies `base` further along k; elements from k on are zeros, and rows from m on.
    TG_DEVICE void load(I64 base, I64 k) {
        #pragma unroll
        for (int v = 0; v < TG_LOADS; ++v) {
            if (to[v] < 0) continue;
            const I64 rest = k - base - p[v];
            const int left = rest <= 0 ? 0 : across ? many[v] : tg_least(many[v], rest);
            const auto from = x + (at[v] + base * pc);
            if (whole && left == 4) {
                tg_load4(from, held[v]);
            } else {
                #pragma unroll
                for (int j = 0; j < 4; ++j) held[v][j] = j < left ? (T)from[j * inner] : (T)0;
            }
        }
    }
    template<class R> TG_DEVICE void put(R room) {
        #pragma unroll
        for (int v = 0; v < TG_LOADS; ++v) {
            if (to[v] < 0) continue;
            if (across) {
                tg_store4(room + to[v], held[v]);
            } else {
                #pragma unroll
                for (int j = 0; j < 4; ++j) room[to[v] + j * pitch] = held[v][j];
            }
        }
    }
};

template<class T> TG_DEVICE void tg_outer(const T (&x)[4], const T (&y)[4], T (&sum)[4][4]) {
    #pragma unroll
    for (int u = 0; u < 4; ++u)
        #pragma unroll
        for (int v = 0; v < 4; ++v) sum[u][v] += x[u] * y[v];
}

// Four rows by four neighbouring columns.
template<class T, class X, class Y>
TG_DEVICE void tg_patch(X x, int xs, Y y, I64 ys, int count, T (&sum)[4][4]) {
    #pragma unroll 4
    for (int p = 0, at = 0; p < count; ++p, at += xs, y = y + ys) {
        T left[4], right[4];
        tg_load4(x + at, left);
        tg_load4(y, right);
        tg_outer(left, right, sum);
    }
}

// The same, where the columns lie at places of their own.
template<class T, class X, class Y>
TG_DEVICE void tg_patch(X x, int xs, Y y, I64 ys, const I64 (&from)[4], int count,
                        T (&sum)[4][4]) {
    #pragma unroll 1
    for (int p = 0, at = 0; p < count; ++p, at += xs, y = y + ys) {
        T left[4], right[4];
        tg_load4(x + at, left);
        #pragma unroll
        for (int v = 0; v < 4; ++v) right[v] = y[from[v]];
        tg_outer(left, right, sum);
    }
}

template<class T> TG_DEVICE void tg_clear(T (&sum)[4][4]) {
    #pragma unroll
    for (int u = 0; u < 4; ++u)
        #pragma unroll
        for (int v = 0; v < 4; ++v) sum[u][v] = 0;
}

template<class T> TG_DEVICE void tg_more(const T (&x)[4], T (&total)[4]) {
    #pragma unroll
    for (int v = 0; v < 4; ++v) total[v] += x[v];
}

// A slice of k has been added up, or one for each cut: total += sum, one after another.
template<class T, class R>
TG_DEVICE void tg_fold(R room, int patches, int patch, int cut, int cuts, T (&sum)[4][4],
                       T (&total)[4][4]) {
    #pragma unroll
    for (int half = 0; half < 4; half += 2) {
        if (cuts > 1) {
            const auto mine = room + ((cut - 1) * patches + patch) * 8;
            if (cut > 0 && cut < cuts) {
                tg_store4(mine, sum[half]);
                tg_store4(mine + 4, sum[half + 1]);
            }
            __syncthreads();
        }
        if (cut == 0) {
            tg_more(sum[half], total[half]);
            tg_more(sum[half + 1], total[half + 1]);
            #pragma unroll 1
            for (int g = 0; g < cuts - 1; ++g) {
                T x[4], y[4];
                tg_load4(room + (g * patches + patch) * 8, x);
                tg_load4(room + ((g * patches + patch) * 8 + 4), y);
                tg_more(x, total[half]);
                tg_more(y, total[half + 1]);
            }
        }
        if (cuts > 1) __syncthreads();
    }
    tg_clear(sum);
}

// Which column is the q-th of w, where a block has `own` of every `units`.  There are fewer columns
// than 2^31 (and divisions of larger numbers are slow).
TG_DEVICE I64 tg_column(I64 q, I64 w, I64 own, I64 units, I64 first) {
    return own == w ? first + q : (int)q / (int)own * units + first + (int)q % (int)own;
}
TG_DEVICE bool tg_next(const I64 (&x)[4]) {
    return x[1] == x[0] + 1 && x[2] == x[0] + 2 && x[3] == x[0] + 3;
}

template<class T, class C>
TG_DEVICE void tg_write(C c, I64 cr, I64 cc, I64 i, I64 m, I64 q, I64 w, I64 own, I64 units,
                        I64 first, bool accumulate, T (&total)[4][4]) {
    I64 column[4];
    #pragma unroll
    for (int v = 0; v < 4; ++v) column[v] = tg_column(q + v, w, own, units, first);
    const bool near = cc == 1 && cr % 4 == 0 && q + 4 <= w && tg_next(column)
        && tg_aligned(c + column[0]);
    #pragma unroll
    for (int u = 0; u < 4; ++u) {
        if (i + u >= m) break;
        const auto row = c + (i + u) * cr;
        if (near) {
            T x[4] = {0, 0, 0, 0};
            if (accumulate) tg_load4(row + column[0], x);
            #pragma unroll
            for (int v = 0; v < 4; ++v) x[v] += total[u][v];
            tg_store4(row + column[0], x);
        } else {
            #pragma unroll
            for (int v = 0; v < 4; ++v)
                if (q + v < w) {
                    const I64 at = column[v] * cc;
                    row[at] = accumulate ? (T)row[at] + total[u][v] : total[u][v];
                }
        }
    }
}

// c = a b, or c += a b, by one block, for w columns: the q-th is column q / own * units + first +
// q % own of c, and of b too, unless that is packed (`stored`: how many columns of b may be read).
// Element (i, j) lies at [i * rows + j * cols].  A thread has a patch of 4 x 4 elements; where
// there are fewer patches than threads, it has it for one of `cuts` slices of k at a time, and the
// first thread of the patch adds them up.  What does not fit is done in passes, of which the block
// takes every stride-th.  The left side goes through shared memory, the right side too if it is
// `staged`.
template<class T, class A, class B, class C>
TG_FUNCTION void tg_gemm_part(A a, I64 ar, I64 ac, B b, I64 br, I64 bc, bool packed, I64 stored,
                              C c, I64 cr, I64 cc, I64 m, I64 w, I64 k, bool accumulate,
                              I64 units, I64 first, I64 own, bool staged, I64 start, I64 stride) {
    if (m <= 0 || w <= 0) return;
    const auto room = tg_room<T>();
    const int threads = (int)blockDim.x, lane = (int)threadIdx.x;
    const I64 slice = (k + 16 * TG_SLICES - 1) / (16 * TG_SLICES) * 16;
    const int tall = tg_least(threads / 8 < 16 ? threads / 8 : 16, (m + 3) / 4);
    const int widest = staged ? tg_least(threads / tall, threads < 64 ? threads / 4 : 16)
                              : threads / tall;
    const int wide = tg_least(widest, (w + 3) / 4);
    const int rows = 4 * tall, columns = 4 * wide, patches = tall * wide;
    const int pitch = tg_pitch(rows), line = staged ? pitch + tg_pitch(columns) : pitch;
    const int side = staged && columns > rows ? columns : rows;
    const int most = tg_least(TG_ROOM / line, 4 * TG_LOADS * threads / side);
    int cuts = 1;
    while (2 * cuts * patches <= threads && cuts * slice < k && 2 * cuts * 8 <= most) cuts *= 2;
    const int deep = 16 * cuts <= most ? 16 : 8;
    const int patch = lane % patches, cut = lane / patches;
    const bool even = tall % 2 == 0 && wide % 2 == 0;  // squares of four: fewer bank conflicts
    const int tx = even ? patch / 4 % (wide / 2) * 2 + patch % 2 : patch % wide;
    const int ty = even ? patch / 4 / (wide / 2) * 2 + patch / 2 % 2 : patch / wide;
    const auto left = room + (cut * deep * pitch + 4 * ty);
    const auto right = room + cuts * deep * pitch, beside = right + cut * deep * tg_pitch(columns);
    const unsigned along = (unsigned)(w + columns - 1) / columns;
    for (unsigned pass = (unsigned)start; ; pass += (unsigned)stride) {
        const I64 i0 = (I64)(pass / along) * rows, j0 = (I64)(pass % along) * columns;
        if (i0 >= m) break;
        I64 from[4];
        #pragma unroll
        for (int v = 0; v < 4; ++v) {
            const I64 q = j0 + 4 * tx + v < stored ? j0 + 4 * tx + v : stored - 1;
            from[v] = (packed ? q : tg_column(q, w, own, units, first)) * bc;
        }
        const bool near = bc == 1 && br % 4 == 0 && tg_next(from) && tg_aligned(b + from[0]);
        tg_Stage<T, A> of_a(a, ar, ac, i0, m, rows, deep, cuts, slice);
        tg_Stage<T, B> of_b(b, bc, br, j0, w, columns, deep, staged ? cuts : 0, slice);
        T sum[4][4], total[4][4];
        tg_clear(sum);
        tg_clear(total);
        int step = 0, count = 0;
        I64 base = 0, at = 0;
        bool ends = false;
        for (;;) {
            of_a.load(base, k);  // while the piece before is worked on
            of_b.load(base, k);
            if (staged) tg_patch(left, pitch, beside + 4 * tx, tg_pitch(columns), count, sum);
            else if (near) tg_patch(left, pitch, b + (at * br + from[0]), br, count, sum);
            else tg_patch(left, pitch, b + at * br, br, from, count, sum);
            __syncthreads();
            if (ends) tg_fold(room, patches, patch, cut, cuts, sum, total);
            if (base >= k) break;
            of_a.put(room);
            of_b.put(right);
            __syncthreads();
            at = base + cut * slice;
            count = cut < cuts && at < k ? tg_least(deep, k - at) : 0;
            step += deep;
            base += deep;
            ends = step >= slice || base >= k;
            if (ends) {
                base += (cuts - 1) * slice;
                step = 0;
            }
        }
        if (cut == 0)
            tg_write(c, cr, cc, i0 + 4 * ty, m, j0 + 4 * tx, w, own, units, first, accumulate,
                     total);
    }
}

// c = a b, or c += a b, by one block (first 0, step 1), or by blocks that take tiles in turn.
template<class T, class A, class B, class C>
TG_DEVICE void tg_gemm(A a, I64 ar, I64 ac, B b, I64 br, I64 bc, C c, I64 cr, I64 cc,
                       I64 m, I64 n, I64 k, bool accumulate, I64 first, I64 step) {
    const bool few = step == 1 && (m <= TG_SIDE / 2 || n <= TG_SIDE / 4);
    tg_gemm_part<T>(a, ar, ac, b, br, bc, true, n, c, cr, cc, m, n, k, accumulate, n, 0, n,
                    !few, first, step);
}

// The columns j with first <= j % units < last of c = a b, or c += a b, by one block: those of the
// hidden units that a block of a persistent kernel owns.  b has all columns, or, packed, only
// these: with own = last - first, the q-th is j = q / own * units + first + q % own.  Rows of a
// packed b that are padded to a multiple of four elements (br) are read to their end, which must
// have been written.  All threads of the block call it, also where it owns no units.  Elements are
// added up in the same order whatever first and last are, so results do not depend on how many
// blocks share the units.
template<class T, class A, class B, class C>
TG_DEVICE void tg_gemm_units(A a, I64 ar, I64 ac, B b, I64 br, I64 bc, bool packed,
                             C c, I64 cr, I64 cc, I64 m, I64 n, I64 k, bool accumulate,
                             I64 units, I64 first, I64 last) {
    const I64 own = last - first;
    const I64 w = own > 0 ? (int)n / (int)units * own : 0, up = (w + 3) / 4 * 4;
    tg_gemm_part<T>(a, ar, ac, b, br, bc, packed, packed && bc == 1 && br >= up ? up : w, c, cr, cc,
                    m, w, k, accumulate, units, first, own, false, 0, 1);
}
"""
