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

BUILTIN = """\
// 16 bytes at a time; the shim has the general forms below.
TG_DEVICE bool tg_aligned(float* p) { return ((U64)p & 15) == 0; }
TG_DEVICE bool tg_aligned(double* p) { return ((U64)p & 15) == 0; }
TG_DEVICE void tg_load4(float* p, float* x) {
    const float4 v = *(const float4*)p;
    x[0] = v.x; x[1] = v.y; x[2] = v.z; x[3] = v.w;
}
TG_DEVICE void tg_load4(double* p, double* x) {
    const double2 v = ((const double2*)p)[0], w = ((const double2*)p)[1];
    x[0] = v.x; x[1] = v.y; x[2] = w.x; x[3] = w.y;
}
TG_DEVICE void tg_store4(float* p, const float* x) {
    *(float4*)p = make_float4(x[0], x[1], x[2], x[3]);
}
TG_DEVICE void tg_store4(double* p, const double* x) {
    ((double2*)p)[0] = make_double2(x[0], x[1]);
    ((double2*)p)[1] = make_double2(x[2], x[3]);
}
"""

PRODUCTS = r"""
template<class P> TG_DEVICE bool tg_aligned(P p) { return true; }
template<class P, class T> TG_DEVICE void tg_load4(P p, T* x) {
    for (int j = 0; j < 4; ++j) x[j] = p[j];
}
template<class P, class T> TG_DEVICE void tg_store4(P p, const T* x) {
    for (int j = 0; j < 4; ++j) p[j] = x[j];
}
TG_DEVICE int tg_least(int x, I64 y) { return y < x ? (int)y : x; }

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
    I64 at[TG_LOADS], p[TG_LOADS], span[TG_LOADS]; int to[TG_LOADS]; T held[TG_LOADS][4];

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
            span[v] = m - i0 - i;
            to[v] = cut < cuts ? (cut * deep + q) * pitch + i : -1;
        }
    }
    // Elements from k on, or of rows from m on, are zeros.
    TG_DEVICE void load(I64 base, I64 k) {
        #pragma unroll
        for (int v = 0; v < TG_LOADS; ++v) {
            if (to[v] < 0) continue;
            const I64 rest = k - base - p[v], from = at[v] + base * pc;
            const I64 left = across ? (rest > 0 ? span[v] : 0) : (span[v] > 0 ? rest : 0);
            if (whole && left >= 4) {
                tg_load4(x + from, held[v]);
            } else {
                #pragma unroll
                for (int j = 0; j < 4; ++j)
                    held[v][j] = j < left ? (T)x[from + j * inner] : (T)0;
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
    for (int p = 0; p < count; ++p) {
        T left[4], right[4];
        tg_load4(x + p * xs, left);
        tg_load4(y + p * ys, right);
        tg_outer(left, right, sum);
    }
}

// The same, where the columns lie at places of their own.
template<class T, class X, class Y>
TG_DEVICE void tg_patch(X x, int xs, Y y, I64 ys, const I64 (&from)[4], int count,
                        T (&sum)[4][4]) {
    #pragma unroll 2
    for (int p = 0; p < count; ++p) {
        T left[4], right[4];
        tg_load4(x + p * xs, left);
        #pragma unroll
        for (int v = 0; v < 4; ++v) right[v] = y[p * ys + from[v]];
        tg_outer(left, right, sum);
    }
}

template<class T> TG_DEVICE void tg_clear(T (&sum)[4][4]) {
    #pragma unroll
    for (int u = 0; u < 4; ++u)
        #pragma unroll
        for (int v = 0; v < 4; ++v) sum[u][v] = 0;
}

// A slice of k has been added up, or one for each cut: total += sum, one after another.
template<class T, class R>
TG_DEVICE void tg_fold(R room, int patches, int patch, int cut, int cuts, T (&sum)[4][4],
                       T (&total)[4][4]) {
    #pragma unroll
    for (int half = 0; half < 4; half += 2) {
        if (cuts > 1) {
            if (cut > 0 && cut < cuts)
                #pragma unroll
                for (int e = 0; e < 8; ++e)
                    room[((cut - 1) * 8 + e) * patches + patch] = sum[half + e / 4][e % 4];
            __syncthreads();
        }
        if (cut == 0) {
            #pragma unroll
            for (int e = 0; e < 8; ++e) {
                T all = total[half + e / 4][e % 4] + sum[half + e / 4][e % 4];
                for (int g = 0; g < cuts - 1; ++g) all += room[(g * 8 + e) * patches + patch];
                total[half + e / 4][e % 4] = all;
            }
        }
        if (cuts > 1) __syncthreads();
    }
    tg_clear(sum);
}

TG_DEVICE bool tg_next(const I64 (&x)[4]) {
    return x[1] == x[0] + 1 && x[2] == x[0] + 2 && x[3] == x[0] + 3;
}

template<class T, class C>
TG_DEVICE void tg_write(C c, I64 cr, I64 cc, I64 i, I64 m, const I64 (&column)[4], I64 q, I64 w,
                        bool accumulate, T (&total)[4][4]) {
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
// q % own of c, and of b too, unless that is packed.  Element (i, j) lies at [i * rows + j * cols].
// A thread has a patch of 4 x 4 elements; where there are fewer patches than threads, it has it for
// one of `cuts` slices of k at a time, and the first thread of the patch adds them up.  The left
// side goes through shared memory, the right side too if it is `staged`.
template<class T, class A, class B, class C>
TG_FUNCTION void tg_gemm_part(A a, I64 ar, I64 ac, B b, I64 br, I64 bc, bool packed, C c, I64 cr,
                              I64 cc, I64 m, I64 w, I64 k, bool accumulate, I64 units, I64 first,
                              I64 own, bool staged) {
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
    for (I64 i0 = 0; i0 < m; i0 += rows)
        for (I64 j0 = 0; j0 < w; j0 += columns) {
            I64 column[4], from[4];
            #pragma unroll
            for (int v = 0; v < 4; ++v) {
                const I64 last = w - 1, q = j0 + 4 * tx + v < last ? j0 + 4 * tx + v : last;
                column[v] = own == w ? first + q : q / own * units + first + q % own;
                from[v] = (packed ? q : column[v]) * bc;
            }
            const bool near = bc == 1 && br % 4 == 0 && tg_next(from) && tg_aligned(b + from[0]);
            tg_Stage<T, A> of_a(a, ar, ac, i0, m, rows, deep, cuts, slice);
            tg_Stage<T, B> of_b(b, bc, br, j0, w, columns, deep, staged ? cuts : 0, slice);
            T sum[4][4], total[4][4];
            tg_clear(sum);
            tg_clear(total);
            of_a.load(0, k);
            of_b.load(0, k);
            int step = 0;
            for (I64 base = 0; base < k;) {
                of_a.put(room);
                of_b.put(right);
                __syncthreads();
                const I64 at = base + cut * slice;
                const int count = cut < cuts && at < k ? tg_least(deep, k - at) : 0;
                step += deep;
                base += deep;
                const bool ends = step >= slice || base >= k;
                if (ends) {
                    base += (cuts - 1) * slice;
                    step = 0;
                }
                of_a.load(base, k);  // while this piece is worked on
                of_b.load(base, k);
                if (staged) tg_patch(left, pitch, beside + 4 * tx, tg_pitch(columns), count, sum);
                else if (near) tg_patch(left, pitch, b + (at * br + from[0]), br, count, sum);
                else tg_patch(left, pitch, b + at * br, br, from, count, sum);
                __syncthreads();
                if (ends) tg_fold(room, patches, patch, cut, cuts, sum, total);
            }
            if (cut == 0)
                tg_write(c, cr, cc, i0 + 4 * ty, m, column, j0 + 4 * tx, w, accumulate, total);
        }
}

template<class T, class A, class B, class C>
TG_FUNCTION void tg_gemm(A a, I64 ar, I64 ac, B b, I64 br, I64 bc, C c, I64 cr, I64 cc,
                        I64 m, I64 n, I64 k, bool accumulate, I64 first, I64 step) {
    // By tiles of TG_SIDE x TG_SIDE, of which blocks take every step-th; or, by one block, few rows
    // or columns at once.
    const bool whole = step == 1 && (m <= TG_SIDE / 2 || n <= TG_SIDE / 4);
    const I64 tall = whole ? m : TG_SIDE, wide = whole ? n : TG_SIDE;
    const I64 along = whole ? 1 : (n + wide - 1) / wide;
    const I64 tiles = whole ? 1 : (m + tall - 1) / tall * along;
    for (I64 tile = first; tile < tiles; tile += step) {
        const I64 i0 = tile / along * tall, j0 = tile % along * wide;
        const I64 rows = m - i0 < tall ? m - i0 : tall, columns = n - j0 < wide ? n - j0 : wide;
        tg_gemm_part<T>(a + i0 * ar, ar, ac, b + j0 * bc, br, bc, true,
                        c + (i0 * cr + j0 * cc), cr, cc, rows, columns, k, accumulate,
                        columns, 0, columns, !whole);
    }
}

// The columns j with first <= j % units < last of c = a b, or c += a b, by one block: those of the
// hidden units that a block of a persistent kernel owns.  b has all columns, or, packed, only
// these: with own = last - first, the q-th is j = q / own * units + first + q % own.  All threads
// of the block call it, also where it owns none.  Elements are added up in the same order whatever
// first and last are, so results do not depend on how many blocks share the units.
template<class T, class A, class B, class C>
TG_DEVICE void tg_gemm_units(A a, I64 ar, I64 ac, B b, I64 br, I64 bc, bool packed,
                             C c, I64 cr, I64 cc, I64 m, I64 n, I64 k, bool accumulate,
                             I64 units, I64 first, I64 last) {
    const I64 own = last - first, gates = own > 0 ? n / units : 0;
    tg_gemm_part<T>(a, ar, ac, b, br, bc, packed, c, cr, cc, m, gates * own, k, accumulate,
                    units, first, own, false);
}
"""
