"""The points of docs/coming-from-lasagne.md; its program prints what is shown, its names exist."""

from __future__ import annotations

import contextlib
import importlib
import io
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as lasagne
from tinygraph import config
from tinygraph_rnn import init, layers, objectives, saving, updates
from tinygraph_rnn.layers import (
    DenseLayer,
    GRULayer,
    InputLayer,
    LSTMLayer,
    get_all_params,
    get_output,
)

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "coming-from-lasagne.md").read_text(encoding="utf-8")
POINTS = dict(re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^#)", TEXT, re.MULTILINE | re.DOTALL))

NAMES = {
    "layers": """Layer MergeLayer InputLayer DenseLayer NINLayer Conv1DLayer Conv2DLayer Conv3DLayer
        TransposedConv2DLayer Deconv2DLayer TransposedConv3DLayer Deconv3DLayer DilatedConv2DLayer
        LocallyConnected1DLayer LocallyConnected2DLayer LocallyConnected3DLayer MaxPool1DLayer
        MaxPool2DLayer MaxPool3DLayer Pool1DLayer Pool2DLayer Pool3DLayer Upscale1DLayer
        Upscale2DLayer Upscale3DLayer FeaturePoolLayer FeatureWTALayer GlobalPoolLayer
        SpatialPyramidPoolingLayer CustomRecurrentLayer RecurrentLayer LSTMLayer GRULayer Gate
        DropoutLayer dropout dropout_channels spatial_dropout dropout_locations GaussianNoiseLayer
        ReshapeLayer reshape FlattenLayer flatten DimshuffleLayer dimshuffle PadLayer pad SliceLayer
        autocrop autocrop_array_shapes ConcatLayer concat ElemwiseMergeLayer ElemwiseSumLayer
        LocalResponseNormalization2DLayer BatchNormLayer batch_norm StandardizationLayer
        instance_norm layer_norm EmbeddingLayer NonlinearityLayer BiasLayer ScaleLayer standardize
        ExpressionLayer InverseLayer TransformerLayer TPSTransformerLayer ParametricRectifierLayer
        prelu RandomizedRectifierLayer rrelu get_output get_output_shape get_all_layers
        get_all_params count_params get_all_param_values set_all_param_values base conv dense
        embedding helper input local merge noise normalization pool recurrent shape special dnn
        corrmm cuda_convnet""",
    "nonlinearities": """sigmoid softmax tanh ScaledTanH ScaledTanh rectify LeakyRectify
        leaky_rectify very_leaky_rectify elu SELU selu softplus linear identity""",
    "init": """Initializer Normal Uniform Glorot GlorotNormal GlorotUniform He HeNormal HeUniform
        Constant Sparse Orthogonal""",
    "objectives": """binary_crossentropy categorical_crossentropy squared_error aggregate
        binary_hinge_loss multiclass_hinge_loss huber_loss binary_accuracy categorical_accuracy""",
    "regularization": """l1 l2 apply_penalty regularize_layer_params
        regularize_layer_params_weighted regularize_network_params""",
    "updates": """sgd momentum nesterov_momentum adagrad rmsprop adadelta adam adamax amsgrad
        apply_momentum apply_nesterov_momentum norm_constraint total_norm_constraint""",
    "utils": """floatX shared_empty as_theano_expression collect_shared_vars one_hot unique as_tuple
        inspect_kwargs compute_norms create_param unroll_scan""",
    "random": "get_rng set_rng",
    "theano_extensions": "",
}


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def evaluate(expression, given):
    return tinygraph.function(list(given), expression)(*given.values())


def values(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape)


# --- the document --------------------------------------------------------------------------------


def test_every_point_has_a_test():
    files = Path(__file__).parent.glob("test_coming_from_lasagne*.py")
    tests = "".join(path.read_text(encoding="utf-8") for path in files)
    tested = [int(k) for k in re.findall(r"^def test_(\d\d)_", tests, re.MULTILINE)]
    assert sorted(tested) == [int(k) for k in POINTS] == list(range(1, 39))


def test_the_table_of_differences_has_those_that_the_points_tell():
    listed = re.findall(r"^\| (\d+) \|", section("Differences"), re.MULTILINE)
    assert listed == [k for k, text in POINTS.items() if "**Differs**" in text]


def test_the_program_prints_what_is_shown():
    (_, program), (_, shown) = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), config.change(floatX="float32", backend="llvm"):
        exec(compile(program, "coming-from-lasagne.py", "exec"), {})
    assert out.getvalue() == shown


