"""Mistakes that are refused while an expression is built."""

from __future__ import annotations

from wrong_row import Row

ROWS = (
    Row("python_if_on_a_comparison", "TypeError", """
x = T.scalar("x")
if x > 0:  #!
    y = x
else:
    y = -x
""", ("comparison", "no truth value", "T.switch"), (
        "if x > 0:  #!\n    y = x\nelse:\n    y = -x", "y = T.switch(x > 0, x, -x)")),
    Row("and_between_conditions", "TypeError", """
x = T.vector("x")
inside = x > 0 and x < 1  #!
""", ("comparison", "no truth value", "&"), ("x > 0 and x < 1", "(x > 0) & (x < 1)")),
    Row("loop_over_a_variable", "TypeError", """
x = T.matrix("x")  #!
total = 0
for row in x:
    total = total + row.sum()
""", ("x (float32 matrix", "iterated", "scan"), (
        "for row in x:\n    total = total + row.sum()", "total = x.sum(axis=1).sum()")),
    Row("length_of_a_variable", "TypeError", """
x = T.vector("x")  #!
mean = x.sum() / len(x)
""", ("x (float32 vector", "x.shape[0]"), ("len(x)", "x.shape[0]")),
    Row("numpy_function_on_a_variable", "TypeError", """
x = T.vector("x")  #!
y = np.hypot(x, 1)
""", ("numpy.hypot", "x (float32 vector", "tinygraph.tensor"), ("np.hypot(x, 1)", "np.exp(x)")),
    Row("float_of_a_variable", "TypeError", """
x = T.scalar("x")  #!
y = float(x) * 2
""", ("x (float32 scalar", "no value"), ("float(x)", "x")),
    Row("variable_as_a_python_index", "TypeError", """
n = T.iscalar("n")  #!
y = [10, 20, 30][n]
""", ("n (int32 scalar", "no value"), ("[10, 20, 30][n]", "T.constant([10, 20, 30])[n]")),
    Row("range_over_a_variable", "TypeError", """
n = T.iscalar("n")  #!
total = sum(k for k in range(n))
""", ("n (int32 scalar", "no value"), ("sum(k for k in range(n))", "T.arange(n).sum()")),
    Row("item_assignment", "TypeError", """
x = T.vector("x")  #!
x[0] = 1
""", ("x (float32 vector", "T.set_subtensor"), ("x[0] = 1", "x = T.set_subtensor(x[0], 1)")),
    Row("dot_of_known_sizes", "ShapeError", """
a = T.constant(np.ones((2, 3), "float32"), name="a")  #!
b = T.constant(np.ones((4, 5), "float32"), name="b")  #!
c = T.dot(a, b)
""", ("a (float32 matrix", "b (float32 matrix", "3", "4"), ("np.ones((4, 5)", "np.ones((3, 5)")),
    Row("dot_of_a_vector_of_units_and_a_row", "ShapeError", """
x = T.row("x")  #!
w = T.constant(np.ones((4, 5), "float32"), name="w")  #!
y = T.dot(w, x)
""", ("w (float32 matrix", "x (float32 matrix", "5"), ("T.dot(w, x)", "T.dot(w, w.T)")),
    Row("sum_of_known_sizes", "ShapeError", """
a = T.constant(np.ones(3, "float32"), name="a")  #!
b = T.constant(np.ones(4, "float32"), name="b")  #!
c = a + b
""", ("a (float32 vector", "b (float32 vector", "3", "4"), ("np.ones(4", "np.ones(3")),
    Row("reshape_to_another_count", "ShapeError", """
a = T.constant(np.ones((2, 3), "float32"), name="a")  #!
b = a.reshape((4, 2))
""", ("a (float32 matrix", "6", "8"), ("(4, 2)", "(3, 2)")),
    Row("reshape_with_two_unknowns", "ValueError", """
x = T.matrix("x")  #!
y = x.reshape((-1, -1))
""", ("x (float32 matrix", "-1", "one"), ("(-1, -1)", "(-1, 1)")),
    Row("reshape_to_a_vector_of_unknown_length", "ValueError", """
x = T.matrix("x")
shape = T.ivector("shape")  #!
y = x.reshape(shape)
""", ("shape (int32 vector", "ndim="), ("x.reshape(shape)", "x.reshape(shape, ndim=2)")),
    Row("concatenate_matrix_and_vector", "TypeError", """
x = T.matrix("x")  #!
b = T.vector("b")  #!
y = T.concatenate([x, b], axis=1)
""", ("x (float32 matrix", "b (float32 vector", "axes"), ("[x, b]", "[x, b[:, None]]")),
    Row("concatenate_known_sizes", "ShapeError", """
a = T.constant(np.ones((2, 3), "float32"), name="a")  #!
b = T.constant(np.ones((4, 3), "float32"), name="b")  #!
y = T.concatenate([a, b], axis=1)
""", ("a (float32 matrix", "b (float32 matrix", "2", "4"), ("axis=1", "axis=0")),
    Row("concatenate_of_a_variable", "TypeError", """
x = T.matrix("x")  #!
y = T.concatenate(x, axis=1)
""", ("x (float32 matrix", "list"), ("T.concatenate(x,", "T.concatenate([x, x],")),
    Row("axis_that_is_not_there", "IndexError", """
x = T.matrix("x")  #!
y = x.sum(axis=2)
""", ("x (float32 matrix", "axis 2", "2 axes"), ("axis=2", "axis=1")),
    Row("dimshuffle_drops_a_long_axis", "ValueError", """
x = T.matrix("x")  #!
y = x.dimshuffle(0)
""", ("x (float32 matrix", "axis 1"), ("x.dimshuffle(0)", "x[:, 0]")),
    Row("dimshuffle_names_no_axis", "IndexError", """
x = T.matrix("x")  #!
y = x.dimshuffle(0, 2)
""", ("x (float32 matrix", "2"), ("(0, 2)", "(0, 1)")),
    Row("too_many_indices", "IndexError", """
x = T.matrix("x")  #!
y = x[0, 1, 2]
""", ("x (float32 matrix", "3", "2"), ("x[0, 1, 2]", "x[0, 1]")),
    Row("index_by_a_float", "TypeError", """
x = T.vector("x")  #!
k = T.scalar("k")  #!
y = x[k]
""", ("k (float32 scalar", "integer"), ("x[k]", 'x[T.cast(k, "int32")]')),
    Row("constant_index_out_of_a_known_size", "IndexError", """
a = T.constant(np.ones(3, "float32"), name="a")  #!
y = a[3]
""", ("a (float32 vector", "3"), ("a[3]", "a[2]")),
    Row("set_subtensor_of_a_whole", "TypeError", """
x = T.vector("x")  #!
y = T.set_subtensor(x, 1)
""", ("set_subtensor", "x (float32 vector", "x["), (
        "set_subtensor(x, 1)", "set_subtensor(x[:], 1)")),
    Row("set_subtensor_of_too_many_axes", "TypeError", """
x = T.vector("x")
m = T.matrix("m")  #!
y = T.set_subtensor(x[:2], m)
""", ("m (float32 matrix", "axes"), ("x[:2], m", "x[:2], m[0]")),
    Row("unknown_dtype", "TypeError", """
x = T.vector("x", dtype="float31")
""", ("float31", "float32"), ("float31", "float32")),
    Row("negative_of_a_bool", "TypeError", """
x = T.vector("x")
y = -(x > 0)  #!
""", ("bool", "~"), ("-(x > 0)", "~(x > 0)")),
    Row("switch_of_known_sizes", "ShapeError", """
a = T.constant(np.ones(3, "float32"), name="a")
b = T.constant(np.ones(2, "float32"), name="b")  #!
y = T.switch(a > 0, a, b)
""", ("b (float32 vector", "3", "2"), ("np.ones(2", "np.ones(3")),
    Row("softmax_of_a_tensor", "ValueError", """
x = T.tensor3("x")  #!
y = T.nnet.softmax(x)
""", ("softmax", "x (float32 3-d tensor"), (
        "T.nnet.softmax(x)", "T.nnet.softmax(x.reshape((-1, x.shape[2])))")),
    Row("crossentropy_of_float_targets", "TypeError", """
p = T.matrix("p")
t = T.vector("t")  #!
y = T.nnet.categorical_crossentropy(p, t)
""", ("t (float32 vector",), ('T.vector("t")', 'T.ivector("t")')),
    Row("constant_of_text", "TypeError", """
y = T.constant("0.5") + 1
""", ("'0.5'", "number"), ('"0.5"', "0.5")),
    Row("shared_of_a_variable", "TypeError", """
x = T.matrix("x")  #!
w = shared(x)
""", ("shared()", "x (float32 matrix", "number or an array"), (
        "shared(x)", 'shared(np.ones((2, 2), "float32"))')),
    Row("call_of_a_variable", "TypeError", """
x = T.vector("x")
y = T.exp(x)(3.0)  #!
""", ("x", "not callable"), ("T.exp(x)(3.0)", "T.exp(x)")),
)
