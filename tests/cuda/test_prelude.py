"""The scalar functions of the prelude against what the loop language says they mean."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygraph.backends.cuda.names import C_TYPES
from tinygraph.backends.cuda.prelude import functions
from tinygraph.backends.cuda.shim import Shim
from tinygraph.dtypes import DType, bool_, float32, float64, int8, int16, int32, int64, uint8
from tinygraph.loops import scalars
from tinygraph.loops.language import TRANSCENDENTAL

FLOATS, INTEGERS = (float32, float64), (int8, int16, int32, int64, uint8)
TWO = {"pow", "arctan2"}
WRAPPING: dict[str, Callable[[int, int], int]] = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y,
    "floordiv": scalars.FUNCTIONS["floordiv_int"], "mod": scalars.FUNCTIONS["mod_int"],
    "min": min, "max": max}


def _kernel(name: str, sources: list[DType], target: DType, expr: str) -> str:
    params = [f"BUF({C_TYPES[d.name]}) x{k}" for k, d in enumerate(sources)]
    return (f'extern "C" __global__ void {name}({", ".join(params)}, '
            f"BUF({C_TYPES[target.name]}) out, I64 n) {{\n"
            f"    for (I64 i = tg_thread(); i < n; i += tg_threads()) out[i] = {expr};\n}}\n")


def _values(dtype: DType) -> np.ndarray[Any, Any]:
    if dtype is bool_:
        return np.array([False, True])
    if dtype.is_float:
        tiny, huge = np.finfo(dtype.np).smallest_subnormal, np.finfo(dtype.np).max
        some = [0.0, 0.3, 0.5, 1.0, 1.5, 2.5, 3.0, 7.9, 88.0, 127.0, 128.0, 255.0, 256.0, 32767.5,
                2147483647.0, 2147483648.0, 9.2e18, 2.0**63, 1e20, tiny, huge, np.inf, np.nan]
        return np.array([*some, *(-v for v in some)], dtype.np)
    info = np.iinfo(dtype.np)
    some = [0, 1, 2, 3, 7, 8, 100, info.max, info.max - 1, info.max // 2, info.min]
    some += [-1, -2, -3, -7, -8, info.min + 1, info.min // 2] if info.min else []
    return np.array(sorted(set(some)), dtype.np)


def _pairs(dtype: DType) -> list[np.ndarray[Any, Any]]:
    pairs = list(itertools.product(_values(dtype), repeat=2))
    return [np.array([p[k] for p in pairs], dtype.np) for k in range(2)]


def _run(run: Shim, name: str, args: list[np.ndarray[Any, Any]], target: DType) -> Any:
    out = np.zeros(len(args[0]), target.np)
    run.launch(name, 2, 32, [*args, out], [len(out)])
    return out


@pytest.fixture(scope="module")
def unary(shim: Callable[..., Shim]) -> Shim:
    text, names = "", []
    for dtype in FLOATS:
        for op in sorted(TRANSCENDENTAL | {"abs", "sqrt", "floor", "ceil", "trunc", "round"}):
            args = "x0[i], x1[i]" if op in TWO else "x0[i]"
            names.append(f"{op}_{dtype}")
            text += _kernel(names[-1], [dtype] * (1 + (op in TWO)), dtype, f"tg_{op}({args})")
        for op in ("isnan", "isinf"):
            names.append(f"{op}_{dtype}")
            text += _kernel(names[-1], [dtype], bool_, f"tg_{op}(x0[i])")
        bits = int32 if dtype is float32 else int64
        names += [f"to_bits_{dtype}", f"from_bits_{dtype}"]
        text += _kernel(names[-2], [dtype], bits, "tg_to_bits(x0[i])")
        text += _kernel(names[-1], [bits], dtype, "tg_from_bits(x0[i])")
        for target in INTEGERS:
            names.append(f"cast_{dtype}_{target}")
            text += _kernel(names[-1], [dtype], target, f"tg_to_int<{C_TYPES[target.name]}>(x0[i])")
    return shim(text, *names)


@pytest.fixture(scope="module")
def binary(shim: Callable[..., Shim]) -> Shim:
    text, names = "", []
    for dtype in (*FLOATS, *INTEGERS):
        ops = ["min", "max", "floordiv", "mod"] if dtype.is_float else [*WRAPPING, "shl", "shr"]
        for op in ops:
            names.append(f"{op}_{dtype}")
            text += _kernel(names[-1], [dtype] * 2, dtype,
                            f"tg_{op}<{C_TYPES[dtype.name]}>(x0[i], x1[i])")
        if dtype.is_int:
            for op in ("neg", "abs"):
                names.append(f"{op}_{dtype}")
                text += _kernel(names[-1], [dtype], dtype,
                                f"tg_{op}(({C_TYPES[dtype.name]})x0[i])")
    return shim(text, *names)


def test_every_function_is_there() -> None:
    text = functions()
    for op in TRANSCENDENTAL:
        assert f"float tg_{op}(float x" in text and f"double tg_{op}(double x" in text


@pytest.mark.parametrize("op", sorted(TRANSCENDENTAL))
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_transcendental(unary: Shim, op: str, dtype: DType) -> None:
    args = _pairs(dtype) if op in TWO else [_values(dtype)]
    if op == "pow":  # where NumPy takes the square root of -inf, and C does not
        kept = ~((args[0] == -np.inf) & (args[1] == 0.5))
        args = [v[kept] for v in args]
    got = _run(unary, f"{op}_{dtype}", args, dtype)
    meaning = scalars.FUNCTIONS[op]
    with np.errstate(all="ignore"):
        want = np.array([meaning(*(np.float64(v) for v in row)) for row in zip(*args, strict=True)])
        np.testing.assert_allclose(got, want.astype(dtype.np),
                                   rtol=2e-6 if dtype is float32 else 1e-13,
                                   atol=np.finfo(dtype.np).tiny)


@pytest.mark.parametrize("op", ["abs", "sqrt", "floor", "ceil", "trunc", "round", "isnan", "isinf"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_exact_functions(unary: Shim, op: str, dtype: DType) -> None:
    x = _values(dtype)
    target = bool_ if op.startswith("is") else dtype
    with np.errstate(all="ignore"):
        want = np.array([scalars.FUNCTIONS[op](v) for v in x], target.np)
    got = _run(unary, f"{op}_{dtype}", [x], target)
    np.testing.assert_array_equal(got, want)
    if target is dtype:
        numbers = ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_bits(unary: Shim, dtype: DType) -> None:
    x, bits = _values(dtype), int32 if dtype is float32 else int64
    got = _run(unary, f"to_bits_{dtype}", [x], bits)
    np.testing.assert_array_equal(got, x.view(bits.np))
    back = _run(unary, f"from_bits_{dtype}", [got], dtype)
    np.testing.assert_array_equal(back.view(bits.np), got)


@pytest.mark.parametrize("target", INTEGERS, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats_to_integers(unary: Shim, dtype: DType, target: DType) -> None:
    x = _values(dtype)
    cast = scalars.caster(dtype, target)
    np.testing.assert_array_equal(_run(unary, f"cast_{dtype}_{target}", [x], target),
                                  np.array([cast(v) for v in x], target.np))


@pytest.mark.parametrize("op", sorted(WRAPPING))
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers(binary: Shim, op: str, dtype: DType) -> None:
    x, y = _pairs(dtype)
    wrap = scalars.caster(int64, dtype)
    want = [wrap(WRAPPING[op](a, b)) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    np.testing.assert_array_equal(_run(binary, f"{op}_{dtype}", [x, y], dtype),
                                  np.array(want, dtype.np))


@pytest.mark.parametrize("op", ["shl", "shr"])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_shifts(binary: Shim, op: str, dtype: DType) -> None:
    x, y = _pairs(dtype)
    inside = (y >= 0) & (y < dtype.bits)
    x, y = x[inside], y[inside]
    wrap = scalars.caster(int64, dtype)
    want = [wrap(scalars.FUNCTIONS[op](a, b, dtype.bits))
            for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    np.testing.assert_array_equal(_run(binary, f"{op}_{dtype}", [x, y], dtype),
                                  np.array(want, dtype.np))


@pytest.mark.parametrize("op", ["neg", "abs"])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_signs(binary: Shim, op: str, dtype: DType) -> None:
    x, wrap = _values(dtype), scalars.caster(int64, dtype)
    want = [wrap(-v if op == "neg" else abs(v)) for v in x.tolist()]
    np.testing.assert_array_equal(_run(binary, f"{op}_{dtype}", [x], dtype),
                                  np.array(want, dtype.np))


@pytest.mark.parametrize("op", ["min", "max", "floordiv", "mod"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats(binary: Shim, op: str, dtype: DType) -> None:
    x, y = _pairs(dtype)
    with np.errstate(all="ignore"):
        want = np.array([scalars.FUNCTIONS[op](a, b) for a, b in zip(x, y, strict=True)], dtype.np)
    got = _run(binary, f"{op}_{dtype}", [x, y], dtype)
    wrong = ~((got == want) | (np.isnan(got) & np.isnan(want)))
    assert not wrong.any(), [(op, *map(float, row)) for row in zip(
        x[wrong], y[wrong], got[wrong], want[wrong], strict=True)][:8]
