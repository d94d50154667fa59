"""Normalisation: values, what a call does to stored statistics, and the helpers."""

from __future__ import annotations

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import config, function, grad, shared
from tinygraph.gradient import verify_grad
from tinygraph_rnn import init, nonlinearities, updates
from tinygraph_rnn.layers import (
    BatchNormLayer,
    BiasLayer,
    Conv2DLayer,
    CustomRecurrentLayer,
    DenseLayer,
    InputLayer,
    InverseLayer,
    LocalResponseNormalization2DLayer,
    NonlinearityLayer,
    ScaleLayer,
    StandardizationLayer,
    batch_norm,
    get_all_layers,
    get_all_params,
    get_output,
    instance_norm,
    layer_norm,
)

RNG = np.random.default_rng(9)


def random(*shape):
    return RNG.standard_normal(shape)


def backends():
    return pytest.mark.parametrize("backend", ["numpy", "llvm"])


def compiled(layer, backend="numpy", **kwargs):
    (l_in,) = [v for v in get_all_layers(layer) if isinstance(v, InputLayer)]
    with config.change(backend=backend):
        return function([l_in.input_var], get_output(layer, **kwargs))


def moments(x, axes, epsilon=1e-4):
    """Mean and 1 / sqrt(variance + epsilon), as loops over what is kept would give them."""
    kept = [k for k in range(x.ndim) if k not in axes]
    rows = np.transpose(x, (*kept, *axes)).reshape(*(x.shape[k] for k in kept), -1)
    mean = rows.sum(-1) / rows.shape[-1]
    variance = ((rows - mean[..., None]) ** 2).sum(-1) / rows.shape[-1]
    return mean, 1 / np.sqrt(variance + epsilon)


def stats(layer):
    return layer.mean.get_value(), layer.inv_std.get_value()


# --- batch normalisation ------------------------------------------------------------------------


AXES = [  # shape, axes, those that it stands for
    ((6, 3), "auto", (0,)), ((4, 3, 5), "auto", (0, 2)), ((4, 3, 2, 5), "auto", (0, 2, 3)),
    ((4, 3, 5), 0, (0,)), ((4, 3, 5), (0, 1), (0, 1)), ((4, 3, 5), -1, (2,)),
    ((6, 1), "auto", (0,)),
]


