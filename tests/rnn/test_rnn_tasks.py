"""Data of the add task, of the grammar tasks and of the pendulum."""

from __future__ import annotations

import doctest
import itertools

import numpy as np
import pytest

from tinygraph import config
from tinygraph_rnn import random
from tinygraph_rnn.tasks import (
    EMBEDDED_REBER,
    REBER,
    Pendulum,
    add_batch,
    gen_data,
    padded_batch,
    pendulum_batch,
    reber,
)


def test_add_task():
    x, y, mask = add_batch(400, 20, 30, rng=1)
    assert x.shape == (400, 30, 2) and y.shape == (400,) and mask.shape == (400, 30)
    lengths = mask.sum(1)
    assert lengths.min() == 20 and lengths.max() == 30
    np.testing.assert_array_equal(mask, np.arange(30) < lengths[:, None])
    np.testing.assert_allclose(x.mean(axis=(0, 1)), 0, atol=1e-12)
    # Undo the centring: markers are 0 and 1, padding is 0, and y is the sum of the marked.
    numbers, marks = x[:, :, 0] - x[:, :, 0].min(), np.round(x[:, :, 1] - x[:, :, 1].min())
    assert set(np.unique(marks)) == {0, 1} and np.all(marks.sum(1) == 2)
    assert np.all(numbers * (1 - mask) == 0) and numbers.max() < 1
    total = (numbers * marks).sum(1)
    np.testing.assert_allclose(y, total - total.mean(), atol=1e-12)
    first, second = np.argmax(marks, 1), 29 - np.argmax(marks[:, ::-1], 1)
    assert np.all(first < np.floor(lengths / 10)) and first.max() > 0
    assert np.all(second >= lengths / 2) and np.all(second < lengths)
    assert abs(y.var() - 1 / 6) < 0.02


def test_add_task_is_repeatable_and_of_float_x():
    assert gen_data is add_batch
    for a, b in zip(add_batch(rng=3), add_batch(rng=3), strict=True):
        np.testing.assert_array_equal(a, b)
    with config.change(floatX="float32"):
        assert {a.dtype for a in add_batch(5)} == {np.dtype("float32")}
    assert add_batch(3, 2, 2)[0].shape == (3, 2, 2)
    with pytest.raises(ValueError, match="min_length is 5"):
        add_batch(3, 5, 4)


@pytest.mark.parametrize("word", ["BTXSE", "BPVVE", "BTSSXXTTVVE", "BPTVPXVPSE"])
def test_words_of_the_grammar(word):
    assert word in REBER and reber.in_grammar(word)
    assert "BT" + word + "TE" in EMBEDDED_REBER and reber.in_embedded_grammar("BP" + word + "PE")
    assert word not in EMBEDDED_REBER


@pytest.mark.parametrize("word", ["", "B", "BTXS", "BTXSEE", "BSXXXTTVPSE", "BTXSXXTTVVE", "btxse",
                                  "BT?SE"])
def test_others(word):
    assert word not in REBER


def test_embedding_symbols_must_be_equal():
    assert "BTBTXSEPE" not in EMBEDDED_REBER and "BTBTXXETE" not in EMBEDDED_REBER


@pytest.mark.parametrize("grammar", [REBER, EMBEDDED_REBER])
def test_generated_words_are_in_the_grammar(grammar):
    rng = np.random.default_rng(0)
    words = [grammar.word(rng=rng) for _ in range(300)]
    assert all(word in grammar for word in words) and len(set(words)) > 30
    assert min(map(len, words)) == (5 if grammar is REBER else 9)
    assert all(len(grammar.word(20, rng)) >= 20 for _ in range(20))


def test_both_next_symbols_are_as_likely():
    rng = np.random.default_rng(0)
    second = [REBER.word(rng=rng)[1] for _ in range(1000)]
    assert 0.45 < np.mean([s == "T" for s in second]) < 0.55


def test_seeds():
    assert REBER.word(rng=3) == REBER.word(rng=3)
    random.set_rng(8)
    first = [REBER.word() for _ in range(5)]
    random.set_rng(8)
    assert [REBER.word() for _ in range(5)] == first


