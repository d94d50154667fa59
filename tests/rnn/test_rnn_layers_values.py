"""Every simple layer against its formula in NumPy, on both back ends."""

from __future__ import annotations

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import clone, config, grad, verify_grad
from tinygraph_rnn import init, layers, nonlinearities
from tinygraph_rnn.layers import (
    BiasLayer,
    ConcatLayer,
    DenseLayer,
    DimshuffleLayer,
    ElemwiseMergeLayer,
    ElemwiseSumLayer,
    ExpressionLayer,
    FlattenLayer,
    InputLayer,
    InverseLayer,
    MultiplicativeGatingLayer,
    NINLayer,
    NonlinearityLayer,
    PadLayer,
    ParametricRectifierLayer,
    RandomizedRectifierLayer,
    ReshapeLayer,
    ScaleLayer,
    SliceLayer,
    get_output,
    get_output_shape,
)

RNG = np.random.default_rng(5)
X = RNG.standard_normal((2, 3, 4))
W = RNG.standard_normal((12, 5))
C = RNG.standard_normal((3, 5))
V3, V4, V5 = (RNG.standard_normal(n) for n in (3, 4, 5))
M34 = RNG.standard_normal((3, 4))
M54 = RNG.standard_normal((5, 4))


def relu(x, a=0.0):
    return np.where(x > 0, x, a * x)


def nin(x, b):
    return np.einsum("bcp,cu->bup", x, C) + b


