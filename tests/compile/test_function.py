"""``function``: outputs, updates, givens, default updates, what is missing or unused, checks."""

import io
import pickle
import threading
from collections import OrderedDict

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import In, function, shared
from tinygraph.compile import check
from tinygraph.errors import CheckError, MissingInputError, ShapeError, UnusedInputError


@pytest.fixture(autouse=True, params=["numpy", "llvm"])
def backend(request):
    with tinygraph.config.change(backend=request.param):
        yield request.param


def vector(n=None):
    return shared(np.zeros(n or 2), "w")


# --- outputs ---


def test_forms_of_outputs():
    x = T.dscalar("x")
    one = function([x], x + 1)(1)
    assert type(one) is np.ndarray and one.shape == () and one == 2
    assert function([x], [x + 1])(1) == [2]
    assert function([x], (x, x + 1))(1) == [1, 2]
    assert function([x], {"a": x, "b": x + 1})(1) == {"a": 1, "b": 2}
    assert function([], None)() == [] and function([])() == [] and function([], [])() == []
    with pytest.raises(TypeError, match="outputs"):
        function([x], 3)


def test_results_are_the_callers_own():
    w, x = shared(np.ones(3), "w"), T.dvector("x")
    f = function([x], [x, x, w, w + 0], updates=[(w, w + 1)])
    a = np.zeros(3)
    first = f(a)
    for r in first:
        r += 100
    np.testing.assert_array_equal(a, 0)
    np.testing.assert_array_equal(w.get_value(), 2)
    second = f(a)
    np.testing.assert_array_equal(first[2], 101)
    np.testing.assert_array_equal(second[2], 2)
    assert not any(np.shares_memory(p, q) for p in first for q in second)


def test_an_intermediate_variable_may_be_an_input():
    x = T.dvector("x")
    y = T.concatenate([x, x * 2])
    z = y + T.ones_like(y)
    np.testing.assert_array_equal(function([y], z)([1, 2, 3]), [2, 3, 4])
    np.testing.assert_array_equal(function([x, y], z + x.sum())([1], [2, 3]), [4, 5])
    with pytest.raises(UnusedInputError):
        function([x, y], T.exp(y))
    with pytest.raises(MissingInputError, match="axis 0 of x"):
        function([y], z.sum() + x.shape[0])


# --- updates ---


def test_updates_read_old_values():
    a, b = shared(np.float64(1), "a"), shared(np.float64(2), "b")
    f = function([], [a, b], updates=[(a, b), (b, a)])
    assert f() == [1, 2] and f() == [2, 1] and a.get_value() == 1


@pytest.mark.parametrize("form", [list, dict, OrderedDict, lambda pairs: [list(p) for p in pairs]])
def test_forms_of_updates(form):
    w = vector()
    function([], updates=form([(w, w + 1)]))()
    np.testing.assert_array_equal(w.get_value(), 1)


def test_an_input_may_be_stored():
    w, x = vector(), T.dvector("x")
    f = function([x], updates=[(w, x)])
    a = np.ones(2)
    f(a)
    a[:] = 5
    np.testing.assert_array_equal(w.get_value(), 1)
    f(np.ones(7))
    assert w.get_value().shape == (7,)


def test_wrong_updates():
    w, x = vector(), T.dvector("x")
    with pytest.raises(ValueError, match="w .* twice"):
        function([], updates=[(w, w + 1), (w, w + 2)])
    with pytest.raises(ValueError, match="clone"):
        function([], updates=[(w, w + 1), (w.clone(), w + 2)])
    with pytest.raises(TypeError, match="not a shared variable"):
        function([x], updates=[(x, x + 1)])
    with pytest.raises(TypeError, match="pairs"):
        function([x], updates=[w])
    f32 = shared(np.zeros(2, "float32"), "f32")
    with pytest.raises(TypeError, match=r"f32 .*T.cast\(\.\.\., 'float32'\)"):
        function([], updates=[(f32, w)])
    with pytest.raises(TypeError, match="update of w"):
        function([], updates=[(w, f32)])
    with pytest.raises(TypeError, match="update of w"):
        function([], updates=[(w, w.sum())])
    flat = shared(np.zeros((1, 2)), "flat")
    function([], updates=[(flat, T.ones((1, 2), dtype="float64"))])()
    np.testing.assert_array_equal(flat.get_value(), [[1, 1]])
    flagged = shared(np.zeros((1, 2)), "flagged", broadcastable=(True, False))
    with pytest.raises(TypeError, match="known to have size 1: write T.addbroadcast"):
        function([], updates=[(flagged, flat)])


