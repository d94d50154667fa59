"""Tables of elementwise functions, operators and reductions over random shapes and dtypes: every
back end against NumPy, gradients in float64 against finite differences."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_checks import check, matches, value

import tinygraph
import tinygraph.tensor as T
from tinygraph.errors import NotScalarConstantError

INTEGERS = ("int8", "int16", "int32", "int64", "uint8")
SPECIAL = np.array([0.0, -0.0, 1.5, -2.5, np.inf, -np.inf, np.nan, 3e38, 0.5, -1e-30])


def integers(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    info = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    wide = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    return np.where(rng.random(shape) < 0.5, wide, wide % 7).astype(dtype)


shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
seeds = st.integers(0, 99)


# --- integers ---------------------------------------------------------------------------------

BITWISE = {"<<": operator.lshift, ">>": operator.rshift, "&": operator.and_, "|": operator.or_,
           "^": operator.xor}


@pytest.mark.parametrize("dtype", INTEGERS)
def test_bitwise_operators(dtype):
    """Also by counts that are negative or too large."""
    x, y = integers(dtype, (7, 9), 1), integers(dtype, (7, 9), 2)
    shift = (integers(dtype, (7, 9), 3) % 40).astype(dtype)
    matches(lambda x, y, s: [*(f(x, y) for f in BITWISE.values()), x << s, x >> s, ~x],
            [*(f(x, y) for f in BITWISE.values()), x << shift, x >> shift, ~x], x, y, shift)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(INTEGERS), shapes, seeds)
def test_shifts_of_any_shape(dtype, shape, seed):
    x, y = integers(dtype, shape, seed), integers(dtype, shape, seed + 1)
    check(lambda x, y: x << y, x << y, x, y)
    check(lambda x, y: x >> y, x >> y, x, y)


def test_reflected_operators():
    x = np.array([1, 2, 5], "int32")
    matches(lambda x: [7 << x, 100 >> x, *divmod(7, x), *divmod(x, 2), 7 ^ x, *T.divmod(x, 3)],
            [v.astype("int32") for v in (7 << x, 100 >> x, *divmod(7, x), *divmod(x, 2), 7 ^ x,
                                         *divmod(x, 3))], x)
    f = np.array([1.5, -2.0, 4.0])
    matches(lambda f: [2 - f, 2 / f, 2 ** f, 7 // f, 7 % f, *divmod(7.5, f)],
            [2 - f, 2 / f, 2 ** f, 7 // f, 7 % f, *divmod(7.5, f)], f, smooth=False)
    with pytest.raises(TypeError, match="left_shift does not take"):
        T.dvector() << 1


def test_whole_numbers():
    a, b = np.array([7, 8, 9, -7], "int32"), np.array([2, 2, 3, 2], "int32")
    matches(T.ceil_intdiv, -(-a // b), a, b)
    x = np.array([0.5, 1.5, -0.5, -2.5, 2.4])
    away = np.array([1.0, 2, -1, -3, 2])
    matches(lambda x: [T.iround(x), T.iround(x, "half_away_from_zero"), x.round(),
                       T.round_half_to_even(x), T.round_half_away_from_zero(x)],
            [np.round(x).astype(int), away.astype(int), np.round(x), np.round(x), away], x,
            smooth=False)


# --- floats that are no numbers ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_floats(dtype):
    x = SPECIAL.astype(dtype)
    names = ["isnan", "isinf", "isfinite", "isposinf", "isneginf", "nan_to_num"]
    matches(lambda x: [getattr(T, n)(x) for n in names], [getattr(np, n)(x) for n in names], x,
            smooth=False)
    matches(lambda x: T.nan_to_num(x, 1.0, 2.0, -2.0), np.nan_to_num(x, True, 1.0, 2.0, -2.0), x,
            smooth=False)


def test_special_floats_of_integers():
    x = np.array([0, 1, -2], "int32")
    for name in ("isfinite", "isposinf", "isneginf", "nan_to_num"):
        check(getattr(T, name), getattr(np, name)(x), x)


def test_no_gradient_passes_where_there_was_no_number():
    x = np.array([1.0, np.nan, np.inf])
    check(lambda x: T.grad((2 * T.nan_to_num(x)).sum(), x), np.array([2.0, 0, 0]), x)


# --- several operands, bounds -----------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5])
def test_any_number_of_operands(count, rng):
    xs = [rng.normal(size=(3, 2)) for _ in range(count)]
    pairs = {T.add: np.sum, T.mul: np.prod, T.maximum: np.max, T.minimum: np.min,
             T.largest: np.max, T.smallest: np.min}
    matches(lambda *xs: [f(*xs) for f in pairs], [f(xs, axis=0) for f in pairs.values()], *xs)


def test_clip_without_a_bound(rng):
    x = rng.normal(size=8)
    matches(lambda x: [T.clip(x, None, 0.5), T.clip(x, -0.5, None), x.clip(None, 0.5),
                       x.clip(-0.5, 0.5)],
            [np.minimum(x, 0.5), np.maximum(x, -0.5), np.minimum(x, 0.5), x.clip(-0.5, 0.5)], x)


def test_logical_functions():
    a, b = np.array([0, 1, 2, 0]), np.array([0.0, 0.0, 3.0, 1.0])
    names = ["logical_and", "logical_or", "logical_xor"]
    matches(lambda a, b: [*(getattr(T, n)(a, b) for n in names), T.logical_not(a)],
            [*(getattr(np, n)(a, b) for n in names), np.logical_not(a)], a, b)


SMOOTH = ["exp2", "log10", "deg2rad", "rad2deg"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_methods_and_functions(dtype, rng):
    x = rng.uniform(0.5, 2, (3, 4)).astype(dtype)
    matches(lambda x: [f for n in SMOOTH for f in (getattr(T, n)(x), getattr(x, n)())],
            [f for n in SMOOTH for f in (getattr(np, n)(x),) * 2], x)
    matches(lambda x: [T.conj(x), x.conj(), T.real(x), T.power(x, 2.5), T.logaddexp(x, x)],
            [x, x, x, np.power(x, np.dtype(dtype).type(2.5)), np.logaddexp(x, x)], x)


def test_constants_know_their_value():
    assert T.constant([1, 2]).data.tolist() == [1, 2]
    assert T.get_scalar_constant_value(T.constant(3) * 2) == 6
    assert T.ones((2, 3)).shape[1].get_scalar_constant_value() == 3
    assert T.get_scalar_constant_value(2.5) == 2.5
    for bad in (T.iscalar("n"), T.vector("v").shape[0], T.constant([1, 2])):
        with pytest.raises(NotScalarConstantError):
            T.get_scalar_constant_value(bad)
    with pytest.raises(AttributeError, match="v .* is no constant"):
        _ = T.vector("v").data


# --- reductions -------------------------------------------------------------------------------

axes = st.one_of(st.none(), st.integers(-1, 1), st.just((0, 1)), st.just((-1, 0)))
REDUCTIONS = {"sum": np.sum, "prod": np.prod, "mean": np.mean, "max": np.max, "min": np.min,
              "all": np.all, "any": np.any, "var": np.var, "std": np.std}


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["float32", "float64", "int32", "uint8", "bool"]),
       st.tuples(st.integers(1, 4), st.integers(1, 4)), axes, st.booleans(), seeds)
def test_reductions(dtype, shape, axis, keepdims, seed):
    x = integers("int16", shape, seed) % 5
    x = (x + (0.25 if dtype.startswith("f") else 0)).astype(dtype)
    floating = {"mean", "var", "std"}
    with tinygraph.config.change(floatX="float64"):
        for name, numpy in REDUCTIONS.items():
            want = numpy(x, axis=axis, keepdims=keepdims)
            if name in ("sum", "prod") and dtype == "uint8":
                want = want.astype("int64")
            check(lambda x, n=name: getattr(T, n)(x, axis=axis, keepdims=keepdims), want, x,
                  rtol=1e-5 if dtype == "float32" and name in floating else None)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1), (2, 0), [1, 2], np.array([0, 2])], ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
def test_arg_over_several_axes(axis, keepdims, rng):
    x = rng.permutation(24).reshape(2, 3, 4)
    if axis is None or isinstance(axis, int):
        want = np.argmax(x, axis, keepdims=keepdims)
    else:
        over = sorted(k % 3 for k in axis)
        rest = [k for k in range(3) if k not in over]
        want = np.argmax(x.transpose(*rest, *over).reshape([x.shape[k] for k in rest] + [-1]), -1)
        want = np.expand_dims(want, over) if keepdims else want
    check(lambda x: T.argmax(x, axis, keepdims), want, x)
    check(lambda x: T.argmin(-x, axis, keepdims), want, x)
    check(lambda x: T.max_and_argmax(x, axis, keepdims)[1], want, x)


@pytest.mark.parametrize("ddof, corrected", [(0, False), (1, False), (0, True), (2, True)])
def test_variance(ddof, corrected, rng):
    x = rng.normal(size=(4, 5))
    matches(lambda x: [T.var(x, 0, ddof, False, corrected), x.std(1, ddof, corrected=corrected)],
            [np.var(x, 0, ddof=ddof), np.std(x, 1, ddof=ddof)], x)


def test_corrected_variance_is_closer():
    x = (1e4 + np.arange(1001) / 1000).astype("float32")
    exact = np.var(x.astype("float64"))
    plain, corrected = (float(value(lambda x, c=c: T.var(x, corrected=c), x)) for c in (0, 1))
    assert abs(corrected - exact) <= abs(plain - exact) + 1e-9


def test_prod_without_zeros(rng):
    x = rng.uniform(1, 2, (3, 4))
    matches(lambda x: T.prod(x, 0, no_zeros_in_input=True), x.prod(0), x)


def test_reductions_in_another_dtype(rng):
    x = rng.integers(0, 9, (3, 4)).astype("int8")
    matches(lambda x: [T.sum(x, dtype="float32"), x.mean(0, "float32"), T.prod(x, 1, "float64"),
                       x.sum(acc_dtype="int32", dtype="int16"), x.mean(dtype="float64", op=True)],
            [x.sum(dtype="float32"), x.mean(0, "float32"), x.prod(1, "float64"),
             x.sum(dtype="int16"), x.mean()], x)
