"""A notebook on Elman networks for Theano, cell by cell, on tinygraph.

The program of the cells is the notebook's; where its text had lost characters (indices in
brackets, whole lines) they are restored by sense.  Changed besides: the imports, ``print`` and
``xrange`` of Python 2, and ``np.cast``, which NumPy 2 does not have.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

CELLS = {
    "imports": """
import numpy as np
import tinygraph as theano
import tinygraph.tensor as T
from tinygraph_rnn.tasks import reber as reberGrammar

dtype=theano.config.floatX
n_in  = 7
n_hid = 10
n_out = 7
#first dimension is time
v = T.matrix(dtype=dtype)
""",
    "weights": """
def rescale_weights(values, factor=1.):
    factor = np.asarray(factor, dtype)
    _,svs,_ = np.linalg.svd(values)
    #svs[0] is the largest singular value
    values = values / svs[0]
    return values

def sample_weights(sizeX, sizeY):
    values = np.ndarray([sizeX, sizeY], dtype=dtype)
    for dx in range(sizeX):
        vals = np.random.uniform(low=-1., high=1.,  size=(sizeY,))
        #vals_norm = np.sqrt((vals**2).sum())
        #vals = vals / vals_norm
        values[dx,:] = vals
    _,svs,_ = np.linalg.svd(values)
    #svs[0] is the largest singular value
    values = values / svs[0]
    return values
""",
    "parameters": """
# parameters of the rnn as shared variables
def get_parameter(n_in, n_out, n_hid):
    b_h = theano.shared(np.zeros(n_hid, dtype=dtype))
    h0 = theano.shared(np.zeros(n_hid, dtype=dtype))
    W_ih = theano.shared(sample_weights(n_in, n_hid))
    W_hh = theano.shared(sample_weights(n_hid, n_hid))
    W_ho = theano.shared(sample_weights(n_hid, n_out))
    b_o = theano.shared(np.zeros(n_out, dtype=dtype))
    return W_ih, W_hh, b_h, W_ho, b_o, h0

W_ih, W_hh, b_h, W_ho, b_o, h0 = get_parameter(n_in, n_out, n_hid)
params = [W_ih, W_hh, b_h, W_ho, b_o, h0]
""",
    "step": """
# we could use the fact that maximaly two outputs are on,
# but for simplicity we assume independent outputs:
def logistic_function(x):
    return 1./(1 + T.exp(-x))

# sequences: x_t
# prior results: h_tm1
# non-sequences: W_ih, W_hh, W_ho, b_h
def one_step(x_t, h_tm1, W_ih, W_hh, b_h, W_ho, b_o):
    h_t = T.tanh(theano.dot(x_t, W_ih) + theano.dot(h_tm1, W_hh) + b_h)
    y_t = theano.dot(h_t, W_ho) + b_o
    y_t = logistic_function(y_t)
    return [h_t, y_t]
""",
    "scan": """
# hidden and outputs of the entire sequence
[h_vals, o_vals], _ = theano.scan(fn=one_step,
                                  sequences = dict(input=v, taps=[0]),
                                  outputs_info = [h0, None], # corresponds to return type of fn
                                  non_sequences = [W_ih, W_hh, b_h, W_ho, b_o] )

# target values
target = T.matrix(dtype=dtype)

# learning rate
lr = np.asarray(0.2, dtype)
learning_rate = theano.shared(lr)

cost = -T.mean(target * T.log(o_vals) + (1.- target) * T.log(1. - o_vals))
""",
    "train function": """
def get_train_functions(cost, v, target):
    gparams = []
    for param in params:
        gparam = T.grad(cost, param)
        gparams.append(gparam)

    updates = []
    for param, gparam in zip(params, gparams):
        updates.append((param, param - gparam * learning_rate))
    learn_rnn_fn = theano.function(inputs = [v, target],
                                   outputs = cost,
                                   updates = updates)
    return learn_rnn_fn

learn_rnn_fn = get_train_functions(cost, v, target)
""",
    "training": """
train_data = reberGrammar.get_n_examples(1000)

def train_rnn(train_data, nb_epochs=50):
    train_errors = np.ndarray(nb_epochs)
    for x in range(nb_epochs):
        error = 0.
        for j in range(len(train_data)):
            index = np.random.randint(0, len(train_data))
            i, o = train_data[index]
            train_cost = learn_rnn_fn(i, o)
            error += train_cost
        train_errors[x] = error
    return train_errors

nb_epochs=10
train_errors = train_rnn(train_data, nb_epochs)
""",
    "picture": """
import matplotlib.pyplot as plt
def plot_learning_curve(train_errors):
    plt.plot(np.arange(nb_epochs), train_errors, 'b-')
    plt.xlabel('epochs')
    plt.ylabel('error')
plot_learning_curve(train_errors)
""",
    "predictions": """
predictions = theano.function(inputs = [v], outputs = o_vals)

