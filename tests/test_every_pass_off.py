"""Every pass of the pipeline may be left out: the values stay what they are.

For each pass, programs that it changes are rewritten without it (a pass that finds nothing to do
in a program changes nothing when it is left out).  The graphs of up to four run on the
interpreter and one is compiled; it is other programs' turn for each pass.  Together the programs
give every pass something to do.  What is right is said by the interpreter on the graphs before
all passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import models
import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as rnn
from tinygraph import function, grad, scan, shared
from tinygraph.compile.build import Compilation
from tinygraph.interpret import Sizes, evaluate
from tinygraph.passes.pipeline import PIPELINE, select
from tinygraph.tensor.shared_randomstreams import RandomStreams

pytestmark = pytest.mark.counts  # leaves passes out by itself

PASSES = list(dict.fromkeys(p.name for p in PIPELINE))
TOLERANCE = 1e-11  # of the largest number; all is float64
INTERPRETED, COMPILED = 4, 1  # programs for each pass, at most


@dataclass
class Program:
    """What ``function`` takes, and the arguments of calls, in other sizes each time."""

    inputs: list[Any]
    outputs: list[Any]
    calls: list[list[np.ndarray]]
    updates: list[tuple[Any, Any]] = field(default_factory=list)

    def compiled(self, **options: Any) -> Any:
        return function(self.inputs, self.outputs, updates=self.updates, **options)

    def values(self, **options: Any) -> list[np.ndarray]:
        """All results of all calls, and what shared variables hold after them."""
        start = [(v, v.get_value()) for v, _ in self.updates]
        f = self.compiled(**options)
        found = [r for call in self.calls for r in f(*call)]
        found += [v.get_value() for v, _ in self.updates]
        for v, value in start:
            v.set_value(value)
        return found


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def with_gradients(model: models.Model, *sizes: tuple[int, int]) -> Program:
    """The cost of a model and its gradients."""
    cost = model.cost()
    outputs = [cost, *grad(cost, [*model.params, model.inputs[0]])]
    return Program(model.inputs, outputs, [model.batch(*s) for s in sizes])


def add_task() -> Program:
    """A training step of the network for the add task, by Adam."""
    rnn.random.set_rng(1)
    layers = rnn.layers
    l_in, l_mask = (layers.InputLayer(shape=s) for s in ((None, None, 2), (None, None)))
    both = [layers.LSTMLayer(l_in, 3, mask_input=l_mask, learn_init=True, grad_clipping=100.0,
                             backwards=b) for b in (False, True)]
    l_dense = layers.DenseLayer(layers.ReshapeLayer(layers.ElemwiseSumLayer(both), (-1, 3)),
                                num_units=1, nonlinearity=rnn.nonlinearities.tanh)
    batch, steps, _ = l_in.input_var.shape
    l_out = layers.ReshapeLayer(l_dense, (batch, steps))
    rnn.random.set_rng(None)
    target = T.vector("target")
    cost = T.mean((layers.get_output(l_out)[:, -1] - target) ** 2)
    params = layers.get_all_params(l_out, trainable=True)
    updates = rnn.updates.adam(cost, params)
    calls = []
    for n, length in ((3, 4), (2, 6)):
        mask = np.arange(length) < np.arange(length - n + 1, length + 1)[:, None]
        calls.append([numbers(n, n, length, 2), numbers(n + 1, n), mask.astype("float64")])
    inputs = [l_in.input_var, target, l_mask.input_var]
    return Program(inputs, [cost], calls, list(updates.items()))


def lstm() -> Program:
    return with_gradients(models.lstm("separate", mask=True, peepholes=True, clip=1.0, hidden=3),
                          (2, 3), (3, 5))


def lstm_concat_backwards() -> Program:
    return with_gradients(models.lstm("concat", backwards=True, hidden=3), (2, 4))


def gru() -> Program:
    return with_gradients(models.gru("stacked", mask=True, clip=2.0, hidden=3), (2, 3))


def truncated_last_state() -> Program:
    """Back through three steps from the last state of the time reversed: few rows are read."""
    model = models.rnn(truncate=3, hidden=3, backwards=True)
    cost = (model.states[0][-1] ** 2).sum() + (model.states[0][:2] ** 3).sum()
    return Program(model.inputs, [cost, *grad(cost, model.params)], [model.batch(2, 5)])


def first_rows() -> Program:
    """Only the first rows of a layer that runs backward in time are read, summed with another."""
    ahead, back = models.gru(hidden=2), models.gru(hidden=2, backwards=True, seed=1)
    back_states = tinygraph.clone(back.states[0], {back.inputs[0]: ahead.inputs[0]})
    cost = ((ahead.states[0][-1] + back_states[0]) ** 2).mean()
    params = ahead.params + back.params
    return Program(ahead.inputs, [cost, *grad(cost, params)], [ahead.batch(2, 4)])


def taps() -> Program:
    v = T.vector("v")
    rows, _ = scan(lambda a, b, p, q: T.tanh(a - b + 0.5 * p * q),
                   {"input": v, "taps": [0, 1]}, {"initial": v[:2], "taps": [-1, -2]})
    cost = (rows ** 2).sum() + rows[-1]
    return Program([v], [cost, grad(cost, v), rows[::-1]], [[numbers(0, 6)], [numbers(1, 3)]])


def nested() -> Program:
    x, w = T.matrix("x"), shared(numbers(2, 2, 2), "w")

    def outer(row: Any, h: Any) -> Any:
        cs, _ = scan(lambda e, c: T.tanh(c * e + T.dot(h, w)), row, T.zeros_like(h))
        return cs[-1] + T.sin(h)

    hs, _ = scan(outer, x, T.ones_like(w[0]))
    cost = (hs ** 2).sum()
    return Program([x], [cost, *grad(cost, [x, w])], [[numbers(3, 3, 2)]])


def second_derivative() -> Program:
    model = models.rnn(hidden=2)
    slope = (grad((model.states[0] ** 2).sum(), model.params[1]) ** 2).sum()
    return Program(model.inputs, [slope, *grad(slope, model.params)], [model.batch(2, 3)])


def within_memory() -> Program:
    """A scan that may keep few bytes for its gradient."""
    x, w = T.tensor3("x"), shared(0.4 * numbers(4, 3, 3), "w")
    hs, _ = scan(lambda row, h: T.tanh(row + T.dot(h, w)), x, T.zeros_like(x[0]), memory=480)
    cost = (hs[-1] ** 2).sum()
    return Program([x], [cost, *grad(cost, [x, w])], [[numbers(5, 9, 2, 3)]])


def classifier() -> Program:
    """Softmax, crossentropies and logarithms of exponentials, on numbers of middle size."""
    x, w, y = T.matrix("x"), shared(numbers(6, 4, 3), "w"), T.lvector("y")
    z = T.dot(x, w)
    many = T.nnet.categorical_crossentropy(T.nnet.softmax(z), y).mean()
    one = T.nnet.binary_crossentropy(T.nnet.sigmoid(z), 0.3).sum()
    soft = T.log(1 + T.exp(z)).sum() + T.log(T.nnet.sigmoid(z[:, 1])).sum()
    cost = many + one + soft + T.log(T.nnet.softmax(z)).sum() + T.log1p(-T.nnet.sigmoid(z)).sum()
    grads = grad(cost, [w, x])
    return Program([x, y], [cost, *grads], [[numbers(7, 5, 4), np.array([0, 2, 1, 1, 0])]],
                   [(w, w - 0.1 * grads[0])])


def narrowed() -> Program:
    """Rows of larger values, gradients that are mostly zero, constants, joined products."""
    x, u, v = T.matrix("x"), shared(numbers(8, 3, 2), "u"), shared(numbers(9, 3, 4), "v")
    whole = T.exp(x * (2.0 * T.constant(3.0) - 5.0) + 0 * x) + T.log(1.0 + x ** 2)
    joined = T.concatenate([T.dot(x, u), T.dot(x, v)], axis=1)
    split = T.dot(T.concatenate([x, whole], axis=1), T.concatenate([u, u], axis=0))
    cost = (whole[1] ** 2).sum() + joined[:, 1:3].sum() + T.sqr(split[-1]).sum()
    return Program([x], [cost, whole[:2, 1], *grad(cost, [x, u, v])],
                   [[numbers(10, 4, 3)], [numbers(11, 2, 3)]])


def momentum() -> Program:
    """Updates that read what others write."""
    x = T.vector("x")
    w, speed, count = (shared(a, n) for a, n in
                       ((numbers(12, 3), "w"), (np.zeros(3), "speed"), (np.float64(0), "count")))
    cost = ((w - x) ** 2).sum() + T.dot(w, w)
    step = 0.9 * speed - 0.1 * grad(cost, w) / T.sqrt(1 + count)
    return Program([x], [cost], [[numbers(13, 3)], [numbers(14, 3)]],
                   [(speed, step), (w, w + step), (count, count + 1)])


def two_walks() -> Program:
    """Two loops over the same steps, short and independent of each other."""
    x, a = T.matrix("x"), shared(np.float64(0.7), "a")
    walks = [scan(lambda row, h, k=k: T.tanh(row + a * k * h), x[::step], T.zeros_like(x[0]))[0]
             for k, step in ((1.0, 1), (0.5, -1))]
    cost = sum((walk ** 2).sum() for walk in walks)
    return Program([x], [cost, *grad(cost, [x, a])], [[numbers(15, 4, 3)], [numbers(16, 1, 2)]])


def dropout() -> Program:
    """A mask that is drawn anew in each step."""
    streams, u = RandomStreams(3), shared(0.5 * numbers(17, 3, 3), "u")
    x = T.tensor3("x")

    def step(row: Any, h: Any) -> Any:
        new = T.tanh(row + T.dot(h, u))
        return new * streams.binomial(new.shape, p=0.7, dtype="float64")

    hs, _ = scan(step, x, T.zeros_like(x[0]))
    cost = (hs ** 2).sum()
    return Program([x], [cost, *grad(cost, [x, u])], [[numbers(18, 4, 2, 3)]], streams.updates())


def looked_up() -> Program:
    """A step that reads rows of a table by their numbers, and the gradient of the table."""
    index, table, u = T.lmatrix("index"), shared(numbers(19, 5, 3), "table"), shared(
        numbers(20, 6, 4), "u")

    def step(i: Any, h: Any) -> Any:
        return T.tanh(T.dot(T.concatenate([table[i], h[:, :3]], axis=1), u))

    hs, _ = scan(step, index, T.zeros((index.shape[1], 4)))
    cost = (hs ** 2).sum()
    return Program([index], [cost, *grad(cost, [table, u])],
                   [[np.array([[0, 4], [-1, 2], [2, 2]])], [np.array([[3]])]])


MAKERS: list[Callable[[], Program]] = [
    add_task, lstm, lstm_concat_backwards, gru, truncated_last_state, first_rows, taps, nested,
    second_derivative, within_memory, classifier, narrowed, momentum, two_walks, dropout, looked_up]
NAMES = {maker.__name__: maker for maker in MAKERS}


@pytest.fixture(autouse=True)
def float64_without_cache():
    with tinygraph.config.change(floatX="float64", cache="off"):
        yield


@cache
def program(name: str) -> Program:
    return NAMES[name]()


@cache
def reference(name: str) -> list[np.ndarray]:
    """By the interpreter."""
    return program(name).values(backend="numpy")


def rewritten(name: str, passes: str) -> Compilation:
    """The graphs of a program, its shared variables of the sizes that they have."""
    f = untouched(name)
    return Compilation(f.graph, select(passes), {v: v.get_value().shape for v in f.shared})


@cache
def untouched(name: str) -> Any:
    return program(name).compiled(backend="numpy")


@cache
def changed_by(name: str) -> set[str]:
    """The passes that do something in a program."""
    compilation = rewritten(name, "all")
    assert compilation.stages
    return {record.name for record in compilation.journal.passes if record.changed}


def interpreted(name: str, passes: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The results of the first call, by the interpreter: after the passes, and before."""
    graph, f = rewritten(name, passes).stages[-1][1], untouched(name)
    values = [*map(np.asarray, program(name).calls[0]), *(v.get_value() for v in f.shared)]
    return tuple(evaluate(g.outputs, dict(zip(g.inputs, values, strict=True)), Sizes())
                 for g in (graph, f.graph))


@pytest.mark.parametrize("name", NAMES)
def test_all_passes_and_none(name):
    for passes in ("all", "none"):
        got = program(name).values(backend="llvm", passes=passes)
        models.assert_close(got, reference(name), TOLERANCE)


@pytest.mark.parametrize("left_out", PASSES)
def test_values_are_equal_without_the_pass(left_out):
    concerned = [name for name in NAMES if left_out in changed_by(name)]
    assert concerned, f"no program here gives {left_out!r} something to do: write one"
    passes = f"-{left_out}"
    turn = 3 * PASSES.index(left_out) % len(concerned)
    for k, name in enumerate((concerned[turn:] + concerned[:turn])[:INTERPRETED]):
        try:
            models.assert_close(*interpreted(name, passes), TOLERANCE)
            if k < COMPILED:
                got = program(name).values(backend="llvm", passes=passes)
                models.assert_close(got, reference(name), TOLERANCE)
        except AssertionError as error:
            raise AssertionError(f"{name} without {left_out!r}: {error}") from error
