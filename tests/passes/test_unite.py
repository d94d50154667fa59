"""unite: what the gradient asks of a scan joins that scan."""

from __future__ import annotations

import models
from scan_cases import compiled, loops, scans

import tinygraph.tensor as T
from tinygraph import function, grad


def test_requests_of_the_gradient_join_the_scan():
    model = models.rnn()
    f = compiled(model.inputs, grad(model.cost(), model.params))
    before = scans(f.stage("drop_gradient_nodes"))
    assert [n.op.lazy for n in before].count(True) == 1 and len(before) == 3
    after = scans(f.stage("unite"))
    assert [n.op.lazy for n in after] == [False, False]
    asked = after[0].op.groups.stacks
    # The states that the cost reads, and what the backward step reads: the new and the old state.
    assert asked == 2


def test_two_scans_over_the_same_steps_with_the_same_carries_are_one():
    one, other = models.rnn(), models.rnn()
    again = function(one.inputs, [one.states[0], one.states[0] * 2], backend="loops")
    assert len(loops(again)) == 1
    apart = function([*one.inputs, *other.inputs], [one.states[0], other.states[0]],
                     backend="loops")
    assert len(loops(apart)) == 2


def test_two_gradients_share_one_forward_scan():
    model = models.rnn()
    costs = [(model.states[0] ** 2).sum(), T.exp(model.states[0][-1]).sum()]
    f = compiled(model.inputs, [grad(cost, model.params[1]) for cost in costs])
    assert any(n.op.lazy for n in scans(f.stage("drop_gradient_nodes")))
    united = scans(f.stage("unite"))
    assert [n.op.lazy for n in united] == [False] * 3
    assert len([n for n in united if "backwards" in n.op.name]) == 2


def test_without_the_pass_the_values_are_the_same():
    model = models.lstm(mask=True)
    outputs = [model.cost(), *grad(model.cost(), model.params)]
    arrays = model.batch(3, 4)
    want = function(model.inputs, outputs, backend="numpy")(*arrays)
    for passes in ("-unite", "none", "unite"):
        f = function(model.inputs, outputs, backend="loops", passes=passes)
        models.assert_close(f(*arrays), want)
