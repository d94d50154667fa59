"""Ops that users write: in Python, on every back end, in loops, with gradients; and natively."""

from __future__ import annotations

import pickle
import runpy
import threading
from pathlib import Path

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import gof
from tinygraph.errors import NotDifferentiableError, ShapeError
from tinygraph.gradient import DisconnectedType, grad_not_implemented, grad_undefined

BACKENDS = ("numpy", "loops", "llvm")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def float64():
    with tinygraph.config.change(floatX="float64"):
        yield


class Square(gof.Op):
    """x * x, in the short way."""

    __props__ = ()

    def infer(self, x):
        return x.type

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = inputs[0] ** 2

    def grad(self, inputs, output_gradients):
        return [Times()(output_gradients[0], inputs[0]) * 2]


class Times(gof.Op):
    """x * y, as programs for Theano write an op."""

    def __eq__(self, other):
        return type(self) is type(other)

    def __hash__(self):
        return T.hashtype(self)

    def make_node(self, x, y):
        x, y = T.as_tensor_variable(x), T.as_tensor_variable(y)
        return gof.Apply(self, [x, y], [x.type.make_variable()])

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = inputs[0] * inputs[1]

    def grad(self, inputs, output_gradients):
        (g,), (x, y) = output_gradients, inputs
        return g * y, g * x

    def c_code(self, node, name, inputs, outputs, sub):
        raise AssertionError("code in C is not asked for")


class Wrap(gof.Op):
    """(2 x, y with its first element appended): two outputs, one of a size of its own."""

    __props__ = ("factor",)

    def __init__(self, factor=2):
        self.factor = factor

    def make_node(self, x, y):
        longer = T.TensorType(y.dtype, (False,))
        return gof.Apply(self, [x, y], [x.type(), longer()])

    def infer_shape(self, node, shapes):
        return [shapes[0], (shapes[1][0] + 1,)]

    def perform(self, node, inputs, output_storage):
        x, y = inputs
        output_storage[0][0] = x * self.factor
        output_storage[1][0] = np.concatenate([y, y[:1]])

    def grad(self, inputs, output_gradients):
        g, h = output_gradients
        return [g * self.factor, T.inc_subtensor(h[:-1][:1], h[-1:])]


class Filter(gof.Op):
    """The positive elements; how many they are, nobody says."""

    def make_node(self, x):
        return gof.Apply(self, [x], [T.Tensor(dtype=x.dtype, broadcastable=[False])()])

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = inputs[0][inputs[0] > 0]

    def grad(self, inputs, output_gradients):
        return [FilterGradient()(inputs[0], output_gradients[0])]


class FilterGradient(gof.Op):
    """Has the size of x, since it is the gradient of x."""

    def make_node(self, x, g):
        return gof.Apply(self, [x, g], [T.Tensor(x.dtype, x.type.broadcastable)()])

    def perform(self, node, inputs, output_storage):
        x, g = inputs
        output_storage[0][0] = out = np.zeros_like(x)
        out[x > 0] = g


class Faulty(gof.Op):
    """Does something wrong."""

    def __init__(self, kind):
        self.kind = kind

    def infer(self, x):
        return x.type

    def perform(self, node, inputs, output_storage):
        (x,) = inputs
        if self.kind == "raise":
            raise KeyError("mine")
        if self.kind == "interrupt":
            raise KeyboardInterrupt
        if self.kind != "empty":
            output_storage[0][0] = {
                "dtype": x.astype("float32"), "shape": x[:1], "rank": x[None]}[self.kind]


def run(backend, inputs, outputs, *arrays, **options):
    f = tinygraph.function(inputs, outputs, backend=backend, **options)
    return f(*arrays)


# --- values and gradients ---------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_and_gradients_to_the_second_order(backend):
    x = T.vector("x")
    y = Square()(T.sin(x) + 1)
    slope = tinygraph.grad((y ** 2).sum(), x)
    curve = tinygraph.grad((slope ** 2).sum(), x)
    u = (T.sin(x) + 1) * (T.sin(x) + 1)
    slope2 = tinygraph.grad((u ** 2).sum(), x)
    curve2 = tinygraph.grad((slope2 ** 2).sum(), x)
    a = np.linspace(-1, 2, 5)
    got = run(backend, [x], [y, slope, curve], a)
    want = run("numpy", [x], [u, slope2, curve2], a)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_outputs_and_infer_shape(backend):
    x, y = T.matrix("x"), T.vector("y")
    a, b = Wrap(3)(x, y)
    cost = (a ** 2).sum() + (b ** 3).sum()
    p, q = np.arange(6.0).reshape(2, 3), np.array([1.0, 2.0])
    got = run(backend, [x, y], [a, b, *tinygraph.grad(cost, [x, y])], p, q)
    np.testing.assert_array_equal(got[0], 3 * p)
    np.testing.assert_array_equal(got[1], [1, 2, 1])
    np.testing.assert_allclose(got[2], 18 * p)
    np.testing.assert_allclose(got[3], [3 + 3, 12])
    (only,) = run(backend, [x, y], [tinygraph.grad((b ** 3).sum(), y)], p, q,
                  on_unused_input="ignore")
    np.testing.assert_allclose(only, [6, 12])


