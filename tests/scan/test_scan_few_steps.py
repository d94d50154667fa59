"""Parts of a loop's stack as another loop's sequence, down to no rows at all."""

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T

PARTS = [slice(1, None), slice(None, -1), slice(-2, None), slice(None, 0, -1),
         slice(None, None, -2), slice(0, 1)]


@pytest.mark.parametrize("part", PARTS, ids=str)
@pytest.mark.parametrize("backend", ["loops", "llvm"])
def test_the_gradient_through_a_part_of_a_stack(part, backend):
    """The back end 'loops' checks every access to memory."""
    x, w = T.matrix("x"), T.vector("w")
    states, _ = tinygraph.scan(lambda row, h: T.tanh(row + h * w), x, T.zeros_like(w))
    others, _ = tinygraph.scan(lambda row, h: T.tanh(row + h), states[part], T.zeros_like(w))
    gradient = tinygraph.grad((others**2).sum(), w)
    f, oracle = (tinygraph.function([x, w], gradient, backend=b) for b in (backend, "numpy"))
    for rows in (0, 1, 2, 5):
        given = np.random.default_rng(rows).standard_normal((rows, 3)), np.ones(3)
        given = [a.astype("float32") for a in given]
        np.testing.assert_allclose(f(*given), oracle(*given), rtol=1e-4, atol=1e-5)
