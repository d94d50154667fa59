"""The programs in the README of theano_lstm run and learn."""

from __future__ import annotations

import numpy as np
import pytest
import theano_lstm_programs as programs

from tinygraph_rnn import random
from tinygraph_rnn.tasks import Pendulum

# A batch axis is added to T.alloc(0.0, 4): what is put into its entries has one.
PENDULUM = """
def dynamics(x, u):
    dydx = T.alloc(0.0, 4, x.shape[1])
    dydx = T.set_subtensor(dydx[0], x[1])

    del_ = x[2]-x[0]
    den1 = (M1+M2)*L1 - M2*L1*T.cos(del_)*T.cos(del_)
    dydx = T.set_subtensor(dydx[1],
        ( M2*L1      *  x[1] * x[1] * T.sin(del_) * T.cos(del_)
        + M2*G       *  T.sin(x[2]) * T.cos(del_) +
          M2*L2      *  x[3] * x[3] * T.sin(del_)
        - (M1+M2)*G  *  T.sin(x[0]))/den1 )

    dydx = T.set_subtensor(dydx[2], x[3])

    den2 = (L2/L1)*den1
    dydx = T.set_subtensor(dydx[3], (-M2*L2  *   x[3]*x[3]*T.sin(del_) * T.cos(del_)
        + (M1+M2)*G   *   T.sin(x[0])*T.cos(del_)
        - (M1+M2)*L1  *   x[1]*x[1]*T.sin(del_)
        - (M1+M2)*G   *   T.sin(x[2]))/den2 + u )
    return x + dydx * dt
"""

MASKED = """
predictions, updates = theano.scan(prediction_step, sequences=inputs)
error = masked_loss(
    predictions,
    padded_labels,
    codelengths,
    label_starts).mean()
"""

DROPOUT = """
dropout = theano.shared(np.float64(0.3).astype(theano.config.floatX))

model = theano_lstm.StackedCells(50, layers=[100], celltype=theano_lstm.LSTM, activation=T.tanh)
"""

# ``self.dropout``, the attribute of a class that is not shown, is ``dropout``.
MASKS = """
if dropout.get_value() > 0:
    if deterministic:
        # just multiply by the likelihood of being kept:
        masks = [np.float32(1.) - dropout for i in range(2)]
    else:
        shapes = [50, 100]
        masks = theano_lstm.MultiDropout( [(x.shape[0], shape) for shape in shapes] if x.ndim > 1 else shapes,
                                          dropout)
else:
    masks = []
"""  # noqa: E501

# ``forward`` returns one state for each layer, and there is one: new_state[1] is new_state[0].
DROPOUT_STEP = """
def step(obs, hidden_state, *masks):
    new_state = model.forward(obs, [hidden_state], list(masks))
    return new_state[0]

result, _ = theano.scan(step,
                        sequences = seq,
                        non_sequences = masks,
                        outputs_info = [dict(initial=start, taps=[-1])]
                       )
"""


@pytest.fixture(autouse=True)
def seeded():
    random.set_rng(5)
    yield
    random.set_rng(None)


def test_usage():
    names = programs.usage(programs.ANY_DYNAMICS)
    assert names["costs"][-1] < 0.97 * names["costs"][0]
    assert names["predict_fun"](np.zeros(4), 7).shape == (7, 4)
    assert names["update_fun"].compiles == 1


def test_minibatch_usage_with_the_pendulum():
    constants = {"M1": 1.0, "M2": 0.7, "L1": 1.0, "L2": 1.3, "G": 9.8, "dt": 0.01}
    names = programs.batch_usage(PENDULUM, **constants)
    assert names["costs"][-1] < names["costs"][0]
    assert names["update_fun"].compiles == 1
    start = np.random.default_rng(0).standard_normal((5, 4))
    path = names["predict_fun"](start, 7)
    # Only the softmax over the batch tells what the motor does; the other rates are the model's.
    model = Pendulum(1.0, 0.7, 1.0, 1.3, 9.8, 0.01)
    np.testing.assert_allclose(path[0, :, :3], model.step(start)[:, :3], rtol=1e-4, atol=1e-6)
    motor = (path[0, :, 3] - model.step(start)[:, 3]) / 0.01
    assert motor.sum() == pytest.approx(1, abs=1e-3) and np.all(motor > 0)


@pytest.mark.parametrize("shift", [0, 1])
def test_masked_loss(shift):
    """Three outputs each, of which one or two have labels."""
    namespace = programs.run(programs.IMPORTS)
    T = namespace["T"]
    inputs = T.tensor4("inputs") if shift else T.tensor3("inputs")

    def prediction_step(x):
        if shift:
            x = x[0]
        return T.nnet.softmax(x)

    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4)).astype("float32")
    labels = np.array([[0, 0, 2], [0, 1, 3]], "int32")
    names = programs.run(
        programs.IMPORTS, MASKED, inputs=inputs, prediction_step=prediction_step,
        padded_labels=labels, codelengths=np.array([1, 2], "int32"),
        label_starts=np.array([2, 1], "int32"))
    p = np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)
    expected = -(np.log(p[0, 2, 2]) + np.log(p[1, 1, 1]) + np.log(p[1, 2, 3])) / 2
    f = names["theano"].function([inputs], names["error"])
    assert float(f(x[:, None] if shift else x)) == pytest.approx(expected, rel=1e-5)


def masked_network(deterministic: bool, probability: float = 0.3, batch: bool = False):
    """The function of the dropout blocks, and the shared probability."""
    names = programs.run(programs.IMPORTS, DROPOUT, deterministic=deterministic)
    T = names["T"]
    names["dropout"].set_value(np.float32(probability))
    seq = T.tensor3() if batch else T.matrix()
    layer = names["model"].layers[0]
    start = layer.initial_hidden_state
    if batch:  # a state for each example
        (start,) = names["model"].initial_states(seq.shape[1])
    names.update(x=seq[0], seq=seq, start=start)
    names = programs.run(MASKS, DROPOUT_STEP, **names)
    return names["theano"].function([seq], names["result"]), names["dropout"], names["masks"]


@pytest.mark.parametrize("batch", [False, True])
def test_dropout_draws_new_masks_at_each_call(batch):
    f, dropout, masks = masked_network(False, batch=batch)
    assert len(masks) == 2
    seq = np.ones((6, 2, 50) if batch else (6, 50), "float32")
    first, second = f(seq), f(seq)
    assert first.shape == seq.shape[:-1] + (200,) and abs(first - second).max() > 1e-4
    dropout.set_value(np.float32(0.0))  # without another compilation
    np.testing.assert_array_equal(f(seq), f(seq))
    assert f.compiles == 1


def test_dropout_of_nothing():
    seq = np.random.default_rng(0).standard_normal((6, 50)).astype("float32")
    f, _, masks = masked_network(False, 0.0)
    assert masks == []
    random.set_rng(5)  # the same weights
    g, dropout, masks = masked_network(True)
    assert len(masks) == 2
    assert abs(f(seq) - g(seq)).max() > 1e-4
    dropout.set_value(np.float32(0.0))
    np.testing.assert_allclose(f(seq), g(seq), rtol=1e-5, atol=1e-6)