# name: (the layer over an input of (None, 3, 4), its value for X, its output shape)
CASES = {
    "dense": (lambda i: DenseLayer(i, 5, W, V5), relu(X.reshape(2, 12) @ W + V5), (None, 5)),
    "dense linear": (lambda i: DenseLayer(i, 5, W, None, None), X.reshape(2, 12) @ W, (None, 5)),
    "dense, 2 leading axes": (
        lambda i: DenseLayer(i, 5, W[:4], V5, nonlinearities.tanh, num_leading_axes=2),
        np.tanh(X @ W[:4] + V5), (None, 3, 5)),
    "dense, last axis": (
        lambda i: DenseLayer(i, 5, W[:4], V5, None, num_leading_axes=-1), X @ W[:4] + V5,
        (None, 3, 5)),
    "nin": (lambda i: NINLayer(i, 5, W=C, b=V5), relu(nin(X, V5[:, None])), (None, 5, 4)),
    "nin, untied": (lambda i: NINLayer(i, 5, True, C, M54, None), nin(X, M54), (None, 5, 4)),
    "nin without bias": (
        lambda i: NINLayer(i, 5, False, C, None, nonlinearities.tanh), np.tanh(nin(X, 0)),
        (None, 5, 4)),
    "nonlinearity": (lambda i: NonlinearityLayer(i), relu(X), (None, 3, 4)),
    "no nonlinearity": (lambda i: NonlinearityLayer(i, None), X, (None, 3, 4)),
    "bias": (lambda i: BiasLayer(i, V3), X + V3[:, None], (None, 3, 4)),
    "bias, axis 0 shared": (lambda i: BiasLayer(i, M34, 0), X + M34, (None, 3, 4)),
    "bias, negative axes": (lambda i: BiasLayer(i, V4, (0, -2)), X + V4, (None, 3, 4)),
    "bias, all shared": (lambda i: BiasLayer(i, 2.5, "all"), X + 2.5, (None, 3, 4)),
    "no bias": (lambda i: BiasLayer(i, None), X, (None, 3, 4)),
    "scale": (lambda i: ScaleLayer(i, V3), X * V3[:, None], (None, 3, 4)),
    "scale, axes shared": (lambda i: ScaleLayer(i, V4, (0, 1)), X * V4, (None, 3, 4)),
    "standardize": (
        lambda i: layers.standardize(i, V3, np.abs(V3)), (X - V3[:, None]) / np.abs(V3)[:, None],
        (None, 3, 4)),
    "standardize, axes shared": (
        lambda i: layers.standardize(i, M34, np.exp(M34), shared_axes=0), (X - M34) / np.exp(M34),
        (None, 3, 4)),
    "expression": (lambda i: ExpressionLayer(i, lambda x: x ** 2), X ** 2, (None, 3, 4)),
    "expression of a shape": (
        lambda i: ExpressionLayer(i, lambda x: x.sum(axis=1), (None, 4)), X.sum(1), (None, 4)),
    "expression, shape from a function": (
        lambda i: ExpressionLayer(i, lambda x: x.max(axis=0), lambda shape: shape[1:]), X.max(0),
        (3, 4)),
    "expression, auto": (
        lambda i: ExpressionLayer(
            i, lambda x: T.concatenate([x, x], 2).dimshuffle(2, "x", 0, 1), output_shape="auto"),
        np.concatenate([X, X], 2).transpose(2, 0, 1)[:, None], (8, 1, None, 3)),
    "prelu": (lambda i: ParametricRectifierLayer(i, V3), relu(X, V3[:, None]), (None, 3, 4)),
    "prelu, all": (
        lambda i: ParametricRectifierLayer(i, 0.3, shared_axes="all"), relu(X, 0.3), (None, 3, 4)),
    "prelu, one axis": (
        lambda i: ParametricRectifierLayer(i, M34, shared_axes=0), relu(X, M34), (None, 3, 4)),
    "prelu by default": (lambda i: ParametricRectifierLayer(i), relu(X, 0.25), (None, 3, 4)),
    "rrelu of equal bounds": (
        lambda i: RandomizedRectifierLayer(i, 0.5, 0.5), relu(X, 0.5), (None, 3, 4)),
    "flatten": (lambda i: FlattenLayer(i), X.reshape(2, 12), (None, 12)),
    "flatten to 1": (lambda i: FlattenLayer(i, 1), X.reshape(24), (None,)),
    "flatten to 3": (lambda i: FlattenLayer(i, 3), X, (None, 3, 4)),
    "reshape": (lambda i: ReshapeLayer(i, ([0], 2, -1)), X.reshape(2, 2, 6), (None, 2, 6)),
    "reshape by a constant": (
        lambda i: ReshapeLayer(i, (T.constant(6), -1)), X.reshape(6, 4), (6, None)),
    "dimshuffle": (
        lambda i: DimshuffleLayer(i, (1, "x", 2, 0)), X.transpose(1, 2, 0)[:, None],
        (3, 1, 4, None)),
    "pad": (lambda i: PadLayer(i, 2), np.pad(X, [(0, 0), (0, 0), (2, 2)]), (None, 3, 8)),
    "pad, an int per axis": (
        lambda i: PadLayer(i, (1, 2), batch_ndim=1), np.pad(X, [(0, 0), (1, 1), (2, 2)]),
        (None, 5, 8)),
    "pad, pairs and a value": (
        lambda i: PadLayer(i, [(0, 1), 2], val=7.0, batch_ndim=1),
        np.pad(X, [(0, 0), (0, 1), (2, 2)], constant_values=7.0), (None, 4, 8)),
    "pad the batch": (
        lambda i: PadLayer(i, [(1, 0), 0, 0], batch_ndim=0), np.pad(X, [(1, 0), (0, 0), (0, 0)]),
        (None, 3, 4)),
    "slice": (lambda i: SliceLayer(i, slice(1, None, 2)), X[:, :, 1::2], (None, 3, 2)),
    "slice of one": (lambda i: SliceLayer(i, -1, axis=1), X[:, -1], (None, 4)),
    "concat": (
        lambda i: ConcatLayer([i, SliceLayer(i, slice(1, 2), 2)], axis=2),
        np.concatenate([X, X[:, :, 1:2]], 2), (None, 3, 5)),
    "concat, last axis": (
        lambda i: ConcatLayer([i, i], -1), np.concatenate([X, X], 2), (None, 3, 8)),
    "merge": (lambda i: ElemwiseMergeLayer([i, i, i], T.mul), X ** 3, (None, 3, 4)),
    "sum": (lambda i: ElemwiseSumLayer([i, i, i], [1, -0.5, 3]), 3.5 * X, (None, 3, 4)),
    "sum, one coefficient": (lambda i: ElemwiseSumLayer([i, i], coeffs=2), 4 * X, (None, 3, 4)),
    "gate": (
        lambda i: MultiplicativeGatingLayer(
            NonlinearityLayer(i, nonlinearities.sigmoid), i, BiasLayer(i, V3)),
        X + (1 - ref.sigmoid(X)) * V3[:, None], (None, 3, 4)),
    "inverse of a dense layer": (
        lambda i: inverse_of(DenseLayer(i, 5, W, V5, None)),
        ((X.reshape(2, 12) @ W + V5) @ W.T).reshape(2, 3, 4), (None, 3, 4)),
    "inverse of a scale": (lambda i: inverse_of(ScaleLayer(i, V3)), X * V3[:, None] ** 2,
                           (None, 3, 4)),
}


def inverse_of(layer):
    return InverseLayer(layer, layer)


@pytest.fixture(params=["numpy", "llvm"])
def backend(request):
    with config.change(backend=request.param):
        yield request.param


