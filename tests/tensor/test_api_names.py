"""Every name that programs for Theano call exists, takes such a call, and gives the right type.

The table is data: a name, a call of it as such programs write it, and what comes out: a dtype
and a number of axes, or a predicate.  It also lists the modules and the attributes of variables.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import tinygraph as theano
import tinygraph.tensor as T
from tinygraph.graph import Value

F, LONG, B = "float64", "int64", "bool"


@pytest.fixture(autouse=True)
def float64():
    """The dtype that these programs were written for."""
    with theano.config.change(floatX="float64"):
        yield


def a_function(f: Any) -> bool:
    return callable(f)


def a_class(c: Any) -> bool:
    return isinstance(c, type)


def done(x: Any) -> bool:
    """It was enough that the call came back."""
    return True


def made(base: type, **methods: Any) -> Any:
    """An object of a class that a user derives from ``base``."""
    return type("Made", (base,), methods)()


def names() -> dict[str, Any]:
    """What the calls of the table are written with."""
    return {
        "theano": theano, "T": T, "np": np, "a": T.scalar("a"), "v": T.vector("v"),
        "w": T.vector("w"), "m": T.matrix("m"), "k": T.matrix("k"), "x": T.tensor3("x"),
        "img": T.tensor4("img"), "vol": T.tensor5("vol"), "filters": T.tensor4("filters"),
        "kernels": T.tensor5("kernels"), "i": T.iscalar("i"), "iv": T.ivector("iv"),
        "made": made, "mask": T.matrix("mask"),
        "s": theano.shared(np.zeros((2, 3)), name="s"),
    }


def opened(name: str) -> Any:
    """The object that a dotted name of the table means."""
    first, *rest = name.split(".")
    out: Any = {"theano": theano, "T": T}[first]
    for part in rest:
        out = getattr(out, part)
    return out


# --- what the calls give ----------------------------------------------------------------------

PROGRAMS: list[tuple[str, str, Any]] = [
    ("theano.function", "theano.function([v], [v * 2], allow_input_downcast=True)", a_function),
    ("theano.function", "theano.function(inputs=[], outputs=s.sum(), updates=[(s, s + 1)])",
     a_function),
    ("theano.function", "theano.function([v], k.sum(), givens={k: T.outer(v, v)})", a_function),
    ("theano.shared", "theano.shared(np.zeros((1, 3)), name='b', broadcastable=(True, False))",
     (F, 2)),
    ("theano.shared", "theano.shared(np.float32(3))", ("float32", 0)),
    ("theano.scan", "theano.scan(fn=lambda r, h, u: T.tanh(r + h + u), sequences=m, "
     "outputs_info=[v], non_sequences=[w])[0]", (F, 2)),
    ("theano.scan", "theano.scan(lambda r, p, q: r * p + q, sequences=dict(input=v, taps=[0]), "
     "outputs_info=[dict(initial=w, taps=[-1, -2])])[0]", (F, 1)),
    ("theano.scan", "theano.scan(lambda p: 2 * p, outputs_info=v, n_steps=i, strict=True)[0]",
     (F, 2)),
    ("theano.scan", "theano.scan(lambda r: [r, r + 1], sequences=[m], go_backwards=True, "
     "truncate_gradient=3)[0][1]", (F, 2)),
    ("theano.dot", "theano.dot(m, v)", (F, 1)),
    ("T.sin", "T.sin(m)", (F, 2)),
    ("T.tanh", "T.tanh(m)", (F, 2)),
    ("theano.TensorType", "theano.TensorType('float32', (False, True))('x')", ("float32", 2)),
    ("T.cos", "T.cos(m)", (F, 2)),
    ("T.vector", "T.vector()", (F, 1)),
    ("T.vector", "T.vector('name')", (F, 1)),
    ("T.iscalar", "T.iscalar()", ("int32", 0)),
    ("T.log", "T.log(m)", (F, 2)),
    ("T.nnet.softmax", "T.nnet.softmax(m)", (F, 2)),
    ("T.nnet.softmax", "T.nnet.softmax(v)[0]", (F, 1)),
    ("T.set_subtensor", "T.set_subtensor(m[:, 0], v)", (F, 2)),
    ("T.matrix", "T.matrix(dtype='float32')", ("float32", 2)),
    ("T.matrix", "T.matrix('name')", (F, 2)),
    ("T.mean", "T.mean(m, dtype='float64')", (F, 0)),
    ("theano.config.floatX", "np.zeros(3, dtype=theano.config.floatX).dtype == 'float64'", bool),
    ("theano.tensor", "theano.tensor.exp(m)", (F, 2)),
    ("T.imatrix", "T.imatrix('name')", ("int32", 2)),
    ("T.ivector", "T.ivector('name')", ("int32", 1)),
    ("T.tensor3", "T.tensor3(dtype='float32')", ("float32", 3)),
    ("theano.scan_module.until", "theano.scan(lambda p: (p * 2, theano.scan_module.until(p > 9)), "
     "outputs_info=a, n_steps=20)[0]", (F, 1)),
    ("T.alloc", "T.alloc(0.0, 4)", (F, 1)),
    ("T.cast", "T.cast(m, 'int32')", ("int32", 2)),
    ("T.constant", "T.constant(np.ones((2, 3)))", (F, 2)),
    ("T.constant", "T.constant(1, dtype='float32')", ("float32", 0)),
    ("T.dot", "T.dot(x, m)", (F, 3)),
    ("T.exp", "T.exp(m)", (F, 2)),
    ("T.shared_randomstreams", "T.shared_randomstreams.RandomStreams(seed=3)", done),
    ("T.sum", "T.sum(m, axis=0, keepdims=True)", (F, 2)),
    ("T.grad", "T.grad((m * m).sum(), [m])[0]", (F, 2)),
    ("T.minimum", "T.minimum(m, 1.0)", (F, 2)),
    ("T.sqrt", "T.sqrt(m)", (F, 2)),
]

THEANO_LSTM: list[tuple[str, str, Any]] = [
    ("T.as_tensor_variable", "T.as_tensor_variable([1, 2])", (LONG, 1)),
    ("T.concatenate", "T.concatenate([m, k], axis=1)", (F, 2)),
    ("T.concatenate", "T.concatenate([v, w])", (F, 1)),
    ("T.discrete_dtypes", "'int32' in T.discrete_dtypes and 'float32' not in T.discrete_dtypes",
     bool),
    ("T.clip", "T.clip(m, -1, 1)", (F, 2)),
    ("T.nnet.sigmoid", "T.nnet.sigmoid(m)", (F, 2)),
    ("T.eq", "T.eq(m, 0)", (B, 2)),
    ("T.float_dtypes", "'float32' in T.float_dtypes and 'int32' not in T.float_dtypes", bool),
    ("theano.gradient.grad_not_implemented",
     "theano.gradient.grad_not_implemented(made(theano.gof.Op), 0, m)", done),
    ("theano.gof.Apply", "theano.gof.Apply(made(theano.gof.Op), [m], [m.type()]).outputs[0]",
     (F, 2)),
    ("theano.gof.Op", "made(theano.gof.Op, make_node=lambda op, x: theano.gof.Apply(op, [x], "
     "[x.type()]), perform=lambda op, node, inputs, out: None)(m)", (F, 2)),
    ("T.Tensor", "T.Tensor(dtype='float32', broadcastable=(False, True))()", ("float32", 2)),
    ("T.shape_padleft", "T.shape_padleft(v, 2)", (F, 3)),
    ("T.shape_padleft", "T.shape_padleft(v)", (F, 2)),
    ("T.repeat", "T.repeat(m, 2, axis=0)", (F, 2)),
    ("T.repeat", "T.repeat(m, 2)", (F, 1)),
    ("theano.gof.Op.__init__", "theano.gof.Op.__init__(made(theano.gof.Op), inplace=True)", done),
    ("T.hashtype", "isinstance(T.hashtype(made(theano.gof.Op)), int)", bool),
    ("T.shared_randomstreams.RandomStreams",
     "T.shared_randomstreams.RandomStreams(1).binomial(n=1, p=0.5, size=(i, 3))", (LONG, 2)),
    ("T.shared_randomstreams.RandomStreams",
     "T.shared_randomstreams.RandomStreams(1).multinomial(n=1, pvals=m)", (LONG, 2)),
    ("theano.compile.ViewOp",
     "made(theano.compile.ViewOp, grad=lambda op, inputs, grads: [2 * grads[0]])(m)", (F, 2)),
    ("theano.gof.OpRemove", "theano.gof.OpRemove(made(theano.compile.ViewOp))", done),
    ("T.opt.register_canonicalize", "(T.opt.register_canonicalize(theano.gof.OpRemove("
     "made(theano.compile.ViewOp)), name='of the table'), "
     "theano.config.rewrites.remove('of the table'))", done),
    ("T.zeros_like", "T.zeros_like(m)", (F, 2)),
]

RECURRENT_LAYERS: list[tuple[str, str, Any]] = [
    ("T.tensor4", "T.tensor4('name')", (F, 4)),
    ("T.switch", "T.switch(mask, m, k)", (F, 2)),
    ("T.ones", "T.ones((i, 1))", (F, 2)),
    ("T.ones", "T.ones((2, 3), dtype='float32')", ("float32", 2)),
    ("T.reshape", "T.reshape(m, (-1,))", (F, 1)),
    ("theano.gradient.grad_clip", "theano.gradient.grad_clip(m, -1, 1)", (F, 2)),
    ("T.addbroadcast", "T.addbroadcast(m, 1)", (F, 2)),
    ("T.addbroadcast", "T.addbroadcast(x, *[0, 2])", (F, 3)),
    ("T.flatten", "T.flatten(x, 2)", (F, 2)),
]

CONV = "(img, filters, (None, 3, None, None), (4, 3, 3, 3), subsample=(1, 1), " \
       "border_mode='valid', filter_flip=False)"
CONV3 = "(vol, kernels, (None, 3, None, None, None), (4, 3, 2, 2, 2), subsample=(1, 1, 1), " \
        "border_mode='valid', filter_flip=False)"
SHAPES = "(imshp=(None, 3, 9, 9), kshp=(4, 3, 3, 3), subsample=(1, 1), border_mode='valid', " \
         "filter_flip=False)"
SHAPES3 = "(imshp=(None, 3, 9, 9, 9), kshp=(4, 3, 3, 3, 3), subsample=(1, 1, 1), " \
          "border_mode='valid', filter_flip=False)"

LAYERS: list[tuple[str, str, Any]] = [
    ("T.Variable", "T.Variable", a_class),
    ("T.nnet.relu", "T.nnet.relu(m, 0.1)", (F, 2)),
    ("T.nnet.relu", "T.nnet.relu(m)", (F, 2)),
    ("theano.Variable", "theano.Variable", a_class),
    ("T.extra_ops.repeat", "T.extra_ops.repeat(m, 2, 1)", (F, 2)),
    ("T.zeros", "T.zeros(shape=(2, i), dtype='float32')", ("float32", 2)),
    ("T.zeros", "T.zeros((2, 3))", (F, 2)),
    ("T.arange", "T.arange(m.shape[0])", (LONG, 1)),
    ("T.arange", "T.arange(5, dtype='float32')", ("float32", 1)),
    ("T.max", "T.max(m, axis=1)", (F, 1)),
    ("T.nnet.conv2d", f"T.nnet.conv2d{CONV}", (F, 4)),
    ("T.nnet.conv3d", f"T.nnet.conv3d{CONV3}", (F, 5)),
    ("T.argmax", "T.argmax(m, axis=1, keepdims=True)", (LONG, 2)),
    ("T.floor", "T.floor(m)", (F, 2)),
    ("T.mod", "T.mod(iv, 3)", ("int32", 1)),
    ("theano.sandbox.rng_mrg.MRG_RandomStreams",
     "theano.sandbox.rng_mrg.MRG_RandomStreams(1).binomial((2, i), p=0.5, dtype='float32')",
     ("float32", 2)),
    ("theano.sandbox.rng_mrg.MRG_RandomStreams",
     "theano.sandbox.rng_mrg.MRG_RandomStreams(1).normal(m.shape, avg=0.0, std=2.0)", (F, 2)),
    ("theano.sandbox.rng_mrg.MRG_RandomStreams",
     "theano.sandbox.rng_mrg.MRG_RandomStreams(1).uniform((2, 3), low=0.0, high=1.0)", (F, 2)),
    ("T.TensorVariable", "T.TensorVariable", a_class),
    ("T.maximum", "T.maximum(m, k)", (F, 2)),
    ("T.tensordot", "T.tensordot(x, m, [[2], [0]])", (F, 3)),
    ("T.tensordot", "T.tensordot(x, m, axes=1)", (F, 3)),
    ("T.tile", "T.tile(m, (2, 1))", (F, 2)),
    ("theano.clone", "theano.clone(s, share_inputs=False)", (F, 2)),
    ("theano.compile.SharedVariable", "isinstance(s, theano.compile.SharedVariable)", bool),
    ("theano.grad", "theano.grad((v ** 2).sum(), [v])[0]", (F, 1)),
    ("theano.grad", "(lambda y: theano.grad(None, wrt=v, known_grads={y: w}))(v ** 2)", (F, 1)),
    ("T.TensorType", "T.TensorType('int32', (False,) * 6)('x')", ("int32", 6)),
    ("T.TensorType", "T.TensorType('float32', broadcastable=(True,), name='t')()", ("float32", 1)),
    ("T.batched_dot", "T.batched_dot(x, x)", (F, 3)),
    ("T.ceil", "T.ceil(m)", (F, 2)),
    ("T.expm1", "T.expm1(m)", (F, 2)),
    ("T.signal.pool.pool_2d", "T.signal.pool.pool_2d(img, ws=(2, 2), stride=(2, 2), "
     "ignore_border=True, pad=(0, 0), mode='max')", (F, 4)),
    ("T.signal.pool.pool_3d", "T.signal.pool.pool_3d(vol, ws=(2, 2, 2), stride=(2, 2, 2), "
     "ignore_border=True, pad=(0, 0, 0), mode='max')", (F, 5)),
    ("T.sqr", "T.sqr(m)", (F, 2)),
    ("T.stack", "T.stack([v, w])", (F, 2)),
    ("T.stack", "T.stack(v, *[w, v])", (F, 2)),
    ("theano.gof.Variable", "theano.gof.Variable", a_class),
    ("theano.gof.graph.inputs",
     "theano.gof.graph.inputs(reversed([v + w, m.sum()])) == [v, w, m]", bool),
    ("T.abs_", "T.abs_(m)", (F, 2)),
    ("T.add", "T.add(v, w, v)", (F, 1)),
    ("T.any", "T.any(m, axis=0)", (B, 1)),
    ("T.argsort", "T.argsort(m, axis=1)", (LONG, 2)),
    ("T.extra_ops.to_one_hot", "T.extra_ops.to_one_hot(iv, 3)", (F, 2)),
    ("T.eye", "T.eye(3)", (F, 2)),
    ("T.ge", "T.ge(m, 0)", (B, 2)),
    ("T.inc_subtensor", "T.inc_subtensor(v[1:], 1)", (F, 1)),
    ("T.inv", "T.inv(m)", (F, 2)),
    ("T.isnan", "T.isnan(m)", (B, 2)),
    ("T.min", "T.min(m, axis=1)", (F, 1)),
    ("T.nnet.abstract_conv.AbstractConv2d_gradInputs",
     f"T.nnet.abstract_conv.AbstractConv2d_gradInputs{SHAPES}(filters, img, (9, 9))", (F, 4)),
    ("T.nnet.abstract_conv.AbstractConv2d_gradWeights",
     f"T.nnet.abstract_conv.AbstractConv2d_gradWeights{SHAPES}(img, img, (3, 3))", (F, 4)),
    ("T.nnet.abstract_conv.AbstractConv3d_gradInputs",
     f"T.nnet.abstract_conv.AbstractConv3d_gradInputs{SHAPES3}(kernels, vol, (9, 9, 9))", (F, 5)),
    ("T.nnet.binary_crossentropy", "T.nnet.binary_crossentropy(m, k)", (F, 2)),
    ("T.nnet.categorical_crossentropy", "T.nnet.categorical_crossentropy(m, iv)", (F, 1)),
    ("T.nnet.softplus", "T.nnet.softplus(m)", (F, 2)),
    ("T.ones_like", "T.ones_like(m)", (F, 2)),
    ("T.patternbroadcast", "T.patternbroadcast(m, (False, True))", (F, 2)),
    ("T.shape_padaxis", "T.shape_padaxis(m, axis=1)", (F, 3)),
    ("T.shape_padright", "T.shape_padright(m, 2)", (F, 4)),
    ("T.square", "T.square(m)", (F, 2)),
]

# --- attributes of variables ------------------------------------------------------------------

ATTRIBUTES: list[tuple[str, str, Any]] = [
    ("astype", "m.astype('float32')", ("float32", 2)),
    ("get_value", "s.get_value(borrow=True).shape == (2, 3)", bool),
    ("get_value", "s.get_value(True, True).shape == (2, 3)", bool),
    ("mean", "m.mean(axis=0)", (F, 1)),
    ("mean", "m.mean(1)", (F, 1)),
    ("reshape", "x.reshape((-1, x.shape[2]))", (F, 2)),
    ("reshape", "m.reshape([3, 2, 1])", (F, 3)),
    ("reshape", "m.reshape(iv, 2)", (F, 2)),
    ("sum", "m.sum(axis=0, keepdims=True)", (F, 2)),
    ("sqrt", "m.sqrt()", (F, 2)),
    ("dot", "m.dot(v)", (F, 1)),
    ("tanh", "m.tanh()", (F, 2)),
    ("log", "m.log()", (F, 2)),
    ("exp", "m.exp()", (F, 2)),
    ("norm", "m.norm(L=2)", (F, 0)),
    ("norm", "m.norm(1)", (F, 0)),
    ("cos", "m.cos()", (F, 2)),
    ("sin", "m.sin()", (F, 2)),
    ("shape", "m.shape[0]", (LONG, 0)),
    ("eval", "(v * 2).eval({v: [1, 2]}).tolist() == [2, 4]", bool),
    ("eval", "T.ones(3).eval().shape == (3,)", bool),
    ("name", "m.name == 'm'", bool),
    ("ndim", "x.ndim == 3", bool),
    ("dtype", "m.dtype == 'float64'", bool),
    ("value", "T.constant([1, 2]).value.tolist() == [1, 2]", bool),
    ("type", "m.type == m.type and m.type.ndim == 2 and m.type.dtype == 'float64'", bool),
    ("dimshuffle", "m.dimshuffle(0, 'x', 1)", (F, 3)),
    ("dimshuffle", "m.dimshuffle([1, 0])", (F, 2)),
    ("all", "m.all(1)", (B, 1)),
    ("all", "m.all()", (B, 0)),
    ("prod", "m.prod(1)", (F, 1)),
    ("broadcastable", "T.row().broadcastable == (True, False)", bool),
    ("max", "m.max(axis=1)", (F, 1)),
    ("max", "m.max(1)", (F, 1)),
    ("T", "x.T", (F, 3)),
    ("std", "m.std(axis=0)", (F, 1)),
    ("std", "m.std(0)", (F, 1)),
    ("transpose", "x.transpose(2, 0, 1)", (F, 3)),
    ("transpose", "x.transpose((2, 0, 1))", (F, 3)),
    ("flatten", "x.flatten(2)", (F, 2)),
    ("flatten", "x.flatten()", (F, 1)),
    ("min", "m.min(axis=1)", (F, 1)),
    ("set_value", "s.set_value(np.ones((2, 3)), borrow=True)", done),
    ("var", "m.var(axis=1)", (F, 1)),
    ("var", "m.var(1, keepdims=True)", (F, 2)),
    ("swapaxes", "x.swapaxes(0, 1)", (F, 3)),
    ("zeros_like", "m.zeros_like('float32')", ("float32", 2)),
    ("size", "m.size", (LONG, 0)),
    ("expm1", "m.expm1()", (F, 2)),
    ("ceil", "m.ceil()", (F, 2)),
    ("nonzero", "v[v.nonzero()]", (F, 1)),
    ("floor", "m.floor()", (F, 2)),
    ("argmax", "m.argmax(1)", (LONG, 1)),
    ("argmax", "m.argmax(axis=1)", (LONG, 1)),
    ("round", "m.round()", (F, 2)),
    ("fill", "m.fill(3)", (F, 2)),
    ("any", "m.any(axis=0)", (B, 1)),
    ("argsort", "m.argsort(axis=1)", (LONG, 2)),
    ("log1p", "m.log1p()", (F, 2)),
    ("tag", "setattr(m.tag, 'test_value', np.ones((2, 3)))", done),
    ("default_update", "setattr(s, 'default_update', s + 1)", done),
]

OPERATORS: list[tuple[str, str, Any]] = [
    ("+ - * /", "(m + 1 - k) * 2 / m", (F, 2)),
    ("** // %", "m ** 2 // 3 % k", (F, 2)),
    ("reflected", "2 ** (1 - (3 // (7 % (2 / m))))", (F, 2)),
    ("unary", "abs(-m)", (F, 2)),
    ("comparison", "(m < 1) | (m > 2) & (m <= k) ^ ~(m >= k)", (B, 2)),
    ("shifts", "(iv << 2) >> 1", ("int32", 1)),
    ("reflected shifts", "1 << iv", ("int32", 1)),
    ("divmod", "divmod(iv, 3)[1]", ("int32", 1)),
    ("reflected divmod", "divmod(7, iv)[0]", ("int32", 1)),
    ("integer", "m[0]", (F, 1)),
    ("negative integer", "m[-1]", (F, 1)),
    ("slice", "m[1:3, ::-1]", (F, 2)),
    ("None", "v[:, None]", (F, 2)),
    ("list", "m[[0, 1]]", (F, 2)),
    ("list of slices", "m[[slice(None), slice(0, 3)]]", (F, 2)),
    ("integer vector", "m[iv]", (F, 2)),
    ("two vectors", "m[T.arange(iv.shape[0]), iv]", (F, 1)),
    ("Ellipsis", "x[..., 0]", (F, 2)),
    ("mask", "v[v > 0]", (F, 1)),
    ("unpacked shape", "[b for a, b, c in [x.shape]][0]", (LONG, 0)),
    ("tuple of shape", "T.zeros(tuple(x.shape))", (F, 3)),
    ("identity", "(m == k) is False and (m == m) is True and m in {m: 1}", bool),
]

NUMBERED = [*PROGRAMS, *THEANO_LSTM, *RECURRENT_LAYERS, *LAYERS]
ROWS = [*NUMBERED, *(("." + n, c, e) for n, c, e in ATTRIBUTES), *OPERATORS]

MODULES = """tensor tensor.nnet tensor.nnet.abstract_conv tensor.signal.pool tensor.extra_ops
tensor.shared_randomstreams tensor.opt sandbox.rng_mrg gradient gof gof.graph compile scan_module
scan_module.scan_utils""".split()
COME_ALONG = ("T.nnet", "T.shared_randomstreams", "T.extra_ops", "T.opt", "theano.gradient",
              "theano.gof", "theano.compile", "theano.scan_module")


@pytest.mark.parametrize("name, call, expected", ROWS,
                         ids=[f"{k}-{row[0]}" for k, row in enumerate(ROWS)])
def test_call(name, call, expected):
    if name.startswith(("T.", "theano.")):
        opened(name)
        assert name in call, "the call does not call what the row names"
    out = eval(call, names())
    if isinstance(expected, tuple):
        assert isinstance(out, Value)
        assert (out.dtype, out.ndim) == expected
    elif expected is bool:
        assert out is True
    else:
        assert expected(out)


@pytest.mark.parametrize("table, count", [(PROGRAMS, 31), (THEANO_LSTM, 20),
                                          (RECURRENT_LAYERS, 7), (LAYERS, 52)])
def test_every_name_has_a_row(table, count):
    assert len({name for name, _, _ in table}) == count


@pytest.mark.parametrize("module", MODULES)
def test_module(module):
    importlib.import_module(f"tinygraph.{module}")


@pytest.mark.parametrize("name", COME_ALONG)
def test_importing_the_package_brings(name):
    assert opened(name) is not None


@pytest.mark.parametrize("name", ["gpuarray", "sandbox.gpuarray", "sandbox.cuda"])
def test_modules_that_programs_probe_for(name):
    with pytest.raises(ImportError):
        importlib.import_module(f"tinygraph.{name}")


def test_truth_length_and_iteration():
    v = T.vector("v")
    assert bool(v)
    for refused in (lambda: bool(v < 1), lambda: len(v), lambda: list(v)):
        with pytest.raises(TypeError):
            refused()
