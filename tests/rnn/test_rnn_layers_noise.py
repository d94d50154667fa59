"""Dropout, Gaussian noise and randomised rectifiers: what is drawn, when, and along which axes."""

from __future__ import annotations

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import config, function, grad, shared, verify_grad
from tinygraph_rnn import layers, random, saving, updates
from tinygraph_rnn.layers import (
    CustomRecurrentLayer,
    DenseLayer,
    DropoutLayer,
    GaussianNoiseLayer,
    InputLayer,
    RandomizedRectifierLayer,
    get_output,
)

ONES = np.ones((40, 5, 6))


def compiled(layer, **kwargs):
    (l_in,) = (v for v in layers.get_all_layers(layer) if isinstance(v, InputLayer))
    return function([l_in.input_var], get_output(layer, **kwargs))


@pytest.fixture(params=["numpy", "llvm"])
def backend(request):
    with config.change(backend=request.param):
        yield request.param


@pytest.mark.parametrize(("p", "rescale", "value"), [
    (0.5, True, 2.0), (0.5, False, 1.0), (0.2, True, 1.25), (0.9, False, 1.0)])
def test_dropout(p, rescale, value, backend):
    layer = DropoutLayer(InputLayer((None, 5, 6)), p, rescale)
    assert layer.output_shape == (None, 5, 6)
    f = compiled(layer)
    first, second = f(ONES), f(ONES)
    assert set(np.unique(first)) == {0.0, value}
    assert abs((first == 0).mean() - p) < 0.05  # 1200 draws: 3.5 standard deviations
    assert (first != second).any()


@pytest.mark.parametrize("make", [DropoutLayer, GaussianNoiseLayer])
def test_deterministic_gives_the_input_itself(make):
    l_in = InputLayer((None, 4))
    assert get_output(make(l_in), deterministic=True) is l_in.input_var
    assert get_output(make(l_in, 0)) is l_in.input_var
    assert get_output(make(l_in), deterministic=False) is not l_in.input_var


@pytest.mark.parametrize(("axes", "same"), [
    ((), ()), ((1,), (1,)), (2, (2,)), ((-1,), (2,)), ((0, -2), (0, 1)), ((0, 1, 2), (0, 1, 2))])
def test_shared_axes(axes, same, backend):
    f = compiled(DropoutLayer(InputLayer((None, 5, 6)), shared_axes=axes))
    drawn = np.array([f(ONES) for _ in range(4)])
    for axis in range(3):
        first = drawn.take([0], axis + 1)
        assert (drawn == first).all() == (axis in same)
    assert set(np.unique(drawn)) == {0.0, 2.0}


@pytest.mark.parametrize(("make", "axes"), [
    (layers.dropout, ()), (layers.dropout_channels, (2, 3)), (layers.spatial_dropout, (2, 3)),
    (layers.dropout_locations, (1,))])
def test_variants_of_dropout(make, axes):
    layer = make(InputLayer((None, 3, 4, 5)), 0.3, rescale=False, name="drop")
    assert (layer.shared_axes, layer.p, layer.rescale) == (axes, 0.3, False)
    assert (make((2, 3, 4, 5)).p, make((2, 3, 4, 5)).rescale) == (0.5, True)
    assert layer.name == "drop"


def test_p_may_be_a_shared_variable():
    with config.change(floatX="float32"):
        p = shared(np.float64(0.25))
        layer = DropoutLayer(InputLayer((None, 5, 6)), p)
        f = compiled(layer)
        ones = ONES.astype("float32")
        assert f(ones).dtype == "float32"
        np.testing.assert_allclose(np.unique(f(ones)), [0, 1 / 0.75], rtol=1e-6)
        p.set_value(0.0)
        np.testing.assert_array_equal(f(ones), ones)
        p.set_value(0.5)
        assert set(np.unique(f(ones))) == {0.0, 2.0}


def test_dropout_of_integers():
    v = T.imatrix("v")
    out = get_output(DropoutLayer(InputLayer((None, 3), v)))
    assert out.dtype == "float64"
    assert set(np.unique(ref.run([v], out, np.full((50, 3), 4, "int32")))) == {0.0, 8.0}


@pytest.mark.parametrize("p", [-0.1, 1.5, 1])
def test_p_must_be_a_probability(p):
    with pytest.raises(ValueError, match=f"p is {p}; it must be a probability"):
        DropoutLayer((None, 3), p)


def test_everything_may_be_dropped_without_rescaling():
    assert not compiled(DropoutLayer(InputLayer((None, 5, 6)), 1, rescale=False))(ONES).any()


def test_no_such_axis():
    with pytest.raises(ValueError, match="shared_axes is .*, but the input has 2 axes"):
        DropoutLayer((None, 3), shared_axes=(2,))


def test_gaussian_noise(backend):
    f = compiled(GaussianNoiseLayer(InputLayer((None, 5, 6)), 0.5))
    noise = f(0 * ONES)
    assert abs(noise.mean()) < 0.06 and abs(noise.std() - 0.5) < 0.04
    assert (noise != f(0 * ONES)).all()
    assert GaussianNoiseLayer((None, 3)).sigma == 0.1