def test_the_names_that_do_not_exist_are_those_in_the_table():
    first = " ".join(re.findall(r"^\|([^|]*)\|", section("Names"), re.MULTILINE))
    told = set(re.findall(r"`lasagne\.([\w.]+)`", first))
    missing = set()
    for module, names in NAMES.items():
        if not hasattr(lasagne, module):
            missing.add(module)
            continue
        missing |= {f"{module}.{name}" for name in names.split()
                    if not hasattr(getattr(lasagne, module), name)}
    assert missing == told


def test_the_index_lists_every_page_and_every_link_leads_to_one():
    index = (DOCS / "rnn/index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| \[\w+\]\((\w+\.md)\)", index, re.MULTILINE))
    assert listed | {"index.md"} == {page.name for page in (DOCS / "rnn").glob("*.md")}
    for page in [DOCS / "coming-from-lasagne.md", *(DOCS / "rnn").glob("*.md")]:
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        assert not [link for link in links if not (page.parent / link).exists()], page


def test_what_is_to_be_imported_can_be():
    for line in re.findall(r"`((?:import|from) tinygraph[^`]*)`", section("Changing a program")):
        exec(line, {})
    names = re.match(r"\s*(.*?) are in\s+`(\S+)`", section("theano_lstm"), re.DOTALL)
    found = re.split(r",\s+|\s+and\s+", names[1])
    module = importlib.import_module(names[2])
    assert len(found) == 14 and all(hasattr(module, name) for name in found)


# --- networks ------------------------------------------------------------------------------------


def test_22_inputs_of_get_output():
    l_in = InputLayer((None, 3))
    hidden = DenseLayer(l_in, 2)
    top = DenseLayer(hidden, 1)
    x, h = values(4, 3), values(4, 2)
    expected = evaluate(get_output(top), {l_in.input_var: x})
    np.testing.assert_allclose(get_output(top, T.constant(x)).eval(), expected)
    np.testing.assert_allclose(
        get_output(top, {hidden: T.constant(h)}).eval(),
        np.maximum(h @ top.W.get_value(), 0))
    both = layers.ConcatLayer([l_in, InputLayer((None, 1))])
    with pytest.raises(ValueError, match="the network has 2 input layers"):
        get_output(both, T.constant(x))


