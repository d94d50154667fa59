"""Minibatches of sequences, progress bars, learning curves, and the best parameters."""

from __future__ import annotations

import builtins
import io
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygraph import config
from tinygraph_rnn import layers
from tinygraph_rnn.training import (
    Curves,
    KeepBest,
    batch_order,
    batches,
    pad,
    padding_share,
    progress,
)


def ramps(lengths, features=2):
    """Sequences without a zero, each unlike every other."""
    return [1.0 + i + np.arange(n * features).reshape(n, features) / 1000
            for i, n in enumerate(lengths)]


# --- pad -----------------------------------------------------------------------------------------


def test_pad():
    x, mask = pad([[1.0], [2.0, 3.0, 4.0], []])
    assert x.tolist() == [[1, 0, 0], [2, 3, 4], [0, 0, 0]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert x.dtype == mask.dtype == np.dtype(config.floatX)


def test_pad_to_a_length_with_a_value():
    x, mask = pad([np.ones((2, 3)), np.ones((1, 3))], length=4, value=-1)
    assert x.shape == (2, 4, 3) and mask.shape == (2, 4)
    assert np.all(x[mask == 1] == 1) and np.all(x[mask == 0] == -1)


@pytest.mark.parametrize("items, dtype, expected", [
    ([[1, 2], [3]], None, "int64"),
    ([np.array([1, 2], "int8"), np.array([3], "int32")], None, "int32"),
    ([[1, 2], []], None, "int64"),
    ([[True], [False, True]], None, "bool"),
    ([[1, 2], [0.5]], None, "float32"),
    ([np.ones(3), np.ones(2)], None, "float32"),
    ([[1, 2], [3]], "float32", "float32"),
])
def test_dtype_of_pad(items, dtype, expected):
    with config.change(floatX="float32"):
        x, mask = pad(items, dtype=dtype)
    assert x.dtype == expected and mask.dtype == "float32"


@pytest.mark.parametrize("items, kind, message", [
    ([], {}, "there are no sequences"),
    ([[1.0], 2.0], {}, r"sequence 1 is array\(2.\), which has no axis of time"),
    ([np.ones((2, 3)), np.ones((2, 4))], {}, r"sequence 1 has shape \(2, 4\) and sequence 0 "
                                             r"\(2, 3\); they may differ in the first axis"),
    ([[1.0], [1.0, 2.0]], {"length": 1}, "sequence 1 has 2 steps, which do not fit in length=1"),
])
def test_pad_refuses(items, kind, message):
    with pytest.raises(ValueError, match=message):
        pad(items, **kind)


# --- the order of batches ------------------------------------------------------------------------

lengths_of = st.lists(st.integers(0, 12), max_size=40)
batchings = st.fixed_dictionaries({
    "size": st.integers(1, 9), "bucket": st.integers(0, 4), "drop_last": st.booleans(),
    "rng": st.none() | st.integers(0, 99)})


@settings(max_examples=150, deadline=None)
@given(lengths_of, batchings)
def test_every_sequence_is_in_one_batch(lengths, kind):
    order = batch_order(lengths, **kind)
    taken = np.concatenate([*order, np.zeros(0, int)])
    assert len(set(taken.tolist())) == len(taken)
    n, size = len(lengths), kind["size"]
    if kind["drop_last"]:
        assert all(len(rows) == size for rows in order) and len(order) == n // size
    else:
        assert sorted(taken) == list(range(n))
        assert sum(len(rows) != size for rows in order) == (n % size > 0)
    if kind["rng"] is None and kind["bucket"] <= 1:
        assert taken.tolist() == list(range(len(taken)))


@settings(max_examples=60, deadline=None)
@given(lengths_of, st.integers(1, 5), st.integers(0, 99))
def test_a_bucket_of_everything_leaves_no_batch_within_the_lengths_of_another(lengths, size, seed):
    order = batch_order(lengths, size, seed, bucket=len(lengths) + 2)
    spans = sorted((min(lengths[i] for i in rows), max(lengths[i] for i in rows))
                   for rows in order)
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))


def test_batches_of_a_bucket_come_in_random_order():
    lengths = list(range(100))
    longest = [int(rows.max()) for rows in batch_order(lengths, 5, 0, bucket=20)]
    assert longest != sorted(longest) and sorted(longest) == list(range(4, 100, 5))
    assert [int(rows.max()) for rows in batch_order(lengths, 5, bucket=20)] == sorted(longest)