def test_a_call_that_fails_stores_nothing():
    w, x = shared(np.zeros(3), "w"), T.dvector("x")
    f = function([x], (w + x).sum(), updates=[(w, w + 1)])
    with pytest.raises(ShapeError, match="axis 0"):
        f(np.ones(2))
    np.testing.assert_array_equal(w.get_value(), 0)
    f(np.ones(3))
    np.testing.assert_array_equal(w.get_value(), 1)


def test_size_one_does_not_broadcast_by_chance():
    x, y = T.dmatrix("x"), T.dmatrix("y")
    f = function([x, y], x + y)
    with pytest.raises(ShapeError, match="addbroadcast"):
        f(np.ones((1, 3)), np.ones((2, 3)))


# --- givens ---


def test_givens_replace_inputs_shared_and_intermediates():
    x, z, w = T.dvector("x"), T.dvector("z"), shared(np.ones(2), "w")
    h = x * 2
    y = h + w
    np.testing.assert_array_equal(function([z], y, givens={x: z + 1})([1, 2]), [5, 7])
    np.testing.assert_array_equal(function([x, z], y, givens=[(w, z)])([1, 2], [10, 20]), [12, 24])
    np.testing.assert_array_equal(function([z], y, givens={h: z})([1, 2]), [2, 3])
    np.testing.assert_array_equal(function([], y, givens={x: np.array([1.0, 2.0])})(), [3, 5])
    with pytest.raises(UnusedInputError, match="x"):
        function([x], y, givens={x: w})


def test_givens_reach_updates_and_sizes():
    x, data, i = T.dmatrix("x"), shared(np.arange(12.0).reshape(6, 2), "data"), T.iscalar("i")
    w = shared(np.zeros(2), "w")
    rows = x.shape[0] + T.zeros_like(x).sum()
    f = function([i], [x.sum(), rows], updates={w: w + x.sum(axis=0)},
                 givens={x: data[i * 2:(i + 1) * 2]})
    assert f(1) == [22, 2]
    np.testing.assert_array_equal(w.get_value(), [10, 12])


def test_givens_of_another_size():
    x, z, w = T.dvector("x"), T.dvector("z"), shared(np.ones(2), "w")
    h, ones = x * 2, T.ones_like(x * 2)
    h.name, ones.name = "h", "ones"
    y = (h + ones).sum()
    with pytest.raises(ShapeError, match="of ones"):  # which is as long as x, whatever h is
        function([x, z], y, givens={h: z})([1], [1, 2])
    assert function([x, z], h.sum() + T.ones_like(x).sum(), givens={h: z})([1], [1, 2]) == 4
    assert function([z], (w + T.ones_like(w)).sum(), givens={w: z})([1, 2, 3]) == 9
    a, b = T.dvector("a"), T.dvector("b")
    f = function([a, b], [a + T.ones_like(a), b], givens={a: b, b: a})
    assert [r.tolist() for r in f([1], [2, 3])] == [[3, 4], [1]]
    np.testing.assert_array_equal(
        function([a], a + T.ones_like(a), givens={a: a[1:]})([1, 2, 3]), [3, 4])


def test_givens_replace_sizes_that_are_values():
    n, m = T.iscalar("n"), T.iscalar("m")
    y = T.zeros((n * n, 2))
    assert function([m], y, givens={n: m + 1})(1).shape == (4, 2)
    steps, _ = tinygraph.scan(lambda h: h * 2, outputs_info=[T.ones((2,), dtype="float64")],
                              n_steps=n)
    assert function([m], steps, givens={n: m + 1})(2).shape == (3, 2)


def test_givens_inside_a_scan():
    x, z, h0 = T.dmatrix("x"), T.dmatrix("z"), T.dvector("h0")
    out, _ = tinygraph.scan(lambda row, h: row + h * T.ones_like(h), sequences=[x],
                            outputs_info=[h0])
    f = function([z], out, givens={x: z * 2, h0: z[0]})
    np.testing.assert_array_equal(f(np.ones((3, 2))), [[3, 3], [5, 5], [7, 7]])


def test_givens_must_have_the_type():
    x, y = T.ivector("x"), T.bvector("y")
    with pytest.raises(TypeError, match=r"givens: x .*T.cast\(\.\.\., 'int32'\)"):
        function([y], x * 1, givens={x: y})
    with pytest.raises(TypeError, match="one type"):
        function([], x * 1, givens={x: T.iscalar("s")})
    r, m = T.drow("r"), T.dmatrix("m")
    with pytest.raises(TypeError, match="axis 0 of r"):
        function([m], r * 1, givens={r: m})
    with pytest.raises(ValueError, match="twice"):
        function([y], x * 1, givens=[(x, x + 1), (x, x + 2)])


# --- default updates ---


