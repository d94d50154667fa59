"""Convolution layers against sums written as loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import config, function, grad, shared
from tinygraph.errors import ShapeError
from tinygraph.gradient import verify_grad
from tinygraph_rnn import nonlinearities, updates
from tinygraph_rnn.layers import (
    Conv1DLayer,
    Conv2DLayer,
    Conv3DLayer,
    CustomRecurrentLayer,
    Deconv2DLayer,
    DilatedConv2DLayer,
    InputLayer,
    InverseLayer,
    TransposedConv2DLayer,
    TransposedConv3DLayer,
    get_all_params,
    get_output,
    get_output_shape,
)
from tinygraph_rnn.layers.conv import BaseConvLayer, conv_input_length, conv_output_length

RNG = np.random.default_rng(5)


def random(*shape):
    return RNG.standard_normal(shape)


def loops(x, W, stride, pads, flip, groups=1, dilation=None):
    """z[n, o, i] = sum over c, u of x[n, c, i * stride + u * dilation - pad] W[o, c, u]."""
    n = x.ndim - 2
    dilation = dilation or (1,) * n
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pads)])
    if flip:
        W = np.flip(W, axis=tuple(range(2, n + 2)))
    size = W.shape[2:]
    places = [(x.shape[2 + k] - (size[k] - 1) * dilation[k] - 1) // stride[k] + 1
              for k in range(n)]
    out = np.zeros((x.shape[0], W.shape[0], *places))
    each, of = x.shape[1] // groups, W.shape[0] // groups
    for o in range(W.shape[0]):
        mine = x[:, (o // of) * each:(o // of + 1) * each]
        for i in itertools.product(*map(range, places)):
            for u in itertools.product(*map(range, size)):
                at = tuple(i[k] * stride[k] + u[k] * dilation[k] for k in range(n))
                out[(slice(None), o, *i)] += mine[(slice(None), slice(None), *at)] @ W[(o, slice(
                    None), *u)]
    return out


def backwards(x, W, stride, crops, flip, sizes):
    """Every element puts a filter into the output; W is (channels, filters, ...)."""
    n = x.ndim - 2
    if flip is False:
        W = np.flip(W, axis=tuple(range(2, n + 2)))
    wide = [(x.shape[2 + k] - 1) * stride[k] + W.shape[2 + k] for k in range(n)]
    wide = [max(w, s + 2 * c) for w, s, c in zip(wide, sizes, crops, strict=True)]
    out = np.zeros((x.shape[0], W.shape[1], *wide))
    for i in itertools.product(*map(range, x.shape[2:])):
        for u in itertools.product(*map(range, W.shape[2:])):
            at = tuple(i[k] * stride[k] + u[k] for k in range(n))
            out[(slice(None), slice(None), *at)] += x[(slice(None), slice(None), *i)] @ W[
                (slice(None), slice(None), *u)]
    inside = tuple(slice(c, c + s) for c, s in zip(crops, sizes, strict=True))
    return out[(slice(None), slice(None), *inside)]


def value(layer, x, **kwargs):
    """The output for ``x``, in the interpreter and natively; its shape is the one promised."""
    (l_in,) = [v for v in [layer.input_layer] if isinstance(v, InputLayer)]
    out = get_output(layer, **kwargs)
    found = ref.run([l_in.input_var], out, x)
    with config.change(backend="llvm"):
        np.testing.assert_allclose(ref.run([l_in.input_var], out, x), found, rtol=1e-10,
                                   atol=1e-12)
    assert get_output_shape(layer, x.shape) == found.shape
    promised = layer.output_shape
    assert len(promised) == found.ndim
    assert all(a in (None, b) for a, b in zip(promised, found.shape, strict=True))
    return found


LAYERS = {1: Conv1DLayer, 2: Conv2DLayer, 3: Conv3DLayer}
SIZES = {1: (7,), 2: (7, 6), 3: (4, 5, 3)}

CASES = [  # rank, filter_size, stride, pad, zeros
    (1, 3, 1, 0, (0,)), (1, 3, 2, "valid", (0,)), (1, (2,), (3,), "full", (1,)),
    (1, 5, 2, "same", (2,)), (1, 4, 1, 2, (2,)),
    (2, 3, (1, 1), 0, (0, 0)), (2, (2, 3), (2, 1), "full", (1, 2)),
    (2, (3, 5), 2, "same", (1, 2)), (2, 3, (1, 3), (2, 0), (2, 0)), (2, 1, 1, "valid", (0, 0)),
    (3, 2, (1, 1, 1), 1, (1, 1, 1)), (3, (3, 1, 3), 2, "same", (1, 0, 1)),
]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("rank", "size", "stride", "pad", "zeros"), CASES)
def test_convolution(rank, size, stride, pad, zeros, known):
    shape = (2, 3, *SIZES[rank])
    x, b = random(*shape), random(4)
    l_in = InputLayer(shape if known else (None, 3, *(None,) * rank))
    layer = LAYERS[rank](l_in, 4, size, stride, pad, b=b, nonlinearity=nonlinearities.tanh)
    assert layer.W.get_value().shape == (4, 3, *layer.filter_size)
    z = loops(x, layer.W.get_value(), layer.stride, zeros, flip=True)
    np.testing.assert_allclose(
        value(layer, x), np.tanh(z + b.reshape(-1, *(1,) * rank)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_correlation(rank):
    x = random(2, 3, *SIZES[rank])
    layer = LAYERS[rank](InputLayer(x.shape), 2, 3, flip_filters=False, b=None, nonlinearity=None)
    assert layer.b is None and layer.get_params() == [layer.W]
    z = loops(x, layer.W.get_value(), (1,) * rank, (0,) * rank, flip=False)
    np.testing.assert_allclose(value(layer, x), z, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_untied_biases(rank):
    x = random(2, 3, *SIZES[rank])
    layer = LAYERS[rank](InputLayer(x.shape), 2, 3, untie_biases=True)
    assert layer.b.get_value().shape == layer.output_shape[1:]
    layer.b.set_value(random(*layer.output_shape[1:]))
    z = loops(x, layer.W.get_value(), (1,) * rank, (0,) * rank, flip=True)
    np.testing.assert_allclose(value(layer, x), np.maximum(z + layer.b.get_value(), 0),
                               rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_groups(rank):
    x = random(2, 6, *SIZES[rank])
    layer = LAYERS[rank](InputLayer((None, *x.shape[1:])), 4, 3, num_groups=2, b=None,
                         nonlinearity=None)
    assert layer.get_W_shape() == (4, 3, *(3,) * rank) == layer.W.get_value().shape
    z = loops(x, layer.W.get_value(), (1,) * rank, (0,) * rank, flip=True, groups=2)
    np.testing.assert_allclose(value(layer, x), z, rtol=1e-10, atol=1e-12)


def test_smallest():
    layer = Conv2DLayer(InputLayer((1, 1, 1, 1)), 1, 1, W=[[[[2.0]]]], b=[3.0])
    assert value(layer, np.full((1, 1, 1, 1), 5.0)).tolist() == [[[[13.0]]]]


def test_parameters():
    layer = Conv2DLayer((None, 3, 8, 8), 4, 3, name="c")
    assert [p.name for p in layer.get_params()] == ["c.W", "c.b"]
    assert layer.get_params(regularizable=True) == [layer.W]
    assert (layer.num_filters, layer.filter_size, layer.stride, layer.pad) == (4, (3, 3), (1, 1), (
        0, 0))
    W = shared(random(4, 3, 3, 3))
    assert Conv2DLayer((None, 3, 8, 8), 4, 3, W=W).W is W
    tied = Conv2DLayer((None, 4, 8, 8), 3, 3, W=W.dimshuffle(1, 0, 2, 3))
    assert tied.get_params(trainable=True) == [W, tied.b]


def test_own_convolution():
    """It is called as Theano's is: also with the shapes known."""
    seen = {}

    def convolution(x, filters, input_shape, filter_shape, **options):
        seen.update(options, shapes=(input_shape, filter_shape))
        return T.nnet.conv2d(x, filters, input_shape, filter_shape, **options)

    layer = Conv2DLayer(InputLayer((2, 3, 6, None)), 4, (3, 5), 2, "same",
                        convolution=convolution)
    get_output(layer)
    assert seen == {"subsample": (2, 2), "border_mode": "half", "filter_flip": True,
                    "shapes": ((None, 3, 6, None), (4, 3, 3, 5))}


