"""Every scalar function, for every dtype that it takes: loops and LLVM against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph.dtypes import ALL, DType, bool_
from tinygraph.ops.arithmetic import elementwise
from tinygraph.ops.scalars import TABLE, cast_fn

SMALL = {"exp": 5, "expm1": 5, "sinh": 5, "cosh": 5, "pow": 3, "tan": 1.2}
UNIT = {"arcsin", "arccos", "arctanh"}
POSITIVE = {"log", "log2", "sqrt", "pow"}


def numbers(name: str, dtype: DType, shape: tuple[int, ...], rng: np.random.Generator
            ) -> np.ndarray:
    """Arguments for which the function is defined, signs and zeros among them."""
    if dtype is bool_:
        return rng.random(shape) < 0.5
    if dtype.is_int:
        low, high = (0, 100) if dtype.kind == "u" else (-100, 100)
        return rng.integers(low, high, shape).astype(dtype.np)
    x = rng.uniform(-1, 1, shape) * SMALL.get(name, 1 if name in UNIT else 20)
    if name in POSITIVE:
        x = np.abs(x) + 1e-3
    if name == "arccosh":
        x = np.abs(x) + 1
    if name == "log1p":
        x = np.abs(x) - 0.9
    x[rng.random(shape) < 0.1] *= 0
    if name in ("pow", "log", "log2", "arccosh"):
        x = np.maximum(x, 1)
    return x.astype(dtype.np)


def applications(dtype: DType, rng: np.random.Generator):
    """Per scalar function that takes ``dtype``: inputs, arrays and the applications."""
    inputs, arrays, outputs, names = [], [], [], []
    shape = (3, 5)
    for name, fn in TABLE.items():
        if dtype.kind not in fn.accepts:
            continue
        kinds = [dtype] * fn.arity
        if name == "switch":
            kinds[0] = bool_
        operands = []
        for k, kind in enumerate(kinds):
            x = T.TensorType(kind.name, (False, False))(f"{name}{k}")
            inputs.append(x)
            arrays.append(numbers(name, kind, shape, rng))
            operands.append(x)
        outputs.append(elementwise(fn, *operands))
        names.append(name)
    return inputs, arrays, outputs, names


@pytest.mark.parametrize("backend", ["loops", "llvm"])
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_scalar_functions(dtype, backend):
    rng = np.random.default_rng(3)
    inputs, arrays, outputs, names = applications(dtype, rng)
    with tinygraph.config.change(cache="off"):
        f = tinygraph.function(inputs, outputs, backend=backend)
    with np.errstate(all="ignore"):
        got = f(*arrays)
        want = tinygraph.function(inputs, outputs, backend="numpy")(*arrays)
    for name, a, b in zip(names, got, want, strict=True):
        assert a.dtype == b.dtype, name
        if a.dtype.kind == "f":
            rtol = 1e-6 if a.dtype == np.float32 else 3e-15
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, err_msg=name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("backend", ["loops", "llvm"])
def test_casts_between_all_types(backend):
    inputs, arrays, outputs, names = [], [], [], []
    special = [0, 1, -1, 2.5, -2.5, 100.7, -100.7, 127, 128, 255, 256, -128, -129, 32767.9, 4e4,
               2.0**31, -(2.0**31), 2.0**40, 2.0**63, -(2.0**63), 1e20, -1e20, np.inf, -np.inf,
               np.nan]
    for source in ALL:
        x = T.TensorType(source.name, (False,))(f"x_{source}")
        inputs.append(x)
        if source.is_float:
            arrays.append(np.array(special, source.np))
        elif source is bool_:
            arrays.append(np.array([True, False]))
        else:
            info = np.iinfo(source.np)
            arrays.append(np.array([0, 1, info.min, info.max, 77], source.np))
        for target in ALL:
            outputs.append(elementwise(cast_fn(target), x))
            names.append(f"{source} to {target}")
    with tinygraph.config.change(cache="off"), np.errstate(all="ignore"):
        got = tinygraph.function(inputs, outputs, backend=backend)(*arrays)
        want = tinygraph.function(inputs, outputs, backend="numpy")(*arrays)
    for name, a, b in zip(names, got, want, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("backend", ["loops", "llvm"])
def test_special_floats(backend):
    names = [n for n, fn in TABLE.items() if "f" in fn.accepts and n != "switch"]
    special = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, -3.0]
    pairs = [(a, b) for a in special for b in special]
    xs, ys = (np.array(p) for p in zip(*pairs, strict=True))
    x, y = T.dvector("x"), T.dvector("y")
    outputs = [elementwise(TABLE[n], *(x, y)[:TABLE[n].arity]) for n in names]
    with tinygraph.config.change(cache="off"), np.errstate(all="ignore"):
        got = tinygraph.function([x, y], outputs, backend=backend)(xs, ys)
        want = tinygraph.function([x, y], outputs, backend="numpy")(xs, ys)
    for name, a, b in zip(names, got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-300, err_msg=name)
