"""What a user did wrong is said in the user's words, at the user's line, and changes nothing;
what is odd but legal is computed right."""

from __future__ import annotations

import inspect
from pathlib import Path

import models
import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import config, function, grad, scan, shared
from tinygraph.errors import CheckError, DisconnectedInputError, MissingInputError, ShapeError

HERE = Path(__file__).name


@pytest.fixture(autouse=True, params=["numpy", "loops", "llvm"])
def backend(request):
    with config.change(floatX="float64", backend=request.param, cache="off"):
        yield request.param


def line_of(text):
    """file:line of the line of this file that holds ``text`` (and is not the question)."""
    lines = inspect.getsource(inspect.getmodule(line_of)).splitlines()
    (found,) = [k for k, line in enumerate(lines, 1) if text in line and "line_of" not in line]
    return f"{HERE}:{found}"


@pytest.fixture
def train(backend):
    """A small training function with its inputs and its shared variable."""
    x = T.matrix("x")  # of train
    mask = T.matrix("the_mask")
    w = shared(np.ones((2, 2)), "w")
    h, _ = scan(lambda row, m, h: T.switch(m, T.tanh(T.dot(row, w) + h), h),
                [x, mask.T], T.zeros((2,)))
    cost = (h ** 2).sum()
    f = function([x, mask], cost, updates=[(w, w - 0.1 * grad(cost, w))], name="train")
    return f, w


def refused(f, w, error, *words, args=(), kwargs=None):
    """Calling f raises an error whose message has all words; w stays what it was."""
    before = w.get_value()
    with pytest.raises(error) as caught:
        f(*args, **(kwargs or {}))
    message = str(caught.value)
    for word in words:
        assert word in message, message
    np.testing.assert_array_equal(w.get_value(), before)
    return message


GOOD = (np.ones((3, 2)), np.ones((2, 3)))


@pytest.mark.parametrize(("x", "words"), [
    (np.ones(3), ["x (float64 matrix", "1 axes"]),
    (np.ones((3, 2, 1)), ["x (float64 matrix", "3 axes"]),
    (np.ones((3, 2), complex), ["x (float64 matrix", "complex128"]),
    ([[1.0], [1.0, 2.0]], ["x (float64 matrix", "rows of different lengths"]),
    ("text", ["x (float64 matrix", "text"]),
    (None, ["x (float64 matrix", "None"]),
    (T.matrix("y"), ["x (float64 matrix", "symbolic variable"]),
], ids=lambda v: "" if isinstance(v, list) else type(v).__name__)
def test_arguments_of_a_wrong_type(train, x, words):
    f, w = train
    refused(f, w, TypeError, *words, line_of('T.matrix("x")  # of train'), args=(x, GOOD[1]))


def test_wrong_dtype():
    n, x = T.ivector("n"), T.fvector("x")
    w = shared(np.zeros(2), "w")
    f = function([n, x], updates=[(w, w + n + x)])
    refused(f, w, TypeError, "n (int32 vector", HERE, "without loss", args=([1.5, 2.5], [1, 2]))
    refused(f, w, TypeError, "n (int32 vector", "int64",
            args=(np.array([1, 2**40]), np.zeros(2, "float32")))
    refused(f, w, TypeError, "x (float32 vector", "float64", "allow_input_downcast",
            args=(np.array([1, 2], "int32"), np.array([0.1, 0.2])))


def test_mask_of_another_batch(train):
    f, w = train
    refused(f, w, ShapeError, "switch", "of m", line_of("T.switch(m, T.tanh"), "is 5", "is 2",
            args=(np.ones((3, 2)), np.ones((5, 3))))
    # A mask with fewer steps than the sequence is a shorter scan; none of its rows is wild.
    f(np.ones((3, 2)), np.ones((2, 2)))


def test_the_number_of_arguments(train):
    f, w = train
    refused(f, w, TypeError, "train", "Missing required input", "the_mask", args=GOOD[:1])
    refused(f, w, TypeError, "train", "3 arguments", args=(*GOOD, GOOD[0]))
    refused(f, w, TypeError, "no input named 'wrong'", args=GOOD, kwargs={"wrong": 1})
    refused(f, w, TypeError, "'x' was passed twice", args=GOOD, kwargs={"x": GOOD[0]})


def test_unused_and_missing_inputs():
    x, unread = T.vector("x"), T.vector("unread")
    with pytest.raises(tinygraph.errors.UnusedInputError, match=rf"unread \(.*{HERE}"):
        function([x, unread], x + 1)
    with pytest.raises(MissingInputError, match=rf"unread \(.*{HERE}"):
        function([x], x + unread)