def test_23_keyword_arguments_that_nobody_reads():
    network = layers.dropout(InputLayer((None, 3)))
    with pytest.warns(UserWarning, match=r"determinstic \(did you mean deterministic\?\)"):
        get_output(network, determinstic=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_output(network, deterministic=True)
        get_output(InputLayer((None, 3)), deterministic=True)


def test_24_output_shapes_for_other_inputs():
    l_in = InputLayer((None, None, 3))
    network = LSTMLayer(l_in, 2)
    assert layers.get_output_shape(network) == (None, None, 2)
    assert layers.get_output_shape(network, (5, 7, 3)) == (5, 7, 2)
    assert layers.get_output_shape([l_in, network], {l_in: (5, None, 3)}) == [
        (5, None, 3), (5, None, 2)]


def test_25_parameters_by_tag():
    hidden = DenseLayer(InputLayer((None, 3)), 2)
    top = DenseLayer(layers.ConcatLayer([hidden, hidden]), 1)
    assert get_all_params(top) == [hidden.W, hidden.b, top.W, top.b]
    assert get_all_params(top, regularizable=True) == [hidden.W, top.W]
    assert get_all_params(top, regularizable=False) == [hidden.b, top.b]
    normal = layers.batch_norm(DenseLayer(InputLayer((None, 3)), 2))
    assert [p.name for p in get_all_params(normal, trainable=False)] == ["mean", "inv_std"]


def test_26_setting_parameters():
    with config.change(floatX="float32"):
        layer = DenseLayer((None, 3), 2)
    layers.set_all_param_values(layer, [np.full((3, 2), 0.1), np.ones(2)])
    assert layer.W.get_value().dtype == "float32"
    for wrong in ([np.zeros((3, 2))], [np.zeros((3, 2)), np.zeros(3)]):
        with pytest.raises(ValueError):
            layers.set_all_param_values(layer, wrong)
    assert layer.W.get_value()[0, 0] == np.float32(0.1)


# --- training ------------------------------------------------------------------------------------


def parameter(*shape):
    return tinygraph.shared(np.ones(shape), name="p")


def test_27_updates_are_dicts():
    p = parameter(3)
    for given in ((p ** 2).sum(), [2 * p]):
        found = updates.sgd(given, [p], learning_rate=0.1)
        assert list(found) == [p]
        count = tinygraph.shared(0.0)
        found[count] = count + 1
        tinygraph.function([], [], updates=found)()
        assert count.get_value() == 1
    np.testing.assert_allclose(p.get_value(), 0.64 * np.ones(3))
    assert type(found) is dict


def test_28_learning_rates_may_be_shared():
    p, rate = parameter(), tinygraph.shared(0.1)
    f = tinygraph.function([], [], updates=updates.sgd(p, [p], rate))
    f()
    rate.set_value(0.5)
    f()
    assert p.get_value() == pytest.approx(0.4)


def test_29_what_can_be_updated():
    p = parameter(2)
    with pytest.raises(ValueError, match="only shared variables can be updated"):
        updates.adam(p.sum(), [p * 2])
    with pytest.raises(ValueError, match="twice"):
        updates.adam(p.sum(), [p, p])


def test_30_momentum_for_any_updates():
    rates = []
    for apply in (updates.apply_momentum, updates.apply_nesterov_momentum):
        p = parameter()
        f = tinygraph.function([], [], updates=apply(updates.sgd(p, [p], 0.5), momentum=0.5))
        f()
        f()
        rates.append(float(p.get_value()))
    # v = -0.5, p = 0.5; v = -0.75, p = -0.25.   Nesterov: p = 0.25, v = -0.5; v = -0.75, p = -0.625
    assert rates == pytest.approx([-0.25, -0.625])


def test_31_norm_constraint():
    w = updates.norm_constraint(T.constant([[3.0, 0.1], [4.0, 0.1]]), 1.0).eval()
    np.testing.assert_allclose(w, [[0.6, 0.1], [0.8, 0.1]], rtol=1e-5)
    filters = updates.norm_constraint(T.constant(np.ones((2, 4, 3, 3))), 3.0).eval()
    np.testing.assert_allclose(filters, 0.5, rtol=1e-5)
    with pytest.raises(ValueError, match="norm_axes"):
        updates.norm_constraint(T.vector(), 1.0)


def test_32_losses():
    a, b = values(4, 1), values(4)
    column = T.TensorType("float64", (False, True))()
    y, square = T.vector(), T.matrix()
    loss = objectives.squared_error(column, y)
    np.testing.assert_allclose(evaluate(loss, {column: a, y: b}), (a - b[:, None]) ** 2)
    for mode, expected in (("mean", 1.5), ("sum", 3.0), ("normalized_sum", 1.0)):
        found = objectives.aggregate(T.constant([1.0, 1.0]), np.array([1.0, 2.0]), mode)
        assert found.eval() == pytest.approx(expected)
    with pytest.raises(TypeError, match="has 2 axes and .* has 1"):
        objectives.squared_error(square, y)


def test_33_targets_of_categorical_crossentropy():
    p = np.array([[0.2, 0.8], [0.6, 0.4]])
    t = np.array([1, 0])
    expected = -np.log([0.8, 0.6])
    for x in (t, np.eye(2)[t]):
        np.testing.assert_allclose(
            objectives.categorical_crossentropy(T.constant(p), T.constant(x)).eval(), expected)
    found = objectives.categorical_crossentropy(T.constant(p[None]), T.constant(t[None]))
    np.testing.assert_allclose(found.eval(), expected[None])


def test_34_accuracies_are_bool():
    p = T.constant([[0.2, 0.8], [0.6, 0.4]])
    right = objectives.categorical_accuracy(p, T.constant([1, 1]))
    assert right.dtype == "bool" and right.eval().tolist() == [True, False]
    assert right.mean().dtype == config.floatX and right.mean().eval() == 0.5
    assert objectives.binary_accuracy(p, T.constant([[0, 1], [1, 1]])).eval().tolist() == [
        [True, True], [True, False]]


def test_35_what_is_regularized():
    l_in = InputLayer((None, None, 3))
    lstm = LSTMLayer(l_in, 2, hid_init=init.Constant(1), learn_init=True, peepholes=False)
    top = DenseLayer(lstm, 1, num_leading_axes=2, b=init.Constant(5))
    weights = [p for p in get_all_params(top) if "W_" in p.name or p.name == "W"]
    assert len(weights) == 9
    expected = sum(float((w.get_value() ** 2).sum()) for w in weights)
    found = lasagne.regularization.regularize_network_params(top, lasagne.regularization.l2)
    assert found.eval() == pytest.approx(expected)


# --- initial values and files --------------------------------------------------------------------


def test_36_where_initial_values_come_from():
    lasagne.random.set_rng(None)
    np.random.seed(3)
    global_state = init.Normal()((2, 3))
    lasagne.random.set_rng(np.random.RandomState(3))
    np.testing.assert_array_equal(init.Normal()((2, 3)), global_state)
    for seed in (3, np.random.default_rng(3)):
        lasagne.random.set_rng(seed)
        assert init.Normal()((2, 3)).shape == (2, 3)
    with pytest.raises(TypeError):
        lasagne.random.set_rng("3")


def test_37_gains():
    w = init.Orthogonal(gain="relu")((4, 3))
    np.testing.assert_allclose(w.T @ w, 2 * np.eye(3), atol=1e-12)
    for kind in (init.GlorotUniform(), init.HeNormal(), init.Orthogonal()):
        with pytest.raises(ValueError, match="two axes or more"):
            kind((3,))
    assert abs(init.Uniform(0.1, mean=5)((4, 3)) - 5).max() <= 0.1


def test_38_values_in_files(tmp_path):
    l_in = InputLayer((None, None, 3))
    network, other = GRULayer(l_in, 2), GRULayer(l_in, 2)
    np.savez(tmp_path / "model.npz", *layers.get_all_param_values(network))
    with np.load(tmp_path / "model.npz") as f:
        kept = [f[f"arr_{i}"] for i in range(len(f.files))]
    x = {l_in.input_var: values(2, 4, 3)}
    expected = evaluate(get_output(network), x)
    layers.set_all_param_values(other, kept)
    np.testing.assert_array_equal(evaluate(get_output(other), x), expected)
    third = GRULayer(l_in, 2)
    saving.load_npz(tmp_path / "model.npz", third)
    np.testing.assert_array_equal(evaluate(get_output(third), x), expected)
    copied = pickle.loads(pickle.dumps(network))
    out = get_output(copied, {layers.get_all_layers(copied)[0]: l_in.input_var})
    np.testing.assert_array_equal(evaluate(out, x), expected)
