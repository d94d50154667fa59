"""Mistakes with the layers of tinygraph_rnn."""

from __future__ import annotations

from wrong_row import Row

ROWS = (
    Row("recurrent_layer_on_a_matrix", "ValueError", """
l_in = layers.InputLayer((None, 3))
l = layers.LSTMLayer(l_in, 4)
""", ("(None, 3)", "(batch, time, features...)"), ("(None, 3)", "(None, None, 3)")),
    Row("unroll_of_unknown_length", "ValueError", """
l_in = layers.InputLayer((None, None, 3))
l = layers.LSTMLayer(l_in, 4, unroll_scan=True)
""", ("unroll_scan", "length"), ("(None, None, 3)", "(None, 7, 3)")),
    Row("unroll_with_gradient_steps", "ValueError", """
l_in = layers.InputLayer((None, 7, 3))
l = layers.RecurrentLayer(l_in, 4, unroll_scan=True, gradient_steps=3)
""", ("gradient_steps is 3", "unroll_scan=True"), ("unroll_scan=True, ", "")),
    Row("mask_of_another_shape", "ValueError", """
l_in = layers.InputLayer((5, 7, 3))
l_mask = layers.InputLayer((5, 6))
l = layers.GRULayer(l_in, 4, mask_input=l_mask)
""", ("mask", "(5, 6)", "(5, 7, 3)"), ("(5, 6)", "(5, 7)")),
    Row("mask_of_three_axes", "ValueError", """
l_in = layers.InputLayer((None, None, 3))
l_mask = layers.InputLayer((None, None, 1))
l = layers.GRULayer(l_in, 4, mask_input=l_mask)
""", ("mask", "(None, None, 1)", "(None, None, 3)"), ("(None, None, 1)", "(None, None)")),
    Row("unknown_number_of_features", "ValueError", """
l_in = layers.InputLayer((None, None, None))
l = layers.LSTMLayer(l_in, 4)
""", ("LSTMLayer", "input features", "an int instead of None"), (
        "(None, None, None)", "(None, None, 3)")),
    Row("dense_layer_of_unknown_features", "ValueError", """
l_in = layers.InputLayer((5, None))
l = layers.DenseLayer(l_in, 4)
""", ("DenseLayer", "input features", "an int instead of None"), ("(5, None)", "(None, 5)")),
    Row("no_layer_as_input", "TypeError", """
x = T.matrix("x")
l = layers.DenseLayer(x, 4)
""", ("a layer or a shape", "x"), ("(x, 4)", "((None, 5), 4)")),
    Row("size_that_is_negative", "ValueError", """
l_in = layers.InputLayer((-1, 5))
""", ("(-1, 5)", "None"), ("(-1, 5)", "(None, 5)")),
    Row("input_variable_of_another_rank", "ValueError", """
x = T.matrix("x")
l_in = layers.InputLayer((None, None, 3), input_var=x)
""", ("(None, None, 3)", "3 axes", "2"), ("T.matrix", "T.tensor3")),
    Row("sum_of_layers_of_different_width", "ValueError", """
l_in = layers.InputLayer((None, None, 3))
a = layers.LSTMLayer(l_in, 4)
b = layers.LSTMLayer(l_in, 5, backwards=True)
l = layers.ElemwiseSumLayer([a, b])
shape = l.output_shape
""", ("(None, None, 4)", "(None, None, 5)", "merged"), ("(l_in, 5,", "(l_in, 4,")),
    Row("concatenation_of_different_lengths", "ValueError", """
a = layers.InputLayer((None, 4, 3))
b = layers.InputLayer((None, 5, 3))
l = layers.ConcatLayer([a, b], axis=2)
shape = l.output_shape
""", ("(None, 4, 3)", "(None, 5, 3)"), ("axis=2", "axis=1")),
    Row("reshape_layer_with_two_unknowns", "ValueError", """
l_in = layers.InputLayer((4, 5, 6))
l = layers.ReshapeLayer(l_in, (-1, -1))
""", ("(-1, -1)", "-1 more than once"), ("(-1, -1)", "(-1, 6)")),
    Row("reshape_layer_that_does_not_divide", "ValueError", """
l_in = layers.InputLayer((4, 5, 6))
l = layers.ReshapeLayer(l_in, (-1, 7))
""", ("(4, 5, 6)", "reshaped", "7"), ("(-1, 7)", "(-1, 6)")),
    Row("weights_of_another_shape", "ValueError", """
l_in = layers.InputLayer((None, 3))
l = layers.DenseLayer(l_in, 4, W=np.ones((4, 3), "float32"))
""", ("W", "(3, 4)", "(4, 3)"), ("np.ones((4, 3)", "np.ones((3, 4)")),
    Row("weights_that_are_text", "TypeError", """
l_in = layers.InputLayer((None, 3))
l = layers.DenseLayer(l_in, 4, W="orthogonal")
""", ("W", "'orthogonal'"), ('"orthogonal"', "tinygraph_rnn.init.Orthogonal()")),
    Row("gradient_clipping_below_zero", "ValueError", """
l_in = layers.InputLayer((None, None, 3))
l = layers.LSTMLayer(l_in, 4, grad_clipping=-5)
""", ("grad_clipping is -5", "positive"), ("=-5", "=5")),
    Row("updates_of_no_shared_variable", "ValueError", """
x = T.vector("x")
loss = (x ** 2).sum()
ups = tinygraph_rnn.updates.sgd(loss, [x], 0.1)
""", ("shared", "x"), ('T.vector("x")', 'shared(np.ones(3, "float32"), "x")')),
    Row("set_all_param_values_of_another_count", "ValueError", """
l_in = layers.InputLayer((None, 3))
l = layers.DenseLayer(l_in, 4)
layers.set_all_param_values(l, [np.ones((3, 4), "float32")])
""", ("1 values", "2 parameters"), ('np.ones((3, 4), "float32")]',
                                    'np.ones((3, 4), "float32"), np.ones(4, "float32")]')),
    Row("set_all_param_values_of_another_shape", "ValueError", """
l_in = layers.InputLayer((None, 3))
l = layers.DenseLayer(l_in, 4, b=None)
layers.set_all_param_values(l, [np.ones((4, 3), "float32")])
""", ("W", "(3, 4)", "(4, 3)"), ("np.ones((4, 3)", "np.ones((3, 4)")),
    Row("a_batch_with_another_number_of_features", "ValueError", """
x = T.tensor3("x")
l_in = layers.InputLayer((None, None, 3), input_var=x)
l = layers.LSTMLayer(l_in, 4)
f = function([x], layers.get_output(l))  #!
f(np.ones((2, 5, 4), "float32"))
""", ("x (float32 3-d tensor", "4", "3"), ("np.ones((2, 5, 4)", "np.ones((2, 5, 3)")),
    Row("a_mask_of_another_batch", "ShapeError", """
x, mask = T.tensor3("x"), T.matrix("mask")  #!
l_in = layers.InputLayer((None, None, 3), input_var=x)
l_mask = layers.InputLayer((None, None), input_var=mask)
l = layers.LSTMLayer(l_in, 4, mask_input=l_mask)
f = function([x, mask], layers.get_output(l))
f(np.ones((2, 5, 3), "float32"), np.ones((3, 5), "float32"))
""", ("mask", "is 3", "2 is needed", "axis 0 of x"), ("np.ones((3, 5)", "np.ones((2, 5)")),
)
