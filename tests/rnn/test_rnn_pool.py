"""Pooling and scaling up against loops over windows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import config
from tinygraph.gradient import verify_grad
from tinygraph_rnn.layers import (
    FeaturePoolLayer,
    FeatureWTALayer,
    GlobalPoolLayer,
    InputLayer,
    InverseLayer,
    MaxPool1DLayer,
    MaxPool2DLayer,
    MaxPool3DLayer,
    Pool1DLayer,
    Pool2DLayer,
    Pool3DLayer,
    Upscale1DLayer,
    Upscale2DLayer,
    Upscale3DLayer,
    get_output,
    get_output_shape,
)
from tinygraph_rnn.layers.pool import pool_output_length

RNG = np.random.default_rng(8)
POOL = {1: Pool1DLayer, 2: Pool2DLayer, 3: Pool3DLayer}
MAX_POOL = {1: MaxPool1DLayer, 2: MaxPool2DLayer, 3: MaxPool3DLayer}
UPSCALE = {1: Upscale1DLayer, 2: Upscale2DLayer, 3: Upscale3DLayer}


def random(*shape):
    return RNG.standard_normal(shape)


def windows(n, size, stride, pad, ignore_border):
    """The indices of every window along an axis of ``n`` elements; padding is None."""
    last = n + (pad if ignore_border else size)  # windows beyond the end are left out or cut off
    found = []
    for start in range(-pad, n + pad, stride):
        stop = start + size
        if stop > last:
            break
        if not ignore_border and found and start + size - stride >= n and size > stride:
            break  # the one before has reached the end already
        inside = [i if 0 <= i < n else None for i in range(start, stop)]
        found.append(inside if ignore_border else [i for i in inside if i is not None])
    return found


def loops(x, sizes, strides, pads, ignore_border, mode):
    axes = [windows(*axis, ignore_border) for axis in zip(
        x.shape[2:], sizes, strides, pads, strict=True)]
    out = np.zeros((*x.shape[:2], *map(len, axes)))
    for at in itertools.product(*(range(len(a)) for a in axes)):
        picked = list(itertools.product(*(a[i] for a, i in zip(axes, at, strict=True))))
        real = np.stack([x[(slice(None), slice(None), *p)] for p in picked if None not in p])
        out[(slice(None), slice(None), *at)] = {
            "max": lambda v, n: v.max(0), "sum": lambda v, n: v.sum(0),
            "average_inc_pad": lambda v, n: v.sum(0) / n,
            "average_exc_pad": lambda v, n: v.mean(0)}[mode](real, len(picked))
    return out


def value(layer, x):
    """The output for ``x``, in the interpreter and natively; its shape is the one promised."""
    out = get_output(layer)
    found = ref.run([layer.input_layer.input_var], out, x)
    with config.change(backend="llvm"):
        np.testing.assert_allclose(ref.run([layer.input_layer.input_var], out, x), found,
                                   rtol=1e-12)
    assert get_output_shape(layer, x.shape) == found.shape
    promised = layer.output_shape
    assert len(promised) == found.ndim
    assert all(a in (None, b) for a, b in zip(promised, found.shape, strict=True))
    return found


CASES = [  # rank, pool_size, stride, pad, ignore_border
    (1, 2, None, 0, True), (1, (3,), (2,), 1, True), (1, 2, 3, 0, False), (1, 3, 2, 0, False),
    (1, 3, 1, 0, False),
    (2, 2, None, (0, 0), True), (2, (2, 3), (1, 2), (1, 2), True), (2, 3, (2, 1), 0, False),
    (2, (3, 2), None, 0, False), (2, 2, 3, 1, True), (2, (9, 2), 4, 0, False),
    (3, 2, None, (0, 0, 0), True), (3, (2, 3, 1), (1, 2, 3), (1, 0, 0), True),
    (3, 2, (3, 1, 2), 0, False),
]
SIZES = {1: (8,), 2: (7, 6), 3: (4, 5, 3)}


@pytest.mark.parametrize(("mode", "known"), [
    ("max", True), ("max", False), ("average_inc_pad", False), ("average_exc_pad", True),
    ("sum", False)])
@pytest.mark.parametrize(("rank", "size", "stride", "pad", "ignore_border"), CASES)
def test_pooling(rank, size, stride, pad, ignore_border, mode, known):
    x = random(2, 3, *SIZES[rank])
    l_in = InputLayer(x.shape if known else (None,) * x.ndim)
    layer = POOL[rank](l_in, size, stride, pad, ignore_border, mode)
    expected = loops(x, layer.pool_size, layer.stride, layer.pad, ignore_border, mode)
    np.testing.assert_allclose(value(layer, x), expected, rtol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pooling(rank):
    x = random(2, 3, *SIZES[rank])
    layer = MAX_POOL[rank](InputLayer(x.shape), 2)
    assert isinstance(layer, POOL[rank]) and layer.mode == "max"
    expected = loops(x, (2,) * rank, (2,) * rank, (0,) * rank, True, "max")
    np.testing.assert_array_equal(value(layer, x), expected)
    layer = MAX_POOL[rank](InputLayer(x.shape), 3, 2, 0, False)
    expected = loops(x, (3,) * rank, (2,) * rank, (0,) * rank, False, "max")
    np.testing.assert_array_equal(value(layer, x), expected)


def test_padding_is_no_maximum():
    layer = MaxPool1DLayer(InputLayer((1, 1, 3)), 2, 1, 1)
    assert value(layer, np.array([[[-3.0, -2.0, -1.0]]])).tolist() == [[[-3, -2, -1, -1]]]


def test_lengths():
    for n, size, stride in itertools.product(range(4, 9), range(1, 5), range(1, 6)):
        for pad in range(size):
            found = pool_output_length(n, size, stride, pad, True)
            assert found == len(windows(n, size, stride, pad, True)), (n, size, stride, pad)
        found = pool_output_length(n, size, stride, 0, False)
        assert found == len(windows(n, size, stride, 0, False)), (n, size, stride)
    assert pool_output_length(2, 5, 1, 0, False) == 1
    assert pool_output_length(None, 2, 2, 0, True) is None
    with pytest.raises(ValueError, match="without ignore_border there is no padding"):
        pool_output_length(8, 2, 2, 1, False)


REFUSED = [
    (ValueError, "needs an input of 4 axes", lambda: Pool2DLayer((None, 3, 8), 2)),
    (ValueError, "needs an input of 3 axes", lambda: MaxPool1DLayer((None, 8), 2)),
    (ValueError, "mode is 'min'", lambda: Pool2DLayer((None, 3, 8, 8), 2, mode="min")),
    (ValueError, "pool_size is 0", lambda: Pool2DLayer((None, 3, 8, 8), 0)),
    (ValueError, r"stride is \(1, 2, 3\)", lambda: Pool2DLayer((None, 3, 8, 8), 2, (1, 2, 3))),
    (TypeError, "pool_size is 2.5", lambda: Pool2DLayer((None, 3, 8, 8), 2.5)),
    (ValueError, "without ignore_border",
     lambda: Pool2DLayer((None, 3, 8, 8), 2, pad=1, ignore_border=False)),
    (ValueError, "less than pool_size", lambda: Pool2DLayer((None, 3, 8, 8), 2, pad=2)),
    (ValueError, "smaller than one window", lambda: Pool2DLayer((None, 3, 8, 2), 3)),
    (ValueError, "needs an input of 5 axes", lambda: Upscale3DLayer((None, 3, 8, 8), 2)),
    (ValueError, "scale_factor is 0", lambda: Upscale2DLayer((None, 3, 8, 8), 0)),
    (ValueError, "mode is 'linear'", lambda: Upscale2DLayer((None, 3, 8, 8), 2, "linear")),
    (ValueError, "pool_size=4 does not divide", lambda: FeaturePoolLayer((None, 6), 4)),
    (ValueError, "axis 2 of an input", lambda: FeaturePoolLayer((None, 6), 2, axis=2)),
    (ValueError, "pool_size=4 does not divide", lambda: FeatureWTALayer((None, 6), 4)),
    (ValueError, "3 axes at least", lambda: GlobalPoolLayer((None, 6))),
    (TypeError, "unexpected keyword", lambda: MaxPool2DLayer((None, 3, 8, 8), 2, mode="max")),
]


@pytest.mark.parametrize(("kind", "message", "make"), REFUSED)
def test_refused(kind, message, make):
    with pytest.raises(kind, match=message):
        make()


# --- scaling up ---------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("rank", "factor"), [(1, 2), (2, (2, 3)), (2, 1), (3, (1, 3, 2))])
def test_upscaling(rank, factor, known):
    x = random(2, 3, *SIZES[rank])
    l_in = InputLayer(x.shape if known else (None,) * x.ndim)
    repeated = UPSCALE[rank](l_in, factor)
    expected = x
    for k, n in enumerate(repeated.scale_factor):
        expected = np.repeat(expected, n, 2 + k)
    np.testing.assert_array_equal(value(repeated, x), expected)
    dilated = UPSCALE[rank](l_in, factor, mode="dilate")
    at = np.ones(1)
    for n in dilated.scale_factor:
        at = np.multiply.outer(at, np.arange(n) == 0)
    np.testing.assert_array_equal(value(dilated, x), np.kron(x, at.reshape(1, 1, *at.shape[1:])))


# --- features -----------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("axis", [1, -1, 2])
def test_feature_pooling(axis, known):
    x = random(2, 6, 4)
    l_in = InputLayer(x.shape if known else (None,) * 3)
    k = axis % 3
    pools = x.reshape(*x.shape[:k], -1, 2, *x.shape[k + 1:])
    np.testing.assert_array_equal(value(FeaturePoolLayer(l_in, 2, axis), x), pools.max(k + 1))
    mean = FeaturePoolLayer(l_in, 2, axis, pool_function=T.mean)
    np.testing.assert_allclose(value(mean, x), pools.mean(k + 1), rtol=1e-12)
    kept = np.where(pools == pools.max(k + 1, keepdims=True), pools, 0).reshape(x.shape)
    np.testing.assert_array_equal(value(FeatureWTALayer(l_in, 2, axis), x), kept)


def test_the_first_of_equal_ones_wins():
    layer = FeatureWTALayer(InputLayer((1, 4)), 4)
    assert value(layer, np.array([[1.0, 3.0, 3.0, 2.0]])).tolist() == [[0, 3, 0, 0]]


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (2, 3, 4, 2, 2)])
def test_global_pooling(shape):
    x = random(*shape)
    flat = x.reshape(2, 3, -1)
    l_in = InputLayer((None, 3, *(None,) * (len(shape) - 2)))
    np.testing.assert_allclose(value(GlobalPoolLayer(l_in), x), flat.mean(2), rtol=1e-12)
    np.testing.assert_array_equal(value(GlobalPoolLayer(l_in, T.max), x), flat.max(2))


# --- gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [
    Pool1DLayer((2, 3, 8), 3, 2, 0, False), Pool2DLayer((2, 3, 7, 6), 3, 2, 1),
    Pool2DLayer((2, 3, 7, 6), (2, 3), 1, 1, mode="average_exc_pad"),
    Pool3DLayer((1, 2, 4, 5, 3), 2, 3, 0, False, "average_inc_pad"),
    Upscale2DLayer((2, 3, 4, 2), (2, 3)), Upscale2DLayer((2, 3, 4, 2), (2, 3), "dilate"),
    FeaturePoolLayer((2, 6, 3), 3), FeatureWTALayer((2, 6, 3), 3), GlobalPoolLayer((2, 3, 4, 2)),
], ids=repr)
def test_gradients(layer):
    verify_grad(layer.get_output_for, [random(*layer.input_shape)])


def test_inverse_of_max_pooling():
    """What was a maximum gets the value; everything else is 0."""
    layer = MaxPool2DLayer(InputLayer((None, 2, None, None)), 2)
    x = random(2, 2, 4, 6)
    var = layer.input_layer.input_var
    back = ref.run([var], get_output(InverseLayer(layer, layer)), x)
    wide = value(layer, x).repeat(2, 2).repeat(2, 3)
    np.testing.assert_array_equal(back, np.where(wide == x, x, 0))