def test_another_batch_than_said():
    layer = Conv1DLayer(InputLayer((5, 2, 8)), 3, 3)
    x = T.tensor3("x")
    assert ref.run([x], get_output(layer, x), random(2, 2, 8)).shape == (2, 3, 6)


REFUSED = [
    (ValueError, "needs an input of 4 axes", lambda: Conv2DLayer((None, 3, 8), 4, 3)),
    (ValueError, "number of channels", lambda: Conv2DLayer((None, None, 8, 8), 4, 3)),
    (ValueError, "num_groups is 2", lambda: Conv2DLayer((None, 3, 8, 8), 4, 3, num_groups=2)),
    (ValueError, "num_groups is 2", lambda: Conv2DLayer((None, 4, 8, 8), 3, 3, num_groups=2)),
    (ValueError, "num_groups is 0", lambda: Conv2DLayer((None, 4, 8, 8), 3, 3, num_groups=0)),
    (ValueError, r"filter_size is \(3, 3, 3\)", lambda: Conv2DLayer((None, 3, 8, 8), 4, (3, 3, 3))),
    (ValueError, "filter_size is 0", lambda: Conv2DLayer((None, 3, 8, 8), 4, 0)),
    (TypeError, "filter_size is 2.5", lambda: Conv2DLayer((None, 3, 8, 8), 4, 2.5)),
    (ValueError, "num_filters is 0", lambda: Conv2DLayer((None, 3, 8, 8), 0, 3)),
    (ValueError, "stride is 0", lambda: Conv1DLayer((None, 3, 8), 4, 3, stride=0)),
    (ValueError, "pad is 'mirror'", lambda: Conv1DLayer((None, 3, 8), 4, 3, pad="mirror")),
    (ValueError, "pad is -1", lambda: Conv1DLayer((None, 3, 8), 4, 3, pad=-1)),
    (NotImplementedError, "filters of odd size",
     lambda: Conv2DLayer((None, 3, 8, 8), 4, (3, 2), pad="same")),
    (NotImplementedError, "crop is 'same'",
     lambda: TransposedConv2DLayer((None, 3, 8, 8), 4, 2, crop="same")),
    (ValueError, "too small", lambda: Conv2DLayer((None, 3, 8, 2), 4, 3)),
    (ValueError, "too small", lambda: TransposedConv2DLayer((None, 3, 1, 1), 4, 3, crop=2)),
    (ValueError, "a bias for every place",
     lambda: Conv2DLayer((None, 3, None, 8), 4, 3, untie_biases=True)),
    (ValueError, r"must have shape \(4, 3, 3, 3\)",
     lambda: Conv2DLayer((None, 3, 8, 8), 4, 3, W=np.zeros((3, 4, 3, 3)))),
    (ValueError, r"must have shape \(4,\)",
     lambda: Conv2DLayer((None, 3, 8, 8), 4, 3, b=np.zeros(3))),
    (ValueError, r"output_size is \(9, 11\).* to \(4, 5\).* least output_size is \(9, 9\)",
     lambda: TransposedConv2DLayer((None, 3, 4, 4), 4, 3, 2, output_size=(9, 11))),
    (ValueError, "dilation is 0", lambda: DilatedConv2DLayer((None, 3, 8, 8), 4, 3, 0)),
    (TypeError, "unexpected keyword", lambda: Conv2DLayer((None, 3, 8, 8), 4, 3, filters=3)),
]