def test_what_drop_last_leaves_out_is_random():
    lengths = list(range(21))
    left = {20 * 21 // 2 - int(np.concatenate(batch_order(lengths, 4, seed, 9, True)).sum())
            for seed in range(60)}
    assert len(left) > 10  # the number of the sequence left out is the sum that lacks


def test_generators():
    expected = [rows.tolist() for rows in batch_order([1] * 9, 2, np.random.default_rng(3))]
    assert [rows.tolist() for rows in batch_order([1] * 9, 2, 3)] == expected
    assert len(batch_order([1] * 9, 2, np.random.RandomState(0))) == 5
    for wrong in (True, "shuffle"):
        with pytest.raises(TypeError, match=f"rng is {wrong!r}; to shuffle give"):
            batch_order([1], 2, wrong)


@pytest.mark.parametrize("kind, message", [
    ({"size": 0}, "size is 0; a batch needs"),
    ({"size": 2, "bucket": -1}, "bucket is -1; it must be"),
])
def test_batchings_refused(kind, message):
    with pytest.raises(ValueError, match=message):
        batch_order([1, 2], **kind)
    with pytest.raises(ValueError, match=message):
        batches([[1.0]], **kind)


def test_padding_share():
    assert padding_share([1, 3, 1, 3], 2) == pytest.approx(4 / 12)
    assert padding_share([1, 3, 1, 3], 2, bucket=2) == 0
    assert padding_share([2, 2, 1], 2, drop_last=True) == 0
    assert padding_share([], 2) == padding_share([0, 0], 2) == 0


def test_a_bucket_saves_padding():
    lengths = np.random.default_rng(0).integers(10, 100, size=400)
    shares = [padding_share(lengths, 20, 0, bucket) for bucket in (0, 4, 20)]
    assert shares[0] > 0.35 and shares[1] < 0.5 * shares[0] and shares[2] < 0.1 * shares[0]


# --- batches -------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), batchings)
def test_a_batch_holds_its_sequences_and_nothing_else(lengths, kind):
    sequences = ramps(lengths)
    steps = [10 * i + np.arange(n) for i, n in enumerate(lengths)]
    rows = np.arange(len(lengths))
    data = batches(sequences, steps, rows, size=kind.pop("size"), **kind)
    found = list(data)
    assert len(found) == len(data)
    for x, mask, y, which in found:
        assert x.shape == (len(which), max(lengths[i] for i in which), 2)
        assert mask.shape == y.shape == x.shape[:2] and y.dtype == steps[0].dtype
        for k, i in enumerate(which):
            n = lengths[i]
            assert mask[k].tolist() == [1] * n + [0] * (mask.shape[1] - n)
            np.testing.assert_array_equal(x[k, :n], sequences[i])
            np.testing.assert_array_equal(y[k, :n], steps[i])
            assert not x[k, n:].any() and not y[k, n:].any()
    if not kind["drop_last"]:
        assert sorted(np.concatenate([b[3] for b in found])) == rows.tolist()


def test_targets_per_sequence_are_rows():
    target = np.arange(8.0).reshape(4, 2)
    found = list(batches(ramps([1, 3, 2, 3]), target, [1, 2, 3, 4], size=3))
    np.testing.assert_array_equal(found[0][2], target[:3])
    np.testing.assert_array_equal(found[1][3], [4])
    with config.change(floatX="float32"):
        (_, _, a, b), = batches(ramps([1, 3, 2, 3]), target, [1, 2, 3, 4], size=4)
    assert a.dtype == "float32" and b.dtype == "int64"


def test_equal_lengths_need_no_padding():
    x = np.random.default_rng(0).random((5, 4, 2))
    y = np.random.default_rng(1).random((5, 4))
    (a, mask, b), (c, _, d) = batches(x, y, size=3)
    np.testing.assert_array_equal(np.concatenate([a, c]), x)
    np.testing.assert_array_equal(np.concatenate([b, d]), y)
    assert mask.all()


def test_a_length_holds_for_all_batches_and_targets_per_step():
    for x, mask, y in batches(ramps([1, 3]), [[1], [1, 1, 1]], size=1, length=5, value=9):
        assert x.shape == (1, 5, 2) and mask.shape == y.shape == (1, 5)
        assert np.all(x[mask == 0] == 9) and np.all(y == mask)