@backends()
@pytest.mark.parametrize(("shape", "axes", "normalized"), AXES)
def test_training_and_after_it(shape, axes, normalized, backend):
    x = random(*shape)
    sizes = [None if k in normalized else n for k, n in enumerate(shape)]
    layer = BatchNormLayer(InputLayer(sizes), axes, epsilon=0.01, alpha=0.3)
    ref.randomise(layer)
    assert layer.axes == normalized and layer.output_shape == tuple(sizes)
    beta, gamma, mean, inv_std = (p.get_value() for p in layer.get_params())

    def normal(mean, inv_std):
        wide = [np.expand_dims(v, normalized) for v in (mean, inv_std, gamma, beta)]
        return (x - wide[0]) * wide[1] * wide[2] + wide[3]

    after = compiled(layer, backend, deterministic=True)
    np.testing.assert_allclose(after(x), normal(mean, inv_std), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(stats(layer), (mean, inv_std))
    training = compiled(layer, backend)
    ours = moments(x, normalized, 0.01)
    for _ in range(2):
        np.testing.assert_allclose(training(x), normal(*ours), rtol=1e-9, atol=1e-12)
        mean, inv_std = (0.7 * old + 0.3 * new for old, new in zip(
            (mean, inv_std), ours, strict=True))
        np.testing.assert_allclose(stats(layer), (mean, inv_std), rtol=1e-9)
    np.testing.assert_allclose(after(x), normal(mean, inv_std), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("options", "own", "moves"), [
    ({}, True, True), ({"deterministic": True}, False, False),
    ({"batch_norm_use_averages": True}, False, True),
    ({"batch_norm_update_averages": False}, True, False),
    ({"deterministic": True, "batch_norm_use_averages": False}, True, False),
    ({"deterministic": True, "batch_norm_update_averages": True}, False, True),
    ({"batch_norm_use_averages": True, "batch_norm_update_averages": False}, False, False)])
def test_what_is_used_and_what_moves(options, own, moves):
    layer = BatchNormLayer(InputLayer((None, 3)), mean=[1.0, 2.0, 3.0], inv_std=[0.5, 1.0, 2.0])
    x = random(5, 3)
    before = stats(layer)
    mean, inv_std = moments(x, (0,)) if own else before
    np.testing.assert_allclose(compiled(layer, **options)(x), (x - mean) * inv_std, rtol=1e-9,
                               atol=1e-12)
    expected = [0.9 * a + 0.1 * b for a, b in zip(before, moments(x, (0,)), strict=True)]
    np.testing.assert_allclose(stats(layer), expected if moves else before, rtol=1e-9)


@backends()
def test_a_training_step_moves_the_averages(backend):
    """Also where only the cost of the output is asked for, behind other layers."""
    l_in = InputLayer((None, 4))
    normal = BatchNormLayer(DenseLayer(l_in, 3, b=None, nonlinearity=None))
    out = DenseLayer(normal, 2, nonlinearity=nonlinearities.tanh)
    x = random(6, 4)
    cost = T.sqr(get_output(out) - 1).mean()
    params = get_all_params(out, trainable=True)
    assert normal.mean not in params and normal.beta in params and normal.gamma in params
    inner = x @ out.input_layer.input_layer.W.get_value()
    with config.change(backend=backend):
        step = function([l_in.input_var], cost, updates=updates.sgd(cost, params, 0.1))
    first = step(x)
    mean, inv_std = moments(inner, (0,))
    np.testing.assert_allclose(normal.mean.get_value(), 0.1 * mean, rtol=1e-9)
    np.testing.assert_allclose(normal.inv_std.get_value(), 0.9 + 0.1 * inv_std, rtol=1e-9)
    assert step(x) < first


def test_each_output_brings_its_own_statistics():
    """What one output of a layer moves does not depend on later calls of get_output; a function
    of a deterministic output moves nothing, though the layer has others."""
    layer = BatchNormLayer(InputLayer((None, 2)))
    var = layer.input_layer.input_var
    other = T.matrix("other")
    first = get_output(layer)
    get_output(layer, other)
    after = get_output(layer, deterministic=True)
    x = random(4, 2)
    ref.run([var], after, x)
    assert stats(layer)[0].tolist() == [0, 0]
    ref.run([var], first, x)
    np.testing.assert_allclose(stats(layer)[0], 0.1 * x.mean(0), rtol=1e-12)
    f = function([var], first, no_default_updates=True)
    f(x)
    np.testing.assert_allclose(stats(layer)[0], 0.1 * x.mean(0), rtol=1e-12)


def test_stored_numbers_that_are_not_finite_do_not_reach_training():
    layer = BatchNormLayer(InputLayer((None, 2)), mean=[np.nan, np.inf])
    x = random(4, 2)
    mean, inv_std = moments(x, (0,))
    np.testing.assert_allclose(compiled(layer)(x), (x - mean) * inv_std, rtol=1e-9, atol=1e-12)


def test_parameters():
    layer = BatchNormLayer((None, 3, 4), name="bn")
    assert [p.name for p in layer.get_params()] == ["bn.beta", "bn.gamma", "bn.mean", "bn.inv_std"]
    assert layer.get_params(trainable=True) == [layer.beta, layer.gamma]
    assert layer.get_params(regularizable=True) == [layer.gamma]
    assert layer.get_params(batch_norm_stat=True) == [layer.mean, layer.inv_std]
    assert [p.get_value().tolist() for p in layer.get_params()] == [
        [0] * 3, [1] * 3, [0] * 3, [1] * 3]
    bare = BatchNormLayer(InputLayer((None, 3)), beta=None, gamma=None)
    assert bare.beta is bare.gamma is None and len(bare.get_params()) == 2
    x = random(5, 3)
    mean, inv_std = moments(x, (0,))
    np.testing.assert_allclose(compiled(bare)(x), (x - mean) * inv_std, rtol=1e-9, atol=1e-12)


def test_shared_and_computed_statistics():
    mean, twice = shared(np.zeros(3)), shared(np.ones(3))
    layer = BatchNormLayer(InputLayer((None, 3)), mean=mean, inv_std=2 * twice)
    assert layer.mean is mean
    x = random(5, 3)
    compiled(layer)(x)
    np.testing.assert_allclose(mean.get_value(), 0.1 * x.mean(0), rtol=1e-12)
    assert twice.get_value().tolist() == [1, 1, 1]
    np.testing.assert_allclose(
        compiled(layer, deterministic=True)(x), (x - 0.1 * x.mean(0)) * 2, rtol=1e-9)


def test_single_precision_stays():
    with config.change(floatX="float32"):
        layer = BatchNormLayer(InputLayer((None, 3)))
        f = compiled(layer, "llvm")
        assert f(random(5, 3).astype("float32")).dtype == np.float32
        assert layer.mean.get_value().dtype == np.float32


@pytest.mark.parametrize(("message", "make"), [
    ("needs the sizes of all other axes", lambda: BatchNormLayer((None, None, 4))),
    ("needs the sizes of all other axes", lambda: BatchNormLayer((None, 3, 4), axes=1)),
    ("axes is 2; for an input", lambda: BatchNormLayer((None, 3), axes=2)),
    ("axes is 'spatial'", lambda: BatchNormLayer((None, 3), axes="spatial")),
    (r"axes is \(\)", lambda: BatchNormLayer((None, 3), axes=())),
    ("axes is 'all'", lambda: StandardizationLayer((None, 3), axes="all")),
    (r"axes is \(\)", lambda: StandardizationLayer((None, 3), axes="spatial")),
    ("n is 4", lambda: LocalResponseNormalization2DLayer((None, 3, 8, 8), n=4)),
    ("needs an input of 4 axes", lambda: LocalResponseNormalization2DLayer((None, 3, 8))),
    (r"must have shape \(3,\)", lambda: BatchNormLayer((None, 3), gamma=np.ones(4)))])
def test_refused(message, make):
    with pytest.raises(ValueError, match=message):
        make()


# --- batch_norm and its like --------------------------------------------------------------------


def test_batch_norm_of_a_layer():
    l_in = InputLayer((None, 4))
    dense = DenseLayer(l_in, 3, nonlinearity=nonlinearities.tanh, name="d")
    out = batch_norm(dense, epsilon=0.1)
    normal = out.input_layer
    assert isinstance(out, NonlinearityLayer) and isinstance(normal, BatchNormLayer)
    assert (normal.name, out.name) == ("d_bn", "d_bn_nonlin") and normal.epsilon == 0.1
    assert dense.b is None and dense.nonlinearity is nonlinearities.identity
    assert [p.name for p in get_all_params(out, trainable=True)] == [
        "d.W", "d_bn.beta", "d_bn.gamma"]
    x = random(5, 4)
    z = x @ dense.W.get_value()
    mean, inv_std = moments(z, (0,), 0.1)
    np.testing.assert_allclose(compiled(out)(x), np.tanh((z - mean) * inv_std), rtol=1e-9,
                               atol=1e-12)


def test_batch_norm_of_a_layer_without_bias_or_nonlinearity():
    out = batch_norm(InputLayer((None, 4)), name="n")
    assert isinstance(out, BatchNormLayer) and out.name == "n"
    out = batch_norm(DenseLayer((None, 4), 3, b=None))
    assert out.name is None and out.input_layer.name is None


def test_batch_norm_of_a_convolution():
    conv = Conv2DLayer(InputLayer((None, 2, 5, 4)), 3, 3, pad="same", b=init.Constant(7))
    out = batch_norm(conv)
    x = random(4, 2, 5, 4)
    z = compiled(conv)(x)
    mean, inv_std = (v.reshape(-1, 1, 1) for v in moments(z, (0, 2, 3)))
    np.testing.assert_allclose(compiled(out)(x), np.maximum((z - mean) * inv_std, 0), rtol=1e-9,
                               atol=1e-12)


@pytest.mark.parametrize(("helper", "axes", "ending"), [
    (instance_norm, (2, 3), "in"), (layer_norm, (1, 2, 3), "ln")])
def test_normalising_each_sample(helper, axes, ending):
    conv = Conv2DLayer(InputLayer((None, 2, 5, 4)), 3, 3, name="c")
    out = helper(conv, epsilon=0.1)
    names = ["c.W", f"c_{ending}_scale.scales", f"c_{ending}_bias.b"]
    assert [p.name for p in get_all_params(out)] == names
    kinds = [StandardizationLayer, ScaleLayer, BiasLayer, NonlinearityLayer]
    assert [type(v) for v in get_all_layers(out)[2:]] == kinds
    ref.randomise(out, scale=1)
    scale, bias = (p.get_value().reshape(-1, 1, 1) for p in get_all_params(out)[1:])
    x = random(3, 2, 5, 4)
    z = compiled(conv)(x)
    mean, inv_std = (np.expand_dims(v, axes) for v in moments(z, axes, 0.1))
    np.testing.assert_allclose(
        compiled(out)(x), np.maximum((z - mean) * inv_std * scale + bias, 0), rtol=1e-9,
        atol=1e-12)


def test_instance_norm_with_nothing_to_learn():
    out = instance_norm(Conv2DLayer((None, 2, 5, 4), 3, 3, nonlinearity=None), False, False)
    kinds = [type(v) for v in get_all_layers(out)]
    assert kinds == [Conv2DLayer, StandardizationLayer, NonlinearityLayer]


# --- the others ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axes", "normalized"), [
    ((4, 6), "auto", (1,)), ((4, 3, 5), "auto", (2,)), ((4, 3, 5, 2), "auto", (2, 3)),
    ((4, 3, 5), "features", (1, 2)), ((4, 3, 5), "spatial", (2,)), ((4, 3, 5), (0, -1), (0, 2))])
