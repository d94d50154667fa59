"""What every kernel begins with: CUDA C for the scalar functions and the work of whole blocks.

Names begin with tg_.  Nothing is included, so that no toolkit is needed; the shim that runs kernels
without a GPU (shim.py) defines what CUDA itself gives, and compiles the same text.
"""

from __future__ import annotations

from tinygraph.backends.cuda import products_text

BUILTIN = """\
typedef long long I64;
typedef unsigned long long U64;
#define BUF(T) T*
#define TG_DEVICE __device__ __forceinline__
#define TG_FUNCTION static __device__ __noinline__
""" + products_text.BUILTIN

SCALARS = r"""
template<class T> struct tg_unsigned;
template<> struct tg_unsigned<signed char> { typedef unsigned char type; };
template<> struct tg_unsigned<unsigned char> { typedef unsigned char type; };
template<> struct tg_unsigned<short> { typedef unsigned short type; };
template<> struct tg_unsigned<int> { typedef unsigned int type; };
template<> struct tg_unsigned<I64> { typedef U64 type; };
template<> struct tg_unsigned<bool> { typedef unsigned char type; };

// Integers wrap.
template<class T> TG_DEVICE T tg_add(T x, T y) {
    typedef typename tg_unsigned<T>::type U;
    return (T)((U)x + (U)y);
}
template<class T> TG_DEVICE T tg_sub(T x, T y) {
    typedef typename tg_unsigned<T>::type U;
    return (T)((U)x - (U)y);
}
template<class T> TG_DEVICE T tg_mul(T x, T y) {
    typedef typename tg_unsigned<T>::type U;
    return (T)((U64)(U)x * (U64)(U)y);
}
template<class T> TG_DEVICE T tg_neg(T x) {
    typedef typename tg_unsigned<T>::type U;
    return (T)(U)(0 - (U)x);
}
template<class T> TG_DEVICE T tg_shl(T x, T y) {
    typedef typename tg_unsigned<T>::type U;
    return y < 0 || y >= (T)(8 * sizeof(T)) ? (T)0 : (T)((U)x << (int)y);
}
template<class T> TG_DEVICE T tg_shr(T x, T y) {
    return y < 0 || y >= (T)(8 * sizeof(T)) ? (T)(x < 0 ? -1 : 0) : (T)(x >> (int)y);
}
template<> TG_DEVICE float tg_add<float>(float x, float y) { return x + y; }
template<> TG_DEVICE double tg_add<double>(double x, double y) { return x + y; }
template<> TG_DEVICE float tg_mul<float>(float x, float y) { return x * y; }
template<> TG_DEVICE double tg_mul<double>(double x, double y) { return x * y; }

template<class T> TG_DEVICE T tg_nan();
template<> TG_DEVICE float tg_nan<float>() { return __int_as_float(0x7fc00000); }
template<> TG_DEVICE double tg_nan<double>() { return __longlong_as_double(0x7ff8000000000000LL); }
template<class T> TG_DEVICE T tg_inf();
template<> TG_DEVICE float tg_inf<float>() { return __int_as_float(0x7f800000); }
template<> TG_DEVICE double tg_inf<double>() { return __longlong_as_double(0x7ff0000000000000LL); }

template<class T> TG_DEVICE T tg_highest();
template<class T> TG_DEVICE T tg_lowest();
template<> TG_DEVICE float tg_highest<float>() { return tg_inf<float>(); }
template<> TG_DEVICE float tg_lowest<float>() { return -tg_inf<float>(); }
template<> TG_DEVICE double tg_highest<double>() { return tg_inf<double>(); }
template<> TG_DEVICE double tg_lowest<double>() { return -tg_inf<double>(); }
template<> TG_DEVICE signed char tg_highest<signed char>() { return 127; }
template<> TG_DEVICE signed char tg_lowest<signed char>() { return -128; }
template<> TG_DEVICE unsigned char tg_highest<unsigned char>() { return 255; }
template<> TG_DEVICE unsigned char tg_lowest<unsigned char>() { return 0; }
template<> TG_DEVICE short tg_highest<short>() { return 32767; }
template<> TG_DEVICE short tg_lowest<short>() { return -32768; }
template<> TG_DEVICE int tg_highest<int>() { return 2147483647; }
template<> TG_DEVICE int tg_lowest<int>() { return -2147483647 - 1; }
template<> TG_DEVICE I64 tg_highest<I64>() { return 9223372036854775807LL; }
template<> TG_DEVICE I64 tg_lowest<I64>() { return -9223372036854775807LL - 1; }
template<> TG_DEVICE bool tg_highest<bool>() { return true; }
template<> TG_DEVICE bool tg_lowest<bool>() { return false; }

// min and max hand on a nan.
template<class T> TG_DEVICE T tg_min(T x, T y) { return x < y || x != x ? x : y; }
template<class T> TG_DEVICE T tg_max(T x, T y) { return x > y || x != x ? x : y; }

// Quotients round down; a divisor of 0 gives 0 for integers.
template<class T> TG_DEVICE T tg_floordiv(T x, T y) {
    if (y == 0) return 0;
    if (y == (T)-1 && (T)-1 < (T)0) return tg_neg<T>(x);
    T q = (T)(x / y);
    return (x % y != 0 && ((x < 0) != (y < 0))) ? (T)(q - 1) : q;
}
template<class T> TG_DEVICE T tg_mod(T x, T y) {
    if (y == 0 || (y == (T)-1 && (T)-1 < (T)0)) return 0;
    T r = (T)(x % y);
    return (r != 0 && ((r < 0) != (y < 0))) ? (T)(r + y) : r;
}
template<> TG_DEVICE bool tg_floordiv<bool>(bool x, bool y) { return x && y; }
template<> TG_DEVICE bool tg_mod<bool>(bool x, bool y) { return false; }
template<> TG_DEVICE float tg_mod<float>(float x, float y) {
    float r = fmodf(x, y);
    if (r == 0.0f) return copysignf(0.0f, y);
    return (r < 0.0f) != (y < 0.0f) ? r + y : r;
}
template<> TG_DEVICE double tg_mod<double>(double x, double y) {
    double r = fmod(x, y);
    if (r == 0.0) return copysign(0.0, y);
    return (r < 0.0) != (y < 0.0) ? r + y : r;
}
template<> TG_DEVICE float tg_floordiv<float>(float x, float y) {
    if (y == 0.0f) return x / y;
    float r = fmodf(x, y), q = (x - r) / y;
    if (r != 0.0f && (r < 0.0f) != (y < 0.0f)) q -= 1.0f;
    if (q == 0.0f) return copysignf(0.0f, x / y);
    float whole = floorf(q);
    return q - whole > 0.5f ? whole + 1.0f : whole;
}
template<> TG_DEVICE double tg_floordiv<double>(double x, double y) {
    if (y == 0.0) return x / y;
    double r = fmod(x, y), q = (x - r) / y;
    if (r != 0.0 && (r < 0.0) != (y < 0.0)) q -= 1.0;
    if (q == 0.0) return copysign(0.0, x / y);
    double whole = floor(q);
    return q - whole > 0.5 ? whole + 1.0 : whole;
}

// Floats become integers by truncation; what does not fit saturates, and nan gives 0.
template<class T, class F> TG_DEVICE T tg_saturated(F x) {
    if (x != x) return 0;
    if (x >= (F)tg_highest<T>()) return tg_highest<T>();
    if (x <= (F)tg_lowest<T>()) return tg_lowest<T>();
    return (T)x;
}
template<class T> TG_DEVICE T tg_to_int(float x) { return tg_saturated<T, float>(x); }
template<class T> TG_DEVICE T tg_to_int(double x) { return tg_saturated<T, double>(x); }

TG_DEVICE int tg_to_bits(float x) { return __float_as_int(x); }
TG_DEVICE I64 tg_to_bits(double x) { return __double_as_longlong(x); }
TG_DEVICE float tg_from_bits(int x) { return __int_as_float(x); }
TG_DEVICE double tg_from_bits(I64 x) { return __longlong_as_double(x); }
TG_DEVICE bool tg_isnan(float x) { return x != x; }
TG_DEVICE bool tg_isnan(double x) { return x != x; }
TG_DEVICE bool tg_isinf(float x) { return fabsf(x) == tg_inf<float>(); }
TG_DEVICE bool tg_isinf(double x) { return fabs(x) == tg_inf<double>(); }
TG_DEVICE float tg_abs(float x) { return fabsf(x); }
TG_DEVICE double tg_abs(double x) { return fabs(x); }
TG_DEVICE signed char tg_abs(signed char x) { return x < 0 ? tg_neg<signed char>(x) : x; }
TG_DEVICE short tg_abs(short x) { return x < 0 ? tg_neg<short>(x) : x; }
TG_DEVICE int tg_abs(int x) { return x < 0 ? tg_neg<int>(x) : x; }
TG_DEVICE I64 tg_abs(I64 x) { return x < 0 ? tg_neg<I64>(x) : x; }
TG_DEVICE unsigned char tg_abs(unsigned char x) { return x; }
TG_DEVICE bool tg_abs(bool x) { return x; }
"""