def test_scan_that_does_not_fit(train):
    f, w = train
    refused(f, w, ValueError, "axis", args=(np.ones((3, 4)), np.ones((2, 3))))
    f(*GOOD)


# --- numbers that are wrong


def test_nan_in_a_step_under_check():
    x, w = T.vector("x"), shared(np.array(1.0), "w")

    def step(row, h):
        root = T.sqrt(row)  # nan for a negative row
        return h + root

    h, _ = scan(step, x, w * 1.0)
    f = function([x], h, updates=[(w, w + 1)], check=True)
    np.testing.assert_allclose(f(np.array([4.0, 9.0])), [3, 6])
    refused(f, w, CheckError, "nan", "step 2", line_of("# nan for a negative row"),
            args=(np.array([1.0, 4.0, -1.0, 2.0]),))


def test_inf_under_check_names_the_operation():
    x, w = T.vector("x"), shared(np.array(1.0), "w")
    bad = 1.0 / x  # inf for zero
    f = function([x], bad.sum(), updates=[(w, w + 1)], check=True)
    refused(f, w, CheckError, "inf", line_of("# inf for zero"), args=(np.array([1.0, 0.0]),))


# --- indices


def test_constant_index_out_of_range():
    x, w = T.matrix("x"), shared(np.array(1.0), "w")
    f = function([x], x[:, 3], updates=[(w, w + 1)])
    assert f(np.ones((2, 4))).shape == (2,)
    refused(f, w, IndexError, "x (float64 matrix", HERE, "3", args=(np.ones((2, 3)),))
    f = function([x], x[-3], updates=[(w, w + 1)])
    refused(f, w, IndexError, "x (float64 matrix", HERE, args=(np.ones((2, 4)),))


@pytest.mark.parametrize("bad", [5, -6, 2**40, -2**62])
def test_dynamic_index_out_of_range(backend, bad):
    x, k, w = T.matrix("x"), T.lvector("k"), shared(np.array(1.0), "w")
    f = function([x, k], x[k], updates=[(w, w + 1)])
    data = np.arange(10.0).reshape(5, 2)
    np.testing.assert_array_equal(f(data, [4, -5]), data[[4, -5]])
    words = ["k (int64 vector", "x (float64 matrix", HERE] if backend == "numpy" else [
        f"index {bad} in k (int64 vector", "axis 0 of x (float64 matrix", HERE]
    refused(f, w, IndexError, str(bad), "size", "5", *words, args=(data, np.array([0, bad, 1])))


def test_scalar_index_out_of_range(backend):
    x, k, w = T.vector("x"), T.lscalar("k"), shared(np.array(1.0), "w")
    f = function([x, k], x[k] * 2, updates=[(w, w + 1)])
    assert f(np.arange(4.0), 3) == 6 and f(np.arange(4.0), -4) == 0
    for bad in (4, -5, 2**50):
        words = ["x (float64 vector", HERE]
        refused(f, w, IndexError, str(bad), "4", *words, args=(np.arange(4.0), bad))


def test_write_out_of_range(backend):
    x, k, w = T.vector("x"), T.lvector("k"), shared(np.array(1.0), "w")
    for make in (T.inc_subtensor, T.set_subtensor):
        f = function([x, k], make(x[k], 1.0), updates=[(w, w + 1)])
        assert f(np.zeros(3), [2])[2] == 1
        words = ["k (int64 vector", "x (float64 vector", HERE]
        refused(f, w, IndexError, "index 3", "3", *words, args=(np.zeros(3), [0, 3]))


def test_index_inside_scan_out_of_range(backend):
    x, k, w = T.matrix("x"), T.lvector("k"), shared(np.ones((3, 2)), "w")

    def step(row, i, h):
        return T.tanh(row + w[i] * h)

    h, _ = scan(step, [x, k], T.zeros((2,)))
    cost = h.sum()
    f = function([x, k], cost, updates=[(w, w - grad(cost, w))])
    f(np.ones((3, 2)), [0, 2, -3])
    words = ["7", "3"] if backend == "numpy" else [
        "index 7 in k (int64 vector", "axis 0 of w (float64 matrix", "size is 3",
        "at " + str(Path(__file__).parent), line_of("T.tanh(row + w[i] * h)")]
    refused(f, w, IndexError, *words, args=(np.ones((4, 2)), [0, 1, 7, 1]))
    many = T.lmatrix("many")
    gathered, _ = scan(lambda i: w[i].sum(axis=1), many)
    f = function([many], gathered)
    assert f(np.zeros((2, 4), int)).shape == (2, 4)
    refused(f, w, IndexError, "-4", args=(np.array([[0, 1], [2, -4]]),))


