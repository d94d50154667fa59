"""Pooling under the names that it had before ``pool``."""

from tinygraph.tensor.signal.pool import max_pool_2d_same_size, pool_2d

__all__ = ["max_pool_2d", "max_pool_2d_same_size"]

max_pool_2d = pool_2d