def add_columns(node, shapes):
    (rows, first), (_, second) = shapes
    return [(rows, first + second)]


@tinygraph.compile.ops.as_op(itypes=[T.dmatrix, T.dmatrix], otypes=[T.dmatrix],
                             infer_shape=add_columns)
def beside(x, y):
    return np.concatenate([x, y], axis=1)


class Double(gof.Op):
    """2 x, with lists of types."""

    __props__ = ()
    itypes = [T.dmatrix]
    otypes = [T.dmatrix]

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = inputs[0] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_ops_by_lists_of_types(backend):
    x, y = T.dmatrix("x"), T.dmatrix("y")
    a, b = np.ones((2, 3)), np.arange(2.0).reshape(2, 1)
    both, twice = run(backend, [x, y], [beside(x, y).sum(axis=0), Double()(x) + 1], a, b)
    np.testing.assert_array_equal(both, [2, 2, 2, 1])
    np.testing.assert_array_equal(twice, 2 * a + 1)
    with pytest.raises(TypeError, match="beside takes 2 inputs, not 1"):
        beside(x)
    with pytest.raises(TypeError, match="Double takes .*dmatrix.*, not v "):
        Double()(T.dvector("v"))


def test_a_gradient_against_finite_differences():
    rng = np.random.default_rng(0)
    tinygraph.verify_grad(Square(), [rng.normal(size=(2, 3))])
    tinygraph.verify_grad(lambda x, y: Wrap()(x, y)[1], [rng.normal(size=3), rng.normal(size=4)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_operands_and_results_in_place(backend):
    x = T.matrix("x")
    parts = T.concatenate([Square()(x.T[::-1]), x.T, Square()(x.T)], axis=0)
    a = np.arange(6.0).reshape(2, 3)
    want = np.concatenate([a.T[::-1] ** 2, a.T, a.T ** 2])
    np.testing.assert_array_equal(run(backend, [x], parts, a), want)
    np.testing.assert_array_equal(run(backend, [x], parts, a[:0]), want[:, :0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_operands_that_are_formulas_and_scalars(backend):
    n = T.iscalar("n")
    y = Times()(T.arange(n), T.zeros((n,), dtype="int64") + 2)
    z = Square()(T.constant(3.0))
    got = run(backend, [n], [y, z], 4)
    np.testing.assert_array_equal(got[0], [0, 2, 4, 6])
    assert got[1] == 9 and got[1].shape == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_dtype(backend):
    class Same(gof.Op):
        __props__ = ()

        def infer(self, x):
            return x.type

        def perform(self, node, inputs, output_storage):
            assert inputs[0].dtype == node.inputs[0].dtype == node.outputs[0].dtype
            output_storage[0][0] = inputs[0]

    for kind in ("bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64"):
        x = T.tensor(kind, (None, None))
        a = np.array([[0, 1, 1], [1, 0, 5]]).astype(kind)
        got = run(backend, [x], Same()(x), a)
        assert got.dtype == kind
        np.testing.assert_array_equal(got, a)


# --- loops ------------------------------------------------------------------------------------


def recurrence(f, x, h, w):
    hs, _ = tinygraph.scan(lambda x_t, h, w: T.tanh(T.dot(f(h), w) + x_t) * 0.5, sequences=x,
                           outputs_info=h, non_sequences=w)
    return hs


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_a_loop_forward_and_backward_and_twice(backend):
    x, h, w = T.tensor3("x"), T.matrix("h"), T.matrix("w")
    rng = np.random.default_rng(1)
    arrays = rng.normal(size=(4, 5, 2)), rng.normal(size=(5, 2)), rng.normal(size=(2, 2))
    results = []
    for f, on in ((Square(), backend), (lambda v: v * v, "numpy")):
        hs = recurrence(f, x, h, w)
        grads = tinygraph.grad((hs[-1] ** 2).sum() + hs.sum(), [x, h, w])
        second = tinygraph.grad((grads[2] ** 2).sum(), w)
        results.append(run(on, [x, h, w], [hs, *grads, second], *arrays))
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_nested_loops(backend):
    x = T.matrix("x")

    def inner(row, f):
        steps, _ = tinygraph.scan(lambda v: f(v) * 0.5 + row, outputs_info=T.zeros_like(row),
                                  n_steps=3)
        return steps[-1]

    results = []
    for f, on in ((Square(), backend), (lambda v: v * v, "numpy")):
        ys, _ = tinygraph.scan(lambda row, f=f: inner(row, f), sequences=x)
        results.append(run(on, [x], [ys, tinygraph.grad(ys.sum(), x)],
                           np.linspace(-1, 1, 6).reshape(3, 2)))
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_runs_once_per_step_and_never_in_tiles():
    seen = []

    class Watched(Square):
        def perform(self, node, inputs, output_storage):
            seen.append(threading.get_ident())
            super().perform(node, inputs, output_storage)

    x, h, w = T.tensor3("x"), T.matrix("h"), T.matrix("w")
    f = tinygraph.function([x, h, w], recurrence(Watched(), x, h, w))
    plain = tinygraph.function([x, h, w], recurrence(lambda v: v * v, x, h, w))
    assert "for tile" in plain.source("loops") and "for tile" not in f.source("loops")
    with tinygraph.config.change(threads=2):
        f(np.zeros((7, 64, 8)), np.zeros((64, 8)), np.zeros((8, 8)))
    assert seen == [threading.get_ident()] * 7


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_steps_call_nothing(backend):
    x, h, w = T.tensor3("x"), T.matrix("h"), T.matrix("w")
    got = run(backend, [x, h, w], recurrence(Faulty("raise"), x, h, w),
              np.zeros((0, 2, 2)), np.zeros((2, 2)), np.zeros((2, 2)))
    assert got.shape == (0, 2, 2)


# --- sizes that only the run knows ------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_size_that_nobody_says_is_found_by_running(backend):
    x = T.vector("x")
    y = Filter()(x * 2)
    cost = (y ** 2).mean()
    f = tinygraph.function([x], [y, y.shape[0], cost, tinygraph.grad(cost, x)], backend=backend)
    for a in ([1.0, -1.0, 2.0], [1.0, 2.0, 3.0], [1.0, -1.0, 2.0], [4.0, -1.0], [1.0, 1.0]):
        a = np.array(a)
        kept = 2 * a[a > 0]
        got = f(a)
        np.testing.assert_allclose(got[0], kept)
        assert got[1] == len(kept)
        np.testing.assert_allclose(got[2], (kept ** 2).mean())
        np.testing.assert_allclose(got[3], np.where(a > 0, 8 * a / len(kept), 0))


def test_such_a_size_in_a_loop_is_refused_in_words():
    x = T.matrix("x")
    ys, _ = tinygraph.scan(lambda row: Filter()(row), sequences=x)
    with pytest.raises(ShapeError, match=r"infer_shape\(self, node, shapes\) of Filter"):
        tinygraph.function([x], ys)


def test_infer_shape_that_returns_something_else():
    class Wrong(Wrap):
        def infer_shape(self, node, shapes):
            return [shapes[0]]

    with pytest.raises(TypeError, match=r"infer_shape of Wrong.* \(float64 vector, float64 vector"):
        Wrong()(T.vector(), T.vector())


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "error", "text"), [
    ("raise", KeyError, "mine"),
    ("interrupt", KeyboardInterrupt, None),
    ("dtype", TypeError, r"perform of Faulty gave float32 for output 0, which is float64"),
    ("shape", ShapeError, r"gave shape \(1,\) for output 0, which has \(3,\).*infer_shape"),
    ("rank", ShapeError, r"gave shape \(1, 3\) for output 0"),
    ("empty", ValueError, r"left output 0 empty; write output_storage\[0\]\[0\] = array"),
])
def test_errors_are_the_users_and_change_nothing(backend, kind, error, text):
    x, w = T.vector("x"), tinygraph.shared(np.zeros(3), name="w")
    f = tinygraph.function([x], Faulty(kind)(x + 1), updates=[(w, w + x)], backend=backend)
    for _ in range(4):  # the native entrance would come after two calls
        with pytest.raises(error, match=text) as caught:
            f(np.ones(3))
        notes = getattr(caught.value, "__notes__", None) or [str(caught.value.__cause__)]
        assert f"in perform of Faulty, applied at {__file__}:" in notes[0]
        np.testing.assert_array_equal(w.get_value(), np.zeros(3))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_error_in_a_step(backend):
    class Third(gof.Op):
        def __init__(self):
            self.calls = 0

        def infer(self, x):
            return x.type

        def perform(self, node, inputs, output_storage):
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("the third step")
            output_storage[0][0] = inputs[0] + 1

    op, h = Third(), T.vector("h")
    hs, _ = tinygraph.scan(lambda h: op(h), outputs_info=h, n_steps=5)
    f = tinygraph.function([h], hs[-1], backend=backend)
    with pytest.raises(RuntimeError, match="the third step"):
        f(np.zeros(2))
    assert op.calls == 3
    np.testing.assert_array_equal(f(np.zeros(2)), [5, 5])


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_perform_keeps_or_writes_to_is_its_own(backend):
    kept = []

    class Greedy(gof.Op):
        def infer(self, x):
            return x.type

        def perform(self, node, inputs, output_storage):
            kept.append(inputs[0])
            output_storage[0][0] = inputs[0]
            inputs[0][...] *= 2

    x = T.vector("x")
    y = x + 1
    f = tinygraph.function([x], [Greedy()(y), y * 1], backend=backend)
    for _ in range(4):
        got = f(np.arange(3.0))
        np.testing.assert_array_equal(got[0], [2, 4, 6])
        np.testing.assert_array_equal(got[1], [1, 2, 3])
    got[0][...] = 7
    assert all(np.array_equal(a, [2, 4, 6]) for a in kept)


def test_perform_may_call_compiled_functions_itself():
    x = T.vector("x")
    inner = tinygraph.function([x], T.exp(Square()(x)))

    class Outer(gof.Op):
        def infer(self, x):
            return x.type

        def perform(self, node, inputs, output_storage):
            output_storage[0][0] = inner(inputs[0])

    f = tinygraph.function([x], Outer()(x) + 1)
    for _ in range(4):
        np.testing.assert_allclose(f(np.arange(3.0)), np.exp(np.arange(3.0) ** 2) + 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_perform_must_leave_variables_alone_that_are_being_updated(backend):
    w = tinygraph.shared(np.zeros(2), name="w")
    count = tinygraph.shared(0, name="count")

    class Meddling(gof.Op):
        def __init__(self, store):
            self.store = store

        def infer(self, x):
            return x.type

        def perform(self, node, inputs, output_storage):
            self.store()
            output_storage[0][0] = inputs[0] + w.get_value()

    x = T.vector("x")
    add = tinygraph.function([], updates=[(w, w + 1)], backend=backend)
    for store in (lambda: w.set_value(np.ones(2)), add):
        f = tinygraph.function([x], Meddling(store)(x), updates=[(w, w + x)], backend=backend)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="which would wait for itself"):
                f(np.ones(2))
        np.testing.assert_array_equal(w.get_value(), [0, 0])
    seen = Meddling(lambda: count.set_value(count.get_value() + 1))(x)
    f = tinygraph.function([x], seen, updates=[(w, w + x)], backend=backend)
    np.testing.assert_array_equal(f(np.ones(2)), [1, 1])
    assert count.get_value() == 1


def test_python_sees_denormal_numbers():
    class Tiny(gof.Op):
        def infer(self, x):
            return x.type

        def perform(self, node, inputs, output_storage):
            self.tiny = np.float64(1e-308) / np.float64(1e10)
            output_storage[0][0] = inputs[0]

    op, x = Tiny(), T.vector("x")
    tinygraph.function([x], op(x))(np.ones(2))
    assert op.tiny > 0


def test_many_threads_call_one_function():
    x = T.vector("x")
    f = tinygraph.function([x], Square()(Square()(x)) + 1)
    wrong = []

    def work(k):
        for n in range(60):
            a = np.full(50 + k, float(n))
            if not np.array_equal(f(a), a ** 4 + 1):
                wrong.append((k, n))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


# --- gradients that are not there -------------------------------------------------------------


class Partial(gof.Op):
    """x * k, for an integer k."""

    def __init__(self, what):
        self.what = what

    def infer(self, x, k):
        return x.type

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = inputs[0] * inputs[1]

    def grad(self, inputs, output_gradients):
        x, k = inputs
        other = {"none": lambda: None, "disconnected": DisconnectedType(),
                 "unwritten": lambda: grad_not_implemented(self, 1, k),
                 "undefined": lambda: grad_undefined(self, 1, k, "k counts")}[self.what]()
        return [output_gradients[0] * k, other]


@pytest.mark.parametrize("what", ["none", "disconnected", "unwritten", "undefined"])
def test_a_gradient_that_is_not_there_matters_only_if_it_is_needed(what):
    x, k = T.vector("x"), T.iscalar("k")
    y = Partial(what)(x, k).sum()
    got = run("llvm", [x, k], tinygraph.grad(y, x), np.ones(2), 3)
    np.testing.assert_array_equal(got, [3, 3])
    through = Partial(what)(x, T.cast(x.sum(), "int32")).sum()
    if what in ("none", "disconnected"):
        tinygraph.grad(through, x)
    else:
        fact = "is not implemented" if what == "unwritten" else "is undefined: k counts"
        with pytest.raises(NotDifferentiableError, match=f"Partial by its input 1, .*{fact}"):
            tinygraph.grad(through, x)


def test_gradients_that_do_not_fit_are_refused_in_words():
    class Wrong(Square):
        def __init__(self, answer):
            self.answer = answer

        __props__ = None

        def grad(self, inputs, output_gradients):
            return self.answer(inputs[0], output_gradients[0])

    x = T.vector("x")
    for answer, text in ((lambda x, g: [], "one entry for each of its 1 inputs, not 0"),
                         (lambda x, g: [g.sum()], "must have 1 axes, as the input, not 0"),
                         (lambda x, g: [T.ones((1,))], "size 1 along axis 0")):
        with pytest.raises((TypeError, ShapeError), match=text):
            tinygraph.grad(Wrong(answer)(x).sum(), x)
    with pytest.raises(NotImplementedError, match="FilterGradient has no grad"):
        tinygraph.grad(FilterGradient()(x, x).sum(), x)


# --- one op or two ----------------------------------------------------------------------------


def test_equal_applications_run_once():
    counts = []

    class Counted(Wrap):
        def perform(self, node, inputs, output_storage):
            counts.append(self.factor)
            super().perform(node, inputs, output_storage)

    x, y = T.vector("x"), T.vector("y")
    outputs = [Counted(k)(x, y)[0] for k in (2, 2, 3)]
    got = run("llvm", [x, y], outputs, np.ones(2), np.ones(2))
    assert sorted(counts) == [2, 3] and [a[0] for a in got] == [2, 2, 3]


def test_eq_without_hash_is_refused_in_words():
    class NoHash(gof.Op):
        def __eq__(self, other):
            return True

        def infer(self, x):
            return x.type

    x = T.vector("x")
    with pytest.raises(TypeError, match="NoHash defines __eq__ but no __hash__"):
        tinygraph.function([x], NoHash()(x))


def test_types_are_callable_and_types():
    x = T.row("x", dtype="float32")
    y = x.type("y")
    assert y.type == x.type and y.name == "y" and y.broadcastable == (True, False)
    assert isinstance(y, T.TensorVariable) and y.owner is None and y is not x
    assert x.type.dtype in T.float_dtypes and x.type.dtype == "float32"
    assert x.type.dtype not in T.discrete_dtypes
    z = T.Tensor(dtype=x.type.dtype, broadcastable=x.type.broadcastable)()
    assert z.dtype == "float32" and z.broadcastable == (True, False)
    assert y.type in (T.fmatrix, T.frow) and y.type != T.fmatrix and T.frow == y.type
    assert y.type == T.TensorType("float32", (True, False)) and y.type != T.ivector
    w = pickle.loads(pickle.dumps(tinygraph.shared(np.ones(2), name="w")))
    assert w.type().ndim == 1


def test_apply_takes_new_variables_only():
    x = T.vector("x")
    with pytest.raises(TypeError, match="its outputs must be new variables such as x.type()"):
        gof.Apply(Square(), [x], [x + 1])


def test_leaves_in_the_order_of_theano():
    v, w, m = T.vector("v"), T.vector("w"), T.matrix("m")
    assert gof.graph.inputs(reversed([v + w, m.sum()])) == [v, w, m]
    assert gof.graph.inputs([v + w, m.sum()]) == [m, v, w]
    assert gof.graph.inputs([(v + w) * m]) == [v, w, m]
    (number,) = [u for u in gof.graph.inputs([v * 2]) if u is not v]
    assert number.eval() == 2
    middle = v + w
    assert gof.graph.inputs([middle * m], blockers=[middle]) == [m]


# --- kept and pickled -------------------------------------------------------------------------


def test_a_function_with_an_op_in_python_is_not_kept_on_disk(tmp_path):
    x = T.vector("x")
    with tinygraph.config.change(cache="on", cache_dir=str(tmp_path)):
        tinygraph.function([x], Square()(x))(np.ones(2))
        assert not list(tmp_path.glob("*.entry"))
        tinygraph.function([x], x * x)(np.ones(2))
        assert list(tmp_path.glob("*.entry"))


def test_a_function_with_an_op_in_python_is_pickled():
    x = T.vector("x")
    f = tinygraph.function([x], Square()(x) + 1)
    g = pickle.loads(pickle.dumps(f))
    np.testing.assert_array_equal(g(np.arange(3.0)), [1, 2, 5])


# --- natively ---------------------------------------------------------------------------------


def thrice(x, out, g):
    return g * 3 * x * x


cube = tinygraph.elementwise_op("cube", lambda x: x * x * x, grad=thrice)
mixed = tinygraph.elementwise_op("mixed", lambda x, y: T.tanh(x) * y,
                                 grad=lambda x, y, out, g: [g * 100, out * g])


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_elementwise_op_with_its_own_gradient(backend):
    x, r = T.matrix("x"), T.row("r")
    slope = tinygraph.grad(cube(x).sum(), x)
    curve = tinygraph.grad(slope.sum(), x)
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, -1.0]])
    m = mixed(x, r)
    got = run(backend, [x, r], [cube(x), slope, curve, tinygraph.grad(curve.sum(), x), m,
                                *tinygraph.grad(m.sum(), [x, r])], a, b)
    out = np.tanh(a) * b
    want = [a ** 3, 3 * a ** 2, 6 * a, 6 + 0 * a, out, 100 + 0 * a, out.sum(0, keepdims=True)]
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-12)