@pytest.mark.parametrize(("kind", "message", "make"), REFUSED)
def test_refused(kind, message, make):
    with pytest.raises(kind, match=message):
        make()


def test_base_has_no_convolution():
    layer = BaseConvLayer(InputLayer((None, 3, 8)), 4, 3)
    assert layer.n == 1 and layer.output_shape == (None, 4, 6)
    with pytest.raises(NotImplementedError, match="BaseConvLayer.convolve"):
        get_output(layer)


# --- lengths ------------------------------------------------------------------------------------


def test_lengths():
    for n, size, stride in itertools.product(range(5, 9), range(1, 6), range(1, 4)):
        for pad, zeros in ((0, 0), ("valid", 0), ("full", size - 1), (3, 3)):
            found = conv_output_length(n, size, stride, pad)
            padded = n + 2 * zeros
            assert found == len(range(0, padded - size + 1, stride)), (n, size, stride, pad)
            least = conv_input_length(found, size, stride, pad)
            assert n - stride < least <= n and conv_output_length(least, size, stride, pad) == found
        assert conv_output_length(n, size, stride, "same") == -(-n // stride)
    assert conv_input_length(4, 3, 2, "same") == 7
    assert conv_output_length(None, 3, 1) is None and conv_input_length(None, 3, 1) is None
    for lengths in (conv_output_length, conv_input_length):
        with pytest.raises(ValueError, match="pad is 'half'"):
            lengths(8, 3, 1, "half")
        with pytest.raises(ValueError, match="pad is 1.5"):
            lengths(8, 3, 1, 1.5)


# --- backwards and dilated ----------------------------------------------------------------------


TRANSPOSED = [  # filter_size, stride, crop, crops, output_size
    (3, (1, 1), 0, (0, 0), None), ((2, 3), 2, "valid", (0, 0), None),
    (3, (2, 1), (1, 0), (1, 0), None), (3, 2, "same", (1, 1), None),
    ((3, 2), 1, "full", (2, 1), None), (3, 2, 1, (1, 1), (8, 5)), (2, 3, 0, (0, 0), (13, 9)),
]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("size", "stride", "crop", "crops", "wanted"), TRANSPOSED)
def test_transposed(size, stride, crop, crops, wanted, known, flip):
    x, b = random(2, 3, 4, 3), random(5)
    layer = TransposedConv2DLayer(
        InputLayer(x.shape if known else (None, 3, None, None)), 5, size, stride, crop, b=b,
        flip_filters=flip, output_size=wanted)
    assert layer.W.get_value().shape == (3, 5, *layer.filter_size) and layer.crop == layer.pad
    sizes = wanted or [(n - 1) * s + k - 2 * c for n, s, k, c in zip(
        x.shape[2:], layer.stride, layer.filter_size, crops, strict=True)]
    z = backwards(x, layer.W.get_value(), layer.stride, crops, flip, sizes)
    np.testing.assert_allclose(value(layer, x), np.maximum(z + b.reshape(-1, 1, 1), 0),
                               rtol=1e-10, atol=1e-12)


