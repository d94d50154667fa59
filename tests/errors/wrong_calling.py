"""Mistakes that a function refuses: when it is compiled, and when it is called."""

from __future__ import annotations

from wrong_row import Row

ROWS = (
    Row("inputs_without_a_list", "TypeError", """
x = T.scalar("x")
f = function(x, x + 1)
""", ("inputs must be a list", "[x]"), ("function(x,", "function([x],")),
    Row("outputs_of_numbers", "TypeError", """
x = T.scalar("x")
f = function([x], [x + 1, 2.0])
""", ("outputs", "2.0", "T.constant"), ("2.0]", "T.constant(2.0)]")),
    Row("an_input_is_missing", "MissingInputError", """
x = T.vector("x")
y = T.vector("y")  #!
f = function([x], x + y)
""", ("y (float32 vector", "inputs"), ("function([x],", "function([x, y],")),
    Row("an_input_is_not_used", "UnusedInputError", """
x = T.vector("x")
y = T.vector("y")  #!
f = function([x, y], x + 1)
""", ("y (float32 vector", "on_unused_input"), (
        "x + 1)", 'x + 1, on_unused_input="ignore")')),
    Row("an_input_twice", "UnusedInputError", """
x = T.vector("x")  #!
f = function([x, x], x + 1)
""", ("x (float32 vector", "twice"), ("[x, x]", "[x]")),
    Row("a_shared_variable_as_input", "TypeError", """
w = shared(np.ones(2, "float32"), "w")  #!
f = function([w], w * 2)
""", ("w (float32 vector", "shared", "givens"), ("function([w],", "function([],")),
    Row("a_list_as_variable_in_the_inputs", "TypeError", """
x = T.vector("x")
f = function([x, [1, 2]], x + 1)
""", ("inputs must hold variables", "[1, 2]"), (", [1, 2]]", "]")),
    Row("an_unknown_option", "TypeError", """
x = T.vector("x")
f = function([x], x + 1, optimise=True)
""", ("optimise",), (", optimise=True", "")),
    Row("an_unknown_back_end", "ValueError", """
x = T.vector("x")
f = function([x], x + 1, backend="gpu")
""", ("'gpu'", "'llvm'"), ('"gpu"', '"llvm"')),
    Row("update_of_an_input", "TypeError", """
x = T.vector("x")  #!
f = function([x], x, updates=[(x, x + 1)])
""", ("x (float32 vector", "not a shared variable", "shared("), (
        "updates=[(x, x + 1)]", "updates=[]")),
    Row("update_of_another_dtype", "TypeError", """
w = shared(np.ones(2, "float32"), "w")  #!
x = T.dvector("x")
new = w * x  #!
f = function([x], updates=[(w, new)])
""", ("w (float32 vector", "float64", "T.cast(..., 'float32')"), (
        "updates=[(w, new)]", 'updates=[(w, T.cast(new, "float32"))]')),
    Row("update_of_another_rank", "TypeError", """
w = shared(np.ones(2, "float32"), "w")  #!
new = w.sum()  #!
f = function([], updates=[(w, new)])
""", ("w (float32 vector", "float32 scalar", "axes"), ("w.sum()", "w * w.sum()")),
    Row("update_that_does_not_broadcast", "TypeError", """
w = shared(np.ones((1, 2), "float32"), "w", broadcastable=(True, False))  #!
new = T.matrix("new")  #!
f = function([new], updates=[(w, new)])
""", ("w (float32 matrix", "axis 0", "T.addbroadcast"), (
        "(w, new)]", "(w, T.addbroadcast(new, 0))]")),
    Row("two_updates_of_one_variable", "ValueError", """
w = shared(np.ones(2, "float32"), "w")  #!
f = function([], updates=[(w, w + 1), (w, w * 2)])
""", ("w (float32 vector", "twice"), (", (w, w * 2)", "")),
    Row("updates_that_are_no_pairs", "TypeError", """
w = shared(np.ones(2, "float32"), "w")
f = function([], updates=[w + 1])
""", ("updates", "pairs"), ("[w + 1]", "[(w, w + 1)]")),
    Row("givens_of_another_dtype", "TypeError", """
x = T.vector("x")  #!
k = T.ivector("k")  #!
f = function([k], x * 2, givens={x: k})
""", ("x (float32 vector", "k (int32 vector", "T.cast(..., 'float32')"), (
        "{x: k}", '{x: T.cast(k, "float32")}')),
    Row("givens_of_another_rank", "TypeError", """
x = T.matrix("x")  #!
data = shared(np.ones(6, "float32"), "data")  #!
f = function([], x.sum(), givens={x: data})
""", ("x", "data", "axes"), ("{x: data}", "{x: data.reshape((2, 3))}")),
    Row("a_missing_argument", "TypeError", """
x = T.vector("x")
y = T.vector("y")  #!
f = function([x, y], x + y, name="add")
f([1, 2])
""", ("add", "Missing required input", "y (float32 vector"), ("f([1, 2])", "f([1, 2], [3, 4])")),
    Row("too_many_arguments", "TypeError", """
x = T.vector("x")
f = function([x], x + 1, name="add")
f([1, 2], [3, 4])
""", ("add", "2 arguments", "x (float32 vector"), ("f([1, 2], [3, 4])", "f([1, 2])")),
    Row("an_argument_of_another_name", "TypeError", """
x = T.vector("x")
f = function([x], x + 1, name="add")
f(y=[1, 2])
""", ("add", "'y'", "x (float32 vector"), ("f(y=", "f(x=")),
    Row("float64_data_for_float32", "TypeError", """
x = T.matrix("x")  #!
f = function([x], x * 2)
f(np.random.RandomState(0).rand(2, 3))
""", ("x (float32 matrix", "float64", "np.asarray(x, 'float32')", "allow_input_downcast=True"), (
        "rand(2, 3)", 'rand(2, 3).astype("float32")')),
    Row("float_labels", "TypeError", """
t = T.ivector("t")  #!
f = function([t], t + 1)
f(np.array([0.0, 1.0]))
""", ("t (int32 vector", "float64", "int32"), ("[0.0, 1.0])", "[0, 1], dtype='int32')")),
    Row("a_vector_for_a_matrix", "TypeError", """
x = T.matrix("x")  #!
f = function([x], x * 2)
f([1, 2, 3])
""", ("x (float32 matrix", "1 axes", "2"), ("f([1, 2, 3])", "f([[1, 2, 3]])")),
    Row("rows_of_different_lengths", "TypeError", """
x = T.matrix("x")  #!
f = function([x], x * 2)
f([[1, 2, 3], [4, 5]])
""", ("x (float32 matrix", "different lengths", "pad"), ("[4, 5]", "[4, 5, 0]")),
    Row("a_variable_as_argument", "TypeError", """
x = T.vector("x")  #!
y = T.vector("y")  #!
f = function([x], x * 2)
f(y)
""", ("x (float32 vector", "symbolic variable", "y (float32 vector"), ("f(y)", "f([1, 2])")),
    Row("none_as_argument", "TypeError", """
x = T.vector("x")  #!
f = function([x], x * 2)
f(None)
""", ("x (float32 vector", "None", "numbers"), ("f(None)", "f([1, 2])")),
    Row("a_size_that_must_be_one", "TypeError", """
x = T.row("x")  #!
f = function([x], x * 2)
f(np.ones((2, 3), "float32"))
""", ("x (float32 matrix", "(2, 3)", "axis 0", "size 1"), ("np.ones((2, 3)", "np.ones((1, 3)")),
    Row("a_product_that_does_not_fit", "ShapeError", """
x = T.matrix("x")  #!
w = shared(np.ones((4, 5), "float32"), "w")  #!
f = function([x], T.dot(x, w))
f(np.ones((2, 3), "float32"))
""", ("x (float32 matrix", "w (float32 matrix", "3", "4"), ("np.ones((2, 3)", "np.ones((2, 4)")),
    Row("a_sum_that_does_not_fit", "ShapeError", """
x = T.matrix("x")  #!
y = T.matrix("y")  #!
f = function([x, y], x + y)
f(np.ones((2, 3), "float32"), np.ones((2, 4), "float32"))
""", ("x (float32 matrix", "y (float32 matrix", "axis 1", "3", "4"), ("(2, 4)", "(2, 3)")),
    Row("a_size_of_one_that_does_not_broadcast", "ShapeError", """
x = T.matrix("x")  #!
bias = shared(np.ones((1, 3), "float32"), "bias")  #!
f = function([x], x + bias)
f(np.ones((2, 3), "float32"))
""", ("x (float32 matrix", "bias (float32 matrix", "T.addbroadcast"), (
        "x + bias)", "x + T.addbroadcast(bias, 0))")),
    Row("a_bias_of_another_width", "ShapeError", """
x = T.matrix("x")  #!
b = shared(np.ones(4, "float32"), "b")  #!
f = function([x], x + b)
f(np.ones((2, 3), "float32"))
""", ("x (float32 matrix", "b", "3", "4"), ("np.ones(4", "np.ones(3")),
    Row("a_reshape_that_does_not_fit", "ShapeError", """
x = T.vector("x")  #!
f = function([x], x.reshape((2, 3)))
f(np.ones(7, "float32"))
""", ("x (float32 vector", "7", "6"), ("np.ones(7", "np.ones(6")),
    Row("a_reshape_with_a_rest", "ShapeError", """
x = T.vector("x")  #!
f = function([x], x.reshape((2, -1)))
f(np.ones(7, "float32"))
""", ("x (float32 vector", "7", "2"), ("np.ones(7", "np.ones(6")),
    Row("a_concatenation_that_does_not_fit", "ShapeError", """
a = T.matrix("a")  #!
b = T.matrix("b")  #!
f = function([a, b], T.concatenate([a, b], axis=1))
f(np.ones((2, 3), "float32"), np.ones((4, 3), "float32"))
""", ("a (float32 matrix", "b (float32 matrix", "axis 0", "2", "4"), ("axis=1", "axis=0")),
    Row("an_index_out_of_range", "IndexError", """
table = shared(np.ones((10, 2), "float32"), "table")  #!
words = T.ivector("words")  #!
f = function([words], table[words])
f([3, 10])
""", ("index 10", "words (int32 vector", "table (float32 matrix", "10"), ("[3, 10]", "[3, 9]")),
    Row("a_scalar_index_out_of_range", "IndexError", """
x = T.vector("x")  #!
k = T.iscalar("k")
f = function([x, k], x[k])
f([1, 2], 5)
""", ("5", "x (float32 vector", "2"), ("f([1, 2], 5)", "f([1, 2], 1)")),
    Row("a_constant_index_out_of_range", "IndexError", """
x = T.matrix("x")  #!
f = function([x], x[:, 3])
f(np.ones((2, 3), "float32"))
""", ("x (float32 matrix", "3"), ("x[:, 3]", "x[:, 2]")),
    Row("labels_out_of_range", "IndexError", """
p = T.matrix("p")
t = T.ivector("t")  #!
f = function([p, t], T.nnet.categorical_crossentropy(p, t).mean())
f(np.ones((2, 3), "float32") / 3, [0, 3])
""", ("index", "t (int32 vector", "p (float32 matrix", "out of range"), ("[0, 3])", "[0, 2])")),
    Row("a_length_that_is_negative", "ValueError", """
n = T.iscalar("n")  #!
f = function([n], T.zeros((n,)).sum())
f(-1)
""", ("n", "-1", "negative"), ("f(-1)", "f(1)")),
    Row("set_value_of_another_rank", "TypeError", """
w = shared(np.ones((2, 3), "float32"), "w")  #!
w.set_value(np.ones(6, "float32"))
""", ("w (float32 matrix", "1 axes", "2"), ("np.ones(6", "np.ones((2, 3)")),
    Row("set_value_of_another_dtype", "TypeError", """
w = shared(np.ones(3, "float32"), "w")  #!
w.set_value(np.random.RandomState(0).rand(3))
""", ("w (float32 vector", "float64", "float32"), (
        "rand(3))", 'rand(3).astype("float32"))')),
    Row("set_value_that_no_longer_fits", "ShapeError", """
x = T.matrix("x")  #!
w = shared(np.ones((3, 5), "float32"), "w")  #!
f = function([x], T.dot(x, w))
w.set_value(np.ones((4, 5), "float32"))
f(np.ones((2, 3), "float32"))
""", ("x (float32 matrix", "w (float32 matrix", "3", "4"), ("np.ones((4, 5)", "np.ones((3, 6)")),
    Row("eval_without_values", "MissingInputError", """
x = T.scalar("x")  #!
print((x + 1).eval())
""", ("x (float32 scalar", "eval({variable: value})"), (
        "print((x + 1).eval())", "(x + 1).eval({x: 1})")),
    Row("eval_with_a_name", "TypeError", """
x = T.scalar("x")
y = (x + 1).eval({"x": 1})
""", ("'x'", "not a variable"), ('{"x": 1}', "{x: 1}")),
    Row("an_unknown_setting", "AttributeError", """
tinygraph.config.floatx = "float64"
""", ("floatx", "floatX"), ('tinygraph.config.floatx = "float64"', "tinygraph.config.floatX")),
    Row("a_setting_of_no_sense", "ValueError", """
tinygraph.config.floatX = "float16"
""", ("floatX", "float16", "float32", "float64"), (' = "float16"', "")),
)
