"""Random numbers in graphs: ``RandomStreams``.

>>> from tinygraph.tensor.shared_randomstreams import RandomStreams
>>> streams = RandomStreams(seed=234)
>>> noise = streams.normal((2, 3))          # a variable; every call of a function draws anew
>>> f = tinygraph.function([], noise)

A draw has a state of its own, a shared variable that every function using the draw advances (its
``default_update``).  The numbers are those of Philox4x32-10 (see ops/philox.py), not those of
numpy's generators: they do not depend on the back end or on the number of threads.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygraph.compile.variables import SharedVariable, Storage
from tinygraph.dims import dim
from tinygraph.dtypes import int64
from tinygraph.graph import Type, user_source
from tinygraph.ops import arithmetic
from tinygraph.ops.philox import philox
from tinygraph.tensor import distributions
from tinygraph.tensor.variable import Tensor


class RandomStreams:
    """Makes random variables.  The same seed and the same order of calls give the same numbers.

    seed: an integer of at least 0, a sequence of them, or None: another one each time.

    Of each variable that a method returns, ``rng`` is the shared variable that holds its state,
    an int64 vector of its key and of how many arrays it has drawn: with its ``get_value`` and
    ``set_value`` a draw is repeated.  ``update`` is the pair (state, next state).  A step of a
    scan that draws has new numbers in every step.

    The parameters are those of the functions in tinygraph/tensor/distributions.py, without the
    state.  Raises TypeError and ValueError for sizes, dtypes and parameters that make no sense.
    """

    def __init__(self, seed: Any = None) -> None:
        self.default_instance_seed = seed
        self._master = _master_key(seed)
        self.states: list[SharedVariable] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}(seed={self.default_instance_seed!r})"

    @property
    def state_updates(self) -> list[tuple[SharedVariable, Any]]:
        """(state, next state) of every variable drawn so far."""
        return [(state, state.default_update) for state in self.states]

    def updates(self) -> list[tuple[SharedVariable, Any]]:
        """``state_updates``.  Functions apply them by themselves."""
        return self.state_updates

    def seed(self, seed: Any = None) -> None:
        """Start every variable drawn so far anew, as if made with ``seed`` (None: the seed that
        these streams were made with)."""
        self._master = _master_key(self.default_instance_seed if seed is None else seed)
        for k, state in enumerate(self.states):
            state.set_value(self._first(k))

    def gen(self, op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A new random variable ``op(state, *args, **kwargs)``; ``op`` is one of the functions of
        tinygraph/tensor/distributions.py, or another made of them."""
        array = self._first(len(self.states))
        state = SharedVariable(Storage(array, True), Type(int64, (dim(2),)), "random state",
                               user_source())
        out = op(state, *args, **kwargs)
        state.default_update = state + arithmetic.constant([0, 1], int64, Tensor)
        out.rng, out.update = state, (state, state.default_update)
        self.states.append(state)
        return out

    def _first(self, k: int) -> np.ndarray:
        """The state of variable ``k`` before it draws."""
        key, _ = philox(np.asarray(k), np.asarray(0), self._master)
        return np.append(key, np.int64(0))

    # --- distributions ---

    def uniform(self, size: Any = None, low: Any = 0.0, high: Any = 1.0, ndim: int | None = None,
                dtype: Any = None) -> Any:
        """Numbers of [low, high)."""
        return self.gen(distributions.uniform, size, low, high, ndim, dtype)

    def normal(self, size: Any = None, avg: Any = 0.0, std: Any = 1.0, ndim: int | None = None,
               dtype: Any = None) -> Any:
        """Normal numbers of mean ``avg`` and standard deviation ``std``."""
        return self.gen(distributions.normal, size, avg, std, ndim, dtype)

    def truncated_normal(self, size: Any = None, avg: Any = 0.0, std: Any = 1.0,
                         ndim: int | None = None, dtype: Any = None) -> Any:
        """Normal numbers within two standard deviations of the mean."""
        return self.gen(distributions.truncated_normal, size, avg, std, ndim, dtype)

    def binomial(self, size: Any = None, n: Any = 1, p: Any = 0.5, ndim: int | None = None,
                 dtype: Any = "int64") -> Any:
        """How many of ``n`` trials of probability ``p`` succeed."""
        return self.gen(distributions.binomial, size, n, p, ndim, dtype)

    def poisson(self, size: Any = None, lam: Any = 1.0, ndim: int | None = None,
                dtype: Any = "int64") -> Any:
        """Poisson numbers of mean ``lam``."""
        return self.gen(distributions.poisson, size, lam, ndim, dtype)

    def random_integers(self, size: Any = None, low: Any = 0, high: Any = 1,
                        ndim: int | None = None, dtype: Any = "int64") -> Any:
        """Integers from ``low`` to ``high``, both included."""
        return self.gen(distributions.random_integers, size, low, high, ndim, dtype)

    def multinomial(self, size: Any = None, n: Any = 1, pvals: Any = (0.5, 0.5),
                    ndim: int | None = None, dtype: Any = "int64") -> Any:
        """How often each class of the last axis of ``pvals`` comes up in ``n`` draws; the classes
        are the last axis of the result."""
        return self.gen(distributions.multinomial, size, n, pvals, ndim, dtype)

    def choice(self, size: Any = (), a: Any = 2, replace: bool = True, p: Any = None,
               ndim: int | None = None, dtype: Any = None) -> Any:
        """Elements of the vector ``a``, or numbers below the integer ``a``."""
        return self.gen(distributions.choice, size, a, replace, p, ndim, dtype)

    def permutation(self, size: Any = None, n: Any = 1, ndim: int | None = None,
                    dtype: Any = "int64") -> Any:
        """Permutations of 0, ..., n - 1 along a new last axis."""
        return self.gen(distributions.permutation, size, n, ndim, dtype)

    def shuffle_row_elements(self, input: Any) -> Any:
        """``input`` with every row (its last axis) shuffled."""
        return self.gen(distributions.shuffle_row_elements, input)


def _master_key(seed: Any) -> np.ndarray:
    """64 bits that the keys of all variables are made of."""
    def checked(n: Any) -> int:
        number = operator.index(n)
        if number < 0:
            raise ValueError
        return number

    try:
        if seed is not None:
            numbers = isinstance(seed, (list, tuple, np.ndarray)) and np.ndim(seed) > 0
            seed = [checked(n) for n in seed] if numbers else checked(seed)
    except (TypeError, ValueError):
        raise ValueError(f"the seed is {seed!r}; it must be an integer of at least 0, a sequence "
                         "of them, or None") from None
    return np.random.SeedSequence(seed).generate_state(1, np.uint64).view(np.int64)
