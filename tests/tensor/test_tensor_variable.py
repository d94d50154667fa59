from __future__ import annotations

import pickle

import numpy as np
import pytest
from tensor_checks import check, leaf, run, value

import tinygraph.tensor as T
from tinygraph import config
from tinygraph.gradient_check import GradientError, verify_grad


@pytest.mark.parametrize("what, ndim", [
    ("scalar", 0), ("vector", 1), ("row", 2), ("col", 2), ("matrix", 2), ("tensor3", 3),
    ("tensor4", 4), ("tensor5", 5)])
@pytest.mark.parametrize("prefix, dtype", [
    ("", "float32"), ("b", "int8"), ("w", "int16"), ("i", "int32"), ("l", "int64"),
    ("f", "float32"), ("d", "float64")])
def test_constructors(what, ndim, prefix, dtype):
    x = getattr(T, prefix + what)("x")
    assert (x.dtype, x.ndim, x.name) == (dtype, ndim, "x")
    flags = {"row": (True, False), "col": (False, True)}.get(what, (False,) * ndim)
    assert x.broadcastable == flags
    assert all(d == 1 or d.const is None for d in x.type.dims)


def test_float_x_is_read_at_the_call():
    with config.change(floatX="float64"):
        x = T.matrix()
        assert T.zeros((2,)).dtype == T.alloc(0.0, 2).dtype == T.constant(1.5).dtype == "float64"
    assert (x.dtype, T.matrix().dtype) == ("float64", "float32")
    assert T.matrix(dtype="int32").dtype == "int32"


def test_several_at_once():
    x, y = T.matrices("x", "y")
    assert (x.name, y.name, x.ndim) == ("x", "y", 2)
    assert [v.dtype for v in T.ivectors(3)] == ["int32"] * 3


def test_sizes_say_where_they_come_from():
    x = T.matrix("x")
    (sym,) = x.type.dims[1].syms()
    assert sym.origin.startswith("axis 1 of x (") and "test_tensor_variable.py:" in sym.origin
    assert "test_tensor_variable.py:" in x.source
    assert "test_tensor_variable.py:" in (x + 1).source


def test_tensor_with_known_sizes():
    x = T.tensor("int8", (None, 3, 1), "x")
    assert [d.const for d in x.type.dims] == [None, 3, 1]
    assert x.broadcastable == (False, False, True)
    assert T.tensor(shape=(2,)).dtype == "float32"
    with pytest.raises(TypeError, match="size -1"):
        T.tensor("int8", (-1,))


def test_shape_unpacks(rng):
    x = rng.normal(size=(3, 4))
    check(lambda x: T.stack(list(x.shape)), np.array([3, 4]), x)
    check(lambda x: x.shape[1] * x.shape[0], np.int64(12), x)
    check(lambda x: x.size, np.int64(12), x)
    check(lambda x: T.as_tensor_variable(x.shape), np.array([3, 4]), x)
    var = T.matrix()
    rows, columns = var.shape
    assert rows.dtype == "int64" and len(tuple(var.shape)) == 2 and columns.ndim == 0


def test_a_path_through_the_shape_is_disconnected():
    x = T.vector("x")
    with pytest.raises(ValueError, match="shape alone"):
        T.grad(T.cast(x.shape[0], "float32"), x)


def test_equality_and_hash_are_identity():
    x, y = T.vector(), T.vector()
    assert x == x and x != y and x in {x: 1} and y not in [x]


def test_truth_values():
    x = T.scalar("x")
    assert bool(x) and bool(x + 1)
    for condition in (x < 1, T.eq(x, 1), (x > 0) & (x < 1), ~(x > 0)):
        with pytest.raises(TypeError, match="no truth value.*T.switch"):
            bool(condition)
    with pytest.raises(TypeError, match="write x.shape"):
        len(T.vector("v"))
    with pytest.raises(TypeError, match="v .*cannot be iterated"):
        iter(T.vector("v"))