def test_sigma_may_be_a_shared_variable():
    sigma = shared(0.0)
    f = compiled(GaussianNoiseLayer(InputLayer((None, 5, 6)), sigma))
    np.testing.assert_array_equal(f(ONES), ONES)
    sigma.set_value(1.0)
    assert f(ONES).std() > 0.9


@pytest.mark.parametrize(("axes", "same"), [("auto", (0, 2)), ("all", (0, 1, 2)), (1, (1,))])
def test_randomised_rectifier(axes, same, backend):
    f = compiled(RandomizedRectifierLayer(InputLayer((None, 5, 6)), 0.2, 0.4, axes))
    drawn = np.array([f(-ONES) for _ in range(4)])
    assert -0.4 <= drawn.min() < drawn.max() < -0.2
    for axis in range(3):
        assert (drawn == drawn.take([0], axis + 1)).all() == (axis in same)
    np.testing.assert_array_equal(f(ONES), ONES)


def test_randomised_rectifier_is_fixed_for_prediction():
    layer = RandomizedRectifierLayer(InputLayer((None, 5, 6)))
    np.testing.assert_allclose(compiled(layer, deterministic=True)(-ONES), -0.55 * ONES)
    high = shared(0.9)
    layer = RandomizedRectifierLayer(InputLayer((None, 5, 6)), 0.1, high)
    np.testing.assert_allclose(compiled(layer, deterministic=True)(-ONES), -0.5 * ONES)
    high.set_value(0.1)
    np.testing.assert_allclose(compiled(layer)(-ONES), -0.1 * ONES)
    with pytest.raises(ValueError, match=r"lower is 0.5 and upper is 0.2"):
        RandomizedRectifierLayer((None, 3), 0.5, 0.2)


def test_rectifiers_in_the_place_of_a_nonlinearity():
    for wrap, kind, options in (
            (layers.rrelu, RandomizedRectifierLayer, {"lower": 0.1, "upper": 0.1}),
            (layers.prelu, layers.ParametricRectifierLayer, {"alpha": 0.1, "shared_axes": "all"})):
        dense = DenseLayer(InputLayer((None, 3)), 2, W=np.ones((3, 2)))
        layer = wrap(dense, **options, name="r")
        assert type(layer) is kind and layer.input_layer is dense and layer.name == "r"
        np.testing.assert_allclose(compiled(layer)(-np.ones((1, 3))), [[-0.3, -0.3]])
        plain = wrap(InputLayer((None, 3)))
        assert type(plain) is kind


# --- states ---


@pytest.mark.parametrize("make", [DropoutLayer, GaussianNoiseLayer, RandomizedRectifierLayer])
def test_the_seed_of_the_package_fixes_the_draws(make):
    def draw(seed):
        random.set_rng(seed)
        return compiled(make(InputLayer((None, 5, 6))))(-ONES)

    np.testing.assert_array_equal(draw(7), draw(7))
    assert (draw(7) != draw(8)).any()
    np.testing.assert_array_equal(draw(np.random.default_rng(3)), draw(np.random.default_rng(3)))


def test_back_ends_draw_the_same():
    def draw():
        random.set_rng(7)
        return compiled(DropoutLayer(InputLayer((None, 5, 6))))(ONES)

    one = draw()
    with config.change(backend="llvm"):
        np.testing.assert_array_equal(one, draw())


def test_each_output_draws_its_own_and_states_can_be_set_back():
    l_in = InputLayer((None, 5, 6))
    layer = DropoutLayer(l_in)
    top = layers.ElemwiseSumLayer([layer, layer])
    f = function([l_in.input_var], [get_output(layer), get_output(layer)])
    a, b = f(ONES)
    assert (a != b).any()
    assert set(np.unique(compiled(top)(ONES))) == {0.0, 4.0}  # one draw, used twice
    assert len(layer._srng.states) == 3
    kept = [s.get_value() for s in layer._srng.states]
    before = f(ONES)
    assert any((s.get_value() != k).any()
               for s, k in zip(layer._srng.states, kept, strict=True))
    for s, k in zip(layer._srng.states, kept, strict=True):
        s.set_value(k)
    np.testing.assert_array_equal(f(ONES), before)


def test_parameters_and_states_are_not_mixed():
    assert layers.get_all_params(DropoutLayer(DenseLayer(InputLayer((None, 3)), 2, b=None))) != []
    assert DropoutLayer((None, 3)).get_params() == []


# --- gradients ---


def test_gradient_through_a_mask(backend):
    l_in = InputLayer((None, 5, 6))
    out = get_output(DropoutLayer(l_in, 0.4))
    y, g = function([l_in.input_var], [out, grad(out.sum(), l_in.input_var)])(ONES)
    np.testing.assert_array_equal(y, g)  # the mask over 1 - p, both times the same one
    assert set(np.unique(g)) == {0.0, 1 / 0.6}


