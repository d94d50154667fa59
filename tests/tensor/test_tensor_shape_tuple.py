"""x.shape is a tuple of scalars that also serves as the vector of sizes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from tensor_checks import matches

import tinygraph
import tinygraph.tensor as T


def test_as_a_vector(rng):
    x, i = rng.normal(size=(2, 3, 4)), np.array(2)
    sizes = np.array(x.shape)
    matches(lambda x, i: [T.prod(x.shape), x.shape.prod(), x.shape[:2].prod(), x.shape // 2,
                          x.shape - 1, 5 - x.shape, x.shape / 2, x.shape % 2, x.shape[i],
                          x.shape.astype("int8"), T.eq(x.shape, 3), T.stack(x.shape),
                          x.shape[::-1].max()],
            [sizes.prod(), sizes.prod(), sizes[:2].prod(), sizes // 2, sizes - 1, 5 - sizes,
             (sizes / 2).astype(tinygraph.config.floatX), sizes % 2, sizes[2], sizes.astype("int8"),
             sizes == 3, sizes, sizes.max()], x, i, smooth=False)


def test_as_a_shape(rng):
    x = rng.normal(size=(2, 3, 4))
    matches(lambda x: [x.reshape(T.concatenate([x.shape[:1], [12]]), ndim=2),
                       x.reshape((x.shape[0], -1)), T.zeros(x.shape[1:], x.dtype),
                       T.zeros(x.shape + (2,), x.dtype)],
            [x.reshape(2, 12), x.reshape(2, 12), np.zeros((3, 4)), np.zeros((2, 3, 4, 2))], x)


def test_as_a_tuple():
    x = T.tensor3("x")
    a, b, c = x.shape
    assert len(x.shape) == 3 and tuple(x.shape)[0].ndim == 0
    assert (x.shape.ndim, x.shape.dtype) == (1, "int64")
    assert x.shape.eval({x: np.zeros((2, 3, 4), x.dtype)}).tolist() == [2, 3, 4]
    assert isinstance(x.shape[1:], T.ShapeTuple) and len(copy.copy(x.shape)) == 3
    assert len(pickle.loads(pickle.dumps(x.shape))) == 3
    with pytest.raises(AttributeError):
        _ = x.shape.no_such_name
    with pytest.raises(IndexError):
        _ = x.shape[3]


def test_of_a_scalar():
    assert T.scalar().shape == ()
    matches(lambda x: x.shape.prod(), np.array(1), np.array(2.0), smooth=False)