def test_operators_with_arrays_on_either_side(rng):
    a, x = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    check(lambda x: a + x, a + x, x)
    check(lambda x: x - a, x - a, x)
    check(lambda x: np.float64(2) * x, 2 * x, x)
    check(lambda x: a @ x.T, a @ x.T, x)
    check(lambda x: 2 ** x, 2 ** x, x)
    check(lambda x: x ** 2 % 1.5, x ** 2 % 1.5, x)
    check(lambda x: -abs(x) // 0.3, -np.abs(x) // 0.3, x)
    check(lambda x: divmod(x, 0.7)[1], np.mod(x, 0.7), x)
    check(lambda i: 2 // i, 2 // np.array([1, 3]), np.array([1, 3]))
    check(lambda b: True & b, np.array([True, False]), np.array([True, False]))
    assert isinstance(a + T.dmatrix(), T.TensorVariable)


def test_methods_are_the_functions(rng):
    x = rng.uniform(0.2, 0.8, (2, 3))
    for name in ("exp", "log", "sqrt", "tanh", "sin", "cos", "log1p", "expm1", "floor", "ceil",
                 "arcsin", "arctan", "tan", "log2", "arctanh", "sinh", "cosh"):
        check(lambda x, name=name: getattr(x, name)(), getattr(np, name)(x), x)
    check(lambda x: x.zeros_like(), np.zeros((2, 3)), x)
    check(lambda x: x.ones_like("int8"), np.ones((2, 3), "int8"), x)
    check(lambda x: x.ravel(), x.ravel(), x)
    check(lambda x: x.ptp(), np.ptp(x), x)
    check(lambda x: x.copy(), x, x)
    check(lambda x: x.dot(x.T), x.dot(x.T), x)


def test_functions_take_arrays():
    (out,) = run([T.sum([1, 2, 3])], {})
    assert out == 6 and isinstance(T.sum([1, 2, 3]), T.TensorVariable)
    assert isinstance(T.exp(1.0), T.TensorVariable)
    assert isinstance(T.maximum(1, 2), T.TensorVariable)
    assert T.mean.__name__ == "mean" and T.sum.__name__ == "sum"


def test_constants():
    (out,) = run([T.constant(np.ones((1, 3)))], {})
    assert out.shape == (1, 3) and out.dtype == np.float64
    assert T.constant(np.ones((1, 3))).broadcastable == (True, False)
    assert T.constant([1, 2]).dtype == "int64"
    assert T.constant(2, dtype="float32", name="two").name == "two"
    assert T.as_tensor_variable(2.0, ndim=2).broadcastable == (True, True)
    x = T.scalar()
    assert T.as_tensor_variable(x) is x
    (out,) = run([T.as_tensor_variable([[x, 1.0], [0, x]])], {x: np.float32(5)})
    np.testing.assert_array_equal(out, [[5, 1], [0, 5]])
    with pytest.raises(TypeError, match="complex128"):
        T.constant(1j)


FILLED = [
    (lambda n: T.zeros((n, 2)), np.zeros((3, 2), "float32")),
    (lambda n: T.ones(n, dtype="int8"), np.ones(3, "int8")),
    (lambda n: T.zeros([2, n]), np.zeros((2, 3), "float32")),
    (lambda n: T.full((n,), 2.5), np.full(3, 2.5, "float32")),
    (lambda n: T.alloc(np.arange(2), n, 2), np.array([[0, 1]] * 3)),
    (lambda n: T.alloc(1.5, (n,)), np.full(3, 1.5, "float32")),
    (lambda n: T.zeros_like(T.ones((n, 1), "int16")), np.zeros((3, 1), "int16")),
    (lambda n: T.full_like(T.ones(n), 7), np.full(3, 7, "float32")),
    (lambda n: T.eye(n), np.eye(3, dtype="float32")),
    (lambda n: T.eye(n, 4, 1, "int64"), np.eye(3, 4, 1, "int64")),
    (lambda n: T.tri(n, k=-1), np.tri(3, k=-1, dtype="float32")),
    (lambda n: T.identity_like(T.ones((n, n))), np.eye(3, dtype="float32")),
    (lambda n: T.arange(n), np.arange(3)),
    (lambda n: T.arange(1, n + 4), np.arange(1, 7)),
    (lambda n: T.arange(n, -n - 1, -2), np.arange(3, -4, -2)),
    (lambda n: T.arange(n, 9, 4), np.arange(3, 9, 4)),
    (lambda n: T.arange(5, n), np.arange(0)),
    (lambda n: T.arange(n, dtype="float64"), np.arange(3.0)),
    (lambda n: T.arange(2, 9, 3), np.arange(2, 9, 3)),
    (lambda n: T.arange(0.0, 1.0, 0.25), np.arange(0, 1, 0.25, dtype="float32")),
    (lambda n: T.to_one_hot(T.arange(n), n + 1), np.eye(3, 4, dtype="float32")),
]


@pytest.mark.parametrize("k", range(len(FILLED)))
def test_filled_arrays(k):
    f, expected = FILLED[k]
    check(f, expected, np.int64(3))


@pytest.mark.parametrize("f, words", [
    (lambda: T.arange(T.scalar("a")), "bounds must be integers"),
    (lambda: T.arange(0, 3, T.iscalar("s")), "step must be a constant"),
    (lambda: T.zeros((T.scalar(), 2)), "integer scalar"),
    (lambda: T.matrix(3), "the name must be a string"),
    (lambda: T.fmatrix("x", dtype="int8"), "takes no other"),
    (lambda: T.TensorType("complex64", ()), "not supported"),
])
def test_mistakes(f, words):
    with pytest.raises(TypeError, match=words):
        f()


def test_variables_are_pickled_with_their_graphs():
    x = T.matrix("x")
    x.tag.note = "kept"
    y = pickle.loads(pickle.dumps(T.tanh(x[1:]) + 1))
    assert isinstance(y, T.TensorVariable) and y.owner is not None and x.owner is None


def test_verify_grad_tells_the_input_and_the_numbers(rng):
    from tinygraph.gradient import zero_grad

    with pytest.raises(GradientError, match=r"input 1 \(shape \(3,\), float64\).*is 0, but"):
        verify_grad(lambda x, y: x * zero_grad(y), [rng.normal(size=3), rng.normal(size=3)])
    with pytest.raises(TypeError, match="input 0 is int64"):
        verify_grad(T.exp, [np.arange(3)])
    verify_grad(T.tanh, [rng.normal(size=(2, 3)).astype("float32")])
    verify_grad(lambda x: x.sum() * 2, [rng.normal(size=(1, 3))], eps=1e-4, abs_tol=1e-6, rel_tol=0)


def test_results_of_leaves_keep_the_class():
    x = leaf(np.zeros((2, 2)))
    for out in (x[0], x.T, x.sum(), T.concatenate([x, x]), T.grad(x.sum(), x), x.shape[0]):
        assert isinstance(out, T.TensorVariable)
    assert value(lambda x: x.sum(), np.ones(2)) == 2
