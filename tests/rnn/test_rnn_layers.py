"""Feed-forward layers and the functions over networks."""

from __future__ import annotations

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import shared
from tinygraph_rnn import init, nonlinearities
from tinygraph_rnn.layers import (
    ConcatLayer,
    DenseLayer,
    DimshuffleLayer,
    ElemwiseMergeLayer,
    ElemwiseSumLayer,
    FlattenLayer,
    InputLayer,
    Layer,
    NonlinearityLayer,
    ReshapeLayer,
    SliceLayer,
    count_params,
    get_all_layers,
    get_all_param_values,
    get_all_params,
    get_output,
    get_output_shape,
    set_all_param_values,
)

RNG = np.random.default_rng(11)
X = RNG.standard_normal((2, 3, 4))


def output(layer, x=X):
    (l_in,) = (v for v in get_all_layers(layer) if isinstance(v, InputLayer))
    return ref.run([l_in.input_var], get_output(layer), x)


def test_input_layer():
    l_in = InputLayer((None, 3), name="x")
    assert l_in.input_var.name == "x.input" and l_in.input_var.ndim == 2
    assert l_in.output_shape == (None, 3) and get_output(l_in) is l_in.input_var
    v = T.matrix("v")
    assert InputLayer((None, 3), v).input_var is v
    with pytest.raises(ValueError, match="has 3 axes, but v"):
        InputLayer((None, None, 3), v)
    with pytest.raises(ValueError, match="must be positive"):
        InputLayer((None, 0))


def test_dense_layer_flattens():
    layer = DenseLayer(InputLayer((None, 3, 4)), 5, b=np.arange(5.0), nonlinearity=None)
    assert layer.output_shape == (None, 5) and layer.W.get_value().shape == (12, 5)
    np.testing.assert_allclose(
        output(layer), X.reshape(2, 12) @ layer.W.get_value() + np.arange(5), rtol=1e-12)


@pytest.mark.parametrize("leading", [2, -1])
def test_dense_layer_on_the_last_axis(leading):
    layer = DenseLayer(InputLayer((None, None, 4)), 5, num_leading_axes=leading, b=None)
    assert layer.output_shape == (None, None, 5) and layer.b is None
    np.testing.assert_allclose(output(layer), np.maximum(X @ layer.W.get_value(), 0), rtol=1e-12)


def test_dense_layer_of_one_unit():
    layer = DenseLayer(InputLayer((None, 12)), 1, nonlinearity=nonlinearities.tanh)
    x = X.reshape(2, 12)
    np.testing.assert_allclose(output(layer, x), np.tanh(x @ layer.W.get_value()), rtol=1e-12)


def test_dense_layer_refuses():
    with pytest.raises(ValueError, match="number of its input features"):
        DenseLayer((None, None), 5)
    with pytest.raises(ValueError, match="num_leading_axes is 2"):
        DenseLayer((None, 3), 5, num_leading_axes=2)


def test_nonlinearity_layer():
    layer = NonlinearityLayer(InputLayer((None, 3, 4)), nonlinearities.tanh)
    np.testing.assert_allclose(output(layer), np.tanh(X), rtol=1e-12)


def test_concat_layer():
    l_in = InputLayer((None, 3, 4))
    layer = ConcatLayer([l_in, SliceLayer(l_in, slice(0, 2), axis=1)], axis=1)
    assert layer.output_shape == (None, 5, 4)
    np.testing.assert_array_equal(output(layer), np.concatenate([X, X[:, :2]], axis=1))
    with pytest.raises(ValueError, match="axis 0 differs"):
        _ = ConcatLayer([(2, 3), (3, 3)]).output_shape


