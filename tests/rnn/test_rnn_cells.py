"""The cells of a step, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from rnn_reference import sigmoid

import tinygraph.tensor as T
from tinygraph import config, function, grad, scan, shared
from tinygraph_rnn import cells, random
from tinygraph_rnn.cells import (
    GRU,
    LSTM,
    RNN,
    Embedding,
    GatedInput,
    Layer,
    StackedCells,
    carry_over_padding,
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


def test_what_the_layer_above_reads():
    state = T.matrix("state")
    data = RNG.standard_normal((3, 10))
    for layer, expected in ((LSTM(4, 5, T.tanh), data[:, 5:]), (RNN(4, 10, T.tanh), data)):
        for more in ((), (None, None)):
            seen = layer.postprocess_activation(state, *more)
            np.testing.assert_array_equal(function([state], seen)(data), expected)


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


def test_dropout_leaves_integers_alone():
    model = StackedCells(3, RNN, [], T.tanh)
    model.layers += [Embedding(6, 3), RNN(3, 4, T.tanh)]
    words, numbers = T.ivector(), np.array([5, 0, 2], "int32")
    plain = function([words], model.forward(words))(numbers)
    drawn = function([words], model.forward(words, None, 0.5))(numbers)
    np.testing.assert_array_equal(drawn[0], plain[0])
    assert not np.array_equal(drawn[1], plain[1])
    below = function([words], model.forward(words, None, [None, 1.0]))(numbers)
    np.testing.assert_array_equal(below[1], plain[1])
    with pytest.raises(TypeError, match="layer 0, Embedding, reads the integers"):
        model.forward(words, None, cells.MultiDropout([3, 3], 0.5))


# --- padding


def test_carry_over_padding():
    m, v, s = T.vector("m"), T.ivector("v"), T.iscalar("s")
    new, old, start = T.matrix("new"), T.matrix("old"), T.vector("start")
    a, b = RNG.standard_normal((2, 3, 4))
    kept = np.array([1, 0, 1])
    expected = np.where(kept[:, None], a, b)
    f = function([m, new, old], carry_over_padding(m, new, old))
    np.testing.assert_array_equal(f(kept, a, b), expected)
    for flags, values in ((v, kept), (T.eq(v, 1), kept), (-v, kept), (0.5 * v, kept)):
        outs = carry_over_padding(flags, [new, 2 * new], [old, start])
        both = function([v, new, old, start], outs)(values.astype("int32"), a, b, b[0])
        np.testing.assert_array_equal(both[0], expected)
        np.testing.assert_array_equal(both[1], np.where(kept[:, None], 2 * a, b[0]))
    g = function([s, start], carry_over_padding(s, start + 1, start))
    np.testing.assert_array_equal(g(0, a[0]), a[0])
    np.testing.assert_array_equal(g(1, a[0]), a[0] + 1)
    with pytest.raises(TypeError, match=r"the mask new .* one axis less than the state old"):
        carry_over_padding(new, old, old)
    with pytest.raises(TypeError, match="less than the state start .*: a scalar"):
        carry_over_padding(m, start, start)
    with pytest.raises(ValueError, match="2 new states are given, but 1 old ones"):
        carry_over_padding(m, [new, new], [old])


@CELLS
@pytest.mark.parametrize("backend", ["numpy", "llvm"])
def test_padding_leaves_states_alone(cell, backend):
    """A padded batch has the states, and the gradients, of its sequences read one by one."""
    model = model_of(cell)
    model.layers.append(Layer(3, 2, T.tanh))
    lengths, pad = (2, 5, 1), 5
    data = RNG.standard_normal((pad, 3, 4))
    kept = np.arange(pad)[:, None] < np.array(lengths)
    x, mask, one = T.tensor3("x"), T.matrix("mask"), T.matrix("one")
    outs, _ = scan(lambda x_t, m_t, *states: model.forward(x_t, states, mask=m_t),
                   sequences=[x, mask], outputs_info=[*model.initial_states(x.shape[1]), None])
    alone, _ = scan(lambda x_t, *states: model.forward(x_t, states), sequences=one,
                    outputs_info=[*model.initial_states(), None])
    starts = model.initial_states()
    wrt = [*model.params, *starts]

    def last(states):
        return sum((s[-1] ** 2).sum() for s in states)

    f = function([x, mask], [*outs, *grad(last(outs), [*wrt, x])], backend=backend)
    g = function([one], [*alone, *grad(last(alone), wrt)], backend=backend)
    whole = f(np.where(kept[:, :, None], data, 1e3), kept)
    sums = [np.zeros(p.get_value().shape) for p in wrt]
    for i, n in enumerate(lengths):
        found = g(data[:n, i])
        for k in range(3):
            np.testing.assert_allclose(whole[k][:n, i], found[k], rtol=1e-9)
            # Over padding the last state stays, and what is computed from it.
            np.testing.assert_allclose(whole[k][n:, i] - found[k][-1], 0, atol=1e-12)
        for total, term in zip(sums, found[3:], strict=True):
            total += term
    for total, term in zip(sums, whole[3:-1], strict=True):
        np.testing.assert_allclose(term, total, rtol=1e-8, atol=1e-10)
    assert np.all(whole[-1][~kept] == 0)


def test_a_mask_for_one_sample_and_a_gate():
    model = StackedCells(4, RNN, [], T.tanh)
    model.layers += [GatedInput(4, 2, T.tanh), LSTM(4, 3, T.tanh)]
    x, h, m = T.vector("x"), T.vector("h"), T.scalar("m")
    lstm_start = model.layers[1].initial_hidden_state
    gate, state = model.forward(x, [h, lstm_start], mask=m)
    f = function([x, h, m], [gate, state], on_unused_input="ignore")
    data = RNG.standard_normal(4), RNG.standard_normal(2)
    # A gate keeps no state: it is computed at every step.
    assert f(*data, 0)[0] == f(*data, 1)[0]
    np.testing.assert_array_equal(f(*data, 0)[1], lstm_start.get_value())
    plain = function([x, h], model.forward(x, [h, lstm_start]))(*data)
    np.testing.assert_array_equal(f(*data, 1)[1], plain[1])


# --- clipping


@CELLS
def test_a_bound_holds_for_all_gates_together(cell):
    layer = cell(4, 3, T.tanh, 0.01)
    for p in layer.params:
        p.set_value(RNG.standard_normal(p.get_value().shape))
    x, h = T.matrix("x"), T.matrix("h")
    cost = 1e3 * layer.activate(x, h).sum()
    data = RNG.standard_normal((5, 4)), RNG.standard_normal((5, layer.state_size))
    slope = abs(function([x, h], grad(cost, x))(*data))
    np.testing.assert_allclose(slope, 0.01)