inp, outp = reberGrammar.get_one_example(10)
pre = predictions(inp)
for p, o in zip(pre, outp):
    print(p) # prediction
    print(o) # target
    print()
""",
    "sampling step": """
from tinygraph.tensor.shared_randomstreams import RandomStreams
srng = RandomStreams(seed=234)

def get_sample(probs):
    return srng.multinomial(n=1, pvals=probs)

# sequences:
# prior results: h_tm1, y_tm1
# non-sequences: W_ih, W_hh, W_ho, b_h
def sampling_step(h_tm1, y_tm1, W_ih, W_hh, b_h, W_ho, b_o):
    h_t = T.tanh(theano.dot(y_tm1, W_ih) + theano.dot(h_tm1, W_hh) + b_h)
    y_t = theano.dot(h_t, W_ho) + b_o
    y_t = logistic_function(y_t)
    # normalize probabilities to all outputs
    y_t = y_t / T.sum(y_t)
    y_t = get_sample(y_t)
    y_t = T.cast(y_t, dtype)
    return [h_t, y_t], theano.scan_module.until(y_t[6]>.99)
""",
    "sampling": """
# always start with B-Symbol
#y0 = T.constant(np.array([1,0,0,0,0,0,0], dtype=dtype))
y0 = theano.shared(np.array([1.,0.,0.,0.,0.,0.,0.], dtype=dtype))

# hidden and outputs of the entire sequence
[h_vals, y_vals], updates = theano.scan(fn=sampling_step,
                                        sequences = [],
                                        n_steps = 10000,
                                        outputs_info = [h0, y0], # corresponds to return type of fn
                                        non_sequences = [W_ih, W_hh, b_h, W_ho, b_o] )

samples = theano.function(inputs = [], outputs = y_vals, updates=updates)
""",
    "words": """
for i in range(20):
    sample_sequence = np.concatenate((np.array([[1.,0.,0.,0.,0.,0.,0.]], dtype='float32'),
                                      samples()), axis=0)
    word = reberGrammar.sequenceToWord(sample_sequence)
    print("inGrammar(",word,") = ", reberGrammar.in_grammar(word))
""",
    "embedded example": """
i, o = reberGrammar.get_one_embedded_example()
print(i[1])
print(o[-2])
""",
    "embedded": """
W_ih, W_hh, b_h, W_ho, b_o, h0 = get_parameter(n_in, n_out, n_hid)
params = [W_ih, W_hh, b_h, W_ho, b_o, h0]

# hidden and outputs of the entire sequence
[h_vals, o_vals], _ = theano.scan(fn=one_step,
                                  sequences = dict(input=v, taps=[0]),
                                  outputs_info = [h0, None], # corresponds to return type of fn
                                  non_sequences = [W_ih, W_hh, b_h, W_ho, b_o] )

cost = -T.mean(target * T.log(o_vals)+ (1.- target) * T.log(1. - o_vals))

learn_rnn_fn = get_train_functions(cost, v, target)

train_data = reberGrammar.get_n_embedded_examples(1000)
train_errors = train_rnn(train_data)
""",
    "embedded predictions": """
predictions = theano.function(inputs = [v], outputs = o_vals)

i, o = reberGrammar.get_one_embedded_example()
print(i[1])
print(o[-2])
print(predictions(i)[-2])
""",
    "waves": """
x = np.array(np.arange(0., 2 * np.pi, 0.2), dtype=dtype)
x = x.reshape(len(x), 1)
s_ = np.concatenate([np.sin(x), np.cos(x)], axis=1)

sh_ = np.roll(s_, 1, axis = 0)
S_ = np.array([s_,sh_])
T_ = np.roll(S_, 1 , axis=1)

V = T.tensor3(dtype=dtype)
Ta = T.tensor3(dtype=dtype)
""",
    "wave parameters": """
n_in  = 2
n_hid = 4
n_out = 2

W_ih, W_hh, b_h, W_ho, b_o, h0 = get_parameter(n_in, n_out, n_hid)
params = [W_ih, W_hh, b_h, W_ho, b_o, h0]

# learning rate
lr = np.asarray(.1, dtype)
learning_rate = theano.shared(lr)

# sequences: x_t
# prior results: h_tm1
# non-sequences: W_ih, W_hh, W_ho, b_h
def one_step(x_t, h_tm1, W_ih, W_hh, b_h, W_ho, b_o):
    h_t = T.tanh(theano.dot(x_t, W_ih) + theano.dot(h_tm1, W_hh) + b_h)
    y_t = theano.dot(h_t, W_ho) + b_o
    # no squashing for the output - it's a regression task
    return [h_t, y_t]
""",
    "nested scan": """
def loop_over_examples(x):
    # hidden and outputs of the entire sequence
    [h_vals, o_vals], _ = theano.scan(fn=one_step,
                                      sequences = dict(input = x, taps=[0]),
                                      # corresponds to return type of one_step
                                      outputs_info = [h0, None],
                                      non_sequences = [W_ih, W_hh, b_h, W_ho, b_o]
                                     )
    return o_vals
    #  return y_vals