_SAME = {"sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "rint",
         "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p", "log2": "log2",
         "tanh": "tanh", "sin": "sin", "cos": "cos", "tan": "tan", "erf": "erf", "arcsin": "asin",
         "arccos": "acos", "arctan": "atan", "sinh": "sinh", "cosh": "cosh", "arcsinh": "asinh",
         "arccosh": "acosh", "arctanh": "atanh"}


def functions() -> str:
    """The scalar functions of the loop language, for float and double."""
    lines = []
    for name, c in _SAME.items():
        lines.append(f"TG_DEVICE float tg_{name}(float x) {{ return {c}f(x); }}")
        lines.append(f"TG_DEVICE double tg_{name}(double x) {{ return {c}(x); }}")
    for name, c in (("pow", "pow"), ("arctan2", "atan2")):
        lines.append(f"TG_DEVICE float tg_{name}(float x, float y) {{ return {c}f(x, y); }}")
        lines.append(f"TG_DEVICE double tg_{name}(double x, double y) {{ return {c}(x, y); }}")
    for t, f in (("float", "f"), ("double", "")):
        one = "1.0f" if f else "1.0"
        lines.append(f"TG_DEVICE {t} tg_sigmoid({t} x) {{ {t} e = exp{f}(-fabs{f}(x)); "
                     f"return x >= 0 ? {one} / ({one} + e) : e / ({one} + e); }}")
        lines.append(f"TG_DEVICE {t} tg_softplus({t} x) {{ "
                     f"return tg_max<{t}>(x, 0) + log1p{f}(exp{f}(-fabs{f}(x))); }}")
    return "\n".join(lines) + "\n"


