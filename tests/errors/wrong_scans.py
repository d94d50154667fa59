"""Mistakes in loops."""

from __future__ import annotations

from wrong_row import Row

ROWS = (
    Row("no_number_of_steps", "ValueError", """
w = T.matrix("w")
hs, _ = scan(lambda h, w: T.dot(h, w), outputs_info=T.ones((2, 2)), non_sequences=w)
""", ("n_steps", "sequences"), ("non_sequences=w)", "non_sequences=w, n_steps=3)")),
    Row("state_of_another_dtype", "ValueError", """
x = T.matrix("x")
start = T.constant(0)  #!
total, _ = scan(lambda row, acc: acc + row.sum(), x, start)  #!
""", ("acc", "int64 scalar", "float32 scalar", "astype('float32')"), (
        "T.constant(0)", "T.zeros(())")),
    Row("state_of_double_precision", "ValueError", """
x = T.matrix("x")
start = T.zeros((), dtype="float64")  #!
total, _ = scan(lambda row, acc: T.cast(acc + row.sum(), "float32"), x, start)
""", ("acc", "float64 scalar", "float32 scalar", "astype('float32')"), (', dtype="float64"', "")),
    Row("state_of_another_rank", "ValueError", """
x = T.matrix("x")
start = T.zeros(())  #!
hs, _ = scan(lambda row, h: h + row, x, start)  #!
""", ("h", "float32 scalar", "float32 vector", "number of axes"), (
        "T.zeros(())", "T.zeros((x.shape[1],))")),
    Row("state_of_another_size", "ShapeError", """
x = T.matrix("x")
w = shared(np.ones((3, 5), "float32"), "w")
hs, _ = scan(lambda row, h: T.tanh(T.dot(row, w)), x, T.zeros((4,)))  #!
f = function([x], hs)
f(np.ones((2, 3), "float32"))
""", ("h (float32 vector", "size 4", "5"), ("T.zeros((4,))", "T.zeros((5,))")),
    Row("state_that_becomes_wider", "ShapeError", """
x = T.matrix("x")
hs, _ = scan(lambda row, h: T.concatenate([h, row]), x, T.zeros((2,)))  #!
f = function([x], hs)
f(np.ones((2, 3), "float32"))
""", ("the state h", "axis 0", "size 2", "5", "one shape"), (
        "T.concatenate([h, row])", "h + row.sum()")),
    Row("state_with_an_axis_of_one", "ShapeError", """
x = T.tensor3("x")
start = T.zeros((1, 4))  #!
hs, _ = scan(lambda row, h: h + row, x, start)
f = function([x], hs)
f(np.ones((5, 2, 4), "float32"))
""", ("h", "1", "axis 0"), ("T.zeros((1, 4))", "T.zeros((x.shape[1], 4))")),
    Row("fewer_outputs_than_infos", "ValueError", """
x = T.matrix("x")
hs, _ = scan(lambda row, h: h + row.sum(), x, [T.zeros(()), None])
""", ("1 outputs", "2 entries", "None"), ("[T.zeros(()), None]", "[T.zeros(())]")),
    Row("more_outputs_than_infos", "ValueError", """
x = T.matrix("x")
hs, _ = scan(lambda row, h: [h + row.sum(), row.max()], x, [T.zeros(())])
""", ("2 outputs", "1 entries", "None"), ("[T.zeros(())])", "[T.zeros(()), None])")),
    Row("outputs_info_none_for_a_state", "TypeError", """
x = T.matrix("x")
def step(row, h):
    return h + row.sum()
hs, _ = scan(step, x, None)
""", ("the step step", "h", "outputs_info"), ("scan(step, x, None)", "scan(step, x, T.zeros(()))")),
    Row("arguments_in_the_order_of_keras", "TypeError", """
x = T.matrix("x")
w = T.matrix("w")
def step(row):
    return T.dot(row, w)
hs, _ = scan(step, x, non_sequences=w)
""", ("the step step", "1 rows", "0 past outputs", "1 non_sequences"), (", non_sequences=w", "")),
    Row("positive_tap_of_an_output", "ValueError", """
x = T.vector("x")
hs, _ = scan(lambda v, h: v + h, x, dict(initial=T.zeros((2,)), taps=[1]))
""", ("taps [1]", "negative"), ("T.zeros((2,)), taps=[1]", "T.zeros(()), taps=[-1]")),
    Row("two_taps_and_no_time_axis", "ValueError", """
start = T.zeros(())  #!
hs, _ = scan(lambda a, b: a + b, outputs_info=dict(initial=start, taps=[-2, -1]), n_steps=5)
""", ("leading axis of 2", "taps [-2, -1]"), ("T.zeros(())", "T.ones((2,))")),
    Row("two_taps_and_a_short_past", "IndexError", """
start = T.vector("start")  #!
hs, _ = scan(lambda a, b: a + b, outputs_info=dict(initial=start, taps=[-2, -1]), n_steps=5)
f = function([start], hs)
f(np.ones(1, "float32"))
""", ("start (float32 vector", "2", "1"), ("np.ones(1", "np.ones(2")),
    Row("a_misspelt_key_of_outputs_info", "ValueError", """
hs, _ = scan(lambda h: h * 2, outputs_info=dict(init=T.ones(())), n_steps=5)
""", ("'init'", "initial"), ("init=", "initial=")),
    Row("a_scalar_as_sequence", "TypeError", """
x = T.scalar("x")  #!
hs, _ = scan(lambda v: v * 2, x)
""", ("x (float32 scalar", "axis", "non_sequences"), ('T.scalar("x")', 'T.vector("x")')),
    Row("n_steps_of_a_float", "TypeError", """
n = T.scalar("n")  #!
hs, _ = scan(lambda h: h * 2, outputs_info=T.ones(()), n_steps=n)
""", ("n (float32 scalar", "integer", "T.cast"), ('T.scalar("n")', 'T.iscalar("n")')),
    Row("n_steps_beyond_the_sequence", "ValueError", """
x = T.vector("x")  #!
hs, _ = scan(lambda v: v * 2, x, n_steps=5)
f = function([x], hs)
f([1, 2, 3])
""", ("n_steps is 5", "x (float32 vector", "3"), ("f([1, 2, 3])", "f([1, 2, 3, 4, 5])")),
    Row("negative_n_steps", "ValueError", """
n = T.iscalar("n")
hs, _ = scan(lambda h: h * 2, outputs_info=T.ones(()), n_steps=n)
f = function([n], hs)
f(-2)
""", ("n_steps is -2", "negative"), ("f(-2)", "f(2)")),
    Row("a_number_as_output", "ValueError", """
x = T.vector("x")
hs, _ = scan(lambda v: 1.0, x)
""", ("output 0", "1.0", "T.constant"), ("v: 1.0", "v: T.constant(1.0)")),
    Row("an_array_as_output", "ValueError", """
x = T.vector("x")
hs, _ = scan(lambda v: np.ones(3), x)
""", ("output 0", "T.constant"), ("np.ones(3)", "T.constant(np.ones(3))")),
    Row("a_step_that_returns_nothing", "ValueError", """
x = T.vector("x")
def step(v):
    v * 2
hs, _ = scan(step, x)
f = function([x], hs)
""", ("step", "None", "return"), ("    v * 2", "    return v * 2")),
    Row("updates_before_outputs", "ValueError", """
x = T.vector("x")
w = shared(np.float32(0), "w")
hs, ups = scan(lambda v: ({w: w + v}, v * 2), x)
""", ("(outputs, updates)",), ("({w: w + v}, v * 2)", "(v * 2, {w: w + v})")),
    Row("until_of_a_vector", "TypeError", """
x = T.matrix("x")
hs, _ = scan(lambda row: (row * 2, tinygraph.scan_module.until(row > 1)), x)  #!
""", ("until", "scalar", ".any()"), ("until(row > 1)", "until((row > 1).any())")),
    Row("until_of_a_python_bool", "TypeError", """
x = T.matrix("x")
hs, _ = scan(lambda row: (row * 2, tinygraph.scan_module.until(True)), x)
""", ("until", "True", "variable"), ("until(True)", "until(row.sum() > 1)")),
    Row("strict_without_the_weights", "MissingInputError", """
x = T.matrix("x")
w = shared(np.ones((3, 3), "float32"), "w")  #!
hs, _ = scan(lambda row: T.dot(row, w), x, strict=True)
""", ("w (float32 matrix", "non_sequences", "strict"), (
        "lambda row: T.dot(row, w), x,", "lambda row, w: T.dot(row, w), x, non_sequences=[w],")),
    Row("a_row_of_another_size_inside", "ShapeError", """
x = T.matrix("x")
u = shared(np.ones((4, 4), "float32"), "u")
def step(row, h):
    return T.tanh(row + T.dot(h, u))  #!
hs, _ = scan(step, x, T.zeros((4,)))
f = function([x], hs)
f(np.ones((2, 3), "float32"))
""", ("the state h", "axis 0", "3", "4", "tanh"), ("np.ones((2, 3)", "np.ones((2, 4)")),
    Row("a_mask_that_is_not_transposed", "ShapeError", """
x = T.tensor3("x")
mask = T.matrix("mask")
def step(row, m, h):
    return T.switch(m[:, None], T.tanh(row + h), h)  #!
hs, _ = scan(step, [x, mask], T.zeros((x.shape[1], x.shape[2])))
f = function([x, mask], hs)
f(np.ones((5, 2, 3), "float32"), np.ones((5, 4), "float32"))
""", ("m", "4", "2"), ("np.ones((5, 4)", "np.ones((5, 2)")),
    Row("an_index_out_of_range_inside", "IndexError", """
words = T.ivector("words")
table = shared(np.ones((10, 2), "float32"), "table")  #!
hs, _ = scan(lambda k, h: h + table[k], words, T.zeros((2,)))  #!
f = function([words], hs)
f([1, 12])
""", ("12", "table (float32 matrix", "10"), ("[1, 12]", "[1, 2]")),
    Row("a_list_of_rows_instead_of_a_stack", "AttributeError", """
x = T.matrix("x")
hs, _ = scan(lambda row: [row * 2, row.sum()], x)
last = hs.sum()
""", ("list",), ("hs.sum()", "hs[0].sum()")),
    Row("one_result_unpacked", "TypeError", """
x = T.matrix("x")
first, second = scan(lambda row: row * 2, x)[0]  #!
""", ("iterated",), ("first, second = ", "both = ")),
    Row("memory_of_no_bytes", "ValueError", """
x = T.matrix("x")
hs, _ = scan(lambda row: row * 2, x, memory=-1)
""", ("memory is -1", "bytes"), ("memory=-1", "memory=0")),
)