O_vals, _ = theano.scan(fn = loop_over_examples,
                        sequences = dict(input = V, taps=[0]),
                        outputs_info = None
                       )

f = theano.function(inputs=[V], outputs=O_vals)
""",
    "wave training": """
# It's a regression task, so the cost is the mean of the squared error losses:
cost = ((O_vals - Ta)**2).mean()

gparams = []
for param in params:
    gparam = T.grad(cost, param)
    gparams.append(gparam)

updates = []
for param, gparam in zip(params, gparams):
    updates.append((param, param - gparam * learning_rate))

learn_rnn_fn = theano.function(inputs = [V, Ta],
                               outputs = cost,
                               updates = updates)

for i in range(10000):
    train_cost = learn_rnn_fn(S_,T_)
train_cost
""",
    "wave predictions": """
predictions = theano.function(inputs = [V], outputs = O_vals)
P = predictions(S_)
P - T_
""",
}


class Notebook:
    """Runs cells in order, each once; ``names`` is what they define, ``printed`` what they
    print."""

    def __init__(self) -> None:
        np.random.seed(1)
        self.names: dict = {}
        self.printed: dict[str, str] = {}

    def run(self, last: str, without: tuple[str, ...] = ()) -> dict:
        for name, text in CELLS.items():
            if name not in self.printed and name not in without:
                out = io.StringIO()
                with contextlib.redirect_stdout(out):
                    exec(compile(text, f"<cell {name}>", "exec"), self.names)
                self.printed[name] = out.getvalue()
            if name == last:
                return self.names
        raise KeyError(last)


SKIPPED = ("picture", "training", "words", "embedded")


@pytest.fixture(scope="module")
def trained() -> Notebook:
    notebook = Notebook()
    notebook.run("training")
    return notebook


def test_weights_have_a_largest_singular_value_of_one():
    names = Notebook().run("parameters")
    for w in names["params"][:2]:
        assert np.linalg.svd(w.get_value(), compute_uv=False)[0] == pytest.approx(1, rel=1e-5)
    scaled = names["rescale_weights"](np.diag([3.0, 4.0]))
    np.testing.assert_allclose(scaled, np.diag([0.75, 1.0]))


def test_training_lowers_the_error(trained):
    errors = trained.names["train_errors"]
    assert errors.shape == (10,) and errors[-1] < 0.05 * errors[0]
    assert trained.names["learn_rnn_fn"].compiles == 1


def test_the_learning_curve(trained):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    names = trained.run("picture")
    (line,) = names["plt"].gca().lines
    np.testing.assert_array_equal(line.get_ydata(), names["train_errors"])
    names["plt"].close("all")


def test_predictions_are_the_allowed_symbols(trained):
    names = trained.run("predictions", without=("picture",))
    assert names["pre"].shape == names["outp"].shape
    np.testing.assert_array_equal(names["pre"] > 0.5, names["outp"] > 0.5)
    assert trained.printed["predictions"].count("[") == 2 * len(names["outp"])


def test_most_sampled_words_are_in_the_grammar(trained):
    trained.run("words", without=("picture",))
    printed = trained.printed["words"]
    assert printed.count("inGrammar(") == 20 and printed.count("True") >= 15


def test_samples_end_with_the_first_e(trained):
    names = trained.run("sampling", without=("picture",))
    drawn = [names["reberGrammar"].sequenceToWord(names["samples"]()) for _ in range(30)]
    assert all(word.index("E") == len(word) - 1 for word in drawn)
    assert len(set(drawn)) > 5


def test_the_embedded_grammar_is_guessed(trained):
    names = trained.run("embedded predictions", without=("picture",))
    assert names["train_errors"].shape == (50,)
    assert names["train_errors"][-1] < 0.3 * names["train_errors"][0]
    told = []
    for _ in range(200):
        i, o = names["reberGrammar"].get_one_embedded_example()
        np.testing.assert_array_equal(i[1], o[-2])
        told.append(np.argmax(names["predictions"](i)[-2]) == np.argmax(o[-2]))
    assert 0.3 < np.mean(told) < 0.8


def test_nested_scans_follow_the_waves():
    notebook = Notebook()
    names = notebook.run("wave parameters", without=SKIPPED)
    names = notebook.run("nested scan", without=SKIPPED)
    before = names["f"](names["S_"])
    assert before.shape == (2, 32, 2)
    names = notebook.run("wave predictions", without=SKIPPED)
    assert names["train_cost"] < 3e-4
    assert names["learn_rnn_fn"].compiles == 1
    difference = names["P"] - names["T_"]
    assert np.mean(difference ** 2) == pytest.approx(float(names["train_cost"]), rel=0.01)
    assert abs(difference[:, 1:]).max() < 0.1 < abs(before - names["T_"]).max()