def test_transposed_is_the_adjoint():
    """<conv(x), y> = <x, transposed(y)> with one W for both."""
    x, y = random(2, 3, 8, 7), random(2, 5, 4, 3)
    forth = Conv2DLayer(InputLayer(x.shape), 5, 3, 2, (1, 0), b=None, nonlinearity=None)
    back = TransposedConv2DLayer(InputLayer(y.shape), 3, 3, 2, (1, 0), W=forth.W, b=None,
                                 nonlinearity=None, output_size=(8, 7))
    np.testing.assert_allclose(
        (value(forth, x) * y).sum(), (x * value(back, y)).sum(), rtol=1e-12)


def test_transposed_to_a_size_known_at_the_call():
    size = T.ivector("size")
    layer = TransposedConv2DLayer(InputLayer((None, 3, 4, 3)), 2, 3, 2, output_size=size)
    assert layer.output_shape == (None, 2, None, None)
    x = random(2, 3, 4, 3)
    f = function([layer.input_layer.input_var, size], get_output(layer))
    z = backwards(x, layer.W.get_value(), (2, 2), (0, 0), False, (10, 7))
    np.testing.assert_allclose(f(x, [10, 7]), np.maximum(z, 0), rtol=1e-10, atol=1e-12)
    with pytest.raises(ShapeError):
        f(x, [12, 7])