TEAMS = r"""
struct tg_Add { template<class T> static TG_DEVICE T of(T x, T y) { return tg_add<T>(x, y); } };
struct tg_Mul { template<class T> static TG_DEVICE T of(T x, T y) { return tg_mul<T>(x, y); } };
struct tg_Min { template<class T> static TG_DEVICE T of(T x, T y) { return tg_min<T>(x, y); } };
struct tg_Max { template<class T> static TG_DEVICE T of(T x, T y) { return tg_max<T>(x, y); } };
struct tg_And { template<class T> static TG_DEVICE T of(T x, T y) { return (T)(x & y); } };
struct tg_Or { template<class T> static TG_DEVICE T of(T x, T y) { return (T)(x | y); } };

template<class T> struct tg_shuffled { typedef int type; };
template<> struct tg_shuffled<float> { typedef float type; };
template<> struct tg_shuffled<double> { typedef double type; };
template<> struct tg_shuffled<I64> { typedef I64 type; };

// What the lanes of a warp have, together; every lane gets it.
template<class Op, class T> TG_DEVICE T tg_warp(T x) {
    typedef typename tg_shuffled<T>::type S;
    for (int d = 16; d > 0; d >>= 1)
        x = Op::template of<T>(x, (T)__shfl_xor_sync(0xffffffffu, (S)x, d));
    return x;
}

// What the threads of a block have, together; every thread gets it.
template<class Op, class T> __device__ T tg_block(T x, T start) {
    __shared__ T part[32];
    x = tg_warp<Op, T>(x);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    T total = start;
    for (int w = 0; w < (int)(blockDim.x / 32); ++w) total = Op::template of<T>(total, part[w]);
    __syncthreads();
    return total;
}

TG_DEVICE I64 tg_thread() { return (I64)blockIdx.x * blockDim.x + threadIdx.x; }
TG_DEVICE I64 tg_threads() { return (I64)gridDim.x * blockDim.x; }

// The first failure is kept: its site, counted from 1, and its numbers.
template<class F>
__device__ void tg_fault(F fault, I64 site, int count, I64 a, I64 b, I64 c, I64 d) {
    if (tg_first(fault, site + 1)) {
        if (count > 0) fault[1] = a;
        if (count > 1) fault[2] = b;
        if (count > 2) fault[3] = c;
        if (count > 3) fault[4] = d;
    }
}
"""

FIRST = r"""
TG_DEVICE bool tg_first(BUF(I64) fault, I64 code) {
    return atomicCAS((U64*)fault, (U64)0, (U64)code) == 0;
}
"""

GRID = r"""
// All threads of all blocks, which must run at one time, wait for one another.
// sync[0]: how many blocks have come;  sync[16], which those read that wait: how often all have.
TG_DEVICE void tg_grid(BUF(I64) sync) {
    __syncthreads();
    if (threadIdx.x == 0) {
        volatile I64* count = (volatile I64*)sync;
        const I64 turn = count[16];
        __threadfence();
        if (atomicAdd((U64*)sync, (U64)1) == gridDim.x - 1) {
            count[0] = 0;
            __threadfence();
            count[16] = turn + 1;
        } else {
            while (count[16] == turn) { }
        }
        __threadfence();
    }
    __syncthreads();
}
"""

def prelude(block: int = 256, builtin: str = BUILTIN, first: str = FIRST, grid: str = GRID
            ) -> str:
    """The text before the kernels.  ``block``: the most threads of a block."""
    sizes = f"#define TG_BLOCK {block}\n" + products_text.sizes(block)
    return (builtin + sizes + SCALARS + functions() + first + TEAMS + grid
            + products_text.PRODUCTS)