# --- carries and gradients


def test_carry_of_another_dtype():
    x = T.vector("x")
    start = T.constant(np.float32(0))
    with pytest.raises(ValueError) as caught:
        scan(lambda row, total: total + row, x, start)
    message = str(caught.value)
    for word in ("total", "float32 scalar", "float64 scalar", "astype", HERE):
        assert word in message


def test_carry_of_another_rank():
    x = T.matrix("x")
    with pytest.raises(ValueError) as caught:
        scan(lambda row, total: total + row, x, T.zeros(()))
    message = str(caught.value)
    for word in ("total", "float64 scalar", "float64 vector", "number of axes", HERE):
        assert word in message


def test_gradient_of_a_disconnected_variable():
    x, y = T.vector("x"), T.vector("y")
    cost = (x ** 2).sum()
    with pytest.raises(DisconnectedInputError, match=rf"y \(.*{HERE}"):
        grad(cost, y)
    cut = tinygraph.disconnected_grad(y)  # here the path ends
    with pytest.raises(DisconnectedInputError) as caught:
        grad((x * cut).sum(), y)
    assert line_of("# here the path ends") in str(caught.value)


def test_strict_scan():
    x, w = T.vector("x"), shared(np.array(2.0), "w")
    with pytest.raises(MissingInputError, match=r"w \(.*non_sequences"):
        scan(lambda row: row * w, x, strict=True)
    y, _ = scan(lambda row, w: row * w, x, non_sequences=[w], strict=True)
    np.testing.assert_array_equal(function([x], y)(np.ones(2)), [2, 2])


# --- odd, legal


def layouts(a):
    """The same numbers, laid out in all ways that NumPy has."""
    strided = np.zeros(tuple(2 * n for n in a.shape), a.dtype)[tuple([slice(None, None, 2)]
                                                                     * a.ndim)]
    strided[...] = a
    negative = np.ascontiguousarray(a[(slice(None, None, -1),) * a.ndim])
    unaligned = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    unaligned[...] = a
    fixed = a.copy()
    fixed.flags.writeable = False
    return {
        "C": a, "Fortran": np.asfortranarray(a), "strided": strided,
        "negative": negative[(slice(None, None, -1),) * a.ndim], "read-only": fixed,
        "swapped": a.astype(a.dtype.newbyteorder()), "unaligned": unaligned,
        "transposed": np.ascontiguousarray(a.T).T, "broadcast": np.broadcast_to(a, a.shape)}


def test_layouts_of_arguments():
    model = models.lstm(mask=True, hidden=3)
    f = model.gradients()
    arrays = model.batch(3, 4)
    want = f(*arrays)
    for name, x in layouts(arrays[0]).items():
        copy = np.array(x)
        got = f(x, layouts(arrays[1])[name])
        models.assert_close(got, want, 1e-14)
        np.testing.assert_array_equal(x, copy)


@pytest.mark.parametrize(("batch", "steps", "hidden"), [
    (1, 1, 1), (1, 5, 3), (4, 1, 3), (4, 5, 1), (2, 0, 3), (0, 3, 3)])
def test_odd_sizes(batch, steps, hidden):
    model = models.gru(mask=True, hidden=hidden)
    cost = (model.states[0] ** 2).sum()
    outputs = [cost, *grad(cost, [*model.params, model.inputs[0]])]
    arrays = model.batch(batch, steps)
    models.assert_close(function(model.inputs, outputs)(*arrays),
                        function(model.inputs, outputs, backend="numpy")(*arrays))


def test_integer_and_bool_arrays_where_floats_are_expected():
    x = T.vector("x")
    f = function([x], x * 2)
    for a in (np.array([1, 2]), np.array([True, False]), np.array([1, 2], "int8"), [1, 2], (1,)):
        np.testing.assert_array_equal(f(a), np.asarray(a, float) * 2)


def test_sizes_of_one_that_do_not_broadcast():
    x, y = T.matrix("x"), T.matrix("y")
    f = function([x, y], x * y)
    with pytest.raises(ShapeError, match=r"x \(.*y \(|y \(.*x \("):
        f(np.ones((1, 3)), np.ones((2, 3)))