def test_elementwise_merging():
    l_in = InputLayer((None, 3, 4))
    for merge, expected in ((T.mul, X ** 3), (T.maximum, X)):
        np.testing.assert_allclose(output(ElemwiseMergeLayer([l_in] * 3, merge)), expected)
    layer = ElemwiseSumLayer([l_in, l_in], coeffs=[1, -0.5])
    np.testing.assert_allclose(output(layer), X / 2)
    np.testing.assert_allclose(output(ElemwiseSumLayer([l_in, l_in], 2)), 4 * X)
    assert ElemwiseSumLayer([(None, 3), (2, None)]).output_shape == (2, 3)
    with pytest.raises(ValueError, match="3 coefficients are given for 2"):
        ElemwiseSumLayer([l_in, l_in], [1, 2, 3])


@pytest.mark.parametrize(("shape", "static", "expected"), [
    ((-1, 4), (None, 4), (6, 4)),
    (([0], -1), (None, 12), (2, 12)),
    (([0], 4, 3), (None, 4, 3), (2, 4, 3)),
    ((-1, [2], 3), (None, 4, 3), (2, 4, 3)),
    ((24,), (24,), (24,)),
])
def test_reshape_layer(shape, static, expected):
    layer = ReshapeLayer(InputLayer((None, 3, 4)), shape)
    assert layer.output_shape == static
    np.testing.assert_array_equal(output(layer), X.reshape(expected))


def test_reshape_layer_with_symbolic_sizes():
    l_in = InputLayer((None, None, 4))
    n, t, _ = l_in.input_var.shape
    layer = ReshapeLayer(ReshapeLayer(l_in, (-1, 4)), (n, t, 4))
    assert layer.output_shape == (None, None, 4)
    np.testing.assert_array_equal(output(layer), X)


def test_reshape_layer_refuses():
    for shape, text in (((-1, -1), "more than once"), (([5], -1), "must name one axis"),
                        ((0, 4), "is no size"), ((5, 5), "numbers of elements differ"),
                        ((7, -1), "numbers of elements differ")):
        with pytest.raises(ValueError, match=text):
            ReshapeLayer((2, 3, 4), shape)
    with pytest.raises(ValueError, match="integer scalar"):
        ReshapeLayer((2, 3, 4), (T.scalar("s"), 4))


def test_slice_layer():
    l_in = InputLayer((None, 3, 4))
    for indices, axis, expected in (
            (-1, 1, X[:, -1]), (0, -1, X[..., 0]), (slice(1, None), 2, X[:, :, 1:]),
            (slice(None, None, -1), 1, X[:, ::-1])):
        layer = SliceLayer(l_in, indices, axis)
        np.testing.assert_array_equal(output(layer), expected)
        assert layer.output_shape == (None, *expected.shape[1:])
    assert SliceLayer(l_in, slice(0, 2), axis=0).output_shape == (None, 3, 4)


def test_flatten_and_dimshuffle_layers():
    l_in = InputLayer((None, 3, 4))
    layer = FlattenLayer(l_in)
    assert layer.output_shape == (None, 12)
    np.testing.assert_array_equal(output(layer), X.reshape(2, 12))
    layer = DimshuffleLayer(l_in, (2, "x", 0, 1))
    assert layer.output_shape == (4, 1, None, 3)
    np.testing.assert_array_equal(output(layer), X.transpose(2, 0, 1)[:, None])
    dropping = DimshuffleLayer(InputLayer((None, 3)), (1,))
    np.testing.assert_array_equal(output(dropping, X[:1, :, 0]), X[0, :, 0])
    with pytest.raises(ValueError, match="drops axis 1"):
        DimshuffleLayer(l_in, (0, 2))
    with pytest.raises(ValueError, match="outdim is 4"):
        FlattenLayer(l_in, 4)


def network():
    l_in = InputLayer((None, 3), name="in")
    l_1 = DenseLayer(l_in, 4, name="one")
    return l_in, l_1, DenseLayer(l_1, 2, name="two")


