"""The programs in the description of theano_lstm 0.0.4 run and learn."""

from __future__ import annotations

import numpy as np
import pytest
import theano_lstm_programs as programs

from tinygraph_rnn import random


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
    assert len(names["gsums"]) == len(names["xsums"]) == len(names["model"].params) == 18
    assert names["max_norm"].get_value() == 5
    assert float(names["lr"].get_value()) == pytest.approx(0.95)


def test_minibatch_usage():
    names = programs.batch_usage(programs.ANY_BATCH_DYNAMICS)
    assert names["costs"][-1] < names["costs"][0]
    assert names["predict_fun"](np.zeros((5, 4)), 7).shape == (7, 5, 4)
    assert names["update_fun"].compiles == 1
