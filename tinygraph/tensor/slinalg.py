"""Matrices under the names of ``theano.tensor.slinalg``."""

from __future__ import annotations

from tinygraph.tensor.functions import kron

__all__ = ["kron"]
