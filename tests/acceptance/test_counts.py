"""What the compiler makes of recurrent networks, in counts: one product per step in each
direction, however the network is written; one native function, without calls into libm."""

from __future__ import annotations

import re

import models
import pytest

import tinygraph

pytestmark = pytest.mark.counts
CLIPS = (0, 100.0)
WRITTEN = [(form, mask, clip) for form in models.FORMS for mask in (False, True) for clip in CLIPS]
FUNCTION = re.compile(r"llvm\.(exp|log|sin|cos|tan|pow|sinh|cosh|asin|acos|atan)")


@pytest.fixture(autouse=True)
def no_cache():
    with tinygraph.config.change(cache="off"):
        yield


def counts(model, backend="loops"):
    """The report of the training function, and its products and functions per step."""
    report = model.training(backend=backend).report()
    return report, [(loop.step.products, loop.step.transcendentals) for loop in report.loops]


@pytest.mark.parametrize("peepholes", [False, True])
@pytest.mark.parametrize(("form", "mask", "clip"), WRITTEN)
def test_lstm_has_one_product_per_step_in_each_direction(form, mask, peepholes, clip):
    report, steps = counts(models.lstm(form, mask, peepholes, clip))
    # The backward loop computes no function again: it reads the gates of the forward loop.
    assert steps == [(1, 5), (1, 0)]
    assert not any(loop.inner for loop in report.loops)
    assert report.outside.products <= 6


@pytest.mark.parametrize(("form", "mask", "clip"), WRITTEN)
def test_gru_has_one_product_per_step_in_each_direction(form, mask, clip):
    report, steps = counts(models.gru(form, mask, clip))
    assert steps == [(1, 3), (1, 0)]
    assert report.outside.products <= 6


@pytest.mark.parametrize(("make", "functions"), [(models.lstm, 5), (models.gru, 3),
                                                 (models.rnn, 1)])
@pytest.mark.parametrize("options", [{"backwards": True}, {"truncate": 3}], ids=str)
def test_direction_and_truncation_change_no_counts(make, functions, options):
    _, steps = counts(make(**options))
    assert steps == [(1, functions), (1, 0)]


def test_a_forward_function_has_one_loop_with_one_product():
    model = models.lstm(mask=True, peepholes=True)
    f = tinygraph.function(model.inputs, model.states[0], backend="loops")
    report = f.report()
    assert [loop.step.products for loop in report.loops] == [1]
    assert report.outside.products <= 3


def test_the_last_state_alone_is_not_stacked():
    model = models.rnn(hidden=64)
    sizes = {}
    for what, out in (("last", model.states[0][-1]), ("every", model.states[0] * 1.5)):
        report = tinygraph.function(model.inputs, out, backend="loops").report()
        assert [loop.step.products for loop in report.loops] == [1]
        sizes[what] = report.workspace_bytes(x_0=4, x_1=1000)
    rows = 4 * 1000 * 64 * 4
    # Input products over few features are computed in the step; the states are a stack.
    assert sizes["last"] < 0.2 * rows < rows < sizes["every"] < 1.2 * rows


def test_two_directions_are_four_loops():
    ahead, back = models.lstm(), models.lstm(backwards=True, seed=1)
    cost = ((ahead.states[0] + back.states[0][::-1]) ** 2).mean()
    cost = tinygraph.clone(cost, {back.inputs[0]: ahead.inputs[0]})
    params = ahead.params + back.params
    grads = tinygraph.grad(cost, params)
    f = tinygraph.function(ahead.inputs, [cost, *grads], backend="loops")
    assert sorted(loop.step.products for loop in f.report().loops) == [1, 1, 1, 1]


@pytest.mark.parametrize("model", [
    lambda: models.lstm("separate", mask=True, peepholes=True, clip=1.0),
    lambda: models.gru("stacked", mask=True)], ids=["lstm", "gru"])
def test_one_native_function_without_libm(model):
    f = model().training(backend="llvm")
    report = f.report()
    assert report.native_functions == 1
    assert [loop.step.products for loop in report.loops] == [1, 1]
    text = f.source("llvm")
    assert len(re.findall(r"^define (?!internal)", text, re.MULTILINE)) == 1
    called = set(re.findall(r"(?:declare|call) .*?@([\w.]+)\(", text))
    # What is declared and no intrinsic is the module's own products and threads; exp, tanh, ...
    # are spelled out in the loops.
    declared = set(re.findall(r"^declare .*?@([\w.]+)\(", text, re.MULTILINE))
    assert {name for name in declared if not name.startswith("llvm.")} <= {
        "gemm_float32", "gemm_packed_float32", "gemm_pack_float32", "tinygraph_parallel"}
    assert not [name for name in called if FUNCTION.match(name)]
    assert " frem " not in text


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("form", models.FORMS)
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_values_of_every_form(form, rich, floatX):
    with tinygraph.config.change(floatX=floatX):
        clip = 100.0 if rich else 0
        made = [models.lstm(form, rich, rich, clip), models.gru(form, rich, clip)]
        for model in made:
            f, oracle = (model.gradients(backend=b) for b in ("llvm", "numpy"))
            for batch, steps in ((3, 4), (1, 1), (9, 2)):
                arrays = model.batch(batch, steps)
                models.assert_close(f(*arrays), oracle(*arrays))
