"""Under this name users know ``rng_mrg``.  It brings ``tensor.shared_randomstreams`` with it."""

from tinygraph.sandbox import rng_mrg

__all__ = ["rng_mrg"]
