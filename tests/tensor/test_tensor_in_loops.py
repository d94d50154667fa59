"""Functions composed of several ops inside the step of a scan, and their gradients through it:
what moves out of the loop must mean the same there."""

from __future__ import annotations

import numpy as np
import pytest
from tensor_checks import matches

import tinygraph
import tinygraph.tensor as T

# per step: x (a matrix, a row of the sequence), h (the state), w (a constant of the loop)
STEPS = {
    "einsum": lambda x, h, w: T.einsum("ij,kj,kl->il", x, h, w),
    "einsum of a diagonal": lambda x, h, w: T.einsum("ii,jk->jk", x, w) * h,
    "pad": lambda x, h, w: T.pad(x[1:, :-1], [(1, 0), (0, 1)], "edge") * h,
    "reflect": lambda x, h, w: (T.pad(w[:2], [(0, 1), (0, 0)], "reflect")
                                + T.pad(x, 1)[1:-1, 2:] * h),
    "diag": lambda x, h, w: T.diag(T.diagonal(h, 1) + x[0, :2], 1) + T.diag(T.diag(w)),
    "kron": lambda x, h, w: T.kron(x[:1], h[:, :1]) + T.inner(x, w),
    "batched_tensordot": lambda x, h, w: T.batched_tensordot(x, w, 1).dimshuffle(0, "x") * h,
    "stack": lambda x, h, w: T.stack([x[0], h[1], w[2]], 1) * h,
    "clip": lambda x, h, w: T.clip(h + x, None, 0.5) * T.nan_to_num(w),
    "softmax_crossentropy": lambda x, h, w: h * T.nnet.softmax_crossentropy(
        x + w, np.array([0, 2, 1])).dimshuffle(0, "x"),
    "batch normalization": lambda x, h, w: T.nnet.bn.batch_normalization_train(
        x + h, w[0], w[1])[0],
    "swish and gelu": lambda x, h, w: T.nnet.swish(x) + T.nnet.gelu(h * w),
    "matrix_power": lambda x, h, w: 0.1 * T.nlinalg.matrix_power(h, 3) + T.nlinalg.matrix_dot(x, w),
    "meshgrid": lambda x, h, w: h * sum(T.meshgrid(x[0], w[1])),
    "variance": lambda x, h, w: h + T.var(x + w, 0, 1, corrected=True) * h.std(1, keepdims=True),
}


@pytest.mark.parametrize("name", STEPS)
def test_in_a_scan(name, rng):
    step = STEPS[name]

    def build(xs, h0, w):
        states, _ = tinygraph.scan(lambda x, h, w: T.tanh(step(x, h, w)), sequences=xs,
                                   outputs_info=h0, non_sequences=w)
        cost = (states ** 2).sum()
        return [states[-1], cost, *T.grad(cost, [xs, h0, w], disconnected_inputs="ignore")]

    arrays = [rng.normal(size=s) for s in ((4, 3, 3), (3, 3), (3, 3))]
    xs, h0, w = (T.dtensor3(), T.dmatrix(), T.dmatrix())
    want = tinygraph.function([xs, h0, w], build(xs, h0, w), backend="numpy")(*arrays)
    matches(build, want, *arrays, rtol=1e-9, smooth=False)
    tinygraph.verify_grad(lambda xs, h, w: build(xs, h, w)[1], arrays, rel_tol=1e-4)