def test_layers_and_parameters_in_order():
    l_in, l_1, l_2 = network()
    assert get_all_layers(l_2) == [l_in, l_1, l_2]
    assert get_all_layers(l_2, treat_as_input=[l_1]) == [l_1, l_2]
    assert [p.name for p in get_all_params(l_2)] == ["one.W", "one.b", "two.W", "two.b"]
    assert [p.name for p in get_all_params(l_2, regularizable=True)] == ["one.W", "two.W"]
    assert get_all_params([l_2, l_1]) == get_all_params(l_2)
    assert count_params(l_2) == 3 * 4 + 4 + 4 * 2 + 2
    assert get_output_shape([l_1, l_2]) == [(None, 4), (None, 2)]
    assert get_output_shape(l_2, (7, 3)) == (7, 2)


def test_a_shared_layer_comes_once():
    l_in = InputLayer((None, 3))
    both = ElemwiseSumLayer([l_in, l_in])
    assert get_all_layers(both) == [l_in, both]


def test_parameter_values_go_out_and_in():
    _, _, a = network()
    _, _, b = network()
    set_all_param_values(b, get_all_param_values(a))
    for p, q in zip(get_all_params(a), get_all_params(b), strict=True):
        np.testing.assert_array_equal(p.get_value(), q.get_value())
    with pytest.raises(ValueError, match="1 values are given for 4"):
        set_all_param_values(b, [0])
    before = get_all_param_values(b)
    with pytest.raises(ValueError, match=r"two.b has shape \(2,\)"):
        set_all_param_values(b, [v + 1 for v in before[:3]] + [np.zeros(3)])
    np.testing.assert_array_equal(get_all_param_values(b)[0], before[0])


def test_outputs_for_other_inputs():
    l_in, l_1, l_2 = network()
    v = T.matrix("v")
    x = RNG.standard_normal((5, 3))
    expected = ref.run([l_in.input_var], get_output(l_2), x)
    np.testing.assert_allclose(ref.run([v], get_output(l_2, v), x), expected)
    np.testing.assert_allclose(ref.run([v], get_output(l_2, {l_in: v}), x), expected)
    np.testing.assert_allclose(ref.run([], get_output(l_2, x)), expected)
    hidden, out = ref.run([l_in.input_var], get_output([l_1, l_2]), x)
    np.testing.assert_allclose(ref.run([v], get_output(l_2, {l_1: v}), hidden), expected)
    np.testing.assert_allclose(out, expected)
    with pytest.raises(ValueError, match="was built on a shape"):
        get_output(DenseLayer((None, 3), 2))


def test_keyword_arguments_reach_every_layer():
    class Scale(Layer):
        def get_output_for(self, input, deterministic=False, **kwargs):
            return input if deterministic else 2 * input

    l_in = InputLayer((None, 3))
    layer = Scale(l_in)
    x = np.ones((1, 3))
    assert ref.run([l_in.input_var], get_output(layer), x)[0, 0] == 2
    assert ref.run([l_in.input_var], get_output(layer, deterministic=True), x)[0, 0] == 1


def test_tags_and_expressions():
    layer = Layer((None, 3), name="l")
    a = layer.add_param(init.Constant(1), (3,), "a", trainable=False, special=True)
    base = shared(np.ones(3), name="base")
    b = layer.add_param(base * 2, (3,), "b")
    assert layer.get_params() == [a, base]
    assert layer.get_params(unwrap_shared=False) == [a, b]
    assert layer.get_params(trainable=True) == [base]
    assert layer.get_params(special=True) == [a] and layer.get_params(special=False) == [base]


def test_parameters_that_do_not_fit():
    with pytest.raises(ValueError, match=r"W must have shape \(3, 2\), but the array"):
        DenseLayer((None, 3), 2, W=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"W must have shape \(3, 2\), but weights"):
        DenseLayer((None, 3), 2, W=shared(np.zeros((2, 3)), name="weights"))
    with pytest.raises(TypeError, match="cannot be made from 'zero'"):
        DenseLayer((None, 3), 2, W="zero")
    with pytest.raises(TypeError, match="a layer or a shape is needed"):
        DenseLayer(3, 2)
