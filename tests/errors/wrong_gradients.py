"""Mistakes with gradients."""

from __future__ import annotations

from wrong_row import Row

ROWS = (
    Row("cost_is_a_vector", "NotScalarError", """
w = shared(np.ones(3, "float32"), "w")
cost = w ** 2  #!
g = grad(cost, w)
""", ("scalar", "float32 vector", "T.mean(cost)", "T.sum(cost)"), (
        "grad(cost,", "grad(cost.sum(),")),
    Row("cost_does_not_depend", "DisconnectedInputError", """
w = shared(np.ones(3, "float32"), "w")
b = shared(np.ones(3, "float32"), "b")  #!
cost = (w ** 2).sum()  #!
g = grad(cost, [w, b])
""", ("does not depend", "b (float32 vector", "disconnected_inputs='ignore'"), ("[w, b]", "[w]")),
    Row("path_cut_by_disconnected_grad", "DisconnectedInputError", """
w = shared(np.ones(3, "float32"), "w")  #!
frozen = tinygraph.disconnected_grad(w)  #!
cost = (frozen ** 2).sum()  #!
g = grad(cost, w)
""", ("w (float32 vector", "cut by", "disconnected_inputs='ignore'"), (
        "tinygraph.disconnected_grad(w)", "w * 1")),
    Row("only_the_shape_is_used", "DisconnectedInputError", """
x = T.matrix("x")  #!
cost = T.zeros((x.shape[0],)).sum()
g = grad(cost, x)
""", ("x (float32 matrix", "shape"), ("cost = T.zeros((x.shape[0],)).sum()", "cost = x.sum()")),
    Row("gradient_of_a_copy", "DisconnectedInputError", """
w = shared(np.ones(3, "float32"), "w")
other = shared(w.get_value(), "other")  #!
cost = (w ** 2).sum()
g = grad(cost, other)
""", ("other (float32 vector", "does not depend"), ("grad(cost, other)", "grad(cost, w)")),
    Row("an_index_has_no_gradient", "DisconnectedInputError", """
k = T.lvector("k")  #!
table = shared(np.ones((3, 2), "float32"), "table")
cost = table[k].sum()
g = grad(cost, k)
""", ("k (int64 vector", "cut by take"), ("grad(cost, k)", "grad(cost, table)")),
    Row("wrt_is_a_number", "TypeError", """
x = T.vector("x")
g = grad((x ** 2).sum(), 3.0)
""", ("wrt", "variables", "3.0"), ("3.0", "x")),
    Row("wrt_is_an_array", "TypeError", """
w = shared(np.ones(3, "float32"), "w")
g = grad((w ** 2).sum(), w.get_value())
""", ("wrt", "variables"), ("w.get_value()", "w")),
    Row("cost_is_a_number", "TypeError", """
w = shared(np.ones(3, "float32"), "w")
cost = 2.0
g = grad(cost, w)
""", ("cost", "2.0", "variable"), ("cost = 2.0", "cost = w.sum()")),
    Row("neither_cost_nor_known_grads", "ValueError", """
w = shared(np.ones(3, "float32"), "w")
g = grad(None, w)
""", ("cost", "known_grads"), ("None", "w.sum()")),
    Row("a_policy_of_no_sense", "ValueError", """
w = shared(np.ones(3, "float32"), "w")
b = shared(np.ones(3, "float32"), "b")
g = grad(w.sum(), b, disconnected_inputs="skip")
""", ("disconnected_inputs", "'skip'", "'ignore'"), ('"skip"', '"ignore"')),
    Row("integer_known_gradient", "TypeError", """
w = T.vector("w")
g = grad(None, w, known_grads={w * 1: T.ones((3,), dtype="int64")})  #!
""", ("known gradient", "float", "int64"), (
        "g = grad(None, w, known_grads={w * 1: T.ones((3,), dtype=\"int64\")})",
        "y = w * 1\ng = grad(None, w, known_grads={y: T.ones((3,))})")),
    Row("updates_of_gradients_of_another_dtype", "TypeError", """
w = shared(np.ones(3, "float32"), "w")  #!
x = T.dvector("x")
cost = (w * x).sum()
g = grad(cost, w)
f = function([x], cost, updates=[(w, w - np.float64(0.1) * T.cast(g, "float64"))])
""", ("w (float32 vector", "float64", "T.cast(..., 'float32')"), (
        "w - np.float64(0.1) * T.cast(g, \"float64\")", "w - 0.1 * g")),
    Row("jacobian_of_a_matrix", "TypeError", """
x = T.matrix("x")
y = T.tanh(x)  #!
j = tinygraph.jacobian(y, x)
""", ("jacobian", "vector"), ("jacobian(y,", "jacobian(y.flatten(),")),
    Row("a_gradient_inside_the_step_of_an_outer_cost", "DisconnectedInputError", """
x = T.vector("x")
w = shared(np.float32(1), "w")  #!
hs, _ = scan(lambda v: T.floor(v), x)
cost = hs.sum()
g = grad(cost, w)
""", ("w (float32 scalar", "does not depend"), ("T.floor(v)", "v * w")),
)