@pytest.mark.parametrize("grammar", [REBER, EMBEDDED_REBER])
def test_allowed_symbols_are_those_that_lead_to_words(grammar):
    """Every word of up to 11 symbols, found by trying all that is allowed."""
    limit, words, open_ = 11, set(), ["B"]
    while open_:
        prefix = open_.pop()
        after = grammar.allowed(prefix)[-1]
        if not after.any():
            words.add(prefix)
        elif len(prefix) < limit:
            open_ += [prefix + reber.SYMBOLS[k] for k in np.flatnonzero(after)]
    assert len(words) > 3 and all(word in grammar for word in words)
    if grammar is REBER:
        brute = {"".join(w) for n in (5, 6) for w in itertools.product("BTSXPVE", repeat=n)
                 if "".join(w) in REBER}
        assert brute == {word for word in words if len(word) in (5, 6)}


def test_examples():
    x, allowed = REBER.example(rng=0)
    word = reber.as_word(x)
    assert word + "E" in REBER and allowed.shape == x.shape
    np.testing.assert_array_equal(x.sum(axis=1), 1)
    np.testing.assert_array_equal(allowed[-1], reber.one_hot("E")[0])
    np.testing.assert_array_equal((allowed[:-1] * x[1:]).sum(axis=1), 1)
    np.testing.assert_array_equal(REBER.allowed("BTXSE")[0], [0, 1, 0, 0, 1, 0, 0])
    assert not REBER.allowed("BTXSE")[-1].any()
    x, allowed = EMBEDDED_REBER.example(rng=0)
    np.testing.assert_array_equal(allowed[-2], x[1])
    with config.change(floatX="float32"):
        assert {a.dtype for a in REBER.example()} == {np.dtype("float32")}
    with pytest.raises(ValueError, match="'X', symbol 1 of 'BXE', cannot come there"):
        REBER.allowed("BXE")


def test_names_of_course_notes():
    data = reber.get_n_examples(20)
    assert len(data) == 20 and all(len(x) >= 9 for x, _ in data)
    assert all(reber.sequenceToWord(x) + "E" in EMBEDDED_REBER
               for x, _ in reber.get_n_embedded_examples(20, 12))
    assert reber.get_one_example(5)[0].shape[1] == reber.get_one_embedded_example()[1].shape[1] == 7


def test_padded_batch():
    inputs, labels, lengths = padded_batch(["BTXSE", "BTSXSE"])
    assert inputs.shape == (2, 5, 7) and labels.shape == (2, 5)
    assert labels.dtype == lengths.dtype == np.int32
    np.testing.assert_array_equal(lengths, [4, 5])
    assert reber.as_word(inputs[1]) == "BTSXS" and not inputs[0, 4].any()
    assert "".join(reber.SYMBOLS[k] for k in labels[0, :4]) == "TXSE" and labels[0, 4] == 0


def test_reber_doctest():
    result = doctest.testmod(reber)
    assert result.attempted and not result.failed


def energy(p, x):
    a1, w1, a2, w2 = np.moveaxis(x, -1, 0)
    kinetic = (0.5 * (p.mass_1 + p.mass_2) * (p.length_1 * w1) ** 2
               + 0.5 * p.mass_2 * (p.length_2 * w2) ** 2
               + p.mass_2 * p.length_1 * p.length_2 * w1 * w2 * np.cos(a1 - a2))
    height = ((p.mass_1 + p.mass_2) * p.length_1 * np.cos(a1)
              + p.mass_2 * p.length_2 * np.cos(a2))
    return kinetic - p.gravity * height


def test_a_pendulum_left_alone_keeps_its_energy():
    p = Pendulum(1.0, 0.7, 1.0, 1.3, 9.8, 1e-5)
    x = np.random.default_rng(0).uniform(-1, 1, (5, 4))
    before = energy(p, x)
    for _ in range(1000):
        x = p.step(x)
    np.testing.assert_allclose(energy(p, x), before, rtol=1e-4)


def test_pendulum_batch():
    start, path = pendulum_batch(6, 30, rng=2)
    assert start.shape == (6, 4) and path.shape == (30, 6, 4)
    assert not start[:, 1::2].any() and abs(start).max() <= 0.5
    p = Pendulum()
    x = path[4]
    np.testing.assert_allclose(path[5], p.step(x, -6 * x[:, 2] - 3 * x[:, 3]))
    again = pendulum_batch(6, 30, rng=2)
    np.testing.assert_array_equal(again[1], path)