def test_standardization(shape, axes, normalized):
    layer = StandardizationLayer(InputLayer((None,) * len(shape)), axes, 0.01)
    assert layer.axes == normalized and not layer.get_params()
    x = random(*shape)
    mean, inv_std = (np.expand_dims(v, normalized) for v in moments(x, normalized, 0.01))
    for backend in ("numpy", "llvm"):
        np.testing.assert_allclose(compiled(layer, backend)(x), (x - mean) * inv_std, rtol=1e-9,
                                   atol=1e-12)


@backends()
@pytest.mark.parametrize(("channels", "options"), [
    (7, {}), (3, {"alpha": 0.1, "k": 1, "beta": 0.5, "n": 3}), (2, {"alpha": 0.3}), (4, {"n": 1})])
def test_local_response(channels, options, backend):
    layer = LocalResponseNormalization2DLayer(InputLayer((None, channels, None, None)), **options)
    assert layer.output_shape == (None, channels, None, None)
    x = random(2, channels, 3, 4)
    expected = np.empty_like(x)
    for c in range(channels):
        near = range(max(0, c - layer.n // 2), min(channels, c + layer.n // 2 + 1))
        total = sum(x[:, d] ** 2 for d in near)
        expected[:, c] = x[:, c] / (layer.k + layer.alpha * total) ** layer.beta
    np.testing.assert_allclose(compiled(layer, backend)(x), expected, rtol=1e-10)
    assert (layer.alpha, layer.k, layer.beta, layer.n) == tuple(
        {"alpha": 1e-4, "k": 2, "beta": 0.75, "n": 5, **options}.values())


@pytest.mark.parametrize("layer", [
    BatchNormLayer((4, 3)), BatchNormLayer((3, 2, 4), gamma=np.array([2.0, 0.5])),
    BatchNormLayer((3, 2, 2), axes=(0, 1)), StandardizationLayer((3, 4, 2)),
    LocalResponseNormalization2DLayer((2, 4, 2, 3), alpha=0.5)], ids=repr)
def test_gradients(layer):
    verify_grad(layer.get_output_for, [random(*layer.input_shape)])


def test_inverse_of_batch_normalisation():
    """The gradient leaves the averages alone that the layer itself moves."""
    layer = BatchNormLayer(InputLayer((None, 3)))
    x, var = random(5, 3), layer.input_layer.input_var
    out = InverseLayer(layer, layer)
    back = ref.run([var], get_output(out, deterministic=True), x)
    np.testing.assert_allclose(back, x, rtol=1e-12)


# --- in a recurrence ----------------------------------------------------------------------------


@backends()
@pytest.mark.parametrize("where", ["input", "hidden"])
def test_in_a_recurrence(where, backend):
    """From the input, all steps are one batch; from the state, the averages move at every step."""
    l_in = InputLayer((None, None, 2))
    to_hid = DenseLayer(InputLayer((None, 2)), 3, b=None, nonlinearity=None)
    hid_to_hid = DenseLayer(InputLayer((None, 3)), 3, b=None, nonlinearity=None)
    networks = {"input": to_hid, "hidden": hid_to_hid}
    normal = networks[where] = BatchNormLayer(networks[where])
    l_rec = CustomRecurrentLayer(l_in, networks["input"], networks["hidden"],
                                 nonlinearity=nonlinearities.tanh)
    x = random(4, 5, 2)
    xs, W = x @ to_hid.W.get_value(), hid_to_hid.W.get_value()
    averages = [np.zeros(3), np.ones(3)]

    def move(v):
        found = moments(v, (0,))
        averages[:] = [0.9 * a + 0.1 * b for a, b in zip(averages, found, strict=True)]
        return (v - found[0]) * found[1]

    if where == "input":
        xs = move(xs.reshape(-1, 3)).reshape(xs.shape)
    h, expected = np.zeros((4, 3)), []
    for t in range(5):
        h = np.tanh(xs[:, t] + (move(h @ W) if where == "hidden" else h @ W))
        expected.append(h)
    out = get_output(l_rec)
    slopes = grad(T.sqr(out).mean(), get_all_params(l_rec, trainable=True))
    with config.change(backend=backend):
        f = function([l_in.input_var], [out, *slopes])
    found = f(x)
    np.testing.assert_allclose(found[0], np.stack(expected, 1), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(stats(normal), averages, rtol=1e-9, atol=1e-12)
    assert all(np.isfinite(v).all() for v in found[1:])