def test_default_updates():
    w, v = shared(np.float64(0), "w"), shared(np.float64(0), "v")
    w.default_update = w + 1
    v.default_update = v + w
    use = function([], w * 2)
    assert use() == 0 and use() == 2 and w.get_value() == 2
    function([], v * 1)()  # v uses w only through v's own update
    assert w.get_value() == 3 and v.get_value() == 2
    function([], w * 1, updates=[(w, w + 10)])()
    assert w.get_value() == 13
    function([], w * 1, no_default_updates=True)()
    function([], w * 1, no_default_updates=[w])()
    assert w.get_value() == 13
    x = T.dscalar("x")
    function([x], x)(1)
    assert w.get_value() == 13
    w.default_update = T.constant(1, dtype="int8")
    with pytest.raises(TypeError, match="update of w"):
        function([], w * 1)


def test_a_default_update_written_with_a_clone():
    mean, x = shared(np.zeros(2), "mean"), T.dmatrix("x")
    running = tinygraph.clone(mean, share_inputs=False)
    running.default_update = 0.5 * running + 0.5 * x.mean(axis=0)
    f = function([x], (x - x.mean(axis=0) + 0 * running).sum())
    f(np.ones((4, 2)))
    np.testing.assert_array_equal(mean.get_value(), 0.5)


# --- inputs that are missing, unused, or of the wrong kind ---


def test_missing_inputs():
    x, y = T.dvector("x"), T.dvector("y")
    with pytest.raises(MissingInputError, match=r"y \(float64 vector, .*test_function.py:\d+\)"):
        function([x], x + y)
    with pytest.raises(MissingInputError, match="axis 0 of y"):
        function([], y.shape[0])
    n = T.iscalar("n")
    with pytest.raises(MissingInputError, match="n "):
        function([], T.zeros((n * n,)))


def test_unused_inputs():
    x, y = T.dvector("x"), T.dvector("y")
    with pytest.raises(UnusedInputError, match="y "):
        function([x, y], x)
    with pytest.warns(UserWarning, match="y ") as caught:
        function([x, y], x, on_unused_input="warn")
    assert caught[0].filename == __file__
    assert function([x, y], x.sum(), on_unused_input="ignore")([1], [2]) == 1
    with pytest.raises(UnusedInputError, match="twice"):
        function([x, x], x)
    assert function([x], x.shape[0])([1, 2, 3]) == 3
    with pytest.raises(ValueError, match="on_unused_input"):
        function([x, y], x, on_unused_input="no")


def test_wrong_inputs():
    x, w = T.dvector("x"), vector()
    with pytest.raises(TypeError, match="shared"):
        function([w], w * 1)
    with pytest.raises(TypeError, match="must be a list"):
        function(x, x * 1)
    with pytest.raises(TypeError, match="inputs must hold variables"):
        function([3], x)
    with pytest.raises(TypeError, match="'output'"):
        tinygraph.function([x], x, output=x)


def test_sizes_of_shared_variables_alone():
    w = vector(5)
    assert function([], w.shape[0])() == 5


# --- builds ---


def test_a_new_shape_of_a_shared_variable_is_built_once():
    w = vector(2)
    f = function([], w.sum())
    assert f.compiles == 1
    for n in (3, 2, 3, 2):
        w.set_value(np.ones(n))
        assert f() == n
    assert f.compiles == 2


def test_a_growing_shared_variable_stops_building():
    w = vector(1)
    f = function([], w.sum(), updates=[(w, T.concatenate([w, T.ones_like(w)]))])
    for _ in range(10):
        f()
    assert w.get_value().shape == (1024,) and f.compiles <= 6


def test_reentrant():
    x = T.dmatrix("x")
    f = function([x], T.dot(x, x).sum())
    wrong = []

    def run(k):
        for _ in range(50):
            if f(np.full((3, 3), float(k))) != 27 * k * k:
                wrong.append(k)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not wrong


# --- check=True ---


class Wrong:
    """An executable that is off by ``error`` in the last element of its first output."""

    home = None

    def __init__(self, executable, error):
        self.executable, self.error = executable, error

    def __call__(self, arrays, out):
        results = self.executable(arrays, out)
        results[0].reshape(-1)[-1] += self.error
        return results


@pytest.mark.parametrize("kind, small, large", [("float32", 1e-5, 1e-2), ("float64", 1e-12, 1e-8)])
def test_check_compares_with_the_interpreter(kind, small, large):
    x = T.matrix("x", dtype=kind)
    w = shared(np.zeros((), kind), "w")
    f = function([x], x * 2 + w, updates=[(w, w + 1)], check=True)
    shapes, executable = f._ready
    one = np.ones((2, 2), kind)
    f._ready = (shapes, Wrong(executable, small))
    f(one)
    f._ready = (shapes, Wrong(executable, large))
    with pytest.raises(CheckError, match=r"output 0.*position \(1, 1\).*interpreter"):
        f(one)
    assert w.get_value() == 1