@pytest.mark.parametrize("case", CASES)
def test_value_and_shape(case, backend):
    make, expected, shape = CASES[case]
    l_in = InputLayer((None, 3, 4), name="x")
    layer = make(l_in)
    assert layer.output_shape == shape == get_output_shape(layer)
    np.testing.assert_allclose(ref.run([l_in.input_var], get_output(layer), X), expected,
                               rtol=1e-10, atol=1e-12)
    full = get_output_shape(layer, X.shape)
    assert len(full) == expected.ndim
    assert all(a in (None, b) for a, b in zip(full, expected.shape, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_dtype_and_sizes(case):
    with config.change(floatX="float32"):
        layer = CASES[case][0](InputLayer((None, 3, 4)))
        out = get_output(layer)
        assert out.dtype == "float32"
        # The sizes of parameters may change, so that what depends on them is not known.
        assert all(n is None or d.const in (None, n)
                   for n, d in zip(layer.output_shape, out.type.dims, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_variable_without_sizes_and_a_second_use(case):
    make, expected, _ = CASES[case]
    l_in = InputLayer((None, 3, 4), T.tensor3("x"))
    layer, v = make(l_in), T.tensor3("v")
    out, other = get_output(layer, deterministic=True), get_output(layer, v)
    first, second = ref.run([l_in.input_var, v], [out, other], X, X)
    np.testing.assert_allclose(first, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("case", CASES)
def test_gradient(case):
    layer = CASES[case][0](InputLayer((None, 3, 4)))
    verify_grad(lambda x: get_output(layer, x), [X], n_tests=1, rng=np.random.default_rng(3))


@pytest.mark.parametrize("case", CASES)
def test_compiled_gradient(case):
    l_in = InputLayer((None, 3, 4))
    out = get_output(CASES[case][0](l_in))
    g = grad((out ** 2).sum(), l_in.input_var)
    expected = ref.run([l_in.input_var], g, X)
    with config.change(backend="llvm"):
        np.testing.assert_allclose(ref.run([l_in.input_var], g, X), expected, rtol=1e-10,
                                   atol=1e-12)


WITHOUT_SIZES = {
    "nonlinearity": NonlinearityLayer, "flatten": FlattenLayer, "dropout": layers.DropoutLayer,
    "noise": layers.GaussianNoiseLayer,
    "dense on the last axis": lambda i: DenseLayer(i, 2, num_leading_axes=2),
    "bias": lambda i: BiasLayer(i, shared_axes="all"),
    "scale": lambda i: ScaleLayer(i, shared_axes="all"),
    "rrelu": RandomizedRectifierLayer, "pad": lambda i: PadLayer(i, 1, batch_ndim=0),
    "reshape": lambda i: ReshapeLayer(i, ([1], [0], -1)), "slice": lambda i: SliceLayer(i, 0),
    "dimshuffle": lambda i: DimshuffleLayer(i, (2, 0, "x", 1)),
    "concat": lambda i: ConcatLayer([i, i, i]), "sum": lambda i: ElemwiseSumLayer([i, i]),
    "merge": lambda i: ElemwiseMergeLayer([i, i], T.maximum),
    "cropped": lambda i: ElemwiseSumLayer([i, i], cropping=["center"] * 3),
    "gate": lambda i: MultiplicativeGatingLayer(i, i, i),
    "expression": lambda i: ExpressionLayer(i, lambda x: x[::-1], "auto"),
    "inverse": lambda i: inverse_of(FlattenLayer(i)),
    "prelu": lambda i: ParametricRectifierLayer(i, shared_axes="all"),
    "dense": lambda i: DenseLayer(i, 1), "nin": lambda i: NINLayer(i, 1, untie_biases=True),
}


@pytest.mark.parametrize("case", WITHOUT_SIZES)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 3, 4)])
def test_sizes_of_one_and_none(case, sizes, backend):
    """As little as possible is known of the input, whose sizes are 1 or others."""
    if case.startswith("dense on"):
        shape = (None, None, sizes[2])
    else:
        shape = (None, *sizes[1:]) if case in ("dense", "nin") else (None,) * 3
    for variable in (None, T.tensor3("x")):
        l_in = InputLayer(shape, variable)
        layer = WITHOUT_SIZES[case](l_in)
        x = RNG.standard_normal(sizes)
        assert ref.run([l_in.input_var], get_output(layer), x).shape == (
            get_output_shape(layer, sizes))


@pytest.mark.parametrize("make", [
    lambda i: DenseLayer(i, 5, num_leading_axes=2), lambda i: NINLayer(i, 5, untie_biases=True),
    lambda i: BiasLayer(i, init.Normal(1.0)), lambda i: ScaleLayer(i, init.Normal(1.0)),
    lambda i: ParametricRectifierLayer(i)])
def test_gradient_by_parameters(make):
    layer = make(InputLayer((None, 3, 4)))
    params = layer.get_params()
    assert params == layer.get_params(trainable=True)

    def out(*values):
        return clone(get_output(layer, X), replace=dict(zip(params, values, strict=True)))

    verify_grad(out, [p.get_value() for p in params], n_tests=1, rng=np.random.default_rng(3))