@pytest.mark.parametrize("target, message", [
    ([1, 2], "target 1 has 2 items for 3 sequences"),
    ([[1], [1, 2], [1, 2]], r"target 1 of sequence 2 has shape \(2,\), but the sequence has 3 "
                            "steps; a target per step must be as long as its sequence"),
    ([[1.0], [[1.0], [1.0]], [1.0, 1.0, 1.0]], r"target 1 of sequence 1 has shape \(2, 1\) and "
                                               r"target 1 of sequence 0 \(1,\)"),
])
def test_targets_refused(target, message):
    with pytest.raises(ValueError, match=message):
        batches(ramps([1, 2, 3]), [0, 0, 0], target, size=2)


def test_sequences_refused():
    with pytest.raises(ValueError, match="there are no sequences"):
        batches([], size=2)
    with pytest.raises(ValueError, match="sequence 1 is array.2., which has no axis of time"):
        batches([[1], 2], size=2)


def test_epochs_differ_and_go_on_from_a_kept_state():
    rng = np.random.default_rng(5)
    data = batches(ramps([2] * 20), np.arange(20), size=4, rng=rng, bucket=2)

    def epoch(data):
        return np.concatenate([y for _, _, y in data]).tolist()

    first, kept = epoch(data), json.dumps(rng.bit_generator.state)
    second = epoch(data)
    assert first != second
    again = np.random.default_rng(0)
    again.bit_generator.state = json.loads(kept)
    assert epoch(batches(ramps([2] * 20), np.arange(20), size=4, rng=again, bucket=2)) == second


def test_an_epoch_draws_all_at_its_beginning():
    rng = np.random.default_rng(5)
    epoch = iter(batches(ramps([2] * 20), size=4, rng=rng))
    before = rng.bit_generator.state
    list(epoch)
    assert rng.bit_generator.state == before


# --- progress ------------------------------------------------------------------------------------


@pytest.fixture(params=["tqdm", "plain"])
def bar_of(request, monkeypatch):
    if request.param == "tqdm":
        pytest.importorskip("tqdm")
    else:
        without(monkeypatch, "tqdm")


def without(monkeypatch, module):
    """As if ``module`` were not installed."""
    found = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == module:
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_progress(bar_of, capsys):
    bar = progress(range(7), desc="train", unit="word", window=3)
    seen = []
    for k in bar:
        seen.append(k)
        bar.show(cost=np.array(float(k)), right=1)
    assert seen == list(range(7)) and bar.mean("cost") == 5
    last = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert last.startswith("train:") and "7/7" in last and "word" in last
    assert "cost=5, right=1" in last


def test_progress_of_what_has_no_length(bar_of, capsys):
    assert list(progress(iter("abc"))) == ["a", "b", "c"]
    assert "3" in capsys.readouterr().err
    assert list(progress(iter("abc"), total=3)) == ["a", "b", "c"]
    assert "3/3" in capsys.readouterr().err


def test_progress_that_is_left(bar_of, capsys):
    bar = progress(range(7))
    for k in bar:
        bar.show(cost=k)
        if k == 2:
            break
    assert "2/7" in capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]


def test_a_plain_bar_writes_over_its_line_on_a_terminal(monkeypatch):
    without(monkeypatch, "tqdm")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    list(progress("abc"))
    assert terminal.getvalue() == "\r1/3 batch\r3/3 batch\n"


def test_values_of_progress_refused(bar_of):
    bar = progress(range(2))
    with pytest.raises(ValueError, match=r"cost has shape \(2,\); one number is needed"):
        bar.show(cost=np.ones(2))
    bar.show(cost=1)
    with pytest.raises(KeyError, match="no value named 'loss' was shown; there are .'cost'."):
        bar.mean("loss")
    list(bar)


# --- curves --------------------------------------------------------------------------------------


def curves():
    out = Curves()
    out.add(1, train=0.5)
    out.add(2, train=np.float32(0.25), valid=np.array(1 / 3))
    out.add(np.int64(3), train=float("nan"), valid=float("inf"))
    return out


def test_curves():
    c = curves()
    assert c.epochs == [1, 2, 3] and c.names == ["train", "valid"] and len(c) == 3
    np.testing.assert_array_equal(c["train"], [0.5, 0.25, np.nan])
    np.testing.assert_array_equal(c["valid"], [np.nan, 1 / 3, np.inf])