def test_transposed_volumes():
    x = random(2, 3, 3, 2, 4)
    layer = TransposedConv3DLayer(InputLayer((None, 3, None, 2, 4)), 2, (2, 3, 3), (2, 1, 2),
                                  (0, 1, 1), nonlinearity=None)
    z = backwards(x, layer.W.get_value(), (2, 1, 2), (0, 1, 1), False, (6, 2, 7))
    np.testing.assert_allclose(value(layer, x), z, rtol=1e-10, atol=1e-12)


def test_transposed_untied_biases():
    layer = Deconv2DLayer(InputLayer((2, 3, 4, 3)), 2, 3, untie_biases=True, nonlinearity=None)
    assert layer.b.get_value().shape == (2, 6, 5)
    layer.b.set_value(random(2, 6, 5))
    x = random(2, 3, 4, 3)
    z = backwards(x, layer.W.get_value(), (1, 1), (0, 0), False, (6, 5))
    np.testing.assert_allclose(value(layer, x), z + layer.b.get_value(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("size", "dilation", "pad", "zeros", "flip"), [
    (3, (1, 1), 0, (0, 0), False), (3, 2, 0, (0, 0), False), ((2, 3), (3, 1), 0, (0, 0), True),
    (3, (2, 3), "same", (2, 3), False), (2, 2, "full", (2, 2), True), (2, 3, (1, 2), (1, 2), False),
])
def test_dilated(size, dilation, pad, zeros, flip, known):
    x, b = random(2, 3, 8, 7), random(4)
    layer = DilatedConv2DLayer(
        InputLayer(x.shape if known else (None, 3, None, None)), 4, size, dilation, pad, b=b,
        nonlinearity=None, flip_filters=flip)
    W = layer.W.get_value()
    assert W.shape == (3, 4, *layer.filter_size)
    z = loops(x, W.transpose(1, 0, 2, 3), (1, 1), zeros, flip, dilation=layer.dilation)
    np.testing.assert_allclose(value(layer, x), z + b.reshape(-1, 1, 1), rtol=1e-10, atol=1e-12)


# --- gradients, recurrence, inverse -------------------------------------------------------------


GRADIENTS = [
    lambda x: Conv1DLayer(x.reshape((2, 2, 30)), 3, 3, 2, "full", nonlinearity=nonlinearities.tanh),
    lambda x: Conv2DLayer(x, 4, 3, 2, "same", nonlinearity=nonlinearities.tanh, num_groups=2),
    lambda x: Conv3DLayer(x.reshape((2, 2, 2, 3, 5)), 2, 2, pad=1, nonlinearity=None),
    lambda x: TransposedConv2DLayer(x, 3, 3, 2, 1, nonlinearity=nonlinearities.tanh),
    lambda x: DilatedConv2DLayer(x, 3, 2, 2, nonlinearity=nonlinearities.tanh),
]


@pytest.mark.parametrize("make", GRADIENTS)
def test_gradients(make):
    """Of input, W and b, against finite differences."""
    x = random(2, 2, 5, 6)
    layer = make(_Shaped((2, 2, 5, 6)))
    W = layer.W.get_value()

    def output(x, W, b):
        layer.W, layer.b = W, b
        return layer.get_output_for(x.reshape(layer.input_shape))

    verify_grad(output, [x, W, random(*layer.b.get_value().shape)])


class _Shaped(tuple):
    """A shape that can be asked for another one."""

    def reshape(self, shape):
        return shape


def convolutional_recurrence(precompute_input=True):
    """The example of the recurrent layers' documentation."""
    n_batch, n_steps, n_channels, width, height = (2, 3, 4, 5, 6)
    n_out_filters = 7
    filter_shape = (3, 3)
    l_in = InputLayer((n_batch, n_steps, n_channels, width, height))
    l_in_to_hid = Conv2DLayer(
        InputLayer((None, n_channels, width, height)), n_out_filters, filter_shape, pad="same")
    l_hid_to_hid = Conv2DLayer(
        InputLayer(l_in_to_hid.output_shape), n_out_filters, filter_shape, pad="same")
    return CustomRecurrentLayer(l_in, l_in_to_hid, l_hid_to_hid,
                                precompute_input=precompute_input)


@pytest.mark.parametrize("precompute_input", [True, False])
def test_convolutional_recurrence(precompute_input):
    l_rec = convolutional_recurrence(precompute_input)
    assert l_rec.output_shape == (2, 3, 7, 5, 6)
    ref.randomise(l_rec, scale=0.2)
    x = random(2, 3, 4, 5, 6)
    f = function([l_rec.input_layers[0].input_var], get_output(l_rec))
    W_in, b_in, W_hid, b_hid = (
        p.get_value() for p in (l_rec.input_to_hidden.W, l_rec.input_to_hidden.b,
                                l_rec.hidden_to_hidden.W, l_rec.hidden_to_hidden.b))
    h = np.zeros((2, 7, 5, 6)) + l_rec.hid_init.get_value()
    expected = []
    for t in range(3):
        inner = [np.maximum(loops(v, W, (1, 1), (1, 1), True) + b.reshape(-1, 1, 1), 0)
                 for v, W, b in ((x[:, t], W_in, b_in), (h, W_hid, b_hid))]
        h = np.maximum(inner[0] + inner[1], 0)
        expected.append(h)
    np.testing.assert_allclose(f(x), np.stack(expected, 1), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("precompute_input", "forward"), [(True, 1), (False, 2)])
def test_one_product_a_step(precompute_input, forward):
    l_rec = convolutional_recurrence(precompute_input)
    cost = T.sqr(get_output(l_rec)).mean()
    with config.change(backend="llvm"):
        f = function([l_rec.input_layers[0].input_var], grad(cost, get_all_params(l_rec)))
    assert [loop.step.products for loop in f.report().loops] == [forward, 1]


def test_convolutional_recurrence_trains():
    """The gradient equals a central difference, natively; one step of descent lowers the cost."""
    l_rec = convolutional_recurrence()
    ref.randomise(l_rec, scale=0.2)
    params = get_all_params(l_rec, trainable=True)
    x, v = random(2, 3, 4, 5, 6), l_rec.input_layers[0].input_var
    cost = T.sqr(get_output(l_rec) - 1).mean()
    with config.change(backend="llvm"):
        f = function([v], [cost, *grad(cost, params)])
        step = function([v], cost, updates=updates.sgd(cost, params, 1e-2))
    before, *slopes = f(x)
    for p, slope in zip(params, slopes, strict=True):
        start, way = p.get_value(), random(*p.get_value().shape)
        ends = []
        for h in (1e-6, -1e-6):
            p.set_value(start + h * way)
            ends.append(f(x)[0])
        p.set_value(start)
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, (slope * way).sum(), rtol=1e-5,
                                   atol=1e-8)
    np.testing.assert_allclose(step(x), before)
    assert f(x)[0] < before


@pytest.mark.parametrize("make", [
    lambda x: Conv1DLayer(x, 3, 3, 2, "same", nonlinearity=None),
    lambda x: Conv1DLayer(x, 3, 4, 3, 1, nonlinearity=None)])
def test_inverse(make):
    """The inverse of a convolution puts every filter back where it saw."""
    l_in = InputLayer((None, 2, None))
    layer = make(l_in)
    out = get_output(InverseLayer(layer, layer))
    x = random(2, 2, 9)
    y = ref.run([l_in.input_var], get_output(layer), x)
    back = ref.run([l_in.input_var], out, x)
    basis = np.eye(18).reshape(18, 2, 9)
    zeros = (1,)
    rows = loops(basis, layer.W.get_value(), layer.stride, zeros, True).reshape(18, -1)
    np.testing.assert_allclose(back.reshape(2, -1), y.reshape(2, -1) @ rows.T, rtol=1e-9,
                               atol=1e-11)
