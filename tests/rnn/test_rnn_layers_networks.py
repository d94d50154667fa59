"""The functions over networks of simple layers, what layers refuse, and the words for it."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest
import rnn_reference as ref

import tinygraph.tensor as T
from tinygraph import config, function, grad, shared
from tinygraph_rnn import layers
from tinygraph_rnn.layers import (
    BiasLayer,
    ConcatLayer,
    CustomRecurrentLayer,
    DenseLayer,
    DimshuffleLayer,
    DropoutLayer,
    ElemwiseMergeLayer,
    ElemwiseSumLayer,
    EmbeddingLayer,
    ExpressionLayer,
    FlattenLayer,
    GaussianNoiseLayer,
    InputLayer,
    InverseLayer,
    Layer,
    MergeLayer,
    MultiplicativeGatingLayer,
    NINLayer,
    NonlinearityLayer,
    PadLayer,
    ParametricRectifierLayer,
    RandomizedRectifierLayer,
    ReshapeLayer,
    ScaleLayer,
    SliceLayer,
    get_all_layers,
    get_all_params,
    get_output,
    get_output_shape,
)
from tinygraph_rnn.nonlinearities import LeakyRectify

RNG = np.random.default_rng(3)


@pytest.fixture(params=["numpy", "llvm"])
def backend(request):
    with config.change(backend=request.param):
        yield request.param


# --- names and modules ---


MODULES = {
    "base": "Layer MergeLayer",
    "helper": "get_output get_output_shape get_all_layers get_all_params count_params "
              "get_all_param_values set_all_param_values",
    "input": "InputLayer",
    "dense": "DenseLayer NINLayer NonlinearityLayer",
    "noise": "DropoutLayer dropout dropout_channels spatial_dropout dropout_locations "
             "GaussianNoiseLayer",
    "shape": "FlattenLayer flatten ReshapeLayer reshape DimshuffleLayer dimshuffle PadLayer pad "
             "SliceLayer",
    "merge": "autocrop autocrop_array_shapes ConcatLayer concat ElemwiseMergeLayer "
             "ElemwiseSumLayer",
    "special": "BiasLayer ScaleLayer standardize ExpressionLayer InverseLayer "
               "MultiplicativeGatingLayer ParametricRectifierLayer prelu RandomizedRectifierLayer "
               "rrelu",
    "embedding": "EmbeddingLayer",
}


@pytest.mark.parametrize("module", MODULES)
def test_names_stand_in_the_package_and_in_their_modules(module):
    own = importlib.import_module(f"tinygraph_rnn.layers.{module}")
    assert getattr(layers, module) is own
    for name in MODULES[module].split():
        assert getattr(layers, name) is getattr(own, name)
        assert name in layers.__all__


def test_other_names_of_layers():
    assert (layers.flatten, layers.reshape, layers.dimshuffle, layers.pad, layers.concat,
            layers.dropout) == (
        FlattenLayer, ReshapeLayer, DimshuffleLayer, PadLayer, ConcatLayer, DropoutLayer)


MAKE = {
    "bias": lambda i, **k: BiasLayer(i, **k), "scale": lambda i, **k: ScaleLayer(i, **k),
    "dense": lambda i, **k: DenseLayer(i, 2, **k), "nin": lambda i, **k: NINLayer(i, 2, **k),
    "nonlinearity": lambda i, **k: NonlinearityLayer(i, **k),
    "expression": lambda i, **k: ExpressionLayer(i, abs, **k),
    "inverse": lambda i, **k: InverseLayer(i, DenseLayer(InputLayer((None, 2)), 3), **k),
    "prelu": lambda i, **k: ParametricRectifierLayer(i, **k),
    "rrelu": lambda i, **k: RandomizedRectifierLayer(i, **k),
    "gate": lambda i, **k: MultiplicativeGatingLayer(i, i, i, **k),
    "reshape": lambda i, **k: ReshapeLayer(i, (-1,), **k),
    "flatten": lambda i, **k: FlattenLayer(i, **k),
    "dimshuffle": lambda i, **k: DimshuffleLayer(i, (1, 0), **k),
    "pad": lambda i, **k: PadLayer(i, 1, batch_ndim=1, **k),
    "slice": lambda i, **k: SliceLayer(i, 0, **k),
    "concat": lambda i, **k: ConcatLayer([i, i], **k),
    "merge": lambda i, **k: ElemwiseMergeLayer([i, i], T.mul, **k),
    "sum": lambda i, **k: ElemwiseSumLayer([i, i], **k),
    "dropout": lambda i, **k: DropoutLayer(i, **k),
    "noise": lambda i, **k: GaussianNoiseLayer(i, **k),
    "embedding": lambda i, **k: EmbeddingLayer(i, 5, 2, **k),
}


@pytest.mark.parametrize("kind", MAKE)
def test_layers_on_shapes_and_layers_with_names(kind):
    l_in = InputLayer((None, 3))
    on_shape, on_layer = MAKE[kind]((None, 3), name="n"), MAKE[kind](l_in, name="n")
    assert on_shape.output_shape == on_layer.output_shape
    assert on_shape.name == on_layer.name == "n"
    assert all(p.name.startswith("n.") for p in on_layer.get_params())
    if isinstance(on_layer, MergeLayer):
        assert on_shape.input_layers[0] is None and on_layer.input_layers[0] is l_in
        assert on_shape.input_shapes[0] == on_layer.input_shapes[0] == (None, 3)
    else:
        assert on_shape.input_layer is None and on_layer.input_layer is l_in
        assert on_shape.input_shape == on_layer.input_shape == (None, 3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nmae'"):
        MAKE[kind](l_in, nmae="n")


# --- what is refused ---


@pytest.mark.parametrize(("make", "text"), [
    (lambda: NINLayer((None,), 5), r"needs an input of shape \(batch, channels, places...\)"),
    (lambda: NINLayer((None, None, 4), 5), "NINLayer needs the number of channels, axis 1"),
    (lambda: NINLayer((None, 3, None), 5, untie_biases=True), "give ints instead of None"),
    (lambda: DenseLayer((None, 3), 0), "num_units is 0; it must be a positive int"),
    (lambda: DenseLayer((None, 3), 2.5), "num_units is 2.5; it must be a positive int"),
    (lambda: NINLayer((None, 3), None), "num_units is None; it must be a positive int"),
    (lambda: EmbeddingLayer((None,), 3, 0), "output_size is 0; it must be a positive int"),
    (lambda: DenseLayer((None, 3), 5, num_leading_axes=-3), "num_leading_axes is -3"),
    (lambda: BiasLayer((None, None)), "needs the sizes of all axes that are not shared"),
    (lambda: BiasLayer((3, 4), shared_axes=2), "shared_axes is 2, but the input has 2 axes"),
    (lambda: BiasLayer((3, 4), shared_axes="none"), "it must be an axis, a tuple of axes, 'auto'"),
    (lambda: ScaleLayer((None, 3), shared_axes=1), "ScaleLayer needs the sizes of all axes"),
    (lambda: ParametricRectifierLayer((None, None)), "ParametricRectifierLayer needs the sizes"),
    (lambda: ExpressionLayer((None, 3), abs, "same"), "output_shape is 'same'; it must be None"),
    (lambda: MultiplicativeGatingLayer((None, 3), (None, 3), (None, 4)), "axis 1 differs"),
    (lambda: PadLayer((None, 3, 4), -1), "width is -1; it must be an int, or an int or a pair"),
    (lambda: PadLayer((None, 3, 4), (1, 1)), "for each of the 1 axes"),
    (lambda: PadLayer((None, 3, 4), [(1, 2, 3)]), "it must be an int, or an int or a pair"),
    (lambda: PadLayer((None, 3, 4), 1, batch_ndim=4), "batch_ndim is 4, but the input"),
    (lambda: SliceLayer((None, 3), 0, axis=2), "axis 2 of an input of shape"),
    (lambda: DimshuffleLayer((None, 3), (0, 0, 1)), "each once at most, and 'x'"),
    (lambda: DimshuffleLayer((None, 3), (0, 2)), "must name axes 0 to 1"),
    (lambda: FlattenLayer((None, 3), 0), "outdim is 0"),
    (lambda: ReshapeLayer((None, 3), ("a", 3)), "'a' is no size"),
    (lambda: ReshapeLayer((None, 3), (1.5, 3)), "1.5 is no size"),
    (lambda: ReshapeLayer((None, 3), (T.fscalar("s"), 3)), "must be an integer scalar, not s"),
    (lambda: ConcatLayer([(None, 3), (None, 3, 1)]).output_shape, "equally many axes"),
    (lambda: ConcatLayer([(None, 3), (None, 3)], axis=2).output_shape, "axis 2 of inputs"),
    (lambda: ElemwiseSumLayer([(None, 3), (None, 4)]).output_shape, "axis 1 differs"),
    (lambda: ElemwiseSumLayer([(2, 3), (3, 3)], cropping=["middle"]).output_shape,
     "cropping is .*it must hold for each axis, 2 at most, None, 'lower', 'center' or 'upper'"),
    (lambda: ElemwiseSumLayer([(2, 3), (3,)], cropping=["lower"]).output_shape,
     "cropping needs inputs of equally many axes, but they have 2, 1"),
    (lambda: InputLayer((None, -3)), "every size must be positive"),
    (lambda: DenseLayer((None, 0), 2), "every size must be positive"),
])
def test_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize(("make", "text"), [
    (lambda: DenseLayer([InputLayer((None, 3))], 2), r"\[<InputLayer .*\] is no shape: every size"),
    (lambda: InputLayer((None, 2.5)), r"\(None, 2.5\) is no shape: every size must be an int"),
    (lambda: DenseLayer((None, 3), 2, nonlinearity="tanh"), "the nonlinearity is 'tanh'; it must"),
    (lambda: NINLayer((None, 3), 2, nonlinearity=LeakyRectify), r"write LeakyRectify\(\) for one"),
])
def test_of_another_kind(make, text):
    with pytest.raises(TypeError, match=text):
        make()


def test_an_inverse_needs_a_layer_with_an_input():
    for layer in (InputLayer((None, 3)), DenseLayer((None, 3), 2), ConcatLayer([(None, 3)] * 2)):
        with pytest.raises(TypeError, match="needs a layer that has one input layer"):
            InverseLayer((None, 3), layer)


def test_an_input_is_a_variable():
    with pytest.raises(TypeError, match="input_var must be a variable such as .*, not a ndarray"):
        InputLayer((None, 3), np.zeros((2, 3)))
    v = shared(np.ones((2, 3)))
    assert get_output(InputLayer((None, 3), v)) is v


def test_symbolic_output_shapes_are_refused():
    class Odd(Layer):
        def get_output_shape_for(self, input_shape):
            return (T.iscalar("n"), 3)

    with pytest.raises(ValueError, match="of a Odd gives .*symbolic sizes"):
        _ = Odd((None, 3)).output_shape


def test_layers_that_say_nothing():
    with pytest.raises(NotImplementedError, match="Layer.get_output_for"):
        get_output(Layer(InputLayer((None, 3))))
    with pytest.raises(NotImplementedError, match="MergeLayer.get_output_shape_for"):
        _ = MergeLayer([(None, 3)]).output_shape


# --- get_output and get_output_shape ---


def two_inputs():
    a, b = InputLayer((None, 3), name="a"), InputLayer((None, 3), name="b")
    return a, b, ElemwiseSumLayer([DenseLayer(a, 3, np.eye(3), nonlinearity=None), b], [1, 10])


def test_inputs_of_a_network_with_two(backend):
    a, b, top = two_inputs()
    x, y = RNG.standard_normal((2, 4, 3))
    expected = x + 10 * y
    f = function([a.input_var, b.input_var], get_output(top))
    np.testing.assert_allclose(f(x, y), expected)
    np.testing.assert_allclose(ref.run([b.input_var], get_output(top, {a: x}), y), expected)
    np.testing.assert_allclose(ref.run([], get_output(top, {a: x, b: y})), expected)
    np.testing.assert_allclose(
        ref.run([], get_output([top, a], {top.input_layers[0]: x, b: y, a: -x})[0]), expected)
    for call, what in ((get_output, x), (get_output_shape, (4, 3))):
        with pytest.raises(ValueError, match=f"{call.__name__} is given one .*has 2 input layers"):
            call(top, what)
        with pytest.raises(TypeError, match="keys of inputs must be layers, not 'a'"):
            call(top, {"a": what})


def test_shapes_of_a_network_with_two():
    a, b, top = two_inputs()
    assert get_output_shape(top) == get_output_shape(top, {}) == (None, 3)
    assert get_output_shape(top, {a: (7, 3)}) == (7, 3)
    assert get_output_shape([top, a, b], {a: (7, 3), b: (7, 3)}) == [(7, 3)] * 3
    assert get_output_shape(top, {top.input_layers[0]: (5, 3)}) == (5, 3)
    with pytest.raises(ValueError, match="axis 0 differs"):
        get_output_shape(top, {a: (7, 3), b: (8, 3)})


def test_layers_without_an_input_layer():
    free = DenseLayer((None, 3), 2)
    x = RNG.standard_normal((4, 3))
    expected = np.maximum(x @ free.W.get_value(), 0)
    for inputs in ({None: x}, x):
        np.testing.assert_allclose(ref.run([], get_output(free, inputs)), expected)
    np.testing.assert_allclose(
        ref.run([], get_output(NonlinearityLayer(free), {free: -x})), np.maximum(-x, 0))
    assert get_output_shape(free, {None: (4, 3)}) == get_output_shape(free, (4, 3)) == (4, 2)
    with pytest.raises(ValueError, match="was built on a shape and has no input layer"):
        get_output(free)


def test_lists_and_intermediate_layers_share_their_expressions():
    l_in = InputLayer((None, 3))
    l_1 = DenseLayer(l_in, 4)
    l_2 = DenseLayer(l_1, 2)
    a, b, c = get_output((l_1, l_2, l_1))
    assert a is c
    assert get_output([]) == []
    v = T.matrix("v")
    (hidden,) = get_output([l_1], {l_1: v})
    assert hidden is v
    assert grad(b.sum(), a).ndim == 2


def test_all_layers_in_order():
    a, b, top = two_inputs()
    dense = top.input_layers[0]
    assert get_all_layers(top) == [a, dense, b, top]
    assert get_all_layers([b, top]) == [b, a, dense, top]
    assert get_all_layers(top, treat_as_input=[dense]) == [dense, b, top]
    assert get_all_layers(top, treat_as_input=[top]) == [top]


def test_parameters_and_their_tags():
    l_in = InputLayer((None, 3))
    l_1 = DenseLayer(l_in, 4, name="one")
    top = layers.standardize(BiasLayer(l_1), np.zeros(4), np.ones(4))
    two = DenseLayer(top, 2, W=l_1.add_param(np.zeros((4, 2)), (4, 2), "extra", decay=True))
    assert [p.name for p in get_all_params(two, trainable=True)] == [
        "one.W", "one.b", "one.extra", "b", "b"]
    assert [p.name for p in get_all_params(two, trainable=False)] == ["b", "scales"]
    assert [p.name for p in get_all_params(two, decay=True)] == ["one.extra"]
    assert [p.name for p in get_all_params(two, treat_as_input=[top])] == [
        "b", "scales", "one.extra", "b"][1:]
    assert layers.count_params(two) == 12 + 4 + 8 + 4 + 4 + 4 + 2
    assert layers.count_params(two, decay=True) == 8
    values = layers.get_all_param_values(two, decay=True)
    assert [v.shape for v in values] == [(4, 2)]
    layers.set_all_param_values(two, [values[0] + 3], decay=True)
    np.testing.assert_array_equal(two.W.get_value(), np.full((4, 2), 3.0))


def test_values_that_do_not_fit_change_nothing():
    top = DenseLayer(DenseLayer(InputLayer((None, 3)), 4, name="one"), 2, name="two")
    kept = layers.get_all_param_values(top)
    for at, wrong, text in (
            (3, np.zeros(3), r"two.b has shape \(2,\), but its value has \(3,\)"),
            (2, np.array([["a", "b"]] * 4), "two.W holds numbers of float64, but its value"),
            (1, np.array([None] * 4), "one.b holds numbers")):
        values = [v + 1 for v in kept]
        values[at] = wrong
        with pytest.raises(ValueError, match=text):
            layers.set_all_param_values(top, values)
    with pytest.raises(ValueError, match="3 values are given for 4 parameters: one.W, one.b, two"):
        layers.set_all_param_values(top, kept[:3])
    for a, b in zip(layers.get_all_param_values(top), kept, strict=True):
        np.testing.assert_array_equal(a, b)


# --- keyword arguments that nobody reads ---


class Reads(Layer):
    """A layer that reads ``temperature`` by its signature and ``batch_norm_x`` by hand."""

    def __init__(self, incoming, name=None):
        super().__init__(incoming, name)
        self.get_output_kwargs.append("by_hand")

    def get_output_for(self, input, temperature=1, **kwargs):
        return input * temperature * kwargs.get("by_hand", 1)


def test_unread_keyword_arguments_warn():
    layer = DropoutLayer(Reads(InputLayer((None, 3))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_output(layer, temperature=2, by_hand=3, deterministic=True)
        get_output(DenseLayer(InputLayer((None, 3)), 2), deterministic=True)
    with pytest.warns(UserWarning, match=r"determinstic \(did you mean deterministic\?\), but no"):
        get_output(layer, determinstic=True)
    with pytest.warns(UserWarning, match="given qqq, temprature .did you mean temperature") as seen:
        get_output(layer, temprature=2, qqq=1)
    assert seen[0].filename == __file__


def test_networks_inside_of_layers_are_heard():
    l_in = InputLayer((None, None, 3))
    inner = Reads(InputLayer((None, 3)))
    layer = CustomRecurrentLayer(l_in, inner, DropoutLayer(InputLayer((None, 3))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_output(layer, temperature=2, deterministic=True)
    with pytest.warns(UserWarning, match="given qqq, but") as seen:
        get_output(layer, qqq=1)
    assert len(seen) == 1
    with pytest.warns(UserWarning, match="temperature"):  # an earlier call is forgotten
        get_output(DropoutLayer(l_in), temperature=2)


# --- cropping ---


A, B = RNG.standard_normal((2, 5, 4)), RNG.standard_normal((2, 3, 6))


@pytest.mark.parametrize(("cropping", "a", "b"), [
    ([None, "lower", "lower"], np.s_[:, :3], np.s_[:, :, :4]),
    ([None, "upper", "upper"], np.s_[:, 2:], np.s_[:, :, 2:]),
    ((None, "center", "center"), np.s_[:, 1:4], np.s_[:, :, 1:5]),
    ([None, "center", "lower"], np.s_[:, 1:4], np.s_[:, :, :4]),
])
@pytest.mark.parametrize("known", [True, False])
def test_cropping(cropping, a, b, known, backend):
    sizes = ((5, 4), (3, 6)) if known else ((None, None), (None, 6))
    pair = [InputLayer((None, *n)) for n in sizes]
    variables = [i.input_var for i in pair]
    for layer, shape, expected in (
            (ElemwiseSumLayer(pair, cropping=cropping), (3, 4), A[a] + B[b]),
            (ElemwiseMergeLayer(pair, T.mul, cropping), (3, 4), A[a] * B[b]),
            (ConcatLayer(pair, 1, cropping), (8, 4), np.concatenate([A, B[b]], axis=1))):
        assert layer.output_shape == (None, *(shape if known else (None, None)))
        np.testing.assert_allclose(ref.run(variables, get_output(layer), A, B), expected)


def test_cropping_leaves_what_is_not_named():
    shapes = [(None, 3, 7), (2, 5, 6)]
    assert layers.autocrop_array_shapes(shapes, ["lower", "center"]) == [
        (None, 3, 7), (None, 3, 6)]
    assert layers.autocrop_array_shapes(shapes, None) == shapes
    x, y = T.matrix("x"), T.matrix("y")
    assert layers.autocrop([x, y], None) == [x, y]
    first, second = layers.autocrop([x, y], ["upper"])
    a, b = ref.run([x, y], [first, second], A[0], B[0])
    np.testing.assert_array_equal(a, A[0][2:])
    np.testing.assert_array_equal(b, B[0])


# --- embeddings ---


def test_embedding(backend):
    ids = T.imatrix("ids")
    layer = EmbeddingLayer(InputLayer((None, None), ids), 5, 3, name="e")
    table = layer.W.get_value()
    assert layer.output_shape == (None, None, 3) and table.shape == (5, 3)
    assert layer.W.name == "e.W"
    f = function([ids], get_output(layer))
    given = np.array([[0, 4, 1], [2, 2, 3]], "int32")
    np.testing.assert_array_equal(f(given), table[given])
    with pytest.raises(IndexError, match="index 5 .*out of range .*e.W"):
        f(np.array([[0, 5]], "int32"))
    g = ref.run([ids], grad(get_output(layer).sum(), layer.W), given)
    np.testing.assert_array_equal(g, np.bincount(given.ravel(), minlength=5)[:, None] * np.ones(3))


def test_embedding_of_other_shapes_and_of_a_given_table():
    table = shared(RNG.standard_normal((4, 2)), name="table")
    ids = T.ltensor3("ids")
    layer = EmbeddingLayer(InputLayer((2, None, 3), ids), 4, 2, W=table)
    assert layer.W is table and layer.output_shape == (2, None, 3, 2)
    given = RNG.integers(0, 4, (2, 5, 3))
    np.testing.assert_array_equal(ref.run([ids], get_output(layer), given),
                                  table.get_value()[given])
    with pytest.raises(TypeError, match="must hold integers, but input .* is of float64"):
        get_output(EmbeddingLayer(InputLayer((None, None)), 4, 2))


def test_auto_shapes_of_integers():
    layer = ExpressionLayer(InputLayer((None, 7), T.imatrix("ids")),
                            lambda x: T.eye(4)[x], output_shape="auto")
    assert layer.output_shape == (None, 7, 4)


# --- inverse layers ---


def test_unpooling(backend):
    l_in = InputLayer((None, 1, 4))
    pool = layers.MaxPool1DLayer(l_in, 2)
    layer = InverseLayer(pool, pool)
    assert layer.output_shape == (None, 1, 4)
    x = np.array([[[3.0, 1.0, 2.0, 5.0]]])
    np.testing.assert_array_equal(
        ref.run([l_in.input_var], get_output(layer), x), [[[3, 0, 0, 5]]])


def test_inverse_of_a_nonlinear_layer_weights_its_slope():
    l_in = InputLayer((None, 3))
    dense = DenseLayer(l_in, 2)
    weights = InputLayer((None, 2))
    x, w = RNG.standard_normal((4, 3)), RNG.standard_normal((4, 2))
    out = ref.run([l_in.input_var, weights.input_var], get_output(InverseLayer(weights, dense)),
                  x, w)
    table = dense.W.get_value()
    np.testing.assert_allclose(out, (w * (x @ table > 0)) @ table.T)


# --- steps ---


def test_simple_layers_inside_a_step(backend):
    """Bias, scale, gate and rectifier in the network that a state goes through."""
    l_in, inner = InputLayer((None, None, 3)), InputLayer((None, 3))
    dense = DenseLayer(inner, 3, RNG.standard_normal((3, 3)), None, None)
    hidden = MultiplicativeGatingLayer(
        NonlinearityLayer(BiasLayer(inner, np.array([0.1, 0.2, 0.3])), T.nnet.sigmoid),
        ParametricRectifierLayer(ScaleLayer(dense, np.array([0.5, 1.0, -1.0])), 0.3, "all"), inner)
    layer = CustomRecurrentLayer(l_in, NonlinearityLayer(InputLayer((None, 3))), hidden,
                                 nonlinearity=T.tanh)
    x = RNG.standard_normal((2, 4, 3))
    h, rows = np.zeros((2, 3)), []
    for t in range(4):
        gate = ref.sigmoid(h + [0.1, 0.2, 0.3])
        z = h @ dense.W.get_value() * [0.5, 1.0, -1.0]
        h = np.tanh(np.maximum(x[:, t], 0) + gate * np.where(z > 0, z, 0.3 * z) + (1 - gate) * h)
        rows.append(h)
    np.testing.assert_allclose(ref.run([l_in.input_var], get_output(layer), x),
                               np.stack(rows, 1), rtol=1e-10)