def test_the_table_of_curves():
    assert curves().table().splitlines() == [
        "epoch  train     valid",
        "    1    0.5",
        "    2   0.25  0.333333",
        "    3    nan       inf"]
    assert curves().table(last=1).splitlines() == ["epoch  train  valid", "    3    nan    inf"]
    assert Curves().table() == "epoch"


def test_curves_go_through_json():
    text = json.dumps(curves().state(), allow_nan=False)
    again = Curves()
    again.add(7, other=1)
    again.set_state(json.loads(text))
    assert again.table() == curves().table() and again["valid"][1] == 1 / 3
    again.add(4, train=1)
    assert again.epochs == [1, 2, 3, 4]


def test_curves_refuse():
    c = curves()
    with pytest.raises(ValueError, match="epoch 3 comes after epoch 3; epochs must grow"):
        c.add(3, train=1)
    with pytest.raises(ValueError, match=r"train has shape \(2,\)"):
        c.add(4, train=[1, 2])
    with pytest.raises(KeyError, match="there is no curve 'test', but .'train', 'valid'."):
        c["test"]
    with pytest.raises(ValueError, match="no curves to plot"):
        Curves().plot("never.png")
    assert len(c) == 3


@pytest.mark.parametrize("log", [False, True])
def test_the_picture_of_curves(tmp_path, log):
    pytest.importorskip("matplotlib")
    curves().plot(tmp_path / "c.png", title="Reber", log=log)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_needs_matplotlib(monkeypatch, tmp_path):
    without(monkeypatch, "matplotlib")
    with pytest.raises(ImportError, match="needs matplotlib, which is not installed: pip install"):
        curves().plot(tmp_path / "c.png")


# --- the best parameters -------------------------------------------------------------------------


def network():
    return layers.DenseLayer(layers.InputLayer((None, 3), name="in"), 2, name="out")


def test_the_best_is_kept(tmp_path):
    net = network()
    keep = KeepBest(tmp_path / "best.safetensors", net, patience=2)
    for value, better, stop in (
            (float("nan"), False, False), (2.0, True, False), (np.array(1.5), True, False),
            (1.5, False, False), (float("nan"), False, True), (1.0, True, False)):
        net.W.set_value(np.full((3, 2), float(value)))
        assert keep.best(value) is better and keep.stop is stop
    assert (keep.value, keep.waited, keep.count) == (1.0, 0, 6)
    net.W.set_value(np.zeros((3, 2)))
    assert not keep.best(1.25)
    keep.restore()
    np.testing.assert_array_equal(net.W.get_value(), np.ones((3, 2)))


def test_larger_may_be_better_and_patience_endless(tmp_path):
    keep = KeepBest(tmp_path / "best.safetensors", network(), larger=True)
    assert [keep.best(v) for v in (0.1, 0.5, 0.4, 0.5, 0.6)] == [True, True, False, False, True]
    assert not any(keep.best(0.1) or keep.stop for _ in range(50))


def test_another_process_goes_on(tmp_path):
    path = tmp_path / "best.safetensors"
    keep = KeepBest(path, network(), patience=3)
    keep.best(-float("inf"))
    keep.best(2)
    net = network()
    again = KeepBest(path, net, patience=3)
    again.set_state(json.loads(json.dumps(keep.state(), allow_nan=False)))
    assert not again.best(1) and not again.stop and not again.best(1) and again.stop
    again.restore()
    np.testing.assert_array_equal(net.W.get_value(), keep.network.W.get_value())
    fresh = KeepBest(path, net)
    fresh.set_state(json.loads(json.dumps(KeepBest(path, net).state())))
    assert fresh.value is None and fresh.count == 0


def test_keep_best_refuses(tmp_path):
    with pytest.raises(ValueError, match="patience is 0; it must be positive, or None"):
        KeepBest(tmp_path / "f", network(), patience=0)
    keep = KeepBest(tmp_path / "f", network())
    with pytest.raises(ValueError, match="nothing is kept in .*f' yet"):
        keep.restore()
    with pytest.raises(ValueError, match="the value has shape"):
        keep.best([1, 2])
    assert keep.count == 0 and not (tmp_path / "f").exists()