@pytest.mark.parametrize("make", [DropoutLayer, GaussianNoiseLayer, RandomizedRectifierLayer])
def test_gradients_by_differences(make):
    layer = make(DenseLayer(InputLayer((None, 4)), 3, nonlinearity=None))
    x = np.random.default_rng(0).standard_normal((6, 4))
    verify_grad(lambda v: get_output(layer, v), [x], rng=np.random.default_rng(1))


def test_training_with_dropout_needs_no_updates_of_its_own():
    l_in = InputLayer((None, 4))
    dense = DenseLayer(DropoutLayer(l_in), 1, W=np.ones((4, 1)), b=None, nonlinearity=None)
    loss = get_output(dense).sum()
    step = function([l_in.input_var], loss,
                    updates=[(dense.W, dense.W - 0.0 * grad(loss, dense.W))])
    losses = {float(step(np.ones((8, 4)))) for _ in range(6)}
    assert len(losses) > 1


# --- in recurrent layers ---


def accumulator(hidden, **kwargs):
    """h = x + hidden(h'), over inputs of 3 features."""
    l_in = InputLayer((None, None, 3))
    first = DenseLayer(InputLayer((None, 3)), 3, W=np.eye(3), b=None, nonlinearity=None)
    return l_in, CustomRecurrentLayer(l_in, first, hidden, nonlinearity=None, **kwargs)


def test_dropout_inside_a_step_draws_in_every_step(backend):
    l_in, layer = accumulator(DropoutLayer(InputLayer((None, 3)), 0.5, rescale=False))
    x = np.ones((4, 9, 3))
    out = compiled(layer)(x)
    # A unit is 1 after a drop, else one more than before.
    kept = out[:, 1:] != 1
    np.testing.assert_array_equal(out[:, 1:], np.where(kept, out[:, :-1] + 1, 1))
    assert len({row.tobytes() for row in kept.transpose(1, 0, 2)}) == 8
    steps = np.broadcast_to(np.arange(1, 10)[:, None], (9, 3))
    np.testing.assert_array_equal(compiled(layer, deterministic=True)(x)[0], steps)
    f = compiled(layer)
    assert (f(x) != f(x)).any()


def test_the_gradient_uses_the_masks_of_the_forward_steps(backend):
    l_in, layer = accumulator(DropoutLayer(InputLayer((None, 3)), 0.5, rescale=False),
                              only_return_final=True)
    out = get_output(layer)
    y, g = function([l_in.input_var], [out, grad(out.sum(), l_in.input_var)])(np.ones((4, 9, 3)))
    np.testing.assert_array_equal(g.sum(axis=1), y)  # one for every step since the last drop
    assert set(np.unique(g)) == {0.0, 1.0}


def test_noise_before_a_recurrent_layer_and_inside_the_input_network():
    l_in = InputLayer((None, None, 3))
    inner = InputLayer((None, 3))
    layer = CustomRecurrentLayer(
        l_in, GaussianNoiseLayer(inner, 1.0), DenseLayer(InputLayer((None, 3)), 3, W=np.eye(3)),
        nonlinearity=None)
    out = compiled(layer)(np.zeros((2, 50, 3)))
    noise = np.diff(np.maximum(out, 0), axis=1)
    assert len(np.unique(noise)) > 100
    np.testing.assert_array_equal(compiled(layer, deterministic=True)(np.zeros((2, 50, 3))), 0)


@pytest.mark.parametrize("make", [
    lambda i, s: DropoutLayer(i, s), lambda i, s: GaussianNoiseLayer(i, s),
    lambda i, s: RandomizedRectifierLayer(i, s, 0.9),
    lambda i, s: RandomizedRectifierLayer(i, 0.1, s)])
@pytest.mark.parametrize("number", [0.5, np.float64(0.5), "shared"])
def test_noise_keeps_the_dtype(make, number):
    with config.change(floatX="float32"):
        number = shared(np.float64(0.5)) if isinstance(number, str) else number
        l_in = InputLayer((None, 3))
        assert get_output(make(l_in, number)).dtype == "float32"
        assert get_output(make(l_in, number), deterministic=True).dtype == "float32"
        ids = InputLayer((None, 3), T.imatrix("ids"))
        out = ref.run([ids.input_var], get_output(make(ids, number)), np.ones((2, 3), "int32"))
        assert out.dtype == np.float32


def test_a_checkpoint_finds_the_states(tmp_path):
    """Masks of a step and of a layer, drawn again after a resume, are those of the first run."""
    hidden = DropoutLayer(DenseLayer(InputLayer((None, 3)), 3, W=np.eye(3)), 0.3)
    l_in, layer = accumulator(hidden, only_return_final=True)
    top = GaussianNoiseLayer(DropoutLayer(layer))
    cost = (get_output(top) ** 2).sum()
    changes = updates.sgd(cost, layers.get_all_params(top), 1e-3)
    step = function([l_in.input_var], cost, updates=changes)
    x = np.ones((2, 4, 3))
    step(x)
    path = tmp_path / "half.safetensors"
    saving.checkpoint(path, top, changes)
    expected = [step(x) for _ in range(3)]
    assert len(set(map(float, expected))) == 3
    saving.resume(path, top, changes)
    np.testing.assert_array_equal([step(x) for _ in range(3)], expected)