def test_check_names_what_made_a_nan():
    x = T.dvector("x")
    y = T.log(x)
    y.name = "score"
    f = function([x], (y * 2).sum(), check=True)
    f([1.0, 2.0])
    with pytest.raises(CheckError, match=r"first nan is made by log\(x\) .*'score'.*test_function"):
        f([1.0, -2.0])
    with pytest.raises(CheckError, match="first inf is made by log"):
        f([1.0, 0.0])
    assert np.isnan(f([1.0, np.nan]))


def test_check_names_the_step_of_a_scan():
    h0, w = T.dscalar("h0"), shared(np.float64(0), "w")
    out, _ = tinygraph.scan(lambda h: T.sqrt(h - 1) * 1.0, outputs_info=[h0], n_steps=5)
    f = function([h0], out[-1], updates=[(w, out[-1])], check=True)
    with pytest.raises(CheckError, match="made by sqrt.* in step 3 .*of the scan"):
        f(20.0)
    assert w.get_value() == 0


def test_tolerances_are_those_of_the_dtypes():
    assert check.TOLERANCE == {"float32": 1e-4, "float64": 1e-10}


# --- looking, pickling, evaluating ---


def test_attributes():
    x, w = T.dvector("x"), vector()
    f = function([x], x * w, updates=[(w, w + 1)], name="step", backend="numpy")
    assert f.name == "step" and f.inputs == [x] and f.shared == [w] and list(f.updates) == [w]
    assert repr(f) == "<function step(x) -> [float64[x_0]] updates w>"
    assert "step" in str(f.report()) and f.report().native_functions == 0 and "mul" in f.source()
    with pytest.raises(ValueError, match="no passes"):
        f.after("fuse")


def test_pickle():
    x, w = T.dmatrix("x"), shared(np.ones((2, 3)), "w")
    out, _ = tinygraph.scan(lambda row, h: T.tanh(row + h * w[0].sum()), sequences=[x],
                            outputs_info=[T.zeros_like(x[0])])
    f = function([x, In(T.dscalar("s"), value=2.0)], out * 1, updates=[(w, w + 1)],
                 on_unused_input="ignore", name="step")
    g = pickle.loads(pickle.dumps(f))
    a = np.random.RandomState(0).rand(4, 3)
    for _ in range(3):
        np.testing.assert_array_equal(f(a), g(a))
    assert g.name == "step" and g.compiles == 1
    w.set_value(np.zeros((2, 3)))
    assert not np.array_equal(f(a), g(a))


def test_eval():
    x, w = T.dvector("x"), shared(np.array([1.0, 2.0]), "w")
    y = x * w
    np.testing.assert_array_equal(y.eval({x: [3, 4]}), [3, 8])
    np.testing.assert_array_equal((y + 1).eval({y: [3, 4]}), [4, 5])
    assert (w * 2).eval()[1] == 4 and x.shape[0].eval({x: [1, 2, 3]}) == 3
    for wrong in ({}, {x: [1, 2], T.dvector("other"): [1]}):
        with pytest.raises(MissingInputError, match="x |other "):
            y.eval(wrong)
    with pytest.raises(MissingInputError, match="axis 0 of x"):
        x.shape[0].eval()
    with pytest.raises(ShapeError):
        y.eval({x: [1.0]})
    with pytest.raises(TypeError, match="axes"):
        y.eval({x: 1.0})


def test_debugprint():
    x, w = T.dmatrix("x"), shared(np.ones(3), "w")
    out, _ = tinygraph.scan(lambda row, h: row + h, sequences=[x], outputs_info=[w])
    y = T.exp(out)
    y.name = "y"
    file = io.StringIO()
    text = tinygraph.debugprint(y, file=file)
    assert file.getvalue() == text + "\n"
    lines = text.splitlines()
    assert lines[0].startswith("x : float64[x_0, x_1]  at ")
    assert any(line.startswith("    %3 = add(") for line in lines)
    assert any("exp(%2)" in line and "'y'" in line and "test_function.py" in line
               for line in lines)
    assert lines[-1] == "return %4"
    assert tinygraph.debugprint(function([x], y), file=file).endswith("return %4")
    with pytest.raises(TypeError, match="debugprint"):
        tinygraph.debugprint(3)


def test_verify_grad():
    rng = np.random.RandomState(0)
    tinygraph.verify_grad(lambda a, b: T.tanh(T.dot(a, b)), [rng.rand(2, 3), rng.rand(3, 2)])
    with pytest.raises(tinygraph.GradientError, match="input 0"):
        tinygraph.verify_grad(lambda a: a * tinygraph.zero_grad(a), [rng.rand(3) + 1])
    with pytest.raises(TypeError, match="float"):
        tinygraph.verify_grad(lambda a: a, [np.arange(3)])
