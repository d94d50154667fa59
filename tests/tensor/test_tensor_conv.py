"""Convolution against plain NumPy, on every back end."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygraph
import tinygraph.tensor as T
from tinygraph.errors import ShapeError
from tinygraph.gradient_check import verify_grad
from tinygraph.graph import toposort
from tinygraph.ops.linalg import Dot
from tinygraph.ops.windows import Windows
from tinygraph.tensor.nnet import abstract_conv as A
from tinygraph.tensor.signal import conv as signal_conv
from tinygraph.tensor.signal.pool import pool_2d

BACKENDS = ["numpy", "loops", "llvm"]
ON_ALL = pytest.mark.parametrize("backend", BACKENDS)
LEAVES = {3: T.dtensor3, 4: T.dtensor4, 5: T.dtensor5}


# --- the reference ------------------------------------------------------------------------------


def pads_of(mode, sizes, dilations):
    extents = [(k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True)]
    if isinstance(mode, str):
        return [{"valid": (0, 0), "full": (e - 1, e - 1), "half": (e // 2, e // 2)}[mode]
                for e in extents]
    modes = [mode] * len(sizes) if isinstance(mode, int) else mode
    return [(p, p) if isinstance(p, int) else p for p in modes]


def reference(x, w, mode="valid", strides=None, flip=True, dilations=None, groups=1):
    """Convolution, one element of the filters at a time."""
    rank = x.ndim - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    sizes = w.shape[2:]
    x = np.pad(x, [(0, 0), (0, 0), *pads_of(mode, sizes, dilations)])
    counts = [(n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(
        x.shape[2:], sizes, dilations, strides, strict=True)]
    if flip:
        w = w[(slice(None), slice(None), *[slice(None, None, -1)] * rank)]
    outputs, each = w.shape[0] // groups, w.shape[1]
    out = np.zeros((x.shape[0], w.shape[0], *counts))
    for g in range(groups):
        mine = slice(g * outputs, (g + 1) * outputs)
        for at in itertools.product(*map(range, sizes)):
            part = [slice(i * d, i * d + (n - 1) * s + 1, s) for i, d, n, s in zip(
                at, dilations, counts, strides, strict=True)]
            seen = x[(slice(None), slice(g * each, (g + 1) * each), *part)]
            out[:, mine] += np.einsum("nc...,oc->no...", seen, w[(mine, slice(None), *at)])
    return out


def assert_adjoint(f, c, found):
    """``found`` is the gradient of sum(f(x) * c) for a linear ``f``."""
    rng = np.random.default_rng(7)
    for _ in range(4):
        e = rng.normal(size=found.shape)
        np.testing.assert_allclose((found * e).sum(), (f(e) * c).sum(), rtol=1e-9, atol=1e-9)


# --- convolution --------------------------------------------------------------------------------


@st.composite
def convolutions(draw):
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    few = st.integers(1, 3 if rank < 3 else 2)

    def each(s):
        return tuple(draw(s) for _ in range(rank))

    sizes, strides, dilations = each(few), each(few), each(st.integers(1, 2))
    mode = draw(st.sampled_from(["valid", "full", "half", 1, "each", "pairs"]))
    if mode == "each":
        mode = each(st.integers(0, 2))
    elif mode == "pairs":
        mode = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    x = (draw(st.integers(0, 3)), groups * draw(st.integers(0, 2)),
         *((k - 1) * d + 1 + draw(st.integers(0, 4)) for k, d in zip(
             sizes, dilations, strict=True)))
    w = (groups * draw(st.integers(1, 2)), x[1] // groups, *sizes)
    options = {"border_mode": mode, "subsample": strides, "filter_dilation": dilations,
               "filter_flip": draw(st.booleans()), "num_groups": groups}
    return x, w, options


def reference_of(options):
    o = options
    return lambda x, w: reference(x, w, o["border_mode"], o["subsample"], o["filter_flip"],
                                  o["filter_dilation"], o["num_groups"])


CONV = {1: T.nnet.conv1d, 2: T.nnet.conv2d, 3: T.nnet.conv3d}


@settings(max_examples=25, deadline=None)
@given(case=convolutions(), backend=st.sampled_from(["llvm", "llvm", "loops", "numpy"]))
def test_values_and_gradients(case, backend):
    x_shape, w_shape, options = case
    rng = np.random.default_rng(0)
    x, w = LEAVES[len(x_shape)]("x"), LEAVES[len(w_shape)]("w")
    g = LEAVES[len(x_shape)]("g")
    out = CONV[len(x_shape) - 2](x, w, **options)
    f = tinygraph.function([x, w, g], [out, *tinygraph.grad((out * g).sum(), [x, w])],
                           backend=backend)
    a, b = rng.normal(size=x_shape), rng.normal(size=w_shape)
    want = reference_of(options)
    there = want(a, b)
    c = rng.normal(size=there.shape)
    out, gx, gw = f(a, b, c)
    np.testing.assert_allclose(out, there, atol=1e-10)
    assert (gx.shape, gw.shape) == (x_shape, w_shape)
    assert_adjoint(lambda e: want(e, b), c, gx)
    assert_adjoint(lambda e: want(a, e), c, gw)


@pytest.mark.parametrize("shapes", [((4, 8, 40, 33), (24, 8, 3, 3)), ((2, 3, 70, 65), (5, 3, 5, 4)),
                                    ((1, 24, 90, 70), (17, 12, 3, 3))])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_images_that_are_cut_into_blocks(shapes, dtype, rng):
    a, b = (rng.normal(size=s).astype(dtype) for s in shapes)
    groups = a.shape[1] // b.shape[1]
    if groups > 1:
        b = np.concatenate([b, b[:1]])
    x, w = T.tensor4("x", dtype=dtype), T.tensor4("w", dtype=dtype)
    out = T.nnet.conv2d(x, w, border_mode="half", num_groups=groups)
    f = tinygraph.function([x, w], [out, *tinygraph.grad((out ** 2).sum(), [x, w])])
    oracle = tinygraph.function([x, w], [out, *tinygraph.grad((out ** 2).sum(), [x, w])],
                                backend="numpy")
    rtol = 1e-4 if dtype == "float32" else 1e-11
    there = reference(a, b, "half", groups=groups)
    for one, two in zip(f(a, b), oracle(a, b), strict=True):
        np.testing.assert_allclose(one, two, rtol=rtol, atol=rtol * np.abs(two).max())
    np.testing.assert_allclose(f(a, b)[0], there, rtol=rtol, atol=rtol * np.abs(there).max())


def test_second_derivatives(rng):
    x, w = rng.normal(size=(2, 2, 5, 4)), rng.normal(size=(3, 2, 2, 3))
    for options in ({}, {"border_mode": "half", "subsample": (2, 1)}):
        def slope(x, w, options=options):
            cost = (T.nnet.conv2d(x, w, **options) ** 3).sum()
            return T.concatenate([g.flatten() for g in tinygraph.grad(cost, [x, w])])

        verify_grad(lambda x, w, s=slope: s(x, w), [x, w])


@ON_ALL
def test_second_derivatives_agree(backend, rng):
    x, w = T.dtensor4("x"), T.dtensor4("w")
    cost = (T.nnet.conv2d(x, w, border_mode=1, subsample=(2, 1)) ** 3).sum()
    gx, gw = tinygraph.grad(cost, [x, w])
    again = tinygraph.grad((gx ** 2).sum() + (gw * gw).sum(), [x, w])
    given = rng.normal(size=(2, 3, 5, 6)), rng.normal(size=(2, 3, 3, 2))
    want = tinygraph.function([x, w], again, backend="numpy")(*given)
    for passes in ("all", "none"):
        got = tinygraph.function([x, w], again, backend=backend, passes=passes)(*given)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_results_do_not_depend_on_the_number_of_threads(rng):
    x, w = T.tensor4("x"), T.tensor4("w")
    out = T.nnet.conv2d(x, w, border_mode="half", subsample=(1, 2))
    top = pool_2d(out, 2, False)
    f = tinygraph.function([x, w], [top, *tinygraph.grad((top ** 2).sum(), [x, w])])
    given = [rng.normal(size=s).astype("float32") for s in ((9, 7, 40, 50), (20, 7, 3, 3))]
    with tinygraph.config.change(threads=1):
        alone = f(*given)
    for threads in (2, 3):
        with tinygraph.config.change(threads=threads):
            for a, b in zip(f(*given), alone, strict=True):
                np.testing.assert_array_equal(a, b)


def test_one_compile_serves_all_sizes(rng):
    x, w = T.dtensor4("x"), T.dtensor4("w")
    out = T.nnet.conv2d(x, w, border_mode="half")
    f = tinygraph.function([x, w], [out, *tinygraph.grad(out.sum(), [x, w])])
    for n, c, h, width, o, k in [(2, 3, 8, 9, 4, 3), (1, 1, 30, 5, 2, 5), (0, 2, 4, 4, 1, 1),
                                 (3, 0, 5, 5, 2, 3), (5, 2, 64, 70, 3, 3)]:
        a, b = rng.normal(size=(n, c, h, width)), rng.normal(size=(o, c, k, k))
        np.testing.assert_allclose(f(a, b)[0], reference(a, b, "half"), atol=1e-10)
    assert f.compiles == 1


def test_one_product_and_windows_are_not_copied():
    x, w = T.tensor4("x"), T.tensor4("w")
    out = T.nnet.conv2d(x, w)
    nodes = toposort([out])
    assert [type(n.op) for n in nodes if isinstance(n.op, (Dot, Windows))] == [Windows, Dot]
    cost = (out ** 2).sum()
    report = tinygraph.function([x, w], [cost, *tinygraph.grad(cost, [x, w])]).report()
    assert report.outside.products == 3
    sizes = {"x_0": 64, "x_1": 16, "x_2": 60, "x_3": 60, "w_0": 16, "w_2": 5, "w_3": 5}
    found = report.workspace_bytes(**{k: sizes.get(k, 2) for k in report.sizes})
    image = 64 * 16 * 60 * 60 * 4
    assert found < 5 * image


def test_the_gradient_of_a_convolution_is_one():
    x, w = T.tensor4("x"), T.tensor4("w")

    def after(**options):
        out = T.nnet.conv2d(x, w, filter_shape=(None, None, *options.pop("size", (3, 3))),
                            **options)
        grads = tinygraph.grad((out ** 2).sum(), [x, w])
        return tinygraph.function([x, w], grads, backend="loops").after("canonical")

    for mode in ("valid", "half", "full"):
        text = after(border_mode=mode)
        assert text.count("dot{") == 3 and "unwindows" not in text
    assert "windows" not in after(size=(1, 1))
    assert "unwindows" in after(subsample=(2, 2))


def test_windows_of_steps_are_added_as_they_are_made():
    x, w = T.tensor4("x"), T.tensor4("w")
    out = T.nnet.conv2d(x, w, subsample=(2, 2))
    report = tinygraph.function([x, w], tinygraph.grad((out ** 2).sum(), x)).report()
    sizes = {"x_0": 64, "x_1": 16, "x_2": 60, "x_3": 60, "w_0": 16, "w_2": 7, "w_3": 7}
    found = report.workspace_bytes(**{k: sizes.get(k, 2) for k in report.sizes})
    assert found < 3 * 64 * 16 * 60 * 60 * 4


@ON_ALL
def test_in_scan(backend, rng):
    """A convolutional recurrent step."""
    x, w, u = T.dtensor5("x"), T.dtensor4("w"), T.dtensor4("u")
    h0 = T.dtensor4("h0")

    def step(x_t, h):
        return T.tanh(T.nnet.conv2d(x_t, w, border_mode="half")
                      + T.nnet.conv2d(h, u, border_mode="half"))

    hs, _ = tinygraph.scan(step, sequences=x, outputs_info=h0)
    f = tinygraph.function([x, h0, w, u], [hs[-1], *tinygraph.grad((hs ** 2).sum(), [x, w, u])],
                           backend=backend)
    given = [rng.normal(size=s) for s in ((3, 2, 2, 4, 5), (2, 3, 4, 5), (3, 2, 3, 3),
                                          (3, 3, 3, 3))]
    h = given[1]
    for x_t in given[0]:
        h = np.tanh(reference(x_t, given[2], "half") + reference(h, given[3], "half"))
    got = f(*given)
    np.testing.assert_allclose(got[0], h, rtol=1e-10)
    if backend != "numpy":
        want = tinygraph.function([x, h0, w, u], [hs[-1], *tinygraph.grad(
            (hs ** 2).sum(), [x, w, u])], backend="numpy")(*given)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8)


def test_a_recurrent_convolution_has_one_product_a_step():
    """Input products are computed before the loop, gradients of filters behind it, and windows
    are stacked by neither loop."""
    x, w, u, h0 = T.tensor5("x"), T.tensor4("w"), T.tensor4("u"), T.tensor4("h0")
    shape = {"border_mode": "half", "filter_shape": (None, None, 3, 3)}
    hs, _ = tinygraph.scan(lambda x_t, h: T.tanh(
        T.nnet.conv2d(x_t, w, **shape) + T.nnet.conv2d(h, u, **shape)), x, h0)
    f = tinygraph.function([x, h0, w, u], tinygraph.grad((hs ** 2).sum(), [x, w, u]),
                           backend="loops")
    report = f.report()
    assert [loop.step.products for loop in report.loops] == [1, 1]
    assert report.outside.products == 4
    sizes = {"x_0": 20, "h0_0": 16, "h0_2": 30, "h0_3": 30, "u_0": 16, "w_1": 16}
    found = report.workspace_bytes(**{k: sizes.get(k, 2) for k in report.sizes})
    assert found < 8 * 20 * 16 * 16 * 30 * 30 * 4


def test_products_of_other_windows_are_not_joined(rng):
    x, y, w, v = (T.dtensor4(name) for name in "xywv")
    conv = T.nnet.conv2d
    outs = [conv(x, w) + conv(y, v), conv(x, w) + conv(y, w), conv(x, w) * 2 - conv(x, v)]
    f = tinygraph.function([x, y, w, v], outs)
    lines = [line.strip() for line in f.after("canonical").splitlines()]
    windows = [line.split()[0] for line in lines if " = windows{" in line]
    readers = [line for line in lines if any(re.search(rf"[(, ]{v}[,)]", line) for v in windows)]
    assert len(windows) == 4 and readers and all(" = dot{" in line for line in readers)
    given = [rng.normal(size=s) for s in ((2, 3, 5, 6), (2, 3, 5, 6), (4, 3, 2, 3), (4, 3, 2, 3))]
    a, b, c, d = given
    want = (reference(a, c) + reference(b, d), reference(a, c) + reference(b, c),
            2 * reference(a, c) - reference(a, d))
    for one, two in zip(f(*given), want, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-11)


def test_known_shapes_are_checked(rng):
    x, w = T.dtensor4("x"), T.dtensor4("w")
    out = T.nnet.conv2d(x, w, (None, 3, 8, None), (4, 3, 3, 3))
    assert [d.const for d in out.type.dims][1:3] == [4, 6]
    f = tinygraph.function([x, w], out)
    a, b = rng.normal(size=(2, 3, 8, 7)), rng.normal(size=(4, 3, 3, 3))
    np.testing.assert_allclose(f(a, b), reference(a, b), atol=1e-12)
    with pytest.raises(ShapeError, match="axis 2 of x"):
        f(a[:, :, 1:], b)


def test_a_filter_larger_than_the_image(rng):
    x, w = T.dtensor4("x"), T.dtensor4("w")
    f = tinygraph.function([x, w], T.nnet.conv2d(x, w))
    with pytest.raises(ShapeError, match="takes 5 elements, but there are 4"):
        f(np.zeros((1, 1, 4, 9)), np.zeros((1, 1, 5, 1)))
    with pytest.raises(ShapeError, match="takes 5 elements, but there are 4"):
        T.nnet.conv2d(np.zeros((1, 1, 4, 9)), np.zeros((1, 1, 5, 1)))


@pytest.mark.parametrize("arguments, error, words", [
    (dict(border_mode="same"), ValueError, "border_mode is 'same'"),
    (dict(border_mode=-1), ValueError, "not negative"),
    (dict(border_mode=(1, 2, 3)), ValueError, "2 numbers"),
    (dict(subsample=(0, 1)), ValueError, "subsample"),
    (dict(subsample=(1, 1, 1)), ValueError, "subsample"),
    (dict(filter_dilation=(1,)), ValueError, "filter_dilation"),
    (dict(num_groups=0), ValueError, "num_groups"),
    (dict(num_groups=2), ShapeError, "take 4 channels in each of 2 groups"),
    (dict(input_shape=(1, 5, 6, 6)), ShapeError, "the shape given for the input says 5"),
    (dict(filter_shape=(1, 5, 6)), ValueError, "has 3 entries"),
])
def test_wrong_arguments(arguments, error, words):
    x, w = np.zeros((1, 4, 6, 6)), np.zeros((2, 4, 3, 3))
    with pytest.raises(error, match=words):
        T.nnet.conv2d(x, w, **arguments)


def test_wrong_ranks_and_channels():
    with pytest.raises(TypeError, match="the input must have 4 axes"):
        T.nnet.conv2d(T.matrix("x"), T.tensor4("w"))
    with pytest.raises(TypeError, match="the filters must have 5 axes"):
        T.nnet.conv3d(T.tensor5("x"), T.tensor4("w"))
    x, w = T.dtensor4("x"), T.dtensor4("w")
    f = tinygraph.function([x, w], T.nnet.conv2d(x, w))
    with pytest.raises(ShapeError, match=r"axis 1 of x .*is 4, but axis 1 of w .*is 3"):
        f(np.zeros((1, 4, 6, 6)), np.zeros((2, 3, 3, 3)))
    f = tinygraph.function([x, w], T.nnet.conv2d(x, w, num_groups=2))
    with pytest.raises(ShapeError, match="axis 1 of x .*is 4, but 6 is needed"):
        f(np.zeros((1, 4, 6, 6)), np.zeros((2, 3, 3, 3)))


# --- the adjoints -------------------------------------------------------------------------------


@ON_ALL
@pytest.mark.parametrize("options", [
    {}, {"border_mode": "half", "subsample": (2, 3)}, {"border_mode": "full", "num_groups": 2},
    {"border_mode": ((1, 0), (2, 1)), "filter_dilation": (2, 1), "filter_flip": False}])
def test_gradients_as_functions(backend, options, rng):
    groups = options.get("num_groups", 1)
    a, b = rng.normal(size=(2, 4, 7, 8)), rng.normal(size=(6, 4 // groups, 3, 2))
    x, w, g = T.dtensor4("x"), T.dtensor4("w"), T.dtensor4("g")
    out = T.nnet.conv2d(x, w, **options)
    c = rng.normal(size=tinygraph.function([x, w], out)(a, b).shape)
    wanted = tinygraph.function([x, w, g], tinygraph.grad((out * g).sum(), [x, w]))(a, b, c)
    more = {**options, "imshp": (None, 4, None, None), "kshp": b.shape}
    found = tinygraph.function([x, w, g], [
        A.conv2d_grad_wrt_inputs(g, w, (None, None, x.shape[2], x.shape[3]), **options),
        A.AbstractConv2d_gradInputs(**more)(w, g, x.shape[2:]),
        A.AbstractConv2d_gradInputs(**more)(w, g, (7, 8)),
        A.conv2d_grad_wrt_weights(x, g, b.shape, **options),
        A.AbstractConv2d_gradWeights(**more)(x, g, w.shape[2:]),
        A.AbstractConv2d(**more)(x, w) - out], backend=backend)(a, b, c)
    for k in range(3):
        np.testing.assert_allclose(found[k], wanted[0], atol=1e-12)
    for k in (3, 4):
        np.testing.assert_allclose(found[k], wanted[1], atol=1e-12)
    assert not found[5].any()


def test_adjoints_of_volumes_and_transposed(rng):
    a, b = rng.normal(size=(1, 2, 4, 5, 4)), rng.normal(size=(3, 2, 2, 3, 2))
    c = rng.normal(size=reference(a, b, strides=(2, 1, 1)).shape)
    x, w, g = T.dtensor5("x"), T.dtensor5("w"), T.dtensor5("g")
    made = [A.AbstractConv3d_gradInputs(subsample=(2, 1, 1))(w, g, a.shape[2:]),
            A.conv3d_grad_wrt_inputs(g, w, a.shape, subsample=(2, 1, 1)),
            A.conv3d_grad_wrt_weights(x, g, b.shape, subsample=(2, 1, 1)),
            A.AbstractConv3d_gradWeights(subsample=(2, 1, 1))(x, g, b.shape[2:])]
    found = tinygraph.function([x, w, g], made)(a, b, c)
    for gx in found[:2]:
        assert_adjoint(lambda e: reference(e, b, strides=(2, 1, 1)), c, gx)
    for gw in found[2:]:
        assert_adjoint(lambda e: reference(a, e, strides=(2, 1, 1)), c, gw)
    x, w = T.dtensor4("x"), T.dtensor4("w")
    a, b = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(3, 2, 3, 3))
    up = T.nnet.conv2d_transpose(x, w, (None, 2, 9, 11), border_mode=0, input_dilation=(2, 2))
    got = tinygraph.function([x, w], up)(a, b)
    assert got.shape == (2, 2, 9, 11)
    assert_adjoint(lambda e: reference(e, b, strides=(2, 2)), a, got)
    with pytest.raises(ShapeError, match="4, but there are 5"):
        tinygraph.function([x, w], T.nnet.conv2d_transpose(
            x, w, (None, None, 11, 11), input_dilation=(2, 2)))(a, b)


def test_output_shapes():
    shape = A.get_conv_output_shape
    assert shape((2, 3, 10, None), (5, 3, 3, 3), "half", (2, 2)) == (2, 5, 5, None)
    assert shape((2, 3, 10, 9), (5, 3, 3, 2), "full", (1, 1), (2, 1)) == (2, 5, 14, 10)
    assert shape((None, 3, 10, 9), (5, 3, 3, 2), (1, (0, 2)), (1, 1)) == (None, 5, 10, 10)
    with pytest.raises(ValueError, match="'same'"):
        shape((2, 3, 10, 9), (5, 3, 3, 2), "same", (1, 1))


# --- what else is made of windows ---------------------------------------------------------------


def test_plain_images(rng):
    a, b = rng.normal(size=(3, 6, 7)), rng.normal(size=(2, 3, 2))
    want = reference(a[:, None], b[:, None], "full")
    x, w = T.dtensor3("x"), T.dtensor3("w")
    f = tinygraph.function([x, w], [
        signal_conv.conv2d(x, w, border_mode="full"),
        signal_conv.conv2d(x[0], w, border_mode="full"),
        signal_conv.conv2d(x, w[1], (3, 6, 7), (3, 2), border_mode="full"),
        T.signal.conv.conv2d(x[0], w[1], border_mode="full")])
    parts = (want, want[0], want[:, 1], want[0, 1])
    for one, two in zip(f(a, b), parts, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-12)
    with pytest.raises(TypeError, match="2 or 3 axes"):
        signal_conv.conv2d(T.tensor4(), T.matrix())


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_bilinear_upsampling(ratio, rng):
    """Places between two pixels, ratio apart, are weighed by their distances."""
    a = rng.normal(size=(2, 3, 4, 5))
    x = T.dtensor4("x")
    got = tinygraph.function([x], A.bilinear_upsampling(x, ratio))(a)

    def stretched(values, axis):
        n = values.shape[axis]
        place = (np.arange(n * ratio) - (ratio - 1) // 2) / ratio
        low = np.floor(place).astype(int)
        part = (place - low).reshape([-1 if k == axis else 1 for k in range(4)])
        return ((1 - part) * np.take(values, np.clip(low, 0, n - 1), axis)
                + part * np.take(values, np.clip(low + 1, 0, n - 1), axis))

    np.testing.assert_allclose(got, stretched(stretched(a, 2), 3), atol=1e-12)
    kernel = tinygraph.function([], A.bilinear_kernel_2D(2, normalize=False))()
    np.testing.assert_array_equal(kernel, [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