@pytest.mark.counts
def test_an_elementwise_op_is_compiled_with_what_is_around_it():
    x = T.vector("x")
    f = tinygraph.function([x], T.exp(cube(x + 1)))
    plain = tinygraph.function([x], T.exp((x + 1) * (x + 1) * (x + 1)))
    assert f.source("loops") == plain.source("loops") and "cube" in f.after("close")


def test_an_elementwise_op_in_a_loop_and_on_disk(tmp_path):
    x = T.vector("x")
    hs, _ = tinygraph.scan(lambda h: cube(h) * 0.5 + h, outputs_info=x, n_steps=3)
    h = x
    for _ in range(3):
        h = h * h * h * 0.5 + h
    outputs = [hs[-1], tinygraph.grad(hs[-1].sum(), x), h, tinygraph.grad(h.sum(), x)]
    with tinygraph.config.change(cache="on", cache_dir=str(tmp_path)):
        tinygraph.function([x], outputs)
        f = tinygraph.function([x], outputs)
        assert f.report().cached
    a, b, c, d = f(np.linspace(-1, 1, 5))
    np.testing.assert_allclose(a, c, rtol=1e-12)
    np.testing.assert_allclose(b, d, rtol=1e-12)


def test_what_is_not_elementwise_is_refused():
    x, v = T.vector("x"), T.vector("v")
    with pytest.raises(TypeError, match="scaled must be elementwise, but of scalars it is a float"):
        tinygraph.elementwise_op("scaled", lambda x: x * v)(x)
    with pytest.raises(TypeError, match="of elementwise functions; dot"):
        tinygraph.elementwise_op("product", lambda x: T.dot(x.dimshuffle("x"), T.ones(1)))(x)
    with pytest.raises(TypeError, match="one entry for each of its 2 inputs"):
        bad = tinygraph.elementwise_op("bad", lambda x, y: x + y, grad=lambda x, y, out, g: g)
        tinygraph.grad(bad(x, v).sum(), x)


def test_an_elementwise_op_pickles_or_says_why_not():
    x = T.vector("x")
    f = pickle.loads(pickle.dumps(tinygraph.function([x], cube(x))))
    np.testing.assert_array_equal(f(np.arange(3.0)), [0, 1, 8])
    with pytest.raises(TypeError, match="the gradient of mixed is a lambda"):
        pickle.dumps(tinygraph.function([x], mixed(x, x)))


def test_the_example_runs(capsys):
    runpy.run_path(str(EXAMPLES / "write_an_op.py"), run_name="__main__")
    assert "through a loop: [[ 0.0625  8.     -8.    ]]" in capsys.readouterr().out
