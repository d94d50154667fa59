"""The cells of a step, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from rnn_reference import sigmoid

import tinygraph.tensor as T
from tinygraph import config, function, grad, scan, shared
from tinygraph_rnn import cells, random, updates
from tinygraph_rnn.cells import (
    GRU,
    LSTM,
    RNN,
    Embedding,
    GatedInput,
    Layer,
    StackedCells,
    create_optimization_updates,
    masked_loss,
)

RNG = np.random.default_rng(7)


def values(layer):
    return [p.get_value() for p in layer.params]


def affine(z, w, b):
    return z @ w.T + b


def rnn(p, x, h):
    return np.tanh(affine(np.concatenate([x, h], -1), *p))


def lstm(p, x, state):
    c, h = np.split(state, 2, -1)
    z = np.concatenate([x, h], -1)
    i, f, g, o = (affine(z, *p[k:k + 2]) for k in range(0, 8, 2))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return np.concatenate([c, sigmoid(o) * np.tanh(c)], -1)


def gru(p, x, h):
    z = np.concatenate([x, h], -1)
    r, u = sigmoid(affine(z, *p[:2])), sigmoid(affine(z, *p[2:4]))
    return (1 - u) * h + u * np.tanh(affine(np.concatenate([x, r * h], -1), *p[4:]))


REFERENCES = {RNN: rnn, LSTM: lstm, GRU: gru}
CELLS = pytest.mark.parametrize("cell", REFERENCES, ids=lambda c: c.__name__)


def model_of(cell, layers=(5, 3)):
    model = StackedCells(4, cell, layers, T.tanh)
    for p in model.params:
        p.set_value(RNG.standard_normal(p.get_value().shape))
    return model


@CELLS
def test_a_cell_computes_its_formulas(cell):
    layer = cell(4, 5, T.tanh)
    states = {LSTM: 10}.get(cell, 5)
    assert layer.initial_hidden_state.get_value().shape == (states,)
    x, h = RNG.standard_normal((3, 4)), RNG.standard_normal((3, states))
    vx, vh, mx, mh = T.vector(), T.vector(), T.matrix(), T.matrix()
    expected = REFERENCES[cell](values(layer), x, h)
    np.testing.assert_allclose(function([mx, mh], layer.activate(mx, mh))(x, h), expected)
    one = function([vx, vh], layer.activate(vx, vh))
    np.testing.assert_allclose(one(x[1], h[1]), expected[1])


@CELLS
@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_stacked_cells_in_a_scan(cell, backend):
    model = model_of(cell)
    model.layers.append(Layer(3, 2, lambda z: T.nnet.softmax(z.T).T))
    x = T.tensor3()

    def step(x_t, *states):
        return model.forward(x_t, states)

    outs, _ = scan(step, sequences=x, outputs_info=[*model.initial_states(x.shape[1]), None])
    data = RNG.standard_normal((6, 2, 4))
    found = function([x], outs, backend=backend)(data)
    states = [np.tile(layer.initial_hidden_state.get_value(), (2, 1))
              for layer in model.layers[:2]]
    for t in range(6):
        below = data[t]
        for k, layer in enumerate(model.layers[:2]):
            states[k] = REFERENCES[cell](values(layer), below, states[k])
            below = states[k][:, -layer.hidden_size:]
            np.testing.assert_allclose(found[k][t], states[k], rtol=1e-9)
        e = np.exp(affine(below, *values(model.layers[2])))
        np.testing.assert_allclose(found[2][t], e / e.sum(1, keepdims=True), rtol=1e-9)


@CELLS
def test_gradients(cell):
    model = model_of(cell)
    x = T.matrix()
    outs, _ = scan(lambda x_t, *states: model.forward(x_t, states), sequences=x,
                   outputs_info=model.initial_states())
    cost = (outs[-1] ** 2).mean()
    starts = [layer.initial_hidden_state for layer in model.layers]
    params = model.params + starts
    data = RNG.standard_normal((4, 4))
    gradients = function([x], grad(cost, params), backend="llvm")(data)
    value = function([x], cost, backend="llvm")
    for p, g in zip(params, gradients, strict=True):
        old = p.get_value()
        direction = RNG.standard_normal(old.shape)
        sides = []
        for eps in (1e-5, -1e-5):
            p.set_value(old + eps * direction)
            sides.append(float(value(data)))
        p.set_value(old)
        assert (sides[0] - sides[1]) / 2e-5 == pytest.approx((g * direction).sum(), abs=1e-8)


def test_forward_starts_by_itself():
    model = model_of(LSTM)
    x, v = T.matrix(), T.vector()
    data = RNG.standard_normal((3, 4))
    batch = function([x], model.forward(x))(data)
    given = function([x], model.forward(x, model.initial_states(3)))(data)
    # Start states that are vectors serve every row of a batch.
    vectors = function([x], model.forward(x, model.initial_states()))(data)
    single = function([v], model.forward(v))(data[2])
    for a, b, c, d in zip(batch, given, vectors, single, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
        np.testing.assert_allclose(a[2], d, rtol=1e-12)


def test_activations_may_be_set():
    model = model_of(LSTM, layers=[5])
    (layer,) = model.layers
    x = RNG.standard_normal(4)
    state = np.concatenate([RNG.standard_normal(5), np.zeros(5)])
    for name in ("in_gate", "forget_gate", "in_gate2", "out_gate"):
        getattr(layer, name).activation = lambda z: 0 * z + 1
    v, h = T.vector(), T.vector()
    found = function([v, h], layer.activate(v, h), on_unused_input="ignore")(x, state)
    np.testing.assert_allclose(found[:5], state[:5] + 1)
    np.testing.assert_allclose(found[5:], np.tanh(state[:5] + 1))


def test_embedding_and_gated_input():
    model = StackedCells(3, RNN, [], T.tanh)
    model.layers += [Embedding(6, 3), GatedInput(3, 2, T.tanh), RNN(3, 4, T.tanh)]
    words, h = T.ivector(), T.matrix()
    numbers, looked_at = np.array([5, 0], "int32"), RNG.standard_normal((2, 2))
    embedded, gate, out = function([words, h], model.forward(words, [
        h, T.alloc(model.layers[2].initial_hidden_state, 2, 4)]))(numbers, looked_at)
    rows = model.layers[0].embedding_matrix.get_value()[numbers]
    np.testing.assert_array_equal(embedded, rows)
    expected = sigmoid(affine(np.concatenate([rows, looked_at], 1), *values(model.layers[1])))
    np.testing.assert_allclose(gate, expected)
    start = np.tile(model.layers[2].initial_hidden_state.get_value(), (2, 1))
    np.testing.assert_allclose(out, rnn(values(model.layers[2]), rows * expected, start))
    i, v = T.iscalar(), T.vector()
    embedded, gate, _ = function([i, v], model.forward(i, [
        v, model.layers[2].initial_hidden_state]))(5, looked_at[0])
    np.testing.assert_allclose(gate, expected[0, 0])
    with pytest.raises(ValueError, match="layer 1, GatedInput, has no start state"):
        model.forward(words)
    with pytest.raises(ValueError, match="1 states are given, but there are 2 recurrent"):
        model.forward(words, [h])


def test_states_may_be_given_by_layer():
    model = StackedCells(3, RNN, [], T.tanh)
    model.layers += [Layer(3, 3, T.tanh), RNN(3, 4, T.tanh)]
    x, h = T.matrix(), T.matrix()
    a, b = (function([x, h], model.forward(x, states)[-1]) for states in ([h], [None, h]))
    data = RNG.standard_normal((2, 3)), RNG.standard_normal((2, 4))
    np.testing.assert_array_equal(a(*data), b(*data))


@pytest.mark.parametrize("cell", [Layer, *REFERENCES, GatedInput], ids=lambda c: c.__name__)
def test_params_go_out_and_in(cell):
    a, b = cell(4, 5, T.tanh), cell(4, 5, T.tanh)
    a.params = b.params
    for p, q in zip(a.params, b.params, strict=True):
        np.testing.assert_array_equal(p.get_value(), q.get_value())
    new = [v + 1 for v in values(a)]
    a.params = new
    np.testing.assert_array_equal(a.params[-1].get_value(), new[-1])
    with pytest.raises(ValueError, match="values are given for"):
        a.params = new[1:]
    with pytest.raises(ValueError, match="has shape"):
        a.params = [new[0] - 7, *new[1:-1], np.zeros(9)]
    np.testing.assert_array_equal(a.params[0].get_value(), new[0])  # all or none


def test_params_of_a_stack():
    a, b = model_of(LSTM), model_of(LSTM)
    assert len(a.params) == 16
    a.params = b.params
    for p, q in zip(a.params, b.params, strict=True):
        np.testing.assert_array_equal(p.get_value(), q.get_value())
    embedding = Embedding(3, 2)
    embedding.params = [np.ones((3, 2))]
    assert embedding.embedding_matrix.get_value().sum() == 6


def test_initial_values_can_be_repeated():
    random.set_rng(3)
    a = values(LSTM(4, 5, T.tanh))
    random.set_rng(3)
    for x, y in zip(a, values(LSTM(4, 5, T.tanh)), strict=True):
        np.testing.assert_array_equal(x, y)
    with config.change(floatX="float32"):
        assert cells.create_shared(500, 200).get_value().dtype == np.float32
    spread = cells.create_shared(500, 200).get_value()
    assert spread.shape == (500, 200) and spread.std() == pytest.approx(1 / 500, rel=0.02)


def test_clipped_gradients():
    x = T.vector("x")
    for layer, args in ((Layer(4, 3, lambda z: z, 0.1), [x]),
                        (RNN(4, 3, lambda z: z, 0.1), [x, T.zeros(3)])):
        layer.params[0].set_value(np.full(layer.params[0].get_value().shape, 9.0))
        # The square of a sum of 36 and more comes back, and is clipped.
        cost = (layer.activate(*args) ** 2).sum()
        np.testing.assert_allclose(function([x], grad(cost, x))(np.ones(4)), np.full(4, 0.1))
    slope = grad(5 * cells.clip_gradient(x, 2)[0] ** 2, x)
    np.testing.assert_array_equal(function([x], slope)(np.ones(4)), [2, 0, 0, 0])


def test_dropout_masks():
    p = shared(0.25, "p")
    mask, row = cells.MultiDropout([(100, 200), 300], p)
    f = function([], [mask, row])
    a, b = f()
    assert a.shape == (100, 200) and b.shape == (300,) and set(np.unique(a)) == {0, 1}
    assert a.mean() == pytest.approx(0.75, abs=0.02) and abs(f()[0] - a).max() == 1
    p.set_value(0.0)
    assert f()[0].min() == 1
    x = T.vector()
    assert cells.apply_dropout(x, None) is x


def test_dropout_in_forward():
    model = model_of(LSTM)
    x = T.matrix()
    data = RNG.standard_normal((3, 4))
    plain = function([x], model.forward(x))(data)
    for none in (0.0, [], [None, None], [1.0]):
        for a, b in zip(function([x], model.forward(x, None, none))(data), plain, strict=True):
            np.testing.assert_array_equal(a, b)
    zero = function([x], model.forward(x, None, [0.0]))(data)
    below = np.zeros((3, 4))
    start = np.tile(model.layers[0].initial_hidden_state.get_value(), (3, 1))
    np.testing.assert_allclose(zero[0], lstm(values(model.layers[0]), below, start))


def test_dropout_inside_a_scan_draws_at_every_step():
    model = StackedCells(50, RNN, [1], lambda z: z)
    model.params = [np.r_[np.ones(50), 0.0][None], np.zeros(1)]
    x = T.matrix()
    (states), rng_updates = scan(lambda x_t, h: model.forward(x_t, [h], 0.5)[0], sequences=x,
                                 outputs_info=model.initial_states())
    f = function([x], states, updates=rng_updates)
    counts = f(np.ones((40, 50)))[:, 0]
    assert len(set(counts)) > 5 and 20 < counts.mean() < 30
    assert not np.array_equal(f(np.ones((40, 50)))[:, 0], counts)


# --- masked loss


def masked_arrays(batch=3, time=5, classes=4):
    e = np.exp(RNG.standard_normal((batch, time, classes)))
    p = e / e.sum(-1, keepdims=True)
    y = RNG.integers(0, classes, (batch, time)).astype("int32")
    lengths = np.array([2, 0, 5], "int32")[:batch]
    starts = np.array([1, 3, 0], "int32")[:batch]
    return p, y, lengths, starts


VARIABLES = T.dtensor3("p"), T.imatrix("y"), T.ivector("lengths"), T.ivector("starts")


@pytest.mark.parametrize("backend", ["numpy", "loops", "llvm"])
def test_masked_loss_and_its_gradient(backend):
    p, y, lengths, starts = masked_arrays()
    weights = np.array([2.0, 3.0, 5.0])  # theano_lstm is right only for ones
    loss = masked_loss(*VARIABLES)
    total = (loss * T.constant(weights)).sum()
    f = function(list(VARIABLES), [loss, grad(total, VARIABLES[0])], backend=backend)
    expected, slope = np.zeros(3), np.zeros_like(p)
    for i in range(3):
        for t in range(starts[i], starts[i] + lengths[i]):
            expected[i] -= np.log(p[i, t, y[i, t]])
            slope[i, t, y[i, t]] = -weights[i] / p[i, t, y[i, t]]
    found, gradient = f(p, y, lengths, starts)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, slope, rtol=1e-12)
    for bad in (0.0, np.nan):
        q = np.where((slope != 0).any(-1, keepdims=True), p, bad)
        again, gradient = f(q, y, lengths, starts)
        np.testing.assert_allclose(again, expected, rtol=1e-12)
        np.testing.assert_allclose(gradient, slope, rtol=1e-12)


def test_masked_loss_of_a_padded_batch_is_that_of_single_sequences():
    p, y, lengths, _ = masked_arrays()
    starts = np.zeros(3, "int32")
    f = function(list(VARIABLES), masked_loss(*VARIABLES), backend="llvm")
    whole = f(p, y, lengths, starts)
    for i in (0, 2):
        part = slice(i, i + 1), slice(0, lengths[i])
        np.testing.assert_allclose(
            f(p[part], y[part], lengths[i:i + 1], starts[:1]), whole[i:i + 1], rtol=1e-12)


def test_masked_loss_refuses():
    p, y, n, s = VARIABLES
    for arguments, text in (((y, y, n, s), "predictions must have 3 axes of floats"),
                            ((p, p, n, s), "labels must have 2 axes of integers"),
                            ((p, y, T.dvector(), s), "lengths must have 1 axes of integers"),
                            ((p, y, n, y), "starts must have 1 axes of integers")):
        with pytest.raises(TypeError, match=text):
            masked_loss(*arguments)


# --- updates


def descend(method, steps=5, scale=1.0, **options):
    """Values of two parameters after steps of descent on a quadratic."""
    p, q = shared(np.array([1.0, -2.0]), "p"), shared(np.array([[3.0]]), "q")
    cost = scale * ((p ** 2).sum() + 2 * (q ** 2).sum() + p[0] * q[0, 0])
    new, *rest = create_optimization_updates(cost, [p, q], method=method, **options)
    f = function([], cost, updates=new)
    for _ in range(steps):
        f()
    return p.get_value(), q.get_value(), rest


def reference(method, steps=5, scale=1.0, max_norm=5.0, lr=0.01, eps=1e-6, rho=0.95):
    params = [np.array([1.0, -2.0]), np.array([[3.0]])]
    s, d = [np.zeros_like(x) for x in params], [np.zeros_like(x) for x in params]
    for _ in range(steps):
        (p, q), grads = params, []
        grads.append(scale * (2 * p + np.array([q[0, 0], 0])))
        grads.append(scale * (4 * q + p[0]))
        for k, g in enumerate(grads):
            norm = np.sqrt((g ** 2).sum())
            if max_norm and norm > max_norm:
                g = g * max_norm / norm
            if method == "sgd":
                params[k] = params[k] - lr * g
            elif method == "adagrad":
                s[k] = s[k] + g ** 2
                params[k] = params[k] - lr * g / np.sqrt(s[k] + eps)
            else:
                s[k] = rho * s[k] + (1 - rho) * g ** 2
                u = g * np.sqrt((d[k] + eps) / (s[k] + eps))
                d[k] = rho * d[k] + (1 - rho) * u ** 2
                params[k] = params[k] - u
    return params


@pytest.mark.parametrize("method", ["sgd", "adagrad", "adadelta"])
@pytest.mark.parametrize("options", [{}, {"max_norm": None}, {"max_norm": False},
                                     {"max_norm": 0.5, "lr": 0.1, "eps": 1e-3, "rho": 0.8}])
def test_updates_compute_their_formulas(method, options):
    p, q, _ = descend(method, **options)
    expected = reference(method, **options)
    np.testing.assert_allclose(p, expected[0], rtol=1e-12)
    np.testing.assert_allclose(q, expected[1], rtol=1e-12)


def test_gradients_may_be_given():
    p = shared(np.array([1.0, 2.0]))
    new, *_ = create_optimization_updates(None, [p], method="sgd", lr=1.0, gradients=[-p])
    function([], updates=new)()
    np.testing.assert_array_equal(p.get_value(), [2.0, 4.0])


def test_adadelta_is_the_one_of_updates():
    p, q, _ = descend("adadelta", max_norm=None, steps=1)
    same = shared(np.array([1.0, -2.0]), "p")
    function([], updates=updates.adadelta((same ** 2).sum() + 3 * same[0], [same]))()
    np.testing.assert_allclose(p, same.get_value(), rtol=1e-9)


def test_what_the_updates_return():
    _, _, (gsums, xsums, lr, max_norm) = descend("adadelta")
    assert len(gsums) == len(xsums) == 2 and float(lr.get_value()) == 0.95
    assert float(max_norm.get_value()) == 5 and (gsums[0].get_value() > 0).all()
    _, _, (gsums, xsums, lr, max_norm) = descend("adagrad", max_norm=None)
    assert xsums == [None, None] and float(lr.get_value()) == 0.01 and max_norm is None
    _, _, (gsums, xsums, _, _) = descend("sgd")
    assert gsums == xsums == [None, None]
    given = {shared(0.0): T.constant(1.0)}
    p = shared(1.0)
    assert create_optimization_updates(p ** 2, [p], given, method="sgd")[0] is given
    assert len(given) == 2
    with pytest.raises(ValueError, match="method is 'adam'"):
        create_optimization_updates(p ** 2, [p], method="adam")


@pytest.mark.parametrize("method", ["sgd", "adagrad", "adadelta"])
def test_a_gradient_of_nothing_changes_nothing(method):
    p, q, _ = descend(method, scale=0.0)
    np.testing.assert_array_equal(p, [1.0, -2.0])
    np.testing.assert_array_equal(q, [[3.0]])


def test_the_learning_rate_may_be_changed():
    p = shared(1.0)
    new, _, _, lr, _ = create_optimization_updates(p ** 2, [p], method="sgd", lr=0.25)
    f = function([], updates=new)
    f()
    assert p.get_value() == 0.5
    lr.set_value(0.0)
    f()
    assert p.get_value() == 0.5


def test_updates_keep_the_type_of_a_parameter():
    with config.change(floatX="float32"):
        p = shared(np.ones(3, "float32"))
        for method in ("sgd", "adagrad", "adadelta"):
            cost = (p * T.constant(np.ones(3))).sum()  # float64
            new, *_ = create_optimization_updates(cost, [p], method=method)
            function([], updates=new)()
            assert p.get_value().dtype == np.float32
